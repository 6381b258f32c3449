"""The wire of an owner: its broker, embedded or external, its own MQTT client, and each job's credentials.

Not the memory: what is announced here stands in the registry already, and can be announced again.
"""

import contextlib
import errno
import json
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job import mqtt
from delegate_job.errors import NotStartedError
from delegate_job.events import Event
from delegate_job.mqtt import Address, Connection
from delegate_job.owner_link import OwnerLink
from delegate_job.paths import RegistryPaths
from delegate_job.rows import Row

OWNER_USER = "owner"
STOP_TIMEOUT = 1.0
CHECK_TIMEOUT = 10.0
"""Seconds in which an external broker must take the first message of a job."""
_LOOK_UP_EVERY = 0.1
"""Seconds between two looks at what may end that wait."""
KEPT_FINISHED = 200
"""Finished jobs whose last state the embedded broker keeps for late readers."""
FLUSH_TIMEOUT = 1.0
"""Seconds that the end of an owner waits for what it announced to be acknowledged."""


class Hears(NamedTuple):
    """Where a wire puts what it hears; all are called in its own thread and must only enqueue."""

    report: Callable[[str, str, bytes], None]
    change: Callable[[bool, str], None]
    caught_up: Callable[["Wire"], None]


class Wire:
    """What both kinds of broker have in common: one client of the owner's, announcing retained messages."""

    serves_one = False
    """Whether it is one job's own."""
    broker: str | None = None
    """What the registry and people are told of an external broker: its URL without the password."""

    def __init__(self) -> None:
        self._link: OwnerLink | None = None
        self._jobs: dict[str, int] = {}
        self._latest: dict[str, dict[str, Any]] = {}
        self._finished: deque[str] = deque()
        self.caught_up = False
        """Whether what the broker had kept for us was heard; set by who reads what we hear."""

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Return the addresses of the job's reporters and of its observers."""
        raise NotImplementedError

    @property
    def unix_socket(self) -> str | None:
        """The path of the broker's Unix socket, for processes of this machine."""
        return None

    def admit_job(self, row: Row, paths: RegistryPaths, epoch: int) -> None:
        """Let the job's reporters in, with new credentials, and hear them; tell them where by its file."""
        spec = row.job.spec
        reporter, observer = self.admit(spec.id)
        connection = Connection(
            job_id=spec.id,
            log_dir=spec.log_dir,
            registry_dir=str(paths.root),
            epoch=epoch,
            broker=reporter,
            observer=observer,
            unix_socket=self.unix_socket,
        )
        mqtt.write_connection(paths.job(spec.id).connection, connection)
        self._jobs[spec.id] = epoch
        self._announce(mqtt.owner_topic(spec.id), owner_message(present=True, epoch=epoch))
        if self._link is not None:
            self._link.watch(spec.id)

    def start_once(self, hears: Hears) -> None:
        """Connect in the background, the first time this is called; nothing that was said before is lost."""
        if self._link is None:
            self._link = self._start(hears)
            for topic, document in self._latest.items():
                self._send(topic, document)
            for job_id in self._jobs:
                self._link.watch(job_id)

    def _start(self, hears: Hears) -> OwnerLink:
        raise NotImplementedError

    def announce_state(self, job_id: str, document: dict[str, Any]) -> None:
        """Publish the whole job, retained."""
        self._announce(mqtt.state_topic(job_id), document)

    def announce_report(self, event: Event) -> None:
        """Publish a report again that an earlier owner's broker had, retained."""
        document = {"id": event.id, "job_id": event.job_id, "kind": event.kind, "at": event.at}
        self._announce(
            mqtt.report_topic(event.job_id, event.kind),
            document | {"detail": event.detail, "data": dict(event.data)},
        )

    def _announce(self, topic: str, document: dict[str, Any]) -> None:
        if self._link is None:
            self._latest[topic] = document
        else:
            self._send(topic, document)

    def _clear(self, topic: str) -> None:
        if self._link is not None:
            self._link.announce(topic, b"")

    def _send(self, topic: str, document: dict[str, Any]) -> None:
        assert self._link is not None  # noqa: S101 - both callers have looked
        self._link.announce(topic, json.dumps(document).encode())

    def dismiss(self, job_id: str, *, epoch: int) -> None:
        """Hear of the job no more; its last state stays to be read while the broker lives, within a bound."""
        self._announce(mqtt.owner_topic(job_id), owner_message(present=False, epoch=epoch))
        self._jobs.pop(job_id, None)
        self._finished.append(job_id)
        if self._link is not None:
            self._link.unwatch(job_id)

    def stop(self) -> None:
        """Let what was announced go out, within a bound, and leave."""
        if self._link is not None:
            self._link.flush(FLUSH_TIMEOUT)
            self._link.stop(STOP_TIMEOUT)


def owner_message(*, present: bool, epoch: int) -> dict[str, Any]:
    """Return what stands on a job's `owner` topic."""
    return {"owner": "present" if present else "gone", "epoch": epoch}


class EmbeddedWire(Wire):
    """The broker in our own process, on loopback sockets that listen from the moment this object exists.

    amqtt is imported only when it starts: until then early clients queue in the sockets' backlog. `port` is
    taken if it is free (0: any). `socket_path` is for the Unix socket, which our own processes prefer:
    between two owners a stranger can take a TCP port.
    """

    def __init__(self, *, port: int = 0, socket_path: Path | None = None) -> None:
        super().__init__()
        from delegate_job_broker import AccessList, BrokerError, Grant, check_amqtt_version

        try:
            check_amqtt_version()
            self.sockets = _listen(port, socket_path)
        except BrokerError as error:
            raise NotStartedError(f"the embedded broker: {error}") from error
        self.port = int(self.sockets[0].getsockname()[1])
        self.access = AccessList()
        self._grant = Grant
        self.owner = self._address(OWNER_USER, ("delegate-job/#",), ("delegate-job/#",), unlimited=True)
        self._thread: Any = None

    @property
    def unix_socket(self) -> str | None:
        """The path of the broker's Unix socket."""
        return str(self.sockets[1].getsockname()) if len(self.sockets) > 1 else None

    def _address(
        self, user: str, publish: tuple[str, ...], subscribe: tuple[str, ...], *, unlimited: bool = False
    ) -> Address:
        token = os.urandom(32).hex()
        grant = self._grant(token, publish=publish, subscribe=subscribe, unlimited=unlimited)
        self.access.grant(user, grant)
        return Address(host="127.0.0.1", port=self.port, tls=False, user=user, password=token)

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Mint the job's two tokens: one may write below its own `report/`, the other only reads."""
        own = (mqtt.job_filter(job_id),)
        reporter = self._address(_reporter(job_id), (mqtt.report_filter(job_id),), own)
        observer = self._address(_observer(job_id), (), own)
        return reporter, observer

    def observe(self) -> Address:
        """Mint a token that reads everything and writes nothing."""
        return self._address("observer", (), ("#",))

    def _start(self, hears: Hears) -> OwnerLink:
        from delegate_job_broker import BrokerThread

        self._thread = BrokerThread(self.sockets, self.access)
        self._thread.start(wait=False)
        # No last will: this broker ends with its owner.
        return OwnerLink(
            self.owner,
            on_report=hears.report,
            on_change=hears.change,
            on_caught_up=lambda: hears.caught_up(self),
            unix_socket=self.unix_socket,
        )

    def dismiss(self, job_id: str, *, epoch: int) -> None:
        """Let the job's reporters in no more; its observers may read on."""
        super().dismiss(job_id, epoch=epoch)
        self.access.revoke(_reporter(job_id))
        while len(self._finished) > KEPT_FINISHED:
            self._forget(self._finished.popleft())

    def _forget(self, job_id: str) -> None:
        self.access.revoke(_observer(job_id))
        for topic in mqtt.retained_topics(job_id):
            self._clear(topic)

    def stop(self) -> None:
        """Leave, and end the broker."""
        super().stop()
        if self._thread is None:
            for each in self.sockets:
                each.close()
        else:
            self._thread.stop(STOP_TIMEOUT)


def _listen(port: int, socket_path: Path | None) -> list[socket.socket]:
    from delegate_job_broker import BrokerError, listen_on_loopback, listen_on_unix

    try:
        sockets = [listen_on_loopback(port)]
    except BrokerError as error:
        # A remembered port is a wish; a port that somebody asked for is not remembered here.
        if socket_path is None or error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        sockets = [listen_on_loopback(0)]
    if socket_path is not None:
        # Without it everything still works: it is the better of two ways.
        with contextlib.suppress(BrokerError):
            sockets.append(listen_on_unix(socket_path))
    return sockets


def remove_dead_socket(path: Path) -> None:
    """Remove the Unix socket of an embedded broker whose process was killed; one that is served stays."""
    from delegate_job_broker import remove_unix_socket, unix_socket_path

    remove_unix_socket(unix_socket_path(path))


def remove_socket(path: Path) -> None:
    """Remove the Unix socket of a job that is done, served or not: its name stands nowhere any more."""
    from delegate_job_broker import BrokerError, unix_socket_path

    with contextlib.suppress(OSError, BrokerError):
        unix_socket_path(path).unlink()


def _reporter(job_id: str) -> str:
    return f"job-{job_id}"


def _observer(job_id: str) -> str:
    return f"observer-{job_id}"


class ExternalWire(Wire):
    """Any MQTT 3.1.1 broker, for one job; who may do what on it is its own business."""

    serves_one = True

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self.broker = address.url(with_password=False)

    def check(self, job_id: str, look_up: Callable[[], None]) -> None:
        """Prove that the broker takes a message of the job's; NotStartedError if it does not.

        `look_up` is called again and again meanwhile; what it raises ends the wait.
        """
        message = (mqtt.state_topic(job_id), json.dumps({"state": "registered", "id": job_id}).encode())
        results = list[mqtt.PublishResult]()
        # In a thread of its own: no signal ends what a C library waits for.
        thread = threading.Thread(
            target=lambda: results.append(mqtt.publish_once(self._address, [message], budget=CHECK_TIMEOUT)),
            name="broker-check",
            daemon=True,
        )
        thread.start()
        try:
            while thread.is_alive():
                look_up()
                thread.join(_LOOK_UP_EVERY)
        except BaseException:
            # It may have been taken just now.
            self.forget(job_id)
            raise
        (result,) = results
        if not result.ok:
            raise NotStartedError(
                f"the broker {self.broker} takes nothing: {result.reason}",
                hint="look at its address, user and password, or leave out --broker",
            )

    def forget(self, job_id: str) -> None:
        """Take back the message of `check`: there is no such job after all."""
        mqtt.publish_once(self._address, [(mqtt.state_topic(job_id), b"")], budget=FLUSH_TIMEOUT)

    def admit(self, _job_id: str) -> tuple[Address, Address]:
        """Return the one address for both."""
        return self._address, self._address

    def _start(self, hears: Hears) -> OwnerLink:
        job_id, epoch = next(iter(self._jobs.items()))
        will = mqtt.owner_topic(job_id), json.dumps(owner_message(present=False, epoch=epoch)).encode()
        return OwnerLink(
            self._address,
            on_report=hears.report,
            on_change=hears.change,
            on_caught_up=lambda: hears.caught_up(self),
            will=will,
            on_owner=self._heard_of_owner,
        )

    def _heard_of_owner(self, job_id: str, payload: bytes) -> None:
        """Say `present` again when the will of an owner before us arrives after ours."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            said = json.loads(payload)
            epoch = self._jobs[job_id]
            if said["owner"] == "gone" and int(said["epoch"]) < epoch:
                self._announce(mqtt.owner_topic(job_id), owner_message(present=True, epoch=epoch))
