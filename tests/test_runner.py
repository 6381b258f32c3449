"""The runner in a real pane: what the agent gets, how its end is seen, that nothing of it is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delegate_job import launcher, runner
from delegate_job.launcher import RunnerState
from delegate_job.paths import JobPaths
from delegate_job.tmux import Tmux
from harness import Place, wait_until
from panes import LABEL, Pane, kill, lives


@pytest.fixture
def pane(place: Place, monkeypatch: pytest.MonkeyPatch) -> Pane:
    """Give a job directory and a tmux server of the test's own."""
    for name in ("PATH", "HOME", "TMUX_TMPDIR"):
        monkeypatch.setenv(name, place.environ[name])
    return Pane.make(place)


def server_pid(pane: Pane) -> int:
    """Return the process id of the tmux server."""
    return int(pane.place.tmux("display-message", "-p", "#{pid}").stdout)


@pytest.mark.parametrize(
    ("script", "exit_code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("kill -TERM $$", 143, 15),
        ("kill -KILL $$", 137, 9),
        ("kill -HUP $$", 129, 1),
    ],
)
def test_f15_the_true_exit_code_is_recorded(
    pane: Pane, script: str, exit_code: int, number: int | None
) -> None:
    """A code is passed on as it is, a signal as 128 + n."""
    pane.shell(script)
    assert pane.await_end() == {"exit_code": exit_code, "signal": number, "killed": 0, "asked": None}
    assert [event["kind"] for event in pane.events()] == ["spawned", "exited"]


def test_an_agent_that_dies_at_once_leaves_its_last_words(pane: Pane) -> None:
    """Ten times: what it said is on the screen and in the log, and its end is recorded."""
    for number in range(10):
        other = Pane.make(pane.place, f"job-{number + 2}")
        other.shell("echo last words; exit 3")
        other.screen_shows("last words")
        other.log_shows("last words\n")
        assert other.await_end()["exit_code"] == 3


def test_spawned_says_who_runs(pane: Pane) -> None:
    """The event names the agent's process and start time; the lock file the runner's, too."""
    pane.shell("echo $$ > pid; sleep 60")
    data = pane.await_event("spawned")["data"]
    record = launcher.read_record(pane.paths)
    assert record.agent is not None
    assert record.runner is not None
    assert data == {"pid": pane.pid("pid"), "start": record.agent.start, "argv0": "bash"}
    assert (pane.tmux.sessions() or {})["job-1"].pane_pid == record.runner.pid
    assert launcher.stop_agent(pane.paths)


def test_arguments_and_environment_arrive_byte_for_byte(pane: Pane) -> None:
    """Quotes, newlines, commands, bytes that are no UTF-8, 100 KB: as they were, and nothing is executed."""
    odd = os.fsdecode(b"\xff\xfe") + " $(touch X) `touch X` #(touch X) %H 'q' \"q\"\nline two; ünï ends;"
    arguments = ["", odd, "-x", "!ls", "/help", "x" * 100_000]
    program = (
        "import os, sys; open('out', 'wb').write(b'\\0'.join(map(os.fsencode, sys.argv[1:])));"
        "open('env', 'wb').write(os.environb[b'ODD']); os.rename('out', 'arguments')"
    )
    pane.launch([sys.executable, "-c", program, *arguments], env={"ODD": odd})
    pane.await_end()
    got = (pane.place.work / "arguments").read_bytes()
    assert got.split(b"\0") == [os.fsencode(argument) for argument in arguments]
    assert (pane.place.work / "env").read_bytes() == os.fsencode(odd)
    assert not list(pane.place.root.rglob("X"))


def test_f17_the_environment_is_the_jobs_own(pane: Pane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second job in the same tmux server sees nothing of the first; TERM is the pane's, TMUX nobody's."""
    monkeypatch.setenv("OF_THE_SERVER", "leaked")
    pane.shell("env -0 > env1", env={"FIRST": "1", "TERM": "wrong", "PWD": "/wrong"})
    pane.await_end()
    second = Pane.make(pane.place, "job-2")
    second.shell("env -0 > env2", env={"SECOND": "2"})
    second.await_end()
    first, later = (dict(v.split("=", 1) for v in pane.file(n).split("\0")[:-1]) for n in ("env1", "env2"))
    assert (first["FIRST"], first["TERM"], first["PWD"]) == ("1", "screen-256color", str(pane.place.work))
    assert (later["SECOND"], later[runner.MARK].split(":")[0]) == ("2", "job-2")
    assert not {"FIRST", "TMUX", "TMUX_PANE", "OF_THE_SERVER"} & set(later)


def test_limits_mask_and_signals_are_those_of_the_user(pane: Pane) -> None:
    """The file limit that was raised for tmux, the umask and every signal are as the user has them."""
    old = os.umask(0o027)
    try:
        pane.write(["bash", "-c", "ulimit -Sn > nofile; umask > mask; grep Sig /proc/self/status > signals"])
    finally:
        os.umask(old)
    fields = json.loads(pane.paths.launch.read_text())
    fields["limits"]["nofile"] = 512
    pane.paths.launch.write_text(json.dumps(fields))
    launcher.start(pane.tmux, pane.session, pane.paths)
    pane.await_end()
    assert pane.file("nofile").strip() == "512"
    assert pane.file("mask").strip() == "0027"
    signals = dict(line.split(":\t") for line in pane.file("signals").splitlines() if ":\t" in line)
    assert int(signals["SigIgn"], 16) == 0
    assert int(signals["SigBlk"], 16) == 0


def test_the_agent_has_the_terminal_for_itself(pane: Pane) -> None:
    """It is in the foreground of a terminal of the right size, in a process group of its own."""
    program = (
        "import os; out = f'{os.isatty(0)} {os.tcgetpgrp(0) == os.getpgrp() == os.getpid()}'"
        " f' {os.get_terminal_size().columns}'; open('part', 'w').write(out); os.rename('part', 'out')"
    )
    pane.launch([sys.executable, "-c", program])
    pane.await_end()
    assert pane.file("out") == "True True 200"


BIG = "x" * 1_000_000


@pytest.mark.parametrize(
    ("argv", "how", "why"),
    [
        (["no-such-program"], {}, "no such program"),
        (["./none"], {}, "no such program"),
        (["./no-interpreter"], {}, "interpreter is missing"),
        (["./plain"], {}, "Permission denied"),
        (["./binary"], {}, "not a program"),
        (["/"], {}, "Permission denied"),
        (["sh", "-c", "exit", BIG], {}, "too long"),
        (["sh", "-c", "exit"], {"env": {"BIG": BIG}}, "too long"),
        (["sh", "-c", "nul\0byte"], {}, "null byte"),
        (["sh"], {"cwd": Path("/no/such/dir")}, "cannot enter the work dir '/no/such/dir'"),
        (["sh"], {"cwd": Path("/etc/passwd")}, "Not a directory"),
        ([], {}, "cannot read launch.json"),
    ],
)
def test_what_cannot_be_started_is_said_in_one_line(
    pane: Pane, argv: list[str], how: dict[str, object], why: str
) -> None:
    """F14 and its kin: one event with the reason, the same line in the pane, no agent anywhere else."""
    work = pane.place.work
    (work / "no-interpreter").write_text("#!/no/such/interpreter\n")
    (work / "plain").write_text("#!/bin/sh\n")
    (work / "binary").write_bytes(b"\0\1\2")
    for name in ("no-interpreter", "binary"):
        (work / name).chmod(0o755)
    pane.launch(argv, **how)
    event = pane.await_event("spawn_failed")
    assert why in event["detail"]
    assert "\n" not in event["detail"]
    assert len(event["detail"]) < 300
    pane.screen_shows(why[:20])
    wait_until(lambda: launcher.runner_state(pane.paths) is RunnerState.GONE)
    assert len(pane.events()) == 1


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"argv": 1}', '{"argv": ["sh"], "env": []}'])
def test_a_missing_or_damaged_launch_file_is_said(pane: Pane, content: str | None) -> None:
    """Whatever stands in launch.json, the runner says that it could not start and leaves."""
    if content is not None:
        pane.paths.launch.write_text(content)
    launcher.start(pane.tmux, pane.session, pane.paths)
    assert "\n" not in pane.await_event("spawn_failed")["detail"]


def test_ctrl_c_reaches_the_agent_alone(pane: Pane) -> None:
    """The key ends the agent by its signal, and the runner lives to tell."""
    pane.shell("echo ready; exec sleep 60")
    pane.screen_shows("ready")
    pane.place.tmux("send-keys", "-t", "=job-1:", "C-c")
    assert pane.await_end() == {"exit_code": 130, "signal": 2, "killed": 0, "asked": None}


@pytest.mark.parametrize("keys", [1, 5])
def test_ctrl_z_does_not_strand_the_agent(pane: Pane, keys: int) -> None:
    """There is no shell to say `fg` in: the agent goes on, in the foreground."""
    program = (
        "import select, signal, sys; n = 0\n"
        "def on(*_):\n    global n; n += 1; print('continued', n, flush=True)\n"
        "signal.signal(signal.SIGCONT, on); print('ready', flush=True)\n"
        # A signal that comes just before Python reads is told only after the reading.
        "while not select.select([sys.stdin], [], [], 0.1)[0]: pass\n"
        "sys.exit(len(input()))"
    )
    pane.launch([sys.executable, "-c", program])
    pane.screen_shows("ready")
    for number in range(keys):
        pane.place.tmux("send-keys", "-t", "=job-1:", "C-z")
        pane.screen_shows(f"continued {number + 1}")
    pane.tmux.paste("job-1", "seven77")
    pane.tmux.enter("job-1")
    assert pane.await_end()["exit_code"] == 7


def test_an_agent_that_stops_itself_goes_on(pane: Pane) -> None:
    """SIGSTOP, as agents send themselves for their own Ctrl-Z, is answered as well."""
    pane.shell("kill -STOP $$; exit 5")
    assert pane.await_end()["exit_code"] == 5


THERE = "until [ -s pid ]; do sleep 0.02; done"
SURVIVORS = {
    "background": "trap '' HUP; sleep 60 & echo $! > pid",
    "new session": "setsid sleep 60 & echo $! > pid",
    "double fork": f"(setsid bash -c 'echo $$ > pid; exec sleep 60' &) & {THERE}",
    "ignores TERM": f"setsid bash -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done' & {THERE}",
    "stopped": f"setsid bash -c 'trap \"\" HUP; echo $$ > pid; kill -STOP $$; sleep 60' & {THERE}",
    "empty environment": f"(env -i setsid bash -c 'echo $$ > pid; exec sleep 60' &) & {THERE}",
}


@pytest.mark.parametrize("script", SURVIVORS.values(), ids=SURVIVORS)
def test_what_the_agent_leaves_behind_is_ended_before_exited(pane: Pane, script: str) -> None:
    """However it has hidden, it is gone when `exited` is there, and it was counted."""
    pane.shell(f"{script}; exit 4")
    survivor = pane.pid("pid")
    data = pane.await_event("exited")["data"]
    assert not lives(survivor)
    assert data["exit_code"] == 4
    assert data["killed"] >= 1


def test_what_ends_by_itself_in_time_is_left_alone(pane: Pane) -> None:
    """A `publish` still under way when the agent exits is waited for, and `exited` comes after it."""
    late = "(setsid bash -c 'echo > up; sleep 0.5; echo whole > report' &) &"
    pane.shell(f"{late} until [ -e up ]; do sleep 0.02; done; exit 0")
    assert pane.await_end()["killed"] == 0
    assert pane.file("report") == "whole\n"


@pytest.mark.parametrize("way", ["kill-session", "kill -9 of the server", "TERM"])
def test_hanging_up_ends_the_whole_tree(pane: Pane, way: str) -> None:
    """An agent that ignores HUP does not outlive its session, nor does what it has started."""
    inner = "setsid bash -c 'trap \"\" HUP; echo $$ > child; sleep 60; exit'"
    pane.shell(f"trap '' HUP; {inner} & echo $$ > pid; while :; do sleep 1; done")
    agent, child = pane.pid("pid"), pane.pid("child")
    record = launcher.read_record(pane.paths)
    assert record.runner is not None
    if way == "kill-session":
        pane.tmux.kill_session("job-1")
    elif way == "TERM":
        os.kill(record.runner.pid, signal.SIGTERM)
    else:
        kill(server_pid(pane))
    data = pane.await_end()
    assert data["asked"] == (signal.SIGTERM if way == "TERM" else signal.SIGHUP)
    assert data["exit_code"] in {143, 137}
    assert data["killed"] >= 1
    assert not lives(agent)
    assert not lives(child)


def test_a_second_runner_leaves_the_first_alone(pane: Pane) -> None:
    """It says why, records nothing, starts nothing."""
    pane.shell("echo $$ >> pids; sleep 60")
    pane.file("pids")
    pane.await_event("spawned")
    script = launcher.runner_argv(pane.paths)
    done = subprocess.run(script, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == runner.NOT_TO_RUN
    assert "has a runner" in done.stdout
    assert len(pane.file("pids").split()) == 1
    assert [event["kind"] for event in pane.events()] == ["spawned"]
    assert launcher.stop_agent(pane.paths)


def test_no_zombies_gather(pane: Pane) -> None:
    """Orphans of the agent that end become nobody's burden while it runs."""
    pane.shell("for i in $(seq 50); do (true &); done; sleep 0.5; echo now > out; sleep 60")
    pane.file("out")
    runner_pid = (pane.tmux.sessions() or {})["job-1"].pane_pid

    def children() -> list[str]:
        return Path(f"/proc/{runner_pid}/task/{runner_pid}/children").read_text().split()

    wait_until(lambda: len(children()) == 1)
    assert launcher.stop_agent(pane.paths)


def test_a_record_that_cannot_be_written_does_not_stop_the_agent(pane: Pane) -> None:
    """With control.jsonl in the way the agent works and ends, and the free lock still tells that it has."""
    pane.paths.control.mkdir()
    pane.shell("echo done > out; exit 3")
    assert pane.file("out") == "done\n"
    wait_until(lambda: launcher.runner_state(pane.paths) is RunnerState.GONE)
    pane.screen_shows("cannot write")


@pytest.mark.parametrize("name", ["site packages", "$(touch X) #(touch X);'%H"])
def test_it_runs_from_wherever_it_is_installed(
    pane: Pane, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Copied as a wheel would be, below any name, with nothing of Python set up: it finds its own parts."""
    package = Path(launcher.__file__).parent
    copy = pane.place.root / name / "delegate_job"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(launcher, "_SCRIPT", copy / "pane.py")
    pane.shell("exit 6")
    assert pane.await_end()["exit_code"] == 6
    assert not list(pane.place.root.rglob("X"))


def test_a_registry_of_any_name_works(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes, commands, percent signs and bytes that are no UTF-8 in the registry's path change nothing."""
    monkeypatch.setenv("TMUX_TMPDIR", place.environ["TMUX_TMPDIR"])
    names = ("#(touch X) $(touch X) %H", 'it\'s "q";', os.fsdecode(b"\xff\xfe"), "ü\n")
    for number, name in enumerate(names):
        job = place.root / name / "jobs" / f"job-{number}"
        job.mkdir(parents=True)
        pane = Pane(place, JobPaths(job), Tmux(label=LABEL), f"job-{number}")
        pane.shell("echo here; exit 9")
        assert pane.await_end()["exit_code"] == 9
        pane.log_shows("here\n")
    assert not list(place.root.rglob("X"))
