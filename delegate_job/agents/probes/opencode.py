"""OpenCode as `doctor` sees it: its login, its package, and a start whose model nobody serves.

Not its hooks themselves. Seen in opencode 1.18.33 on Debian 12, unless a line says otherwise.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from delegate_job.agents.base import Wanted
from delegate_job.agents.probes import (
    HOOKS,
    Echo,
    Finding,
    Probes,
    Status,
    Trial,
    home_of,
    is_set,
    read_json,
    shown,
    value_at,
)

_KEYS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
    "OPENCODE_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "XAI_API_KEY",
    "DEEPSEEK_API_KEY",
)
_PACKAGE = "@opencode-ai/plugin"
"""What it installs from npm in its configuration directory on its first start: types for plugins."""
_DEPENDENCIES = {"dependencies": {_PACKAGE: "*"}}
_AS_INSTALLED: Mapping[str, str] = MappingProxyType(
    {
        "package.json": json.dumps(_DEPENDENCIES),
        "package-lock.json": json.dumps({"lockfileVersion": 3, "packages": {"": _DEPENDENCIES}}),
        f"node_modules/{_PACKAGE}/package.json": "{}",
    }
)
"""By this it takes the package for installed; our plugin does without."""
_CONFIG = "OPENCODE_CONFIG_CONTENT"
_NO_PLUGINS = "OPENCODE_PURE"


def _look(environ: Mapping[str, str], _workdir: str, _wanted: Wanted) -> Iterator[Finding]:
    if not _is_installed(environ):
        text = "not done yet: it installs a package from npm, on an empty screen"
        yield Finding("first start", Status.WARNING, text, "start `opencode` once with a network")
    data = Path(environ.get("XDG_DATA_HOME") or home_of(environ) / ".local/share")
    credentials = data / "opencode/auth.json"
    if read_json(credentials):
        yield Finding("login", Status.OK, f"credentials in {shown(credentials, environ)}")
    elif value_at(read_json(_config_dir(environ) / "opencode.json"), "provider"):
        yield Finding("login", Status.OK, "your opencode.json names a provider")
    elif key := is_set(environ, *_KEYS):
        yield Finding("login", Status.OK, f"{key} is set")
    else:
        yield Finding("login", Status.WARNING, "none seen", "run `opencode auth login`")
    if environ.get(_NO_PLUGINS, "").lower() in {"1", "true"}:
        text = f"switched off by {_NO_PLUGINS}: our hooks are a plugin"
        yield Finding(HOOKS, Status.WARNING, text, "unset it to hear of dialogs and ends of turns")


def _config_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or home_of(environ) / ".config") / "opencode"


def _is_installed(environ: Mapping[str, str]) -> bool:
    return (_config_dir(environ) / "node_modules" / _PACKAGE / "package.json").is_file()


def _apart(home: Path) -> Mapping[str, str]:
    kinds = ("DATA", "CONFIG", "STATE", "CACHE")
    quiet = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return {**{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in kinds}, **quiet}


def _echo(trial: Trial) -> Echo:
    # `run` opens a session with the plugins of an interactive start, and asks the model after that.
    *options, _, _ = trial.launch.argv
    served = {"baseURL": f"{trial.nowhere}/v1", "apiKey": "none"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": served, "models": {"none": {"name": "none"}}}
    config = json.loads(trial.launch.env[_CONFIG]) | {"provider": {"doctor": provider}, "share": "disabled"}
    env = {_CONFIG: json.dumps(config), "OPENCODE_CONFIG": None, "OPENCODE_CONFIG_DIR": None}
    files = {f"config/opencode/{name}": text for name, text in _AS_INSTALLED.items()}
    argv = (options[0], "run", "--model", "doctor/none", *options[1:], "--", "Say nothing.")
    return Echo(argv, env, files)


PROBES = Probes(
    program="opencode",
    tried_with="1.18.33",
    look=_look,
    apart=_apart,
    event="session.created",
    echo=_echo,
)
