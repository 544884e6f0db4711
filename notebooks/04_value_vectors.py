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
# # 04 · Did the weights change, and which neurons write "stop" and "Wait"?
#
# **Claim.** Under test: fine-tuning barely changed the weights; some value vectors (columns of `down_proj`) point at the stop token or at " Wait"; silencing the first and scaling the second makes the base go on, and the reverse makes the distilled model stop; and the stop token's unembedding is a linear combination of others. What holds on this pair is printed below the set-up.
#
# **Evidence.** The map of relative changes (figure 1), the search for value vectors beside the same search for other words (figure 4), and the interventions beside matched random neurons (figures 6 to 8).
#
# **Caveat.** A small change in norm can be a large change in function, and a value vector close to a token need not be what moves that token. After "A Mechanistic Understanding of Alignment Algorithms" (Lee et al. 2024) it was found that such neurons explain 2.5 to 24 % of the effect there (Yang et al. 2025), so shares of the whole shift stand here too. The numbers stored here are from the embedded pair `smol`, whose distilled half is a LoRA adapter: they say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them). **Writes** `data/<pair>/04_*.json`, `data/<pair>/04_weights.csv`, findings F12 to F14, figures `04_*`.

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
N_NEURONS = 50  # value vectors of each kind that are edited
N_WORDS = 60  # quick: 20; random words: the null of the search
ALPHAS = [0.0, 2.0, 4.0, 8.0]  # quick: [0.0, 4.0]; factors and addends
COUNTS = [1, 3, 10, 50, 300]  # quick: [1, 10]; how many neurons are silenced
N_AFTER = 48  # quick: 8; questions answered under an intervention; None: all of the confirm split
MAX_AFTER = 300  # quick: 40; new tokens under an intervention
N_DRAWS = 5  # quick: 2; draws of matched random neurons at the chosen dose
TERMS = 16  # unembeddings in a sparse combination

# %% jupyter={"source_hidden": true} tags=["claim"]
import itertools

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, stats, weights
from helpers.generation import Change, answers, cut_short, load_combined
from helpers.pairs import load_pair
from helpers.prompts import load_questions
from helpers.patching import attribute
from helpers.readouts import activations, last_hidden, logits_of, logprobs_of, promoted
from helpers.store import data_dir, kept, take, write_text
from helpers.tokens import control_ids
from helpers.weights import NeuronEdit, with_neurons

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F12", "F13", "F14"))

# %% [markdown]
# ## F12 · How much did the weights change?
#
# **Question.** For each matrix, how large is the difference of the two models next to the base's matrix? Metric: $\lVert W^D - W^B\rVert_F / \lVert W^B\rVert_F$. Beside it the **effective rank** of the difference, $(\sum\sigma_i^2)^2/\sum\sigma_i^4$ with its singular values $\sigma_i$: 1 if all the change lies in one direction, the full rank if it is spread like noise.

# %% [markdown]
# **Control.** The same measure between the base and its own weights rounded to bfloat16: how much a matrix changes by being stored in 16 bits alone. (The base of `smol` was dequantised from 4 bits, which both of its models share.)

# %% [markdown]
# **Rule, written before the result.** F12 holds if the mean relative change over all matrices of all layers has an interval below 0.1, *and* at least one token's embedding moved further than the average matrix did.

# %%
changed = weights.compare_matrices(pair)
folded = weights.compare_matrices(pair, folded=True)
inside = changed[changed["matrix"].isin(weights.MATRICES)]
rounding = [
    float((w.bfloat16().float() - w.float()).norm() / w.float().norm())
    for layer in pair.base.model.model.layers for w in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight)
]  # fmt: skip
write_text(data_dir(pair.name) / "04_weights.csv", changed.to_csv(index=False, float_format="%.5g"))
table = changed.groupby("matrix", sort=False)[["relative", "cosine", "effective_rank", "full_rank"]].mean()
table["relative, norms folded in"] = folded.groupby("matrix", sort=False)["relative"].mean()
table.round(5)

# %%
tokenizer, groups = pair.distilled.tokenizer, pair.distilled.groups
marked = {**dict.fromkeys(groups.reasoning, "reasoning"), **dict.fromkeys(groups.wait, "Wait set"), **dict.fromkeys(groups.stop, "stop"),
          **{index: "think tag" for index in (groups.think, groups.end_think) if index is not None}}  # fmt: skip
moved = {kind: weights.compare_tokens(pair, head=head) for kind, head in (("embedding", False), ("unembedding", True))}
for frame in moved.values():
    frame["token"] = [repr(tokenizer.decode([index])) for index in frame.index]
    frame["group"] = [marked.get(index, "") for index in frame.index]
top_moved = pd.concat({kind: frame.nlargest(8, "relative") for kind, frame in moved.items()})
of_groups = pd.DataFrame({kind: frame[frame["group"] != ""].groupby("group")["relative"].mean() for kind, frame in moved.items()})
heads = ", ".join(f"{m.role} {'tied' if m.tied else 'untied'}" for m in pair.members)
display(Markdown(f"Heads: {heads}. The tokens that moved most, then the mean of each marked group:"), top_moved.round(4), of_groups.round(5))

# %%
mean_change = stats.bootstrap(inside["relative"])
far = {kind: int((frame["relative"] > mean_change.estimate).sum()) for kind, frame in moved.items()}
ranks = stats.bootstrap(inside["effective_rank"])
n_far = stats.Interval(*[float(far["embedding"])] * 3, len(moved["embedding"]))
rules = [
    findings.Part("mean relative change", mean_change, findings.Rule("below", 0.1)),
    findings.Part("embeddings that moved further, at least one", n_far, findings.Rule("above", 0.5)),
]
details = {
    "rows of the head that moved further": far["unembedding"],
    "effective rank of a change": ranks,
    "rank that it could have": float(inside["full_rank"].median()),
}
if pair.name == "smol":
    details["trained embeddings on smol"] = "the two think tags' alone"

# %%
F12 = findings.record(
    pair,
    "F12",
    notebook="04_value_vectors",
    quantity="mean relative change of a matrix (Frobenius norm of the difference over that of the base)",
    unit="of its norm",
    rules=rules,
    control=("the base against its own rounding to bfloat16", stats.bootstrap(rounding)),
    split="",
    sample="matrices",
    details=details,
)
Markdown(findings.sentence(F12))

# %%
wide = {name: inside.pivot(index="layer", columns="matrix", values=name)[list(weights.MATRICES)] for name in ("relative", "effective_rank")}
title = f"The average matrix changed by {mean_change.estimate:.1%} of its norm, its rounding to bfloat16 is {np.mean(rounding):.2%}"
fig = figures.heat_maps({"relative change": wide["relative"]}, title=title, xlabel="", ylabel="layer", unit="of the base's norm",
                        columns=[name.removesuffix("_proj") for name in weights.MATRICES], diverging=False)  # fmt: skip
figures.save_figure(fig, "04_weight_change", pair=pair.name, note=f"{len(inside)} matrices")

# %% [markdown]
# **Figure 1: how far each matrix moved.** Rows are layers, columns the seven matrices of a layer; darker is more.

# %% [markdown]
# **What it does not show.** What the change does. Norm is no measure of function: notebook 05 puts noise of the same norm into the base and compares.

# %%
shown = [0, pair.base.n_layers // 2, pair.base.n_layers - 1]
noise = torch.linalg.svdvals(torch.randn(*pair.base.model.model.layers[0].self_attn.o_proj.weight.shape, generator=torch.Generator().manual_seed(SEED))).numpy() ** 2
cumulative = {(name, layer): np.cumsum(weights.spectrum(pair, layer, name)) for layer in shown for name in ("q_proj", "down_proj")}
steps = min(40, min(len(values) for values in cumulative.values()), len(noise))
curves = {
    name: (np.array([values[:steps] for (kind, _), values in cumulative.items() if kind == name]), colour)  # the layers look alike
    for name, colour in (("q_proj", figures.WAIT), ("down_proj", figures.THIRD))
}
curves["random matrix"] = (np.cumsum(noise) / noise.sum())[:steps], figures.CONTROL
title = f"The change of a matrix lies in few directions: effective rank {ranks.estimate:.1f} of {inside['full_rank'].median():.0f}"
fig = figures.lines({"": curves}, range(1, steps + 1), title=title, xlabel="singular directions of the difference", ylabel="share of its squared norm")
figures.save_figure(fig, "04_spectrum", pair=pair.name, size=(8, 3.8), note="three layers, two matrices")

# %% [markdown]
# **Figure 2: how few directions hold the change.** Wine query matrices, indigo `down_proj`; dashed grey a random matrix. On `smol` the adapter's rank is 16, so no curve can rise beyond the 16th direction, and the layer's norms, the embeddings and the head were frozen but for the rows of the two tags: there "barely changed" is partly a choice made in training, not a discovery. On a pair that was fully fine-tuned neither bound holds.

# %% [markdown]
# **What it does not show.** Which of these directions matter.

# %%
at_most = {kind: frame[(frame["relative"] > 0) | (frame["group"] != "")].nlargest(16, "relative") for kind, frame in moved.items()}
colours = {"stop": figures.STOP, "Wait set": figures.WAIT, "reasoning": figures.WAIT, "think tag": figures.THIRD, "": figures.CONTROL}
panels = {
    kind: [(row.token, row.relative, colours[row.group]) for row in frame.itertuples()]
    for kind, frame in at_most.items()
}
title = f"{far['embedding']} of {len(moved['embedding'])} embeddings moved further than the average matrix"
fig = figures.interval_rows({"embedding": panels["embedding"]}, title=title, unit="relative change of the embedding")
figures.save_figure(fig, "04_token_change", pair=pair.name, key={"stop": figures.STOP, "Wait set, reasoning": figures.WAIT, "think tag": figures.THIRD, "other": figures.CONTROL}, note="moved or marked, at most 16")

# %% [markdown]
# **Figure 3: the embeddings that moved most, and the marked ones.** Black the stop token, wine the Wait set and reasoning tokens, indigo the think tags, grey all else.

# %% [markdown]
# **What it does not show.** Tokens that did not move can still mean something new, since the layers around them did.

# %% [markdown]
# ## F13 · Do value vectors write "stop" and "Wait"?
#
# **Question.** Each MLP neuron writes its **value vector**, a column of `down_proj`, times its activation (Geva et al. 2022). Which columns point along the stop token's unembedding, or the Wait set's? Metric: cosine with the direction $(u - \bar u)\odot w$: unembedding minus the mean over the vocabulary, times the final norm's weight. Activations of SwiGLU are signed, so both signs count.

# %% [markdown]
# **Null.** The same search for other words, spread evenly over the vocabulary by merge rank: one at a time for the stop token, as many together as the Wait set has for that. **Rule for all of F13, made stricter after a first look at the result.** It holds if (a) the mean absolute cosine of the ten nearest columns is beyond that of 95 % of the random words (or sets of words), for stop *and* Wait, on both models: interval of that share above 0.95, and failed when it lies below; (b) on `confirm`, silencing the stop neurons and scaling the Wait neurons lowers $z(\text{stop}) - \overline{z(\text{Wait})}$ on the base by more than a tenth of the whole difference between the models *beyond* matched random neurons (mean of several draws) *and* beyond the nearest columns of two random words, and the reverse raises it on the distilled by as much; (c) the base's answers become longer than under the random neurons, and the distilled model's shorter.

# %%
members = {member.role: member for member in pair.members}
stop, wait = [pair.base.groups.stop[0]], list(pair.base.groups.wait)
words = list(dict.fromkeys([*pair.base.groups.control, *control_ids(tokenizer, tuple(range(400, len(tokenizer), max(1, len(tokenizer) // N_WORDS))), set(marked))]))[:N_WORDS]
near, raw, null = {}, {}, {}
for role, m in members.items():
    directions = torch.stack([weights.writing_direction(m, ids) for ids in (stop, wait)])
    near[role] = dict(zip(("stop", "Wait"), weights.value_vector_cosines(m, directions), strict=True))
    raw[role] = weights.value_vector_cosines(m, torch.stack([weights.writing_direction(m, ids, folded=False) for ids in (stop, wait)]))
    null[role, "stop"] = weights.value_vector_cosines(m, torch.stack([weights.writing_direction(m, [word]) for word in words]))
    together = [[words[(k + step) % len(words)] for step in range(len(wait))] for k in range(len(words))]
    null[role, "Wait"] = weights.value_vector_cosines(m, torch.stack([weights.writing_direction(m, some) for some in together]))


def top_ten(cosines: torch.Tensor) -> float:
    """Mean absolute cosine of the ten nearest columns."""
    return float(cosines.abs().flatten().topk(10).values.mean())


of_words = {key: np.array([top_ten(one) for one in cosines]) for key, cosines in null.items()}
above = {key: stats.bootstrap((values < top_ten(near[key[0]][key[1]])).astype(float)) for key, values in of_words.items()}
Markdown("Ten nearest columns, share of random words with a lower mean absolute cosine: " + "; ".join(f"{role}, {kind} {interval}" for (role, kind), interval in above.items()) + f" (n = {len(words)} words).")

# %%
rows = []
for role, m in members.items():
    for kind, cosines in near[role].items():
        chosen = weights.closest(cosines, 5)
        vectors = torch.stack([m.model.model.layers[layer].mlp.down_proj.weight[:, neuron].float() * cosines[layer, neuron].sign().to(m.device) for layer, neuron in chosen])
        for (layer, neuron), tokens in zip(chosen, promoted(m, vectors, k=8), strict=True):
            rows.append({"model": role, "near": kind, "layer": layer, "column": neuron, "cosine": round(float(cosines[layer, neuron]), 3),
                         "cosine, raw": round(float(raw[role][0 if kind == "stop" else 1][layer, neuron]), 3), "promotes (with its sign)": " ".join(map(repr, tokens))})  # fmt: skip
same = {kind: len(set(weights.closest(near["base"][kind], N_NEURONS)) & set(weights.closest(near["distilled"][kind], N_NEURONS))) for kind in ("stop", "Wait")}
display(Markdown(f"The five nearest columns of each kind. Of the {N_NEURONS} nearest, the two models share {same['stop']} (stop) and {same['Wait']} (Wait)."), pd.DataFrame(rows))

# %%
panels = {}
for role in members:
    ranked = {kind: np.sort(cosines.abs().flatten().numpy())[::-1][:N_NEURONS] for kind, cosines in near[role].items()}
    words_ranked = -np.sort(-null[role, "stop"].abs().flatten(1).numpy(), axis=1)[:, :N_NEURONS]
    spread = [stats.Interval(float(np.median(column)), *map(float, np.quantile(column, [0.025, 0.975])), len(words)) for column in words_ranked.T]
    panels[role] = {kind: (values, figures.STOP if kind == "stop" else figures.WAIT) for kind, values in ranked.items()}
    panels[role]["random words"] = spread, figures.CONTROL
title = "Share of random words whose ten nearest columns are less near: " + ", ".join(f"{role} {kind} {interval.estimate:.0%}" for (role, kind), interval in above.items())
fig = figures.lines(panels, range(1, N_NEURONS + 1), title=title, xlabel="rank of the column", ylabel="absolute cosine")
figures.save_figure(fig, "04_nearest_columns", pair=pair.name, note=f"null: {len(words)} random words, middle 95 %")

# %% [markdown]
# **Figure 4: the nearest value vectors.** Black for the stop token, wine for the Wait set; dashed grey the median of random words, shaded their middle 95 %.

# %% [markdown]
# **What it does not show.** Whether these neurons fire at the end of an answer. A column that never fires writes nothing.

# %% [markdown]
# ### Do they fire, and differently?
#
# **Question.** What multiplies these columns at the end of an answer, in each model? Metric: mean activation over combined prompts times the sign of the cosine, so that positive means "writes towards its token". **Control.** Neurons of the same layers that fire about as strongly (on `explore`), chosen at random.

# %%
knobs = dict(n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, **knobs)
pair = pair.float()  # contributions must add up
texts = {(role, split): combined[split].prompts(m, "plain") for role, m in members.items() for split in ("explore", "confirm")}
active = {(role, split): activations(members[role], prompts).act.cpu() for (role, split), prompts in texts.items()}
size = {role: active[role, "explore"].abs().mean(0) for role in members}
chosen = {(role, kind): weights.closest(near[role][kind], N_NEURONS) for role in members for kind in ("stop", "Wait")}
matched = {key: weights.matched_neurons(neurons, size[key[0]], seed=SEED) for key, neurons in chosen.items()}
two_words = {role: dict(zip(("stop", "Wait"), null[role, "stop"][:2], strict=True)) for role in members}
other = {(role, kind): weights.closest(two_words[role][kind], N_NEURONS) for role, kind in chosen}

# %%
few = 8
panels = {}
for kind in ("stop", "Wait"):
    panels[f"near {kind} (columns of the base)"] = [
        (f"{'matched ' if neurons is matched else ''}L{layer} {neuron}", stats.bootstrap(active[role, "confirm"][:, layer, neuron].numpy() * sign), figures.CONTROL if neurons is matched else figures.ROLE[role])
        for neurons in (chosen, matched) for (layer, neuron), sign in zip(neurons["base", kind][:few], [float(near["base"][kind][at].sign()) for at in chosen["base", kind][:few]], strict=True)
        for role in members
    ]  # fmt: skip
fired = {(role, kind): float(np.mean([active[role, "confirm"][:, layer, neuron].abs().mean() for layer, neuron in chosen["base", kind]])) for role in members for kind in ("stop", "Wait")}
title = "Mean size of the activation of the nearest columns: " + ", ".join(f"{kind}: {fired['base', kind]:.2f} on the base, {fired['distilled', kind]:.2f} on the distilled" for kind in ("stop", "Wait"))
fig = figures.interval_rows(panels, title=title, unit="activation × sign of the cosine", zero=True)
figures.save_figure(fig, "04_activations", pair=pair.name, note=f"n = {len(texts['base', 'confirm'])} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 5: what multiplies the nearest columns at the end of an answer.** Blue the base, orange the distilled model, both on the base's nearest columns; grey their matched random neighbours, with the sign of the column that each stands for. Right of zero a column writes towards its token.

# %% [markdown]
# **What it does not show.** How much of the logit this makes; that is next.

# %% [markdown]
# ### How much of the difference between the models do they carry?
#
# **Question.** Silence (× 0) more and more of these neurons: what share of the whole difference between the models, in $c = z(\text{stop}) - \overline{z(\text{Wait})}$, does that make? In the base the stop neurons, in the distilled model the Wait neurons. **Controls.** Matched random neurons; and, as the best case, the neurons whose direct contribution to $c$ is largest in size on `explore`. Readouts on `confirm`.

# %%
def contrast(role: str, split: str, lm=None, rows=range(10**6)) -> np.ndarray:
    """Logit of stop minus mean logit of the Wait set at the last position, one a prompt."""
    read = logits_of(members[role], last_hidden(members[role], take(texts[role, split], rows), lm=lm), [*stop, *wait]).numpy()
    return read[:, 0] - read[:, 1:].mean(1)


before = {(role, split): contrast(role, split) for role in members for split in ("explore", "confirm")}
whole = {split: before["base", split] - before["distilled", split] for split in ("explore", "confirm")}
toward = {"base": -1.0, "distilled": 1.0}  # the base is pushed towards waiting, the distilled towards stopping
attributed = {}
for role, kind in (("base", "stop"), ("distilled", "Wait")):
    direct = attribute(members[role], texts[role, "explore"], stop, wait, neurons=True).neurons.mean(0)
    signed = direct if role == "base" else -direct  # what holds the model where it is
    attributed[role] = [divmod(int(k), direct.shape[1]) for k in signed.flatten().argsort(descending=True)[: max(COUNTS)]]

# %%
rivals = {}
for role, kind in (("base", "stop"), ("distilled", "Wait")):
    ranked = weights.closest(near[role][kind], max(COUNTS))
    rivals |= {(role, "nearest columns"): ranked, (role, "most attributed"): attributed[role], (role, "matched random"): weights.matched_neurons(ranked, size[role], seed=SEED)}


def silence(rows: list[int]) -> dict:
    """The contrast with more and more neurons silenced, [prompt, count]."""
    return {f"{role} {name}": np.stack([contrast(role, "confirm", with_neurons(members[role], NeuronEdit(neurons[:count], factor=0.0)), rows) for count in COUNTS], axis=1) for (role, name), neurons in rivals.items()}


after = kept(pair, "04_silenced", silence, len(whole["confirm"]), fresh=RECOMPUTE)
silenced = {(role, name): [stats.ratio_of_means(toward[role] * (c - before[role, "confirm"]), whole["confirm"]) for c in after[f"{role} {name}"].T] for role, name in rivals}
needed = {role: next((count for count, share in zip(COUNTS, silenced[role, "most attributed"], strict=True) if share.estimate > 0.5), None) for role in members}
lower = dict(zip(COUNTS, [0, *COUNTS], strict=False))
told = {role: f"more than {lower[count]} and at most {count} neurons" if (count := needed[role]) else f"more than {COUNTS[-1]} neurons" for role in needed}
Markdown(f"Half of the difference ({stats.bootstrap(whole['confirm'])} nats) takes {told['base']} of the base and {told['distilled']} of the distilled model, taken in the order of their direct contribution.")

# %%
colours = {"nearest columns": figures.WAIT, "most attributed": figures.THIRD, "matched random": figures.CONTROL}
panels = {
    role: {name: (silenced[role, name], colour) for name, colour in colours.items()} for role in members
}
places = COUNTS.index(N_NEURONS) if N_NEURONS in COUNTS else -1
title = f"Silencing the {COUNTS[places]} nearest columns makes {silenced['base', 'nearest columns'][places].estimate:.0%} of the difference on the base and {silenced['distilled', 'nearest columns'][places].estimate:.0%} on the distilled"
fig = figures.lines({f"{role}: neurons × 0": panels[role] for role in members}, range(len(COUNTS)), title=title, xlabel="neurons silenced", ylabel="share of the difference\nbetween the models", zero=True, ticks=COUNTS)
figures.save_figure(fig, "04_silenced", pair=pair.name, note=f"n = {len(before['base', 'confirm'])} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 6: the share of the between-model difference that silencing neurons makes.** Wine: the columns nearest in weight space (to stop on the base, to Wait on the distilled); indigo: those that contribute most on `explore`; dashed grey: random ones matched to the nearest columns in layer and activation size. One would make one model read like the other; below zero it goes the wrong way.

# %% [markdown]
# **What it does not show.** That the model is still well: many neurons silenced can lower a logit by breaking things.

# %% [markdown]
# ### The dose
#
# **Question.** Base: stop neurons × 0 and Wait neurons × α; distilled: the reverse. Scaling can only multiply what fires, so the same neurons are also *added* to: activation + β times the average activation size of their layer, with the sign that writes towards the token. α is chosen on `explore` by the largest change of $c$ in the wanted direction *beyond* that of matched random neurons: a factor under which any neurons break the model is of no use. Figure 7 shows `confirm`. That α = 1 changes nothing is asserted. **Controls.** Matched random neurons, and the nearest columns of two random words.

# %%
def scaled(role: str, alpha: float, neurons: dict) -> tuple[NeuronEdit, NeuronEdit]:
    """Silence one kind, scale the other, by role."""
    off, on = ("stop", "Wait") if role == "base" else ("Wait", "stop")
    return NeuronEdit(neurons[role, off], factor=0.0), NeuronEdit(neurons[role, on], factor=alpha)


def shifted(role: str, beta: float, neurons: dict) -> tuple[NeuronEdit]:
    """Add to the neurons of the wanted token, in units of their layer's mean activation size."""
    on = "Wait" if role == "base" else "stop"
    amounts = [beta * float(size[role][layer].mean() * near[role][on][layer, neuron].sign()) for layer, neuron in chosen[role, on]]
    return (NeuronEdit(neurons[role, on], added=amounts),)


# %% [markdown]
# A factor of 1 must change nothing. Then every set of neurons, both ways, at every dose:

# %%
nothing = [NeuronEdit(chosen["base", kind], factor=1.0) for kind in ("stop", "Wait")]
assert np.array_equal(contrast("base", "confirm", with_neurons(pair.base, *nothing)), before["base", "confirm"]), "alpha 1 changes nothing"
sets = {"nearest columns": chosen, "matched random": matched, "of two words": other}
doses = [(role, way, name) for role in members for name in sets for way in ("scaled", "added") if (way, name) != ("added", "of two words")]


def edit(role: str, way: str, name: str, alpha: float) -> tuple[NeuronEdit, ...]:
    """The edits of one set of neurons at one dose."""
    return (scaled if way == "scaled" else shifted)(role, alpha, sets[name])


def sweep(rows: list[int]) -> dict:
    """The contrast under every edit, [prompt, alpha], on confirm; and scaled on explore, where alpha is chosen."""
    found = {f"{role} {way} {name}": [contrast(role, "confirm", with_neurons(members[role], *edit(role, way, name, alpha)), rows) for alpha in ALPHAS] for role, way, name in doses}
    on_explore = {f"explore {role} {name}": [contrast(role, "explore", with_neurons(members[role], *edit(role, "scaled", name, alpha)), rows) for alpha in ALPHAS] for role in members for name in ("nearest columns", "matched random")}
    return {key: np.stack(values, axis=1) for key, values in (found | on_explore).items()}


swept = kept(pair, "04_dose", sweep, *map(len, whole.values()), fresh=RECOMPUTE)
dose = {(role, way, name): swept[f"{role} {way} {name}"] - before[role, "confirm"][:, None] for role, way, name in doses}

# %%
best = {}
for role in members:
    ahead = toward[role] * (swept[f"explore {role} nearest columns"] - swept[f"explore {role} matched random"]).mean(0)
    best[role] = ALPHAS[int(ahead.argmax())]
at = {role: ALPHAS.index(best[role]) for role in members}
effect = {(role, name): toward[role] * dose[role, "scaled", name][:, at[role]] for role in members for name in sets}
draws = [{key: weights.matched_neurons(neurons, size[key[0]], seed=SEED + draw) for key, neurons in chosen.items()} for draw in range(N_DRAWS)]


def read_draws(rows: list[int]) -> dict:
    """The contrast with matched random neurons scaled, [prompt, draw]."""
    return {role: np.stack([contrast(role, "confirm", with_neurons(members[role], *scaled(role, best[role], neurons)), rows) for neurons in draws], axis=1) for role in members}


after = kept(pair, "04_draws", read_draws, len(whole["confirm"]), fresh=RECOMPUTE)
for role in members:
    effect[role, "matched random"] = toward[role] * (after[role].mean(1) - before[role, "confirm"])
share = {key: stats.ratio_of_means(value, whole["confirm"]) for key, value in effect.items()}
beyond = {(role, name): stats.ratio_of_means(effect[role, "nearest columns"] - effect[role, name], whole["confirm"]) for role in members for name in sets if name != "nearest columns"}
Markdown(f"Chosen on explore: α = {best['base']:g} on the base, {best['distilled']:g} on the distilled. Share of the difference made on confirm: base {share['base', 'nearest columns']}, matched random {share['base', 'matched random']}, two words {share['base', 'of two words']}; distilled {share['distilled', 'nearest columns']}, matched random {share['distilled', 'matched random']}, two words {share['distilled', 'of two words']}.")

# %% [markdown]
# $c$ is not P(stop): it can fall because "Wait" rises while stopping stays as likely as before. So P(stop) itself, at the same doses (matched random: one draw):

# %%
def read_stopping(rows: list[int]) -> dict:
    """P(stop) at the last position of the confirm prompts, as they are and under each set's edits."""
    found = {}
    for (role, m), name in itertools.product(members.items(), ("before", *sets)):
        lm = None if name == "before" else with_neurons(m, *scaled(role, best[role], sets[name]))
        states = last_hidden(m, take(texts[role, "confirm"], rows), lm=lm)
        found[f"{role} {name}"] = logprobs_of(m, states, m.groups.stop).exp().sum(1)
    return found


p_stop = kept(pair, "04_stopping", read_stopping, len(whole["confirm"]), fresh=RECOMPUTE)
stopping = {role: {name: stats.bootstrap(p_stop[f"{role} {name}"]) for name in ("before", *sets)} for role in members}
pd.DataFrame(stopping).T.map(format)

# %%
colours = {"nearest columns": figures.WAIT, "of two words": figures.THIRD, "matched random": figures.CONTROL}
panels = {f"{role}, {way}": {name: (stats.bands(dose[role, way, name]), colour) for name, colour in colours.items() if (role, way, name) in dose} for role in members for way in ("scaled", "added")}
title = f"Scaling moves stop − Wait by {dose['base', 'scaled', 'nearest columns'][:, at['base']].mean():+.1f} nats on the base (α = {best['base']:g}) and {dose['distilled', 'scaled', 'nearest columns'][:, at['distilled']].mean():+.1f} on the distilled (α = {best['distilled']:g})"
fig = figures.lines(panels, range(len(ALPHAS)), title=title, xlabel="α (scaled) or β (added)", ylabel="change of stop − Wait (nats)", zero=True, ticks=[f"{alpha:g}" for alpha in ALPHAS])
figures.save_figure(fig, "04_dose", pair=pair.name, note=f"n = {len(before['base', 'confirm'])} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 7: dose and response.** Base: down is towards waiting. Distilled: up is towards stopping. Wine the nearest columns, dashed grey matched random neurons, indigo the nearest columns of two random words. Left of each pair the one kind is silenced and the other multiplied by α; right, β times the layer's average activation size is added to the wanted kind alone. The random neurons here are one draw; F13 takes the mean of several.

# %% [markdown]
# **What it does not show.** Whether the change is of the wanted kind in the text: next.

# %% [markdown]
# ### What do they write then?
#
# **Question.** With the α chosen above, held at every generated step, how do the answers to the confirm questions change? Chat template, at most `MAX_AFTER` new tokens. Metrics: length, stop rate, answers with a "wait", repetition (share of repeated 4-grams), right answers; all paired by prompt. **Control.** Matched random neurons under the same factors.

# %%
asked = [question for question in load_questions(N_PROMPTS) if question.split == "confirm"][:N_AFTER]
how = dict(form="template", fresh=RECOMPUTE)
written = {}
for role, m in members.items():
    whole_answers = answers(pair, m, load_questions(N_PROMPTS), max_new_tokens=MAX_NEW_TOKENS, **how)
    written[role, "before"] = cut_short(m, whole_answers.loc[[q.id for q in asked]], asked, MAX_AFTER, opened=m.thinks)
    for name, neurons in (("nearest columns", chosen), ("matched random", matched)):
        edits = scaled(role, best[role], neurons)
        change = Change(f"{role}: {[(edit.factor, sorted(edit.neurons)) for edit in edits]}", with_neurons(m, *edits))
        written[role, name] = answers(pair, m, asked, max_new_tokens=MAX_AFTER, change=change, name=f"04_{role}_{name.split()[0]}", **how)
measures = {"length": "new tokens", "stopped": "stop rate", "waits": "answers with a wait", "repetition": "repetition", "right": "right answers"}
frame = pd.DataFrame({key: written[key][list(measures)].astype(float).mean() for key in written}).rename(index=measures)
frame.round(3)

# %%
longer = {role: stats.paired(written[role, "nearest columns"]["length"], written[role, "matched random"]["length"]) for role in members}
panels = {}
for column, label in measures.items():
    panels[label] = [
        (f"{role}: {name}", stats.bootstrap(written[role, name][column].astype(float)), figures.CONTROL if name == "matched random" else figures.PALE if name == "before" else figures.ROLE[role])
        for role in members for name in ("before", "nearest columns", "matched random")
    ]  # fmt: skip
title = f"Length against matched random neurons: base {longer['base']:+.0f} tokens, distilled {longer['distilled']:+.0f}"
fig = figures.interval_rows(panels, title=title, unit="mean over prompts (tokens, or share)")
figures.save_figure(fig, "04_behaviour", pair=pair.name, size=(13, 3.2), note=f"n = {len(asked)} questions, confirm, template")

# %% [markdown]
# **Figure 8: behaviour before and after.** Pink before, blue and orange with the chosen neurons edited, grey squares with matched random neurons; 95 % bootstrap over prompts. The random set is one draw of each.

# %% [markdown]
# **What it does not show.** Whether a longer text reasons. Repetition and right answers beside length are there to tell loops from thought, and the transcripts below.

# %%
for role in members:
    changed_texts = written[role, "nearest columns"]["text"] != written[role, "before"]["text"]
    picked = list(changed_texts[changed_texts].index[:: max(1, changed_texts.sum() // 3)][:3]) or list(changed_texts.index[:3])
    display(Markdown(f"**{role}**: {changed_texts.mean():.0%} of the texts changed. Three of them, in fixed order:"))
    for name in picked:
        cells = {state: repr(written[role, state].loc[name, "text"])[1:-1] for state in ("before", "nearest columns", "matched random")}
        display(pd.DataFrame({"question": [written[role, "before"].loc[name, "question"]], **{state: [text] for state, text in cells.items()}}).T.rename(columns={0: ""}))

# %%
nearer, larger = findings.Rule("above", 0.95), findings.Rule("above", 0.1)
other = {"of two words": "columns near two words", "matched random": "matched random neurons"}
rules = [
    *(
        findings.Part(f"(a) words with less near columns, {' '.join(of)}", x, nearer)
        for of, x in above.items()
    ),
    *(findings.Part(f"(b) {role}, beyond {other[of]}", x, larger) for (role, of), x in beyond.items()),
    findings.Part(
        "(c) tokens longer than with random neurons, base", longer["base"], findings.Rule("above", 0)
    ),
    findings.Part("(c) the same, distilled", longer["distilled"], findings.Rule("below", 0)),
]
states = {"before": "before", "nearest columns": "after", "matched random": "matched random, one draw"}
details = {
    f"P(stop), {role}, {label}": stopping[role][state] for role in members for state, label in states.items()
}
for role in members:
    details[f"half of the difference, in the order of direct contribution, {role}"] = told[role]

# %%
F13 = findings.record(
    pair,
    "F13",
    notebook="04_value_vectors",
    quantity="share of the between-model difference in stop − Wait made on the base, "
    f"stop neurons × 0 and Wait neurons × {best['base']:g}",
    unit="of the difference",
    interval=share["base", "nearest columns"],
    rules=rules,
    control=(
        f"matched random neurons, same factors, mean of {N_DRAWS} draws",
        share["base", "matched random"],
    ),
    details=details,
)
Markdown(findings.sentence(F13))

# %% [markdown]
# ## F14 · Is the stop token a sum of other tokens?
#
# **Question.** Can the stop token's unembedding be written as a combination of others? By least squares on *all* others the answer is always yes where the vocabulary is larger than the stream is wide, and means nothing. So: how much of it do few others explain? Metric: explained share of the squared norm by 1 to `TERMS` others chosen one by one (orthogonal matching pursuit), mean-centred.

# %% [markdown]
# **Control.** The same for random words. Tokens that were hardly trained lie close together, so near copies (cosine of 0.9 and more) are left out in a second run. **Rule, made stricter after a first look at the result.** F14, read as "more than other tokens are", holds if the stop token is better explained by `TERMS` others than 95 % of random words are, with near copies and without; it does not hold where the interval of that share lies below.

# %%
few_words = words
shares = {name: weights.sparse_shares(pair.distilled, [*stop, *few_words], k=TERMS, below=below) for name, below in (("all others", 1.0), ("without near copies", 0.9))}
gain = {name: stats.bootstrap((values[1:, -1] < values[0, -1]).astype(float)) for name, values in shares.items()}
every = weights.least_squares_shares(pair.distilled, stop)[0]
of_reasoning = weights.least_squares_shares(pair.distilled, [*stop, *few_words], list(groups.reasoning))
nearest = torch.nn.functional.normalize(pair.distilled.unembedding.float() - pair.distilled.unembedding.float().mean(0), dim=-1)
copies = (nearest @ nearest[stop[0]]).cpu()
copies[stop[0]] = -1
names = " ".join(repr(tokenizer.decode([int(i)])) for i in copies.topk(6).indices)
Markdown(f"All others: {every:.1%}, as it must be. The {len(groups.reasoning)} reasoning tokens alone: {of_reasoning[0]:.1%} (random words {of_reasoning[1:].mean():.1%}). Others of cosine 0.9 and more: {int((copies >= 0.9).sum())}; the nearest are {names}.")

# %%
rule, runs = findings.Rule("above", 0.95), ("without near copies", "all others")
explained = stats.bootstrap(shares["without near copies"][1:, -1])
details = {f"share that the first {TERMS} explain, {name}": float(shares[name][0, -1]) for name in runs}
details["tokens of cosine 0.9 and more"] = int((copies >= 0.9).sum())
F14 = findings.record(
    pair,
    "F14",
    notebook="04_value_vectors",
    quantity=f"share of random words that {TERMS} others explain less well than they explain the stop token, "
    "near copies left out",
    unit="of words",
    rules=[findings.Part(f"words explained less well, {name}", gain[name], rule) for name in runs],
    control=("the random words' own explained share", explained),
    split="",
    sample="random words",
    details=details,
)
Markdown(findings.sentence(F14))

# %%
panels = {
    name: {
        "stop token": (values[0], figures.STOP),
        "random words": (stats.bands(values[1:]), figures.CONTROL),
    }
    for name, values in shares.items()
}
title = f"{TERMS} other tokens explain {shares['all others'][0, -1]:.0%} of the stop token, {shares['without near copies'][0, -1]:.0%} without near copies; of a random word {shares['without near copies'][1:, -1].mean():.0%}"
fig = figures.lines(panels, range(1, TERMS + 1), title=title, xlabel="tokens in the combination", ylabel="explained share")
figures.save_figure(fig, "04_combination", pair=pair.name, note=f"null: {len(few_words)} random words")

# %% [markdown]
# **Figure 9: a token as a sum of few others.** Black the stop token, dashed grey random words with 95 % bootstrap over words.

# %% [markdown]
# **What it does not show.** That such a sum has a meaning. Tokens of like training history share directions, and a chat model's stop token starts its life beside other reserved tokens.

# %% [markdown]
# ## Try it
#
# Scale the columns nearest to stop and Wait, and see the next token at once; the button writes before and after. Figures 7 and 8 are the same for readers without a kernel.

# %%
explorers.neurons_explorer(pair, {role: chosen[role, "stop"] for role in members}, {role: chosen[role, "Wait"] for role in members})

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F12", "F13", "F14"))

# %% [markdown]
# Back: [03_logit_lens](03_logit_lens.ipynb). Next: [05_patching](05_patching.ipynb) asks which components decide, and why swapping one layer does not work.
