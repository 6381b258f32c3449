"""Programs in sessions of their own: none is lost to a signal that hits it on its way there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delegate_job import own_session

UNDER_FIRE = """
import os, signal, sys, threading, time
from delegate_job import own_session
from delegate_job.signals import hearing_signals

def fire():
    while not over.wait(0.0003):
        os.killpg(0, int(sys.argv[1]))

with hearing_signals() as inbox:
    over, codes = threading.Event(), []
    thread = threading.Thread(target=fire)
    thread.start()
    for _ in range(100):
        codes.append(own_session.start(["true"]).wait(30))
    over.set()
    thread.join()
    print(codes == [0] * 100, inbox.qsize() > 0)
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM", "SIGTSTP"])
def test_a_signal_to_our_group_is_for_us_alone(tmp_path: Path, name: str) -> None:
    """Also one that comes before the program has left the group: of a hundred under fire each does its work.

    With vfork some forty of them are ended, or the first that is stopped stops us too.
    """
    script = tmp_path / "under_fire.py"
    script.write_text(UNDER_FIRE)
    number = str(int(signal.Signals[name]))
    # A group with a parent in another one of the session, as a shell's job: in an orphaned one nothing stops.
    done = subprocess.run(
        [sys.executable, script, number],
        capture_output=True,
        text=True,
        process_group=0,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True True\n"), done


def test_it_is_no_member_of_our_session() -> None:
    """What a terminal sends to its foreground group does not reach it."""
    with own_session.start(["sleep", "60"]) as process:
        try:
            assert os.getsid(process.pid) == process.pid != os.getsid(0)
        finally:
            process.kill()


def test_what_takes_too_long_is_ended() -> None:
    """And what it said until then is of no use."""
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        own_session.run(["sleep", "60"], env=os.environ, timeout=0.2)
    assert time.monotonic() - began < 30
