"""Follow all jobs of a registry, or one: which have changed since the last look. It owns and changes nothing.

Not how that is shown: `commands_watch` prints it, `watch_app` draws it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from delegate_job import client
from delegate_job.errors import UnknownJobError
from delegate_job.registry import Registry
from delegate_job.rows import Row, Version

TAKE_OVER_EVERY = 1.0
"""Seconds, at most, between two looks at whether every job has an owner."""


class Changes(NamedTuple):
    """Jobs that are new or have changed, in the order in which they did; and the ids of pruned ones."""

    rows: list[Row]
    forgotten: list[str]


class Follower:
    """Looks at a registry and remembers what it saw. `job_id` narrows it to one job."""

    def __init__(self, registry: Registry, job_id: str | None = None) -> None:
        self._registry = registry
        self._job_id = job_id
        self._seen: dict[str, Version] = {}
        self.data_version = -1
        """That of the registry at the last look."""

    def look(self) -> Changes | None:
        """Return what changed since the last look, None when nothing was committed; the first has all."""
        if (now := self._registry.data_version()) == self.data_version:
            return None
        is_first, self.data_version = self.data_version == -1, now
        if is_first and self._job_id is None:
            rows = list(self._registry.rows())
            gone: list[str] = []
        else:
            rows, gone = self._changed()
        self._seen |= {row.job.id: row.version for row in rows}
        return Changes(sorted(rows, key=lambda row: row.sequence), gone)

    def _changed(self) -> tuple[list[Row], list[str]]:
        versions = self._registry.versions()
        if self._job_id is not None:
            versions = {name: version for name, version in versions.items() if name == self._job_id}
        gone = [job_id for job_id in self._seen if job_id not in versions]
        for job_id in gone:
            del self._seen[job_id]
        changed = (job_id for job_id, version in versions.items() if self._seen.get(job_id) != version)
        return list(self._rows(changed)), gone

    def _rows(self, job_ids: Iterator[str]) -> Iterator[Row]:
        for job_id in job_ids:
            # One that was pruned just now is told of at the next look.
            try:
                yield self._registry.row(job_id)
            except UnknownJobError:
                continue


def follow(registry: Registry, job_id: str | None, take_over: Callable[[], None]) -> Iterator[Changes]:
    """Yield what is there, then what changes, without end, or until the one job is settled or forgotten.

    `take_over` is called about once a second: nobody else may be there to give a job an owner.
    """
    follower = Follower(registry, job_id)
    while True:
        changes = follower.look()
        if changes is not None:
            yield changes
            if job_id is not None and _is_over(changes):
                return
        take_over()
        client.await_change(registry, follower.data_version, timeout=TAKE_OVER_EVERY)


def _is_over(changes: Changes) -> bool:
    return bool(changes.forgotten) or any(row.job.settled for row in changes.rows)
