# SPDX-License-Identifier: MIT
"""How long each piece of the study's work takes, beside plain transformers and other libraries.

A row is a statement that torch.utils.benchmark times, in a process of its own, in which one library and plain
transformers take turns. Another library's environment needs only what is imported at the top.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.benchmark import Timer

from helpers.checks import check_choice
from helpers.store import ROOT, UserError, package_versions, read_json, write_text

REPEATS, MAX_NEW = 5, 100
READ = "for texts in batches: model(**encode(texts)).logits[:, -1].log_softmax(-1)"
PATCH = "for texts in batches: patch(encode(texts))"
WRITE = "model.generate(**encode(prompts), **settings)"
SVD = "for own, other in matrices: torch.linalg.svdvals(other.float() - own.float()).sum()"
OURS_SEARCH = "weights.closest(weights.value_vector_cosines(m, weights.writing_direction(m, stop)), 10)"
STEERED = "write(change=change)"
ROWS = {  # name: (prompts, what it is, what plain transformers does for it or at least must, ours)
    "lens": (64, "logit lens, 64 prompts, all layers, 15 tokens", READ, "readouts.lens(m, prompts, ids, ranked=False)"),
    "lens_ranked": (64, "logit lens with log-probabilities and ranks in the whole vocabulary", READ,
                    "readouts.lens(m, prompts, ids)"),
    "readout": (256, "last-token readout, 256 prompts", READ, "readouts.next_logprobs(m, prompts, ids)"),
    "attribute": (64, "direct attribution of all heads, 64 prompts", READ, "patching.attribute(m, prompts, aim)"),
    "attribution_patching": (16, "attribution patching, all heads and MLPs, 16 prompts", READ,
                             "patching.attribution_patching(m, prompts, source, aim)"),
    "exact": (4, "exact patching of all layers, 4 prompts", PATCH,
              "patching.exact_patching(m, prompts, source, nodes, aim)"),
    "generate": (32, "32 prompts x 100 tokens", WRITE, "write(change=generation.Change(processors=processors))"),
    "generate_scaled": (32, "32 prompts x 100 tokens with 50 scaled neurons", WRITE, "write(lm=scaled)"),
    "generate_vector": (32, "32 prompts x 100 tokens with a vector at every step", WRITE, STEERED),
    "weights": (0, "weight difference of the pair, singular values", SVD, "weights.compare_matrices(pair)"),
    "search": (0, "value-vector search, all layers", "search()", OURS_SEARCH),
    "load": (0, "loading the pair", "load(0), load(1)", "load()"),
}  # fmt: skip
SUMS = ("attribute", "attribution_patching")  # they must add up, so they run in float32
SIZES = {"growth": ("lens", (8, 32, 128, 512)), "decoding": ("generate", (32, 128, 512))}  # a row by prompts
FLOOR, OURS = "plain", "helpers"
TITLES = {OURS: "ours", "transformer_lens": "TransformerLens 4", "nnterp": "nnterp"}
HAS = {OURS: tuple(ROWS), "transformer_lens": ("lens", "exact"), "nnterp": ("lens",)}
QWEN = dict(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
QWEN |= dict(intermediate_size=8960, vocab_size=151_936, max_position_embeddings=4096)  # Qwen2.5-Math-1.5B's config
FOLDER = ROOT / "data" / "bench"


def bench(
    name: str, others: dict[str, str], *, shapes: bool, dtype: str, device: str, rows: list[str] | None, cap: float
) -> Path:
    """Time every row, or some, write `data/bench/<name>.json` after each, and return its path. `others`: library -> the
    Python of an environment that has it; `shapes`: random weights at the real pair's shapes instead of smol; `cap`: GiB
    of GPU memory that a process may use, 0 for all. Raises UserError for what is not there."""
    from helpers.embedded import base_folder, distilled_folder

    check_choice(device, "device", ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    for row in rows or []:
        check_choice(row, "row", (*ROWS, *SIZES))
    path = FOLDER / f"{name}.json"
    of = {"models": "random, r1-1.5b's shapes" if shapes else "smol", "dtype": dtype, "cap": cap}
    old = {"cap": 0.0, **read_json(path)} if rows and path.exists() else of
    if any(old[key] != value for key, value in of.items()):
        raise UserError(f"{path} was measured with other models, dtype or cap: give the file another --name")
    named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    chip = torch.cuda.get_device_name() if device == "cuda" else named[1] if named else platform.machine()
    machine = {"device": chip, "cores": os.cpu_count(), "python": platform.python_version()}
    machine |= {"date": datetime.now(UTC).date().isoformat(), **package_versions()}
    record = {"rows": [], "growth": {}, "decoding": {}, **old, "machine": machine}
    with tempfile.TemporaryDirectory() as place:
        both = random_pair(Path(place), dtype, device) if shapes else (base_folder(), distilled_folder())
        job = {"pair": "own" if shapes else "smol", "folders": [*map(str, both)], "dtype": dtype, "device": device}
        job |= {"cap": cap, **_read(*both)}
        for row in rows or [*ROWS, "growth", *["decoding"] * (device == "cuda")]:
            _measure(row, record, {OURS: sys.executable, **others}, job)
            write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def random_pair(folder: Path, dtype: str, device: str) -> tuple[Path, Path]:
    """Two Qwen2 models with random weights at the real pair's shapes, a tied base and an untied distilled one, and a
    tokenizer of 700 tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from helpers.prompts import load_questions
    from helpers.tokens import REASONING, THINK, WAIT

    bpe, marks = ByteLevelBPETokenizer(), {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    texts = [word * 3 for word in (*WAIT, *REASONING)] * 50 + [question.text for question in load_questions(60)]
    bpe.train_from_iterator(texts, vocab_size=700, special_tokens=[marks["eos_token"], *THINK], show_progress=False)
    marks["chat_template"] = "{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}Assistant: "
    for role in ("base", "distilled"):
        torch.manual_seed(role == "base")
        with torch.device(device):
            model = Qwen2ForCausalLM(Qwen2Config(**QWEN, tie_word_embeddings=role == "base", eos_token_id=0))
        model.to(getattr(torch, dtype)).save_pretrained(folder / role)
        PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **marks).save_pretrained(folder / role)
    return folder / "base", folder / "distilled"


def _read(base: Path, distilled: Path) -> dict[str, Any]:
    """What the rows read: texts with an answer, questions in the chat template, tokens to follow, tokens that stop."""
    from transformers import AutoTokenizer

    from helpers.prompts import JUST, load_questions
    from helpers.tokens import token_groups

    tokenizer, thinker = map(AutoTokenizer.from_pretrained, (base, distilled))
    groups, questions = token_groups(tokenizer, [tokenizer.eos_token_id]), load_questions()
    texts = [f"{question.text} {JUST} The answer is {question.answers[0]}." for question in questions]
    chats = [[{"role": "user", "content": question.text}] for question in questions[: ROWS["generate"][0]]]
    asked = thinker.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    tokens = [groups.stop[0], *groups.wait, *groups.reasoning][:15]
    return {"texts": texts, "asked": asked, "tokens": tokens, "stop": groups.stop}


def _measure(row: str, record: dict[str, Any], pythons: dict[str, str], job: dict[str, Any]) -> None:
    """Put what a row takes into the record, where it can be measured."""
    name, sizes = SIZES.get(row, (row, ()))
    if runs := {n: found for n in sizes if (found := _in_process(name, OURS, pythons[OURS], job | {"n": n}))}:
        keys = ("seconds", "mib") if row == "growth" else ("share", "gb_a_second", "peak")
        record[row] = {str(n): {key: found[OURS][key] for key in keys} for n, found in runs.items()}
    if row == "decoding":  # tokens a second
        for n, found in runs.items():
            record[row][str(n)] |= {one: round(n * MAX_NEW / took["seconds"], 1) for one, took in found.items()}
    if row in ROWS:
        found = {}
        for library in (library for library in pythons if row in HAS[library]):
            found = _in_process(row, library, pythons[library], job) | found  # plain as our environment has it
        entries = {old["row"]: old for old in record["rows"]}
        entries |= {row: {"row": row, "what": ROWS[row][1], "libraries": found}} if OURS in found else {}
        record["rows"] = [entries[known] for known in ROWS if known in entries]


def _in_process(row: str, library: str, python: str, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A row of one library and of plain transformers; nothing where it fails, which is said."""
    quiet = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [python, "-m", "helpers.commands.bench", library, row]
    how = {"env": os.environ | quiet, "input": json.dumps(job), "text": True}
    done = subprocess.run(command, capture_output=True, **how)
    *_, last = ["it said nothing", *(done.stderr if done.returncode else done.stdout).strip().splitlines()]
    print(f"  {row}: no {library} ({last})" if done.returncode else f"  {row}: {last}", flush=True)
    return {} if done.returncode else json.loads(last)


def work(library: str, row: str) -> None:
    """What such a process does: REPEATS runs of both, in turn, each after one to warm up; the last line is JSON."""
    job = SimpleNamespace(row=row, writes=row.startswith("generate"), **({"n": 0} | json.load(sys.stdin)))
    wanted, size = job.n or ROWS[row][0], 1 if row == "exact" else 64
    job.prompts = ((job.asked if job.writes else job.texts) * wanted)[:wanted]
    job.batches = [job.prompts[start : start + size] for start in range(0, wanted, size)]
    if job.cap:
        whole = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, job.cap / whole))
    both = [library] if job.cap or (job.n and not job.writes) else [FLOOR, library]
    timers, held, runs, extra = {}, {}, {one: [] for one in both}, {one: [] for one in both}
    for one in both:
        before, names = _peak_mib(job.device), {**vars(job), **LIBRARIES[one](job)}
        statement = {FLOOR: ROWS[row][2], OURS: ROWS[row][3]}.get(one, "for texts in batches: run(texts)")
        how = {"globals": names, "num_threads": torch.get_num_threads()}
        timers[one] = Timer(statement, f"torch.set_grad_enabled({one == OURS})", **how)
        held[one] = _peak_mib(job.device) - before
    for one in both * REPEATS:
        before = _peak_mib(job.device)
        runs[one].append(timers[one].blocked_autorange(min_run_time=0).median)
        extra[one].append(_peak_mib(job.device, reset=False) - before)
    found = {}
    for one in both:
        seconds, ratio, mib = np.median(runs[one]), np.divide(runs[one], runs[both[0]]), np.median(extra[one])
        found[one] = {"seconds": round(float(seconds), 5), "mib": round(float(mib), 1)}
        found[one]["ratio"] = [round(float(of(ratio)), 3) for of in (np.median, np.min, np.max)]
        found[one]["peak"] = round(float(mib) + held[one], 1)
    if job.n and job.writes:
        found[OURS] |= _bandwidth(names["m"], job.prompts, found[OURS]["seconds"])
    print(json.dumps(found))


def _bandwidth(m: Any, prompts: list[str], seconds: float) -> dict[str, float]:
    """What a copy reads and writes, in GB/s, and the share of `seconds` in which it would move the bytes that MAX_NEW
    steps must read: every weight but the input embedding, once a batch, and the keys and values."""
    from helpers.generation import BATCH

    source = torch.randn(2**27, device=m.device)
    copy = Timer("to.copy_(source)", globals={"to": torch.empty_like(source), "source": source}).blocked_autorange()
    speed, layers, n = 2 * source.nbytes / copy.median, m.model.model.layers, len(prompts)
    weights = sum(weight.numel() for weight in layers.parameters()) + m.unembedding.numel()
    tokens = int(m.encode(prompts)["attention_mask"].sum()) + n * MAX_NEW / 2
    keys = 2 * tokens * sum(layer.self_attn.k_proj.out_features for layer in layers)
    read = MAX_NEW * (-(-n // BATCH[m.device.type]) * weights + keys) * m.dtype.itemsize
    return {"share": round(read / speed / seconds, 4), "gb_a_second": round(speed / 1e9, 1)}


def _peak_mib(device: str, *, reset: bool = True) -> float:
    """The most memory in use, in MiB, since the last reset; with a reset, what is in use now."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # else what the last run freed counts as in use
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def table(path: Path) -> str:
    """A benchmark's file as Markdown tables."""
    import jinja2

    record, template = {"cap": 0, **read_json(path)}, Path(__file__).with_name("bench.md.j2").read_text("utf-8")
    had = {name for entry in record["rows"] for name in entry["libraries"]}
    others = {name: title for name, title in TITLES.items() if name in had}
    made = jinja2.Template(template, trim_blocks=True, lstrip_blocks=True)
    return made.render(**record, others=others, max_new=MAX_NEW, tuple=tuple).rstrip("\n")


def growth_figure(path: Path) -> None:
    """Draw time and extra memory of the lens by number of prompts, as measured in a benchmark's file."""
    from helpers import figures

    record = read_json(path)
    sizes, runs = list(record["growth"]), list(record["growth"].values())
    time, memory = ([one[key] / runs[0][key] for one in runs] for key in ("seconds", "mib"))
    drawn = {"time": (time, figures.BASE), "extra memory": (memory, figures.DISTILLED)}
    drawn["prompts"] = [int(n) / int(sizes[0]) for n in sizes], figures.CONTROL
    title = f"Lens of {sizes[-1]} prompts against {sizes[0]}: {time[-1]:.0f} times the time, "
    title += f"{memory[-1]:.0f} times the extra memory ({runs[-1]['mib']:.0f} MiB)"
    how = {"xlabel": "prompts", "ylabel": f"times that of {sizes[0]} prompts", "ticks": sizes}
    fig = figures.lines({"": drawn}, range(len(sizes)), title=title, log_rows=(0,), **how)
    note, place = f"{record['machine']['device']}, {record['dtype']}", ROOT / "figures" / "bench"
    figures.save_figure(fig, "lens_growth", pair=record["models"], alt=title, note=note, folder=place)


def _plain(job: Any) -> dict[str, Any]:
    """Names for plain transformers' statements."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.float32 if job.row in SUMS else getattr(torch, job.dtype)

    def load(place: int) -> Any:
        return AutoModelForCausalLM.from_pretrained(job.folders[place], dtype=dtype).to(job.device).eval()

    def encode(texts: list[str]) -> Any:
        return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(job.device)

    def patch(batch: Any) -> None:
        for layer in model.model.layers:
            hook = layer.register_forward_hook(lambda module, ins, out: last_zero(out))
            model(**batch, logits_to_keep=1)
            hook.remove()

    def last_zero(out: torch.Tensor) -> torch.Tensor:  # any other value costs the same
        return functional.pad(out[:, :-1], (0, 0, 0, 1))

    def search() -> None:
        target = functional.normalize(model.lm_head.weight[job.stop].float().mean(0), dim=0)
        for layer in model.model.layers:
            (functional.normalize(layer.mlp.down_proj.weight.float(), dim=0).T @ target).abs().topk(10)

    if job.row == "load":
        return {"load": load}
    tokenizer = AutoTokenizer.from_pretrained(job.folders[job.writes], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = load(job.writes)
    both = [dict(one.named_parameters()) for one in (model, load(1))] if job.row == "weights" else ({}, {})
    matrices = [(own, both[1][name]) for name, own in both[0].items() if ".layers." in name and own.ndim == 2]
    settings = {"max_new_tokens": MAX_NEW, "min_new_tokens": MAX_NEW * bool(job.n), "do_sample": False}
    settings["eos_token_id"] = job.stop
    return locals()


def _ours(job: Any) -> dict[str, Any]:
    """Names for this study's statements."""
    from transformers import MinLengthLogitsProcessor

    from helpers import generation, patching, readouts, steering, weights
    from helpers.pairs import Pair

    load = partial(Pair.of, *job.folders, name=job.pair, device=job.device, dtype=job.dtype)
    if job.row == "load":
        return {"load": load}
    pair, ids = load(), job.tokens
    if job.row in SUMS:
        pair.float()
    m = pair.distilled if job.writes else pair.base
    aim = readouts.stop_odds(m)
    source = readouts.activations(m, job.prompts) if job.row in ("exact", "attribution_patching") else None
    nodes = [patching.Node("stream", point + 1) for point in range(m.n_layers)]
    write = partial(generation.complete, m, job.prompts, max_new_tokens=MAX_NEW)
    edit = weights.NeuronEdit([(k % m.n_layers, k) for k in range(50)], factor=2.0)
    scaled = weights.with_neurons(m, edit) if job.row == "generate_scaled" else None
    vector = {int(0.6 * m.n_layers): torch.ones(m.config.hidden_size)}
    if job.row == "generate_vector":
        change = steering.steered(m, [steering.Steering("v", vector, 1.0)] * len(job.prompts))
    processors = (MinLengthLogitsProcessor(10**6, list(m.groups.stop), device=job.device),) * bool(job.n)
    return locals()


def _transformer_lens(job: Any) -> dict[str, Any]:
    """TransformerLens 4, with the weights unprocessed."""
    from transformer_lens.model_bridge import TransformerBridge

    names = SimpleNamespace(**_plain(job))
    how = {"hf_model": names.model, "tokenizer": names.tokenizer, "device": job.device}
    bridge = TransformerBridge.boot_transformers(job.folders[0], **how)
    points = [f"blocks.{k}.hook_resid_post" for k in range(names.model.config.num_hidden_layers)]

    def lens(texts: list[str]) -> None:
        given = names.encode(texts)
        reads = {"names_filter": lambda name: "hook_resid_post" in name or name.endswith("hook_out")}
        _, cache = bridge.run_with_cache(given["input_ids"], attention_mask=given["attention_mask"], **reads)
        streams = torch.stack([cache[point][:, -1] for point in points], 1)
        names.model.model.norm(streams) @ names.model.lm_head.weight[job.tokens].T

    def exact(texts: list[str]) -> None:
        for point in points:
            hooks = [(point, lambda value, hook: names.last_zero(value))]
            bridge.run_with_hooks(names.encode(texts)["input_ids"], fwd_hooks=hooks)

    return {"run": {"lens": lens, "exact": exact}[job.row]}


def _nnterp(job: Any) -> dict[str, Any]:
    """nnterp, on the older nnsight that it needs: the lens."""
    from nnterp import StandardizedTransformer

    names = SimpleNamespace(**_plain(job))
    model, head = StandardizedTransformer(names.model, tokenizer=names.tokenizer), names.model.lm_head.weight

    def run(texts: list[str]) -> None:
        with model.trace(texts) as tracer:
            streams = [model.layers_output[k][:, -1] for k in range(model.num_layers)]
            logits = (model.ln_final(torch.stack(streams, 1)) @ head[job.tokens].T).save()
            tracer.stop()
        logits.float()

    return {"run": run}


LIBRARIES = {FLOOR: _plain, OURS: _ours, "transformer_lens": _transformer_lens, "nnterp": _nnterp}
if __name__ == "__main__":
    work(*sys.argv[1:])
