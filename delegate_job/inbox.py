"""What an owner hears: messages of its own threads and signals, and the lines of a job's two files.

Not what it makes of them: that is `owner` and `supervisor`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job import journal
from delegate_job.audit import AuditDir
from delegate_job.events import Event, Kind, Source
from delegate_job.hook_proof import proof, read_key
from delegate_job.job import Action
from delegate_job.journal import Position
from delegate_job.tmux import SessionInfo

REPORTS = "reports.jsonl"
_OF_USERS = frozenset(
    {Kind.CANCEL_REQUESTED, Kind.VERIFIED, Kind.SENT, Kind.APPROVED, Kind.DENIED, Kind.ANSWERED}
)


class Reported(NamedTuple):
    """A report came by MQTT: a wake-up, and the report itself in case no file has it."""

    job_id: str
    payload: bytes


class Finished(NamedTuple):
    """Something that an owner did in the background ended; `then` is to be given its result.

    `result` may be the exception that ended it. `epoch` is the owner's, `action` None for a mere look.
    """

    job_id: str
    epoch: int
    action: Action | None
    then: Callable[[Any], None]
    result: Any


class PanesSeen(NamedTuple):
    """What a tmux server was asked at a moment (monotonic) and said of all sessions; None: not seen."""

    address: tuple[str, ...]
    asked_at: float
    sessions: Mapping[str, SessionInfo] | None


class Signalled(NamedTuple):
    """The process received a signal."""

    signum: int


class CaughtUp(NamedTuple):
    """All that a broker had kept for us when we came has arrived, before this message."""

    wire: int


class LinkChanged(NamedTuple):
    """The connection to the broker was made or lost."""

    connected: bool
    reason: str


Message = Reported | Finished | PanesSeen | Signalled | LinkChanged | CaughtUp


class Reading(NamedTuple):
    """Events in the order in which they are to be applied, and where both files have been read to."""

    events: list[Event]
    unreadable: int
    reports: Position
    control: Position
    more: bool


class Inbox:
    """The two files in which a job's reports and its runner's and users' words arrive.

    A reading is kept only when `keep` is called: what was read and not recorded is read again.
    """

    def __init__(
        self, job_id: str, log_dir: AuditDir, control: Path, *, reports_at: Position, control_at: Position
    ) -> None:
        self._job_id = job_id
        self._log_dir = log_dir
        self._control = str(control)
        self.reports_at = reports_at
        self.control_at = control_at
        self._reports = f"{log_dir.path}/{REPORTS}"
        self._agent_dir = str(control.with_name("agent"))
        self._seen: tuple[Position, Position] | None = None

    def has_changed(self) -> bool:
        """Return whether either file looks different from the last time this was asked; nothing is opened."""
        seen = self._look()
        changed, self._seen = seen != self._seen, seen
        return changed

    def _look(self) -> tuple[Position, Position]:
        return _end_of(self._reports), _end_of(self._control)

    def read(
        self, by_wire: Sequence[Event] = (), *, hold_exited: bool = False, hold_reports: bool = False
    ) -> Reading:
        """Return what is new, with the reports `by_wire` that may stand in no file.

        With `hold_exited` an `exited` is left out, and read again next time; with `hold_reports` all reports.

        `control.jsonl` is read first and, but for `spawned`, applied last: an `exited` in it was written when
        the agent's processes were gone, so every report of theirs is in `reports.jsonl` and is read here, or
        was sent before it.
        """
        if not by_wire and self._look() == (self.reports_at, self.control_at):
            # To open them costs ten times as much, each second for each of many quiet jobs.
            return Reading([], 0, self.reports_at, self.control_at, more=False)
        control = self._read_control()
        reports = journal.Batch([], self.reports_at, more=False) if hold_reports else self._read_reports()
        received_at = journal.now()
        said = self._parse(control, received_at)
        if reports.more or hold_exited:
            # What `exited` must not overtake may lie behind what was taken in: it is read again later.
            said = [event for event in said if event.kind != Kind.EXITED]
            control = control._replace(position=self.control_at)
        reported = [
            journal.parse(line, job_id=self._job_id, source=Source.AGENT, received_at=received_at)
            for line in reports.lines
        ]
        events = [of_hook(event, self._agent_dir) for event in reported if event is not None]
        first = [event for event in said if event.kind == Kind.SPAWNED]
        last = [event for event in said if event.kind != Kind.SPAWNED]
        unreadable = len(reports.lines) - len(events) + reports.skipped
        more = control.more or reports.more
        in_file = {event.id for event in events}
        only_by_wire = [event for event in by_wire if not hold_reports and event.id not in in_file]
        return Reading(
            [*first, *events, *only_by_wire, *last], unreadable, reports.position, control.position, more
        )

    def keep(self, reading: Reading) -> None:
        """The reading is recorded: go on behind it."""
        self.reports_at, self.control_at = reading.reports, reading.control

    def _parse(self, control: journal.Batch, received_at: str) -> list[Event]:
        events = []
        for line in control.lines:
            event = journal.parse(line, job_id=self._job_id, source=Source.RUNNER, received_at=received_at)
            if event is not None:
                events.append(_from_control(event))
        return events

    def _read_control(self) -> journal.Batch:
        try:
            fd = os.open(self._control, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return journal.Batch([], self.control_at, more=False)
        return _read_and_close(fd, self.control_at)

    def _read_reports(self) -> journal.Batch:
        fd = self._log_dir.read_fd(REPORTS)
        if fd is None:
            return journal.Batch([], self.reports_at, more=False)
        return _read_and_close(fd, self.reports_at, mark=self._job_id.encode())


def of_hook(event: Event, agent_dir: str) -> Event:
    """Return a report as its hook's, if it proves to be one; `data` then has `hook`, the native event."""
    if "proof" not in event.data:
        return event
    data = {name: value for name, value in event.data.items() if name != "proof"}
    proven = event.data["proof"] == proof(read_key(agent_dir), event.id, event.kind) != ""
    return event._replace(source=Source.HOOK if proven else event.source, data=data)


def _end_of(path: str) -> Position:
    """Return where this file ends; that of one that is not there is where one begins to read."""
    try:
        status = os.lstat(path)
    except OSError:
        return Position()
    return Position(status.st_ino, status.st_size)


def _read_and_close(fd: int, position: Position, *, mark: bytes = b"") -> journal.Batch:
    try:
        return journal.read_new(fd, position, mark=mark)
    except OSError:
        return journal.Batch([], position, more=False)
    finally:
        os.close(fd)


def _from_control(event: Event) -> Event:
    """A user's command writes into the same file as the runner; the kind tells them apart."""
    if event.kind in _OF_USERS:
        return event._replace(source=Source.USER)
    return event
