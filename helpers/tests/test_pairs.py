# SPDX-License-Identifier: MIT
import shutil

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
    assert pairs._revision(str(copy)) != before


def test_half_precision_that_overflows_falls_back(qwen_folders, monkeypatch):
    seen = []
    monkeypatch.setattr(pairs, "_is_finite", lambda model, tokenizer: seen.append(model.dtype))
    member = load_member("base", str(qwen_folders[0]), device="cpu", dtype=torch.float16)
    assert seen == [torch.float16] and member.dtype == torch.float32
