"""What every duty is given: the owned job, its agent's session, and the way into the background.

Not a duty itself: those are `launching`, `checking`, `telling` and `closing`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from delegate_job.events import Kind
from delegate_job.job import Job, Verdict

if TYPE_CHECKING:
    from delegate_job.agent_session import AgentSession
    from delegate_job.listener import Listener
    from delegate_job.owner import OwnedJob
    from delegate_job.registry import Registry


VERDICT_KINDS = {
    Verdict.PASSED: Kind.CHECK_PASSED,
    Verdict.FAILED: Kind.CHECK_FAILED,
    Verdict.TIMED_OUT: Kind.CHECK_TIMED_OUT,
    Verdict.CHANGED: Kind.CHECK_CHANGED,
}
"""What is said of each verdict."""


class Duty:
    """The common part of all duties of one owned job.

    `begin(action, work, then, head_start=0.0)` runs `work` in the background; `then` takes its result, or the
    exception that ended it, in the loop. Until then nothing else is begun for the job. The loop waits
    `head_start` seconds at the most before it goes on: what is soon done need not share the processor with
    what comes next.
    """

    def __init__(
        self,
        owned: "OwnedJob",
        session: "AgentSession",
        begin: Callable[..., None],
        *,
        registry: "Registry",
        listener: "Listener",
        environ: Mapping[str, str],
    ) -> None:
        self._owned = owned
        self._session = session
        self._begin = begin
        self._registry = registry
        self._listener = listener
        self._paths = owned.paths
        self._environ = environ

    @property
    def _job(self) -> Job:
        return self._owned.job
