"""What a scan of CC3M or LAION-400M would take: machines, hours, bytes moved and what binds, on paper and by simulation.

    python -m benchmarks.scan_plan

Rates of a machine with two cores are those of ``benchmarks/results/scan_speed.json``. Rates of a GPU were never measured and are
assumptions, as are the network and how often a worker is lost; all stand in the results. On paper: pairs over rates. The simulation
hands out shards one by one, as the scan does, to workers of unequal speed that are lost now and then and come back after a while; a
lost worker's shard is begun again. Writes ``benchmarks/results/scan_plan.json``; takes seconds.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from dataclasses import dataclass
from typing import Any

from benchmarks.inspect_zoo import RESULTS, provenance

MEASURED = RESULTS / "scan_speed.json"
SHARD = 10_000  # pairs, img2dataset's default
READ = 27_000  # bytes of a pair in a tar: 270 MB a shard in rom1504/laion-prepro, laion400m
WRITTEN = 2 * 512 * 2 + 64  # bytes of a pair: image and text features in half precision; key, scores and rank
DATA = {"CC3M": 3_000_000, "LAION-400M": 41_455 * SHARD}
SPREAD = 0.1  # of the workers' speeds, log-normal
LOST_EVERY, BACK_AFTER = 48 * 3600.0, 600.0  # seconds until a worker is lost, on average, and until it is back
LINK = 1.25e9  # bytes a second that the storage serves to all workers together: ten gigabit
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Workers, and what each of them encodes and scores.

    Attributes:
        kind: what a worker is.
        workers: how many.
        encode: pairs a second through decoding and both encoders.
        score: seconds that a pair takes to score.
        assumed: whether these rates were not measured.
    """

    kind: str
    workers: int
    encode: float
    score: float
    assumed: bool

    @property
    def seconds(self) -> float:
        """Seconds that a pair takes one worker alone, where storage does not bind."""
        return 1 / self.encode + self.score

    @property
    def bound(self) -> str:
        """What binds: the encoders and decoders, or the storage that serves all workers."""
        return "storage" if self.workers / self.seconds * READ > LINK else "encoding"

    @property
    def pair(self) -> float:
        """Seconds that a pair takes a worker while all of them work."""
        return max(self.seconds, self.workers * READ / LINK)


def on_paper(pairs: int, fleet: Fleet) -> float:
    """Seconds with equal workers that are never lost and finish together."""
    return pairs * fleet.pair / fleet.workers


def simulated(pairs: int, fleet: Fleet, *, seed: int, spread: float = SPREAD, lost_every: float = LOST_EVERY) -> tuple[float, int]:
    """Hand out shards until all are done: seconds, and how many shards were begun again."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    speeds = [rng.lognormvariate(0, spread) for _ in range(fleet.workers)]
    free = [(0.0, worker) for worker in range(fleet.workers)]
    waiting = [(min(SHARD, pairs - start), 0.0) for start in range(0, pairs, SHARD)][::-1]  # pairs, and since when it waits
    ended, again = 0.0, 0
    while waiting:
        now, worker = heapq.heappop(free)
        shard, since = waiting.pop()
        now = max(now, since)
        takes = shard * fleet.pair / speeds[worker]
        holds = rng.expovariate(1 / lost_every) if math.isfinite(lost_every) else math.inf
        if holds < takes:
            again += 1
            waiting.append((shard, now + holds))
            heapq.heappush(free, (now + holds + BACK_AFTER, worker))
        else:
            ended = max(ended, now + takes)
            heapq.heappush(free, (now + takes, worker))
    return ended, again


def fleets() -> list[Fleet]:
    """Machines of two cores as measured, and GPUs at two assumed rates."""
    rows = {row["what"]: row["measured"] for row in json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]}
    (encode,) = (float(value) for what, value in rows.items() if "features written" in what)
    (scored,) = (str(value) for what, value in rows.items() if what.startswith("100,000 rows, default"))
    score = float(scored.split(";")[1].split()[0]) * 1e-6
    two = [Fleet(kind="two cores", workers=count, encode=encode, score=score, assumed=False) for count in (1, 32, 1024)]
    gpus = [(1, 500), (8, 500), (8, 2000), (64, 2000)]
    return two + [Fleet(kind=f"GPU of {r:,} pairs/s", workers=count, encode=r, score=score, assumed=True) for count, r in gpus]


def rows_of(name: str, pairs: int) -> list[Row]:
    """One row per fleet."""
    out = []
    for fleet in fleets():
        paper, (seconds, again) = on_paper(pairs, fleet) / 3600, simulated(pairs, fleet, seed=0)
        rates = " (assumed)" if fleet.assumed else ""
        out.append(
            {
                "what": f"{name}, {pairs:,} pairs, {fleet.workers:,} x {fleet.kind}{rates}: hours on paper; simulated; shards "
                "begun again; what binds",
                "measured": f"{paper:,.2f}; {seconds / 3600:,.2f}; {again:,}; {fleet.bound}",
            }
        )
    moved = f"{pairs * READ / 1e12:,.2f} TB; {pairs * WRITTEN / 1e12:,.2f} TB"
    return [*out, {"what": f"{name}: bytes read; written", "measured": moved}]


def main() -> None:
    """Work it out and write the table."""
    document = {
        "title": "What a scan of CC3M and of LAION-400M would take, by calculation",
        "topic": "scan",
        "command": "python -m benchmarks.scan_plan",
        "machine": provenance()["machine"],
        "rows": [row for name, pairs in DATA.items() for row in rows_of(name, pairs)],
        "notes": [
            "Nothing here was run at that size. Rates of two cores were measured with ViT-B/32 and random weights; rates of a GPU "
            f"are assumptions. {READ:,} bytes read per pair (pictures of 256 px, rom1504/laion-prepro), shards of {SHARD:,}; the "
            f"storage serves {LINK / 1e9:.2f} GB/s to all; workers differ by {SPREAD:.0%}, are lost every {LOST_EVERY / 3600:.0f} "
            f"hours and come back after {BACK_AFTER / 60:.0f} minutes.",
            "Decoding and encoding bind, until many GPUs ask more of the storage than it serves; scoring, with the default scorer "
            "on two cores, is the rest: two parts in a thousand of the time on two cores, and a fifth at the largest rate assumed, "
            "where it can run on the GPU. An assumed rate must hold for decoding too. --trusted-model makes a second pass: about "
            "twice the hours, and the bytes read twice.",
        ],
        "provenance": provenance(),
    }
    (RESULTS / "scan_plan.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in document["rows"]:
        print(f"{row['what']}: {row['measured']}")


if __name__ == "__main__":
    main()
