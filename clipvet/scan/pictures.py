"""Small pictures of some pairs, read from the source once more."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from clipvet.data.images import decode_image
from clipvet.data.pairs import PairSource, Unread
from clipvet.errors import UnreadableError

__all__ = ["thumbnails"]

SIDE = 96  # pixels


def thumbnails(source: PairSource, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
    """Read some pairs again and return small WebP pictures of them.

    Args:
        source: where the pairs lie.
        wanted: number of the shard, key.

    Returns:
        The pictures of those that could be read; a source of ready features has none.
    """
    out: dict[tuple[int, str], bytes] = {}
    for shard in sorted({number for number, _ in wanted}):
        keys = {key for number, key in wanted if number == shard}
        if source.shards[shard].embeddings() is not None:
            continue
        for pair in source.shards[shard].pairs():
            if not keys:
                break
            if isinstance(pair, Unread) or pair.key not in keys:
                continue
            keys.discard(pair.key)
            try:
                out[shard, pair.key] = _webp(decode_image(pair.image, pair.key, SIDE))
            except UnreadableError:
                continue
    return out


def _webp(image: Tensor) -> bytes:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=80)
    return file.getvalue()
