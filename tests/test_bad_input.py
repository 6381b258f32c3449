"""What is promised when anybody writes anything: the owner lives on, and the job ends as it would have."""

import json
import os
import random
import signal
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from harness import Place, job_id, wait_until

REPORT = '"$DJ" publish --event'
WAITS = f"{REPORT} started\nuntil [ -e go ]; do sleep 0.05; done\n{REPORT} completed"


@pytest.fixture(params=[(), ("--detach",)], ids=["foreground", "detached"])
def running(place: Place, request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a job whose agent waits; at the end it must be accepted, by an owner that has lived on."""
    owner = place.start(*place.submit_args(WAITS, "--close", *request.param))
    name = place.await_job()
    place.await_state(name, "running")
    before = place.job(name)["owner"]
    yield name
    after = place.job(name)["owner"]
    (place.work / "go").touch()
    assert place.run("wait", name, timeout=60).returncode == 0
    assert owner.wait(20) == 0
    assert after in (before, None)


def noise(seed: int, name: str) -> Iterator[bytes]:
    """Yield payloads from nearly right to sheer nonsense."""
    dice = random.Random(seed)
    good: dict[str, object] = {
        "id": "x",
        "job_id": name,
        "kind": "progress",
        "at": "2026-01-01T00:00:00Z",
        "detail": "d",
        "data": {},
    }
    odd: list[object] = [
        None,
        0,
        -1,
        1e308,
        True,
        [],
        {},
        [[]],
        "",
        "\ud800",
        "\x00",
        "9" * 400,
        {"a": {"b": [1]}},
    ]
    for number in range(300):
        event = good | {"id": f"noise-{seed}-{number}"}
        for field in dice.sample(sorted(event), dice.randint(0, 3)):
            event[field] = dice.choice(odd)
        raw = json.dumps(event).encode()
        if dice.random() < 0.4:
            spoiled = bytearray(raw)
            for _ in range(dice.randint(1, 8)):
                spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
            raw = bytes(spoiled)
        # What would end the job is no noise.
        yield raw.replace(b"completed", b"c0mpleted").replace(b'"error"', b'"err0r"')
    yield from (b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 10_000, b"null", b"1e999", b"\x00" * 1000)


@pytest.mark.parametrize("seed", [1, 2])
def test_reports_of_noise_are_borne(place: Place, running: str, seed: int) -> None:
    """Fuzzed lines, holes, torn ends and 10 MB in one line in reports.jsonl."""
    with (place.log_dir(running) / "reports.jsonl").open("ab") as file:
        for payload in noise(seed, running):
            file.write(payload + b"\n")
        file.write(b'{"detail": "' + b"x" * 10_000_000 + b'"}\n')
        file.write(b'{"torn')


@pytest.mark.parametrize("seed", [3, 4])
def test_messages_of_noise_are_borne(place: Place, running: str, seed: int) -> None:
    """Fuzzed payloads and topics from a client with the job's own token."""
    connection = json.loads((place.registry / "jobs" / running / "connection.json").read_text())
    broker, dice = connection["broker"], random.Random(seed)
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(broker["user"], broker["password"])
    client.connect(broker["host"], broker["port"])
    client.loop_start()
    own = f"delegate-job/v1/{running}"
    topics = [f"{own}/report/{kind}" for kind in ("progress", "started", "nonsense", "a/b", "é" * 200, " ")]
    topics += [f"{own}/state", f"{own}/owner", "delegate-job/v1/other/report/completed", "$SYS/x", "/"]
    for payload in noise(seed, running):
        client.publish(dice.choice(topics), payload, qos=dice.choice((0, 1)), retain=dice.random() < 0.5)
    client.loop_stop()


def test_what_is_unknown_is_kept(place: Place, running: str) -> None:
    """Unknown fields stand in `data`, an unknown kind is recorded and not applied, a long detail is cut."""
    lines = [
        {"id": "u1", "kind": "progress", "detail": "seen", "colour": "red"},
        {"id": "u2", "kind": "daydreaming"},
        {"id": "u3", "kind": "progress", "detail": "y" * 200_000},
    ]
    with (place.log_dir(running) / "reports.jsonl").open("a") as file:
        file.writelines(json.dumps(line | {"job_id": running}) + "\n" for line in lines)

    def recorded() -> dict[str, dict[str, object]]:
        logged = map(json.loads, place.run("logs", running, "--json").stdout.splitlines())
        found = {event["id"]: event for event in logged}
        return found if "u3" in found else {}

    events = wait_until(recorded, what="the last of them")
    assert all(event["sequence"] for event in events.values())
    assert events["u1"]["data"] == {"colour": "red"}
    assert (events["u2"]["kind"], events["u2"]["applied"]) == ("daydreaming", False)
    assert len(str(events["u3"]["detail"])) == 65536


def test_fifty_publishers_at_once(place: Place, running: str) -> None:
    """Reports of fifty processes for one job at the same moment all stand in its log, once."""
    words = ("publish", "--event", "progress", "--job", running, "--detail")
    publishers = [place.start(*words, str(number)) for number in range(50)]
    assert {process.wait(100) for process in publishers} == {0}

    def all_there() -> bool:
        logged = map(json.loads, place.run("logs", running, "--json").stdout.splitlines())
        return sorted(event["detail"] or "" for event in logged if event["kind"] == "progress") == sorted(
            map(str, range(50))
        )

    wait_until(all_there, 20, "fifty reports")


def test_twenty_submits_at_once(place: Place) -> None:
    """Twenty processes that make one new registry and a job in it each: twenty jobs, each ended rightly."""
    submits = [
        place.start(*place.submit_args(f"{REPORT} completed", "--detach", "--close")) for _ in range(20)
    ]
    names = {job_id(process.communicate(timeout=60)[0]) for process in submits}
    assert len(names) == 20
    assert place.run("wait", *names, timeout=90).returncode == 0


def test_a_prune_that_races_an_owner_takes_no_job(place: Place, running: str) -> None:
    """`prune` of everything, again and again beside a running job, forgets the finished ones alone."""
    done = job_id(place.submit(f"{REPORT} completed", "--close").stdout)
    prunes = [place.start("prune", "--older-than", "0s") for _ in range(4)]
    assert {process.wait(30) for process in prunes} == {0}
    listed = {job["id"] for job in json.loads(place.run("list", "--json").stdout)}
    assert running in listed
    assert done not in listed


def test_a_stopped_owner_is_no_dead_one(place: Place, running: str) -> None:
    """An owner that stands still for a while keeps its job: nobody takes it over, and it goes on."""
    owner = place.job(running)["owner"]
    os.kill(owner["pid"], signal.SIGSTOP)
    try:
        with (place.log_dir(running) / "reports.jsonl").open("a") as file:
            file.write(json.dumps({"id": "s1", "kind": "progress", "job_id": running}) + "\n")
        assert place.job(running)["owner"] == owner
    finally:
        os.kill(owner["pid"], signal.SIGCONT)
