"""The commands that say or show what happens to jobs: `publish`, `status`, `list`, `wait`, `watch` and more.

Each parses, calls one function, and returns an exit code; what it does stands elsewhere.
"""

import os
from pathlib import Path
from typing import Annotated

from delegate_job.cli_options import Argument, AsJson, JobOption, Option, RegistryDir, Unparsed, one_job
from delegate_job.errors import UsageError
from delegate_job.job import JobState


def _publish(
    event: Annotated[str, Option("What happened.", "KIND", completes="kind")],
    detail: Annotated[str | None, Option("What to say about it.", "TEXT")] = None,
    job: JobOption = None,
    timeout: Annotated[float | None, Option("For the MQTT part.", "SECONDS")] = None,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Declare what `reporter` reads."""


def _publish_help() -> str:
    from delegate_job import reporter

    return reporter.HELP


def publish(words: Annotated[list[str], Unparsed(like=_publish, help=_publish_help)]) -> int:
    """Report what happens to a job; its agent runs this."""
    from delegate_job import reporter

    return reporter.main(words)


def status(
    job_id: Annotated[str | None, Argument("The job.", "ID", "job")] = None,
    job: JobOption = None,
    connection: Annotated[bool, Option("A read-only MQTT URL and the topics.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show one job.

    Example: delegate-job status @last
    """
    from delegate_job import commands

    return commands.status(one_job(job_id, job), registry_dir, connection=connection, as_json=as_json)


def list_jobs(
    state: Annotated[JobState | None, Option("Only jobs in this state.", "STATE")] = None,
    agent: Annotated[str | None, Option("Only jobs of this agent.", "NAME", completes="agent")] = None,
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


def wait(
    job_ids: Annotated[
        list[str] | None, Argument("Jobs; all unfinished ones if none is named.", "[ID…]", "job")
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


def watch(
    job_id: Annotated[str | None, Argument("One job; all if none is named.", "[ID]", completes="job")] = None,
    job: JobOption = None,
    plain: Annotated[bool, Option("A line for each change, no full screen.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """See all jobs live, or one, and act on them; without a full screen, a line for each change.

    Example: delegate-job watch
    """
    from delegate_job import commands_watch

    named = None if job_id is None and job is None else one_job(job_id, job)
    return commands_watch.watch(named, registry_dir, plain=plain, as_json=as_json)


def verify(
    job_id: Annotated[str | None, Argument("The job.", "ID", "job")] = None,
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
    return commands.verify(one_job(job_id, job), str(validate), registry_dir, as_json=as_json)


def logs(
    job_id: Annotated[str | None, Argument("The job.", "ID", "job")] = None,
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
    return commands_logs.logs(one_job(job_id, job), registry_dir, kind=kind, follow=follow, as_json=as_json)


def report(
    job_id: Annotated[str | None, Argument("The job.", "ID", "job")] = None,
    job: JobOption = None,
    output: Annotated[str | None, Option("Instead of report-ID.html here; -: stdout.", "FILE")] = None,
    markdown: Annotated[bool, Option("Markdown, on stdout unless FILE is given.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Write one page with all of a job: prompt, timeline, session, changes, checks, events.

    Example: delegate-job report @last --output job.html
    """
    from delegate_job import commands_report

    return commands_report.report_job(
        one_job(job_id, job), registry_dir, output=output, as_markdown=markdown, as_json=as_json
    )
