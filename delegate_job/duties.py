"""What a job owes the world, done: launch, check, tell, close; and the look at its runner.

Each is safe to do again by a new owner. Not when a thing is owed: that is `lifecycle`.
"""

import contextlib
import json
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from delegate_job import briefing, launcher, locks
from delegate_job.agents.instructions import publish_argv, rejection_message
from delegate_job.audit import AuditDir
from delegate_job.clocks import STALLED_AFTER
from delegate_job.environment import is_readable, read_environ
from delegate_job.errors import NotStartedError, UsageError, one_line
from delegate_job.events import Event, Kind
from delegate_job.inbox import Finished
from delegate_job.job import Action, Job, JobState, Outcome, Verdict
from delegate_job.launcher import RunnerState
from delegate_job.mqtt import read_connection, write_connection
from delegate_job.paths import write_private
from delegate_job.screen import Screen
from delegate_job.tmux import PASTE_PAUSE, Tmux, TmuxError
from delegate_job.wire import remove_socket

if TYPE_CHECKING:
    from delegate_job.owner import Listener, OwnedJob
    from delegate_job.registry import Registry
    from delegate_job.validation import CheckResult

START_TICK = 0.05
"""Seconds between two steps while the agent is being started or told, when something is sure to come."""
RUNNER_START_TIMEOUT = 20.0
"""Seconds in which a started runner must have taken its lock."""
STOP_TIMEOUT = 12.0
"""Seconds in which a stopped agent's processes must be gone: the runner's own limits and some more."""

_STOPS = frozenset(Outcome) - {Outcome.ACCEPTED, Outcome.REJECTED, Outcome.FAILED}
"""The outcomes after which an agent must not go on working. After the others its session stays open."""

_LAUNCHED = frozenset({JobState.RUNNING, JobState.WAITING, JobState.CHECKING})

_CHECK_KINDS = {
    Verdict.PASSED: Kind.CHECK_PASSED,
    Verdict.FAILED: Kind.CHECK_FAILED,
    Verdict.TIMED_OUT: Kind.CHECK_TIMED_OUT,
    Verdict.CHANGED: Kind.CHECK_CHANGED,
}


class Duties:
    """What one owned job owes. Called by its owner only, never by two threads."""

    def __init__(
        self, owned: "OwnedJob", *, registry: "Registry", tmux_socket: str, listener: "Listener"
    ) -> None:
        self._owned = owned
        self._registry = registry
        self._listener = listener
        self._paths = owned.paths
        self._environ = read_environ(self._paths.environ)
        self._tmux = Tmux(socket=tmux_socket) if tmux_socket else Tmux(label=registry.paths.tmux_label)
        self._screen = self._new_screen()
        self._busy: Action | None = None
        self._stop_check = threading.Event()
        self._enter_at: float | None = None
        self._rejection = ""
        self._rejection_code: int | None = None
        # An owner that was killed may have seen the agent start and not have written down the socket.
        launched = owned.job.state in _LAUNCHED and owned.job.owed is not Action.LAUNCH
        self._watching = bool(tmux_socket) or launched
        # An earlier owner's launch too may have been killed before its runner came to its lock.
        self._runner_due = time.monotonic() + RUNNER_START_TIMEOUT if self._watching else None
        self._unsaved_socket = ""
        self._inherited = owned.job.owed is Action.LAUNCH
        self._exited = False
        self._ends_session = False
        if self._watching and self._in_tmux and not tmux_socket:
            self._use(self._tmux.socket_path() or "")

    @property
    def _job(self) -> Job:
        return self._owned.job

    @property
    def _in_tmux(self) -> bool:
        return bool(self._job.spec.session)

    def next_step_in(self) -> float:
        """Return the seconds until the job wants a step even if nothing is heard."""
        if self._enter_at is not None and self._job.state is not JobState.WAITING:
            return max(self._enter_at - time.monotonic(), 0.0)
        return START_TICK if self._job.owed in {Action.LAUNCH, Action.TELL} else math.inf

    def note(self, event: Event, *, applied: bool) -> None:
        """Take notice of a recorded event."""
        if event.known_kind is Kind.SPAWNED:
            self._exited = False
        elif event.known_kind is Kind.EXITED:
            self._exited = True
        elif applied and event.known_kind in _CHECK_KINDS.values():
            self._rejection = str(event.data.get("output", ""))
            self._rejection_code = event.data.get("exit_code")

    def screen_changed(self, *, now: bool = False) -> bool:
        """Return whether the agent's screen shows new words; looks seldom unless `now`."""
        return self._in_tmux and self._screen.changed(now=now)

    def _new_screen(self) -> Screen:
        spec = self._job.spec
        return Screen(
            self._tmux, spec.session, self._paths.pane_log, limit=spec.idle_timeout or STALLED_AFTER
        )

    def act(self) -> None:
        """Do or go on with what is owed."""
        owed = self._job.owed
        if self._busy is Action.CHECK and owed is not Action.CHECK:
            self._stop_check.set()
        if owed is not Action.TELL:
            self._enter_at = None  # What was answered before its Enter must not get it in the next round.
        if self._busy is not None:
            return
        self._save_socket()
        if owed is Action.LAUNCH and not self._watching:
            self._launch()
        elif owed is Action.CHECK:
            self._check()
        elif owed is Action.TELL:
            self._tell()
        elif owed is Action.CLOSE:
            self._close()

    def stop_check(self) -> None:
        """End a check that runs, without waiting for it."""
        self._stop_check.set()

    def finish(self, message: Finished) -> None:
        """Take the result of a background action."""
        self._busy = None
        if message.action is Action.CHECK:
            self._finish_check(message.result)
        elif message.action is Action.CLOSE:
            self._finish_close(message.result)

    # -- launch

    def _launch(self) -> None:
        if not is_readable(self._paths.environ):
            self._owned.say(Kind.NOT_LAUNCHED, "the environment of the submit is gone or damaged")
            return
        try:
            if self._in_tmux and self._inherited and not self._is_free_to_launch():
                return
            self._brief()
            if self._in_tmux:
                self._use(launcher.start(self._tmux, self._job.spec.session, self._paths))
        except (NotStartedError, UsageError, OSError) as error:
            self._owned.say(Kind.NOT_LAUNCHED, one_line(error))
            return
        self._watching = True
        self._save_socket()

    def _is_free_to_launch(self) -> bool:
        """Look for what an earlier owner may have started before it ended; its launch is the job's launch."""
        if launcher.runner_state(self._paths) is not RunnerState.STARTING:
            # Also of one that has ended by now: the agent must not run twice.
            self._use(self._tmux.socket_path() or "")
            self._watching = True
            return False
        if self._tmux.has_session(self._job.spec.session) is not True:
            return True
        if self._runner_due is None:
            self._runner_due = time.monotonic() + RUNNER_START_TIMEOUT
        if time.monotonic() < self._runner_due:
            return False
        self._tmux.kill_session(self._job.spec.session)
        return True

    def _brief(self, *, rejection: str | None = None) -> None:
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

    def _use(self, socket: str) -> None:
        if socket:
            self._tmux = Tmux(socket=socket)
        self._screen = self._new_screen()
        self._runner_due = time.monotonic() + RUNNER_START_TIMEOUT
        self._unsaved_socket = socket

    def _save_socket(self) -> None:
        """Keep the socket of a session that stands; when the disk is full, the next step tries again."""
        if self._unsaved_socket:
            self._registry.set_tmux_socket(self._job.id, self._unsaved_socket, epoch=self._owned.epoch)
            self._unsaved_socket = ""

    def look_at_runner(self) -> None:
        """Say `vanished` when the runner is gone and did not say so itself.

        Gone means that its lock is free; what tmux says of the session never ends a job.
        """
        if not (self._watching and self._in_tmux and self._owned.hears_all) or self._job.done or self._exited:
            return
        state = launcher.runner_state(self._paths)
        if state is RunnerState.RUNNING:
            self._runner_due = None
        elif state is RunnerState.GONE:
            self._say_vanished("the runner in its pane was ended")
        elif self._runner_due is not None and time.monotonic() > self._runner_due:
            self._say_vanished("its runner did not start")

    def _say_vanished(self, why: str) -> None:
        # Its last words may stand in the file since the look: `exited` is more than `vanished`.
        said_all = self._owned.drain() and not self._exited
        if said_all and self._job.state not in {JobState.CHECKING, JobState.DONE}:
            # What the runner left behind is ended by what is owed next, a close or another launch.
            self._exited = True
            self._owned.say(Kind.VANISHED, why)

    # -- check

    def _check(self) -> None:
        from delegate_job import validation

        if not self._owned.checks.take(self._job.id):
            return
        self._busy = Action.CHECK
        self._stop_check.clear()
        spec, attempt, registry_dir = self._job.spec, self._job.attempt, self._registry.paths.root
        self._owned.in_background(
            Action.CHECK,
            lambda: validation.run(
                self._paths,
                spec,
                attempt=attempt,
                environ=self._environ,
                registry_dir=registry_dir,
                stop=self._stop_check,
            ),
        )

    def _finish_check(self, result: Any) -> None:
        if self._job.state is not JobState.CHECKING:
            return
        if isinstance(result, Exception):
            self._owned.say(
                Kind.CHECK_FAILED, f"the check could not be run: {one_line(result)}", {"output": str(result)}
            )
        else:
            self._say_verdict(result)

    def _say_verdict(self, result: "CheckResult") -> None:
        data = {
            "attempt": self._job.attempt,
            "exit_code": result.exit_code,
            "seconds": round(result.seconds, 3),
            "output": result.output_tail,
        }
        detail = f"exit {result.exit_code}" if result.verdict is Verdict.FAILED else None
        self._owned.say(_CHECK_KINDS[result.verdict], detail, data)

    # -- tell

    def _tell(self) -> None:
        if self._job.state is JobState.WAITING:
            return  # A dialog is open: what is pasted now would answer it.
        if not self._in_tmux:
            self._tell_person()
        elif self._exited:
            self._relaunch()
        elif self._enter_at is None:
            self._paste()
        elif time.monotonic() >= self._enter_at:
            self._press_enter()

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
            exit_code=self._rejection_code,
            output=self._rejection,
            publish_argv=publish_argv(self._registry.paths.root),
        )

    def _paste(self) -> None:
        # What stands in the files before the paste is of the round before. Not before the Enter: a program
        # that reads its terminal line by line has the text, and may answer, as soon as it is pasted.
        if not self._owned.drain() or self._exited or self._job.owed is not Action.TELL:
            return
        self._owned.say(Kind.TELLING, data={"how": "session"})
        self._owned.apply_own()
        self._enter_at = time.monotonic() + PASTE_PAUSE
        # Without a pane to type into the agent is on its way out, and its end on its way to us.
        with contextlib.suppress(TmuxError):
            self._tmux.paste(self._job.spec.session, self._message())

    def _press_enter(self) -> None:
        self._enter_at = None
        with contextlib.suppress(TmuxError):
            self._tmux.enter(self._job.spec.session)
            self._owned.say(Kind.TOLD)

    def _relaunch(self) -> None:
        self._enter_at = None
        if launcher.runner_state(self._paths) is RunnerState.RUNNING or not self._owned.drain():
            return  # It has said that it ends; its lock comes free in a moment.
        self._owned.say(Kind.TELLING, data={"how": "launch"})
        self._owned.apply_own()
        try:
            self._brief(rejection=self._rejection)
            self._restart()
        except (NotStartedError, UsageError, OSError) as error:
            self._owned.say(Kind.NOT_LAUNCHED, one_line(error))
            return
        self._exited = False
        self._owned.say(Kind.TOLD)

    def _restart(self) -> None:
        socket = launcher.relaunch(self._tmux, self._job.spec.session, self._paths)
        if socket is not None:
            self._use(socket)
        self._runner_due = time.monotonic() + RUNNER_START_TIMEOUT

    # -- close

    def _close(self) -> None:
        self._busy = Action.CLOSE
        # An owner that was killed in mid-launch has not written down the socket; the runner's record tells.
        self._watching = self._watching or launcher.runner_state(self._paths) is not RunnerState.STARTING
        # Each launch makes this file. Without it (the directory was removed) only tmux can end the agent.
        self._ends_session = self._job.spec.close or not self._paths.runner_lock.exists()
        stops = self._in_tmux and self._watching and (self._job.outcome in _STOPS or self._job.spec.close)
        if stops or locks.is_held(self._paths.check_lock):
            self._owned.in_background(Action.CLOSE, lambda: self._end(agent=stops))
        else:
            self._owned.finished(Finished(self._job.id, Action.CLOSE, None))

    def _end(self, *, agent: bool) -> None:
        """End what may still run, in a thread of its own: it takes seconds to end what does not want to."""
        from delegate_job import validation

        validation.end_leftover(self._paths)  # An owner that was killed has left its check running.
        if agent:
            launcher.stop_agent(self._paths, timeout=STOP_TIMEOUT)

    def _finish_close(self, result: Any) -> None:
        if isinstance(result, Exception):
            self._listener.warn(f"the agent could not be ended: {one_line(result)}")
        if self._ends_session and self._in_tmux and self._watching:
            with contextlib.suppress(TmuxError):
                self._tmux.kill_session(self._job.spec.session)
        self._forget_secrets()
        self._keep_result()
        self._owned.say(Kind.CLOSED)

    def _forget_secrets(self) -> None:
        for path in (self._paths.launch, self._paths.environ):
            path.unlink(missing_ok=True)
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

    def _records(self) -> list[Any]:
        logs = [self._paths.validation_log(attempt + 1) for attempt in range(self._job.attempt)]
        paths = [self._paths.events, self._paths.pane_log, *logs, self._paths.result]
        return [path for path in paths if path.exists()]
