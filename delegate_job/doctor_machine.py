"""What every job needs of this machine, tried out: tmux, the broker, the registry. Not the agents."""

import contextlib
import importlib.metadata
import os
import platform
import queue
import re
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from delegate_job import locks, mqtt
from delegate_job.agents.probes import Finding, Status
from delegate_job.doctor_process import run
from delegate_job.doctor_scratch import Scratch
from delegate_job.errors import DelegateJobError, NotStartedError, one_line
from delegate_job.owner_link import OwnerLink
from delegate_job.paths import RegistryPaths
from delegate_job.retry import retry_until
from delegate_job.tmux import FILE_LIMIT, INSTALL, Tmux, TmuxError

ECHO_TIMEOUT = 10.0
"""Seconds in which a session's output, or a message by MQTT, must come back."""
VERSION_TIMEOUT = 5.0
OLDEST_TMUX = 3
FEW_FILES = 1024
"""A hard limit of open files below which a warning is due: tmux takes two of them a session."""
NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("orangefs", "smb2", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.davfs2", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
    }
)
"""Types of file systems (mount(8)) on which a lock may mean nothing to another machine, or to anybody."""
_WORD = "delegate-job doctor"


def python() -> Finding:
    """Say which Python runs this, and so every runner and hook."""
    text = f"{platform.python_version()}, {sys.executable}"
    if not os.access(sys.executable, os.X_OK):
        hint = "install delegate-job again"
        return Finding("python", Status.MISSING, f"{text}: it cannot be run", hint, needed=True)
    return Finding("python", Status.OK, text)


# -- the registry


def registry(paths: RegistryPaths, scratch: Scratch) -> Iterator[Finding]:
    """Look at the registry, in which `scratch` could be made, and at what jobs it has."""
    root = paths.root
    yield from _rights(root)
    kind = file_system(root)
    if kind in NETWORK:
        text = f"{root} is on a network file system ({kind}): there locks may mean nothing"
        hint = "keep it on a local one: --registry-dir, or registry-dir in your config.toml"
        yield Finding("registry", Status.WARNING, text, hint)
    if not _locks_hold(scratch):
        text = f"{root}: its file system keeps no locks"
        hint = "name a registry on a local one with --registry-dir"
        yield Finding("registry", Status.MISSING, text, hint, needed=True)
    if paths.database.exists():
        yield from _jobs(paths)
    else:
        yield Finding("registry", Status.OK, f"{root}, no job yet")


def _rights(root: Path) -> Iterator[Finding]:
    status = root.stat()
    if status.st_uid != os.geteuid():
        text = f"{root} belongs to user {status.st_uid}, who can read and change what your jobs do"
        yield Finding("registry", Status.WARNING, text, "name one of your own with --registry-dir")
    elif status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        text = f"{root} has mode {mode:04o}: others can look into it"
        yield Finding("registry", Status.WARNING, text, f"chmod 700 {root}")


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds a path; empty where that cannot be seen.

    `mounts` is the text of /proc/self/mountinfo (proc_pid_mountinfo(5)), in which the later of two mounts on
    one directory covers the earlier.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    real, found, longest = path.resolve(), "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        if real.is_relative_to(point) and len(point) >= longest:
            found, longest = after.split(" ")[0], len(point)
    return found


def _locks_hold(scratch: Scratch) -> bool:
    try:
        first = locks.acquire(scratch.job.lock)
        second = locks.acquire(scratch.job.lock)
    except OSError:
        return False
    for fd in (first, second):
        if fd is not None:
            os.close(fd)
    return first is not None and second is None


def _jobs(paths: RegistryPaths) -> Iterator[Finding]:
    from delegate_job.registry import Registry

    host = socket.gethostname()
    with Registry(paths) as opened:
        if opened.repaired:
            yield Finding("registry", Status.WARNING, opened.repaired)
        unfinished = [opened.row(job_id) for job_id in opened.unsettled()]
    others = sorted({row.host for row in unfinished if row.host not in {None, host}} - {None})
    if others:
        text = f"{paths.root} has jobs of {', '.join(map(str, others))}, which only that machine can own"
        yield Finding("registry", Status.WARNING, text, "use a registry on each machine")
    yield Finding("registry", Status.OK, f"{paths.root}, {len(unfinished)} unfinished jobs")


def open_files() -> Finding:
    """Say how many files may be open; the soft limit is raised to the hard one where it is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if each == resource.RLIM_INFINITY else f"{each:,}" for each in (soft, hard)]
    text = f"{shown[0]}, up to {shown[1]}"
    if hard != resource.RLIM_INFINITY and hard < min(FEW_FILES, FILE_LIMIT):
        hint = "raise the hard limit (ulimit -Hn): tmux takes two a job, and ends at its limit with all jobs"
        return Finding("open files", Status.WARNING, f"{text}: room for few jobs", hint)
    return Finding("open files", Status.OK, text)


# -- tmux


def tmux(paths: RegistryPaths, scratch: Scratch) -> Finding:
    """Open a session on a server of ours, see what it prints, and end both."""
    if Tmux.missing():
        return Finding("tmux", Status.MISSING, "not on PATH", INSTALL, needed=True)
    version = _tmux_version(scratch)
    major = re.match(r"\D*(\d+)", version)
    if major and int(major[1]) < OLDEST_TMUX:
        return Finding("tmux", Status.MISSING, f"{version} is too old", INSTALL, needed=True)
    try:
        _see_session(scratch)
    except TmuxError as error:
        text = f"{version}: no session can be opened: {error.message}"
        return Finding("tmux", Status.MISSING, text, error.hint, needed=True)
    # A server that is not there is nothing to say; one that does not answer has run into the call's limit.
    ours = Tmux(label=paths.tmux_label)
    ours.sessions()
    if not ours.server.answers:
        text = f"{version}: a new server works, but the registry's own does not answer"
        return Finding("tmux", Status.WARNING, text, f"look at it with: tmux -L {paths.tmux_label} ls")
    return Finding("tmux", Status.OK, f"{version}, and a session was opened and read")


def _tmux_version(scratch: Scratch) -> str:
    try:
        done = run(["tmux", "-V"], timeout=VERSION_TIMEOUT, cwd=scratch.work, env=os.environ)
    except OSError:
        done = None
    return " ".join(done.stdout.decode(errors="replace").split()) if done and done.stdout else "tmux"


def _see_session(scratch: Scratch) -> None:
    """Raise TmuxError unless a program's output is seen in a session.

    The server has a label of its own: that of the registry's may be starting its first job just now, and its
    socket must not be removed under it.
    """
    name = f"doctor-{scratch.id}"
    tmux = Tmux(label=f"{scratch.paths.tmux_label}-{scratch.id}")
    argv = [sys.executable, "-I", "-S", "-c", f"print({_WORD!r}, flush=True); input()"]
    socket_path = tmux.start_session(name, argv, pane_log=scratch.job.pane_log)
    try:
        seen = retry_until(lambda: _WORD in (tmux.capture(name, history=True) or ""), timeout=ECHO_TIMEOUT)
    finally:
        tmux.kill_session(name)
        with contextlib.suppress(OSError):
            os.unlink(socket_path)  # noqa: PTH108 - as tmux said it
    if not seen:
        raise TmuxError(f"what a program prints in it was not seen within {ECHO_TIMEOUT:.0f} s")


# -- the broker


def embedded_broker(scratch: Scratch) -> Finding:
    """Start the embedded broker and send a report through it."""
    from delegate_job.standalone_broker import StandaloneBroker
    from delegate_job_broker import BrokerError

    try:
        with StandaloneBroker(0, observer=False) as serving:
            why = _round_trip(mqtt.parse_url(serving.urls()["url"]), scratch.id)
    except (BrokerError, NotStartedError) as error:
        why = one_line(error)
    if why:
        hint = "install delegate-job again; loopback must be up"
        return Finding("broker", Status.MISSING, f"embedded: {why}", hint, needed=True)
    version = importlib.metadata.version("amqtt")
    return Finding("broker", Status.OK, f"embedded (amqtt {version}), and a report came through it")


def external_broker(url: str, scratch: Scratch) -> Finding:
    """Send a report through the broker that the settings name; its topic is cleared again."""
    address = mqtt.parse_url(url)
    why = _round_trip(address, scratch.id)
    if why:
        hint = "look at its address, user, password and rights, or leave out --broker"
        return Finding("broker", Status.MISSING, f"{address.url()}: {why}", hint, needed=True)
    return Finding("broker", Status.OK, f"{address.url()}, and a report came through it")


def _round_trip(address: mqtt.Address, job_id: str) -> str:
    """Publish a report and hear it, as a job's owner does; return what is wrong, or nothing."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    topic, word = mqtt.report_topic(job_id, "progress"), _WORD.encode()
    link = OwnerLink(
        address, on_report=lambda _job, _kind, payload: heard.put(payload), on_change=lambda *_: None
    )
    try:
        link.watch(job_id)
        sent = mqtt.publish_once(address, [(topic, word)], budget=ECHO_TIMEOUT)
        if not sent.ok:
            return f"it takes nothing: {sent.reason}"
        heard.get(timeout=ECHO_TIMEOUT)
    except queue.Empty:
        return f"a report was taken, and not heard within {ECHO_TIMEOUT:.0f} s"
    finally:
        mqtt.publish_once(address, [(topic, b"")])
        link.stop(1.0)
    return ""


def work_dir(workdir: str) -> Finding:
    """Say whether the log can lie in the work dir."""
    if os.access(workdir, os.W_OK | os.X_OK):
        return Finding("work dir", Status.OK, workdir)
    text = f"{workdir} cannot be written: the log of a job will be in the registry"
    return Finding("work dir", Status.WARNING, text)


def no_registry(paths: RegistryPaths, error: OSError | DelegateJobError) -> Finding:
    """Say why no job can be kept."""
    why = getattr(error, "strerror", None) or one_line(error)
    free = shutil.disk_usage(_above(paths.root)).free
    text = f"{paths.root} cannot be written: {why}" + (" (the disk is full)" if not free else "")
    hint = "name another with --registry-dir or $DELEGATE_JOB_REGISTRY_DIR"
    return Finding("registry", Status.MISSING, text, hint, needed=True)


def _above(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())
