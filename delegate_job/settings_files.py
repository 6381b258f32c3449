"""Reading one TOML file of settings: bounded, without blocking, with errors of one line.

Not what the keys mean; that is `settings`.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from delegate_job.errors import UsageError

LIMIT = 64 * 1024
"""The most bytes of a file of settings."""
WORKDIR_LIMIT = 4 * 1024
"""The same in a work dir: tomllib's time grows with the square of a key's parts, and 64 KiB took 15 s."""


def read_table(path: Path, *, follow: bool) -> dict[str, Any] | None:
    """Return the file's table, its keys with `_` for `-`, or None when there is no file.

    What stands there and is no regular file, or with `follow=False` a symbolic link, is an error and not
    ignored: a user who believes in a limit that is not applied is worse off than one who is told.
    Raises UsageError.
    """
    content = _read(path, follow=follow)
    return None if content is None else _underscored(_parse(content, path), path)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like `word`, or None when none is."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def _read(path: Path, *, follow: bool) -> bytes | None:
    # Without O_NONBLOCK a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {_why(error, follow=follow)}") from None
    try:
        return _read_regular(fd, path, LIMIT if follow else WORKDIR_LIMIT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    finally:
        os.close(fd)


def _read_regular(fd: int, path: Path, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise UsageError(f"{path}: not a regular file", hint="remove it")
    with open(fd, "rb", closefd=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UsageError(f"{path}: longer than {limit // 1024} KiB")
    return content


def _why(error: OSError | ValueError, *, follow: bool) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.ELOOP and not follow:
            return "a symbolic link, which is not followed in a work dir"
        return error.strerror or str(error)
    return str(error)


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    # tomllib's own error is a ValueError, as are bad UTF-8 and integers of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {str(error).splitlines()[0][:200]}") from None


def _underscored(table: dict[str, Any], path: Path) -> dict[str, Any]:
    renamed = {key.replace("-", "_"): value for key, value in table.items()}
    if len(renamed) != len(table):
        raise UsageError(f"{path}: a key stands there twice, with - and with _")
    return renamed
