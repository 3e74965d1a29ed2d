"""The exit code is the same for every format, and a finding is never hidden by an error elsewhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipvet import api
from clipvet.cli import main
from clipvet.errors import UnreadableError
from clipvet.types import Verdict
from tests.cli.stubs import Inspector, Outcome, report

FORMATS = ("console", "json", "sarif", "html")
SUSPICIOUS, BACKDOORED, NOTHING, UNSURE = Verdict.SUSPICIOUS, Verdict.BACKDOORED, Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE

# verdict, --fail-on, an error inside the report, work done out of 10 -> code; written out, so that no rule is shared with the code
TABLE: dict[tuple[Verdict, str, bool, int], int] = {
    (BACKDOORED, "suspicious", False, 10): 1,
    (BACKDOORED, "backdoored", False, 10): 1,
    (BACKDOORED, "suspicious", True, 10): 1,
    (BACKDOORED, "backdoored", True, 2): 1,
    (SUSPICIOUS, "suspicious", False, 10): 1,
    (SUSPICIOUS, "suspicious", True, 2): 1,
    (SUSPICIOUS, "backdoored", False, 10): 0,
    (SUSPICIOUS, "backdoored", True, 10): 2,
    (SUSPICIOUS, "backdoored", False, 2): 3,
    (NOTHING, "suspicious", False, 10): 0,
    (NOTHING, "backdoored", False, 10): 0,
    (NOTHING, "suspicious", True, 10): 2,
    (NOTHING, "suspicious", True, 2): 2,
    (NOTHING, "suspicious", False, 2): 3,
    (UNSURE, "suspicious", False, 10): 3,
    (UNSURE, "backdoored", False, 10): 3,
    (UNSURE, "suspicious", True, 10): 2,
}


def run(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Outcome], *options: str) -> tuple[int, Inspector]:
    inspector = Inspector(outcomes)
    monkeypatch.setattr(api, "inspect_model", inspector)
    return main(["inspect", *outcomes, *options]), inspector


def cases() -> Iterator[object]:
    for (key, code), output in itertools.product(TABLE.items(), FORMATS):
        yield pytest.param(*key, output, code, id=f"{key[0].name}-{key[1]}-{'error-' if key[2] else ''}{key[3]}-{output}")


@pytest.mark.parametrize(("verdict", "fail_on", "error", "done", "output", "code"), list(cases()))
def test_one_delivery(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, fail_on: str, error: bool, done: int, output: str, code: int
) -> None:
    made = report(verdict, done=done, errors=("a probe image could not be read",) if error else ())
    found, _ = run(monkeypatch, {"a": made}, "--fail-on", fail_on, "--format", output)
    assert found == code


@pytest.mark.parametrize(("share", "code"), [("0.2", 0), ("0.21", 3), ("0", 0), ("1", 3)])
def test_min_coverage_is_the_least_that_passes(monkeypatch: pytest.MonkeyPatch, share: str, code: int) -> None:
    assert run(monkeypatch, {"a": report(done=2)}, "--min-coverage", share)[0] == code


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ({"a": report(BACKDOORED), "b": UnreadableError("b is cut off")}, 1),
        ({"a": UnreadableError("a is cut off"), "b": report(BACKDOORED, path="b")}, 1),
        ({"a": ValueError("a bug"), "b": report(SUSPICIOUS, path="b"), "c": report(UNSURE, path="c")}, 1),
        ({"a": report(), "b": UnreadableError("b is cut off")}, 2),
        ({"a": report(UNSURE), "b": UnreadableError("b is cut off")}, 2),
        ({"a": report(), "b": report(UNSURE, path="b")}, 3),
        ({"a": report(), "b": report(path="b")}, 0),
    ],
)
@pytest.mark.parametrize("output", ["console", "json", "sarif"])
def test_several_deliveries(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Outcome], code: int, output: str) -> None:
    found, inspector = run(monkeypatch, outcomes, "--format", output)
    assert found == code
    assert [path.name for path, _ in inspector.calls] == list(outcomes)


def test_each_report_states_the_code_of_its_own_delivery(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {"a": report(), "b": report(BACKDOORED, path="b"), "c": report(UNSURE, path="c")}
    assert run(monkeypatch, outcomes, "--format", "json")[0] == 1
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["exit_code"] for line in lines] == [0, 1, 3, 1]  # the last line is the summary


def test_sarif_of_several_deliveries_is_one_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, {"a": report(), "b": report(BACKDOORED, path="b")}, "--format", "sarif")
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    assert [len(run["results"]) for run in log["runs"]] == [2]


def test_html_of_several_deliveries_needs_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcomes = {"a": report(), "b": report(path="b")}
    code, inspector = run(monkeypatch, outcomes, "--format", "html")
    assert code == 2
    assert inspector.calls == []
    assert "expected --out DIR" in capsys.readouterr().err
    assert run(monkeypatch, outcomes, "--format", "html", "--out", str(tmp_path))[0] == 0
    pages = capsys.readouterr().out.split()
    assert pages == [str(tmp_path / name) for name in ("a/report.html", "b/report.html", "summary.html")]
    assert all(Path(page).exists() for page in pages)


def test_an_error_is_one_sentence_on_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, {"a": UnreadableError("a: it is cut off")}, "--format", "json")[0] == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == "Error: a: it is cut off"
    assert "Traceback" not in printed.err


def test_a_bug_is_one_sentence_that_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, {"a": KeyError("ctx\x1b[2J")})[0] == 2
    error = capsys.readouterr().err
    assert "run it again with --debug and report" in error
    assert "Traceback" not in error
    assert "\x1b" not in error  # what a file's bytes put into a message must not reach the terminal as control
    assert run(monkeypatch, {"a": KeyError("ctx")}, "--debug")[0] == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kept: bool
) -> None:
    outcomes: dict[str, Outcome] = {"a": report(BACKDOORED), "b": KeyboardInterrupt()}
    code, _ = run(monkeypatch, outcomes, "--format", "sarif", *(["--out", str(tmp_path)] if kept else []))
    printed = capsys.readouterr()
    assert code == 130
    assert "--resume" in printed.err
    assert printed.err.splitlines()[-1] == "Interrupted."
    assert len(json.loads(printed.out)["runs"]) == 1
    assert (tmp_path / "a" / "report.json").exists() is kept
