"""The duty to close a job that is done: end what must not go on, forget secrets, keep the result.

A new owner may do all of it again. Not how processes are ended: that is `launcher` and `validation`.
"""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

from delegate_job import launcher, locks
from delegate_job.audit import AuditDir
from delegate_job.duty import Duty
from delegate_job.errors import one_line
from delegate_job.events import Kind
from delegate_job.job import Action, Outcome
from delegate_job.launcher import RunnerState
from delegate_job.mqtt import read_connection, write_connection
from delegate_job.paths import write_private
from delegate_job.retry import retry_until
from delegate_job.tmux import TmuxError
from delegate_job.tmux_call import SILENT_FOR
from delegate_job.wire import remove_socket

STOP_TIMEOUT = 12.0
"""Seconds in which a stopped agent's processes must be gone: the runner's own limits and some more."""
SESSION_TIMEOUT = 3 * SILENT_FOR + 20.0
"""Seconds for tmux to end a session: three times of silence, and calls between. Nobody waits for it."""
RECORDED_WITHIN = 2.0
"""Seconds for the end of a recording to be written before it is kept: a busy machine may begin it late."""
AT_ONCE = 16
"""Agents that one process ends side by side: each is waited for by looking fifty times a second."""
_SLOTS = threading.BoundedSemaphore(AT_ONCE)

_STOPS = frozenset(Outcome) - {Outcome.ACCEPTED, Outcome.REJECTED, Outcome.FAILED}
"""The outcomes after which an agent must not go on working. After the others its session stays open."""


class Close(Duty):
    """The end of one job."""

    def act(self) -> None:
        """End what runs, in the background; at once when nothing does."""
        session, spec = self._session, self._job.spec
        # An owner that was killed in mid-launch has not written down the socket; the runner's record tells.
        if session.in_tmux and launcher.runner_state(self._paths) is not RunnerState.STARTING:
            session.is_started = True
        # Each launch makes this file. Without it (the directory was removed) only tmux can end the agent.
        ends_session = session.is_started and (spec.close or not self._paths.runner_lock.exists())
        ends_agent = (session.is_started or session.is_doubtful) and (
            self._job.outcome in _STOPS or spec.close
        )
        if session.in_tmux and (ends_agent or ends_session):
            self._begin(Action.CLOSE, lambda: self._end(agent=ends_agent, session=ends_session), self._ended)
        elif locks.is_held(self._paths.check_lock):
            self._begin(Action.CLOSE, lambda: self._end(agent=False, session=False), self._ended)
        else:
            self._ended(None)

    def _end(self, *, agent: bool, session: bool) -> str | None:
        """End what may still run: it takes seconds to end what does not want to. Return what was left."""
        from delegate_job import validation

        with _SLOTS:
            validation.end_leftover(self._paths)  # An owner that was killed has left its check running.
            if agent:
                launcher.stop_agent(self._paths, timeout=STOP_TIMEOUT)
        if not session:
            return None
        why = list[str]()
        # With a person waiting there is one call, and what it can't end is said and left.
        patience = 0.0 if self._owned.is_attended else SESSION_TIMEOUT
        if not retry_until(lambda: self._is_session_gone(why), timeout=patience, interval=1.0):
            return why[-1]
        retry_until(self._is_recorded, timeout=RECORDED_WITHIN, interval=0.01)
        return None

    def _is_recorded(self) -> bool:
        """Return whether what copies the pane's output has come to its end: that of the session ends it."""
        if not self._paths.pane_log.exists() or self._paths.pane_log.stat().st_size == 0:
            return True
        return self._paths.pane_cast.exists() and not locks.is_held(self._paths.pane_cast)

    def _is_session_gone(self, why: list[str]) -> bool:
        try:
            self._session.tmux.kill_session(self._session.name)
        except TmuxError as error:
            why.append(one_line(error))
            return False
        return True

    def _ended(self, result: Any) -> None:
        if isinstance(result, Exception):
            self._listener.warn(f"the agent could not be ended: {one_line(result)}")
        elif result:
            self._listener.warn(f"job {self._job.id}: {result}")
        self._forget_secrets()
        self._keep_result()
        self._owned.say(Kind.CLOSED)

    def _forget_secrets(self) -> None:
        for path in (self._paths.launch, self._paths.environ):
            path.unlink(missing_ok=True)
        # An agent that stays uses its home, and its runner removes it: by the file that is gone it knows
        # that the job is done. It looks after it has freed its lock, so one of the two sees the other.
        if launcher.runner_state(self._paths) is not RunnerState.RUNNING:
            shutil.rmtree(self._paths.home, ignore_errors=True)
        try:
            known = read_connection(self._paths.connection)
            forgotten = known._replace(broker=None, observer=None, unix_socket=None)
            write_connection(self._paths.connection, forgotten)
        except (OSError, ValueError):
            # A full disk, a damaged file: better nobody knows the job's addresses than that its tokens stay.
            self._paths.connection.unlink(missing_ok=True)
        # Now, and not when the broker ends: an owner that is killed in between has no successor.
        remove_socket(self._paths.broker_socket)

    def _keep_result(self) -> None:
        document = json.dumps(self._owned.document(), indent=2).encode() + b"\n"
        log_dir = AuditDir.at(self._job.spec.log_dir)
        try:
            write_private(self._paths.result, document)
            for path in self._records():
                log_dir.copy_in(path.name, path)
        except OSError as error:
            self._listener.warn(f"the log in {self._job.spec.log_dir} is not whole: {error.strerror}")

    def _records(self) -> list[Path]:
        logs = [self._paths.validation_log(attempt + 1) for attempt in range(self._job.attempt)]
        panes = [self._paths.pane_log, self._paths.pane_cast]
        paths = [self._paths.events, *panes, *logs, self._paths.result]
        return [path for path in paths if path.exists()]
