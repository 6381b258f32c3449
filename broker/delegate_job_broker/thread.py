"""The broker in a thread of its host, with its own event loop; it knows sockets and access, no MQTT."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import BrokerError
from .limits import Limits
from .listeners import is_unix, remove_unix_socket
from .version import check_amqtt_version

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .access import AccessList
    from .broker import MendedBroker

_LOGGERS = ("amqtt", "transitions", "websockets")


class BrokerThread:
    """One broker, from `start` to `stop`; it can't be started again (make another on a new socket).

    Takes over `sockets` (see `listen_on_loopback`, `listen_on_unix`): they are closed, and socket files
    removed, when the broker ends or does not start. Nothing is written to stderr: exceptions that nobody
    foresaw are counted in `faults`.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], access: AccessList, limits: Limits | None = None
    ) -> None:
        if not sockets:
            raise BrokerError("a broker needs a socket to listen on")
        self._sockets = tuple(sockets)
        self._access = access
        self._limits = limits or Limits()
        self._pid = os.getpid()
        self._served = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker: MendedBroker | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_wanted = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mqtt-broker", daemon=True)
        self._started = False
        self.port = next((s.getsockname()[1] for s in self._sockets if not is_unix(s)), None)
        self.unix_path: str | None = next((s.getsockname() for s in self._sockets if is_unix(s)), None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def faults(self) -> int:
        """How many connections ended by an exception nobody foresaw; 0 in a right broker."""
        return len(self._broker.faults) if self._broker else 0

    @property
    def alive(self) -> bool:
        """Tell whether the broker's thread runs, in this process."""
        return self._thread.is_alive() and os.getpid() == self._pid

    def start(self, timeout: float = 10.0, *, wait: bool = True) -> None:
        """Start serving; with `wait`, return when it does. `BrokerError` when it can't.

        Without `wait` only the version of amqtt is checked here: `ready` tells the rest.
        """
        try:
            check_amqtt_version()
        except BrokerError:
            self._close_sockets()
            raise
        with self._lock:
            if self._started or self._stop_wanted:
                raise BrokerError("the broker was started already, or stopped")
            self._started = True
        _living.add(self)
        self._thread.start()
        if wait:
            self.ready(timeout)

    def ready(self, timeout: float = 10.0) -> None:
        """Return when the broker serves; `BrokerError` when it can't, or not within `timeout` seconds."""
        if not self._served.wait(timeout):
            raise BrokerError(f"the broker did not start within {timeout:g} s")
        if self._error is not None:
            raise BrokerError(f"the broker could not start: {self._error}") from self._error

    def stop(self, timeout: float = 1.0) -> bool:
        """Stop; tell whether the thread ended within `timeout` seconds. Safe from any thread, and again."""
        if os.getpid() != self._pid:
            return True
        with self._lock:
            self._stop_wanted = True
            loop, stopping = self._loop, self._stopping
        if not self._started:
            self._close_sockets()
            return True
        if loop and stopping and not loop.is_closed():
            with suppress(RuntimeError):  # closed since we looked: that is what was wanted
                loop.call_soon_threadsafe(stopping.set)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------- broker thread
    def _run(self) -> None:
        try:
            import asyncio

            silence_loggers()
            # debug=False: PYTHONASYNCIODEBUG in the host's environment would log each slow step.
            with asyncio.Runner(debug=False) as runner:
                runner.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - a thread has nobody to raise to: `ready` tells it
            self._error = exc
        finally:
            self._close_sockets()
            self._served.set()
            _living.discard(self)

    async def _serve(self) -> None:
        import asyncio

        from .broker import MendedBroker

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note_fault)
        broker = MendedBroker(self._sockets, self._access, self._limits)
        stopping = asyncio.Event()
        await broker.start()

        def changed() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile: nobody is left to be cut
                loop.call_soon_threadsafe(broker.cut_revoked)

        self._access.watch(changed)
        with self._lock:
            self._loop, self._broker, self._stopping = loop, broker, stopping
            if self._stop_wanted:
                stopping.set()
        self._served.set()
        try:
            await stopping.wait()
        finally:
            self._access.unwatch(changed)
            await broker.shutdown()

    def _note_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        exc = context.get("exception")
        if self._broker and isinstance(exc, Exception) and not isinstance(exc, OSError):
            self._broker.faults.append(exc)

    # --------------------------------------------------------------- sockets
    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        if self.unix_path:
            remove_unix_socket(self.unix_path)

    def _abandon(self) -> None:
        """Let go, in a forked child, of what belongs to the parent.

        The numbers stay taken (by /dev/null), because the objects that hold them will close them some day.
        asyncio is not asked to: it would take them out of the event queue, which the child shares.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        numbers = [listening.fileno() for listening in self._sockets]
        if self._broker:
            numbers += self._broker.descriptors()
        for number in numbers:
            if number >= 0:
                os.dup2(null, number, inheritable=False)
        os.close(null)


def silence_loggers() -> None:
    """Keep amqtt's warnings off the host's stderr, where `logging` would send them by default."""
    import logging

    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False


# Brokers whose descriptors a fork would copy. A port can't be bound again while a child keeps its copy.
_living: weakref.WeakSet[BrokerThread] = weakref.WeakSet()


def _abandon_all() -> None:
    for broker in list(_living):
        broker._abandon()  # noqa: SLF001 - a part of the class that has to be a function
    _living.clear()


os.register_at_fork(after_in_child=_abandon_all)
