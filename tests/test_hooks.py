"""What hooks report, and that a broken one harms nobody: run as agents run them, with real payloads."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hooked
from delegate_job import hook_proof, hook_queue, journal
from delegate_job.agent_hooks import Answer, claude_code
from delegate_job.events import Event, Source
from delegate_job.hook_state import HookState
from delegate_job.inbox import of_hook
from harness import wait_until
from hooked import ASK, JOB, Hooked

CLAUDE = hooked.samples("claude_2.1.330")
MORE_THAN_A_PIPE_HOLDS = 1 << 17
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({name for payload in CLAUDE for name in payload})


@pytest.fixture
def job(tmp_path: Path) -> Hooked:
    """Give a job whose hooks may be run."""
    return Hooked(tmp_path)


@pytest.fixture
def asked(job: Hooked) -> Iterator[subprocess.Popen[bytes]]:
    """Give the hook of an open permission dialog, which waits for its answer."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    process = job.start("PermissionRequest", payload("PermissionRequest"))
    wait_until(lambda: "permission_required" in job.kinds(), what="the report")
    yield process
    process.kill()
    process.communicate()


def payload(event: str, **changes: Any) -> dict[str, Any]:
    """Return the first sample of this event, with changes."""
    return next(each for each in CLAUDE if each["hook_event_name"] == event) | changes


def stop(**changes: Any) -> dict[str, Any]:
    """Return the end of a turn with nothing in the background."""
    return payload("Stop", **({"background_tasks": []} | changes))


# -- what is reported


def test_claude_s_events_become_our_kinds(job: Hooked) -> None:
    """Each native event is told as what it means, with what a person needs to know, and proves its hook."""
    job.run("SessionStart", payload("SessionStart"))
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.run("PostToolUse", payload("PostToolUse"))
    job.run("StopFailure", payload("StopFailure"))
    job.run("SessionEnd", payload("SessionEnd"))
    events = job.events()
    assert {event.source for event in events} == {Source.HOOK}
    assert [(event.kind, event.data["hook"]) for event in events] == [
        ("started", "SessionStart"),
        ("progress", "UserPromptSubmit"),
        ("progress", "PostToolUse"),
        ("error", "StopFailure"),
        ("session_ended", "SessionEnd"),
    ]
    assert events[0].data["session_id"] == payload("SessionStart")["session_id"]
    assert (job.agent_dir / "session").read_text() == payload("SessionStart")["session_id"]
    assert events[3].data["error_class"] == "authentication_failed"


@pytest.mark.parametrize("sample", CLAUDE, ids=lambda each: each["hook_event_name"])
def test_no_sample_is_answered(job: Hooked, sample: dict[str, Any]) -> None:
    """Nothing that Claude has ever told is answered by chance: only a stop that is asked about prints."""
    event = sample["hook_event_name"]
    if event != "PermissionRequest":
        assert job.run(event, sample) == ""


@given(st.sampled_from([*claude_code._MEANINGS, "Other"]), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_payload_is_too_odd(event: str, odd: dict[str, Any]) -> None:
    """Whatever the fields hold, a meaning comes out, and what it tells can be written down and is bounded."""
    heard = claude_code.heard(event, odd)
    line = journal.encode(journal.new_event(JOB, heard.kind or "none", heard.detail, heard.data))
    assert len(line) < 64 * 1024
    assert "/" not in heard.opens


def test_progress_is_told_once_a_second(job: Hooked) -> None:
    """A flood of tools is one report a second, and a receipt is told in any case."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    began = time.monotonic()
    for _ in range(5):
        job.run("PostToolUse", payload("PostToolUse"))
    assert job.kinds().count("progress") <= 2 + (time.monotonic() - began)
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    assert [event.data["receipt"] for event in job.events() if "receipt" in event.data] == [1, 2]


# -- the end of a turn


def test_a_turn_without_a_report_is_asked_about_once(job: Hooked) -> None:
    """The first stop is blocked with the commands to report with; the second one is the turn's end."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    answer = json.loads(job.run("Stop", stop()))
    assert answer == {"decision": "block", "reason": ASK}
    assert "turn_ended" not in job.kinds()
    assert job.run("Stop", stop(stop_hook_active=True)) == ""
    assert job.kinds()[-1] == "turn_ended"


@pytest.mark.parametrize("claim", ["completed", "error"])
def test_a_turn_with_a_claim_just_ends(job: Hooked, claim: str) -> None:
    """Who has reported is not asked, and the end is no `turn_ended`: a rejection may be on its way."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.says("progress")
    job.says(claim)
    assert job.run("Stop", stop()) == ""
    assert (job.kinds()[-1], job.events()[-1].detail) == ("progress", "turn ended")


def test_a_claim_of_the_turn_before_is_none_of_this(job: Hooked) -> None:
    """After a rejection the agent is asked again, though it has reported before."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.says("completed")
    job.run("Stop", stop())
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    assert ASK in job.run("Stop", stop())


def transcript(
    job: Hooked, *operations: str, at: datetime | None = None, says: str = "", before: str = ""
) -> str:
    """Write a transcript with these operations on the queue, as claude-code 2.1.330 does; return its path.

    What the agent says stands behind them, and before them.
    """
    when = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    queue = [{"type": "queue-operation", "operation": each, "timestamp": when} for each in operations]
    said = [
        {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}
        for text in (before, says or str(stop()["last_assistant_message"]))
    ]
    entries = [{"type": "mode"}, said[0], *queue, said[1], {"type": "system"}]
    lines = [json.dumps(entry) for entry in entries]
    path = job.job_dir / "transcript.jsonl"
    path.write_text("\n".join([*lines, '{"type":"queue-operation", cut']))
    return str(path)


def joined_by_a_prompt(job: Hooked, claim: str = "") -> None:
    """Begin a turn, and let a prompt come in its middle: it is told with the id of the first."""
    prompt = payload("UserPromptSubmit", prompt_id=stop()["prompt_id"])
    job.run("UserPromptSubmit", prompt)
    if claim:
        job.says(claim)
    job.run("UserPromptSubmit", prompt)


def test_a_prompt_that_waits_in_the_queue_is_a_turn_of_its_own(job: Hooked) -> None:
    """The end of the turn in whose middle it came is no end; the next turn is asked about like any other."""
    joined_by_a_prompt(job, "completed")
    assert job.run("Stop", stop(transcript_path=transcript(job, "enqueue", "remove", "enqueue"))) == ""
    assert job.events()[-1].detail == "turn ended; the next begins with what was sent"
    assert ASK in job.run("Stop", stop(transcript_path=transcript(job, "enqueue", "dequeue")))
    assert job.run("Stop", stop(stop_hook_active=True)) == ""
    assert job.kinds()[-1] == "turn_ended"


@pytest.mark.parametrize(
    "operations", [["enqueue", "enqueue", "dequeue"], ["enqueue", "enqueue", "remove"], ["remove", "enqueue"]]
)
def test_one_prompt_of_several_waits_too(job: Hooked, operations: list[str]) -> None:
    """What counts is how many went in and out, whatever was the last."""
    joined_by_a_prompt(job)
    assert job.run("Stop", stop(transcript_path=transcript(job, *operations))) == ""
    assert job.kinds()[-1] == "progress"


def test_a_prompt_may_join_what_the_background_has_begun(job: Hooked) -> None:
    """After an end that was none a turn begins without a prompt; one that comes in its middle may wait."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.run("Stop", payload("Stop"))
    job.run("UserPromptSubmit", payload("UserPromptSubmit", prompt_id=stop()["prompt_id"]))
    assert job.run("Stop", stop(transcript_path=transcript(job, "enqueue"))) == ""
    assert job.kinds()[-1] == "progress"


def test_a_turn_that_no_hook_begins_ends_like_any_other(job: Hooked) -> None:
    """Esc lets claude-code 2.1.330 go on with what is queued, and none of its hooks tells of that."""
    joined_by_a_prompt(job)
    job.run("Interrupted", {})
    assert job.kinds()[-1] == "permission_required"
    assert ASK in job.run("Stop", stop(transcript_path=transcript(job, "enqueue", "dequeue")))
    assert job.run("Stop", stop(stop_hook_active=True)) == ""
    assert job.kinds()[-1] == "turn_ended"


@pytest.mark.parametrize(
    "operations",
    [["enqueue", "remove"], ["enqueue", "dequeue"], ["enqueue", "enqueue", "popAll"], ["no such"], []],
)
def test_a_prompt_that_went_into_the_turn_ends_with_it(job: Hooked, operations: list[str]) -> None:
    """What the running turn has taken in, or nothing tells of, is asked about at once."""
    joined_by_a_prompt(job, "completed")
    assert ASK in job.run("Stop", stop(transcript_path=transcript(job, *operations)))


def test_only_the_prompt_of_this_turn_is_looked_for(job: Hooked) -> None:
    """What was queued before it, or in a turn that began alone, delays nobody."""
    long_ago = datetime.now(UTC) - timedelta(seconds=60)
    joined_by_a_prompt(job)
    assert ASK in job.run("Stop", stop(transcript_path=transcript(job, "enqueue", at=long_ago)))
    job.run("Stop", stop())
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    assert ASK in job.run("Stop", stop(transcript_path=transcript(job, "enqueue")))


def test_a_queue_that_is_told_of_late_is_waited_for(job: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transcript is written a moment after the hook of the prompt has ended."""
    monkeypatch.setattr(hook_queue, "TOLD_WITHIN", 30.0)
    since = journal.new_event(JOB, "progress")["at"]
    path = transcript(job)
    writer = threading.Timer(0.1, lambda: transcript(job, "enqueue"))
    writer.start()
    assert hook_queue.is_queued(claude_code, path, since, str(stop()["last_assistant_message"])) is True
    writer.join()


def test_a_transcript_that_is_behind_is_waited_for(job: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a prompt has left the queue is written late too: what was said last shows that all is there."""
    monkeypatch.setattr(hook_queue, "TOLD_WITHIN", 30.0)
    since, said = journal.new_event(JOB, "progress")["at"], "It is done."
    path = transcript(job, "enqueue", says="Another thing.", before=said)
    writer = threading.Timer(0.1, lambda: transcript(job, "enqueue", "remove", says=said))
    writer.start()
    assert hook_queue.is_queued(claude_code, path, since, said) is False
    writer.join()


@pytest.mark.parametrize("says", ["It is done.", "", "x" * 5000])
def test_the_end_of_the_queued_prompts_own_turn(job: Hooked, says: str) -> None:
    """The agent's own id of the prompt tells, whatever the transcript says: after Esc it comes first."""
    joined_by_a_prompt(job)
    path = transcript(job, "enqueue", says=says)
    told = {"transcript_path": path, "last_assistant_message": says}
    assert ASK in job.run("Stop", stop(**told, prompt_id="second"))


@pytest.mark.parametrize("where", ["", "missing", "a pipe", "a directory", "nul\0", "relative"])
def test_a_transcript_that_cannot_be_read_tells_of_nothing(job: Hooked, where: str) -> None:
    """Then the turn has ended as any other, in bounded time."""
    joined_by_a_prompt(job)
    path = job.job_dir / where
    if where == "a pipe":
        os.mkfifo(path)
    elif where == "a directory":
        path.mkdir()
    told = where if where in {"", "nul\0", "relative"} else str(path)
    assert ASK in job.run("Stop", stop(transcript_path=told))


def test_an_agent_that_asked_for_a_person_goes_on_waiting(job: Hooked) -> None:
    """After its own `permission_required` the end of the turn says nothing: the job waits as it said."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.says("permission_required", "which one?")
    before = len(job.events())
    assert job.run("Stop", stop()) == ""
    assert len(job.events()) == before


def test_what_runs_in_the_background_is_no_end(job: Hooked) -> None:
    """F25: a stop with tasks still running is `progress`; so is the end of a subagent."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    assert job.run("Stop", payload("Stop")) == ""
    job.run("SubagentStop", payload("SubagentStop"))
    assert set(job.kinds()) == {"progress"}


def test_nothing_works_after_the_end_of_a_turn(job: Hooked) -> None:
    """A tool's hook that comes late, being asynchronous, does not make a waiting job a running one."""
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.run("Stop", stop())
    job.run("Stop", stop())
    job.run("PostToolUse", payload("PostToolUse"))
    assert job.kinds()[-1] == "turn_ended"


def test_an_interrupted_turn_ends_too(job: Hooked) -> None:
    """Esc is told by nothing but the later idle notification; after a turn's own end that says nothing."""
    idle = payload("Notification")
    job.run("UserPromptSubmit", payload("UserPromptSubmit"))
    job.run("Notification", idle)
    job.run("Notification", idle)
    assert job.kinds() == ["progress", "permission_required"]
    assert job.events()[-1].data["reason"] == "interrupted"


@pytest.mark.parametrize("name", ["MessageAbortedError", "APIError"])
def test_who_was_interrupted_is_not_asked(tmp_path: Path, name: str) -> None:
    """After an end by a person or an error opencode 1.18.33 is idle twice; nobody is asked for a report."""
    job = Hooked(tmp_path, "opencode")
    job.run("chat.message", {"session_id": "s", "prompt": "Make it so."})
    job.run("session.error", {"name": name, "message": "no"})
    told = job.kinds()
    assert [job.run("session.idle", {"last": ""}) for _ in range(2)] == ["", ""]
    assert job.kinds() == told


def test_without_a_place_to_remember_nobody_is_asked_for_ever(job: Hooked) -> None:
    """When it cannot be noted that the agent was asked, it is not asked."""
    (job.agent_dir / "turn").mkdir()
    assert job.run("Stop", stop()) == ""
    assert job.kinds() == ["turn_ended"]


# -- dialogs


@pytest.mark.parametrize(
    ("kind", "fields", "decision"),
    [
        ("approved", {}, {"behavior": "allow"}),
        ("denied", {"detail": "not there"}, {"behavior": "deny", "message": "not there"}),
        ("denied", {}, {"behavior": "deny", "message": "The user said no."}),
    ],
)
def test_a_user_s_answer_is_handed_on(
    job: Hooked,
    asked: subprocess.Popen[bytes],
    kind: str,
    fields: dict[str, Any],
    decision: dict[str, Any],
) -> None:
    """The waiting hook prints the decision that was written for it, and says that the dialog is answered."""
    told = job.events()[-1]
    assert (told.data["tool"], told.detail) == ("Bash", "Bash: touch marker && echo done")
    job.answers("approved", request="another")
    job.answers(kind, request=told.data["request"], **fields)
    stdout, stderr = asked.communicate(timeout=20)
    printed = json.loads(stdout)["hookSpecificOutput"]
    assert (printed["hookEventName"], printed["decision"], stderr) == ("PermissionRequest", decision, b"")
    assert (asked.returncode, job.kinds()[-1]) == (0, "resumed")


def test_a_person_who_answers_in_the_pane_wins(job: Hooked, asked: subprocess.Popen[bytes]) -> None:
    """When the tool has run, the waiting hook ends without a word, and the job is told to go on."""
    tool = payload("PermissionRequest")
    job.run("PostToolUse", payload("PostToolUse", tool_input=tool["tool_input"], tool_name="Bash"))
    assert asked.communicate(timeout=20) == (b"", b"")
    assert job.kinds()[-1] == "resumed"


def test_another_tool_s_end_answers_no_dialog(job: Hooked, asked: subprocess.Popen[bytes]) -> None:
    """A tool that ran beside the one in question leaves its dialog open."""
    job.run("PostToolUse", payload("PostToolUse", tool_input={"command": "ls"}, tool_name="Bash"))
    assert "resumed" not in job.kinds()
    assert asked.poll() is None


def test_a_person_who_refuses_in_the_pane_is_waited_for(job: Hooked, asked: subprocess.Popen[bytes]) -> None:
    """No event follows an Esc; but Claude ends the hook, which says why the job waits and decides nothing."""
    asked.terminate()
    assert asked.communicate(timeout=20) == (b"", b"")
    told = job.events()[-1]
    assert (told.kind, told.data["reason"], asked.returncode) == ("permission_required", "interrupted", 0)
    job.run("PostToolUse", payload("PostToolUse"))
    assert job.events()[-1] == told


@pytest.mark.parametrize("how", ["the job ended", "its directory is gone"])
def test_a_hook_does_not_wait_for_nobody(job: Hooked, asked: subprocess.Popen[bytes], how: str) -> None:
    """When the job is done or removed, the waiting hook ends and decides nothing."""
    if how == "the job ended":
        (job.job_dir / "environ.json").unlink()
    else:
        job.job_dir.rename(job.job_dir.with_name("gone"))
    assert asked.communicate(timeout=20) == (b"", b"")


def test_a_hook_ends_with_its_agent(job: Hooked, tmp_path: Path) -> None:
    """A waiting hook whose parent was killed does not stay behind."""
    (tmp_path / "payload").write_text(json.dumps(payload("PermissionRequest")))
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[2:], stdin=open(sys.argv[1], 'rb'), stdout=2)\n"
        "print(child.pid, flush=True); input()"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "payload"), *job.argv("PermissionRequest")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: "permission_required" in job.kinds(), what="the report")
        assert is_running(pid)
        parent.kill()
    wait_until(lambda: not is_running(pid), what="the hook's end")


def test_a_hook_ends_whose_agent_was_killed_before_it_read_its_payload(job: Hooked) -> None:
    """Who adopts a hook is not its agent."""
    code = (
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=2)\n"
        "os.close(0); print(child.pid, flush=True); signal.pause()"
    )
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as stdin:
        argv = [sys.executable, "-c", code, *job.argv("PermissionRequest")]
        with subprocess.Popen(argv, stdin=read, stdout=subprocess.PIPE) as parent:
            os.close(read)
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            stdin.write(b" " * MORE_THAN_A_PIPE_HOLDS)  # It returns when the hook has begun to read.
            parent.kill()
        stdin.write(json.dumps(payload("PermissionRequest")).encode())
    wait_until(lambda: "permission_required" in job.kinds(), what="the report")
    wait_until(lambda: not is_running(pid), what="the hook's end")


def is_running(pid: int) -> bool:
    """Return whether this process runs; one that nobody has waited for has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def test_a_killed_hook_leaves_no_dialog(job: Hooked, asked: subprocess.Popen[bytes]) -> None:
    """A dialog counts only while its hook waits for the answer; a new session forgets all."""
    state = HookState(str(job.agent_dir))
    assert [told["what"] for _, told in state.dialogs()] == ["Bash: touch marker && echo done"]
    asked.kill()
    asked.wait()
    assert list(state.dialogs()) == []
    assert list(job.agent_dir.glob("dialog-*"))
    job.run("SessionStart", payload("SessionStart"))
    assert not list(job.agent_dir.glob("dialog-*"))


def test_questions_are_answered_in_their_own_words() -> None:
    """An answer to AskUserQuestion goes in as `updatedInput.answers`, beside the questions."""
    (question,) = [
        each
        for each in CLAUDE
        if each["hook_event_name"] == "PermissionRequest" and each["tool_name"] == "AskUserQuestion"
    ]
    heard = claude_code.heard("PermissionRequest", question)
    assert heard.question == [("Which colour?", ["Red", "Blue"])]
    given = Answer(allow=True, answers={"Which colour?": "Blue"})
    printed = json.loads(claude_code.decision(question, given))["hookSpecificOutput"]["decision"]
    assert printed["updatedInput"] == question["tool_input"] | {"answers": {"Which colour?": "Blue"}}
    (after,) = [each for each in CLAUDE if "answers" in each.get("tool_input", {})]
    assert claude_code.heard("PostToolUse", after).closes == heard.opens


# -- hooks that fail


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[1]",
        b"\xff\xfe",
        b"{",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"x": "' + b"y" * (17 << 20) + b'"}',
    ],
    ids=["empty", "null", "a list", "not UTF-8", "torn", "deep", "deeper", "huge"],
)
def test_a_payload_that_is_none(job: Hooked, raw: bytes) -> None:
    """What cannot be read is an event without fields: told as what its name says, and no decision."""
    assert job.run("PostToolUse", raw) == ""
    assert job.kinds() == ["progress"]


@pytest.mark.parametrize(
    "harm",
    ["no agent directory", "read-only logs", "unknown agent", "no arguments", "log dir of another name"],
)
def test_a_broken_hook_harms_nobody(job: Hooked, harm: str) -> None:
    """Whatever is missing: exit code 0, and not a byte on stdout that an agent could take for a decision."""
    argv = job.argv("StopFailure")
    if harm == "no agent directory":
        job.job_dir.rename(job.job_dir.with_name("gone"))
    elif harm == "read-only logs":
        job.log_dir.parent.write_text("a file")
    elif harm == "unknown agent":
        argv[6] = "../nobody"
    elif harm == "no arguments":
        del argv[6:]
    else:
        argv[8] += "x"
    done = subprocess.run(argv, input=b"{}", capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"")
    assert not Path(f"{job.log_dir}x").exists()


def test_a_hook_ends_though_its_payload_never_does(job: Hooked) -> None:
    """A hook that is held up ends by itself, with 0 and without a word."""
    code = "import sys; from delegate_job import hooks; hooks.LIMIT = 0.5; hooks.main(sys.argv[1:])"
    argv = [sys.executable, "-c", code, *job.argv("Stop")[6:]]
    read, write = os.pipe()
    with subprocess.Popen(argv, stdin=read, stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=20)[0] == b""
    os.close(read)
    os.close(write)
    assert process.returncode == 0


# -- who is believed


def test_only_the_job_s_key_makes_a_hook() -> None:
    """A proof is one event's: not another id's, another kind's, or another job's."""
    proven = hook_proof.proof("key", "id", "turn_ended")
    others = [("key", "id2", "turn_ended"), ("key", "id", "started"), ("key2", "id", "turn_ended")]
    assert proven not in {hook_proof.proof(*other) for other in others}
    assert hook_proof.proof("", "id", "turn_ended") == ""


@pytest.mark.parametrize("forged", ["", "x", None, 7, {}], ids=repr)
def test_a_forged_proof_proves_nothing(job: Hooked, forged: object) -> None:
    """An agent that writes `hook` and `proof` by guess stays an agent, also where the job has no key."""
    for key in (True, False):
        if not key:
            (job.agent_dir / hook_proof.KEY).unlink()
        line = json.dumps({"id": "1", "job_id": JOB, "kind": "turn_ended", "hook": "Stop", "proof": forged})
        event = journal.parse(line.encode(), job_id=JOB, source=Source.AGENT, received_at="")
        assert isinstance(event, Event)
        assert of_hook(event, str(job.agent_dir)).source is Source.AGENT


def test_a_hook_loads_nothing_heavy(job: Hooked) -> None:
    """An agent may wait for it: no enumerations, regular expressions, `json`, `typing` or `pathlib`."""
    argv = job.argv("UserPromptSubmit")
    argv[1:1] = ["-X", "importtime"]
    told = json.dumps(payload("UserPromptSubmit")).encode()
    done = subprocess.run(argv, input=told, capture_output=True, check=False, timeout=30)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "delegate_job.hooks" in loaded
    assert not loaded & {"enum", "re", "json", "typing", "pathlib", "subprocess", "datetime", "hashlib"}
    assert job.kinds() == ["progress"]
