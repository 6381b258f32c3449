"""The real agents start the MCP server and take its tools."""

import json
import threading
from pathlib import Path

import pytest

from agents_e2e.model_stub import Turn
from agents_e2e.real_agents import DEADLINE, RealAgent
from harness import COMMAND, wait_until

pytestmark = pytest.mark.timeout(240)

ADD = {
    "claude-code": ("claude", "mcp", "add", "--scope", "user", "delegate-job", "--"),
    "codex": ("codex", "mcp", "add", "delegate-job", "--"),
    "gemini": ("gemini", "mcp", "add", "--scope", "user", "delegate-job"),
}


def add(agent: RealAgent, *command: str) -> None:
    """Make a server known to an agent, as docs/mcp.md says."""
    if agent.rig.agent == "opencode":
        path = agent.place.home / ".config/opencode/opencode.json"
        known = json.loads(path.read_text())
        known["mcp"] = {"delegate-job": {"type": "local", "command": command}}
        path.write_text(json.dumps(known))
        return
    added = agent.place.spawn(*ADD[agent.rig.agent], *command)
    said = added.communicate(timeout=60)
    assert added.returncode == 0, said


def overheard(agent: RealAgent) -> tuple[Path, Path]:
    """Add the server with an ear at either end; return the files of what it is asked and what it answers."""
    asked, answered = agent.place.root / "asked.log", agent.place.root / "answered.log"
    add(agent, str(agent.place.agent(f"tee {asked} | {COMMAND} mcp | tee {answered}")))
    return asked, answered


def test_takes_the_tools_of_the_mcp_server(agent: RealAgent) -> None:
    """An agent that was told of the server starts it, asks for its tools and is given them."""
    asked, answered = overheard(agent)
    released = threading.Event()
    agent.model.says(Turn(report="completed", hold=released), Turn("Done."))
    job = agent.start()
    wait_until(lambda: answered.exists() and '"name":"submit"' in answered.read_text(), DEADLINE, "its tools")
    assert '"tools/list"' in asked.read_text()
    released.set()
    assert agent.wait(job) == 0
