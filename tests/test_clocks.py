import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_job.clocks import Clocks, Stopwatch
from delegate_job.job import JobState

COUNTING = {JobState.LAUNCHING, JobState.RUNNING, JobState.WAITING}
SECONDS = st.integers(0, 10_000).map(float)


class Time:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def time() -> Time:
    """Give the time."""
    return Time()


def clocks(time: Time, *, timeout: float = 60.0, left: float = 60.0, quiet_for: float = 0.0) -> Clocks:
    """Return the clocks of a job, on this time."""
    return Clocks(timeout=timeout, timeout_left=left, quiet_for=quiet_for, monotonic=time)


def test_a_stopwatch_counts_while_it_runs(time: Time) -> None:
    """Time that passes while it stands still does not count; to say the same twice changes nothing."""
    watch = Stopwatch(5.0, time)
    time.now += 10
    assert (watch.elapsed, watch.running) == (5.0, False)
    watch.run(True)
    time.now += 1
    watch.run(True)
    time.now += 1
    assert (watch.elapsed, watch.running) == (7.0, True)
    watch.run(False)
    watch.run(False)
    time.now += 10
    assert watch.elapsed == 7.0


def test_a_stopwatch_begins_again_at_zero(time: Time) -> None:
    """Reset keeps it running, or keeps it still."""
    watch = Stopwatch(5.0, time)
    watch.reset()
    time.now += 3
    assert watch.elapsed == 0.0
    watch.run(True)
    time.now += 3
    watch.reset()
    time.now += 2
    assert watch.elapsed == 2.0


@pytest.mark.parametrize("state", JobState)
def test_the_timeout_counts_while_the_agent_may_work(time: Time, state: JobState) -> None:
    """From launching on, and while it waits for a person; not while the check runs, nor before or after."""
    running = clocks(time)
    running.follow(state)
    time.now += 20
    assert running.timeout_left == (40.0 if state in COUNTING else 60.0)


@pytest.mark.parametrize("state", JobState)
def test_a_job_times_out_only_where_the_timeout_counts(time: Time, state: JobState) -> None:
    """What is used up ends no job that is being checked: it ends when the agent would go on."""
    spent = clocks(time, left=0.0)
    spent.follow(state)
    assert spent.timed_out == (state in COUNTING)


def test_a_job_times_out_when_nothing_is_left(time: Time) -> None:
    """Not a moment before."""
    running = clocks(time)
    running.follow(JobState.RUNNING)
    time.now += 59.9
    assert not running.timed_out
    time.now += 0.1
    assert running.timed_out


@pytest.mark.parametrize("state", JobState)
def test_quiet_counts_only_while_the_agent_works(time: Time, state: JobState) -> None:
    """A job that waits for a person, for its check or for its launch is not idle."""
    running = clocks(time)
    running.follow(state)
    time.now += 20
    assert running.quiet_for == (20.0 if state is JobState.RUNNING else 0.0)


def test_a_sign_of_life_ends_the_quiet(time: Time) -> None:
    """It begins again at zero, and the timeout takes no notice."""
    running = clocks(time)
    running.follow(JobState.RUNNING)
    time.now += 20
    running.stir()
    time.now += 5
    assert (running.quiet_for, running.timeout_left) == (5.0, 35.0)


def test_what_a_new_owner_was_left_with(time: Time) -> None:
    """It goes on with the rest; the time without an owner, however long, has not counted."""
    first = clocks(time)
    first.follow(JobState.RUNNING)
    time.now += 25
    left, quiet = first.timeout_left, first.quiet_for
    time.now = 5.0  # another boot
    second = clocks(time, left=left, quiet_for=quiet)
    second.follow(JobState.RUNNING)
    time.now += 10
    assert (second.timeout_left, second.quiet_for) == (25.0, 35.0)


@given(st.lists(st.tuples(st.sampled_from(JobState), SECONDS)), st.integers(0, 20))
def test_any_owners_in_any_states_count_the_same(
    history: list[tuple[JobState, float]], takeover: int
) -> None:
    """The time used is the sum of the time in counting states, through any history and any takeover."""
    time = Time()
    running = clocks(time, timeout=60.0)
    for number, (state, seconds) in enumerate(history):
        if number == takeover:
            running = clocks(time, timeout=60.0, left=running.timeout_left, quiet_for=running.quiet_for)
        running.follow(state)
        time.now += seconds
    assert running.timeout_left == 60.0 - sum(seconds for state, seconds in history if state in COUNTING)
    assert running.quiet_for == sum(seconds for state, seconds in history if state is JobState.RUNNING)
