"""The registry's own backups, and what is done when its file is damaged: set aside, never thrown away.

What takes its place is the newest sound backup, brought up to date from what each job directory holds. Never
anything from a work tree: agents write there.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from delegate_job import journal, locks
from delegate_job.errors import RegistryError
from delegate_job.paths import RegistryPaths, private
from delegate_job.recovery import Recovery
from delegate_job.rows import row_of
from delegate_job.storage import is_suspect, mark_damaged

KEEP = 3
"""Backups that are kept, the newest."""
EVERY = 600.0
"""Seconds between two backups while there is something to own."""
REPAIR_TIMEOUT = 60.0
"""Seconds to wait for another process that repairs."""
_BEGINNING = "registry-"
_NAME = f"{_BEGINNING}%Y%m%dT%H%M%S.%f.db"


class Repaired(NamedTuple):
    """What was done about a damaged file. Without a `backup` there was none, or none that was sound."""

    aside: Path
    backup: Path | None
    jobs: int
    """Jobs that are known again."""

    def __str__(self) -> str:
        """Return one line for the user."""
        source = f"the backup {self.backup.name}" if self.backup else "the job directories alone"
        return (
            f"the registry was damaged: set aside as {self.aside}, {self.jobs} jobs taken over from {source}"
        )


def is_sound(database: Path, *, with_rows: bool = True) -> bool:
    """Return whether the whole file can be read: SQLite's quick check and, `with_rows`, every job.

    Takes a second for 100,000 jobs, twice that with rows. sqlite3.Error when it cannot be looked at now.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return False
            (version,) = db.execute("PRAGMA user_version").fetchone()
            for found in db.execute("SELECT * FROM jobs" if with_rows else "SELECT * FROM jobs LIMIT 1"):
                row_of(found)
    except sqlite3.OperationalError as error:
        # A file that is merely locked or out of reach must not be set aside.
        codes = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in codes:
            raise
        return False
    except (sqlite3.DatabaseError, ValueError):
        return False
    return bool(version)


def back_up(paths: RegistryPaths) -> bool:
    """Make a backup and forget all but the newest; False, and the file marked, when it is damaged.

    OSError or sqlite3.Error when the backup could not be made.
    """
    if not is_sound(paths.database, with_rows=False):
        mark_damaged(paths)
        return False
    paths.backups.mkdir(mode=0o700, exist_ok=True)
    name = _next_name(paths)
    partial = paths.backups / f".{name}"
    for cut_short in paths.backups.glob(f".{_BEGINNING}*"):
        cut_short.unlink(missing_ok=True)
    try:
        os.close(private(str(partial), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        with (
            contextlib.closing(sqlite3.connect(paths.database)) as source,
            contextlib.closing(sqlite3.connect(partial)) as target,
        ):
            source.backup(target)
            # One file with all in it: it is copied when it is wanted.
            target.execute("PRAGMA journal_mode = DELETE")
        _sync(partial)
        partial.rename(paths.backups / name)
    finally:
        partial.unlink(missing_ok=True)
    for old in _newest_first(paths)[KEEP:]:
        old.unlink(missing_ok=True)
    return True


def _next_name(paths: RegistryPaths) -> str:
    """Return the time as a name, behind all others: the clock may have been set back since the last one."""
    moment = datetime.now(UTC)
    with contextlib.suppress(StopIteration, ValueError):
        last = datetime.strptime(next(iter(_newest_first(paths))).name, _NAME).replace(tzinfo=UTC)
        moment = max(moment, last + timedelta(microseconds=1))
    return moment.strftime(_NAME)


def _newest_first(paths: RegistryPaths) -> list[Path]:
    return sorted(paths.backups.glob(f"{_BEGINNING}*.db"), reverse=True)


def repair(paths: RegistryPaths) -> Repaired | None:
    """Set a damaged file aside and put another in its place; None when it is sound after all.

    One process at a time. RegistryError when another one takes too long over it.
    """
    lock = locks.acquire(paths.repair_lock, wait=REPAIR_TIMEOUT)
    if lock is None:
        raise RegistryError(f"the registry {paths.root} is being repaired", hint="try again in a minute")
    try:
        done = None
        if is_suspect(paths) and not (paths.database.exists() and is_sound(paths.database)):
            done = _take_over(paths)
        paths.damaged.unlink(missing_ok=True)
        return done
    finally:
        os.close(lock)


def _take_over(paths: RegistryPaths) -> Repaired:
    # Whoever is killed in here leaves the mark, and the next one begins again.
    mark_damaged(paths)
    new = paths.root / "registry.db.new"
    for leftover in paths.root.glob(f"{new.name}*"):
        leftover.unlink()
    os.close(private(str(new), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    backup = next((each for each in _newest_first(paths) if is_sound(each)), None)
    if backup is not None:
        shutil.copyfile(backup, new)
    jobs = Recovery(paths, new).run()
    _sync(new)
    aside = _set_aside(paths)
    new.rename(paths.database)
    _sync(paths.root)
    return Repaired(aside, backup, jobs)


def _set_aside(paths: RegistryPaths) -> Path:
    first = paths.root / f"{paths.database.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, number = first, 1
    # The same second may come twice, also because the clock was set back.
    while aside.exists():
        number += 1
        aside = first.with_name(f"{first.name}-{number}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{paths.database}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        journal.sync(fd)
    finally:
        os.close(fd)
