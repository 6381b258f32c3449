"""The embedded broker without a job: `delegate-job broker`, and what doctor tries. Not an owner's wire."""

from typing import Self

from delegate_job.wire import STOP_TIMEOUT, EmbeddedWire

START_TIMEOUT = 10.0
"""Seconds in which the broker must serve, counted from its start."""


class StandaloneBroker:
    """The embedded broker without a job: `delegate-job broker`."""

    def __init__(self, port: int, *, observer: bool) -> None:
        from delegate_job_broker import BrokerThread

        self._wire = EmbeddedWire(port=port)
        self._observer = self._wire.observe() if observer else None
        self._thread = BrokerThread(self._wire.sockets, self._wire.access)

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
