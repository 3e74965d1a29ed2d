"""Checkpoint files with the keys, shapes, dtypes and envelope that each official trainer writes, filled with seeded values."""

import collections

import torch

from tests.oracles import tokens

NAMES = ("great_white_shark", "cat", "fire truck")
LINEAR_LIKE = (
    "conv1.weight",
    "in_proj_weight",
    "in_proj_bias",
    "out_proj.weight",
    "out_proj.bias",
    "c_fc.weight",
    "c_fc.bias",
    "c_proj.weight",
    "c_proj.bias",
    "text_projection",
    "visual.proj",
    "image_encoder.proj",
)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(g, *shape, std=0.5):
    return torch.randn(*shape, generator=g) * std


def buffers(base, lead, n_ctx, dtype, names=NAMES):
    """token_prefix and token_suffix of a PromptLearner whose texts are ``lead`` with the class name in it."""
    rows = tokens.tokenize([lead.replace("{}", name.replace("_", " ")) for name in names])
    embedding = base["token_embedding.weight"][rows].to(dtype)
    return {"token_prefix": embedding[:, :1, :].clone(), "token_suffix": embedding[:, 1 + n_ctx :, :].clone()}


def layer(g, name, n_in, n_out, dtype):
    return {f"{name}.weight": normal(g, n_out, n_in, std=n_in**-0.5).to(dtype), f"{name}.bias": normal(g, n_out).to(dtype)}


def towers(base, dtype, *, visual_only=False):
    """The tuned CLIP as MaPLe's repository saves it: no token embedding; LayerNorm, class and position embeddings fp32."""
    out = {}
    for key, value in base.items():
        if key.startswith("visual."):
            name = "image_encoder." + key.removeprefix("visual.")
        elif visual_only or key in ("token_embedding.weight", "logit_scale"):
            continue  # no family saves the token embedding
        else:
            name = "text_encoder." + key
        out[name] = value.to(dtype) if key.endswith(LINEAR_LIKE) else value.float()
    return out if visual_only else out | {"logit_scale": base["logit_scale"].float()}


def coop(base, *, n_ctx=16, class_specific=False):
    g = rng(1)
    shape = (len(NAMES), n_ctx, 512) if class_specific else (n_ctx, 512)
    return {"ctx": normal(g, *shape).half(), **buffers(base, "X " * n_ctx + "{}.", n_ctx, torch.float16)}


def class_specific_coop(base):
    return coop(base, n_ctx=5, class_specific=True)


def kgcoop(base):
    g = rng(2)
    return {
        "ctx": normal(g, 4, 512).half(),
        "bias_vectors": normal(g, 1, 512).half(),
        **buffers(base, "a photo of a {}.", 4, torch.float16),
        **layer(g, "meta_net.linear1", 512, 512, torch.float16),
    }


def prograd(base):
    g = rng(3)
    ctx = torch.zeros(16, 512)
    ctx[-4:] = normal(g, 4, 512)
    return {"ctx": ctx.half(), **buffers(base, "X " * 12 + "a photo of a {}.", 16, torch.float16)}


def cocoop(base):
    g = rng(4)
    return {
        "ctx": normal(g, 4, 512).half(),
        **buffers(base, "a photo of a {}.", 4, torch.float16),
        **layer(g, "meta_net.linear1", 512, 32, torch.float16),
        **layer(g, "meta_net.linear2", 32, 512, torch.float16),
    }


def tcp(base, wording="X X X X {}, a type of pet."):
    g = rng(5)
    return {
        "ctx": normal(g, 4, 512).half(),
        **buffers(base, wording, 4, torch.float16),
        **layer(g, "meta_net.linear1", 512, 128, torch.float16),
        **layer(g, "meta_net.linear2", 128, 2048, torch.float16),
    }


def maple(base, depth=9):
    g = rng(6)
    own = {"ctx": normal(g, 2, 512).half(), **buffers(base, "a photo of a {}.", 2, torch.float16)}
    own |= layer(g, "proj", 512, 768, torch.float16)
    for i in range(depth - 1):
        own[f"compound_prompts_text.{i}"] = normal(g, 2, 512)
        own |= layer(g, f"compound_prompt_projections.{i}", 512, 768, torch.float32)
    return {f"prompt_learner.{key}": value for key, value in own.items()} | towers(base, torch.float16)


def deep_tokens(g, n_vision, n_text, vision_depth, text_depth):
    out = {"image_encoder.VPT": normal(g, n_vision, 768)}
    for i in range(1, vision_depth):
        out[f"image_encoder.transformer.resblocks.{i}.VPT_shallow"] = normal(g, n_vision, 768)
    for i in range(1, text_depth):
        out[f"text_encoder.transformer.resblocks.{i}.VPT_shallow"] = normal(g, n_text, 512)
    return out


def vpt(base):
    return towers(base, torch.float32) | deep_tokens(rng(7), 8, 0, 12, 0)


def ivlp(base):
    g = rng(8)
    own = {"ctx": normal(g, 2, 512).half(), **buffers(base, "a photo of a {}.", 2, torch.float16)}
    learner = {f"prompt_learner.{key}": value for key, value in own.items()}
    return learner | towers(base, torch.float16) | deep_tokens(g, 2, 2, 12, 12)


def promptsrc(base):
    g = rng(9)
    own = {"ctx": normal(g, 4, 512).half(), **buffers(base, "a photo of a {}.", 4, torch.float16)}
    learner = {f"prompt_learner.{key}": value for key, value in own.items()}
    second = towers(base, torch.float16, visual_only=True)
    learner |= {key.replace("image_encoder.", "prompt_learner.ZS_image_encoder."): value for key, value in second.items()}
    return learner | towers(base, torch.float16) | deep_tokens(g, 4, 4, 9, 9)


def save(path, state):
    """Write the Dassl envelope: its warm-up scheduler keeps whole scheduler and optimiser objects."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.002, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    envelope = {
        "state_dict": state,
        "epoch": 5,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": scheduler, "warmup_epoch": 1, "cons_lr": 1e-5, "last_epoch": 5},
        "val_result": None,
    }
    torch.save(envelope, path)


def load(path):
    """Read a file that this module wrote; what its scheduler holds besides tensors is named."""
    held = [torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.SGD, collections.defaultdict, dict]
    with torch.serialization.safe_globals(held):
        return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
