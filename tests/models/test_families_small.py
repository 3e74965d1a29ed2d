"""Reading, beginning and writing prompts of every family on a tiny CLIP."""

import pytest
import torch
from open_clip.model import CLIP

from clipvet.errors import UnknownLayoutError, UsageError
from clipvet.models import _class_tokens
from clipvet.models.base import ClipModel, TextInput
from clipvet.models.families import FAMILIES, full_state, new_prompt, prompt_from_tensors
from clipvet.models.prompts import Prompt, PromptedClassifier
from clipvet.models.zeroshot import HandWritten

NAMES = ("red_apple", "cat", "grinning face")
UNNAMED = ("vpt", "zero-shot")  # their files carry no class names
TUNABLE = [family for family in FAMILIES if family != "zero-shot"]


def pictures(n=2):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model, prompt, names=NAMES):
    return PromptedClassifier(model, prompt, names)(pictures())


@pytest.mark.parametrize("family", FAMILIES)
def test_state_reads_back_to_the_same_logits(family, tiny_clip):
    prompt = new_prompt(family, tiny_clip, NAMES, seed=3)
    assert isinstance(prompt, Prompt)
    assert prompt.family == family
    again = prompt_from_tensors(family, prompt.state(), tiny_clip, NAMES)
    assert torch.equal(logits(tiny_clip, again), logits(tiny_clip, prompt))
    whole = prompt_from_tensors(family, full_state(prompt, tiny_clip), tiny_clip, NAMES)
    assert torch.equal(logits(tiny_clip, whole), logits(tiny_clip, prompt))
    assert full_state(prompt, tiny_clip).keys() >= prompt.state().keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_everything_random(family, tiny_clip):
    first, same, other = (new_prompt(family, tiny_clip, NAMES, init="", seed=seed).state() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not first or any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in (*UNNAMED, "tcp")])
def test_without_names_the_saved_suffix_serves(family, tiny_clip):
    prompt = new_prompt(family, tiny_clip, NAMES, seed=3)
    half = {key: tensor.half() for key, tensor in prompt.state().items()}
    unnamed = prompt_from_tensors(family, half, tiny_clip, None)
    named = prompt_from_tensors(family, half, tiny_clip, NAMES)
    assert torch.equal(unnamed.tokens.eot, named.tokens.eot)
    assert torch.allclose(logits(tiny_clip, unnamed), logits(tiny_clip, named), atol=1e-4)


@pytest.mark.parametrize("position", ["middle", "front"])
def test_without_names_their_lengths_come_from_the_suffix(position, tiny_clip):
    state = new_prompt("coop", tiny_clip, NAMES, seed=3).state()
    unnamed, named = (prompt_from_tensors("coop", state, tiny_clip, names, position=position) for names in (None, NAMES))
    assert torch.equal(unnamed.tokens.lengths, named.tokens.lengths)
    assert torch.equal(logits(tiny_clip, unnamed), logits(tiny_clip, named))


@pytest.mark.parametrize("family", [*UNNAMED, "tcp"])
def test_families_that_need_names_ask_for_them(family, tiny_clip):
    state = new_prompt(family, tiny_clip, NAMES, seed=3).state()
    with pytest.raises(UsageError, match="expected class names"):
        prompt_from_tensors(family, state, tiny_clip, None)


@pytest.mark.parametrize("family", TUNABLE)
def test_gradients_reach_every_parameter_and_the_pixels(family, tiny_clip):
    prompt = new_prompt(family, tiny_clip, NAMES, seed=3)
    images = pictures().requires_grad_()
    PromptedClassifier(tiny_clip, prompt, NAMES)(images).log_softmax(1)[:, 0].sum().backward()
    assert float(images.grad.abs().max()) > 0
    for name, parameter in prompt.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_classes_have_their_own_columns(family, tiny_clip):
    classifier = PromptedClassifier(tiny_clip, new_prompt(family, tiny_clip, NAMES, seed=3), NAMES)
    chosen = torch.tensor([2, 0])
    with torch.no_grad():
        assert torch.allclose(classifier(pictures(), classes=chosen), classifier(pictures())[:, chosen], atol=1e-5)
        classifier.freeze()
        assert torch.allclose(classifier(pictures(), classes=chosen), classifier(pictures())[:, chosen], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_does_not_depend_on_the_others(family, tiny_clip):
    prompt = new_prompt(family, tiny_clip, NAMES, seed=3)
    alone = prompt_from_tensors(family, prompt.state(), tiny_clip, NAMES[1:2])
    assert torch.allclose(logits(tiny_clip, alone, NAMES[1:2]), logits(tiny_clip, prompt)[:, 1:2], atol=1e-5)


def test_a_new_coop_prompt_is_the_hand_written_one(tiny_clip):
    prompt = new_prompt("coop", tiny_clip, NAMES, seed=0)
    written = HandWritten(tiny_clip, [name.replace("_", " ") for name in NAMES])
    assert torch.allclose(logits(tiny_clip, prompt), logits(tiny_clip, written), atol=1e-5)


def test_words_without_a_vector_stay_words(tiny_clip):
    prompt = new_prompt("ivlp", tiny_clip, NAMES, depth=1, n_ctx=2, seed=0)
    prompt.visual_prompts = tuple  # the text side alone
    assert torch.allclose(logits(tiny_clip, prompt), logits(tiny_clip, HandWritten(tiny_clip, NAMES)), atol=1e-5)


def cocoop_features(model, prompt, features, **cut):
    """The same texts written out by hand: one image at a time, no cut, no chunks."""
    bias = torch.relu(features @ prompt.meta_net.linear1.weight.T + prompt.meta_net.linear1.bias)
    bias = bias @ prompt.meta_net.linear2.weight.T + prompt.meta_net.linear2.bias
    texts = [f"x x x x {name.replace('_', ' ')}." for name in NAMES]
    tokens = model.tokenize(texts)
    rows = []
    for shift in bias:
        embeddings = model.embed(tokens).clone()
        embeddings[:, 1:5] = prompt.ctx + shift
        rows.append(model.encode_embeddings(TextInput(embeddings=embeddings, eot=tokens.argmax(1)), cut=False))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk_bytes", [1, 10**6, 10**9])
def test_cocoop_is_the_same_cut_or_not_in_any_chunks(chunk_bytes, tiny_clip, monkeypatch):
    monkeypatch.setattr(_class_tokens, "CHUNK_BYTES", chunk_bytes)
    prompt = new_prompt("cocoop", tiny_clip, NAMES, seed=3)
    features = torch.nn.functional.normalize(torch.randn(4, 64, generator=torch.Generator().manual_seed(2)), dim=1)
    mine, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    got, expected = prompt.text_features(tiny_clip, mine), cocoop_features(tiny_clip, prompt, theirs)
    assert got.shape == (4, 3, 64)
    assert torch.allclose(got, expected, atol=1e-6)
    weight = torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(4))
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-4)
    with torch.no_grad():
        prompt.cut = False
        assert torch.allclose(prompt.text_features(tiny_clip, features), expected, atol=1e-6)


def test_chunks_bound_the_texts_encoded_at_once(tiny_clip, monkeypatch):
    sizes = []
    whole = tiny_clip.encode_embeddings
    monkeypatch.setattr(tiny_clip, "encode_embeddings", lambda text, **k: (sizes.append(len(text.eot)), whole(text, **k))[1])
    monkeypatch.setattr(_class_tokens, "CHUNK_BYTES", 80 * 3 * 64 * 10 * 4)
    prompt = new_prompt("cocoop", tiny_clip, ["cat"] * 7, seed=3)
    prompt.text_features(tiny_clip, torch.eye(64)[:5])
    assert sum(sizes) == 35
    assert 1 < max(sizes) <= 10


def test_the_wording_is_recognised_from_the_suffix(tiny_clip):
    for wording, feature in (
        ("X X X X {}, a type of flower.", "a photo of a {}, a type of flower."),
        ("X X X X {}.", "a photo of a {}."),
        ("a photo of a person doing {}.", "a photo of a person doing {}."),
    ):
        state = new_prompt("tcp", tiny_clip, NAMES, seed=3).state()
        tokens = tiny_clip.tokenize([wording.replace("{}", name.replace("_", " ")) for name in NAMES])
        state["token_suffix"] = tiny_clip.embed(tokens)[:, 5:].half()
        prompt = prompt_from_tensors("tcp", state, tiny_clip, NAMES)
        expected = tiny_clip.encode_text([feature.replace("{}", name.replace("_", " ")) for name in NAMES])
        assert prompt.tokens.wording == wording
        assert torch.allclose(prompt.class_features, expected, atol=1e-6)
    given = prompt_from_tensors("tcp", state, tiny_clip, NAMES, wording="X X X X {}!", feature_wording="satellite {}.")
    assert given.tokens.wording == "X X X X {}!"


def test_tcp_uses_the_last_block_of_a_shallow_tower(tiny_clip):
    assert new_prompt("tcp", tiny_clip, NAMES, seed=0).block == 2


def test_tcp_tokens_may_reach_beyond_a_short_text(tiny_clip):
    prompt = new_prompt("tcp", tiny_clip, ["a"], n_ctx=1, init="", seed=0)
    prompt.tokens.eot -= 1  # as if the text ended before the fourth replaced position
    assert logits(tiny_clip, prompt, ["a"]).shape == (2, 1)


def test_depth_is_bounded_by_the_towers(tiny_clip):
    assert len(new_prompt("vpt", tiny_clip, NAMES, seed=0).visual_prompts()) == 3
    assert len(new_prompt("maple", tiny_clip, NAMES, depth=2, seed=0).visual_prompts()) == 2
    with pytest.raises(UsageError, match=r"expected a depth of 1 to 3 .* got 4"):
        new_prompt("vpt", tiny_clip, NAMES, depth=4, seed=0)


def test_tokens_are_rounded_to_half_and_pass_gradients(tiny_clip):
    prompt = new_prompt("vpt", tiny_clip, NAMES, seed=0)
    for token in prompt.visual_prompts():
        assert torch.allclose(token, token.half().float(), rtol=1e-6, atol=0)
    assert not torch.equal(prompt.visual_prompts()[0], prompt.visual[0])


def break_state(family, tiny_clip, **changes):
    state = new_prompt(family, tiny_clip, NAMES, seed=3).state()
    for key, change in changes.items():
        key = key.replace("__", ".")
        value = change(state.get(key))
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return prompt_from_tensors(family, state, tiny_clip, NAMES)


def gone(_):
    return None


@pytest.mark.parametrize(
    ("family", "changes", "error", "match"),
    [
        ("coop", {"ctx": gone}, UnknownLayoutError, "expected a tensor 'ctx', found token_prefix, token_suffix: "),
        ("coop", {"ctx": lambda t: t[:, :9]}, UsageError, r"expected 'ctx' of shape \(any, 64\), found \(4, 9\)"),
        ("coop", {"ctx": lambda t: t.int()}, UnknownLayoutError, "floating-point values in 'ctx', found torch.int32"),
        ("coop", {"ctx": lambda t: t.expand(2, -1, -1)}, UsageError, "expected 2 class names for a class-specific context, got 3"),
        ("coop", {"ctx": lambda t: t.repeat(8, 1)}, UsageError, "expected fewer than 30 context vectors, got 32"),
        ("coop", {"token_suffix": lambda t: t[:, :5]}, UsageError, r"'token_suffix' of shape \(any, 27, 64\), found \(3, 5, 64\)"),
        ("coop", {"meta_net__linear2__weight": lambda _: torch.zeros(2, 2)}, UnknownLayoutError, "also meta_net.linear2.weight"),
        ("cocoop", {"meta_net__linear1__weight": lambda t: t.T}, UsageError, r"shape \(any, 64\), found \(64, 32\)"),
        ("cocoop", {"meta_net__linear2__weight": lambda t: t[:, :2]}, UsageError, "take the 32 values of linear1, found 2"),
        ("tcp", {"meta_net__linear2__bias": gone}, UnknownLayoutError, "expected a tensor 'meta_net.linear2.bias'"),
        (
            "tcp",
            {"meta_net__linear2__weight": lambda t: t[:99], "meta_net__linear2__bias": lambda t: t[:99]},
            UsageError,
            "multiple of 64 values, found 99",
        ),
        ("maple", {"prompt_learner__proj__bias": gone}, UnknownLayoutError, "expected a tensor 'proj.bias'"),
        ("maple", {"prompt_learner__odd": lambda _: torch.zeros(1)}, UnknownLayoutError, "found also prompt_learner.odd"),
        ("vpt", {"image_encoder__VPT": gone}, UnknownLayoutError, "expected a tensor 'image_encoder.VPT'"),
        (
            "vpt",
            {"image_encoder__transformer__resblocks__1__VPT_shallow": gone},
            UnknownLayoutError,
            "consecutive blocks from 1 on, at most 2, found .*resblocks.2",
        ),
        ("vpt", {"prompt_learner__ctx": lambda _: torch.zeros(1)}, UnknownLayoutError, "found also prompt_learner.ctx"),
        ("ivlp", {"prompt_learner__ZS_image_encoder__proj": lambda _: torch.zeros(1)}, UnknownLayoutError, "found also"),
    ],
)
def test_what_does_not_fit_is_named(family, changes, error, match, tiny_clip):
    with pytest.raises(error, match=match):
        break_state(family, tiny_clip, **changes)


def test_other_mistakes_are_named(tiny_clip):
    state = new_prompt("coop", tiny_clip, NAMES, seed=3).state()
    with pytest.raises(UsageError, match=r"expected a prompt family of coop, .*, got 'co-op'"):
        prompt_from_tensors("co-op", state, tiny_clip, NAMES)
    with pytest.raises(UsageError, match="expected the class name at end or middle or front for coop, got 'back'"):
        prompt_from_tensors("coop", state, tiny_clip, NAMES, position="back")
    for family in ("kgcoop", "cocoop", "tcp", "maple", "ivlp"):
        own = new_prompt(family, tiny_clip, NAMES, seed=3).state()
        with pytest.raises(UsageError, match=f"expected the class name at end for {family}, got 'front'"):
            prompt_from_tensors(family, own, tiny_clip, NAMES, position="front")
    with pytest.raises(UsageError, match="class names that are not blank"):
        prompt_from_tensors("coop", state, tiny_clip, ["cat", " "])
    with pytest.raises(UsageError, match=r"got 'cat cat .*' of 30 tokens: shorten it"):
        prompt_from_tensors("coop", state, tiny_clip, ["dog", "cat " * 40])
    with pytest.raises(UnknownLayoutError, match="end-of-text token of the base in every row"):
        prompt_from_tensors("coop", state | {"token_suffix": torch.zeros(2, 27, 64)}, tiny_clip, None)
    with pytest.raises(UsageError, match="at least one context vector, got 0"):
        new_prompt("coop", tiny_clip, NAMES, n_ctx=0, seed=0)
    with pytest.raises(UsageError, match="expected image features for a CoCoOp prompt"):
        new_prompt("cocoop", tiny_clip, NAMES, seed=0).text_features(tiny_clip)
    with pytest.raises(UsageError, match=r"expected templates with \{\}"):
        HandWritten(tiny_clip, NAMES, ("a photo",))


def test_a_resnet_takes_text_prompts_only(tiny_clip):
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32}
    clip = CLIP(64, vision, {"context_length": 32, "vocab_size": 4096, "width": 64, "heads": 2, "layers": 2})
    resnet = ClipModel(clip, tiny_clip.tokenizer, name="resnet", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert logits(resnet, new_prompt("cocoop", resnet, NAMES, seed=0)).shape == (2, 3)
    for family in ("vpt", "ivlp", "maple"):
        with pytest.raises(UsageError, match=f"expected a vision transformer as base of a {family} prompt, got resnet"):
            new_prompt(family, resnet, NAMES, seed=0)
