"""The registry: every job and every event of it, in one SQLite file. The truth.

Not the audit directory (what agents claim), not MQTT (what is announced): both can be made again from here.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from delegate_job.errors import RegistryError, UnknownJobError
from delegate_job.events import Event
from delegate_job.job import Job, JobState
from delegate_job.registry_file import RegistryFile
from delegate_job.rows import (
    Progress,
    Recorded,
    Row,
    Version,
    event_columns,
    job_columns,
    new_job_columns,
    progress_columns,
    recorded_of,
    row_of,
    storable,
)
from delegate_job.storage import DamagedError, StorageFullError

__all__ = ["MAX_PARALLEL", "DamagedError", "Registry", "StorageFullError"]

MAX_PARALLEL = "max_parallel"
"""The name of the setting that says how many jobs may run at once."""


class Registry(RegistryFile):
    """An open registry; each method is one transaction at the most.

    Every method may raise `RegistryError`, with one line and a hint.
    """

    # -- writing

    def add(self, job: Job, event: Event) -> Row:
        """Add a new job with its first event; `sqlite3.IntegrityError` when the operation id is taken."""
        with self._transaction():
            values = new_job_columns(job)
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            # The column names are ours; every value is bound.
            insert = f"INSERT INTO jobs ({names}) VALUES ({marks})"  # noqa: S608
            self._db.execute(insert, tuple(map(storable, values.values())))
            sequence = self._insert_event(event, applied=True)
            self._db.execute("UPDATE jobs SET sequence = ? WHERE id = ?", (sequence, job.id))
        return self.row(job.id)

    def record(
        self, event: Event, after: Job, *, applied: bool, progress: Progress, epoch: int
    ) -> int | None:
        """Record one event and the job it leads to; return its sequence number, None when its id is a repeat.

        Raises `RegistryError` when `epoch` is no longer the owner's: another process has taken the job over.
        """
        with self._transaction():
            sequence = self._insert_event(event, applied=applied)
            columns = progress_columns(progress)
            if sequence is not None:
                columns |= job_columns(after) | {"sequence": sequence}
            self._update(after.id, columns, epoch)
        return sequence

    def save_progress(self, job_id: str, progress: Progress, *, epoch: int) -> None:
        """Keep how far the inboxes were read and the time used, without an event."""
        with self._transaction():
            self._update(job_id, progress_columns(progress), epoch)

    def save_all_progress(self, unsaved: Iterable[tuple[str, Progress, int]]) -> None:
        """Keep the same of many jobs, each with its epoch; of one that has another owner now, nothing."""
        with self._transaction():
            for job_id, progress, epoch in unsaved:
                with contextlib.suppress(RegistryError):
                    self._update(job_id, progress_columns(progress), epoch)

    def set_tmux_socket(self, job_id: str, socket: str, *, epoch: int) -> None:
        """Remember the socket of the tmux server that the job's session lives in."""
        with self._transaction():
            self._update(job_id, {"tmux_socket": socket}, epoch)

    def take_ownership(self, job_id: str, *, pid: int, host: str) -> int:
        """Write down who owns a job; return the owner's epoch. The caller holds the job's lock.

        Raises `RegistryError` when the job belongs to another host: its lock says nothing here.
        """
        with self._transaction():
            row = self._db.execute("SELECT host, owner_epoch FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise UnknownJobError(f"no job {job_id}")
            if row["host"] not in {None, host}:
                raise RegistryError(f"job {job_id} belongs to the host {row['host']}, and this is {host}")
            epoch = int(row["owner_epoch"]) + 1
            self._db.execute(
                "UPDATE jobs SET host = ?, owner_pid = ?, owner_epoch = ? WHERE id = ?",
                (host, pid, epoch, job_id),
            )
        return epoch

    def give_up_ownership(self, job_id: str, *, epoch: int) -> None:
        """Write down that nobody owns the job any more."""
        with self._transaction():
            self._update(job_id, {"owner_pid": None}, epoch)

    def set(self, name: str, value: str | None) -> None:
        """Keep a setting of the whole registry; None forgets it."""
        with self._transaction():
            self._db.execute("DELETE FROM settings WHERE name = ?", (name,))
            if value is not None:
                self._db.execute("INSERT INTO settings (name, value) VALUES (?, ?)", (name, value))

    def forget(self, job_id: str) -> None:
        """Remove a job and its events. The caller holds its lock."""
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def append(self, event: Event) -> int | None:
        """Record an event that changes no job (a `verify`); return its sequence number, None for a repeat."""
        with self._transaction():
            return self._insert_event(event, applied=False)

    def _update(self, job_id: str, columns: dict[str, Any], epoch: int) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        found = self._db.execute(
            f"UPDATE jobs SET {assignments} WHERE id = ? AND owner_epoch = ?",  # noqa: S608 - our own column names
            (*map(storable, columns.values()), job_id, epoch),
        )
        if found.rowcount != 1:
            raise RegistryError(f"job {job_id} has another owner now")

    def _insert_event(self, event: Event, *, applied: bool) -> int | None:
        columns = event_columns(event, applied=applied)
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        done = self._db.execute(
            f"INSERT OR IGNORE INTO events ({names}) VALUES ({marks})",  # noqa: S608 - our own column names
            tuple(map(storable, columns.values())),
        )
        return done.lastrowid if done.rowcount == 1 else None

    # -- reading

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed (PRAGMA data_version)."""
        with self._told():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0]) + (self._opened << 32)

    def row(self, job_id: str) -> Row:
        """Return one job by its whole id."""
        with self._told():
            found = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            raise UnknownJobError.of(job_id, [])
        return row_of(found)

    def has(self, job_id: str) -> bool:
        """Return whether there is a job with this id."""
        with self._told():
            query = "SELECT 1 FROM jobs WHERE id = ?"
            return self._db.execute(query, (job_id,)).fetchone() is not None

    def find(self, beginning: str) -> Row:
        """Return the job with this id, or this unique beginning of one; `@last` is the newest."""
        with self._told():
            if beginning == "@last":
                found = self._db.execute("SELECT * FROM jobs ORDER BY number DESC LIMIT 1").fetchall()
            elif not beginning:
                # A script's unset variable must not mean the only job there is.
                found = []
            else:
                found = self._db.execute(
                    "SELECT * FROM jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT 2",
                    (storable(beginning), storable(beginning) + chr(0x10FFFF)),
                ).fetchall()
        if len(found) == 1 or (found and found[0]["id"] == beginning):
            return row_of(found[0])
        raise UnknownJobError.of(beginning, [row["id"] for row in found])

    def find_operation(self, operation_id: str) -> Row | None:
        """Return the job that was submitted with this operation id."""
        with self._told():
            query = "SELECT * FROM jobs WHERE operation_id = ?"
            found = self._db.execute(query, (storable(operation_id),)).fetchone()
        return None if found is None else row_of(found)

    def rows(
        self,
        *,
        state: JobState | None = None,
        agent: str | None = None,
        workdir: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Yield jobs, newest first, one at a time: the memory needed does not grow with their number."""
        wanted = {"state": state, "agent": agent, "workdir": workdir}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        # Column names are the three above; a negative limit is none (sqlite.org/lang_select.html).
        query = f"SELECT * FROM jobs WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608
        with self._told():
            for found in self._db.execute(
                query, (*map(storable, given.values()), -1 if limit is None else limit)
            ):
                yield row_of(found)

    def versions(self) -> dict[str, Version]:
        """Return of every job what changes whenever anything of it does that a reader is shown."""
        query = "SELECT id, sequence, owner_epoch, owner_pid FROM jobs"
        with self._told():
            return {found["id"]: Version(*found[1:]) for found in self._db.execute(query)}

    def unsettled(self) -> list[str]:
        """Return the ids of all jobs that need an owner, oldest first: not done, or something still owed."""
        # Word for word the condition of the index jobs_unsettled, so that SQLite uses it.
        query = "SELECT id FROM jobs WHERE state <> 'done' OR owed IS NOT NULL ORDER BY number"
        with self._told():
            return [row["id"] for row in self._db.execute(query)]

    def unfinished(self) -> list[str]:
        """Return the ids of all jobs that are not done, oldest first."""
        live = [state for state in JobState if state is not JobState.DONE]
        marks = ", ".join("?" * len(live))
        with self._told():
            found = self._db.execute(
                f"SELECT id FROM jobs WHERE state IN ({marks}) ORDER BY number",  # noqa: S608 - only marks
                live,
            ).fetchall()
        return [row["id"] for row in found]

    def get(self, name: str) -> str | None:
        """Return a setting of the whole registry."""
        with self._told():
            found = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found["value"])

    def may_launch(self, job_id: str) -> bool:
        """Return whether there is room for this job: at most MAX_PARALLEL run at once, oldest first."""
        most = self.get(MAX_PARALLEL)
        if most is None:
            return True
        waiting, done = JobState.REGISTERED, JobState.DONE
        with self._told():
            (before,) = self._db.execute(
                "SELECT count(*) FROM jobs WHERE state NOT IN (?, ?) OR (state = ? AND number <"
                " (SELECT number FROM jobs WHERE id = ?))",
                (waiting, done, waiting, job_id),
            ).fetchone()
        return bool(before < int(most))

    def knows_event(self, job_id: str, event_id: str) -> bool:
        """Return whether an event with this id was recorded for the job."""
        with self._told():
            query = "SELECT 1 FROM events WHERE job_id = ? AND id = ?"
            return self._db.execute(query, (job_id, event_id)).fetchone() is not None

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Recorded]:
        """Yield the events of a job in the order in which they were recorded, one at a time."""
        with self._told():
            query = "SELECT * FROM events WHERE job_id = ? AND sequence > ? ORDER BY sequence"
            for found in self._db.execute(query, (job_id, after)):
                yield recorded_of(found)
