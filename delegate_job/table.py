"""A table of one line a row, as wide as the terminal and no wider. Not what stands in it."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import IO, NamedTuple

MEASURED = 200
"""Rows that are looked at before the first is printed."""

_GAP = "  "
_NARROWEST = 12
"""Columns that a shortened cell keeps."""


class Cell(NamedTuple):
    """A text without control characters, and an ANSI colour (SGR number) for it."""

    text: str
    colour: int | None = None


def terminal_columns() -> int:
    """Return how wide the terminal is; COLUMNS, or 80, where there is none."""
    import shutil  # which costs a start 1.6 ms, and only a terminal needs it

    return shutil.get_terminal_size().columns


def width_of(text: str) -> int:
    """Return the columns of a text on a terminal: two for wide East Asian characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    import unicodedata

    if unicodedata.combining(char) or unicodedata.category(char) in {"Cf", "Me", "Mn"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, columns: int) -> str:
    """Return the text in at most so many columns, with an ellipsis where something was cut."""
    if width_of(text) <= columns:
        return text
    kept, left = 0, columns - 1
    for char in text:
        left -= _columns(char)
        if left < 0:
            break
        kept += 1
    return f"{text[:kept]}…"


def print_table(header: Sequence[str], rows: Iterable[Sequence[Cell]], stream: IO[str]) -> int:
    """Print the rows below their header and return how many there were; without any, print nothing.

    The widths are those of the first `MEASURED` rows, so that the memory needed does not grow with the number
    of rows. On a terminal the widest columns are shortened until the table fits.
    """
    remaining = iter(rows)
    first = list(islice(remaining, MEASURED))
    if not first:
        return 0
    measured = [tuple(map(Cell, header)), *first]
    widths = [max(width_of(row[column].text) for row in measured) for column in range(len(header))]
    terminal = stream.isatty()
    if terminal:
        _fit(widths, terminal_columns() - len(_GAP) * (len(widths) - 1))
    count = -1
    for row in chain(measured, remaining):
        cells = (_cell(cell, width, cut=terminal) for cell, width in zip(row, widths, strict=True))
        print(_GAP.join(cells).rstrip(), file=stream)
        count += 1
    return count


def _fit(widths: list[int], columns: int) -> None:
    while (over := sum(widths) - columns) > 0 and max(widths) > _NARROWEST:
        widest = widths.index(max(widths))
        second = max(width for index, width in enumerate(widths) if index != widest)
        widths[widest] = max(widths[widest] - over, min(second, widths[widest] - 1), _NARROWEST)


def _cell(cell: Cell, width: int, *, cut: bool) -> str:
    text = shorten(cell.text, width) if cut else cell.text
    padding = " " * (width - width_of(text))
    return f"{text}{padding}" if cell.colour is None else f"\x1b[{cell.colour}m{text}\x1b[0m{padding}"
