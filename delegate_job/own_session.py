"""Starts programs of ours in sessions of their own: what a terminal sends its group is for us to hear.

Not their end: that is for who has started them.
"""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

Done = subprocess.CompletedProcess[bytes]

# Until its setsid(2) a new process is of our group. After vfork(2) it has lost our handlers there, and a
# Ctrl-C ends it before it is the program, a Ctrl-Z stops it, and us with it, which nobody is told of (Python
# 3.11). After fork(2) it has them until its exec(2), which is in its own session: they do nothing there.
subprocess._USE_VFORK = False  # type: ignore[misc]  # noqa: SLF001 - so the documentation of subprocess has it


def start(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program as `subprocess.Popen` does with these options, in a session of its own. OSError."""
    return subprocess.Popen(argv, start_new_session=True, **options)


def run(argv: Sequence[str], *, env: Mapping[str, str], timeout: float, cwd: str | None = None) -> Done:
    """Run a program to its end and return what it said; OSError, subprocess.TimeoutExpired.

    `timeout` is in seconds; whoever runs into it is killed.
    """
    pipe = subprocess.PIPE
    with start(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=cwd, env=env) as process:
        stdout, stderr = finish(process, timeout=timeout)
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def finish(
    process: "subprocess.Popen[bytes]", data: bytes | None = None, *, timeout: float
) -> tuple[bytes, bytes]:
    """Give a program its input and return its output and errors; it is killed when that is cut short.

    `timeout` is in seconds; subprocess.TimeoutExpired.
    """
    try:
        return process.communicate(data, timeout=timeout)
    except BaseException:
        process.kill()
        raise
