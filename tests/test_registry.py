import json
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import make_old_registry
import samples
from delegate_job import registry_file
from delegate_job.errors import RegistryError, UnknownJobError
from delegate_job.events import Event, Kind, Source
from delegate_job.job import Job, JobState, Outcome
from delegate_job.journal import Position
from delegate_job.lifecycle import advance
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry, StorageFullError
from delegate_job.rows import Progress
from delegate_job.schema import MIGRATIONS, VERSION
from harness import Place

DATA = Path(__file__).resolve().parent / "data"
ODD_TEXTS = {
    "empty": "",
    "nul": "before\0after",
    "newlines": "a\nb\r\nc\n",
    "64 KB": "ä" * 32768,
    "quotes": "'; DROP TABLE jobs; --\"",
    "emoji": "👩‍👩‍👧\u202eright to left",
    "noncharacter": "\ufffe\uffff\U0010ffff",
}


@pytest.fixture
def paths(tmp_path: Path) -> RegistryPaths:
    """Give the paths of a registry that is not there yet."""
    return RegistryPaths(tmp_path / "registry")


@pytest.fixture
def registry(paths: RegistryPaths) -> Iterator[Registry]:
    """Give a new registry."""
    with Registry(paths) as opened:
        yield opened


def added(registry: Registry, job_id: str = "abcdefghjk", **values: object) -> Job:
    """Add a job and return it."""
    job = samples.job(job_id, **values)
    registry.add(job, samples.event(Kind.REGISTERED, job_id=job_id, id=f"{job_id}-0"))
    return job


def owned(registry: Registry, job_id: str = "abcdefghjk") -> tuple[Job, int]:
    """Add a running job, own it, and return it with the owner's epoch."""
    job = added(registry, job_id, state=JobState.RUNNING)
    return job, registry.take_ownership(job_id, pid=os.getpid(), host="here")


def progress_of(number: int, detail: str | None = None, job_id: str = "abcdefghjk") -> Event:
    """Return a report."""
    return samples.event(Kind.PROGRESS, Source.AGENT, id=f"{job_id}-p{number}", job_id=job_id, detail=detail)


def record(registry: Registry, job: Job, event: Event, epoch: int) -> Job:
    """Apply and record an event; return the job after it."""
    after = advance(job, event)
    registry.record(event, after, applied=after is not job, progress=Progress(), epoch=epoch)
    return after


# -- what is written is read again


def test_a_job_is_read_as_it_was_added(registry: Registry) -> None:
    """Every field of a job comes back, with its first event and a number of its own."""
    job = added(
        registry,
        command=("prog", "a b", ""),
        agent_args=("--x",),
        on_event=("notify",),
        idle_timeout=5.5,
        operation_id="key",
    )
    row = registry.row(job.id)
    assert row.job == job
    assert (row.number, row.owner_pid, row.owner_epoch) == (1, None, 0)
    assert row.progress.timeout_left == job.spec.timeout
    (first,) = registry.events(job.id)
    assert (first.sequence, first.applied, first.event.kind) == (row.sequence, True, Kind.REGISTERED)


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_text_comes_back_as_it_was(registry: Registry, name: str) -> None:
    """Details, ids, kinds and data hold any text that is text, NUL and 64 KB of it included."""
    text = ODD_TEXTS[name]
    job, epoch = owned(registry)
    event = samples.event(
        Kind.PROGRESS, Source.AGENT, id=f"id{text}"[:128], detail=text, data={"k" + text: [text, None, 1.5]}
    )
    after = record(registry, job, event, epoch)
    assert [each.event for each in registry.events(job.id)][1] == event
    assert registry.row(job.id).job == after
    odd = samples.event(f"odd{text}"[:128], Source.AGENT, id="odd")
    record(registry, after, odd, epoch)
    assert [each.event for each in registry.events(job.id)][2] == odd


def test_names_that_are_no_text_are_spelled_out(registry: Registry) -> None:
    """A work dir that is not UTF-8 is kept whole in the spec, found by its name, and shown spelled out."""
    workdir = os.fsdecode(b"/project/\xff\xfe")
    added(registry, workdir=workdir, detail=workdir)
    (row,) = registry.rows(workdir=workdir)
    assert row.job.spec.workdir == workdir
    assert row.job.detail == "/project/\\udcff\\udcfe"


def test_an_event_is_recorded_once(registry: Registry) -> None:
    """A repeat of an id changes nothing and has no sequence number; another job may use the same id."""
    job, epoch = owned(registry)
    other, other_epoch = owned(registry, "otherother")
    first = record(registry, job, progress_of(1, "first"), epoch)
    repeat = progress_of(1, "second")
    done = registry.record(
        repeat, advance(first, repeat), applied=True, progress=Progress(Position(1, 50)), epoch=epoch
    )
    assert done is None
    assert registry.row(job.id).job.detail == "first"
    assert registry.row(job.id).progress.reports == (1, 50)
    same_id = samples.event(Kind.PROGRESS, Source.AGENT, id="abcdefghjk-p1", job_id=other.id)
    record(registry, other, same_id, other_epoch)
    assert registry.knows_event(other.id, "abcdefghjk-p1")
    assert not registry.knows_event(other.id, "abcdefghjk-p2")


def test_events_keep_their_order(registry: Registry) -> None:
    """Events are read in the order in which they were recorded, and from any point on."""
    job, epoch = owned(registry)
    for number in range(20):
        job = record(registry, job, progress_of(number), epoch)
    recorded = list(registry.events(job.id))
    assert [each.event.id for each in recorded[1:]] == [f"abcdefghjk-p{number}" for number in range(20)]
    assert list(registry.events(job.id, after=recorded[10].sequence)) == recorded[11:]


def test_a_verify_is_recorded_without_an_owner(registry: Registry) -> None:
    """What changes no job needs no epoch, and is recorded as not applied."""
    job = added(registry)
    before = registry.row(job.id)
    assert registry.append(samples.event(Kind.VERIFIED, Source.USER)) is not None
    assert registry.append(samples.event(Kind.VERIFIED, Source.USER)) is None
    assert registry.row(job.id) == before
    assert [each.applied for each in registry.events(job.id)] == [True, False]


# -- one owner


def test_the_epoch_fences_the_owner_before(registry: Registry, paths: RegistryPaths) -> None:
    """After a takeover the old owner writes neither events nor progress nor anything else."""
    job, old = owned(registry)
    with Registry(paths) as other:
        new = other.take_ownership(job.id, pid=1, host="here")
        assert new == old + 1
        for write in (
            lambda: record(registry, job, progress_of(1), old),
            lambda: registry.save_progress(job.id, Progress(), epoch=old),
            lambda: registry.set_tmux_socket(job.id, "/s", epoch=old),
            lambda: registry.give_up_ownership(job.id, epoch=old),
        ):
            with pytest.raises(RegistryError, match="has another owner now"):
                write()
        assert not other.knows_event(job.id, "abcdefghjk-p1")
        record(other, job, progress_of(1), new)


def test_another_hosts_job_is_refused(registry: Registry) -> None:
    """A lock means nothing on another machine: who shares a registry over a network is told so."""
    job, _ = owned(registry)
    with pytest.raises(RegistryError, match="belongs to the host here, and this is there"):
        registry.take_ownership(job.id, pid=1, host="there")


# -- finding


def test_a_job_is_found_by_the_beginning_of_its_id(registry: Registry) -> None:
    """A unique beginning is enough; a whole id wins over longer ones; `@last` is the newest."""
    for job_id in ("abc", "abcdef", "abd", "xyz"):
        added(registry, job_id)
    assert registry.find("x").job.id == "xyz"
    assert registry.find("abc").job.id == "abc"
    assert registry.find("abcd").job.id == "abcdef"
    assert registry.find("@last").job.id == "xyz"


@pytest.mark.parametrize("beginning", ["a", "ab"])
def test_an_ambiguous_beginning_names_the_jobs(registry: Registry, beginning: str) -> None:
    """More than one match is an error that shows two of them."""
    added(registry, "abc")
    added(registry, "abd")
    with pytest.raises(UnknownJobError, match=r"more than one job begins with .*: abc, abd") as error:
        registry.find(beginning)
    assert error.value.hint == "give more of the id"


@pytest.mark.parametrize("beginning", ["", "q", "%", "_", "abc\0", "ABC", "\udcff", "abcd", "*"])
def test_what_matches_nothing_is_unknown(registry: Registry, beginning: str) -> None:
    """No pattern and no odd byte of a command line matches a job, and each is one clear line."""
    added(registry, "abc")
    with pytest.raises(UnknownJobError, match="no job"):
        registry.find(beginning)


def test_the_newest_of_no_jobs(registry: Registry) -> None:
    """`@last` in an empty registry says that there is no job yet."""
    with pytest.raises(UnknownJobError, match="there is no job yet"):
        registry.find("@last")


def test_the_installed_command_finds_jobs_so(place: Place) -> None:
    """`status` takes a beginning and `@last`; unknown, ambiguous and odd ones are exit 2 and one line."""
    with Registry(RegistryPaths(place.registry)) as registry:
        added(registry, "abc")
        added(registry, "abd")
    assert json.loads(place.run("status", "abc", "--json").stdout)["id"] == "abc"
    assert json.loads(place.run("status", "@last", "--json").stdout)["id"] == "abd"
    for beginning in ("ab", "zzz", os.fsdecode(b"\xff")):
        failed = place.run("status", beginning)
        assert failed.returncode == 2
        assert failed.stderr.startswith("error: ")
        assert failed.stderr.count("error:") == 1


def test_an_operation_id_belongs_to_one_job(registry: Registry) -> None:
    """The same key a second time is refused by the registry itself; odd bytes are found."""
    key = os.fsdecode(b"key-\xff")
    added(registry, "abc", operation_id=key)
    with pytest.raises(sqlite3.IntegrityError):
        added(registry, "abd", operation_id=key)
    found = registry.find_operation(key)
    assert found is not None
    assert found.job.id == "abc"
    assert registry.find_operation("another") is None
    assert [row.job.id for row in registry.rows()] == ["abc"]


def test_jobs_are_listed_newest_first_and_filtered(registry: Registry) -> None:
    """State, agent and work dir narrow the list, alone and together; a limit cuts it."""
    added(registry, "one", agent="codex")
    added(registry, "two", agent="codex", workdir="/other", state=JobState.RUNNING)
    added(registry, "three", state=JobState.DONE, outcome=Outcome.LOST)

    def ids(**wanted: object) -> list[str]:
        return [row.job.id for row in registry.rows(**wanted)]  # type: ignore[arg-type]  # any mix of filters

    assert ids() == ["three", "two", "one"]
    assert ids(limit=2) == ["three", "two"]
    assert ids(agent="codex") == ["two", "one"]
    assert ids(agent="codex", workdir="/project") == ["one"]
    assert ids(state=JobState.DONE) == ["three"]
    assert ids(state=JobState.WAITING) == []
    assert registry.unfinished() == ["one", "two"]


@pytest.mark.parametrize(
    "read",
    [
        lambda registry: registry.row("abc"),
        lambda registry: registry.find("ab"),
        lambda registry: registry.find("@last"),
        lambda registry: registry.find_operation("key"),
        lambda registry: list(registry.rows(state=JobState.RUNNING, limit=20)),
        lambda registry: list(registry.rows(agent="codex", limit=20)),
        lambda registry: list(registry.rows(workdir="/project", limit=20)),
        lambda registry: list(registry.rows(limit=20)),
        lambda registry: registry.unfinished(),
        lambda registry: registry.knows_event("abc", "id"),
        lambda registry: list(registry.events("abc", after=3)),
    ],
)
def test_every_reading_uses_an_index(registry: Registry, read: Callable[[Registry], object]) -> None:
    """What `status` and `list` ask never reads the whole table nor sorts it: the query plan says so."""
    added(registry, "abc", operation_id="key")
    asked: list[str] = []
    registry._db.set_trace_callback(asked.append)
    read(registry)
    registry._db.set_trace_callback(None)
    assert asked
    for query in asked:
        plan = [row["detail"] for row in registry._db.execute(f"EXPLAIN QUERY PLAN {query}")]
        # Newest first is the order of the row ids: there a scan ends at the limit.
        by_number = "ORDER BY number DESC LIMIT" in query and "WHERE" not in query.replace("WHERE 1 ", "")
        assert all(step.startswith("SEARCH") or (by_number and step == "SCAN jobs") for step in plan[:1])
        assert "unfinished" in str(read) or not any("ORDER BY" in step for step in plan) or " IN (" in query


def test_a_list_of_10_000_jobs_needs_no_more_memory_than_one_of_10(place: Place) -> None:
    """`list` prints as it reads: its peak memory does not grow with the number of jobs."""
    with Registry(RegistryPaths(place.registry)) as registry:
        added(registry, "aaaaaaaaaa", detail="x" * 500)
        multiply(registry, 10_000)
    small = peak_memory(place, "list", "--json", "--limit", "10")
    assert peak_memory(place, "list", "--json") < small + 6 * 1024
    assert peak_memory(place, "logs", "--list") < small + 6 * 1024


def multiply(registry: Registry, number: int) -> None:
    """Fill the registry with copies of its first job, all at once."""
    names = [row["name"] for row in registry._db.execute("PRAGMA table_info(jobs)")]
    new_id = "printf('b%09d', i)"
    values = {"number": "i", "id": new_id, "spec": f"json_set(spec, '$.id', {new_id})"}
    chosen = ", ".join(values.get(name, name) for name in names)
    registry._db.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {number})"  # noqa: S608 - ours
        f" INSERT INTO jobs ({', '.join(names)}) SELECT {chosen} FROM n, (SELECT * FROM jobs LIMIT 1)"
    )


def peak_memory(place: Place, *command: str) -> int:
    """Run a command that must succeed and return the most memory it had, in KB."""
    process = place.start(*command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)


# -- the file


def modes(paths: RegistryPaths) -> dict[str, int]:
    """Return the permissions of the registry and of what lies in it."""
    found = [paths.root, *paths.root.iterdir()]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}


def test_nobody_else_can_look_in(paths: RegistryPaths) -> None:
    """Directories are 0700 and files 0600 whatever the umask, also when they are made again."""
    before = os.umask(0)
    try:
        for _ in range(2):
            with Registry(paths) as registry:
                registry.append(samples.event(Kind.VERIFIED, Source.USER))
                open_files = modes(paths)
        closed = modes(paths)
    finally:
        os.umask(before)
    assert open_files == {
        "registry": 0o700,
        "jobs": 0o700,
        "registry.db": 0o600,
        "registry.db-wal": 0o600,
        "registry.db-shm": 0o600,
    }
    assert closed == {"registry": 0o700, "jobs": 0o700, "registry.db": 0o600}


def test_an_event_is_on_the_disk_when_it_is_answered(paths: RegistryPaths) -> None:
    """Each connection, the first and every later one, syncs each commit (WAL, synchronous=FULL)."""
    for _ in range(2):
        with Registry(paths) as registry:
            assert registry._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            assert registry._db.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_every_old_registry_loads_for_ever(paths: RegistryPaths, version: int) -> None:
    """A file made by each version there was opens, with every job and event, and is written on."""
    paths.root.mkdir(mode=0o700)
    shutil.copy(DATA / f"registry-v{version}.db", paths.database)
    with Registry(paths) as registry:
        finished = registry.row(make_old_registry.FINISHED)
        assert (finished.job.outcome, finished.job.detail) == (Outcome.ACCEPTED, "all of it")
        assert (finished.job.attempt, finished.job.spec.attempts, finished.job.owed) == (1, 2, None)
        assert finished.tmux_socket == "/tmp/tmux-1000/delegate-job-old"
        waiting = registry.row(make_old_registry.WAITING)
        assert (waiting.job.state, waiting.job.reason) == (JobState.WAITING, "permission required")
        assert waiting.progress == Progress(Position(7, 300), Position(8, 30), 3597.0, 0.5)
        for job_id, history in make_old_registry.HISTORIES.items():
            recorded = [each.event for each in registry.events(job_id)][1:]
            assert [(event.kind, event.source, event.detail) for event in recorded] == list(history)
        epoch = registry.take_ownership(waiting.job.id, pid=1, host="old-host")
        claim = samples.event(Kind.ERROR, Source.AGENT, job_id=waiting.job.id)
        assert record(registry, waiting.job, claim, epoch).outcome is Outcome.FAILED
        assert schema_of(registry) == schema_of_new(paths)


def schema_of(registry: Registry) -> set[tuple[str, ...]]:
    """Return the columns and indices of every table."""
    tables = [row[0] for row in registry._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        (table, *map(str, row))
        for table in tables
        for row in registry._db.execute(
            f"SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('{table}')"  # noqa: S608 - ours
            f" UNION ALL SELECT name, \"unique\", '', '' FROM pragma_index_list('{table}')"
        )
    }


def schema_of_new(paths: RegistryPaths) -> set[tuple[str, ...]]:
    """Return the schema of a registry made today."""
    with Registry(RegistryPaths(paths.root / "new")) as fresh:
        return schema_of(fresh)


def test_the_installed_command_reads_an_old_registry(place: Place) -> None:
    """`list`, `status` and `logs` show the jobs of version 1."""
    place.registry.mkdir(mode=0o700)
    shutil.copy(DATA / "registry-v1.db", place.registry / "registry.db")
    listed = json.loads(place.run("list", "--json").stdout)
    assert {job["id"]: job["state"] for job in listed} == {
        make_old_registry.FINISHED: "done",
        make_old_registry.WAITING: "waiting",
    }
    assert "may I?" in place.run("logs", make_old_registry.WAITING).stdout
    assert place.run("wait", make_old_registry.FINISHED).returncode == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [(("list",), 2), (("status", "@last"), 2), (("submit", "--agent", "human", "--prompt", "x"), 7)],
)
def test_a_newer_registry_is_left_alone(place: Place, command: tuple[str, ...], code: int) -> None:
    """A registry of a later version is one clear line and the right code, and not a byte of it changes."""
    place.registry.mkdir(mode=0o700)
    database = place.registry / "registry.db"
    shutil.copy(DATA / "registry-v1.db", database)
    with sqlite3.connect(database) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    before = database.read_bytes()
    failed = place.run(*command)
    assert failed.returncode == code
    error, hint = failed.stderr.splitlines()
    assert error.startswith("error: the registry ")
    assert "was made by a newer delegate-job" in error
    assert hint.startswith("hint: upgrade delegate-job")
    assert database.read_bytes() == before


def test_a_migration_is_whole_or_not_at_all(paths: RegistryPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails in its middle leaves the registry as it was, for the old program too."""
    with Registry(paths) as registry:
        added(registry)
    bad = (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN half TEXT; CREATE TABLE jobs (x)")
    with monkeypatch.context() as patch:
        patch.setattr(registry_file, "MIGRATIONS", bad)
        patch.setattr(registry_file, "VERSION", VERSION + 1)
        with pytest.raises(RegistryError, match="table jobs already exists"):
            Registry(paths)
    with Registry(paths) as registry:
        assert registry.row("abcdefghjk").job.id == "abcdefghjk"
        assert "half" not in {row["name"] for row in registry._db.execute("PRAGMA table_info(jobs)")}


def test_a_registry_that_cannot_be_opened_is_one_line(place: Place) -> None:
    """What cannot be a registry gives an error and a hint, never a traceback."""
    with Registry(RegistryPaths(place.registry)) as registry:
        added(registry)
    (place.registry / "registry.db").unlink()
    (place.registry / "registry.db").mkdir()
    failed = place.run("list")
    assert failed.returncode == 2
    error, hint = failed.stderr.splitlines()
    assert error.startswith(f"error: the registry {place.registry}")
    assert "must be readable" in hint


# -- a full disk


def fill_up(registry: Registry, job: Job, epoch: int) -> int:
    """Record until there is no room; return how many were recorded."""
    for number in range(1000):
        try:
            record(registry, job, progress_of(number, "x" * 4000), epoch)
        except StorageFullError:
            return number
    raise AssertionError("the disk was never full")


def holds(registry: Registry, job: Job, number: int, epoch: int) -> None:
    """What was answered is there, what was refused is not, and with room again it goes on."""
    ids = [each.event.id for each in registry.events(job.id)][1:]
    assert ids == [f"abcdefghjk-p{each}" for each in range(number)]
    record(registry, job, progress_of(number, "x" * 4000), epoch)
    assert registry.knows_event(job.id, f"abcdefghjk-p{number}")
    assert registry._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_full_database_refuses_and_loses_nothing(registry: Registry) -> None:
    """SQLITE_FULL is StorageFullError, again and again; with room the same connection goes on."""
    job, epoch = owned(registry)
    registry._db.execute("PRAGMA max_page_count = 60")
    number = fill_up(registry, job, epoch)
    for _ in range(3):
        with pytest.raises(StorageFullError) as full:
            record(registry, job, progress_of(number, "x" * 4000), epoch)
        assert full.value.hint == "make room on the disk"
    registry._db.execute("PRAGMA max_page_count = 100000")
    holds(registry, job, number, epoch)


def test_a_write_that_fails_refuses_and_loses_nothing(registry: Registry) -> None:
    """A write error of the system (here a limit on the size of files) is told and survived likewise."""
    job, epoch = owned(registry)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        number = fill_up(registry, job, epoch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert number > 3
    holds(registry, job, number, epoch)


def test_a_full_file_system_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """On a disk of 1 MB that runs full: refused, and nothing lost; a file is removed and it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode:
        pytest.skip("only root can make a small file system, and not in every container")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        with Registry(RegistryPaths(disk / "registry")) as registry:
            job, epoch = owned(registry)
            number = fill_up(registry, job, epoch)
            ballast.unlink()
            holds(registry, job, number, epoch)
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


# -- many at once

WRITER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import samples
from pathlib import Path
from delegate_job.events import Kind, Source
from delegate_job.lifecycle import advance
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Progress
print("ready", flush=True)
sys.stdin.readline()
me = sys.argv[3]
with Registry(RegistryPaths(Path(sys.argv[2]))) as registry:
    for number in range(5):
        job_id = f"w{me}j{number}"
        job = samples.job(job_id)
        registry.add(job, samples.event(Kind.REGISTERED, job_id=job_id, id="0"))
        epoch = registry.take_ownership(job_id, pid=os.getpid(), host="here")
        for event in (
            samples.event(Kind.LAUNCHING, job_id=job_id, id="1"),
            *(samples.event(Kind.PROGRESS, Source.AGENT, job_id=job_id, id=f"p{n}") for n in range(10)),
            samples.event(Kind.COMPLETED, Source.AGENT, job_id=job_id, id="2"),
        ):
            after = advance(job, event)
            registry.record(event, after, applied=True, progress=Progress(), epoch=epoch)
            job = after
            registry.row(job_id)
"""


def test_eight_processes_write_at_once(place: Place) -> None:
    """Eight processes make the registry, add jobs and record events: none fails and nothing is lost."""
    writers = [
        place.spawn(
            sys.executable,
            "-c",
            WRITER,
            Path(__file__).parent,
            place.registry,
            str(number),
            stdin=subprocess.PIPE,
        )
        for number in range(8)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said
    with Registry(RegistryPaths(place.registry)) as registry:
        rows = list(registry.rows())
        assert {row.job.id for row in rows} == {f"w{w}j{j}" for w in range(8) for j in range(5)}
        assert {row.job.outcome for row in rows} == {Outcome.ACCEPTED}
        sequences = [each.sequence for row in rows for each in registry.events(row.job.id)]
        assert len(sequences) == len(set(sequences)) == 8 * 5 * 13


def test_a_reader_sees_whole_transactions_while_others_write(paths: RegistryPaths) -> None:
    """`data_version` changes when another connection commits, and a row always fits its last event."""
    with Registry(paths) as reader:
        job, epoch = owned(reader)
        version = reader.data_version()
        done = threading.Event()

        def write() -> None:
            with Registry(paths) as writer:
                now = job
                for number in range(200):
                    now = record(writer, now, progress_of(number, str(number)), epoch)
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            row = reader.row(job.id)
            last = list(reader.events(job.id, after=row.sequence - 1))
            assert last[0].sequence == row.sequence
            assert last[0].event.detail == row.job.detail
        thread.join(10)
        assert reader.data_version() != version


def test_an_update_counts_or_is_undone_as_a_whole(registry: Registry) -> None:
    """A crash inside a transaction leaves neither the event nor the job changed."""
    job, epoch = owned(registry)
    with pytest.raises(RegistryError):
        record(registry, job, progress_of(1, "never"), epoch + 1)
    assert not registry.knows_event(job.id, "abcdefghjk-p1")
    assert registry.row(job.id).job == job
