"""A pool of images on which no backdoor can be found says so: the controls that are planted with it are not recovered."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor

from clipvet.data.generated import generate_probes
from clipvet.inspection import MarginResidual
from clipvet.inspection.base import Subject
from clipvet.inspection.calibration import judge
from clipvet.inspection.control import run_controls
from clipvet.models.bases import load_base
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten
from clipvet.pocket import tasks
from clipvet.types import CheckResult, Evidence, Verdict
from tests.inspection.toys import quiet_run


def icons(n: int) -> Tensor:
    """White outlines on black, two pixels wide, as of an icon font."""
    pool = tasks._document()["pool"]
    shape = (tasks._pictures(pool["pictures"][:n])[:, 3:] > 127).float()
    inner = -F.max_pool2d(-shape, 5, stride=1, padding=2)
    return (shape - inner).expand(-1, 3, -1, -1).contiguous()


@pytest.mark.parametrize(
    ("pool", "recovered", "verdict"), [("generated", 1.0, Verdict.NO_EVIDENCE), ("icons", 0.0, Verdict.INCONCLUSIVE)]
)
def test_monochrome_icons_leave_it_open(pool: str, recovered: float, verdict: Verdict) -> None:
    probes = generate_probes(200, 64, 0) if pool == "generated" else icons(200)
    base, names = load_base("pocket-0"), tasks.load_task("signs").class_names
    untuned = PromptedClassifier(base, HandWritten(base, names), names).freeze()
    rows = tuple(
        Evidence(target=name, target_index=i, trigger_kind="additive", values={"margin": 0.0, "baseline_margin": 0.0})
        for i, name in enumerate(names)
    )
    result = CheckResult(check=MarginResidual.name, statistic=0.0, evidence=rows)
    found = run_controls(MarginResidual(), Subject(classifier=untuned, reference=untuned), result, probes, quiet_run(), flag=2.0)
    assert found["recovered"] == recovered
    assert judge(result, None, controls=found["recovered"]).verdict is verdict
