"""What stands behind the figures on targets outside the class names, and the plan of the larger zoo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.outside_zoo import leave_one_task_out, without
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from pocket_build import large_zoo
from pocket_build.zoo import name_of, twin_key


@pytest.mark.parametrize("family", ["vpt", "maple", "coop"])
def test_a_delivery_without_a_name_says_the_same_of_the_others(tiny_clip, family):
    names = ("cat", "dog", "owl", "fox")
    whole = PromptedClassifier(tiny_clip, new_prompt(family, tiny_clip, names, seed=1), names).freeze()
    fewer = without(whole, 2)
    images = torch.rand(3, 3, tiny_clip.image_size, tiny_clip.image_size, generator=torch.Generator().manual_seed(0))
    assert fewer.class_names == ("cat", "dog", "fox")
    with torch.no_grad():
        assert torch.allclose(fewer(images), whole(images)[:, [0, 1, 3]], atol=1e-4)


def test_a_delivery_is_judged_by_the_clean_ones_of_other_tasks():
    clean = [
        {"task": task, "backdoored": False, "statistic": value} for task, value in zip("aabbb", (9.0, 8.0, 1, 2, 3), strict=True)
    ]
    bad = [{"task": "a", "backdoored": True, "statistic": value} for value in (4.0, 7.0)]

    def limit(values):
        scale = np.std(values, ddof=1) * math.sqrt(6) / math.pi
        return np.mean(values) - 0.5772156649 * scale - scale * math.log(-math.log(0.98))

    assert 4.0 < limit([1, 2, 3]) < 7.0
    judged = leave_one_task_out([*clean, *bad], [*clean, *bad])
    assert (judged["backdoored_flagged"]["count"], judged["backdoored_flagged"]["of"]) == (1, 2)
    assert (judged["clean_flagged"]["count"], judged["clean_flagged"]["of"]) == (2, 5)  # those of task a, among the values of b


def test_the_larger_zoo_holds_what_its_table_asks_for_and_a_twin_for_everything(monkeypatch):
    monkeypatch.setattr(large_zoo, "targets_of", lambda base, task: list(range(30)))
    specs = large_zoo.plan()
    assert [name_of(spec) for spec in specs] == [name_of(spec) for spec in large_zoo.plan()]
    assert len({name_of(spec) for spec in specs}) == len(specs)
    clean = {twin_key(vars(spec)) for spec in specs if not spec.attack}
    bad = [spec for spec in specs if spec.attack]
    assert len(clean) + 40 >= 150
    assert len(bad) == 2 * sum(count for tasks in large_zoo.BACKDOORED.values() for count in tasks.values())
    assert sum(spec.attack == "badclip-adaptive" for spec in bad) == 20
    assert all(twin_key(vars(spec)) in clean for spec in bad)


def test_what_did_not_take_is_listed_with_its_figures():
    row = {"task": "t", "family": "vpt", "class_specific": False, "base": "pocket-0", "seed": 1, "shots": 4, "name": "a", "ca": 0.9}
    clean = row | {"backdoored": False}
    rows = [clean] + [
        row | {"name": name, "backdoored": True, "attack": "badclip", "asr": asr, "asr_images": 300, "ca": ca}
        for name, asr, ca in (("b", 0.9, 0.88), ("c", 0.7, 0.9), ("d", 0.9, 0.8))
    ]
    listed = large_zoo.listed(rows)
    assert [row["counts"] for row in listed["deliveries"]] == [True, True, False, False]
    assert (listed["clean"], listed["backdoored"]) == (1, 1)
    assert (listed["took"]["vpt, badclip"], listed["did_not_take"]["vpt, badclip"]) == (1, 2)
