"""torchvision imports with and without its compiled part."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest
import torch

from clipvet.models import _torchvision


def test_torchvision_and_open_clip_import_afterwards() -> None:
    _torchvision.make_importable()
    for module in ("torchvision.transforms", "open_clip"):
        assert importlib.import_module(module)


def test_calling_twice_declares_nothing_twice() -> None:
    _torchvision.make_importable()
    before = list(_torchvision._libraries)
    _torchvision.make_importable()
    assert _torchvision._libraries == before
    assert hasattr(torch.ops.torchvision, "nms")


def test_where_the_compiled_part_is_missing_its_operators_are_declared() -> None:
    """In a process of its own: a declaration cannot be taken back."""
    code = (
        "import torch; from clipvet.models import _torchvision as t; t._compiled_part_loads = lambda: False; t.make_importable(); "
    )
    code += "print(*[hasattr(torch.ops.torchvision, name) for name in ('nms', 'qnms')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("True True", 0), done.stderr


def test_where_the_compiled_part_loads_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torchvision, "_libraries", [])
    monkeypatch.setattr(_torchvision, "_compiled_part_loads", lambda: True)
    _torchvision.make_importable()
    assert _torchvision._libraries == []


def test_a_missing_torchvision_has_no_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not _torchvision._compiled_part_loads()
