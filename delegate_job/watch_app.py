"""The full screen of `watch`: all jobs, those that wait for a person first, and keys that act on them.

It reads the registry and owns nothing; what a key asks for is done by a command of ours, in the background.
"""

import asyncio
import os
import signal
import subprocess
import time
from functools import partial
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from delegate_job import answering, client, own_session, starter
from delegate_job.exit_codes import ExitCode
from delegate_job.following import TAKE_OVER_EVERY, Follower
from delegate_job.job import JobState
from delegate_job.output import printable
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.timeline import Timeline
from delegate_job.watch_all import AllJobs
from delegate_job.watch_job import JobScreen
from delegate_job.watch_log import LogScreen
from delegate_job.watch_parts import Ask, Line, Text
from delegate_job.watch_rows import state_of, why

MESSAGE_FOR = 20.0
"""Seconds for which it is shown what became of that."""


class WatchApp(App[int]):
    """The application. `registry` is read in its own thread alone; commands run as processes."""

    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; }
    JobTable { height: 1fr; background: ansi_default; }
    Log { background: ansi_default; color: ansi_default; height: 1fr; }
    #head { text-style: bold; }
    #events-title, #screen-title { text-style: bold underline; width: 100%; }
    #screen { height: 1fr; }
    #why { text-wrap: wrap; max-height: 2; }
    #message { text-style: bold; }
    #filter { background: ansi_default; color: ansi_default; }
    ModalScreen { align: center middle; background: ansi_default; }
    .box { width: 90%; max-width: 100; height: auto; border: round ansi_default; padding: 1 2;
           background: ansi_default; }
    .box Static { margin-bottom: 1; height: auto; }
    .box Input { margin-bottom: 1; background: ansi_default; color: ansi_default; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attach", show=False),
        Binding("l", "logs", show=False),
        Binding("y", "approve", show=False),
        Binding("n", "deny", show=False),
        Binding("t", "tell", show=False),
        Binding("c", "cancel", show=False),
        Binding("r", "retry", show=False),
        Binding("q", "leave(0)", show=False),
        Binding("ctrl+c", "leave(130)", show=False, priority=True),
    ]

    def __init__(self, registry: Registry, job_id: str | None = None) -> None:
        # Textual takes NO_COLOR away from the environment, and an empty one for a wish.
        self._environ = dict(os.environ)
        if not os.environ.get("NO_COLOR"):
            os.environ.pop("NO_COLOR", None)
        super().__init__(ansi_color=True)
        self.registry = registry
        self.jobs: dict[str, Row] = {}
        self.fault: Exception | None = None
        """What ended the application, if anything did."""
        self._first = job_id
        self._follower = Follower(registry)
        self._timelines: dict[str, Timeline] = {}
        self._all = AllJobs(self.since)
        self._is_starting = False
        self._messages = 0

    # -- what is there

    def on_mount(self) -> None:
        """Read the registry, show it, and go on with it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit, 128 + number)
        self._read()
        self.push_screen(self._all)
        if self._first:
            self._all.table.select(self._first)
            self.push_screen(JobScreen(self._first))
        self._look_later(0.0)
        self.set_interval(TAKE_OVER_EVERY, self._see_to_owners)

    def _read(self) -> bool:
        changes = self._follower.look()
        if changes is None:
            return False
        self.jobs |= {row.job.id: row for row in changes.rows}
        for job_id in changes.forgotten:
            self.jobs.pop(job_id, None)
            self._timelines.pop(job_id, None)
        return bool(changes.rows or changes.forgotten)

    def _look(self) -> None:
        began = time.monotonic()
        if self._read():
            for screen in self.screen_stack:
                if isinstance(screen, AllJobs | JobScreen) and screen.is_mounted:
                    screen.show()
        self._look_later(time.monotonic() - began)

    def _look_later(self, took: float) -> None:
        """Look again soon; where a look takes long, for tens of thousands of jobs, keys come first."""
        self.set_timer(max(client.LOOK_EVERY, 4 * took), self._look)

    def _see_to_owners(self) -> None:
        if not self._is_starting and starter.is_needed(self.registry):
            self._is_starting = True
            self.run_worker(self._start_supervisor, thread=True, exit_on_error=False)

    def _start_supervisor(self) -> None:
        try:
            starter.ensure_running(self.registry.paths, self._environ)
        finally:
            self._is_starting = False

    def timeline(self, row: Row) -> Timeline:
        """Return through which states a job went."""
        job_id = row.job.id
        if job_id not in self._timelines:
            self._timelines[job_id] = Timeline(row.job.spec, row.job.created_at)
        timeline = self._timelines[job_id]
        if timeline.sequence < row.sequence:
            timeline.take(self.registry.events(job_id, after=timeline.sequence))
        return timeline

    def since(self, row: Row) -> str:
        """Return when the state began that a job is in."""
        return row.job.ended_at or self.timeline(row).phases[-1].since

    @property
    def chosen(self) -> Row | None:
        """The job that a key means: that of the screen, or the one under the cursor."""
        if isinstance(self.screen, JobScreen | LogScreen):
            return self.jobs.get(self.screen.job_id)
        return self._all.table.selected

    # -- what the keys do

    def action_leave(self, code: int) -> None:
        """End."""
        self.exit(code)

    def action_logs(self) -> None:
        """Read the job's logs."""
        if self.chosen:
            self.push_screen(LogScreen(self.chosen.job.id))

    def action_attach(self) -> None:
        """Leave the terminal to the job's session until the user detaches."""
        row = self.chosen
        if row is None:
            return
        with self.suspend():
            done = subprocess.run(
                self._argv("attach", row.job.id),
                stderr=subprocess.PIPE,
                check=False,
                env=self._environ,
            )
        if done.returncode:
            self.tell(_said(b"", done.stderr))
        self.refresh(layout=True)

    def action_approve(self) -> None:
        """Grant what the agent asks for, after a look at what that is."""
        row = self.chosen
        if row:
            self._ask(f"Approve what job {row.job.id} asks for?", row, "approve")

    def action_deny(self) -> None:
        """Refuse it, with a reason if there is one."""
        row = self.chosen
        if row:
            job_id = row.job.id

            def typed(reason: str | None) -> None:
                if reason is not None:
                    self._do("deny", *([f"--reason={reason}"] if reason.strip() else []), job_id)

            question = f"Deny what job {job_id} asks for. A reason for the agent, or nothing:"
            self.push_screen(Line(question, self._asked(row), may_be_empty=True), typed)

    def action_tell(self) -> None:
        """Answer a job's question, or say more to one that works."""
        row = self.chosen
        if row:
            job_id, how = row.job.id, "answer" if row.job.state is JobState.WAITING else "send"

            def typed(text: str | None) -> None:
                if text is not None:
                    self._do(how, "--", job_id, text)

            self.push_screen(Line(f"Tell job {job_id}:", self._asked(row)), typed)

    def action_cancel(self) -> None:
        """End a job, after a question."""
        row = self.chosen
        if row and row.job.done:
            self.tell(f"job {row.job.id} is done")
        elif row:
            self._ask(f"Cancel job {row.job.id} and end its agent?", row, "cancel")

    def action_retry(self) -> None:
        """Run a finished job again, in the background."""
        row = self.chosen
        if row and not row.job.done:
            self.tell(f"job {row.job.id} is not done yet: it is {row.job.state}")
        elif row:
            self._do("retry", "--detach", row.job.id)

    def _ask(self, question: str, row: Row, command: str) -> None:
        def answered(yes: bool | None) -> None:  # noqa: FBT001 - Textual's form of a callback
            if yes:
                self._do(command, row.job.id)

        self.push_screen(Ask(question, f"{state_of(row.job)}: {self._asked(row)}"), answered)

    def _asked(self, row: Row) -> str:
        """Return what an answer would be to: of several dialogs the oldest, where the row has the newest."""
        what = answering.asked(self.registry, row)
        return printable(what) if what else why(row.job)

    def _do(self, command: str, *words: str) -> None:
        self.tell(f"{command} …")
        self.run_worker(lambda: self._run_command(command, *words), thread=True, exit_on_error=False)

    def _run_command(self, command: str, *words: str) -> None:
        limit = starter.time_limit(command)
        try:
            done = own_session.run(self._argv(command, *words), env=self._environ, timeout=limit)
            said = _said(done.stdout, done.stderr)
        except subprocess.TimeoutExpired:
            said = f"{command} took more than {limit:g} s"
        self.call_from_thread(self.tell, f"{command}: {said}")

    def _argv(self, command: str, *words: str) -> list[str]:
        return starter.own_argv(self.registry.paths, command, *words)

    def tell(self, text: str) -> None:
        """Say in one line what became of something, for a while."""
        self._messages += 1
        self._show_message(text)
        self.set_timer(MESSAGE_FOR, partial(self._forget_message, self._messages))

    def _forget_message(self, number: int) -> None:
        if number == self._messages:
            self._show_message("")

    def _show_message(self, text: str) -> None:
        for screen in self.screen_stack:
            try:
                screen.query_one("#message", Text).say(text)
            except NoMatches:
                continue

    def _handle_exception(self, error: Exception) -> None:
        """End, and leave it to `__main__` to say what was wrong; Textual would print a traceback."""
        self.fault = self.fault or error
        self._exception = self.fault
        self.exit(ExitCode.INTERNAL)


def _said(stdout: bytes, stderr: bytes) -> str:
    """Return what a command said, in one line: its result, or its error and the hint."""
    lines = (stderr or stdout).decode(errors="replace").splitlines()
    return printable("; ".join(lines[:2]) if stderr else "".join(lines[:1]))


def run(registry: Registry, job_id: str | None) -> int:
    """Show the full screen until the user leaves it; raise what ended it otherwise."""
    app = WatchApp(registry, job_id)
    code = app.run()
    if app.fault is not None:
        raise app.fault
    return ExitCode.ACCEPTED if code is None else code
