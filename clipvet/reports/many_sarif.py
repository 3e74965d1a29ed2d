"""Several inspections as one SARIF 2.1.0 log with one run: the results of all deliveries, each at its own path.

Code scanning takes one run of a tool and category per upload, which is why the runs are joined.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import clipvet
from clipvet.reports import many_view, view
from clipvet.reports.sarif import log_of
from clipvet.reports.text import visible
from clipvet.types import ManyReport

__all__ = ["to_sarif"]

Json = dict[str, Any]


def to_sarif(report: ManyReport, logs: Sequence[str]) -> str:
    """Join logs into one run.

    ``executionSuccessful`` is false where one delivery has no report, or one whose own log says so.

    Args:
        report: the summary.
        logs: those of the single reports, as :func:`clipvet.reports.to_sarif` writes them, in the order of the rows.
    """
    runs = [run for log in logs for run in json.loads(log)["runs"]]
    rules = {rule["id"]: rule for run in runs for rule in run["tool"]["driver"]["rules"]}
    places = {name: place for place, name in enumerate(rules)}
    version = clipvet.__version__
    return log_of(
        {
            "tool": {
                "driver": {"name": "clipvet", "version": version, "semanticVersion": version, "rules": list(rules.values())},
            },
            "automationDetails": {"id": "clipvet/inspect/"},
            "results": [{**result, "ruleIndex": places[result["ruleId"]]} for run in runs for result in run["results"]],
            "invocations": [_invocation(report, runs)],
            "artifacts": _artifacts(runs),
            "properties": many_view.counts(report),
        }
    )


def _invocation(report: ManyReport, runs: Sequence[Json]) -> Json:
    notes = [
        {"level": "error", "message": {"text": f"{visible(row.delivery)}: {visible(row.error)}"}}
        for row in report.rows
        if row.verdict is None
    ]
    notes += [
        {"level": "note", "message": {"text": f"Passed over: {visible(item.what)}: {visible(item.why)}"}}
        for item in report.passed_over
    ]
    for run in runs:
        path = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for note in run["invocations"][0].get("toolExecutionNotifications", ()):
            notes.append({**note, "message": {"text": f"{path}: {note['message']['text']}"}})
    return {
        "executionSuccessful": report.coverage.share >= 1 and all(run["invocations"][0]["executionSuccessful"] for run in runs),
        "exitCode": report.exit_code,
        "exitCodeDescription": view.EXIT_MEANING.get(report.exit_code) if report.exit_code is not None else None,
        "toolExecutionNotifications": notes,
    }


def _artifacts(runs: Sequence[Json]) -> list[Json]:
    """The files of all runs, each once."""
    files = {json.dumps(file, sort_keys=True): file for run in runs for file in run.get("artifacts", ())}
    return list(files.values())
