"""What goes to standard error: one sentence per problem, whatever a file's bytes put into it."""

from __future__ import annotations

import sys
import traceback

from clipvet.errors import ClipvetError
from clipvet.reports.text import visible

__all__ = ["say", "say_error"]


def say(text: str) -> None:
    """Print one line to standard error."""
    print(text, file=sys.stderr, flush=True)


def say_error(error: Exception, *, about: str = "", debug: bool = False) -> None:
    """Print an error as one sentence: what a user can mend as it is, anything else with how to report it.

    Args:
        error: what was raised.
        about: the delivery in question; left out where the sentence names it already.
        debug: print the traceback too.
    """
    if debug:
        traceback.print_exception(error)
    known = isinstance(error, ClipvetError)
    text = str(error) if known else f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = f"{about}: " if about and about not in text else ""
    if not known:
        text = f"clipvet failed in a way that it should not have ({text}); run it again with --debug and report what it prints"
    say(f"Error: {visible(place + text)}")
