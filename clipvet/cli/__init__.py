"""The command line: one file per subcommand; the only code that prints, reads configuration or decides exit codes."""

from clipvet.cli.main import main

__all__ = ["main"]
