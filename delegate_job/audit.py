"""The audit directory in the work tree: ground that an agent can change under our feet.

It never follows, reads or deletes what it did not expect to find, and it says nothing about what the lines
in its files are worth.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from delegate_job import journal_line

DEFAULT_PARENT = "delegate_job_logs"
"""The name of the directory below the work dir that holds one audit directory a job."""

# O_PATH needs no right to read, which a sandbox may withhold; macOS has none.
_WAY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that slips in between the look and the open must not hold us up.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_APPEND = os.O_WRONLY | os.O_APPEND | _FILE
_RACES = 5
"""How often a name may change its meaning between two system calls before we give up."""


class AuditDir:
    """One job's audit directory: `parent`/`name`, where `name` is the job's id.

    The path above `parent` is the user's own and is followed; `parent` and all below it may be the work of an
    agent and are not: the caller resolves a parent that the user has named. Nothing is held open between two
    calls, so the directory may be removed or replaced at any time; what writes makes it again and moves what
    stands in its place aside (`<name>.set-aside-<n>`), what reads only looks. In the place of a parent that
    the user has named nothing is moved.
    """

    __slots__ = ("name", "parent")

    def __init__(self, parent: str | os.PathLike[str], name: str) -> None:
        self.parent = os.fspath(parent)
        self.name = name

    @classmethod
    def at(cls, log_dir: str | os.PathLike[str]) -> "AuditDir":
        """Return the audit directory with this path, as `DELEGATE_JOB_DIR` and connection.json give it."""
        parent, _, name = os.fspath(log_dir).rstrip("/").rpartition("/")
        return cls(parent or "/", name)

    @property
    def path(self) -> str:
        """The path of the directory."""
        return f"{self.parent}/{self.name}"

    def create(self) -> bool:
        """Make the directory (0700) or make it right again; False where that cannot be done.

        Its parent is made if missing, with a `.gitignore` that keeps git from listing it.
        """
        try:
            with self._made() as directory:
                return os.access(".", os.W_OK | os.X_OK, dir_fd=directory)
        except OSError:
            return False

    def append_line(self, name: str, line: bytes) -> None:
        """Append a line of `journal_line.encode` and bring it to the disk; OSError if that cannot be done.

        The file is made 0600 if missing. What stands there and is no regular file of ours with one link is
        moved aside first.
        """
        with self._made() as directory:
            fd = _open_append(directory, name)
            try:
                journal_line.append(fd, line)
                if os.fstat(fd).st_size == len(line):
                    journal_line.sync(directory)
            finally:
                os.close(fd)

    def write(self, name: str, data: bytes) -> None:
        """Replace the file with `data` in one step, 0600; OSError if that cannot be done.

        Not synced, nor is `copy_in`: what is written so is a copy of what the registry keeps.
        """
        self._replace(name, lambda fd: _write_all(fd, data))

    def copy_in(self, name: str, source: str | os.PathLike[str]) -> None:
        """Replace the file with a copy of a trusted one, in one step; OSError if that cannot be done."""
        with open(source, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib costs each report 5 ms of start-up
            self._replace(name, lambda fd: _copy_all(file.fileno(), fd))

    def read_fd(self, name: str) -> int | None:
        """Return a descriptor to read the file; None when there is none, or none that is ours.

        Nothing is made or moved. OSError only when the system has no descriptors left.
        """
        try:
            with self._found() as directory:
                return _open_own(directory, name, os.O_RDONLY | _FILE)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise
            return None

    def remove(self) -> None:
        """Remove the directory with all that is in it; links in it are removed, never followed."""
        import shutil

        with (
            contextlib.suppress(OSError),
            _opened(_above(self.parent), _WAY) as top,
            _opened(_last(self.parent), _WAY | os.O_NOFOLLOW, top) as parent,
        ):
            shutil.rmtree(self.name, dir_fd=parent)

    def _replace(self, name: str, fill: Callable[[int], None]) -> None:
        temporary = f".{name}.{os.urandom(6).hex()}"
        with self._made() as directory:
            try:
                fd = _create_temporary(directory, temporary)
                try:
                    fill(fd)
                finally:
                    os.close(fd)
                _set_aside_unless(_is_own, directory, name)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise

    @contextlib.contextmanager
    def _found(self) -> Iterator[int]:
        with (
            _opened(_above(self.parent), _WAY) as top,
            _opened(_last(self.parent), _WAY | os.O_NOFOLLOW, top) as parent,
            _opened(self.name, _DIRECTORY, parent) as directory,
        ):
            yield directory

    @contextlib.contextmanager
    def _made(self) -> Iterator[int]:
        name = _last(self.parent)
        with _opened(_above(self.parent), _WAY) as top, contextlib.ExitStack() as stack:
            # Another parent is one that the user has named: what stands there instead is theirs.
            parent, created = _open_or_make(name, _WAY | os.O_NOFOLLOW, top, is_ours=name == DEFAULT_PARENT)
            stack.callback(os.close, parent)
            if created or name == DEFAULT_PARENT:
                _hide_from_git(parent)
            directory, created = _open_or_make(self.name, _DIRECTORY, parent, is_ours=True)
            stack.callback(os.close, directory)
            status = os.fstat(directory)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self.path)
            if stat.S_IMODE(status.st_mode) != 0o700:
                os.fchmod(directory, 0o700)
            yield directory


def _above(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "."


@contextlib.contextmanager
def _opened(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_or_make(name: str, flags: int, parent: int, *, is_ours: bool) -> tuple[int, bool]:
    """Open a directory, or make it, and say whether it was made; if `is_ours`, past what stands there."""
    in_the_way = {errno.ELOOP, errno.ENOTDIR, errno.EACCES} if is_ours else set[int]()
    for _ in range(_RACES):
        try:
            return _open_to_enter(name, flags, parent), False
        except OSError as error:
            if error.errno != errno.ENOENT and error.errno not in in_the_way:
                raise
        _set_aside_unless(_is_passable, parent, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            return os.open(name, flags, dir_fd=parent), True
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def _open_to_enter(name: str, flags: int, parent: int) -> int:
    fd = os.open(name, flags, dir_fd=parent)
    try:
        os.stat(".", dir_fd=fd)  # O_PATH also opens what may not be entered.
    except OSError:
        os.close(fd)
        raise
    return fd


def _hide_from_git(parent: int) -> None:
    # In a sandbox the parent may be read-only; then whoever made it has written the file.
    with contextlib.suppress(OSError):
        fd = os.open(".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=parent)
        try:
            os.write(fd, b"*\n")
        finally:
            os.close(fd)


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_passable(status: os.stat_result) -> bool:
    """Whether this is a directory that we may enter, if it is ours; or a device, the system's own."""
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return True
    passable = status.st_uid != os.geteuid() or status.st_mode & 0o500 == 0o500
    return stat.S_ISDIR(status.st_mode) and passable


def _is_own(status: os.stat_result) -> bool:
    """Whether this is a regular file of ours that has no second name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def _open_own(directory: int, name: str, flags: int) -> int | None:
    """Open a regular file of ours; None when the name means anything else. OSError as `open` has it."""
    status = _look(directory, name)
    # Looked at first, because opening a device can already do something.
    if status is not None and not _is_own(status):
        return None
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    if _is_own(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def _open_append(directory: int, name: str) -> int:
    for _ in range(_RACES):
        stays = _is_own
        try:
            if (fd := _open_own(directory, name, _APPEND | os.O_CREAT)) is not None:
                return fd
        except PermissionError:
            stays = _is_appendable
        except OSError as error:
            # A link, a directory, a FIFO or a socket that came between the look and the open.
            if error.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise
        _set_aside_unless(stays, directory, name)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def _is_appendable(status: os.stat_result) -> bool:
    return _is_own(status) and bool(status.st_mode & stat.S_IWUSR)


def _create_temporary(directory: int, name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=directory)


def _set_aside_unless(stays: Callable[[os.stat_result], bool], directory: int, name: str) -> None:
    """Rename what has this name to the first free `<name>.set-aside-<n>`, unless it may stay."""
    # Two reporters that met the same obstacle: the second must not move away the first one's new file.
    with _locked(directory):
        status = _look(directory, name)
        if status is None or stays(status):
            return
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            # No agent makes a device without being root, and root's own must stay where they are.
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        for number in range(1, 10_000):
            aside = f"{name}.set-aside-{number}"
            if _look(directory, aside) is None:
                os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
                return
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)


@contextlib.contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Hold the directory's lock; go on without it after a second, because an agent may hold it for ever."""
    from delegate_job.bare_locks import take_within

    with _opened(".", _DIRECTORY, directory) as fd:
        take_within(fd, 1.0)
        yield


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _copy_all(source: int, target: int) -> None:
    while chunk := os.read(source, 1 << 20):
        _write_all(target, chunk)
