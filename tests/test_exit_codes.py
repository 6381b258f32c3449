"""F15: every row of the exit code table, on the installed command; elsewhere a clean end read as an error."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness import Place, job_id, wait_until

COMPLETED = '"$DJ" publish --event completed --detail done'
ENDLESS = '"$DJ" publish --event started\nexec sleep 600'


def same_as_wait(place: Place, submitted: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the finished job, after `wait` and the registry gave the code that `submit` gave."""
    waited = place.run("wait", job_id(submitted.stdout), "--json")
    job: dict[str, object] = json.loads(waited.stdout)
    assert (waited.returncode, job["exit_code"]) == (submitted.returncode, submitted.returncode)
    assert (job["state"], waited.stderr) == ("done", "")
    return job


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error's line: one `error:`, at most one `hint:`, nothing on stdout, no traceback."""
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), done
    assert done.stdout == ""
    return lines[0]


def began(place: Place) -> str:
    """Return the newest job's id once its agent has reported."""
    name = place.await_job()
    wait_until(lambda: '"started"' in reports(place, name), what="the agent's first report")
    return name


def reports(place: Place, name: str) -> str:
    """Return what the job's agent has claimed so far."""
    file = place.log_dir(name) / "reports.jsonl"
    return file.read_text() if file.exists() else ""


def test_0_accepted_without_a_check(place: Place) -> None:
    """Completed, and no check was given: 0, and the verdict stays null."""
    done = place.submit(COMPLETED)
    job = same_as_wait(place, done)
    assert (done.returncode, job["outcome"], job["verdict"]) == (0, "accepted", None)


def test_0_accepted_by_the_check(place: Place) -> None:
    """Completed, and passed by the check: 0."""
    done = place.submit(COMPLETED, "--validate", place.script("check", "exit 0"))
    job = same_as_wait(place, done)
    assert (done.returncode, job["outcome"], job["verdict"]) == (0, "accepted", "passed")
    assert "validation: PASS\n" in done.stdout


def test_0_accepted_although_the_agent_ends_with_an_error_code(place: Place) -> None:
    """A claim that stands is not undone by the exit code of the program that made it."""
    done = place.submit(f"{COMPLETED}\nexit 3", "--validate", place.script("check", "sleep 0.5"))
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (0, "accepted")


def test_1_failed(place: Place) -> None:
    """The agent reported `error`: 1, no check is run, and its words are kept."""
    check = place.script("check", f"touch {place.root}/checked")
    done = place.submit('"$DJ" publish --event error --detail "no such module"', "--validate", check)
    job = same_as_wait(place, done)
    assert (done.returncode, job["outcome"], job["detail"]) == (1, "failed", "no such module")
    assert not (place.root / "checked").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("submit",),
        ("submit", "--prompt", "x", "--prompt-file", "y"),
        ("submit", "--prompt", "x", "--agent", "no-such-agent-anywhere", "--nonsense"),
        ("submit", "--prompt", "x", "--agent", "command"),
        ("submit", "--prompt", "x", "--agent", "human", "--timeout", "soon"),
        ("submit", "--prompt", "x", "--agent", "human", "--attempts", "0"),
        ("submit", "--prompt", "x", "--agent", "human", "--validate", "/no/such/check"),
        ("submit", "--prompt", "x", "--agent", "human", "--permission-mode", "maybe"),
        ("submit", "--prompt", "x", "--agent", "human", "--broker", "http://h"),
        ("submit", "--prompt", "x", "--agent", "human", "--embedded-broker", "--broker", "mqtt://h"),
        ("submit", "--prompt", "x", "--agent", "human", "word"),
        ("submit", "--prompt", "x", "--agent", "human", "--operation-id", ""),
        ("submit", "--prompt-file", "/no/such/prompt"),
        ("status",),
        ("status", "nobody"),
        ("status", "@last"),
        ("list", "--state", "odd"),
        ("list", "--limit", "0"),
        ("wait", "--until", "odd"),
        ("wait", "--timeout", "-1"),
        ("verify", "nobody", "--validate", "/bin/true"),
        ("verify", "nobody"),
        ("logs", "nobody"),
        ("logs", "x", "--pane", "--reports"),
        ("attach", "nobody"),
        ("cancel", "nobody"),
        ("broker", "--port", "70000"),
        ("nonsense",),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_2_usage(place: Place, words: tuple[str, ...]) -> None:
    """What cannot be meant is 2, one line and a hint, and no job is made of it."""
    done = place.run(*words)
    assert done.returncode == 2
    assert one_error(done)
    assert place.jobs() == []


def test_2_publish_neither_recorded_nor_sent(place: Place) -> None:
    """`publish` ends with 2 when nobody was told: no place to write to, and nobody listening."""
    (place.root / "a-file").touch()
    nowhere = {
        "DELEGATE_JOB_ID": "abcdefghjk",
        "DELEGATE_JOB_DIR": str(place.root / "a-file/logs/abcdefghjk"),
        "DELEGATE_JOB_CONNECTION": str(place.root / "missing/connection.json"),
    }
    done = place.run("publish", "--event", "completed", env=nowhere)
    assert done.returncode == 2
    assert "neither recorded" in one_error(done)


@pytest.mark.parametrize("words", [(), ("--event", "compleet"), ("--event", "completed")], ids=" ".join)
def test_2_publish_usage(place: Place, words: tuple[str, ...]) -> None:
    """`publish` without an event, with an unknown one, or without a job is 2."""
    done = place.run("publish", *words)
    assert done.returncode == 2
    assert one_error(done)


def test_3_rejected(place: Place) -> None:
    """The check rejected the work: 3, with the check's own code in words."""
    done = place.submit(COMPLETED, "--validate", place.script("check", "exit 7"))
    job = same_as_wait(place, done)
    assert (done.returncode, job["outcome"], job["verdict"]) == (3, "rejected", "failed")
    assert "validation: FAIL (exit 7)\n" in done.stdout


def test_3_rejected_when_the_check_runs_out_of_time(place: Place) -> None:
    """A check that does not end within --validate-timeout has not passed the work."""
    check = place.script("check", "sleep 600")
    done = place.submit(COMPLETED, "--validate", check, "--validate-timeout", "0.3")
    job = same_as_wait(place, done)
    assert (done.returncode, job["outcome"], job["verdict"]) == (3, "rejected", "timed_out")


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "kill -9 $$"])
def test_4_lost(place: Place, end: str) -> None:
    """An agent that ends without a report is lost, however well it ended: silence is never success."""
    done = place.submit(end)
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (4, "lost")


def test_4_lost_with_its_session(place: Place) -> None:
    """A session that somebody ends takes the agent with it: lost, and nothing of it runs on."""
    submit = place.start(*place.submit_args(ENDLESS))
    name = began(place)
    place.tmux("kill-session", "-t", f"=dj-{name}")
    assert submit.wait(20) == 4
    assert place.job(name)["outcome"] == "lost"


def test_5_timed_out(place: Place) -> None:
    """--timeout ran out: 5, and the agent is ended."""
    done = place.submit(ENDLESS, "--timeout", "1", "--close")
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (5, "timed_out")
    wait_until(lambda: not place.processes(), what="the end of the agent")


def test_6_idle(place: Place) -> None:
    """No report and nothing on the screen for --idle-timeout: 6, and the agent is ended."""
    done = place.submit(ENDLESS, "--idle-timeout", "0.7", "--close")
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (6, "idle")
    wait_until(lambda: not place.processes(), what="the end of the agent")


def test_7_no_such_agent(place: Place) -> None:
    """A program that is not there is 7 before anything is made."""
    done = place.run("submit", "--agent", "no-such-agent-anywhere", "--prompt", "x")
    assert done.returncode == 7
    assert "no-such-agent-anywhere" in one_error(done)
    assert place.jobs() == []


@pytest.mark.parametrize("name", ["missing", "a-file"])
def test_7_no_such_work_dir(place: Place, name: str) -> None:
    """A work dir that is missing or no directory is 7, and the agent is started nowhere else."""
    (place.work / "a-file").touch()
    done = place.submit(f"touch {place.root}/started", "--workdir", place.work / name)
    assert done.returncode == 7
    assert name in one_error(done)
    assert not (place.root / "started").exists()
    assert place.jobs() == []


def test_7_no_tmux(place: Place) -> None:
    """Without tmux on PATH it is 7, and the hint says what to install."""
    done = place.submit("exit 0", env={"PATH": str(place.root / "nothing")})
    assert (done.returncode, "tmux" in one_error(done)) == (7, True)
    assert "install tmux" in done.stderr


def test_7_no_registry(place: Place) -> None:
    """A registry that cannot be made keeps the job from starting."""
    (place.root / "a-file").touch()
    done = place.submit("exit 0", "--registry-dir", place.root / "a-file/registry")
    assert done.returncode == 7
    assert "registry" in one_error(done)


def test_7_no_broker(place: Place) -> None:
    """An external broker that is not there is 7 before the agent is started."""
    done = place.submit(f"touch {place.root}/started", "--broker", "mqtt://127.0.0.1:1")
    assert done.returncode == 7
    assert "127.0.0.1" in one_error(done)
    assert not (place.root / "started").exists()


def test_7_session_exists(place: Place) -> None:
    """A session of that name is 7; it says who looks at it and how to remove it, and leaves it alone."""
    first = place.start(*place.submit_args(ENDLESS, "--agent-session", "tmux:mine"))
    began(place)
    done = place.submit("exit 0", "--agent-session", "tmux:mine")
    assert done.returncode == 7
    assert one_error(done) == "error: tmux session mine exists already (0 attached)"
    assert "kill-session -t=mine" in done.stderr
    assert (first.poll(), len(place.jobs())) == (None, 1)


def test_7_the_agent_cannot_be_run(place: Place) -> None:
    """A program that the system refuses to run is 7, with its reason, and has a row to be found by."""
    broken = place.root / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    done = place.run("submit", "--agent", broken, "--prompt", "x")
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (7, "not_started")
    assert "interpreter" in done.stdout


def test_8_needs_input(place: Place) -> None:
    """With --fail-on-input a wait for a person ends the job: 8."""
    asks = '"$DJ" publish --event permission_required --detail "may I?"\nexec sleep 600'
    done = place.submit(asks, "--fail-on-input")
    assert (done.returncode, same_as_wait(place, done)["outcome"]) == (8, "needs_input")


def test_9_cancelled(place: Place) -> None:
    """Cancelled by another process: 9 for the submit, 0 for the one who asked."""
    submit = place.start(*place.submit_args(ENDLESS))
    name = began(place)
    asked = place.run("cancel", name)
    assert (asked.returncode, asked.stdout) == (0, f"{name} cancelled\n")
    assert submit.wait(20) == 9
    assert place.run("wait", name).returncode == 9


def test_70_a_fault_of_ours(place: Place) -> None:
    """A fault of ours is 70, two lines on the screen, and the traceback in a private file."""
    assert place.submit(COMPLETED).returncode == 0
    # A bug, put into the installed program for this one run.
    bug = place.root / "bug"
    bug.mkdir()
    (bug / "sitecustomize.py").write_text(
        "import delegate_job.output\n\n\ndef bug(_documents):\n    raise ValueError('a bug')\n\n\n"
        "delegate_job.output.print_json_array = bug\n"
    )
    done = place.run("list", "--json", env={"PYTHONPATH": str(bug)})
    assert done.returncode == 70
    assert one_error(done).startswith("error: a fault in delegate-job itself: ValueError")
    crash = Path(done.stderr.split()[-1])
    assert crash.parent == place.registry
    assert (crash.stat().st_mode & 0o777, "Traceback" in crash.read_text()) == (0o600, True)


def test_124_wait_timed_out(place: Place) -> None:
    """`wait --timeout` ran out: 124, where the job stands is shown, and it goes on."""
    submit = place.start(*place.submit_args(ENDLESS))
    name = began(place)
    place.await_state(name, "running")
    done = place.run("wait", name, "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (124, f"{name} running\n")
    assert done.stderr.startswith("error: not done after 0.2 s; the job goes on")
    as_json = place.run("wait", name, "--timeout", "0.2", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["state"]) == (124, "running")
    assert (submit.poll(), place.job(name)["state"]) == (None, "running")
    assert place.submit(ENDLESS, "--detach").returncode == 0
    both = place.run("wait", "--timeout", "0.2")
    assert (both.returncode, "the jobs go on" in both.stderr) == (124, True)


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["130_interrupted", "143_terminated"],
)
def test_signals_that_cancel(place: Place, signum: signal.Signals, code: int) -> None:
    """Without a terminal: the job is cancelled, the agent ended, and submit gives the shell's code for it."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = began(place)
    os.kill(submit.pid, signum)
    stdout, stderr = submit.communicate(timeout=20)
    assert (submit.returncode, stderr) == (code, "")
    assert stdout.splitlines()[-1] == str(place.log_dir(name))
    job = place.job(name)
    assert (job["outcome"], job["exit_code"], job["verdict"]) == ("cancelled", 9, None)
    wait_until(lambda: not place.processes(), what="the end of the agent")


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGHUP, 129), (signal.SIGTSTP, 130)],
    ids=["129_hangup", "130_stopped_at_the_terminal"],
)
def test_signals_that_hand_over(place: Place, signum: signal.Signals, code: int) -> None:
    """The job goes on under the background supervisor; submit says how to get back, and the signal's code."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = began(place)
    os.kill(submit.pid, signum)
    stdout, stderr = submit.communicate(timeout=20)
    assert (submit.returncode, stdout.splitlines()[-1]) == (code, str(place.log_dir(name)))
    assert stderr.startswith(f"job {name} goes on in the background; back to it: delegate-job wait {name}")
    owner = wait_until(lambda: place.job(name)["owner"], what="the supervisor")
    assert (owner["pid"] != submit.pid, place.job(name)["state"]) == (True, "running")
    assert place.run("cancel", name).returncode == 0
    assert place.run("wait", name).returncode == 9


@pytest.mark.parametrize("code", [0, 1, 5, 77])
def test_verify_passes_the_scripts_own_code_through(place: Place, code: int) -> None:
    """`verify` ends as its script does, records it, and never changes how the job ended."""
    name = job_id(place.submit(COMPLETED).stdout)
    before = place.job(name)
    done = place.run("verify", "--job", name, "--validate", place.script("check", f"echo seen; exit {code}"))
    assert (done.returncode, done.stdout, done.stderr) == (code, "seen\n", "")
    logged = [json.loads(line) for line in place.run("logs", name, "--json").stdout.splitlines()]
    assert [(event["data"]["exit_code"]) for event in logged if event["kind"] == "verified"] == [code]
    after = place.job(name)
    assert {**after, "sequence": 0} == {**before, "sequence": 0}
