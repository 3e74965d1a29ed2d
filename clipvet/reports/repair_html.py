"""A repair as one HTML page that needs no network and no script."""

from __future__ import annotations

import clipvet
from clipvet.reports import repair_view
from clipvet.reports.html import named_values, template
from clipvet.types import RepairReport

__all__ = ["to_html"]


def to_html(report: RepairReport) -> str:
    """Return the report as one HTML document with inline style and without scripts."""
    return template("repair.html.j2").render(
        report=report,
        version=clipvet.__version__,
        headline=repair_view.headline(report),
        tone="no-evidence" if report.succeeded else "backdoored",
        mark="–" if report.succeeded else "✕",
        caution=repair_view.CAUTION,
        headings=repair_view.HEADINGS,
        rows=repair_view.rows(report),
        settings=named_values(report.settings),
        exit_meaning="" if report.exit_code is None else repair_view.EXIT_MEANING.get(report.exit_code, ""),
    )
