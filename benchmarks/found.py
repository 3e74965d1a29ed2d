"""What a scan finds where nobody planted anything: the clean pocket corpus, and icon collections that the pocket never saw.

    python -m pocket_build.icons
    python -m benchmarks.found

Scans both with the command line (``pocket-0``, ranked by ``dao``, and ``clip-score`` beside it) in ``pocket_build/work/found``,
which keeps the features, and writes ``benchmarks/results/found.json``, ``docs/found.md`` and its pictures. What the worst and some
random pairs really are was judged by eye: the judgements stand in ``found.json`` by list and key and are kept when this runs again;
a pair that was never looked at is ``not judged``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.found_page import write_page
from benchmarks.inspect_zoo import RESULTS, provenance
from pocket_build.corpus import WORK
from pocket_build.icons import ICONS, PER_SHARD, write_shard
from pocket_build.poisoned import rendered

Row = dict[str, Any]
FOUND = WORK / "found"
LISTED = 100
CORPORA = {"corpus": (WORK / "corpus_pairs", "the pocket's corpus"), "icons": (ICONS, "icon collections")}
LISTS = {"dao": "the worst by dao", "clip-score": "the worst by clip-score", "random": "drawn at random"}
NOTES = [
    "Nothing was planted in either. The pocket was trained on the first corpus and on none of the icons, so that its features of "
    "those are out of its domain. Icons are drawn at their first frame, and no blank one is left out.",
    "Judged by eye, once, from pictures of 80 px with captions. 'Rare but right' is a pair whose caption fits its picture; 'one "
    "picture, several captions' was counted by equal pixels and not judged.",
]


def write_corpus(folder: Path) -> None:
    """Write the pocket's training pairs as tar shards."""
    folder.mkdir(parents=True, exist_ok=True)
    images, pairs = rendered()
    for number, start in enumerate(range(0, len(pairs), PER_SHARD)):
        path = folder / f"{number:05d}.tar"
        if not path.exists():
            part = zip(images[start : start + PER_SHARD], pairs[start : start + PER_SHARD], strict=True)
            write_shard(path, ((key, caption, png(image.permute(1, 2, 0).numpy())) for image, (key, caption) in part))


def png(pixels: np.ndarray) -> bytes:
    """Encode ``uint8 (h, w, 3)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def scan(name: str) -> Path:
    """Scan one of the two from the command line; what is done already is not done again."""
    data, out = CORPORA[name][0], FOUND / name
    command = [sys.executable, "-m", "clipvet", "scan", str(data), "--model", "pocket-0", "--scorer", "dao,clip-score"]
    subprocess.run([*command, "--out", str(out)], check=False)  # noqa: S603  # our own command; 1 is a finding
    return out


def captions_of(out: Path) -> dict[str, str]:
    """Map key to caption, of all pairs of a scan."""
    tables = [pq.read_table(path, columns=["key", "caption"]) for path in sorted(out.glob("features/metadata/*.parquet"))]
    return {key: text for table in tables for key, text in zip(*(table[n].to_pylist() for n in ("key", "caption")), strict=True)}


def lists_of(out: Path, keys: list[str]) -> dict[str, list[str]]:
    """Return the keys of the worst pairs by each scorer, and of random ones."""
    table = pq.read_table(out / "scores.parquet", columns=["key", "dao", "clip-score"])
    named = table["key"].to_pylist()
    found = {}
    for scorer in ("dao", "clip-score"):
        order = np.argsort(-np.nan_to_num(table[scorer].to_numpy(), nan=-np.inf), kind="stable")[:LISTED]
        found[scorer] = [named[at] for at in order]
    ordered = sorted(keys)
    return found | {"random": [ordered[at] for at in np.random.default_rng(0).permutation(len(ordered))[:LISTED]]}


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table of a scan; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def judged(name: str, out: Path, before: dict[str, Row]) -> list[Row]:
    """Rows of list, key, caption and judgement; copies under several captions are told by their pixels."""
    captions = captions_of(out)
    copies = {row["key"] for row in read_table(out / "oddities.csv") if row["kind"] == "several captions"}
    rows = []
    for listed, keys in lists_of(out, list(captions)).items():
        for rank, key in enumerate(keys, 1):
            known = before.get(f"{name}/{listed}/{key}", {}).get("judgement", "not judged")
            word = (
                "one picture, several captions" if key in copies and known in ("right", "rare but right", "not judged") else known
            )
            rows.append({"corpus": name, "list": listed, "rank": rank, "key": key, "caption": captions[key], "judgement": word})
    return rows


def facts_of(out: Path) -> Row:
    """What the scan's own files say: counts, groups, and what no score sees."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    suspects, odd = read_table(out / "suspects.csv"), read_table(out / "oddities.csv")
    flagged = {row["key"] for row in suspects}
    groups = [
        {
            "number": group["number"],
            "size": group["size"],
            "caption": group["caption"],
            "keys": [row["key"] for row in suspects if row["group"] == str(group["number"])],
        }
        for group in report["groups"]
    ]
    kinds = {kind: [row for row in odd if row["kind"] == kind] for kind in ("one colour", "several captions")}
    return {
        "pairs": report["counts"]["pairs"],
        "scored": report["counts"]["scored"],
        "flagged": report["counts"]["flagged"],
        "verdict": report["verdict"],
        "groups": groups,
        "blank": [row["key"] for row in kinds["one colour"]],
        "blank_flagged": sum(row["key"] in flagged for row in kinds["one colour"]),
        "copies": [{n: row[n] for n in ("picture", "key", "caption", "captions")} for row in kinds["several captions"]],
        "copies_flagged": sum(row["key"] in flagged for row in kinds["several captions"]),
        "most_frequent": Counter(captions_of(out).values()).most_common(3),
    }


def table_rows(facts: dict[str, Row], judgements: list[Row]) -> list[Row]:
    """The table of results: what was flagged, and what the lists are, by judgement."""
    rows: list[Row] = []
    for name, found in facts.items():
        what = CORPORA[name][1]
        largest = ", ".join(str(group["size"]) for group in found["groups"]) or "none"
        pictures = len({row["picture"] for row in found["copies"]})
        rows += [
            {
                "what": f"{what}: pairs; flagged; verdict",
                "measured": f"{found['pairs']:,}; {found['flagged']:,}; {found['verdict']}",
            },
            {"what": f"{what}: sizes of the groups", "measured": largest},
            {"what": f"{what}: blank; flagged of them", "measured": f"{len(found['blank'])}; {found['blank_flagged']}"},
            {
                "what": f"{what}: pictures with several captions; pairs; flagged of them",
                "measured": f"{pictures:,}; {len(found['copies']):,}; {found['copies_flagged']}",
            },
        ]
        for listed, words in LISTS.items():
            counts = Counter(row["judgement"] for row in judgements if (row["corpus"], row["list"]) == (name, listed))
            text = "; ".join(f"{count} {word}" for word, count in counts.most_common())
            rows.append({"what": f"{what}, {LISTED} {words}", "measured": text})
    return rows


def pictures_of(folder: Path, keys: set[str]) -> dict[str, bytes]:
    """Read some pictures out of the shards."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key = member.name.removesuffix(".png")
                if key in keys and (file := archive.extractfile(member)):
                    found[key] = file.read()
    return found


def main() -> None:
    """Scan both, join the judgements, and write the results and the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_corpus(CORPORA["corpus"][0])
    file = RESULTS / "found.json"
    old = json.loads(file.read_text(encoding="utf-8"))["judged"] if file.exists() else []
    before = {f"{row['corpus']}/{row['list']}/{row['key']}": row for row in old}
    outs = {name: scan(name) for name in CORPORA}
    judgements = [row for name, out in outs.items() for row in judged(name, out, before)]
    facts = {name: facts_of(out) for name, out in outs.items()}
    document = {
        "title": "What a scan finds where nobody planted anything",
        "topic": "scan",
        "command": "python -m benchmarks.found",
        "machine": provenance()["machine"],
        "rows": table_rows(facts, judgements),
        "notes": NOTES,
        "facts": facts,
        "collections": json.loads((ICONS / "collections.json").read_text(encoding="utf-8")),
        "judged": judgements,
        "provenance": provenance(),
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_page(document, {name: lambda keys, name=name: pictures_of(CORPORA[name][0], keys) for name in CORPORA})
    print("\n".join(f"{row['what']}: {row['measured']}" for row in document["rows"]))


if __name__ == "__main__":
    main()
