"""One line of `reports.jsonl` and `control.jsonl`: made from an event, and appended so that none is lost.

Not how lines are found again and read: that is `journal`. Light: hooks and the runner load it.
"""

import contextlib
import errno
import os
import sys
import time

from delegate_job.bare import dumps

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from typing import Any

MAX_LINE = 256 * 1024
"""Bytes of a line with both its newlines; a longer one is not read."""
MAX_DETAIL = 64 * 1024
"""Bytes of `detail` in UTF-8; the rest is cut."""
_MAX_DEPTH = 32


def now() -> str:
    """Return the time as RFC 3339 in UTC with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"


def new_event(
    job_id: str, kind: str, detail: str | None = None, data: "dict[str, Any] | None" = None
) -> "dict[str, Any]":
    """Return an event as the object that a line holds, with an id of its own."""
    event: dict[str, Any] = {"id": os.urandom(12).hex(), "job_id": job_id, "kind": str(kind), "at": now()}
    if detail is not None:
        event["detail"] = detail
    if data:
        event["data"] = data
    return event


def encode(event: "dict[str, Any]") -> bytes:
    r"""Return the line: `\n`, the JSON object, `\n`, at most `MAX_LINE` bytes.

    The newline in front ends a line that a dying writer tore off, so that it cannot swallow this one. What is
    too long is shortened and marked (`detail_cut`, `data_dropped`). Lone surrogates, which is how Python
    carries arguments that are not UTF-8, become U+FFFD. Never raises for what `detail` and `data` contain.
    """
    event = with_cut_detail(event, MAX_DETAIL)
    try:
        line = _dump(event)
    except (TypeError, ValueError, RecursionError):
        # Not JSON: NaN, a cycle, nested too deep, a foreign type.
        line = None
    if "data" in event and (line is None or len(line) > MAX_LINE or not is_shallow(event)):
        event = {key: value for key, value in event.items() if key != "data"} | {"data_dropped": True}
        line = None
    line = line or _dump(event)
    # JSON writes some characters as six bytes, so a detail within its limit can still be too long a line.
    limit = MAX_DETAIL
    while len(line) > MAX_LINE and limit:
        limit //= 2
        line = _dump(with_cut_detail(event, limit))
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
    data: "dict[str, Any] | None" = None,
) -> "dict[str, Any]":
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


def with_cut_detail(event: "dict[str, Any]", limit: int) -> "dict[str, Any]":
    """Return the event with its detail cut to `limit` bytes on a character boundary, and marked if it was."""
    detail = event.get("detail")
    # No character takes more than four bytes: short ones need no copy.
    if not isinstance(detail, str) or len(detail) * 4 <= limit:
        return event
    encoded = well_formed(detail[: limit + 1]).encode()
    if len(encoded) <= limit:
        return event
    return event | {"detail": encoded[:limit].decode(errors="ignore"), "detail_cut": True}


def _dump(event: "dict[str, Any]") -> bytes:
    return b"\n" + well_formed(dumps(event)).encode() + b"\n"


def well_formed(text: str) -> str:
    """Return the text with lone surrogates as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_shallow(value: "Any", depth: int = _MAX_DEPTH) -> bool:
    """Return whether a JSON value is nested no deeper than `depth`."""
    # What is nested deeper could be read here and then fail where it is written again from a deeper stack.
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_shallow(child, depth - 1) for child in children)


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
