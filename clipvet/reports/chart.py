"""The geometry of the chart: the null on top, this delivery's targets as bars below, on one axis. The template draws it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipvet.reports import view
from clipvet.reports.text import named, number, shorten
from clipvet.types import CheckResult, Report

__all__ = ["Bar", "Chart", "Dot", "chart_of", "round_values"]

WIDTH = 760
_LEFT = 200  # room for names
_RIGHT = 70  # room for numbers
_LANE = 46  # height of the null's lane
_TOP = 22
_ROW = 19
_NAME = 23  # columns that fit to the left
_DOT = 5.0  # diameter and distance of a dot
_LIMIT = 50


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One reference delivery."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One target: its bar from the axis' zero (or its end) to its statistic."""

    x: float
    y: float
    width: float
    end: float
    name: str
    title: str
    value: str
    above: bool


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing in user units; ``summary`` says the same in one sentence."""

    width: int
    height: float
    left: float
    right: float
    dots: tuple[Dot, ...]
    lane: float
    bars: tuple[Bar, ...]
    zero: float
    ticks: tuple[tuple[float, str], ...]
    threshold: float | None
    threshold_text: str
    summary: str


def chart_of(report: Report, check: CheckResult) -> Chart | None:
    """Return the chart of the strongest 50 targets of a check, or None where no target has a finite statistic."""
    rows = [row for row in view.strongest(check.targets) if math.isfinite(row.statistic)][:_LIMIT]
    if not rows:
        return None
    null = view.null_values(report, check)
    threshold = report.thresholds.get(check.check)
    threshold = threshold if threshold is not None and math.isfinite(threshold) else None
    scale = _Scale.over([*(row.statistic for row in rows), *null, 0.0, *([] if threshold is None else [threshold])])
    lane = _LANE if null else 0
    bars = tuple(
        Bar(
            x=min(scale(row.statistic), scale(0.0)),
            y=_TOP + lane + _ROW * place,
            width=max(abs(scale(row.statistic) - scale(0.0)), 1.0),
            end=max(scale(row.statistic), scale(0.0)),
            name=shorten(row.target, _NAME),
            title=named(row.target),
            value=number(row.statistic),
            above=view.above(report, check, row),
        )
        for place, row in enumerate(rows)
    )
    return Chart(
        width=WIDTH,
        height=_TOP + lane + _ROW * len(bars) + 26,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        dots=tuple(_stacked((scale(value) for value in null), _TOP + lane - 8)),
        lane=_TOP + lane,
        bars=bars,
        zero=scale(0.0),
        ticks=tuple((scale(value), f"{value:g}".replace("-", "−")) for value in round_values(scale.low, scale.high)),
        threshold=None if threshold is None else scale(threshold),
        threshold_text="" if threshold is None else f"threshold {number(threshold)}",
        summary=_summary(rows[0].target, rows[0].statistic, null, threshold),
    )


@dataclass(frozen=True)
class _Scale:
    """A linear map of [low, high] on the plot's width."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        return cls(low, high if high > low else low + 1.0)

    def __call__(self, value: float) -> float:
        return round(_LEFT + (WIDTH - _RIGHT - _LEFT) * (value - self.low) / (self.high - self.low), 2)


def _stacked(positions: Iterable[float], floor: float) -> Iterable[Dot]:
    """Yield dots on a grid, those of one column on top of each other, pressed together where they would leave the lane."""
    columns: dict[int, int] = {}
    for position in positions:
        column = round(position / _DOT)
        columns[column] = columns.get(column, 0) + 1
    step = min(_DOT, (_LANE - 12) / max(columns.values(), default=1))
    for column, count in sorted(columns.items()):
        for place in range(count):
            yield Dot(x=column * _DOT, y=round(floor - place * step, 2))


def _summary(target: str, statistic: float, null: Sequence[float], threshold: float | None) -> str:
    parts = [f"The highest statistic is {number(statistic)}, for {named(target)}"]
    if null:
        parts.append(f"{view.null_position(statistic, null)} reference deliveries lie below it, the highest at {number(max(null))}")
    if threshold is not None:
        parts.append(f"the threshold is {number(threshold)}")
    return "; ".join(parts) + "."


def round_values(low: float, high: float) -> list[float]:
    """Return some three to eight round values from ``low`` to ``high``, for the ticks of an axis."""
    raw = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
