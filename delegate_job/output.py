"""What a person or a program is shown: lines, one live line, tables, JSON.

Not what happened: that comes as jobs and events. Text of an agent's never reaches a terminal unfiltered.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from delegate_job.events import Event, Kind
from delegate_job.job import Job, JobState, Outcome
from delegate_job.table import Cell, print_table, terminal_columns
from delegate_job.times import ago, in_one_unit, local_time, seconds_since

STATE_COLOURS = {
    JobState.REGISTERED: "bright_black",
    JobState.LAUNCHING: "cyan",
    JobState.RUNNING: "blue",
    JobState.WAITING: "yellow",
    JobState.CHECKING: "magenta",
    JobState.DONE: "red",
}
"""One colour a state; a job that was accepted is green."""
ACCEPTED_COLOUR = "green"
_ANSI = {"bright_black": 90, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
_MOST_DETAIL = 500

_QUIETLY_RECORDED = frozenset({Kind.REGISTERED, Kind.CLOSED, Kind.TELLING})


def colour_of(state: JobState, outcome: Outcome | None) -> str:
    """Return the name of the colour in which a state is shown."""
    return ACCEPTED_COLOUR if outcome is Outcome.ACCEPTED else STATE_COLOURS[state]


def has_colours(stream: IO[str]) -> bool:
    """Return whether colours belong there: a terminal, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Return one line without control characters: text of others must not drive the reader's terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def as_laid_out(line: str) -> str:
    """Return one line as it was laid out; what would drive the reader's terminal is a question mark."""
    return "".join(char if char.isprintable() else "?" for char in line.expandtabs())


def agent_name(agent: str) -> str:
    """Return the name of an agent, which may be the path of a program, without a path."""
    return printable(agent.rpartition("/")[2])


def event_line(document: dict[str, Any]) -> str:
    """Return a recorded event (`document.event_document`) as one line for a person."""
    detail, kind = printable(document["detail"] or ""), printable(document["kind"])
    mark = "" if document["applied"] else " (not applied)"
    return (
        f"{local_time(document['at'])} {document['source']:<6} {kind}{': ' if detail else ''}{detail}{mark}"
    )


_CONTROLS = rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]"
_DRIVES = re.compile(rb"\x1b(?!\[[\d;]*m)|" + _CONTROLS)


def harmless(raw: bytes) -> bytes:
    """Return what an agent's terminal was told, with its colours, without what would drive another."""
    return _DRIVES.sub(b"", raw)


def print_json(document: Any, *, stream: IO[str] | None = None) -> None:
    """Print one JSON document on one line a level."""
    print(json.dumps(document, indent=2, ensure_ascii=False), file=stream or sys.stdout, flush=True)


def print_json_array(documents: Iterable[dict[str, Any]]) -> None:
    """Print one JSON array, an element at a time: its size never stands in memory."""
    separator = "["
    for document in documents:
        print(separator, json.dumps(document, ensure_ascii=False), sep="\n", end="")
        separator = ","
    print("\n]" if separator == "," else "[]", flush=True)


class SubmitOutput:
    """Shows a foreground submit: lines on stdout, warnings on stderr, and a live line on a terminal.

    With `as_json` the lines go to stderr and stdout is left to the finished job's object. `plain` is for a
    terminal that is a CI system's log: no live line and no colours.
    """

    def __init__(self, *, as_json: bool, plain: bool = False) -> None:
        self._stream = sys.stderr if as_json else sys.stdout
        is_seen = sys.stderr.isatty() and self._stream.isatty() and not plain
        self._live = sys.stderr if is_seen else None
        self._colours = has_colours(self._stream) and not plain
        self._job: Job | None = None

    def registered(self, job: Job, attach: str | None) -> None:
        """The job has an id and can be found by others."""
        self.line(f"registered job: {job.id}")
        if attach:
            self.line(f"attach: {attach}")
        if job.spec.worktree:
            self.line(f"worktree: {job.spec.worktree.path} (branch {job.spec.worktree.branch})")

    def happened(self, job: Job, event: Event, *, applied: bool) -> None:
        """Show an event that was recorded."""
        self._job = job
        if not applied or event.kind in _QUIETLY_RECORDED:
            return
        if event.kind in _VALIDATIONS:
            self.line(_validation_line(event))
        else:
            self.line(self._event_line(event))
        self.tick()

    def _event_line(self, event: Event) -> str:
        detail = printable(event.detail or "")[:_MOST_DETAIL]
        return f"{local_time(event.received_at)} {event.kind}{': ' if detail else ''}{detail}"

    def task(self, job: Job, instructions: str) -> None:
        """Show a person what is to be done, whole."""
        self._job = job
        for line in instructions.splitlines():
            self.line(as_laid_out(line))

    def warn(self, text: str) -> None:
        """Show that something is amiss."""
        self._clear()
        with contextlib.suppress(OSError):
            print(f"warning: {printable(text)}", file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Print one line; the live line makes way for it. That nobody can read it never ends a job."""
        self._clear()
        try:
            print(text, file=self._stream, flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream.flush()
            self.warn(f"the output cannot be written any more: {error.strerror}; the job goes on")

    def tick(self) -> None:
        """Draw the live line anew."""
        if self._live is None or self._job is None:
            return
        text = live_line(self._job)
        columns = terminal_columns()
        shown = text[: columns - 1]
        if self._colours:
            shown = f"\x1b[{_ANSI[colour_of(self._job.state, self._job.outcome)]}m{shown}\x1b[0m"
        self._draw(shown)

    def _clear(self) -> None:
        self._draw("")

    def _draw(self, text: str) -> None:
        if self._live is not None:
            # A terminal that was closed is nobody's to write to; the signal that says so comes by itself.
            with contextlib.suppress(OSError):
                print(f"\r\x1b[K{text}", end="", file=self._live, flush=True)

    def left(self, job: Job, wait: str) -> None:
        """The job goes on without this process: say how to get back to it."""
        self._clear()
        # After a hang-up nobody is left to read it.
        with contextlib.suppress(OSError):
            print(f"job {job.id} goes on in the background; back to it: {wait}", file=sys.stderr, flush=True)

    def hint(self, text: str) -> None:
        """Say what a person may want to do next."""
        self._clear()
        with contextlib.suppress(OSError):
            print(f"hint: {text}", file=sys.stderr, flush=True)

    def finished(self, job: Job) -> None:
        """Show how the job ended; the last line is the audit directory."""
        self._job = None
        self._clear()
        reason = f" ({printable(job.reason)})" if job.reason else ""
        outcome = f"{job.outcome}" if job.done else "not finished"
        if self._colours and job.done:
            outcome = f"\x1b[{_ANSI[colour_of(job.state, job.outcome)]}m{outcome}\x1b[0m"
        self.line(f"outcome: {outcome}{reason}")
        self.line(job.spec.log_dir)


def live_line(job: Job) -> str:
    """Return state, time in all, and the last event, in one line."""
    spent = in_one_unit(seconds_since(job.created_at))
    last = f", {job.last_event} {ago(job.last_event_at)}" if job.last_event else ""
    waits = f": {printable(job.reason)}" if job.state is JobState.WAITING and job.reason else ""
    return f"{job.state}{waits} ({spent}{last})"


_VALIDATIONS = frozenset({Kind.CHECK_PASSED, Kind.CHECK_FAILED, Kind.CHECK_TIMED_OUT, Kind.CHECK_CHANGED})


def _validation_line(event: Event) -> str:
    if event.kind == Kind.CHECK_PASSED:
        return "validation: PASS"
    if event.kind == Kind.CHECK_TIMED_OUT:
        return "validation: FAIL (timed out)"
    if event.kind == Kind.CHECK_CHANGED:
        return "validation: FAIL (the script was changed after submit)"
    return f"validation: FAIL (exit {event.data.get('exit_code')})"


def print_job(document: dict[str, Any]) -> None:
    """Show one job to a person: a name and a value a line, without what is not known."""
    for name, value in _shown(document):
        print(f"{name:<13} {beside(14, printable(str(value)))}")


def beside(columns: int, text: str) -> str:
    """Return a text that stands beside a label of so many columns, on a terminal in lines that fit there.

    A word is never parted: a path can be copied whole.
    """
    if not sys.stdout.isatty():
        return text
    import textwrap

    width = max(terminal_columns() - columns, 20)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * columns}".join(lines)


def _shown(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "id", document["id"]
    yield "state", _state_text(document)
    for name in ("reason", "verdict", "exit_code", "detail", "agent"):
        if document[name] is not None:
            yield name, document[name]
    yield "checks", f"{document['attempt']} of {document['attempts']}"
    for name in ("created_at", "started_at", "ended_at"):
        if document[name] is not None:
            yield name.removesuffix("_at"), f"{ago(document[name])} ({document[name]})"
    if document["last_event"] is not None:
        yield "last event", f"{document['last_event']}, {ago(document['last_event_at'])}"
    for name in ("workdir", "worktree", "branch", "log_dir", "broker", "attach", "retry_of", "operation_id"):
        if document[name] is not None:
            yield name.replace("_", " "), document[name]
    yield "owner", _owner_text(document)


def _outcome(document: dict[str, Any]) -> Outcome | None:
    return None if document["outcome"] is None else Outcome(document["outcome"])


def _state_text(document: dict[str, Any]) -> str:
    return f"{document['state']}: {document['outcome']}" if document["outcome"] else str(document["state"])


def _owner_text(document: dict[str, Any]) -> str:
    if document["state"] == JobState.DONE:
        return "none, it is done"
    if document["owner"] is None:
        return "none: the process that owned it has ended"
    return f"pid {document['owner']['pid']} on {document['owner']['host']}"


def print_jobs(documents: Iterable[dict[str, Any]]) -> int:
    """Show jobs as a table as wide as the terminal, newest first; return how many there were."""
    colours = has_colours(sys.stdout)
    rows = (_cells(document, colours=colours) for document in documents)
    return print_table(("ID", "STATE", "AGENT", "CREATED", "LAST EVENT", "DETAIL"), rows, sys.stdout)


def _cells(document: dict[str, Any], *, colours: bool) -> tuple[Cell, ...]:
    colour = _ANSI[colour_of(JobState(document["state"]), _outcome(document))] if colours else None
    return (
        Cell(document["id"]),
        Cell(_list_state(document), colour),
        Cell(agent_name(document["agent"])),
        Cell(ago(document["created_at"])),
        Cell(f"{document['last_event'] or '-'} {ago(document['last_event_at'])}"),
        Cell(why(document["reason"], document["detail"])),
    )


def why(reason: str | None, detail: str | None) -> str:
    """Return in one line why a job waits or how it ended, and what the agent said last."""
    said = detail if detail and not (reason or "").endswith(detail) else None
    return printable(": ".join(filter(None, (reason, said)))[:_MOST_DETAIL])


def _list_state(document: dict[str, Any]) -> str:
    state = str(document["outcome"] or document["state"])
    ownerless = document["state"] != JobState.DONE and document["owner"] is None
    return f"{state} (ownerless)" if ownerless else state
