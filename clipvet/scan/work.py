"""The work on one shard, and who does it: this process, several, or a cluster. Nothing but numbers of shards goes to a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from typing import Any

import torch

from clipvet.data.pairs import PairSource
from clipvet.errors import ClipvetError
from clipvet.models.base import ClipModel
from clipvet.models.bases import load_base
from clipvet.scan.encode import encode_shard
from clipvet.scan.on_ray import run_on_ray
from clipvet.scan.options import ScanOptions, build_scorers
from clipvet.scan.reference import Reference, load_reference
from clipvet.scan.scoring import score_shard
from clipvet.scan.store import Store

__all__ = ["Facts", "Job", "run_units"]

Facts = dict[str, Any]


@dataclass
class Job:
    """One stage of a scan, for all shards of a source: what a worker has to know.

    Attributes:
        stage: ``features`` or ``scores``.
        source: where pairs come from.
        store: what is kept.
        options: of the scan.
        identity: what the stage's results depend on besides the shard.
        model: the encoder; a worker process loads its own.
    """

    stage: str
    source: PairSource
    store: Store
    options: ScanOptions
    identity: Mapping[str, Any]
    model: ClipModel | None = field(default=None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a worker makes anew."""
        kept = ("stage", "source", "store", "options", "identity")
        return {name: self.__dict__[name] for name in kept} | {"model": None}

    def identity_of(self, shard: int) -> dict[str, Any]:
        """What the results of one shard depend on."""
        return {**self.identity, "shard": self.source.shards[shard].name, "files": self.source.shards[shard].identity}

    def done(self, shard: int) -> Facts | None:
        """Return the facts of a shard that is finished, or None."""
        return self.store.done(self.stage, shard, self.identity_of(shard))

    def do(self, shard: int, progress: Callable[[], None] | None = None) -> Facts:
        """Do one shard and note that it is finished."""
        self.store.forget(self.stage, shard)
        facts = self._features(shard, progress) if self.stage == "features" else self._scores(shard)
        if facts["pairs"] and not facts.get("error"):  # what failed is tried again
            self.store.finish(self.stage, shard, self.identity_of(shard), facts)
        return facts

    def _features(self, shard: int, progress: Callable[[], None] | None) -> Facts:
        return encode_shard(
            self.source.shards[shard],
            shard,
            self.store,
            self._encoder,
            pixel_scorers=tuple(build_scorers(self.options)[1].values()),
            batch=self.options.batch,
            seed=self.options.seed,
            progress=progress,
        )

    def _scores(self, shard: int) -> Facts:
        scorers, pixel = build_scorers(self.options)
        return score_shard(
            self.store,
            shard,
            self._reference,
            scorers,
            columns=list(pixel),
            batches=self.options.batches,
            seed=self.options.seed,
            device=self.options.device,
        )

    @cached_property
    def _encoder(self) -> ClipModel | None:
        if self.model is not None or self.options.model is None:
            return self.model
        return load_base(self.options.model, device=self.options.device, quick_gelu=self.options.quick_gelu)

    @cached_property
    def _reference(self) -> Reference:
        return load_reference(self.store, str(self.identity["reference"]), self.options.device)


def run_units(job: Job, shards: Sequence[int], progress: Callable[[], None]) -> Iterator[tuple[int, Facts]]:
    """Do shards and yield (shard, facts) as they are finished, in any order.

    Args:
        job: the stage.
        shards: what is to be done.
        progress: called after every batch, where one process does the work.
    """
    if not shards:
        return
    if job.options.engine == "ray":
        yield from run_on_ray(job, shards)
    elif job.options.workers == 1 or len(shards) == 1:
        for shard in shards:
            yield shard, job.do(shard, progress)
    else:
        workers = min(job.options.workers, len(shards))
        threads = max(1, torch.get_num_threads() // workers)
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(job, threads)) as pool:
            waiting = {pool.submit(_do, shard): shard for shard in shards}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, BrokenProcessPool):
                    raise
                raise ClipvetError(
                    f"expected {workers} workers to live, but one was killed (often for want of memory): run the same command "
                    "again, with fewer --workers; it goes on with what is whole"
                ) from error


_job: Job | None = None  # a worker process's own


def _begin(job: Job, threads: int) -> None:
    global _job  # a worker process does one job
    torch.set_num_threads(threads)
    _job = job


def _do(shard: int) -> Facts:
    assert _job is not None
    return _job.do(shard)
