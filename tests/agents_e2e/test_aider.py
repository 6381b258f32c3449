"""Aider, where it is installed: one shot, whose exit is all that is heard of it. Not among the pinned agents.

It is looked for on PATH, as `aider`, or where $AIDER points.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_e2e.model_stub import ModelStub, Turn, serving
from agents_e2e.stub_openai import OpenAIStub
from harness import SHORT_TEMP, Place, job_id

pytestmark = pytest.mark.timeout(180)
AIDER = shutil.which(os.environ.get("AIDER", "aider"))
MADE = "made.txt\n```\nhello\n```\n"


class Stub(OpenAIStub):
    """A model that is asked without tools."""

    needs_tools = False


@pytest.fixture
def model() -> Iterator[ModelStub]:
    """Give a model."""
    with serving(Stub()) as stub:
        yield stub


@pytest.fixture
def place(model: ModelStub) -> Iterator[Place]:
    """Give a place with aider on its PATH."""
    if AIDER is None:
        pytest.skip("needs aider: pipx install aider-chat")
    here = Place.make(SHORT_TEMP)
    path = f"{Path(AIDER).parent}:{here.environ['PATH']}"
    here.environ.update(PATH=path, OPENAI_API_BASE=f"{model.url}/v1", OPENAI_API_KEY="dummy")
    try:
        yield here
    finally:
        here.close()


def test_the_check_decides_on_one_shot(place: Place, model: ModelStub) -> None:
    """It makes what it is told without asking and exits; the check accepts that. Alone it would be lost."""
    model.says(Turn(MADE), to="MAKE IT")  # behind the examples that aider gives
    check = place.script("check", '[ "$(cat "$JOB_WORKDIR/made.txt")" = hello ]')
    options = (
        "--agent",
        "aider",
        "--model",
        "openai/stub",
        "--permission-mode",
        "auto",
        "--prompt",
        "MAKE IT",
    )
    done = place.run("submit", *options, "--validate", check, "--accept-silent-stop", timeout=90)
    assert done.returncode == 0, done
    assert place.job(job_id(done.stdout))["verdict"] == "passed"
    assert place.run("submit", *options, "--validate", check, timeout=90).returncode == 4
