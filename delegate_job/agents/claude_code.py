"""Claude Code: its argv, its permission modes, and the settings of one run, with its hooks.

Not what its hooks mean (`agent_hooks.claude_code`). Its first-run dialogs are answered with `--ci` alone, in
a home of the job's own; else trust of the work dir is the user's to give.

Seen in claude-code 2.1.330 on Debian 12, unless a line says otherwise.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, File, Launch, Wanted, missing_program
from delegate_job.agents.instructions import as_argument, report_command

_PROGRAM = "claude"
_SETTINGS = "claude-settings.json"
_MODES: Mapping[str, str] = MappingProxyType(
    {"ask": "manual", "edits": "acceptEdits", "auto": "auto", "all": "bypassPermissions"}
)
# Hooks that are waited for, because Claude heeds their answer or because what comes next must find them done;
# the seconds after which Claude gives them up (its own default is 60). A dialog waits for a person.
_AWAITED: Mapping[str, int] = MappingProxyType(
    {
        "UserPromptSubmit": 15,
        "PermissionRequest": 7 * 24 * 3600,
        "Stop": 15,
        "StopFailure": 15,
        "SessionEnd": 15,
    }
)
_ASYNC = (
    "SessionStart",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "Notification",
    "SubagentStop",
)
# With one of these the user has chosen a session; an id of ours beside it is an error.
_CHOOSES_SESSION = frozenset(
    {"--resume", "-r", "--continue", "-c", "--session-id", "--fork-session", "--from-pr"}
)
HOME = "CLAUDE_CONFIG_DIR"
"""The variable by which its user chooses where it keeps its own files."""
KEY = "ANTHROPIC_API_KEY"
# The variables by which it has a login, whichever way: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN,
# CLAUDE_CODE_OAUTH_TOKEN, CLAUDE_CODE_USE_BEDROCK and more of their kinds.
_LOGIN = re.compile(r"ANTHROPIC_\w*(KEY|TOKEN)\w*|CLAUDE_CODE_(OAUTH|USE)_\w+", re.ASCII)
# What may stand in `Bash(…:*)` and still mean itself: parentheses, `*` and quotes do not.
_PLAIN = re.compile(r"[\w./@%+=, -]+", re.ASCII)


class ClaudeCode(NamedTuple):
    """The program `claude`, interactive, with the prompt as its argument, which it submits by itself."""

    name: str = "claude-code"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `claude --settings F --session-id ID [--permission-mode M] [--model X] [ARG…] -- PROMPT`.

        A launch after a rejection resumes the session that the hooks have told of (`--resume`); an id that
        was used before is an error, exit 1.

        The `--` is needed: options that take several values (`--allowedTools`, `--add-dir`) would eat the
        prompt. A prompt whose first character is `/` would run as a slash command; ours begins with a header.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM, "--settings", str(context.agent_dir / _SETTINGS), *_session(context)]
        if spec.permission_mode is not None:
            argv += ["--permission-mode", _MODES[spec.permission_mode]]
        if spec.model is not None:
            argv += ["--model", spec.model]
        settings = File(_SETTINGS, json.dumps(_settings(context), indent=2).encode())
        if not has_fresh_home(context.environ, ci=spec.ci):
            return Launch((*argv, *spec.agent_args, "--", told), files=(settings,))
        # The servers of a repository's .mcp.json are asked about in a dialog: there are none.
        argv.append("--strict-mcp-config")
        env = {HOME: str(context.home), "DISABLE_AUTOUPDATER": "1"}
        return Launch((*argv, *spec.agent_args, "--", told), env, (settings,), (_known(context),))

    def problem(self, environ: Mapping[str, str], workdir: str, wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `claude` is missing, has no login, or refuses what is asked.

        It bypasses no permissions as root: exit 1, "cannot be used with root/sudo", unless `IS_SANDBOX=1`.
        With `--ci` it can't use the user's own login, and would ask for one.
        """
        if has_fresh_home(environ, ci=wanted.ci) and not _has_login(environ):
            return f"no key in the environment, which --ci needs; set {KEY}, or say --no-ci"
        if wanted.permission_mode == "all" and os.geteuid() == 0 and environ.get("IS_SANDBOX") != "1":
            return "claude refuses --permission-mode all as root; use auto, or IS_SANDBOX=1 in a container"
        hint = "install it with: npm install -g @anthropic-ai/claude-code"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def has_fresh_home(environ: Mapping[str, str], *, ci: bool) -> bool:
    """Return whether it gets a home of the job's own: with `--ci`, but where its user chose one."""
    return ci and not environ.get(HOME)


def _has_login(environ: Mapping[str, str]) -> bool:
    return any(value and _LOGIN.fullmatch(name) for name, value in environ.items())


def _known(context: Context) -> File:
    """Return the file of a home in which each question of a first start is answered.

    The theme and the login, the trust of the work dir, the key of the environment (it keeps the last 20
    characters of one) and texts that CLAUDE.md imports from elsewhere (which it then leaves out).
    """
    project = {
        "hasTrustDialogAccepted": True,
        "hasClaudeMdExternalIncludesApproved": False,
        "hasClaudeMdExternalIncludesWarningShown": True,
    }
    key = context.environ.get(KEY, "")
    known = {
        "hasCompletedOnboarding": True,
        "projects": dict.fromkeys(_projects(context.spec.workdir), project),
        "customApiKeyResponses": {"approved": [key[-20:]] if key else [], "rejected": []},
    }
    return File(".claude.json", json.dumps(known).encode())


def _projects(workdir: str) -> list[str]:
    """Return the directories by which it may know the work dir: itself, and its git repository's root.

    Of a worktree that is the root of the main one.
    """
    place = Path(os.path.realpath(workdir))
    roots = (_git_root(each) for each in (place, *place.parents))
    return [str(place), *map(str, filter(None, roots))][:2]


def _git_root(directory: Path) -> Path | None:
    git = directory / ".git"
    if not git.is_file():
        return directory if git.is_dir() else None
    # gitrepository-layout(5): "gitdir: " and where this worktree's own files are, .git/worktrees/NAME.
    with git.open("rb") as file:
        named = directory / os.fsdecode(file.read(4096).removeprefix(b"gitdir:").strip())
    above = named.parents[2:3] if named.parent.name == "worktrees" else ()
    return next(iter(above), directory)


def _session(context: Context) -> tuple[str, ...]:
    if any(argument.partition("=")[0] in _CHOOSES_SESSION for argument in context.spec.agent_args):
        return ()
    if context.session_id:
        return ("--resume", context.session_id)
    digits = os.urandom(16).hex()
    # Version 4, variant 1 (RFC 9562): Claude takes no other text for an id.
    return (
        "--session-id",
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}",
    )


def _settings(context: Context) -> dict[str, object]:
    """Return what `--settings` adds to the user's own: our hooks, and that reporting needs no permission."""
    settings: dict[str, object] = {}
    if context.hook_argv:
        # The user's own hooks run beside ours; `true` in their settings would switch ours off too.
        settings["disableAllHooks"] = False
        settings["hooks"] = {event: [{"hooks": [_hook(context, event)]}] for event in (*_AWAITED, *_ASYNC)}
    report = report_command(context.publish_argv, context.spec.id)
    if _PLAIN.fullmatch(shlex.join(context.publish_argv)):
        # A prefix rule is no hole: `… && other` still asks in `manual` and is denied in `dontAsk`.
        settings["permissions"] = {"allow": [f"Bash({report}:*)"]}
    if has_fresh_home(context.environ, ci=context.spec.ci):
        settings["disableDeepLinkRegistration"] = "disable"  # else it tells the user's desktop of itself
    if context.spec.permission_mode == "all":
        # The user chose it by name; without this a dialog asks again, with "No, exit" selected.
        settings["skipDangerousModePermissionPrompt"] = True
    return settings


def _hook(context: Context, event: str) -> dict[str, object]:
    """Return a hook in exec form: with `args` there is no shell."""
    program, *arguments = context.hook_argv
    hook = {"type": "command", "command": program, "args": [*arguments, event]}
    return hook | ({"timeout": _AWAITED[event]} if event in _AWAITED else {"async": True})


AGENT: Agent = ClaudeCode()
