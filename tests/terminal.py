"""A person's own terminal: one command in a pane of a tmux server of theirs, its screen and its keys.

Not the tmux of jobs: that is `Place.tmux`.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness import PATIENCE, Place, wait_until


@dataclass
class Terminal:
    """A pane of a person's own tmux server, in which one command runs; its exit code is shown at the end."""

    place: Place
    columns: int = 100
    rows: int = 30
    server: Path = field(init=False)

    def start(self, *words: str, before: str = "", behind: str = "") -> None:
        """Run `BEFORE delegate-job WORDS BEHIND` in the terminal, with a shell's words before and behind."""
        command = f"{before} {shlex.join([self.place.environ['DJ'], *words])} {behind}"
        # The shell outlives Ctrl-C, as a person's does.
        script = self.place.script("typed", f"trap : INT\n{command}\necho code=$?\nexec sleep 600")
        size = ("-x", str(self.columns), "-y", str(self.rows))
        tmux = ("tmux", "-L", "person", "-f", os.devnull, "new-session", "-d", "-s", "t")
        assert self.place.spawn(*tmux, *size, script).wait(PATIENCE) == 0
        (self.server,) = [path for path in self.place.tmux_sockets() if path.name == "person"]

    def tmux(self, *words: str) -> str:
        """Ask the person's tmux."""
        argv = ["tmux", "-S", str(self.server), *words]
        return subprocess.run(
            argv, check=True, capture_output=True, encoding="utf-8", timeout=PATIENCE
        ).stdout

    def screen(self, *options: str) -> str:
        """Return what stands on the screen; with `-e`, its colours too."""
        return self.tmux("capture-pane", "-p", "-t", "t", *options).rstrip()

    def shows(self, *texts: str, without: str = "", timeout: float = PATIENCE) -> str:
        """Return the screen as soon as it shows all these texts at once, and not the one it is to be without.

        Name all that is asserted of one screen: a program's frame comes in pieces.
        """
        last = ""

        def seen() -> bool:
            nonlocal last
            last = self.screen()
            return all(text in last for text in texts) and not (without and without in last)

        try:
            wait_until(seen, timeout)
        except AssertionError as late:
            wanted = f"{texts!r}" + (f" without {without!r}" if without else "")
            raise AssertionError(f"{wanted} is not on the screen after {timeout:g} s:\n{last}") from late
        return last

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self.tmux("send-keys", "-t", "t", "--", *keys)
