"""One client after its CONNECT: takes its packets, answers them, ends; it knows no other connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from typing_extensions import override

from . import packets
from .outbox import Outbox
from .packets import Malformed, Message
from .rate import Rate
from .topics import is_filter, is_topic

if TYPE_CHECKING:
    from .access import Grant
    from .adapters import ClosingWriter
    from .packets import Connect
    from .router import Router

_REFUSED = 0x80
# Topics of one client whose check is remembered; more begin anew.
_REMEMBERED = 256


class Connection(BrokerProtocolHandler):
    """amqtt's handler with its reader and sender replaced.

    Stands for `start`, `stop`, `_reader_loop` and the `handle_*` coroutines of amqtt 0.12.1: they run one
    task a packet (order and PUBACK are lost with them, B3), never end on silence (S1) and live on after a
    wrong packet (S6).
    """

    def open(self, router: Router, grant: Grant, connect: Connect, writer: ClosingWriter) -> None:
        """Begin, once the client is accepted; before that a connection has no effect on anything (B6)."""
        self.router = router
        self.grant = grant
        self.user = connect.user or ""
        self.will, self.will_retain = connect.will, connect.will_retain
        self.ended = False
        self.graceful = False
        self.last_packet_at = self._loop.time()
        self.filters: set[str] = set()
        self.outbox = Outbox(writer.stream, router.limits, self._overflow)
        self._abort = writer.abort
        self._rate = None if grant.unlimited else Rate(router.limits, self._loop.time())
        self._topics: dict[bytes, str] = {}
        self._received: set[int] = set()
        self._watch: asyncio.TimerHandle | None = None

    @property
    def done(self) -> bool:
        """Tell whether no more packets are to be taken."""
        return self.ended or self.graceful

    @override
    async def stop(self) -> None:
        """End without a will; amqtt's own waits for tasks that this class does not have."""
        self._abort()
        self.end(will=False)

    def holds_grant(self) -> bool:
        """Tell whether the rights it was accepted with still count, as of now."""
        return self.router.access.current(self.user) is self.grant

    # ------------------------------------------------------------------ end
    def cut(self) -> None:
        """End at once, as if the client had vanished: its will is sent."""
        self._abort()
        self.end()

    def end(self, *, will: bool = True) -> None:
        """Leave no trace in the router; the second call does nothing."""
        if self.ended:
            return
        self.ended = True
        if self._watch:
            self._watch.cancel()
        self.outbox.close()
        for topic_filter in self.filters:
            self.router.subscriptions.remove(topic_filter, self)
        if will and not self.graceful:
            self._send_will()

    def _overflow(self) -> None:
        self._abort()
        # Not now: a will sent in the middle of a delivery could overflow the next client, and so on.
        self._loop.call_soon(self.end)

    def _send_will(self) -> None:
        # B7: checked at CONNECT, and again now, because the rights may have been taken meanwhile.
        if not self.will or not self.holds_grant():
            return
        try:
            self.router.publish(self.will, retain=self.will_retain, unlimited=self.grant.unlimited)
        except Malformed:
            return  # the retained store is full: nobody is left to be told

    # ------------------------------------------------------------ keep alive
    def watch_silence(self, seconds: float) -> None:
        """Cut the client when no packet has come for `seconds` (S1) [MQTT-3.1.2-24]."""
        left = self.last_packet_at + seconds - self._loop.time()
        if left <= 0:
            self.cut()
        else:
            self._watch = self._loop.call_later(left, self.watch_silence, seconds)

    def pause(self) -> float:
        """Give the seconds this client has to wait for being too fast."""
        if not self._rate:
            return 0.0
        now = self._loop.time()
        seconds = self._rate.pause(now)
        # What it is made to wait does not count as its silence.
        self.last_packet_at = max(self.last_packet_at, now + seconds) if seconds else self.last_packet_at
        return seconds

    # --------------------------------------------------------------- packets
    def receive(self, first: int, body: bytes) -> None:
        """Take one whole packet; `Malformed` when the client must be cut for it."""
        self.last_packet_at = self._loop.time()
        if first & 0xF0 == packets.PUBLISH:
            self._publish(first, body)
            return
        name = _TAKES.get(first)
        if name is None:
            raise Malformed(f"packet 0x{first:02x} from a client")
        getattr(self, name)(body)

    def _publish(self, first: int, body: bytes) -> None:
        if self._rate:
            self._rate.spend()
        qos = first >> 1 & 3
        if qos == 3:
            raise Malformed("QoS 3")
        end = 2 + int.from_bytes(body[:2], "big")
        topic = self._topics.get(body[2:end]) or self._check_topic(body, end)
        if not self.holds_grant():
            raise Malformed("no rights any more")
        retain = bool(first & 1)
        if not qos:
            self._route(topic, body[end:], 0, retain=retain)
            return
        packet_id = packets.read_packet_id(body[end : end + 2])
        # Exactly once on this connection: the identifier is known until its PUBREL (§4.3.3, method B).
        if qos == 1 or packet_id not in self._received:
            self._route(topic, body[end + 2 :], 1, retain=retain)
        if qos == 2:
            self._received.add(packet_id)
        # Only now: acknowledged means stored and queued for every live subscriber (B3).
        self.outbox.control(packets.acknowledge(packets.PUBACK if qos == 1 else packets.PUBREC, packet_id))

    def _route(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> None:
        message = Message(topic, payload, qos, self.user)
        self.router.publish(message, retain=retain, unlimited=self.grant.unlimited)

    def _check_topic(self, body: bytes, end: int) -> str:
        topic, _ = packets.read_string(body, 0)
        if not is_topic(topic, self.router.limits.topic_levels):
            raise Malformed("not a topic")
        # MQTT 3.1.1 can't answer "denied": closing is the honest one of its two ways [MQTT-3.3.5-2].
        if not self.grant.may_publish(topic):
            raise Malformed("not allowed")
        if len(self._topics) >= _REMEMBERED:
            self._topics.clear()
        self._topics[body[2:end]] = topic
        return topic

    def _puback(self, body: bytes) -> None:
        self.outbox.acknowledged(packets.read_packet_id(body))

    def _pubrel(self, body: bytes) -> None:
        packet_id = packets.read_packet_id(body)
        self._received.discard(packet_id)
        self.outbox.control(packets.acknowledge(packets.PUBCOMP, packet_id))

    def _subscribe(self, body: bytes) -> None:
        packet_id = packets.read_packet_id(body)
        wanted = list(packets.read_subscribe(body))
        codes = [self._judge(topic_filter, qos) for topic_filter, qos in wanted]
        self.outbox.control(packets.suback(packet_id, codes))
        for (topic_filter, _), code in zip(wanted, codes, strict=True):
            if code != _REFUSED:
                self.router.subscribe(self, topic_filter, code)

    def _judge(self, topic_filter: str, qos: int) -> int:
        if self._rate:
            self._rate.spend()
        limits = self.router.limits
        allowed = (
            is_filter(topic_filter, limits.topic_levels)
            and self.holds_grant()
            and self.grant.may_subscribe(topic_filter)
        )
        crowded = len(self.filters) >= limits.subscriptions and not self.grant.unlimited
        if not allowed or (crowded and topic_filter not in self.filters):
            return _REFUSED
        self.filters.add(topic_filter)
        return min(qos, 1)

    def _unsubscribe(self, body: bytes) -> None:
        packet_id = packets.read_packet_id(body)
        for topic_filter in packets.read_unsubscribe(body):
            self.filters.discard(topic_filter)
            self.router.subscriptions.remove(topic_filter, self)
        self.outbox.control(packets.acknowledge(packets.UNSUBACK, packet_id))

    def _ping(self, _body: bytes) -> None:
        self.outbox.control(packets.PINGRESP)

    def _disconnect(self, _body: bytes) -> None:
        self.graceful = True  # no will [MQTT-3.14.4-3]


# Whole first bytes: wrong flags make another packet, which is malformed [MQTT-2.2.2-2].
_TAKES: dict[int, str] = {
    packets.PUBACK: "_puback",
    packets.PUBREL: "_pubrel",
    packets.SUBSCRIBE: "_subscribe",
    packets.UNSUBSCRIBE: "_unsubscribe",
    packets.PINGREQ: "_ping",
    packets.DISCONNECT: "_disconnect",
}
