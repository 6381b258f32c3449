"""What a check prints: bounded in memory, bounded on disk.

Not where it comes from; that is `check_process`.
"""

import os
from collections.abc import Callable

LOG_LIMIT = 64 * 1024 * 1024
"""The most bytes of a check's log. What it prints after that is read and dropped: it must not block."""
TAIL_LIMIT = 4096
"""The bytes of the end of the output that are kept for the agent and the user."""

_CUT = b"\n[delegate-job: the log ends here, at its limit of %d bytes]\n"


class Output:
    """What a check prints: its end in memory, all of it up to `LOG_LIMIT` in a file, each piece to `echo`."""

    def __init__(self, log_fd: int | None, echo: Callable[[bytes], None] | None = None) -> None:
        self._log_fd = log_fd
        self._room = LOG_LIMIT
        self._echo = echo
        self._tail = b""

    @property
    def tail(self) -> str:
        """The end, at most `TAIL_LIMIT` bytes; what is not UTF-8 is replaced."""
        return self._tail.decode(errors="replace")

    def take(self, piece: bytes) -> None:
        """Take the next piece. A log that cannot be written (a full disk) changes no verdict."""
        self._tail = (self._tail + piece)[-TAIL_LIMIT:]
        if self._echo is not None:
            self._echo(piece)
        if self._log_fd is not None:
            self._log(self._log_fd, piece)

    def _log(self, fd: int, piece: bytes) -> None:
        over = len(piece) > self._room
        rest = piece[: self._room] + (_CUT % LOG_LIMIT if over else b"")
        self._room -= len(piece)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError as error:
            over = True
            self._tail += f"\n[delegate-job: the log is not whole: {error.strerror}]\n".encode()
        if over:
            self._log_fd = None
