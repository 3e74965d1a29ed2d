"""Logits of each family, following the forward pass of its official code step by step.

Each function takes the file's tensors, the base's weights under OpenAI's names, images in [0, 1] and class names. The
arithmetic is fp32 throughout; where the official towers call ``.half()`` on learned tokens, so does this.
"""

import torch

from tests.oracles import clip_math as m
from tests.oracles import tokens

NAMES_TEMPLATE = "a photo of a {}."


def words(names, template):
    return [template.replace("{}", name.replace("_", " ")) for name in names]


def frozen_text(base, texts):
    rows = tokens.tokenize(texts)
    return m.unit(m.text(base, base["token_embedding.weight"].float()[rows], rows.argmax(dim=-1)))


def frozen_image(base, images):
    return m.unit(m.vision(m.part(base, "visual."), m.normalise_pixels(images)))


def prompt_parts(base, names, template, n_ctx):
    """What a PromptLearner registers: start row, rows behind the context, tokens (recomputed at load, never taken from a file)."""
    rows = tokens.tokenize(words(names, template))
    embedding = base["token_embedding.weight"].float()[rows]
    return embedding[:, :1], embedding[:, 1 + n_ctx :], rows.argmax(dim=-1)


def classify(base, image_features, text_features):
    return base["logit_scale"].float().exp() * image_features @ text_features.T


def context_text(base, prompts, eot, before_block=None):
    return m.unit(m.text(base, prompts, eot, before_block))


def coop(file, base, images, names, position="end", features=None):
    ctx = file["ctx"].float()
    n_ctx = ctx.shape[-2]
    ctx = ctx.unsqueeze(0).expand(len(names), -1, -1) if ctx.dim() == 2 else ctx
    prefix, suffix, eot = prompt_parts(base, names, "X " * n_ctx + "{}.", n_ctx)
    rows = []
    for i, name in enumerate(names):
        k = tokens.length(name.replace("_", " "))
        name_i, rest_i = suffix[i, :k], suffix[i, k:]
        if position == "end":
            rows.append(torch.cat([prefix[i], ctx[i], suffix[i]]))
        elif position == "middle":
            half = n_ctx // 2
            rows.append(torch.cat([prefix[i], ctx[i, :half], name_i, ctx[i, half:], rest_i]))
        else:
            rows.append(torch.cat([prefix[i], name_i, ctx[i], rest_i]))
    image_features = frozen_image(base, images) if features is None else features
    return classify(base, image_features, context_text(base, torch.stack(rows), eot))


def kgcoop(file, base, images, names, features=None):
    return coop({"ctx": file["ctx"]}, base, images, names, features=features)


prograd = coop


def cocoop(file, base, images, names, features=None):
    image_features = frozen_image(base, images) if features is None else features
    ctx = file["ctx"].float()
    prefix, suffix, eot = prompt_parts(base, names, "X " * len(ctx) + "{}.", len(ctx))
    net = m.part(file, "meta_net.")
    hidden = torch.clamp(image_features @ net["linear1.weight"].T + net["linear1.bias"], min=0)
    bias = hidden @ net["linear2.weight"].T + net["linear2.bias"]
    logits = []
    for i in range(len(images)):
        shifted = (ctx + bias[i]).expand(len(names), -1, -1)
        text_features = context_text(base, torch.cat([prefix, shifted, suffix], dim=1), eot)
        logits.append(classify(base, image_features[i : i + 1], text_features)[0])
    return torch.stack(logits)


def tcp(file, base, images, names, feature_template, template, features=None):
    image_features = frozen_image(base, images) if features is None else features
    class_features = frozen_text(base, words(names, feature_template))
    net = m.part(file, "meta_net.")
    hidden = m.quick_gelu(class_features @ net["linear1.weight"].T + net["linear1.bias"])
    made = (hidden @ net["linear2.weight"].T + net["linear2.bias"]).reshape(len(names), -1, 512)
    ctx = file["ctx"].float()
    prefix, suffix, eot = prompt_parts(base, names, template, len(ctx))
    prompts = torch.cat([prefix, ctx.expand(len(names), -1, -1), suffix], dim=1)

    def before(index, x):
        return torch.cat([x[:, :1], made, x[:, 1 + made.shape[1] :]], dim=1) if index == 8 else x

    return classify(base, image_features, context_text(base, prompts, eot, before))


def maple(file, base, images, names):
    own = m.part(file, "prompt_learner.")
    ctx = own["ctx"]
    n_ctx = len(ctx)
    deep_text, deep_vision, i = [], [], 0
    while f"compound_prompts_text.{i}" in own:
        prompt = own[f"compound_prompts_text.{i}"]
        name = f"compound_prompt_projections.{i}"
        deep_text.append(prompt.half().float())
        deep_vision.append((prompt @ own[name + ".weight"].T + own[name + ".bias"]).half().float())
        i += 1
    shared = (ctx @ own["proj.weight"].T + own["proj.bias"]).half().float()

    def text_before(index, x):
        if index == 0 or index > len(deep_text):
            return x
        return torch.cat([x[:, :1], deep_text[index - 1].expand(len(x), -1, -1), x[:, 1 + n_ctx :]], dim=1)

    def vision_before(index, x):
        if index == 0 or index > len(deep_vision):
            return x
        return torch.cat([x[:, : x.shape[1] - n_ctx], deep_vision[index - 1].expand(len(x), -1, -1)], dim=1)

    # Two vectors replace "a photo"; the official texts start with all four words.
    prefix, suffix, eot = prompt_parts(base, names, NAMES_TEMPLATE, n_ctx)
    prompts = torch.cat([prefix, ctx.expand(len(names), -1, -1), suffix], dim=1)
    tuned = m.part(file, "text_encoder.")
    text_features = m.unit(m.text(tuned, prompts, eot, text_before))
    image_features = m.unit(m.vision(m.part(file, "image_encoder."), m.normalise_pixels(images), shared, vision_before))
    return classify({"logit_scale": file["logit_scale"]}, image_features, text_features)


def prompted_vision(file, images):
    w = m.part(file, "image_encoder.")

    def before(index, x):
        key = f"transformer.resblocks.{index}.VPT_shallow"
        if key not in w:
            return x
        own = w[key].half().float()
        return torch.cat([x[:, : x.shape[1] - len(own)], own.expand(len(x), -1, -1)], dim=1)

    return m.unit(m.vision(w, m.normalise_pixels(images), w["VPT"].half().float(), before))


def vpt(file, base, images, names):
    w = m.part(file, "text_encoder.") | {"token_embedding.weight": base["token_embedding.weight"]}
    text_features = frozen_text(w, words(names, NAMES_TEMPLATE))
    return classify({"logit_scale": file["logit_scale"]}, prompted_vision(file, images), text_features)


def ivlp(file, base, images, names):
    w = m.part(file, "text_encoder.")
    ctx = file["prompt_learner.ctx"].float()

    def before(index, x):
        key = f"transformer.resblocks.{index}.VPT_shallow"
        if key not in w:
            return x
        own = w[key].half().float()
        return torch.cat([x[:, :1], own.expand(len(x), -1, -1), x[:, 1 + len(own) :]], dim=1)

    prefix, suffix, eot = prompt_parts(base, names, NAMES_TEMPLATE, len(ctx))
    prompts = torch.cat([prefix, ctx.expand(len(names), -1, -1), suffix], dim=1)
    text_features = m.unit(m.text(w, prompts, eot, before))
    return classify({"logit_scale": file["logit_scale"]}, prompted_vision(file, images), text_features)


promptsrc = ivlp


def zero_shot(base, images, names, templates, features=None):
    each = [frozen_text(base, words(names, template)) for template in templates]
    image_features = frozen_image(base, images) if features is None else features
    return classify(base, image_features, m.unit(sum(each) / len(each)))
