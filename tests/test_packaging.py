"""What is shipped is whole: the wheel runs with nothing else of ours, and the sdist makes the same one."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from harness import Place, job_id

SHIPPED = (
    "delegate_job/py.typed",
    "delegate_job/tmux.conf",
    "delegate_job/agents/opencode_plugin.js",
    "delegate_job/skills/delegate-job/SKILL.md",
    "delegate_job_broker/py.typed",
    "{name}.data/data/share/man/man1/delegate-job.1",
    "{name}.dist-info/licenses/LICENSE",
)
LEFT_OUT = ("tests/", "scripts/", "docs/", "examples/")


def build(source: Path, into: Path) -> tuple[Path, Path]:
    """Build wheel and sdist of a source tree with its own build system; return both."""
    argv = [sys.executable, "-m", "hatchling", "build", "--directory", str(into)]
    subprocess.run(argv, cwd=source, check=True, capture_output=True, timeout=90)
    (wheel,), (sdist,) = into.glob("*.whl"), into.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give the wheel and the sdist of this source tree."""
    return build(repository, tmp_path_factory.mktemp("dist"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return every file of a wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Unpacked elsewhere, without git, it gives a wheel with the same files, byte for byte."""
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again, _ = build(source, tmp_path / "dist")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)


def test_the_wheel_has_every_file_of_the_packages(built: tuple[Path, Path], repository: Path) -> None:
    """Each file of the two packages, the licences and the man page; nothing that is for development."""
    wheel, _ = built
    found = set(contents(wheel))
    name = "-".join(wheel.name.split("-")[:2])
    assert {file.format(name=name) for file in SHIPPED} <= found
    packages = [repository / "delegate_job", repository / "broker/delegate_job_broker"]
    sources = {
        str(path.relative_to(package.parent))
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= found
    assert [file for file in found if file.startswith(LEFT_OUT)] == []


def test_the_sdist_has_what_its_tests_need(built: tuple[Path, Path]) -> None:
    """Sources, tests, scripts, documents and examples: a distributor can build and test from it."""
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for file in (
        "Makefile",
        "README.md",
        "tests/harness.py",
        "scripts/test.sh",
        "docs/cli.md",
        "examples/demo.py",
    ):
        assert file in names


@pytest.fixture
def installed(place: Place, built: tuple[Path, Path]) -> Path:
    """Give the `bin` of a virtual environment with nothing but the wheel; its dependencies are elsewhere."""
    home = place.root / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*argv, str(built[0])], check=True, capture_output=True, timeout=90, env=place.env())
    (packages,) = home.glob("lib/python*/site-packages")
    # The .pth files in there, such as that of our own editable installation, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_installed_wheel_does_a_whole_job(place: Place, installed: Path) -> None:
    """From the environment it was installed in, with agent, tmux, broker and check; no file is missing."""
    path = f"{installed}:{place.environ['PATH']}"
    args = place.submit_args("delegate-job publish --event started; delegate-job publish --event completed")
    submit = place.spawn(
        installed / "delegate-job",
        *args,
        "--close",
        "--validate",
        place.script("check", "true"),
        env={"PATH": path},
    )
    said, warned = submit.communicate(timeout=60)
    assert (submit.returncode, warned) == (0, ""), said
    assert place.job(job_id(said))["verdict"] == "passed"
    shown = place.spawn(installed / "python", "-c", "import delegate_job; print(delegate_job.__file__)")
    assert shown.communicate(timeout=30)[0].startswith(str(installed.parent))


def test_the_installed_wheel_has_its_documents(place: Place, installed: Path) -> None:
    """The skill can be shown, and `man` finds the page beside `bin`."""
    skill = place.spawn(installed / "delegate-job", "skill", "show")
    assert "delegate-job submit" in skill.communicate(timeout=30)[0]
    assert (installed.parent / "share/man/man1/delegate-job.1").is_file()
