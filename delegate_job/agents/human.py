"""A person as the agent: reads the instructions, works, and reports with `delegate-job publish`.

Nothing is started, in tmux or elsewhere; who submits prints the instructions.
"""

from collections.abc import Mapping
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, Launch, Wanted


class Human(NamedTuple):
    """Somebody at a keyboard."""

    name: str = "human"
    template: tuple[str, ...] = ()
    in_tmux: bool = False

    def launch(self, _context: Context, /) -> Launch:
        """Return an empty launch."""
        return Launch(())

    def problem(
        self, _environ: Mapping[str, str], _workdir: str, _wanted: Wanted = AS_IT_IS, /
    ) -> str | None:
        """Nothing keeps a person from starting."""
        return None


AGENT: Agent = Human()
