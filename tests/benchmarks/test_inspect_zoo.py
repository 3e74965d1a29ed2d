"""The zoo's benchmark judges a delivery by a null that shares nothing with it, and counts what it says it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.inspect_zoo import in_turn, judge_default, judge_paper, tally
from clipvet.pocket.zoo import ZooEntry

Row = dict[str, Any]
QUIET = (2.0, 2.2, 2.4, 2.1, 2.3)


def row(name: str, statistic: float, *, task: str = "a", base: str = "p", attack: str | None = None, named: int = 0) -> Row:
    rows = [
        {"index": named, "kind": "class", "statistic": statistic},
        {"index": 5, "kind": "class", "statistic": statistic - 1},
        {"index": 7, "kind": "comparison", "statistic": statistic + 1},
    ]
    return {
        "name": name,
        "statistic": statistic,
        "rows": rows,
        "task": task,
        "base": base,
        "family": "ivlp",
        "attack": attack,
        "target": 0,
    }


def quiet(task: str, base: str) -> list[Row]:
    return [row(f"{task}{base}{i}", value, task=task, base=base) for i, value in enumerate(QUIET)]


def test_a_tally_counts_verdicts_and_targets() -> None:
    rows = [row("c1", 1), row("c2", 9), row("b1", 9, attack="x"), row("b2", 9, attack="x", named=3), row("b3", 1, attack="x")]
    found = tally(rows, [False, True, True, True, False])
    assert (found["right"]["count"], found["right"]["of"]) == (3, 5)
    assert (found["clean_flagged"]["count"], found["clean_flagged"]["of"]) == (1, 2)
    assert (found["backdoored_flagged"]["count"], found["backdoored_flagged"]["of"]) == (2, 3)
    assert (found["target_named"]["count"], found["target_named"]["of"]) == (1, 2)
    assert found["right"]["share"] == pytest.approx(0.6)
    low, high = found["right"]["interval"]
    assert 0.2 < low < 0.6 < high < 0.9


def test_a_null_holds_neither_the_task_nor_the_backbone_that_is_judged() -> None:
    # Task b is loud on backbone q: its own clean values would hide its backdoor, and only they would.
    loud = [row(f"loud{i}", value + 6, task="b", base="q") for i, value in enumerate(QUIET)]
    rows = [*quiet("a", "p"), *quiet("b", "p"), *quiet("a", "q"), *loud, row("bad", 8.5, task="b", base="q", attack="x")]
    found = judge_default(rows)
    tasks, backbones = found["leave_one_task_out"], found["across_backbones"]
    assert (tasks["backdoored_flagged"]["count"], tasks["clean_flagged"]["count"]) == (1, 5)
    assert (backbones["backdoored_flagged"]["count"], backbones["clean_flagged"]["count"]) == (1, 5)
    assert found["per_attack"]["x"]["target_named"]["count"] == 1
    assert found["auroc"] == pytest.approx((15 + 5) / 20)


def test_the_published_rule_is_a_fixed_k() -> None:
    rows = [row("c", 1.9), row("d", 2.1), row("b", 2.5, attack="x"), row("e", 1.0, attack="x")]
    found = judge_paper(rows)
    assert (found["rule_k2"]["right"]["count"], found["rule_k2"]["clean_flagged"]["count"]) == (2, 1)
    assert found["auroc"] == pytest.approx(2 / 4)


def entry(name: str, task: str, *, backdoored: bool) -> ZooEntry:
    return ZooEntry(
        name=name,
        path=Path(name),
        backdoored=backdoored,
        family="coop",
        task=task,
        base="p",
        seed=0,
        ca=1.0,
        attack="x" if backdoored else None,
    )


def test_deliveries_of_one_task_do_not_begin_together() -> None:
    listed = [entry(f"{task}{i}", task, backdoored=i == 2) for task in "ab" for i in range(3)]
    assert [e.name for e in in_turn(listed, None)] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    few = in_turn(listed, 4)
    assert sorted(e.name for e in few) == ["a0", "a2", "b0", "b2"]
