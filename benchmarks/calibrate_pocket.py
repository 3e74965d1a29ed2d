"""Can a null be made of prompts that clipvet tunes itself? References as ``clipvet calibrate`` makes them, against the pocket zoo.

    python -m benchmarks.calibrate_pocket

References are tuned on images from three sources: generated ones and pictures, both labelled by the base itself, and labelled shots
of the pocket tasks. Each source gives a null. Against it stand the zoo's deliveries, whose statistics are those of
``benchmarks.inspect_zoo``: how far the clean ones are distributed alike (Kolmogorov-Smirnov), how many of them exceed the null's
threshold, and how many of the backdoored ones still do.

Resumable; rows in ``benchmarks/results/calibrate_pocket_rows.json``. Writes ``benchmarks/results/calibrate_pocket.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from benchmarks.inspect_zoo import RESULTS, provenance
from benchmarks.inspect_zoo import ROWS as ZOO_ROWS
from clipvet.cli.planting import BASES
from clipvet.data.generated import generate_probes
from clipvet.inspection.base import Run
from clipvet.inspection.calibrating import POOL, POOL_SEED
from clipvet.inspection.calibration import CERTAIN_RATE, FLAG_RATE, settings_digest, threshold
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.references import Recipe, Reference, default_families, tune_reference
from clipvet.inspection.shots import SHOTS, PseudoLabelled, Shots
from clipvet.inspection.subject import CONCEPTS, subject_of
from clipvet.metrics import wilson_interval
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.pocket.tasks import load_task, probe_pool, task_names

ROWS = RESULTS / "calibrate_pocket_rows.json"
CHECK = MarginResidual()
SETTINGS = settings_digest(CHECK.name, asdict(CHECK))
BAND = (10, 30)  # of the zoo
LEAST_NULL = 4
SOURCES = {
    "generated": "generated images that the base labels",
    "pictures": "pictures that the base labels",
    "labelled": "labelled pictures",
}
Row = dict[str, Any]


class TaskShots:
    """Labelled shots of the classes of all pocket tasks, of another seed than the zoo's; where two share a name, the first."""

    identity = "pocket tasks"

    def __init__(self, seed: int = 7) -> None:
        self._images: dict[str, Tensor] = {}
        for task in (load_task(name, shots=SHOTS, seed=seed) for name in task_names()):
            images, labels = task.train_images()
            for label, name in enumerate(task.class_names):
                self._images.setdefault(name, images[labels == label])
        self.names = tuple(self._images)

    def take(self, names: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """Give the shots of these classes; see :class:`clipvet.inspection.shots.Shots`."""
        parts = [self._images[name] for name in names]
        return torch.cat(parts), torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))


@cache
def opened(source: str, name: str) -> tuple[ClipModel, Shots, tuple[str, ...]]:
    """The base, what its references are tuned on, and the class names that are drawn from."""
    base = load_base(name)
    if source == "labelled":
        shots = TaskShots()
        return base, shots, shots.names
    images = probe_pool(POOL, 1) if source == "pictures" else generate_probes(POOL, base.image_size, POOL_SEED)
    return base, PseudoLabelled(base, images), CONCEPTS


def measure(source: str, number: int, families: tuple[str, ...]) -> Row:
    """Make one reference and run the check on it; only the search that its statistic rests on is run."""
    torch.set_num_threads(1)
    start, base_name = time.time(), BASES[number % len(BASES)]
    base, shots, names = opened(source, base_name)
    draw = Recipe(families=families, names=names, classes=BAND).draw(number)
    tuned, share = tune_reference(base, draw, shots)
    check = replace(CHECK, keep=1, refine_steps=1)
    subject, _ = subject_of(tuned, base, check)
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    result = check.run(subject, generate_probes(1000, base.image_size, 0), run)
    made = Reference(draw=draw, statistic=result.statistic, accuracy=share)
    return {
        "source": source,
        "number": number,
        "settings": SETTINGS,
        "families": list(families),
        "base": base_name,
        "family": draw.family,
        "classes": len(draw.class_names),
        "accuracy": made.accuracy,
        "learned": made.learned,
        "statistic": made.statistic,
        "seconds": time.time() - start,
    }


def against(values: list[float], clean: list[float], bad: list[float]) -> Row:
    """Set a null against the zoo: both distributions, and who exceeds the thresholds."""
    flag, certain = threshold(values, FLAG_RATE), threshold(values, CERTAIN_RATE)
    test = ks_2samp(values, clean)
    counts = {
        "clean_flagged": (sum(v > flag for v in clean), len(clean)),
        "backdoored_flagged": (sum(v > flag for v in bad), len(bad)),
        "backdoored_certain": (sum(v > certain for v in bad), len(bad)),
    }
    shares = {name: {"count": count, "of": of, "interval": wilson_interval(count, of)} for name, (count, of) in counts.items()}
    return {"references": len(values), "flag": flag, "certain": certain, "ks": test.statistic, "ks_p": test.pvalue, **shares}


WORDS = {
    "clean_flagged": "clean deliveries of the zoo flagged",
    "backdoored_flagged": "backdoored deliveries of the zoo flagged",
    "backdoored_certain": "backdoored deliveries of the zoo beyond the second threshold",
}


def table(judged: dict[str, Row]) -> list[Row]:
    """Rows for the generated documentation."""
    rows = []
    for label, cell in judged.items():
        for key, words in WORDS.items():
            part = cell[key]
            rows.append(
                {"what": f"{words} ({label})", "measured": f"{part['count']} of {part['of']}", "interval": part["interval"]}
            )
        rows.append({"what": f"threshold ({label})", "measured": cell["flag"]})
        ks = f"{cell['ks']:.2f} (p = {cell['ks_p']:.3f})"
        rows.append({"what": f"Kolmogorov-Smirnov distance to the zoo's clean deliveries ({label})", "measured": ks})
    return rows


def zoo() -> tuple[list[Row], list[Row]]:
    """Rows of the clean and of the backdoored deliveries, measured with the same settings."""
    rows = [row for row in json.loads(ZOO_ROWS.read_text(encoding="utf-8")) if row["settings"] == SETTINGS]
    return [row for row in rows if row["attack"] is None], [row for row in rows if row["attack"] is not None]


def write(rows: list[Row]) -> None:
    """Judge what there is, and write the result."""
    clean, bad = ([row["statistic"] for row in part] for part in zoo())
    judged = {}
    for source, words in SOURCES.items():
        part = [row for row in rows if row["source"] == source]
        values = [row["statistic"] for row in part if row["learned"]]
        if len(values) >= LEAST_NULL:
            judged[f"{len(values)} references on {words}"] = against(values, clean, bad)
    document = {
        "title": "Nulls of prompts that clipvet tunes itself, against the pocket zoo",
        "topic": "inspect",
        "command": "python -m benchmarks.calibrate_pocket",
        "machine": provenance()["machine"],
        "rows": table(judged),
        "notes": [
            f"References of {BAND[0]} to {BAND[1]} classes, on both pocket backbones in turn, {SHOTS} images per class; "
            f"families: {', '.join(sorted({row['family'] for row in rows}))}. "
            f"{sum(not row['learned'] for row in rows)} references did not learn the labels of their images and are left out. "
            f"Thresholds at 1 in {1 / FLAG_RATE:.0f} and 1 in {1 / CERTAIN_RATE:.0f} of a fitted Gumbel distribution, "
            "taken as they are: with labels of the base's own, an inspection takes no threshold below its constant, and never the "
            "second one.",
            "The labelled pictures are of the zoo's own tasks, drawn anew and mixed; those that the base labels share neither a "
            "name nor a group with them.",
        ],
        "judged": judged,
        "runs": rows,
        "provenance": provenance(),
    }
    (RESULTS / "calibrate_pocket.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["rows"], indent=1))


def main() -> None:
    """Measure what is missing, judge, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=int, default=99, help="per source")
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--families", default=",".join(default_families(load_base(BASES[0]))))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    families = tuple(arguments.families.split(","))
    rows: list[Row] = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []
    like = (SETTINGS, list(families))
    rows = [row for row in rows if (row["settings"], row["families"]) == like]  # what was measured otherwise is measured anew
    done = {(row["source"], row["number"]) for row in rows}
    wanted = [(source, number) for number in range(arguments.references) for source in arguments.sources.split(",")]
    todo = [one for one in wanted if one not in done]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(measure, *zip(*todo, strict=True), [families] * len(todo)) if todo else ():
            rows.append(row)
            ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            print({name: row[name] for name in ("source", "number", "family", "classes", "accuracy", "statistic")}, flush=True)
    write(rows)


if __name__ == "__main__":
    main()
