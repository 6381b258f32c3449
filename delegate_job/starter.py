"""Starts the background supervisor of a registry when a job needs one. Not what that does: `background`."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from delegate_job import locks, own_session, owner_watch
from delegate_job.environment import read_environ
from delegate_job.own_program import own_program
from delegate_job.paths import JobPaths, RegistryPaths
from delegate_job.registry import Registry

GATE = "DELEGATE_JOB_GATE"
"""The variable that hands the descriptor of the registry's lock on to a new supervisor."""
COMMAND_TIMEOUT = 60.0
"""Seconds that a command of ours may take; none that has no files to check out waits so long."""
_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "SHELL", "TMPDIR", "TMUX_TMPDIR", "VIRTUAL_ENV"}
)


def is_running(paths: RegistryPaths) -> bool:
    """Return whether the registry has a supervisor."""
    return locks.is_held(paths.supervisor_lock)


def ownerless(registry: Registry) -> list[str]:
    """Return the ids of jobs that need an owner and whose lock nobody holds."""
    paths = registry.paths
    return [job_id for job_id in registry.unsettled() if not locks.is_held(paths.job(job_id).lock)]


def ensure_running_for_ownerless(registry: Registry, environ: Mapping[str, str]) -> None:
    """Start the registry's supervisor when an unfinished job has no owner and there is no supervisor."""
    if is_needed(registry):
        ensure_running(registry.paths, environ)


def is_needed(registry: Registry) -> bool:
    """Return whether an unfinished job has no owner, and no supervisor is there to become it."""
    paths = registry.paths
    return not is_running(paths) and os.access(paths.root, os.W_OK) and bool(ownerless(registry))


def ensure_running(paths: RegistryPaths, environ: Mapping[str, str]) -> None:
    """Start the registry's supervisor unless it runs; return at once.

    Under the registry's lock, which the new process takes over and holds until it is the supervisor: of two
    that start one, one waits, and a supervisor about to end has looked once more.
    """
    gate = locks.acquire(paths.gate, wait=5.0)
    if gate is None:
        return
    try:
        if not is_running(paths) and not _asked_tmux(paths):
            _spawn(paths, environ, gate)
    finally:
        os.close(gate)


def _asked_tmux(paths: RegistryPaths) -> bool:
    """Inside an agent, have its tmux server start the supervisor: a child of ours would end with the agent.

    It is then started with the environment of the job that was submitted last. False outside of any agent.
    """
    from delegate_job.nesting import tmux_around

    environs = sorted(paths.jobs.glob("*/environ.json"), key=_age)
    socket = tmux_around() if environs else None
    return socket is not None and owner_watch.ask_tmux(socket, str(environs[0].parent))


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def ensure_running_for(job_dir: str) -> None:
    """Start the supervisor of a job's registry, as its runner asks, with the environment of its submit."""
    job = JobPaths(Path(job_dir))
    environ = read_environ(job.environ)
    if environ:  # Else the job is done by now.
        ensure_running(RegistryPaths(job.root.parent.parent), environ)


def own_argv(paths: RegistryPaths, command: str, *words: str) -> list[str]:
    """Return the argv that runs a command of ours on this registry."""
    place = ("--registry-dir", str(paths.root))
    return [*own_program(), command, *place, *words]


def time_limit(command: str) -> float:
    """Return the seconds that a command of ours may take: two may have a whole work tree to check out."""
    from delegate_job.git import CHECKOUT_TIMEOUT

    return COMMAND_TIMEOUT + (CHECKOUT_TIMEOUT if command in {"submit", "retry"} else 0.0)


def _spawn(paths: RegistryPaths, environ: Mapping[str, str], gate: int) -> None:
    log = os.open(paths.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        own_session.start(
            own_argv(paths, "supervise", "--background"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment(environ) | {GATE: str(gate)},
            pass_fds=(gate,),
        )
    finally:
        os.close(log)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a supervisor needs of its starter's environment: places, and nobody's secrets."""
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(("LC_", "XDG_", "PYTHON"))
    }
