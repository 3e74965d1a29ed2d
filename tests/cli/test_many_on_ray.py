"""Inspections on a Ray cluster: the reports of one process, whatever befalls a worker; and what needs no Ray at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipvet import api
from clipvet.cli import main, many, on_ray
from clipvet.cli.jobs import Inspecting, Job, Outcome, WorkerDiedError
from clipvet.cli.on_ray import RayWorker
from clipvet.cli.workers import outcomes
from clipvet.models.base import ClipModel
from tests.api.inspections import measured, same_numbers
from tests.cli.many_cases import QUICK, ByName, Quickly, quick_jobs

# What needs no Ray.


def test_ray_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["inspect", "a", "b", "--engine", "ray"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "Error: expected Ray for this engine, found none: pip install 'clipvet[ray]'\n"
    assert printed.out == ""


class RayError(Exception):
    """What Ray raises."""


class RayTaskError(RayError):
    """What Ray raises for an error in the actor's own code."""


class FakeRay:
    """Calls in this process; an actor's method raises what its number says."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *raised: Exception | None) -> None:
        self.raised = iter(raised)
        self.killed = 0
        self.resources: dict[str, Any] = {}

    def remote(self, **resources: Any) -> Any:
        self.resources = resources
        return lambda kind: SimpleNamespace(remote=lambda *given: self._actor(kind(*given)))

    def _actor(self, actor: Any) -> SimpleNamespace:
        return SimpleNamespace(do=SimpleNamespace(remote=lambda job: lambda: actor.do(job)))

    def get(self, call: Any) -> Outcome:
        if (error := next(self.raised, None)) is not None:
            raise error
        found: Outcome = call()
        return found

    def kill(self, _: Any) -> None:
        self.killed += 1


def done(job: Job) -> Outcome:
    return Outcome(error=KeyError(job.options.device))


JOB = Job(delivery=Path("a"), options=api.InspectOptions())


def test_what_befalls_an_actor_and_what_its_job_comes_to_are_told_apart() -> None:
    ray = FakeRay(RayError("pages\nThe worker died unexpectedly."), RayTaskError("No module named 'clipvet'\nmore"), None)
    worker = RayWorker(ray, done, "cpu")
    with pytest.raises(WorkerDiedError, match=r"^The worker died unexpectedly$"):
        worker.do(JOB)
    assert repr(worker.do(JOB).error) == "RuntimeError(\"No module named 'clipvet'\")"
    assert repr(worker.do(JOB).error) == "RuntimeError(\"KeyError: 'cpu'\")"
    worker.close()
    assert (ray.killed, ray.resources["num_gpus"]) == (1, 0)


def test_a_worker_on_a_gpu_sees_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.InspectOptions, "__post_init__", lambda options: None)  # this machine may have no GPU
    ray = FakeRay()
    worker = RayWorker(ray, done, "cuda:3")
    job = Job(delivery=Path("a"), options=api.InspectOptions(base="pocket-0", device="cuda:3"))
    assert repr(worker.do(job).error) == "RuntimeError(\"KeyError: 'cuda'\")"
    assert ray.resources["num_gpus"] == 1


def test_a_machine_without_the_folder_says_so(tmp_path: Path) -> None:
    actor = on_ray._Actor(done, tmp_path / "gone")
    assert "No such file or directory: run the command in a folder that all machines" in str(actor.do(JOB).error)


# What needs Ray.


def on_cluster(test: Any) -> Any:
    """Mark a test that begins processes of Ray, whose own warnings are not ours to mend."""
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray, connected to a cluster of two workers."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield ray
    ray.shutdown()


@on_cluster
def test_reports_of_a_cluster_are_those_of_one_process(
    cluster: Any, tmp_path: Path, tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = quick_jobs(tmp_path, tiny_clip)
    for place, name, value in QUICK:
        monkeypatch.setattr(place, name, value)
    alone = [found.report for found in map(Inspecting(share=True), jobs)]
    doing = Quickly(share=True)
    found = {place: outcome.report for place, outcome in outcomes(jobs, lambda: RayWorker(cluster, doing, "cpu"), 2)}
    for number, wanted in enumerate(alone):
        report = found[number]
        assert wanted is not None and report is not None
        assert same_numbers(report, wanted)
        assert len(measured(report)) >= 9


@on_cluster
def test_a_worker_that_is_killed_costs_nothing_but_time(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setattr(many, "Inspecting", lambda *, share: ByName(notes))
    names = ["mortal-a", "planted-b", "dies-c", "fails-d", "e"]
    assert main(["inspect", *names, "--engine", "ray", "--workers", "2", "--format", "json", "--out", str(tmp_path / "out")]) == 1
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["verdict"] for row in rows] == ["no evidence", "backdoored", None, None, "no evidence"]
    tries = {path.name: path.read_text() for path in notes.iterdir()}
    assert {name: resumed for name, resumed in tries.items() if name.startswith("mortal")} == {
        "mortal-a.0": "False",
        "mortal-a.1": "True",
    }
    assert sum(name.startswith("dies") for name in tries) == 3
    assert "expected to inspect it in 3 tries" in rows[2]["error"]
    assert "it is cut off" in rows[3]["error"]
    assert cluster.available_resources()["CPU"] <= 2
