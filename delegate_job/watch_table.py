"""The full screen's table of jobs: only the lines in sight are made. Not the order and words of its rows."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from delegate_job.job import Job, JobState
from delegate_job.output import colour_of
from delegate_job.rows import Row
from delegate_job.watch_rows import COLUMNS, CURSOR_MARK, WAITING_MARK, cells, line_of

_PLAIN = Style()
_TITLES = Style(bold=True, underline=True)


class JobTable(ScrollView, can_focus=True):
    """A table of any number of jobs, with a cursor that stays on its job when the order changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000000)", show=False),
        Binding("end", "move(1000000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """The user wants to see one job."""

        def __init__(self, job_id: str) -> None:
            super().__init__()
            self.job_id = job_id

    class Moved(Message):
        """The cursor is on another job."""

    def __init__(self, since: Callable[[Row], str]) -> None:
        super().__init__()
        self._since = since
        self._rows: Sequence[Row] = ()
        self._otherwise: Sequence[str] = ()
        self._cursor = 0

    @property
    def selected(self) -> Row | None:
        """The job under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[Row], *, otherwise: str) -> None:
        """Show these jobs in this order; the text `otherwise` where there are none."""
        here = self.selected
        self._otherwise = otherwise.split("\n")
        self._rows = rows
        kept = (number for number, row in enumerate(rows) if here and row.job.id == here.job.id)
        self._cursor = next(kept, min(self._cursor, max(len(rows) - 1, 0)))
        self.virtual_size = Size(0, len(rows) + 1)
        self._keep_in_sight()
        self.refresh()
        self.post_message(self.Moved())

    def select(self, job_id: str) -> None:
        """Put the cursor on a job, where it is shown."""
        for number, row in enumerate(self._rows):
            if row.job.id == job_id:
                self._go(number)

    def action_move(self, lines: int) -> None:
        """Move the cursor by so many lines."""
        self._go(self._cursor + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screens."""
        self._go(self._cursor + pages * max(self.size.height - 2, 1))

    def action_open(self) -> None:
        """Open the job under the cursor."""
        if self.selected:
            self.post_message(self.Opened(self.selected.job.id))

    def _go(self, number: int) -> None:
        self._cursor = max(0, min(number, len(self._rows) - 1))
        self._keep_in_sight()
        self.refresh()
        self.post_message(self.Moved())

    def _keep_in_sight(self) -> None:
        top, height = self.scroll_offset.y, max(self.size.height - 1, 1)
        if not top <= self._cursor < top + height:
            y = self._cursor if self._cursor < top else self._cursor - height + 1
            self.scroll_to(y=y, animate=False, immediate=True)

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen; the first is that of the titles, whatever is scrolled below it."""
        width = self.size.width
        if y == 0:
            titles = [column.title for column in COLUMNS]
            return Strip([Segment(line_of(titles, width), _TITLES)], width)
        if not self._rows:
            text = self._otherwise[y - 1] if y <= len(self._otherwise) else ""
            return Strip([Segment(text)]).adjust_cell_length(width, _PLAIN)
        number = self.scroll_offset.y + y - 1
        if number >= len(self._rows):
            return Strip.blank(width, _PLAIN)
        return self._job_line(number, width)

    def _job_line(self, number: int, width: int) -> Strip:
        row = self._rows[number]
        is_here = number == self._cursor
        waits = row.job.state is JobState.WAITING
        marks = (CURSOR_MARK if is_here else " ") + (WAITING_MARK if waits else " ")
        text = line_of(cells(row, self._since(row)), width, marks=marks)
        style = style_of(row.job) + Style(reverse=is_here, bold=waits)
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)


def style_of(job: Job) -> Style:
    """Return the style of a job's line: its state's colour, one of the terminal's own sixteen."""
    return Style(color=colour_of(job.state, job.outcome))
