"""The registry's file: opened, repaired, kept up with, and brought to this version's tables.

What stands in it is `registry`'s; what its errors mean, `storage`'s.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Self

from delegate_job.errors import RegistryError
from delegate_job.paths import RegistryPaths
from delegate_job.retry import retry_until
from delegate_job.schema import MIGRATIONS, VERSION
from delegate_job.storage import BUSY_HINT, DamagedError, is_suspect, told

BUSY_TIMEOUT = 10.0
"""Seconds a writer waits for another one."""


class RegistryFile:
    """The open file of a registry: one object a thread.

    Every method may raise `RegistryError`, with one line and a hint.
    """

    def __init__(self, paths: RegistryPaths) -> None:
        self.paths = paths
        self.repaired: str | None = None
        """One line for the user when the file was found damaged, and what was done about it."""
        self._opened = 0
        self._is_open = False
        with told(paths):
            paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths.jobs.mkdir(mode=0o700, exist_ok=True)
        self._open()

    def _open(self) -> None:
        try:
            self._open_file()
        except DamagedError:
            self._open_file()  # It is marked now, and so repaired.

    def _open_file(self) -> None:
        """Open the file; one that may be damaged is looked at first, and repaired."""
        paths = self.paths
        with told(paths):
            if is_suspect(paths):
                self._repair()
            if not os.access(paths.root, os.W_OK):
                self._open_to_read()
                return
            # Born private, and SQLite gives its other files the same mode. Only if missing: to close a second
            # descriptor of a database would free this process's locks on it (sqlite.org/howtocorrupt.html).
            with contextlib.suppress(FileExistsError):
                os.close(os.open(paths.database, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._opened += 1
            self._db = sqlite3.connect(paths.database, timeout=BUSY_TIMEOUT, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._inode = paths.database.stat().st_ino
            self._is_open = True
            self._prepare()

    def _open_to_read(self) -> None:
        """Open a registry that nobody can write, on a read-only file system say."""
        wal = self.paths.root / f"{self.paths.database.name}-wal"
        # Without a place for its index SQLite reads no write-ahead log (sqlite.org/wal.html#readonly).
        how = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
        uri = f"{self.paths.database.as_uri()}?{how}"
        self._db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._inode = self.paths.database.stat().st_ino
        self._is_open = True

    def _repair(self) -> None:
        from delegate_job import backups

        done = backups.repair(self.paths)
        self.repaired = str(done) if done else self.repaired

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors into ours; go over to the file that a repair has put in a damaged one's place."""
        if not (self._is_open and self._db.in_transaction):
            self._keep_up()
        try:
            with told(self.paths):
                yield
        except DamagedError:
            self._inode = 0  # The next call opens the file again, and has it repaired.
            raise

    def _keep_up(self) -> None:
        try:
            is_same = self.paths.database.stat().st_ino == self._inode
        except OSError:
            is_same = False  # To open it tells what is wrong.
        if not (is_same and self._is_open):
            # Closed first: it may be the same file, and a process's locks on a file go with any descriptor.
            self._db.close()
            self._is_open = False
            self._open()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            # What was answered survives a power cut (sqlite.org/pragma.html#pragma_synchronous).
            self._db.execute("PRAGMA synchronous = FULL")
            return
        if version > VERSION:
            raise RegistryError(
                f"the registry {self.paths.root} was made by a newer delegate-job"
                f" (schema {version}, this one knows {VERSION})",
                hint="upgrade delegate-job, or name another registry with --registry-dir",
            )
        if not retry_until(self._use_wal, timeout=BUSY_TIMEOUT):
            raise RegistryError(f"the registry {self.paths.root} is busy", hint=BUSY_HINT)
        self._db.execute("PRAGMA synchronous = FULL")
        self._migrate()

    def _use_wal(self) -> bool:
        # Where several processes make a registry at once, SQLite refuses this without its busy timeout.
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _migrate(self) -> None:
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in filter(str.strip, script.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite may have rolled back by itself (sqlite.org/lang_transaction.html).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
