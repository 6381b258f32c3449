"""The machine's processes: who descends from whom, and signals that can't hit a stranger.

Nothing about jobs, and not how a process is started. A process is known by its pid and start time together: a
pid alone may long belong to somebody else.
"""

import os
import sys

from delegate_job.bare import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_HAS_PROC = sys.platform == "linux"
SEES_ENVIRONMENTS = _HAS_PROC
"""Whether `carries` can answer on this system."""


class Process:
    """One process. `start` is opaque: equal for the same pid means the same process."""

    # No dataclass or NamedTuple: their modules would cost each agent 3 to 10 ms of start-up.
    __slots__ = ("pgid", "pid", "ppid", "sid", "start")

    def __init__(self, pid: int, start: str, *, ppid: int = 0, pgid: int = 0, sid: int = 0) -> None:
        self.pid = pid
        self.start = start
        self.ppid = ppid
        self.pgid = pgid
        self.sid = sid


def boot_id() -> str:
    """Return what tells this boot from others, since start times count from the boot; "-" if unknown."""
    if not _HAS_PROC:
        return "-"
    try:
        return _read("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return "-"


def table() -> dict[int, Process]:
    """Return all living processes by pid. Zombies are not living. Costs 15 µs a process on Linux."""
    return {process.pid: process for process in (_from_proc() if _HAS_PROC else _from_ps())}


def start_of(pid: int) -> str | None:
    """Return the start time of a living process, or None when there is none."""
    process = _stat(pid) if _HAS_PROC else table().get(pid)
    return process.start if process else None


def descendants(processes: "Mapping[int, Process]", roots: "Iterable[int]") -> list[Process]:
    """Return the processes below any of the roots, and not the roots."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process)
    seen = set(roots)
    waiting = list(seen)
    found = []
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                waiting.append(child.pid)
                found.append(child)
    return found


def tree(processes: "Mapping[int, Process]", root: int) -> list[Process]:
    """Return the descendants of a session leader, the members of its session, and their descendants.

    The session is what still joins them where orphans are not handed to their nearest subreaper (macOS).
    """
    session = [process for process in processes.values() if process.sid == root and process.pid != root]
    below = descendants(processes, [root, *(process.pid for process in session)])
    return list({process.pid: process for process in (*session, *below)}.values())


def send(process: Process, signum: int) -> bool:
    """Send a signal to exactly this process; False when it is gone or not ours to signal.

    On Linux the pidfd holds the process fast before its start time is compared, so a pid that changes hands
    in between is never hit (pidfd_open(2), Linux 5.3). Elsewhere a few microseconds of doubt remain.
    """
    try:
        if not _HAS_PROC:
            os.kill(process.pid, signum)
            return True
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if start_of(process.pid) != process.start:
            return False
        signal.pidfd_send_signal(fd, signum)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def carries(pid: int, variable: bytes) -> bool:
    """Return whether a process of ours was started with `variable` (`NAME=value`). Always False on macOS."""
    if not _HAS_PROC:
        return False
    try:
        return variable in _read(f"/proc/{pid}/environ").split(b"\0")
    except OSError:
        return False


def _from_proc() -> "Iterator[Process]":
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs the runner 10 ms of start-up
        if name.isdecimal() and (process := _stat(int(name))):
            yield process


def _stat(pid: int) -> Process | None:
    """Read /proc/<pid>/stat (proc(5)). The name in brackets may hold anything: count from the last ")"."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in b"ZXx":
        return None
    ppid, pgid, sid = map(int, fields[1:4])
    return Process(pid, fields[19].decode(), ppid=ppid, pgid=pgid, sid=sid)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def _from_ps() -> "Iterator[Process]":
    """Ask ps. Its column for the session is of no use on macOS, so the system is asked for that."""
    import subprocess

    columns = "pid=,ppid=,pgid=,stat=,lstart="
    try:
        done = subprocess.run(
            ["ps", "-axo", columns],
            capture_output=True,
            check=False,
            timeout=5,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in done.stdout.decode(errors="replace").splitlines():
        pid, ppid, pgid, state, *start = line.split()
        if not state.startswith("Z"):
            sid = _session_of(int(pid))
            yield Process(int(pid), "_".join(start), ppid=int(ppid), pgid=int(pgid), sid=sid)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
