"""The process at the end of a pane's pipe: records what the terminal says, with its timing, as an asciicast.

It decides nothing and reads nothing back. There is one for each job, for as long as its pane, so it imports
only what Python has loaded by itself, and reads little at a time. The form is asciicast v2
(docs.asciinema.org/manual/asciicast/v2).
"""

import fcntl
import os
import time

from delegate_job.bare import dumps, loads

TYPE_CHECKING = False  # As in typing, which costs memory here.
if TYPE_CHECKING:
    from typing import Any

LIMIT = 16 * 1024 * 1024
"""Bytes of a recording; what the terminal says after that is in `pane.log`."""
CUT = f"\r\n[delegate-job: the recording ends here, at its limit of {LIMIT >> 20} MiB]\r\n"
_MOST_AT_ONCE = 16 * 1024
"""Bytes of one read."""
_ROOM_FOR_CUT = 256
"""Bytes that are kept free for the last line."""
_SIZE_EVERY = 0.25
"""Seconds between two looks at the terminal's size; it is looked at only when something was said."""


def main(path: str, size: str, tty: str) -> int:
    """Record standard input until it ends; `size` is `COLUMNSxROWS`, `tty` the terminal's device."""
    columns, _, rows = size.partition("x")
    recording = Recording(path, (int(columns), int(rows)), tty)
    while piece := os.read(0, _MOST_AT_ONCE):
        recording.take(piece)
    recording.end()
    return 0


class Recording:
    """A recording that is begun, or gone on with when the file is there: one agent may be launched twice.

    `size` is columns and rows. What cannot be written, say to a full disk, is left out. The file's lock is
    held until the end, by which others see that all is there. OSError when the file cannot be opened.
    """

    def __init__(self, path: str, size: tuple[int, int], tty: str = "") -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        _lock(self._fd)
        self._tty = tty
        self._rest = b""
        self._size_due = 0.0
        self._room = LIMIT - os.fstat(self._fd).st_size
        # A recorder that was killed may have left half a line.
        self._is_torn = os.fstat(self._fd).st_size > 0
        self._began = _began(os.pread(self._fd, 4096, 0)) or self._begin(size)
        self._size = size
        if self._is_torn:
            self._write([self._now(), "r", f"{size[0]}x{size[1]}"])

    def take(self, piece: bytes) -> None:
        """Record what the terminal was told now; a character that is not whole yet waits for its rest."""
        self._look_at_size()
        self._say(self._decoded(piece, final=False))

    def end(self) -> None:
        """Record what is left of a character that was never finished."""
        self._say(self._decoded(b"", final=True))
        os.close(self._fd)

    def _begin(self, size: tuple[int, int]) -> float:
        began = int(time.time())
        self._write({"version": 2, "width": size[0], "height": size[1], "timestamp": began})
        return began

    def _decoded(self, piece: bytes, *, final: bool) -> str:
        import _codecs

        data = self._rest + piece
        text, used = _codecs.utf_8_decode(data, "replace", final)
        self._rest = data[used:]
        return text

    def _say(self, text: str) -> None:
        if text:
            self._write([self._now(), "o", text])

    def _look_at_size(self) -> None:
        """Record a new size of the terminal: who attaches brings their own. A resized program draws anew."""
        now = time.monotonic()
        if not self._tty or now < self._size_due:
            return
        self._size_due = now + _SIZE_EVERY
        size = _size_of(self._tty)
        if size is not None and size != self._size:
            self._size = size
            self._write([self._now(), "r", f"{size[0]}x{size[1]}"])

    def _now(self) -> float:
        return round(max(time.time() - self._began, 0.0), 6)

    def _write(self, line: "Any") -> None:
        data = dumps(line).encode() + b"\n"
        if len(data) > self._room - _ROOM_FOR_CUT:
            data = dumps([self._now(), "o", CUT]).encode() + b"\n" if self._room > _ROOM_FOR_CUT else b""
            self._room = 0
        self._room -= len(data)
        try:
            self._append(b"\n" + data if self._is_torn and data else data)
        except OSError:
            self._is_torn = True

    def _append(self, data: bytes) -> None:
        left = data
        while left:
            left = left[os.write(self._fd, left) :]
            self._is_torn = bool(left)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # A recorder before this one is about to end.


def _began(head: bytes) -> float | None:
    """Return when a recording began, in seconds since 1970; None for a file without a header."""
    line, newline, _ = head.partition(b"\n")
    if not newline:
        return None  # `loads` would bring all of `json` to say what is wrong.
    try:
        header = loads(line.decode())
        return float(header["timestamp"])
    except (ValueError, TypeError, KeyError):
        return None


def _size_of(tty: str) -> tuple[int, int] | None:
    """Return columns and rows of a terminal; None when it is gone. Held open, its end would not be seen."""
    try:
        fd = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return (columns, rows) if columns and rows else None
