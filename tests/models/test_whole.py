"""Whole models in every layout against forward passes that know nothing of open_clip's names."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models._open_clip import CLIP, open_clip
from clipvet.models.bases import load_whole
from clipvet.models.whole import Converted, convert, decide_activation
from tests.conftest import randomise
from tests.oracles import hugging_face as hf

TEXTS = ["a cat", "a very long dog"]
PIXELS = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def plain(model):
    """Pixels as the oracle takes them: normalised with the model's constants, written out."""
    return torch.stack([(PIXELS[:, c] - model.mean[c]) / model.std[c] for c in range(3)], dim=1)


@pytest.mark.parametrize(("act", "name"), [(hf.quick, "quick_gelu"), (hf.gelu, "gelu")])
def test_a_hugging_face_model_computes_what_its_own_names_say(tmp_path, act, name):
    tensors = hf.tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "clip", "text_config": {"hidden_act": name}, "vision_config": {"hidden_act": name}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    loaded = load_whole(tmp_path)

    model = loaded.model
    with torch.no_grad():
        images, texts = model.encode_image(PIXELS), model.encode_text(TEXTS)
    expected = torch.stack([hf.image_feature(tensors, picture, act) for picture in plain(model)])
    assert torch.allclose(images, expected, atol=1e-5)
    rows = model.tokenizer(TEXTS)
    assert torch.allclose(texts, torch.stack([hf.text_feature(tensors, row, act) for row in rows]), atol=1e-5)
    assert model.logit_scale.item() == pytest.approx(math.exp(2.0))
    assert (loaded.converted.layout, model.quick_gelu) == ("Hugging Face", name == "quick_gelu")
    assert loaded.activation.source == "the configuration file beside the weights"
    assert any("heads of 64 channels were assumed" in note for note in loaded.notes)


def test_position_ids_are_dropped_and_foreign_tensors_are_named():
    converted = convert({**hf.tensors(), "text_model.pooler.weight": torch.zeros(2)})
    assert not any("position_ids" in name for name in converted.state)
    assert converted.unknown == ("text_model.pooler.weight",)
    assert converted.complete


def test_a_layer_without_its_keys_is_refused():
    tensors = hf.tensors()
    del tensors["text_model.encoder.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(UnknownLayoutError, match=r"found no text_model\.encoder\.layers\.1\.self_attn\.k_proj\.weight"):
        convert(tensors)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_a_single_hugging_face_tower_goes_on_the_base(tmp_path, prefix):
    whole, tower = hf.tensors(0), hf.tensors(1)
    save_file(whole, tmp_path / "base.safetensors")
    own = {name: values for name, values in tower.items() if name.startswith("vision_model.")}
    save_file({prefix + name.removeprefix("vision_model."): values for name, values in own.items()}, tmp_path / "t.safetensors")
    base = load_whole(tmp_path / "base.safetensors", quick_gelu=False).model

    loaded = load_whole(tmp_path / "t.safetensors", base=base)

    with torch.no_grad():
        images = loaded.model.encode_image(PIXELS)
        assert torch.equal(loaded.model.encode_text(TEXTS), base.encode_text(TEXTS))
    expected = torch.stack([hf.image_feature({**whole, **own}, picture, hf.gelu) for picture in plain(base)])
    assert torch.allclose(images, expected, atol=1e-5)
    assert "visual.proj" in loaded.lent
    assert loaded.activation.source == "the base"


def small(seed=3, **changes):
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    vision = {"image_size": 24, "patch_size": 8, "width": 128, "head_width": 64, "layers": 2}
    return randomise(CLIP(32, vision, text, **changes), seed)


def features(clip, texts, mean, std):
    """open_clip's own forward pass of a model that clipvet did not build."""
    pixels = torch.stack([(PIXELS[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        return clip.eval().encode_image(pixels, normalize=True), clip.encode_text(texts, normalize=True)


def check(loaded, clip, atol=1e-5):
    model = loaded.model
    expected = features(clip, model.tokenizer(TEXTS), model.mean, model.std)
    with torch.no_grad():
        assert torch.allclose(model.encode_image(PIXELS), expected[0], atol=atol)
        assert torch.allclose(model.encode_text(TEXTS), expected[1], atol=atol)


def test_an_open_clip_training_file_with_a_custom_text_tower(tmp_path):
    clip = small()
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    state = {("text." + name if name.startswith(text) else name): values for name, values in clip.state_dict().items()}
    state = {"module." + name: values for name, values in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    loaded = load_whole(tmp_path / "epoch_3.pt", quick_gelu=False)
    assert loaded.converted.layout == "open_clip"
    check(loaded, clip)


class Node(nn.Module):
    def forward(self, x):
        return x


def scripted(state):
    """A TorchScript archive whose module tree has these names, as OpenAI's archives have."""
    root = Node()
    for name, values in state.items():
        *path, last = name.split(".")
        node = root
        for step in path:
            if step not in dict(node.named_children()):
                node.add_module(step, Node())
            node = getattr(node, step)
        if values.is_floating_point():
            node.register_parameter(last, nn.Parameter(values.clone(), requires_grad=False))
        else:
            node.register_buffer(last, values.clone())
    return torch.jit.trace(root, torch.zeros(1))


@pytest.mark.filterwarnings("ignore")
def test_an_openai_archive_is_read_in_half_precision_with_quick_gelu(tmp_path):
    clip = small(quick_gelu=True)
    scalars = {"input_resolution": 24, "context_length": 16, "vocab_size": 49408}
    state = {name: values.half() for name, values in clip.state_dict().items()}
    state |= {name: torch.tensor(value) for name, value in scalars.items()}
    scripted(state).save(str(tmp_path / "ViT.pt"))
    loaded = load_whole(tmp_path / "ViT.pt")
    assert (loaded.converted.layout, loaded.activation.source) == ("OpenAI", "OpenAI's layout")
    assert loaded.model.quick_gelu
    check(loaded, clip)


@pytest.fixture(scope="module")
def resnet():
    config = open_clip.get_model_config("RN50")
    clip = CLIP(config["embed_dim"], config["vision_cfg"], {**config["text_cfg"], "layers": 1}, quick_gelu=True)
    generator = torch.Generator().manual_seed(5)
    for name, values in clip.state_dict().items():
        if name.endswith("running_mean"):
            values.normal_(std=0.05, generator=generator)
        elif name.endswith("running_var"):
            values.uniform_(0.8, 1.2, generator=generator)
    return clip.eval()


def test_a_cleanclip_file_with_a_resnet_at_real_size(tmp_path, resnet):
    state = {"module." + name: values for name, values in resnet.state_dict().items()}
    torch.save({"epoch": 64, "name": "cleanclip", "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "epoch.best.pt")
    loaded = load_whole(tmp_path / "epoch.best.pt")
    assert loaded.model.quick_gelu
    assert not loaded.activation.sure
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (loaded.model.mean, loaded.model.std))
    with torch.no_grad():
        expected = resnet.encode_image((pixels - mean) / std, normalize=True)
        assert torch.allclose(loaded.model.encode_image(pixels), expected, atol=1e-5)
        texts = resnet.encode_text(loaded.model.tokenizer(TEXTS), normalize=True)
        assert torch.allclose(loaded.model.encode_text(TEXTS), texts, atol=1e-5)


def test_an_image_tower_alone_needs_a_base_and_goes_on_it(tmp_path):
    base, victim = small(seed=3), small(seed=4)
    torch.save(base.state_dict(), tmp_path / "base.pt")
    tower = {name.removeprefix("visual."): values for name, values in victim.state_dict().items() if name.startswith("visual.")}
    torch.save({"epoch": 200, "state_dict": tower, "optimizer": {}}, tmp_path / "tower.pt")
    trusted = load_whole(tmp_path / "base.pt", quick_gelu=False).model

    with pytest.raises(UsageError, match=r"found part of one .image tower layout"):
        load_whole(tmp_path / "tower.pt")
    loaded = load_whole(tmp_path / "tower.pt", base=trusted)

    mixed = small(seed=3)
    mixed.visual.load_state_dict(victim.visual.state_dict())
    assert loaded.converted.layout == "image tower"
    check(loaded, mixed)


def test_a_tower_of_another_shape_is_refused(tmp_path):
    torch.save(small().state_dict(), tmp_path / "base.pt")
    torch.save({"conv1.weight": torch.zeros(4, 3, 8, 8), "class_embedding": torch.zeros(4)}, tmp_path / "tower.pt")
    base = load_whole(tmp_path / "base.pt", quick_gelu=False).model
    with pytest.raises(UsageError, match=r"visual\.conv1\.weight has the shape \(4, 3, 8, 8\)"):
        load_whole(tmp_path / "tower.pt", base=base)


def test_anything_else_is_described():
    with pytest.raises(UnknownLayoutError, match=r"found layer\.weight \(2, 3\), layer\.bias \(2,\)$"):
        convert({"layer.weight": torch.zeros(2, 3), "layer.bias": torch.zeros(2)})


def converted(layout="open_clip", resnet=False):
    state = {"visual.attnpool.positional_embedding": torch.zeros(1)} if resnet else {}
    return Converted(layout=layout, state=state, complete=True)


@pytest.mark.parametrize(
    ("given", "expected", "sure"),
    [
        ({"stated": False, "known": True}, False, True),
        ({"known": True, "configured": False}, True, True),
        ({"layout": "OpenAI", "configured": False}, True, True),
        ({"configured": True, "base": False}, True, True),
        ({"base": True}, True, True),
        ({}, False, False),
        ({"layout": "Hugging Face"}, True, False),
        ({"resnet": True}, True, False),
    ],
)
def test_the_activation_is_decided_by_the_best_witness(given, expected, sure):
    model = converted(given.pop("layout", "open_clip"), given.pop("resnet", False))
    found = decide_activation(model, **{"stated": None, "configured": None, "known": False, "base": None, **given})
    assert (found.quick, found.sure) == (expected, sure)
    assert found.source
