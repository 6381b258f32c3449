"""The one exception this package raises to its host; it imports nothing, so that catching it is free."""


class BrokerError(Exception):
    """The broker can't do what was asked; `str()` is one line for a person.

    `errno` is the operating system's error number where a system call failed, else `None`.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.errno = errno
