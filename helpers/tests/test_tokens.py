# SPDX-License-Identifier: MIT
import ast
import copy

import pytest

from helpers.tokens import REASONING, WAIT, count_keywords, token_groups, token_table


def test_groups_are_the_words(tiny):
    for member in tiny.members:
        assert [member.tokenizer.decode([i]) for i in member.groups.wait] == list(WAIT)
        assert [member.tokenizer.decode([i]) for i in member.groups.reasoning] == list(REASONING)


def test_a_word_counts_where_it_is_one_token_in_a_text(qwen):
    whole, joined = qwen.base.tokenizer, copy.deepcopy(qwen.base.tokenizer)
    joined.add_tokens(["\n\nWait"])  # a word after a blank line is read together with it
    assert [*token_groups(joined, [0]).missing] == [*token_groups(whole, [0]).missing, "Wait"]


@pytest.mark.parametrize(
    ("text", "family", "count"),
    [
        ("Okay, let me think about this. Okay, so", "opening", 2),
        ("Wait, no. But hold on, waiting is not a wait", "doubting", 3),
        ("Wait, maybe. Alternatively, perhaps another", "alternatives", 4),
        ("嗯，这个问题看起来有点意思。让我仔细想想。", "opening", 2),
        ("不过，但是不过再仔细想想，", "doubting", 3),
        ("首先，另一个思路是", "ordering", 2),
        ("或者这样：或者", "alternatives", 2),
        ("I think I’ve reached the limit of my ability", "limits", 1),
        ("Nothing of the kind", "doubting", 0),
    ],
)
def test_keyword_counts(text, family, count):
    assert count_keywords(text)[family] == count


def test_token_table_agrees_with_the_tokenizer(qwen):
    frame = token_table(qwen.base.tokenizer)
    assert len(frame) == 12
    assert all("".join(row.pieces) == ast.literal_eval(row.word) for row in frame.itertuples())
