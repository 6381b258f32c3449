"""The full screen of one job: the timeline of its states, its events, the tail of its agent's screen.

It reads and draws; keys that act on the job are the app's.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Log

from delegate_job.client import log_entries
from delegate_job.document import owner_of
from delegate_job.output import agent_name, as_laid_out, event_line, printable
from delegate_job.rows import Row
from delegate_job.timeline import Phase
from delegate_job.times import in_one_unit, local_time, seconds_since
from delegate_job.tmux import Tmux
from delegate_job.watch_parts import Keys, Text
from delegate_job.watch_rows import state_of, why

if TYPE_CHECKING:
    from delegate_job.watch_app import WatchApp

KEYS = (
    ("a", "attach"),
    ("l", "logs"),
    ("y", "approve"),
    ("n", "deny"),
    ("t", "tell"),
    ("c", "cancel"),
    ("r", "retry"),
    ("Esc", "all jobs"),
    ("q", "quit"),
)
MOST_EVENTS = 5_000
"""Lines of events that are kept in sight; `logs` has all."""
CAPTURE_TIMEOUT = 2.0


class JobScreen(Screen[None]):
    """One job, until Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "back", show=False)]
    app: "WatchApp"

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id
        self._last = 0
        self._events = Log(max_lines=MOST_EVENTS, id="events")
        self._looking = False

    def compose(self) -> ComposeResult:
        """Make the parts, from above to below."""
        yield Text(id="head")
        yield Text(id="place")
        yield Text(id="timeline")
        yield Text("EVENTS", id="events-title")
        yield self._events
        yield Text("SCREEN", id="screen-title")
        yield Text(id="screen")
        yield Text(id="message")
        yield Keys(KEYS)

    def on_mount(self) -> None:
        """Show the job, and look at its screen from now on."""
        self.show()
        self._look_at_screen()
        self.set_interval(1.0, self._tick)

    def action_back(self) -> None:
        """Go back to all jobs."""
        self.app.pop_screen()

    def _tick(self) -> None:
        self._show_head()
        self._look_at_screen()

    def show(self) -> None:
        """Show what became of the job since the last time."""
        self._show_head()
        lines = []
        for document in log_entries(self.app.registry, self.job_id, after=self._last):
            self._last = document["sequence"]
            lines.append(event_line(document))
        if lines:
            self._events.write_lines(lines)

    def _show_head(self) -> None:
        row = self.app.jobs.get(self.job_id)
        if row is None:
            self.query_one("#head", Text).say(f"{self.job_id}  pruned: the registry has forgotten this job")
            return
        self.query_one("#head", Text).say(head_of(row))
        self.query_one("#place", Text).say(place_of(row, self._owner(row)))
        phases = self.app.timeline(row).phases
        self.query_one("#timeline", Text).say(timeline_text(phases, self.size.width or 80))

    def _owner(self, row: Row) -> str:
        if row.job.done:
            return ""
        owner = owner_of(row, self.app.registry.paths)
        return f"pid {owner['pid']}" if owner else "none: the process that owned it has ended"

    def _look_at_screen(self) -> None:
        if not self._looking:
            self._looking = True
            self.run_worker(self._capture, thread=True, exit_on_error=False)

    def _capture(self) -> None:
        text = capture(self.app.jobs.get(self.job_id))
        self.app.call_from_thread(self._show_screen, text)

    def _show_screen(self, lines: Sequence[str]) -> None:
        self._looking = False
        part = self.query_one("#screen", Text)
        height = max(part.size.height, 1)
        part.say("\n".join(lines[-height:]))


def capture(row: Row | None) -> list[str]:
    """Return the lines of the agent's screen, without empty ones at its end; one line where there is none."""
    if row is None or not row.job.spec.session:
        return ["(a person's job has no screen)"]
    if row.tmux_socket is None:
        return ["(not started yet)"]
    text = Tmux(socket=row.tmux_socket, timeout=CAPTURE_TIMEOUT).capture(row.job.spec.session)
    if text is None:
        return ["(the session is gone, or tmux does not answer; l shows what was recorded)"]
    # Of an empty part of the screen one line is enough: what is above it matters more.
    return [as_laid_out(line) for line in re.sub(r"\n\s*\n", "\n\n", text.strip("\n").rstrip()).split("\n")]


def head_of(row: Row) -> str:
    """Return id, agent, state and why, in one line."""
    job = row.job
    said = why(job)
    checks = f"checks {job.attempt}/{job.spec.attempts}"
    return f"{job.id}  {agent_name(job.spec.agent)}  {state_of(job)}  {checks}{'  ' if said else ''}{said}"


def place_of(row: Row, owner: str) -> str:
    """Return where it works, and who owns it."""
    owned = f"  owner {owner}" if owner else ""
    return f"in {printable(row.job.spec.workdir)}{owned}"


def timeline_text(phases: Sequence[Phase], width: int) -> str:
    """Return the newest phases, each with its beginning and length, in two lines at most."""
    texts = []
    for phase, following in zip(phases, [*phases[1:], None], strict=True):
        until = seconds_since(following.since) if following else 0.0
        lasted = "" if phase.outcome else f" {in_one_unit(max(seconds_since(phase.since) - until, 0))}"
        texts.append(f"{local_time(phase.since)} {phase.outcome or phase.state}{lasted}")
    return "\n".join(_last_lines(texts, width, most=2))


def _last_lines(texts: Sequence[str], width: int, *, most: int) -> list[str]:
    """Return the texts, joined by arrows, in lines that fit; only the last `most` of these."""
    lines = [""]
    for text in texts:
        joined = f"{lines[-1]} > {text}" if lines[-1] else text
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"> {text}")
    return lines[-most:]
