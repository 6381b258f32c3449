"""Whether an agent's screen shows anything new. Not what it shows."""

import re
import time
from pathlib import Path

from delegate_job.tmux import Tmux

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

    def __init__(self, tmux: Tmux, session: str, pane_log: Path, *, limit: float) -> None:
        self._tmux = tmux
        self._session = session
        self._pane_log = pane_log
        self._size = -1
        self._words = ""
        self._next_look = 0.0
        self._every = min(max(limit / _LOOKS_A_LIMIT, _SHORTEST), _LONGEST)

    def changed(self, *, now: bool = False) -> bool:
        """Return whether there are new words; asks tmux seldom, unless `now` is given."""
        if not now and time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + self._every
        try:
            size = self._pane_log.stat().st_size
        except OSError:
            return False
        if size == self._size:
            return False
        text = self._tmux.capture(self._session)
        if text is None:
            return False
        self._size, before = size, self._words
        self._words = words_of(text)
        return self._words != before
