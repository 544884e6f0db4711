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
# **Evidence.** The map of relative changes (figure 1), the search for value vectors beside the same search for other words (figure 4), the single neurons that write most towards stopping (figure 6), and the interventions beside matched random neurons (figures 7 and 8).
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
# ## Three answers, before any number
#
# What the change of the weights did: three questions, drawn at random from those that everything from F13 on is read on. The base answers them within `MAX_ANSWER` tokens, the distilled model does not. Chat template; the beginning of each text.

# %%
knobs = dict(n_prompts=N_PROMPTS, max_new_tokens=MAX_NEW_TOKENS)
combined = load_combined(pair, n_combined=N_COMBINED, max_answer=MAX_ANSWER, fresh=RECOMPUTE, **knobs)
members = {member.role: member for member in pair.members}
questions, asked = load_questions(N_PROMPTS), combined["confirm"].questions

# %%
replies = {
    role: answers(pair, m, questions, form="template", max_new_tokens=MAX_NEW_TOKENS)["text"]
    for role, m in members.items()
}
for index in np.random.default_rng(SEED).choice(len(asked), min(3, len(asked)), replace=False):
    lines = [findings.code_span(asked[index].text) + "\n"]
    for role, said in replies.items():
        lines.append(f"- *{role}*: {findings.code_span(said[asked[index].id][:300])}")
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ## F12 · How much did the weights change?
#
# **Question.** For each matrix, how large is the difference of the two models next to the base's matrix? Metric: $\lVert W^D - W^B\rVert_F / \lVert W^B\rVert_F$. Beside it the **effective rank** of the difference, $(\sum\sigma_i^2)^2/\sum\sigma_i^4$ with its singular values $\sigma_i$: 1 if all the change lies in one direction, the full rank if it is spread like noise.

# %% [markdown]
# **Control.** The same measure between the base and its own weights rounded to bfloat16: how much a matrix changes by being stored in 16 bits alone. (The base of `smol` was dequantised from 4 bits, which both of its models share.)
#
# **Rule, written before the result.** F12 holds if the mean relative change over all matrices of all layers has an interval below 0.1, *and* at least one token's embedding moved further than the average matrix did.


# %%
def rounding_error(weight: torch.Tensor) -> float:
    """Relative change of a matrix that is stored in bfloat16."""
    return float((weight.bfloat16().float() - weight.float()).norm() / weight.float().norm())


changed = weights.compare_matrices(pair)
folded = weights.compare_matrices(pair, folded=True)
inside = changed[changed["matrix"].isin(weights.MATRICES)]
layers = pair.base.model.model.layers
writing = [(layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight) for layer in layers]
rounding = [rounding_error(weight) for weight in itertools.chain(*writing)]
write_text(data_dir(pair.name) / "04_weights.csv", changed.to_csv(index=False, float_format="%.5g"))

# %% [markdown]
# The mean over layers, matrix by matrix; in the last column each norm's weight is multiplied into the matrices that read from it:

# %%
columns = ["relative", "cosine", "effective_rank", "full_rank"]
table = changed.groupby("matrix", sort=False)[columns].mean()
table["relative, norms folded in"] = folded.groupby("matrix", sort=False)["relative"].mean()
table.round(5)

# %% [markdown]
# The same for single tokens: their rows of the embedding and of the head.

# %%
tokenizer, groups = pair.distilled.tokenizer, pair.distilled.groups
tags = [index for index in (groups.think, groups.end_think) if index is not None]
marked = dict.fromkeys(groups.reasoning, "reasoning") | dict.fromkeys(groups.wait, "Wait set")
marked |= dict.fromkeys(groups.stop, "stop") | dict.fromkeys(tags, "think tag")
moved = {
    "embedding": weights.compare_tokens(pair),
    "unembedding": weights.compare_tokens(pair, head=True),
}
for frame in moved.values():
    frame["token"] = [repr(tokenizer.decode([index])) for index in frame.index]
    frame["group"] = [marked.get(index, "") for index in frame.index]

# %%
of_groups = pd.DataFrame(
    {kind: frame.groupby("group")["relative"].mean().drop("") for kind, frame in moved.items()}
)
top_moved = pd.concat({kind: frame.nlargest(8, "relative") for kind, frame in moved.items()})
heads = ", ".join(f"{m.role} {'tied' if m.tied else 'untied'}" for m in pair.members)
display(Markdown(f"Heads: {heads}. The tokens that moved most:"), top_moved.round(4))
display(Markdown("The mean of each marked group:"), of_groups.round(5))

# %% [markdown]
# The numbers that the rule is about:

# %%
mean_change = stats.bootstrap(inside["relative"])
ranks = stats.bootstrap(inside["effective_rank"])
n_far = {kind: int((frame["relative"] > mean_change.estimate).sum()) for kind, frame in moved.items()}
counted = stats.Interval(*[float(n_far["embedding"])] * 3, len(moved["embedding"]))  # a count has no interval
rules = [
    findings.Part("mean relative change", mean_change, findings.Rule("below", 0.1)),
    findings.Part("embeddings that moved further, at least one", counted, findings.Rule("above", 0.5)),
]
details = {
    "rows of the head that moved further": n_far["unembedding"],
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
by_layer = inside.pivot(index="layer", columns="matrix", values="relative")[list(weights.MATRICES)]
fig = figures.heat_maps(
    {"": by_layer},
    title=f"The average matrix changed by {mean_change.estimate:.1%} of its norm",
    xlabel="matrix",
    ylabel="layer",
    unit="relative change (share of the base's norm)",
    columns=[name.removesuffix("_proj") for name in weights.MATRICES],
    diverging=False,
)
figures.save_figure(fig, "04_weight_change", pair=pair.name, note=f"{len(inside)} matrices")

# %% [markdown]
# **Figure 1: how far each matrix moved.** Rows are layers, columns the seven matrices of a layer; darker is more.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# What the change does. Norm is no measure of function: notebook 05 puts noise of the same norm into the base and compares.
#
# </details>

# %% [markdown]
# How many directions hold the change? Two matrices in three layers, beside a random matrix of the same shape:

# %%
n_layers = pair.base.n_layers
shape = layers[0].self_attn.o_proj.weight.shape
noise = torch.randn(*shape, generator=torch.Generator().manual_seed(SEED))
noise = torch.linalg.svdvals(noise).numpy() ** 2
cumulative = {"random matrix": [np.cumsum(noise / noise.sum())]}
for name in ("q_proj", "down_proj"):
    spectra = (weights.spectrum(pair, layer, name) for layer in (0, n_layers // 2, n_layers - 1))
    cumulative[name] = [np.cumsum(shares) for shares in spectra]

# %%
colours = {"q_proj": figures.WAIT, "down_proj": figures.THIRD, "random matrix": figures.CONTROL}
steps = min(24, *(len(curve) for curve in itertools.chain(*cumulative.values())))
curves = {
    name: (np.array([curve[:steps] for curve in cumulative[name]]), colour)
    for name, colour in colours.items()
}
fig = figures.lines(
    {"": curves},
    range(1, steps + 1),
    title=f"A matrix changed in few directions: effective rank {ranks.estimate:.1f}",
    xlabel="singular directions of the difference",
    ylabel="share of its squared norm",
)
figures.save_figure(fig, "04_spectrum", pair=pair.name, size=(7, 3.4), note="three layers, two matrices")

# %% [markdown]
# **Figure 2: how few directions hold the change.** Wine query matrices, indigo `down_proj`, a line a layer; dashed grey a random matrix. **On `smol` the adapter's rank is 16, so no curve can rise beyond the 16th direction, and the layer's norms, the embeddings and the head were frozen but for the rows of the two tags: there "barely changed" is partly a choice made in training, not a discovery.** On a pair that was fully fine-tuned neither bound holds.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Which of these directions matter.
#
# </details>

# %%
colours = {"think tag": figures.THIRD, "stop": figures.STOP, "Wait set": figures.WAIT}
colours |= {"reasoning": figures.WAIT, "": figures.CONTROL}
frame = moved["embedding"]
far = frame[frame["relative"] > 0].nlargest(10, "relative")
rows = [(row.token, row.relative, colours[row.group]) for row in far.itertuples()]
for group, mean in of_groups["embedding"].items():
    rows.append((f"{group}, mean", mean, colours[group]))
fig = figures.interval_rows(
    {"": rows},
    title=f"{n_far['embedding']} embeddings moved further than the average matrix",
    unit="relative change of the embedding",
    shade=(0, mean_change.estimate),
)
figures.save_figure(fig, "04_token_change", pair=pair.name, note=f"{len(frame)} embeddings")

# %% [markdown]
# **Figure 3: the embeddings that moved most (at most ten), and the mean of each marked group.** Black the stop tokens, wine the Wait set and reasoning tokens, indigo the think tags, grey all else; shaded: less than the average matrix.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Tokens that did not move can still mean something new, since the layers around them did.
#
# </details>

# %% [markdown]
# ## F13 · Do value vectors write "stop" and "Wait"?
#
# **Question.** Each MLP neuron writes its **value vector**, a column of `down_proj`, times its activation (Geva et al. 2022). Which columns point along the stop token's unembedding, or the Wait set's? Metric: cosine with the direction $(u - \bar u)\odot w$: unembedding minus the mean over the vocabulary, times the final norm's weight. Activations of SwiGLU are signed, so both signs count.
#
# **Null.** The same search for other words, spread evenly over the vocabulary by merge rank: one at a time for the stop token, as many together as the Wait set has for that.

# %% [markdown]
# **Rule for all of F13, made stricter after a first look at the result.** It holds if
#
# - (a) the mean absolute cosine of the ten nearest columns is beyond that of 95 % of the random words (or sets of words), for stop *and* Wait, on both models: interval of that share above 0.95, and failed when it lies below;
# - (b) on `confirm`, silencing the stop neurons and scaling the Wait neurons lowers $c = z(\text{stop}) - \overline{z(\text{Wait})}$ on the base by more than a tenth of the whole difference between the models *beyond* matched random neurons (mean of several draws) *and* beyond the nearest columns of two random words, and the reverse raises it on the distilled by as much;
# - (c) the base's answers become longer than under the random neurons, and the distilled model's shorter.

# %%
stop, wait = [pair.base.groups.stop[0]], list(pair.base.groups.wait)
targets = tuple(range(400, len(tokenizer), max(1, len(tokenizer) // N_WORDS)))
words = [*pair.base.groups.control, *control_ids(tokenizer, targets, set(marked))]
words = list(dict.fromkeys(words))[:N_WORDS]
n_words, n_wait = len(words), len(wait)
word_sets = [[words[(k + step) % n_words] for step in range(n_wait)] for k in range(n_words)]

# %% [markdown]
# The search, for the two groups of tokens and for each random word or set of words:


# %%
def search(m, groups: list[list[int]], folded: bool = True) -> torch.Tensor:
    """Cosine of every value vector with the direction of each group of tokens, [group, layer, neuron]."""
    directions = [weights.writing_direction(m, ids, folded=folded) for ids in groups]
    return weights.value_vector_cosines(m, torch.stack(directions))


near, raw, null = {}, {}, {}
for role, m in members.items():
    near[role, "stop"], near[role, "Wait"] = search(m, [stop, wait])
    raw[role, "stop"], raw[role, "Wait"] = search(m, [stop, wait], folded=False)
    null[role, "stop"] = search(m, [[word] for word in words])
    null[role, "Wait"] = search(m, word_sets)

# %% [markdown]
# Are the ten nearest columns nearer than those of random words?


# %%
def top_ten(cosines: torch.Tensor) -> float:
    """Mean absolute cosine of the ten nearest columns."""
    return float(cosines.abs().flatten().topk(10).values.mean())


above = {}
for key, cosines in near.items():
    of_words = np.array([top_ten(one) for one in null[key]])
    above[key] = stats.bootstrap((of_words < top_ten(cosines)).astype(float))
display(Markdown(f"Share of {n_words} random words whose ten nearest columns are less near:"))
pd.Series(above).unstack().map(format)

# %% [markdown]
# The five nearest columns of each kind, with the tokens that each promotes when it fires with the sign of its cosine:


# %%
def column(m, at: tuple[int, int]) -> torch.Tensor:
    """The value vector of one neuron."""
    return m.model.model.layers[at[0]].mlp.down_proj.weight[:, at[1]].float()


rows = []
for (role, kind), cosines in near.items():
    m, five = members[role], weights.closest(cosines, 5)
    vectors = torch.stack([column(m, at) * cosines[at].sign().to(m.device) for at in five])
    for at, tokens in zip(five, promoted(m, vectors, k=8), strict=True):
        row = {"model": role, "near": kind, "layer": at[0], "column": at[1]}
        row |= {"cosine": float(cosines[at]), "cosine, raw": float(raw[role, kind][at])}
        rows.append(row | {"promotes (with its sign)": " ".join(map(repr, tokens))})
pd.DataFrame(rows).round(3)

# %% [markdown]
# Are these the same neurons in both models?

# %%
chosen = {key: weights.closest(cosines, N_NEURONS) for key, cosines in near.items()}
shared = {kind: len({*chosen["base", kind]} & {*chosen["distilled", kind]}) for kind in ("stop", "Wait")}
Markdown(
    f"Of the {N_NEURONS} columns nearest to stop the two models share {shared['stop']}, "
    f"of those nearest to Wait {shared['Wait']}."
)


# %%
def largest(cosines: torch.Tensor) -> np.ndarray:
    """The largest absolute cosines, in order."""
    return np.sort(cosines.abs().flatten().numpy())[::-1][:N_NEURONS]


def middle(values: np.ndarray) -> stats.Interval:
    """Median and middle 95 % of what random words give."""
    return stats.Interval(float(np.median(values)), *map(float, np.quantile(values, [0.025, 0.975])), n_words)


panels = {}
for role in members:
    of_words = np.stack([largest(cosines) for cosines in null[role, "stop"]])
    panels[role] = {
        "stop": (largest(near[role, "stop"]), figures.STOP),
        "Wait": (largest(near[role, "Wait"]), figures.WAIT),
        "random words": ([middle(values) for values in of_words.T], figures.CONTROL),
    }

# %%
unusual = [f"{kind} ({role})" for (role, kind), interval in above.items() if interval.low > 0.95]
fig = figures.lines(
    panels,
    range(1, N_NEURONS + 1),
    title=f"Unusually near columns: {', '.join(unusual)}"
    if unusual
    else "Columns near stop or Wait are not clearly nearer than those of random words",
    xlabel="rank of the column",
    ylabel="absolute cosine",
)
note = f"null: {n_words} random words, middle 95 %"
figures.save_figure(fig, "04_nearest_columns", pair=pair.name, note=note)

# %% [markdown]
# **Figure 4: the nearest value vectors.** Black for the stop token, wine for the Wait set; dashed grey the median of random words, shaded their middle 95 %.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether these neurons fire at the end of an answer. A column that never fires writes nothing.
#
# </details>

# %% [markdown]
# ### Do they fire, and differently?
#
# **Question.** What multiplies these columns at the end of an answer, in each model? Metric: mean activation over combined prompts (a question and the base's own answer, as raw text) times the sign of the cosine, so that positive means "writes towards its token". **Control.** Neurons of the same layers that fire about as strongly (on `explore`), chosen at random.

# %%
pair = pair.float()  # contributions must add up
prompts, active = {}, {}
for (role, m), split in itertools.product(members.items(), ("explore", "confirm")):
    prompts[role, split] = combined[split].prompts(m, "plain")
    active[role, split] = activations(m, prompts[role, split]).act.cpu()
size = {role: active[role, "explore"].abs().mean(0) for role in members}
matched, of_two_words = {}, {}
for (role, kind), neurons in chosen.items():
    matched[role, kind] = weights.matched_neurons(neurons, size[role], seed=SEED)
    of_word = null[role, "stop"][0 if kind == "stop" else 1]
    of_two_words[role, kind] = weights.closest(of_word, N_NEURONS)

# %% [markdown]
# How strongly the base's nearest columns fire on average, in size, in each model:

# %%
fired = pd.DataFrame(index=["stop", "Wait"], columns=list(members), dtype=float)
for role, kind in near:
    sizes = [active[role, "confirm"][:, *at].abs().mean() for at in chosen["base", kind]]
    fired.loc[kind, role] = float(np.mean(sizes))
fired.round(2)


# %%
def label(at: tuple[int, int]) -> str:
    """A neuron by layer and column."""
    return f"L{at[0]}N{at[1]}"


panels = {}
for kind in ("stop", "Wait"):
    rows = panels[f"near {kind} (columns of the base)"] = []
    for at, random in list(zip(chosen["base", kind], matched["base", kind], strict=True))[:8]:
        sign = float(near["base", kind][at].sign())
        for neuron, role in itertools.product((at, random), members):
            firing = stats.bootstrap(active[role, "confirm"][:, *neuron].numpy() * sign)
            rows.append((label(at), firing, figures.ROLE[role] if neuron is at else figures.CONTROL))

# %%
strongest = max(chosen["base", "stop"][:8], key=lambda at: active["base", "confirm"][:, *at].abs().mean())
title = f"Of the columns nearest to stop {label(strongest)} fires strongest"
fig = figures.interval_rows(panels, title=title, unit="activation × sign of the cosine", zero=True)
key = {"base": figures.BASE, "distilled": figures.DISTILLED, "matched random": figures.CONTROL}
note = f"n = {len(prompts['base', 'confirm'])} combined prompts, confirm, plain"
figures.save_figure(fig, "04_activations", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure 5: what multiplies the nearest columns at the end of an answer.** Both models on the base's eight nearest columns; grey their matched random neighbours in both models, with the sign of the column that each stands for. Right of zero a column writes towards its token.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# How much of the logit this makes; that is next.
#
# </details>

# %% [markdown]
# ### How much of the difference between the models do they carry?
#
# **Question.** Silence (× 0) more and more of these neurons: what share of the whole difference between the models, in $c = z(\text{stop}) - \overline{z(\text{Wait})}$, does that make? In the base the stop neurons, in the distilled model the Wait neurons. **Controls.** Matched random neurons; and, as the best case, the neurons whose direct contribution to $c$ is largest in size on `explore`. Readouts on `confirm`.


# %%
def contrast(role: str, split: str, lm=None, rows=range(10**6)) -> np.ndarray:
    """Logit of stop minus mean logit of the Wait set at the last position, one a prompt."""
    states = last_hidden(members[role], take(prompts[role, split], rows), lm=lm)
    read = logits_of(members[role], states, [*stop, *wait]).numpy()
    return read[:, 0] - read[:, 1:].mean(1)


def contrasts(role: str, split: str, edits: list[tuple[NeuronEdit, ...]], rows: list[int]) -> np.ndarray:
    """The contrast under each of some edits, [prompt, edit]."""
    models = (with_neurons(members[role], *some) for some in edits)
    return np.stack([contrast(role, split, lm, rows) for lm in models], axis=1)


before = {(role, split): contrast(role, split) for role, split in prompts}
whole = {split: before["base", split] - before["distilled", split] for split in ("explore", "confirm")}
# the base is pushed towards waiting, the distilled towards stopping
toward = {"base": -1.0, "distilled": 1.0}

# %% [markdown]
# Direct contributions: what each neuron writes towards $c$ through the final norm, on `explore`. In the base those come first that hold it at stopping, in the distilled model those that hold it at waiting.

# %%
written = {}
for role, m in members.items():
    written[role] = attribute(m, prompts[role, "explore"], stop, wait, neurons=True).neurons
rivals = {}
for role, kind in (("base", "stop"), ("distilled", "Wait")):
    held = -toward[role] * written[role].mean(0)
    order = held.flatten().argsort(descending=True)[: max(COUNTS)].tolist()
    nearest = weights.closest(near[role, kind], max(COUNTS))
    rivals[role, "nearest columns"] = nearest
    rivals[role, "most attributed"] = [divmod(at, held.shape[1]) for at in order]
    rivals[role, "matched random"] = weights.matched_neurons(nearest, size[role], seed=SEED)

# %% [markdown]
# Each row of neurons silenced from its first on:


# %%
def silence(rows: list[int]) -> dict:
    """The contrast with more and more neurons silenced, [prompt, count]."""
    found = {}
    for (role, name), neurons in rivals.items():
        edits = [(NeuronEdit(neurons[:count], factor=0.0),) for count in COUNTS]
        found[f"{role} {name}"] = contrasts(role, "confirm", edits, rows)
    return found


after = kept(pair, "04_silenced", silence, len(whole["confirm"]), fresh=RECOMPUTE)
silenced = {}
for role, name in rivals:
    change = toward[role] * (after[f"{role} {name}"] - before[role, "confirm"][:, None])
    shares = [stats.ratio_of_means(one, whole["confirm"]) for one in change.T]
    silenced[role, name] = dict(zip(COUNTS, shares, strict=True))
pd.DataFrame(silenced).T.map(format)

# %% [markdown]
# How many neurons does half of the difference take?

# %%
half_at = {}
for role in members:
    shares = silenced[role, "most attributed"].items()
    count = next((count for count, share in shares if share.estimate > 0.5), None)
    lower = dict(zip(COUNTS, [0, *COUNTS], strict=False))
    half_at[role] = f"more than {COUNTS[-1]} neurons"
    if count is not None:
        half_at[role] = f"more than {lower[count]} and at most {count} neurons"
Markdown(
    f"Half of the difference ({stats.bootstrap(whole['confirm'])} nats) takes {half_at['base']} of the base "
    f"and {half_at['distilled']} of the distilled model, taken in the order of their direct contribution."
)

# %% [markdown]
# Which neurons are they? Silenced, each takes away what it writes; the share says how far that moves the base, in units of the models' difference.

# %%
top = rivals["base", "most attributed"][: max(10, COUNTS[0])]
few = {count: share for count, share in silenced["base", "most attributed"].items() if count <= len(top)}
steps = [
    f"{count} ({', '.join(map(label, top[:count]))}): **{share.estimate:.0%}** "
    f"[{share.low:.0%}, {share.high:.0%}]"
    for count, share in few.items()
]
Markdown(
    "Share of the difference between the models that silencing base neurons makes, in the order of their "
    "direct contribution to $c$ on `explore` (L layer, N neuron):\n\n- " + "\n- ".join(steps)
)

# %% [markdown]
# Are they off in the distilled model? What each writes towards $c$ in either model (nats, `explore`), how it fires (`confirm`), and how near its column is to stop:

# %%
rows = []
for at in top:
    row = {"neuron": label(at)}
    row |= {f"writes, {role}": float(written[role][:, *at].mean()) for role in members}
    row |= {f"fires, {role}": float(active[role, "confirm"][:, *at].mean()) for role in members}
    rows.append(row | {"cosine with stop, base": float(near["base", "stop"][at])})
pd.DataFrame(rows).set_index("neuron").round(2)

# %% [markdown]
# Do they make the difference, or only the level?


# %%
def writes(neurons: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """What neurons together write towards the contrast in each model, in nats, one number a prompt."""
    return {role: sum(written[role][:, *at] for at in neurons).numpy() for role in members}


lead, every = writes(top[:1]), writes(top)
direct = stats.ratio_of_means(every["base"] - every["distilled"], whole["explore"])
as_strong = bool(lead["distilled"].mean() > 0.9 * lead["base"].mean())
lead_base, lead_distilled = (f"{lead[role].mean():.1f}" for role in members)
all_base, all_distilled = (f"{every[role].mean():.1f}" for role in members)
Markdown(
    f"Towards $c$ the first writes {lead_base} nats in the base and {lead_distilled} in the distilled "
    f"model, all {len(top)} together {all_base} and {all_distilled}. **Silencing takes away all that a "
    f"neuron writes, not only what differs: of the difference between the models, these {len(top)} "
    f"themselves write {direct.estimate:.0%} [{direct.low:.0%}, {direct.high:.0%}].**"
)

# %%
colours = {"nearest columns": figures.WAIT, "most attributed": figures.THIRD}
colours["matched random"] = figures.CONTROL
panels = {f"{role}: neurons × 0": {} for role in members}
for (role, name), shares in silenced.items():
    panels[f"{role}: neurons × 0"][name] = list(shares.values()), colours[name]
count, made = next(iter(few.items()))
first = "one base neuron" if count == 1 else f"{count} base neurons"
first += f", {', '.join(map(label, top[:count]))},"
title = f"Silencing {first} makes {made.estimate:.0%} of the difference"
title += "; it is as strong in the distilled model" * as_strong
fig = figures.lines(
    panels,
    range(len(COUNTS)),
    title=title,
    xlabel="neurons silenced (steps not to scale)",
    ylabel="share of the difference\nbetween the models",
    zero=True,
    ticks=COUNTS,
)
figures.save_figure(fig, "04_silenced", pair=pair.name, note=note)

# %% [markdown]
# **Figure 6: the share of the between-model difference that silencing neurons makes.** Wine: the columns nearest in weight space (to stop on the base, to Wait on the distilled); indigo: those that contribute most on `explore`, of which the title names the first (L layer, N neuron); dashed grey: random ones matched to the nearest columns in layer and activation size. One would make one model read like the other; below zero it goes the wrong way, above one it goes past the other model.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That the model is still well: many neurons silenced can lower a logit by breaking things. Nor that the most attributed are more than the largest writers: the random neurons are matched to the nearest columns, not to them.
#
# </details>

# %% [markdown]
# ### The dose
#
# **Question.** Base: stop neurons × 0 and Wait neurons × α; distilled: the reverse. Scaling can only multiply what fires, so the same neurons are also *added* to: activation + β times the average activation size of their layer, with the sign that writes towards the token. **Controls.** Matched random neurons, and the nearest columns of two random words.
#
# α is chosen on `explore` by the largest change of $c$ in the wanted direction *beyond* that of matched random neurons: a factor under which any neurons break the model is of no use. Figure 7 shows `confirm`.


# %%
def scaled(role: str, alpha: float, neurons: dict) -> tuple[NeuronEdit, NeuronEdit]:
    """Silence one kind, scale the other, by role."""
    off, on = ("stop", "Wait") if role == "base" else ("Wait", "stop")
    return NeuronEdit(neurons[role, off], factor=0.0), NeuronEdit(neurons[role, on], factor=alpha)


def shifted(role: str, beta: float, neurons: dict) -> tuple[NeuronEdit]:
    """Add to the neurons of the wanted token, in units of their layer's mean activation size."""
    on = "Wait" if role == "base" else "stop"
    signs = [near[role, on][at].sign() for at in chosen[role, on]]
    sizes = [size[role][layer].mean() for layer, _ in chosen[role, on]]
    amounts = [beta * float(one * sign) for one, sign in zip(sizes, signs, strict=True)]
    return (NeuronEdit(neurons[role, on], added=amounts),)


ways = {"scaled": scaled, "added": shifted}

# %% [markdown]
# A factor of 1 must change nothing:

# %%
nothing = [NeuronEdit(chosen["base", kind], factor=1.0) for kind in ("stop", "Wait")]
unchanged = contrast("base", "confirm", with_neurons(pair.base, *nothing))
assert np.array_equal(unchanged, before["base", "confirm"]), "alpha 1 changes nothing"

# %% [markdown]
# Every set of neurons, both ways, at every dose; the first two sets on `explore` as well, where α is chosen:

# %%
sets = {"nearest columns": chosen, "matched random": matched, "near two words": of_two_words}
doses = [*itertools.product(members, ways, ("nearest columns", "matched random"))]
doses += [(role, "scaled", "near two words") for role in members]


def sweep(rows: list[int]) -> dict:
    """The contrast under every edit, [prompt, alpha], on confirm; and scaled on explore."""
    found = {}
    for role, way, name in doses:
        edits = [ways[way](role, alpha, sets[name]) for alpha in ALPHAS]
        found[f"{role} {way} {name}"] = contrasts(role, "confirm", edits, rows)
        if way == "scaled" and name != "near two words":
            found[f"explore {role} {name}"] = contrasts(role, "explore", edits, rows)
    return found


swept = kept(pair, "04_dose", sweep, *map(len, whole.values()), fresh=RECOMPUTE)
dose = {key: swept[" ".join(key)] - before[key[0], "confirm"][:, None] for key in doses}

# %% [markdown]
# The chosen α, and what it does on `confirm`; of matched random neurons several draws:

# %%
best, effect = {}, {}
for role in members:
    nearest, random = (swept[f"explore {role} {name}"] for name in ("nearest columns", "matched random"))
    best[role] = ALPHAS[int((toward[role] * (nearest - random).mean(0)).argmax())]
    for name in sets:
        effect[role, name] = toward[role] * dose[role, "scaled", name][:, ALPHAS.index(best[role])]
draws = [
    {key: weights.matched_neurons(neurons, size[key[0]], seed=SEED + draw) for key, neurons in chosen.items()}
    for draw in range(N_DRAWS)
]

# %% [markdown]
# How much of the random neurons' effect hangs on which ones were drawn? At the chosen α alone:


# %%
def read_draws(rows: list[int]) -> dict:
    """The contrast with matched random neurons scaled, [prompt, draw]."""
    found = {}
    for role in members:
        edits = [scaled(role, best[role], neurons) for neurons in draws]
        found[role] = contrasts(role, "confirm", edits, rows)
    return found


after = kept(pair, "04_draws", read_draws, len(whole["confirm"]), fresh=RECOMPUTE)
by_draw = {}
for role in members:
    effect[role, "matched random"] = toward[role] * (after[role].mean(1) - before[role, "confirm"])
    each = toward[role] * (after[role] - before[role, "confirm"][:, None])
    each = [stats.ratio_of_means(one, whole["confirm"]).estimate for one in each.T]
    by_draw[role] = ", ".join(f"{share:.0%}" for share in each)

# %% [markdown]
# What the edits make of the difference, and how far the nearest columns go beyond each control:

# %%
share = {key: stats.ratio_of_means(values, whole["confirm"]) for key, values in effect.items()}
beyond = {}
for role, name in itertools.product(members, ("matched random", "near two words")):
    difference = effect[role, "nearest columns"] - effect[role, name]
    beyond[role, name] = stats.ratio_of_means(difference, whole["confirm"])
display(Markdown("Share of the difference between the models that the edits make, on confirm:"))
display(
    pd.DataFrame({"made": share, "nearest columns beyond it": beyond})
    .map(format, na_action="ignore")
    .fillna("")
)
Markdown(
    f"α is {best['base']:g} on the base and {best['distilled']:g} on the distilled model. "
    f"The random neurons "
    f"vary more between draws than the interval over prompts tells: {by_draw['base']} on the base, "
    f"{by_draw['distilled']} on the distilled."
)

# %% [markdown]
# $c$ is not P(stop): it can fall because "Wait" rises while stopping stays as likely as before. So P(stop) itself, at the same doses (matched random: one draw):


# %%
def read_stopping(rows: list[int]) -> dict:
    """P(stop) at the last position of the confirm prompts, as they are and under each set's edits."""
    found = {}
    for (role, m), name in itertools.product(members.items(), ("before", *sets)):
        lm = None if name == "before" else with_neurons(m, *scaled(role, best[role], sets[name]))
        states = last_hidden(m, take(prompts[role, "confirm"], rows), lm=lm)
        found[f"{role} {name}"] = logprobs_of(m, states, m.groups.stop).exp().sum(1)
    return found


p_stop = kept(pair, "04_stopping", read_stopping, len(whole["confirm"]), fresh=RECOMPUTE)
stopping = pd.DataFrame(index=["before", *sets], columns=list(members), dtype=object)
for role, name in itertools.product(members, stopping.index):
    stopping.loc[name, role] = stats.bootstrap(p_stop[f"{role} {name}"])
stopping.map(format)

# %%
colours = {
    "nearest columns": ("nearest columns", figures.WAIT),
    "near two words": ("near two words", figures.THIRD),
    "matched random": ("random, one draw", figures.CONTROL),
}
panels = {f"{role}, {way}": {} for role, way in itertools.product(members, ways)}
for role, way, name in sorted(doses, key=lambda one: list(colours).index(one[2])):
    text, colour = colours[name]
    panels[f"{role}, {way}"][text] = stats.bands(dose[role, way, name]), colour
larger = findings.Rule("above", 0.1)
reverse = {larger.verdict(interval) for (role, _), interval in beyond.items() if role == "distilled"}

# %%
made = share["base", "nearest columns"].estimate
fig = figures.lines(
    panels,
    ALPHAS,
    title=f"The edits make {made:.0%} of the difference on the base and "
    + ("beat" if reverse == {"holds"} else "do not beat")
    + " every control on the distilled",
    xlabel="α (scaled) or β (added)",
    ylabel="change of stop − Wait (nats)",
    zero=True,
)
figures.save_figure(fig, "04_dose", pair=pair.name, size=(11, 3.4), note=note)

# %% [markdown]
# **Figure 7: dose and response.** Base: down is towards waiting. Distilled: up is towards stopping. Wine the nearest columns, dashed grey matched random neurons (one draw; the table above has the mean of several), indigo the nearest columns of two random words. "Scaled": one kind is silenced and the other multiplied by α; "added": β times the layer's average activation size is added to the wanted kind alone. Where the grey line falls with the wine one, as on the distilled model of `smol` at the largest α, part of the fall is due to so large a factor and not to where the columns point: that is why α is chosen beyond the random neurons.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether the change is of the wanted kind in the text: next.
#
# </details>

# %% [markdown]
# ### What do they write then?
#
# **Question.** With the α chosen above, held at every generated step, how do the answers to the confirm questions change? Chat template, at most `MAX_AFTER` new tokens. Metrics: length, stop rate, answers with a "wait", repetition (share of repeated 4-grams), right answers; all paired by prompt. **Control.** Matched random neurons under the same factors.

# %%
asked = [question for question in questions if question.split == "confirm"][:N_AFTER]
how, ids = dict(form="template", fresh=RECOMPUTE), [question.id for question in asked]


def edited_answers(m, name: str) -> pd.DataFrame:
    """Answers of a model with one set of neurons edited at every step."""
    edits = scaled(m.role, best[m.role], sets[name])
    description = f"{m.role}: {[(edit.factor, sorted(edit.neurons)) for edit in edits]}"
    change = Change(description, with_neurons(m, *edits))
    stored = f"04_{m.role}_{name.split()[0]}"
    return answers(pair, m, asked, max_new_tokens=MAX_AFTER, change=change, name=stored, **how)


answered = {}
for role, m in members.items():
    every = answers(pair, m, questions, max_new_tokens=MAX_NEW_TOKENS, **how)
    answered[role, "before"] = cut_short(m, every.loc[ids], asked, MAX_AFTER, opened=m.thinks)
    for name in ("nearest columns", "matched random"):
        answered[role, name] = edited_answers(m, name)

# %% [markdown]
# Means over questions:

# %%
measures = {
    "length": "length (tokens)",
    "stopped": "stop rate",
    "waits": "answers with a wait",
    "repetition": "repetition",
    "right": "right answers",
}
means = {key: frame[list(measures)].astype(float).mean() for key, frame in answered.items()}
pd.DataFrame(means).rename(index=measures).round(3)

# %%
longer = {}
for role in members:
    lengths = [answered[role, name]["length"] for name in ("nearest columns", "matched random")]
    longer[role] = stats.paired(*lengths)
colours = {(role, "before"): figures.PALE for role in members}
colours |= {(role, "nearest columns"): figures.ROLE[role] for role in members}
colours |= {(role, "matched random"): figures.CONTROL for role in members}
panels = {}
for column, name in measures.items():
    panels[name] = [
        (f"{role}: {state}", stats.bootstrap(frame[column].astype(float)), colours[role, state])
        for (role, state), frame in answered.items()
    ]


# %%
def compared(interval: stats.Interval) -> str:
    """How lengths under the edits compare with those under random neurons."""
    if interval.low > 0:
        return "longer"
    return "shorter" if interval.high < 0 else "not clearly different"


title = f"Length beside random neurons: base {compared(longer['base'])}, "
fig = figures.interval_rows(
    panels,
    title=title + f"distilled {compared(longer['distilled'])}",
    unit="mean over questions: tokens on the left, else a share",
)
note = f"n = {len(asked)} questions, confirm, template"
figures.save_figure(fig, "04_behaviour", pair=pair.name, size=(11, 3.2), note=note)

# %% [markdown]
# **Figure 8: behaviour before and after.** Each panel has its own scale. Pink before, blue and orange with the chosen neurons edited, grey squares with matched random neurons; 95 % bootstrap over prompts. The random set is one draw of each.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether a longer text reasons. Repetition and right answers beside length are there to tell loops from thought, and the transcripts below.
#
# </details>

# %% [markdown]
# Three texts of each model, before and after:

# %%
for role in members:
    states = {name: frame["text"] for (one, name), frame in answered.items() if one == role}
    differs = states["nearest columns"] != states["before"]
    ids = list(differs[differs].index[:: max(1, differs.sum() // 3)][:3]) or list(differs.index[:3])
    share_changed = f"{differs.mean():.0%} of the texts changed"
    display(Markdown(f"**{role}**: {share_changed}. Three of them, in fixed order:"))
    for name in ids:
        texts = {"question": answered[role, "before"].loc[name, "question"]}
        texts |= {state: repr(text[name])[1:-1] for state, text in states.items()}
        display(pd.DataFrame({"": texts}))

# %% [markdown]
# The parts of the rule, and what stands beside them:

# %%
other = {"near two words": "columns near two words", "matched random": "matched random neurons"}
nearer, above_0, below_0 = (findings.Rule(*rule) for rule in (("above", 0.95), ("above", 0), ("below", 0)))
rules = [
    findings.Part(f"(a) words with less near columns, {' '.join(key)}", interval, nearer)
    for key, interval in above.items()
]
rules += [
    findings.Part(f"(b) {role}, beyond {other[name]}", interval, larger)
    for (role, name), interval in beyond.items()
]
rules += [
    findings.Part("(c) tokens longer than with random neurons, base", longer["base"], above_0),
    findings.Part("(c) the same, distilled", longer["distilled"], below_0),
]

# %%
states = {"before": "before", "nearest columns": "after", "matched random": "matched random, one draw"}
details = {}
for role, (name, state) in itertools.product(members, states.items()):
    details[f"P(stop), {role}, {state}"] = stopping.loc[name, role]
for role in members:
    details[f"half of the difference, in the order of direct contribution, {role}"] = half_at[role]
for count, interval in few.items():
    details[f"share made by silencing the first {count} of the base in that order"] = interval
details["these neurons, layer and index"] = ", ".join(map(label, top))
details["share of the difference that they write themselves"] = direct
details["single draws of matched random neurons, base"] = by_draw["base"]

# %%
edits_made = f"stop neurons × 0 and Wait neurons × {best['base']:g}"
F13 = findings.record(
    pair,
    "F13",
    notebook="04_value_vectors",
    quantity=f"share of the between-model difference in stop − Wait made on the base, {edits_made}",
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
#
# **Control.** The same for random words. Tokens that were hardly trained lie close together, so near copies (cosine of 0.9 and more) are left out in a second run.

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F14, read as "more than other tokens are", holds if the stop token is better explained by `TERMS` others than 95 % of random words are, with near copies and without; it does not hold where the interval of that share lies below.

# %%
runs = {"without near copies": 0.9, "all others": 1.0}
shares, gain = {}, {}
for name, below in runs.items():
    shares[name] = weights.sparse_shares(pair.distilled, [*stop, *words], k=TERMS, below=below)
    gain[name] = stats.bootstrap((shares[name][1:, -1] < shares[name][0, -1]).astype(float))
explained = stats.bootstrap(shares["without near copies"][1:, -1])

# %% [markdown]
# Beside it, least squares on all others and on the reasoning tokens alone, and the stop token's nearest neighbours:

# %%
every = weights.least_squares_shares(pair.distilled, stop)[0]
of_reasoning = weights.least_squares_shares(pair.distilled, [*stop, *words], list(groups.reasoning))
centred = pair.distilled.unembedding.float() - pair.distilled.unembedding.float().mean(0)
unit = torch.nn.functional.normalize(centred, dim=-1)
cosines = (unit @ unit[stop[0]]).cpu()
cosines[stop[0]] = -1
n_copies = int((cosines >= 0.9).sum())
names = " ".join(repr(tokenizer.decode([int(index)])) for index in cosines.topk(6).indices)
Markdown(
    f"All others: {every:.1%}, as it must be. The {len(groups.reasoning)} reasoning tokens alone: "
    f"{of_reasoning[0]:.1%} (random words {of_reasoning[1:].mean():.1%}). "
    f"Others of cosine 0.9 and more: {n_copies}; the nearest are {names}."
)

# %%
rules = [findings.Part(f"words explained less well, {name}", gain[name], nearer) for name in runs]
details = {f"share that the first {TERMS} explain, {name}": float(shares[name][0, -1]) for name in runs}
details["tokens of cosine 0.9 and more"] = n_copies
worse = f"share of random words that {TERMS} others explain less well than they explain the stop token"
F14 = findings.record(
    pair,
    "F14",
    notebook="04_value_vectors",
    quantity=f"{worse}, near copies left out",
    unit="of words",
    rules=rules,
    control=("the random words' own explained share", explained),
    split="",
    sample="random words",
    details=details,
)
Markdown(findings.sentence(F14))

# %%
panels = {}
for name in ("all others", "without near copies"):
    panels[name] = {
        "stop token": (shares[name][0], figures.STOP),
        "random words": (stats.bands(shares[name][1:]), figures.CONTROL),
    }
without = shares["without near copies"][0, -1]
fig = figures.lines(
    panels,
    range(1, TERMS + 1),
    title=f"A few other tokens explain {without:.0%} of the stop token, even without near copies",
    xlabel="tokens in the combination",
    ylabel="explained share",
)
figures.save_figure(fig, "04_combination", pair=pair.name, note=f"null: {n_words} random words")

# %% [markdown]
# **Figure 9: a token as a sum of few others.** Black the stop token, dashed grey random words with 95 % bootstrap over words.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That such a sum has a meaning. Tokens of like training history share directions, and a chat model's stop token starts its life beside other reserved tokens.
#
# </details>

# %% [markdown]
# ## Try it
#
# Scale the columns nearest to stop and Wait, and see the next token at once; the button writes before and after. Figures 7 and 8 are the same for readers without a kernel.

# %%
near_stop, near_wait = ({role: chosen[role, kind] for role in members} for kind in ("stop", "Wait"))
explorers.neurons_explorer(pair, near_stop, near_wait)

# %% [markdown]
# ## Takeaway

# %%
still = "although it is as strong there: it carries stopping in both models, not their difference"
still = still if as_strong else "where it is weaker"
shorter = "shortens" if longer["distilled"].high < 0 else "does not shorten"
more = "more" if F14["verdict"] == "holds" else "not clearly more"
Markdown(
    f"Fine-tuning moved the average weight matrix by {F12['estimate']:.1%} of its size, in few directions. "
    f"Switching off {first} takes the base {few[COUNTS[0]].estimate:.0%} of the way to the distilled model "
    f"in stopping against waiting, {still}. "
    "Scaling whole groups of neurons moves the base's next token, but the reverse "
    f"{shorter} the distilled model's answers; and the stop token is a mixture of other tokens {more} than "
    "ordinary words are."
)

# %% [markdown]
# Back: [03_logit_lens](03_logit_lens.ipynb). Next: [05_patching](05_patching.ipynb) asks which components decide, and why swapping one layer does not work.
