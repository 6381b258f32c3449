"""The tmux verbs against real servers of their own."""

import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegate_job import tmux as tmux_module
from delegate_job import tmux_call
from delegate_job.tmux import SessionExistsError, Tmux, TmuxError, valid_session_name
from harness import Place, wait_until
from panes import LABEL

HOSTILE = (
    "$(touch X)",
    "`touch X`",
    "#(touch X)",
    "#{pid} #[fg=red] ##[x] #S",
    "%H %% %n",
    'it\'s "quoted" \\ here',
    " spaces  and\ttabs ",
    "new\nline",
    "ends;",
    "ends\\;",
    "-leading",
    "~ * ? [a] {b} & | < >",
    "ünïcödé 漢",
    os.fsdecode(b"\xff\xfe not utf-8"),
)

ODD_NAMES = [name for name in HOSTILE if name != "-leading"]


@pytest.fixture
def tmux(place: Place, monkeypatch: pytest.MonkeyPatch) -> Tmux:
    """Give a server of the test's own, by label; it starts with the first session."""
    for name in ("PATH", "HOME", "TMUX_TMPDIR"):
        monkeypatch.setenv(name, place.environ[name])
    return Tmux(label=LABEL)


@pytest.fixture
def log(place: Place) -> Path:
    """Give a path for the pane's log."""
    return place.root / "pane.log"


def run(tmux: Tmux, name: str, script: str, log: Path) -> Tmux:
    """Start a script in a session; return the server by its socket."""
    return Tmux(socket=tmux.start_session(name, ["sh", "-c", script], pane_log=log))


def ask(tmux: Tmux, *args: str) -> str:
    """Ask tmux itself what this module has no verb for."""
    argv = ["tmux", *tmux.attach_argv("x")[1:3], *args]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def server_pid(tmux: Tmux) -> int:
    """Return the process id of the server."""
    return int(ask(tmux, "display-message", "-p", "#{pid}"))


@pytest.fixture
def stopped(tmux: Tmux, log: Path) -> Iterator[Tmux]:
    """Give a server that has a session `here` and does not answer."""
    server = Tmux(socket=run(tmux, "here", "exec sleep 60", log).attach_argv("x")[2], timeout=0.5)
    pid = server_pid(server)
    os.kill(pid, signal.SIGSTOP)
    yield server
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("name", ["a", "job-1", "A_b-9", "-leading", "x" * 64])
def test_plain_names_are_taken(name: str) -> None:
    """What tmux neither changes nor expands is a session name."""
    assert valid_session_name(name)


@pytest.mark.parametrize("name", ["", "a.b", "a:b", "a b", "x" * 65, "a\n", "ü", "=a", "a*", *ODD_NAMES])
def test_other_names_are_refused_before_tmux_sees_them(
    tmux: Tmux, log: Path, name: str, place: Place
) -> None:
    """A label that tmux would change, match or execute is an error, and starts nothing."""
    with pytest.raises(TmuxError, match="not a session name"):
        tmux.start_session(name, ["sleep", "60"], pane_log=log)
    assert place.tmux_sockets() == []
    assert not list(place.root.rglob("X"))


def test_a_session_has_an_absolute_socket_and_a_size(tmux: Tmux, log: Path) -> None:
    """F21: the pane is born with the size that was asked for, and its server is known by its socket."""
    server = run(tmux, "job-1", "stty size; sleep 60", log)
    assert Path(server.attach_argv("job-1")[2]).is_absolute()
    wait_until(lambda: "50 200" in (server.capture("job-1") or ""))
    assert server.has_session("job-1") is True


def test_a_program_that_dies_at_once_leaves_its_session(tmux: Tmux, place: Place) -> None:
    """Instant death, twenty times: each session is there, dead, with its log file."""
    names = [f"job-{number}" for number in range(20)]
    for name in names:
        server = run(tmux, name, "exit 3", place.root / f"{name}.log")
    wait_until(lambda: all(session.dead for session in (server.sessions() or {}).values()))
    assert sorted(server.sessions() or {}) == sorted(names)
    assert all((place.root / f"{name}.log").exists() for name in names)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_log_is_written_where_it_should_be(tmux: Tmux, place: Place, name: str) -> None:
    """A registry path with anything in it is a path and nothing else, to tmux, strftime and sh; mode 0600."""
    directory = place.root / name
    directory.mkdir()
    run(tmux, "job-1", "echo logged; sleep 60", directory / "pane.log")
    wait_until(lambda: (directory / "pane.log").read_text() == "logged\n")
    assert (directory / "pane.log").stat().st_mode & 0o777 == 0o600
    assert not list(place.root.rglob("X"))


def test_arguments_arrive_as_they_are(tmux: Tmux, place: Place, log: Path) -> None:
    """No argument is executed, expanded or taken for a tmux command, also not one with `;` at its end."""
    out = place.root / "out"
    script = 'printf "%s\\0" "$@" > "$0.part"; mv "$0.part" "$0"; sleep 60'
    tmux.start_session("job-1", ["sh", "-c", script, str(out), *HOSTILE], pane_log=log)
    wait_until(out.exists)
    assert out.read_bytes().split(b"\0")[:-1] == [os.fsencode(argument) for argument in HOSTILE]
    assert not list(place.root.rglob("X"))


def test_a_lone_argument_is_our_own_mistake(tmux: Tmux, log: Path) -> None:
    """Tmux would hand it to a shell, so it never gets it."""
    with pytest.raises(ValueError, match="shell"):
        tmux.start_session("job-1", ["touch X"], pane_log=log)


def test_f13_a_name_is_no_prefix_and_no_pattern(tmux: Tmux, log: Path) -> None:
    """`job-1` never means `job-12`."""
    server = run(tmux, "job-12", "exec sleep 60", log)
    assert server.has_session("job-1") is False
    assert server.capture("job-1") is None
    server.kill_session("job-1")
    with pytest.raises(TmuxError):
        server.paste("job-1", "text")
    assert server.has_session("job-12") is True


def test_a_taken_name_says_who_looks_and_how_to_remove_it(tmux: Tmux, log: Path) -> None:
    """A second session of a name is refused; the first keeps its settings; attached clients are counted."""
    server = run(tmux, "job-1", "exec sleep 60", log)
    with pytest.raises(SessionExistsError) as refused:
        server.start_session("job-1", ["sleep", "1"], pane_log=log.with_name("other.log"))
    assert refused.value.clients == 0
    assert "kill-session -t=job-1" in (refused.value.hint or "")
    client, terminal = pty.fork()
    if not client:
        environ = {**os.environ, "TERM": "xterm"}
        os.execvpe("tmux", server.attach_argv("job-1"), environ)  # noqa: S606 - without a shell, as users do
    try:
        wait_until(lambda: (server.sessions() or {})["job-1"].clients == 1)
        with pytest.raises(SessionExistsError) as refused:
            server.start_session("job-1", ["sleep", "1"], pane_log=log)
        assert refused.value.clients == 1
    finally:
        os.kill(client, signal.SIGTERM)
        os.close(terminal)
        os.waitpid(client, 0)
    assert not (log.with_name("other.log").read_text())


def test_f11_another_tmux_tmpdir_never_reads_as_gone(
    tmux: Tmux, log: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks for a label in the wrong directory could not look; the socket's own path still answers."""
    server = run(tmux, "job-1", "exec sleep 60", log)
    other = place.root / "t" / "other"
    other.mkdir()
    monkeypatch.setenv("TMUX_TMPDIR", str(other))
    assert tmux.has_session("job-1") is None
    assert tmux.sessions() is None
    # A socket left behind there by an earlier server changes nothing.
    run(tmux, "elsewhere", "exec sleep 60", log)
    ask(tmux, "kill-server")
    assert tmux.has_session("job-1") is None
    assert tmux.sessions() is None
    assert server.has_session("job-1") is True


def test_f12_a_hung_tmux_is_unknown_within_the_time_limit(stopped: Tmux) -> None:
    """A server that does not answer holds nobody up and is not taken for gone."""
    began = time.monotonic()
    assert stopped.has_session("here") is None
    assert stopped.sessions() is None
    assert stopped.capture("here") is None
    with pytest.raises(TmuxError, match="does not answer"):
        stopped.paste("here", "text")
    with pytest.raises(TmuxError, match="does not answer"):
        stopped.kill_session("here")
    assert time.monotonic() - began < 10


def test_a_server_that_has_ended_is_gone(tmux: Tmux, log: Path) -> None:
    """When nobody listens at a server's own socket, its sessions are gone, and ending them is quiet."""
    server = run(tmux, "job-1", "exec sleep 60", log)
    os.kill(pid := server_pid(server), signal.SIGKILL)
    wait_until(lambda: server.has_session("job-1") is False, what=f"end of {pid}")
    assert server.sessions() == {}
    server.kill_session("job-1")


def test_f17_the_server_keeps_no_secret_of_who_started_it(
    tmux: Tmux, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the server nor a later pane has the environment of the first caller."""
    monkeypatch.setenv("MY_SECRET", "hunter2")
    monkeypatch.setenv("TMUX", "/nowhere,1,0")
    server = run(tmux, "job-1", "env; sleep 60", log)
    environ = Path(f"/proc/{server_pid(server)}/environ").read_bytes()
    assert b"hunter2" not in environ + ask(server, "show-environment", "-g").encode()
    wait_until(lambda: "TMUX_PANE" in log.read_text())
    assert "hunter2" not in log.read_text()


def test_the_users_own_tmux_settings_are_not_read(tmux: Tmux, log: Path, place: Place) -> None:
    """A `.tmux.conf` with commands in it is neither run nor heeded."""
    (place.home / ".tmux.conf").write_text(f"run-shell 'touch {place.root}/X'\nset -g base-index 7\n")
    server = run(tmux, "job-1", "exec sleep 60", log)
    assert ask(server, "show-options", "-gv", "base-index") == "0"
    assert ask(server, "show-options", "-gv", "history-limit") == "10000"
    assert not (place.root / "X").exists()


def test_the_server_gets_room_for_many_panes(tmux: Tmux, log: Path) -> None:
    """Its soft limit of open files is raised before it starts; ours is as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = run(tmux, "job-1", "exec sleep 60", log)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{server_pid(server)}/limits").read_text()
    found = re.search(r"Max open files\s+(\d+)", limits)
    assert found
    assert int(found[1]) == min(hard, tmux_module.FILE_LIMIT)


def test_pasted_text_arrives_and_enter_is_enter(tmux: Tmux, log: Path, place: Place) -> None:
    """Several lines with anything in them come byte for byte; control characters, which are keys, do not."""
    text = "first; $(touch X) `touch X` #(touch X) %H -x 漢 \t tab\n!ls\n/help\na;"
    script = f"cd {place.work}; stty -echo; echo ready; head -n 4 > part; mv part out; exec sleep 60"
    run(tmux, "job-1", script, log)
    wait_until(lambda: "ready" in (tmux.capture("job-1") or ""))
    tmux.paste("job-1", text.replace("\n", "\r\n") + "\x03\x1b[201~\x00\x7f\x9b")
    tmux.enter("job-1")
    wait_until((place.work / "out").exists)
    assert (place.work / "out").read_text() == text + "[201~\n"
    assert not list(place.root.rglob("X"))


def test_a_long_paste_is_bracketed_and_whole(tmux: Tmux, log: Path, place: Place) -> None:
    """100 KB reach a program that reads raw keys, between the marks that it asked for, then Enter."""
    program = (
        "import os,sys,tty; tty.setraw(0); os.write(1, b'\\x1b[?2004hready'); got=b''\n"
        "while not got.endswith(b'\\r'): got+=os.read(0,65536)\n"
        f"open({str(place.work / 'part')!r},'wb').write(got); os.rename({str(place.work / 'part')!r},"
        f"{str(place.work / 'out')!r}); import time; time.sleep(60)"
    )
    server = Tmux(socket=tmux.start_session("job-1", [sys.executable, "-c", program], pane_log=log))
    wait_until(lambda: "ready" in (server.capture("job-1") or ""))
    text = "\n".join(f"line {number} " + "x" * 90 for number in range(1000))
    server.paste("job-1", text)
    server.enter("job-1")
    wait_until((place.work / "out").exists)
    assert (place.work / "out").read_bytes() == b"\x1b[200~" + text.encode() + b"\x1b[201~\r"


def test_typing_reaches_the_program_while_somebody_scrolls_or_works_beside_it(
    tmux: Tmux, log: Path, place: Place
) -> None:
    """Copy mode does not swallow the text, and a window or pane that a person opened does not get it."""
    script = f'cd {place.work}; stty -echo; read line; echo "$line" > part; mv part out; exec sleep 60'
    server = run(tmux, "job-1", f"echo ready; {script}", log)
    wait_until(lambda: "ready" in (server.capture("job-1") or ""))
    ask(server, "copy-mode", "-t", "=job-1:")
    ask(server, "split-window", "-t", "=job-1:", "cat")
    ask(server, "new-window", "-t", "=job-1:", "cat")
    server.paste("job-1", "to the agent")
    server.enter("job-1")
    wait_until((place.work / "out").exists)
    assert (place.work / "out").read_text() == "to the agent\n"
    ours = ask(server, "display-message", "-p", "-t", "=job-1:0.0", "#{pane_pid}")
    assert (server.sessions() or {})["job-1"].pane_pid == int(ours)


def test_pasting_into_a_dead_pane_is_an_error_and_hurts_nobody(tmux: Tmux, log: Path) -> None:
    """A tmux 3.3a that is asked to do this crashes with all its sessions: it is not asked."""
    server = run(tmux, "alive", "exec sleep 60", log)
    run(server, "dead", "exit 0", log)
    wait_until(lambda: (server.sessions() or {})["dead"].dead)
    with pytest.raises(TmuxError, match="has ended"):
        server.paste("dead", "text")
    with pytest.raises(TmuxError, match="has ended"):
        server.enter("dead")
    assert server.has_session("alive") is True


def test_what_could_not_be_pasted_is_not_kept(tmux: Tmux, log: Path) -> None:
    """No buffer with somebody's text stays in the server."""
    server = run(tmux, "job-1", "exit 0", log)
    wait_until(lambda: (server.sessions() or {})["job-1"].dead)
    for name in ("job-1", "no-such"):
        with pytest.raises(TmuxError):
            server.paste(name, "secret text")
    assert ask(server, "list-buffers") == ""


def test_the_screen_is_text_and_the_history_too(tmux: Tmux, log: Path) -> None:
    """A wrapped line is one line; what has scrolled away is there when asked for."""
    server = run(tmux, "job-1", "seq 300; printf 'w%.0s' $(seq 450); echo; echo end; exec sleep 60", log)
    wait_until(lambda: "end" in (server.capture("job-1") or ""))
    screen, history = server.capture("job-1"), server.capture("job-1", history=True)
    assert screen is not None
    assert history is not None
    assert "w" * 450 in screen
    assert "\n17\n" not in screen
    assert "\n17\n" in history


def test_respawn_replaces_the_program_and_goes_on_with_the_log(tmux: Tmux, log: Path) -> None:
    """The second program runs in the same session, and what it says follows in the same file."""
    server = run(tmux, "job-1", "echo first", log)
    wait_until(lambda: (server.sessions() or {})["job-1"].dead)
    wait_until(lambda: "first" in log.read_text())
    server.respawn("job-1", ["sh", "-c", "echo second; sleep 60"], pane_log=log)
    wait_until(lambda: "second" in log.read_text())
    assert log.read_text().startswith("first")
    assert (server.sessions() or {})["job-1"].dead is False
    with pytest.raises(TmuxError):
        server.respawn("no-such", ["sh", "-c", "exit"], pane_log=log)


def test_the_log_is_capped_and_the_program_goes_on(
    tmux: Tmux, log: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that never stops talking fills the file to its limit and no further."""
    monkeypatch.setattr(tmux_module, "PANE_LOG_LIMIT", 256 * 1024)
    server = run(tmux, "job-1", "seq 100000; echo done; exec sleep 60", log)
    wait_until(lambda: "done" in (server.capture("job-1") or ""), 30)
    wait_until(lambda: log.stat().st_size >= 256 * 1024, what="a full log")
    # What copies the output ends with the session, when it has read everything.
    assert any("tee" in process.command for process in place.processes())
    server.kill_session("job-1")
    wait_until(lambda: not place.processes(), what="the end of the copy")
    assert log.stat().st_size == 256 * 1024
    assert not list(log.parent.glob("*core*"))


def test_a_socket_path_that_is_too_long_says_what_to_do(
    tmux: Tmux, log: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket's path has room for about 100 bytes: the hint names TMUX_TMPDIR."""
    deep = place.root / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMUX_TMPDIR", str(deep))
    with pytest.raises(TmuxError) as refused:
        tmux.start_session("job-1", ["sleep", "60"], pane_log=log)
    assert "TMUX_TMPDIR" in (refused.value.hint or "")
    assert refused.value.exit_code == 7


def test_a_missing_or_old_tmux_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tmux, and one before 3.0, is a sentence; the one that is installed is none."""
    assert Tmux.missing() is None
    old = place.root / "bin"
    old.mkdir()
    monkeypatch.setenv("PATH", f"{old}")
    assert Tmux.missing() == "tmux is not on PATH"
    (old / "tmux").write_text("#!/bin/sh\necho 2.9a /tmp/socket\n")
    (old / "tmux").chmod(0o755)
    with pytest.raises(TmuxError, match=r"2\.9a"):
        Tmux(label="old").start_session("job", ["sleep", "1"], pane_log=place.root / "pane.log")


def test_calls_that_nobody_waits_for_are_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends leaves no client behind that waits for an answer; the call is one that took too long."""
    bin_dir = place.root / "bin"
    bin_dir.mkdir()
    (bin_dir / "tmux").write_text("#!/bin/sh\nexec sleep 600\n")
    (bin_dir / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:{place.environ['PATH']}")
    monkeypatch.setenv("HOME", str(place.home))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Tmux(label="silent", timeout=60).sessions)
        wait_until(lambda: tmux_call._running, what="the call, as its thread knows it")
        wait_until(lambda: any(each.command == "sleep 600" for each in place.processes()), what="the call")
        tmux_call.give_up()
        assert answer.result(30) is None
    assert place.processes() == []


def test_many_starts_at_once_share_one_server(tmux: Tmux, place: Place) -> None:
    """Twenty callers that all find no server end up with one, and each with its session."""

    def begin(number: int) -> str:
        return tmux.start_session(f"job-{number}", ["sleep", "60"], pane_log=place.root / f"{number}.log")

    with ThreadPoolExecutor(10) as pool:
        sockets = set(pool.map(begin, range(20)))
    assert len(sockets) == 1
    assert len(Tmux(socket=sockets.pop()).sessions() or {}) == 20


@pytest.mark.parametrize("words", ["", "server exited unexpectedly", "no server running on /tmp/tmux-0/x"])
def test_a_session_is_started_while_an_earlier_server_ends(
    place: Place, tmux: Tmux, log: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Whatever a server says that has just lost its last session, the next session is started."""
    (place.root / "bin").mkdir()
    real = shutil.which("tmux", path=place.environ["PATH"])
    leaves = f'[ -e {place.root}/left ] || {{ touch {place.root}/left; printf "{words}" >&2; exit 1; }}'
    place.script("bin/tmux", f'{leaves}\nexec {real} "$@"')
    monkeypatch.setenv("PATH", f"{place.root}/bin:{place.environ['PATH']}")
    assert run(tmux, "next", "sleep 600", log).has_session("next")
    assert (place.root / "left").exists()
