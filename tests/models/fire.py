"""Opens files the unguarded way, to show that their payloads are real. Run as a script, in a process of its own.

Reads ``[[path, how, marker], ...]`` as JSON from stdin and prints, as JSON, for each whether the marker appeared.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import time
import zipfile
from pathlib import Path

import torch


# Unguarded on purpose, on payloads of our own: only where they fire here does their silence under the reader mean anything.
def open_unguarded(path: str, how: str) -> None:
    if how == "torch":
        torch.load(path, weights_only=False)  # unguarded on purpose: the payload is our own and must be seen to fire
    elif how == "pickle":
        pickle.loads(Path(path).read_bytes())
    else:
        with zipfile.ZipFile(path) as archive:
            pickle.load(io.BytesIO(archive.read("m/data.pkl")))


def appeared(marker: str) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if Path(marker).exists():
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr  # payloads may print
    fired = []
    for path, how, marker in json.load(sys.stdin):
        try:
            open_unguarded(path, how)
        except BaseException as error:
            sys.stderr.write(f"{path}: {error!r}\n")
        fired.append(appeared(marker))
    json.dump(fired, out)
