"""Takes one published message to the store and to its subscribers in a single step; it reads no packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .retained import RetainedStore
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from .access import AccessList
    from .connection import Connection
    from .limits import Limits
    from .packets import Message


class Router:
    """Retained store and subscriptions of one broker.

    Mends B3, B4 and B5 of amqtt 0.12.1, where a message is acknowledged, retained and broadcast by three
    tasks in any order: here `publish` returns when it is stored and queued for every live subscriber.
    """

    def __init__(self, access: AccessList, limits: Limits) -> None:
        self.access = access
        self.limits = limits
        self.retained = RetainedStore(limits)
        self.subscriptions: Subscriptions[Connection] = Subscriptions()

    def publish(self, message: Message, *, retain: bool, unlimited: bool) -> None:
        """Store (when `retain`) and queue; `Malformed`, and nothing done, when a bound forbids it."""
        if retain:
            self.retained.put(message, unlimited=unlimited)
        for subscriber, qos in self.subscriptions.matching(message.topic):
            # A filter was granted as a whole, so a grant that still counts allows each topic it matches.
            if subscriber.holds_grant():
                subscriber.outbox.post(message, min(qos, message.qos), retain=False)

    def subscribe(self, subscriber: Connection, topic_filter: str, qos: int) -> None:
        """Add or replace a subscription and queue what is retained for it [MQTT-3.8.4-3]."""
        self.subscriptions.add(topic_filter, subscriber, qos)
        for message in self.retained.matching(topic_filter):
            subscriber.outbox.post(message, min(qos, message.qos), retain=True)
