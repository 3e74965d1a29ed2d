"""Scans on a Ray cluster: the results of the local engine, whatever befalls a worker; and what needs no Ray at all."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipvet.cli import main
from clipvet.data.pairs import PairSource
from clipvet.errors import ClipvetError, MissingExtraError, UnreadableError, UnwritableError, UsageError
from clipvet.scan import on_ray, run
from clipvet.scan.on_ray import ShardWorker
from clipvet.scan.options import ScanOptions
from clipvet.scan.run import scan_pairs
from clipvet.scan.store import Store
from clipvet.scan.work import Job
from clipvet.types import ScanReport, Verdict

from .conftest import MakeTars

SETTINGS: dict[str, Any] = {
    "least_group": 6,
    "model": "pocket-0",
    "k": 4,
    "reference": 50,
    "flag_rate": 0.1,
    "gallery": 3,
    "workers": 2,
}
COMMAND = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


def scan(paths: list[Path], out: Path, **given: Any) -> ScanReport:
    return scan_pairs([str(path) for path in paths], ScanOptions(out=out, **{**SETTINGS, **given}))


def assert_same_results(found: Path, wanted: Path) -> None:
    """Same pairs, suspects and ranks; scores to 1e-3."""
    one, two = (pq.read_table(out / "scores.parquet").to_pydict() for out in (found, wanted))
    assert one.pop("dao") == pytest.approx(two.pop("dao"), rel=1e-3, abs=1e-3)
    assert one == two
    assert sum(one["suspect"]) == len(one["key"]) // 10
    listed = [csv.DictReader((out / "suspects.csv").read_text(encoding="utf-8").splitlines()) for out in (found, wanted)]
    first, second = ([(row["rank"], row["shard"], row["key"]) for row in rows] for rows in listed)
    assert first == second


# What needs no Ray.


def test_an_engine_that_is_not_known_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^expected an engine out of local, ray, got 'spark'$"):
        ScanOptions(out=tmp_path, engine="spark")


def test_ray_that_is_missing_is_one_sentence(make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"^expected Ray for this engine, found none: pip install 'clipvet\[ray\]'$"):
        scan(make_tars(9), tmp_path / "out", engine="ray")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_finished_scan_needs_no_worker(engine: str, make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_tars(30)
    first = scan(paths, tmp_path / "out", workers=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert scan(paths, tmp_path / "out", engine=engine).suspects == first.suspects


def test_what_a_library_prints_does_not_mix_with_the_report(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(*args: Any, **kwargs: Any) -> ScanReport:
        sys.stdout.write("(raylet) A worker died")
        return scan_pairs(*args, **kwargs)

    monkeypatch.setattr(run, "scan_pairs", noisy)
    folder = make_tars(30)[0].parent
    main(["scan", str(folder), "--out", str(tmp_path / "out"), "--model", "pocket-0", "--k", "4", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["counts"]["pairs"] == 30


class FakeJob:
    """One stage over three shards, of which ``finished`` are done; ``do`` does another."""

    source = SimpleNamespace(shards=[SimpleNamespace(name=f"{number:05d}") for number in range(3)])

    def __init__(self, do: Callable[[int], dict[str, Any]], finished: dict[int, Any]) -> None:
        self.do, self.done = do, finished.get


def answer_of(worker: ShardWorker, shard: int) -> dict[str, Any]:
    answer = worker({"item": np.array([shard])})
    assert answer["shard"] == [shard]
    return on_ray._facts(json.loads(answer["answer"][0]))


def fake_worker(tmp_path: Path, work: Callable[[int], dict[str, Any]], finished: dict[int, Any] | None = None) -> ShardWorker:
    return ShardWorker(FakeJob(work, finished or {}), Path.cwd(), tmp_path)


def test_a_worker_answers_with_facts_and_does_nothing_twice(tmp_path: Path) -> None:
    worker = fake_worker(tmp_path, lambda shard: {"pairs": shard}, finished={1: {"pairs": 100}})
    assert [answer_of(worker, shard) for shard in range(3)] == [{"pairs": 0}, {"pairs": 100}, {"pairs": 2}]


@pytest.mark.parametrize(
    ("raised", "known"),
    [(UnwritableError("no room: make some"), UnwritableError), (ZeroDivisionError("by 0"), RuntimeError)],
)
def test_an_error_of_a_worker_is_raised_where_the_scan_runs(raised: Exception, known: type, tmp_path: Path) -> None:
    def fail(shard: int) -> dict[str, Any]:
        raise raised

    with pytest.raises(known, match=str(raised)) as caught:
        answer_of(fake_worker(tmp_path, fail), 0)
    assert type(caught.value) is known
    assert "in fail" in caught.value.__notes__[0]


def test_a_shard_that_kills_its_workers_is_named_after_three_tries(tmp_path: Path) -> None:
    class Killed(BaseException):
        """What no worker outlives."""

    def die(shard: int) -> dict[str, Any]:
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            answer_of(fake_worker(tmp_path, die), 2)
    with pytest.raises(UnreadableError, match=r"^expected to do 00002 in 3 tries, but its worker died in each: .* and run"):
        answer_of(fake_worker(tmp_path, die), 2)
    assert answer_of(fake_worker(tmp_path, lambda shard: {"pairs": 1}), 0) == {"pairs": 1}


def test_a_folder_that_not_all_machines_see_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match="No such file or directory: choose an output folder on a file system that all"):
        answer_of(fake_worker(tmp_path / "elsewhere", lambda shard: {}), 0)


def test_paths_and_devices_mean_the_same_to_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ScanOptions(out=Path("out"), device="cuda:3", engine="ray")
    store = Store(Path("out/trusted"), salt="trusted/", two_models=True)
    job = Job(stage="scores", source=PairSource(kind="", shards=()), store=store, options=options, identity={})
    sent = pickle.loads(pickle.dumps(on_ray._for_workers(job)))
    assert sent.store == Store(tmp_path / "out/trusted", salt="trusted/", two_models=True)
    assert (sent.options.out, sent.options.device) == (tmp_path / "out", "cuda")
    (tmp_path / "home").mkdir()
    ShardWorker(job, tmp_path / "home", tmp_path)
    assert Path.cwd() == tmp_path / "home"
    ShardWorker(job, tmp_path / "missing", tmp_path)
    assert Path.cwd() == tmp_path / "home"


# What needs Ray.


def on_cluster(test: Any) -> Any:
    """Mark a test that begins processes of Ray, whose own warnings are not ours to mend."""
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of two workers; its address."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def run_command(folder: Path, out: str, cwd: Path, address: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clipvet", "scan", str(folder), *COMMAND, "--engine", "ray", "--out", out, "--format", "json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ADDRESS": address}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@on_cluster
@pytest.mark.parametrize("running", [False, True])
def test_the_command_gives_the_results_of_the_local_engine_and_says_no_more(
    running: bool, make_tars: MakeTars, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ray")
    paths = make_tars()
    wanted = scan(paths, tmp_path / "local", workers=1)
    assert wanted.verdict is Verdict.NO_EVIDENCE
    address = request.getfixturevalue("cluster") if running else ""
    done = run_command(Path("data"), "out", tmp_path, address)  # relative paths, as a person gives them
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"], report["counts"]["scored"]) == (wanted.verdict.value, 60)
    odd = [line for line in done.stderr.splitlines() if not line.startswith("scan: ") and "Set ray log level" not in line]
    assert odd == []
    assert_same_results(tmp_path / "out", tmp_path / "local")
    assert list((tmp_path / "out" / "state").glob("tries-*")) == []
    if running:
        import ray

        assert ray.cluster_resources()["CPU"] == 2  # it was there before, and is still


@on_cluster
def test_a_worker_that_is_killed_costs_nothing_but_time(
    cluster: str, make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()

    class Mortal(ShardWorker):
        """Dies in the first try of the second shard of each stage, when its files are written and its marker is not."""

        def do(self, shard: int) -> dict[str, Any]:
            mark = deaths / f"{self.job.stage}-{shard}"
            if shard == 1 and not mark.exists():
                mark.touch()
                self.job.store.__class__.finish = lambda *_: os._exit(1)  # in this process alone
            return super().do(shard)

    monkeypatch.setattr(on_ray, "ShardWorker", Mortal)
    paths = make_tars()
    scan(paths, tmp_path / "local", workers=1)
    scan(paths, tmp_path / "out", engine="ray")
    assert sorted(mark.name for mark in deaths.iterdir()) == ["features-1", "scores-1"]
    assert_same_results(tmp_path / "out", tmp_path / "local")


@on_cluster
def test_a_shard_that_kills_every_worker_ends_the_scan_and_the_rest_is_kept(
    cluster: str, make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doomed(ShardWorker):
        def do(self, shard: int) -> dict[str, Any]:
            if shard == 1:
                self._count(shard)
                os._exit(1)
            return super().do(shard)

    paths = make_tars()
    with monkeypatch.context() as patched:
        patched.setattr(on_ray, "ShardWorker", Doomed)
        with pytest.raises(UnreadableError, match="expected to do 00001 in 3 tries"):
            scan(paths, tmp_path / "out", engine="ray")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "features").rglob("*.npy")}
    assert len(kept) == 4  # images and texts of two shards
    scan(paths, tmp_path / "out", engine="ray")
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    scan(paths, tmp_path / "local", workers=1)
    assert_same_results(tmp_path / "out", tmp_path / "local")


@on_cluster
def test_a_trusted_model_and_a_trusted_set_give_the_results_of_the_local_engine(
    cluster: str, make_tars: MakeTars, tmp_path: Path
) -> None:
    paths = make_tars()
    given = {"trusted_model": "pocket-1", "clean": (str(paths[0]),), "scorers": ("slof-dense+clip-gap", "dao")}
    for engine, out in (("local", tmp_path / "local"), ("ray", tmp_path / "out")):
        scan(paths, out, engine=engine, workers=1 if engine == "local" else 2, **given)
    one, two = (pq.read_table(tmp_path / out / "scores.parquet").to_pydict() for out in ("out", "local"))
    for name in ("slof-dense+clip-gap", "dao"):
        assert one.pop(name) == pytest.approx(two.pop(name), rel=1e-2, abs=1e-2)
    assert one == two


@on_cluster
def test_an_error_in_a_worker_is_the_sentence_of_the_local_engine(cluster: str, make_tars: MakeTars, tmp_path: Path) -> None:
    with pytest.raises(ClipvetError, match=r"expected --model for 0000., which holds images") as caught:
        scan(make_tars(9), tmp_path / "out", engine="ray", model=None)
    assert type(caught.value).__module__ == "clipvet.errors"


@on_cluster
def test_workers_that_cannot_begin_are_one_sentence(
    cluster: str, make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stillborn(ShardWorker):
        def __init__(self, *_: Any) -> None:
            raise ModuleNotFoundError("No module named 'clipvet'")

    monkeypatch.setattr(on_ray, "ShardWorker", Stillborn)
    with pytest.raises(ClipvetError, match=r"^expected workers on Ray .* but ModuleNotFoundError: No module .* same command"):
        scan(make_tars(9), tmp_path / "out", engine="ray")


@on_cluster
def test_an_address_where_there_is_no_cluster_is_one_sentence(
    make_tars: MakeTars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    with pytest.raises(UsageError, match=r"^expected a Ray cluster at RAY_ADDRESS 'nowhere', but .*: begin one with 'ray start"):
        scan(make_tars(9), tmp_path / "out", engine="ray")
