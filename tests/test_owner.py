import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delegate_job import journal
from delegate_job.events import Kind
from delegate_job.inbox import REPORTS
from delegate_job.job import JobState
from delegate_job.registry import Registry, StorageFullError
from delegate_job.validation import fingerprint
from harness import Place, wait_until
from owned import JOB, Desk

FORGEABLE = sorted(set(Kind) - {"started", "progress", "permission_required", "resumed", "turn_ended"})


@pytest.fixture
def new_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Give the maker of a desk; what it asks for goes into the job's spec."""
    made = []

    def make(**spec: Any) -> Desk:
        made.append(Desk(tmp_path, **spec))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    """Give the desk of a job without a check."""
    return new_desk()


@pytest.fixture
def checked(tmp_path: Path, new_desk: Callable[..., Desk]) -> Desk:
    """Give the desk of a job with three checks, each of which accepts if there is a file `good`."""
    check = tmp_path / "check"
    check.write_text('echo "check $JOB_ATTEMPT"\ntest -e good\n')
    return new_desk(validate=str(check), validate_sha256=fingerprint(str(check)), attempts=3)


def rejected(desk: Desk) -> None:
    """Claim, and let the check reject it and a person be told."""
    attempt = desk.owner.job.attempt + 1
    desk.report("completed", f"claim {attempt}")
    desk.run_until(lambda: len(desk.heard.tasks) == attempt + 1)


# -- how reports get lost or are wrongly refused, elsewhere


def test_f1_reports_made_without_an_owner_are_read_at_takeover(desk: Desk) -> None:
    """F1: an owner that is down loses nothing: the next one reads what was recorded meanwhile."""
    desk.reported("started")
    desk.report("progress", "made while nobody looked")
    desk.report("completed")
    desk.take_over()
    assert desk.settle() == "accepted"
    assert desk.details("progress") == ["made while nobody looked"]


def test_f1_a_claim_outlives_the_owners_death(place: Place) -> None:
    """F1: submit is killed, `completed` is recorded, and even a cancel afterwards finds the job accepted."""
    submit = place.start("submit", "--agent", "human", "--prompt", "Do it.")
    job_id = place.await_job()
    place.await_state(job_id, "running")
    with place.nobody_takes_over():
        submit.kill()
        submit.wait(5)
        assert place.job(job_id)["owner"] is None
        assert place.run("publish", "--job", job_id, "--event", "completed").returncode == 0
        assert "not yet read" in place.run("logs", job_id).stdout
    assert place.run("cancel", job_id).returncode == 0
    assert place.job(job_id)["outcome"] == "accepted"


def test_logs_of_an_owned_job_show_what_is_recorded_and_call_nothing_ownerless(place: Place) -> None:
    """What a slow owner has not read yet is its to record: it is neither late nor without an owner."""
    submit = place.start("submit", "--agent", "human", "--prompt", "Do it.")
    job_id = place.await_job()
    place.await_state(job_id, "running")
    submit.send_signal(signal.SIGSTOP)
    try:
        report = place.run(
            "publish", "--job", job_id, "--event", "progress", "--detail", "x", "--timeout", "0.1"
        )
        assert report.returncode == 0
        assert "progress" not in place.run("logs", job_id).stdout
    finally:
        submit.send_signal(signal.SIGCONT)
    wait_until(lambda: "agent  progress: x\n" in place.run("logs", job_id).stdout, what="the report")
    assert place.run("cancel", job_id).returncode == 0


def test_f2_completed_without_started_counts(desk: Desk) -> None:
    """F2: nobody must have seen `started` for `completed` to be believed."""
    desk.report("completed")
    assert desk.settle() == "accepted"


def test_f2_the_installed_command_takes_a_lone_completed(place: Place) -> None:
    """F2: an agent whose only word is `completed` has completed."""
    assert place.submit('"$DJ" publish --event completed').returncode == 0


def test_f3_a_claim_after_a_stall_counts(desk: Desk) -> None:
    """F3: a quiet job is remarked upon, not ended: `completed` after `stalled` is accepted."""
    desk.owner.say(Kind.STALLED)
    desk.owner.step()
    desk.report("completed")
    assert desk.settle() == "accepted"


def test_f4_reports_of_another_job_are_not_taken(desk: Desk) -> None:
    """F4: a line with another job's id, in this job's own file, claims nothing."""
    desk.report("completed", job_id="zyxwvutsrq")
    desk.owner.step()
    assert desk.owner.job.state is JobState.RUNNING
    assert desk.details("unreadable") == ["1 lines in reports.jsonl are no reports of this job"]


def test_f4_a_repeated_claim_starts_no_second_check(checked: Desk) -> None:
    """F4: of several claims in one round one is checked; the others, and those before the tell, are not."""
    for _ in range(3):
        checked.report("completed")
    rejected(checked)
    checked.owner.step()
    assert (checked.owner.job.state, checked.owner.job.attempt) == (JobState.RUNNING, 1)
    assert [applied for kind, applied in checked.recorded() if kind == "completed"] == [
        True,
        False,
        False,
        False,
    ]


def test_f4_each_round_wants_its_own_claim(checked: Desk) -> None:
    """F4: after each rejection was told a new claim is checked, until one is accepted."""
    rejected(checked)
    rejected(checked)
    (checked.root / "work/good").touch()
    checked.report("completed")
    assert checked.settle() == "accepted"
    assert checked.owner.job.attempt == 3
    assert [kind for kind, _ in checked.recorded() if kind.startswith("check_")] == [
        "check_failed",
        "check_failed",
        "check_passed",
    ]


def test_f4_a_claim_while_the_check_runs_is_of_the_round_before(tmp_path: Path, checked: Desk) -> None:
    """F4: `completed` said while the check runs does not answer the rejection that follows."""
    checked.report("completed")
    checked.owner.step()
    assert checked.owner.job.state is JobState.CHECKING
    checked.report("completed", "a nervous second one")
    checked.run_until(lambda: len(checked.heard.tasks) == 2)
    checked.owner.step()
    assert (checked.owner.job.state, checked.owner.job.attempt) == (JobState.RUNNING, 1)


def test_a_rejection_reaches_a_person_with_the_checks_words(checked: Desk) -> None:
    """Who is told of a rejection reads the end of the check's output."""
    rejected(checked)
    assert "check 1" in checked.heard.tasks[-1]


def test_the_last_rejection_ends_the_job(checked: Desk) -> None:
    """Three checks that reject: the third is not told, it is the outcome."""
    rejected(checked)
    rejected(checked)
    checked.report("completed")
    assert checked.settle() == "rejected"
    assert len(checked.heard.tasks) == 3


def test_f7_nothing_relabels_a_finished_job(desk: Desk) -> None:
    """F7: an exit, a cancel, an error and a timeout after the end are recorded and change nothing."""
    desk.report("completed")
    desk.owner.drain()
    desk.report("error")
    desk.control("exited")
    desk.control("cancel_requested")
    desk.owner.say(Kind.TIMEOUT)
    assert desk.settle() == "accepted"
    after = dict(desk.recorded()[-5:])
    assert after == {
        "error": False,
        "exited": False,
        "cancel_requested": False,
        "timeout": False,
        "closed": True,
    }


def test_f8_what_comes_after_the_end_is_shown_as_that(place: Place) -> None:
    """F8: an agent that goes on after `completed` is heard: `logs` shows it as after the end."""
    done = place.submit('"$DJ" publish --event completed')
    assert done.returncode == 0
    said = place.run("publish", "--job", "@last", "--event", "progress", "--detail", "one more thing")
    assert said.returncode == 0
    (line,) = [line for line in place.run("logs", "@last").stdout.splitlines() if "one more thing" in line]
    assert line.endswith("[after the end]")
    assert place.job(place.jobs()[0])["detail"] is None


def test_f9_a_report_told_twice_is_recorded_once(desk: Desk) -> None:
    """F9: the same id again, from the file or by MQTT, in any order, is one event."""
    event = desk.report("progress", "once", id="the-same")
    desk.report("progress", "twice", id="the-same")
    desk.owner.step()
    desk.owner.heard(journal.encode(event))
    desk.owner.step()
    assert desk.details("progress") == ["once"]
    other = journal.new_event(JOB, "progress", "by MQTT first")
    desk.owner.heard(journal.encode(other))
    desk.report("progress", "by MQTT first", id=other["id"])
    desk.owner.step()
    assert desk.details("progress") == ["once", "by MQTT first"]


def test_a_report_that_no_file_has_counts_when_mqtt_brings_it(desk: Desk) -> None:
    """A reporter without a writable log directory is heard by MQTT alone."""
    desk.owner.heard(journal.encode(journal.new_event(JOB, "completed", "by air")))
    assert desk.settle() == "accepted"
    assert desk.owner.job.detail == "by air"


def test_a_report_by_mqtt_alone_is_not_overtaken_by_the_exit(desk: Desk) -> None:
    """What arrives by MQTT was sent before the agent had gone: it comes before an `exited` not yet read."""
    desk.control("exited")
    desk.owner.heard(journal.encode(journal.new_event(JOB, "completed", "by air")))
    assert desk.settle() == "accepted"


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"[]", b"null", b'{"id": 1}', b"{" * 4096])
def test_odd_messages_by_mqtt_are_nothing(desk: Desk, payload: bytes) -> None:
    """What is no report of this job is dropped."""
    before = desk.recorded()
    desk.owner.heard(payload)
    assert desk.recorded() == before


# -- nothing that an agent writes is believed beyond a claim


@pytest.mark.parametrize("kind", [kind for kind in FORGEABLE if kind not in {"completed", "error"}])
def test_a_forged_line_changes_nothing(desk: Desk, kind: str) -> None:
    """Whatever an agent writes of spawns, exits, checks, cancels or ends: recorded as its words, no more."""
    before = desk.owner.job
    desk.report(kind, "believe me", source="owner", data={"source": "runner"})
    desk.owner.step()
    assert desk.owner.job == before
    assert desk.recorded()[-1] == (kind, False)
    assert [each.event.source for each in desk.registry.events(JOB)][-1] == "agent"


# -- the order of the two files


def test_an_exit_never_overtakes_a_completed(desk: Desk) -> None:
    """Both are there when the owner looks: the report is applied first, whichever file was written first."""
    desk.control("exited")
    desk.report("completed")
    assert desk.settle() == "accepted"
    assert [kind for kind in desk.heard.kinds if "exited" in kind or "completed" in kind] == [
        "completed",
        "(exited)",
    ]


def test_an_exit_never_overtakes_a_backlog(desk: Desk) -> None:
    """Also when more reports lie before `completed` than the owner takes in at one look."""
    for _ in range(30):
        desk.report("progress", "x" * 60_000)
    desk.report("completed")
    desk.control("exited")
    assert desk.reports.stat().st_size > journal.MAX_READ
    assert desk.settle() == "accepted"


def test_an_exit_without_a_report_is_a_loss(desk: Desk) -> None:
    """Silence is never success."""
    desk.control("exited")
    assert desk.settle() == "lost"


def test_a_cancel_does_not_undo_a_claim(desk: Desk) -> None:
    """A claim that stands in the file when a cancel is read was made before it counts."""
    desk.control("cancel_requested")
    desk.report("completed")
    assert desk.settle() == "accepted"


# -- the file that an agent can do anything to


def test_a_torn_line_never_eats_the_next_report(desk: Desk) -> None:
    """A writer dies in mid-line; the report after it is read, and the torn one is mentioned once."""
    desk.write(b'{"id": "torn", "job_id": "abcd')
    desk.owner.step()
    assert desk.details("unreadable") == []
    desk.report("completed")
    assert desk.settle() == "accepted"
    assert len(desk.details("unreadable")) == 1


def test_a_report_in_two_pieces_is_one_report(desk: Desk) -> None:
    """A line that is still being written is left alone until its end is there."""
    line = journal.encode(journal.new_event(JOB, "completed"))
    desk.write(line[:40])
    desk.owner.step()
    assert desk.owner.job.state is JobState.RUNNING
    desk.write(line[40:])
    assert desk.settle() == "accepted"
    assert desk.details("unreadable") == []


def test_unreadable_lines_are_counted(desk: Desk) -> None:
    """Lines that are no reports become one event with their number, and the reports among them count."""
    desk.write(b"garbage\n\xff\xff\n[1]\n")
    desk.report("progress", "in between")
    desk.write(b'{"id": "", "job_id": "abcdefghjk", "kind": "completed"}\n')
    desk.owner.step()
    assert desk.details("unreadable") == ["4 lines in reports.jsonl are no reports of this job"]
    assert desk.details("progress") == ["in between"]
    desk.owner.step()
    assert len(desk.details("unreadable")) == 1


def test_unreadable_lines_are_counted_once_after_a_crash(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that dies after it mentioned them leaves them to the next one, who mentions only new ones."""
    desk.write(b"garbage\n")
    desk.report("progress", "never recorded by the first owner")
    record = desk.registry.record

    def dies_at_progress(event: Any, *args: Any, **how: Any) -> int | None:
        if event.kind == "progress":
            raise StorageFullError("no room")
        return record(event, *args, **how)

    monkeypatch.setattr(desk.registry, "record", dies_at_progress)
    with pytest.raises(StorageFullError):
        desk.owner.step()
    monkeypatch.undo()
    desk.report("progress", "written meanwhile")
    desk.take_over().step()
    assert len(desk.details("unreadable")) == 1
    assert desk.details("progress") == ["never recorded by the first owner", "written meanwhile"]


@pytest.mark.parametrize("recorded", range(5))
def test_a_crash_between_reading_and_recording_loses_and_doubles_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, recorded: int
) -> None:
    """However many of the events that were read got recorded: the next owner records each of them once."""
    for number in range(4):
        desk.report("progress", str(number))
    left = recorded
    record = desk.registry.record

    def dies(*args: Any, **how: Any) -> int | None:
        nonlocal left
        if not left:
            raise StorageFullError("no room")
        left -= 1
        return record(*args, **how)

    monkeypatch.setattr(desk.registry, "record", dies)
    if recorded < 4:
        with pytest.raises(StorageFullError):
            desk.owner.step()
    else:
        desk.owner.step()
    monkeypatch.undo()
    desk.take_over().step()
    assert desk.details("progress") == ["0", "1", "2", "3"]


def test_what_was_said_survives_a_full_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's own words are not lost when they cannot be recorded: the same step later records them."""
    desk.owner.say(Kind.STALLED)
    with monkeypatch.context() as patch:
        patch.setattr(desk.registry, "record", _no_room)
        with pytest.raises(StorageFullError):
            desk.owner.step()
    desk.owner.step()
    assert desk.heard.kinds.count("stalled") == 1


def _no_room(*_: Any, **__: Any) -> int | None:
    raise StorageFullError("no room")


def test_a_shortened_file_is_read_from_its_start(desk: Desk) -> None:
    """After a truncation the file's new reports count, and those it still has are not applied again."""
    for number in range(5):
        desk.report("progress", str(number))
    desk.owner.step()
    size = desk.reports.stat().st_size
    os.truncate(desk.reports, size // 5)
    desk.reported("progress", "new")
    assert desk.details("progress") == ["0", "1", "2", "3", "4", "new"]


def test_an_emptied_file_of_the_same_length_is_read_again(desk: Desk) -> None:
    """A file that was replaced by another is read from its start, whatever its length and inode."""
    desk.report("progress", "in the first file")
    desk.owner.step()
    desk.reports.unlink()
    desk.report("progress", "x" * 5000)
    desk.report("completed")
    assert desk.settle() == "accepted"
    assert desk.details("progress") == ["in the first file", "x" * 5000]


def test_a_removed_log_directory_stops_no_report(desk: Desk) -> None:
    """The whole audit directory is removed in mid-job; what is reported afterwards counts."""
    desk.reported("progress", "before")
    shutil.rmtree(desk.log.path)
    desk.owner.step()
    desk.report("completed")
    assert desk.settle() == "accepted"


@pytest.mark.parametrize("thing", ["directory", "fifo", "link", "hard link"])
def test_what_stands_in_place_of_the_reports_is_not_read(desk: Desk, tmp_path: Path, thing: str) -> None:
    """A directory, FIFO, symbolic or hard link named reports.jsonl hangs nothing and claims nothing."""
    forged = tmp_path / "forged"
    forged.write_bytes(journal.encode(journal.new_event(JOB, "completed")))
    make: dict[str, Callable[[], None]] = {
        "directory": desk.reports.mkdir,
        "fifo": lambda: os.mkfifo(desk.reports),
        "link": lambda: desk.reports.symlink_to(forged),
        "hard link": lambda: desk.reports.hardlink_to(forged),
    }
    make[thing]()
    desk.owner.step()
    assert desk.owner.job.state is JobState.RUNNING
    desk.report("completed")
    assert desk.settle() == "accepted"
    assert forged.read_bytes().count(b"completed") == 1


# -- what is left behind


def test_what_happened_is_a_file_too(desk: Desk) -> None:
    """events.jsonl has each event with the registry's sequence number; the audit directory gets a copy."""
    desk.reported("progress", "half")
    desk.report("completed")
    assert desk.settle() == "accepted"
    expected = [(each.sequence, each.event.id) for each in desk.registry.events(JOB)]
    assert [(line["sequence"], line["id"]) for line in desk.happened()] == expected
    names = {path.name for path in Path(desk.log.path).iterdir()}
    assert {"events.jsonl", "prompt.md", "instructions.md", REPORTS, "result.json"} <= names
    result = json.loads((Path(desk.log.path) / "result.json").read_bytes())
    assert (result["outcome"], result["exit_code"]) == ("accepted", 0)


def test_a_new_owner_fills_the_gaps_of_the_one_before(desk: Desk) -> None:
    """What an owner recorded and did not live to write down stands in events.jsonl after the takeover."""
    desk.reported("progress", "written")
    events = desk.registry.paths.job(JOB).events
    whole = events.stat().st_size
    desk.reported("progress", "recorded, and its line torn")
    os.truncate(events, whole + 40)
    desk.take_over().step()
    desk.report("completed")
    desk.settle()
    lines = [line for line in events.read_bytes().split(b"\n") if line]
    torn = [line for line in lines if not line.endswith(b"}")]
    sequences = [json.loads(line)["sequence"] for line in lines if line not in torn]
    assert sequences == [each.sequence for each in desk.registry.events(JOB)]
    assert len(torn) == 1


def test_what_could_not_be_written_is_written_with_the_next_event(desk: Desk) -> None:
    """A file that cannot be opened is a warning; the job goes on, and later nothing is missing."""
    events = desk.registry.paths.job(JOB).events
    events.rename(events.with_suffix(".away"))
    events.mkdir()
    desk.reported("progress", "meanwhile")
    assert desk.heard.warnings == [f"{events}: Is a directory"]
    events.rmdir()
    events.with_suffix(".away").rename(events)
    desk.reported("progress", "again")
    sequences = [line["sequence"] for line in desk.happened()]
    assert sequences == [each.sequence for each in desk.registry.events(JOB)]


def test_a_flood_is_taken_in_by_shares(desk: Desk) -> None:
    """One step takes a part of a flood and wants the next one at once; in the end all of it is there."""
    for number in range(3000):
        desk.write(journal.encode(journal.new_event(JOB, "progress", str(number))))
    desk.owner.step()
    assert 0 < len(desk.details("progress")) < 3000
    assert desk.owner.next_step_in() == 0
    desk.run_until(lambda: desk.owner.next_step_in() > 0)
    assert desk.details("progress") == [str(number) for number in range(3000)]


def test_secrets_are_forgotten_when_the_job_is_done(desk: Desk) -> None:
    """The environment of the submit is removed with the end of the job."""
    paths = desk.registry.paths.job(JOB)
    assert paths.environ.exists()
    desk.report("completed")
    desk.settle()
    assert not paths.environ.exists()
    assert not paths.launch.exists()


def test_clocks_go_on_where_they_stood(desk: Desk) -> None:
    """A new owner has the rest of `--timeout`, not all of it, and not less for the time without an owner."""
    desk.reported("progress")
    left = desk.registry.row(JOB).progress.timeout_left
    assert left is not None
    assert 0 < left < desk.spec.timeout
    desk.take_over().step()
    desk.reported("progress")
    again = desk.registry.row(JOB).progress.timeout_left
    assert again is not None
    assert left - 60 < again <= left


def test_a_second_owner_shuts_the_first_one_out(desk: Desk) -> None:
    """An owner whose job was taken over writes nothing any more: its epoch is over."""
    with Registry(desk.registry.paths) as other:
        other.take_ownership(JOB, pid=1, host="here")
    desk.report("completed")
    with pytest.raises(Exception, match="has another owner now"):
        desk.owner.step()
    assert desk.registry.row(JOB).job.state is JobState.RUNNING


def test_an_answer_before_its_enter_is_an_answer(place: Place) -> None:
    """An agent that answers as soon as a rejection is pasted can be rejected again, and then be accepted."""
    agent = """
        "$DJ" publish --event completed
        for _ in 1 2; do
            read -r line
            while read -r -t 0.1 line; do :; done
            "$DJ" publish --event completed
        done
        sleep 60
    """
    check = place.script("check", 'test "$JOB_ATTEMPT" = 3')
    done = place.submit(agent, "--validate", check, "--attempts", "3", "--timeout", "30", "--close")
    assert done.returncode == 0, done
    assert done.stdout.count("validation: FAIL (exit 1)") == 2


def test_a_flood_of_reports_keeps_no_cancel_waiting(place: Place) -> None:
    """An agent that writes reports without end is cancelled as any other."""
    agent = """#!python
import json, os
path = os.path.join(os.environ["DELEGATE_JOB_DIR"], "reports.jsonl")
number = 0
with open(path, "ab", buffering=0) as file:
    while True:
        number += 1
        event = {"id": str(number), "job_id": os.environ["DELEGATE_JOB_ID"], "kind": "progress", "at": ""}
        file.write(b"\\n" + json.dumps(event).encode() + b"\\n")
        if os.fstat(file.fileno()).st_size > 20_000_000:
            break
"""
    submit = place.start(*place.submit_args(agent), stdout=-3)
    job_id = place.await_job()
    wait_until(lambda: place.log_dir(job_id).joinpath(REPORTS).exists(), what="the flood")
    assert place.run("cancel", job_id, timeout=60).returncode == 0
    assert submit.wait(20) == 9
