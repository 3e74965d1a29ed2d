"""The report as one HTML page that needs no network: what the template shows is prepared here, the template only places it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

import clipvet
from clipvet.reports import view
from clipvet.reports.chart import Chart, chart_of
from clipvet.reports.images import describe_trigger, trigger_png
from clipvet.reports.taxonomy import entry
from clipvet.reports.text import bytes_text, duration, label, named, number, value_text, visible
from clipvet.types import CheckResult, Evidence, Report, Verdict

__all__ = ["MARKS", "named_values", "template", "to_html", "tone"]

_IMAGE_LIMIT = 4  # pictures are most of the page's weight
_OPEN_ROWS = 50  # longer lists are folded behind this many rows
MARKS = {Verdict.NO_EVIDENCE: "–", Verdict.INCONCLUSIVE: "?", Verdict.SUSPICIOUS: "!", Verdict.BACKDOORED: "✕"}


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A check's targets as text, row by row, with the names of the columns of numbers between target and null."""

    check: str
    columns: list[str]
    rows: list[list[str]]
    marked: list[bool]
    chart: Chart | None
    control: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    cost: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A reconstructed trigger, as data URIs, with the words beside it."""

    target: str
    kind: str
    words: str
    numbers: list[tuple[str, str]]
    trigger: str
    applied: str


def to_html(report: Report) -> str:
    """Return the report as one HTML document with inline style, drawings and pictures, and without scripts."""
    return template("report.html.j2").render(
        report=report,
        version=clipvet.__version__,
        mark=MARKS[report.verdict],
        tone=tone(report.verdict),
        meaning=view.MEANING[report.verdict],
        certainty=view.certainty(report),
        tried=view.tried(report),
        next_steps=view.next_steps(report),
        skipped=view.skipped(report),
        findings=sorted(report.findings, key=lambda item: -item.severity),
        severity_names=view.SEVERITY_NAMES,
        taxonomy=_taxonomy(report),
        pictures=[_picture(check, row) for check, _, row in view.shown_rows(report)[:_IMAGE_LIMIT]],
        tables=[_table(report, check) for check in report.checks],
        nulls=report.nulls,
        settings=named_values(report.settings),
        exit_meaning="" if report.exit_code is None else view.EXIT_MEANING.get(report.exit_code, ""),
        open_rows=_OPEN_ROWS,
    )


def tone(verdict: Verdict) -> str:
    """Return the name that the style sheet has for a verdict."""
    return verdict.name.lower().replace("_", "-")


@cache
def template(name: str) -> jinja2.Template:
    """Return a page's template. Every plain string that it places is escaped and made visible; only markup stays as it is."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clipvet.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is placed on the page is text from a delivery until shown otherwise.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters.update(bytes_text=bytes_text, duration=duration, number=number, thousands="{:,}".format)
    return environment.get_template(name)


def _table(report: Report, check: CheckResult) -> _Table:
    rows = view.ranked(check.targets)
    names = view.value_names(rows)
    null = view.null_values(report, check)
    return _Table(
        check=check.check,
        columns=["statistic", *(label(name) for name in names)],
        rows=[_cells(row, names, null) for row in rows],
        marked=[view.above(report, check, row) for row in rows],
        chart=chart_of(report, check),
        control=[(label(name), value_text(name, value)) for name, value in check.control.items()],
        settings=named_values(check.settings),
        cost=[(label(name), number(value)) for name, value in check.cost.items()],
    )


def _cells(row: Evidence, names: list[str], null: tuple[float, ...]) -> list[str]:
    numbers = [number(row.statistic), *(value_text(name, row.values.get(name)) for name in names)]
    return [named(row.target), row.trigger_kind, *numbers, view.null_position(row.statistic, null)]


def _picture(check: str, row: Evidence) -> _Picture:
    files = {name: "data:image/png;base64," + base64.b64encode(content).decode() for name, content in trigger_png(row).items()}
    values = [(label(name), value_text(name, row.values[name])) for name in view.value_names([row])]
    return _Picture(
        target=named(row.target),
        kind=row.trigger_kind or check,
        words=describe_trigger(row),
        numbers=[("statistic", number(row.statistic)), *values],
        trigger=files.get("trigger", ""),
        applied=files.get("applied", ""),
    )


def named_values(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings as text; what is nested, as JSON."""
    return [
        (str(name), value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))
        for name, value in settings.items()
    ]


def _taxonomy(report: Report) -> list[Any]:
    return [entry(key) for key in dict.fromkeys(key for finding in report.findings for key in (*finding.atlas, *finding.owasp))]
