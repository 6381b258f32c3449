"""What can be read in a place: who holds a text, what a process has open, what was printed or recorded."""

import contextlib
import json
from pathlib import Path

from harness import Place, wait_until


def holding(place: Place, *texts: str, but: int = 0) -> set[str]:
    """Return the files and processes that hold one of the texts; `but` is a process that may."""
    marks = [text.encode() for text in texts]
    found = {
        str(path.relative_to(place.root))
        for path in place.root.rglob("*")
        if path.is_file() and not path.is_symlink() and any(mark in path.read_bytes() for mark in marks)
    }
    for process in place.processes():
        carried = b"\0".join(_of_process(process.pid, kind) for kind in ("cmdline", "environ"))
        if process.pid != but and any(mark in carried for mark in marks):
            found.add(process.command)
    return found


def _of_process(pid: int, kind: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{kind}").read_bytes()
    except OSError:
        return b""


def has_open(pid: int, name: str) -> bool:
    """Say whether a process has a file of this name open; others it may close while we look."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(entry.readlink().name)
    return name in found


def printed(path: Path, count: int) -> list[str]:
    """Return the lines of a file as soon as there are `count`: a job may end before its agent has printed."""
    wait_until(
        lambda: path.exists() and path.read_bytes().count(b"\n") >= count, what=f"{count} lines in {path}"
    )
    return path.read_text().splitlines()


def await_recording(place: Place, job: str, text: str) -> None:
    """Wait until the recording of a job's terminal has a text: its end is recorded beside the job's."""
    file = place.registry / "jobs" / job / "pane.cast"

    def is_recorded() -> bool:
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        events = [json.loads(line) for line in lines[1:] if line.endswith("]\n")]
        return text in "".join(data for _, kind, data in events if kind == "o")

    wait_until(is_recorded, what=f"{text} in {file}")


def showing(name: str) -> list[tuple[str, ...]]:
    """Return every command that shows a job, without what is meant to show how to connect."""
    shown = [("status", name), ("list",), ("logs", name), ("logs", "--list")]
    return [*shown, *((*words, "--json") for words in shown), ("logs", name, "--pane")]
