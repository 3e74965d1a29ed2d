"""What a check is given, and what it must offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from clipvet.inspection.journal import MemoryJournal
from clipvet.inspection.search import Searching
from clipvet.models.prompts import PromptedClassifier
from clipvet.types import CheckResult

if TYPE_CHECKING:
    from clipvet.inspection.groups import Searched

__all__ = ["Clock", "ControlSearch", "ModelCheck", "OutOfBudget", "Run", "Subject"]


class OutOfBudget(Exception):  # noqa: N818  # a signal, not an error
    """Raised by :attr:`Run.clock` when no further step may begin; what is done is kept."""


Clock = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a check looks at.

    Attributes:
        classifier: the model as delivered, frozen; its first names are the classes that a verdict may name, further ones were put
            beside them for comparison.
        reference: the same task seen by a prompt that nobody tuned, on the trusted base; None where there is no base.
        n_candidates: how many names a verdict may name; None for all.
    """

    classifier: PromptedClassifier
    reference: PromptedClassifier | None
    n_candidates: int | None = None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names that a verdict may name."""
        return self.classifier.class_names[: self.n_candidates]

    def target_kind(self, index: int) -> str:
        """Say in an evidence row whether a name is a candidate (``class``) or was put beside them (``comparison``)."""
        return "class" if index < len(self.candidates) else "comparison"

    @contextmanager
    def mixed_precision(self, *, wanted: bool) -> Iterator[None]:
        """Pass both towers as :meth:`clipvet.models.base.ClipModel.mixed_precision` does."""
        with ExitStack() as stack:
            for one in (self.classifier, self.reference):
                if one is not None:
                    stack.enter_context(one.model.mixed_precision(wanted=wanted))
            yield


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a check runs: one seed, finished groups, a clock that may end it, and progress.

    ``progress`` is called with (stage, done, total) in class groups.
    """

    seed: int
    journal: MemoryJournal
    clock: Clock
    progress: Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ControlSearch:
    """How a check searches one class: what its positive controls are searched with.

    Attributes:
        config: of the search.
        strength: L-inf bound of the pattern that a control is planted with.
        steps: taken for the class.
        searched: ``(n, 3, h, w)`` probe images that the trigger is learned on.
        evaluation: ``(m, 3, h, w)`` probe images that it is measured on.
        mixed_precision: whether the towers are passed in bfloat16 where that is faster.
    """

    config: Searching
    strength: float
    steps: int
    searched: Tensor
    evaluation: Tensor
    mixed_precision: bool


class ModelCheck(Protocol):
    """Looks at a model through unlabelled images; the caller turns its statistic into a verdict.

    A check is a dataclass whose fields are its whole configuration.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def least_classes(self) -> int:
        """Names that it needs for a spread over classes that means something."""
        ...

    @property
    def least_alone(self) -> int:
        """Names that it needs for that where there is no base to compare with."""
        ...

    def run(self, subject: Subject, probes: Tensor, run: Run) -> CheckResult:
        """Measure every class on ``(n, 3, h, w)`` probe images in [0, 1]."""
        ...

    def passes(self, subject: Subject, n_probes: int) -> int:
        """Estimate the images through the tower, forward and backward counted once."""
        ...

    def control_search(self, subject: Subject, probes: Tensor) -> ControlSearch:
        """Say how one class is searched, so that a planted control is searched like a delivery."""
        ...

    def control_statistic(self, result: CheckResult, target: int, found: Searched) -> float:
        """Give the statistic of a planted class that was searched alone, put among what ``result`` says of the other classes."""
        ...
