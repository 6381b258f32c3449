"""`submit` in the foreground: plan, register, own the job until it is settled, and say how it ended.

Not the options (`cli_submit`) and not the loop (`supervisor`).
"""

import os
import queue
import signal
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from delegate_job import briefing, starter
from delegate_job.document import attach_command, job_document, own_command
from delegate_job.errors import NotStartedError, RegistryError, UsageError, one_line, under_way
from delegate_job.events import Event
from delegate_job.exit_codes import ExitCode, exit_code_of
from delegate_job.job import Job, JobSpec, Outcome
from delegate_job.on_event import OnEvent
from delegate_job.output import SubmitOutput, print_json
from delegate_job.paths import RegistryPaths
from delegate_job.registration import OperationTakenError, Registered, register
from delegate_job.registry import MAX_PARALLEL, Registry
from delegate_job.rows import Row
from delegate_job.signals import SIGNALS, hearing_signals, leave_if_told
from delegate_job.submission import (
    Planned,
    Request,
    find_same,
    plan,
    plan_again,
    warnings_for,
)
from delegate_job.supervisor import Supervisor
from delegate_job.tmux import Tmux
from delegate_job.wire import Wire

if TYPE_CHECKING:
    from delegate_job.inbox import Message


def read_prompt(text: str | None, file: str | None, stdin: IO[bytes]) -> bytes:
    """Return the task's bytes from exactly one of the two options; UsageError otherwise."""
    if (text is None) == (file is None):
        raise UsageError(
            "give the task with either --prompt or --prompt-file", hint="--prompt-file - reads stdin"
        )
    if text is not None:
        return os.fsencode(text)
    if file == "-":
        return _piped(stdin.read())
    try:
        with open(file or "", "rb") as opened:  # noqa: PTH123 - "" and NUL are errors of open, not of Path
            return opened.read()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the prompt file {file!r} cannot be read: {getattr(error, 'strerror', error)}",
            hint="name a file that is there, or - for stdin",
        ) from error


def _piped(task: bytes) -> bytes:
    if not task.strip():
        raise UsageError(
            "the prompt is empty: nothing came in on stdin",
            hint="did the command before the pipe fail? --prompt TEXT takes the task as it is",
        )
    return task


def submit(request: Request, *, as_json: bool, detach: bool, max_parallel: int | None) -> int:
    """Submit a new job and return the exit code."""
    planned = plan(request)
    with _registry(RegistryPaths(request.settings.registry_dir)) as registry:
        if max_parallel is not None:
            registry.set(MAX_PARALLEL, str(max_parallel) if max_parallel else None)
        return Submit(registry, planned, as_json=as_json, detach=detach).run()


def retry(
    paths: RegistryPaths,
    job: str,
    environ: Mapping[str, str],
    *,
    broker: str | None,
    as_json: bool,
    detach: bool,
) -> int:
    """Submit a finished job once more, as a new one, and return the exit code."""
    with _registry(paths) as registry:
        row = registry.find(job)
        if not row.job.done:
            raise UsageError(f"job {row.job.id} is not done", hint=own_command(paths, "cancel", row.job.id))
        try:
            prompt = paths.job(row.job.id).prompt.read_bytes()
        except OSError as error:
            raise NotStartedError(f"the prompt of job {row.job.id}: {error.strerror}") from error
        planned = plan_again(row, prompt=prompt, environ=environ, broker=broker)
        return Submit(registry, planned, as_json=as_json, detach=detach).run()


def _registry(paths: RegistryPaths) -> Registry:
    try:
        registry = Registry(paths)
    except RegistryError as error:
        raise NotStartedError(error.message, hint=error.hint) from error
    if registry.repaired:
        print(f"warning: {registry.repaired}", file=sys.stderr, flush=True)
    return registry


class Submit:
    """One submit: of a job of our own, or of one for the background supervisor (`detach`)."""

    def __init__(self, registry: Registry, planned: Planned, *, as_json: bool, detach: bool) -> None:
        self._registry = registry
        self._planned = planned
        self._as_json = as_json
        self._detach = detach
        self._output = SubmitOutput(as_json=as_json, plain=planned.spec.ci)

    def run(self) -> int:
        """Register the job, or join the one with the same operation id, and return the exit code."""
        for warning in warnings_for(self._planned.spec, self._registry.paths):
            self._output.warn(warning)
        same = find_same(self._registry, self._planned)
        if same is not None:
            return self._join(same)
        self._refuse_taken_session()
        try:
            return self._leave() if self._detach else self._own()
        except OperationTakenError:
            return self.run()

    def _refuse_taken_session(self) -> None:
        """Refuse a name that is taken before there is a job; tmux has the last word at the launch."""
        spec, paths = self._planned.spec, self._registry.paths
        if spec.session and spec.session != f"dj-{spec.id}":
            Tmux(label=paths.tmux_label).refuse_taken(spec.session)

    def _join(self, row: Row) -> int:
        operation_id = self._planned.spec.operation_id
        self._output.warn(f"operation id {operation_id!r} is known: joining its job")
        if self._detach:
            return self._left(row.job)
        self._output.registered(row.job, _attach(row.job, self._registry.paths))
        return self._follow(row.job)

    def _follow(self, job: Job) -> int:
        """Wait for a job that another process owns, or is to own."""
        from delegate_job import client

        (row,) = client.wait(
            self._registry, [job.id], warn=self._output.warn, take_over=self._have_taken_over
        )
        return self._finish(row.job, signum=None)

    def _own(self) -> int:
        listener = _Listener(self._output, OnEvent(lambda _: self._planned.environ))
        wires = list[Wire]()
        # From here on a signal is a message: there is no job yet, or a whole one that has heard of it.
        with hearing_signals() as inbox:
            supervisor = Supervisor(
                self._registry,
                listener,
                lambda _: wires[0],
                inbox,
                dropped=self._dropped,
                leaves_on=_leaves_on(),
            )
            registered = self._register(inbox, owned=True)
            wires.extend(filter(None, [registered.wire]))
            job = registered.row.job
            self._output.registered(job, _attach(job, self._registry.paths))
            with under_way():
                try:
                    supervisor.own(job.id, registered.lock)
                    supervisor.run()
                finally:
                    listener.stop()
        with under_way():
            job = self._registry.row(job.id).job
        if not job.done and supervisor.leaving.signum is None:
            for signum in SIGNALS:  # A reader owns nothing that a signal would have to be told of.
                signal.signal(signum, signal.SIG_DFL)
            return self._follow(job)
        return self._finish(job, signum=supervisor.leaving.signum)

    def _dropped(self, _job_id: str, error: Exception) -> None:
        """Go on as a reader when the job could not stay ours: its directory or its lock was removed."""
        if not isinstance(error, RegistryError | OSError):
            raise error
        self._output.warn(one_line(error))

    def _register(self, inbox: "queue.SimpleQueue[Message]", *, owned: bool) -> Registered:
        try:
            return register(self._registry, self._planned, owned=owned, look_up=lambda: leave_if_told(inbox))
        except RegistryError as error:
            raise NotStartedError(error.message, hint=error.hint) from error

    def _leave(self) -> int:
        """Register the job for the background supervisor, and say where it is.

        A signal changes nothing any more: between the row's commit and its return an exception would have
        half a job removed.
        """
        with hearing_signals() as inbox:
            return self._left(self._register(inbox, owned=False).row.job)

    def _left(self, job: Job) -> int:
        self._output.registered(job, _attach(job, self._registry.paths))
        if self._as_json:
            print_json(job_document(self._registry.row(job.id), self._registry.paths))
        else:
            self._output.line(job.spec.log_dir)
        starter.ensure_running(self._registry.paths, self._planned.environ)
        return ExitCode.ACCEPTED

    def _have_taken_over(self) -> None:
        starter.ensure_running_for_ownerless(self._registry, self._planned.environ)

    def _finish(self, job: Job, *, signum: int | None) -> int:
        if not job.settled:
            self._have_taken_over()
        if not job.done:
            self._output.left(job, own_command(self._registry.paths, "wait", job.id))
        elif self._planned.spec.ci:
            self._summarize(job.id)
        if self._as_json:
            print_json(job_document(self._registry.row(job.id), self._registry.paths))
        log = self._registry.paths.job(job.id).validation_log(job.attempt)
        if job.outcome is Outcome.REJECTED and log.exists() and log.stat().st_size:
            validation = own_command(self._registry.paths, "logs", job.id, "--validation")
            self._output.hint(f"what the check said: {validation}")
        self._output.finished(job)
        return _exit_code(job, signum)

    def _summarize(self, job_id: str) -> None:
        if not os.environ.get("GITHUB_STEP_SUMMARY"):
            return
        from delegate_job.report_summary import add_to_step_summary

        if problem := add_to_step_summary(self._registry, job_id):
            self._output.warn(problem)


def _leaves_on() -> frozenset[int]:
    """Return the signals that hand the job over; without a terminal Ctrl-C is a program's word: cancel."""
    hand_over = {signal.SIGHUP, signal.SIGTSTP}
    return frozenset(
        hand_over | {signal.SIGINT} if sys.stdin is not None and sys.stdin.isatty() else hand_over
    )


def _attach(job: Job, paths: RegistryPaths) -> str | None:
    return attach_command(job, paths) if job.spec.session else None


def _exit_code(job: Job, signum: int | None) -> int:
    # Only a job that the signal itself has ended answers with the signal's code.
    if signum is not None and job.outcome in {None, Outcome.CANCELLED}:
        # Ctrl-Z is the same wish as Ctrl-C: to have the terminal back.
        return 128 + (signal.SIGINT if signum == signal.SIGTSTP else signum)
    return ExitCode.INTERNAL if job.outcome is None else int(exit_code_of(job.outcome))


class _Listener:
    """Hands on what happens to the terminal, to `--on-event` and to notifications."""

    def __init__(self, output: SubmitOutput, on_event: OnEvent) -> None:
        self._output = output
        self._on_event = on_event
        self.task = output.task
        self.warn = output.warn
        self.tick = output.tick

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:
        """An event was recorded."""
        self._output.happened(job, event, applied=applied)
        self._on_event.happened(job, event, sequence, applied=applied)

    def stop(self) -> None:
        """Let `--on-event` and notifications catch up."""
        self._on_event.stop()


def dry_run(request: Request, *, as_json: bool) -> int:
    """Show what a submit would do, making nothing; the last line is the audit directory."""
    paths = RegistryPaths(request.settings.registry_dir)
    spec = plan(request).spec
    if spec.worktree is not None:
        from delegate_job import worktree

        worktree.check_free(spec.worktree)
    brief = briefing.describe(spec, paths, prompt=request.prompt, environ=request.environ)
    document = _dry_document(spec, paths, brief)
    if as_json:
        print_json(document)
        return ExitCode.ACCEPTED
    for name in ("argv", "workdir", "branch", "session", "environment", "files", "broker", "check"):
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
        *(job.home / file.name for file in brief.launch.home),
        *(job.agent / name for name in brief.hook_files),
    ]
    logs = [f"{spec.log_dir}/{name}" for name in (briefing.PROMPT, briefing.INSTRUCTIONS)]
    return {
        "argv": [_readable(argument) for argument in brief.launch.argv],
        "workdir": _readable(spec.workdir),
        "branch": spec.worktree.branch if spec.worktree else None,
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
        import shlex

        return shlex.join(value)
    return "none" if value is None else str(value)
