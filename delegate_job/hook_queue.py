"""Whether a prompt that came in the middle of a turn waits at its end to become a turn of its own.

Not what the agent writes down of it: that its mapper knows (`agent_hooks`, `is_queued`).
"""

import os
import stat

from delegate_job.retry import retry_until

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from typing import Any

TOLD_WITHIN = 1.0
"""Seconds after which what the agent has not written down does not wait."""
_TAIL = 1 << 18
"""Bytes of the file's end that are read."""


def is_queued(mapper: "Any", path: str, since: str, said: str) -> bool:
    """Return whether the mapper finds a prompt of `since` in the queue that the file at `path` tells of.

    `said` is what the agent said last. False where nothing can be known: then the turn is taken to have ended
    as any other.
    """
    found: bool | None = None

    def is_told() -> bool:
        nonlocal found
        found = mapper.is_queued(_last_lines(path), since, said)
        return found is not None

    if path and hasattr(mapper, "is_queued"):
        retry_until(is_told, timeout=TOLD_WITHIN, interval=0.02)
    return bool(found)


def _last_lines(path: str) -> list[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return []
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return []
        return os.pread(fd, _TAIL, max(0, status.st_size - _TAIL)).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(fd)
