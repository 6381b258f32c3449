"""OpenCode's events, as our plugin hands them on: what each means. Not which: that is the plugin's.

Seen in opencode 1.18.33 on Debian 12.
"""

from delegate_job.agent_hooks import (
    PERMISSION_DETAIL,
    Answer,
    Heard,
    is_reminder,
    questions_of,
    questions_words,
    request_data,
    table_of,
    text_of,
    tool_words,
    turn_failed,
)
from delegate_job.bare import dumps, sha256

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ENDS_WHEN_OVER = True
"""`session.idle` comes also after a turn that failed or was interrupted (1.18.33)."""
_ABORTED = "MessageAbortedError"


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def ask(reason: str) -> str:
    """Return what the plugin is to prompt for: it comes back as a message of the same session."""
    return reason


def decision(payload: "dict[str, Any]", answer: Answer) -> str:
    """Return the body of the reply that the plugin sends to OpenCode's own server.

    A refusal has words always: without any, OpenCode ends the turn and the model never reads of it.
    """
    if answer.answers is not None:
        return dumps({"answers": [[answer.answers.get(asked, "")] for asked, _ in questions_of(payload)]})
    if answer.allow:
        return dumps({"reply": "once"})
    return dumps({"reply": "reject", "message": answer.text or "The user said no."})


def _created(payload: "dict[str, Any]") -> Heard:
    return Heard("started", None, {"session_id": text_of(payload, "session_id")[:128]})


def _message(payload: "dict[str, Any]") -> Heard:
    if is_reminder(payload):
        return Heard()
    return Heard("progress", "turn started", turn="begins", closes="*")


def _asked(payload: "dict[str, Any]") -> Heard:
    tool, arguments = text_of(payload, "tool"), table_of(payload, "input")
    detail = tool_words(tool, arguments, PERMISSION_DETAIL)
    data = request_data(tool, arguments)
    return Heard("permission_required", detail, data, opens=_key(payload), waits=True)


def _question(payload: "dict[str, Any]") -> Heard:
    questions = questions_of(payload)
    words = questions_words(questions)
    data = {"tool": "question", "input": {"question": words}}
    return Heard(
        "permission_required", words, data, opens=_key(payload), waits=bool(questions), question=questions
    )


def _replied(payload: "dict[str, Any]") -> Heard:
    return Heard("progress", text_of(payload, "reply")[:64] or None, closes=_key(payload))


def _tool_used(payload: "dict[str, Any]") -> Heard:
    return Heard("progress", tool_words(text_of(payload, "tool"), table_of(payload, "input")))


def _retry(payload: "dict[str, Any]") -> Heard:
    """It tries again for ever, whatever the error is."""
    words = text_of(payload, "message")[:PERMISSION_DETAIL]
    attempt = payload.get("attempt")
    data = {"error_class": "retry", "attempt": attempt if isinstance(attempt, int) else 0}
    return Heard("progress", f"the model failed; tries again: {words}", data)


def _error(payload: "dict[str, Any]") -> Heard:
    name = text_of(payload, "name", "unknown")[:64]
    if name == _ABORTED:
        return Heard("turn_ended", "interrupted", {"reason": "interrupted"}, turn="interrupted", closes="*")
    return turn_failed(name, text_of(payload, "message")[:PERMISSION_DETAIL])


def _idle(payload: "dict[str, Any]") -> Heard:
    return Heard("turn_ended", text_of(payload, "last")[:PERMISSION_DETAIL] or None, turn="ends", closes="*")


def _key(payload: "dict[str, Any]") -> str:
    return sha256(text_of(payload, "id").encode(errors="replace"))[:24]


_MEANINGS: "dict[str, Callable[[dict[str, Any]], Heard]]" = {
    "session.created": _created,
    "chat.message": _message,
    "permission.asked": _asked,
    "permission.replied": _replied,
    "question.asked": _question,
    "question.replied": _replied,
    "question.rejected": _replied,
    "tool.execute.after": _tool_used,
    "session.retry": _retry,
    "session.error": _error,
    "session.idle": _idle,
}
