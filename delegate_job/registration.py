"""Makes a planned job one: its directories, its broker, and last the row. All of it, or nothing is left.

Not what it is to be (`submission`), and not its life (`supervisor`).
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from delegate_job import journal, locks
from delegate_job.audit import AuditDir
from delegate_job.environment import write_environ
from delegate_job.errors import DelegateJobError, NotStartedError, RegistryError
from delegate_job.events import Kind, Source
from delegate_job.job import Job, JobSpec, Worktree
from delegate_job.mqtt import Address, Connection, write_connection
from delegate_job.paths import JobPaths, RegistryPaths, write_new
from delegate_job.registry import Registry
from delegate_job.rows import Row, spec_text
from delegate_job.submission import Planned
from delegate_job.wire import EmbeddedWire, ExternalWire, Wire


class Registered(NamedTuple):
    """A new job: its row and, for who owns it, its lock (a descriptor) and the wire on which it is heard."""

    row: Row
    lock: int
    wire: Wire | None


class OperationTakenError(DelegateJobError):
    """Another submit with the same operation id was faster; its job is the one to join."""


def register(registry: Registry, planned: Planned, *, owned: bool, look_up: Callable[[], None]) -> Registered:
    """Make the job: directory and lock first, broker, then the row that makes it a job.

    With `owned` the caller owns the job: its lock and its wire are returned; else the lock is free again and
    the broker is its owner's matter. What was made is removed when it fails; a process that is ended in
    between leaves a directory without a row, which is no job. OperationTakenError when the operation id has
    a job by now, NotStartedError when the broker or the directories can't be made. `look_up` is called while
    an external broker is waited for; what it raises leaves no job.
    """
    with contextlib.ExitStack() as undo:
        try:
            made = _make(registry, planned, undo, owned=owned, look_up=look_up)
        except OSError as error:
            raise NotStartedError(f"{error.filename or registry.paths.root}: {error.strerror}") from error
        undo.pop_all()
    if not owned:
        os.close(made.lock)
    return made


def _make(
    registry: Registry,
    planned: Planned,
    undo: contextlib.ExitStack,
    *,
    owned: bool,
    look_up: Callable[[], None],
) -> Registered:
    paths = registry.paths.job(planned.spec.id)
    paths.root.mkdir(mode=0o700)
    # The caller's environment is in there: it must not outlive a job that never was.
    undo.callback(_remove_tree, paths.root)
    lock = locks.acquire(paths.lock)
    if lock is None:
        raise RegistryError(f"{paths.lock} is held by another process")
    undo.callback(os.close, lock)
    spec = _with_log_dir(planned.spec, paths)
    undo.callback(_remove_empty, spec.log_dir)
    write_new(paths.prompt, planned.prompt)
    write_new(paths.spec, spec_text(spec).encode())
    if spec.worktree is not None:
        _make_worktree(spec.worktree, undo)
    write_environ(paths.environ, planned.environ)
    _write_connection(spec, registry.paths, planned.broker)
    wire = _wire(spec, paths, planned.broker, owned=owned, look_up=look_up)
    if isinstance(wire, ExternalWire):
        undo.callback(wire.forget, spec.id)
    elif wire is not None:
        undo.callback(wire.stop)
    return Registered(_add(registry, spec), lock, wire)


def _make_worktree(own: Worktree, undo: contextlib.ExitStack) -> None:
    from delegate_job import worktree

    worktree.make(own)
    undo.callback(worktree.unmake, own)


def _wire(
    spec: JobSpec,
    paths: JobPaths,
    address: Address | None,
    *,
    owned: bool,
    look_up: Callable[[], None],
) -> Wire | None:
    if address is None:
        return EmbeddedWire(socket_path=paths.broker_socket) if owned else None
    wire = ExternalWire(address)
    wire.check(spec.id, look_up)
    return wire


def _remove_tree(directory: Path) -> None:
    import shutil  # which costs a start that goes well 1.6 ms

    shutil.rmtree(directory, ignore_errors=True)


def _remove_empty(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)  # noqa: PTH106 - the text as it is; only ever ours when it is empty


def _with_log_dir(spec: JobSpec, paths: JobPaths) -> JobSpec:
    if AuditDir.at(spec.log_dir).create():
        return spec
    fallback = AuditDir.at(paths.fallback_log_dir)
    if not fallback.create():
        raise NotStartedError(f"the log directory {spec.log_dir} cannot be made, nor {fallback.path}")
    return spec._replace(log_dir=fallback.path)


def _write_connection(spec: JobSpec, registry: RegistryPaths, address: Address | None) -> None:
    """Write where the log is, and an external broker, for the owner to come; it adds what is its own."""
    connection = Connection(
        job_id=spec.id,
        log_dir=spec.log_dir,
        registry_dir=str(registry.root),
        epoch=0,
        broker=address,
        observer=address,
        unix_socket=None,
    )
    write_connection(registry.job(spec.id).connection, connection)


def _add(registry: Registry, spec: JobSpec) -> Row:
    event = journal.own_event(spec.id, Kind.REGISTERED, Source.OWNER)
    try:
        return registry.add(Job(spec, created_at=event.at), event)
    except sqlite3.IntegrityError as error:
        raise OperationTakenError(
            f"another submit with operation id {spec.operation_id!r} was faster", hint="submit it again"
        ) from error
