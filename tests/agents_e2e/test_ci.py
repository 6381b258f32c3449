"""`submit --ci` with the real claude-code: a key in the environment is all it needs, and nothing is left."""

import dataclasses
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_e2e.model_stub import Turn, serving
from agents_e2e.real_agents import CLAUDE, DEADLINE, RealAgent, Rig, claude_variables, settle
from harness import SYSTEM_PATH, Place, job_id, wait_until

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("rig", [CLAUDE], indirect=True, ids=["claude"]),
]

KEY = "sk-ant-api03-" + "k" * 75 + "ABCDEFGHIJKLMNOPQRST"
WORK = (Turn(runs="touch made"), Turn(report="completed"), Turn("Done."))


@pytest.fixture
def stranger(rig: Rig, place: Place) -> Iterator[RealAgent]:
    """Give an agent that finds a key in its environment and was never started before."""
    place.environ["ANTHROPIC_API_KEY"] = KEY
    with serving(rig.stub()) as model:
        model.says(*WORK)
        yield settle(dataclasses.replace(rig, seed=lambda _, stub: claude_variables(stub)), place, model)


def tree(directory: Path) -> dict[str, bytes]:
    """Return what a directory holds."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def left_of_the_key(place: Place) -> list[str]:
    """Return the files of the place that hold the key, or that part of it that claude keeps."""
    files = (path for path in place.root.rglob("*") if path.is_file())
    return [str(path) for path in files if KEY[-20:].encode() in path.read_bytes()]


def home_of(place: Place, job: str) -> Path:
    """Return the agent's private home."""
    return place.registry / "jobs" / job / "home"


def test_a_key_in_the_environment_is_enough(stranger: RealAgent) -> None:
    """Never started before, claude does its work: nothing asks, and no part of the key stays."""
    done = stranger.place.run(
        *(
            "submit",
            "--ci",
            "--prompt",
            "Make it so.",
            "--permission-mode",
            "edits",
            "--timeout",
            str(DEADLINE),
        ),
        timeout=DEADLINE + 15,
    )
    assert done.returncode == 0, done
    job = job_id(done.stdout)
    assert (stranger.place.work / "made").exists()
    assert not {"permission_required", "turn_ended"} & set(stranger.kinds(job))
    assert stranger.place.tmux("has-session", "-t", f"=dj-{job}").returncode != 0
    assert not home_of(stranger.place, job).exists()
    assert left_of_the_key(stranger.place) == []


def test_the_users_own_configuration_is_not_touched(stranger: RealAgent) -> None:
    """What claude reads and writes is the job's own: the user's files stay the same, byte for byte."""
    home = stranger.place.home
    (home / ".claude").mkdir()
    (home / ".claude/settings.json").write_text(json.dumps({"disableAllHooks": True}))
    (home / ".claude.json").write_text(json.dumps({"numStartups": 7}))
    before = tree(home)
    done = stranger.submit("--ci")
    assert done.returncode == 0, done
    assert tree(home) == before


def git(directory: Path, *words: str | Path) -> None:
    """Run git, as a person who never configured it."""
    who = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@x", "GIT_COMMITTER_NAME": "x"}
    argv = ["git", "-C", str(directory), "-c", "init.defaultBranch=main", *map(str, words)]
    environ = {**who, "GIT_COMMITTER_EMAIL": "x@x", "HOME": str(directory), "PATH": SYSTEM_PATH}
    subprocess.run(argv, check=True, timeout=30, capture_output=True, env=environ)


@pytest.mark.parametrize("worktree", [False, True], ids=["clone", "worktree"])
def test_a_repository_opens_no_dialog(stranger: RealAgent, *, worktree: bool) -> None:
    """A CI system says that it is one; servers and imports that a repository brings are left out unasked."""
    root, work, ran = stranger.place.root, stranger.place.work, stranger.place.root / "server-ran"
    (work / "inner").mkdir()
    server = {"command": "touch", "args": [str(ran)]}
    (work / ".mcp.json").write_text(json.dumps({"mcpServers": {"x": server}}))
    (work / "CLAUDE.md").write_text(f"See @{root}/outside.md and @../outside.md\n")
    (work / "inner/file").write_text("")
    (root / "outside.md").write_text("FROM-OUTSIDE")
    git(work, "init")
    git(work, "add", ".")
    git(work, "commit", "-m", "x")
    if worktree:
        git(work, "worktree", "add", root / "tree")
    stranger.place.environ["CI"] = "true"
    done = stranger.submit("--workdir", (root / "tree" if worktree else work) / "inner")
    assert done.returncode == 0, done
    assert not ran.exists()
    assert not [asked for asked in stranger.model.asked if "FROM-OUTSIDE" in asked.text]


def test_what_needs_a_person_ends_the_job(stranger: RealAgent) -> None:
    """A permission that nobody can give is exit 8, at once, and nothing goes on behind it."""
    done = stranger.submit("--ci", "--permission-mode", "ask")
    assert done.returncode == 8, done
    job = job_id(done.stdout)
    assert not (stranger.place.work / "made").exists()
    assert not home_of(stranger.place, job).exists()
    assert left_of_the_key(stranger.place) == []


def test_rejected_work_is_mended_in_the_same_home(stranger: RealAgent) -> None:
    """The home stays for all rounds of a job: the session that is told of a rejection is the same."""
    check = stranger.place.script("check", '[ -e "$JOB_WORKDIR/mended" ] || { echo not yet; exit 1; }')
    stranger.model.says(Turn(runs="touch mended"), Turn(report="completed"), Turn("Done."), to="not yet")
    done = stranger.submit("--ci", "--validate", check, "--attempts", "2")
    assert done.returncode == 0, done
    assert len(stranger.sessions(job_id(done.stdout))) == 1


def test_an_agent_that_stays_keeps_its_home_until_it_ends(stranger: RealAgent) -> None:
    """With --no-close the session can be looked at afterwards; its home goes when it ends."""
    options = [word for word in stranger.options("--ci", prompt="Make it so.") if word != "--close"]
    done = stranger.place.run(*options, "--no-close", timeout=DEADLINE + 15)
    assert done.returncode == 0, done
    job = job_id(done.stdout)
    home = home_of(stranger.place, job)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / ".claude.json").stat().st_mode & 0o077 == 0
    assert stranger.place.tmux("kill-session", "-t", f"=dj-{job}").returncode == 0
    wait_until(lambda: not home.exists(), what="the end of the home")
    assert left_of_the_key(stranger.place) == []


def test_who_takes_over_goes_by_the_same_profile(stranger: RealAgent) -> None:
    """A job whose submit is killed goes on in its home and ends as one of CI, and so does its retry."""
    options = stranger.options("--ci", "--permission-mode", "ask", prompt="Make it so.")
    owner = stranger.place.start(*[word for word in options if word != "--close"], "--startup-timeout", "60")
    job = stranger.place.await_job()
    stranger.place.await_kind(job, "spawned")
    owner.send_signal(signal.SIGKILL)
    assert stranger.wait(job) == 8
    wait_until(lambda: not home_of(stranger.place, job).exists(), what="the end of the home")
    again = stranger.place.run("retry", job, timeout=DEADLINE + 15)
    assert again.returncode == 8, again
    assert not home_of(stranger.place, job_id(again.stdout)).exists()
