"""A language model's API on loopback that says what a test wrote down: turns of text, commands and errors.

Not an API of its own: `stub_anthropic`, `stub_openai` and `stub_gemini` speak one each. Nothing here judges
what an agent does with an answer.
"""

import contextlib
import json
import re
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

HOLD_TIMEOUT = 60.0
"""Seconds after which a held turn is given all the same."""
SIDE_ANSWER = "Stub title"
"""What is said where no tools are offered: agents ask for titles and summaries on the side."""


class Turn(NamedTuple):
    """One answer of the model; the first of `status`, `report`, `runs`, `text` that is set counts."""

    text: str = ""
    runs: str = ""
    """A command line for whichever shell tool the agent offers."""
    report: str = ""
    """An event's kind: runs the line of the instructions that reports it, as the agent was told it."""
    status: int = 0
    """An HTTP status to fail with; retries of the same request get it again."""
    background: bool = False
    """Run the command as a background task (claude-code, codex, gemini)."""
    escalate: bool = False
    """Ask to run the command outside the sandbox (codex)."""
    question: str = ""
    """Ask the user a question with the answers Red and Blue (claude-code, opencode)."""
    hold: threading.Event | None = None
    """Answer only when this is set."""


@dataclass
class Asked:
    """A request that came with tools: what an agent wanted to know."""

    text: str = field(repr=False)
    """All text of the conversation."""
    turn: Turn
    """What it was answered."""
    whole: str = field(repr=False)
    """All text of the request: also what the agent is told to be, and its tools."""


class ModelStub(ThreadingHTTPServer):
    """A server on a free port of loopback; each request has a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripts: list[tuple[str, tuple[Turn, ...]]] = []
        self.asked: list[Asked] = []
        self.faults: list[Exception] = []

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, *turns: Turn, to: str = "") -> None:
        """From a message on in which `to` stands, answer with these turns, one after the other.

        What was said last holds before what was said earlier. The conversation itself tells which turn is
        next, so that retries and restarts get what is theirs.
        """
        self.scripts.insert(0, (to, turns))

    def answer(self, request: dict[str, Any]) -> Turn:
        """Return what is to be said to a request."""
        if not self.offers_tools(request):
            return Turn(SIDE_ANSWER)
        messages = self.messages(request)
        texts = ["\n".join(_strings(message)) for message in messages]
        turn = self._next_turn(texts, [self.is_answer(message) for message in messages])
        told = "\n".join(texts)
        if turn.report:
            turn = turn._replace(runs=_report_line(told, turn.report))
        self.asked.append(Asked(told, turn, "\n".join(_strings(request))))
        if turn.hold is not None:
            turn.hold.wait(HOLD_TIMEOUT)
        return turn

    def _next_turn(self, texts: list[str], answers: list[bool]) -> Turn:
        for mark, turns in self.scripts:
            first = next((at for at, text in enumerate(texts) if mark in text and not answers[at]), None)
            if first is not None:
                given = sum(answers[first:])
                return turns[given] if given < len(turns) else Turn("Nothing more to do.")
        return Turn("Nobody told me what to say.")

    def handle_error(self, _request: object, _address: object) -> None:
        """Keep what went wrong for the test; that an agent was ended in the middle is no fault."""
        import sys

        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.faults.append(error)

    @abstractmethod
    def offers_tools(self, request: dict[str, Any]) -> bool:
        """Say whether this is the agent's own conversation."""

    @abstractmethod
    def messages(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the conversation, oldest first."""

    @abstractmethod
    def is_answer(self, message: dict[str, Any]) -> bool:
        """Say whether this is an answer of the model."""

    @abstractmethod
    def reply(self, to: "_Handler", request: dict[str, Any], turn: Turn) -> None:
        """Send a turn in the API's own form."""

    def look_up(self, to: "_Handler") -> None:
        """Answer a GET: no such thing."""
        to.send_json({"error": {"message": "the stub has nothing there"}}, status=404)

    def error(self, status: int) -> dict[str, Any]:
        """Return the body of an error."""
        return {"error": {"message": "error of the stub", "type": "server_error", "code": status}}


class _Handler(BaseHTTPRequestHandler):
    """One connection of an agent."""

    server: ModelStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Say that somebody is here."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Answer what is not a question to the model."""
        self.server.look_up(self)

    def do_POST(self) -> None:
        """Answer a question to the model."""
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            request = json.loads(raw)
        except ValueError:
            request = {}
        if "count" in self.path.lower() and "token" in self.path.lower():
            self.send_json({"input_tokens": 100, "totalTokens": 100})
            return
        turn = self.server.answer(request)
        if turn.status:
            self.send_json(self.server.error(turn.status), status=turn.status)
        else:
            self.server.reply(self, request, turn)

    def send_json(self, value: object, *, status: int = 200) -> None:
        """Send one JSON document."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        """Begin a stream of server-sent events, which ends with the connection."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def send_event(self, data: object, name: str = "") -> None:
        """Send one event of the stream; text goes out as it is."""
        head = f"event: {name}\n" if name else ""
        shown = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(f"{head}data: {shown}\n\n".encode())
        self.wfile.flush()


Handler = _Handler


@contextlib.contextmanager
def serving(stub: ModelStub) -> Iterator[ModelStub]:
    """Let a stub serve; fail at the end when it could not."""
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        for _, turns in stub.scripts:
            for turn in turns:
                if turn.hold is not None:
                    turn.hold.set()
        stub.shutdown()
        stub.server_close()
        thread.join(5)
    assert stub.faults == []


def identifier(prefix: str) -> str:
    """Return an id that no other answer has."""
    return f"{prefix}_{time.monotonic_ns():x}"


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _report_line(told: str, kind: str) -> str:
    lines = re.findall(rf"^ {{4}}(\S.* --event {kind}\b.*)$", told, re.MULTILINE)
    return lines[-1] if lines else "echo 'no such report in the instructions' >&2; exit 99"
