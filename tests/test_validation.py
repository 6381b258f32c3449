"""The owner's check, run with real scripts."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from delegate_job import check_output, check_process, locks, processes, validation
from delegate_job.errors import UsageError
from delegate_job.job import JobSpec, Verdict
from delegate_job.paths import JobPaths
from delegate_job.validation import CheckResult, CheckStopped
from harness import PATIENCE, wait_until


@dataclass(frozen=True)
class Bench:
    """A work dir, a job directory and a check."""

    root: Path

    @property
    def paths(self) -> JobPaths:
        """The job directory."""
        return JobPaths(self.root / "job")

    @property
    def workdir(self) -> Path:
        """The work dir."""
        return self.root / "work"

    @property
    def pids(self) -> Path:
        """Where scripts write the pids that must be gone, one a line."""
        return self.root / "pids"

    def script(self, text: str | bytes, *, name: str = "check.sh", mode: int = 0o755) -> Path:
        """Write a script."""
        path = self.root / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def spec(self, script: Path, *, timeout: float = 20, sha256: str | None = None) -> JobSpec:
        """Describe a job whose check is the script as it is now."""
        return JobSpec(
            id="4f3a9b2c",
            agent="codex",
            workdir=str(self.workdir),
            session="dj-4f3a9b2c",
            log_dir=str(self.root / "logs"),
            prompt_sha256="",
            validate=str(script),
            validate_sha256=sha256 or validation.fingerprint(script),
            validate_timeout=timeout,
            attempts=3,
        )

    def check(
        self,
        script: Path,
        *,
        timeout: float = 20,
        environ: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
        sha256: str | None = None,
    ) -> CheckResult:
        """Run check number 1 of such a job."""
        return validation.run(
            self.paths,
            self.spec(script, timeout=timeout, sha256=sha256),
            attempt=1,
            environ={"PATH": os.environ["PATH"], "PIDS": str(self.pids)} if environ is None else environ,
            registry_dir=self.root / "registry",
            stop=stop,
        )

    def log(self) -> bytes:
        """Return what stands in the log of check number 1."""
        return self.paths.validation_log(1).read_bytes()

    def written_pids(self, count: int = 1) -> list[int]:
        """Return the pids that the script wrote, once all are there."""
        wait_until(lambda: self.has_written(count), what="pids of the check")
        return [int(line) for line in self.pids.read_text().split()]

    def has_written(self, count: int) -> bool:
        """Say whether the script has written so many pids."""
        return self.pids.exists() and self.pids.read_bytes().count(b"\n") >= count


def begin_the_limit(monkeypatch: pytest.MonkeyPatch, bench: Bench, count: int) -> None:
    """Let the check's clock stand still until the script, which may start late, has written `count` pids."""
    begun = time.monotonic()

    def now() -> float:
        return time.monotonic() if bench.has_written(count) else begun

    monkeypatch.setattr(check_process, "time", SimpleNamespace(monotonic=now))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a bench; what its scripts started is ended."""
    here = Bench(tmp_path)
    here.workdir.mkdir()
    here.paths.root.mkdir()
    yield here
    for pid in here.pids.read_text().split() if here.pids.exists() else ():
        if processes.carries(int(pid), b"PIDS=" + bytes(here.pids)):
            os.kill(int(pid), signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether no living process has this pid."""
    return processes.start_of(pid) is None


@pytest.mark.parametrize(
    ("text", "verdict", "exit_code"),
    [
        ("#!/bin/sh\nexit 0\n", Verdict.PASSED, 0),
        ("#!/bin/sh\nexit 1\n", Verdict.FAILED, 1),
        ("#!/bin/sh\nexit 255\n", Verdict.FAILED, 255),
        ("#!/bin/sh\nkill -9 $$\n", Verdict.FAILED, 137),
        ("#!/bin/sh\nkill -TERM $$\n", Verdict.FAILED, 143),
        ("#!/usr/bin/env python3\nraise SystemExit(7)\n", Verdict.FAILED, 7),
    ],
)
def test_exit_code_decides(bench: Bench, text: str, verdict: Verdict, exit_code: int) -> None:
    """0 passes, everything else fails with the script's own code, 128 + n for a signal."""
    result = bench.check(bench.script(text))
    assert (result.verdict, result.exit_code) == (verdict, exit_code)


@pytest.mark.parametrize("waitid", [True, False])
def test_without_what_linux_has(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, waitid: bool) -> None:
    """Where there is no pidfd, and no waitid either (macOS), ends, codes and limits are the same."""
    monkeypatch.setattr(check_process, "_pidfd", lambda _: None)
    if not waitid:
        monkeypatch.delattr(os, "waitid")
    assert bench.check(bench.script("echo a; exit 0\n")).verdict is Verdict.PASSED
    assert bench.check(bench.script("exec >&- 2>&-; sleep 0.1; exit 3\n")).exit_code == 3
    assert bench.check(bench.script("kill -9 $$\n")).exit_code == 137
    assert bench.check(bench.script("sleep 300\n"), timeout=0.3).verdict is Verdict.TIMED_OUT


def test_output_goes_to_a_private_log(bench: Bench) -> None:
    """Both streams stand in the log, which only the user may read, and their end in the result."""
    result = bench.check(bench.script("echo out; echo err >&2; exit 2\n"))
    assert bench.log() == b"out\nerr\n"
    assert result.output_tail == "out\nerr\n"
    assert result.log == bench.paths.validation_log(1)
    assert stat.S_IMODE(result.log.stat().st_mode) == 0o600
    assert result.seconds < 20


def test_environment_is_that_of_the_submit_and_the_job(bench: Bench) -> None:
    """The check gets the given environment, the job's six variables, and nothing of ours or this process."""
    environ = {
        "PATH": os.environ["PATH"],
        "MINE": "kept $(touch X)\nline",
        "DELEGATE_JOB_ID": "outer",
        "DELEGATE_JOB_CONNECTION": "/outer",
        "JOB_ID": "outer",
    }
    bench.check(bench.script("env -0\n"), environ=environ)
    seen = dict(pair.split("=", 1) for pair in bench.log().decode().split("\0") if pair)
    assert seen.pop("MINE") == "kept $(touch X)\nline"
    assert not [name for name in seen if name.startswith("DELEGATE_JOB_")]
    assert {name: seen[name] for name in seen if name.startswith(("JOB_", "REGISTRY"))} == {
        "JOB_ID": "4f3a9b2c",
        "REGISTRY_DIR": str(bench.root / "registry"),
        "JOB_LOG_DIR": str(bench.root / "logs"),
        "JOB_WORKDIR": str(bench.workdir),
        "JOB_ATTEMPT": "1",
        "JOB_AGENT": "codex",
    }
    assert "PYTEST_CURRENT_TEST" not in seen


def test_runs_in_the_work_dir_with_no_input_and_no_terminal(bench: Bench) -> None:
    """It stands in the work dir, reads end-of-file, and has a session of its own."""
    bench.check(bench.script("pwd; cat; ps -o sid= -p $$ | tr -d ' '; echo $$\n"))
    where, session, pid = bench.log().decode().split()
    assert where == str(bench.workdir)
    assert session == pid


@pytest.mark.parametrize(
    "name",
    [
        "-rf",
        "--help",
        "a b",
        "a'b\"c",
        "$(touch INJECTED)",
        "`touch INJECTED`",
        "a;b",
        "#(touch INJECTED)",
        "ü%H*",
    ],
)
@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_hostile_names_are_only_names(bench: Bench, name: str, mode: int) -> None:
    """A script of any name is run, executable or not, and its name is never executed."""
    result = bench.check(bench.script('printf "%s" "$0"; exit 4\n', name=name, mode=mode))
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 4)
    assert bench.log() == bytes(bench.root / name)
    assert not list(bench.root.rglob("INJECTED"))


def test_name_of_odd_bytes(bench: Bench) -> None:
    """A script whose name is not UTF-8 is run."""
    path = Path(os.fsdecode(bytes(bench.root) + b"/\xff\xfe.sh"))
    path.write_text("exit 6\n")
    assert bench.check(path).exit_code == 6


def test_executable_without_an_interpreter_line(bench: Bench) -> None:
    """A text without `#!` that is executable runs as a shell would run it."""
    result = bench.check(bench.script("echo $BASH_VERSION; exit 5\n", mode=0o755))
    assert result.exit_code == 5
    assert result.output_tail.strip()


def test_not_executable_runs_with_bash(bench: Bench) -> None:
    """A file without the executable bit runs with bash, whatever its first line says."""
    result = bench.check(bench.script("#!/no/such\n[[ -n $BASH_VERSION ]] && exit 5\n", mode=0o644))
    assert result.exit_code == 5


def test_windows_line_ends_are_named(bench: Bench) -> None:
    """An interpreter line that ends with CR LF fails, and the reason is in the output."""
    result = bench.check(bench.script(b"#!/bin/sh\r\nexit 0\r\n"))
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 127)
    assert "CR LF" in result.output_tail
    assert b"CR LF" in bench.log()


def test_missing_interpreter_is_named(bench: Bench) -> None:
    """A script whose interpreter is missing fails, and the reason names it."""
    result = bench.check(bench.script("#!/no/such/interpreter -x\n"))
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 127)
    assert "no such interpreter: #!/no/such/interpreter -x" in result.output_tail


def test_without_bash(bench: Bench) -> None:
    """Where there is no bash, a script that needs it fails and says so."""
    result = bench.check(bench.script("exit 0\n", mode=0o644), environ={"PATH": "/nowhere"})
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 127)
    assert "bash is not on PATH" in result.output_tail


def test_not_a_program(bench: Bench) -> None:
    """Bytes that are no program fail; they are not an error of ours."""
    result = bench.check(bench.script(b"\x7fELF\x00\x01garbage\x00"))
    assert result.verdict is Verdict.FAILED


def test_open_for_writing(bench: Bench) -> None:
    """A script that somebody still has open is waited for; one that stays open fails with the reason."""
    script = bench.script("#!/bin/sh\nexit 0\n")
    with script.open("ab") as writer:
        threading.Timer(0.3, writer.close).start()
        assert bench.check(script).verdict is Verdict.PASSED
    with script.open("ab"):
        result = bench.check(script)
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 126)
    assert "open for writing" in result.output_tail


def test_work_dir_is_gone(bench: Bench) -> None:
    """Without the work dir the check fails and says so; it runs nowhere else."""
    bench.workdir.rmdir()
    result = bench.check(bench.script("#!/bin/sh\nexit 0\n"))
    assert result.verdict is Verdict.FAILED
    assert f"the work dir {bench.workdir} cannot be entered" in result.output_tail


def test_environment_too_long_to_start(bench: Bench) -> None:
    """What execve refuses is a failed check with the reason."""
    result = bench.check(bench.script("#!/bin/sh\nexit 0\n"), environ={"PATH": "/bin", "LONG": "x" * 200_000})
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 126)
    assert "argument list too long" in result.output_tail


def test_changed_before_is_not_run(bench: Bench) -> None:
    """A script that is not the file of the submit is not even started."""
    script = bench.script(f"#!/bin/sh\ntouch {bench.root}/RAN\n")
    sha256 = validation.fingerprint(script)
    script.write_text(f"#!/bin/sh\ntouch {bench.root}/RAN\nexit 0\n")
    result = bench.check(script, sha256=sha256)
    assert (result.verdict, result.exit_code) == (Verdict.CHANGED, None)
    assert not (bench.root / "RAN").exists()


@pytest.mark.parametrize(
    "does", ['echo >>"$0"', 'rm "$0"', 'rm "$0"; mkdir "$0"', 'mv "$0" "$0.x"; ln -s /bin/true "$0"']
)
def test_changed_while_it_runs(bench: Bench, does: str) -> None:
    """A script that is changed, removed or replaced while it runs has no say, even when it ends with 0."""
    result = bench.check(bench.script(f"#!/bin/bash\n{does}\nexit 0\n"))
    assert result.verdict is Verdict.CHANGED


def test_missing_at_the_check(bench: Bench) -> None:
    """A script that is gone when the check is due counts as changed."""
    script = bench.script("#!/bin/sh\nexit 0\n")
    sha256 = validation.fingerprint(script)
    script.unlink()
    assert bench.check(script, sha256=sha256).verdict is Verdict.CHANGED


def test_time_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit a check is ended, children and all; its output until then is kept."""
    begin_the_limit(monkeypatch, bench, 2)
    text = "echo before; sleep 300 & echo $! >>$PIDS; echo $$ >>$PIDS; wait\n"
    result = bench.check(bench.script(text), timeout=0.5)
    assert (result.verdict, result.exit_code) == (Verdict.TIMED_OUT, None)
    assert result.output_tail == "before\n"
    assert all(map(gone, bench.written_pids(2)))


def test_time_limit_with_term_ignored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that ignores TERM is killed, and so is a child in another process group or session."""
    begin_the_limit(monkeypatch, bench, 3)
    text = """trap '' TERM
(trap '' TERM; echo $BASHPID >>$PIDS; while :; do sleep 1; done) &
set -m; (trap '' TERM; echo $BASHPID >>$PIDS; while :; do sleep 1; done) &
set +m
setsid bash -c 'trap "" TERM; echo $$ >>$PIDS; while :; do sleep 1; done' &
while :; do sleep 1; done
"""
    result = bench.check(bench.script(text), timeout=0.7)
    assert result.verdict is Verdict.TIMED_OUT
    assert all(map(gone, bench.written_pids(3)))


def test_term_is_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit a check gets TERM and may clean up; what it says then is kept."""
    begin_the_limit(monkeypatch, bench, 1)
    monkeypatch.setattr(check_process, "GRACE", PATIENCE)
    text = "trap 'echo cleaned; exit 0' TERM; echo ready; echo $$ >>$PIDS; while :; do sleep 0.05; done\n"
    result = bench.check(bench.script(text), timeout=0.5)
    assert result.verdict is Verdict.TIMED_OUT
    assert result.output_tail.endswith("cleaned\n")


def test_stop(bench: Bench) -> None:
    """A stopped check has no verdict, leaves no process, and its lock is free."""
    stop = threading.Event()
    script = bench.script("echo $$ >>$PIDS; sleep 300\n")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            bench.check(script, stop=stop)
        except CheckStopped as stopped:
            raised.append(stopped)

    thread = threading.Thread(target=run)
    thread.start()
    (pid,) = bench.written_pids()
    assert locks.is_held(bench.paths.check_lock)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(raised) == 1
    assert gone(pid)
    assert not locks.is_held(bench.paths.check_lock)


def test_what_it_leaves_behind_is_ended(bench: Bench) -> None:
    """A background process of the check ends with it, does not hold it up, and frees the lock."""
    text = "sleep 300 & echo $! >>$PIDS; echo done; exit 0\n"
    result = bench.check(bench.script(text))
    assert (result.verdict, result.output_tail) == (Verdict.PASSED, "done\n")
    assert gone(bench.written_pids()[0])
    assert not locks.is_held(bench.paths.check_lock)
    assert bench.paths.check_lock.read_text() == ""


def test_daemon_that_left_the_session(bench: Bench) -> None:
    """A daemon that detached for good neither holds the check up nor its lock, even while it prints."""
    text = """setsid bash -c 'echo $$ >>$PIDS; while :; do echo noise; done' &
while [ ! -s $PIDS ]; do sleep 0.01; done
exit 3
"""
    result = bench.check(bench.script(text))
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 3)
    assert not locks.is_held(bench.paths.check_lock)
    (pid,) = bench.written_pids()
    # It printed into our pipe, which is closed by now.
    wait_until(lambda: gone(pid), what="the daemon to meet the closed pipe")


def test_closed_output(bench: Bench) -> None:
    """A check that closes its output goes on, and its exit code counts."""
    result = bench.check(bench.script("exec >&- 2>&-; sleep 0.2; exit 9\n"))
    assert (result.verdict, result.exit_code) == (Verdict.FAILED, 9)


def test_output_without_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB of output block nothing: the log ends at its limit and says so, the end is in the result."""
    text = "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1\n"
    result = bench.check(bench.script(text), timeout=100)
    assert result.exit_code == 1
    assert result.output_tail.endswith("x\nthe end\n")
    assert len(result.output_tail) == check_output.TAIL_LIMIT
    log = bench.log()
    assert check_output.LOG_LIMIT < len(log) < check_output.LOG_LIMIT + 200
    assert log.endswith(b"[delegate-job: the log ends here, at its limit of 67108864 bytes]\n")


def test_odd_bytes_in_the_output(bench: Bench) -> None:
    """Output that is not UTF-8 is logged as it is, and replaced in the result."""
    result = bench.check(bench.script("printf 'a\\377\\000b\\033[2J'\n"))
    assert bench.log() == b"a\xff\0b\x1b[2J"
    assert result.output_tail == "a\ufffd\0b\x1b[2J"


def test_log_that_cannot_be_written(bench: Bench) -> None:
    """Without a log there is a verdict all the same."""
    bench.paths.validation_log(1).mkdir()
    result = bench.check(bench.script("echo said; exit 3\n"))
    assert (result.exit_code, result.output_tail) == (3, "said\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_full_disk(bench: Bench) -> None:
    """A disk that is full in the middle changes no verdict, and the result says that the log is not whole."""
    fd = os.open("/dev/full", os.O_WRONLY)
    output = check_output.Output(fd)
    command = check_process.Command(str(bench.script("echo a; sleep 0.1; echo b; exit 3\n")), "/", {}, 10)
    ended = check_process.run(command, output)
    os.close(fd)
    assert ended.exit_code == 3
    assert "a\n" in output.tail
    assert output.tail.endswith("b\n")
    assert "the log is not whole: No space left on device" in output.tail


def test_a_log_is_made_anew(bench: Bench) -> None:
    """A log of before is replaced, and a link in its place is not followed."""
    target = bench.root / "target"
    target.write_text("kept")
    bench.paths.validation_log(1).symlink_to(target)
    bench.check(bench.script("echo new\n"))
    assert bench.log() == b"new\n"
    assert target.read_text() == "kept"


@pytest.mark.parametrize("prepare", ["missing", "directory", "fifo", "socketless device"])
def test_fingerprint_of_what_is_no_script(bench: Bench, prepare: str) -> None:
    """What is no regular file is refused in one line that names it, without waiting."""
    path = bench.root / "check"
    if prepare == "directory":
        path.mkdir()
    elif prepare == "fifo":
        os.mkfifo(path)
    elif prepare == "socketless device":
        path = Path("/dev/null")
    with pytest.raises(UsageError) as raised:
        validation.fingerprint(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_fingerprint_of_an_unreadable_script(bench: Bench) -> None:
    """An unreadable script is refused with the reason."""
    with pytest.raises(UsageError, match="permission denied"):
        validation.fingerprint(bench.script("exit 0\n", mode=0o000))


def test_fingerprint_is_sha256_through_links(bench: Bench) -> None:
    """The hash is that of the content, also through a link."""
    script = bench.script("exit 0\n")
    link = bench.root / "link"
    link.symlink_to(script)
    by_hand = subprocess.run(["sha256sum", script], capture_output=True, check=True, text=True).stdout
    assert validation.fingerprint(link) == validation.fingerprint(script) == by_hand.split()[0]


_OWNER = """
import os, sys, json
from delegate_job import validation
from delegate_job.job import JobSpec
from delegate_job.paths import JobPaths
from pathlib import Path
spec = JobSpec(**json.loads(sys.argv[2]))
print(validation.run(JobPaths(Path(sys.argv[1])), spec, attempt=1, environ=os.environ, registry_dir="/r"))
"""


def start_owner(bench: Bench, script: Path, *, before: str = "") -> "subprocess.Popen[str]":
    """Run a check from another process, as an owner that can be killed."""
    import json

    spec = json.dumps(bench.spec(script)._asdict())
    return subprocess.Popen(
        [sys.executable, "-c", before + _OWNER, str(bench.paths.root), spec],
        env={"PATH": os.environ["PATH"], "PIDS": str(bench.pids)},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_owner(owner: "subprocess.Popen[str]") -> None:
    """End an owner as `kill -9` does."""
    owner.kill()
    owner.communicate(timeout=10)


def test_leftover_of_a_dead_owner_is_ended(bench: Bench) -> None:
    """The lock outlives a killed owner as long as its check does; the check is ended, and the lock free."""
    owner = start_owner(bench, bench.script("sleep 300 & echo $! >>$PIDS; echo $$ >>$PIDS; wait\n"))
    pids = bench.written_pids(2)
    kill_owner(owner)
    assert locks.is_held(bench.paths.check_lock)
    validation.end_leftover(bench.paths)
    assert all(map(gone, pids))
    assert not locks.is_held(bench.paths.check_lock)


@pytest.mark.skipif(sys.platform != "linux", reason="who has a file open is asked of /proc")
@pytest.mark.parametrize("record", ["", "garbage", "1 12345", "999999999 1"])
def test_leftover_without_a_record(bench: Bench, record: str) -> None:
    """A check whose owner died before it wrote the pid is ended, and nobody whose pid a bad record names."""
    text = "setsid sleep 300 & echo $! >>$PIDS; echo $$ >>$PIDS; exec sleep 300\n"
    owner = start_owner(bench, bench.script(text))
    pids = bench.written_pids(2)
    kill_owner(owner)
    bench.paths.check_lock.write_text(record)
    validation.end_leftover(bench.paths)
    assert all(map(gone, pids))
    assert not locks.is_held(bench.paths.check_lock)


def test_leftover_spares_a_stranger_with_the_same_pid(bench: Bench) -> None:
    """A pid that belongs to another process by now is not signalled."""
    bench.paths.check_lock.touch()
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    holder = locks.acquire(bench.paths.check_lock)
    assert holder is not None
    try:
        os.write(holder, f"{stranger.pid} 1\n".encode())
        validation.end_leftover(bench.paths)
        assert not gone(stranger.pid)
    finally:
        os.close(holder)
        stranger.kill()
        stranger.wait(10)


def test_run_ends_a_leftover_first(bench: Bench) -> None:
    """A new owner's check does not run beside that of the dead one."""
    owner = start_owner(bench, bench.script("echo $$ >>$PIDS; sleep 300\n"))
    (pid,) = bench.written_pids()
    kill_owner(owner)
    result = bench.check(bench.script("exit 0\n", name="second.sh"))
    assert result.verdict is Verdict.PASSED
    assert gone(pid)


def test_nothing_left_over(bench: Bench) -> None:
    """Without a running check there is nothing to end, with or without a lock file."""
    validation.end_leftover(bench.paths)
    bench.paths.check_lock.write_text(f"{os.getpid()} 1\n")
    validation.end_leftover(bench.paths)
    assert bench.paths.check_lock.exists()


def test_sigchld_ignored_never_reads_as_passed(bench: Bench) -> None:
    """An owner that inherited an ignored SIGCHLD can't learn exit codes: the check has not passed."""
    before = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    owner = start_owner(bench, bench.script("exit 1\n"), before=before)
    said, _ = owner.communicate(timeout=20)
    assert "Verdict.FAILED" in said
    assert "SIGCHLD" in said


def test_verify_streams_and_keeps_logs_apart(bench: Bench) -> None:
    """`verify` echoes what a script prints as it comes, gives its code, and overwrites no log."""
    own = bench.script("exit 0\n")
    bench.check(own)
    other = bench.script("echo one; exit 42\n", name="other.sh")
    echoed: list[bytes] = []
    results = [
        validation.verify(
            bench.paths,
            bench.spec(own, sha256="0" * 64),
            other,
            attempt=2,
            environ={"PATH": os.environ["PATH"]},
            registry_dir=bench.root,
            echo=echoed.append,
        )
        for _ in range(2)
    ]
    assert [(result.verdict, result.exit_code) for result in results] == [(Verdict.FAILED, 42)] * 2
    assert b"".join(echoed) == b"one\none\n"
    assert [result.log.name for result in results] == ["validation-verify-1.log", "validation-verify-2.log"]
    assert bench.log() == b""


def test_verify_beside_a_running_check(bench: Bench) -> None:
    """`verify` neither waits for the job's own check nor ends it."""
    owner = start_owner(bench, bench.script("echo $$ >>$PIDS; sleep 300\n"))
    (pid,) = bench.written_pids()
    other = bench.script("exit 0\n", name="other.sh")
    result = validation.verify(
        bench.paths, bench.spec(other), other, attempt=1, environ={}, registry_dir=bench.root, timeout=10
    )
    assert result.verdict is Verdict.PASSED
    assert not gone(pid)
    kill_owner(owner)
    validation.end_leftover(bench.paths)


def test_verify_of_a_missing_script(bench: Bench) -> None:
    """A script that is not there is a usage error, not a verdict."""
    with pytest.raises(UsageError, match="no such file"):
        validation.verify(
            bench.paths,
            bench.spec(bench.script("")),
            bench.root / "none",
            attempt=1,
            environ={},
            registry_dir=bench.root,
        )


def test_many_at_once(bench: Bench) -> None:
    """Checks of several jobs in threads of one process do not disturb each other."""
    results: dict[int, CheckResult] = {}

    def one(number: int) -> None:
        here = Bench(bench.root / str(number))
        here.root.mkdir()
        here.workdir.mkdir()
        here.paths.root.mkdir()
        results[number] = here.check(here.script(f"echo {number}; sleep 0.1; exit {number}\n"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {n: (r.exit_code, r.output_tail) for n, r in results.items()} == {
        n: (n, f"{n}\n") for n in range(8)
    }


def test_interrupted_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks into a running check, its processes are ended and its lock is free."""

    def break_in(piece: bytes) -> None:
        if piece:
            raise KeyboardInterrupt

    script = bench.script("echo $$ >>$PIDS; echo go; sleep 300\n")
    monkeypatch.setenv("PIDS", str(bench.pids))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        validation.verify(
            bench.paths,
            bench.spec(script),
            script,
            attempt=1,
            environ=dict(os.environ),
            registry_dir=bench.root,
            echo=break_in,
        )
    assert gone(bench.written_pids()[0])
    assert time.monotonic() - begun < 60
