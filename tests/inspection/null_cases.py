"""Null files of a few made-up references, with what they were measured on."""

from __future__ import annotations

import dataclasses
import math

from clipvet.inspection.null_file import NullFile, pack_null
from clipvet.inspection.references import Draw, Reference
from clipvet.types import NullKey

KEY = NullKey(base="abc", family="prompt", classes=(2, 3), settings="margin-residual:0", probes="generated pool, 1000")
LIKE = NullKey(base="abc", family="coop", classes=(3, 3), settings=KEY.settings, probes=KEY.probes)
BEYOND = dataclasses.replace(KEY, settings="feature-collapse:1")
STATISTICS = (0.9, 0.3, 1.2, 0.5)


def reference(number: int, statistic: float, accuracy: float = 1.0, family: str = "vpt", beyond: float | None = None) -> Reference:
    draw = Draw(number=number, family=family, class_names=("cat", "dog"), seed=number + 100)
    return Reference(draw=draw, statistic=statistic, accuracy=accuracy, beyond=beyond)


def packed(*more: Reference) -> NullFile:
    made = [reference(number, value, family="coop" if number else "vpt") for number, value in enumerate(STATISTICS)]
    return pack_null([*made, *more], check="margin-residual", key=KEY, base_name="pocket-0", pseudo_labelled=False)


def packed_both(*, pseudo_labelled: bool = False) -> NullFile:
    """Two nulls: of the five that changed the image tower, one learned nothing, and one came to no number there."""
    made = [
        reference(0, 0.9, beyond=2.0),
        reference(1, 0.3, family="coop"),
        reference(2, 1.2, family="ivlp", beyond=-1.0),
        reference(3, 0.5, beyond=0.5),
        reference(4, 0.7, family="maple", accuracy=0.5, beyond=9.0),
        reference(5, 0.4, family="maple", beyond=math.nan),
    ]
    return pack_null(made, check="margin-residual", key=KEY, base_name="pocket-0", pseudo_labelled=pseudo_labelled, beyond=BEYOND)
