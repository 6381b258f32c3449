"""A recording of `recorder`'s, read back: only whole and right lines, in the order of their times.

Not how it is played: that is for the reader's player. What stands in it is an agent's, and is not looked at.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from delegate_job.recorder import CUT, LIMIT

_MOST = 1000
"""Columns or rows that a player is asked to draw."""
_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")


class Moment(NamedTuple):
    """One line of a recording: seconds since it began, `o` (output), `r` (size) or `m` (marker), its text."""

    at: float
    kind: str
    text: str


class Cast(NamedTuple):
    """A recording. `began` is in seconds since 1970; `is_cut`: it ends at its limit and not at its end."""

    width: int
    height: int
    began: float
    moments: tuple[Moment, ...]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.moments[-1].at if self.moments else 0.0

    @property
    def is_cut(self) -> bool:
        """Whether it reached its limit."""
        said = (moment.text for moment in reversed(self.moments) if moment.kind == "o")
        return next(said, "") == CUT

    def marked(self, markers: Iterable[tuple[float, str]]) -> "Cast":
        """Return it with markers, each a time in seconds since 1970 and a label."""
        added = [Moment(min(max(at - self.began, 0.0), self.seconds), "m", label) for at, label in markers]
        return self._replace(moments=tuple(sorted((*self.moments, *added), key=lambda moment: moment.at)))

    def shortened(self, at: float, *, longest: float) -> float:
        """Return when a time comes in a playback whose pauses last `longest` seconds at the most."""
        times = [0.0, *(moment.at for moment in self.moments if moment.at <= at)]
        return sum(min(after - before, longest) for before, after in pairwise(times))

    def text(self) -> str:
        """Return it as asciicast v2."""
        header = {"version": 2, "width": self.width, "height": self.height, "timestamp": int(self.began)}
        lines = (json.dumps(moment, ensure_ascii=False) for moment in self.moments)
        return "\n".join((json.dumps(header), *lines, ""))


def read(path: Path) -> Cast | None:
    """Return a recording; None when there is none, or none that says anything."""
    try:
        with path.open("rb") as file:
            lines = file.read(LIMIT + (LIMIT >> 4)).decode(errors="replace").split("\n")
    except OSError:
        return None
    moments = tuple(_in_order(filter(None, map(_moment, lines[1:]))))
    match _parsed(lines[0]):
        case {"timestamp": began, **header} if moments and _is_number(began):
            width, height = _side(header.get("width"), 80), _side(header.get("height"), 24)
            return Cast(width, height, float(began), moments)
    return None


def _in_order(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Yield moments whose times never go back, though the clock may have."""
    last = 0.0
    for moment in moments:
        last = max(last, moment.at)
        yield moment._replace(at=last)


def _moment(line: str) -> Moment | None:
    match _parsed(line):
        case [at, "o" | "r" as kind, str(text)] if _is_number(at):
            return Moment(float(at), kind, text) if kind == "o" or _is_size(text) else None
    return None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_size(text: str) -> bool:
    found = _SIZE.fullmatch(text)
    return found is not None and all(0 < int(side) <= _MOST for side in found.groups())


def _side(value: Any, default: int) -> int:
    return value if isinstance(value, int) and 0 < value <= _MOST else default
