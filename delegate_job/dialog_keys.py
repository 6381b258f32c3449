"""A key for an agent's dialog, pressed only while the screen shows that very dialog; then it is seen to go.

Not whose dialog may be answered, and not what is said of it: that is `answering`.
"""

import re

from delegate_job.agents.base import Dialog
from delegate_job.errors import RegistryError, UsageError
from delegate_job.hook_state import HookState
from delegate_job.retry import retry_until
from delegate_job.tmux import Tmux

SHOWN_WITHIN = 5.0
"""Seconds within which a dialog is on the screen: codex 0.169 draws it when its hook has ended."""
GONE_WITHIN = 5.0
"""Seconds within which an answered dialog leaves the screen."""
TOLD_WITHIN = 1.0
"""Seconds within which codex's hook tells of a refusal; gemini 0.61.0 tells nobody."""
_FRAME = re.compile(r"[\s│]+")


class Keyboard:
    """The session of an agent with a dialog; `shows` is what is asked leave for, as its hook told it."""

    def __init__(self, tmux: Tmux, session: str, dialog: Dialog, shows: str) -> None:
        self._tmux = tmux
        self._session = session
        self._dialog = dialog
        self._shows = shows

    def await_dialog(self) -> None:
        """Wait until the dialog is on the screen; UsageError when it is not, or is none that can be known."""
        if not self._shows or not retry_until(self._is_shown, timeout=SHOWN_WITHIN, interval=0.1):
            raise UsageError(
                "the screen does not show what was asked leave for, whole: no key was pressed",
                hint=f"answer it with `{self._attach}`",
            )

    def press(self, keys: bytes) -> None:
        """Press keys in the dialog and see it go. UsageError: it went before; RegistryError: it stays."""
        # tmux looks once more as it types: somebody in the session may have been faster.
        if not self._tmux.press(self._session, keys, while_shown=self._dialog.grants):
            raise UsageError(
                "the dialog was answered in its session meanwhile", hint=f"look with `{self._attach}`"
            )
        if not retry_until(self._is_gone, timeout=GONE_WITHIN, interval=0.1):
            raise RegistryError(
                f"a key was pressed, and the dialog is still there after {GONE_WITHIN:g} s",
                hint=f"look with `{self._attach}`",
            )

    @property
    def _attach(self) -> str:
        return " ".join(self._tmux.attach_argv(self._session))

    def _is_shown(self) -> bool:
        return is_shown(self._tmux.capture(self._session) or "", self._dialog, self._shows)

    def _is_gone(self) -> bool:
        screen = self._tmux.capture(self._session)
        return screen is not None and not is_shown(screen, self._dialog, self._shows)


def is_shown(screen: str, dialog: Dialog, shows: str) -> bool:
    """Return whether the screen ends in this very dialog: its beginning, what it is about, what grants it."""
    begins = screen.rfind(dialog.begins)
    shown = screen[begins:]
    return begins >= 0 and dialog.grants in shown and _bare(shows) in _bare(shown)


def note_granted(hooks: HookState, key: str, request: str) -> None:
    """Write down that the dialog waits no more: the agent's hooks tell of that when the tool has ended."""
    with hooks.locked():
        _close(hooks, key, request)


def note_refused(hooks: HookState, key: str, request: str) -> None:
    """Wait until the agent's hooks know of a refusal, which ends the turn; else write that down for them."""
    if retry_until(lambda: not hooks.has_dialog(key, request), timeout=TOLD_WITHIN, interval=0.05):
        return
    with hooks.locked():
        _close(hooks, key, request)
        hooks.end_turn()


def _close(hooks: HookState, key: str, request: str) -> None:
    if hooks.has_dialog(key, request):
        hooks.close_dialogs(key)


def _bare(text: str) -> str:
    """Return the text without what wraps and frames it on a screen."""
    return _FRAME.sub("", text)
