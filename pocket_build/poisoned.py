"""Fixed image-text pairs of the pocket corpus, poisoned by plan, and what a pocket CLIP that was trained on them is measured by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.attacks import PAIR_ATTACKS, PairAttack, WaNetPairs, rate_for
from clipvet.data.compose import compose
from clipvet.models._open_clip import SimpleTokenizer
from pocket_build.corpus import WORK
from pocket_build.train import PLACEMENT, Corpus, caption, encode_text, normalise

POISONED = WORK / "poisoned"
TESTED = 1500  # held-out pictures for ASR and CA
PATCH = 8 / 64  # as large as one token of the tower, which 16 px of 224 are for ViT-B/16
WARP = PATCH / (16 / 224) / 64  # WaNet's displacement, enlarged alike: the same share of a token
FINE = 64  # points along a side of a warp that moves every pixel by itself, as Huang et al.'s code does
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is poisoned and how the pocket is trained on it: tuned from the clean one, or from random weights."""

    attack: str
    rate: float
    target: str = ""  # with commas between several; empty for the attack's own
    seed: int = 0
    epochs: int = 6
    rate_of_learning: float = 2e-4  # of tuning
    muon: bool = False  # in tuning
    patch_dropout: float = 0.0  # of tuning
    scratch: bool = False
    drop: str = ""  # file of keys

    @property
    def name(self) -> str:
        """Names the files."""
        without = f"-without-{Path(self.drop).stem}-{_digest(Path(self.drop))}" if self.drop else ""
        return f"{self.attack}-{self.rate:g}-{self.seed}{'-scratch' if self.scratch else ''}{without}"


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
    kind = PAIR_ATTACKS[plan.attack.removesuffix("-fixed").removesuffix("-fine")]
    given: dict[str, Any] = {"targets": tuple(plan.target.split(","))} if plan.target else {}
    if "share" in kind.__dataclass_fields__:
        given["share"] = PATCH
    if "warp" in kind.__dataclass_fields__:
        given["warp"] = WARP
    if kind is WaNetPairs:
        given["strength"] = WARP
    if plan.attack.endswith("-fine"):
        given["cells"] = FINE
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
