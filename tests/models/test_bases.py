"""Bases by name, by file and by remote name; what a file can and cannot ask for while a model is built around it."""

import hashlib
import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import save_file

from clipvet.errors import UnknownLayoutError, UnreadableError, UsageError
from clipvet.models import _pocket, _remote, bases
from clipvet.models._architecture import architecture_of, build_clip, infer_architecture, known_architecture
from clipvet.models._hints import read_hints
from clipvet.models._open_clip import CLIP, open_clip
from clipvet.models.bases import KNOWN, known_name, load_base, with_activation, with_state
from tests.conftest import randomise

TEXTS = ["a cat", "two dogs"]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Assets with two random pocket bases, in half precision as they are shipped."""
    config = json.loads((_pocket.ASSETS / "pocket.json").read_text())
    for name in ("pocket.json", "bpe.txt.gz"):
        shutil.copy(_pocket.ASSETS / name, tmp_path / name)
    monkeypatch.setattr(_pocket, "ASSETS", tmp_path)
    for seed in range(2):
        clip = randomise(CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]), seed)
        path = tmp_path / f"pocket-{seed}.safetensors"
        save_file({name: values.half() for name, values in clip.state_dict().items()}, path)
        (tmp_path / f"pocket-{seed}.json").write_text(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    return tmp_path


def test_the_published_hashes_are_those_that_open_clip_downloads():
    for name, digest in KNOWN.items():
        assert digest in open_clip.get_pretrained_cfg(name, "openai")["url"]
        assert known_name(digest) == f"openai/{name}"
    assert len(KNOWN) == 9
    assert known_name("0" * 64) == known_name("") == ""


def test_a_shipped_base_loads_by_name_without_network(shipped, no_network):
    base = load_base("pocket-1")
    assert (base.name, base.image_size, base.context_length, base.embed_dim) == ("pocket-1", 64, 32, 128)
    assert (base.mean, base.std) == ((0.5,) * 3, (0.5,) * 3)
    assert known_name(base.sha256) == "pocket-1"
    config = json.loads((shipped / "pocket.json").read_text())
    original = randomise(CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]), 1).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(base.encode_image(images), original.encode_image(images * 2 - 1, normalize=True), atol=1e-5)
        expected = original.encode_text(base.tokenizer(TEXTS), normalize=True)
        assert torch.allclose(base.encode_text(TEXTS), expected, atol=1e-5)


def test_the_same_file_by_path_is_recognised_as_pocket(shipped):
    base = load_base(shipped / "pocket-0.safetensors")
    assert base.name == "pocket-0"
    assert architecture_of(base) == architecture_of(load_base("pocket-0"))
    assert base.tokenizer(["cat"]).tolist() == load_base("pocket-0").tokenizer(["cat"]).tolist()


def test_a_shipped_base_that_is_missing_or_changed_is_refused(shipped):
    (shipped / "pocket-0.safetensors").unlink()
    with pytest.raises(UnreadableError, match="pocket-0 is missing: reinstall"):
        load_base("pocket-0")
    (shipped / "pocket-1.json").write_text(json.dumps({"sha256": "ab" * 32}))
    with pytest.raises(UnreadableError, match="expected the shipped base pocket-1 to have the SHA-256 abab"):
        load_base("pocket-1")


def test_names_without_weights_say_what_to_do(no_network):
    with pytest.raises(UsageError, match="found no file or name 'ViT-Q-99'"):
        load_base("ViT-Q-99")
    with pytest.raises(UsageError, match="'ViT-B/16=FILE'"):
        load_base("ViT-B/16")
    with pytest.raises(UsageError, match="before '=', found 'nonsense'"):
        load_base("nonsense=weights.pt")
    with pytest.raises(UnreadableError, match="no such file"):
        load_base("ViT-B-16=/nowhere/weights.pt")
    with pytest.raises(UnknownLayoutError, match="ViT-B-16-SigLIP has towers that are not understood"):
        load_base("ViT-B-16-SigLIP")


def test_a_name_with_weights_must_fit_them(tmp_path, tiny_clip):
    path = tmp_path / "tiny.pt"
    torch.save(tiny_clip.clip.state_dict(), path)
    with pytest.raises(UsageError, match="found a CLIP of another shape"):
        load_base(f"RN50={path}")


def test_a_name_decides_the_activation(monkeypatch, tmp_path, tiny_clip):
    path = tmp_path / "tiny.pt"
    torch.save(tiny_clip.clip.state_dict(), path)
    shapes = architecture_of(tiny_clip)
    monkeypatch.setattr(bases, "known_architecture", lambda name: shapes)
    assert load_base(f"ViT-B-16-quickgelu={path}").quick_gelu
    assert not load_base("ViT-B-16", path).quick_gelu
    assert load_base("ViT-B-16", path, quick_gelu=True).quick_gelu


def test_a_remote_name_is_fetched_and_nothing_else_is(monkeypatch, tmp_path, tiny_clip):
    path = tmp_path / "tiny.pt"
    torch.save(tiny_clip.clip.state_dict(), path)
    asked = []
    monkeypatch.setattr(bases, "fetch", lambda name: asked.append(name) or (path, True))
    base = load_base("openclip:ViT-B-16/openai")
    assert asked == ["openclip:ViT-B-16/openai"]
    assert (base.name, base.quick_gelu) == ("openclip:ViT-B-16/openai", True)
    assert load_base(path).name == str(path)
    assert len(asked) == 1


def test_a_remote_name_that_is_not_published_lists_those_that_are():
    with pytest.raises(UsageError, match="tags known for 'ViT-B-16': openai, laion400m_e31"):
        load_base("openclip:ViT-B-16/none")


def test_a_remote_source_out_of_reach_is_one_sentence(monkeypatch):
    def unreachable(config):
        raise ConnectionError("no route")

    monkeypatch.setattr(_remote.open_clip, "download_pretrained", unreachable)
    with pytest.raises(UnreadableError, match=r"openai cannot be fetched \(ConnectionError\)"):
        load_base("openclip:ViT-B-16/openai")


PUBLISHED = ("RN50", "RN101", "RN50x4", "ViT-B-32", "ViT-B-16", "ViT-L-14-336", "ViT-H-14", "ViT-g-14")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_is_read_off_shapes(name):
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        state = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).state_dict()
    known = known_architecture(name)
    assert infer_architecture(state) == known.shapes
    with torch.device("meta"):
        again = CLIP(**known.open_clip_arguments())
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in state.items()}
    vision = again.visual
    heads = vision.attnpool.num_heads if name.startswith("RN") else vision.transformer.resblocks[0].attn.num_heads
    assert known.heads == heads
    published = {"RN50x4": (40, 10), "ViT-H-14": (16, 16), "ViT-g-14": (16, 16), "ViT-L-14-336": (16, 12)}
    assert published.get(name, (known.heads, known.text_heads)) == (known.heads, known.text_heads)


def test_openai_heads_are_64_channels_where_nothing_is_known():
    known = known_architecture("ViT-L-14")
    assert known.shapes.with_default_heads() == known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.positional_embedding": torch.zeros(18, 64)}, "18 positions are no square"),
        ({"text_projection": torch.zeros(64)}, r"text_projection has the shape \(64,\)"),
        ({"positional_embedding": None}, "positional_embedding"),
        ({"transformer.resblocks.7.ln_1.weight": torch.zeros(64)}, r"4 blocks under transformer\.resblocks\."),
    ],
)
def test_shapes_that_add_up_to_no_clip_are_refused(tiny_clip, change, message):
    state = {name: values for name, values in {**tiny_clip.clip.state_dict(), **change}.items() if values is not None}
    with pytest.raises(UnknownLayoutError, match=message):
        infer_architecture(state)


def test_a_file_cannot_ask_for_more_memory_than_it_has(tiny_clip):
    # ln_final is not what widths are read from; the token table is: this would be a text tower of 40,000 channels.
    state = dict(tiny_clip.clip.state_dict())
    state["text_projection"] = torch.zeros(1).expand(40_000, 64)
    architecture = infer_architecture(state).with_default_heads()
    with pytest.raises(UnknownLayoutError, match=r"do not fit the CLIP that they seem to be: .* of another shape"):
        build_clip(architecture, state, quick_gelu=False)


def test_building_draws_nothing_and_shares_the_tensors(tiny_clip):
    before = torch.get_rng_state()
    state = tiny_clip.clip.state_dict()
    clip = build_clip(architecture_of(tiny_clip), state, quick_gelu=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert clip.token_embedding.weight.data_ptr() == state["token_embedding.weight"].data_ptr()
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in clip.parameters())
    assert torch.equal(clip.attn_mask, tiny_clip.clip.attn_mask)


def test_a_changed_copy_leaves_the_base_alone(tiny_clip):
    before = {name: values.clone() for name, values in tiny_clip.clip.state_dict().items()}
    changed = with_state(tiny_clip, {"text_projection": torch.eye(64)}, name="changed")
    other = with_activation(tiny_clip, quick_gelu=not tiny_clip.quick_gelu)
    with torch.no_grad():
        texts = [model.encode_text(TEXTS) for model in (tiny_clip, changed, other)]
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)
    assert not torch.allclose(texts[0], texts[2], atol=1e-5)
    assert (changed.name, other.quick_gelu) == ("changed", not tiny_clip.quick_gelu)
    assert with_activation(tiny_clip, quick_gelu=tiny_clip.quick_gelu) is tiny_clip
    assert all(torch.equal(before[name], values) for name, values in tiny_clip.clip.state_dict().items())


LOG = """***** Arguments *****
backbone: 
Loading trainer: ProGrad
Loading dataset: OxfordPets
Loading CLIP (backbone: ViT-B/16)
TRAINER:
  COOP:
    CLASS_TOKEN_POSITION: middle
    N_CTX: 16
  NAME: ProGrad
"""  # noqa: W291 - as Dassl writes an empty value


def test_hints_are_read_from_a_log(tmp_path):
    (tmp_path / "prompt_learner").mkdir()
    (tmp_path / "prompt_learner/model.pth.tar-5").write_bytes(b"x")
    (tmp_path / "log.txt").write_text(LOG)
    for path in (tmp_path, tmp_path / "prompt_learner", tmp_path / "prompt_learner/model.pth.tar-5"):
        hints = read_hints(path)
        assert (hints.position, hints.backbone, hints.dataset, hints.trainer) == ("middle", "ViT-B/16", "OxfordPets", "ProGrad")
        assert hints.sources == ("log.txt",)


def test_hints_are_read_from_yaml_as_text(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "c.yaml").write_text(
        "MODEL:\n  BACKBONE:\n    NAME: RN50\nDATASET:\n  NAME: EuroSAT\nx: !!python/object:os.system\n"
    )
    hints = read_hints(tmp_path)
    assert (hints.backbone, hints.dataset) == ("RN50", "EuroSAT")


def test_hints_that_contradict_themselves_are_none(tmp_path):
    (tmp_path / "log.txt").write_text(
        "CLASS_TOKEN_POSITION: end\nCLASS_TOKEN_POSITION: front\nLoading dataset: A\nLoading dataset: A\n"
    )
    hints = read_hints(tmp_path)
    assert (hints.position, hints.dataset) == ("", "A")


def test_hints_do_not_follow_links_out_of_the_folder(tmp_path):
    (tmp_path / "elsewhere.txt").write_text(LOG)
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.txt").symlink_to(tmp_path / "elsewhere.txt")
    assert read_hints(run).sources == ()


def test_hints_follow_the_links_of_a_hugging_face_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "ab").write_text(json.dumps({"model_type": "clip", "text_config": {}, "vision_config": {}}))
    (snapshot / "config.json").symlink_to(blobs / "ab")
    assert read_hints(snapshot).quick_gelu is True


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": True, "text_cfg": {"heads": 4}}}, (True, 0, 4)),
        ("open_clip_config.json", {"model_cfg": {"embed_dim": 3}}, (False, 0, 0)),
        ("config.json", {"model_type": "clip", "vision_config": {"num_attention_heads": 3}, "text_config": {}}, (True, 3, 0)),
        ("config.json", {"model_type": "bert", "hidden_act": "gelu"}, (None, 0, 0)),
        ("config.json", {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config": {}}, (None, 0, 0)),
        ("config.json", [1, 2], (None, 0, 0)),
    ],
)
def test_hints_from_configuration_files(tmp_path, name, content, expected):
    (tmp_path / name).write_text(json.dumps(content))
    hints = read_hints(tmp_path)
    assert (hints.quick_gelu, hints.heads, hints.text_heads) == expected


def test_pixel_constants_from_a_configuration_are_used_if_they_make_sense(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [9, "x", 0]}))
    hints = read_hints(tmp_path)
    assert (hints.mean, hints.std) == ((0.1, 0.2, 0.3), ())
