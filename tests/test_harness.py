"""The harness keeps its own promises: a leak is seen, and the user's own files are out of reach."""

import os
import subprocess
from pathlib import Path

import platformdirs
import pytest

import broker_servers
from harness import Place, wait_until
from processes import processes_of


def test_a_process_left_behind_fails_the_test() -> None:
    """A process that left its group and was forgotten is found, ended and reported."""
    place = Place.make()
    place.patience = 0.1
    left = subprocess.Popen(["sleep", "60"], env=place.env(), start_new_session=True)
    # Linux shows a new program's environment a moment after it was started.
    wait_until(place.processes, what="the process")
    with pytest.raises(AssertionError, match="sleep 60"):
        place.close()
    assert left.wait(5) == -9
    assert not place.root.exists()


def test_a_temporary_file_left_behind_fails_the_test() -> None:
    """What a command leaves in TMPDIR is reported."""
    place = Place.make()
    (place.root / "tmp" / "forgotten").touch()
    with pytest.raises(AssertionError, match="forgotten"):
        place.close()


def test_a_closed_directory_is_removed_too() -> None:
    """A place that a test left without rights goes away, and what a link in it names stays."""
    place = Place.make()
    (place.work / "a/b").mkdir(parents=True)
    outside = place.root.with_name(f"{place.root.name}-outside")
    outside.mkdir(mode=0o500)
    (place.work / "a/link").symlink_to(outside)
    (place.work / "a/b").chmod(0)
    (place.work / "a").chmod(0)
    place.close()
    assert not place.root.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
    outside.rmdir()


def test_a_tmux_server_ends_with_its_place(place: Place) -> None:
    """A session with a running program is ended, by its socket, when the test is over."""
    place.spawn("tmux", "-L", "here", "new-session", "-d", "sleep 60").wait(10)
    assert place.tmux("list-sessions").returncode == 0
    assert any("sleep 60" in process.command for process in place.processes())
    place.tmux("kill-server")
    wait_until(lambda: not place.processes())


def test_places_do_not_see_each_other(place: Place) -> None:
    """Processes are counted by the place's directory, so tests may run side by side."""
    other = Place.make()
    try:
        process = other.spawn("sleep", "60")
        wait_until(lambda: [found.pid for found in processes_of(other.root)] == [process.pid])
        assert place.processes() == []
    finally:
        other.close()


def test_the_users_own_registry_is_out_of_reach() -> None:
    """Making the user's state or configuration directory in the test's process is an error, also for root."""
    for directory in (
        platformdirs.user_state_dir("delegate-job"),
        platformdirs.user_config_dir("delegate-job"),
    ):
        with pytest.raises(OSError, match="Not a directory"):
            Path(directory).mkdir(parents=True)


def test_the_environment_is_built_from_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests reaches the command."""
    monkeypatch.setenv("SECRET_OF_THE_DEVELOPER", "1")
    environ = place.env({"LANG": None, "EXTRA": "x"})
    assert "SECRET_OF_THE_DEVELOPER" in os.environ
    assert not {"SECRET_OF_THE_DEVELOPER", "LANG"} & set(environ)
    assert environ["EXTRA"] == "x"


def test_mosquitto_asks_for_the_password(mosquitto: broker_servers.Mosquitto) -> None:
    """The real server takes its one user, refuses others, and keeps retained messages over a restart."""
    address = ["-h", "127.0.0.1", "-p", str(mosquitto.port)]
    known = [*address, "-u", mosquitto.user, "-P", mosquitto.password]
    publish = ["mosquitto_pub", "-t", "t", "-m", "kept", "-r", "-q", "1"]
    assert subprocess.run([*publish, *address], check=False, timeout=10, capture_output=True).returncode != 0
    subprocess.run([*publish, *known], check=True, timeout=10)
    mosquitto.stop()
    mosquitto.start()
    told = subprocess.run(
        ["mosquitto_sub", "-t", "t", "-C", "1", "-W", "30", *known],
        check=True,
        timeout=40,
        capture_output=True,
    )
    assert told.stdout == b"kept\n"
