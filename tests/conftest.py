"""Fixtures that every test may use: small models that need no download."""

import json
from pathlib import Path

import pytest
import torch

from clipvet.models._open_clip import CLIP, SimpleTokenizer
from clipvet.models.base import ClipModel

ASSETS = Path(__file__).parent.parent / "clipvet/pocket/assets"


def randomise(clip, seed):
    """Give every parameter a seeded value under which it matters: open_clip starts with zero biases and tiny embeddings."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if name == "logit_scale":
                continue
            if ".ln_" in name or name.startswith("ln_"):
                parameter.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embedding" in name:
                parameter.copy_(0.5 * noise)
            else:
                fan_in = parameter[0].numel() if name.endswith("weight") else parameter.shape[0]
                parameter.copy_(noise * fan_in**-0.5)
            parameter.copy_(parameter.half().float())  # as if loaded from an fp16 file
    return clip


@pytest.fixture
def tiny_clip():
    """A random CLIP with the pocket tokenizer: 32 px, patches of 8, width 64, 3 + 3 blocks, 32 text positions."""
    config = json.loads((ASSETS / "pocket.json").read_text(encoding="utf-8"))
    text = config["text_cfg"] | {"context_length": 32, "width": 64, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 3}
    clip = randomise(CLIP(64, vision, text, quick_gelu=config["quick_gelu"]), seed=0)
    tokenizer = SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=32)
    return ClipModel(clip, tokenizer, name="tiny", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
