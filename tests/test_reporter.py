import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_servers import Mosquitto
from delegate_job import events, journal, mqtt, reporter
from delegate_job.audit import AuditDir
from delegate_job.errors import DelegateJobError, UnknownJobError, UsageError
from delegate_job.owner_link import OwnerLink
from delegate_job.paths import JobPaths, RegistryPaths
from delegate_job_broker import AccessList, BrokerThread, Grant, listen_on_loopback, listen_on_unix
from harness import COMMAND, Place, end_group, free_port, wait_until

JOB = "20260801-abcdef"
OTHER = "20260801-abxxxx"
PATIENCE = 8.0
IN_PEACE = ("--timeout", "20")
"""Options of a report that has an answer to come: what answers may be slow, and so may its own start."""


@dataclass
class Reported:
    """A job as its owner lays it out, without the owner: what `publish` finds."""

    place: Place
    job_id: str = JOB

    def make(self, broker: mqtt.Address | None = None, unix_socket: str | None = None) -> "Reported":
        """Write the job directory, its connection.json and the audit directory."""
        root = self.job.root
        root.mkdir(parents=True, mode=0o700)
        self.job.lock.touch()
        assert AuditDir.at(self.log_dir).create()
        self.connect(broker, unix_socket)
        return self

    def connect(self, broker: mqtt.Address | None, unix_socket: str | None = None) -> None:
        """Write connection.json, as each new owner does."""
        connection = mqtt.Connection(
            self.job_id, str(self.log_dir), str(self.place.registry), 1, broker, None, unix_socket
        )
        mqtt.write_connection(self.job.connection, connection)

    @property
    def job(self) -> JobPaths:
        """The paths of the job directory."""
        return RegistryPaths(self.place.registry).job(self.job_id)

    @property
    def log_dir(self) -> Path:
        """The audit directory."""
        return self.place.log_dir(self.job_id)

    @property
    def env(self) -> dict[str, str | None]:
        """What the job's own processes have in their environment."""
        return {
            "DELEGATE_JOB_ID": self.job_id,
            "DELEGATE_JOB_DIR": str(self.log_dir),
            "DELEGATE_JOB_CONNECTION": str(self.job.connection),
        }

    def publish(self, *args: str, **how: object) -> "subprocess.CompletedProcess[str]":
        """Run `publish` as a process of this job."""
        return self.place.run("publish", *args, env=self.env, **how)  # type: ignore[arg-type] # passed on as it came

    def recorded(self) -> list[events.Event]:
        """Return the reports in the file, in order."""
        path = self.log_dir / "reports.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        read = [
            journal.parse(line, job_id=self.job_id, source=events.Source.AGENT, received_at="")
            for line in lines
            if line
        ]
        return [event for event in read if event is not None]


@pytest.fixture
def job(place: Place) -> Reported:
    """Give a job without a broker."""
    return Reported(place).make()


def _address(mosquitto: Mosquitto) -> mqtt.Address:
    return mqtt.parse_url(mosquitto.url)


# What is reported


def test_the_kinds_are_those_of_the_core() -> None:
    """The list that is written out for speed is the one that the events module gives."""
    by_hand = tuple(str(kind) for kind in events.REPORTED_BY_HAND)
    assert by_hand == reporter.KINDS
    assert all(kind in reporter.HELP for kind in reporter.KINDS)


def test_a_report_is_recorded_and_sent(place: Place, mosquitto: Mosquitto) -> None:
    """The line in the file and the retained message are the same event."""
    job = Reported(place).make(_address(mosquitto))
    done = job.publish("--event", "completed", "--detail", "all tests pass", *IN_PEACE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "recorded and sent\n", "")
    (event,) = job.recorded()
    assert (event.kind, event.detail) == ("completed", "all tests pass")
    told: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
    link = OwnerLink(_address(mosquitto), on_report=lambda *r: told.put(r), on_change=lambda *_: None)
    link.watch(JOB)
    job_id, kind, payload = told.get(timeout=PATIENCE)
    assert link.stop(PATIENCE)
    assert (job_id, kind, json.loads(payload)["id"]) == (JOB, "completed", event.id)


def test_the_embedded_broker_takes_only_the_jobs_own_reports(place: Place) -> None:
    """A job's token publishes below its own `report/`, over the Unix socket when there is one."""
    access = AccessList()
    access.grant(JOB, Grant("token", publish=(mqtt.report_filter(JOB),)))
    path = str(place.root / "mqtt.sock")
    with BrokerThread([listen_on_loopback(), listen_on_unix(path)], access) as broker:
        assert broker.port is not None
        address = mqtt.Address("127.0.0.1", broker.port, user=JOB, password="token")
        job = Reported(place).make(address)
        assert job.publish("--event", "started", *IN_PEACE).stdout == "recorded and sent\n"
        job.connect(address._replace(port=free_port()), path)
        assert job.publish("--event", "started", *IN_PEACE).stdout == "recorded and sent\n"
        job.connect(address._replace(password="of an owner before"))
        assert job.publish("--event", "completed", *IN_PEACE).stdout == (
            "recorded, not sent (the broker refused: bad user or password)\n"
        )


def test_without_a_broker_the_file_is_enough(job: Reported) -> None:
    """A job that is done, or whose broker is gone, takes reports by file; the command says what happened."""
    assert job.publish("--event", "started").stdout == "recorded, not sent (the job has no broker)\n"
    job.connect(mqtt.Address("127.0.0.1", free_port()))
    refused = job.publish("--event", "progress", *IN_PEACE)
    assert refused.stdout == "recorded, not sent (connection refused)\n"
    job.job.connection.unlink()
    assert job.publish("--event", "completed").stdout == (
        "recorded, not sent (connection.json: no such file or directory)\n"
    )
    assert [event.kind for event in job.recorded()] == ["started", "progress", "completed"]


def test_without_a_writable_directory_the_broker_is_enough(place: Place, mosquitto: Mosquitto) -> None:
    """What cannot be recorded is sent, and only both together are an error (exit 2)."""
    job = Reported(place).make(_address(mosquitto))
    unwritable = job.env | {"DELEGATE_JOB_DIR": f"/proc/delegate_job_logs/{job.job_id}"}
    sent = place.run("publish", "--event", "completed", *IN_PEACE, env=unwritable)
    assert (sent.returncode, sent.stdout) == (0, "sent, not recorded (no such file or directory)\n")
    job.connect(None)
    lost = place.run("publish", "--event", "completed", env=unwritable)
    assert (lost.returncode, lost.stdout) == (2, "")
    assert lost.stderr.startswith(
        "error: the report was neither recorded (no such file or directory) nor sent ("
    )
    assert "\nhint: " in lost.stderr
    as_json = place.run("publish", "--event", "completed", "--json", env=unwritable)
    assert as_json.returncode == 2
    assert json.loads(as_json.stdout)["recorded"] is False


def test_a_full_disk_is_said_and_the_broker_told(place: Place, mosquitto: Mosquitto) -> None:
    """When the line does not fit, the report goes by MQTT, and the next one is recorded whole."""
    job = Reported(place).make(_address(mosquitto))
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", str(COMMAND), "publish", "--event", "completed"]
    # Python 3.11 takes a module's cache that the limit cut short for a whole one, now and later.
    env = job.env | {"PYTHONDONTWRITEBYTECODE": "1"}
    full = place.spawn(*limited, *IN_PEACE, "--detail", "x" * 5000, env=env)
    assert full.communicate(timeout=30) == ("sent, not recorded (file too large)\n", "")
    assert job.publish("--event", "completed", *IN_PEACE).stdout == "recorded and sent\n"
    assert [event.kind for event in job.recorded()] == ["completed"]


def test_a_server_that_does_not_answer_is_bounded(job: Reported) -> None:
    """The report is on the disk at once, and the command ends by itself within its bound."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        job.connect(mqtt.Address("127.0.0.1", silent.getsockname()[1]))
        process = job.place.start("publish", "--event", "started", "--timeout", "600", env=job.env)
        wait_until(job.recorded, what="the line in the file")
        assert process.poll() is None
        end_group(process)
        for bound, option in ((1.0, ("--timeout", "1")), (reporter.TIMEOUT, ())):
            start = time.monotonic()
            done = job.publish("--event", "completed", *option)
            assert (done.returncode, done.stdout) == (0, "recorded, not sent (timed out)\n")
            assert time.monotonic() - start < bound + PATIENCE


def test_a_sandbox_without_network_is_enough(job: Reported) -> None:
    """Where no connection can be made at all, the report is recorded, and the command says why no more."""
    isolated = ["unshare", "--user", "--map-current-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], check=False).returncode != 0:
        pytest.skip("this machine gives no network namespaces")
    job.connect(mqtt.Address("127.0.0.1", free_port()))
    publish = (COMMAND, "publish", "--event", "completed", *IN_PEACE)
    process = job.place.spawn(*isolated, *publish, env=job.env)
    assert process.communicate(timeout=30) == ("recorded, not sent (network is unreachable)\n", "")
    assert [event.kind for event in job.recorded()] == ["completed"]


def test_json_is_one_object(job: Reported) -> None:
    """`--json` prints what was reported and what came of it, and nothing else."""
    done = job.publish("--event", "progress", "--json")
    (event,) = job.recorded()
    assert json.loads(done.stdout) == {
        "job_id": JOB,
        "event": "progress",
        "id": event.id,
        "recorded": True,
        "sent": False,
        "reason": "the job has no broker",
    }
    assert done.stderr == ""


@pytest.mark.parametrize(
    "detail",
    [
        "$(touch X) `touch X` ; # %H #(touch X)",
        "-",
        "--json",
        "a\nb\r\n",
        "é\N{GRINNING FACE}\u2028",
        "",
        "\x1b[2J",
    ],
)
def test_a_detail_arrives_as_it_was_given(job: Reported, detail: str) -> None:
    """No detail is executed, taken for an option or changed."""
    done = job.publish(f"--detail={detail}", "--event=progress") if detail != "-" else _by_stdin(job, "-")
    assert done.returncode == 0
    assert [event.detail for event in job.recorded()] == [detail]
    assert list(job.place.work.iterdir()) == [job.log_dir.parent]


def _by_stdin(job: Reported, text: str) -> "subprocess.CompletedProcess[str]":
    return job.publish("--event", "progress", "--detail", "-", input=text)


def test_odd_bytes_do_not_keep_a_report_back(job: Reported) -> None:
    """Arguments that are not UTF-8, and NUL and broken bytes on stdin, are kept as far as text goes."""
    argv = [os.fsencode(COMMAND), b"publish", b"--event", b"completed", b"--detail", b"caf\xe9"]
    env = {os.fsencode(k): os.fsencode(v) for k, v in job.place.env(job.env).items()}
    assert subprocess.run(argv, env=env, capture_output=True, check=False, timeout=30).returncode == 0
    argv[-1] = b"-"
    given = subprocess.run(
        argv, env=env, input=b"a\0\xff" * 40_000, capture_output=True, check=False, timeout=30
    )
    assert given.returncode == 0
    first, second = job.recorded()
    assert first.detail == "caf\N{REPLACEMENT CHARACTER}"
    assert second.detail is not None
    assert second.detail.startswith("a\0\N{REPLACEMENT CHARACTER}a")
    assert second.data == {"detail_cut": True}


def test_nobody_has_to_read_what_publish_says(job: Reported) -> None:
    """A closed standard output, or one that nobody reads, changes neither the report nor the exit code."""
    for redirection in (">&-", ">/dev/full", "| true", "<&- >&- 2>&-"):
        command = f'set -o pipefail; "$0" publish --event progress {redirection}'
        process = job.place.spawn("bash", "-c", command, COMMAND, env=job.env)
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, "")
    assert len(job.recorded()) == 4
    assert (job.log_dir / "reports.jsonl").read_bytes().count(b"recorded") == 0


# Which job


def test_a_job_is_named_by_its_id_a_beginning_or_last(place: Place) -> None:
    """From any terminal: `--job ID`, a unique beginning, `@last`; the registry's database is never opened."""
    first, second = Reported(place).make(), Reported(place, OTHER).make()
    os.utime(first.job.lock, (1, 1))
    for name in (JOB, "20260801-abc", OTHER[:-1], "@last"):
        done = place.run("publish", "--event", "progress", "--job", name, "--detail", name)
        assert done.returncode == 0, done
    assert [event.detail for event in first.recorded()] == [JOB, "20260801-abc"]
    assert [event.detail for event in second.recorded()] == [OTHER[:-1], "@last"]
    assert not RegistryPaths(place.registry).database.exists()


@pytest.mark.parametrize("name", ["20260801-ab", "nothing", "", ".", "..", "../jobs/" + JOB, "*", JOB + "/"])
def test_a_name_of_no_job_or_many_is_one_line(place: Place, name: str) -> None:
    """An unknown or ambiguous id is exit 2 with a hint, and never a path."""
    jobs = (Reported(place).make(), Reported(place, OTHER).make())
    done = place.run("publish", "--event", "progress", "--job", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\nhint: .*\n", done.stderr)
    assert [job.recorded() for job in jobs] == [[], []]


def test_a_registry_may_be_named(place: Place) -> None:
    """`--registry-dir` comes before the environment, which comes before the user's own registry."""
    job = Reported(place).make()
    elsewhere = {"DELEGATE_JOB_REGISTRY_DIR": str(place.root / "elsewhere")}
    command = ("publish", "--event", "progress", "--job", "@last")
    assert place.run(*command, env=elsewhere).returncode == 2
    assert place.run(*command, "--registry-dir", "../registry", env=elsewhere).returncode == 0
    own = {"DELEGATE_JOB_REGISTRY_DIR": None}
    assert place.run(*command, env=own).returncode == 2
    place.registry.rename(place.home / ".local/state/delegate-job")
    assert place.run(*command, env=own).returncode == 0
    assert len(job.recorded()) == 2


def test_a_job_cannot_report_for_another(place: Place) -> None:
    """A process of one job that names another gets a clear error, and its own name is welcome."""
    own, other = Reported(place).make(), Reported(place, OTHER).make()
    os.utime(own.job.lock, (1, 1))
    for name in (OTHER, "@last", "nothing"):
        done = own.publish("--event", "completed", "--job", name)
        assert done.returncode == 2
        assert f"this process belongs to job {JOB} and cannot report for " in done.stderr
    assert other.recorded() == []
    for name in (JOB, JOB[:4]):
        assert own.publish("--event", "completed", "--job", name).returncode == 0
    assert len(own.recorded()) == 2


def test_a_connection_of_another_job_is_not_used(place: Place, mosquitto: Mosquitto) -> None:
    """A connection.json that names another job sends nothing; the report is recorded."""
    job, other = Reported(place).make(), Reported(place, OTHER).make(_address(mosquitto))
    env = job.env | {"DELEGATE_JOB_CONNECTION": str(other.job.connection)}
    done = place.run("publish", "--event", "started", env=env)
    assert done.stdout == "recorded, not sent (connection.json is another job's)\n"


def test_no_job_at_all_says_how_to_name_one(place: Place) -> None:
    """Outside of a job `publish` needs `--job`."""
    done = place.run("publish", "--event", "completed")
    assert done.returncode == 2
    assert done.stderr == (
        "error: no job is named\nhint: say which one with --job ID; `delegate-job list` shows them\n"
    )


# The command line


@pytest.mark.parametrize(
    ("args", "said", "hint"),
    [
        ([], "--event is missing", "started"),
        (["--event"], "--event needs a value", "--help"),
        (["--event", "complete"], "there is no event 'complete'", "did you mean completed?"),
        (["--event", "turn_ended"], "there is no event 'turn_ended'", "--help"),
        (["--evnet", "completed"], "there is no option '--evnet'", "did you mean --event?"),
        (["completed"], "there is no argument 'completed'", "--help"),
        (["--event", "error", "--json=1"], "--json takes no value", "--help"),
        (["--event", "error", "--timeout", "soon"], "not 'soon'", "--help"),
        (["--event", "error", "--timeout", "nan"], "not 'nan'", "--help"),
        (["--event", "error", "--timeout", "-1"], "not '-1'", "--help"),
        (["--event", "a\nb\x1b[2J"], "there is no event", "--help"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_a_hint(
    job: Reported, args: list[str], said: str, hint: str
) -> None:
    """Exit 2, what is wrong, and the nearest that there is; nothing is reported."""
    done = job.publish(*args)
    assert (done.returncode, done.stdout) == (2, "")
    error, hinted, end = done.stderr.split("\n")
    assert error.startswith("error: ")
    assert said in error
    assert hinted.startswith("hint: ")
    assert hint in hinted
    assert end == ""
    assert "\x1b" not in done.stderr
    assert job.recorded() == []


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_has_an_example_that_runs(job: Reported, argument: str) -> None:
    """The help names every option, and its example is a command that works."""
    shown = job.publish(argument)
    assert shown.returncode == 0
    for option in ("--event", "--detail", "--job", "--registry-dir", "--timeout", "--json"):
        assert option in shown.stdout
    example = shown.stdout.split("example: ")[1].strip().replace("delegate-job", str(COMMAND))
    process = job.place.spawn("bash", "-c", example, env=job.env)
    assert process.communicate(timeout=30)[0].startswith("recorded")
    assert [event.detail for event in job.recorded()] == ["3 of 7 modules done"]


def test_publish_imports_nothing_it_does_not_need(job: Reported) -> None:
    """No typer, rich, amqtt, sqlite3 or dataclasses on the way of a report: each costs every report time."""
    code = (
        "import os, sys\nfrom delegate_job.__main__ import main\n"
        "sys.argv = ['delegate-job', 'publish', '--event', 'progress', '--timeout', '20']\n"
        "os._exit = sys.exit\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(*sorted({'typer', 'rich', 'click', 'amqtt', 'sqlite3', 'dataclasses', 'argparse', 'asyncio',"
        " 'platformdirs', 'delegate_job.cli', 'delegate_job.registry'} & set(sys.modules)))"
    )
    job.connect(mqtt.Address("127.0.0.1", free_port()))
    process = job.place.spawn(sys.executable, "-c", code, env=job.env)
    assert process.communicate(timeout=30) == ("recorded, not sent (connection refused)\n\n", "")


# Many, and hostile ground


def test_fifty_reports_at_once_are_fifty_lines(place: Place, mosquitto: Mosquitto) -> None:
    """Concurrent reports of any length do not mix: each is one readable line, and each was sent."""
    job = Reported(place).make(_address(mosquitto))

    def publish(number: int) -> str:
        text = f"{number} " + "x" * (number * 1200)
        return job.publish("--event", "progress", "--detail", text, "--timeout", "20", timeout=60).stdout

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(publish, range(50))) == {"recorded and sent\n"}
    assert sorted(int((event.detail or "").split()[0]) for event in job.recorded()) == list(range(50))


def test_a_torn_line_never_eats_the_next_report(job: Reported) -> None:
    """Behind half a line, without a newline, the next report is a line of its own."""
    (job.log_dir / "reports.jsonl").write_bytes(b'{"id":"1","job_id":"' + JOB.encode())
    job.publish("--event", "completed")
    assert [event.kind for event in job.recorded()] == ["completed"]


def test_a_publisher_killed_at_any_moment_harms_no_other(job: Reported) -> None:
    """After kill -9 of a reporter the report made next is whole."""
    for delay in range(8):
        process = job.place.start("publish", "--event", "progress", "--detail", "x" * 60_000, env=job.env)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005 * delay)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        end_group(process)
    assert job.publish("--event", "completed").returncode == 0
    assert job.recorded()[-1].kind == "completed"


@pytest.mark.parametrize("obstacle", ["fifo", "symlink", "hard link", "directory", "no directory"])
def test_a_hostile_work_tree_loses_no_report(job: Reported, obstacle: str) -> None:
    """Whatever an agent puts in the file's place, publish ends, follows nothing and records the report."""
    path = job.log_dir / "reports.jsonl"
    outside = job.place.root / "outside"
    outside.write_text("untouched")
    match obstacle:
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to(outside)
        case "hard link":
            path.hardlink_to(outside)
        case "directory":
            path.mkdir()
        case "no directory":
            job.log_dir.rmdir()
    assert job.publish("--event", "completed").stdout.startswith("recorded")
    assert [event.kind for event in job.recorded()] == ["completed"]
    assert outside.read_text() == "untouched"


# The one error handler


def test_an_error_in_the_process_is_raised_to_the_caller(
    job: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reporter.main` raises what `__main__` prints."""
    for name, value in job.env.items():
        monkeypatch.setenv(name, value or "")
    with pytest.raises(UsageError):
        reporter.main(["--event", "nothing"])
    monkeypatch.setenv("DELEGATE_JOB_DIR", "/proc/nothing/job")
    with pytest.raises(DelegateJobError) as caught:
        reporter.main(["--event", "completed"])
    assert caught.value.exit_code == 2
    monkeypatch.delenv("DELEGATE_JOB_ID")
    monkeypatch.setenv("DELEGATE_JOB_REGISTRY_DIR", str(job.place.registry))
    with pytest.raises(UnknownJobError):
        reporter.main(["--event", "completed", "--job", "nothing"])


def _run_main(place: Place, body: str, *args: str) -> "subprocess.CompletedProcess[str]":
    code = (
        "import sys, types\nfrom delegate_job import __main__\n"
        f"def main(argv):\n    {body}\n"
        "import delegate_job\ndelegate_job.cli = types.SimpleNamespace(main=main)\n"
        "sys.modules['delegate_job.cli'] = delegate_job.cli\n"
        f"sys.argv = ['delegate-job', *{list(args)!r}]\n__main__.main()"
    )
    process = place.spawn(sys.executable, "-c", code)
    stdout, stderr = process.communicate(timeout=30)
    return subprocess.CompletedProcess(code, process.returncode, stdout, stderr)


def test_a_fault_of_ours_is_two_lines_and_a_private_file(place: Place) -> None:
    """Exit 70, no traceback on the screen; it is in a 0600 file in the registry, or else a temporary one."""
    place.registry.mkdir()
    for directory, args in (
        (place.registry, ["list"]),
        (place.root / "tmp", ["list", "--registry-dir", "/nowhere"]),
    ):
        done = _run_main(place, "raise ZeroDivisionError('a\\nb')", *args)
        assert done.returncode == 70
        found = re.fullmatch(
            r"error: a fault in delegate-job itself: ZeroDivisionError: a\\nb\n"
            r"hint: please report it with (\S+)\n",
            done.stderr,
        )
        assert found, done
        crash = Path(found[1])
        assert crash.parent == directory
        assert stat.S_IMODE(crash.stat().st_mode) == 0o600
        assert "ZeroDivisionError" in crash.read_text()
        crash.unlink()


def test_expected_errors_and_interrupts_have_their_codes(place: Place) -> None:
    """A known error is one line and its code; Ctrl-C and a reader that has gone say nothing."""
    known = _run_main(
        place,
        "from delegate_job.errors import NotStartedError\n"
        "    raise NotStartedError('no tmux', hint='install it')",
    )
    assert (known.returncode, known.stderr) == (7, "error: no tmux\nhint: install it\n")
    for body, code in (("raise KeyboardInterrupt", 130), ("raise BrokenPipeError", 141), ("return 3", 3)):
        assert (_run_main(place, body).returncode, _run_main(place, body).stderr) == (code, "")
