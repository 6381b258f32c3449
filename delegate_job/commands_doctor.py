"""`delegate-job doctor` as a user meets it: a list or JSON, and an exit code. Not what is found."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from delegate_job import doctor
from delegate_job.agents.probes import Finding, Status
from delegate_job.exit_codes import ExitCode
from delegate_job.output import beside, has_colours, print_json, printable
from delegate_job.submission import checked_workdir

_COLOURS = {Status.OK: 32, Status.WARNING: 33, Status.MISSING: 31}
_STATUS, _WHAT = max(map(len, Status)), 12
"""Columns of the status, and of what was looked at."""


class _Ended(BaseException):
    """A signal: what was made is removed on the way out."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def examine(agent: str | None, workdir: str, registry_dir: str | None, *, as_json: bool) -> int:
    """Look at everything and say each thing as soon as it is known; 7 when something needed is missing."""
    asked = doctor.Asked(agent, checked_workdir(workdir), registry_dir, dict(os.environ))
    findings = []
    try:
        with _signals_raise():
            for finding in doctor.examine(asked):
                findings.append(finding)
                if not as_json:
                    _show(finding)
    except _Ended as ended:
        return 128 + ended.signum
    well = doctor.is_well(findings)
    if as_json:
        print_json(
            {"ok": well, "agent": agent, "workdir": asked.workdir, "findings": list(map(_fields, findings))}
        )
    return ExitCode.ACCEPTED if well else ExitCode.NOT_STARTED


@contextmanager
def _signals_raise() -> Iterator[None]:
    def raise_it(signum: int, _frame: object) -> None:
        raise _Ended(signum)

    before = {signum: signal.signal(signum, raise_it) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _fields(finding: Finding) -> dict[str, Any]:
    return {**finding._asdict(), "status": str(finding.status)}


def _show(finding: Finding) -> None:
    status = f"{finding.status:<{_STATUS}}"
    if has_colours(sys.stdout):
        status = f"\x1b[{_COLOURS[finding.status]}m{status}\x1b[0m"
    label = _STATUS + 2 + max(_WHAT, len(finding.what)) + 2
    print(f"{status}  {finding.what:<{_WHAT}}  {beside(label, printable(finding.text))}", flush=True)
    if finding.hint:
        left = _STATUS + 2 + _WHAT + 2
        print(f"{'':<{left}}{beside(left, f'hint: {printable(finding.hint)}')}", flush=True)
