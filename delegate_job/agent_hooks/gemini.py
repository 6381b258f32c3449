"""Gemini CLI's hooks: what each means. Not which are asked for: that is its settings (`agents.gemini`).

Seen in gemini-cli 0.61.0 on Debian 12.
"""

from delegate_job.agent_hooks import (
    PERMISSION_DETAIL,
    Heard,
    block,
    is_reminder,
    request_data,
    session_data,
    session_ended,
    table_of,
    text_of,
    tool_words,
)

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DIALOG = "dialog"
"""The key of the one dialog that it can have open."""
_NO_ANSWER = "[no response text]"

ask = block


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def _session_start(payload: "dict[str, Any]") -> Heard:
    """It comes before the dialogs of a first start: it is no sign that work has begun."""
    data = session_data(payload)
    if data["source"] == "startup":
        return Heard("progress", "session opened", data)
    return Heard("progress", f"session: {data['source']}", data)


def _prompt(payload: "dict[str, Any]") -> Heard:
    """The first one is the first sign that no dialog of a first start is in the way."""
    if is_reminder(payload):
        return Heard()
    data = {"session_id": text_of(payload, "session_id")[:128]}
    return Heard("started", "turn started", data, turn="begins", closes="*")


def _tool_used(payload: "dict[str, Any]") -> Heard:
    words = tool_words(text_of(payload, "tool_name"), table_of(payload, "tool_input"))
    return Heard("progress", words, closes=_DIALOG)


def _notification(payload: "dict[str, Any]") -> Heard:
    if payload.get("notification_type") != "ToolPermission":
        return Heard()
    details = table_of(payload, "details")
    data = request_data(text_of(details, "type"), details)
    words = tool_words(text_of(details, "title", "a tool"), details, PERMISSION_DETAIL)
    shows = text_of(details, "command")[:PERMISSION_DETAIL]
    return Heard("permission_required", words, data, opens=_DIALOG, shows=shows)


def _turn_over(payload: "dict[str, Any]") -> Heard:
    """It comes after a request that failed, too, with these words in place of an answer."""
    answer = text_of(payload, "prompt_response")
    if answer.strip() in {"", _NO_ANSWER}:
        return Heard(
            "error", "the model gave no answer", {"error_class": "unknown"}, turn="fails", closes="*"
        )
    return Heard("turn_ended", answer[:PERMISSION_DETAIL], turn="ends", closes="*")


_MEANINGS: "dict[str, Callable[[dict[str, Any]], Heard]]" = {
    "SessionStart": _session_start,
    "BeforeAgent": _prompt,
    "AfterTool": _tool_used,
    "Notification": _notification,
    "AfterAgent": _turn_over,
    "SessionEnd": session_ended,
}
