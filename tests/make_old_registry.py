"""Makes tests/data/registry-v<N>.db with the registry as it is now, for the tests of later versions.

Not run by the tests: run it once, before a new migration is added, and never over a file that is there.
"""

import sys
import tempfile
from pathlib import Path

import samples
from delegate_job.events import Event, Kind, Source
from delegate_job.journal import Position
from delegate_job.lifecycle import advance
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Progress
from delegate_job.schema import VERSION

DATA = Path(__file__).resolve().parent / "data"
FINISHED, WAITING = "finished00", "waiting000"
HISTORIES = {
    FINISHED: (
        (Kind.LAUNCHING, Source.OWNER, None),
        (Kind.SPAWNED, Source.RUNNER, None),
        (Kind.STARTED, Source.AGENT, None),
        (Kind.PROGRESS, Source.AGENT, "half of it — ½"),
        (Kind.COMPLETED, Source.AGENT, "all of it"),
        (Kind.CHECK_PASSED, Source.OWNER, "exit 0"),
        (Kind.CLOSED, Source.OWNER, None),
        (Kind.PROGRESS, Source.AGENT, "one more thing"),
    ),
    WAITING: (
        (Kind.LAUNCHING, Source.OWNER, None),
        (Kind.SPAWNED, Source.RUNNER, None),
        (Kind.PERMISSION_REQUIRED, Source.HOOK, "may I?"),
    ),
}


def fill(registry: Registry, job_id: str) -> None:
    """Write one job with its history."""
    job = samples.job(job_id, validate="/checks/check.sh", attempts=2, operation_id=f"key-{job_id}")
    registry.add(job, _event(job_id, 0, (Kind.REGISTERED, Source.OWNER, None)))
    epoch = registry.take_ownership(job_id, pid=4321, host="old-host")
    for number, said in enumerate(HISTORIES[job_id], 1):
        event = _event(job_id, number, said)
        after = advance(job, event)
        progress = Progress(Position(7, 100 * number), Position(8, 10 * number), 3600.0 - number, 0.5)
        registry.record(event, after, applied=after is not job, progress=progress, epoch=epoch)
        job = after
    registry.set_tmux_socket(job_id, "/tmp/tmux-1000/delegate-job-old", epoch=epoch)


def _event(job_id: str, number: int, said: tuple[Kind, Source, str | None]) -> Event:
    kind, source, detail = said
    at = f"2026-08-01T10:00:{number:02}.000000Z"
    return Event(f"{job_id}-{number}", job_id, kind, source, at, detail, {"number": number}, at)


def main() -> int:
    """Make the file of this version."""
    target = DATA / f"registry-v{VERSION}.db"
    with tempfile.TemporaryDirectory() as directory:
        paths = RegistryPaths(Path(directory))
        with Registry(paths) as registry:
            for job_id in HISTORIES:
                fill(registry, job_id)
        with target.open("xb") as file:
            file.write(paths.database.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
