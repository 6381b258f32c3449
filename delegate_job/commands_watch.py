"""`watch`: all jobs live, or one; as lines, as JSON, or on a full screen, which is `watch_app`."""

import gc
import json
import os
import sys
from collections.abc import Callable

from delegate_job import following, starter
from delegate_job.commands import open_registry
from delegate_job.document import job_document
from delegate_job.errors import from_extra
from delegate_job.exit_codes import ExitCode
from delegate_job.output import agent_name, printable
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.times import local_time
from delegate_job.watch_rows import state_of, why


def watch(job: str | None, registry_dir: str | None, *, plain: bool, as_json: bool) -> int:
    """Show jobs, and what becomes of them, until the user has seen enough."""
    gc.enable()  # This one may run for days.
    with open_registry(registry_dir) as registry:
        job_id = None if job is None else registry.find(job).job.id
        if as_json:
            return _stream(registry, job_id, lambda row: _document_line(row, registry))
        if plain or not has_full_screen():
            _say_what_comes(registry, job_id)
            return _stream(registry, job_id, change_line)
        return _full_screen(registry, job_id)


def has_full_screen() -> bool:
    """Return whether there is a terminal on which anything can be drawn, with keys to press."""
    # Textual draws on stderr.
    is_terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    return is_terminal and os.environ.get("TERM", "dumb") != "dumb"


def _full_screen(registry: Registry, job_id: str | None) -> int:
    lines = "see lines with `delegate-job watch --plain`"
    with from_extra("tui", "textual", needs="the full screen of watch needs Textual", instead=lines):
        from delegate_job import watch_app
    return watch_app.run(registry, job_id)


def _stream(registry: Registry, job_id: str | None, line_of: Callable[[Row], str]) -> int:
    is_first = True
    for changes in following.follow(
        registry, job_id, lambda: starter.ensure_running_for_ownerless(registry, os.environ)
    ):
        for row in changes.rows:
            # What was over before is history: `list` has it.
            if not (is_first and row.job.done and job_id is None):
                print(line_of(row), flush=True)
        is_first = False
    return ExitCode.ACCEPTED


def _say_what_comes(registry: Registry, job_id: str | None) -> None:
    if job_id is None and not registry.unfinished():
        print(
            "no unfinished jobs; `delegate-job submit --prompt …` makes one, and its changes are shown here"
            " (Ctrl-C ends this)",
            file=sys.stderr,
            flush=True,
        )


def _document_line(row: Row, registry: Registry) -> str:
    return json.dumps(job_document(row, registry.paths), ensure_ascii=False)


def change_line(row: Row) -> str:
    """Return where a job stands now as one line; one that waits for a person says so loudly."""
    job = row.job
    said = why(job)
    agent = agent_name(job.spec.agent)
    last = printable(job.last_event or "registered")
    when = local_time(job.last_event_at or job.created_at)
    return f"{when} {job.id} {state_of(job):<11} {agent:<11} {last}{': ' if said else ''}{said}"
