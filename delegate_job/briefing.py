"""All that one launch of a job's agent needs, described and written down.

Not the launch itself: that is `launcher`.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from delegate_job.agents import BUILT_IN, agent_of
from delegate_job.agents.base import Context, Launch, Link
from delegate_job.agents.instructions import compose, prompt_text, publish_argv, reminder, to_bytes
from delegate_job.audit import AuditDir
from delegate_job.environment import read_limits, scrub
from delegate_job.hook_proof import KEY, new_key
from delegate_job.job import JobSpec
from delegate_job.launcher import write_launch_file
from delegate_job.paths import JobPaths, RegistryPaths, write_new

PROMPT = "prompt.md"
INSTRUCTIONS = "instructions.md"
ASK = "ask.txt"
"""What a stop hook says, in the job's `agent/` directory; `hooks.ASK`, written out to spare its imports."""
SESSION = "session"
"""The agent's own session id, as its hooks have heard it, in the same place."""

_HOOK = Path(__file__).resolve().with_name("hook.py")


class Briefing(NamedTuple):
    """What is started, where, and what it is told. Holds secrets and the prompt: not in the repr."""

    instructions: str
    launch: Launch
    environ: Mapping[str, str]
    in_tmux: bool
    reminder: str
    """What a stop hook says."""
    hook_files: tuple[str, ...] = ()
    """What its hooks need besides `launch.files`, in the job's `agent/` directory."""

    def __repr__(self) -> str:
        return f"Briefing(in_tmux={self.in_tmux})"


def describe(
    spec: JobSpec,
    paths: RegistryPaths,
    *,
    prompt: bytes,
    environ: Mapping[str, str],
    rejection: str | None = None,
    attempt: int = 0,
) -> Briefing:
    """Return the briefing of one launch, writing nothing. `environ` is that of the submit.

    `rejection` is the end of the output of the check number `attempt` that rejected the work before.
    """
    job_paths = paths.job(spec.id)
    agent = agent_of(spec)
    publish = publish_argv(paths.root)
    instructions = compose(
        spec,
        prompt=prompt_text(prompt),
        publish_argv=publish,
        log_dir=spec.log_dir,
        rejection=rejection,
        attempt=attempt,
    )
    context = Context(
        spec=spec,
        instructions=instructions,
        instructions_path=Path(spec.log_dir) / INSTRUCTIONS,
        prompt_path=Path(spec.log_dir) / PROMPT,
        agent_dir=job_paths.agent,
        home=job_paths.home,
        publish_argv=publish,
        hook_argv=hook_argv(spec, job_paths),
        environ=scrub(environ),
        session_id=_session_id(job_paths),
    )
    launch = agent.launch(context)
    return Briefing(
        instructions,
        launch,
        _environment(spec, job_paths, environ, launch),
        agent.in_tmux,
        reminder(spec, publish),
        hook_files=(ASK, KEY) if agent.in_tmux and spec.agent in BUILT_IN and context.hook_argv else (),
    )


def hook_argv(spec: JobSpec, paths: JobPaths) -> tuple[str, ...]:
    """Return the command of a hook, () where an agent's settings cannot carry it: JSON has no odd bytes."""
    script = (sys.executable, "-I", "-S", "-X", "utf8", str(_HOOK))
    argv = (*script, spec.agent, spec.id, spec.log_dir, str(paths.root))
    try:
        "".join(argv).encode()
    except UnicodeEncodeError:
        return ()
    return argv


def _session_id(paths: JobPaths) -> str:
    try:
        text = (paths.agent / SESSION).read_text(encoding="ascii", errors="replace")[:129]
    except OSError:
        return ""
    # It stands in an argv: nothing that could be an option.
    is_id = len(text) <= 128 and text[:1].isalnum() and text.replace("-", "").replace("_", "").isalnum()
    return text if is_id and text.isascii() else ""


def _environment(
    spec: JobSpec, paths: JobPaths, environ: Mapping[str, str], launch: Launch
) -> dict[str, str]:
    own = {
        "DELEGATE_JOB_ID": spec.id,
        "DELEGATE_JOB_DIR": spec.log_dir,
        "DELEGATE_JOB_CONNECTION": str(paths.connection),
    }
    return {**scrub(environ), **launch.env, **own}


def write(briefing: Briefing, spec: JobSpec, paths: JobPaths, *, prompt: bytes) -> None:
    """Write the task, the instructions, the agent's files and `launch.json`. OSError when that fails."""
    log_dir = AuditDir.at(spec.log_dir)
    log_dir.write(PROMPT, prompt)
    log_dir.write(INSTRUCTIONS, to_bytes(briefing.instructions))
    if briefing.launch.files or briefing.hook_files:
        paths.agent.mkdir(mode=0o700, exist_ok=True)
    if briefing.hook_files:
        write_new(paths.agent / ASK, to_bytes(briefing.reminder))
        if not (paths.agent / KEY).exists():
            write_new(paths.agent / KEY, new_key())
    for file in briefing.launch.files:
        write_new(paths.agent / file.name, file.content, file.mode)
    for entry in briefing.launch.home:
        path = paths.home / entry.name
        _make_directories(path.parent, paths.home.parent)
        if isinstance(entry, Link):
            # What the agent has put in its place is its own, since the launch before.
            if not os.path.lexists(path):
                path.symlink_to(entry.target)
        else:
            write_new(path, entry.content, entry.mode)
    if briefing.in_tmux:
        write_launch_file(
            paths,
            argv=briefing.launch.argv,
            cwd=spec.workdir,
            env=briefing.environ,
            limits=read_limits(paths.environ),
        )


def _make_directories(path: Path, under: Path) -> None:
    if path != under:
        _make_directories(path.parent, under)
        path.mkdir(mode=0o700, exist_ok=True)
