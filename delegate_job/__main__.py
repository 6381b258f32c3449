"""Where every command begins and ends: dispatch, and one place that turns an error into lines and a code.

What a command does is not here, and no command exits by itself.
"""

import contextlib
import gc
import io
import os
import sys
from typing import NoReturn

INTERRUPTED = 130
SIGPIPE_CODE = 141
"""What a shell shows for a program that SIGPIPE ended: whoever read our output has gone."""


def main() -> NoReturn:
    """Run the command that `sys.argv` names and end the process with its exit code.

    At once: taking the interpreter apart takes longer (10 to 20 ms) than most commands take. What must be
    written is flushed and closed by then; only daemon threads can be left.
    """
    # Most commands end long before a collection would pay; the owners' loop switches it on again.
    gc.disable()
    code = _main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _main(argv: list[str]) -> int:
    _prepare_streams()
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return SIGPIPE_CODE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as told:
        return told.code if isinstance(told.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the one place that may: no traceback reaches the user
        if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED  # Python 3.11 wraps one that comes while an import makes a class.
        return _explain(_unwritten_stdout() or error, argv)
    return code


def _prepare_streams() -> None:
    """Make the three standard streams what all commands rely on: there, and able to carry any text.

    A stream that was closed is /dev/null: else the first file or socket that is opened would take its number.
    Text is UTF-8 whatever the locale, and the bytes of file names that are not go out as they came in.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # The lowest free number: that of the stream.
            os.set_inheritable(fd, True)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - a descriptor, for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def _unwritten_stdout() -> Exception | None:
    """Return the error to tell when it is our own output that can't be written, on a full disk say."""
    try:
        sys.stdout.flush()
    except OSError as error:
        from delegate_job.errors import DelegateJobError

        _forget_stdout()
        return DelegateJobError(f"standard output cannot be written: {error.strerror}")
    return None


def _end_at_once_when_interrupted() -> None:
    """Let Ctrl-C end the process until an owner hears signals: nothing was made before that.

    KeyboardInterrupt may be lost in a callback of Python's import system, with its lock held for good, so
    that no other thread could import anything (CPython 3.11, `_get_module_lock`).
    """
    from delegate_job.bare import signal

    def leave(_signum: int, _frame: object) -> None:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def _run(argv: list[str]) -> int:
    # `publish` runs at every step of an agent: it must not wait for what the other commands import.
    if argv[:1] == ["publish"]:
        from delegate_job import reporter

        return reporter.main(argv[1:])
    if argv[:1] in (["submit"], ["retry"]):
        _end_at_once_when_interrupted()
    from delegate_job import cli

    return cli.main(argv)


def _explain(error: Exception, argv: list[str]) -> int:
    from delegate_job.errors import DelegateJobError

    if isinstance(error, DelegateJobError):
        _say("error", error.message)
        if error.hint:
            _say("hint", error.hint)
        return error.exit_code
    _say("error", f"a fault in delegate-job itself: {type(error).__name__}: {error}")
    _say(
        "hint",
        f"please report it with {_write_crash(error, argv) or 'what you did: no crash file could be made'}",
    )
    return 70


def _say(label: str, text: str) -> None:
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    with contextlib.suppress(OSError):
        print(f"{label}: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the one place for errors


def _write_crash(error: Exception, argv: list[str]) -> str | None:
    """Write the traceback to a file of mode 0600 in the registry, else in the temporary directory."""
    import tempfile
    import traceback

    for directory in filter(None, (_registry(argv), tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            fd, path = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=directory)
            with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"Python {sys.version}\n")
                file.writelines(traceback.format_exception(error))
            return path
    return None


def _registry(argv: list[str]) -> str:
    from delegate_job.paths import user_directory

    for option, value in zip(argv, [*argv[1:], ""], strict=True):
        if option == "--registry-dir":
            return value
        if option.startswith("--registry-dir="):
            return option.partition("=")[2]
    return os.environ.get("DELEGATE_JOB_REGISTRY_DIR") or str(user_directory("state") or "")


def _forget_stdout() -> None:
    # Else the interpreter tries to write again when it ends, complains, and exits with 120.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
