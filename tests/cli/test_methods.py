"""``list`` and ``explain`` say what the registries hold."""

from __future__ import annotations

import pytest

from clipvet.attacks import ATTACKS, PAIR_ATTACKS
from clipvet.cli import main
from clipvet.cli.docstrings import to_markdown
from clipvet.cli.registries import Kind, find_method, methods
from clipvet.scan import ALL_SCORERS
from clipvet.triggers import TRIGGERS


@pytest.mark.parametrize(
    ("kind", "names"), [("scorers", ALL_SCORERS), ("attacks", ATTACKS), ("pair-attacks", PAIR_ATTACKS), ("triggers", TRIGGERS)]
)
def test_list_names_every_method_on_a_line(capsys: pytest.CaptureFixture[str], kind: str, names: dict[str, type]) -> None:
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(names)


def test_list_of_everything_has_a_heading_for_each_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert headings == ["checks:", "scorers:", "attacks:", "pair-attacks:", "triggers:", "families:", "repairs:"]


@pytest.mark.parametrize("word", ["badclip", "BadCLIP", "Bad-Clip", "bad_clip"])
def test_explain_finds_a_method_by_any_spelling(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["explain", word]) == 0
    text = capsys.readouterr().out
    assert "BadClip (attacks)" in text
    assert "Fails when" in text
    assert "2311.16194" in text


def test_explain_suggests_what_comes_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "badnet"]) == 2
    assert "did you mean badnets" in capsys.readouterr().err


def test_every_method_of_every_registry_is_found_by_its_name() -> None:
    found = [(kind, method.name, find_method(method.name).cls is method.cls) for kind in Kind for method in methods(kind)]
    assert len(found) >= 15
    assert all(same for _, _, same in found), found


def test_a_docstring_becomes_markdown() -> None:
    doc = """Do a thing with :class:`x.Y` and ``z``.

Attributes:
    eps: bound of
        the thing.

Fails when: it rains.

Reference: A paper (arXiv 1).
    Differs in a way."""
    assert to_markdown(doc) == (
        "Do a thing with `x.Y` and `z`.\n\n## Settings\n\n- `eps`: bound of\n  the thing.\n\n## Fails when\n\nit rains.\n\n"
        "## Reference\n\nA paper (arXiv 1).\nDiffers in a way.\n"
    )
