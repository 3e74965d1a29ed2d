"""Mixed precision changes how the towers compute and nothing else: features stay float32, and near those of full precision."""

from __future__ import annotations

import pytest
import torch

from clipvet.models import base
from clipvet.models.base import ClipModel, TextInput, bfloat16_is_fast
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier

NAMES = ("red", "green", "blue")
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is tested on every CPU, whether it gains there or not."""
    monkeypatch.setattr(base, "bfloat16_is_fast", lambda device: True)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("family", ["coop", "cocoop", "maple", "vpt"])
def test_logits_and_gradients_stay_near_those_of_full_precision(tiny_clip: ClipModel, family: str) -> None:
    classifier = PromptedClassifier(tiny_clip, new_prompt(family, tiny_clip, NAMES, seed=0), NAMES)
    full, mixed = IMAGES.clone().requires_grad_(True), IMAGES.clone().requires_grad_(True)
    wanted = classifier(full)
    with tiny_clip.mixed_precision():
        found = classifier(mixed)
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    assert torch.allclose(found, wanted, atol=0.02 * float(tiny_clip.logit_scale))
    wanted.logsumexp(1).sum().backward()
    found.logsumexp(1).sum().backward()
    assert full.grad is not None
    assert mixed.grad is not None
    assert mixed.grad.dtype == torch.float32
    assert float(torch.cosine_similarity(full.grad.flatten(), mixed.grad.flatten(), dim=0)) > 0.98


@pytest.mark.usefixtures("fast")
def test_the_block_ends_even_where_it_fails(tiny_clip: ClipModel) -> None:
    before = tiny_clip.encode_image(IMAGES)
    with pytest.raises(RuntimeError, match="stop"), tiny_clip.mixed_precision():
        assert not torch.equal(tiny_clip.encode_image(IMAGES), before)
        with tiny_clip.mixed_precision(wanted=False):
            assert torch.equal(tiny_clip.encode_image(IMAGES), before)
        assert not torch.equal(tiny_clip.encode_image(IMAGES), before)
        raise RuntimeError("stop")
    assert torch.equal(tiny_clip.encode_image(IMAGES), before)


def test_a_device_without_the_instructions_keeps_full_precision(tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert not bfloat16_is_fast(torch.device("cpu"))
    assert bfloat16_is_fast(torch.device("cuda"))
    assert not bfloat16_is_fast(torch.device("mps"))
    tokens = tiny_clip.tokenize(list(NAMES))
    text = TextInput(embeddings=tiny_clip.embed(tokens), eot=tokens.argmax(1))
    wanted = tiny_clip.encode_embeddings(text)
    with tiny_clip.mixed_precision():
        assert torch.equal(tiny_clip.encode_embeddings(text), wanted)
