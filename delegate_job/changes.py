"""What changed in a job's work dir since its launch, where that is a git work tree.

At the launch the commit is written down, and which files were not as in it: names alone, so that it takes
milliseconds. The diff is made when it is asked for. Not how git is kept from running what a repository names:
that is `private_git`.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job.paths import write_private
from delegate_job.private_git import PrivateGit, Repository, locate, missing

RECORD_TIMEOUT = 1.0
"""Seconds for each of the three questions to git before a launch."""
DIFF_TIMEOUT = 20.0
"""Seconds for each of the four steps of a diff: without the repository's index each file is read."""
DIFF_LIMIT = 1024 * 1024
"""Bytes of a diff that are shown."""
MOST_NAMES = 1000
"""Files that had changes before the launch of which the names are kept."""
_NAMES_LIMIT = 256 * 1024
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=all")
_STALE = ("diff-index", "--name-only", "--ignore-submodules=all")


class Baseline(NamedTuple):
    """A work tree at the launch. `dirty`: files with changes, as git names them; None: not known."""

    repository: Repository
    dirty: tuple[str, ...] | None


class FileChange(NamedTuple):
    """One changed file. `added`, `removed`: lines, None for a binary one. `was_dirty`: also before."""

    name: str
    added: int | None
    removed: int | None
    was_dirty: bool


class Changes(NamedTuple):
    """What changed since `commit`. `problem`: why that is not known, else None."""

    problem: str | None = None
    commit: str | None = None
    files: tuple[FileChange, ...] = ()
    diff: str = ""
    is_cut: bool = False
    dirty: tuple[str, ...] | None = ()


def record(workdir: str, path: Path) -> None:
    """Write down the state of a work dir, unless that was done; it takes a few seconds at most.

    Never fails: without the file there is nothing to compare with, and that is what is said then.
    """
    if path.exists():
        return
    try:
        repository = locate(workdir, timeout=RECORD_TIMEOUT)
        if repository is None:
            return
        document = {"repository": repository, "dirty": _dirty(repository, workdir, path.parent)}
        write_private(path, json.dumps(document).encode())
    except (OSError, ValueError):
        return


def since(baseline: Path, workdir: str) -> Changes:
    """Return what changed since `baseline` was recorded. It may take a minute in a large tree."""
    try:
        known = _read(baseline)
    except FileNotFoundError:
        return Changes("the work dir was no git work tree when the agent was started")
    except (OSError, ValueError, TypeError, KeyError):
        return Changes("the record of the work dir at the launch is damaged")
    if missing():
        return Changes("git is not on PATH")
    if not os.path.isdir(workdir):  # noqa: PTH112 - a text of any bytes
        return Changes("the work dir is gone")
    try:
        with PrivateGit(known.repository, baseline.parent) as git:
            return _compare(git, known, _inside(known.repository, workdir))
    except OSError as error:
        return Changes(f"git could not be run: {error.strerror}")


def _compare(git: PrivateGit, known: Baseline, inside: str) -> Changes:
    commit = known.repository.commit
    if commit is not None and git.run("read-tree", commit, limit=0, timeout=DIFF_TIMEOUT).code:
        return Changes(f"commit {commit[:12]} is not there any more, or is not read in time")
    # Intent to add: a new file is part of the diff, and none is hashed or stored.
    git.run("add", "--intent-to-add", "--ignore-errors", "--", inside, limit=0, timeout=DIFF_TIMEOUT)
    which = (*(() if commit is None else (commit,)), "--", inside)
    listed = git.run("diff", *_PLAIN, "--numstat", "-z", *which, limit=DIFF_LIMIT, timeout=DIFF_TIMEOUT)
    if listed.code:
        return Changes("the work tree is too large to be compared, or git cannot read it", commit)
    diff = git.run("diff", *_PLAIN, "--patch", *which, limit=DIFF_LIMIT, timeout=DIFF_TIMEOUT)
    files = tuple(_files(_text(listed.data), frozenset(known.dirty or ())))
    return Changes(None, commit, files, _text(diff.data), diff.is_cut, known.dirty)


def _files(text: str, dirty: frozenset[str]) -> list[FileChange]:
    rows = (row.split("\t", 2) for row in text.split("\0") if row.count("\t") >= 2)
    return [FileChange(name, _count(added), _count(removed), name in dirty) for added, removed, name in rows]


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _dirty(repository: Repository, workdir: str, scratch: Path) -> list[str] | None:
    """Return the names of files that are not as in HEAD, by their times alone; None when that is not seen."""
    inside = _inside(repository, workdir)
    with PrivateGit(repository, scratch) as git:
        if not git.borrow_index():
            return None
        limits: dict[str, Any] = {"limit": _NAMES_LIMIT, "timeout": RECORD_TIMEOUT}
        # Before the first commit all that git knows is new.
        known = ("ls-files", "--cached") if repository.commit is None else (*_STALE, repository.commit)
        changed = git.run(*known, "-z", "--", inside, **limits)
        new = git.run("ls-files", "--others", "--exclude-standard", "-z", "--", inside, **limits)
        if new.code or changed.code:
            return None
    names = changed.data + new.data
    return [name for name in _text(names).split("\0") if name][:MOST_NAMES]


def _inside(repository: Repository, workdir: str) -> str:
    return os.path.relpath(os.path.realpath(workdir), os.path.realpath(repository.top))


def _read(path: Path) -> Baseline:
    document = json.loads(path.read_bytes())
    dirty = document["dirty"]
    return Baseline(Repository(*document["repository"]), None if dirty is None else tuple(dirty))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
