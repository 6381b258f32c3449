"""What a job is: what was asked (`JobSpec`), where it stands (`JobState`), how it ended (`Outcome`).

Not how it changes: that is `lifecycle`. Values are named tuples: data classes would cost each start 10 ms.
"""

from enum import StrEnum
from typing import NamedTuple


class JobState(StrEnum):
    """Where a job stands."""

    REGISTERED = "registered"
    LAUNCHING = "launching"
    RUNNING = "running"
    WAITING = "waiting"
    CHECKING = "checking"
    DONE = "done"


class Outcome(StrEnum):
    """How a job ended; set exactly when its state is `done`."""

    ACCEPTED = "accepted"
    FAILED = "failed"
    REJECTED = "rejected"
    LOST = "lost"
    TIMED_OUT = "timed_out"
    IDLE = "idle"
    NEEDS_INPUT = "needs_input"
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"


class Verdict(StrEnum):
    """What the owner's last check said of the work."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CHANGED = "changed"


class Action(StrEnum):
    """What a transition owes the world; kept with the job until it is done, so that a new owner can do it."""

    LAUNCH = "launch"
    CHECK = "check"
    TELL = "tell"
    CLOSE = "close"


class Worktree(NamedTuple):
    """A git worktree that was made for one job. All paths are absolute."""

    path: str
    branch: str
    directory: str
    """Where the job's work dir lies in it; empty: at its top."""
    origin: str
    """The work dir that was named at submit."""
    git_dir: str
    """What all worktrees of the repository share: its `.git`."""
    base: str
    """The commit at which it began."""
    base_branch: str | None
    """The branch that was checked out there, `refs/heads/…`; None: a detached HEAD."""

    @property
    def workdir(self) -> str:
        """Where the job works."""
        return f"{self.path}/{self.directory}" if self.directory else self.path


class JobSpec(NamedTuple):
    """What was asked for at submit; it never changes. Times are in seconds."""

    id: str
    agent: str
    workdir: str
    session: str
    log_dir: str
    prompt_sha256: str
    broker: str | None = None
    """The external broker's URL without its password; None: embedded."""
    command: tuple[str, ...] = ()
    """The argv template of `--agent command` or of a configured agent."""
    model: str | None = None
    permission_mode: str | None = None
    agent_args: tuple[str, ...] = ()
    timeout: float = 3600.0
    idle_timeout: float | None = None
    validate: str | None = None
    """Absolute path of the check."""
    validate_sha256: str | None = None
    validate_timeout: float = 600.0
    attempts: int = 1
    close: bool = False
    fail_on_input: bool = False
    accept_silent_stop: bool = False
    """A turn that ends without a report goes to the check, as a claim would."""
    startup_timeout: float = 30.0
    """For the first hook of an agent that has one; 0: no limit."""
    ci: bool = False
    """Nobody is there: an agent that has a configuration gets one of its own, in which no dialog opens."""
    on_event: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    """Of what a person is to be notified, as `notices.KNOWN`; where to is never kept with a job."""
    operation_id: str | None = None
    retry_of: str | None = None
    worktree: Worktree | None = None

    def __repr__(self) -> str:
        """Show nothing that may carry a secret."""
        return f"JobSpec(id={self.id!r}, agent={self.agent!r}, workdir={self.workdir!r})"


class Job(NamedTuple):
    """A job as a value. `lifecycle.advance` makes the next one; nothing else does."""

    spec: JobSpec
    created_at: str
    state: JobState = JobState.REGISTERED
    outcome: Outcome | None = None
    verdict: Verdict | None = None
    attempt: int = 0
    """Checks begun so far."""
    owed: Action | None = None
    reason: str | None = None
    """Why it waits, or why it ended."""
    detail: str | None = None
    """What the agent said last."""
    untold: bool = False
    """A rejection is on its way to the agent: until it is delivered, claims are of the round before."""
    unheard: bool = False
    """The agent was told of a rejection and has not been heard of since."""
    started_at: str | None = None
    ended_at: str | None = None
    last_event: str | None = None
    last_event_at: str | None = None

    @property
    def id(self) -> str:
        """The job's id, which is one launch."""
        return self.spec.id

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state is JobState.DONE

    @property
    def settled(self) -> bool:
        """Whether it has ended and nothing is owed any more."""
        return self.done and self.owed is None

    @property
    def checks_left(self) -> bool:
        """Whether another check may follow the ones begun."""
        return self.attempt < self.spec.attempts
