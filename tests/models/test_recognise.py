"""Recognition by names and shapes, on files with the official savers' structure."""

import pytest
import torch

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._open_clip import CLIP, open_clip
from clipvet.models.claims import check_prefix, compare_frozen, compare_whole, decode_class_names
from clipvet.models.families import FAMILIES
from clipvet.models.recognise import FAMILY, recognise
from clipvet.types import Severity
from tests.oracles import savers


@pytest.fixture(scope="module")
def shapes():
    """ViT-B/16's state dict without its memory."""
    config = open_clip.get_model_config("ViT-B-16")
    with torch.device("meta"):
        return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).state_dict()


SAVED = {
    "coop": savers.coop,
    "cocoop": savers.cocoop,
    "kgcoop": savers.kgcoop,
    "tcp": savers.tcp,
    "maple": savers.maple,
    "ivlp": savers.ivlp,
    "vpt": savers.vpt,
    "promptsrc": savers.promptsrc,
}


@pytest.mark.parametrize("name", SAVED)
def test_every_family_is_recognised_from_its_official_file(shapes, name):
    assert recognise(SAVED[name](shapes)).name == name


def test_prograd_and_class_specific_coop_have_coops_names(shapes):
    assert recognise(savers.prograd(shapes)).name == "coop"
    assert recognise(savers.coop(shapes, class_specific=True)).name == "coop"


@pytest.mark.parametrize("name", ["maple", "ivlp", "vpt"])
def test_a_file_without_towers_is_recognised_too(shapes, name):
    own = {key: values for key, values in SAVED[name](shapes).items() if "prompt_learner." in key or "VPT" in key}
    assert len(own) < 50
    assert recognise(own).name == name


def test_maple_of_depth_one_has_no_deep_prompts(shapes):
    assert recognise(savers.maple(shapes, depth=1)).name == "maple"


def test_a_whole_model_is_recognised(shapes):
    assert recognise(shapes).name == "whole"


def test_every_family_that_can_be_inspected_has_a_prompt_class():
    assert {name for name, family in FAMILY.items() if not family.unsupported} - {"whole"} == set(FAMILIES) - {"zero-shot"}


ZERO = torch.zeros(1)
UNSUPPORTED = {
    "trigger": {"trigger": torch.zeros(1, 3, 4, 4)},
    "clip-adapter": {"fc.0.weight": torch.zeros(2, 8), "fc.2.weight": torch.zeros(8, 2)},
    "tip-adapter": {"": torch.zeros(8, 4)},
    "clip-lora": {"layer_0.q_proj.w_lora_A": torch.zeros(2, 8), "layer_0.q_proj.w_lora_B": torch.zeros(8, 2)},
    "peft": {"base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 8)},
    "pixel-prompt": {"pad_up": ZERO, "pad_down": ZERO, "pad_left": ZERO, "pad_right": ZERO},
    "vpt-classifier": {"shallow_prompt": torch.zeros(1, 5, 8), "deep_prompt": torch.zeros(11, 5, 8)},
    "cocoop-tcp": {
        "ctx": torch.zeros(4, 512),
        "meta_net.linear1.weight": torch.zeros(64, 512),
        "meta_net.linear2.weight": torch.zeros(2048, 64),
    },
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_inspected_is_named_with_a_reason(name):
    family = recognise(UNSUPPORTED[name])
    assert family.name == name
    assert family.unsupported


@pytest.mark.parametrize(
    "tensors",
    [
        {"layer.weight": torch.zeros(2, 3)},
        {"ctx": torch.zeros(4)},
        {"ctx": torch.zeros(4, 8), "meta_net.linear2.weight": torch.zeros(3, 2), "meta_net.linear1.weight": torch.zeros(2, 8)},
        {"image_encoder.conv1.weight": torch.zeros(2, 3, 1, 1)},
    ],
)
def test_an_unknown_layout_lists_what_was_found_and_what_is_understood(tensors):
    name = next(iter(tensors))
    with pytest.raises(UnknownLayoutError, match=f"expected a checkpoint of CoOp, ProGrad, .*whole model; found {name} "):
        recognise(tensors)


NAMES = ["great white shark", "t-shirt", "jack's cat"]


def suffix(model, wording, n_ctx, names=NAMES, dtype=torch.float16):
    """What a PromptLearner saves: the embeddings behind the context of ``wording`` with each name in it."""
    tokens = model.tokenizer([wording.replace("{}", name) for name in names])
    return model.clip.token_embedding.weight[tokens][:, 1 + n_ctx :].to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_class_names_are_read_back_in_order(tiny_clip, dtype):
    decoded = decode_class_names(suffix(tiny_clip, "X X X X {}.", 4, dtype=dtype), tiny_clip)
    tokens = tiny_clip.tokenizer(list(decoded.names))
    assert torch.equal(tokens, tiny_clip.tokenizer(NAMES))
    assert decoded.names[0] == "great white shark"
    assert (decoded.exact, decoded.distance) == (decoded.total, 0)


@pytest.mark.parametrize(
    ("wording", "n_ctx"),
    [("a photo of a {}.", 2), ("X X X X {}, a type of pet.", 4), ("a photo of a person doing {}.", 4), ("X X {}.", 2)],
)
def test_the_wording_around_a_name_is_taken_off(tiny_clip, wording, n_ctx):
    known = ("a photo of a person doing {}.", "X X X X {}, a type of pet.", "a photo of a {}.")
    decoded = decode_class_names(suffix(tiny_clip, wording, n_ctx), tiny_clip, wordings=known)
    assert torch.equal(tiny_clip.tokenizer(list(decoded.names)), tiny_clip.tokenizer(NAMES))


def test_names_of_another_base_show_as_inexact(tiny_clip):
    rows = suffix(tiny_clip, "X X {}.", 2)
    rows[0, 0] += 0.01
    decoded = decode_class_names(rows, tiny_clip)
    assert (decoded.total - decoded.exact, decoded.names[0]) == (1, "great white shark")
    row = rows[0, 0].float()
    table = tiny_clip.clip.token_embedding.weight.half().float()
    distances = [(torch.dist(row, other) / other.norm()).item() for other in table]
    assert decoded.distance == pytest.approx(min(distances), rel=1e-4)


def test_a_table_of_another_width_or_garbage_is_refused(tiny_clip):
    with pytest.raises(UsageError, match=r"width 64 for the base tiny, got \(2, 10, 512\)"):
        decode_class_names(torch.zeros(2, 10, 512), tiny_clip)
    garbage = torch.randn(40, 29, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="more than 500 token embeddings in the file are not among those of tiny"):
        decode_class_names(garbage, tiny_clip)


def test_values_that_are_not_numbers_do_not_stop_the_decoding(tiny_clip):
    rows = suffix(tiny_clip, "X X {}.", 2)
    rows[1, 0, 0] = float("nan")
    decoded = decode_class_names(rows, tiny_clip)
    assert decoded.total - decoded.exact == 1
    assert decoded.distance == float("inf")


def test_the_start_token_tells_the_base(tiny_clip):
    start = tiny_clip.clip.token_embedding.weight[tiny_clip.tokenizer(["x"])[0, 0]]
    prefix = start.half().expand(3, 1, 64)
    assert check_prefix(prefix, tiny_clip) == []
    (finding,) = check_prefix(prefix + 0.25, tiny_clip)
    assert (finding.severity, finding.title) == (Severity.HIGH, "Not tuned on the claimed base")
    assert "difference of up to 0.25" in finding.message
    (finding,) = check_prefix(torch.zeros(3, 1, 512), tiny_clip)
    assert "found a width of 512" in finding.message


def delivered(model):
    """The towers as the whole-tower families save them, in half precision."""
    out = {}
    for name, values in model.clip.state_dict().items():
        if name.startswith("visual."):
            out["image_encoder." + name.removeprefix("visual.")] = values.half()
            out["prompt_learner.ZS_image_encoder." + name.removeprefix("visual.")] = values.half()
        elif name == "logit_scale":
            out[name] = values
        elif not name.startswith("token_embedding"):
            out["text_encoder." + name] = values.half()
    return out


def test_equal_towers_give_no_finding(tiny_clip):
    tensors = {**delivered(tiny_clip), "image_encoder.VPT": torch.zeros(2, 64), "prompt_learner.ctx": torch.zeros(2, 64)}
    assert compare_frozen(tensors, tiny_clip) == []


@pytest.mark.parametrize("name", ["image_encoder.proj", "text_encoder.ln_final.bias", "prompt_learner.ZS_image_encoder.proj"])
def test_a_changed_tensor_is_named_with_its_largest_difference(tiny_clip, name):
    tensors = delivered(tiny_clip)
    tensors[name] = tensors[name].clone().float()
    tensors[name].view(-1)[3] += 0.5
    (finding,) = compare_frozen(tensors, tiny_clip)
    assert finding.severity is Severity.HIGH
    assert f"1 of {len(tensors)} tensors" in finding.message
    assert f"{name} by up to 0.5" in finding.message


def test_averaging_in_half_precision_is_told_from_tuning(tiny_clip):
    """PromptSRC's file is a Gaussian-weighted average of equal checkpoints, summed in half precision."""
    weights = torch.exp(-((torch.arange(20.0) - 15) ** 2) / 2)
    weights /= weights.sum()
    tensors = delivered(tiny_clip)
    for name, values in tensors.items():
        total = torch.zeros_like(values)
        for weight in weights:
            total = total + values * weight.item()
        tensors[name] = total
    (finding,) = compare_frozen(tensors, tiny_clip)
    assert finding.severity is Severity.LOW
    assert "by no more than rounding" in finding.message


def test_other_shapes_types_and_names_are_findings(tiny_clip):
    tensors = delivered(tiny_clip)
    tensors["image_encoder.proj"] = torch.zeros(2, 2)
    tensors["text_encoder.positional_embedding"] = torch.zeros(32, 64, dtype=torch.int64)
    tensors["image_encoder.hidden"] = torch.zeros(3)
    changed, unknown = compare_frozen(tensors, tiny_clip)
    assert "2 of " in changed.message
    assert changed.severity is Severity.HIGH
    assert "1 tensors have no counterpart in the base and were not used: image_encoder.hidden" in unknown.message


def test_a_whole_model_is_compared_for_information(tiny_clip):
    state = dict(tiny_clip.clip.state_dict())
    assert compare_whole(state, tiny_clip)[0].message.startswith("0 of ")
    state["ln_final.bias"] = state["ln_final.bias"] + 1
    del state["logit_scale"]
    (finding,) = compare_whole(state, tiny_clip)
    assert finding.severity is Severity.INFO
    assert "1 of " in finding.message
    assert "ln_final.bias by up to 1" in finding.message
    assert "1 have another shape or are missing" in finding.message
