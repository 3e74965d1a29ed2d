"""The exception tree. The command line turns each into one sentence and exit code 2."""

__all__ = [
    "ClipvetError",
    "HostileFileError",
    "MissingExtraError",
    "UnknownLayoutError",
    "UnreadableError",
    "UsageError",
]


class ClipvetError(Exception):
    """Base of every error that a user can cause: one sentence, with the next step in it."""


class UsageError(ClipvetError, ValueError):
    """An argument or a configuration value is outside what is understood."""


class UnreadableError(ClipvetError):
    """A file cannot be read: missing, truncated, too large, or not what its name says."""


class HostileFileError(UnreadableError):
    """A file was refused because reading it would exceed a limit or run code."""


class UnknownLayoutError(ClipvetError):
    """A file was read, but its tensors match no layout that is understood."""


class MissingExtraError(ClipvetError, ImportError):
    """An optional package is needed; the message names the pip extra."""
