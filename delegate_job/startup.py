"""Whether an agent that was started shows a sign of life: its first hook. If none comes, a dialog is open.

It looks at the clock and at events; what follows, a look at the screen and a word to the job, is `duties`'.
"""

import math
import time

from delegate_job.agents import START_HOOKS
from delegate_job.events import Event, Kind, Source
from delegate_job.hook_proof import KEY
from delegate_job.job import JobSpec
from delegate_job.paths import JobPaths

LOOK_EVERY = 0.1
"""Seconds between two looks at the job's files while the first hook is awaited: no hook announces itself."""
SCREEN = 8000
"""Characters of the screen that are told, from its end."""


class Startup:
    """The wait for one agent's first hook; after a takeover it begins anew."""

    def __init__(self, spec: JobSpec, paths: JobPaths) -> None:
        self._limit = spec.startup_timeout if spec.agent in START_HOOKS else 0.0
        self._key = paths.agent / KEY
        self._due = math.inf
        self.is_heard = False
        """Whether a hook was heard of since the last launch."""

    def note(self, event: Event) -> None:
        """Take notice of a recorded event: a launch begins the wait, whatever a hook says ends it."""
        if event.known_kind is Kind.SPAWNED:
            self.is_heard = False
            self._due = time.monotonic() + self._limit if self._limit else math.inf
        elif event.source is Source.HOOK or event.known_kind is Kind.EXITED:
            self.is_heard = True
            self._due = math.inf
        elif event.source is Source.OWNER and event.kind == Kind.PERMISSION_REQUIRED:
            self._due = math.inf  # An owner before us has said it.

    @property
    def is_awaited(self) -> bool:
        """Whether the agent runs, and its first hook is to come."""
        return not math.isinf(self._due)

    def next_look_in(self) -> float:
        """Return the seconds until the files are worth a look; infinite when nothing is awaited."""
        return math.inf if math.isinf(self._due) else LOOK_EVERY

    def is_due(self) -> bool:
        """Return whether the time is up; says so once for each launch."""
        if time.monotonic() < self._due:
            return False
        self._due = math.inf
        # An agent whose settings could not carry our hooks has none.
        return self._key.exists()


def told_screen(text: object) -> str | None:
    """Return the end of a screen without empty lines; None when it was not seen."""
    if not isinstance(text, str):
        return None
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())[-SCREEN:]
