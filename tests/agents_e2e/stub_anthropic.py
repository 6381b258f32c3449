"""The Anthropic Messages API, as far as claude-code uses it to talk to its model: streamed, with one tool.

Not its other endpoints. Written after what claude-code 2.1.330 asks and takes.
"""

import json
from typing import Any

from agents_e2e.model_stub import Handler, ModelStub, Turn, identifier

_USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


class AnthropicStub(ModelStub):
    """Answers `POST /v1/messages`."""

    def offers_tools(self, request: dict[str, Any]) -> bool:
        """Titles and quota checks come without tools."""
        return bool(request.get("tools"))

    def messages(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the conversation, oldest first."""
        return list(request.get("messages", []))

    def is_answer(self, message: dict[str, Any]) -> bool:
        """Each answer is a message of the assistant."""
        return bool(message.get("role") == "assistant")

    def error(self, status: int) -> dict[str, Any]:
        """Return the body of an error in Anthropic's form."""
        kind = _ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": "error of the stub"}}

    def reply(self, to: Handler, request: dict[str, Any], turn: Turn) -> None:
        """Send the message whole, or as the events of a stream."""
        block = _block(turn)
        stop = "end_turn" if block["type"] == "text" else "tool_use"
        message: dict[str, Any] = {
            "id": identifier("msg"),
            "type": "message",
            "role": "assistant",
            "model": request.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _USAGE,
        }
        if not request.get("stream"):
            to.send_json({**message, "content": [block], "stop_reason": stop})
            return
        to.begin_stream()
        for event in _events(message, block, stop):
            to.send_event(event, event["type"])


def _block(turn: Turn) -> dict[str, Any]:
    if turn.question:
        options = [{"label": label, "description": label} for label in ("Red", "Blue")]
        question = {"question": turn.question, "header": "Choice", "options": options, "multiSelect": False}
        return _call("AskUserQuestion", {"questions": [question]})
    if turn.runs:
        given = {"command": turn.runs, "description": "Run it"}
        return _call("Bash", {**given, "run_in_background": True} if turn.background else given)
    return {"type": "text", "text": turn.text}


def _call(tool: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": identifier("toolu"), "name": tool, "input": given}


def _events(message: dict[str, Any], block: dict[str, Any], stop: str) -> list[dict[str, Any]]:
    empty: dict[str, Any]
    if block["type"] == "text":
        empty, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        empty = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 20},
        },
        {"type": "message_stop"},
    ]
