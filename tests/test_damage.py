"""What is promised of a registry whose file is damaged or read-only: said in one line, and no job is lost."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delegate_job import backups
from delegate_job.paths import RegistryPaths
from harness import Place, job_id, wait_until

REPORT = '"$DJ" publish --event'
WAITS = f"{REPORT} started\nuntil [ -e go ]; do sleep 0.05; done\n{REPORT} completed"


def shown(place: Place) -> dict[str, str]:
    """Return the outcome, or the state, of all jobs by id."""
    listed = place.run("list", "--json")
    assert listed.returncode == 0, listed
    return {job["id"]: job["outcome"] or job["state"] for job in json.loads(listed.stdout)}


def database(place: Place) -> Path:
    """Return the registry's file, with all that was committed in it."""
    file = place.registry / "registry.db"
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


def end_supervisor(place: Place) -> None:
    """Kill the supervisor, if there is one."""
    lock = place.registry / "supervisor.lock"
    pid = lock.read_text().strip() if lock.exists() else ""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: int(pid) not in {process.pid for process in place.processes()})


def garbage(file: Path) -> None:
    """Put something else in its place."""
    file.write_bytes(b"no database at all, but long enough" * 400)


def cut_short(file: Path) -> None:
    """Leave the first half."""
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    """Leave nothing."""
    os.truncate(file, 0)


def flipped(file: Path) -> None:
    """Flip a bit of the first byte of each page but the first: what says what kind of page it is."""
    with file.open("r+b") as opened:
        for offset in range(4096, file.stat().st_size, 4096):
            opened.seek(offset)
            byte = opened.read(1)[0]
            opened.seek(offset)
            opened.write(bytes([byte ^ 0x40]))


def flipped_in_a_row(file: Path) -> None:
    """Spoil what a job's row says."""
    file.write_bytes(file.read_bytes().replace(b'{"id": "', b'["id": "'))


@pytest.mark.parametrize("damage", [garbage, cut_short, emptied, flipped, flipped_in_a_row])
@pytest.mark.parametrize("with_backup", [True, False])
def test_a_damaged_registry_is_set_aside_and_no_job_is_lost(
    place: Place, damage: Callable[[Path], None], *, with_backup: bool
) -> None:
    """Said in one line; the newest backup, and what the job directories know, take its place."""
    place.submit(f"{REPORT} completed", "--close")
    if with_backup:
        assert backups.back_up(RegistryPaths(place.registry))
    place.submit("exit 1", "--close")
    before = shown(place)
    assert sorted(before.values()) == ["accepted", "lost"]
    damage(database(place))
    found = place.run("list")
    if found.returncode:  # It was seen in the middle of the list.
        assert found.stderr.splitlines()[0].startswith("error: the registry"), found
        assert "the next command repairs it" in found.stderr
        found = place.run("list")
    assert found.returncode == 0
    (line,) = found.stderr.splitlines()
    assert line.startswith("warning: the registry was damaged: set aside as ")
    assert ("the backup registry-" in line) is with_backup
    assert shown(place) == before
    assert len(list(place.registry.glob("registry.db.damaged-*Z"))) == 1
    for name in before:
        assert place.run("logs", name).stdout.count("\n") > 2


def test_a_job_that_runs_outlives_its_registry(place: Place) -> None:
    """A job that no backup has, whose owner is gone too, is taken over where it stood and ends rightly."""
    name = job_id(place.submit(WAITS, "--detach", "--close").stdout)
    place.await_state(name, "running")
    end_supervisor(place)
    garbage(place.registry / "registry.db")
    assert shown(place) == {name: "running"}
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0
    kinds = [json.loads(line)["kind"] for line in place.run("logs", name, "--json").stdout.splitlines()]
    assert kinds.count("completed") == 1


@pytest.mark.parametrize("options", [(), ("--detach",)])
@pytest.mark.parametrize("damage", [garbage, emptied, flipped])
def test_an_owner_outlives_its_registry(
    place: Place, options: tuple[str, ...], damage: Callable[[Path], None]
) -> None:
    """The file is damaged under a living owner: the job ends as if nothing had been."""
    owner = place.start(*place.submit_args(WAITS, "--close", *options))
    name = place.await_job()
    place.await_state(name, "running")
    damage(database(place))
    (place.work / "go").touch()
    place.run("list")
    assert place.run("wait", name).returncode == 0
    assert owner.wait(20) == 0


def test_one_of_many_repairs(place: Place) -> None:
    """Commands that meet the damage at the same time repair it once, and all go on."""
    place.submit(f"{REPORT} completed", "--close")
    garbage(database(place))
    running = [place.start("list", "--json") for _ in range(6)]
    said = [process.communicate(timeout=20)[0] for process in running]
    assert [len(json.loads(each)) for each in said] == [1] * 6
    assert len(list(place.registry.glob("registry.db.damaged-*Z"))) == 1


def test_nothing_is_taken_from_a_work_tree(place: Place) -> None:
    """What an agent has written about itself into its audit directory never becomes the registry's word."""
    done = place.submit("exit 1", "--close")
    name = job_id(done.stdout)
    for file in ("result.json", "events.jsonl"):
        forged = place.log_dir(name) / file
        forged.write_text(forged.read_text().replace("lost", "accepted"))
    garbage(database(place))
    assert shown(place) == {name: "lost"}


def test_the_supervisor_makes_backups(place: Place) -> None:
    """A backup of the user's own, readable by itself, at the start and after work; three are kept."""
    name = job_id(place.submit(f"{REPORT} completed", "--detach", "--close").stdout)
    assert place.run("wait", name).returncode == 0

    def has_job() -> bool:
        found = sorted((place.registry / "backups").glob("registry-*.db"))
        return bool(found) and name in _ids(found[-1])

    wait_until(has_job, 20, "a backup with the job")
    paths = RegistryPaths(place.registry)
    for _ in range(4):
        assert backups.back_up(paths)
    kept = [path for path in paths.backups.iterdir() if path.name.startswith("registry-")]
    assert len(kept) == backups.KEEP
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


def _ids(file: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        return [name for (name,) in db.execute("SELECT id FROM jobs")]


def test_a_read_only_registry_can_be_read(place: Place) -> None:
    """On a file system that is read-only `list`, `status` and `logs` work; `submit` is one line and 7."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place.registry)]
    place.registry.mkdir()
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("mounting wants root")
    try:
        name = job_id(place.submit(f"{REPORT} completed", "--close").stdout)
        subprocess.run(["mount", "-o", "remount,ro", str(place.registry)], check=True)
        for words in (["list"], ["status", name], ["logs", name]):
            read = place.run(*words)
            assert (read.returncode, read.stderr) == (0, ""), words
            assert read.stdout
        refused = place.submit("exit 0")
        assert refused.returncode == 7, refused
        assert refused.stderr.count("\n") <= 2
    finally:
        subprocess.run(["umount", "-l", str(place.registry)], check=True)


@pytest.fixture
def small_disk(place: Place) -> Iterator[Path]:
    """Put the registry and the work dir on a file system of 3 MB."""
    disk = place.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting wants root")
    for path in (place.registry, place.work):
        if path.exists():
            path.rmdir()
        (disk / path.name).mkdir(mode=0o700)
        path.symlink_to(disk / path.name)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return ballast


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_full_disk_only_delays(place: Place, small_disk: Path, options: tuple[str, ...]) -> None:
    """Full at report, commit and log: a report is refused or recorded, never half; with room all goes on."""
    agent = (
        f"{REPORT} started\nuntil [ -e {place.root}/go ]; do sleep 0.05; done\n"
        f"until {REPORT} completed >/dev/null 2>&1; do sleep 0.1; done"
    )
    owner = place.start(*place.submit_args(agent, "--close", *options), stderr=subprocess.DEVNULL)
    name = place.await_job()
    place.await_state(name, "running")
    ballast = fill(small_disk)
    refused = place.run("publish", "--event", "progress", "--job", name, "--detail", "z" * 9000)
    assert refused.returncode in {0, 2}
    (place.root / "go").touch()
    time.sleep(1.5)  # The owner, too, shall meet the full disk.
    assert place.run("status", name).returncode == 0
    ballast.unlink()
    assert place.run("wait", name, timeout=60).returncode == 0
    assert owner.wait(20) == 0
    kinds = [json.loads(line)["kind"] for line in place.run("logs", name, "--json").stdout.splitlines()]
    assert kinds.count("completed") == 1
