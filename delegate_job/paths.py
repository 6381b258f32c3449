"""Where a registry keeps things: the names of its files, and nothing about what stands in them."""

import os
from pathlib import Path
from typing import NamedTuple

APP = "delegate-job"


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the path from the root on, as it was named: no link resolved, no byte changed.

    UsageError for a relative one when the current directory was removed.
    """
    try:
        return os.path.abspath(path)  # noqa: PTH100 - pathlib drops a leading "./"
    except FileNotFoundError:
        from delegate_job.errors import UsageError

        raise UsageError(
            "the current directory does not exist any more", hint="change to another, or give whole paths"
        ) from None


def private(path: str, flags: int) -> int:
    """Open a file as `open` asks an opener; one that is made is the user's alone, whatever the umask."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that is the user's alone. OSError when that fails."""
    with open(path, "wb", opener=private) as file:
        file.write(content)


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a new file of this mode in place of any that is there; a link is replaced. OSError."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)


def is_executable(path: str) -> bool:
    """Return whether there is a file that this user may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 - pathlib drops a leading "./"


def on_path(program: str, path: str) -> str | None:
    """Return where a PATH has a program, as `shutil.which` finds it, whose import costs a start 1.6 ms."""
    places = (os.path.join(directory or os.curdir, program) for directory in path.split(os.pathsep))  # noqa: PTH118 - as above
    return next(filter(is_executable, places), None) if program and path else None


def user_directory(kind: str) -> Path | None:
    """Return platformdirs' directory of a kind: `state`, `config`, `data`; None without a home."""
    import platformdirs

    try:
        path = Path(getattr(platformdirs, f"user_{kind}_dir")(APP, appauthor=False))
    except RuntimeError:
        return None
    # Older platformdirs (before 4.10) give a relative one, which would be the work dir's.
    return path if path.is_absolute() else None


def default_registry() -> Path:
    """Return the user's registry: the state directory. UsageError for a user without a home."""
    found = user_directory("state")
    if found is None:
        from delegate_job.errors import UsageError

        raise UsageError(
            "there is no home directory to keep jobs in",
            hint="set HOME or XDG_STATE_HOME, or name a registry with --registry-dir",
        )
    return found


class RegistryPaths(NamedTuple):
    """The files of one registry. `root` is absolute."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file: the truth."""
        return self.root / "registry.db"

    @property
    def backups(self) -> Path:
        """The directory of the registry's own backups."""
        return self.root / "backups"

    @property
    def damaged(self) -> Path:
        """A mark: the SQLite file was seen to be damaged."""
        return self.root / "damaged"

    @property
    def repair_lock(self) -> Path:
        """Held (flock) by who repairs a damaged SQLite file."""
        return self.root / "repair.lock"

    @property
    def gate(self) -> Path:
        """The registry's lock: held while a supervisor is started or decides to end."""
        return self.root / "gate.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held (flock) by the background supervisor; its text is the process id."""
        return self.root / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        """What the background supervisor has to say."""
        return self.root / "supervisor.log"

    @property
    def broker_socket(self) -> Path:
        """The Unix socket of the background supervisor's broker."""
        return self.root / "broker.sock"

    @property
    def jobs(self) -> Path:
        """The directory that holds one directory a job."""
        return self.root / "jobs"

    def job(self, job_id: str) -> "JobPaths":
        """Return the paths of one job."""
        return JobPaths(self.jobs / job_id)

    @property
    def tmux_label(self) -> str:
        """The name of this registry's own tmux server (`tmux -L`), from the real path of the registry."""
        # Here, because most commands need no tmux and the import costs them 2 ms.
        from delegate_job.bare import sha256

        real = os.path.realpath(self.root)
        return f"{APP}-{sha256(os.fsencode(real))[:12]}"


class JobPaths(NamedTuple):
    """The files of one job directory: 0700, outside every work tree."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held (flock) by the owner."""
        return self.root / "lock"

    @property
    def runner_lock(self) -> Path:
        """Held (flock) by the runner for its life."""
        return self.root / "runner.lock"

    @property
    def check_lock(self) -> Path:
        """Held (flock) by a running check; its text is the check's process id."""
        return self.root / "check.lock"

    @property
    def spec(self) -> Path:
        """What was asked for, as the registry has it too."""
        return self.root / "spec.json"

    @property
    def launch(self) -> Path:
        """The argv, work dir and environment of the agent; holds secrets, removed when the job is done."""
        return self.root / "launch.json"

    @property
    def environ(self) -> Path:
        """The environment of the submit, for the agent, the check and hooks; removed when the job is done."""
        return self.root / "environ.json"

    @property
    def connection(self) -> Path:
        """The broker's address and this job's credentials, rewritten by each owner."""
        return self.root / "connection.json"

    @property
    def prompt(self) -> Path:
        """The registry's own copy of the task, byte for byte."""
        return self.root / "prompt.md"

    @property
    def broker_socket(self) -> Path:
        """The Unix socket of the broker of a foreground submit."""
        return self.root / "broker.sock"

    @property
    def agent(self) -> Path:
        """The directory of settings and hook files written for this run."""
        return self.root / "agent"

    @property
    def home(self) -> Path:
        """The agent's private home, where it has one: with `--ci`, and for gemini's hooks.

        It may hold secrets, and is removed when job and agent have ended.
        """
        return self.root / "home"

    @property
    def control(self) -> Path:
        """What the runner and users' commands say."""
        return self.root / "control.jsonl"

    @property
    def events(self) -> Path:
        """What happened, after the commit."""
        return self.root / "events.jsonl"

    @property
    def pane_log(self) -> Path:
        """The raw output of the agent's terminal."""
        return self.root / "pane.log"

    @property
    def pane_cast(self) -> Path:
        """The same with its timing, as an asciicast."""
        return self.root / "pane.cast"

    @property
    def baseline(self) -> Path:
        """The state of the work dir's git repository at the launch."""
        return self.root / "baseline.json"

    @property
    def result(self) -> Path:
        """The finished job as JSON."""
        return self.root / "result.json"

    @property
    def fallback_log_dir(self) -> Path:
        """The audit directory of a job whose work dir cannot be written."""
        return self.root / "audit" / self.root.name

    def validation_log(self, attempt: int) -> Path:
        """The output of the check number `attempt`, from 1."""
        return self.root / f"validation-{attempt}.log"
