"""`doctor` on the installed command: what it says and proves, its exit code, and that nothing is left."""

import json
import os
import signal
import stat
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from broker_servers import Mosquitto
from delegate_job import doctor_machine, doctor_process, doctor_scratch
from delegate_job.agents import BUILT_IN
from delegate_job.agents.base import AS_IT_IS, Wanted
from delegate_job.agents.probes import Status, aider, claude_code, codex, gemini, opencode, probes_of
from delegate_job.paths import RegistryPaths
from harness import Place, wait_until, without

SECRET = "sk-this-is-a-secret-that-nobody-may-see"


def findings(shown: CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return what `doctor --json` found, by name; of several the last."""
    document = json.loads(shown.stdout)
    assert document["ok"] == (shown.returncode == 0), document
    return {each["what"]: each for each in document["findings"]}


def everything_in(root: Path) -> set[Path]:
    """Return every file, directory and socket below a directory."""
    return set(root.rglob("*"))


def program(place: Place, name: str, text: str) -> Path:
    """Put a program of this name on the PATH of the place."""
    path = place.root / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    if str(path.parent) not in place.environ["PATH"]:
        place.environ["PATH"] = f"{path.parent}:{place.environ['PATH']}"
    return path


def test_a_good_machine(place: Place) -> None:
    """Where all is well each thing that was tried is said, with exit code 0."""
    shown = place.run("doctor")
    assert shown.returncode == 0, shown
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    ok = " ".join(rest for status, rest in lines if status == "ok")
    for proof in ("a session was opened and read", "a report came through it", "no job yet"):
        assert proof in ok
    assert "\x1b" not in shown.stdout
    assert not shown.stderr


@pytest.mark.parametrize("agent", [[], ["human"]], ids=["the machine", "with an agent"])
def test_nothing_is_left_behind(place: Place, agent: list[str]) -> None:
    """No file, directory, socket, session or process is left; a registry that was not there is not made."""
    before = everything_in(place.root)
    assert place.run("doctor", *agent).returncode == 0
    left = {path for path in everything_in(place.root) - before if path.parent != place.root / "t"}
    assert not left
    wait_until(lambda: not place.processes(), what="the end of all it started")


def test_a_registry_with_jobs_is_left_as_it_is(place: Place) -> None:
    """Jobs that are there are counted, and nothing of them is changed."""
    assert place.submit("$DJ publish --event completed").returncode == 0
    before = everything_in(place.registry / "jobs")
    shown = place.run("doctor", "--json")
    assert findings(shown)["registry"]["text"] == f"{place.registry}, 0 unfinished jobs"
    assert everything_in(place.registry / "jobs") == before


def test_json_is_one_document(place: Place) -> None:
    """With --json each finding has its name, status, words, hint, and whether it is needed."""
    document = json.loads(place.run("doctor", "--json").stdout)
    assert set(document) == {"ok", "agent", "workdir", "findings"}
    for each in document["findings"]:
        assert set(each) == {"what", "status", "text", "hint", "needed"}
        assert each["status"] in {"ok", "warning", "missing"}


def test_settings_that_cannot_be_read_are_one_finding(place: Place) -> None:
    """All else is looked at, in the registry that the environment names."""
    (place.home / ".config/delegate-job").mkdir()
    (place.home / ".config/delegate-job/config.toml").write_text("broken")
    for env in ({}, {"DELEGATE_JOB_REGISTRY_DIR": ""}):
        shown = place.run("doctor", "--json", env=env)
        found = findings(shown)
        assert (shown.returncode, found["settings"]["status"]) == (7, "missing")
        assert (found["registry"]["status"], found["tmux"]["status"]) == ("ok", "ok")
        if not env:
            assert found["registry"]["text"].startswith(f"{place.registry},")


def test_without_tmux(place: Place) -> None:
    """Without tmux it is missing, with the line that helps and exit code 7; a person's job needs none."""
    env = without(place, "tmux")
    shown = place.run("doctor", "--json", env=env)
    assert shown.returncode == 7
    tmux = findings(shown)["tmux"]
    assert (tmux["status"], tmux["needed"]) == ("missing", True)
    assert "install tmux" in tmux["hint"]
    assert place.run("doctor", "human", env=env).returncode == 0


def test_an_old_tmux(place: Place) -> None:
    """A tmux that is too old is missing, too: no session is tried."""
    program(place, "tmux", "#!/bin/sh\necho tmux 2.9\n")
    tmux = findings(place.run("doctor", "--json"))["tmux"]
    assert (tmux["status"], tmux["text"]) == ("missing", "tmux 2.9 is too old")


def test_a_tmux_that_does_nothing(place: Place) -> None:
    """A tmux that opens no session is missing, in its own words."""
    program(place, "tmux", '#!/bin/sh\n[ "$1" = -V ] && echo tmux 3.4 && exit\necho no pty >&2\nexit 1\n')
    shown = place.run("doctor", "--json")
    assert shown.returncode == 7
    assert findings(shown)["tmux"]["text"] == "tmux 3.4: no session can be opened: tmux: no pty"


def test_no_agent_at_all(place: Place) -> None:
    """Who has no agent is told which there are, how to get one and what needs none; that is no failure."""
    shown = place.run("doctor", "--json", env=without(place, *(p.program for p in known())))
    agents = findings(shown)["agents"]
    assert agents["status"] == "missing"
    assert not agents["needed"]
    assert all(name in agents["text"] for name in ("claude-code", "codex", "aider"))
    assert "command or human" in agents["hint"]


def known() -> list[Any]:
    """Return the probes of all agents that have any."""
    return [probes for name in BUILT_IN if (probes := probes_of(name))]


def test_a_known_agent_that_is_not_there(place: Place) -> None:
    """An agent that is asked for and not there is exit code 7, with how to install it."""
    shown = place.run("doctor", "codex", env=without(place, "codex"))
    assert shown.returncode == 7
    said = shown.stdout.split("missing", 1)[1]
    assert "no executable program 'codex' on PATH" in said
    assert "hint: install it with: npm install -g @openai/codex" in said


def test_an_unknown_agent(place: Place) -> None:
    """A name that is no agent's is missing, with those that are like it."""
    shown = place.run("doctor", "claude-cod", "--json")
    assert shown.returncode == 7
    assert findings(shown)["claude-cod"]["hint"] == "did you mean claude-code?"


def test_agents_of_every_kind(place: Place) -> None:
    """A person, a template, a configured agent and any program are looked at as far as there is anything."""
    (place.home / ".config/delegate-job").mkdir()
    config = place.home / ".config/delegate-job/config.toml"
    config.write_text(
        '[agents.mine]\ncommand = ["bash", "{prompt_file}"]\n[agents.gone]\ncommand = ["gone"]\n'
    )
    for agent, code in (("human", 0), ("command", 0), ("mine", 0), ("bash", 0), ("gone", 7)):
        assert place.run("doctor", agent).returncode == code, agent
    listed = findings(place.run("doctor", "--json"))
    assert listed["mine"]["status"] == "ok"
    assert "gone" in listed["agents"]["text"]


def test_a_version_that_does_not_come(place: Place) -> None:
    """An agent that is there and says no version is a warning; what it left running is ended."""
    program(place, "aider", "#!/bin/sh\nsleep 60 & exit 1\n")
    shown = place.run("doctor", "aider", "--json")
    assert findings(shown)["aider"]["status"] == "warning"
    wait_until(lambda: not place.processes(), what="the end of all it started")


def test_settings_that_cannot_be_read(place: Place) -> None:
    """A broken file of settings is missing, by its own error; what needs none of it is tried all the same."""
    (place.work / ".delegate-job.toml").write_text("agentt = 1\n")
    shown = place.run("doctor", "--json")
    assert shown.returncode == 7
    found = findings(shown)
    assert found["settings"]["hint"] == "did you mean agent?"
    assert found["tmux"]["status"] == "ok"


def test_a_registry_that_cannot_be_made(place: Place) -> None:
    """A registry where none can be is missing, with its reason; the rest is tried elsewhere."""
    (place.root / "registry").write_text("a file")
    shown = place.run("doctor", "--json")
    assert shown.returncode == 7
    found = findings(shown)
    assert found["registry"]["status"] == "missing"
    assert found["tmux"]["status"] == found["broker"]["status"] == "ok"


def test_a_registry_that_others_can_read(place: Place) -> None:
    """Rights of others are a warning, with the command that takes them away."""
    place.registry.mkdir()
    place.registry.chmod(0o755)
    document = json.loads(place.run("doctor", "--json").stdout)
    (warned,) = [each for each in document["findings"] if each["status"] == "warning"]
    assert "0755" in warned["text"]
    assert warned["hint"] == f"chmod 700 {place.registry}"
    assert stat.S_IMODE(place.registry.stat().st_mode) == 0o755


def test_a_work_dir_that_is_not_there(place: Place) -> None:
    """A work dir that cannot be is an error as everywhere else."""
    shown = place.run("doctor", "--workdir", "gone")
    assert (shown.returncode, shown.stderr.splitlines()[0][:23]) == (7, "error: no such work dir")


def test_an_external_broker(place: Place, mosquitto: Mosquitto) -> None:
    """The broker of the settings is tried, too: its URL is shown without the password."""
    shown = place.run("doctor", "--json", env={"DELEGATE_JOB_BROKER": mosquitto.url})
    broker = findings(shown)["broker"]
    assert broker["text"].startswith("mqtt://")
    assert broker["text"].endswith("a report came through it")
    assert mosquitto.password not in shown.stdout


def test_an_external_broker_that_is_not_there(place: Place) -> None:
    """A broker of the settings that takes nothing is missing: no job would start."""
    shown = place.run("doctor", "--json", env={"DELEGATE_JOB_BROKER": f"mqtt://me:{SECRET}@127.0.0.1:9"})
    assert shown.returncode == 7
    assert "takes nothing" in findings(shown)["broker"]["text"]
    assert SECRET not in shown.stdout + shown.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(place: Place, signum: signal.Signals) -> None:
    """Ended in the middle, it takes back what it has made, and its exit code says by what."""
    program(place, "aider", "#!/bin/sh\ntouch $0.started\nsleep 60\n")
    process = place.start("doctor", "aider")
    wait_until((place.root / "bin/aider.started").exists, what="the agent asked for its version")
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert not place.registry.exists()
    assert not list((place.root / "tmp").iterdir())
    wait_until(lambda: not place.processes(), what="the end of all it started")


# -- the parts


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:5 / /proc rw - proc proc rw
41 22 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw
42 41 0:51 / /home/me/my\\040disk rw - btrfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/srv/x", "ext4"), ("/home/me/jobs", "nfs4"), ("/home/me/my disk/jobs", "btrfs"), ("/homes", "ext4")],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    """The mount that holds a path is the deepest one, whatever its name holds."""
    assert doctor_machine.file_system(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_warned_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry on a network file system is a warning, and says what to do."""
    monkeypatch.setattr(doctor_machine, "file_system", lambda _: "nfs4")
    paths = RegistryPaths(place.registry)
    with doctor_scratch.in_registry(paths) as scratch:
        found = list(doctor_machine.registry(paths, scratch))
    assert [each.status for each in found] == [Status.WARNING, Status.OK]
    assert "nfs4" in found[0].text


def test_a_program_that_hangs_is_ended_with_its_children(place: Place) -> None:
    """A program has its time limit also when a child of it holds its output open."""
    script = place.script("hangs", "sleep 60 &\nsleep 60")
    assert doctor_process.run([str(script)], timeout=1.0, cwd=place.work, env=place.environ) is None
    wait_until(lambda: not place.processes(), what="the end of all it started")


def look(probes: Any, place: Place, **environ: str) -> dict[str, Any]:
    """Return what an agent's own files and variables tell, by name."""
    env = {"HOME": str(place.home), **environ}
    return {each.what: each for each in probes.PROBES.look(env, str(place.work), AS_IT_IS)}


def test_claude_first_start(place: Place) -> None:
    """On a machine that claude was never started on, each dialog that would wait is told."""
    found = look(claude_code, place)
    assert {name: each.status for name, each in found.items()} == dict.fromkeys(
        ("first start", "login", "trust"), Status.WARNING
    )


def test_claude_login_and_trust(place: Place) -> None:
    """A key that was approved, and trust of a directory above, are seen; no part of the key is shown."""
    known = {
        "hasCompletedOnboarding": True,
        "projects": {str(place.root): {"hasTrustDialogAccepted": True}},
        "customApiKeyResponses": {"approved": [SECRET[-20:]], "rejected": []},
    }
    (place.home / ".claude.json").write_text(json.dumps(known))
    found = look(claude_code, place, ANTHROPIC_API_KEY=SECRET)
    assert {each.status for each in found.values()} == {Status.OK}
    assert SECRET[-20:] not in str(found)
    (place.home / ".claude.json").write_text("{ not JSON")
    assert look(claude_code, place, ANTHROPIC_API_KEY=SECRET)["login"].status is Status.WARNING


def test_claude_credentials(place: Place) -> None:
    """Credentials of a login are seen where claude keeps them, also in a directory of the user's choice."""
    directory = place.root / "claude"
    directory.mkdir()
    (directory / ".credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": SECRET}}))
    found = look(claude_code, place, CLAUDE_CONFIG_DIR=str(directory))["login"]
    assert found.status is Status.OK
    assert SECRET not in str(found)


def test_inside_a_job_it_looks_at_the_users_own_home(place: Place) -> None:
    """A home of the job around is nobody's own: a submit from in there would not use it either."""
    program(place, "claude", "#!/bin/sh\necho 2.1.330")
    own = place.home / ".claude"
    own.mkdir()
    (own / ".credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": SECRET}}))
    around = place.registry / "jobs/abcdefghjk"
    env = {
        "ANTHROPIC_API_KEY": None,
        "DELEGATE_JOB_CONNECTION": str(around / "connection.json"),
        "CLAUDE_CONFIG_DIR": str(around / "home"),
    }
    found = findings(place.run("doctor", "claude-code", "--json", env=env))
    assert found["login"]["text"] == "credentials in ~/.claude/.credentials.json"


@pytest.mark.parametrize(
    ("agent", "key"),
    [(claude_code, "ANTHROPIC_API_KEY"), (codex, "OPENAI_API_KEY"), (gemini, "GEMINI_API_KEY")],
    ids=["claude-code", "codex", "gemini"],
)
def test_in_ci(place: Place, agent: Any, key: str) -> None:
    """In the CI profile an agent with a key has a home of the job's own: no dialog of the user's is told."""
    env = {"HOME": str(place.home), key: SECRET}
    found = list(agent.PROBES.look(env, str(place.work), Wanted(ci=True)))
    assert [(each.what, each.status) for each in found] == [("login", Status.OK), ("trust", Status.OK)]


def test_codex_login_trust_and_hooks(place: Place) -> None:
    """Codex's login, the user's distrust of a work dir and hooks that are switched off are seen."""
    home = place.home / ".codex"
    home.mkdir()
    assert look(codex, place)["login"].hint == "run `codex login`"
    (home / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": SECRET}))
    (home / "config.toml").write_text(
        f'[features]\nhooks = false\n[projects."{place.work}"]\ntrust_level = "untrusted"\n'
    )
    found = look(codex, place)
    assert found["login"].status is Status.OK
    assert found["trust"].status is Status.WARNING
    assert "features.hooks" in found["hooks"].text
    assert SECRET not in str(found)


def test_codex_provider_key(place: Place) -> None:
    """The variable that the user's own provider asks for is named when it is not set."""
    home = place.home / ".codex"
    home.mkdir()
    (home / "config.toml").write_text('model_provider = "p"\n[model_providers.p]\nenv_key = "P_KEY"\n')
    assert look(codex, place)["login"].hint == "export P_KEY"
    assert look(codex, place, P_KEY=SECRET)["login"].status is Status.OK


def test_gemini_login_and_hooks(place: Place) -> None:
    """A key alone is no login of gemini's: a way must be chosen; hooks that are switched off are seen."""
    home = place.home / ".gemini"
    home.mkdir()
    assert look(gemini, place, GEMINI_API_KEY=SECRET)["login"].status is Status.WARNING
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "hooksConfig": {"enabled": False}}
    (home / "settings.json").write_text(json.dumps(settings))
    found = look(gemini, place, GEMINI_API_KEY=SECRET)
    assert found["login"].status is Status.OK
    assert "hooksConfig.enabled" in found["hooks"].text


def test_opencode_login_and_first_start(place: Place) -> None:
    """The package of opencode's first start, and its login, are seen or missed."""
    assert {each.status for each in look(opencode, place).values()} == {Status.WARNING}
    package = place.home / ".config/opencode/node_modules/@opencode-ai/plugin"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    found = look(opencode, place, OPENAI_API_KEY=SECRET)
    assert {name: each.text for name, each in found.items()} == {"login": "OPENAI_API_KEY is set"}


def test_aider_login(place: Place) -> None:
    """Aider's key is any provider's; its name is told, and not its value."""
    assert look(aider, place)["login"].status is Status.WARNING
    assert look(aider, place, DEEPSEEK_API_KEY=SECRET)["login"].text == "DEEPSEEK_API_KEY is set"


def test_what_a_work_dir_holds_cannot_hold_it_up(place: Place) -> None:
    """A FIFO in the place of an agent's settings is no settings, and nobody waits for it."""
    (place.work / ".codex").mkdir()
    os.mkfifo(place.work / ".codex/config.toml")
    (place.work / ".gemini").mkdir()
    os.mkfifo(place.work / ".gemini/settings.json")
    assert "hooks" not in look(codex, place)
    assert "hooks" not in look(gemini, place)
