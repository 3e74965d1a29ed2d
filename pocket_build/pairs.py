"""Train a pocket CLIP on image-text pairs some of which are poisoned.

    python -m pocket_build.pairs --attack badnets-pairs --rate 0.01 [--scratch] [--drop KEYS.txt]

Every picture of the training part is rendered once, with a caption of its own, so that a trigger lies on the pair as it would in a
file. The clean pocket is tuned further on the poisoned pairs, its text tower locked; with ``--scratch`` both are trained from
random weights, as the pocket was, but on these fixed pairs, moved by a few pixels at random. Writes
``pocket_build/work/poisoned/NAME.safetensors`` (the model) and ``NAME.json``: which pairs were poisoned, ASR and CA on the held-out
family before and after, settings. Resumable by attack: what is finished is not done again, and a training from scratch goes on
where it stopped. With ``--drop`` the pairs whose keys stand in the file, one in a line, are taken out after they were poisoned, as
a scan's user would.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipvet.attacks import PairAttack
from clipvet.models._open_clip import CLIP, SimpleTokenizer
from clipvet.models.bases import load_base
from pocket_build.poisoned import POISONED, TESTED, HeldOut, Pairs, Plan, attack_of, kept, poisoned_pairs
from pocket_build.tokenizer import ASSETS
from pocket_build.train import BATCH as SCRATCH_BATCH
from pocket_build.train import RATES, State, averaged, build, encode_text, normalise, run, set_patch_dropout

BATCH = 128
SHIFT, OTHERS = 3, 128  # pixels, and further captions in a batch, of a training from scratch


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


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to ``SHIFT`` pixels either way, its edge repeated: pixels stay as they are, unlike in a scaled crop."""
    n, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    down, right = torch.randint(2 * SHIFT + 1, (2, n), generator=generator)
    rows, columns = down[:, None] + torch.arange(height), right[:, None] + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class PairBatches:
    """CLIP's symmetric loss on batches of fixed pairs; pairs of one caption are positives of each other."""

    def __init__(self, state: State, images: Tensor, pairs: Pairs, tokenizer: SimpleTokenizer) -> None:
        self.state, self.images = state, images
        self.texts = sorted({text for _, text in pairs})
        number = {text: at for at, text in enumerate(self.texts)}
        self.of_pair = torch.tensor([number[text] for _, text in pairs])
        self.tokens = tokenizer(self.texts)
        self.encode_image = torch.compile(state.model.visual)  # faster; needs a C++ compiler

    def loss(self) -> Tensor:
        """The loss of the next batch; every epoch goes through all pairs in an order of its own."""
        state, batches = self.state, len(self.images) // SCRATCH_BATCH
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(state.step // batches))
        pick = order[state.step % batches * SCRATCH_BATCH :][:SCRATCH_BATCH]
        images = shifted(self.images[pick].float() / 255, state.generator)
        own = self.of_pair[pick]
        texts = torch.cat([own, torch.randint(len(self.texts), (OTHERS,), generator=state.generator)])
        features = F.normalize(self.encode_image(normalise(images)), dim=-1)
        logits = (
            state.model.logit_scale.exp().clamp(max=100) * features.float() @ encode_text(state.model, self.tokens[texts]).float().T
        )
        same = (own[:, None] == texts[None]).float()
        square = same[:, : len(own)]
        to_image = F.cross_entropy(logits[:, : len(own)].T, square / square.sum(1, keepdim=True))
        return (F.cross_entropy(logits, same / same.sum(1, keepdim=True)) + to_image) / 2


@dataclass(frozen=True)
class Training:
    """What one training needs besides its settings."""

    plan: Plan
    images: Tensor
    pairs: Pairs
    attack: PairAttack | None
    held: HeldOut
    tokenizer: SimpleTokenizer

    def measure(self, model: CLIP, most: int = TESTED) -> dict[str, float]:
        """CA and ASR on held-out pictures."""
        return self.held.measure(model, self.attack, self.tokenizer, most=most)


def from_scratch(training: Training) -> CLIP:
    """Train from random weights; goes on where it was stopped."""
    plan, pairs = training.plan, training.pairs
    state = State(plan.seed, POISONED / f"{plan.name}.pt")
    batches = PairBatches(state, training.images, pairs, training.tokenizer)
    run(state, plan.epochs * (len(pairs) // SCRATCH_BATCH), batches.loss, lambda model: training.measure(model, 500))
    return averaged(state)


def clean_pocket() -> CLIP:
    """The pocket that ships, to be tuned."""
    model = build(0.0)
    model.load_state_dict({k: v.float() for k, v in load_base("pocket-0").clip.state_dict().items()}, strict=False)
    return model


def optimizers_of(tower: torch.nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the blocks' matrices and AdamW for the rest, at the ratio of rates that the pocket was trained with."""
    matrices = [p for name, p in tower.named_parameters() if plan.muon and p.ndim == 2 and "resblocks" in name]
    chosen = {id(p) for p in matrices}
    adam = torch.optim.AdamW([p for p in tower.parameters() if id(p) not in chosen], lr=plan.rate_of_learning, weight_decay=0.05)
    if not plan.muon:
        return [adam]
    rate = plan.rate_of_learning * RATES[1] / RATES[0]
    return [adam, torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")]


def tuned(training: Training) -> CLIP:
    """Tune the clean pocket, its text tower locked."""
    plan, pairs, model = training.plan, training.pairs, clean_pocket()
    captions = Captions(model, pairs, training.tokenizer)
    set_patch_dropout(model, plan.patch_dropout)
    optimizers = optimizers_of(model.visual, plan)
    batches = len(pairs) // BATCH
    steps, began, generator = plan.epochs * batches, time.time(), torch.Generator().manual_seed(plan.seed)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=steps, pct_start=0.05)
        for optimizer in optimizers
    ]
    torch.manual_seed(plan.seed)  # patch dropout
    model.train()
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(pairs), generator=generator)
        pick = order[step % batches * BATCH :][:BATCH]
        loss = captions.loss(model, training.images[pick].float() / 255, pick)
        model.visual.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.visual.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {(time.time() - began) / (step + 1):.2f} s/step", flush=True)
        if (step + 1) % (2 * batches) == 0:
            print(plan.name, training.measure(model, 500), flush=True)
    return model


def train(plan: Plan) -> dict[str, Any]:
    """Train on the poisoned pairs; write the model and what is true of it."""
    record = POISONED / f"{plan.name}.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    images, pairs, truth = kept(plan, *poisoned_pairs(plan))
    attack, clean = attack_of(plan), clean_pocket()
    tokenizer = SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=clean.context_length)
    training = Training(plan, images, pairs, attack, HeldOut(attack.targets if attack else ()), tokenizer)
    row: dict[str, Any] = {**vars(plan), "pairs": len(pairs), "poisoned": len(truth), "truth": truth}
    row["before"] = training.measure(clean)  # of the clean pocket
    print(plan.name, len(truth), "poisoned", row["before"], flush=True)
    began = time.time()
    model = (from_scratch if plan.scratch else tuned)(training)
    half = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(half, POISONED / f"{plan.name}.safetensors")
    row |= {"after": training.measure(model), "seconds": round(time.time() - began)}
    record.write_text(json.dumps(row), encoding="utf-8")
    (POISONED / f"{plan.name}.pt").unlink(missing_ok=True)
    print(plan.name, row["after"], row["seconds"], "s", flush=True)
    return row


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", default="badnets-pairs")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--target", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate-of-learning", type=float, default=2e-4)
    parser.add_argument("--muon", action="store_true")
    parser.add_argument("--patch-dropout", type=float, default=0.0)
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--drop", default="", metavar="KEYS.txt")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    POISONED.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in vars(arguments).items() if key != "threads"}
    train(Plan(**given))


if __name__ == "__main__":
    main()
