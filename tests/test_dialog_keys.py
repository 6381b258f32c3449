"""A key is pressed for a dialog that the screen shows, and for nothing else: with a real tmux."""

import sys
from pathlib import Path

import pytest

from delegate_job.agents import ANSWERED_BY_KEYS, dialog_of
from delegate_job.agents.base import Dialog
from delegate_job.dialog_keys import Keyboard, is_shown, note_granted, note_refused
from delegate_job.errors import RegistryError, UsageError
from delegate_job.hook_state import OVER, HookState
from delegate_job.tmux import Tmux
from harness import PATIENCE, Place, wait_until
from panes import LABEL
from samples import job

DIALOG = Dialog(begins="May I run", grants="1. Yes (y)", approve=b"y")
SHOWS = "touch this\nand that"
ASKS = """
import os, sys, tty
tty.setcbreak(0)
print("May I run\\r\\n $ touch this \\r\\n   and that\\r\\n> 1. Yes (y)\\r\\n  2. No (esc)", flush=True)
open(sys.argv[1], "ab").write(os.read(0, 1))
if sys.argv[2] == "goes":
    print("\\033[2J\\033[HGone.", flush=True)
open(sys.argv[1], "ab").write(os.read(0, 1))
"""
CODEX = """
  I ran: rm -rf one
  Would you like to run the following command?

  Reason: It must be written outside.

  $ touch asked && echo a very long line that goes
    on here

> 1. Yes, proceed (y)
  2. Yes, and don't ask again for commands that start with `touch asked` (p)
"""
GEMINI = """
│ ? Shell  touch asked && echo a very …│
│ ╭─────────────────────────────────╮ │
│ │ touch asked && echo a very long │ │
│ │ line that goes on here          │ │
│ ╰─────────────────────────────────╯ │
│ Allow execution of [Shell]?         │
│ ● 1. Allow once                     │
"""
COMMAND = "touch asked && echo a very long line that goes on here"


def asking(place: Place, monkeypatch: pytest.MonkeyPatch, *, then: str = "goes") -> Tmux:
    """Start a program in the session `asks` that asks for leave; its dialog goes with a key, or stays."""
    for name in ("PATH", "HOME", "TMUX_TMPDIR"):
        monkeypatch.setenv(name, place.environ[name])
    argv = [sys.executable, "-c", ASKS, str(place.work / "pressed"), then]
    return Tmux(socket=Tmux(label=LABEL).start_session("asks", argv, pane_log=place.root / "pane.log"))


def pressed(place: Place) -> bytes:
    """Return what the program has read."""
    path = place.work / "pressed"
    return path.read_bytes() if path.exists() else b""


def test_a_key_is_pressed_and_the_dialog_seen_to_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialog is awaited, the key reaches its program, and who comes later presses nothing."""
    monkeypatch.setattr("delegate_job.dialog_keys.SHOWN_WITHIN", PATIENCE)
    monkeypatch.setattr("delegate_job.dialog_keys.GONE_WITHIN", PATIENCE)
    tmux = asking(place, monkeypatch)
    keyboard = Keyboard(tmux, "asks", DIALOG, SHOWS)
    keyboard.await_dialog()
    keyboard.press(b"y")
    assert pressed(place) == b"y"
    with pytest.raises(UsageError, match="answered in its session"):
        keyboard.press(b"\x1b")
    tmux.enter("asks")
    wait_until(lambda: pressed(place) in {b"y\r", b"y\n"}, what="the next key, and no other")


@pytest.mark.parametrize("shows", ["touch that", ""])
def test_another_dialog_gets_no_key(place: Place, monkeypatch: pytest.MonkeyPatch, shows: str) -> None:
    """What the screen shows is not what was told of, or nothing was told that it could show: refused."""
    monkeypatch.setattr("delegate_job.dialog_keys.SHOWN_WITHIN", 0.5)
    tmux = asking(place, monkeypatch)
    wait_until(lambda: "May I run" in (tmux.capture("asks") or ""), what="the dialog")
    with pytest.raises(UsageError, match="no key was pressed") as refused:
        Keyboard(tmux, "asks", DIALOG, shows).await_dialog()
    assert "attach-session" in str(refused.value.hint)
    assert pressed(place) == b""


def test_a_dialog_that_stays_is_no_success(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key after which the dialog is still there is said to be unconfirmed."""
    monkeypatch.setattr("delegate_job.dialog_keys.SHOWN_WITHIN", PATIENCE)
    monkeypatch.setattr("delegate_job.dialog_keys.GONE_WITHIN", 0.5)
    keyboard = Keyboard(asking(place, monkeypatch, then="stays"), "asks", DIALOG, SHOWS)
    keyboard.await_dialog()
    with pytest.raises(RegistryError, match="still there"):
        keyboard.press(b"y")


@pytest.mark.parametrize(("agent", "screen"), [("codex", CODEX), ("gemini", GEMINI)])
def test_a_dialog_is_known_by_its_whole_command(agent: str, screen: str) -> None:
    """Wrapped and framed as it is; not by a part that stands elsewhere, and not without its option."""
    dialog = dialog_of(job(agent=agent).spec)
    assert dialog is not None
    assert is_shown(screen, dialog, COMMAND)
    assert not is_shown(screen, dialog, f"{COMMAND} and on")
    assert not is_shown(screen, dialog, "rm -rf one")
    assert not is_shown(screen.replace(dialog.grants, ""), dialog, COMMAND)
    assert not is_shown("", dialog, COMMAND)
    assert not set(dialog.grants) & set("#{},*?[]'\\")  # it stands in a format of tmux


def test_only_agents_whose_hooks_cannot_answer_have_keys() -> None:
    """Any other agent's dialog, and a program that has such an agent's name by a template, has none."""
    assert {"codex", "gemini"} == ANSWERED_BY_KEYS
    assert dialog_of(job(agent="claude-code").spec) is None
    assert dialog_of(job(agent="codex", command=("x",)).spec) is None


def test_what_was_answered_waits_no_more(tmp_path: Path) -> None:
    """A granted dialog is closed, not the next of its key; a refusal that no hook tells of ends the turn."""
    hooks = HookState(str(tmp_path))
    hooks.open_dialog("key", {"request": "second"})
    note_granted(hooks, "key", "first")
    assert hooks.has_dialog("key", "second")
    note_granted(hooks, "key", "second")
    assert not list(hooks.dialogs())
    hooks.open_dialog("key", {"request": "third"})
    note_refused(hooks, "key", "third")
    assert (list(hooks.dialogs()), hooks.turn().state) == ([], OVER)
