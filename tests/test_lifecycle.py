import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples
from delegate_job.events import CLAIMS, REPORTED, REPORTED_BY_HAND, Event, Kind, Source
from delegate_job.exit_codes import ExitCode, exit_code_of
from delegate_job.job import Action, Job, JobState, Outcome, Verdict
from delegate_job.lifecycle import TABLE, advance
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Progress

LIVE = (JobState.LAUNCHING, JobState.RUNNING, JobState.WAITING)
REPORTERS = (Source.AGENT, Source.HOOK)

KINDS = st.sampled_from(Kind) | st.text(max_size=20)
DATA = st.dictionaries(st.sampled_from(["reason", "how", "output"]), st.none() | st.text() | st.integers())
SPECS = st.fixed_dictionaries(
    {
        "validate": st.sampled_from([None, "/checks/check.sh"]),
        "attempts": st.integers(1, 3),
        "fail_on_input": st.booleans(),
        "accept_silent_stop": st.booleans(),
    }
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event: by anyone, of any kind, now and then of another job."""
    return samples.event(
        draw(KINDS),
        draw(st.sampled_from(Source)),
        id=draw(st.uuids().map(str)),
        job_id=draw(st.sampled_from(["abcdefghjk"] * 9 + ["another"])),
        detail=draw(st.none() | st.text(max_size=20)),
        data=draw(DATA),
        received_at=draw(st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")),
    )


@st.composite
def likely_events(draw: st.DrawFn) -> Event:
    """An event by one who may say it: these lead far, where any event mostly means nothing."""
    event = draw(events())
    kind = draw(st.sampled_from(Kind))
    return event._replace(job_id="abcdefghjk", kind=kind, source=source_of(kind))


HISTORIES = st.lists(events() | likely_events(), max_size=25)


def source_of(kind: Kind) -> Source:
    """Return one who may say this."""
    return next(source for source in Source if samples.event(kind, source).known_kind is kind)


def reachable(**spec: Any) -> Iterator[tuple[Job, Kind, Job]]:
    """Yield every step, (before, kind, after), that any events can bring about; times stand still."""
    begin = samples.job(**spec)
    seen, ahead = {begin}, [begin]
    while ahead:
        before = ahead.pop()
        for kind in Kind:
            after = advance(before, samples.event(kind, source_of(kind)))
            yield before, kind, after
            if after not in seen:
                seen.add(after)
                ahead.append(after)


def every_step() -> list[tuple[Job, Kind, Job]]:
    """Return the steps of every sort of spec."""
    return [
        step
        for validate in (None, "/checks/check.sh")
        for attempts in (1, 2, 3)
        for fail_on_input in (False, True)
        for silent in (False, True)
        for step in reachable(
            validate=validate, attempts=attempts, fail_on_input=fail_on_input, accept_silent_stop=silent
        )
    ]


STEPS = every_step()
JOBS = list(dict.fromkeys(before for before, _, _ in STEPS))


@given(SPECS, HISTORIES)
def test_any_history_is_accepted_and_leaves_a_job_that_makes_sense(
    spec: dict[str, Any], history: list[Event]
) -> None:
    """Whatever comes, in whatever order: an outcome exactly when done, and never more checks than allowed."""
    job = samples.job(**spec)
    for event in history:
        before, job = job, advance(job, event)
        assert (job.outcome is not None) == job.done == (job.ended_at is not None)
        assert before.attempt <= job.attempt <= before.attempt + 1
        assert job.attempt <= job.spec.attempts
        assert job.spec is before.spec
        assert job.created_at == samples.CREATED
        assert job.state is not JobState.CHECKING or job.owed is Action.CHECK
        assert not job.done or job.owed in {Action.CLOSE, None}
        assert not job.done or not (job.untold or job.unheard)


@given(SPECS, HISTORIES, HISTORIES)
def test_done_is_final(spec: dict[str, Any], history: list[Event], later: list[Event]) -> None:
    """F7: no event changes how a job ended; only what it owes is cleared, by `closed` from its owner."""
    job = samples.job(**spec)
    for event in history:
        job = advance(job, event)
    end = job if job.done else advance(job, samples.event(Kind.INTERRUPTED))
    job = end
    for event in later:
        before, job = job, advance(job, event)
        assert job is before or (event.known_kind is Kind.CLOSED and job == before._replace(owed=None))
    assert job._replace(owed=None) == end._replace(owed=None)


@given(SPECS, HISTORIES)
def test_an_event_that_means_nothing_returns_the_very_job(spec: dict[str, Any], history: list[Event]) -> None:
    """An unknown kind, one that its source may not say, and another job's event change nothing at all."""
    job = samples.job(**spec)
    for event in history:
        after = advance(job, event)
        if event.job_id != job.id or event.known_kind is None or event.kind not in TABLE[job.state]:
            assert after is job
        job = after


@given(SPECS, HISTORIES)
def test_an_event_that_means_something_is_dated(spec: dict[str, Any], history: list[Event]) -> None:
    """A job knows its last event and when its owner received it; it starts and ends once."""
    job = samples.job(**spec)
    for event in history:
        before, job = job, advance(job, event)
        if job is before or event.kind == Kind.CLOSED:
            assert (job.last_event, job.last_event_at) == (before.last_event, before.last_event_at)
            continue
        assert (job.last_event, job.last_event_at) == (event.kind, event.received_at)
        assert job.started_at == (before.started_at or job.started_at)
        assert job.ended_at == (event.received_at if job.done else None)


@given(SPECS, HISTORIES)
def test_replaying_the_recorded_events_gives_the_row(spec: dict[str, Any], history: list[Event]) -> None:
    """The registry's events, read back and applied in order, lead to its job; `applied` tells the truth."""
    with tempfile.TemporaryDirectory() as directory, Registry(RegistryPaths(Path(directory))) as registry:
        job = samples.job(**spec)
        registry.add(job, samples.event(Kind.REGISTERED))
        epoch = registry.take_ownership(job.id, pid=1, host="here")
        for event in history:
            if event.job_id == job.id:
                after = advance(job, event)
                registry.record(event, after, applied=after is not job, progress=Progress(), epoch=epoch)
                job = after
        replayed = samples.job(**spec)
        for recorded in list(registry.events(job.id))[1:]:
            before, replayed = replayed, advance(replayed, recorded.event)
            assert recorded.applied == (replayed is not before)
        assert replayed == registry.row(job.id).job


@pytest.mark.parametrize("state", JobState)
def test_every_state_is_reached(state: JobState) -> None:
    """No state of the table is there in vain."""
    assert state in {job.state for job in JOBS}


@pytest.mark.parametrize("claim", sorted(CLAIMS))
@pytest.mark.parametrize("source", REPORTERS)
def test_f2_a_claim_counts_in_any_live_state(claim: Kind, source: Source) -> None:
    """F2: started or not, waiting or not, a claim is applied; but not while a rejection is on its way."""
    live = [job for job in JOBS if job.state in LIVE]
    assert {job.state for job in live} == set(LIVE)
    for job in live:
        after = advance(job, samples.event(claim, source))
        assert (after is job) == job.untold
        if not job.untold:
            assert after.done or after.state is JobState.CHECKING


def test_f3_a_stalled_job_still_takes_a_claim() -> None:
    """F3: `stalled` is a remark: it ends nothing, owes nothing, and what comes after it counts."""
    running = samples.job(state=JobState.RUNNING)
    stalled = advance(running, samples.event(Kind.STALLED))
    assert (stalled.state, stalled.owed, stalled.last_event) == (JobState.RUNNING, None, Kind.STALLED)
    assert advance(stalled, samples.event(Kind.COMPLETED, Source.AGENT)).outcome is Outcome.ACCEPTED


def test_f4_a_claim_of_the_round_before_does_not_count() -> None:
    """F4: between a rejection and its delivery claims mean nothing; then they count again."""
    job = samples.job(validate="/check", attempts=2, state=JobState.CHECKING, attempt=1, owed=Action.CHECK)
    rejected = advance(job, samples.event(Kind.CHECK_FAILED))
    assert (rejected.state, rejected.owed, rejected.verdict) == (
        JobState.RUNNING,
        Action.TELL,
        Verdict.FAILED,
    )
    for claim in CLAIMS:
        assert advance(rejected, samples.event(claim, Source.AGENT)) is rejected
    told = advance(rejected, samples.event(Kind.TELLING))
    assert advance(told, samples.event(Kind.COMPLETED, Source.AGENT)).state is JobState.CHECKING
    assert advance(told, samples.event(Kind.ERROR, Source.AGENT)).outcome is Outcome.FAILED


def test_an_agent_that_ends_while_it_is_told_is_told_again() -> None:
    """`told` counts for the agent that was told: one that has ended since is owed another launch."""
    rejected = samples.job(state=JobState.RUNNING, owed=Action.TELL, untold=True, attempts=3, attempt=1)
    left = advance(advance(rejected, samples.event(Kind.TELLING)), samples.event(Kind.EXITED, Source.RUNNER))
    assert (left.owed, left.untold) == (Action.TELL, True)
    assert advance(left, samples.event(Kind.TOLD)) is left


def test_an_agent_says_only_what_agents_may_say() -> None:
    """No agent and no hook can spawn, exit, cancel, time out, check or close a job, wherever it stands."""
    for kind in set(Kind) - REPORTED:
        for source in REPORTERS:
            said = samples.event(kind, source)
            assert said.known_kind is None
            assert all(advance(job, said) is job for job in JOBS)


MAY_SEE = {Kind.PERMISSION_REQUIRED: {Source.OWNER}}
"""What others than reporters may say too."""


def test_only_reporters_report() -> None:
    """What an agent claims can be said by nobody else: no owner, runner or user completes a job.

    The one exception: an owner sees a start-up dialog, of which no hook tells.
    """
    for kind in REPORTED:
        for source in set(Source) - set(REPORTERS) - MAY_SEE.get(kind, set()):
            assert all(advance(job, samples.event(kind, source)) is job for job in JOBS)


def test_only_a_hook_knows_of_the_end_of_a_turn() -> None:
    """`turn_ended` by an agent's own line means nothing, wherever the job stands."""
    for source in set(Source) - {Source.HOOK}:
        assert all(advance(job, samples.event(Kind.TURN_ENDED, source)) is job for job in JOBS)


def test_by_hand_means_no_ends_of_turns() -> None:
    """`publish` takes every kind of report but `turn_ended`, which only a hook can know."""
    assert set(REPORTED_BY_HAND) == REPORTED - {Kind.TURN_ENDED}


def test_each_outcome_is_reached_as_the_design_says() -> None:
    """From which states a job can end how: the whole picture, nothing missing and nothing more."""
    found = defaultdict(set)
    for before, _, after in STEPS:
        if after.outcome and not before.done:
            found[after.outcome].add(before.state)
    assert found == {
        Outcome.ACCEPTED: {*LIVE, JobState.CHECKING},
        Outcome.FAILED: set(LIVE),
        Outcome.REJECTED: {JobState.CHECKING},
        Outcome.LOST: set(LIVE),
        Outcome.TIMED_OUT: {JobState.REGISTERED, *LIVE},
        Outcome.IDLE: {JobState.RUNNING},
        # With --fail-on-input, and only then, and so it never waits.
        Outcome.NEEDS_INPUT: {JobState.LAUNCHING, JobState.RUNNING},
        Outcome.CANCELLED: {JobState.REGISTERED, *LIVE, JobState.CHECKING},
        Outcome.NOT_STARTED: {JobState.REGISTERED, JobState.LAUNCHING},
    }


def test_states_follow_each_other_as_the_design_says() -> None:
    """Which live state leads to which: the arrows of the diagram, nothing missing and nothing more."""
    found = {(before.state, after.state) for before, _, after in STEPS if before.state is not after.state}
    assert {pair for pair in found if pair[1] is not JobState.DONE} == {
        (JobState.REGISTERED, JobState.LAUNCHING),
        (JobState.LAUNCHING, JobState.RUNNING),
        (JobState.LAUNCHING, JobState.WAITING),
        (JobState.LAUNCHING, JobState.CHECKING),
        (JobState.RUNNING, JobState.WAITING),
        (JobState.RUNNING, JobState.CHECKING),
        (JobState.WAITING, JobState.RUNNING),
        (JobState.WAITING, JobState.CHECKING),
        (JobState.CHECKING, JobState.RUNNING),
    }


def test_accepted_means_claimed_and_passed() -> None:
    """A job with a check is accepted by that check alone; one without has the claim and no verdict."""
    for before, kind, after in STEPS:
        if after.outcome is Outcome.ACCEPTED and not before.done:
            checked = after.spec.validate is not None
            assert kind is (Kind.CHECK_PASSED if checked else Kind.COMPLETED)
            assert after.verdict is (Verdict.PASSED if checked else None)


def test_a_rejection_goes_back_only_while_checks_are_left() -> None:
    """`--attempts N` is N checks in all: N-1 rejections are told, the last one ends the job."""
    for before, kind, after in STEPS:
        if kind in {Kind.CHECK_FAILED, Kind.CHECK_TIMED_OUT} and before.state is JobState.CHECKING:
            is_last = before.attempt == before.spec.attempts
            assert after.outcome is (Outcome.REJECTED if is_last else None)
            assert after.owed is (Action.CLOSE if is_last else Action.TELL)


def test_a_changed_check_ends_the_job_at_once() -> None:
    """A script that is not the one of the submit gets no second attempt."""
    job = samples.job(validate="/check", attempts=3, state=JobState.CHECKING, attempt=1, owed=Action.CHECK)
    changed = advance(job, samples.event(Kind.CHECK_CHANGED))
    assert (changed.outcome, changed.verdict) == (Outcome.REJECTED, Verdict.CHANGED)


def test_an_exit_during_the_check_ends_nothing() -> None:
    """The agent may leave while its work is judged: neither `exited` nor `vanished` makes the job lost."""
    for job in (job for job in JOBS if job.state is JobState.CHECKING):
        for kind in (Kind.EXITED, Kind.VANISHED):
            after = advance(job, samples.event(kind, source_of(kind)))
            assert (after.state, after.owed) == (JobState.CHECKING, Action.CHECK)


def test_an_agent_that_left_before_it_heard_of_the_rejection_is_told_again() -> None:
    """An end without a word after a rejection owes another tell; an end after a new start is `lost`."""
    unheard = samples.job(validate="/check", attempts=2, attempt=1, state=JobState.RUNNING, unheard=True)
    exited = samples.event(Kind.EXITED, Source.RUNNER)
    left = advance(unheard, exited)
    assert (left.state, left.owed, left.untold) == (JobState.RUNNING, Action.TELL, True)
    relaunched = advance(advance(left, samples.event(Kind.TELLING)), samples.event(Kind.TOLD))
    spawned = advance(relaunched, samples.event(Kind.SPAWNED, Source.RUNNER))
    assert advance(spawned, exited).outcome is Outcome.LOST


@pytest.mark.parametrize("kind", [Kind.STARTED, Kind.PROGRESS, Kind.RESUMED, Kind.PERMISSION_REQUIRED])
def test_what_a_hook_tells_late_is_no_word_on_the_rejection(kind: Kind) -> None:
    """Of hooks only the receipt of a prompt says that a rejection was heard; the agent's own word does."""
    unheard = samples.job(validate="/check", attempts=2, attempt=1, state=JobState.RUNNING, unheard=True)
    exited = samples.event(Kind.EXITED, Source.RUNNER)
    late = advance(unheard, samples.event(kind, Source.HOOK))
    assert advance(late, exited).owed is Action.TELL
    taken = samples.event(kind, Source.HOOK, data={"receipt": 2})
    for heard in (taken, samples.event(kind, Source.AGENT)):
        assert advance(advance(late, heard), exited).outcome is Outcome.LOST


def test_a_silent_exit_goes_to_the_check_where_that_was_asked_for() -> None:
    """With `--accept-silent-stop` an exit with 0 is the silent end of a turn; another, or in a wait, not."""
    well, badly = (samples.event(Kind.EXITED, Source.RUNNER, data={"exit_code": code}) for code in (0, 1))
    silent: dict[str, Any] = {"validate": "/check", "accept_silent_stop": True}
    running = samples.job(state=JobState.RUNNING, **silent)
    assert (advance(running, well).state, advance(running, well).owed) == (JobState.CHECKING, Action.CHECK)
    assert advance(running, badly).outcome is Outcome.LOST
    assert advance(samples.job(state=JobState.WAITING, **silent), well).outcome is Outcome.LOST
    assert advance(samples.job(state=JobState.RUNNING, validate="/check"), well).outcome is Outcome.LOST
    assert advance(running._replace(unheard=True), well).owed is Action.TELL


def test_waiting_says_why() -> None:
    """A waiting job has a reason, the hook's own where it gave one; one that works again has none."""
    for job in JOBS:
        assert job.state is not JobState.WAITING or job.reason not in {None, "None"}
        assert job.state is not JobState.RUNNING or job.reason is None
    asked = samples.event(Kind.PERMISSION_REQUIRED, Source.HOOK, data={"reason": "may I run make?"})
    assert advance(samples.job(state=JobState.RUNNING), asked).reason == "may I run make?"


def test_a_person_is_waited_for_unless_told_otherwise() -> None:
    """`--fail-on-input` ends the job where it would wait; without it nothing that waits ends by that."""
    for before, kind, after in STEPS:
        is_silent_stop = kind is Kind.TURN_ENDED and before.spec.accept_silent_stop and before.spec.validate
        if is_silent_stop and not before.untold:
            continue
        if kind in {Kind.PERMISSION_REQUIRED, Kind.TURN_ENDED} and before.state in LIVE:
            fails = before.spec.fail_on_input
            assert after.outcome is (Outcome.NEEDS_INPUT if fails else None)
            assert after.state is (JobState.DONE if fails else JobState.WAITING)


def test_a_silent_stop_goes_to_the_check_where_that_was_asked_for() -> None:
    """With `--accept-silent-stop` the check decides on a turn without a report, as on a claim."""
    for before, kind, after in STEPS:
        asked = before.spec.accept_silent_stop and before.spec.validate is not None
        if kind is Kind.TURN_ENDED and asked and before.state in LIVE and not before.untold:
            assert (after.state, after.owed, after.outcome) == (JobState.CHECKING, Action.CHECK, None)


def test_the_end_of_a_turn_before_a_rejection_is_delivered_is_no_answer_to_it() -> None:
    """A silent stop of the round before the rejection starts no check on unchanged work."""
    job = samples.job(
        validate="/c", attempts=2, attempt=1, accept_silent_stop=True, state=JobState.RUNNING, untold=True
    )
    assert advance(job, samples.event(Kind.TURN_ENDED, Source.HOOK)).state is not JobState.CHECKING


def test_every_end_owes_a_close() -> None:
    """However a job ends, its owner still has to close it, and `closed` settles that."""
    for before, _, after in STEPS:
        if after.done and not before.done:
            assert after.owed is Action.CLOSE
            assert advance(after, samples.event(Kind.CLOSED)).owed is None


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_its_exit_code(outcome: Outcome) -> None:
    """The mapping is total and is the table that scripts rely on."""
    table = {
        "accepted": 0,
        "failed": 1,
        "rejected": 3,
        "lost": 4,
        "timed_out": 5,
        "idle": 6,
        "not_started": 7,
        "needs_input": 8,
        "cancelled": 9,
    }
    assert int(exit_code_of(outcome)) == table[outcome]


def test_exit_codes_are_distinct_and_those_of_the_table() -> None:
    """No two meanings share a number, and signals have theirs as a shell shows them."""
    assert {int(code) for code in ExitCode} == {*range(10), 70, 124, 129, 130, 143}
    assert len({exit_code_of(outcome) for outcome in Outcome}) == len(Outcome)
