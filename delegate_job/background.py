"""The background supervisor: one process a registry that owns the jobs nobody else owns.

It is started when there is such a job, by whoever sees it, and ends when there has been none for a while. The
loop itself is `supervisor`.
"""

import contextlib
import faulthandler
import json
import os
import queue
import resource
import sys
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

from delegate_job import locks
from delegate_job.allocator import keep_small
from delegate_job.errors import DelegateJobError, NotStartedError, RegistryError, one_line
from delegate_job.events import Event, Kind
from delegate_job.job import Job
from delegate_job.mqtt import read_connection
from delegate_job.no_broker import NoBroker
from delegate_job.on_event import OnEvent
from delegate_job.owner import OwnedJob
from delegate_job.paths import RegistryPaths
from delegate_job.patience import Patience
from delegate_job.registry import DamagedError, Registry
from delegate_job.rows import Row
from delegate_job.signals import SIGNALS, hearing_signals
from delegate_job.starter import GATE, ownerless
from delegate_job.supervisor import Supervisor, own_lock
from delegate_job.supervisor_upkeep import Upkeep
from delegate_job.wire import EmbeddedWire, ExternalWire, Wire, remove_dead_socket

if TYPE_CHECKING:
    from delegate_job.inbox import Message

IDLE_AFTER = 60.0
"""Seconds without a job to own after which it ends."""
LOOK_EVERY = 0.25
"""Seconds between two looks for jobs without an owner."""
REFUSED_FOR = 10.0
"""Seconds for which a job that could not be owned is left alone."""
BROKER_TRIES = 3
"""Times that a broker is tried before a job is done without one."""
PORT = "broker_port"
"""The name of the registry's setting that remembers the broker's port."""
FILES_WANTED = 65536
_FILES_A_JOB = 6
"""Descriptors that a job may need at once: its lock, a check's pipes and log, a client of the broker."""
_FILES_OF_OURS = 128


class _Refusal(NamedTuple):
    until: float
    why: str
    times: int


class Background:
    """The supervisor of a registry, from the moment it holds the lock."""

    def __init__(
        self,
        registry: Registry,
        inbox: "queue.SimpleQueue[Message]",
        *,
        idle_after: float,
        max_checks: int,
    ) -> None:
        self._registry = registry
        self._idle_after = idle_after
        self._embedded: EmbeddedWire | None = None
        self.listener = _Log(registry)
        self._supervisor = Supervisor(
            registry,
            self.listener,
            self._wire_for,
            inbox,
            dropped=self._refuse,
            leaves_on=frozenset(SIGNALS),
            is_attended=False,
            max_checks=max_checks,
            max_jobs=_room_for_jobs(),
        )
        self._next_look = 0.0
        self._idle_since = time.monotonic()
        self._refused: dict[str, _Refusal] = {}
        self._patience = Patience(registry.paths, self.listener.warn)
        self._upkeep = Upkeep(registry.paths, self.listener.warn)

    def run(self) -> None:
        """Own what there is to own until there is nothing, or until a signal comes.

        DamagedError when the registry's file was found damaged: its jobs are let go.
        """
        if self._registry.repaired:
            self.listener.warn(self._registry.repaired)
        self._supervisor.run(stay=self._stay)
        self.listener.stop()

    def _stay(self) -> bool:
        stays = True
        with self._patience.bearing():
            stays = self._look()
        return stays  # noqa: RET504 - it is what it was when the error was borne

    def _look(self) -> bool:
        """Look for jobs without an owner; return whether to stay for them."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            if self._registry.paths.damaged.exists():
                raise DamagedError(f"the registry {self._registry.paths.database} is damaged")
            self._upkeep.look(idle_for=now - self._idle_since)
            self._adopt(now)
        if len(self._supervisor):
            self._idle_since = now
            self._upkeep.worked()
        if now - self._idle_since < self._idle_after:
            return True
        return self._has_come()

    def _has_come(self) -> bool:
        """Look once more, under the registry's lock; from there on the next job starts a new supervisor."""
        gate = locks.acquire(self._registry.paths.gate, wait=1.0)
        if gate is None:
            return True
        try:
            has_come = bool(set(ownerless(self._registry)) - set(self._refused))
        except BaseException:
            os.close(gate)
            raise
        if has_come:
            os.close(gate)
            self._next_look = 0.0
        # Else both locks come free together, when this process ends.
        return has_come

    def _adopt(self, now: float) -> None:
        """Own what nobody owns; of many jobs a part, so that those that are owned are heard in between."""
        unsettled = self._registry.unsettled()
        self._refused = {job_id: self._refused[job_id] for job_id in unsettled if job_id in self._refused}
        for job_id in unsettled:
            if job_id in self._supervisor or (job_id in self._refused and self._refused[job_id].until > now):
                continue
            if time.monotonic() - now > LOOK_EVERY:
                self._next_look = 0.0
                return
            try:
                self._adopt_one(job_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, the other jobs must go on
                self._refuse(job_id, error)

    def _refuse(self, job_id: str, error: Exception) -> None:
        """Leave a job alone for a while, and say why once: it is another host's, say, or a fault of ours."""
        before = self._refused.get(job_id)
        why = f"job {job_id}: {one_line(error)}"
        if before is None or before.why != why:
            self.listener.warn(why, None if isinstance(error, DelegateJobError | OSError) else error)
        times = before.times + 1 if before else 1
        self._refused[job_id] = _Refusal(time.monotonic() + REFUSED_FOR, why, times)

    def _adopt_one(self, job_id: str) -> None:
        # A user may have removed it: without its directory the job ends, but for that it must have an owner.
        self._registry.paths.job(job_id).root.mkdir(mode=0o700, exist_ok=True)
        lock = own_lock(self._registry, job_id)
        if lock is not None:
            try:
                # An owner before us that was killed could not do it.
                remove_dead_socket(self._registry.paths.job(job_id).broker_socket)
                owned = self._supervisor.own(job_id, lock)
            except BaseException:
                os.close(lock)
                raise
            if isinstance(owned.wire, NoBroker):
                self._do_without_broker(owned, owned.wire.reason)

    def _do_without_broker(self, owned: OwnedJob, reason: str) -> None:
        """End a job that has not begun; one that has goes on by file."""
        if owned.waits_for_launch:
            owned.say(Kind.NOT_LAUNCHED, reason)
        else:
            self.listener.warn(f"job {owned.job.id} goes on without a broker: {reason}")

    def _wire_for(self, row: Row) -> Wire:
        refusal = self._refused.get(row.job.id)
        try:
            return self._broker_for(row)
        except NotStartedError as error:
            if refusal is None or refusal.times < BROKER_TRIES - 1:
                raise
            return NoBroker(one_line(error))

    def _broker_for(self, row: Row) -> Wire:
        if row.job.spec.broker is not None:
            address = read_connection(self._registry.paths.job(row.job.id).connection).broker
            if address is not None:
                return ExternalWire(address)
        if self._embedded is None:
            remembered = int(self._registry.get(PORT) or 0)
            self._embedded = EmbeddedWire(port=remembered, socket_path=self._registry.paths.broker_socket)
            self._registry.set(PORT, str(self._embedded.port))
        return self._embedded


def _room_for_jobs() -> int:
    """Raise the soft limit of open files as far as it goes; return how many jobs fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max((min(soft, FILES_WANTED) - _FILES_OF_OURS) // _FILES_A_JOB, 1)


class _Log:
    """Tells the supervisor's log what happens, each job's `--on-event` command, and notifications."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._on_event = OnEvent(self._environ_of)

    def _environ_of(self, job_id: str) -> dict[str, str]:
        from delegate_job.environment import read_environ

        return read_environ(self._registry.paths.job(job_id).environ)

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:
        """An event was recorded."""
        self._on_event.happened(job, event, sequence, applied=applied)

    def task(self, job: Job, _instructions: str) -> None:
        """A person is the agent: what is to be done stands in the audit directory."""
        self._say(f"job {job.id} waits for a person: {job.spec.log_dir}/instructions.md")

    def tick(self) -> None:
        """Nothing to draw."""

    def warn(self, text: str, fault: Exception | None = None) -> None:
        """Something is amiss; with a fault of ours, also where."""
        self._say(f"{text}\n" + "".join(traceback.format_exception(fault)) if fault else text)

    def stop(self) -> None:
        """Let the commands catch up."""
        self._on_event.stop()

    @staticmethod
    def _say(text: str) -> None:
        # A full disk must not end the supervisor too.
        with contextlib.suppress(OSError):
            print(json.dumps({"at": _now(), "text": text}), file=sys.stderr, flush=True)  # noqa: T201 - it is the log


def _now() -> str:
    from delegate_job.journal import now

    return now()


def supervise(paths: RegistryPaths, *, idle_after: float, max_checks: int) -> None:
    """Be the registry's supervisor; RegistryError when it has one.

    SIGABRT, like a crash, writes to its log what each of its threads was doing.
    """
    keep_small()
    with contextlib.suppress(ValueError, OSError):  # without a stderr there is no place for it
        faulthandler.enable()
    with Registry(paths) as registry:
        lock = locks.acquire(paths.supervisor_lock, wait=1.0)
        _close_gate(paths)
        if lock is None:
            raise RegistryError(f"the registry {paths.root} has a supervisor already")
        with hearing_signals() as inbox:
            os.ftruncate(lock, 0)
            os.write(lock, b"%d\n" % os.getpid())
            while not _run(Background(registry, inbox, idle_after=idle_after, max_checks=max_checks)):
                pass


def _run(background: "Background") -> bool:
    """Run it to its end; False when the registry was damaged on the way: the next one has it repaired."""
    try:
        background.run()
    except DamagedError as error:
        background.listener.warn(error.message)
        return False
    return True


def _close_gate(paths: RegistryPaths) -> None:
    """Let go of the registry's lock, which whoever started us has handed on."""
    number = os.environ.pop(GATE, "")
    # Whoever else has set it must not have us close a file of our own.
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if os.path.samestat(os.fstat(int(number)), paths.gate.stat()):
            os.close(int(number))
