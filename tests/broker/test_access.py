"""Who may do what: tokens, grants, wills, revocation, and what one client can never do to another."""

import asyncio
import threading
import time

import pytest

from broker import servers
from broker.mqtt_client import Client, Will, publish_packet
from broker.servers import LOOPBACK, Server
from delegate_job_broker import AccessList, BrokerThread, Grant, listen_on_loopback
from delegate_job_broker.connection import Connection
from delegate_job_broker.packets import Malformed, Message
from delegate_job_broker.topics import covers

REFUSED = b"\x00\x05"


def login(server: Server, user: str) -> Client:
    """Give a connected client of that user."""
    client = Client(server.address)
    assert client.connect(user, f"{user}-token") == b"\x00\x00"
    return client


@pytest.mark.parametrize(
    ("user", "token"),
    [(None, None), ("owner", None), ("owner", ""), ("owner", "wrong"), ("nobody", "owner-token"), ("", "")],
)
def test_nobody_connects_without_the_right_token(ours: Server, user: str | None, token: str | None) -> None:
    """No user, no token, a wrong or an empty one: return code 5, and closed."""
    with Client(ours.address) as client:
        assert client.connect(user, token) == REFUSED
        assert client.wait_closed()


def test_a_reporter_publishes_below_its_own_report_only(ours: Server) -> None:
    """What is not granted is neither acknowledged nor delivered, and ends the connection."""
    with login(ours, "observer") as observer:
        observer.subscribe(("job/#", 1))
        for topic in ("job/2/report/completed", "job/1/state", "job/1/report", "job/1/report/a/b", "$SYS/x"):
            with login(ours, "job1") as reporter:
                assert not reporter.publish(topic, b"forged", retain=True)
                assert reporter.wait_closed()
        with login(ours, "job1") as reporter:
            assert reporter.publish("job/1/report/completed", b"mine", retain=True)
        assert [message.payload for message in observer.wait_for(1)] == [b"mine"]


def test_a_denied_publish_at_qos_0_is_not_delivered(ours: Server) -> None:
    """Nor is one that would not have been acknowledged anyway."""
    with login(ours, "observer") as observer, login(ours, "job1") as reporter:
        observer.subscribe(("job/#", 0))
        reporter.publish("job/2/report/x", b"forged", qos=0, retain=True)
        assert reporter.wait_closed()
        assert observer.ping()
        assert observer.messages == []


@pytest.mark.parametrize(
    "topic_filter", ["#", "job/#", "job/+/report/x", "job/2/#", "+/1/#", "$SYS/#", "job"]
)
def test_a_reporter_subscribes_to_its_own_job_only(ours: Server, topic_filter: str) -> None:
    """A filter that could match more than was granted is refused with 0x80."""
    with login(ours, "job1") as reporter:
        assert reporter.subscribe((topic_filter, 1), ("job/1/#", 1), ("job/1/+/x", 0)) == [0x80, 1, 0]


def test_an_observer_reads_everything_and_writes_nothing(ours: Server) -> None:
    """Its subscriptions are granted, its first publish is its last."""
    with login(ours, "observer") as observer:
        assert observer.subscribe(("job/#", 2)) == [1]
        assert not observer.publish("job/1/report/x", b"x")
        assert observer.wait_closed()


def test_a_will_is_judged_like_a_publish(ours: Server) -> None:
    """A will on a topic of another, on a wildcard or on none is refused at CONNECT."""
    for topic in ("job/2/report/x", "job/+/report/x", "", "$SYS/x"):
        with Client(ours.address) as client:
            assert client.connect("job1", "job1-token", will=Will(topic, b"x")) == REFUSED
    with login(ours, "observer") as observer:
        observer.subscribe(("job/#", 1))
        with Client(ours.address) as client:
            assert client.connect("job1", "job1-token", will=Will("job/1/report/gone", b"x", 1, retain=True))
        assert [(m.topic, m.qos) for m in observer.wait_for(1)] == [("job/1/report/gone", 1)]


def test_another_user_cannot_take_a_client_id_over(ours: Server) -> None:
    """It is told that the identifier is rejected, and the owner of the id works on."""
    with Client(ours.address) as first, Client(ours.address) as thief:
        assert first.connect("job1", "job1-token", client_id="one") == b"\x00\x00"
        assert thief.connect("job2", "job2-token", client_id="one") == b"\x00\x02"
        assert first.ping()


def test_revocation_cuts_living_connections_and_sends_no_will() -> None:
    """After `revoke` nothing of the user counts: not its publishes, not its subscriptions, not its will."""
    access = servers.access_list()
    with BrokerThread([listen_on_loopback()], access) as broker:
        server = Server("ours", broker.port or 0)
        with login(server, "observer") as observer, login(server, "owner") as owner:
            observer.subscribe(("job/#", 1))
            with Client(server.address) as reporter:
                reporter.connect("job1", "job1-token", will=Will("job/1/report/gone", b"will"))
                reporter.subscribe(("job/1/#", 1))
                access.revoke("job1")
                owner.publish("job/1/state", b"secret")
                assert reporter.wait_closed()
                assert reporter.messages == []
            with Client(server.address) as again:
                assert again.connect("job1", "job1-token") == REFUSED
            assert [message.payload for message in observer.wait_for(1)] == [b"secret"]
            assert observer.ping()
            assert len(observer.messages) == 1
        assert broker.faults == 0


def test_what_is_published_after_a_revocation_is_not_received() -> None:
    """Rights are looked at for each delivery: not even in the moment before the connection is cut."""
    access = servers.access_list()
    with BrokerThread([listen_on_loopback()], access) as broker:
        assert broker._broker
        assert broker._loop
        router = broker._broker.router
        with Client((LOOPBACK, broker.port or 0)) as reporter:
            reporter.connect("job1", "job1-token")
            reporter.subscribe(("job/1/#", 1))

            def revoke_and_publish() -> None:
                router.publish(Message("job/1/state", b"before", 1), retain=False, unlimited=True)
                access.revoke("job1")
                router.publish(Message("job/1/state", b"secret", 1), retain=False, unlimited=True)

            broker._loop.call_soon_threadsafe(revoke_and_publish)
            assert reporter.wait_closed()
            assert [message.payload for message in reporter.messages] == [b"before"]


def test_what_a_revoked_client_still_publishes_does_not_count() -> None:
    """Rights are looked at for each packet: not even one that came with the last one that was right."""
    access = servers.access_list()
    with BrokerThread([listen_on_loopback()], access) as broker:
        inner, loop = broker._broker, broker._loop
        assert inner
        assert loop
        with Client((LOOPBACK, broker.port or 0)) as reporter:
            reporter.connect("job1", "job1-token")

            async def receive_when_revoked() -> None:
                connection = next(iter(inner._sessions.values()))[1]
                assert isinstance(connection, Connection)
                message = publish_packet("job/1/report/x", b"late", retain=True)
                connection.receive(message[0], message[2:])
                assert len(inner.router.retained) == 1
                access.revoke("job1")
                with pytest.raises(Malformed):
                    connection.receive(message[0], message[2:])

            asyncio.run_coroutine_threadsafe(receive_when_revoked(), loop).result(5)


def test_new_rights_cut_and_the_same_rights_do_not() -> None:
    """Granting what somebody has already is nothing; another token or other topics end the connection."""
    access = servers.access_list()
    with BrokerThread([listen_on_loopback()], access) as broker:
        server = Server("ours", broker.port or 0)
        with login(server, "job1") as client:
            access.grant("job1", Grant("job1-token", ("job/1/report/+",), ("job/1/#",)))
            assert client.ping()
            access.grant("job1", Grant("new-token", ("job/1/report/+",), ("job/1/#",)))
            assert client.wait_closed()
        with Client(server.address) as client:
            assert client.connect("job1", "new-token") == b"\x00\x00"


def test_grants_change_while_clients_come_and_go() -> None:
    """A host thread that grants and revokes never disturbs others, nor the broker."""
    access = servers.access_list()
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            access.grant("guest", Grant("g", ("t/#",), ("t/#",)))
            time.sleep(0.002)
            access.revoke("guest")

    with BrokerThread([listen_on_loopback()], access) as broker:
        thread = threading.Thread(target=churn)
        thread.start()
        with Client((LOOPBACK, broker.port or 0)) as owner:
            owner.connect()
            for _ in range(100):
                with Client((LOOPBACK, broker.port or 0)) as guest:
                    guest.connect("guest", "g", will=Will("t/will", b"x"))
                    guest.send(b"\x82\x08\x00\x01\x00\x03t/#\x01")
                assert owner.publish("t/x", b"x")
        over.set()
        thread.join(timeout=5)
        assert broker.faults == 0
        assert broker._broker
        subscriptions = broker._broker.router.subscriptions
        end = time.monotonic() + 5  # the last guest's end may be a moment away
        while len(subscriptions) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(subscriptions) == 0


def test_a_grant_hides_its_token_and_refuses_nonsense() -> None:
    """What people paste into bug reports holds no token."""
    grant = Grant("s3cret", ("a/#",))
    access = AccessList()
    access.grant("user", grant)
    assert "s3cret" not in repr(grant) + repr(access)
    for filters in (("a/#/b",), ("a+",), ("",), ("a\0",)):
        with pytest.raises(ValueError, match="not a topic filter"):
            Grant("t", filters)
    with pytest.raises(ValueError, match="needs a token"):
        Grant("")


@pytest.mark.parametrize(
    ("allowed", "requested", "covered"),
    [
        ("a/#", "a", True),
        ("a/#", "a/b/+/c", True),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/+", "a", False),
        ("a/b", "a/+", False),
        ("+/b", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("#", "#", True),
        ("+", "#", False),
        ("a", "a/", False),
        ("a/+", "a/", True),
    ],
)
def test_what_a_filter_covers(allowed: str, requested: str, covered: bool) -> None:  # noqa: FBT001 - a column of the table
    """`covers` says yes only when every topic of the one is a topic of the other."""
    assert covers(allowed, requested) is covered
