"""Help fits a terminal of 80x24, whatever the command, and shows how it is used."""

import shutil
import sys
from pathlib import Path

import pytest

from delegate_job.cli import COMMANDS
from delegate_job.cli_options import Option, Unparsed, parameters
from harness import Place

ROOT = Path(__file__).resolve().parent.parent
SCREEN = {"COLUMNS": "80", "LINES": "24"}


def fits(text: str) -> None:
    """Fail when a screen of 80x24 has no room for the text and the prompt below it."""
    lines = text.splitlines()
    assert len(lines) <= 23, "an option may be `rare`, a description shorter"
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_a_screen(place: Place, name: str) -> None:
    """24 lines of 80 columns, with an example."""
    shown = place.run(name, "--help", env=SCREEN)
    assert (shown.returncode, shown.stderr) == (0, "")
    fits(shown.stdout)
    assert shown.stdout.startswith(f"usage: delegate-job {name}")
    assert f"delegate-job {name}" in shown.stdout.partition("\nexample: ")[2]


def test_the_programs_help_fits_a_screen(place: Place) -> None:
    """It names every command, the ones of every day with what they do; so it does without any word."""
    shown = place.run("--help", env=SCREEN)
    assert shown.returncode == 0
    fits(shown.stdout)
    words = shown.stdout.replace(",", " ").split()
    assert [name for name in COMMANDS if name not in words] == []
    bare = place.run(env=SCREEN)
    assert (bare.stdout or bare.stderr).strip() == shown.stdout.strip()


def test_all_options_are_a_word_away(place: Place) -> None:
    """`submit --help-all` names each option that is not hidden; `--help` says that there are more."""
    shown = place.run("submit", "--help-all", env=SCREEN).stdout
    flags = [each.flags[0] for each in parameters(COMMANDS["submit"]) if each.flags]
    assert [flag for flag in flags if f"{flag} " not in shown.replace("[no-]", "")] == []
    assert "--help-all" in place.run("submit", "--help", env=SCREEN).stdout


def test_only_a_command_with_help_all_leaves_options_out() -> None:
    """No option of another command is `rare`: nothing would show it."""
    for name, command in COMMANDS.items():
        declared = [each for each in parameters(command) if not isinstance(each.form, Unparsed)]
        rare = [each.name for each in declared if isinstance(each.form, Option) and each.form.rare]
        assert not rare or "help_all" in [each.name for each in declared], name


def test_narrow_and_wide_terminals(place: Place) -> None:
    """No line is wider than the terminal, where no single word is."""
    for columns in ("60", "200"):
        shown = place.run("wait", "--help", env={"COLUMNS": columns}).stdout
        assert max(map(len, shown.splitlines())) < int(columns)


def test_the_man_page_is_fresh_and_whole(place: Place) -> None:
    """man/delegate-job.1 is what scripts/gen_man makes today, and has each command."""
    generator = place.spawn(sys.executable, ROOT / "scripts/gen_man")
    said, warned = generator.communicate(timeout=60)
    assert generator.returncode == 0, said + warned
    page = (ROOT / "man/delegate-job.1").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f".SS delegate\\-job {name}\n" not in page] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_man_page_is_right(place: Place) -> None:
    """Groff has nothing to say against it, and shows the options as they are typed."""
    argv = ("groff", "-man", "-Tutf8", "-ww", "-z", ROOT / "man/delegate-job.1")
    formatter = place.spawn(*argv)
    assert (*formatter.communicate(timeout=30), formatter.returncode) == ("", "", 0)
    shown = place.spawn("groff", "-man", "-Tascii", "-P-cbou", ROOT / "man/delegate-job.1").communicate(
        timeout=30
    )[0]
    for words in ("--prompt-file FILE", "--[no-]close", "delegate-job wait", "EXIT STATUS"):
        assert words in shown
