"""What workers do in tests; a worker process finds it under this name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from safetensors.torch import save_file

from clipvet import api
from clipvet.cli.jobs import Do, Inspecting, Job, Outcome, WorkerDiedError
from clipvet.errors import UnreadableError
from clipvet.inspection import control, summary
from clipvet.models.base import ClipModel
from clipvet.types import Verdict
from tests.api.inspections import NAMES, Quick, deliver
from tests.cli.stubs import report


class ByName:
    """Does with a delivery what its name says: fails, breaks, is slow, dies once or always; and writes down what it was asked.

    Args:
        notes: folder with a file for every try: ``<delivery>.<number>``, which holds the options' ``resume``.
        share: as of :class:`Inspecting`.
    """

    def __init__(self, notes: Path, *, share: bool = True) -> None:
        self.notes, self.home = notes, os.getpid()

    def __call__(self, job: Job, progress: object = None) -> Outcome:
        name = job.delivery.name
        number = sum(path.name.startswith(f"{name}.") for path in self.notes.iterdir())
        (self.notes / f"{name}.{number}").write_text(str(job.options.resume))
        kind = name.split("-")[0]
        if kind == "dies" or (kind == "mortal" and number == 0):
            if job.options.work is not None:
                job.options.work.mkdir(parents=True, exist_ok=True)
                (job.options.work / "run.json").write_text("begun")
            self._die()
        if kind == "slow":
            time.sleep(1.0)
        if kind == "endless":
            time.sleep(600)
        if kind == "fails":
            return Outcome(error=UnreadableError(f"{job.delivery}: it is cut off"), seconds=0.5)
        if kind == "breaks":
            return Outcome(error=KeyError("ctx"))
        verdict = Verdict.BACKDOORED if kind == "planted" else Verdict.NO_EVIDENCE
        return Outcome(report=report(verdict, path=str(job.delivery), target="owl" if kind == "planted" else None), seconds=1.5)

    def _die(self) -> None:
        """End the worker: its process, or what stands for one here."""
        if os.getpid() == self.home:
            raise WorkerDiedError("signal 9")
        os.kill(os.getpid(), signal.SIGKILL)


class Here:
    """A worker without a process."""

    def __init__(self, do: Do, threads: int) -> None:
        self.do = do

    def close(self) -> None:
        """There is nothing to end."""


# Where, what, and in its place: a check of a few steps, and controls that can be planted on random weights.
QUICK = (
    (api, "MarginResidual", Quick),
    (summary, "shipped_nulls", lambda **_: ()),
    (control, "LEAST_KEPT", 0.0),
)


class Quickly(Inspecting):
    """Inspects for real, and in seconds; for a process of its own, which it changes."""

    def __call__(self, job: Job, progress: object = None) -> Outcome:
        for place, name, value in QUICK:
            setattr(place, name, value)
        return super().__call__(job)


def quick_jobs(folder: Path, model: ClipModel) -> list[Job]:
    """Two deliveries on a base whose file lies beside them."""
    base = folder / "tiny.safetensors"
    save_file({name: values.contiguous() for name, values in model.clip.state_dict().items()}, base)
    options = api.InspectOptions(base=str(base), probe_count=24, seed=1)
    return [Job(delivery=deliver(folder / f"{start}.safetensors", model, NAMES[start:]), options=options) for start in range(2)]
