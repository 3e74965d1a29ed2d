"""Trainings on poisoned pairs, and a larger zoo that was partly built elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pocket_build import large_zoo
from pocket_build.pairs import SHIFT, shifted


def test_images_move_by_whole_pixels() -> None:
    images = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    moved = shifted(images, torch.Generator().manual_seed(0))
    down, right = torch.randint(2 * SHIFT + 1, (2, 20), generator=torch.Generator().manual_seed(0)).tolist()
    for image, got, d, r in zip(images, moved, down, right, strict=True):
        padded = F.pad(image[None], (SHIFT,) * 4, mode="replicate")[0]
        assert torch.equal(got, padded[:, d : d + 64, r : r + 64])
    assert len(set(down)) > 1


def test_what_was_built_elsewhere_stays_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.json").write_text("{}", encoding="utf-8")
    listed = tmp_path / "list.json"
    monkeypatch.setattr(large_zoo, "LIST", listed)
    monkeypatch.setattr(large_zoo, "CANDIDATES", tmp_path)
    assert large_zoo.elsewhere() == []
    listed.write_text(json.dumps({"deliveries": [{"name": "here"}, {"name": "there"}]}), encoding="utf-8")
    assert large_zoo.elsewhere() == [{"name": "there"}]
