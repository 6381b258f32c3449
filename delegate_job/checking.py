"""The duty to check: run the job's check in the background and say its verdict.

Not how a check is run and bounded: that is `validation`.
"""

import threading
from typing import TYPE_CHECKING, Any

from delegate_job.duty import VERDICT_KINDS, Duty
from delegate_job.errors import one_line
from delegate_job.events import Kind
from delegate_job.job import Action, JobState, Verdict

if TYPE_CHECKING:
    from delegate_job.validation import CheckResult


class Check(Duty):
    """The check of one job, at most one at a time."""

    def begin(self, stop: threading.Event) -> None:
        """Run the check if one more may run; setting `stop` ends it."""
        from delegate_job import validation

        if not self._owned.checks.acquire(self._job.id):
            return
        stop.clear()
        spec, attempt, registry_dir = self._job.spec, self._job.attempt, self._registry.paths.root
        self._begin(
            Action.CHECK,
            lambda: validation.run(
                self._paths,
                spec,
                attempt=attempt,
                environ=self._environ,
                registry_dir=registry_dir,
                stop=stop,
            ),
            self._checked,
        )

    def _checked(self, result: Any) -> None:
        if self._job.state is not JobState.CHECKING:
            return
        if isinstance(result, Exception):
            self._owned.say(
                Kind.CHECK_FAILED, f"the check could not be run: {one_line(result)}", {"output": str(result)}
            )
        else:
            self._say_verdict(result)

    def _say_verdict(self, result: "CheckResult") -> None:
        data = {
            "attempt": self._job.attempt,
            "exit_code": result.exit_code,
            "seconds": round(result.seconds, 3),
            "output": result.output_tail,
        }
        detail = f"exit {result.exit_code}" if result.verdict is Verdict.FAILED else None
        self._owned.say(VERDICT_KINDS[result.verdict], detail, data)
