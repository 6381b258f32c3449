"""The process in the agent's pane: starts the agent, sees its whole process tree to the end, and says so.

It decides nothing about the job, and knows neither broker nor registry: it reads `launch.json` and appends
`spawned`, `spawn_failed` and `exited` to `control.jsonl`. It runs as `python -I -S runner.py JOB_DIR`, and
imports what it can while the agent already starts.
"""

import fcntl
import os
import sys

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from delegate_job.processes import Process

GRACE = 3.0
"""Seconds that what the agent left behind gets to end by itself: longer than `publish` may take."""
TERM_WAIT = 5.0
"""Seconds between TERM and KILL."""
KILL_WAIT = 10.0
"""Seconds for which KILL is repeated: a process in an uninterruptible wait must not hold the job for ever."""
LOCK_WAIT = 2.0
"""Seconds to wait for the lock: somebody who only probes it holds it for a moment."""
MARK = "DELEGATE_JOB_RUNNER"
"""In the agent's environment: the job's id, by which orphans are known when this process was killed."""

_GO = b"g"
_NOT_STARTED = 127
_ALREADY_RUNNING = 75
_PANE_VARIABLES = ("TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION")


def main(job_dir: str) -> int:
    """Run the agent of a job; return its exit code, 128+n for a signal, 127 when it could not be started."""
    lock = _take_lock(os.path.join(job_dir, "runner.lock"))  # noqa: PTH118 - pathlib costs 10 ms of start-up
    if lock is None:
        _say("delegate-job: another runner has this job")
        return _ALREADY_RUNNING
    go_read, go_write = os.pipe()
    failure_read, failure_write = os.pipe()
    agent = os.fork()
    if not agent:
        os.close(go_write)
        os.close(failure_read)
        _become_agent(job_dir, go_read, failure_write)
    os.close(go_read)
    os.close(failure_write)
    watch = _Watch(agent)
    watch.record(lock)
    _in_foreground(agent)
    _write(go_write, _GO)
    return _see_through(job_dir, watch, _read_all(failure_read).decode(errors="replace"))


def _take_lock(path: str) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    for _ in range(int(LOCK_WAIT / 0.02)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            import time

            time.sleep(0.02)
        else:
            return fd
    return None


def _become_agent(job_dir: str, go: int, failure: int) -> "NoReturn":
    """In the forked child: prepare while the parent prepares itself, wait for its word, become the agent."""
    argv: list[str] = []
    try:
        import json

        with open(os.path.join(job_dir, "launch.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - as above
            launch = json.load(file)
        argv = launch["argv"]
        env = launch["env"] | {name: os.environ[name] for name in _PANE_VARIABLES if name in os.environ}
        env |= {"PWD": launch["cwd"], MARK: os.path.basename(job_dir)}  # noqa: PTH119 - as above
        _enter(launch["cwd"])
        _restore(launch["limits"])
        if os.read(go, 1) == _GO:
            os.execvpe(argv[0], argv, env)  # noqa: S606 - there is no shell, on purpose
    except BaseException as error:  # noqa: BLE001 - whatever it is, the child must say it and must not return
        _write(failure, _why(error, argv).encode(errors="replace"))
    os._exit(_NOT_STARTED)


class _NoWorkDirError(Exception):
    """The directory that the agent was to work in can't be entered."""


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise _NoWorkDirError(f"cannot enter the work dir {directory!r}: {error.strerror}") from error


def _restore(limits: "dict[str, int]") -> None:
    """Give the agent what its user had: tmux and this process changed it, or have it from somebody else."""
    import resource
    import signal

    os.umask(limits["umask"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_at_most(limits["nofile"], hard), hard))
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(signum, signal.SIG_DFL)
        except OSError:
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _at_most(soft: int, hard: int) -> int:
    return hard if soft < 0 or 0 <= hard < soft else soft


def _why(error: BaseException, argv: list[str]) -> str:
    """Return one line that says why the agent was not started."""
    import errno

    if isinstance(error, _NoWorkDirError):
        return str(error)
    if not argv:
        return f"cannot read launch.json: {error!r}".replace("\n", " ")
    program, number = repr(argv[0]), getattr(error, "errno", None)
    if number == errno.ENOENT:
        return f"no such program, or its interpreter is missing: {program}"
    if number == errno.E2BIG:
        return f"arguments and environment are too long for this system: {program}"
    if number == errno.ENOEXEC:
        return f"not a program, or a script without #!: {program}"
    return f"cannot run {program}: {getattr(error, 'strerror', None) or error}"


class _Watch:
    """The agent's process tree, seen from its nearest ancestor that stays.

    On Linux that is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): what the agent leaves behind becomes our
    child, so "no children" means "nothing left". Elsewhere the process table is asked.
    """

    def __init__(self, agent: int) -> None:
        import signal

        self.agent = agent
        self.status: int | None = None
        self.asked = 0
        """The signal that asked us to end, or 0."""
        self._reaps_orphans = _become_subreaper()
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(signum, signal.SIG_IGN)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)

    def record(self, lock: int) -> None:
        """Write who we and the agent are into the lock file, before the agent can do anything."""
        from delegate_job import processes

        boot = processes.boot_id()
        people = (("runner", os.getpid()), ("agent", self.agent))
        lines = [f"{who} {pid} {processes.start_of(pid)} {boot}\n" for who, pid in people]
        os.ftruncate(lock, 0)
        os.pwrite(lock, "".join(lines).encode(), 0)

    def wait_for_agent(self) -> None:
        """Return when the agent's first process ended, or when we are asked to end."""
        while self.status is None and not self.asked:
            self._pause(None)
            self._reap()

    def wait_until_empty(self, seconds: float, *, unless_asked: bool = False) -> bool:
        """Return whether the whole tree ended within so many seconds."""
        import time

        end = time.monotonic() + seconds
        while not (empty := self._reap()) and not (unless_asked and self.asked):
            left = end - time.monotonic()
            if left <= 0:
                break
            self._pause(left if self._reaps_orphans else min(left, 0.1))
        return empty

    def members(self) -> "list[Process]":
        """Return the living processes of the tree."""
        from delegate_job import processes

        return processes.tree(processes.table(), os.getpid())

    def signal_all(self, signum: int) -> "list[Process]":
        """Signal every process of the tree, also stopped ones, and return them."""
        import signal

        from delegate_job import processes

        members = self.members()
        for member in members:
            processes.send(member, signum)
            processes.send(member, signal.SIGCONT)
        return members

    def _pause(self, seconds: float | None) -> None:
        import select
        import signal

        if select.select([self._wake], [], [], seconds)[0]:
            came = set(os.read(self._wake, 512))
            self.asked = next(iter(came & {signal.SIGTERM, signal.SIGHUP}), self.asked)

    def _reap(self) -> bool:
        """Take note of all that ended or stopped; return whether nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return self._reaps_orphans or not self.members()
            if not pid:
                return False
            if pid == self.agent:
                self._note(status)

    def _note(self, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self.status = status
            return
        # Ctrl-Z: there is no shell here in which to say `fg`.
        import signal

        _in_foreground(self.agent)
        os.killpg(self.agent, signal.SIGCONT)


def _become_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    pr_set_child_subreaper = 36
    return bool(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)


def _in_foreground(agent: int) -> None:
    """Make the agent a process group of its own, and give it the terminal, so that keys reach it alone."""
    try:
        if os.getpgid(agent) != agent:
            os.setpgid(agent, agent)
        os.tcsetpgrp(0, agent)
    except OSError:
        return  # It has just ended, or the terminal has.


def _see_through(job_dir: str, watch: _Watch, failure: str) -> int:
    """Tell how the agent started, see its tree to the end, tell that."""
    from delegate_job import processes

    if failure:
        _say(failure)
        _tell(job_dir, "spawn_failed", failure, {})
        return _NOT_STARTED
    start = processes.start_of(watch.agent)
    _tell(job_dir, "spawned", None, {"pid": watch.agent, "start": start})
    watch.wait_for_agent()
    killed = 0 if watch.wait_until_empty(GRACE, unless_asked=True) else _end(watch)
    code = None if watch.status is None else os.waitstatus_to_exitcode(watch.status)
    data = {
        "exit_code": code if code is None or code >= 0 else 128 - code,
        "signal": -code if code is not None and code < 0 else None,
        "killed": killed,
        "asked": watch.asked or None,
    }
    _tell(job_dir, "exited", None, data)
    return data["exit_code"] or 0


def _end(watch: _Watch) -> int:
    """End the whole tree: TERM, then KILL. Return how many were ended besides the agent's first process."""
    import signal
    import time

    ended = {member.pid for member in watch.signal_all(signal.SIGTERM)}
    if not watch.wait_until_empty(TERM_WAIT):
        end = time.monotonic() + KILL_WAIT
        while time.monotonic() < end:
            ended |= {member.pid for member in watch.signal_all(signal.SIGKILL)}
            if watch.wait_until_empty(0.05):
                break
    return len(ended - {watch.agent})


def _tell(job_dir: str, kind: str, detail: str | None, data: "dict[str, Any]") -> None:
    from delegate_job import journal

    path = os.path.join(job_dir, "control.jsonl")  # noqa: PTH118 - as above
    try:
        journal.append_event(path, os.path.basename(job_dir), kind, detail, data)  # noqa: PTH119 - as above
    except OSError as error:
        # The owner will see by the lock that we ended; a full disk must not keep the agent from working.
        _say(f"delegate-job: cannot write {path}: {error.strerror}")


def _read_all(fd: int) -> bytes:
    chunks = []
    while chunk := os.read(fd, 4096):
        chunks.append(chunk)
    return b"".join(chunks)


def _write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return  # Nobody is left to read it.


def _say(text: str) -> None:
    _write(1, f"{text}\n".encode(errors="replace"))


if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - as above
    sys.exit(main(sys.argv[1]))
