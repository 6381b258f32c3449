"""Hostile text in prompts, names, labels, details, words: it arrives byte for byte, nothing is executed."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import Place, job_id

COMPLETED = '"$DJ" publish --event completed'

TEXTS = (
    "$(touch X)",
    "`touch X`",
    "#(touch X)",
    "#{session_name} #S ##[fg=red]",
    "%H %d %% %s",
    "'single' \"double\" \\back \\\\ \\n",
    "two\nlines\n",
    "\n\n\tleading and trailing \n ",
    "ends with;",
    ";",
    "ends with backslash\\",
    "-leads",
    "--help",
    "--",
    "-",
    "!touch X",
    "/exit",
    "@last",
    "~",
    "$HOME ${HOME} %HOME% !!",
    "a & touch X | touch X > X && touch X; touch X",
    "{prompt_file} {instructions_file} {job_id} {x} {{}}",
    "grün → 完了 🎉 \u200b\u202e",
    "\x1b[2J\x1b]0;title\x07\x08\x7f\x03\x04\x1a",
    "\r\ncarriage\rreturns\r\n",
    "*?[a-z]",
    "\x1b[201~ touch X\r",
)
"""What a shell, tmux, a format, an option parser or an agent's own command line would act on."""

BYTES = (b"\xff\xfe not \xc3 UTF-8 \x80", b"\xed\xa0\x80 a surrogate", *(text.encode() for text in TEXTS))

ODD = tuple(
    map(
        os.fsdecode,
        (
            b"-$(touch X) `touch X` #(touch X) #{session_name} %H %s ' \" & touch X | touch X > X ;",
            b"!lines\nof\ntext\\",
            b"{prompt_file} {job_id} $HOME *?[a-z]",
            "grün → 完了 🎉 \u202e".encode(),
            b" \x1b[2J\x07\r\n\t\x7f ",
            b"bytes \xff\xfe \xc3",
            b"~",
            b";",
            b"--help",
        ),
    )
)
"""The same in few, for what costs a job each: all of them can be names of files."""

COPIES = r"""#!python
import os, shutil, subprocess, sys
from pathlib import Path

target = Path(os.environ["COPIES"]) / os.environ["DELEGATE_JOB_ID"]
target.mkdir(parents=True)
for number, argument in enumerate(sys.argv[1:]):
    (target / f"argument-{number}").write_bytes(os.fsencode(argument))
(target / "work").write_bytes(os.fsencode(os.getcwd()))
for name in ("prompt.md", "instructions.md"):
    shutil.copy(Path(os.environ["DELEGATE_JOB_DIR"]) / name, target / name)
details = Path(os.environ["COPIES"]) / "details"
for detail in sorted(details.iterdir()) if details.exists() else []:
    words = ["--event", "progress", "--detail", os.fsdecode(detail.read_bytes())]
    subprocess.run([os.environ["DJ"], "publish", *words], check=True)
subprocess.run([os.environ["DJ"], "publish", "--event", "completed"], check=True)
"""
"""A scripted agent that keeps what it was given where the test can read it."""


@pytest.fixture
def copies(place: Place) -> Path:
    """Give the directory in which the agent keeps what it was given."""
    directory = place.root / "copies"
    directory.mkdir()
    place.environ["COPIES"] = str(directory)
    return directory


def run(place: Place, *words: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said, after a look for tracebacks and for executed text."""
    if stdin is None:
        done = place.run(*words)
    else:
        done = place.run(*words, input=stdin.decode(errors="surrogateescape"))
    assert "Traceback" not in done.stdout + done.stderr, done
    assert done.returncode != 70, done
    assert not executed(place), done
    return done


def executed(place: Place) -> list[Path]:
    """Return the files that text which was executed would have made."""
    return [path for path in (*place.root.rglob("X"), Path("/X"), Path.home() / "X") if path.exists()]


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> None:
    """Check that a command said no in one line with at most one hint."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] in (["error"], ["error", "hint"])


def kept(copies: Path, done: subprocess.CompletedProcess[str], name: str) -> bytes:
    """Return what the agent of a job that was accepted was given."""
    assert done.returncode == 0, done
    return (copies / job_id(done.stdout) / name).read_bytes()


def templated(agent: Path) -> list[str]:
    """Return the options for a scripted agent that is given the path of the bare prompt."""
    return ["submit", "--agent", "command", "--command", f"{agent} {{prompt_file}}"]


# -- prompts


def test_each_prompt_arrives_as_it_is(place: Place, copies: Path) -> None:
    """At the end of the one last argument of a program every byte is there, and none is acted on."""
    agent = place.agent(COPIES)
    for number, raw in enumerate(BYTES):
        prompt = place.root / "prompt"
        prompt.write_bytes(raw)
        words = ["--prompt-file", str(prompt)] if number % 2 else [f"--prompt={os.fsdecode(raw)}"]
        done = run(place, "submit", "--agent", agent, *words, "--close")
        argument = kept(copies, done, "argument-0")
        assert argument.endswith(b":\n" + raw), raw
        assert argument.startswith(b"This is delegate-job")
        assert kept(copies, done, "instructions.md") == argument
        assert kept(copies, done, "prompt.md") == raw


def test_each_prompt_is_in_its_file(place: Place, copies: Path) -> None:
    """By {prompt_file} a command gets the path of the bare prompt, which holds every byte."""
    agent = place.agent(COPIES)
    for text in ODD:
        done = run(place, *templated(agent), f"--prompt={text}", "--close")
        path = kept(copies, done, "argument-0")
        assert path.endswith(f"/{job_id(done.stdout)}/prompt.md".encode())
        assert Path(os.fsdecode(path)).read_bytes() == os.fsencode(text)


@pytest.mark.parametrize("size", [100_000, 131_071, 1 << 20])
def test_long_prompts_arrive_whole(place: Place, copies: Path, size: int) -> None:
    """A prompt too long for an argument is read from the file that a short text names, to its last byte."""
    raw = os.urandom(size).replace(b"\0", b"\n") + b"$(touch X);"
    done = run(place, "submit", "--agent", place.agent(COPIES), "--prompt-file", "-", stdin=raw)
    assert kept(copies, done, "prompt.md") == raw
    argument = kept(copies, done, "argument-0")
    if size > 120_000:
        path = Path(done.stdout.splitlines()[-1]) / "instructions.md"
        assert f"Read the file {path} in full".encode() in argument
        assert len(argument) < 1000
    else:
        assert argument.endswith(raw)
    assert kept(copies, done, "instructions.md").endswith(raw)


@pytest.mark.parametrize("raw", [b"", b" \n\t", b"one\0two", b"\0"])
def test_prompts_that_cannot_be_meant(place: Place, raw: bytes) -> None:
    """An empty prompt and one with a NUL are refused before anything is made."""
    agent = place.agent(COMPLETED)
    refused(run(place, *templated(agent), "--prompt-file", "-", stdin=raw))
    path = place.root / "prompt"
    path.write_bytes(raw)
    refused(run(place, *templated(agent), "--prompt-file", path))
    if b"\0" not in raw:
        refused(run(place, *templated(agent), "--prompt", os.fsdecode(raw)))
    assert place.jobs() == []


def test_prompt_files_that_are_none(place: Place) -> None:
    """A prompt file that is missing, a directory or nameless is one line and exit 2."""
    agent = place.agent(COMPLETED)
    for path in (place.root / "missing", place.root, "", "x" * 300, "new\nline"):
        refused(run(place, *templated(agent), "--prompt-file", path))
    refused(run(place, *templated(agent)))
    refused(run(place, *templated(agent), "--prompt", "x", "--prompt-file", place.root))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(raw=b"$(touch X);#(touch X)%s\\\xff")
@given(raw=st.binary(min_size=1, max_size=200).filter(lambda raw: raw.strip() and b"\0" not in raw))
def test_any_bytes_are_a_prompt(place: Place, raw: bytes) -> None:
    """Whatever bytes a prompt is made of, the agent has the very same, as an argument and as a file."""
    directory = place.root / "any"
    directory.mkdir(exist_ok=True)
    place.environ["COPIES"] = str(directory)
    done = run(place, "submit", "--agent", place.agent(COPIES), "--prompt-file", "-", "--close", stdin=raw)
    assert kept(directory, done, "argument-0").endswith(b":\n" + raw)
    assert kept(directory, done, "prompt.md") == raw


# -- names


def test_odd_work_dirs(place: Place, copies: Path) -> None:
    """A work dir may have any name: the agent and the check work in it, and the last line names its log."""
    agent = place.agent(COPIES)
    check = place.script("check", 'test "$PWD" -ef "$JOB_WORKDIR" && test -e "$JOB_LOG_DIR/reports.jsonl"')
    for name in ODD:
        work = place.root / "odd" / name
        work.mkdir(parents=True)
        words = [
            *templated(agent),
            "--prompt",
            "x",
            "--close",
            "--validate",
            str(check),
            "--workdir",
            str(work),
        ]
        done = run(place, *words)
        assert kept(copies, done, "work") == os.fsencode(work)
        log = f"\n{work}/delegate_job_logs/{job_id(done.stdout)}\n".replace("\r\n", "\n")
        assert done.stdout.endswith(log), done
        job = json.loads(run(place, "status", job_id(done.stdout), "--json").stdout)
        if name.isprintable():
            assert job["workdir"] == str(work)
    listed = run(place, "list", "--json")
    assert {job["verdict"] for job in json.loads(listed.stdout)} == {"passed"}
    assert len(run(place, "list").stdout.splitlines()) == len(ODD) + 1
    assert run(place, "logs", "--list").returncode == 0


def test_odd_checks(place: Place) -> None:
    """A check may have any path, executable or not, and its own output reaches nobody's shell."""
    agent = place.agent(COMPLETED)
    for number, name in enumerate(ODD):
        check = place.root / "checks" / name
        check.parent.mkdir(exist_ok=True)
        check.write_text("#!/usr/bin/env bash\necho '$(touch X)' `echo ran`\n")
        check.chmod(0o755 if number % 2 else 0o644)
        done = run(place, *templated(agent), "--prompt", "x", "--close", f"--validate={check}")
        assert "validation: PASS" in done.stdout, done
        again = run(place, "verify", job_id(done.stdout), f"--validate={check}")
        assert (again.returncode, again.stdout) == (0, "$(touch X) ran\n"), again


def test_odd_agents(place: Place, copies: Path) -> None:
    """A program with any path can be the agent; a --command is split into words, never given to a shell."""
    import shlex

    original = place.agent(COPIES)
    for name in ODD:
        program = place.root / "agents" / name
        program.parent.mkdir(exist_ok=True)
        program.write_bytes(original.read_bytes())
        program.chmod(0o755)
        done = run(place, "submit", f"--agent={program}", "--prompt", "x", "--close")
        assert kept(copies, done, "argument-0").endswith(b":\nx")
        template = shlex.join([str(program), name])
        done = run(place, "submit", "--agent", "command", "--command", template, "--prompt", "x", "--close")
        if "{" not in name:
            assert kept(copies, done, "argument-0") == os.fsencode(name)
        done = run(place, "submit", f"--agent={program}", "--prompt", "x", "--close", "--", name)
        assert kept(copies, done, "argument-0") == os.fsencode(name)
        refused(run(place, "submit", f"--agent={program}-missing", "--prompt", "x"), 7)


# -- labels, models, ids, kinds: text with rules of its own


def test_session_labels(place: Place) -> None:
    """A label is 1 to 64 letters, digits, dashes and underscores; everything else is refused in one line."""
    agent = place.agent(COMPLETED)
    for text in (*ODD[:-1], "", " ", "a b", "a.b", "a:b", "x" * 65, "ü", "=x", "x\n"):
        refused(run(place, *templated(agent), "--prompt", "x", f"--agent-session=tmux:{text}"))
    for text in ("", "x", "screen:x", "tmux", "TMUX:x", " tmux:x"):
        refused(run(place, *templated(agent), "--prompt", "x", f"--agent-session={text}"))
    assert place.jobs() == []
    labels = ["-", "_", "-x", "--help", "0", "x" * 64, "A-b_9"]
    for label in labels:
        done = run(place, *templated(agent), "--prompt", "x", f"--agent-session=tmux:{label}")
        assert done.returncode == 0, done
        assert json.loads(run(place, "status", "@last", "--json").stdout)["session"] == label
    assert sorted(place.tmux("list-sessions", "-F", "#{session_name}").stdout.split()) == sorted(labels)


def test_models(place: Place) -> None:
    """A model's name has no spaces and no leading dash, so that it can never be an option of the agent's."""
    agent = place.agent(COMPLETED)
    for text in (*ODD[:3], *ODD[4:6], ODD[8], "", " ", "-x", "a b", "a\n"):
        refused(run(place, *templated(agent), "--prompt", "x", f"--model={text}"))
    for text in ("$(touch${IFS}X)", "`X`;", "#(X)%H", "{job_id}", "完"):
        assert run(place, *templated(agent), "--prompt", "x", "--close", f"--model={text}").returncode == 0


def test_operation_ids(place: Place) -> None:
    """An operation id is any text: the same one joins its job, another makes a new one."""
    agent = place.agent(COMPLETED)
    seen = set()
    for text in ODD:
        words = [*templated(agent), "--prompt", "x", "--close", f"--operation-id={text}"]
        first, second = run(place, *words), run(place, *words)
        assert (first.returncode, second.returncode) == (0, 0), (first, second)
        assert job_id(first.stdout) == job_id(second.stdout)
        seen.add(job_id(first.stdout))
    assert len(seen) == len(ODD)
    refused(run(place, *templated(agent), "--prompt", "other", f"--operation-id={ODD[0]}"))


def test_job_ids_that_are_none(place: Place) -> None:
    """Odd text for a job's id is no job: one line, exit 2, for every command; nothing is done to any job."""
    done = run(place, *templated(place.agent(COMPLETED)), "--prompt", "x")
    assert done.returncode == 0
    for text in (*ODD, "", "../..", "%", "*"):
        for command in ("status", "logs", "cancel", "attach", "wait"):
            refused(run(place, command, "--", text))
        refused(run(place, "publish", "--event", "error", f"--job={text}"))
        refused(run(place, "publish", f"--event={text}", "--job", "@last"))
    assert json.loads(run(place, "status", "@last", "--json").stdout)["outcome"] == "accepted"


def test_details(place: Place, copies: Path) -> None:
    """A detail is kept as it is, shown on one line without control characters, and given to no shell."""
    details = copies / "details"
    details.mkdir()
    raws = [raw for raw in BYTES if raw != b"-"]
    for number, raw in enumerate(raws):
        (details / f"{number:02}").write_bytes(raw)
    seen = place.root / "events"
    hook = place.agent(f"cat >> {seen}\n")
    agent = place.agent(COPIES)
    done = run(place, *templated(agent), "--prompt", "x", "--close", "--on-event", str(hook))
    assert done.returncode == 0, done
    logged = [json.loads(line) for line in run(place, "logs", "@last", "--json").stdout.splitlines()]
    hooked = [json.loads(line) for line in seen.read_text().splitlines()]
    for events in (logged, hooked):
        assert [event["detail"] for event in events if event["kind"] == "progress"] == list(
            map(as_text, raws)
        )
    for shown in (
        done,
        *(run(place, *words) for words in (["status", "@last"], ["list"], ["logs", "@last"])),
    ):
        assert not any(ord(char) in {*range(32), 127} - {10} for char in shown.stdout), shown
    assert len(run(place, "logs", "@last").stdout.splitlines()) == len(logged)


def as_text(raw: bytes) -> str:
    """Return bytes of an argument as a report carries them: each that is not UTF-8 as U+FFFD."""
    return raw.decode(errors="surrogateescape").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("options", [["--command", "'unclosed"], ["--command", ""], ["--on-event", "'"]])
def test_commands_that_cannot_be_split(place: Place, options: list[str]) -> None:
    """A command that no shell could split is refused in one line."""
    words = ["--agent", "command", "--prompt", "x"]
    if options[0] != "--command":
        words += ["--command", "true"]
    refused(run(place, "submit", *words, *options))


def test_text_in_a_rejection_is_pasted_as_text(place: Place) -> None:
    """What a check prints reaches the agent's session marked line by line, without keys, never executed."""
    agent = place.agent(
        f"{COMPLETED}\n"
        'while IFS= read -r line; do printf "%s\\n" "$line" >> "$PWD/heard"\n'
        f'case "$line" in "Checks left"*) {COMPLETED}; exit;; esac; done\n'
    )
    output = place.root / "output"
    output.write_bytes(
        b"\n".join(raw for raw in BYTES if b"\x1b" not in raw) + b"\n\x1b[201~\rtouch X\r\x03\x04"
    )
    check = place.script("check", f'[ "$JOB_ATTEMPT" = 2 ] || {{ cat {output}; exit 1; }}')
    words = ["submit", "--agent", "command", "--command", str(agent), "--prompt", "x"]
    done = run(place, *words, "--validate", check, "--attempts", "2")
    assert done.returncode == 0, done
    heard = (place.work / "heard").read_text(errors="replace")
    assert "  | $(touch X)" in heard
    assert "  | `touch X`" in heard
