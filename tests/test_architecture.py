import re
from pathlib import Path

import pytest

PAGE = "docs/architecture.md"


@pytest.fixture(scope="session")
def named(repository: Path) -> set[str]:
    """Give the modules that the page's last table names."""
    table = (repository / PAGE).read_text(encoding="utf-8").partition("## Which module does what")[2]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_module_has_its_place_in_the_architecture(repository: Path, named: set[str]) -> None:
    """A module that is new or gone is a line that is missing or stale."""
    package = repository / "delegate_job"
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert named == modules | packages
