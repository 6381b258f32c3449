"""The watch of an agent's transcript: what it tells, what it leaves alone, where the next owner goes on."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from delegate_job import locks
from delegate_job.events import Event, Kind, Source
from delegate_job.hook_proof import KEY, new_key
from delegate_job.job import JobSpec
from delegate_job.paths import JobPaths
from delegate_job.transcript import Transcript

FAILED = {"type": "task_complete", "error": {"message": "no", "codex_error_info": "unauthorized"}}
ENDED = {"type": "task_complete", "error": None}


class Watched:
    """A job of codex, its transcript, and what was reported of it."""

    def __init__(self, root: Path) -> None:
        self.log_dir = root / "work/delegate_job_logs/4f3a9b2c"
        self.log_dir.mkdir(parents=True)
        self.paths = JobPaths(root / "jobs/4f3a9b2c")
        self.paths.agent.mkdir(parents=True)
        (self.paths.agent / KEY).write_bytes(new_key())
        self.file = root / "rollout.jsonl"
        self.spec = JobSpec(
            id="4f3a9b2c",
            agent="codex",
            workdir=str(root / "work"),
            session="dj-4f3a9b2c",
            log_dir=str(self.log_dir),
            prompt_sha256="",
        )

    def watch(self) -> Transcript:
        """Return the watch of a new owner."""
        return Transcript(self.spec, self.paths)

    def started(self, path: object = None, **data: object) -> Event:
        """Return what a first hook says."""
        told = {"transcript": str(self.file) if path is None else path, **data}
        return Event("e1", "4f3a9b2c", Kind.STARTED, Source.HOOK, "", None, told, "")

    def add(self, *payloads: object) -> None:
        """Write entries of the transcript."""
        with self.file.open("a") as file:
            file.writelines(json.dumps({"type": "event_msg", "payload": each}) + "\n" for each in payloads)

    def reports(self) -> list[dict[str, Any]]:
        """Return what was reported."""
        path = self.log_dir / "reports.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Give a job whose agent has said nothing yet."""
    return Watched(tmp_path)


def test_the_owner_does_not_keep_the_hooks_lock(watched: Watched) -> None:
    """An owner lives on after what it tells like a hook: others must not wait for its end."""
    watch = watched.watch()
    watch.note(watched.started())
    watched.add(FAILED)
    before = len(list(Path("/dev/fd").iterdir()))
    watch.look()
    assert watched.reports()
    assert not locks.is_held(watched.paths.agent / "hooks.lock")
    assert len(list(Path("/dev/fd").iterdir())) <= before


def test_a_turn_that_failed_is_told_once(watched: Watched) -> None:
    """An entry with an error is an `error` with its class, as a hook tells it; one without is nothing."""
    watch = watched.watch()
    watch.note(watched.started())
    watched.add({"type": "task_started"}, ENDED)
    watch.look()
    assert watched.reports() == []
    watched.add(FAILED)
    watch.look()
    watch.look()
    (report,) = watched.reports()
    assert (report["kind"], report["detail"]) == ("error", "unauthorized: no")
    assert report["proof"]


def test_the_next_owner_goes_on_where_this_one_stood(watched: Watched) -> None:
    """What was told is not told again after a takeover, and what came in between is not missed."""
    watch = watched.watch()
    watch.note(watched.started())
    watched.add(FAILED)
    watch.look()
    watched.add(FAILED)
    watched.watch().look()
    assert len(watched.reports()) == 2


def test_a_resumed_sessions_past_is_no_news(watched: Watched) -> None:
    """Of a session that goes on only what comes now counts."""
    watched.add(FAILED)
    watch = watched.watch()
    watch.note(watched.started(source="resume"))
    watch.look()
    assert watched.reports() == []


def test_a_line_in_the_making_is_waited_for(watched: Watched) -> None:
    """Half an entry is read when it is whole."""
    watch = watched.watch()
    watch.note(watched.started())
    text = json.dumps({"type": "event_msg", "payload": FAILED})
    watched.file.write_text(text[:30])
    watch.look()
    watched.file.write_text(text + "\n")
    watch.look()
    assert len(watched.reports()) == 1


def test_a_line_of_megabytes_hides_nothing(watched: Watched) -> None:
    """What is too long is passed over in bounded steps; what follows is read."""
    watch = watched.watch()
    watch.note(watched.started())
    watched.file.write_text("x" * (3 << 20) + "\n")
    watched.add(FAILED)
    for _ in range(5):
        watch.look()
    assert len(watched.reports()) == 1


@pytest.mark.parametrize("path", ["", "relative", 7, None, "/dev/zero", "/nowhere\0x", "/proc/self/mem"])
def test_odd_paths_say_nothing(watched: Watched, path: object) -> None:
    """What is no plain file is left alone."""
    watch = watched.watch()
    watch.note(watched.started(path or ""))
    watch.look()
    assert watched.reports() == []


def test_links_and_pipes_are_left_alone(watched: Watched) -> None:
    """A pipe holds nobody up, and no link is followed."""
    real = watched.file.with_name("real")
    real.write_text(json.dumps({"payload": FAILED}) + "\n")
    watched.file.symlink_to(real)
    watch = watched.watch()
    watch.note(watched.started())
    watch.look()
    pipe = watched.file.with_name("pipe")
    os.mkfifo(pipe)
    watch.note(watched.started(str(pipe)))
    watch.look()
    assert watched.reports() == []


@pytest.mark.parametrize(
    "line", ["null", "[]", '{"payload": 1}', '{"payload": {"type": ["task_complete"]}}', "[" * 9999, "\xff"]
)
def test_odd_entries_say_nothing(watched: Watched, line: str) -> None:
    """A damaged entry is passed over, and the next one is read."""
    watch = watched.watch()
    watch.note(watched.started())
    watched.file.write_text(f'{line} "task_complete"\n"task_complete"{line}\n{line}\n')
    watched.add({**FAILED, "error": "no"})
    watch.look()
    assert [report["kind"] for report in watched.reports()] == ["error"]


def test_only_a_hook_names_a_transcript(watched: Watched) -> None:
    """What an agent reports by itself names none."""
    watched.add(FAILED)
    watch = watched.watch()
    watch.note(watched.started()._replace(source=Source.AGENT))
    watch.look()
    assert watched.reports() == []
