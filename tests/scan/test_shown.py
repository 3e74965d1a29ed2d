"""Which pairs a person is shown: the worst, and of every group enough to see what its members share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipvet.scan import shown

from .conftest import MakeTars
from .test_scan_run import scan

GROUPS = np.array([0, 2, 0, 1, 0, 1, 2, *[1] * 20, 0])  # by rank: 22 pairs of the first group, 2 of the second


@pytest.mark.parametrize(
    ("gallery", "places"),
    [
        (0, []),  # the gallery is switched off
        (1, [0, 1, 3, 5, 6, *range(7, 17)]),  # twelve of the first group
        (5, [0, 1, 2, 3, 4, 5, 6, *range(7, 17)]),
        (100, list(range(28))),
    ],
)
def test_the_worst_and_twelve_of_every_group_are_shown(gallery: int, places: list[int]) -> None:
    scanned = SimpleNamespace(options=SimpleNamespace(gallery=gallery), suspects=[None] * len(GROUPS), groups=GROUPS)
    assert shown._places(scanned) == places


def test_pairs_beyond_the_gallery_have_their_own_picture_and_neighbours(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_tars()
    everything = {pair.key: pair for pair in scan(paths, tmp_path / "out", gallery=6).suspects}
    monkeypatch.setattr(shown, "_places", lambda s: [0, 3, 5])
    some = scan(paths, tmp_path / "out").suspects
    assert [pair.rank for pair in some] == [1, 4, 6]
    for pair in some:
        known = everything[pair.key]
        assert (pair.rank, pair.thumbnail, pair.caption) == (known.rank, known.thumbnail, known.caption)
        assert [near.key for near in pair.neighbours] == [near.key for near in known.neighbours]
