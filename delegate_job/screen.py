"""Whether an agent's screen shows anything new. Not what it shows."""

import re
import time
from pathlib import Path

_LOOKS_A_LIMIT = 8
"""Looks at a busy screen within the time after which it would count as quiet."""
_SHORTEST, _LONGEST = 0.25, 15.0
"""Seconds between two looks."""
_NO_LETTERS = re.compile(r"[\W\d_]+")


def words_of(text: str) -> str:
    """Return the text without digits and signs: a spinner or a running clock shows nothing new."""
    return _NO_LETTERS.sub(" ", text)


class Screen:
    """One session's screen, looked at only when its log has grown since the last look.

    `limit` is the seconds without new words after which the screen counts as quiet.
    """

    def __init__(self, pane_log: Path, *, limit: float) -> None:
        self._pane_log = pane_log
        self._size = self._size_now = -1
        self._words = ""
        self._next_look = 0.0
        self._every = min(max(limit / _LOOKS_A_LIMIT, _SHORTEST), _LONGEST)

    def is_due(self, *, now: bool = False) -> bool:
        """Return whether there may be something new; says so seldom, unless `now` is given."""
        if not now and time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + self._every
        try:
            self._size_now = self._pane_log.stat().st_size
        except OSError:
            return False
        return self._size_now != self._size

    def take(self, text: str | None) -> bool:
        """Take in what was captured since, None if it could not be; return whether there are new words."""
        if text is None:
            return False
        self._size, before = self._size_now, self._words
        self._words = words_of(text)
        return self._words != before
