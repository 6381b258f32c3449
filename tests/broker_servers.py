"""A real Mosquitto for one test: own configuration, password, port and data.

Not the embedded broker, and not a subscriber: it is only started, stopped and started again.
"""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness import Place, end_group, free_port, listening, wait_until

USER, PASSWORD = "owner", "s3cret"


def missing() -> str | None:
    """Say what is needed and not there."""
    absent = [
        name for name in ("mosquitto", "mosquitto_passwd", "mosquitto_sub") if shutil.which(name) is None
    ]
    return f"needs {', '.join(absent)} (Debian: mosquitto, mosquitto-clients)" if absent else None


@dataclass
class Mosquitto:
    """A Mosquitto on loopback that takes one user and no anonymous client; retained messages survive it."""

    place: Place
    directory: Path
    port: int = 0
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)
    user: str = USER
    password: str = field(default=PASSWORD, repr=False)

    @property
    def url(self) -> str:
        """The address with user and password, as `--broker` takes it."""
        return f"mqtt://{self.user}:{self.password}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens; the first time on a free port, later on the same."""
        for port in [self.port] if self.port else [free_port() for _ in range(5)]:
            self.process = self._spawn(port)
            # Another test may have taken the port in between: then ours ends at once.
            wait_until(lambda: self._ended() or listening(port), what=f"mosquitto on port {port}")  # noqa: B023 - called in this round
            if not self._ended():
                self.port = port
                return
        raise AssertionError(f"mosquitto did not start: {(self.directory / 'log').read_text()}")

    def stop(self) -> None:
        """End it cleanly; it keeps its retained messages for the next `start`."""
        if self.process is not None:
            end_group(self.process)

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _spawn(self, port: int) -> "subprocess.Popen[str]":
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {port} 127.0.0.1\n"
            "allow_anonymous false\n"
            f"password_file {self.directory}/passwords\n"
            "persistence true\n"
            f"persistence_location {self.directory}/\n"
            # Started by root it would change to a user who may not read here.
            + ("user root\n" if self.directory.owner() == "root" else "")
        )
        with (self.directory / "log").open("a") as log:
            return self.place.spawn("mosquitto", "-c", configuration, stdout=log, stderr=log)


def make(place: Place) -> Mosquitto:
    """Make and start a Mosquitto in this place; it ends with the place."""
    directory = place.root / "mosquitto"
    directory.mkdir(mode=0o700)
    passwords = directory / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), USER, PASSWORD],
        check=True,
        capture_output=True,
        timeout=10,
    )
    server = Mosquitto(place, directory)
    server.start()
    return server
