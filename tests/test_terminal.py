"""The command in a person's own terminal: the live line, colours, Ctrl-C, and attach inside another tmux."""

import json
from pathlib import Path

import pytest

from harness import Place, wait_until
from terminal import Terminal

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"


def test_the_live_line(place: Place) -> None:
    """On a terminal one line, always the last, says state, time and last event; it leaves nothing behind."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{REPORT} progress --detail half\n{UNTIL_TOLD}\n{COMPLETED}"))
    before = terminal.shows("running (").splitlines()
    terminal.shows("s, progress ")
    assert before[-1].startswith("running (")
    (place.work / "go").touch()
    after = terminal.shows("code=0").splitlines()
    assert after[-1] == "code=0"
    assert Path("".join(after[-2:-1])).parent == place.work / "delegate_job_logs"
    assert not any(line.startswith("running (") for line in after)


def test_the_live_line_says_why_it_waits(place: Place) -> None:
    """A job that waits for a person says so in the live line, with the reason."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{REPORT} permission_required\n{UNTIL_TOLD}\n{COMPLETED}"))
    assert terminal.shows("waiting: permission required (").splitlines()[-1].startswith("waiting: ")
    (place.work / "go").touch()
    terminal.shows("code=0")


@pytest.mark.parametrize(("before", "coloured"), [("", True), ("NO_COLOR=1", False), ("TERM=dumb", False)])
def test_colours(place: Place, before: str, *, coloured: bool) -> None:
    """Colours are for terminals, and for people who did not refuse them."""
    assert place.submit(COMPLETED).returncode == 0
    terminal = Terminal(place)
    terminal.start("list", before=before)
    terminal.shows("code=0")
    (line,) = [line for line in terminal.screen("-e").splitlines() if "accepted" in line]
    assert ("\x1b[32maccepted" in line, "\x1b" in line) == (coloured, coloured)


@pytest.mark.parametrize("before", ["", "NO_COLOR=1"])
def test_the_live_line_is_coloured_or_not(place: Place, before: str) -> None:
    """The live line has its state's colour, and with NO_COLOR none."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"), before=before)
    coded = wait_until(
        lambda: text if "running (" in (text := terminal.screen("-e")) else "", what="the line"
    )
    assert ("\x1b[34mrunning (" in coded) is (before == "")
    (place.work / "go").touch()
    terminal.shows("code=0")


def test_no_live_line_in_a_file(place: Place) -> None:
    """Lines that go into a file are lines, also while a person looks at the other stream."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(COMPLETED), behind="> lines")
    terminal.shows("code=0")
    text = (place.work / "lines").read_text()
    assert ("\x1b" in text, "\r" in text) == (False, False)
    assert terminal.screen() == "code=0"


def test_json_in_a_terminal(place: Place) -> None:
    """--json into a file: the document alone there, the lines and the live line on the terminal."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}", "--json"), behind="> job.json")
    terminal.shows("running (")
    (place.work / "go").touch()
    terminal.shows("code=0")
    assert json.loads((place.work / "job.json").read_text())["outcome"] == "accepted"


def test_list_fits_the_terminal(place: Place) -> None:
    """On a terminal a table is no wider than it; what is cut ends with an ellipsis."""
    assert place.submit(f"{REPORT} completed --detail '{'long ' * 40}'").returncode == 0
    terminal = Terminal(place, columns=70)
    terminal.start("list")
    lines = terminal.shows("code=0").splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("…")


@pytest.fixture
def in_no_haste(place: Place) -> None:
    """Give a second Ctrl-C more than its two seconds: we may be slow to see the answer to the first."""
    (place.root / "slow").mkdir()
    longer = "from delegate_job import leaving\nleaving.SECOND_CHANCE = 60.0\n"
    (place.root / "slow/sitecustomize.py").write_text(longer)
    place.environ["PYTHONPATH"] = str(place.root / "slow")


def press_ctrl_c_twice(terminal: Terminal) -> str:
    """Press Ctrl-C, and again when it is answered; return the screen after the end."""
    terminal.press("C-c")
    terminal.shows("Ctrl-C again within 60 s cancels")
    terminal.press("C-c")
    return terminal.shows("code=130")


def test_status_fits_the_terminal(place: Place) -> None:
    """A long text stands beside its name, in lines that part no word; in a file it is one line."""
    detail = " ".join(f"word{number}" for number in range(40))
    assert place.submit(f"{REPORT} completed --detail '{detail}'").returncode == 0
    terminal = Terminal(place, columns=60)
    terminal.start("status", "@last")
    shown = terminal.shows("code=0")
    assert f"detail {detail} agent" in " ".join(shown.split())
    assert [line for line in shown.splitlines() if line.startswith("word")] == []
    assert f"detail        {detail}\n" in place.run("status", "@last").stdout


def test_ctrl_c_hands_over(place: Place) -> None:
    """Ctrl-C once: 130, the job goes on without us, and what is said to get back to it gets back to it."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}"))
    terminal.shows("running (")
    terminal.press("C-c")
    screen = terminal.shows("code=130")
    job = place.job("@last")
    assert "Ctrl-C again within 2 s cancels" in screen
    assert ("outcome: not finished" in screen, job["state"]) == (True, "running")
    assert f"back to it: delegate-job wait {job['id']}" in screen
    (place.work / "go").touch()
    assert place.run("wait", job["id"]).returncode == 0


def test_ctrl_c_twice_cancels(place: Place, in_no_haste: None) -> None:
    """Ctrl-C twice is cancelled, 130, and the agent is ended with its session."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{REPORT} started\nexec sleep 600", "--close"))
    terminal.shows("running (")
    assert "outcome: cancelled" in press_ctrl_c_twice(terminal)
    assert place.job("@last")["outcome"] == "cancelled"
    terminal.tmux("kill-server")
    wait_until(lambda: not place.processes(), what="nothing left")


def test_ctrl_c_in_the_middle_of_a_check_is_no_rejection(place: Place, in_no_haste: None) -> None:
    """Ctrl-C reaches us and not the check: cancelled, no verdict, and no process of it is left."""
    check = place.script("check", f"touch {place.root}/begun; sleep 601 & sleep 602; exit 0")
    terminal = Terminal(place)
    terminal.start(*place.submit_args(COMPLETED, "--validate", str(check), "--close"))
    wait_until((place.root / "begun").exists, what="the check")
    screen = press_ctrl_c_twice(terminal)
    job = place.job("@last")
    assert ("validation:" in screen, job["outcome"], job["verdict"]) == (False, "cancelled", None)
    terminal.tmux("kill-server")
    wait_until(lambda: not place.processes(), what="nothing left")


def test_a_terminal_that_is_closed_hands_over(place: Place) -> None:
    """The window is closed: submit has nobody to talk to, and the job goes on and ends as it should."""
    terminal = Terminal(place)
    terminal.start(*place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}"))
    terminal.shows("running (")
    before = place.job("@last")
    terminal.tmux("kill-server")
    wait_until((place.registry / "supervisor.lock").exists, what="the supervisor")
    after = wait_until(lambda: place.job(before["id"])["owner"], what="another owner")
    assert after["pid"] != before["owner"]["pid"]
    (place.work / "go").touch()
    assert place.run("wait", before["id"]).returncode == 0
    assert list(place.registry.glob("crash-*")) == []


def test_attach_inside_another_tmux(place: Place) -> None:
    """Attach shows the agent, takes what is typed, and leaves it alone when the person goes."""
    agent = f"echo 'the agent asks:'\nread -r word\necho \"$word\" > heard\n{UNTIL_TOLD}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent))
    name = place.await_job()
    wait_until(lambda: place.run("status", name).returncode == 0, what="the job")
    place.await_state(name, "running")
    terminal = Terminal(place)
    terminal.start("attach", name)
    terminal.shows("the agent asks:")
    terminal.press("yes please", "Enter")
    heard = place.work / "heard"
    wait_until(lambda: heard.exists() and heard.read_text() == "yes please\n", what="the typed words")
    terminal.press("C-b", "d")
    terminal.shows("code=0")
    assert (submit.poll(), place.job(name)["state"]) == (None, "running")
    (place.work / "go").touch()
    assert submit.wait(20) == 0


def test_logs_of_a_pane_drive_no_terminal(place: Place) -> None:
    """What an agent wrote to its terminal is shown with its colours; a title or a jump is not obeyed."""
    wicked = "printf 'pl\\033]0;stolen\\007ain \\033[31mred\\033[0m \\033[2Jend\\n'"
    done = place.submit(f"{wicked}\n{COMPLETED}")
    assert done.returncode == 0
    terminal = Terminal(place)
    terminal.start("logs", "@last", "--pane")
    shown = terminal.shows("code=0")
    assert "red" in shown
    assert "[2Jend" in shown
    assert "stolen" not in terminal.tmux("display-message", "-p", "-t", "t", "#{pane_title}")


def test_nohup_is_meant(place: Place) -> None:
    """A submit that ignores SIGHUP from its start neither ends nor hands its job over when it comes."""
    submit = place.spawn(
        "nohup", place.environ["DJ"], *place.submit_args(f"{REPORT} started\n{UNTIL_TOLD}\n{COMPLETED}")
    )
    name = place.await_job()
    place.await_state(name, "running")
    submit.send_signal(1)
    (place.work / "go").touch()
    submit.communicate(timeout=30)
    assert submit.returncode == 0
