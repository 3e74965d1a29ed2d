"""Small pictures as data URIs: only formats that hold pixels and nothing else."""

from __future__ import annotations

import base64

from markupsafe import Markup

__all__ = ["data_uri"]


def data_uri(picture: bytes | None) -> Markup:
    """Return the bytes of a PNG, JPEG or WebP file as a data URI; empty for none and for anything else, such as SVG.

    It is markup, since base64 holds nothing to escape and the page's check of every character would take long.
    """
    kind = _kind(picture or b"")
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}") if picture and kind else Markup()  # noqa: S704


def _kind(picture: bytes) -> str:
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if picture.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP" else ""
