"""Locks as processes need them that an agent waits for: this imports nothing that costs time.

What an owner does with locks is `locks`'.
"""

import fcntl
import os

from delegate_job.retry import retry_until


def is_held(path: str) -> bool:
    """Return whether a process holds the lock of this file; False when that cannot be told."""
    try:
        return probe(path)
    except OSError:
        return False


def probe(path: str) -> bool:
    """Return whether a process holds the lock of this file, without taking it from anyone.

    False when there is no such file; OSError when it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def take_within(fd: int, seconds: float) -> bool:
    """Take the exclusive lock of an open file; False when that could not be done within the time."""
    return bool(retry_until(lambda: _take(fd), timeout=seconds, interval=0.005))


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
