"""Text that a delivery controls, made harmless to show, and numbers made readable."""

from __future__ import annotations

import math
import unicodedata

__all__ = ["bytes_text", "duration", "label", "named", "number", "shorten", "value_text", "visible", "writable"]

_LABELS = {
    "asr": "reconstructed ASR",
    "margin": "margin",
    "baseline_margin": "hand-written margin",
    "final_loss": "final loss",
    "anomaly_index": "anomaly index",
}
# Cc: terminal escapes; Cf: bidirectional overrides and zero-width marks; Cs: undecodable bytes of a path; Zl, Zp: line breaks.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co"})
_JOINER = "\u200d"  # holds an emoji sequence together and moves nothing


def writable(text: str) -> str:
    """Return the text with lone surrogates (undecodable bytes of a path) spelled out, so that it encodes as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """Return the text on one line, with every character spelled out that a screen would obey instead of show."""
    return "".join(
        char if char == _JOINER or unicodedata.category(char) not in _HIDDEN else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def named(text: str) -> str:
    """Return the visible text of a name; a blank one in quotation marks, since it would otherwise not be seen at all."""
    return visible(text) if text.strip() else f'"{visible(text)}"'


def shorten(text: str, limit: int) -> str:
    """Return the visible name, cut in the middle to ``limit`` columns: the end of a path or name tells it from others."""
    shown = named(text)
    if _columns(shown) <= limit:
        return shown
    head = (limit - 1) * 2 // 3
    return f"{_first(shown, head)}…{_first(shown[::-1], limit - 1 - head)[::-1]}"


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _first(text: str, limit: int) -> str:
    """Return as many characters as fit in ``limit`` columns."""
    kept = text[:limit]
    while _columns(kept) > limit:
        kept = kept[:-1]
    return kept


def number(value: float | None) -> str:
    """Return two decimals, three significant digits of a small number, or ``not measured`` for a missing one."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.2f}" if size >= 0.1 or not size else f"{value:.3g}"
    return f"−{text[1:]}" if text.startswith("-") else text


def value_text(name: str, value: float | None) -> str:
    """Return a named number as a reader expects it: attack success rates in per cent, all others as they are."""
    if name.startswith("asr") and value is not None and math.isfinite(value):
        return f"{100 * value:.1f} %"
    return number(value)


def label(name: str) -> str:
    """Return the words for the name of a number."""
    return _LABELS.get(name) or visible(name.replace("_", " ").replace("asr", "ASR"))


def bytes_text(size: int) -> str:
    """Return a file size in the unit that leaves one to three digits before the point."""
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration in the one or two units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
