"""`report`: a job as a page or as Markdown, in a file or on stdout. Not what stands in it."""

import contextlib
import os
import stat
import sys
from pathlib import Path

from delegate_job import report
from delegate_job.commands import open_registry, to_stdout
from delegate_job.errors import DelegateJobError, UsageError
from delegate_job.exit_codes import ExitCode
from delegate_job.output import print_json
from delegate_job.paths import write_new
from delegate_job.registry import Registry
from delegate_job.rows import storable


class NotWrittenError(DelegateJobError):
    """The report could not be written."""

    exit_code = ExitCode.INTERNAL


def report_job(
    job: str, registry_dir: str | None, *, output: str | None, as_markdown: bool, as_json: bool
) -> int:
    """Write a job's report and say where it is."""
    to_standard_output = output == "-" or (output is None and as_markdown)
    if to_standard_output and as_json:
        raise UsageError("--json and a report on stdout exclude each other", hint="name a file with --output")
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        text = _made(registry, row.job.id, as_markdown=as_markdown)
    data = text.encode(errors="replace")
    if to_standard_output:
        to_stdout(data)
        return ExitCode.ACCEPTED
    path = os.path.abspath(output or f"report-{row.job.id}.html")  # noqa: PTH100 - pathlib drops a leading "./"
    _write(path, data)
    if as_json:
        print_json({"path": storable(path)})
    else:
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    return ExitCode.ACCEPTED


def _made(registry: Registry, job_id: str, *, as_markdown: bool) -> str:
    found = report.gather(registry, registry.row(job_id))
    if as_markdown:
        from delegate_job.report_markdown import markdown

        return markdown(found)
    from delegate_job.report_page import page

    return page(found)


def _write(path: str, data: bytes) -> None:
    """Put a file in its place in one step, 0600; in an agent's directory a link is replaced, not followed."""
    partial = f"{path}.{os.urandom(4).hex()}.partial"
    try:
        if _is_device(path):
            Path(path).write_bytes(data)
            return
        write_new(Path(partial), data)
        os.replace(partial, path)  # noqa: PTH105 - a text of any bytes
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)  # noqa: PTH108 - as above
        hint = "name another with --output FILE"
        raise NotWrittenError(
            f"the report cannot be written to {path}: {error.strerror}", hint=hint
        ) from error


def _is_device(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
