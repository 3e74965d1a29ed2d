"""Scans from shards to a report: what is written, what goes on after a kill, what several workers change (nothing)."""

from __future__ import annotations

import csv
import random
import tarfile
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binom

from clipvet.errors import ClipvetError, UnwritableError, UsageError
from clipvet.models.bases import load_base
from clipvet.scan import SlofDense, store
from clipvet.scan.base import PairFeatures
from clipvet.scan.options import ScanOptions
from clipvet.scan.run import scan_pairs
from clipvet.types import ScanReport, Verdict

from .conftest import MakeTars, add, die_after, png

TABLES = ("scores.parquet", "suspects.csv")


def scan(paths: list[Path], out: Path, **given: Any) -> ScanReport:
    settings = {"model": "pocket-0", "k": 4, "reference": 50, "flag_rate": 0.1, "gallery": 3, **given}
    return scan_pairs([str(path) for path in paths], ScanOptions(out=out, **settings))


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def test_scores_equal_those_of_the_scorer_on_features_that_were_computed_here(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars()
    report = scan(paths, tmp_path / "out", reference=1000)
    table = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [row["key"] for row in table] == [f"{at:06d}" for at in range(60)]
    images = []
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith("png"):
                    from PIL import Image

                    pixels = np.asarray(Image.open(archive.extractfile(member)))
                    images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255)
    features = PairFeatures(ids=torch.arange(60), image=load_base("pocket-0").encode_image(torch.stack(images)).half())
    wanted = SlofDense(k=4).score(features, features)
    assert [row["slof-dense"] for row in table] == pytest.approx(wanted.tolist(), rel=2e-2, abs=2e-2)
    flagged = sorted((row for row in table if row["suspect"]), key=lambda row: row["rank"])
    assert [row["rank"] for row in flagged] == [1, 2, 3, 4, 5, 6]  # a tenth of sixty
    assert [row["slof-dense"] for row in flagged] == sorted((row["slof-dense"] for row in table), reverse=True)[:6]
    assert report.counts.flagged == 6
    assert report.counts.pairs == report.counts.scored == 60
    assert [pair.key for pair in report.suspects] == [row["key"] for row in flagged[:3]]
    assert all(pair.thumbnail for pair in report.suspects)
    assert all(len(pair.neighbours) == 3 and pair.neighbours[0].key != pair.key for pair in report.suspects)


def test_the_list_of_suspects_is_the_table_of_suspects(make_tars: MakeTars, tmp_path: Path) -> None:
    scan(make_tars(), tmp_path / "out")
    with (tmp_path / "out" / "suspects.csv").open(encoding="utf-8", newline="") as file:
        listed = [(int(row["rank"]), row["shard"], row["key"]) for row in csv.DictReader(file)]
    rows = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert listed == sorted((row["rank"], row["shard"], row["key"]) for row in rows if row["suspect"])


def test_a_scan_that_is_killed_anywhere_goes_on_to_the_same_results(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_tars(30)
    real, count = store.write_whole, 0

    def counted(path: Path, write: Any) -> Path:
        nonlocal count
        count += 1
        return real(path, write)

    for module in ("store", "merge", "reference"):
        monkeypatch.setattr(f"clipvet.scan.{module}.write_whole", counted)
    scan(paths, tmp_path / "whole")
    total, wanted = count, results(tmp_path / "whole")
    assert total > 20
    for module in ("store", "merge", "reference"):
        monkeypatch.setattr(f"clipvet.scan.{module}.write_whole", real)
    for stop in random.Random(0).sample(range(1, total), 20):
        out = tmp_path / f"killed-{stop}"
        with monkeypatch.context() as patched:
            die_after(patched, stop)
            with pytest.raises(KeyboardInterrupt):
                scan(paths, out)
        scan(paths, out)
        assert results(out) == wanted


def test_what_is_finished_is_not_done_again(make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_tars(30)
    first = scan(paths, tmp_path / "out")
    monkeypatch.setattr("clipvet.scan.work.encode_shard", lambda *_, **__: pytest.fail("encoded again"))
    monkeypatch.setattr("clipvet.scan.work.score_shard", lambda *_, **__: pytest.fail("scored again"))
    again = scan(paths, tmp_path / "out")
    assert again.counts == first.counts
    assert again.suspects == first.suspects


def test_features_are_kept_where_only_the_scorer_changes(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_tars(30)
    scan(paths, tmp_path / "out")
    monkeypatch.setattr("clipvet.scan.work.encode_shard", lambda *_, **__: pytest.fail("encoded again"))
    assert scan(paths, tmp_path / "out", scorers=("slof", "clip-score")).scorer == "slof"


def test_another_model_or_a_changed_shard_is_encoded_anew(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars(30)
    scan(paths, tmp_path / "out")
    before = results(tmp_path / "out")
    scan(paths, tmp_path / "out", model="pocket-1")
    other = results(tmp_path / "out")
    assert other != before
    with tarfile.open(paths[0], "a") as archive:
        add(archive, "more.txt", b"a caption without an image")
    report = scan(paths, tmp_path / "out", model="pocket-1")
    assert report.counts.unread == {"no image": 1}


def test_workers_and_shards_do_not_change_the_results(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars()
    scan(paths, tmp_path / "one")
    scan(paths, tmp_path / "two", workers=2)
    one, two = (pq.read_table(tmp_path / name / "scores.parquet").to_pydict() for name in ("one", "two"))
    assert one["key"] == two["key"]
    assert one["slof-dense"] == pytest.approx(two["slof-dense"], rel=1e-3, abs=1e-3)
    assert one["rank"] == two["rank"]


def test_two_scans_of_one_folder_do_not_disturb_each_other(make_tars: MakeTars, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    paths = make_tars(30)
    scan(paths, tmp_path / "alone")
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(scan, paths, tmp_path / "shared") for _ in range(2)]
        assert [future.result().counts.scored for future in running] == [30, 30]
    assert results(tmp_path / "shared") == results(tmp_path / "alone")


def test_a_full_disk_ends_in_one_sentence_and_the_scan_goes_on_later(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_tars(30)
    scan(paths, tmp_path / "whole")
    real_save = np.save

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clipvet.scan.store.np.save", full)
    with pytest.raises(UnwritableError, match="No space left on device: make room"):
        scan(paths, tmp_path / "out")
    monkeypatch.setattr("clipvet.scan.store.np.save", real_save)
    scan(paths, tmp_path / "out")
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_bad_images_are_counted_and_named(make_tars: MakeTars, tmp_path: Path, pictures: list[Any]) -> None:
    paths = make_tars(30)
    with tarfile.open(paths[2], "a") as archive:
        add(archive, "broken.png", png(pictures[0][0])[:200])
        add(archive, "broken.txt", b"a picture that was cut off")
        add(archive, "alone.txt", b"a caption alone")
    report = scan(paths, tmp_path / "out")
    assert report.counts.unread == {"image cannot be decoded": 1, "no image": 1}
    assert report.counts.pairs == 32
    assert report.coverage.share == pytest.approx(30 / 32)
    assert any("broken" in example for example in report.counts.examples["image cannot be decoded"])


def test_a_shard_that_cannot_be_read_is_an_error_in_the_report_and_the_others_are_scanned(
    make_tars: MakeTars, tmp_path: Path
) -> None:
    paths = make_tars(30)
    paths[1].write_bytes(b"this is no tar" * 100)
    report = scan(paths, tmp_path / "out")
    assert report.counts.scored == 20
    assert len(report.errors) == 1
    assert "00001.tar" in report.errors[0]


def write_features(folder: Path, *, planted: int = 0, seed: int = 0) -> Path:
    """Write 400 ready features in clip-retrieval's layout; the last ones lie apart and say the same thing."""
    rng = np.random.default_rng(seed)
    image, text = 2 + rng.normal(size=(2, 400, 64))  # in a cone, as features of a CLIP lie
    captions = [f"caption {at}" for at in range(400)]
    if planted:
        spots = 3 * np.random.default_rng(9).normal(size=(2, 64))  # outside of it
        image[-planted:], text[-planted:] = (spot + 0.5 * rng.normal(size=(planted, 64)) for spot in spots)
        captions[-planted:] = ["birthday cake with candles"] * planted
    for kind, array in (("img_emb", image), ("text_emb", text)):
        (folder / kind).mkdir(parents=True)
        np.save(folder / kind / f"{kind}_0.npy", array.astype(np.float16))
    (folder / "metadata").mkdir()
    table = pa.table({"image_path": [f"{at:04d}" for at in range(400)], "caption": captions})
    pq.write_table(table, folder / "metadata" / "metadata_0.parquet")
    return folder


def flagged(out: Path) -> set[int]:
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    return {at for at, row in enumerate(rows) if row["suspect"]}


def test_planted_pairs_are_a_group_and_the_verdict_is_suspicious_and_that_of_the_clean_twin_is_not(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": None, "k": 32, "flag_rate": 0.03, "reference": 1000, "least_group": 8}
    report = scan([write_features(tmp_path / "planted", planted=8)], tmp_path / "out", **settings)
    assert set(range(392, 400)) <= flagged(tmp_path / "out")
    assert report.verdict is Verdict.SUSPICIOUS
    assert [(group.number, group.size, group.caption) for group in report.groups] == [(1, 8, "birthday cake with candles")]
    assert scan([tmp_path / "planted"], tmp_path / "out", **settings | {"least_group": 9}).verdict is Verdict.NO_EVIDENCE
    twin = scan([write_features(tmp_path / "clean")], tmp_path / "twin", **settings)
    assert (twin.verdict, twin.groups, twin.counts.flagged) == (Verdict.NO_EVIDENCE, (), 12)


def test_a_trusted_set_is_reference_and_threshold(tmp_path: Path) -> None:
    trusted = write_features(tmp_path / "trusted", seed=1)
    data = write_features(tmp_path / "data", planted=20)
    report = scan([data], tmp_path / "out", model=None, clean=(str(trusted),), flag_rate=0.05, reference=1000)
    assert report.reference is not None
    assert report.reference.text.startswith("a trusted set")
    found = flagged(tmp_path / "out")
    assert set(range(380, 400)) <= found  # more than k of them: they are no part of the reference
    assert len(found) - 20 <= binom.ppf(0.999, 380, 0.05)


def test_pairs_that_tie_with_the_trusted_threshold_are_not_flagged(tmp_path: Path) -> None:
    for name in ("trusted", "data"):
        folder = write_features(tmp_path / name)
        for kind in ("img_emb", "text_emb"):
            np.save(folder / kind / f"{kind}_0.npy", np.ones((400, 8), np.float16))
    report = scan([tmp_path / "data"], tmp_path / "out", model=None, clean=(str(tmp_path / "trusted"),), reference=1000)
    assert report.counts.flagged == 0


@pytest.mark.parametrize("given", [{"flag_rate": 0.01}, {"flag_rate": 0.001, "clean": True}])
def test_a_scan_that_can_flag_too_few_is_inconclusive(tmp_path: Path, given: dict[str, Any]) -> None:
    if given.get("clean"):
        given = given | {"clean": (str(write_features(tmp_path / "trusted", seed=1)),)}
    report = scan([write_features(tmp_path / "data", planted=8)], tmp_path / "out", model=None, reference=1000, **given)
    assert report.verdict is Verdict.INCONCLUSIVE
    words = "takes at least 999 trusted pairs" if "clean" in given else "at most 4 of 400 pairs are flagged"
    assert any(words in warning for warning in report.warnings)


def test_another_caption_column_is_another_scan(tmp_path: Path, pictures: list[Any]) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    rows = ["filepath\ttitle\tother"]
    for at, (image, caption) in enumerate(pictures[:30]):
        (folder / f"{at}.png").write_bytes(png(image))
        rows.append(f"{at}.png\t{caption}\tsomething else")
    (folder / "pairs.csv").write_text("\n".join(rows))
    for column in ("title", "other"):
        scan([folder / "pairs.csv"], tmp_path / "out", scorers=("clip-score",), caption_col=column)
        scan([folder / "pairs.csv"], tmp_path / column, scorers=("clip-score",), caption_col=column)
        assert results(tmp_path / "out") == results(tmp_path / column)


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, pictures: list[Any]) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    names = [f"{at}.png" for at in range(30)]
    (folder / "pairs.csv").write_text("\n".join(["filepath\ttitle", *(f"{name}\ta caption" for name in names)]))
    with pytest.raises(UsageError, match="could use none of them: 30 x file not found"):
        scan([folder / "pairs.csv"], tmp_path / "out")
    for name, (image, _) in zip(names, pictures, strict=False):
        (folder / name).write_bytes(png(image))
    assert scan([folder / "pairs.csv"], tmp_path / "out").counts.scored == 30


def test_features_of_any_scale_are_scored_alike(tmp_path: Path) -> None:
    found = []
    for scale in (1e-6, 1.0, 1e5):
        folder = write_features(tmp_path / f"{scale}")
        path = folder / "img_emb" / "img_emb_0.npy"
        np.save(path, np.load(path).astype(np.float32) * scale)
        scan([folder], tmp_path / f"out-{scale}", model=None, reference=1000)
        found.append(pq.read_table(tmp_path / f"out-{scale}" / "scores.parquet")["slof-dense"].to_numpy())
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=0.02)


def test_a_model_beside_ready_features_is_not_called_their_maker(tmp_path: Path) -> None:
    report = scan([write_features(tmp_path / "data")], tmp_path / "out", model="pocket-0")
    assert report.model is None
    assert any("which model that was is not known" in warning for warning in report.warnings)


def test_an_archive_that_was_cut_off_is_an_error(make_tars: MakeTars, tmp_path: Path) -> None:
    paths = make_tars(30)
    paths[1].write_bytes(paths[1].read_bytes()[:30_000])
    report = scan(paths, tmp_path / "out")
    assert 20 < report.counts.scored < 30
    assert len(report.errors) == 1
    assert report.errors[0].startswith("00001: ")


def test_shards_of_different_width_are_one_sentence(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "data")
    for kind in ("img_emb", "text_emb"):
        np.save(folder / kind / f"{kind}_1.npy", np.ones((400, 8), np.float16))
    (folder / "metadata" / "metadata_1.parquet").write_bytes((folder / "metadata" / "metadata_0.parquet").read_bytes())
    with pytest.raises(UsageError, match=r"found image \(64\) and text \(64\) and, in shard 2, image \(8\) and text \(8\)"):
        scan([folder], tmp_path / "out", model=None)


def test_an_output_folder_inside_the_data_is_refused(make_tars: MakeTars) -> None:
    folder = make_tars(9)[0].parent
    with pytest.raises(UsageError, match="expected --out outside of the data"):
        scan([folder], folder / "out")


def test_a_k_below_the_expected_poison_is_said(make_tars: MakeTars, tmp_path: Path) -> None:
    report = scan(make_tars(30), tmp_path / "out", poison_rate=0.2, reference=25)
    assert "k = 4 does not exceed the 5 poisoned pairs" in report.warnings[0]


def test_k_is_a_few_times_the_poison_that_the_reference_may_hold(make_tars: MakeTars, tmp_path: Path) -> None:
    report = scan(make_tars(60), tmp_path / "out", k=None, poison_rate=0.04, reference=1000)
    assert report.reference is not None
    assert (report.reference.size, report.reference.k) == (60, 32)  # 4.5 * (2.4 + 3 * 1.549)
    assert report.warnings[0] == "the reference holds 60 pairs and not the 1,000 asked for: there are no more"
    assert scan(make_tars(60), tmp_path / "low", k=None, poison_rate=0.001).reference.k == 16


def test_images_without_a_model_are_one_sentence(make_tars: MakeTars, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected --model for 00000, which holds images"):
        scan(make_tars(9), tmp_path / "out", model=None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flag_rate": 0.0}, "expected rates between 0 and 1"),
        ({"scorers": ("dao", "dao")}, "each once, got one twice"),
        ({"scorers": ("magic",)}, "got 'magic'"),
        ({"reference": 0}, "expected at least one pair"),
        ({"preset": "best"}, "expected a preset out of default, official-code"),
        ({"preset": "official-code", "scorers": ("lid",)}, "expected scorers out of slof, dao with this preset"),
    ],
)
def test_options_are_checked_before_anything_is_done(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        ScanOptions(out=tmp_path, **given)


def test_a_worker_that_is_killed_ends_in_one_sentence_and_the_scan_goes_on(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Dead:
            return self

        def __exit__(self, *_: object) -> None: ...
        def shutdown(self, **_: object) -> None: ...
        def submit(self, *_: object) -> Future[dict[str, int]]:
            future: Future[dict[str, int]] = Future()
            future.set_exception(BrokenProcessPool("a child process terminated abruptly"))
            return future

    monkeypatch.setattr("clipvet.scan.work.ProcessPoolExecutor", Dead)
    with pytest.raises(ClipvetError, match="expected 2 workers to live, but one was killed"):
        scan(make_tars(30), tmp_path / "out", workers=2)
