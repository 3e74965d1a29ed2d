"""What a scan costs: scores against the published way and a bare product, growth with the number of rows, and the feature pipeline.

    python -m benchmarks.scan_speed [--only scoring,large,default,growth,pipeline]

- ``scoring``: SLOF and DAO of a batch against itself at 2,048 x 512 and 4,096 x 512, beside the published way of computing the same
  (every row sorted whole, for every query the whole sorted rows of its neighbours picked out) and beside one matrix product with
  a top-k; in turn, and the largest difference of a score;
- ``large``: 100,000 queries against 100,000 references in chunks, and beside a quarter of the queries;
- ``default``: rows as ``clipvet scan`` scores them when nothing is stated, of 1 % poison;
- ``growth``: time and peak memory from 10,000 to 10 million rows against one reference, each in a process of its own;
- ``pipeline``: decode, preprocess, encode and write of images of real size in shards, against the bare encoder.

Each part is written to ``benchmarks/results/scan_speed.json`` when it ends.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.inspect_zoo import RESULTS
from benchmarks.processes import in_fresh_process
from benchmarks.speed import machine
from benchmarks.speed_cells import peak_mib, random_base
from clipvet.data.generated import generate_probes
from clipvet.data.sources import open_pairs
from clipvet.scan import SCORERS
from clipvet.scan.base import PairFeatures, PairScorer
from clipvet.scan.encode import encode_shard
from clipvet.scan.options import ScanOptions, build_scorers
from clipvet.scan.scoring import score_features
from clipvet.scan.store import Store

K, THREADS, WIDTH, BATCH = 16, 2, 512, 2048
REPEATS = 5
Part = dict[str, Any]
Row = dict[str, Any]


def clustered(n: int, seed: int = 0, width: int = WIDTH) -> Tensor:
    """Features in 64 clusters: ``float (n, width)`` of unit length."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    return F.normalize(centres[torch.randint(64, (n,), generator=generator)] + torch.randn(n, width, generator=generator), dim=1)


def pairs(features: Tensor, first: int = 0) -> PairFeatures:
    """Pairs of their own, so that nothing is found in what was looked up before."""
    return PairFeatures(ids=torch.arange(first, first + len(features)), image=features)


def scorers(k: int = K) -> dict[str, PairScorer]:
    """Both density-ratio scorers."""
    return {name: SCORERS[name](k=k) for name in ("slof", "dao")}


def ours(features: Tensor) -> dict[str, Tensor]:
    """Both scores of a batch against itself."""
    batch = pairs(features)
    return {name: torch.from_numpy(found) for name, found in score_features(batch, batch, scorers()).items()}


def literal(features: Tensor) -> dict[str, Tensor]:
    """Both scores the published way, without its slips, the work of each scorer done for it alone as there."""
    return {"slof": _literal(features, dimension=False), "dao": _literal(features, dimension=True)}


def _literal(features: Tensor, *, dimension: bool) -> Tensor:
    """Sort all distances, then pick whole sorted rows neighbour by neighbour."""
    full = torch.cdist(features, features)
    full.fill_diagonal_(-1)  # a row is its own first neighbour
    ordered, at = full.sort(dim=1)
    neighbours, radius = at[:, 1 : K + 1], ordered[:, K]
    theirs = torch.stack([ordered.index_select(0, row) for row in neighbours])[:, :, K]
    if not dimension:
        return (radius[:, None] / theirs).mean(1)
    own = -K / (ordered[:, 1 : K + 1] / radius[:, None]).log().sum(1)
    weights = torch.stack([own.index_select(0, row) for row in neighbours])
    return (weights * (radius[:, None] / theirs).log()).mean(1)


def bare(features: Tensor) -> Tensor:
    """One matrix product and a top-k: less no search can do."""
    return (features @ features.T).topk(K + 1).values


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds that it took."""
    start = time.perf_counter()
    result = what()
    return result, time.perf_counter() - start


def part_scoring(sizes: Sequence[int] = (2048, 4096)) -> Part:
    """All three ways in turn, after a first round that is not counted."""
    torch.set_num_threads(THREADS)
    cells = []
    for n in sizes:
        features = clustered(n)
        ways: dict[str, Callable[[], Any]] = {
            "ours": lambda f=features: ours(f),
            "literal": lambda f=features: literal(f),
            "bare": lambda f=features: bare(f),
        }
        rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(REPEATS + 1)]
        seconds = [{name: found[1] for name, found in one.items()} for one in rounds[1:]]
        difference = {name: float((rounds[0]["ours"][0][name] - rounds[0]["literal"][0][name]).abs().max()) for name in scorers()}
        cells.append(
            {
                "rows": n,
                "seconds": {name: median(one[name] for one in seconds) for name in ways},
                "times_faster_than_literal": median(one["literal"] / one["ours"] for one in seconds),
                "times_the_bare_product": median(one["ours"] / one["bare"] for one in seconds),
                "largest_difference": difference,
            }
        )
    return {"width": WIDTH, "k": K, "repeats": REPEATS, "cells": cells}


def part_large() -> Part:
    """Queries against a large reference; the reference's own radii are part of the time."""
    return {"cells": [in_fresh_process("benchmarks.scan_speed", "large", queries=n, references=100_000) for n in (25_000, 100_000)]}


def cell_large(queries: int, references: int) -> Part:
    """DAO and SLOF of ``queries`` in chunks."""
    torch.set_num_threads(THREADS)
    reference, asked = pairs(clustered(references)), clustered(queries, seed=1)
    loaded, chosen = peak_mib(), scorers()
    _, own = timed(lambda: score_features(pairs(asked[:1], 10**9), reference, chosen))
    _, seconds = timed(
        lambda: [score_features(pairs(p, 10**9 + i * BATCH), reference, chosen) for i, p in enumerate(asked.split(BATCH))]
    )
    return {
        "queries": queries,
        "references": references,
        "seconds_reference": own,
        "seconds": seconds,
        "loaded_mib": loaded,
        "peak_mib": peak_mib(),
    }


def part_default() -> Part:
    """A hundred thousand rows with the default scorer, reference and k."""
    return {"cells": [in_fresh_process("benchmarks.scan_speed", "default", rows=n) for n in (10_000, 100_000)]}


def cell_default(rows: int) -> Part:
    """As ``clipvet scan`` does where nothing is stated."""
    options = ScanOptions(out=Path())
    chosen, _ = build_scorers(options)
    return {"reference": options.reference, **scored_by_batch(rows, options.reference, chosen)}


def part_growth() -> Part:
    """Rows from ten thousand to ten million against a reference of 2,048."""
    return {
        "cells": [in_fresh_process("benchmarks.scan_speed", "growth", rows=n) for n in (10_000, 100_000, 1_000_000, 10_000_000)]
    }


def cell_growth(rows: int) -> Part:
    """SLOF and DAO."""
    return scored_by_batch(rows, BATCH, scorers())


def scored_by_batch(rows: int, size: int, chosen: dict[str, PairScorer]) -> Part:
    """Score rows that are drawn batch by batch against a reference of some size; only the scoring is timed."""
    torch.set_num_threads(THREADS)
    reference, seconds, scored = pairs(clustered(size)), 0.0, 0
    for number, start in enumerate(range(0, rows, BATCH)):
        features = clustered(min(BATCH, rows - start), seed=number + 1)
        found, took = timed(lambda f=features, s=start: score_features(pairs(f, 10**9 + s), reference, chosen))
        seconds, scored = seconds + took, scored + int(np.isfinite(next(iter(found.values()))).sum())
    return {"rows": rows, "scored": scored, "seconds": seconds, "peak_mib": peak_mib()}


def part_pipeline(images: int = 384, size: int = 320) -> Part:
    """Encode JPEG files out of tar shards, and as many ready tensors, in turn, with ViT-B/32 and random weights."""
    torch.set_num_threads(THREADS)
    model = random_base("ViT-B-32")
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "data", images, size)
        source, ready = open_pairs([str(folder / "data")]), generate_probes(64, model.image_size, 0)
        captions = ["a picture of something or other"] * len(ready)
        for number in range(4):

            def whole(out: Path = folder / f"out{number}") -> int:
                store = Store(out)
                return sum(int(encode_shard(shard, at, store, model)["pairs"]) for at, shard in enumerate(source.shards))

            def alone() -> None:
                with torch.no_grad():
                    for _ in range(images // len(ready)):
                        model.encode_image(ready)
                        model.encode_text(captions)

            done, seconds = timed(whole)
            assert done == images
            rounds.append((seconds, timed(alone)[1]))
    counted = rounds[1:]
    return {
        "images": images,
        "pixels": size,
        "images_per_second": images / median(s for s, _ in counted),
        "images_per_second_bare": images / median(b for _, b in counted),
        "share": median(b / s for s, b in counted),
    }


def write_shards(folder: Path, images: int, size: int) -> None:
    """Two tar shards of JPEG pictures with captions."""
    folder.mkdir()
    pictures = (generate_probes(32, size, 1).permute(0, 2, 3, 1) * 255).byte().numpy()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(images // 2):
                held = io.BytesIO()
                Image.fromarray(pictures[number % len(pictures)]).save(held, "JPEG", quality=90)
                for suffix, content in (("jpg", held.getvalue()), ("txt", b"a picture of something or other")):
                    info = tarfile.TarInfo(f"{shard}{number:06d}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


PARTS: dict[str, Callable[[], Part]] = {
    "scoring": part_scoring,
    "large": part_large,
    "default": part_default,
    "growth": part_growth,
    "pipeline": part_pipeline,
}
CELLS: dict[str, Callable[..., Part]] = {"large": cell_large, "default": cell_default, "growth": cell_growth}


def rows_scoring(part: Part) -> Iterator[Row]:
    """Size by size."""
    for one in part["cells"]:
        what, seconds = f"SLOF and DAO of {one['rows']:,} x {part['width']} rows, k = {part['k']}", one["seconds"]
        each = " / ".join(f"{seconds[name]:.3f}" for name in ("ours", "literal", "bare"))
        yield {"what": f"{what}: time; the published way; a bare product with top-k", "measured": each, "unit": "s"}
        yield {"what": f"{what}: times faster than the published way", "measured": one["times_faster_than_literal"]}
        yield {"what": f"{what}: time over that of the bare product", "measured": one["times_the_bare_product"]}
        differences = ", ".join(f"{name} {value:.1e}" for name, value in one["largest_difference"].items())
        yield {"what": f"{what}: largest difference of a score from the published way", "measured": differences}


def rows_large(part: Part) -> Iterator[Row]:
    """The reference's own part first."""
    for one in part["cells"]:
        what = f"{one['queries']:,} queries against {one['references']:,} references"
        measured = f"{one['seconds_reference']:.0f} / {one['seconds']:.0f}"
        yield {"what": f"{what}: time for the reference itself / for the queries", "measured": measured, "unit": "s"}
        measured = f"{one['peak_mib']:,.0f}, {one['loaded_mib']:,.0f}"
        yield {"what": f"{what}: peak memory, and with the features alone", "measured": measured, "unit": "MiB"}


def rows_default(part: Part) -> Iterator[Row]:
    """Size by size."""
    for one in part["cells"]:
        measured = f"{one['seconds']:.1f} s; {1e6 * one['seconds'] / one['rows']:.1f} µs a row"
        yield {"what": f"{one['rows']:,} rows, default scorer, reference of {one['reference']:,}: time", "measured": measured}


def rows_growth(part: Part) -> Iterator[Row]:
    """Size by size."""
    for one in part["cells"]:
        what = f"{one['rows']:,} rows against a reference of {BATCH:,}"
        measured = f"{one['seconds']:.1f} s; {1e6 * one['seconds'] / one['rows']:.1f} µs a row"
        yield {"what": f"{what}: time", "measured": measured}
        yield {"what": f"{what}: peak memory", "measured": f"{one['peak_mib']:,.0f}", "unit": "MiB"}


def rows_pipeline(part: Part) -> Iterator[Row]:
    """One line each."""
    what = f"{part['images']} JPEG pictures of {part['pixels']} px in tar shards, ViT-B/32 with random weights"
    yield {"what": f"{what}: pictures and captions a second, features written", "measured": part["images_per_second"]}
    yield {"what": f"{what}: the same through the encoders alone", "measured": part["images_per_second_bare"]}
    yield {"what": f"{what}: share of the encoders' speed", "measured": f"{part['share']:.1%}"}


ROWS: dict[str, Callable[[Part], Iterator[Row]]] = {
    "scoring": rows_scoring,
    "large": rows_large,
    "default": rows_default,
    "growth": rows_growth,
    "pipeline": rows_pipeline,
}


def document(parts: dict[str, Part]) -> Part:
    """The results file."""
    return {
        "title": "What a scan costs",
        "topic": "scan",
        "command": "python -m benchmarks.scan_speed",
        "machine": "; ".join(
            sorted({f"{p['provenance']['cores']} cores of {p['provenance']['processor']}" for p in parts.values()})
        ),
        "rows": [row for name, rows in ROWS.items() if name in parts for row in rows(parts[name])],
        "notes": [
            f"{THREADS} threads; synthetic features in 64 clusters. What is compared was measured in turn in one process: medians, "
            "and ratios by the medians of paired runs. The published way is written anew here, without its two slips: every row is "
            "sorted whole, and whole sorted rows are picked for every query, once for each score. Cells of a large reference "
            "and of growth are single runs, each in a process of its own."
        ],
        "parts": parts,
    }


def main() -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(CELLS[arguments.cell.pop("cell")](**arguments.cell)))
        return
    out = RESULTS / "scan_speed.json"
    parts: dict[str, Part] = json.loads(out.read_text(encoding="utf-8"))["parts"] if out.exists() else {}
    for name in arguments.only.split(","):
        parts[name] = PARTS[name]() | {"provenance": machine()}
        ordered = {part: parts[part] for part in PARTS if part in parts}
        out.write_text(json.dumps(document(ordered), indent=1) + "\n", encoding="utf-8")
        for row in ROWS[name](parts[name]):
            print(f"{row['what']}: {row['measured']} {row.get('unit', '')}", flush=True)


if __name__ == "__main__":
    main()
