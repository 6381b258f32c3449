"""Many that would own, end or forget the same job at the same moment: one does, and nothing happens twice."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest

from harness import Place, wait_until
from takeovers import (
    COMPLETED,
    ENDLESS,
    REPORT,
    UNTIL_SPAWNED,
    UNTIL_TOLD,
    await_result,
    events,
    kill,
    kinds,
    nothing_left,
    reported,
    submit_detached,
    supervisor_pid,
)

RACER = """
import os, sys
from pathlib import Path
from delegate_job import locks
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.signals import hearing_signals
from delegate_job.supervisor import Supervisor
from delegate_job.wire import EmbeddedWire, remove_dead_socket

def wire_for(row):
    socket = registry.paths.job(row.job.id).broker_socket
    remove_dead_socket(socket)
    return EmbeddedWire(socket_path=socket)

class Quiet:
    def happened(self, job, event, sequence, *, applied): pass
    def task(self, job, instructions): pass
    def warn(self, text): print(text, file=sys.stderr)
    def tick(self): pass

def dropped(job_id, error):
    raise error

name = sys.argv[2]
with Registry(RegistryPaths(Path(sys.argv[1]))) as registry, hearing_signals() as inbox:
    os.read(0, 1)
    lock = locks.acquire(registry.paths.job(name).lock)
    print("refused" if lock is None else "owned", flush=True)
    if lock is not None:
        supervisor = Supervisor(registry, Quiet(), wire_for, inbox, dropped=dropped)
        supervisor.own(name, lock)
        supervisor.run()
"""
AT_WORK = f"{UNTIL_SPAWNED}\n{REPORT} started\n{UNTIL_TOLD}\n{REPORT} progress --detail half\n{COMPLETED}"


def orphaned(place: Place, agent: str) -> str:
    """Return the id of a job at work whose owner was killed. Only while nobody takes over."""
    submit = place.start(*place.submit_args(agent, "--close"))
    name = reported(place, "started")
    place.await_state(name, "running")
    kill(submit)
    return name


def owner_epoch(place: Place, name: str) -> int:
    """Return how often the job was taken by an owner, as the registry has it."""
    database = f"{(place.registry / 'registry.db').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as registry:
        (epoch,) = registry.execute("SELECT owner_epoch FROM jobs WHERE id = ?", (name,)).fetchone()
    return int(epoch)


def is_told_once(place: Place, name: str) -> bool:
    """Say whether each event of a job stands in its file once, in order, and its agent's reports with it."""
    happened = events(place, name)
    sequences = [each["sequence"] for each in happened]
    agents = Counter(each["kind"] for each in happened if each["source"] == "agent")
    return sequences == sorted(set(sequences)) and set(agents.values()) == {1}


def failed(processes: "list[subprocess.Popen[str]]") -> bool:
    """Say whether one of them has ended as it should not."""
    return any(process.poll() for process in processes)


def test_of_ten_owners_one_gets_the_job(place: Place) -> None:
    """Ten processes reach for one job's lock at once: one owns and ends it, the epoch rises by one."""
    place.run("list")
    with place.nobody_takes_over():
        name = orphaned(place, AT_WORK)
        before = owner_epoch(place, name)
        gun, barrel = os.pipe()
        words = (sys.executable, "-c", RACER, place.registry, name)
        racers = [place.spawn(*words, stdin=gun) for _ in range(10)]
        os.close(gun)
        os.close(barrel)
        wait_until(lambda: owner_epoch(place, name) > before or failed(racers), what="an owner")
        (place.work / "go").touch()
        said = [racer.communicate(timeout=60) for racer in racers]
    assert Counter(stdout for stdout, _ in said) == {"refused\n": 9, "owned\n": 1}, said
    assert [racer.returncode for racer in racers] == [0] * 10, said
    assert await_result(place, name)["outcome"] == "accepted"
    assert owner_epoch(place, name) == before + 1
    assert kinds(place, name) == [
        "registered",
        "launching",
        "spawned",
        "started",
        "progress",
        "completed",
        "closed",
    ]
    assert is_told_once(place, name)
    nothing_left(place)


def test_ten_supervisors_and_ten_waits_at_once(place: Place) -> None:
    """Whoever of them is first, there is one supervisor; it takes the job once, all are told the end."""
    place.run("list")
    with place.nobody_takes_over():
        name = orphaned(place, AT_WORK)
        before = owner_epoch(place, name)
    supervisors = [place.start("supervise") for _ in range(10)]
    waits = [place.start("wait", name) for _ in range(10)]
    wait_until(lambda: owner_epoch(place, name) > before, what="an owner")
    (place.work / "go").touch()
    assert [each.wait(60) for each in waits] == [0] * 10
    assert owner_epoch(place, name) == before + 1
    assert is_told_once(place, name)
    assert await_result(place, name)["outcome"] == "accepted"
    # One of them is it, or none when a `wait` was the first to start one.
    wait_until(lambda: all(is_over(each, place) for each in supervisors), what="the others' end")
    for each in supervisors:
        if each.poll() is None:
            each.terminate()
            assert each.wait(20) == 0
        else:
            assert each.returncode not in {0, 70}
            assert "has a supervisor already" in each.communicate()[1]
    nothing_left(place)


def is_over(supervisor: "subprocess.Popen[str]", place: Place) -> bool:
    """Say whether a supervisor has ended, or is the one."""
    return supervisor.poll() is not None or supervisor_pid(place) == supervisor.pid


def test_ten_cancels_of_a_job_without_an_owner(place: Place) -> None:
    """Each sees to it that somebody owns the job; one does, it is cancelled once, and all ten say so."""
    place.run("list")
    with place.nobody_takes_over():
        name = orphaned(place, ENDLESS)
        before = owner_epoch(place, name)
    cancels = [place.start("cancel", name) for _ in range(10)]
    said = [each.communicate(timeout=60) for each in cancels]
    assert ({each.returncode for each in cancels}, {stdout for stdout, _ in said}) == (
        {0},
        {f"{name} cancelled\n"},
    ), said
    assert await_result(place, name)["outcome"] == "cancelled"
    assert owner_epoch(place, name) == before + 1
    happened = Counter(kinds(place, name))
    assert (happened["cancel_requested"], happened["closed"]) == (1, 1)
    assert is_told_once(place, name)
    nothing_left(place)


def test_a_handover_and_a_running_supervisor(place: Place) -> None:
    """A submit that hands its job over while a supervisor looks for jobs: taken once, by that one."""
    supervise = place.start("supervise")
    wait_until(lambda: supervisor_pid(place) == supervise.pid, what="the supervisor")
    submit = place.start(*place.submit_args(AT_WORK, "--close"))
    name = reported(place, "started")
    place.await_state(name, "running")
    before = owner_epoch(place, name)
    os.kill(submit.pid, signal.SIGHUP)
    assert submit.wait(20) == 129
    wait_until(lambda: owner_epoch(place, name) > before, what="the takeover")
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0
    assert owner_epoch(place, name) == before + 1
    assert is_told_once(place, name)
    await_result(place, name)
    supervise.terminate()
    assert supervise.wait(20) == 0
    nothing_left(place)


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_the_end_of_the_job_whose_runner_had_the_supervisor_started(place: Place, how: str) -> None:
    """Neither its end nor a kill -9 of its runner ends the supervisor: the other jobs go on under it."""
    submit = place.start(*place.submit_args(ENDLESS, "--close"))
    first = reported(place, "started")
    place.await_state(first, "running")
    kill(submit)
    pid = wait_until(lambda: supervisor_pid(place), what="a supervisor")
    others = [submit_detached(place, AT_WORK, "--close") for _ in range(2)]
    for name in others:
        wait_until(lambda: "started" in kinds(place, name), what="its start")  # noqa: B023 - called at once
    if how == "cancel":
        assert place.run("cancel", first).stdout == f"{first} cancelled\n"
    else:
        runner = (place.registry / "jobs" / first / "runner.lock").read_text().split()[1]
        os.kill(int(runner), signal.SIGKILL)
        assert await_result(place, first)["outcome"] == "lost"
    os.kill(pid, 0)
    (place.work / "go").touch()
    assert place.run("wait", *others).returncode == 0
    assert supervisor_pid(place) == pid
    assert [owner_epoch(place, name) for name in others] == [1, 1]
    nothing_left(place)


def test_prunes_that_race_the_end_of_jobs(place: Place) -> None:
    """While jobs end one after another, `prune` of everything takes each when it is whole, and in whole."""
    agent = f"{REPORT} started\nsleep 0.$((RANDOM % 9))\n{COMPLETED}"
    names = [submit_detached(place, agent, "--close") for _ in range(8)]
    pruned: Counter[str] = Counter()

    def all_gone() -> bool:
        prunes = [place.start("prune", "--older-than", "0s") for _ in range(3)]
        for each in prunes:
            stdout, stderr = each.communicate(timeout=60)
            assert (each.returncode, stderr.removesuffix(" forgotten\n").isdecimal()) == (0, bool(stderr))
            pruned.update(stdout.split())
        return place.jobs() == []

    wait_until(all_gone, 90, "the end of all jobs")
    assert set(pruned) == set(names)
    outcomes = [json.loads((place.log_dir(name) / "result.json").read_text())["outcome"] for name in names]
    assert outcomes == ["accepted"] * 8
    log = place.registry / "supervisor.log"
    assert (log.read_text() if log.exists() else "") == ""
    assert json.loads(place.run("list", "--json").stdout) == []
    nothing_left(place)
