"""The scan as one HTML page that needs no network and no script: what the template shows is prepared here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup

import clipvet
from clipvet.reports import scan_view
from clipvet.reports.histogram import histogram_of
from clipvet.reports.html import MARKS, named_values, template, tone
from clipvet.reports.taxonomy import entry
from clipvet.reports.text import label, named, shorten
from clipvet.reports.thumbnails import data_uri
from clipvet.types import ScanReport, SuspectGroup, SuspectPair

__all__ = ["to_html"]

_ROWS = 50
_PICTURES = 8  # of a group
_PATHS = 20
_KEY, _CAPTION = 40, 160  # columns


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A suspicious group as text, with pictures of its worst members."""

    name: str
    lines: list[str]
    keys: list[str]
    pictures: list[tuple[Markup, str]]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One line of the table: what names the pair, then its scores as text."""

    rank: int
    key: str
    shard: str
    caption: str
    group: str
    scores: list[str]


def to_html(report: ScanReport) -> str:
    """Return the report as one HTML document with inline style, drawing and pictures, and without scripts."""
    members = {group.number: pairs for group, pairs in scan_view.sections(report) if group is not None}
    return template("scan.html.j2").render(
        report=report,
        version=clipvet.__version__,
        source=scan_view.source_name(report),
        limit=_PATHS,
        mark=MARKS[report.verdict],
        tone=tone(report.verdict),
        meaning=scan_view.MEANING[report.verdict],
        tried=[*scan_view.tried(report), scan_view.cutoff(report)],
        next_steps=scan_view.next_steps(report),
        unread=scan_view.unread(report),
        chart=histogram_of(report),
        groups=[_group(group, members.get(group.number, [])) for group in report.groups],
        columns=[label(name) for name in scan_view.scorers(report)],
        rows=[_row(report, pair) for pair in scan_view.worst(report)[:_ROWS]],
        settings=named_values(report.settings),
        taxonomy=[entry(key) for key in (*scan_view.ATLAS, *scan_view.OWASP)] if report.groups else [],
        exit_meaning="" if report.exit_code is None else scan_view.EXIT_MEANING.get(report.exit_code, ""),
        gallery="gallery.html" in {PurePath(path).name for path in report.written},
    )


def _group(group: SuspectGroup, members: list[SuspectPair]) -> _Group:
    pictures = [(data_uri(pair.thumbnail), f"Picture of {named(pair.key)}") for pair in members[:_PICTURES]]
    return _Group(
        name=scan_view.group_name(group),
        lines=scan_view.group_lines(group),
        keys=[named(key) for key in group.keys],
        pictures=[picture for picture in pictures if picture[0]],
    )


def _row(report: ScanReport, pair: SuspectPair) -> _Row:
    return _Row(
        rank=pair.rank,
        key=shorten(pair.key, _KEY),
        shard=shorten(pair.shard, _KEY),
        caption=shorten(pair.caption, _CAPTION),
        group="" if pair.group is None else str(pair.group),
        scores=scan_view.score_texts(report, pair),
    )
