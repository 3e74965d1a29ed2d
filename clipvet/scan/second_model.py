"""The second pass over the shards, by a trusted model: the first pass again, in a store of its own, row by row the same pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clipvet.data.pairs import PairSource
from clipvet.errors import UnreadableError, UsageError
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.scan.options import ScanOptions
from clipvet.scan.store import Store, read_table

__all__ = ["check_images", "check_rows", "load_trusted", "second_options"]

Facts = Mapping[int, Mapping[str, Any]]


def second_options(options: ScanOptions) -> ScanOptions:
    """The options of the second pass: those of a scan with the trusted model alone, and without scorers of pixels."""
    return replace(options, model=options.trusted_model, trusted_model=None, scorers=(), quick_gelu=None)


def load_trusted(options: ScanOptions, model: ClipModel | None) -> ClipModel | None:
    """Load the trusted model; None where there is none.

    Raises:
        UsageError: it is the model that is scanned with.
        ClipvetError: it cannot be read.
    """
    if options.trusted_model is None:
        return None
    trusted = load_base(options.trusted_model, device=options.device)
    if model is not None and (trusted.sha256 or trusted.name) == (model.sha256 or model.name):
        raise UsageError(
            f"expected another CLIP for --trusted-model than for --model, got {trusted.name} for both: name one that was not "
            "trained on these pairs"
        )
    return trusted


def check_images(source: PairSource, facts: Facts) -> None:
    """Refuse ready features, which a second model cannot look at.

    Raises:
        UsageError: a shard holds such.
    """
    ready = [number for number, found in facts.items() if found.get("ready")]
    if ready:
        raise UsageError(
            f"expected images with --trusted-model, which has to encode them too, found ready features in "
            f"{source.shards[ready[0]].name}: scan the images, or leave the trusted model out"
        )


def check_rows(source: PairSource, store: Store, second: Store, facts: Facts) -> None:
    """See that both passes found the same pairs; a shard where they did not is encoded anew next time.

    Raises:
        UnreadableError: there is such a shard: its data changed, or could not all be read, in one of them.
    """
    for shard in (number for number, found in facts.items() if found["pairs"]):
        if not np.array_equal(_ids(store, shard), _ids(second, shard)):
            for kept in (store, second):
                kept.forget("features", shard)
            store.forget("scores", shard)  # of an earlier scan, in the order of its rows
            raise UnreadableError(
                f"expected both models to be given the same pairs of {source.shards[shard].name}, but in one pass not all could be "
                "read: run the same command again; it encodes this shard anew"
            )


def _ids(store: Store, shard: int) -> Sequence[int]:
    """Numbers of the pairs of a shard; none where it could not be read at all."""
    path = store.metadata(shard)
    found: Sequence[int] = read_table(path, ["id"])["id"].to_numpy() if path.exists() else ()
    return found
