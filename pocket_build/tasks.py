"""Choose the pictures of the ten pocket tasks and of the probe pool, and pack them.

    python -m pocket_build.tasks

Writes ``clipvet/pocket/assets/pictures.zip`` (one lossless WebP per picture, stored under ``set/icon.webp``) and ``tasks.json``
(classes, picture indices, seeds, placements). The shots of a task are drawn in the styles ``TRAIN_SETS``, its test images in
``TEST_SETS``. The pocket CLIP has seen the pictures of all these styles but Fluent with their names, so accuracy on a task says how
well a prompt was tuned, not how well the backbone sees; for that there is the held-out Fluent family. OpenMoji (share-alike) is not
shipped.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipvet.data.compose import Placement
from pocket_build.classes import COARSE, FINE, LEFT_OUT, POOL_GROUPS, POOL_LEFT_OUT
from pocket_build.corpus import WORK

ASSETS = Path(__file__).parents[1] / "clipvet/pocket/assets"
TRAIN_SETS = ("noto", "noto-v1", "fxemoji", "fluent-emoji-flat")
TEST_SETS = ("twemoji", "emojione")
TEST_IMAGES = 400
TRAIN_PICTURES = 32
POOL = 1000
POOL_GROUP_LIMIT = 110
PLACEMENT = Placement(smallest=0.75, largest=1.0, angle=12, shift=0.1, shear=0.05, jitter=0.1, plain=0.5)
POOL_PLACEMENT = Placement(smallest=0.8, largest=1.3, angle=25, shift=0.2, shear=0.1, flip=0.3, jitter=0.15, plain=0.0)
EPOCH = (2020, 1, 1, 0, 0, 0)  # a fixed time stamp, so that the archive is the same for the same pictures

Row = dict[str, Any]


class Shelf:
    """The corpus by name and group, and the pictures taken from it so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = json.loads((WORK / "corpus.json").read_text(encoding="utf-8"))
        self.taken: dict[int, int] = {}  # row -> index among the shipped pictures
        self.by_name: dict[str, list[int]] = {}
        self.by_group: dict[str, list[int]] = {}
        seen: set[tuple[str, str]] = set()
        for i, row in enumerate(self.rows):
            key = (row["set"], row["caption"])
            if row["set"] not in TRAIN_SETS + TEST_SETS or "skin tone" in row["caption"] or key in seen:
                continue
            seen.add(key)
            self.by_name.setdefault(row["caption"], []).append(i)
            if row["group"]:
                self.by_group.setdefault(row["group"], []).append(i)

    def take(self, row: int) -> int:
        """Ship a picture; return its index."""
        return self.taken.setdefault(row, len(self.taken))

    def of(self, rows: list[int], sets: tuple[str, ...]) -> list[int]:
        """Keep the rows of some drawing styles."""
        return [i for i in rows if self.rows[i]["set"] in sets]


def spread(shelf: Shelf, rows: list[int], n: int, rng: np.random.Generator) -> list[int]:
    """Draw n rows, styles in turn and without repetition while there are any; then go round again."""
    styles = sorted({shelf.rows[i]["set"] for i in rows})
    queues = [[i for i in rng.permutation(rows).tolist() if shelf.rows[i]["set"] == style] for style in styles]
    order = []
    while any(queues):
        order += [queue.pop(0) for queue in queues if queue]
    return [order[i % len(order)] for i in range(n)]


def classes_of(shelf: Shelf, task: str) -> dict[str, list[int]]:
    """List the rows of every class of a task."""
    if task in COARSE:
        return {
            name: [i for g in groups for i in shelf.by_group[g] if shelf.rows[i]["caption"] not in LEFT_OUT]
            for name, groups in COARSE[task].items()
        }
    return {name: shelf.by_name[name] for name in FINE[task]}


def task_of(shelf: Shelf, name: str, seed: int) -> Row:
    """Choose the pictures of one task."""
    rng = np.random.default_rng(seed)
    classes = classes_of(shelf, name)
    per_class = -(-TEST_IMAGES // len(classes))
    listed = []
    for label, rows in classes.items():
        shots, test = shelf.of(rows, TRAIN_SETS), shelf.of(rows, TEST_SETS)
        if not shots or not test:
            raise SystemExit(
                f"{name}: expected pictures of {label!r} to learn from and to test on, got {len(shots)} and {len(test)}"
            )
        shots = spread(shelf, shots, min(len(shots), TRAIN_PICTURES), rng)
        test = spread(shelf, test, per_class, rng)
        listed.append({"name": label, "train": [shelf.take(i) for i in shots], "test": [shelf.take(i) for i in test]})
    return {"name": name, "seen": (len(listed) + 1) // 2, "seed": seed, "classes": listed}


def pool_of(shelf: Shelf, tasks: list[Row], seed: int) -> list[int]:
    """Draw the probe pictures from subgroups and names that no task uses."""
    rng = np.random.default_rng(seed)
    names = {shelf.rows[i]["caption"] for i in shelf.taken}
    groups = {shelf.rows[i]["group"] for i in shelf.taken}
    rows: list[int] = []
    for group in POOL_GROUPS:
        if group in groups:
            raise SystemExit(f"pool: expected subgroups that no task uses, got {group!r}")
        free = [i for i in shelf.by_group[group] if shelf.rows[i]["caption"] not in names]
        free = [i for i in free if not any(part in shelf.rows[i]["caption"] for part in POOL_LEFT_OUT)]
        rows += rng.permutation(free).tolist()[:POOL_GROUP_LIMIT]
    if len(rows) < POOL:
        raise SystemExit(f"pool: expected {POOL} pictures, got {len(rows)}; name more subgroups in POOL_GROUPS")
    return [shelf.take(i) for i in rng.permutation(rows).tolist()[:POOL]]


def encode(picture: np.ndarray) -> bytes:
    """Write a picture ``uint8 (64, 64, 4)`` as lossless WebP."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "WEBP", lossless=True, quality=100, method=5)
    return data.getvalue()


def packed() -> dict[str, bytes]:
    """Read what an earlier run packed, so that only new pictures are encoded."""
    if not (ASSETS / "pictures.zip").exists():
        return {}
    with zipfile.ZipFile(ASSETS / "pictures.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(shelf: Shelf, images: np.ndarray) -> list[list[str]]:
    """Write the taken pictures; return ``[path in the archive, caption, subgroup]`` of each."""
    listed, earlier = [], packed()
    with zipfile.ZipFile(ASSETS / "pictures.zip", "w") as archive:
        for row in shelf.taken:
            picture = images[row].copy()
            picture[picture[..., 3] == 0] = 0  # colour that nobody sees costs bytes
            meta = shelf.rows[row]
            path = f"{meta['set']}/{meta['icon']}.webp"
            data = earlier.get(path)
            if data is None or not np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")), picture):
                data = encode(picture)
            archive.writestr(zipfile.ZipInfo(path, EPOCH), data)
            listed.append([path, meta["caption"], meta["group"]])
    return listed


def main() -> None:
    """Choose, pack and write."""
    shelf = Shelf()
    names = [*COARSE, *FINE]
    tasks = [task_of(shelf, name, 100 + k) for k, name in enumerate(names)]
    pool = pool_of(shelf, tasks, 99)
    pictures = pack(shelf, np.load(WORK / "corpus.npz")["images"])
    document = {
        "placement": asdict(PLACEMENT),
        "tasks": tasks,
        "pool": {"placement": asdict(POOL_PLACEMENT), "seed": 99, "pictures": pool},
        "pictures": pictures,
    }
    (ASSETS / "tasks.json").write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    size = (ASSETS / "pictures.zip").stat().st_size / 1e6
    for task in tasks:
        print(f"{task['name']}: {len(task['classes'])} classes, {sum(len(c['test']) for c in task['classes'])} test images")
    print(f"{len(pictures)} pictures, {size:.1f} MB")


if __name__ == "__main__":
    main()
