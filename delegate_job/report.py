"""All that is known of one job, gathered for a reader: what was asked, what happened, what came of it.

Not how it is shown: that is `report_page` and `report_markdown`. What is missing is None.
"""

from collections.abc import Iterator
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job import cast, changes, client, journal
from delegate_job.cast import Cast
from delegate_job.changes import Changes
from delegate_job.document import event_document, job_document
from delegate_job.duty import VERDICT_KINDS
from delegate_job.job import Job
from delegate_job.paths import JobPaths
from delegate_job.registry import Registry
from delegate_job.rows import Recorded, Row
from delegate_job.timeline import Timeline
from delegate_job.times import since_1970

PROMPT_LIMIT = 256 * 1024
"""Bytes of the prompt that are shown."""
OUTPUT_LIMIT = 64 * 1024
"""Bytes of the end of each check's output that are shown."""
MOST_EVENTS = 5000
"""Events that are shown: the first ones, as most of a flood are alike."""
_VERDICTS = {str(kind): str(verdict) for verdict, kind in VERDICT_KINDS.items()}


class Excerpt(NamedTuple):
    """A text of somebody else's, whole or a part of it."""

    text: str
    is_cut: bool = False


class Check(NamedTuple):
    """One check: its verdict (None: it has none yet), exit code, and output."""

    attempt: int
    verdict: str | None
    exit_code: int | None
    output: Excerpt | None


class Stay(NamedTuple):
    """A time in one state; `began` and `ended` in seconds since 1970."""

    state: str
    began: float
    ended: float


class Report(NamedTuple):
    """One job, as it was at `made_at` (RFC 3339). `job` and `events` are the objects of docs/schemas."""

    job: dict[str, Any]
    made_at: str
    prompt: Excerpt | None
    stays: tuple[Stay, ...]
    events: tuple[dict[str, Any], ...]
    left_out: int
    checks: tuple[Check, ...]
    cast: Cast | None
    changes: Changes

    @property
    def is_done(self) -> bool:
        """Whether the job has ended."""
        return bool(self.job["outcome"])


def gather(registry: Registry, row: Row) -> Report:
    """Return what is known of a job. It may take a while: the work dir is compared with how it was."""
    paths, made_at = registry.paths.job(row.job.id), journal.now()
    recorded = tuple(registry.events(row.job.id))
    late = tuple(islice(client.late_reports(registry, row), MOST_EVENTS))
    documents = [
        event_document(each.event, sequence=each.sequence, applied=each.applied) for each in recorded
    ]
    documents += [event_document(event, sequence=None, applied=False) for event in late]
    return Report(
        job=job_document(row, registry.paths),
        made_at=made_at,
        prompt=_beginning(paths.prompt, PROMPT_LIMIT),
        stays=tuple(stays(row.job, recorded, until=since_1970(made_at))),
        events=tuple(documents[:MOST_EVENTS]),
        left_out=max(len(documents) - MOST_EVENTS, 0),
        checks=tuple(_checks(row.job, documents, paths)),
        cast=_recording(paths, recorded),
        changes=changes.since(paths.baseline, row.job.spec.workdir),
    )


def stays(job: Job, recorded: tuple[Recorded, ...], *, until: float) -> Iterator[Stay]:
    """Yield the states that the job was in, one after the other: its events are applied once more.

    A clock that was set back shows as a stay of no time.
    """
    timeline = Timeline(job.spec, job.created_at)
    timeline.take(recorded)
    states = [str(phase.state) for phase in timeline.phases]
    begins = list(accumulate((since_1970(phase.since) for phase in timeline.phases), max))
    last = begins[-1] if timeline.phases[-1].outcome else max(until, begins[-1])
    yield from map(Stay, states, begins, [*begins[1:], last])


def _checks(job: Job, documents: list[dict[str, Any]], paths: JobPaths) -> Iterator[Check]:
    ended = [each for each in documents if each["kind"] in _VERDICTS and each["applied"]]
    for attempt in range(1, job.attempt + 1):
        found = ended[attempt - 1] if attempt <= len(ended) else None
        verdict = _VERDICTS[found["kind"]] if found else None
        code = found["data"].get("exit_code") if found else None
        output = _end(paths.validation_log(attempt), OUTPUT_LIMIT)
        yield Check(attempt, verdict, code if isinstance(code, int) else None, output)


def _recording(paths: JobPaths, recorded: tuple[Recorded, ...]) -> Cast | None:
    """Return the recording, with a marker where an event changed the job."""
    found = cast.read(paths.pane_cast)
    events = (each.event for each in recorded if each.applied)
    return found and found.marked((since_1970(event.received_at), event.kind) for event in events)


def _beginning(path: Path, limit: int) -> Excerpt | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return Excerpt(data[:limit].decode(errors="replace"), len(data) > limit)


def _end(path: Path, limit: int) -> Excerpt | None:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(size - limit, 0))
            return Excerpt(file.read(limit).decode(errors="replace"), size > limit)
    except OSError:
        return None
