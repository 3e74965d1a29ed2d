"""Scorers against plain loops, scikit-learn and figures worked by hand; one contract for all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.metrics import auroc
from clipvet.scan import SCORERS, Dao, KDistance, Lid, Slof, SlofDense
from clipvet.scan.base import PairFeatures
from clipvet.scan.neighbours import nearest
from clipvet.scan.official_code import official_dao, official_slof

K = 5


def clustered(n: int, d: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, d, generator=generator)
    return centres[torch.randint(6, (n,), generator=generator)] + 0.5 * torch.randn(n, d, generator=generator)


def pairs(n: int = 60, *, first: int = 0, seed: int = 0) -> PairFeatures:
    """Features of two models that have nothing to do with each other."""
    ids, parts = torch.arange(first, first + n), [clustered(n, seed=seed + at) for at in range(4)]
    trusted = PairFeatures(ids=ids, image=parts[2], text=parts[3])
    return PairFeatures(ids=ids, image=parts[0], text=parts[1], trusted=trusted)


def built(name: str) -> Any:
    return SCORERS[name](k=K) if "k" in SCORERS[name].__dataclass_fields__ else SCORERS[name]()


# A second implementation: lists, loops and the formulas, in double precision.


def unit(rows: Tensor) -> list[list[float]]:
    return [[float(v) / math.sqrt(sum(float(x) ** 2 for x in row)) for v in row] for row in rows.double()]


def neighbours_by_loop(query: list[float], own: int, rows: list[list[float]], ids: list[int], k: int) -> list[tuple[float, int]]:
    found = [(math.dist(query, row), at) for at, row in enumerate(rows) if ids[at] != own]
    return sorted(found)[:k]


def lid_by_loop(distances: list[float]) -> float:
    return -len(distances) / sum(math.log(d / distances[-1]) for d in distances)


def by_loop(name: str, queries: PairFeatures, reference: PairFeatures, k: int) -> list[float]:
    assert queries.image is not None
    assert reference.image is not None
    asked, rows = unit(queries.image), unit(reference.image)
    own, ids = queries.ids.tolist(), reference.ids.tolist()
    around = [neighbours_by_loop(rows[at], ids[at], rows, ids, k) for at in range(len(rows))]
    radius, dimension = [near[-1][0] for near in around], [lid_by_loop([d for d, _ in near]) for near in around]
    out = []
    for query, number in zip(asked, own, strict=True):
        near = neighbours_by_loop(query, number, rows, ids, k)
        mine = near[-1][0]
        if name == "k-distance":
            out.append(mine)
        elif name == "lid":
            out.append(lid_by_loop([d for d, _ in near]))
        elif name == "slof":
            out.append(sum(mine / radius[at] for _, at in near) / k)
        elif name == "slof-dense":
            out.append(mine / sorted(radius[at] for _, at in near)[min(k, max(3, round(0.05 * k))) - 1])
        else:
            out.append(sum(dimension[at] * math.log(mine / radius[at]) for _, at in near) / k)
    return out


@pytest.mark.parametrize("name", ["k-distance", "lid", "slof", "slof-dense", "dao"])
@pytest.mark.parametrize("case", ["other pairs", "the reference itself", "some of the reference"])
def test_neighbourhood_scores_equal_the_formula_in_loops(name: str, case: str) -> None:
    reference = pairs(60)
    queries = {
        "other pairs": pairs(20, first=1000, seed=5),
        "the reference itself": reference,
        "some of the reference": reference.at(torch.tensor([7, 3, 59])),
    }[case]
    assert built(name).score(queries, reference).tolist() == pytest.approx(by_loop(name, queries, reference, K), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("share", "place"), [(0.05, 3), (0.5, 6), (1.0, 12)])
def test_the_densest_neighbours_are_counted_by_share(share: float, place: int) -> None:
    reference, queries = pairs(60), pairs(20, first=1000, seed=5)
    radius = KDistance(k=12).score(reference, reference)
    near = nearest(queries, reference, 12)
    wanted = [float(d[-1] / sorted(radius[at].tolist())[place - 1]) for d, at in zip(near.distances, near.index, strict=True)]
    assert SlofDense(k=12, share=share).score(queries, reference).tolist() == pytest.approx(wanted, rel=1e-5)


def test_k_distance_equals_scikit_learn() -> None:
    queries, reference = pairs(30, first=500, seed=3), pairs(100)
    assert queries.image is not None
    assert reference.image is not None
    oracle = NearestNeighbors(n_neighbors=7).fit(reference.image.numpy()).kneighbors(queries.image.numpy())[0][:, -1]
    assert KDistance(k=7).score(queries, reference).numpy() == pytest.approx(oracle, rel=1e-5)


def test_isolation_forest_equals_scikit_learn_turned_around() -> None:
    queries, reference = pairs(30, first=500, seed=3), pairs(100)
    assert queries.image is not None
    assert reference.image is not None
    oracle = SklearnForest(n_estimators=100, random_state=0).fit(reference.image.numpy()).score_samples(queries.image.numpy())
    assert SCORERS["isolation-forest"]().score(queries, reference).numpy() == pytest.approx(-oracle, rel=1e-5)


def test_clip_score_is_one_minus_the_cosine() -> None:
    angles = torch.tensor([0.0, 60.0, 180.0]).deg2rad()
    image = torch.tensor([[2.0, 0.0]]).expand(3, 2)
    text = torch.stack([angles.cos(), angles.sin()], dim=1)
    features = PairFeatures(ids=torch.arange(3), image=image, text=text)
    assert SCORERS["clip-score"]().score(features, features).tolist() == pytest.approx([0, 0.5, 2], abs=1e-6)


def test_neighbours_of_both_kinds_are_images_and_texts_of_other_pairs() -> None:
    reference = pairs(30)
    assert reference.image is not None
    assert reference.text is not None
    rows = unit(torch.cat([reference.image, reference.text]))
    found = nearest(reference, reference, 4, "both")
    for at in (0, 11, 29):
        wanted = neighbours_by_loop(rows[at], at, rows, [*range(30), *range(30)], 4)
        assert found.index[at].tolist() == [place for _, place in wanted]


def test_slof_and_dao_by_hand_on_a_circle() -> None:
    # Angles 0, 10, 20 and 90 degrees, k = 2: chords of 10 and 20 degrees around the first three, 70 and 80 for the last.
    angles = torch.tensor([0.0, 10.0, 20.0, 90.0], dtype=torch.float64).deg2rad()
    features = PairFeatures(ids=torch.arange(4), image=torch.stack([angles.cos(), angles.sin()], 1))

    def chord(degrees: float) -> float:
        return 2 * math.sin(math.radians(degrees) / 2)

    last = (chord(80) / chord(20) + chord(80) / chord(10)) / 2  # neighbours at 20 and 10 degrees, with radii 20 and 10
    assert Slof(k=2).score(features, features)[3].item() == pytest.approx(last, rel=1e-5)
    assert SlofDense(k=2).score(features, features)[3].item() == pytest.approx(chord(80) / chord(20), rel=1e-5)
    at_20, at_10 = 2 / math.log(chord(20) / chord(10)), 2 / (2e-4)  # the one in the middle has two equal distances: cut
    wanted = (at_20 * math.log(chord(80) / chord(20)) + at_10 * math.log(chord(80) / chord(10))) / 2
    assert Dao(k=2).score(features, features)[3].item() == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize("name", sorted(SCORERS))
class TestContract:
    def test_one_finite_number_per_pair(self, name: str) -> None:
        scores = built(name).score(pairs(20, first=100, seed=2), pairs(60))
        assert scores.shape == (20,)
        assert scores.dtype == torch.float32
        assert torch.isfinite(scores).all()

    def test_a_score_does_not_depend_on_the_other_queries(self, name: str) -> None:
        queries, reference = pairs(20, first=50, seed=2), pairs(60)
        some = torch.tensor([4, 1, 17])
        whole, part = built(name).score(queries, reference), built(name).score(queries.at(some), reference)
        assert part.numpy() == pytest.approx(whole[some].numpy(), rel=1e-5, abs=1e-6)

    def test_the_order_of_the_reference_does_not_matter(self, name: str) -> None:
        queries, reference = pairs(20, first=50, seed=2), pairs(60)
        turned = reference.at(torch.arange(59, -1, -1))  # fewer than a tree's 256: a forest draws larger ones by place
        one, other = built(name).score(queries, reference), built(name).score(queries, turned)
        assert other.numpy() == pytest.approx(one.numpy(), rel=1e-4, abs=1e-5)

    def test_features_are_left_as_they_are(self, name: str) -> None:
        image = clustered(60)
        before = image.clone()
        trusted = PairFeatures(ids=torch.arange(60), image=image, text=image)
        features = PairFeatures(ids=torch.arange(60), image=image, text=image, trusted=trusted)
        built(name).score(features, features)
        assert torch.equal(image, before)

    def test_a_pair_without_a_direction_is_not_scored_and_the_others_are(self, name: str) -> None:
        image = clustered(10, seed=4)
        image[2], image[5, 0] = 0, math.nan
        other = pairs(10).trusted
        queries = PairFeatures(ids=torch.arange(100, 110), image=image, text=clustered(10, seed=6), trusted=other)
        scores = built(name).score(queries, pairs(60))
        assert torch.isnan(scores).nonzero()[:, 0].tolist() == [2, 5]

    def test_missing_features_are_named(self, name: str) -> None:
        only_text = PairFeatures(ids=torch.arange(60), text=clustered(60))
        with pytest.raises(UsageError, match="expected image features, got none"):
            built(name).score(only_text, only_text)


def test_copies_give_finite_scores() -> None:
    copies = clustered(1).expand(40, -1)
    reference = PairFeatures(ids=torch.arange(80), image=torch.cat([copies, clustered(40, seed=9)]))
    for scorer in (Dao(k=K), Slof(k=K), SlofDense(k=K), Lid(k=K), KDistance(k=K)):
        assert torch.isfinite(scorer.score(reference, reference)).all()


def test_too_small_a_reference_is_named() -> None:
    few = pairs(5)
    with pytest.raises(UsageError, match="expected a reference of more than k = 16 pairs, got 5"):
        Slof().score(few, few)


@pytest.mark.parametrize("settings", [{"k": 1}, {"k": 0}, {"modality": "sound"}])
def test_settings_are_checked_when_a_scorer_is_built(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected k of at least 2 and features out of image, text, both"):
        Dao(**settings)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_of_the_neighbours_is_one(share: float) -> None:
    with pytest.raises(UsageError, match=r"expected a share of the neighbours in \(0, 1\], got"):
        SlofDense(share=share)


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, reference = pairs(33, first=40, seed=2), pairs(60)
    whole = nearest(queries, reference, K)
    monkeypatch.setattr("clipvet.scan.neighbours.CHUNK", 60 * 4)
    again = nearest(queries.at(torch.arange(33)), reference, K)
    assert torch.equal(whole.index, again.index)
    assert torch.allclose(whole.distances, again.distances)


def test_scorers_share_what_was_looked_up() -> None:
    queries, reference = pairs(20, first=100), pairs(60)
    far = nearest(queries, reference, 9)
    near = nearest(queries, reference, 4)
    assert near.index.data_ptr() == far.index.data_ptr()


def official_by_loop(features: Tensor, k: int, *, dimension_aware: bool) -> list[float]:
    """The published code in loops, slips included."""
    rows = features.tolist()
    n = len(rows)
    full = [[math.dist(a, b) for b in rows] for a in rows]
    ordered = [sorted(row) for row in full]
    lid = [-k / sum(math.log(d / row[k] + 1e-4) for d in row[:k]) for row in ordered]
    out = []
    for i in range(n):
        others = [full[i][j] for j in range(n) if j != i]
        places = sorted(range(n - 1), key=lambda j: others[j])
        radius = others[places[k]]
        ratios = [(place, radius / ordered[place][k]) for place in places[:k]]
        out.append(sum(lid[p] * math.log(r) if dimension_aware else r for p, r in ratios) / k)
    return out


def test_the_published_code_is_repeated_with_its_slips() -> None:
    features = clustered(40).double()  # in float32 the distance of a row to itself is rounding, and the code takes its logarithm
    assert official_slof(features, K).tolist() == pytest.approx(official_by_loop(features, K, dimension_aware=False), rel=1e-4)
    assert official_dao(features, K).tolist() == pytest.approx(
        official_by_loop(features, K, dimension_aware=True), rel=1e-3, abs=1e-3
    )


@pytest.mark.parametrize("scorer", [Dao(), Slof(), SlofDense(), KDistance()])
def test_a_planted_cluster_is_found_and_its_clean_twin_is_not(scorer: Any) -> None:
    generator = torch.Generator().manual_seed(99)
    clean, n_bad = clustered(1500, d=64), 12
    spot = 4 * torch.randn(1, 64, generator=generator)
    planted = torch.cat([clean, spot + 0.8 * torch.randn(n_bad, 64, generator=generator)])
    twin = clustered(1500 + n_bad, d=64)
    for features, low, high in ((planted, 0.99, 1.0), (twin, 0.2, 0.8)):
        pool = PairFeatures(ids=torch.arange(len(features)), image=features)
        scores = replace(scorer).score(pool, pool)
        assert low <= auroc(scores[:1500].tolist(), scores[1500:].tolist()) <= high


def test_features_that_do_not_match_are_named() -> None:
    with pytest.raises(UsageError, match=r"expected image or text features, one row per id, got rows \[3, 4\]"):
        PairFeatures(ids=torch.arange(3), image=clustered(4))


def test_scores_survive_half_precision_storage() -> None:
    features = clustered(200, d=64)
    kept = torch.from_numpy(features.div(features.norm(dim=1, keepdim=True)).numpy().astype(np.float16))
    one, other = (PairFeatures(ids=torch.arange(200), image=f) for f in (features, kept))
    assert Slof().score(other, other).numpy() == pytest.approx(Slof().score(one, one).numpy(), rel=5e-3)
