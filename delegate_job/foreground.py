"""`submit` in the foreground: plan, register, own the job until it is settled, and say how it ended.

Not the options (`cli`) and not the loop (`supervisor`).
"""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from delegate_job import briefing
from delegate_job.document import attach_command, event_document, job_document
from delegate_job.errors import NotStartedError, RegistryError, UsageError
from delegate_job.events import Event
from delegate_job.exit_codes import ExitCode, exit_code_of
from delegate_job.job import Job, JobSpec, Outcome
from delegate_job.on_event import OnEvent
from delegate_job.output import SubmitOutput, print_json
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.submission import (
    OperationTakenError,
    Registered,
    Request,
    find_same,
    new_id,
    plan,
    register,
    warnings_for,
)
from delegate_job.supervisor import Supervisor, hearing_signals


def read_prompt(text: str | None, file: str | None, stdin: IO[bytes]) -> bytes:
    """Return the task's bytes from exactly one of the two options; UsageError otherwise."""
    if (text is None) == (file is None):
        raise UsageError(
            "give the task with either --prompt or --prompt-file", hint="--prompt-file - reads stdin"
        )
    if text is not None:
        return os.fsencode(text)
    if file == "-":
        return stdin.read()
    try:
        with open(file or "", "rb") as opened:  # noqa: PTH123 - "" and NUL are errors of open, not of Path
            return opened.read()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the prompt file {file!r} cannot be read: {getattr(error, 'strerror', error)}"
        ) from error


@dataclass(frozen=True, slots=True)
class Submit:
    """One foreground submit."""

    request: Request
    as_json: bool

    def run(self) -> int:
        """Register the job, see it to its end and return the exit code."""
        paths = RegistryPaths(self.request.settings.registry_dir)
        try:
            registry = Registry(paths)
        except RegistryError as error:
            raise NotStartedError(error.message, hint=error.hint) from error
        with registry:
            return self._submit(registry)

    def _submit(self, registry: Registry) -> int:
        same = find_same(registry, self.request)
        if same is not None:
            return self._join(registry, same)
        try:
            return self._own(registry)
        except OperationTakenError:
            return self._submit(registry)

    def _join(self, registry: Registry, row: Row) -> int:
        output = SubmitOutput(as_json=self.as_json)
        output.registered(row.job, _attach(row.job, registry.paths))
        output.warn(f"operation id {self.request.operation_id!r} is known: joining its job")
        from delegate_job import client

        (row,) = client.wait(registry, [row.job.id], warn=output.warn)
        return self._finish(registry, row.job, output, signum=None)

    def _own(self, registry: Registry) -> int:
        spec = plan(self.request, new_id())
        output = SubmitOutput(as_json=self.as_json)
        for warning in warnings_for(spec, registry.paths):
            output.warn(warning)
        with hearing_signals() as inbox:
            registered = _registered(registry, self.request, spec)
            job = registered.row.job
            output.registered(job, _attach(job, registry.paths))
            listener = _Listener(output, _on_event(job.spec, self.request.environ))
            supervisor = Supervisor(registry, registered.wire, listener, inbox)
            supervisor.own(job.id, registered.lock)
            try:
                supervisor.run()
            finally:
                listener.stop()
            return self._finish(registry, registry.row(job.id).job, output, signum=supervisor.signum)

    def _finish(self, registry: Registry, job: Job, output: SubmitOutput, *, signum: int | None) -> int:
        if self.as_json:
            print_json(job_document(registry.row(job.id), registry.paths))
        output.finished(job)
        return _exit_code(job, signum)


def _registered(registry: Registry, request: Request, spec: JobSpec) -> Registered:
    try:
        return register(registry, request, spec)
    except RegistryError as error:
        raise NotStartedError(error.message, hint=error.hint) from error


def _attach(job: Job, paths: RegistryPaths) -> str | None:
    return attach_command(job, paths) if job.spec.session else None


def _exit_code(job: Job, signum: int | None) -> int:
    if job.outcome is None:
        return 128 + signum if signum is not None else ExitCode.INTERNAL
    # Only a job that the signal itself has ended answers with the signal's code.
    if job.outcome is Outcome.CANCELLED and signum is not None:
        return 128 + signum
    return int(exit_code_of(job.outcome))


def _on_event(spec: JobSpec, environ: Mapping[str, str]) -> OnEvent | None:
    return OnEvent(spec.on_event, workdir=spec.workdir, environ=environ) if spec.on_event else None


class _Listener:
    """Hands on what happens to the terminal and to `--on-event`."""

    def __init__(self, output: SubmitOutput, on_event: OnEvent | None) -> None:
        self._output = output
        self._on_event = on_event
        self.task = output.task
        self.warn = output.warn
        self.tick = output.tick

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:
        """An event was recorded."""
        self._output.happened(job, event, applied=applied)
        if self._on_event is not None and applied:
            self._on_event.put(event_document(event, sequence=sequence, applied=applied))

    def stop(self) -> None:
        """Let `--on-event` catch up."""
        if self._on_event is not None:
            self._on_event.stop()


def dry_run(request: Request, *, as_json: bool) -> int:
    """Show what a submit would do, making nothing; the last line is the audit directory."""
    paths = RegistryPaths(request.settings.registry_dir)
    spec = plan(request, new_id())
    brief = briefing.describe(spec, paths, prompt=request.prompt, environ=request.environ)
    document = _dry_document(spec, paths, brief)
    if as_json:
        print_json(document)
        return ExitCode.ACCEPTED
    for name in ("argv", "workdir", "session", "environment", "files", "broker", "check"):
        print(f"{name}: {_dry_text(document[name])}")
    print("instructions:")
    sys.stdout.flush()
    sys.stdout.buffer.write(brief.instructions.encode(errors="surrogateescape").rstrip(b"\n") + b"\n")
    sys.stdout.flush()
    print(spec.log_dir)
    return ExitCode.ACCEPTED


def _dry_document(spec: JobSpec, paths: RegistryPaths, brief: briefing.Briefing) -> dict[str, Any]:
    job = paths.job(spec.id)
    written = [
        job.launch,
        job.connection,
        job.prompt,
        *(job.agent / file.name for file in brief.launch.files),
    ]
    logs = [f"{spec.log_dir}/{name}" for name in (briefing.PROMPT, briefing.INSTRUCTIONS)]
    return {
        "argv": [_readable(argument) for argument in brief.launch.argv],
        "workdir": _readable(spec.workdir),
        "session": spec.session or None,
        "environment": sorted(_readable(name) for name in brief.environ),
        "files": [_readable(str(path)) for path in (*written, *logs)],
        "broker": "embedded" if spec.broker is None else spec.broker,
        "check": spec.validate,
        "instructions": _readable(brief.instructions),
        "log_dir": _readable(spec.log_dir),
    }


def _readable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _dry_text(value: Any) -> str:
    if isinstance(value, list):
        return shlex.join(value)
    return "none" if value is None else str(value)
