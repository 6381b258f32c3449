"""Which processes belong to a test: those that name its directory, found the system's own way.

Not how they are ended: that is for who started them, by id.
"""

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that somehow belongs to a place."""

    pid: int
    command: str


def processes_of(place: Path) -> list[Process]:
    """Return the processes whose command line, environment or directory names `place`, without our own."""
    mark = os.fsencode(place)
    found = _from_proc(mark) if Path("/proc/self/environ").exists() else _from_ps(mark)
    return [process for process in found if process.pid != os.getpid()]


def _from_proc(mark: bytes) -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        # Others' processes cannot be read, and any may end while it is looked at.
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and mark in _traces(entry):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(Process(int(entry.name), command.decode(errors="replace").strip()))
    return found


def _traces(entry: Path) -> bytes:
    cwd = os.fsencode((entry / "cwd").readlink())
    return b"\0".join(((entry / "cmdline").read_bytes(), (entry / "environ").read_bytes(), cwd))


def _from_ps(mark: bytes) -> list[Process]:
    listing = subprocess.run(
        ["ps", "-axEww", "-o", "pid=,command="], capture_output=True, check=True, timeout=10
    ).stdout
    lines = (line.split(maxsplit=1) for line in listing.splitlines() if mark in line)
    return [Process(int(pid), command.decode(errors="replace")) for pid, command in lines]
