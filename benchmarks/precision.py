"""Does bfloat16 pay on this machine? One pass through an image tower and back to the pixels, in turn with float32.

    python -m benchmarks.precision

The pocket, and random weights at the size of ViT-B/32; writes ``benchmarks/results/precision.json``.
"""

from __future__ import annotations

import json
import statistics
import time

import torch

from benchmarks.inspect_zoo import RESULTS, provenance
from clipvet.models import base
from clipvet.models._open_clip import open_clip
from clipvet.models.base import ClipModel, bfloat16_is_fast
from clipvet.models.bases import load_base

BASES = {"pocket-0": 128, "ViT-B-32": 16}  # images in a pass
REPEATS = 7
THREADS = 2


def model_of(name: str) -> ClipModel:
    """A shipped base, or an architecture of open_clip with random weights."""
    if name.startswith("pocket"):
        return load_base(name)
    torch.manual_seed(0)
    clip = open_clip.create_model(name, pretrained=None)
    return ClipModel(clip, open_clip.get_tokenizer(name), name=name, mean=(0.5,) * 3, std=(0.5,) * 3)


def seconds(model: ClipModel, images: torch.Tensor, *, mixed: bool) -> tuple[float, torch.Tensor]:
    """Time of one pass forward and backward, and the features."""
    pixels = images.clone().requires_grad_(True)
    began = time.perf_counter()
    with model.mixed_precision(wanted=mixed):
        features = model.encode_image(pixels)
    features.sum().backward()
    return time.perf_counter() - began, features.detach()


def main() -> None:
    """Measure base by base and write the table."""
    torch.set_num_threads(THREADS)
    limit, base.LARGEST_MIXED = base.LARGEST_MIXED, 1 << 30  # measured where clipvet leaves it off, too
    rows = []
    for name, n in BASES.items():
        model = model_of(name)
        images = torch.rand(n, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
        seconds(model, images, mixed=True), seconds(model, images, mixed=False)
        pairs = [(seconds(model, images, mixed=False), seconds(model, images, mixed=True)) for _ in range(REPEATS)]
        ratio = statistics.median(full[0] / mixed[0] for full, mixed in pairs)
        cosine = float((pairs[0][0][1] * pairs[0][1][1]).sum(1).min())
        each = 1000 * statistics.median(mixed[0] for _, mixed in pairs) / n
        rows.append(
            {"what": f"{name}: time in float32 over time in bfloat16, forward and backward", "measured": ratio, "unit": "times"}
        )
        rows.append({"what": f"{name}: time in bfloat16 per image", "measured": each, "unit": "ms"})
        rows.append({"what": f"{name}: smallest cosine of a feature in bfloat16 with that in float32", "measured": f"{cosine:.5f}"})
        print(f"{name}: {ratio:.2f} times, {each:.1f} ms per image, cosine {cosine:.5f}", flush=True)
    document = {
        "title": "Mixed precision on a CPU",
        "topic": "inspect",
        "command": "python -m benchmarks.precision",
        "machine": f"{provenance()['machine']}, {THREADS} threads",
        "rows": rows,
        "notes": [
            f"Medians of {REPEATS} paired passes; weights other than the pocket's are random. On a CPU, clipvet passes towers of "
            f"a width up to {limit} in bfloat16 and wider ones in float32. "
            + (
                "The CPU has instructions for bfloat16."
                if bfloat16_is_fast(torch.device("cpu"))
                else "The CPU has none for bfloat16."
            )
        ],
        "provenance": provenance(),
    }
    (RESULTS / "precision.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
