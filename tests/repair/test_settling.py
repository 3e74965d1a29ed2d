"""The end of a repair descends the plain loss in a copy, and is taken back where a trigger comes back by it."""

from __future__ import annotations

import pytest
import torch

from clipvet.models import base
from clipvet.models.base import ClipModel
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.tuning import TuneConfig
from clipvet.repair import Stamps, settling
from clipvet.repair.moving import MovingStamps
from tests.repair import toys

ONCE = TuneConfig(steps=1, batch=6, lr=1e-3)


def stamps(model: ClipModel) -> MovingStamps:
    return MovingStamps(Stamps.of([toys.evidence()], model.image_size), torch.tensor([toys.TARGET]), 0)


@pytest.mark.parametrize("family", ["vpt", "coop"])
def test_a_step_descends_the_plain_loss_in_a_copy(tiny_clip: ClipModel, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW's first step moves every number by the rate against the sign of the gradient; the loss is written out here."""
    monkeypatch.setattr(base, "bfloat16_is_fast", lambda device: False)
    monkeypatch.setattr(settling, "reached", lambda *given: 0.0)
    images, labels = toys.toy(6)
    given = toys.fresh(tiny_clip, family).freeze()
    settled = settling.settle(given, images, labels, stamps(tiny_clip), ONCE, seed=0, progress=toys.silent)

    fresh = toys.fresh(tiny_clip, family).prompt
    own = PromptedClassifier(tiny_clip, fresh, toys.NAMES)
    gradients = torch.autograd.grad(-own(images).log_softmax(1)[torch.arange(6), labels].mean(), list(fresh.parameters()))
    for start, gradient, found, kept in zip(
        fresh.parameters(), gradients, settled.prompt.parameters(), given.prompt.parameters(), strict=True
    ):
        expected = start * (1 - 1e-3 * ONCE.weight_decay) - 1e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4  # elsewhere rounding decides the sign
        assert clear.float().mean() > 0.5
        assert torch.allclose(found[clear], expected[clear], atol=2e-5)
        assert torch.equal(kept, start)


@pytest.mark.parametrize(
    ("before", "after", "taken"), [(0.5, 0.5, True), (0.0, 0.05, True), (0.0, 0.06, False), (0.5, 0.51, False)]
)
def test_it_is_taken_back_where_a_trigger_reaches_more(
    tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch, before: float, after: float, taken: bool
) -> None:
    given = toys.fresh(tiny_clip, "coop").freeze()
    monkeypatch.setattr(settling, "reached", lambda looked, *rest: before if looked is given else after)
    found = settling.settle(given, *toys.toy(6), stamps(tiny_clip), ONCE, seed=0, progress=toys.silent)
    assert (found is not given) is taken


def test_what_a_trigger_reaches_is_counted_over_images_of_other_classes(tiny_clip: ClipModel) -> None:
    planted = toys.planted(tiny_clip, "coop").classifier
    images, labels = toys.toy(60, seed=5)
    share = settling.reached(planted, images, labels, stamps(tiny_clip))
    others = [image for image, label in zip(images, labels.tolist(), strict=True) if label != toys.TARGET]
    hits = [int(planted((image + toys.stripes()).clamp(0, 1)[None]).argmax()) == toys.TARGET for image in others]
    assert share == pytest.approx(sum(hits) / len(hits))
    assert share >= 0.9
