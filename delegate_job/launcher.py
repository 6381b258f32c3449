"""From a job directory and an argv to an agent that runs in a tmux pane, and to its certain end.

Nothing about what the agent is or says, and no decision about the job: it starts, looks and ends. The work in
the pane is `runner`'s.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job import locks, processes, runner
from delegate_job.agent_tree import KILL_WAIT, TERM_WAIT
from delegate_job.errors import NotStartedError
from delegate_job.paths import JobPaths, write_new
from delegate_job.processes import Process
from delegate_job.retry import retry_until
from delegate_job.tmux import Tmux, TmuxError

ORPHAN_TERM_WAIT = 2.0
"""Seconds between TERM and KILL for what a killed runner left behind."""
STOP_WAIT = TERM_WAIT + KILL_WAIT
"""Seconds within which a runner that is told to end has ended everything, also what ignores TERM."""

_SCRIPT = Path(__file__).resolve().with_name("pane.py")


class RunnerState(StrEnum):
    """What a job's runner does, by its lock alone."""

    STARTING = "starting"
    """Not seen since the last start. If that is long ago, or its pane is dead, it never will be."""
    RUNNING = "running"
    GONE = "gone"
    """It has run and has ended, however that came."""


class Record(NamedTuple):
    """Who runs a job, by the runner's lock file. None: not written, or written before the last boot."""

    runner: Process | None = None
    agent: Process | None = None
    ended: bool = False
    """The runner has seen the end of its whole tree."""


def write_launch_file(
    paths: JobPaths,
    *,
    argv: Sequence[str],
    cwd: str | Path,
    env: Mapping[str, str],
    limits: Mapping[str, int],
) -> None:
    """Write what the runner is to start; 0600, whole or not at all. OSError when it cannot be written.

    Arguments, names and values may hold any bytes but NUL, as Python carries them (surrogateescape).
    `limits` are those of the job's submit: the soft `nofile` limit (-1: none) and the `umask`.
    """
    fields: dict[str, Any] = {
        "argv": [_carried(argument) for argument in argv],
        "cwd": _carried(str(cwd)),
        "env": {_carried(name): _carried(value) for name, value in env.items()},
        "limits": dict(limits),
    }
    partial = paths.launch.with_suffix(".partial")
    write_new(partial, json.dumps(fields).encode("ascii"))
    # No fsync: after a power cut no agent is left that could be started with it.
    partial.replace(paths.launch)


def _carried(text: str) -> str:
    """Return the text as a process with UTF-8 as its file system encoding would carry the same bytes."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def runner_argv(paths: JobPaths) -> list[str]:
    """Return the command that tmux is given: constant, but for the path of the job directory.

    `-I -S`: nothing of the user's Python set-up is run or heeded, and it starts sooner. `utf8`: tmux's locale
    is that of whoever started the server.
    """
    return [sys.executable, "-I", "-S", "-X", "utf8", str(_SCRIPT), str(paths.root)]


def start(tmux: Tmux, session: str, paths: JobPaths) -> str:
    """Start the job's runner in a new session; return the tmux server's socket. NotStartedError.

    It returns when the pane is there. Whether the agent came up, the runner says in `control.jsonl`.
    """
    _forget_runner(paths)
    return tmux.start_session(session, runner_argv(paths), pane_log=paths.pane_log)


def relaunch(tmux: Tmux, session: str, paths: JobPaths) -> str | None:
    """Start the runner again in its session, or in a new one if that is gone; end first what still runs.

    Return the socket of the tmux server if a session was started. NotStartedError.
    """
    if not stop_agent(paths):
        raise NotStartedError("the agent that ran before could not be ended")
    there = tmux.has_session(session)
    if there is None:
        raise TmuxError(f"tmux does not say whether session {session} is there")
    if not there:
        return start(tmux, session, paths)
    _forget_runner(paths)
    tmux.respawn(session, runner_argv(paths), pane_log=paths.pane_log)
    return None


def runner_state(paths: JobPaths) -> RunnerState:
    """Return what the runner does. tmux is not asked: its answer may be about another server."""
    if locks.is_held(paths.runner_lock):
        return RunnerState.RUNNING
    try:
        ran = paths.runner_lock.stat().st_size > 0
    except FileNotFoundError:
        ran = False
    if not ran:
        return RunnerState.STARTING
    # It may have come, and written down that it has, between the two looks.
    return RunnerState.RUNNING if locks.is_held(paths.runner_lock) else RunnerState.GONE


def read_record(paths: JobPaths) -> Record:
    """Return who runs, or ran, the job."""
    try:
        lines = paths.runner_lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Record()
    found = dict(filter(None, map(_parse_member, lines)))
    return Record(found.get("runner"), found.get("agent"), ended=runner.ENDED in lines)


def stop_agent(paths: JobPaths, timeout: float = STOP_WAIT) -> bool:
    """End the job's agent with its whole process tree; return whether all of it is gone.

    The runner is asked first and has `timeout` seconds for it. If it does not, it is killed, with its tree.
    A runner that tmux has started but that has not come to its lock yet will not start the agent. Harmless
    when nothing runs.
    """
    if runner_state(paths) is RunnerState.STARTING and _forbid_to_start(paths):
        return True
    if runner_state(paths) is RunnerState.RUNNING:
        record = retry_until(lambda: _whole(read_record(paths)), timeout=5.0, interval=0.01) or Record()
        if record.runner:
            processes.send(record.runner, signal.SIGTERM)
        if not retry_until(lambda: not locks.is_held(paths.runner_lock), timeout=timeout, interval=0.02):
            _kill(record)
    retry_until(lambda: not locks.is_held(paths.runner_lock), timeout=1.0, interval=0.02)
    end_orphans(paths)
    return not locks.is_held(paths.runner_lock) and not _orphans(paths)


def end_orphans(paths: JobPaths) -> int:
    """End what a killed runner left behind: TERM, two seconds, KILL. Return how many processes that were.

    Does nothing while a runner lives. They are known by the recorded agent, on Linux by the mark that the
    runner puts into the agent's environment, elsewhere by the session of the pane; and by descent from these.
    """
    if runner_state(paths) is not RunnerState.GONE:
        return 0
    ended: set[int] = set()

    def _end(signum: int) -> bool:
        orphans = _orphans(paths)
        for orphan in orphans:
            processes.send(orphan, signum)
            processes.send(orphan, signal.SIGCONT)
        ended.update(orphan.pid for orphan in orphans)
        return not orphans

    if not _end(signal.SIGTERM):
        gone = retry_until(lambda: not _orphans(paths), timeout=ORPHAN_TERM_WAIT)
        if not gone:
            retry_until(lambda: _end(signal.SIGKILL), timeout=KILL_WAIT)
    return len(ended)


def _orphans(paths: JobPaths) -> list[Process]:
    record = read_record(paths)
    if record.runner is None or record.ended:
        return []
    living = processes.table()
    mark = os.fsencode(f"{runner.MARK}={runner.mark(str(paths.root), paths.runner_lock.stat())}")
    roots = {process.pid for process in living.values() if processes.carries(process.pid, mark)}
    if record.agent and _lives(record.agent, living):
        roots.add(record.agent.pid)
    if not processes.SEES_ENVIRONMENTS and record.runner.pid not in living:
        roots |= {process.pid for process in living.values() if process.sid == record.runner.pid}
    found = [living[pid] for pid in roots] + processes.descendants(living, roots)
    ours = _self_and_ancestors(living)
    return [process for process in found if process.pid not in ours]


def _lives(process: Process, living: Mapping[int, Process]) -> bool:
    return process.pid in living and living[process.pid].start == process.start


def _self_and_ancestors(living: Mapping[int, Process]) -> set[int]:
    pid, found = os.getpid(), set[int]()
    while pid in living and pid not in found:
        found.add(pid)
        pid = living[pid].ppid
    return found


def _kill(record: Record) -> None:
    """Kill a runner that does not end, and its tree as it is now: without it, nothing holds that together."""
    if record.runner is None:
        return
    living = processes.table()
    if not _lives(record.runner, living):
        return
    for process in (record.runner, *processes.tree(living, record.runner.pid)):
        processes.send(process, signal.SIGKILL)


def _whole(record: Record) -> Record | None:
    return record if record.runner else None


def _parse_member(line: str) -> tuple[str, Process] | None:
    try:
        who, pid, start_time, boot = line.split()
        number = int(pid)
    except ValueError:
        return None
    if boot != processes.boot_id():
        return None
    return who, Process(number, start_time)


def _forget_runner(paths: JobPaths) -> None:
    """Empty the lock file, so that the runner to come is told from the one that was. NotStartedError."""
    fd = locks.acquire(paths.runner_lock, wait=0.5)
    if fd is None:
        raise NotStartedError("a runner of this job runs already")
    try:
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _forbid_to_start(paths: JobPaths) -> bool:
    """Leave word for a runner that may still come; False when it has come."""
    fd = locks.acquire(paths.runner_lock)
    if fd is None:
        return False
    try:
        os.pwrite(fd, f"{runner.ENDED}\n".encode(), 0)
    finally:
        os.close(fd)
    return True
