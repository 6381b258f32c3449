"""A raw MQTT 3.1.1 client for tests: it sends what it is told, right or wrong, and hides nothing."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Self

from delegate_job_broker.packets import PacketBuffer, encode_header

PATIENCE = 20.0


@dataclass(frozen=True)
class Received:
    """A PUBLISH as it came: `qos`, `retain` and `dup` are those of the wire."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int


@dataclass(frozen=True)
class Will:
    """A last will."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


def string(text: str | bytes) -> bytes:
    """Encode an MQTT string, or any bytes in its place."""
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    """Build a packet."""
    return encode_header(first, len(body)) + body


def connect_packet(
    client_id: str = "",
    user: str | None = None,
    token: str | None = None,
    *,
    will: Will | None = None,
    keepalive: int = 0,
    clean: bool = True,
) -> bytes:
    """Build a CONNECT."""
    flags = 2 * clean | 0x80 * (user is not None) | 0x40 * (token is not None)
    if will:
        flags |= 4 | will.qos << 3 | 0x20 * will.retain
    body = b"\x00\x04MQTT\x04" + bytes((flags,)) + keepalive.to_bytes(2, "big") + string(client_id)
    if will:
        body += string(will.topic) + string(will.payload)
    for text in (user, token):
        body += string(text) if text is not None else b""
    return packet(0x10, body)


def publish_packet(
    topic: str | bytes, payload: bytes, *, qos: int = 0, retain: bool = False, packet_id: int = 1
) -> bytes:
    """Build a PUBLISH."""
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1 | retain, string(topic) + identifier + payload)


def subscribe_packet(packet_id: int, *wanted: tuple[str | bytes, int]) -> bytes:
    """Build a SUBSCRIBE."""
    body = b"".join(string(topic_filter) + bytes((qos,)) for topic_filter, qos in wanted)
    return packet(0x82, packet_id.to_bytes(2, "big") + body)


class Client:
    """One connection. Every wait ends; a closed connection is `closed`, not an exception."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self.messages: list[Received] = []
        self.acknowledged: list[int] = []
        self.acknowledge = True
        self._packets = PacketBuffer(1 << 28)
        self._others: list[tuple[int, bytes]] = []
        self._next_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    # ------------------------------------------------------------------ out
    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def connect(
        self,
        user: str | None = "owner",
        token: str | None = "owner-token",  # noqa: S107 - of a broker that lives for one test
        *,
        client_id: str = "",
        will: Will | None = None,
        keepalive: int = 0,
        clean: bool = True,
    ) -> bytes | None:
        """Send CONNECT; give the CONNACK body (session present, return code), `None` when closed."""
        self.send(connect_packet(client_id, user, token, will=will, keepalive=keepalive, clean=clean))
        return self.answer(0x20)

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, patience: float = PATIENCE
    ) -> bool:
        """Publish; at QoS 1 tell whether it was acknowledged."""
        packet_id = self.next_id()
        self.send(publish_packet(topic, payload, qos=qos, retain=retain, packet_id=packet_id))
        return not qos or self.until(lambda: packet_id in self.acknowledged, patience)

    def subscribe(self, *wanted: tuple[str, int]) -> list[int] | None:
        """Subscribe; give the return codes, `None` when closed."""
        self.send(subscribe_packet(self.next_id(), *wanted))
        answer = self.answer(0x90)
        return None if answer is None else list(answer[2:])

    def unsubscribe(self, *filters: str) -> bool:
        """Unsubscribe; tell whether it was acknowledged."""
        body = self.next_id().to_bytes(2, "big") + b"".join(map(string, filters))
        self.send(packet(0xA2, body))
        return self.answer(0xB0) is not None

    def ping(self) -> bool:
        """Tell whether the broker answers; everything it sent before has then arrived."""
        self.send(b"\xc0\x00")
        return self.answer(0xD0) is not None

    def leave(self) -> None:
        """Send DISCONNECT and close."""
        self.send(b"\xe0\x00")
        self.socket.close()

    def drop(self) -> None:
        """Vanish without a word."""
        self.socket.close()

    def next_id(self) -> int:
        """Give a packet identifier."""
        self._next_id = self._next_id % 65535 + 1
        return self._next_id

    # ------------------------------------------------------------------- in
    def answer(self, kind: int, patience: float = PATIENCE) -> bytes | None:
        """Wait for a packet of that kind (high four bits); give its body, `None` when there is none."""
        found: list[bytes] = []

        def look() -> bool:
            for index, (first, body) in enumerate(self._others):
                if first & 0xF0 == kind:
                    del self._others[index]
                    found.append(body)
                    return True
            return False

        return found[0] if self.until(look, patience) else None

    def until(self, condition: object, patience: float = PATIENCE) -> bool:
        """Read until `condition()` holds; False when the time is up or the connection closed."""
        assert callable(condition)
        end = time.monotonic() + patience
        while not condition():
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                return bool(condition())
        return True

    def wait_for(self, count: int, patience: float = PATIENCE) -> list[Received]:
        """Read until `count` messages have come; give all there are."""
        self.until(lambda: len(self.messages) >= count, patience)
        return self.messages

    def wait_closed(self, patience: float = PATIENCE) -> bool:
        """Tell whether the broker closes the connection."""
        self.until(lambda: self.closed, patience)
        return self.closed

    def quiet_for(self, seconds: float) -> None:
        """Read whatever comes in that time."""
        self.until(lambda: False, seconds)

    def _read(self, patience: float) -> bool:
        if self.closed:
            return False
        self.socket.settimeout(max(patience, 0.001))
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return True
        except OSError:
            data = b""
        finally:
            if self.socket.fileno() != -1:
                self.socket.settimeout(PATIENCE)
        if not data:
            self.closed = True
            return False
        self._packets.feed(data)
        while (found := self._packets.next()) is not None:
            self._take(*found)
        return True

    def _take(self, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == 0x30:
            self._take_message(first, body)
        elif kind == 0x40:
            self.acknowledged.append(int.from_bytes(body, "big"))
        else:
            self._others.append((first, body))

    def _take_message(self, first: int, body: bytes) -> None:
        qos = first >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        start = end + (2 if qos else 0)
        packet_id = int.from_bytes(body[end:start], "big")
        topic = body[2:end].decode()
        self.messages.append(Received(topic, body[start:], qos, bool(first & 1), bool(first & 8), packet_id))
        if qos == 1 and self.acknowledge:
            self.send(packet(0x40, packet_id.to_bytes(2, "big")))
