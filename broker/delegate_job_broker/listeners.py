"""Sockets for the broker: loopback TCP and owner-only Unix sockets; it accepts nothing and knows no MQTT."""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BrokerError

# Connections that may wait in the kernel: a burst of jobs starts while the broker is still being imported.
BACKLOG = 1024
LOOPBACK = "127.0.0.1"
# `sun_path` less its NUL: 108 on Linux, 104 on macOS and the BSDs (sys/un.h).
_LONGEST_PATH = 103
_LOCK_SECONDS = 2.0


def listen_on_loopback(port: int = 0) -> socket.socket:
    """Give a socket that listens on 127.0.0.1 at `port` (0: any free one); `BrokerError` keeps the errno.

    Clients may connect from now on: they wait in the kernel until a broker serves the socket.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as exc:
        listening.close()
        number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
        raise BrokerError(f"can't listen on {LOOPBACK}:{port}: {exc}", errno=number) from exc
    return listening


def listen_on_unix(path: str | os.PathLike[str]) -> socket.socket:
    """Give a socket that listens at `path`, which only its owner may connect to (mode 0600).

    A path too long for the system is replaced as `unix_socket_path` says; `getsockname()` tells the real one.
    A socket file that nobody listens on is replaced; `BrokerError` (EADDRINUSE) when somebody does.
    """
    real = unix_socket_path(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(real.parent):
            _remove_stale(real)
            listening.bind(str(real))
            # Before listen, so that at no moment a stranger can connect; a umask would belong to all threads.
            real.chmod(0o600)
            listening.listen(BACKLOG)
    except OSError as exc:
        listening.close()
        raise BrokerError(f"can't listen on {real}: {exc.strerror or exc}", errno=exc.errno) from exc
    except BrokerError:
        listening.close()
        raise
    return listening


def unix_socket_path(path: str | os.PathLike[str]) -> Path:
    """Give `path` when it fits `sun_path` (103 bytes everywhere), else the short one that stands for it.

    The short one lies in a 0700 directory of this user, in `$XDG_RUNTIME_DIR` or the directory for temporary
    files, and is always the same for the same path.
    """
    wanted = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    if len(os.fsencode(wanted)) <= _LONGEST_PATH:
        return wanted
    import hashlib  # slow to import, and seldom needed

    name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:24]
    return _private_directory() / f"{name}.sock"


def remove_unix_socket(path: str | os.PathLike[str]) -> None:
    """Remove the file of a closed Unix socket, unless another listener has taken its place."""
    with suppress(OSError, BrokerError), _locked(Path(path).parent):
        if not _answers(Path(path)):
            Path(path).unlink()


def is_unix(listening: socket.socket) -> bool:
    """Tell a Unix socket from a TCP one."""
    return listening.family == socket.AF_UNIX


def _private_directory() -> Path:
    import tempfile  # slow to import, and seldom needed

    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    directory = Path(base) / f"delegate-job-broker-{os.getuid()}"
    if len(os.fsencode(directory)) + 30 > _LONGEST_PATH:
        directory = Path("/tmp") / directory.name  # noqa: S108 - checked below: ours, 0700, no link
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BrokerError(f"{directory} is not a private directory of this user", errno=errno.EPERM)
    return directory


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BrokerError(f"can't listen on {path}: a file that is no socket is there", errno=errno.EEXIST)
    if _answers(path):
        raise BrokerError(f"can't listen on {path}: another process listens there", errno=errno.EADDRINUSE)
    path.unlink()


def _answers(path: Path) -> bool:
    """Tell whether somebody listens at `path`; a full backlog (EAGAIN) is somebody too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in {errno.ECONNREFUSED, errno.ENOENT}


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's own lock: two starters must not both find the same file stale."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                # flock(2) knows no time limit; it is held for as long as it takes to bind.
                time.sleep(0.01)
        yield
    finally:
        os.close(held)
