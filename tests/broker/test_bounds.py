"""Nothing grows for ever: each limit has an end that the client can tell, and others are served meanwhile."""

import time
from contextlib import ExitStack

from broker.mqtt_client import Client, packet, publish_packet, string, subscribe_packet
from broker.servers import Server, serve_ours


def login(server: Server, user: str = "owner", **options: object) -> Client:
    """Give a connected client of that user."""
    client = Client(server.address)
    assert client.connect(user, f"{user}-token", **options) == b"\x00\x00"  # type: ignore[arg-type] # of connect()
    return client


def test_a_packet_over_the_limit_ends_its_connection() -> None:
    """At its header already: not a byte of it is waited for."""
    with serve_ours(packet_bytes=1000) as server, login(server) as other:
        with login(server) as client:
            assert client.publish("t/x", b"x" * 980)
            client.send(b"\x32\xff\xff\x7f")
            assert client.wait_closed()
        assert other.ping()


def test_before_the_token_a_packet_may_be_small_only() -> None:
    """A stranger can't make the broker keep a megabyte."""
    with serve_ours(connect_bytes=500, connect_seconds=60) as server, Client(server.address) as client:
        client.send(packet(0x10, b"\x00\x04MQTT\x04\xc2\x00\x00" + string("x" * 600)))
        assert client.wait_closed()


def test_one_connection_too_many_is_told_so() -> None:
    """Return code 3 (server unavailable); when one leaves there is room again."""
    with serve_ours(connections=2) as server, login(server) as one, login(server):
        with Client(server.address) as third:
            assert third.connect() == b"\x00\x03"
        one.drop()
        end = time.monotonic() + 5
        answer = None
        while answer != b"\x00\x00" and time.monotonic() < end:
            with Client(server.address) as third:
                answer = third.connect()
        assert answer == b"\x00\x00"


def test_the_client_that_takes_its_own_id_over_needs_no_room() -> None:
    """A full broker lets a client come back under its id."""
    with (
        serve_ours(connections=1) as server,
        login(server, client_id="me"),
        login(server, client_id="me") as again,
    ):
        assert again.ping()


def test_many_silent_connections_push_each_other_out() -> None:
    """Who connects and says nothing is cut, oldest first, when there are too many; clients come through."""
    with serve_ours(pending=5, connect_seconds=60) as server, ExitStack() as stack:
        silent = [stack.enter_context(Client(server.address)) for _ in range(20)]
        with login(server) as client:
            assert client.ping()
        assert all(one.wait_closed() for one in silent[:15])
        assert not silent[-1].wait_closed(0.1)


def test_retained_messages_end_at_their_number() -> None:
    """One more is not acknowledged and not delivered; replacing and clearing still work."""
    with serve_ours(retained_messages=3) as server, login(server, "observer") as observer:
        observer.subscribe(("t/#", 1))
        with login(server) as client:
            for number in range(3):
                assert client.publish(f"t/{number}", b"x", retain=True)
            assert client.publish("t/0", b"y", retain=True)
            assert not client.publish("t/3", b"x", retain=True)
            assert client.wait_closed()
        with login(server) as client:
            assert client.publish("t/0", b"", retain=True)
            assert client.publish("t/3", b"x", retain=True)
        assert observer.wait_for(6)[-1].topic == "t/3"
        assert len(observer.messages) == 6


def test_retained_messages_end_at_their_bytes() -> None:
    """The limit counts topics, payloads and a share for each level; what is replaced is given back."""
    with serve_ours(retained_bytes=10_000) as server:
        with login(server) as client:
            for _ in range(10):
                assert client.publish("t/x", b"x" * 9000, retain=True)
            assert not client.publish("t/y", b"x" * 1000, retain=True)
        with login(server) as client:
            assert client.publish("t/x", b"", retain=True)
            assert client.publish("t/y", b"x" * 1000, retain=True)


def test_one_reporter_cannot_fill_the_store() -> None:
    """A user without `unlimited` may leave so many topics behind; others have theirs."""
    with serve_ours(retained_per_user=2) as server:
        with login(server, "job1") as greedy:
            assert greedy.publish("job/1/report/a", b"x", retain=True)
            assert greedy.publish("job/1/report/b", b"x", retain=True)
            assert not greedy.publish("job/1/report/c", b"x", retain=True)
        with login(server, "job2") as other:
            assert other.publish("job/2/report/a", b"x", retain=True)
        with login(server) as owner:
            for number in range(5):
                assert owner.publish(f"t/{number}", b"x", retain=True)


def test_subscriptions_of_one_client_end_at_their_number() -> None:
    """One more filter is refused with 0x80; one that is there already is not one more."""
    with serve_ours(subscriptions=2) as server, login(server, "observer") as client:
        assert client.subscribe(("t/1", 0), ("t/2", 0), ("t/3", 0)) == [0, 0, 0x80]
        assert client.subscribe(("t/1", 1)) == [1]
        assert client.unsubscribe("t/1")
        assert client.subscribe(("t/3", 1)) == [1]


def test_topics_and_filters_end_at_their_levels() -> None:
    """A topic of a thousand levels would cost a thousand entries."""
    with serve_ours(topic_levels=4) as server:
        with login(server) as client:
            assert client.publish("t/2/3/4", b"x", retain=True)
            assert client.subscribe(("t/2/3/#", 0), ("t/2/3/4/#", 0)) == [0, 0x80]
            assert not client.publish("t/2/3/4/5", b"x", retain=True)
        with login(server) as client:
            assert client.subscribe(("t/#", 0)) == [0]


def test_a_fast_client_is_slowed_and_loses_nothing() -> None:
    """Beyond its burst it goes at the allowed rate; the owner goes as it likes."""
    # The rate beside the owner would take a slowed client half a minute: also a busy machine is faster.
    for user, rate, slowed in (("job1", 200, True), ("owner", 2, False)):
        with (
            serve_ours(publishes_per_second=rate, publish_burst=20) as server,
            login(server, "observer") as observer,
            login(server, user) as client,
        ):
            observer.subscribe(("job/#", 0))
            began = time.monotonic()
            for number in range(100):
                assert client.publish("job/1/report/x", b"%d" % number)
            took = time.monotonic() - began
            assert (took > 70 / rate) is slowed
            assert len(observer.wait_for(100)) == 100


def test_a_client_that_stays_too_fast_is_cut() -> None:
    """Slowed for longer than the limit without a pause: its connection ends, others do not notice."""
    with (
        serve_ours(publishes_per_second=100, publish_burst=10, slowed_seconds=0.5) as server,
        login(server, "observer") as other,
        login(server, "job1") as fast,
    ):
        data = publish_packet("job/1/report/x", b"x") * 20
        end = time.monotonic() + 5
        while not fast.closed and time.monotonic() < end:
            fast.send(data)
            fast.quiet_for(0.01)
        assert fast.closed
        assert other.ping()


def test_a_slowed_client_is_not_taken_for_a_silent_one() -> None:
    """Its packets wait in the kernel because of us: the keep alive does not count that time."""
    with (
        serve_ours(publishes_per_second=20, publish_burst=1) as server,
        login(server, "job1", keepalive=1) as client,
    ):
        client.send(publish_packet("job/1/report/x", b"x") * 60)
        client.quiet_for(0.2)
        client.send(b"\xc0\x00")
        assert client.answer(0xD0, 8) is not None


def test_keepalive_counts_packets_and_not_bytes() -> None:
    """A packet that comes byte by byte does not keep its connection alive for ever."""
    with serve_ours() as server, login(server, keepalive=1) as client:
        data = publish_packet("t/x", b"x" * 100)
        end = time.monotonic() + 6
        for byte in data:
            client.send(bytes((byte,)))
            client.quiet_for(0.1)
            if client.closed or time.monotonic() > end:
                break
        assert client.closed


def test_a_client_that_pings_lives_on() -> None:
    """PINGREQ counts as a sign of life."""
    with serve_ours() as server, login(server, keepalive=4) as client:
        # More than the 6 s after which a silent client is given up, with pauses that are far below.
        for _ in range(13):
            client.quiet_for(0.5)
            assert client.ping()


def test_answers_that_nobody_reads_end_at_the_limit_too() -> None:
    """A client that only asks and never reads is cut: its answers count as unsent bytes."""
    with serve_ours(unsent_bytes=1 << 18) as server, login(server) as asking, login(server) as other:
        asking.socket.settimeout(2)
        data = b"\xc0\x00" * 50_000
        for _ in range(400):
            if asking.closed:
                break
            asking.send(data)
        assert asking.closed
        assert other.ping()


def test_a_retained_flood_to_a_client_that_subscribes_again_and_again_ends() -> None:
    """Each SUBSCRIBE sends what is retained once more: places in line count although the messages do not."""
    with (
        serve_ours(unsent_bytes=1 << 20) as server,
        login(server) as owner,
        login(server, "observer") as greedy,
    ):
        for number in range(500):
            assert owner.publish(f"t/{number}", b"x" * 5000, retain=True)
        greedy.socket.settimeout(2)
        for number in range(60):
            greedy.send(subscribe_packet(number + 1, ("t/#", 0)))
        greedy.acknowledge = False
        time.sleep(0.5)
        assert owner.ping()
        assert greedy.wait_closed(10)
