"""Names are put beside a short list of classes where the prompt can speak about them, and a sentence says so where not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipvet.errors import UsageError
from clipvet.inspection import ClipInspector, MarginResidual
from clipvet.inspection.subject import CONCEPTS, subject_of, with_more_names
from clipvet.models.base import ClipModel
from clipvet.models.delivery import open_delivery
from clipvet.models.families import FAMILIES, new_prompt, prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.zeroshot import HandWritten

TWO = ("cat", "Red_Shirt")
CHECK = MarginResidual()
TEN = tuple(CONCEPTS[:10])
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def classifier(model: ClipModel, family: str, names: tuple[str, ...] = TWO, init: str = "a photo of a") -> PromptedClassifier:
    return PromptedClassifier(model, new_prompt(family, model, names, seed=3, init=init), names).freeze()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("init", ["a photo of a", ""])
def test_names_beside_two_classes_leave_the_two_as_they_were(tiny_clip: ClipModel, family: str, init: str) -> None:
    delivered = classifier(tiny_clip, family, init=init)
    subject, note = subject_of(delivered, tiny_clip, CHECK)
    names = subject.classifier.class_names
    assert names[:2] == subject.candidates == TWO
    assert [subject.target_kind(index) for index in (1, 2)] == ["class", "comparison"]
    assert len(names) == len(set(names)) == CHECK.least_classes
    assert not {"cat", "shirt"} & set(names[2:])  # nor a word of a longer name
    assert set(names[2:]) <= set(CONCEPTS)
    assert note == "18 common names were put beside the 2 classes, to have something to compare them with."
    with torch.no_grad():
        assert torch.allclose(subject.classifier(IMAGES)[:, :2], delivered(IMAGES), atol=1e-3)
    assert subject.reference is not None
    assert subject.reference.class_names == names
    assert isinstance(subject.reference.prompt, HandWritten)
    assert not any(p.requires_grad for p in subject.classifier.prompt.parameters())


@pytest.mark.parametrize("position", ["middle", "front"])
def test_the_class_name_stays_where_it_stood(tiny_clip: ClipModel, position: str) -> None:
    state = new_prompt("coop", tiny_clip, TWO, seed=1).state()
    prompt = prompt_from_tensors("coop", state, tiny_clip, TWO, position=position)
    delivered = PromptedClassifier(tiny_clip, prompt, TWO).freeze()
    wider = with_more_names(delivered, ["tree"])
    with torch.no_grad():
        assert torch.allclose(wider(IMAGES)[:, :2], delivered(IMAGES), atol=1e-3)


def test_a_saved_delivery_can_be_widened(tmp_path: Path, tiny_clip: ClipModel) -> None:
    save_delivery(tmp_path / "a.safetensors", classifier(tiny_clip, "maple"))
    opened = open_delivery(tmp_path / "a.safetensors", base=tiny_clip).classifier
    with torch.no_grad():
        assert torch.allclose(with_more_names(opened, ["tree"])(IMAGES)[:, :2], opened(IMAGES), atol=1e-3)


def test_enough_classes_are_left_alone(tiny_clip: ClipModel) -> None:
    delivered = classifier(tiny_clip, "coop", TEN)
    subject, note = subject_of(delivered, tiny_clip, ClipInspector())
    assert (subject.classifier, note) == (delivered, "")
    assert subject.candidates == TEN
    assert subject.reference is not None
    assert subject.reference.class_names == TEN


@pytest.mark.parametrize("names", [TWO, TEN])
def test_a_whole_model_without_a_base_is_compared_with_common_names(tiny_clip: ClipModel, names: tuple[str, ...]) -> None:
    subject, note = subject_of(classifier(tiny_clip, "zero-shot", names), None, CHECK)
    assert subject.reference is None
    found = subject.classifier.class_names
    assert found[: len(names)] == names
    assert len(found) == len(set(found)) >= 190
    assert subject.candidates == found  # an attacker of a whole model may have chosen any name
    assert note.startswith(f"{len(found) - len(names)} common names were put beside the {len(names)} classes")
    few, _ = subject_of(classifier(tiny_clip, "zero-shot", names), None, ClipInspector())
    assert len(few.classifier.class_names) == 10


def test_a_class_specific_context_cannot_speak_of_other_names(tiny_clip: ClipModel) -> None:
    state = new_prompt("coop", tiny_clip, TWO, seed=1).state()
    state["ctx"] = state["ctx"].expand(2, -1, -1).contiguous()
    prompt = prompt_from_tensors("coop", state, tiny_clip, TWO)
    delivered = PromptedClassifier(tiny_clip, prompt, TWO).freeze()
    with pytest.raises(UsageError, match="expected 2 class names for a class-specific context, got 3"):
        with_more_names(delivered, ["tree"])
    subject, note = subject_of(delivered, tiny_clip, CHECK)
    assert subject.classifier is delivered
    assert note.startswith("2 classes leave little to compare with, and no names could be put beside them: expected 2 class names")


def test_a_text_that_is_not_known_is_not_made_up(tiny_clip: ClipModel) -> None:
    """TCP's class features come from a sentence that is nowhere in the file."""
    state = new_prompt("tcp", tiny_clip, TWO, seed=1).state()
    state["meta_net.linear2.weight"] *= 3
    prompt = prompt_from_tensors("tcp", state, tiny_clip, TWO, feature_wording="an old satellite map of {} in the snow.")
    delivered = PromptedClassifier(tiny_clip, prompt, TWO).freeze()
    subject, note = subject_of(delivered, tiny_clip, CHECK)
    assert subject.classifier is delivered
    assert note.endswith("the text around the class names is not known, so that other names cannot be put in it")


def test_the_concepts_are_names_of_their_own() -> None:
    assert len(CONCEPTS) == len(set(CONCEPTS)) > 100
    assert all(name == name.strip().lower() for name in CONCEPTS)
