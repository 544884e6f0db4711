# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Which components decide to stop, and why does swapping one layer not work?
#
# **Claim.** Under test: attribution patching on the last token finds the components that decide; replacing layers step by step turns one model into the other; replacing a single layer does next to nothing. What holds on this pair by the older metric c is printed below the set-up, the verdict by the log-odds of stopping with each finding.
#
# **Evidence.** The first-order estimate beside exact patching, node by node (figure 2); layers taken one by one and one at a time, beside noise of the same singular values (figures 4 and 5); each model's stream in the other's layers (figure 7).
#
# **Caveat.** Patching tells what a component does in the place of another run's value, which no text may ever bring about; and components that stand in for each other look idle one by one. So single swaps stand beside all-but-one swaps. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them). **Writes** `data/<pair>/05_nodes.csv`, `data/<pair>/05_account.csv`, findings F15 and F16, figures `05_*`.

# %% jupyter={"source_hidden": true}
import pathlib, subprocess, sys

REPOSITORY = ""  # @param {type:"string"}
COMMIT = ""  # @param {type:"string"}
here = pathlib.Path.cwd()
root = next((p for p in (here, *here.parents) if (p / "helpers/pairs.py").exists()), here / "why-r1")
if not root.exists():  # the notebook was opened alone: fetch the rest
    subprocess.run(["git", "clone", "-q", REPOSITORY or sys.exit("fill in REPOSITORY"), root], check=True)
    subprocess.run(["git", "-C", root, "checkout", "-q", COMMIT or "HEAD"], check=True)
subprocess.run([sys.executable, root / "helpers/commands/install.py"], check=True)
sys.path.insert(0, str(root))

# %% tags=["parameters"]
PAIR = "auto"  # "smol", "r1-1.5b", ..., or ("base folder", "distilled folder")
N_PROMPTS = 240  # quick: 32; the first in a fixed random order; None: all
SEED = 0
RECOMPUTE = False
MAX_NEW_TOKENS = 400
MAX_ANSWER = 30  # the base's answer has at most this many tokens
N_COMBINED = 24  # quick: 6; combined prompts of each split
N_EXACT = 6  # quick: 2; prompts whose nodes are all patched one by one
N_SWAP = 12  # quick: 3; prompts read under each swap
N_TOP = 30  # nodes chosen by their estimate on explore
N_NODES = 60  # random nodes
N_STEPS = 6  # stages of the gradual replacement
N_NOISE = 3  # quick: 2; draws of noise in the weights
N_AFTER = 5  # tokens followed after the answer
SHOWN_TOKENS = 60  # new tokens of the shown hybrids

# %% jupyter={"source_hidden": true} tags=["claim"]
import contextlib, itertools

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.special import expit
from transformers import SuppressTokensLogitsProcessor

from helpers import explorers, figures, findings, patching, readouts, stats, weights
from helpers.generation import Change, complete, load_combined
from helpers.pairs import load_pair
from helpers.patching import Node, attribute, exact_patching, swapped
from helpers.prompts import ask, shuffle_words
from helpers.readouts import activations, next_distribution, stop_odds, top_tokens
from helpers.store import data_dir, kept, take, write_text

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F15", "F16"))

# %% [markdown]
# ## The prompts and the metric
#
# Combined prompts, plain form: question, "Just give the answer.", the base's own complete answer; the template form stands beside it where layers are swapped. What is *chosen* (nodes, layers) is chosen on `explore`, what is *told* is from `confirm`.

# %%
knobs = dict(n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER)
combined = load_combined(pair, **knobs, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
pair = pair.float()  # gradients and sums must add up
members = {member.role: member for member in pair.members}
n_layers, n_heads = pair.base.n_layers, pair.base.config.num_attention_heads
texts = {
    (role, split): combined[split].prompts(member, "plain")
    for role, member in members.items()
    for split in combined
}
n_confirm = len(texts["base", "confirm"])

# %% [markdown]
# The metric is the **log-odds of stopping**, $\log P(\text{stop}) - \log(1 - P(\text{stop}))$ at the last token, in nats, over all stop tokens of each model: whatever else could follow counts against it, new lines too. Beside it stands $c = z(\text{stop}) - \overline{z(\text{Wait})}$, the stop token's logit minus the mean of four spellings of "Wait", by which the claims were first put. c does not see a new line, which on `smol` takes most of what stopping loses (02).

# %%
stop, wait = [pair.base.groups.stop[0]], list(pair.base.groups.wait)


def contrast(member):
    """The metric c of a model."""
    return readouts.logit_difference(member, stop, wait)


METRICS = {"log-odds": stop_odds, "c": contrast}
BY = {"log-odds": ", by the log-odds", "c": ""}  # in names of what is measured


def both(member):
    """Both metrics of a model in one pass, [row, metric]."""
    each = [make(member) for make in METRICS.values()]
    return lambda model, states: torch.stack([metric(model, states) for metric in each], dim=-1)


def read_both(member, prompts: list[str]) -> np.ndarray:
    """Both metrics after each prompt, [prompt, metric]."""
    return readouts.measure(member, prompts, both(member)).numpy()


# %% [markdown]
# Both are read after every prompt.

# %%
before = {key: read_both(members[key[0]], prompts) for key, prompts in texts.items()}


def by_metric(found: np.ndarray) -> dict[str, np.ndarray]:
    """Readings whose last axis is the metric, by its name."""
    return {metric: found[..., place] for place, metric in enumerate(METRICS)}


# %% [markdown]
# ### Three raw examples, before any average
#
# Each prompt with the four likeliest next tokens of the base and of the distilled model.


# %%
def next_of(role: str, index: int) -> str:
    """What a model would write after one prompt, and its metrics."""
    likeliest = top_tokens(members[role], [texts[role, "confirm"][index]], k=4)[0]
    shares = [f"{findings.code_span(repr(token))} {share:.0%}" for token, share in likeliest]
    odds, c = before[role, "confirm"][index]
    return f"- *{role}*, log-odds of stopping {odds:+.1f}, c = {c:+.1f}: {', '.join(shares)}"


for index in np.random.default_rng(SEED).choice(n_confirm, 3, replace=False):
    prompt = findings.code_span(texts["base", "confirm"][index])
    display(Markdown("\n".join([f"{prompt}\n", *(next_of(role, index) for role in members)])))


# %% [markdown]
# Over all prompts, how far apart are the two models? This is the difference that everything below is a share of.

# %%
own, theirs = (by_metric(before[role, "confirm"]) for role in members)
apart = {metric: stats.paired(own[metric], theirs[metric]) for metric in METRICS}
Markdown(
    f"{n_confirm} combined prompts of each split on {pair.describe()}. On confirm the base's log-odds of "
    f"stopping are {apart['log-odds']} nats above the distilled model's, its c {apart['c']}."
)

# %% [markdown]
# ## F15 · Does attribution patching find what decides?
#
# **Question.** Replace one component's output at the last token by its value in another run: how do the log-odds of stopping change? **Exact patching** runs it; **attribution patching** (Nanda 2023; Kramár et al. 2024) estimates it for *all* components at once, as $(a' - a)\cdot\partial m/\partial a$ for a metric $m$, from one backward pass. Four other runs: the other model on the same prompt, in both directions; the base on the prompt cut before the answer; the base on the same words shuffled.

# %% [markdown]
# **Controls.** A run patched into itself changes nothing, asserted here. Random nodes beside those that the estimate names. **Rule, written before the result**, for c and in the same words for the log-odds of stopping. F15 holds if, patching the base's values into the distilled model, (a) estimate and exact effect correlate with an interval above 0.8 over the 30 nodes (heads and MLPs) of largest estimate on `explore` and 60 random ones together, and (b) the mean size of the exact effect of those 30 lies above that of the 60 random ones.


# %%
def other_prompts(role: str, run: str, split: str) -> list[str]:
    """The prompts of a run of the same model."""
    member, prompts = members[role], texts[role, split]
    if run == "answer cut":
        return ask(member, combined[split].questions, form="plain")
    if run == "words shuffled":
        bare = [prompt.removeprefix(member.bos) for prompt in prompts]
        return [member.bos + shuffle_words(text, SEED + k) for k, text in enumerate(bare)]
    return prompts


def source_of(role: str, run: str, split: str, rows: list[int]):
    """Activations to be patched into a model: of the other model, or of itself on another prompt."""
    if run == "other model":
        other = "distilled" if role == "base" else "base"
        return activations(members[other], take(texts[other, split], rows))
    return activations(members[role], take(other_prompts(role, run, split), rows))


# %% [markdown]
# **Nodes** are the places whose output can be replaced: a layer's attention or MLP, a single head, the stream at one depth. An arrow reads "into ← from".

# %%
RUNS = {
    "distilled ← base": ("distilled", "other model"),
    "base ← distilled": ("base", "other model"),
    "base ← answer cut": ("base", "answer cut"),
    "base ← shuffled": ("base", "words shuffled"),
}
layers, points = range(n_layers), range(n_layers + 1)
parts = [Node(kind, layer) for kind in ("attention", "mlp") for layer in layers]
heads = [Node("head", layer, head) for layer in layers for head in range(n_heads)]
nodes = [*parts, *heads, *(Node("stream", point) for point in points)]
columns = {kind: [k for k, node in enumerate(nodes) if node.kind == kind] for kind in patching.HOLDS}

# %% [markdown]
# The estimate, for all nodes at once.


# %%
def effects(metric: str, role: str, run: str, rows: list[int], split: str = "confirm"):
    """Estimated effects of every node of a model, patched from another run."""
    member, source = members[role], source_of(role, run, split, rows)
    return patching.attribution_patching(
        member, take(texts[role, split], rows), source, METRICS[metric](member)
    )


def estimate(rows: list[int]) -> dict:
    """Effects of heads on the log-odds by run, [prompt, layer, head]; of nodes by metric, [prompt, node]."""
    itself = vars(effects("log-odds", "base", "itself", rows)).values()
    assert max(float(part.abs().max()) for part in itself) < 1e-3, "itself must change nothing"
    found = {name: effects("log-odds", *run, rows) for name, run in [*RUNS.items()][1:]}
    every = {}
    for metric, split in itertools.product(METRICS, combined):
        every[f"{metric}, {split}"] = effects(metric, "distilled", "other model", rows, split)
    found["distilled ← base"] = every["log-odds, confirm"]
    of_nodes = {name: effect.of(nodes) for name, effect in every.items()}
    return {name: effect.head for name, effect in found.items()} | of_nodes


n_prompts = [len(texts["base", split]) for split in combined]
estimated = kept(pair, "05_estimate", estimate, *n_prompts, fresh=RECOMPUTE)

# %% [markdown]
# Averaged over prompts, the heads make a map of layer and head for each of the four runs.

# %%
maps = {name: estimated[name].mean(0) for name in RUNS}
largest = max(np.abs(matrix).max() for matrix in maps.values())
title = f"The head of the largest estimated effect moves the log-odds of stopping by {largest:.1f} nats"
unit = "effect on log-odds of stopping (nats)"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit=unit)
note_all = f"n = {n_confirm} combined prompts, confirm, plain"
figures.save_figure(fig, "05_head_attribution", pair=pair.name, note=note_all)

# %% [markdown]
# **Figure 1: attribution patching by layer and head.** Left to right: the base's values into the distilled model, the distilled model's into the base, and into the base its own values from the prompt cut before the answer and from shuffled words. Red towards stopping, blue away from it; means over prompts, one scale.

# %% [markdown]
# Now the same run for run: each node replaced, one at a time, on the first few prompts.

# %%
few = {role: texts[role, "confirm"][:N_EXACT] for role in members}
note_few = f"n = {len(few['base'])} combined prompts, confirm, plain"


def patch_exactly(rows: list[int]) -> dict:
    """The effect of each node on both metrics, run for run, [prompt, node, metric]."""
    source = source_of("distilled", "other model", "confirm", rows)
    prompts = take(few["distilled"], rows)
    return {"effect": exact_patching(pair.distilled, prompts, source, nodes, both(pair.distilled))}


exact = by_metric(kept(pair, "05_exact", patch_exactly, len(few["base"]), fresh=RECOMPUTE)["effect"])

# %% [markdown]
# A law: a run patched into itself changes nothing.

# %%
source = activations(pair.distilled, few["distilled"])
some_nodes = [*parts[:3], heads[0], nodes[-1]]
itself = exact_patching(pair.distilled, few["distilled"], source, some_nodes, both(pair.distilled))
assert float(itself.abs().max()) < 1e-3, "itself must change nothing"

# %% [markdown]
# The nodes that are compared, for each metric: those of largest estimate on `explore`, and as a control random ones. A whole attention layer is its heads again, so only MLPs and heads are candidates.

# %%
candidates = np.array([*columns["mlp"], *columns["head"]])
on_explore = {metric: estimated[f"{metric}, explore"].mean(0) for metric in METRICS}


def chosen(metric: str) -> dict[str, np.ndarray]:
    """The nodes of largest estimate and random ones, by the name of their group."""
    top = candidates[np.argsort(-np.abs(on_explore[metric][candidates]))][:N_TOP]
    others = np.setdiff1d(candidates, top)
    drawn = np.random.default_rng(SEED).choice(others, min(N_NODES, len(others)), replace=False)
    both_groups = np.concatenate([top, drawn])
    return {"streams": np.array(columns["stream"]), "top": top, "random": drawn, "both": both_groups}


groups = {metric: chosen(metric) for metric in METRICS}

# %% [markdown]
# Do estimate and exact effect agree? By correlation, and by slope: how many nats of effect a nat of estimate stands for. And are the named nodes those that do something? The mean size of the exact effect, prompt by prompt.

# %%
estimated_few = {metric: estimated[f"{metric}, confirm"][:N_EXACT] for metric in METRICS}
mean_estimate = {metric: found.mean(0) for metric, found in estimated_few.items()}
mean_exact = {metric: found.mean(0) for metric, found in exact.items()}
agreement, slope, size = {}, {}, {}
for key in [(metric, group) for metric in METRICS for group in groups[metric]]:
    metric, some = key[0], groups[key[0]][key[1]]
    estimates, effects_of = mean_estimate[metric][some], mean_exact[metric][some]
    agreement[key] = stats.correlation(estimates, effects_of)
    slope[key] = float((estimates * effects_of).sum() / max((estimates**2).sum(), 1e-12))
    size[key] = np.abs(exact[metric][:, some]).mean(1)

# %% [markdown]
# Both metrics in one table, and the ten nodes of largest estimate on the log-odds of stopping.

# %%
by_node = {"node": list(map(str, nodes))}
for metric in METRICS:
    by_node |= {f"exact, {metric}": mean_exact[metric], f"estimate, {metric}": mean_estimate[metric]}
by_node = pd.DataFrame(by_node)
write_text(data_dir(pair.name) / "05_nodes.csv", by_node.to_csv(index=False, float_format="%.4f"))
correlations = pd.DataFrame({m: {g: agreement[m, g] for g in groups[m]} for m in METRICS})
correlations = correlations.rename_axis("correlation of estimate and exact effect").map("{:.3f}".format)
display(correlations, by_node.iloc[groups["log-odds"]["top"][:10]].round(3))

# %% [markdown]
# The finding, by its rule; the same parts for either metric.


# %%
def parts_of(metric: str) -> list[findings.Part]:
    """The two parts of F15 by one metric."""
    ahead = stats.paired(size[metric, "top"], size[metric, "random"])
    by = BY[metric]
    a, b = "(a) correlation, top and random nodes", "(b) mean exact size, top minus random, nats"
    return [
        findings.Part(f"{a}{by}", agreement[metric, "both"], findings.Rule("above", 0.8)),
        findings.Part(f"{b}{by}", ahead, findings.Rule("above", 0)),
    ]


details = {}
for metric, by in BY.items():
    top = groups[metric]["top"]
    strongest = top[np.abs(mean_exact[metric][top]).argmax()]
    details[f"largest single node{by}"] = str(nodes[strongest])
    details[f"its exact effect, nats{by}"] = stats.bootstrap(exact[metric][:, strongest])
    details[f"exact effect per nat of estimate{by}"] = slope[metric, "both"]
    details[f"correlation, streams alone{by}"] = agreement[metric, "streams"]
    details[f"mean exact size, top, nats{by}"] = stats.bootstrap(size[metric, "top"])
    details[f"mean exact size, random, nats{by}"] = stats.bootstrap(size[metric, "random"])
    details[f"the whole difference, nats{by}"] = apart[metric]

# %%
n_top, n_drawn = len(groups["c"]["top"]), len(groups["c"]["random"])
F15 = findings.record(
    pair,
    "F15",
    notebook="05_patching",
    quantity="correlation of attribution patching with exact patching over the top "
    f"{n_top} nodes of explore and {n_drawn} random ones, the base's values into the distilled",
    unit="(Pearson)",
    rules=parts_of("c"),
    stopping=parts_of("log-odds"),
    control=("the random nodes alone", agreement["c", "random"]),
    split="",
    sample="nodes",
    details=details,
)
Markdown(findings.sentence(F15))

# %% [markdown]
# Do both metrics decide alike?


# %%
def compared_verdicts(entry: dict) -> str:
    """The verdicts by c and by the log-odds, and the parts in which they differ."""
    by_odds = entry["stopping"]["verdict"]
    if by_odds == entry["verdict"]:
        return f"{entry['id']}: {by_odds}, by c as by the log-odds of stopping."
    both_parts = zip(entry["rules"], entry["stopping"]["rules"], strict=True)
    other = [odds["name"] for own, odds in both_parts if own["verdict"] != odds["verdict"]]
    return (
        f"{entry['id']}: {entry['verdict']} by c, {by_odds} by the log-odds of stopping; they part in "
        f"{'; '.join(other)}. c sees only stop and Wait, the log-odds also what moves a new line."
    )


Markdown(compared_verdicts(F15))


# %%
LOOKS = {"random": ("random nodes", figures.CONTROL), "top": ("top of explore", figures.WAIT)}
LOOKS |= {"streams": ("one depth each", figures.THIRD)}


def dots(metric: str, *names: str) -> list[tuple]:
    """The dots of some groups of nodes."""
    found = mean_estimate[metric], mean_exact[metric]
    some = {name: [values[groups[metric][name]] for values in found] for name in names}
    return [(LOOKS[name][0], *values, LOOKS[name][1]) for name, values in some.items()]


r = {key: f"r = {value.estimate:.2f}" for key, value in agreement.items()}
panels = {
    f"MLPs and heads, {r['log-odds', 'both']}": dots("log-odds", "random", "top"),
    f"streams, {r['log-odds', 'streams']}": dots("log-odds", "streams"),
    f"c: MLPs and heads, {r['c', 'both']}": dots("c", "random", "top"),
}
verb = "overstates" if slope["log-odds", "both"] < 1 else "understates"
title = f"The estimate {verb} effects on stopping: a nat of it is {slope['log-odds', 'both']:.2f} nats"
fig = figures.scatter(panels, title=title, xlabel="estimate (nats)", ylabel="exact effect (nats)")
figures.save_figure(fig, "05_estimate_and_exact", pair=pair.name, note=f"means, {note_few}")

# %% [markdown]
# **Figure 2: the first-order estimate against the run.** One dot a node; the line is equality. Left and middle effects on the log-odds of stopping, right on c. Wine the nodes of largest estimate on explore, grey squares random ones, indigo the stream at every depth. Dots nearer to the horizontal than the line are overestimated.

# %% [markdown]
# Layer by layer: the output of each attention and MLP, exact and estimated. The layer in the title was chosen on `explore`.

# %%
KINDS = {"attention": "attention", "mlp": "MLP"}
lead = max(parts, key=lambda node: abs(on_explore["log-odds"][nodes.index(node)]))
difference = by_metric((before["base", "confirm"] - before["distilled", "confirm"])[: len(few["base"])])
whole_few = difference["log-odds"].mean()
share = mean_exact["log-odds"][nodes.index(lead)] / whole_few
panels = {
    name: {
        "exact": (stats.bands(exact["log-odds"][:, columns[kind]]), figures.DISTILLED),
        "estimate": (stats.bands(estimated_few["log-odds"][:, columns[kind]]), figures.THIRD),
    }
    for kind, name in KINDS.items()
}
title = f"The output of one layer's {KINDS[lead.kind]} brings back {share:.0%} of the difference in stopping"
ylabel = "effect on log-odds (nats)"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_layer_effects", pair=pair.name, note=f"{note_few}; distilled ← base")

# %% [markdown]
# **Figure 3: one layer's output at a time, the base's into the distilled model.** Orange exact, indigo the estimate; 95 % bootstrap over prompts. Above zero: the base's value brings the distilled model closer to stopping.

# %% [markdown]
# ## F16 · Replacing layers
#
# **Question.** Take the weights of more and more layers from the distilled model into the base. When does it begin to stop as rarely as the distilled one? Metrics: the log-odds of stopping $L$, c and P(stop); and the share of the difference, $(L_B - L)/(L_B - L_D)$ as ratio of means, for c likewise. **Orders**: from the bottom, from the top, at random (one fixed order).

# %% [markdown]
# **Controls.** Identity (a layer from itself, asserted), and noise: each matrix of the same layers changed by a random matrix of the same singular values as the real change, in several draws. **Rule, made stricter after a first look at the result by c; for the log-odds of stopping the same thresholds, set before their result.** F16 holds if (a) the change is gradual: in none of the three orders does one stage (of `N_STEPS` equal ones) make more than half of the difference; and (b) the single layer that does most on `explore` makes less than a quarter of it on `confirm`; each with its whole interval. For the log-odds (b) takes the layer that does most *towards the distilled model*: a first look showed that the one of largest size moves them the other way, which a rule of "less than" would let pass. That all layers together make all of it is no test where embedding, norms and head agree, as on `smol`.

# %%
n_read = min(N_SWAP, n_confirm)
note_swap = f"n = {n_read} combined prompts, confirm, plain"
read = {split: texts["base", split][:n_read] for split in combined}
at_base = {split: before["base", split][:n_read] for split in combined}
whole = by_metric(at_base["confirm"] - before["distilled", "confirm"][:n_read])


def moved(taken, **options) -> dict[str, np.ndarray]:
    """How far the base's metrics fall when it takes some layers from the distilled model, one a prompt."""
    with swapped(pair, "base", taken, **options) as hybrid:
        return by_metric(at_base["confirm"] - read_both(hybrid, read["confirm"]))


def share_of(falls: dict[str, np.ndarray], metric: str = "log-odds") -> stats.Interval:
    """What the base's metric falls by, as a share of the whole difference, on confirm."""
    return stats.ratio_of_means(falls[metric], whole[metric])


# %% [markdown]
# A law: nothing of the other model changes nothing.

# %%
again = read_both(pair.base, read["confirm"])
assert np.allclose(again, at_base["confirm"], atol=1e-3)
with swapped(pair, "base", layers, amount=0.0) as same:
    assert np.array_equal(read_both(same, read["confirm"]), again), "identity must change nothing"

# %% [markdown]
# The hybrids: three orders and the draws of noise, each in equal stages.

# %%
stages = sorted({round(k * n_layers / N_STEPS) for k in range(N_STEPS + 1)})
shuffled_layers = np.random.default_rng(SEED).permutation(n_layers)
orders = {
    "from the bottom": list(layers),
    "from the top": list(layers)[::-1],
    "at random": list(map(int, shuffled_layers)),
}
draws = [f"noise {seed}" for seed in range(N_NOISE)]
paths = orders | dict.fromkeys(draws, orders["from the bottom"])


def along(path: str, prompts: list[str]) -> np.ndarray:
    """Both metrics of the base with more and more layers of a path taken, [prompt, stage, metric]."""
    found = []
    with contextlib.ExitStack() as taken:
        for start, end in itertools.pairwise([0, *stages]):
            noise = 1000 * draws.index(path) + end if path in draws else None  # of each stage its own
            hybrid = taken.enter_context(swapped(pair, "base", paths[path][start:end], noise=noise))
            found.append(read_both(hybrid, prompts))
    return np.stack(found, axis=1)


# %%
def read_paths(rows: list[int]) -> dict:
    """Both metrics along each path, [prompt, stage, metric]."""
    return {path: along(path, take(read["confirm"], rows)) for path in paths}


measured = kept(pair, "05_gradual", read_paths, n_read, fresh=RECOMPUTE)
falls = {path: by_metric(at_base["confirm"][:, None] - found) for path, found in measured.items()}

# %% [markdown]
# How much of the difference does half of the layers make, by order, and how much does noise in them?


# %%
def made_by(path: str, stage: int, metric: str = "log-odds") -> stats.Interval:
    """The share of the difference that the first stages of a path make."""
    return share_of({metric: falls[path][metric][:, stage]}, metric)


middle_stage = len(stages) // 2
at_half = {metric: {path: made_by(path, middle_stage, metric) for path in paths} for metric in METRICS}
pd.DataFrame(at_half).map("{:.2f}".format)

# %% [markdown]
# The log-odds of stopping, c and P(stop) along the way: they need not move together.

# %%
COLOURS = {"from the bottom": figures.WAIT, "from the top": figures.THIRD, "at random": figures.STOP}


SHOWN = {
    "log-odds of stopping": lambda found: found[..., 0],
    "c": lambda found: found[..., 1],
    "P(stop)": lambda found: expit(found[..., 0]),
}


def curves(read_off) -> dict:
    """One line an order, and one a draw of noise, of what is read off both metrics."""
    lines = {path: (stats.bands(read_off(measured[path])), COLOURS[path]) for path in orders}
    noise = np.array([read_off(measured[draw]).mean(0) for draw in draws])
    return lines | {"noise": (noise, figures.CONTROL)}


panels = {("", row): curves(read_off) for row, read_off in enumerate(SHOWN.values())}

# %%
upper, lower = (at_half["log-odds"][path].estimate for path in ("from the top", "from the bottom"))
relation = "more" if upper > lower else "less"
title = (
    f"The upper half of the layers makes {upper:.0%} of the difference in stopping, {relation} than the lower"
)
look = dict(xlabel="layers taken from the distilled model", zero=True, rows=3)
look["ylabel"] = ["log-odds of stopping\n(nats)", "c (nats)", "P(stop)"]
fig = figures.lines(panels, stages, title=title, **look)
figures.save_figure(fig, "05_gradual", pair=pair.name, size=(7, 7.4), note=note_swap)

# %% [markdown]
# **Figure 4: from base to distilled, layer by layer.** The log-odds of stopping, c, and P(stop). Wine from the bottom, indigo from the top, black in one random order, dashed grey noise of the same singular values from the bottom, a line a draw. Bands: 95 % bootstrap over prompts. Nothing here says that the hybrids in between are sound language models; the texts below show some. And the noise is as large as the real change in every matrix, but its directions differ from matrix to matrix, where training may line them up.

# %% [markdown]
# **And in the template?** The same hybrids, asked in the base's template, the answer after it; the distilled model in its own, which opens a thought. Whole numbers, no shares: where the models hardly differ, a share of that is nothing to go by.

# %%
answered = {role: combined["confirm"].prompts(m, "template")[:n_read] for role, m in members.items()}


def read_template(rows: list[int]) -> dict:
    """Both metrics in the template: along two paths, [prompt, stage, metric], and of the distilled model."""
    found = {path: along(path, take(answered["base"], rows)) for path in ("from the top", "from the bottom")}
    return found | {"distilled": read_both(pair.distilled, take(answered["distilled"], rows))}


def halves_of(found: dict) -> dict[str, np.ndarray]:
    """Both metrics of the models and three hybrids, [prompt, metric]."""
    top, bottom = found["from the top"], found["from the bottom"]
    halves = {"upper half": top[:, middle_stage], "lower half": bottom[:, middle_stage]}
    return {"base": top[:, 0], **halves, "all layers": top[:, -1], "distilled": found["distilled"]}


template = kept(pair, "05_template", read_template, n_read, fresh=RECOMPUTE)
plain = measured | {"distilled": before["distilled", "confirm"][:n_read]}
forms = {"plain": halves_of(plain), "template": halves_of(template)}
by_form = {
    (form, name): {hybrid: f"{stats.bootstrap(read_off(both_of)):.2f}" for hybrid, both_of in found.items()}
    for form, found in forms.items()
    for name, read_off in SHOWN.items()
}
display(pd.DataFrame(by_form))

# %% [markdown]
# What changes?

# %%
gaps = {form: (found["base"] - found["distilled"])[:, 0] for form, found in forms.items()}
lost = stats.paired(gaps["plain"], gaps["template"])
relation = "fewer" if lost.low > 0 else "more" if lost.high < 0 else "not clearly fewer or more"
falls_there = {name: (forms["template"]["base"] - f)[:, 0] for name, f in forms["template"].items()}
larger = max(("upper half", "lower half"), key=lambda name: falls_there[name].mean())
Markdown(
    "In the template the base's log-odds of stopping are "
    f"{stats.bootstrap(gaps['template'])} nats above the distilled model's, {relation} than in plain form "
    f"(by {lost}). All layers taken, in the base's template, make "
    f"{stats.bootstrap(falls_there['all layers'])} nats; the rest is what the distilled model's own template "
    f"does. Of the halves the {larger} does more."
)

# %% [markdown]
# Later tokens are not in it. What some of the hybrids write, greedy, the last with the distilled model's head besides:

# %%
asked, rows = combined["confirm"].questions[:1], []
third = len(stages) // 3
counts = sorted({stages[0], stages[third], stages[2 * len(stages) // 3], stages[-1]})
for k, head in [*((k, False) for k in counts), (n_layers, True)]:
    with swapped(pair, "base", orders["from the bottom"][:k], head=head) as hybrid:
        prompts = ask(hybrid, asked, form="template")
        done = complete(hybrid, prompts, max_new_tokens=SHOWN_TOKENS)[0]
    taken = f"{k} and the head" if head else k
    rows.append({"layers taken": taken, "writes": repr(done.text)[1:-1], "ends by": done.stop})
prompt = findings.code_span(f"{asked[0].text} Just give the answer.")
display(Markdown(f"{prompt}, the base's template:"), pd.DataFrame(rows).set_index("layers taken"))

# %% [markdown]
# An empty text that ends at once, with all layers taken, is no contradiction on `smol`: the template of the base opens no thought, the distilled model's first token is then `<think>`, and only its own head can write that (its row is one of the two that were trained, F12). With the head the hybrid thinks; the reserved token of the base's vocabulary stands where the tag would.

# %% [markdown]
# ### One layer at a time
#
# **Question.** What does a single layer of the distilled model do in the base? And what is missing when all layers but that one are taken? **Control.** Noise of the same singular values in the same layer.


# %%
def one_by_one(rows: list[int]) -> dict:
    """How far both metrics fall with one layer taken, with noise in it, and with all but it taken,
    [prompt, layer, metric]."""
    explore, confirm = (take(read[split], rows) for split in ("explore", "confirm"))
    runs = {"explore": (explore, {}), "confirm": (confirm, {})}
    runs |= {"noise": (confirm, {"noise": SEED}), "all but": (confirm, {"all_but": True})}
    found = {}
    for name, (prompts, how) in runs.items():
        start = take(at_base["explore" if name == "explore" else "confirm"], rows)
        after = patching.single_swaps(pair, "base", prompts, both(pair.base), **how)
        found[name] = np.array(start)[:, None] - after.numpy()
    return found


single = kept(pair, "05_single", one_by_one, *map(len, read.values()), fresh=RECOMPUTE)
single = {name: by_metric(found) for name, found in single.items()}

# %% [markdown]
# A law: what `single_swaps` shares between layers for speed changes nothing.

# %%
middle, together = n_layers // 2, moved(layers)
by_hand = moved([middle])
assert all(np.allclose(single["confirm"][m][:, middle], by_hand[m], atol=1e-3) for m in METRICS)

# %% [markdown]
# As shares of the whole difference; the layer is chosen on `explore`, for each metric its own.


# %%
def each_layer(found: np.ndarray, metric: str) -> list[stats.Interval]:
    """The share of the difference that each layer makes, from falls [prompt, layer]."""
    return [share_of({metric: fall}, metric) for fall in found.T]


def largest_stage(path: str, metric: str) -> stats.Interval:
    """The stage of a path that makes most of the difference."""
    steps = np.diff(falls[path][metric], axis=1)
    return max(each_layer(steps, metric), key=lambda step: step.estimate)


one_layer, noise = ({m: each_layer(single[n][m], m) for m in METRICS} for n in ("confirm", "noise"))
missing = each_layer(together["log-odds"][:, None] - single["all but"]["log-odds"], "log-odds")
summed = {metric: share_of({metric: single["confirm"][metric].sum(1)}, metric) for metric in METRICS}
on_average = {metric: found.mean(0) for metric, found in single["explore"].items()}
largest = {metric: int(np.abs(found).argmax()) for metric, found in on_average.items()}
best = {"log-odds": int(on_average["log-odds"].argmax()), "c": largest["c"]}

# %% [markdown]
# The finding, by its rule.


# %%
def parts_of_swaps(metric: str) -> list[findings.Part]:
    """The parts of F16 by one metric."""
    by, half_of, quarter = BY[metric], findings.Rule("below", 0.5), findings.Rule("below", 0.25)
    gradual = [
        findings.Part(f"(a) largest of {N_STEPS} stages {path}{by}", largest_stage(path, metric), half_of)
        for path in orders
    ]
    alone = one_layer[metric][best[metric]]
    return [*gradual, findings.Part(f"(b) the best single layer{by}", alone, quarter)]


# %%
details = {}
for metric, by in BY.items():
    details |= {
        f"all layers{by}": share_of(together, metric),
        f"sum of all single layers{by}": summed[metric],
    }
    for path in ("from the bottom", "from the top"):
        details[f"half of the layers {path}{by}"] = at_half[metric][path]
for stage in dict.fromkeys((0, 1, middle_stage, -1)):
    p_stop = stats.bootstrap(expit(measured["from the top"][:, stage, 0]))
    details[f"P(stop), the upper {stages[stage]} layers taken"] = p_stop
details["best layer by the log-odds"] = best["log-odds"]
details["the layer of largest size by the log-odds"] = largest["log-odds"]
details["share that this one makes"] = one_layer["log-odds"][largest["log-odds"]]

# %%
F16 = findings.record(
    pair,
    "F16",
    notebook="05_patching",
    quantity="share of the difference in c that the single best layer "
    f"(chosen on explore: {best['c']}) makes in the base",
    unit="of the difference",
    interval=one_layer["c"][best["c"]],
    rules=parts_of_swaps("c"),
    stopping=parts_of_swaps("log-odds"),
    control=("noise of the same singular values in that layer", noise["c"][best["c"]]),
    details=details,
)
display(Markdown(findings.sentence(F16)), Markdown(compared_verdicts(F16)))

# %%
panels = {
    "one layer taken": {
        "the distilled's": (one_layer["log-odds"], figures.DISTILLED),
        "noise": (noise["log-odds"], figures.CONTROL),
    },
    "all but one taken": {"what is missing": (missing, figures.DISTILLED)},
}
alone = one_layer["log-odds"][best["log-odds"]]
title = f"The layer chosen on explore, taken alone, makes {alone.estimate:.0%} of the difference in stopping"
ylabel = "share of the difference\nin log-odds of stopping"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_single_layers", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 5: single layers.** Left one layer of the distilled model in the base (orange) and noise of the same singular values (dashed grey); right what is missing when only this layer stays the base's. Bands: 95 % bootstrap over prompts. If the single effects add up to less than the whole, layers need each other, and that is why one alone does little; if to more, they stand in for each other.

# %% [markdown]
# ### Attention, MLP, norms, embedding or head?
#
# **Question.** The same swap by kind of weight, all layers at once. **Control.** Noise of the same singular values in the same weights, in several draws.

# %%
of_layers = {"attention": {"part": "attention"}, "MLP": {"part": "mlp"}, "layer norms": {"part": "norms"}}
outside = {"embedding": {"embedding": True}, "head": {"head": True}, "final norm": {"norm": True}}
shares, panels = {}, {"log-odds of stopping": [], "c": []}
for name, options in (of_layers | outside).items():
    taken = layers if name in of_layers else ()
    seeds = range(N_NOISE) if name in of_layers else ()
    runs = [(moved(taken, **options), figures.DISTILLED)]
    runs += [(moved(taken, noise=seed, **options), figures.CONTROL) for seed in seeds]
    for metric, rows in zip(METRICS, panels.values(), strict=True):
        rows += [(name, share_of(found, metric), colour) for found, colour in runs]
    shares[name] = share_of(runs[0][0])
most = max(shares, key=lambda name: shares[name].estimate)
title = (
    f"Of the kinds of weights {most} makes most of the difference in stopping: {shares[most].estimate:.0%}"
)
fig = figures.interval_rows(panels, title=title, unit="share of the difference", zero=True)
figures.save_figure(fig, "05_parts", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 6: kinds of weights.** Orange the distilled model's weights in the base, grey squares noise of the same singular values, one a draw. On `smol` norms, head and embedding were frozen in training except for the two tags, so their zeros are by construction. The heads of the two models may be tied in one and not in the other; embedding and head are swapped apart in any case.

# %% [markdown]
# ### Why does one layer do so little?
#
# **Question.** Three answers are possible: the streams of the two models hardly differ until late; each layer's change matters only on top of the others; later layers undo it. First the length of the difference of the two streams over the base's. **Control.** The base on shuffled words against the base.

# %%
streams = {role: activations(m, texts[role, "confirm"]).stream.cpu() for role, m in members.items()}
streams["shuffled"] = activations(pair.base, other_prompts("base", "words shuffled", "confirm")).stream.cpu()


def distance(name: str, point: int) -> stats.Interval:
    """How far a stream is from the base's, as a share of the base's length."""
    base, other = streams["base"][:, point], streams[name][:, point]
    return stats.bootstrap((other - base).norm(dim=-1) / base.norm(dim=-1))


half_way, at_end = distance("distilled", n_layers // 2), distance("distilled", n_layers)
Markdown(
    f"The streams differ by {half_way:.0%} of their length half way and {at_end:.0%} at the end; the base's "
    f"on shuffled words by {distance('shuffled', n_layers // 2):.0%}, {distance('shuffled', n_layers):.0%}."
)

# %% [markdown]
# The direct effect: what the base's output of a layer writes towards stopping minus what the distilled model's own writes, along the gradient of the distilled model's log-odds at its last state.

# %%
by_role = {role: activations(m, few[role]) for role, m in members.items()}
slopes = patching.gradients(pair.distilled, few["distilled"], stop_odds(pair.distilled))[1]
toward = slopes.stream[:, -1]


def written(kind: str) -> np.ndarray:
    """What the base's outputs write towards stopping beyond the distilled model's own, [prompt, layer]."""
    between = getattr(by_role["base"], kind) - getattr(by_role["distilled"], kind)
    return (between * toward[:, None]).sum(-1).cpu().numpy()


direct = {kind: written(kind) for kind in KINDS}
total = {kind: exact["log-odds"][:, columns[kind]] for kind in KINDS}

# %% [markdown]
# Added up over attention and MLP: does the direct effect rank the layers as the total one does?

# %%
layer_direct, layer_total = (sum(found[kind].mean(0) for kind in KINDS) for found in (direct, total))
ranks = stats.correlation(layer_direct, layer_total, ranks=True)
verb = "build on" if abs(layer_total.sum()) > abs(layer_direct.sum()) else "undo"
Markdown(
    f"Rank correlation over layers {ranks}. Summed over layers the direct effects are "
    f"{layer_direct.sum():+.1f} nats, the total ones {layer_total.sum():+.1f}: all in all, later layers "
    f"{verb} what a layer writes."
)

# %% [markdown]
# ### A shared readout, fed differently?
#
# **Question.** Where along the depth does it become decided, and by whom: by what a layer is fed, or by the layers that read it? Each model's stream replaces the other's at one depth, at the last token only or at all positions; the layers above are the other model's own. Metric: share of the difference in the log-odds of stopping. **Rule, set after a first look at these curves.** At two thirds of the depth a stream counts as *read alike* by both models' last third if the other model's answer to it, with its whole interval, is nearer to its owner's answer than to the reader's own: a share above a half. If that is so in both directions, the readout is shared and only what it is fed differs. **Control.** A model's own stream changes nothing (asserted).

# %%
PLACES = {"all": ("all positions", figures.BASE), "last": ("last token only", figures.WAIT)}
OTHER = {"distilled": "base", "base": "distilled"}  # into which model: whose stream


def replace_streams(rows: list[int]) -> dict:
    """What the other model's stream does to both metrics, [prompt, point, metric]."""
    prompts = {role: take(texts[role, "confirm"][:n_read], rows) for role in members}
    streams = {role: readouts.streams_at_all_positions(m, prompts[role]) for role, m in members.items()}

    def patched(into: str, source: str, where: str, n: int | None = None):
        given = members[into], prompts[into][:n], streams[source][:n]
        return patching.patch_streams(*given, both(members[into]), where=where)

    own = patched("distilled", "distilled", "all", 2)
    assert float(own.abs().max()) < 1e-3, "itself must change nothing"
    arms = itertools.product(OTHER.items(), PLACES)
    return {f"{into}, {where}": patched(into, source, where) for (into, source), where in arms}


replaced = kept(pair, "05_positions", replace_streams, n_read, fresh=RECOMPUTE)

# %% [markdown]
# As shares of the difference: from which depth on does the last token alone carry more than half, for good?


# %%
def carried(into: str, where: str, metric: str = "log-odds") -> list[stats.Interval]:
    """The share of the difference that the other model's stream brings, by depth."""
    sign = 1 if into == "distilled" else -1
    effects = by_metric(replaced[f"{into}, {where}"])[metric]
    return [stats.ratio_of_means(sign * effect, whole[metric]) for effect in effects.T]


def half_carried(into: str, metric: str) -> float:
    """The depth from which on the last token alone always carries over half; infinite if it never does."""
    shares = carried(into, "last", metric)
    under = [point for point in points if not shares[point].estimate > 0.5]
    return np.inf if under[-1:] == [n_layers] else max(under, default=-1) + 1


depths = {(into, metric): half_carried(into, metric) for into in OTHER for metric in METRICS}
told = {key: "never" if np.isinf(depth) else f"from depth {depth} on" for key, depth in depths.items()}

# %%
panels = {
    f"{source}'s stream into the {into}": {
        label: (carried(into, where), colour) for where, (label, colour) in PLACES.items()
    }
    for into, source in OTHER.items()
}
there, back = (depths[into, "log-odds"] for into in OTHER)
relation = (
    "an earlier depth than" if there < back else "a later depth than" if there > back else "the depth of"
)
title = f"The base's stream decides in the distilled model at {relation} the reverse"
xlabel, ylabel = "depth at which the stream is put in", "share of the difference\nin log-odds of stopping"
fig = figures.lines(panels, points, title=title, xlabel=xlabel, ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_positions", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 7: each model's stream in the other.** Share of the difference in the log-odds of stopping that a stream brings along, by depth and position: 0 is the reader's own answer, 1 that of the stream's owner. The rest of the pass runs on the reader's own weights. Bands: 95 % bootstrap over prompts.

# %% [markdown]
# Do the last layers of both models read the same stream alike?

# %%
two_thirds, rows, alike = n_layers - n_layers // 3, [], {}
for into, source in OTHER.items():
    share, by_c = (carried(into, "all", metric)[two_thirds] for metric in METRICS)
    alike[into] = "alike" if share.low > 0.5 else "not alike" if share.high < 0.5 else "undecided"
    rows.append(
        f"- The {into} model's last {n_layers - two_thirds} layers, fed with the {source}'s stream, go "
        f"{share} of the way to the {source}'s answer (by c {by_c}): {alike[into]}. The last token alone "
        f"carries half {told[into, 'log-odds']} (by c {told[into, 'c']})."
    )
stories = {
    "alike": "a shared readout, fed differently",
    "not alike": "the last layers decide, whatever they are fed",
    "alike, not alike": "it takes both, what is fed and who reads it",
}
story = stories.get(", ".join(sorted(set(alike.values()))), "undecided on so few prompts")
display(Markdown("\n".join([*rows, f"\nSo: **{story}**."])))

# %% [markdown]
# **So why does one layer do so little?** The numbers of this section, together:

# %%
Markdown(
    "- Single swaps, of the distilled model's weights into the base, add up to "
    f"{summed['log-odds'].estimate:.0%} of the difference in stopping (c: {summed['c'].estimate:.0%}); "
    "single patches of the last token's outputs, of the base's into the distilled model, to "
    f"{layer_total.sum() / whole_few:.0%} of it.\n"
    f"- The last layer: its weights alone make {one_layer['log-odds'][-1].estimate:.0%} of the difference, "
    f"its patched MLP output {total['mlp'][:, -1].mean() / whole_few:.0%}.\n"
    f"- What a layer writes directly ranks the layers like the total effect at {ranks}."
)

# %% [markdown]
# Swaps and patches differ in direction, too, which may be a part of it (figure 1). Another reading: a swapped layer reads a stream that the other changed layers never wrote, a patched output comes from a run in which they all did; figure 7 tells how much of it lies in who reads.

# %% [markdown]
# ## Five tokens on
#
# **Question.** What does each model write after the answer, where do their paths part, and does stopping become likelier further on? Each follows its own likeliest tokens for five steps; where it would stop, the likeliest other token is taken, so that every prompt is there at every step. The other model reads the same path: is it the text that makes the difference, or the reader?


# %%
def along_path(reader: str, prompts: list[str], path: list[list[int]]) -> np.ndarray:
    """Both metrics before each token of a path, and the likeliest token there, [prompt, step, 3]."""
    member = members[reader]
    batch, tokens, metrics = member.encode(prompts), torch.tensor(path).to(member.device), both(member)
    more = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    def read_steps(lm):
        states, model = lm.model.norm.output[:, -N_AFTER - 1 : -1].flatten(0, 1), lm._module
        likeliest = (states @ model.lm_head.weight.T).argmax(-1)
        return torch.cat([metrics(model, states), likeliest[:, None]], dim=1)

    longer = {name: torch.cat([batch[name], after], dim=1) for name, after in more.items()}
    return member.traced(longer, read_steps).cpu().unflatten(0, tokens.shape).numpy()


def read_along(rows: list[int]) -> dict:
    """What each model reads along its own greedy path, stop tokens passed over, and along the other's."""
    prompts, found = {role: take(texts[role, "confirm"], rows) for role in members}, {}
    for owner, member in members.items():
        going_on = SuppressTokensLogitsProcessor(list(member.groups.stop), device=member.device)
        how = dict(change=Change(processors=(going_on,)), max_new_tokens=N_AFTER)
        path = [done.tokens for done in complete(member, prompts[owner], **how)]
        found |= {f"{reader} on {owner}": along_path(reader, prompts[reader], path) for reader in members}
    return found


# %% [markdown]
# P(stop) by step, and the step at which the two paths part: the first at which the likeliest tokens differ, stopping being one of them.

# %%
followed = kept(pair, "05_paths", read_along, n_confirm, fresh=RECOMPUTE)
steps, writes = list(range(1, N_AFTER + 1)), {}
for role, member in members.items():
    tokens = followed[f"{role} on {role}"][..., 2]
    writes[role] = np.where(np.isin(tokens, member.groups.stop), -1, tokens)
differs = writes["base"] != writes["distilled"]
parted = np.where(differs.any(1), differs.argmax(1) + 1, 0)
by_step = {"the paths part here": [stats.share(parted == step) for step in steps]}
for role in members:
    stopped = np.maximum.accumulate(writes[role] == -1, axis=1)
    by_step[f"the {role} has stopped by now"] = list(map(stats.share, stopped.T))
    by_step[f"P(stop), {role}, own path"] = stats.bands(SHOWN["P(stop)"](followed[f"{role} on {role}"]))
display(pd.DataFrame(by_step, index=steps).rename_axis("step").map("{:.2f}".format))

# %%
panels = {
    f"along the {owner}'s path": {
        reader: (stats.bands(followed[f"{reader} on {owner}"][..., 0]), colour)
        for reader, colour in figures.ROLE.items()
    }
    for owner in members
}
later = max(SHOWN["P(stop)"](found)[:, 1:].mean(0).max() for found in followed.values())
seldom = "seldom stops soon" if later < 0.1 else "may still stop soon"
title = f"Who goes on after the answer {seldom}: P(stop) is at most {later:.2f} at the next tokens"
xlabel, ylabel = "step after the answer", "log-odds of stopping (nats)"
fig = figures.lines(panels, steps, title=title, xlabel=xlabel, ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_paths", pair=pair.name, note=note_all)

# %% [markdown]
# **Figure 8: five tokens on.** Log-odds of stopping at each step after the answer, along the base's own path (left) and along the distilled model's (right), read by either model: blue the base, orange the distilled. A path goes on with the likeliest token that does not stop.

# %% [markdown]
# **The first step in full.** Every component's part in the log-odds of stopping, along their gradient: embedding, attention and MLPs sum to the mean logit of the stop tokens minus that of their rivals, each weighted by its probability; what is missing to the log-odds is how spread either set is, its entropy. The sum is asserted.


# %%
def account(role: str) -> dict[str, np.ndarray]:
    """The parts of a model's log-odds of stopping at the first step, [prompt, layer] or [prompt]."""
    member, prompts, stops = members[role], texts[role, "confirm"], list(members[role].groups.stop)
    found, every = attribute(member, prompts, stop_odds(member)), next_distribution(member, prompts)
    sets = every[:, stops], every.index_fill(1, torch.tensor(stops), -torch.inf)
    entropies = [torch.distributions.Categorical(logits=logits).entropy() for logits in sets]
    spread = entropies[0] - entropies[1]
    true = torch.tensor(before[role, "confirm"][:, 0])
    assert torch.allclose(found.total + spread, true, atol=1e-2), "the parts must sum to the log-odds"
    parts = {"embedding": found.embedding, "attention": found.attention, "mlp": found.mlp, "spread": spread}
    return {name: part.numpy() for name, part in parts.items()}


accounts = {role: account(role) for role in members}

# %%
gap = {name: accounts["base"][name] - accounts["distilled"][name] for name in accounts["base"]}
sums = {name: stats.bootstrap(part if part.ndim == 1 else part.sum(1)) for name, part in gap.items()}
rows = pd.DataFrame({kind: gap[kind].mean(0) for kind in KINDS}).rename_axis("layer")
write_text(data_dir(pair.name) / "05_account.csv", rows.to_csv(float_format="%.4f"))
listed = "; ".join(f"{name} {value:+.2f}" for name, value in sums.items())
Markdown(f"Base minus distilled, {apart['log-odds']} nats in all, is made of: {listed}.")

# %%
panels = {name: {"": (stats.bands(gap[kind]), figures.THIRD)} for kind, name in KINDS.items()}
kind = max(KINDS, key=lambda kind: sums[kind].estimate)
title = f"The base's {KINDS[kind]} outputs write {sums[kind].estimate:.1f} nats more towards stopping"
ylabel = "written towards stopping,\nbase minus distilled (nats)"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_account", pair=pair.name, note=note_all)

# %% [markdown]
# **Figure 9: the account of the first step.** What each layer writes towards stopping, base minus distilled model, each along its own gradient and at the scale of its own final norm. Mean over prompts with 95 % bootstrap. What a layer does by way of others is not in it, and the two gradients differ, because the rivals do.

# %% [markdown]
# ## Do the methods agree?
#
# **Question.** Six ways to say which layer matters for the difference: the jump of the lens, what the layer writes (direct), the estimate and the exact effect of patching its outputs, the relative change of its weights, and the effect of swapping it alone. Do they rank the layers alike? And the heads? Metric: Spearman's rank correlation of sizes, over layers and over heads. **Control.** Noise of the same singular values, swapped alone: a method that agrees with it as much as with the others measures size and not meaning.


# %%
def lens_odds(role: str) -> np.ndarray:
    """The log-odds of stopping as the lens reads them, [prompt, point]."""
    member, stream = members[role], streams[role][:N_EXACT].to(members[role].device)
    metric = stop_odds(member)
    rows = member.at_weights(lambda model, rows: metric(model, model.model.norm(rows)), stream.flatten(0, 1))
    return rows.detach().cpu().unflatten(0, stream.shape[:2]).numpy()


changed = weights.compare_matrices(pair)
changed = changed[changed["matrix"].isin(weights.MATRICES)].groupby("layer")["relative"].mean()
estimates, effects_of = mean_estimate["log-odds"], mean_exact["log-odds"]
by_layer = {
    "lens jump": np.diff(lens_odds("base") - lens_odds("distilled")).mean(0),
    "direct": layer_direct,
    "attribution patching": sum(estimates[columns[kind]] for kind in KINDS),
    "exact patching": layer_total,
    "weight change": changed.to_numpy(),
    "swap": single["confirm"]["log-odds"].mean(0),
    "noise": single["noise"]["log-odds"].mean(0),
}

# %% [markdown]
# The same for heads; the weights of a head are its columns of `o_proj`.


# %%
def head_change(layer: int) -> list[float]:
    """Relative change of each head's columns of `o_proj`."""
    pair_of = [m.model.model.layers[layer].self_attn.o_proj.weight for m in pair.members]
    base, distilled = (weight.unflatten(1, (n_heads, -1)).unbind(1) for weight in pair_of)
    return [float((b - a).norm() / a.norm()) for a, b in zip(base, distilled, strict=True)]


writes = {role: attribute(m, few[role], stop_odds(m)).heads for role, m in members.items()}
by_head = {
    "direct": (writes["base"] - writes["distilled"]).mean(0).numpy().ravel(),
    "attribution patching": estimates[columns["head"]],
    "exact patching": effects_of[columns["head"]],
    "o_proj change": np.ravel([head_change(layer) for layer in layers]),
}

# %% [markdown]
# Rank correlations, every method with every other.


# %%
def agree(found: dict) -> pd.DataFrame:
    """Rank correlations of sizes, every method with every other."""
    sizes = {name: np.abs(values) for name, values in found.items()}
    return pd.DataFrame(
        {b: {a: stats.correlation(sizes[a], sizes[b], ranks=True) for a in sizes} for b in sizes}
    )


over_layers, over_heads = agree(by_layer), agree(by_head)
display(
    Markdown(f"Over {n_layers} layers, with 95 % bootstrap over layers:"), over_layers.map("{:.2f}".format)
)
display(Markdown(f"Over {len(heads)} heads:"), over_heads.map("{:.2f}".format))

# %%
tables = {"layers": over_layers, "heads": over_heads}
maps = {name: found.map(lambda value: value.estimate).to_numpy(float) for name, found in tables.items()}
labels = {name: list(found) for name, found in tables.items()}
closest = over_layers["exact patching"].drop("exact patching").map(lambda value: value.estimate)
title = f"Over layers {closest.idxmax()} agrees best with exact patching: {closest.max():.2f}"
look = dict(xlabel="", ylabel="", unit="rank correlation of sizes", columns=labels, names=labels)
fig = figures.heat_maps(maps, title=title, written=True, **look)
note = f"means over {len(few['base'])} to {n_read} combined prompts, confirm"
figures.save_figure(fig, "05_agreement", pair=pair.name, size=(9.5, 4.8), note=note)

# %% [markdown]
# **Figure 10: how far the methods agree.** Spearman's correlation of the sizes of effects on the log-odds of stopping, over layers (left) and heads (right); intervals in the tables above. Where they differ none is wrong: direct leaves out what later layers do with an output, patching leaves out other positions, and a weight's change can point where nothing is read.

# %% [markdown]
# ## Try it
#
# Choose layers to take from the other model, which part, and a prompt: the next token of base, distilled and hybrid at once, and their texts on the button. Figures 4 to 6 are the same for readers without a kernel.

# %%
explorers.swap_explorer(pair)

# %% [markdown]
# ## Takeaway

# %%
by_odds = F15["stopping"]["rules"][0]
upper, lower = (at_half["log-odds"][path] for path in ("from the top", "from the bottom"))
tells = {"holds": "finds", "does not hold": "does not find", "inconclusive": "may find"}
tells, alone_all = tells[F15["stopping"]["verdict"]], summed["log-odds"]
depends = alone_all.high < 1 or alone_all.low > 1
relation = "what a layer does depends on those around it" if depends else "layers may just add up"
Markdown(
    f"1. A quick estimate from one backward pass {tells} the components that decide about stopping: it and "
    f"really replacing them correlate at {by_odds['estimate']:.2f}.\n"
    f"2. The single layer that does most makes {alone.estimate:.0%} of the difference in stopping, all of "
    f"them one at a time {alone_all.estimate:.0%}, the upper half together {upper.estimate:.0%}, "
    f"the lower half {lower.estimate:.0%}: {relation}.\n"
    f"3. Fed with the other's stream, each model's last third says who decides: {story}."
)

# %% [markdown]
# Back: [04_value_vectors](04_value_vectors.ipynb). Next: [06_steering](06_steering.ipynb) asks whether the base can be made to wait, and the distilled to stop.
