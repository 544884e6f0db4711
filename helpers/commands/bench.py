# SPDX-License-Identifier: MIT
"""How long each piece of the study's work takes, beside plain transformers and other libraries.

A row is timed by torch's benchmark clock in a process of its own, which may be the Python of an environment that has
another library: what is imported above the functions is there, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Measurement, TaskSpec, timer

from helpers.checks import check_choice, check_finite
from helpers.store import PACKAGES, ROOT, UserError, read_json, write_text

REPEATS, GROWTH, BATCHES, MAX_NEW = 5, (8, 32, 128, 512), (32, 128, 512), 100
COPIED = 2**27  # numbers, to know a memory's bandwidth
ROWS = {  # name: (prompts, what it is)
    "lens": (64, "logit lens, 64 prompts, all layers, 15 tokens"),
    "lens_ranked": (64, "logit lens with log-probabilities and ranks in the whole vocabulary"),
    "readout": (256, "last-token readout, 256 prompts"),
    "attribute": (64, "direct attribution of all heads, 64 prompts"),
    "attribution_patching": (16, "attribution patching, all heads and MLPs, 16 prompts"),
    "exact": (4, "exact patching of all layers, 4 prompts"),
    "generate": (32, "32 prompts x 100 tokens"),
    "generate_scaled": (32, "32 prompts x 100 tokens with 50 scaled neurons"),
    "generate_scaled_weights": (32, "32 prompts x 100 tokens, 50 neurons scaled as weights"),
    "generate_vector": (32, "32 prompts x 100 tokens with a vector at every step"),
    "generate_vector_weights": (32, "32 prompts x 100 tokens, the vector as a bias"),
    "weights": (0, "weight difference of the pair, singular values"),
    "search": (0, "value-vector search, all layers"),
    "load": (0, "loading the pair"),
}
SUMS = ("attribute", "attribution_patching")  # they must add up, so they run in float32
FLOOR, OURS = "plain", "helpers"
TITLES = {OURS: "ours", "transformer_lens": "TransformerLens 4", "nnterp": "nnterp"}
HAS = {"transformer_lens": ("lens", "readout", "exact"), "nnterp": ("lens", "readout")}
QWEN = dict(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
QWEN |= dict(intermediate_size=8960, vocab_size=151_936, max_position_embeddings=4096)  # Qwen2.5-Math-1.5B's config
KEYS = ("seconds", "mib", "peak")  # of a run: its time, and memory in MiB, extra and at the peak


def bench(
    *,
    name: str,
    others: Mapping[str, str] | None = None,
    shapes: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    rows: list[str] | None = None,
    cap: float = 0.0,
    folder: Path = ROOT / "data" / "bench",
) -> Path:
    """Time every row, or some, in every library and write `data/bench/<name>.json` after each; return its path.

    `others`: library -> the Python of an environment that has it; `shapes`: random weights at the real pair's shapes
    instead of smol; `cap`: GiB of GPU memory that a process may use. Raises UserError for an unknown row.
    """
    from helpers.embedded import base_folder, distilled_folder

    _check(name, others or {}, dtype, device, rows or [], cap)
    path = folder / f"{name}.json"
    tried = {"models": "random, r1-1.5b's shapes" if shapes else "smol", "dtype": dtype}
    tried |= {"cap": cap} if cap else {}
    record = _record(path) if rows and path.exists() else tried
    if same := [key for key in ("models", "dtype", "cap") if record.get(key) != tried.get(key)]:
        raise UserError(f"{path} was measured with another {same[0]}: give the file another --name")
    rest = {"rows": record.get("rows", []), **{part: record.get(part, {}) for part in PARTS}}
    record = {"machine": _machine(device), **tried, **rest}
    libraries = dict.fromkeys((OURS,) if cap else (FLOOR, OURS), sys.executable) | dict(others or {})
    with tempfile.TemporaryDirectory() as place:
        both = random_pair(Path(place), dtype, device) if shapes else (base_folder(), distilled_folder())
        told = {"pair": "own" if shapes else "smol", "folders": list(map(str, both)), "dtype": dtype, "device": device}
        job = Path(place) / "job.json"
        job.write_text(json.dumps({**told, "cap": cap, **_read(*both)}))
        for row in rows or [*ROWS, *PARTS]:
            try:
                _measure(row, record, libraries, job)
            except UserError as error:  # such as no memory
                print(f"  {row} is left out: {error}", flush=True)
            write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def _check(name: str, others: Mapping[str, str], dtype: str, device: str, rows: list[str], cap: float) -> None:
    """Raise UserError for what cannot be measured."""
    check_choice(dtype, "dtype", ("float32", "bfloat16", "float16"))
    check_choice(device, "device", ("cpu", "cuda"))
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{name!r} is no file's name: give letters, digits and dashes")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is not here: use --device cpu")
    for row in rows:
        check_choice(row, "row", (*ROWS, *PARTS))
    check_finite(cap, "cap")
    if cap < 0 or (cap and device != "cuda"):
        raise UserError(f"cap {cap}: it is GiB of a GPU's memory, with device cuda")
    for library, python in others.items():
        if not shutil.which(python):
            raise UserError(f"no Python at {python}: give the one of an environment that has {library}")


def _read(base: Path, distilled: Path) -> dict[str, Any]:
    """What the rows read: each row's prompts, the tokens to follow and those that stop."""
    from transformers import AutoTokenizer

    from helpers.prompts import JUST, load_questions
    from helpers.tokens import token_groups

    tokenizer, thinker = map(AutoTokenizer.from_pretrained, (base, distilled))
    groups, questions = token_groups(tokenizer, [tokenizer.eos_token_id]), load_questions()
    texts = [f"{question.text} {JUST} The answer is {question.answers[0]}." for question in questions]
    chats = [[{"role": "user", "content": question.text}] for question in questions[: ROWS["generate"][0]]]
    asked = [thinker.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    sizes = {row: n for row, (n, _) in ROWS.items()}
    sizes |= {f"lens:{n}": n for n in GROWTH} | {f"generate:{n}": n for n in BATCHES} | {"bandwidth": 0}
    prompts = {row: [*islice(cycle(asked if "generate" in row else texts), n)] for row, n in sizes.items()}
    tokens = [groups.stop[0], *groups.wait, *groups.reasoning][:15]
    return {"prompts": prompts, "tokens": tokens, "stop": groups.stop}


def random_pair(folder: Path, dtype: str, device: str) -> tuple[Path, Path]:
    """Two Qwen2 models with random weights at the real pair's shapes, a tied base and an untied distilled one."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _small_tokenizer()
    for role in ("base", "distilled"):
        torch.manual_seed(role == "base")
        config = Qwen2Config(**QWEN, tie_word_embeddings=role == "base", eos_token_id=tokenizer.eos_token_id)
        with torch.device(device):
            model = Qwen2ForCausalLM(config)
        model.to(getattr(torch, dtype)).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder / "base", folder / "distilled"


def _small_tokenizer() -> Any:
    """Byte-level BPE of 700 tokens over some of the study's questions."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from helpers.prompts import load_questions
    from helpers.tokens import REASONING, THINK, WAIT

    bpe, end = Tokenizer(models.BPE()), "<|endoftext|>"
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = [word * 3 for word in (*WAIT, *REASONING)] * 50 + [question.text for question in load_questions(60)]
    how = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "special_tokens": [end, *THINK]}
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, show_progress=False, **how))
    template = "{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}Assistant: "
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=end, chat_template=template)


def _measure(row: str, record: dict[str, Any], libraries: Mapping[str, str], job: Path) -> None:
    """Put what a row takes into the record, or one of its PARTS."""
    if row in PARTS:
        record[row] = PARTS[row](libraries, job)
        return
    having = {name: python for name, python in libraries.items() if row in HAS.get(name, ROWS)}
    entry = {"row": row, "what": ROWS[row][1], "libraries": _summary(_take_turns(row, having, job))}
    found = {old["row"]: old for old in record["rows"]} | {row: entry}
    record["rows"] = [found[known] for known in ROWS if known in found]
    told = [f"{name} {one['seconds'] * 1000:.0f} ms ({one['mib']:.0f} MiB)" for name, one in entry["libraries"].items()]
    print(f"  {entry['what']}: {', '.join(told)}", flush=True)


def _summary(runs: Mapping[str, Measurement]) -> dict[str, Any]:
    """Medians by library; ratios to the floor, run by run, as median, least and most."""
    floor, found = np.array(runs.get(FLOOR, runs[OURS]).times), {}
    for library, run in runs.items():
        ratio = np.array(run.times) / floor
        found[library] = {
            "seconds": round(run.median, 5),
            "ratio": [round(float(value), 3) for value in (np.median(ratio), ratio.min(), ratio.max())],
            **{key: round(float(np.median(run.metadata[key])), 1) for key in ("mib", "peak")},
        }
    return found


def _growth(libraries: Mapping[str, str], job: Path) -> dict[str, Any]:
    """Time and extra memory of the lens as prompts grow."""
    alone = {OURS: libraries[OURS]}
    runs = {str(n): _summary(_take_turns(f"lens:{n}", alone, job))[OURS] for n in GROWTH}
    return {n: {key: one[key] for key in ("seconds", "mib")} for n, one in runs.items()}


def _decoding(libraries: Mapping[str, str], job: Path) -> dict[str, Any]:
    """Tokens a second of plain `generate` and of ours by batch, and the share of the time in which a copy would move
    the bytes that our steps must read."""
    both = {name: python for name, python in libraries.items() if name in (FLOOR, OURS)}
    speed = 2 * 4 * COPIED / _take_turns("bandwidth", {OURS: both[OURS]}, job)[OURS].median
    found = {}
    for n in BATCHES:
        runs = _take_turns(f"generate:{n}", both, job)
        rates = {name: round(n * MAX_NEW / run.median, 1) for name, run in runs.items()}
        share = _bytes_read(json.loads(job.read_text()), f"generate:{n}") / speed / runs[OURS].median
        rates |= {"share": round(share, 4), "gb_a_second": round(speed / 1e9, 1)}
        found[str(n)] = rates | {"peak": round(max(runs[OURS].metadata["peak"]), 1)}
        print(f"  {n} prompts: {found[str(n)]}", flush=True)
    return found


PARTS = {"growth": _growth, "decoding": _decoding}


def _bytes_read(job: Mapping[str, Any], row: str) -> float:
    """What MAX_NEW decoding steps must read: every weight but the input embedding, once a batch, and the keys and
    values."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from helpers.generation import BATCH

    config, prompts = AutoConfig.from_pretrained(job["folders"][1]), job["prompts"][row]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = sum(weight.numel() for weight in model.model.layers.parameters()) + model.lm_head.weight.numel()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    ids = AutoTokenizer.from_pretrained(job["folders"][1])(prompts, add_special_tokens=False).input_ids
    tokens, batches = sum(map(len, ids)) + len(prompts) * MAX_NEW / 2, -(-len(prompts) // BATCH[job["device"]])
    return MAX_NEW * (batches * weights + a_token * tokens) * getattr(torch, job["dtype"]).itemsize


def _machine(device: str) -> dict[str, Any]:
    chip, cpu = platform.processor(), Path("/proc/cpuinfo")
    if device == "cuda":
        chip = torch.cuda.get_device_name()
    elif cpu.exists() and (named := re.search(r"model name\s*: (.+)", cpu.read_text())):
        chip = named[1].strip()
    found = {"device": chip, "cores": os.cpu_count(), "python": platform.python_version()}
    return found | {"date": datetime.now(UTC).date().isoformat(), **{name: version(name) for name in PACKAGES}}


def _record(path: Path) -> dict[str, Any]:
    """A benchmark's file. Raises UserError for one that holds something else."""
    record = read_json(path)
    if not isinstance(record, dict) or not {"machine", "models", "rows"} <= set(record):
        raise UserError(f"{path} holds no benchmark: delete it and run `python -m helpers bench`")
    return record


def table(path: Path) -> str:
    """A benchmark's file as Markdown tables: the floor in milliseconds and the others as ratios to it, or, under a cap,
    memory at the peak; then decoding."""
    record = _record(path)
    machine = record["machine"]
    packages = ", ".join(f"{name} {machine[name]}" for name in PACKAGES)
    cap = f" of which a process may use {record['cap']:g} GiB" if "cap" in record else ""
    where = f"{machine['device']}{cap}, {record['models']} in {record['dtype']}, {packages}, {machine['date']}"
    lines = (_memory_lines if cap else _ratio_lines)(record["rows"]) if record["rows"] else []
    decoding = _decoding_lines(record["decoding"]) if record.get("decoding") else []
    return f"{where}:\n\n" + "\n".join([*lines, *decoding])


def _markdown(*rows: list[str]) -> list[str]:
    titles, *others = [f"| {' | '.join(cells)} |" for cells in rows]
    return [titles, "|" + "---|" * len(rows[0]), *others]


def _ratio_lines(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for entry in rows for name in entry["libraries"] if name != FLOOR))
    lines = [["work", "plain transformers", *(TITLES.get(name, name) for name in names)]]
    for entry in rows:
        floor, others = entry["libraries"][FLOOR], map(entry["libraries"].get, names)
        lines.append([entry["what"], f"{floor['seconds'] * 1000:.0f} ms, {floor['mib']:.0f} MiB"])
        told = "{:.2f} ({:.2f} to {:.2f}), {:.0f} MiB"
        lines[-1] += [told.format(*one["ratio"], one["mib"]) if one else "" for one in others]
    return _markdown(*lines)


def _memory_lines(rows: list[dict[str, Any]]) -> list[str]:
    ours = [(entry["what"], entry["libraries"][OURS]) for entry in rows]
    cells = [[what, f"{one['seconds'] * 1000:.0f} ms", f"{one['peak'] / 1024:.1f} GiB"] for what, one in ours]
    return _markdown(["work", "time", "GPU memory at the peak, the model it reads included"], *cells)


def _decoding_lines(decoding: Mapping[str, dict[str, float]]) -> list[str]:
    names = [name for name in (FLOOR, OURS) if all(name in one for one in decoding.values())]
    titles = {FLOOR: "plain `generate`", OURS: "ours"}
    head = ["decoding, tokens a second", *map(titles.get, names), "of what bandwidth allows", "GPU memory at the peak"]
    lines = [head]
    for n, one in decoding.items():
        lines.append([f"{n} prompts at once, {MAX_NEW} tokens each", *(f"{one[name]:,.0f}" for name in names)])
        lines[-1] += [f"{one['share']:.0%} of {one['gb_a_second']:,.0f} GB/s", f"{one['peak'] / 1024:.1f} GiB"]
    return ["", *_markdown(*lines)]


def growth_figure(path: Path) -> None:
    """Draw time and extra memory of the lens by number of prompts, as measured in a benchmark's file."""
    from helpers import figures
    from helpers.stats import Interval

    record = _record(path)
    growth = {int(n): one for n, one in record["growth"].items()}
    least, most = min(growth), max(growth)
    time, memory = ([one[key] / max(growth[least][key], 1e-9) for one in growth.values()] for key in ("seconds", "mib"))
    shown = {"time": (time, figures.BASE), "extra memory": (memory, figures.DISTILLED)}
    shown |= {"prompts": ([n / least for n in growth], figures.CONTROL)}
    panels = {"": {name: ([Interval(v, v, v, 1) for v in values], colour) for name, (values, colour) in shown.items()}}
    grown = f"{time[-1]:.0f} times the time, {memory[-1]:.0f} times the extra memory"
    title = f"Lens of {most} prompts against {least}: {grown} ({growth[most]['mib']:.0f} MiB)"
    how = {"xlabel": "prompts", "ylabel": f"times that of {least} prompts", "ticks": list(growth), "log_rows": (0,)}
    fig = figures.lines(panels, range(len(growth)), title=title, **how)
    note, place = f"{record['machine']['device']}, {record['dtype']}", ROOT / "figures" / "bench"
    figures.save_figure(fig, "lens_growth", pair=record["models"], alt=title, note=note, folder=place)


def _take_turns(row: str, libraries: Mapping[str, str], job: Path) -> dict[str, Measurement]:
    """Seconds of REPEATS runs of each library after one to warm up, a process each, one after the other in turn; the
    metadata is memory in MiB, extra and at the peak."""
    told: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as opened:
        workers = {name: opened.enter_context(_Worker(name, python, row, job)) for name, python in libraries.items()}
        for name, worker in workers.items():
            try:
                told[name] = [worker.answer()]
            except UserError as error:
                print(f"  {row}: no {name} ({error})", flush=True)
        if OURS not in told:
            raise UserError("the helpers could not begin")
        for _ in range(1 + REPEATS):
            for name, answers in told.items():
                print("run", file=workers[name].stdin, flush=True)
                answers.append(workers[name].answer())
    measured = {name: {key: [one[key] for one in answers[2:]] for key in KEYS} for name, answers in told.items()}
    return {name: Measurement(1, runs.pop("seconds"), TaskSpec(row, ""), runs) for name, runs in measured.items()}


class _Worker(subprocess.Popen):
    """A process that runs one row of one library each time it is asked."""

    def __init__(self, library: str, python: str, row: str, job: Path) -> None:
        self.log = job.with_name(f"{library}.log")
        start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from helpers.commands import bench; bench.work()"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "R1_SAY": os.devnull, "TQDM_DISABLE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        with self.log.open("w") as log:
            super().__init__([python, "-c", start, library, row, str(job)], stderr=log, **pipes)

    def answer(self) -> dict[str, float]:
        """The next answer. Raises UserError with its last words where it has ended."""
        if line := self.stdout.readline():
            return json.loads(line)
        raise UserError((self.log.read_text().strip().splitlines() or ["it said nothing"])[-1])


def work() -> None:
    """A worker's own part: prepare the row, then run it once for each line that arrives; answers are lines of JSON."""
    library, row, path = sys.argv[1:]
    job = SimpleNamespace(**json.loads(Path(path).read_text()), row=row)
    job.prompts = job.prompts[row]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to the log
    if job.cap:
        whole = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, job.cap / whole))
    run = LIBRARIES[library](job)
    print("{}", file=answers)
    for _ in sys.stdin:
        before, start = _mib(job.device, reset=True), timer()
        run()
        seconds, peak = timer() - start, _mib(job.device)
        print(json.dumps(dict(zip(KEYS, (seconds, peak - before, peak), strict=True))), file=answers)


def _mib(device: str, *, reset: bool = False) -> float:
    """Memory in MiB: now (and the peak's mark set back), or the peak since then."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return (torch.cuda.memory_allocated() if reset else torch.cuda.max_memory_allocated()) / 2**20
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
        with contextlib.suppress(AttributeError):  # glibc has it; without it what the last run freed counts as in use
            ctypes.CDLL(None).malloc_trim(0)
    (kib,) = re.findall(rf"{'VmRSS' if reset else 'VmHWM'}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kib) / 1024


def _model(job: Any, role: str = "base") -> Any:
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if job.row in SUMS else getattr(torch, job.dtype)
    folder = job.folders[role == "distilled"]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(job.device).eval()


def _tokenizer(job: Any, role: str = "base") -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.folders[role == "distilled"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def _batch(job: Any, tokenizer: Any, texts: list[str]) -> Any:
    return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(job.device)


def _in_batches(job: Any, works: Mapping[str, Callable[[list[str]], Any]]) -> Callable[[], None]:
    """A row that reads 64 prompts at a time; patching takes one, and decoding all."""
    work, n = works[job.row], len(job.prompts)
    size = 1 if job.row == "exact" else n if job.row.startswith("generate") else 64

    def run() -> None:
        with torch.no_grad():
            for place in range(0, max(n, 1), max(size, 1)):
                work(job.prompts[place : place + size])

    return run


def plain(job: Any) -> Callable[[], Any]:
    """The floor: plain transformers. Where a row needs intervention, the bare forward or `generate` that it wraps."""
    if job.row == "load":
        return lambda: (_model(job), _model(job, "distilled"))
    writes = job.row.startswith("generate")
    role = "distilled" if writes else "base"
    model, tokenizer = _model(job, role), _tokenizer(job, role)
    other = _model(job, "distilled") if job.row == "weights" else None

    def read(texts: list[str]) -> None:
        model(**_batch(job, tokenizer, texts)).logits[:, -1].log_softmax(-1)

    def generate(texts: list[str]) -> None:
        how = {"max_new_tokens": MAX_NEW, "min_new_tokens": MAX_NEW if ":" in job.row else 0, "do_sample": False}
        model.generate(**_batch(job, tokenizer, texts), **how, eos_token_id=job.stop)

    works = dict.fromkeys([job.row], generate if writes else read)
    works |= {"exact": lambda texts: _patch_layers(model, _batch(job, tokenizer, texts))}
    works |= {"weights": lambda _: _differences(model, other), "search": lambda _: _search(model, job.stop)}
    return _in_batches(job, works)


def _last_zero(out: torch.Tensor) -> torch.Tensor:
    """A layer's output whose last position is zero: any other value costs the same."""
    return torch.nn.functional.pad(out[:, :-1], (0, 0, 0, 1))


def _patch_layers(model: Any, batch: Any) -> None:
    """Every layer patched in a Python loop of forward hooks, one run a layer."""
    for layer in model.model.layers:
        hook = layer.register_forward_hook(lambda module, ins, out: _last_zero(out))
        model(**batch, logits_to_keep=1)
        hook.remove()


def _differences(model: Any, other: Any) -> None:
    theirs = dict(other.named_parameters())
    for name, own in model.named_parameters():
        if ".layers." in name and own.ndim == 2:
            torch.linalg.svdvals(theirs[name].float() - own.float()).sum()


def _search(model: Any, stop: list[int]) -> None:
    unit = torch.nn.functional.normalize
    target = unit(model.lm_head.weight[stop].float().mean(0), dim=0)
    for layer in model.model.layers:
        (unit(layer.mlp.down_proj.weight.float(), dim=0).T @ target).abs().topk(10)


def ours(job: Any) -> Callable[[], Any]:
    """This study's own way."""
    from helpers.pairs import Pair

    if job.row == "bandwidth":  # of a large copy
        source = torch.randn(COPIED, device=job.device)
        return partial(torch.empty_like(source).copy_, source)
    load = partial(Pair.of, *job.folders, name=job.pair, device=job.device, dtype=job.dtype)
    if job.row == "load":
        return load
    return (_our_writing if job.row.startswith("generate") else _our_reading)(job, load())


def _our_reading(job: Any, pair: Any) -> Callable[[], Any]:
    from helpers import patching, readouts, weights

    member, prompts, ids = pair.base, job.prompts, job.tokens
    aims = ids[:1], ids[1:5]
    if job.row in SUMS:
        pair.float()
    source = readouts.activations(member, prompts) if job.row in ("exact", "attribution_patching") else None
    nodes = [patching.Node("stream", point + 1) for point in range(member.n_layers)]
    stop, cosines = partial(weights.writing_direction, member, job.stop), weights.value_vector_cosines
    works = {
        "lens": lambda: readouts.lens(member, prompts, ids, ranked=False),
        "lens_ranked": lambda: readouts.lens(member, prompts, ids),
        "readout": lambda: readouts.next_logprobs(member, prompts, ids),
        "attribute": lambda: patching.attribute(member, prompts, *aims),
        "attribution_patching": lambda: patching.attribution_patching(member, prompts, source, *aims),
        "exact": lambda: patching.exact_patching(member, prompts, source, nodes, *aims),
        "weights": lambda: weights.compare_matrices(pair),
        "search": lambda: weights.closest(cosines(member, stop()), 10),
    }
    return works[job.row.partition(":")[0]]


def _our_writing(job: Any, pair: Any) -> Callable[[], Any]:
    from transformers import MinLengthLogitsProcessor

    from helpers import generation, steering, weights

    member, how, held = pair.distilled, {"max_new_tokens": MAX_NEW}, contextlib.nullcontext
    edit = weights.NeuronEdit([(k % member.n_layers, k) for k in range(50)], factor=2.0)
    vector = {int(0.6 * member.n_layers): torch.ones(member.config.hidden_size)}
    if job.row == "generate_scaled":
        how["lm"] = weights.with_neurons(member, edit)
    elif job.row == "generate_vector":
        change = steering.steered(member, [steering.Steering("v", vector, 1.0)] * len(job.prompts))
        how |= {"lm": change.lm, "processors": change.processors, "on_batch": change.on_batch}
    elif job.row == "generate_scaled_weights":
        held = partial(weights.edited_weights, member, edit)
    elif job.row == "generate_vector_weights":
        held = partial(weights.edited_weights, member, vectors=vector)
    elif ":" in job.row:
        how["processors"] = (MinLengthLogitsProcessor(10**6, list(member.groups.stop), device=job.device),)

    def generate() -> None:
        with held():
            generation.complete(member, job.prompts, **how)

    return generate


def transformer_lens(job: Any) -> Callable[[], Any]:
    """TransformerLens 4, with the weights unprocessed."""
    from transformer_lens.model_bridge import TransformerBridge

    loaded, tokenizer = _model(job), _tokenizer(job)
    how = {"hf_model": loaded, "tokenizer": tokenizer, "device": job.device}
    model, layers = TransformerBridge.boot_transformers(job.folders[0], **how), range(loaded.config.num_hidden_layers)

    def lens(texts: list[str]) -> None:
        given = _batch(job, tokenizer, texts)
        reads = {"names_filter": lambda name: "hook_resid_post" in name or name.endswith("hook_out")}
        _, cache = model.run_with_cache(given["input_ids"], attention_mask=given["attention_mask"], **reads)
        streams = torch.stack([cache[f"blocks.{k}.hook_resid_post"][:, -1] for k in layers], 1)
        loaded.model.norm(streams) @ loaded.lm_head.weight[job.tokens].T

    def readout(texts: list[str]) -> None:
        given = _batch(job, tokenizer, texts)
        model(given["input_ids"], attention_mask=given["attention_mask"])[:, -1].log_softmax(-1)

    def exact(texts: list[str]) -> None:
        tokens = _batch(job, tokenizer, texts)["input_ids"]
        for k in layers:
            hook = (f"blocks.{k}.hook_resid_post", lambda value, hook: _last_zero(value))
            model.run_with_hooks(tokens, fwd_hooks=[hook])

    return _in_batches(job, {"lens": lens, "readout": readout, "exact": exact})


def nnterp(job: Any) -> Callable[[], Any]:
    """nnterp on the older nnsight that it needs."""
    from nnterp import StandardizedTransformer

    loaded, tokenizer = _model(job), _tokenizer(job)
    model, head = StandardizedTransformer(loaded, tokenizer=tokenizer), loaded.lm_head.weight

    def lens(texts: list[str]) -> None:
        with model.trace(texts) as tracer:
            streams = [model.layers_output[k][:, -1] for k in range(model.num_layers)]
            logits = (model.ln_final(torch.stack(streams, 1)) @ head[job.tokens].T).save()
            tracer.stop()
        logits.float()

    def readout(texts: list[str]) -> None:
        with model.trace(texts):
            logits = model.logits[:, -1].save()
        logits.log_softmax(-1)

    return _in_batches(job, {"lens": lens, "readout": readout})


LIBRARIES = {FLOOR: plain, OURS: ours, "transformer_lens": transformer_lens, "nnterp": nnterp}
