"""Who owns a job when its owner has died: by whom it is taken over, how soon, with nothing lost."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Place, job_id, wait_until
from havoc import FAILPOINTS
from subscribers import Follower, Told, observer
from takeovers import (
    COMPLETED,
    ENDLESS,
    REPORT,
    UNTIL_SPAWNED,
    UNTIL_TOLD,
    await_result,
    end_supervisor,
    epoch,
    events,
    kill,
    kinds,
    nothing_left,
    reported,
    result,
    submit_detached,
    supervisor_pid,
)
from traces import printed


def runner_pid(place: Place, name: str) -> int:
    """Return the process id of a job's runner."""
    return int((place.registry / "jobs" / name / "runner.lock").read_text().split()[1])


# -- a lone job: nobody runs any command


def test_a_lone_job_whose_owner_is_killed_ends_rightly(place: Place) -> None:
    """No supervisor, no command: the job's runner has tmux start one, which hears the claim."""
    check = place.script("check", "[ -e made ]")
    agent = f"{REPORT} started\n{UNTIL_TOLD}\ntouch made\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--validate", check, "--close"))
    name = reported(place, "started")
    kill(submit)
    runner = runner_pid(place, name)
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    (place.work / "go").touch()
    job = await_result(place, name)
    assert (job["outcome"], job["verdict"]) == ("accepted", "passed")
    assert parent != runner, "it is a child of the runner"
    nothing_left(place)


def test_a_lone_job_whose_agent_ends_with_its_owner_ends_rightly(place: Place) -> None:
    """The agent ends in the same moment as the owner: its runner looks once more before it goes."""
    submit = place.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}", "--close"))
    name = reported(place, "started")
    kill(submit)
    (place.work / "go").touch()
    assert await_result(place, name)["outcome"] == "accepted"
    nothing_left(place)


def test_cancel_of_the_job_whose_runner_had_the_supervisor_started(place: Place) -> None:
    """The supervisor is nobody's descendant: it ends the runner that called for it, and lives on."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = reported(place, "started")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    os.kill(pid, 0)
    nothing_left(place)


def test_a_supervisor_that_a_runner_calls_for_has_the_environment_of_the_submit(place: Place) -> None:
    """What it needs is taken from the job, not from the tmux server; and it gets no secret of the user's."""
    env = {"XDG_CACHE_HOME": str(place.root / "other"), "SECRET": "hunter2"}
    submit = place.start(*place.submit_args(ENDLESS, "--close"), env=env)
    reported(place, "started")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert f"XDG_CACHE_HOME={place.root / 'other'}" in environ
    assert [each for each in environ if "hunter2" in each or each.startswith("TMUX=")] == []
    os.kill(pid, signal.SIGTERM)


def test_an_owner_that_is_there_is_not_doubled(place: Place) -> None:
    """While the job has its owner the runner calls for nobody, also after several looks."""
    submit = place.start(*place.submit_args(f"sleep 7\n{COMPLETED}", "--close"))
    assert submit.wait(30) == 0
    assert not (place.registry / "supervisor.lock").exists()
    nothing_left(place)


# -- in each state: the owner is killed, then any command comes by


def deadly_tmux(place: Place, word: str, *, done_before: bool) -> dict[str, str]:
    """Return an environment whose tmux kills its caller at the first call that holds a word, or after it."""
    real = shutil.which("tmux", path=place.environ["PATH"])
    strike = f"touch {place.root}/struck; kill -9 $PPID"
    first = f'{real} "$@"; {strike}; exit 0' if done_before else strike
    case = f'case "$*" in *{word}*) [ -e {place.root}/struck ] || {{ {first}; }};; esac'
    (place.root / "bin").mkdir()
    place.script("bin/tmux", f'{case}\nexec {real} "$@"')
    return {"PATH": f"{place.root}/bin:{place.environ['PATH']}"}


@pytest.mark.parametrize("done_before", [False, True], ids=["before", "after"])
def test_taken_over_while_launching(place: Place, *, done_before: bool) -> None:
    """Killed just before or just after tmux was asked: the agent runs once, and the job ends rightly."""
    agent = f"echo run >> runs\n{COMPLETED}"
    env = deadly_tmux(place, "new-session", done_before=done_before)
    submit = place.start(*place.submit_args(agent, "--close"), env=env)
    assert submit.wait(20) == -signal.SIGKILL
    name = place.await_job()
    assert place.run("wait", name).returncode == 0
    assert (place.work / "runs").read_text() == "run\n"
    assert kinds(place, name).count("launching") == 1
    nothing_left(place)


def test_taken_over_after_a_launch_whose_runner_was_killed(place: Place) -> None:
    """The owner died of its launch, the runner after it had told of the agent: lost, not running for ever."""
    env = deadly_tmux(place, "new-session", done_before=True)
    place.run("list")
    with place.nobody_takes_over():
        submit = place.start(*place.submit_args("exec sleep 600", "--close"), env=env)
        assert submit.wait(20) == -signal.SIGKILL
        name = place.await_job()
        control = place.registry / "jobs" / name / "control.jsonl"
        wait_until(lambda: control.exists() and '"spawned"' in control.read_text(), what="the agent")
        (runner,) = (each for each in place.processes() if each.command.endswith(f"pane.py {control.parent}"))
        os.kill(runner.pid, signal.SIGKILL)
    assert place.run("wait", name, timeout=60).returncode == 4
    nothing_left(place)


def test_taken_over_while_waiting(place: Place) -> None:
    """A job that waits for a person waits on with its new owner, until it is answered."""
    submit = place.start(
        *place.submit_args(f"{REPORT} permission_required\n{UNTIL_TOLD}\n{COMPLETED}", "--close")
    )
    name = reported(place, "permission_required")
    place.await_state(name, "waiting")
    kill(submit)
    place.run("list")
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    wait_until(lambda: (place.job(name)["owner"] or {}).get("pid") == pid, what="the takeover")
    assert place.job(name)["state"] == "waiting"
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0


def test_taken_over_while_checking(place: Place) -> None:
    """A check that was cut off is ended, with all it started, and run again; its half says nothing."""
    check = place.script(
        "check",
        f"cd {place.root}; echo $$ >> checks\n[ -e second ] && exit 0\ntouch second; sleep 601 & sleep 602",
    )
    submit = place.start(*place.submit_args(COMPLETED, "--validate", check, "--close"))
    wait_until((place.root / "second").exists, what="the check")
    kill(submit)
    name = place.await_job()
    assert place.run("wait", name).returncode == 0
    job = place.job(name)
    assert (job["verdict"], job["attempt"]) == ("passed", 1)
    assert len((place.root / "checks").read_text().split()) == 2
    nothing_left(place)


@pytest.mark.parametrize("done_before", [False, True], ids=["before", "after"])
def test_taken_over_while_telling(place: Place, *, done_before: bool) -> None:
    """Killed just before or just after a rejection was pasted: the agent hears of it, and improves."""
    check = place.script("check", f"[ -e {place.work}/better ]")
    agent = f"{COMPLETED}\nread -r line\ntouch better\n{COMPLETED}"
    env = deadly_tmux(place, "paste-buffer", done_before=done_before)
    words = place.submit_args(agent, "--validate", check, "--attempts", "2", "--close")
    submit = place.start(*words, env=env)
    assert submit.wait(20) == -signal.SIGKILL
    name = place.await_job()
    assert place.run("wait", name).returncode == 0
    assert place.job(name)["attempt"] == 2
    nothing_left(place)


def test_taken_over_when_done_and_not_closed(place: Place) -> None:
    """Killed while it ends the agent: the outcome stands, and whoever comes by sees to the end."""
    agent = f"trap '' TERM INT HUP\n{REPORT} started\nwhile :; do sleep 1; done"
    # It dies of asking the runner for the agent's end: what is done in the seconds after that is not done.
    fuse = place.root / "fuse"
    step = {"PYTHON_FAILPOINT": "delegate_job.processes:send:after:1", "PYTHON_FAILPOINT_FUSE": str(fuse)}
    submit = place.start(*place.submit_args(agent, "--close"), env={"PYTHONPATH": str(FAILPOINTS), **step})
    name = reported(place, "started")
    with place.nobody_takes_over():
        fuse.touch()
        os.kill(submit.pid, signal.SIGTERM)
        assert submit.wait(PATIENCE) == -signal.SIGKILL
        place.await_state(name, "done")
        assert result(place, name) is None
    place.run("list")
    assert await_result(place, name)["outcome"] == "cancelled"
    nothing_left(place)


def test_a_persons_job_is_taken_over(place: Place) -> None:
    """A job without a session has no runner to call for help: the next command does."""
    submit = place.start("submit", "--agent", "human", "--prompt", "Water the plants.")
    name = place.await_job()
    wait_until(lambda: place.run("status", name).returncode == 0, what="a row")
    place.await_state(name, "running")
    kill(submit)
    assert place.run("publish", "--job", name, "--event", "completed").returncode == 0
    assert place.run("wait", name).returncode == 0


def test_a_report_before_the_launch_counts_in_its_turn(place: Place) -> None:
    """A person who is done before any owner has looked at the job is believed as one who took longer."""
    place.run("list")
    with place.nobody_takes_over():
        name = job_id(place.run("submit", "--agent", "human", "--prompt", "x", "--detach").stdout)
        assert (
            place.run("publish", "--event", "completed", "--detail", "early", "--job", name).returncode == 0
        )
    assert place.run("wait", name, timeout=60).returncode == 0
    assert place.job(name)["detail"] == "early"
    assert kinds(place, name)[:3] == ["registered", "launching", "spawned"]


def test_a_queued_job_is_taken_over(place: Place) -> None:
    """A submit that waited for its turn and was killed keeps it: another owner launches it in time."""
    first = submit_detached(
        place, f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}", "--close", "--max-parallel", "1"
    )
    reported(place, "started")
    submit = place.start(*place.submit_args(COMPLETED, "--close"))
    wait_until(lambda: len(place.jobs()) == 2, what="the second job")
    (second,) = set(place.jobs()) - {first}
    wait_until(lambda: place.run("status", second).returncode == 0, what="a row")
    kill(submit)
    assert place.job(second)["state"] == "registered"
    (place.work / "go").touch()
    assert place.run("wait", first, second).returncode == 0
    assert place.job(first)["ended_at"] <= place.job(second)["started_at"]


def test_a_job_whose_tmux_died_with_its_owner_is_lost(place: Place) -> None:
    """As after a reboot: no runner, no owner. The next owner says lost, and the last screen is in the log."""
    submit = place.start(*place.submit_args(f"echo last words\n{ENDLESS}"))
    name = reported(place, "started")
    place.await_state(name, "running")
    kill(submit)
    place.tmux("kill-server")
    assert place.run("wait", name).returncode == 4
    job = place.job(name)
    assert (job["outcome"], job["owner"]) == ("lost", None)
    assert "last words" in (place.log_dir(name) / "pane.log").read_text()
    nothing_left(place)


# -- what goes on with a new owner


def test_a_running_supervisor_takes_over_by_itself(place: Place) -> None:
    """No command, and no runner's look: a supervisor that runs has the job in a moment."""
    supervise = place.start("supervise")
    wait_until(lambda: supervisor_pid(place), what="the supervisor")
    submit = place.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}", "--close"))
    name = reported(place, "started")
    connection = place.registry / "jobs" / name / "connection.json"
    before = json.loads(connection.read_text())["epoch"]
    kill(submit)
    # The goal of 1 s is measured by the bench. A runner's look, after 5 s, does nothing beside a supervisor.
    wait_until(lambda: json.loads(connection.read_text())["epoch"] > before, what="the takeover")
    (place.work / "go").touch()
    assert await_result(place, name)["outcome"] == "accepted"
    supervise.terminate()
    assert supervise.wait(10) == 0


def test_an_agent_reports_to_the_new_owners_broker(place: Place) -> None:
    """connection.json is written anew: a report by MQTT alone reaches the owner that came later."""
    by_mqtt = 'DELEGATE_JOB_DIR=/proc/nowhere "$DJ" publish --timeout 20 --event completed > said'
    submit = place.start(
        *place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{by_mqtt}\nsleep 600", "--close")
    )
    name = reported(place, "started")
    place.await_state(name, "running")
    kill(submit)
    place.run("list")
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    wait_until(lambda: (place.job(name)["owner"] or {}).get("pid") == pid, what="the takeover")
    (place.work / "go").touch()
    assert place.run("wait", name, "--timeout", "20").returncode == 0
    assert printed(place.work / "said", 1)[0].startswith("sent, not recorded")


def test_retained_topics_are_published_again(place: Place) -> None:
    """Who subscribes at the new owner's broker is told the last report of each kind, the state, the owner."""
    agent = f"{REPORT} started\n{REPORT} progress --detail half\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--close"))
    name = reported(place, "progress")
    wait_until(lambda: place.job(name)["detail"] == "half", what="the report was recorded")
    kill(submit)
    place.run("list")
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    wait_until(lambda: (place.job(name)["owner"] or {}).get("pid") == pid, what="the takeover")

    def told_again() -> dict[str, Told]:
        with Follower(observer(place, name)) as follower:
            follower.subscribe(f"delegate-job/v1/{name}/#")
            told = follower.await_names(["report/started", "report/progress", "state", "owner"])
        return told if all(each.retained for each in told.values()) else {}

    # Who comes while they are being published again is told by the one that publishes.
    told = wait_until(told_again, what="the retained messages")
    assert told["report/progress"].fields["detail"] == "half"
    assert told["state"].fields["state"] == "running"
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0


def test_gaps_in_the_events_file_are_filled(place: Place) -> None:
    """What was committed and not yet written down when the owner died stands in the file in its place."""
    agent = f"{UNTIL_SPAWNED}\n{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--close"))
    name = reported(place, "started")
    path = place.registry / "jobs" / name / "events.jsonl"
    wait_until(lambda: '"started"' in path.read_text(), what="the event")
    kill(submit)
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0
    await_result(place, name)
    logged = [json.loads(line) for line in place.run("logs", name, "--json").stdout.splitlines()]
    assert events(place, name) == logged
    assert kinds(place, name)[:4] == ["registered", "launching", "spawned", "started"]


def test_timers_go_on_with_what_was_left(place: Place) -> None:
    """Time without an owner does not count against --timeout, and a new owner does not begin it anew."""
    submit = place.start(
        *place.submit_args(f"sleep 3\n{REPORT} progress\nexec sleep 600", "--timeout", "12", "--close")
    )
    name = reported(place, "progress")
    wait_until(lambda: "progress" in kinds(place, name), what="the report was recorded")
    before = epoch(place, name)
    with place.nobody_takes_over():
        kill(submit)
        left = timeout_left(place, name)
    assert 0 < left < 12 - 3
    wait_until(lambda: epoch(place, name) > before, what="the takeover, by the runner")
    # The clock goes on at some time after its new owner has begun; of the seconds without one none counts.
    taken = (place.registry / "supervisor.lock").stat().st_mtime
    assert place.run("publish", "--job", name, "--event", "progress", "--detail", "later").returncode == 0
    wait_until(
        lambda: result(place, name) or "later" in [each["detail"] for each in events(place, name)],
        what="the later report, or the end",
    )
    later = timeout_left(place, name)
    assert left - (time.time() - taken) < later < left
    assert await_result(place, name)["outcome"] == "timed_out"
    ended = (place.registry / "jobs" / name / "result.json").stat().st_mtime
    assert ended - taken > left


def timeout_left(place: Place, name: str) -> float:
    """Return the seconds that a job has left, as the registry has it."""
    database = f"{(place.registry / 'registry.db').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as registry:
        (left,) = registry.execute("SELECT timeout_left FROM jobs WHERE id = ?", (name,)).fetchone()
    return float(left)


# -- signals hand over


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGHUP, 129), (signal.SIGTSTP, 130)])
def test_a_signal_that_hands_over(place: Place, signum: signal.Signals, code: int) -> None:
    """A terminal that is closed or suspended takes no job with it: it goes on, and ends rightly."""
    check = place.script("check", "[ -e made ]")
    agent = f"{REPORT} started\n{UNTIL_TOLD}\ntouch made\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--validate", check, "--close"))
    name = reported(place, "started")
    os.kill(submit.pid, signum)
    _, stderr = submit.communicate(timeout=20)
    assert (submit.returncode, "Traceback" in stderr) == (code, False)
    (place.work / "go").touch()
    assert await_result(place, name)["outcome"] == "accepted"
    nothing_left(place)


def test_a_supervisor_that_is_ended_leaves_its_jobs_to_the_next(place: Place) -> None:
    """TERM to a supervisor is no cancel: the jobs go on, and the next supervisor has them."""
    name = submit_detached(place, f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}", "--close")
    reported(place, "started")
    end_supervisor(place, signal.SIGTERM)
    assert place.job(name)["outcome"] is None
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0
    nothing_left(place)


@pytest.mark.parametrize("who", ["owner", "runner", "both"])
def test_cancel_when_somebody_has_died(place: Place, who: str) -> None:
    """Cancel ends a job, agent and all, whoever of its keepers was killed before."""
    name = submit_detached(place, f"setsid sleep 601 &\n{ENDLESS}", "--close")
    reported(place, "started")
    place.await_state(name, "running")
    if who in {"owner", "both"}:
        end_supervisor(place)
    if who in {"runner", "both"}:
        os.kill(runner_pid(place, name), signal.SIGKILL)
    done = place.run("cancel", name)
    assert (done.returncode, done.stdout) in [(0, f"{name} cancelled\n"), (0, f"{name} lost\n")]
    assert done.stdout.split()[1] == "cancelled" or who != "owner"
    nothing_left(place)
