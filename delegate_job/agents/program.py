"""Any program as an agent: it gets the instructions as one last argument.

Not for a program that needs more than that; `--agent command` takes a whole argv.
"""

from collections.abc import Mapping
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Context, Launch, Wanted, missing_program
from delegate_job.agents.instructions import as_argument


class ProgramAgent(NamedTuple):
    """A program, by its name on PATH or by its absolute path."""

    name: str
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Put the instructions last, after the arguments that the user gave."""
        told = as_argument(context.instructions, context.instructions_path, job_id=context.spec.id)
        return Launch((self.name, *context.spec.agent_args, told))

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether the program is missing."""
        return missing_program(self.name, environ, workdir)
