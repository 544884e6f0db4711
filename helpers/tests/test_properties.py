# SPDX-License-Identifier: MIT
"""Laws of prompts, endings, tokens, statistics and stored records, on inputs that hypothesis invents."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers import prompts, stats
from helpers.findings import Rule, all_of
from helpers.generation import first_word, repetition
from helpers.prompts import Ending, Material, Question, endings_grid, with_ending
from helpers.stats import Interval
from helpers.store import read_json, write_records
from helpers.tokens import KEYWORDS, control_ids, count_keywords, keyword_pattern, plain_words, single_id, token_groups

SAME_EVERY_TIME = dict(deadline=None, database=None, derandomize=True)
laws = settings(**SAME_EVERY_TIME, max_examples=60)
few = settings(**SAME_EVERY_TIME, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
words = st.text("abcdefgh", min_size=1, max_size=6)
numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=2, max_size=30)
seeds = st.integers(0, 10**6)
endings = st.sampled_from([*endings_grid(), *endings_grid(answer="none")])
materials = st.builds(Material, words.map(lambda word: f"The {word}."), words, words, words, words)
intervals = st.tuples(numbers, numbers, numbers).map(sorted).map(lambda ends: Interval(ends[1], ends[0], ends[2], 9))


def legal(pair, text: str) -> str:
    """A text that no special token stands in."""
    assume(not any(mark in text for member in pair.members for mark in member.special_marks))
    return text


@laws
@given(text=texts)
def test_legal_text_comes_back_from_every_form(qwen, text):
    for member in qwen.members:
        plain, template = (member.prompt(legal(qwen, text), form) for form in ("plain", "template"))
        assert plain == member.bos + text and template.count(text) >= 1
        for prompt in (plain, template):
            ids = member.encode([prompt])["input_ids"][0]
            assert member.tokenizer.decode(ids) == normalize("NFC", prompt)


@laws
@given(many=st.lists(texts, min_size=1, max_size=5))
def test_a_prompt_has_the_same_tokens_alone_and_in_a_batch(qwen, many):
    together = qwen.base.encode(many)
    for text, ids, mask in zip(many, together["input_ids"], together["attention_mask"], strict=True):
        alone = qwen.base.encode([text])["input_ids"][0].tolist()
        assert ids[mask.bool()].tolist() == alone
        assert mask.sum() == len(alone) and bool((mask.diff() >= 0).all()), "padding goes left"


@laws
@given(text=texts, thought=texts)
def test_the_final_answer_is_what_follows_the_last_thought(text, thought):
    assume("</think>" not in text)
    assert prompts.final_answer(f"{thought}</think>{text}", opened=True) == text
    assert prompts.final_answer(text, opened=False) == text and prompts.final_answer(text, opened=True) == ""


@laws
@given(text=texts, before=words, after=words, answer=words)
def test_reading_answers(text, before, after, answer):
    assert prompts.normalise(prompts.normalise(text)) == prompts.normalise(text)
    assert prompts.is_right(f"{before} {answer.upper()}, {after}", (answer,))
    assert not prompts.is_right(f"{answer}x", (answer,)) and not prompts.is_right(f"{before}-{answer}", (answer,))
    assert 0 <= prompts.echo_share(text, f"{before} {after}") <= 1
    assert prompts.echo_share(f"{text} {before} {after}", f"{before} {after}") == 1
    assert first_word(text) in text and " " not in first_word(text)


@laws
@given(parts=st.lists(words, min_size=1, max_size=12), seed=seeds)
def test_shuffling_keeps_the_words_and_the_last_one(parts, seed):
    shuffled = prompts.shuffle_words(" ".join(parts), seed).split(" ")
    assert sorted(shuffled) == sorted(parts) and shuffled[-1] == parts[-1]


@laws
@given(ending=endings, material=materials, mark=st.sampled_from(["</plank>", " the and", "</li>"]))
def test_an_ending_is_its_parts_one_after_the_other_and_another_mark_changes_nothing_but_the_mark(
    ending, material, mark
):
    before = replace(ending, gap="", answer="none", tags=False).text(material)
    after = Ending(answer=ending.answer, tags=ending.tags).text(material)
    whole = ending.text(material)
    assert whole == before + ending.gap + after
    assert whole.count("<think>") == ending.think and whole.count("</think>") == ending.close
    uncut, cut = (replace(ending, answer=answer, tags=False).text(material) for answer in ("sentence", "open"))
    assert uncut == cut + ".", "the open sentence lacks its period alone"
    assert ending.text(material, mark=mark) == whole.replace("</think>", mark)
    assert ending.text(material, mark="") == whole.replace("\n</think>" * (ending.thought == "real") or "</think>", "")


@laws
@given(ending=endings, material=materials, text=texts, form=st.sampled_from(["plain", "template"]))
def test_an_ended_prompt_begins_with_the_question_and_ends_in_the_ending(qwen, ending, material, text, form):
    question = Question("a", "c", legal(qwen, text), ("I",))
    for member in qwen.members:
        (asked,) = prompts.ask(member, [question], form=form)
        (prompt,) = with_ending(member, [question], [material], ending, form=form)
        between = prompt.removeprefix(asked).removesuffix(ending.text(material))
        assert prompt.startswith(asked) and between in ("", " ")
        (combined,) = prompts.combine(member, [question], [material.sentence], form=form)
        assert combined.startswith(asked) and combined.endswith(material.sentence)


@laws
@given(tokens=st.lists(st.integers(0, 5), max_size=40), n=st.integers(1, 5))
def test_repetition_is_a_share_that_knows_no_names(tokens, n):
    assert 0 <= repetition(tokens, n) < 1
    assert repetition([700 - token for token in tokens], n) == repetition(tokens, n)
    assert repetition(list(range(len(tokens))), n) == 0
    assert repetition([7] * (len(tokens) + n), n) == pytest.approx(1 - 1 / (len(tokens) + 1))


@laws
@given(text=texts)
def test_a_single_token_is_the_whole_text(qwen, text):
    for member in qwen.members:
        found, ids = single_id(member.tokenizer, text), member.tokenizer(text, add_special_tokens=False).input_ids
        assert (found is None) or (ids == [found] and member.tokenizer.decode([found]) == text)
        assert found is not None or len(ids) != 1 or member.tokenizer.decode(ids) != text


@few
@given(targets=st.lists(st.integers(0, 699), max_size=6, unique=True), eos=st.lists(st.integers(0, 699), max_size=3))
def test_groups_of_tokens_do_not_overlap(qwen, targets, eos):
    tokenizer = qwen.base.tokenizer
    chosen = control_ids(tokenizer, tuple(targets), avoid=set(targets))
    assert len(set(chosen)) == len(chosen) == len(targets) and not set(chosen) & set(targets)
    assert all(single_id(tokenizer, tokenizer.decode([index])) == index for index in chosen)
    groups = token_groups(tokenizer, eos)
    assert list(groups.stop[: len(set(eos))]) == list(dict.fromkeys(eos)) and len(set(groups.stop)) == len(groups.stop)
    assert not set(groups.control) & {*groups.reasoning, *groups.wait}
    words = plain_words(tokenizer, len(targets) + 1)
    assert len(tokenizer(words, add_special_tokens=False).input_ids) == len(targets) + 1


@laws
@given(one=texts, two=texts, family=st.sampled_from(list(KEYWORDS)), pick=st.randoms(use_true_random=False))
def test_keywords_add_up_over_lines(one, two, family, pick: random.Random):
    word = pick.choice(KEYWORDS[family])
    assert keyword_pattern(KEYWORDS[family]).findall(word)[0] == word
    a, b, both = (count_keywords(text) for text in (one, f"{two}\n{word.upper()}", f"{one}\n{two}\n{word.upper()}"))
    assert both == {name: a[name] + b[name] for name in KEYWORDS} and both[family] >= 1


@laws
@given(values=samples, scale=st.floats(-10, 10).filter(lambda scale: abs(scale) > 0.1), shift=st.floats(-100, 100))
def test_an_interval_holds_its_estimate_moves_stretches_and_mirrors_with_its_values(values, scale, shift):
    found, moved = stats.bootstrap(values), stats.bootstrap([scale * value + shift for value in values])
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.estimate + slack <= found.high + 2 * slack
    assert found.high <= max(values) + slack and found.n == len(values)
    estimate, *ends = (scale * end + shift for end in (found.estimate, found.low, found.high))
    assert (moved.estimate, moved.low, moved.high) == pytest.approx((estimate, *sorted(ends)), rel=1e-9, abs=1e-4)


@laws
@given(seed=seeds)
def test_the_order_of_prompts_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    values, order = rng.normal(size=(40, 3)), rng.permutation(40)
    one, other = stats.bootstrap(values[:, 0]), stats.bootstrap(values[order, 0])
    assert one.estimate == pytest.approx(other.estimate)
    for low_or_high in ("low", "high"):  # other resamples are drawn
        assert abs(getattr(one, low_or_high) - getattr(other, low_or_high)) < 0.2 * (one.high - one.low)
    exact = [stats.alignment(rows[:, :2], rows[:, 1:]) for rows in (values, values[order])]
    assert asdict(exact[0]) == pytest.approx(asdict(exact[1]))


@laws
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=3, max_size=20))
def test_correlation_is_symmetric_and_ranks_know_no_scale(pairs):
    one, two = map(np.array, zip(*pairs, strict=True))
    for ranks in (False, True):
        found, turned = stats.correlation(one, two, ranks=ranks), stats.correlation(two, one, ranks=ranks)
        assert asdict(found) == pytest.approx(asdict(turned), abs=1e-9)
        assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    cubed = stats.correlation(one**3, two, ranks=True)
    assert asdict(cubed) == pytest.approx(asdict(stats.correlation(one, two, ranks=True)))


@laws
@given(runs=st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=2, max_size=20))
def test_survival_falls_from_one_inside_its_band(runs):
    lengths, stopped = map(np.array, zip(*runs, strict=True))
    _, share, low, high = stats.survival(lengths, stopped)
    assert (np.diff(share) <= 1e-12).all() and ((share >= 0) & (share <= 1)).all()
    assert (low <= share + 1e-12).all() and (share <= high + 1e-12).all()


@laws
@given(curve=st.lists(st.floats(-10, 10).map(lambda x: round(x, 2)), min_size=2, max_size=12))
def test_where_a_curve_settles_knows_no_scale_and_no_sign(curve):
    assume(curve[-1])
    found = stats.settled_at([curve, [-v for v in curve], [4 * v for v in curve]])
    assert (found == found[0]).all() and 0 <= found[0] <= 1
    line = np.linspace(curve[0], curve[-1], 9)
    assert stats.fit_shape(line, "linear") == pytest.approx(line, abs=1e-4)


@laws
@given(interval=intervals, threshold=numbers, others=st.lists(intervals, max_size=3))
def test_a_rule_mirrors_and_a_claim_does_not_mind_the_order_of_its_parts(interval, threshold, others):
    turned = Interval(-interval.estimate, -interval.high, -interval.low, 9)
    verdict = Rule("above", threshold).verdict(interval)
    assert Rule("below", -threshold).verdict(turned) == verdict
    assert (verdict == "holds") == (interval.low > threshold)
    assert Rule("away", abs(threshold)).verdict(interval) == Rule("away", abs(threshold)).verdict(turned)
    verdicts = [Rule("above", threshold).verdict(one) for one in (interval, *others)]
    assert all_of(*verdicts) == all_of(*verdicts[::-1])
    assert (all_of(*verdicts) == "holds") == all(one == "holds" for one in verdicts)


records = st.lists(st.dictionaries(words, st.one_of(texts, numbers, st.none(), st.lists(st.integers()))), max_size=4)


@few
@given(rows=records)
def test_records_come_back_one_a_line(tmp_path, rows):
    path = tmp_path / "a.json"
    write_records(path, rows)
    assert read_json(path) == rows and [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text(encoding="utf-8").count("\n") == max(len(rows), 1) + 2
