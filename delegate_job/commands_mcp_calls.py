"""What the tools of the MCP server do: run the command of the same name as a child, or wait with progress.

A child, because a command is what is promised and tried: its refusals, its JSON, its one line for an error.
Nothing here knows MCP; an error is a DelegateJobError.
"""

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from delegate_job import client, nesting, starter
from delegate_job.commands import open_registry, warn
from delegate_job.document import job_document
from delegate_job.errors import DelegateJobError
from delegate_job.job import JobState
from delegate_job.markup import without_escapes
from delegate_job.output import live_line
from delegate_job.own_program import own_program
from delegate_job.rows import Row

TELL_EVERY = 5.0
"""Seconds between two words of progress when nothing happens; at each, some clients' clocks begin anew."""
MOST_TEXT = 100_000
"""The most characters of a log that are given at once."""


class Calls:
    """Runs commands of ours for one registry, as from inside the job whose agent we belong to."""

    def __init__(self, registry_dir: str | None, environ: Mapping[str, str]) -> None:
        self._registry_dir = registry_dir
        # Some agents start a server with next to none of their environment: codex 0.169.0 does.
        own = nesting.job_around(environ)
        self._environ = {**environ, **({"DELEGATE_JOB_ID": own} if own else {})}

    def json(self, command: str, *words: str, stdin: str = "") -> Any:
        """Run a command with `--json` and return what it prints; DelegateJobError with its own one."""
        limit = starter.time_limit(command)
        try:
            done = subprocess.run(
                self._argv(command, words),
                input=stdin.encode(errors="surrogateescape"),
                capture_output=True,
                env=self._environ,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise DelegateJobError(f"{command} has not ended after {limit:.0f} s") from None
        if done.returncode:
            raise _error(command, done.returncode, done.stderr)
        for line in done.stderr.splitlines():
            if line.startswith(b"warning: "):  # for whoever reads the server's log
                print(line.decode(errors="replace"), file=sys.stderr, flush=True)
        return json.loads(done.stdout)

    def last_lines(self, command: str, *words: str, most: int) -> list[Any]:
        """Run a command that prints JSON lines; return the last ones."""
        with subprocess.Popen(
            self._argv(command, words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
        ) as process:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            assert process.stderr is not None  # noqa: S101 - as above
            lines = deque(process.stdout, maxlen=most)
            said = process.stderr.read()
        if process.returncode:
            raise _error(command, process.returncode, said)
        return [json.loads(line) for line in lines]

    def _argv(self, command: str, words: tuple[str, ...]) -> list[str]:
        place = () if self._registry_dir is None else (f"--registry-dir={self._registry_dir}",)
        return [*own_program(), command, "--json", *place, *words]

    def wait(
        self,
        job: str,
        *,
        until: JobState,
        timeout: float,
        tell: Callable[[float, str], None],
        stop_if_given_up: Callable[[], None],
    ) -> Any:
        """Return a job when it is done or in the state `until`, or as it is after `timeout` seconds.

        `stop_if_given_up` is called at least once a second; what it raises ends the wait, not the job.
        """

        def look(rows: list[Row]) -> None:
            stop_if_given_up()
            teller(rows[0])

        teller = _Teller(tell)
        with open_registry(self._registry_dir) as registry:
            job_id = registry.find(job).job.id
            try:
                (row,) = client.wait(
                    registry,
                    [job_id],
                    until=until,
                    timeout=timeout,
                    warn=warn,
                    take_over=lambda: starter.ensure_running_for_ownerless(registry, self._environ),
                    look=look,
                )
            except client.WaitTimedOutError:
                row = registry.row(job_id)
            return job_document(row, registry.paths)


class _Teller:
    """Tells of a job that is waited for: at each change, and after a while without one."""

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        self._tell = tell
        self._since = time.monotonic()
        self._sequence = -1
        self._told_at = -TELL_EVERY

    def __call__(self, row: Row) -> None:
        spent = time.monotonic() - self._since
        if row.sequence != self._sequence or spent - self._told_at >= TELL_EVERY:
            self._sequence, self._told_at = row.sequence, spent
            self._tell(spent, live_line(row.job))


def _error(command: str, code: int, said: bytes) -> DelegateJobError:
    lines = said.decode(errors="replace").splitlines()
    found = {label: text for label, _, text in (line.partition(": ") for line in lines)}
    return DelegateJobError(found.get("error", f"{command} has ended with {code}"), hint=found.get("hint"))


def readable(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of a log with what drives a terminal taken out of its text."""
    return {**entry, "text": without_escapes(entry["text"])} if "text" in entry else entry


def newest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest entries that together are no longer than MOST_TEXT, the oldest first."""
    kept = deque[dict[str, Any]]()
    left = MOST_TEXT
    for entry in reversed(entries):
        left -= len(json.dumps(entry))
        if left < 0:
            break
        kept.appendleft(entry)
    return list(kept)
