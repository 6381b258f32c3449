"""Times that are written down (RFC 3339) and spans of time, as numbers and in words.

Not what time it is now as it is written down: that is `journal_line`. Not how long a job may take: `clocks`.
"""

import time
from datetime import datetime

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def since_1970(stamp: str) -> float:
    """Return an RFC 3339 time in seconds since 1970; ValueError when it is none."""
    return datetime.fromisoformat(stamp).timestamp()


def seconds_since(stamp: str) -> float:
    """Return how long ago an RFC 3339 time was; 0 for one that is yet to come."""
    # The clock may have been set back since.
    return max(time.time() - since_1970(stamp), 0.0)


def local_time(stamp: str) -> str:
    """Return the time of day, in this place, of an RFC 3339 time."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")


def ago(stamp: str | None) -> str:
    """Return how long ago an RFC 3339 time was, in one unit."""
    return "-" if stamp is None else f"{in_one_unit(seconds_since(stamp))} ago"


def in_one_unit(span: float) -> str:
    """Return so many seconds in the largest unit that they fill."""
    for size, unit in _UNITS:
        if span >= size:
            return f"{int(span // size)} {unit}"
    return f"{int(span)} s"


def in_two_units(span: float) -> str:
    """Return so many seconds, rounded, in the two largest units; below 10 s with a decimal."""
    if span < 10:
        return f"{span:.1f} s"
    whole = round(span)
    for (size, unit), (small, name) in zip(_UNITS, (*_UNITS[1:], (1, "s")), strict=True):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
