"""Reading one value of a setting: from a text or from what TOML gives to the type it is used as.

Not where a value stands; a reader raises ValueError with what it must be, and who asked names the place.
"""

import math
import re
import shlex
from pathlib import Path
from typing import Any

from delegate_job.agents.base import PERMISSION_MODES
from delegate_job.paths import absolute

MOST_SECONDS = 1e9
"""A limit of 31 years: above 9.2e9 the waits of Python's threads overflow (threading.TIMEOUT_MAX)."""
MOST_ATTEMPTS = 1_000_000
"""Far more than anyone wants, far less than SQLite's largest integer."""

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Never a leading "-": it stands as the value of an option of the agent's.
_MODEL = re.compile(r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]{0,255}")
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def text(raw: Any) -> str:
    """Return a text that is not empty and that an argument can carry."""
    if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
        raise ValueError("must be a text that is not empty")
    return raw


def words(raw: Any) -> tuple[str, ...]:
    """Return an argv: a text split as a shell splits, or a list."""
    if isinstance(raw, str):
        try:
            raw = shlex.split(raw)
        except ValueError as error:
            raise ValueError(f"cannot be split into words: {str(error).lower()}") from None
    argv = tuple(raw) if isinstance(raw, list | tuple) else ()
    if not argv or not argv[0] or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise ValueError("must be a program and its arguments")
    return argv


def seconds(raw: Any) -> float:
    """Return a time limit."""
    sentence = "must be a number of seconds above 0"
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError(sentence)  # noqa: TRY004 - one kind of error for one kind of mistake
    try:
        limit = float(raw)
    except (ValueError, OverflowError):
        raise ValueError(sentence) from None
    if not math.isfinite(limit) or not 0 < limit <= MOST_SECONDS:
        raise ValueError(sentence + (f", {MOST_SECONDS:.0f} at most" if limit > MOST_SECONDS else ""))
    return limit


def seconds_or_none(raw: Any) -> float:
    """Return a time limit, 0 for none."""
    is_zero = raw == 0 and not isinstance(raw, bool)
    return 0.0 if is_zero or (isinstance(raw, str) and raw.strip() == "0") else seconds(raw)


def attempts(raw: Any) -> int:
    """Return a number of checks."""
    count = int(raw) if isinstance(raw, str) and raw.strip().isdecimal() and len(raw) < 20 else raw
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_ATTEMPTS:
        raise ValueError(f"must be a whole number from 1 to {MOST_ATTEMPTS}")
    return count


def flag(raw: Any) -> bool:
    """Return a truth value."""
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word not in _YES | _NO:
        raise ValueError("must be true or false (or 1, yes, on; 0, no, off)")
    return word in _YES


def permission_mode(raw: Any) -> str:
    """Return one of PERMISSION_MODES."""
    if raw not in PERMISSION_MODES:
        raise ValueError(f"must be one of {', '.join(PERMISSION_MODES)}")
    return str(raw)


def model(raw: Any) -> str:
    """Return the name of a model, which can stand as the value of an agent's option."""
    if not isinstance(raw, str) or not _MODEL.fullmatch(raw):
        raise ValueError("must be a model's name, without spaces and without a leading -")
    return raw


def session_label(raw: Any) -> str:
    """Return the label in `tmux:LABEL`."""
    kind, _, label = raw.partition(":") if isinstance(raw, str) else ("", "", "")
    if kind != "tmux" or not _LABEL.fullmatch(label):
        raise ValueError("must be tmux:LABEL, the label of 1 to 64 letters, digits, _ or -")
    return label


def absolute_path(raw: Any) -> str:
    """Return the path, absolute from the current directory, no link resolved."""
    return absolute(text(raw))


def directory(raw: Any) -> Path:
    """Return the absolute path of a directory, there or not."""
    return Path(absolute_path(raw))


def broker_url(raw: Any) -> str:
    """Return the URL of a broker; its parts are read where it is connected to."""
    if not isinstance(raw, str) or not raw.startswith(("mqtt://", "mqtts://")):
        raise ValueError("must be mqtt://user:password@host:port, or mqtts://…")
    return raw
