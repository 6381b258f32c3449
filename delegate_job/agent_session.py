"""An agent's tmux session and the runner in it, as the job's owner knows them.

It looks and remembers; it starts, types and ends nothing.
"""

import time
from typing import TYPE_CHECKING

from delegate_job import launcher
from delegate_job.clocks import STALLED_AFTER
from delegate_job.events import Event, Kind
from delegate_job.inbox import PanesSeen
from delegate_job.job import Action, Job, JobState
from delegate_job.launcher import RunnerState
from delegate_job.paths import JobPaths
from delegate_job.screen import Screen
from delegate_job.tmux import Tmux

if TYPE_CHECKING:
    from delegate_job.registry import Registry

RUNNER_START_TIMEOUT = 20.0
"""Seconds in which a started runner must have taken its lock."""
PANES_AFTER = 0.5
"""Seconds after which tmux is asked for the pane of a runner that has not taken its lock."""

_LAUNCHED = frozenset({JobState.RUNNING, JobState.WAITING, JobState.CHECKING})


class AgentSession:
    """The session of one owned job. For a job without one, a person's, nothing of it is ever true."""

    def __init__(self, job: Job, paths: JobPaths, *, tmux_socket: str, tmux_label: str) -> None:
        self._paths = paths
        self.name = job.spec.session
        self.tmux = Tmux(socket=tmux_socket) if tmux_socket else Tmux(label=tmux_label)
        self._limit = job.spec.idle_timeout or STALLED_AFTER
        self.screen = self._new_screen()
        # An owner that was killed may have seen the agent start and not have written down the socket.
        launched = job.state in _LAUNCHED and job.owed is not Action.LAUNCH
        self.is_started = bool(tmux_socket) or launched
        """Whether the agent was launched, by us or by an owner before us."""
        self.wants_socket = self.is_started and self.in_tmux and not tmux_socket
        self.is_doubtful = False
        """Whether a launch failed that may still come to something."""
        self.exited = False
        """Whether the runner has said, or we have seen, that the agent ended."""
        self.missed = 0
        """Launches in a row whose runner was never seen."""
        self._began = time.monotonic()
        # An earlier owner's launch too may have been killed before its runner came to its lock.
        self._runner_due = self._began + RUNNER_START_TIMEOUT if self.is_started else None
        self._dead_pane = ""
        self._unsaved_socket = ""
        self._is_told_by_launch = False

    @property
    def in_tmux(self) -> bool:
        """Whether the agent has a session at all."""
        return bool(self.name)

    @property
    def answers(self) -> bool:
        """Whether tmux is worth a call: not for a while after one that took too long."""
        return self.tmux.server.answers

    def note(self, event: Event, *, applied: bool) -> None:
        """Take notice of a recorded event."""
        if event.known_kind is Kind.SPAWNED:
            self.exited = False
            self.missed = 0
            # Of a launch by an owner that did not live to see it, its runner may be the first to tell.
            self.wants_socket |= self.in_tmux and not self.is_started
            self.is_started = True
        elif event.known_kind is Kind.EXITED:
            self.exited = True
        elif event.known_kind is Kind.TELLING:
            self._is_told_by_launch = event.data.get("how") == "launch"
        elif event.known_kind is Kind.TOLD and applied and self._is_told_by_launch:
            # Also by an owner before us: its runner may have been killed before it could say `spawned`.
            self.exited = False

    def started(self, socket: str) -> None:
        """A session was started, or found; `socket` is its tmux server's, empty when it is not known."""
        self.is_started = True
        self.wants_socket = False
        if socket:
            self.tmux = Tmux(socket=socket)
            self._unsaved_socket = socket
        self.screen = self._new_screen()
        self.restarted()

    def restarted(self) -> None:
        """A runner was started in the session."""
        self._began = time.monotonic()
        self._runner_due = self._began + RUNNER_START_TIMEOUT
        self._dead_pane = ""

    def save_socket(self, registry: "Registry", job_id: str, *, epoch: int) -> None:
        """Keep the socket of a session that stands; RegistryError: the next call does it."""
        if self._unsaved_socket:
            registry.set_tmux_socket(job_id, self._unsaved_socket, epoch=epoch)
            self._unsaved_socket = ""

    # -- the runner

    def why_vanished(self) -> str | None:
        """Return how the runner was lost without a word of its own; None when it was not, or not yet.

        Lost means that its lock is free. What tmux says of the pane counts only before it was ever taken.
        """
        state = launcher.runner_state(self._paths)
        if state is RunnerState.RUNNING:
            self._runner_due = None
        elif state is RunnerState.GONE:
            return "the runner in its pane was ended"
        elif self._dead_pane:
            return self._dead_pane
        elif self._runner_due is not None and time.monotonic() > self._runner_due:
            return "its runner did not start"
        return None

    def vanished(self) -> None:
        """It was said that the runner is gone."""
        self.exited = True
        self.missed += launcher.runner_state(self._paths) is RunnerState.STARTING

    @property
    def awaits_runner(self) -> bool:
        """Whether a runner was started that should have taken its lock by now."""
        is_awaited = self.is_started and self.in_tmux and not self.exited and self._runner_due is not None
        return is_awaited and time.monotonic() - self._began >= PANES_AFTER

    def panes_seen(self, seen: PanesSeen) -> bool:
        """Take in what tmux says of all panes; return whether the pane of a runner to come has ended."""
        # Only of the very server that the session was started in; and not what was so before a launch.
        is_ours = seen.address == self.tmux.server.address and seen.address[0] == "-S"
        if seen.sessions is None or not is_ours or not self.awaits_runner or seen.asked_at < self._began:
            return False
        info = seen.sessions.get(self.name)
        if info is not None and not info.dead:
            return False
        if launcher.runner_state(self._paths) is RunnerState.STARTING:
            self._dead_pane = "its pane ended before the runner started"
        return bool(self._dead_pane)

    def _new_screen(self) -> Screen:
        return Screen(self._paths.pane_log, limit=self._limit)
