"""Which processes belong to a test: those that name its directory, found the system's own way.

Not how they are ended: that is for who started them, by id.
"""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that somehow belongs to a place."""

    pid: int
    command: str


def processes_of(place: Path) -> list[Process]:
    """Return the processes whose command line, environment or directory names `place`, without our own.

    A look takes its time: it misses who is started, or becomes another program, while it goes on, and a
    process that starts the next and ends may pass it on so. Only looks in a row that see nothing say so.
    """
    mark = os.fsencode(place)
    look = _from_proc if Path("/proc/self/environ").exists() else _from_ps
    for pause in (0.02, 0.02, 0.0):
        if found := [process for process in look(mark) if process.pid != os.getpid()]:
            return found
        time.sleep(pause)
    return []


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
