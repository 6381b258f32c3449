"""A command line that is read without typer means what typer would read in it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegate_job import cli_typer
from delegate_job.cli import COMMANDS
from delegate_job.cli_options import COMPLETION, Option, Parameter, Unparsed, parameters, read
from harness import Place
from test_imports import imported

Line = list[str]

TEXTS = st.sampled_from(
    [
        "x",
        "two words",
        "",
        "-",
        "--",
        "-x",
        "--json",
        "--job",
        "=",
        "a=b",
        "@last",
        "$(touch X)",
        "ä\udcff",
        "\n",
    ]
) | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)
NUMBERS = st.sampled_from(
    ["0", "1", "7", "65536", "-1", "1.5", "1e3", "nan", "1_0", " 3", "٣", "+2", "", "x"]
)
STATES = st.sampled_from(["done", "waiting", "RUNNING", "", "x"])
NOISE = st.sampled_from(
    ["-h", "--help", "-f", "-fx", "--version", "--no-json", "--pro", "--json=1", "--", "-"]
)


def told(declared: Parameter) -> st.SearchStrategy[Line]:
    """Return ways to give one option or argument, right and wrong."""
    values = {int: NUMBERS, float: NUMBERS, str: TEXTS}.get(declared.kind, STATES | TEXTS)
    if not declared.flags:
        return st.lists(values, max_size=3 if declared.is_list else 1)
    flag = st.sampled_from(declared.flags)
    if declared.kind is bool:
        return st.sampled_from([*declared.flags, *declared.denials]).map(lambda word: [word])
    apart = st.tuples(flag, values).map(list)
    if isinstance(declared.form, Option) and declared.form.optional:
        apart |= flag.map(lambda word: [word])
    return apart | st.tuples(flag, values).map(lambda both: ["=".join(both)])


def lines() -> st.SearchStrategy[Line]:
    """Return command lines of every command that typer parses, with some noise."""

    def of(name: str) -> st.SearchStrategy[Line]:
        each = st.one_of(
            [told(declared) for declared in parameters(COMMANDS[name])] * 3 + [NOISE.map(lambda w: [w])]
        )
        return st.lists(each, max_size=5).map(
            lambda parts: [name, *[word for part in parts for word in part]]
        )

    names = [
        name
        for name, command in COMMANDS.items()
        if not any(isinstance(each.form, Unparsed) for each in parameters(command))
    ]
    return st.sampled_from(names).flatmap(of)


def by_typer(line: Line, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """Return what typer would call the command with; None when it refuses the line or shows help."""
    seen: list[dict[str, Any]] = []
    annotated = cli_typer._annotated

    def recording(*declared: Any) -> Callable[..., int]:
        @functools.wraps(annotated(*declared))
        def record(**arguments: Any) -> int:
            seen.append(arguments)
            return 0

        return record

    monkeypatch.setattr(cli_typer, "_annotated", recording)
    try:
        cli_typer.main(COMMANDS, line)
    except Exception:  # noqa: BLE001 - whatever it says, it has not called the command
        return None
    finally:
        monkeypatch.undo()
    return seen[0] if seen else None


@settings(max_examples=300, deadline=None)
@given(line=lines())
def test_what_is_read_without_typer_is_what_typer_reads(line: Line) -> None:
    """Whatever the line, typer would have called the same command with the same values."""
    plain = read(COMMANDS, line)
    if plain is None:
        return
    assert isinstance(plain, functools.partial)
    with pytest.MonkeyPatch.context() as monkeypatch:
        expected = by_typer(line, monkeypatch)
    bound = inspect.signature(plain.func).bind(**plain.keywords)
    bound.apply_defaults()
    assert expected is not None
    assert _told(bound.arguments) == _told(expected)


def _told(arguments: dict[str, Any]) -> dict[str, Any]:
    # typer gives an empty list where the commands say None: they take both for nothing.
    return {name: None if value == [] else value for name, value in arguments.items()}


PLAIN = [
    ["submit", "--agent", "codex", "--prompt", "-x", "--workdir=.", "--close", "--max-parallel", "3"],
    ["submit", "--prompt", "a", "--", "--model", "x"],
    ["submit", "--worktree", "--prompt", "a"],
    ["submit", "--worktree", "fix/parser", "--prompt=a", "--worktree"],
    ["submit", "--prompt", "a", "--ci", "--no-close", "--no-fail-on-input"],
    ["status", "abc", "--json"],
    ["list", "--state", "waiting", "--limit", "20"],
    ["wait", "a", "b", "--any", "--timeout", "5"],
    ["logs", "-f", "@last"],
    ["send", "abc", "-"],
]


@pytest.mark.parametrize("line", PLAIN, ids=" ".join)
def test_plain_lines_do_not_need_typer(line: Line) -> None:
    """The lines of every day are read here."""
    assert read(COMMANDS, line) is not None


NOT_PLAIN = [
    [],
    ["--help"],
    ["--version"],
    ["nothing"],
    ["submit", "--help"],
    ["submit", "-h"],
    ["submit", "--prompt"],
    ["submit", "--max-parallel", "-1"],
    ["submit", "--json=yes"],
    ["submit", "--no-json"],
    ["submit", "--no-ci=yes"],
    ["list", "--state", "asleep"],
    ["list", "--limit", "0"],
    ["cancel"],
    ["cancel", "a", "b"],
    ["broker", "--port", "65536"],
    ["status", "--jsn"],
]


@pytest.mark.parametrize("line", NOT_PLAIN, ids=" ".join)
def test_all_that_must_be_explained_is_left_to_typer(line: Line) -> None:
    """Help, mistakes and what is out of bounds."""
    assert read(COMMANDS, line) is None


def test_completion_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that asks for completions is answered by typer, whatever stands in the line."""
    monkeypatch.setenv(COMPLETION, "complete_bash")
    assert read(COMMANDS, ["list"]) is None


def test_a_plain_command_does_not_import_typer(place: Place) -> None:
    """Neither a submit nor a look at it waits for typer; help does."""
    trace = {"PYTHONPROFILEIMPORTTIME": "1"}
    done = place.submit('"$DJ" publish --event completed', env=trace)
    assert done.returncode == 0, done
    assert not {"typer", "rich"} & imported(done.stderr)
    assert "typer" not in imported(place.run("list", env=trace).stderr)
    assert "typer" in imported(place.run("list", "--help", env=trace).stderr)
