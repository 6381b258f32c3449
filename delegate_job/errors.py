"""The errors a user can meet: one line, a hint, an exit code.

Not the odd events of an agent: those are data. An exception here means that *we* could not do what was asked.
"""

import contextlib
from collections.abc import Iterator, Sequence

from delegate_job.exit_codes import ExitCode


class DelegateJobError(Exception):
    """What went wrong in one line, what to do about it, and the process's exit code."""

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DelegateJobError):
    """The command line asks for something that cannot be meant."""


class NotStartedError(DelegateJobError):
    """The job could not be started: tmux, agent, broker or work dir (exit 7)."""

    exit_code = ExitCode.NOT_STARTED


class MissingExtraError(NotStartedError):
    """What was asked for needs packages that a plain installation does not bring."""

    def __init__(self, needs: str, extra: str, instead: str = "") -> None:
        other = f", or {instead}" if instead else ""
        super().__init__(
            f"{needs}, which is not installed", hint=f"pip install 'delegate-job[{extra}]'{other}"
        )


class RegistryError(DelegateJobError):
    """The registry cannot be read or written: missing rights, full disk, newer schema, damage."""


class UnknownJobError(RegistryError):
    """No job, or more than one, has this id or beginning of an id."""

    @classmethod
    def of(cls, beginning: str, found: Sequence[str]) -> "UnknownJobError":
        """Return what to say of a name that fits the jobs `found`: none, or more than one."""
        if found:
            some = ", ".join(sorted(found)[:2])
            return cls(f"more than one job begins with {beginning!r}: {some}", hint="give more of the id")
        if beginning == "@last":
            return cls("there is no job yet", hint="`delegate-job submit --prompt …` makes one")
        return cls(f"no job {beginning!r}", hint="`delegate-job list` shows all jobs")


@contextlib.contextmanager
def from_extra(extra: str, *packages: str, needs: str, instead: str = "") -> Iterator[None]:
    """Have an import of packages that an extra brings end with MissingExtraError where one is missing.

    `needs` says what needs which; `instead`, what else can be done.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages:
            raise
        raise MissingExtraError(needs, extra, instead) from None


@contextlib.contextmanager
def under_way() -> Iterator[None]:
    """Have an error of the registry end with 70: there are jobs, and they were not asked for wrongly."""
    try:
        yield
    except RegistryError as error:
        error.exit_code = ExitCode.INTERNAL
        raise


def one_line(error: Exception) -> str:
    """Return any error as one line, with the hint of ours."""
    hint = getattr(error, "hint", None)
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return f"{text} ({hint})" if hint else text
