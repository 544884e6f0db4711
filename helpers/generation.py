# SPDX-License-Identifier: MIT
"""Batched generation: greedy or seeded sampling, finished rows dropped, results kept on disk."""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache
from tqdm.auto import tqdm
from transformers import BatchEncoding, DynamicCache, LogitsProcessor, LogitsProcessorList

from helpers.checks import check_count, check_finite, check_lengths, guarded
from helpers.fast import can_decode, decode, roomy_cache
from helpers.pairs import Member, Pair
from helpers.prompts import (
    Form,
    Question,
    Split,
    Suffix,
    ask,
    combine,
    final_answer,
    is_right,
    load_questions,
)
from helpers.store import (
    ROOT,
    UserError,
    data_dir,
    drifted,
    locked,
    read_json,
    reusable,
    sampled,
    say,
    sha256,
    sidecar_path,
    write_records,
    write_sidecar,
)

LIMIT = "limit"
# Tokens between two looks for finished rows where `generate` decodes, and prompts at once: on a GPU a step costs little
# more for hundreds of rows than for one.
CHUNK, BATCH = {"cpu": 16, "cuda": 64}, {"cpu": 128, "cuda": 512}
MEMORY = r"out of memory|can't allocate memory"  # how torch says it, on a GPU and on a CPU
SHORTLIST = 512  # tokens ranked before a full sort is tried
OnBatch = Callable[[list[int]], None]
T = TypeVar("T")
FORMAT = 1  # raise it when stored completions of older code must not be reused


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt. `tokens` and `text` leave the stop token out; `change` names the
    intervention where each row has its own."""

    prompt: str
    text: str
    length: int
    stop: str
    first_word: str
    repetition: float
    tokens: list[int]
    change: str = ""


class SeededChoice(LogitsProcessor):
    """Leave one token a row: a draw from the top-p nucleus at a temperature, by inverse CDF of a number that depends
    on (seed, key, step) alone, so that sampling does not depend on how prompts are batched.

    Only the likeliest SHORTLIST tokens are ranked where they hold the nucleus of every row: a full sort of a large
    vocabulary takes as long as a small model's step.
    """

    def __init__(self, seed: int, keys: list[str], step: int, temperature: float = 1.0, top_p: float = 1.0) -> None:
        self.keys = [f"{seed}\0{key}" for key in keys]
        self.step, self.temperature, self.top_p = step, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        draws = [int(sha256(f"{key}\0{self.step}")[:13], 16) / 16**13 for key in self.keys]
        self.step += 1
        shares, n_vocab = (scores.float() / self.temperature).softmax(-1), scores.shape[-1]
        for n in (min(SHORTLIST, n_vocab), n_vocab):
            ranked, order = shares.topk(n)
            cumulative = ranked.cumsum(-1)
            if n == n_vocab or (cumulative[:, -1] >= self.top_p).all():
                break
        nucleus = ranked * (cumulative - ranked < self.top_p)  # the likeliest token is always in
        cumulative = nucleus.cumsum(-1)
        target = torch.tensor(draws, device=scores.device, dtype=cumulative.dtype)[:, None] * cumulative[:, -1:]
        place = torch.searchsorted(cumulative, target, right=True)
        place = place.clamp(max=(nucleus > 0).sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, order.gather(-1, place), 0.0)


@dataclass(frozen=True)
class Change:
    """An intervention for stored generations: an edited nnsight model, logits processors, and a description that
    names every choice in it, so that stored results of another change are not taken for this one's.

    Where each prompt has an intervention or a sample of its own, `names` tells them apart (and seeds differ), and
    `on_batch` is told, before every pass over a batch and every stretch of decoding, which prompts are its rows.
    """

    description: str = ""
    lm: Any = None
    processors: tuple[LogitsProcessor, ...] = ()
    names: tuple[str, ...] = ()
    on_batch: OnBatch | None = None


def repetition(tokens: list[int], n: int = 4) -> float:
    """Share of n-grams that stood before in the same completion, in [0, 1]."""
    check_count(n, "tokens a stretch")
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def first_word(text: str) -> str:
    """First word of a completion, think tags and punctuation aside."""
    found = re.search(r"\w[\w'’-]*", re.sub(r"</?think>", " ", text))
    return found.group() if found else ""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: greedy at temperature 0, else seeded sampling from the top-p nucleus."""

    max_new_tokens: int = 400
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.max_new_tokens, "new tokens")
        check_finite(self.temperature, "temperature")
        if not (self.temperature == 0 or self.temperature >= 1e-3) or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature {self.temperature} and top_p {self.top_p}: use 0 or at least 0.001, and above 0 up to 1"
            )

    def choice(self, keys: list[str], step: int) -> list[LogitsProcessor]:
        """Processors that make greedy decoding draw the sample of these prompts (or prompts and names) from this step
        on."""
        if self.temperature == 0:
            return []
        return [SeededChoice(self.seed, keys, step, float(self.temperature), self.top_p)]


def complete(
    member: Member,
    prompts: list[str],
    *,
    batch_size: int | None = None,
    lm: Any = None,
    processors: tuple[LogitsProcessor, ...] = (),
    on_batch: OnBatch | None = None,
    **decoding: Any,
) -> list[Completion]:
    """Complete every prompt; `decoding` are the fields of `Decoding`. `lm` is an edited nnsight model,
    `processors` change the logits of every step; `on_batch` is told which prompts are still going. Raises
    UserError for a prompt that does not fit. Used in notebooks 05 and 07."""
    change = Change("", lm, processors, (), on_batch)
    size = BATCH.get(member.device.type, 512) if batch_size is None else batch_size
    done = dict(_complete_each(member, prompts, size, Decoding(**decoding), change))
    return [done[index] for index in range(len(prompts))]


def in_memory(waiting: list[int], batch_size: int, run: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Batches of what is waiting, in its order, and what `run` makes of each. A batch that does not fit in memory is
    halved, which is said; what is finished stays. Raises UserError when not even one fits."""
    while waiting:
        some, found = waiting[:batch_size], None
        try:
            found = run(some)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not re.search(MEMORY, str(error)):
                raise
            if len(some) == 1:
                raise UserError(
                    "out of memory with a single prompt: shorten it, allow fewer new tokens, close what else uses the "
                    "device, or take a smaller pair"
                ) from error
        if found is None:  # outside the except block, whose traceback holds the batch's tensors
            batch_size = len(some) // 2
            clear_device_cache(garbage_collection=True)
            say(f"out of memory: going on with {batch_size} prompts at a time")
            continue
        waiting = waiting[len(some) :]
        gc.collect(1)  # a trace that was stopped holds its tensors in a ring of frames, 0.2 MB a prompt of smol
        yield some, found


def _complete_each(
    member: Member,
    prompts: list[str],
    batch_size: int,
    how: Decoding,
    change: Change,
) -> Iterator[tuple[int, Completion]]:
    """Yield (index, completion), longest prompts first; a batch that does not fit in memory is halved."""
    check_count(batch_size, "prompts a batch")
    member.encode(prompts, room=how.max_new_tokens)
    waiting = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))

    def run(some: list[int]) -> list[Completion]:
        return _complete_batch(member, {index: prompts[index] for index in some}, how, change)

    for some, finished in in_memory(waiting, batch_size, run):
        yield from zip(some, finished, strict=True)


def _complete_batch(member: Member, batch: dict[int, str], how: Decoding, change: Change) -> list[Completion]:
    """Decode one batch, prompts by their places, in chunks; after each, rows that have stopped leave the batch and
    its cache."""
    indices, prompts = list(batch), list(batch.values())
    keys = [f"{prompt}\0{change.names[index]}" if change.names else prompt for index, prompt in batch.items()]
    encoded = member.encode(prompts, room=how.max_new_tokens)
    ids, mask, start = encoded["input_ids"], encoded["attention_mask"], encoded["input_ids"].shape[1]
    cache = None if member.remote else roomy_cache(member.config)
    rows, written = list(range(len(prompts))), [[] for _ in prompts]
    stops = set(member.groups.stop)
    while rows:
        step = ids.shape[1] - start
        chain = LogitsProcessorList([*change.processors, *how.choice([keys[row] for row in rows], step)])
        with member.lock, torch.no_grad():
            if change.on_batch:
                change.on_batch([indices[row] for row in rows])
            sequences = _generate(member, change.lm, ids, mask, cache, chain, how.max_new_tokens - step)
        grown = sequences[:, start:].tolist()
        for row, tokens in zip(rows, grown, strict=True):
            written[row] = tokens
        full = sequences.shape[1] - start >= how.max_new_tokens
        going = [k for k, tokens in enumerate(grown) if not full and stops.isdisjoint(tokens)]
        rows = [rows[k] for k in going]
        if rows:
            keep = torch.tensor(going, device=ids.device)
            added = sequences.shape[1] - ids.shape[1]
            ids = sequences[keep]
            mask = torch.cat([mask[keep], mask.new_ones(len(going), added)], dim=1)
            if len(going) < len(grown):
                cache.batch_select_indices(keep)
    return [_finish(member, prompt, tokens) for prompt, tokens in zip(prompts, written, strict=True)]


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """What a forward pass or `generate` takes to read and fill a cache, whose name transformers 5.24 changed."""
    known = inspect.signature(type(model).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": cache is not None}


def _generate(
    member: Member,
    edited: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: DynamicCache | None,
    processors: LogitsProcessorList,
    room: int,
) -> torch.Tensor:
    """Prompts and greedy tokens behind them, a chunk of at most `room`: through `decode` where it can, else `generate`
    of an edited nnsight model, or, where there is none, of the transformers model itself; of a remote one in a trace,
    from which only the tokens come back."""
    stops, pad = list(member.groups.stop), member.tokenizer.pad_token_id
    if cache is not None and edited is None and can_decode(member.model, cache):
        how = {"max_new_tokens": room, "stops": stops, "pad": pad, "processors": processors}
        return decode(member.model, ids, mask, cache, cached=with_cache(member.model, cache), **how)
    options = {
        **({} if cache is None else with_cache(member.model, cache)),
        "max_new_tokens": room if member.remote else min(room, CHUNK.get(member.device.type, 64)),
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": 1.0,
        "eos_token_id": stops,
        "pad_token_id": pad,
        "logits_processor": processors,
        "return_dict_in_generate": True,
    }
    batch = BatchEncoding({"input_ids": ids, "attention_mask": mask})
    if not member.remote:
        out = member.model.generate(**batch, **options) if edited is None else edited.generate(batch, **options)
        return out.sequences
    lm = edited or member.lm
    with lm.generate(batch, **options, remote=member.remote) as tracer:
        sequences = tracer.result.sequences.save()
    return sequences


def _finish(member: Member, prompt: str, tokens: list[int]) -> Completion:
    end = next((place for place, token in enumerate(tokens) if token in member.groups.stop), None)
    kept = tokens[:end]
    text = member.tokenizer.decode(kept)
    return Completion(
        prompt=prompt,
        text=text,
        length=len(kept),
        stop=LIMIT if end is None else member.tokenizer.decode([tokens[end]]),
        first_word=first_word(text),
        repetition=round(repetition(kept), 4),
        tokens=kept,
    )


def stored_completions(
    pair: Pair,
    member: Member,
    prompts: list[str],
    *,
    name: str,
    fresh: bool = False,
    batch_size: int | None = None,
    change: Change | None = None,
    **decoding: Any,
) -> list[Completion]:
    """`complete`, kept in `data/<pair>/<name>.json` row by row and saved after every batch; 16-bit runs in a file of
    their own, since a later notebook may ask the same models in float32.

    Rows are reused when model, dtype, settings and change match; says how many were. Where package versions differ, a
    few are written again, and all of them if one comes out otherwise. A change with `names` has one a prompt, and the
    same prompt may stand under several.
    """
    suffix = "" if member.dtype == torch.float32 else f"_{str(member.dtype).removeprefix('torch.')}"
    path = data_dir(pair.name) / f"{name}{suffix}.json"
    how = Decoding(**decoding)
    change = change or Change()
    provenance = {
        "model": member.identity,
        "dtype": str(member.dtype),
        "settings": asdict(how),
        "format": FORMAT,
    } | ({"change": change.description} if change.description else {})
    check_lengths(prompts=prompts, changes=change.names or prompts)
    jobs = list(zip(prompts, change.names or [""] * len(prompts), strict=True))
    known = _read_known(path) if not fresh and reusable(path, provenance) else {}
    first = {job: index for index, job in reversed(list(enumerate(jobs)))}
    size = BATCH.get(member.device.type, 512) if batch_size is None else batch_size
    check_count(size, "prompts a batch")
    drift = drifted(path) if known else ""
    if drift:
        stored = sorted(first[job] for job in known.keys() & first.keys())
        again = [stored[row] for row in sampled(len(stored), name)]
        told = dict(_work(member, jobs, again, size, how, change))
        same = all(known[jobs[index]] == told[index] for index in again)
        drift = f", {drift}: {len(again)} written again, " + ("the same" if same else "NOT the same, so all are")
        known = known if same else {}
    missing = sorted(index for job, index in first.items() if job not in known)
    say(f"{_short(path)}: {len(set(jobs)) - len(missing)} completions reused, {len(missing)} to compute{drift}")
    if missing:
        _fill(member, jobs, missing, path, provenance, known, size, how, change)
    return [known[job] for job in jobs]


def _read_known(path: Path) -> dict[tuple[str, str], Completion]:
    """Stored completions by prompt and change. Raises UserError for a file that holds something else."""
    try:
        return {(row["prompt"], row.get("change", "")): Completion(**row) for row in read_json(path)}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} holds no completions ({error}): delete it or restore it with git") from error


def _fill(
    member: Member,
    jobs: list[tuple[str, str]],
    missing: list[int],
    path: Path,
    provenance: dict[str, Any],
    known: dict[tuple[str, str], Completion],
    batch_size: int,
    how: Decoding,
    change: Change,
) -> None:
    if not known:
        sidecar_path(path).unlink(missing_ok=True)  # what is there is of another provenance, or to be made afresh
    with tqdm(total=len(missing), desc=path.stem, leave=False, smoothing=0) as bar:
        for place in range(0, len(missing), batch_size):
            found = dict(_work(member, jobs, missing[place : place + batch_size], batch_size, how, change))
            known |= {jobs[index]: found[index] for index in sorted(found)}
            with locked(path):
                _write(path, provenance, known, str(member.device))
            bar.update(len(found))


def _work(
    member: Member, jobs: list[tuple[str, str]], some: list[int], batch_size: int, how: Decoding, change: Change
) -> Iterator[tuple[int, Completion]]:
    """Complete some of the jobs (prompt and name of its change), by their places."""
    names = tuple(jobs[job][1] for job in some) if change.names else ()
    local = replace(change, names=names, on_batch=_within(some, change.on_batch))
    for index, done in _complete_each(member, [jobs[job][0] for job in some], batch_size, how, local):
        yield some[index], replace(done, change=jobs[some[index]][1])


def _write(path: Path, provenance: dict[str, Any], known: dict[tuple[str, str], Completion], device: str) -> None:
    """Rows and what they were made from, with those that another process wrote meanwhile from the same."""
    if same := reusable(path, provenance):
        known = _read_known(path) | known
    else:
        sidecar_path(path).unlink(missing_ok=True)  # else a crash could leave new rows under an old provenance
    write_records(path, [_record(completion) for completion in known.values()])
    if not same:
        write_sidecar(path, provenance, device)


def _within(block: list[int], on_batch: OnBatch | None) -> OnBatch | None:
    """Tell `on_batch` about places in all prompts where the batch knows places in a block of them."""
    return on_batch and (lambda rows: on_batch([block[row] for row in rows]))


def _record(completion: Completion) -> dict[str, Any]:
    """A completion as it is stored: without the name of a change where there is none."""
    return {key: value for key, value in asdict(completion).items() if key != "change" or value}


def answers(
    pair: Pair,
    member: Member,
    questions: list[Question],
    *,
    form: Form,
    suffix: Suffix = "just",
    fresh: bool = False,
    max_new_tokens: int = 400,
    change: Change | None = None,
    label: str = "",
) -> pd.DataFrame:
    """One row a question: what one model answers, and whether it stopped, closed its thought and was right.

    Index: question id. Stored; see `stored_completions`. `label` names the file of an intervention. In every notebook.
    """
    prompts = ask(member, questions, form=form, suffix=suffix)
    name = label or f"answers_{member.role}_{form}_{suffix}"
    how = {"max_new_tokens": max_new_tokens, "fresh": fresh, "change": change}
    done = stored_completions(pair, member, prompts, name=name, **how)
    return judged(done, questions, opened=member.thinks and form == "template")


def judged(done: list[Completion], questions: list[Question], *, opened: bool) -> pd.DataFrame:
    """Completions beside their questions: stopped, closed, answer, right; `opened`: the prompt opens a thought."""
    check_lengths(completions=done, questions=questions)
    frame = pd.DataFrame([asdict(completion) for completion in done])
    frame.insert(0, "id", [question.id for question in questions])
    frame["split"] = [question.split for question in questions]
    frame["category"] = [question.category for question in questions]
    frame["question"] = [question.text for question in questions]
    frame["stopped"] = frame["stop"] != LIMIT
    frame["closed"] = frame["text"].str.contains("</think>", regex=False)
    frame["waits"] = frame["text"].str.contains(r"\bwait\b", case=False)
    frame["answer"] = [final_answer(text, opened=opened).strip() for text in frame["text"]]
    frame["right"] = [is_right(said, q.answers) for said, q in zip(frame["answer"], questions, strict=True)]
    return frame.set_index("id")


def cut_short(
    member: Member, done: pd.DataFrame, questions: list[Question], limit: int, *, opened: bool
) -> pd.DataFrame:
    """The same greedy answers as if at most `limit` new tokens had been allowed. Used in notebooks 04, 06 and 07."""
    check_count(limit, "tokens")
    check_lengths(completions=done, questions=questions)
    end = {member.tokenizer.decode([token]): [token] for token in member.groups.stop}
    written = [tokens + end.get(stop, []) for tokens, stop in zip(done["tokens"], done["stop"], strict=True)]
    cut = [_finish(member, prompt, tokens[:limit]) for prompt, tokens in zip(done["prompt"], written, strict=True)]
    return judged(cut, questions, opened=opened)


def select_combined(base: pd.DataFrame, distilled: pd.DataFrame, *, max_answer: int = 30) -> pd.DataFrame:
    """Questions that the base finishes within `max_answer` tokens and the distilled does not, with the base's
    answer as `base_answer`. Where no two of either split do, all questions are kept, and it says so.
    Used in notebook 01."""
    check_count(max_answer, "tokens")
    soon = {"base": base["length"].between(1, max_answer), "distilled": distilled["length"] <= max_answer}
    kept = base["stopped"] & soon["base"] & ~(distilled["stopped"] & soon["distilled"])
    if kept.groupby(base["split"]).sum().min() < 2:
        print(f"no questions separate this pair at {max_answer} tokens: all {len(base)} are used as combined prompts")
        kept[:] = True
    chosen = base.loc[kept, ["split", "category", "question", "text", "right"]]
    return chosen.rename(columns={"text": "base_answer", "right": "base_right"})


@dataclass(frozen=True)
class Combined:
    """Combined prompts of one split: questions, the base's own complete answers, and whether those are right."""

    questions: list[Question]
    answers: list[str]
    right: list[bool]

    def prompts(self, member: Member, form: Form) -> list[str]:
        """The texts that one model sees."""
        return combine(member, self.questions, self.answers, form=form)


def load_combined(
    pair: Pair,
    *,
    n_prompts: int | None,
    n_combined: int | None = None,
    max_answer: int = 30,
    max_new_tokens: int = 400,
    fresh: bool = False,
) -> dict[Split, Combined]:
    """Both splits of combined prompts, at most `n_combined` of each, from stored answers where they match.

    Used in notebooks 02 to 07.
    """
    if n_combined is not None:
        check_count(n_combined, "combined prompts")
    questions = {question.id: question for question in load_questions(n_prompts)}
    how = {"form": "template", "fresh": fresh, "max_new_tokens": max_new_tokens}
    both = [answers(pair, member, list(questions.values()), **how) for member in pair.members]
    chosen = select_combined(*both, max_answer=max_answer)
    splits = {split: chosen[chosen["split"] == split].head(n_combined) for split in ("explore", "confirm")}
    return {
        split: Combined([questions[name] for name in rows.index], list(rows["base_answer"]), list(rows["base_right"]))
        for split, rows in splits.items()
    }


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


guarded(globals())
