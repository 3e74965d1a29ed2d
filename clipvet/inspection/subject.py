"""From an opened delivery to what a check can look at: the untuned twin, and names beside a short list of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clipvet.errors import UsageError
from clipvet.inspection.base import Subject
from clipvet.models.base import ClipModel
from clipvet.models.families import prompt_from_tensors
from clipvet.models.prompts import Prompt, PromptedClassifier
from clipvet.models.zeroshot import HandWritten

__all__ = ["CONCEPTS", "LEAST_CLASSES", "subject_of", "with_more_names"]

LEAST_CLASSES = 10  # fewer give a spread over classes that means little
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


def subject_of(classifier: PromptedClassifier, base: ClipModel | None) -> tuple[Subject, str]:
    """Build what a check is given.

    Where the delivery has fewer than :data:`LEAST_CLASSES` classes, common names are put beside them, if its prompt can speak
    about names that it was not tuned on. Where a whole model comes without a base, all of :data:`CONCEPTS` are put beside them.

    Args:
        classifier: the delivery.
        base: the trusted base; None leaves the subject without a reference.

    Returns:
        The subject and a note, empty where nothing was added.
    """
    names, note = classifier.class_names, ""
    if base is None and isinstance(classifier.prompt, HandWritten):
        taken = {name.lower() for name in names}
        more = [concept for concept in CONCEPTS if concept not in taken]
        note = f"No base was named: {len(more)} common names within the model are what the {len(names)} classes are compared with."
        return Subject(classifier=with_more_names(classifier, more), reference=None), note
    if len(names) < LEAST_CLASSES:
        taken = {name.lower() for name in names}
        added = [c for c in CONCEPTS if c not in taken][:: max(1, len(CONCEPTS) // (2 * LEAST_CLASSES))]
        more = added[: 2 * LEAST_CLASSES - len(names)]
        try:
            classifier = with_more_names(classifier, more)
        except UsageError as error:
            note = f"{len(names)} classes leave little to compare with, and no names could be put beside them: {error}"
        else:
            note = f"{len(more)} common names were put beside the {len(names)} classes, to have something to compare them with."
    reference = None
    if base is not None:
        reference = PromptedClassifier(base, HandWritten(base, classifier.class_names, TEMPLATES), classifier.class_names).freeze()
    return Subject(classifier=classifier, reference=reference), note


def with_more_names(classifier: PromptedClassifier, more: Sequence[str]) -> PromptedClassifier:
    """Return the same prompt over more class names.

    Raises:
        UsageError: the learned part is bound to its classes, or the texts around the names are not known.
    """
    names = (*classifier.class_names, *more)
    prompt, model = classifier.prompt, classifier.model
    if isinstance(prompt, HandWritten):
        return PromptedClassifier(model, HandWritten(model, names, prompt.templates), names).freeze()
    learned: dict[str, Tensor] = {k: v for k, v in prompt.state().items() if not k.endswith(("token_prefix", "token_suffix"))}
    position, wording = getattr(prompt, "position", "end"), _wording(prompt)
    wider = prompt_from_tensors(prompt.family, learned, model, names, position=position, wording=wording)
    some = F.normalize(torch.ones(1, model.embed_dim, device=model.device), dim=-1)
    kept = torch.arange(len(classifier.class_names), device=model.device)
    with torch.no_grad():
        before, after = prompt.text_features(model, some), wider.text_features(model, some, classes=kept)
    if float(F.cosine_similarity(before, after, dim=-1).min()) < SAME_TEXT:
        raise UsageError("the text around the class names is not known, so that other names cannot be put in it")
    return PromptedClassifier(model, wider, names).freeze()


def _wording(prompt: Prompt) -> str:
    texts = getattr(prompt, "texts", None)  # VPT's hand-written ones
    return str(texts.templates[0]) if isinstance(texts, HandWritten) else str(getattr(prompt.tokens, "wording", ""))
