"""What two deliveries differ in; every number has an oracle of numpy, or is worked by hand."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clipvet.errors import UnreadableError
from clipvet.models.base import ClipModel
from clipvet.models.diff import compare_deliveries, compare_names
from clipvet.models.families import new_prompt
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.saving import save_delivery
from clipvet.models.tensor_diff import compare_tensors, part_of, parts_of
from clipvet.types import NameChanges

NAMES = ("cat", "dog", "owl")


def deliver(path: Path, model: ClipModel, *, family: str = "coop", names: tuple[str, ...] = NAMES, moved: str = "") -> Path:
    """Save a prompt with a context for each class; that of ``moved`` is another one."""
    prompt = new_prompt(family, model, names, seed=2, class_specific=family == "coop")
    if moved:
        with torch.no_grad():
            prompt.get_parameter("ctx")[names.index(moved)] += torch.randn(
                prompt.get_parameter("ctx").shape[1:], generator=torch.Generator().manual_seed(5)
            )
    save_delivery(path, PromptedClassifier(model, prompt, names))
    return path


def write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


# Tensors.


def test_changes_of_one_tensor_are_those_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    old, step = (torch.randn(4, 5, generator=generator) for _ in range(2))
    new = (old + 0.1 * step).half()
    (change,), _ = compare_tensors({"ctx": old}, {"ctx": new})
    one, two = old.double().numpy(), new.double().numpy()
    assert change.relative_l2 == pytest.approx(np.linalg.norm(two - one) / np.linalg.norm(one), rel=1e-12)
    assert change.largest == np.abs(two - one).max()
    assert (change.change, change.old_dtype, change.new_dtype) == ("dtype", "float32", "float16")


def test_what_kind_of_change_it_is() -> None:
    old = {"same": torch.ones(2), "gone": torch.ones(3), "shape": torch.ones(2, 3), "values": torch.zeros(()), "ctx": torch.ones(2)}
    new = {"same": torch.ones(2), "come": torch.ones(1), "shape": torch.ones(3, 2), "values": torch.ones(()), "ctx": torch.ones(2)}
    changes, _ = compare_tensors(old, new)
    assert {change.name: change.change for change in changes} == {
        "come": "added",
        "gone": "removed",
        "shape": "shape",
        "values": "values",
    }
    shapes = {change.name: (change.old_shape, change.new_shape) for change in changes}
    assert shapes == {"come": (None, (1,)), "gone": ((3,), None), "shape": ((2, 3), (3, 2)), "values": ((), ())}
    from_zero = next(change for change in changes if change.name == "values")
    assert (from_zero.relative_l2, from_zero.largest) == (math.inf, 1.0)


def test_not_a_number_is_equal_to_its_own_bits_and_never_hidden() -> None:
    odd = torch.tensor([1.0, math.nan])
    assert compare_tensors({"ctx": odd}, {"ctx": odd.clone()})[0] == ()
    changes, sums = compare_tensors({"ctx": torch.ones(2), "a": torch.ones(2)}, {"ctx": odd, "a": 3 * torch.ones(2)})
    assert math.isnan(next(change for change in changes if change.name == "ctx").relative_l2)
    prompt = next(part for part in parts_of(changes, sums) if part.part == "prompt")
    assert math.isnan(prompt.largest) and math.isnan(prompt.relative_l2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.complex64, torch.float8_e4m3fn, torch.bfloat16])
def test_every_dtype_can_be_compared(dtype: torch.dtype) -> None:
    old, new = torch.tensor([0.0, 1.0, 1.0]).to(dtype), torch.tensor([1.0, 1.0, 1.0]).to(dtype)
    (change,), _ = compare_tensors({"ctx": old}, {"ctx": new})
    assert (change.largest, change.relative_l2) == (1.0, pytest.approx(math.sqrt(1 / 2)))


def test_a_part_counts_all_its_tensors_and_measures_them_as_one() -> None:
    # by hand: old values 3, 4 | 12 | 5, differences 0, 0 | 13 | none: sqrt(169) / sqrt(9 + 16 + 144) = 1
    old = {"ctx": torch.tensor([3.0, 4.0]), "meta_net.linear1.bias": torch.tensor([12.0]), "prompt_learner.x": torch.tensor([5.0])}
    new = {"ctx": torch.tensor([3.0, 4.0]), "meta_net.linear1.bias": torch.tensor([-1.0])}
    changes, sums = compare_tensors(old, new)
    (part,) = parts_of(changes, sums)
    assert (part.part, part.tensors, part.changed) == ("prompt", 3, 2)
    assert (part.relative_l2, part.largest) == (pytest.approx(1.0), 13.0)


def test_the_tensor_that_moved_furthest_stands_first() -> None:
    old = {name: torch.ones(3) for name in ("ctx", "meta_net.a", "meta_net.b", "visual.a")}
    new = {"ctx": 2 * old["ctx"], "meta_net.a": 3 * old["ctx"], "meta_net.b": 1.5 * old["ctx"], "visual.a": 9 * old["ctx"]}
    assert [change.name for change in compare_tensors(old, new)[0]] == ["meta_net.a", "ctx", "meta_net.b", "visual.a"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ctx", "prompt"),
        ("prompt_learner.token_prefix", "prompt"),
        ("image_encoder.VPT", "prompt"),
        ("text_encoder.transformer.resblocks.1.VPT_shallow", "prompt"),
        ("image_encoder.conv1.weight", "image tower"),
        ("visual.transformer.resblocks.0.ln_1.weight", "image tower"),
        ("visual.proj", "head"),
        ("image_encoder.proj", "head"),
        ("text_encoder.text_projection", "head"),
        ("text_projection", "head"),
        ("token_embedding.weight", "text tower"),
        ("text_encoder.transformer.resblocks.0.ln_1.weight", "text tower"),
        ("logit_scale", "logit scale"),
        ("steganography", "other"),
    ],
)
def test_parts_by_name(name: str, part: str) -> None:
    assert part_of(name) == part


# Names.


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a b c", "a b c", NameChanges()),
        ("a b c", "a x c", NameChanges(renamed=(("b", "x"),))),
        ("a b c", "a b c d", NameChanges(added=("d",))),
        ("a b c d", "a b d", NameChanges(removed=("c",))),
        ("a b c", "b a c", NameChanges(moved=(("a", 0, 1), ("b", 1, 0)))),
        ("a b c", "c a x", NameChanges(added=("x",), removed=("b",), moved=(("a", 0, 1), ("c", 2, 0)))),
        ("a b c", "x y", NameChanges(added=("x", "y"), removed=("a", "b", "c"))),
        ("", "a b", NameChanges()),
    ],
)
def test_class_names(old: str, new: str, expected: NameChanges) -> None:
    assert compare_names(old.split(), new.split()) == expected


# Deliveries.


def test_the_same_delivery_does_not_differ(tmp_path: Path, tiny_clip: ClipModel) -> None:
    path = deliver(tmp_path / "a.safetensors", tiny_clip)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "b.safetensors"
    copy.write_bytes(path.read_bytes())
    report = compare_deliveries(path, copy, base=tiny_clip)
    assert not report.changed
    assert report.identical == ((str(path), str(copy)),)
    assert (report.tensors, report.metadata, report.names) == ((), (), NameChanges())
    assert [move.cosine for move in report.texts] == pytest.approx([1.0] * 3)
    assert (report.old.family, report.old.base, report.old.class_names, report.old.context_length) == ("coop", "tiny", NAMES, 4)


def test_the_class_whose_text_moved_stands_out(tmp_path: Path, tiny_clip: ClipModel) -> None:
    old = deliver(tmp_path / "old.safetensors", tiny_clip)
    new = deliver(tmp_path / "new.safetensors", tiny_clip, moved="dog")
    report = compare_deliveries(old, new, base=tiny_clip)
    assert report.changed and report.identical == ()
    assert [move.name for move in report.texts] == ["dog", "cat", "owl"]
    assert report.texts[0].cosine < 0.99 and report.median == pytest.approx(1.0)
    # the oracle: features of the two classifiers, and their angle by numpy
    features = []
    for moved in ("", "dog"):
        prompt = new_prompt("coop", tiny_clip, NAMES, seed=2, class_specific=True)
        with torch.no_grad():
            if moved:
                prompt.get_parameter("ctx")[1] += torch.randn(4, 64, generator=torch.Generator().manual_seed(5))
            features.append(prompt.text_features(tiny_clip)[1].numpy())
    angle = np.dot(*features) / np.linalg.norm(features[0]) / np.linalg.norm(features[1])
    assert report.texts[0].cosine == pytest.approx(angle, abs=1e-5)
    assert [(change.name, change.part) for change in report.tensors] == [("ctx", "prompt")]


def test_a_renamed_class_is_followed(tmp_path: Path, tiny_clip: ClipModel) -> None:
    old = deliver(tmp_path / "old.safetensors", tiny_clip)
    new = deliver(tmp_path / "new.safetensors", tiny_clip, names=("cat", "truck", "owl"))
    report = compare_deliveries(old, new, base=tiny_clip)
    assert report.names.renamed == (("dog", "truck"),)
    assert (report.texts[0].name, report.texts[0].was) == ("truck", "dog")
    assert [row.what for row in report.metadata] == ["class_names"]


def test_texts_that_depend_on_the_image_are_compared_too(tmp_path: Path, tiny_clip: ClipModel) -> None:
    old = deliver(tmp_path / "old.safetensors", tiny_clip, family="cocoop")
    report = compare_deliveries(old, old, base=tiny_clip)
    assert [move.cosine for move in report.texts] == pytest.approx([1.0] * 3, abs=1e-5)


def test_without_a_base_the_rest_is_compared(tmp_path: Path, tiny_clip: ClipModel) -> None:
    old = deliver(tmp_path / "old.safetensors", tiny_clip)
    new = deliver(tmp_path / "new.safetensors", tiny_clip, names=("cat", "owl", "dog"), moved="dog")
    report = compare_deliveries(old, new)
    assert report.texts == () and report.median is None
    assert "Texts were not compared" in report.notes[0]
    assert "needs the base" in report.old.notes[0]
    assert report.names.moved == (("dog", 1, 2), ("owl", 2, 1))
    assert report.parts[0].changed == 1


def test_a_model_in_another_layout_is_the_same_model(tmp_path: Path, tiny_clip: ClipModel) -> None:
    state = {name: values.contiguous() for name, values in tiny_clip.clip.state_dict().items()}
    plain = write(tmp_path / "plain.safetensors", **state)
    text = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    custom = {f"text.{name}" if name.startswith(text) else name: values for name, values in state.items()}
    twin = write(tmp_path / "twin.safetensors", **custom)
    report = compare_deliveries(plain, twin)
    assert report.tensors == ()
    assert {part.part: part.changed for part in report.parts} == {
        "image tower": 0,
        "text tower": 0,
        "head": 0,
        "logit scale": 0,
    }
    assert report.changed  # the bytes do
    touched = write(tmp_path / "touched.safetensors", **{**state, "visual.proj": state["visual.proj"] * 2})
    (change,) = compare_deliveries(plain, touched).tensors
    assert (change.name, change.part, change.relative_l2) == ("visual.proj", "head", pytest.approx(1.0))


def test_what_stands_beside_the_tensors_is_listed(tmp_path: Path) -> None:
    ctx = torch.ones(4, 64)
    torch.save({"state_dict": {"ctx": ctx}, "epoch": 50, "val_result": None}, tmp_path / "old.pth")
    torch.save({"state_dict": {"ctx": ctx}, "epoch": 51, "note": "resent"}, tmp_path / "new.pth")
    report = compare_deliveries(tmp_path / "old.pth", tmp_path / "new.pth")
    rows = {row.what: (row.old, row.new) for row in report.metadata}
    assert (rows["epoch"], rows["note"]) == (("50", "51"), (None, "resent"))
    assert report.changed and report.tensors == ()


def test_names_of_code_that_came_in_are_listed_and_nothing_runs(tmp_path: Path) -> None:
    class Fires:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "fired",)

    torch.save({"ctx": torch.ones(4, 64)}, tmp_path / "old.pth")
    (tmp_path / "new.pkl").write_bytes(pickle.dumps({"ctx": np.ones((4, 64), np.float32), "more": Fires()}))
    report = compare_deliveries(tmp_path / "old.pth", tmp_path / "new.pkl")
    rows = {row.what: (row.old, row.new) for row in report.metadata}
    assert "touch" in str(rows["(names of code)"][1])
    assert not (tmp_path / "fired").exists()


def test_texts_beside_a_run_are_compared(tmp_path: Path) -> None:
    for name, trainer in (("old", "CoOp"), ("new", "ProGrad")):
        (tmp_path / name / "prompt_learner").mkdir(parents=True)
        torch.save({"state_dict": {"ctx": torch.ones(4, 64)}}, tmp_path / name / "prompt_learner" / "model.pth.tar-5")
        (tmp_path / name / "log.txt").write_text(f"Loading trainer: {trainer}\n")
    rows = {row.what: (row.old, row.new) for row in compare_deliveries(tmp_path / "old", tmp_path / "new").metadata}
    assert rows["(beside it: trainer)"] == ("CoOp", "ProGrad")


def test_tensors_of_no_known_layout_are_still_compared(tmp_path: Path) -> None:
    old, new = write(tmp_path / "a.safetensors", x=torch.ones(2)), write(tmp_path / "b.safetensors", x=torch.zeros(2))
    report = compare_deliveries(old, new)
    assert (report.old.family, report.tensors[0].relative_l2) == ("", 1.0)
    assert "expected a checkpoint of" in report.old.notes[0]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(b"PK\3\4")
    with pytest.raises(UnreadableError, match=r"cut\.pt"):
        compare_deliveries(tmp_path / "cut.pt", tmp_path / "cut.pt")
