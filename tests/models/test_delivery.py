"""From a file or a run folder to a classifier, with what is stated, said and found out about it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from clipvet.errors import UnknownLayoutError, UnreadableError, UsageError
from clipvet.models import _opening
from clipvet.models.delivery import open_delivery
from clipvet.models.families import full_state, new_prompt, prompt_from_tensors
from clipvet.models.prompts import PromptedClassifier
from clipvet.models.zeroshot import HandWritten
from clipvet.types import Severity
from tests.oracles import savers

NAMES = ("great white shark", "cat", "fire truck")
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def disturbed(family, model, seed=1, **kwargs):
    """A prompt whose learned tensors all matter."""
    prompt = new_prompt(family, model, NAMES, seed=seed, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return prompt


def run_folder(tmp_path, state, registered="prompt_learner", log=""):
    folder = tmp_path / "run"
    (folder / registered).mkdir(parents=True)
    savers.save(folder / registered / "model.pth.tar-5", state)
    (folder / registered / "checkpoint").write_text("model.pth.tar-5\n")
    if log:
        (folder / "log.txt").write_text(log)
    return folder


def same(delivery, model, prompt, tolerance=1e-4):
    with torch.no_grad():
        expected = PromptedClassifier(model, prompt, NAMES)(IMAGES)
        return torch.allclose(delivery.classifier(IMAGES), expected, atol=tolerance)


def titles(delivery):
    """Findings apart from what training code leaves in every official file."""
    return [finding.title for finding in delivery.findings if finding.check != "safe-reading"]


FAMILIES = {
    "coop": "prompt_learner",
    "cocoop": "prompt_learner",
    "kgcoop": "prompt_learner",
    "tcp": "prompt_learner",
    "maple": "MultiModalPromptLearner",
    "ivlp": "VLPromptLearner",
    "promptsrc": "VLPromptLearner",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_folder_explains_itself(tmp_path, tiny_clip, family):
    prompt = disturbed(family, tiny_clip)
    folder = run_folder(tmp_path, full_state(prompt, tiny_clip), FAMILIES[family])

    delivery = open_delivery(folder, base=tiny_clip)

    assert same(delivery, tiny_clip, prompt)
    info = delivery.info
    assert (info.family, info.base, info.class_names) == (family, "tiny", NAMES)
    assert info.class_names_source == "decoded from the file's token embeddings"
    assert info.quick_gelu == tiny_clip.quick_gelu
    assert titles(delivery) == []
    assert [len(record.sha256) for record in delivery.files] == [64]
    assert not any(parameter.requires_grad for parameter in delivery.classifier.prompt.parameters())


@pytest.mark.parametrize("family", ["coop", "maple", "vpt", "ivlp"])
def test_a_small_file_with_the_learned_part_alone_is_enough(tmp_path, tiny_clip, family):
    prompt = disturbed(family, tiny_clip)
    learned = {name: values for name, values in prompt.state().items() if "token_" not in name}
    path = tmp_path / "zoo.safetensors"
    save_file(learned, path, {"family": family, "class_names": json.dumps(NAMES), "base": "tiny"})
    assert path.stat().st_size < 250_000

    delivery = open_delivery(path, base=tiny_clip)

    assert same(delivery, tiny_clip, prompt)
    assert (delivery.info.family, delivery.info.class_names_source) == (family, "the file's metadata")
    assert titles(delivery) == []


def test_names_in_the_metadata_keep_their_spelling_where_the_tensors_agree(tmp_path, tiny_clip):
    prompt = disturbed("coop", tiny_clip)
    spelt = ("Great_White_Shark", "Cat", "Fire truck")
    save_file(prompt.state(), tmp_path / "a.safetensors", {"class_names": json.dumps(spelt)})
    delivery = open_delivery(tmp_path / "a.safetensors", base=tiny_clip)
    assert delivery.info.class_names == spelt
    assert delivery.info.class_names_source == "the file's metadata, confirmed by its token embeddings"
    assert same(delivery, tiny_clip, prompt)

    save_file(prompt.state(), tmp_path / "b.safetensors", {"class_names": json.dumps(("a", "b", "c"))})
    delivery = open_delivery(tmp_path / "b.safetensors", base=tiny_clip)
    assert delivery.info.class_names == NAMES
    assert titles(delivery) == ["Class names differ"]


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[" * 100_000, '{"a": 1}'])
def test_metadata_that_makes_no_sense_is_no_class_names(tmp_path, tiny_clip, text):
    save_file(disturbed("vpt", tiny_clip).state(), tmp_path / "a.safetensors", {"class_names": text})
    with pytest.raises(UsageError, match="a VPT file without token_suffix does not say its classes: name them with --classes"):
        open_delivery(tmp_path / "a.safetensors", base=tiny_clip)


def test_stated_names_are_used_and_the_difference_is_a_finding(tmp_path, tiny_clip):
    prompt = disturbed("coop", tiny_clip)
    folder = run_folder(tmp_path, prompt.state())
    stated = ("great white shark", "dog", "fire truck")
    delivery = open_delivery(folder, base=tiny_clip, class_names=stated)
    with torch.no_grad():
        expected = PromptedClassifier(tiny_clip, prompt_from_tensors("coop", prompt.state(), tiny_clip, stated), stated)(IMAGES)
        assert torch.allclose(delivery.classifier(IMAGES), expected, atol=1e-4)
    (finding,) = [finding for finding in delivery.findings if finding.title == "Class names differ"]
    assert finding.message == "1 of 3 class names differ: 'dog' is used, the file calls it 'cat'."
    delivery = open_delivery(folder, base=tiny_clip, class_names=stated[:2])
    assert "2 class names are used, and the file was saved with 3." in [finding.message for finding in delivery.findings]


LOG = "Loading trainer: {}\nLoading CLIP (backbone: {})\nCLASS_TOKEN_POSITION: {}\n"


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_position_comes_from_the_log(tmp_path, tiny_clip, position):
    state = disturbed("coop", tiny_clip).state()
    folder = run_folder(tmp_path, state, log=LOG.format("CoOp", "tiny", position))
    delivery = open_delivery(folder, base=tiny_clip)
    assert same(delivery, tiny_clip, prompt_from_tensors("coop", state, tiny_clip, NAMES, position=position))
    assert f"Class names stand at '{position}', as the delivery says." in delivery.notes
    assert titles(delivery) == []

    delivery = open_delivery(folder, base=tiny_clip, position="end")
    assert same(delivery, tiny_clip, prompt_from_tensors("coop", state, tiny_clip, NAMES))
    assert titles(delivery) == ([] if position == "end" else ["Another position was stated"])


def test_the_log_tells_prograd_from_coop_and_contradictions_are_findings(tmp_path, tiny_clip):
    folder = run_folder(tmp_path, disturbed("prograd", tiny_clip).state(), log=LOG.format("ProGrad", "ViT-B/16", "end"))
    delivery = open_delivery(folder, base=tiny_clip)
    assert delivery.info.family == "prograd"
    assert titles(delivery) == ["Another base was stated"]
    (folder / "log.txt").write_text(LOG.format("MaPLe", "tiny", "end"))
    delivery = open_delivery(folder, base=tiny_clip)
    assert delivery.info.family == "coop"
    assert titles(delivery) == ["The delivery contradicts itself"]


def test_a_stated_family_is_used(tmp_path, tiny_clip):
    folder = run_folder(tmp_path, disturbed("kgcoop", tiny_clip).state())
    assert titles(open_delivery(folder, base=tiny_clip, family="kgcoop")) == []
    with pytest.raises(UnknownLayoutError, match="expected only the tensors of a coop prompt"):
        open_delivery(folder, base=tiny_clip, family="coop")
    with pytest.raises(UsageError, match=r"expected a family of coop, .*, got 'COOP'"):
        open_delivery(folder, base=tiny_clip, family="COOP")


@pytest.mark.parametrize("family", ["maple", "vpt"])
def test_delivered_towers_are_used_and_what_changed_is_found(tmp_path, tiny_clip, family):
    prompt = disturbed(family, tiny_clip)
    state = full_state(prompt, tiny_clip)
    state["image_encoder.proj"] = state["image_encoder.proj"] + 0.2 * torch.eye(64)
    folder = run_folder(tmp_path, state)

    delivery = open_delivery(folder, base=tiny_clip, class_names=NAMES)

    assert titles(delivery) == ["Tensors that should be frozen were changed"]
    (finding,) = [finding for finding in delivery.findings if finding.check == "frozen-tensors"]
    assert finding.severity is Severity.HIGH
    assert "image_encoder.proj by up to 0.2" in finding.message
    assert not same(delivery, tiny_clip, prompt, tolerance=1e-2)
    with torch.no_grad():  # the changed tower by hand: the projection is the tower's last step
        tower = tiny_clip.clip.visual
        before = tower.proj.clone()
        tower.proj += 0.2 * torch.eye(64)
        assert same(delivery, tiny_clip, prompt)
        tower.proj.copy_(before)
    assert delivery.base is tiny_clip
    assert delivery.classifier.model.name == "tiny, as delivered"


def test_towers_of_another_shape_ask_for_the_right_base(tmp_path, tiny_clip):
    state = full_state(disturbed("vpt", tiny_clip), tiny_clip)
    state["image_encoder.proj"] = torch.zeros(64, 512)
    with pytest.raises(UsageError, match=r"its towers are not those of tiny \(visual\.proj has the shape \(64, 512\)"):
        open_delivery(run_folder(tmp_path, state), base=tiny_clip, class_names=NAMES)


def test_towers_beside_a_bare_prompt_are_not_passed_over(tmp_path, tiny_clip):
    state = disturbed("coop", tiny_clip).state() | {"image_encoder.proj": torch.zeros(64, 64)}
    with pytest.raises(UnknownLayoutError, match=r"found also image_encoder\.proj"):
        open_delivery(run_folder(tmp_path, state), base=tiny_clip)


def test_a_prompt_of_another_base_is_found_out(tmp_path, tiny_clip):
    state = disturbed("coop", tiny_clip).state()
    state = {name: values + (0.05 if name.startswith("token_") else 0) for name, values in state.items()}
    delivery = open_delivery(run_folder(tmp_path, state), base=tiny_clip)
    assert titles(delivery) == ["Not tuned on the claimed base", "Token embeddings are not the base's"]


def test_a_base_is_asked_for_unless_it_is_shipped(tmp_path, tiny_clip, monkeypatch):
    state = disturbed("coop", tiny_clip).state()
    folder = run_folder(tmp_path, state)
    monkeypatch.setattr(_opening, "POCKET", ())
    with pytest.raises(UsageError, match=r"a CoOp prompt needs the base that it was tuned on, .*: name it with --base"):
        open_delivery(folder)
    (folder / "log.txt").write_text(LOG.format("CoOp", "ViT-B/16", "end"))
    with pytest.raises(UsageError, match=r"it says ViT-B/16, so name your own copy, such as --base ViT-B-16=FILE"):
        open_delivery(folder)


def test_a_shipped_base_is_found_by_name_or_by_its_start_token(tmp_path, tiny_clip, monkeypatch):
    def load(name):
        if name == "pocket-0":
            raise UnreadableError("missing")
        return tiny_clip

    monkeypatch.setattr(_opening, "load_base", load)
    prompt = disturbed("coop", tiny_clip)
    delivery = open_delivery(run_folder(tmp_path, prompt.state()))
    assert same(delivery, tiny_clip, prompt)
    assert "Base: tiny, recognised by its start-of-text embedding." in delivery.notes
    save_file(disturbed("vpt", tiny_clip).state(), tmp_path / "v.safetensors", {"base": "pocket-1"})
    delivery = open_delivery(tmp_path / "v.safetensors", class_names=NAMES)
    assert delivery.info.base == "tiny"
    save_file(disturbed("vpt", tiny_clip).state(), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="needs the base"):
        open_delivery(tmp_path / "w.safetensors", class_names=NAMES)


def test_a_stated_activation_is_used(tmp_path, tiny_clip):
    folder = run_folder(tmp_path, disturbed("coop", tiny_clip).state())
    other = not tiny_clip.quick_gelu
    delivery = open_delivery(folder, base=tiny_clip, quick_gelu=other)
    assert delivery.info.quick_gelu is other
    assert any(note.endswith("stated by the user.") for note in delivery.notes)
    assert not torch.allclose(delivery.classifier(IMAGES), open_delivery(folder, base=tiny_clip).classifier(IMAGES), atol=1e-4)


def test_a_whole_model_is_a_zero_shot_classifier_over_given_names(tmp_path, tiny_clip):
    torch.save({"epoch": 1, "name": "x", "state_dict": tiny_clip.clip.state_dict()}, tmp_path / "epoch_1.pt")
    with pytest.raises(UsageError, match="it is a whole model, which knows no classes: name them with --classes"):
        open_delivery(tmp_path / "epoch_1.pt", base=tiny_clip)

    delivery = open_delivery(tmp_path / "epoch_1.pt", base=tiny_clip, class_names=NAMES)

    assert same(delivery, tiny_clip, HandWritten(tiny_clip, NAMES))
    assert (delivery.info.family, delivery.info.base) == ("whole", "tiny")
    (finding,) = delivery.findings
    assert finding.message.startswith("0 of ")
    assert "Layout: open_clip." in delivery.notes


def test_a_whole_model_may_come_without_a_base(tmp_path, tiny_clip):
    state = dict(tiny_clip.clip.state_dict())
    state["token_embedding.weight"] = torch.cat([state["token_embedding.weight"]] * 13)[:49408]
    torch.save(state, tmp_path / "model.pt")
    delivery = open_delivery(tmp_path / "model.pt", class_names=NAMES, quick_gelu=False)
    assert (delivery.base, delivery.info.base, delivery.findings) == (None, "", ())
    assert delivery.classifier(IMAGES).shape == (4, 3)
    assert any("heads of 64 channels were assumed" in note for note in delivery.notes)


def test_a_vocabulary_without_tokenizer_asks_for_a_base(tmp_path, tiny_clip):
    state = dict(tiny_clip.clip.state_dict())
    state["token_embedding.weight"] = state["token_embedding.weight"][:1000]
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UsageError, match="no tokenizer with 1000 tokens is known: name a base that has the same vocabulary"):
        open_delivery(tmp_path / "model.pt", class_names=NAMES)


def test_what_is_understood_but_not_inspected_says_so(tmp_path, tiny_clip):
    torch.save({"state_dict": {"trigger": torch.zeros(1, 3, 4, 4)}, "target_name": "cat"}, tmp_path / "model.pth.tar-10")
    with pytest.raises(UnknownLayoutError, match="it is a BadCLIP trigger file, which is understood but cannot be inspected"):
        open_delivery(tmp_path, base=tiny_clip)


def test_an_unknown_layout_names_the_file(tmp_path, tiny_clip):
    torch.save({"weight": torch.zeros(2, 3)}, tmp_path / "x.pt")
    with pytest.raises(UnknownLayoutError, match=r"x\.pt: expected a checkpoint of CoOp.*found weight \(2, 3\)"):
        open_delivery(tmp_path / "x.pt", base=tiny_clip)


def test_values_that_are_not_finite_are_found_by_the_way(tmp_path, tiny_clip):
    state = disturbed("coop", tiny_clip).state()
    state["ctx"][0, 0] = float("nan")
    delivery = open_delivery(run_folder(tmp_path, state), base=tiny_clip)
    assert any(finding.severity is Severity.HIGH and "ctx" in finding.message for finding in delivery.findings)
