"""What each real agent's own hooks tell: its turns, its dialogs, its failures. Seen on the real binary.

Not what an agent reports by itself: that is test_any_agent.
"""

import json
import threading

import pytest

from agents_e2e.model_stub import Turn
from agents_e2e.real_agents import DEADLINE, RealAgent
from harness import job_id, wait_until

pytestmark = pytest.mark.timeout(240)

REPORTS = (Turn(report="completed"), Turn("Done."))
REMINDER = "nothing was reported in it"


def test_asked_for_a_report_it_reports(agent: RealAgent) -> None:
    """An agent that ends its turn without a word is asked once, at once, and what it then reports counts."""
    agent.model.says(Turn("All finished."))
    agent.model.says(*REPORTS, to=REMINDER)
    done = agent.submit()
    assert done.returncode == 0, done
    told = [event["detail"] for event in agent.events(job_id(done.stdout)) if event["source"] == "hook"]
    assert told.count("turn ended without a report; asked for it") == 1


def test_an_agent_that_never_reports_waits_for_a_person(agent: RealAgent) -> None:
    """Asked once and silent still: the job waits, and says why; it is neither finished nor asked again."""
    agent.model.says(Turn("All finished."), Turn("I said so."))
    job = agent.start()
    ended = agent.await_kind(job, "turn_ended")
    assert ended["source"] == "hook"
    assert ended["detail"].endswith("I said so.")
    waiting = agent.place.await_state(job, "waiting")
    assert waiting["reason"] == "turn ended without a report"
    assert len(agent.model.asked) == 2


def test_the_check_decides_for_an_agent_that_never_reports(agent: RealAgent) -> None:
    """With --accept-silent-stop the end of a turn is enough for the check."""
    check = agent.place.script("check", '[ -e "$JOB_WORKDIR/made" ]')
    agent.model.says(Turn(runs="touch made"), Turn("All finished."), Turn("I said so."))
    done = agent.submit("--accept-silent-stop", "--validate", check)
    assert done.returncode == 0, done


def test_a_permission_is_granted_in_the_session(agent: RealAgent) -> None:
    """A dialog is told at once, with tool and argument; when a person has granted it, the job goes on."""
    agent.model.says(agent.rig.asks, *REPORTS)
    job = agent.start(*agent.rig.asking)
    asked = agent.await_kind(job, "permission_required")
    assert asked["source"] == "hook"
    assert agent.rig.asks.runs in asked["detail"]
    assert agent.place.await_state(job, "waiting", "running")["state"] == "waiting"
    agent.answer(job, agent.rig.yes)
    agent.await_kind(job, "resumed")
    # opencode 1.18.33 tells of the answer before it runs the tool.
    wait_until((agent.place.work / "asked").exists, DEADLINE, "what was granted")
    if agent.rig.agent == "gemini":  # it has no rule that lets a report pass
        agent.await_kind(job, "permission_required", count=2)
        agent.answer(job, agent.rig.yes)
    assert agent.wait(job) == 0


def test_a_permission_is_refused_in_the_session(agent: RealAgent) -> None:
    """What a person refuses is not done, and ends nothing: what is sent then is heard."""
    agent.model.says(agent.rig.asks, Turn("Then not."), Turn("Then not."))
    agent.model.says(Turn(report="error"), Turn("Sorry."), to="Then leave it")
    job = agent.start(*agent.rig.asking)
    agent.await_kind(job, "permission_required")
    agent.answer(job, "Escape")
    wait_until(lambda: agent.rig.dialog not in agent.screen(job), DEADLINE, "the dialog to go")
    assert not (agent.place.work / "asked").exists()
    assert agent.place.job(job)["state"] != "done"


def test_a_permission_is_approved_from_another_terminal(agent: RealAgent) -> None:
    """`approve` lets the tool run, says what was granted, and the job goes on; once more is refused."""
    agent.model.says(agent.rig.asks, Turn("Granted.", hold=(gate := threading.Event())), *REPORTS)
    job = agent.start(*agent.rig.asking)
    told = agent.await_kind(job, "permission_required")
    assert agent.place.run("answer", job, "yes").returncode == 2
    done = agent.place.run("approve", job)
    assert (done.returncode, done.stdout) == (0, f"approved: {told['detail']}\n"), done
    wait_until((agent.place.work / "asked").exists, DEADLINE, "what was granted")
    assert agent.place.await_state(job, "running")["reason"] is None
    again = agent.place.run("approve", job)
    assert (again.returncode, "asks for nothing" in again.stderr) == (2, True), again
    gate.set()
    agent.place.run("cancel", job)


def test_a_permission_is_denied_with_a_reason(agent: RealAgent) -> None:
    """`deny` keeps the tool from running; the model reads why, and the job goes on."""
    agent.model.says(agent.rig.asks, *REPORTS)
    agent.model.says(*REPORTS, to="not while I am away")
    job = agent.start(*agent.rig.asking)
    agent.await_kind(job, "permission_required")
    done = agent.place.run("deny", job, "--reason", "not while I am away")
    assert done.returncode == 0, done
    wait_until(lambda: "not while I am away" in agent.model.asked[-1].text, DEADLINE, "the reason")
    assert not (agent.place.work / "asked").exists()
    if agent.rig.agent == "gemini":  # it has no rule that lets a report pass
        agent.await_kind(job, "permission_required", count=2)
        agent.answer(job, agent.rig.yes)
    assert agent.wait(job) == 0


def test_a_question_is_answered(agent: RealAgent) -> None:
    """`answer` chooses by label or number, whatever the case; `approve` is no answer."""
    agent.model.says(Turn(question="Which colour?"), *REPORTS)
    job = agent.start()
    told = agent.await_kind(job, "permission_required")
    assert told["detail"] == "Which colour? [Red, Blue]"
    assert agent.place.run("approve", job).returncode == 2
    done = agent.place.run("answer", job, "blue", "--json")
    assert json.loads(done.stdout)["answered"] is True
    assert agent.wait(job) == 0
    assert "Blue" in agent.model.asked[1].text


def test_a_background_task_is_not_told(agent: RealAgent) -> None:
    """Where no hook tells of what still runs a turn ends as any other: the agent is asked for its report."""
    task = Turn(runs="touch runs; until [ -e go ]; do sleep 0.1; done", background=True)
    agent.model.says(task, Turn("It runs."))
    agent.model.says(Turn("Wait.", hold=(gate := threading.Event())), to=REMINDER)
    job = agent.start()
    wait_until((agent.place.work / "runs").exists, DEADLINE, "the task")
    wait_until(lambda: REMINDER in agent.model.asked[-1].text, DEADLINE, "the question")
    assert not any("still running" in str(event["detail"]) for event in agent.events(job))
    (agent.place.work / "go").touch()
    gate.set()
    agent.place.run("cancel", job)


def test_a_retry_of_the_model_is_told(agent: RealAgent) -> None:
    """An agent that tries a refused request again for ever says so each time, and its job goes on."""
    agent.model.says(Turn(status=400))
    job = agent.start()
    assert agent.await_kind(job, "progress", count=2)["data"]["error_class"] == "retry"
    assert agent.place.job(job)["state"] == "running"


def test_esc_fails_the_job(agent: RealAgent) -> None:
    """An agent whose hooks tell an interruption as a failure fails its job by it."""
    agent.model.says(Turn("Done.", hold=threading.Event()))
    job = agent.start()
    wait_until(lambda: agent.model.asked, DEADLINE, "a question to the model")
    wait_until(lambda: "esc to cancel" in agent.screen(job), DEADLINE, "a turn on the screen")
    agent.interrupt(job)
    assert agent.wait(job) == 1


def test_an_error_of_the_model_fails_the_job(agent: RealAgent) -> None:
    """A request that the model's API refuses ends the job as failed, by the agent's own word for it."""
    agent.model.says(Turn(status=400))
    done = agent.submit()
    assert done.returncode == 1, done
    failed = [event for event in agent.events(job_id(done.stdout)) if event["kind"] == "error"]
    assert [event["source"] for event in failed] == ["hook"]
