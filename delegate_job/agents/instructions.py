"""What an agent is told: the instructions around the task, and the message after a rejection.

Not how the text reaches the agent; that is each agent's argv, or a paste into its session.

Texts are UTF-8; other bytes are kept as lone surrogates (`surrogateescape`), so that a task of any bytes
survives. Our own words are ASCII, stand first, and begin with a letter: to some agents a text that begins
with `!` or `/` is a command.
"""

import os
import shlex
import sys
from pathlib import Path

from delegate_job.errors import UsageError
from delegate_job.events import Kind
from delegate_job.job import JobSpec, Verdict
from delegate_job.own_program import own_program
from delegate_job.paths import absolute

ARGUMENT_LIMIT = 128 * 1024 - 1
"""The most bytes of one argument: Linux's MAX_ARG_STRLEN (execve(2): 32 pages of 4 KiB) less the NUL."""

_OUTPUT_LINES = 60
_OUTPUT_CHARACTERS = 3000
_LINE_CHARACTERS = 500

_WHEN: tuple[tuple[Kind, str, str], ...] = (
    (Kind.STARTED, "", "once, before anything else"),
    (Kind.PROGRESS, "what you have done", "after each step worth knowing of"),
    (Kind.PERMISSION_REQUIRED, "what you need", "before you wait for a person's permission or answer"),
    (Kind.RESUMED, "", "when you go on after such a wait"),
    (Kind.COMPLETED, "what was done", "once, when the whole task is done: this ends the job"),
    (Kind.ERROR, "why it cannot be done", "once, when you cannot do the task: this ends the job as failed"),
)


def prompt_text(raw: bytes) -> str:
    """Return the task as text, without losing a byte.

    Raises UsageError when it is empty, only white space, or holds a NUL, which no argument can carry.
    """
    if b"\0" in raw:
        raise UsageError(
            f"the prompt holds a NUL byte (at offset {raw.index(0)})",
            hint="no program can be given one as an argument; remove it",
        )
    if not raw.strip():
        raise UsageError("the prompt is empty", hint="say what is to be done with --prompt or --prompt-file")
    return raw.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the bytes of a text made here, with those of the task as they came."""
    return text.encode("utf-8", "surrogateescape")


def publish_argv(registry_dir: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Return the command that reports, with absolute paths, so that no PATH is needed.

    A login shell may reset PATH (Debian's /etc/profile does, and codex 0.169 runs `bash -lc`). Without the
    script beside this interpreter it is the module.
    """
    script = Path(sys.executable).with_name("delegate-job")
    program = (str(script),) if os.access(script, os.X_OK) else own_program()
    registry = () if registry_dir is None else ("--registry-dir", absolute(registry_dir))
    return (*program, "publish", *registry)


def report_command(publish: tuple[str, ...], job_id: str) -> str:
    """Return the beginning, quoted for a shell, that every report command of a job has."""
    return f"{shlex.join(publish)} --job {shlex.quote(job_id)}"


def compose(
    spec: JobSpec,
    *,
    prompt: str,
    publish_argv: tuple[str, ...],
    log_dir: str,
    rejection: str | None = None,
    attempt: int = 0,
) -> str:
    """Return all that an agent is told; it ends with the task, byte for byte.

    `attempt` is the number of checks begun so far; `rejection`, on a launch after a rejection, is the end of
    the last check's output.
    """
    parts = [
        _header(spec, log_dir),
        _reports(publish_argv, spec.id),
        _check(spec, attempt),
    ]
    if rejection is not None:
        parts.append(_rejected_before(spec, attempt, rejection))
    parts.append("The task, from the next line to the end of this text:\n")
    return "\n".join(part for part in parts if part) + prompt


def as_argument(text: str, path: str | os.PathLike[str], *, job_id: str) -> str:
    """Return `text` if it fits into one argument, else a short text that sends the reader to `path`."""
    if len(to_bytes(text)) <= ARGUMENT_LIMIT:
        return text
    return (
        f"This is delegate-job, job {job_id}. What you are to do is too long for a command line. "
        f"Read the file {shlex.quote(os.fspath(path))} in full, to its last line, and do what it says."
    )


def reminder(spec: JobSpec, publish_argv: tuple[str, ...]) -> str:
    """Return what an agent's stop hook says when a turn ends without a report."""
    return (
        f"This is delegate-job, job {spec.id}. Your turn ends and nothing was reported in it: the job stays "
        "open. If the whole task is done, run this command, with your own words after --detail:\n"
        f"{_line(publish_argv, spec.id, Kind.COMPLETED)}\n"
        "If it cannot be done:\n"
        f"{_line(publish_argv, spec.id, Kind.ERROR)}\n"
        "If you need a person's answer first:\n"
        f"{_line(publish_argv, spec.id, Kind.PERMISSION_REQUIRED)}\n"
        "If there is more to do, go on with it. You are asked this once."
    )


def rejection_message(
    spec: JobSpec,
    *,
    attempt: int,
    verdict: Verdict,
    exit_code: int | None,
    output: str,
    publish_argv: tuple[str, ...],
) -> str:
    """Return what a running agent is told after the check number `attempt` rejected its work.

    One paste into its session: the output in it is bounded and has no control characters.
    """
    return (
        f"This is delegate-job, job {spec.id}. Your work was checked and is not accepted: "
        f"check {attempt} of {spec.attempts} {_result(verdict, exit_code)}.\n"
        f"{_quoted(output)}"
        f"Find the cause, mend the work, and then report again:\n"
        f"{_line(publish_argv, spec.id, Kind.COMPLETED)}\n"
        f"If it cannot be done:\n"
        f"{_line(publish_argv, spec.id, Kind.ERROR)}\n"
        f"{_left(spec, attempt)}"
    )


def _header(spec: JobSpec, log_dir: str) -> str:
    return (
        f"This is delegate-job. You are given one job; its id is {spec.id}.\n"
        "The id is new, made for this launch. Use no other: none found in files, notes or earlier talk.\n"
        f"Work in {_plain(spec.workdir)}. Change nothing below {_plain(log_dir)}: the log is kept there.\n"
        f"{_branch(spec)}"
    )


def _branch(spec: JobSpec) -> str:
    if spec.worktree is None:
        return ""
    return f"It is a git worktree of your own, on the new branch {_plain(spec.worktree.branch)}.\n"


def _reports(publish: tuple[str, ...], job_id: str) -> str:
    commands = "\n".join(f"- {when}:\n{_line(publish, job_id, kind)}" for kind, _, when in _WHEN)
    return (
        "Report by running these commands; put your own words between the quotes after --detail.\n"
        f"{commands}\n"
        "Only `completed` or `error` ends the job; without one of them it stays open, good work or not.\n"
        'A command that prints "recorded" was heard; do not repeat it. '
        "If a sandbox keeps it from writing, ask for permission to run it outside.\n"
    )


def _line(publish: tuple[str, ...], job_id: str, kind: Kind) -> str:
    detail = next(detail for each, detail, _ in _WHEN if each is kind)
    tail = f" --detail {shlex.quote(detail)}" if detail else ""
    return f"    {report_command(publish, job_id)} --event {kind}{tail}"


def _check(spec: JobSpec, attempt: int) -> str:
    if spec.validate is None:
        return ""
    return (
        "After `completed` the owner's own check judges the work, outside this session. Your word is not "
        "enough: report it when the work is really done, then stay for the answer.\n"
        f"{_left(spec, attempt)}\n"
    )


def _left(spec: JobSpec, attempt: int) -> str:
    left = max(spec.attempts - attempt, 0)
    return f"Checks left: {left} of {spec.attempts}." + (" It is the last one." if left == 1 else "")


def _rejected_before(spec: JobSpec, attempt: int, output: str) -> str:
    return (
        f"You are started again within this job, because check {attempt} of {spec.attempts} did not accept "
        f"the work so far. It is still in the work dir: look at it, do not begin anew.\n{_quoted(output)}"
    )


def _result(verdict: Verdict, exit_code: int | None) -> str:
    if verdict is Verdict.TIMED_OUT:
        return "ran out of time"
    return "failed" if exit_code is None else f"failed with exit code {exit_code}"


def _quoted(output: str) -> str:
    """Return the end of a check's output, each line marked: no line of it can pass for a word of ours."""
    lines = _plain(output[-_OUTPUT_CHARACTERS:], keep="\n").strip("\n").split("\n")[-_OUTPUT_LINES:]
    if lines == [""]:
        return "It printed nothing.\n"
    marked = "".join(f"  | {line[:_LINE_CHARACTERS]}\n" for line in lines)
    return f"The end of what it printed:\n{marked}"


def _plain(text: str, *, keep: str = "") -> str:
    """Return the text without control characters: an escape could end a paste, or move the cursor."""
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c if c in keep or c.isprintable() else "?" for c in text)
