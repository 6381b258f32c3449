"""Whether an agent's screen shows anything new. Not what it shows."""

import re
import time
from pathlib import Path

from delegate_job.tmux import Tmux

LOOK_EVERY = 2.0
"""Seconds between two looks at a screen that was written to."""
_NO_LETTERS = re.compile(r"[\W\d_]+")


def words_of(text: str) -> str:
    """Return the text without digits and signs: a spinner or a running clock shows nothing new."""
    return _NO_LETTERS.sub(" ", text)


class Screen:
    """One session's screen, looked at only when its log has grown since the last look."""

    def __init__(self, tmux: Tmux, session: str, pane_log: Path) -> None:
        self._tmux = tmux
        self._session = session
        self._pane_log = pane_log
        self._size = -1
        self._words = ""
        self._next_look = 0.0

    def changed(self, *, now: bool = False) -> bool:
        """Return whether there are new words; asks tmux seldom, unless `now` is given."""
        if not now and time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_EVERY
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
