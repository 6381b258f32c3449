"""MQTT as the project speaks it: topics, broker addresses, connection.json, and one bounded publish.

It holds no connection open (`owner_link` does) and knows nothing of the broker that we embed.
"""

import contextlib
import json
import math
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

PREFIX = "delegate-job/v1"
"""The beginning of all topics of this protocol."""
KEEPALIVE = 15
"""Seconds after which a silent connection is probed."""
_PORT, _TLS_PORT = 1883, 8883
_URL_HINT = "mqtt[s]://user:password@host:port, with special characters in user and password as %XX"


def report_topic(job_id: str, kind: str) -> str:
    """Return the topic of a job's latest report of one kind; retained, written by the job's reporters."""
    return f"{PREFIX}/{job_id}/report/{kind}"


def report_filter(job_id: str) -> str:
    """Return the filter that matches a job's reports of every kind."""
    return f"{PREFIX}/{job_id}/report/+"


def state_topic(job_id: str) -> str:
    """Return the topic of the whole job as JSON; retained, written by its owner."""
    return f"{PREFIX}/{job_id}/state"


def owner_topic(job_id: str) -> str:
    """Return the topic that says whether a job has an owner; retained, written by it and by its will."""
    return f"{PREFIX}/{job_id}/owner"


def job_filter(job_id: str) -> str:
    """Return the filter that matches all of a job's topics."""
    return f"{PREFIX}/{job_id}/#"


def retained_topics(job_id: str) -> list[str]:
    """Return the topics on which a broker may keep a message of a job's."""
    from delegate_job.events import REPORTED

    reports = [report_topic(job_id, kind) for kind in sorted(REPORTED)]
    return [state_topic(job_id), owner_topic(job_id), *reports]


class Address(NamedTuple):
    """Where a broker listens and who we are there. Its text never holds the password."""

    host: str
    port: int = _PORT
    tls: bool = False
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.url()})"

    def url(self, *, with_password: bool = False) -> str:
        """Return the address as `mqtt[s]://user@host:port`, with the password only when asked for."""
        from urllib.parse import quote

        password = f":{quote(self.password, safe='')}" if with_password and self.password is not None else ""
        user = f"{quote(self.user, safe='')}{password}@" if self.user is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' * self.tls}://{user}{host}:{self.port}"


def parse_url(text: str) -> Address:
    """Return the address that `mqtt[s]://user:password@host:port` names; ports default to 1883 and 8883.

    UsageError when it names none; the message never repeats the text, which may hold a password.
    """
    from urllib.parse import unquote, urlsplit

    from delegate_job.errors import UsageError

    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError("the broker's URL cannot be read", hint=_URL_HINT) from None
    if parts.scheme not in {"mqtt", "mqtts"}:
        raise UsageError("the broker's URL must begin with mqtt:// or mqtts://", hint=_URL_HINT)
    if not host or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(
            "the broker's URL must name a host and a port, and nothing behind them", hint=_URL_HINT
        )
    tls = parts.scheme == "mqtts"
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    # MQTT 3.1.1 allows no password without a user [MQTT-3.1.2-22], and no NUL in either [MQTT-1.5.3-2].
    if (password and not user) or not all(map(_is_text, (host, user or "", password or ""))):
        raise UsageError("the broker's URL has a user or password that MQTT cannot carry", hint=_URL_HINT)
    return Address(host, port or (_TLS_PORT if tls else _PORT), tls, user or None, password if user else None)


def _is_text(text: str) -> bool:
    try:
        return "\0" not in text and len(text.encode()) < 1 << 16
    except UnicodeEncodeError:
        return False


class Connection(NamedTuple):
    """What connection.json holds: how to report for one job, and how to watch it."""

    job_id: str
    log_dir: str
    registry_dir: str
    epoch: int
    """Counts the job's owners."""
    broker: Address | None = None
    """With the job's own token; None when the job has no broker, or none any more: report by file alone."""
    observer: Address | None = None
    """With a token that only reads."""
    unix_socket: str | None = None
    """Another way to the same broker; preferred, because no stranger can take it between two owners."""


def read_connection(path: str | os.PathLike[str]) -> Connection:
    """Return what a connection.json holds. OSError when it cannot be read, ValueError when it is none."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs each report 5 ms of start-up
        fields = json.load(file)
    try:
        known = {name: fields[name] for name in Connection._fields if name in fields}
        return Connection(**known | {name: _address(fields.get(name)) for name in ("broker", "observer")})
    except (TypeError, AttributeError) as error:
        raise ValueError("not a connection.json of this version") from error


def write_connection(path: str | os.PathLike[str], connection: Connection) -> None:
    """Write connection.json (0600) in one step; OSError when that fails. The caller holds the job's lock.

    Not forced to the disk: a broker's address does not outlive the machine's uptime. What a killed process
    leaves half written, the next owner's word replaces.
    """
    fields = connection._asdict()
    for name in ("broker", "observer"):
        fields[name] = fields[name] and fields[name]._asdict()
    temporary = f"{os.fspath(path)}.partial"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(fields, file)
    os.rename(temporary, path)  # noqa: PTH104 - as above


def _address(fields: dict[str, Any] | None) -> Address | None:
    return None if fields is None else Address(**fields)


class PublishResult(NamedTuple):
    """Whether the broker has acknowledged all messages, and if not, why, in a few words."""

    ok: bool
    reason: str = ""


def publish_once(
    address: Address,
    messages: Sequence[tuple[str, bytes]],
    *,
    budget: float = 2.0,
    unix_socket: str | None = None,
) -> PublishResult:
    """Connect, publish (topic, payload) pairs retained at QoS 1, await each PUBACK, disconnect.

    All within `budget` seconds, whatever state the network and the broker are in; never raises for either.
    """
    deadline = time.monotonic() + budget
    if unix_socket is None and not address.tls and _is_literal(address.host):
        return _publish(address, messages, deadline, None)
    # A name's look-up, a TLS handshake and connecting to a Unix socket have no deadline of their own.
    import threading

    results: list[PublishResult] = []
    thread = threading.Thread(
        target=lambda: results.append(_publish(address, messages, deadline, unix_socket)), daemon=True
    )
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    return results[0] if results else PublishResult(ok=False, reason="timed out")


def _publish(
    address: Address, messages: Sequence[tuple[str, bytes]], deadline: float, unix_socket: str | None
) -> PublishResult:
    answers: list[ReasonCode] = []
    client = None
    try:
        client = connect(
            address,
            timeout=deadline - time.monotonic(),
            unix_socket=unix_socket,
            prepare=lambda new: setattr(new, "on_connect", lambda *said: answers.append(said[3])),
        )
        problem = _pump_until(client, lambda: bool(answers), deadline)
        if not problem and answers[0].is_failure:
            problem = refusal(answers[0])
        if not problem:
            sent = [client.publish(topic, payload, qos=1, retain=True) for topic, payload in messages]
            problem = _pump_until(client, lambda: all(info.is_published() for info in sent), deadline)
    except Exception as error:  # noqa: BLE001 - paho 2.2 raises a dozen types for what a broken server sends
        problem = explain(error)
    finally:
        if client is not None:
            close(client)
    return PublishResult(not problem, problem)


def _pump_until(client: "Client", done: Callable[[], bool], deadline: float) -> str:
    """Serve the connection until `done`; return what is wrong, or nothing."""
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            return "timed out"
        if not pump(client, left) and not done():
            return "the broker closed the connection"
    return ""


def connect(
    address: Address,
    *,
    timeout: float,
    unix_socket: str | None = None,
    prepare: Callable[["Client"], None] = lambda _: None,
) -> "Client":
    """Return a paho client with an open connection, CONNECT sent, its answer not yet read; OSError if none.

    `prepare` is given the client before, to set its callbacks and its will. The Unix socket is tried first.
    Each connection has a client of its own with a random id: paho would repeat what is no longer true.
    """
    if timeout <= 0:
        raise TimeoutError
    if unix_socket is not None:
        client = _client(address, transport="unix")
        # paho 2.2 leaves the socket of a refused connection open, which Python warns of when it collects it.
        client._create_unix_socket_connection = lambda: _connect_unix(unix_socket)  # type: ignore[method-assign]  # noqa: SLF001
        prepare(client)
        with contextlib.suppress(OSError):
            client.connect(unix_socket, keepalive=KEEPALIVE)
            return client
    client = _client(address, transport="tcp")
    if address.tls:
        client.tls_set()
    client.connect_timeout = timeout
    client.on_socket_open = lambda _client, _data, sock: _send_at_once(sock)
    prepare(client)
    client.connect(address.host, address.port, keepalive=KEEPALIVE)
    return client


def _connect_unix(path: str) -> socket.socket:
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(path)
        undo.pop_all()
    return sock


def _send_at_once(sock: Any) -> None:
    # paho 2.2 leaves Nagle's algorithm on: a PUBLISH behind an unacknowledged packet then waits up to 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _client(address: Address, *, transport: Any) -> "Client":
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"dj-{os.urandom(8).hex()}",
        clean_session=True,
        protocol=MQTTProtocolVersion.MQTTv311,
        transport=transport,
        reconnect_on_failure=False,
    )
    client.username_pw_set(address.user, address.password)
    return client


def pump(client: "Client", timeout: float, wake: int | None = None) -> bool:
    """Serve a connection once, waiting at most `timeout` seconds; False when it is lost.

    It also returns when the descriptor `wake` can be read. Not paho's own loop, because that one uses select,
    which fails for descriptors from 1024 on (paho 2.2 then reports a lost connection, for ever).
    """
    sock: Any = client.socket()
    if sock is None:
        return False
    poller = select.poll()
    poller.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
    if wake is not None:
        poller.register(wake, select.POLLIN)
    # TLS may have decrypted bytes in hand that poll cannot see.
    unread = hasattr(sock, "pending") and sock.pending() > 0
    seen = dict(poller.poll(0 if unread else math.ceil(timeout * 1000))).get(sock.fileno(), 0)
    failed = bool(unread or seen & ~select.POLLOUT) and client.loop_read()
    failed = failed or (bool(seen & select.POLLOUT) and client.loop_write())
    return not (failed or client.loop_misc())


def close(client: "Client") -> None:
    """Say goodbye and close the connection; never raises, never waits."""
    with contextlib.suppress(Exception):
        client.disconnect()
        sock = client.socket()
        if sock is not None:
            sock.close()


def refusal(reason: "ReasonCode") -> str:
    """Return in a few words why a broker refused the connection."""
    known = {0x86: "bad user or password", 0x87: "bad user or password"}
    return f"the broker refused: {known.get(reason.value, str(reason).lower())}"


def explain(error: Exception) -> str:
    """Return in a few words why a connection failed."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "unknown host"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"the broker answered with something that is not MQTT ({type(error).__name__})"


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
