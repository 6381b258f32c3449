"""Which events a person is to be told of, and what of them: a notice, without anything secret in it.

Not where it is sent: that is `notifying`, in a process of its own.
"""

from typing import Any, NamedTuple

from delegate_job.events import Event, Kind
from delegate_job.job import Job, JobState

USUAL = (JobState.WAITING.value, JobState.DONE.value, Kind.STALLED.value)
"""What is told of unless `[notify] events` says otherwise."""
KNOWN = (JobState.WAITING.value, JobState.DONE.value, *(kind.value for kind in Kind))
"""What `[notify] events` may hold."""
MOST_DETAIL = 500

# What makes a job wait; other events may be applied while it does.
_ASK = frozenset({Kind.PERMISSION_REQUIRED, Kind.TURN_ENDED})


class Notice(NamedTuple):
    """One thing a person is told of."""

    job_id: str
    what: str
    """How the job ended, or that it waits, or the event's kind."""
    agent: str
    workdir: str
    detail: str | None
    """Why it waits or ended, else what came with the event; words of others among them."""


def is_wanted(job: Job, event: Event) -> bool:
    """Return whether an applied event, after which the job is as given, is one to tell of."""
    names = job.spec.notify
    return (
        event.kind in names
        or (JobState.DONE in names and job.done and event.kind != Kind.CLOSED)
        or (JobState.WAITING in names and job.state is JobState.WAITING and event.kind in _ASK)
    )


def notice_of(job: Job, event: Event) -> dict[str, Any]:
    """Return a `Notice` as JSON takes it."""
    detail = job.reason if job.done or job.state is JobState.WAITING else event.detail
    said = event.detail or ""
    if detail and said and said != detail:
        detail = f"{detail}: {said}"
    notice = Notice(
        job_id=job.id,
        what=job.outcome or (job.state if job.state is JobState.WAITING else event.kind),
        agent=job.spec.agent,
        workdir=job.spec.workdir,
        detail=detail[:MOST_DETAIL] if detail else None,
    )
    return notice._asdict()
