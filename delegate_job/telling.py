"""The duty to tell: bring a rejection to the agent, into its session or with another launch.

From `telling` on a claim counts, so all that was claimed before is read before. Nothing is typed while a
dialog is open: it would be taken for the answer.
"""

import math
import time
from typing import Any

from delegate_job import launcher
from delegate_job.agents.instructions import publish_argv, rejection_message
from delegate_job.duty import Duty
from delegate_job.errors import NotStartedError, UsageError, one_line
from delegate_job.events import Event, Kind
from delegate_job.hook_state import HookState
from delegate_job.job import Action, JobState, Verdict
from delegate_job.launcher import RunnerState
from delegate_job.launching import Launch
from delegate_job.receipt import press_enter
from delegate_job.tmux import PASTE_PAUSE, TmuxError

TRY_AGAIN = 0.5
"""Seconds after which what could not be typed is typed again."""
MOST_MISSED = 3
"""Launches in a row whose runner did not start, after which no other is tried."""


class Tell(Duty):
    """The telling of one job: a paste, a pause, an Enter; or a launch."""

    launch: Launch
    _enter_at: float | None = None
    _not_before = 0.0
    _rejection = ""
    _turn = 0
    """The agent's turn before the paste, as its hooks count."""
    _exit_code: int | None = None

    @property
    def _hooks(self) -> HookState:
        return HookState(str(self._paths.agent))

    def note_rejection(self, event: Event) -> None:
        """Remember what the last check said."""
        self._rejection = str(event.data.get("output", ""))
        self._exit_code = event.data.get("exit_code")

    def withdraw(self) -> None:
        """What was answered before its Enter must not get it in the next round."""
        self._enter_at = None

    def enter_in(self) -> float:
        """Return the seconds until Enter is to be pressed; infinite when nothing was pasted."""
        if self._enter_at is None or self._job.state is JobState.WAITING:
            return math.inf
        return max(self._enter_at - time.monotonic(), 0.0)

    def act(self) -> None:
        """Do the next part of it; while tmux gives no answer, wait."""
        now = time.monotonic()
        if self._job.state is JobState.WAITING:
            return
        if not self._session.in_tmux:
            self._tell_person()
        elif not self._session.answers or now < self._not_before:
            return
        elif self._session.exited:
            self._relaunch()
        elif self._enter_at is None:
            self._paste()
        elif now >= self._enter_at:
            self._press_enter()

    def _still_owed(self) -> bool:
        """Read all that was said before; return whether the rejection is to be told all the same."""
        return (
            self._owned.drain() and self._job.owed is Action.TELL and self._job.state is not JobState.WAITING
        )

    def _say_telling(self, how: str) -> None:
        self._owned.say(Kind.TELLING, data={"how": how})
        self._owned.apply_own()

    def _tell_person(self) -> None:
        self._owned.drain()
        if self._job.owed is not Action.TELL:
            return
        self._owned.say(Kind.TELLING)
        self._listener.task(self._job, self._message())
        self._owned.say(Kind.TOLD)

    def _message(self) -> str:
        job = self._job
        return rejection_message(
            job.spec,
            attempt=job.attempt,
            verdict=job.verdict or Verdict.FAILED,
            exit_code=self._exit_code,
            output=self._rejection,
            publish_argv=publish_argv(self._registry.paths.root),
        )

    # -- into the session

    def _paste(self) -> None:
        # What stands in the files before the paste is of the round before. Not before the Enter: a program
        # that reads its terminal line by line has the text, and may answer, as soon as it is pasted.
        if not self._still_owed() or self._session.exited:
            return
        self._say_telling("session")
        tmux, name, message = self._session.tmux, self._session.name, self._message()
        self._turn = self._hooks.turn().number
        self._begin(Action.TELL, lambda: tmux.paste(name, message), self._pasted)

    def _pasted(self, result: Any) -> None:
        if self._was_typed(result) and self._job.owed is Action.TELL:
            self._enter_at = time.monotonic() + PASTE_PAUSE

    def _press_enter(self) -> None:
        tmux, name, before = self._session.tmux, self._session.name, self._turn
        self._begin(
            Action.TELL, lambda: press_enter(lambda: tmux.enter(name), self._hooks, before), self._entered
        )

    def _entered(self, result: Any) -> None:
        self._enter_at = None
        if self._was_typed(result):
            self._owned.say(Kind.TOLD)

    def _was_typed(self, result: Any) -> bool:
        if isinstance(result, TmuxError):
            # Without a pane to type into the agent is on its way out, and its end on its way to us.
            self._not_before = time.monotonic() + TRY_AGAIN
            return False
        if isinstance(result, Exception):
            raise result
        return True

    # -- with another launch

    def _relaunch(self) -> None:
        self._enter_at = None
        if launcher.runner_state(self._paths) is RunnerState.RUNNING:
            return  # It has said that it ends; its lock comes free in a moment.
        if not self._still_owed() or not self._session.exited:
            return
        if self._session.missed >= MOST_MISSED:
            self._owned.say(Kind.NOT_LAUNCHED, f"its runner did not start, {MOST_MISSED} times in a row")
            return
        self._say_telling("launch")
        try:
            self.launch.brief(rejection=self._rejection)
        except (NotStartedError, UsageError, OSError) as error:
            self._owned.say(Kind.NOT_LAUNCHED, one_line(error))
            return
        tmux, name, paths = self._session.tmux, self._session.name, self._paths
        self._session.exited = False
        self._begin(Action.TELL, lambda: launcher.relaunch(tmux, name, paths), self._relaunched)

    def _relaunched(self, result: Any) -> None:
        """Take in the socket of a new session, None for the old one."""
        if isinstance(result, TmuxError) and not self._session.answers:
            self._session.exited = True  # As before: it is done when tmux answers again.
        elif isinstance(result, NotStartedError | UsageError | OSError):
            self._owned.say(Kind.NOT_LAUNCHED, one_line(result))
        elif isinstance(result, Exception):
            raise result
        else:
            if result is None:
                self._session.restarted()
            else:
                self._session.started(result)
            self._owned.say(Kind.TOLD)
