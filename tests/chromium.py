"""A headless Chromium that is told what to do over its debugging pipe (Chrome DevTools Protocol).

Not what is looked for on a page. No driver and no web socket: two named pipes, JSON texts with a NUL behind.
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import PATIENCE, Place, end_group

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-breakpad", "--no-zygote",
    "--remote-debugging-pipe", "about:blank",
)  # fmt: skip


def found() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Chromium:
    """One browser with one page. `happened` has every event of the page, in its order."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.happened: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and return its result; what happens meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "result" in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.happened.append(answer)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, a promise's once it is there."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def show(self, page: Path, *, width: int, scheme: str) -> None:
        """Load a page in a window of this width, for a reader who prefers `light` or `dark`."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.happened.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.happened):
            self.happened.append(self._next())

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events with this name."""
        return [event["params"] for event in self.happened if event.get("method") == method]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + 2 * PATIENCE
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            assert left > 0, "the browser does not answer"
            assert select.select([self._read], [], [], left)[0], "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextlib.contextmanager
def started(place: Place, program: str) -> Iterator[Chromium]:
    """Start a browser in a place; it is ended with all its processes."""
    pipes = [place.root / "to-chromium", place.root / "from-chromium"]
    for pipe in pipes:
        os.mkfifo(pipe)
    profile = f"--user-data-dir={place.root}/chromium"
    script = 'exec "$@" 3<"$TO" 4>"$FROM" 2>/dev/null'
    # It leaves a lock in its temporary directory when it is ended.
    (place.root / "chromium-tmp").mkdir()
    env = {"TO": str(pipes[0]), "FROM": str(pipes[1]), "TMPDIR": str(place.root / "chromium-tmp")}
    process = place.spawn("bash", "-c", script, "-", program, profile, *_FLAGS, env=env)
    write, read = os.open(pipes[0], os.O_WRONLY), os.open(pipes[1], os.O_RDONLY)
    try:
        yield Chromium(write, read)
    finally:
        os.close(write)
        os.close(read)
        end_group(process)
