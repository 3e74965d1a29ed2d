"""The hook counts what is known to go through the tower."""

import pytest
import torch

from benchmarks.counting import ImageCount, count_images
from clipvet.inspection.base import Run, Subject
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.margin_residual import MarginResidual
from clipvet.inspection.search import Search, SearchConfig
from clipvet.models.bases import with_state
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier

NAMES = ("cat", "dog", "bird", "fish", "cow")


@pytest.fixture
def images(tiny_clip):
    return torch.rand(6, 3, tiny_clip.image_size, tiny_clip.image_size, generator=torch.Generator().manual_seed(0))


def classifier(model, family="coop"):
    return PromptedClassifier(model, new_prompt(family, model, NAMES, seed=0), NAMES).freeze()


def test_forward_and_backward_are_counted_apart(tiny_clip, images):
    with count_images(tiny_clip) as seen:
        tiny_clip.encode_image(images)
        assert seen == ImageCount(forward=6, backward=0)
        features = tiny_clip.encode_image(images[:4].clone().requires_grad_(True))
        assert seen == ImageCount(forward=10, backward=0)
        features.sum().backward()
        assert seen == ImageCount(forward=10, backward=4)


def test_a_second_backward_pass_counts_again(tiny_clip, images):
    with count_images(tiny_clip) as seen:
        total = tiny_clip.encode_image(images.clone().requires_grad_(True)).sum()
        total.backward(retain_graph=True)
        total.backward()
    assert seen == ImageCount(forward=6, backward=12)


def test_nothing_is_counted_outside_the_context(tiny_clip, images):
    with count_images(tiny_clip) as seen:
        assert seen == ImageCount()
    tiny_clip.encode_image(images)
    with pytest.raises(RuntimeError, match="stop"), count_images(tiny_clip) as other:
        raise RuntimeError("stop")
    tiny_clip.encode_image(images)
    assert seen == other == ImageCount()


def test_a_tower_named_twice_counts_once_and_two_towers_both(tiny_clip, images):
    twin = with_state(tiny_clip, {}, name="twin")
    with count_images(tiny_clip, tiny_clip, twin) as seen:
        tiny_clip.encode_image(images)
        twin.encode_image(images[:1])
    assert seen.forward == 7


@pytest.mark.parametrize("family", ["coop", "vpt", "maple"])
def test_a_search_passes_every_image_of_every_class_once_a_step(tiny_clip, images, family):
    model = classifier(tiny_clip, family)
    search = Search(model, images, torch.tensor([0, 2, 4]), config=SearchConfig(batch=4, chunk=8), seed=0)
    with count_images(tiny_clip) as seen:
        search.step()
        assert seen == ImageCount(forward=12, backward=12)  # 3 classes of 4 images
        search.measure(model, images)
        assert seen == ImageCount(forward=30, backward=12)


def test_the_default_check_takes_the_passes_that_it_announces(tiny_clip):
    probes = torch.rand(20, 3, tiny_clip.image_size, tiny_clip.image_size, generator=torch.Generator().manual_seed(0))
    subject = Subject(classifier=classifier(tiny_clip), reference=classifier(tiny_clip, "zero-shot"))
    check = MarginResidual(screen_steps=2, refine_steps=3, keep=2, batch=4, screened_on=4, evaluation=6)
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    with count_images(tiny_clip) as seen:
        check.run(subject, probes, run)
    assert seen.forward == check.passes(subject, 20) == 5 * (2 * 4 + 2 * 4) + 2 * (3 * 4 + 2 * 6)
    assert seen.backward == 5 * 2 * 4 + 2 * 3 * 4  # all classes screened, two refined


def test_the_check_without_classes_takes_the_passes_that_it_announces(tiny_clip):
    probes = torch.rand(20, 3, tiny_clip.image_size, tiny_clip.image_size, generator=torch.Generator().manual_seed(0))
    subject = Subject(classifier=classifier(tiny_clip, "vpt"), reference=classifier(tiny_clip, "zero-shot"))
    check = FeatureCollapse(steps=3, batch=4, evaluation=6)
    run = Run(seed=0, journal=MemoryJournal(), clock=lambda: None, progress=lambda stage, done, total: None)
    with count_images(tiny_clip) as seen:
        check.run(subject, probes, run)
    assert seen == ImageCount(forward=3 * 4 + 2 * 6, backward=3 * 4)
    assert seen.forward == check.passes(20)
