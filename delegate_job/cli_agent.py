"""The commands for one agent: look at it, talk to it, answer it, end it, run it again.

Each parses, calls one function, and returns an exit code; what it does stands elsewhere.
"""

from typing import Annotated

from delegate_job.cli_options import Argument, AsJson, DoneJobId, JobId, LiveJobId, Option, RegistryDir


def attach(job_id: JobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Look at the running agent in its tmux session; leave with Ctrl-b d.

    Example: delegate-job attach @last
    """
    from delegate_job import commands

    return commands.attach(job_id, registry_dir, as_json=as_json)


def send(
    job_id: LiveJobId,
    text: Annotated[str, Argument("What to say; - reads stdin.", "TEXT")],
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Say more to a running agent, as if typed into its session.

    Example: delegate-job send @last "Also update the changelog."
    """
    from delegate_job import commands

    return commands.send(job_id, text, registry_dir, as_json=as_json)


def approve(job_id: LiveJobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Grant what the agent asks leave for, from another terminal.

    Example: delegate-job approve @last
    """
    from delegate_job import commands

    return commands.approve(job_id, registry_dir, as_json=as_json)


def deny(
    job_id: LiveJobId,
    reason: Annotated[str | None, Option("What the agent is told.", "TEXT")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Refuse what the agent asks leave for.

    Example: delegate-job deny @last --reason "Not outside the work dir."
    """
    from delegate_job import commands

    return commands.deny(job_id, registry_dir, reason=reason, as_json=as_json)


def answer(
    job_id: LiveJobId,
    text: Annotated[str, Argument("A label, its number, or words; - reads stdin.", "TEXT")],
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Answer the agent's question; one line for each when it asks several.

    Example: delegate-job answer @last "The blue one."
    """
    from delegate_job import commands

    return commands.answer(job_id, text, registry_dir, as_json=as_json)


def retry(
    job_id: DoneJobId,
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


def cancel(job_id: LiveJobId, registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """End a job and its agent.

    Example: delegate-job cancel @last
    """
    from delegate_job import commands

    return commands.cancel(job_id, registry_dir, as_json=as_json)
