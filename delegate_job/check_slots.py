"""How many checks of one owner may run side by side. Not the checks."""


class CheckSlots:
    """A semaphore that nobody waits at: who finds no slot is remembered. For one thread."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[str, None] = {}

    def acquire(self, job_id: str) -> bool:
        """Take a slot; False when there is none now."""
        if self._free == 0:
            self._waiting[job_id] = None
            return False
        self._waiting.pop(job_id, None)
        self._free -= 1
        return True

    def release(self) -> None:
        """Give a slot back."""
        self._free += 1

    def pop_waiting(self) -> list[str]:
        """Return the jobs that found no slot, and forget them."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting
