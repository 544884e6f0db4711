# SPDX-License-Identifier: MIT
"""Stop, think and reasoning tokens as named groups; the keyword catalogue; the token table."""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

WAIT = ("Wait", " Wait", " wait", "wait")
REASONING = (" Wait", " Correct", " Yes", "?", "\n", " I", " But", " So", " That", " To", " It", " This")
THINK = ("<think>", "</think>")
END_MARKS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<｜end▁of▁sentence｜>")

TABLE = (" John", "John", "Wait", "wait", " Wait", " wait", "Wait ", "wait ", "Wait,", "wait,", "Wait, ", "wait, ")
NONSENSE = ("<file_sep>", "<|file_sep|>", "<repo_name>", "<|repo_name|>", "<|fim_pad|>", "</table>", "</shrink>")
NONSENSE += ("</plank>", "</td>", "</li>", "</div>", "</drawing>", "</p>")

KEYWORDS: dict[str, tuple[str, ...]] = {
    "opening": ("okay, let me think about this", "let me think", "let's see", "okay,", "嗯，这个问题看起来有点意思",
                "让我仔细想想", "嗯，"),
    "ordering": ("right, so that's the key here", "i remember", "first off", "first,", "next,", "then,", "lastly",
                 "首先，", "另一个思路是"),
    "doubting": ("wait", "but hold on", "hold on", "no, that's not right", "hmm, i'm not sure", "but maybe",
                 "不过这里可能需要更仔细地分析", "不过再仔细想想，", "不过，", "但是"),
    "alternatives": ("alternatively", "so, perhaps", "hmm, perhaps", "hmm, it seems like", "perhaps", "maybe",
                     "also,", "another", "或者这样：", "或者"),
    "limits": ("i've reached the limit", "limit of my ability"),
}  # fmt: skip


@dataclass(frozen=True)
class TokenGroups:
    """Token ids of one model, by name. `missing` names what is not one token in its vocabulary."""

    stop: tuple[int, ...]
    wait: tuple[int, ...]
    reasoning: tuple[int, ...]
    control: tuple[int, ...]
    think: int | None
    end_think: int | None
    missing: tuple[str, ...]


def single_id(tokenizer: Any, text: str) -> int | None:
    """Id of `text` if it is exactly one token and decodes to itself, else None."""
    ids = _ids(tokenizer, text)
    return ids[0] if len(ids) == 1 and tokenizer.decode(ids) == text else None


def lost_mark(tokenizer: Any) -> str | None:
    """A mark that has an id of its own but is read as something else inside a text, as when a conversion forgot that
    it is an added token."""
    known, added = tokenizer.get_vocab(), map(str, tokenizer.added_tokens_decoder.values())
    for mark in dict.fromkeys([*THINK, *END_MARKS, *added]):
        if mark in known and known[mark] not in _ids(tokenizer, f"It is so.\n{mark}\n\nYes."):
            return mark
    return None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _in_text(tokenizer: Any, word: str) -> int | None:
    """Id of a word that is one token by itself and at the end of a text as well, else None."""
    index, before = single_id(tokenizer, word), "It is so." if word.startswith(" ") else "It is so.\n\n"
    same = not word.strip().isalpha() or _ids(tokenizer, before + word)[-1] == index
    return index if same else None


def token_groups(tokenizer: Any, eos_ids: list[int]) -> TokenGroups:
    """Look every group up in one tokenizer. `eos_ids` are those that end its generation."""
    found = {text: _in_text(tokenizer, text) for text in (*WAIT, *REASONING, *THINK)}
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    ends = [tokenizer.convert_tokens_to_ids(mark) for mark in END_MARKS if mark in special]
    wait, reasoning = (tuple(found[text] for text in words if found[text] is not None) for words in (WAIT, REASONING))
    return TokenGroups(
        stop=tuple(dict.fromkeys([*eos_ids, *ends])),
        wait=wait,
        reasoning=reasoning,
        control=control_ids(tokenizer, reasoning, avoid={*reasoning, *wait}),
        think=found["<think>"],
        end_think=found["</think>"],
        missing=tuple(text for text in (*WAIT, *REASONING) if found[text] is None),
    )


def control_ids(tokenizer: Any, targets: tuple[int, ...], avoid: set[int]) -> tuple[int, ...]:
    """For each target the nearest id that is a plain word: byte-pair ids are ordered by merge rank,
    so neighbours are of like frequency in the tokenizer's training text. Used in notebook 04."""
    chosen: list[int] = []
    for target in targets:
        for index in (target + sign * step for step in range(1, len(tokenizer)) for sign in (1, -1)):
            text = tokenizer.decode([index]) if 0 <= index < len(tokenizer) else ""
            word = re.fullmatch(r" [a-z]{3,}", text) and single_id(tokenizer, text) == index
            if word and index not in avoid and index not in chosen:
                chosen.append(index)
                break
    return tuple(chosen)


def nonsense_tag(tokenizer: Any) -> str:
    """A tag without meaning here, of as many tokens as `</think>` in this tokenizer: the control for it. Marks that
    vocabularies hold for code files come first; where no tag fits, words of one token each."""
    n_tokens = len(_ids(tokenizer, THINK[1]))
    fitting = (tag for tag in NONSENSE if len(_ids(tokenizer, tag)) == n_tokens)
    return next(fitting, None) or plain_words(tokenizer, n_tokens)


def plain_words(tokenizer: Any, n_tokens: int) -> str:
    """That many plain words of one token each: a mark's control that is no markup. Used in notebook 07."""
    return "".join(map(tokenizer.decode, control_ids(tokenizer, tuple(range(300, 300 + n_tokens)), set())))


def count_keywords(text: str) -> dict[str, int]:
    """Occurrences of each family of keywords, each stretch of text counted once in a family."""
    lowered = text.lower().replace("’", "'")
    return {family: len(keyword_pattern(words).findall(lowered)) for family, words in KEYWORDS.items()}


def keyword_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words at word boundaries, in lower case, the longest first."""
    longest_first = sorted(words, key=len, reverse=True)
    parts = [rf"\b{re.escape(word)}" if word[0].isascii() else re.escape(word) for word in longest_first]
    ended = [part + r"\b" if part[-1].isascii() and part[-1].isalpha() else part for part in parts]
    return re.compile("|".join(ended))


def token_table(tokenizer: Any) -> pd.DataFrame:
    """Words, their token ids and pieces: spaces decide which token a word is."""
    rows = [(repr(word), ids := _ids(tokenizer, word), [tokenizer.decode([i]) for i in ids]) for word in TABLE]
    return pd.DataFrame(rows, columns=["word", "ids", "pieces"])
