"""Claude Code's hooks: what each means. Not which are asked for: that is its settings (`agents.claude_code`).

Seen in claude-code 2.1.330 on Debian 12; names and fields of events as in its own schema.
"""

from delegate_job.agent_hooks import (
    PERMISSION_DETAIL,
    Answer,
    Heard,
    block,
    list_of,
    questions_of,
    questions_words,
    request_data,
    session_data,
    session_ended,
    table_of,
    text_of,
    tool_words,
    turn_failed,
)
from delegate_job.bare import dumps, loads, sha256

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_QUESTION = "AskUserQuestion"
_BEGINNING = 200
"""Characters by which a text is known again."""

ask = block


def heard(event: str, payload: "dict[str, Any]") -> Heard:
    """Return what the event means; an event that is not known here means nothing."""
    meaning = _MEANINGS.get(event)
    return Heard() if meaning is None else meaning(payload)


def decision(payload: "dict[str, Any]", answer: Answer) -> str:
    """Return the decision on a permission, or the answers to its questions (`updatedInput.answers`)."""
    given: dict[str, Any] = {"behavior": "allow" if answer.allow else "deny"}
    if not answer.allow:
        given["message"] = answer.text or "The user said no."
    elif answer.answers is not None:
        given["updatedInput"] = {**table_of(payload, "tool_input"), "answers": answer.answers}
    return dumps({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": given}})


def is_queued(lines: "Iterable[bytes]", since: str, said: str) -> "bool | None":
    """Return whether prompts are in the queue, by the transcript's end; None: that of `since` is not told.

    UserPromptSubmit tells of each at once; `enqueue` is written after that. With the next result of a tool it
    goes into the turn that runs (`remove`), and at that turn's end into one of its own (`dequeue`), of which
    no hook tells. There is one such entry for each prompt, but for `popAll`. All is written up to some tenths
    of a second late, in its order: what was said last must stand there too (claude-code 2.1.330).
    """
    waiting, is_told, is_whole = 0, False, not said.strip()
    for line in lines:
        if b'"queue-operation"' not in line and b'"assistant"' not in line:
            continue
        try:
            entry = loads(line.decode())
        except (ValueError, RecursionError):
            continue
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind == "assistant":
            is_whole = is_whole or (is_told and _says(entry, said))
        elif kind == "queue-operation" and entry.get("operation") == "enqueue":
            waiting += 1
            # Milliseconds there: `since` may have more digits.
            is_told = is_told or text_of(entry, "timestamp")[:23] >= since[:23]
        elif kind == "queue-operation":
            waiting = 0 if entry.get("operation") == "popAll" else max(0, waiting - 1)
    if is_told and (is_whole or not waiting):
        return waiting > 0
    return None


def _says(entry: "dict[str, Any]", said: str) -> bool:
    """Return whether an entry of the transcript has the beginning of what was said."""
    blocks = list_of(table_of(entry, "message"), "content")
    texts = [text_of(block, "text").strip()[:_BEGINNING] for block in blocks if isinstance(block, dict)]
    return any(text and said.strip().startswith(text) for text in texts)


def _session_start(payload: "dict[str, Any]") -> Heard:
    data = session_data(payload)
    if data["source"] in {"clear", "compact"}:
        return Heard("progress", f"session: {data['source']}", data)
    # What a session before this one has left open, being killed, waits no more.
    return Heard("started", None, data, closes="*")


def _prompt(payload: "dict[str, Any]") -> Heard:
    return Heard("progress", "turn started", turn="begins", closes="*", prompt=text_of(payload, "prompt_id"))


def _permission(payload: "dict[str, Any]") -> Heard:
    tool, arguments = text_of(payload, "tool_name"), table_of(payload, "tool_input")
    questions = questions_of(arguments) if tool == _QUESTION else None
    detail = questions_words(questions) if questions else tool_words(tool, arguments, PERMISSION_DETAIL)
    data = {**request_data(tool, arguments), **_where(payload)}
    return Heard(
        "permission_required",
        detail,
        data,
        opens=_key(tool, arguments),
        waits=True,
        question=questions,
    )


def _tool_used(payload: "dict[str, Any]") -> Heard:
    tool, arguments = text_of(payload, "tool_name"), table_of(payload, "tool_input")
    return Heard("progress", tool_words(tool, arguments), _where(payload), closes=_key(tool, arguments))


def _batch_done(payload: "dict[str, Any]") -> Heard:
    """A round of tools is over: of those of the main agent none waits any more, also none that was denied."""
    return Heard(closes="" if payload.get("agent_id") else "*")


def _notification(payload: "dict[str, Any]") -> Heard:
    # `permission_prompt` comes six seconds after PermissionRequest has said the same.
    if payload.get("notification_type") != "idle_prompt":
        return Heard()
    # After 60 s without input. Esc, in a turn or a dialog, is told by no other event.
    words = text_of(payload, "message")[:200] or "waits for input"
    return Heard("permission_required", words, {"reason": "interrupted"}, turn="interrupted", closes="*")


def _interrupted(_payload: "dict[str, Any]") -> Heard:
    """No hook: what the transcript says when the user has pressed Esc (`transcript`)."""
    words = "interrupted in its session; it waits for input"
    return Heard("permission_required", words, {"reason": "interrupted"}, turn="interrupted", closes="*")


def _stop(payload: "dict[str, Any]") -> Heard:
    running = [_task(task) for task in list_of(payload, "background_tasks") if _runs(task)]
    crons = list_of(payload, "session_crons")
    busy = ", ".join(running[:5] + ["a scheduled prompt"] * bool(crons))
    last = text_of(payload, "last_assistant_message")[:PERMISSION_DETAIL]
    return Heard(
        "turn_ended",
        last or None,
        turn="ends",
        busy=busy[:500],
        queue=text_of(payload, "transcript_path"),
        prompt=text_of(payload, "prompt_id"),
        closes="" if busy else "*",
    )


def _runs(task: "Any") -> bool:
    return isinstance(task, dict) and task.get("status", "running") in {"running", "pending"}


def _task(task: "dict[str, Any]") -> str:
    return text_of(task, "description")[:80] or text_of(task, "type", "a task")[:80]


def _stop_failure(payload: "dict[str, Any]") -> Heard:
    kind = text_of(payload, "error", "unknown")[:64]
    words = text_of(payload, "last_assistant_message")[:PERMISSION_DETAIL]
    failed = turn_failed(kind, words)
    if payload.get("agent_id"):
        return Heard("progress", f"a subagent failed: {failed.detail}", failed.data)
    return failed


def _subagent_stop(payload: "dict[str, Any]") -> Heard:
    return Heard("progress", f"subagent {text_of(payload, 'agent_type')[:64]} ended".replace("  ", " "))


def _key(tool: str, arguments: "dict[str, Any]") -> str:
    """Return the same key for a dialog and for the tool's end: neither the request nor a denial has an id."""
    # The answers come to stand in the arguments.
    known = {"questions": arguments.get("questions")} if tool == _QUESTION else arguments
    try:
        return sha256(f"{tool}\n{known!r}".encode(errors="replace"))[:24]
    except RecursionError:
        return "odd"


def _where(payload: "dict[str, Any]") -> "dict[str, Any]":
    agent = text_of(payload, "agent_type")
    return {"subagent": agent[:64]} if payload.get("agent_id") else {}


_MEANINGS: "dict[str, Callable[[dict[str, Any]], Heard]]" = {
    "SessionStart": _session_start,
    "UserPromptSubmit": _prompt,
    "PermissionRequest": _permission,
    "PostToolUse": _tool_used,
    "PostToolUseFailure": _tool_used,
    "PostToolBatch": _batch_done,
    "Notification": _notification,
    "Interrupted": _interrupted,
    "Stop": _stop,
    "StopFailure": _stop_failure,
    "SubagentStop": _subagent_stop,
    "SessionEnd": session_ended,  # `clear` and `resume` among its reasons
}
