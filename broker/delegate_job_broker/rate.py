"""How fast one client may go: a token bucket over a clock that the caller reads; it never sleeps."""

from .limits import Limits
from .packets import Malformed


class Rate:
    """Counts packets of one client. Slowed beyond `publishes_per_second`, cut when slowed for too long."""

    __slots__ = ("_at", "_left", "_limits", "_slowed")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._left = float(limits.publish_burst)
        self._slowed = 0.0
        self._at = now

    def spend(self) -> None:
        """Count one packet."""
        self._left -= 1.0

    def pause(self, now: float) -> float:
        """Give the seconds to wait before reading on; `Malformed` when the client's time is up."""
        gained = (now - self._at) * self._limits.publishes_per_second
        self._at = now
        self._left = min(self._left + gained, float(self._limits.publish_burst))
        if self._left >= 0.0:
            self._slowed = 0.0
            return 0.0
        seconds = -self._left / self._limits.publishes_per_second
        self._slowed += seconds
        if self._slowed > self._limits.slowed_seconds:
            raise Malformed("faster than allowed for too long")
        return seconds
