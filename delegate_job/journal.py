"""The lines of `reports.jsonl` and `control.jsonl`: found again, and read as events.

Not whether an event is believed, nor which file may be opened: that is for `lifecycle` and `audit`.
"""

import errno
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from delegate_job.journal_line import (
    MAX_DETAIL,
    MAX_LINE,
    append,
    append_event,
    encode,
    is_shallow,
    new_event,
    now,
    sync,
    well_formed,
    with_cut_detail,
)

if TYPE_CHECKING:
    from typing import TypeGuard

    from delegate_job.events import Event, Kind, Source

__all__ = [
    "MAX_DETAIL",
    "MAX_LINE",
    "MAX_LINES",
    "MAX_NAME",
    "MAX_READ",
    "Batch",
    "Position",
    "append",
    "append_event",
    "encode",
    "new_event",
    "now",
    "own_event",
    "parse",
    "read_new",
    "sync",
]

MAX_NAME = 128
"""Characters of an id or a kind; a line with a longer one is not read."""
MAX_READ = 1024 * 1024
"""Bytes that one call of `read_new` takes in."""
MAX_LINES = 256
"""Lines that one call of `read_new` returns: each may cost its reader a transaction."""
_FIELDS = frozenset({"id", "job_id", "kind", "at", "detail", "data"})


class Position(NamedTuple):
    """How far a file has been read: which file it was, and the offset behind the last whole line."""

    inode: int = 0
    offset: int = 0


class Batch(NamedTuple):
    """What `read_new` found: whole lines without newlines, where to go on, and whether to do so at once."""

    lines: list[bytes]
    position: Position
    more: bool
    skipped: int = 0
    """Lines that were passed over: too long, or without the mark."""


def read_new(fd: int, position: Position, *, mark: bytes = b"") -> Batch:
    """Return the whole lines behind `position`, taking in at most `MAX_READ` bytes and `MAX_LINES` lines.

    `mark` is ASCII that stands in every line of interest, as it is or in JSON's escapes. Others are counted
    and passed over here: a flood of short ones would cost its reader minutes.
    A file with another inode, a smaller one, or one in which no line ended there, is read from its start:
    repeats are known by their ids. A last line without its newline is left for the next call, unless it is
    already longer than a line may be: then what is there of it is skipped. OSError when it cannot be read.
    """
    status = os.fstat(fd)
    offset = position.offset if _is_same(fd, status, position) else 0
    chunk = os.pread(fd, MAX_READ, offset)
    lines, whole, skipped = _lines(chunk, mark)
    if not whole and len(chunk) > MAX_LINE:
        offset = _behind_hole(fd, offset + len(chunk), status.st_size)
    else:
        offset += whole
    more = len(lines) == MAX_LINES or (len(chunk) == MAX_READ and offset < status.st_size)
    return Batch(lines, Position(status.st_ino, offset), more, skipped)


def _lines(chunk: bytes, mark: bytes) -> tuple[list[bytes], int, int]:
    """Return the lines of interest, how many bytes were looked through, and how many lines passed over."""
    lines: list[bytes] = []
    whole = skipped = 0
    for line in chunk[: chunk.rfind(b"\n") + 1].split(b"\n")[:-1]:
        whole += len(line) + 1
        if len(line) <= MAX_LINE and (mark in line or b"\\u" in line):
            lines += [line] if line else []
        else:
            skipped += bool(line)
        if len(lines) == MAX_LINES:
            break
    return lines, whole, skipped


def own_event(
    job_id: str, kind: "Kind", source: "Source", detail: str | None = None, data: dict[str, Any] | None = None
) -> "Event":
    """Return an event that this process itself records: with an id of its own, said and heard now."""
    from delegate_job.events import Event

    said = new_event(job_id, kind)
    return Event(said["id"], job_id, kind, source, said["at"], detail, data or {}, said["at"])


def parse(line: bytes, *, job_id: str, source: "Source", received_at: str) -> "Event | None":
    """Return the event that a line holds, or None when it holds none of this job; never raises.

    None: no JSON object, a missing or wrongly typed field, an id or kind over `MAX_NAME`, another job's id.
    Unknown fields are kept in `data`. A time that is none becomes `received_at` (RFC 3339); one with an
    offset is brought to UTC. Text comes out free of lone surrogates, so that it can be stored and sent on.
    """
    fields = _load(line)
    if fields is None or fields.get("job_id") != job_id:
        return None
    event_id, kind, detail, data = (fields.get(name) for name in ("id", "kind", "detail", "data"))
    if not (_is_name(event_id) and _is_name(kind)):
        return None
    if not (detail is None or isinstance(detail, str)) or not (data is None or isinstance(data, dict)):
        return None
    from delegate_job.events import Event

    fields = with_cut_detail(fields, MAX_DETAIL)
    return Event(
        id=event_id,
        job_id=job_id,
        kind=kind,
        source=source,
        at=_as_utc(fields.get("at")) or received_at,
        detail=fields.get("detail"),
        data={key: value for key, value in fields.items() if key not in _FIELDS} | (data or {}),
        received_at=received_at,
    )


def _is_name(value: Any) -> "TypeGuard[str]":
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _load(line: bytes) -> dict[str, Any] | None:
    import json

    try:
        value = json.loads(line.decode(errors="replace"), parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in line:
            # Escapes can spell lone surrogates; they become U+FFFD once they stand in the text itself.
            value = json.loads(well_formed(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and is_shallow(value) else None


def _refuse(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _as_utc(text: Any) -> str | None:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError):
        return None


def _is_same(fd: int, status: os.stat_result, position: Position) -> bool:
    """Whether the file is the one that `position` is of, as far as can be seen."""
    if position.inode != status.st_ino or not 0 <= position.offset <= status.st_size:
        return False
    if position.offset == 0 or os.pread(fd, 1, position.offset - 1) == b"\n":
        return True
    # File systems give a new file the inode of a deleted one. Only a line too long is left in its middle.
    before = os.pread(fd, MAX_LINE, max(0, position.offset - MAX_LINE))
    return len(before) == MAX_LINE and b"\n" not in before


def _behind_hole(fd: int, offset: int, size: int) -> int:
    """Return where the next data is: a file stretched to terabytes holds nothing, but takes hours to read."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        return max(offset, size) if error.errno == errno.ENXIO else offset
