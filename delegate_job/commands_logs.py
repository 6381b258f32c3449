"""`logs`: what happened to a job, as events, as reports, as its terminal or as its checks' output."""

import codecs
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from delegate_job import client, locks, starter
from delegate_job.commands import NO_JOBS, open_registry, to_stdout
from delegate_job.document import event_document
from delegate_job.exit_codes import ExitCode
from delegate_job.job import JobState
from delegate_job.output import event_line, harmless, print_json_array
from delegate_job.registry import Registry
from delegate_job.rows import Row, storable


def list_logs(registry_dir: str | None, *, as_json: bool) -> int:
    """Show the audit directories, newest job first."""
    with open_registry(registry_dir) as registry:
        found = ((row.job.id, row.job.spec.log_dir) for row in registry.rows())
        if as_json:
            print_json_array({"id": job_id, "log_dir": storable(log_dir)} for job_id, log_dir in found)
            return ExitCode.ACCEPTED
        job_id = None
        for job_id, log_dir in found:
            print(job_id, log_dir)
        if job_id is None:
            print(NO_JOBS, file=sys.stderr)
    return ExitCode.ACCEPTED


def logs(job: str, registry_dir: str | None, *, kind: str, follow: bool, as_json: bool) -> int:
    """Show one of a job's logs."""
    with open_registry(registry_dir) as registry:
        row = registry.find(job)
        if kind == "events":
            _show_events(registry, row, follow=follow, as_json=as_json)
        else:
            _show_log(registry, row, kind=kind, follow=follow, as_json=as_json)
    return ExitCode.ACCEPTED


def _show_events(registry: Registry, row: Row, *, follow: bool, as_json: bool) -> None:
    for document in _events(registry, row, follow=follow):
        print(json.dumps(document, ensure_ascii=False) if as_json else event_line(document), flush=True)
    row = registry.row(row.job.id)
    if not row.job.done and locks.is_held(registry.paths.job(row.job.id).lock):
        return  # What its owner has not read yet, it is about to record.
    when = "after the end" if row.job.done else "not yet read: the job has no owner"
    for event in client.late_reports(registry, row):
        document = event_document(event, sequence=None, applied=False)
        print(
            json.dumps(document, ensure_ascii=False) if as_json else f"{event_line(document)} [{when}]",
            flush=True,
        )


def _events(registry: Registry, row: Row, *, follow: bool) -> Iterator[dict[str, Any]]:
    last = 0
    while True:
        version, done = registry.data_version(), registry.row(row.job.id).job.done
        for document in client.log_entries(registry, row.job.id, after=last):
            last = document["sequence"]
            yield document
        if done or not follow:
            return
        starter.ensure_running_for_ownerless(registry, os.environ)
        client.await_change(registry, version, timeout=1.0)


def _show_log(registry: Registry, row: Row, *, kind: str, follow: bool, as_json: bool) -> None:
    paths = registry.paths.job(row.job.id)

    def done() -> bool:
        return not follow or registry.row(row.job.id).job.done

    if kind == "reports":
        _show_reports(client.report_lines(row, done), as_json=as_json)
    elif kind == "pane":
        _show_text(client.follow_file(paths.pane_log, done), {} if as_json else None)
    else:
        _show_validations(registry, row.job.id, follow=follow, as_json=as_json)


def _show_validations(registry: Registry, job_id: str, *, follow: bool, as_json: bool) -> None:
    """Show what each check has said; with `follow` as it says it, until the job is done."""
    paths, shown = registry.paths.job(job_id), 0

    def has_ended() -> bool:
        job = registry.row(job_id).job
        return not follow or job.attempt > shown or job.state is not JobState.CHECKING

    while True:
        version, job = registry.data_version(), registry.row(job_id).job
        if shown < job.attempt:
            shown += 1
            pieces = client.follow_file(paths.validation_log(shown), has_ended)
            _show_text(pieces, {"attempt": shown} if as_json else None)
        elif job.done or not follow:
            break
        else:
            starter.ensure_running_for_ownerless(registry, os.environ)
            client.await_change(registry, version, timeout=1.0)
    if not shown:
        print("no check has run", file=sys.stderr)


def _show_reports(lines: Iterator[bytes], *, as_json: bool) -> None:
    for line in lines:
        if not as_json or _is_object(line):
            _to_reader(line)


def _is_object(line: bytes) -> bool:
    # A line may be torn, or anything: an agent can write what it likes there.
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _show_text(pieces: Iterator[bytes], fields: dict[str, Any] | None) -> None:
    """Show pieces of a log as they are or, with `fields`, each as a JSON object with them and its `text`."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        if fields is None:
            _to_reader(piece)
        elif text := decoder.decode(piece):
            print(json.dumps({**fields, "text": text}, ensure_ascii=False), flush=True)


def _to_reader(piece: bytes) -> None:
    to_stdout(harmless(piece) if sys.stdout.isatty() else piece)
