"""The speed benchmark's measurements as rows that ``clipvet bench`` and the documentation show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from clipvet.cli.bench import cell
from clipvet.inspection.calibration import settings_digest
from clipvet.inspection.margin_residual import MarginResidual

__all__ = ["default_digest", "document", "print_table"]

Part = dict[str, Any]
Row = dict[str, Any]


def row(what: str, measured: float | str, unit: str = "") -> Row:
    """One line of the table."""
    return {"what": what, "measured": measured, "unit": unit}


def whole(number: float) -> str:
    """A number without decimals, thousands apart."""
    return f"{number:,.0f}"


def rows_passes(part: Part) -> Iterator[Row]:
    """Default check and one epoch per class, delivery by delivery."""
    for one in part["deliveries"]:
        sides = [one[name] for name in ("default", "exhaustive", "published")]
        kind = f"backdoored, target '{one['target']}'" if one["attack"] else "clean"
        what = f"{one['family']}, {one['task']}, {one['classes']} classes, {kind}"
        each = "default / exhaustive / exhaustive as published"
        for way in ("forward", "backward"):
            yield row(f"{what}: images {way}, {each}", " / ".join(whole(side[way]) for side in sides))
        yield row(f"{what}: time, {each}", " / ".join(f"{side['seconds']:.1f}" for side in sides), "s")
        yield row(f"{what}: time over that of the default, run by run, {each}", " / ".join(f"{s['ratio']:.1f}" for s in sides))
        yield row(f"{what}: outcome, {each}", " / ".join(_outcome(side) for side in sides))


def _outcome(side: Part) -> str:
    return f"{side['names']} flagged" if side["flagged"] else "nothing flagged"


def rows_classes(part: Part) -> Iterator[Row]:
    """Cell by cell."""
    for one in part["cells"]:
        searched = f" ({one['searched']} names searched)" if one["searched"] > one["classes"] else ""
        what = f"default check, {one['classes']} classes{searched}, {one['probes']} probe images"
        yield row(f"{what}: time", one["seconds"], "s")
        yield row(f"{what}: peak memory, and before the search", f"{whole(one['peak_mib'])}, {whole(one['loaded_mib'])}", "MiB")


def rows_cut(part: Part) -> Iterator[Row]:
    """Base by base."""
    for one in part["bases"]:
        kept = f"{one['positions_kept']} of {one['positions']} positions"
        what = f"CoCoOp texts on {one['base']}, {one['images']} images of {one['classes']} classes, {kept}"
        for way in ("forward", "forward and backward"):
            yield row(f"{what}: time without the cut over time with it, {way}", one[way]["ratio"], "times")
        yield row(f"{what}: largest difference of a feature", f"{one['forward']['largest_difference']:.1e}")


def rows_real(part: Part) -> Iterator[Row]:
    """Architecture by architecture; projections say that they are."""
    for one in part["sizes"]:
        last, what = one["cells"][-1], f"{one['architecture']}, random weights, {part['threads']} threads"
        each = last["images_per_step"] // last["classes_at_once"]
        yield row(f"{what}: one step of {each} images for one class", one["seconds_per_class_and_step"], "s")
        yield row(f"{what}: peak memory, {last['images_per_step']} images in a pass", whole(last["peak_mib"]), "MiB")
        yield row(f"{what}: peak memory, {last['chunk']} images in a pass, projected", whole(one["projected_peak_mib"]), "MiB")
        yield row(f"{what}: default check of {part['classes']} classes, projected", one["projected_seconds"] / 3600, "h")


def rows_full(part: Part) -> Iterator[Row]:
    """Inspection by inspection."""
    for one in part["cells"]:
        what = f"{one['architecture']}, random weights, {part['threads']} threads, CoOp, {one['classes']} classes: whole inspection"
        yield row(f"{what}, controls included: time", one["seconds"] / 60, "min")
        yield row(f"{what}: images forward, backward", f"{whole(one['forward'])}, {whole(one['backward'])}")
        yield row(f"{what}: peak memory", whole(one["peak_mib"]), "MiB")


def default_digest() -> str:
    """Identify the settings of the default check."""
    return settings_digest(MarginResidual.name, asdict(MarginResidual()))


def notes(parts: Mapping[str, Part]) -> Iterator[str]:
    """What one must know to read the rows of the parts that were measured."""
    yield "What is compared was measured in turn in one process; times are medians, ratios the medians over paired runs."
    if older := [name for name, part in parts.items() if name != "cut" and part.get("check") != default_digest()]:
        yield f"Measured with earlier settings of the default check: {', '.join(older)}."
    if "passes" in parts:
        yield (
            "*Exhaustive* is one epoch over all probe images for every class, judged by the default's own statistic (against the "
            "constant threshold, since the shipped null is the default's); *as published* is CLIP-Inspector, run once and flagged "
            f"above an anomaly index of {parts['passes']['k']:g}. Images were counted by a hook on the tower's first layer, "
            "backward where a gradient came back to the pixels. Positive controls are left out on all sides."
        )
    if "classes" in parts:
        yield "Times against the number of classes are single runs, each in a process of its own."
    if "real" in parts:
        yield (
            "Projected: time is the measured time of an image forward and backward times the passes that the check announces, so "
            "it is too high by what the images without a backward pass save; memory is a line through two sizes of a pass."
        )


ROWS: dict[str, Callable[[Part], Iterator[Row]]] = {
    "passes": rows_passes,
    "classes": rows_classes,
    "cut": rows_cut,
    "real": rows_real,
    "full": rows_full,
}


def document(parts: Mapping[str, Part]) -> Part:
    """The results file: a table for people, and under ``parts`` all that was measured."""
    machines = {
        f"{p['cores']} cores of {p['processor']}, torch {p['torch']}" for p in (part["provenance"] for part in parts.values())
    }
    return {
        "title": "What an inspection costs",
        "topic": "inspect",
        "command": "python -m benchmarks.speed",
        "machine": "; ".join(sorted(machines)),
        "rows": [line for name, rows in ROWS.items() if name in parts for line in rows(parts[name])],
        "notes": list(notes(parts)),
        "parts": dict(parts),
    }


def print_table(results: Part) -> None:
    """Show the rows in a terminal."""
    for line in results["rows"]:
        print(f"{line['what']}: {cell(line['measured'], line['unit'])}")
