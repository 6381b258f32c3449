"""`notify`: show where notifications go, try it, or send what an owner of jobs has to tell.

Not how anything is sent: that is `notifying`.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from delegate_job import notifying, settings
from delegate_job.errors import MissingExtraError, UsageError
from delegate_job.exit_codes import ExitCode
from delegate_job.notices import Notice
from delegate_job.output import print_json, printable
from delegate_job.settings_notify import Notify

MOST_NAMED = 10
"""Jobs that are named in one notification."""
TEST = notifying.Message("delegate-job", "This is a test: notifications arrive here.")


def show(*, as_json: bool) -> int:
    """Show where notifications go, and of what."""
    notify = _configured()
    targets = [
        (target, service and str(service.service_name)) for target, service in notifying.services(notify)
    ]
    if notify.desktop:
        targets.insert(0, ("desktop", None))
    if as_json:
        print_json({"events": notify.events, "targets": [target for target, _ in targets]})
        return ExitCode.ACCEPTED
    print(f"events: {', '.join(notify.events) or 'none'}")
    for target, service in targets:
        print(target if target == "desktop" else f"{target}: {service or 'no URL that apprise knows'}")
    return ExitCode.ACCEPTED


def test(*, as_json: bool) -> int:
    """Send a notification everywhere, say what became of it, and return 1 when one did not go out."""
    sent = notifying.send(_configured(), TEST)
    if as_json:
        print_json([each._asdict() for each in sent])
    else:
        for each in sent:
            print(f"{each.target} ({each.service or 'no URL that apprise knows'}): {_outcome(each)}")
    return ExitCode.ACCEPTED if all(each.sent for each in sent) else ExitCode.FAILED


def _outcome(sent: notifying.Sent) -> str:
    return "sent" if sent.sent else "not sent"


def _configured() -> Notify:
    notify = settings.notify()
    if not notify.goes_anywhere:
        raise UsageError(
            "no notification is configured",
            hint=f'urls = ["…"] or desktop = true below [notify] in {settings.user_file() or "config.toml"}',
        )
    return notify


def from_owner() -> int:
    """Send what stands on stdin, a notice a line, as one notification; nobody reads an error."""
    notices = [_notice(json.loads(line)) for line in sys.stdin.buffer if line.strip()]
    notify = settings.notify()
    if notices:
        message = message_of(notices)
        try:
            notifying.send(notify, message)
        except MissingExtraError:  # `submit` has warned of it; the desktop needs no extra.
            notifying.send(notify._replace(urls=()), message)
    return ExitCode.ACCEPTED


def message_of(notices: Sequence[Notice]) -> notifying.Message:
    """Return one message for all that has happened since the last one."""
    if len(notices) == 1:
        (notice,) = notices
        lines = [notice.detail, f"{notice.agent} in {notice.workdir}", f"delegate-job status {notice.job_id}"]
        return notifying.Message(
            f"job {notice.job_id}: {notice.what}", "\n".join(map(printable, filter(None, lines)))
        )
    told = [printable(f"{each.job_id}: {each.what} ({each.detail})") for each in notices[:MOST_NAMED]]
    more = [f"and {len(notices) - MOST_NAMED} more"] if len(notices) > MOST_NAMED else []
    return notifying.Message(f"delegate-job: {len(notices)} events", "\n".join([*told, *more]))


def _notice(document: dict[str, Any]) -> Notice:
    return Notice(**{name: document[name] for name in Notice._fields})
