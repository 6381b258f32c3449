"""Codex CLI: its argv, its permission modes, its hooks, and the trust that they have for one launch.

Not what its hooks mean (`agent_hooks.codex`), and not its login.

Seen in codex 0.169.0 on Debian 12, unless a line says otherwise.
"""

import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, Dialog, File, Launch, Wanted, missing_program
from delegate_job.agents.instructions import as_argument
from delegate_job.job import JobSpec

_PROGRAM = "codex"
# Approval policies are `on-request` and `never`; `untrusted` and `on-failure` of old versions are errors now.
# In the read-only sandbox a person is asked for each change, a report's line in the log among them.
_MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ask": ("--sandbox", "read-only", "--ask-for-approval", "on-request"),
        "edits": ("--sandbox", "workspace-write", "--ask-for-approval", "on-request"),
        "auto": ("--sandbox", "workspace-write", "--ask-for-approval", "never"),
        "all": ("--dangerously-bypass-approvals-and-sandbox",),
    }
)
# Native event -> seconds after which codex gives the hook up. It waits for each, and counts no more than 3
# for the last two, whatever is said: also in the hash.
_HOOKS: Mapping[str, int] = MappingProxyType(
    {
        "SessionStart": 15,
        "UserPromptSubmit": 15,
        "PermissionRequest": 15,
        "PostToolUse": 15,
        "Stop": 15,
        "Interrupt": 3,
        "SessionEnd": 3,
    }
)
HOME = "CODEX_HOME"
"""The variable by which its user chooses where it keeps its own files."""
KEY = "OPENAI_API_KEY"
_BASE_URL = "OPENAI_BASE_URL"
_FLAGS_LAYER = "/<session-flags>/config.toml"
"""Where codex says that hooks of the command line come from."""


class Codex(NamedTuple):
    """The program `codex`, interactive, with the prompt as its argument, which it submits by itself."""

    name: str = "codex"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `codex [resume] --no-daemon -c … [--add-dir D] [MODE…] [--model X] [ARG…] -- [ID] PROMPT`.

        Without `--no-daemon` an app server outlives the pane and runs a second job's commands with the first
        job's environment. A prompt that begins with `!` would run in a shell; ours does not.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        resumes = bool(context.session_id) and not spec.agent_args
        argv = [_PROGRAM, *(["resume"] if resumes else []), "--no-daemon", *_trust(context), *_hooks(context)]
        argv += [*_log_dir(spec), *_MODES.get(spec.permission_mode or "", ())]
        if spec.model is not None:
            argv += ["--model", spec.model]
        argv += [*spec.agent_args, "--", *([context.session_id] if resumes else []), told]
        if not has_fresh_home(context.environ, ci=spec.ci):
            return Launch(tuple(argv))
        config = File("config.toml", _config_with_a_key(context.environ).encode())
        return Launch(tuple(argv), {HOME: str(context.home)}, home=(config,))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `codex` is missing."""
        hint = "install it with: npm install -g @openai/codex"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def has_fresh_home(environ: Mapping[str, str], *, ci: bool) -> bool:
    """Return whether it gets a home of the job's own: with `--ci` and a key, but where its user chose one."""
    return ci and bool(environ.get(KEY)) and not environ.get(HOME)


def trusted_hash(event: str, command: str, timeout: int) -> str:
    """Return by what codex knows a command hook that its user has reviewed.

    The SHA-256 of the compact JSON with sorted keys that it makes of the hook.
    """
    handler = {"async": False, "command": command, "timeout": timeout, "type": "command"}
    identity = {"event_name": event, "hooks": [handler]}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _config_with_a_key(environ: Mapping[str, str]) -> str:
    """Return the configuration of a home in which no login is asked for: the key stays in the environment.

    Without a `model_provider` that names its variable codex shows its login screen, whatever is in there.
    """
    url = environ.get(_BASE_URL, "")
    url = url if url and _is_toml(url) else "https://api.openai.com/v1"
    return (
        'model_provider = "key"\ncheck_for_update_on_startup = false\n[model_providers.key]\n'
        f'name = "OpenAI"\nbase_url = {_toml(url)}\nwire_api = "responses"\nenv_key = "{KEY}"\n'
    )


def _log_dir(spec: JobSpec) -> tuple[str, ...]:
    """Return what lets reports out of the sandbox when the log directory is not below the work dir.

    Only then: in the read-only sandbox, which may also be the user's own default, `--add-dir` ends codex at
    once ("the effective permissions do not allow additional writable roots", exit 1).
    """
    inside = Path(spec.log_dir).is_relative_to(spec.workdir)
    return () if inside or spec.permission_mode == "ask" else ("--add-dir", spec.log_dir)


def _trust(context: Context) -> tuple[str, ...]:
    """Return the trust of the work dir for this launch alone: codex writes none of it down.

    It would win over the user's own word; so none is given where that is `untrusted`.
    """
    workdir = context.spec.workdir
    if not _is_toml(workdir) or distrusts(context.environ, workdir):
        return ()
    return ("-c", f'projects={{{_toml(workdir)}={{trust_level="trusted"}}}}')


def distrusts(environ: Mapping[str, str], workdir: str) -> bool:
    """Return whether the user's own configuration says that the work dir is not to be trusted."""
    return _is_untrusted(Path(workdir), _users_projects(environ))


def _is_untrusted(workdir: Path, projects: Mapping[str, object]) -> bool:
    """Return the word on the nearest directory that has one; codex asks for the repository's, too."""
    for directory in (workdir, *workdir.parents):
        project = projects.get(str(directory))
        if isinstance(project, dict) and "trust_level" in project:
            return bool(project["trust_level"] == "untrusted")
    return False


def _users_projects(environ: Mapping[str, str]) -> Mapping[str, object]:
    home = environ.get(HOME) or f"{environ.get('HOME', '')}/.codex"
    try:
        projects = tomllib.loads(Path(home, "config.toml").read_text(encoding="utf-8")).get("projects")
    except (OSError, ValueError):  # codex says what is wrong with it
        return {}
    return projects if isinstance(projects, dict) else {}


def _hooks(context: Context) -> list[str]:
    """Return our hooks, and that these very hooks were reviewed: by their hash, which holds no other."""
    if not all(map(_is_toml, context.hook_argv)) or not context.hook_argv:
        return []
    argv: list[str] = []
    trusted = []
    for event, timeout in _HOOKS.items():
        command = shlex.join((*context.hook_argv, event))
        handler = f'{{type="command",command={_toml(command)},timeout={timeout}}}'
        argv += ["-c", f"hooks.{event}=[{{hooks=[{handler}]}}]"]
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()
        key = _toml(f"{_FLAGS_LAYER}:{name}:0:0")
        trusted.append(f'{key}={{trusted_hash="{trusted_hash(name, command, timeout)}"}}')
    return [*argv, "-c", f"hooks.state={{{','.join(trusted)}}}"]


def _is_toml(text: str) -> bool:
    """Return whether a TOML string can say it: no bytes that are not text."""
    return all(not "\ud800" <= character <= "\udfff" for character in text)


def _toml(text: str) -> str:
    """Return a basic string of TOML, which is one of JSON that also escapes DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


DIALOG = Dialog(begins="Would you like to", grants="proceed (y)", approve=b"y")
AGENT: Agent = Codex()
