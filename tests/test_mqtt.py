import contextlib
import json
import os
import queue
import resource
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_servers import Mosquitto
from delegate_job import mqtt
from delegate_job.errors import UsageError
from delegate_job.mqtt import Address
from delegate_job.owner_link import OwnerLink
from delegate_job_broker import AccessList, BrokerThread, Grant, listen_on_loopback, listen_on_unix
from harness import Place, free_port, wait_until

# A busy machine is no fault of the code.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JOB = "20260801-abcdef"
BUDGET = 0.4
"""Seconds for a call that is to run out of them; in the first one paho is loaded too."""
leaves_sockets_to_the_collector = pytest.mark.filterwarnings(
    # paho 2.2 does not close a socket whose TLS handshake failed.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
PATIENCE = 15.0
"""How long a bounded call may take on a busy machine before we call it unbounded."""

Session = Callable[[socket.socket], None]


@contextlib.contextmanager
def _server(session: Session, *, backlog: int = 16) -> Iterator[Address]:
    """Serve each connection with `session`; the connection is closed when that returns."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        listener.settimeout(0.05)

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.settimeout(PATIENCE)
                    session(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Address("127.0.0.1", listener.getsockname()[1], user="u", password="p")
        finally:
            over.set()
            thread.join()


def _silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _closes_at_once(connection: socket.socket) -> None:
    pass


def _closes_at_publish(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x20\x02\x00\x00")
    connection.recv(4096)


def _never_acknowledges(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x20\x02\x00\x00")
    _silent(connection)


def _drips(connection: socket.socket) -> None:
    for byte in b"\x20\xff\xff\xff\x7f" + b"\0" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def _speaks_http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 3)


def _talks_garbage(connection: socket.socket) -> None:
    connection.sendall(secrets.token_bytes(2000))
    _silent(connection)


BROKEN = (
    _silent,
    _closes_at_once,
    _closes_at_publish,
    _never_acknowledges,
    _drips,
    _speaks_http,
    _talks_garbage,
)


@contextlib.contextmanager
def _unanswered_syn() -> Iterator[Address]:
    """A port whose backlog is full: the system does not answer another connection at all."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield Address("127.0.0.1", listener.getsockname()[1])


@contextlib.contextmanager
def _full_unix_socket(path: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(str(path))
        yield str(path)


def _publish(
    address: Address, unix_socket: str | None = None, *, budget: float = PATIENCE
) -> mqtt.PublishResult:
    """Publish one report and fail if that takes far longer than its budget."""
    start = time.monotonic()
    result = mqtt.publish_once(
        address, [(mqtt.report_topic(JOB, "started"), b"{}")], budget=budget, unix_socket=unix_socket
    )
    assert time.monotonic() - start < budget + PATIENCE
    return result


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> Address:
    """Give the address of a real broker, with the rights of an owner."""
    if request.param == "mosquitto":
        server: Mosquitto = request.getfixturevalue("mosquitto")
        return mqtt.parse_url(server.url)
    address: Address = request.getfixturevalue("embedded")
    return address


@pytest.fixture
def embedded(place: Place) -> Iterator[Address]:
    """Give the embedded broker, on loopback and on a Unix socket."""
    access = AccessList()
    access.grant("owner", Grant("token", publish=("#",), subscribe=("#",), unlimited=True))
    sockets = [listen_on_loopback(), listen_on_unix(str(place.root / "mqtt.sock"))]
    with BrokerThread(sockets, access) as thread:
        assert thread.port is not None
        yield Address("127.0.0.1", thread.port, user="owner", password="token")


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://host", Address("host")),
        ("mqtts://host", Address("host", 8883, tls=True)),
        ("mqtt://user@host:1884/", Address("host", 1884, user="user")),
        ("mqtt://u%40x:p%2F%3A%25@h:1", Address("h", 1, user="u@x", password="p/:%")),
        ("mqtt://u:p@h@host", Address("host", user="u", password="p@h")),
        ("MQTT://[::1]:1884", Address("::1", 1884)),
        ("mqtt://u:%C3%A9%20@127.0.0.1", Address("127.0.0.1", user="u", password="é ")),
    ],
)
def test_a_broker_is_named_by_a_url(text: str, address: Address) -> None:
    """User and password are percent-decoded, IPv6 stands in brackets, ports have their defaults."""
    assert mqtt.parse_url(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        "http://u:s3cret@host",
        "mqtt://",
        "mqtt://u:s3cret@",
        "mqtt://u:s3cret@host:port",
        "mqtt://u:s3cret/x@host",
        "mqtt://u:s3cret#x@host",
        "mqtt://u:s3cret@host:99999",
        "mqtt://u:s3cret@host:0",
        "mqtt://u:s3cret@host/topic",
        "mqtt://:s3cret@host",
        "mqtt://u:s3cret%00@host",
        "mqtt://u:s3cret\udcff@host",
        "mqtt://u:s3cret@[::1",
        "mqtt://u:s3cret" + "x" * 70_000 + "@host",
    ],
)
def test_what_is_no_broker_is_refused_without_its_password(text: str) -> None:
    """The error says how a URL looks and never repeats what may be a password."""
    with pytest.raises(UsageError) as caught:
        mqtt.parse_url(text)
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"
    assert caught.value.__cause__ is None


@unhurried
@given(
    user=st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    password=st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    host=st.sampled_from(["127.0.0.1", "::1", "broker.example"]),
    port=st.integers(1, 65535),
    tls=st.booleans(),
)
def test_an_address_survives_its_url(
    user: str | None, password: str | None, host: str, port: int, *, tls: bool
) -> None:
    """What `url(with_password=True)` writes is read as the same address; without, no password is in it."""
    address = Address(host, port, tls, user, password if user else None)
    assert mqtt.parse_url(address.url(with_password=True)) == address
    assert address.url() == address._replace(password=None).url(with_password=True)


def test_no_text_of_an_address_shows_the_password() -> None:
    """People paste logs: repr, str and format leave the password out, also inside a connection."""
    address = mqtt.parse_url("mqtt://u:s3cret@host")
    connection = mqtt.Connection(JOB, "/log", "/registry", 1, broker=address, observer=address)
    for text in (repr(address), str(address), f"{address}", repr([address]), repr(connection)):
        assert "s3cret" not in text
        assert "mqtt://u@host:1883" in text


# connection.json


def test_a_connection_file_is_private_and_complete(place: Place) -> None:
    """It is 0600 from the start, replaced in one step, and read as what was written."""
    path = place.root / "connection.json"
    path.write_text("old")
    path.chmod(0o644)
    address = Address("127.0.0.1", 1883, user="job", password="token")
    for broker in (address, None):
        connection = mqtt.Connection(JOB, "/l\udcff", "/r", 2, broker=broker, unix_socket="/s")
        mqtt.write_connection(path, connection)
        assert mqtt.read_connection(path) == connection
        assert path.stat().st_mode & 0o777 == 0o600
    assert {found.name for found in place.root.iterdir() if found.name.startswith("connection")} == {
        path.name
    }


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"job_id": 1', '{"broker": "x"}', '{"broker": {"h": 1}}', "\xff"]
)
def test_a_broken_connection_file_is_a_value_error(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, the caller has one error to expect."""
    path = tmp_path / "connection.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):
        mqtt.read_connection(path)


def test_a_newer_connection_file_is_read(tmp_path: Path) -> None:
    """Fields that a newer owner adds are passed over."""
    path = tmp_path / "connection.json"
    connection = mqtt.Connection(JOB, "/l", "/r", 1)
    mqtt.write_connection(path, connection)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}))
    assert mqtt.read_connection(path) == connection


# One bounded publish


def test_a_report_is_acknowledged_and_retained(broker: Address) -> None:
    """Who connects afterwards is told what was published before."""
    messages = [(mqtt.report_topic(JOB, kind), kind.encode()) for kind in ("started", "completed")]
    assert mqtt.publish_once(broker, messages) == (True, "")
    told: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
    with _link(broker, reports=told) as link:
        link.watch(JOB)
        heard = {told.get(timeout=PATIENCE) for _ in messages}
    assert heard == {(JOB, "started", b"started"), (JOB, "completed", b"completed")}


def test_a_wrong_password_is_named(broker: Address) -> None:
    """The reason says what is wrong, and not what was tried."""
    result = _publish(broker._replace(password="wr0ng"))
    assert result == (False, "the broker refused: bad user or password")


def test_a_name_instead_of_a_number(mosquitto: Mosquitto) -> None:
    """`localhost` works like any name; one that nobody knows is said to be so, within the bound."""
    address = mqtt.parse_url(mosquitto.url)
    assert _publish(address._replace(host="localhost")).ok
    unknown = _publish(address._replace(host="nobody.invalid"), budget=BUDGET)
    assert unknown.reason in {"unknown host", "timed out"}


def test_the_unix_socket_is_preferred(embedded: Address, place: Place) -> None:
    """With a socket that answers, the TCP port may belong to a stranger; without one, TCP is used."""
    path = str(place.root / "mqtt.sock")
    assert _publish(embedded._replace(port=free_port()), path).ok
    assert _publish(embedded, str(place.root / "missing.sock")).ok
    assert _publish(embedded, str(place.root / ("long" * 50))).ok
    assert not _publish(embedded._replace(port=free_port()), str(place.root / "missing.sock")).ok


@pytest.mark.parametrize("session", BROKEN)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broken_server_holds_nobody_up(session: Session, host: str) -> None:
    """Whatever a server does or leaves undone, publish ends within its bound with a reason."""
    with _server(session) as address:
        result = _publish(address._replace(host=host), budget=BUDGET)
    assert not result.ok
    assert result.reason


@leaves_sockets_to_the_collector
@pytest.mark.parametrize("session", [_silent, _drips, _speaks_http])
def test_a_broken_tls_server_holds_nobody_up(session: Session) -> None:
    """A handshake that never ends is bounded too."""
    with _server(session) as address:
        assert not _publish(address._replace(tls=True), budget=BUDGET).ok


def test_a_network_that_does_not_answer_holds_nobody_up(place: Place) -> None:
    """An unanswered SYN and a full Unix socket end within the bound; a closed port is said to be refused."""
    with _unanswered_syn() as address:
        assert _publish(address, budget=BUDGET) == (False, "timed out")
    with _full_unix_socket(place.root / "s") as path:
        assert not _publish(Address("127.0.0.1", free_port()), path, budget=BUDGET).ok
    assert _publish(Address("127.0.0.1", free_port())) == (False, "connection refused")
    assert mqtt.publish_once(Address("127.0.0.1"), [("t", b"")], budget=0) == (False, "timed out")


def test_many_open_files_do_not_matter(broker: Address) -> None:
    """A supervisor of many jobs has descriptors beyond 1023, which select cannot watch."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("this machine allows no more than 1200 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert _publish(broker).ok
    finally:
        for fd in files:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# The owner's link


@contextlib.contextmanager
def _link(
    address: Address,
    *,
    reports: "queue.SimpleQueue[tuple[str, str, bytes]] | None" = None,
    changes: "queue.SimpleQueue[tuple[bool, str]] | None" = None,
    owners: "queue.SimpleQueue[tuple[str, bytes]] | None" = None,
    will: tuple[str, bytes] | None = None,
    unix_socket: str | None = None,
) -> Iterator[OwnerLink]:
    link = OwnerLink(
        address,
        on_report=lambda *report: reports.put(report) if reports else None,
        on_change=lambda *change: changes.put(change) if changes else None,
        on_owner=(lambda *owner: owners.put(owner)) if owners else None,
        will=will,
        unix_socket=unix_socket,
    )
    try:
        yield link
    finally:
        assert link.stop(PATIENCE)


def _retained(address: Address, *topics: str, count: int = 1) -> dict[str, bytes]:
    """Return what a new subscriber is told; one that hears of fewer topics than `count` was too slow."""
    return wait_until(lambda: told if len(told := _told(address, *topics)) >= count else None) or {}


def _told(address: Address, *topics: str) -> dict[str, bytes]:
    """Return what a new subscriber is told about the topics within a second, its own start included."""
    command = ["mosquitto_sub", "-h", address.host, "-p", str(address.port), "-W", "1", "-F", "%t %p"]
    command += ["-u", address.user or "", "-P", address.password or ""]
    for topic in topics:
        command += ["-t", topic]
    told = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)
    return {line.split(b" ", 1)[0].decode(): line.split(b" ", 1)[1] for line in told.stdout.splitlines()}


def test_the_link_hears_what_was_said_before_and_after(broker: Address) -> None:
    """Reports of a watched job arrive whether they were made before or after; others' do not."""
    told: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
    _report(broker, JOB, "started")
    _report(broker, "another", "started")
    with _link(broker, reports=told) as link:
        link.watch(JOB)
        assert told.get(timeout=PATIENCE) == (JOB, "started", b"{}")
        _report(broker, JOB, "completed")
        assert told.get(timeout=PATIENCE) == (JOB, "completed", b"{}")
        link.watch("another")
        assert told.get(timeout=PATIENCE) == ("another", "started", b"{}")
        link.unwatch(JOB)
        _report(broker, JOB, "error")
        _report(broker, "another", "error")
        assert told.get(timeout=PATIENCE) == ("another", "error", b"{}")


def _report(address: Address, job_id: str, kind: str) -> None:
    assert mqtt.publish_once(address, [(mqtt.report_topic(job_id, kind), b"{}")]).ok


def test_what_is_announced_is_retained_and_cleared(broker: Address) -> None:
    """`flush` is true when the broker has acknowledged; the latest payload is what a new subscriber gets."""
    with _link(broker) as link:
        for number in range(50):
            link.announce(mqtt.state_topic(JOB), str(number).encode())
        link.announce(mqtt.owner_topic(JOB), b"present")
        assert link.flush(PATIENCE)
        assert _retained(broker, mqtt.job_filter(JOB), count=2) == {
            mqtt.state_topic(JOB): b"49",
            mqtt.owner_topic(JOB): b"present",
        }
        link.announce(mqtt.owner_topic(JOB), b"")
        assert link.flush(PATIENCE)
        assert set(_retained(broker, mqtt.job_filter(JOB))) == {mqtt.state_topic(JOB)}


def test_the_link_comes_back_after_a_broker_was_away(mosquitto: Mosquitto) -> None:
    """After an outage it subscribes again, publishes the latest of each topic, and says so once."""
    changes: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    told: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
    owners: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    address = mqtt.parse_url(mosquitto.url)
    with _link(address, reports=told, changes=changes, owners=owners) as link:
        link.watch(JOB)
        link.announce(mqtt.owner_topic(JOB), b"present")
        assert changes.get(timeout=PATIENCE) == (True, "")
        assert owners.get(timeout=PATIENCE) == (JOB, b"present")
        mosquitto.stop()
        assert changes.get(timeout=PATIENCE) == (False, "connection lost")
        for number in range(3):
            link.announce(mqtt.state_topic(JOB), str(number).encode())
        assert not link.flush(0.1)
        mosquitto.start()
        assert link.flush(PATIENCE)
        _report(address, JOB, "completed")
        assert told.get(timeout=PATIENCE) == (JOB, "completed", b"{}")
        assert _retained(address, mqtt.state_topic(JOB)) == {mqtt.state_topic(JOB): b"2"}
    said = [changes.get_nowait() for _ in range(changes.qsize())]
    assert said[-1] == (True, "")
    assert [change for change in said if change[0]] == [(True, "")]


def test_the_will_is_published_when_the_link_dies_and_not_when_it_stops(broker: Address) -> None:
    """`gone` is what others are told of an owner that was killed, and only then."""
    topic = mqtt.owner_topic(JOB)
    with _link(broker, will=(topic, b"gone")) as link:
        link.announce(topic, b"present")
        assert link.flush(PATIENCE)
    assert _retained(broker, topic) == {topic: b"present"}
    code = (
        "import os\n"
        "from delegate_job.mqtt import Address\n"
        "from delegate_job.owner_link import OwnerLink\n"
        f"address = Address({broker.host!r}, {broker.port}, False, {broker.user!r}, {broker.password!r})\n"
        "say = lambda *_: None\n"
        f"link = OwnerLink(address, on_report=say, on_change=say, will=({topic!r}, b'gone'))\n"
        f"link.announce({topic!r}, b'again')\n"
        f"assert link.flush({PATIENCE})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == -9
    wait_until(lambda: _retained(broker, topic) == {topic: b"gone"})


def test_a_wrong_password_is_said_once(broker: Address) -> None:
    """A link that is refused says so once, however often it tries, and stops when asked."""
    changes: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    with _link(broker._replace(password="wr0ng"), changes=changes):
        assert changes.get(timeout=PATIENCE) == (False, "the broker refused: bad user or password")
        with pytest.raises(queue.Empty):
            changes.get(timeout=1)


@pytest.mark.parametrize("session", [*BROKEN])
def test_a_broken_server_does_not_end_the_link(session: Session) -> None:
    """It says that there is no connection, raises nothing, and still takes and keeps announcements."""
    changes: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    with _server(session) as address, _link(address, changes=changes) as link:
        link.watch(JOB)
        link.announce(mqtt.state_topic(JOB), b"{}")
        assert not link.flush(0.5)
        if session is not _silent and session is not _drips and session is not _never_acknowledges:
            wait_until(lambda: not changes.get(timeout=PATIENCE)[0])


def test_the_link_prefers_the_unix_socket(embedded: Address, place: Place) -> None:
    """The owner's own connection goes where no stranger can listen."""
    with _link(embedded._replace(port=free_port()), unix_socket=str(place.root / "mqtt.sock")) as link:
        link.announce(mqtt.state_topic(JOB), b"{}")
        assert link.flush(PATIENCE)


def test_the_link_may_be_used_from_many_threads(broker: Address) -> None:
    """Announcements from all sides arrive, the last of each topic last; nothing is left when it stops."""
    threads = threading.active_count()
    with _link(broker) as link:

        def announce(number: int) -> None:
            for value in range(100):
                link.announce(mqtt.state_topic(f"job-{number}"), str(value).encode())
                link.watch(f"job-{number}")

        workers = [threading.Thread(target=announce, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert link.flush(PATIENCE)
        told = _retained(broker, f"{mqtt.PREFIX}/+/state", count=len(workers))
    assert told == {mqtt.state_topic(f"job-{number}"): b"99" for number in range(8)}
    wait_until(lambda: threading.active_count() == threads)
