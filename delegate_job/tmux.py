"""The tmux verbs that a job needs, each one call with a time limit; plain subprocess.

Nothing about jobs. tmux is never given text that others wrote: only checked names, our own constant command
and our own paths. Facts about tmux were seen with 3.3a (Debian 12) unless another version is named.
"""

import contextlib
import os
import re
import resource
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from delegate_job.errors import NotStartedError
from delegate_job.paths import on_path
from delegate_job.retry import retry_until
from delegate_job.tmux_call import Done, server

PASTE_PAUSE = 0.4
"""Seconds between a paste and its Enter: claude 2.1.330 and codex 0.169 swallow one that comes at once."""
PANE_LOG_LIMIT = 64 * 1024 * 1024
"""Bytes of `pane.log`; what the terminal says after that is on the screen alone."""
FILE_LIMIT = 65536
"""Soft limit of open files for the tmux server: it takes two a pane, and at its limit it dies."""
_PANE = Path(__file__).resolve().with_name("pane.py")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GONE = ("can't find session", "can't find window", "can't find pane")
_LEAVING = re.compile(r"|.*server exited.*|.*lost server.*|no server running on .*")
_LEAVING_TIMEOUT = 1.0
_NO_SERVER = ("no server running on", "error connecting to")
Answer = TypeVar("Answer")
INSTALL = "install tmux 3.0 or newer with your package manager (apt, dnf, apk, brew install tmux)"
"""What to do where it is missing or too old."""
_limit_lock = threading.Lock()


class TmuxError(NotStartedError):
    """tmux could not do it."""


class SessionExistsError(TmuxError):
    """The session's name is taken; `clients` is how many people look at it."""

    def __init__(self, name: str, clients: int, *, hint: str) -> None:
        super().__init__(f"tmux session {name} exists already ({clients} attached)", hint=hint)
        self.clients = clients


class SessionInfo(NamedTuple):
    """A session as tmux sees it. `activity` is the time of the last output, in whole seconds since 1970."""

    pane_pid: int
    dead: bool
    clients: int
    activity: int


def valid_session_name(name: str) -> bool:
    """Return whether tmux takes the name as it is: it would change `.` and `:`, and run `#(…)`."""
    return _NAME.fullmatch(name) is not None


class Tmux:
    """One tmux server: by label (`-L`) until its socket is known, by socket (`-S`) from then on.

    `timeout` bounds each call, in seconds. After a call that ran into it the server is not called for a
    while: that could not be seen, or done, either (`server.answers`).
    """

    def __init__(self, *, label: str = "", socket: str = "", timeout: float = 5.0) -> None:
        self.server = server("-S", socket) if socket else server("-L", label)
        self._timeout = timeout

    @staticmethod
    def missing() -> str | None:
        """Return a sentence when tmux is not on PATH, else None; an old one is refused when it starts."""
        found = on_path("tmux", os.environ.get("PATH", os.defpath))
        return "tmux is not on PATH" if found is None else None

    def start_session(
        self, name: str, argv: Sequence[str], *, pane_log: Path, size: tuple[int, int] = (200, 50)
    ) -> str:
        """Start `argv` in a new session and return the absolute path of the server's socket.

        The server is started if need be. Session, remain-on-exit and log are one call, so that a program that
        dies at once leaves its screen and its log. `size` is columns and rows. SessionExistsError when the
        name is taken, else TmuxError.
        """
        self._check(name, argv)
        _create(pane_log)
        new = ["new-session", "-d", "-P", "-F", "#{version} #{socket_path}", "-s", name]
        new += ["-x", str(size[0]), "-y", str(size[1]), "--", *map(_word, argv)]
        keep = ["set-option", "-w", "-t", f"={name}:", "remain-on-exit", "on"]
        with _raised_file_limit():
            done = self._run_on_a_server_that_stays([*new, ";", *keep, ";", *_log_command(name, pane_log)])
        if done is None or done.returncode:
            raise self._refused(name, _said(done))
        version, _, socket = done.stdout.strip().partition(" ")
        self._refuse_old(version, name)
        return socket

    def _refuse_old(self, version: str, name: str) -> None:
        """Raise TmuxError for a tmux below 3.0; asked with the session: a call of its own costs 5 ms."""
        major = re.match(r"\D*(\d+)", version)
        if major and int(major[1]) < 3:
            self.kill_session(name)
            raise TmuxError(
                f"tmux is {version}, and 3.0 is the oldest that works", hint="install a newer tmux"
            )

    def respawn(self, name: str, argv: Sequence[str], *, pane_log: Path) -> None:
        """Start `argv` in a session's pane, ending what runs there, and go on with the log. TmuxError."""
        self._check(name, argv)
        _create(pane_log)
        respawn = ["respawn-pane", "-k", "-t", _pane(name), "--", *map(_word, argv)]
        self._must([*respawn, ";", *_log_command(name, pane_log)])

    def has_session(self, name: str) -> bool | None:
        """Return whether the session is there; None when that could not be seen.

        A missing socket says nothing: $TMUX_TMPDIR may be another one, or somebody cleaned /tmp.
        """
        return self._look(["has-session", "-t", f"={name}"], found=lambda _: True, default=False)

    def refuse_taken(self, name: str) -> None:
        """Raise SessionExistsError when the session is seen to be there."""
        there = (self.sessions() or {}).get(name)
        if there is not None:
            raise self._taken(name, there.clients)

    def socket_path(self) -> str | None:
        """Return the absolute path of the server's socket; None when it could not be seen."""
        done = self._run(["list-sessions", "-F", "#{socket_path}"])
        return done.stdout.partition("\n")[0] or None if done and not done.returncode else None

    def sessions(self) -> dict[str, SessionInfo] | None:
        """Return all sessions by name, in one call; None when that could not be seen."""
        fields = "pane_pid pane_dead session_attached window_activity window_index pane_index session_name"
        wanted = " ".join(f"#{{{field}}}" for field in fields.split())
        return self._look(
            ["list-panes", "-a", "-F", wanted], found=_parse_panes, default=dict[str, SessionInfo]()
        )

    def capture(self, name: str, *, history: bool = False) -> str | None:
        """Return the screen as text with wrapped lines joined, and the history if asked; None: not seen."""
        lines = ["-S", "-"] if history else []
        done = self._run(["capture-pane", "-p", "-J", "-t", _pane(name), *lines])
        return done.stdout if done and not done.returncode else None

    def paste(self, name: str, text: str) -> None:
        """Paste text into the pane, bracketed where the program asked for that, without Enter. TmuxError.

        Control characters other than newline and tab are dropped: in a terminal they are keys, and one could
        end the bracket.
        """
        printable = _CONTROL_CHARACTERS.sub("", text.replace("\r\n", "\n"))
        self._type(name, printable.encode(errors="replace"), "-p")

    def enter(self, name: str) -> None:
        r"""Press Enter. TmuxError.

        As the byte that the key sends, not by `send-keys`: while somebody scrolls, that goes to copy mode.
        """
        self._type(name, b"\r")

    def press(self, name: str, keys: bytes, *, while_shown: str) -> bool:
        """Type keys if the screen shows these words at that moment; return whether they were. TmuxError.

        The words are our own constant, without `,` and signs of a pattern: tmux's own search looks for them,
        in the same call.
        """
        return self._type(name, keys, while_shown=while_shown)

    def kill_session(self, name: str) -> None:
        """End the session, which hangs up its programs; quiet when it is not there. TmuxError."""
        done = self._run(["kill-session", "-t", f"={name}"])
        if done is None or (done.returncode and not done.stderr.startswith((*_GONE, *_NO_SERVER))):
            raise TmuxError(f"could not end tmux session {name}: {_complaint(done)}")

    def attach_argv(self, name: str) -> list[str]:
        """Return the command with which a person looks at the session; inside a tmux, unset $TMUX for it.

        The target stands in one word with its option: zsh would expand a word that begins with `=`.
        """
        return ["tmux", *self.server.address, "attach-session", f"-t={name}"]

    def remove_argv(self, name: str) -> list[str]:
        """Return the command with which a person removes the session."""
        return ["tmux", *self.server.address, "kill-session", f"-t={name}"]

    def _check(self, name: str, argv: Sequence[str]) -> None:
        if not valid_session_name(name):
            raise TmuxError(
                f"not a session name: {name!r}", hint="1 to 64 letters, digits, dashes and underscores"
            )
        if len(argv) < 2:
            raise ValueError("tmux hands a lone argument to a shell")

    def _taken(self, name: str, clients: int) -> SessionExistsError:
        attach, remove = shlex.join(self.attach_argv(name)), shlex.join(self.remove_argv(name))
        return SessionExistsError(name, clients, hint=f"look at it: {attach}; remove it: {remove}")

    def _refused(self, name: str, why: str) -> TmuxError:
        if why.startswith("duplicate session"):
            there = (self.sessions() or {}).get(name)
            return self._taken(name, there.clients if there else 0)
        if "File name too long" in why:
            return TmuxError(f"tmux: {why}", hint="set TMUX_TMPDIR to a directory with a short path")
        return TmuxError(f"tmux: {why or 'it did not start and did not say why'}")

    def _look(self, args: Sequence[str], *, found: Callable[[str], Answer], default: Answer) -> Answer | None:
        """Return what was found, `default` when the server said that it is not there, else None."""
        done = self._run(args)
        if done is None:
            return None
        if done.returncode == 0:
            return found(done.stdout)
        # Refused at the server's very socket means that it has ended; a label's may be of another directory.
        nobody_listens = self.server.address[0] == "-S" and done.stderr.startswith("no server running on")
        return default if nobody_listens or done.stderr.startswith(_GONE) else None

    def _type(self, name: str, data: bytes, *flags: str, while_shown: str = "") -> bool:
        """Write bytes to the pane by way of a buffer of tmux, unless its program has ended.

        tmux 3.3a itself crashes, with all its sessions, when something is pasted into a dead pane. False when
        `while_shown` is not on the screen.
        """
        buffer = f"dj-{os.urandom(6).hex()}"
        drop, pane = f"delete-buffer -b {buffer}", _pane(name)
        paste = " ".join(["paste-buffer", *flags, "-r", "-d", "-b", buffer, "-t", pane])
        hidden = f"#{{==:#{{C:{while_shown}}},0}}" if while_shown else "0"
        say = f"{drop} ; display-message -p -t {pane} '#{{?pane_dead,dead,hidden}}'"
        guard = ["if-shell", "-F", "-t", pane, f"#{{||:#{{pane_dead}},{hidden}}}", say, paste]
        done = self._run(["load-buffer", "-b", buffer, "-", ";", *guard], data)
        if done is None or done.returncode:
            self._run(drop.split())
            raise TmuxError(f"could not type into tmux session {name}: {_complaint(done)}")
        if done.stdout.strip() == "dead":
            raise TmuxError(f"could not type into tmux session {name}: its program has ended")
        return done.stdout.strip() != "hidden"

    def _must(self, args: Sequence[str]) -> None:
        done = self._run(args)
        if done is None or done.returncode:
            raise TmuxError(f"tmux: {_complaint(done)}")

    def _run_on_a_server_that_stays(self, args: Sequence[str]) -> Done | None:
        """Run a command that starts the server; again while an earlier one is on its way out.

        A server that has lost its last session still takes connections for a moment, and drops them: half of
        the `new-session` that follow a `kill-session` at once fail so, some without a word.
        """
        done = None

        def stays() -> bool:
            nonlocal done
            done = self._run(args)
            return done is None or done.returncode == 0 or not _LEAVING.fullmatch(_said(done))

        retry_until(stays, timeout=_LEAVING_TIMEOUT, interval=0.02)
        return done

    def _run(self, args: Sequence[str], data: bytes = b"") -> Done | None:
        """Return how the call ended; None when it could not be made or took too long, or one did lately."""
        return self.server.call(args, data, timeout=self._timeout)


def _said(done: Done | None) -> str:
    return done.stderr.strip() if done else "it does not answer"


def _complaint(done: Done | None) -> str:
    """Return what went wrong, also of a call that did not say."""
    said = _said(done)
    return said if said or done is None else f"it ended with {done.returncode} and did not say why"


def _pane(name: str) -> str:
    """Return the pane that we started, and not one that a person has opened beside it."""
    return f"={name}:0.0"


def _word(argument: str) -> str:
    """Escape a `;` at the end of an argument: there it would begin the next tmux command."""
    return f"{argument[:-1]}\\;" if argument.endswith(";") else argument


def _create(pane_log: Path) -> None:
    os.close(os.open(pane_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))


def _log_command(name: str, pane_log: Path) -> list[str]:
    """Return the command that copies the pane's output to a file, up to a limit, and on to its recorder.

    The copy needs nothing but `tee`, and goes on without the recorder, which lets the agent start first. tmux
    expands `#` and `%` in the command and hands it to sh. `##` does not escape before `[`, so paths go
    through as octal numbers, in which no character means anything to tmux, to strftime or to a shell.
    """
    recording = pane_log.with_suffix(".cast")
    python = f"{_octal(sys.executable)} -I -S -X utf8 {_octal(_PANE)}"
    record = f"{python} --record {_octal(recording)} #{{pane_width}}x#{{pane_height}} '#{{pane_tty}}'"
    limits = f"umask 077; ulimit -c 0; ulimit -f {PANE_LOG_LIMIT // 512}; trap '' PIPE XFSZ"
    copy = f"{limits}; tee -a {_octal(pane_log)} 2>/dev/null | exec nice -n 5 {record} 2>/dev/null"
    return ["pipe-pane", "-t", _pane(name), copy]


def _octal(path: str | Path) -> str:
    digits = "".join(f"\\{byte:03o}" for byte in os.fsencode(path))
    return f"\"$(printf '{digits}')\""


def _parse_panes(text: str) -> dict[str, SessionInfo]:
    """Return each session's first pane, which is ours."""
    panes: dict[str, tuple[tuple[int, int], SessionInfo]] = {}
    for line in text.splitlines():
        *numbers, name = line.split(" ", 6)
        pid, dead, clients, activity, window, pane = map(int, numbers)
        place = (window, pane)
        if name not in panes or place < panes[name][0]:
            panes[name] = place, SessionInfo(pid, bool(dead), clients, activity)
    return {name: info for name, (_, info) in panes.items()}


@contextlib.contextmanager
def _raised_file_limit() -> Iterator[None]:
    """Raise the soft limit of open files for what is started inside."""
    with _limit_lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        infinite = resource.RLIM_INFINITY
        wanted = FILE_LIMIT if hard == infinite else min(hard, FILE_LIMIT)
        raised = soft != infinite and soft < wanted
        if raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        try:
            yield
        finally:
            if raised:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
