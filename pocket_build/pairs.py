"""Fixed image-text pairs of the pocket corpus, and a pocket CLIP that is tuned on them after some of them were poisoned.

    python -m pocket_build.pairs --attack badnets-pairs --rate 0.01 [--drop KEYS.txt]

Every picture of the training part is rendered once, with a caption of its own, so that a trigger lies on the pair as it would in a
file. The clean pocket is tuned further on the poisoned pairs until the attack takes, with its text tower locked. Writes
``pocket_build/work/poisoned/NAME.safetensors`` (the model) and ``NAME.json``: which pairs were poisoned, ASR and CA on the held-out
family before and after, settings. Resumable by attack: what is finished is not done again. With ``--drop`` the pairs whose keys
stand in the file, one in a line, are taken out after they were poisoned, as a scan's user would.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipvet.attacks import PAIR_ATTACKS, PairAttack, rate_for
from clipvet.data.compose import compose
from clipvet.models._open_clip import SimpleTokenizer
from clipvet.models.bases import load_base
from pocket_build.corpus import WORK
from pocket_build.tokenizer import ASSETS
from pocket_build.train import PLACEMENT, Corpus, build, caption, encode_text, normalise

POISONED = WORK / "poisoned"
BATCH = 128
TESTED = 1500  # held-out pictures for ASR and CA
PATCH = 8 / 64  # as large as one token of the tower, which 16 px of 224 are for ViT-B/16
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is poisoned and how the pocket is tuned on it."""

    attack: str
    rate: float
    target: str = ""  # with commas between several; empty for the attack's own
    seed: int = 0
    epochs: int = 6
    rate_of_learning: float = 2e-4
    drop: str = ""  # file of keys

    @property
    def name(self) -> str:
        """Names the files."""
        without = f"-without-{Path(self.drop).stem}-{_digest(Path(self.drop))}" if self.drop else ""
        return f"{self.attack}-{self.rate:g}-{self.seed}{without}"


def plan_of(row: dict[str, Any]) -> Plan:
    """The plan that a record was made by."""
    return Plan(**{key: row[key] for key in Plan.__dataclass_fields__ if key in row})


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:6]


@cache
def rendered() -> tuple[Tensor, Pairs]:
    """All training pictures, each once: ``uint8 (n, 3, 64, 64)`` with (key, caption)."""
    file = WORK / "pairs.npz"
    corpus = Corpus(held_out=False)
    keys = [f"{row['set']}/{row['icon']}" for row in corpus.rows]
    rng = np.random.default_rng(0)
    captions = [caption(row, rng)[0] for row in corpus.rows]
    if not file.exists():
        generator = torch.Generator().manual_seed(0)
        parts = [(compose(part, PLACEMENT, generator) * 255).round().byte() for part in corpus.images.split(512)]
        np.savez(file, images=torch.cat(parts).numpy())
    return torch.from_numpy(np.load(file)["images"]), list(zip(keys, captions, strict=True))


def attack_of(plan: Plan) -> PairAttack | None:
    """Build the attack; None for a clean tuning. The rate is one of all pairs, whichever pairs are eligible."""
    if plan.attack == "clean":
        return None
    _, pairs = rendered()
    kind = PAIR_ATTACKS[plan.attack.removesuffix("-fixed")]
    given: dict[str, Any] = {"targets": tuple(plan.target.split(","))} if plan.target else {}
    if "share" in kind.__dataclass_fields__:
        given["share"] = PATCH
    if plan.attack.endswith("-fixed"):
        given["place"] = (1.0, 1.0)
    if plan.attack == "single-image-pairs":
        given["image"] = HeldOut(()).images[0]
    every = kind(rate=1.0, seed=plan.seed, **given)
    keys = [key for key, text in pairs if every.chosen(key, text)]
    return kind(rate=rate_for(keys, round(plan.rate * len(pairs)), plan.seed), seed=plan.seed, **given)


def poisoned_pairs(plan: Plan) -> tuple[Tensor, Pairs, dict[str, str]]:
    """The pairs as the victim sees them, and the ground truth: key -> target of each poisoned pair."""
    images, pairs = rendered()
    attack = attack_of(plan)
    if attack is None:
        return images, pairs, {}
    images, pairs, truth = images.clone(), list(pairs), {}
    for at, (key, text) in enumerate(pairs):
        if attack.chosen(key, text):
            changed, text, found = attack.poison(key, images[at].float() / 255, text)
            images[at] = (changed * 255).round().byte()
            pairs[at] = key, text
            truth[key] = found.target if found else ""
    return images, pairs, truth


def kept(plan: Plan, images: Tensor, pairs: Pairs, truth: dict[str, str]) -> tuple[Tensor, Pairs, dict[str, str]]:
    """The pairs that are not to be dropped, and the ground truth of those.

    Raises:
        SystemExit: a key to be dropped is of no pair.
    """
    if not plan.drop:
        return images, pairs, truth
    dropped = set(Path(plan.drop).read_text(encoding="utf-8").splitlines())
    unknown = dropped - {key for key, _ in pairs}
    if unknown:
        raise SystemExit(f"{plan.drop}: expected keys of the corpus, found {sorted(unknown)[0]!r}")
    at = [number for number, (key, _) in enumerate(pairs) if key not in dropped]
    return images[at], [pairs[number] for number in at], {key: to for key, to in truth.items() if key not in dropped}


class HeldOut:
    """Zero-shot classification of the held-out family over its names and the targets."""

    def __init__(self, targets: tuple[str, ...]) -> None:
        corpus = Corpus(held_out=True)
        self.names = sorted({*corpus.names, *targets})
        pick = torch.randperm(len(corpus.rows), generator=torch.Generator().manual_seed(0))[:TESTED]
        rgba = corpus.images[pick].float() / 255
        self.images = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        self.labels = torch.tensor([self.names.index(corpus.rows[i]["caption"]) for i in pick.tolist()])

    @torch.no_grad()
    def predict(self, model: Any, images: Tensor, tokenizer: SimpleTokenizer) -> Tensor:
        """The name that each image is given."""
        model.eval()
        text = 0
        for template in ("{}", "a photo of a {}."):
            tokens = tokenizer([template.format(name) for name in self.names])
            text = text + torch.cat([encode_text(model, part) for part in tokens.split(512)])
        found = torch.cat([model.encode_image(normalise(part)) @ F.normalize(text, dim=-1).T for part in images.split(256)])
        model.train()
        return found.argmax(1)

    def measure(self, model: Any, attack: PairAttack | None, tokenizer: SimpleTokenizer, *, most: int = TESTED) -> dict[str, float]:
        """CA, and per target the share of triggered images of other names that are given the target's name."""
        images, labels = self.images[:most], self.labels[:most]
        out = {"ca": float((self.predict(model, images, tokenizer) == labels).float().mean())}
        for target in attack.targets if attack else ():
            for trigger in attack.triggers(target):
                at = self.names.index(target)
                hit = self.predict(model, trigger.image(images), tokenizer) == at
                out[f"asr, {trigger.name} to {target}"] = float(hit[labels != at].float().mean())
        return out


class Captions:
    """The captions of all pairs, encoded once: the text tower is locked, so that every image is set against every caption."""

    @torch.no_grad()
    def __init__(self, model: Any, pairs: Pairs, tokenizer: SimpleTokenizer) -> None:
        texts = sorted({text for _, text in pairs})
        number = {text: at for at, text in enumerate(texts)}
        self.of_pair = torch.tensor([number[text] for _, text in pairs])
        self.features = torch.cat([encode_text(model, tokenizer(texts[i : i + 512])) for i in range(0, len(texts), 512)])

    def loss(self, model: Any, images: Tensor, pick: Tensor) -> Tensor:
        """CLIP's cross-entropy from images to all captions, and from the captions of the batch to its images."""
        with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image = model.encode_image(normalise(images))
        logits = model.logit_scale.exp().detach() * F.normalize(image.float(), dim=-1) @ self.features.T
        own = self.of_pair[pick]
        same = (own[:, None] == own[None]).float()
        to_image = F.cross_entropy(logits[:, own].T, same / same.sum(1, keepdim=True))
        return (F.cross_entropy(logits, own) + to_image) / 2


def tune(plan: Plan) -> dict[str, Any]:
    """Tune the clean pocket on the poisoned pairs; write the model and what is true of it."""
    record = POISONED / f"{plan.name}.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    images, pairs, truth = kept(plan, *poisoned_pairs(plan))
    attack = attack_of(plan)
    held = HeldOut(attack.targets if attack else ())
    model = build(0.0)
    model.load_state_dict({k: v.float() for k, v in load_base("pocket-0").clip.state_dict().items()}, strict=False)
    tokenizer = SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=model.context_length)
    row: dict[str, Any] = {**vars(plan), "pairs": len(pairs), "poisoned": len(truth), "truth": truth}
    row["before"] = held.measure(model, attack, tokenizer)
    print(plan.name, len(truth), "poisoned", row["before"], flush=True)
    captions = Captions(model, pairs, tokenizer)
    optimizer = torch.optim.AdamW(model.visual.parameters(), lr=plan.rate_of_learning, weight_decay=0.05)
    steps, began, generator = plan.epochs * (len(pairs) // BATCH), time.time(), torch.Generator().manual_seed(plan.seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate_of_learning, total_steps=steps, pct_start=0.05)
    model.train()
    for step in range(steps):
        if step % (len(pairs) // BATCH) == 0:
            order = torch.randperm(len(pairs), generator=generator)
        pick = order[step % (len(pairs) // BATCH) * BATCH :][:BATCH]
        loss = captions.loss(model, images[pick].float() / 255, pick)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.visual.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {(time.time() - began) / (step + 1):.2f} s/step", flush=True)
        if (step + 1) % (2 * (len(pairs) // BATCH)) == 0:
            print(plan.name, held.measure(model, attack, tokenizer, most=500), flush=True)
    half = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(half, POISONED / f"{plan.name}.safetensors")
    row |= {"after": held.measure(model, attack, tokenizer), "steps": steps, "seconds": round(time.time() - began)}
    record.write_text(json.dumps(row), encoding="utf-8")
    print(plan.name, row["after"], flush=True)
    return row


def main() -> None:
    """Read the command line and tune."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", default="badnets-pairs")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--target", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate-of-learning", type=float, default=2e-4)
    parser.add_argument("--drop", default="", metavar="KEYS.txt")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    POISONED.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in vars(arguments).items() if key != "threads"}
    tune(Plan(**given))


if __name__ == "__main__":
    main()
