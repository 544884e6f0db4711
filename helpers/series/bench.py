# SPDX-License-Identifier: MIT
"""How long each piece of the study's work takes, beside plain transformers and other libraries."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from helpers import figures
from helpers.checks import check_choice, check_finite
from helpers.prompts import JUST, load_questions
from helpers.series.bench_rows import MAX_NEW
from helpers.stats import Interval
from helpers.store import ROOT, UserError, read_json, write_text

WORKER = Path(__file__).with_name("bench_rows.py")
REPEATS, GROWTH, BATCHES = 5, (8, 32, 128, 512), (32, 128, 512)
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
FLOOR, OURS = "plain", "helpers"


def bench(
    *,
    name: str,
    others: Mapping[str, str] | None = None,
    models: Path | None = None,
    shapes: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    rows: list[str] | None = None,
    cap: float = 0.0,
    folder: Path = ROOT / "data" / "bench",
) -> Path:
    """Time every row in every library, a process each, taking turns; write `data/bench/<name>.json` after each (with
    `rows`, into what is there), return its path.

    `others`: library -> the Python of an environment that has it. `models`: a folder with `base` and `distilled`
    instead of smol; `shapes`: random weights at the real pair's shapes; `cap`: GiB of GPU memory that a process may
    use. Raises UserError for an unknown row.
    """
    check_choice(dtype, "dtype", ("float32", "bfloat16", "float16"))
    check_choice(device, "device", ("cpu", "cuda"))
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{name!r} is no file's name: give letters, digits and dashes")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is not here: use --device cpu")
    for row in rows or []:
        check_choice(row, "row", (*ROWS, *MORE))
    check_finite(cap, "cap")
    if cap < 0 or (cap and device != "cuda"):
        raise UserError(f"cap {cap}: it is GiB of a GPU's memory, with device cuda")
    for library, python in (others or {}).items():
        if not shutil.which(python):
            raise UserError(f"no Python at {python}: give the one of an environment that has {library}")
    if shapes:
        with tempfile.TemporaryDirectory() as made:
            random = random_pair(Path(made), dtype, device)
            how = {"dtype": dtype, "device": device, "rows": rows, "cap": cap, "folder": folder}
            return bench(name=name, others=others, models=random, **how)
    console, path = Console(), folder / f"{name}.json"
    libraries = dict.fromkeys((OURS,) if cap else (FLOOR, OURS), sys.executable) | dict(others or {})
    record = {"machine": _machine(device), "models": "random, r1-1.5b's shapes" if models else "smol", "dtype": dtype}
    record |= {"cap": cap} if cap else {}
    old = _record(path) if rows and path.exists() else {**record, "rows": []}
    if same := [key for key in ("models", "dtype", "cap") if old.get(key) != record.get(key)]:
        raise UserError(f"{path} was measured with another {same[0]}: give the file another --name")
    found, more = {entry["row"]: entry for entry in old["rows"]}, {name: old.get(name, {}) for name in MORE}
    with _prepared(models, dtype) as place:
        for row in rows or [*ROWS, *MORE]:
            try:
                if row in MORE:
                    more[row] = MORE[row](place, device, cap, console)
                else:
                    runs = _take_turns(row, libraries, place, device, cap, console)
                    found[row] = {"row": row, "what": ROWS[row][1], **_summary(runs)}
                    console.print(_line(found[row]), highlight=False)
            except UserError as error:  # such as no memory
                console.print(f"  {row} is left out: {error}", highlight=False)
            kept = [found[known] for known in ROWS if known in found]
            write_text(path, json.dumps(record | {"rows": kept, **more}, indent=1) + "\n")
    return path


@contextlib.contextmanager
def _prepared(models: Path | None, dtype: str) -> Iterator[Path]:
    """A folder with both models and the rows' prompts, for workers in any environment."""
    from transformers import AutoTokenizer

    from helpers import embedded
    from helpers.tokens import token_groups

    base, distilled = (
        (models / "base", models / "distilled") if models else (embedded.base_folder(), embedded.distilled_folder())
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    groups = token_groups(tokenizer, [tokenizer.eos_token_id])
    tokens = [groups.stop[0], *groups.wait, *groups.reasoning][:15]
    texts = [f"{question.text} {JUST} The answer is {question.answers[0]}." for question in load_questions()]
    texts = [texts[k % len(texts)] for k in range(max(GROWTH))]
    sizes = {row: n for row, (n, _) in ROWS.items()} | {f"lens:{n}": n for n in GROWTH}
    given = {"pair": "own" if models else "smol", "dtype": dtype, "tokens": tokens, "stop": list(groups.stop)}
    with tempfile.TemporaryDirectory() as folder:
        for role, source in (("base", base), ("distilled", distilled)):
            (Path(folder) / role).symlink_to(Path(source).resolve())
        given["rows"] = {row: texts[:n] for row, n in sizes.items()}
        thinker = AutoTokenizer.from_pretrained(distilled)
        chats = [[{"role": "user", "content": question.text}] for question in load_questions(ROWS["generate"][0])]
        asked = [thinker.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
        given["rows"] |= {row: asked for row in ROWS if "generate" in row}
        given["rows"] |= {f"decode:{n}": [asked[k % len(asked)] for k in range(n)] for n in BATCHES}
        (Path(folder) / "prompts.json").write_text(json.dumps(given))
        yield Path(folder)


def _take_turns(
    row: str, libraries: Mapping[str, str], place: Path, device: str, cap: float, console: Console
) -> dict[str, list[dict[str, float]]]:
    """One warm-up and REPEATS runs of each library, one after the other in turn."""
    workers = {library: _Worker(library, python, row, place, device, cap) for library, python in libraries.items()}
    try:
        for library, worker in list(workers.items()):
            if not worker.ready():
                console.print(f"  {row}: no {library} ({worker.error()})", highlight=False)
                workers.pop(library).close()
        if OURS not in workers:
            raise UserError("the helpers could not begin")
        runs = {library: [worker.run() for _ in range(1)] for library, worker in workers.items()}
        for _ in range(REPEATS):
            for library, worker in workers.items():
                runs[library].append(worker.run())
        return {library: measured[1:] for library, measured in runs.items()}
    finally:
        for worker in workers.values():
            worker.close()


class _Worker:
    """A process that runs one row of one library each time it is asked."""

    def __init__(self, library: str, python: str, row: str, place: Path, device: str, cap: float) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open while the process lives)
        command = [python, str(WORKER), library, row, str(place), device, str(cap)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "R1_SAY": os.devnull, "TQDM_DISABLE": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.log, text=True, env=environment)

    def ready(self) -> bool:
        return self._answer() is not None

    def run(self) -> dict[str, Any]:
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        if (answer := self._answer()) is None:
            raise UserError(f"a benchmark's process ended: {self.error()}")
        return answer

    def _answer(self) -> dict[str, Any] | None:
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                if isinstance(found := json.loads(line), dict):
                    return found
        return None

    def error(self) -> str:
        self.log.seek(0)
        return (self.log.read().strip().splitlines() or ["it said nothing"])[-1]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _summary(runs: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians by library; ratios to the floor, run by run, as median, least and most."""
    floor = np.array([run["seconds"] for run in runs[FLOOR if FLOOR in runs else OURS]])
    found = {}
    for library, measured in runs.items():
        seconds = np.array([run["seconds"] for run in measured])
        ratio = seconds / floor
        found[library] = {
            "seconds": round(float(np.median(seconds)), 5),
            "ratio": [round(float(value), 3) for value in (np.median(ratio), ratio.min(), ratio.max())],
            **{key: round(float(np.median([run[key] for run in measured])), 1) for key in ("mib", "peak")},
        }
    return {"libraries": found}


def _growth(place: Path, device: str, cap: float, console: Console) -> dict[str, Any]:
    """Time and extra memory of the lens as prompts grow."""
    found: dict[str, Any] = {}
    for n in GROWTH:
        runs = _take_turns(f"lens:{n}", {OURS: sys.executable}, place, device, cap, console)[OURS]
        found[str(n)] = {key: round(float(np.median([run[key] for run in runs])), 3) for key in ("seconds", "mib")}
    return found


def _decoding(place: Path, device: str, cap: float, console: Console) -> dict[str, Any]:
    """Tokens a second of plain `generate` and of ours by batch, and the share of the time in which a copy would move
    the bytes that our steps must read."""
    found = {}
    for n in BATCHES:
        libraries = dict.fromkeys((OURS,) if cap else (FLOOR, OURS), sys.executable)
        both = _take_turns(f"decode:{n}", libraries, place, device, cap, console)
        seconds = {name: float(np.median([run["seconds"] for run in runs])) for name, runs in both.items()}
        moved = both[OURS][0]
        rates = {name: round(n * MAX_NEW / took, 1) for name, took in seconds.items()}
        rates |= {"share": round(moved["bytes"] / moved["bandwidth"] / seconds[OURS], 4)}
        rates |= {
            "gb_a_second": round(moved["bandwidth"] / 1e9, 1),
            "peak": round(max(run["peak"] for run in both[OURS]), 1),
        }
        found[str(n)] = rates
        console.print(f"  {n} prompts: {rates}", highlight=False)
    return found


MORE = {"growth": _growth, "decoding": _decoding}


def _machine(device: str) -> dict[str, Any]:
    packages = {name: version(name) for name in ("torch", "transformers", "nnsight")}
    chip = torch.cuda.get_device_name() if device == "cuda" else _processor()
    date = datetime.now(UTC).date().isoformat()
    return {"device": chip, "cores": os.cpu_count(), "python": platform.python_version(), "date": date, **packages}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _line(entry: Mapping[str, Any]) -> str:
    told = ", ".join(
        f"{name} {one['seconds'] * 1000:.0f} ms ({one['mib']:.0f} MiB)" for name, one in entry["libraries"].items()
    )
    return f"  {entry['what']}: {told}"


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
    packages = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "nnsight"))
    cap = f" of which a process may use {record['cap']:g} GiB" if "cap" in record else ""
    where = f"{machine['device']}{cap}, {record['models']} in {record['dtype']}, {packages}, {machine['date']}"
    lines = (_memory_lines(record) if cap else _ratio_lines(record)) if record["rows"] else []
    if decoding := record.get("decoding"):
        floored = all(FLOOR in one for one in decoding.values())
        titles = [*["plain `generate`"] * floored, "ours", "of what bandwidth allows", "GPU memory at the peak"]
        lines += ["", f"| decoding, tokens a second | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
        for n, one in decoding.items():
            share = f"{one['share']:.0%} of {one['gb_a_second']:,.0f} GB/s"
            cells = [*[f"{one[name]:,.0f}" for name in (FLOOR, OURS) if name in one], share]
            cells.append(f"{one['peak'] / 1024:.1f} GiB")
            lines.append(f"| {n} prompts at once, {MAX_NEW} tokens each | {' | '.join(cells)} |")
    return f"{where}:\n\n" + "\n".join(lines)


def _ratio_lines(record: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for entry in record["rows"] for name in entry["libraries"] if name != FLOOR))
    titles = {OURS: "ours", "transformer_lens": "TransformerLens 4", "nnterp": "nnterp"}
    lines = [
        f"| work | plain transformers | {' | '.join(titles.get(name, name) for name in names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for entry in record["rows"]:
        floor, cells = entry["libraries"][FLOOR], []
        for name in names:
            one = entry["libraries"].get(name)
            cells.append("{:.2f} ({:.2f} to {:.2f}), {:.0f} MiB".format(*one["ratio"], one["mib"]) if one else "")
        lines.append(
            f"| {entry['what']} | {floor['seconds'] * 1000:.0f} ms, {floor['mib']:.0f} MiB | {' | '.join(cells)} |"
        )
    return lines


def _memory_lines(record: Mapping[str, Any]) -> list[str]:
    ours = [(entry["what"], entry["libraries"][OURS]) for entry in record["rows"]]
    rows = [f"| {what} | {one['seconds'] * 1000:.0f} ms | {one['peak'] / 1024:.1f} GiB |" for what, one in ours]
    return ["| work | time | GPU memory at the peak, the model it reads included |", "|---|---|---|", *rows]


def growth_figure(path: Path) -> None:
    """Draw time and extra memory of the lens by number of prompts, as measured in a benchmark's file."""
    record = _record(path)
    growth = {int(n): one for n, one in record["growth"].items()}
    least, most = min(growth), max(growth)
    times = {key: [one[key] / max(growth[least][key], 1e-9) for one in growth.values()] for key in ("seconds", "mib")}
    shown = {"time": (times["seconds"], figures.BASE), "extra memory": (times["mib"], figures.DISTILLED)}
    shown |= {"prompts": ([n / least for n in growth], figures.CONTROL)}
    panels = {"": {name: ([Interval(v, v, v, 1) for v in values], colour) for name, (values, colour) in shown.items()}}
    grown = f"{times['seconds'][-1]:.0f} times the time, {times['mib'][-1]:.0f} times the extra memory"
    title = f"Lens of {most} prompts against {least}: {grown} ({growth[most]['mib']:.0f} MiB)"
    how = {"xlabel": "prompts", "ylabel": f"times that of {least} prompts", "ticks": list(growth), "log_rows": (0,)}
    fig = figures.lines(panels, range(len(growth)), title=title, **how)
    note = f"{record['machine']['device']}, {record['dtype']}"
    figures.save_figure(
        fig, "lens_growth", pair=record["models"], alt=title, note=note, folder=ROOT / "figures" / "bench"
    )


QWEN = dict(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
QWEN |= dict(intermediate_size=8960, vocab_size=151_936, max_position_embeddings=4096)  # Qwen2.5-Math-1.5B's config


def random_pair(folder: Path, dtype: str, device: str, **shape: int) -> Path:
    """Two Qwen2 models with random weights at the real pair's shapes: a tied base, an untied distilled one."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from helpers.tests.conftest import make_tokenizer

    for role in ("base", "distilled"):
        tokenizer = make_tokenizer(role)
        special = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        torch.manual_seed(role == "base")
        with torch.device(device):
            model = Qwen2ForCausalLM(Qwen2Config(**QWEN | shape, tie_word_embeddings=role == "base", **special))
        model.to(getattr(torch, dtype)).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder
