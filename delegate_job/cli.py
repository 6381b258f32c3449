"""The command line: each command parses, calls one function, and returns an exit code.

What a command does stands elsewhere; nothing here exits, and errors are shown by `__main__`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from delegate_job.errors import UsageError
from delegate_job.job import JobState

app = typer.Typer(
    name="delegate-job",
    help="Hand a task to an interactive coding agent and learn, by exit code, whether the work is good.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

RegistryDir = Annotated[
    str | None, typer.Option("--registry-dir", metavar="DIR", help="Where jobs are kept.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, its beginning, or @last.")]
JobOption = Annotated[
    str | None, typer.Option("--job", metavar="ID", help="The same as ID.", show_default=False)
]


def main(argv: list[str]) -> int:
    """Run the command that `argv` (without the program) names; return its exit code."""
    try:
        code = app(args=argv, prog_name="delegate-job", standalone_mode=False)
    except Exception as error:
        # The parser's own errors, whichever click typer carries: they know their message and their code.
        if not hasattr(error, "format_message"):
            raise
        raise _told(error) from None
    return int(code or 0)


def _told(error: Any) -> Exception:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "delegate-job"
    return UsageError(message[:1].lower() + message[1:], hint=f"see `{command} --help`")


@app.command()
def submit(
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The task.", show_default=False)] = None,
    prompt_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The task's file; - is stdin.", show_default=False)
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="claude-code (default), codex, human, command, a program."),
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar="'PROG ARG…'", help="For --agent command; run without a shell.")
    ] = None,
    workdir: Annotated[str, typer.Option(metavar="DIR", help="Where the agent works.")] = ".",
    agent_session: Annotated[str | None, typer.Option(metavar="tmux:LABEL", help="Name the session.")] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="The agent's model.")] = None,
    permission_mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="ask, edits, auto or all.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="SEC", help="End the job after that (3600).")] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(metavar="SEC", help="End it when so long quiet.")
    ] = None,
    validate: Annotated[
        str | None, typer.Option(metavar="SCRIPT", help="Checks the work after the claim.")
    ] = None,
    attempts: Annotated[str | None, typer.Option(metavar="N", help="Checks in all (1).")] = None,
    validate_timeout: Annotated[str | None, typer.Option(metavar="SEC", help="For one check (600).")] = None,
    embedded_broker: Annotated[
        bool, typer.Option("--embedded-broker", help="Broker in-process (default).")
    ] = False,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="mqtt[s]://user:password@host:port instead.")
    ] = None,
    close: Annotated[bool, typer.Option("--close", help="End the session with the job.")] = False,
    fail_on_input: Annotated[
        bool, typer.Option("--fail-on-input", help="End when a person is needed.")
    ] = False,
    on_event: Annotated[str | None, typer.Option(metavar="COMMAND", help="Run for each event.")] = None,
    operation_id: Annotated[
        str | None, typer.Option(metavar="KEY", help="Submit once, join afterwards.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the background.")] = False,
    max_parallel: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Jobs at once in this registry; 0: any.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
    agent_args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARG…]", help="Go to the agent.", show_default=False)
    ] = None,
) -> int:
    """Hand a task to an agent, wait for its end, and exit with what came of it.

    Example: delegate-job submit --prompt "Fix the failing test" --validate ./check.sh --attempts 3
    """
    from delegate_job import foreground
    from delegate_job.environment import without_passwords
    from delegate_job.settings import resolve
    from delegate_job.submission import Request, checked_workdir

    options: dict[str, Any] = {
        "agent": agent,
        "command": command,
        "agent_session": agent_session,
        "model": model,
        "permission_mode": permission_mode,
        "timeout": timeout,
        "idle_timeout": idle_timeout,
        "validate": validate,
        "attempts": attempts,
        "validate_timeout": validate_timeout,
        "embedded_broker": embedded_broker or None,
        "broker": broker,
        "close": close or None,
        "fail_on_input": fail_on_input or None,
        "on_event": on_event,
        "registry_dir": registry_dir,
    }
    environ = dict(os.environ)
    task = foreground.read_prompt(prompt, prompt_file, sys.stdin.buffer)
    place = checked_workdir(workdir)
    request = Request(
        settings=resolve(options, workdir=place, environ=environ),
        prompt=task,
        workdir=place,
        environ=without_passwords(environ),
        agent_args=_for_agent(agent_args),
        operation_id=operation_id,
    )
    if dry_run:
        return foreground.dry_run(request, as_json=as_json)
    return foreground.submit(request, as_json=as_json, detach=detach, max_parallel=max_parallel)


def _for_agent(words: list[str] | None) -> tuple[str, ...]:
    """Return what stands after `--`; UsageError for a word before it."""
    given = tuple(words or ())
    behind = tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()
    if given and not behind[-len(given) :] == given:
        raise UsageError(f"unexpected argument {given[0]!r}", hint="what goes to the agent stands after --")
    return given


@app.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def publish(context: typer.Context) -> int:
    """Report what happens to a job; agents run this. See `delegate-job publish --help`."""
    from delegate_job import reporter

    return reporter.main(context.args)


@app.command()
def status(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="The job.", show_default=False)] = None,
    job: JobOption = None,
    connection: Annotated[
        bool, typer.Option("--connection", help="A read-only MQTT URL and the topics.")
    ] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show one job.

    Example: delegate-job status @last
    """
    from delegate_job import commands

    return commands.status(_one(job_id, job), registry_dir, connection=connection, as_json=as_json)


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this agent.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only jobs in this work dir.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many.")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show all jobs, newest first.

    Example: delegate-job list --state waiting
    """
    from delegate_job import commands
    from delegate_job.paths import absolute

    workdir = absolute(os.curdir) if here else None
    return commands.list_jobs(
        registry_dir, state=state, agent=agent, workdir=workdir, limit=limit, as_json=as_json
    )


@app.command()
def wait(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Jobs; all unfinished ones if none is named.")
    ] = None,
    job: JobOption = None,
    any_of: Annotated[bool, typer.Option("--any", help="Until one of them is done.")] = False,
    until: Annotated[
        JobState | None, typer.Option(metavar="STATE", help="Until this state is reached.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SEC", min=0, help="Then exit 124.")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Wait until jobs are done; exit with their code, the highest of several.

    Example: delegate-job wait @last --timeout 600
    """
    from delegate_job import commands

    ids = [*(job_ids or ()), *([job] if job else ())]
    return commands.wait(ids, registry_dir, any_of=any_of, until=until, timeout=timeout, as_json=as_json)


@app.command()
def verify(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="The job.", show_default=False)] = None,
    job: JobOption = None,
    validate: Annotated[Path | None, typer.Option(metavar="SCRIPT", help="The check to run.")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Run a check against a job's work; exit with the script's own code.

    Example: delegate-job verify @last --validate ./check.sh
    """
    from delegate_job import commands

    if validate is None:
        raise UsageError("verify needs a check", hint="name it with --validate SCRIPT")
    return commands.verify(_one(job_id, job), str(validate), registry_dir, as_json=as_json)


@app.command()
def logs(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="The job.", show_default=False)] = None,
    job: JobOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is done.")] = False,
    reports: Annotated[bool, typer.Option("--reports", help="What was claimed.")] = False,
    pane: Annotated[bool, typer.Option("--pane", help="The agent's terminal.")] = False,
    validation: Annotated[bool, typer.Option("--validation", help="The checks' output.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="The audit directories of all jobs.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show what happened to a job: its events, or one of its logs.

    Example: delegate-job logs @last --follow
    """
    from delegate_job import commands

    if list_all:
        return commands.list_logs(registry_dir, as_json=as_json)
    kinds = {"reports": reports, "pane": pane, "validation": validation}
    chosen = [kind for kind, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    kind = chosen[0] if chosen else "events"
    return commands.logs(_one(job_id, job), registry_dir, kind=kind, follow=follow, as_json=as_json)


@app.command()
def attach(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Look at the running agent in its tmux session; leave with Ctrl-b d.

    Example: delegate-job attach @last
    """
    from delegate_job import commands

    return commands.attach(job_id, registry_dir, as_json=as_json)


@app.command()
def send(
    job_id: JobId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads stdin.")],
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Say more to a running agent, as if typed into its session.

    Example: delegate-job send @last "Also update the changelog."
    """
    from delegate_job import commands

    return commands.send(job_id, text, registry_dir, as_json=as_json)


@app.command()
def retry(
    job_id: JobId,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to the background.")] = False,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The external broker, if it had one.")
    ] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Run a finished job again, as a new one.

    Example: delegate-job retry @last --detach
    """
    from delegate_job import commands

    return commands.retry(job_id, registry_dir, broker=broker, detach=detach, as_json=as_json)


@app.command()
def prune(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Such as 30d, 12h, 90min.")] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be forgotten.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="The audit directories too.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Forget finished jobs: sessions, topics, rows.

    Example: delegate-job prune --older-than 7d --dry-run
    """
    from delegate_job import commands

    return commands.prune(registry_dir, older_than, dry_run=dry_run, logs=logs, as_json=as_json)


@app.command()
def cancel(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """End a job and its agent.

    Example: delegate-job cancel @last
    """
    from delegate_job import commands

    return commands.cancel(job_id, registry_dir, as_json=as_json)


@app.command()
def supervise(
    max_parallel: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Jobs at once in this registry; 0: any.")
    ] = None,
    max_checks: Annotated[int, typer.Option(metavar="N", min=1, help="Checks side by side.")] = 2,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Own the jobs that nobody else owns, in the foreground; else this starts by itself.

    Example: delegate-job supervise --max-parallel 4
    """
    from delegate_job import commands

    del as_json  # Every command takes it; this one prints nothing but its log.
    return commands.supervise(
        registry_dir, max_parallel=max_parallel, max_checks=max_checks, in_background=background
    )


@app.command()
def broker(
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0: any free one.")] = 0,
    observer: Annotated[bool, typer.Option("--observer", help="Also print a read-only URL.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Run the embedded broker alone, on loopback; prints one JSON line when it listens.

    Example: delegate-job broker --port 1883 --observer
    """
    from delegate_job import commands

    del registry_dir, as_json  # Every command takes them; this one has no registry and always prints JSON.
    return commands.broker(port, observer=observer)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's form of a callback
    if wanted:
        from delegate_job import __version__

        print(f"delegate-job {__version__}")  # noqa: T201 - data on stdout
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # Its callback has acted before a command is missed.
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Hand a task to an interactive coding agent and learn, by exit code, whether the work is good."""


def _one(job_id: str | None, job: str | None) -> str:
    if (job_id is None) == (job is None):
        raise UsageError("name one job", hint="its id, the beginning of it, or @last")
    return job_id or job or ""
