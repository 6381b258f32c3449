"""How an owner tells the line of a hook from one that the agent wrote: by a key of the job directory.

It is no wall: an agent without a sandbox can read the key, being the same user. It keeps `publish` and plain
lines in `reports.jsonl` from passing for a hook. Light: each hook loads it.
"""

import os

from delegate_job.bare import sha256

KEY = "hook.key"
"""The file in the job's `agent/` directory; 0600, made at the first launch and kept for all that follow."""


def new_key() -> bytes:
    """Return a key for one job."""
    return os.urandom(16).hex().encode()


def read_key(agent_dir: str) -> str:
    """Return the job's key; empty when it has none, which proves nothing."""
    try:
        with open(f"{agent_dir}/{KEY}", "rb") as file:  # noqa: PTH123 - pathlib costs each hook 5 ms
            return file.read(64).decode("ascii", "replace")
    except OSError:
        return ""


def proof(key: str, event_id: str, kind: str) -> str:
    """Return what a hook's line carries as `proof`, beside `hook`, the native event's name."""
    return sha256(f"{key}\n{event_id}\n{kind}".encode(errors="replace")) if key else ""
