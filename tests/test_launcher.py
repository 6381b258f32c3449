"""Starting, looking and ending: what the owner of a job does with its runner."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from delegate_job import environment, launcher, locks, processes, runner
from delegate_job.errors import NotStartedError
from delegate_job.launcher import RunnerState
from delegate_job.tmux import SessionExistsError, Tmux, TmuxError
from harness import Place, wait_until
from panes import Pane, kill, lives


@pytest.fixture
def pane(place: Place, monkeypatch: pytest.MonkeyPatch) -> Pane:
    """Give a job directory and a tmux server of the test's own."""
    for name in ("PATH", "HOME", "TMUX_TMPDIR"):
        monkeypatch.setenv(name, place.environ[name])
    return Pane.make(place)


STUBBORN = "trap '' HUP TERM; echo $$ > pid; while :; do sleep 1; done"
HIDDEN = "setsid bash -c 'trap \"\" HUP; echo $$ > hidden; sleep 60; exit' &"

OUTER = [
    *["TMUX", "TMUX_PANE", "COLUMNS", "LINES", "TERM", "PWD", "CLAUDECODE", "CLAUDE_CODE_SESSION_ID"],
    *["CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_MESSAGING_TOKEN", "CLAUDE_PROJECT_DIR", "CODEX_SANDBOX"],
    *["CLAUDE_CODE_CHILD_SESSION", "CODEX_THREAD_ID", "CODEX_SANDBOX_NETWORK_DISABLED", "GEMINI_CLI"],
    *["OPENCODE", "OPENCODE_PID", "DELEGATE_JOB_ID", "DELEGATE_JOB_DIR", "DELEGATE_JOB_CONNECTION"],
    "DELEGATE_JOB_RUNNER",
]
KEPT = [
    *["PATH", "HOME", "LANG", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK"],
    *["ANTHROPIC_API_KEY", "CODEX_HOME", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENCODE_CONFIG"],
    *["DELEGATE_JOB_TIMEOUT", "DELEGATE_JOB_LOGS_DIR", "DELEGATE_JOB_REGISTRY_DIR", "SSH_AUTH_SOCK"],
    *["VIRTUAL_ENV", "COLORTERM"],
]


def test_a_launch_file_comes_back_as_it_was_written(pane: Pane) -> None:
    """Any bytes survive, nobody else may read it, and no half file is left."""
    odd = os.fsdecode(b'\xff\xfe\n"\\') + "ünï 漢 \x7f\x1b"
    env = {"ODD": odd, odd.replace("\n", ""): "x", "SECRET": "hunter2"}
    limits = {"nofile": 99, "umask": 0o027}
    fields: dict[str, Any] = {
        "argv": ["prog", odd, ""], "cwd": f"/tmp/{odd}", "env": env, "limits": limits,
    }  # fmt: skip
    launcher.write_launch_file(pane.paths, **fields)
    assert json.loads(pane.paths.launch.read_text(encoding="utf-8")) == fields
    assert pane.paths.launch.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in pane.paths.root.iterdir()] == ["launch.json"]


def test_the_limits_of_a_submit_are_kept_with_its_environment(tmp_path: Path) -> None:
    """Umask and file limit come back as they were at submit, whatever the process has that reads them."""
    old = os.umask(0o027)
    try:
        environment.write_environ(tmp_path / "environ.json", {"A": "1"})
    finally:
        os.umask(old)
    assert environment.read_environ(tmp_path / "environ.json") == {"A": "1"}
    assert environment.read_limits(tmp_path / "environ.json") == environment.limits() | {"umask": 0o027}
    assert environment.read_limits(tmp_path / "gone.json") == environment.limits()


def test_f10_an_outer_identity_is_removed_and_settings_are_kept() -> None:
    """What marks a terminal, agent or job around us goes; tokens, config directories and settings stay."""
    assert environment.scrub(dict.fromkeys([*OUTER, *KEPT], "1")) == dict.fromkeys(KEPT, "1")


def test_the_state_is_the_locks_word(pane: Pane) -> None:
    """Starting until the runner was seen, running while it holds the lock, then gone, and starting again."""
    assert launcher.runner_state(pane.paths) is RunnerState.STARTING
    pane.shell("echo > up; read line; exit 0")
    pane.file("up")
    assert launcher.runner_state(pane.paths) is RunnerState.RUNNING
    pane.tmux.enter("job-1")
    pane.await_end()
    assert launcher.runner_state(pane.paths) is RunnerState.GONE
    pane.paths.launch.unlink()
    pane.write(["sleep", "60"])
    launcher.relaunch(pane.tmux, "job-1", pane.paths)
    wait_until(lambda: launcher.runner_state(pane.paths) is RunnerState.RUNNING)
    assert launcher.stop_agent(pane.paths)


def test_asking_all_the_time_does_not_keep_a_runner_from_starting(pane: Pane) -> None:
    """A probe holds the lock for a moment; the runner waits that moment."""
    pane.write(["sleep", "60"])
    launcher.start(pane.tmux, pane.session, pane.paths)
    for _ in range(2000):
        launcher.runner_state(pane.paths)
    pane.await_event("spawned")
    assert launcher.stop_agent(pane.paths)


def test_a_job_has_one_runner(pane: Pane) -> None:
    """A second start of a running job is refused, by the lock and not by the session's name."""
    pane.shell("echo > up; sleep 60")
    pane.file("up")
    with pytest.raises(NotStartedError, match="runs already"):
        launcher.start(pane.tmux, "another", pane.paths)
    assert pane.tmux.has_session("another") is False
    assert launcher.stop_agent(pane.paths)
    with pytest.raises(SessionExistsError):
        launcher.start(pane.tmux, "job-1", pane.paths)


def test_a_runner_that_comes_while_it_is_looked_for_is_not_gone(
    pane: Pane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its lock and that at its record it takes the one and writes the other."""
    look, held = locks.is_held, list[int]()

    def look_as_it_comes(path: Path) -> bool:
        is_held = look(path)
        if not held:
            lock = locks.acquire(path)
            assert lock is not None
            os.write(lock, b"runner 1 1 boot\n")
            held.append(lock)
        return is_held

    monkeypatch.setattr(locks, "is_held", look_as_it_comes)
    assert launcher.runner_state(pane.paths) is RunnerState.RUNNING
    os.close(held[0])
    assert launcher.runner_state(pane.paths) is RunnerState.GONE


def test_stopping_ends_everything_and_is_recorded(pane: Pane) -> None:
    """What ignores HUP and TERM, and what hides in a session of its own, is gone; `exited` says why."""
    pane.shell(f"{HIDDEN} {STUBBORN}")
    agent, hidden = pane.pid("pid"), pane.pid("hidden")
    assert launcher.stop_agent(pane.paths)
    assert not lives(agent)
    assert not lives(hidden)
    data = pane.await_event("exited", 1)["data"]
    assert (data["exit_code"], data["signal"], data["asked"]) == (137, 9, signal.SIGTERM)
    assert data["killed"] >= 1
    assert launcher.stop_agent(pane.paths)


@pytest.mark.parametrize("wait", [0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04])
def test_an_agent_that_is_stopped_while_it_starts_does_not_start(pane: Pane, wait: float) -> None:
    """At whatever moment after the launch: when stopping is done, no agent runs and none will."""
    pane.shell("echo up >> up; sleep 60")
    time.sleep(wait)
    assert launcher.stop_agent(pane.paths)
    wait_until(lambda: (pane.tmux.sessions() or {})["job-1"].dead)
    assert launcher.runner_state(pane.paths) is RunnerState.GONE
    kinds = [event["kind"] for event in pane.events()]
    assert kinds in ([], ["spawned", "exited"])
    pane.write(["bash", "-c", "exit 8"])
    launcher.relaunch(pane.tmux, "job-1", pane.paths)
    wait_until(lambda: launcher.runner_state(pane.paths) is not RunnerState.STARTING)
    assert pane.await_end()["exit_code"] == 8


def test_a_pane_that_comes_up_after_its_job_is_over_closes_itself(pane: Pane) -> None:
    """Nobody has seen it. Its session goes with it, but for what a person has opened there."""
    pane.paths.runner_lock.write_text(f"{runner.ENDED}\n")
    argv = launcher.runner_argv(pane.paths)
    pane.tmux.start_session("kept", ["sleep", "600"], pane_log=pane.paths.pane_log)
    assert pane.place.tmux("new-window", "-d", "-t", "=kept:", "--", *argv).returncode == 0
    pane.tmux.start_session("job-1", argv, pane_log=pane.paths.pane_log)
    listed = ("list-panes", "-a", "-F", "#{session_name} #{pane_start_command}")
    wait_until(lambda: "pane.py" not in pane.place.tmux(*listed).stdout, what="the end of the panes")
    assert pane.place.tmux("list-panes", "-a", "-F", "#{session_name}").stdout == "kept\n"


def test_a_runner_that_comes_too_late_closes_no_pane_of_another_server(pane: Pane) -> None:
    """A server that has come to the place of its own has a pane of the same name."""
    pane.paths.runner_lock.write_text(f"{runner.ENDED}\n")
    socket = pane.tmux.start_session("other", ["sleep", "600"], pane_log=pane.paths.pane_log)
    environ = {**pane.place.environ, "TMUX": f"{socket},1,0", "TMUX_PANE": "%0"}
    argv = launcher.runner_argv(pane.paths)
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=20, check=False)
    assert done.returncode == runner.NOT_TO_RUN
    wait_until(
        lambda: not [each for each in pane.place.processes() if "if-shell" in each.command], what="tmux"
    )
    assert Tmux(socket=socket).has_session("other") is True


def test_a_runner_that_does_not_answer_is_killed_with_its_tree(pane: Pane) -> None:
    """A stopped runner cannot end its agent: after the time limit that is done for it."""
    pane.shell(f"{HIDDEN} {STUBBORN}")
    agent, hidden = pane.pid("pid"), pane.pid("hidden")
    record = launcher.read_record(pane.paths)
    assert record.runner is not None
    os.kill(record.runner.pid, signal.SIGSTOP)
    assert launcher.stop_agent(pane.paths, timeout=0.5)
    assert not any(map(lives, (agent, hidden, record.runner.pid)))
    assert launcher.runner_state(pane.paths) is RunnerState.GONE


def test_orphans_of_a_killed_runner_are_found_and_ended(pane: Pane) -> None:
    """After a kill -9 of the runner its agent and what that started live on; they are ended, all of them."""
    pane.shell(f"{HIDDEN} (setsid sleep 61 &) ; {STUBBORN}")
    agent, hidden = pane.pid("pid"), pane.pid("hidden")
    record = launcher.read_record(pane.paths)
    assert record.runner is not None
    assert launcher.end_orphans(pane.paths) == 0
    kill(record.runner.pid)
    wait_until(lambda: launcher.runner_state(pane.paths) is RunnerState.GONE)
    assert lives(agent)
    assert lives(hidden)
    assert launcher.end_orphans(pane.paths) >= 3
    assert not lives(agent)
    assert not lives(hidden)
    assert launcher.end_orphans(pane.paths) == 0


def test_f16_a_job_of_the_same_id_elsewhere_is_not_hit(pane: Pane) -> None:
    """Two registries may hold the same id: the orphans of one are no business of the other."""
    other = Pane.make(pane.place, "elsewhere/jobs/job-1")
    other.session = "other"
    other.shell("echo $$ > other; sleep 60")
    agent = other.pid("other")
    pane.shell(STUBBORN)
    pane.pid("pid")
    record = launcher.read_record(pane.paths)
    assert record.runner is not None
    kill(record.runner.pid)
    wait_until(lambda: launcher.end_orphans(pane.paths))
    assert lives(agent)
    assert launcher.stop_agent(other.paths)


@pytest.mark.parametrize("start", ["1", "boot"])
def test_a_stranger_with_the_recorded_pid_is_not_hit(pane: Pane, start: str) -> None:
    """A pid that was handed on, or that was recorded before the last boot, is nobody of ours."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        boot = processes.boot_id() if start == "1" else "another-boot"
        true_start = processes.start_of(stranger.pid) if start == "boot" else "1"
        line = f"{stranger.pid} {true_start} {boot}"
        pane.paths.runner_lock.write_text(f"runner {line}\nagent {line}\n")
        assert launcher.end_orphans(pane.paths) == 0
        assert launcher.stop_agent(pane.paths)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "runner", "runner x y z\n", "runner 1 2 3 4 5\n", "\0\xff" * 100])
def test_a_damaged_record_is_no_record(pane: Pane, text: str) -> None:
    """Whatever stands in the lock file, nobody is signalled on its word."""
    pane.paths.runner_lock.write_text(text)
    assert launcher.read_record(pane.paths) == launcher.Record()
    assert launcher.end_orphans(pane.paths) == 0


def test_relaunch_goes_on_in_the_same_session(pane: Pane) -> None:
    """The second agent runs where the first did, its words follow in the log; the first is ended before."""
    pane.shell(f"echo first; {STUBBORN}")
    first = pane.pid("pid")
    pane.write(["bash", "-c", "echo second; exit 8"])
    assert launcher.relaunch(pane.tmux, "job-1", pane.paths) is None
    assert not lives(first)
    assert pane.await_end()["exit_code"] == 8
    kinds = [event["kind"] for event in pane.events()]
    assert kinds == ["spawned", "exited", "spawned", "exited"]
    pane.log_shows("second")
    assert pane.paths.pane_log.read_text().startswith("first")


@pytest.mark.parametrize("gone", ["session", "server"])
def test_relaunch_makes_a_new_session_when_the_old_one_is_gone(pane: Pane, gone: str) -> None:
    """Removed by somebody, or with the whole tmux server: the agent gets a new one on the same socket."""
    pane.shell("exit 0")
    other = Pane.make(pane.place, "job-2")
    other.shell("sleep 60")
    pane.await_end()
    if gone == "session":
        pane.tmux.kill_session("job-1")
    else:
        kill(int(pane.place.tmux("display-message", "-p", "#{pid}").stdout))
        other.await_end()
    pane.write(["bash", "-c", "exit 8"])
    socket = launcher.relaunch(pane.tmux, "job-1", pane.paths)
    assert socket == pane.tmux.attach_argv("x")[2]
    wait_until(lambda: [event["kind"] for event in pane.events()].count("exited") == 2)
    assert pane.await_end()["exit_code"] == 8
    launcher.stop_agent(other.paths)


def test_relaunch_does_not_guess(pane: Pane) -> None:
    """When tmux does not say whether the session is there, nothing is started."""
    pane.shell("exit 0")
    pane.await_end()
    lost = Tmux(socket=str(pane.place.root / "no-such-socket"))
    with pytest.raises(TmuxError, match="does not say"):
        launcher.relaunch(lost, "job-1", pane.paths)
    assert [event["kind"] for event in pane.events()] == ["spawned", "exited"]


def test_signals_go_to_one_process_only() -> None:
    """A process whose start time is another, or that has ended, is not signalled."""
    with subprocess.Popen(["sleep", "60"]) as child:
        start = processes.start_of(child.pid)
        assert start is not None
        assert not processes.send(processes.Process(child.pid, f"{start}0"), signal.SIGKILL)
        assert child.poll() is None
        assert processes.send(processes.Process(child.pid, start), signal.SIGKILL)
        assert child.wait(5) == -signal.SIGKILL
    assert not processes.send(processes.Process(child.pid, start), signal.SIGKILL)
    assert processes.start_of(child.pid) is None


def test_the_process_table_reads_odd_names(place: Place) -> None:
    """A program named `) Z 1 (` is a living child of ours all the same."""
    program = place.root / ") Z 1 (x"
    program.symlink_to(Path("/bin/sleep").resolve())
    with subprocess.Popen([str(program), "60"]) as child:
        found = processes.table()[child.pid]
        assert (found.ppid, found.start) == (os.getpid(), processes.start_of(child.pid))
        assert child.pid in {
            process.pid for process in processes.descendants(processes.table(), [os.getpid()])
        }
        child.kill()


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="no ps here")
def test_ps_tells_the_same_as_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, ps gives the same tree."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        true = processes.table()[child.pid]
        monkeypatch.setattr(processes, "_HAS_PROC", False)
        found = processes.table()[child.pid]
        assert (found.ppid, found.pgid, found.sid) == (true.ppid, true.pgid, true.sid)
        assert processes.start_of(child.pid) == found.start
        assert processes.send(found, signal.SIGKILL)
        child.wait(5)
        assert processes.start_of(child.pid) is None
