"""The agents by name: the literal list of those that are built in, and how any other name is found.

Not how each one is started: that is its own file, imported only when it is used.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from delegate_job.errors import NotStartedError, UsageError
from delegate_job.job import JobSpec
from delegate_job.paths import absolute

if TYPE_CHECKING:
    from delegate_job.agents.base import Agent, Dialog

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "aider": "delegate_job.agents.aider",
        "claude-code": "delegate_job.agents.claude_code",
        "codex": "delegate_job.agents.codex",
        "gemini": "delegate_job.agents.gemini",
        "human": "delegate_job.agents.human",
        "opencode": "delegate_job.agents.opencode",
    }
)
"""Name -> the module whose `AGENT` it is. Modules, not values: a command pays only for the agent it uses."""

START_HOOKS = frozenset({"claude-code", "codex"})
"""The agents whose hooks tell of their start, before anything else can happen but a dialog."""

ANSWERED_BY_KEYS = frozenset({"codex", "gemini"})
"""The agents whose hooks tell of a dialog and cannot answer it; the module of each has its `DIALOG`."""


class SkillDir(NamedTuple):
    """Where an agent looks for skills, a directory each, with a `SKILL.md` in it."""

    of_user: str
    """Below the home directory."""
    of_project: str
    """Below a project's directory."""
    variable: str = ""
    """The variable that names another home of the agent's, in which it is `skills`."""


_SHARED = SkillDir(".agents/skills", ".agents/skills")
# Seen in codex 0.169.0 (`codex debug prompt-input`), gemini-cli 0.61.0 (`gemini skills list`; a project's
# only when that is trusted), opencode 1.18.33 (`opencode debug skill`) and claude-code 2.1.330 (what it tells
# its model: of `.agents` nothing).
SKILL_DIRS: Mapping[str, SkillDir] = MappingProxyType(
    {
        "claude-code": SkillDir(".claude/skills", ".claude/skills", "CLAUDE_CONFIG_DIR"),
        "codex": _SHARED,
        "gemini": _SHARED,
        "opencode": _SHARED,
    }
)

COMMAND = "command"
"""The agent that is an argv template: `--agent command --command '…'`."""

PROGRAMS: Mapping[str, str] = MappingProxyType({"claude": "claude-code"})
"""Programs of agents of ours that have another name than their agent."""

_NO_AGENTS: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def is_built_in(name: str) -> bool:
    """Return whether `name` is an agent of ours, which no configuration may redefine."""
    return name in BUILT_IN or name == COMMAND


def known_better(name: str) -> str | None:
    """Return the agent of ours whose program `name` is, given as any program is; None for another one."""
    program = name.rpartition("/")[2]
    agent = PROGRAMS.get(program, program)
    return agent if agent in BUILT_IN and name not in BUILT_IN and agent != "human" else None


def agent_named(
    name: str,
    *,
    command: tuple[str, ...] = (),
    configured: Mapping[str, tuple[str, ...]] = _NO_AGENTS,
    environ: Mapping[str, str] | None = None,
) -> "Agent":
    """Return the agent that `--agent NAME` means: built in, configured, or any program.

    A program is looked for on the PATH of `environ` (default: of this process); with a slash in it, it is a
    path relative to the current directory, and the agent's name is the absolute one.

    Raises UsageError for a `command` that is missing or has no use, NotStartedError for an unknown agent.
    """
    if name == COMMAND and not command:
        raise UsageError("--agent command needs a command", hint="add --command 'PROG ARG…'")
    if name != COMMAND and command:
        raise UsageError(f"--command has no use with --agent {name}", hint="use --agent command")
    if name == COMMAND or name in configured:
        return _template_agent(name, command or configured[name])
    if name in BUILT_IN:
        return _load(name)
    return _program(name, os.environ if environ is None else environ, configured)


def agent_of(spec: JobSpec) -> "Agent":
    """Return the agent of a registered job, from its spec alone: configuration may have changed."""
    if spec.command:
        return _template_agent(spec.agent, spec.command)
    if spec.agent in BUILT_IN:
        return _load(spec.agent)
    from delegate_job.agents.program import ProgramAgent

    return ProgramAgent(spec.agent)


def dialog_of(spec: JobSpec) -> "Dialog | None":
    """Return the dialog of the job's agent that keys answer; None for an agent that has none."""
    if spec.command or spec.agent not in ANSWERED_BY_KEYS:
        return None
    dialog: Dialog = import_module(BUILT_IN[spec.agent]).DIALOG
    return dialog


def _load(name: str) -> "Agent":
    agent: Agent = import_module(BUILT_IN[name]).AGENT
    return agent


def _template_agent(name: str, template: tuple[str, ...]) -> "Agent":
    from delegate_job.agents.command import CommandAgent

    return CommandAgent(name, template)


def _program(name: str, environ: Mapping[str, str], configured: Mapping[str, tuple[str, ...]]) -> "Agent":
    from delegate_job.agents.base import find_program
    from delegate_job.agents.program import ProgramAgent

    path = absolute(name) if os.sep in name else name
    if not name or find_program(path, environ, os.curdir) is None:
        shown = name if name.isprintable() else repr(name)
        raise NotStartedError(f"no such agent: {shown}", hint=_hint(name, configured))
    return ProgramAgent(path)


def _hint(name: str, configured: Mapping[str, tuple[str, ...]]) -> str:
    import difflib

    known = sorted({*BUILT_IN, COMMAND, *configured})
    near = difflib.get_close_matches(name, [*known, *PROGRAMS], n=3)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(PROGRAMS.get(each, each) for each in near))}?"
    return f"agents are {', '.join(known)}, and any executable program on PATH"
