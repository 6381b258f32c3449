"""A hook's wait for what a user answers to a dialog: `approve`, `deny` and `answer` in `control.jsonl`.

Not what the answer means to the agent, and not the commands: that is a mapper's matter, and `answering`'s.
"""

import os
import time

from delegate_job.agent_hooks import Answer
from delegate_job.bare import loads
from delegate_job.hook_state import HookState

LOOK_EVERY = 0.1
"""Seconds between two looks."""
REFUSED_THERE = object()
"""The dialog was refused in the agent's own session."""


def await_answer(
    state: HookState, key: str, request: str, job_dir: str, from_here: int, *, parent: int, ended: list[int]
) -> "Answer | object | None":
    """Return the answer to this request, read from `control.jsonl` behind the offset `from_here`.

    `parent` is the process that started the hook, the agent; `ended` fills when the hook is sent SIGTERM.

    None when none will be needed: the dialog was granted in the pane (the next event of the agent closes it),
    the agent is gone, or the job has ended (its environment is forgotten then). `REFUSED_THERE` when the
    agent ends the hook: claude 2.1.330 does, by SIGTERM, when its user says no or presses Esc, and only then.
    """
    while state.has_dialog(key, request) and os.getppid() == parent and _goes_on(job_dir):
        answer, from_here = _read(f"{job_dir}/control.jsonl", from_here, request)
        if answer is not None:
            return answer
        # A person answers by a line in a file, and no system wakes who waits for that in the same way.
        time.sleep(LOOK_EVERY)
        if ended:
            return REFUSED_THERE if os.getppid() == parent else None
    return None


def _goes_on(job_dir: str) -> bool:
    return os.access(f"{job_dir}/environ.json", os.F_OK)


def _read(path: str, offset: int, request: str) -> tuple[Answer | None, int]:
    try:
        if os.stat(path).st_size <= offset:  # noqa: PTH116 - pathlib costs each hook 5 ms
            return None, offset
        with open(path, "rb") as file:  # noqa: PTH123 - likewise
            file.seek(offset)
            chunk = file.read(1 << 20)
    except OSError:
        return None, offset
    whole = chunk.rfind(b"\n") + 1
    for line in chunk[:whole].split(b"\n"):
        if request.encode() in line and (answer := _answer(line, request)) is not None:
            return answer, offset + whole
    return None, offset + whole


def _answer(line: bytes, request: str) -> Answer | None:
    try:
        event = loads(line.decode())
    except (ValueError, RecursionError):
        return None
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict) or data.get("request") != request:
        return None
    text, answers = event.get("detail"), data.get("answers")
    return Answer(
        allow=event.get("kind") in {"approved", "answered"},
        text=text if isinstance(text, str) else "",
        answers=answers if isinstance(answers, dict) else None,
    )
