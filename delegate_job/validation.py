"""The owner's check of an agent's work: run a script, say what its end means.

Not who claims what, and not how a job goes on after a verdict. The script is known by its hash: what is not
the file of the submit says nothing about the work.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from delegate_job import check_process, locks, processes
from delegate_job.check_output import Output
from delegate_job.check_process import CannotStartError, CheckStopped, Command, Ended, argv_for
from delegate_job.environment import read_limits
from delegate_job.errors import UsageError
from delegate_job.job import JobSpec, Verdict
from delegate_job.paths import JobPaths, absolute
from delegate_job.processes import Process

__all__ = [
    "Check",
    "CheckResult",
    "CheckStopped",
    "argv_for",
    "check_of",
    "end_leftover",
    "fingerprint",
    "run",
    "verify",
]

_OWN = "DELEGATE_JOB_"


@dataclass(frozen=True, slots=True)
class Check:
    """A check: the script, the hash it must have (None: any), where and with what it runs, for how long."""

    script: str
    sha256: str | None
    workdir: str
    environ: Mapping[str, str] = field(repr=False)
    timeout: float

    def is_unchanged(self) -> bool:
        """Whether the script is the file of the submit; one that cannot be read any more is not."""
        try:
            return self.sha256 is None or fingerprint(self.script) == self.sha256
        except UsageError:
            return False


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check said of the work.

    `exit_code` is the script's own (128 + n after signal n; 126 or 127 when it could not be started), None
    when it ran out of time, was not begun, or its code could not be learned. `log` may be missing on a full
    disk.
    """

    verdict: Verdict
    exit_code: int | None
    output_tail: str
    seconds: float
    log: Path


def fingerprint(script: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a script. Raises UsageError when it is missing, unreadable or no regular file."""
    try:
        # Without O_NONBLOCK a FIFO would wait for a writer.
        fd = os.open(script, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _sha256(fd, script)
        finally:
            os.close(fd)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"the check cannot be read: {os.fspath(script)}: {why}") from None


def _sha256(fd: int, script: str | os.PathLike[str]) -> str:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise UsageError(f"the check is not a regular file: {os.fspath(script)}")
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_of(
    spec: JobSpec,
    *,
    attempt: int,
    environ: Mapping[str, str],
    registry_dir: str | os.PathLike[str],
) -> Check:
    """Return the check of a job. `environ` is that of the submit; our own variables in it are left out."""
    own = {
        "JOB_ID": spec.id,
        "REGISTRY_DIR": os.fspath(registry_dir),
        "JOB_LOG_DIR": spec.log_dir,
        "JOB_WORKDIR": spec.workdir,
        "JOB_ATTEMPT": str(attempt),
        "JOB_AGENT": spec.agent,
    }
    others = {name: value for name, value in environ.items() if not name.startswith(_OWN)}
    return Check(
        script=absolute(spec.validate or ""),
        sha256=spec.validate_sha256,
        workdir=spec.workdir,
        environ={**others, **own},
        timeout=spec.validate_timeout,
    )


def run(
    paths: JobPaths,
    spec: JobSpec,
    *,
    attempt: int,
    environ: Mapping[str, str],
    registry_dir: str | os.PathLike[str],
    stop: threading.Event | None = None,
) -> CheckResult:
    """Run the job's check number `attempt`, holding its lock, its output in `validation-<attempt>.log`.

    A script that cannot be started has failed, with the reason as its output; one that is not the file of the
    submit, before or after, is `changed` and its exit code means nothing. Raises CheckStopped when `stop` is
    set.
    """
    check = check_of(spec, attempt=attempt, environ=environ, registry_dir=registry_dir)
    log = paths.validation_log(attempt)
    with _locked(paths) as lock_fd, _log_of(log) as log_fd:
        if not check.is_unchanged():
            return CheckResult(Verdict.CHANGED, None, "the check is not the file of the submit\n", 0.0, log)
        limits = read_limits(paths.environ)
        result = _execute(check, Output(log_fd), log, lock_fd=lock_fd, stop=stop, limits=limits)
        if not check.is_unchanged():
            return CheckResult(Verdict.CHANGED, result.exit_code, result.output_tail, result.seconds, log)
        return result


def verify(
    paths: JobPaths,
    spec: JobSpec,
    script: str | os.PathLike[str],
    *,
    attempt: int,
    environ: Mapping[str, str],
    registry_dir: str | os.PathLike[str],
    echo: Callable[[bytes], None] | None = None,
    timeout: float | None = None,
) -> CheckResult:
    """Run any script against a job's work as its check would run; `echo` gets the output as it comes.

    It takes no lock and no hash, and logs to the first free `validation-verify-<n>.log`. Raises UsageError
    when the script cannot be read.
    """
    fingerprint(script)
    base = check_of(spec, attempt=attempt, environ=environ, registry_dir=registry_dir)
    seconds = base.timeout if timeout is None else timeout
    check = Check(absolute(script), None, base.workdir, base.environ, seconds)
    with _verify_log(paths) as (log, log_fd):
        return _execute(check, Output(log_fd, echo), log)


def end_leftover(paths: JobPaths) -> None:
    """End a check whose owner died, so that its lock is free. Does nothing when none runs."""
    if not locks.is_held(paths.check_lock):
        return
    if record := check_process.read_record(paths.check_lock):
        check_process.end_session(*record)
    if locks.is_held(paths.check_lock):
        # Who left the session has the lock open still; and so has the check of an owner that was killed
        # before it could write the record.
        check_process.end_all(lambda: list(_holders(paths.check_lock)))
    if locks.is_held(paths.check_lock):
        paths.check_lock.unlink(missing_ok=True)


def _execute(
    check: Check,
    output: Output,
    log: Path,
    *,
    lock_fd: int | None = None,
    stop: threading.Event | None = None,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> CheckResult:
    begun = time.monotonic()
    command = Command(
        check.script,
        check.workdir,
        check.environ,
        check.timeout,
        limits.get("umask", -1),
        limits.get("nofile"),
    )
    try:
        ended = check_process.run(command, output, lock_fd=lock_fd, stop=stop)
    except CannotStartError as error:
        output.take(f"{error.reason}\n".encode())
        ended = Ended(error.exit_code)
    if ended.exit_code is None and not ended.timed_out:
        output.take(b"\n[delegate-job: the exit code could not be learned: is SIGCHLD ignored?]\n")
    return CheckResult(_verdict(ended), ended.exit_code, output.tail, time.monotonic() - begun, log)


def _verdict(ended: Ended) -> Verdict:
    if ended.timed_out:
        return Verdict.TIMED_OUT
    return Verdict.PASSED if ended.exit_code == 0 else Verdict.FAILED


@contextlib.contextmanager
def _locked(paths: JobPaths) -> Iterator[int]:
    fd = locks.acquire(paths.check_lock)
    if fd is None:
        end_leftover(paths)
        fd = locks.acquire(paths.check_lock, wait=1.0)
    if fd is None:
        raise OSError(f"{paths.check_lock} is held by another check of this job")
    try:
        yield fd
    finally:
        os.ftruncate(fd, 0)
        # For all who inherited it: a daemon that left the check's session must not hold the lock for ever.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextlib.contextmanager
def _log_of(path: Path) -> Iterator[int | None]:
    """Open the log anew, or give None: without a log there is still a verdict."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    fd = _create(path)
    try:
        yield fd
    finally:
        _close(fd)


@contextlib.contextmanager
def _verify_log(paths: JobPaths) -> Iterator[tuple[Path, int | None]]:
    for n in itertools.count(1):
        path = paths.root / f"validation-verify-{n}.log"
        fd = _create(path)
        if fd is not None or not path.exists():
            break
    try:
        yield path, fd
    finally:
        _close(fd)


def _create(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _holders(lock: Path) -> Iterator[Process]:
    """Find the processes that have the lock's file open; on Linux alone, and of our own user alone."""
    wanted = lock.stat()
    for process in processes.table().values():
        if process.pid != os.getpid() and _has_open(process.pid, wanted):
            yield process


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        opened = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False
    for entry in opened:
        with contextlib.suppress(OSError):
            if os.path.samestat(entry.stat(), wanted):
                return True
    return False
