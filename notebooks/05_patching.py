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

from helpers import explorers, figures, findings, stats, weights
from helpers.generation import complete, load_combined
from helpers.pairs import load_pair
from helpers.patching import Node, attribute, attribution_patching, exact_patching, logit_direction, patch_streams, single_swaps, swapped
from helpers.prompts import ask, shuffle_words
from helpers.readouts import activations, kl_nats, next_distribution, next_logits, read_stream, streams_at_all_positions, top_tokens
from helpers.store import data_dir, kept, take, write_text

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F15", "F16"))

# %% [markdown]
# ## The prompts and the metric
#
# Combined prompts, plain form: question, "Just give the answer.", the base's own complete answer. The metric throughout is $c = z(\text{stop}) - \overline{z(\text{Wait})}$ at the last token, in nats: the stop token against "Wait". Measured against control words it falls between these two models almost wholly because "Wait" rises (02), so it tells how waiting comes about, and P(stop) is told beside it where a model is changed. What is *chosen* (nodes, layers) is chosen on `explore`, what is *told* is from `confirm`.

# %%
knobs = dict(n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, **knobs)
pair = pair.float()  # gradients and sums must add up
members, n_layers = {member.role: member for member in pair.members}, pair.base.n_layers
n_heads = pair.base.config.num_attention_heads
stop, wait = [pair.base.groups.stop[0]], list(pair.base.groups.wait)
texts = {(role, split): combined[split].prompts(m, "plain") for role, m in members.items() for split in combined}


def contrast(member, prompts: list[str]) -> np.ndarray:
    """The metric c, one a prompt."""
    read = next_logits(member, prompts, [*stop, *wait]).numpy()
    return read[:, 0] - read[:, 1:].mean(1)


own = {key: contrast(members[key[0]], prompts) for key, prompts in texts.items()}
apart = stats.paired(own["base", "confirm"], own["distilled", "confirm"])
Markdown(f"{len(texts['base', 'confirm'])} combined prompts of each split on {pair.describe()}. On confirm the base's c is {apart} nats above the distilled model's.")

# %% [markdown]
# ### Three raw examples, before any average

# %%
for index in np.random.default_rng(SEED).choice(len(texts["base", "confirm"]), 3, replace=False):
    lines = [findings.code_span(texts["base", "confirm"][index]) + "\n"]
    for role, m in members.items():
        best = ", ".join(f"{findings.code_span(repr(token))} {share:.0%}" for token, share in top_tokens(m, [texts[role, "confirm"][index]], k=4)[0])
        lines.append(f"- *{role}*, c = {own[role, 'confirm'][index]:+.1f}: {best}")
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ## F15 · Does attribution patching find what decides?
#
# **Question.** Replace one component's output at the last token by its value in another run: how does c change? **Exact patching** runs it; **attribution patching** (Nanda 2023; Kramár et al. 2024) estimates it for *all* components at once, as $(a' - a)\cdot\partial c/\partial a$, from one backward pass. Four other runs: the other model on the same prompt, in both directions; the base on the prompt cut before the answer; the base on the same words shuffled.

# %% [markdown]
# **Controls.** A run patched into itself changes nothing, asserted here. Random nodes beside those that the estimate names. **Rule, written before the result.** F15 holds if, patching the base's values into the distilled model, (a) estimate and exact effect correlate with an interval above 0.8 over the 30 nodes (heads and MLPs) of largest estimate on `explore` and 60 random ones together, and (b) the mean size of the exact effect of those 30 lies above that of the 60 random ones.

# %%
def source_for(role: str, run: str, split: str, rows=range(10**6)):
    """Activations to be patched into a model: of the other model, or of itself on another prompt."""
    m, questions = members[role], combined[split].questions
    if run == "other model":
        other = "distilled" if role == "base" else "base"
        return activations(members[other], take(texts[other, split], rows))
    bare = [prompt.removeprefix(m.bos) for prompt in texts[role, split]]
    shuffled = [m.bos + shuffle_words(text, SEED + k) for k, text in enumerate(bare)]
    runs = {"answer cut": ask(m, questions, form="plain"), "words shuffled": shuffled, "itself": texts[role, split]}
    return activations(m, take(runs[run], rows))


def effects(role: str, run: str, rows: list[int], split: str = "confirm"):
    """Estimated effects of every node of a model, patched from another run."""
    return attribution_patching(members[role], take(texts[role, split], rows), source_for(role, run, split, rows), stop, wait)


# %%
named = {"distilled ← base": ("distilled", "other model"), "base ← distilled": ("base", "other model"), "base ← answer cut": ("base", "answer cut"), "base ← shuffled": ("base", "words shuffled")}
parts = [Node(kind, layer) for kind in ("attention", "mlp") for layer in range(n_layers)]
heads = [Node("head", layer, head) for layer in range(n_layers) for head in range(n_heads)]
nodes = [*parts, *heads, *(Node("stream", point) for point in range(n_layers + 1))]


def estimate(rows: list[int]) -> dict:
    """The effect of each head in every run, [prompt, layer, head]; of the first run all nodes, [prompt, node]."""
    itself = effects("base", "itself", rows)
    assert max(float(getattr(itself, kind).abs().max()) for kind in ("stream", "attention", "mlp", "head", "neuron")) < 1e-3, "itself must change nothing"
    found = {name: effects(*run, rows) for name, run in named.items()}
    both = {"confirm": found["distilled ← base"], "explore": effects("distilled", "other model", rows, "explore")}
    return {name: each.head for name, each in found.items()} | {split: each.of(nodes) for split, each in both.items()}


guesses = kept(pair, "05_estimate", estimate, *(len(texts["base", split]) for split in combined), fresh=RECOMPUTE)
maps = {name: torch.from_numpy(guesses[name]).mean(0) for name in named}
title = "Estimated effect of each head on c; no head is beyond " + ", ".join(f"{matrix.abs().max():.1f} ({name})" for name, matrix in maps.items()) + " nats"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="nats")
figures.save_figure(fig, "05_head_attribution", pair=pair.name, note=f"n = {len(own['base', 'confirm'])} combined prompts, confirm")

# %% [markdown]
# **Figure 1: attribution patching by layer and head.** Left to right: the base's values into the distilled model, the distilled model's into the base, and into the base its own values from the prompt cut before the answer and from shuffled words. Red raises c (towards stopping), blue lowers it; means over prompts, one scale.

# %% [markdown]
# **What it does not show.** Intervals (figure 3 for whole layers), and what first order misses: only the first panel is held against exact patching below.

# %%
into = members["distilled"]
few = texts["distilled", "confirm"][:N_EXACT]
given_few = activations(pair.base, texts["base", "confirm"][:N_EXACT])


def patch_exactly(rows: list[int]) -> dict:
    """The effect of each node, run for run, [prompt, node]."""
    return {"effect": exact_patching(into, take(few, rows), source_for("distilled", "other model", "confirm", rows), nodes, stop, wait)}


exact = kept(pair, "05_exact", patch_exactly, len(few), fresh=RECOMPUTE)["effect"]
guessed = guesses["confirm"][:N_EXACT]
itself = exact_patching(into, few, activations(into, few), [*parts[:3], heads[0], nodes[-1]], stop, wait)
assert float(itself.abs().max()) < 1e-3, "itself must change nothing"

# %%
candidates = np.arange(n_layers, len(parts) + len(heads))  # MLPs and heads; a whole attention layer is its heads again
of_explore = guesses["explore"].mean(0)
order = candidates[np.argsort(-np.abs(of_explore[candidates]))]
top = order[:N_TOP]
random_nodes = np.random.default_rng(SEED).choice(np.setdiff1d(candidates, top), min(N_NODES, len(candidates) - len(top)), replace=False)
mean_exact, mean_guess = exact.mean(0), guessed.mean(0)
table = pd.DataFrame({"node": [str(node) for node in nodes], "exact": mean_exact, "estimate": mean_guess})
write_text(data_dir(pair.name) / "05_nodes.csv", table.to_csv(index=False, float_format="%.4f"))
sets = {"streams": np.arange(len(parts) + len(heads), len(nodes)), "top": top, "random": random_nodes, "both": np.concatenate([top, random_nodes])}
agreement = {name: stats.correlation(mean_guess[at], mean_exact[at]) for name, at in sets.items()}
sizes = {name: stats.bootstrap(np.abs(exact[:, sets[name]]).mean(1)) for name in ("top", "random")}
slope = {name: float((mean_guess[at] * mean_exact[at]).sum() / (mean_guess[at] ** 2).sum()) for name, at in sets.items()}
largest = top[np.abs(mean_exact[top]).argmax()]
ahead = stats.paired(np.abs(exact[:, top]).mean(1), np.abs(exact[:, random_nodes]).mean(1))
display(Markdown("Correlation of estimate and exact effect: " + ", ".join(f"{name} {value:.3f}" for name, value in agreement.items())), table.iloc[top[:10]].round(3))

# %%
rules = [
    findings.Part("(a) correlation, top and random nodes", agreement["both"], findings.Rule("above", 0.8)),
    findings.Part("(b) mean exact size, top minus random, nats", ahead, findings.Rule("above", 0)),
]
details = {
    "largest single node": str(nodes[largest]),
    "its exact effect, nats": stats.bootstrap(exact[:, largest]),
    "exact effect per nat of estimate": slope["both"],
    "the same, streams": slope["streams"],
    "correlation, streams alone": agreement["streams"],
    "correlation, top nodes alone": agreement["top"],
    "mean exact size, top, nats": sizes["top"],
    "mean exact size, random, nats": sizes["random"],
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
panels = {
    f"streams, r = {agreement['streams'].estimate:.2f}": [("points", mean_guess[sets["streams"]], mean_exact[sets["streams"]], figures.THIRD)],
    f"MLPs and heads, r = {agreement['both'].estimate:.2f}": [
        (f"{len(random_nodes)} random", mean_guess[random_nodes], mean_exact[random_nodes], figures.CONTROL), (f"top {len(top)} of explore", mean_guess[top], mean_exact[top], figures.WAIT),
    ],
}  # fmt: skip
title = f"Estimate and exact effect correlate at {agreement['streams'].estimate:.2f} for streams, {agreement['both'].estimate:.2f} for MLPs and heads; a nat of estimate is {slope['streams']:.2f} and {slope['both']:.2f} nats of effect"
fig = figures.scatter(panels, title=title, xlabel="estimate (nats)", ylabel="exact effect on c (nats)")
figures.save_figure(fig, "05_estimate_and_exact", pair=pair.name, note=f"means over {len(few)} combined prompts, confirm")

# %% [markdown]
# **Figure 2: the first-order estimate against the run.** One dot a node; the line is equality. Left the stream at every depth, right MLPs and heads: wine those of largest estimate on explore, grey squares random ones. Dots below the line are overestimated.

# %% [markdown]
# **What it does not show.** That the named nodes work together: each was patched alone.

# %%
def by_layer(values: np.ndarray, kind: str) -> np.ndarray:
    """Columns of one kind of layer output, [prompt, layer]."""
    return values[:, [place for place, node in enumerate(nodes) if node.kind == kind]]


panels = {
    kind: {"exact": (stats.bands(by_layer(exact, kind)), figures.DISTILLED), "estimate": (stats.bands(by_layer(guessed, kind)), figures.THIRD)}
    for kind in ("attention", "mlp")
}
lead = max(((kind, layer) for kind in panels for layer in range(n_layers)), key=lambda at: abs(by_layer(of_explore[None], at[0])[0, at[1]]))
difference = (own["base", "confirm"] - own["distilled", "confirm"])[: len(few)]
title = f"The base's {lead[0].upper() if lead[0] == 'mlp' else lead[0]} output of layer {lead[1]} (largest estimate on explore) moves the distilled model by {by_layer(exact, lead[0]).mean(0)[lead[1]]:+.1f} of {difference.mean():.1f} nats"
fig = figures.lines({"attention": panels["attention"], "MLP": panels["mlp"]}, range(n_layers), title=title, xlabel="layer", ylabel="effect on c (nats)", zero=True)
figures.save_figure(fig, "05_layer_effects", pair=pair.name, note=f"n = {len(few)} combined prompts, confirm; distilled ← base")

# %% [markdown]
# **Figure 3: one layer's output at a time, the base's into the distilled model.** Orange exact, indigo the estimate; 95 % bootstrap over prompts. Above zero: the base's value brings the distilled model closer to stopping.

# %% [markdown]
# **What it does not show.** Other positions: only the last token's value is replaced.

# %% [markdown]
# ## F16 · Replacing layers
#
# **Question.** Take the weights of more and more layers from the distilled model into the base. When does it begin to read like the distilled one? Metrics: the share of the difference in c, $(c_B - c)/(c_B - c_D)$ as ratio of means, P(stop), and the KL divergence of the next-token distribution from either model. **Orders**: from the bottom, from the top, at random (one fixed order).

# %% [markdown]
# **Controls.** Identity (a layer from itself, asserted), and noise: each matrix of the same layers changed by a random matrix of the same norm as the real change. **Rule, made stricter after a first look at the result.** F16 holds if (a) the change is gradual: in none of the three orders does one stage (of `N_STEPS` equal ones) make more than half of the difference; and (b) the single layer that does most on `explore` makes less than a quarter of it on `confirm`; each with its whole interval. That all layers together make all of it is no test where embedding, norms and head agree, as on `smol`.

# %%
base, n_read = pair.base, min(N_SWAP, len(texts["base", "confirm"]))
read = {split: texts["base", split][:n_read] for split in combined}
at_base, at_distilled = ({split: own[role, split][:n_read] for split in read} for role in ("base", "distilled"))
whole = {split: at_base[split] - at_distilled[split] for split in read}
assert np.allclose(contrast(base, read["confirm"]), at_base["confirm"], atol=1e-3)


def moved(layers, split: str = "confirm", **options) -> np.ndarray:
    """How far the base's c falls when it takes some layers from the distilled model, one a prompt."""
    with swapped(pair, "base", layers, **options) as hybrid:
        return at_base[split] - contrast(hybrid, read[split])


with swapped(pair, "base", range(n_layers), amount=0.0) as same:  # identity: nothing of the other
    assert np.array_equal(contrast(same, read["confirm"]), contrast(base, read["confirm"])), "identity must change nothing"
stages = sorted({round(k * n_layers / N_STEPS) for k in range(N_STEPS + 1)})
orders = {"from the bottom": list(range(n_layers)), "from the top": list(range(n_layers))[::-1], "at random": list(map(int, np.random.default_rng(SEED).permutation(n_layers)))}

# %%
def read_hybrids(rows: list[int]) -> dict:
    """Of each prompt and hybrid: c, P(stop), and the KL divergence from either model, [prompt, order and stage]."""
    target = {role: next_distribution(m, take(texts[role, "confirm"][:n_read], rows)) for role, m in members.items()}
    columns = {"c": [], "P(stop)": [], "base": [], "distilled": []}
    for name, k in hybrids:
        with swapped(pair, "base", orders[name.removeprefix("noise, ")][:k], noise=SEED if "noise" in name else None) as hybrid:
            found = next_distribution(hybrid, take(read["confirm"], rows))
        columns["c"].append(found[:, stop].mean(1) - found[:, wait].mean(1))
        columns["P(stop)"].append(found[:, list(base.groups.stop)].exp().sum(1))
        for role in members:
            columns[role].append(kl_nats(target[role], found))
    return {key: np.stack(values, axis=1) for key, values in columns.items()}


hybrids = [(name, k) for name in (*orders, "noise, from the bottom") for k in stages]
measured = {key: values.T for key, values in kept(pair, "05_gradual", read_hybrids, n_read, fresh=RECOMPUTE).items()}
reached = dict(zip(hybrids, at_base["confirm"] - measured["c"], strict=True))
gradual = {hybrid: stats.ratio_of_means(moved_by, whole["confirm"]) for hybrid, moved_by in reached.items()}
p_stop = {hybrid: stats.bootstrap(values) for hybrid, values in zip(hybrids, measured["P(stop)"], strict=True)}
divergence = {hybrid: {role: stats.bootstrap(measured[role][at]) for role in members} for at, hybrid in enumerate(hybrids)}

# %%
colours = {"from the bottom": figures.WAIT, "from the top": figures.THIRD, "at random": figures.STOP, "noise, from the bottom": figures.CONTROL}
panels = {
    "share of the difference in c": {name: ([gradual[name, k] for k in stages], colour) for name, colour in colours.items()},
}
half = stages[len(stages) // 2]
title = f"With {half} of {n_layers} layers taken from the bottom the base has gone {gradual['from the bottom', half].estimate:.0%} of the way, from the top {gradual['from the top', half].estimate:.0%}; noise of the same norm {gradual['noise, from the bottom', half].estimate:.0%}"
fig = figures.lines(panels | {"P(stop)": {name: ([p_stop[name, k] for k in stages], colour) for name, colour in colours.items()}}, stages, title=title, xlabel="layers taken from the distilled model", ylabel="share of the difference, P(stop)", zero=True)
figures.save_figure(fig, "05_gradual", pair=pair.name, note=f"n = {n_read} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 4: from base to distilled, layer by layer.** Left the share of the difference in c, right P(stop). Wine from the bottom, indigo from the top, black in one random order, dashed grey noise of the same norm from the bottom.

# %% [markdown]
# **What it does not show.** That the hybrids in between are sound language models; figure 5 and the texts below say how far they are from both.

# %%
panels = {
    f"from the {role}": {name: ([divergence[name, k][role] for k in stages], colour) for name, colour in colours.items()} for role in members
}
title = f"KL divergence of the hybrids: with {half} layers from the bottom {divergence['from the bottom', half]['base'].estimate:.2f} nats from the base, {divergence['from the bottom', half]['distilled'].estimate:.2f} from the distilled"
fig = figures.lines(panels, stages, title=title, xlabel="layers taken from the distilled model", ylabel="KL(model ‖ hybrid) (nats)")
figures.save_figure(fig, "05_divergence", pair=pair.name, note=f"n = {n_read} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 5: how far the hybrids are from either model.** KL divergence of the next-token distribution; colours as in figure 4.

# %% [markdown]
# **What it does not show.** Later tokens. What some of the hybrids write, greedy, the last with the distilled model's head besides:

# %%
chosen = combined["confirm"].questions[:1]
rows = []
for k, head in [(k, False) for k in sorted({stages[0], stages[len(stages) // 3], stages[2 * len(stages) // 3], stages[-1]})] + [(n_layers, True)]:
    with swapped(pair, "base", orders["from the bottom"][:k], head=head) as hybrid:
        done = complete(hybrid, ask(hybrid, chosen, form="template"), max_new_tokens=SHOWN_TOKENS)[0]
    rows.append({"layers taken": f"{k} and the head" if head else k, "writes": repr(done.text)[1:-1], "ends by": done.stop})
display(Markdown(f"`{chosen[0].text} Just give the answer.`, the base's template:"), pd.DataFrame(rows).set_index("layers taken"))

# %% [markdown]
# An empty text that ends at once, with all layers taken, is no contradiction on `smol`: the template of the base opens no thought, the distilled model's first token is then `<think>`, and only its own head can write that (its row is one of the two that were trained, F12). With the head the hybrid thinks; the reserved token of the base's vocabulary stands where the tag would.

# %% [markdown]
# ### One layer at a time
#
# **Question.** What does a single layer of the distilled model do in the base? And what is missing when all layers but that one are taken? **Controls.** Noise of the same norm in the same layer.

# %%
def one_by_one(rows: list[int]) -> dict:
    """How far c falls with one layer taken, with noise in it, and with all but it taken, [prompt, layer]."""
    prompts = {split: take(read[split], rows) for split in read}
    found = {split: single_swaps(pair, "base", prompts[split], stop, wait) for split in read}
    found["noise"] = single_swaps(pair, "base", prompts["confirm"], stop, wait, noise=SEED)
    found["all but"] = single_swaps(pair, "base", prompts["confirm"], stop, wait, all_but=True)
    before = {split: np.array(take(at_base[split], rows))[:, None] for split in read}
    return {name: before["explore" if name == "explore" else "confirm"] - c.numpy() for name, c in found.items()}


single = kept(pair, "05_single", one_by_one, *map(len, read.values()), fresh=RECOMPUTE)
everything, noise = moved(range(n_layers)), single["noise"]
assert np.allclose(single["confirm"][:, n_layers // 2], moved([n_layers // 2]), atol=1e-3), "sharing the layers below must change nothing"
all_but = everything[:, None] - single["all but"]
best = int(np.abs(single["explore"].mean(0)).argmax())
share = {name: [stats.ratio_of_means(column, whole["confirm"]) for column in values.T] for name, values in (("one layer taken", single["confirm"]), ("noise", noise), ("the last one missing", all_but))}
all_layers = stats.ratio_of_means(everything, whole["confirm"])

# %%
steps = {
    name: [
        stats.ratio_of_means(reached[name, stages[k + 1]] - reached[name, stages[k]], whole["confirm"])
        for k in range(len(stages) - 1)
    ]
    for name in orders
}
largest_step = {name: max(found, key=lambda step: step.estimate) for name, found in steps.items()}
alone = share["one layer taken"][best]
rules = [
    findings.Part(f"(a) largest of {N_STEPS} stages {name}", step, findings.Rule("below", 0.5))
    for name, step in largest_step.items()
]
rules += [findings.Part("(b) the best single layer", alone, findings.Rule("below", 0.25))]
details = {"all layers": all_layers}
details["sum of all single layers"] = stats.ratio_of_means(single["confirm"].sum(1), whole["confirm"])
details |= {f"half of the layers {name}": gradual[name, half] for name in ("from the bottom", "from the top")}
for k in (0, stages[1], half, n_layers):
    details[f"P(stop), the upper {k} layers taken"] = p_stop["from the top", k]

# %%
F16 = findings.record(
    pair,
    "F16",
    notebook="05_patching",
    quantity="share of the difference in c that the single best layer "
    f"(chosen on explore: {best}) makes in the base",
    unit="of the difference",
    interval=alone,
    rules=rules,
    control=("noise of the same norm in that layer", share["noise"][best]),
    details=details,
)
Markdown(findings.sentence(F16))

# %%
panels = {
    "one layer taken": {"the distilled's": (share["one layer taken"], figures.DISTILLED), "noise": (share["noise"], figures.CONTROL)},
    "all but one taken": {"what is missing": (share["the last one missing"], figures.DISTILLED)},
}
summed = stats.ratio_of_means(single["confirm"].sum(1), whole["confirm"])
title = f"The best single layer makes {share['one layer taken'][best].estimate:.0%} of the difference; all single effects add up to {summed.estimate:.0%}, all layers together make {all_layers.estimate:.0%}"
fig = figures.lines(panels, range(n_layers), title=title, xlabel="layer", ylabel="share of the difference in c", zero=True)
figures.save_figure(fig, "05_single_layers", pair=pair.name, note=f"n = {n_read} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 6: single layers.** Left one layer of the distilled model in the base (orange) and noise of the same norm (dashed grey); right what is missing when only this layer stays the base's. Bands: 95 % bootstrap over prompts.

# %% [markdown]
# **What it does not show.** Pairs and triples of layers. If the single effects add up to less than the whole, layers need each other, and that is why one alone does little; if to more, they stand in for each other.

# %% [markdown]
# ### Attention, MLP, norms, embedding or head?
#
# **Question.** The same swap by kind of weight, all layers at once. **Control.** Noise of the same norm in the same weights.

# %%
kinds = {"attention": dict(part="attention"), "MLP": dict(part="mlp"), "layer norms": dict(part="norms")}
everywhere = {name: (range(n_layers), options) for name, options in kinds.items()}
everywhere |= {"embedding": ((), dict(embedding=True)), "head": ((), dict(head=True)), "final norm": ((), dict(norm=True))}
rows = []
for name, (layers, options) in everywhere.items():
    rows.append((name, stats.ratio_of_means(moved(layers, **options), whole["confirm"]), figures.DISTILLED))
    if name in kinds:
        rows.append((name, stats.ratio_of_means(moved(layers, noise=SEED, **options), whole["confirm"]), figures.CONTROL))
shown = {name: interval for name, interval, colour in rows if colour == figures.DISTILLED}
title = "Taken alone: " + ", ".join(f"{name} {round(interval.estimate, 2) + 0.0:.0%}" for name, interval in shown.items()) + " of the difference"
fig = figures.interval_rows({"": rows}, title=title, unit="share of the difference in c", zero=True)
figures.save_figure(fig, "05_parts", pair=pair.name, note=f"n = {n_read} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 7: kinds of weights.** Orange the distilled model's weights in the base, grey squares noise of the same norm. On `smol` norms, head and embedding were frozen in training except for the two tags, so their zeros are by construction. The heads of the two models may be tied in one and not in the other; embedding and head are swapped apart in any case.

# %% [markdown]
# **What it does not show.** Interactions of attention and MLP: the shares need not add up to one.

# %% [markdown]
# ### Why does one layer do so little?
#
# **Question.** Three answers are possible: the streams of the two models hardly differ until late; each layer's change matters only on top of the others; later layers undo it. Metrics by depth: cosine of the two models' streams, length of their difference over the base's length, centred kernel alignment over prompts; then direct effect (what a layer writes to the logits) against total effect (exact patching). **Control.** For the streams, the same measures between the base and itself on shuffled words.

# %%
one, two = (activations(members[role], texts[role, "confirm"]).stream.cpu() for role in ("base", "distilled"))
other = source_for("base", "words shuffled", "confirm").stream.cpu()
measured = {}
for name, stream in (("distilled", two), ("base, shuffled", other)):
    cosine = torch.nn.functional.cosine_similarity(one, stream, dim=-1).numpy()
    distance = ((stream - one).norm(dim=-1) / one.norm(dim=-1)).numpy()
    alike = [stats.alignment(one[:, point], stream[:, point]) for point in range(1, n_layers + 1)]
    measured[name] = {"cosine": stats.bands(cosine[:, 1:]), "relative distance": stats.bands(distance[:, 1:]), "alignment": alike}
shades = {"distilled": figures.DISTILLED, "base, shuffled": figures.CONTROL}
panels = {quantity: {name: (measured[name][quantity], shades[name]) for name in shades} for quantity in ("cosine", "relative distance", "alignment")}
middle, end_share = (measured["distilled"]["relative distance"][point].estimate for point in (n_layers // 2, -1))
title = f"The two models' streams differ by {middle:.0%} of their length half way, by {end_share:.0%} at the end"
fig = figures.lines(panels, range(1, n_layers + 1), title=title, xlabel="depth (layers passed)", ylabel="against the base, same prompt", zero=True)
figures.save_figure(fig, "05_streams", pair=pair.name, note=f"n = {len(one)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 8: how far apart the two streams are.** Orange the distilled model against the base on the same prompt; dashed grey the base on shuffled words against the base. At the first depths both runs hold little but the last token itself.

# %% [markdown]
# **What it does not show.** Whether the part in which they differ is read by anything: that is the next figure.

# %%
direct = {role: attribute(m, texts[role, "confirm"][:N_EXACT], stop, wait) for role, m in members.items()}
values = {role: activations(m, texts[role, "confirm"][:N_EXACT]) for role, m in members.items()}
end = values["distilled"].stream[:, -1]
toward = logit_direction(into, stop, wait) * into.norm_weight * torch.rsqrt(end.pow(2).mean(-1, keepdim=True) + into.config.rms_norm_eps)
written = {kind: ((getattr(values["base"], kind) - getattr(values["distilled"], kind)) * toward[:, None]).sum(-1).cpu().numpy() for kind in ("attention", "mlp")}
panels = {
    {"attention": "attention", "mlp": "MLP"}[kind]: {
        "total (patched)": (stats.bands(by_layer(exact, kind)), figures.DISTILLED), "direct (written)": (stats.bands(written[kind]), figures.BASE),
    }
    for kind in ("attention", "mlp")
}  # fmt: skip
layer_total, layer_direct = (sum(values[kind].mean(0) for kind in values) for values in ({kind: by_layer(exact, kind) for kind in written}, written))
undone = stats.correlation(layer_direct, layer_total, ranks=True)
title = f"Direct and total effect of a layer: rank correlation {undone:.2f}; summed over layers {layer_direct.sum():+.1f} and {layer_total.sum():+.1f} nats"
fig = figures.lines(panels, range(n_layers), title=title, xlabel="layer", ylabel="effect on c (nats)", zero=True)
figures.save_figure(fig, "05_direct_and_total", pair=pair.name, note=f"n = {len(few)} combined prompts, confirm; base's values against the distilled's")

# %% [markdown]
# **Figure 9: what a layer writes, and what comes of it.** Blue the direct difference (what the base's output writes towards c minus what the distilled model's own writes, at the distilled model's final scale), orange the total effect of patching that output at the last token. Where the orange line is nearer to zero than the blue, later layers undo what was written; where it is further, they build on it.

# %% [markdown]
# **What it does not show.** Effects by way of earlier positions.

# %% [markdown]
# ### Only the last token?
#
# **Question.** Is the decision made at the last position, or carried in from the text before it? The base's stream replaces the distilled model's at one depth: at the last token only, at all earlier positions only, or everywhere. **Control.** The same with the distilled model's own stream changes nothing (asserted).

# %%
def replace_streams(rows: list[int]) -> dict:
    """What the base's stream does to c in the distilled model, by positions, [prompt, point]."""
    prompts = take(few, rows)
    streams = {role: streams_at_all_positions(members[role], take(texts[role, "confirm"][:N_EXACT], rows)) for role in members}
    assert float(patch_streams(into, prompts[:2], streams["distilled"][:2], stop, wait, where="all").abs().max()) < 1e-3
    return {where: patch_streams(into, prompts, streams["base"], stop, wait, where=where) for where in ("last", "earlier", "all")}


replaced = kept(pair, "05_positions", replace_streams, len(few), fresh=RECOMPUTE)
share_of = {where: [stats.ratio_of_means(column, difference) for column in values.T] for where, values in replaced.items()}
colours = {"all": figures.BASE, "last": figures.WAIT, "earlier": figures.THIRD}
names = {"all": "all positions", "last": "last token only", "earlier": "all but the last"}
takes_over = next((point for point, interval in enumerate(share_of["last"]) if interval.estimate > 0.5), None)
title = "The last token alone " + (f"carries more than half of the difference from depth {takes_over} of {n_layers} on" if takes_over is not None else "never carries half of the difference")
fig = figures.lines({"": {names[where]: (share_of[where], colour) for where, colour in colours.items()}}, range(n_layers + 1), title=title, xlabel="depth at which the base's stream is put in", ylabel="share of the difference in c", zero=True)
figures.save_figure(fig, "05_positions", pair=pair.name, size=(8, 3.6), note=f"n = {len(few)} combined prompts, confirm; distilled ← base")

# %% [markdown]
# **Figure 10: where the difference sits.** Share of the difference in c that the base's stream brings back in the distilled model, by depth and position. The rest of the pass runs on the distilled model's own weights.

# %% [markdown]
# **What it does not show.** Which earlier positions matter.

# %%
Markdown(f"**So why does one layer do so little?** The streams differ little half way ({middle:.0%} of their length) and more at the end ({end_share:.0%}). Single swaps, of the distilled model's weights into the base, add up to {summed.estimate:.0%} of the difference, while single patches of the last token's outputs, of the base's into the distilled model, add up to {layer_total.sum() / difference.mean():.0%} of it. The direction differs, too, which may be a part of it (figure 1). Another reading: a swapped layer reads a stream that the other changed layers never wrote, a patched output comes from a run in which they all did. What a layer writes directly ranks the layers like the total effect at {undone:.2f}.")

# %% [markdown]
# ## One prompt, one token, in full; then the next token
#
# **Question.** Take one prompt and add up every component's share in c, from the embedding to the logit, in both models. Then fix the distilled model's first token and do the same for the token after it. The parts sum to the true logits (asserted).

# %%
index = int(np.random.default_rng(SEED).choice(len(texts["base", "confirm"])))
first = {role: texts[role, "confirm"][index] for role in members}
token = top_tokens(members["distilled"], [first["distilled"]], k=1)[0][0][0]
accounts, rows = {}, []
for step, prompts in (("first token", first), ("second token", {role: prompt + token for role, prompt in first.items()})):
    for role, m in members.items():
        parts_of = attribute(m, [prompts[role]], stop, wait)
        assert abs(float(parts_of.total) - contrast(m, [prompts[role]])[0]) < 1e-3, "the parts must sum to the logit"
        pieces = np.stack([parts_of.attention[0], parts_of.mlp[0]], axis=1)
        accounts[step, role] = np.concatenate([[float(parts_of.embedding)], float(parts_of.embedding) + np.cumsum(pieces.sum(1))])
        rows += [{"token": step, "model": role, "layer": layer, "attention": a, "mlp": b} for layer, (a, b) in enumerate(pieces)]
        rows.append({"token": step, "model": role, "layer": -1, "attention": float(parts_of.embedding), "mlp": 0.0})
write_text(data_dir(pair.name) / "05_account.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.4f"))
account = pd.DataFrame(rows)
account["both"] = account["attention"] + account["mlp"]
wide = account.pivot_table(index="layer", columns=["token", "model"], values="both")
largest = wide.loc[wide["first token"].diff(axis=1).iloc[:, -1].abs().nlargest(8).index].round(2)
display(Markdown(f"{findings.code_span(first['base'])}, then the distilled model's first token {findings.code_span(repr(token))}. The eight layers whose share differs most (layer −1: the embedding):"), largest)

# %%
panels = {step: {role: (accounts[step, role], figures.ROLE[role]) for role in members} for step in ("first token", "second token")}
ends = {key: values[-1] for key, values in accounts.items()}
title = f"One prompt: c ends at {ends['first token', 'base']:+.1f} (base) and {ends['first token', 'distilled']:+.1f} (distilled); after {token!r} at {ends['second token', 'base']:+.1f} and {ends['second token', 'distilled']:+.1f}"
fig = figures.lines(panels, range(n_layers + 1), title=title, xlabel="components added up to depth", ylabel="c (nats)", zero=True)
figures.save_figure(fig, "05_one_prompt", pair=pair.name, note="one combined prompt, confirm, plain")

# %% [markdown]
# **Figure 11: one prompt's account.** The running sum of all components' direct contributions to c, at the scale of the final norm; the right end is the true logit difference. Left for the token after the answer, right for the one after that, with the first fixed.

# %% [markdown]
# **What it does not show.** Anything beyond this prompt; it is an illustration of the sum.

# %% [markdown]
# ## Do the methods agree?
#
# **Question.** Six ways to say which layer matters for the difference: the jump of the lens, what the layer writes (direct), the estimate and the exact effect of patching its outputs, the relative change of its weights, and the effect of swapping it alone. Do they rank the layers alike? And the heads? Metric: Spearman's rank correlation of sizes, over layers and over heads. **Control.** Noise of the same norm, swapped alone: a method that agrees with it as much as with the others measures size and not meaning.

# %%
lens = {role: read_stream(m, stream[:N_EXACT].to(m.device), [*stop, *wait], ranked=False).logits for (role, m), stream in zip(members.items(), (one, two), strict=True)}
gap = {role: (read[..., 0] - read[..., 1:].mean(-1)).numpy() for role, read in lens.items()}
changed = weights.compare_matrices(pair)
of_layer = changed[changed["matrix"].isin(weights.MATRICES)].groupby("layer")["relative"].mean().to_numpy()
both_kinds = {name: by_layer(found, "attention") + by_layer(found, "mlp") for name, found in (("estimate", guessed), ("exact", exact))}
measures = {
    "lens jump": np.diff(gap["base"] - gap["distilled"]).mean(0), "direct": layer_direct, "attribution patching": both_kinds["estimate"].mean(0),
    "exact patching": both_kinds["exact"].mean(0), "weight change": of_layer, "swap": single["confirm"].mean(0), "noise": noise.mean(0),
}  # fmt: skip
head_weight = np.array([
    [float((b - a).norm() / a.norm()) for a, b in zip(*(m.model.model.layers[layer].self_attn.o_proj.weight.unflatten(1, (n_heads, -1)).unbind(1) for m in pair.members), strict=True)]
    for layer in range(n_layers)
])  # fmt: skip
head_direct = (direct["base"].heads - direct["distilled"].heads).mean(0).numpy()
of_heads = {"direct": head_direct.ravel(), "attribution patching": by_layer(guessed, "head").mean(0), "exact patching": by_layer(exact, "head").mean(0), "o_proj change": head_weight.ravel()}

# %%
def agree(found: dict) -> tuple[np.ndarray, pd.DataFrame]:
    """Rank correlations of sizes, and the same with intervals as a table."""
    every = {(a, b): stats.correlation(np.abs(x), np.abs(y), ranks=True) for a, x in found.items() for b, y in found.items()}
    return np.array([[every[a, b].estimate for b in found] for a in found]), pd.DataFrame({b: {a: f"{every[a, b]:.2f}" for a in found} for b in found})


(layers_agree, layer_table), (heads_agree, head_table) = agree(measures), agree(of_heads)
display(Markdown(f"Over {n_layers} layers, with 95 % bootstrap over layers:"), layer_table, Markdown(f"Over {len(heads)} heads:"), head_table)

# %%
maps = {"layers": layers_agree, "heads": heads_agree}
labels = {"layers": list(measures), "heads": list(of_heads)}
title = f"Exact patching agrees with attribution patching at {layers_agree[3, 2]:.2f} over layers and {heads_agree[2, 1]:.2f} over heads, with the weight change at {layers_agree[3, 4]:.2f} and {heads_agree[2, 3]:.2f}"
fig = figures.heat_maps(maps, title=title, xlabel="", ylabel="", unit="rank correlation of sizes", columns=labels, names=labels, written=True)
figures.save_figure(fig, "05_agreement", pair=pair.name, size=(12, 5), note=f"means over {len(few)} to {n_read} combined prompts, confirm")

# %% [markdown]
# **Figure 12: how far the methods agree.** Spearman's correlation of the sizes of effects, over layers (left) and heads (right); intervals in the tables above.

# %% [markdown]
# **What it does not show.** Who is right where they differ: they answer different questions. Direct leaves out what later layers do with a layer's output, patching leaves out other positions, and a weight's change can point where nothing is read.

# %% [markdown]
# ## Try it
#
# Choose layers to take from the other model, which part, and a prompt: the next token of base, distilled and hybrid at once, and their texts on the button. Figures 4, 6 and 7 are the same for readers without a kernel.

# %%
explorers.swap_explorer(pair)

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F15", "F16"))

# %% [markdown]
# Back: [04_value_vectors](04_value_vectors.ipynb). Next: [06_steering](06_steering.ipynb) asks whether the base can be made to wait, and the distilled to stop.
