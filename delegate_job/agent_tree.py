"""The agent's process tree, seen from the process that started it: wait for its end, or bring it about.

Not how the agent is started, and not what its end means. Only the runner uses this: it takes over the signals
and the children of its process.
"""

import os
import select
import sys
import time

from delegate_job import processes
from delegate_job.bare import signal

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable

TERM_WAIT = 5.0
"""Seconds between TERM and KILL."""
KILL_WAIT = 10.0
"""Seconds for which KILL is repeated: a process in an uninterruptible wait must not hold the job for ever."""
_ENDING = frozenset({signal.SIGTERM, signal.SIGHUP})
_FOR_THE_AGENT = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_PR_SET_CHILD_SUBREAPER = 36
_SUBREAPER = sys.platform == "linux"


class AgentTree:
    """An agent that was forked, and all that descends from it.

    On Linux this process becomes a subreaper (prctl(2)): what the agent leaves behind becomes our child, so
    "no children" means "nothing left". Elsewhere the process table is asked.
    """

    def __init__(self, agent: int) -> None:
        self.agent = agent
        self.status: int | None = None
        """The agent's wait status, once it has ended."""
        self.asked = 0
        """The signal that asked us to end, or 0."""
        self._reaps_orphans = _SUBREAPER and _become_subreaper()
        self._wake = _wake_on_signals()

    def to_foreground(self) -> None:
        """Make the agent a process group of its own and give it the terminal: keys reach it and not us."""
        try:
            if os.getpgid(self.agent) != self.agent:
                os.setpgid(self.agent, self.agent)
            os.tcsetpgrp(0, self.agent)
        except OSError:
            return  # It has just ended, or the terminal has, or there is none.

    def wait_for_agent(self, look: "Callable[[], float | None]" = lambda: None) -> None:
        """Return when the agent's first process has ended, or when we are asked to end.

        `look` is called at once, and again after as many seconds as it says; None: never again.
        """
        due = _after(look())
        while self.status is None and not self.asked:
            self._pause(None if due is None else max(due - time.monotonic(), 0.0))
            self._reap()
            if due is not None and time.monotonic() >= due:
                due = _after(look())

    def wait_until_empty(self, seconds: float, *, unless_asked: bool = False) -> bool:
        """Return whether the whole tree ended within so many seconds."""
        end = time.monotonic() + seconds
        while not (empty := self._reap()) and not (unless_asked and self.asked):
            left = end - time.monotonic()
            if left <= 0:
                break
            self._pause(left if self._reaps_orphans else min(left, 0.1))
        return empty

    def end(self) -> int:
        """End the whole tree: TERM, then KILL. Return how many that were, the agent's first not counted."""
        ended = self._signal_all(signal.SIGTERM)
        if not self.wait_until_empty(TERM_WAIT):
            last = time.monotonic() + KILL_WAIT
            while time.monotonic() < last:
                ended |= self._signal_all(signal.SIGKILL)
                if self.wait_until_empty(0.05):
                    break
        return len(ended - {self.agent})

    def _signal_all(self, signum: int) -> set[int]:
        members = self._members()
        for member in members:
            processes.send(member, signum)
            processes.send(member, signal.SIGCONT)  # Who is stopped cannot heed it.
        return {member.pid for member in members}

    def _members(self) -> list[processes.Process]:
        return processes.tree(processes.table(), os.getpid())

    def _pause(self, seconds: float | None) -> None:
        if select.select([self._wake], [], [], seconds)[0]:
            came = set(os.read(self._wake, 512))
            self.asked = next(iter(came & _ENDING), self.asked)

    def _reap(self) -> bool:
        """Take note of all that ended or stopped; return whether nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return self._reaps_orphans or not self._members()
            if not pid:
                return False
            if pid == self.agent:
                self._note(status)

    def _note(self, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self.status = status
            return
        # Ctrl-Z: there is no shell here in which to say `fg`.
        self.to_foreground()
        try:
            os.killpg(self.agent, signal.SIGCONT)
        except OSError:
            return


def _after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _become_subreaper() -> bool:
    arguments = _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    try:
        # What ctypes itself calls (CPython 3.11 to 3.13); the agent would wait 2.6 ms for the rest of it.
        from _ctypes import call_function, dlopen, dlsym

        prctl = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type] # None: this process, as in ctypes
        return bool(call_function(prctl, arguments) == 0)
    except (ImportError, AttributeError, OSError, TypeError):
        import ctypes

        return bool(ctypes.CDLL(None).prctl(*arguments) == 0)


def _wake_on_signals() -> int:
    """Return a descriptor that gives the number of each signal that comes; keys are left to the agent."""
    wake, write = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write, False)
    for signum in _FOR_THE_AGENT:
        signal.signal(signum, signal.SIG_IGN)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, *_ENDING):
        signal.signal(signum, lambda *_: None)
    return wake
