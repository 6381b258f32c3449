"""Shifts what a Python process takes for the time of day; on the PYTHONPATH of tests that set the clock.

PYTHON_CLOCK_SHIFT names a file that holds seconds, read at each look at the clock, so that it is set for all
processes at once. The machine's own clock is not touched, nor is the monotonic one. The names begin so as
a supervisor inherits variables of Python's.
"""

import datetime as dt
import os
import time

_path = os.environ.get("PYTHON_CLOCK_SHIFT", "")
_time, _time_ns = time.time, time.time_ns


def _shift() -> int:
    with open(_path, encoding="ascii") as file:  # noqa: PTH123 - no import more than the process has
        return int(file.read())


class _Datetime(dt.datetime):
    """A datetime whose `now` is of the clock that was set."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Datetime":
        """Return the time, shifted."""
        return super().now(tz) + dt.timedelta(seconds=_shift())


if _path:
    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: _time_ns() + _shift() * 1_000_000_000
    dt.datetime = _Datetime  # type: ignore[misc] # that is what this file is for
