"""Gemini's generateContent, as far as gemini-cli uses it to talk to its model: streamed, with one tool.

Not its other endpoints. Written after what gemini-cli 0.61.0 asks and takes.
"""

from typing import Any

from agents_e2e.model_stub import Handler, ModelStub, Turn, identifier

_USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


class GeminiStub(ModelStub):
    """Answers `POST …:generateContent` and `…:streamGenerateContent`."""

    def offers_tools(self, request: dict[str, Any]) -> bool:
        """Side requests declare no functions."""
        return any(tool.get("functionDeclarations") for tool in request.get("tools") or [])

    def messages(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the conversation, oldest first."""
        return list(request.get("contents", []))

    def is_answer(self, message: dict[str, Any]) -> bool:
        """An answer is a content of the model that is more than a thought."""
        return message.get("role") == "model" and any(map(_is_said, message.get("parts", [])))

    def error(self, status: int) -> dict[str, Any]:
        """Return the body of an error in Google's form."""
        return {"error": {"code": status, "message": "error of the stub", "status": "INTERNAL"}}

    def reply(self, to: Handler, request: dict[str, Any], turn: Turn) -> None:
        """Send the one part whole, or as the one event of a stream."""
        content = {"role": "model", "parts": [_part(turn, plain=not self.offers_tools(request))]}
        answer = {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "usageMetadata": _USAGE,
            "modelVersion": "stub",
        }
        if "stream" not in to.path:
            to.send_json(answer)
            return
        to.begin_stream()
        to.send_event(answer)


def _is_said(part: dict[str, Any]) -> bool:
    return "functionCall" in part or ("text" in part and not part.get("thought"))


def _part(turn: Turn, *, plain: bool) -> dict[str, Any]:
    if plain:
        return {"text": "{}"}  # its side requests want JSON
    if not turn.runs:
        return {"text": turn.text}
    given = {"command": turn.runs, "description": "Run it", "is_background": turn.background}
    return {"functionCall": {"name": "run_shell_command", "args": given, "id": identifier("call")}}
