"""`submit` as people and scripts use it: its lines, its options, joined submits, a person as the agent."""

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from harness import Place, job_id, wait_until
from takeovers import UNTIL_SPAWNED

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
JOB_KEYS = {
    "id",
    "state",
    "outcome",
    "verdict",
    "exit_code",
    "agent",
    "attempt",
    "attempts",
    "prompt_file",
    "workdir",
    "session",
    "attach",
    "log_dir",
    "broker",
    "detail",
    "created_at",
    "started_at",
    "ended_at",
    "last_event_at",
    "timeout",
    "idle_timeout",
    "operation_id",
    "reason",
    "owner",
    "retry_of",
}


def running(place: Place) -> str:
    """Return the id of the one job once it runs; a directory alone is no job yet."""

    def found() -> list[str]:
        listed = json.loads(place.run("list", "--state", "running", "--json").stdout)
        return [job["id"] for job in listed]

    (name,) = wait_until(found, what="a running job")
    return name


def test_the_lines_of_submit(place: Place) -> None:
    """The id first, then how to attach, a line an event, the verdict; the audit directory is last."""
    reports = f"{REPORT} started\n{REPORT} progress --detail 'half way'\n{COMPLETED}"
    agent = f"{UNTIL_SPAWNED}\n{reports}\nexec sleep 600"
    done = place.submit(agent, "--validate", place.script("check", "exit 0"))
    lines = done.stdout.splitlines()
    name = job_id(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert shlex.split(lines[1])[:4] == ["attach:", "delegate-job", "attach", name]
    said = [line.partition(" ")[2] for line in lines[2:-3]]
    assert said == ["launching", "spawned", "started", "progress: half way", "completed: done"]
    assert lines[-3:-1] == ["validation: PASS", "outcome: accepted (completed and passed by the check)"]
    assert lines[-1] == str(place.log_dir(name))


@pytest.mark.parametrize(
    ("options", "stays"), [((), True), (("--close",), False)], ids=["left open", "closed"]
)
def test_a_session_is_named_while_it_is_there(place: Place, options: tuple[str, ...], stays: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What is told of a job that is done names `attach` if there is something to look at."""
    name = job_id(place.submit(f"{COMPLETED}\nexec sleep 600", *options).stdout)
    assert (place.job(name)["attach"] is not None) is stays
    assert ("attach " in place.run("status", name).stdout) is stays


def test_json_leaves_stdout_to_the_job(place: Place) -> None:
    """With --json stdout is the finished job and nothing else; the lines go to stderr."""
    done = place.submit(COMPLETED, "--json")
    job = json.loads(done.stdout)
    assert set(job) >= JOB_KEYS
    assert (job["state"], job["outcome"], job["exit_code"], job["owner"]) == ("done", "accepted", 0, None)
    assert job == place.job(job["id"])
    assert done.stderr.startswith(f"registered job: {job['id']}\n")
    assert done.stderr.splitlines()[-1] == job["log_dir"]


def test_the_seeds_command_line(place: Place) -> None:
    """The whole command line of the program that this one follows is understood, word for word."""
    agent = place.agent(COMPLETED)
    check = place.script("check", "exit 0")
    registry = ("--registry-dir", str(place.root / "seed"))
    options: tuple[str | Path, ...] = ("--agent", agent, "--prompt", "Do it", "--workdir", place.work)
    options = (*options, "--agent-session", "tmux:x", "--timeout", "60", "--idle-timeout", "30")
    options = (*options, "--validate", check, *registry)
    planned = place.run("submit", "--embedded-broker", *options, "--dry-run")
    assert (planned.returncode, (place.root / "seed").exists()) == (0, False)
    done = place.run("submit", "--embedded-broker", *options)
    name = job_id(done.stdout)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(place.log_dir(name)))
    job = json.loads(place.run("status", "--job", name, "--json", *registry).stdout)
    assert (job["session"], job["timeout"], job["idle_timeout"]) == ("x", 60.0, 30.0)
    assert name in place.run("list", *registry).stdout
    assert place.run("verify", "--job", name, "--validate", check, *registry).returncode == 0
    assert place.run("wait", "--job", name, "--timeout", "5", *registry).returncode == 0
    assert "completed: done" in place.run("logs", name, *registry).stdout
    assert str(place.log_dir(name)) in place.run("logs", "--list", *registry).stdout
    report = ("publish", "--job", name, "--event", "progress", "--detail", "late", *registry)
    assert place.run(*report).stdout.startswith("recorded")


def test_dry_run_makes_nothing(place: Place) -> None:
    """--dry-run registers nothing and starts nothing; its last line is the audit directory."""
    secret = {"SECRET_NAME": "secret-value"}
    check = place.script("check", "exit 0")
    words = place.submit_args(COMPLETED, "--dry-run", "--validate", check, "--prompt", "Sing\nwell;")
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*")}
    done = place.run(*words, env=secret)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in place.root.rglob("*")} == before
    assert place.processes() == []
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"argv: {place.root}/agent-1 ")
    assert Path(lines[-1]).parent == place.work / "delegate_job_logs"
    assert lines[-3:-1] == ["Sing", "well;"]
    assert ("SECRET_NAME" in done.stdout, "secret-value" in done.stdout) == (True, False)


def test_dry_run_as_json(place: Place) -> None:
    """The same as one document, with the whole instructions in it."""
    done = place.submit(COMPLETED, "--dry-run", "--json", "--prompt", "Sing;")
    plan = json.loads(done.stdout)
    assert plan["instructions"].endswith("\nSing;")
    assert (plan["check"], plan["broker"], plan["workdir"]) == (None, "embedded", str(place.work))
    assert {"argv", "session", "environment", "files", "log_dir"} <= set(plan)
    assert not place.registry.exists()


def test_dry_run_says_what_would_keep_it_from_starting(place: Place) -> None:
    """What submit would refuse, --dry-run refuses with the same code."""
    assert place.run("submit", "--dry-run", "--prompt", "x", "--agent", "nobody-there").returncode == 7
    assert place.run("submit", "--dry-run", "--prompt", "", "--agent", "human").returncode == 2


def test_a_prompt_from_a_file_and_from_stdin(place: Place) -> None:
    """--prompt-file takes a file, and `-` is stdin; both arrive byte for byte."""
    text = "Ünï 'x'\n\n-- $HOME\n"
    (place.work / "task").write_text(text)
    from_file = place.submit(COMPLETED, "--prompt-file", "task")
    from_stdin = place.submit(COMPLETED, "--prompt-file", "-", input=text)
    for done in (from_file, from_stdin):
        assert done.returncode == 0
        assert (place.log_dir(job_id(done.stdout)) / "prompt.md").read_text() == text


def test_an_operation_id_joins_the_first_job(place: Place) -> None:
    """A second submit with the key and prompt of the first is the same job, while it runs and afterwards."""
    words = place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}", "--operation-id", "op-1")
    first = place.start(*words)
    name = running(place)
    second = place.start(*words)
    assert second.stdout is not None
    assert second.stdout.readline() == f"registered job: {name}\n"
    (place.work / "go").touch()
    first.communicate(timeout=20)
    stdout, stderr = second.communicate(timeout=20)
    assert (first.returncode, second.returncode) == (0, 0)
    assert (stdout.splitlines()[-1], "joining" in stderr) == (str(place.log_dir(name)), True)
    third = place.run(*words)
    assert (third.returncode, job_id(third.stdout), place.jobs()) == (0, name, [name])


def test_an_operation_id_is_for_one_prompt(place: Place) -> None:
    """With another prompt the same key is a mistake: 2, and it names the job."""
    name = job_id(place.submit(COMPLETED, "--operation-id", "op-1").stdout)
    other = place.submit(COMPLETED, "--operation-id", "op-1", "--prompt", "Something else.")
    assert (other.returncode, other.stdout) == (2, "")
    assert name in other.stderr
    assert place.jobs() == [name]


@pytest.mark.parametrize("code", [0, 1])
def test_an_operation_id_raced_by_five_submits(place: Place, code: int) -> None:
    """Five submits with one key at the same time are one job, one agent, and five times its code."""
    event = "completed" if code == 0 else "error"
    agent = f"echo x >> {place.root}/starts\n{UNTIL_TOLD}\n{REPORT} {event}"
    words = place.submit_args(agent, "--operation-id", "race")
    submits = [place.start(*words) for _ in range(5)]
    running(place)
    (place.work / "go").touch()
    said = [submit.communicate(timeout=30) for submit in submits]
    assert [submit.returncode for submit in submits] == [code] * 5, said
    assert len({job_id(stdout) for stdout, _ in said}) == 1
    assert (place.root / "starts").read_text() == "x\n"
    assert len(place.jobs()) == 1
    assert [
        path.name for path in (place.work / "delegate_job_logs").iterdir() if path.is_dir()
    ] == place.jobs()


def test_a_submit_that_fails_leaves_no_secrets(place: Place) -> None:
    """A job that could not be made leaves no directory with the caller's environment in it."""
    done = place.submit(COMPLETED, "--broker", "mqtt://127.0.0.1:1", env={"TOKEN": "very-secret"})
    assert (done.returncode, place.jobs()) == (7, [])
    kept = [path for path in place.registry.rglob("*") if path.is_file()]
    assert [path.name for path in kept if b"very-secret" in path.read_bytes()] == []


def test_on_event_hears_each_applied_event(place: Place) -> None:
    """--on-event is run, without a shell, for each applied event, in order, with its JSON on stdin."""
    hook = place.script(
        "on event;", f"cat >> {place.root}/heard; printf '%s\\n' \"$*\" >> {place.root}/words"
    )
    command = f"{shlex.quote(str(hook))} '$(touch pwned)' 'two words'"
    done = place.submit(f"{REPORT} started\n{COMPLETED}", "--on-event", command)
    heard = [json.loads(line) for line in (place.root / "heard").read_text().splitlines()]
    logged = [json.loads(line) for line in place.run("logs", "@last", "--json").stdout.splitlines()]
    assert done.returncode == 0
    assert heard == [event for event in logged if event["applied"] and event["kind"] != "registered"]
    assert set((place.root / "words").read_text().splitlines()) == {"$(touch pwned) two words"}


@pytest.mark.parametrize("hook", ["/no/such/program", "/bin/false", "sleep 600"])
def test_on_event_is_never_in_the_way(place: Place, hook: str) -> None:
    """A hook that is missing or fails changes nothing; one that hangs is ended after its ten seconds."""
    done = place.submit(COMPLETED, "--on-event", hook)
    assert (done.returncode, place.job(job_id(done.stdout))["outcome"]) == (0, "accepted")
    assert [process for process in place.processes() if "sleep 600" in process.command] == []


def test_a_person_as_the_agent(place: Place) -> None:
    """`--agent human` starts nothing; it prints the task and the very commands that report on it."""
    submit = place.start("submit", "--agent", "human", "--prompt", "Water the plants.")
    name = running(place)
    job = place.job(name)
    assert (job["session"], job["attach"], place.tmux_sockets()) == (None, None, [])
    said = ""
    assert submit.stdout is not None
    while "Water the plants." not in said:
        said += submit.stdout.readline()
    (command,) = [line.strip() for line in said.splitlines() if "--event completed" in line]
    reported = subprocess.run(
        ["bash", "-c", command], env=place.env({"PATH": "/usr/bin:/bin"}), check=True, capture_output=True
    )
    # Its owner may have read the claim, and be gone, before it could be sent.
    assert reported.stdout.startswith(b"recorded")
    assert submit.wait(20) == 0
    assert place.job(name)["outcome"] == "accepted"


def test_a_person_is_told_of_a_rejection(place: Place) -> None:
    """A person gets the check's words in the submit's own terminal, and another attempt."""
    check = place.script("check", "[ -e mended ] || { echo too dry; exit 1; }")
    words = ("--agent", "human", "--prompt", "x", "--validate", check, "--attempts", "2")
    submit = place.start("submit", *words)
    name = running(place)
    place.run("publish", "--job", name, "--event", "completed")
    wait_until(
        lambda: place.job(name)["attempt"] == 1 and place.job(name)["last_event"] == "told", what="told"
    )
    (place.work / "mended").touch()
    place.run("publish", "--job", name, "--event", "completed")
    stdout, _ = submit.communicate(timeout=20)
    assert (submit.returncode, "  | too dry" in stdout) == (0, True)


def test_close_ends_the_session(place: Place) -> None:
    """--close ends session, agent and tmux server with the job; the screen is in pane.log."""
    done = place.submit(f"echo on the screen\n{COMPLETED}\nexec sleep 600", "--close")
    assert done.returncode == 0
    wait_until(lambda: not place.processes(), what="nothing left")
    assert "on the screen" in place.run("logs", "@last", "--pane").stdout


def test_without_close_the_session_stays_to_be_read(place: Place) -> None:
    """The session outlives the job and its agent, with what it showed."""
    done = place.submit(f"echo on the screen\n{COMPLETED}")
    name = job_id(done.stdout)
    # With its history: "Pane is dead" scrolls the screen up by a line.
    capture = ("capture-pane", "-p", "-S", "-", "-t", f"=dj-{name}:")
    wait_until(lambda: "on the screen" in place.tmux(*capture).stdout, what="the screen")


@pytest.mark.parametrize("words", [("list",), ("logs", "@last"), ("status", "@last")], ids=" ".join)
def test_a_broken_pipe_is_quiet(place: Place, words: tuple[str, ...]) -> None:
    """`| head -1` gets its line, and nobody sees a traceback or a complaint."""
    assert place.submit(COMPLETED).returncode == 0
    assert piped_to_head(place, *words) == (1, "")


def test_a_broken_pipe_of_submit_is_said_once(place: Place) -> None:
    """`submit | head -1` gets its line; that nobody reads the others is one warning, not an end."""
    agent = f"{UNTIL_TOLD}\n{REPORT} started\n{COMPLETED}"
    count, stderr = piped_to_head(place, *place.submit_args(agent), then="exec <&-; touch go")
    assert (count, len(stderr.splitlines())) == (1, 1)
    assert stderr.startswith("warning: the output cannot be written")
    assert place.job("@last")["outcome"] == "accepted"


def piped_to_head(place: Place, *words: str, then: str = ":") -> tuple[int, str]:
    """Run `delegate-job WORDS | (head -1; THEN)`; return how many lines came, and what stood on stderr."""
    command = shlex.join([place.environ["DJ"], *words])
    piped = place.spawn("bash", "-c", f"{command} | (head -1; {then})")
    stdout, stderr = piped.communicate(timeout=30)
    return len(stdout.splitlines()), stderr


def test_a_submit_whose_reader_has_gone_goes_on(place: Place) -> None:
    """The job does not depend on who reads submit's lines: it is seen to its end, and its verdict stands."""
    agent = f"{UNTIL_TOLD}\n{REPORT} progress\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--validate", place.script("check", "exit 0")))
    name = running(place)
    assert submit.stdout is not None
    submit.stdout.close()
    (place.work / "go").touch()
    job = place.await_state(name, "done")
    assert (job["outcome"], job["verdict"]) == ("accepted", "passed")
    submit.wait(20)


def test_arguments_for_the_agent(place: Place) -> None:
    """What stands after `--` reaches the agent as it is, before the instructions."""
    agent = place.agent(f'printf "%s\\n" "$1" "$2" > told\n{COMPLETED}')
    done = place.run("submit", "--agent", agent, "--prompt", "x", "--", "--model=x y", "-p")
    assert done.returncode == 0
    assert (place.work / "told").read_text() == "--model=x y\n-p\n"


def test_a_stopped_submit_does_not_stop_its_agent(place: Place) -> None:
    """The agent works in a session of its own: what is done to submit's process group is not done to it."""
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"))
    name = running(place)
    os.killpg(submit.pid, signal.SIGSTOP)
    (place.work / "go").touch()
    reports = place.log_dir(name) / "reports.jsonl"
    wait_until(lambda: reports.exists() and "completed" in reports.read_text(), what="the report")
    os.killpg(submit.pid, signal.SIGCONT)
    assert submit.wait(20) == 0
