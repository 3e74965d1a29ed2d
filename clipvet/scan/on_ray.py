"""Shards on a Ray cluster: several machines, or processes of this one that may die."""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipvet import errors
from clipvet.errors import ClipvetError, MissingExtraError, UnreadableError, UnwritableError, UsageError
from clipvet.scan.store import Store, write_whole

if TYPE_CHECKING:
    from clipvet.scan.work import Facts, Job

__all__ = ["ShardWorker", "cluster", "import_ray", "line_of", "run_on_ray"]

TRIES = 3  # of a shard; Ray Data's own number is infinite, and there are shards that kill whoever reads them
OBJECTS = 200 * 2**20  # bytes of a local cluster's object store: no more than the job, numbers and counts go through it


def run_on_ray(job: Job, shards: Sequence[int]) -> Iterator[tuple[int, Facts]]:
    """Do shards on a Ray cluster and yield (shard, facts) as they are finished, in any order.

    The cluster is the one that this process is connected to already, else the one that ``RAY_ADDRESS`` names, else one of
    this machine's own with a CPU per worker, which is shut down in the end. Every machine needs clipvet, and sees the pairs,
    the model and ``options.out`` under the same paths: a shared file system. A worker has a CPU, or a GPU where
    ``options.device`` is one, and loads the model once; one that dies is begun anew and does its shard again. The machine that
    begins the scan uses ``options.device`` too.

    Args:
        job: the stage.
        shards: what is to be done; at least one.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: there is no cluster where there should be one.
        UnwritableError: a machine cannot write to ``options.out``.
        UnreadableError: a shard killed its worker three times.
        ClipvetError: what a worker found, or no worker could begin.
    """
    ray = import_ray()
    with cluster(ray, job.options.workers), _tries(job.store) as tries:
        numbers = ray.data.from_items(list(shards), override_num_blocks=len(shards))
        answers = numbers.map_batches(
            ShardWorker,
            fn_constructor_args=(_for_workers(job), Path.cwd(), tries),
            batch_size=1,
            # a shard waits for the next worker that is free, and not behind one that is busy
            compute=ray.data.ActorPoolStrategy(size=min(job.options.workers, len(shards)), max_tasks_in_flight_per_actor=1),
            num_gpus=1 if job.options.device.startswith("cuda") else None,
        )
        try:
            for row in answers.iter_rows():
                yield int(row["shard"]), _facts(json.loads(row["answer"]))
        except ray.exceptions.RayError as error:
            raise ClipvetError(
                f"expected workers on Ray to do the shards, but {line_of(error, -1)}: see that every machine has "
                "the same clipvet, and run the same command again; it goes on with what is whole"
            ) from error


class ShardWorker:
    """Does shards in a process of the cluster, one after the other.

    Args:
        job: the stage.
        home: folder that relative paths start from.
        tries: folder that all machines see, with a file for every try of a shard.
    """

    def __init__(self, job: Job, home: Path, tries: Path) -> None:
        with suppress(OSError):  # where a machine lacks it, paths that are absolute still do
            os.chdir(home)
        self.job, self.tries = job, tries

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        """Do one shard. An error is an answer like another: Ray would add pages to it."""
        shard = int(batch["item"][0])
        answer: dict[str, Any]
        try:
            answer = {"facts": self.do(shard)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        return {"shard": [shard], "answer": [json.dumps(answer)]}

    def do(self, shard: int) -> Facts:
        """Do a shard, unless a worker finished it and died before it could say so."""
        found = self.job.done(shard)
        if found is None:
            self._count(shard)
            found = self.job.do(shard)
        return found

    def _count(self, shard: int) -> None:
        for number in range(TRIES):
            try:
                (self.tries / f"{shard}.{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise UnwritableError(
                    f"expected to write to {self.tries} from {platform.node()}, but {error.strerror or error}: choose an output "
                    "folder on a file system that all machines of the cluster share"
                ) from error
            return
        raise UnreadableError(
            f"expected to do {self.job.source.shards[shard].name} in {TRIES} tries, but its worker died in each: give the workers "
            "more memory, or leave this file out, and run the command again; it goes on with what is whole"
        )


def import_ray() -> Any:
    """Return Ray, with Ray Data.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("expected Ray for this engine, found none: pip install 'clipvet[ray]'") from error
    return ray


@contextmanager
def cluster(ray: Any, workers: int) -> Iterator[None]:
    """Be connected to a cluster. One that was begun here is ended; a connection stays until this process ends.

    Raises:
        UsageError: there is no cluster where there should be one.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECTS}
    # What Ray has to say stands in its log files. Its compiled part speaks to the terminal past Python, of what it mends itself.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(address="auto" if address else "local", log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = f"at RAY_ADDRESS {address!r}" if address else "on this machine"
        raise UsageError(
            f"expected a Ray cluster {place}, but {line_of(error, 0)}: begin one with 'ray start --head', unset RAY_ADDRESS, or "
            "use the local engine"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if not address:  # else the next stage uses it again; not every Ray Data can come back to a cluster that it left
            ray.shutdown()


@contextmanager
def _tries(store: Store) -> Iterator[Path]:
    """Make a folder for tries, of this call alone: on a machine that does not share it, there is none of this name."""
    folder = store.folder.absolute() / "state" / f"tries-{secrets.token_hex(8)}"
    write_whole(folder / "begun", lambda file: None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _for_workers(job: Job) -> Job:
    """The job with a path and a device that mean the same to a worker; Ray shows each worker its GPU alone."""
    device = "cuda" if job.options.device.startswith("cuda") else job.options.device
    options = replace(job.options, out=job.options.out.absolute(), device=device)
    return replace(job, store=replace(job.store, folder=job.store.folder.absolute()), options=options, model=None)


def _facts(answer: Mapping[str, Any]) -> Facts:
    """Return a worker's facts, or raise its error."""
    if "facts" in answer:
        return dict(answer["facts"])
    name, message = answer["error"], answer["message"]
    found: Exception = getattr(errors, name)(message) if name in errors.__all__ else RuntimeError(f"{name}: {message}")
    found.add_note(answer["trace"])  # for --debug
    raise found


def line_of(error: Exception, at: int) -> str:
    """One line of an error that may have pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[at].rstrip(".")
