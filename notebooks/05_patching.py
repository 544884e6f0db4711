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
# # 05 · Which components decide, and why does swapping one layer not work?
#
# **Claim.** Under test: attribution patching on the last token finds the components that decide between stopping and waiting; replacing layers step by step turns one model into the other; replacing a single layer does next to nothing. What holds on this pair is printed below the set-up.
#
# **Evidence.** The first-order estimate beside exact patching, node by node (figure 2); layers taken one by one and one at a time, beside noise of the same norm (figures 4 and 6).
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
SHOWN_TOKENS = 60  # new tokens of the shown hybrids

# %% jupyter={"source_hidden": true} tags=["claim"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, patching, readouts, stats, weights
from helpers.generation import complete, load_combined
from helpers.pairs import load_pair
from helpers.patching import Node, attribute, exact_patching, swapped
from helpers.prompts import ask, shuffle_words
from helpers.readouts import activations, next_distribution, top_tokens
from helpers.store import data_dir, kept, take, write_text

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F15", "F16"))

# %% [markdown]
# ## The prompts and the metric
#
# Combined prompts, plain form: question, "Just give the answer.", the base's own complete answer. What is *chosen* (nodes, layers) is chosen on `explore`, what is *told* is from `confirm`.

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
# The metric throughout is $c = z(\text{stop}) - \overline{z(\text{Wait})}$ at the last token, in nats: the stop token's logit minus the mean of four spellings of "Wait". **The caveat that changes the reading:** measured against control words it falls between these two models almost wholly because "Wait" rises (02), so it tells how waiting comes about, and P(stop) is told beside it where a model is changed.

# %%
stop, wait = [pair.base.groups.stop[0]], list(pair.base.groups.wait)
tokens = [*stop, *wait]


def stop_minus_wait(logits):
    """The metric c in nats, from the logits of `tokens` along the last axis."""
    return logits[..., 0] - logits[..., 1:].mean(-1)


def contrast(member, prompts: list[str]) -> np.ndarray:
    """The metric c, one a prompt."""
    return stop_minus_wait(readouts.next_logits(member, prompts, tokens)).numpy()


c = {key: contrast(members[key[0]], prompts) for key, prompts in texts.items()}

# %% [markdown]
# ### Three raw examples, before any average
#
# Each prompt with the four likeliest next tokens of the base and of the distilled model.


# %%
def next_of(role: str, index: int) -> str:
    """What a model would write after one prompt, and its c."""
    likeliest = top_tokens(members[role], [texts[role, "confirm"][index]], k=4)[0]
    shares = [f"{findings.code_span(repr(token))} {share:.0%}" for token, share in likeliest]
    return f"- *{role}*, c = {c[role, 'confirm'][index]:+.1f}: {', '.join(shares)}"


for index in np.random.default_rng(SEED).choice(n_confirm, 3, replace=False):
    prompt = findings.code_span(texts["base", "confirm"][index])
    display(Markdown("\n".join([f"{prompt}\n", *(next_of(role, index) for role in members)])))

# %% [markdown]
# Over all prompts, how far apart are the two models? This is the difference that everything below is a share of.

# %%
apart = stats.paired(c["base", "confirm"], c["distilled", "confirm"])
Markdown(
    f"{n_confirm} combined prompts of each split on {pair.describe()}. "
    f"On confirm the base's c is {apart} nats above the distilled model's."
)

# %% [markdown]
# ## F15 · Does attribution patching find what decides?
#
# **Question.** Replace one component's output at the last token by its value in another run: how does c change? **Exact patching** runs it; **attribution patching** (Nanda 2023; Kramár et al. 2024) estimates it for *all* components at once, as $(a' - a)\cdot\partial c/\partial a$, from one backward pass. Four other runs: the other model on the same prompt, in both directions; the base on the prompt cut before the answer; the base on the same words shuffled.

# %% [markdown]
# **Controls.** A run patched into itself changes nothing, asserted here. Random nodes beside those that the estimate names. **Rule, written before the result.** F15 holds if, patching the base's values into the distilled model, (a) estimate and exact effect correlate with an interval above 0.8 over the 30 nodes (heads and MLPs) of largest estimate on `explore` and 60 random ones together, and (b) the mean size of the exact effect of those 30 lies above that of the 60 random ones.


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
def effects(role: str, run: str, rows: list[int], split: str = "confirm"):
    """Estimated effects of every node of a model, patched from another run."""
    source = source_of(role, run, split, rows)
    prompts = take(texts[role, split], rows)
    return patching.attribution_patching(members[role], prompts, source, stop, wait)


def estimate(rows: list[int]) -> dict:
    """Effects of heads by run, [prompt, layer, head]; of the first run those of all nodes, [prompt, node]."""
    itself = vars(effects("base", "itself", rows)).values()
    assert max(float(part.abs().max()) for part in itself) < 1e-3, "itself must change nothing"
    found = {name: effects(*run, rows) for name, run in RUNS.items()}
    explore = effects("distilled", "other model", rows, "explore")
    every_node = {"confirm": found["distilled ← base"].of(nodes), "explore": explore.of(nodes)}
    return {name: effect.head for name, effect in found.items()} | every_node


n_prompts = [len(texts["base", split]) for split in combined]
estimated = kept(pair, "05_estimate", estimate, *n_prompts, fresh=RECOMPUTE)

# %% [markdown]
# Averaged over prompts, the heads make a map of layer and head for each of the four runs.

# %%
maps = {name: estimated[name].mean(0) for name in RUNS}
largest = max(np.abs(matrix).max() for matrix in maps.values())
title = f"The head of the largest estimated effect moves c by {largest:.1f} nats"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="effect on c (nats)")
note_all = f"n = {n_confirm} combined prompts, confirm, plain"
figures.save_figure(fig, "05_head_attribution", pair=pair.name, note=note_all)

# %% [markdown]
# **Figure 1: attribution patching by layer and head.** Left to right: the base's values into the distilled model, the distilled model's into the base, and into the base its own values from the prompt cut before the answer and from shuffled words. Red raises c (towards stopping), blue lowers it; means over prompts, one scale.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Intervals (figure 3 for whole layers), and what first order misses: only the first panel is held against exact patching below.
#
# </details>

# %% [markdown]
# Now the same run for run: each node replaced, one at a time, on the first few prompts.

# %%
few = {role: texts[role, "confirm"][:N_EXACT] for role in members}
note_few = f"n = {len(few['base'])} combined prompts, confirm, plain"


def patch_exactly(rows: list[int]) -> dict:
    """The effect of each node, run for run, [prompt, node]."""
    source = source_of("distilled", "other model", "confirm", rows)
    prompts = take(few["distilled"], rows)
    return {"effect": exact_patching(pair.distilled, prompts, source, nodes, stop, wait)}


exact = kept(pair, "05_exact", patch_exactly, len(few["base"]), fresh=RECOMPUTE)["effect"]

# %% [markdown]
# A law: a run patched into itself changes nothing.

# %%
source = activations(pair.distilled, few["distilled"])
some_nodes = [*parts[:3], heads[0], nodes[-1]]
itself = exact_patching(pair.distilled, few["distilled"], source, some_nodes, stop, wait)
assert float(itself.abs().max()) < 1e-3, "itself must change nothing"

# %% [markdown]
# The nodes that are compared: those of largest estimate on `explore`, and as a control random ones. A whole attention layer is its heads again, so only MLPs and heads are candidates.

# %%
candidates = np.array([*columns["mlp"], *columns["head"]])
on_explore = estimated["explore"].mean(0)
ranked = candidates[np.argsort(-np.abs(on_explore[candidates]))]
top = ranked[:N_TOP]
others = np.setdiff1d(candidates, top)
random_nodes = np.random.default_rng(SEED).choice(others, min(N_NODES, len(others)), replace=False)

# %% [markdown]
# Do estimate and exact effect agree? By correlation, and by slope: how many nats of effect a nat of estimate stands for.

# %%
estimated_few = estimated["confirm"][:N_EXACT]
mean_estimate, mean_exact = estimated_few.mean(0), exact.mean(0)
groups = {
    "streams": np.array(columns["stream"]),
    "top": top,
    "random": random_nodes,
    "both": np.concatenate([top, random_nodes]),
}


def nats_per_nat(group: np.ndarray) -> float:
    """Exact effect per nat of estimate: the slope of a line through zero."""
    estimates = mean_estimate[group]
    return float((estimates * mean_exact[group]).sum() / (estimates**2).sum())


agreement = {
    name: stats.correlation(mean_estimate[group], mean_exact[group]) for name, group in groups.items()
}
slope = {name: nats_per_nat(group) for name, group in groups.items()}

# %% [markdown]
# And are the named nodes those that do something? The mean size of the exact effect, prompt by prompt.

# %%
size_top, size_random = (np.abs(exact[:, group]).mean(1) for group in (top, random_nodes))
ahead = stats.paired(size_top, size_random)
strongest = top[np.abs(mean_exact[top]).argmax()]
by_node = pd.DataFrame(
    {"node": [str(node) for node in nodes], "exact": mean_exact, "estimate": mean_estimate}
)
write_text(data_dir(pair.name) / "05_nodes.csv", by_node.to_csv(index=False, float_format="%.4f"))
listed = ", ".join(f"{name} {value:.3f}" for name, value in agreement.items())
display(Markdown(f"Correlation of estimate and exact effect: {listed}"), by_node.iloc[top[:10]].round(3))

# %% [markdown]
# The finding, by its rule.

# %%
rules = [
    findings.Part("(a) correlation, top and random nodes", agreement["both"], findings.Rule("above", 0.8)),
    findings.Part("(b) mean exact size, top minus random, nats", ahead, findings.Rule("above", 0)),
]
details = {
    "largest single node": str(nodes[strongest]),
    "its exact effect, nats": stats.bootstrap(exact[:, strongest]),
    "exact effect per nat of estimate": slope["both"],
    "the same, streams": slope["streams"],
    "correlation, streams alone": agreement["streams"],
    "correlation, top nodes alone": agreement["top"],
    "mean exact size, top, nats": stats.bootstrap(size_top),
    "mean exact size, random, nats": stats.bootstrap(size_random),
    "the whole difference, nats": apart,
}

# %%
F15 = findings.record(
    pair,
    "F15",
    notebook="05_patching",
    quantity="correlation of attribution patching with exact patching over the top "
    f"{len(top)} nodes of explore and {len(random_nodes)} random ones, the base's values into the distilled",
    unit="(Pearson)",
    rules=rules,
    control=("the random nodes alone", agreement["random"]),
    split="",
    sample="nodes",
    details=details,
)
Markdown(findings.sentence(F15))


# %%
def dots(label: str, group: np.ndarray, colour: str) -> tuple:
    """The dots of some nodes."""
    return label, mean_estimate[group], mean_exact[group], colour


random_dots = dots(f"{len(random_nodes)} random", random_nodes, figures.CONTROL)
top_dots = dots(f"top {len(top)} of explore", top, figures.WAIT)
panels = {
    f"MLPs and heads, r = {agreement['both'].estimate:.2f}": [random_dots, top_dots],
    f"streams, r = {agreement['streams'].estimate:.2f}": [
        dots("one depth each", groups["streams"], figures.THIRD)
    ],
}
verb = "overstates" if slope["both"] < 1 else "understates"
title = f"The estimate {verb} effects: a nat of it is {slope['both']:.2f} nats of exact effect"
fig = figures.scatter(panels, title=title, xlabel="estimate (nats)", ylabel="exact effect on c (nats)")
figures.save_figure(fig, "05_estimate_and_exact", pair=pair.name, note=f"means, {note_few}")

# %% [markdown]
# **Figure 2: the first-order estimate against the run.** One dot a node; the line is equality. Left MLPs and heads: wine those of largest estimate on explore, grey squares random ones; right the stream at every depth. Dots below the line are overestimated.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That the named nodes work together: each was patched alone.
#
# </details>

# %% [markdown]
# Layer by layer: the output of each attention and MLP, exact and estimated. The layer in the title was chosen on `explore`.

# %%
KINDS = {"attention": "attention", "mlp": "MLP"}
lead = max(parts, key=lambda node: abs(on_explore[nodes.index(node)]))
lead_effect = mean_exact[nodes.index(lead)]
difference = (c["base", "confirm"] - c["distilled", "confirm"])[: len(few["base"])]
Markdown(
    f"The largest estimate on explore is that of layer {lead.layer}'s {KINDS[lead.kind]}; the base's output "
    f"put in its place moves the distilled model by {lead_effect:+.1f} of {difference.mean():.1f} nats."
)

# %%
panels = {
    name: {
        "exact": (stats.bands(exact[:, columns[kind]]), figures.DISTILLED),
        "estimate": (stats.bands(estimated_few[:, columns[kind]]), figures.THIRD),
    }
    for kind, name in KINDS.items()
}
share = lead_effect / difference.mean()
title = f"The output of one layer's {KINDS[lead.kind]} brings back {share:.0%} of the difference in c"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel="effect on c (nats)", zero=True)
figures.save_figure(fig, "05_layer_effects", pair=pair.name, note=f"{note_few}; distilled ← base")

# %% [markdown]
# **Figure 3: one layer's output at a time, the base's into the distilled model.** Orange exact, indigo the estimate; 95 % bootstrap over prompts. Above zero: the base's value brings the distilled model closer to stopping.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Other positions: only the last token's value is replaced.
#
# </details>

# %% [markdown]
# ## F16 · Replacing layers
#
# **Question.** Take the weights of more and more layers from the distilled model into the base. When does it begin to read like the distilled one? Metrics: the share of the difference in c, $(c_B - c)/(c_B - c_D)$ as ratio of means, P(stop), and the KL divergence of the next-token distribution from either model. **Orders**: from the bottom, from the top, at random (one fixed order).

# %% [markdown]
# **Controls.** Identity (a layer from itself, asserted), and noise: each matrix of the same layers changed by a random matrix of the same norm as the real change. **Rule, made stricter after a first look at the result.** F16 holds if (a) the change is gradual: in none of the three orders does one stage (of `N_STEPS` equal ones) make more than half of the difference; and (b) the single layer that does most on `explore` makes less than a quarter of it on `confirm`; each with its whole interval. That all layers together make all of it is no test where embedding, norms and head agree, as on `smol`.

# %%
n_read = min(N_SWAP, n_confirm)
note_swap = f"n = {n_read} combined prompts, confirm, plain"
read = {split: texts["base", split][:n_read] for split in combined}
at_base = {split: c["base", split][:n_read] for split in combined}
whole = at_base["confirm"] - c["distilled", "confirm"][:n_read]


def moved(taken, **options) -> np.ndarray:
    """How far the base's c falls when it takes some layers from the distilled model, one a prompt."""
    with swapped(pair, "base", taken, **options) as hybrid:
        return at_base["confirm"] - contrast(hybrid, read["confirm"])


def share_of(falls: np.ndarray) -> stats.Interval:
    """What the base's c falls by, as a share of the whole difference, on confirm."""
    return stats.ratio_of_means(falls, whole)


# %% [markdown]
# A law: nothing of the other model changes nothing.

# %%
again = contrast(pair.base, read["confirm"])
assert np.allclose(again, at_base["confirm"], atol=1e-3)
with swapped(pair, "base", layers, amount=0.0) as same:
    assert np.array_equal(contrast(same, read["confirm"]), again), "identity must change nothing"

# %% [markdown]
# The hybrids: three orders and the noise, each in equal stages. Of each hybrid c, P(stop) and the divergence from either model are kept.

# %%
NOISE = "noise, from the bottom"
stages = sorted({round(k * n_layers / N_STEPS) for k in range(N_STEPS + 1)})
shuffled_layers = np.random.default_rng(SEED).permutation(n_layers)
orders = {
    "from the bottom": list(layers),
    "from the top": list(layers)[::-1],
    "at random": list(map(int, shuffled_layers)),
}
paths = orders | {NOISE: orders["from the bottom"]}
hybrids = [(path, k) for path in paths for k in stages]


# %%
def next_of_hybrid(path: str, k: int, prompts: list[str]):
    """Log-probabilities of the next token in the base with the first k layers of a path taken."""
    with swapped(pair, "base", paths[path][:k], noise=SEED if path == NOISE else None) as hybrid:
        return next_distribution(hybrid, prompts)


def read_hybrids(rows: list[int]) -> dict:
    """Of each prompt and hybrid: c, P(stop), and the KL divergence from either model, [prompt, hybrid]."""
    prompts, found = take(read["confirm"], rows), []
    targets = {role: next_distribution(m, take(texts[role, "confirm"], rows)) for role, m in members.items()}
    for path, k in hybrids:
        logprobs = next_of_hybrid(path, k, prompts)
        p_stop = logprobs[:, list(pair.base.groups.stop)].exp().sum(1)
        divergence = {role: readouts.kl_nats(target, logprobs) for role, target in targets.items()}
        found.append({"c": stop_minus_wait(logprobs[:, tokens]), "P(stop)": p_stop, **divergence})
    return {name: np.stack([each[name] for each in found], axis=1) for name in found[0]}


measured = kept(pair, "05_gradual", read_hybrids, n_read, fresh=RECOMPUTE)

# %% [markdown]
# One table: a row a hybrid, with its share of the difference, P(stop), and how far it is from base and distilled model.

# %%
falls = at_base["confirm"] - measured["c"].T  # [hybrid, prompt]
table = pd.DataFrame(
    {"share": list(map(share_of, falls))}
    | {name: stats.bands(measured[name]) for name in ("P(stop)", *members)},
    index=pd.MultiIndex.from_tuples(hybrids, names=["order", "layers"]),
)
half = stages[len(stages) // 2]
shown = table.loc[[(path, k) for path in paths for k in (stages[1], half)]]
shown.map(lambda interval: f"{interval:.2f}")

# %% [markdown]
# The share of the difference in c, and P(stop) beside it: they need not move together.

# %%
COLOURS = {"from the bottom": figures.WAIT, "from the top": figures.THIRD}
COLOURS |= {"at random": figures.STOP, NOISE: figures.CONTROL}


def curves(column: str, banded=tuple(paths)) -> dict:
    """One line an order, with bands for some of them."""
    found = {path: table.loc[path, column].tolist() for path in paths}
    return {
        path: (values if path in banded else [value.estimate for value in values], COLOURS[path])
        for path, values in found.items()
    }


# %%
upper, lower = (table.loc[(path, half), "share"].estimate for path in ("from the top", "from the bottom"))
relation = "more" if upper > lower else "less"
title = (
    f"The upper half of the layers makes {upper:.0%} of the difference in c, {relation} than the lower half"
)
panels = {"": curves("share"), ("", 1): curves("P(stop)", banded=("from the top", NOISE))}
ylabel = ["share of the difference in c", "P(stop)"]
xlabel = "layers taken from the distilled model"
fig = figures.lines(panels, stages, title=title, xlabel=xlabel, ylabel=ylabel, zero=True, rows=2)
figures.save_figure(fig, "05_gradual", pair=pair.name, size=(7, 5.6), note=note_swap)

# %% [markdown]
# **Figure 4: from base to distilled, layer by layer.** Above the share of the difference in c, below P(stop). Wine from the bottom, indigo from the top, black in one random order, dashed grey noise of the same norm from the bottom; of P(stop) only two bands are drawn, the others are as wide.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That the hybrids in between are sound language models; figure 5 and the texts below say how far they are from both. And the noise is a control for size alone: it spreads over all directions of a matrix, while a real change lies in few, so its strongest direction is far weaker than the real one's.
#
# </details>

# %% [markdown]
# How far is each hybrid from the two models?

# %%
panels = {f"from the {role}": curves(role) for role in members}
nearer = min(members, key=lambda role: table.loc[("from the bottom", half), role].estimate)
title = f"With the lower half of its layers taken the hybrid is nearer to the {nearer}"
ylabel = "KL(model ‖ hybrid) (nats)"
fig = figures.lines(panels, stages, title=title, xlabel=xlabel, ylabel=ylabel)
figures.save_figure(fig, "05_divergence", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 5: how far the hybrids are from either model.** KL divergence of the next-token distribution; colours as in figure 4.

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
# **Question.** What does a single layer of the distilled model do in the base? And what is missing when all layers but that one are taken? **Controls.** Noise of the same norm in the same layer.


# %%
def one_by_one(rows: list[int]) -> dict:
    """How far c falls with one layer taken, with noise in it, and with all but it taken, [prompt, layer]."""
    explore, confirm = (take(read[split], rows) for split in ("explore", "confirm"))
    runs = {"explore": (explore, {}), "confirm": (confirm, {})}
    runs |= {"noise": (confirm, {"noise": SEED}), "all but": (confirm, {"all_but": True})}
    found = {}
    for name, (prompts, how) in runs.items():
        before = take(at_base["explore" if name == "explore" else "confirm"], rows)
        after = patching.single_swaps(pair, "base", prompts, stop, wait, **how)
        found[name] = np.array(before)[:, None] - after.numpy()
    return found


single = kept(pair, "05_single", one_by_one, *map(len, read.values()), fresh=RECOMPUTE)

# %% [markdown]
# A law: what `single_swaps` shares between layers for speed changes nothing.

# %%
middle = n_layers // 2
assert np.allclose(single["confirm"][:, middle], moved([middle]), atol=1e-3)

# %% [markdown]
# As shares of the whole difference; the best layer is chosen on `explore`.

# %%
together = moved(layers)
one_layer, noise = (list(map(share_of, single[name].T)) for name in ("confirm", "noise"))
missing = list(map(share_of, (together[:, None] - single["all but"]).T))
summed = share_of(single["confirm"].sum(1))
best = int(np.abs(single["explore"].mean(0)).argmax())


def largest_stage(path: str) -> stats.Interval:
    """The stage of a path that makes most of the difference."""
    by_stage = np.diff(falls[[hybrids.index((path, k)) for k in stages]], axis=0)
    return max(map(share_of, by_stage), key=lambda step: step.estimate)


# %% [markdown]
# The finding, by its rule.

# %%
rules = [
    findings.Part(f"(a) largest of {N_STEPS} stages {path}", largest_stage(path), findings.Rule("below", 0.5))
    for path in orders
]
rules += [findings.Part("(b) the best single layer", one_layer[best], findings.Rule("below", 0.25))]
details = {"all layers": share_of(together), "sum of all single layers": summed}
for path in ("from the bottom", "from the top"):
    details[f"half of the layers {path}"] = table.loc[(path, half), "share"]
for k in (0, stages[1], half, n_layers):
    details[f"P(stop), the upper {k} layers taken"] = table.loc[("from the top", k), "P(stop)"]

# %%
F16 = findings.record(
    pair,
    "F16",
    notebook="05_patching",
    quantity="share of the difference in c that the single best layer "
    f"(chosen on explore: {best}) makes in the base",
    unit="of the difference",
    interval=one_layer[best],
    rules=rules,
    control=("noise of the same norm in that layer", noise[best]),
    details=details,
)
Markdown(findings.sentence(F16))

# %%
panels = {
    "one layer taken": {
        "the distilled's": (one_layer, figures.DISTILLED),
        "noise": (noise, figures.CONTROL),
    },
    "all but one taken": {"what is missing": (missing, figures.DISTILLED)},
}
title = (
    f"The layer chosen on explore, taken alone, makes {one_layer[best].estimate:.0%} of the difference in c"
)
ylabel = "share of the difference in c"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_single_layers", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 6: single layers.** Left one layer of the distilled model in the base (orange) and noise of the same norm (dashed grey); right what is missing when only this layer stays the base's. Bands: 95 % bootstrap over prompts. If the single effects add up to less than the whole, layers need each other, and that is why one alone does little; if to more, they stand in for each other.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Pairs and triples of layers.
#
# </details>

# %% [markdown]
# ### Attention, MLP, norms, embedding or head?
#
# **Question.** The same swap by kind of weight, all layers at once. **Control.** Noise of the same norm in the same weights.

# %%
of_layers = {"attention": {"part": "attention"}, "MLP": {"part": "mlp"}, "layer norms": {"part": "norms"}}
outside = {"embedding": {"embedding": True}, "head": {"head": True}, "final norm": {"norm": True}}
shares, rows = {}, []
for name, options in (of_layers | outside).items():
    taken = layers if name in of_layers else ()
    shares[name] = share_of(moved(taken, **options))
    rows.append((name, shares[name], figures.DISTILLED))
    if name in of_layers:
        rows.append((name, share_of(moved(taken, noise=SEED, **options)), figures.CONTROL))

# %% [markdown]
# Which kind does most?

# %%
most = max(shares, key=lambda name: shares[name].estimate)
title = (
    f"Of the kinds of weights {most} makes the largest share of the difference: {shares[most].estimate:.0%}"
)
fig = figures.interval_rows({"": rows}, title=title, unit="share of the difference in c", zero=True)
figures.save_figure(fig, "05_parts", pair=pair.name, note=note_swap)

# %% [markdown]
# **Figure 7: kinds of weights.** Orange the distilled model's weights in the base, grey squares noise of the same norm. On `smol` norms, head and embedding were frozen in training except for the two tags, so their zeros are by construction. The heads of the two models may be tied in one and not in the other; embedding and head are swapped apart in any case.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Interactions of attention and MLP: the shares need not add up to one.
#
# </details>

# %% [markdown]
# ### Why does one layer do so little?
#
# **Question.** Three answers are possible: the streams of the two models hardly differ until late; each layer's change matters only on top of the others; later layers undo it. Metrics by depth: cosine of the two models' streams, length of their difference over the base's length, centred kernel alignment over prompts; then direct effect (what a layer writes to the logits) against total effect (exact patching). **Control.** For the streams, the same measures between the base and itself on shuffled words.

# %%
streams = {role: activations(m, texts[role, "confirm"]).stream.cpu() for role, m in members.items()}
shuffled = activations(pair.base, other_prompts("base", "words shuffled", "confirm")).stream.cpu()


def against_base(stream) -> dict:
    """Three measures of how far streams are from the base's, by depth from the first layer's output on."""
    base = streams["base"]
    cosine = torch.nn.functional.cosine_similarity(base, stream, dim=-1)[:, 1:]
    distance = ((stream - base).norm(dim=-1) / base.norm(dim=-1))[:, 1:]
    alignment = [stats.alignment(base[:, point], stream[:, point]) for point in points[1:]]
    bands = {"cosine": stats.bands(cosine), "relative distance": stats.bands(distance)}
    return bands | {"alignment": alignment}


compared = {
    "distilled": (against_base(streams["distilled"]), figures.DISTILLED),
    "base, shuffled": (against_base(shuffled), figures.CONTROL),
}

# %% [markdown]
# The three measures side by side.

# %%
distances = compared["distilled"][0]["relative distance"]
half_way, at_end = distances[n_layers // 2].estimate, distances[-1].estimate
panels = {
    measure: {name: (found[measure], colour) for name, (found, colour) in compared.items()}
    for measure in ("cosine", "relative distance", "alignment")
}
relation = "less" if half_way < at_end else "more"
title = f"The two streams differ by {at_end:.0%} of the base's length at the end, {relation} half way"
xlabel, ylabel = "depth (layers passed)", "against the base, same prompt"
fig = figures.lines(panels, points[1:], title=title, xlabel=xlabel, ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_streams", pair=pair.name, note=note_all)

# %% [markdown]
# **Figure 8: how far apart the two streams are.** Orange the distilled model against the base on the same prompt; dashed grey the base on shuffled words against the base. At the first depths both runs hold little but the last token itself. Whether the part in which they differ is read by anything is the next figure.

# %% [markdown]
# The direct effect: what the base's output of a layer writes towards c minus what the distilled model's own writes, both at the distilled model's final scale.

# %%
by_role = {role: activations(m, few[role]) for role, m in members.items()}
last = by_role["distilled"].stream[:, -1]
scale = torch.rsqrt(last.pow(2).mean(-1, keepdim=True) + pair.distilled.config.rms_norm_eps)
toward = patching.logit_direction(pair.distilled, stop, wait) * pair.distilled.norm_weight * scale


def written(kind: str) -> np.ndarray:
    """What the base's outputs write towards c beyond the distilled model's own, [prompt, layer]."""
    between = getattr(by_role["base"], kind) - getattr(by_role["distilled"], kind)
    return (between * toward[:, None]).sum(-1).cpu().numpy()


direct = {kind: written(kind) for kind in KINDS}
total = {kind: exact[:, columns[kind]] for kind in KINDS}

# %% [markdown]
# Added up over attention and MLP: does the direct effect rank the layers as the total one does?

# %%
layer_direct, layer_total = (sum(found[kind].mean(0) for kind in KINDS) for found in (direct, total))
ranks = stats.correlation(layer_direct, layer_total, ranks=True)
Markdown(
    f"Rank correlation over layers {ranks}. Summed over layers the direct effects are "
    f"{layer_direct.sum():+.1f} nats, the total ones {layer_total.sum():+.1f}."
)

# %%
panels = {
    name: {
        "total (patched)": (stats.bands(total[kind]), figures.DISTILLED),
        "direct (written)": (stats.bands(direct[kind]), figures.BASE),
    }
    for kind, name in KINDS.items()
}
verb = "build on" if abs(layer_total.sum()) > abs(layer_direct.sum()) else "undo"
title = f"All in all, later layers {verb} what a layer writes"
fig = figures.lines(panels, layers, title=title, xlabel="layer", ylabel="effect on c (nats)", zero=True)
note = f"{note_few}; base's against distilled's"
figures.save_figure(fig, "05_direct_and_total", pair=pair.name, note=note)

# %% [markdown]
# **Figure 9: what a layer writes, and what comes of it.** Blue the direct difference, orange the total effect of patching that output at the last token. Where the orange line is nearer to zero than the blue, later layers undo what was written; where it is further, they build on it.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Effects by way of earlier positions.
#
# </details>

# %% [markdown]
# ### Only the last token?
#
# **Question.** Is the decision made at the last position, or carried in from the text before it? The base's stream replaces the distilled model's at one depth: at the last token only, at all earlier positions only, or everywhere. **Control.** The same with the distilled model's own stream changes nothing (asserted).

# %%
PLACES = {"all": "all positions", "last": "last token only", "earlier": "all but the last"}


def replace_streams(rows: list[int]) -> dict:
    """What the base's stream does to c in the distilled model, by positions, [prompt, point]."""
    streams, prompts = {}, take(few["distilled"], rows)
    for role, member in members.items():
        streams[role] = readouts.streams_at_all_positions(member, take(few[role], rows))

    def patched(some: list[str], source, where: str):
        return patching.patch_streams(pair.distilled, some, source, stop, wait, where=where)

    own = patched(prompts[:2], streams["distilled"][:2], "all")
    assert float(own.abs().max()) < 1e-3, "itself must change nothing"
    return {where: patched(prompts, streams["base"], where) for where in ("last", "earlier", "all")}


replaced = kept(pair, "05_positions", replace_streams, len(few["base"]), fresh=RECOMPUTE)

# %% [markdown]
# As shares of these prompts' difference: from which depth on does the last token alone carry more than half?

# %%
carried = {
    where: [stats.ratio_of_means(effect, difference) for effect in replaced[where].T] for where in PLACES
}
over_half = [point for point in points if carried["last"][point].estimate > 0.5]
title = "The last token alone never carries half of the difference in c"
if over_half:
    title = f"The last token alone carries over half of the difference in c from depth {over_half[0]} on"

# %%
colours = {"all": figures.BASE, "last": figures.WAIT, "earlier": figures.THIRD}
series = {PLACES[where]: (carried[where], colour) for where, colour in colours.items()}
xlabel, ylabel = "depth at which the base's stream is put in", "share of the difference in c"
fig = figures.lines({"": series}, points, title=title, xlabel=xlabel, ylabel=ylabel, zero=True)
figures.save_figure(fig, "05_positions", pair=pair.name, note=f"{note_few}; distilled ← base")

# %% [markdown]
# **Figure 10: where the difference sits.** Share of the difference in c that the base's stream brings back in the distilled model, by depth and position. The rest of the pass runs on the distilled model's own weights.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Which earlier positions matter.
#
# </details>

# %% [markdown]
# **So why does one layer do so little?** The numbers of this section, together:

# %%
Markdown(
    f"- The streams differ by {half_way:.0%} of their length half way, by {at_end:.0%} at the end.\n"
    "- Single swaps, of the distilled model's weights into the base, add up to "
    f"{summed.estimate:.0%} of the difference; single patches of the last token's outputs, "
    f"of the base's into the distilled model, to {layer_total.sum() / difference.mean():.0%} of it.\n"
    f"- The last layer: its weights alone make {one_layer[-1].estimate:.0%} of the difference, its patched "
    f"MLP output {total['mlp'][:, -1].mean() / difference.mean():.0%}.\n"
    f"- What a layer writes directly ranks the layers like the total effect at {ranks}."
)

# %% [markdown]
# Swaps and patches differ in direction, too, which may be a part of it (figure 1). Another reading: a swapped layer reads a stream that the other changed layers never wrote, a patched output comes from a run in which they all did. Where the last layer's weights do little and its patched output does much, one story fits: both models share the readout in the last layer, and what it is fed changed in the layers before it.

# %% [markdown]
# ## One prompt, one token, in full; then the next token
#
# **Question.** Take one prompt and add up every component's share in c, from the embedding to the logit, in both models. Then fix the distilled model's first token and do the same for the token after it. The parts sum to the true logits (asserted).


# %%
def account(step: str, role: str, prompt: str) -> pd.DataFrame:
    """What each layer writes towards c, and the embedding as layer -1."""
    found = attribute(members[role], [prompt], stop, wait)
    true = contrast(members[role], [prompt])[0]
    assert abs(float(found.total) - true) < 1e-3, "the parts must sum to the logit"
    parts = {
        "layer": [*layers, -1],
        "attention": [*found.attention[0].tolist(), float(found.embedding)],
        "mlp": [*found.mlp[0].tolist(), 0.0],
    }
    return pd.DataFrame({"token": step, "model": role, **parts})


# %% [markdown]
# Both models, both tokens, in one table.

# %%
index = int(np.random.default_rng(SEED).choice(n_confirm))
first = {role: texts[role, "confirm"][index] for role in members}
token = top_tokens(pair.distilled, [first["distilled"]], k=1)[0][0][0]
second = {role: prompt + token for role, prompt in first.items()}
steps = {"first token": first, "second token": second}
accounts = pd.concat([account(step, role, steps[step][role]) for step in steps for role in members])
write_text(data_dir(pair.name) / "05_account.csv", accounts.to_csv(index=False, float_format="%.4f"))
both_parts = accounts.assign(both=accounts["attention"] + accounts["mlp"])
wide = both_parts.pivot_table(index="layer", columns=["token", "model"], values="both")

# %% [markdown]
# The layers in which the two models differ most:

# %%
between = (wide["first token", "distilled"] - wide["first token", "base"]).abs()
prompt, after = findings.code_span(first["base"]), findings.code_span(repr(token))
heading = (
    f"{prompt}, then the distilled model's first token {after}. The eight layers whose share differs most"
)
display(Markdown(f"{heading} (layer −1: the embedding):"), wide.loc[between.nlargest(8).index].round(2))

# %%
running = wide.cumsum()
panels = {
    step: {role: (running[step, role].tolist(), colour) for role, colour in figures.ROLE.items()}
    for step in steps
}
gaps = [abs(running[step, "base"].iloc[-1] - running[step, "distilled"].iloc[-1]) for step in steps]
relation = "less" if gaps[1] < gaps[0] else "more"
title = f"One prompt: the models end {gaps[0]:.1f} nats apart, {relation} one token later"
xlabel = "components added up to depth"
fig = figures.lines(panels, points, title=title, xlabel=xlabel, ylabel="c (nats)", zero=True)
figures.save_figure(fig, "05_one_prompt", pair=pair.name, note="one combined prompt, confirm, plain")

# %% [markdown]
# **Figure 11: one prompt's account.** The running sum of all components' direct contributions to c, at the scale of the final norm; the right end is the true logit difference. Left for the token after the answer, right for the one after that, with the first fixed.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Anything beyond this prompt; it is an illustration of the sum.
#
# </details>

# %% [markdown]
# ## Do the methods agree?
#
# **Question.** Six ways to say which layer matters for the difference: the jump of the lens, what the layer writes (direct), the estimate and the exact effect of patching its outputs, the relative change of its weights, and the effect of swapping it alone. Do they rank the layers alike? And the heads? Metric: Spearman's rank correlation of sizes, over layers and over heads. **Control.** Noise of the same norm, swapped alone: a method that agrees with it as much as with the others measures size and not meaning.


# %%
def lens_contrast(role: str) -> np.ndarray:
    """The metric c as the lens reads it, [prompt, point]."""
    member, stream = members[role], streams[role][:N_EXACT]
    lens = readouts.read_stream(member, stream.to(member.device), tokens, ranked=False)
    return stop_minus_wait(lens.logits).numpy()


changed = weights.compare_matrices(pair)
changed = changed[changed["matrix"].isin(weights.MATRICES)].groupby("layer")["relative"].mean()
by_layer = {
    "lens jump": np.diff(lens_contrast("base") - lens_contrast("distilled")).mean(0),
    "direct": layer_direct,
    "attribution patching": sum(mean_estimate[columns[kind]] for kind in KINDS),
    "exact patching": layer_total,
    "weight change": changed.to_numpy(),
    "swap": single["confirm"].mean(0),
    "noise": single["noise"].mean(0),
}

# %% [markdown]
# The same for heads; the weights of a head are its columns of `o_proj`.


# %%
def head_change(layer: int) -> list[float]:
    """Relative change of each head's columns of `o_proj`."""
    both = [m.model.model.layers[layer].self_attn.o_proj.weight for m in pair.members]
    base, distilled = (weight.unflatten(1, (n_heads, -1)).unbind(1) for weight in both)
    return [float((b - a).norm() / a.norm()) for a, b in zip(base, distilled, strict=True)]


writes = {role: attribute(m, few[role], stop, wait).heads for role, m in members.items()}
by_head = {
    "direct": (writes["base"] - writes["distilled"]).mean(0).numpy().ravel(),
    "attribution patching": mean_estimate[columns["head"]],
    "exact patching": mean_exact[columns["head"]],
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
# **Figure 12: how far the methods agree.** Spearman's correlation of the sizes of effects, over layers (left) and heads (right); intervals in the tables above.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Who is right where they differ: they answer different questions. Direct leaves out what later layers do with a layer's output, patching leaves out other positions, and a weight's change can point where nothing is read.
#
# </details>

# %% [markdown]
# ## Try it
#
# Choose layers to take from the other model, which part, and a prompt: the next token of base, distilled and hybrid at once, and their texts on the button. Figures 4, 6 and 7 are the same for readers without a kernel.

# %%
explorers.swap_explorer(pair)

# %% [markdown]
# ## Takeaway

# %%
upper, lower = (F16["details"][f"half of the layers {path}"] for path in ("from the top", "from the bottom"))
summed = F16["details"]["sum of all single layers"]
Markdown(
    "1. A quick estimate of what each component does, from one backward pass, and really replacing it "
    f"correlate at {F15['estimate']:.2f}.\n"
    "2. The weights of the single best layer, put into the base, make "
    f"{F16['estimate']:.0%} of the difference between the models; "
    f"those of the upper half {upper['estimate']:.0%}, of the lower half {lower['estimate']:.0%}.\n"
    f"3. Taken one at a time, all layers add up to {summed['estimate']:.0%} of that difference: "
    "what one layer's change does depends on the layers around it."
)

# %% [markdown]
# Back: [04_value_vectors](04_value_vectors.ipynb). Next: [06_steering](06_steering.ipynb) asks whether the base can be made to wait, and the distilled to stop.
