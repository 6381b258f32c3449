"""The commands for other programs and services: `skill`, `mcp`, `notify`.

Each parses, calls one function, and returns an exit code; what it does stands elsewhere.
"""

import sys
from enum import StrEnum
from typing import Annotated

from delegate_job.cli_options import Argument, AsJson, Option, RegistryDir
from delegate_job.errors import UsageError, from_extra


class SkillAction(StrEnum):
    """What can be done with the skill."""

    INSTALL = "install"
    SHOW = "show"


def skill(
    action: Annotated[SkillAction, Argument("Put it where the agent looks, or print it.", "ACTION")],
    agent: Annotated[str, Option("Whose skills.", "NAME")] = "claude-code",
    project: Annotated[bool, Option("This directory's skills, not yours.")] = False,
    into: Annotated[str | None, Option("This directory of skills instead.", "DIR", flags=("--dir",))] = None,
    force: Annotated[bool, Option("Replace a file that was changed.")] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Teach another agent to delegate: install the skill, or show it.

    Example: delegate-job skill install --agent codex
    """
    from delegate_job import commands_skill

    del registry_dir  # Every command takes it; a skill knows no registry.
    if action is SkillAction.SHOW:
        return commands_skill.show(as_json=as_json)
    if into is not None and project:
        raise UsageError("--dir and --project exclude each other")
    return commands_skill.install(agent, into, project=project, force=force, as_json=as_json)


def mcp(registry_dir: RegistryDir = None, as_json: AsJson = False) -> int:
    """Be an MCP server on stdin and stdout, whose tools are these commands.

    For a program that starts it, such as claude; a person has no use for it.

    Example: claude mcp add delegate-job -- delegate-job mcp
    """
    del as_json  # Every command takes it; this one speaks JSON in any case.
    if sys.stdin.isatty():
        raise UsageError(
            "mcp speaks with a program, not with a person",
            hint="make it known to your agent: claude mcp add delegate-job -- delegate-job mcp",
        )
    packages = ("mcp", "mcp_types", "pydantic", "anyio")
    with from_extra("mcp", *packages, needs="the MCP server needs the package mcp"):
        from delegate_job import commands_mcp
    return commands_mcp.serve(registry_dir)


def notify(
    test: Annotated[bool, Option("Send one, and say whether it went out.")] = False,
    from_owner: Annotated[bool, Option("Send what stands on stdin.", hidden=True)] = False,
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show where notifications go, as [notify] of your config.toml says, or try it.

    Exit code 1 when one did not go out.

    Example: delegate-job notify --test
    """
    from delegate_job import commands_notify

    del registry_dir  # Every command takes it; notifications are of all registries.
    if from_owner:
        return commands_notify.from_owner()
    return commands_notify.test(as_json=as_json) if test else commands_notify.show(as_json=as_json)
