"""The recording of a job's terminal: made by the pane's pipe, read back by reports."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from delegate_job import cast, launcher, recorder
from delegate_job.recorder import CUT, Recording
from harness import Place, job_id, wait_until
from panes import Pane

SIZE = (80, 24)


@pytest.fixture
def pane(place: Place, monkeypatch: pytest.MonkeyPatch) -> Pane:
    """Give a job directory and a tmux server of the test's own."""
    for name in ("PATH", "HOME", "TMUX_TMPDIR"):
        monkeypatch.setenv(name, place.environ[name])
    return Pane.make(place)


def lines(path: Path) -> list[Any]:
    """Return the lines of a recording; each must be JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def said(path: Path) -> str:
    """Return all output of a recording; nothing when it was not begun."""
    found = lines(path)[1:] if path.exists() else []
    return "".join(line[2] for line in found if line[1] == "o")


def test_a_job_leaves_a_recording(place: Place) -> None:
    """Of the pane's size, with times that grow, 0600, whole characters alone; copied to the job's log."""
    agent = (
        'printf "one \\303"; sleep 0.2; printf "\\244 two\\n"\n'
        'until grep -q two "$CAST"/*/pane.cast; do sleep 0.05; done\n'
        '"$DJ" publish --event completed'
    )
    done = place.submit(agent, "--close", env={"CAST": str(place.registry / "jobs")})
    assert done.returncode == 0, done
    path = place.registry / "jobs" / job_id(done.stdout) / "pane.cast"
    header, *events = lines(path)
    assert header == {"version": 2, "width": 200, "height": 50, "timestamp": header["timestamp"]}
    assert said(path).startswith("one ä two\r\n")
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert path.stat().st_mode & 0o777 == 0o600
    assert said(place.log_dir(job_id(done.stdout)) / "pane.cast").startswith("one ä two")


def test_a_recording_that_begins_late_is_kept_whole(place: Place) -> None:
    """On a busy machine the agent may be done before what records it has started."""
    (place.root / "bin").mkdir()
    real = shutil.which("nice", path=place.environ["PATH"])
    place.script("bin/nice", f'sleep 0.5\nexec "{real}" "$@"')
    late = {"PATH": f"{place.root}/bin:{place.environ['PATH']}"}
    done = place.submit('echo "last words"\n"$DJ" publish --event completed', "--close", env=late)
    assert done.returncode == 0, done
    log = place.log_dir(job_id(done.stdout))
    assert "last words" in said(log / "pane.cast")
    assert "last words" in (log / "pane.log").read_text()


def test_a_relaunch_goes_on_with_the_recording(pane: Pane) -> None:
    """The second agent's words follow the first one's in one file with one header."""
    pane.shell("echo first; sleep 60")
    wait_until(lambda: "first" in said(pane.paths.pane_cast))
    pane.write(["bash", "-c", "echo second; sleep 60"])
    launcher.relaunch(pane.tmux, "job-1", pane.paths)
    wait_until(lambda: "second" in said(pane.paths.pane_cast))
    read = cast.read(pane.paths.pane_cast)
    assert read is not None
    assert [moment.kind for moment in read.moments if moment.kind == "r"] == ["r"]
    assert sum(isinstance(line, dict) for line in lines(pane.paths.pane_cast)) == 1


def test_a_new_size_is_recorded(pane: Pane) -> None:
    """Who attaches brings the size of their terminal: the recording has it with the next output."""
    pane.shell('echo here; while :; do read -r line; echo "got $line"; done')
    wait_until(lambda: "here" in said(pane.paths.pane_cast))
    pane.place.tmux("resize-window", "-t", "=job-1:", "-x", "90", "-y", "30")

    def resized() -> bool:
        pane.place.tmux("send-keys", "-t", "=job-1:", "x", "Enter")
        return any(line[1:] == ["r", "90x30"] for line in lines(pane.paths.pane_cast)[1:])

    wait_until(resized)


def test_the_log_goes_on_without_the_recorder(pane: Pane) -> None:
    """A recorder that was killed takes nothing with it: `pane.log` has all that is said afterwards."""
    pane.shell("echo here; until [ -e go ]; do sleep 0.05; done; seq 3; echo there; sleep 60")
    wait_until(lambda: "here" in said(pane.paths.pane_cast))
    recorders = [each for each in pane.place.processes() if " --record " in each.command]
    for each in recorders:
        if "printf" not in each.command:
            os.kill(each.pid, signal.SIGKILL)
    (pane.place.work / "go").touch()
    pane.log_shows("there")


def test_a_character_in_pieces_is_one(tmp_path: Path) -> None:
    """Bytes of one character that come apart stand in one line; what is no UTF-8 is marked as such."""
    recording = Recording(str(tmp_path / "x.cast"), SIZE)
    for byte in "€\N{GRINNING FACE}".encode():
        recording.take(bytes([byte]))
    recording.take(b"\xff\xe2\x82")
    recording.end()
    assert [line[2] for line in lines(tmp_path / "x.cast")[1:]] == ["€", "😀", "\ufffd", "\ufffd"]


def test_a_recording_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows to its limit and no further, and its last line says so."""
    monkeypatch.setattr(recorder, "LIMIT", 4096)
    recording = Recording(str(tmp_path / "x.cast"), SIZE)
    for _ in range(100):
        recording.take(b"x" * 100)
    recording.end()
    assert (tmp_path / "x.cast").stat().st_size <= 4096
    assert lines(tmp_path / "x.cast")[-1][2] == CUT
    read = cast.read(tmp_path / "x.cast")
    assert read is not None
    assert read.is_cut
    # What happened after the recording's end is marked at its end.
    assert read.marked([(read.began + 60, "completed"), (read.began + 61, "closed")]).is_cut


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    """A recorder that was killed in mid-line costs that line, and none before or after it."""
    path = tmp_path / "x.cast"
    first = Recording(str(path), SIZE)
    first.take(b"first")
    first.end()
    with path.open("ab") as file:
        file.write(b'[0.5,"o","to')
    second = Recording(str(path), (100, 30))
    second.take(b"second")
    second.end()
    read = cast.read(path)
    assert read is not None
    assert [moment[1:] for moment in read.moments] == [("o", "first"), ("r", "100x30"), ("o", "second")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json\n",
        "[1]\n",
        '{"version": 2}\n[0, "o", "x"]\n',
        '{"timestamp": 1}\n',
        '{"timestamp": NaN}\n[0,"o","x"]\n',
    ],
)
def test_what_is_no_recording_is_none(tmp_path: Path, text: str) -> None:
    """A file without a header, or with nothing said, is as good as missing."""
    (tmp_path / "x.cast").write_text(text)
    assert cast.read(tmp_path / "x.cast") is None
    assert cast.read(tmp_path / "missing") is None


def test_only_right_lines_are_read(tmp_path: Path) -> None:
    """Odd kinds, sizes and times are left out, and time never goes back."""
    odd = [
        '[2,"o","a"]',
        '[1,"o","b"]',
        '[3,"x","c"]',
        '[4,"r","0x9"]',
        '["5","o","d"]',
        "[6]",
        '[1e999,"o","e"]',
    ]
    (tmp_path / "x.cast").write_text("\n".join(['{"timestamp":1,"width":9,"height":-1}', *odd]))
    read = cast.read(tmp_path / "x.cast")
    assert read is not None
    assert (read.width, read.height) == (9, 24)
    assert [tuple(moment) for moment in read.moments] == [(2, "o", "a"), (2, "o", "b")]
    assert (
        read._replace(moments=(*read.moments, read.moments[0]._replace(at=9.0))).shortened(9, longest=3) == 5
    )
    marked = read.marked([(2.0, "started"), (99.0, "done")])
    assert [tuple(moment) for moment in marked.moments if moment.kind == "m"] == [
        (1, "m", "started"),
        (2, "m", "done"),
    ]
