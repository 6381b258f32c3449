"""Through which states a job went and when: its events, replayed through the table that made the job.

Not what is shown of it: pages and screens draw it as they like.
"""

from collections.abc import Iterable
from typing import NamedTuple

from delegate_job.job import Job, JobSpec, JobState, Outcome
from delegate_job.lifecycle import advance
from delegate_job.rows import Recorded


class Phase(NamedTuple):
    """A state of a job, and since when (RFC 3339, UTC) it was in it; `outcome` where it is the last."""

    state: JobState
    since: str
    outcome: Outcome | None = None
    reason: str | None = None


class Timeline:
    """A job's phases, as far as its recorded events were taken in; the first is always there."""

    def __init__(self, spec: JobSpec, created_at: str) -> None:
        self._job = Job(spec, created_at)
        self.sequence = 0
        """The number of the last event that was taken in."""
        self.phases = [Phase(self._job.state, created_at)]

    def take(self, happened: Iterable[Recorded]) -> None:
        """Take in further events, in the order in which they were recorded."""
        for recorded in happened:
            self.sequence = recorded.sequence
            if recorded.applied:
                self._apply(recorded)

    def _apply(self, recorded: Recorded) -> None:
        before, self._job = self._job, advance(self._job, recorded.event)
        job, last = self._job, self.phases[-1]
        if job.state is not before.state:
            self.phases.append(Phase(job.state, recorded.event.received_at, job.outcome, job.reason))
        elif job.reason != last.reason:
            # Another dialog, say: it waits since then, and now for this.
            self.phases[-1] = last._replace(reason=job.reason)
