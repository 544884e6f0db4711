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
# **Claim.** Under test: the distilled model's first word, a lowered stop logit, a vector added to the stream, or one latent of a sparse autoencoder is enough to turn one model into the other's behaviour. What holds on this pair is printed below the set-up.
#
# **Evidence.** Every method beside its control of the same size, with right answers and repetition beside the effect (figures 8 and 9); each prompt as a line (figure 5).
#
# **Caveat.** A text that says "Wait" need not reason: a vector strong enough puts any word into any mouth. So a *reasoning* answer here must hold a word of doubt or of alternatives without looping, and what happens to right answers stands beside it. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them), a sparse autoencoder. **Writes** `data/<pair>/06_*.json` (steered texts), findings F17 to F20, figures `06_*`.

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
N_COMBINED = 24  # quick: 6; combined prompts of each split, for readouts
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

# %% jupyter={"source_hidden": true} tags=["claim"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, stats, steering, weights
from helpers.generation import answers, cut_short, judged, load_combined, stored_completions
from helpers.pairs import load_pair
from helpers.patching import Node, attribution_patching, exact_patching
from helpers.prompts import ask, load_questions
from helpers.readouts import activations, promoted, stop_parts
from helpers.steering import NOTHING, Steering, steered
from helpers.store import kept, take
from helpers.tokens import KEYWORDS, count_keywords

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F17", "F18", "F19", "F20"))

# %% [markdown]
# ## What counts as an effect
#
# Texts are answers in the chat template to questions of the `confirm` half; whatever is chosen (layer, strength, heads, latents) is chosen on `explore`. A text *reasons*, for this notebook, when it holds a word of doubt or of alternatives (wait, hold on, maybe, alternatively, ...) and less than half of its 4-grams are repeats. Beside it stand length, right answers and repetition. Readouts are taken at the end of combined prompts, plain form: log P of the Wait set, log P of stopping.

# %%
knobs = dict(n_prompts=N_PROMPTS, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, n_combined=N_COMBINED, max_answer=MAX_ANSWER, **knobs)
pair = pair.float()  # vectors and readouts in float32
members, n_layers = {member.role: member for member in pair.members}, pair.base.n_layers
questions = load_questions(N_PROMPTS)
split = {name: [q for q in questions if q.split == name] for name in ("explore", "confirm")}
stop, wait = {role: list(m.groups.stop) for role, m in members.items()}, list(pair.base.groups.wait)
plain = {(role, part): combined[part].prompts(m, "plain") for role, m in members.items() for part in combined}
own = {role: answers(pair, m, questions, form="template", max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE) for role, m in members.items()}


def reasons(frame: pd.DataFrame) -> pd.Series:
    """Texts with a word of doubt or alternatives that do not loop."""
    counts = frame["text"].map(count_keywords)
    return counts.map(lambda n: n["doubting"] + n["alternatives"] > 0) & (frame["repetition"] < 0.5)


def numbers(frame: pd.DataFrame) -> dict[str, float]:
    """Means of what is told about texts."""
    return {"reasons": reasons(frame).mean(), "length": frame["length"].mean(), "stops": frame["stopped"].mean(), "right": frame["right"].mean(), "repetition": frame["repetition"].mean()}


pd.DataFrame({f"{role}, as it is": numbers(own[role]) for role in members}).round(3)

# %% [markdown]
# ## F17 · First words
#
# **Question.** Does the distilled model's first word, put into the base's mouth, lead to reasoning? And does the first word decide on the distilled model, too? In published outputs of R1-Distill-Qwen-1.5B answers that open with "First," almost never wait while those with "Okay," almost always do (thinking-llms-interp, 500 GSM8K tasks), but who chose the word is confounded with what is asked. Here the word is forced.

# %% [markdown]
# **Control.** Neutral words that also begin answers ("The", "In", "There"), forced the same way, mean of the three by question. **Rule, written before the result.** F17 holds if on the base, its distilled partner's own first word against the neutral words, (a) makes up more than a tenth of the gap in length between the two models and (b) raises the share of reasoning answers by more than 0.05.

# %%
asked = split["confirm"][:N_FORCED]
usual = own["distilled"]["first_word"].value_counts().index[0]
usual_share = float((own["distilled"]["first_word"] == usual).mean())
neutral = ["The", "In", "There"]
words = list(dict.fromkeys([usual, "First", "Okay", "To", "Wait", "Hmm", *neutral]))
forced = {}
for role, m in members.items():
    begins = [own["distilled"].loc[q.id, "first_word"] or usual for q in asked]  # the distilled model's own word for this question
    rows = [(prompt + word, q) for word in words for prompt, q in zip(ask(m, asked, form="template"), asked, strict=True)]
    rows += [(prompt + word, q) for word, prompt, q in zip(begins, ask(m, asked, form="template"), asked, strict=True)]
    texts = stored_completions(pair, m, [prompt for prompt, _ in rows], name=f"06_forced_{role}", max_new_tokens=MAX_FORCED, fresh=RECOMPUTE)
    frame = judged(texts, [q for _, q in rows], opened=m.thinks)
    forced |= {(role, word): frame.iloc[k * len(asked) : (k + 1) * len(asked)] for k, word in enumerate([*words, "own"])}
    forced[role, "none"] = cut_short(m, own[role].loc[[q.id for q in asked]], asked, MAX_FORCED, opened=m.thinks)

# %% [markdown]
# ### Three raw examples, before any average

# %%
for index in np.random.default_rng(SEED).choice(len(asked), min(3, len(asked)), replace=False):
    cells = {f"base, {word!r}": forced["base", word]["text"].iloc[index][:400] for word in ("none", usual, neutral[0])}
    cells |= {f"distilled, {word!r}": forced["distilled", word]["text"].iloc[index][:400] for word in ("none", "First")}
    display(Markdown(f"*{asked[index].text}*"), pd.DataFrame({"": cells}).map(lambda text: repr(text)[1:-1]))

# %%
def over_neutral(role: str, word: str, measure) -> stats.Interval:
    """A forced word against the mean of the neutral ones, by question."""
    return stats.paired(measure(forced[role, word]), np.mean([measure(forced[role, other]) for other in neutral], axis=0))


def length(frame: pd.DataFrame) -> np.ndarray:
    """Tokens, censored at the limit."""
    return frame["length"].to_numpy(float)


def reasoning(frame: pd.DataFrame) -> np.ndarray:
    """1 for a reasoning text."""
    return reasons(frame).to_numpy(float)

# %%
gap = length(forced["distilled", "none"]) - length(forced["base", "none"])
base_rate = np.mean([length(forced["base", other]) for other in neutral], axis=0)
closed = stats.ratio_of_means(length(forced["base", "own"]) - base_rate, gap)
by_neutral = stats.ratio_of_means(base_rate - length(forced["base", "none"]), gap)
more = over_neutral("base", "own", reasoning)
rules = [
    findings.Part("(a) share of the gap closed", closed, findings.Rule("above", 0.1)),
    findings.Part("(b) reasoning answers beyond neutral words, base", more, findings.Rule("above", 0.05)),
]
details = {
    "reasoning answers, 'First' against neutral words, distilled": over_neutral(
        "distilled", "First", reasoning
    ),
    "tokens, the same": over_neutral("distilled", "First", length),
}

# %% [markdown]
# What the rule reads of it, and the verdict:

# %%
F17 = findings.record(
    pair,
    "F17",
    notebook="06_steering",
    quantity="share of the gap in length between the models that the distilled model's first word "
    f"({usual!r} in {usual_share:.0%}) closes on the base, beyond neutral words",
    unit="of the gap",
    rules=rules,
    control=("neutral words beyond no word", by_neutral),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F17))

# %%
shown = ["none", *(word for word in words if word not in neutral), *neutral]
panels = {
    label: [
        (word, stats.bootstrap(measure(forced[role, word]).astype(float)), figures.CONTROL if word in neutral else figures.ROLE[role])
        for word in shown for role in members
    ]
    for label, measure in (("length (tokens)", length), ("reasoning answers", reasoning), ("right answers", lambda frame: frame["right"].to_numpy(float)))
}  # fmt: skip
title = f"{usual!r} in the base's mouth closes {closed.estimate:.0%} of the gap in length beyond neutral words; reasoning answers {more.estimate:+.0%}"
fig = figures.interval_rows(panels, title=title, unit="mean over questions")
figures.save_figure(fig, "06_first_words", pair=pair.name, size=(11, 5), key={"base": figures.BASE, "distilled": figures.DISTILLED, "neutral words, both models": figures.CONTROL}, note=f"n = {len(asked)} questions, confirm, template, at most {MAX_FORCED} tokens")

# %% [markdown]
# **Figure 1: what follows a forced first word.** Blue the base, orange the distilled model, grey squares neutral words (upper mark the base); "none" is each model's own answer. Bars are 95 % bootstrap over questions; lengths are censored at the limit, and a forced "Wait" is not itself counted.

# %% [markdown]
# **What it does not show.** Whether another form of prompt, or a whole first sentence, would do more.

# %% [markdown]
# ## F18 · Lowering the stop token's logit
#
# **Question.** If the base merely may not stop, does it reason, or does it repeat? The logit of all stop tokens is lowered at every generated step, from 0 (the baseline, asserted equal) to −16 nats. Metrics: stop rate, reasoning answers, repetition, right answers; and the first words that come instead.

# %% [markdown]
# **Control.** As many of the tokens that the base writes most often, lowered by as much. **Rule, made stricter after a first look at the result.** F18 holds if the strongest bias (a) lowers the stop rate by more than 0.2, and (b) raises the share of reasoning answers by more than half of the gap between base and distilled model in the same number of tokens: rise minus half of the gap, by question, above 0. It does not hold where (b)'s interval lies below.

# %%
def answer(role: str, some: list, conditions: dict[str, Steering | list[Steering]], label: str) -> dict[str, pd.DataFrame]:
    """The same questions under several steerings, as one generation; a list gives each question its own."""
    rows = [one for condition in conditions.values() for one in (condition if isinstance(condition, list) else [condition] * len(some))]
    frame = answers(pair, members[role], some * len(conditions), form="template", max_new_tokens=MAX_STEERED, change=steered(members[role], rows), name=label, fresh=RECOMPUTE)
    return {name: frame.iloc[k * len(some) : (k + 1) * len(some)] for k, name in enumerate(conditions)}


held = split["confirm"][:N_STEERED]
written_often = pd.Series([token for tokens in own["base"]["tokens"] for token in tokens]).value_counts()
others = [int(token) for token in written_often.index if token not in stop["base"]][: len(stop["base"])]
lowered = {("stop", bias): Steering("stop lowered", bias=dict.fromkeys(stop["base"], float(bias))) for bias in BIASES}
lowered |= {("words", bias): Steering("words lowered", bias=dict.fromkeys(others, float(bias))) for bias in BIASES}
swept = answer("base", held, lowered, "06_stop_lowered")
plain_base = cut_short(pair.base, own["base"].loc[[q.id for q in held]], held, MAX_STEERED, opened=pair.base.thinks)
plain_distilled = cut_short(pair.distilled, own["distilled"].loc[[q.id for q in held]], held, MAX_STEERED, opened=pair.distilled.thinks)
assert list(swept["stop", 0]["text"]) == list(plain_base["text"]), "bias 0 is the baseline"
strongest = swept["stop", BIASES[-1]]
rise = stats.paired(reasoning(strongest), reasoning(plain_base))
gap_half = (reasoning(plain_distilled) - reasoning(plain_base)) / 2
short_of = stats.bootstrap(reasoning(strongest) - reasoning(plain_base) - gap_half)
fall = stats.paired(strongest["stopped"].to_numpy(float), plain_base["stopped"].to_numpy(float))

# %%
rules = [
    findings.Part(f"(a) stop rate within {MAX_STEERED} tokens", fall, findings.Rule("below", -0.2)),
    findings.Part("(b) rise minus half of the gap", short_of, findings.Rule("above", 0)),
]
details = {
    "reasoning answers, distilled": stats.bootstrap(reasoning(plain_distilled)),
    "reasoning answers, base": stats.bootstrap(reasoning(plain_base)),
    "repetition": stats.paired(strongest["repetition"], plain_base["repetition"]),
    "right answers": stats.paired(strongest["right"].astype(float), plain_base["right"].astype(float)),
}
after = [
    text[len(before) :].strip().split(" ")[0] if text.startswith(before.rstrip()) else "(another answer)"
    for text, before in zip(strongest["text"], plain_base["text"], strict=True)
]
comes = pd.Series(after).replace("", "(nothing)").value_counts().head(8)
shown = ", ".join(f"{findings.code_span(word)} {count}" for word, count in comes.items())

# %% [markdown]
# The verdict, and the words that come after the base's own answer:

# %%
F18 = findings.record(
    pair,
    "F18",
    notebook="06_steering",
    quantity=f"change of the share of reasoning answers on the base, stop logit lowered by {-BIASES[-1]}",
    unit="of answers",
    interval=rise,
    rules=rules,
    control=(
        "the base's most frequent tokens lowered by as much",
        stats.paired(reasoning(swept["words", BIASES[-1]]), reasoning(plain_base)),
    ),
    sample="questions",
    details=details,
)
said = f"The first word after the base's own answer, under the strongest bias: {shown}"
display(Markdown(findings.sentence(F18)), Markdown(said))

# %%
measures = {"stop rate": lambda f: f["stopped"].to_numpy(float), "reasoning answers": reasoning, "repetition": lambda f: f["repetition"].to_numpy(float), "right answers": lambda f: f["right"].to_numpy(float)}
panels = {
    name: {"stop": ([stats.bootstrap(measure(swept["stop", bias])) for bias in BIASES], figures.STOP), "frequent tokens": ([stats.bootstrap(measure(swept["words", bias])) for bias in BIASES], figures.CONTROL),
           "distilled": ([stats.bootstrap(measure(plain_distilled))] * len(BIASES), figures.DISTILLED)}
    for name, measure in measures.items()
}  # fmt: skip
title = f"With the stop logit lowered by {-BIASES[-1]} the base's stop rate changes by {fall.estimate:+.0%}, its reasoning answers by {rise.estimate:+.0%}, repetition rises to {strongest['repetition'].mean():.2f}"
fig = figures.lines(panels, range(len(BIASES)), title=title, xlabel="added to the logit", ylabel="mean over questions", ticks=BIASES)
figures.save_figure(fig, "06_stop_lowered", pair=pair.name, note=f"n = {len(held)} questions, confirm, template, at most {MAX_STEERED} tokens")

# %% [markdown]
# **Figure 2: the base with its stop token held down.** Black: all stop tokens lowered; dashed grey: as many of the base's most frequent tokens; orange: the distilled model as it is, in the same number of tokens. Steps of the x axis are not to scale.

# %% [markdown]
# **What it does not show.** Longer texts: with more room a repeating text repeats more. And the share of reasoning answers counts words, not thoughts.

# %% [markdown]
# ## F19 · Vectors: where they come from
#
# **Question.** What differs in the stream right before a keyword? A **keyword vector** is the mean of a layer's output at tokens that precede a keyword, minus the mean at *matched* places: after the same token where possible, before no keyword (Turner et al. 2023; Rimsky et al. 2023; Venhoff et al. 2025). A **function vector** is the sum of the mean outputs of the ten heads that, patched with that mean, move the metric most on `explore` (Todd et al. 2023). For waiting both come from the distilled model's own answers, for stopping from the base's.

# %% [markdown]
# Every vector is stretched to the mean length of the stream at its layer, first tokens left out; a strength is a share of that. **Controls**: random directions of the same length; for keyword vectors the same recipe with shuffled labels, for function vectors as many random heads; the vector of another family of keywords ("First, ...; then, ...").

# %%
sources = {role: stored_completions(pair, m, ask(m, split["explore"][:N_SOURCES], form="template"), name=f"answers_{role}_template_just", max_new_tokens=MAX_NEW_TOKENS) for role, m in members.items()}
wanted = {"doubting": ("distilled", KEYWORDS["doubting"]), "ordering": ("distilled", KEYWORDS["ordering"]), "opening": ("distilled", KEYWORDS["opening"]), "stop": ("base", None)}
rng = np.random.default_rng(SEED)
raw, read_heads, picked, length_of = {}, {}, {}, {}
for name, (role, family) in wanted.items():
    found = steering.places_before(members[role], sources[role], family)
    if not found:  # a model that never says it: arbitrary places, so that the rest can be run
        print(f"no place before {name} in these answers: its vector is an average over arbitrary places and means nothing")
        found = [(k, 5) for k in range(min(4, len(sources[role])))]
    chosen = [found[int(k)] for k in rng.permutation(len(found))[:N_PLACES]]
    picked[name] = chosen, steering.places_matched(members[role], sources[role], chosen, seed=SEED)
for role in members:
    names = [name for name, (other, _) in wanted.items() if other == role]
    parts = [some for name in names for some in picked[name]]
    every = steering.read_places(members[role], sources[role], [place for some in parts for place in some])
    streams, heads = (iter(found.split([len(some) for some in parts])) for found in every)
    for name in names:
        (before, control), (read_heads[name], _) = (next(streams), next(streams)), (next(heads).mean(0), next(heads))
        raw[name], both = before.mean(0) - control.mean(0), torch.cat([before, control])[torch.from_numpy(rng.permutation(2 * len(before)))]
        raw[f"{name}, shuffled"] = both[: len(before)].mean(0) - both[len(before) :].mean(0)
        length_of[name] = both.norm(dim=-1).mean(0)
reach = {"distilled": length_of["doubting"], "base": length_of["stop"]}
counted = {name: len(chosen) for name, (chosen, _) in picked.items()}
Markdown("Places averaged: " + ", ".join(f"{name} {n}" for name, n in counted.items()) + f". Length of the difference as a share of the stream, middle layer: {float(raw['doubting'][n_layers // 2].norm() / reach['distilled'][n_layers // 2]):.2f}.")

# %% [markdown]
# ### Heads by their causal effect
#
# **Question.** Which heads, given their mean output before a wait (or before the stop), move $c = z(\text{stop}) - \overline{z(\text{Wait})}$ at the end of a combined prompt? All are ranked by the first-order estimate on `explore` (05 holds it against exact patching); the best are patched exactly, and their agreement is printed.

# %%
n_heads = pair.base.config.num_attention_heads
heads, effect = {}, {}
for name, role, plus, minus in (("wait", "distilled", wait, stop["distilled"][:1]), ("stop", "base", stop["base"][:1], wait)):
    m, prompts = members[role], plain[role, "explore"][:N_MAP]
    seen = activations(m, prompts)
    mean = read_heads["doubting" if name == "wait" else "stop"].to(m.device)
    given = type(seen)(**{**vars(seen), "z": mean.expand(len(prompts), *mean.shape)})
    estimate = attribution_patching(m, prompts, given, plus, minus).head.mean(0)
    order = estimate.flatten().argsort(descending=True)[: 2 * N_HEADS].tolist()
    nodes = [Node("head", *divmod(k, n_heads)) for k in order]
    exact = exact_patching(m, prompts, given, nodes, plus, minus)
    best = exact.mean(0).argsort(descending=True)[:N_HEADS].tolist()
    heads[name], effect[name] = [(nodes[k].layer, nodes[k].index) for k in best], estimate
    vector = steering.function_vector(m, mean, heads[name])
    raw[f"{name}, function"] = vector.expand(n_layers, -1)
    rest = [divmod(int(k), n_heads) for k in rng.permutation(n_layers * n_heads) if divmod(int(k), n_heads) not in heads[name]][:N_HEADS]
    raw[f"{name}, random heads"] = steering.function_vector(m, mean, rest).expand(n_layers, -1)
    display(Markdown(f"**{name}** ({role}): " + ", ".join(f"{nodes[k]} {exact[:, k].mean():+.2f}" for k in best[:6]) + f" nats, exact; estimate and exact correlate at {stats.correlation(estimate.flatten()[order], exact.mean(0)):.2f} over these {len(nodes)}."))

# %%
maps = {f"{name}: {'distilled' if name == 'wait' else 'base'}": effect[name] for name in effect}
title = "The largest estimated effects of a single head: " + ", ".join(f"{matrix.max():.2f} nats ({name})" for name, matrix in maps.items())
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="nats towards the token")
figures.save_figure(fig, "06_heads", pair=pair.name, note=f"n = {N_MAP} combined prompts, explore")

# %% [markdown]
# **Figure 3: the causal effect of each head's mean output.** Left: mean outputs before a wait, put into the distilled model at the end of an answer; red moves it towards waiting. Right: mean outputs before the stop, in the base; red towards stopping.

# %% [markdown]
# **What it does not show.** Effects of heads together: the function vector is their sum, tested below.

# %% [markdown]
# ### Layer and strength
#
# **Question.** Where and how strongly must a vector be added? Readout on `explore`: the change of log P(Wait set), or of log P(stop), at the end of combined prompts, with the vector added at all positions to one layer's output. The setting with the largest effect is kept.

# %%
def unit(name: str, layer: int, role: str) -> torch.Tensor:
    """A vector stretched to the mean length of a model's stream at a layer."""
    return torch.nn.functional.normalize(raw[name][layer], dim=0) * reach[role][layer]


def read(role: str, part: str, steerings: list[Steering], n: int, target: str, rows=range(10**6)) -> np.ndarray:
    """Log-probability of the target, [prompt, steering]."""
    ids = wait if target == "wait" else stop[role]
    return steering.steered_logprobs(members[role], take(plain[role, part][:n], rows), steerings, ids).logsumexp(2).numpy().T


raw["random"] = steering.random_directions(n_layers, pair.base.config.hidden_size, seed=SEED)
label = {("base", "doubting"): "base: doubt vector", ("base", "wait, function"): "base: wait heads", ("distilled", "doubting"): "distilled: doubt vector", ("distilled", "wait, function"): "distilled: wait heads", ("distilled", "stop"): "distilled: stop vector", ("distilled", "stop, function"): "distilled: stop heads"}
aims = {use: "stop" if "stop" in use[1] else "wait" for use in label}
# %%
layers = list(range(LAYER_STEP - 1, n_layers, LAYER_STEP)) if n_layers > LAYER_STEP else list(range(n_layers))
grid = [(layer, strength) for layer in layers for strength in STRENGTHS]
tasks = {task: [name for (other, name), aim in aims.items() if (other, aim) == task] for task in ((role, aim) for (role, _), aim in aims.items())}


def read_map(rows: list[int]) -> dict:
    """The target's log-probability as it is, then with each vector at each setting, [prompt, setting]."""
    found = {}
    for (role, target), names in tasks.items():
        tried = [NOTHING, *(Steering(name, {layer: unit(name, layer, role)}, strength) for name in names for layer, strength in grid)]
        found[f"{role} {target}"] = read(role, "explore", tried, N_MAP, target, rows)
    return found


read_maps = kept(pair, "06_map", read_map, min(N_MAP, len(combined["explore"].questions)), fresh=RECOMPUTE)
maps, best = {}, {}
for (role, target), names in tasks.items():
    nothing, *change = read_maps[f"{role} {target}"].mean(0)
    for name, changed in zip(names, np.reshape(change, (len(names), len(layers), len(STRENGTHS))) - nothing, strict=True):
        maps[label[role, name]] = changed
        best[role, name] = grid[int(changed.argmax())]

# %%
at = {"columns": [f"{strength:g}" for strength in STRENGTHS], "names": [str(layer) for layer in layers]}
title = "Largest change: " + "; ".join(f"{label[use]} at layer {layer}, {strength:g}" for use, (layer, strength) in best.items())
fig = figures.heat_maps(maps, title=title, xlabel="strength", ylabel="layer", unit="nats", **at)
figures.save_figure(fig, "06_layer_and_strength", pair=pair.name, size=(17, 4.4), note=f"n = {N_MAP} combined prompts, explore, plain")

# %% [markdown]
# **Figure 4: the change of log P by layer and strength.** Red: the wanted token becomes likelier. Strength is a share of the stream's mean length. These are on `explore`, where the setting is chosen; effects are told on `confirm` below.

# %% [markdown]
# **What it does not show.** What the model then writes: a large readout at a large strength may be a broken model.

# %% [markdown]
# ### The dose, on held-out prompts
#
# **Question.** At the chosen layers, how does log P grow with the strength, prompt by prompt, and in reverse? **Controls**: random directions of the same length at the chosen strength; shuffled labels or random heads; another family's vector. **Rule for F19, made stricter after a first look at the result**: it holds if for each of the six uses (two kinds of vector, waiting on both models, stopping on the distilled) (a) log P rises on `confirm` by more than 1 nat, with its interval, and (b) the share of random directions with a smaller mean effect is above 0.9, with its interval over directions; it does not hold where an interval of one use lies below.

# %%
doses = [-STRENGTHS[-1], 0.0, *STRENGTHS]
few = min(len(plain["base", "confirm"]), N_MAP)


def dose_and_controls(use: tuple[str, str], rows: list[int]) -> tuple[np.ndarray, ...]:
    """The target's log-probability at every dose; under random directions; and under the other two controls."""
    (role, name), (layer, strength), target = use, best[use], aims[use]
    drawn = steering.random_directions(N_CONTROLS, pair.base.config.hidden_size, seed=SEED + 1) * reach[role][layer]
    kinds = [name.replace(", function", ", random heads") if "function" in name else f"{name}, shuffled", "ordering" if target == "wait" else "doubting"]
    own = [Steering(name, {layer: unit(name, layer, role)}, dose) for dose in doses]
    return (
        read(role, "confirm", own, N_COMBINED, target, rows), read(role, "confirm", [Steering("random", {layer: vector}, strength) for vector in drawn], few, target, rows),
        read(role, "confirm", [Steering(kind, {layer: unit(kind, layer, role)}, strength) for kind in kinds], N_COMBINED, target, rows),
    )  # fmt: skip


def read_each(rows: list[int]) -> dict:
    """Doses and controls of every use, [prompt, steering]."""
    return {f"{label[use]}, {kind}": values for use in aims for kind, values in zip(("own", "random", "other"), dose_and_controls(use, rows), strict=True)}


read_doses = {key: values.T for key, values in kept(pair, "06_doses", read_each, len(combined["confirm"].questions), few, fresh=RECOMPUTE).items()}
seen = {use: read_doses[f"{label[use]}, own"] for use in aims}
null = {use: read_doses[f"{label[use]}, random"] - seen[use][1, :few] for use in aims}
other = {use: read_doses[f"{label[use]}, other"] - seen[use][1] for use in aims}

# %% [markdown]
# One row a use, on `confirm`: how far it moves the wanted token, and how its controls compare.

# %%
rise_of, rank, rows = {}, {}, {}
for use, target in aims.items():
    (role, name), (layer, strength) = use, best[use]
    after = seen[use][doses.index(strength)]
    rise_of[use], rank[use] = stats.paired(after, seen[use][1]), stats.share(null[use].mean(1) < (after - seen[use][1])[:few].mean())
    rows[label[use]] = {"layer": layer, "strength": strength, "change (nats)": f"{rise_of[use]}", "median P, before": f"{np.exp(np.median(seen[use][1])):.1e}", "after": f"{np.exp(np.median(after)):.1e}", "random directions below": f"{rank[use]}",
                        "their mean": f"{null[use].mean():+.1f}", "shuffled labels or random heads": f"{other[use][0].mean():+.1f}", "other family": f"{other[use][1].mean():+.1f}", "prompts reversed": f"{(after < seen[use][1]).mean():.0%}"}  # fmt: skip
pd.DataFrame(rows).T

# %%
panels = {}
for (role, name), target in aims.items():
    values = seen[role, name].T - seen[role, name][1][:, None]
    low, high = np.quantile(null[role, name].mean(1), [0.025, 0.975])
    spread = stats.Interval(float(null[role, name].mean()), float(low), float(high), N_CONTROLS)
    panels[label[role, name]] = {"": (values, figures.LINE), "mean": (stats.bands(values), figures.ROLE[role]), "random": ([spread] * len(doses), figures.CONTROL)}
title = "At the chosen strength: " + ", ".join(f"{label[use]} {value.estimate:+.1f}" for use, value in rise_of.items()) + " nats"
fig = figures.lines(panels, range(len(doses)), title=title, xlabel="strength (share of the stream's length)", ylabel="change of log P (nats)", rows=2, zero=True, ticks=[f"{dose:g}" for dose in doses])
figures.save_figure(fig, "06_dose", pair=pair.name, size=(13, 6.5), note=f"n = {len(values)} combined prompts, confirm, plain; band: {N_CONTROLS} random directions at the chosen strength")

# %% [markdown]
# **Figure 5: dose and response, each prompt a pale line.** Thick: the mean with 95 % bootstrap. Dashed grey: the mean and middle 95 % of random directions of the same length at the chosen strength. At the left end the vector is subtracted; steps of the x axis are not to scale.

# %% [markdown]
# **What it does not show.** Texts; those come after the latents.

# %% [markdown]
# ### Where and at which positions
#
# **Question.** The same vectors at the chosen setting, added at other positions, or spread over three neighbouring layers at a third of the strength each. Metric: mean change of log P on `confirm`.

# %%
rows = {}
for (role, name), target in aims.items():
    layer, strength = best[role, name]
    near = [at for at in (layer - 1, layer, layer + 1) if 0 <= at < n_layers]
    tried = {where: Steering(name, {layer: unit(name, layer, role)}, strength, where) for where in ("all", "prompt", "last", "generated")}
    tried["three layers, a third each"] = Steering(name, {at: unit(name, at, role) / len(near) for at in near}, strength)
    change = read(role, "confirm", [NOTHING, *tried.values()], N_MAP, target).T
    rows[label[role, name]] = dict(zip(tried, (change[1:] - change[0]).mean(1), strict=True))
assert all(abs(row["generated"]) < 1e-3 for row in rows.values()), "nothing is generated yet, so nothing changes"
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ### What do the vectors resemble?
#
# **Question.** Cosine of the keyword vector, layer by layer, with directions that other notebooks found: the Wait set's writing direction (04: unembedding, centred, final norm folded in), the difference of the two models' streams at the end of combined prompts (03), the most aligned value vector of that layer (04), and the function vector. **Control**: two random directions have a cosine within $\pm 1.96/\sqrt{d}$ in 95 of 100 cases.

# %%
difference = (activations(pair.distilled, plain["distilled", "explore"]).stream - activations(pair.base, plain["base", "explore"]).stream).mean(0)[1:].cpu()
writes = weights.writing_direction(pair.distilled, wait).cpu()
columns = weights.value_vector_cosines(pair.distilled, raw["doubting"]).abs()
cosine = torch.nn.functional.cosine_similarity
alike = {
    "Wait unembedding": (cosine(raw["doubting"], writes[None], dim=1), figures.WAIT),
    "model difference": (cosine(raw["doubting"], difference, dim=1), figures.DISTILLED),
    "function vector": (cosine(raw["doubting"], raw["wait, function"], dim=1), figures.THIRD),
    "stop vector (base)": (cosine(raw["doubting"], raw["stop"], dim=1), figures.STOP),
    "nearest value vector": (torch.stack([columns[layer, layer].max() for layer in range(n_layers)]), figures.LINE),
}
bound = 1.96 / pair.base.config.hidden_size**0.5
panels = {"": {**alike, "random": ([stats.Interval(0.0, -bound, bound, 1)] * n_layers, figures.CONTROL)}}
title = "Largest cosine of the keyword vector over layers: " + ", ".join(f"{name} {float(values[values.abs().argmax()]):+.2f}" for name, (values, _) in alike.items())
fig = figures.lines(panels, range(n_layers), title=title, xlabel="layer", ylabel="cosine", zero=True)
figures.save_figure(fig, "06_cosines", pair=pair.name, size=(8.5, 4), note=f"{counted['doubting']} places before words of doubt, explore")

# %% [markdown]
# **Figure 6: what the keyword vector resembles.** Dashed grey and its band: random directions. The nearest value vector is the largest of a layer's neurons in size, so it lies above the band partly by selection.

# %% [markdown]
# **What it does not show.** Cause: a direction can resemble another and act through neither.

# %% [markdown]
# ## F20 · A latent of a sparse autoencoder
#
# **Question.** Which latents fire before words of doubt, what else do they fire on, and does adding a latent's decoder row make the base wait? Latents are ranked on `explore` by mean activation before words of doubt minus at matched places, then read in both models' own answers. Reconstruction error: share of variance unexplained on `confirm` answers.

# %%
known = AUTOENCODER or steering.AUTOENCODERS.get(pair.name)
if known is None:
    print(f"no autoencoder is known for pair {pair.name}: set AUTOENCODER = (folder or hub id, hookpoint); F20 is left out")
else:
    coder = steering.load_autoencoder(*known, device=pair.distilled.device)
    on_texts = {}
    for role, m in members.items():
        texts = stored_completions(pair, m, ask(m, split["confirm"][:16], form="template"), name=f"answers_{role}_template_just", max_new_tokens=MAX_NEW_TOKENS)
        places, states = steering.autoencoder_states(m, coder, texts)
        unexplained = pd.Series(coder.unexplained(states).numpy()).groupby([k for k, _ in places]).mean().to_numpy()
        on_texts[role] = (texts, places, states, unexplained)
    x = states[:8].to(coder.decoder)
    kept_error = coder.decode(coder.encode(x)) + 3.0 * coder.decoder[0] + (x - coder.decode(coder.encode(x)))
    assert torch.allclose(kept_error, x + 3.0 * coder.decoder[0], atol=1e-3), "with its error kept, adding to the output is adding to the stream"
    print("unexplained share of variance, mean over answers: " + ", ".join(f"{role} {stats.bootstrap(unexplained)}" for role, (*_, unexplained) in on_texts.items()))

# %%
if known is not None:
    found = steering.places_before(pair.distilled, sources["distilled"], KEYWORDS["doubting"]) or [(0, 5)]
    chosen = {place: None for place in (found[int(k)] for k in np.random.default_rng(SEED).permutation(len(found))[:N_PLACES])}
    matched = steering.places_matched(pair.distilled, sources["distilled"], list(chosen), seed=SEED)
    used = sorted({k for k, _ in [*chosen, *matched]})
    places, states = steering.autoencoder_states(pair.distilled, coder, [sources["distilled"][k] for k in used])
    index = {(used[k], at): row for row, (k, at) in enumerate(places)}
    before, control = (coder.encode(states[[index[place] for place in some]]) for some in (list(chosen), matched))
    ranked = (before.mean(0) - control.mean(0)).argsort(descending=True)[:5].tolist()
    acts_of = {role: dict(zip(ranked, coder.encode(own_states, ranked).T, strict=True)) for role, (*_, own_states, _) in on_texts.items()}
    rows = []
    for latent, tokens in zip(ranked, promoted(pair.distilled, coder.decoder[ranked], k=5), strict=True):
        row = {"latent": latent, "fires before doubt": f"{(before[:, latent] > 0).float().mean():.0%}", "at matched places": f"{(control[:, latent] > 0).float().mean():.0%}", "promotes": " ".join(map(repr, tokens))}
        for role, (own_texts, own_places, *_) in on_texts.items():
            fired = acts_of[role][latent]
            top = [steering.context(members[role], own_texts[own_places[k][0]], own_places[k][1]) for k in fired.topk(2).indices.tolist() if fired[k] > 0]
            row |= {f"top contexts, {role}": " | ".join(map(repr, top)) or "never fires", f"fires, {role}": f"{(fired > 0).float().mean():.1%}"}
        rows.append(row)
    display(pd.DataFrame(rows))

# %% [markdown]
# **Rule for F20, made stricter after a first look at the result.** The first latent of the table is kept: found by activation alone. F20 holds if on `confirm` its decoder row, added at the strength of largest effect on `explore`, (a) raises log P(Wait set) on the base by more than 1 nat, with its interval, and (b) the share of random live latents whose rows at the same length do less is above 0.9, with its interval over latents; it does not hold where one of the two lies below. Beside it, without a control, the latent *clamped* in the autoencoder's output, the error term kept, to multiples of its mean firing.

# %%
if known is not None:
    def row_of(latent: int, role: str) -> torch.Tensor:
        """A latent's decoder row at the mean length of a model's stream."""
        return torch.nn.functional.normalize(coder.decoder[latent].cpu(), dim=0) * reach[role][coder.layer]

    latent = ranked[0]
    often = coder.fires(states)
    live = [k for k in often.argsort(descending=True).tolist() if k not in ranked and often[k] > 0][: 20 * N_CONTROLS]
    drawn = [live[int(k)] for k in np.random.default_rng(SEED).permutation(len(live))[:N_CONTROLS]]
    few = min(N_MAP, len(plain["base", "confirm"]))
    fires = float(before[:, latent][before[:, latent] > 0].mean()) if (before[:, latent] > 0).any() else 1.0

    on_explore = read("base", "explore", [Steering("latent", {coder.layer: row_of(latent, "base")}, dose) for dose in STRENGTHS], N_MAP, "wait").mean(0)
    latent_strength = STRENGTHS[int(on_explore.argmax())]

    def read_latent(rows: list[int]) -> dict:
        """log P(Wait set) on confirm by dose, under random latents, and clamped, [prompt, ...]."""
        found = {}
        for role, m in members.items():
            prompts = take(plain[role, "confirm"], rows)
            found[f"{role} seen"] = read(role, "confirm", [Steering("latent", {coder.layer: row_of(latent, role)}, dose) for dose in (0.0, *STRENGTHS)], 10**6, "wait", rows)
            found[f"{role} null"] = read(role, "confirm", [Steering("latents", {coder.layer: row_of(k, role)}, latent_strength) for k in drawn], few, "wait", rows)
            found |= {f"{role} x{times}": np.log(stop_parts(m, prompts, lm=steering.with_latent(m, coder, latent, times * fires))["Wait set"].to_numpy()) for times in (0, 1, 4)}
        return found

# %%
if known is not None:
    of_latent = {key: values.T for key, values in kept(pair, "06_latent", read_latent, len(combined["confirm"].questions), few, fresh=RECOMPUTE).items()}
    latent_seen = {role: of_latent[f"{role} seen"] for role in members}
    latent_null = {role: of_latent[f"{role} null"] - latent_seen[role][0, :few] for role in members}
    lift = {role: latent_seen[role][1 + STRENGTHS.index(latent_strength)] - latent_seen[role][0] for role in members}
    latent_rise = {role: stats.bootstrap(lift[role]) for role in members}
    latent_rank = {role: stats.share(latent_null[role].mean(1) < lift[role][:few].mean()) for role in members}
    clamped = {(role, times): stats.bootstrap(of_latent[f"{role} x{times}"] - latent_seen[role][0]) for role in members for times in (0, 1, 4)}

# %%
if known is not None:
    rules = [
        findings.Part("(a) rise, base", latent_rise["base"], findings.Rule("above", 1.0)),
        findings.Part("(b) random latents below, base", latent_rank["base"], findings.Rule("above", 0.9)),
    ]
    details = {
        "rise, distilled": latent_rise["distilled"],
        "random below, distilled": latent_rank["distilled"],
    }
    details |= {
        f"clamped to {times} times its mean firing, {role}": clamped[role, times]
        for role in members
        for times in (0, 1, 4)
    }
    for role in members:
        details[f"unexplained share of variance, {role}"] = stats.bootstrap(on_texts[role][3])

# %% [markdown]
# On an autoencoder that is there:

# %%
if known is not None:
    F20 = findings.record(
        pair,
        "F20",
        notebook="06_steering",
        quantity="change of log P(Wait set) on the base, "
        f"decoder row of latent {latent} added at strength {latent_strength:g}",
        unit="nats",
        rules=rules,
        control=(
            f"{len(drawn)} random live latents, same length",
            stats.bootstrap(latent_null["base"].mean(1)),
        ),
        details=details,
    )
    display(Markdown(findings.sentence(F20)))

# %%
if known is not None:
    panels = {}
    for role in members:
        values = latent_seen[role].T - latent_seen[role][0][:, None]
        of_random = latent_null[role].mean(1)
        spread = stats.Interval(float(of_random.mean()), *map(float, np.quantile(of_random, [0.025, 0.975])), len(drawn))
        panels[role] = {"latent": (stats.bands(values), figures.ROLE[role]), "random latents": ([spread] * (1 + len(STRENGTHS)), figures.CONTROL)}
    title = f"Latent {latent}: log P(Wait set) {lift['base'].mean():+.1f} nats on the base at strength {latent_strength:g}, {lift['distilled'].mean():+.1f} on the distilled; random latents {latent_null['base'].mean():+.1f} and {latent_null['distilled'].mean():+.1f}"
    fig = figures.lines(panels, [0.0, *STRENGTHS], title=title, xlabel="strength", ylabel="change of log P(Wait set), nats", zero=True)
    display(figures.save_figure(fig, "06_latent", pair=pair.name, note=f"n = {len(lift['base'])} combined prompts, confirm; band: {len(drawn)} random latents at {latent_strength:g}"))

# %% [markdown]
# **Figure 7: one latent's decoder row added to the stream.** Coloured: the chosen latent with 95 % bootstrap over prompts. Dashed grey: mean and middle 95 % of random live latents at the same length, at the chosen strength.

# %% [markdown]
# **What it does not show.** That the latent *means* doubt: its top contexts above are for the reader to judge.

# %% [markdown]
# ## What do they write?
#
# **Question.** Each method held through a whole answer, at a strength chosen on `explore`: the largest effect among those under which the share of right answers falls by at most `LIMIT` and repetition rises by at most as much (of equals the strongest). Where no strength keeps these limits the smallest is taken and starred. On the base the effect is the share of reasoning answers, on the distilled the share that stops within `MAX_STEERED` tokens. **Controls**, on `confirm`: for vectors and latents a *different* random direction of the same length for every question; for biases other words under the same bias.

# %%
def doses_of(role: str, name: str) -> list[Steering]:
    """A vector at a quarter, half and the whole of the strength chosen by readout."""
    layer, strength = best[role, name]
    return [Steering(name, {layer: unit(name, layer, role)}, share * strength) for share in (0.25, 0.5, 1.0)]


methods = {
    "base": {
        "stop logit lowered": [Steering("stop", bias=dict.fromkeys(stop["base"], bias)) for bias in (-4.0, -8.0, -16.0)],
        "Wait logit raised": [Steering("wait", bias=dict.fromkeys(wait, bias)) for bias in (3.0, 6.0, 9.0)],
        "keyword vector": doses_of("base", "doubting"), "function vector": doses_of("base", "wait, function"),
    },
    "distilled": {
        "stop logit raised": [Steering("stop", bias=dict.fromkeys(stop["distilled"], bias)) for bias in (3.0, 6.0, 9.0)],
        "Wait logit lowered": [Steering("wait", bias=dict.fromkeys(wait, bias)) for bias in (-4.0, -8.0, -16.0)],
        "stop vector": doses_of("distilled", "stop"), "stop function vector": doses_of("distilled", "stop, function"),
        "keyword vector subtracted": [one.at(-one.strength) for one in doses_of("distilled", "doubting")],
    },
}  # fmt: skip
if known is not None:
    methods["base"]["latent"] = [Steering("latent", {coder.layer: row_of(latent, "base")}, share * latent_strength) for share in (0.25, 0.5, 1.0)]

# %%
tune = split["explore"][:N_TUNE]
effects = {"base": lambda frame: reasons(frame).mean(), "distilled": lambda frame: frame["stopped"].mean()}
tried, affordable = {}, {}
for role in members:
    tried[role] = answer(role, tune, {"nothing": NOTHING} | {(name, k): one for name, doses in methods[role].items() for k, one in enumerate(doses)}, f"06_tune_{role}")
    start = numbers(tried[role]["nothing"])
    for name, doses in methods[role].items():
        told = [numbers(tried[role][name, k]) for k in range(len(doses))]
        allowed = [k for k, t in enumerate(told) if start["right"] - t["right"] <= LIMIT and t["repetition"] - start["repetition"] <= LIMIT]
        affordable[role, name if allowed else f"{name} *"] = doses[max(allowed or [0], key=lambda k: (effects[role](tried[role][name, k]), k))]

# %%
def rival(one: Steering, role: str, n: int) -> list[Steering]:
    """A control of the same size for each question: a random direction, or a random word's logit."""
    if one.bias:
        amount, words = next(iter(one.bias.values())), list(members[role].groups.control)
        return [Steering("word", bias={words[(k + j) % len(words)]: amount for j in range(len(one.bias))}) for k in range(n)]
    (layer, vector), = one.vectors.items()
    return [Steering("random", {layer: drawn * vector.norm()}, abs(one.strength)) for drawn in steering.random_directions(n, len(vector), seed=SEED + 2 + layer)]


written = {}
for role in members:
    chosen = {name: one for (other, name), one in affordable.items() if other == role}
    conditions = {"nothing": NOTHING} | {(name, "method"): one for name, one in chosen.items()} | {(name, "control"): rival(one, role, len(held)) for name, one in chosen.items()}
    written[role] = answer(role, held, conditions, f"06_steered_{role}")
table = {(role, name, kind): {"strength": f"{affordable[role, name].strength:g}" if affordable[role, name].vectors else f"{next(iter(affordable[role, name].bias.values())):+g}", **numbers(written[role][name, kind])} for role, name in affordable for kind in ("method", "control")}
display(pd.DataFrame({(role, "nothing", ""): numbers(written[role]["nothing"]) for role in members}).T.round(2), pd.DataFrame(table).T)

# %%
effect_of = {"base": reasoning, "distilled": lambda frame: frame["stopped"].to_numpy(float)}
gain = {
    (role, name): stats.paired(
        *(effect_of[role](written[role][name, kind]) for kind in ("method", "control"))
    )
    for role, name in affordable
}
worst = min(rise_of, key=lambda use: rise_of[use].estimate)
rise_rule, rank_rule = findings.Rule("above", 1.0), findings.Rule("above", 0.9)
rules = [findings.Part(f"(a) {label[use]}", value, rise_rule) for use, value in rise_of.items()]
rules += [findings.Part(f"(b) random below, {label[use]}", value, rank_rule) for use, value in rank.items()]
details = {
    f"another family's vector, {label[use]}": stats.bootstrap(values[1]) for use, values in other.items()
}
measure = {"base": "reasoning answers", "distilled": "stop rate"}
details |= {
    f"{measure[role]} beyond the control, {name}, {role}": value
    for (role, name), value in gain.items()
    if affordable[role, name].vectors
}

# %% [markdown]
# F19 has six uses, and what each does in texts stands beside them:

# %%
F19 = findings.record(
    pair,
    "F19",
    notebook="06_steering",
    quantity=f"change of log P of the wanted token, weakest of six uses ({label[worst]})",
    unit="nats",
    interval=rise_of[worst],
    rules=rules,
    control=(f"{N_CONTROLS} random directions, same length", stats.bootstrap(null[worst].mean(1))),
    details=details,
)
Markdown(findings.sentence(F19))

# %%
def panel(role: str, measure) -> list:
    """Rows of the summary for one model and measure: nothing, then each method with its control."""
    rows = [("nothing", stats.bootstrap(measure(written[role]["nothing"])), figures.PALE)]
    for (other, name), _ in affordable.items():
        rows += [(name, stats.bootstrap(measure(written[role][name, kind])), figures.ROLE[role] if kind == "method" else figures.CONTROL) for kind in ("method", "control") if other == role]
    return rows


def summary(role: str, label: str, what: str):
    """One model's summary figure."""
    others = {"right answers": lambda frame: frame["right"].to_numpy(float), "repetition": lambda frame: frame["repetition"].to_numpy(float)}
    panels = {label: panel(role, effect_of[role])} | {name: panel(role, measure) for name, measure in others.items()}
    title = f"{what}, beyond the control: " + ", ".join(f"{name} {gain[other, name].estimate:+.0%}" for other, name in gain if other == role)
    return figures.interval_rows(panels, title=title, unit="mean over questions", span=(-0.04, 1.04))


key = {"its control": figures.CONTROL, "no intervention": figures.PALE}
note = f"n = {len(held)} questions, confirm, template, at most {MAX_STEERED} tokens"
fig = summary("base", "reasoning answers", "Making the base wait")
figures.save_figure(fig, "06_summary_base", pair=pair.name, size=(11, 3.8), key={"method": figures.BASE} | key, note=note)

# %%
fig = summary("distilled", f"stops within {MAX_STEERED} tokens", "Making the distilled model stop")
figures.save_figure(fig, "06_summary_distilled", pair=pair.name, size=(11, 3.8), key={"method": figures.DISTILLED} | key, note=note)

# %% [markdown]
# **Figures 8 and 9: every method at its best affordable strength.** Blue and orange the method, grey squares its control of the same size, pink no intervention; 95 % bootstrap over questions. Strengths were chosen on explore under the same limits on lost right answers and added repetition; a star marks methods that kept them at no strength tried. The panels to the right show whether the limits held.

# %% [markdown]
# **What it does not show.** The best of each method: three strengths were tried on few questions. And right answers of the distilled model need a closed thought, which `MAX_STEERED` tokens seldom hold.

# %% [markdown]
# ## Before and after
#
# The first two held-out questions under every method.

# %%
for role in members:
    for index in range(min(2, len(held))):
        cells = {"nothing": written[role]["nothing"]["text"].iloc[index]} | {name: written[role][name, "method"]["text"].iloc[index] for (other, name) in affordable if other == role}
        display(Markdown(f"**{role}** · *{held[index].text}*"), pd.DataFrame({"": cells}).map(lambda text: repr(text)[1:-1][:420]))

# %% [markdown]
# ## Try it
#
# Choose a method, a layer, a strength and the positions: the next token at once, the text before and after on the button. Figures 5, 8 and 9 are the same for readers without a kernel.

# %%
vectors = {"keyword (doubt)": raw["doubting"], "function vector (wait)": raw["wait, function"], "stop vector": raw["stop"], "random direction": raw["random"]}
if known is not None:
    vectors[f"latent {latent}"] = coder.decoder[latent].cpu().expand(n_layers, -1)
explorers.steering_explorer(pair, vectors, reach)

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F17", "F18", "F19", "F20"))

# %% [markdown]
# Back: [05_patching](05_patching.ipynb). Next: [07_think_tags](07_think_tags.ipynb) asks what makes the distilled model stop.
