"""What goes out to one client, in order and within bounds; it decides nothing about who gets what.

Stands for `ProtocolHandler.mqtt_publish` of amqtt 0.12.1, which runs one task a message (S11), drops what is
not acknowledged within 5 s (S3), stalls its client meanwhile (S5) and ends at 65,535 messages (S4).
"""

import asyncio
from collections import deque
from collections.abc import Callable

from .limits import Limits
from .packets import Message

# One write: enough to be cheap, little enough that other clients get their turn.
_BATCH_BYTES = 64 << 10
# Of bookkeeping for a queued message, about.
_ENTRY_BYTES = 100
_PACKET_IDS = 65_535


class Outbox:
    """The queue of one client. Nothing here blocks; `overflow` is called, once, when it reads too little."""

    __slots__ = (
        "_closed",
        "_control",
        "_inflight",
        "_limits",
        "_loop",
        "_next_id",
        "_overflow",
        "_queue",
        "_queued",
        "_resuming",
        "_scheduled",
        "_writer",
    )

    def __init__(self, writer: asyncio.StreamWriter, limits: Limits, overflow: Callable[[], None]) -> None:
        self._writer = writer
        self._limits = limits
        self._overflow = overflow
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Message, int, bool]] = deque()
        self._queued = 0
        self._control: list[bytes] = []
        self._inflight: set[int] = set()
        self._next_id = 0
        self._scheduled = False
        self._closed = False
        self._resuming: asyncio.Task[None] | None = None

    def post(self, message: Message, qos: int, *, retain: bool) -> None:
        """Queue a message for this client at `qos` 0 or 1."""
        if self._closed:
            return
        self._queue.append((message, qos, retain))
        # A retained message is kept in the store anyway and bounded there: only its place in line is new.
        self._queued += _ENTRY_BYTES if retain else _ENTRY_BYTES + message.size
        if self._queued > self._limits.unsent_bytes:
            self._overrun()
        elif not self._scheduled:
            self._schedule()

    def control(self, packet: bytes) -> None:
        """Queue an acknowledgement or answer: it does not wait behind messages."""
        self._control.append(packet)
        if not self._scheduled:
            self._schedule()

    def acknowledged(self, packet_id: int) -> None:
        """Take a PUBACK; an unknown identifier is ignored."""
        self._inflight.discard(packet_id)
        if self._queue and not self._scheduled:
            self._schedule()

    def close(self) -> None:
        """Forget what was not sent and take nothing more."""
        self._closed = True
        self._queue.clear()
        self._control.clear()
        if self._resuming:
            self._resuming.cancel()

    def flush(self) -> None:
        """Hand everything that may go out now to the transport, control packets first."""
        self._scheduled = False
        # Writing to a transport that was reset makes asyncio log a warning.
        if self._closed or self._writer.transport.is_closing():
            self.close()
            return
        chunks, self._control = self._control, []
        if self._resuming is None:
            self._take_messages(chunks)
        if chunks:
            self._writer.write(b"".join(chunks))
        unsent = self._writer.transport.get_write_buffer_size()
        if unsent + self._queued > self._limits.unsent_bytes:
            self._overrun()
        elif unsent > _BATCH_BYTES and self._queue and self._resuming is None:
            self._resuming = self._loop.create_task(self._resume())
        elif self._queue and self._resuming is None and self._may_send():
            self._schedule()

    def finish(self) -> None:
        """Hand over everything that the window allows, for the last time, and take nothing more."""
        if not self._closed and not self._writer.transport.is_closing():
            chunks, self._control = self._control, []
            while self._queue and self._may_send():
                self._take_messages(chunks)
            self._writer.write(b"".join(chunks))
        self.close()

    def _overrun(self) -> None:
        self.close()
        self._overflow()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.flush)

    def _may_send(self) -> bool:
        return not self._queue[0][1] or len(self._inflight) < self._limits.inflight

    def _take_messages(self, chunks: list[bytes]) -> None:
        size = 0
        while self._queue and size < _BATCH_BYTES and self._may_send():
            message, qos, retain = self._queue.popleft()
            self._queued -= _ENTRY_BYTES if retain else _ENTRY_BYTES + message.size
            chunks.append(message.encode(qos, self._new_id() if qos else 0, retain=retain))
            size += len(chunks[-1])

    def _new_id(self) -> int:
        # Ends: at most `inflight` of 65,535 identifiers are taken.
        while True:
            self._next_id = self._next_id % _PACKET_IDS + 1
            if self._next_id not in self._inflight:
                self._inflight.add(self._next_id)
                return self._next_id

    async def _resume(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # the connection's own task sees the end too
        self._resuming = None
        self.flush()
