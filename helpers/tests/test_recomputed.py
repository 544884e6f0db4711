# SPDX-License-Identifier: MIT
"""One number of every notebook, as the committed ledger has it, computed again in plain transformers and numpy.

From the project come only weights, tokenizers, questions, stored completions and the ledger. Prompts are put together,
prompts are chosen, tokens are counted and layers are read here a second time.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import norm, t
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, SequenceBiasLogitsProcessor

from helpers import embedded
from helpers.store import ROOT

pytestmark = pytest.mark.embedded
DATA = ROOT / "data" / "smol"
LEDGER = {row["id"]: row for row in json.loads((DATA / "findings.json").read_text())}
SENTENCE = "Just give the answer."
STOPS, WAITS = ["<|im_end|>", "<|endoftext|>"], ["Wait", " Wait", " wait", "wait"]
CLOSE = 2e-4  # of a number in float32: the ledger keeps four places


@dataclass
class Half:
    """One model of the pair as transformers loads it, and the words of the study as its tokens."""

    folder: Path

    def __post_init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.stops = [self.tokenizer.convert_tokens_to_ids(mark) for mark in STOPS]
        found = [self.tokenizer(word, add_special_tokens=False).input_ids for word in WAITS]
        self.waits, self.seen = [ids[0] for ids in found if len(ids) == 1], {}

    def template(self, text: str) -> str:
        """A question in the model's own chat template; the distilled one's opens a thought."""
        chat = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def read(self, text: str) -> tuple[np.ndarray, torch.Tensor]:
        """Next-token logits after a text, float64, and the stream there by depth, the last behind the final norm."""
        if text not in self.seen:
            ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                out = self.model(input_ids=ids, output_hidden_states=True)
            self.seen[text] = out.logits[0, -1].double().numpy(), torch.stack([h[0, -1] for h in out.hidden_states])
        return self.seen[text]

    def p_stop(self, texts: list[str]) -> np.ndarray:
        rows = np.stack([self.read(text)[0] for text in texts])
        return np.exp(rows[:, self.stops] - np.logaddexp.reduce(rows, axis=1, keepdims=True)).sum(1)

    def contrast(self, texts: list[str]) -> np.ndarray:
        """Logit of the stop token minus the mean of the Wait set."""
        rows = np.stack([self.read(text)[0] for text in texts])
        return rows[:, self.model.generation_config.eos_token_id] - rows[:, self.waits].mean(1)

    def write(self, prompt: str, limit: int, processors: list[Any] | None = None) -> list[int]:
        """Greedy tokens after a prompt, up to a stop token."""
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        how = {"do_sample": False, "eos_token_id": self.stops, "pad_token_id": self.stops[0]}
        how["logits_processor"] = LogitsProcessorList(processors or [])
        out = self.model.generate(**ids, max_new_tokens=limit, **how)[0, ids.input_ids.shape[1] :].tolist()
        return out[: next((at for at, token in enumerate(out) if token in self.stops), None)]


@pytest.fixture(scope="module")
def halves(smol) -> dict[str, Half]:  # smol: the embedded pair is made on first use
    return {"base": Half(embedded.base_folder()), "distilled": Half(embedded.distilled_folder())}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rows_of(name: str) -> dict[str, dict]:
    return {row["prompt"]: row for row in json.loads((DATA / f"{name}.json").read_text())}


@pytest.fixture(scope="module")
def asked(halves) -> list[dict]:
    """The first 240 questions of the fixed order that lie in `confirm`, with both models' stored answers."""
    lines = [json.loads(line) for line in (ROOT / "data" / "prompts.jsonl").read_text().splitlines()]
    first = sorted(lines, key=lambda row: digest("order" + row["id"]))[:240]
    stored = {role: rows_of(f"answers_{role}_template_just") for role in halves}
    confirm = [row for row in first if int(digest(row["id"])[:8], 16) % 2 == 1]
    for row in confirm:
        text = f"{row['question']} {SENTENCE}"
        row |= {role: stored[role][half.template(text)] for role, half in halves.items()}
    return confirm


@pytest.fixture(scope="module")
def combined(asked) -> list[tuple[str, str]]:
    """Questions with the base's own answer, where the base stops within 30 tokens and the distilled does not."""
    chosen = [
        row for row in asked
        if row["base"]["stop"] != "limit" and 1 <= row["base"]["length"] <= 30
        and (row["distilled"]["stop"] == "limit" or row["distilled"]["length"] > 30)
    ]  # fmt: skip
    return [(f"{row['question'].strip()} {SENTENCE}", row["base"]["text"].strip()) for row in chosen]


@pytest.mark.parametrize(("role", "limit"), [("base", 400), ("distilled", 400)])
def test_01_stored_answers_are_what_plain_transformers_writes(halves, asked, role, limit):
    """Four of the stored answers, two short and two of middling length, decoded anew."""
    by_length = sorted(asked, key=lambda row: row[role]["length"])
    for row in (by_length[0], by_length[1], by_length[len(asked) // 4], by_length[len(asked) // 2]):
        assert halves[role].write(row[role]["prompt"], limit) == row[role]["tokens"], row["question"]


def test_01_f01_ratio_of_lengths(asked):
    """Estimate and interval: numpy's own bootstrap, 20,000 draws, of the ratio of medians."""
    lengths = {role: np.array([len(row[role]["tokens"]) for row in asked]) for role in ("base", "distilled")}
    entry, rng = LEDGER["F01"], np.random.default_rng(7)
    assert entry["n"] == len(asked)
    assert entry["estimate"] == pytest.approx(np.median(lengths["distilled"]) / np.median(lengths["base"]), abs=CLOSE)
    draws = rng.integers(0, len(asked), (20_000, len(asked)))
    ratios = np.median(lengths["distilled"][draws], axis=1) / np.median(lengths["base"][draws], axis=1)
    tail = norm.cdf(t.ppf(0.025, len(asked) - 1) * np.sqrt(len(asked) / (len(asked) - 1)))  # as wide as Student's
    assert [entry["low"], entry["high"]] == pytest.approx(np.quantile(ratios, [tail, 1 - tail]), rel=0.02)


def test_02_f05_the_base_stops_after_its_answer(halves, combined):
    found = halves["base"].p_stop([f"{question} {answer}" for question, answer in combined[:64]])
    assert LEDGER["F05"]["n"] == len(found) == 64
    assert LEDGER["F05"]["estimate"] == pytest.approx(found.mean(), abs=CLOSE)


def test_03_f09_the_depth_at_which_the_models_part(halves, combined):
    """Each model's stream at the last token, through its own norm and head, at every depth."""
    gaps = {role: [] for role in halves}
    for role, half in halves.items():
        for question, answer in combined[:64]:
            _, stream = half.read(f"{question} {answer}")
            with torch.no_grad():
                normed = torch.cat([half.model.model.norm(stream[:-1]), stream[-1:]])
                words = half.model.lm_head.weight[[half.model.generation_config.eos_token_id, *half.waits]]
                read = (normed @ words.T).double().numpy()
            gaps[role].append(read[:, 0] - read[:, 1:].mean(1))
    apart = np.array(gaps["base"]) - np.array(gaps["distilled"])
    depths = []
    for curve in apart:
        depth = len(curve) - 1
        while depth > 0 and curve[depth - 1] * np.sign(curve[-1]) >= 0.5 * abs(curve[-1]):
            depth -= 1
        depths.append(depth / (len(curve) - 1))
    assert LEDGER["F09"]["estimate"] == pytest.approx(np.mean(depths), abs=CLOSE)


def test_04_f12_how_far_the_matrices_moved(halves):
    """From the files of weights alone."""
    one, two = (load_file(half.folder / "model.safetensors") for half in halves.values())
    names = [name for name in one if re.search(r"layers\.\d+\..*_proj\.weight$", name)]
    moved = [
        np.linalg.norm(two[n].double().numpy() - one[n].double().numpy()) / np.linalg.norm(one[n].double().numpy())
        for n in names
    ]
    assert LEDGER["F12"]["n"] == len(names)
    assert LEDGER["F12"]["estimate"] == pytest.approx(np.mean(moved), abs=6e-5)


def test_05_f16_one_layer_of_the_distilled_in_the_base(halves, combined):
    """The layer that the notebook chose, its weights copied by hand."""
    entry, texts = LEDGER["F16"], [f"{question} {answer}" for question, answer in combined[:12]]
    layer = int(re.search(r"chosen on explore: (\d+)", entry["quantity"])[1])
    base, distilled = (half.contrast(texts) for half in halves.values())
    block, other = (half.model.model.layers[layer] for half in halves.values())
    kept = {name: value.clone() for name, value in block.state_dict().items()}
    block.load_state_dict(other.state_dict())
    halves["base"].seen.clear()
    taken = halves["base"].contrast(texts)
    block.load_state_dict(kept)
    halves["base"].seen.clear()
    assert entry["n"] == len(texts) and np.allclose(halves["base"].contrast(texts[:2]), base[:2])
    assert entry["estimate"] == pytest.approx((base - taken).mean() / (base - distilled).mean(), abs=CLOSE)


def test_06_f17_a_forced_first_word(halves, asked):
    """The share of the gap that it closes, from stored answers; two of them, and one held from stopping, anew."""
    few, half, forced = asked[:20], halves["base"], rows_of("06_forced_base")
    starts = [row["base"]["prompt"] for row in few]
    own = [re.search(r"\w[\w'’-]*", re.sub(r"</?think>", " ", row["distilled"]["text"])).group() for row in few]
    with_own = np.array([len(forced[start + word]["tokens"]) for start, word in zip(starts, own, strict=True)])
    neutral = np.mean([[len(forced[start + w]["tokens"]) for start in starts] for w in ("The", "In", "There")], axis=0)
    gap = np.array([min(len(r["distilled"]["tokens"]), 120) - min(len(r["base"]["tokens"]), 120) for r in few])
    assert LEDGER["F17"]["estimate"] == pytest.approx((with_own - neutral).mean() / gap.mean(), abs=CLOSE)
    shortest = sorted(range(len(few)), key=lambda at: with_own[at])[:2]
    for at in shortest:
        prompt = starts[at] + own[at]
        assert half.write(prompt, 120) == forced[prompt]["tokens"]
    lowered = SequenceBiasLogitsProcessor({(token,): -16.0 for token in half.stops})
    written = half.write(starts[0], 70, [lowered])
    stored = [row for row in json.loads((DATA / "06_stop_lowered.json").read_text()) if row["prompt"] == starts[0]]
    assert written in [row["tokens"] for row in stored if row["change"].startswith("stop lowered")]
    assert len(written) == 70, "a stop token lowered by 16 nats does not come"


@pytest.mark.parametrize(("mark", "wanted"), [("</think>", LEDGER["F21"]), ("<file_sep>", LEDGER["F21"]["control"])])
def test_07_f21_stopping_after_both_tags(halves, combined, mark, wanted):
    """With the tag, and with a token that means nothing in its place (the control)."""
    half = halves["distilled"]
    ended = [(question, answer if answer.endswith((".", "!", "?")) else f"{answer}.") for question, answer in combined]
    texts = [f"{question} <think>{mark} <answer>{answer}</answer>" for question, answer in ended[:24]]
    assert wanted["n"] == len(texts)
    assert wanted["estimate"] == pytest.approx(half.p_stop(texts).mean(), abs=CLOSE)
