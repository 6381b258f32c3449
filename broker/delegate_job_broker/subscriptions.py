"""Which subscriber wants which topic: a tree of filter levels; it delivers nothing."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

# Topics remembered with their subscribers between two changes: a busy topic is looked up once.
_REMEMBERED = 4096


class _Node(Generic[S]):
    __slots__ = ("children", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S]] = {}
        self.subscribers: dict[S, int] = {}


class Subscriptions(Generic[S]):
    """Filters of all subscribers. Mends B4 of amqtt 0.12.1 by having no await between its steps."""

    def __init__(self) -> None:
        self._root: _Node[S] = _Node()
        self._count = 0
        self._remembered: dict[str, tuple[tuple[S, int], ...]] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, subscriber: S, qos: int) -> None:
        """Subscribe; the same filter again replaces its QoS [MQTT-3.8.4-3]."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        self._count += subscriber not in node.subscribers
        node.subscribers[subscriber] = qos
        self._remembered.clear()

    def remove(self, topic_filter: str, subscriber: S) -> None:
        """Unsubscribe; a filter that is not subscribed is fine [MQTT-3.10.4-5]."""
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        if path[-1].subscribers.pop(subscriber, None) is None:
            return
        self._count -= 1
        self._remembered.clear()
        self._prune(path, levels)

    @staticmethod
    def _prune(path: list[_Node[S]], levels: list[str]) -> None:
        for level in reversed(levels):
            node = path.pop()
            if node.subscribers or node.children:
                return
            del path[-1].children[level]

    def matching(self, topic: str) -> tuple[tuple[S, int], ...]:
        """Give each subscriber of `topic` once, with the best QoS of its filters."""
        found = self._remembered.get(topic)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[topic] = tuple(self._look_up(topic).items())
        return found

    def _look_up(self, topic: str) -> dict[S, int]:
        best: dict[S, int] = {}
        for node in self._nodes(topic):
            for subscriber, qos in node.subscribers.items():
                if qos > best.get(subscriber, -1):
                    best[subscriber] = qos
        return best

    def _nodes(self, topic: str) -> Iterator[_Node[S]]:
        nodes = [self._root]
        wildcards = not topic.startswith("$")  # [MQTT-4.7.2-1]
        for level in topic.split("/"):
            below: list[_Node[S]] = []
            for node in nodes:
                names = (level, "+") if wildcards else (level,)
                below.extend(child for name in names if (child := node.children.get(name)))
                if wildcards and (rest := node.children.get("#")):
                    yield rest
            nodes, wildcards = below, True
        for node in nodes:
            yield node
            if rest := node.children.get("#"):  # "a/#" matches "a" too
                yield rest
