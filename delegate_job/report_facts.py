"""The words that every form of a report has in common: headline, facts, notes, rows of its tables.

All of it is plain text, some of it an agent's: each form escapes it in its own way.
"""

from collections.abc import Iterator
from typing import Any

from delegate_job.markup import one_line
from delegate_job.report import Check, Report
from delegate_job.times import in_two_units, since_1970

_MOST_DETAIL = 2000
"""Characters of an event's detail that are shown."""


def headline(report: Report) -> str:
    """Return how the job ended, or where it stands."""
    return str(report.job["outcome"] or report.job["state"])


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what is known of the job, a name and a value each."""
    job = report.job
    yield "State", f"{job['state']}: {job['outcome']}" if report.is_done else job["state"]
    names = {"reason": "Reason", "verdict": "Verdict of the check", "exit_code": "Exit code"}
    names |= {"detail": "The agent's last words", "agent": "Agent", "workdir": "Work dir"}
    for key, name in names.items():
        if job[key] is not None:
            yield name, one_line(str(job[key]), _MOST_DETAIL)
    yield "Checks", f"{job['attempt']} of {job['attempts']}"
    span = report.stays[-1].ended - report.stays[0].began
    yield "Took" if report.is_done else "For", in_two_units(span)
    for key, name in {"created_at": "Submitted", "ended_at": "Ended"}.items():
        if job[key] is not None:
            yield name, f"{job[key][:10]} {job[key][11:19]} UTC"
    for key, name in {"retry_of": "Retry of", "log_dir": "Log"}.items():
        if job[key] is not None:
            yield name, one_line(str(job[key]), _MOST_DETAIL)


def notes(report: Report) -> Iterator[str]:
    """Yield what a reader must know before they believe the rest."""
    if not report.is_done:
        yield f"The job is not done: this is how it stood at {report.made_at}."
    elif report.job["outcome"] == "accepted" and report.job["verdict"] is None:
        yield "No check was given: that the work is done is the agent's word."


def check_title(check: Check) -> str:
    """Return which check it was and what it said."""
    if check.verdict is None:
        return f"Check {check.attempt}: no verdict"
    code = "" if check.exit_code is None else f" (exit {check.exit_code})"
    return f"Check {check.attempt}: {check.verdict}{code}"


def stay_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield each stay in a state: the state, when it began after the submit, how long it lasted."""
    first = report.stays[0].began
    for stay in report.stays:
        yield stay.state, in_two_units(stay.began - first), in_two_units(stay.ended - stay.began)


def event_rows(report: Report) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield each event: time of day, time since the submit, source, kind, whether it was applied, detail."""
    first = report.stays[0].began
    for event in report.events:
        # When it was read: what an agent says of the time may be anything.
        stamp = event["received_at"]
        yield (
            stamp[11:19],
            in_two_units(max(since_1970(stamp) - first, 0.0)) if stamp else "",
            event["source"],
            one_line(event["kind"], 100),
            _applied(report, event),
            one_line(event["detail"] or "", _MOST_DETAIL),
        )


def _applied(report: Report, event: dict[str, Any]) -> str:
    if event["sequence"] is None:
        return "after the end" if report.is_done else "not yet read"
    return "yes" if event["applied"] else "no"
