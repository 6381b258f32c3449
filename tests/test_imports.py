"""Imports point one way and what starts often stays light: read from the source, seen on the real command."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from harness import Place

CORE = {"", "job", "events", "lifecycle", "exit_codes", "errors"}
"""Pure: nothing but each other and the parts of the standard library that touch nothing."""

PURE_LIBRARY = {
    "collections",
    "contextlib",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "types",
    "typing",
}

LAYERS: tuple[set[str], ...] = (
    CORE,
    {"paths", "retry", "bare", "own_program"},
    {"agents"},
    set(),  # every module that is not named here: one outside thing each
    {
        "supervisor",
        "owner",
        "background",
        "pruning",
        "client",
        "following",
        "answering",
        "reporter",
        "report",
        "doctor",
    },
    {"output", "commands", "foreground", "cli", "__main__"},
)
"""From below to above. A module imports from its own layer and from those below."""

FIRST_WORDS = {"supervisor": 4, "report": 4, "doctor": 4, "cli": 5, "commands": 5, "watch": 5}
"""Modules that are not named and begin with one of these words, such as cli_submit, belong to its layer."""


def sources(repository: Path) -> dict[str, Path]:
    """Return every module of both packages by its dotted name."""
    found = {}
    for root in (repository, repository / "broker"):
        for package in ("delegate_job", "delegate_job_broker"):
            for path in (root / package).rglob("*.py"):
                name = ".".join(path.relative_to(root).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, name: str) -> Iterator[str]:
    """Yield what a module imports, anywhere in it, but for what only a type checker reads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [tree]
    while nodes:
        node: ast.AST = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            origin = ".".join(filter(None, (above if node.level else "", node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        nodes += ast.iter_child_nodes(node)  # type: ignore[arg-type] # a list of any nodes is walked


def graph(repository: Path) -> dict[str, set[str]]:
    """Return for each module the dotted names that it imports; our own names are cut to modules."""
    modules = sources(repository)

    def known(name: str) -> str:
        while name.startswith("delegate_job") and name not in modules and "." in name:
            name = name.rpartition(".")[0]
        return name

    return {name: {known(to) for to in imports(path, name)} for name, path in modules.items()}


def layer(module: str) -> int:
    """Return the layer of a module of delegate_job, from 0."""
    first = module.partition(".")[2].partition(".")[0]
    named = [number for number, names in enumerate(LAYERS) if first in names]
    by_word = [number for word, number in FIRST_WORDS.items() if first.startswith(f"{word}_")]
    return (named or by_word or [LAYERS.index(set())])[0]


def test_imports_point_one_way(repository: Path) -> None:
    """The command line rests on ownership, that on outside things, those on agents, and all on the core."""
    upward = [
        f"{name} -> {to}"
        for name, targets in graph(repository).items()
        for to in targets
        if name.split(".")[0] == to.split(".")[0] == "delegate_job" and layer(to) > layer(name)
    ]
    assert upward == []


def test_no_two_modules_need_each_other(repository: Path) -> None:
    """Within a layer too nothing goes in a circle, counting imports inside functions."""
    ours = {
        name: {to for to in targets if to.startswith("delegate_job") and to != name}
        for name, targets in graph(repository).items()
    }
    TopologicalSorter(ours).prepare()


def test_the_core_is_pure(repository: Path) -> None:
    """Jobs, events and their table import only each other and what touches neither files nor time."""
    for name, targets in graph(repository).items():
        if name.startswith("delegate_job") and not name.startswith("delegate_job_") and layer(name) == 0:
            outside = {to for to in targets if not to.startswith("delegate_job")}
            assert {to.split(".")[0] for to in outside} <= PURE_LIBRARY, name


def test_the_broker_knows_no_jobs(repository: Path) -> None:
    """The broker's package imports nothing of delegate_job, so it can be used and tested alone."""
    for name, targets in graph(repository).items():
        if name.startswith("delegate_job_broker"):
            assert not [to for to in targets if to.split(".")[0] == "delegate_job"], name


def test_the_broker_is_imported_as_a_whole(repository: Path) -> None:
    """delegate_job uses what the broker's package offers at its top, not its inner modules."""
    for name, targets in graph(repository).items():
        if not name.startswith("delegate_job_broker"):
            assert not [to for to in targets if to.startswith("delegate_job_broker.")], name


def imported(trace: str) -> set[str]:
    """Return the top-level packages named in the output of `python -X importtime`."""
    return set(re.findall(r"^import time:.*\| +(\w+)", trace, re.MULTILINE))


@pytest.fixture
def finished(place: Place) -> Place:
    """Give a place with one finished job, whose agent traced the imports of its own report."""
    job = place.submit(
        'PYTHONPROFILEIMPORTTIME=1 "$DJ" publish --timeout 20 --event progress --detail x'
        f' 2> {place.root}/publish.trace\n"$DJ" publish --event completed'
    )
    assert job.returncode == 0, job
    return place


FORBIDDEN = {
    ("publish", "--event", "progress", "--job", "@last"): {
        "typer",
        "sqlite3",
        "amqtt",
        "rich",
    },
    ("status", "@last"): {"amqtt", "paho", "asyncio"},
    ("list",): {"amqtt", "paho", "asyncio"},
    ("logs", "@last"): {"amqtt", "paho", "asyncio"},
}


@pytest.mark.parametrize("command", FORBIDDEN, ids=lambda command: command[0])
def test_what_starts_often_stays_light(finished: Place, command: tuple[str, ...]) -> None:
    """`publish` never loads typer or sqlite3; no reading command loads the broker or MQTT."""
    traced = finished.run(*command, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert traced.returncode == 0, traced
    assert not FORBIDDEN[command] & imported(traced.stderr)


def test_a_report_from_within_a_job_is_light(finished: Place) -> None:
    """The report that goes over MQTT too loads paho, and neither typer, sqlite3 nor amqtt."""
    loaded = imported((finished.root / "publish.trace").read_text())
    assert "paho" in loaded
    assert not {"typer", "sqlite3", "amqtt", "rich"} & loaded


def test_an_agent_waits_for_nothing_heavy(place: Place) -> None:
    """What submit loads before it has tmux start the agent; dataclasses alone bring inspect, for 9 ms."""
    (place.work / ".git").mkdir()  # What looks into a repository is the last to be loaded before the start.
    done = place.submit('"$DJ" publish --event completed', env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done
    before, last, behind = done.stderr.partition("delegate_job.changes")
    assert last
    heavy = {"typer", "amqtt", "asyncio", "paho", "ssl", "hashlib", "dataclasses", "inspect", "rich"}
    assert not heavy & imported(before)
    assert "asyncio" in imported(behind)


def test_the_trace_would_show_it(place: Place) -> None:
    """The check itself can see: a Python that imports sqlite3 is caught."""
    process = place.spawn(sys.executable, "-X", "importtime", "-c", "import sqlite3")
    assert "sqlite3" in imported(process.communicate(timeout=20)[1])
