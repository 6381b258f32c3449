"""The settings as they may be shown: each with its value, without its secrets, and where it came from.

Not how they are printed, and nothing here reads a file: that is `settings`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job.settings import SECRET, Settings

MASK = "***"
"""Stands for what may be secret: a broker's password, the arguments of a command."""


class Shown(NamedTuple):
    """One setting. `value` is a text, a number, a truth value, a list of texts, or None for none."""

    name: str
    value: Any
    source: str
    """As in `Settings.sources`."""


def shown(settings: Settings) -> Iterator[Shown]:
    """Yield every setting, in one order."""
    for name, source in settings.sources.items():
        yield Shown(name, _value(name, settings), source)


def shown_agents(settings: Settings) -> dict[str, list[str]]:
    """Return the configured agents and their commands."""
    return {name: _words(command) for name, command in settings.agents.items()}


def _value(name: str, settings: Settings) -> Any:
    if name == "agent_session":
        return settings.session and f"tmux:{settings.session}"
    value = getattr(settings, name)
    if value is None or value == ():
        return "embedded" if name == "broker" else None
    if name in SECRET:
        return _words(value) if isinstance(value, tuple) else _url(value)
    return str(value) if isinstance(value, Path) else value


def _words(argv: tuple[str, ...]) -> list[str]:
    return [argv[0], MASK] if argv[1:] else [*argv]


def _url(url: str) -> str:
    from delegate_job.errors import UsageError
    from delegate_job.mqtt import parse_url

    try:
        address = parse_url(url)
    except UsageError:
        # Where its password begins and ends cannot be said.
        return f"{url.partition('://')[0]}://{MASK}"
    masked = address if address.password is None else address._replace(password=MASK)
    return masked.url(with_password=True).replace("%2A", "*")
