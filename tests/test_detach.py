"""`submit --detach`: said at once, owned by the background supervisor, with everything of its own submit."""

import json
import os
import signal
import sys

import pytest

from harness import Place, job_id, wait_until
from takeovers import COMPLETED, ENDLESS, REPORT, UNTIL_TOLD, nothing_left, submit_detached, supervisor_pid


def test_the_first_line_is_the_id_and_the_last_the_audit_directory(place: Place) -> None:
    """Detached, too, `head -n1` and `tail -n1` find what scripts want; and it does not wait for the agent."""
    done = place.submit(f"{UNTIL_TOLD}\n{COMPLETED}", "--detach", "--close")
    name = job_id(done.stdout)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(place.log_dir(name)))
    assert place.log_dir(name).is_dir()
    assert place.run("wait", name, "--timeout", "0.2").returncode == 124
    (place.work / "go").touch()
    assert place.run("wait", name).returncode == 0
    nothing_left(place)


def test_json_is_the_job_as_it_is_at_that_moment(place: Place) -> None:
    """With --json stdout is one object, of a job that has only begun."""
    done = place.submit(ENDLESS, "--detach", "--json", "--close")
    job = json.loads(done.stdout)
    assert job["state"] in {"registered", "launching", "running"}
    assert (job["outcome"], job["log_dir"]) == (None, str(place.log_dir(job["id"])))
    assert place.run("cancel", job["id"]).stdout == f"{job['id']} cancelled\n"
    nothing_left(place)


def test_nothing_of_ours_holds_the_callers_pipes(place: Place) -> None:
    """Whoever reads the output of a detached submit sees its end at once; the supervisor lives on."""
    script = f'out=$({sys.executable} -m delegate_job {{}} | cat); echo "$out" | head -n1'
    words = " ".join(f"'{word}'" for word in place.submit_args(ENDLESS, "--detach", "--close"))
    piped = place.spawn("bash", "-c", script.format(words))
    stdout, _ = piped.communicate(timeout=20)
    name = job_id(stdout)
    assert place.run("cancel", name).stdout == f"{name} cancelled\n"
    nothing_left(place)


def test_twenty_at_once_have_one_supervisor_and_all_end_rightly(place: Place) -> None:
    """Twenty submits at one time on a new registry: twenty jobs, one supervisor, twenty accepted."""
    words = place.submit_args(COMPLETED, "--detach", "--close", "--json")
    submits = [place.start(*words) for _ in range(20)]
    said = [each.communicate(timeout=60) for each in submits]
    names = {json.loads(stdout)["id"] for stdout, _ in said}
    assert (len(names), {each.returncode for each in submits}) == (20, {0})
    assert place.run("wait", *names, timeout=90).returncode == 0

    def serving() -> list[int]:
        return [process.pid for process in place.processes() if " supervise " in process.command]

    # Another one that was started finds that there is one, and ends.
    wait_until(lambda: serving() == [supervisor_pid(place)], what="one supervisor")
    nothing_left(place)


def test_an_operation_id_joins_a_detached_job(place: Place) -> None:
    """The same key and prompt is the same job, detached or not; another prompt is exit 2."""
    agent = place.submit_args(f"{UNTIL_TOLD}\n{COMPLETED}", "--operation-id", "k1", "--close")
    first = place.run(*agent, "--detach")
    second = place.run(*agent, "--detach")
    assert (second.returncode, job_id(second.stdout)) == (0, job_id(first.stdout))
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    joined = place.start(*agent)
    other = place.run(*place.submit_args(COMPLETED, "--operation-id", "k1", "--prompt", "Other.", "--detach"))
    assert other.returncode == 2
    (place.work / "go").touch()
    stdout, _ = joined.communicate(timeout=20)
    assert (joined.returncode, job_id(stdout)) == (0, job_id(first.stdout))
    assert len(place.jobs()) == 1
    nothing_left(place)


def test_limits_and_umask_are_those_of_the_submit(place: Place) -> None:
    """Agent and check have what the submitting shell had, not what the supervisor's starter had."""
    probe = "ulimit -Sn > $0.nofile; umask > $0.umask"
    check = place.script("check", probe.replace("$0", f"{place.root}/check"))
    agent = f"{probe.replace('$0', f'{place.root}/agent')}\n{COMPLETED}"
    shell = 'umask {}; ulimit -Sn {}; shift 0; exec "$@"'
    words = [place.environ["DJ"], *place.submit_args(ENDLESS, "--detach", "--close")]
    assert place.spawn("bash", "-c", shell.format("0077", 300), "-", *words).wait(20) == 0
    words = [place.environ["DJ"], *place.submit_args(agent, "--detach", "--close", "--validate", check)]
    assert place.spawn("bash", "-c", shell.format("0027", 512), "-", *words).wait(20) == 0
    name = json.loads(place.run("list", "--json").stdout)[0]["id"]
    assert place.run("wait", name).returncode == 0
    for who in ("agent", "check"):
        said = [(place.root / f"{who}.{what}").read_text().strip() for what in ("nofile", "umask")]
        assert (who, said) == (who, ["512", "0027"])


def test_the_environment_is_that_of_the_submit(place: Place) -> None:
    """Each detached job has its own submit's variables, also under a supervisor that knows none of them."""
    agent = f'printf %s "$TOLD" > told-$DELEGATE_JOB_ID\n{COMPLETED}'
    names = {submit_detached(place, agent, "--close", env={"TOLD": word}): word for word in ("one", "two")}
    assert place.run("wait", *names).returncode == 0
    assert {name: (place.work / f"told-{name}").read_text() for name in names} == names


def test_wait_any_and_until_on_detached_jobs(place: Place) -> None:
    """--any gives the first one's code; --until returns at the state, or with the code of an earlier end."""
    ends = submit_detached(place, f"{UNTIL_TOLD}\n{REPORT} error --detail no", "--close")
    stays = submit_detached(place, f"{REPORT} permission_required\nexec sleep 600", "--close")
    assert place.run("wait", stays, "--until", "waiting").returncode == 0
    assert place.run("wait", ends, "--until", "running").returncode == 0
    waiting = place.start("wait", "--any", ends, stays)
    (place.work / "go").touch()
    assert waiting.communicate(timeout=20)[0] == f"{ends} failed\n"
    assert waiting.returncode == 1
    assert place.run("wait", ends, "--until", "checking").returncode == 1
    assert place.run("cancel", stays).stdout == f"{stays} cancelled\n"
    assert place.run("wait", ends, stays).returncode == 9
    nothing_left(place)


def test_a_persons_job_may_be_detached(place: Place) -> None:
    """Without any session: the task stands in the audit directory, and a report from any terminal ends it."""
    done = place.run("submit", "--agent", "human", "--prompt", "Water the plants.", "--detach", "--json")
    name = json.loads(done.stdout)["id"]
    place.await_state(name, "running")
    assert "Water the plants." in (place.log_dir(name) / "instructions.md").read_text()
    assert place.run("publish", "--job", name, "--event", "completed").returncode == 0
    assert place.run("wait", name).returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_leaves_no_job_or_a_whole_one(place: Place, signum: signal.Signals) -> None:
    """A detached submit that a signal ends has made nothing, or a job that goes on to its right end."""
    for step in range(8):
        submit = place.start(*place.submit_args(COMPLETED, "--detach", "--close"))
        with_delay(0.05 + 0.03 * step)
        os.killpg(submit.pid, signum)
        submit.communicate(timeout=20)
    listed = json.loads(place.run("list", "--json").stdout)
    for job in listed:
        assert place.run("wait", job["id"]).returncode == 0, place.run("logs", job["id"]).stdout
    # What never became a job leaves no trace where agents' users look.
    parent = place.work / "delegate_job_logs"
    logs = {path.name for path in parent.iterdir() if path.is_dir()} if parent.exists() else set()
    assert {job["id"] for job in listed} >= {name for name in logs if any((parent / name).iterdir())}
    nothing_left(place)


def with_delay(seconds: float) -> None:
    """Wait for no event: a signal is to come at this moment, whatever happens then."""
    wait_until(iter([False] * round(seconds / 0.02) + [True]).__next__, seconds + 5)
