"""What `--help` shows, made from what commands declare (`cli_options`) so that it fits a terminal of 80x24.

Not what the words do, and no parsing: typer says when help is asked for.
"""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from delegate_job.cli_options import Argument, Command, Option, Parameter, Unparsed, parameters

PURPOSE = "Hand a task to an interactive coding agent and learn, by exit code, whether the work is good."
_OF_EACH = 13
"""So many commands have a line of their own in the program's help: with the rest of it they fill a screen."""
_WIDEST_NAME = 26


class Entry(NamedTuple):
    """An argument or an option as help shows it."""

    names: str
    text: str
    is_rare: bool


class Page(NamedTuple):
    """The help of one command, before it has a width."""

    usage: str
    purpose: str
    entries: tuple[Entry, ...]
    example: str


def width() -> int:
    """Return the columns that help may fill: those of the terminal, 100 at most."""
    return max(min(shutil.get_terminal_size().columns, 100), 40)


def page(name: str, command: Command) -> Page | None:
    """Return what is declared of a command; None for one that reads its words, and shows its help, itself."""
    declared = tuple(parameters(command))
    if any(isinstance(each.form, Unparsed) for each in declared):
        return None
    purpose, _, rest = (command.__doc__ or "").strip().partition("\n")
    arguments = [each.form.metavar for each in declared if isinstance(each.form, Argument)]
    return Page(
        " ".join(["delegate-job", name, "[OPTION…]", *arguments]),
        purpose,
        (*filter(None, map(_entry, declared)), Entry("-h, --help", "Show this.", is_rare=False)),
        " ".join(rest.partition("Example:")[2].split()),
    )


def _entry(parameter: Parameter) -> Entry | None:
    match parameter.form:
        case Argument(help_text, metavar):
            return Entry(metavar.strip("[]"), help_text, is_rare=False)
        case Option() as option if not option.hidden:
            return Entry(_names(parameter, option), _text(parameter, option), option.rare)
    return None


def _names(parameter: Parameter, option: Option) -> str:
    flags = [f"--[no-]{flag[2:]}" if option.deniable else flag for flag in parameter.flags]
    metavar = option.metavar or ("" if parameter.kind is bool else parameter.name.upper())
    return " ".join(filter(None, [", ".join(reversed(flags)), metavar]))


def _text(parameter: Parameter, option: Option) -> str:
    default = parameter.default
    shown = default is not None and not isinstance(default, bool) and str(default) not in option.help
    return f"{option.help} [{default}]" if shown else option.help


def of_command(name: str, command: Command, *, columns: int, whole: bool = False) -> str:
    """Return the help of a command; `whole`: with the options that are rarely needed."""
    made = page(name, command)
    if made is None:
        return _own_help(command)
    entries = [each for each in made.entries if whole or not each.is_rare]
    lines = [f"usage: {made.usage}", "", *_wrapped(made.purpose, columns), "", *_table(entries, columns)]
    if made.example:
        lines += ["", *_wrapped(f"example: {made.example}", columns, indent="  ")]
    return "\n".join(lines) + "\n"


def _own_help(command: Command) -> str:
    (form,) = (each.form for each in parameters(command))
    text: Callable[[], str] = form.help
    return text()


def _table(entries: list[Entry], columns: int) -> Iterator[str]:
    names = [each.names for each in entries if len(each.names) <= _WIDEST_NAME]
    left = max(map(len, names), default=0) + 4
    for each in entries:
        first, *more = _wrapped(each.text, columns - left) or [""]
        if len(each.names) > left - 4:
            yield f"  {each.names}"
            more.insert(0, first)
        else:
            yield f"  {each.names:<{left - 2}}{first}"
        yield from (" " * left + line for line in more)


def _wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, columns - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def of_program(commands: Mapping[str, Command], *, columns: int) -> str:
    """Return the help of the program: the commands of every day, and the names of the others."""
    names = list(commands)
    listed = [Entry(name, summary(commands[name]), is_rare=False) for name in names[:_OF_EACH]]
    return "\n".join(
        [
            "usage: delegate-job COMMAND [OPTION…]",
            "",
            *_wrapped(PURPOSE, columns),
            "",
            *_table(listed, columns),
            *_wrapped(f"  more: {', '.join(names[_OF_EACH:])}", columns, indent=" " * 8),
            "",
            *_wrapped("Each has --help. Also --version, --install-completion, --show-completion.", columns),
            'example: delegate-job submit --prompt "Fix the tests" --validate ./check.sh',
            "",
        ]
    )


def summary(command: Command) -> str:
    """Return what a command is for, in one line."""
    return re.split(r"[;:.]", (command.__doc__ or "").strip().partition("\n")[0], maxsplit=1)[0]


def show(commands: Mapping[str, Command], name: str) -> int:
    """Print all of a command's help, for `--help-all`."""
    print(of_command(name, commands[name], columns=width(), whole=True), end="")  # noqa: T201 - help goes to stdout
    return 0


def shown(text: Callable[[], str], parent: type[Any]) -> type[Any]:
    """Return typer's class of a command or a group, with this text as its help."""

    class Shown(parent):  # type: ignore[misc] # typer's class, handed in: its import is the caller's to pay
        """A command whose help is ours."""

        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Write the help."""
            del ctx
            formatter.write(text())

    return Shown
