import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegate_job import journal
from delegate_job.events import Event, Kind, Source
from harness import wait_until

JOB = "20260801-abcdef"
START = journal.Position()
RECEIVED = "2026-08-01T10:00:00.000000Z"

# A busy machine is no fault of the code.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXT_WITH_SURROGATES = st.text(st.characters(exclude_categories=()))


def _parse(line: bytes) -> Event | None:
    return journal.parse(line, job_id=JOB, source=Source.AGENT, received_at=RECEIVED)


def _parse_known(line: bytes) -> Event:
    event = _parse(line)
    assert event is not None
    return event


def _line_of(**fields: Any) -> bytes:
    return json.dumps({"id": "1", "job_id": JOB, "kind": "progress"} | fields).encode()


def _read_all(path: Path, position: journal.Position = START) -> tuple[list[bytes], journal.Position]:
    lines = []
    with path.open("rb") as file:
        while True:
            batch = journal.read_new(file.fileno(), position)
            assert sum(map(len, batch.lines)) <= journal.MAX_READ
            lines += batch.lines
            position = batch.position
            if not batch.more:
                return lines, position


@unhurried
@given(detail=st.none() | TEXT_WITH_SURROGATES, data=st.dictionaries(TEXT_WITH_SURROGATES, JSON, max_size=4))
def test_whatever_is_written_is_read_again(detail: str | None, data: dict[str, Any]) -> None:
    """Any text and any data make one line of valid UTF-8 and JSON, which is read back as the same event."""
    event = journal.new_event(JOB, Kind.PROGRESS, detail, data)
    line = journal.encode(event)
    assert line.startswith(b"\n{")
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 2
    read = _parse_known(line.strip())
    assert (read.id, read.kind, read.at) == (event["id"], "progress", event["at"])
    assert read.detail == (detail and re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", _joined(detail)))


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("char", ["a", "é", "€", "\N{GRINNING FACE}", "\0", "\udcff", '"'])
def test_a_long_detail_is_cut_between_characters_and_marked(char: str) -> None:
    """At most 64 KB of detail and 256 KB of line are kept, whatever the characters cost in UTF-8 or JSON."""
    line = journal.encode(journal.new_event(JOB, "progress", char * 300_000))
    read = _parse_known(line.strip())
    assert len(line) <= journal.MAX_LINE
    assert read.detail is not None
    assert 30_000 < len(read.detail.encode()) <= journal.MAX_DETAIL
    assert set(read.detail) <= {char, "\N{REPLACEMENT CHARACTER}"}
    assert read.data == {"detail_cut": True}


def test_a_detail_within_its_limit_is_whole() -> None:
    """Exactly 64 KB are neither cut nor marked."""
    read = _parse_known(journal.encode(journal.new_event(JOB, "progress", "é" * 32_768)).strip())
    assert (read.detail, read.data) == ("é" * 32_768, {})


@pytest.mark.parametrize(
    "data",
    [{"x": "y" * 300_000}, {"x": float("nan")}, {"x": object()}, json.loads('{"x":' * 40 + "1" + "}" * 40)],
    ids=["long", "NaN", "foreign", "deep"],
)
def test_data_that_does_not_fit_is_dropped_and_marked(data: dict[str, Any]) -> None:
    """The report itself is never lost to what came with it."""
    read = _parse_known(journal.encode(journal.new_event(JOB, "completed", "done", data)).strip())
    assert (read.kind, read.detail, read.data) == ("completed", "done", {"data_dropped": True})


@unhurried
@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_raise(line: bytes) -> None:
    """Bytes that are no event give None."""
    assert _parse(line) is None


@unhurried
@given(st.dictionaries(st.sampled_from(["id", "job_id", "kind", "at", "detail", "data", "source"]), JSON))
def test_no_object_makes_the_reader_raise(fields: dict[str, Any]) -> None:
    """Any object gives None or an event of this job with text that can be stored."""
    event = _parse(json.dumps({"id": "1", "job_id": JOB, "kind": "progress"} | fields).encode())
    if event is not None:
        assert event.job_id == JOB
        json.dumps(dict(event.data), ensure_ascii=False, allow_nan=False).encode()
        f"{event.id}{event.kind}{event.detail}{event.at}".encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        _line_of(job_id="another"),
        _line_of(id=""),
        _line_of(id="x" * 129),
        _line_of(id=7),
        _line_of(kind=None),
        _line_of(kind="k" * 129),
        _line_of(detail=["no text"]),
        _line_of(data="no object"),
        _line_of(data={"x": 1}).replace(b"1}", b"1e999}"),
        _line_of(data={"x": 1}).replace(b"1}", b"NaN}"),
        _line_of(data={"x": 1}).replace(b"1}", b"9" * 5000 + b"}"),
        _line_of(data={"x": 1}).replace(b"1}", b"[" * 60 + b"]" * 60 + b"}"),
    ],
)
def test_a_line_that_is_no_event_of_this_job_is_unreadable(line: bytes) -> None:
    """Wrong types, other jobs, endless names, nesting and numbers that no JSON can carry are refused."""
    assert _parse(line) is None


def test_unknown_fields_are_kept_and_the_source_is_not_believed() -> None:
    """What a newer reporter adds stays in `data`; who said it comes from the caller alone."""
    event = _parse_known(_line_of(source="owner", tokens=7, data={"x": 1}))
    assert event.source is Source.AGENT
    assert event.data == {"source": "owner", "tokens": 7, "x": 1}


@pytest.mark.parametrize(
    ("at", "read"),
    [
        ("2026-08-01T09:00:00.5Z", "2026-08-01T09:00:00.500000Z"),
        ("2026-08-01T11:00:00+02:00", "2026-08-01T09:00:00.000000Z"),
        ("2026-08-01T09:00:00", RECEIVED),
        ("0001-01-01T00:00:00+14:00", RECEIVED),
        ("yesterday", RECEIVED),
        (1754038800, RECEIVED),
        (None, RECEIVED),
    ],
)
def test_a_time_is_utc_or_the_time_of_receipt(at: Any, read: str) -> None:
    """Reporters in any language may write any RFC 3339 time; nonsense becomes when it was read."""
    assert _parse_known(_line_of(at=at)).at == read


def test_escaped_lone_surrogates_become_text() -> None:
    r"""`\ud800` in a line, which SQLite and MQTT refuse, is read as U+FFFD wherever it stands."""
    event = _parse_known(_line_of(kind="\ud800", detail="a\udfff", data={"\ud800": ["\ud83d\ude00"]}))
    assert (event.kind, event.detail) == ("�", "a�")
    assert event.data == {"�": ["\N{GRINNING FACE}"]}


def test_now_is_a_time_that_the_reader_keeps() -> None:
    """Our own times are RFC 3339 in UTC with microseconds."""
    now = journal.now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", now)
    assert _parse_known(_line_of(at=now)).at == now


def test_an_event_is_appended_to_a_private_file(tmp_path: Path) -> None:
    """The file is made 0600; a second event follows the first; a link is not followed."""
    path = tmp_path / "control.jsonl"
    first = journal.append_event(path, JOB, "spawned")
    second = journal.append_event(path, JOB, "exited", "bye", {"code": 1})
    assert path.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line) for line in _read_all(path)[0]] == [first, second]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        journal.append_event(tmp_path / "link", JOB, "exited")


def test_a_full_disk_is_an_error() -> None:
    """A line that cannot be written is never taken for written."""
    fd = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    try:
        with pytest.raises(OSError, match="No space left"):
            journal.append(fd, b"\n{}\n")
    finally:
        os.close(fd)


def test_a_line_torn_by_the_size_limit_is_an_error_and_eats_nothing(tmp_path: Path) -> None:
    """A short write ends in an error, and the next report behind the torn piece is read whole."""
    path = tmp_path / "r"
    code = (
        "from delegate_job import journal\n"
        f"journal.append_event({str(path)!r}, {JOB!r}, 'progress', 'x' * 5000)"
    )
    torn = subprocess.run(
        # -B: Python 3.11 takes a module's cache that the limit cut short for a whole one, now and later.
        [sys.executable, "-B", "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert b"File too large" in torn.stderr
    assert path.stat().st_size == 2000
    event = journal.append_event(path, JOB, "completed")
    assert [read.id for line in _read_all(path)[0] if (read := _parse(line))] == [event["id"]]


def test_a_writer_killed_at_any_moment_eats_no_report(tmp_path: Path) -> None:
    """After kill -9 in mid-append the reports before and after it are read, each once."""
    path = tmp_path / "r"
    code = (
        "from delegate_job import journal\n"
        f"while True: journal.append_event({str(path)!r}, {JOB!r}, 'progress', 'x' * 60000)"
    )
    for _ in range(3):
        size = path.stat().st_size if path.exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", code])
        wait_until(lambda: path.exists() and path.stat().st_size > size + 500_000)  # noqa: B023 - called at once
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(10) == -signal.SIGKILL
        journal.append_event(path, JOB, "completed")
    events = [event for line in _read_all(path)[0] if (event := _parse(line))]
    assert [event.kind for event in events].count("completed") == 3
    assert len({event.id for event in events}) == len(events)
    assert len(_read_all(path)[0]) - len(events) <= 3


def test_half_a_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    """A line without its newline is not read, however often one looks, and read once when it has one."""
    path = tmp_path / "r"
    path.write_bytes(b'\n{"a":1}\n\n{"b"')
    lines, position = _read_all(path)
    assert lines == [b'{"a":1}']
    assert _read_all(path, position) == ([], position)
    with path.open("ab") as file:
        file.write(b":2}\n")
    assert _read_all(path, position)[0] == [b'{"b":2}']


@unhurried
@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 90), max_size=40))
def test_lines_are_the_same_however_they_arrive(pieces: list[bytes], steps: list[int]) -> None:
    """Reading while the file grows by any steps gives each whole line once, in order."""
    content = b"".join(b"\n" + piece + b"\n" for piece in pieces)
    read_fd, write_fd = _anonymous_file()
    try:
        lines, position, rest = [], journal.Position(), content
        for step in [*steps, len(content)]:
            os.write(write_fd, rest[:step])
            rest = rest[step:]
            batch = journal.read_new(read_fd, position)
            lines += batch.lines
            position = batch.position
        assert lines == [line for line in content.split(b"\n") if line]
    finally:
        os.close(read_fd)
        os.close(write_fd)


def _anonymous_file() -> tuple[int, int]:
    fd = os.memfd_create("journal") if hasattr(os, "memfd_create") else _unlinked()
    return fd, os.dup(fd)


def _unlinked() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def test_a_replaced_or_shortened_file_is_read_from_its_start(tmp_path: Path) -> None:
    """An agent may delete, replace or empty the file; what is in it then is read."""
    path = tmp_path / "r"
    path.write_bytes(b'{"a":1}\n{"b":2}\n')
    _, position = _read_all(path)
    path.write_bytes(b'{"c":3}\n')
    lines, position = _read_all(path, position)
    assert lines == [b'{"c":3}']
    replacement = tmp_path / "new"
    replacement.write_bytes(b'{"d":4}\n{"e":5}\n{"f":6}\n')
    replacement.rename(path)
    assert _read_all(path, position)[0] == [b'{"d":4}', b'{"e":5}', b'{"f":6}']


def test_a_new_file_with_the_old_inode_is_read_from_its_start(tmp_path: Path) -> None:
    """A longer file in the place of the one that was read is noticed where the old line ended."""
    path = tmp_path / "r"
    journal.append_event(path, JOB, "started")
    _, position = _read_all(path)
    os.truncate(path, 0)
    event = journal.append_event(path, JOB, "completed", "x" * 500)
    assert path.stat().st_ino == position.inode
    assert [read.id for line in _read_all(path, position)[0] if (read := _parse(line))] == [event["id"]]


@pytest.mark.parametrize("size", [journal.MAX_LINE + 1, 3 * journal.MAX_READ + 17])
def test_an_endless_line_is_passed_over(tmp_path: Path, size: int) -> None:
    """A line over 256 KB is skipped without being held in memory, and the report behind it is read."""
    path = tmp_path / "r"
    path.write_bytes(b"x" * size)
    lines, position = _read_all(path)
    event = journal.append_event(path, JOB, "completed")
    rest, _ = _read_all(path, position)
    assert event["id"] in [read.id for line in lines + rest if (read := _parse(line))]
    assert event["id"] in [read.id for line in _read_all(path)[0] if (read := _parse(line))]


def test_a_file_stretched_to_a_terabyte_is_read_at_once(tmp_path: Path) -> None:
    """A hole holds no line and costs no reading."""
    path = tmp_path / "r"
    journal.append_event(path, JOB, "started")
    os.truncate(path, 1 << 40)
    journal.append_event(path, JOB, "completed")
    kinds = [read.kind for line in _read_all(path)[0] if (read := _parse(line))]
    assert kinds == ["started", "completed"]
