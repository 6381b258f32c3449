"""What is promised of trouble with the registry under way: borne a while, said once, then ended with 70."""

import os
from pathlib import Path

import pytest

from delegate_job import patience
from delegate_job.errors import RegistryError
from delegate_job.paths import RegistryPaths
from delegate_job.patience import Patience
from delegate_job.storage import DamagedError
from harness import Place, job_id
from owned import JOB, Desk


@pytest.fixture
def paths(tmp_path: Path) -> RegistryPaths:
    """A registry's paths, with a file in its place."""
    paths = RegistryPaths(tmp_path)
    paths.database.touch()
    return paths


def fail(bearing: Patience, error: RegistryError) -> None:
    """Have the error happen where it is borne."""
    with bearing.bearing():
        raise error


def test_an_error_that_passes_is_said_once(paths: RegistryPaths) -> None:
    """A row of errors is one warning; after a success the next row is said again."""
    said: list[str] = []
    bearing = Patience(paths, said.append)
    for _ in range(3):
        fail(bearing, RegistryError("busy"))
    assert said == ["busy; trying again"]
    with bearing.bearing():
        pass
    fail(bearing, RegistryError("locked"))
    assert said == ["busy; trying again", "locked; trying again"]


def test_errors_without_end_are_raised(paths: RegistryPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they go on for longer than is borne, the last one is raised."""
    bearing = Patience(paths, lambda _: None)
    fail(bearing, RegistryError("busy"))
    monkeypatch.setattr(patience, "BORNE_FOR", 0.0)
    with pytest.raises(RegistryError, match="still busy"):
        fail(bearing, RegistryError("still busy"))


@pytest.mark.parametrize(
    ("error", "is_there"), [(DamagedError("damaged"), True), (RegistryError("x"), False)]
)
def test_what_does_not_pass_is_not_borne(
    paths: RegistryPaths, error: RegistryError, *, is_there: bool
) -> None:
    """Damage, which is repaired elsewhere, and a file that was removed are raised at once."""
    if not is_there:
        paths.database.unlink()
    with pytest.raises(type(error)):
        fail(Patience(paths, lambda _: None), error)


def test_a_registry_that_goes_away_under_a_submit_ends_it_with_70(place: Place) -> None:
    """Its jobs were asked for rightly: not a usage error, one line and a hint, no traceback."""
    agent = '"$DJ" publish --event started\nuntil [ -e go ]; do sleep 0.05; done'
    submit = place.start(*place.submit_args(agent, "--close"))
    name = job_id(submit.stdout.readline() if submit.stdout else "")
    place.await_kind(name, "started")
    aside = place.registry.with_name("aside")
    place.registry.rename(aside)
    place.registry.touch()
    try:
        _, said = submit.communicate(timeout=60)
    finally:
        place.registry.unlink()
        aside.rename(place.registry)
    assert submit.returncode == os.EX_SOFTWARE, said
    assert "error: " in said
    assert "Traceback" not in said
    (place.work / "go").touch()


def test_the_clocks_of_quiet_jobs_are_written_down(tmp_path: Path) -> None:
    """What was counted of a quiet job is kept; not what an owner says whose time is over."""
    desk = Desk(tmp_path)
    before = desk.registry.row(JOB).progress.timeout_left
    unsaved = desk.owner.unsaved
    assert unsaved is not None
    desk.registry.save_all_progress([(JOB, unsaved, desk.owner.epoch - 1), ("nobody", unsaved, 1)])
    assert desk.registry.row(JOB).progress.timeout_left == before
    desk.registry.save_all_progress([("nobody", unsaved, 1), (JOB, unsaved, desk.owner.epoch)])
    after = desk.registry.row(JOB).progress.timeout_left
    assert before is not None
    assert after is not None
    assert after < before
