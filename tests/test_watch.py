"""`watch` below its full screen: what changed since the last look, phases, a job's line, lines and JSON."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples
from delegate_job import following
from delegate_job.following import Follower
from delegate_job.job import Job, JobState, Outcome
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.table import width_of
from delegate_job.timeline import Timeline
from delegate_job.watch_rows import cells, counts, in_order, line_of, matches
from harness import Place, end_group
from owned import JOB, Desk

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Give a person's job that runs."""
    here = Desk(tmp_path)
    yield here
    here.close()


@pytest.fixture
def reader(desk: Desk) -> Iterator[Registry]:
    """Give the registry as another process sees it."""
    with Registry(RegistryPaths(desk.root / "registry")) as registry:
        yield registry


def test_the_phases_of_a_job(desk: Desk) -> None:
    """Its events, replayed, give each state with its beginning; taken in by parts as well as at once."""
    timeline = Timeline(desk.spec, samples.CREATED)
    desk.reported("permission_required", "may I?")
    timeline.take(desk.registry.events(JOB))
    assert timeline.phases[-1].state is JobState.WAITING
    desk.reported("resumed")
    desk.reported("progress", "half")
    desk.reported("completed")
    desk.settle()
    timeline.take(desk.registry.events(JOB, after=timeline.sequence))
    row = desk.registry.row(JOB)
    ways = ["registered", "launching", "running", "waiting", "running", "done"]
    assert [phase.state for phase in timeline.phases][-4:] == ways[-4:]
    assert timeline.phases[-1].outcome is Outcome.ACCEPTED
    assert (timeline.phases[-1].since, timeline.sequence) == (row.job.ended_at, row.sequence)


def test_only_what_changed_is_read_again(desk: Desk, reader: Registry) -> None:
    """The first look has all jobs, a later one those that changed, and none when nothing was committed."""
    desk.registry.add(samples.job("other"), samples.event("registered", job_id="other", id="o"))
    follower = Follower(reader)
    first = follower.look()
    assert first is not None
    assert {row.job.id for row in first.rows} == {JOB, "other"}
    assert follower.look() is None
    desk.reported("permission_required")
    changes = follower.look()
    assert changes is not None
    assert [(row.job.id, row.job.state) for row in changes.rows] == [(JOB, "waiting")]


def test_clocks_that_are_written_down_are_no_change(desk: Desk, reader: Registry) -> None:
    """A commit that changes nothing that is shown gives no row."""
    follower = Follower(reader)
    follower.look()
    desk.registry.set("anything", "else")
    changes = follower.look()
    assert changes is not None
    assert changes == ([], [])


def test_another_owner_is_a_change(desk: Desk, reader: Registry) -> None:
    """A job that was taken over is told of: a job's JSON says who owns it."""
    follower = Follower(reader, JOB)
    follower.look()
    desk.take_over()
    changes = follower.look()
    assert changes is not None
    assert [row.job.id for row in changes.rows] == [JOB]


def test_a_pruned_job_is_told_of(desk: Desk, reader: Registry) -> None:
    """A job that was forgotten is named once."""
    follower = Follower(reader)
    follower.look()
    desk.registry.forget(JOB)
    changes = follower.look()
    assert changes is not None
    assert changes.forgotten == [JOB]
    desk.registry.set("anything", "else")
    assert follower.look() == ([], [])


def test_following_one_job_ends_with_it(desk: Desk, reader: Registry) -> None:
    """What is yielded of one job ends when it is settled, and other jobs are left out."""
    desk.registry.add(samples.job("other"), samples.event("registered", job_id="other", id="o"))
    desk.reported("completed")
    desk.settle()
    seen = [row.job.id for changes in following.follow(reader, JOB, lambda: None) for row in changes.rows]
    assert seen == [JOB]


def row_of(job: Job, number: int = 1) -> Row:
    """Return a row that holds this job."""
    return Row(job, number, number)


def test_who_waits_stands_first() -> None:
    """Jobs that wait for a person, then the unfinished, then the rest; each newest first."""
    states: list[dict[str, Any]] = [
        {"state": JobState.DONE, "outcome": Outcome.ACCEPTED},
        {"state": JobState.WAITING},
        {"state": JobState.RUNNING},
        {"state": JobState.WAITING},
        {"state": JobState.DONE, "outcome": Outcome.FAILED},
    ]
    rows = [row_of(samples.job(f"j{number}", **values), number) for number, values in enumerate(states)]
    assert [row.job.id for row in in_order(rows)] == ["j3", "j1", "j2", "j4", "j0"]
    assert counts(rows) == "2 WAITING FOR YOU, 1 at work, 2 done"


@pytest.mark.parametrize(
    ("words", "fits"),
    [("", True), ("may", True), ("MAY waiting", True), ("command project", True), ("may done", False)],
)
def test_the_filter(words: str, *, fits: bool) -> None:
    """Every word must stand in what is shown of a job, whatever its case."""
    job = samples.job(state=JobState.WAITING, reason="permission required", detail="May I?")
    assert matches(row_of(job), words.casefold().split()) is fits


@given(
    st.text(max_size=40),
    st.text(max_size=400),
    st.sampled_from([*JobState]),
    st.integers(1, 250),
)
def test_a_jobs_line_is_as_wide_as_it_may_be(agent: str, detail: str, state: JobState, columns: int) -> None:
    """Whatever an agent says, its line has exactly the columns there are, and nothing drives the terminal."""
    job = samples.job(agent=agent, detail=detail, last_event=detail, state=state)
    line = line_of(cells(row_of(job), samples.CREATED), columns)
    assert width_of(line) == columns
    assert line.isprintable()


def test_at_80_columns_nothing_that_matters_is_cut() -> None:
    """Id, the longest state, and the checks stand in 80 columns, as do the last event's first words."""
    job = samples.job(state=JobState.DONE, outcome=Outcome.NEEDS_INPUT, last_event="permission_required")
    line = line_of(cells(row_of(job), samples.CREATED), 80)
    assert line.split()[:2] == ["abcdefghjk", "needs_input"]
    assert line.split()[-2:] == ["0/1", "permission_requ…"]


# -- the command, without a full screen


def lines_of(process: Any) -> Iterator[str]:
    """Yield what a command prints, as it comes."""
    while line := process.stdout.readline():
        yield line


def test_json_streams_every_change(place: Place) -> None:
    """One object of a job a line: what is unfinished, then each change; it ends when the one job is done."""
    agent = f"{REPORT} permission_required --detail 'may I'\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent))
    job_id = place.await_job()
    place.await_state(job_id, "waiting")
    watch = place.start("watch", job_id, "--json")
    lines = lines_of(watch)
    first = json.loads(next(lines))
    (place.work / "go").touch()
    documents = [first, *map(json.loads, lines)]
    assert watch.wait(30) == 0
    assert (submit.wait(30), documents[0]["state"]) == (0, "waiting")
    # That the agent has ended, too, may be recorded after the job was done: it changes nothing else.
    last = place.job(job_id)
    assert documents[-1] | {"sequence": last["sequence"]} == last
    sequences = [document["sequence"] for document in documents]
    assert sequences == sorted(sequences)


def test_lines_where_there_is_no_terminal(place: Place) -> None:
    """Without a terminal there is a line for each change, loud about a wait, until it is interrupted."""
    watch = place.start("watch")
    assert watch.stderr is not None
    assert "delegate-job submit" in watch.stderr.readline()
    agent = f"{REPORT} permission_required --detail $'may\\e[31m I'\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent))
    line = next(line for line in lines_of(watch) if " WAITING " in line)
    assert line.endswith("permission_required: permission required: may [31m I\n")
    (place.work / "go").touch()
    assert next(line for line in lines_of(watch) if " accepted " in line)
    assert submit.wait(30) == 0
    watch.send_signal(signal.SIGINT)
    assert watch.wait(10) == 130


def test_history_is_not_told_again(place: Place) -> None:
    """Of all jobs those that were done before are left to `list`; one that is named is shown as it is."""
    assert place.submit(COMPLETED).returncode == 0
    shown = place.run("watch", "@last", "--json")
    assert (shown.returncode, json.loads(shown.stdout)["outcome"]) == (0, "accepted")
    watch = place.start("watch", "--plain")
    assert watch.stderr is not None
    assert watch.stderr.readline().startswith("no unfinished jobs")
    end_group(watch)


def test_watch_gets_a_job_an_owner(place: Place) -> None:
    """A job whose owner is killed while somebody looks on has another owner, and goes on to its end."""
    submit = place.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}"))
    job_id = place.await_job()
    place.await_state(job_id, "running")
    with place.nobody_takes_over():
        watch = place.start("watch", job_id, "--json")
        next(lines_of(watch))
        os.kill(submit.pid, signal.SIGKILL)
        submit.wait(10)
    (place.work / "go").touch()
    last = list(lines_of(watch))[-1]
    assert (watch.wait(30), json.loads(last)["outcome"]) == (0, "accepted")


@pytest.mark.parametrize("words", [("nothing",), ("",), ("a", "--job", "b")])
def test_mistakes(place: Place, words: tuple[str, ...]) -> None:
    """An unknown id, an empty one, or two at once are one line and code 2, not an empty screen."""
    done = place.run("watch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
