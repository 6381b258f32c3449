"""amqtt's broker, mended where it loses or leaks messages; threads and sockets are made elsewhere.

Each override names the faults of amqtt 0.12.1 it stands for (B1-B8, S1-S13; docs/broker.md lists them).
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from amqtt.broker import Broker, Server
from amqtt.errors import AMQTTError
from typing_extensions import override

from . import packets
from .adapters import ChunkReader, ClosingWriter
from .admission import Refused, judge, read_connect, session_of
from .connection import Connection
from .listeners import BACKLOG, is_unix
from .packets import Malformed, Message, PacketBuffer
from .router import Router

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from amqtt.adapters import ReaderAdapter, WriterAdapter
    from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
    from amqtt.session import Session

    from .access import AccessList
    from .limits import Limits

# For connections that end and listeners that close; then the broker stops without them.
_CLOSE_SECONDS = 0.25
_Part = TypeVar("_Part")


class Listener(Server):
    """A server that does not wait for its connections. Mends B8: `wait_closed` may never return on 3.12+."""

    @override
    async def close_instance(self) -> None:
        """Close the listening socket."""
        self.instance.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.instance.wait_closed(), _CLOSE_SECONDS)


class MendedBroker(Broker):
    """Serves `sockets` (bound and listening), for the users of `access`, within `limits`.

    No listener and no plugin: amqtt's defaults would listen on 0.0.0.0:1883, let anonymous clients in and log
    each packet. A persistent session that is asked for is served as a clean one, and CONNACK says so (session
    present 0), which also ends S9.
    """

    def __init__(self, sockets: Sequence[socket.socket], access: AccessList, limits: Limits) -> None:
        super().__init__({"listeners": {"default": {"bind": None}}, "plugins": {}})
        self.router = Router(access, limits)
        self.faults: list[BaseException] = []
        self._sockets = sockets
        self._open: dict[asyncio.Task[Any], ClosingWriter] = {}
        self._transports: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()
        self._pending: dict[ClosingWriter, None] = {}
        self._closing = False

    # -------------------------------------------------------------- listeners
    @override
    async def _start_listeners(self) -> None:
        """Serve the given sockets; S13: amqtt's own listen with a backlog of 100."""
        for number, listening in enumerate(self._sockets):
            name = f"listener-{number}"
            serve: Any = asyncio.start_unix_server if is_unix(listening) else asyncio.start_server
            connected = partial(self.stream_connected, listener_name=name)
            self._servers[name] = Listener(name, await serve(connected, sock=listening, backlog=BACKLOG))

    @override
    async def _session_monitor(self) -> None:
        """Do nothing: sessions end with their connection (S7) and need not be looked for each second."""

    # ------------------------------------------------------------ connections
    @override
    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one accepted connection to its end."""
        self._transports.add(writer.transport)
        packet_buffer = PacketBuffer(self.router.limits.connect_bytes)
        await self._client_connected(listener_name, ChunkReader(reader, packet_buffer), ClosingWriter(writer))

    @override
    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        """Close the connection in every case (S8, B8) and keep faults of ours off stderr."""
        task, closing = asyncio.current_task(), _own(writer, ClosingWriter)
        if self._closing or task is None:
            closing.abort()
            return
        self._open[task] = closing
        try:
            await super()._client_connected(listener_name, reader, writer)
        except Exception as exc:  # noqa: BLE001 - one client must never end the broker; `faults` keeps it
            self.faults.append(exc)
        finally:
            closing.close_soon()
            del self._open[task]

    @override
    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        """Accept or refuse before anything else happens (B6, S7), within a time (S8)."""
        closing = _own(writer, ClosingWriter)
        timer = self._loop.call_later(self.router.limits.connect_seconds, closing.abort)
        self._make_room_for(closing)
        try:
            return await self._admit(_own(reader, ChunkReader), closing)
        except Refused as refusal:
            writer.write(refusal.connack)
            raise
        except Malformed as exc:
            raise AMQTTError(str(exc)) from exc
        finally:
            timer.cancel()
            self._pending.pop(closing, None)

    def _make_room_for(self, writer: ClosingWriter) -> None:
        if len(self._pending) >= self.router.limits.pending:
            oldest = next(iter(self._pending))
            oldest.abort()
            del self._pending[oldest]
        self._pending[writer] = None

    async def _admit(self, reader: ChunkReader, writer: ClosingWriter) -> tuple[Connection, Session]:
        connect = await read_connect(reader)
        limits = self.router.limits
        grant = judge(connect, self.router.access, limits)
        session = session_of(connect)
        old = self._client(session.client_id)
        if old and old.user != connect.user:
            raise Refused(packets.REFUSED_IDENTIFIER)
        if not old and len(self._sessions) >= limits.connections:
            raise Refused(packets.REFUSED_UNAVAILABLE)
        if old:
            old.cut()  # S2 [MQTT-3.1.4-2]
        reader.packets.limit = limits.packet_bytes
        connection = Connection(self.plugins_manager, loop=self._loop)
        connection.attach(session, reader, writer)
        connection.open(self.router, grant, connect, writer)
        self._sessions[session.client_id or ""] = (session, connection)
        return connection, session

    def _client(self, client_id: str | None) -> Connection | None:
        handler = self._sessions.get(client_id or "", (None, None))[1]
        return handler if isinstance(handler, Connection) else None

    @override
    async def _handle_client_session(
        self,
        reader: ReaderAdapter,
        writer: WriterAdapter,
        client_session: Session,
        handler: BrokerProtocolHandler,
        server: Server,
        listener_name: str,
    ) -> None:
        """Serve an accepted client; B1, B2: amqtt sends it what others asked for, and dies of it."""
        connection = _own(handler, Connection)
        writer.write(packets.ACCEPTED)
        if client_session.keep_alive:
            connection.watch_silence(client_session.keep_alive * self.router.limits.keepalive_factor)
        try:
            await self._client_message_loop(client_session, connection)
        finally:
            connection.outbox.flush()
            connection.end(will=not self._closing)
            # Not when another connection has taken the client id over.
            if self._client(client_session.client_id) is connection:
                del self._sessions[client_session.client_id or ""]

    @override
    async def _client_message_loop(self, client_session: Session, handler: BrokerProtocolHandler) -> None:
        """Take each packet whole and in order (B3), until the client leaves or must leave (S6)."""
        connection = _own(handler, Connection)
        reader = _own(handler.reader, ChunkReader)
        with contextlib.suppress(Malformed):
            while not connection.done:
                while (packet := reader.packets.next()) and not connection.done:
                    connection.receive(*packet)
                if seconds := connection.pause():
                    # The rate limit itself: meanwhile nothing is read, and TCP holds the client up.
                    await asyncio.sleep(seconds)
                data = b"" if connection.done else await reader.chunk()
                if not data:
                    return
                reader.packets.feed(data)

    def cut_revoked(self) -> None:
        """Cut every client whose rights are not the ones it was accepted with."""
        for _, handler in list(self._sessions.values()):
            connection = _own(handler, Connection)
            if not connection.holds_grant():
                connection.cut()

    def descriptors(self) -> list[int]:
        """Give the descriptors of all open connections."""
        streams = [writer.stream for writer in self._open.values()]
        return [stream.get_extra_info("socket").fileno() for stream in streams]

    # ------------------------------------------------------------------ stop
    @override
    async def shutdown(self) -> None:
        """Stop within a bound, whatever the clients do (B8). No wills: no client has vanished."""
        self._closing = True
        # Not by closing them: a connection that was accepted a moment ago would stay open for ever, because
        # asyncio (3.11-3.13) attaches it to its server in a later step, and asserts that the server is open.
        for listening in self._sockets:
            self._loop.remove_reader(listening)
        await _turns()
        for _, handler in self._sessions.values():
            _own(handler, Connection).outbox.finish()
        for task, writer in self._open.items():
            writer.close_soon()
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open), timeout=_CLOSE_SECONDS)
        await self._let_out()
        await super().shutdown()
        await _turns()

    async def _let_out(self) -> None:
        """Give the last packets a moment to leave, then drop what a client does not read."""
        until = self._loop.time() + _CLOSE_SECONDS
        for transport in list(self._transports):
            while transport.get_write_buffer_size() and self._loop.time() < until:  # noqa: ASYNC110 - closing, it tells nobody when it is done
                await asyncio.sleep(0.01)
            transport.abort()

    # -------------------------------------------------------------- messages
    @override
    async def _broadcast_message(
        self,
        session: Session | None,
        topic: str | None,
        data: bytes | bytearray | None,
        force_qos: int | None = None,
    ) -> None:
        """Deliver what a plugin of amqtt broadcasts, at once (B4, B5)."""
        if topic:
            message = Message(topic, bytes(data or b""), min(force_qos or 0, 1))
            self.router.publish(message, retain=False, unlimited=True)


async def _turns() -> None:
    """Let the loop finish what it has begun: asyncio accepts in three steps and closes in two."""
    for _ in range(4):
        await asyncio.sleep(0)


def _own(part: object, kind: type[_Part]) -> _Part:
    """Give what amqtt has typed as its own as what it is: `stream_connected` and `read_connect` made it."""
    assert isinstance(part, kind)  # noqa: S101 - for the type checker
    return part
