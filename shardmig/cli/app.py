"""The typer application: every command, and what happens around them. Imports no vendor, no arrow, no numpy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from shardmig import __version__
from shardmig.cli import audit, copying, looking, models, moving, shards
from shardmig.cli.exits import MEANINGS, ExitCode
from shardmig.cli.flags import SpeechFlags
from shardmig.cli.groups import grouped
from shardmig.cli.speech import Speech, refuse, spoken
from shardmig.errors import UsageError

_EXIT_CODES: Final = "\n".join(f"{int(code)}: {meaning}" for code, meaning in MEANINGS.items())

app: Final = typer.Typer(
    name="shardmig",
    help="Moves experiment history between trackers, in parallel, whole, and proves that it arrived.",
    epilog=f"\b\nExit codes:\n{_EXIT_CODES}",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

_COMMANDS: Final[tuple[Callable[..., int], ...]] = (
    moving.plan,
    moving.export,
    models.export_models,
    moving.load,
    moving.migrate,
    moving.verify,
    audit.audit,
    looking.status,
    moving.retry,
    shards.execute_shard,
    shards.collect,
    looking.summary,
    looking.ls,
    looking.show,
)
for _command in _COMMANDS:
    app.command()(grouped(spoken(_command)))

_copy: Final = typer.Typer(help="Copy from one MLflow into another.", rich_markup_mode=None)
for _name, _copier in copying.COMMANDS.items():
    _copy.command(_name)(grouped(spoken(_copier)))
app.add_typer(_copy, name="copy")


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"shardmig {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Moves experiment history between trackers, in parallel, whole, and proves that it arrived."""


def execute(arguments: Sequence[str]) -> int:
    """Execute one command line; returns the exit code. Never raises, save SystemExit of the interpreter."""
    for stream in (sys.stdout, sys.stderr):
        _escape_unwritable(stream)
    try:
        ended = typer.main.get_command(app).main(
            list(arguments) or ["--help"], prog_name="shardmig", standalone_mode=False
        )
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        wrong = UsageError(message, hint="see `shardmig --help` and `shardmig COMMAND --help`")
        return refuse(Speech(SpeechFlags(as_json="--json" in arguments)), wrong)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERNAL
    return int(ended or 0)


def _escape_unwritable(stream: Any) -> None:
    """A name that the terminal's encoding lacks is escaped instead of ending the command."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
