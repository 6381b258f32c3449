"""The demo that newcomers run first: the whole of it, and its check by itself."""

import shutil
import subprocess
import sys
from pathlib import Path

from harness import Place


def test_the_demo_is_rejected_once_and_then_accepted(place: Place, repository: Path) -> None:
    """`make demo` shows progress, a rejection, an acceptance, and leaves the user's registry alone."""
    demo = place.spawn(sys.executable, repository / "examples/demo.py")
    said, warned = demo.communicate(timeout=90)
    assert demo.returncode == 0, said + warned
    assert "adding up 10 orders" in said
    assert said.index("validation: FAIL (exit 1)") < said.index("leaving out refunded orders")
    assert said.index("leaving out refunded orders") < said.index("validation: PASS")
    assert "The demo went well." in said
    assert not place.registry.exists()


def check(work: Path, repository: Path, report: str | None) -> subprocess.CompletedProcess[str]:
    """Run the demo's check on a report.csv of this text."""
    shutil.copy(repository / "examples/orders.csv", work)
    if report is not None:
        (work / "report.csv").write_text(report, encoding="utf-8")
    script = repository / "examples/check_report.sh"
    return subprocess.run(
        [str(script)], cwd=work, capture_output=True, encoding="utf-8", check=False, timeout=10
    )


RIGHT = """\
customer,revenue_cents
Baker & Sons,11200
Clara Ostrom,19400
Harbour Café,18750
Mill Lane School,20400
"""


def test_the_check_accepts_the_right_report(tmp_path: Path, repository: Path) -> None:
    """The right sums pass."""
    assert check(tmp_path, repository, RIGHT).returncode == 0


def test_the_check_names_each_wrong_sum(tmp_path: Path, repository: Path) -> None:
    """A wrong sum, a missing customer and a missing report are rejected, and named."""
    wrong = check(tmp_path, repository, RIGHT.replace("18750", "18751").replace("Clara Ostrom,19400\n", ""))
    assert wrong.returncode == 1
    assert "fault: Harbour Café: expected 18750 cents, report.csv says 18751" in wrong.stdout
    assert "fault: Clara Ostrom: expected 19400 cents, report.csv says nothing" in wrong.stdout
    (tmp_path / "report.csv").unlink()
    missing = check(tmp_path, repository, None)
    assert (missing.returncode, missing.stdout) == (1, "fault: there is no report.csv\n")
