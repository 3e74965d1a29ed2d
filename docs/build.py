"""Write the generated pages: docs/methods from the docstrings of the registries, docs/measured.md from benchmarks/results.

And the table of attacks in docs/scan.md, between its two marks.

    python docs/build.py

A test compares the pages in the repository with what this would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipvet.cli.bench import RESULTS, Table, cell, read_tables
from clipvet.cli.docstrings import to_markdown
from clipvet.cli.registries import Kind, Method, methods, summary

__all__ = ["main", "pages"]

DOCS = Path(__file__).parent
MARKS = "<!-- by docs/build.py -->", "<!-- end -->"
GENERATED = "<!-- Written by docs/build.py: change the source and run `make docs`. -->\n\n"
WORDS = {
    Kind.CHECKS: ("check", "Checks: what looks at a model and brings up evidence"),
    Kind.SCORERS: ("scorer", "Scorers: what looks at image-text pairs and ranks them"),
    Kind.ATTACKS: ("attack", "Attacks: what plants a backdoor, to test detectors with"),
    Kind.PAIR_ATTACKS: ("pair-attack", "Attacks on pairs: what poisons training data"),
    Kind.TRIGGERS: ("trigger", "Triggers: what changes a picture"),
    Kind.FAMILIES: ("family", "Prompt families: what is read, tuned and written back"),
    Kind.REPAIRS: ("repair", "Repairs: what makes a delivery usable again"),
}
MEASURED = """# What was measured, and what never was

Every number here comes from a file in `benchmarks/results`, written by the command beside it. `clipvet bench` prints the same
tables. *Reported* is what the source says about its own setting; it is a mark to compare with and not the same experiment.

What these numbers are about: the pocket, that is two small CLIPs trained by this repository on drawn pictures, ten tasks over
them, and prompts tuned and backdoored on them by this repository. What they are not about: **no number here was measured on
real weights** (OpenAI, LAION or any other), on photographs, or on a delivery from somebody else. The readers and prompt families
are tested at the size of ViT-B/16 with random weights, against oracles of their own; that shows that the arithmetic is right,
and nothing about how well a search finds a backdoor there. Times and memory at that size were measured with random weights too.
Nothing was run on a GPU. Backdoored deliveries of both zoos are VPT and IVLP prompts, and one of MaPLe; of CoCoOp, CoOp and MaPLe
one each was searched outside of them. Backdoors in whole models were not searched for in any number below. Repairs were measured on
a few of the zoo's deliveries, on some of which their settings were chosen. Scans were measured on a few poisoned
corpora of drawn pictures whose attack took, most of their figures on one; of other attacks on pairs only their ASR is known,
and it was too low. What a scan of millions of pairs would take was worked out and not run.
"""
NOTHING = "\nThere are no results in this checkout yet.\n"


def pages() -> dict[Path, str]:
    """Return every generated page by its path below docs/."""
    found = {kind: list(methods(kind)) for kind in Kind}
    made = {Path("measured.md"): GENERATED + _measured(read_tables(RESULTS)), Path("methods/README.md"): GENERATED + _index(found)}
    scanned = json.loads((RESULTS / "scan_pocket.json").read_text(encoding="utf-8"))["runs"]
    made[Path("scan.md")] = _attacks((DOCS / "scan.md").read_text(encoding="utf-8"), scanned)
    return made | {_path(method): GENERATED + _page(method) for group in found.values() for method in group}


def _path(method: Method) -> Path:
    return Path("methods") / f"{WORDS[method.kind][0]}-{method.name}.md"


def _page(method: Method) -> str:
    kind = WORDS[method.kind][0]
    return f"# {method.cls.__name__}\n\n{kind.capitalize()} `{method.name}`. {to_markdown(method.doc)}"


def _index(found: dict[Kind, list[Method]]) -> str:
    lines = ["# Methods", "", "One page each, in the words of the code's own documentation; `clipvet explain NAME` shows the same."]
    for kind, group in found.items():
        lines += ["", f"## {WORDS[kind][1]}", ""]
        lines += [f"- [{method.cls.__name__}]({_path(method).name}): {summary(method).replace('``', '`')}" for method in group]
    return "\n".join(lines) + "\n"


def _measured(tables: list[Table]) -> str:
    return MEASURED + ("".join("\n".join(_table(table)) + "\n" for table in tables) or NOTHING)


def _attacks(page: str, runs: list[dict[str, Any]]) -> str:
    """The page with the table of attacks that took: share of clean pairs flagged where 95 % of the poisoned are."""
    scorers = (("itself", "slof-dense"), ("itself", "dao"), ("both", "slof-dense+clip-gap"))
    lines = ["| attack | poisoned | ASR | `slof-dense` | `dao` | `slof-dense+clip-gap` |", "|---|---|---|---|---|---|"]
    for run in (run for run in runs if "cells" in run):
        how = "trained from scratch" if run["settings"]["scratch"] else "tuned"
        cells = [run["cells"][source] for source, _ in scorers]
        shares = [
            f"{100 * next(one['fpr95'] for name, one in cell.items() if name.split(',')[0] == scorer):.2f} %"
            for cell, (_, scorer) in zip(cells, scorers, strict=True)
        ]
        poisoned, asr = f"{run['poisoned']:,} of {run['pairs']:,}", f"{100 * run['asr']:.0f} %"
        lines.append(" | ".join([f"| `{run['settings']['attack']}`, {how}", poisoned, asr, *shares]) + " |")
    before, rest = page.split(MARKS[0])
    return "\n".join([before + MARKS[0], *lines, MARKS[1] + rest.split(MARKS[1])[1]])


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"## {table.title}", "")
    place = f", on {table.machine}" if table.machine else ""
    yield f"`benchmarks/results/{table.name}.json`" + (f", from `{table.command}`{place}." if table.command else f"{place}.")
    yield from ("", "| what | measured | reported | source |", "|---|---|---|---|")
    for row in table.rows:
        cells = (row.what, cell(row.measured, row.unit, row.interval), cell(row.reported, row.unit), row.source)
        yield "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
    for note in table.notes:
        yield from ("", note)


def main() -> None:
    """Write all pages, and remove generated ones that nothing stands behind any more."""
    made = pages()
    (DOCS / "methods").mkdir(exist_ok=True)
    for old in (DOCS / "methods").glob("*.md"):
        if old.relative_to(DOCS) not in made:
            old.unlink()
    for path, text in made.items():
        (DOCS / path).write_text(text, encoding="utf-8")
    print(f"{len(made)} pages")


if __name__ == "__main__":
    main()
