"""Gemini CLI's hooks: what each means. Not which are asked for: that is its settings (`agents.gemini`).

Seen in gemini-cli 0.61.0 on Debian 12.
"""

from delegate_job.agent_hooks import PERMISSION_DETAIL, Heard, table_of, text_of, tool_words

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DIALOG = "dialog"
"""The key of the one dialog that it can have open."""
_NO_ANSWER = "[no response text]"
_REMINDER = "Your turn ends and nothing was reported in it"
"""By which our own question is known (`agents.instructions.reminder`)."""


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def ask(reason: str) -> str:
    """Return what keeps gemini from ending its turn; it goes on and reads the reason."""
    import json

    return json.dumps({"decision": "block", "reason": reason})


def _session_start(payload: "dict[str, Any]") -> Heard:
    """It comes before the dialogs of a first start: it is no sign that work has begun."""
    source = text_of(payload, "source", "startup")[:64]
    data = {
        "source": source,
        "session_id": text_of(payload, "session_id")[:128],
        "transcript": text_of(payload, "transcript_path")[:4096],
    }
    if source == "startup":
        return Heard("progress", "session opened", data)
    return Heard("progress", f"session: {source}", data)


def _prompt(payload: "dict[str, Any]") -> Heard:
    """The first one is the first sign that no dialog of a first start is in the way.

    What we ask at the end of a turn comes as a prompt, too: that is the same turn, which is asked once.
    """
    if _REMINDER in text_of(payload, "prompt")[:500]:
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
    told = {name[:64]: value[:2000] for name, value in details.items() if isinstance(value, str)}
    data = {"tool": text_of(details, "type")[:128], "input": dict(list(told.items())[:16])}
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


def _session_end(payload: "dict[str, Any]") -> Heard:
    reason = text_of(payload, "reason", "other")[:64]
    return Heard("session_ended", reason, {"reason": reason}, closes="*")


_MEANINGS: "dict[str, Callable[[dict[str, Any]], Heard]]" = {
    "SessionStart": _session_start,
    "BeforeAgent": _prompt,
    "AfterTool": _tool_used,
    "Notification": _notification,
    "AfterAgent": _turn_over,
    "SessionEnd": _session_end,
}
