"""The curves of a scan: the rate is the stated one, and a planted knot of pairs is found where a clean twin has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.scan_curves import at_rate, cell, shown
from clipvet.scan.base import PairFeatures

N, POISONED = 2000, 40


@pytest.mark.parametrize("rate", [0.005, 0.02])
def test_a_low_rate_is_had_by_taking_poisoned_pairs_away(rate: float) -> None:
    bad = np.arange(N) < POISONED
    picked = at_rate(bad, rate, np.random.default_rng(0))
    assert bad[picked].mean() == pytest.approx(rate, rel=0.06)
    assert (~bad[picked]).sum() == N - POISONED


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.2])
def test_of_so_many_pairs_a_share_is_poisoned(rate: float) -> None:
    bad = np.arange(N) < POISONED
    picked = at_rate(bad, rate, np.random.default_rng(0), 200)
    assert (len(set(picked.tolist())), bad[picked].sum()) == (200, 200 * rate)


def planted(strength: float) -> tuple[PairFeatures, np.ndarray]:
    """Clouds of pairs, and a few in a place of their own with a caption that only one model believes; 0 for the clean twin."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(20, 32, generator=generator)[torch.arange(N) % 20] + 0.3 * torch.randn(N, 32, generator=generator)
    text = image + 0.3 * torch.randn(N, 32, generator=generator)
    place, caption = torch.randn(2, 32, generator=generator) * strength
    unbelieved = text.clone()
    unbelieved[:POISONED] = (1 - strength) * text[:POISONED] + caption
    trusted = PairFeatures(ids=torch.arange(N), image=image.clone(), text=unbelieved)
    for part in (image, text):
        part[:POISONED] = (1 - strength) * part[:POISONED] + place
    return PairFeatures(ids=torch.arange(N), image=image, text=text, trusted=trusted), np.arange(N) < POISONED


@pytest.mark.parametrize("clean", [False, True])
def test_a_knot_is_found_and_its_clean_twin_is_not(clean: bool) -> None:
    found = {
        strength: cell(*planted(strength), k=80, size=400, rate=0.02, total=1000, clean_reference=clean) for strength in (0.9, 0.0)
    }
    assert found[0.9]["slof-dense+clip-gap"]["auroc"] > 0.95
    assert all(0.3 < one["auroc"] < 0.7 for one in found[0.0].values())
    assert shown("x", {"dao": {"auroc": 0.5, "fpr95": 0.25}}) == {"what": "x", "measured": "dao 0.500, 25.00%"}
