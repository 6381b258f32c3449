"""HTML elements and Markdown from texts that others wrote: the one place where these are made harmless.

Not what a page holds. A `str` is text and is escaped; only `Html` is taken as it is, and only `element`,
`raw` and `joined` make one.
"""

import html
import re
from collections.abc import Iterable

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
"""What a terminal takes for a command: CSI, OSC, the other strings, two or more characters (ECMA-48)."""
_VOID = frozenset({"br", "circle", "col", "line", "link", "meta", "rect"})
"""Elements that we use without content; SVG's are closed at once."""
_NEWLINES = re.compile(r"\r+\n|\r")


class Html(str):
    """HTML, escaped where it has to be."""

    __slots__ = ()


Content = str | None | Iterable["Content"]
"""What stands in an element: a text, HTML, nothing, or several of these."""


def without_escapes(text: str) -> str:
    """Return a text without the escape sequences that a terminal takes for commands."""
    return _ESCAPES.sub("", text)


def visible(text: str) -> str:
    """Return a text of any lines without what drives a terminal or turns the reading direction.

    Other control characters, and signs that change the order of what is read (Unicode's bidirectional ones),
    are shown as their code points.
    """
    plain = _NEWLINES.sub("\n", without_escapes(text))
    return "".join(char if char in "\n\t" or _is_shown(char) else _code_point(char) for char in plain)


def _is_shown(char: str) -> bool:
    return char.isprintable() or (char.isspace() and ord(char) > 0x9F and char not in "\u2028\u2029")


def _code_point(char: str) -> str:
    return "\ufffd" if "\ud800" <= char <= "\udfff" else f"<U+{ord(char):04X}>"


def one_line(text: str, limit: int = 300) -> str:
    """Return a text as one line of at most so many characters."""
    line = " ".join(visible(text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]} …"


def element(name: str, /, *content: Content, **attributes: object) -> Html:
    """Return an element. `_` in an attribute's name is `-`, one at its end nothing; None leaves it out."""
    given = "".join(_attribute(each, value) for each, value in attributes.items() if value is not None)
    inner = joined(*content)
    if name in _VOID and not inner:
        return Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{inner}</{name}>")


def joined(*content: Content) -> Html:
    """Return the contents one after the other, as HTML."""
    return Html("".join(map(_escaped, content)))


def raw(trusted: str) -> Html:
    """Take a text of our own files as HTML."""
    return Html(trusted)


def _attribute(name: str, value: object) -> str:
    return f' {name.rstrip("_").replace("_", "-")}="{html.escape(visible(str(value)))}"'


def _escaped(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Html):
        return content
    return html.escape(visible(content), quote=False) if isinstance(content, str) else joined(*content)


def fenced(text: str, language: str = "") -> str:
    """Return a text as a fenced block of Markdown that nothing in it can end."""
    shown = visible(text).rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}{language}\n{shown}\n{fence}\n"


def code(text: str, limit: int = 300) -> str:
    """Return a text as one code span of Markdown, also for the cell of a table."""
    line = one_line(text, limit).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line[:1] in {"`", " "} or line[-1:] in {"`", "\\"} else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""
