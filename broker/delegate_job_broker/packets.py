"""MQTT 3.1.1 bytes to values and back, without input or output; CONNECT stays with amqtt's own codec."""

from collections.abc import Iterator

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
    start = position + 2
    end = start + int.from_bytes(body[position:start], "big")
    if start > len(body) or end > len(body):
        raise Malformed("a string ends behind its packet")
    return decode(body[start:end]), end


def decode(raw: bytes) -> str:
    """Decode strict UTF-8 [MQTT-1.5.3-1]."""
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise Malformed("not UTF-8") from exc


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
