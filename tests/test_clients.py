"""The clients of examples/clients: they report and follow, on our broker and on a real Mosquitto."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from delegate_job.mqtt import Address
from harness import COMMAND, Place, in_ci, wait_until
from subscribers import Follower, observer

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "examples/clients"
PACKAGES = ROOT / ".cache/clients/node_modules"
DETAIL = r'a "quoted" \word, ünïcode & $HOME'


def need(present: object, what: str) -> None:
    """Skip at home, and fail in CI, where something is missing."""
    if not present:
        (pytest.fail if in_ci() else pytest.skip)(f"needs {what}")


def client(place: Place, name: str) -> str:
    """Return the command line of a client, beside the packages that it needs."""
    if name.endswith(".sh"):
        for tool in ("jq", "mosquitto_sub", "mosquitto_pub"):
            need(shutil.which(tool), tool)
        return str(CLIENTS / name)
    need(shutil.which("node"), "node")
    if name == "follow.mjs":
        need(PACKAGES.is_dir(), f"{PACKAGES}: scripts/get-npm.sh examples/clients .cache/clients tests")
    directory = place.root / "clients"
    directory.mkdir(exist_ok=True)
    if not (directory / "node_modules").exists():
        (directory / "node_modules").symlink_to(PACKAGES)
    shutil.copy(CLIENTS / name, directory)
    return f"node {directory / name}"


@dataclass
class Job:
    """A job whose agent reports by a client, and goes on when it is told to."""

    place: Place
    submit: "subprocess.Popen[str]"
    id: str
    follower: Callable[[str], list[str]]
    address: Address

    def follow(self, name: str) -> "subprocess.Popen[str]":
        """Start a client that follows it, and wait until it has said that the job runs."""
        said = self.place.root / "followed"
        argv = [*client(self.place, name).split(), self.id, *self.follower(name)]
        path = f"{COMMAND.parent}:{self.place.environ['PATH']}"
        with said.open("w") as file:
            process = self.place.spawn(*argv, env={"PATH": path}, stdout=file)
        wait_until(lambda: "running\n" in said.read_text(), what=f"{name}: {said.read_text()}")
        return process

    def followed(self) -> list[str]:
        """Return what the follower has said."""
        return (self.place.root / "followed").read_text().splitlines()

    def go_on(self) -> None:
        """Let the agent make its last report."""
        (self.place.work / "go").touch()


@pytest.fixture(params=["embedded", "mosquitto"])
def begin(request: pytest.FixtureRequest, place: Place) -> Callable[[str, str], Job]:
    """Give a way to begin a job whose reports come by a client; its last word is a kind."""
    server = request.getfixturevalue("mosquitto") if request.param == "mosquitto" else None

    def start(reporter: str, last: str) -> Job:
        report = client(place, reporter)
        until_told = "until [ -e {} ]; do sleep 0.05; done".format
        first, then = f"{report} progress '{DETAIL}'", f"{report} {last} done"
        agent = "\n".join((until_told("begin"), first, until_told("go"), then))
        options = ("--broker", server.url) if server else ()
        submit = place.start(*place.submit_args(agent, *options))
        name = place.await_job()
        place.await_state(name, "running")
        address = observer(place, name)
        if server is None:
            with Follower(address):
                pass  # Our broker answers: a client may give it up after 2 s.
        (place.work / "begin").touch()
        place.await_kind(name, "progress")
        if server is None:
            return Job(place, submit, name, lambda _: [], address)
        own = {"follow.sh": [server.url], "follow.mjs": [server.password]}
        return Job(place, submit, name, own.__getitem__, address._replace(password=server.password))

    return start


@pytest.mark.parametrize("language", ["sh", "mjs"])
@pytest.mark.parametrize("last", ["completed", "error"])
def test_report_and_follow(begin: Callable[[str, str], Job], language: str, last: str) -> None:
    """What is reported counts, to the letter; who follows is told the end and ends with its exit code."""
    outcome, code = {"completed": ("accepted", 0), "error": ("failed", 1)}[last]
    job = begin(f"report.{language}", last)
    following = job.follow(f"follow.{language}")
    job.go_on()
    assert (job.submit.wait(30), following.wait(30)) == (code, code)
    assert job.followed()[-1] == f"done {outcome}"
    events = [json.loads(line) for line in job.place.run("logs", job.id, "--json").stdout.splitlines()]
    reported = [(each["kind"], each["detail"]) for each in events if each["source"] == "agent"]
    assert reported == [("progress", DETAIL), (last, "done")]


def test_a_shells_report_is_sent_too(begin: Callable[[str, str], Job]) -> None:
    """With mosquitto_pub at hand the report stands on its topic, retained."""
    job = begin("report.sh", "completed")
    with Follower(job.address) as heard:
        heard.subscribe(f"delegate-job/v1/{job.id}/#")
        told = heard.await_names(["report/progress"])["report/progress"]
        assert told.fields["detail"] == DETAIL
    job.go_on()
    assert job.submit.wait(30) == 0


def test_a_shell_follows_to_the_next_owner(place: Place) -> None:
    """With the owner its broker has gone: who follows finds the next one's, and is told the end there."""
    agent = 'until [ -e go ]; do sleep 0.05; done\n"$DJ" publish --event completed'
    submit = place.start(*place.submit_args(agent))
    name = place.await_job()
    wait_until(lambda: place.job(name)["state"] == "running", what="a running job")
    job = Job(place, submit, name, lambda _: [], observer(place, name))
    following = job.follow("follow.sh")
    submit.kill()
    submit.wait()
    wait_until(lambda: job.followed().count("running") == 2, what="the job followed again")
    job.go_on()
    assert following.wait(30) == 0
    assert job.followed() == ["running", "running", "done accepted"]


@pytest.mark.parametrize(("name", "code"), [("follow.sh", 0), ("follow.mjs", 2)])
def test_who_comes_too_late(place: Place, name: str, code: int) -> None:
    """With the job our broker has gone: the registry still knows how it ended, or says that it is done."""
    assert place.submit('"$DJ" publish --event completed').returncode == 0
    path = f"{COMMAND.parent}:{place.environ['PATH']}"
    process = place.spawn(*client(place, name).split(), "@last", env={"PATH": path})
    assert (process.communicate(timeout=30)[0], process.returncode) == ("", code)
