"""A delivery that clipvet wrote is the classifier that it was, and small."""

import pytest
import torch

from clipvet.errors import UsageError
from clipvet.models.delivery import open_delivery
from clipvet.models.families import new_prompt, prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.zeroshot import HandWritten

NAMES = ("Great_White_Shark", "t-shirt", "fire truck")
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("init", ["a photo of a", ""])
@pytest.mark.parametrize("family", ["coop", "cocoop", "kgcoop", "prograd", "tcp", "maple", "vpt", "ivlp", "promptsrc"])
def test_what_was_saved_is_what_is_opened(tmp_path, tiny_clip, family, init, compact):
    prompt = new_prompt(family, tiny_clip, NAMES, seed=3, init=init)
    original = PromptedClassifier(tiny_clip, prompt, NAMES).freeze()
    path = tmp_path / "delivery.safetensors"
    save_delivery(path, original, compact=compact)
    if compact:
        learned = sum(parameter.numel() for parameter in prompt.parameters()) * 4
        assert path.stat().st_size < learned + 40_000

    delivery = open_delivery(path, base=tiny_clip)

    with torch.no_grad():
        assert torch.allclose(delivery.classifier(IMAGES), original(IMAGES), atol=1e-4)
    assert (delivery.info.family, delivery.info.class_names, delivery.findings) == (family, NAMES, ())


@pytest.mark.parametrize("position", ["middle", "front"])
def test_the_position_is_kept(tmp_path, tiny_clip, position):
    state = new_prompt("coop", tiny_clip, NAMES, seed=1).state()
    prompt = prompt_from_tensors("coop", state, tiny_clip, NAMES, position=position)
    original = PromptedClassifier(tiny_clip, prompt, NAMES).freeze()
    save_delivery(tmp_path / "a.safetensors", original)
    delivery = open_delivery(tmp_path / "a.safetensors", base=tiny_clip)
    assert torch.allclose(delivery.classifier(IMAGES), original(IMAGES), atol=1e-4)


def test_a_tcp_wording_survives(tmp_path, tiny_clip):
    state = new_prompt("tcp", tiny_clip, NAMES, seed=1).state()
    del state["token_suffix"]
    other = {"wording": "X X X X {}, a type of pet.", "feature_wording": "a photo of a {}, a type of pet."}
    prompt = prompt_from_tensors("tcp", state, tiny_clip, NAMES, **other)
    original = PromptedClassifier(tiny_clip, prompt, NAMES).freeze()
    save_delivery(tmp_path / "a.safetensors", original)
    delivery = open_delivery(tmp_path / "a.safetensors", base=tiny_clip)
    assert torch.allclose(delivery.classifier(IMAGES), original(IMAGES), atol=1e-4)
    assert delivery.info.class_names == NAMES


def test_a_hand_written_prompt_has_nothing_to_save(tmp_path, tiny_clip):
    with pytest.raises(UsageError, match="with learned tensors, got HandWritten"):
        save_delivery(tmp_path / "a.safetensors", PromptedClassifier(tiny_clip, HandWritten(tiny_clip, NAMES), NAMES))
