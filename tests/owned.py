"""One job in the care of a real owner, driven step by step: real registry and files, no tmux, no broker.

Not the loop, signals and processes around it: those are tested on the installed command.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import samples
from delegate_job import journal, locks
from delegate_job.audit import AuditDir
from delegate_job.check_slots import CheckSlots
from delegate_job.environment import write_environ
from delegate_job.events import Event, Kind
from delegate_job.inbox import REPORTS, Finished
from delegate_job.job import Job, JobSpec
from delegate_job.mqtt import Connection, write_connection
from delegate_job.owner import OwnedJob
from delegate_job.owner_link import OwnerLink
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.wire import Hears, Wire
from harness import wait_until

JOB = "abcdefghjk"


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    kinds: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def happened(self, job: Job, event: Event, sequence: int, *, applied: bool) -> None:  # noqa: ARG002 - its form
        """Keep the kind, marked when it was not applied."""
        self.kinds.append(event.kind if applied else f"({event.kind})")

    def task(self, job: Job, instructions: str) -> None:  # noqa: ARG002 - its form
        """Keep what a person is shown."""
        self.tasks.append(instructions)

    def warn(self, text: str) -> None:
        """Keep the warning."""
        self.warnings.append(text)

    def tick(self) -> None:
        """Time has no meaning here."""


class NoBroker(Wire):
    """A wire on which nobody listens: what is tested goes by files."""

    def __init__(self) -> None:
        super().__init__()
        self.caught_up = True

    def _start(self, hears: Hears) -> OwnerLink:
        raise AssertionError(hears)


class Desk:
    """A person's job (agent `human`) on a desk: owned, reported for, given up, taken over."""

    def __init__(self, root: Path, **spec: Any) -> None:
        self.root = root
        self.log = AuditDir.at(root / "work/delegate_job_logs" / JOB)
        self.registry = Registry(RegistryPaths(root / "registry"))
        self.heard = Heard()
        self.results: list[Finished] = []
        self._register(
            samples.job(agent="human", workdir=str(root / "work"), session="", log_dir=self.log.path, **spec)
        )
        self.owner = self.take_over()
        self.owner.say(Kind.LAUNCHING)
        self.owner.step()

    def _register(self, job: Job) -> None:
        paths = self.registry.paths.job(JOB)
        paths.root.mkdir(mode=0o700)
        (self.root / "work").mkdir()
        assert self.log.create()
        paths.prompt.write_bytes(b"Do the work.")
        write_environ(paths.environ, {"PATH": os.environ["PATH"]})
        nobody = Connection(JOB, self.log.path, str(self.registry.paths.root), 1, None, None, None)
        write_connection(paths.connection, nobody)
        self.registry.add(job, samples.event(Kind.REGISTERED))

    def take_over(self) -> OwnedJob:
        """Become the job's owner, as after the death of the last one: from what was recorded alone."""
        if hasattr(self, "owner"):
            os.close(self.owner.lock)
        lock = locks.acquire(self.registry.paths.job(JOB).lock)
        assert lock is not None
        epoch = self.registry.take_ownership(JOB, pid=os.getpid(), host="here")
        self.owner = OwnedJob(
            self.registry.row(JOB),
            epoch=epoch,
            lock=lock,
            registry=self.registry,
            wire=NoBroker(),
            listener=self.heard,
            post=self.results.append,
            checks=CheckSlots(1),
        )
        self.owner.take_over()
        return self.owner

    @property
    def spec(self) -> JobSpec:
        """What was asked."""
        return self.owner.job.spec

    @property
    def reports(self) -> Path:
        """The file that agents write to."""
        return Path(self.log.path) / REPORTS

    def report(self, kind: str, detail: str | None = None, **fields: Any) -> dict[str, Any]:
        """Append a report as `publish` does, without its owner looking; return what was written."""
        event = journal.new_event(JOB, kind, detail) | fields
        self.log.append_line(REPORTS, journal.encode(event))
        return event

    def control(self, kind: str) -> None:
        """Append what a runner or a user's command says."""
        journal.append_event(self.registry.paths.job(JOB).control, JOB, kind)

    def write(self, raw: bytes) -> None:
        """Append raw bytes to the reports, as a dying or hostile writer does."""
        with self.reports.open("ab") as file:
            file.write(raw)

    def reported(self, kind: str, detail: str | None = None) -> None:
        """Report, and let the owner hear of it."""
        self.report(kind, detail)
        self.owner.step()

    def run_until(self, probe: Callable[[], object]) -> None:
        """Let the owner work, its background actions too, until `probe` is true."""

        def step() -> object:
            while self.results:
                self.owner.finished(self.results.pop(0))
            self.owner.step()
            return probe()

        wait_until(step, 20)

    def settle(self) -> str:
        """Let the owner finish the job, and say how it ended."""
        self.run_until(lambda: self.owner.job.settled)
        return str(self.registry.row(JOB).job.outcome)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self.owner.lock)
        self.registry.close()

    def recorded(self) -> list[tuple[str, bool]]:
        """Return kind and `applied` of every event of the job."""
        return [(each.event.kind, each.applied) for each in self.registry.events(JOB)]

    def details(self, kind: str) -> list[str | None]:
        """Return the details of the recorded events of a kind."""
        return [each.event.detail for each in self.registry.events(JOB) if each.event.kind == kind]

    def happened(self) -> list[dict[str, Any]]:
        """Return the lines of events.jsonl."""
        lines = self.registry.paths.job(JOB).events.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines if line]
