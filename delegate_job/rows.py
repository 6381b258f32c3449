"""A job and its events as columns, and back. No SQL here and no file: that is `registry`."""

import json
import sqlite3
from typing import Any, NamedTuple

from delegate_job.events import Event, Source
from delegate_job.job import Action, Job, JobSpec, JobState, Outcome, Verdict, Worktree
from delegate_job.journal import Position

START = Position(0, 0)


class Progress(NamedTuple):
    """What is kept with a job besides its value, so that a new owner can go on: inboxes read, time used."""

    reports: Position = START
    control: Position = START
    timeout_left: float | None = None
    quiet_for: float = 0.0


class Version(NamedTuple):
    """Of a job: the sequence number of its last event, and who owns it."""

    sequence: int
    owner_epoch: int
    owner_pid: int | None


class Row(NamedTuple):
    """A job as the registry has it: the value, and what belongs to its owner."""

    job: Job
    number: int
    sequence: int
    progress: Progress = Progress()
    host: str | None = None
    owner_pid: int | None = None
    owner_epoch: int = 0
    tmux_socket: str | None = None

    @property
    def version(self) -> Version:
        """What changes whenever anything of the job does that a reader is shown."""
        return Version(self.sequence, self.owner_epoch, self.owner_pid)


class Recorded(NamedTuple):
    """An event as the registry has it: with its sequence number, and whether it changed the job."""

    sequence: int
    event: Event
    applied: bool


def storable(value: Any) -> Any:
    """Return a value that SQLite takes: what is not UTF-8 in a file name is spelled out."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def spec_text(spec: JobSpec) -> str:
    """Return the spec as the registry keeps it: one JSON object."""
    own = spec.worktree
    return json.dumps(spec._asdict() | {"worktree": None if own is None else own._asdict()})


def spec_of(text: str) -> JobSpec:
    """Return the spec that `spec_text` has written; ValueError or TypeError when it is none."""
    known = set(JobSpec._fields)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(text).items()
        if name in known
    }
    own = values.get("worktree")
    return JobSpec(**values | {"worktree": None if own is None else _worktree_of(own)})


def _worktree_of(values: dict[str, Any]) -> Worktree:
    return Worktree(**{name: values[name] for name in Worktree._fields})


_JOB_FIELDS = (
    "state",
    "outcome",
    "verdict",
    "attempt",
    "owed",
    "reason",
    "detail",
    "untold",
    "unheard",
    "started_at",
    "ended_at",
    "last_event",
    "last_event_at",
)


def job_columns(job: Job) -> dict[str, Any]:
    """Return the columns that a transition may change."""
    return {name: getattr(job, name) for name in _JOB_FIELDS}


def new_job_columns(job: Job) -> dict[str, Any]:
    """Return the columns of a job that is new."""
    return job_columns(job) | {
        "id": job.id,
        "spec": spec_text(job.spec),
        "agent": job.spec.agent,
        # By which `list --here` finds it: where its user was.
        "workdir": job.spec.worktree.origin if job.spec.worktree else job.spec.workdir,
        "operation_id": job.spec.operation_id,
        "created_at": job.created_at,
        "timeout_left": job.spec.timeout,
    }


def event_columns(event: Event, *, applied: bool, sequence: int | None = None) -> dict[str, Any]:
    """Return the columns of an event; without a sequence number SQLite gives it the next one."""
    return {
        "sequence": sequence,
        "job_id": event.job_id,
        "id": event.id,
        "kind": event.kind,
        "source": event.source,
        "at": event.at,
        "received_at": event.received_at,
        "detail": event.detail,
        "data": json.dumps(dict(event.data)),
        "applied": applied,
    }


def progress_columns(progress: Progress) -> dict[str, Any]:
    """Return the columns in which an owner keeps how far it is."""
    return {
        "reports_inode": progress.reports.inode,
        "reports_offset": progress.reports.offset,
        "control_inode": progress.control.inode,
        "control_offset": progress.control.offset,
        "timeout_left": progress.timeout_left,
        "quiet_for": progress.quiet_for,
    }


def row_of(found: sqlite3.Row) -> Row:
    """Return a job from all columns of its row."""
    return Row(
        job=_job(found),
        number=found["number"],
        sequence=found["sequence"],
        progress=Progress(
            reports=Position(found["reports_inode"], found["reports_offset"]),
            control=Position(found["control_inode"], found["control_offset"]),
            timeout_left=found["timeout_left"],
            quiet_for=found["quiet_for"],
        ),
        host=found["host"],
        owner_pid=found["owner_pid"],
        owner_epoch=found["owner_epoch"],
        tmux_socket=found["tmux_socket"],
    )


def _job(found: sqlite3.Row) -> Job:
    return Job(
        spec=spec_of(found["spec"]),
        created_at=found["created_at"],
        state=JobState(found["state"]),
        outcome=Outcome(found["outcome"]) if found["outcome"] else None,
        verdict=Verdict(found["verdict"]) if found["verdict"] else None,
        attempt=found["attempt"],
        owed=Action(found["owed"]) if found["owed"] else None,
        reason=found["reason"],
        detail=found["detail"],
        untold=bool(found["untold"]),
        unheard=bool(found["unheard"]),
        started_at=found["started_at"],
        ended_at=found["ended_at"],
        last_event=found["last_event"],
        last_event_at=found["last_event_at"],
    )


def recorded_of(found: sqlite3.Row) -> Recorded:
    """Return an event from all columns of its row."""
    event = Event(
        id=found["id"],
        job_id=found["job_id"],
        kind=found["kind"],
        source=Source(found["source"]),
        at=found["at"],
        detail=found["detail"],
        data=json.loads(found["data"]),
        received_at=found["received_at"],
    )
    return Recorded(found["sequence"], event, bool(found["applied"]))
