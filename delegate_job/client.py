"""What processes do that own no job: wait for one, ask for its end, read its log. They read the registry.

Nothing here changes a job; a wish (`cancel`) goes into the job's control file, and its owner acts on it.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from delegate_job import journal, locks
from delegate_job.audit import AuditDir
from delegate_job.document import event_document
from delegate_job.errors import DelegateJobError
from delegate_job.events import Event, Kind, Source
from delegate_job.exit_codes import ExitCode, exit_code_of
from delegate_job.inbox import REPORTS, of_hook
from delegate_job.job import JobState
from delegate_job.registry import Registry
from delegate_job.retry import retry_until
from delegate_job.rows import START, Row

LOOK_EVERY = 0.05
"""Seconds between two looks at the registry's `data_version`."""
OWNERLESS_AFTER = 1.0
"""Seconds for which a job's lock must have been free before it is called ownerless."""


class WaitTimedOutError(DelegateJobError):
    """`wait --timeout` ran out; the jobs go on."""

    exit_code = ExitCode.WAIT_TIMED_OUT


def wait(
    registry: Registry,
    job_ids: list[str],
    *,
    any_of: bool = False,
    until: JobState | None = None,
    timeout: float | None = None,
    warn: Callable[[str], None] = lambda _: None,
    take_over: Callable[[], None] = lambda: None,
    look: Callable[[list[Row]], None] = lambda _: None,
) -> list[Row]:
    """Block until the jobs are done (or in the state `until`), or one of them if `any_of`; return their rows.

    Returns at once when it is so already. WaitTimedOutError after `timeout` seconds. `take_over` is called
    whenever one of them is seen to have no owner: nobody else may be there to give it one. `look` is shown
    them at each change and at least once a second; what it raises ends the wait.
    """
    end = None if timeout is None else time.monotonic() + timeout
    ownerless = _Ownerless(registry, warn, take_over)
    version = -1
    while True:
        if (now := registry.data_version()) != version:
            version = now
            rows = [registry.row(job_id) for job_id in job_ids]
            reached = [row for row in rows if row.job.done or row.job.state is until]
            if len(reached) == len(rows) or (any_of and reached):
                return reached
        left = math.inf if end is None else end - time.monotonic()
        if left <= 0:
            goes = "job goes" if len(job_ids) == 1 else "jobs go"
            raise WaitTimedOutError(f"not done after {timeout:g} s; the {goes} on")
        ownerless.look([row for row in rows if not row.job.done])
        look(rows)
        await_change(registry, version, timeout=min(left, 1.0))


def wait_until_settled(
    registry: Registry, job_id: str, *, timeout: float, take_over: Callable[[], None]
) -> bool:
    """Wait until a job is done and nothing is owed any more; False after `timeout` seconds.

    `take_over` is called while it has no owner: the one it had may end in the meantime.
    """
    lock = registry.paths.job(job_id).lock

    def settled() -> bool:
        if registry.row(job_id).job.settled:
            return True
        if not locks.is_held(lock):
            take_over()
        return False

    return bool(retry_until(settled, timeout=timeout, interval=LOOK_EVERY))


def await_change(registry: Registry, version: int, *, timeout: float) -> None:
    """Return when another process has committed since `version`, or after `timeout` seconds."""
    retry_until(lambda: registry.data_version() != version, timeout=timeout, interval=LOOK_EVERY)


class _Ownerless:
    """Has jobs whose owner has ended taken over, and warns once of each that stays without one."""

    def __init__(
        self, registry: Registry, warn: Callable[[str], None], take_over: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._warn = warn
        self._take_over = take_over
        self._since: dict[str, float] = {}
        self._said: set[str] = set()

    def look(self, rows: list[Row]) -> None:
        """Look at the locks of unfinished jobs."""
        for job_id in (row.job.id for row in rows):
            if locks.is_held(self._registry.paths.job(job_id).lock):
                self._since.pop(job_id, None)
                continue
            since = self._since.setdefault(job_id, time.monotonic())
            if time.monotonic() - since >= OWNERLESS_AFTER and job_id not in self._said:
                self._said.add(job_id)
                self._warn(f"job {job_id} has no owner: the process that ran it has ended")
        if self._since:
            self._take_over()


def wait_code(rows: list[Row], until: JobState | None) -> int:
    """Return the exit code of a wait: the highest of the jobs'; 0 for one that is in the state asked for."""
    return max((_code(row, until) for row in rows), default=0)


def _code(row: Row, until: JobState | None) -> int:
    if row.job.outcome is None or (until is not None and row.job.state is until):
        return 0
    return int(exit_code_of(row.job.outcome))


def ask_to_cancel(registry: Registry, row: Row, *, detail: str) -> None:
    """Write the wish into the job's control file."""
    control = registry.paths.job(row.job.id).control
    journal.append_event(control, row.job.id, Kind.CANCEL_REQUESTED, detail)


def late_reports(registry: Registry, row: Row) -> Iterator[Event]:
    """Yield the reports that no owner has read: those of an ownerless job, and those after the end."""
    position = row.progress.reports if row.job.done or row.progress.reports.inode else START
    while True:
        batch = _batch(row, position)
        for line in batch.lines:
            event = journal.parse(line, job_id=row.job.id, source=Source.AGENT, received_at=journal.now())
            if event is not None and not registry.knows_event(row.job.id, event.id):
                yield of_hook(event, str(registry.paths.job(row.job.id).agent))
        position = batch.position
        if not batch.more:
            return


def log_entries(registry: Registry, job_id: str, *, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield what owners have recorded of a job, as JSON objects; `late_reports` has what none has read."""
    for recorded in registry.events(job_id, after=after):
        yield event_document(recorded.event, sequence=recorded.sequence, applied=recorded.applied)


def report_lines(row: Row, done: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the lines of a job's `reports.jsonl`, also those to come, until `done` says so and all was read.

    The file lies on hostile ground: no other file is read in its place, holes and lines that are too long or
    do not name the job are passed over, and control characters, which JSON does not have, are replaced.
    """
    position = START
    while True:
        ended = done()
        batch = _batch(row, position)
        position = batch.position
        for line in batch.lines:
            yield line.translate(_NO_CONTROLS) + b"\n"
        if not batch.more:
            if ended:
                return
            retry_until(done, timeout=LOOK_EVERY, interval=LOOK_EVERY)


_NO_CONTROLS = bytes(ord("?") if byte < 0x20 or byte == 0x7F else byte for byte in range(256))


def _batch(row: Row, position: journal.Position) -> journal.Batch:
    fd = AuditDir.at(row.job.spec.log_dir).read_fd(REPORTS)
    if fd is None:
        return journal.Batch([], position, more=False)
    try:
        return journal.read_new(fd, position, mark=row.job.id.encode())
    finally:
        os.close(fd)


def follow_file(path: Path, done: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what a file holds and what is appended to it, until `done` says so and all was read."""
    offset = 0
    while True:
        ended = done()
        chunk = _read_from(path, offset)
        offset += len(chunk)
        if chunk:
            yield chunk
        elif ended:
            return
        else:
            _await_growth(path, offset, done)


def _await_growth(path: Path, offset: int, done: Callable[[], bool]) -> None:
    retry_until(lambda: _size(path) > offset or done(), timeout=1.0, interval=LOOK_EVERY)


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(1 << 20)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
