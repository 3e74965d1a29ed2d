"""A CLIP under Hugging Face's names: seeded tensors, and its forward pass written out with one head at a time."""

import math

import torch

WIDTHS = {"text_model": 64, "vision_model": 128}
HEAD, LAYERS, EMBED, VOCABULARY, CONTEXT, PATCH, GRID = 64, 2, 32, 49408, 16, 8, 3


def tensors(seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g) * 0.2

    out = {"logit_scale": torch.tensor(2.0)}
    for tower, width in WIDTHS.items():
        norms = ["final_layer_norm"] if tower == "text_model" else ["pre_layrnorm", "post_layernorm"]
        for i in range(LAYERS):
            layer = f"encoder.layers.{i}."
            norms += [layer + "layer_norm1", layer + "layer_norm2"]
            sizes = {f"self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
            sizes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
            for name, size in sizes.items():
                out[f"{tower}.{layer}{name}.weight"] = draw(*size)
                out[f"{tower}.{layer}{name}.bias"] = draw(size[0])
        for name in norms:
            out[f"{tower}.{name}.weight"] = 1 + draw(width)
            out[f"{tower}.{name}.bias"] = draw(width)
    out["text_model.embeddings.token_embedding.weight"] = draw(VOCABULARY, 64)
    out["text_model.embeddings.position_embedding.weight"] = draw(CONTEXT, 64)
    out["text_model.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
    out["vision_model.embeddings.class_embedding"] = draw(128)
    out["vision_model.embeddings.patch_embedding.weight"] = draw(128, 3, PATCH, PATCH)
    out["vision_model.embeddings.position_embedding.weight"] = draw(GRID * GRID + 1, 128)
    out["vision_model.embeddings.position_ids"] = torch.arange(GRID * GRID + 1)[None]
    out["text_projection.weight"] = draw(EMBED, 64)
    out["visual_projection.weight"] = draw(EMBED, 128)
    return out


def norm(t, name, x):
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (spread + 1e-5).sqrt() * t[name + ".weight"] + t[name + ".bias"]


def linear(t, name, x):
    return x @ t[name + ".weight"].T + t[name + ".bias"]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def quick(x):
    return x * torch.sigmoid(1.702 * x)


def layer(t, name, x, act, causal):
    y = norm(t, name + "layer_norm1", x)
    q, k, v = (linear(t, f"{name}self_attn.{letter}_proj", y) for letter in "qkv")
    heads = []
    for start in range(0, x.shape[1], HEAD):
        part = slice(start, start + HEAD)
        scores = q[:, part] @ k[:, part].T / math.sqrt(HEAD)
        if causal:
            for row in range(len(x)):
                scores[row, row + 1 :] = -math.inf
        heads.append(scores.softmax(-1) @ v[:, part])
    x = x + linear(t, name + "self_attn.out_proj", torch.cat(heads, dim=1))
    y = norm(t, name + "layer_norm2", x)
    return x + linear(t, name + "mlp.fc2", act(linear(t, name + "mlp.fc1", y)))


def image_feature(t, pixels, act):
    """One picture ``(3, h, w)``, normalised."""
    kernel = t["vision_model.embeddings.patch_embedding.weight"]
    rows = [t["vision_model.embeddings.class_embedding"]]
    for top in range(0, pixels.shape[1], PATCH):
        for left in range(0, pixels.shape[2], PATCH):
            patch = pixels[:, top : top + PATCH, left : left + PATCH]
            rows.append((kernel * patch).flatten(1).sum(1))
    x = torch.stack(rows) + t["vision_model.embeddings.position_embedding.weight"]
    x = norm(t, "vision_model.pre_layrnorm", x)
    for i in range(LAYERS):
        x = layer(t, f"vision_model.encoder.layers.{i}.", x, act, causal=False)
    return linear_free(norm(t, "vision_model.post_layernorm", x[0]), t["visual_projection.weight"])


def text_feature(t, ids, act):
    """One row of token ids; the feature is read at the highest id."""
    x = t["text_model.embeddings.token_embedding.weight"][ids] + t["text_model.embeddings.position_embedding.weight"]
    for i in range(LAYERS):
        x = layer(t, f"text_model.encoder.layers.{i}.", x, act, causal=True)
    x = norm(t, "text_model.final_layer_norm", x)
    return linear_free(x[int(ids.argmax())], t["text_projection.weight"])


def linear_free(x, weight):
    y = weight @ x
    return y / y.norm()
