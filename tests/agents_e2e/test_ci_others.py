"""`submit --ci` with the real codex and gemini: a key in the environment is enough for them too."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents_e2e.model_stub import Turn, serving
from agents_e2e.real_agents import CODEX, GEMINI, RealAgent, Rig, settle
from harness import SHORT_TEMP, Place, job_id

# Below /tmp, where gemini heeds no settings of ours: as for a user who is not root.
RIGS = [CODEX, dataclasses.replace(GEMINI, under=SHORT_TEMP)]
VARIABLES = {"codex": ("OPENAI_BASE_URL", "/v1"), "gemini": ("GOOGLE_GEMINI_BASE_URL", "")}
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.parametrize("rig", RIGS, indirect=True, ids=lambda rig: rig.agent),
]


@pytest.fixture
def stranger(rig: Rig, place: Place) -> Iterator[RealAgent]:
    """Give an agent that finds a key in its environment and was never started before."""
    variable, path = VARIABLES[rig.agent]
    with serving(rig.stub()) as model:
        model.says(Turn(runs="touch made"), Turn(report="completed"), Turn("Done."))
        fresh = dataclasses.replace(rig, seed=lambda _, stub: {variable: f"{stub.url}{path}"})
        yield settle(fresh, place, model)


def test_a_key_in_the_environment_is_enough(stranger: RealAgent) -> None:
    """Never started before it does its work and its hooks tell of it; nothing is left, in no home."""
    done = stranger.submit("--ci", "--model", "stub")
    assert done.returncode == 0, done
    job = job_id(done.stdout)
    assert (stranger.place.work / "made").exists()
    assert stranger.sessions(job)
    assert not {"permission_required", "turn_ended"} & set(stranger.kinds(job))
    assert not (stranger.place.registry / "jobs" / job / "home").exists()
    assert not [name for name in (".codex", ".gemini") if (stranger.place.home / name).exists()]


def test_a_home_of_the_users_is_used(stranger: RealAgent, rig: Rig, tmp_path: Path) -> None:
    """Who names a home means it: nothing stands in its place that is not made of it."""
    files = {"codex": "home/config.toml", "gemini": "home/.gemini/oauth_creds.json"}
    variable = {"codex": "CODEX_HOME", "gemini": "GEMINI_CLI_HOME"}[rig.agent]
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini/oauth_creds.json").write_text("{}")
    words = ("submit", "--ci", "--agent", rig.agent, "--prompt", "x", "--dry-run")
    without = files[rig.agent] in stranger.place.run(*words).stdout
    with_it = files[rig.agent] in stranger.place.run(*words, env={variable: str(tmp_path)}).stdout
    # codex's is used as it is; gemini's stays, and the job's has links to what is in it.
    assert (without, with_it) == ((True, False) if rig.agent == "codex" else (False, True))
