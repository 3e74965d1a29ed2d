"""The page and the pictures of ``benchmarks.found``: everything in ``docs/found.md`` comes from the results file."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from pocket_build.shards import SETS

__all__ = ["page", "write_page"]

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS, TILE, PICTURE = 8, (132, 124), 80  # pixels
MARKS = ("devicon", "vscode-icons", "cryptocurrency-color")  # logos, which belong to their owners: counted and not shown
Read = Callable[[set[str]], dict[str, bytes]]
Shown = list[tuple[str, str]]  # key, caption

HEAD = """# What nobody planted

Two sets of real image-text pairs that nobody poisoned, scanned as they are: what do the flagged pairs turn out to be?

```console
python -m pocket_build.icons     # fetch and draw the icons, as tar shards
python -m benchmarks.found       # clipvet scan on both, this page and its pictures
```

Both are scanned with `pocket-0`, which was trained on the first set and on none of the second: about icons its features are a
stranger's. `--scorer dao,clip-score` ranks and flags by `dao` and puts `clip-score` beside it. The numbers
come from [`found.json`](../benchmarks/results/found.json), where every judgement stands with its key.
"""
JUDGED = """
## What the worst hundred are

Looked at one by one. *Rare but right*: the caption fits the picture, and the picture is drawn like few others. *One picture,
several captions* is told by equal pixels.
"""
SHEETS = {
    "groups": "The groups of the icons by `dao`. All are natural: one drawing style with one subject, each caption right.",
    "wrong": "Captions of the pocket's corpus that do not name their picture, found by `clip-score`: keywords and country codes.",
    "blank": "Pictures of one colour: white on white, or the first frame of an animation.",
    "copies": "One picture under several captions: a collection's animations all begin with the same drawing.",
}
END = """
## What follows from it

- The worst pairs by `dao` are not errors. It looks for pairs whose neighbourhood is thin, and here that is a drawing style that few
  pairs have. A flagged pair of an ordinary set is most likely right: look before you drop.
- A large group is no proof. The largest ones, of {largest} pairs, are natural, and yet the verdict is `suspicious`: set
  `--least-group` for your own data, or put the group to the test with `--invert` ([scan](scan.md#a-group-put-to-the-test)).
- Wrong captions are found by `clip-score`, with a model that knows the data: in the first set it puts them on top, in the second,
  which the model does not know, it does not.
- Blank pictures and copies are not what a score looks for. `clipvet scan` counts them apart and names them in `oddities.csv`.

## What was not found

Nothing that looks like a backdoor: no mark, tint or frame that the members of a group share and their captions do not explain.
Beyond the lists above nothing was judged, so that how many wrong captions there are in all is not known.
"""


def page(document: Mapping[str, Any]) -> str:
    """Return ``docs/found.md``."""
    largest = " and ".join(str(found["groups"][0]["size"]) for found in document["facts"].values())
    end = END.format(largest=largest)
    return "\n".join([HEAD, *_corpora(document), JUDGED, *_judged(document), *_sheets(), end, *_sources(document)]) + "\n"


def write_page(document: Mapping[str, Any], read: Mapping[str, Read]) -> None:
    """Write the page and its pictures, for which the shards are read."""
    for name, (corpus, shown) in _shown(document).items():
        _sheet(shown, read[corpus]({key for key, _ in shown})).save(DOCS / f"found-{name}.png", optimize=True)
    (DOCS / "found.md").write_text(page(document), encoding="utf-8")


def _corpora(document: Mapping[str, Any]) -> Iterator[str]:
    names = {"corpus": "the pocket's corpus", "icons": f"{len(document['collections'])} icon collections"}
    facts = [document["facts"][name] for name in names]
    yield "| | " + " | ".join(names.values()) + " |\n|---|---|---|"
    cells: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "pairs": lambda f: f"{f['pairs']:,}",
        "flagged (1 %)": lambda f: f["flagged"],
        "groups among them": lambda f: f"{len(f['groups'])}, of {', '.join(str(group['size']) for group in f['groups'])} pairs",
        "verdict": lambda f: f"`{f['verdict']}`",
        "pictures of one colour; flagged of them": lambda f: f"{len(f['blank'])}; {f['blank_flagged']}",
        "pictures under several captions; pairs; flagged of them": lambda f: (
            f"{len({row['picture'] for row in f['copies']}):,}; {len(f['copies']):,}; {f['copies_flagged']}"
        ),
        "most frequent caption": lambda f: f"*{f['most_frequent'][0][0]}*, by {f['most_frequent'][0][1]} pictures",
    }
    for name, cell in cells.items():
        yield f"| {name} | " + " | ".join(str(cell(found)) for found in facts) + " |"


def _judged(document: Mapping[str, Any]) -> Iterator[str]:
    lists = [(corpus, listed) for corpus in ("corpus", "icons") for listed in ("dao", "clip-score", "random")]
    rows = document["judged"]
    words = [word for word, _ in Counter(row["judgement"] for row in rows).most_common()]
    yield "| | " + " | ".join(f"{corpus}, {listed}" for corpus, listed in lists) + " |"
    yield "|---|" + "---|" * len(lists)
    for word in words:
        counts = [sum((row["corpus"], row["list"], row["judgement"]) == (*at, word) for row in rows) for at in lists]
        yield f"| {word} | " + " | ".join(map(str, counts)) + " |"


def _sheets() -> Iterator[str]:
    for name, words in SHEETS.items():
        yield f"\n![{words}](found-{name}.png)\n\n{words}"


def _sources(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Where the pictures come from\n"
    yield (
        "The first set is the corpus that [NOTICE](../NOTICE) lists; of it, pictures of Noto Emoji, Twemoji, Emoji One and\n"
        "FxEmoji are shown here. The icons are these collections as packaged by Iconify, drawn at 64 px on white; of the\n"
        "collections of logos none but blank ones are shown. None of the authors endorses this project.\n"
    )
    yield "| collection | npm package | author | licence | icons |\n|---|---|---|---|---|"
    for row in document["collections"]:
        package = f"`@iconify-json/{row['collection']}` {row['version']}"
        yield f"| {row['title']} | {package} | {row['author']} | {row['licence']} | {row['icons']:,} |"


def _shown(document: Mapping[str, Any]) -> dict[str, tuple[str, Shown]]:
    """Corpus, and keys and captions of each sheet; the sheet of wrong captions is of the first corpus."""
    facts, captions = document["facts"]["icons"], {row["key"]: row["caption"] for row in document["judged"]}
    wrong = [row["key"] for row in document["judged"] if row["corpus"] == "corpus" and row["judgement"] == "mislabelled"]
    allowed = [key for key in wrong if key.partition("/")[0] in SETS]
    groups = [(key, f"{group['number']}: {key.partition('/')[2]}") for group in facts["groups"] for key in group["keys"]]
    different = {(row["picture"], row["caption"]): row["key"] for row in facts["copies"]}
    by_picture: dict[str, Shown] = {}
    for (picture, caption), key in different.items():
        if key.partition("/")[0] not in MARKS:
            by_picture.setdefault(picture, []).append((key, caption))
    copies = [pair for pairs in by_picture.values() if len(pairs) >= 4 for pair in pairs[:4]]
    return {
        "groups": ("icons", groups),
        "wrong": ("corpus", [(key, captions[key]) for key in dict.fromkeys(allowed)]),
        "blank": ("icons", [(key, key) for key in facts["blank"]]),
        "copies": ("icons", copies[:24]),
    }


def _sheet(shown: Shown, pictures: Mapping[str, bytes]) -> Image.Image:
    """Draw pictures in rows, each with a few lines of text below."""
    width, height = TILE
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(shown) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for at, (key, caption) in enumerate(shown):
        left, top = at % COLUMNS * width, at // COLUMNS * height
        with Image.open(io.BytesIO(pictures[key])) as picture:
            sheet.paste(picture.convert("RGB").resize((PICTURE, PICTURE)), (left + (width - PICTURE) // 2, top + 4))
        edge = left + (width - PICTURE) // 2
        draw.rectangle((edge - 1, top + 3, edge + PICTURE, top + 4 + PICTURE), outline="#bbbbbb")
        for line, text in enumerate(textwrap.wrap(caption, 21)[:3]):
            draw.text((left + 4, top + 7 + PICTURE + 11 * line), text, fill="black")
    return sheet
