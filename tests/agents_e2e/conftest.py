"""The fixture that gives a test each real agent of its row, in a place of its own, with a model's stub."""

from collections.abc import Iterator

import pytest

from agents_e2e import matrix, real_agents
from agents_e2e.model_stub import serving
from agents_e2e.real_agents import RealAgent, Rig
from harness import Place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the agents that the matrix gives it."""
    if "agent" in metafunc.fixturenames:
        rigs = [rig for rig in real_agents.RIGS if matrix.is_run(metafunc.function.__name__, rig)]
        metafunc.parametrize("rig", rigs, ids=lambda rig: rig.agent, indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    """Give an agent; skipped at home where it is not installed, a failure in CI."""
    chosen: Rig = getattr(request, "param", real_agents.CODEX)
    real_agents.need(chosen)
    return chosen


@pytest.fixture
def place(rig: Rig) -> Iterator[Place]:
    """Give a place of its own, where this agent needs it."""
    here = Place.make(rig.under)
    try:
        yield here
    finally:
        here.close()


@pytest.fixture
def agent(rig: Rig, place: Place) -> Iterator[RealAgent]:
    """Give the agent, at home in the place, with its model."""
    with serving(rig.stub()) as model:
        yield real_agents.settle(rig, place, model)
