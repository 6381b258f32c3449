"""The MCP server, spoken to by the SDK's own client over real pipes, with real jobs."""

import asyncio
import json
import os
import pty
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from harness import COMMAND, PATIENCE, Place, wait_until
from traces import has_open

T = TypeVar("T")
SCHEMAS = Path(__file__).resolve().parent.parent / "docs/schemas"
DONE = '"$DJ" publish --event completed --detail done'
ENDLESS = '"$DJ" publish --event started\nread -r line\necho "heard $line"\nexec sleep 600'
TOOLS = {"submit", "wait", "status", "list", "logs", "send", "cancel", "approve", "deny", "answer"}


def talk(place: Place, say: Callable[["Session"], Awaitable[T]], **changes: str) -> T:
    """Start a server as an agent would, say something to it, end it; return what `say` returns."""

    async def run() -> T:
        program = StdioServerParameters(
            command=str(COMMAND), args=["mcp"], env=place.env(changes), cwd=place.work
        )
        with (place.root / "server.log").open("a") as log, anyio.fail_after(3 * PATIENCE):
            async with Client(stdio_client(program, errlog=log)) as client:
                return await say(Session(client))

    return asyncio.run(run())


class Session:
    """A client's calls, which give what a tool gives or fail with what it says."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Return the structured result of a tool."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Return what a tool says that can't do what is asked."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result
        return str(result.content[0].text)  # type: ignore[union-attr] # else the test fails, as it should

    async def reached(self, job: str, **wanted: Any) -> Any:
        """Return a job as soon as it has these values."""
        with anyio.fail_after(PATIENCE):
            while True:
                found = await self.call("status", job=job)
                if wanted.items() <= found.items():
                    return found
                await anyio.sleep(0.1)


def scripted(place: Place, text: str) -> dict[str, Any]:
    """Return the arguments of `submit` for a scripted agent."""
    return {"prompt": "Do the work.", "agent": "command", "command": f"{place.agent(text)} {{prompt_file}}"}


def test_a_job_from_submit_to_its_end(place: Place) -> None:
    """Submit returns at once, wait tells of progress and returns the job as the command line shows it."""
    (place.work / "check.sh").write_text("grep -q done result.txt")
    agent = scripted(place, f"until [ -e heard ]; do sleep 0.1; done\necho done > result.txt\n{DONE}")

    async def say(session: Session) -> tuple[Any, Any, list[str]]:
        told: list[str] = []

        async def heard(progress: float, total: float | None, message: str | None) -> None:
            told.append(message or "")
            (place.work / "heard").touch()

        job = await session.call("submit", **agent, validate="check.sh", attempts=2)
        result = await session.client.call_tool("wait", {"job": job["id"]}, progress_callback=heard)
        return job, result.structured_content, told

    job, ended, told = talk(place, say)
    assert (job["state"], job["attempts"]) == ("registered", 2)
    assert (ended["outcome"], ended["verdict"], ended["exit_code"]) == ("accepted", "passed", 0)
    assert told
    # Its session is closed afterwards, which is one more event.
    shown = json.loads(place.run("status", job["id"], "--json").stdout)
    assert ended | {"sequence": 0} == shown | {"sequence": 0}
    assert (place.log_dir(job["id"]) / "prompt.md").read_text() == "Do the work."


def test_schemas_are_those_of_the_program(place: Place) -> None:
    """Each tool has typed arguments and a typed result; a job's has the fields of its published schema."""

    async def say(session: Session) -> dict[str, Any]:
        return {tool.name: tool for tool in (await session.client.list_tools()).tools}

    tools = talk(place, say)
    assert set(tools) == TOOLS
    job = json.loads((SCHEMAS / "job.schema.json").read_text())["properties"]
    for name, tool in tools.items():
        Draft202012Validator.check_schema(tool.input_schema)
        Draft202012Validator.check_schema(tool.output_schema)
        assert tool.description, name
        if name in {"submit", "wait", "status", "cancel"}:
            assert set(tool.output_schema["properties"]) == set(job), name
    assert tools["status"].annotations.read_only_hint
    assert not tools["cancel"].annotations.read_only_hint


def test_a_wait_that_is_given_up_leaves_the_job(place: Place) -> None:
    """A client that cancels its request ends the wait alone: the job goes on, and the server answers."""
    agent = scripted(place, ENDLESS)

    async def say(session: Session) -> Any:
        job = await session.call("submit", **agent)
        await session.reached(job["id"], last_event="started")
        (server,) = (each.pid for each in place.processes() if each.command.endswith(" mcp"))
        with anyio.move_on_after(1.5):
            await session.call("wait", job=job["id"], timeout=600)
        # While it waits it has the registry open.
        await anyio.to_thread.run_sync(wait_until, lambda: not has_open(server, "registry.db"))
        return await session.call("status", job=job["id"])

    assert talk(place, say)["state"] == "running"


def test_a_wait_is_bounded(place: Place) -> None:
    """A wait that runs out returns the job as it is; one for a person returns when one is needed."""
    agent = scripted(place, f"read -r line\n{ENDLESS}")
    asking = scripted(place, '"$DJ" publish --event permission_required\nexec sleep 600')

    async def say(session: Session) -> tuple[Any, Any]:
        job = await session.call("submit", **agent)
        late = await session.call("wait", job=job["id"], timeout=0.2)
        other = await session.call("submit", **asking)
        return late, await session.call("wait", job=other["id"], timeout=PATIENCE)

    late, waiting = talk(place, say)
    assert late["outcome"] is None
    assert (waiting["state"], waiting["reason"]) == ("waiting", "permission required")


def test_send_logs_list_and_cancel(place: Place) -> None:
    """What is sent reaches the agent, the log tells of it, and cancel ends the job."""
    agent = scripted(place, ENDLESS)

    async def say(session: Session) -> Any:
        job = (await session.call("submit", **agent))["id"]
        await session.reached(job, last_event="started")
        assert (await session.call("send", job=job, text="Ünd weiter."))["sent"]
        pane = Path(place.registry, "jobs", job, "pane.log")
        await anyio.to_thread.run_sync(wait_until, lambda: "heard" in pane.read_text())
        screen = await session.call("logs", job=job, kind="pane")
        assert "Ünd weiter." in "".join(entry["text"] for entry in screen["entries"])
        last = await session.call("logs", job=job, limit=1)
        assert (len(last["entries"]), last["truncated"]) == (1, True)
        assert [each["id"] for each in (await session.call("list"))["jobs"]] == [job]
        assert (await session.call("list", state="done"))["jobs"] == []
        assert await session.refused("approve", job=job) != ""
        return await session.call("cancel", job=job)

    assert talk(place, say)["outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("status", {"job": "nope"}, "no job 'nope'\nhint: `delegate-job list` shows all jobs"),
        ("wait", {"job": "nope"}, "no job 'nope'\nhint: "),
        ("logs", {"job": "--follow"}, "no job '--follow'"),
        ("submit", {"prompt": "x", "agent": "nonesuch"}, "no such agent: nonesuch\nhint: agents are"),
        ("submit", {"prompt": "x", "workdir": "/nonesuch"}, "no such work dir: /nonesuch\nhint: "),
        ("submit", {"prompt": "x", "workdir": "--help"}, "no such work dir: "),
        ("submit", {}, "1 validation error"),
        ("wait", {"job": "x", "timeout": 1e9}, "1 validation error"),
    ],
)
def test_errors_are_the_programs_own(
    place: Place, tool: str, arguments: dict[str, Any], message: str
) -> None:
    """What can't be done is an error of the tool, in the words of the command; the server goes on."""

    async def say(session: Session) -> str:
        said = await session.refused(tool, **arguments)
        assert (await session.call("list"))["jobs"] == []
        return said

    said = talk(place, say)
    assert message in said
    assert "Traceback" not in said + (place.root / "server.log").read_text()


@pytest.mark.parametrize("branch", ["", "own-branch"])
def test_a_worktree_for_the_job(place: Place, branch: str) -> None:
    """A job in a worktree of its own works there, on the branch that was named."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(place.work)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        assert place.spawn(*git, *words).wait(20) == 0
    agent = scripted(place, f"git branch --show-current > branch\n{DONE}")

    async def say(session: Session) -> Any:
        job = await session.call("submit", **agent, worktree=branch)
        return await session.call("wait", job=job["id"], until="done")

    job = talk(place, say)
    assert job["workdir"] != str(place.work)
    on = Path(job["workdir"], "branch").read_text().strip()
    assert on == branch if branch else job["id"] in on


def test_a_person_is_told_what_it_is_for(place: Place) -> None:
    """Started by hand on a terminal, it says so instead of waiting for messages."""
    controller, terminal = pty.openpty()
    said = place.start("mcp", stdin=terminal)
    _, error = said.communicate(timeout=30)
    assert (said.returncode, error.count("\n")) == (2, 2)
    assert error.startswith("error: mcp speaks with a program, not with a person\nhint: ")
    os.close(controller)
    os.close(terminal)


@pytest.mark.parametrize("variable", [True, False], ids=["by its variable", "by descent"])
def test_an_agent_is_refused_what_concerns_its_own_job(place: Place, *, variable: bool) -> None:
    """A server that an agent starts knows whose it is, though the agent gave it no environment."""
    client = place.agent(
        "#!python\n"
        "import json, os, subprocess, sys\n"
        f"environ = dict(os.environ) if {variable} else {place.environ!r}\n"
        "job = os.environ['DELEGATE_JOB_ID']\n"
        f"server = subprocess.Popen([{str(COMMAND)!r}, 'mcp'], stdin=-1, stdout=-1, text=True, env=environ)\n"
        "def say(message):\n"
        "    server.stdin.write(json.dumps({'jsonrpc': '2.0', **message}) + '\\n'); server.stdin.flush()\n"
        "def hear(): return json.loads(server.stdout.readline())\n"
        "say({'id': 1, 'method': 'initialize', 'params': {'protocolVersion': '2025-06-18',"
        " 'capabilities': {}, 'clientInfo': {'name': 'x', 'version': '1'}}})\n"
        "hear()\n"
        "say({'method': 'notifications/initialized'})\n"
        "say({'id': 2, 'method': 'tools/call', 'params': {'name': 'approve', 'arguments': {'job': job}}})\n"
        "open('answer.json', 'w').write(json.dumps(hear()))\n"
        "server.stdin.close(); server.wait()\n"
        f"subprocess.run([{str(COMMAND)!r}, 'publish', '--event', 'completed', '--detail', 'x'])\n"
    )
    done = place.run("submit", "--agent", "command", "--command", f"{client}", "--prompt", "x")
    assert done.returncode == 0, done
    result = json.loads((place.work / "answer.json").read_text())["result"]
    assert result["isError"], result
    assert "an agent cannot approve its own job" in result["content"][0]["text"]


def test_without_its_packages(place: Place) -> None:
    """Without the extra it is one line, a hint and exit code 7."""
    (place.root / "absent").mkdir()
    (place.root / "absent/mcp.py").write_text("raise ModuleNotFoundError(name='mcp')")
    said = place.run("mcp", env={"PYTHONPATH": str(place.root / "absent")})
    assert (said.returncode, said.stdout) == (7, "")
    assert said.stderr == (
        "error: the MCP server needs the package mcp, which is not installed\n"
        "hint: pip install 'delegate-job[mcp]'\n"
    )


def test_stdout_holds_messages_alone(place: Place) -> None:
    """Also what is no message gets a message for an answer, and the end of stdin is the server's end."""
    said = place.run("mcp", input="nonsense\n{}\n")
    assert said.returncode == 0, said
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in said.stdout.splitlines())
