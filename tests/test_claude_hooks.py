"""Claude's hooks on the real binary, against a stub of its model: what they tell, and keyless answers."""

import json
import threading
from collections.abc import Iterator

import pytest

from agents_e2e import real_agents
from agents_e2e.model_stub import Turn, serving
from agents_e2e.real_agents import CLAUDE, DEADLINE, RealAgent
from harness import Place, wait_until

pytestmark = pytest.mark.timeout(180)

REPORTS = (Turn(report="completed"), Turn("Done."))
ASKS = ("--permission-mode", "ask")


@pytest.fixture
def claude(place: Place) -> Iterator[RealAgent]:
    """Give Claude Code, at home in the place, with its model."""
    real_agents.need(CLAUDE)
    with serving(CLAUDE.stub()) as model:
        yield real_agents.settle(CLAUDE, place, model)


def waiting(claude: RealAgent, *turns: Turn) -> str:
    """Start a job that asks for leave; return its id once the dialog is open."""
    claude.model.says(*turns)
    job = claude.start(*ASKS)
    claude.await_kind(job, "permission_required")
    return job


def test_an_agent_that_never_reports_is_asked_once(claude: RealAgent) -> None:
    """Claude gets the command from its stop hook, and what it then reports ends the job."""
    claude.model.says(Turn("All finished."), Turn(report="completed"), Turn("Reported."))
    done = claude.submit()
    assert done.returncode == 0, done
    assert "nothing was reported in it" in claude.model.asked[1].text


def test_a_silent_agent_waits_for_a_person_or_for_the_check(claude: RealAgent) -> None:
    """Asked and still silent: the job waits, or with `--accept-silent-stop` the check decides."""
    claude.model.says(Turn("All finished."), Turn("Nothing to add."))
    done = claude.submit("--fail-on-input")
    assert (done.returncode, "turn ended without a report" in done.stdout) == (8, True), done
    check = claude.place.script("check", "true")
    claude.model.says(Turn("All finished."), Turn("Nothing to add."), to="ANOTHER TASK")
    done = claude.submit("--validate", check, "--accept-silent-stop", prompt="ANOTHER TASK")
    assert done.returncode == 0, done


def test_a_person_in_the_pane_wins(claude: RealAgent) -> None:
    """What a key in the session answers is told as answered; a later `approve` is refused."""
    job = waiting(claude, Turn(runs="touch granted"), *REPORTS)
    wait_until(lambda: "1. Yes" in claude.screen(job), DEADLINE, "the dialog")
    claude.press(job, "1")
    assert claude.wait(job) == 0
    assert "resumed" in claude.kinds(job)
    assert claude.place.run("approve", job).returncode == 2


def test_esc_in_a_dialog_leaves_a_job_that_can_be_spoken_to(claude: RealAgent) -> None:
    """A refusal in the session is told, and the job goes on with what is sent to it."""
    job = waiting(claude, Turn(runs="touch granted"), Turn("Never said."))
    claude.model.says(*REPORTS, to="Do it without")
    wait_until(lambda: "1. Yes" in claude.screen(job), DEADLINE, "the dialog")
    assert claude.place.run("send", job, "Hello?").returncode == 2
    claude.press(job, "Escape")
    assert claude.await_kind(job, "permission_required", 2)["data"]["reason"] == "interrupted"
    sent = claude.place.run("answer", job, "Do it without.", "--json")
    assert sent.returncode == 0, sent
    assert claude.wait(job) == 0


def test_esc_in_a_turn_is_told_too(claude: RealAgent) -> None:
    """No hook tells of it, but the transcript does: the job waits for input, and goes on with it."""
    claude.model.says(Turn(runs="touch runs; tail -f /dev/null"))
    job = claude.start("--", "--allowedTools", "Bash")
    wait_until((claude.place.work / "runs").exists, DEADLINE, "the tool")
    claude.model.says(*REPORTS, to="Do it at last")
    claude.press(job, "Escape")
    assert claude.await_kind(job, "permission_required")["data"]["reason"] == "interrupted"
    assert claude.place.run("send", job, "Do it at last.").returncode == 0
    assert claude.wait(job) == 0


def test_esc_lets_claude_go_on_with_what_was_sent(claude: RealAgent) -> None:
    """What waits in its queue begins a turn of which no hook tells; at its end the agent is asked as ever."""
    claude.model.says(Turn("Never said.", hold=threading.Event()))
    claude.model.says(Turn("All done."), to="Do it at last")
    claude.model.says(*REPORTS, to="nothing was reported in it")
    job = claude.start()
    wait_until(lambda: claude.model.asked, DEADLINE, "a question to the model")
    assert claude.place.run("send", job, "Do it at last.").returncode == 0
    claude.press(job, "Escape")
    assert claude.wait(job) == 0


def test_a_background_task_is_no_end(claude: RealAgent) -> None:
    """F25: a turn that ends while a task runs is progress; the job ends by what is reported after it."""
    claude.model.says(
        Turn(runs="until [ -e go ]; do sleep 0.1; done", background=True),
        Turn("It runs."),
        *REPORTS,
    )
    job = claude.start("--", "--allowedTools", "Bash")
    wait_until(lambda: any("still running" in str(each["detail"]) for each in claude.events(job)), DEADLINE)
    assert "turn_ended" not in claude.kinds(job)
    (claude.place.work / "go").touch()
    assert claude.wait(job) == 0


def test_an_api_error_ends_the_job_with_its_class(claude: RealAgent) -> None:
    """What the model's API refuses is `error`, told by Claude's own hook."""
    claude.model.says(Turn(status=400))
    job = claude.start()
    assert claude.wait(job) == 1
    told = claude.await_kind(job, "error")
    assert (told["source"], told["data"]["hook"]) == ("hook", "StopFailure")


def test_a_dialog_before_the_start_is_seen(claude: RealAgent) -> None:
    """Without a sign of life a person is called, with what the screen shows."""
    (claude.place.home / ".claude.json").write_text('{"hasCompletedOnboarding": true}')
    done = claude.submit("--startup-timeout", "2", "--fail-on-input")
    assert done.returncode == 8, done
    (told,) = [
        each for each in claude.events(claude.place.jobs()[0]) if each["kind"] == "permission_required"
    ]
    assert (told["source"], told["data"]["reason"]) == ("owner", "startup_dialog")
    assert "trust" in told["data"]["screen"]


def test_a_message_is_received(claude: RealAgent) -> None:
    """`send` says that the agent has taken the text, by the agent's own word."""
    gate = threading.Event()
    claude.model.says(Turn("A moment.", hold=gate), Turn("Well?"), Turn("I see."))
    claude.model.says(*REPORTS, to="Hurry up")
    job = claude.start()
    gate.set()
    claude.await_kind(job, "turn_ended")
    sent = claude.place.run("send", job, "Hurry up.", "--json")
    assert json.loads(sent.stdout)["receipt"] is True
    assert claude.wait(job) == 0
