"""Every transition of a job, in one table, and `advance`, the one function that reads it.

It does nothing to the world: it says what is owed, and an owner does it.

The rules
- `advance` is total. An event that means nothing where the job stands gives back the same job (the very
  object), and the owner records it with `applied: false`.
- Which steps exist is the table's matter. A cell holds its steps in order; the first one whose guard holds is
  taken; a cell in which no guard holds means nothing.
- `outcome` is set if and only if the state is `done`. Done is final: only `closed`, which clears what is
  owed, still applies.
- A claim (`completed`, `error`) counts in any live state, also before the agent was seen to start. The one
  exception: while a rejection has not been delivered (`untold`), claims belong to the round before. With
  `--accept-silent-stop` the end of a turn without a report, or an exit with 0, is as good as `completed`.
- `waiting` is left by any sign that the agent works again. Time limits are the owner's clocks; here they are
  events like any other.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.events import CLAIMS, REPORTED, Event, Kind, Source
from delegate_job.job import Action, Job, JobState, Outcome, Verdict


class Guard(NamedTuple):
    """A named condition on the job as it stands before the event."""

    name: str
    holds: Callable[[Job, Event], bool]


class Step(NamedTuple):
    """Where an event leads, what it sets, and what is owed after it (None: what was owed stays)."""

    target: JobState
    outcome: Outcome | None = None
    guard: Guard | None = None
    owes: Action | None = None
    settles: Action | None = None
    """The action that this event proves to be done."""
    verdict: Verdict | None = None
    reason: str | None = None
    untold: bool | None = None
    unheard: bool | None = None


TOLD_ALL = Guard("no rejection on its way", lambda job, _: not job.untold)
TOLD_ALL_UNCHECKED = Guard(
    "no check given, no rejection on its way", lambda job, _: not job.untold and job.spec.validate is None
)
CHECKS_LEFT = Guard("checks left", lambda job, _: job.checks_left)
SILENT_STOP = Guard(
    "--accept-silent-stop, no rejection on its way",
    lambda job, _: job.spec.accept_silent_stop and job.spec.validate is not None and not job.untold,
)
SILENT_EXIT = Guard(
    "exit code 0, --accept-silent-stop",
    lambda job, event: event.data.get("exit_code") == 0 and SILENT_STOP.holds(job, event),
)
FAIL_ON_INPUT = Guard("--fail-on-input", lambda job, _: job.spec.fail_on_input)
MUST_HEAR = Guard("a rejection is undelivered or unheard", lambda job, _: job.untold or job.unheard)


def _done(outcome: Outcome, reason: str, guard: Guard | None = None, verdict: Verdict | None = None) -> Step:
    return Step(
        JobState.DONE,
        outcome,
        guard=guard,
        owes=Action.CLOSE,
        reason=reason,
        verdict=verdict,
        untold=False,
        unheard=False,
    )


_CANCELLED = (_done(Outcome.CANCELLED, "cancelled"),)
_TIMED_OUT = (_done(Outcome.TIMED_OUT, "--timeout ran out"),)
_IDLE = (_done(Outcome.IDLE, "no report and nothing new on the screen"),)
_NOT_STARTED = (_done(Outcome.NOT_STARTED, "the agent could not be started"),)
_LOST = _done(Outcome.LOST, "the agent ended without a report")

_INTERRUPTIONS: dict[Kind, tuple[Step, ...]] = {
    Kind.CANCEL_REQUESTED: _CANCELLED,
    Kind.INTERRUPTED: _CANCELLED,
    Kind.TIMEOUT: _TIMED_OUT,
}
_CLAIMED: dict[Kind, tuple[Step, ...]] = {
    Kind.COMPLETED: (
        _done(Outcome.ACCEPTED, "completed", guard=TOLD_ALL_UNCHECKED),
        Step(JobState.CHECKING, guard=TOLD_ALL, owes=Action.CHECK, unheard=False),
    ),
    Kind.ERROR: (_done(Outcome.FAILED, "the agent reported an error", guard=TOLD_ALL),),
}
_NEEDS_A_PERSON: dict[Kind, tuple[Step, ...]] = {
    Kind.PERMISSION_REQUIRED: (
        _done(Outcome.NEEDS_INPUT, "permission required", guard=FAIL_ON_INPUT),
        Step(JobState.WAITING, reason="permission required", unheard=False),
    ),
    Kind.TURN_ENDED: (
        Step(JobState.CHECKING, guard=SILENT_STOP, owes=Action.CHECK, unheard=False),
        _done(Outcome.NEEDS_INPUT, "turn ended without a report", guard=FAIL_ON_INPUT),
        Step(JobState.WAITING, reason="turn ended without a report", unheard=False),
    ),
}
_AT_WORK: dict[Kind, tuple[Step, ...]] = dict.fromkeys(
    (Kind.STARTED, Kind.PROGRESS, Kind.RESUMED), (Step(JobState.RUNNING, unheard=False),)
)
# What a person has typed for the agent: it works again, and has not been heard of yet.
_SENT: dict[Kind, tuple[Step, ...]] = {Kind.SENT: (Step(JobState.RUNNING),)}
_RELAUNCH = Step(JobState.RUNNING, guard=MUST_HEAR, owes=Action.TELL, untold=True, unheard=False)
_ENDED: dict[Kind, tuple[Step, ...]] = dict.fromkeys((Kind.EXITED, Kind.VANISHED), (_RELAUNCH, _LOST))
# One shot, after which a program exits, is a turn; one that waits for a person was not done with it.
_SILENT_EXIT = Step(JobState.CHECKING, guard=SILENT_EXIT, owes=Action.CHECK, unheard=False)
_TELLING: dict[Kind, tuple[Step, ...]] = {
    Kind.TELLING: (Step(JobState.RUNNING, untold=False, unheard=True),),
    # The agent may have ended in between: then it is to be told anew.
    Kind.TOLD: (Step(JobState.RUNNING, guard=TOLD_ALL, settles=Action.TELL),),
}
_REJECTED = tuple(
    (
        Step(JobState.RUNNING, guard=CHECKS_LEFT, owes=Action.TELL, verdict=verdict, untold=True),
        _done(Outcome.REJECTED, "the check rejected the work", verdict=verdict),
    )
    for verdict in (Verdict.FAILED, Verdict.TIMED_OUT)
)

TABLE: Mapping[JobState, Mapping[Kind, tuple[Step, ...]]] = MappingProxyType(
    {
        JobState.REGISTERED: {
            Kind.LAUNCHING: (Step(JobState.LAUNCHING, owes=Action.LAUNCH),),
            Kind.NOT_LAUNCHED: _NOT_STARTED,
            **_INTERRUPTIONS,
        },
        JobState.LAUNCHING: {
            Kind.SPAWNED: (Step(JobState.RUNNING, settles=Action.LAUNCH),),
            Kind.NOT_LAUNCHED: _NOT_STARTED,
            Kind.SPAWN_FAILED: _NOT_STARTED,
            Kind.VANISHED: _NOT_STARTED,
            Kind.EXITED: (_LOST,),
            **_AT_WORK,
            **_NEEDS_A_PERSON,
            **_CLAIMED,
            **_INTERRUPTIONS,
        },
        JobState.RUNNING: {
            # A new launch heard the rejection in its instructions.
            Kind.SPAWNED: (Step(JobState.RUNNING, settles=Action.LAUNCH, unheard=False),),
            Kind.SPAWN_FAILED: (_LOST,),
            Kind.NOT_LAUNCHED: (_LOST,),
            Kind.STALLED: (Step(JobState.RUNNING),),
            Kind.IDLE: _IDLE,
            **_AT_WORK,
            **_NEEDS_A_PERSON,
            **_CLAIMED,
            **_ENDED,
            Kind.EXITED: (_RELAUNCH, _SILENT_EXIT, _LOST),
            **_TELLING,
            **_SENT,
            **_INTERRUPTIONS,
        },
        JobState.WAITING: {
            Kind.SPAWNED: (Step(JobState.WAITING, settles=Action.LAUNCH),),
            Kind.SPAWN_FAILED: (_LOST,),
            **_AT_WORK,
            **_NEEDS_A_PERSON,
            **_CLAIMED,
            **_ENDED,
            **_TELLING,
            # What was told is no answer to what it waits for, which came while it was being told.
            Kind.TOLD: (Step(JobState.WAITING, guard=TOLD_ALL, settles=Action.TELL),),
            **_SENT,
            **_INTERRUPTIONS,
        },
        JobState.CHECKING: {
            Kind.CHECK_PASSED: (
                _done(Outcome.ACCEPTED, "completed and passed by the check", verdict=Verdict.PASSED),
            ),
            Kind.CHECK_FAILED: _REJECTED[0],
            Kind.CHECK_TIMED_OUT: _REJECTED[1],
            Kind.CHECK_CHANGED: (
                _done(Outcome.REJECTED, "the check was changed after submit", verdict=Verdict.CHANGED),
            ),
            # The agent may leave while its work is checked; only a rejection would need it again.
            Kind.EXITED: (Step(JobState.CHECKING),),
            Kind.VANISHED: (Step(JobState.CHECKING),),
            Kind.CANCEL_REQUESTED: _CANCELLED,
            Kind.INTERRUPTED: _CANCELLED,
        },
        JobState.DONE: {Kind.CLOSED: (Step(JobState.DONE, settles=Action.CLOSE),)},
    }
)


def advance(job: Job, event: Event) -> Job:
    """Return the job after `event`: a new value, or `job` itself when the event means nothing to it."""
    step = _step(job, event)
    if step is None:
        return job
    after = job._replace(
        state=step.target,
        outcome=step.outcome or job.outcome,
        verdict=step.verdict or job.verdict,
        owed=_owed(job, step),
        reason=_reason(job, step, event),
        untold=job.untold if step.untold is None else step.untold,
        unheard=_is_unheard(job, step, event),
    )
    return _dated(job, after, event)


def _step(job: Job, event: Event) -> Step | None:
    kind = event.known_kind
    if kind is None or event.job_id != job.id:
        return None
    steps = TABLE[job.state].get(kind, ())
    return next((step for step in steps if step.guard is None or step.guard.holds(job, event)), None)


def _owed(job: Job, step: Step) -> Action | None:
    if step.owes is not None:
        return step.owes
    # A claim, or a relaunch cut short, overtakes what was owed before it.
    return None if step.settles is job.owed else job.owed


def _is_unheard(job: Job, step: Step, event: Event) -> bool:
    """A hook may still tell of the turn before: by hooks only a prompt that was taken counts as heard."""
    goes_on = step.target in {JobState.RUNNING, JobState.WAITING}
    late = event.source is Source.HOOK and goes_on and "receipt" not in event.data
    return job.unheard if step.unheard is None or late else step.unheard


def _reason(job: Job, step: Step, event: Event) -> str | None:
    if step.target is JobState.WAITING:
        return str(event.data.get("reason") or step.reason or job.reason)
    if step.target is JobState.DONE:
        return _end_reason(job, step, event)
    return None


def _end_reason(job: Job, step: Step, event: Event) -> str | None:
    if step.reason is None:
        return job.reason
    said_by_owner = (event.kind not in REPORTED or event.source is Source.OWNER) and event.detail
    return f"{step.reason}: {event.detail}" if said_by_owner else step.reason


def _dated(before: Job, after: Job, event: Event) -> Job:
    said = event.kind in REPORTED and event.detail is not None
    ends = after.done and not before.done
    starts = before.started_at is None and event.kind in {Kind.SPAWNED, *_AT_WORK, *CLAIMS}
    checks = after.state is JobState.CHECKING and before.state is not JobState.CHECKING
    return after._replace(
        attempt=before.attempt + checks,
        detail=event.detail if said else before.detail,
        started_at=event.received_at if starts else before.started_at,
        ended_at=event.received_at if ends else before.ended_at,
        last_event=before.last_event if event.kind == Kind.CLOSED else event.kind,
        last_event_at=before.last_event_at if event.kind == Kind.CLOSED else event.received_at,
    )
