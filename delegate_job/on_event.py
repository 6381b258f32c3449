"""What is run when something happens to a job: `--on-event`, and what sends notifications. Never in the way.

Not what either does with an event: the one is the user's command, the other a process of ours.
"""

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from delegate_job import own_session
from delegate_job.document import event_document
from delegate_job.events import Event
from delegate_job.job import Job
from delegate_job.notices import is_wanted, notice_of
from delegate_job.own_program import own_program

RUN_TIMEOUT = 10.0
"""Seconds that one run may take; then its process group is ended."""
NOTIFY = (*own_program(), "notify", "--from-owner")
"""Reads its URLs, which are secret, by itself: here they are in no memory, argument or variable."""


class _Run(NamedTuple):
    """One line for a command, and where it runs."""

    line: bytes
    workdir: str
    environ: Mapping[str, str]

    def __repr__(self) -> str:
        return f"_Run({self.workdir!r})"


class _Command:
    """One thread that runs a command for one event after the other, or `together` for all that wait."""

    def __init__(self, argv: tuple[str, ...], *, together: bool = False) -> None:
        self._argv = argv
        self._together = together
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def put(self, document: dict[str, Any], *, workdir: str, environ: Mapping[str, str]) -> None:
        """Run the command with this on stdin, later."""
        self._runs.put(_Run(json.dumps(document).encode() + b"\n", workdir, environ))

    def finish(self) -> None:
        """Nothing more is to come; its thread ends by itself."""
        self._runs.put(None)

    def is_busy(self) -> bool:
        """Return whether there may be more to run."""
        return self._thread.is_alive()

    def stop(self, deadline: float) -> None:
        """Nothing more is to come; what was put so far is run until the deadline."""
        self._deadline = deadline
        self.finish()

    def join(self) -> None:
        """Wait for the last run; it ends at the deadline, or is ended."""
        self._thread.join(max(self._deadline - time.monotonic(), 0.0) + 1)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            more = list[_Run | None]()
            if self._together:
                with contextlib.suppress(queue.Empty):
                    while True:
                        more.append(self._runs.get_nowait())
            for each in filter(None, more):
                run = each._replace(line=run.line + each.line)
            left = self._deadline - time.monotonic()
            if left > 0:
                self._run(run, min(left, RUN_TIMEOUT))
            if None in more:
                return

    def _run(self, run: _Run, timeout: float) -> None:
        try:
            process = own_session.start(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=run.workdir,
                env=dict(run.environ),
            )
        except OSError:
            return
        try:
            process.communicate(run.line, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class OnEvent:
    """Has run what is to be run for the events of any number of jobs.

    `environ_of` returns the environment of a job's submit; what it gives at a job's first event is kept.
    """

    def __init__(self, environ_of: Callable[[str], Mapping[str, str]]) -> None:
        self._environ_of = environ_of
        self._environs: dict[str, Mapping[str, str]] = {}
        self._commands: dict[str, _Command] = {}
        self._ending: list[_Command] = []
        self._notifier: _Command | None = None

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:
        """An event was recorded."""
        if applied and job.spec.on_event:
            document = event_document(event, sequence=sequence, applied=applied)
            self._command_of(job).put(document, workdir=job.spec.workdir, environ=self._environ(job.id))
        if applied and job.spec.notify and is_wanted(job, event):
            # One process for all jobs: a thousand that end at once are one notification, not a thousand.
            self._notifier = self._notifier or _Command(NOTIFY, together=True)
            self._notifier.put(notice_of(job, event), workdir="/", environ=self._environ(job.id))
        if job.settled:
            self._forget(job.id)

    def _command_of(self, job: Job) -> _Command:
        if job.id not in self._commands:
            self._commands[job.id] = _Command(job.spec.on_event)
        return self._commands[job.id]

    def _environ(self, job_id: str) -> Mapping[str, str]:
        if job_id not in self._environs:
            self._environs[job_id] = self._environ_of(job_id) or os.environ
        return self._environs[job_id]

    def _forget(self, job_id: str) -> None:
        self._environs.pop(job_id, None)
        command = self._commands.pop(job_id, None)
        if command is not None:
            command.finish()
            self._ending = [each for each in self._ending if each.is_busy()] + [command]

    def stop(self) -> None:
        """Let the commands catch up, for as long in all as one run may take."""
        deadline = time.monotonic() + RUN_TIMEOUT
        commands = [*self._commands.values(), *self._ending, *filter(None, [self._notifier])]
        for command in commands:
            command.stop(deadline)
        for command in commands:
            command.join()
