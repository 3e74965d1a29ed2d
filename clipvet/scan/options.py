"""What a person may state about a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clipvet.errors import UsageError
from clipvet.scan import ALL_SCORERS, PIXEL_SCORERS, SCORERS, TRUSTED_SCORERS
from clipvet.scan.base import PairScorer, PixelScorer
from clipvet.scan.official_code import OFFICIAL

__all__ = ["ScanOptions", "build_scorers", "neighbours_for"]

PRESETS = ("default", "official-code")
BATCH = 2048  # pairs in a batch of the published method
MARGIN = 4.5  # neighbours per poisoned pair of one kind that the reference may hold; measured in benchmarks/scan_pocket.py
ENGINES = ("local", "ray")
DEFAULT = {"default": ("slof-dense",), "official-code": ("dao",)}
DEFAULT_OF_TWO = ("slof-dense+clip-gap", "slof-dense", "clip-gap")  # with a trusted model; the parts stand beside their sum


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What a person may state about a scan.

    Attributes:
        out: folder of everything that is kept; the same command in the same folder goes on where it stopped.
        model: the CLIP that encodes the pairs, as :func:`clipvet.models.bases.load_base` reads it; None where the source holds
            features.
        trusted_model: a CLIP, read likewise, that was not trained on the pairs, for scorers that compare two models; None for none.
        scorers: names out of :data:`clipvet.scan.ALL_SCORERS`; the first one ranks and flags. Empty for ``slof-dense``, or with
            a trusted model ``slof-dense+clip-gap`` and its parts; ``dao`` with the preset of the published code.
        preset: ``default``, or ``official-code`` for SLOF and DAO as the published code computes them, each batch of 2,048 among
            itself.
        k: neighbours; None for 4.5 times the poisoned pairs of one kind that the reference may hold, and at least what a scorer
            has by default.
        modality: features that neighbourhood scorers compare: image, text or both; None for their default.
        reference: pairs in the random sample that pairs are compared with.
        batches: compare every 2,048 pairs with as many of the reference, drawn for them alone, as published.
        clean: a trusted set that serves as the reference and sets the threshold.
        flag_rate: share of the pairs that is flagged, or of clean pairs at most, where there is a trusted set.
        poison_rate: largest share of poisoned pairs of one kind that the scan should withstand: with the size of the reference it
            sets ``k``.
        least_group: flagged pairs that must be alike for a verdict of suspicious: smaller groups are shown, and rare subjects make
            such groups in any data.
        image_col: column or member with the image.
        caption_col: column or member with the caption.
        id_col: column or member with the key.
        gallery: how many of the worst pairs are shown with pictures.
        seed: the one seed of everything random.
        batch: images per pass of the encoder.
        workers: processes; each takes a shard at a time.
        engine: ``local`` for processes of this machine, or ``ray`` for workers on a cluster, all of whose machines must see
            ``out``; see :func:`clipvet.scan.on_ray.run_on_ray`.
        device: torch device.
        quick_gelu: overrides what the model's file says about its activation; the trusted model's is what its own file says.

    Raises:
        UsageError: a value is outside what is understood.
    """

    out: Path
    model: str | None = None
    trusted_model: str | None = None
    scorers: tuple[str, ...] = ()
    preset: str = "default"
    k: int | None = None
    modality: str | None = None
    reference: int = 8192
    batches: bool = False
    clean: tuple[str, ...] = ()
    flag_rate: float = 0.01
    poison_rate: float = 0.01
    least_group: int = 10
    image_col: str | None = None
    caption_col: str | None = None
    id_col: str | None = None
    gallery: int = 100
    seed: int = 0
    batch: int = 64
    workers: int = 1
    engine: str = "local"
    device: str = "cpu"
    quick_gelu: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.flag_rate < 1 or not 0 < self.poison_rate < 1:
            raise UsageError(f"expected rates between 0 and 1, got flag rate {self.flag_rate} and poison rate {self.poison_rate}")
        if min(self.reference, self.batch, self.workers, self.least_group) < 1 or self.gallery < 0:
            raise UsageError("expected at least one pair in the reference and in a group, one image in a batch and one worker")
        if self.preset not in PRESETS:
            raise UsageError(f"expected a preset out of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.engine not in ENGINES:
            raise UsageError(f"expected an engine out of {', '.join(ENGINES)}, got {self.engine!r}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"expected a seed from 0 to 2**32 - 1, got {self.seed}: choose another")
        if self.batches and self.reference <= BATCH:
            raise UsageError(
                f"expected a --reference above {BATCH:,} with --batches, drawn from it, got {self.reference:,}: raise it"
            )
        if self.k is None and self.poison_rate * MARGIN >= 1 and not self.clean:
            raise UsageError(
                f"expected a poison rate below {1 / MARGIN:.2g}, got {self.poison_rate:g}: so much of one kind is no outlier in "
                "the data; give a trusted set with --clean, or a --k of your own"
            )
        if not self.scorers:
            two = self.trusted_model is not None and self.preset == "default"
            object.__setattr__(self, "scorers", DEFAULT_OF_TWO if two else DEFAULT[self.preset])
        build_scorers(self)
        _check_trusted(self)

    @property
    def compared(self) -> int:
        """Pairs that each pair is compared with."""
        return min(BATCH, self.reference) if self.batches else self.reference

    @property
    def poison_expected(self) -> float:
        """Poisoned pairs of one kind that these hold at most, if the rate is as stated; a trusted set holds none."""
        return 0.0 if self.clean else self.poison_rate * self.compared


def neighbours_for(expected: float) -> int:
    """How many neighbours to look at where a random reference holds so many poisoned pairs of one kind on average.

    A few times what it may hold by chance: the mean and three standard deviations (Poisson).
    """
    return math.ceil(MARGIN * (expected + 3 * math.sqrt(expected)))


def _check_trusted(options: ScanOptions) -> None:
    if options.trusted_model is not None and options.preset == "official-code":
        raise UsageError(
            "expected no --trusted-model with --preset official-code, which looks at one model's features, got both: leave one out"
        )
    asking = [name for name in options.scorers if name in TRUSTED_SCORERS]
    if asking and options.trusted_model is None:
        raise UsageError(
            f"expected --trusted-model with {asking[0]}, got none: name a CLIP that was not trained on these pairs, or choose "
            "another scorer"
        )
    if options.trusted_model is not None and not asking:
        raise UsageError(
            f"expected a scorer out of {', '.join(TRUSTED_SCORERS)} with --trusted-model, got {', '.join(options.scorers)}: add "
            "one, or leave the trusted model out"
        )


def build_scorers(options: ScanOptions) -> tuple[dict[str, PairScorer], dict[str, PixelScorer]]:
    """Build the scorers that were asked for, by name: those of features, and those of pixels.

    Raises:
        UsageError: a name is not known, stands twice, or a setting does not fit.
    """
    names = options.scorers
    unknown = [name for name in names if name not in ALL_SCORERS]
    if not names or unknown or len(set(names)) < len(names):
        found = repr(unknown[0]) if unknown else "none" if not names else "one twice"
        raise UsageError(f"expected scorers out of {', '.join(ALL_SCORERS)}, each once, got {found}")
    if options.preset == "official-code":
        if not set(names) <= set(OFFICIAL):
            raise UsageError(f"expected scorers out of {', '.join(OFFICIAL)} with this preset, got {', '.join(names)}")
        return {name: OFFICIAL[name](**_settings(OFFICIAL[name], options)) for name in names}, {}
    pair = {name: SCORERS[name](**_settings(SCORERS[name], options)) for name in names if name in SCORERS}
    return pair, {name: PIXEL_SCORERS[name]() for name in names if name in PIXEL_SCORERS}


def _settings(scorer: Any, options: ScanOptions) -> dict[str, Any]:
    """Those of the stated settings that a scorer has."""
    known: dict[str, Any] = {field.name: field.default for field in fields(scorer)}
    stated: dict[str, Any] = {"k": options.k, "modality": options.modality, "seed": options.seed}
    if options.k is None and "k" in known and options.preset == "default":
        stated["k"] = max(known["k"], neighbours_for(options.poison_expected))
    return {key: value for key, value in stated.items() if key in known and value is not None}
