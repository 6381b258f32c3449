"""What is done with a job besides waiting for it: run it again, say more to it, forget it."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from harness import COMMAND, Place, job_id, wait_until
from takeovers import COMPLETED, ENDLESS, REPORT, UNTIL_TOLD, nothing_left, reported, submit_detached

ODD = "!ls\n/help `touch X` $(touch X) #(touch X) %H ; ünï \"q\" 'q' ends;"
# Reads lines as they are typed, until `end` is one of them.
LISTENER = (
    f'{REPORT} started\nwhile IFS= read -r line; do [ "$line" = end ] && break; echo "$line" >> heard; done'
)


# -- retry


def test_retry_is_a_new_job_with_the_same_prompt(place: Place) -> None:
    """`retry_of` names the old one, the prompt is the same to the byte, and the old one stays as it was."""
    prompt = place.root / "prompt"
    prompt.write_bytes(f"\r\n{ODD}\r\n\n".encode())
    agent = f"[ -e better ] || {{ {REPORT} error --detail no; exit; }}\n{COMPLETED}"
    first = place.submit(agent, "--prompt-file", prompt, "--close")
    assert first.returncode == 1
    (place.work / "better").touch()
    second = place.run("retry", job_id(first.stdout), "--json")
    job = json.loads(second.stdout)
    assert (second.returncode, job["retry_of"], job["outcome"]) == (0, job_id(first.stdout), "accepted")
    assert (place.log_dir(job["id"]) / "prompt.md").read_bytes() == prompt.read_bytes()
    assert place.job(job_id(first.stdout))["outcome"] == "failed"
    assert job["session"] == f"dj-{job['id']}"
    nothing_left(place)


def test_retry_takes_the_check_as_it_is_now(place: Place) -> None:
    """A check that was mended after the job is no changed check: its hash is taken anew."""
    check = place.script("check", "exit 1")
    first = place.submit(COMPLETED, "--validate", check, "--close")
    assert first.returncode == 3
    place.script("check", "exit 0")
    done = place.run("retry", job_id(first.stdout), "--detach")
    name = job_id(done.stdout)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(place.log_dir(name)))
    assert place.run("wait", name).returncode == 0
    assert place.job(name)["verdict"] == "passed"


def test_retry_of_a_job_that_is_not_done_is_refused(place: Place) -> None:
    """Two agents at one task are asked for by two submits, not by a retry: exit 2, nothing made."""
    name = submit_detached(place, ENDLESS, "--close")
    refused = place.run("retry", name)
    assert (refused.returncode, f"job {name} is not done" in refused.stderr) == (2, True)
    assert place.jobs() == [name]
    assert place.run("cancel", name).returncode == 0


def test_retry_of_a_job_on_an_external_broker_needs_the_broker(place: Place) -> None:
    """Its password was not kept: without --broker it is exit 2, with one line that says so."""
    serving = place.start("broker")
    url = json.loads((serving.stdout and serving.stdout.readline()) or "")["url"]
    first = job_id(place.submit(COMPLETED, "--close", "--broker", url).stdout)
    refused = place.run("retry", first)
    assert (refused.returncode, "--broker" in refused.stderr, len(place.jobs())) == (2, True, 1)
    again = place.run("retry", first, "--broker", url, "--json")
    assert (again.returncode, json.loads(again.stdout)["retry_of"]) == (0, first)
    serving.terminate()
    assert serving.wait(10) == 0


# -- prune


def aged(place: Place, name: str, days: int) -> None:
    """Let a job have ended so many days ago."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - 86400 * days))
    change = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(*eval(sys.argv[2]))"
    )
    words = ("UPDATE jobs SET ended_at = ? WHERE id = ?", (when, name))
    assert place.spawn("python3", "-c", change, place.registry / "registry.db", repr(words)).wait(10) == 0


def ended(place: Place, *options: str) -> str:
    """Submit a job that ends at once, and return its id."""
    return job_id(place.submit(COMPLETED, *options).stdout)


def test_prune_forgets_what_is_old_and_nothing_else(place: Place) -> None:
    """Older than asked and done: row, directory and session go; the audit directory stays."""
    old, young = ended(place), ended(place)
    running = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    aged(place, old, 8)
    shown = place.run("prune", "--older-than", "7d", "--dry-run", "--json")
    assert json.loads(shown.stdout) == {"pruned": [old], "kept": [], "dry_run": True}
    assert place.run("status", old).returncode == 0
    done = place.run("prune", "--older-than", "7d", "--json")
    assert json.loads(done.stdout) == {"pruned": [old], "kept": [], "dry_run": False}
    assert place.run("status", old).returncode == 2
    assert set(place.jobs()) == {young, running}
    assert f"dj-{old}" not in place.tmux("list-sessions").stdout
    assert f"dj-{young}" in place.tmux("list-sessions").stdout
    assert (place.log_dir(old) / "result.json").is_file()
    assert place.run("cancel", running).returncode == 0


def test_prune_logs_never_follows_links(place: Place) -> None:
    """--logs removes the audit directory; what links in it point to stays; so does a link in its place."""
    name, other = ended(place, "--close"), ended(place, "--close")
    treasure = place.root / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    (place.log_dir(name) / "link").symlink_to(treasure)
    place.log_dir(other).rename(place.root / "moved")
    place.log_dir(other).symlink_to(treasure)
    done = place.run("prune", "--older-than", "0s", "--logs")
    assert set(done.stdout.split()) == {name, other}
    assert not place.log_dir(name).exists()
    assert (treasure / "gold").exists()


def test_prune_leaves_a_job_that_somebody_holds(place: Place) -> None:
    """Under the job's lock or not at all: an owner never finds half of its job gone."""
    name = ended(place, "--close")
    with (place.registry / "jobs" / name / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert place.run("prune", "--older-than", "0s").stdout == ""
    assert place.run("status", name).returncode == 0
    assert place.run("prune", "--older-than", "0s").stdout == f"{name}\n"
    assert place.jobs() == []


def test_prune_removes_what_a_killed_submit_left(place: Place) -> None:
    """A job directory that never became a job holds an environment: it goes, once it is old enough."""
    place.run("list")
    for name, hours in (("oldoldoldo", 2), ("newnewnewn", 0)):
        directory = place.registry / "jobs" / name
        directory.mkdir(parents=True)
        (directory / "environ.json").write_text("{}")
        os.utime(directory, (time.time() - 3600 * hours,) * 2)
    place.run("prune")
    assert place.jobs() == ["newnewnewn"]


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", ""])
def test_prune_refuses_what_is_no_age(place: Place, age: str) -> None:
    """What can be misread is refused: nothing is forgotten by a slip."""
    name = ended(place, "--close")
    refused = place.run("prune", f"--older-than={age}")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert place.jobs() == [name]


# -- send


def test_send_is_typed_and_recorded(place: Place) -> None:
    """The text reaches the agent's terminal behind our header, inert, and stands in the log as `sent`."""
    name = submit_detached(place, f"{LISTENER}\n{COMPLETED}", "--close")
    reported(place, "started")
    place.await_state(name, "running")
    sent = place.run("send", name, ODD, "--json")
    assert (sent.returncode, json.loads(sent.stdout)["sent"]) == (0, True)
    heard = place.work / "heard"
    wait_until(lambda: heard.exists() and "ends;" in heard.read_text(), what="the text")
    assert heard.read_text() == f"A message from your user: {ODD}\n"
    assert not list(place.root.rglob("X"))

    def recorded() -> list[str]:
        said = [json.loads(line) for line in place.run("logs", name, "--json").stdout.splitlines()]
        return [each["detail"] for each in said if each["kind"] == "sent"]

    assert wait_until(recorded, what="the event") == [ODD]
    assert place.run("cancel", name).returncode == 0


@pytest.mark.parametrize("how", ["permission", "done", "person", "nothing"])
def test_send_is_refused_when_nobody_would_read_it(place: Place, how: str) -> None:
    """While a permission is open, when the job is done or a person's, or without words: 2, nothing typed."""
    if how == "person":
        made = place.run("submit", "--agent", "human", "--prompt", "Water.", "--detach", "--json")
        name = json.loads(made.stdout)["id"]
        place.await_state(name, "running")
    elif how == "done":
        name = ended(place)
    else:
        first = "permission_required" if how == "permission" else "started"
        name = submit_detached(place, f"{REPORT} {first}\n{UNTIL_TOLD}\n{LISTENER}", "--close")
        place.await_state(name, "waiting" if how == "permission" else "running")
    refused = place.run("send", name, " " if how == "nothing" else "Go on.")
    assert (refused.returncode, refused.stderr.startswith("error: ")) == (2, True)
    assert not (place.work / "heard").exists()
    place.run("cancel", name)


@pytest.mark.parametrize(
    "command", [("send", "Go on."), ("retry",), ("approve",), ("deny",), ("answer", "Yes.")]
)
def test_an_agent_cannot_do_it_to_its_own_job(place: Place, command: tuple[str, ...]) -> None:
    """From inside the job it is refused: an agent that talks to or restarts itself never ends."""
    what, *rest = command
    words = " ".join([what, '"$DELEGATE_JOB_ID"', *(f"'{word}'" for word in rest)])
    agent = f'code=0; "$DJ" {words} 2> said || code=$?; echo $code > code\n{COMPLETED}'
    assert place.submit(agent, "--close").returncode == 0
    assert (place.work / "code").read_text() == "2\n"
    assert "its own job" in (place.work / "said").read_text()
    assert len(place.jobs()) == 1


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ancestors cannot be seen")
@pytest.mark.parametrize(
    "hidden", ["env -u DELEGATE_JOB_ID", "env DELEGATE_JOB_ID=another", "env -i setsid -w"]
)
def test_an_agent_that_hides_its_job_is_known_too(place: Place, hidden: str) -> None:
    """By the runner above it, whatever its environment says."""
    agent = (
        f'code=0; {hidden} "$DJ" approve "$DELEGATE_JOB_ID" --registry-dir {place.registry} 2> said'
        f" || code=$?\necho $code > code\n{COMPLETED}"
    )
    assert place.submit(agent, "--close").returncode == 0
    assert (place.work / "code").read_text() == "2\n"
    assert "its own job" in (place.work / "said").read_text()


def test_a_person_beside_the_agent_is_none(place: Place) -> None:
    """Who opens a window of their own in the job's session may say what they want to its job."""
    submit = place.start(*place.submit_args(UNTIL_TOLD + "\n" + COMPLETED, "--close"))
    name = job_id(submit.stdout.readline() if submit.stdout else "")
    place.await_state(name, "running")
    said = place.root / "said"
    command = f"{COMMAND} approve {name} > {said}.part 2>&1; mv {said}.part {said}"
    environ = [word for key, value in place.environ.items() for word in ("-e", f"{key}={value}")]
    assert place.tmux("new-window", "-d", "-t", f"=dj-{name}:", *environ, command).returncode == 0
    wait_until(said.exists, what="an answer")
    assert f"job {name} asks for nothing" in said.read_text()
    (place.work / "go").touch()
    assert submit.wait(30) == 0
