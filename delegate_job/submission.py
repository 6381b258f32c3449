"""From settings to a job that may be registered: checked, and given an id. Nothing is made here.

What is refused is refused before anything was made; to make it a job is `registration`'s.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from delegate_job.agents import agent_named, agent_of, known_better
from delegate_job.agents.base import Agent, Wanted
from delegate_job.agents.instructions import prompt_text
from delegate_job.audit import DEFAULT_PARENT
from delegate_job.bare import sha256
from delegate_job.environment import scrub
from delegate_job.errors import NotStartedError, UsageError
from delegate_job.job import JobSpec, Worktree
from delegate_job.mqtt import Address, parse_url
from delegate_job.paths import RegistryPaths, absolute
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.settings import Settings
from delegate_job.tmux import INSTALL, Tmux

_ID_LETTERS = "abcdefghjkmnpqrstvwxyz0123456789"
"""Thirty-two, so that a random byte picks each one equally often."""
_ID_LENGTH = 10
"""Fifty bits: short to type by its beginning, and never met twice in one registry."""


class Request(NamedTuple):
    """What a submit asks for, after the command line and the settings were read."""

    settings: Settings
    prompt: bytes
    workdir: str
    environ: Mapping[str, str]
    agent_args: tuple[str, ...] = ()
    operation_id: str | None = None
    worktree: str | None = None
    """The branch of the worktree that is to be made; empty: one of its own; None: none."""

    def __repr__(self) -> str:
        return f"Request({self.settings})"


class Planned(NamedTuple):
    """A job that may be registered: checked, and nothing made of it yet."""

    spec: JobSpec
    prompt: bytes
    environ: Mapping[str, str]
    broker: Address | None = None

    def __repr__(self) -> str:
        return f"Planned({self.spec})"


def new_id() -> str:
    """Return an id for one launch."""
    return "".join(_ID_LETTERS[byte % len(_ID_LETTERS)] for byte in os.urandom(_ID_LENGTH))


def plan(request: Request) -> Planned:
    """Check all that can be checked before anything is made.

    UsageError for what can't be meant, NotStartedError for what keeps the job from starting.
    """
    settings, job_id = request.settings, new_id()
    if request.operation_id is not None and not request.operation_id.strip():
        # A script's unset variable: all its submits would be one.
        raise UsageError("the operation id is empty", hint="leave --operation-id out, or name one")
    if settings.accept_silent_stop and settings.validate is None:
        raise UsageError("--accept-silent-stop needs a check to decide", hint="add --validate SCRIPT")
    prompt_text(request.prompt)
    workdir = checked_workdir(request.workdir)
    agent = agent_named(
        settings.agent,
        command=settings.command,
        configured=settings.agents,
        environ=request.environ,
    )
    _check_agent(agent, request.environ, workdir, Wanted(settings.permission_mode, settings.ci))
    address = None if settings.broker is None else parse_url(settings.broker)
    own = _worktree(workdir, request.worktree, job_id, request.environ)
    spec = JobSpec(
        id=job_id,
        agent=agent.name,
        command=agent.template,
        workdir=workdir if own is None else own.workdir,
        worktree=own,
        session=(settings.session or f"dj-{job_id}") if agent.in_tmux else "",
        log_dir=f"{_log_parent(workdir, request.environ)}/{job_id}",
        prompt_sha256=sha256(request.prompt),
        model=settings.model,
        permission_mode=settings.permission_mode,
        agent_args=request.agent_args,
        timeout=settings.timeout,
        idle_timeout=settings.idle_timeout,
        validate=settings.validate,
        validate_sha256=_fingerprint(settings.validate),
        validate_timeout=settings.validate_timeout,
        attempts=settings.attempts,
        close=settings.close,
        fail_on_input=settings.fail_on_input,
        accept_silent_stop=settings.accept_silent_stop,
        startup_timeout=settings.startup_timeout,
        ci=settings.ci,
        on_event=settings.on_event,
        notify=settings.notify,
        operation_id=request.operation_id,
        broker=None if address is None else address.url(),
    )
    return Planned(spec, request.prompt, _environ(own, request.environ), address)


def _worktree(workdir: str, branch: str | None, job_id: str, environ: Mapping[str, str]) -> Worktree | None:
    if branch is None:
        return None
    from delegate_job import worktree

    return worktree.plan(workdir, branch, job_id, environ)


def _environ(own: Worktree | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    if own is None:
        return environ
    from delegate_job.git import without_outer_git

    return without_outer_git(environ)


def plan_again(row: Row, *, prompt: bytes, environ: Mapping[str, str], broker: str | None) -> Planned:
    """Plan a finished job once more, as a new one, with the environment of now.

    The check is taken as it is now. An external broker's password was not kept: `broker` must name it again.
    """
    old, job_id = row.job.spec, new_id()
    if old.broker is not None and broker is None:
        raise UsageError(
            f"job {old.id} was heard on {old.broker}, whose password is not kept",
            hint="give --broker URL again",
        )
    workdir = checked_workdir(old.worktree.origin if old.worktree else old.workdir)
    agent = agent_of(old)
    own = _worktree(workdir, "" if old.worktree else None, job_id, environ)
    _check_agent(agent, environ, workdir, Wanted(old.permission_mode, old.ci))
    address = None if broker is None else parse_url(broker)
    spec = old._replace(
        id=job_id,
        workdir=workdir if own is None else own.workdir,
        worktree=own,
        session=f"dj-{job_id}" if old.session == f"dj-{old.id}" else old.session,
        log_dir=f"{_log_parent(workdir, environ)}/{job_id}",
        validate_sha256=_fingerprint(old.validate),
        operation_id=None,
        retry_of=old.id,
        broker=None if address is None else address.url(),
    )
    return Planned(spec, prompt, _environ(own, environ), address)


def _fingerprint(check: str | None) -> str | None:
    if check is None:
        return None
    from delegate_job.validation import fingerprint

    return fingerprint(check)


def checked_workdir(path: str) -> str:
    """Return the absolute work dir; NotStartedError when nobody can work in it."""
    try:
        workdir = absolute(path)
    except UsageError as error:
        raise NotStartedError(error.message, hint=error.hint) from error
    if not os.path.isdir(workdir):  # noqa: PTH112 - a text of any bytes, as it was named
        raise NotStartedError(
            f"no such work dir: {workdir}", hint="name an existing directory with --workdir"
        )
    if not os.access(workdir, os.R_OK | os.X_OK):
        raise NotStartedError(f"the work dir {workdir} cannot be entered")
    return workdir


def _check_agent(agent: Agent, environ: Mapping[str, str], workdir: str, wanted: Wanted) -> None:
    problem = agent.problem(scrub(environ), workdir, wanted)
    if problem:
        text, _, hint = problem.partition("; ")
        raise NotStartedError(
            f"agent {agent.name}: {text}", hint=hint or f"`delegate-job doctor {agent.name}` looks closer"
        )
    if agent.in_tmux and (problem := Tmux.missing()):
        raise NotStartedError(problem, hint=INSTALL)


def _log_parent(workdir: str, environ: Mapping[str, str]) -> str:
    named = environ.get("DELEGATE_JOB_LOGS_DIR")
    # What the user names is resolved once, so that nothing below it is ever followed.
    return os.path.realpath(named) if named else f"{workdir}/{DEFAULT_PARENT}"


def warnings_for(spec: JobSpec, paths: RegistryPaths) -> list[str]:
    """Return what the user should know before the job begins."""
    warnings = list[str]()
    root, workdir = os.path.realpath(paths.root), os.path.realpath(spec.workdir)
    if os.path.commonpath((root, workdir)) == workdir:
        warnings.append("the registry lies inside the work dir, where the agent can change it")
    if not spec.command and (known := known_better(spec.agent)):
        warnings.append(f"{spec.agent} is run as any program is; --agent {known} knows how to use it")
    if spec.worktree is not None:
        from delegate_job import worktree

        warnings.extend(filter(None, [worktree.warning(spec.worktree)]))
    if spec.notify:
        from delegate_job import notifying, settings

        warnings.extend(notifying.missing(settings.notify()))
    return warnings


def find_same(registry: Registry, planned: Planned) -> Row | None:
    """Return the job submitted with the same operation id; UsageError when its prompt was another."""
    operation_id = planned.spec.operation_id
    if operation_id is None:
        return None
    row = registry.find_operation(operation_id)
    if row is not None and row.job.spec.prompt_sha256 != planned.spec.prompt_sha256:
        raise UsageError(
            f"operation id {operation_id!r} was used for another prompt (job {row.job.id})",
            hint="use a new --operation-id for a new task",
        )
    return row
