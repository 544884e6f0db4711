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
# **Evidence.** The map of relative changes (figure 1), the neurons that write most towards stopping: silenced (figure 2), where they fire (3) and their dose (4), and the interventions beside matched random neurons (figures 5 and 6).
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
ALPHAS = [0.0, 2.0, 4.0, 8.0]  # quick: [0.0, 4.0]; factors on the nearest columns
FACTORS = [0.0, 0.5, 1.0, 1.5, 2.0]  # quick: [0.0, 1.0, 2.0]; factors on the first stop writers
COUNTS = [1, 3, 10, 50, 300]  # quick: [1, 10]; how many neurons are silenced
N_AFTER = 48  # quick: 8; questions answered under an intervention; None: all of the confirm split
MAX_AFTER = 300  # quick: 40; new tokens under an intervention
N_DRAWS = 20  # quick: 2; draws of matched random neurons
TERMS = 16  # unembeddings in a sparse combination

# %% jupyter={"source_hidden": true} tags=["claim"]
import itertools

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.special import expit

from helpers import explorers, figures, findings, stats, weights
from helpers.generation import Change, answers, cut_short, load_combined
from helpers.pairs import load_pair
from helpers.prompts import JUST, ask, load_questions, neutral_sentences
from helpers.patching import Node, attribute, exact_patching
from helpers.readouts import activations, as_one_row, kl_nats, last_hidden, logit_difference
from helpers.readouts import promoted, stop_odds, vocabulary_scores
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

# %% [markdown]
# Each question, then what either model wrote:

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

# %% [markdown]
# The verdict:

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
# What the change does: norm is no measure of function, and notebook 05 puts noise of the same singular values into the base and compares. Nor how freely it could change. On `smol` the adapter's rank is 16, so no matrix could change in more directions, and the layer's norms, the embeddings and the head were frozen but for the rows of the two tags: there "barely changed" is partly a choice made in training, not a discovery. On a pair that was fully fine-tuned neither bound holds.
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
#
# **By the log-odds of stopping**, written before its result: (b) for the same edits, with $L = \log P(\text{stop}) - \log(1 - P(\text{stop}))$ over all stop tokens in place of $c$ and the same tenth. $c$ sets stopping against "Wait" alone; $L$ against everything.

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
def search(m, groups: list[list[int]]) -> torch.Tensor:
    """Cosine of every value vector with the direction of each group of tokens, [group, layer, neuron]."""
    directions = [weights.writing_direction(m, ids) for ids in groups]
    return weights.value_vector_cosines(m, torch.stack(directions))


near, null = {}, {}
for role, m in members.items():
    near[role, "stop"], near[role, "Wait"] = search(m, [stop, wait])
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
        row = {"model": role, "near": kind, "layer": at[0], "column": at[1], "cosine": float(cosines[at])}
        rows.append(row | {"promotes (with its sign)": " ".join(map(repr, tokens))})
pd.DataFrame(rows).round(3)

# %%
chosen = {key: weights.closest(cosines, N_NEURONS) for key, cosines in near.items()}


# %% [markdown]
# Of random words and draws, the middle 95 %:


# %%
def middle(values: np.ndarray) -> stats.Interval:
    """Median and middle 95 % of what random words or draws give."""
    return stats.Interval(
        float(np.median(values)), *map(float, np.quantile(values, [0.025, 0.975])), len(values)
    )


# %% [markdown]
# A column that never fires writes nothing. So activations, at the end of combined prompts (a question and the base's own answer, as raw text); random neurons are matched to chosen ones in layer and size on `explore`. The nearest columns of two random words are a second control.

# %%
pair = pair.float()  # contributions must add up
prompts, active = {}, {}
for (role, m), split in itertools.product(members.items(), ("explore", "confirm")):
    prompts[role, split] = combined[split].prompts(m, "plain")
    active[role, split] = activations(m, prompts[role, split]).act.cpu()
size = {role: active[role, "explore"].abs().mean(0) for role in members}
of_two_words = {}
for role, kind in chosen:
    of_word = null[role, "stop"][0 if kind == "stop" else 1]
    of_two_words[role, kind] = weights.closest(of_word, N_NEURONS)

# %% [markdown]
# ### Which neurons write stopping?
#
# **Question.** Nearness says what a neuron could write. Which do write it? A neuron's direct contribution to the **log-odds of stopping**, $L = \log P(\text{stop}) - \log(1 - P(\text{stop}))$ over all stop tokens, is what it writes at the last position along the gradient of $L$ there: the gradient is local, so it orders neurons and does not add up to $L$. Beside it the same for $c = z(\text{stop}) - \overline{z(\text{Wait})}$. Chosen on `explore`, told on `confirm`.
#
# Silence (× 0) the first 1, 3, 10, … of this order at the last position. In the base those come first that write most towards stopping, in the distilled model those that write most against it. Metric: the share of the models' difference in $L$, and in $c$, that this makes; and P(stop). **Control:** `N_DRAWS` draws of random neurons, each matched in layer and activation size to the chosen neuron in whose place it is silenced. Rule, after a first look that showed one neuron far from the rest: a neuron counts where the whole interval of the fall in $L$ lies above the middle 95 % of the draws.

# %%
metrics = {role: [stop_odds(m), logit_difference(m, stop, wait)] for role, m in members.items()}
written = {
    (role, by): attribute(m, prompts[role, "explore"], metric, neurons=True).neurons
    for role, m in members.items()
    for by, metric in zip(("by L", "by c"), metrics[role], strict=True)
}
# the base is pushed towards waiting, the distilled towards stopping
toward = {"base": -1.0, "distilled": 1.0}


# %% [markdown]
# The neurons in the order of what they write, and random ones that match them:


# %%
def label(at: tuple[int, int]) -> str:
    """A neuron by layer and column."""
    return f"L{at[0]}N{at[1]}"


rivals = {}
for (role, by), parts in written.items():
    held = -toward[role] * parts.mean(0)
    order = held.flatten().argsort(descending=True)[: max(COUNTS)].tolist()
    rivals[role, by] = [divmod(at, held.shape[1]) for at in order]
for role, kind in (("base", "stop"), ("distilled", "Wait")):
    rivals[role, "nearest columns"] = weights.closest(near[role, kind], max(COUNTS))
    for draw in range(N_DRAWS):
        drawn = weights.matched_neurons(rivals[role, "by L"], size[role], seed=SEED + draw)
        rivals[role, f"draw {draw}"] = drawn

# %% [markdown]
# The first ten of the base by either measure, with what each writes on average (nats):

# %%
first_ten = {
    by: [f"{label(at)} {float(written['base', by][:, *at].mean()):+.2f}" for at in rivals["base", by][:10]]
    for by in ("by L", "by c")
}
pd.DataFrame(first_ten, index=pd.RangeIndex(1, len(first_ten["by L"]) + 1))

# %% [markdown]
# Many edits are read in one pass: the last token stands behind the prompt once as it is and once for each edit, and none sees another.


# %%
def placed(edits: list[tuple[NeuronEdit, ...]], start: int) -> dict[int, dict]:
    """By layer: factor and addend of each (place, neuron); the k-th edit stands at place start + k."""
    found = {}
    for place, some in enumerate(edits, start):
        for edit in some:
            amounts = np.broadcast_to(edit.added, len(edit.neurons)).tolist()
            for (layer, neuron), amount in zip(edit.neurons, amounts, strict=True):
                found.setdefault(layer, {})[place, neuron] = edit.factor, amount
    return {layer: found[layer] for layer in sorted(found)}


# %% [markdown]
# Many edits stand in one row, each in a copy of the last token, as `exact_patching` has it:


# %%
def in_one_row(m, prompt: str, edits: list, read_by: list) -> torch.Tensor:
    """Metrics at the last position, [1 + edit, metric]: unedited, then with each edit made there."""
    tokens = m.encode([prompt])["input_ids"][0].tolist()
    end, n = len(tokens), len(edits)
    row = as_one_row(m, tokens + tokens[-1:] * n, [*range(-1, end - 1), *[end - 2] * n])
    changes = {
        layer: (list(zip(*at, strict=True)), [*at.values()]) for layer, at in placed(edits, end).items()
    }

    def read(lm) -> torch.Tensor:
        for layer, ((places, neurons), amounts) in changes.items():
            act = lm.model.layers[layer].mlp.down_proj.input.clone()
            factor, added = torch.tensor(amounts).to(act).T
            act[0, places, neurons] = act[0, places, neurons] * factor + added
            lm.model.layers[layer].mlp.down_proj.input = act
        states = lm.model.norm.output[0, end - 1 :]
        return torch.stack([metric(lm._module, states) for metric in read_by], dim=1)

    return m.traced(row, read).cpu()


# %% [markdown]
# Silenced, more and more of them, in either model:


# %%
def silence(rows: list[int]) -> dict:
    """Log-odds and c with more and more neurons silenced, [prompt, 1 + edit, metric]."""
    found = {}
    for role, m in members.items():
        lists = [neurons for (one, _), neurons in rivals.items() if one == role]
        edits = [(NeuronEdit(neurons[:n], factor=0.0),) for neurons in lists for n in COUNTS]
        some = take(prompts[role, "confirm"], rows)
        found[role] = torch.stack([in_one_row(m, prompt, edits, metrics[role]) for prompt in some])
    return found


after = kept(pair, "04_silenced", silence, len(prompts["base", "confirm"]), fresh=RECOMPUTE)
gap = after["base"][:, 0] - after["distilled"][:, 0]  # [prompt, metric]: the difference between the models
p_before = {role: stats.bootstrap(expit(after[role][:, 0, 0])) for role in members}
silenced = {}
for role in members:
    names = [name for one, name in rivals if one == role]
    parts = np.split(after[role][:, 1:], len(names), axis=1)
    silenced |= {(role, name): part for name, part in zip(names, parts, strict=True)}

# %% [markdown]
# Shares of the models' difference, and P(stop); of the random neurons the median draw and the middle 95 % of draws:


# %%
def shares_of(role: str, name: str, metric: int) -> list[stats.Interval]:
    """Share of the models' difference in a metric that silencing makes, one a count."""
    change = toward[role] * (silenced[role, name] - after[role][:, :1])[..., metric]
    return [stats.ratio_of_means(one, gap[:, metric]) for one in change.T]


def chances(role: str, name: str) -> list[stats.Interval]:
    """P(stop) with neurons silenced, one a count."""
    return stats.bands(expit(silenced[role, name][..., 0]))


def over_draws(each: list[list[stats.Interval]]) -> list[stats.Interval]:
    """Median and middle 95 % of the draws' estimates."""
    return [middle(np.array([one.estimate for one in draws])) for draws in zip(*each, strict=True)]


made, spread = {}, {}
for role in members:
    for by in ("by L", "by c", "nearest columns"):
        made[role, by] = shares_of(role, by, 0), shares_of(role, by, 1), chances(role, by)
    draws = [f"draw {draw}" for draw in range(N_DRAWS)]
    spread[role] = [over_draws([shares_of(role, draw, metric) for draw in draws]) for metric in (0, 1)]
    spread[role].append(over_draws([chances(role, draw) for draw in draws]))

# %% [markdown]
# What is left, as shares of the difference and as P(stop):

# %%
what, table = ("share in L", "share in c", "P(stop)"), {}
for role, (name, place) in itertools.product(members, zip(what, range(3), strict=True)):
    table[role, name] = made[role, "by L"][place]
    table[role, f"{name}, random"] = spread[role][place]
display(
    Markdown(f"Before: P(stop) {p_before['base']} in the base, {p_before['distilled']} in the distilled.")
)
pd.DataFrame(table, index=pd.Index(COUNTS, name="silenced")).map(format).T

# %% [markdown]
# The leaders, and the rule for one neuron: does its fall lie beyond the draws?

# %%
leaders = rivals["base", "by L"][:3]
first, p_first = label(leaders[0]), made["base", "by L"][2][0].estimate
fall = {name: (after["base"][:, 0] - silenced["base", name][:, 0])[:, 0] for name in ("by L", *draws)}
strong = stats.bootstrap(fall["by L"]).low > middle(np.array([fall[draw].mean() for draw in draws])).high
colours = {"by L": ("chosen by log-odds", figures.THIRD), "by c": ("chosen by c", figures.WAIT)}
colours["nearest columns"] = "nearest columns", figures.LINE
panels = {}
for row, role in itertools.product((0, 2), members):
    series = {text: (made[role, by][row], colour) for by, (text, colour) in colours.items()}
    series[f"random, {N_DRAWS} draws"] = spread[role][row], figures.CONTROL
    panels[f"{role}: neurons × 0", row] = series
fig = figures.lines(
    panels,
    range(len(COUNTS)),
    title=f"Silencing one base neuron, {first}, cuts P(stop) to {p_first:.2f}"
    if strong
    else f"Silencing one base neuron, {first}, does no more for stopping than random ones",
    xlabel="neurons silenced (steps not to scale)",
    ylabel=("share of the models'\ndifference in log-odds", "P(stop)"),
    zero=True,
    rows=2,
    ticks=COUNTS,
)
note = f"n = {len(gap)} combined prompts, confirm, plain"
figures.save_figure(fig, "04_silenced", pair=pair.name, note=note)

# %% [markdown]
# **Figure 2: silencing the neurons that write stopping.** Above the share of the between-model difference in the log-odds of stopping, below P(stop); indigo chosen by direct contribution to the log-odds, wine to $c$, light blue the columns nearest to stop (base) or Wait (distilled); dashed grey the median of the draws of matched random neurons, shaded their middle 95 %. At one, one model reads like the other.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That the model is still well: many neurons silenced can lower any logit by breaking things. Harm is measured below, on neutral text. Nor that these neurons *make* the difference between the models: silencing takes away all that a neuron writes, not only what differs.
#
# </details>

# %% [markdown]
# ### What do the first three read, and what do they write?
#
# **Question.** Where do they fire, in texts that both models read: the stored answers of both, and neutral statements? Per text the token at which the neuron fires most with the sign that it has after answers (the first token aside), the highest texts first.

# %%
statements, thoughts = neutral_sentences(N_COMBINED), [replies["distilled"][q.id][:300] for q in asked]
texts = [f"{q.text} {JUST} {said}" for q, said in zip(asked, combined["confirm"].answers, strict=True)]
texts += [f"{q.text} {JUST} {said}" for q, said in zip(asked, thoughts, strict=True)] + statements


def firing(m, text: str) -> torch.Tensor:
    """Activation of the three at every token of a text, [position, neuron]."""

    def read(lm) -> torch.Tensor:
        layers = sorted({layer for layer, _ in leaders})
        act = {layer: lm.model.layers[layer].mlp.down_proj.input[0].clone() for layer in layers}
        return torch.stack([act[layer][:, neuron] for layer, neuron in leaders], dim=1)

    return m.traced(m.encode([text]), read).float().cpu()


# %% [markdown]
# Where in the texts does each fire most?

# %%
sign = {role: [float(active[role, "explore"][:, *at].mean().sign()) for at in leaders] for role in members}


def highest(rows: list[int]) -> dict:
    """Where in each text each neuron fires most, and how strongly, [text, neuron]."""
    found = {}
    for role, m in members.items():
        every = [firing(m, m.bos + text)[1:] * torch.tensor(sign[role]) for text in take(texts, rows)]
        found[f"{role} firing"] = torch.stack([one.max(0).values for one in every])
        found[f"{role} place"] = torch.stack([1 + one.argmax(0) for one in every])
    return found


tops = kept(pair, "04_reads", highest, len(texts), fresh=RECOMPUTE)


# %% [markdown]
# A place is shown with its token in brackets:


# %%
def seen(role: str, k: int, n: int = 3) -> str:
    """The places of the n texts in which the k-th neuron fires most, the token in brackets."""
    m, firings, lines = members[role], tops[f"{role} firing"][:, k], []
    for text in np.argsort(-firings, kind="stable")[:n]:
        ids, at = (
            m.encode([m.bos + texts[text]])["input_ids"][0].tolist(),
            int(tops[f"{role} place"][text, k]),
        )
        before, token, later = map(
            m.tokenizer.decode, (ids[max(0, at - 6) : at], ids[at : at + 1], ids[at + 1 :][:2])
        )
        lines.append(f"{before}[{token}]{later}".replace("\n", "\\n") + f" {firings[text]:.1f}")
    return " | ".join(lines)


rows = []
for (role, m), (k, at) in itertools.product(members.items(), enumerate(leaders)):
    vectors = torch.stack([column(m, at), -column(m, at)]) * sign[role][k]
    plus, minus = (" ".join(map(repr, some)) for some in promoted(m, vectors, k=6))
    row = {"neuron": label(at), "model": role, "nats": float(written[role, "by L"][:, *at].mean())}
    row |= {"stop (z)": float(vocabulary_scores(m, vectors, stop)[0, 0])}
    row |= {"writes as it fires after answers": plus, "with the other sign": minus}
    rows.append(row | {"fires most at": seen(role, k)})
pd.DataFrame(rows).sort_values("neuron", kind="stable").set_index(["neuron", "model"]).round(2)

# %% [markdown]
# "nats": what it writes towards the log-odds of stopping on `explore`; "stop (z)": how far above the average token its value vector lifts the stop token, in standard deviations of the vocabulary. A neuron can also make stopping likely by pushing ordinary words down: those stand under "with the other sign".

# %% [markdown]
# How strongly do they fire, by place: after an answer and inside it, before one, at the end of a neutral statement and inside it?


# %%
def places(role: str, rows: list[int]) -> dict[str, list[str]]:
    """Texts that end in each kind of place."""
    m, answered = members[role], take(prompts[role, "confirm"], rows)
    halves = [" ".join(text.split()[: len(text.split()) // 2]) for text in take(statements, rows)]
    return {
        "after an answer": answered,
        "inside an answer": [text.rsplit(" ", 1)[0] for text in answered],
        "before an answer": ask(m, take(asked, rows), form="plain"),
        "before it, template": ask(m, take(asked, rows), form="template"),
        "after a statement": [m.bos + text for text in take(statements, rows)],
        "inside a statement": [m.bos + text for text in halves],
    }


# %% [markdown]
# How strongly after an answer, before one, on statements, and in mid-sentence?


# %%
def fire(rows: list[int]) -> dict:
    """Activation of the three at the last position of each kind of place, [text, neuron]."""
    found = {}
    for (role, m), (place, ends) in (
        (one, end) for one in members.items() for end in places(one[0], rows).items()
    ):
        act = activations(m, ends).act
        found[f"{role} {place}"] = torch.stack([act[:, *at] for at in leaders], dim=1).cpu()
    return found


fires = kept(pair, "04_fires", fire, len(asked), len(statements), fresh=RECOMPUTE)

# %% [markdown]
# Side by side in both models:

# %%
panels = {}
for k, at in enumerate(leaders):
    panels[label(at)] = [
        (place, stats.bootstrap(fires[f"{role} {place}"][:, k]), figures.ROLE[role])
        for place, role in itertools.product(places("base", [0]), members)
    ]

# %%
ratio = float(fires["base before an answer"][:, 0].mean() / fires["base after an answer"][:, 0].mean())
fig = figures.interval_rows(
    panels,
    title=f"The first stop writer, {first}, fires {ratio:.1f} times as strongly before an answer as after it",
    unit="activation at the last position",
    zero=True,
)
key = {"base": figures.BASE, "distilled": figures.DISTILLED}
note = f"n = {len(asked)} questions (confirm, plain), {len(statements)} statements"
figures.save_figure(fig, "04_activations", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure 3: where the first three stop writers of the base fire.** Mean activation with 95 % bootstrap in both models. The sign is a convention of the neuron: what it writes as it fires after answers stands in the table.

# %% [markdown]
# ### The dose of one neuron
#
# **Question.** Between silence and double strength, how do stopping and harm go? The first neuron, and the first three, times 0 to 2 at the last position. Metrics: log-odds of stopping and P(stop) on the combined prompts (`confirm`), and the KL divergence of the next token's distribution from the unedited one after neutral statements, in nats, as the measure of harm. **Control:** the draws of random neurons matched to the first three.


# %%
def kl_from_first(model, states: torch.Tensor) -> torch.Tensor:
    """KL divergence of each row's next token from the first row's, in nats."""
    every = model.lm_head(states.to(model.lm_head.weight)).float().log_softmax(-1)
    return kl_nats(every[:1].expand_as(every), every)


# %% [markdown]
# From silence to twice as strong, on answers and on statements:

# %%
doses_of = {first: leaders[:1], "first three": leaders}
doses_of |= {f"draw {draw}": rivals["base", f"draw {draw}"][:3] for draw in range(N_DRAWS)}


def dosed(rows: list[int]) -> dict:
    """Log-odds of stopping and harm under each factor on each set of neurons, [text, 1 + edit, metric]."""
    found = {}
    edits = [(NeuronEdit(neurons, factor=factor),) for neurons in doses_of.values() for factor in FACTORS]
    for role, m in members.items():
        ends = {"answers": prompts[role, "confirm"], "template": combined["confirm"].prompts(m, "template")}
        ends["statements"] = [m.bos + text for text in statements]
        for kind, every in ends.items():
            some = edits[: 2 * len(FACTORS)] if kind == "template" else edits  # no draws there
            by = [metrics[role][0], kl_from_first]
            found[f"{role} {kind}"] = torch.stack(
                [in_one_row(m, text, some, by) for text in take(every, rows)]
            )
    return found


curves = kept(pair, "04_factors", dosed, len(asked), len(statements), fresh=RECOMPUTE)
dosage = {name: values[:, 1:].reshape(len(values), -1, len(FACTORS), 2) for name, values in curves.items()}

# %% [markdown]
# The dose in numbers:

# %%
table = {}
for role, (k, name) in itertools.product(members, enumerate(list(doses_of)[:2])):
    odds, inside = (dosage[f"{role} {kind}"][:, k, :, 0] for kind in ("answers", "template"))
    table[role, name, "log-odds"] = stats.bands(odds)
    table[role, name, "P(stop)"] = stats.bands(expit(odds))
    table[role, name, "P(stop), template"] = stats.bands(expit(inside))
    table[role, name, "harm (KL, nats)"] = stats.bands(dosage[f"{role} statements"][:, k, :, 1])
pd.DataFrame(table, index=pd.Index(FACTORS, name="factor")).map(format).T

# %% [markdown]
# And as curves:

# %%
panels, kinds = {}, (("answers", 0, expit), ("statements", 1, np.asarray))
for (row, (kind, metric, see)), role in itertools.product(enumerate(kinds), members):
    values = see(dosage[f"{role} {kind}"][..., metric])
    series = {
        first: (stats.bands(values[:, 0]), figures.WAIT),
        "first three": (stats.bands(values[:, 1]), figures.THIRD),
    }
    random = [middle(one) for one in values[:, 2:].mean(0).T]
    panels[role, row] = series | {"three random": (random, figures.CONTROL)}
span = float((dosage["base answers"][:, 0, -1, 0] - dosage["base answers"][:, 0, 0, 0]).mean())
fig = figures.lines(
    panels,
    FACTORS,
    title=f"One neuron, from off to double, moves the base's log-odds of stopping by {span:.1f} nats",
    xlabel="factor on the neurons",
    ylabel=("P(stop)\nafter an answer", "KL after neutral\nstatements (nats)"),
    zero=True,
    rows=2,
)
note = f"n = {len(asked)} combined prompts (confirm, plain), {len(statements)} statements"
figures.save_figure(fig, "04_factor", pair=pair.name, note=note)

# %% [markdown]
# **Figure 4: dose of the first neuron and of the first three.** Above P(stop) after answers, below the harm on neutral statements; dashed grey the median of the draws of three matched random neurons, shaded the middle 95 % of draws.

# %% [markdown]
# ### Do they make the difference between the models?
#
# **Question.** Give the base the distilled model's activation of a neuron at the last position (the same question and answer), and the reverse. Metric: change of the log-odds of stopping, and its share of the models' difference. If the neuron carried the difference, the share would be 1. **Control:** the draws, in the same number.

# %%
across = {f"first {count}": rivals["base", "by L"][:count] for count in (1, 3, 10)}
across |= {
    f"first {count}, draw {draw}": rivals["base", f"draw {draw}"][:count]
    for count in (1, 3, 10)
    for draw in range(N_DRAWS)
}


def exchange(rows: list[int]) -> dict:
    """Log-odds of stopping with the other model's activations of some neurons, [prompt, 1 + edit]."""
    found = {}
    for (role, m), other in zip(members.items(), reversed(members), strict=True):
        read = []
        for prompt, given in take(
            [*zip(prompts[role, "confirm"], active[other, "confirm"], strict=True)], rows
        ):
            sets = ((neurons, [float(given[at]) for at in neurons]) for neurons in across.values())
            edits = [(NeuronEdit(neurons, factor=0.0, added=values),) for neurons, values in sets]
            read.append(in_one_row(m, prompt, edits, metrics[role][:1])[:, 0])
        found[role] = torch.stack(read)
    return found


exchanged = kept(pair, "04_across", exchange, len(gap), fresh=RECOMPUTE)

# %% [markdown]
# As shares of what lies between the models:

# %%
rows, carried = [], {}
for role, count in itertools.product(members, (1, 3, 10)):
    change = dict(zip(across, (exchanged[role][:, 1:] - exchanged[role][:, :1]).T, strict=True))
    own = change[f"first {count}"]
    carried[role, count] = stats.ratio_of_means(toward[role] * own, gap[:, 0])
    random = middle(np.array([change[f"first {count}, draw {draw}"].mean() for draw in range(N_DRAWS)]))
    row = {"into the": role, "neurons of the base": f"first {count}", "nats": stats.bootstrap(own)}
    rows.append(row | {"share of the difference": carried[role, count], "random draws, nats": random})
nodes = [Node("neuron", *leaders[0])]
source = activations(pair.distilled, prompts["distilled", "confirm"][:2])
exact = exact_patching(pair.base, prompts["base", "confirm"][:2], source, nodes, metrics["base"][0])
assert np.allclose(exact[:, 0], (exchanged["base"][:2, 1] - exchanged["base"][:2, 0]), atol=1e-3)
pd.DataFrame(rows).map(format).set_index(["into the", "neurons of the base"])

# %% [markdown]
# ### The dose of the nearest columns
#
# **Question.** Base: the columns nearest to stop × 0 and those nearest to Wait × α; distilled: the reverse; at every position. **Controls.** `N_DRAWS` draws of matched random neurons, and the nearest columns of two random words.
#
# α is chosen on `explore` by the largest change of $c$ in the wanted direction *beyond* that of the first draw of random neurons: a factor under which any neurons break the model is of no use. The same edits are then read by the log-odds of stopping.


# %%
def scaled(role: str, alpha: float, neurons: dict) -> tuple[NeuronEdit, NeuronEdit]:
    """Silence one kind, scale the other, by role."""
    off, on = ("stop", "Wait") if role == "base" else ("Wait", "stop")
    return NeuronEdit(neurons[role, off], factor=0.0), NeuronEdit(neurons[role, on], factor=alpha)


def read_edit(role: str, split: str, edit: tuple[NeuronEdit, ...], rows=range(10**6)) -> np.ndarray:
    """Log-odds of stopping and c under an edit at every position, [prompt, metric]."""
    m = members[role]
    states = last_hidden(m, take(prompts[role, split], rows), lm=with_neurons(m, *edit))
    return np.stack([m.at_weights(metric, states).cpu() for metric in metrics[role]], axis=1)


# %% [markdown]
# A factor of 1 must change nothing; and in the last layer, which no other reads, an edit at every position is one at the last:

# %%
nothing = NeuronEdit([*chosen["base", "stop"], *chosen["base", "Wait"]], factor=1.0)
unchanged = read_edit("base", "confirm", (nothing,))
assert np.allclose(unchanged, after["base"][:, 0], atol=1e-3), "alpha 1 changes nothing"
one, prompt = NeuronEdit([(pair.base.n_layers - 1, 0)], factor=0.0), prompts["base", "confirm"][0]
everywhere, here = (
    read_edit("base", "confirm", (one,), [0])[0],
    in_one_row(pair.base, prompt, [(one,)], metrics["base"]),
)
assert np.allclose(here[1], everywhere, atol=1e-3), "no later layer reads the last one"

# %% [markdown]
# Each set at every dose, and the first two on `explore` as well, where α is chosen:

# %%
matched = [
    {key: weights.matched_neurons(neurons, size[key[0]], seed=SEED + draw) for key, neurons in chosen.items()}
    for draw in range(N_DRAWS)
]
sets = {"nearest columns": chosen, "matched random": matched[0], "near two words": of_two_words}
doses = [*itertools.product(members, sets)]


def sweep(rows: list[int]) -> dict:
    """Log-odds and c under every edit, [prompt, alpha, metric], on confirm and explore."""
    found = {}
    for (role, name), split in itertools.product(doses, ("confirm", "explore")):
        if split == "confirm" or name != "near two words":
            edits = [scaled(role, alpha, sets[name]) for alpha in ALPHAS]
            found[f"{split} {role} {name}"] = np.stack(
                [read_edit(role, split, one, rows) for one in edits], 1
            )
    return found


n_rows = [len(combined[split].questions) for split in ("confirm", "explore")]
swept = kept(pair, "04_dose", sweep, *n_rows, fresh=RECOMPUTE)

# %% [markdown]
# The chosen α; with it all draws of random neurons:

# %%
best = {}
for role in members:
    nearest, random = (swept[f"explore {role} {name}"] for name in ("nearest columns", "matched random"))
    best[role] = ALPHAS[int((toward[role] * (nearest - random)[..., 1].mean(0)).argmax())]


def read_draws(rows: list[int]) -> dict:
    """Log-odds and c with matched random neurons scaled, [prompt, draw, metric]."""
    found = {}
    for role in members:
        each = [read_edit(role, "confirm", scaled(role, best[role], neurons), rows) for neurons in matched]
        found[role] = np.stack(each, axis=1)
    return found


drawn = kept(pair, "04_draws", read_draws, n_rows[0], fresh=RECOMPUTE)

# %% [markdown]
# What the edits make of the models' difference, how far the nearest columns go beyond each control (of the random neurons the mean of all draws), and P(stop):

# %%
effect, p_stop = {}, {}
for role, name in doses:
    values = swept[f"confirm {role} {name}"][:, ALPHAS.index(best[role])]
    values = drawn[role].mean(1) if name == "matched random" else values
    effect[role, name] = toward[role] * (values - after[role][:, 0])
    odds = drawn[role][..., 0] if name == "matched random" else values[:, :1]
    p_stop[role, name] = stats.bootstrap(expit(odds).mean(1))
share, beyond, by_draw = {}, {}, {}
for k, by in enumerate(("L", "c")):
    for role, name in doses:
        share[by, role, name] = stats.ratio_of_means(effect[role, name][:, k], gap[:, k])
        ahead = effect[role, "nearest columns"] - effect[role, name]
        if name != "nearest columns":
            beyond[by, role, name] = stats.ratio_of_means(ahead[:, k], gap[:, k])
    for role in members:
        each = toward[role] * (drawn[role] - after[role][:, :1])[..., k]
        each = [stats.ratio_of_means(one, gap[:, k]).estimate for one in each.T]
        by_draw[by, role] = middle(np.array(each))

# %%
table = {
    (role, name): {
        "α": best[role],
        "share in L": share["L", role, name],
        "beyond it, L": beyond.get(("L", role, name), ""),
        "share in c": share["c", role, name],
        "beyond it, c": beyond.get(("c", role, name), ""),
        "P(stop)": p_stop[role, name],
    }
    for role, name in doses
}
display(pd.DataFrame(table).T.map(format))
lines = [f"{by}, {role}: {interval}" for (by, role), interval in by_draw.items()]
Markdown(f"Share made by a draw of random neurons, median and middle 95 % of {N_DRAWS}: {'; '.join(lines)}.")

# %% [markdown]
# The controls of the picture:

# %%
colours = {
    "nearest columns": ("nearest columns", figures.WAIT),
    "near two words": ("near two words", figures.THIRD),
    "matched random": ("random, one draw", figures.CONTROL),
}
larger = findings.Rule("above", 0.1)
won = [larger.verdict(interval) == "holds" for key, interval in beyond.items() if key[0] == "L"]
panels = {}
for (k, row), role in itertools.product(enumerate(("log-odds", "c")), members):
    series = panels[f"{role}", row] = {}
    for name, (text, colour) in colours.items():
        change = swept[f"confirm {role} {name}"][..., k] - after[role][:, :1, k]
        series[text] = stats.bands(change), colour

# %%
fig = figures.lines(
    panels,
    ALPHAS,
    title=f"The nearest columns beat their controls in {sum(won)} of {len(won)} comparisons "
    "by the log-odds of stopping",
    xlabel="α",
    ylabel=("change of the log-odds\nof stopping (nats)", "change of c (nats)"),
    zero=True,
    rows=2,
)
note = f"n = {len(gap)} combined prompts, confirm, plain"
figures.save_figure(fig, "04_dose", pair=pair.name, note=note)

# %% [markdown]
# **Figure 5: dose and response of the nearest columns.** Base: down is towards waiting. Distilled: up is towards stopping. Wine the nearest columns, one kind silenced and the other multiplied by α; dashed grey one draw of matched random neurons, indigo the nearest columns of two random words. Where grey falls with wine, part of the fall is due to so large a factor and not to where the columns point: that is why α is chosen beyond the random neurons.

# %% [markdown]
# ### What do they write then?
#
# **Question.** With the edits held at every generated step, how do the answers to the confirm questions change? The nearest columns at the α chosen above, and the base's first stop writers silenced. Chat template, at most `MAX_AFTER` new tokens. Metrics: length, stop rate, answers with a "wait", repetition (share of repeated 4-grams), right answers; all paired by prompt. **Control.** Matched random neurons under the same factors, one draw of each: a draw costs a generation.

# %%
asked = [question for question in questions if question.split == "confirm"][:N_AFTER]
how, ids = dict(form="template", fresh=RECOMPUTE), [question.id for question in asked]
states = {(role, name): scaled(role, best[role], sets[name]) for role in members for name in list(sets)[:2]}
silent = {f"{first} × 0": leaders[:1], "first three × 0": leaders}
silent["three random × 0"] = rivals["base", "draw 0"][:3]
states |= {("base", name): (NeuronEdit(neurons, factor=0.0),) for name, neurons in silent.items()}


def edited_answers(m, name: str, edits: tuple[NeuronEdit, ...]) -> pd.DataFrame:
    """Answers of a model with some neurons edited at every step."""
    description = f"{m.role}: {[(edit.factor, sorted(edit.neurons)) for edit in edits]}"
    change = Change(description, with_neurons(m, *edits))
    stored = f"04_{m.role}_{name.removesuffix(' × 0').replace(' ', '_')}"
    return answers(pair, m, asked, max_new_tokens=MAX_AFTER, change=change, name=stored, **how)


answered = {}
for role, m in members.items():
    every = answers(pair, m, questions, max_new_tokens=MAX_NEW_TOKENS, **how)
    answered[role, "before"] = cut_short(m, every.loc[ids], asked, MAX_AFTER, opened=m.thinks)
answered |= {
    (role, name): edited_answers(members[role], name, edits) for (role, name), edits in states.items()
}

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
pd.DataFrame(means).rename(index=measures).T.round(3)

# %%
longer = {}
for role in members:
    lengths = [answered[role, name]["length"] for name in ("nearest columns", "matched random")]
    longer[role] = stats.paired(*lengths)
one_off = answered["base", f"{first} × 0"]
stops = stats.share(one_off["stopped"])

# %% [markdown]
# The colours, and one panel a measure:

# %%
colours = {"before": figures.BASE, f"{first} × 0": figures.WAIT, "first three × 0": figures.THIRD}
colours |= {
    "three random × 0": figures.CONTROL,
    "nearest columns": figures.PALE,
    "matched random": figures.CONTROL,
}
panels = {}
for column_name in ("length", "stopped", "repetition"):
    panels[measures[column_name]] = [
        (name, stats.bootstrap(answered["base", name][column_name].astype(float)), colour)
        for name, colour in colours.items()
    ]
fig = figures.interval_rows(
    panels,
    title=f"With {first} silenced {stops.estimate:.0%} of the base's answers still stop",
    unit=("tokens", "share of answers", "share of 4-grams"),
)
note = f"n = {len(asked)} questions, confirm, template, at most {MAX_AFTER} tokens"
figures.save_figure(fig, "04_behaviour", pair=pair.name, size=(9.5, 3.2), note=note)

# %% [markdown]
# **Figure 6: the base's answers with its stop writers silenced.** Means with 95 % bootstrap over questions: length, stop rate, repetition. Blue unedited; wine and indigo the first neuron and the first three at 0; pink the nearest columns (stop × 0, Wait × α); grey squares matched random neurons under the same factors, one draw.

# %% [markdown]
# Three texts of each model, before and after:

# %%
after_edit = {"base": "first three × 0", "distilled": "nearest columns"}
for role, edit in after_edit.items():
    texts = {name: frame["text"] for (one, name), frame in answered.items() if one == role}
    differs = texts[edit] != texts["before"]
    some = list(differs[differs].index[:: max(1, differs.sum() // 3)][:3]) or list(differs.index[:3])
    display(
        Markdown(f"**{role}**, {edit}: {differs.mean():.0%} of the texts changed. Three, in fixed order:")
    )
    for name in some:
        said = {"question": answered[role, "before"].loc[name, "question"]}
        said |= {state: repr(text[name])[1:-1][:400] for state, text in texts.items()}
        display(pd.DataFrame({"": said}))

# %% [markdown]
# The parts of the rule, and what stands beside them:

# %%
other = {"near two words": "columns near two words", "matched random": "matched random neurons"}
nearer, above_0, below_0 = (findings.Rule(*rule) for rule in (("above", 0.95), ("above", 0), ("below", 0)))
rules = [
    findings.Part(f"(a) words with less near columns, {' '.join(key)}", interval, nearer)
    for key, interval in above.items()
]
of = {
    by: [
        findings.Part(f"(b) {role}, beyond {other[name]}{', log-odds' * (by == 'L')}", interval, larger)
        for (one, role, name), interval in beyond.items()
        if one == by
    ]
    for by in ("c", "L")
}
rules += of["c"]
rules += [
    findings.Part("(c) tokens longer than with random neurons, base", longer["base"], above_0),
    findings.Part("(c) the same, distilled", longer["distilled"], below_0),
]

# %% [markdown]
# What stands beside the rule:

# %%
details = {}
for role, name in doses:
    details[f"P(stop), {role}, {name}"] = p_stop[role, name]
for role in members:
    details[f"P(stop), {role}, before"] = p_before[role]
    details[f"share that draws of matched random neurons make, {role}, middle 95 %"] = by_draw["c", role]
    details[f"the same in the log-odds, {role}"] = by_draw["L", role]
details["first stop writers of the base, layer and index"] = ", ".join(
    map(label, rivals["base", "by L"][:10])
)
for k, count in enumerate(COUNTS[:3]):
    details[f"share of the log-odds' difference made by silencing the first {count}"] = made["base", "by L"][
        0
    ][k]
    details[f"the same by matched random neurons, {count}"] = spread["base"][0][k]
    details[f"share of c's difference made by silencing the first {count}"] = made["base", "by L"][1][k]
    details[f"P(stop) with the first {count} silenced"] = made["base", "by L"][2][k]
for count in (1, 3, 10):
    details[f"share that the first {count} carry across, into the base"] = carried["base", count]
details["stop rate of the base's answers with the first silenced"] = stops

# %%
edits_made = f"stop neurons × 0 and Wait neurons × {best['base']:g}"
F13 = findings.record(
    pair,
    "F13",
    notebook="04_value_vectors",
    quantity=f"share of the between-model difference in stop − Wait made on the base, {edits_made}",
    unit="of the difference",
    interval=share["c", "base", "nearest columns"],
    rules=rules,
    stopping=of["L"],
    control=(
        f"matched random neurons, same factors, mean of {N_DRAWS} draws",
        share["c", "base", "matched random"],
    ),
    details=details,
)
differs = ""
if F13["stopping"]["verdict"] != F13["verdict"]:
    short = [part.name for part in rules if part.verdict != "holds"]
    differs = f"The odds look at (b) alone; of the claim's own parts these do not hold: {'; '.join(short)}."
Markdown("\n\n".join(filter(None, (findings.sentence(F13), findings.as_markdown(differs)))))

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

# %% [markdown]
# The picture:

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
# **Figure 7: a token as a sum of few others.** Black the stop token, dashed grey random words with 95 % bootstrap over words.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That such a sum has a meaning. Tokens of like training history share directions, and a chat model's stop token starts its life beside other reserved tokens.
#
# </details>

# %% [markdown]
# ## Try it
#
# Scale the base's first three stop writers and the columns nearest to Wait, and see the next token at once; the button writes before and after. Figures 4 and 6 are the same for readers without a kernel.

# %%
near_wait = {role: chosen[role, "Wait"] for role in members}
explorers.neurons_explorer(pair, dict.fromkeys(members, leaders), near_wait)

# %% [markdown]
# ## Takeaway

# %%
across_one, p_base = carried["base", 1], p_before["base"].estimate
alike = float(fires["distilled after an answer"][:, 0].mean() / fires["base after an answer"][:, 0].mean())
hangs = f"Stopping hangs on few neurons of the base: without one, {first}, P(stop) after an answer falls"
hangs += f" from {p_base:.2f} to {p_first:.2f}, and {stops.estimate:.0%} of its answers still stop."
alone = f"No single neuron holds the base's stopping: silencing {first} does no more than random ones."
origin = "does not make" if across_one.high < 0.5 else "may or may not make"
origin = ("makes" if across_one.low > 0.5 else origin) + " most of the models' difference"
points = "also" if F13["stopping"]["verdict"] == "holds" else "not reliably"
Markdown(
    f"{hangs if strong else alone} This neuron {origin}: in the distilled it fires {alike:.2f} times as "
    f"strongly, and with that activation the base goes {across_one.estimate:.0%} of the way in the log-odds "
    f"of stopping, with those of the first ten {carried['base', 10].estimate:.0%}. Fine-tuning moved the "
    f"average matrix by {F12['estimate']:.1%} of its size; columns that point at the stop token or at Wait "
    f"{points} move stopping beyond their controls in both."
)

# %% [markdown]
# Back: [03_logit_lens](03_logit_lens.ipynb). Next: [05_patching](05_patching.ipynb) asks which components decide, and why swapping one layer does not work.
