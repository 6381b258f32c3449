"""`report`: one page, or Markdown, with all of a job; hostile in every part that an agent can write."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typing_extensions import override

from delegate_job import report_summary
from delegate_job.markup import without_escapes
from harness import Place, job_id, wait_until
from traces import await_recording

EVIL = "</pre></td><script>alert(1)</script><img src=x onerror=alert(2)>`|&\"'\x1b]0;x\x07\u202e"
VOID = {"meta", "br", "link"}
SVG = {"line", "rect", "circle"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "code", "span", "p", "dl",
    "dt", "dd", "div", "nav", "a", "main", "section", "figure", "figcaption", "svg", "desc", "g", "line",
    "rect", "circle", "text", "table", "caption", "thead", "tbody", "tr", "th", "td", "pre", "details",
    "summary", "script", "footer",
}  # fmt: skip


class Page(HTMLParser):
    """A page, read strictly: every element is closed where it should be."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(source)
        self.close()
        assert self.open == []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert tag in VOID | SVG, f"<{tag}/> is not closed in HTML"

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def text(self, *tags: str) -> str:
        """Return all text that stands directly in such elements; of all but style and script by default."""
        names = tags or tuple(name for name in self.texts if name not in {"script", "style"})
        return "".join("".join(self.texts.get(name, [])) for name in names)

    def policy(self) -> str:
        """Return the page's Content-Security-Policy."""
        (found,) = (attrs["content"] for tag, attrs in self.tags if "http-equiv" in attrs)
        return found or ""


def page_of(place: Place, job: str = "@last", *options: str) -> Page:
    """Write a job's page and read it; each must hold to what every page promises."""
    done = place.run("report", job, *options)
    assert done.returncode == 0, done
    page = Page(Path(done.stdout.removesuffix("\n")).read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} <= ALLOWED
    names = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in names if name.startswith("on")} | (
        {"src", "style", "srcset", "action"} & names
    )
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.tags)
    for kind in ("script", "style"):
        allowed = re.findall(r"sha256-[\w+/=]+", re.findall(rf"{kind}-src ([^;]*)", page.policy())[0])
        hashes = [_hash(text) for text in page.texts.get(kind, []) if not text.startswith("H4sI")]
        assert hashes == allowed
    assert page.policy().startswith("default-src 'none';")
    return page


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@pytest.fixture
def hostile(place: Place) -> Place:
    """Give a place with a job whose every text is hostile, and that was rejected once."""
    place.spawn("git", "init", "-q").wait()
    (place.root / "evil").write_text(EVIL)
    check = place.script("check.sh", f'cat {place.root}/evil; [ "$JOB_ATTEMPT" = 2 ]\n')
    agent = (
        'evil=$(cat "$EVIL"); echo "$evil" > "made <b> file"; echo "$evil"\n'
        '"$DJ" publish --event progress --detail "$evil"\n"$DJ" publish --event completed --detail "$evil"\n'
        'read -r line; "$DJ" publish --event completed --detail "$evil"; sleep 0.3'
    )
    env = {"EVIL": str(place.root / "evil")}
    done = place.submit(agent, "--prompt", EVIL, "--validate", check, "--attempts", "2", "--close", env=env)
    assert done.returncode == 0, done
    await_recording(place, job_id(done.stdout), "alert(1)")
    return place


def test_a_page_has_all_of_a_job_and_nothing_of_it_is_markup(hostile: Place) -> None:
    """Prompt, states, recording, changes, checks and events are there, as text, whatever they hold."""
    page = page_of(hostile)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3
    shown = EVIL.partition("\x1b")[0]
    for element in ("pre", "td", "dd"):
        assert shown in page.text(element), element
    assert "<U+202E>" in page.text("pre")
    assert "+" + shown in page.text("span")
    assert "made <b> file" in page.text("code")
    assert "Check 1: failed (exit 1)" in page.text("h3")
    assert "Check 2: passed (exit 0)" in page.text("h3")
    assert {"registered", "running", "checking", "done"} <= set(page.texts["text"])
    assert "accepted" in page.text("span")


def test_the_recording_is_in_the_page(hostile: Place) -> None:
    """As an asciicast, packed, with a marker for each event that changed the job."""
    page = page_of(hostile)
    (packed,) = (text for text in page.texts["script"] if text.startswith("H4sI"))
    header, *lines = map(json.loads, gzip.decompress(base64.b64decode(packed)).decode().splitlines())
    assert (header["version"], header["width"], header["height"]) == (2, 200, 50)
    assert "alert(1)" in "".join(line[2] for line in lines if line[1] == "o")
    assert {"spawned", "completed", "check_failed", "check_passed"} <= {
        line[2] for line in lines if line[1] == "m"
    }


def test_markdown_cannot_be_broken_out_of(hostile: Place) -> None:
    """Outside of fences and code spans nothing of an agent's is left."""
    done = hostile.run("report", "@last", "--markdown")
    assert done.returncode == 0, done
    bare = re.sub(r"^(`{3,})\w*\n.*?^\1\n", "", done.stdout, flags=re.DOTALL | re.MULTILINE)
    bare = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", bare)
    assert "alert" not in bare
    assert "<script" not in bare
    for heading in ("Job", "Timeline", "Checks", "Changes", "Events", "Prompt"):
        assert f"# {heading}" in bare


def test_a_job_under_way_has_a_report(place: Place) -> None:
    """It says that the job is not done, and how it stands."""
    running = place.start(
        *place.submit_args('"$DJ" publish --event permission_required --detail "may I?"\nsleep 60')
    )
    job = place.await_job()
    place.await_state(job, "waiting")
    page = page_of(place, job)
    assert "The job is not done" in page.text("p")
    assert "waiting" in page.text("span")
    assert "is not done" in place.run("report", job, "--markdown").stdout
    assert place.run("cancel", job).returncode == 0
    running.wait(30)


def test_what_is_missing_is_said(place: Place) -> None:
    """Of an old job, or one whose files were removed, the page has what is left."""
    done = place.submit('"$DJ" publish --event completed', "--close")
    directory = place.registry / "jobs" / job_id(done.stdout)
    wait_until((directory / "pane.cast").exists)
    for name in ("pane.cast", "pane.log", "prompt.md", "events.jsonl", "baseline.json"):
        (directory / name).unlink(missing_ok=True)
    page = page_of(place)
    said = page.text("p")
    assert "No recording of the terminal was kept." in said
    assert "The prompt is not kept any more." in said
    assert "no git work tree" in said
    assert "No check was run." in said
    assert "is the agent's word" in said
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert "script-src 'none'" in page.policy()
    markdown = place.run("report", "@last", "--markdown")
    assert markdown.returncode == 0
    assert "|\n\n## Prompt\n" in markdown.stdout, "one empty line behind the table of events"


def test_a_table_of_files_that_is_cut_says_so(place: Place) -> None:
    """Of very many changed files the page shows a thousand, and says that there are more."""
    place.spawn("git", "init", "-q").wait()
    agent = 'for n in $(seq 1000); do echo > "f$n"; done; "$DJ" publish --event completed'
    assert place.submit(agent, "--close").returncode == 0
    assert "in the table" not in page_of(place).text("p")
    (place.work / "one-more").write_text("x")
    page = page_of(place)
    assert "Only the first 1000 files are in the table." in page.text("p")
    assert page.text("td").count("+1") == 1000


@pytest.mark.parametrize(
    "command",
    [
        *("\x1b[1;31m", "\x1b(B", "\x1b7", "\x1bc", "\x1b=", "\x1b]0;title\x07", "\x1b]8;;x:y\x1b\\"),
        *('\x1bP$q"p\x1b\\', "\x1bXa string\x1b\\", "\x1b^a message\x1b\\", "\x1b_a program's\x1b\\"),
    ],
)
def test_what_a_terminal_takes_for_a_command_goes_whole(command: str) -> None:
    """Of an escape sequence nothing stays, neither its end nor the text that it carries."""
    assert without_escapes(f"before{command}after") == "beforeafter"


def test_where_it_is_written(place: Place) -> None:
    """`report-ID.html` here, FILE, stdout; 0600; a link that an agent has laid is replaced, not followed."""
    job = job_id(place.submit('"$DJ" publish --event completed', "--close").stdout)
    victim = place.root / "victim"
    victim.write_text("mine")
    default = place.work / f"report-{job}.html"
    default.symlink_to(victim)
    assert place.run("report", job).stdout == f"{default}\n"
    assert victim.read_text() == "mine"
    assert not default.is_symlink()
    assert default.stat().st_mode & 0o777 == 0o600
    named = place.run("report", job, "--output", "named.html", "--json")
    assert json.loads(named.stdout) == {"path": str(place.work / "named.html")}
    assert place.run("report", job, "--output", "-").stdout.startswith("<!DOCTYPE html>")
    assert place.run("report", job, "--markdown", "--output", "x.md").stdout == f"{place.work}/x.md\n"
    assert (place.work / "x.md").read_text().startswith("# Job ")


def test_mistakes_get_one_line_that_helps(place: Place) -> None:
    """No such job, two outputs at once, a directory that is not there: a line, a hint, a code."""
    job = job_id(place.submit('"$DJ" publish --event completed', "--close").stdout)
    for words, code in (
        (["nosuchjob"], 2), ([], 2), ([job, "--markdown", "--json"], 2),
        ([job, "--output", "no/such/dir.html"], 70), ([job, "--output", str(place.work)], 70),
    ):  # fmt: skip
        done = place.run("report", *words)
        assert done.returncode == code, done
        assert re.fullmatch(r"error: [^\n]+\nhint: [^\n]+\n", done.stderr), done
        assert done.stdout == ""
    assert not list(place.work.glob("*.partial"))


def test_ci_adds_to_the_step_summary(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In GitHub Actions the Markdown is added to what stands there; the exit code is the job's own."""
    summary = place.root / "summary.md"
    summary.write_text("# Before\n")
    env = {"GITHUB_STEP_SUMMARY": str(summary)}
    done = place.submit('"$DJ" publish --event error --detail no', "--ci", env=env)
    assert done.returncode == 1, done
    said = summary.read_text()
    assert said.startswith("# Before\n\n# Job `")
    assert ": failed" in said
    assert place.submit('"$DJ" publish --event completed', env=env).returncode == 0
    assert summary.read_text() == said, "only --ci writes there"


@pytest.mark.parametrize("path", ["", "/no/such/dir/summary", "."])
def test_a_summary_that_cannot_be_written_changes_nothing(place: Place, path: str) -> None:
    """A line on stderr at the most; the job's exit code stands."""
    done = place.submit('"$DJ" publish --event completed', "--ci", env={"GITHUB_STEP_SUMMARY": path})
    assert done.returncode == 0, done
    assert ("step summary" in done.stderr) == bool(path)


def test_a_summary_keeps_to_its_limit(place: Place) -> None:
    """What would be too long is left out and said; a full summary is left alone."""
    summary = place.root / "summary.md"
    for size in (report_summary.LIMIT - 700, report_summary.LIMIT):
        summary.write_bytes(b"x" * size)
        env = {"GITHUB_STEP_SUMMARY": str(summary)}
        done = place.submit('"$DJ" publish --event completed', "--ci", env=env)
        assert done.returncode == 0, done
        assert summary.stat().st_size <= report_summary.LIMIT
        assert ("is full" in done.stderr) == (size == report_summary.LIMIT)


def test_the_page_of_a_flood_is_bounded(place: Place) -> None:
    """Thousands of events with long details are a page of a few megabytes, that says what it leaves out."""
    flood = (
        "#!python\nimport json, os, subprocess\n"
        "path = os.environ['DELEGATE_JOB_DIR'] + '/reports.jsonl'\n"
        "line = dict(job_id=os.environ['DELEGATE_JOB_ID'], kind='progress', at='soon', detail='<' * 9000)\n"
        "with open(path, 'a') as file:\n"
        "    for number in range(200): file.write('\\n' + json.dumps(line | {'id': str(number)}) + '\\n')\n"
        "subprocess.run([os.environ['DJ'], 'publish', '--event', 'completed'], check=True)\n"
    )
    assert place.submit(flood, "--close").returncode == 0
    page = page_of(place)
    assert page.text("td").count("progress") == 200
    assert sum(len(text) for text in page.texts["td"]) < 200 * 2500
    assert (place.work / f"report-{place.jobs()[-1]}.html").stat().st_size < 4 << 20
