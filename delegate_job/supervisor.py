"""The loop: one inbox for all jobs that this process owns, until they are settled or left to another.

Start up, main loop, shut down. What is done for a job is in `owner` and `duties`; which process runs the
loop, and when, in `foreground` and `background`.
"""

import contextlib
import gc
import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from delegate_job import locks, tmux_call
from delegate_job.check_slots import CheckSlots
from delegate_job.errors import DelegateJobError, RegistryError, under_way
from delegate_job.events import Kind
from delegate_job.inbox import CaughtUp, Finished, LinkChanged, Message, PanesSeen, Reported, Signalled
from delegate_job.job import Action
from delegate_job.leaving import Leaving
from delegate_job.open_wires import OpenWires
from delegate_job.owner import OwnedJob
from delegate_job.pane_watch import PaneWatch
from delegate_job.patience import Patience
from delegate_job.registry import DamagedError, Registry, StorageFullError
from delegate_job.rows import Row
from delegate_job.wire import Hears, Wire

if TYPE_CHECKING:
    from delegate_job.listener import Listener

SWITCH_INTERVAL = 0.001
"""Seconds: with Python's 0.005 a busy main thread makes the broker's thread answer 20 times later."""
TICK, LONGEST_TICK = 0.25, 0.5
"""Seconds between two looks at the files of a job of which nothing is heard: of up to 500 jobs, of 1,000."""
SAVE_EVERY = 30.0
"""Seconds after which all clocks are written down, in one transaction, when no event did it."""
_RETRY_FULL = 1.0
_MOST_DAMAGES = 5
TMUX_TIMEOUT = 6.0
"""Seconds that the end waits for a launch that has begun: the limit of a call of tmux, and some more."""

WireFor = Callable[[Row], Wire]


class Supervisor:
    """Owns jobs. One object a process; `run` in the main thread, because it hears signals.

    `wire_for` gives the wire on which a job is heard, `inbox` is where signals come in (`signals`).
    `dropped` is told of a job that was let go, not settled, because of an error that is its own. What
    signals mean is `leaving`'s. At most `max_checks` checks run side by side, and `max_jobs` agents.
    """

    def __init__(
        self,
        registry: Registry,
        listener: "Listener",
        wire_for: WireFor,
        inbox: "queue.SimpleQueue[Message]",
        *,
        dropped: Callable[[str, Exception], None],
        leaves_on: frozenset[int] = frozenset(),
        is_attended: bool = True,
        max_checks: int = 2,
        max_jobs: int | None = None,
    ) -> None:
        self._registry = registry
        self._listener = listener
        self._wire_for = wire_for
        self._dropped = dropped
        self._is_attended = is_attended
        self._checks = CheckSlots(max_checks)
        self._max_jobs = max_jobs
        self._jobs: dict[str, OwnedJob] = {}
        self._soon: dict[str, float] = {}
        self._waiting: dict[str, None] = {}
        self._inbox = inbox
        self._panes = PaneWatch(inbox.put)
        self._patience = Patience(registry.paths, listener.warn)
        self._wires = OpenWires(
            Hears(
                report=lambda job_id, _kind, payload: inbox.put(Reported(job_id, payload)),
                change=lambda connected, reason: inbox.put(LinkChanged(connected, reason)),
                caught_up=lambda wire: inbox.put(CaughtUp(id(wire))),
            )
        )
        self._was_full = False
        self._damages = 0
        self._next_tick = 0.0
        self._next_save = time.monotonic() + SAVE_EVERY
        self.leaving = Leaving(leaves_on, is_attended=is_attended, warn=listener.warn)

    def own(self, job_id: str, lock: int) -> OwnedJob:
        """Take a job whose lock (a descriptor) this process holds, and go on where it stands."""
        row = self._registry.row(job_id)
        epoch = self._registry.take_ownership(job_id, pid=os.getpid(), host=socket.gethostname())
        wire = self._wire_for(row)
        wire.admit_job(row, self._registry.paths, epoch)
        try:
            owned = OwnedJob(
                self._registry.row(job_id),
                epoch=epoch,
                lock=lock,
                registry=self._registry,
                wire=wire,
                listener=self._listener,
                post=self._inbox.put,
                checks=self._checks,
                is_attended=self._is_attended,
            )
            owned.take_over()
        except BaseException:
            wire.dismiss(job_id, epoch=epoch)
            raise
        self._jobs[job_id] = owned
        self._wires.add(wire)
        if owned.waits_for_launch:
            self._waiting[job_id] = None
        self._soon[job_id] = 0.0
        return owned

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def run(self, stay: Callable[[], bool] = lambda: False) -> None:
        """Run until all jobs are settled and `stay`, asked each round, says no; or until they are left."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        # What the start has made stays: without this the first collection looks at all of it, for 8 ms.
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        try:
            with under_way():
                while ((stays := stay()) or self._jobs) and not self.leaving.is_now:
                    with self._bearing_damage():
                        self._work()
                        if stays or self._jobs:
                            self._hear()
        finally:
            self._shut_down()

    @contextlib.contextmanager
    def _bearing_damage(self) -> Iterator[None]:
        """Go on after a damaged registry was met: the next look at it has it repaired."""
        try:
            yield
        except DamagedError as error:
            self._damages += 1
            if self._damages > _MOST_DAMAGES:
                raise
            self._listener.warn(error.message)

    def _work(self) -> None:
        self._launch_next()
        self._step_due()
        # After the first step: the agent is on its way before the broker's library is imported.
        self._wires.start(is_agent_starting=self._is_agent_starting)
        self._listener.tick()

    def _is_agent_starting(self) -> bool:
        return any(owned.duties.is_agent_starting for owned in self._jobs.values())

    # -- stepping

    def _launch_next(self) -> None:
        """Start the oldest job that waits, when there is room: one a round, so that the others are heard."""
        if not self._waiting or (self._max_jobs and len(self._jobs) - len(self._waiting) >= self._max_jobs):
            return
        owned = self._jobs[next(iter(self._waiting))]
        if owned.waits_for_launch:
            may_launch = False
            with self._patience.bearing():
                may_launch = self._registry.may_launch(owned.job.id)
            if not may_launch:
                return
            owned.say(Kind.LAUNCHING)
        del self._waiting[owned.job.id]
        self._step(owned)
        if self._waiting:
            self._next_tick = 0.0

    def _step_due(self) -> None:
        now = time.monotonic()
        due = {job_id for job_id, at in self._soon.items() if at <= now}
        if now >= self._next_tick:
            self._next_tick = now + min(max(TICK, len(self._jobs) / 2000), LONGEST_TICK)
            among = len(self._jobs)
            due |= {job_id for job_id, owned in self._jobs.items() if owned.is_due(now, among)}
            self._panes.ask(owned.duties.awaited for owned in self._jobs.values())
        for job_id in due:
            self._soon.pop(job_id, None)
            if job_id in self._jobs:
                self._step(self._jobs[job_id])
        if now >= self._next_save:
            self._next_save = now + SAVE_EVERY
            self._save_clocks()

    def _save_clocks(self) -> None:
        owned = self._jobs.values()
        unsaved = [(each.job.id, progress, each.epoch) for each in owned if (progress := each.unsaved)]
        if unsaved:
            with self._patience.bearing():
                self._registry.save_all_progress(unsaved)

    def _step(self, owned: OwnedJob) -> None:
        """Step one job; when the disk is full or the registry damaged, say so once and try again.

        Any other error is this job's alone: another owner, a directory that was removed, a fault of ours.
        """
        try:
            _check_lock(owned)
            owned.step()
        except (StorageFullError, DamagedError) as error:
            if not self._was_full:
                self._listener.warn(f"{error.message}; trying again")
            self._was_full = True
            self._soon[owned.job.id] = time.monotonic() + _RETRY_FULL
        except Exception as error:  # noqa: BLE001 - whatever it was, the other jobs must go on
            self._drop(owned, error)
        else:
            self._was_full = False
            if owned.job.settled:
                self._let_go(owned)
            elif (wait := owned.next_step_in()) < LONGEST_TICK:
                self._soon[owned.job.id] = time.monotonic() + wait

    # -- hearing

    def _hear(self) -> None:
        """Wait for a message until something is due; take in all there are."""
        due = min((self._next_tick, *self._soon.values(), *filter(None, (self.leaving.at,))))
        with contextlib.suppress(queue.Empty):
            message = self._inbox.get(timeout=max(due - time.monotonic(), 0.0))
            while True:
                self._take(message)
                message = self._inbox.get_nowait()

    def _take(self, message: Message) -> None:
        match message:
            case Signalled(signum):
                if self.leaving.hear(signum):
                    self._cancel(signum)
            case LinkChanged(connected, reason) if reason:
                self._listener.warn(f"broker: {reason}" if connected else f"no broker: {reason}")
            case CaughtUp(number):
                self._wires.caught_up(number)
            case Reported(job_id, payload) if job_id in self._jobs:
                self._jobs[job_id].heard(payload)
                self._soon[job_id] = 0.0
            case Finished():
                self._take_finished(message)
            case PanesSeen():
                self._panes.answered(message)
                news = (job_id for job_id, owned in self._jobs.items() if owned.duties.panes_seen(message))
                self._soon |= dict.fromkeys(news, 0.0)

    def _take_finished(self, message: Finished) -> None:
        owned = self._jobs.get(message.job_id)
        # A job that was dropped may be ours again by now, and knows nothing of what was begun before.
        if owned and owned.epoch == message.epoch:
            owned.finished(message)
            self._soon[message.job_id] = 0.0
        elif message.action is Action.CHECK:
            self._checks.release()
        self._soon |= dict.fromkeys(self._checks.pop_waiting(), 0.0)

    # -- signals

    def _cancel(self, signum: int) -> None:
        for job_id, owned in self._jobs.items():
            owned.say(Kind.INTERRUPTED, f"by {signal.Signals(signum).name}")
            self._soon[job_id] = 0.0

    # -- letting go

    def _drop(self, owned: OwnedJob, error: Exception) -> None:
        owned.stop_background()
        self._let_go(owned)
        self._dropped(owned.job.id, error)

    def _let_go(self, owned: OwnedJob) -> None:
        del self._jobs[owned.job.id]
        self._soon.pop(owned.job.id, None)
        self._waiting.pop(owned.job.id, None)
        self._wires.start_for_the_end(owned.wire)
        self._release(owned)
        self._wires.let_go(owned.wire)

    def _release(self, owned: OwnedJob) -> None:
        with contextlib.suppress(DelegateJobError):
            self._registry.give_up_ownership(owned.job.id, epoch=owned.epoch)
        owned.wire.dismiss(owned.job.id, epoch=owned.epoch)
        os.close(owned.lock)

    def _shut_down(self) -> None:
        for owned in self._jobs.values():
            owned.stop_background()
        self._await_launches()
        for owned in self._jobs.values():
            self._release(owned)
        self._wires.stop()
        tmux_call.give_up()

    def _await_launches(self) -> None:
        """See what was begun with tmux to its end, so that the next owner finds it, and begins no second."""
        end = time.monotonic() + TMUX_TIMEOUT
        while any(owned.duties.is_at_tmux for owned in self._jobs.values()) and time.monotonic() < end:
            # What can't be recorded any more, the next owner finds.
            with contextlib.suppress(queue.Empty, DelegateJobError, OSError):
                message = self._inbox.get(timeout=max(end - time.monotonic(), 0.0))
                if isinstance(message, Finished) and message.action in {Action.LAUNCH, Action.TELL}:
                    self._take_finished(message)
                    if owned := self._jobs.get(message.job_id):
                        owned.take_last_results()


def _check_lock(owned: OwnedJob) -> None:
    if not locks.is_of(owned.lock, owned.paths.lock):
        raise RegistryError("its lock was removed, or its directory in the registry")


def own_lock(registry: Registry, job_id: str) -> int | None:
    """Take the lock of a job, and with it the job; None when another process has it."""
    try:
        return locks.acquire(registry.paths.job(job_id).lock)
    except FileNotFoundError:
        raise RegistryError(f"the directory of job {job_id} is gone") from None
