"""`events.jsonl`: what happened to a job, one line an event, written after the commit.

Not the truth, which is the registry: what could not be written, or an owner did not live to write, is made up
for from there.
"""

import json
import os
from pathlib import Path

from delegate_job import journal
from delegate_job.document import event_document
from delegate_job.paths import private
from delegate_job.registry import Registry


class EventsFile:
    """The file of one job; its owner writes it, and nobody else."""

    def __init__(self, registry: Registry, job_id: str) -> None:
        self._registry = registry
        self._job_id = job_id
        self.path = registry.paths.job(job_id).events
        self.written = _last_sequence(self.path)
        """The sequence number of the last line."""

    def catch_up(self) -> None:
        """Append all that the registry has and the file has not. OSError: the next call does it.

        After an error lines may stand there twice, with the same sequence number.
        """
        last = self.written
        with open(self.path, "ab", opener=private) as file:
            for each in self._registry.events(self._job_id, after=self.written):
                document = event_document(each.event, sequence=each.sequence, applied=each.applied)
                file.write(journal.encode(document))
                last = each.sequence
        self.written = last


def _last_sequence(path: Path) -> int:
    """Return the sequence number in the last whole line, 0 when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 2 * journal.MAX_LINE, 0))
            *lines, _torn = file.read().split(b"\n")
    except OSError:
        return 0
    return next((sequence for line in reversed(lines) if (sequence := _sequence(line))), 0)


def _sequence(line: bytes) -> int:
    try:
        return int(json.loads(line)["sequence"])
    except (ValueError, KeyError, TypeError):
        return 0
