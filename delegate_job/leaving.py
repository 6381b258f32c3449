"""What signals mean to a process that owns jobs: leave them to another owner, or cancel them.

It decides; what follows, a cancelled job or the end of the loop, is `supervisor`'s.
"""

import signal
import time
from collections.abc import Callable

SECOND_CHANCE = 2.0
"""Seconds after a first Ctrl-C in which a second one cancels instead."""


class Leaving:
    """A signal in `leaves_on` leaves the jobs to another owner, any other cancels them.

    When a person attends, Ctrl-C leaves them only if no second one follows: `warn` is told so.
    """

    def __init__(self, leaves_on: frozenset[int], *, is_attended: bool, warn: Callable[[str], None]) -> None:
        self._leaves_on = leaves_on
        self._is_attended = is_attended
        self._warn = warn
        self._cancelled = False
        self.at: float | None = None
        """When the jobs are left (monotonic); None: they are not."""
        self.signum: int | None = None
        """The first signal that came."""

    @property
    def is_now(self) -> bool:
        """Whether it is time to leave."""
        return self.at is not None and time.monotonic() >= self.at

    def hear(self, signum: int) -> bool:
        """Take in a signal; return whether the jobs are to be cancelled."""
        cancels = self._hear_first(signum) if self.signum is None else self._hear_again(signum)
        self.signum = self.signum or signum
        self._cancelled |= cancels
        return cancels

    def _hear_first(self, signum: int) -> bool:
        if signum not in self._leaves_on:
            return True
        self.at = time.monotonic()
        if signum == signal.SIGINT and self._is_attended:
            self.at += SECOND_CHANCE
            self._warn(f"Ctrl-C again within {SECOND_CHANCE:g} s cancels; else the job goes on without us")
        return False

    def _hear_again(self, signum: int) -> bool:
        asked_twice = signum == signal.SIGINT and self.at is not None and not self._cancelled
        if asked_twice and self._is_attended:
            self.at = None
            return True
        # Whoever asks twice does not want to wait for an agent's end; the next owner sees to it.
        self.at = time.monotonic()
        return False
