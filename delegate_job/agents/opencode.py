"""OpenCode: its argv, its permission modes, and the plugin of one run, which runs our hooks.

Not what the plugin's events mean (`agent_hooks.opencode`), and not its login.

Seen in opencode 1.18.33 on Debian 12, unless a line says otherwise.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from delegate_job.agents.base import AS_IT_IS, Agent, Context, File, Launch, Wanted, missing_program
from delegate_job.agents.instructions import as_argument, report_command

_PROGRAM = "opencode"
_CONFIG = "OPENCODE_CONFIG_CONTENT"
_OF_THE_USER = "DELEGATE_JOB_OPENCODE_CONFIG"
"""What stood in that variable before: an agent inside this one must not get this job's plugin."""
_PLUGIN = "opencode-plugin.js"
_SOURCE = "opencode_plugin.js"
_NO_HOOK = "const HOOK = []"
# Its own default asks nobody; the last rule that fits holds. `--auto` grants what the user has not denied.
_MODES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "ask": MappingProxyType({"edit": "ask", "bash": "ask", "webfetch": "ask"}),
        "edits": MappingProxyType({"edit": "allow", "bash": "ask", "webfetch": "ask"}),
    }
)


class OpenCode(NamedTuple):
    """The program `opencode`, interactive, with the prompt as an option's value; it submits it by itself."""

    name: str = "opencode"
    template: tuple[str, ...] = ()
    in_tmux: bool = True

    def launch(self, context: Context, /) -> Launch:
        """Describe `opencode [--auto] [--session ID] [--model P/M] [ARG…] --prompt PROMPT`.

        Its configuration is a variable (`OPENCODE_CONFIG_CONTENT`), which adds to the user's own files; what
        the user has in that variable stays. On a first start it installs a package of its own from npm, and
        shows an empty screen until it has.
        """
        spec = context.spec
        told = as_argument(context.instructions, context.instructions_path, job_id=spec.id)
        argv = [_PROGRAM]
        if spec.permission_mode in {"auto", "all"}:
            argv += ["--auto"]
        if context.session_id and not spec.agent_args:
            argv += ["--session", context.session_id]
        if spec.model is not None:
            argv += ["--model", spec.model]
        plugin = _plugin(context)
        users = _of_the_user(context.environ)
        config = _merged(_parsed(users) or {}, _config(context, plugin))
        env = {_CONFIG: json.dumps(config), _OF_THE_USER: users}
        return Launch((*argv, *spec.agent_args, "--prompt", told), env, plugin)

    def problem(self, environ: Mapping[str, str], workdir: str, _wanted: Wanted = AS_IT_IS, /) -> str | None:
        """Say whether `opencode` is missing, or has a variable to which nothing can be added."""
        if _parsed(_of_the_user(environ)) is None:
            return f"{_CONFIG} is no JSON object, so that nothing can be added to it; unset it or mend it"
        hint = "install it with: npm install -g opencode-ai"
        return missing_program(_PROGRAM, environ, workdir, hint=hint)


def _of_the_user(environ: Mapping[str, str]) -> str:
    return environ.get(_OF_THE_USER, environ.get(_CONFIG, ""))


def _parsed(text: str) -> dict[str, object] | None:
    """Return the configuration; None for a text that is none, also for one with comments."""
    try:
        config = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _merged(theirs: dict[str, object], ours: dict[str, object]) -> dict[str, object]:
    """Return both: plugins of the one and the other; where both have a rule for permissions, ours."""
    config = {**theirs, **ours}
    plugins, rules = theirs.get("plugin"), theirs.get("permission")
    if isinstance(plugins, list) and isinstance(added := ours.get("plugin"), list):
        config["plugin"] = [*plugins, *added]
    if rules is not None and isinstance(own := ours.get("permission"), dict):
        config["permission"] = {**(rules if isinstance(rules, dict) else {"*": rules}), **own}
    return config


def _plugin(context: Context) -> tuple[File, ...]:
    if not context.hook_argv:
        return ()
    source = files("delegate_job.agents").joinpath(_SOURCE).read_text(encoding="utf-8")
    # JSON is JavaScript.
    filled = source.replace(_NO_HOOK, f"const HOOK = {json.dumps(context.hook_argv)}", 1)
    return (File(_PLUGIN, filled.encode()),)


def _config(context: Context, plugin: tuple[File, ...]) -> dict[str, object]:
    config: dict[str, object] = {}
    if plugin:
        config["plugin"] = [(context.agent_dir / _PLUGIN).as_uri()]
    if mode := _MODES.get(context.spec.permission_mode or ""):
        report = report_command(context.publish_argv, context.spec.id)
        # Each command of a line is looked at by itself.
        config["permission"] = {**mode, "bash": {"*": mode["bash"], f"{report} *": "allow"}}
    return config


AGENT: Agent = OpenCode()
