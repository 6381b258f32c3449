"""What the documents show is what the program does: examples are run, references generated and compared."""

import html
import re
import sys
from pathlib import Path

import pytest

from delegate_job.cli import COMMANDS
from harness import COMMAND, Place

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
RUNNABLE = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)
EXAMPLES = {
    f"{page.name}-{number}": block
    for page in PAGES
    for number, block in enumerate(RUNNABLE.findall(page.read_text(encoding="utf-8")), 1)
}


def code(page: Path) -> str:
    """Return the code blocks of a page, one after the other."""
    return "".join(re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


def test_the_readme_has_two_commands() -> None:
    """A newcomer needs `make demo` and `make test`, in this order, and no third."""
    assert re.findall(r"^(make \w+)$", code(ROOT / "README.md"), re.MULTILINE) == ["make demo", "make test"]


def test_the_readme_shows_a_whole_job() -> None:
    """At least one example of the README is run here."""
    assert any(name.startswith("README") for name in EXAMPLES)


def test_the_readme_shows_a_real_run() -> None:
    """Its picture tells the story of the demo, needs no network and names nobody's directory."""
    picture = (ROOT / "docs/demo.svg").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", picture)).replace("\N{NO-BREAK SPACE}", " ")
    story = ("registered job: ", "validation: FAIL (exit 1)", "validation: PASS", "accepted")
    assert [shown.index(line) for line in story] == sorted(shown.index(line) for line in story)
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    )
    assert "/home/" not in shown
    assert "docs/demo.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(place: Place, name: str) -> None:
    """An example that is marked as runnable works as it stands, each line of it."""
    path = f"{COMMAND.parent}:{place.environ['PATH']}"
    shell = place.spawn("bash", "-eu", "-c", EXAMPLES[name], env={"PATH": path})
    said, warned = shell.communicate(timeout=60)
    assert shell.returncode == 0, said + warned


def test_generated_documents_are_fresh(place: Place) -> None:
    """The diagram and table of architecture.md and all of cli.md are what scripts/gen_docs makes today."""
    generator = place.spawn(sys.executable, ROOT / "scripts/gen_docs")
    said, warned = generator.communicate(timeout=90)
    assert generator.returncode == 0, said + warned


def test_every_command_is_documented() -> None:
    """docs/cli.md has a section for each command, and for no other."""
    commands = list(COMMANDS)
    sections = re.findall(r"^## delegate-job (\S+)$", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert commands == sections
    assert {"submit", "publish", "status", "list", "wait", "verify", "logs"} <= set(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of the documents names a file that is there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_dependency_is_explained() -> None:
    """docs/decisions.md says why each dependency is there and why it is pinned as it is."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"].get("optional-dependencies", {}).values()
    required = [
        *project["project"]["dependencies"],
        *(line for extra in extras for line in extra),
        *project["dependency-groups"]["dev"],
    ]
    explained = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    assert [line for line in required if f"`{line}`" not in explained] == []
