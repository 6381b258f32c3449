"""The three brokers that the contract tests compare: ours, stock amqtt and Mosquitto, with the same users."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delegate_job_broker import AccessList, BrokerThread, Grant, Limits, listen_on_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
START_SECONDS = 20.0
HERE = Path(__file__).resolve().parent

GRANTS = {
    "owner": Grant("owner-token", ("job/#", "t/#"), ("job/#", "t/#"), unlimited=True),
    "job1": Grant("job1-token", ("job/1/report/+",), ("job/1/#",)),
    "job2": Grant("job2-token", ("job/2/report/+",), ("job/2/#",)),
    "observer": Grant("observer-token", (), ("job/#", "t/#")),
}


@dataclass(frozen=True)
class Server:
    """A running broker; `pid` when it is a process of its own."""

    name: str
    port: int
    pid: int | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return (LOOPBACK, self.port)

    @property
    def is_stock(self) -> bool:
        """Tell whether the faults are expected here."""
        return self.name == "stock"


def access_list() -> AccessList:
    """Give the grants of the users above."""
    access = AccessList()
    for user, grant in GRANTS.items():
        access.grant(user, grant)
    return access


@contextmanager
def serve(name: str, **limits: float) -> Iterator[Server]:
    """Run the broker of that name for a while; only ours takes limits."""
    with {"ours": serve_ours, "stock": serve_stock, "mosquitto": serve_mosquitto}[name](**limits) as server:
        yield server


@contextmanager
def serve_ours(**limits: float) -> Iterator[Server]:
    """Run ours in a thread, and look for faults at the end."""
    broker = BrokerThread([listen_on_loopback()], access_list(), Limits(**limits))  # type: ignore[arg-type] # names and numbers of fields
    with broker:
        assert broker.port
        yield Server("ours", broker.port)
        assert broker.faults == 0, broker._broker and broker._broker.faults
    assert not broker.alive


@contextmanager
def serve_apart(name: str) -> Iterator[Server]:
    """Run the broker of that name in a process of its own, where its time and memory can be measured."""
    if name != "ours":
        with serve(name) as server:
            yield server
        return
    port = free_port()
    with running([sys.executable, str(HERE / "our_broker.py"), str(port)], port) as pid:
        yield Server("ours", port, pid)


@contextmanager
def serve_stock(**_: float) -> Iterator[Server]:
    """Run stock amqtt in a process, which may hang (B8) and is killed."""
    port = free_port()
    with running([sys.executable, str(HERE / "stock_broker.py"), str(port)], port) as pid:
        yield Server("stock", port, pid)


@contextmanager
def serve_mosquitto(**_: float) -> Iterator[Server]:
    """Run Mosquitto without its default limits: it would send 1,020 retained messages at most."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        configuration = write_mosquitto(Path(directory), port)
        with running([mosquitto() or "mosquitto", "-c", str(configuration)], port) as pid:
            yield Server("mosquitto", port, pid)


def write_mosquitto(directory: Path, port: int) -> Path:
    """Write configuration, passwords and rights; give the configuration's path."""
    passwords, rights = directory / "passwords", directory / "rights"
    passwords.write_text("".join(f"{user}:{grant.token}\n" for user, grant in GRANTS.items()))
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, capture_output=True, timeout=20)
    lines = []
    for user, grant in GRANTS.items():
        lines += [f"user {user}"]
        lines += [f"topic write {allowed}" for allowed in grant.publish]
        lines += [f"topic read {allowed}" for allowed in grant.subscribe]
    rights.write_text("\n".join(lines) + "\n")
    for file in (passwords, rights):
        file.chmod(0o600)
    configuration = directory / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} {LOOPBACK}\n"
        "allow_anonymous false\n"
        f"password_file {passwords}\nacl_file {rights}\n"
        "max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\nlog_dest none\n"
        # Started by root it would change to a user who may not read here.
        + ("user root\n" if os.getuid() == 0 else "")
    )
    return configuration


def mosquitto() -> str | None:
    """Give the path of Mosquitto, which Debian keeps off a user's PATH."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def missing(name: str) -> str | None:
    """Say what a broker of that name needs and this machine does not have."""
    if name == "mosquitto" and not (mosquitto() and shutil.which("mosquitto_passwd")):
        return "needs mosquitto (Debian: mosquitto, mosquitto-clients)"
    return None


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(argv: list[str], port: int) -> Iterator[int]:
    """Run a server until it listens, and kill it afterwards; gives its pid."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + START_SECONDS
        while not listening(port):
            assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
            assert time.monotonic() < end, f"{argv[0]} does not listen"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait(timeout=START_SECONDS)


def listening(port: int) -> bool:
    """Tell whether somebody accepts there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
