"""One job in its owner's care: its events are applied, its clocks run, and what it owes is done.

Not the loop that feeds it (`supervisor`), and not how a thing is done (`duties`).
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from delegate_job import journal
from delegate_job.audit import AuditDir
from delegate_job.check_slots import CheckSlots
from delegate_job.clocks import STALLED_AFTER, Clocks
from delegate_job.document import job_document
from delegate_job.duties import Duties
from delegate_job.events import CLAIMS, REPORTED, Event, Kind, Source
from delegate_job.events_file import EventsFile
from delegate_job.inbox import Finished, Inbox, Reading
from delegate_job.job import Action, JobState
from delegate_job.lifecycle import advance
from delegate_job.registry import Registry
from delegate_job.rows import Progress, Row
from delegate_job.wire import Wire

if TYPE_CHECKING:
    from delegate_job.listener import Listener

LOOK_EVERY = 1.0
"""Seconds after which a job's runner and clocks are looked at when nothing is heard: of one of a few."""
JOBS_A_SECOND = 250
"""So many jobs are looked at in a second at the most (60 µs each, 1.5 % of a core); more wait longer."""
WIRE_TIMEOUT = 3.0
"""Seconds for which the end of an agent waits for what a broker may still have to tell."""
_HOLD_TICK = 0.1
_LATER = 0.01
"""Seconds after a limit at which it is looked at: never a moment too early."""
_ROUNDS_A_STEP = 8
"""Looks at a flooded inbox before other jobs and signals have their turn."""


class OwnedJob:
    """A job whose lock this process holds."""

    def __init__(
        self,
        row: Row,
        *,
        epoch: int,
        lock: int,
        registry: Registry,
        wire: Wire,
        listener: "Listener",
        post: Callable[[Finished], None],
        checks: CheckSlots,
        is_attended: bool = True,
    ) -> None:
        self.job = row.job
        self.sequence = row.sequence
        self.epoch = epoch
        self.lock = lock
        self.host = row.host
        self.pid = row.owner_pid
        self.wire = wire
        self.checks = checks
        self.is_attended = is_attended
        self._registry = registry
        self._listener = listener
        self._post = post
        self.paths = registry.paths.job(row.job.id)
        self._inbox = Inbox(
            row.job.id,
            AuditDir.at(row.job.spec.log_dir),
            self.paths.control,
            reports_at=row.progress.reports,
            control_at=row.progress.control,
        )
        self._events_file = EventsFile(registry, row.job.id)
        self._write_down()
        left = row.progress.timeout_left
        self._clocks = Clocks(
            timeout=row.job.spec.timeout,
            timeout_left=row.job.spec.timeout if left is None else left,
            quiet_for=row.progress.quiet_for,
        )
        self._clocks.follow(self.job.state)
        self._stalled = False
        self._unfinished = False
        self._own: deque[Event] = deque()
        self._results: deque[Finished] = deque()
        self._by_wire: list[Event] = []
        self._next_look = 0.0
        self._since = time.monotonic()
        self.duties = Duties(self, registry=registry, tmux_socket=row.tmux_socket or "", listener=listener)

    # -- what the supervisor calls

    def say(self, kind: Kind, detail: str | None = None, data: dict[str, Any] | None = None) -> None:
        """Let the owner itself say something; it is applied in the next step, before anything else."""
        self._own.append(journal.own_event(self.job.id, kind, Source.OWNER, detail, data))

    @property
    def waits_for_launch(self) -> bool:
        """Whether it is registered and nobody has said yet that it may start."""
        return self.job.state is JobState.REGISTERED and not self._own

    def take_over(self) -> None:
        """Make good what an earlier owner left undone besides its duties: the copies of what happened."""
        last: dict[str, Event] = {}
        self._write_down()
        for recorded in self._registry.events(self.job.id):
            self.duties.note(recorded.event, applied=recorded.applied)
            if recorded.event.kind in REPORTED:
                last[recorded.event.kind] = recorded.event
        for event in last.values():
            self.wire.announce_report(event)
        self.wire.announce_state(self.job.id, self.document())

    def heard(self, payload: bytes) -> None:
        """Take in a report that came by MQTT. Where a file has it too, the file's copy counts."""
        event = journal.parse(payload, job_id=self.job.id, source=Source.AGENT, received_at=journal.now())
        if event is not None and not self._registry.knows_event(self.job.id, event.id):
            self._by_wire.append(event)

    def finished(self, message: Finished) -> None:
        """Take in the end of something that ran in the background."""
        if message.action is Action.CHECK:
            self.checks.release()
        self._results.append(message)

    def take_last_results(self) -> None:
        """Record what has ended in the background, and begin nothing: another owner comes."""
        self._take_results()
        self.apply_own()
        self.duties.save_socket()

    def step(self) -> None:
        """Do what can be done now without waiting; of a flood of reports a part."""
        self._unfinished = True
        for _ in range(_ROUNDS_A_STEP):
            before = (self.sequence, len(self._own), len(self._results))
            drained = self.drain()
            for do in (
                self._take_results,
                self.duties.look_at_runner,
                self._check_clocks,
                self.duties.act,
            ):
                # What was said is applied before anything else looks at the job.
                self.apply_own()
                do()
            self.apply_own()
            if (self.sequence, len(self._own), len(self._results)) == before:
                self._unfinished = not drained
                break

    def next_step_in(self) -> float:
        """Return the seconds until this job wants a step even if nothing is heard."""
        if self._unfinished:
            return 0.0
        holds = not self.hears_all and self.job.state is not JobState.REGISTERED
        limit = self.job.spec.idle_timeout or STALLED_AFTER
        return min(
            _HOLD_TICK if holds else math.inf,
            self.duties.next_step_in(),
            self._clocks.due_in(limit) + _LATER,
        )

    def is_due(self, now: float, among: int) -> bool:
        """Return whether a step is worth its while; a few microseconds, for the many jobs that are quiet.

        `among` is how many jobs this process owns.
        """
        if now < self._next_look and not self._inbox.has_changed():
            return False
        self._next_look = now + min(max(LOOK_EVERY, among / JOBS_A_SECOND), self.next_step_in())
        return True

    @property
    def unsaved(self) -> Progress | None:
        """What the clocks have counted and nobody has written down; None while they stand still."""
        return self._progress() if self._clocks.are_running else None

    def stop_background(self) -> None:
        """Let go of what runs in the background; the next owner begins it again."""
        self.duties.stop_check()

    # -- applying

    def apply_own(self) -> None:
        """Apply now what `say` has said."""
        while self._own:
            self._apply(self._own[0])
            self._own.popleft()

    def _apply(self, event: Event, reading: Reading | None = None) -> None:
        after = advance(self.job, event)
        applied = after is not self.job
        sequence = self._registry.record(
            event, after, applied=applied, progress=self._progress(reading), epoch=self.epoch
        )
        if sequence is None:
            return
        self.job, self.sequence = after, sequence
        self._clocks.follow(after.state)
        if event.kind in REPORTED:
            self._note_activity()
        self.duties.note(event, applied=applied)
        self._publish(event, applied=applied)

    def _publish(self, event: Event, *, applied: bool) -> None:
        self._write_down()
        if event.kind in CLAIMS or (event.source is Source.HOOK and event.kind in REPORTED):
            # A hook has no time for a broker, and who made a claim may be ended before it has sent it.
            self.wire.announce_report(event)
        if applied:
            self.wire.announce_state(self.job.id, self.document())
        self._listener.happened(self.job, event, self.sequence, applied=applied)

    def _write_down(self) -> None:
        try:
            self._events_file.catch_up()
        except OSError as error:
            self._listener.warn(f"{self._events_file.path}: {error.strerror}")

    def document(self) -> dict[str, Any]:
        """Return the job as JSON, with us as its owner."""
        row = Row(self.job, number=0, sequence=self.sequence, host=self.host, owner_pid=self.pid)
        return job_document(row, self._registry.paths)

    def _progress(self, reading: Reading | None = None) -> Progress:
        return Progress(
            reports=reading.reports if reading else self._inbox.reports_at,
            control=reading.control if reading else self._inbox.control_at,
            timeout_left=self._clocks.timeout_left,
            quiet_for=self._clocks.quiet_for,
        )

    # -- hearing

    @property
    def hears_all(self) -> bool:
        """Whether no claim can be on its way by MQTT alone that was sent before we listened.

        Until the broker has told what it kept for us, for a while at most, the end of the agent must wait.
        """
        return self.wire.caught_up or time.monotonic() - self._since > WIRE_TIMEOUT

    def drain(self) -> bool:
        """Apply what the job's files hold now, of a flood a part; return whether that was all."""
        waits = self.job.state is JobState.REGISTERED  # What is reported now counts when it was launched.
        reading = self._inbox.read(self._by_wire, hold_exited=not self.hears_all, hold_reports=waits)
        if reading.unreadable:
            self._say_unreadable(reading)
        self._apply_reading(reading)
        if not waits:
            self._by_wire.clear()
        return not reading.more

    def _apply_reading(self, reading: Reading) -> None:
        for event in reading.events[:-1]:
            self._apply(event)
        # The last event's transaction also keeps how far the files were read.
        if reading.events:
            self._apply(reading.events[-1], reading)
        elif (reading.reports, reading.control) != (self._inbox.reports_at, self._inbox.control_at):
            self._registry.save_progress(self.job.id, self._progress(reading), epoch=self.epoch)
        self._inbox.keep(reading)

    def _say_unreadable(self, reading: Reading) -> None:
        # The id is where they begin, so that lines which are read again after a crash are not counted twice.
        place = f"unreadable-{reading.reports.inode}-{self._inbox.reports_at.offset}"
        detail = f"{reading.unreadable} lines in reports.jsonl are no reports of this job"
        said = journal.own_event(self.job.id, Kind.UNREADABLE, Source.OWNER, detail)
        self._apply(said._replace(id=place))

    def _take_results(self) -> None:
        while self._results:
            # One that could not be taken in, on a full disk say, is taken in again.
            self._results[0].then(self._results[0].result)
            self._results.popleft()

    def in_background(
        self,
        action: Action | None,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        *,
        head_start: float = 0.0,
    ) -> None:
        """Run something that waits in a thread of its own; its end arrives as `Finished`.

        The loop goes on after `head_start` seconds at the latest. What has ended by then is not posted: it is
        taken in before the loop does anything else.
        """
        job_id, epoch = self.job.id, self.epoch
        # Nobody else can own the job before what is being started or typed for us is done.
        lock = os.dup(self.lock) if action in {Action.LAUNCH, Action.TELL} else None
        early, is_late, turn = list[Finished](), not head_start, threading.Lock()

        def run() -> None:
            try:
                result: Any = work()
            except Exception as error:  # noqa: BLE001 - whatever it was, the loop must hear of the end
                result = error
            if lock is not None:
                os.close(lock)
            with turn:
                (self._post if is_late else early.append)(Finished(job_id, epoch, action, then, result))

        thread = threading.Thread(target=run, name=f"{action or 'look'}-{job_id}", daemon=True)
        thread.start()
        if head_start:
            thread.join(head_start)
            with turn:
                is_late = True
            self._results.extend(early)

    # -- clocks

    def _note_activity(self) -> None:
        self._clocks.stir()  # The quiet begins again.
        self._stalled = False

    def _check_clocks(self) -> None:
        if self._own:
            return
        if self._clocks.timed_out:
            self.say(Kind.TIMEOUT, f"after {self.job.spec.timeout:g} s")
        elif self.job.state is JobState.RUNNING:
            self._check_quiet()

    def _check_quiet(self) -> None:
        limit = self.job.spec.idle_timeout
        is_over = self._clocks.quiet_for >= (limit or STALLED_AFTER)
        changed = self.duties.screen_changed(now=is_over)
        if changed is None:
            return
        if changed:
            self._note_activity()
        elif is_over and limit is not None:
            self.say(Kind.IDLE, f"for {limit:g} s")
        elif is_over and not self._stalled:
            self._stalled = True
            self.say(Kind.STALLED, f"no report and nothing new on the screen for {STALLED_AFTER:g} s")
