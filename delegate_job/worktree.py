"""A job's own git worktree: where it would be, made, kept while there is work in it, removed after.

Not the calls (`git`) and not when jobs are forgotten (`pruning`). After its agent has started, a worktree is
hostile ground: it is asked through the repository that it was made of, never through its own `.git`.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from delegate_job.errors import DelegateJobError, NotStartedError, UsageError
from delegate_job.git import CHECKOUT_TIMEOUT, GitError, Tree, ask_in
from delegate_job.job import Worktree
from delegate_job.paths import user_directory

PLACE = "DELEGATE_JOB_WORKTREES_DIR"
"""The variable that moves the directory of all worktrees."""


def plan(workdir: str, branch: str, job_id: str, environ: Mapping[str, str]) -> Worktree:
    """Return the worktree that a job in `workdir` would get, making nothing.

    An empty `branch` is `delegate-job/<id>`. UsageError for a name that git does not take, NotStartedError
    where there is no commit of a repository with a work tree.
    """
    git_dir = _repository(workdir)
    tree = Tree(git_dir)
    name = branch or f"delegate-job/{job_id}"
    if name.startswith("-") or not tree.agrees("check-ref-format", f"refs/heads/{name}"):
        raise UsageError(f"{name!r} is no name for a branch", hint="such as --worktree fix/parser")
    base = _base(workdir)
    directory = ask_in(workdir, "rev-parse", "--show-prefix").rstrip("/")
    if directory and not tree.agrees("cat-file", "tree", f"{base}:{directory}"):
        raise NotStartedError(
            f"the work dir {workdir} is not in the commit that the worktree would have",
            hint="commit it first, or leave --worktree out",
        )
    top = ask_in(workdir, "rev-parse", "--show-toplevel")
    return Worktree(
        path=f"{_parent(environ)}/{job_id}/{os.path.basename(top) or 'worktree'}",  # noqa: PTH119 - any bytes
        branch=name,
        directory=directory,
        origin=workdir,
        git_dir=git_dir,
        base=base,
        base_branch=_branch_of(workdir),
    )


def _repository(workdir: str) -> str:
    """Return the directory that all worktrees of a repository share."""
    try:
        inside = ask_in(workdir, "rev-parse", "--is-inside-work-tree")
        bare = ask_in(workdir, "rev-parse", "--is-bare-repository")
        common = ask_in(workdir, "rev-parse", "--git-common-dir")
    except GitError as error:
        if "not a git repository" not in error.message:
            raise
        raise NotStartedError(
            f"the work dir {workdir} is in no git repository",
            hint="leave --worktree out, or name another with --workdir",
        ) from None
    if inside != "true":
        kind = "a bare repository" if bare == "true" else "inside a .git directory"
        raise NotStartedError(
            f"the work dir {workdir} is {kind}, which has no work tree",
            hint="name a directory of a checked-out repository with --workdir",
        )
    return os.path.realpath(os.path.join(workdir, common))  # noqa: PTH118 - a text of any bytes


def _base(workdir: str) -> str:
    try:
        return ask_in(workdir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError:
        raise NotStartedError(
            f"the repository of {workdir} has no commit yet",
            hint="make a first one: a worktree begins at a commit",
        ) from None


def _branch_of(workdir: str) -> str | None:
    try:
        return ask_in(workdir, "symbolic-ref", "--quiet", "HEAD")
    except GitError:
        return None  # a detached HEAD


def _parent(environ: Mapping[str, str]) -> str:
    named = environ.get(PLACE)
    if named:
        return os.path.realpath(named)
    data = user_directory("data")
    if data is None:
        raise NotStartedError(
            "there is no home directory to make worktrees in", hint=f"name a directory with {PLACE}"
        )
    return f"{os.path.realpath(data)}/worktrees"


def check_free(worktree: Worktree) -> None:
    """Refuse a branch that exists: a worktree begins on a new one. NotStartedError."""
    tree, ref = Tree(worktree.git_dir), f"refs/heads/{worktree.branch}"
    if tree.agrees("show-ref", "--verify", "--quiet", ref):
        where = _checked_out_at(tree, ref)
        raise NotStartedError(
            f"the branch {worktree.branch} exists already" + (f", checked out at {where}" if where else ""),
            hint="name a new one: --worktree NAME, or --worktree alone",
        )


def _checked_out_at(tree: Tree, ref: str) -> str | None:
    path = None
    for line in tree.ask("worktree", "list", "--porcelain").splitlines():
        if line.startswith("worktree "):
            path = line.removeprefix("worktree ")
        elif line == f"branch {ref}":
            return path
    return None


def make(worktree: Worktree) -> None:
    """Make the branch and the worktree; on an error neither is left. NotStartedError."""
    check_free(worktree)
    tree = Tree(worktree.git_dir)
    try:
        # In one step: of two who want the same branch one gets it, and the other takes nothing back.
        tree.ask("update-ref", f"refs/heads/{worktree.branch}", worktree.base, "0" * len(worktree.base))
    except GitError:
        check_free(worktree)
        raise
    try:
        _make_parent(worktree)
        words = ("worktree", "add", "--quiet", "--", worktree.path, worktree.branch)
        tree.ask(*words, timeout=CHECKOUT_TIMEOUT)
    except BaseException:
        unmake(worktree)
        raise


def unmake(worktree: Worktree) -> None:
    """Take back what `make` made, before anybody worked in it."""
    tree = Tree(worktree.git_dir)
    with contextlib.suppress(GitError):
        tree.ask("worktree", "remove", "--force", worktree.path)
    with contextlib.suppress(GitError):  # Only while it stands where it began.
        tree.ask("update-ref", "-d", f"refs/heads/{worktree.branch}", worktree.base)
    _remove_parent(worktree)


def warning(worktree: Worktree) -> str | None:
    """Return what its user may not expect: work of theirs that no commit has yet."""
    try:
        changed = ask_in(worktree.origin, "status", "--porcelain", "--untracked-files=no")
    except GitError:
        return None
    return f"what is not committed in {worktree.origin} is not in the worktree" if changed else None


def reason_to_keep(worktree: Worktree) -> str | None:
    """Return why it must not be removed; None when all that is in it is committed and merged, or it is gone.

    What git ignores does not count. DelegateJobError never: a worktree that cannot be asked is kept.
    """
    if not os.path.lexists(worktree.path):
        return None
    own = _own_directory(worktree)
    if own is None:
        return "git does not know it any more"
    if (own / "locked").exists():
        return "it is locked"
    try:
        return _work_in(worktree, Tree(str(own), worktree.path, _without_filters(str(own))))
    except DelegateJobError as error:
        return error.message


def _work_in(worktree: Worktree, tree: Tree) -> str | None:
    if tree.ask("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty"):
        return "it has changes that are not committed"
    head = tree.ask("rev-parse", "--verify", "HEAD^{commit}")
    if not any(tree.agrees("merge-base", "--is-ancestor", head, into) for into in _targets(worktree, tree)):
        name = worktree.base_branch or "HEAD"
        return f"{worktree.branch} has commits that are not merged into {name.removeprefix('refs/heads/')}"
    return None


def _targets(worktree: Worktree, tree: Tree) -> list[str]:
    """Return the commits of which one must have the work: where it began, its branch now, the main HEAD."""
    shared = Tree(worktree.git_dir)
    refs = [ref for ref in (worktree.base_branch, "HEAD") if ref]
    found = [shared.ask("rev-parse", ref) for ref in refs if shared.agrees("rev-parse", "--verify", ref)]
    return [worktree.base, *(commit for commit in found if tree.agrees("cat-file", "-e", commit))]


def _own_directory(worktree: Worktree) -> Path | None:
    """Return where the repository keeps this worktree's HEAD and index: `<repository>/worktrees/<name>`."""
    with contextlib.suppress(OSError):
        for each in Path(worktree.git_dir, "worktrees").iterdir():
            with contextlib.suppress(OSError):
                if (each / "gitdir").read_bytes().rstrip(b"\n") == os.fsencode(f"{worktree.path}/.git"):
                    return each
    return None


_FILTER = re.compile(r"(filter\..+\.)(clean|smudge|process)")


def _without_filters(git_dir: str) -> tuple[str, ...]:
    """Return what turns off the filters that the repository itself configures: an agent may have.

    Those of the user's own configuration stay, such as Git LFS: without it every file of its would differ.
    """
    try:
        words = ("config", "--show-scope", "--name-only", "-z", "--get-regexp", r"^filter\.")
        fields = Tree(git_dir).ask(*words).split("\0")
    except GitError:
        return ()  # none is configured
    found = [
        match[1]
        for scope, name in zip(fields[::2], fields[1::2], strict=False)
        if scope in {"local", "worktree"} and (match := _FILTER.fullmatch(name))
    ]
    settings = ("clean=", "smudge=", "process=", "required=false")
    return tuple(f"{prefix}{setting}" for prefix in dict.fromkeys(found) for setting in settings)


def remove(worktree: Worktree) -> str | None:
    """Remove it and, when git finds it merged, its branch; return why it was kept instead, or None.

    git looks once more itself before it removes the files, and before it deletes the branch.
    """
    reason = reason_to_keep(worktree)
    if reason is not None:
        return reason
    own = _own_directory(worktree)
    if own is not None and os.path.lexists(worktree.path):
        tree = Tree(worktree.git_dir, config=_without_filters(str(own)))
        try:
            tree.ask("worktree", "remove", worktree.path, timeout=CHECKOUT_TIMEOUT)
        except GitError as error:
            return error.message
        tree.agrees("branch", "-d", "--", worktree.branch)
    _remove_parent(worktree)
    return None


def _make_parent(worktree: Worktree) -> None:
    parent = Path(worktree.path).parent
    try:
        parent.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise NotStartedError(f"the worktree's directory {parent}: {error.strerror}") from error


def _remove_parent(worktree: Worktree) -> None:
    with contextlib.suppress(OSError):
        Path(worktree.path).parent.rmdir()
