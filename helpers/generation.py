# SPDX-License-Identifier: MIT
"""Batched generation: greedy or seeded sampling, finished rows dropped, results kept on disk."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BatchEncoding, DynamicCache, LogitsProcessor, LogitsProcessorList

from helpers import store
from helpers.checks import check_count, check_finite, check_lengths, guarded
from helpers.fast import can_decode, decode, roomy_cache, with_cache
from helpers.pairs import Member, Pair
from helpers.prompts import Form, Question, Split, Suffix, ask, combine, final_answer, is_right, load_questions
from helpers.store import UserError, sha256  # by name: a remote trace takes functions along, not modules

LIMIT = "limit"
CHUNK = {"cpu": 16, "cuda": 64}  # tokens between two looks for finished rows where `generate` decodes
BATCH = {"cpu": 128, "cuda": 512}  # prompts: on a GPU a step costs little more for hundreds of rows than for one
SHORTLIST = 512  # tokens ranked before a full sort is tried
FORMAT = 1  # raise it when stored completions of older code must not be reused
Job = tuple[str, str]  # a prompt, and the name of its change
Done = dict[int, "Completion"]  # by place
T = TypeVar("T")


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt, the stop token aside; `change` names an intervention of the row's own."""

    prompt: str
    text: str
    length: int
    stop: str
    first_word: str
    repetition: float
    tokens: list[int]
    change: str = ""


@dataclass(frozen=True)
class Change:
    """An intervention: an edited nnsight model, logits processors, and, for stored completions, a description that
    names every choice in it, and `names` that tell prompts apart where each has one or a sample of its own."""

    description: str = ""
    lm: Any = None
    processors: tuple[LogitsProcessor, ...] = ()
    names: tuple[str, ...] = ()

    def at(self, prompts: list[int]) -> Change:
        """The intervention on some of the prompts, which are the rows of a batch: here the same for all."""
        return self


NONE = Change()  # no intervention


def repetition(tokens: list[int], n: int = 4) -> float:
    """Share of n-grams that stood before in the same completion, in [0, 1]."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def first_word(text: str) -> str:
    """First word of a completion, think tags and punctuation aside."""
    found = re.search(r"\w[\w'’-]*", re.sub(r"</?think>", " ", text))
    return found.group() if found else ""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: greedy at temperature 0, else sampled from the top-p nucleus."""

    max_new_tokens: int = 400
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.max_new_tokens, "new tokens")
        check_finite(self.temperature, "temperature")
        if (self.temperature and self.temperature < 1e-3) or not 0 < self.top_p <= 1:
            raise UserError(f"temperature {self.temperature}, top_p {self.top_p}: use 0 or from 0.001, above 0 up to 1")


@dataclass(eq=False)
class SeededChoice(LogitsProcessor):
    """Leave one token a row: a draw from the top-p nucleus at a temperature, by inverse CDF of a number that depends
    on (seed, key, step) alone, not on how prompts are batched. The likeliest tokens alone are ranked where they hold
    every row's nucleus: a full sort takes as long as a small model's step."""

    how: Decoding
    keys: list[str]
    step: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        draws = [int(sha256(f"{self.how.seed}\0{key}\0{self.step}")[:13], 16) / 16**13 for key in self.keys]
        self.step += 1
        shares, n_vocab = (scores.float() / self.how.temperature).softmax(-1), scores.shape[-1]
        for n in (min(SHORTLIST, n_vocab), n_vocab):
            ranked, order = shares.topk(n)
            cumulative = ranked.cumsum(-1)
            if (cumulative[:, -1] >= self.how.top_p).all():
                break
        nucleus = ranked * (cumulative - ranked < self.how.top_p)  # the likeliest token is always in
        cumulative = nucleus.cumsum(-1)
        target = torch.tensor(draws, device=scores.device, dtype=cumulative.dtype)[:, None] * cumulative[:, -1:]
        place = torch.searchsorted(cumulative, target, right=True).clamp(max=(nucleus > 0).sum(-1, keepdim=True) - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, order.gather(-1, place), 0.0)


def complete(member: Member, prompts: list[str], *, change: Change = NONE, **how: Any) -> list[Completion]:
    """Complete every prompt under a change; `how` are the fields of `Decoding`. Raises UserError for a prompt that does
    not fit. Used in notebooks 05 and 07."""
    member.check(prompts)
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    done: Done = {}
    for found in _complete(member, [(prompt, "") for prompt in prompts], longest_first, Decoding(**how), change):
        done |= found
    return [done[index] for index in range(len(prompts))]


def in_memory(waiting: list[int], batch_size: int, run: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Batches of what is waiting, in its order, and what `run` makes of each. One too large for memory is halved; what
    is finished stays. Raises UserError when not even one prompt fits."""
    while waiting:
        some, found = waiting[:batch_size], None
        try:
            found = run(some)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
                raise
            if len(some) == 1:
                advice = "shorten it, allow fewer new tokens, close what else uses the device, or take a smaller pair"
                raise UserError(f"out of memory with a single prompt: {advice}") from error
        if found is None:  # outside the except block, whose traceback holds the batch's tensors
            batch_size = len(some) // 2
            clear_device_cache(garbage_collection=True)
            store.say(f"out of memory: going on with {batch_size} prompts at a time")
        else:
            waiting = waiting[len(some) :]
            gc.collect(1)  # a trace that was stopped holds its tensors in a ring of frames, 0.2 MB a prompt of smol
            yield some, found


def _complete(member: Member, jobs: list[Job], waiting: list[int], how: Decoding, change: Change) -> Iterator[Done]:
    """Complete those of the jobs that are waiting, in this order."""
    member.encode([prompt for prompt, _ in jobs], room=how.max_new_tokens)
    run = partial(_complete_batch, member, jobs, how, change)
    return (found for _, found in in_memory(waiting, BATCH.get(member.device.type, 512), run))


def _complete_batch(member: Member, jobs: list[Job], how: Decoding, change: Change, rows: list[int]) -> Done:
    """Decode one batch of jobs in chunks; after each, rows that have stopped leave the batch and its cache."""
    encoded = member.encode([jobs[row][0] for row in rows])
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    start, cache = ids.shape[1], None if member.remote else roomy_cache(member.config)
    going, written, stops = rows, {}, set(member.groups.stop)
    while going:
        step, now = ids.shape[1] - start, change.at(going)
        processors = LogitsProcessorList(now.processors)
        if how.temperature:
            processors.append(SeededChoice(how, ["\0".join(filter(None, jobs[row])) for row in going], step))
        with torch.no_grad():
            sequences = _generate(member, now.lm, ids, mask, cache, processors, how.max_new_tokens - step)
        written |= zip(going, sequences[:, start:].tolist(), strict=True)
        if sequences.shape[1] - start >= how.max_new_tokens:
            break
        places = [place for place, row in enumerate(going) if stops.isdisjoint(written[row])]
        if 0 < len(places) < len(going):
            cache.batch_select_indices(torch.tensor(places, device=ids.device))
        going, added = [going[place] for place in places], sequences.shape[1] - ids.shape[1]
        ids, mask = sequences[places], torch.nn.functional.pad(mask[places], (0, added), value=1)
    return {row: _finish(member, jobs[row], written[row]) for row in rows}


def _generate(
    member: Member, lm: Any, ids: Tensor, mask: Tensor, cache: DynamicCache | None, processors: list[Any], room: int
) -> Tensor:
    """Prompts and greedy tokens behind them, a chunk of at most `room`: through `decode` where it can, else through
    `generate`, of a remote model in a trace from which only the tokens come back."""
    stops, pad = list(member.groups.stop), member.tokenizer.pad_token_id
    if cache is not None and lm is None and can_decode(member.model, cache):
        return decode(member.model, ids, mask, cache, max_new_tokens=room, stops=stops, pad=pad, processors=processors)
    options = {} if cache is None else with_cache(member.model, cache)
    options |= {"eos_token_id": stops, "pad_token_id": pad, "logits_processor": processors, "do_sample": False}
    options |= {"max_new_tokens": room if member.remote else min(room, CHUNK.get(member.device.type, 64))}
    options |= dict.fromkeys(("temperature", "top_p", "top_k")) | {"repetition_penalty": 1.0}
    batch = BatchEncoding({"input_ids": ids, "attention_mask": mask})
    if not member.remote:
        return member.model.generate(**batch, **options) if lm is None else lm.generate(batch, **options)
    with (lm or member.lm).generate(batch, **options, remote=member.remote) as tracer:
        sequences = tracer.result.save()
    return sequences


def _finish(member: Member, job: Job, tokens: list[int]) -> Completion:
    end = next((place for place, token in enumerate(tokens) if token in member.groups.stop), None)
    text = member.tokenizer.decode(before := tokens[:end])
    stop = LIMIT if end is None else member.tokenizer.decode([tokens[end]])
    share = round(repetition(before), 4)
    return Completion(job[0], text, len(before), stop, first_word(text), share, before, job[1])


def stored_completions(
    pair: Pair, member: Member, prompts: list[str], *, name: str, fresh: bool = False, change: Change = NONE, **how: Any
) -> list[Completion]:
    """`complete`, kept in `data/<pair>/<name>.json` (16-bit runs apart) and saved after every batch. Rows are reused
    when model, dtype, settings and change match. Where package versions differ, a few are written again, and all of
    them if one comes out otherwise."""
    decoding, dtype = Decoding(**how), str(member.dtype)
    check_lengths(prompts=prompts, changes=change.names or prompts)
    path = store.data_dir(pair.name) / f"{name}{dtype.replace('torch.', '_').replace('_float32', '')}.json"
    provenance = {"model": member.identity, "dtype": dtype, "settings": asdict(decoding), "format": FORMAT}
    provenance |= {"change": change.description} if change.description else {}
    jobs = list(zip(prompts, change.names or [""] * len(prompts), strict=True))
    places = {job: place for place, job in reversed(list(enumerate(jobs)))}
    known = {} if fresh else _known(path, provenance)
    if drift := store.drifted(path) if known else "":
        stored = sorted(places[job] for job in known.keys() & places.keys())
        few = [stored[row] for row in store.sampled(len(stored), name)]
        again = _complete(member, jobs, few, decoding, change)
        same = all(known[jobs[place]] == one for found in again for place, one in found.items())
        drift = f", {drift}: {len(few)} written again, " + ("the same" if same else "NOT the same, so all are")
        known = known if same else {}
    missing = sorted(place for job, place in places.items() if job not in known)
    reused = f"{len(places) - len(missing)} completions reused"
    store.say(f"data/{pair.name}/{path.name}: {reused}, {len(missing)} to compute{drift}")
    if missing and not known:
        store.sidecar_path(path).unlink(missing_ok=True)  # what is there is of another provenance, or to be made afresh
    with tqdm(total=len(missing), desc=name, leave=False, disable=not missing) as bar:
        for found in _complete(member, jobs, missing, decoding, change):
            known |= {jobs[place]: one for place, one in found.items()}
            _save(path, provenance, known, str(member.device))
            bar.update(len(found))
    return [known[job] for job in jobs]


def _known(path: Path, provenance: dict[str, Any]) -> dict[Job, Completion]:
    """Stored completions by prompt and change, if they were made from this. Raises UserError for a file of others."""
    try:
        rows = store.read_json(path) if store.reusable(path, provenance) else []
        return {(row["prompt"], row.get("change", "")): Completion(**row) for row in rows}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} holds no completions ({error}): delete it or restore it with git") from error


def _save(path: Path, provenance: dict[str, Any], found: dict[Job, Completion], device: str) -> None:
    """Write rows and what they were made from, with those that another process wrote meanwhile from the same."""
    with store.locked(path):
        if not (there := _known(path, provenance)):  # a crash must not leave new rows under an old provenance
            store.sidecar_path(path).unlink(missing_ok=True)
        rows = [asdict(completion) for completion in (there | found).values()]
        store.write_records(path, [{key: row[key] for key in row if key != "change" or row[key]} for row in rows])
        if not there:
            store.write_sidecar(path, provenance, device)


def answers(
    pair: Pair, member: Member, questions: list[Question], *, form: Form, suffix: Suffix = "just", **how: Any
) -> pd.DataFrame:
    """One row a question, by its id: what one model answers, and whether it stopped, closed its thought and was right.
    `how`: the options of `stored_completions`, with a name where there is an intervention. In every notebook."""
    prompts = ask(member, questions, form=form, suffix=suffix)
    done = stored_completions(pair, member, prompts, **{"name": f"answers_{member.role}_{form}_{suffix}"} | how)
    return judged(done, questions, opened=member.thinks and form == "template")


def judged(done: list[Completion], questions: list[Question], *, opened: bool) -> pd.DataFrame:
    """Completions beside their questions: stopped, closed, answer, right; `opened`: the prompt opens a thought."""
    check_lengths(completions=done, questions=questions)
    frame = pd.DataFrame(map(asdict, done), index=pd.Index([question.id for question in questions], name="id"))
    for name, column in (("split", "split"), ("category", "category"), ("text", "question")):
        frame[column] = [getattr(question, name) for question in questions]
    frame["stopped"] = frame["stop"] != LIMIT
    frame["closed"] = frame["text"].str.contains("</think>", regex=False)
    frame["waits"] = frame["text"].str.contains(r"\bwait\b", case=False)
    frame["answer"] = [final_answer(text, opened=opened).strip() for text in frame["text"]]
    frame["right"] = [is_right(said, q.answers) for said, q in zip(frame["answer"], questions, strict=True)]
    return frame


def cut_short(
    member: Member, done: pd.DataFrame, questions: list[Question], limit: int, *, opened: bool
) -> pd.DataFrame:
    """The same greedy answers as if at most `limit` new tokens had been allowed. Used in notebooks 04, 06 and 07."""
    check_count(limit, "tokens")
    ends = {member.tokenizer.decode([token]): [token] for token in member.groups.stop}
    rows = zip(done["prompt"], done["tokens"], done["stop"], strict=True)
    cut = [_finish(member, (prompt, ""), (tokens + ends.get(stop, []))[:limit]) for prompt, tokens, stop in rows]
    return judged(cut, questions, opened=opened)


def select_combined(base: pd.DataFrame, distilled: pd.DataFrame, *, max_answer: int = 30) -> pd.DataFrame:
    """Questions that the base finishes within `max_answer` tokens and the distilled does not, with the base's answer;
    all of them, which it says, where no two of either split are such. Used in notebook 01."""
    check_count(max_answer, "tokens")
    short, also = base["length"].between(1, max_answer), distilled["length"] <= max_answer
    chosen = base["stopped"] & short & ~(distilled["stopped"] & also)
    if chosen.groupby(base["split"]).sum().min() < 2:
        print(f"no questions separate this pair at {max_answer} tokens: all {len(base)} are used as combined prompts")
        chosen[:] = True
    columns = ["split", "category", "question", "text", "right"]
    return base.loc[chosen, columns].rename(columns={"text": "base_answer", "right": "base_right"})


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
    pair: Pair, *, n_prompts: int | None, n_combined: int | None = None, max_answer: int = 30, **how: Any
) -> dict[Split, Combined]:
    """Both splits of combined prompts, at most `n_combined` of each, from `answers` with these options.
    Used in notebooks 02 to 07."""
    check_count(1 if n_combined is None else n_combined, "combined prompts")
    asked = {question.id: question for question in load_questions(n_prompts)}
    both = [answers(pair, member, list(asked.values()), form="template", **how) for member in pair.members]
    chosen, found = select_combined(*both, max_answer=max_answer), {}
    for split in ("explore", "confirm"):
        rows = chosen[chosen["split"] == split].head(n_combined)
        found[split] = Combined([asked[name] for name in rows.index], [*rows["base_answer"]], [*rows["base_right"]])
    return found


guarded(globals())
