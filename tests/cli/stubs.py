"""Reports that no inspection made, and a stand-in for the inspection that hands them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from clipvet import api
from clipvet.types import Coverage, DeliveryInfo, Report, Verdict

Outcome = Report | BaseException


def report(
    verdict: Verdict = Verdict.NO_EVIDENCE,
    *,
    path: str = "a",
    done: int = 10,
    errors: tuple[str, ...] = (),
    target: str | None = None,
) -> Report:
    info = DeliveryInfo(
        path=path, family="coop", base="pocket-0", class_names=("cat", "dog"), class_names_source="file", quick_gelu=False
    )
    coverage = Coverage(done=done, asked=10)
    return Report(delivery=info, verdict=verdict, summary=f"summary of {path}", coverage=coverage, errors=errors, target=target)


class Inspector:
    """Stands in for ``api.inspect_model``: gives each delivery its outcome and remembers what it was asked."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self.outcomes = outcomes
        self.calls: list[tuple[Path, api.InspectOptions]] = []

    def __call__(
        self, delivery: Path, options: api.InspectOptions, *, progress: Callable[[str, int, int], None] | None = None
    ) -> Report:
        self.calls.append((delivery, options))
        if progress is not None:
            progress("search", 0, 2)
            progress("search", 2, 2)
        outcome = self.outcomes[delivery.name]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
