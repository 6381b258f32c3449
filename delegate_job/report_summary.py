"""A job's report in the step summary of GitHub Actions, where there is one; a job never fails for it."""

import os

from delegate_job import report
from delegate_job.registry import Registry
from delegate_job.report_markdown import markdown

VARIABLE = "GITHUB_STEP_SUMMARY"
"""The file to which a step of GitHub Actions adds its Markdown."""
LIMIT = 1024 * 1024
"""Bytes of one step's summary (GitHub Actions, 2026): a larger one is not shown at all."""


def add_to_step_summary(registry: Registry, job_id: str) -> str | None:
    """Add a job's report to the step summary of GitHub Actions; return why that failed, if it did.

    Nothing happens where there is no such summary.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return _append_summary(registry, job_id, path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job has ended and its exit code stands
        return f"the report was not added to the step summary: {error}"


def _append_summary(registry: Registry, job_id: str, path: str) -> str | None:
    with open(path, "ab") as file:  # noqa: PTH123 - an empty name is an error of open, not of Path
        room = LIMIT - file.tell() - 1
        text = markdown(report.gather(registry, registry.row(job_id)), limit=max(room, 0))
        file.write(f"\n{text}".encode(errors="replace") if text else b"")
    return None if text else "the step summary is full: the report was not added"
