"""The wires on which an owner's jobs are heard, from their start to their end. Not what is heard."""

import threading
import time
from collections.abc import Callable

from delegate_job.wire import Hears, Wire

HELD_BACK = 0.8
"""Seconds for which a broker of our own leaves the machine to an agent that starts: to import it takes a core
for 0.2 s, and until it has started its clients queue. With an agent whose start hook tells (claude-code,
codex) that is over sooner."""
STOP_TIMEOUT = 3.0
"""Seconds that the end waits for the last words to brokers."""


class OpenWires:
    """All wires of one owner: the embedded broker's, and one for each job with an external broker."""

    def __init__(self, hears: Hears) -> None:
        self._hears = hears
        self._wires: dict[int, Wire] = {}
        self._new: list[Wire] = []
        self._new_since = 0.0
        self._stopping: list[threading.Thread] = []

    def add(self, wire: Wire) -> None:
        """Keep a wire; it is started with the next `start`."""
        if id(wire) not in self._wires:
            self._wires[id(wire)] = wire
            self._new_since = self._new_since if self._new else time.monotonic()
            self._new.append(wire)

    def start(self, *, is_agent_starting: Callable[[], bool]) -> None:
        """Start those that have not been; our own broker not while an agent starts, for a while at most."""
        if not self._new:
            return
        is_held_back = time.monotonic() - self._new_since < HELD_BACK and is_agent_starting()
        for wire in self._new:
            if wire.serves_one or not is_held_back:
                wire.start_once(self._hears)
        self._new = [wire for wire in self._new if is_held_back and not wire.serves_one]

    def start_for_the_end(self, wire: Wire) -> None:
        """Start a wire that serves one job only, if it has not been: the job's end must be told on it."""
        if wire.serves_one and any(each is wire for each in self._new):
            wire.start_once(self._hears)

    def caught_up(self, number: int) -> None:
        """Remember that a wire, named by its `id`, has told all that its broker had kept for us."""
        if number in self._wires:
            self._wires[number].caught_up = True

    def let_go(self, wire: Wire) -> None:
        """Stop a wire that served one job only; it waits for the broker's word, and the others must not."""
        if wire.serves_one:
            del self._wires[id(wire)]
            self._new = [each for each in self._new if each is not wire]
            self._stopping = [each for each in self._stopping if each.is_alive()]
            self._stopping.append(_stop_aside(wire))

    def stop(self) -> None:
        """Stop all, within a bound."""
        # Side by side: each waits for its broker, and no other owner can come before this process has ended.
        threads = [*self._stopping, *map(_stop_aside, self._wires.values())]
        end = time.monotonic() + STOP_TIMEOUT
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))


def _stop_aside(wire: Wire) -> threading.Thread:
    thread = threading.Thread(target=wire.stop, name="wire-stop", daemon=True)
    thread.start()
    return thread
