"""What every rendering of a scan says in the same words: how it was scored and flagged, groups, what was not read, what to do."""

from __future__ import annotations

import hashlib
import json
import math

from clipvet.reports.text import number, shorten, visible
from clipvet.types import ScanReport, SuspectGroup, SuspectPair, Verdict

__all__ = [
    "ATLAS",
    "EXIT_MEANING",
    "MEANING",
    "OWASP",
    "cutoff",
    "group_lines",
    "group_name",
    "next_steps",
    "percent",
    "scan_id",
    "score_texts",
    "scorers",
    "sections",
    "source_name",
    "tried",
    "unread",
    "worst",
]

ATLAS = ("AML.T0020", "AML.T0019")
OWASP = ("ML02:2023",)
MEANING = {
    Verdict.NO_EVIDENCE: (
        "Nothing that was tried found flagged pairs that are alike. This is no proof that nothing was planted: look at the worst "
        "pairs, and read what was tried and what was skipped."
    ),
    Verdict.INCONCLUSIVE: (
        "The scores could not be relied on here, so they say nothing either way. Treat the data as not scanned."
    ),
    Verdict.SUSPICIOUS: (
        "Some pairs stand out. A score says that a pair is unlike the others, not why: look at the pictures before any is dropped."
    ),
    Verdict.BACKDOORED: "What was found is not explained by chance or by ordinary data. Do not train on these pairs.",
}
EXIT_MEANING = {
    0: "no large group of flagged pairs that are alike",
    1: "a large group of flagged pairs that are alike",
    2: "usage error, or something could not be read",
    3: "inconclusive, or coverage below --min-coverage",
    130: "interrupted",
}
_LOOK = "Look at the worst pairs and the groups in the gallery (gallery.html), and mark what to keep and what to drop."
_FALLBACK_STEPS = {
    Verdict.NO_EVIDENCE: ("Keep this report with the data; scan again whenever the data changes.", _LOOK),
    Verdict.INCONCLUSIVE: ("Resolve what is listed as a warning, as skipped and as not read, and scan again.",),
    Verdict.SUSPICIOUS: (_LOOK, "Drop what you marked, and scan what is left once more."),
    Verdict.BACKDOORED: (_LOOK, "Keep the dropped pairs as evidence, and ask where they came from."),
}
_CAPTION = 120  # columns of a caption in a sentence


def tried(report: ScanReport) -> list[str]:
    """Return one sentence each on what was scored, with what, and against what."""
    counts = report.counts
    others = [visible(name) for name in scorers(report)[1:]]
    lines = [f"{counts.scored:,} of {_pairs(counts.pairs)} scored and ranked by {visible(report.scorer)}."]
    if others:
        lines.append(f"For comparison only: {', '.join(others)}.")
    if report.reference is not None:
        reference = report.reference
        k = f", k = {reference.k}" if reference.k else ""
        lines.append(f"Reference: {visible(reference.text)}; {_pairs(reference.size)}{k}.")
    if report.model is not None:
        lines.append(f"Features: made by {visible(report.model.name)}.")
    if report.trusted_model is not None:
        name = visible(report.trusted_model.name)
        lines.append(
            f"Trusted model: {name}; clip-gap is high where it finds image and caption less alike than the model above does."
        )
    return lines


def cutoff(report: ScanReport) -> str:
    """Return where the threshold lies, and what it promises, in one sentence."""
    if report.threshold is None or math.isnan(report.threshold.value):
        return "No threshold was set: pairs are ranked, none is flagged."
    rate = percent(report.threshold.flag_rate)
    return _sentence(f"Threshold {number(report.threshold.value)}, flag rate {rate}: {report.threshold.text}")


def group_lines(group: SuspectGroup) -> list[str]:
    """Return the numbers of a group, and what makes its members alike, one sentence each."""
    size = f"{_pairs(group.size)}, {percent(group.share)} of the data; mean score {number(group.mean_score)}."
    likeness = "; ".join(text for text in (group.likeness, group.note) if text)
    return [size, _sentence(f"Alike: {likeness}")] if likeness else [size]


def unread(report: ScanReport) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return (kind, count, examples) of what was not read, the most frequent kind first."""
    counts = report.counts
    kinds = sorted(counts.unread.items(), key=lambda item: -item[1])
    return [(kind, count, counts.examples.get(kind, ())) for kind, count in kinds]


def worst(report: ScanReport) -> list[SuspectPair]:
    """Return the suspects by rank."""
    return sorted(report.suspects, key=lambda pair: pair.rank)


def scorers(report: ScanReport) -> list[str]:
    """Return the names of all scorers, first that which pairs are ranked by."""
    return list(dict.fromkeys((report.scorer, *report.scorers)))


def score_texts(report: ScanReport, pair: SuspectPair) -> list[str]:
    """Return the scores of a pair as text, in the order of :func:`scorers`."""
    return [number(pair.score), *(number(pair.scores.get(name)) for name in scorers(report)[1:])]


def sections(report: ScanReport) -> list[tuple[SuspectGroup | None, list[SuspectPair]]]:
    """Return the suspects of each group in the report's order of groups, and last those that belong to none."""
    numbers = {group.number for group in report.groups}
    members: dict[int | None, list[SuspectPair]] = {}
    for pair in worst(report):
        members.setdefault(pair.group if pair.group in numbers else None, []).append(pair)
    found = [(group, members.get(group.number, [])) for group in report.groups]
    return [(group, pairs) for group, pairs in [*found, (None, members.get(None, []))] if pairs]


def next_steps(report: ScanReport) -> list[str]:
    """Return what to do next, each step once: the report's own steps, or those of the verdict."""
    steps = report.next_steps or _FALLBACK_STEPS[report.verdict]
    return [visible(step) for step in dict.fromkeys(steps) if step.strip()]


def source_name(report: ScanReport) -> str:
    """Return the first path of the source, and how many more there are."""
    first, *others = report.source.paths or ("no path",)
    return f"{first} and {len(others):,} more" if others else first


def group_name(group: SuspectGroup) -> str:
    """Return the number of a group and its caption, cut to one line."""
    return f"Group {group.number}: {shorten(group.caption, _CAPTION)}"


def percent(share: float) -> str:
    """Return a share as a percentage of three significant digits."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else "not measured"


def scan_id(report: ScanReport) -> str:
    """Return 16 hexadecimal digits that this scan keeps however often it is rendered, and that no other scan has."""
    source, model = report.source, report.model
    made_of = [source.kind, source.paths, report.scorer, model.sha256 if model else "", report.started]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _pairs(count: int) -> str:
    return f"{count:,} pair{'' if count == 1 else 's'}"


def _sentence(text: str) -> str:
    """Return the visible text with a full stop, if it has none."""
    return visible(text.rstrip(".")) + "."
