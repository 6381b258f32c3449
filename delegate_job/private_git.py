"""git on somebody's work tree and objects, without one line of that repository's configuration.

Filters, hooks, text conversions, file system monitors and lazy fetches are programs that a repository's
configuration names, and an agent can write that. So git is given a directory of our own with an empty
configuration, which borrows the repository's objects. Not what is asked of git: that is `changes`.
"""

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple, Self

from delegate_job import own_session

LARGEST_INDEX = 64 * 1024 * 1024
"""Bytes of an index that is borrowed."""
_BIG_FILE = "8m"
"""From here on a file is binary for a diff: it would have to be held in memory."""
_EXCLUDE_LIMIT = 65536
_LOCATE = ("--show-toplevel", "--git-path", "objects", "--git-path", "index", "--git-path", "info/exclude")


class Output(NamedTuple):
    """What git printed. `is_cut`: it had more to say, or took too long."""

    data: bytes
    code: int
    is_cut: bool


class Repository(NamedTuple):
    """Where a work tree's parts lie. `commit`: what HEAD named, None before the first commit."""

    top: str
    objects: str
    index_file: str
    exclude: str
    commit: str | None


def missing() -> bool:
    """Return whether there is no git on PATH."""
    return shutil.which("git") is None


def locate(directory: str, *, timeout: float) -> Repository | None:
    """Return the repository that a directory lies in; None when it lies in none that git would read.

    `rev-parse` reads that repository's configuration and runs nothing that stands in it (git 2.39), so who
    owns the repository does not matter here.
    """
    argv = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", directory, "rev-parse"]
    said = _run([*argv, "--path-format=absolute", *_LOCATE, "HEAD"], limit=65536, timeout=timeout)
    lines = os.fsdecode(said.data).split("\n")
    if len(lines) < 4:
        return None
    top, objects, index, exclude, *rest = lines
    real, real_top = os.path.realpath(directory), os.path.realpath(top)
    if os.path.commonpath((real, real_top)) != real_top:
        return None  # Its configuration points elsewhere.
    commit = rest[0] if said.code == 0 and rest and rest[0].isalnum() else None
    return Repository(top, objects, index, exclude, commit)


class PrivateGit:
    """git for one work tree, to be used in a `with`; its directory is made below `parent`, then removed.

    OSError when that cannot be made.
    """

    def __init__(self, repository: Repository, parent: Path) -> None:
        self._of = repository
        self._root = parent / f"git-{os.urandom(6).hex()}"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def borrow_index(self) -> bool:
        """Take a copy of the repository's index, whose times spare git a look into each file."""
        try:
            if os.path.getsize(self._of.index_file) > LARGEST_INDEX:  # noqa: PTH202 - a text of any bytes
                return False
            shutil.copyfile(self._of.index_file, self._root / "index")
        except OSError:
            return False
        return True

    def run(self, *args: str, limit: int, timeout: float) -> Output:
        """Return what git prints, at most `limit` bytes of it, within `timeout` seconds."""
        where = [f"--git-dir={self._root}", f"--work-tree={self._of.top}", "-C", self._of.top]
        return _run([*where, *args], limit=limit, timeout=timeout)

    def _make(self) -> None:
        for name in ("objects/info", "refs", "info"):
            (self._root / name).mkdir(parents=True)
        (self._root / "HEAD").write_text("ref: refs/heads/none\n")
        (self._root / "config").write_text(_config(self._of.commit))
        (self._root / "objects/info/alternates").write_bytes(os.fsencode(self._of.objects) + b"\n")
        (self._root / "info/exclude").write_bytes(_exclude(self._of.exclude))


def _config(commit: str | None) -> str:
    sha256 = commit is not None and len(commit) == 64
    version = "1\n[extensions]\n\tobjectFormat = sha256" if sha256 else "0"
    big = f"\tbigFileThreshold = {_BIG_FILE}\n\tquotePath = false\n\tattributesFile = /dev/null\n"
    return f"[core]\n\tbare = false\n{big}\trepositoryformatversion = {version}\n"


def _exclude(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _EXCLUDE_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _run(args: list[str], *, limit: int, timeout: float) -> Output:
    try:
        process = own_session.start(
            ["git", "--no-pager", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
        )
    except OSError:
        return Output(b"", -1, is_cut=True)
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    with process:
        data = process.stdout.read(limit + 1) if process.stdout else b""
        if len(data) > limit:
            process.kill()
        code = process.wait()
        timer.cancel()
    return Output(data[:limit], code, is_cut=len(data) > limit or code < 0)


def _environment() -> dict[str, str]:
    """Return an environment in which git reads no configuration of anybody's and asks nobody anything."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR") if name in os.environ
    }
    return {
        "PATH": os.defpath,
        **kept,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
    }
