"""Logits of every prompt family on ViT-B/16 at real size against oracles that follow the official code."""

import copy
import tempfile
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from clipvet.models._class_tokens import ClassTokens
from clipvet.models.base import ClipModel
from clipvet.models.families import full_state, prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten
from tests.conftest import randomise
from tests.oracles import clip_math, families, savers

# The bound. Logits carry CLIP's factor of 100, so this asks for cosines that agree to 1e-6 in fp32.
TOLERANCE = 1e-4
VISIBLE = 1e-2
NAMES = savers.NAMES
PETS = ("X X X X {}, a type of pet.", "a photo of a {}, a type of pet.")
TEMPLATES = ("a photo of a {}.", "itap of the {}")


@pytest.fixture(scope="module")
def base():
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    clip = randomise(CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True), seed=16)
    with torch.no_grad():
        clip.logit_scale.fill_(100.0).log_()
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    return ClipModel(clip, tokenizer, name="random ViT-B/16", mean=clip_math.OPENAI_MEAN, std=clip_math.OPENAI_STD)


@pytest.fixture(scope="module")
def weights(base):
    return base.clip.state_dict()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def frozen(base, weights, images):
    """Image features of the untouched tower: the oracle's, and those of the wrapper."""
    with torch.no_grad():
        return families.frozen_image(weights, images), base.encode_image(images)


def test_the_frozen_tower_equals_the_oracle(frozen):
    assert torch.allclose(*frozen, rtol=0, atol=TOLERANCE / 100)


# What each case saves, what the oracle is told besides the file, and what the loader is told besides the class names.
CASES = {
    "coop end": (savers.coop, {}, {}),
    "coop middle": (savers.coop, {"position": "middle"}, {"position": "middle"}),
    "coop front": (savers.coop, {"position": "front"}, {"position": "front"}),
    "coop class-specific": (savers.class_specific_coop, {"position": "middle"}, {"position": "middle"}),
    "kgcoop": (savers.kgcoop, {}, {}),
    "prograd": (savers.prograd, {}, {}),
    "cocoop": (savers.cocoop, {}, {}),
    "tcp pets": (savers.tcp, {"template": PETS[0], "feature_template": PETS[1]}, {}),
    "maple": (savers.maple, {}, {}),
    "vpt": (savers.vpt, {}, {}),
    "ivlp": (savers.ivlp, {}, {}),
    "promptsrc": (savers.promptsrc, {}, {}),
}


class Loaded:
    """A file written, read back, and its logits by both ways; text-only families share the frozen image features."""

    def __init__(self, case, base, weights, images, frozen):
        self.case = case
        build, told, options = CASES[case]
        family = case.split()[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pth.tar-5"
            savers.save(path, build(weights))
            self.file = savers.load(path)
        self.prompt = prompt_from_tensors(family, self.file, base, NAMES, **options)
        self.base, self.images = base, images
        self.features = None if self.prompt.changes_image_tower else frozen[1]
        shared = {} if self.prompt.changes_image_tower else {"features": frozen[0]}
        with torch.no_grad():
            self.expected = getattr(families, family)(self.file, weights, images, NAMES, **told, **shared)

    @torch.no_grad()
    def logits(self):
        classifier = PromptedClassifier(self.base, self.prompt, NAMES)
        if self.features is None:
            self.features = classifier.image_features(self.images)
        return classifier.from_features(self.features)

    def deviation(self):
        return float((self.logits() - self.expected).abs().max())


@pytest.fixture(scope="module", params=CASES)
def loaded(request, base, weights, images, frozen):
    """One case at a time, since a file with both towers has 150 million values; pytest groups the tests by it."""
    return Loaded(request.param, base, weights, images, frozen)


# One deliberate error or more per family, of the kind that a re-implementation makes.
def name_at_the_wrong_end(c):
    c.prompt.position = {"end": "front", "front": "end", "middle": "end"}[c.prompt.position]


def context_of_another_class(c):
    c.prompt.ctx = torch.nn.Parameter(c.prompt.ctx.detach().roll(1, 0))


def unused_bias_added(c):
    c.prompt.ctx = torch.nn.Parameter(c.prompt.ctx.detach() + c.prompt.extras["bias_vectors"])


def context_reversed(c):
    c.prompt.ctx = torch.nn.Parameter(c.prompt.ctx.detach().flip(0))


def bias_left_out(c):
    torch.nn.init.zeros_(c.prompt.meta_net.linear2.bias)


def feature_not_normalised(c):
    c.features = c.features * 3


def one_block_early(c):
    c.prompt.block -= 1


def relu_for_quick_gelu(c):
    c.prompt.meta_net.relu = torch.nn.ReLU()


def deep_text_order(c):
    deep = c.prompt.deep if hasattr(c.prompt, "deep") else c.prompt.compound_prompts_text
    first, second = deep[0].detach().clone(), deep[1].detach().clone()
    deep[0], deep[1] = torch.nn.Parameter(second), torch.nn.Parameter(first)
    c.features = None


def deep_visual_left_out(c):
    c.prompt.visual = c.prompt.visual[:1]
    c.features = None


def untouched_tower(c):
    c.features = c.base.encode_image(c.images)


def half_the_wording(c):
    names = [name.replace("_", " ") for name in NAMES]
    c.prompt.tokens = ClassTokens.build(c.base, names, 2, {}, ["X X {}."])


ERRORS = [
    ("coop end", name_at_the_wrong_end),
    ("coop middle", name_at_the_wrong_end),
    ("coop front", name_at_the_wrong_end),
    ("coop class-specific", context_of_another_class),
    ("kgcoop", unused_bias_added),
    ("prograd", context_reversed),
    ("cocoop", bias_left_out),
    ("cocoop", feature_not_normalised),
    ("tcp pets", one_block_early),
    ("tcp pets", relu_for_quick_gelu),
    ("maple", half_the_wording),
    ("maple", deep_text_order),
    ("vpt", deep_visual_left_out),
    ("vpt", untouched_tower),
    ("ivlp", half_the_wording),
    ("ivlp", deep_text_order),
    ("promptsrc", untouched_tower),
]


def test_logits_equal_the_oracle(loaded):
    assert loaded.deviation() <= TOLERANCE
    assert float(loaded.expected.std()) > 0.1  # else agreement would mean nothing


def test_an_error_shows(loaded):
    errors = [error for case, error in ERRORS if case == loaded.case]
    assert errors
    for error in errors:
        broken = copy.copy(loaded)
        broken.prompt = copy.deepcopy(loaded.prompt)
        with torch.no_grad():
            error(broken)
        assert broken.deviation() > VISIBLE, error.__name__


def test_the_whole_file_is_written_back(loaded):
    state = full_state(loaded.prompt, loaded.base)
    assert state.keys() == loaded.file.keys()
    for key, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, loaded.file[key].float()), key


@pytest.mark.parametrize("template", [*TEMPLATES, "a photo of a {}"])
def test_zero_shot_equals_the_oracle_and_a_missing_word_shows(template, base, weights, images, frozen):
    expected = families.zero_shot(weights, images, NAMES, TEMPLATES, features=frozen[0])
    right = PromptedClassifier(base, HandWritten(base, NAMES, TEMPLATES), NAMES).freeze()
    assert torch.allclose(right.from_features(frozen[1]), expected, rtol=0, atol=TOLERANCE)
    wrong = PromptedClassifier(base, HandWritten(base, NAMES, (template,)), NAMES).freeze()
    assert float((wrong.from_features(frozen[1]) - expected).abs().max()) > VISIBLE


@pytest.mark.parametrize("loaded", ["cocoop"], indirect=True)
def test_cocoop_is_the_same_uncut(loaded):
    loaded.prompt.cut = False
    assert loaded.deviation() <= TOLERANCE
    loaded.prompt.cut = True
