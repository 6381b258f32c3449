"""What holds for each real agent alike, seen on the real binary against a stub of its model."""

import os
import signal
import threading
from pathlib import Path

import pytest

from agents_e2e.model_stub import Turn
from agents_e2e.real_agents import DEADLINE, RealAgent
from harness import job_id, wait_until

pytestmark = pytest.mark.timeout(240)

REPORTS = (Turn(report="completed"), Turn("Done."))


NEVER = "Never to be said."
REMINDER = "nothing was reported in it"


def held() -> Turn:
    """Return a turn that does not come before the test is over."""
    return Turn(NEVER, hold=threading.Event())


def await_question(agent: RealAgent) -> None:
    """Wait until the agent has asked its model something."""
    wait_until(lambda: agent.model.asked, DEADLINE, "a question to the model")


def test_completes_with_a_report(agent: RealAgent) -> None:
    """An agent that runs the command of its instructions ends its job, accepted."""
    agent.model.says(*REPORTS)
    done = agent.submit()
    assert done.returncode == 0, done
    assert "completed" in agent.kinds(job_id(done.stdout))


@pytest.mark.parametrize("first", ["!", "/help "])
def test_a_prompt_is_no_command(agent: RealAgent, first: str) -> None:
    """A prompt that begins with `!` or `/` reaches the model as text, and nothing of it is executed."""
    prompt = f"{first}touch EXECUTED"
    agent.model.says(*REPORTS)
    done = agent.submit(prompt=prompt)
    assert done.returncode == 0, done
    assert prompt in agent.model.asked[0].text
    assert not (agent.place.work / "EXECUTED").exists()


def test_a_prompt_of_100_kilobytes(agent: RealAgent) -> None:
    """A long prompt of many lines reaches the model whole."""
    prompt = "\n".join(f"line {number}: Größe" for number in range(5500))
    assert 100_000 < len(prompt.encode()) < 120_000
    path = agent.place.root / "task.md"
    path.write_text(prompt, encoding="utf-8")
    agent.model.says(*REPORTS)
    done = agent.submit(prompt=path)
    assert done.returncode == 0, done
    assert prompt in agent.model.asked[0].text


def test_two_jobs_in_one_work_dir(agent: RealAgent) -> None:
    """Each of two jobs at once gets its own reports and its own session's events, and no other's."""
    agent.model.says(Turn(report="completed"), Turn("Done."), to="FIRST TASK")
    agent.model.says(Turn(report="error"), Turn("Done."), to="SECOND TASK")
    first = agent.start(prompt="FIRST TASK")
    second = agent.start(prompt="SECOND TASK")
    assert (agent.wait(first), agent.wait(second)) == (0, 1)
    assert "error" not in agent.kinds(first)
    assert "completed" not in agent.kinds(second)
    (one,), (other,) = agent.sessions(first), agent.sessions(second)
    assert one != other


def test_a_rejected_work_is_mended(agent: RealAgent) -> None:
    """The check's refusal reaches the running agent, which mends its work and reports again."""
    check = agent.place.script("check", '[ -e "$JOB_WORKDIR/mended" ]')
    agent.model.says(*REPORTS)
    agent.model.says(Turn(runs="touch mended"), *REPORTS, to="Your work was checked")
    done = agent.submit("--validate", check, "--attempts", "2")
    assert done.returncode == 0, done
    assert agent.place.job(job_id(done.stdout))["attempt"] == 2


def test_a_follow_up(agent: RealAgent) -> None:
    """What is sent to a running agent is submitted to it, and what it then reports ends the job."""
    agent.model.says(Turn("What do you mean?"), Turn("I still do not know."))
    agent.model.says(*REPORTS, to="I mean the")
    job = agent.start()
    await_question(agent)
    text = "! I mean the\nlast line $(touch EXECUTED) `touch EXECUTED`;"
    wait_until(lambda: agent.place.run("send", job, text).returncode == 0, DEADLINE, "a send that is taken")
    assert agent.wait(job) == 0
    assert text in agent.model.asked[-1].text
    assert not (agent.place.work / "EXECUTED").exists()


def is_accepted_though_spoken_to(agent: RealAgent, gate: threading.Event) -> None:
    """Send a message while the gate holds the first answer; the job calls nobody and is accepted."""
    job = agent.start("--fail-on-input")
    await_question(agent)
    assert agent.place.run("send", job, "And this too.").returncode == 0
    gate.set()
    assert agent.wait(job) == 0, agent.events(job)


def test_a_message_while_the_last_answer_is_given(agent: RealAgent) -> None:
    """It is heeded in a turn of its own: that the turn before it has ended in silence calls nobody."""
    agent.model.says(Turn("That was all.", hold=(gate := threading.Event())))
    agent.model.says(*REPORTS, to="And this too")
    is_accepted_though_spoken_to(agent, gate)


def test_a_message_before_the_last_tool_is_used(agent: RealAgent) -> None:
    """It is heeded within the turn, and at its end the agent is asked for its report as ever."""
    agent.model.says(Turn(runs="touch made", hold=(gate := threading.Event())), Turn("That was all."))
    agent.model.says(*REPORTS, to=REMINDER)
    is_accepted_though_spoken_to(agent, gate)


def test_esc_does_not_end_the_job(agent: RealAgent) -> None:
    """A turn that a person interrupts is no end: the job waits for what comes next."""
    agent.model.says(held())
    agent.model.says(*REPORTS, to="Go on")
    job = agent.start()
    await_question(agent)
    wait_until(lambda: "esc" in agent.screen(job).lower(), DEADLINE, "a turn on the screen")
    agent.interrupt(job)
    if agent.rig.stops_at:
        assert agent.await_kind(job, "permission_required")["detail"] == "interrupted"
    agent.place.run("send", job, "Go on.")
    assert agent.wait(job) == 0
    assert not [asked for asked in agent.model.asked if NEVER in asked.text]
    assert not [event for event in agent.events(job) if "asked for it" in (event["detail"] or "")]


def test_killed(agent: RealAgent) -> None:
    """An agent that is killed in the middle is lost, at once, and not finished."""
    agent.model.says(held())
    job = agent.start()
    await_question(agent)
    for process in agent.place.jobs_processes():
        words = [Path(word).stem for word in process.command.split(" ")[:2]]
        if agent.rig.program in words:
            os.kill(process.pid, signal.SIGKILL)
    assert agent.wait(job) == 4


def test_in_a_worktree_of_its_own(agent: RealAgent) -> None:
    """In a new worktree, with its log elsewhere, the agent works and its report is heard."""
    place = agent.place
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        git = place.spawn("git", "-c", "user.name=n", "-c", "user.email=n@example.org", *words)
        assert git.wait(30) == 0
    agent.model.says(*REPORTS)
    done = agent.submit("--worktree", "--close")
    assert done.returncode == 0, done
    job = place.job(job_id(done.stdout))
    assert str(job["workdir"]) in agent.model.asked[0].text
    assert (place.log_dir(job["id"]) / "reports.jsonl").is_file()
