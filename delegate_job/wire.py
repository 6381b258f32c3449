"""The wire of an owner: its broker, embedded or external, its own MQTT client, and each job's credentials.

Not the memory: what is announced here stands in the registry already, and can be announced again.
"""

import json
import os
from collections.abc import Callable
from typing import Any, Self

from delegate_job import mqtt
from delegate_job.errors import NotStartedError
from delegate_job.mqtt import Address
from delegate_job.owner_link import OwnerLink

OWNER_USER = "owner"
START_TIMEOUT = 10.0
"""Seconds in which the embedded broker must serve, counted from its start."""
STOP_TIMEOUT = 1.0
FLUSH_TIMEOUT = 1.0
"""Seconds that the end of an owner waits for what it announced to be acknowledged."""

OnReport = Callable[[str, str, bytes], None]
OnChange = Callable[[bool, str], None]


class Wire:
    """What both kinds of broker have in common: one client of the owner's, announcing retained messages."""

    broker: str | None = None
    """What the registry and people are told of an external broker: its URL without the password."""

    def __init__(self) -> None:
        self._link: OwnerLink | None = None
        self._watched: list[str] = []

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Return the addresses of the job's reporters and of its observers."""
        raise NotImplementedError

    def start(self, on_report: OnReport, on_change: OnChange, *, will: tuple[str, bytes] | None) -> None:
        """Connect in the background; what is announced meanwhile is sent when the connection stands."""
        raise NotImplementedError

    def _connect(
        self, address: Address, on_report: OnReport, on_change: OnChange, will: tuple[str, bytes] | None
    ) -> None:
        self._link = OwnerLink(address, on_report=on_report, on_change=on_change, will=will)
        for job_id in self._watched:
            self._link.watch(job_id)

    def watch(self, job_id: str) -> None:
        """Hear the job's reports, also those that were sent before now."""
        self._watched.append(job_id)
        if self._link is not None:
            self._link.watch(job_id)

    def announce_state(self, job_id: str, document: dict[str, Any]) -> None:
        """Publish the whole job, retained."""
        self._announce(mqtt.state_topic(job_id), document)

    def announce_owner(self, job_id: str, *, present: bool, epoch: int) -> None:
        """Publish whether the job has an owner, retained."""
        self._announce(mqtt.owner_topic(job_id), owner_message(present=present, epoch=epoch))

    def _announce(self, topic: str, document: dict[str, Any]) -> None:
        if self._link is not None:
            self._link.announce(topic, json.dumps(document).encode())

    def stop(self) -> None:
        """Let what was announced go out, within a bound, and leave."""
        if self._link is not None:
            self._link.flush(FLUSH_TIMEOUT)
            self._link.stop(STOP_TIMEOUT)


def owner_message(*, present: bool, epoch: int) -> dict[str, Any]:
    """Return what stands on a job's `owner` topic."""
    return {"owner": "present" if present else "gone", "epoch": epoch}


def owner_will(job_id: str, epoch: int) -> tuple[str, bytes]:
    """Return the last will of a job's owner: topic and payload."""
    return mqtt.owner_topic(job_id), json.dumps(owner_message(present=False, epoch=epoch)).encode()


class EmbeddedWire(Wire):
    """The broker in our own process, on a loopback socket that listens from the moment this object exists.

    amqtt is imported only in `start`: until then early clients queue in the socket's backlog.
    """

    def __init__(self, *, port: int = 0) -> None:
        super().__init__()
        from delegate_job_broker import (
            AccessList,
            BrokerError,
            Grant,
            check_amqtt_version,
            listen_on_loopback,
        )

        try:
            check_amqtt_version()
            self.socket = listen_on_loopback(port)
        except BrokerError as error:
            raise NotStartedError(f"the embedded broker: {error}") from error
        self._port = int(self.socket.getsockname()[1])
        self.access = AccessList()
        self._grant = Grant
        self.owner = self._address(OWNER_USER, ("delegate-job/#",), ("delegate-job/#",), unlimited=True)
        self._thread: Any = None

    def _address(
        self, user: str, publish: tuple[str, ...], subscribe: tuple[str, ...], *, unlimited: bool = False
    ) -> Address:
        token = os.urandom(32).hex()
        grant = self._grant(token, publish=publish, subscribe=subscribe, unlimited=unlimited)
        self.access.grant(user, grant)
        return Address(host="127.0.0.1", port=self._port, tls=False, user=user, password=token)

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Mint the job's two tokens: one may write below its own `report/`, the other only reads."""
        own = (mqtt.job_filter(job_id),)
        reporter = self._address(f"job-{job_id}", (mqtt.report_filter(job_id),), own)
        observer = self._address(f"observer-{job_id}", (), own)
        return reporter, observer

    def observe(self) -> Address:
        """Mint a token that reads everything and writes nothing."""
        return self._address("observer", (), ("#",))

    def start(self, on_report: OnReport, on_change: OnChange, *, will: tuple[str, bytes] | None) -> None:
        """Start the broker's thread and connect to it, without waiting for either."""
        from delegate_job_broker import BrokerThread

        self._thread = BrokerThread([self.socket], self.access)
        self._thread.start(wait=False)
        self._connect(self.owner, on_report, on_change, will)

    def stop(self) -> None:
        """Leave, and end the broker."""
        super().stop()
        if self._thread is None:
            self.socket.close()
        else:
            self._thread.stop(STOP_TIMEOUT)


class ExternalWire(Wire):
    """Any MQTT 3.1.1 broker; who may do what on it is its own business."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._address = mqtt.parse_url(url)
        self.broker = self._address.url(with_password=False)

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Return the same address twice; the job's first message proves that the broker takes it (exit 7)."""
        message = json.dumps({"state": "registered", "id": job_id}).encode()
        result = mqtt.publish_once(self._address, [(mqtt.state_topic(job_id), message)], budget=START_TIMEOUT)
        if not result.ok:
            raise NotStartedError(
                f"the broker {self.broker} takes nothing: {result.reason}",
                hint="look at its address, user and password, or leave out --broker",
            )
        return self._address, self._address

    def start(self, on_report: OnReport, on_change: OnChange, *, will: tuple[str, bytes] | None) -> None:
        """Connect to the broker, without waiting."""
        self._connect(self._address, on_report, on_change, will)


class SilentWire(Wire):
    """No broker: what is owned for a moment only, to be ended, is announced to nobody."""

    def admit(self, job_id: str) -> tuple[Address, Address]:
        """Nobody is admitted."""
        raise NotStartedError(f"job {job_id} cannot be started without a broker")

    def start(self, on_report: OnReport, on_change: OnChange, *, will: tuple[str, bytes] | None) -> None:
        """Nothing to start."""


class StandaloneBroker:
    """The embedded broker without a job: `delegate-job broker`."""

    def __init__(self, port: int, *, observer: bool) -> None:
        from delegate_job_broker import BrokerThread

        self._wire = EmbeddedWire(port=port)
        self._observer = self._wire.observe() if observer else None
        self._thread = BrokerThread([self._wire.socket], self._wire.access)

    def __enter__(self) -> Self:
        self._thread.start(timeout=START_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop(STOP_TIMEOUT)

    def urls(self) -> dict[str, str]:
        """Return the owner's URL and, if asked for, one that only reads."""
        urls = {"url": self._wire.owner.url(with_password=True)}
        if self._observer is not None:
            urls["observer_url"] = self._observer.url(with_password=True)
        return urls
