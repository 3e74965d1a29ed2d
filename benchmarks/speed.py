"""What an inspection costs: passes through the tower, time, memory, and what a real size would take.

    python -m benchmarks.speed [--only passes,classes,cut,real,full]

- ``passes``: the default check against one epoch over all probe images per class, judged by the same statistic and as
  CLIP-Inspector is published, on a clean and a backdoored delivery of the zoo: images forward and backward as a hook counts them,
  time, and what each says;
- ``classes``: time and peak memory of the default check against the number of classes and of probe images;
- ``cut``: CoCoOp's text encoding with and without the cut behind the last end-of-text token;
- ``real``: the search's step at the size of ViT-B/32 and ViT-B/16 with random weights, and what 50 classes would take;
- ``full``: a whole inspection of 50 classes at the size of ViT-B/32.

Each part is written to ``benchmarks/results/speed.json`` when it ends. What is compared is measured in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.processes import in_fresh_process
from benchmarks.speed_cells import (
    POCKET_THREADS,
    REAL_CLASSES,
    REAL_THREADS,
    Part,
    cell_classes,
    cell_full,
    cell_real,
    compare,
    measure_cut,
)
from benchmarks.speed_table import default_digest, document, print_table
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.pocket.tasks import load_task
from clipvet.pocket.zoo import ZooEntry, entries

FAMILIES = ("coop", "maple", "ivlp", "vpt", "cocoop")  # of which the first that has a pair in the zoo is compared
TYPICAL_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured; ``repeats`` are paired runs, ``at_once`` the classes that share a pass at real size."""

    probes: int = 1000
    repeats: int = 3
    pairs: int = 1
    classes: tuple[int, ...] = (10, 50, 200)
    probe_counts: tuple[int, ...] = (100, 1000)
    cut: tuple[tuple[str, int, int], ...] = (("pocket-0", 50, 16), ("ViT-B-16", 10, 4))  # classes, images
    architectures: tuple[str, ...] = ("ViT-B-32", "ViT-B-16")
    whole: tuple[str, ...] = ("ViT-B-32",)
    at_once: tuple[int, int] = (1, 2)
    steps: int = 3
    check: Mapping[str, Any] = field(default_factory=dict)


QUICK = Scale(
    probes=64,
    repeats=1,
    pairs=1,
    classes=(10,),
    probe_counts=(64,),
    cut=(("pocket-0", 3, 2),),
    architectures=("ViT-B-32",),
    whole=(),
    steps=1,
    check={"screen_steps": 1, "refine_steps": 1, "evaluation": 16},
)


def choose(listed: Sequence[ZooEntry], pairs: int) -> list[ZooEntry]:
    """Pairs of a clean and a backdoored delivery of one task and backbone, each of another family, of 10 classes if there are."""
    chosen: list[ZooEntry] = []
    for family in FAMILIES:
        of_family = [entry for entry in listed if entry.family == family]
        clean = {(entry.task, entry.base): entry for entry in of_family if not entry.backdoored}
        bad = [entry for entry in of_family if entry.backdoored and (entry.task, entry.base) in clean]
        bad.sort(key=lambda entry: abs(len(load_task(entry.task).class_names) - TYPICAL_CLASSES))
        chosen += [one for entry in bad[:1] for one in (clean[entry.task, entry.base], entry)]
    return chosen[: 2 * pairs]


def part_passes(scale: Scale) -> Part:
    """The default check against the exhaustive epoch per class."""
    torch.set_num_threads(POCKET_THREADS)
    compared = [
        compare(entry, repeats=scale.repeats, n_probes=scale.probes, settings=scale.check)
        for entry in choose(entries(), scale.pairs)
    ]
    return {
        "threads": POCKET_THREADS,
        "repeats": scale.repeats,
        "probes": scale.probes,
        "k": ClipInspector.k,
        "deliveries": compared,
    }


def part_classes(scale: Scale) -> Part:
    """Time and memory against the number of classes and of probe images, one run and one process each."""
    grid = [(classes, probes) for classes in scale.classes for probes in scale.probe_counts]
    cells = [in_fresh_process("benchmarks.speed", "classes", classes=c, probes=p, settings=dict(scale.check)) for c, p in grid]
    return {"threads": POCKET_THREADS, "cells": cells}


def part_cut(scale: Scale) -> Part:
    """What the cut behind the last end-of-text token saves."""
    torch.set_num_threads(POCKET_THREADS)
    bases = [measure_cut(name, classes, images, scale.repeats) for name, classes, images in scale.cut]
    return {"threads": POCKET_THREADS, "repeats": scale.repeats, "bases": bases}


def measure_real(architecture: str, scale: Scale) -> Part:
    """Two sizes of a pass, from which the memory of a full one and the time of an inspection are projected."""
    cells = [
        in_fresh_process("benchmarks.speed", "real", architecture=architecture, at_once=k, steps=scale.steps, n_probes=scale.probes)
        for k in scale.at_once
    ]
    few, many = cells
    per_image = (many["peak_mib"] - few["peak_mib"]) / (many["images_per_step"] - few["images_per_step"])
    return {
        "architecture": architecture,
        "cells": cells,
        "seconds_per_class_and_step": many["seconds_per_step"] / many["classes_at_once"],
        "projected_seconds": many["seconds_per_image"] * many["passes"],
        "mib_per_image": per_image,
        "projected_peak_mib": few["peak_mib"] + per_image * (few["chunk"] - few["images_per_step"]),
    }


def part_real(scale: Scale) -> Part:
    """The search's step at real size, and what an inspection of 50 classes would take."""
    sizes = [measure_real(architecture, scale) for architecture in scale.architectures]
    return {"threads": REAL_THREADS, "classes": REAL_CLASSES, "steps": scale.steps, "sizes": sizes}


def part_full(scale: Scale) -> Part:
    """A whole inspection at real size."""
    cells = [in_fresh_process("benchmarks.speed", "full", architecture=name, n_probes=scale.probes) for name in scale.whole]
    return {"threads": REAL_THREADS, "cells": cells}


PARTS: dict[str, Callable[[Scale], Part]] = {
    "passes": part_passes,
    "classes": part_classes,
    "cut": part_cut,
    "real": part_real,
    "full": part_full,
}
CELLS: dict[str, Callable[..., Part]] = {"classes": cell_classes, "real": cell_real, "full": cell_full}


def machine() -> dict[str, str]:
    """What :func:`benchmarks.inspect_zoo.provenance` says, with the processor and its cores."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.exists() else None
    return {**provenance(), "processor": found[1] if found else platform.processor(), "cores": str(os.cpu_count())}


def measure_parts(wanted: Sequence[str], scale: Scale, out: Path) -> Part:
    """Measure part after part, and write the file after each."""
    parts: dict[str, Part] = json.loads(out.read_text(encoding="utf-8"))["parts"] if out.exists() else {}
    for name in wanted:
        start = time.perf_counter()
        parts[name] = PARTS[name](scale) | {"provenance": machine(), "check": default_digest()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document(parts), indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return document(parts)


def main() -> None:
    """Measure the parts that were asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--out", type=Path, help="results file (default: benchmarks/results/speed.json)")
    parser.add_argument(
        "--quick", action="store_true", help="a scale at which numbers mean nothing, to see that all runs; needs --out"
    )
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(CELLS[arguments.cell.pop("cell")](**arguments.cell)))
        return
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if arguments.quick and arguments.out is None:
        parser.error("--quick needs --out: its numbers mean nothing")
    print_table(measure_parts(wanted, QUICK if arguments.quick else Scale(), arguments.out or RESULTS / "speed.json"))


if __name__ == "__main__":
    main()
