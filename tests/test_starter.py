"""Who starts the background supervisor, and whose child it is. Not what it does: test_background has that."""

import json
import os
from pathlib import Path

from delegate_job.background import REFUSED_FOR
from harness import Place, wait_until
from takeovers import (
    COMPLETED,
    REPORT,
    UNTIL_TOLD,
    await_result,
    nothing_left,
    submit_detached,
    supervisor_pid,
)


def nested(place: Place, inner: str, *options: str) -> str:
    """Return what an agent does to submit a job of another agent in the background."""
    words = ["submit", "--detach", "--agent", "command", "--command", str(place.agent(inner)), *options]
    return '"$DJ" ' + " ".join([*words, "--prompt", "Inside.", "--close"])


def jobs_by_prompt(place: Place) -> dict[str, str]:
    """Return the ids of all jobs by what their agents were asked."""
    jobs = json.loads(place.run("list", "--json").stdout)
    prompt = "{0}/jobs/{1}/prompt.md"
    return {Path(prompt.format(place.registry, job["id"])).read_text(): job["id"] for job in jobs}


def test_a_supervisor_that_an_agent_starts_outlives_the_agent(place: Place) -> None:
    """A job that an agent submits in the background goes on when that agent has ended, and ends rightly."""
    inner = f"touch inner\n{UNTIL_TOLD}\n{COMPLETED}"
    done = place.submit(
        f"{nested(place, inner)}\nuntil [ -e inner ]; do sleep 0.05; done\n{COMPLETED}", "--close"
    )
    assert done.returncode == 0, done
    pid = supervisor_pid(place)
    os.kill(pid, 0)
    (place.work / "go").touch()
    name = jobs_by_prompt(place)["Inside."]
    assert await_result(place, name)["outcome"] == "accepted"
    os.kill(pid, 0)
    nothing_left(place)


def test_also_when_the_agent_keeps_its_environment_from_it(place: Place) -> None:
    """An agent's shell without our variables is below its runner all the same, and so is what it starts."""
    keep = 'env -i PATH="$PATH" HOME="$HOME" TMUX_TMPDIR="$TMUX_TMPDIR" DJ="$DJ" '
    keep += 'DELEGATE_JOB_REGISTRY_DIR="$DELEGATE_JOB_REGISTRY_DIR"'
    inner = f'touch inner\n{UNTIL_TOLD}\n"$DJ" publish --event completed'
    outer = f"(setsid {keep} {nested(place, inner)})\nuntil [ -e inner ]; do sleep 0.05; done\n{COMPLETED}"
    done = place.submit(outer, "--close")
    assert done.returncode == 0, done
    (place.work / "go").touch()
    assert await_result(place, jobs_by_prompt(place)["Inside."])["outcome"] == "accepted"
    nothing_left(place)


def test_a_look_from_inside_an_agent_has_an_ownerless_job_taken_over_for_good(place: Place) -> None:
    """An agent that runs `list` has another job taken over; when it ends, that job keeps its owner."""
    other = place.start("submit", "--agent", "human", "--prompt", "Water the plants.")
    name = place.await_job()
    wait_until(lambda: place.run("status", name).returncode == 0, what="a row")
    place.await_state(name, "running")
    other.kill()
    other.wait(10)
    # A client of tmux that had not yet asked for a supervisor would end with the agent.
    asked = 'until [ -s "$DELEGATE_JOB_REGISTRY_DIR/supervisor.lock" ]; do sleep 0.05; done'
    done = place.submit(f'"$DJ" list\n{REPORT} started\n{asked}\n{COMPLETED}', "--close")
    assert done.returncode == 0, done
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    wait_until(lambda: (place.job(name)["owner"] or {}).get("pid") == pid, what="the takeover")
    assert place.run("publish", "--job", name, "--event", "completed").returncode == 0
    assert place.run("wait", name).returncode == 0
    nothing_left(place)


def test_a_job_that_can_have_no_broker_ends_as_not_started(place: Place) -> None:
    """With a broken amqtt a detached job stays nobody's for three tries, and then ends with the reason."""
    wrong = place.root / "wrong"
    for directory in ("amqtt", "amqtt-9.9.dist-info"):
        (wrong / directory).mkdir(parents=True)
    (wrong / "amqtt/__init__.py").touch()
    name = submit_detached(place, "touch ran", "--close", env={"PYTHONPATH": str(wrong)})
    job = await_result(place, name, 3 * REFUSED_FOR + 15)
    assert (job["outcome"], "the embedded broker" in job["reason"]) == ("not_started", True)
    assert not (place.work / "ran").exists()
    nothing_left(place)
