import zipfile
from pathlib import Path

import pytest
import torch

from clipvet.errors import UsageError
from clipvet.pocket import load_task, probe_pool, task_names
from clipvet.pocket import tasks as module

ASSETS = Path(module.__file__).parent / "assets"
NOTICE = Path(__file__).parents[2] / "NOTICE"
COARSE = ("mixed", "world", "daily-life")


def listed(task, part):
    """The (set, name, subgroup) of every picture in a part of a task, class by class."""
    pictures = module._document()["pictures"]
    return [[(pictures[i][0].split("/")[0], *pictures[i][1:]) for i in entry[part]] for entry in module._entry(task)["classes"]]


def test_there_are_ten_tasks():
    assert len(set(task_names())) == 10
    assert task_names()[:3] == COARSE


@pytest.mark.parametrize("name", task_names())
def test_counts(name):
    task = load_task(name)
    n = len(task.class_names)
    assert 10 <= n <= 40
    assert len(set(task.class_names)) == n
    images, labels = task.train_images()
    assert images.shape == (16 * n, 3, 64, 64)
    assert torch.equal(labels.bincount(), torch.full((n,), 16))
    images, labels, names = task.test_images()
    assert len(images) == len(labels) == len(names) >= 300
    assert labels.bincount().min() >= 300 / n
    assert images.min() >= 0 and images.max() <= 1
    assert len(set(names)) >= 20  # independent clusters


@pytest.mark.parametrize("name", task_names())
def test_styles_of_the_test_are_unseen_in_the_shots(name):
    for shots, test in zip(listed(name, "train"), listed(name, "test"), strict=True):
        assert not {style for style, *_ in shots} & {style for style, *_ in test}
        assert not any("skin tone" in caption for _, caption, _ in shots + test)


@pytest.mark.parametrize("name", COARSE)
def test_a_coarse_class_has_ten_names(name):
    for shots, test in zip(listed(name, "train"), listed(name, "test"), strict=True):
        assert len({caption for _, caption, _ in shots + test}) >= 10


@pytest.mark.parametrize("name", task_names()[3:])
def test_a_fine_class_is_one_name_in_several_drawings(name):
    for label, shots, test in zip(load_task(name).class_names, listed(name, "train"), listed(name, "test"), strict=True):
        assert {caption for _, caption, _ in shots + test} == {label}
        assert len({style for style, *_ in shots}) >= 2
        assert len({style for style, *_ in test}) >= 1


@pytest.mark.parametrize("name", task_names())
def test_the_first_half_of_the_classes_is_seen(name):
    task = load_task(name)
    half = (len(task.class_names) + 1) // 2
    assert task.seen == tuple(range(half))
    assert task.seen + task.unseen == tuple(range(len(task.class_names)))


def test_the_pool_shares_nothing_with_the_tasks():
    document = module._document()
    pool = [document["pictures"][i] for i in document["pool"]["pictures"]]
    used = [document["pictures"][i] for t in document["tasks"] for e in t["classes"] for i in e["train"] + e["test"]]
    assert len({path for path, *_ in pool}) == 1000
    assert not {caption for _, caption, _ in pool} & {caption for _, caption, _ in used}
    assert not {group for *_, group in pool} & {group for *_, group in used}
    assert not {caption for _, caption, _ in pool} & {name for t in task_names() for name in load_task(t).class_names}
    assert all(group for *_, group in pool)


def test_the_pool_is_coloured():
    images = probe_pool(200)
    assert images.shape == (200, 3, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    saturation = (images.amax(1) - images.amin(1)).mean((1, 2))
    assert (saturation > 0.05).float().mean() > 0.95
    assert torch.equal(images, probe_pool(200))
    assert not torch.equal(images, probe_pool(200, seed=1))


def test_the_whole_pool_can_be_had_and_not_more():
    assert len(probe_pool()) == 1000
    for n in (0, 1001):
        with pytest.raises(UsageError, match=f"got {n}"):
            probe_pool(n)


def test_shots_depend_on_the_seed_and_the_test_does_not():
    one, same, other = (load_task("animals", seed=s) for s in (1, 1, 2))
    assert torch.equal(one.train_images()[0], same.train_images()[0])
    assert not torch.equal(one.train_images()[0], other.train_images()[0])
    assert torch.equal(one.test_images()[0], other.test_images()[0])
    few = load_task("animals", shots=3)
    assert few.train_images()[1].bincount().tolist() == [3] * len(few.class_names)
    assert torch.equal(few.test_images()[0], one.test_images()[0])


def test_views_show_the_same_shots_placed_anew():
    task = load_task("animals", shots=2)
    (once, labels), (thrice, repeated) = task.train_images(), task.train_images(views=3)
    first, second, third = thrice.split(len(once))
    assert torch.equal(first, once)
    assert torch.equal(repeated, labels.repeat(3))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_shots_show_every_drawing_before_one_twice():
    task, seen = load_task("fruits-and-vegetables", shots=3), []
    original = module._pictures
    try:
        module._pictures = lambda indices: seen.extend(indices) or original(indices)
        task.train_images()
    finally:
        module._pictures = original
    per_class = [seen[i : i + 3] for i in range(0, len(seen), 3)]
    assert len(per_class) == len(task.class_names)
    for picked, entry in zip(per_class, module._entry(task.name)["classes"], strict=True):
        assert len(set(picked)) == min(3, len(entry["train"]))


def test_labels_fit_the_names():
    task = load_task("animals")
    _, labels, names = task.test_images()
    assert all(task.class_names[label] == name for label, name in zip(labels.tolist(), names, strict=True))


def test_images_of_a_caller_are_the_callers():
    images, _, _ = load_task("animals").test_images()
    kept = images.clone()
    images.zero_()
    assert torch.equal(load_task("animals").test_images()[0], kept)


def test_an_unknown_task_is_named():
    with pytest.raises(UsageError, match=r"mixed, world.*got 'imagenet'"):
        load_task("imagenet")
    with pytest.raises(UsageError, match="at least 1 shot per class, got 0"):
        load_task("nature", shots=0)


def test_what_is_shipped_is_small_licensed_and_used():
    with zipfile.ZipFile(ASSETS / "pictures.zip") as archive:
        paths = archive.namelist()
        assert archive.testzip() is None
    assert (ASSETS / "pictures.zip").stat().st_size < 14e6
    document = module._document()
    assert sorted(path for path, *_ in document["pictures"]) == sorted(paths)
    used = {i for t in document["tasks"] for e in t["classes"] for i in e["train"] + e["test"]} | set(document["pool"]["pictures"])
    assert used == set(range(len(paths)))
    notice = NOTICE.read_text(encoding="utf-8")
    styles = {path.split("/")[0] for path in paths}
    assert not styles & {"openmoji", "game-icons"}  # share-alike, and monochrome
    assert all(f"@iconify-json/{style} " in notice for style in styles)
