"""A job directory that is thrown away, for what `doctor` tries. Not a job: it has no row and no owner.

It lies where those of jobs lie, because what is tried may depend on the place: rights, file system, path
length. One that a killed `doctor` leaves is removed with what killed submits leave (`pruning`).
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from delegate_job.paths import JobPaths, RegistryPaths
from delegate_job.submission import new_id


class Scratch(NamedTuple):
    """The directory `paths.job(id)`, which is there and empty but for `work`."""

    paths: RegistryPaths
    id: str

    @property
    def job(self) -> JobPaths:
        """The paths of the job that it is not."""
        return self.paths.job(self.id)

    @property
    def work(self) -> Path:
        """An empty directory to work in."""
        return self.job.root / "work"


@contextlib.contextmanager
def in_registry(paths: RegistryPaths) -> Iterator[Scratch]:
    """Make one in the registry; nothing is left afterwards, no registry either if there was none. OSError."""
    scratch = Scratch(paths, new_id())
    made = _make(scratch.work)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch.job.root, ignore_errors=True)
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # Somebody else uses it by now.
                directory.rmdir()


@contextlib.contextmanager
def elsewhere() -> Iterator[Scratch]:
    """Make one in the temporary directory, where the registry can hold none. OSError."""
    with tempfile.TemporaryDirectory(prefix="delegate-job-", ignore_cleanup_errors=True) as directory:
        scratch = Scratch(RegistryPaths(Path(directory)), new_id())
        _make(scratch.work)
        yield scratch


def _make(directory: Path) -> list[Path]:
    """Make a directory and those above it, 0700; return what was not there."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    made: list[Path] = []
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        made.append(each)
    return made
