"""Files appear whole or not at all, markers vouch for their input, and a reference is the same however the data are cut."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from clipvet.errors import UnreadableError, UnwritableError
from clipvet.scan.encode import pair_id
from clipvet.scan.reference import draw_reference, load_features, load_reference, priority, save_reference
from clipvet.scan.store import Store, read_array, read_table, write_array, write_table, write_whole


def fill(store: Store, cut: list[int], *, dead: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    """Write 100 pairs in shards of the given sizes; returns all image features."""
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, 100, 8)).astype(np.float16)
    image[list(dead)] = 0
    ids = np.array([pair_id("s", str(at)) for at in range(100)])
    start = 0
    for shard, size in enumerate(cut):
        rows = slice(start, start + size)
        write_array(store.image_features(shard), image[rows])
        write_array(store.text_features(shard), text[rows])
        columns = {"id": ids[rows], "shard": ["s"] * size, "key": [str(at) for at in range(100)][rows]}
        write_table(store.metadata(shard), {**columns, "uid": [""] * size, "caption": ["c"] * size})
        start += size
    return image


def test_the_same_pairs_are_drawn_however_they_lie_in_shards(tmp_path: Path) -> None:
    drawn = []
    for number, cut in enumerate(([100], [30, 0, 70], [50, 50])):
        store = Store(tmp_path / str(number))
        fill(store, cut, dead=(3,))
        drawn.append(draw_reference(store, range(len(cut)), 20, seed=1))
    for other in drawn[1:]:
        assert torch.equal(drawn[0].features.ids, other.features.ids)
        assert torch.equal(drawn[0].features.image, other.features.image)


def test_a_reference_holds_the_features_of_the_pairs_that_it_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    image = fill(store, [40, 60])
    reference = draw_reference(store, [0, 1], 15, seed=0)
    number_of = {pair_id("s", str(at)): at for at in range(100)}
    assert reference.features.image is not None
    for at, (shard, row, own) in enumerate(zip(reference.shards, reference.rows, reference.features.ids.tolist(), strict=True)):
        place = int(shard) * 40 + int(row)
        assert place == number_of[own]
        wanted = image[place].astype(float) / np.linalg.norm(image[place].astype(float))
        assert reference.features.image[at].numpy() == pytest.approx(wanted, abs=1e-3)


def test_pairs_without_a_direction_are_never_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead = tuple(range(0, 100, 2))
    fill(store, [100], dead=dead)
    assert len(draw_reference(store, [0], 80, seed=0).features) == 50
    assert len(draw_reference(store, [0], 30, seed=0).features) == 30  # others take their places


def test_a_reference_is_kept_for_the_workers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [100])
    reference = draw_reference(store, [0], 20, seed=0)
    digest = save_reference(store, reference)
    again = load_reference(store, digest)
    assert torch.equal(again.features.ids, reference.features.ids)
    assert again.features.image is not None
    assert again.features.image.numpy() == pytest.approx(reference.features.image.numpy(), abs=1e-3)
    assert save_reference(store, reference) == digest
    assert save_reference(store, draw_reference(store, [0], 20, seed=1)) != digest


def test_every_pair_is_as_likely_to_be_drawn() -> None:
    ids = np.array([pair_id("s", str(at)) for at in range(50)])
    counts = Counter(at for seed in range(400) for at in np.argsort(priority(ids, seed))[:10].tolist())
    assert chisquare([counts[at] for at in range(50)]).pvalue > 1e-3


def test_a_batch_of_the_reference_is_a_part_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [100])
    reference = draw_reference(store, [0], 50, seed=0)
    one, other = reference.batch(20, 1), reference.batch(20, 2)
    assert len(set(one.ids.tolist())) == 20
    assert set(one.ids.tolist()) <= set(reference.features.ids.tolist())
    assert one.ids.tolist() != other.ids.tolist()
    assert torch.equal(one.ids, reference.batch(20, 1).ids)


def test_features_of_both_models_stay_row_by_row_together(tmp_path: Path) -> None:
    store = Store(tmp_path, salt="x", two_models=True)
    assert store.by_trusted is not None
    assert store.by_trusted.salt == "x"
    fill(store, [40, 60], dead=(3,))
    other = fill(store.by_trusted, [40, 60], dead=(7, 50), seed=1)
    number_of = {pair_id("s", str(at)): at for at in range(100)}
    drawn = draw_reference(store, [0, 1], 1000, seed=0)
    assert {number_of[own] for own in drawn.features.ids.tolist()} == set(range(100)) - {3, 7, 50}  # without a direction in one
    kept = load_reference(store, save_reference(store, drawn))
    stretch = load_features(store, 1, np.array([pair_id("s", str(at)) for at in range(45, 48)]), 5)
    for features in (drawn.features, kept.features, kept.batch(20, 1), stretch):
        assert features.trusted is not None
        assert features.trusted.image is not None
        assert torch.equal(features.trusted.ids, features.ids)
        wanted = other[[number_of[own] for own in features.ids.tolist()]].astype(float)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        assert features.trusted.image.numpy() == pytest.approx(wanted, abs=1e-3)


def test_a_reference_knows_both_models(tmp_path: Path) -> None:
    digests = set()
    for seed in (1, 2):
        store = Store(tmp_path / str(seed), two_models=True)
        assert store.by_trusted is not None
        fill(store, [100])
        fill(store.by_trusted, [100], seed=seed)
        digests.add(save_reference(store, draw_reference(store, [0], 20, seed=0)))
    assert len(digests) == 2


def test_a_stretch_of_a_shard_is_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    image = fill(store, [100])
    ids = np.array([pair_id("s", str(at)) for at in range(10, 14)])
    part = load_features(store, 0, ids, 10)
    assert part.ids.tolist() == ids.tolist()
    assert part.image is not None
    wanted = image[10:14].astype(float) / np.linalg.norm(image[10:14].astype(float), axis=1, keepdims=True)
    assert part.image.numpy() == pytest.approx(wanted, abs=1e-3)


def test_ids_tell_shard_and_key_apart() -> None:
    assert pair_id("a", "b0") != pair_id("ab", "0")
    assert 0 <= pair_id("a", "b") < 2**63


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_full_disk_ends_in_one_sentence_and_leaves_what_was_there(tmp_path: Path, fault: OSError) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"before")

    def write(file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise fault

    with pytest.raises(UnwritableError, match=rf"expected to write .*scores.parquet, but {fault.strerror}: make room"):
        write_whole(path, write)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("scores.parquet", b"before")]


def test_a_marker_vouches_for_its_input_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.finish("features", 3, {"model": "a"}, {"pairs": 7})
    assert store.done("features", 3, {"model": "a"}) == {"pairs": 7}
    assert store.done("features", 3, {"model": "b"}) is None
    assert store.done("features", 4, {"model": "a"}) is None
    assert store.done("scores", 3, {"model": "a"}) is None
    store.forget("features", 3)
    assert store.done("features", 3, {"model": "a"}) is None


def test_a_damaged_marker_is_no_marker(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.finish("features", 0, {}, {})
    (tmp_path / "state" / "features" / "00000.json").write_text('{"ident')
    assert store.done("features", 0, {}) is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PAR1", b"nonsense" * 100])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for read in (read_array, read_table):
        with pytest.raises(UnreadableError, match="could not read"):
            read(path)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableError, match="could not read"):
        read_array(path)
