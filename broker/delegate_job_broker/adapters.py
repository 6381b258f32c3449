"""amqtt's stream adapters with what it needs to end a connection for certain; no protocol here."""

import asyncio

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from typing_extensions import override

from .packets import PacketBuffer

_CHUNK = 64 << 10
# For the last packet, a refusal for instance, to leave before the connection is cut.
_LINGER_SECONDS = 2.0


class ChunkReader(StreamReaderAdapter):
    """Reads what is there instead of one field at a time: amqtt 0.12.1 awaits five times a packet."""

    def __init__(self, reader: asyncio.StreamReader, packets: PacketBuffer) -> None:
        super().__init__(reader)
        self.packets = packets

    async def chunk(self) -> bytes:
        """Give up to 64 KiB; empty at the end of the stream or after a reset."""
        try:
            return await self._reader.read(_CHUNK)
        except ConnectionError:
            return b""


class ClosingWriter(StreamWriterAdapter):
    """Closes at once and for certain.

    Mends B8 and S8 of amqtt 0.12.1 (adapters.py 192): there `close` awaits a peer that may never read, and
    `write_eof` raises after a reset, which leaves the transport open and its server waiting (3.12+) for ever.
    """

    @property
    def stream(self) -> asyncio.StreamWriter:
        """The writer below."""
        return self._writer

    @override
    def get_peer_info(self) -> tuple[str, int]:
        """Give the peer's address; a Unix socket has none, where amqtt would turn the client away."""
        return super().get_peer_info() or ("unix", 0)

    def abort(self) -> None:
        """Drop the connection now, with everything unsent."""
        self.is_closed = True
        self._writer.transport.abort()

    @override
    async def close(self) -> None:
        """Close; what is unsent has a moment to leave."""
        self.close_soon()

    def close_soon(self) -> None:
        """Close without awaiting."""
        if self.is_closed:
            return
        self.is_closed = True
        transport = self._writer.transport
        transport.close()
        # A peer that does not read would keep the transport open for ever.
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)
