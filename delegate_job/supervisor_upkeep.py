"""What a background supervisor does for the registry itself: backups, and what killed processes left undone.

In a thread of its own, at the start, now and then, and after work. No job's fate hangs on it.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable

from delegate_job import backups, locks
from delegate_job.errors import DelegateJobError
from delegate_job.events_file import EventsFile
from delegate_job.job import JobState
from delegate_job.paths import RegistryPaths
from delegate_job.pruning import remove_abandoned
from delegate_job.registry import Registry

WHEN_IDLE = 5.0
"""Seconds without a job after which what was done is looked after."""
ABANDONED_AFTER = 300.0
"""Seconds after which what a killed submit left is removed: there is the caller's environment in it."""
RECENT = 1000
"""Jobs whose files are looked at, the newest ones."""


class Upkeep:
    """Looks after one registry."""

    def __init__(self, paths: RegistryPaths, warn: Callable[[str], None]) -> None:
        self._paths = paths
        self._warn = warn
        self._next = 0.0
        self._is_wanted = False

    def worked(self) -> None:
        """There was a job."""
        self._is_wanted = True

    def look(self, *, idle_for: float) -> None:
        """Begin it when it is time."""
        now = time.monotonic()
        if now >= self._next or (idle_for > WHEN_IDLE and self._is_wanted):
            self._next = now + backups.EVERY
            self._is_wanted = False
            # Not in the way of the jobs: it reads the whole file.
            threading.Thread(target=self._run, name="upkeep", daemon=True).start()

    def _run(self) -> None:
        for what, do in (("no backup of the registry", self._back_up), ("not tidied up", self._tidy_up)):
            try:
                do()
            except (OSError, sqlite3.Error, DelegateJobError) as error:
                self._warn(f"{what}: {error}")

    def _back_up(self) -> None:
        backups.back_up(self._paths)

    def _tidy_up(self) -> None:
        with Registry(self._paths) as registry:
            complete_events(registry)
            remove_abandoned(registry, after=ABANDONED_AFTER)


def complete_events(registry: Registry) -> None:
    """Write the lines that an owner did not live to write into the `events.jsonl` of jobs that need none."""
    for row in list(registry.rows(state=JobState.DONE, limit=RECENT)):
        paths = registry.paths.job(row.job.id)
        if row.job.owed is not None or not paths.root.is_dir():
            continue
        if EventsFile(registry, row.job.id).written >= row.sequence:
            continue
        lock = locks.acquire(paths.lock)
        if lock is not None:
            try:
                EventsFile(registry, row.job.id).catch_up()
            finally:
                os.close(lock)
