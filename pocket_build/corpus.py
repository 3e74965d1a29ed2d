"""Build the picture-name corpus from open emoji and icon sets.

    python -m pocket_build.corpus

Fetches eleven icon sets and the Unicode annotations at the pinned versions with ``npm``, renders every picture at 64 px with
transparency, and writes ``pocket_build/work/corpus.npz`` (images) and ``corpus.json`` (set, name, caption, group, tags). The
pictures whose names stand in ``held_out.txt`` (the whole Fluent family) are marked and never trained on.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
WORK = HERE / "work"
SIZE = 64
SETS = {  # name -> version; licences stand in NOTICE
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "twemoji": "1.2.5",
    "openmoji": "1.2.29",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
    "emojione": "1.2.3",
    "fxemoji": "1.2.2",
    "game-icons": "1.2.4",
    "emojione-v1": "1.2.3",
    "streamline-emojis": "1.2.4",
}
ANNOTATIONS = "17.0.0"
HELD_OUT_SETS = ("fluent-emoji", "fluent-emoji-flat")


def fetch() -> Path:
    """Install the pinned sets with npm and return the folder that holds them."""
    folder = WORK / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    packages = [f"@iconify-json/{name}@{version}" for name, version in SETS.items()]
    packages.append(f"emojibase-data@{ANNOTATIONS}")
    (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", *packages], cwd=folder, check=True)
    return folder / "node_modules"


def squash(text: str) -> str:
    """Letters and digits only, lower case: the form in which names of different sets agree."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def annotations(modules: Path) -> dict[str, dict[str, Any]]:
    """Map Unicode names, squashed or as sorted words, to label, subgroup and tags, skin tones included."""
    base = modules / "emojibase-data"
    subgroups = json.loads((base / "meta/groups.json").read_text(encoding="utf-8"))["subgroups"]
    known: dict[str, dict[str, Any]] = {}
    same_words: dict[str, list[dict[str, Any]]] = {}
    for entry in json.loads((base / "en/data.json").read_text(encoding="utf-8")):
        group = subgroups.get(str(entry.get("subgroup", "")), "")
        for one in [entry, *entry.get("skins", [])]:
            annotated = {"label": one["label"], "group": group, "tags": entry.get("tags", [])}
            known[squash(one["label"])] = annotated
            same_words.setdefault(words_of(one["label"]), []).append(annotated)
    return {words: found[0] for words, found in same_words.items() if len(found) == 1} | known


def caption_of(icon: str) -> str:
    """Turn an icon's name into words, without a number at the end: ``grinning-face-2`` becomes ``grinning face``."""
    words = re.sub(r"\s+", " ", re.sub(r"[-_:]+", " ", icon)).strip().lower()
    return re.sub(r" \d+$", "", words)


def words_of(text: str) -> str:
    """Words of a name, sorted, without "skin tone": Fluent says ``man-bald-dark``, Unicode "man: dark skin tone, bald"."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("blonde", "blond"))
    return " ".join(sorted(word for word in words if word not in ("skin", "tone")))


def look_up(known: dict[str, dict[str, Any]], icon: str) -> dict[str, Any] | None:
    """Find the annotation of an icon, whose set may order words otherwise, leave some out, add some, or number its variants."""
    for name in (icon, caption_of(icon)):
        for form in (squash(name), words_of(name), squash(name) + "face", squash(name).removesuffix("face")):
            if form in known:
                return known[form]
    return None


def svg_of(icon: dict[str, Any], width: int, height: int) -> str:
    """Wrap an icon's body into a whole SVG document; monochrome icons are drawn in black."""
    left, top = icon.get("left", 0), icon.get("top", 0)
    w, h = icon.get("width", width), icon.get("height", height)
    body = icon["body"].replace("currentColor", "#000")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{left} {top} {w} {h}"'
    return f'{head} width="{SIZE}" height="{SIZE}">{body}</svg>'


def render(svg: str) -> np.ndarray | None:
    """Render one SVG to ``uint8[64, 64, 4]``, or None where the renderer refuses it."""
    import resvg_py

    try:
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except (ValueError, OSError):
        return None
    if image.size != (SIZE, SIZE):
        canvas = Image.new("RGBA", (SIZE, SIZE))
        image.thumbnail((SIZE, SIZE))
        canvas.paste(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
        image = canvas
    return np.asarray(image)


def rows_of(modules: Path) -> list[dict[str, Any]]:
    """List every picture of every set with its name, caption, group and tags, aliases left out."""
    known = annotations(modules)
    rows = []
    for name in SETS:
        data = json.loads((modules / "@iconify-json" / name / "icons.json").read_text(encoding="utf-8"))
        for icon, body in sorted(data["icons"].items()):
            entry = look_up(known, icon)
            if name == "fxemoji" and entry is None:
                continue  # its names have no word breaks, so an unknown one has no caption
            caption = caption_of(re.sub(r"[^\w\s-]", "", entry["label"]) if entry else icon)
            if body.get("hidden") or not re.search(r"[a-z]", caption):
                continue
            svg = svg_of(body, data.get("width", 16), data.get("height", 16))
            meta = entry or {"group": "", "tags": []}
            row = {"set": name, "icon": icon, "caption": caption, "svg": svg}
            rows.append(row | {"group": meta["group"], "tags": [t.lower() for t in meta["tags"]]})
    return rows


def main() -> None:
    """Fetch, render and write the corpus."""
    start = time.time()
    modules = WORK / "npm/node_modules"
    if not modules.exists():
        modules = fetch()
    rows = rows_of(modules)
    with ProcessPoolExecutor() as pool:
        pictures = list(pool.map(render, [row.pop("svg") for row in rows], chunksize=64))
    kept = [(row, p) for row, p in zip(rows, pictures, strict=True) if p is not None and p[..., 3].mean() > 3]
    rows = [row for row, _ in kept]
    for row in rows:
        row["held_out"] = row["set"] in HELD_OUT_SETS
    held = sorted(f"{row['set']}/{row['icon']}" for row in rows if row["held_out"])
    (HERE / "held_out.txt").write_text("\n".join(held) + "\n", encoding="utf-8")
    np.savez(WORK / "corpus.npz", images=np.stack([p for _, p in kept]))
    (WORK / "corpus.json").write_text(json.dumps(rows), encoding="utf-8")
    print(f"{len(rows)} pictures, {len(held)} held out, {len({r['caption'] for r in rows})} names, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
