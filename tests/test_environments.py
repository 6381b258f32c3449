"""Odd environments: the same result as usual or one clear line, the right code, and nothing lost."""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness import COMMAND, Place, free_port, in_ci, job_id, wait_until
from traces import printed

COMPLETED = '"$DJ" publish --event completed --detail done'
STAYS = '"$DJ" publish --event started\nexec sleep 600'

Done = subprocess.CompletedProcess[str]


def clean(done: Done) -> Done:
    """Return the result after a look for what no user may ever see."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said, done
    assert "Exception ignored" not in said, done
    assert done.returncode != 70, done
    return done


def refused(done: Done, code: int) -> str:
    """Return the text of the one error, after a look that it is one line with at most one hint."""
    lines = clean(done).stderr.splitlines()
    assert done.returncode == code, done
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), done
    return done.stderr


def accepted(done: Done) -> str:
    """Return the id of the job, after a look that it ended well."""
    assert clean(done).returncode == 0, done
    assert "outcome: accepted" in done.stdout, done
    return job_id(done.stdout)


def run_in(place: Place, argv: list[str], env: Mapping[str, str | None] | None = None) -> Done:
    """Run any command line in the place to its end."""
    process = place.spawn(*argv, env=env)
    stdout, stderr = process.communicate(timeout=30)
    return clean(subprocess.CompletedProcess(argv, process.returncode, stdout, stderr))


def shell(place: Place, redirections: str, *words: str, env: Mapping[str, str | None] | None = None) -> Done:
    """Run `delegate-job WORDS` with a shell's redirections, or behind its commands when these end in `&&`."""
    command = '"$0" "$@"'
    text = f"{redirections} {command}" if redirections.endswith("&&") else f"{command} {redirections}"
    return run_in(place, ["bash", "-c", text, str(COMMAND), *words], env)


# -- terminals, languages, variables


@pytest.mark.parametrize(
    "changes",
    [
        {"TERM": None},
        {"TERM": "dumb"},
        {"TERM": "no-such-terminal"},
        {"CI": "true"},
        {"LANG": "C"},
        {"LANG": "POSIX", "LC_ALL": "POSIX"},
        {"LANG": None},
        {"LANG": "xx_YY.no-such-charset"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONDEVMODE": "1"},
        {"PYTHONOPTIMIZE": "2"},
        {"TMUX": "/tmp/tmux-0/default,1,0", "TMUX_PANE": "%0"},
        {"HOME": None},
        {"HOME": "/nonexistent"},
        {"XDG_STATE_HOME": None, "XDG_CONFIG_HOME": None, "XDG_RUNTIME_DIR": None},
        {"SHELL": "/nonexistent", "TMPDIR": "/nonexistent"},
        {"COLUMNS": "1", "LINES": "1"},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items()),
)
def test_an_odd_environment_changes_nothing(place: Place, changes: dict[str, str | None]) -> None:
    """A job runs to its verdict, in words of any language, and can be listed, read and waited for."""
    agent = '"$DJ" publish --event completed --detail "grün → 完了"'
    name = accepted(place.submit(agent, env=changes))
    shown = [
        clean(place.run(*words, env=changes))
        for words in (["status", name], ["list"], ["logs", name], ["wait", name], ["logs", "--list"])
    ]
    assert [done.returncode for done in shown] == [0] * 5
    assert "grün → 完了" in shown[0].stdout
    assert "grün → 完了" in shown[2].stdout
    assert json.loads(clean(place.run("status", name, "--json", env=changes)).stdout)["outcome"] == "accepted"


def test_a_python_without_utf8(place: Place) -> None:
    """Where Python is told to take every text as ASCII, words of any language still do no harm."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    work = place.work / "grün"
    work.mkdir()
    done = place.submit(COMPLETED, "--prompt=grün → 完了", "--workdir", work, env=ascii_only)
    log = Path(done.stdout.splitlines()[-1])
    assert log == work / "delegate_job_logs" / accepted(done)
    assert (log / "prompt.md").read_text(encoding="utf-8") == "grün → 完了"
    for words in (["status", "@last"], ["list"], ["logs", "@last"], ["list", "--json"]):
        assert clean(place.run(*words, env=ascii_only)).returncode == 0


def test_the_registry_is_in_the_state_directory(place: Place) -> None:
    """Without any setting jobs are kept where platformdirs says, by XDG_STATE_HOME and without it by HOME."""
    xdg: dict[str, str | None] = {"DELEGATE_JOB_REGISTRY_DIR": None}
    first = accepted(place.submit(COMPLETED, env=xdg))
    assert (place.home / ".local/state/delegate-job/jobs" / first).is_dir()
    only_home = {**xdg, "XDG_STATE_HOME": None, "HOME": str(place.root / "other")}
    second = accepted(place.submit(COMPLETED, env=only_home))
    assert (place.root / "other/.local/state/delegate-job/jobs" / second).is_dir()
    only_xdg = {**xdg, "XDG_STATE_HOME": str(place.root / "xdg"), "HOME": None}
    third = accepted(place.submit(COMPLETED, env=only_xdg))
    assert (place.root / "xdg/delegate-job/jobs" / third).is_dir()


def test_inside_a_real_tmux(place: Place) -> None:
    """A submit in a pane of somebody's own tmux makes its session in ours and leaves theirs alone."""
    outer = place.root / "outer"
    out = place.root / "out"
    words = " ".join(map(str, [COMMAND, *(f"'{word}'" for word in place.submit_args(COMPLETED))]))
    argv = ["tmux", "-S", str(outer), "new-session", "-d", "-s", "mine", f"{words} >{out} 2>&1; sleep 60"]
    try:
        assert run_in(place, argv).returncode == 0
        text = wait_until(lambda: out.exists() and "outcome: " in out.read_text() and out.read_text(), 20)
        assert "outcome: accepted" in str(text)
        listed = run_in(place, ["tmux", "-S", str(outer), "list-sessions", "-F", "#{session_name}"])
        assert listed.stdout == "mine\n"
    finally:
        run_in(place, ["tmux", "-S", str(outer), "kill-server"])


def test_a_terminal_is_not_needed_but_used(place: Place) -> None:
    """With a terminal as its output submit ends as it does without one."""
    master, terminal = os.openpty()
    try:
        process = place.start(*place.submit_args(COMPLETED), stdin=terminal, stdout=terminal, stderr=terminal)
        assert process.wait(30) == 0
        os.set_blocking(master, False)
        assert b"Traceback" not in os.read(master, 65536)
    finally:
        os.close(master)
        os.close(terminal)


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_closed_and_full_streams_end_no_job(place: Place, redirections: str) -> None:
    """Whatever happens to its input and output, the job is seen to its end and the code is the job's."""
    done = shell(place, redirections, *place.submit_args(COMPLETED))
    assert done.returncode == 0, done
    (job,) = json.loads(place.run("list", "--json").stdout)
    assert (job["outcome"], job["owner"]) == ("accepted", None)


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["status", "@last"],
        ["logs", "@last"],
        ["logs", "@last", "--pane"],
        ["logs", "@last", "--reports"],
        ["wait", "@last"],
        ["logs", "--list"],
        ["submit", "--dry-run", "--prompt", "x", "--agent", "human"],
        ["verify", "@last", "--validate", "/bin/true"],
        ["publish", "--event", "progress", "--job", "@last"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_commands_with_closed_and_full_streams(place: Place, words: list[str]) -> None:
    """A closed stream is nothing to any command; output that cannot be written is one line."""
    accepted(place.submit(COMPLETED))
    for redirections in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        assert shell(place, redirections, *words).returncode == 0
    full = shell(place, ">/dev/full", *words)
    assert full.returncode in {0, 2}
    assert len(full.stderr.splitlines()) <= 2


@pytest.mark.parametrize("umask", ["077", "000", "0777"])
def test_any_umask(place: Place, umask: str) -> None:
    """Under any umask that leaves users their own files a job runs, privately; the agent has that umask."""
    agent = 'umask >"$TMPDIR/../umask"\n' + COMPLETED
    done = shell(place, f"umask {umask} &&", *place.submit_args(agent))
    if umask == "0777" and os.geteuid() != 0:
        # What such a user makes they cannot use; root can.
        assert "Permission denied" in refused(done, 7)
        return
    name = accepted(done)
    for directory, _, files in os.walk(place.registry):
        assert Path(directory).stat().st_mode & 0o077 == 0
        assert [f for f in files if (Path(directory) / f).stat().st_mode & 0o077] == []
    for path in [place.log_dir(name), *place.log_dir(name).iterdir()]:
        assert path.stat().st_mode & 0o077 == 0
    if umask != "0777":
        assert int((place.root / "umask").read_text(), 8) == int(umask, 8)


# -- directories that are not what they should be


def test_the_current_directory_was_removed(place: Place) -> None:
    """Nothing needs the current directory unless a path is relative to it; then that is one line."""
    leave = f"mkdir {place.root}/gone && cd {place.root}/gone && rmdir ../gone &&"
    args = place.submit_args(COMPLETED)
    assert "current directory" in refused(shell(place, leave, *args), 7)
    accepted(shell(place, leave, *args, "--workdir", str(place.work)))
    for words in (
        ["list", "--here"],
        ["list", "--registry-dir", "relative"],
        ["publish", "--event", "started", "--job", "x", "--registry-dir", "relative"],
        [*args, "--workdir", str(place.work), "--validate", "check.sh"],
        ["verify", "@last", "--validate", "check.sh"],
    ):
        assert "current directory" in refused(shell(place, leave, *words), 2)
    for words in (["list"], ["status", "@last"], ["wait", "@last"], ["logs", "@last"]):
        assert shell(place, leave, *words).returncode == 0


@pytest.mark.parametrize("which", ["missing", "a file", "removed in mid-job"])
def test_a_work_dir_that_is_none(place: Place, which: str) -> None:
    """A work dir that is not there is exit 7 and registers nothing; one removed in mid-job ends nothing."""
    directory = place.root / "elsewhere"
    if which == "a file":
        directory.write_text("")
    if which == "removed in mid-job":
        directory.mkdir()
        accepted(place.submit(f'rm -rf "{directory}"\n{COMPLETED}', "--workdir", directory))
        return
    refused(place.submit(COMPLETED, "--workdir", directory), 7)
    assert place.jobs() == []


def test_no_tmux(place: Place) -> None:
    """Without tmux on PATH a submit is exit 7 with what to install, and registers nothing."""
    tools = place.root / "tools"
    tools.mkdir()
    for tool in ("bash", "env"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for path in (str(tools), "", "/nonexistent"):
        said = refused(place.submit(COMPLETED, env={"PATH": path}), 7)
        assert "tmux" in said or path == ""
    assert place.jobs() == []


@pytest.mark.parametrize("text", ["exit 1", "echo 2.9a /nowhere/socket", "exec sleep 60", "kill -9 $$"])
def test_a_tmux_that_does_not_work(place: Place, text: str) -> None:
    """A tmux that fails, is too old, hangs or dies is exit 7 within its time limits, with one line."""
    tools = place.root / "tools"
    tools.mkdir()
    fake = tools / "tmux"
    fake.write_text(f"#!/bin/sh\n{text}\n")
    fake.chmod(0o755)
    done = clean(place.submit(COMPLETED, env={"PATH": f"{tools}:{place.environ['PATH']}"}))
    assert done.returncode == 7, done
    assert "tmux" in done.stdout + done.stderr


def test_a_tmux_directory_that_is_none(place: Place) -> None:
    """A TMUX_TMPDIR that cannot be used is exit 7, and the job says why."""
    long = place.root / ("long" * 40)
    long.mkdir()
    for directory in (long, place.script("a-file", "")):
        done = clean(place.submit(COMPLETED, env={"TMUX_TMPDIR": str(directory)}))
        assert done.returncode == 7, done
        assert "tmux" in done.stdout


@contextlib.contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[None]:
    """Mount a small file system."""
    directory.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        if in_ci() and os.geteuid() == 0:
            pytest.fail(f"mount: {mounted.stderr!r}")
        pytest.skip("a small file system needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Fill a file system to the last byte; return the file that does."""
    path = directory / "fills"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_below_the_registry(place: Place) -> None:
    """A registry on a full disk is exit 7 for submit, 2 for others; with room again nothing is lost."""
    with tmpfs(place.registry, "4m"):
        name = accepted(place.submit(COMPLETED))
        filler = fill(place.registry)
        said = refused(place.submit(COMPLETED), 7)
        assert "space" in said or "room" in said
        assert clean(place.run("status", name)).returncode in {0, 2}
        filler.unlink()
        assert place.job(name)["outcome"] == "accepted"
        accepted(place.submit(COMPLETED))


def test_a_disk_that_fills_up_in_mid_job(place: Place) -> None:
    """What is reported while the registry's disk is full is applied as soon as there is room."""
    agent = f"""
        "$DJ" publish --event started
        while [ ! -e {place.root}/go ]; do sleep 0.05; done
        {COMPLETED}
        touch {place.root}/said
        exec sleep 600
    """
    with tmpfs(place.registry, "4m"):
        process = place.start(*place.submit_args(agent, "--close"))
        name = place.await_job()
        place.await_kind(name, "started")
        filler = fill(place.registry)
        (place.root / "go").touch()
        wait_until((place.root / "said").exists, 20)
        filler.unlink()
        stdout, stderr = process.communicate(timeout=40)
        done = clean(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
        assert done.returncode == 0, done
        assert place.job(name)["outcome"] == "accepted"


def test_a_full_work_dir(place: Place) -> None:
    """A work dir in which not even the task can be written is exit 7, and says why."""
    with tmpfs(place.work, "64k"):
        fill(place.work)
        done = clean(place.submit(COMPLETED))
        assert done.returncode == 7, done
        assert "no space" in done.stdout.lower()
        assert json.loads(place.run("list", "--json").stdout)[0]["outcome"] == "not_started"


def test_a_work_dir_that_fills_up_in_mid_job(place: Place) -> None:
    """A report that has no room in the work dir is sent, says so, and counts."""
    agent = f"""
        "$DJ" publish --event started
        dd if=/dev/zero of=fills bs=4096 2>/dev/null || true
        long=$(head -c 9000 /dev/zero | tr '\\0' x)
        "$DJ" publish --event completed --detail "$long" --timeout 30 >{place.root}/said 2>&1
    """
    with tmpfs(place.work, "512k"):
        done = clean(place.submit(agent))
        assert printed(place.root / "said", 1)[0].startswith("sent, not recorded (no space")
        assert done.returncode == 0, done


# -- as somebody who may not do everything

AS_OWNER_ONLY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""As root, but with the rights of a file's mode bits."""


def bound(place: Place, *words: str, env: Mapping[str, str | None] | None = None) -> Done:
    """Run `delegate-job WORDS` as somebody to whom the modes of files apply."""
    prefix = AS_OWNER_ONLY if os.geteuid() == 0 else ()
    if prefix and shutil.which(prefix[0]) is None:
        pytest.skip("without setpriv root may do everything")
    return run_in(place, [*prefix, str(COMMAND), *words], env)


def test_a_read_only_work_dir(place: Place) -> None:
    """A work dir that cannot be written gets its log in the registry, and reports count."""
    place.work.chmod(0o555)
    done = bound(place, *place.submit_args(COMPLETED))
    name = accepted(done)
    log = Path(done.stdout.splitlines()[-1])
    assert log == place.registry / "jobs" / name / "audit" / name
    assert '"completed"' in (log / "reports.jsonl").read_text()


def test_a_read_only_log_dir(place: Place) -> None:
    """A $DELEGATE_JOB_LOGS_DIR that cannot be written is replaced by the registry; a new one is made."""
    logs = place.root / "logs"
    accepted(place.submit(COMPLETED, env={"DELEGATE_JOB_LOGS_DIR": str(logs)}))
    assert len([path for path in logs.iterdir() if path.is_dir()]) == 1
    logs.chmod(0o555)
    done = bound(place, *place.submit_args(COMPLETED), env={"DELEGATE_JOB_LOGS_DIR": str(logs)})
    name = accepted(done)
    assert done.stdout.splitlines()[-1] == str(place.registry / "jobs" / name / "audit" / name)


def test_a_work_dir_that_cannot_be_entered(place: Place) -> None:
    """A work dir without the right to enter it is exit 7."""
    closed = place.root / "closed"
    closed.mkdir(0o000)
    assert "cannot be entered" in refused(
        bound(place, *place.submit_args(COMPLETED, "--workdir", str(closed))), 7
    )


@pytest.mark.parametrize(
    "which", ["missing", "directory", "fifo", "socket", "unreadable", "empty name", "NUL-free odd"]
)
def test_a_check_that_cannot_be_read(place: Place, which: str) -> None:
    """A check that is missing, unreadable or no file is refused before anything is registered."""
    script = place.root / "check"
    server = socket.socket(socket.AF_UNIX)
    match which:
        case "directory":
            script.mkdir()
        case "fifo":
            os.mkfifo(script)
        case "socket":
            server.bind(str(script))
        case "unreadable":
            place.script("check", "exit 0").chmod(0o000)
        case "NUL-free odd":
            script = place.root / "no\nsuch $(touch X)"
    server.close()
    given = "" if which == "empty name" else str(script)
    refused(bound(place, *place.submit_args(COMPLETED, "--validate", given)), 2)
    assert place.jobs() == []
    accepted(place.submit(COMPLETED))
    refused(bound(place, "verify", "@last", "--validate", given), 2)


def test_a_check_without_an_interpreter(place: Place) -> None:
    """A check that cannot be started has failed, and the log says why."""
    check = place.script("check", "#!/no/such/interpreter\n")
    done = clean(place.submit(COMPLETED, "--validate", check))
    assert done.returncode == 3, done
    assert "validation: FAIL (exit 127)" in done.stdout
    said = clean(place.run("logs", "@last", "--validation")).stdout
    assert said.strip()


@pytest.mark.parametrize("which", ["directory", "database", "no directory above"])
def test_a_registry_that_cannot_be_written(place: Place, which: str) -> None:
    """A registry without the right to write is exit 7 for submit and one line with 2 for all others."""
    accepted(place.submit(COMPLETED))
    match which:
        case "directory":
            (place.registry / "jobs").chmod(0o500)
        case "database":
            for path in place.registry.glob("registry.db*"):
                path.chmod(0o000)
        case "no directory above":
            shutil.move(place.registry, place.root / "kept")
            place.registry.mkdir(0o000)
    refused(bound(place, *place.submit_args(COMPLETED)), 7)
    if which != "directory":
        for words in (["list"], ["status", "@last"], ["wait"], ["logs", "@last"], ["cancel", "@last"]):
            refused(bound(place, *words), 2)
    refused(bound(place, "publish", "--event", "started", "--job", "@first"), 2)


# -- registries


def test_a_registry_of_a_newer_schema(place: Place) -> None:
    """A registry that a newer version made is left as it is: exit 7 for submit, 2 for all others."""
    accepted(place.submit(COMPLETED))
    with contextlib.closing(sqlite3.connect(place.registry / "registry.db")) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 999")
    assert "newer" in refused(place.submit(COMPLETED), 7)
    for words in (["list"], ["status", "@last"], ["wait"], ["logs", "@last"], ["cancel", "@last"]):
        assert "newer" in refused(place.run(*words), 2)
    with contextlib.closing(sqlite3.connect(place.registry / "registry.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (999,)
        database.execute(f"PRAGMA user_version = {version}")
    assert len(json.loads(place.run("list", "--json").stdout)) == 1


@pytest.mark.parametrize("which", ["a file", "a file above", "a FIFO", "a directory for a database"])
def test_something_else_in_the_registrys_place(place: Place, which: str) -> None:
    """What is no registry is left alone and named in one line: exit 7 for submit, 2 for all others."""
    registry = place.root / "other"
    match which:
        case "a file":
            registry.write_text("mine")
        case "a file above":
            registry.write_text("mine")
            registry /= "below"
        case "a FIFO":
            os.mkfifo(registry)
        case _:
            (registry / "registry.db").mkdir(parents=True)
    args = [*place.submit_args(COMPLETED), "--registry-dir", str(registry)]
    refused(place.run(*args), 7)
    for words in (["list"], ["status", "@last"], ["wait"], ["logs", "--list"]):
        refused(place.run(*words, "--registry-dir", registry), 2)
    refused(place.run("publish", "--event", "started", "--job", "x", "--registry-dir", registry), 2)
    if which == "a file":
        assert registry.read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "spaces and 'quotes' \"here\"",
        "$(touch X) `touch X` #(touch X) #{pane_id} %H %s",
        "ends with;",
        "-leads",
        "new\nline",
        "ünïcödé 完",
        os.fsdecode(b"bytes \xff\xfe"),
        "x" * 200,
        "file:x?mode=memory",
    ],
    ids=ascii,
)
def test_odd_registry_paths(place: Place, name: str) -> None:
    """A registry may have any name: jobs run, are found again, and nothing in the name is executed."""
    registry = place.root / name
    check = place.script(
        "check", 'test -d "$REGISTRY_DIR/jobs/$JOB_ID" && test -e "$REGISTRY_DIR/registry.db"'
    )
    options = [f"--registry-dir={registry}"]
    found = accepted(place.submit(COMPLETED, "--validate", check, *options))
    assert clean(place.run("list", *options)).stdout.count("accepted") == 1
    assert clean(place.run("wait", found, *options)).returncode == 0
    late = clean(place.run("publish", "--event", "progress", "--job", found[:6], *options))
    assert late.returncode == 0, late
    assert (registry / "registry.db").is_file()
    assert not list(place.root.rglob("X"))
    assert place.jobs() == []


def test_relative_and_linked_registry_paths(place: Place) -> None:
    """A relative path is one from the current directory, also for the agent; a link is its target."""
    accepted(place.submit(f"cd /\n{COMPLETED}", "--registry-dir", "../relative"))
    assert (place.root / "relative/registry.db").is_file()
    (place.root / "link").symlink_to("relative")
    shown = place.run("list", "--registry-dir", place.root / "link", "--json")
    assert len(json.loads(shown.stdout)) == 1
    accepted(place.submit(COMPLETED, "--registry-dir", place.root / "link"))


def test_a_registry_inside_the_work_dir(place: Place) -> None:
    """A registry that the agent could change is warned of, and works."""
    done = place.submit(COMPLETED, "--registry-dir", place.work / "registry")
    accepted(done)
    assert "warning: the registry lies inside the work dir" in done.stderr


# -- others


def test_a_port_that_is_taken(place: Place) -> None:
    """`broker --port` on a port that somebody has is exit 7 in one line, and quick."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(place.run("broker", "--port", str(taken.getsockname()[1])), 7)
    assert "in use" in said
    assert place.run("broker", "--port", "65536").returncode == 2
    port = free_port()
    process = place.start("broker", "--port", str(port))
    assert process.stdout is not None
    assert f":{port}" in json.loads(process.stdout.readline())["url"]
    process.terminate()
    assert process.wait(10) == 0


def test_a_torn_last_line_at_takeover(place: Place) -> None:
    """A line that a dying reporter tore is passed over by the next owner, and reports around it count."""
    process = place.start(*place.submit_args(STAYS))
    name = place.await_job()
    place.await_state(name, "running")
    reports = place.log_dir(name) / "reports.jsonl"
    wait_until(reports.exists)
    with place.nobody_takes_over():
        process.kill()
        process.wait(10)
        with reports.open("ab") as file:
            file.write(b'\n{"id": "torn", "job_id": "' + name.encode() + b'", "kind": "prog')
        late = clean(place.run("publish", "--job", name, "--event", "progress", "--detail", "after the tear"))
        assert late.stdout.startswith("recorded"), late
        assert "after the tear" in clean(place.run("logs", name)).stdout
        with reports.open("ab") as file:
            file.write(b'\n{"id": "torn again", "job_id": "' + name.encode())
    assert clean(place.run("cancel", name)).returncode == 0
    job = place.job(name)
    assert (job["outcome"], job["detail"]) == ("cancelled", "after the tear")


def test_as_a_normal_user(place: Place) -> None:
    """A normal user, who has no home and no name, runs a job with a registry of his own."""
    if os.geteuid() != 0:
        pytest.skip("all tests run as a normal user already")
    # Behind `env`, because setpriv itself still has root's rights when it looks for the program.
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "env"]
    probe = subprocess.run([*user, str(COMMAND), "--version"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("the interpreter lies where only root can run it")
    args = place.submit_args(COMPLETED)
    for directory, _, files in os.walk(place.root):
        for path in (directory, *(f"{directory}/{file}" for file in files)):
            os.chown(path, 54321, 54321)
    accepted(run_in(place, [*user, str(COMMAND), *args]))
    nobody: dict[str, str | None] = {
        name: None for name in place.environ if name.startswith("XDG_") or name == "DELEGATE_JOB_REGISTRY_DIR"
    }
    said = refused(run_in(place, [*user, str(COMMAND), *args], {**nobody, "HOME": None}), 2)
    assert "HOME" in said
    named = ["--registry-dir", str(place.registry)]
    accepted(run_in(place, [*user, str(COMMAND), *args, *named], {**nobody, "HOME": None}))
    refused(run_in(place, [*user, str(COMMAND), "list"], {**nobody, "HOME": None}), 2)
    assert not (place.work / "~").exists()
