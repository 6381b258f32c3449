"""`config show`: each setting, its value, and where it came from.

Not where the values are looked for (`settings`), and not what of them may be seen (`settings_shown`).
"""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from delegate_job.exit_codes import ExitCode
from delegate_job.output import has_colours, print_json, printable
from delegate_job.rows import storable
from delegate_job.settings import WORKDIR_FILE, resolve, user_file
from delegate_job.settings_shown import MASK, shown, shown_agents
from delegate_job.submission import checked_workdir
from delegate_job.table import Cell, print_table

_GREY = 90


def show(workdir: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Show what a job in `workdir` would be run with; UsageError for what is wrong in a file."""
    place = checked_workdir(workdir)
    settings = resolve({"registry_dir": registry_dir}, workdir=place, environ=os.environ)
    document = {
        "settings": {
            each.name: {"value": _text(each.value), "source": _text(each.source)} for each in shown(settings)
        },
        "agents": {name: {"command": [*map(_text, argv)]} for name, argv in shown_agents(settings).items()},
        "files": [{"path": _text(str(path)), "found": path.exists()} for path in _files(place)],
    }
    if as_json:
        print_json(document)
    else:
        _print(document)
    return ExitCode.ACCEPTED


def _files(workdir: str) -> Iterator[Path]:
    yield Path(workdir) / WORKDIR_FILE
    own = user_file()
    if own is not None:
        yield own


def _print(document: dict[str, Any]) -> None:
    print_table(("SETTING", "VALUE", "FROM"), _rows(document), sys.stdout)
    for file in document["files"]:
        print(f"{'read' if file['found'] else 'not there'}: {printable(file['path'])}")


def _rows(document: dict[str, Any]) -> Iterator[tuple[Cell, ...]]:
    names = {file["path"]: Path(file["path"]).name for file in document["files"]}
    grey = _GREY if has_colours(sys.stdout) else None
    for name, each in document["settings"].items():
        colour = grey if each["source"] == "default" else None
        source = names.get(each["source"], each["source"])
        yield tuple(Cell(printable(text), colour) for text in (_dashed(name), _said(each["value"]), source))
    for name, each in document["agents"].items():
        # Only the user's own file can define one.
        source = names[document["files"][-1]["path"]]
        yield Cell(f"agents.{name}"), Cell(printable(_said(each["command"]))), Cell(source)


def _said(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return " ".join(word if word == MASK else shlex.quote(word) for word in value)
    return str(value)


def _text(value: Any) -> Any:
    return [*map(storable, value)] if isinstance(value, list) else storable(value)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
