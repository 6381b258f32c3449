"""What a job says over MQTT, heard by others' clients; and who may say what on the embedded broker."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_servers import Mosquitto
from delegate_job import mqtt
from delegate_job.mqtt import Address, parse_url
from delegate_job.wire import EmbeddedWire, Hears
from harness import Place, job_id, wait_until
from subscribers import (
    Follower,
    Told,
    from_mosquitto_sub,
    observer,
    start_mosquitto_sub,
    with_mosquitto_sub,
    with_paho,
)
from traces import holding, printed, showing

REPORT = '"$DJ" publish --timeout 20 --event'
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"
WHOLE = {"state", "owner", "report/started", "report/completed"}
Subscriber = Callable[[Place, Address, str, int], list[Told]]
subscribers = pytest.mark.parametrize("subscriber", [with_mosquitto_sub, with_paho])


def begin(place: Place, agent: str, *options: str | Path) -> str:
    """Start a submit and return the id of its job once the job runs."""
    known = set(place.jobs())
    place.start(*place.submit_args(agent, *options))
    (name,) = wait_until(lambda: set(place.jobs()) - known, what="a new job")
    wait_until((place.registry / "jobs" / name / "connection.json").exists, what="connection.json")
    return name


def running(place: Place, *options: str | Path) -> str:
    """Return a job whose agent has reported and goes on."""
    name = begin(place, f"{REPORT} started\nexec sleep 600", *options)
    wait_until(lambda: "started" in reports(place, name), what="the first report")
    return name


def reports(place: Place, name: str) -> str:
    """Return what was claimed for a job so far."""
    file = place.log_dir(name) / "reports.jsonl"
    return file.read_text() if file.exists() else ""


def await_told(place: Place, name: str, state: str, names: set[str]) -> None:
    """Wait until the job's broker has its state and messages of these names: the owner tells what it did."""
    with Follower(observer(place, name)) as seen:
        seen.subscribe(mqtt.job_filter(name))
        seen.await_fields("state", state=state)
        seen.await_names(names)


def secrets(place: Place, name: str) -> mqtt.Connection:
    """Return what the job's own processes are given to connect with."""
    return mqtt.read_connection(place.registry / "jobs" / name / "connection.json")


def end(place: Place, *names: str) -> None:
    """Let the jobs of a place end, and their submits with them."""
    for name in names:
        assert place.run("cancel", name).returncode == 0
    for process in place.running:
        process.communicate(timeout=20)


# Who comes late


@subscribers
def test_a_subscriber_that_comes_after_the_claim_is_told_all_of_it(
    place: Place, subscriber: Subscriber
) -> None:
    """`completed` and the state are told to who connects only while the check already runs."""
    check = place.script("check", UNTIL_GO)
    name = begin(place, f"{REPORT} started\n{REPORT} completed --detail all", "--validate", check)
    place.await_state(name, "checking")
    await_told(place, name, "checking", WHOLE)
    told = {each.name: each for each in subscriber(place, observer(place, name), mqtt.job_filter(name), 4)}
    (place.work / "go").touch()
    assert set(told) == WHOLE
    assert all(each.retained for each in told.values())
    assert told["report/completed"].fields["detail"] == "all"
    assert (told["state"].fields["id"], told["state"].fields["state"]) == (name, "checking")
    assert told["owner"].fields == {"owner": "present", "epoch": 1}


def test_a_subscriber_hears_the_end_before_the_embedded_broker_leaves(place: Place) -> None:
    """The final state and `gone` are told while the broker that says them is still there."""
    check = place.script("check", UNTIL_GO)
    name = begin(place, f"{REPORT} started\n{REPORT} completed", "--validate", check)
    place.await_state(name, "checking")
    with Follower(observer(place, name)) as follower:
        follower.subscribe(mqtt.job_filter(name))
        follower.await_names(WHOLE)
        (place.work / "go").touch()
        final = follower.await_fields("state", state="done")
        follower.await_fields("owner", owner="gone")
    assert not final.retained
    said = {key: final.fields[key] for key in ("outcome", "verdict", "exit_code")}
    assert said == {"outcome": "accepted", "verdict": "passed", "exit_code": 0}
    sequences = [each.fields["sequence"] for each in follower.heard if each.name == "state"]
    assert sequences == sorted(set(sequences))


def test_mosquitto_sub_hears_the_end_before_the_embedded_broker_leaves(place: Place) -> None:
    """A follower that is not ours is told the final state too."""
    name = begin(place, f"{REPORT} started\n{UNTIL_GO}\n{REPORT} completed")
    await_told(place, name, "running", {"state"})
    follower = start_mosquitto_sub(place, observer(place, name), mqtt.state_topic(name), 100)
    # It has subscribed once it has printed what was kept.
    assert follower.stdout is not None
    first = from_mosquitto_sub(follower.stdout.readline())[0]
    (place.work / "go").touch()
    (last,) = from_mosquitto_sub(_last_line(follower.stdout, lambda line: '"outcome": "accepted"' in line))
    assert (first.retained, last.retained) == (True, False)


def _last_line(lines: Iterator[str], wanted: Callable[[str], bool]) -> str:
    return next(line for line in lines if wanted(line))


@subscribers
@pytest.mark.parametrize("server", ["delegate-job broker", "mosquitto"])
def test_who_comes_after_the_end_is_told_how_it_ended(
    place: Place, subscriber: Subscriber, server: str, request: pytest.FixtureRequest
) -> None:
    """On a broker that outlives submit, `completed` and the final state are there when all is over."""
    if server == "mosquitto":
        mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
        owner = reader = mosquitto.url
    else:
        owner, reader = standalone(place)
    name = job_id(place.submit(f"{REPORT} started\n{REPORT} completed", "--broker", owner).stdout)
    told = {each.name: each for each in subscriber(place, parse_url(reader), mqtt.job_filter(name), 4)}
    assert set(told) == WHOLE
    assert told["report/completed"].fields["kind"] == "completed"
    assert told["state"].fields["outcome"] == "accepted"
    assert told["owner"].fields == {"owner": "gone", "epoch": 1}


def standalone(place: Place) -> tuple[str, str]:
    """Start `delegate-job broker` and return the URLs of the owner and of an observer."""
    process = place.start("broker", "--observer")
    assert process.stdout is not None
    urls = json.loads(process.stdout.readline())
    return urls["url"], urls["observer_url"]


def test_what_status_tells_of_a_connection_works_as_it_stands(place: Place) -> None:
    """The two lines for people are the URL and the topics, and the JSON holds both in pieces."""
    name = running(place)
    await_told(place, name, "running", {"state", "owner", "report/started"})
    url, topics = place.run("status", name, "--connection").stdout.splitlines()
    said = json.loads(place.run("status", name, "--connection", "--json").stdout)
    assert (url, topics) == (said["url"], said["topics"])
    assert parse_url(url) == Address(said["host"], said["port"], user=said["user"], password=said["token"])
    told = with_mosquitto_sub(place, parse_url(url), topics, 3)
    assert {each.name for each in told} == {"state", "owner", "report/started"}
    end(place, name)
    over = place.run("status", name, "--connection")
    assert (over.returncode, over.stdout) == (2, "")
    assert "it is done" in over.stderr


# Who reports early


@pytest.mark.parametrize("round_", range(3))
def test_a_report_made_before_anybody_listens_is_not_lost(place: Place, round_: int) -> None:
    """An agent whose first act is its claim, by MQTT alone, is heard: the socket listens before it starts."""
    agent = f"DELEGATE_JOB_DIR=/dev/null/$DELEGATE_JOB_ID {REPORT} completed --detail first > said"
    done = place.submit(f"{agent}\nexec sleep 600")
    assert done.returncode == 0
    assert printed(place.work / "said", 1) == ["sent, not recorded (not a directory)"]
    assert place.job(job_id(done.stdout))["detail"] == "first"


def test_a_burst_of_reports_by_mqtt_alone_is_taken_in_its_order(place: Place) -> None:
    """What no file has is applied as it was sent, whether the owner was there already or not."""
    progress = "\n".join(f"{REPORT} progress --detail {number}" for number in range(8))
    unwritable = "export DELEGATE_JOB_DIR=/dev/null/$DELEGATE_JOB_ID"
    done = place.submit(f"{unwritable}\n{progress}\n{REPORT} completed\nexec sleep 600")
    assert done.returncode == 0
    log = place.run("logs", job_id(done.stdout), "--json").stdout
    logged = [json.loads(line) for line in log.splitlines()]
    heard = [int(event["detail"]) for event in logged if event["kind"] == "progress"]
    # Before the owner subscribed only the latest of a kind is kept: that is what retained means.
    assert heard == list(range(heard[0], 8))


# Whether there is an owner


def test_the_owner_is_present_and_its_will_says_gone(place: Place, mosquitto: Mosquitto) -> None:
    """Who follows a job learns of a submit that was killed, from the broker itself."""
    name = running(place, "--broker", mosquitto.url)
    with Follower(parse_url(mosquitto.url)) as follower:
        follower.subscribe(mqtt.job_filter(name))
        follower.await_fields("owner", owner="present", epoch=1)
        follower.await_fields("state", state="running")
        (submit,) = [process for process in place.running if "submit" in process.args]  # type: ignore[operator] # a list
        submit.kill()
        follower.await_fields("owner", owner="gone", epoch=1)
        assert follower.await_names(["state"])["state"].fields["state"] == "running"
    place.run("cancel", name)


# Who may do what on the embedded broker


@pytest.fixture
def two_jobs() -> Iterator[tuple[EmbeddedWire, list[tuple[Address, Address]]]]:
    """Give one owner's wire with two jobs, a and b: the addresses of each one's reporters and observers."""
    wire = EmbeddedWire()
    addresses = [wire.admit("a"), wire.admit("b")]
    wire.start_once(Hears(lambda *_: None, lambda *_: None, lambda _: None))
    for name in ("a", "b"):
        wire.announce_state(name, {"state": "running"})
    try:
        yield wire, addresses
    finally:
        wire.stop()


@pytest.mark.parametrize(
    "topic", ["a/state", "a/owner", "b/state", "b/owner", "b/report/completed", "a/report"]
)
@pytest.mark.parametrize("who", ["reporter", "observer"])
def test_nobody_but_the_owner_says_what_a_job_is(
    two_jobs: tuple[EmbeddedWire, list[tuple[Address, Address]]], who: str, topic: str
) -> None:
    """A job's token writes below its own `report/` and nowhere else, an observer's nowhere."""
    wire, ((reporter, watcher), _) = two_jobs
    mine = reporter if who == "reporter" else watcher
    with Follower(mine) as intruder:
        assert not intruder.publish(f"{mqtt.PREFIX}/{topic}", "forged")
    with Follower(mine) as allowed:
        assert allowed.publish(f"{mqtt.PREFIX}/a/report/progress", "by a reporter") is (who == "reporter")
    with Follower(wire.owner) as owner:
        owner.subscribe("delegate-job/#")
        owner.publish(f"{mqtt.PREFIX}/b/report/last", "")
        owner.await_names(["report/last"])
    assert "forged" not in {each.payload for each in owner.heard}
    assert ("by a reporter" in {each.payload for each in owner.heard}) is (who == "reporter")


@pytest.mark.parametrize(
    "topics", ["#", "delegate-job/#", "delegate-job/v1/b/#", "delegate-job/v1/+/state", "+/v1/a/#"]
)
@pytest.mark.parametrize("who", ["reporter", "observer"])
def test_a_job_hears_nothing_of_another(
    two_jobs: tuple[EmbeddedWire, list[tuple[Address, Address]]], who: str, topics: str
) -> None:
    """A subscription that reaches beyond the job is refused, and nothing of it is sent."""
    _, ((reporter, watcher), _) = two_jobs
    with Follower(reporter if who == "reporter" else watcher) as follower:
        assert follower.subscribe(topics) == [128]
        assert follower.subscribe(mqtt.job_filter("a")) == [1]
        follower.await_names(["state"])
    assert {each.topic for each in follower.heard} == {mqtt.state_topic("a")}


@pytest.mark.parametrize(
    "change", [{"user": None, "password": None}, {"password": "wr0ng"}, {"user": "owner"}]
)
def test_only_a_known_token_gets_in(place: Place, change: dict[str, str | None]) -> None:
    """No name, a wrong token, and another's name with a right token are all refused."""
    name = running(place)
    address = secrets(place, name).broker
    assert address is not None
    with Follower(address._replace(**change)) as stranger:  # type: ignore[arg-type] # fields by name
        assert stranger.refused == "Not authorized"
    end(place, name)


def test_the_claim_of_a_stranger_never_reaches_a_job(place: Place) -> None:
    """What an observer of the job, or a reporter of another one, says of it is not heard."""
    first, second = running(place), running(place)
    with Follower(observer(place, first)) as watcher:
        assert not watcher.publish(mqtt.report_topic(first, "completed"), json.dumps(claim(first)))
    reporter, its_own = (secrets(place, name).broker for name in (second, first))
    assert reporter is not None
    assert its_own is not None
    with Follower(reporter._replace(port=its_own.port)) as stranger:
        assert stranger.refused == "Not authorized"
    with Follower(reporter) as reporting:
        assert reporting.publish(mqtt.report_topic(second, "completed"), json.dumps(claim(first)))
    assert place.run("publish", "--job", first, "--event", "progress", "--detail", "last").returncode == 0
    wait_until(lambda: place.job(first)["last_event"] == "progress", what="the last report")
    assert [place.job(name)["state"] for name in (first, second)] == ["running", "running"]
    end(place, first, second)


def claim(name: str) -> dict[str, str]:
    """Return the line of a claim that nobody of the job has made."""
    return {"id": f"forged-{name}", "job_id": name, "kind": "completed", "at": "2026-08-01T10:00:00Z"}


def test_a_job_cannot_report_for_another(place: Place) -> None:
    """`publish` within a job that names another one is refused with both names, and nothing is written."""
    check = place.script("check", "exit 0")
    other = job_id(place.submit(f"{REPORT} completed", "--validate", check).stdout)
    before = reports(place, other)
    agent = f'{REPORT} error --job {other} 2> "$PWD/said" && exit 9\n{REPORT} completed'
    done = place.submit(agent)
    said = (place.work / "said").read_text()
    assert done.returncode == 0
    mine = job_id(done.stdout)
    assert said.startswith(f"error: this process belongs to job {mine} and cannot report for {other}\n")
    assert reports(place, other) == before


# Where a token may be seen


def test_a_token_is_seen_nowhere(place: Place) -> None:
    """A job's tokens stand in connection.json and in no argument, environment, output or other file."""
    check = place.script("check", f"env > {place.root}/of-the-check\n{UNTIL_GO}")
    agent = f"env > {place.root}/of-the-agent\n{REPORT} started\n{REPORT} completed\nexec sleep 600"
    name = begin(place, agent, "--validate", check)
    place.await_state(name, "checking")
    connection = secrets(place, name)
    assert connection.broker is not None
    assert connection.observer is not None
    tokens = [str(connection.broker.password), str(connection.observer.password)]
    said = [place.run(*words) for words in showing(name)]
    while_it_runs = holding(place, *tokens)
    (place.work / "go").touch()
    (submit,) = place.running[:1]
    output = submit.communicate(timeout=20)
    assert while_it_runs == {f"registry/jobs/{name}/connection.json"}
    assert not [done for done in said if any(token in done.stdout + done.stderr for token in tokens)]
    assert not any(token in text for text in output for token in tokens)
    assert holding(place, *tokens) == set()
