"""The line format of `reports.jsonl` and `control.jsonl`: how one event is written, found again and read.

Not whether an event is believed, nor which file may be opened: that is for `lifecycle` and `audit`.
"""

import contextlib
import errno
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from delegate_job.bare import dumps

if TYPE_CHECKING:
    from typing import TypeGuard

    from delegate_job.events import Event, Source

MAX_LINE = 256 * 1024
"""Bytes of a line with both its newlines; a longer one is not read."""
MAX_DETAIL = 64 * 1024
"""Bytes of `detail` in UTF-8; the rest is cut."""
MAX_NAME = 128
"""Characters of an id or a kind; a line with a longer one is not read."""
MAX_READ = 1024 * 1024
"""Bytes that one call of `read_new` takes in."""
MAX_LINES = 256
"""Lines that one call of `read_new` returns: each may cost its reader a transaction."""
_MAX_DEPTH = 32
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


def now() -> str:
    """Return the time as RFC 3339 in UTC with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"


def new_event(
    job_id: str, kind: str, detail: str | None = None, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return an event as the object that a line holds, with an id of its own."""
    event: dict[str, Any] = {"id": os.urandom(12).hex(), "job_id": job_id, "kind": str(kind), "at": now()}
    if detail is not None:
        event["detail"] = detail
    if data:
        event["data"] = data
    return event


def encode(event: dict[str, Any]) -> bytes:
    r"""Return the line: `\n`, the JSON object, `\n`, at most `MAX_LINE` bytes.

    The newline in front ends a line that a dying writer tore off, so that it cannot swallow this one. What is
    too long is shortened and marked (`detail_cut`, `data_dropped`). Lone surrogates, which is how Python
    carries arguments that are not UTF-8, become U+FFFD. Never raises for what `detail` and `data` contain.
    """
    event = _with_cut_detail(event, MAX_DETAIL)
    try:
        line = _dump(event)
    except (TypeError, ValueError, RecursionError):
        # Not JSON: NaN, a cycle, nested too deep, a foreign type.
        line = None
    if "data" in event and (line is None or len(line) > MAX_LINE or not _is_shallow(event)):
        event = {key: value for key, value in event.items() if key != "data"} | {"data_dropped": True}
        line = None
    line = line or _dump(event)
    # JSON writes some characters as six bytes, so a detail within its limit can still be too long a line.
    limit = MAX_DETAIL
    while len(line) > MAX_LINE and limit:
        limit //= 2
        line = _dump(_with_cut_detail(event, limit))
    return line


def append(fd: int, line: bytes) -> None:
    """Append one encoded line to a file opened with O_APPEND and bring it to the disk; OSError if that fails.

    One write, so that lines of many writers never mix. After a short write (a disk about to be full) the
    whole line is written again: the torn piece is ended by the newline in front of it.
    """
    for _ in range(3):
        if os.write(fd, line) == len(line):
            sync(fd)
            return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync(fd: int) -> None:
    """Bring what was written to the disk itself; quietly nothing where a file system cannot.

    macOS's fsync stops at the drive's cache (its fsync(2)), F_FULLFSYNC does not.
    """
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}:
            raise


def append_event(
    path: str | os.PathLike[str],
    job_id: str,
    kind: str,
    detail: str | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Append a new event to a file in the trusted job directory, made 0600 if missing, and return it.

    OSError when it cannot be written.
    """
    event = new_event(job_id, kind, detail, data)
    fd, created = _open_or_create(os.fspath(path))
    try:
        append(fd, encode(event))
    finally:
        os.close(fd)
    if created:
        parent = os.path.dirname(os.fspath(path))  # noqa: PTH120 - pathlib costs each report 10 ms of start-up
        _sync_directory(parent or ".")
    return event


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

    fields = _with_cut_detail(fields, MAX_DETAIL)
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


def _with_cut_detail(event: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return the event with its detail cut to `limit` bytes on a character boundary, and marked if it was."""
    detail = event.get("detail")
    # No character takes more than four bytes: short ones need no copy.
    if not isinstance(detail, str) or len(detail) * 4 <= limit:
        return event
    encoded = _well_formed(detail[: limit + 1]).encode()
    if len(encoded) <= limit:
        return event
    return event | {"detail": encoded[:limit].decode(errors="ignore"), "detail_cut": True}


def _dump(event: dict[str, Any]) -> bytes:
    return b"\n" + _well_formed(dumps(event)).encode() + b"\n"


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _load(line: bytes) -> dict[str, Any] | None:
    import json

    try:
        value = json.loads(line.decode(errors="replace"), parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in line:
            # Escapes can spell lone surrogates; they become U+FFFD once they stand in the text itself.
            value = json.loads(_well_formed(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_shallow(value) else None


def _refuse(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _is_shallow(value: Any, depth: int = _MAX_DEPTH) -> bool:
    # What is nested deeper could be read here and then fail where it is written again from a deeper stack.
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(child, depth - 1) for child in children)


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


def _open_or_create(path: str) -> tuple[int, bool]:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags), False
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600), True


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
