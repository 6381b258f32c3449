"""What the tools of the MCP server take and give, as types from which the SDK makes JSON Schemas.

Not the documents themselves: commands print those.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # Before Python 3.12 pydantic takes no other.

from delegate_job.job import JobState, Outcome, Verdict

JobId = Annotated[str, Field(description="A job's id, or the beginning of it.")]
ModeName = Literal["ask", "edits", "auto", "all"]
LogKind = Annotated[
    Literal["events", "reports", "pane", "validation"],
    Field(description="What happened; what was claimed; the agent's terminal; the checks' output."),
]


def _said(description: str) -> Any:
    return Field(description=description)


Prompt = Annotated[str, _said("The whole task: the agent sees nothing of this conversation.")]
AgentName = Annotated[
    str, _said("claude-code, codex, gemini, opencode, aider, human, command, or a program.")
]
CommandLine = Annotated[str, _said("With agent command: the program and its arguments.")]
WorkDir = Annotated[str, _said("Where it works; else in the server's directory.")]
Worktree = Annotated[
    str, _said("Work in a new git worktree, on this new branch; empty: on one named by the job.")
]
Check = Annotated[
    str, _said("A script that is run in the work dir; exit code 0 means that the work is right.")
]
Attempts = Annotated[int, Field(ge=1, description="Checks in all; rejected work goes back to the agent.")]
Seconds = Annotated[float, Field(gt=0, description="Seconds.")]
Mode = Annotated[ModeName, _said("What the agent may do without asking.")]
Model = Annotated[str, _said("The agent's model.")]
OperationId = Annotated[str, _said("A key: submitted again with it, the first job is returned.")]
Reason = Annotated[str, _said("What the agent is told.")]


class OwnerDocument(TypedDict):
    """The process that looks after a job now."""

    pid: int
    host: str


class JobDocument(TypedDict):
    """A job, as `delegate-job status --json` prints it (docs/schemas/job.schema.json)."""

    id: str
    state: JobState
    outcome: Outcome | None
    verdict: Verdict | None
    exit_code: int | None
    reason: str | None
    agent: str
    attempt: int
    attempts: int
    prompt_file: str
    workdir: str
    worktree: str | None
    branch: str | None
    session: str | None
    attach: str | None
    log_dir: str
    broker: str
    detail: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    last_event: str | None
    last_event_at: str | None
    timeout: float
    idle_timeout: float | None
    operation_id: str | None
    owner: OwnerDocument | None
    retry_of: str | None
    sequence: int


class JobList(TypedDict):
    """Jobs, newest first."""

    jobs: list[JobDocument]


class Log(TypedDict):
    """The end of one of a job's logs: JSON objects, the newest last."""

    entries: list[dict[str, Any]]
    truncated: Annotated[bool, Field(description="Whether there was more, before these.")]


class Sent(TypedDict):
    """What was typed into a session."""

    id: str
    sent: bool
    receipt: Annotated[
        bool | None, Field(description="Whether the agent said it took it; null: it gives none.")
    ]


class Answered(TypedDict):
    """What was answered, in the agent's words."""

    id: str
    what: str | None
