"""The command line of scans: the shipped poisoned pairs and their clean twin, what filter keeps, and errors in one line."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipvet.cli import main
from clipvet.cli.scan_demo import scan_demo
from clipvet.pocket.shards import poisoned_shards

SCHEMA = json.loads((Path(__file__).parents[2] / "clipvet/reports/scan.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scan")
    found = scan_demo(out)
    assert found.right
    return out


def keys_of(paths: list[Path]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        with tarfile.open(path) as archive:
            found |= {name.partition(".")[0] for name in archive.getnames()}
    return found


def test_the_planted_pairs_are_flagged_and_form_the_largest_group(scanned: Path) -> None:
    planted = poisoned_shards().planted
    with (scanned / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36  # three in a hundred of 1,200
    assert planted <= {row["key"] for row in rows}
    assert {row["key"] for row in rows if row["group"] == "1"} == planted


def test_every_format_is_written(scanned: Path) -> None:
    report = json.loads((scanned / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, SCHEMA)
    assert (report["verdict"], report["exit_code"]) == ("suspicious", 1)
    page = (scanned / "gallery.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") >= 36
    assert all((scanned / name).stat().st_size for name in ("report.html", "report.sarif", "scores.parquet"))


def test_with_a_trusted_model_the_planted_pairs_lead_the_list(scanned: Path, tmp_path: Path) -> None:
    shipped, out = poisoned_shards(), tmp_path / "out"
    shutil.copytree(scanned, out)  # a finished scan: a pass by the trusted model is all that is missing
    command = ["scan", *map(str, shipped.shards), "--model", str(shipped.model), "--trusted-model", "pocket-1", "--out", str(out)]
    assert main([*command, "--flag-rate", "0.03"]) == 1
    with (out / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows[:11]} < shipped.planted  # one of the twelve lies a little behind
    assert {row["key"] for row in rows[:18]} > shipped.planted
    assert {row["key"] for row in rows if row["group"] == "1"} == shipped.planted
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, SCHEMA)
    assert report["scorers"] == ["slof-dense+clip-gap", "slof-dense", "clip-gap"]
    assert report["trusted_model"]["name"] == "pocket-1"
    assert "Trusted model: pocket-1;" in (out / "report.html").read_text(encoding="utf-8")


def test_the_clean_twin_ends_without_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped, data = poisoned_shards(), tmp_path / "data"
    data.mkdir()
    for path in shipped.shards:
        with tarfile.open(path) as source, tarfile.open(data / path.name, "w") as target:
            for member in source:
                if member.name.partition(".")[0] not in shipped.planted:
                    target.addfile(member, source.extractfile(member))
    command = ["scan", str(data), "--model", str(shipped.model), "--out", str(tmp_path / "out"), "--flag-rate", "0.03"]
    for scorer, more in (("slof-dense", []), ("slof-dense+clip-gap", ["--trusted-model", "pocket-1"])):
        assert main([*command, *more, "--format", "json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["verdict"], report["scorer"]) == ("no evidence", scorer)
        # clock faces: a natural group, too small to count
        assert max((group["size"] for group in report["groups"]), default=0) < 10


def test_filter_writes_all_but_what_was_flagged_and_a_persons_decision_wins(
    scanned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [str(path) for path in poisoned_shards().shards]
    with (scanned / "suspects.csv").open(encoding="utf-8", newline="") as file:
        flagged = {row["key"]: row["shard"] for row in csv.DictReader(file)}
    assert main(["filter", *shards, "--scan", str(scanned), "--out", str(tmp_path / "kept")]) == 0
    everything = keys_of(list(poisoned_shards().shards))
    assert keys_of(sorted((tmp_path / "kept").glob("*.tar"))) == everything - set(flagged)
    assert "1,164 pairs kept, 36 dropped" in capsys.readouterr().out
    spared, shard = next(iter(flagged.items()))
    dropped = min(everything - set(flagged))
    of = next(path.stem for path in poisoned_shards().shards if dropped in keys_of([path]))
    (tmp_path / "decisions.csv").write_text(f"key,shard,uid,decision\n{spared},{shard},,keep\n{dropped},{of},,drop\n")
    command = ["filter", *shards, "--scan", str(scanned), "--decisions", str(tmp_path / "decisions.csv")]
    assert main([*command, "--out", str(tmp_path / "decided")]) == 0
    assert keys_of(sorted((tmp_path / "decided").glob("*.tar"))) == everything - set(flagged) - {dropped} | {spared}


def test_filter_refuses_data_that_were_not_scanned(scanned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = poisoned_shards().shards
    others = [tmp_path / path.name for path in shards]
    for path in others:
        path.write_bytes(shards[0].read_bytes())
    wrong = {"other data": others, "a part of it": shards[:2], "another order": tuple(reversed(shards))}
    for paths in wrong.values():
        assert main(["filter", *map(str, paths), "--scan", str(scanned), "--out", str(tmp_path / "kept")]) == 2
        assert "expected the data that were scanned" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_filter_leaves_out_what_has_no_score(tmp_path: Path) -> None:
    features = tmp_path / "features"
    for kind in ("img_emb", "text_emb"):
        (features / kind).mkdir(parents=True)
        rows = 2 + np.random.default_rng(0).normal(size=(200, 16)).astype(np.float16)
        rows[5], rows[7, 0] = 0, np.nan
        np.save(features / kind / f"{kind}_0.npy", rows)
    (features / "metadata").mkdir()
    names = [f"{at:04d}" for at in range(200)]
    pq.write_table(pa.table({"image_path": names, "caption": names}), features / "metadata" / "metadata_0.parquet")
    assert main(["scan", str(features), "--out", str(tmp_path / "out"), "--flag-rate", "0.06"]) == 0
    assert main(["filter", str(features), "--scan", str(tmp_path / "out"), "--out", str(tmp_path / "kept")]) == 0
    (table,) = (tmp_path / "kept").rglob("*.parquet")
    kept = set(pq.read_table(table)["image_path"].to_pylist())
    assert len(kept) == 200 - 11 - 2  # six in a hundred of the 198 that have a score
    assert not {"0005", "0007"} & kept


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scan", "nowhere", "--out", "OUT"], "nowhere"),
        (["scan", "DATA", "--out", "OUT"], "expected --model for 00000, which holds images"),
        (["scan", "DATA", "--model", "pocket-9", "--out", "OUT"], "expected a base, found no file or name 'pocket-9'"),
        (["scan", "DATA", "--model", "pocket-0", "--out", "OUT", "--scorer", "magic"], "got 'magic'"),
        (["scan", "DATA", "--model", "pocket-0", "--out", "OUT", "--scorer", "clip-gap"], "expected --trusted-model with clip-gap"),
        (["scan", "READY", "--trusted-model", "pocket-1", "--out", "OUT"], "expected images with --trusted-model"),
        (["scan", "DATA", "--trusted-model", "pocket-1", "--out", "OUT"], "expected --model for 00000, which holds images"),
        (["filter", "DATA", "--scan", "OUT", "--out", "KEPT"], "expected a finished scan"),
    ],
)
def test_what_a_user_can_cause_is_one_sentence(
    arguments: list[str], words: str, scanned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DATA": str(poisoned_shards().shards[0]), "OUT": str(tmp_path / "out"), "KEPT": str(tmp_path / "kept")}
    places["READY"] = str(scanned / "features")
    assert main([places.get(word, word) for word in arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert words in said[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,00000,,maybe\n", "expected a table with key, shard and decision (keep or drop)"),
        ("", "expected one decision a pair"),
        ("a,00000,,keep\na,00000,,drop\n", "found two of 'a'"),
        ("a,00000,,drop\n", "found one about ('00000', 'a')"),
    ],
)
def test_decisions_that_are_none_are_one_sentence(
    scanned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, words: str
) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text(f"key,shard,uid,decision\n{rows}")
    shards = map(str, poisoned_shards().shards)
    command = ["filter", *shards, "--scan", str(scanned), "--out", str(tmp_path / "kept"), "--decisions", str(table)]
    assert main(command) == 2
    assert words in capsys.readouterr().err
