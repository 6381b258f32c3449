import contextlib
import fcntl
import os
import random
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegate_job.audit import AuditDir
from harness import Place

LINE = b'\n{"id":"1"}\n'
SECRET = b"not ours to touch\n"


@pytest.fixture
def victim(place: Place) -> Path:
    """Give a file outside the work dir that nothing may change."""
    path = place.root / "victim"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def audit(place: Place) -> AuditDir:
    """Give a job's audit directory in a work dir, made."""
    directory = AuditDir(place.work / "delegate_job_logs", "20260801-abcdef")
    assert directory.create()
    return directory


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


OBSTACLES: dict[str, Callable[[Path, Path], object]] = {
    "symlink": lambda path, victim: path.symlink_to(victim),
    "dangling symlink": lambda path, victim: path.symlink_to(victim.with_name("made-by-mistake")),
    "symlink to itself": lambda path, _victim: path.symlink_to(path),
    "fifo": lambda path, _victim: os.mkfifo(path),
    "hard link": lambda path, victim: path.hardlink_to(victim),
    "directory": lambda path, _victim: (path / "full").mkdir(parents=True),
    "socket": lambda path, _victim: _socket(path),
}

WRITERS: dict[str, Callable[[AuditDir, Path], None]] = {
    "append_line": lambda audit, _source: audit.append_line("file", LINE),
    "write": lambda audit, _source: audit.write("file", LINE),
    "copy_in": lambda audit, source: audit.copy_in("file", source),
}


def _names(directory: str | Path) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_stands_in_a_files_place_is_moved_aside(
    audit: AuditDir, victim: Path, place: Place, obstacle: str, writer: str
) -> None:
    """Nothing is followed, read or deleted: the obstacle is kept under another name, the file is new."""
    path = Path(audit.path) / "file"
    OBSTACLES[obstacle](path, victim)
    before = path.lstat()
    source = place.root / "source"
    source.write_bytes(LINE)
    WRITERS[writer](audit, source)
    assert path.read_bytes() == LINE
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    aside = path.with_name("file.set-aside-1").lstat()
    assert (aside.st_ino, aside.st_mode) == (before.st_ino, before.st_mode)
    assert victim.read_bytes() == SECRET
    assert not victim.with_name("made-by-mistake").exists()


@pytest.mark.parametrize("obstacle", [*OBSTACLES, "nothing"])
def test_reading_only_looks(audit: AuditDir, victim: Path, obstacle: str) -> None:
    """What is no regular file of ours with one link is not opened for reading, and stays where it is."""
    path = Path(audit.path) / "file"
    if obstacle in OBSTACLES:
        OBSTACLES[obstacle](path, victim)
    names = _names(audit.path)
    assert audit.read_fd("file") is None
    assert _names(audit.path) == names


def test_a_file_of_ours_is_read_and_appended_to(audit: AuditDir) -> None:
    """Lines of several appends stand in one file, and the descriptor for reading sees them."""
    audit.append_line("file", LINE)
    audit.append_line("file", LINE)
    fd = audit.read_fd("file")
    assert fd is not None
    with os.fdopen(fd, "rb") as file:
        assert file.read() == LINE * 2
        assert not os.get_inheritable(file.fileno())


@pytest.mark.parametrize("level", ["parent", "own"])
@pytest.mark.parametrize("obstacle", ["symlink", "file", "fifo", "gone", "closed"])
def test_a_directory_that_was_removed_or_replaced_is_made_again(
    audit: AuditDir, victim: Path, place: Place, level: str, obstacle: str
) -> None:
    """Reports made after an agent removed the directory, or put a link in its place, still count."""
    path = Path(audit.parent if level == "parent" else audit.path)
    elsewhere = place.root / "elsewhere"
    (elsewhere / Path(audit.path).name).mkdir(parents=True)
    if obstacle != "closed":
        path.rename(place.root / "moved")
    match obstacle:
        case "symlink":
            path.symlink_to(elsewhere)
        case "file":
            path.write_bytes(SECRET)
        case "fifo":
            os.mkfifo(path)
        case "closed":
            path.chmod(0)
    assert audit.read_fd("file") is None
    audit.append_line("file", LINE)
    assert (Path(audit.path) / "file").read_bytes() == LINE
    assert stat.S_IMODE(Path(audit.path).lstat().st_mode) == 0o700
    assert [found for found in elsewhere.rglob("*") if found.name != Path(audit.path).name] == []
    assert victim.read_bytes() == SECRET


def test_the_directory_is_private_and_hidden_from_git(audit: AuditDir) -> None:
    """Both levels are 0700, git does not list them, and making it twice changes nothing."""
    for path in (audit.parent, audit.path):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
    assert (Path(audit.parent) / ".gitignore").read_text() == "*\n"
    (Path(audit.path) / "file").write_text("kept")
    Path(audit.path).chmod(0o755)
    assert audit.create()
    assert stat.S_IMODE(Path(audit.path).stat().st_mode) == 0o700
    assert _names(audit.path) == ["file"]


def test_a_parent_that_was_there_gets_no_gitignore(place: Place) -> None:
    """A directory of the user's own choice is not hidden from git behind their back."""
    (place.work / "logs").mkdir()
    assert AuditDir(place.work / "logs", "job").create()
    assert _names(place.work / "logs") == ["job"]


def test_where_nothing_can_be_made_create_says_so(place: Place) -> None:
    """No parent, a file system that takes nothing, a name too long: False, and no exception."""
    assert not AuditDir(place.root / "nowhere" / "logs", "job").create()
    assert not AuditDir("/proc/delegate_job_logs", "job").create()
    assert not AuditDir(place.work / "logs", "x" * 300).create()
    assert AuditDir.at(place.work / "logs" / "job").create()


@contextlib.contextmanager
def _unprivileged(*owned: Path) -> Iterator[None]:
    """Root may write anywhere: become nobody for a while, owning only these."""
    if os.geteuid() != 0:
        yield
        return
    for path in owned:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_work_dir_is_noticed(place: Place) -> None:
    """`create` says False where the work dir cannot be written, made or not."""
    place.root.chmod(0o711)
    made = AuditDir(place.work / "delegate_job_logs", "job")
    assert made.create()
    Path(made.path).chmod(0o500)
    place.work.chmod(0o555)
    with _unprivileged():
        assert not AuditDir(place.work / "other", "job").create()
        assert os.geteuid() != 0
    place.work.chmod(0o755)


def test_a_sandbox_that_opens_only_the_jobs_directory_is_enough(audit: AuditDir, place: Place) -> None:
    """Where everything above is read-only, reports are recorded and obstacles moved aside all the same."""
    place.root.chmod(0o711)
    Path(audit.parent).chmod(0o555)
    place.work.chmod(0o555)
    with _unprivileged(Path(audit.path)):
        os.mkfifo(Path(audit.path) / "file")
        audit.append_line("file", LINE)
        assert (Path(audit.path) / "file").read_bytes() == LINE
        assert audit.create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_ours(audit: AuditDir) -> None:
    """A foreign file is neither read nor appended to."""
    path = Path(audit.path) / "file"
    path.write_bytes(SECRET)
    os.chown(path, 65534, 65534)
    assert audit.read_fd("file") is None
    audit.append_line("file", LINE)
    assert path.read_bytes() == LINE
    assert path.with_name("file.set-aside-1").read_bytes() == SECRET


def test_reporters_that_meet_an_obstacle_together_lose_nothing(audit: AuditDir) -> None:
    """Of many that find a FIFO in the file's place, none moves another one's new file away."""
    for round_ in range(5):
        os.mkfifo(Path(audit.path) / f"file-{round_}")
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _, name=f"file-{round_}": audit.append_line(name, LINE), range(64)))
        assert (Path(audit.path) / f"file-{round_}").read_bytes() == LINE * 64


def test_an_agent_that_holds_the_directorys_lock_stops_nobody(audit: AuditDir) -> None:
    """The lock only orders reporters; who never gets it goes on without."""
    os.mkfifo(Path(audit.path) / "file")
    fd = os.open(audit.path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        audit.append_line("file", LINE)
    finally:
        os.close(fd)
    assert (Path(audit.path) / "file").read_bytes() == LINE


def test_a_tree_that_changes_all_the_time_harms_nobody(audit: AuditDir, victim: Path) -> None:
    """While names change their meaning between two calls nothing hangs and nothing outside is written."""
    path = Path(audit.path) / "file"
    over = threading.Event()

    def change() -> None:
        dice = random.Random(7)
        while not over.is_set():
            with contextlib.suppress(OSError):
                OBSTACLES[dice.choice(list(OBSTACLES))](path, victim)
            with contextlib.suppress(OSError):
                path.rename(path.with_name(f"moved-{dice.random()}"))

    agent = threading.Thread(target=change)
    agent.start()
    try:
        for number in range(300):
            with contextlib.suppress(OSError):
                (audit.append_line, audit.write)[number % 2]("file", LINE)
            fd = audit.read_fd("file")
            if fd is not None:
                os.close(fd)
    finally:
        over.set()
        agent.join()
    audit.append_line("file", LINE)
    assert path.read_bytes().endswith(LINE)
    assert victim.read_bytes() == SECRET


def test_no_descriptor_is_left_open(audit: AuditDir, victim: Path) -> None:
    """Many jobs in one process: every call closes what it opened, also when it fails."""
    descriptors = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    before = len(_names(descriptors))
    for writer in WRITERS.values():
        OBSTACLES["symlink"](Path(audit.path) / "file", victim)
        writer(audit, victim)
        (Path(audit.path) / "file").unlink()
    with pytest.raises(OSError, match="too long"):
        audit.append_line("x" * 300, LINE)
    with pytest.raises(OSError, match="No such file"):
        audit.copy_in("file", victim.with_name("missing"))
    assert len(_names(descriptors)) == before


def test_a_failed_copy_leaves_the_old_file_and_no_other(audit: AuditDir) -> None:
    """A source that cannot be read to its end changes nothing and leaves no temporary file."""
    audit.write("file", b"old")
    with pytest.raises(OSError, match="directory"):
        audit.copy_in("file", audit.parent)
    assert _names(audit.path) == ["file"]
    assert (Path(audit.path) / "file").read_bytes() == b"old"


def test_nothing_is_moved_but_below_a_parent_of_our_name(place: Place) -> None:
    """A file where the user's own log directory should be stays, and so does a device."""
    (place.work / "logs").write_text("mine")
    assert not AuditDir(place.work / "logs", "job").create()
    assert (place.work / "logs").read_text() == "mine"
    before = Path("/dev/null").stat()
    for path in ("/dev/null", "/dev/null/job"):
        with pytest.raises(OSError):
            AuditDir.at(path).append_line("reports.jsonl", b"\n{}\n")
    assert Path("/dev/null").stat().st_rdev == before.st_rdev
