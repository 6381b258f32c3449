"""Sending notices: to the desktop, and by apprise (the extra `notify`) to the URLs of `[notify]`.

Not of what: that is `notices`. Runs in a process of its own, never in one that owns jobs. What goes wrong is
said without a URL: they hold passwords and tokens.
"""

import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

from delegate_job.errors import from_extra
from delegate_job.settings_notify import Notify

DESKTOP_TIMEOUT = 5.0
"""Seconds that the desktop may take to show a notification."""


class Message(NamedTuple):
    """What a person is to read."""

    title: str
    body: str


class Sent(NamedTuple):
    """What became of a message at one place."""

    target: str
    """The place in the configuration, such as `urls[0]`."""
    service: str | None
    """What apprise calls it; None for a URL that it does not know."""
    sent: bool


def missing(notify: Notify) -> list[str]:
    """Return a sentence for each thing that is configured and cannot work."""
    lacks = []
    if notify.urls and find_spec("apprise") is None:
        lacks.append(
            "nothing is sent to the urls of [notify]: apprise is not installed "
            "(pip install 'delegate-job[notify]')"
        )
    if notify.desktop and shutil.which(_desktop_program()) is None:
        lacks.append(f"the desktop shows no notification: {_desktop_program()} is not installed")
    return lacks


def send(notify: Notify, message: Message) -> list[Sent]:
    """Send a message everywhere, at the same time; MissingExtraError when there are URLs and no apprise."""
    found = services(notify)
    with ThreadPoolExecutor() as threads:
        sent = [threads.submit(_to_desktop, message)] if notify.desktop else []
        for target, service in found:
            sent.append(threads.submit(_to_service, target, service, message))
        return [each.result() for each in sent]


def services(notify: Notify) -> list[tuple[str, Any]]:
    """Return the places of the URLs and apprise's objects for them; None for what it does not know."""
    if not notify.urls:
        return []
    # It tells of what goes wrong, with the URL; as does an error of a library below it.
    logging.disable(logging.CRITICAL)
    with from_extra("notify", "apprise", needs="to notify by URL needs the package apprise"):
        from apprise import Apprise
    return [(f"urls[{number}]", Apprise.instantiate(url)) for number, url in enumerate(notify.urls)]


def _to_service(target: str, service: Any, message: Message) -> Sent:
    if service is None:
        return Sent(target, None, sent=False)
    try:
        sent = bool(service.notify(title=message.title, body=message.body, body_format="text"))
    except Exception:  # noqa: BLE001 - a service's own, with its URL in it for all we know
        sent = False
    return Sent(target, str(service.service_name), sent)


def _desktop_program() -> str:
    return "osascript" if sys.platform == "darwin" else "notify-send"


def _to_desktop(message: Message) -> Sent:
    program = _desktop_program()
    if program == "osascript":
        script = "display notification (item 2 of argv) with title (item 1 of argv)"
        argv = [program, "-e", "on run argv", "-e", script, "-e", "end run", "--", *message]
    else:
        argv = [program, "--app-name=delegate-job", "--", *message]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=DESKTOP_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return Sent("desktop", program, sent=False)
    return Sent("desktop", program, done.returncode == 0)
