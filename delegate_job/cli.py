"""The command line: each command parses, calls one function, and returns an exit code.

What a command does stands elsewhere; nothing here exits, and errors are shown by `__main__`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from delegate_job.cli_options import Argument, Command, Option, Unparsed, read
from delegate_job.errors import UsageError
from delegate_job.job import JobState

COMMANDS: dict[str, Command] = {}
"""Every command by its name, in the order in which `--help` shows them."""

RegistryDir = Annotated[str | None, Option("Where jobs are kept.", "DIR")]
AsJson = Annotated[bool, Option("Print JSON for programs.", flags=("--json",))]
JobId = Annotated[str, Argument("A job's id, its beginning, or @last.", "ID")]
JobOption = Annotated[str | None, Option("The same as ID.", "ID")]


def main(argv: list[str]) -> int:
    """Run the command that `argv` (without the program) names; return its exit code."""
    plain = read(COMMANDS, argv)
    if plain is not None:
        return plain()
    from delegate_job import cli_typer

    return cli_typer.main(COMMANDS, argv)


def _command(name: str = "") -> Callable[[Command], Command]:
    """Make a function the command of this name, its own unless another is given."""

    def add(function: Command) -> Command:
        COMMANDS[name or function.__name__] = function
        return function

    return add


@_command()
def submit(
    prompt: Annotated[str | None, Option("The task.", "TEXT")] = None,
    prompt_file: Annotated[str | None, Option("The task's file; - is stdin.", "FILE")] = None,
    agent: Annotated[
        str | None,
        Option("claude-code (default), codex, human, command, a program.", "NAME"),
    ] = None,
    command: Annotated[str | None, Option("For --agent command; run without a shell.", "'PROG ARG…'")] = None,
    workdir: Annotated[str, Option("Where the agent works.", "DIR")] = ".",
    agent_session: Annotated[str | None, Option("Name the session.", "tmux:LABEL")] = None,
    model: Annotated[str | None, Option("The agent's model.", "M")] = None,
    permission_mode: Annotated[str | None, Option("ask, edits, auto or all.", "MODE")] = None,
    timeout: Annotated[str | None, Option("End the job after that (3600).", "SEC")] = None,
    idle_timeout: Annotated[str | None, Option("End it when so long quiet.", "SEC")] = None,
    validate: Annotated[str | None, Option("Checks the work after the claim.", "SCRIPT")] = None,
    attempts: Annotated[str | None, Option("Checks in all (1).", "N")] = None,
    validate_timeout: Annotated[str | None, Option("For one check (600).", "SEC")] = None,
    embedded_broker: Annotated[bool, Option("Broker in-process (default).")] = False,
    broker: Annotated[str | None, Option("mqtt[s]://user:password@host:port instead.", "URL")] = None,
    close: Annotated[bool | None, Option("End the session with the job.", deniable=True)] = None,
    fail_on_input: Annotated[bool | None, Option("End when a person is needed.", deniable=True)] = None,
    ci: Annotated[bool | None, Option("Nobody is there; default where CI=true.", deniable=True)] = None,
    accept_silent_stop: Annotated[bool, Option("Check what ends unreported too.")] = False,
    startup_timeout: Annotated[str | None, Option("For an agent's first hook (30; 0: off).", "SEC")] = None,
    on_event: Annotated[str | None, Option("Run for each event.", "COMMAND")] = None,
    operation_id: Annotated[str | None, Option("Submit once, join afterwards.", "KEY")] = None,
    detach: Annotated[bool, Option("Leave it to the background.")] = False,
    max_parallel: Annotated[
        int | None, Option("Jobs at once in this registry; 0: any.", "N", minimum=0)
    ] = None,
    dry_run: Annotated[bool, Option("Show what would be done.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
    agent_args: Annotated[list[str] | None, Argument("Go to the agent.", "[-- ARG…]")] = None,
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
        "close": close,
        "fail_on_input": fail_on_input,
        "ci": ci,
        "accept_silent_stop": accept_silent_stop or None,
        "startup_timeout": startup_timeout,
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


@_command()
def publish(words: Annotated[list[str], Unparsed()]) -> int:
    """Report what happens to a job; agents run this. See `delegate-job publish --help`."""
    from delegate_job import reporter

    return reporter.main(words)


@_command()
def status(
    job_id: Annotated[str | None, Argument("The job.", "ID")] = None,
    job: JobOption = None,
    connection: Annotated[bool, Option("A read-only MQTT URL and the topics.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show one job.

    Example: delegate-job status @last
    """
    from delegate_job import commands

    return commands.status(_one(job_id, job), registry_dir, connection=connection, as_json=as_json)


@_command("list")
def list_jobs(
    state: Annotated[JobState | None, Option("Only jobs in this state.", "STATE")] = None,
    agent: Annotated[str | None, Option("Only jobs of this agent.", "NAME")] = None,
    here: Annotated[bool, Option("Only jobs in this work dir.")] = False,
    limit: Annotated[int | None, Option("At most so many.", "N", minimum=1)] = None,
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


@_command()
def wait(
    job_ids: Annotated[
        list[str] | None, Argument("Jobs; all unfinished ones if none is named.", "[ID…]")
    ] = None,
    job: JobOption = None,
    any_of: Annotated[bool, Option("Until one of them is done.", flags=("--any",))] = False,
    until: Annotated[JobState | None, Option("Until this state is reached.", "STATE")] = None,
    timeout: Annotated[float | None, Option("Then exit 124.", "SEC", minimum=0)] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Wait until jobs are done; exit with their code, the highest of several.

    Example: delegate-job wait @last --timeout 600
    """
    from delegate_job import commands

    ids = [*(job_ids or ()), *([job] if job else ())]
    return commands.wait(ids, registry_dir, any_of=any_of, until=until, timeout=timeout, as_json=as_json)


@_command()
def verify(
    job_id: Annotated[str | None, Argument("The job.", "ID")] = None,
    job: JobOption = None,
    validate: Annotated[Path | None, Option("The check to run.", "SCRIPT")] = None,
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


@_command()
def logs(
    job_id: Annotated[str | None, Argument("The job.", "ID")] = None,
    job: JobOption = None,
    follow: Annotated[bool, Option("Go on until the job is done.", flags=("--follow", "-f"))] = False,
    reports: Annotated[bool, Option("What was claimed.")] = False,
    pane: Annotated[bool, Option("The agent's terminal.")] = False,
    validation: Annotated[bool, Option("The checks' output.")] = False,
    list_all: Annotated[bool, Option("The audit directories of all jobs.", flags=("--list",))] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show what happened to a job: its events, or one of its logs.

    Example: delegate-job logs @last --follow
    """
    from delegate_job import commands_logs

    if list_all:
        return commands_logs.list_logs(registry_dir, as_json=as_json)
    kinds = {"reports": reports, "pane": pane, "validation": validation}
    chosen = [kind for kind, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    kind = chosen[0] if chosen else "events"
    return commands_logs.logs(_one(job_id, job), registry_dir, kind=kind, follow=follow, as_json=as_json)


@_command()
def attach(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Look at the running agent in its tmux session; leave with Ctrl-b d.

    Example: delegate-job attach @last
    """
    from delegate_job import commands

    return commands.attach(job_id, registry_dir, as_json=as_json)


@_command()
def send(
    job_id: JobId,
    text: Annotated[str, Argument("What to say; - reads stdin.", "TEXT")],
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Say more to a running agent, as if typed into its session.

    Example: delegate-job send @last "Also update the changelog."
    """
    from delegate_job import commands

    return commands.send(job_id, text, registry_dir, as_json=as_json)


@_command()
def approve(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Grant what the agent asks leave for, without a key in its session.

    Example: delegate-job approve @last
    """
    from delegate_job import commands

    return commands.approve(job_id, registry_dir, as_json=as_json)


@_command()
def deny(
    job_id: JobId,
    reason: Annotated[str | None, Option("What the agent is told.", "TEXT")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Refuse what the agent asks leave for.

    Example: delegate-job deny @last --reason "Not outside the work dir."
    """
    from delegate_job import commands

    return commands.deny(job_id, registry_dir, reason=reason, as_json=as_json)


@_command()
def answer(
    job_id: JobId,
    text: Annotated[str, Argument("A label, its number, or words; - reads stdin.", "TEXT")],
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Answer the agent's question; one line for each when it asks several.

    Example: delegate-job answer @last "The blue one."
    """
    from delegate_job import commands

    return commands.answer(job_id, text, registry_dir, as_json=as_json)


@_command()
def retry(
    job_id: JobId,
    detach: Annotated[bool, Option("Leave it to the background.")] = False,
    broker: Annotated[str | None, Option("The external broker, if it had one.", "URL")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Run a finished job again, as a new one.

    Example: delegate-job retry @last --detach
    """
    from delegate_job import commands

    return commands.retry(job_id, registry_dir, broker=broker, detach=detach, as_json=as_json)


@_command()
def prune(
    older_than: Annotated[str, Option("Such as 30d, 12h, 90min.", "AGE")] = "30d",
    dry_run: Annotated[bool, Option("Show what would be forgotten.")] = False,
    logs: Annotated[bool, Option("The audit directories too.")] = False,
    broker: Annotated[str | None, Option("The external broker that has their topics.", "URL")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Forget finished jobs: sessions, topics, rows.

    Example: delegate-job prune --older-than 7d --dry-run
    """
    from delegate_job import commands_registry

    return commands_registry.prune(
        registry_dir, older_than, broker=broker, dry_run=dry_run, logs=logs, as_json=as_json
    )


@_command()
def cancel(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """End a job and its agent.

    Example: delegate-job cancel @last
    """
    from delegate_job import commands

    return commands.cancel(job_id, registry_dir, as_json=as_json)


@_command()
def supervise(
    max_parallel: Annotated[
        int | None, Option("Jobs at once in this registry; 0: any.", "N", minimum=0)
    ] = None,
    max_checks: Annotated[int, Option("Checks side by side.", "N", minimum=1)] = 2,
    background: Annotated[bool, Option("Started by itself.", hidden=True)] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Own the jobs that nobody else owns, in the foreground; else this starts by itself.

    Example: delegate-job supervise --max-parallel 4
    """
    from delegate_job import commands_registry

    del as_json  # Every command takes it; this one prints nothing but its log.
    return commands_registry.supervise(
        registry_dir, max_parallel=max_parallel, max_checks=max_checks, in_background=background
    )


@_command()
def broker(
    port: Annotated[int, Option("0: any free one.", "N", minimum=0, maximum=65535)] = 0,
    observer: Annotated[bool, Option("Also print a read-only URL.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Run the embedded broker alone, on loopback; prints one JSON line when it listens.

    Example: delegate-job broker --port 1883 --observer
    """
    from delegate_job import commands_registry

    del registry_dir, as_json  # Every command takes them; this one has no registry and always prints JSON.
    return commands_registry.broker(port, observer=observer)


def _one(job_id: str | None, job: str | None) -> str:
    if (job_id is None) == (job is None):
        raise UsageError("name one job", hint="its id, the beginning of it, or @last")
    return job_id or job or ""
