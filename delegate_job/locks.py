"""File locks (flock): who owns a job, whether a runner lives. Not for threads or network file systems.

A lock is the kernel's word on whether a process lives: it is freed when its last holder ends, in any way.
"""

import fcntl
import os
from pathlib import Path

from delegate_job.bare_locks import probe
from delegate_job.retry import retry_until


def acquire(path: Path, *, wait: float = 0.0) -> int | None:
    """Take the exclusive lock of `path`; return its descriptor, or None when another has it.

    `wait` is in seconds. The file is made 0600 if missing, the descriptor is close-on-exec. A file that was
    unlinked while it was being locked is let go and tried again: two processes must never hold "the" lock on
    two inodes.
    """
    return retry_until(lambda: _try_acquire(path), timeout=wait, interval=0.02)


def _try_acquire(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_of(fd, path):
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def is_of(fd: int, path: Path) -> bool:
    """Return whether a held lock is still the one of this name, so that nobody else can take it."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def is_held(path: Path) -> bool:
    """Return whether somebody holds the lock of `path`, without taking it from anyone (a shared probe)."""
    return probe(os.fspath(path))
