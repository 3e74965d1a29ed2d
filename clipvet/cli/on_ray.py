"""Inspections on a Ray cluster: a worker is an actor on one of its machines."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

from clipvet.cli.jobs import Do, Job, Outcome, WorkerDiedError, portable
from clipvet.errors import UnreadableError
from clipvet.scan.on_ray import line_of

__all__ = ["RayWorker"]


class RayWorker:
    """An actor of the cluster that this process is connected to, begun with the first job.

    It has a CPU, or a GPU where the options' device is one. Every machine needs clipvet, and sees the deliveries, the base, the
    probe images and the folder for reports under the same paths: a shared file system.

    Args:
        ray: the module.
        do: what it does; pickled, so that its state is the actor's own.
        device: torch device of the options.
    """

    def __init__(self, ray: Any, do: Do, device: str) -> None:
        gpus = 1 if device.startswith("cuda") else 0
        # Ray would begin it again by itself, and without the state that the first try left
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._ray, self._do = ray, do
        self._actor: Any = None

    def do(self, job: Job) -> Outcome:
        """Do one job; see :meth:`clipvet.cli.jobs.Worker.do`."""
        errors = self._ray.exceptions
        if self._actor is None:
            self._actor = self._kind.remote(self._do, Path.cwd())
        try:
            outcome = self._ray.get(self._actor.do.remote(_for_worker(job)))
        except errors.RayTaskError as error:  # not the job's, whose errors are outcomes
            return Outcome(error=RuntimeError(line_of(error, 0)))
        except errors.RayError as error:
            self._actor = None
            raise WorkerDiedError(line_of(error, -1)) from error
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        """End the actor, which gives its place to others."""
        if self._actor is not None:
            self._ray.kill(self._actor)


class _Actor:
    """What runs on the other machine."""

    def __init__(self, do: Do, home: Path) -> None:
        self.do_it = do
        self.problem = ""
        try:
            os.chdir(home)  # relative paths mean the same everywhere
        except OSError as error:
            self.problem = (
                f"expected the folder {home} on {platform.node()} too, but {error.strerror or error}: run the command in a folder "
                "that all machines of the cluster share"
            )

    def do(self, job: Job) -> Outcome:
        return Outcome(error=UnreadableError(self.problem)) if self.problem else portable(self.do_it(job))


def _for_worker(job: Job) -> Job:
    """The job with a device that means the same to a worker: Ray shows each of them its own GPU alone."""
    if not job.options.device.startswith("cuda"):
        return job
    return dataclasses.replace(job, options=dataclasses.replace(job.options, device="cuda"))
