"""Subscribers of a broker that are not ours: mosquitto_sub and a paho of a few lines; and what they are told.

Not the owner's own connection, and no broker: `broker_servers` and the commands have those.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from delegate_job.mqtt import Address, parse_url
from harness import Place, in_ci

PATIENCE = 30.0
"""Seconds for what takes milliseconds on an idle machine."""


@dataclass(frozen=True)
class Told:
    """One message, and whether it was sent because it had been kept."""

    topic: str
    retained: bool
    payload: str

    @property
    def name(self) -> str:
        """The topic behind the job's own prefix."""
        return self.topic.split("/", 3)[3]

    @property
    def fields(self) -> dict[str, Any]:
        """The payload's JSON object."""
        fields: dict[str, Any] = json.loads(self.payload)
        return fields


@dataclass
class Follower:
    """A connection to a broker that does what a stranger's client does, until it is closed."""

    address: Address
    heard: list[Told] = field(default_factory=list)
    refused: str = ""
    granted: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        if self.address.user is not None:
            self._client.username_pw_set(self.address.user, self.address.password)
        answers: list[Any] = []
        self._client.on_connect = lambda *said: answers.append(said[3])
        self._client.on_message = lambda _client, _data, message: self.heard.append(_told(message))
        self._client.on_subscribe = lambda _client, _data, _mid, codes, _properties: self.granted.extend(
            code.value for code in codes
        )
        self._client.connect(self.address.host, self.address.port)
        self._serve_until(lambda: bool(answers), "an answer to CONNECT")
        self.refused = str(answers[0]) if answers[0].is_failure else ""
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def subscribe(self, *filters: str) -> list[int]:
        """Subscribe at QoS 1 and return the broker's answers: 0 to 2, or 128 for a refusal."""
        self.granted.clear()
        self._client.subscribe([(name, 1) for name in filters])
        self._serve_until(lambda: len(self.granted) == len(filters), "an answer to SUBSCRIBE")
        return list(self.granted)

    def publish(self, topic: str, payload: str | bytes) -> bool:
        """Publish retained at QoS 1; True when it is acknowledged, False when the broker hangs up on it."""
        sent = self._client.publish(topic, payload, qos=1, retain=True)
        try:
            self._serve_until(sent.is_published, "an answer to PUBLISH")
        except ConnectionError:
            return False
        return True

    def await_names(self, names: Iterable[str]) -> dict[str, Told]:
        """Return the latest message of each topic as soon as all of `names` have one."""
        wanted = set(names)
        self._serve_until(lambda: wanted <= {told.name for told in self.heard}, f"{sorted(wanted)}")
        return {told.name: told for told in self.heard}

    def await_topic(self, topic: str) -> None:
        """Return when there was a message on this topic, whosever it is."""
        self._serve_until(lambda: topic in {told.topic for told in self.heard}, topic)

    def await_fields(self, name: str, **fields: Any) -> Told:
        """Return the first message on a topic whose JSON has these fields."""

        def found() -> list[Told]:
            return [
                told
                for told in self.heard
                if told.name == name and told.payload and fields.items() <= told.fields.items()
            ]

        self._serve_until(lambda: bool(found()), f"{fields} on {name}")
        return found()[0]

    def _serve_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}; heard: {self.heard}"
            if self._client.loop(0.05) and not done():
                raise ConnectionError(what)

    def await_count(self, count: int) -> list[Told]:
        """Return the first `count` messages."""
        self._serve_until(lambda: len(self.heard) >= count, f"{count} messages")
        return self.heard[:count]


def _told(message: MQTTMessage) -> Told:
    return Told(message.topic, message.retain, message.payload.decode())


def observer(place: Place, name: str) -> Address:
    """Return the address with which anybody may follow a job, as `status --connection` says it."""
    shown = place.run("status", name, "--connection", "--json")
    assert (shown.returncode, shown.stderr) == (0, ""), shown
    said = json.loads(shown.stdout)
    return parse_url(said["url"])


def with_mosquitto_sub(place: Place, address: Address, topics: str, count: int) -> list[Told]:
    """Return the first `count` messages that a mosquitto_sub of now is told."""
    process = start_mosquitto_sub(place, address, topics, count)
    said, warned = process.communicate(timeout=PATIENCE + 5)
    assert process.returncode == 0, (said, warned)
    return from_mosquitto_sub(said)


def start_mosquitto_sub(place: Place, address: Address, topics: str, count: int) -> "subprocess.Popen[str]":
    """Start a mosquitto_sub that ends after `count` messages."""
    if shutil.which("mosquitto_sub") is None:
        (pytest.fail if in_ci() else pytest.skip)("needs mosquitto_sub (Debian: mosquitto-clients)")
    where = ["-h", address.host, "-p", str(address.port)]
    who = ["-u", address.user or "", "-P", address.password or ""]
    shape = ["-q", "1", "-F", "%t %r %p", "-C", str(count), "-W", str(int(PATIENCE))]
    return place.spawn("mosquitto_sub", *where, *who, "-t", topics, *shape)


def from_mosquitto_sub(said: str) -> list[Told]:
    """Return the messages that it printed, one a line."""
    lines = (line.split(" ", 2) for line in said.splitlines())
    return [Told(topic, flag == "1", payload) for topic, flag, payload in lines]


def with_paho(_place: Place, address: Address, topics: str, count: int) -> list[Told]:
    """Return the first `count` messages that a paho client of now is told."""
    with Follower(address) as follower:
        assert follower.subscribe(topics) == [1]
        return follower.await_count(count)
