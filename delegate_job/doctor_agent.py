"""Agents as `doctor` sees them: found, which version, logged in, work dir trusted, hooks run.

Not the machine, and not how a hook is tried.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from delegate_job.agents import BUILT_IN, COMMAND, agent_named
from delegate_job.agents.base import Agent, Wanted, find_program
from delegate_job.agents.probes import HOOKS, Finding, Probes, Status, probes_of
from delegate_job.doctor_echo import HookTrial, without_secrets
from delegate_job.doctor_process import run
from delegate_job.doctor_scratch import Scratch
from delegate_job.errors import DelegateJobError
from delegate_job.paths import absolute
from delegate_job.settings import Settings

VERSION_TIMEOUT = 15.0
"""Seconds in which an agent must have said its version: gemini-cli 0.61.0 needs 2 of an idle machine."""
_NUMBER = re.compile(r"\d+\.\d+[\w.+-]*")


def examine(
    settings: Settings, workdir: str, environ: Mapping[str, str], scratch: Scratch
) -> Iterator[Finding]:
    """Look at the agent that the settings name."""
    name, wanted = settings.agent, Wanted(settings.permission_mode, settings.ci)
    if name == COMMAND and not settings.command:
        yield Finding(COMMAND, Status.OK, "runs what --command says; name the program to have it looked at")
        return
    try:
        agent = agent_named(name, command=settings.command, configured=settings.agents, environ=environ)
        problem = agent.problem(environ, workdir, wanted)
    except DelegateJobError as error:
        yield Finding(name, Status.MISSING, error.message, error.hint, needed=True)
        return
    if problem:
        text, _, hint = problem.partition("; ")
        yield Finding(name, Status.MISSING, text, hint or None, needed=True)
        return
    probes = probes_of(agent.name)
    if probes is None:
        yield _any_program(agent, environ, workdir)
        return
    yield _version(agent.name, probes, environ, workdir)
    seen = list(probes.look(environ, workdir, wanted))
    yield from seen
    if probes.echo is None:
        text = "it has none: its own reports are all that is heard of it, or the check decides"
        yield Finding(HOOKS, Status.OK, text)
        return
    try:
        trial = HookTrial(agent, probes, scratch, environ)
        yield from _hooks(trial, is_off=any(each.what == HOOKS for each in seen))
    except OSError as error:
        yield Finding(HOOKS, Status.WARNING, f"not tried: {error.filename}: {error.strerror}")


def _hooks(trial: HookTrial, *, is_off: bool) -> Iterator[Finding]:
    hook = trial.hook()
    yield hook
    if hook.status is not Status.OK:
        text = "not proven that the agent runs them: the hook itself does not work"
        yield Finding(HOOKS, Status.WARNING, text)
    elif not is_off:
        yield trial.agent()


def _any_program(agent: Agent, environ: Mapping[str, str], workdir: str) -> Finding:
    if not agent.in_tmux:
        return Finding(agent.name, Status.OK, "a person: nothing is started, and nothing needs to be there")
    program = agent.template[0] if agent.template else agent.name
    path = find_program(program, environ, workdir)
    text = f"{path}; it has no hooks that are known here: its own reports are all that is heard of it"
    return Finding(agent.name, Status.OK, text)


def all_known(settings: Settings, workdir: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say which agents are there, built in and configured; none is needed for any job but its own."""
    known = {name: probes for name in BUILT_IN if (probes := probes_of(name))}
    programs = {name: probes.program for name, probes in known.items()}
    programs |= {name: command[0] for name, command in settings.agents.items()}
    found = {name for name, program in programs.items() if find_program(program, environ, workdir)}
    with ThreadPoolExecutor() as pool:
        ask = partial(_version, environ=environ, workdir=workdir)
        there = [(name, known[name]) for name in programs if name in found and name in known]
        yield from pool.map(lambda each: ask(*each), there)
    for name in sorted(found - set(known)):
        yield Finding(name, Status.OK, f"{programs[name]}, of your configuration")
    absent = [name for name in programs if name not in found]
    if not found:
        hint = "install one (`delegate-job doctor NAME` says how), or use --agent command or human"
        yield Finding("agents", Status.MISSING, f"none is on PATH of {', '.join(absent)}", hint)
    elif absent:
        hint = "`delegate-job doctor NAME` says how to install one"
        yield Finding("agents", Status.MISSING, f"not on PATH, if you want them: {', '.join(absent)}", hint)


def _version(name: str, probes: Probes, environ: Mapping[str, str], workdir: str) -> Finding:
    path = find_program(probes.program, environ, workdir) or probes.program
    said = _said_version(path, probes, environ)
    tried = f"tried with {probes.tried_with}"
    if said is None:
        text = f"{path} does not say its version ({tried})"
        return Finding(name, Status.WARNING, text, f"see what `{probes.program} --version` does")
    return Finding(name, Status.OK, f"{said}, {path}" + ("" if said == probes.tried_with else f" ({tried})"))


def _said_version(path: str, probes: Probes, environ: Mapping[str, str]) -> str | None:
    """Ask an agent for its version, which leaves files in the home of some: not in the user's."""
    with tempfile.TemporaryDirectory(prefix="delegate-job-", ignore_cleanup_errors=True) as home:
        apart = {**probes.apart(Path(home)), "TMPDIR": home}
        argv, env = [absolute(path), "--version"], {**without_secrets(environ), **apart}
        try:
            done = run(argv, timeout=VERSION_TIMEOUT, cwd=Path(home), env=env)
        except OSError:
            return None
    number = _NUMBER.search(done.stdout.decode(errors="replace")) if done else None
    return number[0] if number and done and not done.returncode else None
