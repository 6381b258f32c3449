"""`--on-event`: the user's command, run for each applied event with its JSON on stdin. Never in the way."""

import json
import os
import queue
import signal
import subprocess
import threading
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
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def put(self, document: dict[str, Any]) -> None:
        """Run the command for this event, later."""
        self._events.put(document)

    def finish(self) -> None:
        """Nothing more is to come; its thread ends by itself."""
        self._events.put(None)

    def stop(self) -> None:
        """Wait until the command ran for what was put so far, at most as long as one run may take."""
        self._events.put(None)
        self._thread.join(RUN_TIMEOUT + 1)

    def _work(self) -> None:
        while (document := self._events.get()) is not None:
            self._run(json.dumps(document).encode() + b"\n")

    def _run(self, message: bytes) -> None:
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
            process.communicate(message, timeout=RUN_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
