# SPDX-License-Identifier: MIT
"""How long each piece of the study's work takes, beside plain transformers and other libraries.

Each row is a statement that torch.utils.benchmark times, in a process in which one library and plain transformers take
turns. Another library's environment needs only what is imported at the top.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Compare, Timer

from helpers.checks import check_choice
from helpers.store import PACKAGES, ROOT, UserError, read_json, write_text

REPEATS, GROWTH, BATCHES, MAX_NEW = 5, (8, 32, 128, 512), (32, 128, 512), 100
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
    "attribute": (64, "direct attribution of all heads, 64 prompts", READ, "patching.attribute(m, prompts, *aims)"),
    "attribution_patching": (16, "attribution patching, all heads and MLPs, 16 prompts", READ,
                             "patching.attribution_patching(m, prompts, source, *aims)"),
    "exact": (4, "exact patching of all layers, 4 prompts", PATCH,
              "patching.exact_patching(m, prompts, source, nodes, *aims)"),
    "generate": (32, "32 prompts x 100 tokens", WRITE, "write(change=generation.Change(processors=processors))"),
    "generate_scaled": (32, "32 prompts x 100 tokens with 50 scaled neurons", WRITE, "write(lm=scaled)"),
    "generate_vector": (32, "32 prompts x 100 tokens with a vector at every step", WRITE, STEERED),
    "weights": (0, "weight difference of the pair, singular values", SVD, "weights.compare_matrices(pair)"),
    "search": (0, "value-vector search, all layers", "search()", OURS_SEARCH),
    "load": (0, "loading the pair", "load(0), load(1)", "load()"),
}  # fmt: skip
SUMS = ("attribute", "attribution_patching")  # they must add up, so they run in float32
FLOOR, OURS = "plain", "helpers"
TITLES = {OURS: "ours", "transformer_lens": "TransformerLens 4", "nnterp": "nnterp"}
HAS = {"transformer_lens": ("lens", "exact"), "nnterp": ("lens",)}
QWEN = dict(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
QWEN |= dict(intermediate_size=8960, vocab_size=151_936, max_position_embeddings=4096)  # Qwen2.5-Math-1.5B's config


def bench(
    *,
    name: str,
    others: dict[str, str] | None = None,
    shapes: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    rows: list[str] | None = None,
    cap: float = 0.0,
    folder: Path = ROOT / "data" / "bench",
) -> Path:
    """Time every row, or some, in every library and write `data/bench/<name>.json` after each; return its path.
    `others`: library -> the Python of an environment that has it; `shapes`: random weights at the real pair's shapes
    instead of smol; `cap`: GiB of GPU memory that a process may use. Raises UserError for what is not there."""
    from helpers.embedded import base_folder, distilled_folder

    check_choice(dtype, "dtype", ("float32", "bfloat16", "float16"))
    check_choice(device, "device", ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    for row in rows or []:
        check_choice(row, "row", (*ROWS, "growth", "decoding"))
    for library, python in (others or {}).items():
        if not shutil.which(python):
            raise UserError(f"no Python at {python}: give the one of an environment that has {library}")
    path, models = folder / f"{name}.json", "random, r1-1.5b's shapes" if shapes else "smol"
    tried = {"models": models, "dtype": dtype} | ({"cap": cap} if cap else {})
    old = read_json(path) if rows and path.exists() else tried
    if any(old.get(key) != tried.get(key) for key in ("models", "dtype", "cap")):
        raise UserError(f"{path} was measured with other models, dtype or cap: give the file another --name")
    record = {"rows": [], "growth": {}, "decoding": {}, **old, "machine": _machine(device)}
    with tempfile.TemporaryDirectory() as place:
        both = random_pair(Path(place), dtype, device) if shapes else (base_folder(), distilled_folder())
        job = {"pair": "own" if shapes else "smol", "folders": [*map(str, both)], "dtype": dtype, "device": device}
        job |= {"cap": cap, **_read(*both)}
        for row in rows or [*ROWS, "growth", *["decoding"] * (device == "cuda")]:
            _measure(row, record, {OURS: sys.executable, **(others or {})}, job)
            write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def _machine(device: str) -> dict[str, Any]:
    named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    chip = torch.cuda.get_device_name() if device == "cuda" else named[1] if named else platform.machine()
    found = {"device": chip, "cores": os.cpu_count(), "python": platform.python_version()}
    return found | {"date": datetime.now(UTC).date().isoformat(), **{name: version(name) for name in PACKAGES}}


def random_pair(folder: Path, dtype: str, device: str) -> tuple[Path, Path]:
    """Two Qwen2 models with random weights at the real pair's shapes, a tied base and an untied distilled one, and a
    tokenizer of 700 tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from helpers.prompts import load_questions
    from helpers.tokens import REASONING, THINK, WAIT

    bpe, end = ByteLevelBPETokenizer(), "<|endoftext|>"
    texts = [word * 3 for word in (*WAIT, *REASONING)] * 50 + [question.text for question in load_questions(60)]
    bpe.train_from_iterator(texts, vocab_size=700, special_tokens=[end, *THINK], show_progress=False)
    template = "{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}Assistant: "
    marks = {"eos_token": end, "pad_token": end, "chat_template": template}
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
    asked = [thinker.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    tokens = [groups.stop[0], *groups.wait, *groups.reasoning][:15]
    return {"texts": texts, "asked": asked, "tokens": tokens, "stop": groups.stop}


def _measure(row: str, record: dict[str, Any], pythons: dict[str, str], job: dict[str, Any]) -> None:
    """Put what a row takes into the record, where it can be measured."""
    sizes = {"growth": [f"lens:{n}" for n in GROWTH], "decoding": [f"generate:{n}" for n in BATCHES]}.get(row, [])
    runs = {int(name.partition(":")[2]): _in_process(name, OURS, pythons[OURS], job) for name in sizes}
    if row == "growth":
        record[row] = {str(n): {key: one[OURS][key] for key in ("seconds", "mib")} for n, one in runs.items() if one}
    elif row == "decoding":
        record[row] = {str(n): _decoding(n, one, job) for n, one in runs.items() if one}
    else:
        found: dict[str, Any] = {}
        for name in (name for name in pythons if row in HAS.get(name, ROWS)):
            found = _in_process(row, name, pythons[name], job) | found  # plain transformers as our environment has it
        entries = {old["row"]: old for old in record["rows"]}
        entries |= {row: {"row": row, "what": ROWS[row][1], "libraries": found}} if OURS in found else {}
        record["rows"] = [entries[known] for known in ROWS if known in entries]


def _decoding(n: int, runs: dict[str, dict[str, Any]], job: dict[str, Any]) -> dict[str, float]:
    """Tokens a second by library, and the share of our time in which a copy would move the bytes that MAX_NEW steps
    must read: every weight but the input embedding, once a batch, and the keys and values."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from helpers.generation import BATCH

    source = torch.randn(2**27, device=job["device"])
    copy = Timer("to.copy_(source)", globals={"to": torch.empty_like(source), "source": source}).blocked_autorange()
    speed, tokenizer = 2 * source.nbytes / copy.median, AutoTokenizer.from_pretrained(job["folders"][1])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job["folders"][1]))
    layers, prompts = model.model.layers, (job["asked"] * n)[:n]
    weights = sum(weight.numel() for weight in layers.parameters()) + model.lm_head.weight.numel()
    tokens = sum(len(tokenizer(prompt).input_ids) for prompt in prompts) + n * MAX_NEW / 2
    keys = 2 * tokens * sum(layer.self_attn.k_proj.out_features for layer in layers)
    read = MAX_NEW * (-(-n // BATCH[job["device"]]) * weights + keys) * getattr(torch, job["dtype"]).itemsize
    found = {name: round(n * MAX_NEW / one["seconds"], 1) for name, one in runs.items()}
    share = round(read / speed / runs[OURS]["seconds"], 4)
    return found | {"share": share, "gb_a_second": round(speed / 1e9, 1), "peak": runs[OURS]["peak"]}


def table(path: Path) -> str:
    """A benchmark's file as Markdown tables."""
    import jinja2

    record = {"cap": 0, "decoding": {}, **read_json(path)}
    had = {name for entry in record["rows"] for name in entry["libraries"]}
    others = {name: title for name, title in TITLES.items() if name in had}
    template = Path(__file__).with_name("bench.md.j2").read_text(encoding="utf-8")
    made = jinja2.Template(template, trim_blocks=True, lstrip_blocks=True)
    return made.render(**record, others=others, max_new=MAX_NEW, tuple=tuple).rstrip("\n")


def growth_figure(path: Path) -> None:
    """Draw time and extra memory of the lens by number of prompts, as measured in a benchmark's file."""
    from helpers import figures

    record = read_json(path)
    (least, first), *_, (most, last) = record["growth"].items()
    drawn = {"time": ("seconds", figures.BASE), "extra memory": ("mib", figures.DISTILLED)}
    of = {name: ([one[key] / first[key] for one in record["growth"].values()], c) for name, (key, c) in drawn.items()}
    of["prompts"] = [int(n) / int(least) for n in record["growth"]], figures.CONTROL
    grown = f"{of['time'][0][-1]:.0f} times the time, {of['extra memory'][0][-1]:.0f} times the extra memory"
    title = f"Lens of {most} prompts against {least}: {grown} ({last['mib']:.0f} MiB)"
    how = {"xlabel": "prompts", "ylabel": f"times that of {least} prompts", "ticks": [*record["growth"]]}
    fig = figures.lines({"": of}, range(len(record["growth"])), title=title, log_rows=(0,), **how)
    note, place = f"{record['machine']['device']}, {record['dtype']}", ROOT / "figures" / "bench"
    figures.save_figure(fig, "lens_growth", pair=record["models"], alt=title, note=note, folder=place)


def _in_process(row: str, library: str, python: str, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A row of one library and of plain transformers; nothing where it fails, which is said."""
    quiet = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [python, "-m", "helpers.commands.bench", library, row]
    how = {"env": os.environ | quiet, "input": json.dumps(job), "text": True}
    done = subprocess.run(command, capture_output=True, **how)
    *shown, last = [*(done.stderr if done.returncode else done.stdout).strip().splitlines()] or ["it said nothing"]
    print(f"  {row}: no {library} ({last})" if done.returncode else "\n".join(shown), flush=True)
    return {} if done.returncode else json.loads(last)


def work(library: str, row: str) -> None:
    """What such a process does: REPEATS runs of both, in turn, each after one to warm up."""
    job, (name, _, n) = SimpleNamespace(**json.load(sys.stdin)), row.partition(":")
    job.row, job.writes, job.whole = name, name.startswith("generate"), bool(n)
    wanted, size = int(n or ROWS[name][0]), 1 if name == "exact" else 64
    job.prompts = ((job.asked if job.writes else job.texts) * wanted)[:wanted]
    job.batches = [job.prompts[start : start + size] for start in range(0, wanted, size)]
    if job.cap:
        whole = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, job.cap / whole))
    timers, held, how = {}, {}, {"num_threads": torch.get_num_threads(), "label": ROWS[name][1], "sub_label": row}
    for one in [library] if job.cap or (name == "lens" and n) else [FLOOR, library]:
        before, names = _peak_mib(job.device), {**vars(job), **LIBRARIES[one](job)}
        statement = {FLOOR: ROWS[name][2], OURS: ROWS[name][3]}.get(one, "for texts in batches: run(texts)")
        timers[one] = Timer(statement, f"torch.set_grad_enabled({one == OURS})", globals=names, description=one, **how)
        held[one] = _peak_mib(job.device) - before
    runs, extra = ({one: [] for one in timers} for _ in range(2))
    for one in list(timers) * REPEATS:
        before = _peak_mib(job.device)
        runs[one].append(timers[one].blocked_autorange(min_run_time=0))
        extra[one].append(_peak_mib(job.device, reset=False) - before)
    print(Compare([run for some in runs.values() for run in some]))
    found, floor = {}, np.array([run.median for run in runs.get(FLOOR, runs[library])])
    for one, some in runs.items():
        seconds, mib = np.array([run.median for run in some]), float(np.median(extra[one]))
        ratio = [round(float(of(seconds / floor)), 3) for of in (np.median, np.min, np.max)]
        found[one] = {"seconds": round(float(np.median(seconds)), 5), "ratio": ratio}
        found[one] |= {"mib": round(mib, 1), "peak": round(mib + held[one], 1)}
    print(json.dumps(found))


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
        return torch.nn.functional.pad(out[:, :-1], (0, 0, 0, 1))

    def search() -> None:
        unit = torch.nn.functional.normalize
        target = unit(model.lm_head.weight[job.stop].float().mean(0), dim=0)
        for layer in model.model.layers:
            (unit(layer.mlp.down_proj.weight.float(), dim=0).T @ target).abs().topk(10)

    if job.row == "load":
        return {"load": load}
    tokenizer = AutoTokenizer.from_pretrained(job.folders[job.writes], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = load(job.writes)
    named = dict(load(1).named_parameters()) if job.row == "weights" else {}
    matrices = [
        (own, named[n]) for n, own in model.named_parameters() if n in named and ".layers." in n and own.ndim == 2
    ]
    settings = {"max_new_tokens": MAX_NEW, "min_new_tokens": MAX_NEW * job.whole, "do_sample": False}
    return {**locals(), "settings": {**settings, "eos_token_id": job.stop}}


def _ours(job: Any) -> dict[str, Any]:
    """Names for this study's statements."""
    from transformers import MinLengthLogitsProcessor

    from helpers import generation, patching, readouts, steering, weights
    from helpers.pairs import Pair

    load = partial(Pair.of, *job.folders, name=job.pair, device=job.device, dtype=job.dtype)
    if job.row == "load":
        return {"load": load}
    pair, ids, aims = load(), job.tokens, (job.tokens[:1], job.tokens[1:5])
    if job.row in SUMS:
        pair.float()
    m = pair.distilled if job.writes else pair.base
    source = readouts.activations(m, job.prompts) if job.row in ("exact", "attribution_patching") else None
    nodes = [patching.Node("stream", point + 1) for point in range(m.n_layers)]
    write = partial(generation.complete, m, job.prompts, max_new_tokens=MAX_NEW)
    edit = weights.NeuronEdit([(k % m.n_layers, k) for k in range(50)], factor=2.0)
    scaled = weights.with_neurons(m, edit) if job.row == "generate_scaled" else None
    vector = {int(0.6 * m.n_layers): torch.ones(m.config.hidden_size)}
    if job.row == "generate_vector":
        change = steering.steered(m, [steering.Steering("v", vector, 1.0)] * len(job.prompts))
    processors = (MinLengthLogitsProcessor(10**6, list(m.groups.stop), device=job.device),) * job.whole
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
