"""Codex CLI: its argv and its permission modes.

Not its hooks, its login or its trust dialog: trust of the work dir is the user's to give.

Seen in codex 0.169.0 on Debian 12, unless a line says otherwise.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import Agent, Context, Launch, missing_program
from delegate_job.agents.instructions import as_argument
from delegate_job.job import JobSpec

_PROGRAM = "codex"
# Approval policies are `on-request` and `never`; `untrusted` and `on-failure` of old versions are errors now.
# In the read-only sandbox a person is asked for each change, a report's line in the log among them.
_MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ask": ("--sandbox", "read-only", "--ask-for-approval", "on-request"),
        "edits": ("--sandbox", "workspace-write", "--ask-for-approval", "on-request"),
        "auto": ("--sandbox", "workspace-write", "--ask-for-approval", "never"),
        "all": ("--dangerously-bypass-approvals-and-sandbox",),
    }
)


class Codex(NamedTuple):
    """The program `codex`, interactive, with the prompt as its argument, which it submits by itself."""

    name: str = "codex"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `codex --no-daemon [--add-dir LOG_DIR] [MODE…] [--model X] [ARG…] -- PROMPT`.

        Without `--no-daemon` an app server outlives the pane and runs a second job's commands with the first
        job's environment. A prompt that begins with `!` would run in a shell; ours does not.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM, "--no-daemon", *_log_dir(spec)]
        argv += _MODES.get(spec.permission_mode or "", ())
        if spec.model is not None:
            argv += ["--model", spec.model]
        return Launch((*argv, *spec.agent_args, "--", told))

    def problem(
        self, environ: Mapping[str, str], workdir: str, _permission_mode: str | None = None, /
    ) -> str | None:
        """Say whether `codex` is missing."""
        hint = "install it with: npm install -g @openai/codex"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def _log_dir(spec: JobSpec) -> tuple[str, ...]:
    """Return what lets reports out of the sandbox when the log directory is not below the work dir.

    Only then: in the read-only sandbox, which may also be the user's own default, `--add-dir` ends codex at
    once ("the effective permissions do not allow additional writable roots", exit 1).
    """
    inside = Path(spec.log_dir).is_relative_to(spec.workdir)
    return () if inside or spec.permission_mode == "ask" else ("--add-dir", spec.log_dir)


AGENT: Agent = Codex()
