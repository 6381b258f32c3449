"""Whether this process runs inside an agent, and where tmux runs that agent's pane.

What descends from a runner ends with its agent, however it detaches. Not what follows from it: that is
`starter`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from delegate_job import runner
from delegate_job.errors import DelegateJobError

_PANE = os.fsencode(Path(__file__).with_name("pane.py"))
_PLACE = 5
"""Where it stands in a runner's command line (`launcher.runner_argv`)."""


def tmux_around(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the socket of the tmux server whose pane we are inside of; None outside of any agent.

    By the runner above us, whatever our environment; where that can't be seen (macOS) by what it has put
    there.
    """
    return _of_ancestors() or _of_environment(environ)


def job_around(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the id of the job whose agent we descend from; None where there is none to be seen.

    By the runner above us as well, whatever our environment.
    """
    return _job_of_ancestors() or environ.get("DELEGATE_JOB_ID")


def _job_of_ancestors() -> str | None:
    with contextlib.suppress(OSError):
        for pid in _ancestors():
            words = _strings(pid, "cmdline")
            if _is_runner(words):
                return Path(os.fsdecode(words[_PLACE + 1])).name
    return None


def _is_runner(words: list[bytes]) -> bool:
    """Return whether this is a runner's command line; that of a tmux server names the first it started."""
    return words[_PLACE : _PLACE + 1] == [_PANE] and not words[_PLACE + 1].startswith(b"-")


def _of_ancestors() -> str | None:
    # Without /proc, or above what we may see, nothing is known.
    with contextlib.suppress(OSError, StopIteration):
        for pid in _ancestors():
            if _is_runner(_strings(pid, "cmdline")):
                return _socket(next(each for each in _strings(pid, "environ") if each.startswith(b"TMUX=")))
    return None


def _strings(pid: int, name: str) -> list[bytes]:
    return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 1:
        yield pid
        # The name in brackets may hold anything: count from the last ")" (proc(5)).
        pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def _socket(variable: bytes) -> str:
    """Return the socket in `TMUX=socket,pid,session`; the path may hold a comma."""
    return os.fsdecode(variable.removeprefix(b"TMUX=").rsplit(b",", 2)[0])


def _of_environment(environ: Mapping[str, str]) -> str | None:
    if runner.MARK not in environ or "DELEGATE_JOB_CONNECTION" not in environ:
        return None
    from delegate_job.mqtt import read_connection
    from delegate_job.paths import RegistryPaths
    from delegate_job.registry import Registry

    try:
        known = read_connection(Path(environ["DELEGATE_JOB_CONNECTION"]))
        with Registry(RegistryPaths(Path(known.registry_dir))) as registry:
            return registry.row(known.job_id).tmux_socket
    except (OSError, ValueError, DelegateJobError):
        return None
