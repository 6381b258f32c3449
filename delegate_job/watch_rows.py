"""What `watch` says of a job, in plain text; of the full screen its order, cells, their widths, filters.

Nothing here draws, and all text is printable.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from delegate_job import output
from delegate_job.job import Job, JobState
from delegate_job.output import agent_name, printable
from delegate_job.rows import Row
from delegate_job.table import shorten, width_of
from delegate_job.times import in_one_unit, seconds_since

GAP = "  "
WAITING_MARK = "!"
CURSOR_MARK = ">"


class Column(NamedTuple):
    """A column: its title, and the width of what stands in it; `spare` takes what is left, from that on."""

    title: str
    width: int
    is_right: bool = False
    spare: int = 0


COLUMNS = (
    Column("ID", 10),
    Column("STATE", 11),
    Column("FOR", 6, is_right=True),
    Column("AGENT", 11),
    Column("AGE", 6, is_right=True),
    Column("CHECKS", 6, is_right=True),
    Column("LAST EVENT", 19),
    Column("WHY", 12, spare=12),
)
""""For" is the time in the state, "age" that since submit; checks are those begun of those there may be."""


def state_of(job: Job) -> str:
    """Return how a job stands, or how it ended; the state that needs a person in capitals."""
    return "WAITING" if job.state is JobState.WAITING else str(job.outcome or job.state)


def why(job: Job) -> str:
    """Return why it waits or how it ended, and what the agent said last."""
    return output.why(job.reason, job.detail)


def cells(row: Row, since: str) -> tuple[str, ...]:
    """Return a text for each of COLUMNS. `since` is the time at which the job's state began."""
    job = row.job
    return (
        job.id,
        state_of(job),
        in_one_unit(seconds_since(since)),
        agent_name(job.spec.agent),
        in_one_unit(seconds_since(job.created_at)),
        f"{job.attempt}/{job.spec.attempts}",
        printable(job.last_event or ""),
        why(job),
    )


def line_of(texts: Sequence[str], columns: int, *, marks: str = "  ") -> str:
    """Return cells in one line of exactly so many columns of a terminal, behind two marks."""
    line = marks + GAP.join(
        _fitted(text, column, width)
        for text, column, width in zip(texts, COLUMNS, _widths(columns - len(marks)), strict=False)
    )
    return _padded(shorten(line, columns), columns)


def _widths(columns: int) -> list[int]:
    """Return the widths of the columns that fit: the last of them has what is left."""
    fixed = [column.width for column in COLUMNS if not column.spare]
    left = columns - sum(fixed) - len(GAP) * len(fixed)
    if left >= COLUMNS[-1].spare:
        return [*fixed, left]
    return [*fixed[:-1], max(fixed[-1] + left + len(GAP), 0)]


def _fitted(text: str, column: Column, width: int) -> str:
    short = shorten(text, width)
    return " " * (width - width_of(short)) + short if column.is_right else _padded(short, width)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - width_of(text))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the jobs that wait for a person first, then the unfinished ones, each newest first."""
    return sorted(rows, key=lambda row: (_rank(row.job), -row.number))


def _rank(job: Job) -> int:
    return 0 if job.state is JobState.WAITING else 2 if job.done else 1


def matches(row: Row, words: Sequence[str]) -> bool:
    """Return whether each word stands somewhere in what is shown of a job, whatever its case."""
    if not words:
        return True
    job = row.job
    said = (job.id, job.state, job.outcome, job.spec.agent, job.spec.workdir, job.last_event, why(job))
    text = "\n".join(filter(None, said)).casefold()
    return all(word in text for word in words)


def counts(rows: Iterable[Row]) -> str:
    """Return how many jobs wait, are at work and are done."""
    ranks = [_rank(row.job) for row in rows]
    waiting, live, done = (ranks.count(rank) for rank in (0, 1, 2))
    told = [f"{waiting} WAITING FOR YOU"] if waiting else []
    return ", ".join([*told, f"{live} at work", f"{done} done"])
