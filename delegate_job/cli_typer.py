"""The command line as typer sees it: help, mistakes, completion, and every line that is not plain.

Made from the declarations in the modules `cli_*`; what a command does is not here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from delegate_job import cli_help
from delegate_job.cli_options import (
    COMPLETION,
    Argument,
    Command,
    Option,
    Parameter,
    Unparsed,
    parameters,
    spelled_out,
)
from delegate_job.errors import UsageError
from delegate_job.exit_codes import ExitCode

_UNPARSED: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}


def main(commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    """Run the command that `argv` (without the program) names; return its exit code."""
    if not argv and COMPLETION not in os.environ:
        print(cli_help.of_program(commands, columns=cli_help.width()), end="")  # noqa: T201 - help goes to stdout
        return ExitCode.USAGE
    try:
        code = make_app(commands)(
            args=_spelled_out(commands, argv), prog_name="delegate-job", standalone_mode=False
        )
    except Exception as error:
        # The parser's own errors, whichever click typer carries: they know their message and their code.
        if not hasattr(error, "format_message"):
            raise
        raise _told(error) from None
    return int(code or 0)


def _spelled_out(commands: Mapping[str, Command], argv: Sequence[str]) -> list[str]:
    if not argv or argv[0] not in commands:
        return list(argv)
    return [argv[0], *spelled_out(tuple(parameters(commands[argv[0]])), argv[1:])]


def make_app(commands: Mapping[str, Command]) -> typer.Typer:
    """Return the commands as an app of typer."""
    app = typer.Typer(
        name="delegate-job",
        help=cli_help.PURPOSE,
        cls=cli_help.shown(lambda: cli_help.of_program(commands, columns=cli_help.width()), TyperGroup),
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, command in commands.items():
        declared = tuple(parameters(command))
        unparsed = next((each.form for each in declared if isinstance(each.form, Unparsed)), None)
        if unparsed is not None and COMPLETION in os.environ:
            app.command(name)(_annotated(unparsed.like, tuple(parameters(unparsed.like))))
        elif unparsed is not None:
            app.command(name, add_help_option=False, context_settings=_UNPARSED)(_handing_on(command))
        else:
            app.command(name, cls=_shown(name, command))(_annotated(command, declared))
    return app


def _shown(name: str, command: Command) -> type[TyperCommand]:
    def text() -> str:
        return cli_help.of_command(name, command, columns=cli_help.width())

    return cli_help.shown(text, TyperCommand)


def _annotated(command: Callable[..., Any], declared: Sequence[Parameter]) -> Callable[..., Any]:
    """Return the command with annotations that typer understands."""
    copy = FunctionType(
        command.__code__,
        command.__globals__,
        command.__name__,
        command.__defaults__,
    )
    copy.__doc__ = command.__doc__
    copy.__annotations__ = {
        each.name: Annotated[command.__annotations__[each.name].__origin__, _form(each)] for each in declared
    }
    return copy


def _form(parameter: Parameter) -> Any:
    match parameter.form:
        case Argument(help_text, metavar, completes):
            return typer.Argument(
                metavar=metavar, help=help_text, show_default=False, autocompletion=_completed(completes)
            )
        case Option() as option:
            return typer.Option(
                *_declarations(parameter),
                metavar=option.metavar,
                help=option.help,
                min=option.minimum,
                max=option.maximum,
                hidden=option.hidden,
                autocompletion=_completed(option.completes),
            )
    raise TypeError(f"{parameter.name} is neither an option nor an argument")


def _completed(what: str | None) -> Callable[[typer.Context, str], list[tuple[str, str]]] | None:
    if what is None:
        return None

    def words(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from delegate_job import completion

        return [(*word,) for word in completion.words(what, incomplete, ctx.params.get("registry_dir"))]

    return words


def _declarations(parameter: Parameter) -> tuple[str, ...]:
    if not parameter.denials:
        return parameter.flags
    return tuple(map("/".join, zip(parameter.flags, parameter.denials, strict=True)))


def _handing_on(command: Command) -> Command:
    def run(context: typer.Context) -> int:
        return command(context.args)

    run.__doc__ = command.__doc__
    return run


def _told(error: Any) -> Exception:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "delegate-job"
    return UsageError(message[:1].lower() + message[1:], hint=f"see `{command} --help`")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's form of a callback
    if wanted:
        from delegate_job import __version__

        print(f"delegate-job {__version__}")  # noqa: T201 - data on stdout
        raise typer.Exit


def _options(
    version: Annotated[  # Its callback has acted before a command is missed.
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Hand a task to an interactive coding agent and learn, by exit code, whether the work is good."""
