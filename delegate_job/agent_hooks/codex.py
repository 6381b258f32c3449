"""Codex's hooks: what each means. Not which are asked for: that is its argv (`agents.codex`).

Seen in codex 0.169.0 on Debian 12. It has none for a request to its model that failed: `task_complete` is an
entry of its transcript, which the owner watches (`transcript`).
"""

from delegate_job.agent_hooks import PERMISSION_DETAIL, Heard, table_of, text_of, tool_words
from delegate_job.bare import sha256

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def ask(reason: str) -> str:
    """Return what keeps codex from ending its turn; it goes on and reads the reason."""
    import json

    return json.dumps({"decision": "block", "reason": reason})


def _session_start(payload: "dict[str, Any]") -> Heard:
    """It comes with the first prompt, not when the screen is up."""
    source = text_of(payload, "source", "startup")[:64]
    data = {
        "source": source,
        "session_id": text_of(payload, "session_id")[:128],
        "transcript": text_of(payload, "transcript_path")[:4096],
    }
    if source in {"clear", "compact"}:
        return Heard("progress", f"session: {source}", data)
    return Heard("started", None, data)


def _prompt(_payload: "dict[str, Any]") -> Heard:
    return Heard("progress", "turn started", turn="begins", closes="*")


def _permission(payload: "dict[str, Any]") -> Heard:
    """The dialog is not shown before this hook has returned: it never waits."""
    tool, arguments = text_of(payload, "tool_name"), table_of(payload, "tool_input")
    told = {name[:64]: value[:2000] for name, value in arguments.items() if isinstance(value, str)}
    data = {"tool": tool[:128], "input": dict(list(told.items())[:16])}
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
    words = text_of(told, "message")[:PERMISSION_DETAIL]
    data = {"error_class": kind}
    return Heard("error", f"{kind}: {words}" if words else kind, data, turn="fails", closes="*")


def _session_end(payload: "dict[str, Any]") -> Heard:
    reason = text_of(payload, "reason", "other")[:64]
    return Heard("session_ended", reason, {"reason": reason}, closes="*")


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
    "SessionEnd": _session_end,
    "task_complete": _task_complete,
}
