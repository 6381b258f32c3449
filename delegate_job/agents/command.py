"""An agent that is an argv template: `--agent command --command '…'`, or a user's own `[agents.NAME]`.

Not a shell: the template was split into arguments before, and what is filled in stays one argument.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Context, Launch, Wanted, missing_program

_PLACEHOLDER = re.compile(r"\{(prompt_file|instructions_file|job_id)\}")


class CommandAgent(NamedTuple):
    """A program with arguments, some of which hold `{prompt_file}`, `{instructions_file}` or `{job_id}`."""

    name: str
    template: tuple[str, ...]
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Fill the template in; any other `{x}` stays as it is. Arguments after `--` follow the template."""
        values = {
            "prompt_file": str(context.prompt_path),
            "instructions_file": str(context.instructions_path),
            "job_id": context.spec.id,
        }
        filled = tuple(_fill(argument, values) for argument in self.template)
        return Launch((*filled, *context.spec.agent_args))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether the program is missing; a path in a template is relative to the work dir it runs in."""
        return missing_program(self.template[0], environ, workdir)


def _fill(argument: str, values: Mapping[str, str]) -> str:
    # One pass: a value that happens to hold a placeholder is not filled in again.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], argument)
