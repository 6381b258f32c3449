"""What happens to a job: the event, its kinds, and who may say which.

Not where events are read from or written to; a line in a file becomes an `Event` in `inbox`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Source(StrEnum):
    """Who said it. Set by the owner from the channel an event came by, never from the line itself."""

    AGENT = "agent"
    HOOK = "hook"
    RUNNER = "runner"
    USER = "user"
    OWNER = "owner"


class Kind(StrEnum):
    """The kinds of event that mean something; any other kind is recorded and not applied."""

    # Reported by agents and their hooks.
    STARTED = "started"
    PROGRESS = "progress"
    PERMISSION_REQUIRED = "permission_required"
    RESUMED = "resumed"
    TURN_ENDED = "turn_ended"
    COMPLETED = "completed"
    ERROR = "error"
    # From the runner in the pane.
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn_failed"
    EXITED = "exited"
    # From a user's command.
    CANCEL_REQUESTED = "cancel_requested"
    VERIFIED = "verified"
    SENT = "sent"
    APPROVED = "approved"
    DENIED = "denied"
    ANSWERED = "answered"
    # From the job's owner.
    REGISTERED = "registered"
    LAUNCHING = "launching"
    NOT_LAUNCHED = "not_launched"
    VANISHED = "vanished"
    CHECK_PASSED = "check_passed"
    CHECK_FAILED = "check_failed"
    CHECK_TIMED_OUT = "check_timed_out"
    CHECK_CHANGED = "check_changed"
    TELLING = "telling"
    TOLD = "told"
    STALLED = "stalled"
    TIMEOUT = "timeout"
    IDLE = "idle"
    INTERRUPTED = "interrupted"
    UNREADABLE = "unreadable"
    CLOSED = "closed"


REPORTED_BY_HAND = (
    Kind.STARTED,
    Kind.PROGRESS,
    Kind.PERMISSION_REQUIRED,
    Kind.RESUMED,
    Kind.COMPLETED,
    Kind.ERROR,
)
"""The kinds that `publish --event` takes. `turn_ended` comes from hooks alone."""

REPORTED = frozenset({*REPORTED_BY_HAND, Kind.TURN_ENDED})
"""The kinds that count when they come from an agent or its hooks."""

CLAIMS = frozenset({Kind.COMPLETED, Kind.ERROR})
"""The kinds by which an agent says that the job has ended."""

_HOOKS = frozenset({Source.HOOK})
_REPORTERS = frozenset({Source.AGENT, Source.HOOK})
_LAUNCHERS = frozenset({Source.RUNNER, Source.OWNER})
_SOURCES: Mapping[Kind, frozenset[Source]] = MappingProxyType(
    {kind: frozenset({Source.OWNER}) for kind in Kind}
    | dict.fromkeys(REPORTED, _REPORTERS)
    | {
        Kind.TURN_ENDED: _HOOKS,
        # The owner sees a start-up dialog that no hook tells of.
        Kind.PERMISSION_REQUIRED: _REPORTERS | {Source.OWNER},
    }
    | dict.fromkeys((Kind.SPAWNED, Kind.SPAWN_FAILED, Kind.EXITED), _LAUNCHERS)
    | {
        Kind.CANCEL_REQUESTED: frozenset({Source.USER}),
        Kind.VERIFIED: frozenset({Source.USER}),
        Kind.SENT: frozenset({Source.USER}),
        Kind.APPROVED: frozenset({Source.USER}),
        Kind.DENIED: frozenset({Source.USER}),
        Kind.ANSWERED: frozenset({Source.USER}),
    }
)


class Event(NamedTuple):
    """One thing that happened to one job.

    `id` is unique within the job and makes a repeat harmless. `kind` is a `Kind` or, from a newer or odd
    reporter, any other text. `at` is when the source says it happened, `received_at` when the owner read it;
    both are RFC 3339 in UTC.
    """

    id: str
    job_id: str
    kind: str
    source: Source
    at: str
    detail: str | None = None
    data: Mapping[str, Any] = {}
    received_at: str = ""

    @property
    def known_kind(self) -> Kind | None:
        """The `Kind`, or None when the kind is unknown or this source may not say it."""
        try:
            kind = Kind(self.kind)
        except ValueError:
            return None
        return kind if self.source in _SOURCES[kind] else None
