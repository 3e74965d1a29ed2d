"""The two layouts of captions in JSON: COCO's, and Karpathy's."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from clipvet.data._reading import clean
from clipvet.data.columns import listed
from clipvet.errors import UnreadableError

__all__ = ["Coco", "Document", "Entry", "Karpathy", "read_document"]

_LARGEST = 2 << 30  # bytes; the JSON is read as a whole


class Entry(NamedTuple):
    """One caption: its key ``<image id>-<number>``, the image's file and the caption as they stand.

    ``place`` is where it lies in the JSON: the image's number, and that of the annotation or of the image's sentence, -1 where the
    image has none.
    """

    key: str
    file: object
    caption: object
    place: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Document(ABC):
    """A file of captions, parsed."""

    kind: ClassVar[str]
    mapping: ClassVar[Mapping[str, str]]
    content: Mapping[str, Any]

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Return all captions in the order of the images, and what has no caption or no image."""

    @abstractmethod
    def reduce(self, places: set[tuple[int, int]]) -> dict[str, Any]:
        """Return the document with the captions at these places and their images alone."""


class Coco(Document):
    """``images[{id, file_name}]`` and ``annotations[{image_id, caption}]``."""

    kind = "COCO captions"
    mapping: ClassVar = {"image": "file_name", "caption": "caption", "id": "image_id and a number"}

    def entries(self) -> list[Entry]:
        captions: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for number, annotation in enumerate(self.content["annotations"]):
            captions.setdefault(clean(annotation.get("image_id")), []).append((number, annotation))
        images = [(clean(image.get("id")), image.get("file_name")) for image in self.content["images"]]
        known = {key for key, _ in images}
        unknown = [(key, None) for key in captions if key not in known]
        found: list[Entry] = []
        for place, (key, file) in enumerate([*images, *unknown]):
            own = captions.get(key, [])
            found += [Entry(f"{key}-{n}", file, one.get("caption"), (place, number)) for n, (number, one) in enumerate(own)]
            found += [] if own else [Entry(key, file, None, (place, -1))]
        return found

    def reduce(self, places: set[tuple[int, int]]) -> dict[str, Any]:
        numbers = {number for _, number in places}
        annotations = [one for number, one in enumerate(self.content["annotations"]) if number in numbers]
        used = {clean(one.get("image_id")) for one in annotations}
        images = [image for image in self.content["images"] if clean(image.get("id")) in used]
        return {**self.content, "images": images, "annotations": annotations}


class Karpathy(Document):
    """``images[{filepath, filename, sentences[{raw}]}]``, with ``cocoid`` or ``imgid``."""

    kind = "Karpathy captions"
    mapping: ClassVar = {"image": "filepath/filename", "caption": "sentences.raw", "id": "cocoid or imgid, and a number"}

    def entries(self) -> list[Entry]:
        found: list[Entry] = []
        for place, image in enumerate(self.content["images"]):
            key = clean(image.get("cocoid", image.get("imgid", place)))
            name, folder = image.get("filename"), image.get("filepath")
            file = f"{folder}/{name}" if name and folder else name
            sentences = _objects(image.get("sentences", []), "sentences")
            found += [Entry(f"{key}-{n}", file, one.get("raw"), (place, n)) for n, one in enumerate(sentences)]
            found += [] if sentences else [Entry(key, file, None, (place, -1))]
        return found

    def reduce(self, places: set[tuple[int, int]]) -> dict[str, Any]:
        images = []
        for place, image in enumerate(self.content["images"]):
            numbers = [n for n in range(len(image.get("sentences", []))) if (place, n) in places]
            lists = {name: image[name] for name in ("sentences", "sentids") if isinstance(image.get(name), list)}
            reduced = {name: [values[n] for n in numbers if n < len(values)] for name, values in lists.items()}
            images += [{**image, **reduced}] if numbers else []
        return {**self.content, "images": images}


def read_document(path: Path) -> Document:
    """Read a file of captions.

    Raises:
        UnreadableError: it cannot be read, or has another layout.
    """
    content = _json(path)
    try:
        found = _document(content)
    except ValueError as error:
        raise UnreadableError(f"{path}: expected captions of COCO or Karpathy, found {error}; name a file of captions") from error
    return found


def _document(content: Mapping[str, Any]) -> Document:
    images = _objects(content.get("images", []), "images")
    if "annotations" in content:
        fields = {name for one in _objects(content["annotations"], "annotations")[:100] for name in one}
        if "caption" in fields:
            return Coco(content=content)
        raise ValueError(f"annotations with {listed(sorted(fields))}")
    if any("sentences" in image for image in images):
        for image in images:
            _objects(image.get("sentences", []), "sentences")
        return Karpathy(content=content)
    raise ValueError(f"an object with {listed(content)}")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UnreadableError(f"{path}: expected JSON of at most {_LARGEST:,} bytes, found more; cut it into several files")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UnreadableError(f"{path}: expected JSON, could not read it ({why}); check the file") from error
    if not isinstance(content, dict):
        raise UnreadableError(
            f"{path}: expected an object with images and captions, found {type(content).__name__}; name such a file"
        )
    return content


def _objects(found: object, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{name} that is no list of objects")
    return found
