"""What each agent is started with and told, and that a task survives byte for byte."""

import itertools
import json
import os
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_job.agents import BUILT_IN, agent_named, agent_of, instructions
from delegate_job.agents.base import PERMISSION_MODES, Agent, Context, File, Launch, Link, Wanted
from delegate_job.agents.codex import trusted_hash
from delegate_job.agents.instructions import ARGUMENT_LIMIT, as_argument, compose, prompt_text, to_bytes
from delegate_job.errors import NotStartedError, UsageError
from delegate_job.events import REPORTED_BY_HAND
from delegate_job.job import JobSpec, Verdict

PUBLISH = ("/opt/dj/delegate-job", "publish")
HOOK = ("/opt/python", "-I", "/o'dd $(x)/hook.py", "agent", "4f3a9b2c")
HOME = Path("/registry/jobs/4f3a9b2c/home")
SPEC = JobSpec(
    id="4f3a9b2c",
    agent="codex",
    workdir="/a project",
    session="dj-4f3a9b2c",
    log_dir="/a project/delegate_job_logs/4f3a9b2c",
    prompt_sha256="",
)


def context(
    spec: JobSpec = SPEC, *, prompt: str = "Do it.", publish: tuple[str, ...] = PUBLISH, **environ: str
) -> Context:
    """Return what an agent is given for a job."""
    return Context(
        spec=spec,
        instructions=compose(spec, prompt=prompt, publish_argv=publish, log_dir=spec.log_dir),
        instructions_path=Path(spec.log_dir) / "instructions.md",
        prompt_path=Path(spec.log_dir) / "prompt.md",
        agent_dir=Path("/registry/jobs/4f3a9b2c/agent"),
        home=HOME,
        environ=environ,
        publish_argv=publish,
    )


def program(directory: Path, name: str, *, mode: int = 0o755) -> Path:
    """Write a program that does nothing."""
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


# -- names


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_agents(name: str) -> None:
    """Each name of the list is an agent of that name, now and for a job of the registry."""
    agent = agent_named(name)
    assert agent.name == name
    assert agent.template == ()
    assert agent_of(SPEC._replace(agent=name)) == agent


def test_a_command_pays_only_for_its_agent() -> None:
    """No agent is imported before it is asked for, and no other one with it."""
    text = """
import sys
from delegate_job.agents import agent_named
def loaded(): return sorted(m.rpartition(".")[2] for m in sys.modules if m.startswith("delegate_job.agents."))
assert loaded() == [], loaded()
agent_named("codex")
assert loaded() == ["base", "codex", "instructions"], loaded()
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=30)


def test_program_on_path(tmp_path: Path) -> None:
    """Any executable program on the given PATH is an agent by its name."""
    program(tmp_path, "my-agent")
    agent = agent_named("my-agent", environ={"PATH": str(tmp_path)})
    assert (agent.name, agent.in_tmux) == ("my-agent", True)


def test_program_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a slash is a path from where one stands, kept absolute: the job runs elsewhere."""
    path = program(tmp_path, "my agent")
    monkeypatch.chdir(tmp_path)
    assert agent_named("./my agent").name == str(path)
    assert agent_of(SPEC._replace(agent=str(path))).name == str(path)


@pytest.mark.parametrize(
    "name", ["nobody-has-this", "./none", "/etc", "", "a\0b", "/etc/passwd", "-x", "$(touch X)"]
)
def test_no_such_agent(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no agent and no program is exit 7, in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotStartedError, match=r"^no such agent: ") as raised:
        agent_named(name)
    assert raised.value.exit_code == 7
    assert raised.value.message.isprintable()
    assert raised.value.hint
    assert not list(tmp_path.iterdir())


def test_near_names_are_offered() -> None:
    """A misspelt name is answered with those like it, configured ones among them."""
    with pytest.raises(NotStartedError) as raised:
        agent_named("claud-code")
    assert raised.value.hint == "did you mean claude-code?"
    with pytest.raises(NotStartedError) as raised:
        agent_named("cladue")
    assert raised.value.hint == "did you mean claude-code?"
    with pytest.raises(NotStartedError) as raised:
        agent_named("revewer", configured={"reviewer": ("x",)})
    assert raised.value.hint == "did you mean reviewer?"


def test_configured_agent() -> None:
    """A name of the configuration is its template; the registry keeps the template with the job."""
    agent = agent_named("mine", configured={"mine": ("prog", "{job_id}")})
    assert (agent.name, agent.template) == ("mine", ("prog", "{job_id}"))
    assert agent_of(SPEC._replace(agent="mine", command=agent.template)) == agent


def test_command_and_agent_must_fit() -> None:
    """`--agent command` needs a command, and no other agent takes one."""
    with pytest.raises(UsageError, match="needs a command"):
        agent_named("command")
    with pytest.raises(UsageError, match="no use"):
        agent_named("codex", command=("x",))
    assert agent_named("command", command=("x",)).template == ("x",)


# -- argv


def test_command_fills_its_template_in() -> None:
    """The three placeholders are filled in wherever they stand, once; any other `{x}` stays."""
    template = (
        "a{job_id}b{job_id}",
        "{prompt_file}",
        "--in={instructions_file}",
        "{x}",
        "{}",
        "{{job_id}}",
        "$HOME",
    )
    spec = SPEC._replace(command=template, log_dir="/l/{job_id}", agent_args=("--extra", "{job_id}"))
    launch = agent_named("command", command=template).launch(context(spec))
    assert launch.argv == (
        "a4f3a9b2cb4f3a9b2c",
        "/l/{job_id}/prompt.md",
        "--in=/l/{job_id}/instructions.md",
        "{x}",
        "{}",
        "{4f3a9b2c}",
        "$HOME",
        "--extra",
        "{job_id}",
    )


def test_program_gets_the_instructions_last(tmp_path: Path) -> None:
    """A named program gets the user's arguments, then the whole instructions as one argument."""
    agent = agent_named(str(program(tmp_path, "p")))
    given = context(SPEC._replace(agent_args=("-v",)))
    assert agent.launch(given).argv == (str(tmp_path / "p"), "-v", given.instructions)


def test_human_starts_nothing() -> None:
    """A person has no argv, no session and no problem."""
    agent = agent_named("human")
    assert agent.in_tmux is False
    assert agent.launch(context()) == Launch(())
    assert agent.problem({}, "/nowhere") is None


def without_configuration(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return an argv less its `-c KEY=VALUE`, but for the user's."""
    return tuple(
        word
        for at, word in enumerate(argv)
        if not (word == "-c" and argv[at + 1].startswith(("hooks.", "projects=")))
        and not word.startswith(("hooks.", "projects="))
    )


def test_codex_argv() -> None:
    """Codex runs without its shared daemon, and gets the prompt after `--`."""
    spec = SPEC._replace(model="m-1", permission_mode="auto", agent_args=("-c", "a=1"))
    given = context(spec)
    argv = agent_named("codex").launch(given).argv
    assert without_configuration(argv) == (
        "codex",
        "--no-daemon",
        "--sandbox",
        "workspace-write",
        "--ask-for-approval",
        "never",
        "--model",
        "m-1",
        "-c",
        "a=1",
        "--",
        given.instructions,
    )


def codex_configuration(argv: tuple[str, ...]) -> dict[str, Any]:
    """Return what the `-c` of an argv say, read as TOML."""
    said: dict[str, Any] = {}
    for text in (value for word, value in itertools.pairwise(argv) if word == "-c"):
        for key, value in tomllib.loads(text).items():
            said.setdefault(key, {}).update(value)
    return said


@pytest.mark.parametrize("path", ["/a b", "/ü'\"\\\x7f$(x)`x`;", "/{a=1}\n"])
def test_codex_trusts_for_one_launch_what_we_gave(path: str) -> None:
    """The work dir and our own hooks, each by its hash, and nothing else; odd paths stay one word."""
    hook = ("/python", "-I", path, "codex", "4f3a9b2c")
    given = context(SPEC._replace(workdir=path))._replace(hook_argv=hook)
    argv = agent_named("codex").launch(given).argv
    assert "--dangerously-bypass-hook-trust" not in argv
    said = codex_configuration(argv)
    assert said["projects"] == {path: {"trust_level": "trusted"}}
    state = said["hooks"].pop("state")
    assert len(state) == len(said["hooks"])
    for event, (group,) in said["hooks"].items():
        (handler,) = group["hooks"]
        assert shlex.split(handler["command"]) == [*hook, event]
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in event).lstrip("_")
        expected = trusted_hash(name, handler["command"], handler["timeout"])
        assert state[f"/<session-flags>/config.toml:{name}:0:0"] == {"trusted_hash": expected}


@pytest.mark.parametrize(
    ("listed", "trusts"),
    [
        ({"/": "untrusted", "/a project": "trusted"}, True),
        ({"/a project": "untrusted"}, False),
        ({"/": "untrusted"}, False),
        ({"/another": "untrusted"}, True),
    ],
)
def test_codex_leaves_a_users_distrust(tmp_path: Path, listed: dict[str, str], *, trusts: bool) -> None:
    """What the user's configuration calls untrusted, also a directory above, a launch does not trust."""
    text = "".join(f'[projects."{path}"]\ntrust_level = "{level}"\n' for path, level in listed.items())
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/config.toml").write_text(text)
    for environ in ({"HOME": str(tmp_path)}, {"HOME": "/none", "CODEX_HOME": str(tmp_path / ".codex")}):
        argv = agent_named("codex").launch(context()._replace(environ=environ)).argv
        assert ("projects" in codex_configuration(argv)) is trusts


def test_codex_resumes_its_session() -> None:
    """A launch after a rejection goes on in the session that the hooks have told of."""
    argv = agent_named("codex").launch(context()._replace(session_id="01a2-b3")).argv
    assert argv[:3] == ("codex", "resume", "--no-daemon")
    assert argv[-3:-1] == ("--", "01a2-b3")


@pytest.mark.parametrize(
    ("log_dir", "mode", "added"),
    [
        ("/a project/logs/x", None, False),
        ("/elsewhere/x", None, True),
        ("/a projects/x", "auto", True),
        ("/elsewhere/x", "ask", False),
    ],
)
def test_codex_may_write_the_log_dir(log_dir: str, mode: str | None, *, added: bool) -> None:
    """A log dir outside the work dir is made writable, but not in the sandbox that refuses it and ends."""
    spec = SPEC._replace(log_dir=log_dir, permission_mode=mode)
    argv = without_configuration(agent_named("codex").launch(context(spec)).argv)
    assert (argv[2:4] == ("--add-dir", log_dir)) is added
    assert ("--add-dir" in argv) is added


def test_gemini_argv() -> None:
    """Gemini trusts for this launch alone, gets its hooks as defaults, the prompt as an option's value."""
    spec = SPEC._replace(agent="gemini", model="m-1", permission_mode="edits", agent_args=("--debug",))
    given = context(spec)._replace(hook_argv=HOOK)
    launch = agent_named("gemini").launch(given)
    assert launch.argv == (
        "gemini",
        "--skip-trust",
        "--approval-mode",
        "auto_edit",
        "--model",
        "m-1",
        "--debug",
        "-i",
        given.instructions,
    )
    (file,) = launch.files or [entry for entry in launch.home if isinstance(entry, File)]
    for event, (group,) in json.loads(file.content)["hooks"].items():
        assert shlex.split(group["hooks"][0]["command"]) == [*HOOK, event]


def gemini_home(home: Path, agent_dir: Path) -> Launch:
    """Return a launch of gemini for a user with this home."""
    given = context(SPEC._replace(agent="gemini"), HOME=str(home))
    return agent_named("gemini").launch(given._replace(hook_argv=HOOK, agent_dir=agent_dir))


def test_gemini_gets_a_home_where_its_defaults_would_not_be_heeded(tmp_path: Path) -> None:
    """The user's settings and hooks with ours behind them, links to all else; theirs stay as they are."""
    users = tmp_path / ".gemini"
    users.mkdir()
    theirs = {"hooks": {"AfterAgent": [{"hooks": [{"command": "mine"}]}], "X": []}, "model": {"name": "m"}}
    (users / "settings.json").write_text(json.dumps(theirs))
    (users / "oauth_creds.json").write_text("{}")
    (users / "x.lock").mkdir()
    tmp_path.chmod(0o777)
    launch = gemini_home(tmp_path, agent_dir=tmp_path)
    assert (launch.env, launch.files) == ({"GEMINI_CLI_HOME": str(HOME)}, ())
    settings, link = launch.home
    assert isinstance(settings, File)
    assert link == Link(".gemini/oauth_creds.json", users / "oauth_creds.json")
    merged = json.loads(settings.content)
    assert merged["model"] == theirs["model"]
    assert merged["hooks"]["AfterAgent"][0] == {"hooks": [{"command": "mine"}]}
    assert len(merged["hooks"]["AfterAgent"]) == 2
    assert json.loads((users / "settings.json").read_text()) == theirs


@pytest.mark.parametrize("text", ["{", "[]", "// mine\n{}"])
def test_gemini_leaves_settings_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """There is no home then: what cannot be read cannot be carried over."""
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini/settings.json").write_text(text)
    tmp_path.chmod(0o777)
    assert gemini_home(tmp_path, agent_dir=tmp_path).home == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="gemini heeds defaults of root's alone")
def test_gemini_keeps_its_home_where_root_alone_may_write() -> None:
    """There its own system defaults carry the hooks."""
    launch = gemini_home(Path("/none"), agent_dir=Path("/var/lib/none/jobs/x/agent"))
    assert (launch.home, list(launch.env)) == ((), ["GEMINI_CLI_SYSTEM_DEFAULTS_PATH"])


def test_opencode_argv() -> None:
    """OpenCode gets its configuration as a variable, and the prompt as an option's value."""
    spec = SPEC._replace(agent="opencode", model="p/m-1", permission_mode="all", agent_args=("--pure",))
    given = context(spec)._replace(hook_argv=HOOK)
    launch = agent_named("opencode").launch(given)
    assert launch.argv == (
        "opencode",
        "--auto",
        "--model",
        "p/m-1",
        "--pure",
        "--prompt",
        given.instructions,
    )
    (file,) = launch.files
    assert f"const HOOK = {json.dumps(HOOK)}\n" in file.content.decode()
    config = json.loads(launch.env["OPENCODE_CONFIG_CONTENT"])
    assert config == {"plugin": [f"file://{given.agent_dir / file.name}"]}


def test_opencode_asks_as_it_is_told() -> None:
    """What is to be asked is asked, but for this job's report; without a mode the user's own rules hold."""

    def permission(mode: str | None) -> Any:
        launch = agent_named("opencode").launch(context(SPEC._replace(permission_mode=mode)))
        return json.loads(launch.env["OPENCODE_CONFIG_CONTENT"]).get("permission")

    report = "/opt/dj/delegate-job publish --job 4f3a9b2c *"
    assert permission("ask") == {
        "edit": "ask",
        "bash": {"*": "ask", report: "allow"},
        "webfetch": "ask",
    }
    assert permission("edits")["edit"] == "allow"
    assert permission(None) is None


def opencode_configuration(users: str, *, mode: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration of a launch whose user has set one, and the environment that it gets."""
    given = context(SPEC._replace(agent="opencode", permission_mode=mode))
    given = given._replace(hook_argv=HOOK, environ={"OPENCODE_CONFIG_CONTENT": users})
    env = dict(agent_named("opencode").launch(given).env)
    return json.loads(env["OPENCODE_CONFIG_CONTENT"]), env


def test_opencode_keeps_what_its_user_has_set() -> None:
    """Ours is added to the user's own variable: plugins to plugins, rules over rules; not for ever."""
    theirs = {"model": "p/m", "plugin": ["one"], "permission": {"edit": "allow", "skill": "deny"}}
    config, env = opencode_configuration(json.dumps(theirs), mode="ask")
    assert (config["model"], config["plugin"][0], len(config["plugin"])) == ("p/m", "one", 2)
    assert (config["permission"]["skill"], config["permission"]["edit"]) == ("deny", "ask")
    assert opencode_configuration('{"permission": "deny"}', mode="edits")[0]["permission"]["*"] == "deny"
    assert opencode_configuration('{"permission": "deny"}')[0]["permission"] == "deny"
    inner = context(SPEC._replace(agent="opencode"))._replace(environ=env)
    assert json.loads(agent_named("opencode").launch(inner).env["OPENCODE_CONFIG_CONTENT"]) == theirs


@pytest.mark.parametrize("text", ["{", "[]", "// a comment\n{}"])
def test_opencode_refuses_a_variable_it_cannot_add_to(tmp_path: Path, text: str) -> None:
    """What cannot be read is not replaced: the job is not started, and why is said."""
    program(tmp_path, "opencode")
    environ = {"PATH": str(tmp_path), "OPENCODE_CONFIG_CONTENT": text}
    assert "no JSON object" in str(agent_named("opencode").problem(environ, "/"))
    assert agent_named("opencode").problem({"PATH": str(tmp_path)}, "/") is None


def test_agents_without_a_way_for_hooks_get_none() -> None:
    """Where a hook's command cannot be told, an agent is started without."""
    for name in ("gemini", "opencode", "codex"):
        launch = agent_named(name).launch(context())
        assert not any("hook" in word.lower() for word in launch.argv[:-1])
        assert not any(b"command" in file.content for file in launch.files)


def test_aider_argv() -> None:
    """Aider reads its instructions from their file, and asks nobody only where that was chosen."""
    spec = SPEC._replace(agent="aider", model="m-1", permission_mode="all")
    given = context(spec)
    argv = agent_named("aider").launch(given).argv
    assert argv[-4:] == ("--model", "m-1", "--message-file", str(given.instructions_path))
    assert "--yes-always" in argv
    asking = agent_named("aider").launch(context(spec._replace(permission_mode="edits"))).argv
    assert "--yes-always" not in asking


@pytest.mark.parametrize("name", ["gemini", "opencode"])
def test_the_question_of_a_turns_end_begins_no_turn(name: str) -> None:
    """What we ask comes back as a prompt to these agents; taken for one, it would be asked for ever."""
    mapper = import_module(f"delegate_job.agent_hooks.{name}")
    event = {"gemini": "BeforeAgent", "opencode": "chat.message"}[name]
    assert mapper.heard(event, {"prompt": instructions.reminder(SPEC, PUBLISH)}).turn == ""
    assert mapper.heard(event, {"prompt": "Do it."}).turn == "begins"


def test_claude_argv() -> None:
    """Claude gets its settings of this run, and the prompt after `--`."""
    spec = SPEC._replace(model="opus", permission_mode="edits", agent_args=("--allowedTools", "Read"))
    given = context(spec)
    argv = agent_named("claude-code").launch(given).argv
    assert str(UUID(argv[4])) == argv[4]
    assert argv == (
        "claude",
        "--settings",
        "/registry/jobs/4f3a9b2c/agent/claude-settings.json",
        "--session-id",
        argv[4],
        "--permission-mode",
        "acceptEdits",
        "--model",
        "opus",
        "--allowedTools",
        "Read",
        "--",
        given.instructions,
    )


def test_claude_goes_on_in_the_session_its_hooks_told_of() -> None:
    """After a rejection it is resumed; a session that the user has chosen gets no id of ours beside it."""
    again = context()._replace(session_id="139a06e0-d4ae-4e43-a5e6-c8e024ce21c4")
    argv = agent_named("claude-code").launch(again).argv
    assert argv[3:5] == ("--resume", again.session_id)
    chosen = context(SPEC._replace(agent_args=("--continue",)))
    argv = agent_named("claude-code").launch(chosen).argv
    assert not {"--session-id", "--resume"} & set(argv)


@pytest.mark.parametrize("name", ["claude-code", "codex"])
def test_each_permission_mode_is_another_argv(name: str) -> None:
    """All four modes are mapped, each differently; without one the agent's own default holds."""
    specs = [SPEC._replace(permission_mode=mode) for mode in (None, *PERMISSION_MODES)]
    argvs = [list(agent_named(name).launch(context(spec)).argv) for spec in specs]
    for argv in argvs:
        if "--session-id" in argv:
            del argv[argv.index("--session-id") + 1]
    assert len(set(map(tuple, argvs))) == 5


def claude_settings(given: Context) -> dict[str, object]:
    """Return what claude's settings file of a run holds."""
    (file,) = agent_named("claude-code").launch(given).files
    assert (file.name, file.mode) == ("claude-settings.json", 0o600)
    return dict(json.loads(file.content))


def test_claude_may_report_and_no_more() -> None:
    """The settings allow the job's own report command, and nothing else changes."""
    rule = "Bash(/opt/dj/delegate-job publish --job 4f3a9b2c:*)"
    assert claude_settings(context()) == {"permissions": {"allow": [rule]}}


@pytest.mark.parametrize("path", ["/a) Bash(*", "/a'b", "/a b/$(x)", "/a*"])
def test_no_rule_is_made_of_an_odd_path(path: str) -> None:
    """A path that could mean something else in a rule makes no rule."""
    assert claude_settings(context(publish=(path, "publish"))) == {}


def test_claude_runs_our_hooks_without_a_shell() -> None:
    """Each hook is a program with arguments, also with odd characters, and the user cannot switch it off."""
    odd = ("/py", "/a $(x);'\"/hook.py", "claude-code", "4f3a9b2c")
    settings = claude_settings(context()._replace(hook_argv=odd))
    assert settings["disableAllHooks"] is False
    hooks = settings["hooks"]
    assert isinstance(hooks, dict)
    for event, ((hook,),) in ((event, [each["hooks"] for each in of]) for event, of in hooks.items()):
        assert (hook["command"], hook["args"]) == (odd[0], [*odd[1:], event])
        assert ("timeout" in hook) is not ("async" in hook)


def test_claude_asks_only_once_about_all() -> None:
    """Who said `--permission-mode all` is not asked again, and nobody else is spared the question."""
    assert claude_settings(context(SPEC._replace(permission_mode="all")))["skipDangerousModePermissionPrompt"]
    assert "skipDangerousModePermissionPrompt" not in claude_settings(context())


# -- health


@pytest.mark.parametrize(
    ("name", "binary"),
    [("claude-code", "claude"), ("codex", "codex"), ("gemini", "gemini"), ("opencode", "opencode")],
)
def test_missing_program_is_named(name: str, binary: str, tmp_path: Path) -> None:
    """An agent that is not installed says which program is missing and how to get it."""
    agent = agent_named(name)
    problem = agent.problem({"PATH": str(tmp_path)}, "/")
    assert problem is not None
    assert binary in problem
    assert "npm install -g" in problem
    program(tmp_path, binary)
    assert agent.problem({"PATH": str(tmp_path)}, "/") is None


def test_template_program_is_looked_for_where_it_runs(tmp_path: Path) -> None:
    """A relative program of a template is one of the work dir; what is not executable is none."""
    agent = agent_named("command", command=("./agent.sh", "x"))
    assert agent.problem({}, str(tmp_path)) == f"no executable program './agent.sh' in {tmp_path}"
    path = program(tmp_path, "agent.sh", mode=0o644)
    assert agent.problem({}, str(tmp_path)) is not None
    path.chmod(0o755)
    assert agent.problem({}, str(tmp_path)) is None


IN_CI = SPEC._replace(agent="claude-code", ci=True)


def test_claude_in_ci_has_a_home_of_its_own() -> None:
    """With --ci its home is the job's, private, and in it each question of a first start is answered."""
    launch = agent_named("claude-code").launch(context(IN_CI, ANTHROPIC_API_KEY="k" * 30 + "z" * 20))
    assert launch.env["CLAUDE_CONFIG_DIR"] == str(HOME)
    (file,) = launch.home
    assert isinstance(file, File)
    assert (file.name, file.mode) == (".claude.json", 0o600)
    known = json.loads(file.content)
    assert known["hasCompletedOnboarding"]
    assert known["customApiKeyResponses"]["approved"] == ["z" * 20]
    assert known["projects"]["/a project"]["hasTrustDialogAccepted"]
    assert launch.argv.index("--strict-mcp-config") < launch.argv.index("--")


@pytest.mark.parametrize(
    ("git", "known"),
    [
        (b"gitdir: /main/.git/worktrees/tree\n", "/main"),
        (b"gitdir: ../main/.git/worktrees/tree", "{}/../main"),
        (b"gitdir: ../.git/modules/tree\n", "{}"),
        (b"gitdir: /worktrees/x", "{}"),
        (b"", "{}"),
        (b"\xff\0\n" * 9999, "{}"),
        (None, None),
    ],
)
def test_claude_in_ci_knows_the_repository(tmp_path: Path, git: bytes | None, known: str | None) -> None:
    """It files a work dir under its git repository's root, of a worktree under the main one's."""
    (tmp_path / "inner").mkdir()
    if git is not None:
        (tmp_path / ".git").write_bytes(git)
    spec = IN_CI._replace(workdir=str(tmp_path / "inner"))
    (file,) = agent_named("claude-code").launch(context(spec)).home
    assert isinstance(file, File)
    expected = [known.format(tmp_path)] if known else []
    # What lies above is not ours.
    above = set(map(str, tmp_path.parents))
    projects = [each for each in json.loads(file.content)["projects"] if each not in above]
    assert projects == [spec.workdir, *expected]


def test_claude_keeps_the_home_that_its_user_has_chosen() -> None:
    """Without --ci, and with a CLAUDE_CONFIG_DIR in the environment, there is no home of the job's."""
    for told in (context(), context(IN_CI, CLAUDE_CONFIG_DIR="/home/me/claude")):
        launch = agent_named("claude-code").launch(told)
        assert (dict(launch.env), launch.home) == ({}, ())
        assert "--strict-mcp-config" not in launch.argv


@pytest.mark.parametrize(
    ("variable", "is_login"),
    [
        ("ANTHROPIC_API_KEY", True),
        ("ANTHROPIC_AUTH_TOKEN", True),
        ("CLAUDE_CODE_OAUTH_TOKEN", True),
        ("CLAUDE_CODE_USE_BEDROCK", True),
        ("CLAUDE_CONFIG_DIR", True),
        ("ANTHROPIC_BASE_URL", False),
        ("OPENAI_API_KEY", False),
    ],
)
def test_claude_in_ci_needs_a_login_in_the_environment(
    tmp_path: Path, variable: str, *, is_login: bool
) -> None:
    """A secret that did not arrive (an empty variable) is told before anything starts."""
    program(tmp_path, "claude")
    environ = {"PATH": str(tmp_path), variable: "x"}
    agent: Agent = agent_named("claude-code")
    problem = agent.problem(environ, "/", Wanted(ci=True))
    assert problem is None if is_login else "ANTHROPIC_API_KEY" in str(problem)
    assert agent.problem({**environ, variable: ""}, "/", Wanted(ci=True)) is not None
    assert agent.problem({**environ, variable: ""}, "/") is None


def test_claude_refuses_all_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`all` as root is a problem before the launch, unless the user says that it is a sandbox."""
    program(tmp_path, "claude")
    environ = {"PATH": str(tmp_path)}
    agent: Agent = agent_named("claude-code")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "as root" in (agent.problem(environ, "/", Wanted("all")) or "")
    assert agent.problem({**environ, "IS_SANDBOX": "1"}, "/", Wanted("all")) is None
    assert agent.problem(environ, "/", Wanted("auto")) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert agent.problem(environ, "/", Wanted("all")) is None


# -- the task


@pytest.mark.parametrize(
    "task",
    [
        b"$(touch X) `touch X` '\"\\",
        b"two\nlines\r\n\ttab;",
        b"!touch X",
        b"/help",
        b"-rf --help",
        b"#(touch X) #{pid} %H {job_id} {prompt_file}",
        "Grüße, 日本 \U0001f600".encode(),
        b"\xff\xfe not UTF-8 \x80",
        b"\x1b[2J\x07",
        b"  spaces around  \n\n",
        b"x" * 100_000,
    ],
)
def test_task_arrives_byte_for_byte(task: bytes) -> None:
    """The instructions end with the task as it is, and never begin with it."""
    given = context(prompt=prompt_text(task))
    told = to_bytes(given.instructions)
    assert told.endswith(b":\n" + task)
    for name in ("claude-code", "codex", "gemini", "opencode", "/bin/sh"):
        argument = agent_named(name).launch(given).argv[-1]
        assert os.fsencode(argument) == told
        assert argument.startswith("This is delegate-job")


@given(st.binary(min_size=1).filter(lambda task: bool(task.strip()) and b"\0" not in task))
def test_any_task_arrives(task: bytes) -> None:
    """Any bytes but NUL and blanks alone come out as they went in."""
    assert to_bytes(compose(SPEC, prompt=prompt_text(task), publish_argv=PUBLISH, log_dir="/l")).endswith(
        task
    )


@pytest.mark.parametrize("task", [b"", b" ", b"\n\t\r\n"])
def test_empty_task(task: bytes) -> None:
    """A task of nothing is a usage error."""
    with pytest.raises(UsageError, match="empty"):
        prompt_text(task)


def test_task_with_nul() -> None:
    """A NUL is a usage error that says where it is."""
    with pytest.raises(UsageError, match="offset 4"):
        prompt_text(b"do i\0t")


def test_limit_of_one_argument(tmp_path: Path) -> None:
    """The limit is the kernel's: with one byte more execve refuses, and the text becomes a pointer."""
    path = tmp_path / "a b" / "instructions.md"
    longest = "ü" * (ARGUMENT_LIMIT // 2) + "x"
    assert len(to_bytes(longest)) == ARGUMENT_LIMIT
    assert as_argument(longest, path, job_id="4f3a9b2c") == longest
    short = as_argument(longest + "x", path, job_id="4f3a9b2c")
    assert len(short) < 1000
    assert "job 4f3a9b2c" in short
    assert shlex.quote(str(path)) in short
    if sys.platform == "linux":
        assert subprocess.run(["/bin/true", longest], check=False).returncode == 0
        with pytest.raises(OSError, match="Argument list too long"):
            subprocess.run(["/bin/true", longest + "x"], check=False)


# -- the instructions


def test_instructions_say_how_to_report() -> None:
    """The job's id, the warning not to use another, and each event's exact command stand in them."""
    text = context().instructions
    first = text.splitlines()[0]
    assert first == "This is delegate-job. You are given one job; its id is 4f3a9b2c."
    assert "Use no other" in text
    for kind in REPORTED_BY_HAND:
        assert f"/opt/dj/delegate-job publish --job 4f3a9b2c --event {kind}" in text
    assert "Only `completed` or `error` ends the job" in text
    assert "check" not in text


def test_report_commands_run_as_they_stand(tmp_path: Path) -> None:
    """A shell that is given a line of the instructions runs our program with exactly these arguments."""
    ours = tmp_path / "$(touch INJECTED) a'b" / "delegate-job"
    ours.parent.mkdir()
    ours.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    ours.chmod(0o755)
    text = context(publish=(str(ours), "publish", "--registry-dir", "/r;x")).instructions
    line = next(line for line in text.splitlines() if "--event completed" in line)
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "publish",
        "--registry-dir",
        "/r;x",
        "--job",
        "4f3a9b2c",
        "--event",
        "completed",
        "--detail",
        "what was done",
    ]
    assert not list(tmp_path.rglob("INJECTED"))


def test_instructions_of_a_checked_job() -> None:
    """A check is announced with how often it may be tried, and not where it is."""
    spec = SPEC._replace(validate="/owner/check.sh", attempts=3)
    text = context(spec).instructions
    assert "Checks left: 3 of 3." in text
    assert "/owner/check.sh" not in text


def test_instructions_of_a_launch_after_a_rejection() -> None:
    """A new launch is told that it goes on, what the check printed, and how many checks are left."""
    spec = SPEC._replace(validate="/check", attempts=2)
    text = compose(
        spec, prompt="The task", publish_argv=PUBLISH, log_dir="/l", rejection="2 tests failed\n", attempt=1
    )
    assert "check 1 of 2 did not accept" in text
    assert "  | 2 tests failed\n" in text
    assert "Checks left: 1 of 2. It is the last one." in text
    assert text.endswith("\nThe task")


def rejection(output: str, *, verdict: Verdict = Verdict.FAILED, exit_code: int | None = 3) -> str:
    """Return the message about a first of three checks."""
    spec = SPEC._replace(validate="/check", attempts=3)
    return instructions.rejection_message(
        spec, attempt=1, verdict=verdict, exit_code=exit_code, output=output, publish_argv=PUBLISH
    )


def test_rejection_message() -> None:
    """It names job, check, exit code, the output's end, and the commands that come next."""
    text = rejection("assert 1 == 2\n")
    assert text.startswith("This is delegate-job, job 4f3a9b2c.")
    assert "check 1 of 3 failed with exit code 3." in text
    assert "  | assert 1 == 2\n" in text
    assert "/opt/dj/delegate-job publish --job 4f3a9b2c --event completed" in text
    assert "--event error" in text
    assert "Checks left: 2 of 3." in text


def test_rejection_message_for_lack_of_time() -> None:
    """A check that ran out of time says so."""
    assert "check 1 of 3 ran out of time." in rejection("", verdict=Verdict.TIMED_OUT, exit_code=None)
    assert "It printed nothing." in rejection("")


@given(st.text() | st.binary().map(lambda raw: raw.decode(errors="surrogateescape")))
def test_rejection_message_is_safe_to_paste(output: str) -> None:
    """Whatever a check prints: bounded, no control character but line ends, no line that passes for ours."""
    text = rejection(output)
    assert text.startswith("This is delegate-job")
    assert all(c == "\n" or c.isprintable() for c in text)
    assert len(text) < 8000
    to_bytes(text)
    ours = set(rejection("").splitlines()) | {"The end of what it printed:"}
    assert all(line.startswith("  | ") for line in text.split("\n") if line not in ours)


def test_rejection_message_keeps_the_end() -> None:
    """Of a long output the end is told, without the escape that would end a paste."""
    text = rejection("x" * 100_000 + "\nthe end \x1b[201~!rm -rf\n")
    assert "  | the end ?[201~!rm -rf\n" in text
    assert len(text) < 8000


# -- our own command


def test_publish_argv_is_absolute_and_real(tmp_path: Path) -> None:
    """The command is the installed one, with absolute paths."""
    argv = instructions.publish_argv()
    assert argv == (str(Path(sys.executable).with_name("delegate-job")), "publish")
    assert os.access(argv[0], os.X_OK)
    assert instructions.publish_argv(tmp_path)[1:] == ("publish", "--registry-dir", str(tmp_path))


def test_publish_argv_without_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the script it is the module, and a module of that name in the work dir is not run."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    real = sys.executable
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python3"))
    argv = instructions.publish_argv()
    assert argv == (str(tmp_path / "bin" / "python3"), "-P", "-m", "delegate_job", "publish")
    (tmp_path / "delegate_job.py").write_text("print('HIJACKED')")
    done = subprocess.run(
        [real, *argv[1:], "--help"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert "HIJACKED" not in done.stdout
