"""The plan of a large scan: equal workers match the calculation, and what is lost is begun again."""

from __future__ import annotations

import math

import pytest

from benchmarks.scan_plan import LINK, READ, SHARD, Fleet, fleets, on_paper, simulated

SLOW = Fleet(kind="x", workers=4, encode=10, score=0.1, assumed=True)


def test_equal_workers_take_the_shards_in_rounds() -> None:
    seconds, again = simulated(9 * SHARD, SLOW, seed=0, spread=0, lost_every=math.inf)
    assert seconds == pytest.approx(3 * SHARD * (1 / 10 + 0.1))  # nine shards among four: three rounds
    assert again == 0
    assert on_paper(9 * SHARD, SLOW) == pytest.approx(9 / 4 * SHARD * 0.2)


def test_the_last_shard_may_be_smaller() -> None:
    seconds, _ = simulated(SHARD + 50, SLOW, seed=0, spread=0, lost_every=math.inf)
    assert seconds == pytest.approx(SHARD * 0.2)


def test_a_lost_worker_costs_time_and_no_shard() -> None:
    safe, _ = simulated(40 * SHARD, SLOW, seed=1, spread=0, lost_every=math.inf)
    seconds, again = simulated(40 * SHARD, SLOW, seed=1, spread=0, lost_every=10_000)
    assert again > 0
    assert seconds > safe


def test_a_lost_shard_is_begun_again_when_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    holds = iter((600.0, math.inf))  # the first worker is lost after ten minutes, the second not at all
    monkeypatch.setattr("random.Random.expovariate", lambda self, rate: next(holds))
    two = Fleet(kind="x", workers=2, encode=10, score=0.1, assumed=True)
    seconds, again = simulated(SHARD, two, seed=0, spread=0, lost_every=1.0)
    assert (seconds, again) == (pytest.approx(600 + SHARD * 0.2), 1)


def test_storage_binds_where_the_workers_ask_for_more_than_it_serves() -> None:
    many = Fleet(kind="x", workers=100, encode=1000, score=0, assumed=True)
    assert 100 * 1000 * READ > LINK
    assert many.bound == "storage"
    assert on_paper(10**6, many) == pytest.approx(10**6 * READ / LINK)
    assert SLOW.bound == "encoding"


def test_the_measured_rates_are_read() -> None:
    first = fleets()[0]
    assert 5 < first.encode < 100
    assert 1e-6 < first.score < 1e-3
    assert not first.assumed
