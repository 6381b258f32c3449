"""Ask again until an answer comes or the time is over. Cheap to import: hooks and reports do it too."""

import time

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")


def retry_until(
    ask: "Callable[[], Answer | None]", *, timeout: float, interval: float = 0.05
) -> "Answer | None":
    """Call `ask` until it returns something true, and return that, or its last answer after `timeout` s.

    It is asked at least once, whatever the timeout. `interval` is the pause between two asks in seconds.
    """
    end = time.monotonic() + timeout
    while not (answer := ask()):
        left = end - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(interval, left))
    return answer
