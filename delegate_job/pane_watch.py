"""Asks tmux for all panes at once, in the background, while a runner has yet to come to its lock.

Not what follows from the answer: that is `agent_session`.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from delegate_job.inbox import PanesSeen
from delegate_job.tmux import SessionInfo, Tmux


class PaneWatch:
    """One question at a time to each tmux server; the answers are posted."""

    def __init__(self, post: Callable[[PanesSeen], None]) -> None:
        self._post = post
        self._asked: set[tuple[str, ...]] = set()

    def ask(self, servers: Iterable[Tmux | None]) -> None:
        """Ask each server once, unless it was asked and has not answered; None is left out."""
        for tmux in filter(None, servers):
            if tmux.server.address not in self._asked and tmux.server.answers:
                self._asked.add(tmux.server.address)
                threading.Thread(target=self._ask, args=(tmux,), name="panes", daemon=True).start()

    def answered(self, seen: PanesSeen) -> None:
        """Take notice of an answer: its server may be asked again."""
        self._asked.discard(seen.address)

    def _ask(self, tmux: Tmux) -> None:
        asked_at = time.monotonic()
        sessions: Mapping[str, SessionInfo] | None = None
        try:
            sessions = tmux.sessions()
        finally:
            self._post(PanesSeen(tmux.server.address, asked_at, sessions))
