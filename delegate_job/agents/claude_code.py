"""Claude Code: its argv, its permission modes, and the settings of one run.

Not its hooks, and not its first-run dialogs: trust of the work dir is the user's to give.

Seen in claude-code 2.1.330 on Debian 12, unless a line says otherwise.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import Agent, Context, File, Launch, missing_program
from delegate_job.agents.instructions import as_argument, report_command

_PROGRAM = "claude"
_SETTINGS = "claude-settings.json"
_MODES: Mapping[str, str] = MappingProxyType(
    {"ask": "manual", "edits": "acceptEdits", "auto": "auto", "all": "bypassPermissions"}
)
# What may stand in `Bash(…:*)` and still mean itself: parentheses, `*` and quotes do not.
_PLAIN = re.compile(r"[\w./@%+=, -]+", re.ASCII)


class ClaudeCode(NamedTuple):
    """The program `claude`, interactive, with the prompt as its argument, which it submits by itself."""

    name: str = "claude-code"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `claude --settings F [--permission-mode M] [--model X] [ARG…] -- PROMPT`.

        The `--` is needed: options that take several values (`--allowedTools`, `--add-dir`) would eat the
        prompt. A prompt whose first character is `/` would run as a slash command; ours begins with a header.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM, "--settings", str(context.agent_dir / _SETTINGS)]
        if spec.permission_mode is not None:
            argv += ["--permission-mode", _MODES[spec.permission_mode]]
        if spec.model is not None:
            argv += ["--model", spec.model]
        settings = File(_SETTINGS, json.dumps(_settings(context), indent=2).encode())
        return Launch((*argv, *spec.agent_args, "--", told), files=(settings,))

    def problem(
        self, environ: Mapping[str, str], workdir: str, permission_mode: str | None = None, /
    ) -> str | None:
        """Say whether `claude` is missing, or refuses what is asked: it bypasses no permissions as root.

        As root it exits 1 with "cannot be used with root/sudo", unless `IS_SANDBOX=1`.
        """
        if permission_mode == "all" and os.geteuid() == 0 and environ.get("IS_SANDBOX") != "1":
            return "claude refuses --permission-mode all as root; use auto, or IS_SANDBOX=1 in a container"
        hint = "install it with: npm install -g @anthropic-ai/claude-code"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def _settings(context: Context) -> dict[str, object]:
    """Return what `--settings` adds to the user's own: reporting needs no permission, and nothing else."""
    settings: dict[str, object] = {}
    report = report_command(context.publish_argv, context.spec.id)
    if _PLAIN.fullmatch(shlex.join(context.publish_argv)):
        # A prefix rule is no hole: `… && other` still asks in `manual` and is denied in `dontAsk`.
        settings["permissions"] = {"allow": [f"Bash({report}:*)"]}
    if context.spec.permission_mode == "all":
        # The user chose it by name; without this a dialog asks again, with "No, exit" selected.
        settings["skipDangerousModePermissionPrompt"] = True
    return settings


AGENT: Agent = ClaudeCode()
