"""The exception tree. The command line turns each into one sentence and exit code 2."""

__all__ = [
    "ClipvetError",
    "HostileFileError",
    "ImageError",
    "MissingExtraError",
    "UnknownLayoutError",
    "UnreadableError",
    "UnwritableError",
    "UsageError",
]


class ClipvetError(Exception):
    """Base of every error that a user can cause: one sentence, with the next step in it."""


class UsageError(ClipvetError, ValueError):
    """An argument or a configuration value is outside what is understood."""


class UnreadableError(ClipvetError):
    """A file cannot be read: missing, truncated, too large, or not what its name says."""


class UnwritableError(ClipvetError):
    """A result cannot be written: no space is left, or the folder may not be written to."""


class ImageError(UnreadableError):
    """A picture cannot be used; ``kind`` says why in a few fixed words that reasons are counted by."""

    def __init__(self, message: str, kind: str = "image cannot be decoded") -> None:
        super().__init__(message)
        self.kind = kind


class HostileFileError(UnreadableError):
    """A file was refused because reading it would exceed a limit or run code."""


class UnknownLayoutError(ClipvetError):
    """A file was read, but its tensors match no layout that is understood."""


class MissingExtraError(ClipvetError, ImportError):
    """An optional package is needed; the message names the pip extra."""
