"""Who is told of what happens to a job: a terminal, a file of JSON lines, nobody. Only the form of it."""

from typing import Protocol

from delegate_job.events import Event
from delegate_job.job import Job


class Listener(Protocol):
    """Hears in the loop's thread, and must not wait for anything."""

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:
        """An event was recorded with this sequence number; `job` is the job after it."""

    def task(self, job: Job, instructions: str) -> None:
        """A person is the agent: show what is to be done."""

    def warn(self, text: str) -> None:
        """Something is amiss, and the job goes on."""

    def tick(self) -> None:
        """Time has passed."""
