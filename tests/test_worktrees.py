"""A job in a git worktree of its own: made where its user's files are not, kept while work is in it."""

import json
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegate_job import worktree
from delegate_job.errors import NotStartedError
from delegate_job.job import Worktree
from harness import Place, job_id

COMMIT = 'echo made > made.txt; git add made.txt; git commit -qm work; "$DJ" publish --event completed'
LEAVE = 'echo made > made.txt; "$DJ" publish --event completed'
NOTHING = 'git branch --show-current > "$DELEGATE_JOB_DIR"/branch; pwd -P; "$DJ" publish --event completed'
AT_ONCE = ("prune", "--older-than", "0s")


def git(place: Place, *words: str | Path, cwd: Path | None = None) -> str:
    """Run git as the place's user and return what it printed."""
    done = subprocess.run(
        ["git", *map(str, words)],
        cwd=cwd or place.work,
        env=place.env(),
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout.strip()


@pytest.fixture
def repository(place: Place) -> Place:
    """Give a place whose work dir is a repository with one commit on `main`."""
    (place.home / ".gitconfig").write_text(
        "[user]\nname = n\nemail = n@example.org\n[init]\ndefaultBranch = main\n"
    )
    git(place, "init", "--quiet")
    (place.work / "src").mkdir()
    (place.work / "src/a.txt").write_text("a\n")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "first")
    return place


def worktrees(place: Place) -> list[Path]:
    """Return where the repository has worktrees besides the first."""
    lines = git(place, "worktree", "list", "--porcelain").splitlines()
    return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")][1:]


def branches(place: Place) -> list[str]:
    """Return the names of all branches."""
    return git(place, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()


def test_a_job_runs_in_a_worktree_of_its_own(repository: Place) -> None:
    """It is outside the repository, on a new branch, in the same subdirectory; and submit says where."""
    done = repository.submit(NOTHING, "--worktree", "--close", cwd=repository.work / "src")
    assert done.returncode == 0, done
    job = repository.job(job_id(done.stdout))
    (path,) = worktrees(repository)
    assert job["branch"] == f"delegate-job/{job['id']}"
    assert f"worktree: {path} (branch {job['branch']})\n" in done.stdout
    assert (job["worktree"], job["workdir"]) == (str(path), f"{path}/src")
    assert not path.is_relative_to(repository.work)
    assert path.stat().st_uid == path.parent.stat().st_uid
    assert path.parent.stat().st_mode & 0o777 == 0o700
    log = repository.work / "src/delegate_job_logs" / job["id"]
    assert done.stdout.splitlines()[-1] == job["log_dir"] == str(log)
    assert (log / "branch").read_text().strip() == job["branch"]
    assert f"{path}/src" in (log / "pane.log").read_text()
    assert f"on the new branch {job['branch']}" in (log / "instructions.md").read_text()
    assert git(repository, "status", "--porcelain") == ""


def test_list_here_shows_it_where_it_was_submitted(repository: Place) -> None:
    """`list --here` goes by the directory in which its user was."""
    repository.submit(NOTHING, "--worktree", "--close")
    assert len(json.loads(repository.run("list", "--here", "--json").stdout)) == 1


@pytest.mark.parametrize("words", [["--worktree"], ["--worktree="], ["--worktree", "--close"]], ids=str)
def test_the_branch_may_be_left_out(repository: Place, words: list[str]) -> None:
    """`--worktree` before another option, or at the end, means a branch named by the job's id."""
    shown = repository.run(*repository.submit_args(":"), "--dry-run", "--json", *words)
    assert json.loads(shown.stdout)["branch"].startswith("delegate-job/")


def test_a_dry_run_makes_no_worktree(repository: Place) -> None:
    """It says where the agent would work and on which branch, and nothing is made."""
    shown = json.loads(
        repository.run(*repository.submit_args(":"), "--worktree", "b", "--dry-run", "--json").stdout
    )
    assert shown["branch"] == "b"
    assert shown["workdir"].endswith("/work")
    assert (worktrees(repository), branches(repository)) == ([], ["main"])


def test_what_no_commit_has_is_said(repository: Place) -> None:
    """A change that is not committed is not in the worktree: one warning."""
    (repository.work / "src/a.txt").write_text("changed\n")
    done = repository.submit(NOTHING, "--worktree", "--close")
    assert done.returncode == 0
    assert f"warning: what is not committed in {repository.work} is not in the worktree\n" in done.stderr


def test_retry_makes_a_new_worktree(repository: Place) -> None:
    """Each launch has its own, also when the first one's branch was named."""
    repository.submit(NOTHING, "--worktree", "named", "--close")
    done = repository.run("retry", "@last")
    assert done.returncode == 0, done
    assert len(worktrees(repository)) == 2
    assert branches(repository) == [f"delegate-job/{job_id(done.stdout)}", "main", "named"]


def test_prune_removes_an_unchanged_worktree(repository: Place) -> None:
    """Nothing was done in it: worktree and branch go with the job; the audit log stays."""
    done = repository.submit(NOTHING, "--worktree", "--close")
    (path,) = worktrees(repository)
    assert repository.run(*AT_ONCE).returncode == 0
    assert (worktrees(repository), branches(repository)) == ([], ["main"])
    assert not path.parent.exists()
    assert (repository.log_dir(job_id(done.stdout)) / "pane.log").is_file()


def test_prune_removes_the_worktree_of_a_job_whose_directory_is_gone(repository: Place) -> None:
    """Its user has removed the job's directory by hand; nobody else would name the worktree again."""
    done = repository.submit(NOTHING, "--worktree", "--close")
    shutil.rmtree(repository.registry / "jobs" / job_id(done.stdout))
    assert repository.run(*AT_ONCE).returncode == 0
    assert (worktrees(repository), branches(repository)) == ([], ["main"])
    assert not list((repository.registry / "jobs").iterdir())
    assert json.loads(repository.run("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (LEAVE, "it has changes that are not committed"),
        (COMMIT, "fix has commits that are not merged into main"),
    ],
    ids=["uncommitted", "unmerged"],
)
def test_prune_keeps_a_worktree_with_work(repository: Place, agent: str, reason: str) -> None:
    """It is named with the reason, and its job is kept, so that a later prune finds both."""
    done = repository.submit(agent, "--worktree", "fix", "--close")
    (path,) = worktrees(repository)
    for words in (["--dry-run"], []):
        pruned = repository.run(*AT_ONCE, *words)
        assert f"kept {job_id(done.stdout)}: its worktree {path}: {reason}\n" in pruned.stderr
    kept = json.loads(repository.run(*AT_ONCE, "--json").stdout)
    assert kept["pruned"] == []
    assert kept["kept"] == [{"id": job_id(done.stdout), "worktree": str(path), "reason": reason}]
    assert (path / "made.txt").read_text() == "made\n"
    assert repository.job(job_id(done.stdout))["outcome"] == "accepted"


def test_prune_removes_what_is_merged(repository: Place) -> None:
    """After the merge nothing of the worktree would be lost: it goes, with its branch and its job."""
    repository.submit(COMMIT, "--worktree", "fix", "--close")
    git(repository, "merge", "--quiet", "fix")
    pruned = repository.run(*AT_ONCE)
    assert pruned.stderr == "1 forgotten\n"
    assert (worktrees(repository), branches(repository)) == ([], ["main"])
    assert (repository.work / "made.txt").is_file()


def test_prune_keeps_work_that_was_merged_and_gone_on_with(repository: Place) -> None:
    """A file that git does not know yet is work too."""
    repository.submit(COMMIT, "--worktree", "fix", "--close")
    git(repository, "merge", "--quiet", "fix")
    (path,) = worktrees(repository)
    (path / "more.txt").write_text("more\n")
    assert "changes that are not committed" in repository.run(*AT_ONCE).stderr
    assert (path / "more.txt").is_file()


def test_a_worktree_that_its_user_removed_keeps_no_job(repository: Place) -> None:
    """What was removed by hand is no reason to keep anything; the log is still there."""
    done = repository.submit(LEAVE, "--worktree", "fix", "--close")
    (path,) = worktrees(repository)
    git(repository, "worktree", "remove", "--force", path)
    assert repository.run(*AT_ONCE).stdout == f"{job_id(done.stdout)}\n"
    assert (repository.log_dir(job_id(done.stdout)) / "reports.jsonl").is_file()
    assert "fix" in branches(repository)


def test_a_worktree_that_cannot_be_asked_is_kept(repository: Place) -> None:
    """That git could not look is never taken for unchanged."""
    repository.submit(LEAVE, "--worktree", "--close")
    (path,) = worktrees(repository)
    (repository.work / ".git").rename(repository.root / "elsewhere")
    assert "git does not know it any more" in repository.run(*AT_ONCE).stderr
    assert (path / "made.txt").is_file()


def test_nothing_that_an_agent_has_configured_is_run(repository: Place) -> None:
    """To look at a worktree starts neither a filter nor a file monitor of its repository."""
    mark = repository.root / "ran"
    program = repository.script("evil", f"echo ran >> {mark}; cat")
    agent = f"""
        common=$(git rev-parse --git-common-dir)
        git config core.fsmonitor {program}
        git config filter.x.clean {program}
        echo '* filter=x' > "$common/info/attributes"
        touch src/a.txt
        "$DJ" publish --event completed"""
    assert repository.submit(agent, "--worktree", "--close").returncode == 0
    mark.unlink(missing_ok=True)
    assert repository.run(*AT_ONCE).stderr == "1 forgotten\n"
    assert not mark.exists()


def test_hooks_do_not_run_when_it_is_made(repository: Place) -> None:
    """A `post-checkout` that a repository brings, by `core.hooksPath` say, is not started."""
    mark = repository.root / "ran"
    hooks = repository.work / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (hooks / "post-checkout").chmod(0o755)
    git(repository, "config", "core.hooksPath", "hooks")
    assert repository.submit(NOTHING, "--worktree", "--close").returncode == 0
    assert not mark.exists()


def test_a_submit_in_a_git_hook_works_in_its_own_worktree(repository: Place) -> None:
    """Git's variables of the outer repository reach neither our git nor the agent's."""
    other = repository.root / "other"
    git(repository, "init", "--quiet", other)
    outer = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(other / "i")}
    done = repository.submit(COMMIT, "--worktree", "fix", "--close", env=outer)
    assert done.returncode == 0, done
    assert git(repository, "log", "-1", "--format=%s", "fix") == "work"


def test_a_submit_that_fails_leaves_no_worktree(repository: Place) -> None:
    """What was made for a job that never was is removed: worktree, branch, directory."""
    refused = repository.run(
        *repository.submit_args(":"), "--worktree", "fix", "--broker", "mqtt://127.0.0.1:1"
    )
    assert refused.returncode == 7, refused
    assert (worktrees(repository), branches(repository)) == ([], ["main"])
    assert list((repository.home / ".local/share").rglob("*/worktrees/*")) == []


def test_an_operation_id_joins_in_spite_of_its_branch(repository: Place) -> None:
    """The second submit of an operation is no second worktree, and the branch that exists is its own."""
    words = ("--worktree", "fix", "--operation-id", "one", "--close")
    first = repository.submit(NOTHING, *words)
    second = repository.submit(NOTHING, *words)
    assert (second.returncode, job_id(second.stdout)) == (0, job_id(first.stdout))
    assert len(worktrees(repository)) == 1


REFUSED = {
    "exists": ("main", 7, "the branch main exists already, checked out at {work}", "--worktree NAME"),
    "name": ("a..b", 2, "'a..b' is no name for a branch", "such as"),
    "option": ("=-x", 2, "'-x' is no name for a branch", "such as"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_branch_that_cannot_be_is_refused(repository: Place, case: str) -> None:
    """One line and a hint, and nothing is made."""
    branch, code, message, hint = REFUSED[case]
    words = [f"--worktree{branch}"] if branch.startswith("=") else ["--worktree", branch]
    refused = repository.submit(":", *words)
    error, hinted = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (code, "")
    assert error == f"error: {message.format(work=repository.work)}"
    assert hint in hinted
    assert worktrees(repository) == []


def test_of_many_who_want_the_same_branch_one_gets_it(repository: Place) -> None:
    """The others are refused, and take nothing back that is the first one's."""
    many = 8
    environ = {"DELEGATE_JOB_WORKTREES_DIR": str(repository.root / "trees")}
    plans = [worktree.plan(str(repository.work), "fix", f"job{number}", environ) for number in range(many)]
    together = threading.Barrier(many)

    def make(planned: Worktree) -> bool:
        together.wait(timeout=20)
        try:
            worktree.make(planned)
        except NotStartedError:
            return False
        return True

    with ThreadPoolExecutor(many) as pool:
        made = [planned for planned, done in zip(plans, pool.map(make, plans), strict=True) if done]
    (first,) = made
    assert worktrees(repository) == [Path(first.path)]
    assert git(repository, "rev-parse", "fix") == git(repository, "rev-parse", "HEAD", cwd=Path(first.path))
    assert [path.name for path in (repository.root / "trees").iterdir()] == [Path(first.path).parent.name]


@pytest.mark.parametrize("kind", ["none", "bare", "unborn", "inside", "not committed"])
def test_a_work_dir_without_a_commit_of_a_work_tree_is_refused(place: Place, kind: str) -> None:
    """No repository, a bare one, one without a commit, its `.git`: each has its line, exit code 7."""
    (place.home / ".gitconfig").write_text("[user]\nname = n\nemail = n@example.org\n")
    where, said = {
        "none": (place.work, "is in no git repository"),
        "bare": (place.work, "is a bare repository, which has no work tree"),
        "unborn": (place.work, "has no commit yet"),
        "inside": (place.work / ".git", "is inside a .git directory"),
        "not committed": (place.work / "new", "is not in the commit that the worktree would have"),
    }[kind]
    if kind != "none":
        git(place, "init", "--quiet", *(["--bare"] if kind == "bare" else []))
    if kind == "not committed":
        git(place, "commit", "--quiet", "--allow-empty", "--message", "first")
        where.mkdir()
    refused = place.submit(":", "--worktree", "--workdir", where)
    error, hint = refused.stderr.splitlines()
    assert refused.returncode == 7
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


def test_without_git_it_says_so(place: Place) -> None:
    """A machine without git gets one line."""
    bare = place.root / "bin"
    bare.mkdir()
    (bare / "tmux").symlink_to(shutil.which("tmux") or "")
    refused = place.submit(":", "--worktree", env={"PATH": str(bare)})
    assert refused.returncode == 7
    assert refused.stderr.splitlines()[0] == "error: git was not found"
