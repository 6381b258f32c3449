"""What the commands do that own no job: find, show, wait, check, look, ask for the end. Not `submit`."""

import contextlib
import os
import sys
from collections.abc import Iterator

from delegate_job import client, journal, starter
from delegate_job.document import job_document
from delegate_job.errors import NotStartedError, RegistryError, UsageError
from delegate_job.events import Kind, Source
from delegate_job.exit_codes import ExitCode
from delegate_job.job import JobState
from delegate_job.output import (
    print_job,
    print_jobs,
    print_json,
    print_json_array,
    printable,
)
from delegate_job.paths import RegistryPaths, absolute
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.settings import registry_dir as settled_registry_dir

NO_JOBS = "no jobs; `delegate-job submit --prompt …` makes one"
NO_MATCH = "no such jobs; `delegate-job list` shows all"
CANCEL_TIMEOUT = 20.0
"""Seconds in which an owner must have ended a job that it is asked to cancel."""


@contextlib.contextmanager
def open_registry(registry_dir: str | None) -> Iterator[Registry]:
    """Open the registry that the options and the settings name; see at the end that each job has an owner."""
    with Registry(RegistryPaths(settled_registry_dir(registry_dir, environ=os.environ))) as registry:
        if registry.repaired:
            warn(registry.repaired)
        try:
            yield registry
        except OSError as error:
            if str(error.filename).startswith(f"{registry.paths.jobs}/"):
                raise RegistryError(f"{error.filename}: {error.strerror}") from error
            raise
        sys.stdout.flush()
        starter.ensure_running_for_ownerless(registry, os.environ)


def status(job: str, registry_dir: str | None, *, connection: bool, as_json: bool) -> int:
    """Show one job, or how any MQTT client can follow it."""
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        if connection:
            return _connection(registry, row, as_json=as_json)
        document = job_document(row, registry.paths)
    if as_json:
        print_json(document)
    else:
        print_job(document)
    return ExitCode.ACCEPTED


def _connection(registry: Registry, row: Row, *, as_json: bool) -> int:
    from delegate_job.mqtt import PREFIX, read_connection

    address = read_connection(registry.paths.job(row.job.id).connection).observer
    if address is None:
        raise UsageError(
            f"job {row.job.id} has no broker any more: it is done", hint="`delegate-job logs` has all of it"
        )
    # An external broker's password is the user's own business: it is never printed.
    embedded = row.job.spec.broker is None
    document = {
        "url": address.url(with_password=embedded),
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "token": address.password if embedded else None,
        "topics": f"{PREFIX}/{row.job.id}/#",
    }
    if as_json:
        print_json(document)
    else:
        print(f"{document['url']}\n{document['topics']}")
    return ExitCode.ACCEPTED


def list_jobs(
    registry_dir: str | None,
    *,
    state: JobState | None,
    agent: str | None,
    workdir: str | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Show jobs, newest first."""
    with open_registry(registry_dir) as registry:
        rows = registry.rows(state=state, agent=agent, workdir=workdir, limit=limit)
        documents = (job_document(row, registry.paths) for row in rows)
        if as_json:
            print_json_array(documents)
        elif not print_jobs(documents):
            print(NO_MATCH if state or agent or workdir else NO_JOBS, file=sys.stderr)
    return ExitCode.ACCEPTED


def wait(
    jobs: list[str],
    registry_dir: str | None,
    *,
    any_of: bool,
    until: JobState | None,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Wait for jobs."""
    with open_registry(registry_dir) as registry:
        ids = [registry.find(job).job.id for job in jobs] or registry.unfinished()
        if not ids:
            print("no unfinished job to wait for", file=sys.stderr)

        def show(rows: list[Row]) -> None:
            documents = [job_document(row, registry.paths) for row in rows]
            if as_json:
                print_json(documents[0] if len(jobs) == 1 else documents)
            else:
                for document in documents:
                    print(f"{document['id']} {document['outcome'] or document['state']}")

        try:
            rows = client.wait(
                registry,
                ids,
                any_of=any_of,
                until=until,
                timeout=timeout,
                warn=warn,
                take_over=lambda: starter.ensure_running_for_ownerless(registry, os.environ),
            )
        except client.WaitTimedOutError:
            show([registry.row(job_id) for job_id in ids])
            raise
        show(rows)
    return client.wait_code(rows, until)


def warn(text: str) -> None:
    """Say on stderr what is amiss and changes nothing."""
    print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


def verify(job: str, script: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Run a check against a job's work, record it, and return the script's own code."""
    from delegate_job import validation

    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        result = validation.verify(
            registry.paths.job(row.job.id),
            row.job.spec,
            absolute(script),
            attempt=max(row.job.attempt, 1),
            environ=os.environ,
            registry_dir=registry.paths.root,
            echo=_to_stderr if as_json else to_stdout,
        )
        data = {"script": os.fsencode(script).decode(errors="replace"), "exit_code": result.exit_code}
        verdict = str(result.verdict)
        registry.append(journal.own_event(row.job.id, Kind.VERIFIED, Source.USER, verdict, data))
    if as_json:
        print_json({"job_id": row.job.id, "verdict": result.verdict, **data, "log": str(result.log)})
    # 124 is what timeout(1) says of a command that ran out of time.
    return ExitCode.WAIT_TIMED_OUT if result.exit_code is None else result.exit_code


def to_stdout(chunk: bytes) -> None:
    """Write bytes as they are, at once."""
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _to_stderr(chunk: bytes) -> None:
    sys.stderr.buffer.write(chunk)
    sys.stderr.buffer.flush()


def attach(job: str, registry_dir: str | None, *, as_json: bool) -> int:  # noqa: RET503 - execvp never returns
    """Become the tmux client of a job's session."""
    from delegate_job.tmux import INSTALL, Tmux

    with open_registry(registry_dir) as registry:
        row = registry.find(job)
    session, socket = row.job.spec.session, row.tmux_socket
    if not session or not socket:
        raise UsageError(
            f"job {row.job.id} has no session", hint="a person's job has none; others get one when they start"
        )
    if problem := Tmux.missing():
        raise NotStartedError(problem, hint=INSTALL)
    tmux = Tmux(socket=socket)
    if tmux.has_session(session) is False:
        raise NotStartedError(
            f"the session {session} of job {row.job.id} is gone",
            hint="`delegate-job logs ID --pane` has what it showed",
        )
    argv = tmux.attach_argv(session)
    if as_json:
        print_json({"argv": argv})
        return ExitCode.ACCEPTED
    if not sys.stdin.isatty():
        raise UsageError(
            "attach needs a terminal", hint="`delegate-job logs ID --pane` shows what is on the screen"
        )
    os.environ.pop("TMUX", None)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - without a shell on purpose; nothing of ours is left to do


def cancel(job: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Ask a job's owner to end it, and wait until it has; an ownerless one gets an owner for it."""
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        # One that is done and not settled: its owner was killed before the agent had ended.
        if not row.job.settled:
            _cancel(registry, row)
        row = registry.row(row.job.id)
        document = job_document(row, registry.paths)
    if as_json:
        print_json(document)
    else:
        print(f"{document['id']} {document['outcome'] or document['state']}")
    return ExitCode.ACCEPTED


def _cancel(registry: Registry, row: Row) -> None:
    if not row.job.done:
        client.ask_to_cancel(registry, row, detail=f"by `delegate-job cancel` (pid {os.getpid()})")
    settled = client.wait_until_settled(
        registry,
        row.job.id,
        timeout=CANCEL_TIMEOUT,
        take_over=lambda: starter.ensure_running_for_ownerless(registry, os.environ),
    )
    if not settled:
        raise RegistryError(
            f"job {row.job.id} was asked to end and has not after {CANCEL_TIMEOUT:.0f} s",
            hint="its owner will act on it when it can",
        )


def retry(job: str, registry_dir: str | None, *, broker: str | None, detach: bool, as_json: bool) -> int:
    """Run a finished job again, as a new one."""
    from delegate_job import foreground

    _refuse_inside(job, "retry")
    paths = RegistryPaths(settled_registry_dir(registry_dir, environ=os.environ))
    return foreground.retry(paths, job, dict(os.environ), broker=broker, detach=detach, as_json=as_json)


def _refuse_inside(job: str, what: str) -> None:
    """Refuse what an agent must not do to its own job."""
    from delegate_job.nesting import job_around

    own = job_around() or ""
    if own and (own.startswith(job) or job == "@last"):
        raise UsageError(f"an agent cannot {what} its own job", hint="do it from a terminal of your own")


def send(job: str, text: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Paste a text into a running agent's session and press Enter."""
    from delegate_job import answering

    _refuse_inside(job, "send to")
    if text == "-":
        text = sys.stdin.read()
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        receipt = answering.type_text(registry, row, text)
    if as_json:
        print_json({"id": row.job.id, "sent": True, "receipt": receipt})
    else:
        print(f"sent; {_RECEIPTS[receipt]}")
    return ExitCode.ACCEPTED


_RECEIPTS = {
    None: "this agent gives no receipt",
    True: "the agent has taken it",
    False: "the agent has not said that it took it: look with `delegate-job attach`",
}


def approve(job: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Grant what an agent asks leave for in a dialog."""
    from delegate_job import answering

    _refuse_inside(job, "approve")
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        what = answering.approve(registry, row)
    return _answered(row, "approved", what, as_json=as_json)


def deny(job: str, registry_dir: str | None, *, reason: str | None, as_json: bool) -> int:
    """Refuse what an agent asks leave for in a dialog."""
    from delegate_job import answering

    _refuse_inside(job, "deny")
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        what = answering.deny(registry, row, reason)
    return _answered(row, "denied", what, as_json=as_json)


def answer(job: str, text: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Answer an agent's question."""
    from delegate_job import answering

    _refuse_inside(job, "answer")
    if text == "-":
        text = sys.stdin.read()
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        what = answering.answer(registry, row, text)
    return _answered(row, "answered" if what is not None else "sent", what, as_json=as_json)


def _answered(row: Row, how: str, what: str | None, *, as_json: bool) -> int:
    if as_json:
        print_json({"id": row.job.id, how: True, "what": what})
    else:
        print(f"{how}: {printable(what)}" if what else how)
    return ExitCode.ACCEPTED
