"""Programs in sessions of their own: none is lost to a signal that hits it on its way there."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delegate_job import own_session


def hits(counted: Path, *, times: int, signum: int = signal.SIGTERM) -> Callable[[], None]:
    """Return what ends a new process before its exec, so often; each start is a byte in `counted`."""

    def hit() -> None:
        with counted.open("ab") as file:
            file.write(b".")
        if counted.stat().st_size <= times:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    return hit


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_program_that_a_signal_has_hit_on_its_way_is_started_again(tmp_path: Path, signum: int) -> None:
    """As a Ctrl-C does between fork and setsid."""
    counted = tmp_path / "starts"
    hit = hits(counted, times=2, signum=signum)
    with own_session.start(["echo", "up"], stdout=subprocess.PIPE, preexec_fn=hit) as process:
        said, _ = process.communicate(timeout=10)
    assert (said, process.returncode, counted.stat().st_size) == (b"up\n", 0, 3)


def test_it_is_given_up_after_a_few_times(tmp_path: Path) -> None:
    """A signal each time is somebody's will: how the last one ended is told."""
    counted = tmp_path / "starts"
    with own_session.start(["true"], preexec_fn=hits(counted, times=1000)) as process:
        assert process.wait(10) == -signal.SIGTERM
    assert counted.stat().st_size == own_session.MOST_STARTS


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -KILL $$"])
def test_a_program_that_ends_at_once_is_started_once(tmp_path: Path, end: str) -> None:
    """It has done what it does; and it is left for its starter to wait for."""
    for number in range(1, 21):
        with own_session.start(["sh", "-c", f"echo x >> {tmp_path}/runs; {end}"]) as process:
            pass
        assert process.returncode == {"exit 0": 0, "exit 3": 3}.get(end, -signal.SIGKILL)
        assert (tmp_path / "runs").read_text().count("x") == number


def test_it_is_no_member_of_our_session() -> None:
    """What a terminal sends to its foreground group does not reach it."""
    with own_session.start(["sleep", "60"]) as process:
        try:
            assert os.getsid(process.pid) == process.pid != os.getsid(0)
        finally:
            process.kill()


def test_what_can_not_be_run_is_an_error_at_once() -> None:
    """As of Popen itself."""
    with pytest.raises(FileNotFoundError):
        own_session.start(["/nonexistent/program"])


def test_what_takes_too_long_is_ended() -> None:
    """And what it said until then is of no use."""
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        own_session.run(["sleep", "60"], env=os.environ, timeout=0.2)
    assert time.monotonic() - began < 30
