"""`--on-event`: the user's command, run for each applied event with its JSON on stdin. Never in the way."""

import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

RUN_TIMEOUT = 10.0
"""Seconds that one run may take; then its process group is ended."""


class OnEvent:
    """One thread that runs the command for one event after the other."""

    def __init__(self, argv: tuple[str, ...], *, workdir: str, environ: Mapping[str, str]) -> None:
        self._argv = argv
        self._workdir = workdir
        self._environ = dict(environ)
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def put(self, document: dict[str, Any]) -> None:
        """Run the command for this event, later."""
        self._events.put(document)

    def finish(self) -> None:
        """Nothing more is to come; its thread ends by itself."""
        self._events.put(None)

    def stop(self) -> None:
        """Let the command run for what was put so far, for as long in all as one run may take."""
        self._deadline = time.monotonic() + RUN_TIMEOUT
        self._events.put(None)
        self._thread.join(RUN_TIMEOUT + 1)

    def _work(self) -> None:
        while (document := self._events.get()) is not None:
            left = self._deadline - time.monotonic()
            if left > 0:
                self._run(json.dumps(document).encode() + b"\n", min(left, RUN_TIMEOUT))

    def _run(self, message: bytes, timeout: float) -> None:
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._workdir,
                env=self._environ,
                start_new_session=True,
            )
        except OSError:
            return
        try:
            process.communicate(message, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
