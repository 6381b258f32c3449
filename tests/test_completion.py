"""What a shell offers at the press of Tab: asked as the shells ask, and seen in real ones."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from delegate_job import completion, reporter
from delegate_job.agents import BUILT_IN, COMMAND
from delegate_job.agents.base import PERMISSION_MODES
from delegate_job.cli import COMMANDS
from delegate_job.cli_options import COMPLETION, Parameter, Unparsed, parameters
from delegate_job.job import JobState
from harness import COMMAND as PROGRAM
from harness import Place, in_ci, job_id, wait_until

REPORT = '"$DJ" publish --event'


def offered(place: Place, *words: str, **env: str) -> list[str]:
    """Return what bash is told for a line whose last word is being typed."""
    asked = {COMPLETION: "complete_bash", "COMP_CWORD": str(len(words)), **env}
    done = place.run(env={**asked, "COMP_WORDS": "\n".join(["delegate-job", *words])})
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split()


def done_and_live(place: Place) -> tuple[str, str]:
    """Return the ids of a job that is done and of one that goes on."""
    done = job_id(place.submit(f"{REPORT} completed").stdout)
    args = place.submit_args(f"{REPORT} started\nexec sleep 600", "--detach", "--json")
    live = str(json.loads(place.run(*args).stdout)["id"])
    place.await_state(live, "running")
    return done, live


def declared() -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter of every command, with the command's name."""
    for name, command in COMMANDS.items():
        for each in parameters(command):
            found = parameters(each.form.like) if isinstance(each.form, Unparsed) else [each]
            yield from ((name, parameter) for parameter in found)


# -- what is offered


def test_ids_of_jobs(place: Place) -> None:
    """Newest first; where only a live or only a finished one will do, only those."""
    done, live = done_and_live(place)
    for words in (["status"], ["wait", done], ["logs", "--job"], ["publish", "--job"], ["attach"]):
        assert offered(place, *words, "") == [live, done]
    assert offered(place, "status", done[:5]) == [done]
    for command in ("cancel", "send", "approve", "deny", "answer"):
        assert offered(place, command, "") == [live]
    assert offered(place, "retry", "") == [done]
    assert place.run("cancel", live).returncode == 0


def test_the_registry_that_the_line_names(place: Place) -> None:
    """`--registry-dir` earlier in the line, else the variable."""
    name = job_id(place.submit(f"{REPORT} completed").stdout)
    elsewhere = {"DELEGATE_JOB_REGISTRY_DIR": str(place.root / "none")}
    assert offered(place, "status", "", **elsewhere) == []
    assert offered(place, "status", "--registry-dir", str(place.registry), "", **elsewhere) == [name]


def test_at_most_so_many_jobs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of thousands is not poured onto the screen; what was typed is looked for among all."""
    first, second = (job_id(place.submit(f"{REPORT} completed").stdout) for _ in range(2))
    monkeypatch.setattr(completion, "MOST_JOBS", 1)
    asked = (place.registry.as_posix(),)
    assert [word.text for word in completion.words("job", "", *asked)] == [second]
    assert [word.text for word in completion.words("job", first, *asked)] == [first]
    assert completion.words("job", first, *asked)[0].about == "accepted command"


def test_agents_states_modes_and_kinds(place: Place) -> None:
    """Built-in and configured agents, and every word of each enumeration."""
    config = place.home / ".config/delegate-job/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[agents.reviewer]\ncommand = ["true"]\n')
    agents = {*BUILT_IN, COMMAND, "reviewer"}
    assert (
        set(offered(place, "submit", "--agent", "")) == set(offered(place, "list", "--agent", "")) == agents
    )
    assert set(offered(place, "doctor", "")) == agents
    assert offered(place, "list", "--state", "") == offered(place, "wait", "--until", "") == list(JobState)
    assert offered(place, "submit", "--permission-mode", "") == list(PERMISSION_MODES)
    assert offered(place, "publish", "--event", "") == list(reporter.KINDS)
    assert offered(place, "publish", "--event", "com") == ["completed"]
    config.write_text("[broken")
    assert set(offered(place, "submit", "--agent", "")) == agents - {"reviewer"}


def test_commands_and_options(place: Place) -> None:
    """Every command, and what `publish` takes, though it reads its words by itself."""
    assert offered(place, "") == list(COMMANDS)
    assert set(offered(place, "publish", "--")) == {*reporter._OPTIONS, "--help"}
    assert "--until" in offered(place, "wait", "--u")


def test_a_key_changes_nothing(place: Place) -> None:
    """Without a registry none is made; a damaged one is no word, and is left as it is."""
    assert offered(place, "status", "") == []
    assert not place.registry.exists()
    place.registry.mkdir(mode=0o700)
    (place.registry / "registry.db").write_bytes(b"no database" * 1000)
    assert offered(place, "status", "") == []
    assert [path.name for path in place.registry.iterdir()] == ["registry.db"]


def test_only_plain_words_reach_a_shell(place: Place) -> None:
    """Zsh evaluates what it is told: a program's path as an agent's name shows its last part, or nothing."""
    odd = place.root / "a$(touch evil)'b"
    shutil.copy(place.agent(f"{REPORT} completed"), odd)
    name = job_id(place.run("submit", "--agent", odd, "--prompt", "x").stdout)
    assert completion.words("job", "", str(place.registry)) == [(name, "accepted")]


# -- what is declared


def test_whatever_takes_a_job_completes_it() -> None:
    """A parameter that is shown as an ID offers jobs, in commands to come too."""
    takers = [(name, each) for name, each in declared() if (each.form.metavar or "").strip("[]…") == "ID"]
    assert len(takers) > 10
    assert [name for name, each in takers if "job" not in (each.form.completes or "")] == []


def test_what_is_offered_is_known() -> None:
    """Each kind of words that a parameter names exists."""
    named = {each.form.completes for _, each in declared()} - {None}
    assert named == set(completion.KINDS)


# -- real shells


@dataclass
class Shell:
    """An interactive shell in a terminal, with the completion that `--show-completion` prints."""

    place: Place
    name: str

    def start(self) -> None:
        """Start it and wait for its prompt."""
        script = self.place.root / "completion"
        asked = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        script.write_text(self.place.run("--show-completion", self.name, env=asked).stdout)
        argv, files = _STARTS[self.name]
        for name, text in files.items():
            (self.place.home / name).write_text(text.format(script=script))
        path = f"{PROGRAM.parent}:{self.place.environ['PATH']}"
        words = [word.format(home=self.place.home, script=script) for word in argv]
        self._tmux(
            "new-session", "-d", "-x", "150", "-y", "40", *words, PATH=path, ZDOTDIR=str(self.place.home)
        )
        wait_until(lambda: "ready>" in self.screen(), what=f"the prompt of {self.name}")

    def completes(self, typed: str, whole: str) -> None:
        """Type a line and Tab; wait until it stands there in whole. Then take it back."""
        self._tmux("send-keys", "-l", typed)
        # What the terminal shows has been read; a Tab at once could come first.
        wait_until(lambda: typed.rstrip() in self.screen(), what=typed)
        self._tmux("send-keys", "Tab")
        wait_until(lambda: whole in self.screen(), what=f"{whole} in {self.name}")
        self._tmux("send-keys", "C-u")
        wait_until(lambda: typed.rstrip() not in self.screen(), what="an empty line")

    def screen(self) -> str:
        """Return what it shows."""
        return self._tmux("capture-pane", "-p")

    def _tmux(self, *words: str, **env: str) -> str:
        process = self.place.spawn("tmux", "-L", "shell", "-f", "/dev/null", *words, env=env)
        said, warned = process.communicate(timeout=20)
        assert process.returncode == 0, warned
        return said


_STARTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "bash": (["bash", "--rcfile", "{home}/rc", "-i"], {"rc": "PS1='ready> '\nsource {script}\n"}),
    "zsh": (
        ["zsh", "-i"],
        {".zshenv": "", ".zshrc": "autoload -Uz compinit; compinit -u -D\nsource {script}\nPS1='ready> '\n"},
    ),
    "fish": (
        ["fish", "--no-config", "-C", "source {script}; function fish_prompt; echo 'ready> '; end"],
        {},
    ),
}


@pytest.mark.parametrize("name", _STARTS)
def test_in_a_real_shell(place: Place, name: str) -> None:
    """Tab completes an id, an agent, a state, a mode, a kind, and a file where a file is meant."""
    if shutil.which(name) is None:
        (pytest.fail if in_ci() else pytest.skip)(f"needs {name}")
    job = job_id(place.submit(f"{REPORT} completed").stdout)
    (place.work / "subdirectory").mkdir()
    shell = Shell(place, name)
    shell.start()
    shell.completes(f"delegate-job status {job[:6]}", f"status {job}")
    shell.completes("delegate-job submit --agent claude", "--agent claude-code")
    shell.completes("delegate-job list --state wai", "--state waiting")
    shell.completes("delegate-job submit --permission-mode ed", "--permission-mode edits")
    shell.completes("delegate-job publish --event compl", "--event completed")
    shell.completes("delegate-job submit --workdir subdi", "--workdir subdirectory/")
