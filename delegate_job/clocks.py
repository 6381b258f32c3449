"""A job's clocks: how much of `--timeout` is left, and for how long it has been quiet.

They count only while an owner runs them, on the monotonic clock: time without an owner, a suspended machine
or a changed wall clock does not count.
"""

import math
import time
from collections.abc import Callable

from delegate_job.job import JobState

_TIMEOUT_RUNS = frozenset({JobState.LAUNCHING, JobState.RUNNING, JobState.WAITING})


STALLED_AFTER = 120.0
"""Seconds of quiet after which a job without `--idle-timeout` gets its one `stalled` event."""


class Stopwatch:
    """Seconds that pass while it runs."""

    def __init__(self, elapsed: float, monotonic: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._since: float | None = None
        self._monotonic = monotonic

    @property
    def elapsed(self) -> float:
        """Seconds counted so far."""
        return self._elapsed + (0.0 if self._since is None else self._monotonic() - self._since)

    @property
    def running(self) -> bool:
        """Whether it counts now."""
        return self._since is not None

    def run(self, running: bool) -> None:  # noqa: FBT001 - it is the clock's switch
        """Let it run or stand still; to say the same twice changes nothing."""
        if running and self._since is None:
            self._since = self._monotonic()
        elif not running and self._since is not None:
            self._elapsed, self._since = self.elapsed, None

    def reset(self) -> None:
        """Begin again at zero."""
        self._elapsed = 0.0
        self._since = None if self._since is None else self._monotonic()


class Clocks:
    """The two clocks of one job, told of its state and of every sign of life."""

    def __init__(
        self,
        *,
        timeout: float,
        timeout_left: float,
        quiet_for: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._used = Stopwatch(timeout - timeout_left, monotonic)
        self._quiet = Stopwatch(quiet_for, monotonic)

    def follow(self, state: JobState) -> None:
        """Let each clock run or stand still as this state wants it."""
        self._used.run(state in _TIMEOUT_RUNS)
        self._quiet.run(state is JobState.RUNNING)

    def stir(self) -> None:
        """Something was reported or is new on the screen: the quiet begins again."""
        self._quiet.reset()

    @property
    def are_running(self) -> bool:
        """Whether either counts now."""
        return self._used.running or self._quiet.running

    @property
    def timed_out(self) -> bool:
        """Whether `--timeout` is used up, in a state in which it counts."""
        return self._used.running and self.timeout_left <= 0

    def due_in(self, quiet_limit: float) -> float:
        """Return the seconds until the next limit if nothing happens; infinite when none is to come."""
        ahead = [self.timeout_left] if self._used.running else []
        if self._quiet.running and self.quiet_for < quiet_limit:
            ahead.append(quiet_limit - self.quiet_for)
        return max(min(ahead, default=math.inf), 0.0)

    @property
    def timeout_left(self) -> float:
        """Seconds until `--timeout` ends the job; zero or less: now."""
        return self._timeout - self._used.elapsed

    @property
    def quiet_for(self) -> float:
        """Seconds without a report and without anything new on the screen."""
        return self._quiet.elapsed
