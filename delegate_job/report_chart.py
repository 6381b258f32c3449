"""A job's states over time as a drawing, in SVG whose widths are shares: as wide as the page is.

Not the table of the same numbers, which those read who cannot see it.
"""

from collections.abc import Iterator

from delegate_job.markup import Html, element
from delegate_job.report import Report, Stay
from delegate_job.times import in_two_units, since_1970

_LANE, _BAR, _TOP = 34, 12, 4
"""Pixels: from lane to lane, of a bar, above the first."""
_TICKS = 4
"""Spans between the marks of the axis."""
_MOST_DOTS = 500


def chart(report: Report) -> Html:
    """Return the drawing: a lane for each state that the job was in, and a dot for each applied event."""
    began, ended = report.stays[0].began, report.stays[-1].ended
    scale = _Scale(began, max(ended - began, 0.001))
    lanes = list(dict.fromkeys(stay.state for stay in report.stays))
    bottom = _TOP + _LANE * len(lanes)
    sentence = ", then ".join(
        f"{stay.state} for {in_two_units(stay.ended - stay.began)}" for stay in report.stays[:40]
    )
    return element(
        "svg",
        element("title", "The states of the job over time"),
        element("desc", sentence),
        [_lane(name, number) for number, name in enumerate(lanes)],
        [_bar(stay, lanes.index(stay.state), scale) for stay in report.stays],
        list(_dots(report, bottom, scale)),
        list(_axis(bottom + 14, scale)),
        class_="chart",
        role="img",
        width="100%",
        height=bottom + 36,
    )


class _Scale:
    """Where a time stands, as a share of the width."""

    def __init__(self, began: float, span: float) -> None:
        self.began, self.span = began, span

    def at(self, time: float) -> float:
        return min(max((time - self.began) / self.span, 0.0), 1.0) * 100


def _lane(name: str, number: int) -> Html:
    y = _TOP + number * _LANE
    line = element("line", x1="0", x2="100%", y1=y + _LANE - 3, y2=y + _LANE - 3, class_="lane")
    return element("g", line, element("text", name, x="0", y=y + 11))


def _bar(stay: Stay, lane: int, scale: _Scale) -> Html:
    x, end = scale.at(stay.began), scale.at(stay.ended)
    title = element("title", f"{stay.state}: {in_two_units(stay.ended - stay.began)}")
    y = _TOP + lane * _LANE + 16
    # A stay of no time, such as the end, is drawn all the same: as a line that stays within the picture.
    return element(
        "svg",
        element("rect", title, width="100%", height=_BAR, rx="2", class_=f"bar {stay.state}"),
        x=f"{min(x, 99.4):.3f}%",
        y=y,
        width=f"{max(end - x, 0.6):.3f}%",
        height=_BAR,
    )


def _dots(report: Report, y: int, scale: _Scale) -> Iterator[Html]:
    for event in [each for each in report.events if each["applied"]][:_MOST_DOTS]:
        title = element("title", f"{event['kind']} ({event['source']})")
        x = min(max(scale.at(since_1970(event["received_at"])), 0.5), 99.5)
        yield element("circle", title, cx=f"{x:.3f}%", cy=y, r="3", class_="dot")


def _axis(y: int, scale: _Scale) -> Iterator[Html]:
    for number in range(_TICKS + 1):
        anchor = {0: "start", _TICKS: "end"}.get(number, "middle")
        text = in_two_units(scale.span * number / _TICKS) if number else "0"
        x = f"{100 * number / _TICKS:g}%"
        yield element("text", text, x=x, y=y + 14, text_anchor=anchor, class_="tick")
