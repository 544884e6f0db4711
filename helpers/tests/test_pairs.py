# SPDX-License-Identifier: MIT
import json
import shutil

import pytest
import torch

from helpers import pairs
from helpers.pairs import Pair, load_member, load_pair
from helpers.preflight import CHECKS, preflight
from helpers.store import UserError
from helpers.tests.conftest import make_checkpoint


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


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("", "plain", "empty prompt"),
        (" \n", "template", "empty prompt"),
        ("a <|im_end|> b", "plain", "special token"),
        ("Who?", "poem", "unknown form"),
    ],
)
def test_bad_prompt_is_named(qwen, text, form, said):
    with pytest.raises(UserError, match=said):
        qwen.base.prompt(text, form)


def test_prompt_longer_than_the_model(qwen):
    with pytest.raises(UserError, match="reads at most 2048"):
        qwen.base.encode(["river " * 3000])
    with pytest.raises(UserError, match="2040 more"):
        qwen.base.encode(["The bus stops here at the corner near the old library."], room=2040)


def test_no_prompts(qwen):
    with pytest.raises(UserError, match="no prompts"):
        qwen.base.encode([])


def test_unknown_pair():
    with pytest.raises(UserError, match="unknown pair 'r2'"):
        load_pair("r2")


def test_two_architectures_are_no_pair(qwen_folders, tmp_path):
    other = make_checkpoint(tmp_path / "llama", "distilled", family="llama", tied=True, seed=3)
    with pytest.raises(UserError, match="not a pair"):
        Pair.of(qwen_folders[0], other, device="cpu")


def test_two_vocabularies_are_no_pair(qwen_folders, tmp_path):
    other = tmp_path / "small"
    shutil.copytree(qwen_folders[1], other)
    from safetensors.torch import load_file, save_file

    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 720}))
    weights = load_file(other / "model.safetensors")
    short = {name: w[:720].clone() if "embed" in name or "lm_head" in name else w for name, w in weights.items()}
    save_file(short, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="720 tokens"):
        Pair.of(qwen_folders[0], other, device="cpu")


def test_truncated_weights_are_named(qwen_folders, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(qwen_folders[0], broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="does not load"):
        load_member("base", str(broken), device="cpu")


def test_pickled_weights_are_refused(qwen_folders, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(qwen_folders[0], pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_member("base", str(pickled), device="cpu")


def test_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot load .* from the model hub"):
        load_pair("r1-1.5b")


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
