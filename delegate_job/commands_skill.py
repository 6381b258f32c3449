"""`skill`: show the skill, or install it and say where. Not what it says: that is `skills/`."""

import os
import sys
from pathlib import Path

from delegate_job import skill
from delegate_job.exit_codes import ExitCode
from delegate_job.output import print_json
from delegate_job.paths import absolute
from delegate_job.rows import storable


def show(*, as_json: bool) -> int:
    """Print the skill."""
    if as_json:
        print_json({"name": skill.NAME, "text": skill.text()})
    else:
        sys.stdout.write(skill.text())
    return ExitCode.ACCEPTED


def install(agent: str, into: str | None, *, project: bool, force: bool, as_json: bool) -> int:
    """Install the skill where the agent looks for it, or into the directory that is named."""
    if into is not None:
        directory = Path(absolute(into))
    else:
        here = Path(absolute(os.curdir)) if project else None
        directory = skill.directory(agent, project=here, environ=os.environ)
    installed = skill.install(directory, force=force)
    if as_json:
        print_json({"path": storable(str(installed.path)), "done": installed.done})
    else:
        print(f"{installed.done}: {installed.path}")
    return ExitCode.ACCEPTED
