"""Our hooks tried out: the very command that an agent is given, and the agent itself without its model.

All of it happens in a directory that is thrown away, with an environment without secrets; nothing of the
user's is changed. A hook that fails or hangs here does so in a job: the job goes on without it.
"""

import os
import socket
import subprocess
from collections.abc import Mapping
from typing import IO

from delegate_job import briefing, journal
from delegate_job.agents.base import Agent
from delegate_job.agents.probes import HOOKS, Echo, Finding, Probes, Status, Trial
from delegate_job.audit import AuditDir
from delegate_job.briefing import Briefing
from delegate_job.doctor_process import run, started
from delegate_job.doctor_scratch import Scratch
from delegate_job.environment import scrub
from delegate_job.events import Event, Source
from delegate_job.inbox import REPORTS, of_hook
from delegate_job.job import JobSpec
from delegate_job.retry import retry_until

HOOK_TIMEOUT = 12.0
"""Seconds in which a hook must have ended; it ends itself after 10."""
AGENT_TIMEOUT = 30.0
"""Seconds in which an agent must have run its first hook."""
LATE = 3.0
"""Seconds for which a hook that is not waited for may outlive its agent."""
_SECRET = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")
# A proxy could hand on what is meant for a port of loopback.
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_WITHOUT_HOOKS = "jobs then go by the agent's own reports: no word of dialogs, errors and ends of turns"
_MOST_SAID = 160


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of what is tried: nobody is logged in there, and no proxy is asked."""
    return {
        name: value
        for name, value in scrub(environ).items()
        if not name.upper().endswith(_SECRET) and name.lower() not in _PROXIES
    }


class HookTrial:
    """One agent's hooks, as a job's launch would configure them."""

    def __init__(self, agent: Agent, probes: Probes, scratch: Scratch, environ: Mapping[str, str]) -> None:
        self._probes, self._scratch, self._users = probes, scratch, environ
        # Not the home of a launch, which may have links to what is the user's.
        self._home = scratch.job.root / "apart"
        self._spec = JobSpec(
            id=scratch.id,
            agent=agent.name,
            workdir=str(scratch.work),
            session="",
            log_dir=str(scratch.job.fallback_log_dir),
            prompt_sha256="",
        )
        self._log = AuditDir.at(self._spec.log_dir)
        self._briefing = self._write(without_secrets(environ))

    def _write(self, environ: Mapping[str, str]) -> Briefing:
        """Make what a launch makes. OSError."""
        self._log.create()
        for directory in (self._home, self._scratch.job.root / "tmp"):
            directory.mkdir(mode=0o700)
        described = briefing.describe(
            self._spec, self._scratch.paths, prompt=b"Say nothing.", environ=environ
        )
        briefing.write(described, self._spec, self._scratch.job, prompt=b"Say nothing.")
        return described

    def hook(self) -> Finding:
        """Run a hook by itself."""
        argv = (*briefing.hook_argv(self._spec, self._scratch.job), self._probes.event)
        work, environ = self._scratch.work, self._briefing.environ
        try:
            done = run(argv, stdin=b"{}", timeout=HOOK_TIMEOUT, cwd=work, env=environ)
        except OSError as error:
            return self._bad_hook(f"the command of a hook cannot be run: {error.filename}: {error.strerror}")
        if done is None:
            return self._bad_hook(f"the command of a hook had not ended after {HOOK_TIMEOUT:.0f} s")
        if done.returncode or done.stdout or done.stderr:
            said = _last_line((done.stderr or done.stdout).decode(errors="replace"))
            return self._bad_hook(
                f"the command of a hook ended with {done.returncode}{': ' * bool(said)}{said}"
            )
        return self._told()

    def _told(self) -> Finding:
        event = self._first()
        if event is None:
            return self._bad_hook("the command of a hook ended well and reported nothing")
        if event.source is not Source.HOOK:
            return self._bad_hook("the report of a hook arrived without its proof")
        return Finding("hook", Status.OK, "its command was run, and its report arrived and was proven")

    def _bad_hook(self, text: str) -> Finding:
        return Finding("hook", Status.WARNING, text, f"{_WITHOUT_HOOKS}; install delegate-job again")

    def agent(self) -> Finding:
        """Start the agent for a moment, with its hooks and without its model, and see whether one is run."""
        assert self._probes.echo is not None  # noqa: S101 - who calls has looked
        # Bound and not listening: every connection is refused, and nobody else can take the port.
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            echo = self._probes.echo(Trial(self._briefing.launch, self._home, url, self._users))
            self._log.write(REPORTS, b"")
            self._prepare(echo)
            return self._run(echo)

    def _prepare(self, echo: Echo) -> None:
        for name, content in echo.files.items():
            (self._home / name).parent.mkdir(parents=True, exist_ok=True)
            (self._home / name).write_text(content, encoding="utf-8")

    def _run(self, echo: Echo) -> Finding:
        changes = {
            **self._probes.apart(self._home),
            "TMPDIR": str(self._scratch.job.root / "tmp"),
            **echo.env,
        }
        environ = {
            name: value for name, value in {**self._briefing.environ, **changes}.items() if value is not None
        }
        with (self._home / "output").open("w+b") as output:
            stdio = subprocess.DEVNULL, output, subprocess.STDOUT
            with started(echo.argv, stdio, cwd=self._scratch.work, env=environ) as process:
                heard = self._await_hook(process)
            return self._seen(heard, process.returncode, _read(output))

    def _await_hook(self, process: "subprocess.Popen[bytes]") -> Event | None:
        event = retry_until(lambda: self._first() or process.poll() is not None, timeout=AGENT_TIMEOUT)
        if isinstance(event, Event):
            return event
        # It has ended: a hook that it did not wait for may still be writing.
        return retry_until(self._first, timeout=LATE if event else 0.0)

    def _seen(self, heard: Event | None, ended: int, output: str) -> Finding:
        program = self._probes.program
        if heard is not None and heard.source is Source.HOOK:
            native = heard.data.get("hook")
            text = (
                f"{program} was started without its model: it ran our {native} hook, and its report arrived"
            )
            return Finding(HOOKS, Status.OK, text)
        why = self._probes.why_silent(output)
        said = why or (f"it ended with {ended}: {_last_line(output)}" if ended > 0 else "")
        text = f"{program} was started, and ran no hook of ours"
        return Finding(HOOKS, Status.WARNING, f"{text}; {said}" if said else text, _WITHOUT_HOOKS)

    def _first(self) -> Event | None:
        """Return the first report, if there is one."""
        fd = self._log.read_fd(REPORTS)
        if fd is None:
            return None
        with os.fdopen(fd, "rb") as file:
            lines = file.read().split(b"\n")
        now = journal.now()
        read = [
            journal.parse(each, job_id=self._spec.id, source=Source.AGENT, received_at=now) for each in lines
        ]
        return next((of_hook(each, str(self._scratch.job.agent)) for each in read if each is not None), None)


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read(1 << 20).decode(errors="replace")


def _last_line(text: str) -> str:
    lines = [line for each in text.splitlines() if (line := " ".join(each.split()))]
    return lines[-1][:_MOST_SAID] if lines else ""
