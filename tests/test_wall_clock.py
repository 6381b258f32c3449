"""What is promised when somebody sets the clock while jobs run: what counts is time that passes."""

import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from delegate_job import backups
from delegate_job.paths import RegistryPaths
from harness import Place, job_id, wait_until
from takeovers import (
    COMPLETED,
    ENDLESS,
    REPORT,
    UNTIL_TOLD,
    await_result,
    end_supervisor,
    epoch,
    events,
    kinds,
    nothing_left,
    reported,
    submit_detached,
)
from traces import has_open

HOUR = 3600
SetClock = Callable[[int], None]

forward_and_back = pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["forward", "back"])


def set_command(place: Place, shift: int) -> str:
    """Return the shell command that sets the clock for everything in the place, in one step."""
    return f"echo {shift} > {place.root}/clock.new; mv {place.root}/clock.new {place.root}/clock"


@pytest.fixture
def set_clock(place: Place) -> SetClock:
    """Give the clock of all Python processes of the place: called with the seconds it is to be wrong by."""

    def set_to(shift: int) -> None:
        (place.root / "clock.new").write_text(str(shift))
        (place.root / "clock.new").rename(place.root / "clock")

    set_to(0)
    place.environ["PYTHONPATH"] = str(Path(__file__).parent / "wall_clock")
    place.environ["PYTHON_CLOCK_SHIFT"] = str(place.root / "clock")
    return set_to


def at(place: Place, name: str, kind: str) -> datetime:
    """Return the time at which the first event of a kind says that it happened."""
    return datetime.fromisoformat(next(event["at"] for event in events(place, name) if event["kind"] == kind))


def is_shifted(first: datetime, last: datetime, shift: int) -> bool:
    """Say whether the clock was set between two moments of a test."""
    return abs((last - first).total_seconds() - shift) < HOUR / 2


@forward_and_back
def test_timers_count_time_that_passes(place: Place, set_clock: SetClock, shift: int) -> None:
    """--timeout and --idle-timeout end a job when that time has passed, and not when the clock says so."""
    stays = submit_detached(place, ENDLESS, "--close", "--timeout", "900", "--idle-timeout", "900")
    place.await_state(stays, "running")
    begun = time.monotonic()
    limited = {
        submit_detached(place, ENDLESS, "--close", f"--{option}", "8"): (outcome, kind)
        for option, outcome, kind in (("timeout", "timed_out", "timeout"), ("idle-timeout", "idle", "idle"))
    }
    wait_until(lambda: all("started" in kinds(place, name) for name in limited), what="their starts")
    set_clock(shift)
    for name, (outcome, kind) in limited.items():
        assert await_result(place, name, 60)["outcome"] == outcome
        assert is_shifted(at(place, name, "registered"), at(place, name, kind), shift)
    assert time.monotonic() - begun >= 8
    assert place.job(stays)["state"] == "running"
    assert place.run("cancel", stays).stdout == f"{stays} cancelled\n"
    nothing_left(place)


@forward_and_back
def test_a_new_owner_goes_on_with_what_was_left(place: Place, set_clock: SetClock, shift: int) -> None:
    """A takeover after the clock was set: an hour that never passed is taken from no job or given to it."""
    name = submit_detached(place, ENDLESS, "--close", "--timeout", "900", "--idle-timeout", "900")
    wait_until(lambda: "started" in kinds(place, name), what="its start")
    before = epoch(place, name)
    set_clock(shift)
    end_supervisor(place)
    place.run("list")
    wait_until(lambda: epoch(place, name) > before, what="the takeover")
    reports = place.run("publish", "--job", name, "--event", "progress", "--detail", "later")
    assert reports.returncode == 0
    wait_until(lambda: "progress" in kinds(place, name), what="the report")
    assert place.job(name)["state"] == "running"
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


@forward_and_back
def test_events_stand_in_the_order_in_which_they_came(place: Place, set_clock: SetClock, shift: int) -> None:
    """A claim after a rejection counts also when its clock says that it was before; logs keep the order."""
    check = place.script(
        "check", f"[ -e {place.work}/better ] && exit 0\n{set_command(place, shift)}\nexit 1"
    )
    agent = f"{REPORT} started\n{COMPLETED}\nread -r line\ntouch better\n{COMPLETED}"
    done = place.submit(agent, "--validate", check, "--attempts", "2", "--close", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    name = job_id(done.stdout)
    assert (place.job(name)["verdict"], place.job(name)["attempt"]) == ("passed", 2)
    said = [json.loads(line) for line in place.run("logs", name, "--json").stdout.splitlines()]
    assert [each["sequence"] for each in said] == sorted(each["sequence"] for each in said)
    claims = [each for each in said if each["kind"] == "completed"]
    assert [each["applied"] for each in claims] == [True, True]
    first, last = (datetime.fromisoformat(each["at"]) for each in claims)
    assert is_shifted(first, last, shift)
    in_order = [each["kind"] for each in said if each["kind"] in {"check_failed", "telling", "check_passed"}]
    assert in_order == ["check_failed", "telling", "check_passed"]


@forward_and_back
def test_wait_waits_as_long_as_it_was_told(place: Place, set_clock: SetClock, shift: int) -> None:
    """`wait --timeout` gives up after that time: not at once, and not an hour later."""
    name = submit_detached(place, ENDLESS, "--close")
    begun = time.monotonic()
    waiting = place.start("wait", name, "--timeout", "5")
    wait_until(lambda: has_open(waiting.pid, "registry.db"), what="the wait")
    set_clock(shift)
    assert waiting.wait(60) == 124
    assert time.monotonic() - begun >= 5
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


@forward_and_back
def test_a_foreground_submit_bears_it(place: Place, set_clock: SetClock, shift: int) -> None:
    """The one that waits on a terminal for its job ends as the job does, and shows no time before zero."""
    agent = f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--close", "--timeout", "900", "--idle-timeout", "900"))
    name = reported(place, "started")
    wait_until(lambda: "started" in kinds(place, name), what="its start")
    set_clock(shift)
    for words in (["list"], ["status", name], ["logs", name]):
        shown = place.run(*words)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert [word for word in shown.stdout.split() if word.startswith("-") and word[1:].isdecimal()] == []
    (place.work / "go").touch()
    stdout, stderr = submit.communicate(timeout=30)
    assert (submit.returncode, stderr) == (0, ""), stdout


def test_prune_takes_the_clock_at_its_word_and_no_living_job(place: Place, set_clock: SetClock) -> None:
    """What ended in the future is not old, what ended an hour ago by the clock is; what runs stays."""
    runs = submit_detached(place, ENDLESS, "--close")
    done = job_id(place.submit(COMPLETED, "--close").stdout)
    set_clock(-HOUR)
    for age in ("30min", "0s"):
        assert place.run("prune", "--older-than", age).stdout == ""
    set_clock(HOUR)
    assert place.run("prune", "--older-than", "30min").stdout == f"{done}\n"
    assert place.jobs() == [runs]
    assert place.run("cancel", runs).stdout == f"{runs} cancelled\n"
    nothing_left(place)


BACK_UP = """
import sys
from pathlib import Path
from delegate_job.backups import back_up
from delegate_job.paths import RegistryPaths
back_up(RegistryPaths(Path(sys.argv[1])))
"""


def test_the_newest_backup_is_the_one_made_last(place: Place, set_clock: SetClock) -> None:
    """A backup made after the clock was set back is kept, and is what takes a damaged file's place."""
    place.submit(COMPLETED, "--close")
    for _ in range(3):
        back_up(place)
    set_clock(-HOUR)
    place.submit(COMPLETED, "--close")
    back_up(place)
    newest = max((place.registry / "backups").iterdir())
    with contextlib.closing(sqlite3.connect(newest)) as database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    (place.registry / "registry.db").write_bytes(b"no database at all, but long enough" * 400)
    listed = place.run("list", "--json")
    jobs: list[dict[str, Any]] = json.loads(listed.stdout)
    assert (len(jobs), newest.name in listed.stderr) == (2, True), listed


def back_up(place: Place) -> None:
    """Make a backup of the registry, as its supervisor does."""
    process = place.spawn(sys.executable, "-c", BACK_UP, place.registry)
    said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_what_was_set_aside_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second damaged file of the same second, by the clock, does not take the first one's name."""
    second = time.gmtime(0)
    monkeypatch.setattr(time, "gmtime", lambda: second)
    paths = RegistryPaths(tmp_path)
    aside = []
    for text in ("one", "two", "three"):
        paths.database.write_text(text)
        aside.append(backups._set_aside(paths))
    assert [path.read_text() for path in aside] == ["one", "two", "three"]
