"""The words that a shell may complete: jobs, agents, permission modes, kinds of report.

Nothing is made, repaired or waited for at the press of a key, and an error is no word. How a shell asks, and
which parameter takes which words, is not known here.
"""

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from delegate_job import settings
from delegate_job.agents import BUILT_IN, COMMAND
from delegate_job.agents.base import PERMISSION_MODES
from delegate_job.errors import UsageError
from delegate_job.events import REPORTED_BY_HAND
from delegate_job.paths import RegistryPaths

MOST_JOBS = 50
"""The newest so many jobs are offered."""

_BUSY_TIMEOUT = 0.5
# zsh evaluates what it is told (typer 0.28's script for it): nothing but plain characters may reach it.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Word(NamedTuple):
    """A word, and what a shell that can may show beside it."""

    text: str
    about: str = ""


def words(what: str, beginning: str, registry_dir: str | None) -> list[Word]:
    """Return the words of a kind (a key of `KINDS`) that begin so, as far as they can be found out."""
    found: list[Word] = []
    with contextlib.suppress(OSError, sqlite3.Error, UsageError):
        for word in KINDS[what](beginning, registry_dir):
            if word.text.startswith(beginning) and _PLAIN.fullmatch(word.text):
                found.append(word)  # noqa: PERF401 - what was found before an error stays
    return found


def _jobs(condition: str) -> Callable[[str, str | None], Iterator[Word]]:
    def newest_first(beginning: str, registry_dir: str | None) -> Iterator[Word]:
        paths = RegistryPaths(settings.registry_dir(registry_dir, environ=os.environ))
        query = (
            "SELECT id, agent, coalesce(outcome, state) AS stands FROM jobs"  # noqa: S608 - a condition of ours
            f" WHERE substr(id, 1, ?) = ? AND {condition} ORDER BY number DESC LIMIT ?"
        )
        # Only a look: a registry that is missing stays missing, a damaged one is for a command to repair.
        uri = f"{paths.database.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT)) as database:
            for job_id, agent, stands in database.execute(query, (len(beginning), beginning, MOST_JOBS)):
                name = Path(agent).name
                yield Word(job_id, f"{stands} {name}" if _PLAIN.fullmatch(name) else stands)

    return newest_first


def _agents(_beginning: str, _registry_dir: str | None) -> Iterator[Word]:
    yield from map(Word, sorted({*BUILT_IN, COMMAND}))
    yield from map(Word, settings.resolve({}, workdir=os.curdir, environ=os.environ).agents)


def _modes(_beginning: str, _registry_dir: str | None) -> Iterator[Word]:
    yield from map(Word, PERMISSION_MODES)


def _kinds(_beginning: str, _registry_dir: str | None) -> Iterator[Word]:
    yield from map(Word, REPORTED_BY_HAND)


KINDS = MappingProxyType(
    {
        "job": _jobs("1"),
        "live job": _jobs("state <> 'done'"),
        "done job": _jobs("state = 'done'"),
        "agent": _agents,
        "permission mode": _modes,
        "kind": _kinds,
    }
)
"""What a parameter may say that it takes (`completes` in `cli_options`)."""
