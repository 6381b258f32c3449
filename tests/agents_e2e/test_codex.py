"""What only codex has: a sandbox of its own around what its model runs, and trust for one launch."""

from collections.abc import Iterator

import pytest

from agents_e2e import real_agents
from agents_e2e.model_stub import Turn, serving
from agents_e2e.real_agents import CODEX, RealAgent
from harness import Place, job_id

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def codex(place: Place) -> Iterator[RealAgent]:
    """Give codex, at home in the place, with its model."""
    real_agents.need(CODEX)
    with serving(CODEX.stub()) as model:
        yield real_agents.settle(CODEX, place, model)


@pytest.mark.parametrize("logs", [None, "elsewhere"], ids=["in the work dir", "elsewhere"])
def test_reports_leave_the_default_sandbox(codex: RealAgent, logs: str | None) -> None:
    """With no network and almost nowhere to write a report is recorded, wherever the log is."""
    if logs:
        codex.place.environ["DELEGATE_JOB_LOGS_DIR"] = str(codex.place.root / logs)
    connects = f": < /dev/tcp/127.0.0.1/{codex.model.server_port} && touch CONNECTED"
    codex.model.says(Turn(runs=connects), Turn(report="completed"), Turn("Done."))
    done = codex.submit("--permission-mode", "auto")
    assert done.returncode == 0, done
    assert not (codex.place.work / "CONNECTED").exists()
    reported = [event for event in codex.events(job_id(done.stdout)) if event["kind"] == "completed"]
    assert [event["source"] for event in reported] == ["agent"]


@pytest.mark.parametrize("level", [None, "untrusted"], ids=["not listed", "untrusted"])
def test_a_users_distrust_holds(codex: RealAgent, level: str | None) -> None:
    """The work dir's own configuration is heeded; where the user distrusts it, codex asks and leaves it."""
    if level:
        with (codex.place.home / ".codex/config.toml").open("a") as file:
            file.write(f'[projects."{codex.place.work}"]\ntrust_level = "{level}"\n')
    (codex.place.work / ".codex").mkdir()
    (codex.place.work / ".codex/config.toml").write_text('developer_instructions = "THE PROJECT SPEAKS"\n')
    codex.model.says(Turn(report="completed"), Turn("Done."))
    job = codex.start()
    if level:
        codex.place.await_state(job, "running")
        codex.press_until_gone(job, "Enter", "Open restricted")
    assert codex.wait(job) == 0
    assert ("THE PROJECT SPEAKS" in codex.model.asked[0].text) is (level is None)
    assert codex.sessions(job)


def test_no_trust_is_left_behind(codex: RealAgent) -> None:
    """A job's trust, of its work dir and of its hooks, is of this launch alone: nothing is written down."""
    codex.model.says(Turn(report="completed"), Turn("Done."))
    assert codex.submit().returncode == 0
    written = (codex.place.home / ".codex/config.toml").read_text()
    assert "trust" not in written
    assert "hooks" not in written
