# SPDX-License-Identifier: MIT
"""`python -m helpers`: the commands that act on the whole series."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from helpers.store import ROOT, Stopped, StudyError, UserError, write_text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Why doesn't R1 stop? Commands of the study.")
PairName = Annotated[str, typer.Option("--pair", help="smol, r1-1.5b, r1-7b, ..., BASE,DISTILLED or auto")]
Traces = Annotated[list[str], typer.Argument(help="JSONL files of traces; distill: or data sets of the hub")]
Out = Annotated[Path | None, typer.Option(help="folder to write to, instead of the one in data/<pair>")]
Controls = Literal["whole", "answers", "no-waits", "shuffled", "blank", "joined"]
TrainedOn = Annotated[Controls, typer.Option(help="what of the traces; all but whole are controls")]
OtherPython = Annotated[Path | None, typer.Option(exists=True, help="Python of an environment that has it")]


@app.command()
def run(
    pair: PairName = "smol",
    quick: Annotated[bool, typer.Option("--quick", help="few prompts, in a scratch copy")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="recompute what is stored")] = False,
    only: Annotated[str | None, typer.Option(help="one notebook, by the start of its name, e.g. 02")] = None,
    check: Annotated[bool, typer.Option("--check", help="in a scratch copy; compare with committed findings")] = False,
    verdicts: Annotated[bool, typer.Option("--verdicts", help="--check, on another machine: verdicts decide")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="commit the findings of --quick for later checks")] = False,
) -> None:
    """Execute every notebook in order, write outputs, figures and results, print the findings."""
    from helpers.commands import install, recheck
    from helpers.commands.run import find_notebooks, pairs_of
    from helpers.commands.run import run as run_series
    from helpers.findings import load_findings

    chosen, check = _chosen(pair), check or verdicts
    name, *others = pairs_of(find_notebooks(ROOT, only), chosen)
    if keep and (only or check or not quick):
        raise UserError("--keep goes with --quick alone: a full run writes its findings in place")
    if others and (keep or check):
        raise UserError(f"the notebooks name several pairs ({name}, {', '.join(others)}): set PAIR to one in all")
    expected = recheck.committed(name, quick=quick, only=only) if check else None
    folder = run_series(pair=chosen, quick=quick, fresh=fresh, only=only, scratch=check)
    if check and not recheck.compare(name, expected, folder, quick=quick, only=only, verdicts=verdicts):
        raise typer.Exit(1)
    if keep:
        print(f"kept: {recheck.keep(name, folder)}")
    if quick or only or check:
        return
    for one in (name, *others):
        path = ROOT / "data" / one / "environment.txt"
        if fresh or not path.exists():  # else it tells what stored results were made with
            write_text(path, install.environment())
    if load_findings(name) and not others:
        report(name)


def _chosen(pair: str) -> str | tuple[str, ...]:
    """What --pair names, auto decided."""
    from helpers.pairs import choose_pair, parse_pair

    named = parse_pair(pair)
    return choose_pair()[0] if named == "auto" else named


@app.command()
def report(
    pair: PairName = "smol",
    to: Annotated[Literal["html", "docx", "all"], typer.Option()] = "all",
    out: Out = None,
) -> None:
    """Write the whole series as one page and one .docx; renew the README's summary and table."""
    from helpers.commands.report import report as write
    from helpers.commands.summary import write_readme
    from helpers.pairs import pair_name

    name = pair if pair == "own" else pair_name(_chosen(pair))
    for path in write(name, to=to, out=out):
        print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if name == "smol" and write_readme():
        print("README.md: summary and findings renewed")


@app.command()
def publish(
    repository: Annotated[str, typer.Argument(help="OWNER/REPO on GitHub")],
    branch: Annotated[str, typer.Option(help="branch that the badges open")] = "main",
) -> None:
    """Stamp Colab badges and the set-up cell's address and commit into notebooks and README."""
    from helpers.commands.publish import publish as stamp

    print(f"stamped {repository} at {stamp(repository, branch=branch)[:10]}; push that commit, then commit the stamps")


@app.command()
def check(pair: PairName = "auto") -> None:
    """Load a pair and check what the study takes for granted."""
    from rich.console import Console
    from rich.table import Table

    from helpers.pairs import load_pair
    from helpers.preflight import preflight

    loaded = load_pair(pair)
    frame = preflight(loaded)
    grid = Table(*frame.columns, title=loaded.describe())
    for row in frame.assign(ok=frame["ok"].map({True: "pass", False: "FAIL"})).itertuples(index=False):
        grid.add_row(*row)
    Console().print(grid)
    if failed := ", ".join(frame.loc[~frame["ok"], "check"]):
        raise UserError(f"checks failed: {failed}; the table says what each spoils")


@app.command()
def distill(
    traces: Traces,
    out: Out = None,
    practice: Annotated[Path | None, typer.Option(help="questions for rejection sampling")] = None,
    pair: Annotated[Literal["smol", "qwen-1.5b"], typer.Option(help="embedded pair")] = "smol",
    seed: Annotated[int, typer.Option(help="of adapter and order")] = 0,
    data: TrainedOn = "whole",
) -> None:
    """Train the distilled half of an embedded pair from reasoning traces (a GPU makes it minutes)."""
    from helpers.making.distill import distill as train_adapter

    written = train_adapter(traces, out, practice, pair=pair, seed=seed, data=data)
    print(f"adapter written to {written}; now `python -m helpers card` measures it")


@app.command()
def trainings(
    traces: Traces,
    out: Annotated[Path, typer.Option(help="folder of the adapters")],
    pair: Annotated[Literal["smol", "qwen-1.5b"], typer.Option(help="embedded pair")] = "smol",
    data: Annotated[list[str], typer.Option(help="what of them: whole, answers, no-waits, ...; one or more")] = (
        "whole",
    ),
    seed: Annotated[list[int], typer.Option(help="one or more")] = (0,),
    rank: Annotated[list[int], typer.Option(help="ranks to cut the pair's own change to")] = (),
) -> None:
    """Train controls and other seeds, and measure the study's effects on each: is it the reasoning, or any training?"""
    from helpers.making.trainings import compare

    print(f"written to {compare(traces, pair, data, seed, rank, out)}")


@app.command()
def autoencoder(
    traces: Traces,
    out: Out = None,
    layer: Annotated[list[int] | None, typer.Option(help="layers whose output is read; default 18")] = None,
) -> None:
    """Train a sparse autoencoder on the distilled half of smol (needs eai-sparsify; a GPU makes it minutes)."""
    from helpers.making.autoencoder import train_autoencoders

    folder = out or ROOT / "data" / "smol" / "autoencoder"
    print(f"autoencoder written to {train_autoencoders(traces, folder, layers=layer or [18])}")


@app.command()
def bench(
    name: Annotated[str, typer.Option(help="the file's name: data/bench/NAME.json")] = "cpu",
    device: Annotated[Literal["cpu", "cuda"], typer.Option()] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option()] = "float32",
    shapes: Annotated[bool, typer.Option(help="random weights at the real pair's shapes instead of smol")] = False,
    row: Annotated[list[str] | None, typer.Option(help="only these rows")] = None,
    cap: Annotated[float, typer.Option(help="GiB of GPU memory that a process may use; 0: all")] = 0.0,
    transformer_lens: OtherPython = None,
    nnterp: OtherPython = None,
) -> None:
    """Time the study's pieces beside plain transformers and other libraries, taking turns, a process each."""
    from helpers.commands import bench as benchmark

    pythons = {"transformer_lens": transformer_lens, "nnterp": nnterp}
    others = {library: str(python) for library, python in pythons.items() if python}
    path = benchmark.bench(name, others, shapes=shapes, dtype=dtype, device=device, rows=row, cap=cap)
    if name == "cpu" and not row:
        benchmark.growth_figure(path)
    print(benchmark.table(path))


@app.command()
def published(
    folder: Annotated[Path, typer.Argument(help="where the published texts lie: data/published/README.md")],
    keep: Annotated[bool, typer.Option("--keep", help="commit these counts")] = False,
) -> None:
    """Count the texts that others published of the real pair; compare with the committed counts."""
    from helpers.commands.published import published as count

    if not count(folder, keep=keep):
        raise typer.Exit(1)


@app.command()
def card() -> None:
    """Measure the embedded pair on the confirm prompts and write its model card."""
    from helpers.making.card import write_card

    print(f"card written to {write_card()}")


def main() -> None:
    """Run a command; what a user can cause ends in one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack what a model writes
    try:
        app()
    except StudyError as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it leaves already
        print(error if isinstance(error, Stopped) else f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
