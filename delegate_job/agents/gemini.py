"""Gemini CLI: its argv, its permission modes, and the settings of one run, with its hooks.

Not what its hooks mean (`agent_hooks.gemini`), and not its login.

Seen in gemini-cli 0.61.0 on Debian 12, unless a line says otherwise.
"""

import json
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, Dialog, File, Launch, Wanted, missing_program
from delegate_job.agents.instructions import as_argument

_PROGRAM = "gemini"
_SETTINGS = "gemini-settings.json"
_MODES: Mapping[str, str] = MappingProxyType(
    {"ask": "default", "edits": "auto_edit", "auto": "yolo", "all": "yolo"}
)
_HOME = "GEMINI_CLI_HOME"
_KEY = "GEMINI_API_KEY"
# With the key in the environment alone it asks what kind of login there is.
_WITH_A_KEY: Mapping[str, object] = MappingProxyType(
    {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False},
    }
)
_HOOKS = ("SessionStart", "BeforeAgent", "AfterTool", "Notification", "AfterAgent", "SessionEnd")
_HOOK_TIMEOUT = 15_000
"""Milliseconds after which gemini gives a hook up; it waits for each."""


class Gemini(NamedTuple):
    """The program `gemini`, interactive, with the prompt as an option's value, which it submits by itself."""

    name: str = "gemini"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `gemini --skip-trust [--approval-mode M] [--model X] [ARG…] -i PROMPT`.

        `--skip-trust` trusts the work dir for this launch alone. A prompt that begins with `/` would run a
        command of its own; ours does not. It survives a hangup: its end is the runner's to make.

        Our settings are the system's defaults, which those of the user and of an administrator win over. It
        heeds them only where root alone may write, the file's directories among it ("Skipping system defaults
        file …" on the screen): without them there are no hooks, and the agent's own reports are all. With
        `--ci` and a key they are the user settings of a home of the job's, which it heeds anywhere.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM, "--skip-trust"]
        if spec.permission_mode is not None:
            argv += ["--approval-mode", _MODES[spec.permission_mode]]
        if spec.model is not None:
            argv += ["--model", spec.model]
        if spec.ci and context.environ.get(_KEY) and not context.environ.get(_HOME):
            known = File(".gemini/settings.json", json.dumps({**_settings(context), **_WITH_A_KEY}).encode())
            return Launch((*argv, *spec.agent_args, "-i", told), {_HOME: str(context.home)}, home=(known,))
        settings = File(_SETTINGS, json.dumps(_settings(context), indent=2).encode())
        env = {"GEMINI_CLI_SYSTEM_DEFAULTS_PATH": str(context.agent_dir / _SETTINGS)}
        return Launch((*argv, *spec.agent_args, "-i", told), env, (settings,))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `gemini` is missing."""
        hint = "install it with: npm install -g @google/gemini-cli"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def _settings(context: Context) -> dict[str, object]:
    if not context.hook_argv:
        return {}
    return {"hooks": {event: [{"hooks": [_hook(context, event)]}] for event in _HOOKS}}


def _hook(context: Context, event: str) -> dict[str, object]:
    command = shlex.join((*context.hook_argv, event))
    return {"name": f"delegate-job {event}", "type": "command", "command": command, "timeout": _HOOK_TIMEOUT}


DIALOG = Dialog(begins="│ ? ", grants="1. Allow once", approve=b"1")
AGENT: Agent = Gemini()
