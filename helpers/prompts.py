# SPDX-License-Identifier: MIT
"""Questions, plain and template forms, and combined prompts.

A prompt is the exact text a model sees, marks included; `Member.encode` adds nothing to it.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from helpers.checks import check_choice, check_count, check_lengths
from helpers.pairs import Member
from helpers.store import ROOT, UserError, sha256

JUST = "Just give the answer."
SUFFIXES = {"just": JUST, "bare": "", "thanks": "Thank you very much."}
Form = Literal["plain", "template"]
Split = Literal["explore", "confirm"]
Suffix = Literal["just", "bare", "thanks"]


@dataclass(frozen=True)
class Question:
    """One simple question with its accepted answers."""

    id: str
    category: str
    text: str
    answers: tuple[str, ...]

    @property
    def split(self) -> Split:
        """Half of the questions choose (`explore`), the other half report (`confirm`), by a fixed hash."""
        return "explore" if int(sha256(self.id)[:8], 16) % 2 == 0 else "confirm"


def load_questions(n: int | None = None, *, split: Split | None = None, path: Path | None = None) -> list[Question]:
    """The questions in a fixed random order, so that the first n are a sample of all.

    Raises UserError that names file and line when a line is not a question.
    """
    path = path or ROOT / "data" / "prompts.jsonl"
    if n is not None:
        check_count(n, "questions")
    if split is not None:
        check_choice(split, "split", get_args(Split))
    try:
        lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path} ({said}): restore it with git, or name another file of questions"
        ) from error
    questions = [_parse(line, path, number) for number, line in lines if line.strip()]
    if not questions:
        raise UserError(f"{path} holds no questions: one JSON object a line with id, category, question, answers")
    counted = Counter(question.id for question in questions)
    if max(counted.values()) > 1:
        raise UserError(f"{path} has two questions with the id {counted.most_common(1)[0][0]!r}: rename one")
    chosen = [question for question in questions if split in (None, question.split)]
    return sorted(chosen, key=lambda question: sha256("order" + question.id))[:n]


def _parse(line: str, path: Path, number: int) -> Question:
    try:
        row = json.loads(line)
        question = Question(row["id"], row["category"], row["question"].strip(), tuple(row["answers"]))
        if isinstance(row["answers"], str) or not all(isinstance(text, str) for text in (question.id, *row["answers"])):
            raise TypeError("id is a text, answers is a list of texts")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}:{number} is not a question ({type(error).__name__}: {error}): "
            "one JSON object a line with id, category, question, answers"
        ) from error
    if not question.text or not question.answers or not all(answer.strip() for answer in question.answers):
        raise UserError(f"{path}:{number} has an empty question or no answers: fill them in")
    return question


def normalise(text: str) -> str:
    """Lower case, letters and digits of any script, single spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def is_right(text: str, answers: tuple[str, ...]) -> bool:
    """Whether an accepted answer stands in the text as whole words, not inside a longer number or compound."""
    said = text.casefold().replace("’", "'")
    before, after = r"(?<![\w-])(?<!\d[.,])", r"(?![\w-])(?![.,]\d)"
    return any(re.search(before + re.escape(answer.casefold()) + after, said) for answer in answers)


def final_answer(completion: str, *, opened: bool) -> str:
    """What a completion offers as its answer: after `</think>` where a thought was opened or closed,
    else all of it. A thought that never closes has none."""
    _, mark, after = completion.rpartition("</think>")
    if mark:
        return after
    return "" if opened else completion


def echo_share(text: str, question: str, n: int = 4) -> float:
    """Share of the question's n-word stretches that a text repeats, in [0, 1]."""
    check_count(n, "words a stretch")
    words, said = normalise(question).split(), f" {normalise(text)} "
    stretches = [" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))]
    return sum(f" {stretch} " in said for stretch in stretches) / len(stretches)


def ask(member: Member, questions: list[Question], *, form: Form, suffix: Suffix = "just") -> list[str]:
    """The prompts that put the questions to one model: followed by "Just give the answer.", by nothing,
    or by a polite sentence of like length (the control)."""
    check_choice(suffix, "suffix", SUFFIXES)
    texts = [f"{question.text} {SUFFIXES[suffix]}".strip() for question in questions]
    return [member.prompt(text, form) for text in texts]


def combine(member: Member, questions: list[Question], answers: list[str], *, form: Form) -> list[str]:
    """Combined prompts: the question, "Just give the answer.", and a complete answer after it."""
    check_lengths(questions=questions, answers=answers)
    gap = " " if form == "plain" else ""
    prompts = ask(member, questions, form=form)
    return [prompt + gap + answer.strip() for prompt, answer in zip(prompts, answers, strict=True)]


def shuffle_words(text: str, seed: int) -> str:
    """The same words in random order, the last one kept in place: the control for reading a prompt's end."""
    *words, last = text.split(" ")
    return " ".join([*random.Random(seed).sample(words, len(words)), last])


def neutral_sentences(n: int | None = None) -> list[str]:
    """Plain statements that ask and answer nothing, each ending in a period. Used in notebooks 02 and 03."""
    if n is not None:
        check_count(n, "sentences")
    lines = (ROOT / "data" / "neutral.txt").read_text(encoding="utf-8-sig").splitlines()
    return [line for line in lines if line.strip()][:n]


# Template of R1-Zero's training (DeepSeek-AI 2025, table 1), with its two tags left open
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <{think}> </{think}> and <{answer}> </{answer}> tags, respectively, i.e., "
    "<{think}> reasoning process here </{think}> <{answer}> answer here </{answer}>. User: {question} Assistant:"
)


@dataclass(frozen=True)
class Material:
    """What the endings of one question are made of: an answer as a sentence with its period, the bare word, a wrong
    answer, another question's answer, and a thought."""

    sentence: str
    word: str
    wrong: str
    other: str
    thought: str


def ending_materials(questions: list[Question], answers: list[str], thoughts: list[str]) -> list[Material]:
    """Materials of each question from one answer (what it says after its own thought, if it says anything then) and
    one thought each; wrong and other answers are the next question's. Used in notebook 07."""
    check_lengths(questions=questions, answers=answers, thoughts=thoughts)
    if len({question.answers[0] for question in questions}) < 2:
        raise UserError(f"{len(questions)} questions with one answer: give at least two with different answers")
    made = []
    for place, (question, answer, thought) in enumerate(zip(questions, answers, thoughts, strict=True)):
        following = next(q for q in questions[place + 1 :] + questions[:place] if q.answers[0] != question.answers[0])
        swap = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in question.answers), re.I)
        sentence, wrong_word = _said(answer), following.answers[0]
        made.append(
            Material(
                sentence=sentence,
                word=question.answers[0][:1].upper() + question.answers[0][1:],
                wrong=swap.sub(lambda _, word=wrong_word: word, sentence)
                if swap.search(sentence)
                else f"{wrong_word}.",
                other=_said(answers[questions.index(following)]),
                thought=thought.strip(),
            )
        )
    return made


def _said(answer: str) -> str:
    """What an answer says, without a thought of its own, ended by a period."""
    text = final_answer(answer, opened=False).strip() or answer.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


@dataclass(frozen=True)
class Ending:
    """What stands after a question, part by part: `<think>`, a thought, `</think>`, a gap, an answer, answer tags."""

    think: bool = False
    thought: Literal["none", "answer", "real"] = "none"
    close: bool = False
    gap: Literal["", " ", "\n", "\n\n"] = ""
    answer: Literal["none", "sentence", "open", "word.", "word", "wrong", "other"] = "sentence"
    tags: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Ending).items():
            if get_origin(hint) is Literal:
                check_choice(getattr(self, name), name, get_args(hint))

    def text(self, material: Material, *, mark: str = "</think>") -> str:
        """The ending's text; `mark` stands where `</think>` would (the control puts a nonsense tag there). The new
        line between a real thought and its mark goes with the mark, so that what follows is the same tokens."""
        answers = {"none": "", "sentence": material.sentence, "open": material.sentence.rstrip(".!?")}
        answers |= {
            "word.": f"{material.word}.",
            "word": material.word,
            "wrong": material.wrong,
            "other": material.other,
        }
        thought = {"none": "", "answer": material.sentence, "real": f"\n{material.thought}"}[self.thought]
        mark = f"\n{mark}" if mark and self.thought == "real" else mark
        said = answers[self.answer]
        said = f"<answer>{said}</answer>" if self.tags else said
        return f"{'<think>' * self.think}{thought}{mark * self.close}{self.gap}{said}"


def endings_grid(**fixed: object) -> list[Ending]:
    """Every combination of the parts but those held `fixed`; an answer always stands."""
    parts = {
        "think": (False, True),
        "thought": ("none", "answer", "real"),
        "close": (False, True),
        "gap": ("", " ", "\n", "\n\n"),
        "answer": ("sentence", "open", "word.", "word", "wrong", "other"),
        "tags": (False, True),
    }
    parts |= {name: (value,) for name, value in fixed.items()}
    return [Ending(**dict(zip(parts, choice, strict=True))) for choice in itertools.product(*parts.values())]


def end(
    member: Member,
    questions: list[Question],
    materials: list[Material],
    ending: Ending,
    *,
    form: Form,
    mark: str = "</think>",
) -> list[str]:
    """The questions ("Just give the answer.") with one ending each, as one model sees them; in the plain form a space
    parts a tag or a thought from the question. In the template the distilled model's thought is open already."""
    check_lengths(questions=questions, materials=materials)
    marked = ending.think or (ending.close and mark) or ending.thought == "answer"
    lead = " " if form == "plain" and marked else ""
    prompts = ask(member, questions, form=form)
    return [prompt + lead + ending.text(m, mark=mark) for prompt, m in zip(prompts, materials, strict=True)]
