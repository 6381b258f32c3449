"""The exit codes: a total mapping from how a job ended to what the process says.

Not the place where anything exits; only `__main__` does that.
"""

from enum import IntEnum

from delegate_job.job import Outcome


class ExitCode(IntEnum):
    """What a `delegate-job` process can end with.

    These are of `submit`, `wait` and `retry`. Other commands end with 0, or with 2, 7 or 70 for an error;
    `notify --test` also with 1, when something was not sent; `verify` with the script's own code, or 124
    when that ran out of time.
    """

    ACCEPTED = 0
    """The agent completed, and the check passed where one was given."""
    FAILED = 1
    """The agent reported `error`."""
    USAGE = 2
    """The command line is wrong; for `publish`: neither recorded nor sent."""
    REJECTED = 3
    """The check rejected the work."""
    LOST = 4
    """The agent, its pane or tmux ended without a report."""
    TIMED_OUT = 5
    """`--timeout` ran out."""
    IDLE = 6
    """`--idle-timeout`: no report and nothing on the screen."""
    NOT_STARTED = 7
    """tmux, the agent, the broker or the work dir kept the job from starting."""
    NEEDS_INPUT = 8
    """The agent waits for a person, and `--fail-on-input` was given."""
    CANCELLED = 9
    """Cancelled by someone else."""
    INTERNAL = 70
    """A fault of ours; the traceback is in a crash file."""
    WAIT_TIMED_OUT = 124
    """`wait --timeout` ran out; the job goes on."""
    HANGUP = 129
    """Ended by SIGHUP."""
    INTERRUPTED = 130
    """Ended by SIGINT (Ctrl-C)."""
    TERMINATED = 143
    """Ended by SIGTERM."""


_OF_OUTCOME = {
    Outcome.ACCEPTED: ExitCode.ACCEPTED,
    Outcome.FAILED: ExitCode.FAILED,
    Outcome.REJECTED: ExitCode.REJECTED,
    Outcome.LOST: ExitCode.LOST,
    Outcome.TIMED_OUT: ExitCode.TIMED_OUT,
    Outcome.IDLE: ExitCode.IDLE,
    Outcome.NEEDS_INPUT: ExitCode.NEEDS_INPUT,
    Outcome.CANCELLED: ExitCode.CANCELLED,
    Outcome.NOT_STARTED: ExitCode.NOT_STARTED,
}


def exit_code_of(outcome: Outcome) -> ExitCode:
    """Return the exit code of `submit` and `wait` for a job that ended so."""
    return _OF_OUTCOME[outcome]
