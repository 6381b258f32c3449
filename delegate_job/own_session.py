"""Starts programs of ours in sessions of their own: what a terminal sends its group is for us to hear.

Not their end: that is for who has started them.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from delegate_job.retry import retry_until

MOST_STARTS = 5
"""Times that a program is started which a signal has hit on its way."""

Done = subprocess.CompletedProcess[bytes]

_TO_GROUPS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


def start(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program as `subprocess.Popen` does with these options, in a session of its own. OSError.

    Until its setsid(2) a new process is of our group, and Ctrl-C ends it there, before it is the program: no
    error of Popen's (Python 3.11). It is started again then.
    """
    for _ in range(MOST_STARTS - 1):
        process = subprocess.Popen(argv, start_new_session=True, **options)
        if not _was_hit(process):
            return process
        with process:  # reaps it, and closes its pipes
            pass
    return subprocess.Popen(argv, start_new_session=True, **options)


def run(argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: str | None = None) -> Done:
    """Run a program to its end and return what it said; OSError, subprocess.TimeoutExpired.

    `timeout` is in seconds; whoever runs into it is killed.
    """
    pipe = subprocess.PIPE
    with start(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=cwd, env=env) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def _was_hit(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether it was ended before its exec. It is not reaped, where that is possible."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return -(process.poll() or 0) in _TO_GROUPS
    # Popen comes back a moment before there is a program, or none any more.
    retry_until(lambda: _has_ended(process.pid) or _has_program(process.pid), timeout=1.0, interval=0.0005)
    status = _has_ended(process.pid)
    return status is not None and status.si_code != os.CLD_EXITED and status.si_status in _TO_GROUPS


def _has_ended(pid: int) -> "os.waitid_result | None":
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:  # SIGCHLD is ignored, and it has
        return None


def _has_program(pid: int) -> bool:
    """Return whether the process has come to its program; True where that can't be seen (macOS)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms in a runner
            return bool(file.read(1))
    except OSError:
        return True
