"""The geometry of the scores' histogram: counts on a logarithmic scale, since what matters is a few pairs among millions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from clipvet.reports.chart import round_values
from clipvet.reports.text import number
from clipvet.types import ScanReport

__all__ = ["Column", "Columns", "histogram_of"]

WIDTH, HEIGHT = 760, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 740, 26, 214  # the plot's edges
_LABEL = 60  # half the room of the threshold's label


@dataclass(frozen=True, kw_only=True)
class Column:
    """One bin of the histogram; ``above`` where the whole of it reaches the threshold."""

    x: float
    y: float
    width: float
    height: float
    title: str
    above: bool


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A drawing in user units; ``summary`` says the same in one sentence."""

    width: int
    height: int
    left: int
    right: int
    top: int
    floor: int
    columns: tuple[Column, ...]
    scores: tuple[tuple[float, str], ...]
    counts: tuple[tuple[float, str], ...]
    threshold: float | None
    threshold_text: str
    anchor: str
    summary: str


def histogram_of(report: ScanReport) -> Columns | None:
    """Return the drawing of the report's histogram, or None where there is none that can be drawn."""
    bins = _bins(report)
    if not bins:
        return None
    threshold = report.threshold.value if report.threshold is not None and math.isfinite(report.threshold.value) else None
    ends = [bins[0][0], bins[-1][1], *([] if threshold is None else [threshold])]
    low, high, top = min(ends), max(ends), max(count for _, _, count in bins)

    def across(score: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (score - low) / (high - low), 2)

    def up(count: int) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * math.log10(1 + count) / math.log10(1 + top), 2)

    return Columns(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        floor=_BOTTOM,
        columns=tuple(
            Column(
                x=across(start),
                y=up(count),
                width=max(round(across(end) - across(start), 2) - 0.5, 0.5),
                height=round(_BOTTOM - up(count), 2),
                title=f"{count:,} pairs from {number(start)} to {number(end)}",
                above=threshold is not None and start >= threshold,
            )
            for start, end, count in bins
            if count
        ),
        scores=tuple((across(value), f"{value:g}".replace("-", "−")) for value in round_values(low, high)),
        counts=tuple((up(10**power), f"{10**power:,}") for power in range(math.floor(math.log10(top)) + 1)),
        threshold=None if threshold is None else across(threshold),
        threshold_text="" if threshold is None else f"threshold {number(threshold)}",
        anchor="middle" if threshold is None else _anchor(across(threshold)),
        summary=_summary(report, bins, threshold),
    )


def _bins(report: ScanReport) -> list[tuple[float, float, int]]:
    """Return (start, end, count) of every bin, or nothing where the numbers make no histogram."""
    if report.histogram is None:
        return []
    edges, counts = report.histogram.edges, report.histogram.counts
    rising = all(start < end for start, end in itertools.pairwise(edges)) and math.isfinite(sum(map(abs, edges)))
    usable = len(edges) == len(counts) + 1 and rising and min(counts, default=0) >= 0 and any(counts)
    return list(zip(edges[:-1], edges[1:], counts, strict=True)) if usable else []


def _anchor(x: float) -> str:
    """Return how a label at x is set so that it stays inside the plot."""
    return "start" if x < _LEFT + _LABEL else "end" if x > _RIGHT - _LABEL else "middle"


def _summary(report: ScanReport, bins: list[tuple[float, float, int]], threshold: float | None) -> str:
    total = sum(count for _, _, count in bins)
    filled = [(start, end) for start, end, count in bins if count]
    text = f"{total:,} scores from {number(filled[0][0])} to {number(filled[-1][1])}"
    if threshold is None:
        return f"{text}; there is no threshold."
    return f"{text}; {report.counts.flagged:,} reach the threshold of {number(threshold)}."
