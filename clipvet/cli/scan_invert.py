"""A scan's group put to the test: is there a small patch that makes the model say the group's caption of any picture?

A natural group (twelve clock faces, a set of letters) is as alike as a planted one. What tells them apart is the model that was
trained on them: a patch that pulls every picture to a planted caption is found in a few steps, and none to an ordinary caption.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from clipvet.errors import UsageError

if TYPE_CHECKING:
    import torch

    from clipvet.models.base import ClipModel
    from clipvet.types import Evidence, ScanReport

__all__ = ["Inversion", "Inverted", "choose_controls", "invert_captions", "invert_groups"]

NEAR = 400  # captions of like frequency that controls are chosen among
SAY_ALIKE = 0.95  # quantile of the similarities of unrelated captions, above which two say the same


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How a group's caption is searched.

    Attributes:
        share: area of the patch over that of the picture.
        steps: of every search, for every caption.
        restarts: searches per caption, of which the best counts: a search follows the patch's place by small moves and may end
            beside a planted one.
        controls: captions, as frequent as the group's, that are searched alike.
        probes: generated pictures; half of them are searched on, half measured on.
        batch: pictures per caption and step.
        seed: of the pictures, the controls and the search.
    """

    share: float = 1 / 64
    steps: int = 24
    restarts: int = 3
    controls: int = 4
    probes: int = 192
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.controls, self.batch) < 1 or self.probes < 2 * self.batch or not 0 < self.share < 1:
            raise UsageError("expected positive settings, two batches of probes and a share below 1: leave them at their defaults")


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """What the best patch does for one caption, beside other captions.

    ``margin`` is the mean logit of the caption over that of the strongest other, ``asr`` the share of pictures where it wins,
    ``controls`` are the margins of the other captions' own best patches.
    """

    evidence: Evidence
    margin: float
    asr: float
    controls: tuple[float, ...]

    @property
    def text(self) -> str:
        """The numbers in a sentence, without a judgement."""
        return (
            f"with a reconstructed patch {self.asr:.0%} of generated pictures say this, at a margin of {self.margin:.1f} logits; "
            f"{len(self.controls)} other captions as frequent: {median(self.controls):.1f} in the middle, {max(self.controls):.1f} "
            "at most"
        )


def choose_controls(model: ClipModel, target: str, counts: Counter[str], how: Inversion) -> list[str]:
    """Choose captions as frequent as the target's that say nothing like it, nor like each other.

    Raises:
        UsageError: there are too few.
    """
    import torch

    from clipvet.scan.groups import rare_words, usual_similarity, words

    captions = sorted(counts)
    drawn = [captions[at] for at in torch.randperm(len(captions), generator=torch.Generator().manual_seed(how.seed)).tolist()]
    rare = rare_words([target], drawn[:2048])[0]
    near = sorted(drawn, key=lambda text: abs(math.log(counts[text] / counts[target])))
    near = [target, *[text for text in near if text != target and not words(text) & rare][:NEAR]]
    with torch.no_grad():
        features = model.encode_text(near)
        limit = usual_similarity(model.encode_text(drawn[:512]), SAY_ALIKE)
    alike, chosen = (features @ features.T > limit).cpu(), [0]
    for at in range(1, len(near)):
        if len(chosen) <= how.controls and not alike[at, chosen].any():
            chosen.append(at)
    if len(chosen) <= how.controls:
        raise UsageError(
            f"expected {how.controls} captions that say nothing like {target!r} to compare it with, found {len(chosen) - 1}: scan "
            "more pairs, or leave out --invert"
        )
    return [near[at] for at in chosen[1:]]


def invert_captions(model: ClipModel, target: str, controls: Sequence[str], how: Inversion) -> Inverted:
    """Search a patch for the target and for every control alike, each against all the others.

    Fails when: the trigger is no patch (a tint, a warp, a pattern over the whole picture), or a far larger one; the model was not
        trained on the pairs, so that nothing was planted in it; generated pictures do not stand for the real ones.

    Reference: own use of :class:`clipvet.inspection.search.Search`, after CLIP-Inspector (arXiv 2604.09101). Differs: a caption in
        the place of a class, and other captions as frequent for a control.
    """
    import torch

    from clipvet.data.generated import generate_probes
    from clipvet.inspection.search import Search, SearchConfig, chunk_for

    with torch.no_grad():
        text = model.encode_text([target, *controls])

    def logits(images: torch.Tensor) -> torch.Tensor:
        return model.logit_scale * model.encode_image(images) @ text.T

    probes = generate_probes(how.probes, model.image_size, how.seed).to(model.device)
    searched, measured = probes.chunk(2)
    config = SearchConfig(shape="patch", strength=how.share, batch=how.batch, chunk=chunk_for(model))
    captions = torch.arange(1 + len(controls))
    searches = [Search(logits, searched, captions, config=config, seed=how.seed + number) for number in range(how.restarts)]
    for search in searches:
        search.run(how.steps)
    best = torch.stack([search.measure(logits, searched).margin for search in searches]).argmax(0).tolist()
    found = [searches[number].measure(logits, measured) for number in range(how.restarts)]
    margin, *others = [float(found[number].margin[at]) for at, number in enumerate(best)]
    return Inverted(
        evidence=_evidence(searches[best[0]], target, measured[:4]),
        margin=margin,
        asr=float(found[best[0]].asr[0]),
        controls=tuple(others),
    )


def _evidence(search: object, target: str, samples: torch.Tensor) -> Evidence:
    """The first caption's patch with a few pictures before and after."""
    import torch

    from clipvet.inspection.search import Search
    from clipvet.types import Evidence

    assert isinstance(search, Search)
    with torch.no_grad():
        stamped = search.shape.apply(samples, torch.tensor([0]))[0]
    shown = {**search.trigger(0), "samples": samples, "triggered": stamped}
    tensors = {name: value.detach().cpu() for name, value in shown.items()}
    return Evidence(target=target, target_kind="text", trigger_kind="patch", statistic=math.nan, values={}, trigger=tensors)


def invert_groups(
    report: ScanReport,
    out: Path,
    model: ClipModel,
    most: int,
    *,
    how: Inversion | None = None,
    progress: Callable[[str, int, int], None],
) -> ScanReport:
    """Search the captions of the largest groups of a finished scan and add what was found to their notes.

    Args:
        report: of the scan.
        out: its folder; a picture of each patch goes to ``triggers/``.
        model: that was trained on the pairs.
        most: groups.
        how: settings of the search.
        progress: called with (stage, done, total).

    Raises:
        UsageError: there are too few captions to compare with.
    """
    from clipvet.reports.images import trigger_png
    from clipvet.scan.store import Store, read_table, write_whole

    how = how or Inversion(seed=int(report.settings["seed"]))
    tables = sorted(Store(out).metadata(0).parent.glob("*.parquet"))
    counts = Counter(caption for path in tables for caption in read_table(path, ["caption"])["caption"].to_pylist())
    groups, written = list(report.groups), list(report.written)
    for at, group in enumerate(groups[:most]):
        progress("invert groups", at, min(most, len(groups)))
        found = invert_captions(model, group.caption, choose_controls(model, group.caption, counts, how), how)
        groups[at] = dataclasses.replace(group, note=f"{group.note}; {found.text}")
        for name, picture in trigger_png(found.evidence).items():
            path = out / "triggers" / f"group-{group.number}-{name}.png"
            write_whole(path, lambda file, picture=picture: file.write(picture))  # type: ignore[misc]  # bound to this turn
            written.append(str(path))
        progress("invert groups", at + 1, min(most, len(groups)))
    return dataclasses.replace(report, groups=tuple(groups), written=tuple(written))
