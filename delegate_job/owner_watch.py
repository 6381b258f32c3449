"""The runner's look at its job's owner: while there is none, tmux is asked to start a supervisor.

It owns nothing and starts nothing itself: what tmux starts is nobody's descendant and outlives the pane. It
stands beside the waiting agent, and imports only what is there anyway.
"""

import os
import sys

from delegate_job.bare_locks import is_held

EVERY = 5.0
"""Seconds between two looks."""
AT_MOST = 300.0
"""Seconds between two requests in a row, when they do not help: each waits twice as long as the last."""
SESSION = "delegate-job-supervisor"
"""The tmux session in which a supervisor is started: of several runners that ask at once, one gets it."""
SUPERVISE = "--supervise"
"""The word by which `pane.py` is told to start a supervisor."""


class OwnerWatch:
    """Sees whether somebody owns the job, by the locks alone."""

    def __init__(self, job_dir: str) -> None:
        self._job_dir = job_dir
        self._pause = EVERY

    def look(self) -> float | None:
        """Look once; return the seconds until the next look, or None when the job needs no owner any more."""
        if not os.path.exists(f"{self._job_dir}/launch.json"):  # noqa: PTH110 - pathlib costs 10 ms
            return None
        if is_held(f"{self._job_dir}/lock"):
            self._pause = EVERY
        elif not is_held(f"{self._job_dir}/../../supervisor.lock"):
            _ask_our_tmux(self._job_dir)
            self._pause = min(self._pause * 2, AT_MOST)
        return self._pause


def ask_tmux(socket: str, job_dir: str) -> bool:
    """Have a tmux server run `pane.py --supervise JOB_DIR`; do not wait for it. False: nobody was asked.

    What tmux starts is its own child, and nobody's who asks.
    """
    script = f"{os.path.dirname(os.path.abspath(__file__))}/pane.py"  # noqa: PTH100, PTH120 - as above
    argv = [sys.executable, "-I", "-S", "-X", "utf8", script, SUPERVISE, job_dir]
    # tmux takes a trailing `;` for the end of its command (3.3a).
    words = [f"{word[:-1]}\\;" if word.endswith(";") else word for word in argv]
    return _call(socket, "new-session", "-d", "-s", SESSION, "--", *words)


def close_our_pane() -> None:
    """Have tmux close the pane around us, and its session if there is no other; do not wait for it."""
    socket, server = _tmux_around()
    pane = os.environ.get("TMUX_PANE", "")
    if socket and pane:
        # Another server at this path has a pane of that name too.
        is_ours = f"#{{==:#{{pid}},{server}}}"
        _call(socket, "if-shell", "-F", "-t", pane, is_ours, f"kill-pane -t {pane}")


def _call(socket: str, *words: str) -> bool:
    import subprocess

    from delegate_job import own_session

    env = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
    quiet = subprocess.DEVNULL
    try:
        # Its own session: the pane may be hung up while it asks.
        own_session.start(
            ["tmux", "-f", os.devnull, "-S", socket, *words],
            env=env,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            cwd="/",
        )
    except OSError:
        return False  # No tmux on this PATH.
    return True


def _tmux_around() -> tuple[str, str]:
    """Return socket and process id of the server around us, from `TMUX=socket,pid,session`."""
    socket, _, server = os.environ.get("TMUX", "").rpartition(",")[0].rpartition(",")
    return socket, server


def _ask_our_tmux(job_dir: str) -> None:
    socket, server = _tmux_around()
    if _lives(server):  # To ask a dead one would start a new one.
        ask_tmux(socket, job_dir)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return False
    return True
