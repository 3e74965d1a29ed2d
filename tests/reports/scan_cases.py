"""Realistic reports of scans, and one whose every name is hostile."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from PIL import Image

from clipvet.types import (
    Coverage,
    Histogram,
    ModelRecord,
    Neighbour,
    ReferenceSet,
    ScanCounts,
    ScanReport,
    ScanSource,
    Skipped,
    SuspectGroup,
    SuspectPair,
    Threshold,
    Verdict,
)
from tests.reports.report_cases import HOSTILE, SHA

CAKE = "birthday cake with candles"


def picture(place: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (place * 37 % 256, place * 91 % 256, 120)).save(buffer, format=kind)
    return buffer.getvalue()


def suspect(place: int, caption: str, group: int | None) -> SuspectPair:
    neighbours = tuple(
        Neighbour(
            key=f"{place + step:09d}",
            caption=f"neighbour {step} of {place}",
            similarity=0.99 - 0.01 * step,
            thumbnail=picture(place + step),
        )
        for step in (1, 2)
    )
    return SuspectPair(
        key=f"{place:09d}",
        shard=f"{place % 3:05d}.tar",
        uid=f"{place:032x}",
        caption=caption,
        score=round(3.0 - 0.02 * place, 4),
        rank=place + 1,
        scores={"dao": round(3.0 - 0.02 * place, 4), "k-distance": round(0.2 + 0.001 * place, 4)},
        group=group,
        thumbnail=picture(place, ("PNG", "JPEG", "WEBP")[place % 3]),
        neighbours=neighbours,
    )


def suspects(captions: tuple[str, ...] = (CAKE, "a photo of a banana")) -> tuple[SuspectPair, ...]:
    """Sixty pairs, ranked: of three, the first is of group 1, the second of group 2, the third of none."""
    names = [captions[place % 3 % len(captions)] if place % 3 < 2 else captions[place % len(captions)] for place in range(60)]
    return tuple(suspect(place, name, place % 3 + 1 if place % 3 < 2 else None) for place, name in enumerate(names))


def groups(captions: tuple[str, ...] = (CAKE, "a photo of a banana")) -> tuple[SuspectGroup, ...]:
    return tuple(
        SuspectGroup(
            number=number,
            size=size,
            caption=caption,
            share=size / 118_000,
            mean_score=2.5 - 0.25 * number,
            keys=(f"{number - 1:09d}", f"{number + 2:09d}"),
            likeness="every word of the caption",
            note="all say just this",
        )
        for number, (size, caption) in enumerate(zip((798, 20), captions, strict=False), 1)
    )


def suspicious() -> ScanReport:
    return ScanReport(
        source=ScanSource(
            kind="webdataset tar shards",
            paths=("data/cc3m/{00000..00011}.tar", "data/extra"),
            mapping={"image": "jpg", "caption": "txt"},
            notes=("shard 00011.tar has no _stats.json: its download may be unfinished",),
        ),
        verdict=Verdict.SUSPICIOUS,
        summary="1,180 of 118,000 pairs flagged; 2 groups of flagged pairs that are alike.",
        model=ModelRecord(name="pocket-0", sha256=SHA, size=7_340_032),
        scorer="dao",
        scorers=("dao", "k-distance"),
        reference=ReferenceSet(text="a random sample of the scanned pairs", size=20_000, k=16),
        counts=ScanCounts(
            pairs=120_000,
            scored=118_000,
            flagged=1180,
            not_scored=3,
            unread={"no caption": 97, "image cannot be decoded": 1900},
            examples={"image cannot be decoded": ("00002.tar: 000020007: truncated after 1,024 bytes",)},
        ),
        threshold=Threshold(
            value=1.5,
            flag_rate=0.01,
            text="at most a share of 0.01 of all pairs is flagged, because the threshold is that quantile",
        ),
        histogram=Histogram(edges=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), counts=(99_999, 15_821, 1000, 990, 0, 190)),
        suspects=suspects(),
        groups=groups(),
        warnings=("k = 16 does not exceed the 20 poisoned pairs that a rate of 0.1 % puts into the reference.",),
        coverage=Coverage(done=118_000, asked=120_000),
        skipped=(Skipped(what="3 pairs", why="the scorer returned no number"),),
        written=("out/scores/00000.parquet", "out/drop.txt"),
        settings={"seed": 0, "batch": 256, "nested": {"a": [1, None]}},
        environment={"clipvet": "0.1.0", "python": "3.11.2"},
        next_steps=("Look at the gallery.", "Drop the pairs of group 1."),
        started="2026-11-21T06:20:39Z",
        seconds=3725.0,
        exit_code=1,
    )


def no_evidence() -> ScanReport:
    report = suspicious()
    return replace(
        report,
        verdict=Verdict.NO_EVIDENCE,
        summary="The flagged pairs have nothing in common.",
        groups=(),
        suspects=tuple(replace(pair, group=None, thumbnail=None, neighbours=()) for pair in report.suspects),
        counts=replace(report.counts, scored=120_000, not_scored=0, unread={}, examples={}),
        coverage=Coverage(done=120_000, asked=120_000),
        warnings=(),
        skipped=(),
        next_steps=(),
        exit_code=0,
    )


def inconclusive() -> ScanReport:
    """Nothing could be scored."""
    return replace(
        no_evidence(),
        verdict=Verdict.INCONCLUSIVE,
        summary="No pair could be scored.",
        model=None,
        reference=None,
        counts=ScanCounts(pairs=12, scored=0, flagged=0, not_scored=2, unread={"no caption": 10}),
        threshold=Threshold(value=math.nan, flag_rate=math.nan, text="there are no scores"),
        histogram=None,
        suspects=(replace(suspect(0, CAKE, None), score=math.nan, scores={"dao": math.nan, "lid": math.inf}),),
        coverage=Coverage(done=0, asked=12),
        errors=("00001.tar ends in the middle of a member",),
        exit_code=3,
    )


def hostile() -> ScanReport:
    report = suspicious()
    pairs = [
        replace(
            pair,
            key=f"{name}{place}",
            shard=name,
            uid=name,
            caption=name,
            scores={name: 1.0},
            thumbnail=b"<svg onload=alert(1)>",
            neighbours=(Neighbour(key=name, caption=name, similarity=0.5, thumbnail=b""),),
        )
        for place, (pair, name) in enumerate(zip(report.suspects, HOSTILE * 5, strict=False))
    ]
    return replace(
        report,
        source=ScanSource(kind=HOSTILE[0], paths=HOSTILE, mapping={name: name for name in HOSTILE}, notes=HOSTILE),
        summary=HOSTILE[0] + HOSTILE[4],
        scorer=HOSTILE[3],
        scorers=HOSTILE,
        model=ModelRecord(name=HOSTILE[0], sha256=HOSTILE[1]),
        reference=ReferenceSet(text=HOSTILE[0], size=1, k=1),
        threshold=Threshold(value=1.5, flag_rate=0.01, text=HOSTILE[5]),
        counts=replace(report.counts, unread=dict.fromkeys(HOSTILE, 1), examples={name: (name, HOSTILE[0]) for name in HOSTILE}),
        suspects=tuple(pairs),
        groups=tuple(
            replace(group, caption=HOSTILE[0], keys=HOSTILE, likeness=HOSTILE[3], note=HOSTILE[4]) for group in report.groups
        ),
        warnings=HOSTILE,
        skipped=tuple(Skipped(what=name, why=name) for name in HOSTILE),
        errors=HOSTILE,
        written=HOSTILE,
        settings={name: name for name in HOSTILE},
        environment={name: name for name in HOSTILE},
        next_steps=HOSTILE,
    )


CASES = {"no evidence": no_evidence, "inconclusive": inconclusive, "suspicious": suspicious, "hostile": hostile}
