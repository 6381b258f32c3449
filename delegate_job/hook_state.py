"""What hooks, which are short processes, leave for each other: small files in the job's `agent/` directory.

Nothing here reports or decides, and nothing an owner relies on. What is damaged counts as not there.
"""

import contextlib
import os
import time

from delegate_job.bare import dumps, loads
from delegate_job.bare_locks import is_held, take_within

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OPEN, BACKGROUND, OVER = "open", "background", "over"
"""Of a turn: it goes on; it ended while something runs in the background; it is over."""

_LOCK_WAIT = 1.0
DIALOG = "dialog-"
_JOINTS = {ord("-"): None, ord("_"): None}


class Turn:
    """One turn of the agent: its number, how it stands, where `reports.jsonl` ended when it began.

    `asked`: for its report. `joined`: when its prompt came, if another turn was going on then, else empty;
    `prompt`: the agent's own id of that turn's prompt.
    """

    __slots__ = ("asked", "inode", "joined", "number", "offset", "prompt", "state")

    def __init__(
        self,
        number: int = 0,
        state: str = OPEN,
        inode: int = 0,
        offset: int = 0,
        *,
        asked: bool = False,
        joined: str = "",
        prompt: str = "",
    ) -> None:
        self.number = number
        self.state = state
        self.inode = inode
        self.offset = offset
        self.asked = asked
        self.joined = joined
        self.prompt = prompt


class HookState:
    """The files of one job's hooks."""

    def __init__(self, agent_dir: str) -> None:
        self.directory = agent_dir

    # -- turns

    def turn(self) -> Turn:
        """Return the turn that was begun last; before the first one, a turn that has no number."""
        try:
            number, state, inode, offset, asked, *rest = self._read("turn").split()
            joined, prompt = [*rest, "", ""][:2]
            return Turn(
                int(number),
                state,
                int(inode),
                int(offset),
                asked=asked == "asked",
                joined=joined,
                prompt=prompt,
            )
        except (OSError, ValueError):
            return Turn()

    def keep_turn(self, turn: Turn) -> bool:
        """Write the turn down; return whether that was done."""
        asked = "asked" if turn.asked else "-"
        # One that joined none has no word for either.
        joined = f"{turn.joined} {''.join(turn.prompt.split())}" if turn.joined else ""
        words = f"{turn.number} {turn.state} {turn.inode} {turn.offset} {asked} {joined}"
        return self._write("turn", words)

    def end_turn(self) -> None:
        """The turn is over."""
        turn = self.turn()
        turn.state = OVER
        self.keep_turn(turn)

    # -- the session, and when progress was told

    def keep_session(self, session_id: str) -> None:
        """Keep the agent's own session id, if it is one."""
        if 0 < len(session_id) <= 128 and session_id.isascii() and session_id.translate(_JOINTS).isalnum():
            self._write("session", session_id)

    def session(self) -> str:
        """Return the agent's own session id; empty when none was heard of."""
        try:
            return self._read("session")
        except OSError:
            return ""

    def is_due(self, every: float) -> bool:
        """Return whether `every` seconds have passed since this was last true."""
        now = time.monotonic()
        try:
            last = float(self._read("progress"))
        except (OSError, ValueError):
            last = -every
        # A later time is of before the last boot.
        if 0 <= now - last < every:
            return False
        return self._write("progress", f"{now:.3f}")

    # -- dialogs

    def open_dialog(self, key: str, request: "dict[str, Any]") -> int | None:
        """Write down that a dialog waits; return a descriptor that is locked for as long as it is open.

        The lock says that somebody waits for the answer: a hook. None when that could not be done.
        """
        path = f"{self.directory}/{DIALOG}{key}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.write(fd, dumps(request).encode())
        except OSError:
            return None
        # Who only looks whether it is held holds it for a moment.
        return fd if take_within(fd, _LOCK_WAIT) else None

    def has_dialog(self, key: str, request_id: str) -> bool:
        """Return whether this very dialog still waits."""
        return self._dialog(f"{DIALOG}{key}").get("request") == request_id

    def close_dialogs(self, key: str) -> bool:
        """Forget the dialog, with "*" all of them; return whether there was one."""
        names = self._dialog_names() if key == "*" else [f"{DIALOG}{key}"]
        return bool([name for name in names if self._remove(name)])

    def dialogs(self) -> "Iterator[tuple[str, dict[str, Any]]]":
        """Yield the path and what was written down of each dialog that waits, the oldest first.

        One whose hook was to wait and was killed is none any more.
        """
        found = [(self._dialog(name), f"{self.directory}/{name}") for name in self._dialog_names()]
        for told, path in sorted(found, key=lambda each: str(each[0].get("at", ""))):
            if told and not (told.get("waits") and not is_held(path)):
                yield path, told

    def _dialog_names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.directory) if name.startswith(DIALOG)]  # noqa: PTH208 - names are all that is wanted
        except OSError:
            return []

    def _dialog(self, name: str) -> "dict[str, Any]":
        try:
            told = loads(self._read(name))
        except (OSError, ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    # -- files

    @contextlib.contextmanager
    def locked(self) -> "Iterator[None]":
        """Hold the lock under which hooks look and report; after a second go on without it."""
        try:
            fd = os.open(f"{self.directory}/hooks.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            take_within(fd, _LOCK_WAIT)
            yield
        finally:
            os.close(fd)

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(f"{self.directory}/{name}")  # noqa: PTH108 - pathlib costs each hook 5 ms
        except OSError:
            return False
        return True

    def _read(self, name: str) -> str:
        fd = os.open(f"{self.directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, 1 << 20).decode(errors="replace")
        finally:
            os.close(fd)

    def _write(self, name: str, text: str) -> bool:
        temporary = f"{self.directory}/.{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o600)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
            os.rename(temporary, f"{self.directory}/{name}")  # noqa: PTH104 - pathlib costs each hook 5 ms
        except OSError:
            return False
        return True
