"""The full screen of `watch`: the installed command in a person's terminal, and under Textual's Pilot."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

import samples
from delegate_job.job import JobState, Outcome
from delegate_job.paths import RegistryPaths
from delegate_job.registry import Registry
from delegate_job.rows import Row
from delegate_job.watch_all import AllJobs
from delegate_job.watch_app import WatchApp
from delegate_job.watch_log import lines_of
from harness import Place, wait_until
from terminal import Terminal

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
ASKS = f"{REPORT} permission_required --detail 'may [bold]I[/bold]'\n{UNTIL_TOLD}\n{COMPLETED}"


def begin(place: Place, agent: str, state: str, *options: str) -> str:
    """Start a job in the background; return its id as soon as it is in this state."""
    assert place.submit(agent, "--detach", *options).returncode == 0
    job = place.job("@last")
    place.await_state(str(job["id"]), state)
    return str(job["id"])


def watch(place: Place, *words: str, size: tuple[int, int] = (80, 24), before: str = "") -> Terminal:
    """Run `watch` in a terminal; return it when it has drawn its keys."""
    terminal = Terminal(place, *size)
    terminal.start("watch", *words, before=before)
    terminal.shows("q quit")
    return terminal


def line_with(terminal: Terminal, text: str, *others: str) -> str:
    """Return the line of the screen in which a text stands, once it shows the others too."""
    return next(line for line in terminal.shows(text, *others).splitlines() if text in line)


def ends(terminal: Terminal, key: str, code: int) -> None:
    """Press a key that ends it, and see its exit code on a terminal as it was before."""
    terminal.press(key)
    assert terminal.shows(f"code={code}") == f"code={code}"


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=str)
def test_all_jobs_on_one_screen(place: Place, size: tuple[int, int]) -> None:
    """Who waits stands first, marked and in capitals; text is shown as it was said; all keys are named."""
    assert place.submit(COMPLETED).returncode == 0
    waiting = begin(place, ASKS, "waiting")
    terminal = watch(place, size=size)
    head = "delegate-job   1 WAITING FOR YOU, 0 at work, 1 done"
    asked = f"{waiting} WAITING: permission required: may [bold]I[/bold]"
    screen = terminal.shows(head, f">!{waiting}", "accepted", asked, "q quit").splitlines()
    assert screen[0] == head
    assert screen[2].split()[:2] == [f">!{waiting}", "WAITING"]
    assert "accepted" in screen[3]
    assert asked in screen
    keys = " ".join("\n".join(screen[-2:]).split())
    for key in ("Enter job", "a attach", "y approve", "n deny", "c cancel", "r retry", "/ filter", "q quit"):
        assert key in keys
    assert max(map(len, screen)) <= size[0]
    (place.work / "go").touch()
    terminal.shows("0 at work, 2 done")
    ends(terminal, "q", 0)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=str)
def test_one_job_on_one_screen(place: Place, size: tuple[int, int]) -> None:
    """The timeline of its states, its events and the tail of its screen; Esc leads to all jobs."""
    job_id = begin(place, f"echo 'hello [red]there[/red]'\n{ASKS}", "waiting")
    terminal = watch(place, job_id, size=size)
    phases = re.compile(r"registered \d+ s > \S+ launching \d+ s > \S+ running \d+ s\s+> \S+ waiting \d+ s")
    wait_until(lambda: phases.search(terminal.screen()), what="the timeline")
    head = f"{job_id}  command  WAITING  checks 0/1  permission required: may"
    asked = "agent  permission_required: may [bold]I[/bold]"
    assert terminal.shows(head, asked, "hello [red]there[/red]").startswith(head)
    (place.work / "go").touch()
    terminal.shows("accepted  checks 0/1  completed: done", "agent  completed: done")
    terminal.press("Escape")
    assert line_with(terminal, "LAST EVENT").split()[0] == "ID"
    ends(terminal, "C-c", 130)


@pytest.mark.parametrize(("before", "coloured"), [("", True), ("NO_COLOR=1", False), ("NO_COLOR=", True)])
def test_colours_of_the_terminals_own(place: Place, before: str, *, coloured: bool) -> None:
    """The state's colour is one of the terminal's own; without colours the marks say the same."""
    assert place.submit(COMPLETED).returncode == 0
    terminal = watch(place, before=before)
    terminal.shows("accepted  ")
    coded = terminal.screen("-e")
    assert ("\x1b[32m" in coded or ";32m" in coded or "[32;" in coded) is coloured
    assert "38;2;" not in coded
    assert line_with(terminal, "accepted ").startswith("> ")
    ends(terminal, "q", 0)


def test_a_terminal_that_can_draw_nothing(place: Place) -> None:
    """With TERM=dumb there are lines, as without a terminal."""
    begin(place, ASKS, "waiting")
    terminal = Terminal(place)
    terminal.start("watch", before="TERM=dumb")
    assert "\x1b" not in terminal.shows(" WAITING ")
    (place.work / "go").touch()
    terminal.shows(" accepted ")
    terminal.press("C-c")
    terminal.shows("code=130")


def test_without_textual(place: Place) -> None:
    """Where the extra is not installed two lines say what to install, code 7; the lines need no extra."""
    missing = place.root / "missing"
    missing.mkdir()
    (missing / "textual.py").write_text("raise ModuleNotFoundError('no', name='textual')\n")
    terminal = Terminal(place)
    terminal.start("watch", before=f"PYTHONPATH={missing}")
    screen = terminal.shows("code=7").splitlines()
    assert screen[0].startswith("error: the full screen of watch needs Textual")
    assert screen[1].startswith("hint: pip install 'delegate-job[tui]'")
    assert place.submit(COMPLETED).returncode == 0
    shown = place.run("watch", "@last", "--json", env={"PYTHONPATH": str(missing)})
    assert json.loads(shown.stdout)["outcome"] == "accepted"


def test_no_jobs(place: Place) -> None:
    """Without jobs it says what makes one, and shows the first as it comes."""
    terminal = watch(place)
    terminal.shows("No jobs yet", "delegate-job submit --prompt")
    assert place.submit(COMPLETED).returncode == 0
    terminal.shows("accepted", without="No jobs yet")
    ends(terminal, "q", 0)


def test_attach_and_come_back(place: Place) -> None:
    """The attach key gives the terminal to the agent's session, and after the detach it is as before."""
    begin(place, f"echo the agent itself\n{ASKS}", "waiting")
    terminal = watch(place)
    terminal.press("a")
    terminal.shows("the agent itself", without="LAST EVENT")
    terminal.press("C-b", "d")
    terminal.shows("LAST EVENT", without="the agent itself")
    (place.work / "go").touch()
    terminal.shows("accepted")
    terminal.press("q")
    assert terminal.shows("code=0").splitlines()[1:] == ["code=0"]


def test_cancel_asks_first(place: Place) -> None:
    """N and Esc leave the job alone; y ends it, and what became of it is said."""
    job_id = begin(place, f"{REPORT} started\nexec sleep 600", "running")
    terminal = watch(place)
    for key in ("n", "Escape"):
        terminal.press("c")
        terminal.shows(f"Cancel job {job_id} and end its agent?")
        terminal.press(key)
        terminal.shows("LAST EVENT", without="Cancel job")
    assert place.job(job_id)["state"] == "running"
    terminal.press("c")
    terminal.shows(f"Cancel job {job_id}")
    terminal.press("y")
    terminal.shows(f"cancel: {job_id} cancelled")
    assert place.job(job_id)["outcome"] == "cancelled"
    terminal.press("c")
    terminal.shows(f"job {job_id} is done")
    ends(terminal, "q", 0)


def test_retry_runs_it_again(place: Place) -> None:
    """A finished job runs again in the background; one that is not done is refused."""
    job_id = begin(place, ASKS, "waiting")
    terminal = watch(place)
    terminal.press("r")
    terminal.shows(f"job {job_id} is not done yet: it is waiting")
    (place.work / "go").touch()
    terminal.shows("1 done")
    terminal.press("r")
    terminal.shows("retry: registered job: ")
    terminal.shows("2 done")
    assert place.job("@last")["retry_of"] == job_id
    ends(terminal, "q", 0)


def test_an_answer_that_cannot_be_given(place: Place) -> None:
    """What a command refuses is said with its hint, here of an agent whose dialogs nobody can answer."""
    job_id = begin(place, ASKS, "waiting")
    terminal = watch(place, size=(200, 30))
    terminal.press("y")
    terminal.shows(f"Approve what job {job_id} asks for?", "may [bold]I[/bold]")
    terminal.press("y")
    refusal = f"error: job {job_id} waits for a person, but not in a dialog"
    terminal.shows(f"approve: {refusal}")
    terminal.press("n")
    terminal.shows(f"Deny what job {job_id} asks for")
    terminal.press("-", "x", "Enter")
    assert "hint: " in line_with(terminal, f"deny: {refusal}", "hint: ")
    (place.work / "go").touch()
    terminal.shows("1 done")
    ends(terminal, "q", 0)


def test_tell_a_job_that_works(place: Place) -> None:
    """What is typed reaches the agent's session, whatever it begins with."""
    agent = f'{REPORT} started\nread -r words\nprintf "%s\\n" "$words" > heard\n{COMPLETED}'
    job_id = begin(place, agent, "running")
    terminal = watch(place)
    terminal.press("t")
    terminal.shows(f"Tell job {job_id}")
    terminal.press("--flag like this", "Enter")
    terminal.shows("1 done")
    assert (place.work / "heard").read_text().endswith(": --flag like this\n")
    ends(terminal, "q", 0)


def test_the_logs(place: Place) -> None:
    """Events, terminal, checks and reports, each by its number, legible; Esc leads back."""
    check = place.script("check", "echo 'looks fine'")
    wicked = "printf 'pl\\033]0;stolen\\007ain \\033[31mred\\033[0m\\n'"
    assert place.submit(f"{wicked}\n{COMPLETED}", "--validate", str(check), "--close").returncode == 0
    terminal = watch(place)
    terminal.press("l")
    terminal.shows("check_passed")
    for key, text in (("2", "plain red"), ("3", "looks fine"), ("4", '"kind"'), ("1", "check_passed")):
        terminal.press(key)
        terminal.shows(text)
    assert "stolen" not in terminal.tmux("display-message", "-p", "-t", "t", "#{pane_title}")
    terminal.press("Escape")
    terminal.shows("LAST EVENT")
    ends(terminal, "q", 0)


def test_a_log_with_nothing_in_it(place: Place) -> None:
    """It says so; an empty screen might be one that is still being read."""
    submit = ("submit", "--agent", "human", "--prompt", "Call them.", "--detach")
    assert place.run(*submit).returncode == 0
    terminal = watch(place, "@last")
    terminal.press("l")
    terminal.shows("spawned")
    terminal.press("3")
    terminal.shows("no check has run")
    terminal.press("2")
    terminal.shows("(nothing yet)")
    ends(terminal, "q", 0)
    assert place.run("cancel", "@last").returncode == 0


def test_the_filter(place: Place) -> None:
    """It narrows while it is typed, no letter of it is a command, and Esc ends it."""
    begin(place, ASKS, "waiting")
    terminal = watch(place)
    terminal.press("/")
    terminal.shows("words that must stand")
    terminal.press("nothing matches qyc")
    terminal.shows("No job matches the filter")
    terminal.press("Enter")
    terminal.press("Escape")
    terminal.shows("no filter")
    terminal.press("/")
    terminal.shows("words that must stand")
    terminal.press("waiting", "Enter")
    terminal.shows('filter: "waiting"')
    (place.work / "go").touch()
    terminal.shows("No job matches the filter")
    terminal.press("Escape")
    terminal.shows("accepted")
    ends(terminal, "q", 0)


def test_a_signal_leaves_the_terminal_as_it_was(place: Place) -> None:
    """SIGTERM ends it with 143, and not in the middle of its screen."""
    assert place.submit(COMPLETED).returncode == 0
    terminal = watch(place)
    (watching,) = [each.pid for each in place.processes() if each.command.endswith("delegate-job watch")]
    os.kill(watching, signal.SIGTERM)
    assert terminal.shows("code=143") == "code=143"


def test_a_registry_that_goes_away(place: Place) -> None:
    """A registry that cannot be read any more ends it with one line, on a terminal as it was before."""
    assert place.submit(COMPLETED).returncode == 0
    terminal = watch(place)
    database = place.registry / "registry.db"
    database.rename(place.root / "kept")
    database.mkdir()
    screen = terminal.shows("code=")
    database.rmdir()
    assert "error: " in screen
    assert "Traceback" not in screen
    assert "LAST EVENT" not in screen


# -- under Pilot


def run(registry: Registry, script: Callable[[WatchApp, Pilot[int]], Awaitable[None]]) -> None:
    """Run the app on a screen of 100x30 and do something with it."""

    async def main() -> None:
        app = WatchApp(registry)
        async with app.run_test(size=(100, 30)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(main())


def table_of(app: WatchApp) -> AllJobs:
    """Return the screen of all jobs."""
    screen = app.screen
    assert isinstance(screen, AllJobs)
    return screen


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Give an empty registry."""
    return Registry(RegistryPaths(tmp_path / "registry"))


def fill(registry: Registry, count: int, prefix: str = "job") -> None:
    """Add finished jobs."""
    for number in range(count):
        job_id = f"{prefix}{number:07}"
        job = samples.job(job_id, state=JobState.DONE, outcome=Outcome.ACCEPTED, ended_at=samples.CREATED)
        registry.add(job, samples.event("registered", job_id=job_id, id=job_id))


def test_a_thousand_jobs_cost_what_is_in_sight(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs there are, only lines in sight are made, and the last is a key away."""
    fill(registry, 1000)
    made: list[str] = []
    since = WatchApp.since

    def counted(app: WatchApp, row: Row) -> str:
        made.append(row.job.id)
        return since(app, row)

    monkeypatch.setattr(WatchApp, "since", counted)

    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        await pilot.press("end")
        await pilot.pause()
        selected = table_of(app).table.selected
        assert selected is not None
        assert selected.job.id == "job0000000"
        assert {*made} <= {f"job{number:07}" for number in (*range(40), *range(960, 1000))}

    run(registry, script)


def test_the_cursor_stays_on_its_job(registry: Registry) -> None:
    """Jobs that come above the one under the cursor do not move it to another."""
    fill(registry, 50)

    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        await pilot.press("down", "down", "pagedown", "up")
        before = table_of(app).table.selected
        assert before is not None
        with Registry(registry.paths) as other:
            fill(other, 5, "new")
        await pilot.pause(0.3)
        while len(app.jobs) < 55:
            await pilot.pause(0.1)
        after = table_of(app).table.selected
        assert after is not None
        assert after.job.id == before.job.id

    run(registry, script)


def test_a_pruned_job_leaves_the_screen(registry: Registry) -> None:
    """A job that is forgotten is shown no more; with the last of them the way to a new one is."""
    fill(registry, 1)

    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        with Registry(registry.paths) as other:
            other.forget("job0000000")
        while app.jobs:
            await pilot.pause(0.1)
        await pilot.pause()
        assert table_of(app).table.selected is None
        for key in ("a", "l", "y", "n", "t", "c", "r", "enter", "up"):
            await pilot.press(key)
        assert app.screen is table_of(app)

    run(registry, script)


def test_a_terminals_log_as_text() -> None:
    """Of a terminal's log what was to be read remains: no titles, no colours, no lines written over."""
    raw = b"\x1b]0;title\x07\x1b[1mbold\x1b[0m\r\n10%\r50%\r100%\r\nbell\x07 \xff\x1b(B end"
    assert lines_of(raw) == ["bold", "100%", "bell? � end"]
