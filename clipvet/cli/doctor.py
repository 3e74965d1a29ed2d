"""``clipvet doctor``: what works on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import clipvet

__all__ = ["EPILOG", "doctor"]

EPILOG = """Example:

clipvet doctor"""

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
    "pyarrow",
    "rich",
    "pydantic",
    "jinja2",
)
EXTRAS = {"hub": "huggingface_hub", "baselines": "sklearn", "ray": "ray"}
ASSETS = Path(clipvet.__file__).parent / "pocket" / "assets"


class Line(NamedTuple):
    """One fact: whether it is as it must be, what it is about, and what was found."""

    good: bool
    about: str
    found: str


def doctor() -> int:
    """Say what works on this machine; exit code 2 where something that clipvet needs is missing or changed."""
    good = True
    for line in _lines():
        good = good and line.good
        print(f"{'ok ' if line.good else 'BAD'} {line.about}: {line.found}")
    print("Everything that clipvet needs is there." if good else "Something is missing or changed: install clipvet again.")
    return 0 if good else 2


def _lines() -> Iterator[Line]:
    yield Line(True, "clipvet", clipvet.__version__)
    yield Line(True, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    yield from (_package(name) for name in PACKAGES)
    yield from _torch()
    for extra, package in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        yield Line(True, f"extra [{extra}]", package if there else f"not installed (pip install 'clipvet[{extra}]')")
    yield from _assets()


def _package(name: str) -> Line:
    try:
        return Line(True, name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Line(False, name, "missing")


def _torch() -> Iterator[Line]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    from clipvet.models._torchvision import make_importable

    yield Line(True, "torch threads", str(torch.get_num_threads()))
    devices = ["cpu", *(f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Line(True, "devices", ", ".join(devices))
    make_importable()
    try:
        import torchvision  # noqa: F401 - whether it can be imported is the question
    except (ImportError, RuntimeError, OSError) as error:
        yield Line(False, "torchvision", f"cannot be imported ({error})")
    else:
        compiled = torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU")
        found = "with compiled operators" if compiled else "without compiled operators, which clipvet does not use"
        yield Line(True, "torchvision imports", found)


def _assets() -> Iterator[Line]:
    files = sorted(path for path in ASSETS.iterdir() if path.is_file()) if ASSETS.is_dir() else []
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        stated = _stated(path)
        changed = f", but its card states {stated[:12]}" if stated not in ("", digest) else ""
        yield Line(not changed, f"pocket {path.name}", f"{path.stat().st_size / 1e6:.2f} MB, sha256 {digest[:12]}{changed}")
    for name in ("pocket-0.safetensors", "pocket-1.safetensors", "tasks.json", "pictures.zip"):
        if not (ASSETS / name).exists():
            yield Line(False, f"pocket {name}", "missing")
    zoo = ASSETS / "zoo"
    count = sum(path.is_file() for path in zoo.rglob("*")) if zoo.is_dir() else 0
    yield Line(count > 0, "pocket zoo", f"{count} files")


def _stated(path: Path) -> str:
    """Return the hash on the card beside weights, or nothing where there is no card."""
    card = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not card.exists():
        return ""
    return str(json.loads(card.read_text(encoding="utf-8")).get("sha256", ""))
