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
# # 06 · Can the base be made to wait, and the distilled model to stop?
#
# **Claim.** Under test: the distilled model's first word, a lowered stop logit, a vector added to the stream, one latent of a sparse autoencoder, or (on a pair of R1's shape) R1's own published direction is enough to turn one model into the other's behaviour. What holds on this pair is printed below the set-up.
#
# **Evidence.** Each prompt as a line under a vector (figure 3); every method beside its control of the same size, with right answers and repetition beside the effect (figures 5 and 6).
#
# **Caveat.** A text that says "Wait" need not reason: a vector strong enough puts any word into any mouth. So a *reasoning* answer here must hold a word of doubt or of alternatives without looping, and what happens to right answers stands beside it. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them), a sparse autoencoder, R1's mean activations (`data/published/README.md`). **Writes** `data/<pair>/06_*` (steered texts, readouts), findings F17 to F20 and F27, figures `06_*`.

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
N_COMBINED = 24  # quick: 6; combined prompts (F27: thoughts) of each split, for readouts
N_FORCED = 20  # quick: 6; confirm questions with a forced first word
MAX_FORCED = 120  # new tokens after it
N_TUNE = 8  # quick: 2; explore questions on which a strength is chosen
LIMIT = 0.2  # by how much right answers may fall there, and repetition rise
N_STEERED = 16  # quick: 4; confirm questions answered under the chosen strength
MAX_STEERED = 70  # quick: 40; new tokens of steered answers
BIASES = [0, -2, -4, -8, -16]  # quick: [0, -16]; added to the stop token's logit
N_SOURCES = 48  # quick: 12; explore answers that vectors are taken from
N_PLACES = 64  # quick: 16; places that a vector is averaged over, at most
N_MAP = 6  # quick: 2; prompts of the layer and strength maps
LAYER_STEP = 5  # quick: 10; every fifth layer in the maps
STRENGTHS = [0.1, 0.25, 0.5]  # quick: [0.25, 0.5]; shares of the stream's mean length
N_HEADS = 10  # heads of a function vector
N_CONTROLS = 60  # quick: 10; random directions, random latents
AUTOENCODER = None  # (folder or hub id, hookpoint); None: the pair's own
R1_MEANS = ""  # folder or file of R1's mean activations (data/published/README.md); empty: what is stored

# %% jupyter={"source_hidden": true} tags=["claim"]
import os, re, types
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity, normalize

from helpers import explorers, figures, findings, readouts, stats, steering
from helpers.generation import Completion, answers, cut_short, judged, load_combined, stored_completions
from helpers.pairs import load_pair
from helpers.patching import Node, attribution_patching, exact_patching
from helpers.prompts import ask, load_questions
from helpers.readouts import activations, log_odds, promoted, stop_parts
from helpers.steering import NOTHING, Steering, steered
from helpers.store import UserError, data_dir, kept, read_json, sha256, take
from helpers.tokens import KEYWORDS, count_keywords

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F17", "F18", "F19", "F20", "F27"))

# %% [markdown]
# ## What counts as an effect
#
# Five ways are tried, from the outside inwards: a word put into the model's mouth (F17), the logit of a token (F18), a vector in the stream (F19), one latent of an autoencoder (F20), R1's own direction (F27). Texts are answers in the chat template to questions of the `confirm` half; whatever is chosen (layer, strength, heads, latents) is chosen on `explore`.

# %%
knobs = dict(n_prompts=N_PROMPTS, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, n_combined=N_COMBINED, max_answer=MAX_ANSWER, **knobs)
pair = pair.float()  # vectors and readouts in float32
members = {member.role: member for member in pair.members}
questions = load_questions(N_PROMPTS)
explore, confirm = ([q for q in questions if q.split == half] for half in ("explore", "confirm"))
own = {
    role: answers(pair, m, questions, form="template", max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
    for role, m in members.items()
}

# %% [markdown]
# A text *reasons*, for this notebook, when it holds a word of doubt or of alternatives (wait, hold on, maybe, alternatively, ...) and less than half of its 4-grams are repeats. Beside it stand length, right answers and repetition.

# %%
MEASURES = ["reasons", "length", "stopped", "right", "repetition"]


def measured(texts: pd.DataFrame, what: str) -> np.ndarray:
    """One number a text: a column, or 1 where it holds doubt or alternatives and does not loop."""
    if what != "reasons":
        return texts[what].to_numpy(float)
    counts = texts["text"].map(count_keywords)
    said = counts.map(lambda found: found["doubting"] + found["alternatives"] > 0)
    return (said & (texts["repetition"] < 0.5)).to_numpy(float)


def means(texts: pd.DataFrame) -> dict[str, float]:
    """The mean of each measure over texts."""
    return {what: measured(texts, what).mean() for what in MEASURES}


pd.DataFrame({f"{role}, as it is": means(own[role]) for role in members}).round(3)

# %% [markdown]
# ## Three raw examples, before any average
#
# Each model's own answer ("none"), and what it writes when its first word is chosen for it: the distilled model's usual one, "First", or a neutral one. Neutral words ("The", "In", "There") also begin answers; they are the control.

# %%
asked = confirm[:N_FORCED]
first_words = own["distilled"]["first_word"]
usual = first_words.value_counts().index[0]
neutral = ["The", "In", "There"]
words = list(dict.fromkeys([usual, "First", "Okay", "To", "Wait", "Hmm", *neutral]))
begins = {word: [word] * len(asked) for word in words}
begins["own"] = [first_words[q.id] or usual for q in asked]  # the distilled model's, question by question

# %% [markdown]
# All of them are written in one generation a model, then cut into one table a condition.


# %%
def by_condition(texts: pd.DataFrame, conditions) -> dict:
    """Texts of the same questions under several conditions, as one table each."""
    size = len(texts) // len(conditions)
    return {name: texts.iloc[k * size : (k + 1) * size] for k, name in enumerate(conditions)}


def shortened(role: str, some: list, limit: int) -> pd.DataFrame:
    """A model's own answers as if fewer tokens had been allowed."""
    m, texts = members[role], own[role].loc[[q.id for q in some]]
    return cut_short(m, texts, some, limit, opened=m.thinks)


# %%
def forced_answers(role: str) -> dict[str, pd.DataFrame]:
    """What a model writes after each first word, and its own answer of that length as "none"."""
    m, prompts = members[role], ask(members[role], asked, form="template")
    rows = [prompt + word for some in begins.values() for prompt, word in zip(prompts, some, strict=True)]
    how = dict(name=f"06_forced_{role}", max_new_tokens=MAX_FORCED, fresh=RECOMPUTE)
    texts = judged(stored_completions(pair, m, rows, **how), asked * len(begins), opened=m.thinks)
    return by_condition(texts, begins) | {"none": shortened(role, asked, MAX_FORCED)}


forced = {role: forced_answers(role) for role in members}

# %% [markdown]
# The base beside the distilled model:


# %%
def quoted(texts: dict, index: int) -> dict[str, str]:
    """One question's text under each condition, on one line, shortened."""
    return {name: repr(some["text"].iloc[index][:400])[1:-1] for name, some in texts.items()}


shown = dict.fromkeys(["none", usual, "First", neutral[0]])
for k in np.random.default_rng(SEED).choice(len(asked), min(3, len(asked)), replace=False):
    columns = {role: quoted({word: forced[role][word] for word in shown}, k) for role in members}
    display(Markdown(f"*{asked[k].text}*"), pd.DataFrame(columns))

# %% [markdown]
# ## F17 · First words
#
# **Question.** Does the distilled model's first word, put into the base's mouth, lead to reasoning? And does the first word decide on the distilled model, too? In published outputs of R1-Distill-Qwen-1.5B answers that open with "First," almost never wait while those with "Okay," almost always do (thinking-llms-interp, 500 GSM8K tasks), but who chose the word is confounded with what is asked. Here the word is forced.

# %% [markdown]
# **Control.** Neutral words, forced the same way, mean of the three by question. **Rule, written before the result.** F17 holds if on the base, its distilled partner's own first word against the neutral words, (a) makes up more than a tenth of the gap in length between the two models and (b) raises the share of reasoning answers by more than 0.05.


# %%
def neutral_mean(role: str, what: str) -> np.ndarray:
    """A measure after neutral words, mean of the three by question."""
    return np.mean([measured(forced[role][word], what) for word in neutral], axis=0)


def over_neutral(role: str, word: str, what: str) -> stats.Interval:
    """A forced word against the mean of the neutral ones, by question."""
    return stats.paired(measured(forced[role][word], what), neutral_mean(role, what))


base_length = measured(forced["base"]["none"], "length")
gap = measured(forced["distilled"]["none"], "length") - base_length
closed = stats.ratio_of_means(measured(forced["base"]["own"], "length") - neutral_mean("base", "length"), gap)
by_neutral = stats.ratio_of_means(neutral_mean("base", "length") - base_length, gap)

# %% [markdown]
# What the rule reads of it, and the verdict:

# %%
rules = [
    findings.Part("(a) share of the gap closed", closed, findings.Rule("above", 0.1)),
    findings.Part(
        "(b) reasoning answers beyond neutral words, base",
        over_neutral("base", "own", "reasons"),
        findings.Rule("above", 0.05),
    ),
]
reasoning_of_first = "reasoning answers, 'First' against neutral words, distilled"
details = {
    reasoning_of_first: over_neutral("distilled", "First", "reasons"),
    "tokens, the same": over_neutral("distilled", "First", "length"),
}

# %%
F17 = findings.record(
    pair,
    "F17",
    notebook="06_steering",
    quantity="share of the gap in length between the models that the distilled model's first word "
    f"({usual!r} in {(first_words == usual).mean():.0%}) closes on the base, beyond neutral words",
    unit="of the gap",
    rules=rules,
    control=("neutral words beyond no word", by_neutral),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F17))

# %% [markdown]
# The same for every word, with right answers beside it:


# %%
def word_rows(what: str) -> list:
    """A row a first word and model, neutral words last."""
    order = ["none", *(word for word in words if word not in neutral), *neutral]
    colours = {role: dict.fromkeys(neutral, figures.CONTROL) for role in members}
    return [
        (
            word,
            stats.bootstrap(measured(forced[role][word], what)),
            colours[role].get(word, figures.ROLE[role]),
        )
        for word in order
        for role in members
    ]


headings = {"length": "length (tokens)", "reasons": "reasoning answers", "right": "right answers"}
panels = {heading: word_rows(what) for what, heading in headings.items()}

title = f"{usual!r} in the base's mouth closes {closed.estimate:.0%} of the gap beyond neutral words"
fig = figures.interval_rows(panels, title=title, unit="mean over questions")
key = {**figures.ROLE, "neutral words, both models": figures.CONTROL}
note = f"n = {len(asked)} questions, confirm, template, at most {MAX_FORCED} tokens"
figures.save_figure(fig, "06_first_words", pair=pair.name, size=(10, 4.6), key=key, note=note)

# %% [markdown]
# **Figure 1: what follows a forced first word.** Blue the base, orange the distilled model, grey squares neutral words (upper mark the base); "none" is each model's own answer. Bars are 95 % bootstrap over questions; lengths are censored at the limit, and a forced "Wait" is not itself counted.

# %% [markdown]
# ## F18 · Lowering the stop token's logit
#
# **Question.** If the base merely may not stop, does it reason, or does it repeat? The logit of all stop tokens is lowered at every generated step, from 0 (the baseline, asserted equal) to −16 nats. Metrics: stop rate, reasoning answers, repetition, right answers; and the first words that come instead.

# %% [markdown]
# **Control.** As many of the tokens that the base writes most often, lowered by as much. **Rule, made stricter after a first look at the result.** F18 holds if the strongest bias (a) lowers the stop rate by more than 0.2, and (b) raises the share of reasoning answers by more than half of the gap between base and distilled model in the same number of tokens: rise minus half of the gap, by question, above 0. It does not hold where (b)'s interval lies below.


# %%
def answer(role: str, some: list, conditions: dict, name: str, fresh: bool = RECOMPUTE) -> dict:
    """The same questions under several steerings, in one generation; a list gives each its own."""
    each = [one if isinstance(one, list) else [one] * len(some) for one in conditions.values()]
    change = steered(members[role], [one for steerings in each for one in steerings])
    how = dict(form="template", max_new_tokens=MAX_STEERED, change=change, name=name, fresh=fresh)
    return by_condition(answers(pair, members[role], some * len(conditions), **how), conditions)


stop = {role: list(m.groups.stop) for role, m in members.items()}
counts = pd.Series([token for tokens in own["base"]["tokens"] for token in tokens]).value_counts()
frequent = [int(token) for token in counts.index if token not in stop["base"]][: len(stop["base"])]

# %% [markdown]
# Both kinds of tokens under every bias, and both models as they are:

# %%
held_out = confirm[:N_STEERED]
lowered = {
    (name, bias): Steering(f"{name} lowered", bias=dict.fromkeys(tokens, float(bias)))
    for name, tokens in (("stop", stop["base"]), ("words", frequent))
    for bias in BIASES
}
swept = answer("base", held_out, lowered, "06_stop_lowered")
as_is = {role: shortened(role, held_out, MAX_STEERED) for role in members}
assert list(swept["stop", 0]["text"]) == list(as_is["base"]["text"]), "bias 0 is the baseline"

# %% [markdown]
# The strongest bias against the baseline, and against half of what separates the models:

# %%
strongest = swept["stop", BIASES[-1]]


def change_in(what: str, texts: pd.DataFrame = strongest) -> stats.Interval:
    """A measure's change against the base as it is, by question."""
    return stats.paired(measured(texts, what), measured(as_is["base"], what))


base_reasons, distilled_reasons = (measured(as_is[role], "reasons") for role in members)
gap_half = (distilled_reasons - base_reasons) / 2
short_of = stats.bootstrap(measured(strongest, "reasons") - base_reasons - gap_half)
rules = [
    findings.Part(
        f"(a) stop rate within {MAX_STEERED} tokens", change_in("stopped"), findings.Rule("below", -0.2)
    ),
    findings.Part("(b) rise minus half of the gap", short_of, findings.Rule("above", 0)),
]

# %% [markdown]
# The verdict:

# %%
F18 = findings.record(
    pair,
    "F18",
    notebook="06_steering",
    quantity=f"change of the share of reasoning answers on the base, stop logit lowered by {-BIASES[-1]}",
    unit="of answers",
    interval=change_in("reasons"),
    rules=rules,
    control=(
        "the base's most frequent tokens lowered by as much",
        change_in("reasons", swept["words", BIASES[-1]]),
    ),
    sample="questions",
    details={
        "reasoning answers, distilled": stats.bootstrap(distilled_reasons),
        "reasoning answers, base": stats.bootstrap(base_reasons),
        "repetition": change_in("repetition"),
        "right answers": change_in("right"),
    },
)
Markdown(findings.sentence(F18))

# %% [markdown]
# And what comes where the base would have stopped:

# %%
pairs_of_texts = list(zip(strongest["text"], as_is["base"]["text"], strict=True))
same = [after[len(before) :] for after, before in pairs_of_texts if after.startswith(before.rstrip())]
comes = [rest.strip().split(" ")[0] or "(nothing)" for rest in same]
comes += ["(another answer)"] * (len(pairs_of_texts) - len(same))
comes = pd.Series(comes).value_counts().head(8)
listed = ", ".join(f"{findings.code_span(word)} {count}" for word, count in comes.items())
Markdown(f"The first word after the base's own answer, under the strongest bias: {listed}")


# %%
def sweep(kind: str, what: str) -> list[stats.Interval]:
    """A measure under every bias."""
    return [stats.bootstrap(measured(swept[kind, bias], what)) for bias in BIASES]


headings = {"stopped": "stop rate", "reasons": "reasoning answers"}
headings |= {"repetition": "repetition", "right": "right answers"}
panels = {
    heading: {
        "stop": (sweep("stop", what), figures.STOP),
        "frequent tokens": (sweep("words", what), figures.CONTROL),
        "distilled": ([stats.bootstrap(measured(as_is["distilled"], what))] * len(BIASES), figures.DISTILLED),
    }
    for what, heading in headings.items()
}

title = f"Kept from stopping, the base reasons in {measured(strongest, 'reasons').mean():.0%} of its answers"
labels = dict(xlabel="logit lowered by (nats)", ylabel="mean over questions")
fig = figures.lines(panels, [-bias for bias in BIASES], title=title, **labels)
note = f"n = {len(held_out)} questions, confirm, template, at most {MAX_STEERED} tokens"
figures.save_figure(fig, "06_stop_lowered", pair=pair.name, size=(11, 3.2), note=note)

# %% [markdown]
# **Figure 2: the base with its stop token held down.** Black: all stop tokens lowered; dashed grey: as many of the base's most frequent tokens; orange: the distilled model as it is, in the same number of tokens. Bands are 95 % bootstrap over questions.

# %% [markdown]
# <details><summary>What it does not show</summary> Longer texts: with more room a repeating text repeats more. And the share of reasoning answers counts words, not thoughts.</details>

# %% [markdown]
# ## F19 · Vectors: where they come from
#
# **Question.** What differs in the stream right before a keyword? A **keyword vector** is the mean of a layer's output at tokens that precede a keyword, minus the mean at *matched* places: after the same token where possible, before no keyword (Turner et al. 2023; Rimsky et al. 2023; Venhoff et al. 2025). A **function vector** is the sum of the mean outputs of the ten heads that, patched with that mean, move the metric most on `explore` (Todd et al. 2023). For waiting both come from the distilled model's own answers, for stopping from the base's.

# %% [markdown]
# Every vector is stretched to the mean length of the stream at its layer, first tokens left out; a strength is a share of that. **Controls**: random directions of the same length; for keyword vectors the same recipe with shuffled labels, for function vectors as many random heads; the vector of another family of keywords ("First, ...; then, ...").


# %%
def own_texts(role: str, some: list) -> list:
    """A model's stored answers to questions, with their tokens."""
    prompts, name = ask(members[role], some, form="template"), f"answers_{role}_template_just"
    return stored_completions(pair, members[role], prompts, name=name, max_new_tokens=MAX_NEW_TOKENS)


sources = {role: own_texts(role, explore[:N_SOURCES]) for role in members}
writer = dict.fromkeys(["doubting", "ordering", "opening"], "distilled") | {"stop": "base"}
rng = np.random.default_rng(SEED)

# %% [markdown]
# The places: up to `N_PLACES` before a keyword (or before the stop), and as many matched ones.


# %%
def places_of(name: str, role: str) -> tuple[list, list]:
    """Places before a keyword, and matched ones. A model that never says it gets arbitrary places."""
    m, texts = members[role], sources[role]
    found = steering.places_before(m, texts, KEYWORDS.get(name))
    if not found:  # so that the rest can be run
        print(f"no place before {name} in these answers: its vector means nothing")
        found = [(k, 5) for k in range(min(4, len(texts)))]
    chosen = [found[int(k)] for k in rng.permutation(len(found))[:N_PLACES]]
    return chosen, steering.places_matched(m, texts, chosen, seed=SEED)


places = {name: places_of(name, role) for name, role in writer.items()}
counted = {name: len(chosen) for name, (chosen, _) in places.items()}

# %% [markdown]
# Each model reads all its places in one go: what each layer passes on, and what its heads put out.


# %%
def read_sets(role: str, sets: list) -> list[tuple]:
    """(streams, heads' outputs) at several sets of places."""
    sizes = [len(some) for some in sets]
    found = steering.read_places(members[role], sources[role], [at for some in sets for at in some])
    return list(zip(*(part.split(sizes) for part in found), strict=True))


vectors, head_means, lengths = {}, {}, {}
for role in members:
    names = [name for name in writer if writer[name] == role]
    found = read_sets(role, [some for name in names for some in places[name]])
    for name, (before, heads), (matched, _) in zip(names, found[::2], found[1::2], strict=True):
        vectors[name], head_means[name] = before.mean(0) - matched.mean(0), heads.mean(0)
        both = torch.cat([before, matched])
        mixed = both[torch.from_numpy(rng.permutation(len(both)))]
        vectors[f"{name}, shuffled"] = mixed[: len(before)].mean(0) - mixed[len(before) :].mean(0)
        lengths[name] = mixed.norm(dim=-1).mean(0)

# %% [markdown]
# How many places there were, and how large the difference is:

# %%
reach = {"base": lengths["stop"], "distilled": lengths["doubting"]}  # the stream's mean length
n_layers, width = pair.base.n_layers, pair.base.config.hidden_size
middle = n_layers // 2
size = float(vectors["doubting"][middle].norm() / reach["distilled"][middle])
listed = ", ".join(f"{name} {n}" for name, n in counted.items())
Markdown(
    f"Places averaged: {listed}. The doubt vector is {size:.2f} of the stream's length in layer {middle}."
)

# %% [markdown]
# ### Heads by their causal effect
#
# **Question.** Which heads, given their mean output before a wait (or before the stop), move the log-odds of waiting (or of stopping) at the end of a combined prompt? These are $\log P - \log(1 - P)$ of the Wait set, or of all stop tokens. All are ranked by the first-order estimate on `explore` (05 holds it against exact patching); the best are patched exactly, and their agreement is printed.

# %%
wait, n_heads = list(pair.base.groups.wait), pair.base.config.num_attention_heads
plain = {(role, part): combined[part].prompts(m, "plain") for role, m in members.items() for part in combined}
sides = {  # whose prompts, whose places, the tokens whose log-odds should rise
    "wait": ("distilled", "doubting", wait),
    "stop": ("base", "stop", stop["base"]),
}


def head_effects(role: str, source: str, wanted: list) -> tuple:
    """The estimated effect of every head's mean output; the best of them, and their exact effects."""
    m, prompts, mean = members[role], plain[role, "explore"][:N_MAP], head_means[source]
    seen = activations(m, prompts)
    given = replace(seen, z=mean.to(m.device).expand(seen.z.shape))
    metric = log_odds(m, wanted)
    estimate = attribution_patching(m, prompts, given, metric).head.mean(0)
    best = estimate.flatten().argsort(descending=True)[: 2 * N_HEADS].tolist()
    nodes = [Node("head", *divmod(k, n_heads)) for k in best]
    return estimate, nodes, exact_patching(m, prompts, given, nodes, metric).mean(0)


head_scores = {name: head_effects(*side) for name, side in sides.items()}

# %% [markdown]
# The best heads make a function vector, as many random heads its control; one vector serves for all layers.

# %%
for name, (_, nodes, exact) in head_scores.items():
    role, source, *_ = sides[name]
    order = exact.argsort(descending=True)[:N_HEADS].tolist()
    heads = [(nodes[k].layer, nodes[k].index) for k in order]
    drawn = [divmod(int(k), n_heads) for k in rng.permutation(n_layers * n_heads)]
    others = [head for head in drawn if head not in heads][:N_HEADS]
    for kind, some in (("function", heads), ("random heads", others)):
        vector = steering.function_vector(members[role], head_means[source], some)
        vectors[f"{name}, {kind}"] = vector.expand(n_layers, -1)

for name, (estimate, nodes, exact) in head_scores.items():
    order = exact.argsort(descending=True)[: min(6, N_HEADS)].tolist()
    best = ", ".join(f"{nodes[k]} {exact[k]:+.2f}" for k in order)
    guessed = [float(estimate[node.layer, node.index]) for node in nodes]
    agree = stats.correlation(guessed, exact)
    said = f"**{name}** ({sides[name][0]}): {best} nats, exact; estimate and exact correlate at {agree:.2f}"
    display(Markdown(f"{said} over these {len(nodes)}."))

# %% [markdown]
# ### Layer and strength
#
# **Question.** Where and how strongly must a vector be added? Readout on `explore`, plain form: the change of log P(Wait set), or of log P(stop), at the end of combined prompts, with the vector added at all positions to one layer's output. The setting with the largest effect is kept, **the last layer left out**: behind it only the norm and the unembedding follow, so a vector added there is nearly a bias on logits, and F18 tries that plainly. (An earlier version let the last layer compete, and it won most uses.) There are six uses: two kinds of vector, for waiting on both models and for stopping on the distilled.

# %%
Use = namedtuple("Use", "role vector target name")
uses = [
    Use("base", "doubting", "wait", "base: doubt vector"),
    Use("base", "wait, function", "wait", "base: wait heads"),
    Use("distilled", "doubting", "wait", "distilled: doubt vector"),
    Use("distilled", "wait, function", "wait", "distilled: wait heads"),
    Use("distilled", "stop", "stop", "distilled: stop vector"),
    Use("distilled", "stop, function", "stop", "distilled: stop heads"),
]

# %% [markdown]
# What is added, and what is read:


# %%
def added(role: str, name: str, layer: int, strength: float, where: str = "all") -> Steering:
    """A vector at a share of the mean length of a model's stream at a layer."""
    vector = normalize(vectors[name][layer], dim=0) * reach[role][layer]
    return Steering(name, {layer: vector}, strength, where)


def read(role: str, part: str, target: str, steerings: list, n: int, rows=range(10**6)) -> np.ndarray:
    """Log P of a target set after combined prompts, or the log-odds of stopping, [prompt, steering]."""
    ids = wait if target == "wait" else stop[role]
    prompts = take(plain[role, part][:n], rows)
    log_p = steering.steered_logprobs(members[role], prompts, steerings, ids).logsumexp(2).double().numpy().T
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-7))) if target == "odds" else log_p


layers = list(range(LAYER_STEP - 1, n_layers, LAYER_STEP) if n_layers > LAYER_STEP else range(n_layers))
grid = [(layer, strength) for layer in layers for strength in STRENGTHS]


# %%
def read_map(rows: list[int]) -> dict:
    """The target's log-probability as it is, then with each vector at each setting, [prompt, setting]."""
    found = {}
    for role, target in dict.fromkeys((use.role, use.target) for use in uses):
        names = [use.vector for use in uses if (use.role, use.target) == (role, target)]
        tried = [added(role, name, *setting) for name in names for setting in grid]
        found[f"{role} {target}"] = read(role, "explore", target, [NOTHING, *tried], N_MAP, rows)
    return found


n_map = min(N_MAP, len(combined["explore"].questions))
read_maps = kept(pair, "06_map", read_map, n_map, fresh=RECOMPUTE)

# %% [markdown]
# One row a use: the setting that is kept, and what the last layer would give.

# %%
maps = {}
for role, target in dict.fromkeys((use.role, use.target) for use in uses):
    some = [use for use in uses if (use.role, use.target) == (role, target)]
    nothing, *change = read_maps[f"{role} {target}"].mean(0)
    shape = len(some), len(layers), len(STRENGTHS)
    maps |= dict(zip(some, np.reshape(change, shape) - nothing, strict=True))
earlier = [k for k, layer in enumerate(layers) if layer < n_layers - 1] or [0]
setting = {use: grid[int(changed[earlier].argmax())] for use, changed in maps.items()}
rows = {use.name: [*setting[use], changed[earlier].max(), changed[-1].max()] for use, changed in maps.items()}
columns = ["layer", "strength", "change on explore (nats)", f"in layer {layers[-1]}"]
pd.DataFrame(rows, index=columns).T.astype({"layer": int}).round(2)

# %% [markdown]
# ### The dose, on held-out prompts
#
# **Question.** At the chosen layers, how does log P grow with the strength, prompt by prompt, and in reverse? **Controls**: random directions of the same length at the chosen strength; shuffled labels or random heads; another family's vector.

# %% [markdown]
# **Rule for F19, made stricter after a first look at the result**: it holds if for each of the six uses (two kinds of vector, waiting on both models, stopping on the distilled) (a) log P rises on `confirm` by more than 1 nat, with its interval, and (b) the share of random directions with a smaller mean effect is above 0.9, with its interval over directions; it does not hold where an interval of one use lies below. By the log-odds of stopping the same two parts, set before they were read: (a) they fall by more than 1 nat where waiting is wanted and rise by as much where stopping is, (b) beyond more than 0.9 of the random directions.

# %%
doses = [-STRENGTHS[-1], 0.0, *STRENGTHS]
few = min(len(plain["base", "confirm"]), N_MAP)


def read_use(use: tuple, rows: list[int]) -> dict[str, np.ndarray]:
    """The target's log-probability at every dose, under random directions, under two other vectors; and the
    log-odds of stopping as it is, under the vector, under random directions."""
    (role, name, target, _), (layer, strength) = use, setting[use]
    other = name.replace(", function", ", random heads") if "function" in name else f"{name}, shuffled"
    family = "ordering" if target == "wait" else "doubting"
    drawn = steering.random_directions(N_CONTROLS, width, seed=SEED + 1) * reach[role][layer]
    random = [Steering("random", {layer: vector}, strength) for vector in drawn]
    tried = [added(role, name, layer, dose) for dose in doses]
    others = [added(role, kind, layer, strength) for kind in (other, family)]
    sizes = (("own", tried, N_COMBINED), ("random", random, few), ("other", others, N_COMBINED))
    found = {kind: read(role, "confirm", target, some, n, rows) for kind, some, n in sizes}
    chosen = [NOTHING, added(role, name, layer, strength)]
    found["odds"] = read(role, "confirm", "odds", chosen, N_COMBINED, rows)
    return found | {"odds, random": read(role, "confirm", "odds", random, few, rows)}


# %%
def read_each(rows: list[int]) -> dict:
    """Doses and controls of every use, [prompt, steering]."""
    return {f"{use.name}, {kind}": values for use in uses for kind, values in read_use(use, rows).items()}


n_confirm = len(combined["confirm"].questions)
read_doses = kept(pair, "06_doses", read_each, n_confirm, few, fresh=RECOMPUTE)

# %% [markdown]
# Per use, as changes against dose 0: the doses prompt by prompt, the chosen one, and its controls.

# %%
Effect = namedtuple("Effect", "doses chosen rise random below shuffled family before")


def effect(use: Use) -> Effect:
    """What a vector does to the wanted token, and what its controls do, in nats."""
    own_doses, random, others = (read_doses[f"{use.name}, {kind}"].T for kind in ("own", "random", "other"))
    before = own_doses[1]
    chosen = own_doses[doses.index(setting[use][1])] - before
    random = random - before[:few]
    below = stats.share(random.mean(1) < chosen[:few].mean())
    return Effect(
        own_doses - before, chosen, stats.bootstrap(chosen), random, below, *(others - before), before
    )


effects = {use: effect(use) for use in uses}

# %% [markdown]
# The same for the log-odds of stopping, moved the wanted way:


# %%
def odds_effect(use: Use) -> tuple[stats.Interval, stats.Interval]:
    """How far a vector moves the log-odds of stopping the wanted way, and the share of random ones below."""
    sign = -1 if use.target == "wait" else 1
    before, after = read_doses[f"{use.name}, odds"].T
    random = sign * (read_doses[f"{use.name}, odds, random"] - before[:few, None]).mean(0)
    moved = sign * (after - before)
    return stats.bootstrap(moved), stats.share(random < moved[:few].mean())


odds = {use: odds_effect(use) for use in uses}

# %% [markdown]
# One row a use, on `confirm`: how far it moves the wanted token, and how its controls compare.


# %%
def use_row(use: Use) -> dict:
    """One use as a row."""
    seen, (layer, strength) = effects[use], setting[use]
    before, after = (float(np.exp(np.median(logp))) for logp in (seen.before, seen.before + seen.chosen))
    row = {"layer": layer, "strength": strength, "change (nats)": f"{seen.rise}"}
    row |= {"median P, before": f"{before:.1e}", "after": f"{after:.1e}"}
    row |= {"random directions below": f"{seen.below}", "their mean": f"{seen.random.mean():+.1f}"}
    row |= {"shuffled labels or random heads": f"{seen.shuffled.mean():+.1f}"}
    row |= {"other family": f"{seen.family.mean():+.1f}"}
    row |= {"log-odds of stopping, the wanted way": f"{odds[use][0]}", "random below": f"{odds[use][1]}"}
    return row | {"prompts reversed": f"{(seen.chosen < 0).mean():.0%}"}


pd.DataFrame({use.name: use_row(use) for use in uses}).T

# %%
tints = {"base": "#9CC8E3", "distilled": "#F0BC98"}
weakest = min(uses, key=lambda use: effects[use].rise.estimate)


def dose_panel(use: Use) -> dict:
    """Single prompts, their mean, and the middle 95 % of random directions."""
    seen, averages = effects[use], effects[use].random.mean(1)
    low, high = np.quantile(averages, [0.025, 0.975])
    random = stats.Interval(float(averages.mean()), float(low), float(high), N_CONTROLS)
    lines = {"": (seen.doses.T, tints[use.role])}
    lines["mean"] = stats.bands(seen.doses.T), figures.ROLE[use.role]
    return lines | {"random": ([random] * len(doses), figures.CONTROL)}


panels = {use.name: dose_panel(use) for use in uses}
title = f"The weakest of six uses, the {weakest.name.split(': ')[1]} on the {weakest.role}, "
title += f"moves its token by {effects[weakest].rise.estimate:+.1f} nats"
labels = dict(xlabel="strength (share of the stream's length)", ylabel="change of log P (nats)")
ticks = ["" if 0 < dose < 0.2 else f"{dose:g}" for dose in doses]  # no room beside 0
fig = figures.lines(panels, doses, title=title, rows=2, zero=True, ticks=ticks, **labels)
note = f"n = {n_confirm} combined prompts, confirm, plain; band: {N_CONTROLS} random directions"
figures.save_figure(fig, "06_dose", pair=pair.name, size=(10, 5.4), note=note)

# %% [markdown]
# **Figure 3: dose and response, each prompt a pale line.** Thick: the mean with 95 % bootstrap. Dashed grey: the mean and middle 95 % of random directions of the same length at the chosen strength. Left of zero the vector is subtracted.

# %% [markdown]
# ### The vectors in texts
#
# **Question.** What do the models write? Each vector is held through a whole answer, and beside the vectors stand plain biases on logits, which need no vector.

# %% [markdown]
# **Choice of the strength.** It is chosen on `explore`: the largest effect among those under which the share of right answers falls by at most `LIMIT` and repetition rises by at most as much (of equals the strongest). Where no strength keeps these limits the smallest is taken and starred. On the base the effect is the share of reasoning answers, on the distilled the share that stops within `MAX_STEERED` tokens.


# %%
def biased(name: str, tokens: list, amounts: tuple) -> list[Steering]:
    """The logits of some tokens raised by several amounts."""
    return [Steering(name, bias=dict.fromkeys(tokens, amount)) for amount in amounts]


def parts_of(use: Use, sign: int = 1) -> list[Steering]:
    """A vector at a quarter, half and the whole of the strength chosen by readout."""
    layer, strength = setting[use]
    return [added(use.role, use.vector, layer, sign * share * strength) for share in (0.25, 0.5, 1.0)]


use_of = {(use.role, use.vector): use for use in uses}
down, up = (-4.0, -8.0, -16.0), (3.0, 6.0, 9.0)

# %%
methods = {
    "base": {
        "stop logit lowered": biased("stop", stop["base"], down),
        "Wait logit raised": biased("wait", wait, up),
        "keyword vector": parts_of(use_of["base", "doubting"]),
        "function vector": parts_of(use_of["base", "wait, function"]),
    },
    "distilled": {
        "stop logit raised": biased("stop", stop["distilled"], up),
        "Wait logit lowered": biased("wait", wait, down),
        "stop vector": parts_of(use_of["distilled", "stop"]),
        "stop function vector": parts_of(use_of["distilled", "stop, function"]),
        "keyword vector subtracted": parts_of(use_of["distilled", "doubting"], -1),
    },
}

# %% [markdown]
# The strength of each method, on `explore`:

# %%
AIM = {"base": "reasons", "distilled": "stopped"}


def affordable(start: dict, seen: dict) -> bool:
    """Whether right answers and repetition stay within the limit."""
    return start["right"] - seen["right"] <= LIMIT and seen["repetition"] - start["repetition"] <= LIMIT


def tuned(role: str, methods: dict, fresh: bool = RECOMPUTE) -> dict[str, Steering]:
    """Each method at its strength of largest effect within the limits, starred where none keeps them."""
    tried = {(name, k): one for name, some in methods.items() for k, one in enumerate(some)}
    texts = answer(role, explore[:N_TUNE], {"nothing": NOTHING} | tried, f"06_tune_{role}", fresh)
    start, found = means(texts["nothing"]), {}
    for name, some in methods.items():
        seen = [means(texts[name, k]) for k in range(len(some))]
        allowed = [k for k, one in enumerate(seen) if affordable(start, one)]
        best = max(allowed or [0], key=lambda k: (seen[k][AIM[role]], k))
        found[name if allowed else f"{name} *"] = some[best]
    return found


chosen = {role: tuned(role, methods[role]) for role in members}

# %% [markdown]
# **Controls**, on `confirm`: for vectors and latents a *different* random direction of the same length for every question; for biases other words under the same bias.


# %%
def rival(one: Steering, role: str, n: int) -> list[Steering]:
    """A control of the same size for each question: a random direction, or random words' logits."""
    if one.bias:
        amount, words = next(iter(one.bias.values())), list(members[role].groups.control)
        some = [[words[(k + j) % len(words)] for j in range(len(one.bias))] for k in range(n)]
        return [Steering("word", bias=dict.fromkeys(tokens, amount)) for tokens in some]
    ((layer, vector),) = one.vectors.items()
    drawn = steering.random_directions(n, len(vector), seed=SEED + 2 + layer) * vector.norm()
    return [Steering("random", {layer: direction}, abs(one.strength)) for direction in drawn]


def write(role: str, methods: dict, fresh: bool = RECOMPUTE) -> dict:
    """Held-out answers under nothing, each method, and its control."""
    conditions = {"nothing": NOTHING} | {(name, "method"): one for name, one in methods.items()}
    conditions |= {(name, "control"): rival(one, role, len(held_out)) for name, one in methods.items()}
    return answer(role, held_out, conditions, f"06_steered_{role}", fresh)


written = {role: write(role, chosen[role]) for role in members}

# %% [markdown]
# What each does beyond its control, by question, and the averages behind it:


# %%
def gain(role: str, name: str) -> stats.Interval:
    """Reasoning answers (base) or stops (distilled) beyond the control."""
    both = (measured(written[role][name, kind], AIM[role]) for kind in ("method", "control"))
    return stats.paired(*both)


def averages(role: str, name: str, kind: str) -> dict:
    """One row: the strength, or the bias in nats, and the mean of each measure."""
    one = chosen[role][name]
    strength = f"{one.strength:g}" if one.vectors else f"{next(iter(one.bias.values())):+g}"
    return {"strength": strength} | means(written[role][name, kind])


rows = [(role, name, kind) for role in members for name in chosen[role] for kind in ("method", "control")]
nothing = pd.DataFrame({role: means(written[role]["nothing"]) for role in members}).T
display(nothing.round(2), pd.DataFrame({row: averages(*row) for row in rows}).T)

# %% [markdown]
# F19 has six uses, and what the vectors do in texts stands beside them:

# %%
rise_rule, rank_rule = findings.Rule("above", 1.0), findings.Rule("above", 0.9)
seen = effects.items()
rules = [findings.Part(f"(a) {use.name}", one.rise, rise_rule) for use, one in seen]
rules += [findings.Part(f"(b) random below, {use.name}", one.below, rank_rule) for use, one in seen]
by_odds = [findings.Part(f"(a) the wanted way, {use.name}", odds[use][0], rise_rule) for use in uses]
by_odds += [findings.Part(f"(b) random directions less, {use.name}", odds[use][1], rank_rule) for use in uses]
details = {f"another family's vector, {use.name}": stats.bootstrap(one.family) for use, one in seen}
noun = {"base": "reasoning answers", "distilled": "stop rate"}
details |= {
    f"{noun[role]} beyond the control, {name}, {role}": gain(role, name)
    for role in members
    for name, one in chosen[role].items()
    if one.vectors
}

# %%
random_means = effects[weakest].random.mean(1)
F19 = findings.record(
    pair,
    "F19",
    notebook="06_steering",
    quantity=f"change of log P of the wanted token, weakest of six uses ({weakest.name})",
    unit="nats",
    interval=effects[weakest].rise,
    rules=rules,
    stopping=by_odds,
    control=(f"{N_CONTROLS} random directions, same length", stats.bootstrap(random_means)),
    details=details,
)
Markdown(findings.sentence(F19))

# %% [markdown]
# ## F20 · A latent of a sparse autoencoder
#
# **Question.** Which latents fire before words of doubt, what else do they fire on, and does adding a latent's decoder row make the base wait? Latents are ranked on `explore` by mean activation before words of doubt minus at matched places, then read in both models' own answers. Reconstruction error: share of variance unexplained on `confirm` answers.

# %%
autoencoder = AUTOENCODER or steering.AUTOENCODERS.get(pair.name)
coder = autoencoder and steering.load_autoencoder(*autoencoder, device=pair.distilled.device)
if not coder:
    said = "set AUTOENCODER = (folder or hub id, hookpoint); F20 is left out"
    print(f"no autoencoder is known for pair {pair.name}: {said}")
Texts = namedtuple("Texts", "written places states unexplained")


def read_texts(role: str) -> Texts:
    """A model's own answers as the autoencoder sees them, and its error in each."""
    done = own_texts(role, confirm[:16])
    places, states = steering.autoencoder_states(members[role], coder, done)
    by_text = pd.Series(coder.unexplained(states).numpy()).groupby([k for k, _ in places])
    return Texts(done, places, states, by_text.mean().to_numpy())


# %% [markdown]
# How well it reconstructs, and a law: with its error kept, adding to the autoencoder's output is adding to the stream.

# %%
if coder:
    own_read = {role: read_texts(role) for role in members}
    x = own_read["distilled"].states[:8].to(coder.decoder)
    rebuilt, row = coder.decode(coder.encode(x)), 3.0 * coder.decoder[0]
    assert torch.allclose((rebuilt + row) + (x - rebuilt), x + row, atol=1e-3), "the error is kept"
    errors = [f"{role} {stats.bootstrap(some.unexplained)}" for role, some in own_read.items()]
    print("unexplained share of variance, mean over answers: " + ", ".join(errors))

# %% [markdown]
# Activations before words of doubt and at matched places, in the distilled model's answers:


# %%
def before_doubt() -> tuple[torch.Tensor, ...]:
    """Latents' activations before words of doubt and at matched places, and all states of these texts."""
    m, texts = pair.distilled, sources["distilled"]
    found = steering.places_before(m, texts, KEYWORDS["doubting"]) or [(0, 5)]
    order = np.random.default_rng(SEED).permutation(len(found))[:N_PLACES]
    some = list(dict.fromkeys(found[int(k)] for k in order))
    matched = steering.places_matched(m, texts, some, seed=SEED)
    used = sorted({k for k, _ in [*some, *matched]})
    places, states = steering.autoencoder_states(m, coder, [texts[k] for k in used])
    row = {(used[k], at): number for number, (k, at) in enumerate(places)}
    return *(coder.encode(states[[row[at] for at in one]]) for one in (some, matched)), states


# %% [markdown]
# The five latents that differ most, and what else they fire on:


# %%
def latent_row(number: int, promotes: list) -> dict:
    """One latent: where it fires, which tokens it promotes, its top contexts in both models' answers."""
    doubting, elsewhere = ((acts[:, ranked[number]] > 0).float().mean() for acts in (before, matched))
    row = {"latent": ranked[number], "fires before doubt": f"{doubting:.0%}"}
    row |= {"at matched places": f"{elsewhere:.0%}", "promotes": " ".join(map(repr, promotes))}
    for role, some in own_read.items():
        fired = own_acts[role][:, number]
        spots = [some.places[k] for k in fired.topk(2).indices.tolist() if fired[k] > 0]
        top = [repr(steering.context(members[role], some.written[text], at)) for text, at in spots]
        row |= {f"top contexts, {role}": " | ".join(top) or "never fires"}
        row |= {f"fires, {role}": f"{(fired > 0).float().mean():.1%}"}
    return row


if coder:
    before, matched, states = before_doubt()
    ranked = (before.mean(0) - matched.mean(0)).argsort(descending=True)[:5].tolist()
    own_acts = {role: coder.encode(some.states, ranked) for role, some in own_read.items()}
    promotes = promoted(pair.distilled, coder.decoder[ranked], k=5)
    display(pd.DataFrame([latent_row(number, words) for number, words in enumerate(promotes)]))

# %% [markdown]
# **Rule for F20, made stricter after a first look at the result.** The first latent of the table is kept: found by activation alone. F20 holds if on `confirm` its decoder row, added at the strength of largest effect on `explore`, (a) raises log P(Wait set) on the base by more than 1 nat, with its interval, and (b) the share of random live latents whose rows at the same length do less is above 0.9, with its interval over latents; it does not hold where one of the two lies below. Beside it, without a control, the latent *clamped* in the autoencoder's output, the error term kept, to multiples of its mean firing.


# %%
def latent_added(k: int, role: str, dose: float, name: str = "latent") -> Steering:
    """A latent's decoder row at a share of the mean length of a model's stream."""
    row = normalize(coder.decoder[k].cpu(), dim=0) * reach[role][coder.layer]
    return Steering(name, {coder.layer: row}, dose)


if coder:
    latent = ranked[0]
    firing = before[:, latent][before[:, latent] > 0]
    mean_firing = float(firing.mean()) if len(firing) else 1.0
    tried = [latent_added(latent, "base", dose) for dose in STRENGTHS]
    on_explore = read("base", "explore", "wait", tried, N_MAP).mean(0)
    latent_strength = STRENGTHS[int(on_explore.argmax())]

# %% [markdown]
# The control: latents drawn from those that fire most often in these texts, the five of the table left out.

# %%
if coder:
    often = coder.fires(states)
    by_use = often.argsort(descending=True).tolist()
    live = [k for k in by_use if k not in ranked and often[k] > 0][: 20 * N_CONTROLS]
    order = np.random.default_rng(SEED).permutation(len(live))[:N_CONTROLS]
    random_latents = [live[int(k)] for k in order]


def read_latent(rows: list[int]) -> dict:
    """log P(Wait set) on confirm by dose, under random latents, and clamped, [prompt, ...]."""
    found = {}
    for role, m in members.items():
        own_doses = [latent_added(latent, role, dose) for dose in (0.0, *STRENGTHS)]
        random = [latent_added(k, role, latent_strength, "latents") for k in random_latents]
        found[f"{role} seen"] = read(role, "confirm", "wait", own_doses, 10**6, rows)
        found[f"{role} null"] = read(role, "confirm", "wait", random, few, rows)
        for times in (0, 1, 4):
            lm = steering.with_latent(m, coder, latent, times * mean_firing)
            parts = stop_parts(m, take(plain[role, "confirm"], rows), lm=lm)
            found[f"{role} x{times}"] = np.log(parts["Wait set"].to_numpy())
    return found


# %% [markdown]
# As changes against dose 0:

# %%
LatentEffect = namedtuple("LatentEffect", "doses rise random below clamped")


def latent_effect(role: str) -> LatentEffect:
    """What the latent does to log P(Wait set), by dose and clamped, and what random latents do, in nats."""
    before = read_latents[f"{role} seen"][:, 0]
    by_dose = read_latents[f"{role} seen"] - before[:, None]
    chosen = by_dose[:, 1 + STRENGTHS.index(latent_strength)]
    random = (read_latents[f"{role} null"] - before[:few, None]).mean(0)
    clamped = {times: stats.bootstrap(read_latents[f"{role} x{times}"] - before) for times in (0, 1, 4)}
    below = stats.share(random < chosen[:few].mean())
    return LatentEffect(by_dose, stats.bootstrap(chosen), random, below, clamped)


if coder:
    read_latents = kept(pair, "06_latent", read_latent, n_confirm, few, fresh=RECOMPUTE)
    by_role = {role: latent_effect(role) for role in members}

# %% [markdown]
# And in the base's texts, with strength and control chosen as for the vectors:

# %%
if coder:
    some = [latent_added(latent, "base", share * latent_strength) for share in (0.25, 0.5, 1.0)]
    tuned_latent = tuned("base", {"latent": some}, fresh=False)  # beside what was written above
    chosen["base"] |= tuned_latent
    written["base"] |= write("base", tuned_latent, fresh=False)
    (latent_name,) = tuned_latent
    rows = [("base", latent_name, kind) for kind in ("method", "control")]
    display(pd.DataFrame({row: averages(*row) for row in rows}).T)

# %% [markdown]
# On an autoencoder that is there, the parts of the rule and what stands beside them:

# %%
if coder:
    rules = [
        findings.Part("(a) rise, base", by_role["base"].rise, findings.Rule("above", 1.0)),
        findings.Part("(b) random latents below, base", by_role["base"].below, findings.Rule("above", 0.9)),
    ]
    details = {"rise, distilled": by_role["distilled"].rise}
    details |= {"random below, distilled": by_role["distilled"].below}
    details |= {
        f"clamped to {times} times its mean firing, {role}": value
        for role in members
        for times, value in by_role[role].clamped.items()
    }
    for role in members:
        error = stats.bootstrap(own_read[role].unexplained)
        details[f"unexplained share of variance, {role}"] = error
    details[f"reasoning answers beyond the control, {latent_name}, base"] = gain("base", latent_name)

# %%
if coder:
    F20 = findings.record(
        pair,
        "F20",
        notebook="06_steering",
        quantity="change of log P(Wait set) on the base, "
        f"decoder row of latent {latent} added at strength {latent_strength:g}",
        unit="nats",
        rules=rules,
        control=(
            f"{len(random_latents)} random live latents, same length",
            stats.bootstrap(by_role["base"].random),
        ),
        details=details,
    )
    display(Markdown(findings.sentence(F20)))

# %% [markdown]
# <details><summary>What it does not show</summary> That the latent means doubt: its top contexts above are for the reader to judge.</details>

# %% [markdown]
# ## F27 · R1's own direction
#
# **Question.** Venhoff et al. (2025) published mean activations of DeepSeek-R1-Distill-Qwen-1.5B by kind of sentence, after each layer. The mean over *backtracking* minus the overall mean is a direction of R1's own. Does it make another model of R1's shape and ancestor wait? It is added at all positions of the distilled model's own thoughts, one a question, cut behind the first sentence that a blank line follows; the base reads them in its own template. Measured are log P(Wait set) and the log-odds of the *end*: of stopping on the base, of `</think>` on the distilled.
#
# **Rule for F27, written before the result.** It holds if on the base, on `confirm`, (a) log P(Wait set) rises by more than 1 nat, (b) by more than under the largest of the other five kinds, prompt by prompt, and (c) the share of random directions that do less is above 0.9, all with their whole interval.

# %%
R1_SHAPE, R1_SHA256 = (28, 1536), "56bf70ecf5f8a2289d70c5d5f0520f601d2810bad259f79cb7815d9f6e74b7ca"
KINDS = ["backtracking", "uncertainty_estimation", "deduction", "adding_knowledge"]
KINDS += ["example_testing", "initializing"]
drawn, thoughts = steering.random_directions(max(N_CONTROLS, len(confirm)), width, seed=SEED + 3), {}
begins = {q: re.match(r"(?s).*?[.!?]\n\n(?=\S.*</think>)", own["distilled"]["text"][q.id]) for q in questions}
for half, some in (("explore", explore), ("confirm", confirm)):
    used = [q for q in some if begins[q]][:N_COMBINED]
    for role, m in members.items():
        starts = zip(ask(m, used, form="template"), used, strict=True)
        thoughts[role, half] = [start + begins[q].group() for start, q in starts]
n_mapped, n_told = min(N_MAP, len(thoughts["base", "explore"])), len(thoughts["base", "confirm"])

# %% [markdown]
# R1's file is read here, where there is one, and none but that of this hash. Results are stored by the hash, so that all below runs without the file, too.

# %%
path = pathlib.Path(R1_MEANS or os.environ.get("R1_MEANS", ""))
path = path / "r1_mean_activations.safetensors" if path.is_dir() else path
known = path.is_file() and sha256(path) == R1_SHA256
r1 = types.SimpleNamespace(means=load_file(path) if known else {})  # `kept` does not look into a namespace


def r1_added(role: str, kind: str | int, layer: int, share: float) -> Steering:
    """R1's direction of a kind, an own vector or a random one (a number), at a share of the stream."""
    if kind in KINDS and not r1.means:
        raise UserError(f"nothing fitting is stored, and R1_MEANS names no file of sha256 {R1_SHA256[:12]}")
    vector = drawn[kind] if isinstance(kind, int) else (vectors | r1.means)[kind][layer]
    vector = vector - r1.means["overall"][layer] if kind in KINDS else vector
    return Steering(str(kind), {layer: normalize(vector, dim=0) * reach[role][layer]}, share)


def read_ends(role: str, half: str, some: list, rows: list[int]) -> np.ndarray:
    """Log P(Wait set) and the log-odds of the end, in nats, [prompt, steering, 2]."""
    m, prompts = members[role], take(thoughts[role, half], rows)
    ids = [*wait, *([m.groups.end_think] if m.thinks else stop[role])]
    log_p = steering.steered_logprobs(m, prompts, some, ids).double().transpose(0, 1)
    waits, ends = log_p[..., : len(wait)].logsumexp(2), log_p[..., len(wait) :].logsumexp(2)
    return torch.stack([waits, ends - torch.log(-torch.expm1(ends.clamp(max=-1e-7)))], dim=2).numpy()


# %% [markdown]
# On `explore` every layer is tried. Layer and share of largest effect on the base are kept, the last layer left out; there six kinds, this pair's own doubt vector and random directions are read on `confirm`.

# %%
r1_layers, r1_share = layers if LAYER_STEP > 5 else [*range(n_layers)], STRENGTHS[len(STRENGTHS) // 2]
r1_grid = [(layer, share) for layer in r1_layers if layer < n_layers - 1 for share in STRENGTHS]
MAPPED, TOLD = [*KINDS, 0, 1, 2], [*KINDS, "doubting", *range(N_CONTROLS)]


def read_r1(rows: list[int]) -> dict:
    """Under each direction, what it resembles, and as it is: all that a check of a few rows reads."""
    found, first = {}, rows[:n_mapped]
    if len(rows) == max(n_mapped, n_told, n_layers):
        tried = [r1_added("base", KINDS[0], *at) for at in r1_grid]
        found["grid"] = read_ends("base", "explore", tried, first)
        at = r1_grid[int(found["grid"][..., 0].mean(0).argmax())]
        for role in members:
            tried = [r1_added(role, kind, layer, r1_share) for kind in MAPPED for layer in r1_layers]
            found[f"{role}, layers"] = read_ends(role, "explore", tried, first)
            found[role] = read_ends(role, "confirm", [r1_added(role, kind, *at) for kind in TOLD], rows)
        found |= resembling()
    return found | {f"{role}, {half}": read_ends(role, half, [NOTHING], rows) for role, half in thoughts}


# %% [markdown]
# By layer, its cosines with the doubt vector, the stop vector, and the models' difference at these ends (distilled minus base). Streams are long in few directions, so two vectors from them may be close by chance; beside it stand random mixtures of the stream's centred states.


# %%
def resembling() -> dict:
    """By layer: cosines of R1's direction and of mixtures with own vectors, and tokens it writes towards."""
    texts = readouts.streams_at_all_positions(pair.distilled, thoughts["distilled", "explore"][:N_MAP])
    states = torch.cat([text[4:, 1:] for text in texts])  # the first tokens' states are massive
    amounts = torch.randn(200, len(states), generator=torch.Generator().manual_seed(SEED))
    mixed = torch.einsum("ds,slw->dlw", amounts, states - states.mean(0))
    base, distilled = (activations(m, thoughts[m.role, "explore"]).stream.cpu() for m in pair.members)
    alike = {"doubt": vectors["doubting"], "stop": vectors["stop"]}
    alike["difference"] = (distilled - base).mean(0)[1:]
    one = torch.stack([r1_added("base", KINDS[0], k, 1.0).vectors[k] for k in range(n_layers)])
    found = {f"{name}, mixtures": cosine_similarity(mixed, v, dim=2).T for name, v in alike.items()}
    found |= {name: cosine_similarity(one, v, dim=1) for name, v in alike.items()}
    scores = readouts.vocabulary_scores(pair.base, one, range(pair.base.n_vocab))
    return found | {"tokens": scores.topk(6).indices.int()}


# %% [markdown]
# In texts it is held at half of the chosen share, beside a random direction for each question.


# %%
def held(role: str) -> dict[str, pd.DataFrame]:
    """Answers as they are, with R1's direction held, with random ones; without R1's file what is stored."""
    m, some, (layer, share) = members[role], confirm[:N_COMBINED], (r1_at[0], r1_at[1] / 2)
    kinds, prompts = ("R1's direction", "random direction"), 2 * ask(m, some, form="template")
    about = f"layer {layer} x{share:g} {float(reach[role][layer]):.2g} {MAX_NEW_TOKENS} {R1_SHA256[:8]}"
    names = tuple(f"{kind} {about}" for kind in kinds for _ in some)
    if r1.means:
        tried = [r1_added(role, kind, layer, share) for kind in KINDS[:1] * len(some) + [*range(len(some))]]
        how = dict(change=replace(steered(m, tried), names=names), name=f"06_r1_{role}", fresh=RECOMPUTE)
        done = stored_completions(pair, m, prompts, max_new_tokens=MAX_NEW_TOKENS, **how)
    else:
        rows = read_json(data_dir(pair.name) / f"06_r1_{role}.json")
        stored = {(row["prompt"], row["change"]): Completion(**row) for row in rows}
        done = [stored[job] for job in zip(prompts, names, strict=True)]
    nothing = own[role].loc[[q.id for q in some]]
    return {"nothing": nothing} | by_condition(judged(done, some * 2, opened=m.thinks), kinds)


# %% [markdown]
# All of it, or one line that says why not:

# %%
try:
    if (n_layers, width) != R1_SHAPE or min(n_mapped, n_told) < 2:
        raise UserError(f"{n_told} thoughts, {(n_layers, width)} layers and width; R1 has {R1_SHAPE}")
    r1_read = kept(pair, "06_r1", read_r1, n_mapped, n_told, n_layers, fresh=RECOMPUTE)
    r1_at = r1_grid[int(r1_read["grid"][..., 0].mean(0).argmax())]
    r1_texts = {role: held(role) for role in members}
except (UserError, KeyError) as why:
    r1_at = print(f"F27 is left out: {str(why).replace(str(root), '')[:200]}")


def r1_moved(role: str, what: int) -> dict:
    """Changes of log P(Wait set) (0) or the log-odds of the end (1), by prompt; of random ones the means."""
    moved = dict(zip(TOLD, (r1_read[role] - r1_read[f"{role}, confirm"])[..., what].T, strict=True))
    random = np.array([moved.pop(number).mean() for number in range(N_CONTROLS)])
    return {"random": random, "own doubt": moved.pop("doubting")} | moved


def r1_parts(role: str) -> list[findings.Part]:
    """The rule's three parts on one model."""
    seen = r1_moved(role, 0)
    ours, other = seen[KINDS[0]], max(KINDS[1:], key=lambda kind: seen[kind].mean())
    beyond, less = stats.paired(ours, seen[other]), stats.share(seen["random"] < ours.mean())
    rise = findings.Part(f"(a) rise, {role}", stats.bootstrap(ours), rise_rule)
    more = findings.Part(f"(b) beyond {other}, {role}", beyond, findings.Rule("above", 0))
    return [rise, more, findings.Part(f"(c) random directions less, {role}", less, rank_rule)]


# %% [markdown]
# Every kind on both models, and the finding:

# %%
if r1_at:
    table, details = {}, {part.name: part.interval for part in r1_parts("distilled")}
    for role, end in (("base", "stopping"), ("distilled", "</think>")):
        for k, what in enumerate(("log P(Wait set)", f"log-odds of {end}")):
            moved = {kind: stats.bootstrap(values) for kind, values in r1_moved(role, k).items()}
            table[f"{role}: {what}"] = {kind: f"{value}" for kind, value in moved.items()}
            details |= {f"{what}, {key}, {role}": moved[key] for key in (KINDS[0], "own doubt")[1 - k :]}
        texts = (measured(r1_texts[role][name], "waits") for name in ("R1's direction", "random direction"))
        details[f"answers that wait beyond random directions, {role}"] = stats.paired(*texts)
    F27 = findings.record(
        pair,
        "F27",
        notebook="06_steering",
        quantity=f"change of log P(Wait set) on the base, R1's direction x{r1_at[1]:g} in layer {r1_at[0]}",
        unit="nats",
        rules=r1_parts("base"),
        control=(f"{N_CONTROLS} random directions", stats.bootstrap(r1_moved("base", 0)["random"])),
        details=details,
    )
    display(pd.DataFrame(table), Markdown(findings.sentence(F27)))

# %% [markdown]
# Read through the base's norm and head; in texts; and layer by layer:

# %%
if r1_at:
    columns = {f"cosine, {name}": r1_read[name].round(2) for name in ("doubt", "stop", "difference")}
    tokens = [" ".join(repr(pair.base.tokenizer.decode([i])) for i in ids) for ids in r1_read["tokens"]]
    display(pd.DataFrame(columns | {"tokens": tokens}).iloc[sorted({*range(3, n_layers, 4), r1_at[0]})])
    for role, texts in r1_texts.items():
        rows = {name: {"waits": some["waits"].mean()} | means(some) for name, some in texts.items()}
        display(Markdown(f"**{role}**"), pd.DataFrame(rows).T.round(2), pd.DataFrame({"": quoted(texts, 0)}))

# %%
if r1_at:
    above, below = {}, {}
    for role, name in (("base", "stop"), ("distilled", "doubt")):
        moved = (r1_read[f"{role}, layers"] - r1_read[f"{role}, explore"][:n_mapped])[..., 0]
        ours, *others = moved.reshape(n_mapped, len(MAPPED), -1).transpose(1, 0, 2)
        others, difference = np.mean(others, axis=1), r1_read["difference"][r1_layers]
        chance = np.quantile(r1_read[f"{name}, mixtures"][r1_layers], [0.025, 0.975], axis=1)
        above[role] = {"other kinds": (others[:5], figures.LINE), "random": (others[5:], figures.CONTROL)}
        above[role] |= {"backtracking": (stats.bands(ours), figures.ROLE[role])}
        below[role, 1] = {"mixtures": (chance, figures.CONTROL), "difference": (difference, figures.THIRD)}
        below[role, 1] |= {f"{name} vector": (r1_read[name][r1_layers], figures.ROLE[role])}
    most = max(one.estimate for one in above["base"]["backtracking"][0])
    title = f"In its best layer R1's direction moves log P(Wait set) on the base by {most:+.1f} nats"
    labels = dict(xlabel="layer", ylabel=["change of log P (nats)", "cosine"], zero=True, rows=2)
    fig = figures.lines(above | below, r1_layers, title=title, **labels)
    note = f"above: share {r1_share:g}, n = {n_mapped} thoughts, explore"
    display(figures.save_figure(fig, "06_r1", pair=pair.name, size=(10, 5.4), note=note))

# %% [markdown]
# **Figure 4: R1's backtracking direction, layer by layer.** Above: its effect at one share (band: 95 % bootstrap over prompts) beside R1's five other kinds and three random directions. Below: its cosine with this pair's stop or doubt vector and with the models' difference; dashed: the middle 95 % of random mixtures of the distilled model's centred states, for the first of the two (random directions: within ±0.05). **What it does not show.** The direction is R1's, but the models are its siblings: their common ancestor, one step of training away, may be all that they share. And *backtracking* is what a language model labelled so, in 790 tokens.

# %% [markdown]
# ## All methods side by side
#
# Everything that was tried through a whole answer, at its best affordable strength, beside its control of the same size and the model as it is.


# %%
def method_rows(role: str, what: str) -> list:
    """One measure: nothing, then each method with its control."""
    colours = {"method": figures.ROLE[role], "control": figures.CONTROL}
    rows = [("nothing", stats.bootstrap(measured(written[role]["nothing"], what)), figures.PALE)]
    return rows + [
        (name, stats.bootstrap(measured(written[role][name, kind], what)), colour)
        for name in chosen[role]
        for kind, colour in colours.items()
    ]


def summary(role: str, heading: str, title: str):
    """One model's methods: what they are for, right answers, repetition."""
    headings = {AIM[role]: heading, "right": "right answers", "repetition": "repetition"}
    panels = {name: method_rows(role, what) for what, name in headings.items()}
    return figures.interval_rows(panels, title=title, unit="mean over questions", span=(-0.04, 1.04))


def most_beyond(role: str) -> str:
    """The largest lead over a control, in answers."""
    lead = max(gain(role, name).estimate for name in chosen[role])
    return f"{round(lead * len(held_out))} of {len(held_out)} answers"


# %%
key = {"its control": figures.CONTROL, "no intervention": figures.PALE}
note = f"n = {len(held_out)} questions, confirm, template, at most {MAX_STEERED} tokens"
look = dict(pair=pair.name, size=(10, 3.6), note=note)
title = f"Making the base wait: the best method leads its control by {most_beyond('base')}"
fig = summary("base", "reasoning answers", title)
display(figures.save_figure(fig, "06_summary_base", key={"method": figures.BASE} | key, **look))
title = f"Making the distilled stop: the best method leads its control by {most_beyond('distilled')}"
fig = summary("distilled", f"stops within {MAX_STEERED} tokens", title)
figures.save_figure(fig, "06_summary_distilled", key={"method": figures.DISTILLED} | key, **look)

# %% [markdown]
# **Figures 5 and 6: every method at its best affordable strength.** Blue and orange the method, grey squares its control of the same size, pink no intervention; 95 % bootstrap over questions. Strengths were chosen on explore under the same limits on lost right answers and added repetition; a star marks methods that kept them at no strength tried. The panels to the right show whether the limits held.

# %% [markdown]
# <details><summary>What it does not show</summary> The best of each method: three strengths were tried on few questions. And right answers of the distilled model need a closed thought, which so few tokens seldom hold.</details>

# %% [markdown]
# ### Before and after
#
# The first two held-out questions under every method.

# %%
for role in members:
    texts = {"nothing": written[role]["nothing"]}
    texts |= {name: written[role][name, "method"] for name in chosen[role]}
    for index in range(min(2, len(held_out))):
        display(Markdown(f"**{role}** · *{held_out[index].text}*"))
        display(pd.DataFrame({"": quoted(texts, index)}))

# %% [markdown]
# ## Try it
#
# Choose a method, a layer, a strength and the positions: the next token at once, the text before and after on the button. Figures 3, 5 and 6 are the same for readers without a kernel.

# %%
offered = {"keyword (doubt)": vectors["doubting"], "function vector (wait)": vectors["wait, function"]}
offered |= {"stop vector": vectors["stop"]}
offered |= {"random direction": steering.random_directions(n_layers, width, seed=SEED)}
if coder:
    offered[f"latent {latent}"] = coder.decoder[latent].cpu().expand(n_layers, -1)
explorers.steering_explorer(pair, offered, reach)

# %% [markdown]
# ## Takeaway

# %%
reasoning = {"base": strongest, "distilled": as_is["distilled"]}
reasoning = {role: f"{measured(texts, 'reasons').mean():.0%}" for role, texts in reasoning.items()}
n_move = sum(part["verdict"] == "holds" for part in F19["stopping"]["rules"][: len(uses)])
by_latent = f", a single latent {np.exp(F20['estimate']):.1f} times" if coder else ""
by_latent += f", R1's own direction {np.exp(F27['estimate']):.1f} times on the base" if r1_at else ""
Markdown(f"""
- The distilled model's first word brings the base {F17["estimate"]:.0%} of the way to its length, beyond what
  neutral words do. Kept from stopping, the base reasons in {reasoning["base"]} of its answers, the distilled
  model as it is in {reasoning["distilled"]}.
- A vector in the stream makes the wanted token likelier: the weakest of six uses
  {np.exp(F19["estimate"]):.1f} times as likely{by_latent}. On the log-odds of stopping {n_move} of the six
  act by more than a nat, the wanted way.
- To move a token is not to move a text: in whole answers the best method leads its control by
  {most_beyond("base")} in making the base reason, and by {most_beyond("distilled")} in making
  the distilled model stop.
""")

# %% [markdown]
# Back: [05_patching](05_patching.ipynb). Next: [07_think_tags](07_think_tags.ipynb) asks what makes the distilled model stop.
