"""Notifications: of what, where to, never in the way, and no URL anywhere but in its own file."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import samples
from delegate_job.commands_notify import message_of
from delegate_job.events import Kind
from delegate_job.job import Job, JobState, Outcome
from delegate_job.notices import USUAL, Notice, is_wanted, notice_of
from harness import Place, job_id, wait_until, without

COMPLETED = '"$DJ" publish --event completed --detail "all is done"'
SECRET = "pa55-of-the-hook"


class Post(ThreadingHTTPServer):
    """A service on loopback that keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[dict[str, Any]] = []
        self.status = 200

    @property
    def url(self) -> str:
        """Its URL as apprise has it, with a password and a token in the path."""
        return f"json://user:{SECRET}@127.0.0.1:{self.server_port}/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Post

    def do_POST(self) -> None:  # the name http.server wants
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gives it
        """Say nothing."""


@pytest.fixture
def post() -> Iterator[Post]:
    """Give a service that is notified."""
    with Post() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def configure(place: Place, text: str) -> Path:
    """Write the user's configuration."""
    path = place.home / ".config/delegate-job/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[notify]\n{text}\n")
    return path


# -- of what


def test_the_usual_events() -> None:
    """Once for each dialog, once for silence, once for the end; nothing for what goes on by itself."""
    running = samples.job(state=JobState.RUNNING, notify=USUAL)
    waiting = running._replace(state=JobState.WAITING)
    done = running._replace(state=JobState.DONE, outcome=Outcome.ACCEPTED)
    told = [
        (kind, job.state)
        for job in (running, waiting, done)
        for kind in Kind
        if is_wanted(job, samples.event(kind))
        and not (job.done and kind not in {Kind.COMPLETED, Kind.CLOSED})
        and not (job.state is JobState.WAITING and kind is Kind.STALLED)
    ]
    assert told == [
        (Kind.STALLED, JobState.RUNNING),
        (Kind.PERMISSION_REQUIRED, JobState.WAITING),
        (Kind.TURN_ENDED, JobState.WAITING),
        (Kind.COMPLETED, JobState.DONE),
    ]


def test_other_events_when_asked_for() -> None:
    """Any kind of event can be named, and then it alone counts."""
    job = samples.job(state=JobState.DONE, outcome=Outcome.ACCEPTED, notify=("check_failed",))
    assert is_wanted(job, samples.event(Kind.CHECK_FAILED))
    assert not is_wanted(job, samples.event(Kind.COMPLETED))


def test_what_a_notice_says() -> None:
    """How it ended and why, who worked where; control characters of an agent's do not get through."""
    job: Job = samples.job(state=JobState.DONE, outcome=Outcome.FAILED, reason="the agent reported an error")
    notice = Notice(**notice_of(job, samples.event(Kind.ERROR, detail="no\x1b[2J way")))
    message = message_of([notice])
    assert message.title == f"job {job.id}: failed"
    assert "the agent reported an error: no [2J way" in message.body
    assert f"{job.spec.agent} in {job.spec.workdir}" in message.body


def test_many_at_once_are_one_message() -> None:
    """A thousand jobs that end together are one notification that names some of them."""
    job = samples.job(state=JobState.DONE, outcome=Outcome.ACCEPTED, reason="completed")
    notice = Notice(**notice_of(job, samples.event(Kind.COMPLETED)))
    message = message_of([notice] * 1000)
    assert message.title == "delegate-job: 1000 events"
    assert len(message.body.splitlines()) == 11
    assert message.body.endswith("and 990 more")


# -- by a real service


def test_the_end_of_a_job_is_told(place: Place, post: Post) -> None:
    """A service is told once, when the job is done; the URL stands nowhere but in the user's file."""
    config = configure(place, f'urls = ["{post.url}"]')
    done = place.submit(COMPLETED)
    assert (done.returncode, done.stderr) == (0, "")
    (told,) = post.heard
    assert told["title"] == f"job {job_id(done.stdout)}: accepted"
    assert "completed: all is done" in told["message"]
    shown = place.run("config", "show", "--json").stdout + place.run("notify").stdout + done.stdout
    assert SECRET not in shown
    kept = [path for path in place.root.rglob("*") if path.is_file() and path != config]
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_a_waiting_job_in_the_background_is_told(place: Place, post: Post) -> None:
    """The supervisor tells too, of a permission first; what it is asked to leave out it leaves out."""
    configure(place, f'urls = ["{post.url}"]\nevents = ["waiting"]')
    asks = (
        '"$DJ" publish --event permission_required --detail "rm -rf"\nuntil [ -e go ]; do sleep 0.1; done\n'
    )
    job = place.submit(asks + COMPLETED, "--detach", "--json")
    name = json.loads(job.stdout)["id"]
    wait_until(lambda: post.heard, what="a notification")
    (place.work / "go").touch()
    place.await_state(name, "done")
    assert [told["title"] for told in post.heard] == [f"job {name}: waiting"]
    assert "rm -rf" in post.heard[0]["message"]


@pytest.mark.parametrize("url", ["json://127.0.0.1:1/x", "nonesuch://x", f"json://user:{SECRET}@127.0.0.1:1"])
def test_a_service_that_fails_is_never_in_the_way(place: Place, url: str) -> None:
    """A service that is down or unknown changes nothing about the job and says nothing."""
    configure(place, f'urls = ["{url}"]')
    done = place.submit(COMPLETED)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_its_packages(place: Place, post: Post) -> None:
    """Without the extra a job warns once and goes on; `notify` is one line, a hint and exit code 7."""
    configure(place, f'urls = ["{post.url}"]')
    # An installation in which Python finds no apprise.
    hide = place.root / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *where: None if name == 'apprise' else find(name, *where)\n"
    )
    env = {"PYTHONPATH": str(hide)}
    done = place.submit(COMPLETED, env=env)
    assert done.returncode == 0
    assert done.stderr.count("warning: ") == done.stderr.count("pip install 'delegate-job[notify]'") == 1
    tried = place.run("notify", "--test", env=env)
    assert (tried.returncode, tried.stdout) == (7, "")
    assert tried.stderr == (
        "error: to notify by URL needs the package apprise, which is not installed\n"
        "hint: pip install 'delegate-job[notify]'\n"
    )
    assert post.heard == []


# -- the command


def test_it_can_be_tried(place: Place, post: Post) -> None:
    """`notify --test` sends one and says what became of it, by place and service, without the URL."""
    configure(place, f'urls = ["{post.url}", "nonesuch://{SECRET}"]')
    tried = place.run("notify", "--test")
    assert tried.returncode == 1
    assert tried.stdout == "urls[0] (JSON): sent\nurls[1] (no URL that apprise knows): not sent\n"
    assert tried.stderr == ""
    assert post.heard[0]["title"] == "delegate-job"
    post.status = 500
    again = json.loads(place.run("notify", "--test", "--json").stdout)
    assert [each["sent"] for each in again] == [False, False]
    assert place.run("notify").stdout == (
        "events: waiting, done, stalled\nurls[0]: JSON\nurls[1]: no URL that apprise knows\n"
    )


def test_nothing_is_configured(place: Place) -> None:
    """Without [notify] the command says where to write it."""
    said = place.run("notify", "--test")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: no notification is configured\nhint: urls = ")
    assert str(place.home / ".config/delegate-job/config.toml") in said.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'urls = "{SECRET}"', '[notify] urls must be a list of URLs, such as ["ntfy://ntfy.sh/topic"]'),
        (f'urls = ["{SECRET}"]', "[notify] urls must be a list of URLs"),
        ("desktop = 3", "[notify] desktop must be true or false"),
        ('events = ["wating"]', "[notify] events cannot hold 'wating': did you mean 'waiting'?"),
        ('url = "x"', "[notify] unknown key 'url'\nhint: did you mean urls?"),
    ],
)
def test_mistakes_are_named(place: Place, text: str, message: str) -> None:
    """A wrong value is one line with its key, and never the URL."""
    configure(place, text)
    for words in (["notify", "--test"], ["submit", "--agent", "human", "--prompt", "x"]):
        said = place.run(*words)
        assert said.returncode == 2, said
        assert message in said.stderr
        assert SECRET not in said.stderr + said.stdout


def test_a_work_dir_cannot_say_where_to(place: Place) -> None:
    """`[notify]` in a work dir's file is refused: whoever wrote that would be told what happens here."""
    (place.work / ".delegate-job.toml").write_text('[notify]\nurls = ["json://x"]\n')
    said = place.run("submit", "--agent", "human", "--prompt", "x")
    assert said.returncode == 2
    assert "notify is not taken from a work dir" in said.stderr


# -- the desktop


def test_a_desktop_that_is_not_there(place: Place) -> None:
    """Without the program a job warns once and goes on; the test says that nothing was sent."""
    env = without(place, "notify-send")
    configure(place, "desktop = true")
    done = place.submit(COMPLETED, env=env)
    assert done.returncode == 0
    assert done.stderr == "warning: the desktop shows no notification: notify-send is not installed\n"
    tried = place.run("notify", "--test", env=env)
    assert (tried.returncode, tried.stdout) == (1, "desktop (notify-send): not sent\n")


DESKTOP = r"""
exec 3>screen; Xvfb -displayfd 3 -screen 0 640x480x24 >/dev/null 2>&1 & screen=$!
for _ in $(seq 400); do [ -s screen ] && break; sleep 0.05; done
export DISPLAY=:$(cat screen)
printf "[urgency_normal]\ntimeout = 0\n" > dunstrc; dunst -conf dunstrc >/dev/null 2>&1 & notifier=$!
for _ in $(seq 400); do dunstctl is-paused >/dev/null 2>&1 && break; sleep 0.05; done
echo "$DBUS_SESSION_BUS_ADDRESS"
read -r _; kill $notifier $screen; wait
"""
"""A session bus with a screen and what shows notifications on it, until its stdin ends."""


@pytest.fixture
def desktop(place: Place) -> Iterator[dict[str, str]]:
    """Give what a desktop's processes have in their environment; one without a program of it is skipped."""
    for program in ("notify-send", "dbus-run-session", "Xvfb", "dunst", "dunstctl"):
        if not shutil.which(program, path=place.environ["PATH"]):
            pytest.skip(f"needs {program} (Debian: libnotify-bin, dbus, xvfb, dunst)")
    process = place.spawn("dbus-run-session", "--", "bash", "-c", DESKTOP, stdin=subprocess.PIPE)
    assert process.stdout is not None
    yield {"DBUS_SESSION_BUS_ADDRESS": process.stdout.readline().strip()}
    process.communicate("\n", timeout=20)


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "background"])
def test_the_desktop_shows_it(place: Place, desktop: dict[str, str], detach: list[str]) -> None:
    """On a desktop the notification is shown, of a job that was left to the supervisor too."""
    configure(place, "desktop = true")
    tried = place.run("notify", "--test", env=desktop)
    assert (tried.returncode, tried.stdout) == (0, "desktop (notify-send): sent\n")
    job = job_id(place.submit(COMPLETED, *detach, env=desktop).stdout)
    assert place.run("wait", job, "--timeout", "30").returncode == 0

    def shown() -> list[str]:
        asked = place.spawn("dunstctl", "count", "displayed", env=desktop)
        if asked.communicate(timeout=10)[0].strip() != "2":
            return []
        place.spawn("dunstctl", "close-all", env=desktop).communicate(timeout=10)
        history = place.spawn("dunstctl", "history", env=desktop).communicate(timeout=10)[0]
        return [each["summary"]["data"] for each in json.loads(history)["data"][0]]

    titles = wait_until(shown, what="two notifications on the screen")
    assert sorted(titles) == ["delegate-job", f"job {job}: accepted"]
