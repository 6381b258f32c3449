"""`delegate-job publish`: append one report to the job's file, then announce it over MQTT.

It never opens the registry's database and never decides what a report is worth; both are the owner's.
"""

# This is called at every step an agent takes, so it imports nothing that paho does not need anyway: no typer,
# argparse, dataclasses or pathlib, and paho itself only once the report is on the disk (docs/performance.md).
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from delegate_job import journal, mqtt
from delegate_job.audit import AuditDir

KINDS = ("started", "progress", "permission_required", "resumed", "completed", "error")
"""`events.REPORTED_BY_HAND`, written out: its module costs 6 ms to import. A test holds them equal."""
REPORTS = "reports.jsonl"
"""The file in the audit directory that holds what was claimed."""
TIMEOUT = 2.0
"""Seconds for the MQTT part."""

HELP = """\
usage: delegate-job publish --event KIND [--detail TEXT] [--job ID]

Report what happens to a job: one line in its reports.jsonl, then one retained
MQTT message. A job's own processes know their job; elsewhere name it.

  --event KIND        started, progress, permission_required, resumed, completed
                      or error; the last two end the agent's part of the job
  --detail TEXT       what to say about it, up to 64 KB; - reads standard input
  --job ID            the job's id, a unique beginning of it, or @last
  --registry-dir DIR  where jobs are kept
  --timeout SECONDS   for the MQTT part (2); the line in the file comes first
  --json              print one JSON object
  -h, --help          print this

Prints "recorded and sent", "recorded, not sent (reason)" or "sent, not recorded
(reason)": exit code 0. When it was neither recorded nor sent: 2.

example: delegate-job publish --event progress --detail "3 of 7 modules done"
"""


class Options(NamedTuple):
    """The command line of `publish`."""

    event: str
    detail: str | None = None
    job: str | None = None
    registry_dir: str | None = None
    timeout: float = TIMEOUT
    as_json: bool = False


class Target(NamedTuple):
    """The job to report for. Without a `connection`, `problem` says why there is none."""

    job_id: str
    log_dir: str
    connection: mqtt.Connection | None
    problem: str = ""


class Report(NamedTuple):
    """What came of a report. A reason is empty where there is nothing to explain."""

    event: Mapping[str, Any]
    recorded: bool
    sent: bool
    not_recorded: str
    not_sent: str

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        if self.recorded and self.sent:
            return "recorded and sent"
        if self.recorded:
            return f"recorded, not sent ({self.not_sent})"
        if self.sent:
            return f"sent, not recorded ({self.not_recorded})"
        return f"neither recorded ({self.not_recorded}) nor sent ({self.not_sent})"


def main(argv: list[str]) -> int:
    """Run `publish` with the arguments behind its name and return the exit code.

    UsageError for a command line that cannot be meant, DelegateJobError when the report got nowhere.
    """
    if _wants_help(argv):
        _print(HELP.rstrip())
        return 0
    options = parse(argv)
    detail = _read_stdin() if options.detail == "-" else options.detail
    target = find_target(options, os.environ)
    done = report(target, options.event, detail, deadline=time.monotonic() + options.timeout)
    if options.as_json:
        _print(json.dumps(_as_json(target, done)))
    elif done.recorded or done.sent:
        _print(done.summary)
    if not (done.recorded or done.sent):
        from delegate_job.errors import DelegateJobError

        raise DelegateJobError(
            f"the report was {done.summary}", hint="say so to whoever gave you the task: nobody was told"
        )
    return 0


def report(
    target: Target,
    kind: str,
    detail: str | None = None,
    data: dict[str, Any] | None = None,
    *,
    deadline: float,
) -> Report:
    """Record a new event in the job's file, then announce it until `deadline` (on the monotonic clock)."""
    event = journal.new_event(target.job_id, kind, detail, data)
    line = journal.encode(event)
    not_recorded = _record(target.log_dir, target.job_id, line)
    not_sent = _send(target, mqtt.report_topic(target.job_id, kind), line.strip(), deadline)
    return Report(event, not not_recorded, not not_sent, not_recorded, not_sent)


def _record(log_dir: str, job_id: str, line: bytes) -> str:
    # A path from the environment: a directory of another name is not ours to make right, or to write into.
    if log_dir.rstrip("/").rpartition("/")[2] != job_id:
        return "its log directory is not named like the job"
    try:
        AuditDir.at(log_dir).append_line(REPORTS, line)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _send(target: Target, topic: str, payload: bytes, deadline: float) -> str:
    connection = target.connection
    if connection is None or connection.broker is None:
        return target.problem or "the job has no broker"
    result = mqtt.publish_once(
        connection.broker,
        [(topic, payload)],
        budget=deadline - time.monotonic(),
        unix_socket=connection.unix_socket,
    )
    return "" if result.ok else result.reason


def find_target(options: Options, environ: Mapping[str, str]) -> Target:
    """Return the job that is meant: the process's own, or the one that `--job` names.

    UsageError when there is none, or when a job's process names another job; UnknownJobError when the
    registry has no such job, or more than one.
    """
    own, log_dir, named = environ.get("DELEGATE_JOB_ID"), environ.get("DELEGATE_JOB_DIR"), options.job
    if not own:
        if named is None:
            _refuse("no job is named", "say which one with --job ID; `delegate-job list` shows them")
        return _registered(named, options.registry_dir, environ)
    if named == "@last":
        named = _registered(named, options.registry_dir, environ).job_id
    if named is not None and not (named and own.startswith(named)):
        _refuse(
            f"this process belongs to job {own} and cannot report for {named}",
            "leave --job out to report for its own job",
        )
    if not log_dir:
        return _registered(own, options.registry_dir, environ)
    return Target(own, log_dir, *_connection(environ.get("DELEGATE_JOB_CONNECTION", ""), own))


def _connection(path: str, job_id: str) -> tuple[mqtt.Connection | None, str]:
    try:
        connection = mqtt.read_connection(path)
    except OSError as error:
        return None, f"connection.json: {(error.strerror or str(error)).lower()}"
    except ValueError:
        return None, "connection.json cannot be understood"
    return (connection, "") if connection.job_id == job_id else (None, "connection.json is another job's")


def _registered(name: str, registry_dir: str | None, environ: Mapping[str, str]) -> Target:
    from pathlib import Path

    from delegate_job.errors import UnknownJobError
    from delegate_job.paths import RegistryPaths, absolute, default_registry

    chosen = registry_dir or environ.get("DELEGATE_JOB_REGISTRY_DIR")
    paths = RegistryPaths(Path(absolute(chosen)) if chosen else default_registry())
    job_id = _newest(os.fspath(paths.jobs)) if name == "@last" else _matching(os.fspath(paths.jobs), name)
    connection, problem = _connection(os.fspath(paths.job(job_id).connection), job_id)
    if connection is None:
        raise UnknownJobError(f"job {job_id} cannot be reported for: {problem}")
    return Target(job_id, connection.log_dir, connection)


def _job_ids(jobs: str) -> list[str]:
    try:
        return os.listdir(jobs)  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return []


def _matching(jobs: str, name: str) -> str:
    from delegate_job.errors import UnknownJobError

    known = _job_ids(jobs)
    found = [name] if name in known else [job_id for job_id in known if name and job_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise UnknownJobError.of(name, found)


def _newest(jobs: str) -> str:
    from delegate_job.errors import UnknownJobError

    def made() -> Iterator[tuple[int, str]]:
        for job_id in _job_ids(jobs):
            try:
                yield os.stat(f"{jobs}/{job_id}/lock").st_mtime_ns, job_id  # noqa: PTH116 - as in _job_ids
            except OSError:
                continue

    newest = max(made(), default=None)
    if newest is None:
        raise UnknownJobError.of("@last", [])
    return newest[1]


def _wants_help(argv: list[str]) -> bool:
    """Say whether help is asked for; as the value of an option it is somebody's text."""
    rest = iter(argv)
    for argument in rest:
        if argument in {"-h", "--help"}:
            return True
        if argument in _OPTIONS and argument != "--json":
            next(rest, None)
    return False


def parse(argv: list[str]) -> Options:
    """Return what the arguments say; UsageError, with the nearest name as a hint, for what they cannot."""
    values: dict[str, str] = {}
    rest = iter(argv)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name not in _OPTIONS:
            _refuse_unknown("option" if name.startswith("-") else "argument", name, list(_OPTIONS))
        if name == "--json" and equals:
            _refuse("--json takes no value")
        if name != "--json" and not equals and (value := next(rest, "\0")) == "\0":
            _refuse(f"{name} needs a value")
        values[name] = value
    event = values.get("--event")
    if event is None:
        _refuse("--event is missing", f"it is one of {', '.join(KINDS)}")
    if event not in KINDS:
        _refuse_unknown("event", event, list(KINDS))
    return Options(
        event=event,
        detail=values.get("--detail"),
        job=values.get("--job"),
        registry_dir=values.get("--registry-dir"),
        timeout=_seconds(values.get("--timeout")),
        as_json="--json" in values,
    )


_OPTIONS = ("--event", "--detail", "--job", "--registry-dir", "--timeout", "--json")


def _seconds(text: str | None) -> float:
    if text is None:
        return TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600 or math.isnan(seconds):
        _refuse(f"--timeout is a number of seconds from 0 to 3600, not {text!r}")
    return seconds


def _refuse(message: str, hint: str | None = None) -> NoReturn:
    from delegate_job.errors import UsageError

    raise UsageError(message, hint=hint or "`delegate-job publish --help` shows what there is")


def _refuse_unknown(what: str, name: str, known: list[str]) -> NoReturn:
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    _refuse(f"there is no {what} {name!r}", f"did you mean {nearest[0]}?" if nearest else None)


def _read_stdin() -> str:
    if sys.stdin is None:
        _refuse("--detail - reads standard input, which is closed")
    # One byte more than is kept, so that the cut is noticed and marked.
    return sys.stdin.buffer.read(journal.MAX_DETAIL + 1).decode(errors="replace")


def _as_json(target: Target, done: Report) -> dict[str, Any]:
    return {
        "job_id": target.job_id,
        "event": done.event["kind"],
        "id": done.event["id"],
        "recorded": done.recorded,
        "sent": done.sent,
        "reason": done.not_recorded or done.not_sent or None,
    }


def _print(text: str) -> None:
    """Print a line; that nobody reads it changes nothing about the report."""
    if sys.stdout is None:
        return
    try:
        print(text, flush=True)  # noqa: T201 - this is the command's answer
    except OSError:
        # Else the interpreter tries again when it ends, complains, and exits with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
