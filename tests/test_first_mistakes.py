"""What somebody meets who uses it for the first time: each mistake gets one line, and a hint that helps."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Place, job_id

DONE = '"$DJ" publish --event completed'


def told(
    place: Place, code: int, *words: str | Path, env: dict[str, str | None] | None = None
) -> tuple[str, str]:
    """Run a command that must fail with this code and two short lines; return error and hint."""
    refused = place.run(*words, env=env, input="")
    assert (refused.returncode, refused.stdout) == (code, ""), refused
    error, hint = refused.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    # Each fits two lines of 80 columns, less what a test's long paths take.
    assert max(len(line.replace(str(place.root), "")) for line in (error, hint)) <= 160
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


def programs(place: Place, *names: str) -> dict[str, str | None]:
    """Return the change of environment by which a machine has only these programs."""
    directory = place.root / "bin"
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(shutil.which(name) or "/nonexistent")
    return {"PATH": str(directory)}


def test_no_tmux(place: Place) -> None:
    """Submit says that tmux is missing and how one gets it; nothing is registered."""
    error, hint = told(place, 7, *place.submit_args(DONE), env=programs(place, "bash"))
    assert error == "tmux is not on PATH"
    assert "install tmux" in hint
    assert place.jobs() == []


@pytest.mark.parametrize(
    ("agent", "program"), [("claude-code", "claude"), ("codex", "codex"), ("gemini", "gemini")]
)
def test_no_agent(place: Place, agent: str, program: str) -> None:
    """An agent that is not installed is named with the command that installs it."""
    error, hint = told(place, 7, "submit", "--prompt", "x", "--agent", agent, env=programs(place, "tmux"))
    assert error == f"agent {agent}: no executable program {program!r} on PATH"
    assert hint.startswith("install it with: npm install -g ")


def test_no_such_agent(place: Place) -> None:
    """A name that is no agent is answered with the names that are."""
    error, hint = told(place, 7, "submit", "--prompt", "x", "--agent", "cladue")
    assert error == "no such agent: cladue"
    assert "claude-code" in hint


WITH_AN_ID: dict[str, Callable[[str], list[str]]] = {
    "status": lambda name: ["status", name],
    "wait": lambda name: ["wait", name],
    "logs": lambda name: ["logs", name],
    "attach": lambda name: ["attach", name],
    "send": lambda name: ["send", name, "text"],
    "approve": lambda name: ["approve", name],
    "answer": lambda name: ["answer", name, "yes"],
    "cancel": lambda name: ["cancel", name],
    "retry": lambda name: ["retry", name],
    "verify": lambda name: ["verify", name, "--validate", "check.sh"],
}


@pytest.mark.parametrize("command", WITH_AN_ID)
def test_a_wrong_id(place: Place, command: str) -> None:
    """Every command that takes an id says that there is none such, and where all of them stand."""
    assert told(place, 2, *WITH_AN_ID[command]("nosuch")) == (
        "no job 'nosuch'",
        "`delegate-job list` shows all jobs",
    )


def test_an_ambiguous_id(place: Place) -> None:
    """Of a beginning that fits several, two are shown."""
    seen: dict[str, str] = {}
    while True:  # Thirty-two letters: at the latest with the thirty-third.
        name = job_id(place.run("submit", "--agent", "human", "--prompt", "x", "--detach").stdout)
        if name[0] in seen:
            break
        seen[name[0]] = name
    error, hint = told(place, 2, "status", name[0])
    assert error == f"more than one job begins with {name[0]!r}: {', '.join(sorted((seen[name[0]], name)))}"
    assert hint == "give more of the id"
    place.run("cancel", name)


@pytest.mark.parametrize("command", WITH_AN_ID)
def test_no_jobs_yet(place: Place, command: str) -> None:
    """`@last` in a new registry: what makes a first job."""
    assert told(place, 2, *WITH_AN_ID[command]("@last")) == (
        "there is no job yet",
        "`delegate-job submit --prompt …` makes one",
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("list", "no jobs; `delegate-job submit --prompt …` makes one\n"),
        ("wait", "no unfinished job to wait for\n"),
    ],
)
def test_nothing_to_show_is_no_error(place: Place, command: str, said: str) -> None:
    """Without jobs `list` and `wait` end with 0, and say why nothing is shown."""
    shown = place.run(command)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--agent", "nobody"), "no such jobs; `delegate-job list` shows all\n"),
        (("logs", "--list"), "no jobs; `delegate-job submit --prompt …` makes one\n"),
    ],
    ids=("list", "logs"),
)
def test_nothing_fits(place: Place, words: tuple[str, ...], said: str) -> None:
    """A list that is empty says why: nothing fits what was asked for, or there is nothing."""
    shown = place.run(*words)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", said)


def test_the_output_of_no_check(place: Place) -> None:
    """`logs --validation` of a job that was never checked says so, and is no error."""
    name = job_id(place.submit(DONE).stdout)
    shown = place.run("logs", name, "--validation")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "no check has run\n")


def test_attach_without_tmux(place: Place) -> None:
    """Attach says that tmux is missing; it is no fault of ours."""
    name = job_id(place.submit(DONE).stdout)
    error, hint = told(place, 7, "attach", name, env=programs(place, "bash"))
    assert error == "tmux is not on PATH"
    assert "install tmux" in hint


def test_the_session_of_another_job(place: Place) -> None:
    """A second submit with the same session says that it is taken, and how it is seen and removed."""
    words = ("--agent-session", "tmux:mine")
    assert place.submit(DONE, *words).returncode == 0
    error, hint = told(place, 7, *place.submit_args(DONE, *words))
    assert error == "tmux session mine exists already (0 attached)"
    assert "remove it: tmux " in hint


def test_an_empty_pipe(place: Place) -> None:
    """A pipe from which nothing came is not a task: the command before it may have failed."""
    error, hint = told(place, 2, "submit", "--prompt-file", "-")
    assert error == "the prompt is empty: nothing came in on stdin"
    assert "before the pipe" in hint


def test_a_prompt_file_that_is_not_there(place: Place) -> None:
    """The name is in the line."""
    error, _ = told(place, 2, "submit", "--prompt-file", "taks.md")
    assert error == "the prompt file 'taks.md' cannot be read: No such file or directory"


def test_no_repository_for_a_worktree(place: Place) -> None:
    """`--worktree` outside of a repository says so, and what to do instead."""
    error, hint = told(place, 7, *place.submit_args(DONE), "--worktree")
    assert error == f"the work dir {place.work} is in no git repository"
    assert "--workdir" in hint


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["stauts"], "status"),
        (["submit", "--promt", "x"], "--prompt"),
        (["submit"], "--prompt"),
        (["submit", "Fix it."], "--prompt"),
        (["status"], "one job"),
        (["cancel"], "ID"),
    ],
    ids=" ".join,
)
def test_a_word_that_is_wrong_or_missing(place: Place, words: list[str], wanted: str) -> None:
    """A slip of the pen is answered with the word that was meant, or what is missing."""
    assert wanted in " ".join(told(place, 2, *words))


def test_who_is_rejected_is_told_where_the_check_has_spoken(place: Place) -> None:
    """The command of the hint shows it, as it stands."""
    check = place.script("check", "echo two is not three; exit 1")
    done = place.submit('"$DJ" publish --event completed', "--validate", check)
    assert done.returncode == 3
    begins = "hint: what the check said: "
    assert done.stderr.startswith(begins)
    shown = place.run(*shlex.split(done.stderr.removeprefix(begins))[1:])
    assert (shown.returncode, shown.stdout) == (0, "two is not three\n")


def test_a_program_that_is_known_better_as_an_agent(place: Place) -> None:
    """`--agent claude` runs the program, and says which agent it is."""
    program = place.agent('"$DJ" publish --event completed')
    bin_ = place.root / "bin"
    bin_.mkdir()
    program.rename(bin_ / "claude")
    words = ("submit", "--agent", "claude", "--prompt", "x", "--close")
    done = place.run(*words, env={"PATH": f"{bin_}:{place.environ['PATH']}"})
    assert done.returncode == 0
    warning = "warning: claude is run as any program is; --agent claude-code knows how to use it\n"
    assert done.stderr == warning
