"""Agents in sandboxes: no network, almost nowhere to write, no environment; and reports made by hand.

Not the report's own format: that is test_journal; and not who may connect: that is test_wire.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from delegate_job import reporter
from harness import Place, in_ci, job_id
from traces import printed

REPORT = '"$DJ" publish --timeout 20 --event'
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"
PATIENCE = 8.0
"""Seconds that a busy machine may take for what is bounded by 2."""

NO_NETWORK = ("unshare", "--user", "--map-root-user", "--net")
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
NO_SOCKET = 'mount --bind /dev/null "${DELEGATE_JOB_CONNECTION%/*}/broker.sock"'


def sandbox(place: Place, walls: tuple[str, ...], inside: str, *mounts: str) -> str:
    """Return the text of an agent that runs `inside` in namespaces; skipped where none are given."""
    tried = "mount -o remount,bind,ro /" if "--mount" in walls else "true"
    if shutil.which("unshare") is None or subprocess.run([*walls, *tried.split()], check=False).returncode:
        (pytest.fail if in_ci() else pytest.skip)("this machine gives no namespaces to this user")
    script = place.script("inside", "set -eu\n" + "\n".join((*mounts, inside)))
    return f"exec {shlex.join(walls)} bash {script}"


def said(place: Place, count: int = 1) -> list[str]:
    """Return the lines that the agent's reports printed."""
    return printed(place.work / "said", count)


def is_heard(claim: str) -> bool:
    """Say whether a claim was recorded: its owner may have read it, and be gone, before it could be sent."""
    return claim.startswith("recorded")


def test_an_agent_without_network_is_heard(place: Place) -> None:
    """Where no network is, the broker's Unix socket is reached all the same: progress, claim, verdict."""
    agent = sandbox(place, NO_NETWORK, f"{REPORT} started > said\n{REPORT} completed >> said")
    done = place.submit(agent, "--validate", place.script("check", "exit 0"))
    assert done.returncode == 0
    first, claim = said(place, 2)
    assert (first, is_heard(claim)) == ("recorded and sent", True)


def test_an_agent_that_can_connect_to_nothing_is_heard(place: Place) -> None:
    """Where no connection can be made at all, the file is enough: progress, claim, check, verdict."""
    inside = f"{REPORT} started > said\n{REPORT} completed >> said"
    agent = sandbox(place, (*OWN_MOUNTS, "--net"), inside, NO_SOCKET)
    done = place.submit(agent, "--validate", place.script("check", "exit 0"))
    assert done.returncode == 0
    assert said(place, 2) == ["recorded, not sent (network is unreachable)"] * 2


def test_an_agent_that_may_write_its_log_only_is_heard(place: Place) -> None:
    """With no network and all else read-only, as in a strict sandbox, a report is recorded."""
    inside = f'{REPORT} completed > "$DELEGATE_JOB_DIR/said"\n! touch "$HOME/x" && {REPORT} progress'
    mounts = ('mount --bind "$DELEGATE_JOB_DIR" "$DELEGATE_JOB_DIR"', "mount -o remount,bind,ro /")
    done = place.submit(sandbox(place, (*OWN_MOUNTS, "--net"), inside, NO_SOCKET, *mounts))
    assert done.returncode == 0
    shown = printed(place.log_dir(job_id(done.stdout)) / "said", 1)
    assert shown == ["recorded, not sent (network is unreachable)"]


def test_an_agent_that_cannot_write_its_log_is_heard(place: Place) -> None:
    """With a read-only log, MQTT alone carries the claim, and says that no file has it."""
    inside = f"{REPORT} started > said\n{REPORT} completed --detail done >> said\nexec sleep 600"
    mounts = (
        'mount --bind "$DELEGATE_JOB_DIR" "$DELEGATE_JOB_DIR"',
        'mount -o remount,bind,ro "$DELEGATE_JOB_DIR"',
    )
    done = place.submit(sandbox(place, OWN_MOUNTS, inside, *mounts))
    assert done.returncode == 0
    assert said(place, 2) == ["sent, not recorded (read-only file system)"] * 2
    name = job_id(done.stdout)
    assert place.job(name)["detail"] == "done"
    assert not (place.log_dir(name) / "reports.jsonl").exists()


def test_a_rejection_is_answered_by_mqtt_alone(place: Place) -> None:
    """The first claim, which the broker still keeps, is not taken for the answer; the second one is."""
    check = place.script("check", "[ -e mended ]")
    agent = (
        "export DELEGATE_JOB_DIR=/dev/null/$DELEGATE_JOB_ID\n"
        f"{REPORT} completed --detail first\n"
        f"while read -r line; do case $line in *'check 1 of 2'*) break;; esac; done\n"
        f"touch mended\n{REPORT} completed --detail second\nexec sleep 600"
    )
    done = place.submit(agent, "--validate", check, "--attempts", "2")
    assert done.returncode == 0
    job = place.job(job_id(done.stdout))
    assert (job["attempt"], job["detail"]) == (2, "second")


def test_an_agent_with_neither_is_told_so(place: Place) -> None:
    """A report that got nowhere is exit 2 and one line; the job is lost, and never taken for finished."""
    unreachable = "export DELEGATE_JOB_DIR=/dev/null/$DELEGATE_JOB_ID DELEGATE_JOB_CONNECTION=/nowhere"
    done = place.submit(f"{unreachable}\n{REPORT} completed 2> said || echo $? >> said")
    assert done.returncode == 4
    line, hint, code = said(place, 3)
    assert line == (
        "error: the report was neither recorded (not a directory)"
        " nor sent (connection.json: no such file or directory)"
    )
    assert (hint.partition(":")[0], code) == ("hint", "2")


def test_a_sandbox_that_hides_the_registry_is_enough(place: Place) -> None:
    """Without connection.json the report is recorded, and the command says why it is not sent."""
    inside = f"{REPORT} completed > said"
    hidden = f"mount -t tmpfs none {shlex.quote(str(place.registry))}"
    done = place.submit(sandbox(place, OWN_MOUNTS, inside, hidden))
    assert done.returncode == 0
    assert said(place) == ["recorded, not sent (connection.json: no such file or directory)"]


def test_the_command_in_the_instructions_needs_no_environment(place: Place) -> None:
    """What an agent is told to run works in a shell that has lost every variable, and in any directory."""
    agent = (
        "line=$(grep -E -- '--event completed' \"$1\" | head -n 1)\n"
        'here=$PWD; cd /; env -i bash -c "$line" > "$here/said"'
    )
    done = place.submit(agent)
    assert done.returncode == 0
    # The job may end, and its broker with it, before the broker has answered.
    assert said(place)[0].startswith("recorded")


# By hand


def submitted(
    place: Place, agent: str = "exec sleep 600", *options: str
) -> "tuple[subprocess.Popen[str], str]":
    """Start a submit and return it with its job's id once the agent has reported."""
    process = place.start(*place.submit_args(f"{REPORT} started\n{agent}", *options))
    name = place.await_job()
    place.await_kind(name, "started")
    return process, name


@pytest.mark.parametrize("words", ["{}", "@last"], ids=["id", "last"])
def test_a_person_reports_from_another_terminal(place: Place, words: str) -> None:
    """From any directory, without the job's variables, `publish --job` ends the job as its agent would."""
    process, name = submitted(place)
    done = place.run("publish", "--job", words.format(name), "--event", "completed", cwd=Path("/"))
    assert (done.returncode, is_heard(done.stdout), done.stderr) == (0, True, "")
    assert process.wait(20) == 0


def test_a_person_may_shorten_the_id_and_name_the_registry(place: Place) -> None:
    """The beginning of an id that no other job shares is enough, in whatever registry it is."""
    process, name = submitted(place)
    here = ("--registry-dir", str(place.registry))
    elsewhere = {"DELEGATE_JOB_REGISTRY_DIR": str(place.root / "another")}
    done = place.run("publish", *here, "--job", name[:4], "--event", "error", env=elsewhere)
    assert (done.returncode, is_heard(done.stdout)) == (0, True)
    assert process.wait(20) == 1
    assert not (place.root / "another").exists()


def test_a_report_after_the_end_is_recorded_as_such(place: Place) -> None:
    """A late report, by hand or by the agent itself, is kept, shown as late, and changes nothing."""
    agent = f"{REPORT} completed\n{UNTIL_GO}\n{REPORT} error --detail itself > said\nexec sleep 600"
    done = place.submit(agent)
    name = job_id(done.stdout)
    by_hand = place.run("publish", "--job", name, "--event", "error", "--detail", "by hand")
    (place.work / "go").touch()
    assert [by_hand.stdout.rstrip(), *said(place)] == ["recorded, not sent (the job has no broker)"] * 2
    late = [line for line in place.run("logs", name).stdout.splitlines() if "[after the end]" in line]
    assert ["by hand" in late[0], "itself" in late[1]] == [True, True]
    assert (place.job(name)["outcome"], place.run("wait", name).returncode) == ("accepted", 0)


# Owners and brokers that stand still


def test_an_owner_that_stands_still_delays_a_report_and_loses_none(place: Place) -> None:
    """With submit stopped, and its broker with it, a report takes its 2 seconds, is recorded, and counts."""
    process, name = submitted(place)
    process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = place.run("publish", "--job", name, "--event", "completed")
        took = time.monotonic() - began
        assert (done.returncode, done.stdout) == (0, "recorded, not sent (timed out)\n")
        assert took < reporter.TIMEOUT + PATIENCE
        assert json.loads(place.run("status", name, "--json").stdout)["state"] == "running"
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 0


def test_an_owner_that_stands_still_and_a_log_that_cannot_be_written(place: Place) -> None:
    """When nobody can be told within the bound, the command says so and its exit code does."""
    process, name = submitted(place)
    env = {
        "DELEGATE_JOB_ID": name,
        "DELEGATE_JOB_DIR": f"/dev/null/{name}",
        "DELEGATE_JOB_CONNECTION": str(place.registry / "jobs" / name / "connection.json"),
    }
    os.kill(process.pid, signal.SIGSTOP)
    try:
        done = place.run("publish", "--event", "completed", "--timeout", "0.5", env=env)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: the report was neither recorded (not a directory) nor sent (timed out)"
    )
    assert place.run("cancel", name).returncode == 0
    assert process.wait(20) == 9
