"""`delegate-job doctor`: what is there, what is missing, and a live echo, one finding after the other.

It finds; how that is shown is `commands_doctor`'s. Each thing that is tried has a time limit of its own, and
leaves nothing behind: no session, no process, no file, no retained message.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from delegate_job import doctor_agent, doctor_machine, doctor_scratch
from delegate_job.agents.probes import Finding, Status
from delegate_job.doctor_scratch import Scratch
from delegate_job.environment import scrub
from delegate_job.errors import DelegateJobError, one_line
from delegate_job.paths import RegistryPaths, default_registry
from delegate_job.settings import Settings, registry_dir, resolve


class Asked(NamedTuple):
    """What is to be looked at. `workdir` is an absolute path of a directory."""

    agent: str | None
    workdir: str
    registry_dir: str | None
    environ: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Asked({self.agent})"


def examine(asked: Asked) -> Iterator[Finding]:
    """Look at everything that a job needs, and at one agent, or at which ones are there."""
    yield doctor_machine.python()
    settings, finding = _settings(asked)
    yield finding
    # A person's job has no session.
    needs_tmux = asked.agent != "human"
    paths = RegistryPaths(settings.registry_dir if settings else _registry(asked))
    with contextlib.ExitStack() as stack:
        scratch, findings = _scratch(paths, stack)
        yield from findings
        yield doctor_machine.open_files()
        yield doctor_machine.work_dir(asked.workdir)
        yield from _tried("tmux", lambda: [doctor_machine.tmux(paths, scratch)._replace(needed=needs_tmux)])
        yield from _tried("broker", lambda: [doctor_machine.embedded_broker(scratch)])
        if settings is None:
            return
        if (broker := settings.broker) is not None:
            yield from _tried("broker", lambda: [doctor_machine.external_broker(broker, scratch)])
        environ = scrub(asked.environ)  # As submit looks: a home of the job around is nobody's own.
        if asked.agent is None:
            yield from doctor_agent.all_known(settings, asked.workdir, environ)
        else:
            yield from doctor_agent.examine(settings, asked.workdir, environ, scratch)


def is_well(findings: list[Finding]) -> bool:
    """Return whether all that is needed is there."""
    return not any(each.needed and each.status is Status.MISSING for each in findings)


def _settings(asked: Asked) -> tuple[Settings | None, Finding]:
    options = {"agent": asked.agent, "registry_dir": asked.registry_dir}
    try:
        settings = resolve(options, workdir=asked.workdir, environ=asked.environ)
    except DelegateJobError as error:
        return None, Finding("settings", Status.MISSING, error.message, error.hint, needed=True)
    places = sorted({place for place in settings.sources.values() if place not in {"default", "option"}})
    return settings, Finding(
        "settings", Status.OK, f"from {', '.join(places)}" if places else "all as they come"
    )


def _registry(asked: Asked) -> Path:
    """Return the registry when the settings cannot be read; the user's own file may be what is wrong."""
    try:
        return registry_dir(asked.registry_dir, environ=asked.environ)
    except DelegateJobError:
        return default_registry()


def _scratch(paths: RegistryPaths, stack: contextlib.ExitStack) -> tuple[Scratch, list[Finding]]:
    """Return a directory to try things in, in the registry if that is possible, and what was seen of that."""
    try:
        scratch = stack.enter_context(doctor_scratch.in_registry(paths))
        return scratch, list(doctor_machine.registry(paths, scratch))
    except (OSError, DelegateJobError) as error:
        return stack.enter_context(doctor_scratch.elsewhere()), [doctor_machine.no_registry(paths, error)]


def _tried(what: str, probe: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill says of what, and goes on
        return [Finding(what, Status.MISSING, f"{type(error).__name__}: {one_line(error)}", needed=True)]
