"""The gallery of the worst pairs: one HTML page with pictures, on which a person decides what to keep and what to drop.

The page needs no network. Its script is fixed text, named by its hash in the page's content security policy, so that nothing that
comes from the data can run. Keys reach the script as JSON; captions do not reach it at all.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from clipvet.reports import scan_view
from clipvet.reports.html import template
from clipvet.reports.text import label, number, shorten, writable
from clipvet.reports.thumbnails import data_uri
from clipvet.types import Neighbour, ScanReport, SuspectGroup, SuspectPair

__all__ = ["to_gallery"]

_NAME, _CAPTION = 80, 300  # columns; the whole key and caption are in report.json


@dataclass(frozen=True, kw_only=True)
class _Near:
    """One neighbour as text and picture."""

    key: str
    caption: str
    similarity: str
    picture: Markup


@dataclass(frozen=True, kw_only=True)
class _Card:
    """One pair as text and picture; ``place`` is its position in the list that the script has."""

    place: int
    rank: int
    key: str
    shard: str
    uid: str
    caption: str
    scores: list[tuple[str, str]]
    picture: Markup
    near: list[_Near]


@dataclass(frozen=True, kw_only=True)
class _Section:
    """The pairs of one suspicious group, or those of none."""

    name: str
    lines: list[str]
    cards: list[_Card]


def to_gallery(report: ScanReport) -> str:
    """Return the gallery as one HTML document with inline style, pictures and script."""
    sections = scan_view.sections(report)
    pairs = [pair for _, members in sections for pair in members]
    places = {id(pair): place for place, pair in enumerate(pairs)}
    script = Markup(template("gallery.js.j2").render())  # noqa: S704  # fixed text of this package
    return template("gallery.html.j2").render(
        source=scan_view.source_name(report),
        sections=[_section(group, [_card(report, pair, places[id(pair)]) for pair in members]) for group, members in sections],
        pairs=len(pairs),
        data={"scan": scan_view.scan_id(report), "pairs": [_names(pair) for pair in pairs]},
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _names(pair: SuspectPair) -> dict[str, Any]:
    """Return what a decision is joined by: the exact names, as they stand in report.json."""
    return {"key": writable(pair.key), "shard": writable(pair.shard), "uid": writable(pair.uid)}


def _section(group: SuspectGroup | None, cards: list[_Card]) -> _Section:
    if group is None:
        return _Section(name="Pairs of no group", lines=[], cards=cards)
    lines = scan_view.group_lines(group)
    if len(cards) < group.size:
        lines.append(f"{len(cards):,} of its {group.size:,} pairs are on this page; a decision is about these alone.")
    return _Section(name=scan_view.group_name(group), lines=lines, cards=cards)


def _card(report: ScanReport, pair: SuspectPair, place: int) -> _Card:
    return _Card(
        place=place,
        rank=pair.rank,
        key=shorten(pair.key, _NAME),
        shard=shorten(pair.shard, _NAME),
        uid=shorten(pair.uid, _NAME) if pair.uid else "",
        caption=shorten(pair.caption, _CAPTION),
        scores=list(zip(map(label, scan_view.scorers(report)), scan_view.score_texts(report, pair), strict=True)),
        picture=data_uri(pair.thumbnail),
        near=[_near(neighbour) for neighbour in pair.neighbours],
    )


def _near(neighbour: Neighbour) -> _Near:
    return _Near(
        key=shorten(neighbour.key, _NAME),
        caption=shorten(neighbour.caption, _CAPTION),
        similarity=number(neighbour.similarity),
        picture=data_uri(neighbour.thumbnail),
    )
