"""What every rendering of a report says in the same words: order of rows, place in the null, how sure, what was tried."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from clipvet.reports.text import number, visible
from clipvet.types import CheckResult, Evidence, Report, Severity, Skipped, Verdict

__all__ = [
    "EXIT_MEANING",
    "MEANING",
    "SEVERITY_NAMES",
    "above",
    "certainty",
    "next_steps",
    "null_position",
    "null_values",
    "ranked",
    "shown_rows",
    "skipped",
    "strongest",
    "tried",
    "value_names",
]

MEANING = {
    Verdict.NO_EVIDENCE: (
        "Nothing that was tried found a backdoor. This is no proof that there is none: read what was tried and what was skipped."
    ),
    Verdict.INCONCLUSIVE: (
        "The search could not be relied on here, so it says nothing either way. Treat the delivery as not inspected."
    ),
    Verdict.SUSPICIOUS: (
        "Something stands out, but what was measured does not suffice to call it a backdoor. Do not deploy before it is explained."
    ),
    Verdict.BACKDOORED: "What was found is not explained by chance or by ordinary tuning. Do not deploy this delivery.",
}
EXIT_MEANING = {
    0: "no verdict at or above the --fail-on level",
    1: "a verdict at or above the --fail-on level",
    2: "usage error, or something could not be read",
    3: "inconclusive, or coverage below --min-coverage",
    130: "interrupted",
}
SEVERITY_NAMES = {severity: severity.name.lower() for severity in Severity}

_FALLBACK_STEPS = {
    Verdict.NO_EVIDENCE: "Keep this report with the delivery; inspect again whenever the delivery or its base changes.",
    Verdict.INCONCLUSIVE: "Inspect again with other probe images (--probes DIR) and resolve what is listed as skipped.",
    Verdict.SUSPICIOUS: "Look at the reconstructed triggers; inspect again with other probe images (--probes) and another --seed.",
    Verdict.BACKDOORED: "Do not deploy the delivery; keep the file as evidence and ask its provider how it was made.",
}
_FIRST_VALUES = ("margin", "baseline_margin", "asr", "final_loss", "anomaly_index")


def ranked(rows: Iterable[Evidence]) -> list[Evidence]:
    """Return the rows by falling statistic; rows that were not measured come last, in their own order."""
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.statistic) else -row.statistic)


def strongest(rows: Iterable[Evidence]) -> list[Evidence]:
    """Return, by falling statistic, the strongest row of each target: several trigger kinds may have been tried."""
    best: dict[tuple[str, int | None, str], Evidence] = {}
    for row in ranked(rows):
        best.setdefault((row.target_kind, row.target_index, row.target), row)
    return list(best.values())


def shown_rows(report: Report) -> list[tuple[str, int, Evidence]]:
    """Return (check, position, row) of all rows with a trigger, check by check, strongest first.

    The position is that in the check's evidence; rows that only a finding carries are counted on behind those.
    """
    rows = [(check.check, position, row) for check in report.checks for position, row in enumerate(check.evidence)]
    known = {id(row.trigger) for _, _, row in rows}
    extra = [(finding.check, row) for finding in report.findings for row in finding.evidence if id(row.trigger) not in known]
    rows += [(check, len(rows) + position, row) for position, (check, row) in enumerate(extra)]
    with_trigger = [item for item in rows if item[2].trigger]
    order = list(dict.fromkeys(check for check, _, _ in rows))  # statistics of different checks have different units
    return sorted(
        with_trigger,
        key=lambda item: (order.index(item[0]), math.inf if math.isnan(item[2].statistic) else -item[2].statistic),
    )


def value_names(rows: Iterable[Evidence]) -> list[str]:
    """Return the names of the numbers that at least one row holds, the best known ones first."""
    held = dict.fromkeys(name for row in rows for name in row.values)
    return [name for name in _FIRST_VALUES if name in held] + [name for name in held if name not in _FIRST_VALUES]


def null_values(report: Report, check: CheckResult) -> tuple[float, ...]:
    """Return the finite values of all nulls of the check's statistic; a null that names no check belongs to every one."""
    values = (value for null in report.nulls if null.check in ("", check.check) for value in null.values)
    return tuple(value for value in values if math.isfinite(value))


def null_position(value: float, null: Sequence[float]) -> str:
    """Return how many of the references lie below the value: ``38/40``."""
    if not null:
        return "no null"
    if math.isnan(value):
        return "not measured"
    return f"{sum(value > reference for reference in null)}/{len(null)}"


def above(report: Report, check: CheckResult, row: Evidence) -> bool:
    """Return whether the row reaches the threshold of its check, where there is one."""
    return row.statistic >= report.thresholds.get(check.check, math.inf)


def certainty(report: Report) -> str:
    """Return how sure the verdict is and against which null, in one or two sentences."""
    main = report.checks[0].check if report.checks else ""
    references = sum(len(null.values) for null in report.nulls if null.check in ("", main))
    if not references:
        return "Uncalibrated: no null fits this delivery, so that the verdict is at most suspicious."
    measured = "No p-value was computed" if report.p_value is None else f"p = {number(report.p_value)}"
    text = f"{measured}; {references} reference deliveries with nothing planted resolve no finer than 1/{references + 1}."
    return text if report.calibrated else f"Uncalibrated: the null was measured on something else than this delivery. {text}"


def tried(report: Report) -> list[str]:
    """Return one sentence for each check that ran: how many targets, which trigger kinds, what came out."""
    lines = [_tried(report, check) for check in report.checks]
    return lines or ["No check ran."]


def _tried(report: Report, check: CheckResult) -> str:
    targets = len(strongest(check.targets))
    kinds = sorted({visible(row.trigger_kind) for row in check.evidence if row.trigger_kind})
    searched = f"{targets} target{'' if targets == 1 else 's'} searched" if targets else "ran"
    if targets and all(row.target_kind == "feature" for row in check.targets):
        searched = "one place in feature space searched, whatever its class"
    parts = [f"{visible(check.check)}: {searched}"]
    if kinds:
        parts.append(f"trigger kinds {', '.join(kinds)}")
    if math.isfinite(check.statistic):
        parts.append(f"highest statistic {number(check.statistic)}")
    if check.check in report.thresholds:
        parts.append(f"threshold {number(report.thresholds[check.check])}")
    return "; ".join(parts) + "."


def skipped(report: Report) -> list[Skipped]:
    """Return what the report and its checks skipped, each once."""
    items = [*report.skipped, *(item for check in report.checks for item in check.skipped)]
    return list(dict.fromkeys(items))


def next_steps(report: Report) -> list[str]:
    """Return what to do next, each step once: the report's own steps, or the findings' and that of the verdict."""
    steps = report.next_steps or (_FALLBACK_STEPS[report.verdict], *(finding.next_step for finding in report.findings))
    return [visible(step) for step in dict.fromkeys(steps) if step.strip()]
