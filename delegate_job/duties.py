"""What a job owes the world, one thing at a time: launch, check, tell, close; and the looks at its agent.

Each is safe to do again by a new owner. Not when a thing is owed: that is `lifecycle`. What waits, for tmux
or for a process, runs in the background; its result comes back through the inbox.
"""

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from delegate_job.agent_session import AgentSession
from delegate_job.duty import VERDICT_KINDS, Duty
from delegate_job.environment import read_environ
from delegate_job.events import Event, Kind
from delegate_job.inbox import PanesSeen
from delegate_job.job import Action, Job, JobState
from delegate_job.launcher import RunnerState, runner_state
from delegate_job.launching import Launch
from delegate_job.startup import Startup, told_screen
from delegate_job.tmux import Tmux
from delegate_job.transcript import Transcript

if TYPE_CHECKING:
    from delegate_job.checking import Check
    from delegate_job.closing import Close
    from delegate_job.listener import Listener
    from delegate_job.owner import OwnedJob
    from delegate_job.registry import Registry
    from delegate_job.telling import Tell

AnyDuty = TypeVar("AnyDuty", bound=Duty)

SPAWN_TICK = 0.01
"""Seconds between two looks for the runner's word that the agent runs: a broker waits for it."""
START_TICK = 0.05
"""Seconds between two steps while the agent is being started or told, when something is sure to come."""


class Duties:
    """What one owned job owes. Called by its owner only, never by two threads."""

    def __init__(
        self, owned: "OwnedJob", *, registry: "Registry", tmux_socket: str, listener: "Listener"
    ) -> None:
        self._owned = owned
        self._registry = registry
        self._busy: Action | None = None
        self._stop_check = threading.Event()
        label = registry.paths.tmux_label
        self._session = AgentSession(owned.job, owned.paths, tmux_socket=tmux_socket, tmux_label=label)
        self._startup = Startup(owned.job.spec, owned.paths)
        self._transcript = Transcript(owned.job.spec, owned.paths)
        self._is_looking = False
        self._screen_changed: bool | None = None
        self._listener = listener
        self._environ = read_environ(owned.paths.environ)
        self._launch = self._made(Launch)
        if owned.job.owed is Action.LAUNCH:
            self._launch.inherit()

    def _made(self, duty: type[AnyDuty]) -> AnyDuty:
        return duty(
            self._owned,
            self._session,
            self._begin,
            registry=self._registry,
            listener=self._listener,
            environ=self._environ,
        )

    # The agent's start need not wait for the import of what comes after it.

    @cached_property
    def _check(self) -> "Check":
        from delegate_job.checking import Check

        return self._made(Check)

    @cached_property
    def _tell(self) -> "Tell":
        from delegate_job.telling import Tell

        tell = self._made(Tell)
        tell.launch = self._launch
        return tell

    @cached_property
    def _close(self) -> "Close":
        from delegate_job.closing import Close

        return self._made(Close)

    @property
    def _job(self) -> Job:
        return self._owned.job

    def next_step_in(self) -> float:
        """Return the seconds until the job wants a step even if nothing is heard."""
        if self._job.state is JobState.LAUNCHING and self._session.is_started:
            return SPAWN_TICK
        if self._job.owed not in {Action.LAUNCH, Action.TELL} or not self._session.answers:
            return self._startup.next_look_in()
        if self._busy or self._job.owed is Action.LAUNCH:
            return START_TICK
        return min(self._tell.enter_in(), START_TICK)

    def note(self, event: Event, *, applied: bool) -> None:
        """Take notice of a recorded event."""
        self._session.note(event, applied=applied)
        self._startup.note(event)
        self._transcript.note(event)
        if applied and event.known_kind in VERDICT_KINDS.values():
            self._tell.note_rejection(event)

    # -- acting

    def act(self) -> None:
        """Do or go on with what is owed."""
        owed = self._job.owed
        if self._busy is Action.CHECK and owed is not Action.CHECK:
            self._stop_check.set()
        if owed is not Action.TELL and "_tell" in self.__dict__:
            self._tell.withdraw()
        if self._busy is not None:
            return
        self.save_socket()
        if self._session.wants_socket and self._session.answers:
            self._find_socket()
        elif owed is Action.LAUNCH:
            self._launch.act()
        elif owed is Action.CHECK:
            self._check.begin(self._stop_check)
        elif owed is Action.TELL:
            self._tell.act()
        elif owed is Action.CLOSE:
            self._close.act()

    def save_socket(self) -> None:
        """Keep the socket of a session that stands; when the disk is full, the next step tries again."""
        self._session.save_socket(self._registry, self._job.id, epoch=self._owned.epoch)

    def _find_socket(self) -> None:
        """Ask for what an owner that was killed has seen and not written down."""
        tmux = self._session.tmux

        def found(result: Any) -> None:
            self._session.started("" if isinstance(result, Exception) else result)

        self._begin(Action.LAUNCH, lambda: tmux.socket_path() or "", found)

    def _begin(
        self,
        action: Action,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        *,
        head_start: float = 0.0,
    ) -> None:
        def finish(result: Any) -> None:
            self._busy = None
            then(result)

        self._busy = action
        self._owned.in_background(action, work, finish, head_start=head_start)

    def stop_check(self) -> None:
        """End a check that runs, without waiting for it."""
        self._stop_check.set()

    @property
    def is_at_tmux(self) -> bool:
        """Whether something is being started or typed just now."""
        return self._busy in {Action.LAUNCH, Action.TELL}

    @property
    def is_agent_starting(self) -> bool:
        """Whether the runner has yet to tell that the agent runs, or the agent that it has started."""
        if self._job.state is JobState.LAUNCHING:
            return True
        return self._startup.is_awaited and runner_state(self._owned.paths) is not RunnerState.GONE

    # -- looking

    def look_at_runner(self) -> None:
        """Say `vanished` when the runner is gone and did not say so itself."""
        self._look_for_start()
        if not self._job.done:
            self._transcript.look()
        session = self._session
        is_there = session.is_started and session.in_tmux and not session.exited
        if not is_there or self._job.done or self.is_at_tmux or not self._owned.hears_all:
            return
        if why := session.why_vanished():
            self._say_vanished(why)

    def _look_for_start(self) -> None:
        """Say that a person is needed when the agent was started and its first hook does not come."""
        starts = {JobState.LAUNCHING, JobState.RUNNING}
        if self._job.state not in starts or not self._startup.is_due():
            return
        session = self._session

        def seen(result: Any) -> None:
            if self._job.state in starts and not self._startup.is_heard:
                data = {"reason": "startup_dialog", "screen": told_screen(result)}
                limit = self._job.spec.startup_timeout
                self._owned.say(Kind.PERMISSION_REQUIRED, f"no sign of the agent after {limit:g} s", data)

        self._owned.in_background(None, lambda: session.tmux.capture(session.name), seen)

    def _say_vanished(self, why: str) -> None:
        # Its last words may stand in the file since the look: `exited` is more than `vanished`.
        said_all = self._owned.drain() and not self._session.exited
        if said_all and self._job.state not in {JobState.CHECKING, JobState.DONE}:
            # What the runner left behind is ended by what is owed next, a close or another launch.
            self._session.vanished()
            self._owned.say(Kind.VANISHED, why)

    @property
    def awaited(self) -> Tmux | None:
        """The tmux server to ask for all panes, while a runner that was started has not come to its lock."""
        is_awaited = self._session.awaits_runner and not self._job.done and not self.is_at_tmux
        return self._session.tmux if is_awaited else None

    def panes_seen(self, seen: PanesSeen) -> bool:
        """Take in what tmux says of all panes; return whether that is news of this job's."""
        return not self.is_at_tmux and self._session.panes_seen(seen)

    def screen_changed(self, *, now: bool = False) -> bool | None:
        """Return whether the agent's screen shows new words; None while it is being looked at.

        It is looked at seldom unless `now`; a screen that can't be seen shows nothing new.
        """
        if self._is_looking:
            return None
        changed, self._screen_changed = self._screen_changed, None
        if changed is not None:
            return changed
        if not (self._session.in_tmux and self._session.screen.is_due(now=now) and self._session.answers):
            return False
        self._look_at_screen()
        return None

    def _look_at_screen(self) -> None:
        session, screen = self._session, self._session.screen

        def seen(text: Any) -> None:
            self._is_looking = False
            self._screen_changed = screen.take(text if isinstance(text, str) else None)

        self._is_looking = True
        self._owned.in_background(None, lambda: session.tmux.capture(session.name), seen)
