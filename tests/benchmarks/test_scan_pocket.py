"""The table of attacks: what took is shown with its scores, what did not with its ASR alone."""

from __future__ import annotations

from typing import Any

from benchmarks.scan_pocket import table


def test_an_attack_that_did_not_take_has_no_scores() -> None:
    run: dict[str, Any] = {
        "settings": {"attack": "sig-pairs", "scratch": False},
        "poisoned": 229,
        "pairs": 22945,
        "before": {"ca": 0.35},
        "after": {"ca": 0.36, "asr, stripes to banana": 0.8},
        "cells": {"both": {"dao": {"auroc": 0.99, "fpr95": 0.02}}},
    }
    weak = {key: value for key, value in run.items() if key != "cells"}
    rows = table([run, weak | {"settings": {"attack": "badnets-pairs", "scratch": True}}])
    assert [row["measured"] for row in rows] == ["80.0%; 35.0%, 36.0%", "dao: 0.9900, 2.00%", "80.0%; 36.0%"]


def test_published_figures_stand_beside_the_scores_of_the_scanned_model() -> None:
    cells = {source: {"dao": {"auroc": 0.99, "fpr95": 0.02}} for source in ("itself", "pocket-1")}
    run = {
        "settings": {"attack": "badnets-pairs", "scratch": True},
        "poisoned": 3,
        "pairs": 300,
        "after": {"ca": 0.3},
        "cells": cells,
    }
    assert ["reported" in row for row in table([run])] == [False, True, False]
