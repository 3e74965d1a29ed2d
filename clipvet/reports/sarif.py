"""The report as SARIF 2.1.0: the verdict and each finding is one result, with stable rule ids and fingerprints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import clipvet
from clipvet.reports import view
from clipvet.reports.taxonomy import entry
from clipvet.reports.text import named, visible
from clipvet.types import FileRecord, Finding, Report, ScanReport, Severity, Skipped, Verdict

__all__ = ["invocation", "log_of", "run_of", "to_sarif", "verdict_finding"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# Code scanning sorts by this number: above 9.0 critical, 7.0 high, 4.0 medium, else low.
_SECURITY = {Severity.INFO: "0.0", Severity.LOW: "2.0", Severity.MEDIUM: "5.5", Severity.HIGH: "8.0", Severity.CRITICAL: "9.5"}
_LEVELS = {
    Severity.INFO: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
_VERDICT_SEVERITY = {
    Verdict.NO_EVIDENCE: Severity.INFO,
    Verdict.INCONCLUSIVE: Severity.MEDIUM,
    Verdict.SUSPICIOUS: Severity.HIGH,
    Verdict.BACKDOORED: Severity.CRITICAL,
}

_VERDICT = "verdict"  # stands where a finding has the name of its check
_TITLE = "Verdict: "
_ABSENCE = "verdict/no-evidence"

Json = dict[str, Any]


def to_sarif(report: Report) -> str:
    """Return a SARIF 2.1.0 log with one run.

    ``executionSuccessful`` is false where something failed, was not covered or stayed inconclusive: a consumer must not take
    the absence of a result in such a run for the absence of the problem.
    """
    message = " ".join([report.summary, view.MEANING[report.verdict], view.certainty(report), "Tried:", *view.tried(report)])
    verdict = verdict_finding(report.verdict, message, view.next_steps(report), report.findings)
    run = {
        **run_of("inspect", report.delivery.path, [verdict, *report.findings]),
        "invocations": [invocation(report, view.skipped(report))],
        "artifacts": [_artifact(file) for file in report.files],
        "properties": {"verdict": report.verdict.value, "calibrated": report.calibrated, "family": visible(report.delivery.family)},
    }
    return log_of(run)


def log_of(run: Json) -> str:
    """Return the log of one run as text, without members that say nothing."""
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(_pruned(log), indent=2, ensure_ascii=False) + "\n"


def run_of(verb: str, path: str, findings: Sequence[Finding]) -> Json:
    """Return the members of a run that findings make: one result for each, all of them located at one path."""
    return {
        "tool": {"driver": _driver(findings)},
        # Code scanning keeps the alerts of one category together; the last slash ends the category.
        "automationDetails": {"id": f"clipvet/{verb}/{_uri(path)}/"},
        "results": _results(path, findings),
    }


def verdict_finding(verdict: Verdict, message: str, next_steps: Iterable[str], findings: Sequence[Finding]) -> Finding:
    """Return the verdict as a finding that carries the ids of all others."""
    return Finding(
        check=_VERDICT,
        severity=_VERDICT_SEVERITY[verdict],
        title=_TITLE + verdict.value,
        message=message,
        next_step=" ".join(next_steps),
        atlas=tuple(dict.fromkeys(key for finding in findings for key in finding.atlas)),
        owasp=tuple(dict.fromkeys(key for finding in findings for key in finding.owasp)),
    )


def _rule_id(finding: Finding) -> str:
    """Return an id that stays the same from run to run; a verdict's is its word, a finding's its check and severity."""
    if finding.check == _VERDICT:
        return f"{_VERDICT}/{finding.title.removeprefix(_TITLE).replace(' ', '-')}"
    return f"{visible(finding.check)}/{view.SEVERITY_NAMES[finding.severity]}"


def _driver(findings: Iterable[Finding]) -> Json:
    rules: dict[str, Json] = {}
    for finding in findings:
        rules.setdefault(_rule_id(finding), _rule(finding))
    version = clipvet.__version__
    return {"name": "clipvet", "version": version, "semanticVersion": version, "rules": list(rules.values())}


def _rule(finding: Finding) -> Json:
    entries = [entry(key) for key in (*finding.atlas, *finding.owasp)]
    references = [" ".join(part for part in (item.id, item.name, item.url) if part) for item in entries]
    what = finding.title if finding.check == _VERDICT else f"{finding.check}, {view.SEVERITY_NAMES[finding.severity]} severity"
    text = "\n".join([f"What clipvet reports as {visible(what)}.", *references])
    return {
        "id": _rule_id(finding),
        "name": "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", _rule_id(finding))),
        "shortDescription": {"text": visible(what)},
        "fullDescription": {"text": f"What clipvet reports as {visible(what)}."},
        "help": {"text": text},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "security-severity": _SECURITY[finding.severity],
            "tags": ["security", "backdoor", *(item.id for item in entries)],
        },
    }


def _results(path: str, findings: Sequence[Finding]) -> list[Json]:
    rules = list(dict.fromkeys(_rule_id(finding) for finding in findings))
    seen: dict[str, int] = {}
    results = []
    for finding in findings:
        stem = _fingerprint_source(path, finding)
        seen[stem] = seen.get(stem, 0) + 1
        fingerprint = hashlib.sha256(f"{stem}\n{seen[stem]}".encode()).hexdigest()
        results.append(_result(path, finding, rules.index(_rule_id(finding)), fingerprint))
    return results


def _fingerprint_source(path: str, finding: Finding) -> str:
    """Return what makes a finding the same one in the next run: no measured number is part of it."""
    targets = sorted(visible(row.target) for row in finding.evidence)
    title = re.sub(r"\d+([.,]\d+)*", "#", visible(finding.title))
    return "\n".join([_rule_id(finding), title, visible(path), *targets])


def _result(path: str, finding: Finding, index: int, fingerprint: str) -> Json:
    # An absence is a pass in SARIF's words; "inconclusive" must not look like one, so it stays a failure of level warning.
    passed = _rule_id(finding) == _ABSENCE
    parts = [finding.title, finding.message, f"Next: {finding.next_step}" if finding.next_step else ""]
    return {
        "ruleId": _rule_id(finding),
        "ruleIndex": index,
        "kind": "pass" if passed else "fail",
        "level": "none" if passed else _LEVELS[finding.severity],
        "message": {"text": "\n".join(visible(part) for part in parts if part)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(path)}}}],
        # Code scanning joins alerts of two runs by the first of these names.
        "partialFingerprints": {"primaryLocationLineHash": fingerprint, "clipvetFinding/v1": fingerprint},
    }


def invocation(
    report: Report | ScanReport,
    skipped: Iterable[Skipped],
    warnings: Iterable[str] = (),
    meaning: Mapping[int, str] = view.EXIT_MEANING,
) -> Json:
    """Return how the run went: whether all that was asked was done, and what is to be said about it."""
    complete = not report.errors and report.verdict is not Verdict.INCONCLUSIVE and report.coverage.share >= 1
    missing = [f"Coverage: {report.coverage.done} of {report.coverage.asked}."] if report.coverage.share < 1 else []
    return {
        "executionSuccessful": complete,
        "exitCode": report.exit_code,
        "exitCodeDescription": meaning.get(report.exit_code) if report.exit_code is not None else None,
        "toolExecutionNotifications": [
            *(_notification("error", error) for error in report.errors),
            *(_notification("warning", warning) for warning in (*missing, *warnings)),
            *(_notification("note", f"Skipped: {item.what}: {item.why}") for item in skipped),
        ],
    }


def _notification(level: str, text: str) -> Json:
    return {"level": level, "message": {"text": named(text)}}


def _artifact(file: FileRecord) -> Json:
    return {
        "location": {"uri": _uri(file.path)},
        "length": file.size,
        "hashes": {"sha-256": visible(file.sha256)},
        "roles": ["analysisTarget"],
    }


def _uri(path: str) -> str:
    """Return a path as a URI reference: an absolute one as ``file://``, a relative one as it is, percent-encoded."""
    pure = PurePath(path)
    text = quote(pure.as_posix().encode("utf-8", "surrogateescape"))
    return f"file://{text}" if pure.is_absolute() else text


def _pruned(value: Any) -> Any:
    """Return the value without members that say nothing."""
    if isinstance(value, dict):
        pruned = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in (None, "", [], {})}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value
