"""The skill that `skill install` installs is found by the real agents."""

import pytest

from agents_e2e.model_stub import Turn
from agents_e2e.real_agents import RealAgent

pytestmark = pytest.mark.timeout(240)


def test_is_told_of_the_skill(agent: RealAgent) -> None:
    """What the user installed for an agent is told to its model, with when to use it."""
    installed = agent.place.run("skill", "install", "--agent", agent.rig.agent)
    assert installed.returncode == 0, installed
    agent.model.says(Turn(report="completed"), Turn("Done."))
    done = agent.submit()
    assert done.returncode == 0, done
    assert "Hand a task to another interactive coding agent" in agent.model.asked[0].whole
