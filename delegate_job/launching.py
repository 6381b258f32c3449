"""The duty to launch: the agent's instructions and files, then its session. It is never done twice.

Not what happens in the pane: that is `runner`'s.
"""

import os
import time
from pathlib import Path
from typing import Any

from delegate_job import briefing, launcher
from delegate_job.agent_session import RUNNER_START_TIMEOUT
from delegate_job.duty import Duty
from delegate_job.environment import is_readable
from delegate_job.errors import NotStartedError, UsageError, one_line
from delegate_job.events import Kind
from delegate_job.job import Action
from delegate_job.launcher import RunnerState
from delegate_job.tmux import SessionExistsError, TmuxError

HEAD_START = 0.05
"""Seconds that the loop gives a launch before it goes on: the agent is on its way before a broker is."""


class Launch(Duty):
    """The first launch of a job, and what a launch needs."""

    _inherited = False
    """Whether an earlier owner may have begun it."""
    _give_up_at: float | None = None

    def inherit(self) -> None:
        """An earlier owner was to launch, and may have: its launch is the job's launch."""
        self._inherited = self._session.in_tmux

    def act(self) -> None:
        """Launch, unless it was done; while tmux gives no answer, wait."""
        if self._session.is_started:
            return
        if not is_readable(self._paths.environ):
            self._owned.say(Kind.NOT_LAUNCHED, "the environment of the submit is gone or damaged")
        elif self._session.in_tmux and not self._session.answers:
            return
        elif self._inherited:
            self._look_for_predecessor()
        else:
            self._launch()

    def _launch(self) -> None:
        try:
            self.brief()
        except (NotStartedError, UsageError, OSError) as error:
            self._owned.say(Kind.NOT_LAUNCHED, one_line(error))
            return
        if not self._session.in_tmux:
            self._session.is_started = True
            self._begin(Action.LAUNCH, self._record_work_tree, lambda _: None)
            return
        self._begin(Action.LAUNCH, self._start, self._launched, head_start=HEAD_START)

    def _start(self) -> str:
        self._record_work_tree()
        return launcher.start(self._session.tmux, self._session.name, self._paths)

    def _record_work_tree(self) -> None:
        """Note what a report is to compare with, before the agent can change it."""
        workdir = self._job.spec.workdir
        if _may_be_in_git(workdir):
            from delegate_job import changes

            changes.record(workdir, self._paths.baseline)

    def _launched(self, result: Any) -> None:
        """Take in the server's socket. By now the job may have been cancelled: what was launched is ended."""
        if not isinstance(result, Exception):
            self._session.started(result)
        elif not isinstance(result, NotStartedError | UsageError | OSError):
            raise result
        elif isinstance(result, TmuxError) and self._has_runner():
            self._session.started("")  # It took too long, and was done all the same.
        else:
            unsure = isinstance(result, TmuxError) and not isinstance(result, SessionExistsError)
            self._session.is_doubtful = unsure
            self._owned.say(Kind.NOT_LAUNCHED, one_line(result))

    def _has_runner(self) -> bool:
        return launcher.runner_state(self._paths) is not RunnerState.STARTING

    def _look_for_predecessor(self) -> None:
        """Look for what an earlier owner may have started before it ended."""
        session = self._session
        if self._has_runner():
            # Also of one that has ended by now: the agent must not run twice.
            self._begin(Action.LAUNCH, lambda: session.tmux.socket_path() or "", self._found)
            return
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + RUNNER_START_TIMEOUT
        is_late = now >= self._give_up_at
        self._begin(Action.LAUNCH, lambda: self._is_free_to_launch(give_up=is_late), self._looked)

    def _is_free_to_launch(self, *, give_up: bool) -> bool:
        """Return whether no session stands in which an earlier owner's runner may still come."""
        if self._session.tmux.has_session(self._session.name) is not True:
            return True
        if give_up:
            self._session.tmux.kill_session(self._session.name)
        return give_up

    def _found(self, result: Any) -> None:
        self._session.started("" if isinstance(result, Exception) else result)

    def _looked(self, result: Any) -> None:
        if isinstance(result, Exception):
            self._launched(result)
        else:
            self._inherited = not result

    def brief(self, *, rejection: str | None = None) -> None:
        """Write all that the next launch is given. NotStartedError, UsageError, OSError."""
        spec = self._job.spec
        prompt = self._paths.prompt.read_bytes()
        brief = briefing.describe(
            spec,
            self._registry.paths,
            prompt=prompt,
            environ=self._environ,
            rejection=rejection,
            attempt=self._job.attempt,
        )
        briefing.write(brief, spec, self._paths, prompt=prompt)
        if not brief.in_tmux:
            self._listener.task(self._job, brief.instructions)
            self._owned.say(Kind.SPAWNED)


def _may_be_in_git(workdir: str) -> bool:
    """Return whether `.git` stands in the work dir or above: all others are spared a process."""
    here = Path(os.path.realpath(workdir))
    return any((directory / ".git").exists() for directory in (here, *here.parents))
