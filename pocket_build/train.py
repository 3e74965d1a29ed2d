"""Train a pocket CLIP on the corpus.

    python -m pocket_build.train --seed 0

Resumable: run the same command again. Writes ``pocket_build/work/backbone{seed}.pt`` while it runs and, at the end,
``clipvet/pocket/assets/pocket-{seed}.safetensors`` (fp16, an average of the weights), with the measured zero-shot accuracy on
the held-out Fluent family in ``pocket-{seed}.json``.

The loss is CLIP's symmetric cross-entropy with several positives: pictures that share a name share their texts. The image side also
sees names drawn at random from the corpus as further negatives. Half of the patches are dropped until the last eighth of the steps.
The blocks' matrices are tuned with Muon, which learns more per step than AdamW, and the rest with AdamW. Texts are encoded in four
groups of similar length, and attention is computed by plain matrix products: on a CPU both halve the time of a step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipvet.data.compose import Placement, compose
from clipvet.models._open_clip import CLIP, SimpleTokenizer, open_clip
from pocket_build.corpus import WORK
from pocket_build.tokenizer import ASSETS

BATCH, EXTRA = 256, 384
RATES = (1.5e-3, 4e-3)  # of AdamW and of Muon
HORIZON, COOLDOWN = 3200, 600  # steps to the end of the cosine, and of the line to zero
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PLACEMENT = Placement(smallest=0.7, largest=1.1, angle=20, shift=0.2, shear=0.1, flip=0.0, jitter=0.2, gray=0.03, plain=0.45)
TEMPLATES = (
    "{}",
    "{}.",
    "a photo of a {}.",
    "a photo of {}",
    "a picture of a {}.",
    "a drawing of {}",
    "an icon of a {}.",
    "{} emoji",
)


class Corpus:
    """The training pictures with their names, groups and sampling weights."""

    def __init__(self, *, held_out: bool) -> None:
        rows = json.loads((WORK / "corpus.json").read_text(encoding="utf-8"))
        keep = [i for i, row in enumerate(rows) if row["held_out"] == held_out]
        images = np.load(WORK / "corpus.npz")["images"]
        self.images = torch.from_numpy(images[keep]).permute(0, 3, 1, 2).contiguous()
        self.rows: list[dict[str, Any]] = [rows[i] for i in keep]
        self.names = sorted({row["caption"] for row in self.rows})
        groups = sorted({row["group"] for row in self.rows})
        self.name_id = torch.tensor([self.names.index(row["caption"]) for row in self.rows])
        self.group_id = torch.tensor([groups.index(row["group"]) for row in self.rows])
        self.weights = torch.tensor([weight(row) for row in self.rows])


def weight(row: dict[str, Any]) -> float:
    """How often a picture is drawn: less where hundreds differ in little (skin tones, pairs of them, flags) or the style is far."""
    name = row["caption"]
    tones = (1.0, 0.6, 0.1)[min(name.count("skin tone"), 2)]
    return tones * (0.3 if "flag" in name.split() else 1.0) * (0.25 if row["set"] == "game-icons" else 1.0)


def caption(row: dict[str, Any], rng: np.random.Generator) -> tuple[str, bool]:
    """Draw a caption for a picture; the flag says that it names the group, not the picture."""
    roll = rng.random()
    group = row["group"].split("-", 1)[-1].replace("-", " ")
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    if roll < 0.1 and group:
        return template.format(group), True
    if roll < 0.25 and row["tags"]:
        tags = rng.choice(row["tags"], size=min(len(row["tags"]), 1 + rng.integers(3)), replace=False)
        return f"{row['caption']}, {', '.join(tags)}" if roll < 0.2 else ", ".join(tags), False
    return template.format(row["caption"]), False


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Encode texts cut after the last end-of-text token; attention is causal, so nothing changes. Short ones are encoded apart."""
    order = tokens.argmax(1).argsort()
    features = torch.cat([_encode_cut(model, tokens[part]) for part in order.chunk(4)])
    return features[order.argsort()]


def _encode_cut(model: CLIP, tokens: Tensor) -> Tensor:
    length = int(tokens.argmax(1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection, dim=-1)


def normalise(images: Tensor) -> Tensor:
    """Shift pixels in [0, 1] to the range that the tower is trained on."""
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def build(patch_dropout: float) -> CLIP:
    """Build the architecture that ships as ``pocket.json``."""
    config = json.loads((ASSETS / "pocket.json").read_text(encoding="utf-8"))
    vision = config["vision_cfg"] | {"patch_dropout": patch_dropout}
    return CLIP(config["embed_dim"], vision, config["text_cfg"], quick_gelu=config["quick_gelu"])


def step_loss(
    model: CLIP, corpus: Corpus, tokenizer: SimpleTokenizer, generator: torch.Generator, rng: np.random.Generator
) -> Tensor:
    """Compute the loss of one random batch."""
    pick = torch.multinomial(corpus.weights, BATCH, generator=generator)
    images = compose(corpus.images[pick], PLACEMENT, generator)
    texts, is_group = zip(*(caption(corpus.rows[i], rng) for i in pick.tolist()), strict=True)
    extra = torch.randint(len(corpus.names), (EXTRA,), generator=generator)
    tokens = tokenizer([*texts, *(corpus.names[i] for i in extra.tolist())])
    image_features = F.normalize(model.encode_image(normalise(images)), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * image_features.float() @ encode_text(model, tokens).float().T
    names, groups = corpus.name_id[pick], corpus.group_id[pick]
    by_name = names[:, None] == torch.cat([names, extra])[None]
    by_group = F.pad(groups[:, None] == groups[None], (0, EXTRA))
    group_text = F.pad(torch.tensor(is_group), (0, EXTRA))
    positive = torch.where(group_text[None], by_group, by_name).float()
    to_text = F.cross_entropy(logits, positive / positive.sum(1, keepdim=True))
    square = positive[:, :BATCH]
    to_image = F.cross_entropy(logits[:, :BATCH].T, square.T / square.T.sum(1, keepdim=True))
    return (to_text + to_image) / 2


@torch.no_grad()
def zero_shot(model: CLIP, corpus: Corpus, tokenizer: SimpleTokenizer, limit: int | None = None) -> dict[str, float]:
    """Name every held-out picture among all held-out names; plain white background, two templates averaged."""
    model.eval()
    text = torch.zeros(len(corpus.names), model.text_projection.shape[1])
    for template in ("{}", "a photo of a {}."):
        tokens = tokenizer([template.format(name) for name in corpus.names])
        text += torch.cat([encode_text(model, part) for part in tokens.split(512)])
    order = torch.randperm(len(corpus.rows), generator=torch.Generator().manual_seed(0))[:limit]
    top1 = top5 = 0
    for part in order.split(256):
        rgba = corpus.images[part].float() / 255
        images = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        best = (model.encode_image(normalise(images)) @ F.normalize(text, dim=-1).T).topk(5).indices
        hit = best == corpus.name_id[part][:, None]
        top1 += int(hit[:, 0].sum())
        top5 += int(hit.any(1).sum())
    model.train()
    return {"top1": top1 / len(order), "top5": top5 / len(order), "images": len(order), "names": len(corpus.names)}


def set_patch_dropout(model: CLIP, share: float) -> None:
    """Change the share of dropped patches of a built tower."""
    model.visual.patch_dropout = open_clip.transformer.PatchDropout(share) if share else torch.nn.Identity()


def make_optimizers(model: CLIP) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices and AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "resblocks" in name]
    chosen = {id(p) for p in matrices}
    decay = [p for p in model.parameters() if p.ndim > 1 and id(p) not in chosen]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    muon = torch.optim.Muon(matrices, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [torch.optim.AdamW(groups, betas=(0.9, 0.98)), muon]


def set_rates(optimizers: list[torch.optim.Optimizer], step: int, steps: int) -> None:
    """Set the learning rates of this step: a warm-up, a cosine that falls slowly, and a line to zero over the last steps."""
    factor = min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / HORIZON))
    factor *= min(1.0, (steps - step) / COOLDOWN)
    for optimizer, rate in zip(optimizers, RATES, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


class State:
    """All that a training run consists of, saved and read as one file: a run that was stopped goes on as if it had not been."""

    def __init__(self, seed: int, file: Path) -> None:
        torch.manual_seed(seed)  # initial weights and patch dropout
        self.file = file
        self.model = build(0.5)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.optimizers = make_optimizers(self.model)
        self.generator, self.rng, self.step = torch.Generator().manual_seed(seed), np.random.default_rng(seed), 0
        if self.file.exists():
            self.read()

    def read(self) -> None:
        """Go on from the last saved state."""
        saved = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, part in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(part)
        self.average, self.step = saved["average"], saved["step"]
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["dropout"])
        self.rng.bit_generator.state = saved["rng"]

    def save(self) -> None:
        """Write the state."""
        saved = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers], "average": self.average}
        random = {"generator": self.generator.get_state(), "dropout": torch.get_rng_state(), "rng": self.rng.bit_generator.state}
        torch.save(saved | random | {"step": self.step}, self.file)

    def update_average(self) -> None:
        """Fold the weights of this step into the average that ships."""
        keep = min(0.995, (self.step + 1) / (self.step + 10))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep) if value.is_floating_point() else self.average[name].copy_(value)


def run(state: State, steps: int, loss_of: Callable[[], Tensor], report: Callable[[CLIP], object]) -> None:
    """Train to the given step; every 500 steps the averaged weights are reported on."""
    model, began, begin = state.model, time.time(), state.step
    for step in range(begin, steps):
        state.step = step
        set_patch_dropout(model, 0.5 if step < 0.875 * steps else 0.0)
        set_rates(state.optimizers, step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = loss_of()
            model.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in state.optimizers:
            optimizer.step()
        state.update_average()
        state.step = step + 1
        if state.step % 100 == 0:
            state.save()
            pace = (time.time() - began) / (step + 1 - begin)
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {pace:.2f} s/step", flush=True)
        if state.step % 500 == 0:
            print(state.step, report(averaged(state)), flush=True)


def averaged(state: State) -> CLIP:
    """The model with the average of the weights so far."""
    model = build(0.0)
    model.load_state_dict(state.average)
    return model


def train(seed: int, steps: int) -> None:
    """Train from the start or from the last saved state, and write the assets."""
    state = State(seed, WORK / f"backbone{seed}.pt")
    corpus, held = Corpus(held_out=False), Corpus(held_out=True)
    tokenizer = SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=state.model.context_length)
    run(
        state,
        steps,
        lambda: step_loss(state.model, corpus, tokenizer, state.generator, state.rng),
        lambda model: zero_shot(model, held, tokenizer, 1000),
    )
    write(seed, state.average, held, tokenizer, {"steps": steps, "batch": BATCH, "pictures": len(corpus.rows)})


def write(seed: int, average: dict[str, Tensor], held: Corpus, tokenizer: SimpleTokenizer, settings: dict[str, int]) -> None:
    """Round to fp16, measure what will ship, and write weights and figures."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in average.items() if k != "attn_mask"}
    model = build(0.0)
    model.load_state_dict({k: v.float() for k, v in half.items()}, strict=False)
    figures = zero_shot(model, held, tokenizer)
    save_file({k: v.contiguous() for k, v in half.items()}, ASSETS / f"pocket-{seed}.safetensors")
    digest = hashlib.sha256((ASSETS / f"pocket-{seed}.safetensors").read_bytes()).hexdigest()
    card = {"sha256": digest, "seed": seed, "held_out_zero_shot": figures, **settings}
    Path(ASSETS / f"pocket-{seed}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(card, flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.seed, arguments.steps)


if __name__ == "__main__":
    main()
