"""Aider: its argv for one shot, after which it exits. It has no hooks.

Its exit code is 0 whatever happens. With `--yes-always` it runs no command that its model suggests, a report
neither: those need an explicit yes. So its exit is all that is heard, and the check decides on it with
`--accept-silent-stop`. Without `--yes-always` it asks a person in the session.

Seen in aider-chat 0.86.2 on Debian 12, unless a line says otherwise.
"""

from collections.abc import Mapping
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, Launch, Wanted, missing_program

_PROGRAM = "aider"
# Nothing that asks, looks for news, tells home or edits `.gitignore`, before the work begins.
_QUIET = (
    "--no-check-update",
    "--no-show-release-notes",
    "--analytics-disable",
    "--no-gitignore",
    "--no-show-model-warnings",
)


class Aider(NamedTuple):
    """The program `aider`, which does what a file says and exits."""

    name: str = "aider"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `aider [--yes-always] … [--model X] [ARG…] --message-file INSTRUCTIONS`."""
        spec = context.spec
        argv = [_PROGRAM, *_QUIET]
        # It asks a person before it runs a command or edits a file that was not added, or it does not ask.
        if spec.permission_mode in {"auto", "all"}:
            argv += ["--yes-always"]
        if spec.model is not None:
            argv += ["--model", spec.model]
        return Launch((*argv, *spec.agent_args, "--message-file", str(context.instructions_path)))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `aider` is missing."""
        hint = "install it with: pipx install aider-chat"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


AGENT: Agent = Aider()
