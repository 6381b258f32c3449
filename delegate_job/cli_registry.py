"""The commands for a whole registry, its machine and the broker: `prune`, `doctor`, `supervise`, `broker`.

Each parses, calls one function, and returns an exit code; what it does stands elsewhere.
"""

from typing import Annotated

from delegate_job.cli_options import Argument, AsJson, Option, RegistryDir


def prune(
    older_than: Annotated[str, Option("Such as 30d, 12h, 90min.", "AGE")] = "30d",
    dry_run: Annotated[bool, Option("Show what would be forgotten.")] = False,
    logs: Annotated[bool, Option("The audit directories too.")] = False,
    broker: Annotated[str | None, Option("The external broker that has their topics.", "URL")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Forget finished jobs: sessions, topics, rows, and worktrees that are merged or unchanged.

    Example: delegate-job prune --older-than 7d --dry-run
    """
    from delegate_job import commands_registry

    return commands_registry.prune(
        registry_dir, older_than, broker=broker, dry_run=dry_run, logs=logs, as_json=as_json
    )


def doctor(
    agent: Annotated[str | None, Argument("Look at this agent, too.", "[AGENT]", "agent")] = None,
    workdir: Annotated[str, Option("Where it is to work.", "DIR")] = ".",
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Say what is there and what is missing, and try it: tmux, the broker, an agent's hooks.

    No model is asked, and nothing is left behind. Exit code 7 when something is missing without which no
    job starts, or none of this agent; a warning alone is 0.

    Example: delegate-job doctor claude-code
    """
    from delegate_job import commands_doctor

    return commands_doctor.examine(agent, workdir, registry_dir, as_json=as_json)


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
