"""The broker as a thread of its host: start, stop, sockets, fork and exec, silence."""

import errno
import os
import random
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from broker.mqtt_client import Client
from delegate_job_broker import (
    AccessList,
    BrokerError,
    BrokerThread,
    Grant,
    Limits,
    check_amqtt_version,
    listen_on_loopback,
    listen_on_unix,
    unix_socket_path,
)

LOOPBACK = "127.0.0.1"


def owner() -> AccessList:
    """Give an access list of one user who may do everything."""
    access = AccessList()
    access.grant("owner", Grant("owner-token", ("#",), ("#",), unlimited=True))
    return access


def test_the_port_is_known_and_clients_are_served_when_start_returns() -> None:
    """After `start()` a client that connects is answered."""
    with BrokerThread([listen_on_loopback()], owner()) as broker:
        assert broker.port
        with Client((LOOPBACK, broker.port)) as client:
            assert client.connect() == b"\x00\x00"


def test_clients_that_connect_before_the_broker_runs_are_served_when_it_does() -> None:
    """The socket listens before amqtt is imported; what comes then waits in the kernel."""
    broker = BrokerThread([listen_on_loopback()], owner())
    assert broker.port
    with Client((LOOPBACK, broker.port)) as client:
        broker.start(wait=False)
        assert client.connect() == b"\x00\x00"
        broker.ready()
    assert broker.stop()


def test_stop_right_after_a_start_that_did_not_wait() -> None:
    """A broker that is stopped while it is still starting stops, and its port is free."""
    broker = BrokerThread([listen_on_loopback()], owner())
    broker.start(wait=False)
    assert broker.stop(timeout=5)
    assert broker.port
    listen_on_loopback(broker.port).close()


@pytest.mark.parametrize("silent", [False, True])
def test_stop_takes_less_than_a_second_whatever_clients_do(*, silent: bool) -> None:
    """B8: connections without CONNECT, resets, half packets and clients that never read do not hold it up."""
    access = owner()
    broker = BrokerThread([listen_on_loopback()], access)
    broker.start()
    assert broker.port
    clients = [Client((LOOPBACK, broker.port)) for _ in range(20)]
    for number, client in enumerate(clients):
        if number % 4 == 0:
            client.send(b"\x10\xff")
        elif number % 4 == 1:
            client.connect()
            client.subscribe(("#", 1))
        elif number % 4 == 2 and not silent:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()
    with Client((LOOPBACK, broker.port)) as busy:
        busy.connect()
        for _ in range(200):
            busy.send(b"\x30\xa4\x9c\x01\x00\x02tt" + b"x" * 20000)
        assert broker.stop(timeout=1.0)
    assert broker.faults == 0
    for client in clients:
        client.drop()


def test_restart_on_the_same_port_under_50_live_clients() -> None:
    """A new broker serves at once on the port of the old one, although its clients were connected."""
    port = port_that_nobody_is_given()
    for _ in range(5):
        broker = BrokerThread([listen_on_loopback(port)], owner())
        broker.start()
        assert broker.port == port
        clients = [Client((LOOPBACK, port)) for _ in range(50)]
        assert all(client.connect() == b"\x00\x00" for client in clients)
        assert broker.stop()
        assert all(client.wait_closed() for client in clients)
        for client in clients:
            client.drop()


def port_that_nobody_is_given() -> int:
    """Give a free port below those that the system gives to clients: between two binds it stays free."""
    for port in random.sample(range(20_000, 30_000), 50):
        try:
            listen_on_loopback(port).close()
        except BrokerError:
            continue
        return port
    raise AssertionError("no free port")


def test_a_port_in_use_is_one_clear_error() -> None:
    """`listen_on_loopback` keeps the errno and says it in one line."""
    with listen_on_loopback() as taken, pytest.raises(BrokerError) as caught:
        listen_on_loopback(taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE
    assert "\n" not in str(caught.value)
    with pytest.raises(BrokerError):
        listen_on_loopback(70_000)


def test_another_version_of_amqtt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the check nor `start` accepts an amqtt with other faults; the sockets are closed."""
    check_amqtt_version()
    monkeypatch.setattr("delegate_job_broker.version.AMQTT_VERSION", "0.12.0")
    with pytest.raises(BrokerError, match=r"amqtt 0\.12\.0 is needed, 0\.12\.1 is installed"):
        check_amqtt_version()
    listening = listen_on_loopback()
    with pytest.raises(BrokerError):
        BrokerThread([listening], owner()).start()
    assert listening.fileno() == -1


def test_importing_the_package_imports_neither_asyncio_nor_amqtt() -> None:
    """The import costs next to nothing, and so do the names that a command without a broker uses."""
    code = (
        "import sys, delegate_job_broker as b;"
        "b.AccessList, b.Grant, b.Limits, b.BrokerThread, b.listen_on_loopback;"
        "b.check_amqtt_version();"
        "print(sorted({'asyncio', 'amqtt', 'ssl', 'hmac'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------- unix socket
def test_a_unix_socket_is_for_its_owner_alone_and_goes_with_the_broker(tmp_path: Path) -> None:
    """The file has mode 0600, serves clients, and is removed at the end."""
    path = unix_socket_path(tmp_path / "broker.sock")
    with BrokerThread([listen_on_unix(path), listen_on_loopback()], owner()) as broker:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert broker.unix_path == str(path)
        assert broker.port
        with Client(str(path)) as one, Client((LOOPBACK, broker.port)) as other:
            one.connect()
            other.connect()
            one.subscribe(("t", 1))
            assert other.publish("t", b"hello")
            assert [m.payload for m in one.wait_for(1)] == [b"hello"]
    assert not path.exists()


def test_a_stale_socket_file_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    """Only a file that nobody listens on gives way; any other file stays."""
    path = unix_socket_path(tmp_path / "broker.sock")
    listen_on_unix(path).close()
    assert path.exists()
    with listen_on_unix(path):
        with pytest.raises(BrokerError) as caught:
            listen_on_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
    path.unlink()
    path.write_text("mine")
    with pytest.raises(BrokerError) as caught:
        listen_on_unix(path)
    assert caught.value.errno == errno.EEXIST
    assert path.read_text() == "mine"


def test_of_many_starters_one_gets_the_unix_socket(tmp_path: Path) -> None:
    """Two that find the same stale file never both listen, and the file leads to the one that does."""
    path = unix_socket_path(tmp_path / "broker.sock")
    listen_on_unix(path).close()
    won: list[socket.socket] = []
    start = threading.Barrier(8)

    def attempt() -> None:
        start.wait(timeout=10)
        try:
            won.append(listen_on_unix(path))
        except BrokerError:
            return

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(won) == 1
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
    won[0].close()


def test_an_old_broker_does_not_remove_the_socket_of_its_successor(tmp_path: Path) -> None:
    """Whoever listens at the path keeps the file."""
    path = unix_socket_path(tmp_path / "broker.sock")
    old = BrokerThread([listen_on_unix(path)], owner())
    old.start()
    path.unlink()
    with listen_on_unix(path):
        assert old.stop()
        assert path.exists()


def test_a_path_too_long_for_the_system_gets_a_short_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback is the same each time, 0700, and never in a directory that is not ours alone."""
    short = Path("/tmp") / f"djb-{secrets.token_hex(4)}"
    short.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        long = tmp_path / ("x" * 120) / "broker.sock"
        path = unix_socket_path(long)
        assert path == unix_socket_path(long)
        assert path != unix_socket_path(tmp_path / ("y" * 120) / "broker.sock")
        assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
        with BrokerThread([listen_on_unix(long)], owner()) as broker, Client(str(path)) as client:
            assert broker.unix_path == str(path)
            assert client.connect() == b"\x00\x00"
        path.parent.chmod(0o755)
        with pytest.raises(BrokerError, match="not a private directory"):
            unix_socket_path(long)
    finally:
        for directory in (*short.iterdir(), short):
            directory.rmdir()


# ----------------------------------------------------------------- fork and exec
def test_descriptors_do_not_outlive_exec() -> None:
    """A child of `subprocess` has none of the broker's sockets."""
    with BrokerThread([listen_on_loopback()], owner()) as broker:
        assert broker.port
        with Client((LOOPBACK, broker.port)) as client:
            client.connect()
            code = (
                "import os, stat; "
                "print([n for n in map(int, os.listdir('/dev/fd')) if n < 200"
                " and os.path.exists(f'/dev/fd/{n}') and stat.S_ISSOCK(os.fstat(n).st_mode)])"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                close_fds=False,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
            assert done.stdout.strip() == "[]"


def test_a_forked_child_holds_neither_the_port_nor_the_clients() -> None:
    """While a forked child lives, the broker serves on, closes its clients for real, and frees its port."""
    broker = BrokerThread([listen_on_loopback()], owner())
    broker.start()
    assert broker.port
    with Client((LOOPBACK, broker.port)) as before:
        before.connect()
        awake, done = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(done)
            os.read(awake, 1)
            os._exit(0 if broker.stop() else 1)
        try:
            with Client((LOOPBACK, broker.port)) as after:
                assert after.connect() == b"\x00\x00"
            assert before.ping()
            assert broker.stop()
            assert before.wait_closed()
            listen_on_loopback(broker.port).close()
        finally:
            os.close(awake)
            os.close(done)
            status = os.waitpid(child, 0)[1]
        assert status == 0


# ---------------------------------------------------------------------- silence
SILENCE = """
import socket, struct, time
from delegate_job_broker import *
access = AccessList()
access.grant("u", Grant("t", ("#",), ("#",)))
broker = BrokerThread([listen_on_loopback()], access, Limits(connect_seconds=0.2))
broker.start()
for data in (b"", b"\\x00", b"\\x10", b"\\xff" * 9, b"\\x10\\x02xx",
             b"\\x10\\x0c\\x00\\x04MQTT\\x05\\x02\\x00\\x00\\x00",
             b"\\x10\\x10\\x00\\x04MQTT\\x04\\xc2\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"):
    for reset in (False, True):
        s = socket.create_connection(("127.0.0.1", broker.port))
        s.sendall(data)
        if reset:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
kept = socket.create_connection(("127.0.0.1", broker.port))
time.sleep(0.4)
assert broker.faults == 0, broker._broker.faults
%s
kept.close()
"""


@pytest.mark.parametrize("end", ["assert broker.stop()", "pass"])
def test_nothing_is_ever_written_to_stderr(end: str) -> None:
    """Wrong clients, an end with `stop` and one without: not a byte, even with all warnings on."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SILENCE % end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_a_socketless_broker_and_a_second_start_are_errors() -> None:
    """A broker needs a socket, and starts once."""
    with pytest.raises(BrokerError):
        BrokerThread([], owner())
    with BrokerThread([listen_on_loopback()], owner(), Limits()) as broker, pytest.raises(BrokerError):
        broker.start()


def test_stop_is_safe_again_from_any_thread_and_before_start() -> None:
    """`stop` may be called as often as one likes."""
    broker = BrokerThread([listen_on_loopback()], owner())
    assert broker.stop()
    broker = BrokerThread([listen_on_loopback()], owner())
    broker.start()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(broker.stop())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)
    assert results == [True] * 4
    assert not broker.alive


def test_a_busy_main_thread_slows_the_broker_and_does_not_stop_it() -> None:
    """A host that computes still has its clients served: Python changes threads every switch interval."""
    with BrokerThread([listen_on_loopback()], owner()) as broker:
        assert broker.port
        answered = threading.Event()

        def ask() -> None:
            with Client((LOOPBACK, broker.port or 0)) as client:
                if client.connect() and client.publish("t", b"x", retain=True):
                    answered.set()

        threading.Thread(target=ask, daemon=True).start()
        end = time.monotonic() + 10
        while not answered.is_set() and time.monotonic() < end:
            sum(range(1000))
        assert answered.is_set()


def test_what_was_published_just_before_stop_still_reaches_a_subscriber() -> None:
    """A host may publish its last word and stop: subscribers that read are sent it first."""
    for _ in range(10):
        broker = BrokerThread([listen_on_loopback()], owner())
        broker.start()
        assert broker.port
        with Client((LOOPBACK, broker.port)) as subscriber, Client((LOOPBACK, broker.port)) as publisher:
            subscriber.connect()
            publisher.connect()
            subscriber.subscribe(("t", 1))
            for number in range(100):
                publisher.publish("t", b"%d" % number + b"x" * 10_000, qos=0)
            assert publisher.publish("t", b"last")
            stopping = threading.Thread(target=broker.stop)
            stopping.start()
            assert subscriber.wait_for(101)[-1].payload == b"last"
            stopping.join(timeout=5)


def test_connections_accepted_at_the_last_moment_are_closed_too() -> None:
    """A burst that arrives with `stop` leaves no descriptor open in the host."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        broker = BrokerThread([listen_on_loopback()], owner())
        broker.start()
        for _ in range(100):
            socket.create_connection((LOOPBACK, broker.port or 0), 5).close()
        assert broker.stop()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
