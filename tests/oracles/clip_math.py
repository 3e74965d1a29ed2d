"""CLIP's two transformers written out over a plain dict of weights under OpenAI's names."""

import math

import torch

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def part(weights, prefix):
    return {key[len(prefix) :]: value.float() for key, value in weights.items() if key.startswith(prefix)}


def normalise_pixels(images):
    channels = [(images[:, c] - OPENAI_MEAN[c]) / OPENAI_STD[c] for c in range(3)]
    return torch.stack(channels, dim=1)


def layer_norm(x, w, name):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * w[name + ".weight"] + w[name + ".bias"]


def quick_gelu(x):
    return x / (1 + torch.exp(-1.702 * x))


def attention(x, w, name, heads, mask):
    n, length, width = x.shape
    qkv = x @ w[name + ".in_proj_weight"].T + w[name + ".in_proj_bias"]
    q, k, v = (t.reshape(n, length, heads, width // heads).permute(0, 2, 1, 3) for t in qkv.split(width, dim=-1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
    if mask is not None:
        scores = scores + mask
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    weights = weights / weights.sum(dim=-1, keepdim=True)
    mixed = (weights @ v).permute(0, 2, 1, 3).reshape(n, length, width)
    return mixed @ w[name + ".out_proj.weight"].T + w[name + ".out_proj.bias"]


def block(x, w, name, heads, mask=None):
    x = x + attention(layer_norm(x, w, name + ".ln_1"), w, name + ".attn", heads, mask)
    hidden = quick_gelu(layer_norm(x, w, name + ".ln_2") @ w[name + ".mlp.c_fc.weight"].T + w[name + ".mlp.c_fc.bias"])
    return x + hidden @ w[name + ".mlp.c_proj.weight"].T + w[name + ".mlp.c_proj.bias"]


def n_blocks(w):
    return len({key.split(".")[2] for key in w if key.startswith("transformer.resblocks.")})


def vision(w, pixels, first=None, before_block=None):
    """``first`` joins behind the patches; ``before_block(index, x)`` may replace tokens."""
    kernel = w["conv1.weight"]
    x = torch.nn.functional.conv2d(pixels, kernel, stride=kernel.shape[-1])
    x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
    x = torch.cat([w["class_embedding"] + torch.zeros(x.shape[0], 1, x.shape[-1]), x], dim=1)
    x = x + w["positional_embedding"]
    if first is not None:
        x = torch.cat([x, torch.stack([first] * x.shape[0])], dim=1)
    x = layer_norm(x, w, "ln_pre")
    for index in range(n_blocks(w)):
        if before_block is not None:
            x = before_block(index, x)
        x = block(x, w, f"transformer.resblocks.{index}", heads=x.shape[-1] // 64)
    return layer_norm(x[:, 0, :], w, "ln_post") @ w["proj"]


def text(w, prompts, eot, before_block=None):
    x = prompts + w["positional_embedding"]
    length = x.shape[1]
    mask = torch.full((length, length), float("-inf")).triu(1)
    for index in range(n_blocks(w)):
        if before_block is not None:
            x = before_block(index, x)
        x = block(x, w, f"transformer.resblocks.{index}", heads=x.shape[-1] // 64, mask=mask)
    x = layer_norm(x, w, "ln_final")
    return x[torch.arange(x.shape[0]), eot] @ w["text_projection"]


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)
