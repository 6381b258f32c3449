"""What programs are given: each document that is printed, published or written down fits its JSON Schema."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

import samples
from delegate_job.events import REPORTED, Kind, Source
from delegate_job.exit_codes import exit_code_of
from delegate_job.job import Job, JobSpec, JobState, Outcome, Verdict
from harness import Place, job_id
from subscribers import Follower, observer

SCHEMAS = Path(__file__).resolve().parent.parent / "docs/schemas"
REPORT = '"$DJ" publish --event'
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"


def schema(name: str) -> dict[str, Any]:
    """Return a published schema."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found


def fits(name: str, document: Any) -> Any:
    """Return a document that fits a schema and has no field that the schema does not describe."""
    Draft202012Validator(schema(name)).validate(document)
    if name != "report":  # A reporter may say more.
        assert set(document) == set(schema(name)["properties"])
    return document


def printed(place: Place, *words: str, code: int = 0) -> Any:
    """Return the one JSON document that a command prints on stdout."""
    done = place.run(*words, "--json")
    assert done.returncode == code, done
    return json.loads(done.stdout)


def lines(text: str) -> list[Any]:
    """Return the documents of a stream of lines, without those that are empty."""
    return [json.loads(line) for line in text.splitlines() if line]


# -- the schemas themselves


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.name)
def test_schemas_are_schemas(path: Path) -> None:
    """Each file is a schema of draft 2020-12 and says so."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(found)


def test_enumerations_are_those_of_the_code() -> None:
    """A state, outcome, verdict, exit code, kind or source that is added is added to its schema."""
    job, event, report = (schema(name)["properties"] for name in ("job", "event", "report"))
    assert job["state"]["enum"] == list(JobState)
    assert job["outcome"]["enum"] == [*Outcome, None]
    assert job["verdict"]["enum"] == [*Verdict, None]
    assert job["exit_code"]["enum"] == [*sorted(map(exit_code_of, Outcome)), None]
    assert event["source"]["enum"] == list(Source)
    assert event["kind"]["anyOf"][0]["enum"] == list(Kind)
    assert set(report["kind"]["anyOf"][0]["enum"]) == REPORTED


def test_what_may_be_null_may_be_null_in_the_code() -> None:
    """A field of a job may be null in its schema if and only if it may be in the code."""
    whole = schema("job")
    for source in (Job, JobSpec):
        # `broker` and `session` are shown in another form.
        for name in set(whole["properties"]) & set(source._fields) - {"session", "broker"}:
            one = {"$defs": whole["$defs"], **whole["properties"][name]}
            may_be_null = type(None) in get_args(source.__annotations__[name])
            assert Draft202012Validator(one).is_valid(None) == may_be_null, name


BROKEN = [
    {"state": "asleep"},
    {"outcome": None},
    {"exit_code": None},
    {"ended_at": "yesterday"},
    {"state": "running"},
    {"attempt": "1"},
    {"workdir": "relative"},
    {"owner": {"pid": 1}},
]


@pytest.fixture(scope="module")
def done_job() -> Iterator[Any]:
    """Give a real job that is done."""
    place = Place.make()
    with contextlib.closing(place):
        yield json.loads(place.submit(f"{REPORT} completed", "--json").stdout)


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_the_schema_refuses_what_no_job_is(done_job: Any, change: dict[str, Any]) -> None:
    """The test can fail: a job with one field amiss, or one missing, does not fit."""
    fits("job", done_job)
    with pytest.raises(ValidationError):
        fits("job", done_job | change)
    with pytest.raises(ValidationError):
        fits("job", {name: value for name, value in done_job.items() if name not in change})


# -- what commands print


def test_a_job_from_the_first_to_the_last_word(place: Place) -> None:
    """A live job and then a rejected one: from every command that shows a job, and in result.json."""
    check = place.script("check", "echo no; exit 1")
    agent = f"{REPORT} permission_required --detail 'may I?'\n{UNTIL_GO}\n{REPORT} completed --detail done"
    submit = place.start(*place.submit_args(agent, "--validate", check, "--json", "--operation-id", "k"))
    name = place.await_job()
    place.await_state(name, "waiting")
    live = fits("job", printed(place, "status", name))
    assert (live["state"], live["owner"]["pid"]) == ("waiting", submit.pid)
    assert [fits("job", each)["id"] for each in printed(place, "list")] == [name]
    assert fits("job", printed(place, "wait", name, "--until", "waiting"))["id"] == name
    (place.work / "go").touch()
    ended = fits("job", json.loads(submit.communicate(timeout=30)[0]))
    assert (ended["outcome"], ended["verdict"], ended["operation_id"]) == ("rejected", "failed", "k")
    result = json.loads((place.log_dir(name) / "result.json").read_text())
    assert fits("job", result)["exit_code"] == 3
    assert fits("job", printed(place, "cancel", name)) == printed(place, "status", name) == ended
    assert [fits("job", each) for each in printed(place, "wait", name, name, code=3)] == [ended, ended]


def test_jobs_that_nobody_waits_for(place: Place) -> None:
    """A detached job, its cancelling, and its retry are jobs; so is one that nobody but a person does."""
    args = place.submit_args(
        f"{REPORT} started\nexec sleep 600", "--detach", "--idle-timeout", "600", "--json"
    )
    detached = fits("job", json.loads(place.run(*args).stdout))
    place.await_state(detached["id"], "running")
    assert fits("job", printed(place, "cancel", detached["id"]))["outcome"] == "cancelled"
    again = fits("job", printed(place, "retry", detached["id"], "--detach"))
    assert again["retry_of"] == detached["id"]
    assert fits("job", printed(place, "cancel", again["id"]))["outcome"] == "cancelled"
    words = ("submit", "--agent", "human", "--prompt", "Sign it.", "--detach")
    signed = fits("job", printed(place, *words))
    assert (signed["session"], signed["attach"]) == (None, None)
    assert place.run("publish", "--job", signed["id"], "--event", "error").returncode == 0
    assert fits("job", printed(place, "wait", signed["id"], code=1))["outcome"] == "failed"


def test_events_wherever_they_are_read(place: Place) -> None:
    """The same events: `logs --json`, events.jsonl and --on-event's stdin; late ones have no number."""
    told = place.root / "told"
    agent = f"""{REPORT} started
{REPORT} progress --detail $'two\\nlines'
printf '\\n{{"id":"own","job_id":"%s","kind":"of_my_own","at":"2026-01-01T01:00:00+02:00","x":1}}\\n' \\
    "$DELEGATE_JOB_ID" >> "$DELEGATE_JOB_DIR/reports.jsonl"
echo 'not a report' >> "$DELEGATE_JOB_DIR/reports.jsonl"
{REPORT} completed"""
    hook = place.script("hook", f"cat >> {told}")
    done = place.submit(agent, "--on-event", str(hook), "--validate", place.script("check", "exit 0"))
    name = job_id(done.stdout)
    assert place.run("publish", "--job", name, "--event", "error").returncode == 0
    assert place.run("verify", name, "--validate", place.root / "check").returncode == 0
    shown = [fits("event", each) for each in lines(place.run("logs", name, "--json").stdout)]
    assert [each["kind"] for each in shown if each["sequence"] is None] == ["error"]
    assert ("of_my_own", False, {"x": 1}) in [(each["kind"], each["applied"], each["data"]) for each in shown]
    assert {each["source"] for each in shown} == {"agent", "owner", "runner", "user"}
    written = [fits("event", each) for each in lines((place.log_dir(name) / "events.jsonl").read_text())]
    heard = [fits("event", each) for each in lines(told.read_text())]
    numbered = {each["id"]: each for each in shown if each["sequence"] is not None}
    assert all(numbered[each["id"]] == each for each in [*written, *heard])
    assert {"completed", "check_passed"} <= {each["kind"] for each in heard}


@pytest.mark.parametrize("where", ["embedded", "mosquitto"])
def test_topics(place: Place, where: str, request: pytest.FixtureRequest) -> None:
    """`state` is a job and `report/<kind>` a report, on our broker and on a real Mosquitto."""
    server = request.getfixturevalue("mosquitto") if where == "mosquitto" else None
    options = ("--broker", server.url) if server else ()
    # The check waits too: with its job our broker ends, and what is claimed last may find none.
    check = place.script("check", UNTIL_GO)
    agent = f"{REPORT} progress --detail here\n{REPORT} completed"
    submit = place.start(*place.submit_args(agent, "--validate", check, *options))
    name = place.await_job()
    place.await_state(name, "checking")
    address = observer(place, name)
    if server:
        address = address._replace(password=server.password)
    with Follower(address) as follower:
        follower.subscribe(f"delegate-job/v1/{name}/#")
        follower.await_names(["report/progress", "report/completed", "state"])
        (place.work / "go").touch()
        follower.await_fields("state", state="done")
        heard = [told for told in follower.heard if told.payload]
    assert submit.wait(30) == 0
    states = [fits("job", told.fields) for told in heard if told.name == "state"]
    reports = [fits("report", told.fields) for told in heard if told.name.startswith("report/")]
    assert states[-1]["outcome"] == "accepted"
    assert {"progress", "completed"} <= {each["kind"] for each in reports}


def test_reports_as_they_were_made(place: Place) -> None:
    """`logs --reports --json` has the reports, and not what is none, one a line."""
    torn = """printf '\\n{"job_id":"%s"\\n' "$DELEGATE_JOB_ID" >> "$DELEGATE_JOB_DIR/reports.jsonl\""""
    agent = f"{REPORT} progress\n{torn}\n{REPORT} completed --detail ok"
    name = job_id(place.submit(agent).stdout)
    plain = place.run("logs", name, "--reports").stdout
    assert len([line for line in plain.splitlines() if line]) == 3
    found = [fits("report", each) for each in lines(place.run("logs", name, "--reports", "--json").stdout)]
    assert [each["kind"] for each in found] == ["progress", "completed"]


def test_a_hooks_report() -> None:
    """What a hook appends is a report too; it says which native event it comes from."""
    line = {
        "id": "a",
        "job_id": "b",
        "kind": "turn_ended",
        "at": samples.CREATED,
        "hook": "Stop",
        "proof": "0f",
    }
    fits("report", line)


# -- everything else that --json prints


def test_logs_of_text_as_json(place: Place) -> None:
    """The screen and the checks' output come as objects with `text`, whatever bytes they are made of."""
    check = place.script("check", "printf 'gr\\303\\274n \\377\\n'")
    name = job_id(place.submit(f"echo on the screen\n{REPORT} completed", "--validate", check).stdout)
    pane = lines(place.run("logs", name, "--pane", "--json").stdout)
    assert "on the screen" in "".join(each["text"] for each in pane)
    assert lines(place.run("logs", name, "--validation", "--json").stdout) == [
        {"attempt": 1, "text": "grün �\n"}
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("attach", "@last"),
        ("prune", "--dry-run"),
        ("logs", "--list"),
        ("verify", "@last", "--validate", "check"),
        ("publish", "--job", "@last", "--event", "progress"),
        ("wait",),
        ("submit", "--agent", "command", "--command", "true", "--prompt", "x", "--dry-run"),
    ],
    ids=" ".join,
)
def test_one_document_and_nothing_else(place: Place, words: tuple[str, ...]) -> None:
    """With --json stdout is one JSON document, also where people are shown several lines."""
    place.submit(f"{REPORT} completed")
    (place.work / "check").write_text("echo looked; exit 0\n")
    assert printed(place, *words) is not None


@pytest.mark.parametrize(
    "words",
    [
        ("status", "nope"),
        ("wait", "nope"),
        ("logs", "nope"),
        ("send", "@last", "x"),
        ("publish", "--job", "x"),
    ],
    ids=" ".join,
)
def test_errors_leave_stdout_empty(place: Place, words: tuple[str, ...]) -> None:
    """An error is told on stderr with --json too: a program never has to tell one from a document."""
    place.submit(f"{REPORT} completed")
    done = place.run(*words, "--json")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert re.match(r"error: .+\n", done.stderr)
