# SPDX-License-Identifier: MIT

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.making.trainings import cut, effects
from helpers.pairs import Pair
from helpers.store import sha256


def test_effects_of_two_copies_are_none(qwen_folders):
    """Every measure is there for a random pair; of two copies of one model nothing changes."""
    found = effects(Pair.of(*qwen_folders, name="tiny", device="cpu"), 3)
    assert {"length, tokens", "log-odds of stopping, plain", "relative change of a matrix"} <= set(found)
    assert found["relative change of a matrix"].low > 0
    copies = effects(Pair.of(qwen_folders[0], qwen_folders[0], name="copies", device="cpu"), 3)
    assert copies["log-odds of stopping, minus the base's, plain"].estimate == 0
    assert copies["relative change of a matrix"].high == 0


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_an_adapter_is_cut_to_its_largest_directions(tmp_path, rank):
    a, b = (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for shape in ((4, 9), (7, 4)))
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file({"x.lora_A.weight": a, "x.lora_B.weight": b}, whole / "adapter_model.safetensors")
    (whole / "adapter_config.json").write_text("{}")
    (whole / "training.json").write_text(json.dumps({"adapter_sha256": ""}))
    out = cut(whole, rank, tmp_path / "cut")
    found = load_file(out / "adapter_model.safetensors")
    u, values, v = torch.linalg.svd(b @ a, full_matrices=False)
    expected = (u[:, :rank] * values[:rank]) @ v[:rank]
    product = found["x.lora_B.weight"].float() @ found["x.lora_A.weight"].float()
    assert torch.allclose(product, expected, atol=0.02 * float(values.max()))
    recorded = json.loads((out / "training.json").read_text())["adapter_sha256"]
    assert recorded == sha256(out / "adapter_model.safetensors")
