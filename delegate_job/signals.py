"""An owner's signals as messages in its inbox. Not what follows from them: that is `supervisor`."""

import contextlib
import queue
import signal
from collections.abc import Iterator
from types import FrameType

from delegate_job.inbox import Message, Signalled

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""Those that an owner hears."""


def leave_if_told(inbox: "queue.SimpleQueue[Message]") -> None:
    """End the process, as an exception, when a signal to end it waits in the inbox: there is no job yet."""
    waiting = [inbox.get_nowait() for _ in range(inbox.qsize())]
    for message in waiting:
        inbox.put(message)
        if isinstance(message, Signalled) and message.signum != signal.SIGTSTP:
            raise SystemExit(128 + message.signum)


@contextlib.contextmanager
def hearing_signals() -> Iterator["queue.SimpleQueue[Message]"]:
    """Yield an inbox into which this process's signals come, from before a job is made until it has ended.

    They keep going there afterwards, while the process ends: one that comes too late must not change the
    exit code of a job that is done. Only an exception restores what was.
    """
    # What `nohup` has ignored stays so.
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [signum for signum in SIGNALS if not (nohup and signum == signal.SIGHUP)]
    # SimpleQueue: a signal handler may put into it while the loop gets from it.
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def put(signum: int, _frame: FrameType | None) -> None:
        inbox.put(Signalled(signum))

    before = {signum: signal.signal(signum, put) for signum in heard}
    try:
        yield inbox
    except BaseException:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        raise
