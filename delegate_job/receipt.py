"""Enter behind a text that was pasted into an agent's session, until the agent says that it took it.

Not the paste, and not whether anything may be typed: that is for who calls.
"""

from collections.abc import Callable

from delegate_job.hook_state import HookState
from delegate_job.retry import retry_until

RECEIPT_WITHIN = 3.0
"""Seconds within which an agent with hooks tells that it took a prompt; then Enter is pressed again."""
ENTERS = 3
"""Enters at most: one may be swallowed while the agent redraws (claude 2.1.330, codex 0.169)."""


def press_enter(enter: Callable[[], None], hooks: HookState, before: int) -> bool | None:
    """Press Enter until the agent's hooks tell of a turn after the one numbered `before`.

    Return whether they did; None for an agent whose hooks tell of no turns. Not while a dialog is open.
    TmuxError.
    """
    enter()
    if not before:
        return None
    for further in range(ENTERS):
        if retry_until(lambda: hooks.turn().number > before, timeout=RECEIPT_WITHIN, interval=0.05):
            return True
        if further == ENTERS - 1 or list(hooks.dialogs()):
            break
        enter()
    return False
