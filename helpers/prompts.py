# SPDX-License-Identifier: MIT
"""Questions, plain and template forms, and combined prompts: the exact texts that a model sees, marks included."""

import itertools
import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from helpers.checks import check_choice, check_count, check_lengths
from helpers.pairs import Member
from helpers.store import ROOT, UserError, sha256

END = "</think>"
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


def load_questions(n: int | None = None, *, path: Path | None = None) -> list[Question]:
    """The questions in a fixed random order, so that the first n are a sample of all. Raises UserError that names file
    and line when a line is not a question."""
    path, questions = path or ROOT / "data" / "prompts.jsonl", {}
    check_count(1 if n is None else n, "questions")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}): restore it with git, or name another file") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found = Question(row["id"], row["category"], row["question"].strip(), tuple(row["answers"]))
            if isinstance(row["answers"], str):
                raise TypeError("answers is no list")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"{path}:{number} is not a question ({type(error).__name__}: {error})"
            raise UserError(f"{said}: one JSON object a line with id, category, question, answers") from error
        if found.id in questions:
            raise UserError(f"{path} has two questions with the id {found.id!r}: rename one")
        questions[found.id] = found
    return sorted(questions.values(), key=lambda question: sha256("order" + question.id))[:n]


def normalise(text: str) -> str:
    """Lower case, letters and digits of any script, single spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def is_right(text: str, answers: tuple[str, ...]) -> bool:
    """Whether an accepted answer stands in the text as whole words, not inside a longer number or compound."""
    said = text.casefold().replace("’", "'")
    before, after = r"(?<![\w-])(?<!\d[.,])", r"(?![\w-])(?![.,]\d)"
    return any(re.search(before + re.escape(answer.casefold()) + after, said) for answer in answers)


def final_answer(completion: str, *, opened: bool) -> str:
    """What a completion offers as its answer: after `</think>`; all of it where no thought was opened or closed."""
    _, mark, after = completion.rpartition(END)
    return after if mark or not opened else ""


def echo_share(text: str, question: str, n: int = 4) -> float:
    """Share of the question's n-word stretches that a text repeats, in [0, 1]."""
    words, said = normalise(question).split(), f" {normalise(text)} "
    stretches = [" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))]
    return sum(f" {stretch} " in said for stretch in stretches) / len(stretches)


def ask(member: Member, questions: list[Question], *, form: Form, suffix: Suffix = "just") -> list[str]:
    """The questions as one model sees them: before "Just give the answer.", nothing, or a polite control sentence."""
    check_choice(suffix, "suffix", SUFFIXES)
    return [member.prompt(f"{question.text} {SUFFIXES[suffix]}".strip(), form) for question in questions]


def combine(member: Member, questions: list[Question], answers: list[str], *, form: Form) -> list[str]:
    """Combined prompts: the question, "Just give the answer.", and a complete answer after it."""
    check_lengths(questions=questions, answers=answers)
    asked, gap = ask(member, questions, form=form), " " if form == "plain" else ""
    return [prompt + gap + answer.strip() for prompt, answer in zip(asked, answers, strict=True)]


def shuffle_words(text: str, seed: int) -> str:
    """The same words in random order, the last one kept in place: the control for reading a prompt's end."""
    *words, last = text.split(" ")
    return " ".join([*random.Random(seed).sample(words, len(words)), last])


def neutral_sentences(n: int | None = None) -> list[str]:
    """Plain statements that ask and answer nothing, each ending in a period. Used in notebooks 02 to 04."""
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
    """Of one question: an answer as a sentence, as a bare word, a wrong one, another question's, and a thought."""

    sentence: str
    word: str
    wrong: str
    other: str
    thought: str


def ending_materials(questions: list[Question], answers: list[str], thoughts: list[str]) -> list[Material]:
    """Materials of each question from one answer (what it says after its own thought, if it says anything then) and
    one thought each; wrong and other answers are the next question's. Used in notebook 07."""
    if len({question.answers[0] for question in questions}) < 2:
        raise UserError(f"{len(questions)} questions with one answer: give at least two with different answers")
    made, said = [], [final_answer(answer, opened=False).strip() or answer.strip() for answer in answers]
    sentences = [text if text.endswith((".", "!", "?")) else f"{text}." for text in said]
    for place, (question, sentence, thought) in enumerate(zip(questions, sentences, thoughts, strict=True)):
        right = question.answers[0]
        following = next(q for q in questions[place + 1 :] + questions[:place] if q.answers[0] != right)
        swap = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in question.answers), re.I)
        wrong, times = swap.subn(lambda _, word=following.answers[0]: word, sentence)
        wrong, other = wrong if times else f"{following.answers[0]}.", sentences[questions.index(following)]
        made.append(Material(sentence, right[:1].upper() + right[1:], wrong, other, thought.strip()))
    return made


# What each part of an ending may be; "none" is no part of the grid, in which an answer always stands
PARTS: dict[str, tuple[bool | str, ...]] = {
    "think": (False, True),
    "thought": ("none", "answer", "real"),
    "close": (False, True),
    "gap": ("", " ", "\n", "\n\n"),
    "answer": ("sentence", "open", "word.", "word", "wrong", "other"),
    "tags": (False, True),
}


@dataclass(frozen=True)
class Ending:
    """What stands after a question, part by part: `<think>`, a thought, `</think>`, a gap, an answer, answer tags."""

    think: bool = False
    thought: str = "none"
    close: bool = False
    gap: str = ""
    answer: str = "sentence"  # or "none"
    tags: bool = False

    def text(self, material: Material, *, mark: str = END) -> str:
        """The ending's text; `mark` stands where `</think>` would (the control puts a nonsense tag there). The new
        line between a real thought and its mark goes with the mark, so that what follows is the same tokens."""
        derived = {"none": "", "open": material.sentence.rstrip(".!?"), "word.": f"{material.word}."}
        answer = (asdict(material) | derived)[self.answer]
        thought = {"none": "", "answer": material.sentence, "real": f"\n{material.thought}"}[self.thought]
        mark = f"\n{mark}" if mark and self.thought == "real" else mark
        said = f"<answer>{answer}</answer>" if self.tags else answer
        return f"{'<think>' * self.think}{thought}{mark * self.close}{self.gap}{said}"


def endings_grid(**fixed: bool | str) -> list[Ending]:
    """Every combination of PARTS but those held `fixed`."""
    choices = itertools.product(*(PARTS | {name: (value,) for name, value in fixed.items()}).values())
    return [Ending(*choice) for choice in choices]


def with_ending(
    member: Member, questions: list[Question], materials: list[Material], ending: Ending, *, form: Form, mark: str = END
) -> list[str]:
    """The questions ("Just give the answer.") with one ending each, as one model sees them; in the plain form a space
    parts a tag or a thought from the question. In the template the distilled model's thought is open already."""
    marked = ending.think or (ending.close and mark) or ending.thought == "answer"
    asked, lead = ask(member, questions, form=form), " " if form == "plain" and marked else ""
    return [prompt + lead + ending.text(one, mark=mark) for prompt, one in zip(asked, materials, strict=True)]
