"""One job directory and one tmux server of a test's own, and what the runner there has said.

Not the command: these are the parts below it, used as the owner uses them.
"""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delegate_job import launcher
from delegate_job.environment import limits
from delegate_job.launcher import RunnerState
from delegate_job.paths import JobPaths
from delegate_job.tmux import Tmux
from harness import PATIENCE, Place, wait_until

LABEL = "delegate-job-test"


@dataclass
class Pane:
    """A job that is nothing but an argv in a pane."""

    place: Place
    paths: JobPaths
    tmux: Tmux
    session: str = "job-1"

    @classmethod
    def make(cls, place: Place, job_id: str = "job-1") -> "Pane":
        """Make the job directory of one job."""
        root = place.root / "registry" / "jobs" / job_id
        root.mkdir(parents=True, mode=0o700)
        return cls(place, JobPaths(root), Tmux(label=LABEL), job_id)

    def write(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Write launch.json with the place's environment and `env`."""
        environ = {**self.place.environ, **(env or {})}
        launcher.write_launch_file(
            self.paths, argv=argv, cwd=cwd or self.place.work, env=environ, limits=limits()
        )

    def launch(self, argv: Sequence[str], **how: Any) -> None:
        """Start the runner with this argv in a new session, and go on by the server's socket."""
        self.write(argv, **how)
        self.tmux = Tmux(socket=launcher.start(self.tmux, self.session, self.paths))

    def shell(self, script: str, **how: Any) -> None:
        """Start a bash script as the agent; its directory is the work dir."""
        self.launch(["bash", "-c", script], **how)

    def events(self) -> list[dict[str, Any]]:
        """Return what the runner has recorded."""
        if not self.paths.control.is_file():
            return []
        return [json.loads(line) for line in self.paths.control.read_text().splitlines() if line]

    def await_event(self, kind: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the newest event of a kind as soon as there is one."""

        def newest() -> dict[str, Any] | None:
            return next((event for event in reversed(self.events()) if event["kind"] == kind), None)

        return wait_until(newest, timeout, f"{kind} in {self.paths.control}") or {}

    def await_end(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the data of `exited` once the runner has gone."""
        wait_until(
            lambda: launcher.runner_state(self.paths) is RunnerState.GONE, timeout, "the end of the runner"
        )
        data: dict[str, Any] = self.await_event("exited", 1)["data"]
        return data

    def file(self, name: str, timeout: float = PATIENCE) -> str:
        """Return what the agent wrote into a file of its work dir, once that is there and not empty."""
        path = self.place.work / name
        return wait_until(lambda: path.exists() and path.read_text(), timeout, name) or ""

    def pid(self, name: str) -> int:
        """Return the process id that the agent wrote into a file."""
        return int(self.file(name))

    def screen_shows(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until the pane or its history shows a text."""
        wait_until(lambda: text in (self.tmux.capture(self.session, history=True) or ""), timeout, text)

    def log_shows(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until pane.log holds a text."""
        wait_until(lambda: text in self.paths.pane_log.read_text(errors="replace"), timeout, text)


def lives(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def kill(pid: int) -> None:
    """Kill one process by its id."""
    os.kill(pid, signal.SIGKILL)
