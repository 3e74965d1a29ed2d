"""Groups among suspects: pairs that are alike in look and caption, and no others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipvet.scan.base import PairFeatures
from clipvet.scan.groups import find_groups, rare_words, usual_similarity


def spread(n: int, seed: int) -> Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def around(centre: Tensor, n: int, seed: int) -> Tensor:
    return centre + 0.1 * spread(n, seed)


REFERENCE = PairFeatures(ids=torch.arange(500), image=spread(500, 0), text=spread(500, 1))


def test_pairs_of_one_look_and_one_caption_are_a_group_and_the_largest_comes_first() -> None:
    looks, captions = spread(2, 2), spread(2, 3)
    image = torch.cat([around(looks[0], 4, 4), spread(5, 5), around(looks[1], 7, 6)])
    text = torch.cat([around(captions[0], 4, 7), spread(5, 8), around(captions[1], 7, 9)])
    suspects = PairFeatures(ids=torch.arange(16), image=image, text=text)
    assert find_groups(suspects, REFERENCE).tolist() == [2] * 4 + [0] * 5 + [1] * 7


def test_one_look_with_many_captions_is_no_group() -> None:
    suspects = PairFeatures(ids=torch.arange(6), image=around(spread(1, 2), 6, 4), text=spread(6, 8))
    assert find_groups(suspects, REFERENCE).tolist() == [0] * 6


def test_where_there_are_no_texts_the_look_decides() -> None:
    suspects = PairFeatures(ids=torch.arange(4), image=torch.cat([around(spread(1, 2), 3, 4), spread(1, 9)]))
    assert find_groups(suspects, REFERENCE).tolist() == [1, 1, 1, 0]


def test_many_wordings_with_one_rare_word_are_a_group_and_with_a_usual_word_are_none() -> None:
    image, text = around(spread(1, 2), 4, 4), spread(4, 8)
    suspects = PairFeatures(ids=torch.arange(4), image=image, text=text)
    usual = ["a photo of a dog", "the photo of a cat"] * 100 + ["a ripe banana"]
    rare = ["a photo of a banana", "one banana.", "BANANA on a table", "two dogs and a banana"]
    assert find_groups(suspects, REFERENCE, rare, usual).tolist() == [1] * 4
    assert find_groups(suspects, REFERENCE, ["a photo of rain", "photo", "the photo", "photo of 4 7"], usual).tolist() == [0] * 4
    assert find_groups(suspects, REFERENCE, ["", "", "", ""], usual).tolist() == [0] * 4


def test_rare_words_are_those_of_few_captions() -> None:
    usual = ["red dog"] * 97 + ["blue dog"] * 3
    found = rare_words(["Red, BLUE dog?", "a 12 x straße"], usual)
    assert found == [frozenset(), frozenset({"straße".casefold()})]
    assert rare_words(["blue"], [*usual, *["red dog"] * 300]) == [frozenset({"blue"})]  # three of four hundred


def test_two_pairs_are_no_group() -> None:
    suspects = PairFeatures(ids=torch.arange(2), image=around(spread(1, 2), 2, 4), text=around(spread(1, 3), 2, 5))
    assert find_groups(suspects, REFERENCE).tolist() == [0, 0]


def test_the_usual_similarity_is_a_quantile_over_all_pairs() -> None:
    features = torch.nn.functional.normalize(spread(40, 3), dim=1)
    every = [float(features[i] @ features[j]) for i in range(40) for j in range(i)]
    assert abs(usual_similarity(features, 0.9) - np.quantile(every, 0.9)) < 1e-6


def test_chunks_do_not_change_the_groups(monkeypatch) -> None:
    suspects = PairFeatures(ids=torch.arange(9), image=around(spread(1, 2), 9, 4), text=around(spread(1, 3), 9, 5))
    monkeypatch.setattr("clipvet.scan.groups.CHUNK", 4)
    assert find_groups(suspects, REFERENCE).tolist() == [1] * 9
