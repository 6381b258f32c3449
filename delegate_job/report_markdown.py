"""A report as Markdown, for where a page cannot be opened: a step summary, a comment, a terminal.

Texts of others stand in code spans and fences alone, which they cannot end. No player, and no chart: a table.
"""

from collections.abc import Iterator

from delegate_job.changes import Changes
from delegate_job.markup import code, fenced
from delegate_job.report import Check, Excerpt, Report
from delegate_job.report_facts import check_title, event_rows, facts, headline, notes, stay_rows

_MOST_EVENTS = 200
_CUT = "\n*The rest is cut: it would be too long here.*\n"


def markdown(report: Report, *, limit: int | None = None) -> str:
    """Return the report; at most `limit` bytes in UTF-8: what comes last is left out, a part at a time."""
    parts = (_head, _timeline, _checks, _changes, _events, _prompt)
    text = ""
    for part in parts:
        added = "".join(f"{line}\n" for line in part(report))
        if limit is not None and len(f"{text}{added}{_CUT}".encode()) > limit:
            return text + _CUT if text else ""
        text += added
    return text


def _head(report: Report) -> Iterator[str]:
    yield f"# Job {code(report.job['id'])}: {headline(report)}\n"
    for note in notes(report):
        yield f"> {note}\n"
    yield from _table(("", ""), ((name, code(value)) for name, value in facts(report)))


def _timeline(report: Report) -> Iterator[str]:
    yield "\n## Timeline\n"
    yield from _table(("State", "From the start", "For"), stay_rows(report))


def _checks(report: Report) -> Iterator[str]:
    yield "\n## Checks\n"
    if not report.checks:
        yield "No check was run."
    for check in report.checks:
        yield from _check(check)


def _check(check: Check) -> Iterator[str]:
    yield f"### {check_title(check)}\n"
    yield from _excerpt(check.output, "Only the end of its output is shown.", "It printed nothing.")


def _excerpt(excerpt: Excerpt | None, cut: str, none: str) -> Iterator[str]:
    if excerpt is None or not excerpt.text:
        yield none
        return
    if excerpt.is_cut:
        yield f"{cut}\n"
    yield fenced(excerpt.text, "text")


def _changes(report: Report) -> Iterator[str]:
    changes = report.changes
    yield "\n## Changes\n"
    if changes.problem:
        yield f"Not known: {changes.problem}."
    elif not changes.files:
        yield "Nothing changed in the work dir."
    else:
        yield from _changed(changes)


def _changed(changes: Changes) -> Iterator[str]:
    rows = (
        (
            code(file.name) + (" (changed before the job, too)" if file.was_dirty else ""),
            "binary" if file.added is None else f"+{file.added}",
            "binary" if file.removed is None else f"-{file.removed}",
        )
        for file in changes.files
    )
    yield from _table(("File", "Added", "Removed"), rows)
    if changes.is_cut:
        yield "\nThe diff is cut."
    yield f"\n<details><summary>Diff</summary>\n\n{fenced(changes.diff, 'diff')}\n</details>"


def _events(report: Report) -> Iterator[str]:
    yield "\n## Events\n"
    rows = list(event_rows(report))
    cells = (
        (time, after, source, code(kind), applied, code(detail))
        for time, after, source, kind, applied, detail in rows[:_MOST_EVENTS]
    )
    yield from _table(("Time (UTC)", "After", "Source", "Event", "Applied", "Detail"), cells)
    if left := max(len(rows) - _MOST_EVENTS, 0) + report.left_out:
        yield f"\n{left} more are in `events.jsonl`."


def _prompt(report: Report) -> Iterator[str]:
    yield "\n## Prompt\n"
    none = "The prompt is not kept any more."
    yield from _excerpt(report.prompt, "Only its beginning is shown.", none)


def _table(names: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield _row(names)
    yield _row(("---",) * len(names))
    yield from map(_row, rows)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
