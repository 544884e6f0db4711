# SPDX-License-Identifier: MIT

from dataclasses import dataclass

import pytest
import torch
from transformers import SequenceBiasLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from helpers import generation, store
from helpers.generation import Change, Decoding, SeededChoice, answers, complete, select_combined, stored_completions
from helpers.pairs import Pair
from helpers.prompts import ask, load_questions
from helpers.store import read_json, sha256, sidecar_path, write_records
from helpers.tests.conftest import Does

PROMPTS = ["The bus stops at the corner", "A cat", "She bought a blue coat at the market and", "My sister", "Two"]


def plain(member, prompt, steps, choose):
    """Independent: one prompt, no padding, no cache, a token chosen after each plain forward pass."""
    ids = member.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    start = ids.shape[1]
    for step in range(steps):
        with torch.no_grad():
            token = int(choose(step, ids, member.model(input_ids=ids).logits[:, -1]))
        if token in member.groups.stop:
            break
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return ids[0, start:].tolist()


def drawn(seed, key, step):
    return int(sha256(f"{seed}\0{key}\0{step}")[:13], 16) / 16**13


def test_greedy_equals_a_plain_loop(tiny):
    for member in tiny.members:
        alone = [plain(member, prompt, 40, lambda step, ids, scores: scores.argmax()) for prompt in PROMPTS]
        assert [done.tokens for done in complete(member, PROMPTS, max_new_tokens=40)] == alone


def test_finished_rows_leave_and_the_rest_goes_on(qwen):
    """Rows that stop at different chunks give the same tokens as alone."""
    member = qwen.base

    def often_stop(input_ids, scores):
        stop = torch.arange(scores.shape[1]) == member.groups.stop[0]
        return scores + 1e4 * (stop & (input_ids[:, -1:] % 11 == 0))

    @dataclass(frozen=True)
    class Watched(Change):
        def at(self, prompts):
            batches.append(sorted(prompts))
            return self

    batches, chunk = [], generation.CHUNK["cpu"]
    how = {"max_new_tokens": 120, "change": Watched(processors=(Does(often_stop),))}
    apart = [complete(member, [p], **how)[0] for p in PROMPTS]
    batches.clear()
    together = complete(member, PROMPTS, **how)
    assert together == apart
    assert len({c.length // chunk for c in together}) > 1, "the rows must end in different chunks"
    still = [[row for row, c in enumerate(together) if c.length >= start] for start in range(0, 120, chunk)]
    assert batches == [rows for rows in still if rows], "a row that has stopped costs no further step"
    assert {c.stop for c in together} >= {"<|endoftext|>"}


def test_limit_and_stop_reason(qwen):
    done = complete(qwen.base, ["A cat"], max_new_tokens=5)[0]
    assert done.stop == "limit" and done.length == 5 == len(done.tokens)
    raised = SequenceBiasLogitsProcessor({(qwen.base.groups.stop[1],): 1e4})
    done = complete(qwen.base, ["A cat"], max_new_tokens=5, change=Change(processors=(raised,)))[0]
    assert done.stop == "<|im_end|>" and done.length == 0 and done.text == ""


def test_sampling_equals_a_plain_loop(tiny):
    """One prompt, no cache, transformers' own nucleus, a draw of its own at each step, over more than one chunk."""
    member, prompt = tiny.distilled, PROMPTS[2]

    def choose(step, ids, scores):
        scores = TopPLogitsWarper(0.9)(ids, TemperatureLogitsWarper(1.3)(ids, scores))
        ranked, order = scores.softmax(-1)[0].double().sort(descending=True)
        return order[int((ranked.cumsum(0) <= drawn(2, prompt, step)).sum())]

    done = complete(member, PROMPTS, max_new_tokens=24, temperature=1.3, top_p=0.9, seed=2)[2]
    assert done.tokens == plain(member, prompt, 24, choose) and done.length > generation.CHUNK["cpu"]


@pytest.mark.parametrize(("temperature", "top_p"), [(0.6, 0.95), (1.0, 1.0), (2.0, 0.5), (0.01, 0.9)])
def test_the_choice_is_from_transformers_own_nucleus(temperature, top_p, monkeypatch):
    scores = torch.randn(6, 900, generator=torch.Generator().manual_seed(1)) * 3
    ids, keys, how = torch.zeros(6, 1), list("abcdef"), Decoding(seed=5, temperature=temperature, top_p=top_p)
    warped = TopPLogitsWarper(top_p)(ids, TemperatureLogitsWarper(temperature)(ids, scores.clone()))
    ranked, order = warped.softmax(-1).sort(descending=True)
    for step in range(30):
        chosen = SeededChoice(how, keys, step)(ids, scores).argmax(-1)
        assert torch.isfinite(warped.gather(-1, chosen[:, None])).all()
        at = [int((row.double().cumsum(0) <= drawn(5, k, step)).sum()) for k, row in zip(keys, ranked, strict=True)]
        assert chosen.tolist() == [int(row[k]) for row, k in zip(order, at, strict=True)]
        monkeypatch.setattr(generation, "SHORTLIST", 900 if step % 2 else 7)


@pytest.mark.parametrize(
    ("text", "word"), [("<think>\n<think>\nOkay, so", "Okay"), ("**Paris** is", "Paris"), ("", ""), ("嗯，这", "嗯")]
)
def test_first_word(text, word):
    assert generation.first_word(text) == word


def test_stored_rows_are_reused_and_only_missing_ones_computed(qwen, data_here, capsys, monkeypatch):
    first = stored_completions(qwen, qwen.base, PROMPTS[:3], name="x", max_new_tokens=8)
    calls, original = [], generation._complete_batch
    monkeypatch.setattr(generation, "_complete_batch", lambda *given: calls.append(given[-1]) or original(*given))
    again = stored_completions(qwen, qwen.base, PROMPTS, name="x", max_new_tokens=8)
    assert again[:3] == first and calls == [[3, 4]]
    assert "3 completions reused, 2 to compute" in capsys.readouterr().out


def test_another_notebook_at_the_same_file_mixes_nothing(qwen, data_here, monkeypatch):
    """While one computes, another writes rows of other settings, and the first one's come after."""
    original, busy = generation._complete_batch, []

    def meanwhile(*args, **options):
        if not busy:
            busy.append(True)
            stored_completions(qwen, qwen.base, PROMPTS[2:], name="x", max_new_tokens=5)
        return original(*args, **options)

    monkeypatch.setattr(generation, "_complete_batch", meanwhile)
    first = stored_completions(qwen, qwen.base, PROMPTS[:2], name="x", max_new_tokens=8)
    path = data_here / "tiny-qwen2" / "x.json"
    rows, settings = read_json(path), read_json(sidecar_path(path))["provenance"]["settings"]
    assert settings["max_new_tokens"] == 8 and [row["length"] for row in rows] == [one.length for one in first]
    assert stored_completions(qwen, qwen.base, PROMPTS[:2], name="x", max_new_tokens=8) == first


def test_other_versions_reuse_rows_that_a_sample_confirms(qwen, data_here, capsys, monkeypatch):
    prompts = [f"{prompt} {k}" for prompt in PROMPTS for k in range(3)]
    first = stored_completions(qwen, qwen.base, prompts, name="x", max_new_tokens=8)
    monkeypatch.setattr(store, "package_versions", lambda: {"torch": "99.0"})
    capsys.readouterr()
    assert stored_completions(qwen, qwen.base, prompts, name="x", max_new_tokens=8) == first
    assert "0 to compute, made with torch" in (said := capsys.readouterr().out) and "2 written again, the same" in said
    path = data_here / "tiny-qwen2" / "x.json"
    rows = read_json(path)
    at = [row["prompt"] for row in rows].index(prompts[store.sampled(len(prompts), "x")[1]])
    write_records(path, [row | {"text": row["text"] + "!" * (k == at)} for k, row in enumerate(rows)])
    assert stored_completions(qwen, qwen.base, prompts, name="x", max_new_tokens=8) == first
    assert f"{len(prompts)} to compute" in (said := capsys.readouterr().out) and "NOT the same" in said


STALE = {  # what is asked another time, and how many of two rows are still good
    "nothing": ({}, 2),
    "prompt": ({"prompts": [PROMPTS[0], PROMPTS[1] + " "]}, 1),
    "name": ({"change": Change("lowered", names=("sample 0", "sample 2"))}, 1),
    "description": ({"change": Change("raised", names=("sample 0", "sample 1"))}, 0),
    "limit": ({"max_new_tokens": 5}, 0),
    "seed": ({"seed": 1}, 0),
    "model": ({"member": "distilled"}, 0),
    "fresh": ({"fresh": True}, 0),
    "format": ({"format": 2}, 0),
}


@pytest.mark.parametrize("asked", STALE)
def test_a_row_is_of_its_prompt_settings_and_change(qwen, data_here, capsys, monkeypatch, asked):
    other, reused = STALE[asked]
    how = {"member": "base", "prompts": PROMPTS[:2], "max_new_tokens": 4, "name": "x", "format": 1}
    how["change"] = Change("lowered", names=("sample 0", "sample 1"))
    for options, good in ((how, 0), (how | other, reused), (how | other | {"fresh": False}, 2)):
        monkeypatch.setattr(generation, "FORMAT", options["format"])
        given = {name: value for name, value in options.items() if name not in ("member", "format")}
        stored_completions(qwen, getattr(qwen, options["member"]), **given)
        assert f"{good} completions reused, {2 - good} to compute" in capsys.readouterr().out


def test_answers_frame(qwen, data_here):
    questions = load_questions(4)
    frame = answers(qwen, qwen.distilled, questions, form="template", max_new_tokens=8)
    assert list(frame.index) == [q.id for q in questions]
    assert list(frame["prompt"]) == ask(qwen.distilled, questions, form="template")
    assert not frame["right"].any() and (frame["answer"] == "").all(), "an unclosed thought has no answer"


def test_select_combined_keeps_what_separates(qwen, data_here):
    questions = load_questions(16)
    base = answers(qwen, qwen.base, questions, form="template", max_new_tokens=4).assign(stopped=True)
    distilled = base.assign(stopped=False)
    assert len(select_combined(base, distilled)) == 16
    first = base.index[base["split"] == "confirm"][0]
    distilled.loc[first, "stopped"] = True
    assert first not in (kept := select_combined(base, distilled)).index and len(kept) == 15
    distilled.loc[first, "length"] = 31
    assert first in select_combined(base, distilled).index, "it stops, but not quickly"
    base.loc[first, "length"] = 31
    assert first not in select_combined(base, distilled).index, "the base does not, either"


def test_combined_prompts_hold_the_bases_own_answer(tiny, data_here):
    both = generation.load_combined(tiny, n_prompts=24, n_combined=5, max_new_tokens=12)
    for split, found in both.items():
        assert 1 < len(found.questions) <= 5 and all(question.split == split for question in found.questions)
        assert len(found.answers) == len(found.right) == len(found.questions)
        plain = found.prompts(tiny.distilled, "plain")
        for prompt, question, answer in zip(plain, found.questions, found.answers, strict=True):
            assert prompt == f"{tiny.distilled.bos}{question.text} Just give the answer. {answer.strip()}"


def test_half_precision_has_a_file_of_its_own(qwen_folders, data_here):
    pair = Pair.of(*qwen_folders, device="cpu", dtype=torch.bfloat16)
    how = {"name": "x", "max_new_tokens": 4}
    stored_completions(pair, pair.base, PROMPTS, **how)
    half = (path := data_here / "own" / "x_bfloat16.json").read_bytes()
    stored_completions(pair.float(), pair.base, PROMPTS, **how)
    assert path.read_bytes() == half, "float32 does not overwrite it"
    assert (data_here / "own" / "x.json").exists()


def test_samples_of_one_prompt_differ_and_do_not_depend_on_the_batch(qwen, data_here, capsys, monkeypatch):
    member, names = qwen.distilled, ("sample 0", "sample 0", "sample 1", "sample 1")
    prompts, how = PROMPTS[:2] * 2, {"temperature": 1.0, "seed": 3, "max_new_tokens": 12}
    how["change"] = Change("samples", names=names)
    first = stored_completions(qwen, member, prompts, name="s", **how)
    assert first[0].tokens != first[2].tokens and first[0].change == "sample 0"
    monkeypatch.setattr(generation, "BATCH", {"cpu": 1})
    assert stored_completions(qwen, member, prompts, name="t", **how) == first
    stored_completions(qwen, member, prompts, name="s", **how)
    assert "4 completions reused, 0 to compute" in capsys.readouterr().out
