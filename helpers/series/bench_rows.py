# SPDX-License-Identifier: MIT
"""One piece of the study's work in one library, timed on request: `python bench_rows.py LIBRARY ROW MODELS DEVICE CAP`.

It runs in whatever environment has that library, so it imports nothing of this project but for the library `helpers`.
MODELS is a folder with `base`, `distilled` and `prompts.json`; CAP is the GPU memory in GiB that it may use, 0 for all.
Every line on stdin runs the work once; the answer is one line of JSON: seconds, memory at the peak in MiB and how much
of it is extra, and what the work itself has to tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LAYER, N_NEURONS, MAX_NEW = 0.6, 50, 100


def main() -> None:
    """Prepare the work, then run it once for each line that arrives."""
    library, row, folder, device, cap = sys.argv[1:6]
    if float(cap):
        whole = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(cap) / whole))
    given = json.loads((Path(folder) / "prompts.json").read_text())
    work = globals()[library](row, Path(folder), given, device)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        before = _peak(device, reset=True)
        start = time.perf_counter()
        told = work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, peak = time.perf_counter() - start, _peak(device)
        answer = {"seconds": seconds, "mib": peak - before, "peak": peak}
        print(json.dumps(answer | (told if isinstance(told, dict) else {})), flush=True)


def _peak(device: str, *, reset: bool = False) -> float:
    """Memory in MiB: now (and the peak's mark set back), or the peak since then."""
    if device == "cuda":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        return torch.cuda.max_memory_allocated() / 2**20
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
        with contextlib.suppress(AttributeError):  # glibc has it; without it what the last run freed counts as in use
            ctypes.CDLL(None).malloc_trim(0)
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["VmRSS" if reset else "VmHWM"].split()[0]) / 1024


def plain(row: str, folder: Path, given: dict[str, Any], device: str) -> Callable[[], Any]:
    """The floor: plain transformers. Where a row needs intervention, the bare forward or `generate` that it wraps."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exact = ("attribute", "attribution_patching")  # these must add up, so they run in float32
    dtype = torch.float32 if row in exact else getattr(torch, given["dtype"])

    def load(role: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / role, dtype=dtype).to(device).eval()

    if row == "load":
        return lambda: (load("base"), load("distilled"))
    tokenizer = AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    writes = "generate" in row or row.startswith("decode")
    model, other = load("distilled" if writes else "base"), load("distilled") if row == "weights" else None
    prompts = given["rows"][row]

    def forward(prompts: list[str]) -> None:
        with torch.no_grad():
            for place in range(0, len(prompts), 64):
                batch = tokenizer(prompts[place : place + 64], return_tensors="pt", padding=True).to(device)
                model(**batch).logits[:, -1].log_softmax(-1)

    def generate() -> None:
        batch = tokenizer(prompts, return_tensors="pt", padding=True).to(device)
        least = MAX_NEW if row.startswith("decode") else 0
        how = {"max_new_tokens": MAX_NEW, "min_new_tokens": least, "do_sample": False, "eos_token_id": given["stop"]}
        model.generate(**batch, **how)

    def patch() -> None:
        """Every layer patched in a Python loop of forward hooks, one run a layer."""
        for prompt in prompts:
            batch = tokenizer([prompt], return_tensors="pt").to(device)
            for layer in model.model.layers:
                hook = layer.register_forward_hook(lambda module, ins, out: _last_replaced(out))
                with torch.no_grad():
                    model(**batch, logits_to_keep=1)
                hook.remove()

    def weights() -> None:
        theirs = dict(other.named_parameters())
        pairs = ((own, theirs[name]) for name, own in model.named_parameters() if ".layers." in name and own.ndim == 2)
        for own, changed in pairs:
            torch.linalg.svdvals(changed.float() - own.float()).sum()

    def search() -> None:
        target = torch.nn.functional.normalize(model.lm_head.weight[given["stop"]].float().mean(0), dim=0)
        for layer in model.model.layers:
            (torch.nn.functional.normalize(layer.mlp.down_proj.weight.float(), dim=0).T @ target).abs().topk(10)

    works = {"exact": patch, "weights": weights, "search": search}
    return generate if writes else works.get(row, lambda: forward(prompts))


def _last_replaced(out: torch.Tensor) -> torch.Tensor:
    """A layer's output whose last position is zero: any other value costs the same."""
    changed = out.clone()
    changed[:, -1] = 0
    return changed


def helpers(row: str, folder: Path, given: dict[str, Any], device: str) -> Callable[[], Any]:
    """This project's own way."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from helpers import generation, patching, readouts, steering, weights
    from helpers.pairs import Pair, load_pair

    def load() -> Pair:
        if given["pair"] == "smol":
            return load_pair("smol", device=device)
        return Pair.of(folder / "base", folder / "distilled", name="bench", device=device, dtype=given["dtype"])

    if row == "load":
        return load
    pair = load()
    member, prompts, ids = (
        pair.distilled if "generate" in row or row.startswith("decode") else pair.base,
        given["rows"].get(row, []),
        given["tokens"],
    )
    plus, minus = ids[:1], ids[1:5]
    if row in ("attribute", "attribution_patching"):
        pair.float()
    layer = int(LAYER * member.n_layers)
    neurons = [(k % member.n_layers, k) for k in range(N_NEURONS)]
    vector = {layer: torch.ones(member.config.hidden_size)}
    changes: dict[str, Any] = {}
    if row == "generate_scaled":
        changes[row] = {"lm": weights.with_neurons(member, weights.NeuronEdit(neurons, factor=2.0))}
    if row == "generate_vector":
        change = steering.steered(member, [steering.Steering("v", vector, 1.0)] * len(prompts))
        changes[row] = {"lm": change.lm, "processors": change.processors, "on_batch": change.on_batch}
    source = readouts.activations(member, prompts) if row in ("exact", "attribution_patching") else None
    nodes = [patching.Node("stream", point + 1) for point in range(member.n_layers)]

    as_weights = {
        "generate_scaled_weights": lambda: weights.edited_weights(member, weights.NeuronEdit(neurons, factor=2.0)),
        "generate_vector_weights": lambda: weights.edited_weights(member, vectors=vector),
    }

    def generate() -> None:
        with as_weights.get(row, contextlib.nullcontext)():
            generation.complete(member, prompts, max_new_tokens=MAX_NEW, **changes.get(row, {}))

    works = {
        "lens": lambda: readouts.lens(member, prompts, ids, ranked=False),
        "lens_ranked": lambda: readouts.lens(member, prompts, ids),
        "readout": lambda: readouts.next_logprobs(member, prompts, ids),
        "attribute": lambda: readouts.attribute(member, prompts, plus, minus),
        "attribution_patching": lambda: patching.attribution_patching(member, prompts, source, plus, minus),
        "exact": lambda: patching.exact_patching(member, prompts, source, nodes, plus, minus),
        "weights": lambda: weights.compare_matrices(pair),
        "search": lambda: weights.closest(
            weights.value_vector_cosines(member, weights.writing_direction(member, given["stop"])), 10
        ),
    }
    if row.startswith("lens:"):  # growth
        return works["lens"]
    if row.startswith("decode"):
        from transformers import MinLengthLogitsProcessor

        goes_on = (MinLengthLogitsProcessor(10**6, list(member.groups.stop), device=device),)
        moved = {"bytes": _bytes_of_steps(member, prompts), "bandwidth": _bandwidth(device)}

        def decode() -> dict[str, float]:
            generation.complete(member, prompts, max_new_tokens=MAX_NEW, processors=goes_on)
            return moved

        return decode
    return works.get(row, generate)


def _bytes_of_steps(member: Any, prompts: list[str]) -> float:
    """Bytes that MAX_NEW decoding steps must read: every weight but the input embedding, once a batch, and the keys
    and values."""
    from helpers.generation import BATCH

    config, head = member.config, member.unembedding
    weights = sum(weight.numel() for weight in member.model.model.layers.parameters()) + head.numel()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    lengths = [len(ids) for ids in member.tokenizer(prompts, add_special_tokens=False).input_ids]
    tokens, batches = sum(lengths) + len(prompts) * MAX_NEW / 2, -(-len(prompts) // BATCH[member.device.type])
    return MAX_NEW * (batches * weights + a_token * tokens) * head.element_size()


def _bandwidth(device: str) -> float:
    """Bytes a second that a large copy reads and writes here."""
    source, seconds = torch.randn(2**27, device=device), []
    target = torch.empty_like(source)
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / sorted(seconds)[5]


def transformer_lens(row: str, folder: Path, given: dict[str, Any], device: str) -> Callable[[], Any]:
    """TransformerLens 4, with the weights unprocessed."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
    dtype = getattr(torch, given["dtype"])
    loaded = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype).to(device).eval()
    model = TransformerBridge.boot_transformers(
        str(folder / "base"), hf_model=loaded, tokenizer=tokenizer, device=device
    )
    prompts, ids = given["rows"][row], given["tokens"]
    head = loaded.lm_head.weight

    def batch(prompts: list[str]) -> Any:
        return tokenizer(prompts, return_tensors="pt", padding=True).to(device)

    def lens() -> None:
        given = batch(prompts)
        with torch.no_grad():
            _, cache = model.run_with_cache(
                given["input_ids"],
                attention_mask=given["attention_mask"],
                names_filter=lambda n: "hook_resid_post" in n or n.endswith("hook_out"),
            )
            layers = [cache[f"blocks.{k}.hook_resid_post"][:, -1] for k in range(loaded.config.num_hidden_layers)]
            loaded.model.norm(torch.stack(layers, 1)) @ head[ids].T

    def readout() -> None:
        with torch.no_grad():
            for place in range(0, len(prompts), 64):
                given = batch(prompts[place : place + 64])
                model(given["input_ids"], attention_mask=given["attention_mask"])[:, -1].log_softmax(-1)

    def exact() -> None:
        def patch(value: torch.Tensor, hook: Any) -> torch.Tensor:
            value[:, -1] = 0
            return value

        for prompt in prompts:
            tokens = batch([prompt])["input_ids"]
            for k in range(loaded.config.num_hidden_layers):
                with torch.no_grad():
                    model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{k}.hook_resid_post", patch)])

    works = {"lens": lens, "readout": readout, "exact": exact}
    if row not in works:
        raise SystemExit(f"transformer_lens has no {row}")
    return works[row]


def nnterp(row: str, folder: Path, given: dict[str, Any], device: str) -> Callable[[], Any]:
    """nnterp on the older nnsight that it needs."""
    from nnterp import StandardizedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    loaded = (
        AutoModelForCausalLM.from_pretrained(folder / "base", dtype=getattr(torch, given["dtype"])).to(device).eval()
    )
    model = StandardizedTransformer(loaded, tokenizer=tokenizer)
    prompts, ids = given["rows"][row], given["tokens"]
    head = loaded.lm_head.weight

    def lens() -> None:
        with torch.no_grad():
            with model.trace(prompts) as tracer:
                streams = [model.layers_output[k][:, -1] for k in range(model.num_layers)]
                logits = (model.ln_final(torch.stack(streams, 1)) @ head[ids].T).save()
                tracer.stop()
            logits.float()

    def readout() -> None:
        for place in range(0, len(prompts), 64):
            with torch.no_grad():
                with model.trace(prompts[place : place + 64]):
                    logits = model.logits[:, -1].save()
                logits.log_softmax(-1)

    works = {"lens": lens, "readout": readout}
    if row not in works:
        raise SystemExit(f"nnterp has no {row}")
    return works[row]


if __name__ == "__main__":
    main()
