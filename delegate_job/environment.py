"""What a job keeps of its caller: variables, file limit, umask. Not what a job adds to them."""

import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delegate_job import runner
from delegate_job.paths import JobPaths, write_new


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# What describes the caller's terminal and directory: the agent has its own, and COLUMNS and LINES would even
# win over the size of its pane.
_OF_THE_TERMINAL = _names(
    "TMUX TMUX_PANE STY WINDOW WINDOWID COLUMNS LINES TERM TERM_PROGRAM TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID LC_TERMINAL LC_TERMINAL_VERSION ITERM_SESSION_ID ITERM_PROFILE KITTY_WINDOW_ID",
    "KITTY_PID KITTY_LISTEN_ON KITTY_PUBLIC_KEY WEZTERM_PANE WEZTERM_UNIX_SOCKET ALACRITTY_WINDOW_ID",
    "WT_SESSION VTE_VERSION GPG_TTY SSH_TTY VSCODE_IPC_HOOK_CLI PWD OLDPWD SHLVL _",
)

# By which an agent tells its children that they are a part of it; not its user's settings, such as
# CLAUDE_CONFIG_DIR, CLAUDE_CODE_OAUTH_TOKEN, CODEX_HOME, GEMINI_API_KEY or OPENCODE_CONFIG.
# claude-code 2.1.330: environment of its hooks and tools. The others: public code that sets or unsets them
# for codex 0.169, gemini-cli 0.61 and opencode 1.18.
_OF_AN_OUTER_AGENT = _names(
    "CLAUDECODE CLAUDE_PID CLAUDE_PROJECT_DIR CLAUDE_ENV_FILE CLAUDE_EFFORT CLAUDE_PLUGIN_ROOT",
    "CLAUDE_PLUGIN_DATA CLAUDE_AGENT_SDK_VERSION CLAUDE_CODE_ENTRYPOINT CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_SESSION_ID CLAUDE_CODE_CHILD_SESSION CLAUDE_CODE_PARENT_SESSION_ID CLAUDE_CODE_SSE_PORT",
    "CLAUDE_CODE_MESSAGING_SOCKET CLAUDE_CODE_MESSAGING_TOKEN",
    "CODEX_SANDBOX CODEX_SANDBOX_NETWORK_DISABLED CODEX_THREAD_ID CODEX_CI CODEX_MANAGED_BY_NPM",
    "CODEX_MANAGED_BY_BUN CODEX_INTERNAL_ORIGINATOR_OVERRIDE",
    "GEMINI_CLI GEMINI_CLI_NO_RELAUNCH GEMINI_SESSION_ID GEMINI_PROJECT_DIR GEMINI_CWD",
    "OPENCODE OPENCODE_PID OPENCODE_RUN_ID OPENCODE_PROCESS_ROLE OPENCODE_CLIENT OPENCODE_SESSION_ID",
    "OPENCODE_SERVER_USERNAME OPENCODE_SERVER_PASSWORD AGENT AI_AGENT",
)

_OF_AN_OUTER_JOB = _names("DELEGATE_JOB_ID DELEGATE_JOB_DIR DELEGATE_JOB_CONNECTION", runner.MARK)

_OF_THE_OWNER_ALONE = _names("DELEGATE_JOB_BROKER")
"""What holds a password that nobody but a job's owner needs."""

_NOT_FOR_AN_AGENT = _OF_THE_TERMINAL | _OF_AN_OUTER_AGENT | _OF_AN_OUTER_JOB


def without_passwords(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a job may keep, and hand to its agent, its check and its hooks."""
    return {name: value for name, value in environ.items() if name not in _OF_THE_OWNER_ALONE}


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment less what must not reach an agent: the outer terminal, agent and job."""
    outer = os.path.dirname(environ.get("DELEGATE_JOB_CONNECTION", ""))  # noqa: PTH120 - a text of any bytes
    homes = {str(JobPaths(Path(outer)).home)} if outer else set()  # which goes with the outer job
    return {
        name: value for name, value in environ.items() if name not in _NOT_FOR_AN_AGENT and value not in homes
    }


def limits() -> dict[str, int]:
    """Return this process's soft limit of open files (`nofile`; -1: none) and its `umask`."""
    return {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "umask": _umask()}


def _umask() -> int:
    # There is no call that only reads it; for this moment files of other threads are born more private.
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def write_environ(path: Path, environ: Mapping[str, str]) -> None:
    """Keep the environment of a submit (secrets!) and its limits until its job is done. OSError."""
    content = json.dumps({"environ": dict(environ), "limits": limits()}).encode()
    write_new(path, content)


def is_readable(path: Path) -> bool:
    """Return whether the environment of a submit is there, and whole."""
    return "environ" in _read(path)


def read_environ(path: Path) -> dict[str, str]:
    """Return the environment of a submit; empty when the job is done and the file gone."""
    return dict(_read(path).get("environ", {}))


def read_limits(path: Path) -> dict[str, int]:
    """Return the limits of a submit; this process's own when the file is gone."""
    return dict(_read(path).get("limits") or limits())


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        # Damaged, by a power cut say: the job must still have an owner that ends it.
        return {}
