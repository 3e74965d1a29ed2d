"""Files as the field's tools write them, made without clipvet."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(red, kind="JPEG"):
    """One small picture in a format; other numbers give other bytes."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (red % 256, red // 256, 0)).save(data, kind)
    return data.getvalue()


def member(name, data=b"", **fields):
    """A tar member: its header and its bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_700_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def sample(key, caption="a cat", number=0, **record):
    """The three members that img2dataset writes for a download that succeeded, in its order."""
    return [
        member(f"{key}.jpg", picture(number)),
        member(f"{key}.json", json.dumps({"caption": caption, "key": key, **record}).encode()),
        member(f"{key}.txt", caption.encode()),
    ]


def write_tar(path, members, tail=None):
    """Write a tar file; ``tail`` replaces the two empty blocks and their padding at its end."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset
    path.write_bytes(data.getvalue() if tail is None else data.getvalue()[:end] + tail)
    return path


def write_parquet(path, /, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def read_shard(shard):
    """Pairs by key, and kinds of what is none with the keys."""
    pairs, unread = {}, {}
    for item in shard.pairs():
        if hasattr(item, "image"):
            assert item.key not in pairs
            pairs[item.key] = item
        else:
            unread.setdefault(item.kind, []).append(item.key)
    return pairs, unread
