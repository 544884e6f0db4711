# SPDX-License-Identifier: MIT
import ast
import copy
import itertools
import json
from dataclasses import replace

import pytest

from helpers import prompts
from helpers.embedded import adapter_dir
from helpers.making.distill import question_hash
from helpers.prompts import Ending, Question, combine, echo_share, ending_materials, endings_grid, load_questions
from helpers.store import ROOT
from helpers.tokens import REASONING, WAIT, count_keywords, nonsense_tag, plain_words, token_groups, token_table


def test_there_are_enough_questions_and_half_of_them_report():
    questions = load_questions()
    assert len(questions) >= 240 and len({q.category for q in questions}) >= 8
    assert len({prompts.normalise(q.text) for q in questions}) == len({q.id for q in questions}) == len(questions)
    assert 0.4 < sum(q.split == "confirm" for q in questions) / len(questions) < 0.6
    assert load_questions(20) == questions[:20] and len(prompts.neutral_sentences()) == 48


def test_no_question_was_trained_on():
    trained = set(json.loads((adapter_dir() / "training.json").read_text())["question_sha256"])
    assert len(trained) > 1000 and not trained & {question_hash(q.text) for q in load_questions()}
    practice = {question_hash(q.text) for q in load_questions(path=ROOT / "data" / "practice.jsonl")}
    assert trained & practice, "the hashes cover what was trained on"


RIGHT = {"The capital is Paris.": "paris", "No. 5": "5", "It is 3.": "3", "**twenty-six**": "twenty-six",
         "The answer is “don’t”": "don't"}  # fmt: skip
WRONG = {"Parisian": "Paris", "It is 100,000.": "100", "It is 3.5": "3", "is 3.5": "5", "It is 1,500": "500",
         "sixty-four": "sixty", "": "a"}  # fmt: skip


@pytest.mark.parametrize("text", [*RIGHT, *WRONG])
def test_right_means_whole_words(text):
    assert prompts.is_right(text, ((RIGHT | WRONG)[text],)) is (text in RIGHT)


def test_echo_share():
    assert echo_share("So: what is the capital of France? Hmm", "What is the capital of France?") == 1
    assert echo_share("Paris", "What is the capital of France?") == 0
    assert echo_share("France? The capital of what is", "What is the capital of France?") == 0, "words, but no stretch"
    assert echo_share("It is the capital of Spain", "What is the capital of France?") == pytest.approx(1 / 3)


def test_combined_prompt_is_question_sentence_answer(qwen):
    questions = load_questions(2)
    plain = combine(qwen.base, questions, [" A. ", "B."], form="plain")
    assert plain[0] == f"{questions[0].text} {prompts.JUST} A."
    template = combine(qwen.distilled, questions, ["A.", "B."], form="template")
    assert template[1].endswith("<think>\nB.") and template[1].count("<｜begin▁of▁sentence｜>") == 1


QUESTIONS = [Question("a", "x", "Capital of France?", ("Paris",)), Question("b", "x", "Capital of Italy?", ("Rome",))]
ANSWERS = ["The capital is Paris", "It is Rome."]


def test_materials_swap_the_answer_for_the_next_questions_and_end_in_a_period():
    one, two = ending_materials(QUESTIONS, ANSWERS, [" I think. ", "So?"])
    assert one == prompts.Material("The capital is Paris.", "Paris", "The capital is Rome.", "It is Rome.", "I think.")
    assert two.wrong == "It is Paris." and two.other == "The capital is Paris."
    assert ending_materials(QUESTIONS, ["It is Lyon", "Rome"], ["", ""])[0].wrong == "Rome."
    questions = [Question(str(k), "c", f"Number {k}?", (str(k),)) for k in (1, 2, 2, 3)]
    made = ending_materials(questions, ["It is 1", "It is 2", "It is 2!", "It is 3"], [""] * 4)
    assert [one.other for one in made] == ["It is 2.", "It is 3.", "It is 3.", "It is 1."]
    assert [one.wrong for one in made] == ["It is 2.", "It is 3.", "It is 3!", "It is 1."]


def test_endings_are_put_together_part_by_part():
    material, block = ending_materials(QUESTIONS, ANSWERS, ["I think.", "So?"])[0], Ending(close=True, gap="\n\n")
    tagged = Ending(think=True, close=True, gap=" ", tags=True).text(material)
    assert tagged == "<think></think> <answer>The capital is Paris.</answer>"
    assert replace(block, answer="word.").text(material, mark="<x>") == "<x>\n\nParis."
    assert Ending(thought="real", close=True, answer="none").text(material) == "\nI think.\n</think>"
    assert replace(block, thought="real").text(material, mark="") == "\nI think.\n\nThe capital is Paris."
    assert Ending(thought="answer", close=True, answer="none").text(material) == "The capital is Paris.</think>"
    assert Ending(answer="open").text(material) == "The capital is Paris"


def test_the_grid_holds_every_combination_once():
    grid = endings_grid()
    assert len(grid) == len(set(grid)) == 2 * 3 * 2 * 4 * 6 * 2
    assert all(ending.answer != "none" for ending in grid)
    assert len(endings_grid(think=True, gap=" ")) == len(grid) // 8


def test_endings_tokenise_as_intended_on_both_tokenizers(tiny):
    materials = ending_materials(QUESTIONS, ANSWERS, ["I think.", "So?"])
    for member, form in itertools.product(tiny.members, ("plain", "template")):
        for ending in endings_grid(answer="sentence"):
            for prompt in prompts.with_ending(member, QUESTIONS, materials, ending, form=form):
                ids = member.encode([prompt])["input_ids"][0].tolist()
                assert member.tokenizer.decode(ids) == prompt
                assert not member.bos or ids.count(member.tokenizer.bos_token_id) == 1
                assert member.groups.end_think is None or ids.count(member.groups.end_think) == ending.close


def test_the_nonsense_tag_has_as_many_tokens(tiny):
    for member in tiny.members:
        marks = "</think>", nonsense_tag(member.tokenizer), plain_words(member.tokenizer, 3)
        counts = [len(member.tokenizer(mark, add_special_tokens=False)["input_ids"]) for mark in marks]
        assert marks[0] != marks[1] and counts == [counts[0], counts[0], 3] and marks[2].replace(" ", "").isalpha()


def test_groups_are_the_words(tiny):
    for member in tiny.members:
        assert [member.tokenizer.decode([i]) for i in member.groups.wait] == list(WAIT)
        assert [member.tokenizer.decode([i]) for i in member.groups.reasoning] == list(REASONING)


def test_a_word_counts_where_it_is_one_token_in_a_text(qwen):
    whole, joined = qwen.base.tokenizer, copy.deepcopy(qwen.base.tokenizer)
    joined.add_tokens(["\n\nWait"])  # a word after a blank line is read together with it
    assert [*token_groups(joined, [0]).missing] == [*token_groups(whole, [0]).missing, "Wait"]


COUNTED = {
    "Okay, let me think about this. Okay, so": ("opening", 2),
    "Wait, no. But hold on, waiting is not a wait": ("doubting", 3),
    "Wait, maybe. Alternatively, perhaps another": ("alternatives", 4),
    "嗯，这个问题看起来有点意思。让我仔细想想。": ("opening", 2),
    "不过，但是不过再仔细想想，": ("doubting", 3),
    "首先，另一个思路是": ("ordering", 2),
    "或者这样：或者": ("alternatives", 2),
    "I think I’ve reached the limit of my ability": ("limits", 1),
    "Nothing of the kind": ("doubting", 0),
}


@pytest.mark.parametrize("text", COUNTED)
def test_keyword_counts(text):
    family, count = COUNTED[text]
    assert count_keywords(text)[family] == count


def test_token_table_agrees_with_the_tokenizer(qwen):
    frame = token_table(qwen.base.tokenizer)
    assert len(frame) == 12 and all("".join(row.pieces) == ast.literal_eval(row.word) for row in frame.itertuples())
