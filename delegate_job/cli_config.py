"""The command line of `config`. It parses, calls one function, and returns an exit code."""

from enum import StrEnum
from typing import Annotated

from delegate_job.cli_options import Argument, AsJson, Option, RegistryDir


class ConfigAction(StrEnum):
    """What `config` does."""

    SHOW = "show"


def config(
    action: Annotated[ConfigAction, Argument("Show the settings.", "show")],
    workdir: Annotated[str, Option("As for a job there.", "DIR")] = ".",
    registry_dir: RegistryDir = None,
    as_json: AsJson = False,
) -> int:
    """Show what submit would go by in this directory, and where each value comes from.

    Example: delegate-job config show
    """
    from delegate_job import commands_config

    del action  # There is only one.
    return commands_config.show(workdir, registry_dir, as_json=as_json)
