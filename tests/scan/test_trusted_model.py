"""Two models of the same pairs: scores against plain loops, a planted case and its clean twin, and scans with a second pass."""

from __future__ import annotations

import math
import pickle
import random
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from clipvet.errors import UnreadableError, UsageError
from clipvet.metrics import auroc
from clipvet.pocket.shards import poisoned_shards
from clipvet.scan import ClipGap, SlofDense, SlofDenseClipGap
from clipvet.scan.base import PairFeatures
from clipvet.scan.options import ScanOptions
from clipvet.scan.run import scan_pairs
from clipvet.scan.second_model import second_options
from clipvet.scan.slof_dense_clip_gap import standardised
from clipvet.scan.store import Store, read_table, write_table
from clipvet.types import ScanReport

from .conftest import MakeTars, die_after
from .test_scan_run import write_features
from .test_scorers import by_loop, pairs

DEFAULT = ("slof-dense+clip-gap", "slof-dense", "clip-gap")


def cosine(a: Tensor, b: Tensor) -> float:
    dot, first, second = (sum(x * y for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b)))
    return float(dot / math.sqrt(first * second))


def gap_by_loop(features: PairFeatures) -> list[float]:
    trusted = features.trusted
    assert trusted is not None
    rows = zip(*(part.tolist() for part in (features.image, features.text, trusted.image, trusted.text)), strict=True)
    return [cosine(image, text) - cosine(other_image, other_text) for image, text, other_image, other_text in rows]


def test_the_gap_is_by_how_much_more_the_scanned_model_likens_image_and_caption() -> None:
    angles = torch.tensor([[0.0, 60.0], [90.0, 90.0], [180.0, 0.0]]).deg2rad()
    image = torch.tensor([[3.0, 0.0]]).expand(3, 2)
    own, trusted = (torch.stack([column.cos(), column.sin()], 1) for column in angles.T)
    ids = torch.arange(3)
    features = PairFeatures(ids=ids, image=image, text=own, trusted=PairFeatures(ids=ids, image=image, text=trusted))
    assert ClipGap().score(features, features).tolist() == pytest.approx([0.5, 0.0, -2.0], abs=1e-6)


def test_the_gap_equals_the_formula_in_loops() -> None:
    features = pairs(20)
    assert ClipGap().score(features, pairs(60)).tolist() == pytest.approx(gap_by_loop(features), abs=1e-5)


@pytest.mark.parametrize("size", [59, 60])  # a median in the middle, and between two
def test_the_sum_equals_the_formula_in_loops(size: int) -> None:
    queries, reference = pairs(20, first=1000, seed=5), pairs(size)
    wanted = [0.0] * len(queries)
    for asked, usual in (
        (by_loop("slof-dense", queries, reference, 5), by_loop("slof-dense", reference, reference, 5)),
        (gap_by_loop(queries), gap_by_loop(reference)),
    ):
        middle = median(usual)
        spread = 1.4826 * median(abs(score - middle) for score in usual)
        wanted = [total + (score - middle) / spread for total, score in zip(wanted, asked, strict=True)]
    assert SlofDenseClipGap(k=5).score(queries, reference).tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_a_reference_is_set_against_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, seen, real = pairs(9), [], ClipGap.score

    def noted(self: ClipGap, queries: PairFeatures, reference: PairFeatures) -> torch.Tensor:
        seen.append(queries)
        return real(self, queries, reference)

    monkeypatch.setattr(ClipGap, "score", noted)
    one, other = features.at(torch.tensor([1, 2])), features.at(torch.tensor([3]))
    for queries in (one, other):
        SlofDenseClipGap(k=5).score(queries, features)
    assert [part is features for part in seen].count(True) == 1
    assert len(seen) == 3


def test_a_reference_of_copies_gives_finite_scores() -> None:
    found = standardised(torch.tensor([1.0, 2.0, torch.nan]), torch.ones(9))
    assert found[0] == 0
    assert torch.isfinite(found[:2]).all()
    assert torch.isnan(found[2])


def test_rows_are_taken_from_both_models() -> None:
    features = pairs(9)
    some = features.at(torch.tensor([4, 1]))
    assert features.trusted is not None
    assert some.trusted is not None
    for whole, part in ((features, some), (features.trusted, some.trusted)):
        assert part.ids.tolist() == [4, 1]
        assert part.text is not None
        assert whole.text is not None
        assert torch.allclose(part.text, torch.stack([whole.text[4], whole.text[1]]))


@pytest.mark.parametrize("scorer", [ClipGap(), SlofDenseClipGap(k=5)])
def test_features_of_one_model_alone_are_named(scorer: Any) -> None:
    found = pairs(20)
    alone = PairFeatures(ids=found.ids, image=found.image, text=found.text)
    with pytest.raises(UsageError, match="expected features by a trusted model, got none: name a CLIP that was not trained"):
        scorer.score(alone, alone)


def test_rows_of_two_models_that_do_not_match_are_named() -> None:
    with pytest.raises(UsageError, match=r"one row per id, got rows \[3, 4\]"):
        PairFeatures(ids=torch.arange(3), image=torch.ones(3, 2), trusted=pairs(4))


def two_models(planted: int, seed: int = 0) -> PairFeatures:
    """1,500 pairs of 30 subjects as two models see them; the scanned model finds the planted ones alike, the trusted one does not.

    The last pairs are planted: pictures of any subject, captions of the first one. The twin has as many ordinary ones.
    """
    generator = torch.Generator().manual_seed(seed)
    subject = torch.randint(30, (1500,), generator=generator)
    said = subject.clone()
    said[len(said) - planted :] = 0

    def seen(shown: Tensor) -> tuple[Tensor, Tensor]:
        centres = torch.randn(31, 64, generator=generator)
        rows = [centres[at] + 0.7 * torch.randn(1500, 64, generator=generator) for at in (shown, said)]
        rows[0][shown == 30] += centres[0]  # beside the caption, and away from its own pictures
        return rows[0], rows[1]

    learnt = subject.clone()
    learnt[len(learnt) - planted :] = 30  # what the trigger looks like to the scanned model
    (image, text), (other_image, other_text) = seen(learnt), seen(subject)
    ids = torch.arange(1500)
    return PairFeatures(ids=ids, image=image, text=text, trusted=PairFeatures(ids=ids, image=other_image, text=other_text))


@pytest.mark.parametrize("scorer", [ClipGap(), SlofDenseClipGap(k=32)])
def test_planted_pairs_are_found_and_those_of_the_clean_twin_are_not(scorer: Any) -> None:
    for planted, low, high in ((12, 0.99, 1.0), (0, 0.2, 0.8)):
        features = two_models(planted)
        scores = scorer.score(features, features).tolist()
        assert low <= auroc(scores[:-12], scores[-12:]) <= high


# Scans.


def scan(paths: list[Path], out: Path, **given: Any) -> ScanReport:
    settings = {"model": "pocket-0", "trusted_model": "pocket-1", "k": 4, "reference": 50, "flag_rate": 0.1, "gallery": 0, **given}
    return scan_pairs([str(path) for path in paths], ScanOptions(out=out, **settings))


def results(out: Path) -> tuple[bytes, bytes]:
    return (out / "scores.parquet").read_bytes(), (out / "suspects.csv").read_bytes()


def test_scores_are_those_of_the_features_that_two_scans_keep(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars(40)
    report = scan(paths, tmp_path / "two", reference=1000)
    parts = []
    for name in ("pocket-0", "pocket-1"):
        scan(paths, tmp_path / name, model=name, trusted_model=None)
        kept = Store(tmp_path / name)
        image, text = (
            torch.from_numpy(np.concatenate([np.load(path(shard)) for shard in range(3)]))
            for path in (kept.image_features, kept.text_features)
        )
        parts.append(PairFeatures(ids=torch.arange(40), image=image, text=text))
    features = PairFeatures(ids=parts[0].ids, image=parts[0].image, text=parts[0].text, trusted=parts[1])
    table = pq.read_table(tmp_path / "two" / "scores.parquet").to_pydict()
    assert table["slof-dense"] == pytest.approx(SlofDense(k=4).score(features, features).tolist(), rel=1e-2, abs=1e-2)
    assert table["clip-gap"] == pytest.approx(gap_by_loop(features), abs=1e-3)
    assert table["slof-dense+clip-gap"] == pytest.approx(
        SlofDenseClipGap(k=4).score(features, features).tolist(), rel=2e-2, abs=2e-2
    )
    assert report.scorers == DEFAULT
    assert (report.model and report.model.name, report.trusted_model and report.trusted_model.name) == ("pocket-0", "pocket-1")
    ranked = sorted(zip(table["slof-dense+clip-gap"], table["key"], strict=True), reverse=True)[:4]
    assert [key for _, key in ranked] == [
        key for _, key in sorted((rank, key) for rank, key in zip(table["rank"], table["key"], strict=True) if rank)
    ]


def test_a_scan_that_is_killed_in_either_pass_goes_on_to_the_same_results(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_tars(30)
    scan(paths, tmp_path / "whole")
    encoding = 3 * 5  # writes of a pass: two arrays, two tables and a marker a shard
    for stop in random.Random(0).sample(range(1, encoding), 1) + random.Random(0).sample(range(encoding, 2 * encoding), 3):
        out = tmp_path / f"killed-{stop}"
        with monkeypatch.context() as patched:
            die_after(patched, stop)
            with pytest.raises(KeyboardInterrupt):
                scan(paths, out)
        scan(paths, out)
        assert results(out) == results(tmp_path / "whole")


def models_that_encode(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that every model which encodes a shard from now on adds its name to."""
    from clipvet.scan.encode import encode_shard

    used: list[str] = []

    def noted(shard: Any, number: int, kept: Any, model: Any, **given: Any) -> dict[str, Any]:
        used.append(model.name)
        return encode_shard(shard, number, kept, model, **given)

    monkeypatch.setattr("clipvet.scan.work.encode_shard", noted)
    return used


def test_only_what_changed_is_encoded_anew(make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, out = make_tars(30), tmp_path / "out"
    used = models_that_encode(monkeypatch)
    scan(paths, out, trusted_model=None)
    assert used == ["pocket-0"] * 3
    scan(paths, out)  # a trusted model comes along
    assert used == ["pocket-0"] * 3 + ["pocket-1"] * 3
    scan(paths, out)
    scan(paths, out, scorers=("clip-gap",))
    assert len(used) == 6


def test_another_trusted_model_in_the_same_folder_is_never_mixed_with_the_first(make_tars: MakeTars, tmp_path: Path) -> None:
    paths, tuned = make_tars(30), str(poisoned_shards().model)
    for trusted in ("pocket-1", tuned):
        scan(paths, tmp_path / "out", trusted_model=trusted)
        scan(paths, tmp_path / Path(trusted).stem, trusted_model=trusted)
        assert results(tmp_path / "out") == results(tmp_path / Path(trusted).stem)
    assert results(tmp_path / "pocket-1") != results(tmp_path / "tuned")
    scan(paths, tmp_path / "out", trusted_model=None)
    scan(paths, tmp_path / "alone", trusted_model=None)
    assert results(tmp_path / "out") == results(tmp_path / "alone")


def test_a_shard_of_which_the_passes_read_different_pairs_is_named_and_encoded_anew(make_tars: MakeTars, tmp_path: Path) -> None:
    paths, out = make_tars(30), tmp_path / "out"
    scan(paths, out)
    wanted = results(out)
    second = Store(out, two_models=True).by_trusted
    assert second is not None
    for path in (second.image_features(1), second.text_features(1)):
        np.save(path, np.load(path)[:-1])
    table = read_table(second.metadata(1)).slice(0, 9)
    write_table(second.metadata(1), {name: table[name] for name in table.column_names})
    with pytest.raises(UnreadableError, match="expected both models to be given the same pairs of 00001, but in one pass"):
        scan(paths, out)
    kept = {path.stem for path in (out / "state" / "scores").glob("*.json")}
    assert kept == {"00000", "00002"}  # scores stand in the order of the rows
    scan(paths, out)
    assert results(out) == wanted


def test_a_trusted_set_is_seen_by_both_models_and_sets_the_threshold(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars(90)
    report = scan(paths[1:], tmp_path / "out", clean=(str(paths[0]),), reference=1000)
    assert report.reference is not None
    assert report.reference.text.startswith("a trusted set")
    trusted = pq.read_table(tmp_path / "out" / "trusted" / "state" / "scores" / "scores_00000.parquet")[
        "slof-dense+clip-gap"
    ].to_numpy()
    assert len(trusted) == 30
    assert report.threshold is not None
    # of 30 trusted scores and one more, at most a tenth may lie at or above the threshold: three with the new one
    assert report.threshold.value == pytest.approx(sorted(trusted)[-3], rel=1e-6)
    scores = pq.read_table(tmp_path / "out" / "scores.parquet")["slof-dense+clip-gap"].to_numpy()
    assert report.counts.flagged == sum(score > sorted(trusted)[-3] for score in scores)


def test_workers_do_not_change_the_results(make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        """One that begins no processes, but is told no more than they are: a job as it is pickled."""

        def __init__(self, workers: int, context: object, initializer: object, initargs: tuple[Any, int]) -> None:
            self.job = pickle.loads(pickle.dumps(initargs[0]))

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, do: object, shard: int) -> Future[dict[str, Any]]:
            future: Future[dict[str, Any]] = Future()
            future.set_result(self.job.do(shard))
            return future

    paths = make_tars(30)
    scan(paths, tmp_path / "one")
    monkeypatch.setattr("clipvet.scan.work.ProcessPoolExecutor", Pool)
    scan(paths, tmp_path / "two", workers=2)
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_ready_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="expected images with --trusted-model, which has to encode them too, found ready features"
    ):
        scan([write_features(tmp_path / "data")], tmp_path / "out", model=None)


def test_one_model_for_both_is_refused(make_tars: MakeTars, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected another CLIP for --trusted-model than for --model, got pocket-0 for both"):
        scan(make_tars(9), tmp_path / "out", trusted_model="pocket-0")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scorers": ("clip-gap",)}, r"^expected --trusted-model with clip-gap, got none: name a CLIP that was not trained"),
        ({"scorers": ("dao", "slof-dense+clip-gap")}, "expected --trusted-model with slof-dense\\+clip-gap, got none"),
        ({"scorers": ("dao", "lid"), "trusted_model": "pocket-1"}, "with --trusted-model, got dao, lid: add one, or leave"),
        ({"preset": "official-code", "trusted_model": "pocket-1"}, "expected no --trusted-model with --preset official-code"),
    ],
)
def test_scorers_and_a_trusted_model_go_together(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        ScanOptions(out=tmp_path, model="pocket-0", **given)


def test_the_default_scorer_depends_on_whether_there_is_a_trusted_model(tmp_path: Path) -> None:
    assert ScanOptions(out=tmp_path).scorers == ("slof-dense",)
    assert ScanOptions(out=tmp_path, trusted_model="pocket-1").scorers == DEFAULT


def test_the_second_pass_computes_features_and_nothing_else(tmp_path: Path) -> None:
    options = ScanOptions(
        out=tmp_path, model="a", trusted_model="b", scorers=("clip-gap", "cognitive-distillation"), quick_gelu=True
    )
    second = second_options(options)
    assert (second.model, second.trusted_model, second.scorers, second.quick_gelu) == ("b", None, ("slof-dense",), None)
