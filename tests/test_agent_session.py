"""What an owner knows of an agent's session from the recorded events alone, as after a takeover."""

from pathlib import Path
from typing import Any

import pytest

import samples
from delegate_job.agent_session import AgentSession
from delegate_job.events import Kind
from delegate_job.paths import JobPaths


@pytest.fixture
def session(tmp_path: Path) -> AgentSession:
    """Give the session of a running job whose runner was seen once and is gone."""
    (tmp_path / "runner.lock").write_text("runner 1 1 boot\n")
    job = samples.job(state="running")
    return AgentSession(job, JobPaths(tmp_path), tmux_socket="/nowhere", tmux_label="")


def told(session: AgentSession, *kinds: tuple[Kind, dict[str, Any]]) -> AgentSession:
    """Let the session take notice of recorded events."""
    for kind, data in kinds:
        session.note(samples.event(kind, data=data), applied=True)
    return session


def test_a_relaunch_that_ended_without_a_word_is_missed_by_the_next_owner(session: AgentSession) -> None:
    """The first run's `exited` is not that of the launch with which an earlier owner has told a rejection."""
    assert told(session, (Kind.SPAWNED, {}), (Kind.EXITED, {})).exited
    assert not told(session, (Kind.TELLING, {"how": "launch"}), (Kind.TOLD, {})).exited
    assert session.why_vanished() == "the runner in its pane was ended"


def test_a_paste_starts_nothing(session: AgentSession) -> None:
    """An agent that has ended has ended, also when something was typed in its last moment."""
    told(session, (Kind.SPAWNED, {}), (Kind.TELLING, {"how": "session"}), (Kind.EXITED, {}), (Kind.TOLD, {}))
    assert session.exited
