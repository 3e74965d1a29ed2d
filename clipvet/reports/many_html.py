"""The summary of several inspections as one HTML page that needs no network, with links to the single reports."""

from __future__ import annotations

from urllib.parse import quote

import clipvet
from clipvet.reports import many_view, view
from clipvet.reports.html import MARKS, named_values, template, tone
from clipvet.reports.text import duration, named
from clipvet.types import ManyReport, ManyRow

__all__ = ["to_html"]


def to_html(report: ManyReport) -> str:
    """Return the summary as one HTML document with inline style and without scripts."""
    return template("many.html.j2").render(
        report=report,
        version=clipvet.__version__,
        headline=many_view.headline(report),
        rows=[_cells(row) for row in report.rows],
        settings=named_values(report.settings),
        exit_meaning="" if report.exit_code is None else view.EXIT_MEANING.get(report.exit_code, ""),
    )


def _cells(row: ManyRow) -> dict[str, str]:
    """One line of the table as text; ``page`` as a relative address, in which nothing but path characters is left."""
    return {
        "delivery": named(row.delivery),
        "page": quote(row.page.encode("utf-8", "surrogateescape")),
        "family": row.family,
        "base": row.base,
        "verdict": many_view.verdict_text(row),
        "mark": MARKS[row.verdict] if row.verdict is not None else "✕",
        "tone": tone(row.verdict) if row.verdict is not None else "unread",
        "target": "" if row.target is None else named(row.target),
        "against": many_view.against(row),
        "likelihood": many_view.likelihood(row),
        "seconds": duration(row.seconds),
        "error": row.error,
    }
