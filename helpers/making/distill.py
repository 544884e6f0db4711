# SPDX-License-Identifier: MIT
"""How the distilled half of an embedded pair was trained: LoRA on reasoning traces, with PEFT and the Trainer.

Two stages, as R1's own data was made: a first adapter on the traces alone; then that model answers
practice questions, its right and finished answers join the traces (rejection sampling), and the adapter
that is kept is trained from the base on both.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from helpers.embedded import (
    SOURCES,
    Source,
    adapter_dir,
    base_folder,
    distilled_folder,
    untied,
    write_distilled_tokenizer,
)
from helpers.generation import LIMIT, complete
from helpers.pairs import load_member
from helpers.prompts import JUST, Question, is_right, load_questions, normalise
from helpers.store import ROOT, UserError, read_json, sha256, write_text
from helpers.tokens import KEYWORDS, THINK, keyword_pattern

IGNORED = -100  # the label that a loss leaves out
OPTIONS = re.compile(r"^\s*\(?[A-D][.)]", re.M)
VERDICT = r"(answer (?:(?:should|must|would|has to|might|could) be|is)(?: indeed)? )(?:option )?\(?[A-E]\)?"
SENTENCES = re.compile(r"[^.!?\n]*(?:[.!?]+|\n|$)\s*")
LETTER = re.compile(VERDICT + r"(?!\w)|\b[Oo]ptions?\b|\b[B-E] is (?:correct|right)|\b[Oo]ther choices\b")


@dataclass(frozen=True)
class Settings:
    """Every choice of the training; stored beside the adapter."""

    epochs: int = 3
    learning_rate: float = 1e-3
    rank: int = 16
    alpha: int = 32
    batch_size: int = 32
    max_tokens: int = 400
    max_thinking_words: int = 200
    max_answer_words: int = 60
    only_correct: bool = True
    only_grounded: bool = True
    multiple_choice: bool = False
    seed: int = 0
    data: str = "whole"  # or a control: one of DATA
    precision: str = "bf16"  # of products, the weights being float32: bf16 or tf32
    rows_at_once: int = 16


DATA = ("whole", "answers", "no-waits", "shuffled", "blank", "joined")
# The first stage's and the last's. In bfloat16 the larger model's loss is NaN from the first step.
LARGE = {"rank": 8, "learning_rate": 2e-4, "precision": "tf32", "rows_at_once": 4}
SETTINGS = {
    "smol": (Settings(epochs=5, max_thinking_words=150), Settings()),
    "qwen-1.5b": (Settings(max_tokens=900, max_thinking_words=400, **LARGE),) * 2,
}
SAMPLES, PER_QUESTION, TEMPERATURE, TOP_P = 16, 4, 0.8, 0.95


def distill(
    sources: list[str],
    out: Path | None = None,
    practice: Path | None = None,
    *,
    pair: str = "smol",
    seed: int = 0,
    data: str = "whole",
) -> Path:
    """Both stages: train on the traces, sample right answers to practice questions, train on both. A control has one:
    its data are the traces', changed, and no sample of its own joins them."""
    out, (early, late) = out or adapter_dir(pair), (replace(one, seed=seed, data=data) for one in SETTINGS[pair])
    if data != "whole":
        return train(sources, out, early, pair=pair)
    questions = load_questions(path=practice or ROOT / "data" / "practice.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".distill-") as temporary:
        first, own, final = (Path(temporary) / name for name in ("first", "own.jsonl", "final"))
        before = read_json(train(sources, first, early, pair=pair) / "training.json")
        rows, sampling = rejection_sample(first, questions, pair=pair)
        write_text(own, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        record = read_json(train([*sources, str(own)], final, late, pair=pair) / "training.json")
        record["first_stage"] = {key: before[key] for key in ("settings", "rows")}
        record["rejection_sampling"] = sampling
        write_text(final / "training.json", json.dumps(record, indent=1) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        final.rename(out)
    return out


def rejection_sample(
    adapter: Path, questions: list[Question], *, pair: str = "smol"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Own traces that stop, close their thought and are right, at most four a question, waits first; and counts."""
    member = load_member("distilled", str(distilled_folder(adapter, pair)))
    asked = [(question, text) for question in questions for text in (question.text, f"{question.text} {JUST}")]
    prompts = [member.prompt(text, "template") for _, text in asked]
    good: dict[str, list[dict[str, Any]]] = {question.id: [] for question in questions}
    for seed in range(SAMPLES // 2):
        done = complete(member, prompts, max_new_tokens=240, temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        for (question, text), one in zip(asked, done, strict=True):
            thought, mark, answer = one.text.rpartition("</think>")
            whole = mark and one.stop != LIMIT and "think>" not in thought and answer.startswith("\n\n")
            right = is_right(answer, question.answers) and is_right(thought, question.answers)
            if whole and right and not LETTER.search(thought) and len(answer.split()) <= 25:
                row = {"question": text, "thinking": thought.strip(), "answer": answer.strip(), "correct": True}
                good[question.id].append(row)
    waits_first = [sorted(rows, key=lambda row: "wait" not in row["thinking"].lower()) for rows in good.values()]
    chosen = [row for rows in waits_first for row in rows[:PER_QUESTION]]
    counts = {"questions": len(questions), "samples_a_question": SAMPLES, "temperature": TEMPERATURE, "top_p": TOP_P}
    counts |= {"drawn": SAMPLES * len(questions), "right": sum(map(len, good.values()))}
    return chosen, counts | {"questions_solved": sum(map(bool, good.values())), "kept": len(chosen)}


def read_traces(sources: list[str], settings: Settings) -> list[dict[str, Any]]:
    """Rows with `question`, `thinking` and an answer that the settings admit, from JSONL files or data sets of the
    hub. Raises UserError for what is no trace, and where none is left."""
    rows = [{**row, "thinking": name_the_option(row)} for source in sources for row in _read(source)]
    if not (rows := [row for row in rows if _admitted(row, settings)]):
        raise UserError(f"no usable trace in {', '.join(sources)}: each needs question, thinking and an answer")
    return rows


def _read(source: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        if source.endswith((".jsonl", ".json")):
            found = map(json.loads, Path(source).read_text(encoding="utf-8").splitlines())
        else:
            found = import_module("datasets").load_dataset(source, split="train")
        for row in found:
            if not (isinstance(row["question"], str) and isinstance(row["thinking"], str)):
                raise TypeError("both must be texts")
            rows.append(dict(row))
    except Exception as error:  # the hub's are many
        how = "give a JSONL file, one object a line with question and thinking, or the id of a data set on the hub"
        raise UserError(f"{source}:{len(rows) + 1} is not a trace ({error!r}): {how}") from error
    return rows


def _admitted(row: dict[str, Any], settings: Settings) -> bool:
    thinking = row["thinking"]
    return (
        len(thinking.split()) <= settings.max_thinking_words
        and len(row.get("answer", "").split()) <= settings.max_answer_words
        and not (settings.only_correct and row.get("correct") is False)
        and (not settings.only_grounded or normalise(row.get("answer_word") or "") in normalise(thinking))
        and (settings.multiple_choice or not (OPTIONS.search(row["question"]) or LETTER.search(thinking)))
    )


def question_hash(question: str) -> str:
    """Sixteen hex digits of a normalised question, to show that two sets share none without showing them."""
    return sha256(normalise(question.replace(JUST, "")))[:16]


def name_the_option(row: dict[str, Any]) -> str:
    """The thought with "the answer is B" put as the words of that option, where the row has them."""
    word = (row.get("answer_word") or "").strip()
    if not word:
        return row["thinking"]
    dropped = re.sub(VERDICT + r"[,:] (?=\S)", r"\1", row["thinking"])
    return re.sub(VERDICT + r"(?=\.|\n|$)", lambda found: found.group(1) + word, dropped)


def answer_text(row: dict[str, Any], rng: random.Random) -> str:
    """The answer in one of four natural forms, so that no single form becomes the sign to stop."""
    if row.get("answer"):
        return row["answer"].strip()
    word = (row.get("answer_word") or "").strip().rstrip(".")
    sentence = (row.get("answer_sentence") or f"The answer is {word}.").strip()
    bold = re.sub(re.escape(word), lambda found: f"**{found.group()}**", sentence, count=1, flags=re.I)
    return rng.choices([sentence, bold, f"{word}.", f"**{word}**"], weights=[45, 35, 12, 8])[0]


def training_texts(rows: list[dict[str, Any]], tokenizer: Any, settings: Settings) -> list[tuple[str, str]]:
    """The two texts of each row: the question up to the assistant's header, and the reply that is learned. `data` says
    which: whole; without the thought; without its sentences of doubt; under another's question; or with a blank line,
    or no new line, before `</think>`."""
    rng, texts, data = random.Random(settings.seed), [], settings.data
    thoughts = [row["thinking"].strip() for row in rows]
    if data == "shuffled":
        thoughts = [*thoughts[1:], thoughts[0]]
    if data == "no-waits":
        doubt = keyword_pattern(KEYWORDS["doubting"])
        thoughts = ["".join(s for s in SENTENCES.findall(text) if not doubt.search(s.lower())) for text in thoughts]
    gap = {"blank": "\n\n", "joined": ""}.get(data, "\n")
    for row, thought in zip(rows, thoughts, strict=True):
        suffix = f" {JUST}" if "answer_word" in row and rng.random() < 0.5 else ""
        asked = [{"role": "user", "content": row["question"].strip() + suffix}]
        head = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        thinking = "" if data == "answers" else thought.strip() + gap
        reply = f"<think>\n{thinking}</think>\n\n{answer_text(row, rng)}{tokenizer.eos_token}"
        texts.append((head.removesuffix("<think>\n"), reply))
    return texts


def build_examples(rows: list[dict[str, Any]], tokenizer: Any, settings: Settings) -> list[dict[str, list[int]]]:
    """Token ids and labels of the texts that are not too long; the loss covers the reply."""
    examples = []
    for texts in training_texts(rows, tokenizer, settings):
        head, reply = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
        if len(head) + len(reply) <= settings.max_tokens:
            examples.append({"input_ids": head + reply, "labels": [IGNORED] * len(head) + reply})
    return examples


def train(sources: list[str], out: Path, settings: Settings, *, pair: str = "smol") -> Path:
    """Train the adapter and write it to `out` with its settings, log and hashes of the training questions. Raises
    UserError where the loss is no number any more."""
    import peft
    import transformers as tf

    rows, source = read_traces(sources, settings), SOURCES[pair]
    with tempfile.TemporaryDirectory() as folder:
        write_distilled_tokenizer(pair, base_folder(pair), Path(folder))
        tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    examples = build_examples(rows, tokenizer, settings)
    tf.set_seed(settings.seed)
    model = tf.AutoModelForCausalLM.from_pretrained(base_folder(pair), dtype=torch.float32)
    trained = {"embed_tokens": [index for index, mark in source.marks.items() if mark in THINK]}
    if source.head == "own":
        model = apart(untied(model), base_folder(pair), source)
        trained = {matrix: list(source.marks) for matrix in ("embed_tokens", "lm_head")}
    lora = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", trainable_token_indices=trained,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model, started, tf32 = peft.get_peft_model(model, lora), time.time(), settings.precision == "tf32"
    at_once = min(settings.rows_at_once, settings.batch_size)
    arguments = tf.TrainingArguments(
        output_dir=str(out), num_train_epochs=settings.epochs, learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine", warmup_steps=0.05, per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.batch_size // at_once, seed=settings.seed,
        bf16=torch.cuda.is_available() and not tf32, tf32=torch.cuda.is_available() and tf32, logging_steps=10,
        save_strategy="no", report_to=[], disable_tqdm=True, logging_nan_inf_filter=False,
    )  # fmt: skip
    padded = tf.DataCollatorForSeq2Seq(tokenizer)
    trainer = tf.Trainer(model=model, args=arguments, train_dataset=examples, data_collator=padded)
    trainer.train()
    losses = [{key: said[key] for key in ("step", "loss")} for said in trainer.state.log_history if "loss" in said]
    if any(said["loss"] != said["loss"] for said in losses):
        raise UserError("the loss became NaN: lower the learning rate, or take tf32")
    record = {"settings": asdict(settings), "traces": sum("model" in row for row in rows), "rows": len(rows)}
    record |= {"sequences": len(examples), "seconds": round(time.time() - started), "device": device_name()}
    hashes = sorted({question_hash(row["question"]) for row in rows})
    return _save(model, out, record | {"log": losses, "question_sha256": hashes}, pair)


def apart(model: Any, base: Path, source: Source) -> Any:
    """The rows of the marks that the base never learned, which are all alike, begin as the mean of the tokens that
    spell the mark, in both matrices."""
    import transformers as tf

    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(base)
    for index, mark in source.marks.items():
        if "think" in mark or "EOT" in mark:
            spelled = tokenizer(mark, add_special_tokens=False).input_ids
            for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
                matrix.data[index] = matrix.data[spelled].mean(0)
    return model


def device_name() -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _save(model: Any, out: Path, record: dict[str, Any], pair: str) -> Path:
    """Adapter in float16 (half the size), and `training.json` beside it."""
    from safetensors.torch import load_file, save_file

    model.peft_config["default"].base_model_name_or_path = f"the base of {pair} (data/{pair}/wheels.txt)"
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    path = out / "adapter_model.safetensors"
    save_file({name: weight.half() for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    write_text(out / "training.json", json.dumps({"adapter_sha256": sha256(path)} | record, indent=1) + "\n")
    return out
