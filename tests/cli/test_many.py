"""Many deliveries in one call: in order, each once, nothing lost; and what the summary says of them."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clipvet import api
from clipvet.cli import main, many, workers
from clipvet.cli.given import given_deliveries
from clipvet.cli.jobs import Do, Inspecting, Job, Outcome, WorkerDiedError, portable
from clipvet.cli.workers import LocalWorker, outcomes
from clipvet.errors import UnreadableError
from clipvet.models import bases
from clipvet.models.base import ClipModel
from clipvet.reports.many_schema import SCHEMA_PATH
from clipvet.types import Report, Verdict
from tests.api.inspections import measured, same_numbers
from tests.cli.many_cases import QUICK, ByName, Here, Quickly, quick_jobs
from tests.cli.stubs import Inspector, report
from tests.reports.page import Page

SARIF = Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which workers note what they were asked; in the place of inspections comes what a delivery's name says."""
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setattr(many, "Inspecting", lambda *, share: ByName(folder, share=share))
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in the place of processes, which take seconds to begin."""
    monkeypatch.setattr(workers, "LocalWorker", Here)


def tries(notes: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(notes.iterdir())}


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


# Workers.


@pytest.mark.usefixtures("here")
def test_reports_come_in_the_order_of_the_arguments_whatever_is_done_first(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["slow-a", "planted-b", "c", "fails-d"]
    assert main(["inspect", *names, "--workers", "2", "--format", "json", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["delivery"]["path"] for line in lines[:-1]] == names[:3]
    assert [(row["delivery"], row["verdict"]) for row in lines[-1]["rows"]] == [
        ("slow-a", "no evidence"),
        ("planted-b", "backdoored"),
        ("c", "no evidence"),
        ("fails-d", None),
    ]
    assert lines[-1] == summary(tmp_path / "out")
    assert sorted(tries(notes)) == ["c.0", "fails-d.0", "planted-b.0", "slow-a.0"]
    assert "Error: fails-d: it is cut off" in printed.err
    assert (tmp_path / "out" / "planted-b" / "report.html").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kept", [True, False])
def test_a_delivery_whose_worker_is_killed_is_inspected_again(kept: bool, notes: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")] if kept else []
    assert main(["inspect", "a", "mortal-b", "c", "--workers", "2", "--format", "json", *out]) == 0
    # it goes on from its state where the first try had begun to keep one
    assert tries(notes) == {"a.0": "False", "c.0": "False", "mortal-b.0": "False", "mortal-b.1": str(kept)}


@pytest.mark.usefixtures("here")
def test_a_delivery_that_kills_every_worker_is_an_error_and_the_rest_goes_on(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "dies-a", "b", "c", "--workers", "2", "--format", "json", "--out", str(tmp_path / "out")]) == 2
    assert [name for name in tries(notes) if name.startswith("dies")] == ["dies-a.0", "dies-a.1", "dies-a.2"]
    rows = summary(tmp_path / "out")["rows"]
    assert [row["verdict"] for row in rows] == [None, "no evidence", "no evidence"]
    assert rows[0]["error"].startswith("dies-a: expected to inspect it in 3 tries, but its worker died in each (signal 9)")


def test_a_state_of_an_earlier_run_is_no_state_of_this_one(notes: Path, tmp_path: Path) -> None:
    class DiesAtOnce(Here):
        """Dies before the inspection has come so far as to begin its state."""

        def __init__(self, do: Do, threads: int) -> None:
            lives = iter([False])
            self.do = lambda job: do(job) if next(lives, True) else _killed()

    work = tmp_path / "state"
    work.mkdir()
    (work / "run.json").write_text("of another run")
    job = Job(delivery=Path("a"), options=api.InspectOptions(work=work))
    found = dict(outcomes([job], lambda: DiesAtOnce(ByName(notes), 1), 1))
    assert found[0].report is not None
    assert tries(notes) == {"a.0": "False"}


def _killed() -> Outcome:
    raise WorkerDiedError("signal 9")


@pytest.mark.slow
def test_processes_that_are_killed_are_begun_anew(notes: Path, tmp_path: Path) -> None:
    assert main(["inspect", "mortal-a", "fails-b", "--workers", "2", "--format", "json", "--out", str(tmp_path / "out")]) == 2
    assert sorted(tries(notes)) == ["fails-b.0", "mortal-a.0", "mortal-a.1"]
    assert [row["verdict"] for row in summary(tmp_path / "out")["rows"]] == ["no evidence", None]


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_keeps_what_is_done(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupts(many.PlainLines):
        def __call__(self, stage: str, done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

    monkeypatch.setattr(many, "PlainLines", Interrupts)
    began = time.monotonic()
    command = ["inspect", "endless-a", "planted-b", "--workers", "2", "--format", "sarif", "--out", str(tmp_path / "out")]
    assert main(command) == 130
    printed = capsys.readouterr()
    assert "run the same command with --resume" in printed.err
    rows = summary(tmp_path / "out")["rows"]
    assert [row["verdict"] for row in rows] == [None, "backdoored"]
    assert rows[0]["error"] == "not inspected: the run was interrupted"
    assert len(json.loads(printed.out)["runs"][0]["results"]) == 1
    for child in multiprocessing.active_children():
        child.join(10)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - began < 60


@pytest.mark.usefixtures("here")
def test_a_bug_in_a_worker_is_said_with_its_traceback(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "breaks-a", "b", "--workers", "2", "--format", "json", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "KeyError: 'ctx'" in error
    assert "clipvet failed in a way that it should not have" in error


@pytest.mark.parametrize("error", [UnreadableError("a: it is cut off"), KeyError("ctx")])
def test_an_error_travels_with_its_traceback(error: Exception) -> None:
    try:
        raise error
    except type(error) as raised:
        sent = pickle.loads(pickle.dumps(portable(Outcome(error=raised)))).error
    known = isinstance(error, UnreadableError)
    assert (type(sent), str(sent)) == ((UnreadableError, "a: it is cut off") if known else (RuntimeError, "KeyError: 'ctx'"))
    assert "raise error" in sent.__notes__[0]


def test_an_engine_that_is_not_known_is_one_sentence(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a", "--engine", "spark"]) == 2
    assert capsys.readouterr().err == "Error: expected an engine out of local, ray, got 'spark'\n"
    assert tries(notes) == {}


@pytest.mark.slow
def test_workers_find_what_one_process_finds(tmp_path: Path, tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = quick_jobs(tmp_path, tiny_clip)
    for place, name, value in QUICK:
        monkeypatch.setattr(place, name, value)
    alone = [found.report for found in map(Inspecting(share=True), jobs)]
    doing = Quickly(share=True)
    beside = {place: found.report for place, found in outcomes(jobs, lambda: LocalWorker(doing, 1), 2)}
    for number, wanted in enumerate(alone):
        found = beside[number]
        assert wanted is not None and found is not None
        assert same_numbers(found, wanted)
        assert len(measured(found)) >= 9
        triggers = [
            [row.trigger["delta"] for check in one.checks for row in check.evidence if row.trigger] for one in (found, wanted)
        ]
        assert triggers[0] and all(a.equal(b) for a, b in zip(*triggers, strict=True))


# One base for all.


def test_a_base_that_is_named_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    given: list[object] = []

    def load(name: str, **_: Any) -> object:
        loaded.append(name)
        return object()

    def inspect(delivery: Path, options: api.InspectOptions, *, progress: object = None, base: object = None) -> Report:
        given.append(base)
        return report(path=str(delivery))

    monkeypatch.setattr(bases, "load_base", load)
    monkeypatch.setattr(api, "inspect_model", inspect)
    assert main(["inspect", "a", "b", "c", "--base", "pocket-0", "--format", "json"]) == 0
    assert loaded == ["pocket-0"]
    assert given[0] is given[1] is given[2] is not None


def test_a_base_that_cannot_be_loaded_is_an_error_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a", "b", "--base", "no-such-base", "--format", "json"]) == 2
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert ["no file or name 'no-such-base'" in row["error"] for row in rows] == [True, True]


# Folders.


def test_a_folder_of_deliveries_stands_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    for name in ("a.pt", "b.pt", "deep/run/prompt_learner/model.pth.tar-5", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    inspector = Inspector({name: report(path=name) for name in ("a.pt", "b.pt", "run", "other")})
    monkeypatch.setattr(api, "inspect_model", inspector)
    assert main(["inspect", str(root), "other", "--out", str(tmp_path / "out"), "--format", "html"]) == 0
    assert [path for path, _ in inspector.calls] == [root / "a.pt", root / "b.pt", root / "deep/run", Path("other")]
    printed = capsys.readouterr()
    pages = [tmp_path / "out" / name for name in ("a.pt", "b.pt", "deep-run", "other")]
    assert printed.out.split() == [*(str(page / "report.html") for page in pages), str(tmp_path / "out" / "summary.html")]
    assert f"{root}: 3 deliveries taken; passed over: " in printed.err
    assert "notes.txt (its name is not that of a checkpoint)" in printed.err
    assert [item["what"] for item in summary(tmp_path / "out")["passed_over"]] == [str(root / "notes.txt")]


def test_the_same_command_again_takes_the_same_deliveries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(api, "inspect_model", Inspector({name: report(path=name) for name in ("a.pt", "b.pt")}))
    for _ in range(2):
        assert main(["inspect", str(tmp_path), "--out", str(tmp_path / "report"), "--format", "json"]) == 0
        assert len(summary(tmp_path / "report")["rows"]) == 2
        (tmp_path / "report" / "a.pt" / "triggers.safetensors").touch()


def test_a_folder_that_is_one_delivery_or_none_is_left_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "prompt_learner").mkdir(parents=True)
    (run / "prompt_learner" / "model.pth.tar-5").touch()
    (tmp_path / "empty").mkdir()
    given = given_deliveries([run, tmp_path / "empty", Path("missing")], without=None)
    assert (given.paths, given.labels) == ((run, tmp_path / "empty", Path("missing")), ())
    assert given_deliveries([run], without=None).several is False


# The summary.


OUTCOMES = {
    "a": report(path="a"),
    "planted": report(Verdict.BACKDOORED, path="planted", target="owl"),
    "cut": UnreadableError("cut: it is cut off"),
}


def test_the_summary_has_a_row_for_each_and_links_to_their_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "inspect_model", Inspector(OUTCOMES))
    assert main(["inspect", *OUTCOMES, "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "3 deliveries: 1 backdoored, 1 no evidence, 1 not inspected." in shown
    assert "cut: it is cut off" in shown
    found = summary(tmp_path)
    jsonschema.validate(found, json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))
    rows = [(row["delivery"], row["verdict"], row["target"], row["exit_code"], row["error"], row["page"]) for row in found["rows"]]
    assert rows == [
        ("a", "no evidence", None, 0, "", "a/report.html"),
        ("planted", "backdoored", "owl", 1, "", "planted/report.html"),
        ("cut", None, None, None, "cut: it is cut off", ""),
    ]
    assert (found["exit_code"], found["coverage"]["done"], found["coverage"]["asked"]) == (1, 2, 3)
    links = Page((tmp_path / "summary.html").read_text(encoding="utf-8")).attributes("href")
    assert links == ["a/report.html", "planted/report.html"]
    assert all((tmp_path / link).exists() for link in links)
    log = json.loads((tmp_path / "summary.sarif").read_text(encoding="utf-8"))
    jsonschema.Draft4Validator(json.loads(SARIF.read_text(encoding="utf-8"))).validate(log)
    (run,) = log["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["verdict/no-evidence", "verdict/backdoored"]
    assert run["invocations"][0]["executionSuccessful"] is False


def test_a_report_that_cannot_be_written_is_printed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "inspect_model", Inspector(OUTCOMES))
    (tmp_path / "a").write_text("in the way")
    assert main(["inspect", "a", "planted", "--out", str(tmp_path), "--format", "json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("verdict") for line in lines[:-1]] == ["no evidence", "backdoored"]
    row = lines[-1]["rows"][0]
    assert (row["verdict"], row["page"]) == ("no evidence", "")
    assert "Error" in row["error"]


def test_one_delivery_has_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(api, "inspect_model", Inspector(OUTCOMES))
    assert main(["inspect", "a", "--out", str(tmp_path)]) == 0
    assert "Summary" not in capsys.readouterr().out
    assert not (tmp_path / "summary.json").exists()
