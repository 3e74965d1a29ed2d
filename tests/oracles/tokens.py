"""Token rows as OpenAI's ``clip.tokenize`` makes them."""

import torch
from open_clip.tokenizer import SimpleTokenizer

START, END = 49406, 49407
_bpe = SimpleTokenizer()


def length(words):
    return len(_bpe.encode(words))


def tokenize(texts, context=77):
    rows = torch.zeros(len(texts), context, dtype=torch.long)
    for row, line in zip(rows, texts, strict=True):
        ids = [START, *_bpe.encode(line), END]
        row[: len(ids)] = torch.tensor(ids)
    return rows
