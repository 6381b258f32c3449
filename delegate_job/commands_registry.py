"""The commands for the registry as a whole and for the broker: `prune`, `supervise`, `broker`.

Options are declared in `cli_registry`; how these things are done is `pruning`'s, `background`'s and `wire`'s.
"""

import json
import math
import os
import sys

from delegate_job.commands import open_registry, warn
from delegate_job.exit_codes import ExitCode
from delegate_job.output import print_json
from delegate_job.paths import RegistryPaths
from delegate_job.registry import MAX_PARALLEL, Registry
from delegate_job.settings import registry_dir as settled_registry_dir


def prune(
    registry_dir: str | None,
    older_than: str,
    *,
    broker: str | None,
    dry_run: bool,
    logs: bool,
    as_json: bool,
) -> int:
    """Forget jobs that ended long enough ago."""
    from delegate_job import pruning
    from delegate_job.mqtt import parse_url
    from delegate_job.settings import broker as settled_broker

    age = pruning.seconds_of(older_than)
    url = settled_broker(broker, environ=os.environ)
    address = parse_url(url) if url else None
    with open_registry(registry_dir) as registry:
        looked = list(pruning.prune(registry, age, broker=address, dry_run=dry_run, logs=logs, warn=warn))
    ids = [each.job_id for each in looked if each.kept is None]
    kept = [each for each in looked if each.kept is not None]
    if as_json:
        shown = [{"id": each.job_id, "worktree": each.worktree, "reason": each.kept} for each in kept]
        print_json({"pruned": ids, "kept": shown, "dry_run": dry_run})
    else:
        for job_id in ids:
            print(job_id)
        for each in kept:
            print(f"kept {each.job_id}: its worktree {each.worktree}: {each.kept}", file=sys.stderr)
        print(f"{len(ids)} {'would be forgotten' if dry_run else 'forgotten'}", file=sys.stderr)
    return ExitCode.ACCEPTED


def supervise(
    registry_dir: str | None, *, max_parallel: int | None, max_checks: int, in_background: bool
) -> int:
    """Be the registry's supervisor until a signal comes; in the background, until nothing is left to own."""
    from delegate_job import background

    paths = RegistryPaths(settled_registry_dir(registry_dir, environ=os.environ))
    if max_parallel is not None:
        with Registry(paths) as registry:
            registry.set(MAX_PARALLEL, str(max_parallel) if max_parallel else None)
    idle_after = background.IDLE_AFTER if in_background else math.inf
    background.supervise(paths, idle_after=idle_after, max_checks=max_checks)
    return ExitCode.ACCEPTED


def broker(port: int, *, observer: bool) -> int:
    """Serve until a signal comes."""
    import signal
    import threading

    from delegate_job.standalone_broker import StandaloneBroker

    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: stop.set())
    with StandaloneBroker(port, observer=observer) as serving:
        print(json.dumps(serving.urls()), flush=True)
        while not stop.wait(3600):
            continue
    return ExitCode.ACCEPTED
