"""OpenAI's Responses API, as codex uses it, and Chat Completions, as opencode and aider do: streamed.

Not its other endpoints. Written after what codex 0.169.0 and opencode 1.18.33 ask and take.
"""

import json
from collections.abc import Iterator
from typing import Any

from agents_e2e.model_stub import Handler, ModelStub, Turn, identifier

_CALLS = {"function_call", "custom_tool_call", "local_shell_call"}
_RESPONSE_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 110,
}
_CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class OpenAIStub(ModelStub):
    """Answers `POST …/responses` and `POST …/chat/completions`."""

    needs_tools = True
    """Whether a conversation without tools is a side request; it is the only kind that aider has."""

    def offers_tools(self, request: dict[str, Any]) -> bool:
        """Titles come without tools."""
        return bool(request.get("tools")) or not self.needs_tools

    def messages(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the conversation, oldest first."""
        items = request.get("messages", request.get("input", []))
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def is_answer(self, message: dict[str, Any]) -> bool:
        """An answer is a message of the assistant; in `input` a call of a tool stands for itself."""
        return message.get("role") == "assistant" or message.get("type") in _CALLS

    def look_up(self, to: Handler) -> None:
        """Answer with an empty list of models."""
        to.send_json({"object": "list", "data": [], "models": []})

    def reply(self, to: Handler, request: dict[str, Any], turn: Turn) -> None:
        """Send the turn in the form of the API that was asked."""
        (_reply_chat if "messages" in request else _reply_response)(to, request, turn)


def _call(request: dict[str, Any], turn: Turn) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the arguments of the shell tool that this agent offers, or of a question."""
    if turn.question:
        options = [{"label": label, "description": label} for label in ("Red", "Blue")]
        asked = {"question": turn.question, "header": "Choice", "options": options}
        return "question", {"questions": [asked]}
    if not turn.runs:
        return None
    tools = [tool.get("function", tool) for tool in request.get("tools") or []]
    names = {tool.get("name") or tool.get("type") for tool in tools}
    escalated = {"sandbox_permissions": "require_escalated", "justification": "It must be written outside."}
    more: dict[str, Any] = escalated if turn.escalate else {}
    if turn.background:
        more = {"yield_time_ms": 250}
    if "exec_command" in names:
        return "exec_command", {"cmd": turn.runs, **more}
    return "bash", {"command": turn.runs, "description": "Run it"}


# -- Responses


def _reply_response(to: Handler, request: dict[str, Any], turn: Turn) -> None:
    item = _item(_call(request, turn), turn.text)
    response = {
        "id": identifier("resp"),
        "object": "response",
        "created_at": 0,
        "model": request.get("model"),
        "status": "completed",
        "output": [item],
        "usage": _RESPONSE_USAGE,
    }
    if not request.get("stream"):
        to.send_json(response)
        return
    to.begin_stream()
    for number, event in enumerate(_events(response, item)):
        to.send_event({**event, "sequence_number": number}, event["type"])


def _item(call: tuple[str, dict[str, Any]] | None, text: str) -> dict[str, Any]:
    if call is None:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "id": identifier("msg"), "role": "assistant"}
        return {**message, "status": "completed", "content": content}
    return {
        "type": "function_call",
        "id": identifier("fc"),
        "call_id": identifier("call"),
        "name": call[0],
        "arguments": json.dumps(call[1]),
        "status": "completed",
    }


def _events(response: dict[str, Any], item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    where = {"item_id": item["id"], "output_index": 0}
    if item["type"] == "message":
        text = item["content"][0]["text"]
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}}
        yield {"type": "response.output_text.delta", **where, "content_index": 0, "delta": text}
    else:
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": response}


# -- Chat Completions


def _reply_chat(to: Handler, request: dict[str, Any], turn: Turn) -> None:
    call = _call(request, turn)
    head = {"id": identifier("chatcmpl"), "created": 0, "model": request.get("model")}
    if not request.get("stream"):
        message = {"role": "assistant", "content": turn.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        to.send_json({**head, "object": "chat.completion", "choices": [choice], "usage": _CHAT_USAGE})
        return
    to.begin_stream()
    for delta, finish in _deltas(call, turn.text):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        usage = {"usage": _CHAT_USAGE} if finish else {}
        to.send_event({**head, "object": "chat.completion.chunk", "choices": [choice], **usage})
    to.send_event("[DONE]")


def _deltas(
    call: tuple[str, dict[str, Any]] | None, text: str
) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": ""}, None
    if call is None:
        yield {"content": text}, None
        yield {}, "stop"
        return
    function = {"name": call[0], "arguments": json.dumps(call[1])}
    tool_call = {"index": 0, "id": identifier("call"), "type": "function", "function": function}
    yield {"tool_calls": [tool_call]}, None
    yield {}, "tool_calls"
