"""How this very program is run once more. Not which of its commands, nor on which registry."""

import sys


def own_program() -> tuple[str, ...]:
    """Return the argv that begins a command of ours, with this very Python.

    `-P`: no module may come from the directory in which it is run.
    """
    return (sys.executable, "-P", "-m", "delegate_job")
