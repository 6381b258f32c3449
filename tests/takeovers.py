"""What tests of owners share: when an agent has reported, who owns the registry, what is left of a job.

No test is here, and nothing that helps a job along: what is looked at are files and processes.
"""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from harness import PATIENCE, Place, wait_until
from processes import Process

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
UNTIL_SPAWNED = (
    """until grep -qs '"spawned"' "$DELEGATE_JOB_REGISTRY_DIR/jobs/$DELEGATE_JOB_ID/events.jsonl"; do """
    "sleep 0.05; done"
)
"""Begins an agent whose reports are to be applied after its `spawned`: a runner may be slow to say that."""
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


def await_result(place: Place, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """Return the finished job once somebody has finished it."""
    return wait_until(lambda: result(place, name), timeout, f"the end of {name}") or {}


def supervisor_pid(place: Place) -> int:
    """Return the process id of the registry's supervisor; 0 when none has been."""
    lock = place.registry / "supervisor.lock"
    text = lock.read_text().strip() if lock.exists() else ""
    return int(text) if text.isdecimal() else 0


def nothing_left(place: Place) -> None:
    """Wait until no process of the place lives, but for a supervisor that waits for more to do."""

    def left() -> list[Process]:
        spared = supervisor_pid(place)
        return [process for process in place.processes() if process.pid != spared]

    wait_until(lambda: left() == [], what="nothing left")


def submit_detached(place: Place, agent: str, *options: str | Path, **how: Any) -> str:
    """Submit a job to the background and return its id."""
    done = place.submit(agent, "--detach", "--json", *options, **how)
    assert done.returncode == 0, done
    return str(json.loads(done.stdout)["id"])


def end_supervisor(place: Place, signum: int = signal.SIGKILL) -> None:
    """End the registry's supervisor, and wait until it is gone."""
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    os.kill(pid, signum)
    wait_until(lambda: pid not in {process.pid for process in place.processes()}, what="its end")


def events(place: Place, name: str) -> list[dict[str, Any]]:
    """Return what happened to a job, from its own directory; of a line that is being written nothing."""
    path = place.registry / "jobs" / name / "events.jsonl"
    *lines, _torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return [json.loads(line) for line in lines if line]


def kinds(place: Place, name: str) -> list[str]:
    """Return the kinds of what happened to a job and was applied."""
    return [event["kind"] for event in events(place, name) if event["applied"]]


def epoch(place: Place, name: str) -> int:
    """Return how often a job has been taken by an owner."""
    connection = json.loads((place.registry / "jobs" / name / "connection.json").read_text())
    return int(connection["epoch"])
