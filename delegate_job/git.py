"""git, asked without a shell: each call bounded, no hook run, no other repository than the one named.

Not what it is asked for: that is `worktree`.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from delegate_job import own_session
from delegate_job.errors import NotStartedError

TIMEOUT = 60.0
"""Seconds for a call that reads."""
CHECKOUT_TIMEOUT = 600.0
"""Seconds for one that writes a whole work tree."""

# A repository may name hooks and a file monitor that lie in its own tree: husky does so with its hooks.
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "worktree.useRelativePaths=false",
)
# What `git rev-parse --local-env-vars` lists (2.39), less GIT_CONFIG_*, the user's own word.
# git sets them for its hooks: a submit in one must not work in the hook's repository instead.
_OF_AN_OUTER_GIT = frozenset(
    word
    for line in (
        "GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_DIR GIT_GRAFT_FILE GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE GIT_INTERNAL_SUPER_PREFIX GIT_NO_REPLACE_OBJECTS GIT_OBJECT_DIRECTORY GIT_PREFIX",
        "GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE GIT_WORK_TREE GIT_NAMESPACE GIT_QUARANTINE_PATH",
    )
    for word in line.split()
)


class GitError(NotStartedError):
    """git refused, or gave no answer; the message is its own first line."""


class Tree(NamedTuple):
    """A repository, and the work tree if there is one; `config` has `name=value` for every call."""

    git_dir: str
    path: str | None = None
    config: tuple[str, ...] = ()

    def ask(self, *words: str, timeout: float = TIMEOUT) -> str:
        """Return what git prints, less its last newline; GitError when it refuses."""
        place = [f"--git-dir={self.git_dir}", *([f"--work-tree={self.path}"] if self.path else [])]
        return _asked(place, words, cwd=self.path, config=self.config, timeout=timeout)

    def agrees(self, *words: str) -> bool:
        """Return whether git ends with 0."""
        try:
            self.ask(*words)
        except GitError:
            return False
        return True


def ask_in(directory: str, *words: str) -> str:
    """Return what git prints in a directory, less its last newline; GitError when it refuses."""
    return _asked([], words, cwd=directory)


def without_outer_git(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment less what ties git to a repository that the directory does not lie in."""
    return {name: value for name, value in environ.items() if name not in _OF_AN_OUTER_GIT}


def _asked(
    place: list[str],
    words: tuple[str, ...],
    *,
    cwd: str | None,
    config: tuple[str, ...] = (),
    timeout: float = TIMEOUT,
) -> str:
    program = shutil.which("git")
    if program is None:
        raise GitError("git was not found", hint="install it with your package manager")
    settings = [word for setting in (*_CONFIG, *config) for word in ("-c", setting)]
    environ = {
        **without_outer_git(os.environ),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    try:
        done = own_session.run([program, *settings, *place, *words], cwd=cwd, env=environ, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise GitError(f"git {words[0]} gave no answer in {timeout:.0f} s") from None
    except OSError as error:
        raise GitError(f"git could not be run in {cwd}: {error.strerror}") from error
    if done.returncode:
        raise GitError(_complaint(done.stderr, words[0]))
    return os.fsdecode(done.stdout.removesuffix(b"\n"))


def _complaint(stderr: bytes, word: str) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("fatal:", "error:"))]
    said = (marked or lines or [f"git {word} failed"])[0]
    return "git: " + said.removeprefix("fatal:").removeprefix("error:").strip()
