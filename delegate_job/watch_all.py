"""The full screen of all jobs: the table, a filter, and all of the job under the cursor. Not what keys do."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from delegate_job.rows import Row
from delegate_job.watch_job import JobScreen
from delegate_job.watch_parts import Keys, Text
from delegate_job.watch_rows import counts, in_order, matches, state_of, why
from delegate_job.watch_table import JobTable

if TYPE_CHECKING:
    from delegate_job.watch_app import WatchApp

KEYS = (
    ("Enter", "job"),
    ("a", "attach"),
    ("l", "logs"),
    ("y", "approve"),
    ("n", "deny"),
    ("t", "tell"),
    ("c", "cancel"),
    ("r", "retry"),
    ("/", "filter"),
    ("q", "quit"),
)
NO_JOBS = """
No jobs yet. In another terminal:

    delegate-job submit --prompt "…"

It will be shown here at once."""
NO_FILTER = "no filter"
NO_MATCH = "\nNo job matches the filter. Esc ends it."


class AllJobs(Screen[None]):
    """All jobs, with a filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", show=False),
        Binding("escape", "unfilter", show=False),
    ]
    app: "WatchApp"

    def __init__(self, since: Callable[[Row], str]) -> None:
        super().__init__()
        self.table = JobTable(since)
        self.filter = Input(placeholder=NO_FILTER, compact=True, id="filter")

    def compose(self) -> ComposeResult:
        """Make the parts, from above to below."""
        yield Text(id="head")
        yield self.table
        yield Text(id="why")
        yield Text(id="message")
        yield self.filter
        yield Keys(KEYS)

    def on_mount(self) -> None:
        """Show what is there."""
        self.table.focus()
        self.show()
        # Ages and times grow, also where nothing happens.
        self.set_interval(1.0, self.table.refresh)

    def show(self) -> None:
        """Show the jobs that the filter lets through."""
        words = self.filter.value.casefold().split()
        rows = in_order(row for row in self.app.jobs.values() if matches(row, words))
        self.table.show(rows, otherwise=NO_MATCH if self.app.jobs else NO_JOBS)
        self._show_head()

    def _show_head(self) -> None:
        filtered = f'   filter: "{self.filter.value}"' if self.filter.value else ""
        self.query_one("#head", Text).say(f"delegate-job   {counts(self.app.jobs.values())}{filtered}")

    def on_job_table_moved(self) -> None:
        """Say all of the job under the cursor that its line has no room for."""
        row = self.table.selected
        said = f"{row.job.id} {state_of(row.job)}: {why(row.job)}" if row else ""
        self.query_one("#why", Text).say(said)

    def on_job_table_opened(self, event: JobTable.Opened) -> None:
        """Show one job."""
        self.app.push_screen(JobScreen(event.job_id))

    def action_filter(self) -> None:
        """Let words be typed."""
        # At once, and not a moment later as by its `focus`: the next key is a letter already.
        self.set_focus(self.filter)
        self.filter.placeholder = "words that must stand in a job's line"

    def action_unfilter(self) -> None:
        """Show all again."""
        self.filter.value = ""
        self.on_input_submitted()

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self.show()

    def on_input_submitted(self) -> None:
        """Keep the filter and go back to the jobs."""
        self.set_focus(self.table)
        self.filter.placeholder = NO_FILTER
