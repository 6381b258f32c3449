"""The full screen's view of a job's logs: as much of each as a person reads, from its end. `logs` has all."""

import subprocess
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Log

from delegate_job import starter
from delegate_job.markup import without_escapes
from delegate_job.output import as_laid_out
from delegate_job.tmux import Tmux
from delegate_job.watch_parts import Keys, Text

if TYPE_CHECKING:
    from delegate_job.rows import Row
    from delegate_job.watch_app import WatchApp

MOST_BYTES = 1 << 20
"""Of a log, from its end."""


class Kind(NamedTuple):
    """A log: its key, its title, and the option of `logs` that prints it."""

    key: str
    title: str
    option: str | None


KINDS = (
    Kind("1", "events", None),
    Kind("2", "terminal", "--pane"),
    Kind("3", "checks", "--validation"),
    Kind("4", "reports", "--reports"),
)


class LogScreen(Screen[None]):
    """One job's logs, one at a time, until Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,l", "back", show=False),
        *(Binding(kind.key, f"show({number})", show=False) for number, kind in enumerate(KINDS)),
    ]
    app: "WatchApp"

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self._text = Log(id="log")
        self._shown = -1

    def compose(self) -> ComposeResult:
        """Make the title, the text and the keys."""
        yield Text(id="head")
        yield self._text
        yield Text(id="message")
        keys = [(kind.key, kind.title) for kind in KINDS]
        yield Keys((*keys, ("arrows, PgUp, PgDn", "scroll"), ("Esc", "back"), ("q", "quit")))

    def on_mount(self) -> None:
        """Begin with the events."""
        self._text.focus()
        self.action_show(0)

    def action_back(self) -> None:
        """Go back to where this was opened."""
        self.app.pop_screen()

    def action_show(self, number: int) -> None:
        """Read one of the logs, in the background, and show it."""
        self._shown = number
        kind = KINDS[number]
        self.query_one("#head", Text).say(f"{self.job_id}  {kind.title}")
        self._text.clear().write_line("reading …")
        row = self.app.jobs.get(self.job_id)
        self.run_worker(lambda: self._read(number, kind, row), thread=True, exit_on_error=False)

    def _read(self, number: int, kind: Kind, row: "Row | None") -> None:
        screen = _whole_screen(row) if kind.option == "--pane" else None
        lines = screen or self._printed(kind)
        self.app.call_from_thread(self._show, number, lines)

    def _printed(self, kind: Kind) -> list[str]:
        """Return the end of what `logs` prints, read to its end with no more than that kept."""
        options = (kind.option,) if kind.option else ()
        argv = starter.own_argv(self.app.registry.paths, "logs", *options, self.job_id)
        raw = b""
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as printing:
            assert printing.stdout is not None  # noqa: S101 - it is a pipe
            while chunk := printing.stdout.read(1 << 16):
                raw = (raw + chunk)[-MOST_BYTES:]
        return lines_of(raw)

    def _show(self, number: int, lines: list[str]) -> None:
        if number == self._shown:
            # Log drops lines that are empty.
            shown = [line or " " for line in lines] if any(lines) else ["(nothing yet)"]
            self._text.clear().write_lines(shown)


def _whole_screen(row: "Row | None") -> list[str] | None:
    """Return the session's screen with its history: a terminal's log is legible only to a terminal."""
    if row is None or not row.tmux_socket or not row.job.spec.session:
        return None
    text = Tmux(socket=row.tmux_socket).capture(row.job.spec.session, history=True)
    return None if text is None else [as_laid_out(line) for line in text.rstrip().split("\n")]


def lines_of(raw: bytes) -> list[str]:
    """Return a log as lines, without what was meant for a terminal; of a line written over, the last."""
    text = without_escapes(raw.decode(errors="replace")).replace("\r\n", "\n")
    return [as_laid_out(line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]
