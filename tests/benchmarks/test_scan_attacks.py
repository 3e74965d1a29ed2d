"""The table of attacks: what took is shown with its scores, what did not with its ASR alone."""

from __future__ import annotations

from benchmarks.scan_attacks import table


def test_an_attack_that_did_not_take_has_no_scores() -> None:
    run = {
        "settings": {"attack": "sig-pairs"},
        "poisoned": 229,
        "pairs": 22945,
        "before": {"ca": 0.35},
        "after": {"ca": 0.36},
        "asr": 0.8,
        "cells": {"dao": {"auroc": 0.99, "fpr95": 0.02}},
    }
    weak = {key: value for key, value in run.items() if key != "cells"} | {"asr": 0.1}
    assert [row["measured"] for row in table([run, weak])] == ["80.0%; 35.0%, 36.0%", "0.9900; 2.00%", "10.0%; 35.0%, 36.0%"]
