import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from delegate_job import locks
from harness import Place, wait_until

HOLDER = """
import sys
from pathlib import Path
from delegate_job import locks
fd = locks.acquire(Path(sys.argv[1]), wait=5)
print("held" if fd is not None else "refused", flush=True)
sys.stdin.read()
"""

CONTENDER = """
import os, sys, time
from pathlib import Path
from delegate_job import locks
lock, inside = Path(sys.argv[1]), Path(sys.argv[2])
got = 0
while got < 30:
    fd = locks.acquire(lock, wait=20)
    assert fd is not None, "waited for 20 s"
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside too
    time.sleep(0.0005)
    got += 1
    if got % 5 == 0:
        lock.unlink()
    inside.unlink()
    os.close(fd)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Give the path of a lock that nobody has made yet."""
    return tmp_path / "lock"


def holder(place: Place, lock: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock until its stdin ends."""
    process = place.spawn(sys.executable, "-c", HOLDER, lock, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_has_one_holder(lock: Path) -> None:
    """Who comes second gets nothing, until the first one lets go; the file is private."""
    first = locks.acquire(lock)
    assert first is not None
    assert locks.acquire(lock) is None
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    os.close(first)
    second = locks.acquire(lock)
    assert second is not None
    os.close(second)


def test_a_probe_says_who_lives_and_takes_nothing(lock: Path) -> None:
    """A missing file is not held, and is not made by asking; a probe leaves a lock as it is."""
    assert not locks.is_held(lock)
    assert not lock.exists()
    fd = locks.acquire(lock)
    assert fd is not None
    assert [locks.is_held(lock) for _ in range(3)] == [True] * 3
    os.close(fd)
    assert not locks.is_held(lock)
    again = locks.acquire(lock)
    assert again is not None
    os.close(again)


def test_a_killed_holder_holds_nothing(place: Place, lock: Path) -> None:
    """A kill -9 frees the lock: that is how it is known that an owner or a runner is gone."""
    process = holder(place, lock)
    assert locks.is_held(lock)
    process.kill()
    process.wait(5)
    assert not locks.is_held(lock)


def test_a_stopped_holder_holds_on(place: Place, lock: Path) -> None:
    """A process that only sleeps is alive: its lock is nobody else's."""
    import signal

    process = holder(place, lock)
    process.send_signal(signal.SIGSTOP)
    assert locks.is_held(lock)
    assert locks.acquire(lock, wait=0.2) is None
    process.send_signal(signal.SIGCONT)


def test_children_do_not_inherit_a_lock(place: Place, lock: Path) -> None:
    """A program that we start and that outlives us does not keep our lock."""
    fd = locks.acquire(lock)
    assert fd is not None
    child = subprocess.Popen(["sleep", "60"], close_fds=False, start_new_session=True)
    try:
        os.close(fd)
        assert not locks.is_held(lock)
    finally:
        child.kill()
        child.wait(5)


def test_a_waiting_acquire_gets_the_lock_when_it_is_freed(place: Place, lock: Path) -> None:
    """`wait` is a patience, not a pause: the lock is taken as soon as its holder is gone."""
    process = holder(place, lock)
    timer = threading.Timer(0.1, process.kill)
    timer.start()
    fd = locks.acquire(lock, wait=20)
    timer.join()
    assert fd is not None
    os.close(fd)


def test_a_link_is_not_followed(lock: Path, tmp_path: Path) -> None:
    """A symbolic link in place of a lock is an error for both, and what it names is not touched."""
    target = tmp_path / "target"
    lock.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        locks.acquire(lock)
    with pytest.raises(OSError, match="symbolic links"):
        locks.is_held(lock)
    assert not target.exists()


def test_a_lock_on_a_removed_file_is_no_lock(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is unlinked while it is being locked is let go: the lock is the one on the path."""
    flock = fcntl.flock
    removed: list[int] = []

    def late(fd: int, operation: int) -> None:
        flock(fd, operation)
        if not removed:
            removed.append(os.fstat(fd).st_ino)
            lock.unlink()
            lock.touch()

    monkeypatch.setattr(fcntl, "flock", late)
    fd = locks.acquire(lock, wait=5)
    assert fd is not None
    assert os.fstat(fd).st_ino == lock.stat().st_ino
    assert len(removed) == 1
    os.close(fd)


def test_no_descriptor_is_left_open(lock: Path) -> None:
    """Whatever comes of a try, only a lock that was given is a descriptor that is open."""
    held = locks.acquire(lock)
    assert held is not None
    before = {path.name for path in Path("/dev/fd").iterdir()}
    for _ in range(5):
        assert locks.acquire(lock) is None
        assert locks.is_held(lock)
    assert {path.name for path in Path("/dev/fd").iterdir()} == before
    os.close(held)


def test_no_two_processes_hold_one_lock(place: Place, lock: Path, tmp_path: Path) -> None:
    """Six processes take it in turn 180 times, while its file is unlinked and probed: never two at once."""
    contenders = [place.spawn(sys.executable, "-c", CONTENDER, lock, tmp_path / "inside") for _ in range(6)]

    def ended() -> bool:
        locks.is_held(lock)
        return all(each.poll() is not None for each in contenders)

    wait_until(ended, 60)
    for each in contenders:
        _, said = each.communicate(timeout=5)
        assert each.returncode == 0, said
