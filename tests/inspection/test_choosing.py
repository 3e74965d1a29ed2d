"""A null is used where it was measured: the user's own before one that ships; the second beside the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipvet.errors import UsageError
from clipvet.inspection.choosing import choose_beyond, choose_null, null_for
from clipvet.inspection.null_file import write_null
from clipvet.types import Null, NullKey
from tests.inspection.null_cases import BEYOND, KEY, LIKE, packed, packed_both


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "null.json"
    write_null(path, packed())
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base": "abd"}, "its base is 'abc' and not 'abd': inspect"),
        ({"settings": "paper:1"}, "its check with its settings is 'margin-residual:0' and not 'paper:1': inspect"),
        ({"probes": "images of a, 7"}, "its set of probe images is 'generated pool, 1000' and not 'images of a, 7': inspect"),
        ({"base": "abd", "probes": "x"}, "its base is 'abc' and not 'abd', its set of probe images is"),
    ],
)
def test_a_null_that_was_measured_otherwise_is_refused(path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        null_for(path, NullKey(**{**vars(LIKE), **changed}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"family": "maple"}, ""),
        ({"classes": (2, 2)}, ""),
        ({"classes": (4, 4)}, "it was measured on 2 to 3 classes, and this delivery has 4"),
        ({"classes": (1, 1)}, "it was measured on 2 to 3 classes, and this delivery has 1"),
        ({"family": "whole"}, "it was measured on tuned prompts, and this is a whole model"),
    ],
)
def test_a_delivery_that_it_says_nothing_about_is_not_judged_by_it(path: Path, changed: dict[str, Any], why: str) -> None:
    null, said = null_for(path, NullKey(**{**vars(LIKE), **changed}))
    assert said == why
    assert null == (None if why else packed().null)


def test_the_own_null_goes_before_those_that_ship(path: Path) -> None:
    shipped = Null(key=NullKey(**{**vars(KEY), "classes": (3, 9)}), values=(5.0, 6.0))
    chosen = choose_null(LIKE, own=path, shipped=[shipped], enough_names=True)
    assert chosen == (packed().null, ())
    assert choose_null(LIKE, own=None, shipped=[shipped], enough_names=True) == (shipped, ())
    assert choose_null(NullKey(**{**vars(LIKE), "base": "x"}), own=None, shipped=[shipped], enough_names=True) == (None, ())
    many = NullKey(**{**vars(LIKE), "classes": (4, 4)})
    null, (left,) = choose_null(many, own=path, shipped=[shipped], enough_names=True)
    assert null == shipped
    assert (left.what, left.why) == (f"the null of {path}", "it was measured on 2 to 3 classes, and this delivery has 4")


def test_few_names_without_company_have_no_null(path: Path) -> None:
    shipped = Null(key=NullKey(**{**vars(KEY), "classes": (3, 9)}), values=(5.0, 6.0))
    assert choose_null(LIKE, own=None, shipped=[shipped], enough_names=False) == (None, ())
    null, (left,) = choose_null(LIKE, own=path, shipped=[shipped], enough_names=False)
    assert null is None
    assert left.why == "no names could be put beside the few that this delivery has"


LIKE_BEYOND = NullKey(**{**vars(LIKE), "settings": BEYOND.settings})
SHIPPED = Null(key=NullKey(**{**vars(BEYOND), "classes": (3, 9)}), values=(5.0, 6.0))


def test_the_second_null_of_the_own_file_goes_before_one_that_ships(path: Path) -> None:
    write_null(path, packed_both())
    assert choose_null(LIKE, own=path, shipped=[], enough_names=True) == (packed_both().null, ())
    assert choose_beyond(LIKE_BEYOND, own=path, shipped=[SHIPPED]) == packed_both().beyond
    assert choose_beyond(LIKE_BEYOND, own=None, shipped=[SHIPPED]) == SHIPPED


def test_a_second_null_that_flags_nothing_goes_behind_one_that_ships(path: Path) -> None:
    write_null(path, packed_both(pseudo_labelled=True))
    assert choose_beyond(LIKE_BEYOND, own=path, shipped=[SHIPPED]) == SHIPPED
    own = choose_beyond(LIKE_BEYOND, own=path, shipped=[])
    assert own is not None
    assert own.pseudo_labelled


def test_a_file_of_one_null_leaves_the_other_check_to_one_that_ships(path: Path) -> None:
    assert choose_beyond(LIKE_BEYOND, own=path, shipped=[SHIPPED]) == SHIPPED
    assert choose_beyond(LIKE_BEYOND, own=path, shipped=[]) is None


@pytest.mark.parametrize(
    "changed",
    [{"base": "abd"}, {"settings": "feature-collapse:2"}, {"probes": "others"}, {"classes": (4, 4)}, {"family": "whole"}],
)
def test_a_second_null_that_does_not_fit_is_passed_over_and_refuses_nothing(path: Path, changed: dict[str, Any]) -> None:
    write_null(path, packed_both())
    assert choose_beyond(NullKey(**{**vars(LIKE_BEYOND), **changed}), own=path, shipped=[]) is None
