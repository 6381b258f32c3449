"""Watches the transcript of an agent for failures that none of its hooks tells of, and tells them as a hook.

Not whose transcript and where: the agent's first hook says that. What is read is believed as a hook is,
which is no more than the agent itself; a file that is not a plain one of its own is left alone.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from delegate_job.events import Event, Source
from delegate_job.job import JobSpec
from delegate_job.paths import JobPaths
from delegate_job.times import since_1970

WATCHED: Mapping[str, bytes] = MappingProxyType(
    {"codex": b'"task_complete"', "claude-code": b"[Request interrupted by user"}
)
"""The agents that need it, and what stands in every line of interest: codex 0.169.0 has no hook for a request
that its model's API refused, claude-code 2.1.330 none for a turn that its user has stopped with Esc."""
KEPT = "transcript"
"""The file in the job's `agent/` directory that tells the next owner how far this one has read."""
_INTERRUPTED = frozenset({"[Request interrupted by user]", "[Request interrupted by user for tool use]"})
_AT_ONCE = 1 << 20


class _Place(NamedTuple):
    path: str
    offset: int


class Transcript:
    """The transcript of one job's agent. OSError never leaves it: what cannot be read says nothing."""

    def __init__(self, spec: JobSpec, paths: JobPaths) -> None:
        self._spec = spec
        self._paths = paths
        self._file = paths.agent / KEPT
        self._is_watched = spec.agent in WATCHED
        self._place = self._kept() if self._is_watched else None

    def note(self, event: Event) -> None:
        """Take notice of a recorded event: a hook that names a transcript begins the watch."""
        if not self._is_watched or event.source is not Source.HOOK:
            return
        path = event.data.get("transcript")
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:  # noqa: PTH117 - kept as it is
            return
        if self._place is None or self._place.path != path:
            # Of a session that is resumed the past is told as well: only what comes now counts.
            self._keep(_Place(path, _size(path) if event.data.get("source") == "resume" else 0))

    def look(self) -> None:
        """Read what is new, at most 1 MiB of it, and report a turn that has failed."""
        if self._place is None:
            return
        with suppress(OSError):
            lines, end = _new_lines(self._place)
            if end != self._place.offset:
                for line in lines:
                    self._hear(line)
                self._keep(self._place._replace(offset=end))

    def _hear(self, line: bytes) -> None:
        if WATCHED[self._spec.agent] not in line:
            return
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            payload = entry.get("payload") if isinstance(entry, dict) else None
            if isinstance(payload, dict) and payload.get("type") == "task_complete":
                self._tell("task_complete", payload)
            elif isinstance(entry, dict) and _is_interruption(entry) and not self._is_of_before(entry):
                self._tell("Interrupted", {})

    def _is_of_before(self, entry: dict[str, Any]) -> bool:
        """Return whether another turn has begun since this was written."""
        try:
            return since_1970(str(entry.get("timestamp"))) < (self._paths.agent / "turn").stat().st_mtime
        except (OSError, ValueError):
            return False

    def _tell(self, event: str, payload: dict[str, Any]) -> None:
        from delegate_job.hooks import Hook

        mapper = import_module(f"delegate_job.agent_hooks.{self._spec.agent.replace('-', '_')}")
        hook = Hook(
            mapper,
            job_id=self._spec.id,
            log_dir=self._spec.log_dir,
            job_dir=str(self._paths.root),
            event=event,
            payload=payload,
        )
        hook.act(mapper.heard(event, payload))

    def _kept(self) -> _Place | None:
        try:
            path, offset = json.loads(self._file.read_text(encoding="utf-8"))
            return _Place(str(path), int(offset))
        except (OSError, ValueError, TypeError):
            return None

    def _keep(self, place: _Place) -> None:
        self._place = place
        with suppress(OSError):
            self._file.write_text(json.dumps(place), encoding="utf-8")


def _is_interruption(entry: dict[str, Any]) -> bool:
    """Return whether Claude wrote this when its user stopped the main agent: as a message of the user's."""
    message = entry.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if entry.get("type") != "user" or entry.get("isSidechain") or not isinstance(content, list):
        return False
    return [part.get("text") in _INTERRUPTED for part in content if isinstance(part, dict)] == [True]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a path of an agent's, kept as it is
    except OSError:
        return 0


def _new_lines(place: _Place) -> tuple[list[bytes], int]:
    """Return the whole lines behind the place, and where they end; a line of over 1 MiB is passed over."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(place.path, flags)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size <= place.offset:
            return [], place.offset
        data = os.pread(fd, _AT_ONCE, place.offset)
    finally:
        os.close(fd)
    whole, newline, _ = data.rpartition(b"\n")
    if not newline:
        return [], place.offset + (len(data) if len(data) == _AT_ONCE else 0)
    return whole.split(b"\n"), place.offset + len(whole) + 1
