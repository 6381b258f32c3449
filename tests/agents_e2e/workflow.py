"""A job of a GitHub workflow, run as GitHub's runner would: each `run` in its shell, with its variables.

Not its actions: `uses` is what a test has to have done before. Of its expressions only names, whose values
the test knows.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from harness import Place

SHELLS = {"bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail")}
"""docs.github.com, workflow syntax, `jobs.<job_id>.steps[*].shell`."""
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
STEP_TIMEOUT = 120.0
"""Seconds for one `run` on a busy machine."""


class Step(NamedTuple):
    """What came of a step; skipped ones are not told of."""

    name: str
    code: int
    said: str


class Workflow:
    """One job of a workflow file, on a machine that a place and a PATH are."""

    def __init__(self, path: Path, job: str) -> None:
        # YAML 1.1, which PyYAML reads, takes the key `on` for a truth.
        self.document: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.job: dict[str, Any] = self.document["jobs"][job]
        self.steps: list[dict[str, Any]] = self.job["steps"]

    @property
    def inputs(self) -> dict[str, str]:
        """What is asked for when it is dispatched, with the defaults."""
        asked = self.document[True]["workflow_dispatch"]["inputs"]
        return {name: each["default"] for name, each in asked.items()}

    def run(self, place: Place, values: Mapping[str, str], environ: Mapping[str, str]) -> list[Step]:
        """Run all steps in the place's work dir; `values` are those of expressions."""
        machine = _Machine(place, values, environ)
        done: list[Step] = []
        for step in self.steps:
            is_due = all(not each.code for each in done) or step.get("if") == "always()"
            if "run" in step and is_due:
                shell = step.get("shell") or self.job["defaults"]["run"]["shell"]
                done.append(machine.run(step, SHELLS[shell]))
        return done


class _Machine:
    """What one step leaves for the next."""

    def __init__(self, place: Place, values: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self.place, self.values = place, values
        self.files = place.root / "runner"
        (self.files / "temp").mkdir(parents=True)
        names = ("GITHUB_PATH", "GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
        own = {name: str(self.files / name) for name in names}
        for path in own.values():
            Path(path).touch()
        self.environ = {
            **environ,
            **own,
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(place.work),
            "RUNNER_TEMP": str(self.files / "temp"),
        }

    def run(self, step: Mapping[str, Any], shell: tuple[str, ...]) -> Step:
        script = self.files / "step.sh"
        script.write_text(self._filled(step["run"]), encoding="utf-8")
        given = {name: self._filled(value) for name, value in step.get("env", {}).items()}
        # None unsets: the place's own variables are not the runner's.
        bare = dict.fromkeys(self.place.environ)
        environ = {**bare, **self.environ, "PATH": self._path(), **given}
        process = self.place.spawn(*shell, script, env=environ)
        said, warned = process.communicate(timeout=STEP_TIMEOUT)
        return Step(step["name"], process.returncode, said + warned)

    def _path(self) -> str:
        added = Path(self.environ["GITHUB_PATH"]).read_text(encoding="utf-8").splitlines()
        return ":".join([*reversed(added), self.environ["PATH"]])

    def _filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.values[found[1]], text)
