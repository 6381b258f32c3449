"""The real agents from npm: where they are, and a home for each in which no dialog opens.

Not the model they talk to: that is a stub. Versions stand in tests/npm/package.json alone.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from agents_e2e.model_stub import ModelStub, Turn
from agents_e2e.stub_anthropic import AnthropicStub
from agents_e2e.stub_gemini import GeminiStub
from agents_e2e.stub_openai import OpenAIStub
from harness import SHORT_TEMP, Place, in_ci, job_id, wait_until

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BIN = REPOSITORY / ".cache/agents/node_modules/.bin"
PINS = REPOSITORY / "tests/npm/package.json"
DEADLINE = 100.0
"""Seconds that a whole job of an agent may take on a busy machine."""
ASKS = Turn(runs="touch asked")


@dataclass(frozen=True)
class Rig:
    """How one agent is made to talk to a stub, and which options let it work without a person."""

    agent: str
    program: str
    package: str
    stub: Callable[[], ModelStub]
    seed: Callable[[Place, ModelStub], Mapping[str, str]] = field(repr=False)
    """Writes the agent's own configuration into the place's home; returns what its environment gets."""
    unattended: tuple[str, ...] = ()
    """Options of submit with which the agent runs a command without asking."""
    asking: tuple[str, ...] = ()
    """Options of submit with which the agent asks a person before it runs `asks`."""
    asks: Turn = ASKS
    dialog: str = ""
    """What its dialog shows."""
    stops_at: str = ""
    """What it shows after one Escape when it takes a second to interrupt a turn."""
    yes: str = "Enter"
    """The key that grants what is asked for; Escape refuses."""
    under: Path = SHORT_TEMP
    """Where its places lie."""

    @property
    def version(self) -> str:
        """The version that is installed for tests."""
        return str(json.loads(PINS.read_text())["dependencies"][self.package])

    def missing(self) -> str | None:
        """Say what is needed and not there."""
        if not (BIN / self.program).exists():
            return f"needs {self.package} {self.version} from npm: run scripts/get-agents.sh"
        return None


@dataclass
class RealAgent:
    """A real agent in a place, with a stub for a model; the test submits jobs to it."""

    rig: Rig
    place: Place
    model: ModelStub

    def options(self, *options: str | Path, prompt: str | Path) -> list[str | Path]:
        """Return the arguments of submit; options of the test win over those of the rig."""
        given = ["--prompt-file" if isinstance(prompt, Path) else "--prompt", prompt]
        bounds = ["--timeout", str(DEADLINE), "--close"]
        return ["submit", "--agent", self.rig.agent, *given, *bounds, *self.rig.unattended, *options]

    def submit(self, *options: str | Path, prompt: str | Path = "Make it so.") -> CompletedProcess[str]:
        """Run a job to its end."""
        return self.place.run(*self.options(*options, prompt=prompt), timeout=DEADLINE + 15)

    def start(self, *options: str | Path, prompt: str | Path = "Make it so.") -> str:
        """Start a job in the background; return its id."""
        done = self.place.run(*self.options("--detach", *options, prompt=prompt))
        assert done.returncode == 0, done
        return job_id(done.stdout)

    def wait(self, job: str) -> int:
        """Wait for a job's end; return its exit code."""
        return self.place.run("wait", job, "--timeout", str(DEADLINE), timeout=DEADLINE + 15).returncode

    def events(self, job: str) -> list[dict[str, Any]]:
        """Return what happened, as `events.jsonl` of the job has it."""
        path = self.place.registry / "jobs" / job / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.strip()]

    def kinds(self, job: str) -> list[str]:
        """Return the kinds of what happened."""
        return [str(event["kind"]) for event in self.events(job)]

    def sessions(self, job: str) -> set[str]:
        """Return the agent's own sessions that its hooks have told of."""
        told = (event["data"] for event in self.events(job) if event["source"] == "hook")
        return {data["session_id"] for data in told if "session_id" in data}

    def await_kind(self, job: str, kind: str, count: int = 1) -> dict[str, Any]:
        """Return the event of a kind as soon as there are `count` of it."""

        def found() -> dict[str, Any] | None:
            events = [event for event in self.events(job) if event["kind"] == kind]
            return events[-1] if len(events) >= count else None

        return wait_until(found, DEADLINE, f"{kind} in {self.kinds(job)}") or {}

    def screen(self, job: str) -> str:
        """Return what the job's session shows."""
        return self.place.tmux("capture-pane", "-p", "-t", f"=dj-{job}:").stdout

    def answer(self, job: str, key: str) -> None:
        """Press a key as soon as the agent's dialog is on the screen; again while the dialog stays."""
        self.press_until_gone(job, key, self.rig.dialog)

    def press_until_gone(self, job: str, key: str, text: str) -> None:
        """Press a key when a text is on the screen, until it is gone: codex draws before it reads keys."""
        wait_until(lambda: text in self.screen(job), DEADLINE, f"{text} on the screen")
        for _ in range(5):
            self.press(job, key)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: text not in self.screen(job), 3, f"the end of {text}")
                return

    def interrupt(self, job: str) -> None:
        """Interrupt the agent's turn, which is on the screen, as a person who is attached does."""
        self.press(job, "Escape")
        if again := self.rig.stops_at:
            # Two at once are another key, to it: Alt and Escape.
            wait_until(lambda: again in self.screen(job), DEADLINE, f"{again} on the screen")
            self.press(job, "Escape")

    def press(self, job: str, *keys: str) -> None:
        """Press keys in the job's session, as a person who is attached does."""
        done = self.place.tmux("send-keys", "-t", f"=dj-{job}:", *keys)
        assert done.returncode == 0, done


def need(rig: Rig) -> None:
    """Skip at home where the agent is missing, fail in CI."""
    reason = rig.missing()
    if reason and in_ci():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def settle(rig: Rig, place: Place, model: ModelStub) -> RealAgent:
    """Give the agent its home in this place."""
    node = shutil.which("node")
    path = [str(BIN), *([str(Path(node).parent)] if node else []), place.environ["PATH"]]
    place.environ.update(PATH=":".join(path), TERM="xterm-256color", COLORTERM="truecolor")
    # Agents leave files in their temporary directory, which is no fault of ours.
    temporary = place.root / "agents-tmp"
    temporary.mkdir(mode=0o700)
    place.environ["TMPDIR"] = str(temporary)
    place.environ.update(rig.seed(place, model))
    return RealAgent(rig, place, model)


# -- each one's own home


def _claude(place: Place, model: ModelStub) -> Mapping[str, str]:
    key = place.environ["ANTHROPIC_API_KEY"]
    trusted = {"hasTrustDialogAccepted": True}
    known = {
        "hasCompletedOnboarding": True,
        "projects": {str(place.work): trusted},
        "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
    }
    (place.home / ".claude.json").write_text(json.dumps(known))
    return claude_variables(model)


def claude_variables(model: ModelStub) -> Mapping[str, str]:
    """Return by what claude finds the stub, and leaves the rest of the world alone."""
    return {
        "ANTHROPIC_BASE_URL": model.url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",  # with the usual 10 an error takes three minutes
        "DISABLE_AUTOUPDATER": "1",
    }


def _codex(place: Place, model: ModelStub) -> Mapping[str, str]:
    home = place.home / ".codex"
    home.mkdir()
    (home / "config.toml").write_text(
        'model = "stub"\nmodel_provider = "stub"\ncheck_for_update_on_startup = false\n'
        f'[model_providers.stub]\nname = "stub"\nbase_url = "{model.url}/v1"\nwire_api = "responses"\n'
        'env_key = "OPENAI_API_KEY"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
    )
    return {}


def _gemini(place: Place, model: ModelStub) -> Mapping[str, str]:
    home = place.home / ".gemini"
    home.mkdir()
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (home / "settings.json").write_text(json.dumps(settings))
    return {"GOOGLE_GEMINI_BASE_URL": model.url}


def _opencode(place: Place, model: ModelStub) -> Mapping[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{model.url}/v1", "apiKey": "dummy"},
        "models": {"m1": {"name": "m1", "tool_call": True}},
    }
    config = {"provider": {"stub": provider}, "model": "stub/m1", "autoupdate": False, "share": "disabled"}
    directory = place.home / ".config/opencode"
    directory.mkdir(parents=True)
    (directory / "opencode.json").write_text(json.dumps(config))
    _as_after_a_first_start(directory)
    # Its spinner takes a third of a core, also while it waits for a person (1.18.33).
    state = place.home / ".local/state/opencode"
    state.mkdir(parents=True)
    (state / "kv.json").write_text('{"animations_enabled": false}')
    return {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}


def _as_after_a_first_start(directory: Path) -> None:
    """Keep OpenCode from installing its types for plugins from npm, which takes 7 s and a network.

    1.18.33 does so unless there is a `node_modules` and the lock file names all that package.json does.
    """
    dependencies = {"dependencies": {"@opencode-ai/plugin": "*"}}
    package = directory / "node_modules/@opencode-ai/plugin"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    (directory / "package.json").write_text(json.dumps(dependencies))
    lock = {"lockfileVersion": 3, "packages": {"": dependencies}}
    (directory / "package-lock.json").write_text(json.dumps(lock))


CLAUDE = Rig(
    "claude-code",
    "claude",
    "@anthropic-ai/claude-code",
    AnthropicStub,
    _claude,
    ("--permission-mode", "edits"),
    asking=("--permission-mode", "ask"),
    dialog="Do you want to proceed?",
)
CODEX = Rig(
    "codex",
    "codex",
    "@openai/codex",
    OpenAIStub,
    _codex,
    ("--permission-mode", "auto"),
    asking=("--permission-mode", "edits"),
    asks=Turn(runs="touch asked", escalate=True),
    dialog="Would you like to run",
    yes="y",
)
GEMINI = Rig(
    "gemini",
    "gemini",
    "@google/gemini-cli",
    GeminiStub,
    _gemini,
    ("--permission-mode", "all"),
    asking=("--permission-mode", "ask"),
    dialog="Allow execution of",
)
OPENCODE = Rig(
    "opencode",
    "opencode",
    "opencode-ai",
    OpenAIStub,
    _opencode,
    ("--permission-mode", "all"),
    asking=("--permission-mode", "ask"),
    dialog="Permission required",
    stops_at="esc again to interrupt",
)
RIGS = (CLAUDE, CODEX, GEMINI, OPENCODE)
