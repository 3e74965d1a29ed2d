"""Write real icon collections as image-text pairs, to see what a scan finds where nobody planted anything.

    python -m pocket_build.icons

Fetches the collections below at the pinned versions with ``npm``; the pocket was trained on none of them. Every icon is rendered at
64 px on white, those with ``currentColor`` in black, and nothing is left out but what the renderer refuses and what a collection
hides as outdated: an icon that comes out blank stays. The caption is the icon's name without its style (``-outline``, ``-bold``,
``-24px``: what the collection calls a suffix, or :data:`STYLES`) and without a number at the end, so that one concept has one
caption; a country's code becomes the flag's Unicode name. Writes webdataset shards of 5,000, and ``collections.json`` (version,
licence, author, count) to ``pocket_build/work/icons``. Resumable: a shard that is there is not written again.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocket_build.corpus import WORK, caption_of, render, svg_of
from pocket_build.shards import add

ICONS = WORK / "icons"
PER_SHARD = 5_000
COLLECTIONS = {  # all under Apache-2.0, MIT, ISC, CC BY 4.0 or CC0
    "mdi": "1.2.3",
    "tabler": "1.2.41",
    "ph": "1.2.2",
    "material-symbols": "1.2.98",
    "solar": "1.2.13",
    "carbon": "1.2.29",
    "lucide": "1.2.137",
    "mingcute": "1.2.8",
    "ion": "1.2.7",
    "healthicons": "1.2.13",
    "icon-park": "1.2.4",
    "maki": "1.2.5",
    "temaki": "1.2.6",
    "line-md": "1.2.16",
    "svg-spinners": "1.2.4",
    "meteocons": "1.2.4",
    "circle-flags": "1.2.11",
    "flag": "1.2.12",
    "flagpack": "1.2.8",
    "fluent-color": "1.2.21",
    "flat-color-icons": "1.2.3",
    "streamline-color": "1.2.2",
    "streamline-plump-color": "1.2.2",
    "streamline-ultimate-color": "1.2.2",
    "streamline-freehand-color": "1.2.2",
    "devicon": "1.2.68",
    "vscode-icons": "1.2.97",
    "cryptocurrency-color": "1.2.4",
}
FLAGS = ("circle-flags", "flag", "flagpack")
STYLES: dict[str, tuple[str, ...]] = {  # where the collection itself names no suffixes, or not all
    "mdi": ("outline",),
    "tabler": ("filled",),
    "carbon": ("filled", "outline"),
    "healthicons": ("negative", "negative-24px"),
    "line-md": ("twotone", "filled", "loop", "transition"),
    "devicon": ("plain-wordmark", "original-wordmark", "line-wordmark", "wordmark", "plain", "original", "line"),
}


def fetch() -> Path:
    """Install the pinned collections with npm and return the folder that holds them."""
    folder = WORK / "icons_npm"
    modules = folder / "node_modules/@iconify-json"
    if not all((modules / name).exists() for name in COLLECTIONS):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        packages = [f"@iconify-json/{name}@{version}" for name, version in COLLECTIONS.items()]
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *packages], cwd=folder, check=True)
    return modules


def flag_names() -> dict[str, str]:
    """Map the codes of countries to the flags' Unicode names, which the corpus's annotations hold: ``dk`` to ``flag denmark``."""
    entries = json.loads((WORK / "npm/node_modules/emojibase-data/en/data.json").read_text(encoding="utf-8"))
    names = {}
    for entry in entries:
        points = [int(point, 16) - 0x1F1E6 for point in entry["hexcode"].split("-")]
        if len(points) == 2 and all(0 <= point < 26 for point in points):
            code = "".join(chr(ord("a") + point) for point in points)
            names[code] = re.sub(r"[^\w\s-]", "", entry["label"]).lower()
    return names


def concept(icon: str, styles: Iterable[str]) -> str:
    """Turn an icon's name into words without its style: ``cloud-off-outline`` and ``cloud-off`` are both ``cloud off``."""
    endings = sorted(filter(None, styles), key=len, reverse=True)
    shorter = icon
    while found := next((end for end in endings if shorter.endswith(f"-{end}")), None):
        shorter = shorter.removesuffix(f"-{found}").rstrip("-")
    return caption_of(shorter) or caption_of(icon)


def rows_of(modules: Path, name: str, flags: dict[str, str]) -> list[tuple[str, str, str]]:
    """List key, caption and SVG of every icon of one collection, aliases and hidden ones left out."""
    data = json.loads((modules / name / "icons.json").read_text(encoding="utf-8"))
    about = json.loads((modules / name / "metadata.json").read_text(encoding="utf-8"))
    styles = (*(about.get("suffixes") or {}), *STYLES.get(name, ()))
    rows = []
    for icon, body in sorted(data["icons"].items()):
        if not body.get("hidden"):
            caption = concept(icon, styles)
            caption = flags.get(caption, caption) if name in FLAGS else caption
            rows.append((f"{name}/{icon}", caption, svg_of(body, data.get("width", 16), data.get("height", 16))))
    return rows


def picture(svg: str) -> bytes | None:
    """Render one icon on white as a PNG file."""
    rgba = render(svg)
    if rgba is None:
        return None
    alpha = rgba[..., 3:].astype(np.float32) / 255
    file = io.BytesIO()
    Image.fromarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, pairs: Iterable[tuple[str, str, bytes | None]]) -> None:
    """Write pairs of key, caption and picture as a webdataset tar, whole or not at all; those without a picture are left out."""
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as archive:
        for key, caption, image in pairs:
            if image is not None:
                add(archive, f"{key}.png", image)
                add(archive, f"{key}.txt", caption.encode())
    part.replace(path)


def main() -> None:
    """Fetch, render and write."""
    modules, flags = fetch(), flag_names()
    ICONS.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    table: list[dict[str, Any]] = []
    for name, version in COLLECTIONS.items():
        info = json.loads((modules / name / "info.json").read_text(encoding="utf-8"))
        found = rows_of(modules, name, flags)
        of = {"title": info["name"], "licence": info["license"]["spdx"], "author": info["author"]["name"]}
        table.append({"collection": name, "version": version, **of, "icons": len(found)})
        rows += found
    with ProcessPoolExecutor(2) as pool:
        for number, start in enumerate(range(0, len(rows), PER_SHARD)):
            path, part = ICONS / f"{number:05d}.tar", rows[start : start + PER_SHARD]
            if not path.exists():
                images = pool.map(picture, [svg for _, _, svg in part], chunksize=64)
                write_shard(path, ((key, caption, image) for (key, caption, _), image in zip(part, images, strict=True)))
                print(f"{path.name}: {len(part)} icons", flush=True)
    (ICONS / "collections.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} icons of {len(table)} collections, {len({caption for _, caption, _ in rows})} captions")


if __name__ == "__main__":
    main()
