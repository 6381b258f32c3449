"""The fixtures that tests share, and the guard before the user's own registry and configuration."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import broker_servers
from harness import Place, in_ci

# A busy machine is no fault of the code; in CI the same code is tried with the same examples.
settings.register_profile(
    "unhurried", deadline=None, derandomize=in_ci(), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _guard_of_the_users_own_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that asks for the user's directories in this process meets a file where they would be."""
    wall = tmp_path_factory.mktemp("guard") / "no-test-may-touch-the-users-own-files"
    wall.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(wall / name.lower()))
        for name in ("TMUX", "TMUX_PANE", "TMUX_TMPDIR", "DELEGATE_JOB_REGISTRY_DIR", "DELEGATE_JOB_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("TMUX_TMPDIR", str(wall / "tmux"))
        yield
    assert wall.is_file()


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """What is started here hears them also when the tests run under `nohup`, or with `&` in a script."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    for signum in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler)


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place of its own: everything started there is ended, and nothing may be left."""
    here = Place.make()
    try:
        yield here
    finally:
        here.close()


@pytest.fixture
def mosquitto(place: Place) -> broker_servers.Mosquitto:
    """Give a real Mosquitto; skipped at home where it is missing, a failure in CI."""
    reason = broker_servers.missing()
    if reason and in_ci():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    return broker_servers.make(place)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the root of the source tree."""
    return Path(__file__).resolve().parent.parent
