"""A base, a delivery that builds on it, and options under which it is inspected in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from clipvet import api
from clipvet.api import InspectOptions
from clipvet.inspection import control, summary
from clipvet.models.base import ClipModel
from tests.api.inspections import Quick, deliver


@pytest.fixture(autouse=True)
def controls_of_a_random_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights no pattern can be told from clean images well enough to be planted without touching them."""
    monkeypatch.setattr(control, "LEAST_KEPT", 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MarginResidual", Quick)
    monkeypatch.setattr(summary, "shipped_nulls", lambda **_: ())


@pytest.fixture
def base(tmp_path: Path, tiny_clip: ClipModel) -> str:
    """A folder as open_clip writes it: the heads are in its configurations, since tensors do not tell them."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in tiny_clip.clip.state_dict().items()}, folder / "open_clip_model.safetensors")
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    open_clip = {"model_cfg": {"text_cfg": {"heads": 2}}, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip))
    heads = {"num_attention_heads": 2}
    config = {"model_type": "clip", "hidden_act": "gelu", "vision_config": heads, "text_config": heads}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def delivery(tmp_path: Path, tiny_clip: ClipModel) -> Path:
    return deliver(tmp_path / "prompt.safetensors", tiny_clip)


@pytest.fixture
def options(base: str) -> InspectOptions:
    return InspectOptions(base=base, probe_count=24, seed=1)  # a seed whose two controls can be planted on the random base


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder
