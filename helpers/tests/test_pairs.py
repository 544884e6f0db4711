# SPDX-License-Identifier: MIT
import json
import shutil

import tokenizers
import torch

from helpers import pairs
from helpers.pairs import load_member
from helpers.preflight import CHECKS, preflight


def test_tiny_pair_passes_every_check(tiny):
    frame = preflight(tiny)
    assert len(frame) == len(CHECKS)
    assert frame.loc[~frame["ok"], ["check", "seen"]].to_dict("records") == []


def test_head_is_read_off_the_weights(qwen):
    assert qwen.base.tied and not qwen.distilled.tied


def test_same_ids_other_names(qwen):
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


def test_a_base_without_a_template_is_asked_in_plain_words(qwen, monkeypatch):
    monkeypatch.setattr(qwen.base.tokenizer, "chat_template", None)
    assert qwen.base.prompt("Who?", "template") == "Question: Who?\nAnswer:"
    row = preflight(qwen).set_index("check").loc["chat templates"]
    assert not row["ok"] and "base" in row["seen"]


def test_distilled_template_opens_a_thought(tiny):
    assert tiny.distilled.prompt("Who?", "template").endswith("<think>\n")
    assert "<think>" not in tiny.base.prompt("Who?", "template")


def test_padding_goes_left(qwen):
    encoded = qwen.base.encode(["The bus", "The bus stops at the corner"])
    assert encoded["attention_mask"][0, 0] == 0 and encoded["attention_mask"][0, -1] == 1


def test_preflight_names_a_missing_word(qwen, monkeypatch):
    import dataclasses

    broken = dataclasses.replace(qwen.base.groups, missing=(" Wait",))
    monkeypatch.setattr(qwen.base, "groups", broken)
    frame = preflight(qwen).set_index("check")
    assert not frame.loc["words are single tokens", "ok"] and " Wait" in frame.loc["words are single tokens", "seen"]


def test_auto_follows_the_variable_then_the_machine(monkeypatch):
    monkeypatch.setenv("R1_PAIR", "r1-7b")
    assert pairs.choose_pair()[0] == "r1-7b"
    monkeypatch.delenv("R1_PAIR")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pairs, "hub_reachable", lambda: True)
    assert pairs.choose_pair()[0] == "r1-1.5b"
    monkeypatch.setattr(pairs, "hub_reachable", lambda: False)
    assert pairs.choose_pair()[0] == "smol"


def test_revision_follows_the_weights(qwen_folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(qwen_folders[0], copy)
    before = pairs._revision(str(copy))
    assert before == pairs._revision(str(qwen_folders[0]))
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    changed = pairs._revision(str(copy))
    assert changed != before
    settings = copy / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": 3}))
    assert pairs._revision(str(copy)) not in (before, changed), "what stops it is part of the model"


def test_half_precision_that_overflows_falls_back(qwen_folders, monkeypatch):
    seen = []
    monkeypatch.setattr(pairs, "_is_finite", lambda model, tokenizer: seen.append(model.dtype))
    member = load_member("base", str(qwen_folders[0]), device="cpu", dtype=torch.float16)
    assert seen == [torch.float16] and member.dtype == torch.float32
