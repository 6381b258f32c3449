"""Jobs and events with the fields a test does not care about filled in. Not what may happen to them."""

from typing import Any

from delegate_job.events import Event, Source
from delegate_job.job import Job, JobSpec

CREATED = "2026-08-01T10:00:00.000000Z"
_SPEC_FIELDS = frozenset(JobSpec._fields)


def job(job_id: str = "abcdefghjk", **values: Any) -> Job:
    """Return a job; each value goes to the job or to its spec, wherever that field is."""
    given = {name: value for name, value in values.items() if name in _SPEC_FIELDS}
    rest = {name: value for name, value in values.items() if name not in _SPEC_FIELDS}
    spec: dict[str, Any] = {
        "id": job_id,
        "agent": "command",
        "workdir": "/project",
        "session": f"dj-{job_id}",
        "log_dir": f"/project/delegate_job_logs/{job_id}",
        "prompt_sha256": "0" * 64,
    }
    return Job(JobSpec(**(spec | given)), **({"created_at": CREATED} | rest))


def event(kind: str, source: Source = Source.OWNER, **values: Any) -> Event:
    """Return an event of `job()`, received when it happened."""
    given: dict[str, Any] = {"id": f"{kind}-{source}", "job_id": "abcdefghjk", "at": CREATED}
    given |= {"received_at": CREATED} | values
    return Event(kind=kind, source=source, **given)
