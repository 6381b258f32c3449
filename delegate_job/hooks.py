"""What a hook of an agent does: read the payload, ask the agent's mapper what it means, report it, and end.

It decides nothing, but for two answers an agent waits for: the stop hook asks once for a report that is
missing, and a permission hook hands on what a user has answered. It announces nothing: that is the owner's.

The contract, for who writes a mapper (`agent_hooks`)
- The command of a hook is `Context.hook_argv` and the native event's name: `hook.py AGENT JOB_ID LOG_DIR
  JOB_DIR EVENT`. The payload is one JSON object on stdin; nothing else is needed, no environment either.
- Exit code 0 and nothing on stdout, whatever fails, within `LIMIT` seconds; but for the two answers above.
- A line of a hook has `hook` (the native event) and `proof` (`hook_proof`), by which the owner knows it.
- At most one report a second is told of a hook that means mere `progress`, and none when the turn is over.
- The end of a turn (`Heard.turn == "ends"`): something runs in the background, or a prompt that came in the
  middle is a turn of its own, which no hook tells (`is_queued` of the mapper): `progress`. A claim was made
  in this turn: `progress` ("turn ended": a rejection may be on its way). The agent has asked for a person:
  nothing, it waits as it said. Nothing was reported, and not asked yet: the hook prints `ask(reason)` of the
  mapper. Asked already, or the mapper cannot: `turn_ended`.
"""

import os
import sys

from delegate_job import journal_line
from delegate_job.agent_hooks import Answer, Heard
from delegate_job.audit import AuditDir
from delegate_job.bare import loads, signal
from delegate_job.hook_proof import proof, read_key
from delegate_job.hook_state import BACKGROUND, OPEN, OVER, HookState, Turn

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    from typing import Any

LIMIT = 10.0
"""Seconds after which a hook ends, whatever holds it up; one that waits for a person has no such limit."""
MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes of a payload; of a longer one nothing but the event's name is heeded."""
ASK = "ask.txt"
"""The file in the job's `agent/` directory that holds what the stop hook says."""
REPORTS = "reports.jsonl"
_CLAIMS = ("completed", "error")
_MOST_READ = 64


def main(argv: list[str]) -> None:
    """Do what the hook's command line (`AGENT JOB_ID LOG_DIR JOB_DIR EVENT`) asks for."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    # Asked for later, it could be who adopts the hook of an agent that was killed meanwhile.
    parent = os.getppid()
    agent, job_id, log_dir, job_dir, event = argv[:5]
    payload = read_payload()
    mapper = __import__(f"delegate_job.agent_hooks.{agent.replace('-', '_')}", fromlist=["heard"])
    hook = Hook(
        mapper, job_id=job_id, log_dir=log_dir, job_dir=job_dir, event=event, payload=payload, parent=parent
    )
    hook.act(mapper.heard(event, payload))


def read_payload() -> "dict[str, Any]":
    """Return the object on stdin; {} when it holds none."""
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(0, 1 << 16):  # To its end: some agent may take a closed pipe for a failure.
        size += len(chunk)
        if size <= MAX_PAYLOAD:
            chunks.append(chunk)
    try:
        payload = loads(b"".join(chunks).decode().strip()) if size <= MAX_PAYLOAD else None
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


class Hook:
    """One native event of one job; `parent` is the agent's process, with which a wait for an answer ends."""

    def __init__(
        self,
        mapper: "Any",
        *,
        job_id: str,
        log_dir: str,
        job_dir: str,
        event: str,
        payload: "dict[str, Any]",
        parent: int = 0,
    ) -> None:
        self._mapper = mapper
        self._job_id = job_id
        self._log_dir = AuditDir.at(log_dir)
        self._job_dir = job_dir
        self._event = event
        self._payload = payload
        self._parent = parent
        self._ended: list[int] = []
        self._agent_dir = f"{job_dir}/agent"
        self._state = HookState(self._agent_dir)

    def act(self, heard: Heard) -> None:
        """Report what was heard, and answer where an answer is due."""
        dialog = None
        queued = self._queued(heard)
        # Not held to the end of the process: the owner of a job acts for a transcript too.
        with self._state.locked():
            answer = self._note(heard, queued)
            if heard.opens and heard.kind is not None:
                dialog = self._open_dialog(heard)
        if dialog:
            self._await_answer(heard, *dialog)
        elif answer:
            _print(answer)

    def _queued(self, heard: Heard) -> str:
        """Return when the prompt came that is up next, at the end of the turn in whose middle it came.

        Else empty. The answer is waited for: not under the lock.
        """
        turn = self._state.turn()
        if heard.turn != "ends" or not turn.joined or heard.busy:
            return ""
        if heard.prompt != turn.prompt:
            return ""  # It is the end of that prompt's own turn.
        from delegate_job.hook_queue import is_queued

        return turn.joined if is_queued(self._mapper, heard.queue, turn.joined, heard.detail or "") else ""

    def _note(self, heard: Heard, queued: str) -> str:
        was_open = bool(heard.closes) and self._state.close_dialogs(heard.closes)
        if was_open and not heard.turn and heard.kind in {None, "progress"}:
            # It may come after the turn's end, and be no sign of life any more.
            if self._state.turn().state != OVER:
                self.report("resumed", heard.detail, heard.data)
            return ""
        if isinstance(session := self._payload.get("session_id"), str) and heard.kind == "started":
            self._state.keep_session(session)
        if heard.turn == "ends":
            return self._turn_ends(heard, queued)
        self._note_turn(heard)
        return ""

    def _note_turn(self, heard: Heard) -> None:
        state = self._state
        turn = state.turn()
        if heard.turn == "begins":
            turn.joined = journal_line.now() if turn.number and turn.state != OVER else ""
            turn.prompt = heard.prompt
            turn.number, turn.state, turn.asked = turn.number + 1, OPEN, False
            turn.inode, turn.offset = self._end_of_reports()
            state.keep_turn(turn)
            kind = heard.kind if turn.number == 1 and heard.kind else "progress"
            self.report(kind, heard.detail, {**heard.data, "receipt": turn.number})
        elif heard.turn == "interrupted":
            if turn.state == OPEN:
                state.end_turn()
                self.report("permission_required", heard.detail, heard.data)
        elif heard.turn == "fails":
            state.end_turn()
            self._say(heard)
        elif heard.kind == "progress":
            if turn.state != OVER and state.is_due(1.0):
                self._say(heard)
        elif not heard.opens:
            self._say(heard)

    def _say(self, heard: Heard) -> None:
        if heard.kind is not None:
            self.report(heard.kind, heard.detail, heard.data)

    def _turn_ends(self, heard: Heard, queued: str) -> str:
        """Report the end of a turn for what it is; return what the agent is to be asked, empty: nothing."""
        state, turn = self._state, self._state.turn()
        if turn.state == OVER and getattr(self._mapper, "ENDS_WHEN_OVER", False):
            return ""
        if heard.busy:
            turn.state = BACKGROUND
            state.keep_turn(turn)
            self.report("progress", f"turn ended; still running: {heard.busy}", heard.data)
            return ""
        if queued and queued == turn.joined:
            self._goes_on(heard, turn)
            return ""
        said = self._said_since(turn.inode, turn.offset)
        if said or turn.asked or not (question := self._question()):
            state.end_turn()
            if said in _CLAIMS:
                self.report("progress", "turn ended", heard.data)
            elif not said:
                self.report("turn_ended", heard.detail, heard.data)
            return ""
        turn.asked = True
        if not state.keep_turn(turn):
            # It would be asked for ever.
            self.report("turn_ended", heard.detail, heard.data)
            return ""
        self.report("progress", "turn ended without a report; asked for it", heard.data)
        return question

    def _goes_on(self, heard: Heard, turn: Turn) -> None:
        """What ends is the turn before: the prompt that came in its middle is up next."""
        turn.joined, turn.asked, turn.state = "", False, OPEN
        turn.inode, turn.offset = self._end_of_reports()
        self._state.keep_turn(turn)
        self.report("progress", "turn ended; the next begins with what was sent", heard.data)

    def _question(self) -> str:
        if not hasattr(self._mapper, "ask"):
            return ""
        try:
            with open(f"{self._agent_dir}/{ASK}", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs each hook 5 ms
                text: str = self._mapper.ask(file.read(1 << 16))
        except (OSError, ValueError):
            return ""
        return text

    # -- reports.jsonl

    def report(self, kind: str, detail: str | None = None, data: "dict[str, Any] | None" = None) -> str:
        """Append a report with the hook's proof; return its id. OSError when it cannot be written."""
        event = journal_line.new_event(self._job_id, kind, detail, data)
        event["hook"] = self._event
        event["proof"] = proof(read_key(self._agent_dir), event["id"], kind)
        # As for `publish`: a directory of another name is not ours to make right, or to write into.
        if self._log_dir.name == self._job_id:
            self._log_dir.append_line(REPORTS, journal_line.encode(event))
        return str(event["id"])

    def _end_of_reports(self) -> tuple[int, int]:
        fd = self._log_dir.read_fd(REPORTS)
        if fd is None:
            return 0, 0
        status = os.fstat(fd)
        os.close(fd)
        return status.st_ino, status.st_size

    def _said_since(self, inode: int, offset: int) -> str:
        """Return the last report that the agent itself made since then and that stands for the turn."""
        from delegate_job import journal

        fd = self._log_dir.read_fd(REPORTS)
        if fd is None:
            return ""
        last = ""
        position = journal.Position(inode, offset)
        for _ in range(_MOST_READ):
            batch = journal.read_new(fd, position, mark=self._job_id.encode())
            position = batch.position
            for line in batch.lines:
                last = self._said_in(line) or last
            if not batch.more:
                break
        os.close(fd)
        return last

    def _said_in(self, line: bytes) -> str:
        try:
            event = loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            return ""
        if not isinstance(event, dict) or event.get("job_id") != self._job_id or "proof" in event:
            return ""
        kind = event.get("kind")
        return kind if kind in {*_CLAIMS, "permission_required"} else ""

    # -- dialogs

    def _open_dialog(self, heard: Heard) -> "tuple[str, int] | None":
        """Report a dialog; return its id and where to look for its answer, if one is awaited."""
        request = os.urandom(8).hex()
        if heard.waits:
            # From before the report on: who reads it may answer at once.
            signal.signal(signal.SIGTERM, lambda signum, _: self._ended.append(signum))
        told: dict[str, Any] = {
            "request": request,
            "at": journal_line.now(),
            "what": heard.detail,
            "waits": heard.waits,
            "shows": heard.shows,
            "question": heard.question,
        }
        held = self._state.open_dialog(heard.opens, told)
        from_here = self._size_of_control()
        self.report(heard.kind or "permission_required", heard.detail, {**heard.data, "request": request})
        return (request, from_here) if heard.waits and held is not None else None

    def _await_answer(self, heard: Heard, request: str, from_here: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        from delegate_job.hook_answer import REFUSED_THERE, await_answer

        answer = await_answer(
            self._state,
            heard.opens,
            request,
            self._job_dir,
            from_here,
            parent=self._parent,
            ended=self._ended,
        )
        if answer is REFUSED_THERE:
            self._refused_there(heard, request)
        if not isinstance(answer, Answer):
            return
        # The dialog is answered by this line alone; what is said of it comes after.
        _print(self._mapper.decision(self._payload, answer))
        self._state.close_dialogs(heard.opens)
        self.report("resumed", "answered by the user", {"request": request, "allow": answer.allow})

    def _refused_there(self, heard: Heard, request: str) -> None:
        """Somebody said no in the session, or pressed Esc: the turn is over, and no other event tells it."""
        with self._state.locked():
            was_open = self._state.close_dialogs(heard.opens)
            if was_open and "subagent" in heard.data:
                self.report("resumed", "refused in its session", {"request": request})
            elif was_open:
                self._state.end_turn()
                told = {"request": request, "reason": "interrupted"}
                self.report("permission_required", "refused in its session; it waits for input", told)

    def _size_of_control(self) -> int:
        try:
            return os.stat(f"{self._job_dir}/control.jsonl").st_size  # noqa: PTH116 - pathlib costs each hook 5 ms
        except OSError:
            return 0


def _print(text: str) -> None:
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(1, data) :]
    sys.stdout = sys.stderr = None  # Nothing may come behind an answer.
