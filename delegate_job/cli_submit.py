"""The command line of `submit`: its options, and what they ask for.

How a job is run stands in `foreground`.
"""

import os
import sys
from typing import Annotated, Any

from delegate_job.cli_options import Argument, AsJson, Option
from delegate_job.errors import UsageError


def submit(
    prompt: Annotated[str | None, Option("The task.", "TEXT")] = None,
    prompt_file: Annotated[str | None, Option("The task's file; - is stdin.", "FILE")] = None,
    agent: Annotated[
        str | None,
        Option("claude-code (default), codex, human, any program.", "NAME", completes="agent"),
    ] = None,
    command: Annotated[
        str | None, Option("For --agent command; run without a shell.", "'PROG ARG…'", rare=True)
    ] = None,
    workdir: Annotated[str, Option("Where the agent works.", "DIR")] = ".",
    worktree: Annotated[
        str | None, Option("In a new git worktree, on a new branch.", "[BRANCH]", optional=True)
    ] = None,
    agent_session: Annotated[str | None, Option("Name the session.", "tmux:LABEL", rare=True)] = None,
    model: Annotated[str | None, Option("The agent's model.", "M")] = None,
    permission_mode: Annotated[
        str | None, Option("ask, edits, auto or all.", "MODE", completes="permission mode")
    ] = None,
    timeout: Annotated[str | None, Option("End the job after that (3600).", "SEC")] = None,
    idle_timeout: Annotated[str | None, Option("End it when so long quiet.", "SEC", rare=True)] = None,
    validate: Annotated[str | None, Option("Checks the work after the claim.", "SCRIPT")] = None,
    attempts: Annotated[str | None, Option("Checks in all (1).", "N")] = None,
    validate_timeout: Annotated[str | None, Option("For one check (600).", "SEC", rare=True)] = None,
    embedded_broker: Annotated[bool, Option("Broker in-process (default).", rare=True)] = False,
    broker: Annotated[
        str | None, Option("mqtt[s]://user:password@host:port instead.", "URL", rare=True)
    ] = None,
    close: Annotated[bool | None, Option("End the session with the job.", deniable=True, rare=True)] = None,
    fail_on_input: Annotated[
        bool | None, Option("End when a person is needed.", deniable=True, rare=True)
    ] = None,
    ci: Annotated[bool | None, Option("Nobody is there; default where CI=true.", deniable=True)] = None,
    accept_silent_stop: Annotated[bool, Option("Check what ends unreported too.", rare=True)] = False,
    startup_timeout: Annotated[
        str | None, Option("For an agent's first hook (30; 0: off).", "SEC", rare=True)
    ] = None,
    on_event: Annotated[str | None, Option("Run for each event.", "COMMAND", rare=True)] = None,
    operation_id: Annotated[str | None, Option("Submit once, join afterwards.", "KEY", rare=True)] = None,
    detach: Annotated[bool, Option("Leave it to the background.")] = False,
    max_parallel: Annotated[
        int | None, Option("Jobs at once in this registry; 0: any.", "N", minimum=0, rare=True)
    ] = None,
    dry_run: Annotated[bool, Option("Show what would be done.")] = False,
    registry_dir: Annotated[str | None, Option("Where jobs are kept.", "DIR", rare=True)] = None,
    as_json: AsJson = False,
    help_all: Annotated[bool, Option("Show all options.", flags=("--help-all",))] = False,
    agent_args: Annotated[list[str] | None, Argument("Go to the agent.", "[-- ARG…]")] = None,
) -> int:
    """Hand a task to an agent, wait, and exit with what came of it.

    Example: delegate-job submit --prompt "Fix the tests" --validate ./check.sh
    """
    if help_all:
        from delegate_job import cli, cli_help

        return cli_help.show(cli.COMMANDS, "submit")
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
        worktree=worktree,
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
