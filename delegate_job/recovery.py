"""Brings the copy of an old registry up to date from the job directories: what was asked, and what happened.

Events are replayed through the same function that applied them. Not the search for a copy: that is `backups`.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from delegate_job.events import Event, Source
from delegate_job.job import Job
from delegate_job.lifecycle import advance
from delegate_job.mqtt import read_connection
from delegate_job.paths import JobPaths, RegistryPaths
from delegate_job.rows import event_columns, job_columns, new_job_columns, row_of, spec_of, storable
from delegate_job.schema import MIGRATIONS


class Recovery:
    """One run over all job directories, in one transaction on `database`."""

    def __init__(self, paths: RegistryPaths, database: Path) -> None:
        self._paths = paths
        self._db = sqlite3.connect(database, isolation_level=None)
        self._db.row_factory = sqlite3.Row

    def run(self) -> int:
        """Do it; return how many jobs the registry knows then."""
        with contextlib.closing(self._db):
            # Not for reading by others yet: what is renamed into place must be one file.
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.execute("BEGIN IMMEDIATE")
            self._migrate()
            for directory in sorted(self._paths.jobs.iterdir(), key=_born):
                # Whatever stands in one directory must not cost the others their job.
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    self._recover(self._paths.job(directory.name))
            (count,) = self._db.execute("SELECT count(*) FROM jobs").fetchone()
            self._db.execute("COMMIT")
        return int(count)

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, script.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {number}")

    def _recover(self, paths: JobPaths) -> None:
        happened = list(_happened(paths))
        if not happened:
            return
        job_id = paths.root.name
        found = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            job, last = self._add(paths, happened[0][1]), 0
        else:
            job, last = row_of(found).job, int(found["sequence"])
        for sequence, event, applied in happened:
            if sequence > last:
                self._insert(
                    "INSERT OR IGNORE", "events", event_columns(event, applied=applied, sequence=sequence)
                )
                job, last = advance(job, event) if applied else job, sequence
        self._update(job, last, paths)

    def _add(self, paths: JobPaths, first: Event) -> Job:
        spec = spec_of(paths.spec.read_text(encoding="utf-8"))
        job = Job(spec, created_at=first.at)
        if self._db.execute("SELECT 1 FROM jobs WHERE operation_id = ?", (spec.operation_id,)).fetchone():
            job = job._replace(spec=spec._replace(operation_id=None))
        self._insert("INSERT", "jobs", new_job_columns(job))
        return job

    def _update(self, job: Job, sequence: int, paths: JobPaths) -> None:
        epoch = 0
        with contextlib.suppress(OSError, ValueError):
            # An owner that lives on goes on: it is still the one with the highest epoch.
            epoch = read_connection(paths.connection).epoch
        columns = job_columns(job) | {"sequence": sequence}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        self._db.execute(
            f"UPDATE jobs SET {assignments}, owner_epoch = max(owner_epoch, ?) WHERE id = ?",  # noqa: S608 - our names
            (*map(storable, columns.values()), epoch, job.id),
        )

    def _insert(self, how: str, table: str, columns: dict[str, Any]) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        statement = f"{how} INTO {table} ({names}) VALUES ({marks})"
        self._db.execute(statement, tuple(map(storable, columns.values())))


def _born(directory: Path) -> float:
    try:
        return (directory / "prompt.md").stat().st_mtime
    except OSError:
        return 0.0


def _happened(paths: JobPaths) -> Iterator[tuple[int, Event, bool]]:
    """Yield what events.jsonl holds: sequence number, event, whether it was applied."""
    seen = 0
    with paths.events.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                sequence, event, applied = _event(json.loads(line))
                # After an error of the disk lines may stand there twice.
                if sequence > seen and event.job_id == paths.root.name:
                    seen = sequence
                    yield sequence, event, applied


def _event(line: dict[str, Any]) -> tuple[int, Event, bool]:
    names = ("id", "job_id", "kind", "at", "detail", "data", "received_at")
    return (
        line["sequence"],
        Event(**{name: line[name] for name in names}, source=Source(line["source"])),
        line["applied"],
    )
