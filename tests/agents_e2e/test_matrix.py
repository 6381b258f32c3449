"""The table of docs/agents.md is what these tests run, no more and no less."""

import re
from pathlib import Path

from agents_e2e import matrix


def test_the_table_of_the_docs_is_fresh(repository: Path) -> None:
    """docs/agents.md holds the table as `matrix.table` makes it."""
    assert matrix.table() in (repository / "docs/agents.md").read_text(encoding="utf-8")


def test_every_promise_is_a_test(repository: Path) -> None:
    """Each row names a test that is there, and each test that runs with any agent stands in a row."""
    sources = [
        *(repository / "tests/agents_e2e").glob("test_*.py"),
        repository / "tests/test_claude_hooks.py",
    ]
    found = {
        name: parameters
        for path in sources
        for name, parameters in re.findall(r"^def (test_\w+)\(([^)]*)\)", path.read_text(), re.MULTILINE)
    }
    named = {row.test for row in matrix.ROWS}
    assert named <= set(found)
    assert {name for name, given in found.items() if "agent:" in given} <= named | set(matrix.OTHERWISE)
