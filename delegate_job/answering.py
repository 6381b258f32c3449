"""Answers to an agent's dialogs, and texts typed into its session: from other terminals, with a receipt.

The dialog's own hook hands an answer on (`hook_answer`) where the agent has one that waits. Elsewhere a key
does, which is pressed by `dialog_keys`, not here.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from delegate_job import dialog_keys, journal, locks
from delegate_job.agents import dialog_of
from delegate_job.agents.base import Dialog as AgentsDialog
from delegate_job.errors import RegistryError, UsageError
from delegate_job.events import Kind
from delegate_job.hook_state import DIALOG, OVER, HookState
from delegate_job.job import JobState
from delegate_job.receipt import press_enter
from delegate_job.registry import Registry
from delegate_job.retry import retry_until
from delegate_job.rows import Row
from delegate_job.tmux import PASTE_PAUSE, Tmux

TAKEN_WITHIN = 5.0
"""Seconds within which a hook that waits takes an answer."""


class Dialog(NamedTuple):
    """A dialog that can be answered: by its hook, which waits, or by a key."""

    path: Path
    request: str
    what: str
    by_key: bool
    shows: str
    questions: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def key(self) -> str:
        """By what the hooks know it."""
        return self.path.name.removeprefix(DIALOG)


def asked(registry: Registry, row: Row) -> str | None:
    """Return what the next answer would be an answer to; None where none can be given from here."""
    dialog = _find(registry, row)
    return dialog and dialog.what


def approve(registry: Registry, row: Row) -> str:
    """Grant what the agent asks leave for; return what that was. UsageError where it cannot be done so."""
    dialog = _dialog(registry, row)
    if dialog.questions:
        raise UsageError(f"job {row.job.id} asks a question: {dialog.what}", hint=_how_to_answer(row, dialog))
    if dialog.by_key:
        return _grant(registry, row, dialog)
    return _answer(registry, row, dialog, Kind.APPROVED)


def deny(registry: Registry, row: Row, reason: str | None) -> str:
    """Refuse what the agent asks for, and tell it why; return what that was. UsageError as `approve`."""
    dialog = _dialog(registry, row)
    if dialog.by_key:
        return _refuse(registry, row, dialog, reason)
    return _answer(registry, row, dialog, Kind.DENIED, text=reason)


def answer(registry: Registry, row: Row, text: str) -> str | None:
    """Answer the agent's question; return it, or None when the text was typed into its session.

    It is typed where the agent has ended its turn and waits; UsageError where neither is possible.
    """
    if not text.strip():
        raise UsageError("there is nothing to answer with")
    dialog = _find(registry, row)
    if dialog is None and row.job.state is JobState.WAITING and _turn_is_over(registry, row):
        type_text(registry, row, text)
        return None
    dialog = dialog or _dialog(registry, row)
    if not dialog.questions:
        raise UsageError(f"job {row.job.id} asks for leave: {dialog.what}", hint=_how_to_answer(row, dialog))
    answers = _answers(dialog, text)
    return _answer(registry, row, dialog, Kind.ANSWERED, text=text, data={"answers": answers})


def _answers(dialog: Dialog, text: str) -> dict[str, str]:
    """Return an answer for each question: a line each, an option's label or number, or words of one's own."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(dialog.questions) == 1:
        lines = [" ".join(lines)]
    if len(lines) != len(dialog.questions):
        raise UsageError(
            f"{len(dialog.questions)} questions are asked, and {len(lines)} lines answer",
            hint=f"one line for each: {dialog.what}",
        )
    asked = zip(dialog.questions, lines, strict=True)
    return {question: _label(labels, line) for (question, labels), line in asked}


def _label(labels: tuple[str, ...], line: str) -> str:
    if line.isdecimal() and 1 <= int(line) <= len(labels):
        return labels[int(line) - 1]
    return next((label for label in labels if label.casefold() == line.casefold()), line)


def _answer(
    registry: Registry,
    row: Row,
    dialog: Dialog,
    kind: Kind,
    *,
    text: str | None = None,
    data: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Write the answer where the hook looks for it, and wait until it was taken."""
    control = registry.paths.job(row.job.id).control
    journal.append_event(control, row.job.id, kind, text, {"request": dialog.request, **data})
    if not retry_until(lambda: not _waits(dialog), timeout=TAKEN_WITHIN, interval=0.05):
        raise RegistryError(
            f"job {row.job.id}: the answer was not taken within {TAKEN_WITHIN:g} s",
            hint=f"look with `delegate-job attach {row.job.id}`",
        )
    return dialog.what


# -- by a key


def _grant(registry: Registry, row: Row, dialog: Dialog) -> str:
    keyboard, keys = _keyboard(row, dialog)
    keyboard.await_dialog()
    _note(registry, row, Kind.APPROVED, dialog)
    # Before what the agent makes of it, as for a text: it works again, and says so when the tool has ended.
    _note(registry, row, Kind.SENT, dialog, "a key that grants it")
    keyboard.press(keys.approve)
    dialog_keys.note_granted(_hooks(registry, row), dialog.key, dialog.request)
    return dialog.what


def _refuse(registry: Registry, row: Row, dialog: Dialog, reason: str | None) -> str:
    """Refuse with a key, which ends the agent's turn, and say why in a text, with which it goes on."""
    keyboard, keys = _keyboard(row, dialog)
    keyboard.await_dialog()
    _note(registry, row, Kind.DENIED, dialog, reason)
    keyboard.press(keys.deny)
    dialog_keys.note_refused(_hooks(registry, row), dialog.key, dialog.request)
    text = f"I said no to this: {dialog.what}. {reason or 'Go on without it.'}"
    if type_text(registry, row, text) is False:
        raise RegistryError(
            f"job {row.job.id}: it was refused; that the agent has read why is not confirmed",
            hint=f"look with `delegate-job attach {row.job.id}`",
        )
    return dialog.what


def _keyboard(row: Row, dialog: Dialog) -> tuple[dialog_keys.Keyboard, AgentsDialog]:
    keys = dialog_of(row.job.spec)
    if keys is None or not row.tmux_socket:
        raise UsageError(f"job {row.job.id} has no session in which a key could be pressed")
    tmux = Tmux(socket=row.tmux_socket)
    return dialog_keys.Keyboard(tmux, row.job.spec.session, keys, dialog.shows), keys


def _note(registry: Registry, row: Row, kind: Kind, dialog: Dialog, text: str | None = None) -> None:
    control = registry.paths.job(row.job.id).control
    journal.append_event(control, row.job.id, kind, text, {"request": dialog.request})


def _hooks(registry: Registry, row: Row) -> HookState:
    return HookState(str(registry.paths.job(row.job.id).agent))


# -- which


def _dialog(registry: Registry, row: Row) -> Dialog:
    found = _find(registry, row)
    if found is not None:
        return found
    job = row.job
    if job.state is JobState.WAITING and _turn_is_over(registry, row):
        raise UsageError(
            f"job {job.id} asks for no leave: the agent has ended its turn and waits to be told what to do",
            hint=f"delegate-job send {job.id} TEXT",
        )
    if job.state is JobState.WAITING:
        raise UsageError(
            f"job {job.id} waits for a person, but not in a dialog that can be answered from here",
            hint=_how_to_answer(row, None),
        )
    raise UsageError(f"job {job.id} asks for nothing: it is {job.outcome or job.state}")


def _find(registry: Registry, row: Row) -> Dialog | None:
    """Return the dialog that waits longest with a hook that waits for its answer: the one on the screen."""
    if row.job.done:
        return None
    for path, told in _hooks(registry, row).dialogs():
        request, what = str(told.get("request")), str(told.get("what") or "")
        shows, questions = str(told.get("shows") or ""), _questions(told.get("question"))
        dialog = Dialog(Path(path), request, what, not told.get("waits"), shows, questions)
        if dialog_of(row.job.spec) if dialog.by_key else _waits(dialog):
            return dialog
    return None


def _how_to_answer(row: Row, dialog: Dialog | None) -> str:
    """Return the hint that names the command with which this is answered."""
    if dialog is None:
        return f"answer it with `delegate-job attach {row.job.id}`"
    if dialog.questions:
        return f"delegate-job answer {row.job.id} TEXT"
    return f"delegate-job approve {row.job.id}, or deny it"


def _questions(asked: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(asked, list):
        return ()
    return tuple((str(question), tuple(map(str, labels))) for question, labels in asked)


def _waits(dialog: Dialog) -> bool:
    return dialog.path.exists() and locks.is_held(dialog.path)


def _turn_is_over(registry: Registry, row: Row) -> bool:
    state = _hooks(registry, row)
    return state.turn().state == OVER and not list(state.dialogs())


# -- typing


def type_text(registry: Registry, row: Row, text: str) -> bool | None:
    """Paste a text into a job's session and press Enter; record that it was sent.

    Return whether the agent told of a new prompt; None for one that tells of none. UsageError when there is
    nobody to read it, or a dialog is open that would take it for an answer.
    """
    spec, state = row.job.spec, row.job.state
    if not text.strip():
        raise UsageError("there is nothing to send")
    if not spec.session or not row.tmux_socket or state not in {JobState.RUNNING, JobState.WAITING}:
        raise UsageError(
            f"job {row.job.id} has no agent that listens: it is {row.job.outcome or state}",
            hint=f"`delegate-job retry {row.job.id}` gives its task to a new agent" if row.job.done else None,
        )
    paths = registry.paths.job(row.job.id)
    hooks = HookState(str(paths.agent))
    asks = row.job.last_event == Kind.PERMISSION_REQUIRED and not _turn_is_over(registry, row)
    if (state is JobState.WAITING and asks) or list(hooks.dialogs()):
        raise UsageError(
            f"job {row.job.id} waits for an answer, and what is typed now would be taken for it",
            hint=_how_to_answer(row, _find(registry, row)),
        )
    tmux = Tmux(socket=row.tmux_socket)
    before = hooks.turn().number
    # Its first character must be a letter: to some agents `!` and `/` begin a command.
    tmux.paste(spec.session, f"A message from your user: {text}")
    time.sleep(PASTE_PAUSE)  # An Enter that comes at once is swallowed.
    # Before what the agent makes of it: `sent` says that it works again.
    journal.append_event(paths.control, row.job.id, Kind.SENT, text)
    return press_enter(lambda: tmux.enter(spec.session), hooks, before)
