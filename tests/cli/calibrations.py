"""Small calibrations: a random base, checks and a tuning of a few steps; what such a tuning learns is no matter here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import gumbel_r

from clipvet import api
from clipvet.cli import main
from clipvet.inspection import calibrating, control, references, summary
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.models.base import ClipModel
from clipvet.models.tuning import TuneConfig
from tests.api.inspections import NAMES, Quick


@dataclass(frozen=True, kw_only=True)
class QuickCollapse(FeatureCollapse):
    """The check without classes with a few steps."""

    steps: int = 2
    batch: int = 4
    evaluation: int = 8


def quicken(monkeypatch: pytest.MonkeyPatch, base: ClipModel) -> None:
    """Put the base and few steps in the place of what takes long."""
    monkeypatch.setattr(api, "load_base", lambda name, **_: base)
    monkeypatch.setattr(api, "MarginResidual", Quick)
    monkeypatch.setattr(api, "FeatureCollapse", QuickCollapse)
    monkeypatch.setattr(summary, "shipped_nulls", lambda **_: ())
    monkeypatch.setattr(control, "LEAST_KEPT", 0.0)
    monkeypatch.setattr(references, "LEAST_LEARNED", -1.0)
    monkeypatch.setattr(references, "schedule_of", lambda family: TuneConfig(steps=3, batch=4))
    monkeypatch.setattr(calibrating, "POOL", 24)


def calibrated(out: Path, *more: str) -> int:
    """Run the command with small numbers; what is given besides comes last, and so wins."""
    usual = ("--references", "3", "--classes", "10-12", "--families", "coop", "--probe-count", "24", "--seed", "1")
    return main(["calibrate", "--base", "tiny", "--out", str(out), *usual, *more])


def label(folder: Path) -> Path:
    """Write noise for the first four names, three pictures each."""
    rng = np.random.default_rng(0)
    for name in NAMES[:4]:
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


def moments(values: list[float]) -> tuple[float, float]:
    """Place and scale of the Gumbel distribution with the mean and the deviation of the values."""
    scale = np.std(values, ddof=1) / gumbel_r.std()
    return float(np.mean(values) - gumbel_r.mean() * scale), float(scale)
