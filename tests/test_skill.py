"""The skill for other agents: every command in it works, and installing it loses nobody's changes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from delegate_job import cli
from delegate_job.agents import SKILL_DIRS
from delegate_job.exit_codes import ExitCode
from delegate_job.job import Outcome
from harness import Place

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "skills/delegate-job/SKILL.md"
TEXT = SOURCE.read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
MENTIONED = re.compile(r"`(?:delegate-job )?([a-z]+) ID\b")


ASKS_ONCE = """
"$DJ" publish --event permission_required
until [ -e answered ]; do sleep 0.1; done
"$DJ" publish --event resumed
read -r line
sleep 60
"""


def test_the_front_matter_is_what_agents_read() -> None:
    """Name and description stand first, no longer than the format of skills allows: 64 and 1024."""
    found = re.match(r"---\nname: ([a-z0-9-]{1,64})\ndescription: (.{1,1024})\n---\n", TEXT)
    assert found, TEXT[:200]
    assert found[1] == SOURCE.parent.name == "delegate-job"
    assert ": " not in found[2], "YAML would read a mapping"


def test_every_command_of_the_skill_works(place: Place) -> None:
    """Each command line of the skill runs as it stands, with the id that the first one prints."""
    work = place.agent(ASKS_ONCE)
    (place.home / ".config/delegate-job").mkdir(parents=True)
    (place.home / ".config/delegate-job/config.toml").write_text(
        f'agent = "scripted"\n[agents.scripted]\ncommand = ["{work}", "{{prompt_file}}"]\n'
    )
    (place.work / "task.md").write_text("Do the work.")
    (place.work / "check.sh").write_text("true")
    submitted = place.run(*_words(COMMANDS[0]))
    assert submitted.returncode == 0, submitted
    job = json.loads(submitted.stdout)["id"]
    for line in COMMANDS[1:]:
        ran = place.run(*_words(line.replace("ID", job)))
        assert ran.returncode == 0, (line, ran)
        if "--until waiting" in line:
            (place.work / "answered").touch()
            place.await_state(job, "running")
    assert place.await_state(job, "done")["outcome"] == "cancelled"
    assert {line.split()[1] for line in COMMANDS} >= {"submit", "wait", "status", "logs", "send", "cancel"}


def _words(line: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program == "delegate-job"
    return words


def test_every_command_that_is_mentioned_exists() -> None:
    """What the text names in passing is a command of the program too."""
    named = set(MENTIONED.findall(TEXT))
    assert {"approve", "deny", "answer", "attach", "retry"} <= named <= set(cli.COMMANDS)


def test_the_exit_codes_are_those_of_the_program() -> None:
    """The table of the skill has each outcome beside its code."""
    rows = re.findall(r"^\| ([\d, ]+) \| ([a-z_, ]+) \|", TEXT, re.MULTILINE)
    said = {
        name: int(code)
        for codes, names in rows
        for code, name in zip(codes.split(", "), names.split(", "), strict=True)
    }
    assert said == {str(outcome): ExitCode[outcome.name] for outcome in Outcome}


@pytest.mark.parametrize("agent", SKILL_DIRS)
def test_it_is_installed_where_the_agent_looks(place: Place, agent: str) -> None:
    """For the user below the home, for a project below the current directory; the path is said."""
    of_user = place.run("skill", "install", "--agent", agent)
    path = place.home / SKILL_DIRS[agent].of_user / "delegate-job/SKILL.md"
    assert (of_user.returncode, of_user.stdout) == (0, f"installed: {path}\n")
    assert path.read_text(encoding="utf-8") == TEXT
    of_project = json.loads(place.run("skill", "install", "--agent", agent, "--project", "--json").stdout)
    assert of_project["path"] == str(place.work / SKILL_DIRS[agent].of_project / "delegate-job/SKILL.md")


def test_claudes_other_home_is_respected(place: Place) -> None:
    """With CLAUDE_CONFIG_DIR claude looks there, so the skill goes there."""
    other = place.root / "other"
    said = place.run("skill", "install", env={"CLAUDE_CONFIG_DIR": str(other)})
    assert (other / "skills/delegate-job/SKILL.md").is_file(), said


def test_a_changed_file_stays(place: Place) -> None:
    """What a user has changed is replaced with --force alone; what we wrote before is brought up to date."""
    place.run("skill", "install", "--dir", "here")
    path = place.work / "here/delegate-job/SKILL.md"
    assert "unchanged" in place.run("skill", "install", "--dir", "here").stdout
    path.write_text("mine")
    refused = place.run("skill", "install", "--dir", "here")
    assert refused.returncode == 2
    assert refused.stderr == f"error: {path} is not what was installed there\nhint: --force replaces it\n"
    assert path.read_text() == "mine"
    forced = place.run("skill", "install", "--dir", "here", "--force")
    assert forced.stdout == f"updated: {path}\n"
    assert path.read_text(encoding="utf-8") == TEXT


def test_an_older_version_is_brought_up_to_date(place: Place) -> None:
    """A file that is as we wrote it, and not what we write now, needs no --force."""
    from hashlib import sha256

    place.run("skill", "install", "--dir", "here")
    path = place.work / "here/delegate-job/SKILL.md"
    path.write_text("of an older version")
    (path.parent / ".installed").write_text(sha256(b"of an older version").hexdigest() + "\n")
    assert place.run("skill", "install", "--dir", "here").stdout == f"updated: {path}\n"
    assert path.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["install", "--agent", "aider"], "error: where 'aider' looks for skills is not known"),
        (["install", "--dir", "x", "--project"], "error: --dir and --project exclude each other"),
        (["install", "--dir", "file"], "error: "),
        (["remove"], "error: invalid value"),
    ],
)
def test_mistakes_are_one_line(place: Place, words: list[str], message: str) -> None:
    """What can't be done is said in a line, with a code, and nothing is written."""
    (place.work / "file").write_text("")
    said = place.run("skill", *words)
    assert said.returncode == 2, said
    assert said.stderr.startswith(message), said
    assert "Traceback" not in said.stderr


def test_it_is_shown(place: Place) -> None:
    """`skill show` prints the text as it is, and as JSON with its name."""
    assert place.run("skill", "show").stdout == TEXT
    assert json.loads(place.run("skill", "show", "--json").stdout) == {"name": "delegate-job", "text": TEXT}


def test_the_wheel_brings_it(tmp_path: Path) -> None:
    """A wheel that is built from this tree holds the skill where the installed command looks."""
    pytest.importorskip("hatchling", reason="needs hatchling, which scripts/dist.sh installs")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert built.returncode == 0, built
    from zipfile import ZipFile

    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        assert archive.read("delegate_job/skills/delegate-job/SKILL.md").decode() == TEXT
