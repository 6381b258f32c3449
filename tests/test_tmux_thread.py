"""A tmux that does not answer, and panes that die: seen in the background, while other jobs go on."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

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


def applied_within(place: Place, name: str, detail: str) -> float:
    """Report, and return the seconds from then on until the owner had applied it."""
    events = place.registry / "jobs" / name / "events.jsonl"
    assert place.run("publish", "--job", name, "--event", "progress", "--detail", detail).returncode == 0
    began = time.monotonic()
    wait_until(lambda: detail in events.read_text(), 15, detail)
    return time.monotonic() - began


def test_a_job_that_cannot_be_told_keeps_no_other_waiting(place: Place, stopped: list[int]) -> None:
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
    wait_until(lambda: "telling" in kinds(place, first), what="the paste")
    for number in range(4):
        # What is promised is a second; a call of tmux takes five until it is given up.
        assert applied_within(place, other, f"number {number}") < 3
    assert place.job(first)["state"] == "running"
    os.kill(stopped.pop(), signal.SIGCONT)
    assert await_result(place, first, SILENT_FOR + 30)["outcome"] == "accepted"
    assert place.run("cancel", other).returncode == 0
    nothing_left(place)


def test_a_launch_that_hangs_keeps_no_other_waiting(place: Place, stopped: list[int]) -> None:
    """A launch that tmux does not answer ends as not started; meanwhile another job is heard."""
    keeper = submit_detached(place, ENDLESS, "--close")
    reported(place, "started")
    other = person(place)
    stopped.append(tmux_server(place))
    os.kill(stopped[0], signal.SIGSTOP)
    name = submit_detached(place, f"touch ran\n{COMPLETED}", "--close")
    place.await_state(name, "launching")
    assert applied_within(place, other, "meanwhile") < 3
    assert await_result(place, name)["outcome"] == "not_started"
    os.kill(stopped.pop(), signal.SIGCONT)
    for each in (keeper, other):
        assert place.run("cancel", each).returncode == 0
    assert not (place.work / "ran").exists()
    # What tmux was asked before, it does now: a session that ends by itself, as nothing is to run in it.
    nothing_left(place)


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
    tmux = Tmux(socket=f"{place.root}/slow", timeout=5)
    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(tmux.capture, ["job"] * 24)) == ["here\n"] * 24
    assert max(map(int, (place.root / "counts").read_text().split())) <= AT_ONCE
