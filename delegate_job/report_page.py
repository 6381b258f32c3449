"""A report as one HTML page that needs nothing else: style, player and recording are in it.

Nothing that an agent wrote becomes markup or script: texts go through `markup`, the recording is data, and
by the page's own policy nothing is fetched and only two scripts run, which are known by their hash.
"""

import base64
import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path

from delegate_job import __version__
from delegate_job.cast import Cast
from delegate_job.changes import Changes, FileChange
from delegate_job.events import CLAIMS
from delegate_job.markup import Content, Html, element, joined, one_line, raw
from delegate_job.report import Check, Excerpt, Report
from delegate_job.report_chart import chart
from delegate_job.report_facts import check_title, event_rows, facts, headline, notes, stay_rows
from delegate_job.times import in_two_units

_OWN = Path(__file__).parent / "report_assets"
_PLAYER = Path(__file__).parent / "vendor/asciinema-player"
_MOST_FILES = 1000
_LONGEST_DIFF_LINE = 2000
_LONGEST_PAUSE = 2.0
"""Seconds, as in report.js."""


def page(report: Report) -> str:
    """Return the whole page."""
    scripts = [_file(_PLAYER / "asciinema-player.min.js"), _file(_OWN / "report.js")] if report.cast else []
    styles = [_file(_PLAYER / "asciinema-player.css")] if report.cast else []
    styles.append(_file(_OWN / "report.css"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts, styles)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{headline(report)}: job {report.job['id']}"),
        [element("style", raw(style)) for style in styles],
    )
    body = element("body", _main(report), [element("script", raw(script)) for script in scripts])
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _policy(scripts: list[str], styles: list[str]) -> str:
    """Return a policy in which nothing is fetched, and only what we put in runs.

    The player compiles its terminal from WebAssembly that stands in it, and has its icons as data.
    """
    allowed = " ".join([*map(_hash, scripts), "'wasm-unsafe-eval'"]) if scripts else "'none'"
    style = " ".join(map(_hash, styles))
    rest = "img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; style-src {style}; {rest}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _main(report: Report) -> Html:
    sections = (
        _section("prompt", "Prompt", _prompt(report)),
        _section("timeline", "Timeline", _timeline(report)),
        _section("session", "Session", _session(report.cast)),
        _section("changes", "Changes", _changes(report.changes)),
        _section(
            "checks", "Checks", [_check(check) for check in report.checks] or _none("No check was run.")
        ),
        _section("events", "Events", _events(report)),
    )
    links = [element("a", name, href=f"#{anchor}") for anchor, name, _ in sections]
    return joined(
        _header(report),
        element("nav", links, aria_label="Parts of this report"),
        element("main", [section for _, _, section in sections]),
        element("footer", f"Made by delegate-job {__version__} at {report.made_at}"),
    )


def _section(anchor: str, name: str, content: Content) -> tuple[str, str, Html]:
    heading = element("h2", name, id=f"{anchor}-title")
    return anchor, name, element("section", heading, content, id=anchor, aria_labelledby=f"{anchor}-title")


def _header(report: Report) -> Html:
    outcome = headline(report)
    badge = element("span", outcome, class_=f"badge {outcome}")
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in facts(report)]
    return element(
        "header",
        element("h1", "Job ", element("code", report.job["id"]), " ", badge),
        [element("p", note, class_="note") for note in notes(report)],
        element("dl", rows),
    )


def _none(text: str) -> Html:
    return element("p", text, class_="none")


def _text(excerpt: Excerpt, cut: str) -> Html:
    note = element("p", cut, class_="note") if excerpt.is_cut else None
    return joined(note, element("pre", excerpt.text, tabindex="0"))


def _prompt(report: Report) -> Html:
    if report.prompt is None:
        return _none("The prompt is not kept any more.")
    return _text(report.prompt, "Only its beginning is shown.")


def _timeline(report: Report) -> Html:
    names = ("State", "From the start", "For")
    return joined(
        element("figure", chart(report), element("figcaption", "Dots: events that changed the job.")),
        _table("The same as numbers", names, stay_rows(report)),
    )


def _table(caption: str, names: tuple[str, ...], rows: Iterable[Iterable[Content]]) -> Html:
    head = element("tr", [element("th", name, scope="col") for name in names])
    body = [element("tr", [element("td", cell) for cell in row]) for row in rows]
    table = element("table", element("caption", caption), element("thead", head), element("tbody", body))
    # A region that can be scrolled must be reached by keyboard.
    return element("div", table, class_="wide", tabindex="0", role="region", aria_label=caption)


def _session(cast: Cast | None) -> Html:
    if cast is None:
        return _none("No recording of the terminal was kept.")
    # mtime: the same recording gives the same page.
    packed = base64.b64encode(gzip.compress(cast.text().encode(), mtime=0)).decode()
    length = f"The agent's terminal, {in_two_units(cast.seconds)}"
    return joined(
        element("p", f"{length}; pauses are shortened to {_LONGEST_PAUSE:g} s."),
        element("p", "The recording ends at its limit, before the session did.", class_="note")
        if cast.is_cut
        else None,
        element(
            "div", element("div", id="player", class_="player", data_poster=_poster(cast)), class_="wide"
        ),
        element("p", "The player needs JavaScript.", id="no-player", class_="none"),
        element("script", packed, type="application/octet-stream", id="recording"),
    )


def _poster(cast: Cast) -> str:
    """Return the second that is shown before it is played: the last claim, as a program's end clears much."""
    claims = [moment.at for moment in cast.moments if moment.kind == "m" and moment.text in CLAIMS]
    return f"{cast.shortened(claims[-1] if claims else cast.seconds, longest=_LONGEST_PAUSE):.3f}"


def _changes(changes: Changes) -> Html:
    if changes.problem:
        return _none(f"Not known: {changes.problem}.")
    if not changes.files:
        return _none("Nothing changed in the work dir.")
    since = f"since commit {changes.commit[:12]}" if changes.commit else "since before the first commit"
    older = any(file.was_dirty for file in changes.files)
    return joined(
        element("p", f"In the work dir {since}."),
        element("p", "Files marked as older had changes before the job.", class_="note") if older else None,
        element("p", "Which files had changes before the job is not known.", class_="note")
        if changes.dirty is None
        else None,
        element("p", f"Only the first {_MOST_FILES} files are in the table.", class_="note")
        if len(changes.files) > _MOST_FILES
        else None,
        _table("Changed files", ("File", "Added", "Removed"), map(_file_row, changes.files[:_MOST_FILES])),
        element("details", element("summary", "Diff"), _diff(changes), open="open"),
    )


def _file_row(file: FileChange) -> list[Content]:
    older = element("span", " older", class_="older") if file.was_dirty else None
    if file.added is None:
        return [joined(element("code", one_line(file.name)), older), "binary", "binary"]
    return [joined(element("code", one_line(file.name)), older), f"+{file.added}", f"-{file.removed}"]


def _diff(changes: Changes) -> Html:
    lines = [_diff_line(line) for line in changes.diff.splitlines()]
    cut = element("p", "The diff is cut.", class_="note") if changes.is_cut else None
    return joined(element("pre", lines, class_="diff", tabindex="0"), cut)


def _diff_line(line: str) -> Html:
    kind = {"+": "added", "-": "removed", "@": "hunk", "d": "file"}.get(line[:1])
    if line.startswith(("+++", "---", "index ", "new file", "deleted file")):
        kind = "meta"
    return element("span", f"{line[:_LONGEST_DIFF_LINE]}\n", class_=kind)


def _check(check: Check) -> Html:
    output = check.output
    shown = (
        _text(output, "Only its end is shown.") if output and output.text else _none("It printed nothing.")
    )
    return joined(element("h3", check_title(check)), shown)


def _events(report: Report) -> Html:
    left = f"{report.left_out} more are in events.jsonl." if report.left_out else None
    names = ("Time", "After", "Source", "Event", "Applied", "Detail")
    table = _table("Times are in UTC", names, event_rows(report))
    return joined(table, element("p", left, class_="note") if left else None)
