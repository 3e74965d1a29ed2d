"""The application: subcommands, global options, and how every error ends in one sentence and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

import clipvet
from clipvet.cli import attack, bench, calibrate, demo, diff, doctor, explain, filtering, inspect, listing, repair, scan
from clipvet.cli.messages import say, say_error

__all__ = ["app", "main"]

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="clipvet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect", epilog=inspect.EPILOG)(inspect.inspect)
app.command("calibrate", epilog=calibrate.EPILOG)(calibrate.calibrate)
app.command("scan", epilog=scan.EPILOG)(scan.scan)
app.command("repair", epilog=repair.EPILOG)(repair.repair)
app.command("filter", epilog=filtering.EPILOG)(filtering.filter_pairs)
app.command("diff", epilog=diff.EPILOG)(diff.diff)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("attack", epilog=attack.EPILOG)(attack.attack)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.command("list", epilog=listing.EPILOG)(listing.list_methods)
app.command("explain", epilog=explain.EPILOG)(explain.explain)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"clipvet {clipvet.__version__}")
        raise typer.Exit


@app.callback()
def _clipvet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Vet CLIP models, prompts and training pairs for backdoors before you trust them.

    Exit codes: 0 no verdict at or above --fail-on; 1 such a verdict; 2 usage error, or something could not be read;
    3 inconclusive, or coverage below --min-coverage; 130 after Ctrl-C.
    """


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; nothing that a user can cause ends in a traceback.

    Args:
        argv: the arguments behind the program's name; None takes those of the process.
    """
    arguments, debug = _take_debug(sys.argv[1:] if argv is None else argv)
    try:
        code = app(arguments, prog_name="clipvet", standalone_mode=False, obj={"debug": debug})
    except TyperException as error:
        say(f"Error: {error.format_message()}")
        say("Try 'clipvet --help', or 'clipvet COMMAND --help'.")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:  # the last line of defence: one sentence instead of a traceback
        say_error(error, debug=debug)
        return USAGE
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code without a word
        say("Interrupted.")
    return code if isinstance(code, int) else 0


def _take_debug(argv: list[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of the options, wherever it stands before a bare ``--``."""
    end = argv.index("--") if "--" in argv else len(argv)
    kept = [argument for argument in argv[:end] if argument != "--debug"]
    return [*kept, *argv[end:]], len(kept) < end
