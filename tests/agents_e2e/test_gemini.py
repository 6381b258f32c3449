"""What only gemini has: hooks by a home of the job's, or by system defaults where root alone may write."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_e2e import real_agents
from agents_e2e.model_stub import Turn, serving
from agents_e2e.real_agents import GEMINI, RealAgent
from harness import SHORT_TEMP, Place, job_id

pytestmark = pytest.mark.timeout(240)
ROOTS = Path("/var/lib")


@pytest.fixture(params=[SHORT_TEMP, ROOTS], ids=["anywhere", "root's"])
def gemini(request: pytest.FixtureRequest) -> Iterator[RealAgent]:
    """Give gemini in a place that anybody may write above, and in one where only root may."""
    real_agents.need(GEMINI)
    if request.param == ROOTS and os.geteuid() != 0:
        pytest.skip("only root may write there")
    place = Place.make(request.param)
    try:
        with serving(GEMINI.stub()) as model:
            yield real_agents.settle(GEMINI, place, model)
    finally:
        place.close()


def test_the_users_own_hooks_and_settings_stay(gemini: RealAgent) -> None:
    """Ours are heard beside the user's hook, sessions go where they belong, and theirs stay as they are."""
    mine = gemini.place.home / "mine"
    settings = gemini.place.home / ".gemini/settings.json"
    hook = {"type": "command", "command": f"touch {mine}"}
    told = json.loads(settings.read_text()) | {"hooks": {"BeforeAgent": [{"hooks": [hook]}]}}
    settings.write_text(json.dumps(told))
    (gemini.place.home / ".gemini/tmp").mkdir()
    gemini.model.says(Turn(report="completed"), Turn("Done."))
    done = gemini.submit()
    assert done.returncode == 0, done
    job = job_id(done.stdout)
    assert gemini.sessions(job)
    assert list((gemini.place.home / ".gemini/tmp").rglob("session-*.json*"))
    assert mine.exists()
    assert json.loads(settings.read_text())["hooks"] == told["hooks"]
    assert not (gemini.place.registry / "jobs" / job / "home").exists()
