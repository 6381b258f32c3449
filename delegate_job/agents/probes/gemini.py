"""Gemini CLI as `doctor` sees it: its login, its trust, and a start whose model nobody serves.

Not its hooks themselves. Seen in gemini-cli 0.61.0 on Debian 12, unless a line says otherwise.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from delegate_job.agents.base import File, Launch, Wanted
from delegate_job.agents.gemini import HOME, KEY, has_fresh_home, is_ours
from delegate_job.agents.probes import (
    HOOKS,
    LIMIT,
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
    shown,
    value_at,
)

_KEYS = (KEY, "GOOGLE_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS")
_SKIPPED = "Skipping system defaults file"


def _look(environ: Mapping[str, str], workdir: str, wanted: Wanted) -> Iterator[Finding]:
    if has_fresh_home(environ, ci=wanted.ci):
        yield from in_ci(KEY)
        return
    home = Path(environ.get(HOME) or home_of(environ)) / ".gemini"
    yield _login(environ, home)
    yield Finding("trust", Status.OK, "given to the work dir for each launch alone")
    for path, limit in (
        (home / "settings.json", LIMIT),
        (Path(workdir, ".gemini/settings.json"), WORKDIR_LIMIT),
    ):
        if value_at(read_json(path, limit), "hooksConfig", "enabled") is False:
            text = f"switched off by {shown(path, environ)} (hooksConfig.enabled)"
            yield Finding(HOOKS, Status.WARNING, text, "take it out to hear of dialogs and ends of turns")


def _login(environ: Mapping[str, str], home: Path) -> Finding:
    way = value_at(read_json(home / "settings.json"), "security", "auth", "selectedType")
    if not isinstance(way, str):
        # Its dialog asks for one, also when a key is set.
        text = "no way to log in is chosen: a dialog will wait in the session"
        return Finding("login", Status.WARNING, text, "start `gemini` once and choose one")
    if key := is_set(environ, *_KEYS):
        return Finding("login", Status.OK, f"{key} is set, {way} is chosen")
    if read_json(home / "oauth_creds.json"):
        credentials = shown(home / "oauth_creds.json", environ)
        return Finding("login", Status.OK, f"credentials in {credentials}, {way} is chosen")
    return Finding("login", Status.WARNING, f"none seen; {way} is chosen", "start `gemini` and log in")


def _apart(home: Path) -> Mapping[str, str]:
    return {HOME: str(home)}


def _echo(trial: Trial) -> Echo:
    # Without a terminal it fires SessionStart only once it knows how to log in; it asks the model after that.
    *options, _, _ = trial.launch.argv
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "hooks": _own_hooks(trial.launch),
    }
    # Not the home of the launch, which has links to what is the user's.
    env = {
        **_apart(trial.home / "apart"),
        KEY: "none",
        "GOOGLE_GEMINI_BASE_URL": trial.nowhere,
        "GOOGLE_GENAI_USE_VERTEXAI": None,
        "GOOGLE_GENAI_USE_GCA": None,
    }
    files = {"apart/.gemini/settings.json": json.dumps(settings)}
    return Echo((*options, "-p", "Say nothing."), env, files)


def _own_hooks(launch: Launch) -> dict[str, object]:
    """Return our hooks of a launch that has them in a home; none of its user's."""
    for entry in launch.home:
        if isinstance(entry, File):
            hooks = json.loads(entry.content)["hooks"]
            ours = {event: [group for group in groups if is_ours(group)] for event, groups in hooks.items()}
            return {event: groups for event, groups in ours.items() if groups}
    return {}


def _why_silent(output: str) -> str | None:
    if _SKIPPED in output:
        return "gemini heeds our settings only where root alone may write, in every directory above them too"
    return None


PROBES = Probes(
    program="gemini",
    tried_with="0.61.0",
    look=_look,
    apart=_apart,
    event="BeforeAgent",
    echo=_echo,
    why_silent=_why_silent,
)
