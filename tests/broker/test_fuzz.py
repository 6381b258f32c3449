"""Wrong bytes of every kind: the broker lives, forgets them, and serves others meanwhile."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt_client import Client, Will, connect_packet, packet, publish_packet, subscribe_packet
from broker.servers import LOOPBACK, access_list
from delegate_job_broker import BrokerThread, Limits, listen_on_loopback
from delegate_job_broker.packets import (
    Malformed,
    PacketBuffer,
    read_connect,
    read_subscribe,
    read_unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 10_000
AT_ONCE = 20
CONNECT = connect_packet(
    "", "owner", "owner-token", will=Will("t/will", b"gone", 1, retain=True), keepalive=5
)


def right_packets(chance: random.Random) -> bytes:
    """Give a stream of packets that are right."""
    made = [
        publish_packet("t/f", chance.randbytes(20), qos=chance.randrange(3), retain=True, packet_id=5),
        subscribe_packet(6, ("t/+", chance.randrange(3))),
        packet(0xA2, b"\0\7\0\3t/+"),
        b"\xc0\0",
        packet(0x40, b"\0\1"),
        packet(0x62, b"\0\5"),
    ]
    return b"".join(chance.choices(made, k=chance.randrange(1, 6)))


def stream(chance: random.Random) -> bytes:
    """Give what one fuzzed connection sends."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(60))
    if kind == 1:
        return bytes((chance.randrange(256),)) + b"\xff" * chance.randrange(6) + chance.randbytes(5)
    data = bytearray(CONNECT + right_packets(chance))
    if kind == 2:
        return bytes(data[: chance.randrange(len(data))])
    if kind == 3:
        return CONNECT + chance.randbytes(chance.randrange(1, 200))
    for _ in range(chance.randrange(1, 4)):
        # Bits of lengths, flags and text alike, before and after CONNECT.
        data[chance.randrange(len(data) if kind == 4 else len(CONNECT))] = chance.randrange(256)
    return bytes(data)


def attack(port: int, chance: random.Random) -> None:
    """Open one connection, send its bytes in pieces, and end it in one of three ways."""
    with socket.create_connection((LOOPBACK, port), 5) as connection:
        connection.settimeout(0.02 if chance.random() < 0.02 else 0.0005)
        data = stream(chance)
        try:
            while data:
                size = chance.choice((1, 3, len(data)))
                connection.send(data[:size])
                data = data[size:]
            if chance.random() < 0.5:
                connection.recv(100)
        except OSError:
            pass
        if chance.random() < 0.3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise this process's limit of open files: both ends of each connection are its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
def test_ten_thousand_fuzzed_connections_leave_no_trace(many_files: None) -> None:
    """No fault, no descriptor, no task, no session, no subscription; a witness is served all the time."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    broker = BrokerThread([listen_on_loopback()], access_list(), Limits(connect_seconds=1))
    broker.start()
    port = broker.port or 0
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")  # shown when the test fails

    def attacks(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(CONNECTIONS // AT_ONCE):
            attack(port, chance)

    with Client((LOOPBACK, port)) as witness:
        witness.connect()
        witness.subscribe(("job/witness", 1))
        threads = [threading.Thread(target=attacks, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        count = 0
        while any(thread.is_alive() for thread in threads):
            count += 1
            assert witness.publish("job/witness", b"%d" % count)
        assert [int(message.payload) for message in witness.wait_for(count)] == list(range(1, count + 1))
    assert_forgotten(broker)
    assert broker.stop()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def assert_forgotten(broker: BrokerThread) -> None:
    """Within moments only what the broker began with is left."""
    inner, loop = broker._broker, broker._loop
    assert inner
    assert loop
    end = time.monotonic() + 10
    while (inner._open or inner._sessions) and time.monotonic() < end:
        time.sleep(0.05)
    assert (inner._open, inner._sessions, inner._pending) == ({}, {}, {})
    assert len(inner.router.subscriptions) == 0
    # The thread's own, and amqtt's loop that waits for broadcasts of plugins with the one it runs.
    assert asyncio.run_coroutine_threadsafe(tasks(), loop).result(5) <= 4
    assert broker.faults == 0, inner.faults


async def tasks() -> int:
    """Count the tasks of this loop."""
    return len(asyncio.all_tasks())


@given(st.binary(max_size=80), st.lists(st.integers(1, 9), max_size=20))
def test_cutting_a_stream_differently_gives_the_same_packets(data: bytes, pieces: list[int]) -> None:
    """Where the network cuts never matters: same packets, same place where it is malformed."""
    assert cut(data, [len(data)]) == cut(data, pieces)


def cut(data: bytes, pieces: list[int]) -> tuple[list[tuple[int, bytes]], bool]:
    """Feed `data` in pieces; give the packets and whether it turned out malformed."""
    buffer = PacketBuffer(50)
    found = []
    try:
        for size in [*pieces, len(data)]:
            buffer.feed(data[:size])
            data = data[size:]
            while packet_ := buffer.next():
                found.append(packet_)
    except Malformed:
        return found, True
    return found, False


@given(st.binary(max_size=60))
def test_readers_of_bodies_raise_nothing_but_malformed(body: bytes) -> None:
    """Whatever stands in a body, the connection's own handling is all that is needed."""
    for read in (read_connect, lambda b: list(read_subscribe(b)), lambda b: list(read_unsubscribe(b))):
        try:
            read(body)
        except Malformed:
            continue
