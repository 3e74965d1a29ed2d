"""Learn the pocket tokenizer: byte-pair merges in the file format that open_clip's SimpleTokenizer reads.

    python -m pocket_build.tokenizer

Reads the corpus, writes ``clipvet/pocket/assets/bpe.txt.gz``. Any text encodes, since all 256 bytes are in the vocabulary.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from pocket_build.corpus import WORK

ASSETS = Path(__file__).parent.parent / "clipvet/pocket/assets"
VOCABULARY = 4096
SPECIAL = 2 + 512  # start and end of text, every byte with and without an end-of-word mark

Word = tuple[str, ...]


def word_counts() -> Counter[Word]:
    """Count words of captions and tags of what is trained on, as byte symbols with an end-of-word mark."""
    counts: Counter[Word] = Counter()
    for row in json.loads((WORK / "corpus.json").read_text(encoding="utf-8")):
        if row["held_out"]:
            continue
        for word in " ".join([row["caption"], *row["tags"]]).split():
            if word.isascii() and word.isalpha():
                counts[(*word[:-1], word[-1] + "</w>")] += 1
    for word in ("a", "photo", "of", "an", "the", "picture", "drawing", "type", "kind"):
        counts[(*word[:-1], word[-1] + "</w>")] += 1000
    return counts


def merge(word: Word, pair: tuple[str, str]) -> Word:
    """Join every occurrence of the pair in a word."""
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def learn(counts: Counter[Word], n_merges: int) -> list[tuple[str, str]]:
    """Learn the most frequent pairs, ties broken by spelling, so that the result is the same every time."""
    merges = []
    for _ in range(n_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        joined: Counter[Word] = Counter()
        for word, count in counts.items():
            joined[merge(word, best) if best[0] in word else word] += count
        counts = joined
    return merges


def main() -> None:
    """Learn and write the merges."""
    merges = learn(word_counts(), VOCABULARY - SPECIAL)
    text = "\n".join(["#version: clipvet pocket", *(" ".join(pair) for pair in merges)])
    ASSETS.mkdir(parents=True, exist_ok=True)
    (ASSETS / "bpe.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{len(merges)} merges, vocabulary {len(merges) + SPECIAL}")


if __name__ == "__main__":
    main()
