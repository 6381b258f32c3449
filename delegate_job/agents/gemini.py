"""Gemini CLI: its argv, its permission modes, and the settings of one run, with its hooks.

Not what its hooks mean (`agent_hooks.gemini`), and not its login.

Seen in gemini-cli 0.61.0 on Debian 12, unless a line says otherwise.
"""

import json
import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import (
    AS_IT_IS,
    Agent,
    Context,
    Dialog,
    File,
    Launch,
    Link,
    Wanted,
    missing_program,
)
from delegate_job.agents.instructions import as_argument

_PROGRAM = "gemini"
_SETTINGS = "gemini-settings.json"
_OURS = "delegate-job "
_USERS = ".gemini/settings.json"
_BESIDE = (".agents", ".env")
"""What it looks for in a home outside `.gemini`."""
_MODES: Mapping[str, str] = MappingProxyType(
    {"ask": "default", "edits": "auto_edit", "auto": "yolo", "all": "yolo"}
)
HOME = "GEMINI_CLI_HOME"
"""The variable by which its user chooses where it keeps its own files: in `.gemini` there."""
KEY = "GEMINI_API_KEY"
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

        Our hooks are in the system's defaults, which those of the user and of an administrator win over. It
        heeds them only where root alone may write, the file's directories among it ("Skipping system defaults
        file …" on the screen). Elsewhere it gets a home of the job's own (`GEMINI_CLI_HOME`), which holds the
        user's settings with our hooks, and links to all else; with `--ci` and a key, nothing of the user's.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM, "--skip-trust"]
        if spec.permission_mode is not None:
            argv += ["--approval-mode", _MODES[spec.permission_mode]]
        if spec.model is not None:
            argv += ["--model", spec.model]
        argv += [*spec.agent_args, "-i", told]
        if has_fresh_home(context.environ, ci=spec.ci):
            return _at_home(argv, context, {**_settings(context), **_WITH_A_KEY})
        users = Path(context.environ.get(HOME) or context.environ.get("HOME", "/"))
        settings = None if _is_roots(context.agent_dir) else _users_settings(users)
        if settings is not None and context.hook_argv:
            return _at_home(argv, context, _with_hooks(settings, context), _links(users))
        defaults = File(_SETTINGS, json.dumps(_settings(context), indent=2).encode())
        env = {"GEMINI_CLI_SYSTEM_DEFAULTS_PATH": str(context.agent_dir / _SETTINGS)}
        return Launch(tuple(argv), env, (defaults,))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `gemini` is missing."""
        hint = "install it with: npm install -g @google/gemini-cli"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def has_fresh_home(environ: Mapping[str, str], *, ci: bool) -> bool:
    """Return whether nothing in its home is its user's: with `--ci` and a key, but where they chose one."""
    return ci and bool(environ.get(KEY)) and not environ.get(HOME)


def _settings(context: Context) -> dict[str, object]:
    return {"hooks": _hooks(context)} if context.hook_argv else {}


def _hooks(context: Context) -> dict[str, list[object]]:
    return {event: [{"hooks": [_hook(context, event)]}] for event in _HOOKS}


def is_ours(group: object) -> bool:
    """Return whether a group of hooks, as settings have it, is one that `Launch` describes."""
    hooks = group.get("hooks") if isinstance(group, dict) else None
    first = hooks[0] if isinstance(hooks, list) and hooks else None
    return isinstance(first, dict) and str(first.get("name")).startswith(_OURS)


def _hook(context: Context, event: str) -> dict[str, object]:
    command = shlex.join((*context.hook_argv, event))
    return {"name": f"{_OURS}{event}", "type": "command", "command": command, "timeout": _HOOK_TIMEOUT}


# -- a home of the job's


def _at_home(
    argv: list[str], context: Context, settings: Mapping[str, object], links: Sequence[Link] = ()
) -> Launch:
    file = File(_USERS, json.dumps(settings, indent=2).encode())
    return Launch(tuple(argv), {HOME: str(context.home)}, home=(file, *links))


def _is_roots(directory: Path) -> bool:
    """Return whether only root may write there, and above, as gemini sees it: then it heeds our defaults."""
    for each in (directory, *directory.parents):
        try:
            status = each.stat()
        except OSError:
            continue  # It is made when the job starts, by us.
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return os.geteuid() == 0


def _users_settings(home: Path) -> dict[str, object] | None:
    """Return the user's own settings; None when they cannot be read, such as with comments: they stay."""
    try:
        settings = json.loads((home / _USERS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def _with_hooks(settings: dict[str, object], context: Context) -> dict[str, object]:
    users = settings.get("hooks")
    hooks = dict(users) if isinstance(users, dict) else {}
    for event, ours in _hooks(context).items():
        theirs = hooks.get(event)
        hooks[event] = [*(theirs if isinstance(theirs, list) else []), *ours]
    return {**settings, "hooks": hooks}


def _links(home: Path) -> list[Link]:
    """Return links to all that gemini looks for in a home: login, extensions, commands, sessions, memory."""
    try:
        names = sorted(os.listdir(home / ".gemini"))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        names = []
    wanted = [f".gemini/{name}" for name in names if name != "settings.json" and not name.endswith(".lock")]
    return [Link(name, home / name) for name in (*wanted, *_BESIDE) if (home / name).exists()]


DIALOG = Dialog(begins="│ ? ", grants="1. Allow once", approve=b"1")
AGENT: Agent = Gemini()
