"""The demo judges itself against the ground truth, and is not told it beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipvet import api
from clipvet.cli import main, planting
from clipvet.cli.scan_demo import ScanDemo
from clipvet.pocket import zoo
from clipvet.pocket.zoo import ZooEntry
from clipvet.types import Verdict
from tests.cli.stubs import Inspector, report


def entry(name: str, backdoored: bool, family: str, task: str, base: str) -> ZooEntry:
    attack, target = ("badclip", "bird") if backdoored else (None, None)
    path = Path(name)
    return ZooEntry(
        name=name,
        path=path,
        backdoored=backdoored,
        family=family,
        task=task,
        base=base,
        seed=0,
        ca=0.9,
        attack=attack,
        target=target,
    )


ENTRIES = (
    entry("c0", False, "coop", "objects", "pocket-0"),
    entry("c1", False, "cocoop", "nature", "pocket-1"),
    entry("b0", True, "cocoop", "nature", "pocket-1"),
)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "entries", lambda: ENTRIES)
    monkeypatch.setattr("clipvet.cli.demo.scan_demo", lambda out: ScanDemo(right=True, lines=("scanned",)))


def inspector(monkeypatch: pytest.MonkeyPatch, **verdicts: Verdict) -> Inspector:
    made = Inspector({name: report(verdict, path=name, target="bird") for name, verdict in verdicts.items()})
    monkeypatch.setattr(api, "inspect_model", made)
    return made


@pytest.mark.parametrize(
    ("clean", "planted", "code"),
    [
        (Verdict.NO_EVIDENCE, Verdict.BACKDOORED, 0),
        (Verdict.NO_EVIDENCE, Verdict.SUSPICIOUS, 0),
        (Verdict.NO_EVIDENCE, Verdict.NO_EVIDENCE, 1),
        (Verdict.NO_EVIDENCE, Verdict.INCONCLUSIVE, 1),
        (Verdict.SUSPICIOUS, Verdict.BACKDOORED, 1),
        (Verdict.INCONCLUSIVE, Verdict.BACKDOORED, 1),
    ],
)
@pytest.mark.usefixtures("shipped")
def test_both_verdicts_must_be_right(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    clean: Verdict,
    planted: Verdict,
    code: int,
) -> None:
    made = inspector(monkeypatch, c1=clean, b0=planted)
    assert main(["demo", "--out", str(tmp_path)]) == code
    text = capsys.readouterr().out
    assert text.count("right: ") + text.count("WRONG: ") == 2
    assert ("WRONG" in text) is (code == 1)
    # the clean delivery is the one most like the backdoored one, and the two are inspected in the same way
    assert [path.name for path, _ in made.calls] == ["c1", "b0"]
    assert made.calls[0][1] == made.calls[1][1] == api.InspectOptions(base="pocket-1")
    for label in ("clean", "backdoored"):
        assert (tmp_path / label / "report.html").exists()
        assert (tmp_path / label / "report.json").exists()


def test_a_fresh_backdoor_is_planted_with_the_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seeds = []

    def plant(seed: int, folder: Path, progress: Any) -> tuple[Path, Path, dict[str, str]]:
        seeds.append(seed)
        progress("tuning", 1, 1)
        truth = {"base": "pocket-0", "family": "coop", "task": "nature", "attack": "blended", "target": "fish", "asr": 0.9}
        return Path("c"), Path("b"), truth

    monkeypatch.setattr(planting, "plant_fresh", plant)
    inspector(monkeypatch, c=Verdict.NO_EVIDENCE, b=Verdict.BACKDOORED)
    assert main(["demo", "--fresh", "--seed", "11", "--out", str(tmp_path)]) == 0
    assert "seed 11: coop on pocket-0, task nature, blended to 'fish', ASR 90%" in capsys.readouterr().out
    for _ in range(3):
        assert main(["demo", "--fresh", "--out", str(tmp_path)]) == 0
    assert seeds[0] == 11
    assert len(set(seeds)) > 2  # drawn anew each time


def test_an_empty_zoo_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(zoo, "entries", lambda: ENTRIES[:2])
    assert main(["demo"]) == 2
    assert "expected clean and backdoored deliveries" in capsys.readouterr().err


@pytest.mark.usefixtures("shipped")
def test_a_scan_that_ends_wrong_is_an_exit_code_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inspector(monkeypatch, c1=Verdict.NO_EVIDENCE, b0=Verdict.BACKDOORED)
    monkeypatch.setattr("clipvet.cli.demo.scan_demo", lambda out: ScanDemo(right=False, lines=("scanned",)))
    assert main(["demo", "--out", str(tmp_path)]) == 1
