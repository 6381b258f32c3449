"""The set-up scripts on machines that lack something, played by a PATH of our own; nothing is installed."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TOOLS = ("sh", "bash", "dirname", "cat", "tail", "cksum", "rm")
INSTALLED_BY = {
    "apt-get": "apt-get install -y -q --no-install-recommends tmux",
    "dnf": "dnf install -y tmux",
    "yum": "yum install -y tmux",
    "apk": "apk add tmux",
    "pacman": "pacman -Sy --noconfirm --needed tmux",
    "zypper": "zypper --non-interactive install tmux",
    "brew": "brew install tmux",
}


@dataclass
class Machine:
    """A copy of the scripts, a PATH with a few programs, and a log of what was run."""

    root: Path
    bin: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            self.bin.joinpath(tool).symlink_to(shutil.which(tool) or tool)
        self.uid(0)

    def program(self, name: str, body: str = "") -> None:
        """Put a program there; it logs its name and arguments first."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.root}/log"\n{body}\n')
        path.chmod(0o755)

    def uid(self, uid: int) -> None:
        """Make `id -u` say so."""
        self.program("id", f"echo {uid}")

    def python(self, name: str, *, new: bool, venv: bool = True) -> None:
        """Put a Python there that is new enough or not; making an environment ends it with code 7."""
        answers = {
            '"-c import sys; sys.exit("*': f"exit {int(not new)}",
            '"-c import ensurepip"*': f"exit {int(not venv)}",
            '"-c import sys; print("*': "echo python3.12",
            "--version": "echo Python 3.12",
            '"-m venv"*': "exit 7",
        }
        cases = " ".join(f"{words}) {answer} ;;" for words, answer in answers.items())
        self.program(name, f'case "$*" in {cases} esac')

    def run(self, script: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a script of ours there."""
        return subprocess.run(
            [str(self.root / "scripts" / script), *args],
            env={"PATH": str(self.bin)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=20,
        )

    def log(self) -> list[str]:
        """Return what was run, without the questions for who we are."""
        path = self.root / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("id ")]


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    """Give a machine with a fresh copy of the scripts."""
    shutil.copytree(
        repository / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return Machine(tmp_path)


def test_nothing_is_installed_when_tmux_is_there(machine: Machine) -> None:
    """A machine that has what is needed is left as it is, without a word."""
    machine.program("tmux")
    machine.program("apt-get")
    done = machine.run("get-tmux.sh")
    assert (done.returncode, done.stdout, done.stderr, machine.log()) == (0, "", "", [])


@pytest.mark.parametrize("manager", INSTALLED_BY)
def test_tmux_is_installed_by_the_systems_own_manager(machine: Machine, manager: str) -> None:
    """Each package manager gets its own command, and the user is told before it runs."""
    machine.program(manager)
    done = machine.run("get-tmux.sh")
    assert done.returncode == 0, done
    assert machine.log()[-1] == INSTALLED_BY[manager]
    assert done.stdout.startswith("Missing: installing with:")
    assert INSTALLED_BY[manager] in done.stdout


def test_without_rights_it_says_what_to_run(machine: Machine) -> None:
    """An ordinary user without sudo gets the exact command and an exit code; nothing is tried."""
    machine.uid(1000)
    machine.program("apt-get")
    done = machine.run("get-tmux.sh")
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing: tmux\nhint: ")
    assert INSTALLED_BY["apt-get"] in done.stderr
    assert machine.log() == []


def test_sudo_without_a_password_is_used(machine: Machine) -> None:
    """An ordinary user with passwordless sudo need not do anything."""
    machine.uid(1000)
    machine.program("apt-get")
    machine.program("sudo", '[ "$1" = -n ] || exec "$@"')
    assert machine.run("get-tmux.sh").returncode == 0
    assert machine.log()[-1] == INSTALLED_BY["apt-get"]


def test_a_failed_installation_shows_its_output(machine: Machine) -> None:
    """What the package manager said is shown when it fails, and the code is not 0."""
    machine.program("apk", "echo no network; exit 3")
    done = machine.run("get-tmux.sh")
    assert done.returncode == 1
    assert "no network" in done.stderr


def test_without_a_package_manager_it_says_what_is_missing(machine: Machine) -> None:
    """An unknown system is told the names."""
    done = machine.run("get-tmux.sh")
    assert done.returncode == 1
    assert done.stderr.startswith("error: missing: tmux\n")


def test_an_old_python_is_not_enough(machine: Machine) -> None:
    """With nothing but an old Python the message says what is needed and how to name another."""
    machine.python("python3", new=False)
    done = machine.run("bootstrap.sh")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Python 3.11 or newer was found\nhint: ")


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    """python3.12 is taken when python3 is too old, and a broken shim of 3.13 is passed over."""
    machine.python("python3", new=False)
    machine.program("python3.13", "echo 'command not found' >&2; exit 127")
    machine.python("python3.12", new=True)
    assert machine.run("bootstrap.sh").returncode == 7
    assert machine.log()[-1] == "python3.12 -m venv --clear .venv"


def test_debians_missing_venv_is_installed(machine: Machine) -> None:
    """A Python without ensurepip gets the package that has it, of its own version."""
    machine.python("python3", new=True, venv=False)
    machine.program("apt-get")
    done = machine.run("bootstrap.sh")
    assert "apt-get install -y -q --no-install-recommends python3.12-venv" in machine.log()
    assert "python3.12-venv" in done.stdout


def test_debians_missing_venv_without_rights(machine: Machine) -> None:
    """Without rights the user is told to install python3.12-venv, and nothing is half made."""
    machine.uid(1000)
    machine.python("python3", new=True, venv=False)
    machine.program("apt-get")
    done = machine.run("bootstrap.sh")
    assert done.returncode == 1
    assert "apt-get install -y -q --no-install-recommends python3.12-venv" in done.stderr
    assert not (machine.root / ".venv").exists()


def test_a_second_bootstrap_does_nothing(machine: Machine) -> None:
    """Once made for this pyproject.toml, .venv is left alone; when that changed, it is installed again."""
    pyproject = machine.root / "pyproject.toml"
    venv = machine.root / ".venv"
    (venv / "bin").mkdir(parents=True)
    machine.program("../.venv/bin/python")
    place = f"{machine.root.resolve()}\n"
    (venv / "place").write_text(place)
    checksum = subprocess.run(
        ["cksum"], input=pyproject.read_text(), capture_output=True, check=True, encoding="utf-8", timeout=10
    ).stdout
    (venv / "installed").write_text(checksum + place)
    done = machine.run("bootstrap.sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.log() == ["../.venv/bin/python -c "]
    with pyproject.open("a") as file:
        file.write("# changed\n")
    assert machine.run("bootstrap.sh").returncode == 0
    assert "-m pip install" in machine.log()[-1]
    assert machine.run("bootstrap.sh", "--dev").returncode == 0
    assert (venv / "installed").read_text() == (venv / "installed--dev").read_text() != checksum + place


def agents_to_get(machine: Machine, repository: Path) -> None:
    """Put the pins of the real agents there."""
    shutil.copytree(repository / "tests/npm", machine.root / "tests/npm")
    for tool in ("mkdir", "cp"):
        machine.bin.joinpath(tool).symlink_to(shutil.which(tool) or tool)
    machine.program("uname", "echo Linux")


def test_without_npm_the_agents_are_left_out(machine: Machine, repository: Path) -> None:
    """A machine without npm is told that tests with real agents cannot run, and the others go on."""
    agents_to_get(machine, repository)
    done = machine.run("get-agents.sh")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: npm is not on PATH; tests with real agents cannot run\nhint: ")


def test_agents_are_installed_once(machine: Machine, repository: Path) -> None:
    """The pins go to npm, in a directory that git ignores; when that was done nothing is run again."""
    agents_to_get(machine, repository)
    machine.program("npm")
    assert [machine.run("get-agents.sh").returncode for _ in range(2)] == [0, 0]
    (call,) = [line for line in machine.log() if line.startswith("npm ")]
    assert call.startswith("npm install --prefix .cache/agents ")
    assert (machine.root / ".cache/agents/package-lock.json").is_file()


def test_agents_that_cannot_be_installed_leave_nothing_behind(machine: Machine, repository: Path) -> None:
    """What npm said is shown when it fails, and the next run tries again."""
    agents_to_get(machine, repository)
    machine.program("npm", "echo no network; exit 1")
    done = machine.run("get-agents.sh")
    assert done.returncode == 0
    assert "no network" in done.stderr
    assert not (machine.root / ".cache/agents").exists()
