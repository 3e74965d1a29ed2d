"""One cell of the speed benchmark each: a delivery, a number of classes, texts with and without the cut, a real size."""

from __future__ import annotations

import hashlib
import re
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.counting import count_images
from clipvet.api import GENERATED, PAPER_EPS, InspectOptions, inspect_model
from clipvet.data.generated import generate_probes
from clipvet.inspection.base import ModelCheck, Run, Subject
from clipvet.inspection.calibration import fits, judge, settings_digest, shipped_nulls
from clipvet.inspection.clip_inspector import ClipInspector
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.search import Search, SearchConfig, chunk_for
from clipvet.inspection.subject import CONCEPTS, subject_of
from clipvet.models._architecture import build_clip, known_architecture
from clipvet.models._open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.models.cocoop import CoCoOp
from clipvet.models.delivery import open_delivery
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.pocket.zoo import ZooEntry
from clipvet.types import CheckResult, Verdict

__all__ = [
    "POCKET_THREADS",
    "REAL_CLASSES",
    "REAL_THREADS",
    "Part",
    "cell_classes",
    "cell_full",
    "cell_real",
    "compare",
    "measure_cut",
]

Part = dict[str, Any]

REAL_CLASSES = 50
POCKET_THREADS, REAL_THREADS = 1, 2  # on small models more threads cost more than they give


def some_names(count: int) -> tuple[str, ...]:
    """Common nouns, and the same again with a colour where there are not enough of them."""
    return (*CONCEPTS, *(f"red {name}" for name in CONCEPTS))[:count]


def _default(base: ClipModel, settings: Mapping[str, Any]) -> MarginResidual:
    """The check of the default preset, with the bound that fits the image size."""
    return MarginResidual(strength=PAPER_EPS[base.image_size], **settings)


def run_check(check: ModelCheck, subject: Subject, probes: torch.Tensor) -> tuple[CheckResult, Part]:
    """Run a check; its result, and what it took."""
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    towers = [subject.classifier.model] + ([subject.reference.model] if subject.reference else [])
    with count_images(*towers) as seen:
        start = time.perf_counter()
        result = check.run(subject, probes, run)
        seconds = time.perf_counter() - start
    return result, {"seconds": seconds, **asdict(seen)}


def named(result: CheckResult) -> str:
    """The class that a check holds for the target."""
    return max(result.targets, key=lambda row: row.statistic).target


def verdict_of(result: CheckResult, entry: ZooEntry, base: ClipModel, probes: int) -> Part:
    """What an inspection would say of the statistic: against the shipped null, or the cautious threshold where none fits."""
    key: dict[str, Any] = {
        "base": base.sha256 or base.name,
        "family": entry.family,
        "n_classes": len(result.targets),
        "settings": settings_digest(result.check, result.settings),
        "probes": f"{GENERATED}, {probes}",
    }
    null = next(
        (null for null in shipped_nulls(without=[hashlib.sha256(entry.path.read_bytes()).hexdigest()]) if fits(null.key, **key)),
        None,
    )
    judged = judge(result, null, controls=None)
    flagged = judged.verdict in (Verdict.SUSPICIOUS, Verdict.BACKDOORED)
    return {"flagged": flagged, "verdict": judged.verdict.value, "threshold": judged.flag, "calibrated": null is not None}


def compare(entry: ZooEntry, *, repeats: int, n_probes: int, settings: Mapping[str, Any]) -> Part:
    """The default check and one epoch per class, judged by the default's own statistic and as published, in turn."""
    base = load_base(entry.base)
    classifier = open_delivery(entry.path, base=base).classifier
    probes = generate_probes(n_probes, base.image_size, 0)
    default = _default(base, settings)
    checks: dict[str, ModelCheck] = {
        "default": default,
        "exhaustive": replace(default, screen_steps=(n_probes - default.evaluation) // default.batch, refine_steps=1, keep=1),
        "published": ClipInspector(strength=PAPER_EPS[base.image_size]),
    }
    subjects = {name: subject_of(classifier, base, check)[0] for name, check in checks.items()}
    with torch.no_grad():
        subjects["default"].classifier(probes[:32])  # the first pass sets up what later ones find ready
    once = {"published": run_check(checks.pop("published"), subjects["published"], probes)}
    runs = [{name: run_check(check, subjects[name], probes) for name, check in checks.items()} for _ in range(repeats)]
    seconds = {name: [run[name][1]["seconds"] for run in runs] for name in checks} | {
        "published": [once["published"][1]["seconds"]]
    }
    out: Part = {"name": entry.name, "family": entry.family, "task": entry.task, "base": entry.base, "attack": entry.attack}
    out |= {"target": entry.target, "classes": len(classifier.class_names), "seconds_of_runs": seconds}
    for name, (result, cost) in (runs[0] | once).items():
        said = (
            {"flagged": result.statistic > ClipInspector.k, "threshold": ClipInspector.k}
            if name == "published"
            else verdict_of(result, entry, base, n_probes)
        )
        out[name] = {**cost, "seconds": median(seconds[name]), "statistic": result.statistic, "names": named(result), **said}
        out[name]["ratio"] = median(own / other for own, other in zip(seconds[name], seconds["default"], strict=False))
    return out


def peak_mib() -> float:
    """Peak resident memory of this process.

    Linux hands ``ru_maxrss`` on from the parent to a program that it starts, so the kernel's own mark is read where there is one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii")) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def cell_classes(classes: int, probes: int, settings: Mapping[str, Any]) -> Part:
    """The default check on an untuned CoOp prompt, which costs what a tuned one does."""
    torch.set_num_threads(POCKET_THREADS)
    base, names = load_base("pocket-0"), some_names(classes)
    classifier = PromptedClassifier(base, new_prompt("coop", base, names, seed=0), names).freeze()
    check = _default(base, settings)
    subject, _ = subject_of(classifier, base, check)
    images = generate_probes(probes, base.image_size, 0)
    loaded = peak_mib()
    _, cost = run_check(check, subject, images)
    return {
        "classes": classes,
        "searched": len(subject.classifier.class_names),
        "probes": probes,
        **cost,
        "loaded_mib": loaded,
        "peak_mib": peak_mib(),
    }


def random_base(name: str, seed: int = 0) -> ClipModel:
    """A CLIP of a published size with QuickGELU and random weights."""
    architecture = known_architecture(name)
    assert architecture is not None
    with torch.device("meta"):
        layout = CLIP(**architecture.open_clip_arguments(), quick_gelu=True).state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = {key: 0.02 * torch.randn(values.shape, generator=generator) for key, values in layout.items()}
    state |= {key: values + 1 for key, values in state.items() if re.search(r"ln_\w+\.weight$", key)}
    state["logit_scale"] = torch.tensor(100.0).log()
    tokenizer = SimpleTokenizer(context_length=architecture.context)
    clip = build_clip(architecture, state, quick_gelu=True)
    return ClipModel(clip, tokenizer, name=f"random {name}", mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)


def encode_texts(
    prompt: CoCoOp, model: ClipModel, features: torch.Tensor, *, cut: bool, gradient: bool
) -> tuple[torch.Tensor, float]:
    """Encode the texts of some images, and give the gradient back to the images' features if asked; with the seconds."""
    prompt.cut = cut
    features = features.clone().requires_grad_(gradient)
    start = time.perf_counter()
    with torch.set_grad_enabled(gradient):
        texts = prompt.text_features(model, features)
    if gradient:
        texts.sum().backward()
    return texts.detach(), time.perf_counter() - start


def measure_cut(name: str, classes: int, images: int, repeats: int) -> Part:
    """CoCoOp's texts with and without the cut, in turn."""
    model = load_base(name) if name.startswith("pocket") else random_base(name)
    prompt = new_prompt("cocoop", model, some_names(classes), seed=0).requires_grad_(False)
    assert isinstance(prompt, CoCoOp)
    features = F.normalize(torch.randn(images, model.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    out: Part = {"base": name, "classes": classes, "images": images, "positions": model.context_length}
    out["positions_kept"] = int(prompt.tokens.eot.max()) + 1
    encode_texts(prompt, model, features[:1], cut=True, gradient=True)  # the first pass sets up what later ones find ready
    for gradient in (False, True):
        seconds, difference = [], 0.0
        for _ in range(repeats):
            short, short_seconds = encode_texts(prompt, model, features, cut=True, gradient=gradient)
            whole, whole_seconds = encode_texts(prompt, model, features, cut=False, gradient=gradient)
            seconds.append((short_seconds, whole_seconds))
            difference = max(difference, float((short - whole).abs().max()))
        out["forward and backward" if gradient else "forward"] = {
            "seconds_cut": median(s for s, _ in seconds),
            "seconds_whole": median(w for _, w in seconds),
            "ratio": median(w / s for s, w in seconds),
            "largest_difference": difference,
        }
    return out


def cell_real(architecture: str, at_once: int, steps: int, n_probes: int) -> Part:
    """Steps of the default search on a CoOp prompt, ``at_once`` classes in one pass; the first step is not counted."""
    torch.set_num_threads(REAL_THREADS)
    base, names = random_base(architecture), some_names(REAL_CLASSES)
    check = _default(base, {})
    classifier = PromptedClassifier(base, new_prompt("coop", base, names, seed=0), names).freeze()
    subject, _ = subject_of(classifier, base, check)
    probes = generate_probes(2 * check.batch, base.image_size, 0)
    config = SearchConfig(strength=check.strength, batch=check.batch)
    search = Search(classifier, probes, torch.arange(at_once), config=config, seed=0)
    loaded, seconds = peak_mib(), []
    search.step()
    with count_images(base) as seen:
        for _ in range(steps):
            start = time.perf_counter()
            search.step()
            seconds.append(time.perf_counter() - start)
    return {
        "classes_at_once": at_once,
        "images_per_step": seen.backward // steps,
        "seconds_per_step": median(seconds),
        "seconds_per_image": median(seconds) * steps / seen.backward,
        "passes": check.passes(subject, n_probes),
        "chunk": chunk_for(base),
        "loaded_mib": loaded,
        "peak_mib": peak_mib(),
    }


def cell_full(architecture: str, n_probes: int) -> Part:
    """A whole inspection of a CoOp prompt, from the file to the report, positive controls included."""
    torch.set_num_threads(REAL_THREADS)
    base, names = random_base(architecture), some_names(REAL_CLASSES)
    classifier = PromptedClassifier(base, new_prompt("coop", base, names, seed=0), names).freeze()
    with tempfile.TemporaryDirectory() as folder, count_images(base) as seen:
        path = Path(folder) / "delivery.safetensors"
        save_delivery(path, classifier)
        start = time.perf_counter()
        report = inspect_model(path, InspectOptions(probe_count=n_probes), base=base)
        seconds = time.perf_counter() - start
    return {
        "architecture": architecture,
        "classes": len(names),
        "probes": n_probes,
        "seconds": seconds,
        **asdict(seen),
        "peak_mib": peak_mib(),
        "verdict": report.verdict.value,
    }
