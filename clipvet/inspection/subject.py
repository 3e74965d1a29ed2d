"""From an opened delivery to what a check can look at: the untuned twin, and names beside a short list of classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import ModelCheck, Subject
from clipvet.models.base import ClipModel
from clipvet.models.families import prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import wording_of
from clipvet.models.zeroshot import HandWritten

__all__ = ["CONCEPTS", "subject_of", "with_more_names", "with_names"]

SAME_TEXT = 0.9999  # cosine; embeddings rounded to fp16 stay above it, another wording falls below
TEMPLATES = ("a photo of a {}.", "{}.", "a picture of a {}.")

_WORDS = """
airplane apple backpack banana basket bear bed bell bench bicycle bird boat book bottle bread bridge bus butterfly button cake
camera candle car carrot castle cat chair cheese cherry church clock cloud coat coffee coin computer cow crab crown cup desk dog
dolphin door dress drum duck eagle ear egg elephant envelope eye face factory feather fire fish flag flower fork fox frog garden
giraffe glass glove goat grape guitar hammer hand hat heart helicopter horse hospital house ice iron island jacket jar key kite
knife ladder lamp leaf lemon lion lock map mask moon mountain mouse mushroom nail necklace needle nest nose notebook nut ocean
octopus onion orange owl paint pan panda paper parrot pen pencil piano pig pillow pizza plate plum potato pumpkin rabbit radio
rain ring river road robot rocket roof rope rose ruler sandwich saw scarf school scissors sheep shell ship shirt shoe shower
skirt sky snail snake snow soap sock sofa spider spoon star stone strawberry suitcase sun swan sword table telephone television
tent tiger tomato tooth tower toy tractor train tree truck trumpet turtle umbrella vase violin volcano wallet watch watermelon
whale wheel window wine wolf zebra
"""
CONCEPTS = tuple(_WORDS.split())


def subject_of(classifier: PromptedClassifier, base: ClipModel | None, check: ModelCheck) -> tuple[Subject, str]:
    """Build what a check is given.

    Where the delivery has fewer classes than the check needs, common names are put beside them, if its prompt can speak about names
    that it was not tuned on. A verdict may rest on the classes only; in a whole model without a base, on any of the names.

    Args:
        classifier: the delivery.
        base: the trusted base; None leaves the subject without a reference.
        check: says how many names it needs.

    Returns:
        The subject and a note, empty where nothing was added.
    """
    names, note = classifier.class_names, ""
    least = check.least_classes if base is not None else check.least_alone
    if len(names) < least:
        words = {word for name in names for word in re.split(r"[\W_]+", name.lower())}
        known = [concept for concept in CONCEPTS if concept not in words]
        count = min(least - len(names), len(known))
        try:
            classifier = with_more_names(classifier, [known[number * len(known) // count] for number in range(count)])
        except UsageError as error:
            note = f"{len(names)} classes leave little to compare with, and no names could be put beside them: {error}"
        else:
            note = f"{count} common names were put beside the {len(names)} classes, to have something to compare them with."
    if base is None:
        return Subject(classifier=classifier, reference=None), note
    reference = PromptedClassifier(base, HandWritten(base, classifier.class_names, TEMPLATES), classifier.class_names).freeze()
    return Subject(classifier=classifier, reference=reference, n_candidates=len(names)), note


def with_names(classifier: PromptedClassifier, names: Sequence[str]) -> PromptedClassifier:
    """Return the same prompt over these class names.

    Raises:
        UsageError: the learned part is bound to its classes.
    """
    prompt, model = classifier.prompt, classifier.model
    if isinstance(prompt, HandWritten):
        return PromptedClassifier(model, HandWritten(model, names, prompt.templates), names).freeze()
    learned: dict[str, Tensor] = {k: v for k, v in prompt.state().items() if not k.endswith(("token_prefix", "token_suffix"))}
    position, wording = getattr(prompt, "position", "end"), wording_of(prompt)
    changed = prompt_from_tensors(prompt.family, learned, model, names, position=position, wording=wording)
    return PromptedClassifier(model, changed, names).freeze()


def with_more_names(classifier: PromptedClassifier, more: Sequence[str]) -> PromptedClassifier:
    """Return the same prompt over more class names.

    Raises:
        UsageError: the learned part is bound to its classes, or the texts around the names are not known.
    """
    wider, model = with_names(classifier, (*classifier.class_names, *more)), classifier.model
    if isinstance(wider.prompt, HandWritten):
        return wider
    some = F.normalize(torch.ones(1, model.embed_dim, device=model.device), dim=-1)
    kept = torch.arange(len(classifier.class_names), device=model.device)
    with torch.no_grad():
        before, after = classifier.prompt.text_features(model, some), wider.prompt.text_features(model, some, classes=kept)
    if float(F.cosine_similarity(before, after, dim=-1).min()) < SAME_TEXT:
        raise UsageError("the text around the class names is not known, so that other names cannot be put in it")
    return wider
