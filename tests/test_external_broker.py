"""Jobs on a broker that is not ours: the same results as with our own, and the password is nowhere.

Not what is said on the topics: that is test_wire.
"""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker_servers import Mosquitto
from delegate_job import mqtt
from delegate_job.mqtt import parse_url
from delegate_job.wire import ExternalWire
from harness import Place, free_port, job_id, listening, wait_until
from subscribers import Follower
from traces import holding, printed, showing

REPORT = '"$DJ" publish --event'
REPORT_IN_PEACE = '"$DJ" publish --timeout 20 --event'
"""Where what came of the report is read: what answers may be slow, and so may the report's own start."""
ENDLESS = f"{REPORT} started\nexec sleep 600"
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"
SECRET = "sup3r-s3cret-w0rd"


@dataclass
class Broker:
    """How a submit is told which broker to use."""

    shown: str
    options: tuple[str, ...] = ()
    environment: dict[str, str | None] = field(default_factory=dict)


@pytest.fixture(params=["embedded", "option", "environment"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Give each way to name a broker: none, `--broker`, and the variable."""
    if request.param == "embedded":
        return Broker("embedded")
    mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
    shown = parse_url(mosquitto.url).url()
    if request.param == "option":
        return Broker(shown, ("--broker", mosquitto.url))
    return Broker(shown, environment={"DELEGATE_JOB_BROKER": mosquitto.url})


def submit(
    place: Place, broker: Broker, agent: str, *options: str | Path
) -> "tuple[subprocess.CompletedProcess[str], dict[str, object]]":
    """Return what a submit said, and the job as it is after it."""
    done = place.submit(agent, *options, *broker.options, env=broker.environment)
    job = place.job(job_id(done.stdout))
    assert (job["exit_code"], job["broker"], done.stderr) == (done.returncode, broker.shown, "")
    return done, job


# The same results


def test_accepted(place: Place, broker: Broker) -> None:
    """Claimed and passed by the check, whatever broker carries the word."""
    agent = f"{REPORT_IN_PEACE} started > said\n{REPORT} completed --detail good >> said"
    done, job = submit(place, broker, agent, "--validate", place.script("check", "exit 0"))
    assert (done.returncode, job["outcome"], job["verdict"]) == (0, "accepted", "passed")
    assert job["detail"] == "good"
    first, claim = printed(place.work / "said", 2)
    # The embedded broker may end with its job before it has answered.
    assert (first, claim.split()[0].rstrip(",")) == ("recorded and sent", "recorded")


def test_rejected_then_accepted(place: Place, broker: Broker) -> None:
    """A rejection goes back to the agent, and its second claim passes."""
    check = place.script("check", "[ -e mended ]")
    agent = (
        f"{REPORT} completed --detail first\n"
        f"while read -r line; do case $line in *'check 1 of 2'*) break;; esac; done\n"
        f"touch mended\n{REPORT} completed --detail second\nexec sleep 600"
    )
    done, job = submit(place, broker, agent, "--validate", check, "--attempts", "2")
    assert (done.returncode, job["outcome"], job["attempt"]) == (0, "accepted", 2)
    assert done.stdout.count("validation: ") == 2


def test_error(place: Place, broker: Broker) -> None:
    """The agent says that it cannot: failed, with its words."""
    done, job = submit(place, broker, f"{REPORT} error --detail 'no way'\nexec sleep 600")
    assert (done.returncode, job["outcome"], job["detail"]) == (1, "failed", "no way")


def test_lost(place: Place, broker: Broker) -> None:
    """An agent that ends without a word is lost."""
    done, job = submit(place, broker, f"{REPORT} started")
    assert (done.returncode, job["outcome"]) == (4, "lost")


@pytest.mark.parametrize(
    ("option", "code", "outcome"), [("--timeout", 5, "timed_out"), ("--idle-timeout", 6, "idle")]
)
def test_timeouts(place: Place, broker: Broker, option: str, code: int, outcome: str) -> None:
    """A job ends by its clocks with any broker."""
    done, job = submit(place, broker, ENDLESS, option, "0.8", "--close")
    assert (done.returncode, job["outcome"]) == (code, outcome)


def test_cancel(place: Place, broker: Broker) -> None:
    """A job is ended by somebody else with any broker."""
    running, name = begin(place, ENDLESS, *broker.options, env=broker.environment)
    assert place.run("cancel", name, env=broker.environment).stdout == f"{name} cancelled\n"
    assert running.wait(20) == 9


def begin(
    place: Place, agent: str, *options: str, env: Mapping[str, str | None] | None = None
) -> "tuple[subprocess.Popen[str], str]":
    """Start a submit whose agent reports first of all; return it and the job's id once that is recorded."""
    running = place.start(*place.submit_args(agent, *options), env=env)
    name = place.await_job()
    wait_until(lambda: claimed(place, name, "started"), what="the first report")
    return running, name


def claimed(place: Place, name: str, kind: str) -> bool:
    """Say whether a report is in the file."""
    file = place.log_dir(name) / "reports.jsonl"
    return file.exists() and f'"{kind}"' in file.read_text()


# Brokers that are not there


def of_a_wrong_password(mosquitto: Mosquitto) -> str:
    """Return the address of a broker that knows another password."""
    return mosquitto.url.replace(mosquitto.password, "wr0ng-w0rd")


def of_an_unknown_user(mosquitto: Mosquitto) -> str:
    """Return the address of a broker that knows other users."""
    return mosquitto.url.replace(mosquitto.user, "nobody").replace(mosquitto.password, "wr0ng-w0rd")


def of_nobody(mosquitto: Mosquitto) -> str:
    """Return an address at which nothing listens."""
    return f"mqtt://owner:wr0ng-w0rd@127.0.0.1:{free_port()}"


def of_an_unknown_host(mosquitto: Mosquitto) -> str:
    """Return an address that no name server knows."""
    return "mqtt://owner:wr0ng-w0rd@nowhere.invalid"


@pytest.mark.parametrize("url", [of_a_wrong_password, of_an_unknown_user, of_nobody, of_an_unknown_host])
@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_broker_that_takes_nothing_is_exit_7(
    place: Place, mosquitto: Mosquitto, url: Callable[[Mosquitto], str], way: str
) -> None:
    """No broker, or not with this password: a line and a hint without it, no agent, no job, nothing left."""
    named = url(mosquitto)
    options = ("--broker", named) if way == "option" else ()
    env = {"DELEGATE_JOB_BROKER": named} if way == "environment" else {}
    done = place.submit(f"touch {place.root}/started", *options, env=env)
    assert (done.returncode, done.stdout) == (7, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert "wr0ng-w0rd" not in done.stderr
    assert not (place.root / "started").exists()
    assert json.loads(place.run("list", "--json").stdout) == []
    assert holding(place, "wr0ng-w0rd") == set()
    assert place.jobs() == []
    assert {path.name for path in place.work.rglob("*")} <= {"delegate_job_logs", ".gitignore"}


# Brokers that go away


def test_a_broker_that_goes_away_is_one_warning(place: Place, mosquitto: Mosquitto) -> None:
    """A broker killed in mid-job is said once; the job goes on by file and ends as it should."""
    told = f"{REPORT_IN_PEACE} progress > said\n{REPORT_IN_PEACE} completed >> said"
    agent = f"{REPORT} started\n{UNTIL_GO}\n{told}"
    running, name = begin(place, agent, "--broker", mosquitto.url)
    await_its_owner(mosquitto, name)
    kill(mosquitto)
    # The owner tries to come back: at first it is refused, then somebody hangs up on it.
    away_since = time.monotonic()
    wait_until(lambda: time.monotonic() > away_since + 0.5, what="a refused attempt")
    await_attempts_to_come_back(mosquitto.port)
    (place.work / "go").touch()
    said, warned = running.communicate(timeout=30)
    assert running.returncode == 0
    assert warned.splitlines() == ["warning: no broker: connection lost"]
    assert "accepted" in said
    assert printed(place.work / "said", 2) == ["recorded, not sent (connection refused)"] * 2


def await_its_owner(mosquitto: Mosquitto, name: str) -> None:
    """Return when the broker has heard of the job's owner, who may come to it after the first report."""
    with Follower(parse_url(mosquitto.url)) as follower:
        follower.subscribe(mqtt.owner_topic(name))
        follower.await_fields("owner", owner="present")


def kill(mosquitto: Mosquitto) -> None:
    """End a broker so that it can say and save nothing."""
    assert mosquitto.process is not None
    mosquitto.process.kill()
    mosquitto.process.wait(5)


def await_attempts_to_come_back(port: int) -> None:
    """Take the broker's place, without being one, until somebody has knocked twice."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(10)
        for _ in range(2):
            server.accept()[0].close()


def test_a_broker_that_comes_back_is_told_again(place: Place, mosquitto: Mosquitto) -> None:
    """A broker that has forgotten everything gets the state and the owner again, from who remembers."""
    running, name = begin(place, f"{ENDLESS}", "--broker", mosquitto.url)
    await_its_owner(mosquitto, name)
    kill(mosquitto)
    assert not list(mosquitto.directory.glob("*.db"))
    mosquitto.start()
    with Follower(parse_url(mosquitto.url)) as follower:
        follower.subscribe(mqtt.job_filter(name))
        told = follower.await_names(["state", "owner"])
        assert (told["state"].fields["state"], told["owner"].fields["owner"]) == ("running", "present")
        report = ("publish", "--timeout", "20", "--job", name, "--event", "completed")
        assert place.run(*report).stdout == "recorded and sent\n"
        follower.await_fields("state", state="done", outcome="accepted")
        follower.await_fields("owner", owner="gone")
    assert running.wait(20) == 0


@pytest.mark.parametrize("options", [[], ["--detach"]], ids=["foreground", "background"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_broker(
    place: Place, mosquitto: Mosquitto, signum: signal.Signals, options: list[str]
) -> None:
    """While a broker that answers nothing is waited for there is no job, and none is left by a signal."""
    assert mosquitto.process is not None
    mosquitto.process.send_signal(signal.SIGSTOP)
    try:
        submit = place.start(*place.submit_args(":"), *options, "--broker", mosquitto.url)
        jobs = place.registry / "jobs"
        wait_until(lambda: list(jobs.glob("*/connection.json")), what="a submit that asks its broker")
        submit.send_signal(signum)
        stdout, stderr = submit.communicate(timeout=30)
    finally:
        mosquitto.process.send_signal(signal.SIGCONT)
    assert (submit.returncode, stdout, stderr) == (128 + signum, "", "")
    assert not list(jobs.iterdir())
    assert not list((place.work / "delegate_job_logs").glob("*/"))


def test_what_a_signal_overtakes_is_taken_back(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's first message that the broker has just taken is cleared when there is to be no job."""
    publish_once, over = mqtt.publish_once, threading.Event()
    wire = ExternalWire(parse_url(mosquitto.url))

    def late(*args: Any, **options: Any) -> mqtt.PublishResult:
        monkeypatch.setattr(mqtt, "publish_once", publish_once)
        result = publish_once(*args, **options)
        over.wait(30)
        return result

    def look_up() -> None:
        if kept(mosquitto, "abc"):
            raise SystemExit(130)

    monkeypatch.setattr(mqtt, "publish_once", late)
    with pytest.raises(SystemExit):
        wire.check("abc", look_up)
    assert kept(mosquitto, "abc") == set()
    over.set()


def test_a_broker_that_stands_still_ends_no_job(place: Place, mosquitto: Mosquitto) -> None:
    """A broker that takes connections and answers nothing delays a report by its bound, and no more."""
    agent = f"{REPORT} started\n{UNTIL_GO}\n{REPORT} completed > said"
    running, name = begin(place, agent, "--broker", mosquitto.url)
    await_its_owner(mosquitto, name)
    assert mosquitto.process is not None
    mosquitto.process.send_signal(signal.SIGSTOP)
    try:
        (place.work / "go").touch()
        running.communicate(timeout=30)
        assert printed(place.work / "said", 1) == ["recorded, not sent (timed out)"]
    finally:
        mosquitto.process.send_signal(signal.SIGCONT)
    assert running.returncode == 0


# The password


@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_the_password_is_nowhere(place: Place, mosquitto: Mosquitto, way: str) -> None:
    """It stands in connection.json while the job lives, and in no other file, output or environment."""
    with_password(mosquitto, SECRET)
    check = place.script("check", f"env > {place.root}/of-the-check\n{UNTIL_GO}")
    hook = place.script("hook", f"cat > /dev/null; env > {place.root}/of-the-hook")
    agent = f"env > {place.root}/of-the-agent\n{REPORT} started\n{REPORT} completed\nexec sleep 600"
    options = ["--validate", check, "--on-event", str(hook)]
    if way == "option":
        options += ["--broker", mosquitto.url]
    if way == "file":
        configuration = place.home / ".config/delegate-job/config.toml"
        configuration.parent.mkdir()
        configuration.write_text(f'broker = "{mosquitto.url}"\n')
    env = {"DELEGATE_JOB_BROKER": mosquitto.url} if way == "environment" else None
    running, name = begin(place, agent, *map(str, options), env=env)
    place.await_state(name, "checking")
    wait_until((place.root / "of-the-hook").exists, what="the hook")
    shown = [place.run(*words) for words in showing(name)]
    assert place.run("status", name, "--connection").stdout.splitlines()[0] == parse_url(mosquitto.url).url()
    while_it_runs = holding(place, SECRET, but=running.pid)
    (place.work / "go").touch()
    output = running.communicate(timeout=20)
    assert running.returncode == 0
    of_the_user = {"home/.config/delegate-job/config.toml"} if way == "file" else set()
    assert while_it_runs - of_the_user == {f"registry/jobs/{name}/connection.json"}
    assert not [done for done in shown if SECRET in done.stdout + done.stderr]
    assert not any(SECRET in text for text in output)
    assert holding(place, SECRET) - of_the_user == set()


def with_password(mosquitto: Mosquitto, password: str) -> None:
    """Let a broker know a password that could not be met by chance."""
    passwords = mosquitto.directory / "passwords"
    words = ["mosquitto_passwd", "-b", str(passwords), mosquitto.user, password]
    subprocess.run(words, check=True, capture_output=True, timeout=10)
    mosquitto.stop()
    mosquitto.password = password
    mosquitto.start()


def test_the_documented_rights_are_enough_and_no_more(
    place: Place, mosquitto: Mosquitto, repository: Path
) -> None:
    """With the ACL of docs/protocol.md a job runs, its account reaches nothing else, a watcher only reads."""
    (acl,) = re.findall(r"```acl\n(.*?)```", (repository / "docs/protocol.md").read_text(), re.DOTALL)
    with_acl(place, mosquitto, acl)
    account, watcher = (
        f"mqtt://{user}:{SECRET}@127.0.0.1:{mosquitto.port}" for user in ("delegate-job", "watcher")
    )
    done = place.submit(f"{REPORT_IN_PEACE} completed > said", "--broker", account)
    assert (done.returncode, done.stderr) == (0, "")
    assert printed(place.work / "said", 1) == ["recorded and sent"]
    topic = mqtt.report_topic(job_id(done.stdout), "error")
    with Follower(parse_url(watcher)) as follower, Follower(parse_url(account)) as owner:
        # Mosquitto acknowledges what it then drops: MQTT 3.1.1 knows no refusal.
        assert (follower.publish(topic, "forged"), owner.publish("elsewhere", "{}")) == (True, True)
        assert owner.publish(f"{mqtt.PREFIX}/last/state", "{}")
        follower.subscribe("#")
        told = follower.await_names(["state", "owner", "report/completed"])
        follower.await_topic(f"{mqtt.PREFIX}/last/state")
    assert told["state"].fields["outcome"] == "accepted"
    assert {each.topic for each in follower.heard}.isdisjoint({"elsewhere", topic})


def with_acl(place: Place, mosquitto: Mosquitto, acl: str) -> None:
    """Start a broker again with these rights, and the two accounts of the document."""
    for user in ("delegate-job", "watcher"):
        words = ["mosquitto_passwd", "-b", str(mosquitto.directory / "passwords"), user, SECRET]
        subprocess.run(words, check=True, capture_output=True, timeout=10)
    mosquitto.stop()
    (mosquitto.directory / "acl").write_text(acl)
    (mosquitto.directory / "acl").chmod(0o700)
    configuration = mosquitto.directory / "with-acl.conf"
    plain = (mosquitto.directory / "mosquitto.conf").read_text()
    configuration.write_text(f"{plain}acl_file {mosquitto.directory}/acl\n")
    place.spawn("mosquitto", "-c", configuration, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: listening(mosquitto.port), what="mosquitto with an ACL")


def test_a_dry_run_names_the_broker_and_no_password(place: Place, mosquitto: Mosquitto) -> None:
    """What would be used is what is shown, less the password, and the broker is not even asked."""
    mosquitto.stop()
    for env, options in (({}, ("--broker", mosquitto.url)), ({"DELEGATE_JOB_BROKER": mosquitto.url}, ())):
        done = place.submit("exit 0", *options, "--dry-run", "--json", env=env)
        assert json.loads(done.stdout)["broker"] == parse_url(mosquitto.url).url()
        assert mosquitto.password not in done.stdout + done.stderr


BY_FILE = """
import json, os
job = os.environ["DELEGATE_JOB_ID"]
line = {"id": "by-file", "job_id": job, "kind": "completed", "at": "2026-01-01T00:00:00Z"}
with open(f"delegate_job_logs/{job}/reports.jsonl", "a") as reports:
    reports.write("\\n" + json.dumps(line) + "\\n")
"""


def test_a_claim_is_on_the_broker_when_the_job_is_done(place: Place, mosquitto: Mosquitto) -> None:
    """Also when nobody but a file was told of it, and its agent was ended at once."""
    agent = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(BY_FILE)}"
    name = job_id(place.submit(agent, "--broker", mosquitto.url, "--close").stdout)
    with Follower(parse_url(mosquitto.url)) as late:
        late.subscribe(mqtt.report_topic(name, "completed"))
        assert late.await_count(1)[0].fields["id"] == "by-file"


# What is left there


def kept(mosquitto: Mosquitto, name: str) -> set[str]:
    """Return the topics below a job's that the broker keeps a message of."""
    with Follower(parse_url(mosquitto.url)) as late:
        late.subscribe(mqtt.job_filter(name), "all/said")
        # What is kept is told when it is subscribed to, and so before anything else.
        assert mqtt.publish_once(late.address, [("all/said", b"")]).ok
        late.await_topic("all/said")
        return {told.topic for told in late.heard} - {"all/said"}


def test_prune_takes_back_what_a_job_left_on_the_broker(place: Place, mosquitto: Mosquitto) -> None:
    """With the URL and its password the topics of a forgotten job are cleared; those of others stay."""
    options = ("--broker", mosquitto.url, "--close")
    old = job_id(place.submit(f"{REPORT} completed", *options).stdout)
    running = job_id(place.run(*place.submit_args(ENDLESS, "--detach", *options)).stdout)
    place.await_kind(running, "started")
    assert {mqtt.state_topic(old), mqtt.report_topic(old, "completed")} <= kept(mosquitto, old)
    done = place.run("prune", "--older-than", "0s", "--broker", mosquitto.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{old}\n", "1 forgotten\n")
    assert kept(mosquitto, old) == set()
    assert mqtt.state_topic(running) in kept(mosquitto, running)
    assert place.run("cancel", running).returncode == 0


@pytest.mark.parametrize("way", ["no URL", "another broker", "a broker that is gone"])
def test_prune_says_where_topics_stay(place: Place, mosquitto: Mosquitto, way: str) -> None:
    """Jobs are forgotten also when their broker can't be asked; one line says whose topics stay where."""
    for _ in range(2):
        place.submit(f"{REPORT} completed", "--broker", mosquitto.url, "--close")
    options: tuple[str, ...] = ()
    if way == "another broker":
        options = ("--broker", f"mqtt://127.0.0.1:{free_port()}")
    elif way == "a broker that is gone":
        mosquitto.stop()
        options = ("--broker", mosquitto.url)
    done = place.run("prune", "--older-than", "0s", *options)
    assert (done.returncode, len(done.stdout.split())) == (0, 2)
    (warning, _) = done.stderr.splitlines()
    shown = parse_url(mosquitto.url).url()
    assert warning.startswith(f"warning: the topics of 2 jobs stay on {shown}: ")
    assert SECRET not in done.stderr
