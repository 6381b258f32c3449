"""How long trouble with the registry is borne: an error that passes must not end an owner and its jobs.

Not damage: that is repaired by who opens the file next.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from delegate_job.errors import RegistryError
from delegate_job.paths import RegistryPaths
from delegate_job.storage import DamagedError

BORNE_FOR = 60.0
"""Seconds of errors in a row after which the last one is raised."""


class Patience:
    """Says the first error of a row, and forgets it when all is well again."""

    def __init__(self, paths: RegistryPaths, warn: Callable[[str], None]) -> None:
        self._paths = paths
        self._warn = warn
        self._since: float | None = None

    @contextlib.contextmanager
    def bearing(self) -> Iterator[None]:
        """Swallow a RegistryError, unless the errors go on for too long: the caller tries again."""
        try:
            yield
        except DamagedError:
            raise
        except RegistryError as error:
            if not self._paths.database.exists():
                raise  # It was removed, which does not pass.
            if self._since is None:
                self._since = time.monotonic()
                self._warn(f"{error.message}; trying again")
            elif time.monotonic() - self._since > BORNE_FOR:
                raise
        else:
            self._since = None
