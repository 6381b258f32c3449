"""A job and an event as JSON: what `status`, `list`, `wait`, `submit`, MQTT and the files show.

Not the line format in which reports come in: that is `journal`.
"""

import shlex
from typing import Any

from delegate_job.events import Event
from delegate_job.exit_codes import exit_code_of
from delegate_job.job import Job
from delegate_job.locks import is_held
from delegate_job.paths import RegistryPaths, user_directory
from delegate_job.rows import Row, storable


def job_document(row: Row, paths: RegistryPaths) -> dict[str, Any]:
    """Return the job as the JSON object of docs/schemas/job.schema.json; what is not known yet is None."""
    job, spec = row.job, row.job.spec
    document = {
        "id": job.id,
        "state": job.state,
        "outcome": job.outcome,
        "verdict": job.verdict,
        "exit_code": None if job.outcome is None else int(exit_code_of(job.outcome)),
        "reason": job.reason,
        "agent": spec.agent,
        "attempt": job.attempt,
        "attempts": spec.attempts,
        "prompt_file": f"{spec.log_dir}/prompt.md",
        "workdir": spec.workdir,
        "worktree": spec.worktree.path if spec.worktree else None,
        "branch": spec.worktree.branch if spec.worktree else None,
        "session": spec.session or None,
        "attach": attach_command(job, paths) if _has_session(job) else None,
        "log_dir": spec.log_dir,
        "broker": spec.broker or "embedded",
        "detail": job.detail,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "last_event": job.last_event,
        "last_event_at": job.last_event_at,
        "timeout": spec.timeout,
        "idle_timeout": spec.idle_timeout,
        "operation_id": spec.operation_id,
        "owner": owner_of(row, paths),
        "retry_of": spec.retry_of,
        "sequence": row.sequence,
    }
    return {name: storable(value) for name, value in document.items()}


def event_document(event: Event, *, sequence: int | None, applied: bool) -> dict[str, Any]:
    """Return an event as the JSON object of docs/protocol.md; `sequence` is None for one not recorded."""
    return {
        "sequence": sequence,
        "id": event.id,
        "job_id": event.job_id,
        "kind": event.kind,
        "source": event.source,
        "at": event.at,
        "received_at": event.received_at,
        "detail": event.detail,
        "data": dict(event.data),
        "applied": applied,
    }


def owner_of(row: Row, paths: RegistryPaths) -> dict[str, Any] | None:
    """Return the process that holds the job's lock now, or None: the registry only says who did last."""
    if row.job.done or row.owner_pid is None or not is_held(paths.job(row.job.id).lock):
        return None
    return {"pid": row.owner_pid, "host": row.host}


def _has_session(job: Job) -> bool:
    """Return whether there may be a session to look at: with --close it goes with the job."""
    return bool(job.spec.session) and not (job.spec.close and job.settled)


def attach_command(job: Job, paths: RegistryPaths) -> str:
    """Return the command that shows the job's session, to be typed in a shell."""
    return own_command(paths, "attach", job.id)


def own_command(paths: RegistryPaths, *words: str) -> str:
    """Return a command line of ours for this registry, quoted for a shell."""
    place = () if paths.root == user_directory("state") else ("--registry-dir", str(paths.root))
    return shlex.join(("delegate-job", *words, *place))
