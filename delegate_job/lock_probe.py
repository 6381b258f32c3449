"""Whether somebody holds a lock, for processes that an agent waits for: it imports nothing that costs time.

Taking a lock is `locks`'.
"""

import fcntl
import os


def is_held(path: str) -> bool:
    """Return whether a process holds the lock of this file; False when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
