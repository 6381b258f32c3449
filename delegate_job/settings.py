"""What a job is run with: option, environment, the work dir's file, the user's file, default; in that order.

Not how options are declared, and nothing about a job itself; each value says where it came from. `--ci`,
which a CI system's `CI=true` stands for, changes what is default.

A work dir is hostile ground. Its `.delegate-job.toml` may come with a cloned repository, so it can set limits
and choose among the agents that the user already has; whatever would start a program of its own is refused.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from delegate_job import settings_values as values
from delegate_job.agents import COMMAND, is_built_in
from delegate_job.errors import UsageError
from delegate_job.paths import default_registry, user_directory
from delegate_job.settings_files import nearest, read_table

if TYPE_CHECKING:
    from delegate_job.settings_notify import Notify

WORKDIR_FILE = ".delegate-job.toml"
USER_FILE = "config.toml"
ENVIRONMENT = "DELEGATE_JOB_"
CI_VARIABLE = "CI"
"""What CI systems set to `true` (GitHub, GitLab and others) or `1`; any other value says nothing."""

_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Settings(NamedTuple):
    """What `submit` goes by. Times are in seconds, paths are absolute."""

    agent: str
    command: tuple[str, ...]
    """The argv template of `--agent command`; () with any other agent."""
    session: str | None
    """The label of `--agent-session tmux:LABEL`."""
    model: str | None
    permission_mode: str | None
    timeout: float
    idle_timeout: float | None
    validate: str | None
    attempts: int
    validate_timeout: float
    broker: str | None
    """An external broker's URL, with its password; None: embedded."""
    close: bool
    fail_on_input: bool
    accept_silent_stop: bool
    startup_timeout: float
    """0: off."""
    ci: bool
    on_event: tuple[str, ...]
    notify: tuple[str, ...]
    """The events of `[notify]`; () where nothing says where to. Its URLs are secret: they stay there."""
    registry_dir: Path
    agents: Mapping[str, tuple[str, ...]]
    """The argv templates of `[agents.NAME]`."""
    sources: Mapping[str, str]
    """Where each value is from: `option`, `environment DELEGATE_JOB_X`, the path of a file, or `default`."""

    def __repr__(self) -> str:
        """Show nothing that may hold a password or a command."""
        return f"Settings(agent={self.agent!r}, registry_dir={str(self.registry_dir)!r})"


class _Key(NamedTuple):
    """One setting: how a raw value is read (ValueError: what it must be), and where it may stand."""

    read: Callable[[Any], Any]
    default: Callable[[], Any] = lambda: None
    in_workdir: bool = False
    in_user_file: bool = True
    secret: bool = False
    """Its value is not repeated in an error."""
    is_path: bool = False


_KEYS: Mapping[str, _Key] = MappingProxyType(
    {
        "agent": _Key(values.text, lambda: "claude-code", in_workdir=True),
        "command": _Key(values.words, tuple, secret=True),
        "agent_session": _Key(values.session_label, in_user_file=False),
        "model": _Key(values.model, in_workdir=True),
        "permission_mode": _Key(values.permission_mode),
        "timeout": _Key(values.seconds, lambda: 3600.0, in_workdir=True),
        "idle_timeout": _Key(values.seconds, in_workdir=True),
        "validate": _Key(values.absolute_path, is_path=True),
        "attempts": _Key(values.attempts, lambda: 1, in_workdir=True),
        "validate_timeout": _Key(values.seconds, lambda: 600.0, in_workdir=True),
        "broker": _Key(values.broker_url, secret=True),
        "close": _Key(values.flag, lambda: False, in_workdir=True),
        "fail_on_input": _Key(values.flag, lambda: False, in_workdir=True),
        "accept_silent_stop": _Key(values.flag, lambda: False),
        "startup_timeout": _Key(values.seconds_or_none, lambda: 30.0, in_workdir=True),
        "ci": _Key(values.flag, lambda: False),
        "on_event": _Key(values.words, tuple, secret=True),
        "registry_dir": _Key(values.directory, default_registry, is_path=True),
    }
)
SECRET = frozenset(name for name, key in _KEYS.items() if key.secret)
"""The settings whose values may hold what others must not read."""
_USER_KEYS = frozenset(name for name, key in _KEYS.items() if key.in_user_file) | {"agents", "notify"}
_WORKDIR_KEYS = frozenset(name for name, key in _KEYS.items() if key.in_workdir)
_REFUSED_IN_WORKDIR = (_USER_KEYS | {"agent_session"}) - _WORKDIR_KEYS


class _Layer(NamedTuple):
    """The raw values of one place, and how a key of it is named: as a source, and in an error."""

    source: Callable[[str], str]
    label: Callable[[str], str]
    values: Mapping[str, Any]


_CI_PROFILE = _Layer(lambda _: "--ci", lambda _: "--ci", {"close": True, "fail_on_input": True})
"""The defaults of a job at which nobody looks."""


def user_file() -> Path | None:
    """Return the path of the user's `config.toml`, there or not; None for a user without a home."""
    directory = user_directory("config")
    return None if directory is None else directory / USER_FILE


def resolve(options: Mapping[str, Any], *, workdir: str | Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings for a job in `workdir`.

    `options` has what the command line gave, by the names of `Settings` (`agent_session` for the session, and
    `embedded_broker`); None and () mean not given. Raises UsageError: one line that names the place.
    """
    at_user, at_workdir = user_file(), Path(workdir) / WORKDIR_FILE
    user = _user_layer(at_user)
    local = _workdir_layer(at_workdir, at_user)
    agents = _agents(user.values.get("agents", {}), at_user)
    said = (_option_layer(options), _environment_layer(environ), local, user, _ci_system_layer(environ))
    layers = (*said, _CI_PROFILE) if _value("ci", said)[0] else said
    found = {name: _value(name, layers) for name in _KEYS}
    chosen = {name: value for name, (value, _) in found.items()}
    sources = {name: source for name, (_, source) in found.items()}
    sources["notify"] = str(at_user) if "notify" in user.values else "default"
    if sources["agent"] == str(at_workdir):
        _check_known(chosen["agent"], agents, at_workdir, at_user)
    if chosen["agent"] != COMMAND and sources["command"] != "option":
        chosen["command"] = ()
    return Settings(
        session=chosen.pop("agent_session"),
        **chosen,
        notify=_notified(user.values, at_user),
        agents=agents,
        sources=MappingProxyType(sources),
    )


def _notified(user: Mapping[str, Any], path: Path | None) -> tuple[str, ...]:
    if "notify" not in user:
        return ()
    from delegate_job import settings_notify

    found = settings_notify.read(user["notify"], str(path))
    return found.events if found.goes_anywhere else ()


def notify() -> "Notify":
    """Return where notifications go, and of what: the user's file alone may say it."""
    from delegate_job import settings_notify

    path = user_file()
    return settings_notify.read(_user_layer(path).values.get("notify", {}), str(path))


def registry_dir(option: str | None, *, environ: Mapping[str, str]) -> Path:
    """Return the registry for commands that need no other setting, by the same rules as `resolve`."""
    directory: Path = _alone("registry_dir", option, environ)
    return directory


def broker(option: str | None, *, environ: Mapping[str, str]) -> str | None:
    """Return the external broker's URL in the same way; None: there is none."""
    url: str | None = _alone("broker", option, environ)
    return url


def _alone(name: str, option: str | None, environ: Mapping[str, str]) -> Any:
    layers = [_option_layer({name: option}), _environment_layer(environ)]
    if not any(layer.values.get(name) for layer in layers):
        layers.append(_user_layer(user_file()))
    return _value(name, tuple(layers))[0]


def _value(name: str, layers: tuple[_Layer, ...]) -> tuple[Any, str]:
    """Return the value of one setting and where it came from."""
    key = _KEYS[name]
    layer = next((each for each in layers if name in each.values), None)
    if layer is None:
        return key.default(), "default"
    raw = layer.values[name]
    if raw is None:  # --embedded-broker
        return None, layer.source(name)
    try:
        return key.read(raw), layer.source(name)
    except ValueError as error:
        shown = "" if key.secret else f", not {_short(raw)}"
        raise UsageError(f"{layer.label(name)} {error}{shown}") from None


def _short(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _option_layer(options: Mapping[str, Any]) -> _Layer:
    given = {name: raw for name, raw in options.items() if raw is not None and raw != ()}
    if given.pop("embedded_broker", False):
        if "broker" in given:
            raise UsageError("--embedded-broker and --broker exclude each other")
        given["broker"] = None
    return _Layer(lambda _: "option", lambda name: f"--{_dashed(name)}", given)


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    # An empty variable is one that is not set: so CI systems hand on what they do not know.
    given = {name: raw for name in _KEYS if (raw := environ.get(_variable(name)))}
    return _Layer(lambda name: f"environment {_variable(name)}", _variable, given)


def _ci_system_layer(environ: Mapping[str, str]) -> _Layer:
    is_ci = environ.get(CI_VARIABLE, "").strip().lower() in {"true", "1"}
    place = f"environment {CI_VARIABLE}"
    return _Layer(lambda _: place, lambda _: place, {"ci": True} if is_ci else {})


def _user_layer(path: Path | None) -> _Layer:
    table = read_table(path, follow=True) if path is not None else None
    for key in table or {}:
        _check_key(key, _USER_KEYS, str(path))
    return _file_layer(
        str(path), {name: _from_home(name, raw, str(path)) for name, raw in (table or {}).items()}
    )


def _workdir_layer(path: Path, at_user: Path | None) -> _Layer:
    table = read_table(path, follow=False) or {}
    for key in table:
        if key in _REFUSED_IN_WORKDIR:
            raise UsageError(
                f"{path}: {_dashed(key)} is not taken from a work dir, where others may have put it",
                hint=f"give it as an option, or in your own {at_user or USER_FILE}",
            )
        _check_key(key, _WORKDIR_KEYS, str(path))
    return _file_layer(str(path), table)


def _file_layer(path: str, table: Mapping[str, Any]) -> _Layer:
    return _Layer(lambda _: path, lambda name: f"{path}: {_dashed(name)}", table)


def _check_key(key: str, known: frozenset[str], path: str) -> None:
    if key not in known:
        near = nearest(key, known)
        raise UsageError(
            f"{path}: unknown key {_dashed(key) if key.isprintable() else _short(key)}",
            hint=f"did you mean {_dashed(near)}?"
            if near
            else f"keys are {', '.join(sorted(map(_dashed, known)))}",
        )


def _from_home(name: str, raw: Any, path: str) -> Any:
    """Return a path of the user's file with `~` filled in; a relative one would change with the work dir."""
    if name not in _KEYS or not _KEYS[name].is_path or not isinstance(raw, str):
        return raw
    expanded = os.path.expanduser(raw)  # noqa: PTH111 - pathlib raises where this leaves the text as it is
    if not os.path.isabs(expanded):  # noqa: PTH117 - a text, not yet a path
        raise UsageError(
            f"{path}: {_dashed(name)} must be an absolute path or begin with ~, not {_short(raw)}"
        )
    return expanded


def _agents(table: Any, path: Path | None) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: agents must be tables, [agents.NAME]")
    return MappingProxyType({name: _agent_command(name, each, path) for name, each in table.items()})


def _agent_command(name: str, table: Any, path: Path | None) -> tuple[str, ...]:
    where = f"{path}: [agents.{name}]"
    if is_built_in(name):
        raise UsageError(f"{where}: {name} is built in", hint="give yours another name")
    if not _AGENT_NAME.fullmatch(name):
        raise UsageError(f"{where}: a name has 1 to 64 letters, digits, ., _ or -")
    if not isinstance(table, dict) or "command" not in table:
        raise UsageError(f"{where} needs a command", hint='command = ["prog", "{prompt_file}"]')
    for key in table:
        _check_key(key, frozenset({"command"}), where)
    try:
        return values.words(table["command"])
    except ValueError as error:
        raise UsageError(f"{where} command {error}") from None


def _check_known(name: str, agents: Mapping[str, tuple[str, ...]], path: Path, at_user: Path | None) -> None:
    if not is_built_in(name) and name not in agents:
        raise UsageError(
            f"{path}: agent must be a built-in one or one of your configuration's, not {_short(name)}",
            hint=f"give it with --agent, or as [agents.NAME] in {at_user or USER_FILE}",
        )


def _variable(name: str) -> str:
    return ENVIRONMENT + name.upper()


def _dashed(name: str) -> str:
    return name.replace("_", "-")
