"""What is to be inspected: the deliveries that were named, and those in folders that are none themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvet.cli.messages import say
from clipvet.reports.text import shorten, visible
from clipvet.types import Skipped

__all__ = ["Given", "given_deliveries"]

_NAMED = 5  # entries passed over that are named; the summary has them all


@dataclass(frozen=True, kw_only=True)
class Given:
    """Deliveries in order.

    Attributes:
        paths: of the deliveries.
        labels: what their folders of reports are named after; empty where no folder was looked through.
        passed_over: what lay in the folders and is no delivery.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    passed_over: tuple[Skipped, ...] = ()

    @property
    def several(self) -> bool:
        """Whether there is a summary to make."""
        return len(self.paths) > 1 or bool(self.labels)


def given_deliveries(named: Sequence[Path], *, without: Path | None) -> Given:
    """Put in the place of each folder that is no delivery itself those that lie in it, and say what was taken.

    Args:
        named: the arguments.
        without: the folder for reports, in which there are none.

    Raises:
        UnreadableError: a folder cannot be listed, or is too large.
    """
    from clipvet.models.folders import Found, find_deliveries

    paths: list[Path] = []
    labels: list[str] = []
    passed: list[Skipped] = []
    for path in named:
        found = find_deliveries(path, without=without) if path.is_dir() else Found()
        found = found if found.deliveries else Found(deliveries=(path,))  # its error will say what was expected
        if found.deliveries != (path,) or found.passed_over:
            _say(path, len(found.deliveries), found.passed_over)
        paths += found.deliveries
        labels += [_label(delivery, path) for delivery in found.deliveries]
        passed += found.passed_over
    expanded = paths != list(named)
    return Given(paths=tuple(paths), labels=tuple(labels) if expanded else (), passed_over=tuple(passed))


def _label(delivery: Path, given: Path) -> str:
    """What tells a delivery from its neighbours: its path below the folder that was given, or its own name."""
    return delivery.name or delivery.resolve().name if delivery == given else str(delivery.relative_to(given))


def _say(folder: Path, count: int, passed: Sequence[Skipped]) -> None:
    taken = f"{count} deliver{'y' if count == 1 else 'ies'} taken"
    more = f", and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
    over = "; ".join(f"{shorten(item.what, 80)} ({shorten(item.why, 120)})" for item in passed[:_NAMED])
    say(f"{visible(str(folder))}: {taken}{f'; passed over: {over}{more}' if over else ''}")
