"""What changed in a git work tree since a launch, seen without running anything that the tree names."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from delegate_job import changes
from delegate_job.changes import Changes, since
from harness import Place, job_id

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


def git(place: Place, *args: str) -> str:
    """Run the user's own git in the work dir."""
    done = subprocess.run(
        ["git", *args],
        cwd=place.work,
        env=place.environ | IDENTITY,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def tree(place: Place) -> Place:
    """Give a place whose work dir is a git work tree with one commit."""
    git(place, "init", "-q")
    (place.work / "kept.txt").write_text("one\ntwo\n")
    (place.work / "gone.txt").write_text("bye\n")
    git(place, "add", ".")
    git(place, "commit", "-qm", "first")
    return place


def recorded(place: Place) -> Path:
    """Record the work dir as a launch does."""
    path = place.root / "baseline.json"
    changes.record(str(place.work), path)
    return path


def by_name(found: Changes) -> dict[str, tuple[int | None, int | None, bool]]:
    """Return the changed files as name: added, removed, whether there were changes before."""
    return {file.name: (file.added, file.removed, file.was_dirty) for file in found.files}


def test_new_changed_and_removed_files_are_seen(tree: Place) -> None:
    """Committed by the agent or not, added or not; what git ignores is left out."""
    (tree.work / ".gitignore").write_text("*.tmp\n")
    path = recorded(tree)
    (tree.work / "kept.txt").write_text("one\n2\n3\n")
    git(tree, "commit", "-qam", "by the agent")
    (tree.work / "gone.txt").unlink()
    (tree.work / "neü.txt").write_text("new\n")
    (tree.work / "x.tmp").write_text("ignored\n")
    found = since(path, str(tree.work))
    assert found.problem is None
    assert by_name(found) == {
        ".gitignore": (1, 0, True),
        "gone.txt": (0, 1, False),
        "kept.txt": (2, 1, False),
        "neü.txt": (1, 0, False),
    }
    assert "+3\n" in found.diff
    assert (
        git(tree, "-c", "core.quotePath=false", "status", "--porcelain")
        == " D gone.txt\n?? .gitignore\n?? neü.txt\n"
    )


def test_nothing_that_the_tree_names_is_run(tree: Place) -> None:
    """Filters, hooks, monitors, text conversions and other diffs are programs, and none of them runs."""
    trap = tree.script("trap.sh", f"echo $0 $* >> {tree.root}/trapped\ncat\n")
    for key in (
        "core.fsmonitor", "diff.external", "diff.x.command", "diff.x.textconv", "filter.x.clean",
        "filter.x.smudge", "filter.x.process", "core.pager", "pager.diff", "core.sshCommand", "core.askPass",
    ):  # fmt: skip
        git(tree, "config", key, str(trap))
    git(tree, "config", "core.hooksPath", str(tree.root))
    git(tree, "config", "filter.x.required", "true")
    for hook in ("post-index-change", "pre-commit"):
        tree.script(hook, f"echo hook >> {tree.root}/trapped\n")
    (tree.work / ".gitattributes").write_text("* filter=x diff=x\n")
    path = recorded(tree)
    (tree.work / "kept.txt").write_text("other\n")
    found = since(path, str(tree.work))
    assert "+other\n" in found.diff
    assert not (tree.root / "trapped").exists()
    (tree.work / "kept.txt").write_text("another\n")
    subprocess.run(["git", "diff"], cwd=tree.work, env=tree.environ, capture_output=True, check=False)
    assert (tree.root / "trapped").exists(), "the trap would not have shown it"


def test_hidden_changes_are_shown(tree: Place) -> None:
    """What the agent's own index is told to overlook is compared all the same."""
    path = recorded(tree)
    git(tree, "update-index", "--assume-unchanged", "kept.txt")
    git(tree, "update-index", "--skip-worktree", "gone.txt")
    for name in ("kept.txt", "gone.txt"):
        (tree.work / name).write_text("changed\n")
    assert set(by_name(since(path, str(tree.work)))) == {"kept.txt", "gone.txt"}


def test_only_the_work_dir_counts(tree: Place) -> None:
    """In a directory of a larger repository, changes elsewhere in it are not the job's."""
    below = tree.work / "part [a]"
    below.mkdir()
    path = tree.root / "baseline.json"
    changes.record(str(below), path)
    (below / "mine").write_text("x\n")
    (tree.work / "kept.txt").write_text("not mine\n")
    assert set(by_name(since(path, str(below)))) == {"part [a]/mine"}


def test_a_repository_without_a_commit(place: Place) -> None:
    """Before the first commit every file is new."""
    git(place, "init", "-q")
    path = recorded(place)
    (place.work / "first").write_text("x\n")
    assert by_name(since(path, str(place.work))) == {"first": (1, 0, False)}


def test_what_cannot_be_compared_says_why(
    tree: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No repository, a damaged record, a commit or a work dir that is gone, no git: one sentence."""
    plain = tmp_path / "plain"
    plain.mkdir()
    changes.record(str(plain), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
    assert "no git work tree" in str(since(tmp_path / "b.json", str(plain)).problem)
    (tmp_path / "c.json").write_text('{"dirty": null}')
    assert "damaged" in str(since(tmp_path / "c.json", str(plain)).problem)
    path = recorded(tree)
    known = json.loads(path.read_text())
    known["repository"][-1] = "0" * 40
    (tmp_path / "d.json").write_text(json.dumps(known))
    assert "commit 000000000000 is not there" in str(since(tmp_path / "d.json", str(tree.work)).problem)
    assert "gone" in str(since(path, str(tmp_path / "nowhere")).problem)
    monkeypatch.setenv("PATH", str(plain))
    assert "git is not" in str(since(path, str(tree.work)).problem)


def test_a_large_diff_is_cut(tree: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diff ends at its limit, and says so; the list of files is whole."""
    monkeypatch.setattr(changes, "DIFF_LIMIT", 2000)
    path = recorded(tree)
    (tree.work / "large").write_text("line\n" * 5000)
    found = since(path, str(tree.work))
    assert found.is_cut
    assert len(found.diff) == 2000
    assert by_name(found)["large"] == (5000, 0, False)


def test_a_tree_that_points_elsewhere_is_none(tree: Place, tmp_path: Path) -> None:
    """A repository whose configuration names another work tree is not read."""
    git(tree, "config", "core.worktree", str(tmp_path))
    assert not recorded(tree).exists()


def test_odd_files_hold_nobody_up(tree: Place) -> None:
    """A FIFO, a link to nowhere and a repository within the work dir are no trouble."""
    path = recorded(tree)
    os.mkfifo(tree.work / "fifo")
    (tree.work / "link").symlink_to("/nowhere/else")
    git(tree, "init", "-q", "inner")
    (tree.work / "plain").write_text("x\n")
    found = since(path, str(tree.work))
    assert found.problem is None
    assert set(by_name(found)) == {"link", "plain"}
    (tree.work / "gone.txt").unlink()
    os.mkfifo(tree.work / "gone.txt")
    assert "git cannot read it" in str(since(path, str(tree.work)).problem)


def test_a_job_records_its_work_tree(tree: Place) -> None:
    """The state at the launch is in the job's directory, and nothing of the agent's counts as older."""
    (tree.work / "kept.txt").write_text("before\n")
    done = tree.submit('echo new > made.txt; "$DJ" publish --event completed')
    path = tree.registry / "jobs" / job_id(done.stdout) / "baseline.json"
    assert path.stat().st_mode & 0o777 == 0o600
    found = by_name(since(path, str(tree.work)))
    assert found == {"kept.txt": (1, 2, True), "made.txt": (1, 0, False)}
