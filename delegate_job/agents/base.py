"""What an agent is to the rest: how to start it and what keeps it from starting.

Agents describe; nothing here starts a process or writes a file. Who launches does both.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from delegate_job.job import JobSpec
from delegate_job.paths import is_executable, on_path

PERMISSION_MODES = ("ask", "edits", "auto", "all")
"""From "a person is asked for each thing" to "nobody is asked at all"; each agent maps them to its own."""


class File(NamedTuple):
    """A file of this run, to be written into a directory of the job's before the launch."""

    name: str
    """Relative to the directory it is meant for; what lies between is made."""
    content: bytes
    mode: int = 0o600

    def __repr__(self) -> str:
        return f"File({self.name!r})"


class Link(NamedTuple):
    """A symbolic link of this run, among its files."""

    name: str
    """As of a `File`."""
    target: Path
    """Absolute."""


class Launch(NamedTuple):
    """What to start: argv, what the environment gets on top, which files must be there first."""

    argv: tuple[str, ...]
    """Run without a shell, in the work dir. Holds the prompt, therefore not in the repr."""
    env: Mapping[str, str] = MappingProxyType({})
    files: tuple[File, ...] = ()
    home: tuple[File | Link, ...] = ()
    """What is for `Context.home`, which is there when the agent starts if there is one of them."""

    def __repr__(self) -> str:
        return f"Launch(files={self.files})"


class Context(NamedTuple):
    """All that an agent may know of a job."""

    spec: JobSpec
    instructions: str
    """What the agent is told, whole (`instructions.compose`)."""
    instructions_path: Path
    """The file that holds `instructions`."""
    prompt_path: Path
    """The file that holds the bare task."""
    agent_dir: Path
    """Where the caller writes `Launch.files`."""
    home: Path
    """Where the caller writes `Launch.home`: a directory for this job's own configuration of the agent, which
    goes when both have ended."""
    publish_argv: tuple[str, ...]
    """The command that reports, with absolute paths, up to and including `publish`."""
    hook_argv: tuple[str, ...] = ()
    """The command of a hook; the native event's name is to follow. () where no hook can be told a path of the
    job: give none then. Run without a shell where the agent can, else quoted with `shlex.join`."""
    environ: Mapping[str, str] = MappingProxyType({})
    """What the agent gets of the submit's environment: where its own configuration is. Holds secrets."""
    session_id: str = ""
    """The agent's own session that its hooks last told of: one to resume. Empty before the first launch."""

    def __repr__(self) -> str:
        return f"Context({self.spec.id})"


class Wanted(NamedTuple):
    """How an agent is to run, as far as that may keep it from starting."""

    permission_mode: str | None = None
    """One of PERMISSION_MODES; None: the user's own default."""
    ci: bool = False
    """In the CI profile (`JobSpec.ci`)."""


AS_IT_IS = Wanted()


class Dialog(NamedTuple):
    """The dialog by which an agent asks for leave, as its screen shows it, and the keys that answer it.

    For an agent whose hooks cannot answer. `Tmux.press` says which words can be looked for.
    """

    begins: str
    """What stands in its first line; the last such line of the screen begins it."""
    grants: str
    """The words of the option that is chosen by `approve`."""
    approve: bytes
    """The key that grants this once."""
    deny: bytes = b"\x1b"
    """The key that refuses."""


class Agent(Protocol):
    """How one agent is started."""

    @property
    def name(self) -> str:
        """What `--agent` calls it; of a program given by a path, the absolute path."""

    @property
    def template(self) -> tuple[str, ...]:
        """The argv template, to be kept in `JobSpec.command`; () for an agent that has none."""

    @property
    def in_tmux(self) -> bool:
        """Whether there is anything to start in a session."""

    def launch(self, context: Context, /) -> Launch:
        """Describe the start of this agent for one job."""

    def problem(self, environ: Mapping[str, str], workdir: str, wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Return one sentence on what keeps it from starting and what to do, or None."""


def find_program(program: str, environ: Mapping[str, str], workdir: str) -> str | None:
    """Return the path of `program` as a process in `workdir` with `environ` would find it, or None."""
    if "\0" in program:
        return None
    if os.sep in program:
        path = os.path.join(workdir, program)  # noqa: PTH118 - keeps bytes that pathlib would normalise
        return path if is_executable(path) else None
    return on_path(program, environ.get("PATH", os.defpath))


def missing_program(program: str, environ: Mapping[str, str], workdir: str, *, hint: str = "") -> str | None:
    """Return the sentence for a program that cannot be found or executed, or None when it is there."""
    if find_program(program, environ, workdir) is not None:
        return None
    where = f"in {workdir}" if os.sep in program else "on PATH"
    return f"no executable program {program!r} {where}" + (f"; {hint}" if hint else "")
