"""Codex's hooks: what each means. Not which are asked for: that is its argv (`agents.codex`).

Seen in codex 0.169.0 on Debian 12. It has none for a request to its model that failed: `task_complete` is an
entry of its transcript, which the owner watches (`transcript`).
"""

from delegate_job.agent_hooks import (
    PERMISSION_DETAIL,
    Heard,
    block,
    request_data,
    session_data,
    session_ended,
    table_of,
    text_of,
    tool_words,
    turn_failed,
)
from delegate_job.bare import sha256

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ask = block


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def _session_start(payload: "dict[str, Any]") -> Heard:
    """It comes with the first prompt, not when the screen is up."""
    data = session_data(payload)
    if data["source"] in {"clear", "compact"}:
        return Heard("progress", f"session: {data['source']}", data)
    return Heard("started", None, data)


def _prompt(_payload: "dict[str, Any]") -> Heard:
    return Heard("progress", "turn started", turn="begins", closes="*")


def _permission(payload: "dict[str, Any]") -> Heard:
    """The dialog is not shown before this hook has returned: it never waits."""
    tool, arguments = text_of(payload, "tool_name"), table_of(payload, "tool_input")
    data = request_data(tool, arguments)
    detail = tool_words(tool, arguments, PERMISSION_DETAIL)
    shows = text_of(arguments, "command")[:PERMISSION_DETAIL]
    return Heard("permission_required", detail, data, opens=_key(tool, arguments), shows=shows)


def _tool_used(payload: "dict[str, Any]") -> Heard:
    tool, arguments = text_of(payload, "tool_name"), table_of(payload, "tool_input")
    return Heard("progress", tool_words(tool, arguments), closes=_key(tool, arguments))


def _stop(payload: "dict[str, Any]") -> Heard:
    last = text_of(payload, "last_assistant_message")[:PERMISSION_DETAIL]
    return Heard("turn_ended", last or None, turn="ends", closes="*")


def _interrupt(_payload: "dict[str, Any]") -> Heard:
    """Esc, in a turn or a dialog."""
    data = {"reason": "interrupted"}
    return Heard("turn_ended", "interrupted", data, turn="interrupted", closes="*")


def _task_complete(payload: "dict[str, Any]") -> Heard:
    """The end of a turn as the transcript has it; one that did not fail is told by the hooks."""
    error = payload.get("error")
    if error is None:
        return Heard()
    told = error if isinstance(error, dict) else {}
    kind = text_of(told, "codex_error_info", "other")[:64]
    return turn_failed(kind, text_of(told, "message")[:PERMISSION_DETAIL])


def _key(tool: str, arguments: "dict[str, Any]") -> str:
    """Return the same key for a dialog and for the tool's end: the request has no id, and a reason more."""
    return sha256(f"{tool}\n{arguments.get('command')!r}".encode(errors="replace"))[:24]


_MEANINGS: "dict[str, Callable[[dict[str, Any]], Heard]]" = {
    "SessionStart": _session_start,
    "UserPromptSubmit": _prompt,
    "PermissionRequest": _permission,
    "PostToolUse": _tool_used,
    "Stop": _stop,
    "Interrupt": _interrupt,
    "SessionEnd": session_ended,
    "task_complete": _task_complete,
}
