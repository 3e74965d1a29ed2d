"""What the command hands to the inspection, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipvet import api
from clipvet.cli import main
from clipvet.cli.config import class_names, seconds
from clipvet.cli.output import folders_for
from clipvet.errors import UsageError
from tests.cli.stubs import Inspector, report


@pytest.fixture
def inspector(monkeypatch: pytest.MonkeyPatch) -> Inspector:
    made = Inspector({name: report(path=name) for name in ("a", "b")})
    monkeypatch.setattr(api, "inspect_model", made)
    return made


def test_every_option_arrives(inspector: Inspector, tmp_path: Path) -> None:
    options = "--base pocket-0 --classes cat,dog --family coop --position middle --no-quick-gelu --probes pool --probe-count 7"
    options += f" --preset paper --seed 3 --device meta --budget 1h30m --out {tmp_path} --resume"
    assert main(["inspect", "a", *options.split()]) == 0
    assert inspector.calls[0] == (
        Path("a"),
        api.InspectOptions(
            base="pocket-0",
            class_names=("cat", "dog"),
            family="coop",
            position="middle",
            quick_gelu=False,
            probes=Path("pool"),
            probe_count=7,
            preset="paper",
            seed=3,
            device="meta",
            budget=5400,
            work=tmp_path / "state",
            resume=True,
        ),
    )


def test_nothing_stated_is_the_default(inspector: Inspector) -> None:
    assert main(["inspect", "a"]) == 0
    assert inspector.calls == [(Path("a"), api.InspectOptions())]


def test_a_configuration_file_is_overruled_by_the_command_line(inspector: Inspector, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'base = "pocket-1"\nseed = 5\nbudget = "10m"\nclass_names = ["cat", "dog"]\nprobes = "pool"\nquick_gelu = true\n'
    )
    assert main(["inspect", "a", "--config", str(config), "--seed", "6"]) == 0
    options = inspector.calls[0][1]
    assert (options.base, options.seed, options.budget) == ("pocket-1", 6, 600)
    assert (options.class_names, options.probes, options.quick_gelu) == (("cat", "dog"), tmp_path / "pool", True)


def test_all_errors_of_a_configuration_are_said_at_once(
    inspector: Inspector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'seed = "five"\npreset = "fast"\nprob = 3\nprobe_count = 0\nbudget = "soon"\nresume = true\nbase = "pocket-0"\n'
    )
    assert main(["inspect", "a", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    for part in (
        "seed:",
        "preset: expected a preset",
        "prob: expected one of",
        "probe_count:",
        "budget: expected a duration",
        "resume:",
    ):
        assert part in error
    assert "base:" not in error
    assert inspector.calls == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["a", "--budget", "soon"], "expected a duration such as 90s, 10m or 1h30m, got 'soon'"),
        (["a", "--budget", "0s"], "expected a positive budget"),
        (["a", "--preset", "fast"], "expected a preset out of default, paper, neural-cleanse, pixel-backdoor, got 'fast'"),
        (["a", "--probe-count", "0"], "expected at least one probe image, got 0"),
        (["a", "--format", "pdf"], "'pdf' is not one of 'console', 'json', 'sarif', 'html'"),
        (["a", "--fail-on", "clean"], "'clean' is not one of"),
        (["a", "--min-coverage", "2"], "Invalid value for '--min-coverage'"),
        (["a", "--resume"], "expected --out with --resume"),
        (["a", "--classes", "names.txt"], "found no file 'names.txt'"),
        (["a", "--config", "no.toml"], "expected a TOML file at 'no.toml'"),
        (["a", "--colour"], "No such option"),
    ],
)
def test_a_wrong_argument_ends_in_one_sentence(
    inspector: Inspector, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["inspect", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert inspector.calls == []


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5h", 1800), ("1m30", 90)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "10 m", "-5s", "10d", "10m!", "5 5", "1.5.2h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="expected a duration"):
        seconds(text)


def test_class_names_come_from_a_file_or_from_words(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("great white shark\n\n  cat, the animal \n")
    assert class_names(str(file)) == ("great white shark", "cat, the animal")
    assert class_names("cat, dog,") == ("cat", "dog")
    assert class_names("cat") == ("cat",)
    with pytest.raises(UsageError, match="'cat' twice"):
        class_names("cat,dog,cat")
    with pytest.raises(UsageError, match="got none"):
        class_names(" , ")


def test_every_delivery_has_a_folder_of_its_own(tmp_path: Path) -> None:
    given = [Path("x/run"), Path("y/run"), Path("ru n"), Path("z/other run")]
    folders = folders_for(given, tmp_path)
    assert [folder and folder.name for folder in folders] == ["run", "run~2", "ru-n", "other-run"]
    assert folders_for(given[:1], tmp_path) == [tmp_path]
    assert folders_for(given, None) == [None] * 4


def test_dry_run_plans_and_inspects_nothing(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = api.InspectPlan(stages=("read", "search 10 classes"), image_passes=1234, seconds=90)
    monkeypatch.setattr(api, "plan_inspection", lambda delivery, options: plan)
    assert main(["inspect", "a", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "about 1 min 30 s" in printed
    assert "1234 images" in printed
    assert "2. search 10 classes" in printed
    assert main(["inspect", "a", "b", "--dry-run", "--format", "json"]) == 0
    assert [json.loads(line)["delivery"] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]
    assert inspector.calls == []


def test_progress_goes_to_standard_error_and_the_report_to_standard_output(
    inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "a", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["verdict"] == "no evidence"
    assert printed.err.splitlines() == ["a: search 0/2", "a: search 2/2"]
