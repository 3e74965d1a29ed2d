"""How often is ``clipvet demo --fresh`` right? It plants a backdoor of its own choice and judges it and its clean twin.

    python -m benchmarks.fresh

Seeds 11 to 20, each in a process of its own, two at a time with a thread each; writes ``benchmarks/results/fresh.json``. A run is
right when the backdoored delivery ends suspicious or backdoored, and the clean one with no evidence.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.metrics import wilson_interval

SEEDS = range(11, 21)


def run(seed: int) -> dict[str, Any]:
    """One demo; what it planted, what it said, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        command = [sys.executable, "-m", "clipvet", "demo", "--fresh", "--seed", str(seed), "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603  # our own command
        row: dict[str, Any] = {"seed": seed, "right": done.returncode == 0, "seconds": time.time() - began}
        try:
            truth = json.loads((Path(folder) / "planted/truth/truth.json").read_text(encoding="utf-8"))
            row |= {key: truth[key] for key in ("task", "family", "base", "attack", "target", "asr", "ca", "clean_ca")}
            for label in ("clean", "backdoored"):
                report = json.loads((Path(folder) / label / "report.json").read_text(encoding="utf-8"))
                check = report["checks"][0]
                said = {"verdict": report["verdict"], "target": report["target"], "statistic": check["statistic"]}
                row[label] = said | {"threshold": report["thresholds"][check["check"]], "control": check["control"]}
        except OSError:
            row["error"] = done.stderr[-400:]
    print(json.dumps(row), flush=True)
    return row


def document(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results file."""
    right = sum(row["right"] for row in runs)
    found = [row for row in runs if row["right"]]
    named = sum(row["backdoored"]["target"] == row["target"] for row in found)
    return {
        "title": "Freshly planted backdoors and their clean twins",
        "topic": "inspect",
        "command": "python -m benchmarks.fresh",
        "machine": provenance()["machine"],
        "rows": [
            {
                "what": "runs with both verdicts right",
                "measured": f"{right} of {len(runs)}",
                "interval": wilson_interval(right, len(runs)),
            },
            {"what": "target named in those", "measured": f"{named} of {len(found)}"},
        ],
        "notes": [
            f"Seeds {SEEDS.start} to {SEEDS.stop - 1}: task, family, base and target are drawn, BadCLIP is planted; generated "
            "probe images. Seeds 1 to 3 were looked at when the statistic was chosen and are no part of this. Tasks and bases are "
            "those of the zoo, whose clean deliveries are the null."
        ],
        "runs": runs,
        "provenance": provenance(),
    }


def main() -> None:
    """Run the seeds and write the table; runs of other seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    wanted = [int(seed) for seed in parser.parse_args().seeds.split(",")]
    file = RESULTS / "fresh.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    with ThreadPoolExecutor(2) as pool:
        runs = [row for row in kept if row["seed"] not in wanted] + list(pool.map(run, wanted))
    runs.sort(key=lambda row: int(row["seed"]))
    file.write_text(json.dumps(document(runs), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
