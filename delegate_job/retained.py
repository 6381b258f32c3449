"""Takes back what finished jobs have left on external brokers: their retained messages.

Not on the embedded one, which forgets them itself; and not whether a job is to be forgotten (`pruning`).
"""

from collections import Counter
from collections.abc import Callable

from delegate_job import mqtt
from delegate_job.mqtt import Address
from delegate_job.rows import Row

BUDGET = 5.0
"""Seconds in which the broker must take one job's messages; after a failure it is asked no more."""


class Retained:
    """The topics of jobs on `broker`, which the user gives: a job that is done has forgotten the password."""

    def __init__(self, broker: Address | None, warn: Callable[[str], None]) -> None:
        self._broker = broker
        self._warn = warn
        self._problem = ""
        self._left: Counter[str] = Counter()

    def clear(self, row: Row) -> None:
        """Clear a job's topics, if they are on that broker and it lets us; else they are counted."""
        url = row.job.spec.broker
        if url is None:
            return
        if self._broker is None or self._broker.url() != url or not self._clear(row.job.id):
            self._left[url] += 1

    def _clear(self, job_id: str) -> bool:
        if not self._problem and self._broker is not None:
            messages = [(topic, b"") for topic in mqtt.retained_topics(job_id)]
            result = mqtt.publish_once(self._broker, messages, budget=BUDGET)
            self._problem = "" if result.ok else result.reason or "it takes nothing"
        return not self._problem

    def say_left(self) -> None:
        """Say where something was left, and why."""
        for url, jobs in self._left.items():
            is_ours = self._broker is not None and self._broker.url() == url
            why = self._problem if is_ours else "give its URL, with the password, as --broker"
            self._warn(f"the topics of {jobs} job{'s' * (jobs > 1)} stay on {url}: {why}")
