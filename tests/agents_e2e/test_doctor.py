"""What `doctor` proves with each real agent, and that a hook of ours which is broken or off harms none.

The hook is broken where it can be in truth: the Python that it is run with.
"""

import json
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents_e2e.model_stub import Turn
from agents_e2e.real_agents import DEADLINE, RealAgent
from harness import COMMAND

pytestmark = pytest.mark.timeout(300)

REPORTS = (Turn(runs="touch made"), Turn(report="completed"), Turn("Done."))
FAILS = "echo broken >&2; exit 1"
HANGS = "[[ $last =~ ^({events})$ ]] && exec sleep 300"
EVENTS = {
    "claude-code": "SessionStart|UserPromptSubmit",
    "codex": "SessionStart",
    "gemini": "BeforeAgent",
    "opencode": "session.created",
}
"""The first hooks of each agent, of claude also the first that it waits for."""


def found(agent: RealAgent, *command: str | Path) -> dict[str, dict[str, Any]]:
    """Return what `doctor` finds, by name; it asks no model."""
    asked = len(agent.model.asked)
    argv = (*(command or (COMMAND,)), "doctor", agent.rig.agent, "--json")
    shown = _run(agent, *argv)
    assert shown.returncode == 0, shown
    assert len(agent.model.asked) == asked
    assert "dummy" not in shown.stdout
    return {each["what"]: each for each in json.loads(shown.stdout)["findings"]}


def does_its_work(agent: RealAgent, *command: str | Path) -> list[str]:
    """Let the agent do a job to its end, which it must reach; return what sent the events of it."""
    agent.model.says(*REPORTS)
    argv = (*(command or (COMMAND,)), *agent.options(prompt="Make it so."))
    done = _run(agent, *argv)
    assert done.returncode == 0, done
    assert (agent.place.work / "made").exists()
    return [str(event["source"]) for event in agent.events(agent.place.jobs()[-1])]


def _run(agent: RealAgent, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    process = agent.place.spawn(*argv)
    stdout, stderr = process.communicate(timeout=DEADLINE + 15)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def python_that(agent: RealAgent, does: str) -> tuple[Path, str, str]:
    """Return a delegate-job whose Python does this instead of a hook; `$last` is the native event's name."""
    prefix = agent.place.root / "broken"
    packages = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    ours = site.getsitepackages()[0]
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    base = Path(sys.base_prefix, "bin")
    (prefix / "pyvenv.cfg").write_text(f"home = {base}\n")
    python = prefix / "bin/python"
    python.parent.mkdir()
    real = base / f"python{sys.version_info.major}.{sys.version_info.minor}"
    python.write_text(
        f"#!/bin/bash\nlast=${{*: -1}}\n"
        f'if [[ "$*" == */hook.py* ]]; then {does}; fi\nexec -a "$0" {real} "$@"\n'
    )
    python.chmod(0o755)
    return python, "-m", "delegate_job"


def files_of(directory: Path) -> dict[Path, bytes]:
    """Return every file below a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_doctor_sees_the_hooks_run(agent: RealAgent) -> None:
    """The agent is seen to run our hook, and no model is asked; its user's files stay as they are."""
    before = files_of(agent.place.home)
    seen = found(agent)
    assert files_of(agent.place.home) == before
    assert {name: each["status"] for name, each in seen.items()} == dict.fromkeys(seen, "ok")
    assert "it ran our" in seen["hooks"]["text"]
    assert seen[agent.rig.agent]["text"].startswith(f"{agent.rig.version}, ")
    assert not list((agent.place.registry / "jobs").glob("*/home"))


def test_doctor_tries_one_that_was_never_started(agent: RealAgent) -> None:
    """It is told what its first start will do, and its hooks are tried without that."""
    shutil.rmtree(agent.place.home / ".config/opencode/node_modules")
    seen = found(agent)
    assert (seen["first start"]["status"], seen["hooks"]["status"]) == ("warning", "ok")
    assert not (agent.place.home / ".config/opencode/node_modules").exists()


def test_a_hook_that_fails_does_no_harm(agent: RealAgent) -> None:
    """Hooks that fail are as if there were none: the work is done and counts, and `doctor` says so."""
    broken = python_that(agent, FAILS)
    assert "hook" not in does_its_work(agent, *broken)
    hook = found(agent, *broken)["hook"]
    assert (hook["status"], hook["text"]) == ("warning", "the command of a hook ended with 1: broken")


def test_a_hook_that_hangs_does_no_harm(agent: RealAgent) -> None:
    """The agent gives up hooks that do not end: the work is done and counts, and `doctor` says so."""
    broken = python_that(agent, HANGS.format(events=EVENTS[agent.rig.agent]))
    does_its_work(agent, *broken)
    hook = found(agent, *broken)["hook"]
    assert hook["status"] == "warning"
    assert "had not ended after" in hook["text"]


def test_hooks_that_are_off_do_no_harm(agent: RealAgent) -> None:
    """Without hooks, by a word of the user's, the work is done and counts, and `doctor` says so."""
    place = agent.place
    if agent.rig.agent == "claude-code":
        place.environ["CLAUDE_CODE_SIMPLE"] = "1"
    elif agent.rig.agent == "codex":
        config = place.home / ".codex/config.toml"
        config.write_text(f"{config.read_text()}\n[features]\nhooks = false\n")
    elif agent.rig.agent == "gemini":
        settings = place.home / ".gemini/settings.json"
        settings.write_text(
            json.dumps({**json.loads(settings.read_text()), "hooksConfig": {"enabled": False}})
        )
    else:
        place.environ["OPENCODE_PURE"] = "1"
    assert "hook" not in does_its_work(agent)
    hooks = found(agent)["hooks"]
    assert hooks["status"] == "warning"
    assert "switched off by" in hooks["text"] or "ran no hook of ours" in hooks["text"]
