"""How reports got lost, or were wrongly refused, in tools like this one: a test each, F1 to F23.

F15, the exit codes, has a file of its own: test_exit_codes.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from harness import Place, job_id, wait_until

REPORT = '"$DJ" publish --event'
ENDLESS = f"{REPORT} started\nexec sleep 600"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
Submitted = subprocess.Popen[str]


def begin(place: Place, agent: str, *options: str | Path, **how: Any) -> tuple[Submitted, str]:
    """Start a submit whose agent reports `started`; return it and the job's id once the owner knows."""
    known = set(place.jobs())
    # Quiet on the screen: what `publish` prints once it is sent would be new words of the agent's.
    submit = place.start(*place.submit_args(f"{REPORT} started > /dev/null\n{agent}", *options), **how)
    (name,) = wait_until(lambda: set(place.jobs()) - known, what="a new job")
    wait_until(lambda: '"started"' in reports(place, name), what="the agent's first report")
    wait_until(lambda: place.job(name)["state"] not in {"registered", "launching"}, what="the owner")
    return submit, name


def reports(place: Place, name: str) -> str:
    """Return what was claimed for a job so far."""
    file = place.log_dir(name) / "reports.jsonl"
    return file.read_text(errors="replace") if file.exists() else ""


def end(submit: Submitted) -> int:
    """Wait for the end of a submit and return its code."""
    submit.communicate(timeout=30)
    return submit.returncode


def logged(place: Place, name: str) -> list[dict[str, Any]]:
    """Return what `logs --json` says of a job."""
    shown = place.run("logs", name, "--json")
    assert shown.returncode == 0, shown
    return [json.loads(line) for line in shown.stdout.splitlines()]


def kinds(place: Place, name: str, *, applied: bool = True) -> list[str]:
    """Return the kinds of a job's events that were applied, or that were not, in their order."""
    return [event["kind"] for event in logged(place, name) if event["applied"] is applied]


def await_detail(place: Place, name: str, detail: str) -> None:
    """Wait until the agent's last words are these."""
    wait_until(lambda: place.job(name)["detail"] == detail, what=f"detail {detail}")


def tmux_before_the_real_one(place: Place, text: str) -> dict[str, str]:
    """Return an environment in which `tmux` is a script that can fall back on `$TMUX_PROGRAM`."""
    program = shutil.which("tmux", path=place.environ["PATH"])
    (place.root / "bin").mkdir()
    place.script("bin/tmux", f"TMUX_PROGRAM={program}\n{text}")
    return {"PATH": f"{place.root / 'bin'}:{place.environ['PATH']}"}


def test_f1_a_report_made_while_the_receiver_was_down_counts(place: Place) -> None:
    """F1: the receiver was down for a moment and the report was lost; ours is recorded first, and read."""
    submit, name = begin(place, f"{UNTIL_TOLD}\n{REPORT} completed > said\nexec sleep 600")
    os.kill(submit.pid, signal.SIGSTOP)
    (place.work / "go").touch()
    wait_until(lambda: (place.work / "said").exists() and (place.work / "said").read_text(), what="publish")
    assert (place.work / "said").read_text().startswith("recorded, not sent (")
    assert place.job(name)["state"] == "running"
    os.kill(submit.pid, signal.SIGCONT)
    assert end(submit) == 0


def test_f1_a_report_made_without_an_owner_is_read_at_takeover(place: Place) -> None:
    """F1: who takes a job over reads the claim first: a finished job is accepted, not cancelled."""
    submit, name = begin(place, f"{UNTIL_TOLD}\n{REPORT} completed")
    with place.nobody_takes_over():
        submit.kill()
        submit.communicate(timeout=10)
        (place.work / "go").touch()
        wait_until(lambda: '"completed"' in reports(place, name), what="the report")
        assert "[not yet read: the job has no owner]" in place.run("logs", name).stdout
    assert place.run("cancel", name).stdout == f"{name} accepted\n"
    assert place.run("wait", name).returncode == 0


def test_f2_a_claim_counts_before_started_was_seen(place: Place) -> None:
    """F2: a valid report was refused because `started` had not been seen; ours needs none."""
    done = place.submit(f"{REPORT} completed")
    assert done.returncode == 0
    assert "started" not in kinds(place, job_id(done.stdout))


def test_f3_a_claim_counts_after_a_long_silence(place: Place) -> None:
    """F3: a false "stalled" timer closed the job; ours is said once, closes nothing, and the claim counts."""
    (place.root / "site").mkdir()
    # The one constant that would make this test last two minutes.
    short = "from delegate_job import clocks\nclocks.STALLED_AFTER = 0.3\n"
    (place.root / "site/sitecustomize.py").write_text(short)
    agent = f"{UNTIL_TOLD}\n{REPORT} completed"
    submit, name = begin(place, agent, env={"PYTHONPATH": str(place.root / "site")})
    wait_until(lambda: "stalled" in kinds(place, name), what="stalled")
    assert place.job(name)["state"] == "running"
    (place.work / "go").touch()
    assert end(submit) == 0
    assert kinds(place, name).count("stalled") == 1


def test_f3_a_claim_counts_while_the_job_waits_for_a_person(place: Place) -> None:
    """F3: a job that was thought to wait for its person is ended by its claim all the same."""
    done = place.submit(f"{REPORT} permission_required\n{REPORT} completed")
    assert done.returncode == 0


def test_f4_a_stale_claim_of_an_earlier_run_ends_nothing(place: Place) -> None:
    """F4: a stale "done" ended the new worker of the same name; ours is for one launch, by its id."""
    first = job_id(place.submit(f"{REPORT} completed", "--close", "--agent-session", "tmux:worker").stdout)
    submit, second = begin(place, f"{UNTIL_TOLD}\n{REPORT} error", "--agent-session", "tmux:worker")
    stale = reports(place, first)
    with (place.log_dir(second) / "reports.jsonl").open("a") as file:
        file.write(stale)
    assert place.run("publish", "--job", first, "--event", "completed").returncode == 0
    wait_until(lambda: "unreadable" in kinds(place, second, applied=False), what="the stale line was met")
    assert place.job(second)["state"] == "running"
    (place.work / "go").touch()
    assert end(submit) == 1
    assert "completed" not in kinds(place, second)


def test_f6_an_agent_that_dies_in_its_pane_is_noticed(place: Place) -> None:
    """F6: the agent died inside a living shell and nobody noticed; our pane's own process says so."""
    submit, name = begin(place, "kill -9 $$")
    assert end(submit) == 4
    (exited,) = [event for event in logged(place, name) if event["kind"] == "exited"]
    assert (exited["source"], exited["data"]["signal"]) == ("runner", 9)
    assert place.tmux("has-session", "-t", f"=dj-{name}").returncode == 0


def test_f7_done_is_final(place: Place) -> None:
    """F7: a finished job was relabelled by a later probe; ours stays what it was, whatever comes."""
    name = job_id(place.submit(f"{REPORT} completed\nexec sleep 600").stdout)
    before = place.job(name)
    assert place.run("publish", "--job", name, "--event", "error").returncode == 0
    place.tmux("kill-server")
    assert place.run("cancel", name).stdout == f"{name} accepted\n"
    wait_until(lambda: not place.processes(), what="the end of the agent")
    assert place.job(name) == before
    assert place.run("wait", name).returncode == 0


def test_f8_what_comes_after_done_is_kept_as_such(place: Place) -> None:
    """F8: the agent went on after "done"; its later words are shown as after the end, and change nothing."""
    done = place.submit(f"{REPORT} completed\n{REPORT} progress --detail more\ntouch said")
    name = job_id(done.stdout)
    wait_until((place.work / "said").exists, what="the late report")
    assert (done.returncode, place.job(name)["outcome"]) == (0, "accepted")
    late = place.run("logs", name).stdout.splitlines()[-1]
    assert ("progress: more" in late, "[after the end]" in late) == (True, True)


def test_f9_a_repeated_message_is_applied_once(place: Place) -> None:
    """F9: the same message was delivered again and again; by its id, ours is one event, however it comes."""
    file = '"$DELEGATE_JOB_DIR/reports.jsonl"'
    again = f'line=$(tail -n 2 {file})\nfor _ in 1 2 3; do printf "\\n%s\\n" "$line" >> {file}; done'
    agent = f"{REPORT} progress --detail once\n{again}\n{REPORT} completed\n{again}\nexec sleep 600"
    check = place.script("check", f"echo x >> {place.root}/checks; sleep 0.5; exit 1")
    done = place.submit(agent, "--validate", check)
    name = job_id(done.stdout)
    assert done.returncode == 3
    assert (place.root / "checks").read_text() == "x\n"
    everything = [event["kind"] for event in logged(place, name)]
    assert (everything.count("progress"), everything.count("completed")) == (1, 1)


def test_f10_a_job_inside_a_job_has_an_identity_of_its_own(place: Place) -> None:
    """F10: an inherited identity let a child flip its parent's state; ours is taken from what is no agent."""
    inner = place.agent(f"{REPORT} error --detail inner")
    check = place.script("check", f"env > {place.root}/environment")
    agent = (
        f'"$DJ" submit --agent command --command {inner} --prompt inner --close && exit 9\n'
        f"{REPORT} completed --detail outer"
    )
    done = place.submit(agent, "--validate", check)
    outer = place.job(job_id(done.stdout))
    (inside,) = [place.job(name) for name in place.jobs() if name != outer["id"]]
    assert (done.returncode, outer["detail"]) == (0, "outer")
    assert (inside["outcome"], inside["detail"]) == ("failed", "inner")
    assert "DELEGATE_JOB_ID=" not in (place.root / "environment").read_text()


def test_f11_a_failed_tmux_query_is_not_a_session_gone(place: Place) -> None:
    """F11: a failed tmux query was read as "session gone"; ours is unknown, and asked again."""
    env = tmux_before_the_real_one(place, f'[ -e {place.root}/fail ] && exit 1\nexec "$TMUX_PROGRAM" "$@"')
    submit, name = begin(place, f"echo new words\n{UNTIL_TOLD}\n{REPORT} completed", env=env)
    (place.root / "fail").touch()
    # Each of these makes the owner look at the job while tmux tells it nothing.
    for number in range(3):
        place.run("publish", "--job", name, "--event", "progress", "--detail", str(number))
        await_detail(place, name, str(number))
    assert (submit.poll(), place.job(name)["state"]) == (None, "running")
    shown = place.run("attach", name, "--json", env=env)
    assert (shown.returncode, "is gone" in shown.stderr) == (0, False)
    (place.work / "go").touch()
    assert end(submit) == 0


def test_f11_another_tmux_directory_is_not_a_session_gone(place: Place) -> None:
    """F11: from a shell with another TMUX_TMPDIR the living job is running, found, and never lost."""
    submit, name = begin(place, f"{UNTIL_TOLD}\n{REPORT} completed")
    (place.root / "elsewhere").mkdir()
    elsewhere = {"TMUX_TMPDIR": str(place.root / "elsewhere"), "TMUX": "/no/such/socket,1,0"}
    assert json.loads(place.run("status", name, "--json", env=elsewhere).stdout)["state"] == "running"
    assert f"{name}  running" in place.run("list", env=elsewhere).stdout
    assert place.run("wait", name, "--timeout", "0", env=elsewhere).returncode == 124
    (server,) = place.tmux_sockets()
    shown = json.loads(place.run("attach", name, "--json", env=elsewhere).stdout)
    assert shown["argv"][:3] == ["tmux", "-S", str(server)]
    (place.work / "go").touch()
    assert end(submit) == 0


def test_f11_another_tmux_directory_at_takeover_ends_the_right_agent(place: Place) -> None:
    """F11: who takes a job over from elsewhere still finds its agent, by the lock and the socket kept."""
    submit, name = begin(place, "exec sleep 600", "--close")
    submit.kill()
    submit.communicate(timeout=10)
    (place.root / "elsewhere").mkdir()
    cancelled = place.run("cancel", name, env={"TMUX_TMPDIR": str(place.root / "elsewhere")})
    assert cancelled.stdout == f"{name} cancelled\n"
    wait_until(lambda: not place.jobs_processes(), what="the end of agent and session")


def test_f12_a_hung_tmux_at_launch_ends_in_bounded_time(place: Place) -> None:
    """F12: tmux hung and a lock was held for hours; each of our calls has an end, the job a name."""
    hang = 'case "$*" in *new-session*) exec sleep 600;; esac\nexec "$TMUX_PROGRAM" "$@"'
    done = place.submit(ENDLESS, env=tmux_before_the_real_one(place, hang))
    assert done.returncode == 7
    assert "tmux: it does not answer" in done.stdout
    wait_until(lambda: not place.processes(), what="the end of the hung tmux")


def test_f12_a_hung_tmux_at_the_end_changes_no_outcome(place: Place) -> None:
    """F12: a tmux that hangs while the session is closed delays the end by its limit, and is left behind."""
    hang = 'case "$*" in *kill-session*) exec sleep 600;; esac\nexec "$TMUX_PROGRAM" "$@"'
    done = place.submit(f"{REPORT} completed", "--close", env=tmux_before_the_real_one(place, hang))
    assert done.returncode == 0


def test_f13_a_session_is_never_met_by_the_beginning_of_its_name(place: Place) -> None:
    """F13: `-t job-1` hit `job-12`; ours are exact: the one is closed and gone, the other lives."""
    long, long_id = begin(place, f"{UNTIL_TOLD}\n{REPORT} completed", "--agent-session", "tmux:job-12")
    short = place.submit(f"{REPORT} completed", "--agent-session", "tmux:job-1", "--close")
    assert short.returncode == 0
    looked = place.run("attach", job_id(short.stdout), "--json")
    assert (looked.returncode, "job-1 of job" in looked.stderr) == (7, True)
    assert place.job(long_id)["state"] == "running"
    (place.work / "go").touch()
    assert end(long) == 0


def test_f14_an_agent_never_starts_elsewhere(place: Place) -> None:
    """F14: the directory was gone and the pane started elsewhere; ours is 7, and nothing is started."""
    gone = place.root / "gone"
    done = place.submit(f"touch {place.root}/started", "--workdir", gone)
    assert (done.returncode, str(gone) in done.stderr) == (7, True)
    assert not (place.root / "started").exists()


def test_f14_a_work_dir_that_goes_away_in_mid_job_is_said(place: Place) -> None:
    """F14: an agent that must be started again in a directory that is gone is not started in another one."""
    work = place.root / "away"
    work.mkdir()
    agent = f"echo x >> {place.root}/starts\nmv {work} {work}-moved\n{REPORT} completed"
    check = place.script("check", "exit 1")
    done = place.submit(agent, "--workdir", work, "--validate", check, "--attempts", "2")
    assert done.returncode == 4
    assert str(work) in str(place.job(job_id(done.stdout))["reason"])
    assert (place.root / "starts").read_text() == "x\n"


def test_f15_a_clean_end_is_no_verdict(place: Place) -> None:
    """F15: a clean exit was shown as an error, or the reverse; what was claimed counts, not how it ended."""
    said = place.submit(f"{REPORT} completed\nexit 3")
    silent = place.submit("exit 0")
    assert (said.returncode, silent.returncode) == (0, 4)


def test_f16_only_what_a_job_started_is_ended(place: Place) -> None:
    """F16: a cleanup by name killed 65 living sessions; ours ends one job, by id, and nothing like it."""
    submit, name = begin(place, "exec sleep 601", "--close")
    other, _ = begin(place, "exec sleep 601")
    alike = place.spawn("sleep", "601")
    place.tmux("new-session", "-d", "-s", f"dj-{name}-mine", "sleep", "601")
    place.spawn("tmux", "-L", "another", "new-session", "-d", "-s", f"dj-{name}", "sleep", "601").wait(10)
    (another,) = [server for server in place.tmux_sockets() if server.name == "another"]
    (ours,) = [server for server in place.tmux_sockets() if server.name != "another"]
    assert place.run("cancel", name).returncode == 0
    assert (end(submit), other.poll(), alike.poll()) == (9, None, None)
    left = _tmux_sessions(ours)
    assert (f"dj-{name}" in left, f"dj-{name}-mine" in left, len(left)) == (False, True, 2)
    assert _tmux_sessions(another) == [f"dj-{name}"]
    subprocess.run(["tmux", "-S", another, "kill-server"], check=True, timeout=10)


def _tmux_sessions(server: Path) -> list[str]:
    listed = subprocess.run(
        ["tmux", "-S", server, "list-sessions", "-F", "#S"], check=True, capture_output=True, timeout=10
    )
    return listed.stdout.decode().split()


def test_f17_an_agent_gets_the_environment_of_its_own_submit(place: Place) -> None:
    """F17: the tmux server's old environment reached the worker; ours comes from the job's own file."""
    agent = f"env > environment-$COLOUR\n{REPORT} completed\nexec sleep 600"
    first = place.submit(agent, env={"COLOUR": "red", "ONLY_IN_THE_FIRST": "1"})
    second = place.submit(agent, env={"COLOUR": "blue", "TMUX": "/x,1,2", "TMUX_PANE": "%7"})
    assert (first.returncode, second.returncode) == (0, 0)
    environment = (place.work / "environment-blue").read_text().splitlines()
    assert "COLOUR=blue" in environment
    names = {line.partition("=")[0] for line in environment}
    assert not names & {"ONLY_IN_THE_FIRST", "TMUX", "TMUX_PANE"}


def test_f18_a_prompt_arrives_whole(place: Place) -> None:
    """F18: Enter was swallowed, long prompts cut, dash and backslash eaten; ours is one argument, whole."""
    prompt = "-x \\n 'a' \"b\" $(touch pwned) `touch pwned`;\n" + "long " * 20_000 + "\\ the end;"
    agent = place.agent(f'printf %s "${{@: -1}}" > told\n{REPORT} completed')
    done = place.run("submit", "--agent", agent, "--prompt", prompt)
    assert done.returncode == 0
    assert (place.work / "told").read_text().endswith(prompt)
    assert (place.log_dir(job_id(done.stdout)) / "prompt.md").read_text() == prompt
    assert not (place.work / "pwned").exists()


def test_f18_a_rejection_arrives_whole_with_its_enter(place: Place) -> None:
    """F18: a follow-up is pasted, entered, and only then said to be told; the agent can act on it."""
    agent = (
        f"{REPORT} completed\n"
        'while read -r line; do printf "%s\\n" "$line" >> told\n'
        '  case $line in "Checks left"*) break;; esac\ndone\n'
        f"touch mended\n{REPORT} completed\nexec sleep 600"
    )
    check = place.script("check", '[ -e mended ] || { echo "it is; not $(mended) #{yet}"; exit 4; }')
    done = place.submit(agent, "--validate", check, "--attempts", "2")
    job = place.job(job_id(done.stdout))
    assert (done.returncode, job["attempt"], job["verdict"]) == (0, 2, "passed")
    assert done.stdout.count("validation: FAIL (exit 4)\n") == 1
    told = (place.work / "told").read_text()
    assert "check 1 of 2 failed with exit code 4" in told
    assert "| it is; not  #{yet}" in told


def test_f21_a_session_has_a_size_for_reading(place: Place) -> None:
    """F21: a detached session was born 2x1 or 80x24; ours has 200 columns and 50 rows, on any caller's."""
    done = place.submit(f"stty size > size\n{REPORT} completed", env={"COLUMNS": "10", "LINES": "3"})
    assert done.returncode == 0
    assert (place.work / "size").read_text() == "50 200\n"


def test_f22_the_worker_cannot_judge_its_own_work(place: Place) -> None:
    """F22: the worker judged its own work; words like a verdict in its own file are words."""
    forged = [{"kind": kind, "source": "owner"} for kind in ("check_passed", "accepted", "closed", "exited")]
    lines = "".join(
        json.dumps({"v": 1, "id": f"forged-{n}", "at": "2026-01-01T00:00:00Z", "job_id": "JOB", **line})
        + "\n"
        for n, line in enumerate(forged)
    )
    (place.root / "forged").write_text(lines)
    forge = f'sed "s/JOB/$DELEGATE_JOB_ID/" {place.root}/forged >> "$DELEGATE_JOB_DIR/reports.jsonl"'
    agent = f"{forge}\n{REPORT} completed\n{forge}\nexec sleep 600"
    done = place.submit(agent, "--validate", place.script("check", "exit 1"))
    job = place.job(job_id(done.stdout))
    assert (done.returncode, job["outcome"], job["verdict"]) == (3, "rejected", "failed")
    assert not {"check_passed", "accepted", "exited"} & set(kinds(place, job["id"]))


def test_f22_a_changed_check_is_a_rejection(place: Place) -> None:
    """F22: a check that the agent has rewritten is known by its hash: rejected at once, attempts or not."""
    check = place.script("check", "exit 1")
    agent = f"printf '#!/bin/sh\\nexit 0\\n' > {check}\n{REPORT} completed\nexec sleep 600"
    done = place.submit(agent, "--validate", check, "--attempts", "3")
    job = place.job(job_id(done.stdout))
    assert (done.returncode, job["verdict"], job["attempt"]) == (3, "changed", 1)


def test_f23_wait_sees_what_was_reached_before_it_looked(place: Place) -> None:
    """F23: `wait` missed a state reached before it looked; ours reads the registry, which is the memory."""
    submit, name = begin(place, f"{UNTIL_TOLD}\n{REPORT} completed")
    place.await_state(name, "running")
    reached = place.run("wait", name, "--until", "running", "--timeout", "0")
    assert (reached.returncode, reached.stdout) == (0, f"{name} running\n")
    (place.work / "go").touch()
    assert end(submit) == 0
    for words in ((), ("--until", "waiting"), ("--any",), ("--timeout", "0")):
        assert place.run("wait", name, *words).returncode == 0
    lost = job_id(place.submit("exit 0").stdout)
    assert place.run("wait", lost, "--until", "running", "--timeout", "0").returncode == 4
