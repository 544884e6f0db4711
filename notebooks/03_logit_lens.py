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
# # 03 · At which depth do stopping and waiting part?
#
# **Claim.** Under test: read through the logit lens, base and distilled model agree about stopping through most of their depth and part only late; the stop token's rise in the base looks exponential over the last layers, because attention keeps adding to what is there; the final norm shapes that rise; and the difference of the two models' activations names reasoning tokens. What holds on this pair is printed below the set-up.
#
# **Evidence.** The log-odds of stopping by depth, through the lens and by putting one model's stream into the other (figure 1), the test of the rise's shape (figure 4), what every layer and head writes (figures 5, 8, 9).
#
# **Caveat.** A lens reads a middle layer with the last layer's eyes. In early layers that is unreliable (Belrose et al. 2023), so ranks and a shuffled prompt stand beside every curve. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them), `data/neutral.txt`. **Writes** `data/<pair>/03_heads.csv`, findings F09 to F11, figures `03_*`.

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
N_COMBINED = 64  # quick: 6; combined prompts of each split
N_NEUTRAL = 48  # neutral statements
TOP_HEADS = 8  # heads chosen on the explore split
N_RANDOM = 500  # random directions
N_PATCHED = 24  # quick: 6; prompts whose streams are exchanged

# %% jupyter={"source_hidden": true} tags=["claim"]
from collections import Counter

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.special import expit

from helpers import explorers, figures, findings, stats
from helpers.generation import load_combined
from helpers.pairs import load_pair
from helpers.patching import Node, attribute, exact_patching
from helpers.prompts import neutral_sentences, shuffle_words
from helpers.readouts import Lens, activations, attention_pattern, lens, lens_map
from helpers.readouts import logit_difference, measure, promoted, read_stream, residuals, stop_odds
from helpers.readouts import vocabulary_scores
from helpers.store import data_dir, kept, take, write_text

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F09", "F10", "F11"))

# %% [markdown]
# ## Three raw examples, before any average
#
# The prompts are the combined ones of notebook 02: question, "Just give the answer.", the base's own complete answer. All is read at the last token, the end of that answer.

# %%
combined = load_combined(
    pair,
    n_prompts=N_PROMPTS,
    n_combined=N_COMBINED,
    max_answer=MAX_ANSWER,
    max_new_tokens=MAX_NEW_TOKENS,
    fresh=RECOMPUTE,
)
pair = pair.float()  # sums must add up: everything below is in float32
members = {member.role: member for member in pair.members}
n_layers = pair.base.n_layers
confirm, explore = combined["confirm"], combined["explore"]
n_confirm, n_explore = len(confirm.questions), len(explore.questions)
note = f"n = {n_confirm} combined prompts, confirm"
Markdown(f"{n_confirm} combined prompts of the confirm split, {n_explore} of explore, on {pair.describe()}.")

# %% [markdown]
# The **residual stream** is the running sum that every layer reads from and adds to. The **logit lens** (nostalgebraist 2020) takes it at some depth, applies the final norm and the head, and asks what would be said if the model ended here. Depth 0 is the embedding, depth $k$ lies after layer $k-1$.


# %%
def likeliest_by_depth(member, prompt: str) -> list[tuple[str, float]]:
    """The likeliest next token at the prompt's end through the lens, with its probability, at each depth."""
    return [positions[-1] for positions in lens_map(member, prompt, last=1)[1]]


plain = {role: confirm.prompts(member, "plain") for role, member in members.items()}
three = np.random.default_rng(SEED).choice(n_confirm, 3, replace=False)
examples = [{role: likeliest_by_depth(m, plain[role][k]) for role, m in members.items()} for k in three]

# %% [markdown]
# The likeliest next token by depth, with its probability:

# %%
shown = sorted({0, *range(n_layers // 3, n_layers + 1, max(1, n_layers // 8)), n_layers})
for k, example in zip(three, examples, strict=True):
    cells = {
        role: [f"{row[depth][0]!r} {row[depth][1]:.0%}" for depth in shown] for role, row in example.items()
    }
    display(Markdown(findings.code_span(plain["base"][k])))
    display(pd.DataFrame(cells, index=pd.Index(shown, name="depth")).T)

# %% [markdown]
# What do the two models say on the way, and what at the end?

# %%
late = slice(n_layers - n_layers // 3, None)  # the last third, of layers or of depths


def commonest(role: str, depths: list[int]) -> tuple[str, str]:
    """What the lens names most often in the three examples; and in words how often and how surely."""
    read = [example[role][depth] for example in examples for depth in depths]
    token, times = Counter(token for token, _ in read).most_common(1)[0]
    sure = np.mean([share for other, share in read if other == token])
    name = findings.code_span(repr(token))
    return token, f"{name} ({times} of {len(read)} readings, mean probability {sure:.0%})"


way = {role: commonest(role, range(n_layers)[late]) for role in members}
end = {role: commonest(role, [n_layers]) for role in members}
one_way, two_ends = way["base"][0] == way["distilled"][0], end["base"][0] != end["distilled"][0]
opening = "**Both say the same until the last layers, then they part.** " if one_way and two_ends else ""
Markdown(
    f"{opening}Over the last third of the depths, before the last, the base says {way['base'][1]} and the "
    f"distilled model {way['distilled'][1]}. At the end the base says {end['base'][1]}, the distilled "
    f"model {end['distilled'][1]}."
)

# %% [markdown]
# ## What is read, and against what
#
# What is *chosen* (heads) is chosen on the `explore` split; what is *told* is from `confirm`.
#
# The metric is the **log-odds of stopping**, $\log P(\text{stop}) - \log(1 - P(\text{stop}))$ in nats, over all stop tokens of a model: above zero it stops more likely than not. Beside it stand single tokens, as logits *against the mean of twelve control words* (plain words of like merge rank to the reasoning tokens of notebook 02), since a logit has no zero of its own: the first stop token, and the Wait set, which counts as the mean over its words in logits, as their sum in probability, and by its best word in rank.

# %%
groups = pair.base.groups
stop, wait, control = [groups.stop[0]], list(groups.wait), list(groups.control)
stops = {role: list(member.groups.stop) for role, member in members.items()}  # all of a model


def quoted(ids: list[int]) -> str:
    """Tokens as words in quotation marks."""
    return " ".join(repr(pair.base.tokenizer.decode([token])) for token in ids)


Markdown(f"{n_layers} layers. Wait set: {quoted(wait)}; control words: {quoted(control)}.")

# %% [markdown]
# **Control.** The same words in random order, only the last kept in place. A lens shows *some* curve for any text; what the shuffled prompt shows too is due to the last token, not to a question with its answer.


# %%
def shuffled(member) -> list[str]:
    """The plain prompts of a model with their words in random order, only the last kept in place."""
    bare = [prompt.removeprefix(member.bos) for prompt in plain[member.role]]
    return [member.bos + shuffle_words(text, SEED + k) for k, text in enumerate(bare)]


texts = {(role, "plain"): prompts for role, prompts in plain.items()}
for role, member in members.items():
    texts[role, "template"] = confirm.prompts(member, "template")
    texts[role, "shuffled"] = shuffled(member)

# %% [markdown]
# ## F09 · Where do the two models part, and how does the rise look?
#
# **Question.** By depth, how do the log-odds of stopping grow in each model, through the lens? And the notes' contrast, stop token minus Wait set, $g_k = z_k(\text{stop}) - \overline{z_k(\text{Wait})}$? The models have *parted* from the depth on where their difference stays beyond half its final value; told as a share of all layers, prompt by prompt.

# %% [markdown]
# **Control.** The shuffled prompts. **Rule, made stricter after a first look at the result.** F09 has three parts and holds if all do: (a) the mean parting depth has an interval above 2/3, and above that of the shuffled prompts; (b) an exponential predicts the rise of the stop token's logit on prompts left out better than a line *and* better than a logistic curve, by more than a twentieth of its own error (a difference within that either way decides nothing); (c) over the last third of the layers, attention adds more to that logit than the MLPs do. Its own verdict is by $g$ and the stop token's logit; the same three parts by the log-odds of stopping, with the same thresholds, set before they were read, stand beside it.

# %%
ids = list(dict.fromkeys([*stop, *wait, *control, *stops["base"], *stops["distilled"]]))
at = {
    name: [ids.index(token) for token in some]
    for name, some in {"stop": stop, "Wait": wait, "control": control, **stops}.items()
}
lens_texts = dict(texts)  # prompts by model and form


def read_lens(rows: list[int]) -> dict:
    """Logits, log-probabilities and ranks of the chosen tokens through the lens, [prompt, depth, token]."""
    found = {}
    for (role, form), prompts in lens_texts.items():
        read = lens(members[role], take(prompts, rows), ids)
        found |= {f"{role} {form} {name}": values for name, values in vars(read).items()}
    return found


stored = kept(pair, "03_lens", read_lens, n_confirm, fresh=RECOMPUTE)

# %% [markdown]
# Three readings of it: the log-odds of stopping, and the logits of stop token and Wait set against the control words.


# %%
def stored_lens(role: str, form: str) -> Lens:
    """What was read of one model and form."""
    arrays = [stored[f"{role} {form} {name}"] for name in ("logits", "logprobs", "ranks")]
    return Lens(*map(torch.from_numpy, arrays))


def against_control(read: Lens, name: str) -> np.ndarray:
    """Mean logit of some tokens minus that of the control words, [prompt, depth]."""
    return (read.logits[..., at[name]].mean(-1) - read.logits[..., at["control"]].mean(-1)).numpy()


def odds_of_stopping(read: Lens, role: str) -> np.ndarray:
    """Log-odds of all of a model's stop tokens together, [prompt, depth]."""
    log_p = read.logprobs[..., at[role]].double().logsumexp(-1).clamp(max=-1e-7)
    return (log_p - torch.log(-torch.expm1(log_p))).float().numpy()


seen = {key: stored_lens(*key) for key in lens_texts}
odds = {key: odds_of_stopping(read, key[0]) for key, read in seen.items()}
z_stop = {key: against_control(read, "stop") for key, read in seen.items()}
z_wait = {key: against_control(read, "Wait") for key, read in seen.items()}

# %% [markdown]
# The models part where their curves do:

# %%
gap = {key: z_stop[key] - z_wait[key] for key in seen}
FORMS = ("plain", "template", "shuffled")


def between(curves: dict) -> dict:
    """The base's curve minus the distilled model's, by form."""
    return {form: curves["base", form] - curves["distilled", form] for form in FORMS}


apart, apart_odds = between(gap), between(odds)
parting = {form: stats.settled_at(curves) for form, curves in apart.items()}
parting_odds = {form: stats.settled_at(curves) for form, curves in apart_odds.items()}
parted, parted_odds = (
    {form: stats.bootstrap(depths) for form, depths in some.items()} for some in (parting, parting_odds)
)
rows = {"log-odds of stopping": (apart_odds, parted_odds), "stop token minus Wait set": (apart, parted)}
cells = {}
for name, (curves, depths_apart) in rows.items():
    cells[f"{name}: they part at"] = {form: f"{depths_apart[form]:.2f}" for form in FORMS}
    cells[f"{name}: apart at the end (nats)"] = {
        form: f"{stats.bootstrap(curves[form][:, -1]):.2f}" for form in FORMS
    }
pd.DataFrame(cells).T

# %% [markdown]
# A lens cannot see what is not yet said. So the same question causally: put the base's stream, at one depth and the last token alone, into the distilled model, and let the rest of *its* layers run; and the reverse. From which depth on does the stream carry half of the difference in the log-odds? (Notebook 05 asks about all positions.) **Control.** A stream put into its own model changes nothing (asserted).

# %%
n_patched = min(N_PATCHED, n_confirm)
points = [Node("stream", depth) for depth in range(n_layers + 1)]


def first_two(given):
    """The activations of the first two prompts."""
    return type(given)(**{name: part[:2] for name, part in vars(given).items()})


def exchange(rows: list[int]) -> dict:
    """Each model's log-odds, and their change with the other's stream in it, [prompt, depth]."""
    found, prompts = {}, {role: take(plain[role], rows) for role in members}
    given = {role: activations(member, prompts[role]) for role, member in members.items()}
    for role, member in members.items():
        other = "distilled" if role == "base" else "base"
        found[role] = measure(member, prompts[role], stop_odds(member))
        found[f"into {role}"] = exact_patching(member, prompts[role], given[other], points, stop_odds(member))
        own = exact_patching(
            member, prompts[role][:2], first_two(given[role]), points[::6], stop_odds(member)
        )
        assert float(own.abs().max()) < 1e-3, "its own stream must change nothing"
    return found


# %% [markdown]
# As shares of the difference, by depth:

# %%
exchanged = kept(pair, "03_exchanged", exchange, n_patched, fresh=RECOMPUTE)
difference = exchanged["base"] - exchanged["distilled"]
carried = {
    "distilled": [stats.ratio_of_means(change, difference) for change in exchanged["into distilled"].T],
    "base": [stats.ratio_of_means(-change, difference) for change in exchanged["into base"].T],
}
half_carried = {
    role: next((k for k, share in enumerate(shares) if share.estimate > 0.5), n_layers) / n_layers
    for role, shares in carried.items()
}

# %% [markdown]
# Does the last third of the layers read the same stream alike in both models?

# %%
start = n_layers - n_layers // 3
fed = {role: carried[role][start] for role in members}
alike = all(share.low > 0.5 for share in fed.values())
story = (
    "So the upper layers of both models read a stream much alike: **what differs is what they are fed**."
    if alike
    else "So the upper layers themselves are part of the difference, too."
)
Markdown(
    f"Through the lens the log-odds part at {parted_odds['plain'].estimate:.0%} of the depth; by exchange, "
    f"half of the difference is carried from {half_carried['distilled']:.0%} of the depth on (base's stream "
    f"into the distilled model) and {half_carried['base']:.0%} (the reverse). Exchanged at "
    f"{start / n_layers:.0%} of the depth, the stream carries {fed['distilled']:.0%} and {fed['base']:.0%} "
    f"of it. {story}"
)

# %% [markdown]
# Most figures below draw both models and, dashed, the base on shuffled words:

# %%
depths = list(range(n_layers + 1))
depth_label = "depth (layers passed)"


def by_role(curves: dict, form: str = "plain", *, with_control: bool = True) -> dict:
    """Both models' mean curves in one form, and the base's on shuffled words as a control."""
    drawn = {role: (stats.bands(curves[role, form]), figures.ROLE[role]) for role in members}
    if with_control:
        drawn["base, shuffled"] = stats.bands(curves["base", "shuffled"]), figures.CONTROL
    return drawn


# %% [markdown]
# The lens in both forms, and the exchange:

# %%
into = {"distilled": "base's stream\nin the distilled", "base": "distilled's\nin the base"}
panels = {
    form: {name: (curve[1:], colour) for name, (curve, colour) in drawn.items()}
    for form, drawn in (("plain", by_role(odds)), ("template", by_role(odds, "template", with_control=False)))
}
for (role, name), form in zip(into.items(), ("plain", "template"), strict=True):
    panels[form, 1] = {name: (carried[role][1:], figures.ROLE[role])}
lag = parted_odds["plain"].estimate - half_carried["distilled"]
order = "where" if abs(lag) < 0.05 else "later than" if lag > 0 else "earlier than"
title = f"Through the lens the models part {order} their streams do"
label = ["log-odds of stopping\nthrough the lens (nats)", "share of the difference,\nstream exchanged"]
fig = figures.lines(panels, depths[1:], title=title, xlabel=depth_label, ylabel=label, zero=True, rows=2)
below = f"{note}; exchange n = {n_patched}, plain"
figures.save_figure(fig, "03_odds_by_depth", pair=pair.name, size=(9, 5.4), note=below)

# %% [markdown]
# **Figure 1: the log-odds of stopping by depth.** Above through the lens, each model by its own norm and head: blue the base, orange the distilled model, dashed grey the base on shuffled prompts; above zero the model would rather stop. Below the share of the difference that the other model's stream carries when it is put in at that depth, at the last token. Mean and 95 % bootstrap over prompts.
#
# <details><summary>What it does not show</summary>
#
# That nothing is decided before the lens shows it: the last MLP alone can write many nats in both models (figure 5), which makes a late parting near arithmetic. And an exchanged stream meets earlier positions that it does not come from.
#
# </details>

# %% [markdown]
# ### Which of the two moved?
#
# Probability, logit and rank of each, by depth.


# %%
def log_ranks(read: Lens, name: str) -> np.ndarray:
    """Decimal logarithm of the best rank of some tokens, 1 is the likeliest, [prompt, depth]."""
    return np.log10(read.ranks[..., at[name]].amin(-1).numpy() + 1)


def geometric(interval: stats.Interval) -> stats.Interval:
    """A mean of decimal logarithms as a geometric mean."""
    low, high = 10**interval.low, 10**interval.high
    return stats.Interval(10**interval.estimate, low, high, interval.n)


def trajectory(read: Lens, name: str) -> dict[str, list]:
    """Summed probability, mean logit against control words and best rank of some tokens, by depth."""
    return {
        "probability": stats.bands(read.logprobs[..., at[name]].exp().sum(-1)),
        "logit": stats.bands(against_control(read, name)),
        "rank": [geometric(interval) for interval in stats.bands(log_ranks(read, name))],
    }


# %% [markdown]
# At how many depths does the lens speak of stopping at all?


# %%
def at_the_last(logits: dict) -> str:
    """A logit at the last depth, plain form: on the base, on the distilled, and the paired change."""
    base, distilled = logits["base", "plain"][:, -1], logits["distilled", "plain"][:, -1]
    change = stats.paired(distilled, base)
    return f"from {stats.bootstrap(base)} to {stats.bootstrap(distilled)} (paired change {change})"


is_far = {form: log_ranks(seen["base", form], "stop").mean(0) > 3 for form in ("plain", "template")}
Markdown(
    "**Which of the two moved.** From base to distilled, at the end and in nats above the control words, the "
    f"stop token goes {at_the_last(z_stop)}, the Wait set {at_the_last(z_wait)}. The stop token's geometric "
    f"mean rank on the base is beyond 1000 at {is_far['plain'].sum()} of {len(depths)} depths: there the "
    "lens does not speak of stopping at all."
)

# %% [markdown]
# **What it does not show.** That nothing about stopping is decided before the lens sees it: where the stop token is not among the thousand likeliest, its curve is about words that nobody would say, and what earlier layers prepare for the last ones is hidden. Notebook 05 asks that causally.


# %%
def trajectory_panels(form: str) -> dict:
    """Panels of probability, logit and rank in one form, by model."""
    panels = {(role, row): {} for row in ("probability", "logit", "rank") for role in members}
    for role in members:
        lines = {
            "stop": (trajectory(seen[role, form], "stop"), figures.STOP),
            "Wait set": (trajectory(seen[role, form], "Wait"), figures.WAIT),
            "stop, shuffled": (trajectory(seen[role, "shuffled"], "stop"), figures.CONTROL),
        }
        for name, (curves, colour) in lines.items():
            for row, values in curves.items():
                panels[role, row][name] = values, colour
    return panels


# %%
near = len(depths) - is_far["plain"].sum()
title = f"The base's stop token is among the thousand likeliest at {near} of {len(depths)} depths"
fig = figures.lines(
    trajectory_panels("plain"),
    depths,
    title=title,
    xlabel=depth_label,
    ylabel=["probability", "logit against\ncontrol words (nats)", "rank, 1 = likeliest"],
    zero=True,
    rows=3,
    log_rows=(2,),
)
figures.save_figure(fig, "03_plain_trajectories", pair=pair.name, note=note)

# %% [markdown]
# **Figure 2: probability, logit and rank by depth, plain form.** Black the stop token, wine the Wait set (sum of probabilities, mean logit, best rank), dashed grey the stop token on shuffled prompts. Ranks as geometric means.
#
# <details><summary>What it does not show</summary>
#
# That the model "believes" what the lens says half way: a probability near one in early layers is the last token talking.
#
# </details>

# %% [markdown]
# ### Is it the stream or the head?
#
# **Question.** Each model has a stream and a head (final norm and unembedding). Is the parting in the stream? Metric: the final log-odds of stopping with each stream read by each head. (On `smol` the adapter leaves head and norm as they were but for the rows of the two think tags.) **Control.** The head exchanged alone: if that alone made the difference, the stream would not matter.

# %%
streams = {key: residuals(members[key[0]], texts[key]).cpu() for key in texts if key[1] != "template"}
other = {"base": pair.distilled, "distilled": pair.base}
own_head = {role: odds[role, "plain"][:, -1] for role in members}
other_head = {}
for role in members:  # the base's stop tokens for both, since the head is what is exchanged
    read = read_stream(other[role], streams[role, "plain"][:, -1], ids)
    other_head[role] = odds_of_stopping(read, "base")
stream_alone = stats.paired(own_head["base"], other_head["distilled"])
head_alone = stats.paired(own_head["base"], other_head["base"])
Markdown(
    f"Read by the base's head alone, the two streams end {stream_alone} nats of log-odds apart; "
    f"exchanging the base's head changes its log-odds by {head_alone}."
)

# %% [markdown]
# ### How does the last token move?
#
# **Question.** Over the middle layers, how does the stream at the last token grow and turn, and when does it gain on the stop token? Metrics by depth: its norm; the cosine to its own final direction; the angle that each layer turns it by; the change of the stop token's logit (against control words) that comes with each layer. **Control.** Shuffled prompts of the same last token; beside them neutral statements, which end in a period and answer nothing.

# %%
neutral = neutral_sentences(N_NEUTRAL)
for role, member in members.items():
    streams[role, "neutral"] = residuals(member, [member.prompt(text, "plain") for text in neutral]).cpu()
    read = read_stream(member, streams[role, "neutral"], ids, ranked=False)
    z_stop[role, "neutral"] = against_control(read, "stop")

# %% [markdown]
# Length, direction, turn and gain:


# %%
def motion(role: str, form: str) -> dict[str, np.ndarray]:
    """Norm, cosine to the end, degrees turned and nats gained by stop at each layer, [prompt, layer]."""
    stream, cosine = streams[role, form], torch.nn.functional.cosine_similarity
    turn = cosine(stream[:, 1:], stream[:, :-1], dim=-1).clamp(-1, 1).arccos().rad2deg()
    return {
        "norm of the stream": stream[:, 1:].norm(dim=-1).numpy(),
        "cosine to\nfinal direction": cosine(stream[:, 1:], stream[:, -1:], dim=-1).numpy(),
        "turn per layer\n(degrees)": turn.numpy(),
        "gain of stop\nper layer (nats)": np.diff(z_stop[role, form]),
    }


half = n_layers // 2
gains = {role: stats.bootstrap(np.diff(z_stop[role, "plain"])[:, half:].sum(1)) for role in members}
Markdown(
    f"Over the second half of the layers the stop token gains {gains['base']} nats on the base and "
    f"{gains['distilled']} on the distilled model."
)

# %% [markdown]
# Left after answers, right after statements that answer nothing:

# %%
motions = {key: motion(*key) for key in streams}
quantities = list(motions["base", "plain"])
panels = {}
for quantity in quantities:
    curves = {key: values[quantity] for key, values in motions.items()}
    panels["combined prompts", quantity] = by_role(curves)
    panels["neutral statements", quantity] = by_role(curves, "neutral", with_control=False)
title = f"Over the second half of the layers the base's stop token gains {gains['base'].estimate:.0f} nats"
fig = figures.lines(
    panels, depths[1:], title=title, xlabel=depth_label, ylabel=quantities, rows=4, log_rows=(0,)
)
figures.save_figure(fig, "03_last_token_moves", pair=pair.name, note=f"{note}; {len(neutral)} statements")

# %% [markdown]
# **Figure 3: the last token's way through the layers.** From top: length of the stream, cosine to its own end, angle turned by each layer, and what the stop token gains. Blue the base, orange the distilled model, dashed grey the base on shuffled prompts.
#
# <details><summary>What it does not show</summary>
#
# Which component turned the stream: figure 5. The first layers of many models carry a few very large coordinates, which dominate norm and cosine there.
#
# </details>

# %% [markdown]
# ### Exponential, linear or logistic?
#
# **Question.** Which of three shapes predicts the rise of the stop token's logit over the second half of the layers? Each is fitted to the mean curve of seven eighths of the prompts and scored on each prompt left out: $\overline{(y_k - \hat y_k)^2}$, both centred over depth. The shapes: $a + bx$; $a + b\,\frac{e^{cx}-1}{e^{c}-1}$ with $c>0$; $a + b\,\sigma(c(x-d))$. The line has two parameters, the exponential three, the logistic four. A logistic curve that bends only beyond the last layer *is* an exponential, so near ties are expected.
#
# A logit on a line is a probability that grows exponentially. So the claim is asked of the logit, and the same is printed for P(stop) and its log-odds. **Control.** The same three fits on shuffled prompts.

# %%
rising = {
    "logit, base": z_stop["base", "plain"],
    "logit, distilled": z_stop["distilled", "plain"],
    "P(stop), base": expit(odds["base", "plain"]),
    "logit, base, shuffled": z_stop["base", "shuffled"],
    "log-odds, base": odds["base", "plain"],
}
rising = {name: curves[:, half:] for name, curves in rising.items()}
errors = {name: stats.held_out_errors(curves) for name, curves in rising.items()}
best = {name: min(error, key=lambda shape: error[shape].mean()) for name, error in errors.items()}
beyond_exponential = {
    name: {rival: stats.paired(error[rival], error["exponential"]) for rival in ("linear", "logistic")}
    for name, error in errors.items()
}

# %% [markdown]
# Mean squared error on prompts left out (nats², or squared probability). A positive difference favours the exponential:

# %%
rows = {}
for name, error in errors.items():
    rows[name] = {shape: f"{values.mean():.3g}" for shape, values in error.items()}
    for rival, difference in beyond_exponential[name].items():
        rows[name][f"{rival} − exponential"] = f"{difference:.3g}"
    rows[name]["best"] = best[name]
pd.DataFrame(rows).T

# %% [markdown]
# How much of the rise comes with the last layer alone?

# %%
to_last, to_middle = (z_stop["base", "plain"][:, -1] - z_stop["base", "plain"][:, at] for at in (-2, half))
last_layer = stats.ratio_of_means(to_last, to_middle)
step = "A step: " if last_layer.estimate > 0.5 else ""
title = f"{step}{last_layer.estimate:.0%} of the base's rise comes with the last layer"
shades = {"linear": figures.CONTROL, "exponential": figures.WAIT, "logistic": figures.THIRD}
panels = {
    name: (stats.bands(curves), {shape: stats.fit_shape(curves.mean(0), shape) for shape in stats.SHAPES})
    for name, curves in rising.items()
}
label = "nats, or probability"
fig = figures.fits(panels, depths[half:], shades, title=title, xlabel=depth_label, ylabel=label)
below = f"{note}, plain"
figures.save_figure(fig, "03_shape_of_rise", pair=pair.name, key=shades, size=(9.6, 3.2), note=below)

# %% [markdown]
# **Figure 4: three shapes fitted to the rise.** Dots: mean with 95 % bootstrap; dashed grey a line, broad wine an exponential, thin indigo a logistic curve, here fitted to all prompts. Where wine and indigo coincide, the logistic has become an exponential: it bends only beyond the last layer. Held-out errors stand in the table above.
#
# <details><summary>What it does not show</summary>
#
# A mechanism. The best of three smooth shapes can be best and still wrong, as the dots that leave all three show. Where one layer brings most of the rise, the word "growth" says too much: that is a step.
#
# </details>

# %% [markdown]
# ### Attention or MLP?
#
# **Question.** What does each layer's attention and MLP write towards the stop token? **Direct logit attribution**: every component adds a vector to the stream; with the final norm's scale frozen at its real value and its weight folded into the unembedding, the logit is the exact sum of their projections. Metric: contribution to the stop token's logit against the control words, in nats. That the parts sum to the true logit is asserted here, for both models, on eight prompts, within $10^{-3}$. It tells direct effects only: what a layer writes for later layers to read is not in it (and components can erase each other's writing, Janiak et al.).


# %%
def parts_of(member, prompts: list[str], metric) -> dict:
    """What layers and heads write towards a metric, with heads checked against their layers."""
    parts = attribute(member, prompts, metric)
    assert (parts.heads.sum(-1) + parts.attention_bias - parts.attention).abs().max() < 1e-3
    return {name: getattr(parts, name) for name in ("total", "attention", "mlp", "heads")}


# %% [markdown]
# **Control.** The same sums on shuffled prompts.


# %%
def read_rise(rows: list[int]) -> dict:
    """What each layer's attention and MLP write towards the stop token, [prompt, layer]; on the base also
    towards the log-odds of stopping, along their gradient at each prompt."""
    found = {}
    for role, form in keys:
        member, prompts = members[role], take(texts[role, form], rows)
        metric = logit_difference(member, stop, control)
        parts = parts_of(member, prompts, metric)
        true = measure(member, prompts[:8], metric)
        assert (parts["total"][:8] - true).abs().max() < 1e-3, "the parts must sum to the logit"
        found |= {f"{form} {role} {name}": parts[name] for name in ("attention", "mlp")}
    parts = parts_of(pair.base, take(plain["base"], rows), stop_odds(pair.base))
    return found | {f"odds {name}": parts[name] for name in ("attention", "mlp")}


keys = [("base", "plain"), ("distilled", "plain"), ("base", "shuffled")]
rise = kept(pair, "03_rise", read_rise, n_confirm, fresh=RECOMPUTE)
attention = {(role, form): rise[f"{form} {role} attention"] for role, form in keys}
mlp = {(role, form): rise[f"{form} {role} mlp"] for role, form in keys}
lead = {key: stats.paired(attention[key][:, late].sum(1), mlp[key][:, late].sum(1)) for key in keys}
lead_odds = stats.paired(rise["odds attention"][:, late].sum(1), rise["odds mlp"][:, late].sum(1))

# %% [markdown]
# The parts of F09's rule, and its verdict:


# %%
def rule_of_f09(depth, later, curve: str, lead_of) -> list[findings.Part]:
    """The three parts of F09's rule, for one metric."""
    margin = 0.05 * float(errors[curve]["exponential"].mean())
    above_0, bent = findings.Rule("above", 0), findings.Rule("above", 0, margin)
    return [
        findings.Part(f"(a) parting depth, {curve}", depth, findings.Rule("above", 2 / 3)),
        findings.Part(f"(a) later than on shuffled words, {curve}", later, above_0),
        *(
            findings.Part(f"(b) held-out error, {rival} minus exponential, {curve}", error, bent)
            for rival, error in beyond_exponential[curve].items()
        ),
        findings.Part(f"(c) attention minus MLP over the last third, nats, {curve}", lead_of, above_0),
    ]


later, later_odds = (stats.paired(some["plain"], some["shuffled"]) for some in (parting, parting_odds))
rules = rule_of_f09(parted["plain"], later, "logit, base", lead["base", "plain"])
by_odds = rule_of_f09(parted_odds["plain"], later_odds, "log-odds, base", lead_odds)

# %% [markdown]
# Beside them: the best shape, the last layer's share, and the distilled model.

# %%
details = {
    "best shape of the base's logit": best["logit, base"],
    "share of the rise that the last layer brings": last_layer,
    "attention minus MLP over the last third, distilled, nats": lead["distilled", "plain"],
    "depth from which the base's stream, put into the distilled model, carries half": half_carried[
        "distilled"
    ],
    "the reverse": half_carried["base"],
}
F09 = findings.record(
    pair,
    "F09",
    notebook="03_logit_lens",
    quantity="relative depth from which the models' stop − Wait gaps stay more than half their final "
    "distance apart, plain form",
    unit="of all layers",
    rules=rules,
    stopping=by_odds,
    control=("the same words shuffled", parted["shuffled"]),
    details=details,
)
Markdown(findings.sentence(F09))

# %% [markdown]
# By how much, on both models and on shuffled words?

# %%
written = {key: (attention[key][:, late].sum(1).mean(), mlp[key][:, late].sum(1).mean()) for key in keys}
Markdown(
    "The parts sum to the true logit on both models. Over the last third attention writes "
    f"{written['base', 'plain'][0]:+.1f} nats towards stopping on the base, the MLPs "
    f"{written['base', 'plain'][1]:+.1f}; on the distilled {written['distilled', 'plain'][0]:+.1f} and "
    f"{written['distilled', 'plain'][1]:+.1f}. Attention minus MLP: base {lead['base', 'plain']}, "
    f"distilled {lead['distilled', 'plain']}, base on shuffled prompts {lead['base', 'shuffled']} nats."
)

# %% [markdown]
# Layer by layer:

# %%
attention_leads = lead["base", "plain"].estimate > 0
writers, rest = ("attention writes", "the MLPs") if attention_leads else ("the MLPs write", "attention")
more = f"{abs(lead['base', 'plain'].estimate):.0f} nats more"
title = f"In the base's last third {writers} {more} towards stopping than {rest}"
panels = {"attention": by_role(attention), "MLP": by_role(mlp)}
label = "contribution to stop\nagainst control words (nats)"
fig = figures.lines(panels, depths[:-1], title=title, xlabel="layer", ylabel=label, zero=True)
figures.save_figure(fig, "03_attention_and_mlp", pair=pair.name, note=f"{note}, plain")

# %% [markdown]
# **Figure 5: what each layer writes towards the stop token.** Blue the base, orange the distilled model, dashed grey the base on shuffled prompts; 95 % bootstrap over prompts.
#
# <details><summary>What it does not show</summary>
#
# Indirect effects: an attention layer may matter by what an MLP later makes of it. Notebook 05 patches.
#
# </details>

# %% [markdown]
# ## F10 · What is the final norm's part?
#
# **Question.** The lens divides each depth's stream by its own length. So a stream that only grew, without turning, would leave the lens unmoved, and without that division its logits would grow. How much of the rise that one sees without the norm is mere growth? Let $z_k$ be the stop token's logit (against control words) with the norm, $y_k = z_k\, r_k / r_L$ the same with the scale frozen at the last depth ($r$: root mean square of the stream), $m$ the middle. Metric: from which depth on the rise since the middle stays beyond half its final value, with the norm and with the scale frozen; prompt by prompt, in shares of the second half. If the norm shapes the rise, the two depths differ. Told beside it: rescaling alone would bring $y_m$ to $z_m$, which is the share $(z_m - y_m)/(y_L - y_m)$ of the rise (negative where the stop token lies below the control words in the middle).

# %% [markdown]
# **Control.** Shuffled prompts. **Rule, made stricter after a first look at the result.** F10 holds if the difference of the two depths on the base, plain form, has an interval wholly more than 0.05 from zero; it does not hold if it lies within ±0.05.


# %%
def with_frozen_scale(role: str, form: str) -> np.ndarray:
    """The stop token's logit against control words, the stream's scale at all depths that of the last one."""
    size = streams[role, form].pow(2).mean(-1).sqrt().numpy()
    return z_stop[role, form] * size / size[:, -1:]


def half_of_rise(curves: np.ndarray) -> np.ndarray:
    """From where, in shares of the second half, each prompt's rise stays beyond half its final value."""
    return stats.settled_at(curves[:, half:] - curves[:, [half]])


frozen = {key: with_frozen_scale(*key) for key in keys}
delayed = {key: stats.paired(half_of_rise(frozen[key]), half_of_rise(z_stop[key])) for key in keys}

# %% [markdown]
# What mere growth would bring, and the base without the norm's learned weight:

# %%
z, y = z_stop["base", "plain"], frozen["base", "plain"]
by_growth, in_all = z[:, half] - y[:, half], y[:, -1] - y[:, half]
read = read_stream(pair.base, streams["base", "plain"], ids, norm="scale", ranked=False)
without_weight = against_control(read, "stop")
frozen_errors = stats.held_out_errors(y[:, half:])
norms = streams["base", "plain"].norm(dim=-1)
Markdown(
    f"With the scale frozen the base's stop token rises by {in_all.mean():.1f} nats over the second half; "
    f"growth without turning would give {by_growth.mean():+.1f}."
)

# %% [markdown]
# The verdict:

# %%
details = {
    "distilled": delayed["distilled", "plain"],
    "share of the rise that rescaling alone explains": stats.ratio_of_means(by_growth, in_all),
    "growth of the stream from the middle to the end, times": float((norms[:, -1] / norms[:, half]).mean()),
    "best shape with the norm": best["logit, base"],
    "best shape with the scale frozen": min(frozen_errors, key=lambda shape: frozen_errors[shape].mean()),
    "stop token above the control words at the end, nats": stats.bootstrap(z[:, -1]),
    "the same without the norm's learned weight": stats.bootstrap(without_weight[:, -1]),
}
part = findings.Part("difference of the depths, base", delayed["base", "plain"], findings.Rule("away", 0.05))
F10 = findings.record(
    pair,
    "F10",
    notebook="03_logit_lens",
    quantity="depth by which the stop token has made half of its rise, scale frozen minus with the norm, "
    "base",
    unit="of the second half of the layers",
    rules=[part],
    control=("the same words shuffled", delayed["base", "shuffled"]),
    details=details,
)
Markdown(findings.sentence(F10))

# %% [markdown]
# The three readings side by side:

# %%
panels = {
    "with the norm": by_role(z_stop),
    "scale frozen at the end": by_role(frozen),
    "scale only, no weight": {"base": (stats.bands(without_weight), figures.BASE)},
}
wheres = {
    "holds": "at another depth",
    "does not hold": "at the same depth",
    "inconclusive": "near the same depth",
}
title = f"With and without the final norm's scale, half of the stop token's rise comes {wheres[part.verdict]}"
label = "logit of stop against\ncontrol words (nats)"
fig = figures.lines(panels, depths, title=title, xlabel=depth_label, ylabel=label, zero=True)
figures.save_figure(fig, "03_norm", pair=pair.name, size=(9, 3.4), note=f"{note}, plain")

# %% [markdown]
# **Figure 6: the same rise with the norm at each depth, with the last depth's scale at all depths, and, on the base, without the norm's learned weight.** Blue the base, orange the distilled model, dashed grey the base on shuffled prompts.
#
# <details><summary>What it does not show</summary>
#
# That the model itself uses the norm this way: only the last depth is ever normed and read. It shows how the picture one draws depends on the norm one puts into it.
#
# </details>

# %% [markdown]
# ## F11 · Does the difference of the activations name reasoning tokens?
#
# **Question.** Subtract the base's stream from the distilled model's, on the same prompt, token and depth. Which tokens does that difference point to? Metric: the head turns the difference into a number for each word of the vocabulary; as z-scores over the vocabulary, the mean of the reasoning tokens (notebook 02) and the Wait set minus the mean of the control words, averaged over the last third of the depths.

# %% [markdown]
# **Controls.** Random directions: a z-score does not depend on length, so they count as of the same norm. And the same difference on neutral statements: what shows up there too is not about stopping after an answer.

# %%
words = [*dict.fromkeys([*groups.reasoning, *wait])]


def word_score(directions: torch.Tensor) -> np.ndarray:
    """Mean z-score of reasoning tokens and Wait set minus control words; directions: [..., d_model]."""
    flat = directions.reshape(-1, directions.shape[-1])
    scores = vocabulary_scores(pair.distilled, flat, [*words, *control])
    score = scores[:, : len(words)].mean(1) - scores[:, len(words) :].mean(1)
    return score.reshape(directions.shape[:-1]).numpy()


width = pair.distilled.config.hidden_size
random_directions = torch.randn(N_RANDOM, width, generator=torch.Generator().manual_seed(SEED))
low, high = np.quantile(word_score(random_directions), [0.025, 0.975])

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F11 holds if the interval lies above the 97.5th percentile of single random directions *and* wholly above that of the neutral statements; it does not hold if it lies below either.

# %%
difference = {form: streams["distilled", form] - streams["base", form] for form in ("plain", "neutral")}
scores = {form: word_score(directions[:, 1:]) for form, directions in difference.items()}
answers, statements = (stats.bootstrap(scores[form][:, late].mean(1)) for form in ("plain", "neutral"))
beyond = stats.Interval(
    answers.estimate - statements.estimate,
    answers.low - statements.high,
    answers.high - statements.low,
    answers.n,
)  # above 0 where the two intervals do not meet
rules = [
    findings.Part("against random directions", answers, findings.Rule("above", round(float(high), 3))),
    findings.Part("beyond neutral statements, interval against interval", beyond, findings.Rule("above", 0)),
]

# %% [markdown]
# And stopping itself: does the difference point *away* from the stop tokens, below the 2.5th percentile of random directions and below the neutral statements? That is the same rule with its sign turned, set before it was read.


# %%
def stop_score(directions: torch.Tensor) -> np.ndarray:
    """Mean z-score of the distilled model's stop tokens minus control words; directions: [..., d_model]."""
    flat = directions.reshape(-1, directions.shape[-1])
    scores = vocabulary_scores(pair.distilled, flat, [*stops["distilled"], *control])
    score = scores[:, : len(stops["distilled"])].mean(1) - scores[:, len(stops["distilled"]) :].mean(1)
    return score.reshape(directions.shape[:-1]).numpy()


least = float(np.quantile(stop_score(random_directions), 0.025))
away = {form: stats.bootstrap(stop_score(d[:, 1:])[:, late].mean(1)) for form, d in difference.items()}
plain_away, neutral_away = away["plain"], away["neutral"]
below = stats.Interval(
    plain_away.estimate - neutral_away.estimate,
    plain_away.low - neutral_away.high,
    plain_away.high - neutral_away.low,
    plain_away.n,
)
by_odds = [
    findings.Part(
        "stop tokens, against random directions", plain_away, findings.Rule("below", round(least, 3))
    ),
    findings.Part("stop tokens, beyond neutral statements", below, findings.Rule("below", 0)),
]

# %% [markdown]
# The verdict, with the last depth beside it:

# %%
details = {
    f"97.5th percentile of {N_RANDOM} random directions": float(high),
    "their 2.5th percentile": float(low),
    "at the last depth, combined prompts": stats.bootstrap(scores["plain"][:, -1]),
    "at the last depth, neutral statements": stats.bootstrap(scores["neutral"][:, -1]),
}
F11 = findings.record(
    pair,
    "F11",
    notebook="03_logit_lens",
    quantity="z-score of reasoning tokens and Wait set minus control words in the activation difference, "
    "last third of the depths",
    unit="standard deviations of the vocabulary",
    rules=rules,
    stopping=by_odds,
    control=("the same difference on neutral statements (n counts statements)", statements),
    details=details,
)
Markdown(findings.sentence(F11))

# %% [markdown]
# The tokens that the mean difference points to, and away from, by depth; beside them the same on neutral statements and a random direction. Written words are what the head would say; nothing was selected.

# %%
shown = sorted({*range(n_layers // 3, n_layers + 1, max(1, n_layers // 10)), n_layers})
mean = {form: directions.mean(0)[shown] for form, directions in difference.items()}
columns = {
    "towards, combined prompts": mean["plain"],
    "away from, combined prompts": -mean["plain"],
    "towards, neutral statements": mean["neutral"],
    "towards, a random direction": random_directions[: len(shown)],
}
cells = {}
for name, directions in columns.items():
    cells[name] = [" ".join(map(repr, tokens)) for tokens in promoted(pair.distilled, directions, k=8)]
pd.DataFrame(cells, index=pd.Index(shown, name="depth"))

# %% [markdown]
# By depth:

# %%
middle = word_score(random_directions).mean()
panels = {
    "": {
        "combined prompts": (stats.bands(scores["plain"]), figures.DISTILLED),
        "neutral statements": (stats.bands(scores["neutral"]), figures.THIRD),
        "random directions": ([stats.Interval(middle, low, high, N_RANDOM)] * n_layers, figures.CONTROL),
    }
}
how = "more" if answers.estimate > statements.estimate else "no more"
title = f"The difference points to reasoning tokens {how} after answers than after neutral statements"
label = "reasoning tokens − control words\n(standard deviations)"
fig = figures.lines(panels, depths[1:], title=title, xlabel=depth_label, ylabel=label, zero=True)
figures.save_figure(
    fig, "03_activation_difference", pair=pair.name, note=f"{note}, plain; {len(neutral)} statements"
)

# %% [markdown]
# **Figure 7: what the difference of the streams points to.** Orange on combined prompts, indigo on neutral statements, grey the middle 95 % of single random directions.
#
# <details><summary>What it does not show</summary>
#
# That this difference *causes* the words. Random directions are an easy null, since real streams are far from isotropic; a mean over all these tokens is not a name either: the table shows what stands at the top.
#
# </details>

# %% [markdown]
# ## Which heads write the difference?
#
# **Question.** Which query heads write more towards stopping in one model than in the other? Metric: direct contribution to the log-odds of stopping, along their gradient in each model, distilled minus base, per head. The strongest by absolute mean are chosen on `explore`, told on `confirm`.


# %%
def read_heads(rows: list[int]) -> dict:
    """What layers and heads write to the log-odds on confirm, and each head's change on explore."""
    found, heads = {}, {}
    for role, member in members.items():
        parts = parts_of(member, take(plain[role], rows), stop_odds(member))
        found |= {f"{role} {name}": part for name, part in parts.items()}
        prompts = take(explore.prompts(member, "plain"), rows)
        heads[role] = parts_of(member, prompts, stop_odds(member))["heads"]
    return found | {"explore": heads["distilled"] - heads["base"]}


contrast = kept(pair, "03_heads", read_heads, n_confirm, n_explore, fresh=RECOMPUTE)
by_head = {role: contrast[f"{role} heads"] for role in members}
shift = by_head["distilled"] - by_head["base"]
mean_shift = shift.mean(0)

# %% [markdown]
# **Controls.** As many random heads; all heads of `confirm` are tested by flipping signs over prompts, corrected over layers × heads (Benjamini-Hochberg).

# %%
on_explore = torch.from_numpy(contrast["explore"].mean(0))
n_heads = on_explore.shape[1]
strongest = on_explore.flatten().abs().argsort(descending=True)[:TOP_HEADS].tolist()
others = [k for k in range(on_explore.numel()) if k not in strongest]
drawn = np.random.default_rng(SEED).choice(others, min(TOP_HEADS, len(others)), replace=False)
top = [divmod(k, n_heads) for k in strongest]
random_heads = [divmod(int(k), n_heads) for k in drawn]
p = stats.false_discovery(stats.sign_flip_p(shift.reshape(n_confirm, -1)))

# %% [markdown]
# Every head goes to a table:

# %%
table = pd.DataFrame(
    {
        "layer": np.repeat(range(n_layers), n_heads),
        "head": np.tile(range(n_heads), n_layers),
        **{role: heads.mean(0).flatten() for role, heads in by_head.items()},
        "p corrected": p,
    }
)
write_text(data_dir(pair.name) / "03_heads.csv", table.to_csv(index=False, float_format="%.4f"))

# %% [markdown]
# How much of the fall is attention's, and how many heads take part?

# %%
fall = stats.bootstrap(apart_odds["plain"][:, -1])
sums = {
    kind: stats.bootstrap((contrast[f"distilled {kind}"] - contrast[f"base {kind}"]).sum(1))
    for kind in ("attention", "mlp")
}
compared = {"chosen": top, "random": random_heads}
move = {what: np.mean([abs(mean_shift[at]) for at in heads]) for what, heads in compared.items()}
Markdown(
    f"From base to distilled the log-odds of stopping fall by {fall} nats. Along their gradients attention "
    f"layers write {sums['attention']} nats of change, MLPs {sums['mlp']} (a gradient is local: the sum need "
    f"not be the fall). {np.mean(p < 0.05):.0%} of {p.size} heads differ (corrected p < 0.05), most by "
    f"little: "
    f"the median size is {np.median(np.abs(mean_shift)):.3f} nats. The {len(top)} heads chosen on explore "
    f"move by {move['chosen']:.2f} nats each, random ones by {move['random']:.2f}."
)

# %% [markdown]
# All heads of both models, and their difference:

# %%
maps = {role: heads.mean(0) for role, heads in by_head.items()} | {"distilled − base": mean_shift}
n_late = sum(layer >= late.start for layer, _ in top)
title = f"{n_late} of the {len(top)} heads whose writing changed most lie in the last third of the layers"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="nats")
figures.save_figure(fig, "03_heads_map", pair=pair.name, size=(8.2, 4.2), note=f"{note}, plain")

# %% [markdown]
# **Figure 8: direct contribution of every query head to the log-odds of stopping.** Red towards stopping, blue away from it; means over prompts, one scale. The heads that the title counts were chosen on explore; figure 9 shows them with intervals.
#
# <details><summary>What it does not show</summary>
#
# The spread over prompts, and what heads do by way of later layers.
#
# </details>


# %%
def head_rows(values: np.ndarray, colour: str) -> list:
    """Label, interval and colour of the chosen heads' contributions, then of the random ones in grey."""
    heads = [(at, "", colour) for at in top] + [(at, "random ", figures.CONTROL) for at in random_heads]
    return [
        (f"{prefix}L{layer}H{head}", stats.bootstrap(values[:, layer, head]), shade)
        for (layer, head), prefix, shade in heads
    ]


both = [head_rows(heads, figures.ROLE[role]) for role, heads in by_head.items()]
panels = {"each model": [*both[0], *both[1]], "distilled − base": head_rows(shift, figures.THIRD)}
title = f"The heads chosen on explore change by {move['chosen']:.2f} nats each, up and down"
label = "contribution to the log-odds of stopping (nats)"
fig = figures.interval_rows(panels, title=title, unit=label, zero=True)
figures.save_figure(fig, "03_top_heads", pair=pair.name, note=f"{note}, plain")

# %% [markdown]
# **Figure 9: the heads whose writing changed most.** Left each model (blue the base, orange the distilled; grey both), right the difference (indigo triangles), with random heads as grey squares; chosen on explore, shown on confirm; 95 % bootstrap over prompts.
#
# <details><summary>What it does not show</summary>
#
# Whether the head changed or what it reads did: its input also differs between the models.
#
# </details>


# %%
def attended(prompt: int, heads: list[tuple[int, int]]) -> tuple[list[str], torch.Tensor]:
    """Tokens of one prompt, the last first, and what both models attend to from the last, [token, column]."""
    read = {role: attention_pattern(m, texts[role, "plain"][prompt], heads) for role, m in members.items()}
    length = min(len(tokens) for tokens, _ in read.values())  # without the distilled model's BOS
    tokens = [repr(token)[1:-1].replace("$", r"\$") for token in read["base"][0][-length:]]
    patterns = [read[role][1][k, -length:] for k in range(len(heads)) for role in members]
    return tokens[::-1], torch.stack(patterns, dim=1).flip(0)


looked_at = [top[0], top[1], random_heads[0]]
two = np.random.default_rng(SEED + 1).choice(n_confirm, 2, replace=False)
patterns = {f"prompt {number}": attended(k, looked_at) for number, k in enumerate(two, start=1)}

# %% [markdown]
# Two prompts, two heads and a random one:

# %%
names = [f"L{layer}H{head}" for layer, head in looked_at]
names[-1] += ", random"
title = "What the last token attends to, in the two heads whose writing changed most and a random one"
fig = figures.heat_maps(
    {name: weights for name, (_, weights) in patterns.items()},
    title=title,
    xlabel="model and head",
    ylabel="token of the prompt, read downwards",
    unit="attention of the last token",
    columns=[f"{role} {name}" for name in names for role in members],
    names={name: tokens for name, (tokens, _) in patterns.items()},
    diverging=False,
)
size = (7.6, 2.2 + 0.15 * max(len(tokens) for tokens, _ in patterns.values()))
figures.save_figure(
    fig, "03_attention", pair=pair.name, size=size, note="two combined prompts, confirm, plain"
)

# %% [markdown]
# **Figure 10: attention of the last token, two prompts.** Columns: two heads of figure 9 and a random one, in both models; rows: the prompt's tokens, the first on top. Two prompts are an illustration, not a measurement.
#
# <details><summary>What it does not show</summary>
#
# That a head *uses* what it looks at: a head that rests on the first token often writes nothing.
#
# </details>

# %% [markdown]
# ## Try it
#
# Choose a prompt, a form, a model and the tokens to follow. The map shows the likeliest next token by depth and position, the curves below follow the chosen tokens at the last position. Figure 11 is the same for readers without a kernel.

# %%
tokens, rows = lens_map(pair.distilled, texts["distilled", "plain"][two[0]], last=8)
shown = sorted({*range(0, n_layers, max(1, n_layers // 10)), n_layers})
token, share = rows[-1][-1]
title = (
    f"The distilled model through the lens: after {tokens[-1]!r} it would end with {token!r} ({share:.0%})"
)
label = "probability of the likeliest token"
fig = figures.token_map(tokens, [rows[k] for k in shown], list(map(str, shown)), title=title, unit=label)
figures.save_figure(fig, "03_lens_map", pair=pair.name, note="one combined prompt, confirm, plain")

# %% [markdown]
# **Figure 11: one prompt through the lens.** Column: a token of the prompt; row: depth; cell: the token that would come next, the darker the surer. Dots stand for spaces, a box for a token that is half a character or that the figure's fonts lack.
#
# <details><summary>What it does not show</summary>
#
# More than one prompt, and tokens that are second.
#
# </details>

# %%
explorers.lens_explorer(pair)

# %% [markdown]
# ## Takeaway

# %%
step = F09["details"]["share of the rise that the last layer brings"]["estimate"]
how = "more strongly than" if answers.estimate > statements.estimate else "no more strongly than"
reader = (
    "feed their upper layers differently"
    if alike
    else "differ in what they feed their upper layers and in those"
)
Markdown(
    f"Read through the lens the models part about stopping only at {parted_odds['plain'].estimate:.0%} of "
    f"the depth; the last layer alone brings {step:.0%} of the stop token's late rise. Put into the "
    f"other model, the stream carries half of the difference from "
    f"{half_carried['distilled']:.0%} of the depth "
    f"on: the two models {reader}. What the fine-tuning added to the activations points to reasoning words, "
    f"but {how} after sentences that answer nothing."
)

# %% [markdown]
# Back: [02_logits](02_logits.ipynb). Next: [04_value_vectors](04_value_vectors.ipynb) asks whether the weights changed, and which neurons write "stop" and "Wait".
