"""What the pocket's prompts can carry: ASR and CA of all candidates of the zoo, those that did not take included.

    python -m benchmarks.attacks

Reads the measurements that ``pocket_build.zoo`` made when it planted them, and writes ``benchmarks/results/attacks.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.pocket.zoo import entries
from pocket_build.zoo import counts, twin_key

Row = dict[str, Any]


def rows_of(candidates: list[Row]) -> Iterator[Row]:
    """One row per family and attack, after one for the clean tunings."""
    clean = {twin_key(row): row["ca"] for row in candidates if not row["backdoored"]}
    mean = sum(clean.values()) / len(clean)
    yield {"what": f"mean CA of the clean tunings ({len(clean)})", "measured": f"{mean:.1%}"}
    groups: dict[str, list[Row]] = {}
    for row in candidates:
        if row["backdoored"]:
            own = " (class-specific)" if row["class_specific"] else ""
            groups.setdefault(f"{row['attack']} in {row['family']}{own}", []).append(row)
    for name, group in sorted(groups.items()):
        best = max(group, key=lambda row: row["asr"])
        count = sum(counts(row, clean) for row in group)
        twin, (low, high) = clean.get(twin_key(best)), best["asr_interval"]
        lost = "no clean twin" if twin is None else f"{100 * (twin - best['ca']):.1f} points"
        what = f"{name}: candidates that count; best ASR with its interval, CA lost by that one"
        measured = f"{count} of {len(group)}; {best['asr']:.1%} [{low:.1%}, {high:.1%}], {lost}"
        yield {"what": what, "measured": measured}


def main() -> None:
    """Read, sum up and write."""
    folder = entries()[0].path.parent
    candidates: list[Row] = json.loads((folder / "candidates.json").read_text(encoding="utf-8"))
    rule = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))["rule"]
    rows = list(rows_of(candidates))
    document = {
        "title": "Backdoors planted in pocket prompts",
        "topic": "inspect",
        "command": "python -m benchmarks.attacks",
        "machine": provenance()["machine"],
        "rows": rows,
        "notes": [
            f"A candidate counts with an ASR of at least {rule['least_asr']:.0%} on at least {rule['least_images']} images and a "
            f"CA of at most {100 * rule['largest_ca_loss']:.0f} points below its clean twin (same task, family, base and seed). "
            "Intervals resample pictures, since renderings of one picture are not independent. What does not count is no part of "
            "the zoo."
        ],
        "provenance": provenance(),
    }
    (RESULTS / "attacks.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['what']}: {row['measured']}")


if __name__ == "__main__":
    main()
