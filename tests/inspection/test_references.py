"""References are drawn by number and seed alone, labelled as a plain loop labels, and kept one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipvet.errors import UnreadableError, UsageError
from clipvet.inspection import references, shots
from clipvet.inspection.base import OutOfBudget, Run
from clipvet.inspection.feature_collapse import FeatureCollapse
from clipvet.inspection.journal import Journal, MemoryJournal
from clipvet.inspection.references import Draw, Recipe, Reference, default_families, make_references, tune_reference
from clipvet.inspection.shots import LabelledFolders, PseudoLabelled, top_images
from clipvet.models.base import ClipModel
from clipvet.models.tuning import TuneConfig
from tests.inspection.toys import quiet_run

NAMES = ("cat", "dog", "owl", "fox", "cow", "pig", "bee", "ant", "hen", "elk", "bat", "rat")
RECIPE = Recipe(families=("coop", "vpt"), names=NAMES, classes=(3, 6), seed=5)


def test_a_draw_depends_on_its_number_and_the_seed_alone() -> None:
    draws = [RECIPE.draw(number) for number in range(200)]
    assert draws[::-1] == [RECIPE.draw(number) for number in reversed(range(200))]
    assert len({draw.seed for draw in draws}) == 200
    other = Recipe(families=("coop", "vpt"), names=NAMES, classes=(3, 6), seed=6)
    assert sum(RECIPE.draw(number) == other.draw(number) for number in range(200)) == 0


def test_draws_cover_the_families_and_the_whole_band() -> None:
    draws = [RECIPE.draw(number) for number in range(400)]
    assert set(Counter(draw.family for draw in draws)) == {"coop", "vpt"}
    assert set(Counter(len(draw.class_names) for draw in draws)) == {3, 4, 5, 6}
    assert all(len(set(draw.class_names)) == len(draw.class_names) and set(draw.class_names) <= set(NAMES) for draw in draws)
    assert {name for draw in draws for name in draw.class_names} == set(NAMES)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"families": ("lora",)}, "expected prompt families out of coop, .*, got 'lora'"),
        ({"families": ("coop", "zero-shot")}, "got 'zero-shot'"),
        ({"families": ()}, "got 'none'"),
        ({"classes": (1, 6)}, "expected a band of at least 2 classes such as 10-50, got 1-6"),
        ({"classes": (6, 5)}, "got 6-5"),
        ({"classes": (3, 13)}, "expected at least 13 class names to draw up to 13 classes from, got 12: .* --classes 3-12"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe(**{"families": ("coop",), "names": NAMES, "classes": (3, 6), **changed})


def test_a_name_that_has_no_room_is_said_before_anything_is_tuned(tiny_clip: ClipModel) -> None:
    RECIPE.try_on(tiny_clip)
    long = Recipe(families=("vpt", "coop"), names=(*NAMES, "word " * 40), classes=(3, 6))
    with pytest.raises(UsageError, match="word"):
        long.try_on(tiny_clip)


def test_a_tower_without_tokens_gets_families_that_leave_it_alone() -> None:
    def families(is_vit: bool) -> set[str]:
        base: Any = SimpleNamespace(is_vit=is_vit)
        return set(default_families(base))

    assert families(True) == {"coop", "cocoop", "vpt", "ivlp", "maple"}
    assert families(False) == {"coop", "cocoop"}


def test_every_class_gets_the_images_that_most_speak_for_it() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    picked, labels = top_images(logits, 3)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for label in range(4):
        shares = []
        for row in logits.double().tolist():
            powers = [np.exp(value) for value in row]
            shares.append(powers[label] / sum(powers))
        best = sorted(range(9), key=lambda i, shares=shares: -shares[i])[:3]
        assert picked[labels == label].tolist() == best
    assert top_images(logits, 99)[1].tolist() == [0] * 9 + [1] * 9 + [2] * 9 + [3] * 9


def test_the_base_labels_images_with_the_hand_written_prompt(tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "SHOTS", 2)
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    taken, labels = PseudoLabelled(tiny_clip, images).take(NAMES[:3], seed=0)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    with torch.no_grad():
        features = tiny_clip.encode_image(images)
        texts = []
        for name in NAMES[:3]:
            each = tiny_clip.encode_text([f"a photo of a {name}.", f"{name}.", f"a picture of a {name}."])
            texts.append(each.mean(0) / each.mean(0).norm())
        shares = (tiny_clip.logit_scale * features @ torch.stack(texts).T).softmax(1)
    for label in range(3):
        best = shares[:, label].argsort(descending=True)[:2]
        assert torch.equal(taken[labels == label], images[best])


def test_pseudo_labels_know_their_pixels(tiny_clip: ClipModel) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    same, other = PseudoLabelled(tiny_clip, images.clone()), PseudoLabelled(tiny_clip, 1 - images)
    assert PseudoLabelled(tiny_clip, images).identity == same.identity != other.identity


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Twenty pictures of each of three classes, every class in a grey of its own."""
    for position, name in enumerate(("red_fox", "owl", "cow")):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.fromarray(np.full((10, 10, 3), 50 * (position + 1) + i, np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_labelled_images_are_read_from_the_folder_of_their_class(folders: Path) -> None:
    labelled = LabelledFolders(folders, 8)
    assert labelled.names == ("cow", "owl", "red fox")
    images, labels = labelled.take(("red fox", "cow"), seed=3)
    assert Counter(labels.tolist()) == {0: 16, 1: 16}
    greys = (images.mean((1, 2, 3)) * 255).round()
    assert all(50 <= grey < 70 for grey in greys[labels == 0].tolist())
    assert all(150 <= grey < 170 for grey in greys[labels == 1].tolist())
    assert torch.equal(labelled.take(("red fox", "cow"), seed=3)[0], images)
    assert not torch.equal(labelled.take(("red fox", "cow"), seed=4)[0], images)
    before = labelled.identity
    (folders / "owl" / "0.png").unlink()
    assert labelled.identity != before


def test_a_class_without_a_folder_is_one_sentence(folders: Path) -> None:
    assert LabelledFolders(folders, 8, names=("Owl", "cow")).names == ("Owl", "cow")
    with pytest.raises(UsageError, match=r"expected a folder of images for every class name in .*, found none for 'yak': add it"):
        LabelledFolders(folders, 8, names=("owl", "yak"))
    with pytest.raises(UnreadableError, match=r"expected a folder with one folder of images per class, found none at .*absent"):
        LabelledFolders(folders / "absent", 8)


@pytest.mark.parametrize(
    ("accuracy", "n_classes", "statistic", "learned"),
    [
        (0.10, 10, 1.0, False),  # chance
        (0.32, 10, 1.0, False),  # 0.22 of the 0.90 above chance are less than a quarter
        (0.33, 10, 1.0, True),  # 0.23 are more
        (0.62, 2, 1.0, False),
        (0.63, 2, 1.0, True),
        (1.00, 10, float("nan"), False),
    ],
)
def test_a_reference_has_learned_when_it_left_chance_behind(
    accuracy: float, n_classes: int, statistic: float, learned: bool
) -> None:
    draw = Draw(number=0, family="coop", class_names=NAMES[:n_classes], seed=0)
    assert Reference(draw=draw, statistic=statistic, accuracy=accuracy).learned is learned


class Greys:
    """Dark images of one class, bright ones of the other, or the same with labels that mean nothing."""

    identity = "greys"

    def __init__(self, *, meant: bool = True) -> None:
        self.meant = meant

    def take(self, names: Any, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.2 * torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(32) % 2
        images = noise + 0.7 * labels.view(-1, 1, 1, 1)
        return (images, labels) if self.meant else (images[:1].repeat(32, 1, 1, 1), labels)


@pytest.mark.parametrize("family", ["coop", "vpt"])
def test_a_prompt_is_tuned_to_its_labels_and_the_base_stays(
    tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(references, "schedule_of", lambda family: TuneConfig(steps=30, batch=8, lr=3e-2))
    before = {name: values.clone() for name, values in tiny_clip.clip.state_dict().items()}
    draw = Draw(number=0, family=family, class_names=("cat", "dog"), seed=1)
    tuned, share = tune_reference(tiny_clip, draw, Greys())
    assert tuned.prompt.family == family
    images, labels = Greys().take((), 0)
    with torch.no_grad():
        right = [int(row.argmax()) == label for row, label in zip(tuned(images), labels.tolist(), strict=True)]
    assert share == sum(right) / 32 == 1.0
    assert tune_reference(tiny_clip, draw, Greys(meant=False))[1] == 0.5
    assert all(torch.equal(values, before[name]) for name, values in tiny_clip.clip.state_dict().items())


class Counting:
    """A check whose statistic follows from the classes, and which counts how often it is run."""

    name = "counting"
    least_classes = least_alone = 2

    def __init__(self, fail_at: int | None = None) -> None:
        self.seen: list[tuple[str, ...]] = []
        self.fail_at = fail_at

    def run(self, subject: Any, probes: torch.Tensor, run: Run) -> Any:
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(subject.candidates)
        assert subject.reference is not None
        return SimpleNamespace(statistic=sum(map(len, subject.candidates)) + run.seed / 3)


@pytest.fixture
def make(tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Reference], str]]:
    monkeypatch.setattr(references, "tune_reference", _untuned)

    def make(check: Any, count: int, run: Run, beyond: Any = None) -> tuple[list[Reference], str]:
        return make_references(tiny_clip, check, torch.rand(4, 3, 32, 32), Greys(), RECIPE, count, run, beyond=beyond)

    return make


def _untuned(base: ClipModel, draw: Draw, _: Any) -> Any:
    from clipvet.models.prompts import PromptedClassifier
    from clipvet.models.zeroshot import HandWritten

    return PromptedClassifier(base, HandWritten(base, draw.class_names), draw.class_names).freeze(), draw.number / 10


def test_each_reference_is_checked_once_and_kept_in_order(make: Callable[..., tuple[list[Reference], str]]) -> None:
    check = Counting()
    made, unfinished = make(check, 4, quiet_run(seed=2))
    assert unfinished == ""
    assert [one.draw for one in made] == [RECIPE.draw(number) for number in range(4)]
    assert check.seen == [one.draw.class_names for one in made]
    assert [one.statistic for one in made] == [sum(map(len, one.draw.class_names)) + 2 / 3 for one in made]
    assert [one.accuracy for one in made] == [0.0, 0.1, 0.2, 0.3]


def test_an_interrupted_run_goes_on_where_it_stopped(make: Callable[..., tuple[list[Reference], str]], tmp_path: Path) -> None:
    whole, _ = make(Counting(), 5, quiet_run(seed=2))
    with pytest.raises(KeyboardInterrupt):
        make(Counting(fail_at=2), 5, quiet_run(seed=2, journal=Journal(tmp_path, identity={}, resume=False)))
    check = Counting()
    resumed, _ = make(check, 5, quiet_run(seed=2, journal=Journal(tmp_path, identity={}, resume=True)))
    assert resumed == whole
    assert len(check.seen) == 3
    more, _ = make(Counting(), 6, quiet_run(seed=2, journal=Journal(tmp_path, identity={}, resume=True)))
    assert more[:5] == whole


@dataclass(frozen=True, kw_only=True)
class Beyond(FeatureCollapse):
    """A check without classes whose statistic follows from the prompt's class names and its own settings."""

    def run(self, subject: Any, probes: torch.Tensor, run: Run) -> Any:
        return SimpleNamespace(statistic=self.steps * len("".join(subject.candidates)) + run.seed / 7)


def beyond_of(number: int, *, steps: int, seed: int) -> float | None:
    """The statistic of :class:`Beyond`, none where the family leaves the image tower alone."""
    draw = RECIPE.draw(number)
    return None if draw.family == "coop" else steps * len("".join(draw.class_names)) + seed / 7


def test_the_check_without_classes_sees_those_that_change_the_image_tower(make: Callable[..., tuple[list[Reference], str]]) -> None:
    made, _ = make(Counting(), 8, quiet_run(seed=2), Beyond(steps=3))
    assert [one.beyond for one in made] == [beyond_of(number, steps=3, seed=2) for number in range(8)]
    assert {one.draw.family for one in made} == {"coop", "vpt"}
    assert [one.statistic for one in made] == [one.statistic for one in make(Counting(), 8, quiet_run(seed=2))[0]]
    assert [one.beyond for one in make(Counting(), 8, quiet_run(seed=2))[0]] == [None] * 8


def test_a_kept_reference_that_lacks_the_second_number_is_made_anew(make: Callable[..., tuple[list[Reference], str]]) -> None:
    """Those of earlier versions lack it, and so do those that were measured with other settings."""
    run = quiet_run(seed=2, journal=MemoryJournal())
    make(Counting(), 6, run)
    moved = [number for number in range(6) if RECIPE.draw(number).family == "vpt"]
    for steps in (3, 4):
        again, spared = Counting(), Counting()
        made, unfinished = make(again, 6, run, Beyond(steps=steps))
        assert [one.beyond for one in made] == [beyond_of(number, steps=steps, seed=2) for number in range(6)]
        assert again.seen == [RECIPE.draw(number).class_names for number in moved]
        assert make(spared, 6, run, Beyond(steps=steps)) == (made, unfinished)
        assert spared.seen == []


def test_a_budget_ends_between_two_references(make: Callable[..., tuple[list[Reference], str]]) -> None:
    left = iter(range(2))

    def clock() -> None:
        if next(left, None) is None:
            raise OutOfBudget("the budget was used up")

    shown: list[tuple[str, int, int]] = []
    run = Run(seed=0, journal=MemoryJournal(), clock=clock, progress=lambda *state: shown.append(state))
    made, unfinished = make(Counting(), 5, run)
    assert (len(made), unfinished) == (2, "the budget was used up")
    assert shown == [("references", 0, 5), ("references", 1, 5), ("references", 2, 5)]
