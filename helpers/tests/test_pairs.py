# SPDX-License-Identifier: MIT
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from helpers import pairs
from helpers.generation import complete
from helpers.pairs import Pair, load_member, load_pair
from helpers.preflight import CHECKS, differences, preflight
from helpers.store import UserError


def test_tiny_pair_passes_every_check(tiny):
    frame = preflight(tiny)
    assert len(frame) == len(CHECKS)
    assert frame.loc[~frame["ok"], ["check", "seen"]].to_dict("records") == []


def test_same_ids_other_names(qwen):
    assert qwen.base.tied and not qwen.distilled.tied, "read off the weights"
    stop = qwen.base.groups.stop[0]
    assert stop == qwen.distilled.groups.stop[0]
    assert qwen.base.tokenizer.decode([stop]) == "<|endoftext|>"
    assert qwen.distilled.tokenizer.decode([stop]) == "<｜end▁of▁sentence｜>"
    assert len(qwen.base.groups.stop) == 2, "the base's template also ends a turn with <|im_end|>"


def test_bos_only_where_the_tokenizer_puts_it(qwen):
    assert qwen.base.bos == "" and qwen.distilled.bos == "<｜begin▁of▁sentence｜>"
    for form in ("plain", "template"):
        ids = qwen.distilled.encode([qwen.distilled.prompt("Who?", form)])["input_ids"][0].tolist()
        assert ids.count(qwen.distilled.tokenizer.bos_token_id) == 1 and ids[0] == qwen.distilled.tokenizer.bos_token_id


def test_words_are_read_as_tokenizer_json_says_whatever_class_the_settings_name(qwen, qwen_folders):
    """The distilled's settings name a class that would drop its spaces, and ask for BOS beside that file."""
    settings = json.loads((qwen_folders[1] / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "LlamaTokenizerFast" and settings["add_bos_token"]
    text = "The park, the river\n and  a market: 12?"
    raw = tokenizers.Tokenizer.from_file(str(qwen_folders[1] / "tokenizer.json"))
    for member, first in ((qwen.base, []), (qwen.distilled, [qwen.distilled.tokenizer.bos_token_id])):
        ids = member.tokenizer(text).input_ids
        assert ids == first + raw.encode(text, add_special_tokens=False).ids
        assert member.tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(member.tokenizer) == raw.get_vocab_size() - 2 * (member is qwen.base), "no token is made up"


def test_what_is_missing_is_named_by_preflight(qwen, monkeypatch):
    monkeypatch.setattr(qwen.base.tokenizer, "chat_template", None)
    monkeypatch.setattr(qwen.base, "groups", replace(qwen.base.groups, missing=(" Wait",)))
    assert qwen.base.prompt("Who?", "template") == "Question: Who?\nAnswer:"
    frame = preflight(qwen).set_index("check")
    assert [*frame.index[~frame["ok"]]] == ["words are single tokens", "chat template"]
    assert "base (' Wait',)" in frame.loc["words are single tokens", "seen"]


def test_auto_follows_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pairs, "hub_reachable", lambda: True)
    assert pairs.choose_pair()[0] == "r1-1.5b"
    monkeypatch.setattr(pairs, "hub_reachable", lambda: False)
    assert pairs.choose_pair()[0] == "smol"


def test_revision_follows_the_weights(qwen_folders, copied):
    copy, before = copied[0], pairs._identity(qwen_folders[0])[1]
    assert pairs._identity(copy)[1] == before
    another_weight(copy)
    changed = pairs._identity(copy)[1]
    put(copy / "generation_config.json", eos_token_id=3)
    assert len({before, changed, pairs._identity(copy)[1]}) == 3, "what stops it is part of the model"


def test_half_precision_that_overflows_falls_back(qwen_folders, monkeypatch):
    seen = []
    monkeypatch.setattr(pairs, "_is_finite", lambda model, tokenizer: seen.append(model.dtype))
    member = load_member("base", str(qwen_folders[0]), device="cpu", dtype=torch.float16)
    assert seen == [torch.float16] and member.dtype == torch.float32


@pytest.fixture
def copied(qwen_folders, tmp_path):
    """A copy of the tiny base and of the distilled, to be changed."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in qwen_folders]


def put(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


OTHERS = {  # architecture: what its configuration needs, and what the refusal names
    "Gemma": ({"head_dim": 8}, "the lens at the last depth"),
    "Granite": ({"logits_scaling": 8.0, "residual_multiplier": 0.22}, "the log-probability of the next token"),
    "Olmo2": ({}, "olmo2"),
    "Phi3": ({}, "phi3"),
    "Qwen3": ({"head_dim": 8}, None),
    "Mistral": ({"sliding_window": 24}, None),
}


@pytest.fixture
def as_kind(copied):
    """The tiny pair as another architecture, with new random weights."""

    def make(kind: str, **extra: object) -> list[Path]:
        shape = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                 "intermediate_size", "max_position_embeddings", "initializer_range", "eos_token_id")  # fmt: skip
        for seed, folder in enumerate(copied):
            config = json.loads((folder / "config.json").read_text())
            torch.manual_seed(seed)
            settings = {name: config[name] for name in shape} | {"pad_token_id": 0, "bos_token_id": None} | extra
            made = getattr(transformers, f"{kind}Config")(**settings)
            model = getattr(transformers, f"{kind}ForCausalLM")(made)
            for name, value in model.named_parameters():
                if name.endswith("norm.weight"):
                    torch.nn.init.normal_(value, mean=1.0, std=0.1)
            model.save_pretrained(folder)
        return copied

    return make


@pytest.mark.parametrize("kind", OTHERS)
def test_another_architecture_is_read_rightly_or_refused(kind, as_kind):
    extra, said = OTHERS[kind]
    folders = as_kind(kind, **extra)
    if said is None:
        assert max(differences(Pair.of(*folders, name="t", device="cpu").base).values()) < 1e-3
        return
    with pytest.raises(UserError, match=said):
        Pair.of(*folders, name="t", device="cpu")


def test_what_a_models_settings_say_of_decoding_is_set_aside(copied, qwen):
    """As greedy as the study's own, and with a cache, which training with checkpoints leaves off."""
    put(copied[0] / "config.json", use_cache=False)
    put(copied[0] / "generation_config.json", use_cache=False, num_beams=4, no_repeat_ngram_size=2, temperature=0.6)
    prompts, own = ["What is the capital of France?", "A river."], load_member("base", str(copied[0]), device="cpu")
    assert complete(own, prompts, max_new_tokens=40) == complete(qwen.base, prompts, max_new_tokens=40)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3554214752\n"


def another_weight(at: Path) -> None:
    weights = load_file(at / "model.safetensors") | {"q_norm": torch.ones(8)}
    save_file(weights, at / "model.safetensors", metadata={"format": "pt"})


def adapted(at: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = transformers.AutoModelForCausalLM.from_pretrained(at)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(at)


def template(at: Path, text: str) -> None:
    (at / "chat_template.jinja").write_text(text)


def without_added(at: Path) -> None:
    """As a conversion once wrote it: the marks are words of the vocabulary, but no added tokens."""
    spec = json.loads((at / "tokenizer.json").read_text())
    lost = [entry for entry in spec["added_tokens"] if "think" in entry["content"]]
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry not in lost]
    spec["model"]["vocab"] |= {entry["content"]: entry["id"] for entry in lost}
    (at / "tokenizer.json").write_text(json.dumps(spec))


FOLDERS = {  # what people have: what is done to the distilled model's folder, and what the one line says
    "weights are a pointer": (lambda at: (at / "model.safetensors").write_text(POINTER), "git lfs pull"),
    "no tokenizer.json": (
        lambda at: (at / "tokenizer.json").rename(at / "tokenizer.model"),
        "it needs config.json, tokenizer.json",
    ),
    "weights without a place": (another_weight, "hold q_norm, against.*save them again"),
    "an adapter beside weights": (adapted, "holds an adapter"),
    "a template without the question": (lambda at: template(at, "<｜User｜>Hello"), "leaves out what is asked"),
    "marks that are no tokens": (without_added, "its tokenizer has <think> but reads it as others"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_as_people_have_them_say_what_to_do(name, copied):
    change, said = FOLDERS[name]
    change(copied[1])
    with pytest.raises(UserError, match=said) as refused:
        Pair.of(*copied, name="t", device="cpu")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("opening", ["", "<think>", "<think>\n", "<think>\n\n</think>\n\n"])
def test_a_template_that_opens_or_closes_the_thought_itself_stays(copied, opening):
    """Where it does not, the thought is opened."""
    asked = "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m['content'] }}{% endfor %}<｜Assistant｜>"
    template(copied[1], asked + opening.replace("\n", "{{ '\\n' }}"))
    member = Pair.of(*copied, name="t", device="cpu").distilled
    assert member.prompt("Who?", "template").endswith("<｜Assistant｜>" + (opening or "<think>\n"))
    assert "<think>" not in load_member("base", str(copied[0]), device="cpu").prompt("Who?", "template")


def test_a_folder_is_found_from_the_project_and_from_home(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pairs, "ROOT", tmp_path)
    for source in (copied[0].name, f"~/{copied[0].name}", str(copied[0])):
        assert load_member("base", source, device="cpu").source == copied[0].name


def test_two_stop_ids_whose_first_differs_say_what_to_do(copied):
    put(copied[0] / "generation_config.json", eos_token_id=[702, 700])
    put(copied[0] / "tokenizer_config.json", eos_token="<|im_end|>")
    row = preflight(Pair.of(*copied, name="t", device="cpu")).set_index("check").loc["same first stop token"]
    assert not row["ok"] and row["seen"] == "base 702, distilled 700" and "eos_token_id" in row["a failure would spoil"]


def test_what_was_loaded_last_is_given_again(copied, qwen_folders):
    one = load_pair(tuple(map(str, qwen_folders)), device="cpu")
    assert load_pair(tuple(map(str, qwen_folders)), device="cpu") is one
    two = load_pair(tuple(map(str, copied)), device="cpu")
    assert two is not one and load_pair(f"{copied[0]},{copied[1]}", device="cpu") is two


def test_a_tokenizer_whose_first_word_changes_behind_its_bos_is_refused(copied):
    """sentencepiece's mark before the first word: BOS written as text comes before it, and it is another word."""
    first = {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "first", "split": True}
    for folder in copied:
        put(folder / "tokenizer.json", pre_tokenizer=first)
    with pytest.raises(UserError, match="a prompt, against its tokenizer's own, is"):
        Pair.of(*copied, name="t", device="cpu")
