"""What an agent's native hooks mean: one module an agent, of pure functions, no I/O; `hooks` acts on it.

Not beside the agents themselves: each hook is a process of its own that loads nothing but this.

A module here is named like its agent (`-` as `_`) and has

    def heard(event: str, payload: dict[str, Any]) -> Heard:
        What the native event means. `payload` is what the hook got on stdin, {} when that was no JSON object;
        every field of it may be missing or of a wrong type: it never raises (if it does, nothing is said).

    def ask(reason: str) -> str:
        What the stop hook prints so that the agent goes on and reads `reason`. Only where some `heard` ends
        a turn (`turn="ends"`) and the agent heeds such an answer.

    def is_queued(lines: Iterable[bytes], since: str, said: str) -> bool | None:
        Whether a prompt that came at `since` (RFC 3339), in the middle of a turn, still waits at its end to
        become a turn of its own; None: that is not written yet. `lines` are the last ones of the file that
        the end of the turn names (`Heard.queue`), `said` is what the agent said last. Only where the agent
        tells of such a prompt when it comes.

    ENDS_WHEN_OVER = True
        Where a turn that has failed or was interrupted is told to end once more: that says nothing then. With
        the others such an end is that of a turn whose beginning no hook has told.

    def decision(payload: dict[str, Any], answer: Answer) -> str:
        What a hook that waits (`Heard.waits`) prints for a user's answer to its dialog.

What several agents tell in the same way is here, and nothing that one of them means by it.
"""

from delegate_job.bare import dumps

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from typing import Any

DETAIL = 500
"""Characters of a tool's argument that are told."""
PERMISSION_DETAIL = 2000
"""The same where a person is to decide by it."""
_REMINDER = "Your turn ends and nothing was reported in it"
"""By which our own question is known (`agents.instructions.reminder`)."""


class Heard:
    """What one native event means.

    `kind`, `detail`, `data`: the report, if there is any. `progress` is told at most once a second.
    `turn`: "begins" (a prompt was taken: the receipt of what was typed), "ends" (the generic flow of
    `hooks` decides what is said), "fails", or "interrupted" (the agent waits for input; told as
    `permission_required`, unless its turn has ended before: it is no silent stop that a check could judge).
    `busy`: at the end of a turn, what still runs in the background, in words; then it is no end.
    `queue`: at the end of a turn, the path of the file that tells which prompts wait; empty: none does.
    `prompt`: at the beginning and the end of a turn, the agent's own id of the prompt that it answers.
    `opens`: the key of a dialog that waits for a person from now on; `closes`: the key of a dialog that was
    answered, "*" for all. A key tells one dialog from others that are open at the time.
    `waits`: the hook itself may wait for the user's answer to the dialog that it `opens`.
    `shows`: what the agent's screen shows of the dialog that it `opens`, for one that its keys answer.
    `question`: the questions that this dialog asks, each with its options' labels; None: it asks for leave.
    """

    __slots__ = (
        "busy",
        "closes",
        "data",
        "detail",
        "kind",
        "opens",
        "prompt",
        "question",
        "queue",
        "shows",
        "turn",
        "waits",
    )

    def __init__(
        self,
        kind: str | None = None,
        detail: str | None = None,
        data: "dict[str, Any] | None" = None,
        *,
        turn: str = "",
        busy: str = "",
        queue: str = "",
        prompt: str = "",
        opens: str = "",
        closes: str = "",
        waits: bool = False,
        shows: str = "",
        question: "list[tuple[str, list[str]]] | None" = None,
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.data = data or {}
        self.turn = turn
        self.busy = busy
        self.queue = queue
        self.prompt = prompt
        self.opens = opens
        self.closes = closes
        self.waits = waits
        self.shows = shows
        self.question = question


class Answer:
    """A user's answer to a dialog: `allow`, else why not (`text`, may be empty); or the `answers`."""

    __slots__ = ("allow", "answers", "text")

    def __init__(self, *, allow: bool, text: str = "", answers: "dict[str, str] | None" = None) -> None:
        self.allow = allow
        self.text = text
        self.answers = answers


def text_of(payload: "dict[str, Any]", name: str, default: str = "") -> str:
    """Return a text of the payload; `default` when it is missing or none."""
    value = payload.get(name)
    return value if isinstance(value, str) else default


def table_of(payload: "dict[str, Any]", name: str) -> "dict[str, Any]":
    """Return an object of the payload; {} when it is missing or none."""
    value = payload.get(name)
    return value if isinstance(value, dict) else {}


def list_of(payload: "dict[str, Any]", name: str) -> "list[Any]":
    """Return a list of the payload; [] when it is missing or none."""
    value = payload.get(name)
    return value if isinstance(value, list) else []


def tool_words(tool: str, arguments: "dict[str, Any]", limit: int = DETAIL) -> str:
    """Return a tool and what it is used on in one line: `Bash: touch marker`."""
    names = ("command", "file_path", "path", "url", "pattern", "query", "description", "prompt")
    argument = next((arguments[name] for name in names if isinstance(arguments.get(name), str)), "")
    # A line is a line: what a person decides by must not paint over itself.
    told = " ".join("".join(c if c.isprintable() else " " for c in argument[: 2 * limit]).split())
    words = f"{tool or 'a tool'}: {told}" if told else tool or "a tool"
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def questions_of(payload: "dict[str, Any]") -> "list[tuple[str, list[str]]]":
    """Return the questions that a dialog asks, each with its options' labels."""
    asked = []
    for each in list_of(payload, "questions"):
        if isinstance(each, dict) and (question := text_of(each, "question")):
            options = [option for option in list_of(each, "options") if isinstance(option, dict)]
            asked.append((question, [text_of(option, "label") for option in options]))
    return asked


def questions_words(questions: "list[tuple[str, list[str]]]") -> str:
    """Return questions in one line: `Which colour? [Red, Blue]`."""
    words = " / ".join(f"{question} [{', '.join(labels)}]" for question, labels in questions)
    return words[:PERMISSION_DETAIL]


def request_data(tool: str, arguments: "dict[str, Any]") -> "dict[str, Any]":
    """Return what is told of a tool that asks for leave: its name and its first 16 texts, all bounded."""
    texts = {name[:64]: value[:2000] for name, value in arguments.items() if isinstance(value, str)}
    return {"tool": tool[:128], "input": dict(list(texts.items())[:16])}


def session_data(payload: "dict[str, Any]") -> "dict[str, Any]":
    """Return what is told of a session that begins: why (`source`), its id, its transcript."""
    return {
        "source": text_of(payload, "source", "startup")[:64],
        "session_id": text_of(payload, "session_id")[:128],
        "transcript": text_of(payload, "transcript_path")[:4096],
    }


def session_ended(payload: "dict[str, Any]") -> Heard:
    """Return the end of a session: no end of the job, which is the runner's to tell with its exit code."""
    reason = text_of(payload, "reason", "other")[:64]
    return Heard("session_ended", reason, {"reason": reason}, closes="*")


def turn_failed(kind: str, words: str) -> Heard:
    """Return the end of a turn whose request to the model failed, by the kind of the failure."""
    return Heard(
        "error", f"{kind}: {words}" if words else kind, {"error_class": kind}, turn="fails", closes="*"
    )


def is_reminder(payload: "dict[str, Any]") -> bool:
    """Return whether a prompt is what we ask at the end of a turn: the same turn, which is asked once."""
    return _REMINDER in text_of(payload, "prompt")[:500]


def block(reason: str) -> str:
    """Return what a stop hook prints where the agent goes on when its end is blocked: it reads the reason."""
    return dumps({"decision": "block", "reason": reason})
