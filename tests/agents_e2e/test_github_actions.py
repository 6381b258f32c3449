"""examples/github-actions does what its README says, on a machine that has next to nothing."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents_e2e.model_stub import ModelStub, Turn, serving
from agents_e2e.real_agents import BIN, CLAUDE, PINS, Rig, claude_variables
from agents_e2e.test_ci import KEY, git
from agents_e2e.workflow import EXPRESSION, Step, Workflow
from harness import SYSTEM_PATH, Place

pytestmark = pytest.mark.timeout(300)
with_claude = pytest.mark.parametrize("rig", [CLAUDE], indirect=True, ids=["claude"])

HANDED_OVER = "Hand over the task"
WRITE = "git log -5 --format='- %h %s' > HISTORY.md"
REPORTS = (Turn(report="completed"), Turn("Done."))


@pytest.fixture
def example(repository: Path) -> Path:
    """Give the directory of the example."""
    return repository / "examples/github-actions"


@dataclass
class Runner:
    """A machine with a clone of a repository that holds the example, as its README has it copied."""

    workflow: Workflow
    place: Place
    model: ModelStub
    repository: Path

    def run(self, secret: str = KEY) -> dict[str, Step]:
        """Dispatch the workflow; return what came of each step."""
        inputs = {**self.workflow.inputs, "delegate_job": str(self.repository)}
        values = {f"inputs.{name}": value for name, value in inputs.items()}
        steps = self.workflow.run(
            self.place, {**values, "secrets.ANTHROPIC_API_KEY": secret}, self._environ()
        )
        return {step.name: step for step in steps}

    def _environ(self) -> Mapping[str, str]:
        tools = self.place.root / "tools"
        tools.mkdir()
        # What actions/setup-python and a runner with its own tmux and claude have on PATH.
        python = Path(sys.executable).resolve()
        for name, program in {
            "python": python,
            "claude": BIN / "claude",
            "tmux": shutil.which("tmux"),
        }.items():
            (tools / name).symlink_to(program or name)
        return {
            "PATH": f"{tools}:{SYSTEM_PATH}",
            "HOME": str(self.place.home),
            "LANG": "C.UTF-8",
            "TMUX_TMPDIR": self.place.environ["TMUX_TMPDIR"],
            **claude_variables(self.model),
        }


@pytest.fixture
def runner(rig: Rig, place: Place, example: Path, repository: Path) -> Iterator[Runner]:
    """Give a machine on which nothing of ours is installed."""
    origin = place.root / "origin"
    (origin / ".github/delegate").mkdir(parents=True)
    (origin / ".github/workflows").mkdir()
    shutil.copy(example / "delegate.yml", origin / ".github/workflows")
    for name in ("task.md", "check.sh"):
        shutil.copy(example / name, origin / ".github/delegate")
    git(origin, "init")
    git(origin, "add", ".")
    git(origin, "commit", "-m", "A task for an agent")
    git(place.root, "clone", "-q", origin, place.work)
    with serving(rig.stub()) as model:
        workflow = Workflow(place.work / ".github/workflows/delegate.yml", "delegate")
        yield Runner(workflow, place, model, repository)


def results(place: Place) -> list[str]:
    """Return how the jobs ended whose logs are in the artifact."""
    found = sorted((place.work / "delegate_job_logs").glob("*/result.json"))
    return [json.loads(path.read_text())["outcome"] for path in found]


@with_claude
def test_the_work_is_rejected_mended_accepted_and_kept(runner: Runner) -> None:
    """From installation to a patch: the first try is rejected, the second accepted, each step ends with 0."""
    runner.model.says(Turn(runs="touch HISTORY.md"), *REPORTS)
    runner.model.says(Turn(runs=WRITE), *REPORTS, to="HISTORY.md is not the history")
    steps = runner.run()
    assert {step.name: step.code for step in steps.values() if step.code} == {}, steps
    assert "validation: FAIL (exit 1)\n" in steps[HANDED_OVER].said
    assert "validation: PASS\n" in steps[HANDED_OVER].said
    assert "\x1b" not in steps[HANDED_OVER].said
    assert results(runner.place) == ["accepted"]
    patch = (runner.place.work / "delegate_job_logs/work.patch").read_text()
    assert re.search(r"^\+- [0-9a-f]{7,} A task for an agent$", patch, re.MULTILINE)
    assert "delegate_job_logs" not in patch


@with_claude
def test_what_fails_is_told_and_kept(runner: Runner) -> None:
    """An agent that reports an error fails the step with 1, and its log is in the artifact all the same."""
    runner.model.says(Turn(report="error"), Turn("Sorry."))
    steps = runner.run()
    assert {step.name: step.code for step in steps.values() if step.code} == {HANDED_OVER: 1}, steps
    assert results(runner.place) == ["failed"]


@with_claude
def test_without_the_secret_nothing_is_started(runner: Runner) -> None:
    """A secret that is not there, which GitHub hands on as an empty text, is exit code 7, and said."""
    steps = runner.run(secret="")
    assert steps[HANDED_OVER].code == 7
    assert "error: agent claude-code: no key in the environment" in steps[HANDED_OVER].said
    assert results(runner.place) == []


def test_the_workflow_is_what_its_readme_says(example: Path) -> None:
    """It may only read, leaves no token, names the tested claude, and puts no expression into a script."""
    workflow = Workflow(example / "delegate.yml", "delegate")
    assert workflow.document["permissions"] == {"contents": "read"}
    (checkout,) = [step for step in workflow.steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"] == {"persist-credentials": False}
    pinned = json.loads(PINS.read_text())["dependencies"]["@anthropic-ai/claude-code"]
    assert workflow.inputs["claude_code"] == f"@anthropic-ai/claude-code@{pinned}"
    assert not [step for step in workflow.steps if EXPRESSION.search(step.get("run", ""))]
    (upload,) = [
        step for step in workflow.steps if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    assert (upload["if"], upload["with"]["path"]) == ("always()", "delegate_job_logs")
