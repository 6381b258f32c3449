"""Random histories of several clients against a small model; of the wrong ones the shortest is shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from broker.model import Model, Publication, matches
from broker.mqtt_client import Client, Will, publish_packet
from broker.servers import Server, serve_ours
from delegate_job_broker.limits import Limits
from delegate_job_broker.packets import Message
from delegate_job_broker.retained import RetainedStore
from delegate_job_broker.subscriptions import Subscriptions
from delegate_job_broker.topics import covers

CLIENTS = 3
LEVELS = ("a", "b", "")
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3).map("/".join)
filters = st.tuples(
    st.lists(st.sampled_from((*LEVELS, "+")), min_size=1, max_size=3), st.sampled_from(("", "/#"))
).map(lambda parts: "/".join(parts[0]) + parts[1])
# Few and near each other: histories in which filters overlap and topics come again are the interesting ones.
near_topics = st.sampled_from(("a", "a/b", "b"))
near_filters = st.sampled_from(("a", "a/#", "+", "a/b", "a/+", "+/b", "#", "b"))
payloads = st.sampled_from((b"", b"1", b"2", b"3"))
publications = st.builds(Publication, near_topics | topics, payloads, st.integers(0, 2), st.booleans())
clients = st.integers(0, CLIENTS - 1)
steps = st.one_of(
    st.tuples(st.just("connect"), clients, st.none() | publications),
    st.tuples(st.just("publish"), clients, publications),
    st.tuples(st.just("publish"), clients, publications),
    st.tuples(st.just("subscribe"), clients, near_filters | filters, st.integers(0, 2)),
    st.tuples(st.just("unsubscribe"), clients, near_filters | st.integers(0, 5)),
    st.tuples(st.just("disconnect"), clients),
    st.tuples(st.just("kill"), clients),
)
Step = tuple[Any, ...]


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    """Give one broker for all histories: each has a corner of the topics for itself."""
    with serve_ours() as server:
        yield server


class Players:
    """The real clients beside the model: every step is done by both, then what came is compared."""

    def __init__(self, server: Server, corner: str) -> None:
        self.server = server
        self.corner = corner
        self.model = Model()
        self.clients: dict[int, Client] = {}
        self.seen: dict[int, int] = {}

    def step(self, name: str, client: int, *rest: Any) -> None:
        """Do one step; what a client that is not connected would do is left out."""
        if name == "connect":
            self.connect(client, *rest)
        elif client in self.clients:
            getattr(self, name)(client, *rest)
        self.compare()

    def connect(self, client: int, will: Publication | None) -> None:
        """Connect, or take over."""
        will = will and self.moved(will)
        connection = Client(self.server.address)
        last = Will(will.topic, will.payload, will.qos, will.retain) if will else None
        assert connection.connect(client_id=f"{self.corner}-{client}", will=last) == b"\x00\x00"
        if client in self.clients:
            assert self.clients[client].wait_closed()
            self.clients[client].drop()
        self.model.connect(client, will)
        self.clients[client] = connection
        self.seen[client] = 0

    def publish(self, client: int, message: Publication) -> None:
        """Publish and have it acknowledged."""
        message = self.moved(message)
        self.model.publish(message)
        if message.qos == 2:
            self.publish_twice(client, message)
        else:
            assert self.clients[client].publish(
                message.topic, message.payload, qos=message.qos, retain=message.retain
            )

    def publish_twice(self, client: int, message: Publication) -> None:
        """At QoS 2, with the PUBLISH sent again before its PUBREL: it counts once."""
        connection = self.clients[client]
        packet_id = connection.next_id()
        data = publish_packet(
            message.topic, message.payload, qos=2, retain=message.retain, packet_id=packet_id
        )
        connection.send(data + data)
        assert connection.answer(0x50)
        assert connection.answer(0x50)
        connection.send(b"\x62\x02" + packet_id.to_bytes(2, "big"))
        assert connection.answer(0x70) == packet_id.to_bytes(2, "big")

    def subscribe(self, client: int, topic_filter: str, qos: int) -> None:
        """Subscribe; QoS 2 is granted as 1."""
        wanted = f"{self.corner}/{topic_filter}"
        assert self.clients[client].subscribe((wanted, qos)) == [min(qos, 1)]
        self.model.subscribe(client, wanted, qos)

    def unsubscribe(self, client: int, which: str | int) -> None:
        """Unsubscribe from one of the client's filters, by number, or from any other."""
        wanted = f"{self.corner}/{which}"
        if isinstance(which, int):
            held = sorted(self.model.subscriptions[client]) or [wanted]
            wanted = held[which % len(held)]
        assert self.clients[client].unsubscribe(wanted)
        self.model.unsubscribe(client, wanted)

    def disconnect(self, client: int) -> None:
        """Say goodbye."""
        connection = self.clients.pop(client)
        connection.send(b"\xe0\x00")
        assert connection.wait_closed()
        connection.drop()
        self.model.leave(client, graceful=True)

    def kill(self, client: int) -> None:
        """Send what is no packet: the broker ends the connection, as it does when a client vanishes."""
        connection = self.clients.pop(client)
        connection.send(b"\xf0\x00")
        assert connection.wait_closed()
        connection.drop()
        self.model.leave(client, graceful=False)

    def compare(self) -> None:
        """What came since the last step is what the model sent, in any order within the step."""
        for number, connection in self.clients.items():
            assert connection.ping()
            seen = self.seen[number]
            got = [(m.topic, m.payload, m.qos, m.retain) for m in connection.messages[seen:]]
            assert sorted(got) == sorted(self.model.sent[number][seen:]), f"client {number}"
            self.seen[number] = len(connection.messages)

    def moved(self, message: Publication) -> Publication:
        """Move a message into this history's corner."""
        return Publication(f"{self.corner}/{message.topic}", message.payload, message.qos, message.retain)

    def close(self) -> None:
        """End all connections and clear what they left."""
        for client in list(self.clients):
            self.disconnect(client)
        with Client(self.server.address) as owner:
            owner.connect()
            for topic in self.model.retained:
                owner.publish(topic, b"", retain=True)


corners = itertools.count()


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    wills=(None,) * CLIENTS,
    history=[
        ("subscribe", 0, "#", 0),
        ("subscribe", 0, "a", 1),
        ("subscribe", 1, "a", 1),
        ("subscribe", 1, "#", 0),
        ("publish", 2, Publication("a", b"1", 1, False)),
    ],
)
@given(
    wills=st.tuples(*[st.none() | publications] * CLIENTS), history=st.lists(steps, min_size=15, max_size=50)
)
def test_any_history_is_what_the_standard_says(
    broker: Server, wills: tuple[Publication | None, ...], history: list[Step]
) -> None:
    """Connect, subscribe, publish, leave, vanish: each client is sent exactly what it is due."""
    players = Players(broker, f"t/{next(corners)}")
    try:
        for step in [("connect", client, will) for client, will in enumerate(wills)] + history:
            note(str(step))
            players.step(*step)
    finally:
        players.close()


@given(filters, topics)
def test_the_index_of_filters_agrees_with_the_rule(topic_filter: str, topic: str) -> None:
    """The tree finds a subscriber exactly when the rule matches, and so does the access rule."""
    subscriptions: Subscriptions[str] = Subscriptions()
    subscriptions.add(topic_filter, "me", 1)
    expected = matches(topic_filter, topic)
    assert subscriptions.matching(topic) == ((("me", 1),) if expected else ())
    assert covers(topic_filter, topic) is expected
    subscriptions.remove(topic_filter, "me")
    assert subscriptions.matching(topic) == ()
    assert not subscriptions._root.children


@given(st.lists(st.tuples(topics, payloads), max_size=20), filters)
def test_the_index_of_retained_messages_agrees_with_the_rule(
    messages: list[tuple[str, bytes]], topic_filter: str
) -> None:
    """A new subscription is sent exactly what matches; when all is cleared nothing is left of the index."""
    store = RetainedStore(Limits())
    kept: dict[str, bytes] = {}
    for topic, payload in messages:
        store.put(Message(topic, payload, 1, "u"), unlimited=True)
        kept.pop(topic, None)
        if payload:
            kept[topic] = payload
    found = {message.topic: message.payload for message in store.matching(topic_filter)}
    assert found == {topic: payload for topic, payload in kept.items() if matches(topic_filter, topic)}
    assert len(store) == len(kept)
    for topic in kept:
        store.put(Message(topic, b"", 1, "u"), unlimited=True)
    assert (len(store), store._bytes, store._per_user) == (0, 0, {})
    assert not store._root.children


@given(filters, filters, topics)
def test_a_filter_that_covers_another_matches_whatever_that_matches(
    wide: str, narrow: str, topic: str
) -> None:
    """A granted filter never lets a client read a topic that was not granted."""
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)
