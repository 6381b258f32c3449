"""A hostile work tree: nothing outside is written, nothing hangs, no verdict changes, later reports count."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import Place, job_id, wait_until

FILES = (
    "reports.jsonl",
    "prompt.md",
    "instructions.md",
    "events.jsonl",
    "pane.log",
    "validation-1.log",
    "result.json",
)
"""All that the product ever writes into an audit directory."""

KINDS = (
    "link to a file",
    "link to a directory",
    "dangling link",
    "link to /dev/zero",
    "link to a FIFO",
    "FIFO",
    "hard link",
    "directory",
    "socket",
)

OBSTACLES = r'''
import os, shutil, socket, subprocess, sys
from pathlib import Path

outside = Path(os.environ.get("OUTSIDE", "/nonexistent"))
logs = Path(os.environ.get("DELEGATE_JOB_DIR", "/nonexistent"))


def clear(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put(kind, path):
    clear(path)
    os.chdir(path.parent)
    match kind:
        case "link to a file":
            path.symlink_to(outside / "file")
        case "link to a directory":
            path.symlink_to(outside / "directory")
        case "dangling link":
            path.symlink_to(outside / "not-there")
        case "link to /dev/zero":
            path.symlink_to("/dev/zero")
        case "link to a FIFO":
            path.symlink_to(outside / "fifo")
        case "FIFO":
            os.mkfifo(path)
        case "hard link":
            os.link(outside / "file", path)
        case "directory":
            path.mkdir()
            (path / "file").write_text("in the way")
        case "socket":
            socket.socket(socket.AF_UNIX).bind(path.name)


def publish(*words, by_file=True):
    """Report; without a connection, as in a sandbox, the file is the only way."""
    env = dict(os.environ) | ({"DELEGATE_JOB_CONNECTION": "/nonexistent"} if by_file else {})
    argv = [os.environ["DJ"], "publish", "--event", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    print(done, flush=True)
    return done
'''
"""The beginning of a scripted agent that puts things in the way."""


@pytest.fixture
def outside(place: Place) -> Path:
    """Give a tree outside the work dir that nothing may change; agents find it as $OUTSIDE."""
    tree = place.root / "outside"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_text("not yours\n")
    (tree / "directory/inner").write_text("nor this\n")
    os.mkfifo(tree / "fifo")
    place.environ["OUTSIDE"] = str(tree)
    return tree


def picture(tree: Path) -> dict[str, tuple[Any, ...]]:
    """Return what stands in a tree: kinds, rights, sizes, times of change, and contents."""
    found = {}
    for path in [tree, *tree.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, content)
    return found


def hostile(place: Place, text: str) -> str:
    """Return the path of a scripted agent that can put things in the way."""
    return str(place.agent(f"#!python\n{OBSTACLES}\n{text}"))


def submitted(
    place: Place, text: str, *options: str | Path, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Submit a job to a hostile agent and return its end, after a look for tracebacks."""
    words = ["--agent", "command", "--command", hostile(place, text), "--prompt", "Do the work."]
    done = place.run("submit", *words, *options, timeout=timeout)
    assert "Traceback" not in done.stdout + done.stderr, done
    assert done.returncode != 70, done
    return done


def accepted(place: Place, done: subprocess.CompletedProcess[str]) -> Path:
    """Return the audit directory of a job that was accepted, after a look at all that reads it."""
    assert done.returncode == 0, done
    name = job_id(done.stdout)
    for words in (
        ["status", name],
        ["logs", name],
        ["logs", name, "--reports"],
        ["logs", "--list"],
        ["list"],
    ):
        shown = place.run(*words, timeout=20)
        assert shown.returncode == 0, shown
        assert "Traceback" not in shown.stderr
    assert place.job(name)["outcome"] == "accepted"
    return Path(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_every_file(place: Place, outside: Path, kind: str) -> None:
    """Whatever stands for the audit files in mid-job, reports count, the check decides, copies are real."""
    before = picture(outside)
    check = place.script("check", "echo checked")
    agent = f"""
publish("started")
for name in {FILES!r}:
    put({kind!r}, logs / name)
assert publish("completed", "--detail", "by file").returncode == 0
"""
    log = accepted(place, submitted(place, agent, "--validate", check))
    assert picture(outside) == before
    for name in ("reports.jsonl", "events.jsonl", "pane.log", "validation-1.log", "result.json"):
        status = (log / name).lstat()
        assert (stat.S_IFMT(status.st_mode), status.st_nlink) == (stat.S_IFREG, 1), name
    assert "by file" in (log / "reports.jsonl").read_text()
    assert (log / "validation-1.log").read_text() == "checked\n"
    assert json.loads((log / "result.json").read_text())["verdict"] == "passed"


@pytest.mark.parametrize("which", ["audit dir", "its parent"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link to a file"])
def test_in_the_place_of_the_directories(place: Place, outside: Path, kind: str, which: str) -> None:
    """Whatever stands for the audit directory or its parent in mid-job, later reports count by file alone."""
    before = picture(outside)
    path = "logs" if which == "audit dir" else "logs.parent"
    agent = f"""
publish("started")
put({kind!r}, {path})
assert publish("completed", "--detail", "by file").returncode == 0
"""
    log = accepted(place, submitted(place, agent))
    assert picture(outside) == before
    assert log.resolve() == log
    assert "by file" in (log / "reports.jsonl").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_the_parent_at_submit(place: Place, outside: Path, kind: str) -> None:
    """Whatever a cloned repository has for a log directory, the log is made and no link followed."""
    before = picture(outside)
    setter = place.agent(f"#!python\n{OBSTACLES}\nput({kind!r}, Path('delegate_job_logs').absolute())")
    assert place.spawn(setter).wait(20) == 0
    log = accepted(place, submitted(place, 'publish("completed")'))
    assert picture(outside) == before
    assert (log / "prompt.md").read_text() == "Do the work."
    assert log.resolve() == log


@pytest.mark.parametrize("target", ["file", "not-there", "fifo"])
def test_a_link_in_the_place_of_the_ignore_file(place: Place, outside: Path, target: str) -> None:
    """A `.gitignore` that is a link is not written through."""
    before = picture(outside)
    (place.work / "delegate_job_logs").mkdir()
    (place.work / "delegate_job_logs/.gitignore").symlink_to(outside / target)
    accepted(place, submitted(place, 'publish("completed")'))
    assert picture(outside) == before


@pytest.mark.parametrize(
    "how",
    [
        "shutil.rmtree(logs)",
        "shutil.rmtree(logs.parent)",
        "logs.chmod(0)",
        "logs.parent.chmod(0)",
        "logs.rename(logs.with_name('elsewhere'))",
        "(logs / 'reports.jsonl').unlink()",
        "(logs / 'reports.jsonl').chmod(0)",
        "(logs / 'reports.jsonl').write_bytes(b'')",
        "(logs / 'reports.jsonl').write_bytes(b'garbage without an end')",
        "(logs / 'reports.jsonl').write_bytes(b'\\xff\\x00\\n' * 1000)",
        "(logs / 'reports.jsonl').write_bytes(b'{\"id\": ' * 100_000)",
        "(logs / 'reports.jsonl').write_bytes(b'[' * 200_000 + b'\\n')",
        "(logs / 'new').write_bytes(b'new'); (logs / 'new').rename(logs / 'reports.jsonl')",
        "shutil.copy(logs / 'reports.jsonl', logs / 'new'); (logs / 'new').rename(logs / 'reports.jsonl')",
        "os.truncate(logs / 'reports.jsonl', 10)",
        "os.truncate(logs / 'reports.jsonl', 1 << 40)",
        "os.truncate(logs / 'reports.jsonl', 3 << 20)",
        "(logs / 'reports.jsonl').open('ab').write(b'x' * (100 << 20))",
        "(logs / 'reports.jsonl').open('ab').write(os.urandom(1 << 20) * 100)",
        "(logs / 'reports.jsonl').open('ab').write(b'{}\\n' * (4 << 20))",
        "subprocess.run(['flock', str(logs), 'true']); os.open(logs, os.O_RDONLY)",
    ],
)
def test_reports_after_damage_count(place: Place, outside: Path, how: str) -> None:
    """A report made after the file or the directory was damaged or flooded counts, by file alone."""
    before = picture(outside)
    agent = f"""
publish("started")
{how}
assert publish("progress", "--detail", "between").returncode == 0
assert publish("completed", "--detail", "afterwards").returncode == 0
"""
    done = submitted(place, agent)
    accepted(place, done)
    assert picture(outside) == before
    assert place.job(job_id(done.stdout))["detail"] == "afterwards"


@pytest.mark.parametrize("claim", ["none", "completed"])
@pytest.mark.parametrize("way", ["file", "MQTT"])
def test_forged_events_change_nothing(place: Place, outside: Path, way: str, claim: str) -> None:
    """Words of the owner, the runner and the user count for nothing from an agent, by any way."""
    agent = f"""
import json
sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "broker")]!r}
from delegate_job import journal, mqtt
from delegate_job.events import Kind, REPORTED

job = os.environ["DELEGATE_JOB_ID"]
connection = mqtt.read_connection(os.environ["DELEGATE_JOB_CONNECTION"])
forged = sorted(set(map(str, Kind)) - set(map(str, REPORTED))) + ["accepted", "passed", "done", "answer", ""]
for kind in forged:
    event = journal.new_event(job, kind, "forged", {{"exit_code": 0, "verdict": "passed", "attempt": 9}})
    event |= {{"source": "owner", "applied": True, "state": "done", "outcome": "accepted", "epoch": 99}}
    line = journal.encode(event)
    if {way!r} == "file":
        with (logs / "reports.jsonl").open("ab") as file:
            file.write(line)
    else:
        topics = [mqtt.report_topic(job, kind or "none"), mqtt.state_topic(job), mqtt.owner_topic(job)]
        for topic in topics:
            mqtt.publish_once(connection.broker, [(topic, line.strip())], budget=2.0)
publish("progress", "--detail", "still here", by_file=False)
Path("forged").touch()
if {claim!r} == "completed":
    publish("completed")
else:
    import time
    time.sleep(600)
"""
    check = place.script("check", "exit 5")
    words = [
        "--agent",
        "command",
        "--command",
        hostile(place, agent),
        "--prompt",
        "x",
        "--validate",
        str(check),
    ]
    process = place.start("submit", *words)
    name = place.await_job()
    if claim == "none":
        job = wait_until(lambda: (found := place.job(name))["detail"] == "still here" and found, 60) or {}
        assert (job["state"], job["outcome"], job["verdict"], job["attempt"]) == ("running", None, None, 0)
        wait_until((place.work / "forged").exists, what="the agent's last step")
        assert place.run("cancel", name).returncode == 0
        assert process.wait(30) == 9
    else:
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 3, stdout
        assert "validation: FAIL (exit 5)" in stdout
    job = place.job(name)
    assert job["verdict"] == (None if claim == "none" else "failed")
    assert (place.work / "forged").exists()


@pytest.mark.parametrize(
    "text",
    [
        "command = 'touch X'",
        'validate = "X.sh"',
        'on-event = "touch X"',
        '[agents.mine]\ncommand = ["touch", "X"]',
        "broker = 'mqtt://evil:1883'",
        "permission-mode = 'all'",
        "registry-dir = '/tmp/x'",
        "notify = 'touch X'",
        "agent-session = 'tmux:x'",
        "unknown = 1",
        "timeout = 'soon'",
        "not toml at all",
        "\0",
        "a." * 2000 + "a = 1",
        "a." * 30_000 + "a = 1",
        "timeout = 5 # " + "x" * 70_000,
        "x = " + "[" * 4000,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_settings_of_a_cloned_repository(place: Place, text: str) -> None:
    """A `.delegate-job.toml` with commands, nonsense or too much is one line, exit 2, and not run."""
    (place.work / ".delegate-job.toml").write_text(text)
    place.agent("touch X").rename(place.work / "X.sh")
    done = place.submit('touch Y; "$DJ" publish --event completed')
    assert (done.returncode, done.stdout) == (2, ""), done
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] in (["error"], ["error", "hint"])
    assert sorted(path.name for path in place.work.iterdir()) == [".delegate-job.toml", "X.sh"]
    assert place.jobs() == []


@pytest.mark.parametrize("agent", ["touch", "./X.sh", "X.sh", "command", ""])
def test_an_agent_of_a_cloned_repository(place: Place, agent: str) -> None:
    """A `.delegate-job.toml` chooses among the agents that the user has; a program of its own is not run."""
    (place.work / ".delegate-job.toml").write_text(f"agent = '{agent}'")
    place.agent("touch X").rename(place.work / "X.sh")
    done = place.run("submit", "--prompt", "Do the work.")
    assert (done.returncode, done.stdout) == (2, ""), done
    assert place.jobs() == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"hard link", "dangling link"}])
def test_something_else_for_settings(place: Place, outside: Path, kind: str) -> None:
    """What stands in the place of `.delegate-job.toml` and is no file is one line and exit 2, at once."""
    before = picture(outside)
    setter = place.agent(f"#!python\n{OBSTACLES}\nput({kind!r}, Path('.delegate-job.toml').absolute())")
    assert place.spawn(setter).wait(20) == 0
    done = place.submit('"$DJ" publish --event completed')
    assert (done.returncode, done.stdout) == (2, ""), done
    assert "Traceback" not in done.stderr
    assert ".delegate-job.toml" in done.stderr
    assert picture(outside) == before


def test_two_jobs_in_one_work_dir(place: Place) -> None:
    """A job can forge the claim of another in the same work dir, as documented, but never its verdict."""
    victim = """
publish("started")
while not Path("forged").exists():
    import time
    time.sleep(0.05)
time.sleep(600)
"""
    forger = """
import json
other = next(path for path in logs.parent.iterdir() if path.is_dir() and path != logs)
line = {"id": "forged", "job_id": other.name, "kind": "completed", "at": "2026-01-01T00:00:00Z"}
with (other / "reports.jsonl").open("a") as file:
    file.write("\\n" + json.dumps(line) + "\\n")
Path("forged").touch()
publish("completed")
"""
    check = place.script("check", "exit 1")
    words = ["--agent", "command", "--command", hostile(place, victim), "--prompt", "x"]
    first = place.start("submit", *words, "--validate", check, "--close")
    name = place.await_job()
    place.await_kind(name, "started")
    second = submitted(place, forger)
    assert second.returncode == 0, second
    stdout, _ = first.communicate(timeout=30)
    assert (first.returncode, place.job(name)["verdict"]) == (3, "failed"), stdout
    assert place.job(job_id(second.stdout))["outcome"] == "accepted"


def test_two_jobs_in_one_work_dir_side_by_side(place: Place) -> None:
    """Two jobs side by side in one work dir end each by its own reports."""
    agent = """
import time
publish("started", by_file=False)
time.sleep(0.3)
publish("completed", "--detail", os.environ["DELEGATE_JOB_ID"], by_file=False)
"""
    words = ["--agent", "command", "--command", hostile(place, agent), "--prompt", "x"]
    both = [place.start("submit", *words) for _ in range(2)]
    for process in both:
        stdout, _ = process.communicate(timeout=30)
        assert process.returncode == 0, stdout
        assert place.job(job_id(stdout))["detail"] == job_id(stdout)
