"""Search class by class group, each finished group recorded, so that neither order, resume nor grouping changes a result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipvet.inspection.base import ControlSearch, Run, Subject
from clipvet.inspection.search import Logits, Search, Searching

__all__ = ["Searched", "search_classes", "search_groups"]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The outcome for ``k`` classes: what was measured, each ``(k,)``, and the triggers' free variables, ``(k, ...)``."""

    targets: Tensor
    loss: Tensor
    margin: Tensor
    asr: Tensor
    transferred: Tensor
    variables: dict[str, Tensor]

    def at(self, target: int) -> int:
        """Position of a class; raises ValueError for one that was not searched."""
        return self.targets.tolist().index(target)


def search_groups(
    logits: Logits,
    other: Logits | None,
    probes: Tensor,
    evaluation: Tensor,
    targets: Tensor,
    *,
    config: Searching,
    steps: int,
    stage: str,
    run: Run,
    start: Searched | None = None,
    candidates: int | None = None,
    group: int = 8,
) -> Searched:
    """Search a trigger for every target and measure it on images that the search did not see.

    Args:
        logits: the classifier that is searched.
        other: another classifier that the same triggers are put before (``transferred`` margins), or None.
        probes: ``(n, 3, h, w)``, images of the search.
        evaluation: ``(m, 3, h, w)``, images that the result is measured on.
        targets: ``(k,)`` classes.
        config: the search.
        steps: steps per class.
        stage: names the journal's keys and the progress; must tell apart what differs in classifier or configuration.
        run: seed, journal, clock and progress.
        candidates: see :class:`clipvet.inspection.search.Search`.
        start: an earlier stage whose triggers are taken up.
        group: classes between two records.
    """
    parts = []
    chunks = targets.split(group)
    run.progress(stage, 0, len(chunks))
    for number, part in enumerate(chunks):
        key = f"{stage}/{','.join(map(str, part.tolist()))}"
        found = run.journal.get(key)
        if found is None:
            run.clock()
            search = config.begin(logits, probes, part, seed=run.seed, candidates=candidates)
            found = _found(search, other, evaluation, steps, start)
            run.journal.put(key, found)
        parts.append(found)
        run.progress(stage, number + 1, len(chunks))
    merged = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    variables = {name.removeprefix("variable."): merged.pop(name) for name in list(merged) if name.startswith("variable.")}
    return Searched(targets=targets, variables=variables, **merged)


def search_classes(subject: Subject, how: ControlSearch, *, stage: str, run: Run) -> Searched:
    """Search every class of a delivery alike; see :func:`search_groups`."""
    with subject.mixed_precision(wanted=how.mixed_precision):
        return search_groups(
            subject.classifier,
            None,
            how.searched,
            how.evaluation,
            torch.arange(len(subject.classifier.class_names)),
            config=how.config,
            steps=how.steps,
            stage=stage,
            run=run,
            candidates=subject.n_candidates,
        )


def _found(search: Search, other: Logits | None, evaluation: Tensor, steps: int, start: Searched | None) -> dict[str, Tensor]:
    """Take a group's steps and measure what came of them; the tensors that are recorded are on the CPU."""
    if start is not None:
        search.load({n: v[[start.at(t) for t in search.targets.tolist()]] for n, v in start.variables.items()})
    search.run(steps)
    own = search.measure(search.logits, evaluation)
    transferred = search.measure(other, evaluation).margin if other is not None else torch.full_like(own.margin, float("nan"))
    variables = {f"variable.{name}": value for name, value in search.shape.state().items()}
    found = {"loss": search.last_loss, "margin": own.margin, "asr": own.asr, "transferred": transferred, **variables}
    return {name: value.cpu() for name, value in found.items()}
