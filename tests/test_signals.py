"""What ends a job from outside: signals at any moment, kill -9 of its owner; and what overtakes nothing."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness import Place, job_id, wait_until
from traces import has_open

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
ENDLESS = f"{REPORT} started\nexec sleep 600"


def reported(place: Place, kind: str) -> str:
    """Return the id of the one job once its agent has made this report."""
    found = f'"{kind}"'
    paths = wait_until(
        lambda: [
            path
            for path in place.work.glob("delegate_job_logs/*/reports.jsonl")
            if found in path.read_text(errors="replace")
        ],
        what=kind,
    )
    return paths[0].parent.name


def nothing_left(place: Place) -> None:
    """Wait until no process of a job lives any more; a background supervisor may."""
    try:
        wait_until(lambda: not place.jobs_processes(), what="nothing left")
    except AssertionError as late:
        raise AssertionError(f"left: {place.jobs_processes()}; jobs: {place.run('list').stdout}") from late


def kill(submit: "subprocess.Popen[str]") -> None:
    """End a submit as nobody can see coming."""
    submit.kill()
    submit.communicate(timeout=10)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_check_is_no_rejection(place: Place, signum: signal.Signals) -> None:
    """A check that a signal cuts short has said nothing: cancelled, no verdict, and no process of it left."""
    check = place.script("check", f"touch {place.root}/begun; setsid sleep 601 & sleep 602; exit 1")
    submit = place.start(*place.submit_args(COMPLETED, "--validate", check, "--close", "--json"))
    wait_until((place.root / "begun").exists, what="the check")
    os.killpg(submit.pid, signum)
    stdout, stderr = submit.communicate(timeout=20)
    job = json.loads(stdout)
    assert (submit.returncode, job["outcome"], job["verdict"]) == (128 + signum, "cancelled", None)
    assert ("validation:" in stderr, "Traceback" in stderr) == (False, False)
    nothing_left(place)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGHUP, 129), (signal.SIGTSTP, 130)])
def test_a_hand_over_in_the_middle_of_a_check_checks_again(place: Place, signum: int, code: int) -> None:
    """A check that was cut short by a hand-over has said nothing: the next owner runs it from its start."""
    begun = place.root / "begun"
    check = place.script(
        "check", f"[ ! -e {begun} ] || exit 0\ntouch {begun}; setsid sleep 601 & sleep 602; exit 1"
    )
    submit = place.start(*place.submit_args(COMPLETED, "--validate", check, "--close", "--json"))
    wait_until(begun.exists, what="the check")
    os.killpg(submit.pid, signum)
    stdout, stderr = submit.communicate(timeout=20)
    job = json.loads(stdout)
    assert (submit.returncode, job["outcome"], job["verdict"]) == (code, None, None)
    assert ("goes on in the background" in stderr, "Traceback" in stderr) == (True, False)
    waited = json.loads(place.run("wait", job["id"], "--json").stdout)
    assert (waited["outcome"], waited["verdict"], waited["attempt"]) == ("accepted", "passed", 1)
    nothing_left(place)


def test_a_check_that_ignores_signals_is_ended_too(place: Place) -> None:
    """A check that will not end is ended by force, and submit with it, in bounded time."""
    check = place.script(
        "check", f"trap '' TERM INT HUP\ntouch {place.root}/begun\nwhile :; do sleep 1; done"
    )
    submit = place.start(*place.submit_args(COMPLETED, "--validate", check, "--close"))
    wait_until((place.root / "begun").exists, what="the check")
    os.kill(submit.pid, signal.SIGINT)
    assert submit.wait(30) == 130
    nothing_left(place)


def test_an_agent_that_ignores_signals_is_ended_too(place: Place) -> None:
    """An agent that will not end is ended by force, with its children, in bounded time."""
    agent = f"trap '' TERM INT HUP\n(trap '' TERM; sleep 601) &\n{REPORT} started\nwhile :; do sleep 1; done"
    submit = place.start(*place.submit_args(agent, "--close"))
    reported(place, "started")
    os.kill(submit.pid, signal.SIGTERM)
    assert submit.wait(30) == 143
    nothing_left(place)


@pytest.mark.parametrize("part", range(4))
def test_an_interrupt_at_any_moment_is_cancelled_or_too_late(place: Place, part: int) -> None:
    """Ctrl-C from start-up to the end: 130 and cancelled, or accepted before it; never anything else.

    Before the job is registered it is 130 without a job, or, while Python starts, death by the signal itself.
    """
    check = place.script("check", "sleep 0.2")
    for step in range(6):
        known = set(place.jobs())
        words = place.submit_args(f"{REPORT} started\n{COMPLETED}", "--validate", check, "--close")
        submit = place.start(*words)
        time.sleep(0.04 * (4 * step + part))
        os.killpg(submit.pid, signal.SIGINT)
        stdout, stderr = submit.communicate(timeout=20)
        listed = {job["id"]: job for job in json.loads(place.run("list", "--json").stdout)}
        new = [listed[name] for name in set(place.jobs()) - known if name in listed]
        # While Python itself starts nobody of ours is there yet to be quiet about it.
        too_early = submit.returncode == -signal.SIGINT or stderr.startswith("Fatal Python error: init_")
        assert "Traceback" not in stderr or too_early
        assert "could not end" not in stderr
        ended = [(job["state"], job["outcome"]) for job in new]
        assert (-signal.SIGINT if too_early else submit.returncode, ended) in [
            (-signal.SIGINT, []),
            (130, []),
            (130, [("done", "cancelled")]),
            (0, [("done", "accepted")]),
        ], (stdout, stderr)
    nothing_left(place)


@pytest.mark.parametrize("part", range(3))
def test_a_completed_that_is_on_its_way_is_not_overtaken_by_the_exit(place: Place, part: int) -> None:
    """The agent exits while its `completed` is still being published: accepted, ten times out of ten."""
    how = ("{} &", "setsid {} > out 2>&1 < /dev/null & disown", "(sleep 0.0$((RANDOM % 10)); {}) &")[part]
    agent = f"{how.format(COMPLETED)}\nexit {part}"
    for _ in range(10):
        done = place.submit(agent, "--close")
        assert done.returncode == 0, done


def test_a_killed_owner_leaves_what_was_recorded(place: Place) -> None:
    """Kill -9 of submit: status, list and wait say it has no owner, and what was recorded."""
    submit = place.start(*place.submit_args(f"{REPORT} progress --detail half\n{UNTIL_TOLD}\n{COMPLETED}"))
    name = reported(place, "progress")
    wait_until(lambda: place.job(name)["detail"] == "half", what="the report was recorded")
    with place.nobody_takes_over():
        kill(submit)
        job = place.job(name)
        assert (job["state"], job["detail"], job["owner"], job["outcome"]) == ("running", "half", None, None)
        assert "none: the process that owned it has ended" in place.run("status", name).stdout
        assert "running (ownerless)" in place.run("list").stdout
        waited = place.run("wait", name, "--timeout", "1.5")
        assert (waited.returncode, "has no owner" in waited.stderr) == (124, True)
        (place.work / "go").touch()
        reported(place, "completed")
        assert place.job(name)["state"] == "running"
    assert place.run("cancel", name).stdout == f"{name} accepted\n"


@pytest.mark.parametrize("words", [("list",), ("wait", "--timeout", "0"), ("logs", "--list")], ids=" ".join)
def test_any_command_has_an_ownerless_job_taken_over(place: Place, words: tuple[str, ...]) -> None:
    """Kill -9 of submit: whichever command comes next starts a supervisor, which sees the job to its end."""
    submit = place.start(*place.submit_args(f"{REPORT} progress\n{UNTIL_TOLD}\n{COMPLETED}"))
    name = reported(place, "progress")
    kill(submit)
    place.run(*words)
    # For a moment the lock is the new owner's and the row still the old one's.
    wait_until(
        lambda: (place.job(name)["owner"] or {}).get("pid") not in {None, submit.pid}, what="another owner"
    )
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0


def test_wait_has_the_job_taken_over_whose_owner_dies_meanwhile(place: Place) -> None:
    """Who waits for a job sees its end, although its owner is killed and no other command is run."""
    submit = place.start(*place.submit_args(f"{REPORT} progress\n{UNTIL_TOLD}\n{COMPLETED}"))
    name = reported(place, "progress")
    wait = place.start("wait", name)
    wait_until(lambda: has_open(wait.pid, "registry.db"), what="wait")
    kill(submit)
    (place.work / "go").touch()
    stdout, _ = wait.communicate(timeout=20)
    assert (wait.returncode, stdout) == (0, f"{name} accepted\n")


def test_cancel_ends_a_job_without_an_owner(place: Place) -> None:
    """Cancel takes an ownerless job over and ends it, agent and all; nothing is left, no secret either."""
    agent = f"setsid sleep 601 &\n{ENDLESS}"
    submit = place.start(*place.submit_args(agent, "--close"), env={"TOKEN": "very-secret"})
    name = reported(place, "started")
    kill(submit)
    done = place.run("cancel", name, "--json")
    job = json.loads(done.stdout)
    assert (done.returncode, job["outcome"], job["exit_code"], job["owner"]) == (0, "cancelled", 9, None)
    nothing_left(place)
    assert place.run("wait", name).returncode == 9
    files = [path for top in (place.registry, place.work) for path in top.rglob("*") if path.is_file()]
    assert [path for path in files if b"very-secret" in path.read_bytes()] == []
    assert (place.log_dir(name) / "result.json").is_file()


def test_an_owner_killed_in_the_middle_of_a_check_leaves_no_check(place: Place) -> None:
    """Kill -9 during the check: who cancels the job ends the check too; it never reads as rejected."""
    check = place.script("check", f"touch {place.root}/begun; sleep 601; exit 1")
    submit = place.start(*place.submit_args(f"{COMPLETED}\nexec sleep 600", "--validate", check, "--close"))
    wait_until((place.root / "begun").exists, what="the check")
    kill(submit)
    name = place.jobs()[0]
    assert place.job(name)["state"] == "checking"
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    assert place.job(name)["verdict"] is None
    nothing_left(place)


@pytest.mark.parametrize("part", range(3))
def test_an_owner_killed_at_any_moment_can_be_tidied_up(place: Place, part: int) -> None:
    """Kill -9 from start-up to the end: cancel ends every job there is, and no process is left."""
    for step in range(4):
        submit = place.start(*place.submit_args(ENDLESS, "--close"))
        time.sleep(0.1 + 0.05 * (3 * step + part))
        kill(submit)
    for job in json.loads(place.run("list", "--json").stdout):
        ended = place.run("cancel", job["id"])
        assert (ended.returncode, ended.stdout) == (0, f"{job['id']} cancelled\n"), ended
    nothing_left(place)


def test_two_cancels_at_once_of_an_ownerless_job(place: Place) -> None:
    """Both say how it ended; one of them was its owner, and there is one `cancelled`."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = reported(place, "started")
    kill(submit)
    both = [place.start("cancel", name) for _ in range(2)]
    said = [(*each.communicate(timeout=30), each.returncode) for each in both]
    assert said == [(f"{name} cancelled\n", "", 0)] * 2
    nothing_left(place)


def test_a_second_signal_is_not_waited_for(place: Place) -> None:
    """A second signal ends submit at once: 130, cancelled; what it left, `cancel` ends."""
    agent = f"trap '' TERM INT HUP\n{REPORT} started\nwhile :; do sleep 1; done"
    submit = place.start(*place.submit_args(agent, "--close"))
    name = reported(place, "started")
    os.kill(submit.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(submit.pid, signal.SIGINT)
    assert submit.wait(20) == 130
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


def test_a_claim_before_the_signal_counts(place: Place) -> None:
    """What was recorded before the signal is read before it: the job is accepted, and so is the exit."""
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED} > said\nexec sleep 600"))
    name = wait_until(place.jobs, what="a job")[0]
    wait_until(lambda: place.run("status", name).returncode == 0, what="a row")
    place.await_state(name, "running")
    os.kill(submit.pid, signal.SIGSTOP)
    (place.work / "go").touch()
    said: Path = place.work / "said"
    wait_until(lambda: said.exists() and said.read_text(), what="the claim")
    os.kill(submit.pid, signal.SIGTERM)
    os.kill(submit.pid, signal.SIGCONT)
    stdout, _ = submit.communicate(timeout=20)
    assert (submit.returncode, place.job(job_id(stdout))["outcome"]) == (0, "accepted")
