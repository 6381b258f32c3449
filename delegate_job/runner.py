"""The process in the agent's pane: starts the agent, sees its whole process tree to the end, and says so.

It decides nothing about the job and knows no broker: it reads `launch.json`, appends `spawned`,
`spawn_failed` and `exited` to `control.jsonl`, and calls for an owner when the job has none. The agent's
start waits for it, so imports stand where they cost least: what both need before the fork, the rest on its
own side of it, in parallel.
"""

import fcntl
import os

from delegate_job.bare import loads, signal

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from typing import Any, NoReturn

GRACE = 3.0
"""Seconds that what the agent left behind gets to end by itself: longer than `publish` may take."""
LOCK_WAIT = 2.0
"""Seconds to wait for the lock: somebody who only probes it holds it for a moment."""
ENDED = "ended"
"""The last line of the lock file when nothing runs any more, and nothing is to run before the next start."""
MARK = "DELEGATE_JOB_RUNNER"
"""In the agent's environment: `mark`, by which orphans are known when this process was killed."""
NOT_STARTED = 127
"""Exit code when there is no agent."""
NOT_TO_RUN = 75
"""Exit code when another holds the lock, or the lock file is not as empty as `launcher.start` has made it."""

_GO = b"g"
_OF_THE_PANE = ("TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION")


def main(job_dir: str) -> int:
    """Run the agent of a job; return its exit code, 128+n for a signal."""
    lock = _take_lock(f"{job_dir}/runner.lock")
    if lock is None or os.fstat(lock).st_size:
        _say("delegate-job: this job has a runner, or has had one, or is not to have one any more")
        if lock is not None and _comes_too_late(job_dir, lock):
            from delegate_job import owner_watch

            owner_watch.close_our_pane()
        return NOT_TO_RUN
    go_read, go = os.pipe()
    failure, failure_write = os.pipe()
    agent = os.fork()
    if not agent:
        os.close(go)
        os.close(failure)
        _become_agent(job_dir, mark(job_dir, os.fstat(lock)), go_read, failure_write)
    os.close(go_read)
    os.close(failure_write)
    return _see_through(job_dir, agent, lock, go, failure)


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


def _comes_too_late(job_dir: str, lock: int) -> bool:
    """Return whether the launch was given up before it came to us, and its job is over.

    Then nobody has seen the pane, and nobody looks for it. A runner that has run has left more in the lock.
    """
    is_forbidden = os.pread(lock, 64, 0) == f"{ENDED}\n".encode()
    return is_forbidden and not os.path.exists(f"{job_dir}/launch.json")  # noqa: PTH110 - pathlib costs 10 ms


def mark(job_dir: str, lock: os.stat_result) -> str:
    """Return what names one job on this machine by whatever path: its id and its lock file's inode."""
    return f"{_job_id(job_dir)}:{lock.st_dev:x}:{lock.st_ino:x}"


def _become_agent(job_dir: str, marked: str, go: int, failure: int) -> "NoReturn":
    """In the forked child: prepare while the parent prepares itself, wait for its word, become the agent."""
    argv: list[str] = []
    try:
        launch = _read_launch_file(job_dir)
        argv = launch["argv"]
        of_the_pane = {name: os.environ[name] for name in _OF_THE_PANE if name in os.environ}
        env = launch["env"] | of_the_pane | {"PWD": launch["cwd"], MARK: marked}
        _enter(launch["cwd"])
        _restore(launch["limits"])
        if os.read(go, 1) == _GO:
            os.execvpe(argv[0], argv, env)  # noqa: S606 - there is no shell, on purpose
    except BaseException as error:  # noqa: BLE001 - whatever it is, the child must say it and must not return
        _write(failure, _why(error, argv).encode(errors="replace"))
    finally:
        os._exit(NOT_STARTED)


def _read_launch_file(job_dir: str) -> "dict[str, Any]":
    path = f"{job_dir}/launch.json"
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms of start-up
        launch: dict[str, Any] = loads(file.read())
    return launch


def _job_id(job_dir: str) -> str:
    return job_dir.rstrip("/").rpartition("/")[2]


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

    os.umask(limits["umask"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = limits["nofile"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < 0 or 0 <= hard < soft else soft, hard))
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _why(error: BaseException, argv: list[str]) -> str:
    """Return one line that says why the agent was not started."""
    import errno

    if isinstance(error, _NoWorkDirError):
        return str(error)
    if not (isinstance(argv, list) and argv):
        return f"cannot read launch.json: {error!r}".replace("\n", " ")
    program, number = repr(argv[0]), getattr(error, "errno", None)
    if number == errno.ENOENT:
        return f"no such program, or its interpreter is missing: {program}"
    if number == errno.E2BIG:
        return f"arguments and environment are too long for this system: {program}"
    if number == errno.ENOEXEC:
        return f"not a program, or a script without #!: {program}"
    return f"cannot run {program}: {getattr(error, 'strerror', None) or error}"


def _see_through(job_dir: str, agent: int, lock: int, go: int, failure: int) -> int:
    """Let the agent go when all is ready to hold it, see its tree to the end, and tell both."""
    from delegate_job.agent_tree import AgentTree
    from delegate_job.owner_watch import OwnerWatch

    watch = OwnerWatch(job_dir)
    tree = AgentTree(agent)
    start = _record(lock, agent)
    tree.to_foreground()
    _write(go, _GO)
    os.close(go)
    if why := os.read(failure, 65536).decode(errors="replace"):
        _say(f"delegate-job: {why}")
        _tell(job_dir, "spawn_failed", why, {})
        os.pwrite(lock, f"{ENDED}\n".encode(), os.fstat(lock).st_size)
        return NOT_STARTED
    argv0 = _read_launch_file(job_dir)["argv"][0]
    _tell(job_dir, "spawned", None, {"pid": agent, "start": start, "argv0": argv0})
    tree.wait_for_agent(watch.look)
    killed = 0 if tree.wait_until_empty(GRACE, unless_asked=True) else tree.end()
    code = None if tree.status is None else os.waitstatus_to_exitcode(tree.status)
    how = {"killed": killed, "asked": tree.asked or None, "signal": -code if code and code < 0 else None}
    exit_code = 128 - code if code and code < 0 else code
    _tell(job_dir, "exited", None, {"exit_code": exit_code, **how})
    if tree.asked != signal.SIGHUP:  # Else the pane is gone, and mostly tmux with it.
        watch.look()
    if tree.wait_until_empty(0):
        os.pwrite(lock, f"{ENDED}\n".encode(), os.fstat(lock).st_size)
        _forget_home(job_dir, lock)
    return exit_code or 0


def _forget_home(job_dir: str, lock: int) -> None:
    """Remove the agent's private home if the job is done: its owner has left it to an agent that stayed.

    First the lock is freed, so that an owner that comes too late for us sees that nobody needs the home.
    """
    home = f"{job_dir}/home"
    if not os.path.isdir(home):  # noqa: PTH112 - pathlib costs 10 ms of start-up
        return
    os.close(lock)
    if not os.path.exists(f"{job_dir}/environ.json"):  # noqa: PTH110 - as above
        import shutil

        shutil.rmtree(home, ignore_errors=True)


def _record(lock: int, agent: int) -> str | None:
    """Write who we and the agent are into the lock file, before the agent can act; return its start."""
    from delegate_job import processes

    boot, start = processes.boot_id(), processes.start_of(agent)
    text = f"runner {os.getpid()} {processes.start_of(os.getpid())} {boot}\nagent {agent} {start} {boot}\n"
    os.pwrite(lock, text.encode(), 0)
    return start


def _tell(job_dir: str, kind: str, detail: str | None, data: "dict[str, Any]") -> None:
    from delegate_job import journal_line

    try:
        journal_line.append_event(f"{job_dir}/control.jsonl", _job_id(job_dir), kind, detail, data)
    except OSError as error:
        # The owner will see by the lock that we ended; a full disk must not keep the agent from working.
        _say(f"delegate-job: cannot write {job_dir}/control.jsonl: {error.strerror}")


def _write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return  # Nobody is left to read it.


def _say(text: str) -> None:
    _write(1, f"{text}\n".encode(errors="replace"))
