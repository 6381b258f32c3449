"""Hand one real job to the scripted agent, show what a user sees, and fail unless all of it was right.

Everything lies in a temporary directory that is removed at the end; the user's own registry is not touched.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).parent / "delegate-job"


def command(*args: str | Path) -> list[str]:
    """Return the argv of `delegate-job ARGS`."""
    return [str(COMMAND), *map(str, args)]


def show(*args: str | Path) -> int:
    """Print the command as a user would type it, run it on our own terminal, and return its exit code."""
    print(f"\n$ delegate-job {shlex.join(map(str, args))}", flush=True)
    return subprocess.run(command(*args), check=False).returncode


def expect(found: Any, wanted: Any, what: str) -> None:
    """End the demo with exit code 1 when something is not as it must be."""
    if found != wanted:
        sys.exit(f"demo: {what} is {found!r}, not {wanted!r}")


def submit(work: Path) -> int:
    """Submit the job: the agent, its task, and the check that decides."""
    agent = f"{shlex.join([sys.executable, str(HERE / 'agent.py')])} {{instructions_file}}"
    return show(
        "submit", "--agent", "command", "--command", agent,
        "--prompt-file", HERE / "task.md", "--workdir", work,
        "--validate", HERE / "check_report.sh", "--attempts", "2", "--timeout", "60", "--close",
    )  # fmt: skip


def finished_job() -> dict[str, Any]:
    """Return the newest job as `status --json` gives it."""
    shown = subprocess.run(command("status", "@last", "--json"), check=True, stdout=subprocess.PIPE)
    job: dict[str, Any] = json.loads(shown.stdout)
    return job


def run(place: Path) -> None:
    """Run the whole demo in `place`."""
    # tmux leaves its socket behind; here it goes with the rest.
    os.environ |= {"DELEGATE_JOB_REGISTRY_DIR": str(place / "registry"), "TMUX_TMPDIR": str(place)}
    work = place / "shop"
    work.mkdir()
    shutil.copy(HERE / "orders.csv", work)
    expect(submit(work), 0, "the exit code of submit")
    for args in (["status", "@last"], ["list"], ["logs", "@last"]):
        expect(show(*args), 0, f"the exit code of {args[0]}")
    job = finished_job()
    expect((job["outcome"], job["verdict"], job["attempt"]), ("accepted", "passed", 2), "the job's end")
    first = Path(job["log_dir"], "validation-1.log").read_text(encoding="utf-8")
    expect("fault: refunded orders" in first, True, "the first rejection for the refunded orders")
    report = (work / "report.csv").read_text(encoding="utf-8")
    expect("Harbour Café,18750" in report, True, "the café's revenue in report.csv")
    print(f"\nThe work that was accepted, report.csv:\n{report}\nThe demo went well.", flush=True)


def main() -> None:
    """Run the demo in a directory of its own, below /tmp: a socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="dj-demo-", dir="/tmp", ignore_cleanup_errors=True) as place:
        run(Path(place))


if __name__ == "__main__":
    main()
