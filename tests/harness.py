"""A place of its own for each test: homes, registry, tmux and processes, all ended and counted at the end.

Not what is promised: this file holds no test, and it knows the command only as a user does, by running it.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from processes import Process, processes_of

T = TypeVar("T")

COMMAND = Path(sysconfig.get_path("scripts")) / "delegate-job"
"""The installed console script: what users run is what is tested."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHORT_TEMP = Path("/tmp").resolve()
"""Where places lie: a Unix socket's path has room for about 100 bytes."""

PATIENCE = 30.0
"""Seconds after which what a test waits for will not come: many, because the machine may be busy."""


def without(place: "Place", *names: str) -> dict[str, str]:
    """Return an environment whose PATH has what the place's has, but for these programs."""
    kept = place.root / "kept"
    kept.mkdir()
    for directory in place.environ["PATH"].split(":"):
        for path in Path(directory).glob("*"):
            if path.name not in names and not (kept / path.name).exists():
                (kept / path.name).symlink_to(path)
    return {"PATH": str(kept)}


def _end_by_force(left: list[Process], root: Path) -> str:
    """End processes; return what a supervisor among them was doing, as its log has it when it is aborted."""
    if not left:
        return ""
    hung = [process for process in left if " supervise " in process.command]
    for signum, processes in ((signal.SIGABRT, hung), (signal.SIGKILL, left)):
        for straggler in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(straggler.pid, signum)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not processes_of(root), 2 if processes else 0)
    return "\n".join(log.read_text(errors="replace")[-8000:] for log in root.rglob("supervisor.log"))


def wait_until(probe: Callable[[], T], timeout: float = PATIENCE, what: str = "") -> T:
    """Return the first true answer of `probe`; fail after `timeout` seconds. The one place that sleeps."""
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or probe}; last answer: {answer!r}")
        time.sleep(0.02)
    return answer


def in_ci() -> bool:
    """Say whether what is skipped at home must fail here."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clean_environment(root: Path) -> dict[str, str]:
    tools = (shutil.which(name) for name in ("tmux", "mosquitto", "bash"))
    found = dict.fromkeys(str(Path(tool).parent) for tool in tools if tool)
    return {
        "PATH": ":".join(dict.fromkeys([*SYSTEM_PATH.split(":"), *found])),
        "LANG": "C.UTF-8",
        "HOME": str(root / "home"),
        "XDG_CONFIG_HOME": str(root / "home/.config"),
        "XDG_STATE_HOME": str(root / "home/.local/state"),
        "XDG_DATA_HOME": str(root / "home/.local/share"),
        "XDG_CACHE_HOME": str(root / "home/.cache"),
        "XDG_RUNTIME_DIR": str(root / "run"),
        "TMPDIR": str(root / "tmp"),
        "TMUX_TMPDIR": str(root / "t"),
        "DELEGATE_JOB_REGISTRY_DIR": str(root / "registry"),
        # For scripted agents, which run outside the virtual environment.
        "DJ": str(COMMAND),
        # A real agent that is started by mistake finds no real account.
        "ANTHROPIC_API_KEY": "dummy",
        "OPENAI_API_KEY": "dummy",
        "GEMINI_API_KEY": "dummy",
    }


@dataclass
class Place:
    """One test's home, registry, work dir and tmux, and the commands it runs there."""

    root: Path
    environ: dict[str, str] = field(repr=False)
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    patience: float = PATIENCE

    @classmethod
    def make(cls, under: Path = SHORT_TEMP) -> "Place":
        """Make a new place in a short temporary directory."""
        root = Path(tempfile.mkdtemp(prefix="dj-", dir=under))
        for name in ("home/.config", "home/.local/state", "tmp", "t", "run", "work"):
            (root / name).mkdir(parents=True, mode=0o700)
        return cls(root, _clean_environment(root))

    @property
    def home(self) -> Path:
        """HOME of everything that is run here."""
        return self.root / "home"

    @property
    def registry(self) -> Path:
        """The registry directory; the first command makes it."""
        return self.root / "registry"

    @property
    def work(self) -> Path:
        """The work dir, and the current directory of every command."""
        return self.root / "work"

    def run(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run `delegate-job ARGS` to its end and return what it said. A value of None in `env` unsets."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.start(*args, env=env, cwd=cwd, stdin=stdin)
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            end_group(process)
            said = process.communicate(timeout=5)
            raise AssertionError(f"{process.args!r} still ran after {timeout:g} s; it said {said}") from late
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def start(
        self,
        *args: str | Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start `delegate-job ARGS` in a process group of its own; it is ended with the place."""
        return self.spawn(COMMAND, *args, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)

    def spawn(
        self,
        *argv: str | Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start any program in this place, as `start` does."""
        process = subprocess.Popen(
            [str(word) for word in argv],
            env=self.env(env),
            cwd=cwd or self.work,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def env(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """Return the place's environment with `changes`; None unsets a variable."""
        merged = {**self.environ, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def submit(self, agent: str, *options: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """Submit a job to a scripted agent (its text, see `agent`) and wait for its end."""
        return self.run(*self.submit_args(agent, *options), **how)

    def submit_args(self, agent: str, *options: str | Path) -> list[str]:
        """Return the arguments of `submit` for a scripted agent, for `run` and `start`."""
        template = f"{self.agent(agent)} {{instructions_file}}"
        given = [str(option) for option in options]
        prompt = [] if any(o.startswith("--prompt") for o in given) else ["--prompt", "Do the work."]
        return ["submit", "--agent", "command", "--command", template, *prompt, *given]

    def agent(self, text: str) -> Path:
        """Write an executable scripted agent: bash, or what its `#!` names (`#!python` is this Python)."""
        if text.startswith("#!python\n"):
            text = f"#!{sys.executable}\n" + text.removeprefix("#!python\n")
        elif not text.startswith("#!"):
            text = f"#!/usr/bin/env bash\nset -eu\n{text}"
        path = self.root / f"agent-{len(list(self.root.glob('agent-*'))) + 1}"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def script(self, name: str, text: str) -> Path:
        """Write an executable bash script, say a check, below the place but outside the work dir."""
        path = self.root / name
        path.write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}", encoding="utf-8")
        path.chmod(0o755)
        return path

    def jobs(self) -> list[str]:
        """Return the ids of all jobs that have a directory, oldest first."""
        directory = self.registry / "jobs"
        entries = list(directory.iterdir()) if directory.exists() else []
        return [entry.name for entry in sorted(entries, key=lambda entry: entry.stat().st_ctime_ns)]

    def await_job(self) -> str:
        """Return the id of the newest job as soon as there is one."""
        return wait_until(self.jobs, what="a job directory")[-1]

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as `status --json` prints it."""
        for _ in range(50):
            shown = self.run("status", job_id, "--json")
            # A directory alone is no job yet: its row comes in a moment.
            if shown.returncode == 0 or not (self.registry / "jobs" / job_id).is_dir():
                break
        assert shown.returncode == 0, shown
        job: dict[str, Any] = json.loads(shown.stdout)
        return job

    def await_state(self, job_id: str, *states: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the job as soon as it is in one of `states`."""

        def reached() -> dict[str, Any] | None:
            # A directory alone is no job yet.
            shown = self.run("status", job_id, "--json")
            job: dict[str, Any] = json.loads(shown.stdout) if shown.returncode == 0 else {}
            return job if job.get("state") in states else None

        return wait_until(reached, timeout, f"job {job_id} in {states}") or {}

    def await_kind(self, job_id: str, kind: str, timeout: float = PATIENCE) -> None:
        """Return as soon as an event of this kind was recorded; which other came last says nothing of it."""
        file = self.registry / "jobs" / job_id / "events.jsonl"

        def recorded() -> bool:
            lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
            return any(json.loads(line)["kind"] == kind for line in lines if line.endswith(b"}\n"))

        wait_until(recorded, timeout, f"{kind} of job {job_id}")

    def log_dir(self, job_id: str) -> Path:
        """Return the audit directory of a job that was submitted in `work`."""
        return self.work / "delegate_job_logs" / job_id

    def tmux_sockets(self) -> list[Path]:
        """Return the sockets of all tmux servers of this place, living or not."""
        return sorted(path for path in (self.root / "t").rglob("*") if path.is_socket())

    def tmux(self, *args: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
        """Run tmux against the one server of this place."""
        (server,) = self.tmux_sockets()
        return _tmux(server, *args, timeout=timeout)

    def processes(self) -> list[Process]:
        """Return the living processes that belong to this place, without those of the test itself."""
        return processes_of(self.root)

    def jobs_processes(self) -> list[Process]:
        """Return the living processes of this place, without the background supervisors of its registries."""
        return [process for process in self.processes() if " supervise " not in process.command]

    @contextlib.contextmanager
    def nobody_takes_over(self) -> Iterator[None]:
        """Hold the lock of the registry's supervisor, so that a job that has lost its owner gets no other."""
        path = self.registry / "supervisor.lock"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """End everything that was started here, then fail if anything had to be ended by force."""
        for process in self.running:
            end_group(process)
        self._end_supervisors()
        for server in self.tmux_sockets():
            _tmux(server, "kill-server")
        left = self._left()
        doing = _end_by_force(left, self.root)
        temporary = [path.name for path in (self.root / "tmp").iterdir()]
        alive = [str(server) for server in self.tmux_sockets() if _answers(server)]
        _remove(self.root)
        assert not left, f"processes were left behind: {left}\n{doing}"
        assert not alive, f"tmux servers were left behind: {alive}"
        assert not temporary, f"temporary files were left behind: {temporary}"

    def _end_supervisors(self) -> None:
        """End the background supervisors of this place's registries, by the process ids in their locks."""
        mine = {process.pid for process in self.processes()}
        # An agent that ends may be removing a directory of its own: `rglob` would stumble over it.
        named = (Path(directory) for directory, _, names in os.walk(self.root) if "supervisor.lock" in names)
        for lock in [directory / "supervisor.lock" for directory in named]:
            text = lock.read_text().strip() if lock.is_file() else ""
            if text.isdecimal() and int(text) in mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(text), signal.SIGTERM)

    def _left(self) -> list[Process]:
        def ended() -> bool:
            # A job that lost its owner just now may have had another one started.
            self._end_supervisors()
            return not self.processes()

        with contextlib.suppress(AssertionError):
            wait_until(ended, self.patience)
        return [process for process in self.processes() if not self._is_lost_client(process)]

    def _is_lost_client(self, process: Process) -> bool:
        """End a client of tmux that waits for a server which we have ended under it; seen once (3.3a)."""
        words = process.command.split(" ")
        is_lost = words[0] == "tmux" and "kill-session" in words
        if not is_lost or any(_answers(server) for server in self.tmux_sockets()):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        return True


def job_id(stdout: str) -> str:
    """Return the id in the first line of `submit`."""
    found = re.match(r"registered job: (\S+)\n", stdout)
    assert found, f"no job id in {stdout!r}"
    return found[1]


def end_group(process: subprocess.Popen[str], patience: float = 5.0) -> None:
    """End a process that we started, with its group: TERM, then KILL. Its pipes are closed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    for pipe in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _tmux(server: Path, *args: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
    argv = ["tmux", "-S", str(server), *args]
    return subprocess.run(argv, capture_output=True, encoding="utf-8", check=False, timeout=timeout)


def _answers(server: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(server)) == 0


def _remove(root: Path) -> None:
    # A test may have taken rights away; links are left as they are.
    for directory, inner, _ in os.walk(root):
        for path in (Path(directory, name) for name in inner):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(root)
