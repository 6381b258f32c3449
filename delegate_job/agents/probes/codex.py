"""Codex CLI as `doctor` sees it: its login, its trust, and a start whose model nobody serves.

Not its hooks themselves. Seen in codex 0.169.0 on Debian 12, unless a line says otherwise.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from delegate_job.agents.base import Wanted
from delegate_job.agents.codex import HOME, KEY, distrusts, has_fresh_home
from delegate_job.agents.probes import (
    HOOKS,
    WORKDIR_LIMIT,
    Echo,
    Finding,
    Probes,
    Status,
    Trial,
    home_of,
    in_ci,
    is_set,
    read_json,
    read_toml,
    shown,
    value_at,
)


def _look(environ: Mapping[str, str], workdir: str, wanted: Wanted) -> Iterator[Finding]:
    if has_fresh_home(environ, ci=wanted.ci):
        yield from in_ci(KEY)
        return
    home = Path(environ.get(HOME) or home_of(environ) / ".codex")
    config = read_toml(home / "config.toml")
    yield _login(environ, home, config)
    if distrusts(environ, workdir):
        text = f"your own word on {workdir} is `untrusted`, and holds: codex asks in the session"
        yield Finding("trust", Status.WARNING, text, "take it out of your config.toml, or answer there")
    else:
        yield Finding("trust", Status.OK, "given to the work dir for each launch alone")
    local = Path(workdir, ".codex/config.toml")
    for path, table in ((home / "config.toml", config), (local, read_toml(local, WORKDIR_LIMIT))):
        if value_at(table, "features", "hooks") is False:
            text = f"switched off by {shown(path, environ)} (features.hooks)"
            yield Finding(HOOKS, Status.WARNING, text, "take it out to hear of dialogs and ends of turns")


def _login(environ: Mapping[str, str], home: Path, config: dict[str, Any]) -> Finding:
    if read_json(home / "auth.json"):
        return Finding("login", Status.OK, f"credentials in {shown(home / 'auth.json', environ)}")
    variable = value_at(config, "model_providers", str(config.get("model_provider", "")), "env_key")
    if isinstance(variable, str):
        if is_set(environ, variable):
            return Finding("login", Status.OK, f"{variable} is set, for the provider of your config.toml")
        text = f"{variable} is not set, which the provider of your config.toml asks for"
        return Finding("login", Status.WARNING, text, f"export {variable}")
    return Finding("login", Status.WARNING, "none seen", "run `codex login`")


def _apart(home: Path) -> Mapping[str, str]:
    return {HOME: str(home)}


def _echo(trial: Trial) -> Echo:
    # `exec` reads hooks and their trust as the interactive program does: with a wrong hash none is run. Its
    # first prompt fires SessionStart, before the model is asked.
    options = trial.launch.argv[: trial.launch.argv.index("--")]
    retries = "request_max_retries=0,stream_max_retries=0"
    provider = f'{{name="doctor",base_url="{trial.nowhere}/v1",wire_api="responses",{retries}}}'
    model = ("-c", 'model_provider="doctor"', "-c", f"model_providers.doctor={provider}")
    return Echo((*options, *model, "exec", "--skip-git-repo-check", "--ephemeral", "--", "Say nothing."))


PROBES = Probes(
    program="codex", tried_with="0.169.0", look=_look, apart=_apart, event="SessionStart", echo=_echo
)
