"""One pattern that draws images together in a planted tower and not in its clean twin, whatever the classes are called."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import OutOfBudget, Run, Subject
from clipvet.inspection.beyond import look_beyond
from clipvet.inspection.calibration import settings_digest
from clipvet.inspection.feature_collapse import FeatureCollapse, concentration
from clipvet.inspection.journal import MemoryJournal
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import Null, NullKey, Severity
from tests.inspection.toys import quiet_run, toy_images

WIDTH, SIZE = 6, 8
CHECK = FeatureCollapse(strength=0.05, steps=12, batch=6, evaluation=8)
KEY = NullKey(
    base="tiny",
    family="prompt",
    classes=(3, 3),
    settings=settings_digest(CHECK.name, CHECK.__dict__),
    probes="some",
)


class Tower:
    """Unit features of a linear tower; a planted one adds a place that a direction in the pixels leads to."""

    def __init__(self, *, planted: float, model: object, changes: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = 3 * toy_images().shape[-1] ** 2
        self.weights = torch.randn(WIDTH, pixels, generator=generator)
        self.direction = torch.randn(pixels, generator=generator).sign()
        self.place = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
        self.planted, self.model = planted, model
        self.class_names = ("cat", "dog", "owl")
        self.prompt = SimpleNamespace(changes_image_tower=changes)
        self.heads = torch.stack([-self.place, self.place, torch.zeros(WIDTH)])

    def image_features(self, images: Tensor) -> Tensor:
        flat = (images - 0.5).flatten(1)
        led = flat @ self.direction / flat.shape[1]
        found = flat @ self.weights.T + self.planted * led[:, None] * self.place
        return torch.nn.functional.normalize(found, dim=-1)

    def from_features(self, features: Tensor) -> Tensor:
        return features @ self.heads.T


BASE = SimpleNamespace(is_vit=False, mixed_precision=lambda *, wanted: nullcontext())


def subject(planted: float, *, changes: bool = True, model: object = BASE) -> Subject:
    towers = Tower(planted=planted, model=model, changes=changes), Tower(planted=0, model=BASE, changes=False)
    delivered, base = (cast(PromptedClassifier, tower) for tower in towers)
    return Subject(classifier=delivered, reference=base)


def test_concentration_is_the_length_of_the_mean_unit_vector() -> None:
    features = np.array([[3.0, 0.0], [0.0, 0.5], [2.0, 2.0]])
    units = features / np.sqrt((features**2).sum(1, keepdims=True))
    assert float(concentration(torch.tensor(features))) == pytest.approx(float(np.sqrt((units.mean(0) ** 2).sum())))
    assert float(concentration(torch.ones(5, 3))) == pytest.approx(1)
    assert float(concentration(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))) == 0


def test_a_planted_tower_collapses_and_its_clean_twin_does_not() -> None:
    images = toy_images(40)
    planted, clean = (CHECK.run(subject(strength), images, quiet_run()) for strength in (400.0, 0.0))
    assert planted.statistic > 10
    assert abs(clean.statistic) < 5
    (row,) = planted.evidence
    assert (row.target, row.target_kind, row.target_index) == ("dog", "feature", None)
    assert row.values["asr"] == 1
    assert row.trigger is not None
    assert float(row.trigger["delta"].abs().max()) <= 0.05 + 1e-6


def test_the_statistic_is_a_hundred_times_the_difference_that_it_shows() -> None:
    images, given = toy_images(40), subject(400.0)
    found = CHECK.run(given, images, quiet_run())
    (row,) = found.evidence
    assert row.trigger is not None
    stamped = (images[:8] + row.trigger["delta"]).clamp(0, 1)
    assert given.reference is not None
    lengths = []
    for one in (given.classifier, given.reference):
        features = one.image_features(stamped).double().numpy()
        lengths.append(float(np.linalg.norm((features / np.linalg.norm(features, axis=1, keepdims=True)).mean(0))))
    assert [row.values["concentration"], row.values["baseline_concentration"]] == pytest.approx(lengths, abs=1e-4)
    assert found.statistic == row.statistic == pytest.approx(100 * (lengths[0] - lengths[1]), abs=1e-2)
    assert torch.equal(row.trigger["triggered"], stamped[:4])


def test_the_class_names_play_no_part() -> None:
    images = toy_images(40)
    whole, fewer = subject(400.0), subject(400.0)
    tower = cast(Tower, fewer.classifier)
    tower.heads, tower.class_names = tower.heads[[0, 2]], ("cat", "owl")
    one, other = (CHECK.run(given, images, quiet_run()) for given in (whole, fewer))
    assert one.statistic == other.statistic
    assert other.evidence[0].target in ("cat", "owl")


def test_the_seed_decides_and_a_resumed_run_says_the_same() -> None:
    images, journal = toy_images(40), MemoryJournal()
    first = CHECK.run(subject(400.0), images, quiet_run(journal=journal))

    def over() -> None:
        raise OutOfBudget("over")

    late = Run(seed=0, journal=journal, clock=over, progress=lambda stage, done, total: None)
    assert CHECK.run(subject(400.0), images, late).statistic == first.statistic
    other = Run(seed=5, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    assert CHECK.run(subject(400.0), images, other).statistic != first.statistic


def test_it_applies_where_the_towers_differ() -> None:
    assert FeatureCollapse.applies(subject(0.0))
    assert not FeatureCollapse.applies(subject(0.0, changes=False))
    assert FeatureCollapse.applies(subject(0.0, changes=False, model=object()))
    assert not FeatureCollapse.applies(Subject(classifier=subject(0.0).classifier, reference=None))
    with pytest.raises(UsageError, match="expected a trusted base to compare the features with, got none"):
        CHECK.run(Subject(classifier=subject(0.0).classifier, reference=None), toy_images(40), quiet_run())


@pytest.mark.parametrize("name", ["strength", "steps", "batch", "lr", "evaluation"])
def test_a_bad_configuration_fails_when_it_is_built(name: str) -> None:
    with pytest.raises(UsageError, match="expected positive steps, batch, evaluation, strength and lr"):
        FeatureCollapse(**{name: 0})


def test_a_null_gives_the_threshold_and_a_finding_says_what_was_seen() -> None:
    null = Null(key=KEY, values=(1.0, 2.0, 3.0, 2.5), check=CHECK.name)
    found, clean = (look_beyond(CHECK, subject(p), toy_images(40), quiet_run(), null=null) for p in (400.0, 0.0))
    values = np.array(null.values)
    scale = values.std(ddof=1) * math.sqrt(6) / math.pi
    assert found.flag == pytest.approx(values.mean() - 0.5772156649 * scale - scale * math.log(-math.log(0.98)))
    assert (found.null, found.skipped, clean.findings) == (null, (), ())
    (finding,) = found.findings
    assert finding.check == CHECK.name
    assert finding.severity is Severity.MEDIUM  # clean coarse tasks come near to it: a verdict does not rest on it
    assert "100% of the images are then taken for 'dog'" in finding.message


def test_without_a_null_the_number_is_shown_and_flags_nothing() -> None:
    found = look_beyond(CHECK, subject(400.0), toy_images(40), quiet_run(), null=None)
    assert found.result is not None
    assert found.result.statistic > 10
    assert (found.flag, found.findings, found.null) == (math.inf, (), None)
    assert "no null was measured" in found.skipped[0].why


def test_a_null_of_the_bases_own_labels_is_shown_and_flags_nothing() -> None:
    """Such tunings move a tower less than a person's do: a threshold read off them would call many a person's tuning planted."""
    null = Null(key=KEY, values=(1.0, 2.0, 3.0, 2.5), check=CHECK.name, pseudo_labelled=True)
    found = look_beyond(CHECK, subject(400.0), toy_images(40), quiet_run(), null=null)
    assert (found.flag, found.findings, found.null) == (math.inf, (), null)
    (left,) = found.skipped
    assert left.what == "a verdict of feature-collapse"
    assert "so that it flags nothing: clipvet calibrate --labelled makes one that does" in left.why


def test_no_number_is_named_and_flags_nothing() -> None:
    broken = subject(400.0)
    cast(Tower, broken.classifier).weights[0, 0] = math.nan
    null = Null(key=KEY, values=(1.0, 2.0), check=CHECK.name)
    found = look_beyond(CHECK, broken, toy_images(40), quiet_run(), null=null)
    assert found.findings == ()
    assert [one.why for one in found.skipped] == ["it came to no number"]


def test_what_was_not_run_is_named() -> None:
    def over() -> None:
        raise OutOfBudget("the budget was used up")

    late = Run(seed=0, journal=MemoryJournal(), clock=over, progress=lambda stage, done, total: None)
    untouched = look_beyond(CHECK, subject(0.0, changes=False), toy_images(40), quiet_run(), null=None)
    unfinished = look_beyond(CHECK, subject(0.0), toy_images(40), late, null=None)
    assert (untouched.result, unfinished.result) == (None, None)
    assert "leaves the image tower as it is" in untouched.skipped[0].why
    assert unfinished.skipped[0].why == "the budget was used up"
    assert untouched.findings == unfinished.findings == ()
