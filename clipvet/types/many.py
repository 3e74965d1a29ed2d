"""The nouns of several inspections in one call: a row for each delivery, and the summary report over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipvet.types.common import Coverage, Skipped, Verdict

__all__ = ["ManyReport", "ManyRow"]


@dataclass(frozen=True, kw_only=True)
class ManyRow:
    """What one delivery came to: the row of its report, or the sentence that says why there is none.

    ``verdict`` is None and ``error`` a sentence where there is no report. ``statistic`` is that of ``check``, ``threshold`` the
    value at which the verdict changes. ``seconds`` is the time that the delivery took, ``exit_code`` that of its own report, and
    ``page`` the place of its HTML report, relative to the folder of the summary; empty where nothing was written.
    """

    delivery: str
    verdict: Verdict | None = None
    family: str = ""
    base: str = ""
    target: str | None = None
    check: str = ""
    statistic: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    calibrated: bool = False
    coverage: Coverage = field(default=Coverage(done=0, asked=0))
    seconds: float = 0.0
    exit_code: int | None = None
    error: str = ""
    page: str = ""


@dataclass(frozen=True, kw_only=True)
class ManyReport:
    """The summary of several inspections, rendered by ``clipvet.reports`` and by nothing else.

    ``rows`` stand in the order of the arguments. ``passed_over`` is what lay in the given folders and was taken for no delivery.
    ``coverage`` counts deliveries: those with a report over all. ``settings`` are those that all inspections share.
    """

    rows: tuple[ManyRow, ...]
    passed_over: tuple[Skipped, ...] = ()
    coverage: Coverage = field(default=Coverage(done=0, asked=0))
    exit_code: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
