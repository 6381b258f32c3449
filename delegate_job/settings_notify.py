"""`[notify]` of the user's configuration: where notifications go, and of what.

Its URLs hold passwords and tokens: no error, no `repr` and no job repeats them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from delegate_job import notices, settings_values
from delegate_job.errors import UsageError
from delegate_job.settings_files import nearest


class Notify(NamedTuple):
    """Where notifications go, and of what."""

    urls: tuple[str, ...] = ()
    """As apprise has them."""
    desktop: bool = False
    events: tuple[str, ...] = notices.USUAL

    @property
    def goes_anywhere(self) -> bool:
        """Whether there is anything to send to."""
        return bool(self.urls) or self.desktop

    def __repr__(self) -> str:
        """Show no URL."""
        return f"Notify(urls={len(self.urls)}, desktop={self.desktop}, events={self.events})"


def _urls(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(each, str) and "://" in each for each in raw):
        raise ValueError('must be a list of URLs, such as ["ntfy://ntfy.sh/topic"]')
    return tuple(raw)


def _events(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError(f"must be a list, such as {list(notices.USUAL)}")  # noqa: TRY004 - one kind of error
    for name in raw:
        if name not in notices.KNOWN:
            near = nearest(str(name), notices.KNOWN)
            raise ValueError(
                f"cannot hold {str(name)[:60]!r}" + (f": did you mean {near!r}?" if near else "")
            )
    return tuple(raw)


_READERS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"urls": _urls, "desktop": settings_values.flag, "events": _events}
)


def read(table: Any, path: str) -> Notify:
    """Return what `[notify]` says. Raises UsageError, which names the key and never a URL."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: notify must be a table, [notify]")
    values = {}
    for key, raw in table.items():
        if key not in _READERS:
            near = nearest(key, _READERS)
            hint = f"did you mean {near}?" if near else f"keys are {', '.join(_READERS)}"
            raise UsageError(f"{path}: [notify] unknown key {key[:60]!r}", hint=hint)
        try:
            values[key] = _READERS[key](raw)
        except ValueError as error:
            raise UsageError(f"{path}: [notify] {key} {error}") from None
    return Notify(**values)
