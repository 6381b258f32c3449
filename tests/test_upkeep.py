"""What a background supervisor does for its registry beside its jobs. Backups: test_damage has those."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delegate_job import locks
from delegate_job.supervisor_upkeep import ABANDONED_AFTER
from harness import PATIENCE, Place, job_id, wait_until
from takeovers import COMPLETED, events


def test_the_last_line_that_an_owner_did_not_write_is_written(place: Place) -> None:
    """An owner killed after its last commit leaves events.jsonl short by a line; a supervisor adds it."""
    name = job_id(place.submit(COMPLETED, "--close").stdout)
    path = place.registry / "jobs" / name / "events.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert events(place, name)[-1]["kind"] != "closed"
    supervise = place.start("supervise")
    wait_until(lambda: events(place, name)[-1]["kind"] == "closed", what="the last line")
    supervise.terminate()
    assert supervise.wait(PATIENCE) == 0
    assert path.read_bytes().split() == whole.split()


def test_what_a_killed_submit_left_is_removed(place: Place) -> None:
    """A directory without a job, with an environment in it, goes after a while; a fresh or held one stays."""
    place.run("list")
    now = time.time()

    def made(name: str, age: float) -> Path:
        directory = place.registry / "jobs" / name
        directory.mkdir(mode=0o700, parents=True)
        (directory / "environ.json").write_text("{}")
        (directory / "lock").touch()
        os.utime(directory, (now - age, now - age))
        return directory

    old, fresh, held = made("old", 2 * ABANDONED_AFTER), made("fresh", 0.0), made("held", 2 * ABANDONED_AFTER)
    lock = locks.acquire(held / "lock")
    assert lock is not None
    supervise = place.start("supervise")
    wait_until(lambda: not old.exists(), what="its end")
    supervise.terminate()
    assert supervise.wait(PATIENCE) == 0
    os.close(lock)
    assert (fresh.exists(), held.exists()) == (True, True)


THREADS = """
import ctypes, sys, threading
from delegate_job.allocator import keep_small
if sys.argv[1] == "yes":
    keep_small()
together = threading.Barrier(4, timeout=20)
def work():
    together.wait()
    blocks = [bytes(5_000) for _ in range(200)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="promised of glibc alone")
def test_threads_of_a_supervisor_share_one_heap() -> None:
    """A thread of a moment leaves no heap of its own with holes behind; without our word to glibc it does."""
    without, with_it = (
        subprocess.run(
            [sys.executable, "-c", THREADS, way], capture_output=True, check=True, text=True, timeout=60
        ).stderr.count("Arena ")
        for way in ("no", "yes")
    )
    assert with_it == 1 < without
