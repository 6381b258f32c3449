"""The loop: one inbox for all jobs that this process owns, until they are settled.

start_up, main loop, shut_down. What is done for a job is in `owner` and `duties`.
"""

import contextlib
import gc
import os
import queue
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from delegate_job import locks
from delegate_job.errors import DelegateJobError
from delegate_job.events import Kind
from delegate_job.inbox import Finished, LinkChanged, Message, Reported, Signalled
from delegate_job.job import JobState
from delegate_job.owner import Listener, OwnedJob
from delegate_job.registry import Registry, StorageFullError
from delegate_job.wire import Wire, owner_will

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SWITCH_INTERVAL = 0.001
"""Seconds: with Python's 0.005 a busy main thread makes the broker's thread answer 20 times later."""
_RETRY_FULL = 1.0


class Supervisor:
    """Owns jobs, and the wire on which it hears of them."""

    def __init__(
        self,
        registry: Registry,
        wire: Wire,
        listener: Listener,
        inbox: "queue.SimpleQueue[Message]",
    ) -> None:
        self._registry = registry
        self._wire = wire
        self._listener = listener
        self._jobs: dict[str, OwnedJob] = {}
        self._inbox = inbox
        self._was_full = False
        self._wire_started = False
        self.signum: int | None = None

    def own(self, job_id: str, lock: int) -> OwnedJob:
        """Take a job whose lock (a descriptor) this process holds."""
        epoch = self._registry.take_ownership(job_id, pid=os.getpid(), host=socket.gethostname())
        owned = OwnedJob(
            self._registry.row(job_id),
            epoch=epoch,
            lock=lock,
            registry=self._registry,
            wire=self._wire,
            listener=self._listener,
            post=self._inbox.put,
        )
        self._jobs[job_id] = owned
        if owned.job.state is JobState.REGISTERED:
            owned.say(Kind.LAUNCHING)
        self._wire.watch(job_id)
        return owned

    def run(self) -> None:
        """Run until every job is settled, or a second signal comes."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.enable()
        try:
            self._main_loop()
        finally:
            self._shut_down()

    def _main_loop(self) -> None:
        while self._jobs:
            self._step_all()
            self._start_wire()
            self._let_go()
            self._listener.tick()
            if self._jobs and not self._hear():
                break

    def _step_all(self) -> None:
        for owned in list(self._jobs.values()):
            self._guarded(owned.step)

    def _start_wire(self) -> None:
        # After the first step: the agent is on its way before the broker's library is imported.
        if self._wire_started:
            return
        self._wire_started = True
        owned = next(iter(self._jobs.values()))
        self._wire.start(self._reported, self._link_changed, will=owner_will(owned.job.id, owned.epoch))
        for each in self._jobs.values():
            self._wire.announce_owner(each.job.id, present=True, epoch=each.epoch)
            self._wire.announce_state(each.job.id, each.document())

    def _reported(self, job_id: str, _kind: str, payload: bytes) -> None:
        self._inbox.put(Reported(job_id, payload))

    def _link_changed(self, connected: bool, reason: str) -> None:  # noqa: FBT001 - the link's callback
        self._inbox.put(LinkChanged(connected, reason))

    def _hear(self) -> bool:
        """Wait for a message until the next job wants a step; take in all there are. False: stop now."""
        timeout = min(owned.next_step_in() for owned in self._jobs.values())
        with contextlib.suppress(queue.Empty):
            message = self._inbox.get(timeout=_RETRY_FULL if self._was_full else timeout)
            while True:
                if not self._take(message):
                    return False
                message = self._inbox.get_nowait()
        return True

    def _take(self, message: Message) -> bool:
        match message:
            case Signalled(signum):
                return self._interrupt(signum)
            case LinkChanged(connected, reason):
                if reason:
                    self._listener.warn(f"broker: {reason}" if connected else f"no broker: {reason}")
            case Reported(job_id, payload):
                if job_id in self._jobs:
                    self._guarded(lambda: self._jobs[job_id].heard(payload))
            case Finished(job_id):
                if job_id in self._jobs:
                    self._jobs[job_id].finished(message)
        return True

    def _interrupt(self, signum: int) -> bool:
        if self.signum is not None:
            return False
        self.signum = signum
        for owned in self._jobs.values():
            owned.say(Kind.INTERRUPTED, f"by {signal.Signals(signum).name}")
        return True

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step of a job; when the disk is full, say so once and try again until it is not."""
        try:
            step()
        except StorageFullError as error:
            if not self._was_full:
                self._listener.warn(f"{error.message}; trying again")
            self._was_full = True
        else:
            self._was_full = False

    def _let_go(self) -> None:
        for job_id, owned in list(self._jobs.items()):
            if owned.settled:
                self._release(owned)
                del self._jobs[job_id]

    def _release(self, owned: OwnedJob) -> None:
        with contextlib.suppress(DelegateJobError):
            self._registry.give_up_ownership(owned.job.id, epoch=owned.epoch)
        self._wire.announce_owner(owned.job.id, present=False, epoch=owned.epoch)
        os.close(owned.lock)

    def _shut_down(self) -> None:
        for owned in self._jobs.values():
            self._release(owned)
        self._wire.stop()


@contextlib.contextmanager
def hearing_signals() -> Iterator["queue.SimpleQueue[Message]"]:
    """Yield an inbox into which this process's signals come, from before a job is made until it has ended.

    They keep going there afterwards, while the process ends: one that comes too late must not change the
    exit code of a job that is done. Only an exception restores what was.
    """
    # SimpleQueue: a signal handler may put into it while the loop gets from it.
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def put(signum: int, _frame: FrameType | None) -> None:
        inbox.put(Signalled(signum))

    before = {signum: signal.signal(signum, put) for signum in SIGNALS}
    try:
        yield inbox
    except BaseException:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        raise


def own_lock(registry: Registry, job_id: str, *, wait: float = 0.5) -> int | None:
    """Take the lock of a job, and with it the job; None when another process has it."""
    return locks.acquire(registry.paths.job(job_id).lock, wait=wait)
