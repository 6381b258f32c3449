"""The last retained message of each topic, in a tree of topic levels; it lives in memory only."""

from collections import Counter
from collections.abc import Iterator

from .limits import Limits
from .packets import Malformed, Message

# What a level of the index costs in memory, about; counted so that deep topics are not free.
_LEVEL_BYTES = 200


class _Node:
    __slots__ = ("children", "message")

    def __init__(self) -> None:
        self.children: dict[str, _Node] | None = None
        self.message: Message | None = None


class RetainedStore:
    """Retained messages within bounds. An empty payload clears its topic [MQTT-3.3.1-10]."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root = _Node()
        self._count = 0
        self._bytes = 0
        self._per_user: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count

    def put(self, message: Message, *, unlimited: bool) -> None:
        """Store `message` or clear its topic; `Malformed` when a bound forbids it, with nothing changed."""
        if not message.payload:
            self._clear(message.topic)
            return
        self._check(message, self._get(message.topic), unlimited=unlimited)
        node = self._root
        for level in message.topic.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        self._account(node.message, -1)
        node.message = message
        self._account(message, 1)

    def matching(self, topic_filter: str) -> Iterator[Message]:
        """Give the messages that a new subscription to `topic_filter` is sent, in no promised order."""
        nodes = [self._root]
        levels = topic_filter.split("/")
        for depth, level in enumerate(levels):
            if level == "#":
                yield from self._all_below(nodes, topmost=depth == 0)
                return
            nodes = [child for node in nodes for child in _children(node, level, topmost=depth == 0)]
        yield from (node.message for node in nodes if node.message)

    @staticmethod
    def _all_below(nodes: list[_Node], *, topmost: bool) -> Iterator[Message]:
        waiting = (
            [child for node in nodes for child in _children(node, "+", topmost=True)] if topmost else nodes
        )
        while waiting:
            node = waiting.pop()
            if node.message:
                yield node.message
            if node.children:
                waiting.extend(node.children.values())

    def _get(self, topic: str) -> Message | None:
        node = self._root
        for level in topic.split("/"):
            child = node.children.get(level) if node.children else None
            if child is None:
                return None
            node = child
        return node.message

    def _check(self, message: Message, old: Message | None, *, unlimited: bool) -> None:
        more = _cost(message) - (_cost(old) if old else 0)
        if more > 0 and self._bytes + more > self._limits.retained_bytes:
            raise Malformed("too many retained bytes")
        if old is None and self._count >= self._limits.retained_messages:
            raise Malformed("too many retained messages")
        taken = self._per_user[message.user or ""]
        another = old is None or old.user != message.user
        if another and not unlimited and taken >= self._limits.retained_per_user:
            raise Malformed("too many retained messages of one user")

    def _account(self, message: Message | None, sign: int) -> None:
        if message is None:
            return
        self._count += sign
        self._bytes += sign * _cost(message)
        user = message.user or ""
        self._per_user[user] += sign
        if not self._per_user[user]:
            del self._per_user[user]

    def _clear(self, topic: str) -> None:
        levels = topic.split("/")
        path = [self._root]
        for level in levels:
            children = path[-1].children
            if children is None or level not in children:
                return
            path.append(children[level])
        self._account(path[-1].message, -1)
        path[-1].message = None
        for level in reversed(levels):
            node = path.pop()
            if node.message or node.children:
                return
            if path[-1].children:
                del path[-1].children[level]


def _children(node: _Node, level: str, *, topmost: bool) -> Iterator[_Node]:
    if node.children is None:
        return
    if level != "+":
        if level in node.children:
            yield node.children[level]
        return
    for name, child in node.children.items():
        if not (topmost and name.startswith("$")):  # [MQTT-4.7.2-1]
            yield child


def _cost(message: Message) -> int:
    return message.size + _LEVEL_BYTES * (message.topic.count("/") + 1)
