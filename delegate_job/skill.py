"""The skill: the text that tells other agents how to use this program, and its place among an agent's skills.

Not where an agent looks for skills: that is `agents`.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from delegate_job.agents import SKILL_DIRS, SkillDir
from delegate_job.errors import DelegateJobError, UsageError

NAME = "delegate-job"
FILE = "SKILL.md"
MARK = ".installed"
"""Beside the installed file: the SHA-256 of what we wrote, so that a newer version may replace it."""


class Done(StrEnum):
    """What an installation came to."""

    INSTALLED = "installed"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class Installed(NamedTuple):
    """The skill's file, and what was done to it."""

    path: Path
    done: Done


def text() -> str:
    """Return the skill, whole."""
    return _source().read_text(encoding="utf-8")


def _source() -> Path:
    """Return the file in the wheel, else that of the source tree, for an editable installation."""
    here = Path(__file__).parent
    inside = here / "skills" / NAME / FILE
    return inside if inside.is_file() else here.parent / "skills" / NAME / FILE


def directory(agent: str, *, project: Path | None, environ: Mapping[str, str]) -> Path:
    """Return where the agent looks for skills: the user's, or with `project` that directory's.

    UsageError for an agent that is not known to look anywhere, or a user without a home.
    """
    place = SKILL_DIRS.get(agent)
    if place is None:
        raise UsageError(
            f"where {agent!r} looks for skills is not known",
            hint=f"known are {', '.join(SKILL_DIRS)}; or name the directory with --dir",
        )
    if project is not None:
        return project / place.of_project
    return _of_user(place, environ)


def _of_user(place: SkillDir, environ: Mapping[str, str]) -> Path:
    named = environ.get(place.variable) if place.variable else None
    if named:
        return Path(named) / "skills"
    try:
        return Path.home() / place.of_user
    except RuntimeError:
        raise UsageError("there is no home directory", hint="set HOME, or use --dir") from None


def install(directory: Path, *, force: bool = False) -> Installed:
    """Write the skill below `directory`; a file that somebody changed stays, unless `force` is given.

    DelegateJobError when it stays, or can't be written.
    """
    path, content = directory / NAME / FILE, text().encode()
    try:
        there = _read(path)
        if there == content:
            return Installed(path, Done.UNCHANGED)
        if there is not None and not force and not _is_ours(path, there):
            raise DelegateJobError(f"{path} is not what was installed there", hint="--force replaces it")
        _write(path, content)
    except OSError as error:
        raise DelegateJobError(f"{error.filename or path}: {error.strerror}") from error
    return Installed(path, Done.INSTALLED if there is None else Done.UPDATED)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_ours(path: Path, content: bytes) -> bool:
    return _read(path.with_name(MARK)) == _mark(content)


def _mark(content: bytes) -> bytes:
    return sha256(content).hexdigest().encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # First what was there loses its mark: a mark never stands beside a file that it does not fit.
    path.with_name(MARK).unlink(missing_ok=True)
    path.write_bytes(content)
    path.with_name(MARK).write_bytes(_mark(content))
