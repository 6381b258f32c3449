"""What a command line may hold, and how a plain one is read without a parser library.

typer (`cli_typer`) is made from the same declarations and has the last word on help, mistakes and completion.
To import and make it takes as long as all else before an agent's start, so a line that is plainly right is
read here. Nothing is explained here: what is not plain is typer's.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import EnumType
from functools import partial
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args

from delegate_job.errors import UsageError

Command = Callable[..., int]
"""A function of the options and arguments that its annotations declare; it returns an exit code."""

COMPLETION = "_DELEGATE_JOB_COMPLETE"
"""The variable by which a shell asks for completions: `_PROG_COMPLETE`, as click has it."""


class Option(NamedTuple):
    """An option, in an `Annotated`. `flags`: `--` and the parameter's name unless given otherwise."""

    help: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    hidden: bool = False
    deniable: bool = False
    """A flag that may also be given as `--no-…`, which says no; not given, it is None."""
    completes: str | None = None
    """The kind of words (of `completion`) that a shell offers for it."""
    optional: bool = False
    """Its value may be left out, which says the empty text."""
    rare: bool = False
    """Left to `--help-all`, so that help fits a screen."""


class Argument(NamedTuple):
    """A positional argument, in an `Annotated`; of a list, all that are left."""

    help: str
    metavar: str
    completes: str | None = None
    """As in `Option`."""


class Unparsed(NamedTuple):
    """The command reads all its words itself."""

    like: Callable[..., None]
    """Declares what it takes, for a shell that asks; it is never called."""
    help: Callable[[], str]


RegistryDir = Annotated[str | None, Option("Where jobs are kept.", "DIR")]
AsJson = Annotated[bool, Option("Print JSON for programs.", flags=("--json",))]
JobId = Annotated[str, Argument("A job's id, its beginning, or @last.", "ID", "job")]
LiveJobId = Annotated[str, Argument("A job's id, its beginning, or @last.", "ID", "live job")]
DoneJobId = Annotated[str, Argument("A job's id, its beginning, or @last.", "ID", "done job")]
JobOption = Annotated[str | None, Option("The same as ID.", "ID", completes="job")]


def one_job(job_id: str | None, job: str | None) -> str:
    """Return the one job that is named, as an argument or by `--job`; UsageError otherwise."""
    if (job_id is None) == (job is None):
        raise UsageError("name one job", hint="its id, the beginning of it, or @last")
    return job_id or job or ""


class Parameter(NamedTuple):
    """A parameter of a command: the type of its value (of a list's elements), and how it is given."""

    name: str
    kind: Any
    form: Any
    is_list: bool
    is_required: bool
    default: Any = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The words that name it; none for an argument."""
        if not isinstance(self.form, Option):
            return ()
        return self.form.flags or (f"--{self.name.replace('_', '-')}",)

    @property
    def denials(self) -> tuple[str, ...]:
        """The words that say no to it."""
        is_deniable = isinstance(self.form, Option) and self.form.deniable
        return tuple(f"--no-{flag[2:]}" for flag in self.flags) if is_deniable else ()


class _NotPlainError(Exception):
    """This line is typer's to read."""


def parameters(command: Callable[..., Any]) -> Iterator[Parameter]:
    """Yield what a command's annotations declare, in their order."""
    code = command.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = command.__defaults__ or ()
    required = len(names) - len(defaults)
    for number, name in enumerate(names):
        hint = command.__annotations__[name]
        kind = next((each for each in get_args(hint.__origin__) if each is not NoneType), hint.__origin__)
        is_list = list in {getattr(kind, "__origin__", None), getattr(hint.__origin__, "__origin__", None)}
        element = next(iter(get_args(kind)), kind) if is_list else kind
        default = None if number < required else defaults[number - required]
        yield Parameter(name, element, hint.__metadata__[0], is_list, number < required, default)


def read(commands: Mapping[str, Command], argv: Sequence[str]) -> Callable[[], int] | None:
    """Return what a plain command line asks for, ready to be called; None when typer has to read it."""
    if not argv or argv[0] not in commands or COMPLETION in os.environ:
        return None
    command = commands[argv[0]]
    try:
        declared = tuple(parameters(command))
        return partial(command, **_arguments(declared, spelled_out(declared, argv[1:])))
    except _NotPlainError:
        return None


def spelled_out(declared: Sequence[Parameter], words: Sequence[str]) -> list[str]:
    """Return the words with `=` behind each option whose value is optional and was left out.

    It was where the next word begins with `-` and is not `-` alone, as click has it; typer knows no such
    options, and reads what is returned.
    """
    valued = {flag: each.form.optional for each in declared for flag in each.flags if each.kind is not bool}
    told = list[str]()
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        if valued.get(word) and (not rest or (rest[0][:1] == "-" and rest[0] != "-")):
            told.append(f"{word}=")
            continue
        told.append(word)
        if word in valued and rest:
            told.append(rest.pop(0))
    return told + rest


def _arguments(declared: tuple[Parameter, ...], words: Sequence[str]) -> dict[str, Any]:
    by_flag = {flag: parameter for parameter in declared for flag in (*parameter.flags, *parameter.denials)}
    given: dict[str, Any] = {}
    loose: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            loose.extend(rest)
        elif word[:1] == "-" and word != "-":
            flag, equals, value = word.partition("=")
            if flag not in by_flag:
                raise _NotPlainError
            given[by_flag[flag].name] = _value(by_flag[flag], flag, value if equals else None, rest)
        else:
            loose.append(word)
    return given | _positional([each for each in declared if not each.flags], loose)


def _value(parameter: Parameter, flag: str, attached: str | None, rest: Iterator[str]) -> Any:
    if parameter.kind is bool:
        if attached is not None:
            raise _NotPlainError
        return flag not in parameter.denials
    # The next word, whatever it begins with.
    text = next(rest, None) if attached is None else attached
    if text is None:
        raise _NotPlainError
    return _converted(parameter, text)


def _converted(parameter: Parameter, text: str) -> Any:
    kind, form = parameter.kind, parameter.form
    if kind is str:
        return text
    if isinstance(kind, EnumType):
        return _member(kind, text)
    if kind not in {int, float}:
        return kind(text)
    if not (text.isascii() and text.isdigit()):
        raise _NotPlainError
    number = kind(text)
    if number < (form.minimum or 0) or (form.maximum is not None and number > form.maximum):
        raise _NotPlainError
    return number


def _member(kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise _NotPlainError from None


def _positional(declared: list[Parameter], words: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for parameter in declared:
        if parameter.is_list:
            if words:
                given[parameter.name] = words
            words = []
        elif words:
            given[parameter.name] = _converted(parameter, words[0])
            words = words[1:]
        elif parameter.is_required:
            raise _NotPlainError
    if words:
        raise _NotPlainError
    return given
