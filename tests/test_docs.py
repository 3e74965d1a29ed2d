"""The documentation is what the code says, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clipvet.cli.bench import Row, Table
from clipvet.cli.registries import Kind, methods
from clipvet.models.families import FAMILIES
from clipvet.models.recognise import FAMILY
from docs import build

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clipvet/**/*.md")])


def test_generated_pages_are_up_to_date() -> None:
    made = build.pages()
    stale = [
        str(path) for path, text in made.items() if not (build.DOCS / path).exists() or (build.DOCS / path).read_text() != text
    ]
    assert stale == [], "run `make docs`"
    kept = {path.relative_to(build.DOCS) for path in (build.DOCS / "methods").glob("*.md")}
    assert kept - set(made) == set(), "run `make docs`"


def test_every_method_has_a_page_and_a_line_in_the_index() -> None:
    made = build.pages()
    index = made[Path("methods/README.md")]
    found = [method for kind in Kind for method in methods(kind)]
    assert len(found) >= 15
    for method in found:
        page = Path("methods") / f"{build.WORDS[method.kind][0]}-{method.name}.md"
        assert f"# {method.cls.__name__}\n" in made[page]
        assert f"({page.name})" in index


def test_a_table_of_results_becomes_markdown() -> None:
    row = Row(what="right | wrong", measured=0.5, interval=(0.4, 0.6), reported=None, unit="", source="")
    table = Table(
        name="zoo", topic="inspect", title="Zoo", command="make zoo", machine="2 cores", rows=(row,), notes=("One seed.",)
    )
    text = build._measured([table])
    assert "| right \\| wrong | 0.5 [0.4, 0.6] | – |  |" in text
    assert "`benchmarks/results/zoo.json`, from `make zoo`, on 2 cores." in text
    assert text.endswith("One seed.\n")
    assert build._measured([]).endswith("no results in this checkout yet.\n")


def test_attacks_that_took_stand_in_the_page_of_scans() -> None:
    cells = {
        "itself": {"slof-dense, k = 9": {"fpr95": 0.0012}, "dao, k = 9": {"fpr95": 0.5}, "slof, k = 9": {"fpr95": 1.0}},
        "both": {"clip-gap": {"fpr95": 1.0}, "slof-dense+clip-gap, k = 9": {"fpr95": 0.25}},
    }
    took = {"settings": {"attack": "sig-pairs", "scratch": True}, "asr": 0.914, "cells": cells, "poisoned": 9, "pairs": 1000}
    weak = {"settings": {"attack": "wanet-pairs", "scratch": False}, "asr": 0.1}
    page = build._attacks(f"before\n{build.MARKS[0]}\nold\n{build.MARKS[1]}\nbehind\n", [took, weak])
    row = "| `sig-pairs`, trained from scratch | 9 of 1,000 | 91 % | 0.12 % | 50.00 % | 25.00 % |"
    assert page.splitlines()[4:6] == [row, build.MARKS[1]]
    assert page.startswith("before\n")
    assert page.endswith("\nbehind\n")
    assert build._attacks(page, [took, weak]) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    inner = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in inner if not (page.parent / link).exists()] == []


def test_the_formats_page_names_every_family() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    readable = {family.title for family in FAMILY.values() if not family.unsupported}
    refused = {family.title for family in FAMILY.values() if family.unsupported}
    assert len(readable) >= 10
    assert [title for title in sorted(readable | refused) if title not in text] == []
    assert set(FAMILIES) - {"zero-shot"} <= set(FAMILY)


def test_the_model_card_says_what_the_backbones_files_say() -> None:
    assets = ROOT / "clipvet" / "pocket" / "assets"
    card = (assets / "MODEL_CARD.md").read_text(encoding="utf-8")
    facts = [json.loads((assets / f"pocket-{seed}.json").read_text(encoding="utf-8")) for seed in (0, 1)]
    for figure in ("top1", "top5"):
        first, second = (f"{100 * fact['held_out_zero_shot'][figure]:.1f} %" for fact in facts)
        assert f"| held-out zero-shot top-{figure[3:]} | {first} | {second} |" in card
    steps = (f"{fact['steps']:,}" for fact in facts)
    assert f"| steps of training | {' | '.join(steps)} |" in card
    assert [fact["seed"] for fact in facts] == [0, 1]
    for fact in facts:
        held = fact["held_out_zero_shot"]
        assert f"{fact['pictures']:,} pictures with their names" in card
        assert f"({held['images']:,} pictures, {held['names']:,} names)" in card
        assert f"batches of {fact['batch']}" in card
    parameters = sum(tensor.numel() for tensor in load_file(assets / "pocket-0.safetensors").values())
    assert f"{parameters / 1e6:.2f} million" in card


def test_the_words_clean_and_safe_are_never_a_verdict() -> None:
    text = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8") + (ROOT / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"verdict[^.\n]*\b(is|says|of) \"?(clean|safe)\b", text, flags=re.IGNORECASE)
