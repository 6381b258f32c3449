"""`signal`, `json`'s loads and dumps, and SHA-256 without what they bring along, where an agent waits for it.

Enumerations, regular expressions and OpenSSL would take 7 of the 15 ms that the pane's process needs, and 3
of a submit's. What is used instead is CPython's own, the same in 3.11 to 3.13 but for the names tried here;
where it is missing, the public modules do it.
"""

import sys

TYPE_CHECKING = False  # As in typing, which costs 3 ms of start-up.
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

__all__ = ["dumps", "loads", "sha256", "signal"]


class _Plain:
    """What `json.JSONDecoder` tells its scanner, at its defaults."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def loads(text: str) -> "Any":
    """Return what one JSON text holds; ValueError when it is none."""
    try:
        from _json import make_scanner

        context: Any = _Plain
        value, end = make_scanner(context)(text, 0)
    except (ImportError, AttributeError, StopIteration, SystemError, ValueError):
        end = -1  # `json` says what is wrong: the scanner alone cannot.
    if end == len(text):
        return value
    import json

    return json.loads(text)


def dumps(value: "Any") -> str:
    """Return a value as JSON, short, all characters as they are; TypeError or ValueError for what is none."""
    try:
        from _json import encode_basestring, make_encoder

        make: Any = make_encoder
        encode = make(None, None, encode_basestring, None, ":", ",", False, False, False)
        return "".join(encode(value, 0))
    except (ImportError, AttributeError, TypeError, ValueError, RecursionError, SystemError):
        import json  # It says what is wrong, or knows another `_json`.

        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def sha256(data: bytes) -> str:
    """Return the SHA-256 of a text in hexadecimal digits."""
    for name in ("_sha2" if sys.version_info >= (3, 12) else "_sha256", "hashlib"):
        try:
            digest: str = __import__(name).sha256(data).hexdigest()
        except (ImportError, AttributeError):
            continue
        return digest
    raise ImportError("this Python has no SHA-256")
