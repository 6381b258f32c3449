"""Who owns a job when its owner has died: by whom it is taken over, how soon, and that nothing is lost by it."""

import os
import signal
from pathlib import Path

from harness import Place, wait_until
from takeovers import (
    COMPLETED,
    ENDLESS,
    REPORT,
    UNTIL_TOLD,
    await_result,
    kill,
    nothing_left,
    reported,
    supervisor_pid,
)

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
