"""A scan from sources to a report: features shard by shard, a reference, scores shard by shard, a threshold, a list, groups."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from clipvet.data.pairs import PairSource
from clipvet.data.sources import open_pairs
from clipvet.errors import UsageError
from clipvet.metrics import clean_threshold
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.scan.merge import (
    above,
    find_suspects,
    group_suspects,
    histogram,
    scores_of,
    threshold_of,
    write_manifest,
    write_results,
)
from clipvet.scan.oddities import COLUMNS, find_oddities, write_oddities
from clipvet.scan.options import BATCH, ScanOptions, build_scorers
from clipvet.scan.reference import Reference, draw_reference, save_reference
from clipvet.scan.report import Scanned, build_scan_report
from clipvet.scan.second_model import check_images, check_rows, load_trusted, second_options
from clipvet.scan.store import Store, read_array
from clipvet.scan.work import Facts, Job, run_units
from clipvet.types import ScanReport

__all__ = ["scan_pairs"]

Progress = Callable[[str, int, int], None]
Models = tuple[ClipModel | None, ClipModel | None]  # the one that is scanned with, and the trusted one


def scan_pairs(sources: Sequence[str], options: ScanOptions, *, progress: Progress | None = None) -> ScanReport:
    """Scan image-text pairs for poisoned ones.

    Args:
        sources: folders, files, brace patterns; what :func:`clipvet.data.sources.open_pairs` understands.
        options: what a person stated. ``options.out`` keeps every finished shard: the same call goes on where it stopped.
        progress: called with (stage, done, total).

    Returns:
        The report, whose tables stand in ``options.out`` by then.

    Raises:
        ClipvetError: one sentence, when a source or the model cannot be read, or a result not be written.
    """
    return _Scan(tuple(sources), options, progress or (lambda stage, done, total: None)).run()


@dataclass
class _Scan:
    """One scan, and what it has so far."""

    paths: tuple[str, ...]
    options: ScanOptions
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def run(self) -> ScanReport:
        options = self.options
        store = Store(options.out, two_models=options.trusted_model is not None)
        source = self._open(self.paths)
        models = self._models()
        facts = self._features(source, store, models)
        shards = _usable(self.paths, store, facts)
        reference, trusted, faults = self._reference(store, shards, models)
        asked, held = options.reference, min(options.reference, len(reference.features))
        self.options = options = replace(options, reference=held, batches=options.batches and held > BATCH)
        identity = self._score_identity(models, source, save_reference(store, reference))
        scores = self._stage("scores", source, store, identity, shards=shards)
        names = list(options.scorers)
        if trusted is None:
            limit, drawn_from = threshold_of(store, shards, names[0], options.flag_rate), store
        else:
            limit, drawn_from = above(clean_threshold(trusted, options.flag_rate)), self._trusted_store
        suspects = find_suspects(store, shards, names, limit)
        groups = group_suspects(store, suspects, reference.features, reference.captions(drawn_from))
        oddities = find_oddities(store, shards)
        written = [*write_results(store, shards, names, suspects, groups), *write_oddities(store, oddities)]
        write_manifest(store, source)
        return build_scan_report(
            Scanned(
                source=source,
                paths=self.paths,
                options=options,
                store=store,
                model=models[0],
                trusted_model=models[1],
                reference=reference,
                drawn_from=drawn_from,
                asked=asked,
                facts=facts,
                faults=faults,
                scored=sum(found["scored"][names[0]] for found in scores.values()),
                threshold=limit,
                suspects=suspects,
                groups=groups,
                oddities=oddities,
                histogram=histogram(store, shards, names[0]),
                written=tuple(str(options.out / name) for name in written),
                started=self.started,
                seconds=time.monotonic() - self.began,
            )
        )

    def _open(self, paths: Sequence[str]) -> PairSource:
        o = self.options
        out = o.out.resolve()
        inside = [path for path in paths if Path(path).is_dir() and out.is_relative_to(Path(path).resolve())]
        if inside:
            raise UsageError(f"expected --out outside of the data, got {o.out} in {inside[0]}: choose another folder")
        return open_pairs(list(paths), image_col=o.image_col, caption_col=o.caption_col, id_col=o.id_col)

    @property
    def _trusted_store(self) -> Store:
        return Store(self.options.out / "trusted", salt="trusted/", two_models=self.options.trusted_model is not None)

    def _models(self) -> Models:
        o = self.options
        model = None if o.model is None else load_base(o.model, device=o.device, quick_gelu=o.quick_gelu)
        return model, load_trusted(o, model)

    def _features(self, source: PairSource, store: Store, models: Models) -> dict[int, Facts]:
        """Features of all shards by the model and, in a second pass, by the trusted model; facts of the first."""
        model, trusted = models
        facts = self._stage("features", source, store, _feature_identity(self.options, model, source), model=model)
        store.trim(len(source.shards))
        second = store.by_trusted
        if second is not None:
            check_images(source, facts)
            options = second_options(self.options)
            self._stage("features", source, second, _feature_identity(options, trusted, source), model=trusted, options=options)
            second.trim(len(source.shards))
            check_rows(source, store, second, facts)
        return facts

    def _score_identity(self, models: Models, source: PairSource, reference: str) -> dict[str, Any]:
        settings = {name: vars(scorer) for name, scorer in build_scorers(self.options)[0].items()}
        batches = {"batches": self.options.batches, "seed": self.options.seed}
        features = {"features": _feature_identity(self.options, models[0], source)}
        if models[1] is not None:
            features["by trusted model"] = _feature_identity(second_options(self.options), models[1], source)
        return {**features, "scorers": settings, "reference": reference, **batches}

    def _stage(
        self,
        stage: str,
        source: PairSource,
        store: Store,
        identity: dict[str, Any],
        *,
        model: ClipModel | None = None,
        shards: Sequence[int] | None = None,
        options: ScanOptions | None = None,
    ) -> dict[int, Facts]:
        """Do what is missing of one stage; facts by shard, in the order of the source. Options are the scan's, or those given."""
        job = Job(stage=stage, source=source, store=store, options=options or self.options, identity=identity, model=model)
        wanted = list(range(len(source.shards))) if shards is None else list(shards)
        facts = {number: found for number in wanted if (found := job.done(number)) is not None}
        missing = [number for number in wanted if number not in facts]
        word = "score shards" if stage == "scores" else "encode shards by the trusted model" if options else "encode shards"
        self.progress(word, len(facts), len(wanted))
        for number, found in run_units(job, missing, lambda: self.progress(word, len(facts), len(wanted))):
            facts[number] = found
            self.progress(word, len(facts), len(wanted))
        return {number: facts[number] for number in wanted}

    def _reference(
        self, store: Store, shards: Sequence[int], models: Models
    ) -> tuple[Reference, list[float] | None, tuple[str, ...]]:
        """Draw the reference; with a trusted set, from that, with the set's own scores and what could not be read of it."""
        o = self.options
        if not o.clean:
            return draw_reference(store, shards, o.reference, o.seed, o.device), None, ()
        trusted, kept = self._open(o.clean), self._trusted_store
        facts = self._features(trusted, kept, models)
        numbers = _usable(o.clean, kept, facts)
        reference = draw_reference(kept, numbers, o.reference, o.seed, o.device)
        identity = self._score_identity(models, trusted, save_reference(kept, reference))
        self._stage("scores", trusted, kept, identity, shards=numbers)
        scores = np.concatenate(list(scores_of(kept, numbers, o.scorers[0])))
        faults = tuple(f"trusted set: {found['error']}" for found in facts.values() if found["error"])
        return reference, scores[np.isfinite(scores)].tolist(), faults


def _feature_identity(options: ScanOptions, model: ClipModel | None, source: PairSource) -> dict[str, Any]:
    """What the features of a shard depend on besides its files."""
    made: dict[str, Any] = {"kind": source.kind, "mapping": dict(source.mapping)}
    if model is not None:
        made |= {"model": model.sha256 or model.name, "size": model.image_size, "quick_gelu": model.quick_gelu}
        made |= {"mean": model.mean, "std": model.std, "looked at": COLUMNS}
    pixel = {name: vars(scorer) for name, scorer in build_scorers(options)[1].items()}
    return {**made, "pixel": pixel, "seed": options.seed if pixel else 0}


def _usable(paths: Sequence[str], store: Store, facts: dict[int, Facts]) -> list[int]:
    """Shards with pairs, whose features agree in kind and width.

    Raises:
        UsageError: there is none, or they do not agree.
    """
    shards = [number for number, found in facts.items() if found["pairs"]]
    if not shards:
        raise UsageError(f"expected pairs in {', '.join(paths)}, could use none of them: {_first(facts)}")
    shapes = {number: _shape(store, number) for number in shards}
    odd = [number for number in shards if shapes[number] != shapes[shards[0]]]
    if odd:
        raise UsageError(
            f"expected features of one kind and width in all shards, found {shapes[shards[0]]} and, in shard {odd[0] + 1}, "
            f"{shapes[odd[0]]}: scan them one after the other"
        )
    return shards


def _shape(store: Store, shard: int) -> str:
    """Kinds and widths of a shard's features, in words."""
    paths = {"image": store.image_features(shard), "text": store.text_features(shard)}
    return " and ".join(f"{kind} ({read_array(path).shape[1]})" for kind, path in paths.items() if path.exists())


def _first(facts: dict[int, Facts]) -> str:
    errors = [found["error"] for found in facts.values() if found["error"]]
    if errors:
        return str(errors[0])
    counts: Counter[str] = Counter()
    for found in facts.values():
        counts.update(found["unread"])
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common(3)) or "they are empty"
