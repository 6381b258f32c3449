"""`submit --ci`: a job at which nobody looks. What it means for each agent is in agents_e2e."""

import json
from typing import Any

import pytest

from harness import Place, job_id
from terminal import Terminal

COMPLETED = '"$DJ" publish --event completed'
ASKS = '"$DJ" publish --event permission_required --detail "may I?"\nsleep 60'


def spec_of(place: Place, job: str) -> dict[str, Any]:
    """Return what was asked for at submit."""
    spec: dict[str, Any] = json.loads((place.registry / "jobs" / job / "spec.json").read_text())
    return spec


def has_session(place: Place, job: str) -> bool:
    """Say whether the job's session is there."""
    return place.tmux("has-session", "-t", f"=dj-{job}").returncode == 0


@pytest.mark.parametrize(
    ("options", "env"), [(["--ci"], {}), ([], {"CI": "true"}), ([], {"DELEGATE_JOB_CI": "yes"})]
)
def test_what_needs_a_person_ends_the_job(place: Place, options: list[str], env: dict[str, str]) -> None:
    """By option, by variable or in a CI system: exit 8, and the session is gone."""
    done = place.submit(ASKS, *options, env=env)
    assert done.returncode == 8, done
    assert not has_session(place, job_id(done.stdout))


def test_what_is_said_wins(place: Place) -> None:
    """--no-close and --no-fail-on-input hold in a CI system, and --no-ci takes all of it back."""
    asks = f'"$DJ" publish --event permission_required\n{COMPLETED}\nsleep 60'
    for options in (["--no-close", "--no-fail-on-input"], ["--no-ci"]):
        done = place.submit(asks, *options, env={"CI": "true"})
        assert done.returncode == 0, done
        assert has_session(place, job_id(done.stdout))


def test_a_retry_is_of_the_same_profile(place: Place) -> None:
    """A job of CI that is run again is one of CI, also where nothing says so."""
    first = place.submit(ASKS, "--ci")
    again = place.run("retry", job_id(first.stdout))
    assert again.returncode == 8, again
    specs = [spec_of(place, job_id(each.stdout)) for each in (first, again)]
    assert [(spec["ci"], spec["close"], spec["fail_on_input"]) for spec in specs] == [(True, True, True)] * 2


def test_output_is_plain(place: Place) -> None:
    """On a terminal that is a CI system's log nothing is drawn anew, and nothing is coloured."""
    words = place.submit_args(f"{COMPLETED} --detail done", "--ci")
    log = place.root / "terminal.log"
    terminal = Terminal(place)
    terminal.start(*words, before=f"tmux pipe-pane 'cat > {log}';")
    shown = terminal.shows("code=0")
    assert "completed: done" in shown
    assert "outcome: accepted" in shown
    assert b"\x1b[" not in log.read_bytes().partition(b"registered job")[2].partition(b"code=")[0]


def test_a_secret_that_is_missing_is_said_at_once(place: Place) -> None:
    """Without a key claude is not started in CI: exit 7, one line says why, and nothing is made."""
    claude = place.root / "bin/claude"
    claude.parent.mkdir()
    claude.write_text("#!/bin/sh\n")
    claude.chmod(0o755)
    env = {"ANTHROPIC_API_KEY": "", "PATH": f"{claude.parent}:{place.environ['PATH']}"}
    done = place.run("submit", "--ci", "--prompt", "x", env=env)
    assert done.returncode == 7, done
    assert done.stderr.startswith("error: agent claude-code: no key in the environment")
    assert place.jobs() == []


def test_a_job_of_a_job_has_a_home_of_its_own(place: Place) -> None:
    """The private home of an outer job is not handed on: it goes with that job."""
    inner = f'env > {place.root}/inner.env\n"$DJ" publish --event completed'
    env = {
        "CLAUDE_CONFIG_DIR": "/registry/jobs/outer/home",
        "CODEX_HOME": "/mine",
        "DELEGATE_JOB_CONNECTION": "/registry/jobs/outer/connection.json",
    }
    done = place.submit(inner, env=env)
    assert done.returncode == 0, done
    seen = (place.root / "inner.env").read_text().splitlines()
    assert "CODEX_HOME=/mine" in seen
    assert not [line for line in seen if line.startswith("CLAUDE_CONFIG_DIR=")]
