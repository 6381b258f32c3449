"""`config show`: what holds in a directory, where it came from, and nothing that is secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from delegate_job import settings
from delegate_job.settings_shown import MASK
from harness import Place

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"


def users_file(place: Place, text: str) -> Path:
    """Write the user's own file."""
    path = place.home / ".config/delegate-job/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def local_file(place: Place, text: str) -> Path:
    """Write the work dir's file."""
    path = place.work / settings.WORKDIR_FILE
    path.write_text(text)
    return path


def shown(place: Place, *words: str, **env: str) -> dict[str, Any]:
    """Return what `config show --json` prints."""
    done = place.run("config", "show", "--json", *words, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def example(name: str) -> str:
    """Return the file that docs/configuration.md shows under this name."""
    (text,) = re.findall(rf"<!-- {re.escape(name)} -->\n```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def test_every_value_says_where_it_came_from(place: Place) -> None:
    """Option, environment, both files and the default, each by its own name; both files are named."""
    own = users_file(place, 'agent = "codex"\nmodel = "mine"\n')
    local = local_file(place, "timeout = 60\n")
    document = shown(place, "--registry-dir", "elsewhere", DELEGATE_JOB_MODEL="opus")
    found = {name: (each["value"], each["source"]) for name, each in document["settings"].items()}
    assert found["registry_dir"] == (str(place.work / "elsewhere"), "option")
    assert found["model"] == ("opus", "environment DELEGATE_JOB_MODEL")
    assert found["timeout"] == (60, str(local))
    assert found["agent"] == ("codex", str(own))
    assert found["attempts"] == (1, "default")
    assert found["broker"] == ("embedded", "default")
    assert set(found) == set(settings.resolve({}, workdir=place.work, environ=place.environ).sources)
    assert document["files"] == [{"path": str(path), "found": True} for path in (local, own)]


def test_for_people_it_is_a_table(place: Place) -> None:
    """A line a setting, named as in a file, then the files that were looked for."""
    own = users_file(place, 'idle-timeout = 7\n[agents.mine]\ncommand = ["mine", "--token", "abc"]\n')
    done = place.run("config", "show", "--workdir", place.root)
    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
    assert ["idle-timeout", "7", "config.toml"] in [line.split() for line in lines]
    assert ["agents.mine", "mine", MASK, "config.toml"] in [line.split() for line in lines]
    assert lines[-2:] == [f"not there: {place.root / settings.WORKDIR_FILE}", f"read: {own}"]


def test_secrets_are_masked(place: Place) -> None:
    """A broker's password and the arguments of commands are not shown, however they are spelled."""
    secret = "s3cret"
    users_file(
        place,
        f'agent = "command"\ncommand = "prog --key {secret}"\non-event = ["curl", "-H", "{secret}"]\n'
        f'[agents.mine]\ncommand = ["mine", "{secret}"]\n',
    )
    for url, visible in (
        (f"mqtt://me:{secret}%40@host:1", f"mqtt://me:{MASK}@host:1"),
        (f"mqtts://me:{secret}/x@host", f"mqtts://{MASK}"),
        (f"mqtt://{secret}@host", None),
    ):
        document = shown(place, DELEGATE_JOB_BROKER=url)
        if visible:
            assert secret not in json.dumps(document)
            assert secret not in place.run("config", "show", env={"DELEGATE_JOB_BROKER": url}).stdout
            assert document["settings"]["broker"]["value"] == visible
        assert document["settings"]["command"]["value"] == ["prog", MASK]


def test_a_ci_systems_defaults_are_shown_as_such(place: Place) -> None:
    """What --ci changes says so."""
    found = shown(place, CI="true")["settings"]
    assert (found["ci"]["source"], found["close"]) == ("environment CI", {"value": True, "source": "--ci"})


def test_it_makes_nothing(place: Place) -> None:
    """To look at the settings makes no registry."""
    shown(place)
    assert not place.registry.exists()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("timeuot = 1\n", "unknown key timeuot", "did you mean timeout?"),
        ("timeout = 'x'\n", "timeout must be a number of seconds above 0", None),
        ("command = 'x'\n", "command is not taken from a work dir", "config.toml"),
    ],
)
def test_what_submit_would_refuse_is_refused(place: Place, text: str, message: str, hint: str | None) -> None:
    """A mistake in a file is the same line that submit would say, with exit code 2."""
    local_file(place, text)
    done = place.run("config", "show")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[0]
    assert hint is None or hint in done.stderr.splitlines()[1]
    assert done.stderr == place.run("submit", "--prompt", "x", "--dry-run").stderr


def test_the_documented_files_load(place: Place) -> None:
    """Both examples of docs/configuration.md are taken whole: no key of theirs is left at its default."""
    own = users_file(place, example("config.toml"))
    found = shown(place)
    named = {name for name, each in found["settings"].items() if each["source"] == str(own)}
    # Each key of the user's file but `command`, which has no place beside another agent.
    assert named == set(settings.resolve({}, workdir=place.work, environ={}).sources) - {
        "command",
        "agent_session",
        "registry_dir",  # The place's own variable comes first.
    }
    assert found["agents"] == {"reviewer": {"command": ["my-reviewer", MASK]}}
    local = local_file(place, example(settings.WORKDIR_FILE))
    chosen = {name for name, each in shown(place)["settings"].items() if each["source"] == str(local)}
    assert chosen == settings._WORKDIR_KEYS
