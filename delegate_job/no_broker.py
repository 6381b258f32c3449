"""The wire of a job whose owner can have no broker: its reports come by file alone."""

from delegate_job.events import Event
from delegate_job.mqtt import Connection, write_connection
from delegate_job.paths import RegistryPaths
from delegate_job.rows import Row
from delegate_job.wire import Hears, Wire


class NoBroker(Wire):
    """Nothing is heard on it and nothing announced; `reason` says why there is no broker."""

    serves_one = True

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.caught_up = True

    def admit_job(self, row: Row, paths: RegistryPaths, epoch: int) -> None:
        """Tell the job's reporters that there is no broker."""
        spec = row.job.spec
        nowhere = Connection(
            job_id=spec.id,
            log_dir=spec.log_dir,
            registry_dir=str(paths.root),
            epoch=epoch,
            broker=None,
            observer=None,
            unix_socket=None,
        )
        write_connection(paths.job(spec.id).connection, nowhere)

    def start_once(self, hears: Hears) -> None:
        """There is nothing to start."""

    def announce_state(self, job_id: str, document: dict[str, object]) -> None:
        """Nobody listens."""

    def announce_report(self, event: Event) -> None:
        """Nobody listens."""

    def dismiss(self, job_id: str, *, epoch: int) -> None:
        """Nobody was admitted."""
