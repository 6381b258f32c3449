"""Answers from other terminals, and signs of life: with a scripted Claude that runs the hooks it is given."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hooked
from delegate_job import journal
from delegate_job.events import Event, Kind, Source
from delegate_job.hook_proof import KEY, new_key
from delegate_job.job import JobSpec
from delegate_job.paths import JobPaths
from delegate_job.startup import Startup
from harness import Place, job_id, wait_until
from terminal import Terminal

CLAUDE = """#!{python}
import json, os, subprocess, sys, time

settings = json.load(open(sys.argv[sys.argv.index("--settings") + 1]))
payloads = {{each["hook_event_name"]: each for each in json.load(open({samples!r}))}}


def fire(event, wait=True, **changes):
    hook = settings["hooks"][event][0]["hooks"][0]
    process = subprocess.Popen(
        [hook["command"], *hook["args"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write(json.dumps(payloads[event] | changes))
    process.stdin.close()
    return process.stdout.read() if wait else process


def said(text):
    with open("said", "a") as file:
        file.write(text + "\\n")


{script}
"""
STARTS = 'fire("SessionStart"); fire("UserPromptSubmit")\n'
TWO_DIALOGS = (
    STARTS
    + 'first = fire("PermissionRequest", wait=False, tool_input={"command": "first"})\n'
    + 'while "permission_required" not in open(os.environ["DELEGATE_JOB_DIR"] + "/reports.jsonl").read():\n'
    + "    time.sleep(0.02)\n"
    + 'second = fire("PermissionRequest", wait=False, tool_input={"command": "second"})\n'
    + 'said(json.loads(first.stdout.read())["hookSpecificOutput"]["decision"]["behavior"])\n'
    + 'said(json.loads(second.stdout.read())["hookSpecificOutput"]["decision"]["behavior"])\n'
    + "input()\n"
)


@pytest.fixture
def claude(place: Place) -> "Scripted":
    """Give a scripted Claude in a place."""
    return Scripted(place)


class Scripted:
    """A program `claude` on PATH that does what a test says, with the hooks of its settings."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._bin = place.root / "bin"
        self._bin.mkdir()
        place.environ["PATH"] = f"{self._bin}:{place.environ['PATH']}"

    def start(self, script: str, *options: str) -> str:
        """Start a job of this script in the background; return its id."""
        samples = self.place.root / "samples.json"
        samples.write_text(json.dumps(hooked.samples("claude_2.1.330")[::-1]))
        program = self._bin / "claude"
        program.write_text(CLAUDE.format(python=sys.executable, samples=str(samples), script=script))
        program.chmod(0o755)
        done = self.place.run("submit", "--prompt", "Do it.", "--detach", "--close", *options)
        assert done.returncode == 0, done
        return job_id(done.stdout)

    def events(self, job: str) -> list[dict[str, Any]]:
        """Return what was recorded."""
        path = self.place.registry / "jobs" / job / "events.jsonl"
        return (
            [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            if path.exists()
            else []
        )

    def await_kinds(self, job: str, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the events of this kind once there are so many."""

        def found() -> list[dict[str, Any]]:
            events = [event for event in self.events(job) if event["kind"] == kind]
            return events if len(events) >= count else []

        return wait_until(found, what=kind)


def test_each_of_two_dialogs_gets_its_own_answer(claude: Scripted) -> None:
    """The oldest is answered first; a third answer finds nothing that waits."""
    job = claude.start(TWO_DIALOGS)
    claude.await_kinds(job, "permission_required", 2)
    approved = claude.place.run("approve", job, "--json")
    assert json.loads(approved.stdout) == {"id": job, "approved": True, "what": "Bash: first"}
    denied = claude.place.run("deny", job)
    assert denied.stdout == "denied: Bash: second\n"
    assert wait_until((claude.place.work / "said").exists) is True
    wait_until(lambda: (claude.place.work / "said").read_text() == "allow\ndeny\n", what="both answers")
    refused = claude.place.run("approve", job)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1 + refused.stderr.count("hint:"))
    claude.place.run("cancel", job)


def test_the_keys_of_watch_answer(claude: Scripted) -> None:
    """Before an approval stands what it is for, of two dialogs the oldest; a refusal takes a reason along."""
    job = claude.start(TWO_DIALOGS)
    claude.await_kinds(job, "permission_required", 2)
    terminal = Terminal(claude.place)
    terminal.start("watch")
    terminal.shows(">!")
    terminal.press("y")
    terminal.shows(f"Approve what job {job} asks for?", "WAITING: Bash: first")
    terminal.press("y")
    terminal.shows("approve: approved: Bash: first")
    terminal.press("n")
    terminal.shows(f"Deny what job {job} asks for", "Bash: second")
    terminal.press("- not this", "Enter")
    terminal.shows("deny: denied: Bash: second")
    (denied,) = claude.await_kinds(job, "denied")
    assert denied["detail"] == "- not this"
    wait_until((claude.place.work / "said").exists, what="the first answer")
    wait_until(lambda: (claude.place.work / "said").read_text() == "allow\ndeny\n", what="both answers")
    terminal.press("q")
    terminal.shows("code=0")
    claude.place.run("cancel", job)


@pytest.mark.parametrize("command", [("approve",), ("deny",), ("answer", "Yes.")])
def test_what_cannot_be_answered_from_here_is_said(place: Place, command: tuple[str, ...]) -> None:
    """A scripted agent's own `permission_required` has no dialog of ours: 2, and where to look."""
    what, *rest = command
    agent = place.agent('"$DJ" publish --event permission_required --detail "may I?"\nexec sleep 600')
    started = place.run(
        "submit", "--agent", "command", "--command", str(agent), "--prompt", "x", "--detach", "--close"
    )
    job = job_id(started.stdout)
    place.await_state(job, "waiting")
    refused = place.run(what, job, *rest)
    assert (refused.returncode, "attach" in refused.stderr) == (2, True), refused
    place.run("cancel", job)


def test_a_refusal_names_the_command_that_helps(claude: Scripted) -> None:
    """`send` into a dialog, `approve` without one when the turn is over, and `send` to a job that is done."""
    ends = 'fire("Stop", background_tasks=[])\n' * 2 + "input()\n" + STARTS + "input()\n"
    job = claude.start(f'{STARTS}fire("PermissionRequest", tool_input={{"command": "first"}})\n{ends}')
    claude.await_kinds(job, "permission_required")
    hints = [hint_of(claude.place.run("send", job, "Go on."))]
    assert claude.place.run("approve", job).returncode == 0
    claude.await_kinds(job, "turn_ended")
    claude.place.await_state(job, "waiting")
    hints += [hint_of(claude.place.run(*words, job)) for words in (["approve"], ["deny"])]
    assert claude.place.run("answer", job, "Then go on.").returncode == 0
    assert claude.place.run("cancel", job).returncode == 0
    claude.place.await_state(job, "done")
    hints += [hint_of(claude.place.run("send", job, "Go on."))]
    send = f"delegate-job send {job} TEXT"
    retry = f"`delegate-job retry {job}` gives its task to a new agent"
    assert hints == [f"delegate-job approve {job}, or deny it", send, send, retry]


def hint_of(refused: "subprocess.CompletedProcess[str]") -> str:
    """Return the hint of a refusal, after a look that it is one."""
    (error, hint) = refused.stderr.splitlines()
    assert (refused.returncode, error.partition(": ")[0]) == (2, "error"), refused
    return hint.removeprefix("hint: ")


def test_a_silent_start_calls_a_person(claude: Scripted) -> None:
    """Without a hook in time the job waits, with the words of the screen; a later start lets it run."""
    job = claude.start(
        'print("Do you trust this folder?"); input()\n' + STARTS + "input()", "--startup-timeout", "4"
    )
    (told,) = claude.await_kinds(job, "permission_required")
    assert (told["source"], told["data"]["reason"]) == ("owner", "startup_dialog")
    assert told["data"]["screen"] == "Do you trust this folder?"
    assert claude.place.tmux("send-keys", "-t", f"=dj-{job}:", "Enter").returncode == 0
    claude.await_kinds(job, "started")
    claude.place.await_state(job, "running")
    claude.place.run("cancel", job)


def test_zero_waits_for_no_start(claude: Scripted) -> None:
    """With `--startup-timeout 0` silence means nothing."""
    job = claude.start("import time; time.sleep(1.5)", "--startup-timeout", "0")
    assert claude.place.run("wait", job).returncode == 4
    assert "permission_required" not in [event["kind"] for event in claude.events(job)]


def test_a_silent_stop_needs_a_check(place: Place) -> None:
    """`--accept-silent-stop` alone is a usage error: nothing could decide."""
    refused = place.run("submit", "--prompt", "x", "--accept-silent-stop")
    assert (refused.returncode, "--validate" in refused.stderr) == (2, True)


def test_a_program_that_cannot_report_is_judged_by_the_check(place: Place) -> None:
    """With `--accept-silent-stop` each exit with 0 is checked, also that of a launch after a rejection."""
    agent = place.agent("[ ! -e one ] || touch two\ntouch one")
    check = place.script("check", '[ -e "$JOB_WORKDIR/two" ]')
    options = ("--agent", "command", "--command", str(agent), "--prompt", "x", "--validate", check)
    done = place.run("submit", *options, "--accept-silent-stop", "--attempts", "2")
    assert done.returncode == 0, done
    assert place.job(job_id(done.stdout))["attempt"] == 2


# -- the wait for the first hook


def startup(tmp_path: Path, limit: float = 0.001) -> Startup:
    """Return the wait of a job that has hooks."""
    paths = JobPaths(tmp_path)
    paths.agent.mkdir()
    (paths.agent / KEY).write_bytes(new_key())
    spec = JobSpec("j", "claude-code", "/w", "dj-j", "/w/l/j", "", startup_timeout=limit)
    return Startup(spec, paths)


def said(kind: Kind, source: Source) -> Any:
    """Return an event of the job."""
    return Event("1", "j", kind, source, journal.now())


def test_the_wait_begins_with_each_launch_and_ends_with_any_hook(tmp_path: Path) -> None:
    """It says once that the time is up; a hook of any kind, or the agent's end, ends the wait."""
    wait = startup(tmp_path)
    assert not wait.is_due()
    wait.note(said(Kind.SPAWNED, Source.RUNNER))
    assert wait_until(wait.is_due)
    assert not wait.is_due()
    for kind, source in ((Kind.PROGRESS, Source.HOOK), (Kind.EXITED, Source.RUNNER)):
        wait.note(said(Kind.SPAWNED, Source.RUNNER))
        wait.note(said(kind, source))
        assert not wait.is_due()


def test_an_owner_after_us_does_not_say_it_again(tmp_path: Path) -> None:
    """What the owner before has said of this launch holds; a report of the model is no sign of a hook."""
    wait = startup(tmp_path)
    wait.note(said(Kind.SPAWNED, Source.RUNNER))
    wait.note(said(Kind.PERMISSION_REQUIRED, Source.OWNER))
    assert not wait.is_due()
    wait.note(said(Kind.SPAWNED, Source.RUNNER))
    wait.note(said(Kind.STARTED, Source.AGENT))
    assert wait_until(wait.is_due)


def test_a_job_without_our_hooks_waits_for_none(tmp_path: Path) -> None:
    """Where no hook could be given, none is missed."""
    wait = startup(tmp_path)
    (tmp_path / "agent" / KEY).unlink()
    wait.note(said(Kind.SPAWNED, Source.RUNNER))
    assert not wait.is_due()
