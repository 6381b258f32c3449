"""MQTT 3.1.1 as a broker must show it: retained messages, QoS 0 and 1, wills; no sockets, no time.

Written from the standard and not from the broker: it shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Delivery = tuple[str, bytes, int, bool]


@dataclass(frozen=True)
class Publication:
    """A message as its publisher gave it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass
class Model:
    """What each connected client is subscribed to, what is retained, and what each is sent."""

    subscriptions: dict[int, dict[str, int]] = field(default_factory=dict)
    wills: dict[int, Publication | None] = field(default_factory=dict)
    retained: dict[str, Publication] = field(default_factory=dict)
    sent: dict[int, list[Delivery]] = field(default_factory=dict)

    def connect(self, client: int, will: Publication | None) -> None:
        """A clean session begins; one of the same client before it ends as if it had vanished."""
        if client in self.subscriptions:
            self.leave(client, graceful=False)
        self.subscriptions[client], self.wills[client] = {}, will
        self.sent[client] = []

    def leave(self, client: int, *, graceful: bool) -> None:
        """The session ends; its will is published unless it said goodbye."""
        del self.subscriptions[client]
        will = self.wills.pop(client)
        if will and not graceful:
            self.publish(will)

    def subscribe(self, client: int, topic_filter: str, qos: int) -> None:
        """Retained messages are sent each time; QoS 2 is granted as 1."""
        granted = min(qos, 1)
        self.subscriptions[client][topic_filter] = granted
        for kept in self.retained.values():
            if matches(topic_filter, kept.topic):
                self.sent[client].append((kept.topic, kept.payload, min(granted, kept.qos), True))

    def unsubscribe(self, client: int, topic_filter: str) -> None:
        """Nothing more comes for that filter."""
        self.subscriptions[client].pop(topic_filter, None)

    def publish(self, message: Publication) -> None:
        """One copy to each subscriber, at the best QoS of its filters and not above the message's."""
        if message.retain:
            self.retained.pop(message.topic, None)
            if message.payload:
                self.retained[message.topic] = message
        for client, filters in self.subscriptions.items():
            granted = [qos for topic_filter, qos in filters.items() if matches(topic_filter, message.topic)]
            if granted:
                qos = min(max(granted), message.qos, 1)
                self.sent[client].append((message.topic, message.payload, qos, False))


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a filter matches a topic, level by level (§4.7)."""
    first, _, filter_rest = topic_filter.partition("/")
    level, slash, topic_rest = topic.partition("/")
    if first == "#":
        return True
    if first not in {"+", level}:
        return False
    if "/" not in topic_filter:
        return not slash
    return matches(filter_rest, topic_rest) if slash else filter_rest == "#"
