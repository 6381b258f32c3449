"""A check as a process: its session, its time limit, its bounded output, and an end that leaves nothing.

Not what its exit code means for a job; that is `validation`.
"""

import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from delegate_job import own_session, processes
from delegate_job.check_output import Output
from delegate_job.processes import Process
from delegate_job.retry import retry_until

GRACE = 2.0
"""Seconds between TERM and KILL."""

_TICK = 0.05
_DRAIN = 0.5
# Another thread's fork may hold a script open for writing for the moment until its exec.
_BUSY = 2.0


class CheckStopped(Exception):  # noqa: N818 - it is asked for, not an error
    """The check was ended because its `stop` was set: it has no verdict."""


class CannotStartError(Exception):
    """The check could not be started: the reason, and the exit code that a shell would give (126 or 127)."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: a script with an absolute path, where, with which environment, for how many seconds.

    `umask` and `nofile`, the soft limit of open files, are our own when negative or None.
    """

    script: str
    workdir: str
    environ: Mapping[str, str] = field(repr=False)
    timeout: float
    umask: int = -1
    nofile: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. `exit_code` is 128 + n after signal n, None after the time limit or if unknown."""

    exit_code: int | None
    timed_out: bool = False


def argv_for(script: str) -> list[str]:
    """Return how to run a script: an executable file as it is, any other with the `bash` on PATH."""
    return [script] if os.access(script, os.X_OK) else ["bash", script]


def run(
    command: Command,
    output: Output,
    *,
    lock_fd: int | None = None,
    stop: threading.Event | None = None,
) -> Ended:
    """Run a check to its end, and end what it leaves in its session.

    It inherits `lock_fd`, in which its pid and start time are written. Raises CannotStartError; CheckStopped
    when `stop` was set.
    """
    with _spawned(command, lock_fd) as process:
        try:
            in_time = _follow(process, output, time.monotonic() + command.timeout, stop or threading.Event())
            exit_code = _exit_code(process) if in_time else None
        finally:
            # Not yet waited for: as long as it is a zombie, its pid and its session's id are nobody else's.
            end_session(process.pid)
        _drain(process, output)
    return Ended(exit_code, timed_out=not in_time)


@contextlib.contextmanager
def _spawned(command: Command, lock_fd: int | None) -> "Iterator[subprocess.Popen[bytes]]":
    process = _spawn(command, lock_fd)
    try:
        if lock_fd is not None:
            write_record(lock_fd, process.pid)
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        # A process that KILL does not end hangs in the kernel; to wait for it would hang us too.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)


def _spawn(command: Command, lock_fd: int | None) -> "subprocess.Popen[bytes]":
    try:
        process = retry_until(lambda: _try_spawn(command, lock_fd), timeout=_BUSY)
    except OSError as error:
        raise _cannot_start(error, command) from None
    if process is None:
        raise CannotStartError(f"{command.script}: somebody has it open for writing", 126)
    return process


def _try_spawn(command: Command, lock_fd: int | None) -> "subprocess.Popen[bytes] | None":
    """Start the script, or return None while somebody has it open for writing (ETXTBSY, execve(2))."""
    argv = argv_for(command.script)
    try:
        return _popen(argv, command, lock_fd)
    except OSError as error:
        if error.errno == errno.ETXTBSY:
            return None
        if error.errno == errno.ENOEXEC and argv[0] != "bash":
            # An executable text without `#!`: as a shell does that is given its name.
            return _popen(["bash", command.script], command, lock_fd)
        raise


def _popen(argv: list[str], command: Command, lock_fd: int | None) -> "subprocess.Popen[bytes]":
    return own_session.start(
        argv,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=command.workdir,
        env=command.environ,
        umask=command.umask,
        preexec_fn=_file_limit(command.nofile),
        pass_fds=() if lock_fd is None else (lock_fd,),
    )


def _file_limit(soft: int | None) -> Callable[[], None] | None:
    """Return what gives a child the soft limit of open files that its user has; a supervisor's is higher.

    None when it has that already, as in a foreground submit.
    """
    ours, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft is None or soft == ours:
        return None
    allowed = soft if hard == resource.RLIM_INFINITY or 0 <= soft <= hard else hard
    return partial(resource.setrlimit, resource.RLIMIT_NOFILE, (allowed, hard))


def _cannot_start(error: OSError, command: Command) -> CannotStartError:
    missing = isinstance(error, FileNotFoundError)
    why = (error.strerror or str(error)).lower()
    if error.filename == command.workdir:
        return CannotStartError(f"the work dir {command.workdir} cannot be entered: {why}", 126)
    if missing and error.filename == "bash":
        return CannotStartError("bash is not on PATH, and the check is not executable", 127)
    if missing and Path(command.script).is_file():
        return CannotStartError(_interpreter(command.script), 127)
    return CannotStartError(f"{command.script}: {why}", 127 if missing else 126)


def _interpreter(script: str) -> str:
    with Path(script).open("rb") as file:
        line = file.readline(256)
    end = " (the line ends with CR LF, as on Windows)" if line.endswith(b"\r\n") else ""
    return f"{script}: no such interpreter: {line.strip().decode(errors='replace')}{end}"


def _follow(process: "subprocess.Popen[bytes]", output: Output, end: float, stop: threading.Event) -> bool:
    """Copy the output until the process ends; False when its time is over first."""
    with _Watch(process) as watch:
        while True:
            exited, piece = watch.next()
            output.take(piece)
            if exited:
                return True
            if stop.is_set():
                raise CheckStopped
            if time.monotonic() >= end:
                return False


class _Watch:
    """Waits for output or for the end of a process, whichever comes first."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._pipe = _pipe(process)
        self._pidfd = _pidfd(process)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        if self._pidfd is not None:
            self._poll.register(self._pidfd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    def next(self) -> tuple[bool, bytes]:
        """Return after a tick at most: whether it has ended, and what it printed."""
        ready = {fd for fd, _ in self._poll.poll(_TICK * 1000)}
        piece = b""
        if self._pipe in ready:
            piece = os.read(self._pipe, 65536)
            if not piece:  # it has closed its output, and may live on
                self._poll.unregister(self._pipe)
        if self._pidfd is None:
            return _has_ended(self._process), piece
        return self._pidfd in ready, piece


def _pidfd(process: "subprocess.Popen[bytes]") -> int | None:
    """Return what tells of the end at once (Linux 5.3), or None: then it is seen at the next tick."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:  # SIGCHLD is ignored, and it has ended
        return None


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def _pipe(process: "subprocess.Popen[bytes]") -> int:
    return process.stdout.fileno() if process.stdout is not None else -1


def _exit_code(process: "subprocess.Popen[bytes]") -> int | None:
    """Return the exit code without reaping; None when somebody else took it.

    `Popen` would say 0 then, and a check that failed would pass: with SIGCHLD ignored, as under some daemons,
    the kernel keeps no status (wait(2)).
    """
    if not hasattr(os, "waitid"):
        ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        return None if ignored else _shell_code(process.wait())
    try:
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return None
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else 128 + status.si_status


def _shell_code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def _drain(process: "subprocess.Popen[bytes]", output: Output) -> None:
    """Take what is left in the pipe; a daemon that left the session may hold it open, and write for ever."""
    pipe = _pipe(process)
    os.set_blocking(pipe, False)
    end = time.monotonic() + _DRAIN
    with contextlib.suppress(BlockingIOError):
        while (piece := os.read(pipe, 65536)) and time.monotonic() < end:
            output.take(piece)


def end_session(leader: int, start: str | None = None) -> None:
    """End a session leader, the members of its session and their descendants: TERM, `GRACE` seconds, KILL.

    With `start` given, nothing is done when the leader's pid is another process's by now.
    """
    seen: set[Process] = set()

    def living() -> list[Process]:
        now = processes.table()
        at_leader = now.get(leader)
        if start is not None and at_leader is not None and at_leader.start != start:
            return []
        # A member may leave the session once its parent is gone: who was seen once, stays on the list.
        seen.update(processes.tree(now, leader), [at_leader] if at_leader else [])
        return [each for each in seen if each.pid in now and now[each.pid].start == each.start]

    end_all(living)


def end_all(living: Callable[[], list[Process]]) -> None:
    """End the processes that `living` finds: TERM, `GRACE` seconds, then KILL until none is left, for 1 s."""
    asked: set[Process] = set()

    def ended() -> bool:
        left = living()
        # Each is asked once, also one that was forked while its parent was.
        for process in set(left) - asked:
            processes.send(process, signal.SIGTERM)
            asked.add(process)
        return not left

    def killed() -> bool:
        left = living()
        for process in left:
            processes.send(process, signal.SIGKILL)
        return not left

    if not retry_until(ended, timeout=GRACE):
        retry_until(killed, timeout=1.0)


def write_record(lock_fd: int, pid: int) -> None:
    """Write whose lock it is, `<pid> <start time>`. On a full disk the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{pid} {processes.start_of(pid) or '-'}\n".encode(), 0)


def read_record(path: Path) -> tuple[int, str] | None:
    """Return the pid and start time in a lock, or None when there are none."""
    try:
        pid, start = path.read_text().split()
        return int(pid), start
    except (OSError, ValueError):
        return None
