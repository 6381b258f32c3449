"""Small parts of the full screen of `watch`: a line of text, the keys, a question, a line to type.

None knows jobs; all text they show is plain, without markup.
"""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static
from typing_extensions import override


class Text(Static):
    """Plain text; lines that are too long are cut."""

    DEFAULT_CSS = "Text { text-wrap: nowrap; text-overflow: ellipsis; height: auto; }"

    def __init__(self, text: str = "", *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(Content(text), id=id, markup=False)
        self.said = text

    def say(self, text: str) -> None:
        """Show another text."""
        if text != self.said:
            self.said = text
            self.update(Content(text))


class Keys(Widget):
    """The keys and what they do, in as many lines as the width asks for."""

    DEFAULT_CSS = "Keys { height: auto; dock: bottom; }"

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    @override
    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))

    @override
    def render(self) -> Content:
        return Content("\n").join(self._lines(self.size.width))

    def _lines(self, width: int) -> list[Content]:
        """Lay the keys out; none is parted from what it does."""
        lines = [Content()]
        for key, does in self._keys:
            part = Content.assemble((key, "bold"), f" {does}")
            joined = Content("  ").join((lines[-1], part)) if lines[-1] else part
            if joined.cell_length <= width:
                lines[-1] = joined
            else:
                lines.append(part)
        return lines


class Ask(ModalScreen[bool]):
    """A question that y answers with yes, and n or Esc with no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", show=False),
        Binding("n,escape,q", "dismiss(False)", show=False),
    ]

    def __init__(self, question: str, details: str = "") -> None:
        super().__init__()
        self._question = question
        self._details = details

    def compose(self) -> ComposeResult:
        """Make the box."""
        with Vertical(classes="box"):
            yield Static(Content.styled(self._question, "bold"), markup=False)
            if self._details:
                yield Static(Content(self._details), markup=False, classes="details")
            yield Static(Content("y yes    n no"), markup=False)


class Line(ModalScreen[str | None]):
    """A line to type: Enter gives it, Esc gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self, question: str, details: str = "", *, may_be_empty: bool = False) -> None:
        super().__init__()
        self._question = question
        self._details = details
        self._may_be_empty = may_be_empty

    def compose(self) -> ComposeResult:
        """Make the box."""
        with Vertical(classes="box"):
            yield Static(Content.styled(self._question, "bold"), markup=False)
            if self._details:
                yield Static(Content(self._details), markup=False, classes="details")
            yield Input(compact=True)
            yield Static(Content("Enter sends it    Esc goes back"), markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give what was typed."""
        if event.value.strip() or self._may_be_empty:
            self.dismiss(event.value)
