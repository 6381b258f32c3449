"""Aider as `doctor` sees it: its login. It has no hooks, and nothing to trust.

Seen in aider-chat 0.86.2 on Debian 12, unless a line says otherwise.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from delegate_job.agents.base import Wanted
from delegate_job.agents.probes import Finding, Probes, Status, home_of

_CONFIG = ".aider.conf.yml"


def _look(environ: Mapping[str, str], workdir: str, _wanted: Wanted) -> Iterator[Finding]:
    keys = sorted(name for name, value in environ.items() if name.endswith("_API_KEY") and value)
    files = [path for path in (Path(workdir, _CONFIG), home_of(environ) / _CONFIG) if path.is_file()]
    if keys:
        yield Finding("login", Status.OK, f"{keys[0]} is set")
    elif files:
        yield Finding("login", Status.OK, f"{_CONFIG} is there; whether it names a key was not looked for")
    else:
        yield Finding("login", Status.WARNING, "none seen", "export the key of your model's provider")


def _apart(_home: Path) -> Mapping[str, str]:
    return {"AIDER_ANALYTICS_DISABLE": "true", "AIDER_CHECK_UPDATE": "false"}


PROBES = Probes(program="aider", tried_with="0.86.2", look=_look, apart=_apart)
