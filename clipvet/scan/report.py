"""From what a scan found to the report that a person acts on."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np

from clipvet.data.pairs import PairSource
from clipvet.metrics import flaggable
from clipvet.models.base import ClipModel
from clipvet.scan.merge import MOST, Suspects
from clipvet.scan.oddities import Oddity, oddity_warnings
from clipvet.scan.options import BATCH, ScanOptions, build_scorers
from clipvet.scan.reference import Reference
from clipvet.scan.shown import GROUPS, shown_pairs
from clipvet.scan.store import Store, read_table
from clipvet.types import (
    Coverage,
    Histogram,
    ModelRecord,
    ReferenceSet,
    ScanCounts,
    ScanReport,
    ScanSource,
    SuspectGroup,
    Threshold,
    Verdict,
)

__all__ = ["Scanned", "build_scan_report"]

LIKENESS = (
    "images closer than all but one in 1,000 pairs of the reference; captions closer than all but one in 100, or with a rare word "
    "in common"
)
EXAMPLES = 5  # of each kind of what was not read


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """Everything that a finished scan knows.

    ``drawn_from`` is where the reference comes from, the scan's own store or that of a trusted set; ``asked`` is how many pairs it
    was to have.
    """

    source: PairSource
    paths: tuple[str, ...]
    options: ScanOptions
    store: Store
    model: ClipModel | None
    trusted_model: ClipModel | None
    reference: Reference
    drawn_from: Store
    asked: int
    facts: Mapping[int, Mapping[str, Any]]
    faults: tuple[str, ...]
    scored: int
    threshold: float
    suspects: Suspects
    groups: np.ndarray
    oddities: Sequence[Oddity]
    histogram: tuple[list[float], list[int]]
    written: tuple[str, ...]
    started: str
    seconds: float

    @property
    def read(self) -> int:
        """Pairs that were read."""
        return sum(found["pairs"] for found in self.facts.values())

    @property
    def unread(self) -> Counter[str]:
        """What was not read, by kind."""
        counts: Counter[str] = Counter()
        for found in self.facts.values():
            counts.update(found["unread"])
        return counts

    @property
    def trusted(self) -> bool:
        """Whether the reference is a trusted set of the user's."""
        return self.drawn_from != self.store

    @property
    def flaggable(self) -> int:
        """How many pairs can be flagged at most."""
        if self.trusted:
            return 0 if math.isinf(self.threshold) else self.scored
        return flaggable(self.options.flag_rate, self.scored)

    @property
    def k(self) -> int:
        """Neighbours that the ranking scorer looks at; 0 for one that looks at none."""
        return int(getattr(build_scorers(self.options)[0].get(self.options.scorers[0]), "k", 0))


def build_scan_report(s: Scanned) -> ScanReport:
    """Put a finished scan into words; reads the pictures of the worst pairs again."""
    groups, unread = _groups(s), s.unread
    total = s.read + sum(unread.values())
    counts = ScanCounts(
        pairs=total,
        scored=s.scored,
        flagged=len(s.suspects),
        not_scored=s.read - s.scored,
        unread=dict(unread),
        examples=_examples(s),
    )
    alike = int(s.groups.max(initial=0))
    found = f"{alike} group{'' if alike == 1 else 's'} of flagged pairs that are alike" if alike else "no group among them"
    summary = f"{counts.flagged:,} of {counts.scored:,} pairs flagged; {found}."
    return ScanReport(
        source=ScanSource(kind=s.source.kind, paths=s.paths, mapping=s.source.mapping, notes=s.source.notes),
        verdict=_verdict(s, groups),
        summary=summary,
        scorer=s.options.scorers[0],
        scorers=s.options.scorers,
        counts=counts,
        model=_model(s),
        trusted_model=None if s.trusted_model is None else _record(s.trusted_model),
        reference=_reference(s),
        threshold=Threshold(value=s.threshold, flag_rate=s.options.flag_rate, text=_promise(s)),
        histogram=Histogram(edges=tuple(s.histogram[0]), counts=tuple(s.histogram[1])) if s.histogram[1] else None,
        suspects=shown_pairs(s),
        groups=groups,
        warnings=_warnings(s),
        errors=(*(found["error"] for found in s.facts.values() if found["error"]), *s.faults),
        coverage=Coverage(done=s.scored, asked=total),
        written=s.written,
        settings={field.name: getattr(s.options, field.name) for field in fields(s.options)},
        environment={
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: version(name) for name in ("clipvet", "torch", "open_clip_torch", "numpy", "pyarrow")},
        },
        started=s.started,
        seconds=s.seconds,
    )


def _verdict(s: Scanned, groups: Sequence[SuspectGroup]) -> Verdict:
    if not s.scored or s.flaggable < s.options.least_group:
        return Verdict.INCONCLUSIVE
    large = any(group.size >= s.options.least_group for group in groups)
    return Verdict.SUSPICIOUS if large else Verdict.NO_EVIDENCE


def _model(s: Scanned) -> ModelRecord | None:
    """The model that made the features; None where the source held them ready."""
    if s.model is None or all(found.get("ready") for found in s.facts.values()):
        return None
    return _record(s.model)


def _record(model: ClipModel) -> ModelRecord:
    return ModelRecord(name=model.name, sha256=model.sha256)


def _reference(s: Scanned) -> ReferenceSet:
    where = "a trusted set" if s.trusted else "a random sample of the data"
    how = "compared in batches of 2,048 drawn from it" if s.options.batches else "searched exactly"
    return ReferenceSet(text=f"{where}, {how}", size=len(s.reference.features), k=s.k)


def _promise(s: Scanned) -> str:
    rate = f"{s.options.flag_rate:.4g}"
    if s.trusted:
        return f"a further pair like the trusted ones is flagged with a probability of at most {rate} (conformal)"
    return f"at most a share of {rate} of all pairs, and so of the clean ones, is flagged, because the threshold is that quantile"


def _warnings(s: Scanned) -> tuple[str, ...]:
    """What weakens this scan."""
    found = []
    expected = s.options.poison_expected
    if 0 < s.k <= expected:
        found.append(
            f"k = {s.k} does not exceed the {expected:.0f} poisoned pairs that a reference of {s.options.compared:,} holds at a "
            f"poison rate of {s.options.poison_rate:g}: they would be each other's neighbours; raise --k or lower --reference"
        )
    if s.k and s.options.reference < min(s.asked, BATCH):
        found.append(f"the reference holds {s.options.reference:,} pairs and not the {s.asked:,} asked for: there are no more")
    if s.flaggable < s.options.least_group:
        found.append(_too_few(s))
    if len(s.suspects) > MOST:
        found.append(f"groups were sought among the worst {MOST:,} of the flagged pairs only")
    found += oddity_warnings(s.oddities)
    if _model(s) is None:
        found.append(
            "ready features were scanned: scores say what the model behind them sees, and which model that was is not known"
        )
    return tuple(found)


def _too_few(s: Scanned) -> str:
    rate, least = s.options.flag_rate, s.options.least_group
    if math.isinf(s.threshold):
        return f"a flag rate of {rate:g} takes at least {math.ceil(1 / rate) - 1} trusted pairs: nothing can be flagged with fewer"
    return (
        f"at most {s.flaggable:,} of {s.scored:,} pairs are flagged at a rate of {rate:g}, fewer than the {least} of a group that "
        "counts: raise --flag-rate, or lower --least-group"
    )


def _examples(s: Scanned) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for shard, facts in s.facts.items():
        if all(len(found.get(kind, ())) >= EXAMPLES for kind in facts["unread"]):
            continue
        table = read_table(s.store.unread(shard)).to_pylist()
        for row in table:
            named = found.setdefault(row["kind"], [])
            if len(named) < EXAMPLES:
                named.append(f"{row['key']}: {row['why']}")
    return {kind: tuple(named) for kind, named in found.items()}


def _groups(s: Scanned) -> tuple[SuspectGroup, ...]:
    out = []
    for number in range(1, 1 + min(GROUPS, int(s.groups.max(initial=0)))):
        at = np.flatnonzero(s.groups == number)
        captions = Counter(s.suspects.table["caption"][i] for i in at)
        caption, times = captions.most_common(1)[0]
        note = f"{times} of {len(at)} say just this" if times < len(at) else "all say just this"
        out.append(
            SuspectGroup(
                number=number,
                size=len(at),
                caption=caption,
                share=len(at) / max(1, s.read),
                mean_score=float(s.suspects.scores[at].mean()),
                keys=tuple(s.suspects.table["key"][i] for i in at[:EXAMPLES]),
                likeness=LIKENESS,
                note=note,
            )
        )
    return tuple(out)
