"""The frame of the command line: help without torch, versions, errors and interruption."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clipvet
from clipvet.cli import listing, main
from clipvet.cli.progress import PlainLines
from clipvet.cli.registries import REGISTRIES, Kind


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["--version"]])
def test_help_needs_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = "import sys; from clipvet.cli import main; main(sys.argv[1:]); "
    code += "sys.stderr.write(' '.join({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "clipvet" in done.stdout
    assert "torch" not in done.stderr
    assert "numpy" not in done.stderr


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "clipvet", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"clipvet {clipvet.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "clipvet", "inspekt"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: No such command 'inspekt'")


def test_help_lists_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("inspect", "demo", "attack", "bench", "list", "explain", "doctor", "--fail-on", "130"):
        assert word in text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("division by zero")])
def test_whatever_a_command_raises_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def fail(kind: Kind) -> None:
        raise error

    monkeypatch.setattr(listing, "methods", fail)
    code = main(["list", "triggers"])
    said = capsys.readouterr().err
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert said.strip()
    assert "Traceback" not in said


def test_debug_may_stand_anywhere_but_behind_two_dashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(kind: Kind) -> None:
        raise ZeroDivisionError(kind)

    monkeypatch.setattr(listing, "methods", fail)
    for arguments in (["--debug", "list", "checks"], ["list", "checks", "--debug"]):
        assert main(arguments) == 2
        assert "Traceback" in capsys.readouterr().err
    assert main(["list", "--", "--debug"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_plain_progress_is_a_line_at_the_ends_and_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = PlainLines("run", clock=lambda: now[0])
    for done in range(11):
        now[0] = done * 4.0
        lines("search", done, 10)
    lines("report", 0, 1)
    # spoken at 0 s, then at the first steps 10 s or more later: 12 s, 24 s, 36 s; then at the end
    assert capsys.readouterr().err.splitlines() == [
        "run: search 0/10",
        "run: search 3/10, about 28.0 s left",
        "run: search 6/10, about 16.0 s left",
        "run: search 9/10, about 4.0 s left",
        "run: search 10/10",
        "run: report 0/1",
    ]


def test_every_registry_can_be_listed() -> None:
    assert list(REGISTRIES) == list(Kind)
