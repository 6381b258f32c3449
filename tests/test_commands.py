"""The commands around submit: what they print for people and programs, and which job they mean."""

import json
import signal
import socket
from typing import Any

import pytest

from harness import Place, job_id, wait_until

REPORT = '"$DJ" publish --event'
COMPLETED = f"{REPORT} completed --detail done"
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
TIMES = ("created_at", "started_at", "ended_at", "last_event_at")


def finished(place: Place, agent: str = COMPLETED, *options: str) -> str:
    """Return the id of a job that is done."""
    return job_id(place.submit(agent, *options).stdout)


def documents(text: str) -> list[dict[str, Any]]:
    """Return the JSON documents of a stream of lines."""
    return [json.loads(line) for line in text.splitlines()]


def lines_of(place: Place, *words: str) -> list[str]:
    """Return what a command that must succeed, and be quiet on stderr, prints."""
    done = place.run(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def running(place: Place) -> str:
    """Return the id of the newest job once it runs; a directory alone is no job yet."""

    def found() -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = json.loads(place.run("list", "--state", "running", "--json").stdout)
        return jobs

    return str(wait_until(found, what="a running job")[0]["id"])


# -- which job is meant


def test_ids_may_be_shortened(place: Place) -> None:
    """The whole id, a unique beginning, and @last mean the same job, in every command, in both places."""
    name = finished(place)
    for word in (name, name[:4], "@last"):
        for command in (("status", "--json"), ("wait", "--json"), ("logs",)):
            by_place = place.run(*command, word).stdout
            assert place.run(*command, "--job", word).stdout == by_place != ""
        assert place.run("cancel", word).stdout == f"{name} accepted\n"
        assert place.run("publish", "--job", word, "--event", "progress").returncode == 0


def test_last_is_the_newest(place: Place) -> None:
    """@last follows the order of submits, whatever happened to the older jobs since."""
    first, second = finished(place), finished(place)
    place.run("publish", "--job", first, "--event", "progress")
    place.run("verify", first, "--validate", "/bin/true")
    assert (place.job("@last")["id"], first == second) == (second, False)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("wait",),
        ("logs",),
        ("attach",),
        ("cancel",),
        ("verify", "--validate", "/bin/true"),
        ("publish", "--event", "completed", "--job"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("word", ["nobody", "", "%", "_", "../x"])
def test_an_unknown_id_is_one_line(place: Place, words: tuple[str, ...], word: str) -> None:
    """An id that no job has, or that looks like a pattern or a path, is 2 and one line that names it."""
    finished(place)
    done = place.run(*words, word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
    assert repr(word) in done.stderr


def test_an_ambiguous_id_is_refused(place: Place) -> None:
    """A beginning that two jobs share is 2, never the one or the other."""
    first_letters: dict[str, str] = {}
    shared = ""
    while not shared:
        name = job_id(place.run("submit", "--agent", "true", "--prompt", "x").stdout)
        shared = name[0] if name[0] in first_letters else ""
        first_letters[name[0]] = name
    for words in (("status", shared), ("cancel", shared), ("publish", "--event", "error", "--job", shared)):
        done = place.run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert repr(shared) in done.stderr


@pytest.mark.parametrize("words", [("status",), ("verify", "--validate", "x"), ("logs",)], ids=" ".join)
def test_exactly_one_job_is_named(place: Place, words: tuple[str, ...]) -> None:
    """No job, or two of them, where one is meant: 2."""
    assert place.run(*words).returncode == 2
    assert place.run(*words, "one", "--job", "other").returncode == 2


# -- status and list


def test_status_for_people(place: Place) -> None:
    """One name and one value a line; what is not known is not there."""
    name = finished(place, f"{REPORT} error --detail 'no key'")
    lines = lines_of(place, "status", name)
    shown = {line[:13].strip(): line[14:] for line in lines}
    assert shown["id"] == name
    assert shown["state"] == "done: failed"
    assert (shown["detail"], shown["exit_code"]) == ("no key", "1")
    assert "ago (" in shown["ended"]
    assert not any("None" in line for line in lines)


def test_status_as_json_has_what_is_not_known_as_null(place: Place) -> None:
    """A running job: no outcome, no end, its owner's pid and host; times are RFC 3339 in UTC."""
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"))
    job = place.job(running(place))
    assert (job["outcome"], job["verdict"], job["exit_code"], job["ended_at"]) == (None, None, None, None)
    assert job["owner"] == {"pid": submit.pid, "host": socket.gethostname()}
    assert all(str(job[name]).endswith("Z") for name in TIMES if job[name])
    assert (job["broker"], job["attempts"], job["idle_timeout"]) == ("embedded", 1, None)


def test_status_connection(place: Place) -> None:
    """A live job tells any MQTT client where and how to read; a job that is done has no broker any more."""
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"))
    name = running(place)
    shown = json.loads(place.run("status", name, "--connection", "--json").stdout)
    user, token, host, port = (shown[key] for key in ("user", "token", "host", "port"))
    assert shown["url"] == f"mqtt://{user}:{token}@{host}:{port}"
    assert shown["topics"] == f"delegate-job/v1/{name}/#"
    assert lines_of(place, "status", name, "--connection") == [shown["url"], shown["topics"]]
    (place.work / "go").touch()
    assert submit.wait(20) == 0
    done = place.run("status", name, "--connection")
    assert (done.returncode, "no broker any more" in done.stderr) == (2, True)


def test_list_is_newest_first_and_filtered(place: Place) -> None:
    """All jobs, newest first; --state, --agent, --here and --limit leave some out."""
    first = finished(place)
    second = job_id(place.run("submit", "--agent", "true", "--prompt", "x").stdout)
    (place.root / "other").mkdir()
    third = finished(place, COMPLETED, "--workdir", str(place.root / "other"))

    def listed(*words: str) -> list[str]:
        return [job["id"] for job in json.loads(place.run("list", "--json", *words).stdout)]

    assert listed() == [third, second, first]
    assert listed("--limit", "2") == [third, second]
    assert listed("--here") == [second, first]
    assert listed("--agent", "true") == [second]
    assert (listed("--state", "done"), listed("--state", "running")) == ([third, second, first], [])


def test_list_for_people(place: Place) -> None:
    """One line a job under a heading; off a terminal nothing is cut, and nothing is coloured."""
    detail = "long " * 50
    name = finished(place, f"{REPORT} completed --detail '{detail}\x1b[31m'")
    done = place.run("list", env={"COLUMNS": "60"})
    heading, line = done.stdout.splitlines()
    assert heading.split()[:3] == ["ID", "STATE", "AGENT"]
    assert line.split()[:3] == [name, "accepted", "command"]
    assert (detail in line, "\x1b" in done.stdout) == (True, False)


def test_list_says_why_a_job_was_rejected(place: Place) -> None:
    """Why it ended so comes before what its agent has claimed."""
    check = place.script("check", "exit 3")
    assert (
        place.submit(f"{REPORT} completed --detail claimed", "--validate", check, "--close").returncode == 3
    )
    assert place.run("list").stdout.endswith("  the check rejected the work: exit 3: claimed\n")


def test_list_without_jobs(place: Place) -> None:
    """Nothing on stdout, a hint on stderr; as JSON an empty array."""
    done = place.run("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no jobs" in done.stderr
    assert json.loads(place.run("list", "--json").stdout) == []


def test_status_and_list_show_the_same_job(place: Place) -> None:
    """`list` gives an array of what `status` and `wait` give."""
    name = finished(place)
    (listed,) = json.loads(place.run("list", "--json").stdout)
    waited = json.loads(place.run("wait", name, "--json").stdout)
    assert listed == place.job(name) == waited


# -- wait


def test_wait_for_all_and_for_any(place: Place) -> None:
    """All named jobs and the highest code; with --any the first that is done, and its code."""
    lost = job_id(place.run("submit", "--agent", "true", "--prompt", "x").stdout)
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"))
    name = running(place)
    any_of = place.run("wait", name, lost, "--any")
    assert (any_of.returncode, any_of.stdout) == (4, f"{lost} lost\n")
    waiting = place.start("wait", name, lost, "--json")
    assert place.run("wait", name, lost, "--timeout", "0.1").returncode == 124
    (place.work / "go").touch()
    stdout, stderr = waiting.communicate(timeout=20)
    assert (waiting.returncode, stderr) == (4, "")
    assert [(job["id"], job["outcome"]) for job in json.loads(stdout)] == [(name, "accepted"), (lost, "lost")]
    assert submit.wait(20) == 0


def test_wait_without_a_name_is_for_all_unfinished(place: Place) -> None:
    """No id: all jobs that are not done; when there is none it returns at once with 0."""
    finished(place)
    idle = place.run("wait")
    assert (idle.returncode, idle.stdout) == (0, "")
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{REPORT} error"))
    name = running(place)
    waiting = place.start("wait")
    (place.work / "go").touch()
    stdout, _ = waiting.communicate(timeout=20)
    assert submit.wait(20) == 1
    # It may have looked before or after the end; unfinished is what was so when it looked.
    assert (waiting.returncode, stdout) in {(1, f"{name} failed\n"), (0, "")}


def test_wait_until_a_state(place: Place) -> None:
    """--until ends with 0 when the state is reached, with the job's own code when it ends before."""
    agent = f"{UNTIL_TOLD}\n{REPORT} permission_required --detail 'rm -r?'\nexec sleep 600"
    submit = place.start(*place.submit_args(agent))
    name = running(place)
    for_waiting, for_checking = (place.start("wait", name, "--until", s) for s in ("waiting", "checking"))
    (place.work / "go").touch()
    stdout, _ = for_waiting.communicate(timeout=20)
    assert (for_waiting.returncode, stdout) == (0, f"{name} waiting\n")
    assert place.job(name)["reason"] == "permission required"
    place.run("cancel", name)
    assert (for_checking.wait(20), submit.wait(20)) == (9, 9)


# -- verify and logs


def test_verify_is_recorded_beside_the_job(place: Place) -> None:
    """The check's output on stdout, its result as JSON, and an event that is not applied."""
    name = finished(place)
    (place.work / "made").touch()
    check = place.script("check", 'echo "$JOB_ID"; test -e made || exit 2; exit 3')
    shown = place.run("verify", name, "--validate", check)
    assert (shown.returncode, shown.stdout) == (3, f"{name}\n")
    as_json = place.run("verify", "--job", name, "--validate", check, "--json")
    result = json.loads(as_json.stdout)
    assert (as_json.returncode, as_json.stderr) == (3, f"{name}\n")
    assert (result["job_id"], result["exit_code"], result["verdict"]) == (name, 3, "failed")
    verified = [e for e in documents(place.run("logs", name, "--json").stdout) if e["kind"] == "verified"]
    assert [(event["applied"], event["source"]) for event in verified] == [(False, "user")] * 2


def test_verify_names_what_is_wrong_with_its_script(place: Place) -> None:
    """A script that is not there, or none at all, is 2 and nothing is run or recorded."""
    name = finished(place)
    for words in (("--validate", "/no/such/script"), ("--validate", str(place.work)), ()):
        done = place.run("verify", name, *words)
        assert (done.returncode, done.stdout) == (2, "")
    assert "verified" not in place.run("logs", name).stdout


def test_logs_of_each_kind(place: Place) -> None:
    """Events by default; --reports what was claimed, --pane the screen, --validation the checks' output."""
    check = place.script("check", "echo looked closely")
    name = finished(place, f"echo on the screen\n{COMPLETED}", "--validate", str(check))
    events = [line.split()[1:3] for line in lines_of(place, "logs", name)]
    assert events[:2] == [["owner", "registered"], ["owner", "launching"]]
    # The agent goes at once, and may be faster than the runner's word.
    assert ["runner", "spawned"] in events
    assert ["agent", "completed:"] in events
    reported = [line for line in lines_of(place, "logs", name, "--reports") if line]
    assert [json.loads(line)["kind"] for line in reported] == ["completed"]
    wait_until(
        lambda: "on the screen" in "\n".join(lines_of(place, "logs", name, "--pane")), what="the screen"
    )
    assert "looked closely" in "\n".join(lines_of(place, "logs", name, "--validation"))


def test_logs_as_json_is_one_event_a_line(place: Place) -> None:
    """Rising sequence numbers, the source, both times, and whether it was applied."""
    name = finished(place)
    events = documents(place.run("logs", name, "--json").stdout)
    numbers = [event["sequence"] for event in events if event["sequence"] is not None]
    assert numbers == sorted(set(numbers))
    keys = {"sequence", "id", "job_id", "kind", "source", "at", "received_at", "detail", "data", "applied"}
    assert all(set(event) == keys and event["job_id"] == name for event in events)


def test_logs_follow_ends_with_the_job(place: Place) -> None:
    """--follow prints what comes, as it comes, and ends with the job; the same for the screen."""
    # The screen is copied a moment after it was written: the job is not to end before.
    until_copied = 'until grep -q second "${DELEGATE_JOB_CONNECTION%/*}/pane.log"; do sleep 0.05; done'
    agent = f"{REPORT} progress > said\necho first\n{UNTIL_TOLD}\necho second\n{until_copied}\n{COMPLETED}"
    submit = place.start(*place.submit_args(agent))
    name = running(place)
    events, pane = place.start("logs", name, "--follow", "--json"), place.start("logs", name, "-f", "--pane")
    assert events.stdout is not None
    assert pane.stdout is not None
    while json.loads(events.stdout.readline())["kind"] != "progress":
        pass
    assert pane.stdout.readline().strip() == "first"
    assert (events.poll(), pane.poll()) == (None, None)
    (place.work / "go").touch()
    rest, _ = events.communicate(timeout=20)
    assert "completed" in [event["kind"] for event in documents(rest)]
    assert "second" in pane.communicate(timeout=20)[0]
    assert (events.returncode, pane.returncode, submit.wait(20)) == (0, 0, 0)


def test_logs_of_checks_are_followed_from_one_to_the_next(place: Place) -> None:
    """--validation --follow may come before the first check, and shows each as it speaks."""
    check = place.script("check", 'echo "check $JOB_ATTEMPT"; [ "$JOB_ATTEMPT" = 2 ]')
    words = ("--agent", "human", "--prompt", "x", "--validate", check, "--attempts", "2")
    submit = place.start("submit", *words)
    name = running(place)
    following = place.start("logs", name, "--validation", "--follow")
    assert following.stdout is not None
    for number in (1, 2):
        assert place.run("publish", "--job", name, "--event", "completed").returncode == 0
        assert following.stdout.readline() == f"check {number}\n"
        # A claim counts again when the rejection was told.
        wait_until(lambda: place.job(name)["last_event"] in {"told", "check_passed"}, what="the verdict")
    assert submit.wait(20) == 0
    assert (*following.communicate(timeout=20), following.returncode) == ("", "", 0)


def test_logs_list(place: Place) -> None:
    """The audit directory of each job, newest first; not where one job is named."""
    first, second = finished(place), finished(place)
    paths = [(name, str(place.log_dir(name))) for name in (second, first)]
    assert lines_of(place, "logs", "--list") == [f"{name} {path}" for name, path in paths]
    shown = json.loads(place.run("logs", "--list", "--json").stdout)
    assert [(job["id"], job["log_dir"]) for job in shown] == paths


# -- attach, cancel, publish, broker


def test_attach_needs_a_terminal_and_a_session(place: Place) -> None:
    """Without a terminal, without a session, or after it was ended: one line that says which."""
    name = finished(place)
    without = place.run("attach", name)
    assert (without.returncode, "needs a terminal" in without.stderr) == (2, True)
    argv = json.loads(place.run("attach", name, "--json").stdout)["argv"]
    assert (argv[0], argv[-1]) == ("tmux", f"-t=dj-{name}")
    place.tmux("kill-server")
    gone = place.run("attach", name)
    assert (gone.returncode, f"dj-{name} of job {name} is gone" in gone.stderr) == (7, True)


def test_cancel_of_a_job_that_is_done_changes_nothing(place: Place) -> None:
    """Cancelling twice, or too late, is no error and no event: it says how the job ended."""
    name = finished(place)
    before = place.run("logs", name, "--json").stdout
    done = place.run("cancel", name, "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "accepted")
    assert place.run("logs", name, "--json").stdout == before


def test_publish_says_what_came_of_it(place: Place) -> None:
    """For people a line; with --json what was recorded and sent, and why not."""
    submit = place.start(*place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}"))
    name = running(place)
    report = ("publish", "--job", name, "--event", "progress", "--timeout", "30")
    said = place.run(*report, "--detail", "half\nway")
    assert (said.returncode, said.stdout, said.stderr) == (0, "recorded and sent\n", "")
    shown = json.loads(place.run(*report, "--json").stdout)
    assert (shown["job_id"], shown["recorded"], shown["sent"], shown["reason"]) == (name, True, True, None)
    (place.work / "go").touch()
    assert submit.wait(20) == 0
    late = json.loads(place.run("publish", "--job", name, "--event", "progress", "--json").stdout)
    assert (late["recorded"], late["sent"], bool(late["reason"])) == (True, False, True)


def test_broker_alone(place: Place) -> None:
    """One JSON line once it listens, a clean end on SIGTERM, and one line when its port is taken."""
    serving = place.start("broker", "--observer")
    assert serving.stdout is not None
    urls = json.loads(serving.stdout.readline())
    assert set(urls) == {"url", "observer_url"}
    port = urls["url"].rpartition(":")[2]
    taken = place.run("broker", "--port", port)
    assert (taken.returncode, taken.stdout) == (7, "")
    assert (port in taken.stderr, len(taken.stderr.splitlines()) <= 2) == (True, True)
    serving.send_signal(signal.SIGTERM)
    assert (*serving.communicate(timeout=10), serving.returncode) == ("", "", 0)


def test_every_command_explains_itself(place: Place) -> None:
    """--help and -h of each command are 0, on stdout, and name what every command takes."""
    for command in ("submit", "status", "list", "wait", "verify", "logs", "attach", "cancel", "broker"):
        shown = place.run(command, "-h")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout == place.run(command, "--help").stdout
        if command == "submit":
            shown = place.run(command, "--help-all")
        assert "--registry-dir" in shown.stdout
        assert "--json" in shown.stdout
    assert place.run("publish", "-h").stdout.startswith("usage: delegate-job publish")
    assert place.run("--version").stdout.startswith("delegate-job ")
