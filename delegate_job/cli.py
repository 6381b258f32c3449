"""The command line: which commands there are, and which module declares each.

A module is imported when its command is asked for, all of them for `--help`. Nothing here exits, and errors
are shown by `__main__`.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType

from delegate_job.cli_options import Command, read


class Commands(Mapping[str, Command]):
    """Commands by their names, in the order in which `--help` shows them.

    `places` has the module of each, and behind a colon the function where it has another name.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Command:
        module, _, function = self._places[name].partition(":")
        command: Command = getattr(import_module(f"delegate_job.{module}"), function or name)
        return command

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


COMMANDS = Commands(
    MappingProxyType(
        {
            "submit": "cli_submit",
            "status": "cli_jobs",
            "list": "cli_jobs:list_jobs",
            "wait": "cli_jobs",
            "watch": "cli_jobs",
            "logs": "cli_jobs",
            "attach": "cli_agent",
            "send": "cli_agent",
            "approve": "cli_agent",
            "deny": "cli_agent",
            "answer": "cli_agent",
            "cancel": "cli_agent",
            "doctor": "cli_registry",
            "retry": "cli_agent",
            "report": "cli_jobs",
            "prune": "cli_registry",
            "verify": "cli_jobs",
            "publish": "cli_jobs",
            "config": "cli_config",
            "skill": "cli_programs",
            "mcp": "cli_programs",
            "notify": "cli_programs",
            "supervise": "cli_registry",
            "broker": "cli_registry",
        }
    )
)


def main(argv: list[str]) -> int:
    """Run the command that `argv` (without the program) names; return its exit code."""
    plain = read(COMMANDS, argv)
    if plain is not None:
        return plain()
    from delegate_job import cli_typer

    return cli_typer.main(COMMANDS, argv)
