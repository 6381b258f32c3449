"""What `doctor` can find out about an agent without a call to its model: a `PROBES` in one module an agent.

They describe; nothing here starts a process or writes a file, and no secret is ever part of a text. Not
beside the agents themselves: a submit needs none of it.
"""

import json
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from delegate_job.agents import BUILT_IN
from delegate_job.agents.base import Launch, Wanted

LIMIT = 16 * 1024 * 1024
"""The most bytes of a file of the user's that are looked at."""
WORKDIR_LIMIT = 4 * 1024
"""The same in a work dir: tomllib's time grows with the square of a key's parts."""
HOOKS = "hooks"
"""The `what` of a finding that says that the agent's user has switched hooks off."""


class Status(StrEnum):
    """What is to be said of one thing."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


class Finding(NamedTuple):
    """One thing that was looked at, in one line. `needed`: without it no job of the kind asked for starts."""

    what: str
    status: Status
    text: str
    hint: str | None = None
    needed: bool = False


class Trial(NamedTuple):
    """The circumstances in which an agent is started for a moment, to see whether it runs our hooks."""

    launch: Launch
    """The very launch of a job; its files are written."""
    home: Path
    """An empty directory for the agent's own files, which is thrown away."""
    nowhere: str
    """The URL of a port of loopback that refuses every connection: there the model is said to be."""
    environ: Mapping[str, str]
    """The user's own, to find their files by."""


class Echo(NamedTuple):
    """How to start an agent so that it runs its first hook and asks no model."""

    argv: tuple[str, ...]
    env: Mapping[str, str | None] = MappingProxyType({})
    """On top of the launch's; None removes a variable."""
    files: Mapping[str, str] = MappingProxyType({})
    """Path relative to the trial's home -> content."""


class Probes(NamedTuple):
    """What is special about one agent."""

    program: str
    tried_with: str
    """The version that ours was tried with."""
    look: Callable[[Mapping[str, str], str, Wanted], Iterable[Finding]]
    """Look for login, trust and what switches hooks off, given the environment and the work dir."""
    apart: Callable[[Path], Mapping[str, str]]
    """Return the variables by which it keeps its own files in another directory than the user's."""
    event: str = ""
    """A native event of which our hook reports something whatever its payload; empty without hooks."""
    echo: Callable[[Trial], Echo] | None = None
    """Return how to start it, or in a few words why that is not tried."""
    why_silent: Callable[[str], str | None] = lambda _: None
    """Return, given its output, why it may have run no hook of ours."""


def probes_of(name: str) -> Probes | None:
    """Return the probes of an agent by its name; None for one that has none: a person, any program."""
    if name not in BUILT_IN or name == "human":
        return None
    found: Probes = import_module(f"{__name__}.{name.replace('-', '_')}").PROBES
    return found


def in_ci(key: str) -> Iterable[Finding]:
    """Return what there is to say of an agent that has a home of the job's own, in the CI profile."""
    yield Finding("login", Status.OK, f"{key} is set")
    yield Finding("trust", Status.OK, "given to the work dir in a home of the job's own, as with --ci")


def is_set(environ: Mapping[str, str], *names: str) -> str | None:
    """Return the first of these variables that is set and not empty: its name, never its value."""
    return next((name for name in names if environ.get(name)), None)


def home_of(environ: Mapping[str, str]) -> Path:
    """Return the user's home; one that is not there finds nothing."""
    return Path(environ.get("HOME") or "/nonexistent")


def shown(path: Path, environ: Mapping[str, str]) -> str:
    """Return a path as people write it."""
    home = home_of(environ)
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def read_json(path: Path, limit: int = LIMIT) -> dict[str, Any]:
    """Return the object in a file; {} when it holds none, or cannot be read."""
    try:
        found = json.loads(_read(path, limit))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_toml(path: Path, limit: int = LIMIT) -> dict[str, Any]:
    """Return the table in a file; {} when it holds none, or cannot be read."""
    try:
        return tomllib.loads(_read(path, limit))
    except (OSError, ValueError, RecursionError):
        return {}


def value_at(table: Any, *keys: str) -> Any:
    """Return what stands at a path of keys; None where it leads nowhere."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _read(path: Path, limit: int) -> str:
    # A FIFO would wait for a writer, in a work dir that others have made.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError
        content = file.read(limit + 1)
    return content.decode() if len(content) <= limit else ""
