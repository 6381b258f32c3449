"""A tmux that does not answer, and panes that die: seen in the background, while other jobs go on."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from delegate_job import own_session
from delegate_job.agent_session import RUNNER_START_TIMEOUT
from delegate_job.tmux import Tmux
from delegate_job.tmux_call import AT_ONCE, SILENT_FOR
from harness import Place, wait_until
from takeovers import (
    COMPLETED,
    ENDLESS,
    UNTIL_TOLD,
    await_result,
    kinds,
    nothing_left,
    reported,
    submit_detached,
)

BETTER = f"{COMPLETED}\nread -r line\ntouch better\n{COMPLETED}"


def tmux_server(place: Place) -> int:
    """Return the process id of the place's tmux server."""
    return int(place.tmux("display-message", "-p", "#{pid}").stdout)


@pytest.fixture
def stopped(place: Place) -> Iterator[list[int]]:
    """Give a list: the processes in it are let go on before the place is closed."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def person(place: Place) -> str:
    """Submit a person's job, which has no tmux, and return its id as soon as it runs."""
    done = place.run("submit", "--agent", "human", "--prompt", "Water.", "--detach", "--json")
    name = str(json.loads(done.stdout)["id"])
    place.await_state(name, "running")
    return name


PATIENT = """
import subprocess
from pathlib import Path
from types import SimpleNamespace
from delegate_job import own_session, tmux_call

class Call(subprocess.Popen):
    def communicate(self, data=None, timeout=None):
        while not Path({limited!r}).exists():
            try:
                return super().communicate(data, timeout=0.1)
            except subprocess.TimeoutExpired:
                data = None
        return super().communicate(data, timeout)

start = lambda argv, **options: Call(argv, start_new_session=True, **options)
tmux_call.own_session = SimpleNamespace(start=start, finish=own_session.finish)
"""
"""Makes the time limit of a call of tmux begin only when a file is there."""


@pytest.fixture
def limited(place: Place) -> Path:
    """Give the file without which no call of tmux of this place runs into its limit."""
    limited = place.root / "limited"
    (place.root / "patient").mkdir()
    (place.root / "patient/sitecustomize.py").write_text(PATIENT.format(limited=str(limited)))
    place.environ["PYTHONPATH"] = str(place.root / "patient")
    return limited


def applied_during(place: Place, call: str, name: str, detail: str) -> bool:
    """Report, wait until the owner has applied it, and say whether a call of tmux still waits for its answer.

    An owner that waited for that call would have applied nothing.
    """
    events = place.registry / "jobs" / name / "events.jsonl"
    assert place.run("publish", "--job", name, "--event", "progress", "--detail", detail).returncode == 0
    wait_until(lambda: detail in events.read_text(), what=detail)
    return hangs(place, call)


def hangs(place: Place, call: str) -> bool:
    """Say whether a client of tmux asks for this."""
    return any(call in process.command.split() for process in place.processes())


def test_a_job_that_cannot_be_told_keeps_no_other_waiting(
    place: Place, stopped: list[int], limited: Path
) -> None:
    """The server stands still while a rejection is to be pasted: another job's reports are applied meanwhile.

    When it goes on, so does the first job: it is told, improves, and is accepted.
    """
    check = place.script(
        "check",
        f"[ -e {place.root}/checked ] || {{ touch {place.root}/checked; "
        f"until [ -e {place.root}/go ]; do sleep 0.05; done; }}; [ -e {place.work}/better ]",
    )
    first = submit_detached(place, BETTER, "--validate", check, "--attempts", "2", "--close")
    other = person(place)
    wait_until((place.root / "checked").exists, what="the check")
    stopped.append(tmux_server(place))
    os.kill(stopped[0], signal.SIGSTOP)
    (place.root / "go").touch()
    wait_until(lambda: "telling" in kinds(place, first), what="the telling")
    wait_until(lambda: hangs(place, "load-buffer"), what="the paste")
    for number in range(4):
        assert applied_during(place, "load-buffer", other, f"number {number}")
    assert place.job(first)["state"] == "running"
    os.kill(stopped.pop(), signal.SIGCONT)
    assert await_result(place, first, SILENT_FOR + 30)["outcome"] == "accepted"
    assert place.run("cancel", other).returncode == 0
    nothing_left(place)


def test_a_launch_that_hangs_keeps_no_other_waiting(place: Place, stopped: list[int], limited: Path) -> None:
    """A launch that tmux does not answer ends as not started; meanwhile another job is heard."""
    keeper = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    other = person(place)
    stopped.append(tmux_server(place))
    os.kill(stopped[0], signal.SIGSTOP)
    name = submit_detached(place, f"touch ran\n{COMPLETED}", "--close")
    wait_until(lambda: "launching" in kinds(place, name), what="the launch")
    wait_until(lambda: hangs(place, "new-session"), what="the call of tmux")
    assert applied_during(place, "new-session", other, "meanwhile")
    limited.touch()
    assert await_result(place, name)["outcome"] == "not_started"
    os.kill(stopped.pop(), signal.SIGCONT)
    for each in (keeper, other):
        # While tmux is not asked, whether the session has ended cannot be said.
        wait_until(partial(is_cancelled, place, each), SILENT_FOR + 30, f"the end of {each}")
    assert not (place.work / "ran").exists()
    # What tmux was asked before, it does now: a session that ends by itself, as nothing is to run in it.
    nothing_left(place)


def is_cancelled(place: Place, name: str) -> bool:
    """Cancel a job, and say whether that was done."""
    return place.run("cancel", name).returncode == 0


def test_a_launch_waits_while_tmux_is_known_to_give_no_answer(place: Place, stopped: list[int]) -> None:
    """After a call that took too long none is made for a while; what comes then waits, and is done."""
    keeper = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    stopped.append(tmux_server(place))
    os.kill(stopped[0], signal.SIGSTOP)
    lost = submit_detached(place, COMPLETED, "--close")
    assert await_result(place, lost)["outcome"] == "not_started"
    name = submit_detached(place, COMPLETED, "--close")
    place.await_state(name, "launching")
    os.kill(stopped.pop(), signal.SIGCONT)
    assert await_result(place, name, SILENT_FOR + 30)["outcome"] == "accepted"
    assert place.run("cancel", keeper).returncode == 0
    nothing_left(place)


def test_a_session_that_cannot_be_ended_now_is_ended_when_tmux_answers_again(
    place: Place, stopped: list[int]
) -> None:
    """No session is left behind because its server stood still at the end of the job."""
    keeper = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    name = submit_detached(place, f"{UNTIL_TOLD}\n{COMPLETED}", "--close")
    place.await_state(name, "running")
    stopped.append(tmux_server(place))
    os.kill(stopped[0], signal.SIGSTOP)
    (place.work / "go").touch()
    place.await_state(name, "done")
    socket = str(place.tmux_sockets()[0])
    log = place.registry / "jobs" / name / "control.jsonl"
    wait_until(lambda: '"exited"' in log.read_text(), what="the agent's end")
    # A call is on its way, and will have run into its limit.
    wait_until(iter([False] * 350 + [True]).__next__, 30)
    os.kill(stopped.pop(), signal.SIGCONT)
    wait_until(
        lambda: Tmux(socket=socket).has_session(f"dj-{name}") is False, SILENT_FOR + 30, "the session's end"
    )
    assert await_result(place, name)["outcome"] == "accepted"
    assert place.run("cancel", keeper).returncode == 0
    nothing_left(place)


def late_tmux(place: Place) -> dict[str, str]:
    """Return an environment whose tmux does what it is asked, and tells of a launch only a second later."""
    real = shutil.which("tmux", path=place.environ["PATH"])
    (place.root / "bin").mkdir()
    late = f'touch {place.root}/asked; "{real}" "$@"; code=$?; sleep 1; exit $code'
    place.script(
        "bin/tmux", f'case "$*" in *--supervise*) ;; *new-session*) {late};; esac\nexec "{real}" "$@"'
    )
    return {"PATH": f"{place.root}/bin:{place.environ['PATH']}"}


def test_cancelled_in_the_midst_of_a_launch(place: Place) -> None:
    """What tmux has started by then is ended, although its owner hears of it only after the end."""
    submit = place.start(*place.submit_args("exec sleep 600", "--close"), env=late_tmux(place))
    wait_until((place.root / "asked").exists, what="the launch")
    submit.send_signal(signal.SIGTERM)
    assert submit.wait(20) == 128 + signal.SIGTERM
    assert place.job(place.await_job())["outcome"] == "cancelled"
    nothing_left(place)


def test_handed_over_in_the_midst_of_a_launch(place: Place) -> None:
    """The next owner finds the session, knows its server, and the agent has run once."""
    agent = f"echo run >> runs\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent, "--close"), env=late_tmux(place))
    wait_until((place.root / "asked").exists, what="the launch")
    submit.send_signal(signal.SIGHUP)
    assert submit.wait(20) == 128 + signal.SIGHUP
    (place.work / "go").touch()
    name = place.await_job()
    assert await_result(place, name)["outcome"] == "accepted"
    assert (place.work / "runs").read_text() == "run\n"
    nothing_left(place)


def test_a_claim_before_tmux_has_answered_counts(place: Place) -> None:
    """An agent that is done before its launch is told of: accepted, and its session is closed."""
    done = place.submit(COMPLETED, "--close", env=late_tmux(place))
    assert done.returncode == 0, done
    nothing_left(place)


def test_a_pane_that_dies_before_its_runner_starts_is_noticed_at_once(place: Place) -> None:
    """An interpreter that can't start ends its job as not started, long before the runner's time is over."""
    broken = place.script("broken-python", "echo cannot start >&2; exit 1")
    real = shutil.which("tmux", path=place.environ["PATH"])
    (place.root / "bin").mkdir()
    place.script(
        "bin/tmux",
        'words=()\nfor word in "$@"; do case $word in */python*) word='
        f'{broken};; esac; words+=("$word"); done\nexec "{real}" "${{words[@]}}"',
    )
    env = {"PATH": f"{place.root}/bin:{place.environ['PATH']}"}
    done = place.submit(COMPLETED, env=env, timeout=RUNNER_START_TIMEOUT / 2)
    assert done.returncode == 7, done
    assert "its pane ended before the runner started" in done.stdout
    place.tmux("kill-server")
    nothing_left(place)


def test_a_server_that_gave_no_answer_is_not_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call runs into its limit; the next ones return at once, and others' servers are asked."""
    (place.root / "bin").mkdir()
    place.script("bin/tmux", f"echo >> {place.root}/calls; exec sleep 600")
    monkeypatch.setenv("PATH", f"{place.root}/bin:{os.environ['PATH']}")
    start = own_session.start

    def started(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
        process = start(argv, **options)
        wait_until((place.root / "calls").exists, what="the call")
        return process

    # The time of a call begins when it is under way: that of a busy machine is not meant.
    monkeypatch.setattr(own_session, "start", started)
    hung = Tmux(socket=f"{place.root}/hung", timeout=0.3)
    assert hung.server.answers
    assert [hung.capture("job") for _ in range(5)] == [None] * 5
    assert (hung.server.answers, Tmux(socket=f"{place.root}/other").server.answers) == (False, True)
    assert (place.root / "calls").read_text() == "\n"


def test_many_calls_of_one_server_take_turns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server does one thing at a time: of many that ask it at once, none runs into its limit for that."""
    (place.root / "bin").mkdir()
    (place.root / "running").mkdir()
    place.script(
        "bin/tmux",
        f"touch {place.root}/running/$$; ls {place.root}/running | wc -l >> {place.root}/counts; sleep 0.05; "
        f"rm {place.root}/running/$$; echo here",
    )
    monkeypatch.setenv("PATH", f"{place.root}/bin:{os.environ['PATH']}")
    tmux = Tmux(socket=f"{place.root}/slow", timeout=60)
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(tmux.capture, ["job"] * 24)) == ["here\n"] * 24
    assert max(map(int, (place.root / "counts").read_text().split())) <= AT_ONCE
