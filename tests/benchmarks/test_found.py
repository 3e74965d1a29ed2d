"""The page on what a scan finds says what its results file says, and shows what may be shown."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from benchmarks import found_page
from benchmarks.inspect_zoo import RESULTS
from pocket_build.icons import COLLECTIONS, FLAGS, concept

DOCUMENT = json.loads((RESULTS / "found.json").read_text(encoding="utf-8"))


def test_the_page_is_that_of_the_results() -> None:
    assert (found_page.DOCS / "found.md").read_text(encoding="utf-8") == found_page.page(DOCUMENT)


def test_every_listed_pair_was_judged_and_the_page_counts_them() -> None:
    rows = DOCUMENT["judged"]
    assert len(rows) == 600
    assert {row["judgement"] for row in rows} >= {"mislabelled", "rare but right", "right"}
    assert not [row["key"] for row in rows if row["judgement"] == "not judged"]
    wrong = [0] * 6
    for row in rows:
        if row["judgement"] == "mislabelled":
            wrong[("corpus", "icons").index(row["corpus"]) * 3 + ("dao", "clip-score", "random").index(row["list"])] += 1
    assert "| mislabelled | " + " | ".join(map(str, wrong)) + " |" in found_page.page(DOCUMENT)


@pytest.mark.parametrize("name", found_page.SHEETS)
def test_pictures_are_small_and_of_collections_that_may_be_shown(name: str) -> None:
    path = found_page.DOCS / f"found-{name}.png"
    assert path.stat().st_size < 400_000
    corpus, shown = found_page._shown(DOCUMENT)[name]
    allowed = set(found_page.SETS) if corpus == "corpus" else set(COLLECTIONS)
    assert shown
    assert {key.partition("/")[0] for key, _ in shown} <= allowed
    with Image.open(path) as picture:
        assert picture.size == (8 * 132, -(-len(shown) // 8) * 124)


def test_every_collection_allows_to_hand_its_pictures_on() -> None:
    licences = {row["collection"]: row["licence"] for row in DOCUMENT["collections"]}
    assert set(licences) == set(COLLECTIONS) > set(FLAGS)
    assert set(licences.values()) <= {"Apache-2.0", "MIT", "ISC", "CC-BY-4.0", "CC0-1.0"}
    assert sum(row["icons"] for row in DOCUMENT["collections"]) == DOCUMENT["facts"]["icons"]["pairs"] >= 50_000


@pytest.mark.parametrize(
    ("icon", "styles", "caption"),
    [
        ("cloud-off-outline", ("outline",), "cloud off"),
        ("add--filled", ("filled",), "add"),
        ("home-2-bold-duotone", ("bold", "bold-duotone", ""), "home"),
        ("outline", ("outline",), "outline"),
        ("alert-twotone-loop", ("twotone", "loop"), "alert"),
    ],
)
def test_one_concept_has_one_caption(icon: str, styles: tuple[str, ...], caption: str) -> None:
    assert concept(icon, styles) == caption
