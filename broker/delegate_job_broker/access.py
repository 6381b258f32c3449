"""Who may connect, publish and subscribe: tokens with grants; it knows no connection and no MQTT packet."""

import threading
from collections.abc import Callable
from typing import NamedTuple, Self

from .topics import covers, is_filter

_MOST_LEVELS = 1000
# Compared when the user is unknown, so that the time of an answer does not tell which users exist.
_NO_TOKEN = "\0" * 43


# No dataclass: that module brings `inspect`, for which an agent that starts would wait 9 ms.
class _Rights(NamedTuple):
    token: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    unlimited: bool


class Grant(_Rights):
    """The rights of one user: its token (never empty, not shown by `repr`) and topic filters.

    Raises `ValueError` for an empty token or a malformed filter.
    """

    __slots__ = ()

    def __new__(
        cls,
        token: str,
        publish: tuple[str, ...] = (),
        subscribe: tuple[str, ...] = (),
        *,
        unlimited: bool = False,
    ) -> Self:
        """Make the rights, once and for all: connections are compared by their identity."""
        if not token:
            raise ValueError("a grant needs a token")
        for topic_filter in (*publish, *subscribe):
            if not is_filter(topic_filter, _MOST_LEVELS):
                raise ValueError(f"not a topic filter: {topic_filter!r}")
        return super().__new__(cls, token, publish, subscribe, unlimited)

    def __repr__(self) -> str:
        return f"Grant(publish={self.publish!r}, subscribe={self.subscribe!r}, unlimited={self.unlimited!r})"

    def may_publish(self, topic: str) -> bool:
        """Tell whether a message may be published, or left as a will, on `topic`."""
        return any(covers(allowed, topic) for allowed in self.publish)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Tell whether everything that `topic_filter` matches may be received."""
        return any(covers(allowed, topic_filter) for allowed in self.subscribe)


class AccessList:
    """The grants of a broker, by user name. Safe to change from any thread while the broker runs.

    A change counts at once: what is published after `grant` or `revoke` has returned is judged by it.
    """

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AccessList({sorted(self._grants)})"

    def grant(self, user: str, grant: Grant) -> None:
        """Set the rights of `user`; living connections that hold other rights are cut."""
        with self._lock:
            # The same rights again must not cut anybody: connections are compared by identity.
            if self._grants.get(user) == grant:
                return
            self._grants[user] = grant
        self._changed()

    def revoke(self, user: str) -> None:
        """Take all rights from `user` and cut its living connections; unknown users are fine."""
        with self._lock:
            if self._grants.pop(user, None) is None:
                return
        self._changed()

    def authenticate(self, user: str | None, token: str | None) -> Grant | None:
        """Give the grant of `user` when `token` is right, in a time that does not depend on either."""
        import hmac  # brings all of OpenSSL: the host need not wait for it

        grant = self._grants.get(user or "")
        expected = grant.token if grant else _NO_TOKEN
        matches = hmac.compare_digest(expected.encode(), (token or "").encode())
        return grant if matches else None

    def current(self, user: str | None) -> Grant | None:
        """Give the grant that counts for `user` now."""
        # One dict lookup is atomic: no lock on the path that every message takes.
        return self._grants.get(user or "")

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed`, from the changing thread, after each change."""
        with self._lock:
            self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """End what `watch` began; unknown callables are fine."""
        with self._lock:
            if changed in self._watchers:
                self._watchers.remove(changed)

    def _changed(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for changed in watchers:
            changed()
