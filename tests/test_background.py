"""The background supervisor: one a registry, there when it is needed, gone when not, fair to all jobs."""

import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from delegate_job import locks
from delegate_job.paths import RegistryPaths
from harness import COMMAND, Place, job_id, wait_until
from takeovers import (
    COMPLETED,
    ENDLESS,
    REPORT,
    UNTIL_TOLD,
    end_supervisor,
    kill,
    nothing_left,
    reported,
    submit_detached,
    supervisor_pid,
)

BRIEFLY = """
import sys
from pathlib import Path
from delegate_job import background
from delegate_job.paths import RegistryPaths
background.supervise(RegistryPaths(Path(sys.argv[1])), idle_after=float(sys.argv[2]), max_checks=2)
"""


def is_up_or_gone(place: Place, supervisor: "subprocess.Popen[str]") -> bool:
    """Say whether a supervisor that was started holds the lock, or has ended already."""
    return supervisor_pid(place) == supervisor.pid or supervisor.poll() is not None


def supervisors(place: Place) -> list[int]:
    """Return the process ids of all supervisors of the place."""
    return [process.pid for process in place.processes() if " supervise " in process.command]


def test_fifty_commands_at_once_start_one(place: Place) -> None:
    """Whatever looks at the registry finds the ownerless job; one supervisor comes of it."""
    submit = place.start("submit", "--agent", "human", "--prompt", "Water the plants.")
    name = place.await_job()
    wait_until(lambda: place.run("status", name).returncode == 0, what="a row")
    place.await_state(name, "running")
    kill(submit)
    for command in [place.start("status", name) for _ in range(50)]:
        assert (command.communicate(timeout=60)[1], command.returncode) == ("", 0)
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    wait_until(lambda: supervisors(place) == [pid], what="one supervisor")
    assert place.run("publish", "--job", name, "--event", "completed").returncode == 0
    assert place.run("wait", name).returncode == 0


def test_it_ends_when_there_is_nothing_to_own(place: Place) -> None:
    """It stays while a job lives, and a while longer; then it ends by itself, and leaves no socket."""
    place.run("list")
    gate = locks.acquire(RegistryPaths(place.registry).gate)
    assert gate is not None
    with os.fdopen(gate):  # It ends under this lock, and so not before there is a job.
        brief = place.spawn(sys.executable, "-c", BRIEFLY, place.registry, "1")
        wait_until(lambda: supervisor_pid(place), what="the supervisor")
        submit = place.start(*place.submit_args(f"sleep 2\n{COMPLETED}", "--close", "--detach"))
        name = place.await_job()
        place.await_state(name, "running")
    assert submit.wait(30) == 0
    assert place.run("wait", name).returncode == 0
    assert brief.wait(45) == 0
    assert not [path for path in place.registry.rglob("*") if path.is_socket()]
    nothing_left(place)


def test_no_job_is_left_by_a_supervisor_that_is_about_to_end(place: Place) -> None:
    """Submits that meet the very end of a supervisor's time: each job has an owner, and ends rightly."""
    place.run("list")
    names = []
    for step in range(6):
        brief = place.spawn(sys.executable, "-c", BRIEFLY, place.registry, str(0.1 * step))
        wait_until(partial(is_up_or_gone, place, brief))
        names.append(submit_detached(place, COMPLETED, "--close"))
        if supervisor_pid(place) != brief.pid:
            end_supervisor(place)
        brief.wait(15)
    assert place.run("wait", *names).returncode == 0
    nothing_left(place)


def test_supervise_in_the_foreground_refuses_a_second(place: Place) -> None:
    """One supervisor a registry: the second says so in one line; the first ends cleanly on TERM."""
    first = place.start("supervise")
    wait_until(lambda: supervisor_pid(place) == first.pid, what="the supervisor")
    second = place.run("supervise")
    assert second.returncode not in {0, 70}
    assert (second.stdout, second.stderr.count("\n")) == ("", 1)
    assert "has a supervisor already" in second.stderr
    first.terminate()
    assert first.wait(10) == 0


def test_its_log_is_json_lines_in_the_registry(place: Place) -> None:
    """What it has to say stands in supervisor.log, a JSON object a line, for nobody but the user."""
    done = place.run("submit", "--agent", "human", "--prompt", "Water.", "--detach", "--json")
    name = json.loads(done.stdout)["id"]
    place.await_state(name, "running")
    log = place.registry / "supervisor.log"
    said = [json.loads(line) for line in wait_until(log.read_text, what="a line").splitlines()]
    assert [name in each["text"] for each in said] == [True]
    assert log.stat().st_mode & 0o777 == 0o600
    assert place.run("cancel", name).returncode == 0


def test_its_port_is_remembered(place: Place) -> None:
    """The next supervisor's broker listens where the last one did: its address stays good."""
    name = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    connection = place.registry / "jobs" / name / "connection.json"
    before = json.loads(connection.read_text())
    end_supervisor(place)
    place.run("list")
    wait_until(lambda: json.loads(connection.read_text())["epoch"] > before["epoch"], what="the takeover")
    after = json.loads(connection.read_text())
    ports = [each["broker"]["port"] for each in (before, after)]
    tokens = [each["broker"]["password"] for each in (before, after)]
    assert (ports[0] == ports[1], tokens[0] == tokens[1]) == (True, False)
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"


def test_all_jobs_of_a_killed_supervisor_go_on(place: Place) -> None:
    """Kill -9 of the owner of six jobs: the next one has them all, and each ends as its agent says."""
    ends = {
        submit_detached(place, f"{UNTIL_TOLD}\n{REPORT} {kind}", "--close"): kind
        for kind in ["completed", "error"] * 3
    }
    for name in ends:
        place.await_state(name, "running")
    end_supervisor(place)
    (place.work / "go").touch()
    place.run("wait", *ends)
    said = {name: place.job(name)["outcome"] for name in ends}
    assert said == {name: {"completed": "accepted", "error": "failed"}[kind] for name, kind in ends.items()}
    nothing_left(place)


def test_max_parallel_keeps_the_order_of_submission(place: Place) -> None:
    """One at a time, detached or in the foreground: first come, first served, and nobody is forgotten."""
    agent = place.agent(f'echo "$DELEGATE_JOB_ID" >> order\nsleep 0.2\n{COMPLETED}')
    words = [
        "submit",
        "--agent",
        "command",
        "--command",
        f"{agent} {{instructions_file}}",
        "--prompt",
        "Do it.",
        "--close",
        "--max-parallel",
        "1",
    ]
    order, foreground = [], []
    for number in range(6):
        if number % 2:
            order.append(job_id(place.run(*words, "--detach").stdout))
            continue
        foreground.append(place.start(*words))
        wait_until(lambda: len(json.loads(place.run("list", "--json").stdout)) > len(order), what="a row")
        order.append(json.loads(place.run("list", "--json").stdout)[0]["id"])
    assert [each.wait(60) for each in foreground] == [0, 0, 0]
    assert place.run("wait", *order).returncode == 0
    assert (place.work / "order").read_text().split() == order
    nothing_left(place)


def test_max_checks(place: Place) -> None:
    """Checks run side by side up to the limit, and all of them run."""
    check = place.script(
        "check", f"cd {place.root}; mkdir busy || touch overlap; sleep 0.3; rmdir busy; echo >> checks"
    )
    supervise = place.start("supervise", "--max-checks", "1")
    wait_until(lambda: supervisor_pid(place) == supervise.pid, what="the supervisor")
    names = [submit_detached(place, COMPLETED, "--validate", check, "--close") for _ in range(3)]
    assert place.run("wait", *names).returncode == 0
    assert not (place.root / "overlap").exists()
    assert len((place.root / "checks").read_text()) == 3
    supervise.terminate()
    assert supervise.wait(10) == 0


@pytest.mark.parametrize("detached", [True, False])
def test_cancel_of_a_queued_job(place: Place, *, detached: bool) -> None:
    """A job that waits for its turn ends at once when it is cancelled, and its agent is never started."""
    first = submit_detached(place, ENDLESS, "--close", "--max-parallel", "1")
    reported(place, "started")
    words = place.submit_args("touch started", "--close", *(["--detach"] if detached else []))
    submit = place.start(*words)
    second = wait_until(
        lambda: [job["id"] for job in json.loads(place.run("list", "--json").stdout) if job["id"] != first],
        what="a row",
    )[0]
    assert place.run("cancel", second).stdout == f"{second} cancelled\n"
    assert submit.wait(20) == (0 if detached else 9)
    assert place.run("cancel", first).stdout == f"{first} cancelled\n"
    assert not (place.work / "started").exists()
    nothing_left(place)


def move(place: Place, host: str | None) -> None:
    """Let the registry's jobs belong to a host."""
    change = (
        "import json, sqlite3, sys; "
        "sqlite3.connect(sys.argv[1], isolation_level=None)"
        ".execute('UPDATE jobs SET host = ?', json.loads(sys.argv[2]))"
    )
    words = (place.registry / "registry.db", json.dumps([host]))
    assert place.spawn(sys.executable, "-c", change, *words).wait(10) == 0


def test_a_job_of_another_host_is_not_taken(place: Place) -> None:
    """Its lock says nothing here: the supervisor says so, seldom, and leaves it alone."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    name = reported(place, "started")
    # Before there is no owner: else the runner might have started another one meanwhile.
    supervise = place.start("supervise")
    wait_until(lambda: supervisor_pid(place) == supervise.pid, what="the supervisor")
    move(place, "elsewhere")
    kill(submit)
    said = wait_until(lambda: supervise.stderr and supervise.stderr.readline(), what="a line") or ""
    assert (name in said, "elsewhere" in said) == (True, True)
    assert place.job(name)["state"] in {"launching", "running"}
    supervise.terminate()
    assert supervise.wait(10) == 0
    move(place, None)
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


def test_no_secret_of_the_callers_reaches_the_supervisor(place: Place) -> None:
    """It gets places and the language, and nothing else of the environment of whoever started it."""
    name = submit_detached(place, ENDLESS, "--close", env={"SECRET": "hunter2", "LC_TIME": "C"})
    pid = wait_until(lambda: supervisor_pid(place), what="the supervisor")
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert (b"hunter2" in environ, b"LC_TIME=C" in environ) == (False, True)
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


OPERATIONS = Path(__file__).resolve().parent.parent / "docs/operations.md"


def block(language: str) -> str:
    """Return the one code block of a language in docs/operations.md."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_documented_systemd_unit_is_one(place: Place) -> None:
    """To systemd it is right, and it ends only the supervisor, not the agents."""
    unit = place.root / "delegate-job.service"
    unit.write_text(block("ini").replace("%h/.local/bin/delegate-job", str(COMMAND)))
    verify = place.spawn("systemd-analyze", "verify", "--user", "--man=no", unit)
    said = verify.communicate(timeout=30)
    assert (verify.returncode, [line for line in said[1].splitlines() if "delegate-job" in line]) == (0, [])
    assert "KillMode=process" in unit.read_text()


def test_the_documented_launchd_plist_is_one() -> None:
    """It is a property list, and says what the systemd unit says."""
    fields = plistlib.loads(block("xml").encode())
    assert fields["ProgramArguments"][1:] == ["supervise"]
    assert (fields["AbandonProcessGroup"], fields["KeepAlive"]) == (True, {"SuccessfulExit": False})
