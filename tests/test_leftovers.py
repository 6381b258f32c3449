"""What a submit leaves behind, whatever ended it: its agent's pane where that was wanted, and nothing else.

Not how a job ends: test_exit_codes has that.
"""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import Place, job_id, wait_until
from processes import Process

REPORT = '"$DJ" publish --event'
ENDLESS = f"{REPORT} started\nexec sleep 600"


@dataclass(frozen=True)
class Ending:
    """One way in which a job ends, and whether its agent goes on after it."""

    agent: str
    code: int
    options: tuple[str, ...] = ()
    check: str = ""
    goes_on: bool = False


ENDINGS = {
    "accepted": Ending(f"{REPORT} completed\nexec sleep 600", 0, goes_on=True),
    "accepted by the check": Ending(f"{REPORT} completed\nexec sleep 600", 0, check="exit 0", goes_on=True),
    "accepted, agent gone": Ending(f"{REPORT} completed", 0),
    "failed": Ending(f"{REPORT} error\nexec sleep 600", 1, goes_on=True),
    "rejected": Ending(f"{REPORT} completed\nexec sleep 600", 3, check="sleep 600 & exit 1", goes_on=True),
    "rejected, out of time": Ending(
        f"{REPORT} completed\nexec sleep 600", 3, ("--validate-timeout", "0.3"), "sleep 600", goes_on=True
    ),
    "lost": Ending("exit 0", 4),
    "timed out": Ending(ENDLESS, 5, ("--timeout", "0.8")),
    "idle": Ending(ENDLESS, 6, ("--idle-timeout", "0.8")),
    "not started": Ending("#!/no/such/interpreter", 7),
    "needs input": Ending(f"{REPORT} permission_required\nexec sleep 600", 8, ("--fail-on-input",)),
    "leaves children": Ending(f"sleep 600 & {REPORT} completed\nexec sleep 600", 0, goes_on=True),
}


def submit(place: Place, ending: Ending, *options: str) -> str:
    """Let a job end in this way and return its id."""
    check = ("--validate", str(place.script("check", ending.check))) if ending.check else ()
    done = place.submit(ending.agent, *ending.options, *check, *options)
    assert done.returncode == ending.code, done
    return job_id(done.stdout)


def strangers(place: Place) -> list[Process]:
    """Return the living processes of a place's jobs that are not in a tmux server's tree."""
    living = {process.pid: process for process in place.jobs_processes()}
    return [process for process in living.values() if not _of_tmux(process.pid, living)]


def agents(place: Place) -> list[Process]:
    """Return the living processes of a place that are a runner, an agent or a child of one."""
    living = {process.pid: process for process in place.processes()}
    # What a pane shows is written down, as long as there is the pane.
    inside = [process for process in living.values() if _of_tmux(process.pid, living)]
    return [process for process in inside if not (_is_tmux(process) or _writes_down(process))]


def _writes_down(process: Process) -> bool:
    return Path(process.command.split(" ", 1)[0]).name in {"cat", "tee"} or " --record " in process.command


def _is_tmux(process: Process) -> bool:
    return Path(process.command.split(" ", 1)[0]).name == "tmux"


def _of_tmux(pid: int, living: dict[int, Process]) -> bool:
    while pid in living:
        if _is_tmux(living[pid]):
            return True
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def listening(place: Place) -> list[str]:
    """Return the TCP sockets that processes of a place listen on."""
    held = {link for process in place.jobs_processes() for link in _descriptors(process.pid)}
    rows = [line.split() for name in ("tcp", "tcp6") for line in _table(name)]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


def _table(name: str) -> list[str]:
    table = Path("/proc/net") / name
    return table.read_text().splitlines()[1:] if table.exists() else []


def _descriptors(pid: int) -> list[str]:
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.append(os.readlink(entry))  # noqa: PTH115, PERF401 - a text; any may close while it is looked at
    except OSError:
        pass
    return found


def temporary(place: Place) -> list[str]:
    """Return what lies in the temporary directory."""
    return [path.name for path in (place.root / "tmp").iterdir()]


def secrets(place: Place) -> list[str]:
    """Return the files of jobs that hold an environment or tokens."""
    directories = [place.registry / "jobs" / name for name in place.jobs()]
    files = [directory / name for directory in directories for name in ("launch.json", "environ.json")]
    connections = [directory / "connection.json" for directory in directories]
    open_ones = [path for path in connections if path.exists() and '"password"' in path.read_text()]
    return [str(path) for path in [*files, *open_ones] if path.exists()]


def partial(place: Place) -> list[str]:
    """Return the files that were to be renamed and were not."""
    jobs = place.registry / "jobs"
    return [
        path.name for path in jobs.rglob("*") if path.suffix == ".partial" or "connection.json." in path.name
    ]


@pytest.mark.parametrize("name", ENDINGS)
def test_a_submit_leaves_its_session_and_nothing_else(place: Place, name: str) -> None:
    """After each outcome: the session with its screen, the agent if it was not to be ended, no more."""
    ending = ENDINGS[name]
    submit(place, ending)
    wait_until(lambda: bool(agents(place)) is ending.goes_on, what=f"an agent that goes on: {ending.goes_on}")
    # The agent's last report may take longer than what it has ended.
    wait_until(lambda: not strangers(place), what="the end of all others")
    assert (listening(place), temporary(place), secrets(place), partial(place)) == ([], [], [], [])


@pytest.mark.parametrize("name", ENDINGS)
def test_a_closed_submit_leaves_nothing(place: Place, name: str) -> None:
    """With --close no process is left after any outcome, not even a tmux server."""
    submit(place, ENDINGS[name], "--close")
    wait_until(lambda: not place.processes(), what="the end of everything")
    assert (temporary(place), secrets(place), partial(place)) == ([], [], [])


def test_a_usage_error_leaves_nothing(place: Place) -> None:
    """What is refused has made no file, no process and no directory but the registry."""
    done = place.submit("exit 0", "--attempts", "0")
    assert done.returncode == 2
    assert (place.processes(), temporary(place), place.jobs()) == ([], [], [])
    assert list(place.work.iterdir()) == []


def test_a_broker_of_its_own_leaves_nothing(place: Place) -> None:
    """`delegate-job broker` ends on SIGTERM with 0, and its socket with it."""
    process = place.start("broker", "--observer")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["url"]
    assert len(listening(place)) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert (place.processes(), temporary(place)) == ([], [])


# Killed


def killed_submit(place: Place, after: float, *options: str) -> None:
    """Start a submit and kill it `after` seconds, wherever it is then."""
    check = place.script("check", "sleep 0.4; exit 1")
    agent = (
        f"{REPORT} started\n{REPORT} completed\n"
        f"while read -r line; do case $line in *'check 1 of 2'*) break;; esac; done\n"
        f"{REPORT} completed\nexec sleep 600"
    )
    process = place.start(*place.submit_args(agent, "--validate", check, "--attempts", "2", *options))
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def unfinished(place: Place) -> list[str]:
    """Return the jobs that the registry holds as not done."""
    shown = place.run("list", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    return [job["id"] for job in json.loads(shown.stdout) if job["state"] != "done"]


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_submit_leaves_its_agent_and_cancel_ends_it(place: Place, seed: int) -> None:
    """SIGKILL at any moment: the agent's pane is all that lives on, and `cancel` ends that too."""
    after = random.Random(seed).uniform(0.05, 2.0)  # the whole life of such a job
    killed_submit(place, after, "--close")
    wait_until(
        lambda: not strangers(place), what=f"the end of {strangers(place)}, killed after {after:.2f} s"
    )
    assert (listening(place), temporary(place)) == ([], [])
    for name in unfinished(place):
        done = place.run("cancel", name)
        assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: not place.jobs_processes(), what=f"the end of everything, killed after {after:.2f} s")
    assert (unfinished(place), temporary(place), partial(place)) == ([], [], [])
    rows = {job["id"] for job in json.loads(place.run("list", "--json").stdout)}
    assert not [path for path in secrets(place) if Path(path).parent.name in rows]


def test_a_submit_killed_in_mid_launch_leaves_no_agent(place: Place) -> None:
    """A session that its owner had no time to write down is ended by `cancel` all the same."""
    real = shutil.which("tmux", path=place.environ["PATH"])
    (place.root / "bin").mkdir()
    started = f"{place.root}/started"
    place.script(
        "bin/tmux",
        f'"{real}" "$@" || exit\n'
        # A runner that calls for an owner opens a session too.
        f'case "$*" in *--supervise*) ;; '
        f'*new-session*) until [ -e {started} ]; do sleep 0.02; done; kill -9 "$PPID";; esac',
    )
    env = {"PATH": f"{place.root / 'bin'}:{place.environ['PATH']}"}
    submit = place.start(*place.submit_args(f"touch {started}\nexec sleep 600", "--close"), env=env)
    assert submit.wait(20) == -signal.SIGKILL
    (name,) = unfinished(place)
    assert agents(place)
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    wait_until(lambda: not place.jobs_processes(), what=f"the end of {place.jobs_processes()}")


def test_a_killed_submit_of_a_running_check_leaves_no_check(place: Place) -> None:
    """A check that its owner can no longer hear is ended by who takes the job over, with all it started."""
    check = place.script("check", f"sleep 601 & echo $$ > {place.root}/pid; exec sleep 602")
    process = place.start(
        *place.submit_args(f"{REPORT} completed\nexec sleep 600", "--validate", check, "--close")
    )
    wait_until((place.root / "pid").exists, what="the check")
    name = place.await_job()
    process.kill()
    process.wait(10)
    assert place.run("cancel", name).returncode == 0
    wait_until(lambda: not place.jobs_processes(), what=f"the end of everything: {place.jobs_processes()}")


def test_many_jobs_leave_nothing(place: Place) -> None:
    """Jobs side by side share a tmux server; the last one takes it along, each only its own session."""
    one = place.agent(f"{REPORT} completed\nexec sleep 600")
    words = ["submit", "--agent", "command", "--command", shlex.quote(str(one)), "--prompt", "x", "--close"]
    began = time.monotonic()
    running = [place.start(*words) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert time.monotonic() - began < 60
    wait_until(lambda: not place.jobs_processes(), what="the end of everything")
