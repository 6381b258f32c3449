"""Kills whatever belongs to delegate-job, at random and at named steps, then looks whether anything was lost.

Real jobs of scripted agents in one registry; nothing here is known to the product. Not how many kills are
enough: that is for who calls it.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delegate_job import locks
from delegate_job.paths import RegistryPaths
from harness import COMMAND, Place, wait_until

WIDTH = 4
"""Jobs that run at any time."""
SETTLED_WITHIN = 90.0
"""Seconds after the last kill in which every job must have ended."""
STEPWISE = 0.7
"""The part of the submits that die, or whose supervisor dies, at a named step."""
FAILPOINTS = Path(__file__).resolve().parent / "failpoints"

AGENT = """
n=0
report() {
    for try in $(seq 60); do
        n=$((n + 1))
        said=$("$DJ" publish --event "$1" --detail "$$-$n" 2>/dev/null) || continue
        case $said in recorded*) echo "$$-$n" >>"$ACCEPTED/$DELEGATE_JOB_ID"; return;; esac
    done
    exit 1
}
report started
report progress
report progress
report completed
"""

STEPS = (
    *(
        (f"delegate_job.registration:{name}", 1)
        for name in ("register", "_wire", "_add", "_write_connection")
    ),
    ("delegate_job.registration:_with_log_dir", 1),
    ("delegate_job.environment:write_environ", 1),
    ("delegate_job.briefing:write", 1),
    ("delegate_job.registry:Registry.add", 1),
    ("delegate_job.registry:Registry.take_ownership", 1),
    ("delegate_job.registry:Registry.set_tmux_socket", 1),
    ("delegate_job.registry:Registry.give_up_ownership", 1),
    ("delegate_job.registry:Registry.record", 9),
    ("delegate_job.events_file:EventsFile.catch_up", 5),
    ("delegate_job.wire:Wire.admit_job", 1),
    ("delegate_job.owner:OwnedJob.take_over", 1),
    ("delegate_job.owner:OwnedJob.step", 9),
    ("delegate_job.launcher:start", 1),
    ("delegate_job.launcher:write_launch_file", 1),
    ("delegate_job.launcher:relaunch", 1),
    ("delegate_job.launching:Launch._launched", 1),
    ("delegate_job.checking:Check.begin", 1),
    ("delegate_job.checking:Check._checked", 1),
    ("delegate_job.telling:Tell.act", 2),
    ("delegate_job.telling:Tell._pasted", 1),
    ("delegate_job.telling:Tell._relaunched", 1),
    ("delegate_job.closing:Close.act", 1),
    ("delegate_job.closing:Close._ended", 1),
    ("delegate_job.closing:Close._forget_secrets", 1),
    ("delegate_job.closing:Close._keep_result", 1),
    ("delegate_job.starter:_spawn", 1),
    ("delegate_job.background:Background.run", 1),
)
"""The steps of a job's life in its owner, and up to how many calls may go well before."""

WEIGHTS = {"publisher": 12, "owner": 8, "supervisor": 6, "agent": 2, "runner": 2, "tmux": 1}
"""How often each kind of process is the one to be killed."""


@dataclass(frozen=True)
class Task:
    """One kind of job: its check (`""`: none), and how it ends when nobody touches its agent."""

    check: str
    outcome: str
    options: tuple[str, ...] = ()


TASKS = (
    Task("", "accepted"),
    Task("exit 0", "accepted"),
    Task("sleep 0.3; exit 1", "rejected"),
    Task('[ "$JOB_ATTEMPT" -gt 1 ]', "accepted", ("--attempts", "2")),
)


@dataclass
class Submitted:
    """A running submit, and where what it says is kept."""

    process: subprocess.Popen[Any]
    said: Path
    fuse: Path
    is_armed: bool
    is_detached: bool

    @property
    def job_id(self) -> str | None:
        """The job's id as the submit has told it."""
        text = self.said.read_text()
        return text.split()[2] if text.startswith("registered job: ") and "\n" in text else None


@dataclass
class Havoc:
    """One registry under fire. `kills` counts who was killed, by kind of process."""

    place: Place
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    touched: set[str] = field(default_factory=set)
    submits: list[Submitted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.paths = RegistryPaths(self.place.registry)
        for name in ("accepted", "said"):
            (self.place.root / name).mkdir()
        self.place.environ["ACCEPTED"] = str(self.place.root / "accepted")
        # Its own: a run may be of another source tree than the installed one.
        sources = (str(FAILPOINTS), os.environ.get("PYTHONPATH"))
        self.place.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sources))
        self.agent = self.place.agent(AGENT)
        self.checks = {task: self.place.script(f"check{n}", task.check) for n, task in enumerate(TASKS)}
        self._looked = 0.0

    def run(self, kills: int) -> None:
        """Kill that often, while jobs come and go; then let all of them end."""
        while self.kills.total() < kills:
            self._keep_busy()
            self._see_owners()
            struck = self._strike()
            self._count_steps()
            # A supervisor needs a while to get on with anything at all.
            time.sleep(self.random.uniform(0.0, 1.5 if struck == "supervisor" else 0.25))
        self._settle()

    # -- jobs

    def _keep_busy(self) -> None:
        live = sum(each.process.poll() is None for each in self.submits) + self._unsettled(of_nobody=True)
        for _ in range(WIDTH - live):
            self._submit()

    def _submit(self) -> None:
        task = self.random.choice(TASKS)
        number = len(self.submits)
        said, fuse = self.place.root / f"said/{number}", self.place.root / f"said/{number}.fuse"
        env: dict[str, str | None] = {}
        if armed := self.random.random() < STEPWISE:
            fuse.touch()
            env = {"PYTHON_FAILPOINT": self._step(), "PYTHON_FAILPOINT_FUSE": str(fuse)}
        check = ("--validate", str(self.checks[task])) if task.check else ()
        options = (*check, *task.options, "--close", *self.random.choice(((), ("--detach",))))
        with said.open("w") as file:
            process = self.place.spawn(
                *(COMMAND, "submit", "--agent", "command", "--command", self.agent, "--prompt", str(number)),
                *options,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.submits.append(Submitted(process, said, fuse, is_armed=armed, is_detached="--detach" in options))

    def _step(self) -> str:
        step, calls = self.random.choice(STEPS)
        when = self.random.choice(("before", "after"))
        return f"{step}:{when}:{self.random.randint(1, calls)}"

    def _unsettled(self, *, of_nobody: bool = False) -> int:
        """Count the jobs that need an owner; with `of_nobody` those of which no submit runs."""
        if not self.paths.database.exists():
            return 0
        mine = {each.job_id for each in self.submits if each.process.poll() is None} if of_nobody else set()
        query = "SELECT id FROM jobs WHERE state <> 'done' OR owed IS NOT NULL"
        return sum(row["id"] not in mine for row in self.select(query))

    def select(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Ask the registry's file."""
        with contextlib.closing(sqlite3.connect(f"{self.paths.database.as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            try:
                return [dict(row) for row in db.execute(query, values)]
            except sqlite3.OperationalError:
                return []  # The first submit is about to make the tables.

    def _see_owners(self) -> None:
        """Run a command now and then: any starts the supervisor that a killed owner leaves wanting."""
        if time.monotonic() - self._looked > 1.0 and self.paths.database.exists():
            self._looked = time.monotonic()
            self.place.start("list", "--limit", "1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # -- kills

    def _strike(self) -> str:
        found = [(kind, pid, job) for kind, pid, job in self._victims() if kind in WEIGHTS]
        kinds = sorted({kind for kind, _, _ in found})
        # Killed each time it is alone, a supervisor would never come to a job.
        if not kinds or (kinds == ["supervisor"] and self.random.random() < 0.7):
            return ""
        (chosen,) = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])
        pid, job = self.random.choice(sorted((pid, job) for kind, pid, job in found if kind == chosen))
        if chosen in {"agent", "runner"}:
            self.touched.add(job)
        elif chosen == "tmux":
            self.touched |= set(self.place.jobs())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[chosen] += 1
        return chosen

    def _victims(self) -> Iterator[tuple[str, int, str]]:
        for process in self.place.processes():
            words = process.command.split(" ")
            if Path(words[0]).name == "tmux":
                yield "tmux", process.pid, ""
            elif any(word.endswith("/pane.py") for word in words):
                yield "runner", process.pid, Path(words[-1]).name
            elif "publish" in words:
                yield "publisher", process.pid, ""
            elif "supervise" in words:
                yield "supervisor", process.pid, ""
            elif "submit" in words:
                yield "owner", process.pid, ""
            elif str(self.agent) in words:
                yield "agent", process.pid, _job_of(process.pid)

    def _count_steps(self) -> None:
        for each in self.submits:
            if each.is_armed and not each.fuse.exists():
                each.is_armed = False
                self.kills["step"] += 1

    # -- afterwards

    def _settle(self) -> None:
        for each in self.submits:
            each.is_armed = False
            each.fuse.unlink(missing_ok=True)

        def settled() -> bool:
            self._see_owners()
            return not self._unsettled() and all(each.process.poll() is not None for each in self.submits)

        try:
            wait_until(settled, SETTLED_WITHIN)
        except AssertionError as error:
            raise AssertionError(f"seed {self.seed}, stuck: {self._stuck()}") from error
        self._have_it_tidied()

    def _have_it_tidied(self) -> None:
        """Let a new supervisor look at what owners did not live to write; wait for it within a bound."""
        self.place._end_supervisors()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not locks.is_held(self.paths.supervisor_lock), 15)
        one = self.place.start("supervise", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(map(self._is_short, self.select("SELECT * FROM jobs"))), 15)
        one.terminate()
        one.wait(15)

    def _is_short(self, job: dict[str, Any]) -> bool:
        lines = _lines(self.paths.job(job["id"]).events)
        return not lines or lines[-1]["sequence"] < job["sequence"]

    def _stuck(self) -> str:
        """Describe what goes on for ever."""
        query = "SELECT * FROM jobs WHERE state <> 'done' OR owed IS NOT NULL"
        running = [each.said.read_text() for each in self.submits if each.process.poll() is None]
        log = self.paths.supervisor_log.read_text() if self.paths.supervisor_log.exists() else ""
        jobs = self.select(query)
        known = [each for job in jobs for each in self._known_of(job["id"])]
        return "\n".join(map(str, (*jobs, *known, *running, log, *self.place.processes())))

    def _known_of(self, name: str) -> Iterator[Any]:
        """Yield what its runner and its owners have written down."""
        columns = "sequence, kind, source, applied, detail, received_at"
        yield from self.select(f"SELECT {columns} FROM events WHERE job_id = ?", name)  # noqa: S608 - our own names
        paths = self.paths.job(name)
        for path in (paths.control, paths.runner_lock):
            yield path.read_text() if path.exists() else f"no {path.name}"
        yield f"locks: owner {locks.is_held(paths.lock)}, runner {locks.is_held(paths.runner_lock)}"

    def faults(self) -> list[str]:
        """Return what is lost, doubled, wrong or left over; nothing, if all promises are kept."""
        jobs = self.select("SELECT * FROM jobs")
        found = [fault for each in self.submits for fault in self._faults_of_submit(each)]
        found += [fault for job in jobs for fault in self._faults_of_job(job)]
        return [*found, *self._left()]

    def _faults_of_submit(self, each: Submitted) -> Iterator[str]:
        code, text = each.process.returncode, each.said.read_text()
        if code == -signal.SIGKILL:
            return
        if "Traceback" in text or "internal" in text or each.job_id is None:
            yield f"submit {each.said.name} ended with {code}: {text[-600:]}"
        elif each.is_detached:
            if code:
                yield f"submit --detach {each.said.name} ended with {code}: {text[-600:]}"
        elif code != (expected := CODES.get(self._row(each.job_id)["outcome"])):
            yield f"submit of {each.job_id} ended with {code}, not {expected}: {text[-600:]}"

    def _row(self, job_id: str) -> dict[str, Any]:
        (row,) = self.select("SELECT * FROM jobs WHERE id = ?", job_id)
        return row

    def _faults_of_job(self, job: dict[str, Any]) -> Iterator[str]:
        spec, name = json.loads(job["spec"]), job["id"]
        usual = self._usual_outcome(spec)
        possible = {usual, "lost", "not_started"} if name in self.touched else {usual}
        if job["outcome"] not in possible:
            yield f"{name} is {job['outcome']} ({job['reason']}), not one of {possible}"
        log, directory = Path(spec["log_dir"]), self.paths.job(name)
        events = self.select("SELECT * FROM events WHERE job_id = ? ORDER BY sequence", name)
        yield from self._faults_of_reports(name, _lines(log / "reports.jsonl"), events, job["outcome"])
        written = [line["sequence"] for line in _lines(directory.events)]
        needed = [each["sequence"] for each in events]
        if written != needed:
            yield f"{name}: events.jsonl has {written}, not {needed}"
        for result in (directory.result, log / "result.json"):
            if not result.exists() or json.loads(result.read_text())["outcome"] != job["outcome"]:
                yield f"{name}: {result} is missing or wrong"
        yield from (f"{name}: {path} is left" for path in _leavings(directory.root))

    def _usual_outcome(self, spec: dict[str, Any]) -> str:
        for task, check in self.checks.items():
            if spec["validate"] == (str(check) if task.check else None):
                return task.outcome
        raise AssertionError(spec)

    def _faults_of_reports(
        self, name: str, reports: list[dict[str, Any]], events: list[dict[str, Any]], outcome: str
    ) -> Iterator[str]:
        accepted = self.place.root / "accepted" / name
        in_file = Counter(line["detail"] for line in reports)
        recorded = Counter(each["detail"] for each in events if each["source"] == "agent")
        for word in accepted.read_text().split() if accepted.exists() else []:
            if in_file[word] != 1:
                yield f"{name}: {word} stands {in_file[word]} times in reports.jsonl"
        for word in _read_before_the_end(reports, events, outcome):
            if recorded[word] != 1:
                yield f"{name}: {word} is {recorded[word]} times in the registry"
        if any(count > 1 for count in recorded.values()):
            yield f"{name}: doubled in the registry: {recorded}"

    def _left(self) -> Iterator[str]:
        """End the supervisor, and say what is still there."""
        log = self.paths.supervisor_log
        if log.exists() and "Traceback" in log.read_text():
            yield f"supervisor.log: {log.read_text()[-3000:]}"
        self.place._end_supervisors()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.place.processes())
        yield from (f"left behind: {process}" for process in self.place.processes())
        # What a submit made that died before it made a job is no job's: `prune` removes it.
        jobs = [self.paths.job(job["id"]).root for job in self.select("SELECT id FROM jobs")]
        sockets = [path for root in (self.paths.root, *jobs) for path in root.glob("*.sock")]
        yield from (f"a socket is left: {path}" for path in sockets)
        held = [path for path in self.place.registry.rglob("*lock") if locks.is_held(path)]
        yield from (f"a lock is held: {path}" for path in held)
        yield from (f"left in TMPDIR: {path}" for path in (self.place.root / "tmp").iterdir())


CODES = {"accepted": 0, "rejected": 3, "lost": 4, "not_started": 7}


def _job_of(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    names = [each.partition(b"=")[2].decode() for each in variables if each.startswith(b"DELEGATE_JOB_ID=")]
    return names[0] if names else ""


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with contextlib.suppress(ValueError):  # A writer was killed in the middle of it.
            found.append(json.loads(line))
    return found


def _read_before_the_end(
    reports: list[dict[str, Any]], events: list[dict[str, Any]], outcome: str
) -> list[str]:
    """Return the details of all reports that cannot have come after the end."""
    words = [line["detail"] for line in reports]
    if outcome in {"accepted", "rejected"}:
        claimed = [line["kind"] == "completed" for line in reports].index(True)
        return words[: claimed + 1]
    said = [each["kind"] for each in events if each["source"] == "runner"]
    return words if said[-1:] == ["exited"] else []


def _leavings(directory: Path) -> list[Path]:
    secrets = [directory / name for name in ("launch.json", "environ.json")]
    return [path for path in (*secrets, *directory.rglob("*.partial")) if path.exists()]
