"""What SQLite and the file system say of the registry's file, as one line for the user; not its repair."""

import contextlib
import sqlite3
from collections.abc import Iterator

from delegate_job.errors import RegistryError
from delegate_job.paths import RegistryPaths


class StorageFullError(RegistryError):
    """The disk is full or a write failed; the same call may work later."""


class DamagedError(RegistryError):
    """The registry's file is damaged. It is marked as such, and repaired when it is opened next."""


@contextlib.contextmanager
def told(paths: RegistryPaths) -> Iterator[None]:
    """Turn what SQLite and the file system say into one line for the user; mark a file that is damaged."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        # What is no UTF-8 in a text is an error of Python's, and has no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise _kind(paths, code)(f"the registry {paths.database}: {error}", hint=_HINTS.get(code)) from error
    except ValueError as error:
        mark_damaged(paths)
        raise DamagedError(
            f"the registry {paths.database}: a row cannot be read", hint=_HINTS[sqlite3.SQLITE_CORRUPT]
        ) from error
    except OSError as error:
        raise RegistryError(
            f"the registry {paths.root}: {error.strerror}", hint="name another one with --registry-dir"
        ) from error


def mark_damaged(paths: RegistryPaths) -> None:
    """Let whoever opens the registry next look at the whole file."""
    with contextlib.suppress(OSError):
        paths.damaged.touch(mode=0o600)


def is_suspect(paths: RegistryPaths) -> bool:
    """Return whether the file wants a look before it is opened: marked, or empty while there are jobs."""
    if paths.damaged.exists():
        return True
    try:
        if paths.database.stat().st_size:
            return False
    except FileNotFoundError:
        pass
    return any(paths.jobs.glob("*/events.jsonl"))


def _kind(paths: RegistryPaths, code: int) -> type[RegistryError]:
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return StorageFullError
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        mark_damaged(paths)
        return DamagedError
    return RegistryError


_HINTS = {
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "look at the disk: space, rights, health",
    sqlite3.SQLITE_READONLY: "the registry must be writable; name another one with --registry-dir",
    sqlite3.SQLITE_CANTOPEN: "the registry must be readable; name another one with --registry-dir",
    sqlite3.SQLITE_BUSY: "another process is writing for long; try again",
    sqlite3.SQLITE_NOTADB: "the file is damaged; the next command repairs it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; the next command repairs it",
}
BUSY_HINT = _HINTS[sqlite3.SQLITE_BUSY]
