"""What the native events of codex, gemini and opencode mean, from payloads that these agents really sent."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_job.agent_hooks import Heard

DATA = Path(__file__).parent / "data/hooks"
EVENTS = {
    "codex": (
        "SessionStart",
        "UserPromptSubmit",
        "PermissionRequest",
        "PostToolUse",
        "Stop",
        "Interrupt",
        "SessionEnd",
        "task_complete",
    ),
    "gemini": ("SessionStart", "BeforeAgent", "AfterTool", "Notification", "AfterAgent", "SessionEnd"),
    "opencode": (
        "session.created",
        "chat.message",
        "permission.asked",
        "permission.replied",
        "tool.execute.after",
        "session.retry",
        "session.error",
        "session.idle",
    ),
}
NAMES = [
    *("source", "session_id", "transcript_path", "tool_name", "tool_input", "notification_type", "details"),
    *("prompt", "prompt_response", "last_assistant_message", "error", "name", "message", "attempt", "id"),
    *("tool", "input", "last", "reply", "reason"),
]


def heard(agent: str, event: str, payload: dict[str, Any]) -> Heard:
    """Return what an agent's event means."""
    found: Heard = import_module(f"delegate_job.agent_hooks.{agent}").heard(event, payload)
    return found


def sent(agent: str) -> dict[str, dict[str, Any]]:
    """Return for each event the payload that was sent."""
    (file,) = DATA.glob(f"{agent}_*.jsonl")
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    return {entry["event"]: entry["payload"] for entry in reversed(entries)}


@pytest.mark.parametrize(
    ("agent", "event", "kind", "detail", "turn"),
    [
        ("codex", "SessionStart", "started", None, ""),
        ("codex", "UserPromptSubmit", "progress", "turn started", "begins"),
        ("codex", "PostToolUse", "progress", "Bash: touch marker && echo done", ""),
        (
            "codex",
            "PermissionRequest",
            "permission_required",
            "Bash: touch /home/dev/project/outside-marker && echo done",
            "",
        ),
        (
            "codex",
            "Stop",
            "turn_ended",
            "All finished: the marker file exists.",
            "ends",
        ),
        ("codex", "Interrupt", "turn_ended", "interrupted", "interrupted"),
        ("codex", "SessionEnd", "session_ended", "other", ""),
        ("codex", "codex-notify", None, None, ""),
        ("gemini", "SessionStart", "progress", "session opened", ""),
        ("gemini", "BeforeAgent", "started", "turn started", "begins"),
        ("gemini", "PreCompress", None, None, ""),
        (
            "gemini",
            "Notification",
            "permission_required",
            "Confirm Shell Command: touch marker && echo done",
            "",
        ),
        (
            "gemini",
            "AfterAgent",
            "turn_ended",
            "All finished: the marker file exists.",
            "ends",
        ),
    ],
)
def test_what_was_sent_is_understood(
    agent: str, event: str, kind: str | None, detail: str | None, turn: str
) -> None:
    """Each payload is the report that it stands for."""
    meant = heard(agent, event, sent(agent)[event])
    assert (meant.kind, meant.detail, meant.turn) == (kind, detail, turn)


def test_gemini_without_an_answer_has_failed() -> None:
    """The end of a turn in which the model said nothing is an error."""
    meant = heard("gemini", "AfterAgent", {"prompt_response": "[no response text]"})
    assert (meant.kind, meant.turn) == ("error", "fails")


def test_opencode_tells_what_fails_and_what_was_stopped() -> None:
    """An aborted message is an interruption, any other error one, a retry no more than progress."""
    assert heard("opencode", "session.error", {"name": "MessageAbortedError"}).turn == "interrupted"
    assert heard("opencode", "session.error", {"name": "APIError", "message": "no"}).detail == "APIError: no"
    assert heard("opencode", "session.retry", {"attempt": 2, "message": "x"}).kind == "progress"


@pytest.mark.parametrize(
    ("agent", "opens", "closes", "ask", "done"),
    [
        (
            "codex",
            "PermissionRequest",
            "PostToolUse",
            {"tool_name": "Bash", "tool_input": {"command": "x", "description": "why"}},
            {"tool_name": "Bash", "tool_input": {"command": "x"}},
        ),
        ("opencode", "permission.asked", "permission.replied", {"id": "per_1"}, {"id": "per_1"}),
        ("gemini", "Notification", "AfterTool", {"notification_type": "ToolPermission"}, {}),
    ],
)
def test_a_dialog_and_its_end_have_the_same_key(
    agent: str, opens: str, closes: str, ask: dict[str, Any], done: dict[str, Any]
) -> None:
    """What closes a dialog names the one that was opened."""
    key = heard(agent, opens, ask).opens
    assert key
    assert heard(agent, closes, done).closes == key


@given(
    st.sampled_from([(agent, event) for agent, events in EVENTS.items() for event in events]),
    st.dictionaries(
        st.sampled_from(NAMES),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*NAMES, "command"]), inner),
            max_leaves=8,
        ),
    ),
)
def test_no_payload_is_too_odd(named: tuple[str, str], payload: dict[str, Any]) -> None:
    """Fields that are missing or of a wrong type make less of a report, and never a fault; all is bounded."""
    meant = heard(*named, payload)
    assert meant.kind in {
        None,
        "started",
        "progress",
        "permission_required",
        "turn_ended",
        "error",
        "session_ended",
    }
    assert len(meant.detail or "") < 5000
    json.dumps(meant.data)
