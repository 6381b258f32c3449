"""One call of the tmux program, with a time limit; after one that took too long, none for a while.

Not what tmux is asked: that is `tmux`.
"""

import functools
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from delegate_job import own_session

SILENT_FOR = 30.0
"""Seconds after a call that took too long in which a server is not called again."""
SLOW_AFTER = 0.5
"""Seconds after which a call that runs counts as slow: until it has ended, no other needs to be begun."""
AT_ONCE = 4
"""Calls of one server side by side. It does one thing at a time: more would only run into their limits."""
_CONF = Path(__file__).with_name("tmux.conf")
_KEPT = ("PATH", "HOME", "LANG", "TERM", "TMUX_TMPDIR")

_running = set[subprocess.Popen[bytes]]()

Done = subprocess.CompletedProcess[str]


class Server:
    """What this process knows of one tmux server (a circuit breaker). For any thread."""

    def __init__(self, *address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._calls: dict[int, float] = {}
        self._silent_until = 0.0

    @property
    def answers(self) -> bool:
        """Whether a call is worth its while: none has run into its limit lately, and none is slow now."""
        now = time.monotonic()
        with self._lock:
            slow = any(now - began > SLOW_AFTER for began in self._calls.values())
            return not slow and now >= self._silent_until

    def call(self, args: Sequence[str], data: bytes = b"", *, timeout: float) -> Done | None:
        """Return how a call ended; None when it could not be made, took too long, or one did lately.

        `timeout` is for the call itself, in seconds, and not for the wait behind other calls.
        """
        with self._slots:
            return self._call_now(args, data, timeout)

    def _call_now(self, args: Sequence[str], data: bytes, timeout: float) -> Done | None:
        began = time.monotonic()
        with self._lock:
            if began < self._silent_until:
                return None
            self._calls[threading.get_ident()] = began
        try:
            return _run(["tmux", "-u", "-f", str(_CONF), *self.address, *args], data, timeout)
        except subprocess.TimeoutExpired:
            self._silent_until = time.monotonic() + SILENT_FOR
        except OSError:
            pass
        finally:
            with self._lock:
                del self._calls[threading.get_ident()]
        return None


@functools.cache
def server(*address: str) -> Server:
    """Return the one object for the server with this address: `-L` and a label, or `-S` and a socket."""
    return Server(*address)


def give_up() -> None:
    """End the calls of all threads that still run: this process ends, and nobody waits for their answers.

    A client that reaches a server in the moment of its end may wait for ever (tmux 3.3a).
    """
    for process in list(_running):
        process.kill()


def _run(argv: list[str], data: bytes, timeout: float) -> Done:
    pipe = subprocess.PIPE
    with own_session.start(
        argv,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=_environment(),
        # That of a server started by this call, which must not keep a directory of anybody busy.
        cwd="/",
    ) as process:
        _running.add(process)
        try:
            out, err = own_session.finish(process, data, timeout=timeout)
        finally:
            _running.discard(process)
    words = out.decode(errors="replace"), err.decode(errors="replace")
    return subprocess.CompletedProcess(argv, process.returncode, *words)


def _environment() -> dict[str, str]:
    """Return the little that tmux needs: the server keeps its environment for all later jobs, secrets too."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    return {"PATH": os.defpath, **kept, "SHELL": "/bin/sh"}
