"""Forgets jobs that ended long ago: session, topics, worktree, directory, row.

Never a job that is not done, nor one whose worktree has work in it: a later look may find it merged.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from delegate_job import locks, worktree
from delegate_job.audit import AuditDir
from delegate_job.errors import DelegateJobError, UsageError
from delegate_job.job import JobState
from delegate_job.mqtt import Address
from delegate_job.paths import JobPaths
from delegate_job.registry import Registry
from delegate_job.retained import Retained
from delegate_job.rows import Row, spec_of
from delegate_job.tmux import Tmux

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(\d{1,9})\s*(s|min|h|d|w)")
ABANDONED_AFTER = 3600.0
"""Seconds after which a job directory without a row is the rest of a submit that was killed."""


class Looked(NamedTuple):
    """An old job, and why it is kept; None: it is forgotten, or would be."""

    job_id: str
    worktree: str | None = None
    kept: str | None = None


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as `30d`; UsageError for anything else."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        raise UsageError(f"{age!r} is no age", hint="a number and one of s, min, h, d, w: 30d")
    return float(int(match[1]) * _UNITS[match[2]])


def prune(
    registry: Registry,
    age: float,
    *,
    broker: Address | None,
    dry_run: bool,
    logs: bool,
    warn: Callable[[str], None],
) -> Iterator[Looked]:
    """Yield the jobs that ended more than `age` seconds ago, forgetting each unless `dry_run` or it is kept.

    `broker` is the external one from which their topics are taken back.
    """
    retained = Retained(broker, warn)
    before = datetime.fromtimestamp(time.time() - age, tz=UTC).isoformat(timespec="microseconds")
    old = [
        row
        for row in registry.rows(state=JobState.DONE)
        if row.job.ended_at and row.job.ended_at < before.replace("+00:00", "Z")
    ]
    for row in old:
        own = row.job.spec.worktree
        looked = Looked(row.job.id, own.path if own else None, worktree.reason_to_keep(own) if own else None)
        if not (dry_run or looked.kept):
            yield from _forget(registry, row, retained, logs=logs, warn=warn)
        else:
            yield looked
    if not dry_run:
        retained.say_left()
        remove_abandoned(registry, after=ABANDONED_AFTER)


def _forget(
    registry: Registry, row: Row, retained: Retained, *, logs: bool, warn: Callable[[str], None]
) -> Iterator[Looked]:
    """Forget one job under its lock, so that no owner finds half of it; nothing when somebody holds it."""
    own = row.job.spec.worktree
    paths = registry.paths.job(row.job.id)
    # Where its user has removed the directory: its session and its worktree are to go all the same.
    paths.root.mkdir(mode=0o700, exist_ok=True)
    lock = locks.acquire(paths.lock)
    if lock is None:
        return
    try:
        _end_session(row, warn)
        if own is not None and (reason := worktree.remove(own)):
            yield Looked(row.job.id, own.path, reason)
            return
        retained.clear(row)
        registry.forget(row.job.id)
        shutil.rmtree(paths.root, ignore_errors=True)
    finally:
        os.close(lock)
    if logs:
        AuditDir.at(row.job.spec.log_dir).remove()
    yield Looked(row.job.id)


def _end_session(row: Row, warn: Callable[[str], None]) -> None:
    if not (row.tmux_socket and row.job.spec.session):
        return
    try:
        Tmux(socket=row.tmux_socket).kill_session(row.job.spec.session)
    except DelegateJobError as error:
        warn(f"job {row.job.id}: {error.message}")


def remove_abandoned(registry: Registry, *, after: float) -> None:
    """Remove what submits made that were killed before there was a job, unchanged for `after` seconds."""
    for directory in registry.paths.jobs.iterdir():
        if registry.has(directory.name) or time.time() - _changed(directory) < after:
            continue
        with contextlib.suppress(OSError):
            lock = locks.acquire(directory / "lock")
            if lock is not None:
                if not registry.has(directory.name):
                    _remove_worktree(JobPaths(directory))
                    shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)


def _remove_worktree(paths: JobPaths) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        own = spec_of(paths.spec.read_text(encoding="utf-8")).worktree
        if own is not None:
            worktree.remove(own)


def _changed(directory: Path) -> float:
    try:
        return directory.lstat().st_mtime
    except OSError:
        return time.time()
