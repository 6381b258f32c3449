"""Claude Code as `doctor` sees it: its login, its first-run dialogs, and a start that fires SessionStart.

Not its hooks themselves. Seen in claude-code 2.1.330 on Debian 12, unless a line says otherwise.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from delegate_job.agents.base import Wanted
from delegate_job.agents.claude_code import HOME, KEY, has_fresh_home
from delegate_job.agents.probes import (
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

_TOKENS = (
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)
_KNOWN_PART = 20
"""Characters at the end of a key by which Claude remembers what was said of it."""
_START_ONCE = "start `claude` once in the work dir and answer what it asks"


def _look(environ: Mapping[str, str], workdir: str, wanted: Wanted) -> Iterator[Finding]:
    if has_fresh_home(environ, ci=wanted.ci):
        # What there is of a login was looked for before (`problem`).
        yield from in_ci(is_set(environ, KEY, *_TOKENS) or "a key")
        return
    home, named = home_of(environ), environ.get(HOME)
    known = read_json(Path(named or home) / ".claude.json")
    if known.get("hasCompletedOnboarding") is not True:
        text = "not done yet: its dialogs wait in the session, and without a network it ends"
        yield Finding("first start", Status.WARNING, text, _START_ONCE)
    yield _login(environ, known, Path(named) if named else home / ".claude")
    yield _trust(environ, known, workdir)


def _login(environ: Mapping[str, str], known: dict[str, Any], directory: Path) -> Finding:
    if token := is_set(environ, *_TOKENS):
        return Finding("login", Status.OK, f"{token} is set")
    if is_set(environ, KEY) and not _was_refused(environ[KEY], known):
        if environ[KEY][-_KNOWN_PART:] in _answers(known, "approved"):
            return Finding("login", Status.OK, f"{KEY} is set, and approved")
        text = f"{KEY} is set and not approved yet: a dialog will wait in the session"
        return Finding("login", Status.WARNING, text, _START_ONCE)
    credentials = directory / ".credentials.json"
    ways = {
        f"credentials in {shown(credentials, environ)}": read_json(credentials),
        "the settings name an apiKeyHelper": read_json(directory / "settings.json").get("apiKeyHelper"),
        # macOS keeps the secret itself in its keychain.
        "an account is known; its secret was not looked for": known.get("oauthAccount"),
    }
    if way := next((way for way, found in ways.items() if found), None):
        return Finding("login", Status.OK, way)
    return Finding("login", Status.WARNING, "none seen", f"start `claude` and log in, or set {KEY}")


def _was_refused(key: str, known: dict[str, Any]) -> bool:
    return key[-_KNOWN_PART:] in _answers(known, "rejected")


def _answers(known: dict[str, Any], which: str) -> list[Any]:
    answers = value_at(known, "customApiKeyResponses", which)
    return answers if isinstance(answers, list) else []


def _trust(environ: Mapping[str, str], known: dict[str, Any], workdir: str) -> Finding:
    # Trust of a directory is trust of all below it.
    place = Path(workdir)
    above = (place, *place.parents, place.resolve(), *place.resolve().parents)
    if environ.get("CLAUDE_CODE_SANDBOXED") == "1" or any(
        value_at(known, "projects", str(directory), "hasTrustDialogAccepted") is True for directory in above
    ):
        return Finding("trust", Status.OK, f"{workdir} is trusted")
    text = f"{workdir} is not trusted yet: a dialog will wait in the session"
    return Finding("trust", Status.WARNING, text, _START_ONCE)


def _apart(home: Path) -> Mapping[str, str]:
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1"}
    return {HOME: str(home), "DISABLE_AUTOUPDATER": "1", **quiet}


def _echo(trial: Trial) -> Echo:
    # Runs the hooks Setup and SessionStart and ends with 0, before login, trust and any dialog.
    program, *arguments = trial.launch.argv
    return Echo((program, "--init-only", *arguments))


def _why_silent(output: str) -> str | None:
    if output.strip():
        return None
    return "a policy (managed settings) or a variable such as CLAUDE_CODE_SIMPLE switches hooks off"


PROBES = Probes(
    program="claude",
    tried_with="2.1.330",
    look=_look,
    apart=_apart,
    event="SessionStart",
    echo=_echo,
    why_silent=_why_silent,
)
