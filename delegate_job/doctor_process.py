"""A program run for `doctor`: whatever it started has ended afterwards. Not what its end means."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from delegate_job import own_session
from delegate_job.check_process import end_session

Done = subprocess.CompletedProcess[bytes]


@contextmanager
def started(
    argv: Sequence[str], stdio: tuple[int, int | IO[bytes], int], *, cwd: Path, env: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program in a session of its own, with these standard streams. OSError when that fails."""
    found: list[subprocess.Popen[bytes]] = []
    stdin, stdout, stderr = stdio

    def start() -> None:
        found.append(own_session.start(argv, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env))

    # In a thread: a signal's exception comes in the main one, and would lose a process that is just starting.
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(start).result()
        yield found[0]
    finally:
        pool.shutdown()
        for process in found:
            end_session(process.pid)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def run(
    argv: Sequence[str], *, stdin: bytes = b"", timeout: float, cwd: Path, env: Mapping[str, str]
) -> Done | None:
    """Return how it ended; None when it had not after `timeout` seconds. OSError when it does not start."""
    pipe = subprocess.PIPE
    # Not `subprocess.run`: after its time limit it waits for all that holds the pipes, for ever.
    with started(argv, (pipe, pipe, pipe), cwd=cwd, env=env) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            return None
        return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)
