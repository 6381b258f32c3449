"""MQTT 3.1.1 bytes to values and back, without input or output: what is not right raises `Malformed`.

Stands for the codecs of amqtt 0.12.1, which take invalid UTF-8 for text, check no flags and await each field.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

PUBLISH = 0x30
PUBACK = 0x40
PUBREC = 0x50
PUBREL = 0x62
PUBCOMP = 0x70
SUBSCRIBE = 0x82
SUBACK = 0x90
UNSUBSCRIBE = 0xA2
UNSUBACK = 0xB0
PINGREQ = 0xC0
PINGRESP = b"\xd0\x00"
DISCONNECT = 0xE0
CONNECT = 0x10

ACCEPTED = b"\x20\x02\x00\x00"
REFUSED_PROTOCOL = b"\x20\x02\x00\x01"
REFUSED_IDENTIFIER = b"\x20\x02\x00\x02"
REFUSED_UNAVAILABLE = b"\x20\x02\x00\x03"
REFUSED_NOT_AUTHORIZED = b"\x20\x02\x00\x05"
# MQTT 5 §3.2: reason code 0x84 "Unsupported Protocol Version", no properties.
REFUSED_MQTT5 = b"\x20\x03\x00\x84\x00"
_MQTT5 = b"\x00\x04MQTT\x05"
_MQTT311 = b"\x00\x04MQTT\x04"

# Protocol name and level, flags, keep alive (§3.1.2).
_CONNECT_HEADER = 10
_MINIMUM = 2
_LENGTH_BYTES = 4


class Malformed(Exception):  # noqa: N818 - the standard's word; it never leaves the package
    """A client broke the protocol; its connection ends [MQTT-4.8.0-1]."""


class PacketBuffer:
    """Cuts a byte stream into packets. `limit` is the longest body taken, in bytes, and may be changed."""

    __slots__ = ("_data", "_needed", "_position", "_tail", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data = b""
        self._position = 0
        self._tail = bytearray()
        self._needed = _MINIMUM

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the network."""
        if self._position == len(self._data) and not self._tail:
            self._data, self._position = data, 0
        else:
            # Joined only when a packet is complete: a large one in tiny pieces would be copied each time.
            self._tail += data

    def next(self) -> tuple[int, bytes] | None:
        """Give the next whole packet as (first byte, body), or `None`; raise `Malformed`."""
        if self._tail and not self._join():
            return None
        data, position = self._data, self._position
        available = len(data) - position
        if available < _MINIMUM:
            self._needed = _MINIMUM
            return None
        length = data[position + 1]
        start = position + 2
        if length > 0x7F:
            decoded = self._long_length(position)
            if decoded is None:
                self._needed = available + 1
                return None
            length, start = decoded
        if length > self.limit:
            raise Malformed(f"a packet of {length} bytes")
        end = start + length
        if end > len(data):
            self._needed = end - position
            return None
        self._position = end
        self._needed = _MINIMUM
        return data[position], data[start:end]

    def _join(self) -> bool:
        if len(self._data) - self._position + len(self._tail) < self._needed:
            return False
        self._data = self._data[self._position :] + bytes(self._tail)
        self._position = 0
        self._tail = bytearray()
        return True

    def _long_length(self, position: int) -> tuple[int, int] | None:
        length = 0
        for index in range(_LENGTH_BYTES):
            at = position + 1 + index
            if at >= len(self._data):
                return None
            byte = self._data[at]
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return length, at + 1
        raise Malformed("a remaining length of more than four bytes")


class Message:
    """One application message, kept once however many clients it goes to. `qos` is 0 or 1."""

    __slots__ = ("payload", "qos", "size", "topic", "topic_field", "user")

    def __init__(self, topic: str, payload: bytes, qos: int, user: str | None = None) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.user = user
        encoded = topic.encode()
        self.topic_field = len(encoded).to_bytes(2, "big") + encoded
        self.size = len(encoded) + len(payload)

    def encode(self, qos: int, packet_id: int, *, retain: bool) -> bytes:
        """Give the PUBLISH packet; `packet_id` counts for QoS 1 only."""
        body = self.topic_field + packet_id.to_bytes(2, "big") if qos else self.topic_field
        first = PUBLISH | qos << 1 | retain
        return b"".join((encode_header(first, len(body) + len(self.payload)), body, self.payload))


def encode_header(first: int, length: int) -> bytes:
    """Give a fixed header: `first` byte and the remaining length (§2.2.3)."""
    if length < 0x80:
        return bytes((first, length))
    out = [first]
    while length:
        length, low = length >> 7, length & 0x7F
        out.append(low | 0x80 if length else low)
    return bytes(out)


def acknowledge(first: int, packet_id: int) -> bytes:
    """Give a PUBACK, PUBREC, PUBCOMP or UNSUBACK."""
    return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))


def suback(packet_id: int, codes: list[int]) -> bytes:
    """Give a SUBACK with one return code a filter."""
    return encode_header(SUBACK, 2 + len(codes)) + packet_id.to_bytes(2, "big") + bytes(codes)


def read_packet_id(body: bytes) -> int:
    """Read the identifier at the start of `body`; it is never 0 [MQTT-2.3.1-1]."""
    packet_id = int.from_bytes(body[:2], "big")
    if len(body) < 2 or not packet_id:
        raise Malformed("no packet identifier")
    return packet_id


def read_string(body: bytes, position: int) -> tuple[str, int]:
    """Read a UTF-8 string at `position`; give it and the position behind it."""
    raw, end = read_bytes(body, position)
    return decode(raw), end


def read_bytes(body: bytes, position: int) -> tuple[bytes, int]:
    """Read bytes with their length before them at `position`; give them and the position behind them."""
    start = position + 2
    end = start + int.from_bytes(body[position:start], "big")
    if start > len(body) or end > len(body):
        raise Malformed("a field ends behind its packet")
    return body[start:end], end


def decode(raw: bytes) -> str:
    """Decode strict UTF-8 [MQTT-1.5.3-1]."""
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise Malformed("not UTF-8") from exc


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT of MQTT 3.1.1; `keep_alive` in seconds, 0 for none."""

    client_id: str
    clean: bool
    keep_alive: int
    user: str | None
    token: str | None = field(repr=False)
    will: Message | None = None
    will_retain: bool = False


def read_connect(body: bytes) -> Connect:
    """Read a CONNECT body whose version was found right (see `refusal_of_version`)."""
    if len(body) < _CONNECT_HEADER:
        raise Malformed("a CONNECT without flags")
    flags = body[7]
    named, secret = bool(flags & 0x80), bool(flags & 0x40)
    # [MQTT-3.1.2-3], [MQTT-3.1.2-22]
    if flags & 1 or (secret and not named):
        raise Malformed("CONNECT flags")
    client_id, position = read_string(body, _CONNECT_HEADER)
    will, position = _read_will(body, position, flags)
    user, position = read_string(body, position) if named else (None, position)
    token, position = _read_token(body, position) if secret else (None, position)
    if position != len(body):
        raise Malformed("bytes behind a CONNECT")
    will = will and Message(will.topic, will.payload, will.qos, user)
    keep_alive = int.from_bytes(body[8:10], "big")
    return Connect(client_id, bool(flags & 2), keep_alive, user, token, will, bool(flags & 0x20))


def _read_will(body: bytes, position: int, flags: int) -> tuple[Message | None, int]:
    qos = flags >> 3 & 3
    if not flags & 4:
        if qos or flags & 0x20:  # [MQTT-3.1.2-11]
            raise Malformed("will flags without a will")
        return None, position
    if qos == 3:
        raise Malformed("a will of QoS 3")
    topic, position = read_string(body, position)
    payload, position = read_bytes(body, position)
    return Message(topic, payload, min(qos, 1)), position


def _read_token(body: bytes, position: int) -> tuple[str, int]:
    # A password is any bytes (§3.1.3.5); one that is no text is simply a wrong one.
    raw, position = read_bytes(body, position)
    return raw.decode(errors="replace"), position


def read_subscribe(body: bytes) -> Iterator[tuple[str, int]]:
    """Give the (filter, requested QoS) pairs of a SUBSCRIBE body; at least one [MQTT-3.8.3-3]."""
    position = 2
    while position < len(body) or position == 2:
        topic_filter, position = read_string(body, position)
        if position >= len(body) or body[position] > 2:
            raise Malformed("a subscription without a QoS of 0, 1 or 2")
        yield topic_filter, body[position]
        position += 1


def read_unsubscribe(body: bytes) -> Iterator[str]:
    """Give the filters of an UNSUBSCRIBE body; at least one [MQTT-3.10.3-2]."""
    position = 2
    while position < len(body) or position == 2:
        topic_filter, position = read_string(body, position)
        yield topic_filter


def refusal_of_version(connect: bytes) -> bytes | None:
    """Give the CONNACK that refuses a CONNECT body of another MQTT version, `None` for 3.1.1."""
    if connect.startswith(_MQTT311):
        return None
    return REFUSED_MQTT5 if connect.startswith(_MQTT5) else REFUSED_PROTOCOL
