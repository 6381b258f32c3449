"""A job's directories as hooks find them, and hooks run as an agent runs them. Not the tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from delegate_job import hook, hook_proof, journal
from delegate_job.audit import AuditDir
from delegate_job.events import Event, Source
from delegate_job.inbox import of_hook

JOB = "abcdefghjk"
SAMPLES = Path(__file__).with_name("data") / "hooks"
ASK = "This job is not reported: run delegate-job publish"


def samples(name: str) -> list[dict[str, Any]]:
    """Return the payloads that an agent of that name and version has given to its hooks."""
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["payload"] for line in lines]


class Hooked:
    """One job without an owner: its hooks report, and what they report is read here."""

    def __init__(self, root: Path, agent: str = "claude-code") -> None:
        self.agent = agent
        self.job_dir = root / "jobs" / JOB
        self.agent_dir = self.job_dir / "agent"
        self.log_dir = root / "work/delegate_job_logs" / JOB
        self.agent_dir.mkdir(parents=True, exist_ok=True)
        (root / "work").mkdir(exist_ok=True)
        (self.agent_dir / hook_proof.KEY).write_bytes(hook_proof.new_key())
        (self.agent_dir / "ask.txt").write_text(ASK)
        (self.job_dir / "environ.json").write_text("{}")

    def argv(self, event: str) -> list[str]:
        """Return the command of a hook."""
        script = [sys.executable, "-I", "-S", "-X", "utf8", str(hook.__file__)]
        return [*script, self.agent, JOB, str(self.log_dir), str(self.job_dir), event]

    def start(self, event: str, payload: object) -> subprocess.Popen[bytes]:
        """Start a hook and give it its payload: an object as JSON, bytes as they are."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.argv(event), stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin is not None
        process.stdin.write(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, event: str, payload: object = None) -> str:
        """Run a hook to its end; return what it printed. It ends with 0 and complains of nothing."""
        process = self.start(event, {} if payload is None else payload)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, b"")
        return stdout.decode()

    def says(self, kind: str, detail: str | None = None) -> None:
        """Append a report as the agent's own `publish` does."""
        line = journal.encode(journal.new_event(JOB, kind, detail))
        AuditDir.at(str(self.log_dir)).append_line("reports.jsonl", line)

    def events(self) -> list[Event]:
        """Return what was reported, as an owner reads it."""
        path = self.log_dir / "reports.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        read = [journal.parse(line, job_id=JOB, source=Source.AGENT, received_at="") for line in lines]
        return [of_hook(event, str(self.agent_dir)) for event in read if event is not None]

    def kinds(self) -> list[str]:
        """Return the kinds of what hooks reported."""
        return [event.kind for event in self.events() if event.source is Source.HOOK]

    def answers(self, kind: str, **fields: Any) -> None:
        """Write a user's answer into `control.jsonl`."""
        journal.append_event(self.job_dir / "control.jsonl", JOB, kind, fields.pop("detail", None), fields)
