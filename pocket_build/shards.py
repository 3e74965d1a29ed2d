"""Build the poisoned shard set that ships, with the model that was tuned on its pairs, for ``clipvet demo``.

    python -m pocket_build.pairs --attack badnets-pairs-fixed --rate 0.01 --rate-of-learning 5e-4 --epochs 4
    python -m pocket_build.shards

Draws 1,200 of the pairs that the poisoned pocket was tuned on, twelve of them poisoned, and writes three webdataset shards, the
model, and the ground truth to ``clipvet/pocket/assets/scan``.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
from PIL import Image
from torch import Tensor

from pocket_build.poisoned import POISONED, Plan, poisoned_pairs
from pocket_build.tokenizer import ASSETS

PLAN = Plan(attack="badnets-pairs-fixed", rate=0.01, epochs=4, rate_of_learning=5e-4)
SCAN = ASSETS / "scan"
SETS = ("noto", "noto-v1", "twemoji", "emojione", "fxemoji")  # whose pictures ship, as NOTICE says
PAIRS, POISON, SHARDS = 1200, 12, 3


def lossless(image: Tensor) -> bytes:
    """Encode ``uint8 (3, h, w)`` as lossless WebP."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "WEBP", lossless=True, method=4)
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member without a time or an owner, so that the same pairs give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def main() -> None:
    """Draw and write."""
    images, pairs, truth = poisoned_pairs(PLAN)
    rng = np.random.default_rng(0)
    bad, may = np.array([key in truth for key, _ in pairs]), np.array([key.partition("/")[0] in SETS for key, _ in pairs])
    parts = [rng.choice(np.flatnonzero(kind & may), count, False) for kind, count in ((bad, POISON), (~bad, PAIRS - POISON))]
    picked = rng.permutation(np.concatenate(parts))
    shutil.rmtree(SCAN, ignore_errors=True)
    SCAN.mkdir(parents=True)
    planted: dict[str, str] = {}
    for shard, part in enumerate(np.array_split(picked, SHARDS)):
        with tarfile.open(SCAN / f"{shard:05d}.tar", "w") as archive:
            for at in part.tolist():
                key, caption = pairs[at]  # set/icon: whose licence holds
                add(archive, f"{key}.webp", lossless(images[at]))
                add(archive, f"{key}.txt", caption.encode())
                if bad[at]:
                    planted[key] = truth[key]
    shutil.copy(POISONED / f"{PLAN.name}.safetensors", SCAN / "tuned.safetensors")
    record = json.loads((POISONED / f"{PLAN.name}.json").read_text(encoding="utf-8"))
    facts = {"attack": PLAN.attack, "pairs": PAIRS, "planted": planted, "before": record["before"], "after": record["after"]}
    (SCAN / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{PAIRS} pairs, {len(planted)} of them poisoned; {record['after']}")


if __name__ == "__main__":
    main()
