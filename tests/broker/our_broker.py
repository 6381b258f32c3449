"""Our broker on a loopback port, with the test users' rights: a program for bench and soak, not a test."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

from delegate_job_broker import BrokerThread, Limits, listen_on_loopback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from broker.servers import access_list


def main(port: int) -> None:
    """Serve until SIGTERM."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with BrokerThread([listen_on_loopback(port)], access_list(), Limits()):
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main(int(sys.argv[1]))
