"""Who owns a job when its owner has died: by whom it is taken over, how soon, and that nothing is lost by it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import Place, wait_until

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
ENDLESS = f"{REPORT} started\nexec sleep 600"


def reported(place: Place, kind: str) -> str:
    """Return the id of the one job once its agent has made this report."""
    paths = wait_until(
        lambda: [
            path
            for path in place.work.glob("delegate_job_logs/*/reports.jsonl")
            if f'"{kind}"' in path.read_text(errors="replace")
        ],
        what=kind,
    )
    return paths[0].parent.name


def kill(process: "subprocess.Popen[str]") -> None:
    """End a process as nobody can see coming."""
    process.kill()
    process.communicate(timeout=10)


def result(place: Place, name: str) -> dict[str, Any] | None:
    """Return the finished job as its own directory has it: without any command that could help it along."""
    path = place.registry / "jobs" / name / "result.json"
    return json.loads(path.read_text()) if path.exists() and path.read_text() else None


def await_result(place: Place, name: str, timeout: float = 20) -> dict[str, Any]:
    """Return the finished job once somebody has finished it."""
    return wait_until(lambda: result(place, name), timeout, f"the end of {name}") or {}


def supervisor_pid(place: Place) -> int:
    """Return the process id of the registry's supervisor; 0 when none has been."""
    lock = place.registry / "supervisor.lock"
    text = lock.read_text().strip() if lock.exists() else ""
    return int(text) if text.isdecimal() else 0


def nothing_left(place: Place) -> None:
    """Wait until no process of the place lives, but for a supervisor that waits for more to do."""
    spared = supervisor_pid(place)
    wait_until(lambda: [p for p in place.processes() if p.pid != spared] == [], 15, "nothing left")


# -- a lone job: nobody runs any command


def test_a_lone_job_whose_owner_is_killed_ends_rightly(place: Place) -> None:
    """No supervisor, no command: the job's runner has tmux start one, which hears the claim and accepts it."""
    check = place.script("check", "[ -e made ]")
    agent = f"{REPORT} started\n{UNTIL_TOLD}\ntouch made\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--validate", check, "--close"))
    name = reported(place, "started")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), 15, "a supervisor")
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    (place.work / "go").touch()
    job = await_result(place, name)
    assert (job["outcome"], job["verdict"]) == ("accepted", "passed")
    assert f"job/{name}" not in Path(f"/proc/{parent}/cmdline").read_text(), "it is a child of the runner"
    nothing_left(place)


def test_a_lone_job_whose_agent_ends_with_its_owner_ends_rightly(place: Place) -> None:
    """The agent ends in the same moment as the owner: its runner looks once more before it goes."""
    submit = place.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}", "--close"))
    name = reported(place, "started")
    kill(submit)
    (place.work / "go").touch()
    assert await_result(place, name, timeout=10)["outcome"] == "accepted"
    nothing_left(place)


def test_cancel_of_the_job_whose_runner_had_the_supervisor_started(place: Place) -> None:
    """The supervisor is nobody's descendant: it ends the runner that called for it, and lives on."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = reported(place, "started")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), 15, "a supervisor")
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    os.kill(pid, 0)
    nothing_left(place)


def test_a_supervisor_that_a_runner_calls_for_has_the_environment_of_the_submit(place: Place) -> None:
    """What it needs is taken from the job, not from the tmux server; and it gets no secret of the user's."""
    env = {"XDG_CACHE_HOME": str(place.root / "other"), "SECRET": "hunter2"}
    submit = place.start(*place.submit_args(ENDLESS, "--close"), env=env)
    reported(place, "started")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), 15, "a supervisor")
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
