"""The settings: five places in one order, and a work dir's file that can't do harm."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_job import settings
from delegate_job.errors import UsageError
from delegate_job.settings import Settings
from delegate_job.settings_files import LIMIT, read_table


@dataclass(frozen=True)
class Home:
    """A user with a configuration and a work dir."""

    config: Path
    work: Path

    @property
    def local(self) -> Path:
        """The work dir's file."""
        return self.work / ".delegate-job.toml"

    def resolve(self, options: Mapping[str, Any] | None = None, /, **environ: str) -> Settings:
        """Return the settings for a job in the work dir."""
        return settings.resolve(options or {}, workdir=self.work, environ=environ)

    def refused(self, options: Mapping[str, Any] | None = None, /, **environ: str) -> UsageError:
        """Return the error that the settings are refused with; its message is one line."""
        with pytest.raises(UsageError) as raised:
            self.resolve(options, **environ)
        assert raised.value.message.isprintable()
        assert len(raised.value.message) < 500
        return raised.value


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a user without any configuration yet."""
    config = tmp_path / "config" / "delegate-job" / "config.toml"
    config.parent.mkdir(parents=True)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Home(config, work)


def test_defaults(home: Home) -> None:
    """Without any word from anyone the documented defaults hold, and say so."""
    found = home.resolve()
    assert (found.agent, found.timeout, found.attempts, found.validate_timeout) == (
        "claude-code",
        3600,
        1,
        600,
    )
    assert (found.close, found.fail_on_input, found.command, found.on_event) == (False, False, (), ())
    assert (found.accept_silent_stop, found.startup_timeout, found.ci) == (False, 30, False)
    assert {
        found.model,
        found.permission_mode,
        found.idle_timeout,
        found.validate,
        found.broker,
        found.session,
    } == {None}
    assert found.registry_dir.is_absolute()
    assert set(found.sources.values()) == {"default"}


def test_order_of_the_places(home: Home) -> None:
    """Option before environment before the work dir's file before the user's file before default."""
    home.config.write_text("timeout = 10\nidle_timeout = 11\nattempts = 2\nmodel = 'a'\n")
    home.local.write_text("timeout = 20\nidle-timeout = 21\nattempts = 3\n")
    found = home.resolve(
        {"timeout": 40, "model": None}, DELEGATE_JOB_TIMEOUT="30", DELEGATE_JOB_IDLE_TIMEOUT="31"
    )
    assert (found.timeout, found.idle_timeout, found.attempts, found.model) == (40, 31, 3, "a")
    assert found.validate_timeout == 600
    picked = {name: found.sources[name] for name in ("timeout", "idle_timeout", "attempts", "model", "close")}
    assert picked == {
        "timeout": "option",
        "idle_timeout": "environment DELEGATE_JOB_IDLE_TIMEOUT",
        "attempts": str(home.local),
        "model": str(home.config),
        "close": "default",
    }


def test_every_setting_has_a_variable(home: Home) -> None:
    """Each option has its variable; those of a running job are no settings, and unknown ones are ignored."""
    found = home.resolve(
        DELEGATE_JOB_AGENT="command",
        DELEGATE_JOB_COMMAND="prog 'a b'",
        DELEGATE_JOB_AGENT_SESSION="tmux:x",
        DELEGATE_JOB_MODEL="m",
        DELEGATE_JOB_PERMISSION_MODE="edits",
        DELEGATE_JOB_TIMEOUT="1.5",
        DELEGATE_JOB_IDLE_TIMEOUT="2",
        DELEGATE_JOB_VALIDATE="check.sh",
        DELEGATE_JOB_ATTEMPTS="3",
        DELEGATE_JOB_VALIDATE_TIMEOUT="4",
        DELEGATE_JOB_BROKER="mqtt://u:p@h:1",
        DELEGATE_JOB_CLOSE="yes",
        DELEGATE_JOB_FAIL_ON_INPUT="0",
        DELEGATE_JOB_ON_EVENT="notify-send x",
        DELEGATE_JOB_REGISTRY_DIR="reg",
        DELEGATE_JOB_ID="outer",
        DELEGATE_JOB_DIR="/outer",
        DELEGATE_JOB_CONNECTION="/outer",
        DELEGATE_JOB_LOGS_DIR="/logs",
        DELEGATE_JOB_ACCEPT_SILENT_STOP="yes",
        DELEGATE_JOB_STARTUP_TIMEOUT="0",
        DELEGATE_JOB_CI="on",
        DELEGATE_JOB_NONSENSE="x",
    )
    assert found == Settings(
        agent="command",
        command=("prog", "a b"),
        session="x",
        model="m",
        permission_mode="edits",
        timeout=1.5,
        idle_timeout=2,
        validate=str(Path.cwd() / "check.sh"),
        attempts=3,
        validate_timeout=4,
        broker="mqtt://u:p@h:1",
        close=True,
        fail_on_input=False,
        accept_silent_stop=True,
        startup_timeout=0,
        ci=True,
        on_event=("notify-send", "x"),
        notify=(),
        registry_dir=Path.cwd() / "reg",
        agents={},
        sources=found.sources,
    )
    assert [name for name, source in found.sources.items() if source in {"default", "option"}] == ["notify"]


def test_ci_changes_what_is_default(home: Home) -> None:
    """With --ci a job ends when a person is needed, its session with it, unless somebody says otherwise."""
    found = home.resolve({"ci": True})
    assert (found.ci, found.close, found.fail_on_input) == (True, True, True)
    assert (found.sources["close"], found.sources["ci"]) == ("--ci", "option")
    said = home.resolve({"ci": True, "close": False}, DELEGATE_JOB_FAIL_ON_INPUT="no")
    assert (said.close, said.fail_on_input) == (False, False)
    home.local.write_text("close = false\n")
    home.config.write_text("fail_on_input = false\nci = true\n")
    said = home.resolve()
    assert (said.ci, said.close, said.fail_on_input) == (True, False, False)


@pytest.mark.parametrize("word", ["true", "1", "True"])
def test_a_ci_system_is_seen(home: Home, word: str) -> None:
    """What CI systems set turns --ci on, and each word of the user's turns it off."""
    found = home.resolve(CI=word)
    assert (found.ci, found.close, found.sources["ci"]) == (True, True, "environment CI")
    assert not home.resolve({"ci": False}, CI=word).close
    assert not home.resolve(CI=word, DELEGATE_JOB_CI="0").ci
    home.config.write_text("ci = false\n")
    assert not home.resolve(CI=word).ci


@pytest.mark.parametrize("word", ["", "false", "0", "woodpecker"])
def test_other_words_are_no_ci_system(home: Home, word: str) -> None:
    """Only true and 1 say that nobody is there."""
    assert not home.resolve(CI=word).ci


def test_empty_variable_is_none(home: Home) -> None:
    """A variable without a value is not set."""
    found = home.resolve(DELEGATE_JOB_TIMEOUT="", DELEGATE_JOB_AGENT="")
    assert (found.timeout, found.agent) == (3600, "claude-code")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "soon"}, "--timeout must be a number of seconds above 0, not 'soon'"),
        ({"timeout": 0}, "--timeout must be a number of seconds above 0, not 0"),
        ({"timeout": -1.0}, "--timeout must be a number of seconds above 0, not -1.0"),
        ({"idle_timeout": "nan"}, "--idle-timeout must be a number of seconds above 0, not 'nan'"),
        (
            {"idle_timeout": "inf"},
            "--idle-timeout must be a number of seconds above 0, 1000000000 at most, not 'inf'",
        ),
        ({"timeout": True}, "--timeout must be a number of seconds above 0, not True"),
        ({"timeout": 10**400}, "--timeout must be a number of seconds above 0, not 1000"),
        ({"attempts": 0}, "--attempts must be a whole number from 1 to 1000000, not 0"),
        ({"attempts": "1.5"}, "--attempts must be a whole number from 1 to 1000000, not '1.5'"),
        ({"attempts": "9" * 5000}, "--attempts must be a whole number from 1 to 1000000, not '999"),
        ({"permission_mode": "yolo"}, "--permission-mode must be one of ask, edits, auto, all, not 'yolo'"),
        ({"agent_session": "x"}, "--agent-session must be tmux:LABEL, "),
        ({"agent_session": "tmux:"}, "--agent-session must be tmux:LABEL, "),
        ({"agent_session": "tmux:#(touch X)"}, "--agent-session must be tmux:LABEL, "),
        ({"agent_session": "tmux:" + "x" * 65}, "--agent-session must be tmux:LABEL, "),
        ({"agent_session": "tmux:x\n"}, "--agent-session must be tmux:LABEL, "),
        ({"agent_session": "screen:x"}, "--agent-session must be tmux:LABEL, "),
        ({"model": "--dangerous"}, "--model must be a model's name, "),
        ({"model": "a b"}, "--model must be a model's name, "),
        ({"model": "a\n"}, "--model must be a model's name, "),
        ({"agent": ""}, "--agent must be a text that is not empty, not ''"),
        ({"validate": ""}, "--validate must be a text that is not empty, not ''"),
        ({"command": "a 'b"}, "--command cannot be split into words: no closing quotation"),
        ({"command": "''"}, "--command must be a program and its arguments"),
        ({"command": " "}, "--command must be a program and its arguments"),
        ({"close": "maybe"}, "--close must be true or false"),
    ],
)
def test_bad_values_are_one_line(home: Home, options: dict[str, Any], message: str) -> None:
    """A bad value is one line that names the option, what it must be, and what it is."""
    assert home.refused(options).message.startswith(message)


def test_errors_name_the_place(home: Home) -> None:
    """The same mistake names its variable, or its file and key."""
    assert home.refused(DELEGATE_JOB_IDLE_TIMEOUT="x").message.startswith("DELEGATE_JOB_IDLE_TIMEOUT must be")
    home.config.write_text("idle-timeout = 'x'\n")
    assert home.refused().message.startswith(f"{home.config}: idle-timeout must be")
    home.local.write_text("idle_timeout = [1]\n")
    assert home.refused().message.startswith(f"{home.local}: idle-timeout must be")


def test_secrets_are_not_repeated(home: Home) -> None:
    """A broker's password stands in no error and no repr."""
    assert "hunter2" not in home.refused({"broker": "http://u:hunter2@h"}).message
    assert "hunter2" not in repr(home.resolve({"broker": "mqtt://u:hunter2@h"}))


def test_embedded_broker(home: Home) -> None:
    """`--embedded-broker` overrules a configured broker, and excludes `--broker`."""
    home.config.write_text("broker = 'mqtt://h'\n")
    assert home.resolve().broker == "mqtt://h"
    found = home.resolve({"embedded_broker": True}, DELEGATE_JOB_BROKER="mqtt://i")
    assert (found.broker, found.sources["broker"]) == (None, "option")
    assert "exclude each other" in home.refused({"embedded_broker": True, "broker": "mqtt://j"}).message
    assert home.resolve({"embedded_broker": False}).broker == "mqtt://h"


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON"])
def test_yes(home: Home, word: str) -> None:
    """Truth has several words in the environment."""
    assert home.resolve(DELEGATE_JOB_CLOSE=word).close is True


def test_flag_that_is_false_overrules(home: Home) -> None:
    """An option that is false is given: it overrules a file."""
    home.config.write_text("close = true\n")
    assert home.resolve().close is True
    assert home.resolve({"close": False}).close is False


def test_command_stays_with_its_agent(home: Home) -> None:
    """A configured command is for `--agent command` alone; one given with another agent is left in."""
    home.config.write_text("command = ['prog', '{prompt_file}']\n")
    assert home.resolve({"agent": "codex"}).command == ()
    assert home.resolve({"agent": "command"}).command == ("prog", "{prompt_file}")
    assert home.resolve({"agent": "codex", "command": "x"}).command == ("x",)


def test_paths_of_the_users_file(home: Home) -> None:
    """A path there begins at the root or at home: a relative one would change with where one stands."""
    home.config.write_text("validate = '~/check.sh'\nregistry-dir = '/reg'\n")
    found = home.resolve()
    assert found.validate == os.environ["HOME"] + "/check.sh"
    assert found.registry_dir == Path("/reg")
    home.config.write_text("validate = 'check.sh'\n")
    assert "must be an absolute path or begin with ~" in home.refused().message


def test_configured_agents(home: Home) -> None:
    """`[agents.NAME]` adds an agent, its command a list or split as a shell splits."""
    home.config.write_text(
        "agent = 'b'\n[agents.a]\ncommand = ['p', '{prompt_file}']\n[agents.b]\ncommand = 'q \"x y\"'\n"
    )
    found = home.resolve()
    assert found.agents == {"a": ("p", "{prompt_file}"), "b": ("q", "x y")}
    assert found.agent == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agents.codex]\ncommand = 'x'", "[agents.codex]: codex is built in"),
        ("[agents.command]\ncommand = 'x'", "[agents.command]: command is built in"),
        ("[agents.'a/b']\ncommand = 'x'", "[agents.a/b]: a name has"),
        ("[agents.a]", "[agents.a] needs a command"),
        ("[agents.a]\ncommand = 1", "[agents.a] command must be a program"),
        ("[agents.a]\ncommand = []", "[agents.a] command must be a program"),
        ("[agents.a]\ncommand = ['x', 1]", "[agents.a] command must be a program"),
        ("[agents.a]\ncommand = 'x'\ncomand = 'y'", "[agents.a]: unknown key comand"),
        ("[agents]\na = 1", "[agents.a] needs a command"),
        ("agents = 1", "agents must be tables"),
        ("timout = 1", "unknown key timout"),
        ("agent_session = 'tmux:x'", "unknown key agent-session"),
        ("'a\\u001b[2J' = 1", "unknown key"),
        ('"\\u001b[2J" = 1', "unknown key '\\x1b[2J'"),
        ("idle-timeout = 1\nidle_timeout = 2", "a key stands there twice"),
        ("timeout = ", "not valid TOML"),
        ("timeout = inf", "timeout must be"),
        ("timeout = 2020-01-01", "timeout must be"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("#" * (LIMIT + 1), "longer than 64 KiB"),
    ],
)
def test_mistakes_in_the_users_file(home: Home, text: str, message: str) -> None:
    """Each mistake is one line that names the file."""
    home.config.write_text(text)
    error = home.refused()
    assert error.message.startswith(f"{home.config}: ")
    assert message in error.message


def test_nearest_key_is_offered(home: Home) -> None:
    """An unknown key is answered with the one that was meant."""
    home.config.write_text("idle-timout = 1")
    assert home.refused().hint == "did you mean idle-timeout?"
    home.config.write_text("xyz = 1")
    assert "idle-timeout" in (home.refused().hint or "")


def test_file_that_is_not_utf8(home: Home) -> None:
    """Bytes that are not UTF-8 are no TOML."""
    home.config.write_bytes(b"agent = '\xff'")
    assert "not valid TOML" in home.refused().message


def test_users_file_may_be_a_link(home: Home, tmp_path: Path) -> None:
    """The user's own file may be linked from elsewhere, as keepers of dotfiles do."""
    (tmp_path / "dotfile").write_text("attempts = 4")
    home.config.symlink_to(tmp_path / "dotfile")
    assert home.resolve().attempts == 4


def test_without_a_home_no_file_is_the_users(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration directory that is relative would lie in the work dir: it is not read."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "conf")
    planted = Path("conf/delegate-job/config.toml")
    planted.parent.mkdir(parents=True)
    planted.write_text("command = 'evil'\nagent = 'command'\n")
    assert home.resolve().agent == "claude-code"


# -- the work dir's file


def test_work_dir_sets_limits(home: Home) -> None:
    """Agent, model, limits, attempts, close and fail-on-input are taken from a work dir."""
    home.local.write_text(
        "agent = 'codex'\nmodel = 'm'\ntimeout = 1\nidle-timeout = 2\nvalidate-timeout = 3\nattempts = 4\n"
        "close = true\nfail-on-input = true\n"
    )
    found = home.resolve()
    assert (found.agent, found.model, found.timeout, found.idle_timeout) == ("codex", "m", 1, 2)
    assert (found.validate_timeout, found.attempts, found.close, found.fail_on_input) == (3, 4, True, True)


@pytest.mark.parametrize(
    "line",
    [
        "command = 'touch INJECTED'",
        "validate = './evil.sh'",
        "on-event = 'touch INJECTED'",
        "on_event = 'touch INJECTED'",
        "broker = 'mqtt://evil'",
        "permission-mode = 'all'",
        "registry-dir = '.'",
        "agent-session = 'tmux:x'",
        "notify = {}",
        "ci = true",
        "[agents.claude]\ncommand = 'touch INJECTED'",
    ],
)
def test_work_dir_runs_no_commands(home: Home, line: str) -> None:
    """What would run a command, or send reports elsewhere, is refused by name, with where it belongs."""
    home.local.write_text(line)
    error = home.refused()
    assert error.message.startswith(f"{home.local}: ")
    assert "is not taken from a work dir" in error.message
    assert str(home.config) in (error.hint or "")


@pytest.mark.parametrize("name", ["./evil.sh", "/bin/sh", "sh", "../evil", "unknown"])
def test_work_dir_names_no_program(home: Home, name: str) -> None:
    """An agent of a work dir's file is a known one: no path, and no program that happens to be on PATH."""
    home.local.write_text(f"agent = '{name}'")
    assert "agent must be a built-in one or one of your configuration's" in home.refused().message
    assert home.resolve({"agent": "codex"}).agent == "codex"


def test_work_dir_may_name_a_configured_agent(home: Home) -> None:
    """What the user has configured, a work dir may choose."""
    home.config.write_text("[agents.mine]\ncommand = 'x'")
    home.local.write_text("agent = 'mine'")
    assert home.resolve().agent == "mine"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


@pytest.mark.parametrize("plant", [_fifo, _directory, _link, _dangling, _device, _huge])
def test_hostile_file_in_the_work_dir(home: Home, plant: Callable[[Path], None]) -> None:
    """Whatever stands in place of the file: one line, at once, and nothing of it is read."""
    plant(home.local)
    assert home.refused().message.startswith(f"{home.local}: ")


def test_no_work_dir(home: Home) -> None:
    """A work dir that is missing, or is a file, has no file of settings; that it is missing others say."""
    assert read_table(home.work / "none" / ".delegate-job.toml", follow=False) is None
    (home.work / "file").write_text("")
    assert read_table(home.work / "file" / ".delegate-job.toml", follow=False) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(home: Home) -> None:
    """A file that cannot be read is an error, not ignored."""
    home.local.write_text("attempts = 2")
    home.local.chmod(0)
    assert "Permission denied" in home.refused().message


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content of a work dir's file makes anything but settings or a usage error."""
    work = tmp_path_factory.mktemp("work")
    (work / ".delegate-job.toml").write_bytes(content)
    with contextlib.suppress(UsageError):
        settings.resolve({}, workdir=work, environ={})


# -- for commands that need the registry alone


def test_registry_dir(home: Home) -> None:
    """Option, environment, the user's file, default: and only as many of them are read as are needed."""
    assert settings.registry_dir(None, environ={}).name == "delegate-job"
    home.config.write_text("registry_dir = '/from/file'")
    assert settings.registry_dir(None, environ={}) == Path("/from/file")
    home.config.write_text("this is not TOML")
    assert settings.registry_dir(None, environ={"DELEGATE_JOB_REGISTRY_DIR": "x"}) == Path.cwd() / "x"
    assert settings.registry_dir("y/../z", environ={"DELEGATE_JOB_REGISTRY_DIR": "x"}) == Path.cwd() / "z"


def test_no_parser_without_a_file(tmp_path: Path) -> None:
    """Who has no file of settings does not pay for reading TOML."""
    text = """
import sys
from delegate_job import settings
settings.resolve({}, workdir="nowhere", environ={})
assert "tomllib" not in sys.modules and "difflib" not in sys.modules
"""
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", text], check=True, timeout=30, env=environ, cwd=tmp_path)
