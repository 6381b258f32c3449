"""The owner's lasting connection to its broker: reports come in, retained states go out.

It decides nothing and remembers no job: what arrives is handed on, and a lost connection is only said.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from delegate_job import journal, mqtt

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_CONNECT_TIMEOUT = 3.0
"""Seconds for the connection, and again for the broker's answer to CONNECT."""
_RETRY_FIRST, _RETRY_LAST = 0.2, 2.0
_ROUND = 1.0


class OwnerLink:
    """Keeps one connection to a broker in a thread of its own, from its construction until `stop`.

    `on_report(job_id, kind, payload)` is called for each report of a watched job, `on_owner(job_id, payload)`
    (when given) for each message on its owner topic, and `on_change(connected, reason)` once a change.
    `on_caught_up()` is called once a connection, when what was announced after the subscriptions is
    acknowledged: what the broker had kept has come by then. All are called in the link's thread and must only
    enqueue. `will` is the (topic, payload) that the broker publishes, retained, when the connection is lost.
    Every method may be called from any thread.
    """

    def __init__(
        self,
        address: mqtt.Address,
        *,
        on_report: Callable[[str, str, bytes], None],
        on_change: Callable[[bool, str], None],
        will: tuple[str, bytes] | None = None,
        on_owner: Callable[[str, bytes], None] | None = None,
        on_caught_up: Callable[[], None] | None = None,
        unix_socket: str | None = None,
    ) -> None:
        self._address = address
        self._on_report, self._on_change, self._on_owner = on_report, on_change, on_owner
        self._on_caught_up = on_caught_up
        self._will, self._unix_socket = will, unix_socket
        self._changed = threading.Condition()
        # All of these are guarded by the condition; only the link's thread touches paho.
        self._latest: dict[str, bytes] = {}
        self._unsent: dict[str, None] = {}
        self._unacknowledged: dict[int, str] = {}
        self._watched: dict[str, None] = {}
        self._filters: dict[str, bool] = {}
        self._said: tuple[bool, str] | None = None
        self._catching_up = False
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="owner-link", daemon=True)
        self._thread.start()

    def watch(self, job_id: str) -> None:
        """Hear the reports of this job, now and after each reconnection."""
        with self._changed:
            self._watched[job_id] = None
            self._filters.update(dict.fromkeys(self._filters_of(job_id), True))
            self._wake()

    def unwatch(self, job_id: str) -> None:
        """Hear of this job no more, and keep none of its topics for the next reconnection."""
        with self._changed:
            self._watched.pop(job_id, None)
            self._filters.update(dict.fromkeys(self._filters_of(job_id), False))
            for topic in (mqtt.state_topic(job_id), mqtt.owner_topic(job_id)):
                if topic not in self._unsent and topic not in self._unacknowledged.values():
                    self._latest.pop(topic, None)
            self._wake()

    def announce(self, topic: str, payload: bytes) -> None:
        """Publish retained at QoS 1, now or when there is a connection, and again after each reconnection.

        Only the latest payload of a topic is kept. An empty one clears the topic.
        """
        with self._changed:
            self._latest[topic] = payload
            self._unsent[topic] = None
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has acknowledged all that was announced; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unsent and not self._unacknowledged, timeout)

    def stop(self, timeout: float) -> bool:
        """Disconnect without the will; False when the thread has not ended after `timeout` seconds."""
        with self._changed:
            self._stopping.set()
            self._wake()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _filters_of(self, job_id: str) -> list[str]:
        filters = [mqtt.report_filter(job_id)]
        return filters if self._on_owner is None else [*filters, mqtt.owner_topic(job_id)]

    def _wake(self) -> None:
        if self._wake_writer >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_writer, b"\0")

    def _run(self) -> None:
        delay = _RETRY_FIRST
        while not self._stopping.is_set():
            try:
                reason = self._serve()
            except Exception as error:  # noqa: BLE001 - paho 2.2 raises a dozen types for what a server sends
                reason = mqtt.explain(error)
            was_connected = self._said is not None and self._said[0]
            delay = _RETRY_FIRST if was_connected else min(delay * 2, _RETRY_LAST)
            self._say(False, reason)
            self._stopping.wait(delay)
        with self._changed:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            self._wake_writer = -1

    def _serve(self) -> str:
        """Hold one connection until it ends; return why."""
        answers: list[Any] = []
        client = mqtt.connect(
            self._address,
            timeout=_CONNECT_TIMEOUT,
            unix_socket=self._unix_socket,
            prepare=lambda new: self._prepare(new, answers),
        )
        try:
            answer_due = time.monotonic() + _CONNECT_TIMEOUT
            while not self._stopping.is_set():
                if answers and answers[0].is_failure:
                    return mqtt.refusal(answers[0])
                if answers:
                    self._send(client)
                elif time.monotonic() > answer_due:
                    return "the broker does not answer"
                if not mqtt.pump(client, _ROUND, self._wake_reader):
                    return (
                        mqtt.refusal(answers[0]) if answers and answers[0].is_failure else "connection lost"
                    )
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
            return "stopped"
        finally:
            mqtt.close(client)

    def _prepare(self, client: "Client", answers: list[Any]) -> None:
        def connected(
            _client: object, _data: object, _flags: object, reason: Any, _properties: object
        ) -> None:
            answers.append(reason)
            if not reason.is_failure:
                self._renew()
                self._say(True, "")

        client.on_connect = connected
        client.on_message = lambda _client, _data, message: self._receive(message)
        client.on_publish = lambda _client, _data, mid, _reason, _properties: self._acknowledge(mid)
        client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self._granted(reasons)
        if self._will is not None:
            topic, payload = self._will
            client.will_set(topic, payload, qos=1, retain=True)

    def _renew(self) -> None:
        """Let a new connection subscribe and publish all that holds."""
        with self._changed:
            self._unacknowledged.clear()
            self._unsent = dict.fromkeys(self._latest)
            self._catching_up = True
            self._filters = {name: True for job_id in self._watched for name in self._filters_of(job_id)}

    def _send(self, client: "Client") -> None:
        with self._changed:
            filters, self._filters = self._filters, {}
            topics, self._unsent = self._unsent, {}
            for name, wanted in filters.items():
                if wanted:
                    client.subscribe(name, qos=1)
                else:
                    client.unsubscribe(name)
            for topic in topics:
                self._unacknowledged[client.publish(topic, self._latest[topic], qos=1, retain=True).mid] = (
                    topic
                )

    def _acknowledge(self, mid: int) -> None:
        with self._changed:
            topic = self._unacknowledged.pop(mid, None)
            if topic is not None and topic not in self._unsent and self._latest.get(topic) == b"":
                del self._latest[topic]
            all_known = not self._unsent and not self._unacknowledged
            caught_up, self._catching_up = (
                self._catching_up and all_known,
                self._catching_up and not all_known,
            )
            self._changed.notify_all()
        if caught_up and self._on_caught_up is not None:
            self._on_caught_up()

    def _granted(self, reasons: list[Any]) -> None:
        if any(reason.is_failure for reason in reasons):
            self._say(True, "the broker refused a subscription")

    def _receive(self, message: "MQTTMessage") -> None:
        try:
            _, _, job_id, *rest = message.topic.split("/")
        except ValueError:
            return
        if job_id not in self._watched or not 0 < len(message.payload) <= journal.MAX_LINE:
            return
        if len(rest) == 2 and rest[0] == "report":
            self._on_report(job_id, rest[1], bytes(message.payload))
        elif rest == ["owner"] and self._on_owner is not None:
            self._on_owner(job_id, bytes(message.payload))

    def _say(self, connected: bool, reason: str) -> None:  # noqa: FBT001 - as the callback has it
        # Each attempt to come back may fail for a reason of its own; that the broker is away is said once.
        still_away = not connected and self._said is not None and not self._said[0]
        if not still_away and self._said != (connected, reason) and not self._stopping.is_set():
            self._said = (connected, reason)
            self._on_change(connected, reason)
