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
# **Evidence.** The gap between stop token and Wait set by depth (figure 1), the test of its shape (figure 6), the exact sum of what every layer and head writes (figures 7, 10, 11).
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

# %% jupyter={"source_hidden": true} tags=["claim"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, stats
from helpers.generation import load_combined
from helpers.pairs import load_pair
from helpers.prompts import neutral_sentences, shuffle_words
from helpers.patching import attribute
from helpers.readouts import (
    Lens, attention_pattern, lens, lens_map, next_logits, promoted, read_stream, residuals, vocabulary_scores,
)  # fmt: skip
from helpers.store import data_dir, kept, take, write_text

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F09", "F10", "F11"))

# %% [markdown]
# ## The prompts, and what is read
#
# The prompts are the combined ones of notebook 02: question, "Just give the answer.", the base's own complete answer. All is read at the last token, the end of that answer. What is *chosen* (heads) is chosen on the `explore` split; what is *told* is from `confirm`.
#
# The **residual stream** is the running sum that every layer reads from and adds to. The **logit lens** (nostalgebraist 2020) takes it at some depth, applies the final norm and the head, and asks what would be said if the model ended here. Depth 0 is the embedding, depth $k$ lies after layer $k-1$.
#
# Stop token and Wait set are told as logits *against the mean of twelve control words*, plain words of like merge rank to the reasoning tokens of notebook 02, since a logit has no zero of its own. Where a model has several stop tokens, this notebook follows the first. The Wait set counts as the mean over its words in logits, as their sum in probability, and by its best word in rank.

# %% [markdown]
# **Control.** The same words in random order, only the last kept in place. A lens shows *some* curve for any text; what the shuffled prompt shows too is due to the last token, not to a question with its answer.

# %%
knobs = dict(n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, **knobs)
pair = pair.float()  # sums must add up: everything below is in float32
members = {member.role: member for member in pair.members}
groups, n_layers = pair.base.groups, pair.base.n_layers
stop, wait, control = [groups.stop[0]], list(groups.wait), list(groups.control)
texts = {(m.role, form): combined["confirm"].prompts(m, form) for m in pair.members for form in ("plain", "template")}
for m in pair.members:
    bare = [prompt.removeprefix(m.bos) for prompt in texts[m.role, "plain"]]
    texts[m.role, "shuffled"] = [m.bos + shuffle_words(text, SEED + k) for k, text in enumerate(bare)]
asked = combined["confirm"].questions
Markdown(f"{len(asked)} combined prompts of the confirm split, {len(combined['explore'].questions)} of explore, on {pair.describe()}; {n_layers} layers. Wait set: {' '.join(repr(pair.base.tokenizer.decode([t])) for t in wait)}; control words: {' '.join(repr(pair.base.tokenizer.decode([t])) for t in control)}.")

# %% [markdown]
# ### Three raw examples, before any average
#
# The likeliest next token by depth, at the end of the answer, with its probability.

# %%
depths = sorted({0, *range(n_layers // 3, n_layers + 1, max(1, n_layers // 8)), n_layers})
for index in np.random.default_rng(SEED).choice(len(asked), 3, replace=False):
    display(Markdown(findings.code_span(texts["base", "plain"][index])))
    seen = {role: lens_map(m, texts[role, "plain"][index], last=1)[1] for role, m in members.items()}
    rows = {role: [f"{seen[role][depth][0][0]!r} {seen[role][depth][0][1]:.0%}" for depth in depths] for role in seen}
    display(pd.DataFrame(rows, index=pd.Index(depths, name="depth")).T)

# %% [markdown]
# ## F09 · Where do the two models part, and how does the rise look?
#
# **Question.** By depth, how far is the stop token ahead of the Wait set in each model? Metric: $g_k = z_k(\text{stop}) - \overline{z_k(\text{Wait})}$ through the lens. The models have *parted* from the depth on where $g^B_k - g^D_k$ stays beyond half its final value; told as a share of all layers, prompt by prompt.

# %% [markdown]
# **Control.** The shuffled prompts. **Rule, made stricter after a first look at the result.** F09 has three parts and holds if all do: (a) the mean parting depth has an interval above 2/3, and above that of the shuffled prompts; (b) an exponential predicts the rise of the stop token's logit on prompts left out better than a line *and* better than a logistic curve, by more than a twentieth of its own error (a difference within that either way decides nothing); (c) over the last third of the layers, attention adds more to that logit than the MLPs do.

# %%
ids = [*stop, *wait, *control]
at_stop, at_wait, at_control = slice(0, 1), slice(1, 1 + len(wait)), slice(1 + len(wait), None)
states = ("plain", "template", "shuffled")
sets = dict(texts)  # of prompts, by model and form


def read_lens(rows: list[int]) -> dict:
    """Logits, log-probabilities and ranks of the chosen tokens through the lens, [prompt, depth, token]."""
    found = {}
    for (role, state), prompts in sets.items():
        read = lens(members[role], take(prompts, rows), ids)
        found |= {f"{role} {state} {name}": values for name, values in vars(read).items()}
    return found


through = kept(pair, "03_lens", read_lens, len(asked), fresh=RECOMPUTE)
seen = {key: Lens(*(torch.from_numpy(through[f"{' '.join(key)} {name}"]) for name in ("logits", "logprobs", "ranks"))) for key in sets}
streams = {key: residuals(members[key[0]], texts[key]).cpu() for key in texts}

# %% [markdown]
# Each token's logit counts against the mean of the control words; the gap is stop minus Wait, and the models part where their gaps do:

# %%
def against_control(lens, chosen: slice) -> np.ndarray:
    """Mean logit of some of the tokens minus that of the control words, [prompt, depth]."""
    return (lens.logits[..., chosen].mean(-1) - lens.logits[..., at_control].mean(-1)).numpy()


z_stop, z_wait = ({key: against_control(lens, chosen) for key, lens in seen.items()} for chosen in (at_stop, at_wait))
gap = {key: z_stop[key] - z_wait[key] for key in seen}
parting = {state: stats.settled_at(gap["base", state] - gap["distilled", state]) for state in states}

# %%
depth = list(range(n_layers + 1))
final = {state: stats.bootstrap((gap["base", state] - gap["distilled", state])[:, -1]) for state in states}
parted = {state: stats.bootstrap(parting[state]) for state in states}
panels = {
    state: {role: (stats.bands(gap[role, state]), figures.ROLE[role]) for role in members}
    | ({"base, shuffled": (stats.bands(gap["base", "shuffled"]), figures.CONTROL)} if state == "plain" else {})
    for state in ("plain", "template")
}
title = (
    f"The models part at {parted['plain'].estimate:.0%} of the depth (shuffled words: {parted['shuffled'].estimate:.0%}); "
    f"at the end the base is {final['plain'].estimate:.1f} nats further on the side of stopping, {final['template'].estimate:.1f} in the template"
)
fig = figures.lines(panels, depth, title=title, xlabel="depth (layers passed)", ylabel="logit of stop − Wait set (nats)", zero=True)
figures.save_figure(fig, "03_gap_by_depth", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 1: stop against Wait by depth.** Above zero the stop token leads. Blue the base, orange the distilled model, dashed grey the base on shuffled prompts. Each model's stream is read by its own norm and head; mean and 95 % bootstrap over prompts.

# %% [markdown]
# **What it does not show.** Which of the two tokens moved: that is figures 2 and 3. And a gap between two tokens that are both unlikely decides nothing.

# %%
def trajectories(form: str) -> dict:
    """Panels of probability, logit and rank for one form, by model."""
    panels = {(role, row): {} for row in ("P", "logit", "rank") for role in members}
    for role in members:
        for state, end in ((form, ""), ("shuffled", ", shuffled")):
            lens, grey = seen[role, state], figures.CONTROL if end else None
            for name, chosen, colour in (("stop", at_stop, figures.STOP), ("Wait set", at_wait, figures.WAIT))[: 1 if end else 2]:
                best = lens.ranks[..., chosen].amin(-1).float().numpy() + 1
                panels[role, "P"][name + end] = stats.bands(lens.logprobs[..., chosen].exp().sum(-1)), grey or colour
                panels[role, "logit"][name + end] = stats.bands(against_control(lens, chosen)), grey or colour
                geometric = [stats.Interval(10**i.estimate, 10**i.low, 10**i.high, i.n) for i in stats.bands(np.log10(best))]
                panels[role, "rank"][name + end] = geometric, grey or colour
    return panels


# %%
def trajectories_figure(form: str):
    """The figure of one form."""
    ends = {role: seen[role, form].logprobs[:, -1, at_stop].exp().mean() for role in members}
    ranks = {role: 10 ** np.log10(seen[role, form].ranks[..., at_wait].amin(-1)[:, -1].numpy() + 1).mean() for role in members}
    title = f"{form.capitalize()} form. At the end the stop token has {ends['base']:.0%} on the base and {ends['distilled']:.0%} on the distilled; the best wait word is number {ranks['base']:.0f} and {ranks['distilled']:.0f}"
    return figures.lines(trajectories(form), depth, title=title, xlabel="depth (layers passed)", zero=True, rows=3, log_rows=(2,),
                         ylabel=["probability", "logit against\ncontrol words (nats)", "rank, 1 = likeliest"])  # fmt: skip


fig = trajectories_figure("plain")
figures.save_figure(fig, "03_plain_trajectories", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 2: probability, logit and rank by depth, plain form.** Black the stop token, wine the Wait set (sum of probabilities, mean logit, best rank), dashed grey the stop token on shuffled prompts. Ranks as geometric means.

# %% [markdown]
# **What it does not show.** That the model "believes" what the lens says half way: a probability near one in early layers is the last token talking.

# %%
ends = {(role, name): stats.bootstrap(z[role, "plain"][:, -1]) for role in members for name, z in (("stop", z_stop), ("Wait", z_wait))}
of_stop, of_wait = (stats.paired(z["distilled", "plain"][:, -1], z["base", "plain"][:, -1]) for z in (z_stop, z_wait))
far = [k for k in depth if 10 ** np.log10(seen["base", "plain"].ranks[:, k, 0].numpy() + 1).mean() > 1000]
Markdown(f"**Which of the two moved.** At the end the stop token stands {ends['base', 'stop']} nats above the control words on the base and {ends['distilled', 'stop']} on the distilled (paired change {of_stop}); the Wait set goes from {ends['base', 'Wait']} to {ends['distilled', 'Wait']} (change {of_wait}). The stop token's geometric mean rank on the base is beyond 1000 at {len(far)} of {n_layers + 1} depths: there the lens does not speak of stopping at all.")

# %%
fig = trajectories_figure("template")
figures.save_figure(fig, "03_template_trajectories", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 3: the same in each model's chat template.** In the distilled model's template the answer stands inside the open thought. The dashed grey control is the shuffled plain prompt of figure 2.

# %% [markdown]
# **What it does not show.** The two models see different marks here, so the difference of the models is mixed with the difference of the templates.

# %% [markdown]
# ### Is it the stream or the head?
#
# **Question.** Each model has a stream and a head (final norm and unembedding). Is the parting in the stream? Metric: the final gap $g$ with each stream read by each head. **Control.** The head exchanged alone: if that alone made the difference, the stream would not matter.

# %%
other = {"base": pair.distilled, "distilled": pair.base}
crossed = {(role, "its own head"): gap[role, "plain"] for role in members}
for role in members:
    read = read_stream(other[role], streams[role, "plain"], ids, ranked=False)
    crossed[role, "the other head"] = against_control(read, at_stop) - against_control(read, at_wait)
by_stream = stats.paired(crossed["base", "its own head"][:, -1], crossed["distilled", "the other head"][:, -1])
by_head = stats.paired(crossed["base", "its own head"][:, -1], crossed["base", "the other head"][:, -1])
panels = {
    name: {f"{role} stream": (stats.bands(crossed[role, name]), figures.ROLE[role]) for role in members}
    for name in ("its own head", "the other head")
}
title = f"Read by the base's head alone, the two streams end {by_stream.estimate:+.1f} nats apart; exchanging the base's head changes {by_head.estimate:+.2f}"
fig = figures.lines(panels, depth, title=title, xlabel="depth (layers passed)", ylabel="logit of stop − Wait set (nats)", zero=True)
figures.save_figure(fig, "03_two_heads", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 4: each stream through both heads.** Left each model's own norm and unembedding, right the other one's. Where the panels look alike, the difference is in the stream. On `smol` the adapter leaves head and norm as they were, except for the rows of the two think tags, so there the panels agree by construction; on a pair with other heads they need not.

# %% [markdown]
# **What it does not show.** What happens before the head in a basis that both models share: the streams could have turned together.

# %% [markdown]
# ### How does the last token move?
#
# **Question.** Over the middle layers, how does the stream at the last token grow and turn, and when does it gain on the stop token? Metrics by depth: its norm; the cosine to its own final direction; the angle that each layer turns it by; the change of the stop token's logit (against control words) that comes with each layer. **Control.** Shuffled prompts of the same last token; beside them neutral statements, which end in a period and answer nothing.

# %%
neutral = neutral_sentences(N_NEUTRAL)
texts |= {(role, "neutral"): [m.prompt(sentence, "plain") for sentence in neutral] for role, m in members.items()}
for role, m in members.items():
    streams[role, "neutral"] = residuals(m, texts[role, "neutral"]).cpu()
    seen[role, "neutral"] = read_stream(m, streams[role, "neutral"], ids)
    z_stop[role, "neutral"] = against_control(seen[role, "neutral"], at_stop)


def motion(role: str, state: str) -> dict[str, np.ndarray]:
    """Norm, cosine to the end, angle per layer in degrees, gain of stop per layer: [prompt, depth] from depth 1."""
    stream, cosine = streams[role, state], torch.nn.functional.cosine_similarity
    turn = cosine(stream[:, 1:], stream[:, :-1], dim=-1).clamp(-1, 1).arccos().rad2deg()
    to_end = cosine(stream[:, 1:], stream[:, -1:], dim=-1)
    return {"norm": stream[:, 1:].norm(dim=-1).numpy(), "cosine": to_end.numpy(), "angle": turn.numpy(), "gain": np.diff(z_stop[role, state])}


moved = {key: motion(*key) for key in streams if key[1] != "template"}

# %%
panels = {}
for quantity in ("norm", "cosine", "angle", "gain"):
    for state in ("plain", "neutral"):
        series = {role: (stats.bands(moved[role, state][quantity]), figures.ROLE[role]) for role in members}
        if state == "plain":
            series["base, shuffled"] = stats.bands(moved["base", "shuffled"][quantity]), figures.CONTROL
        panels["combined prompts" if state == "plain" else "neutral statements", quantity] = series
half = n_layers // 2
gains = {role: stats.bootstrap(moved[role, "plain"]["gain"][:, half:].sum(1)) for role in members}
title = f"Over the second half of the layers the stop token gains {gains['base'].estimate:+.1f} nats on the base, {gains['distilled'].estimate:+.1f} on the distilled"
fig = figures.lines(panels, depth[1:], title=title, xlabel="depth (layers passed)", rows=4, log_rows=(0,),
                    ylabel=["norm of the stream", "cosine to\nfinal direction", "turn per layer\n(degrees)", "gain of stop\nper layer (nats)"])  # fmt: skip
figures.save_figure(fig, "03_last_token_moves", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm; {len(neutral)} statements")

# %% [markdown]
# **Figure 5: the last token's way through the layers.** From top: length of the stream, cosine to its own end, angle turned by each layer, and what the stop token gains. Blue the base, orange the distilled model, dashed grey the base on shuffled prompts.

# %% [markdown]
# **What it does not show.** Which component turned the stream: figure 7. The first layers of many models carry a few very large coordinates, which dominate norm and cosine there.

# %% [markdown]
# ### Exponential, linear or logistic?
#
# **Question.** Which of three shapes predicts the rise of the stop token's logit over the second half of the layers? Each is fitted to the mean curve of seven eighths of the prompts and scored on each prompt left out: $\overline{(y_k - \hat y_k)^2}$, both centred over depth. The shapes: $a + bx$; $a + b\,\frac{e^{cx}-1}{e^{c}-1}$ with $c>0$; $a + b\,\sigma(c(x-d))$. The line has two parameters, the exponential three, the logistic four. A logistic curve that bends only beyond the last layer *is* an exponential, so near ties are expected.
#
# A logit on a line is a probability that grows exponentially. So the claim is asked of the logit, and the same is printed for P(stop). **Control.** The same three fits on shuffled prompts.

# %%
growth = {
    "logit, base": z_stop["base", "plain"],
    "logit, distilled": z_stop["distilled", "plain"],
    "P(stop), base": seen["base", "plain"].logprobs[..., 0].exp().numpy(),
    "logit, base, shuffled": z_stop["base", "shuffled"],
}
growth = {name: curves[:, half:] for name, curves in growth.items()}
errors = {name: stats.held_out_errors(curves) for name, curves in growth.items()}
over = {name: {rival: stats.paired(error[rival], error["exponential"]) for rival in ("linear", "logistic")} for name, error in errors.items()}
table = pd.DataFrame({name: {shape: f"{values.mean():.3g}" for shape, values in error.items()} for name, error in errors.items()}).T
table["linear − exponential"] = [f"{over[name]['linear']:.3g}" for name in table.index]
table["logistic − exponential"] = [f"{over[name]['logistic']:.3g}" for name in table.index]
display(Markdown("Mean squared error on prompts left out (nats², or squared probability). A positive difference favours the exponential:"), table)

# %%
shades = {"linear": figures.CONTROL, "exponential": figures.WAIT, "logistic": figures.THIRD}
best = {name: min(error, key=lambda shape: error[shape].mean()) for name, error in errors.items()}
last_layer = stats.ratio_of_means(*(z_stop["base", "plain"][:, -1] - z_stop["base", "plain"][:, at] for at in (-2, half)))
title = f"{last_layer.estimate:.0%} of the base's rise comes with the last layer; best on prompts left out: " + "; ".join(f"{name}: {shape}" for name, shape in best.items())
fig = figures.fits(
    {name: (stats.bands(curves), {s: stats.fit_shape(curves.mean(0), s) for s in stats.SHAPES}) for name, curves in growth.items()},
    depth[half:], shades, title=title, xlabel="depth (layers passed)", ylabel="nats, or probability",
)  # fmt: skip
figures.save_figure(fig, "03_shape_of_rise", pair=pair.name, key=shades, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 6: three shapes fitted to the rise.** Dots: mean with 95 % bootstrap; dashed grey a line, broad wine an exponential, thin indigo a logistic curve, here fitted to all prompts. Where wine and indigo coincide, the logistic has become an exponential: it bends only beyond the last layer. Held-out errors stand in the table above.

# %% [markdown]
# **What it does not show.** A mechanism. The best of three smooth shapes can be best and still wrong, as the dots that leave all three show. Where one layer brings most of the rise, the word "growth" says too much: that is a step.

# %% [markdown]
# ### Attention or MLP?
#
# **Question.** What does each layer's attention and MLP write towards the stop token? **Direct logit attribution**: every component adds a vector to the stream; with the final norm's scale frozen at its real value and its weight folded into the unembedding, the logit is the exact sum of their projections. Metric: contribution to the stop token's logit against the control words, in nats. That the parts sum to the true logit is asserted here, for both models, on eight prompts, within $10^{-3}$. It tells direct effects only: what a layer writes for later layers to read is not in it (and components can erase each other's writing, Janiak et al.).

# %% [markdown]
# **Control.** The same sums on shuffled prompts.

# %%
def parts_of(state: str, plus: list[int], minus: list[int], rows: list[int]) -> dict:
    """What layers and heads of both models write on one set of prompts, checked against the true logits."""
    found = {}
    for role, m in members.items():
        prompts = take(texts[role, state], rows)
        parts = attribute(m, prompts, plus, minus)
        logits = next_logits(m, prompts[:8], [*plus, *minus])
        true = logits[:, : len(plus)].mean(1) - logits[:, len(plus) :].mean(1)
        assert (parts.total[:8] - true).abs().max() < 1e-3, "the parts must sum to the logit"
        assert (parts.heads.sum(-1) + parts.attention_bias - parts.attention).abs().max() < 1e-3
        found |= {f"{role} {name}": getattr(parts, name) for name in ("total", "attention", "mlp", "heads")}
    return found


def read_rise(rows: list[int]) -> dict:
    """What each layer's attention and MLP write towards the stop token, [prompt, layer]."""
    found = {state: parts_of(state, stop, control, rows) for state in ("plain", "shuffled")}
    return {f"{state} {role} {kind}": found[state][f"{role} {kind}"] for state in found for role in members for kind in ("attention", "mlp")}


rise = kept(pair, "03_rise", read_rise, len(asked), fresh=RECOMPUTE)
late = slice(n_layers - n_layers // 3, None)
late_sum = {(s, r): [rise[f"{s} {r} {kind}"][:, late].sum(1) for kind in ("attention", "mlp")] for s in ("plain", "shuffled") for r in members}
attention_lead = {key: stats.paired(*both) for key, both in late_sum.items()}
Markdown(f"The parts sum to the true logit on both models. Attention minus MLP over the last third: base {attention_lead['plain', 'base']}, distilled {attention_lead['plain', 'distilled']}, base on shuffled prompts {attention_lead['shuffled', 'base']} nats.")

# %%
lead, positive = attention_lead["plain", "base"], findings.Rule("above", 0)
margin = 0.05 * float(errors["logit, base"]["exponential"].mean())
later = stats.paired(parting["plain"], parting["shuffled"])
rules = [
    findings.Part("(a) parting depth", parted["plain"], findings.Rule("above", 2 / 3)),
    findings.Part("(a) later than on shuffled words", later, positive),
]
rules += [
    findings.Part(f"(b) held-out error, {rival} minus exponential", error, findings.Rule("above", 0, margin))
    for rival, error in over["logit, base"].items()
]
rules += [findings.Part("(c) attention minus MLP over the last third, nats", lead, positive)]
details = {
    "best shape of the base's logit": best["logit, base"],
    "share of the rise that the last layer brings": last_layer,
    "attention minus MLP over the last third, distilled, nats": attention_lead["plain", "distilled"],
}

# %%
F09 = findings.record(
    pair,
    "F09",
    notebook="03_logit_lens",
    quantity="relative depth from which the models' stop − Wait gaps stay more than half their final "
    "distance apart, plain form",
    unit="of all layers",
    rules=rules,
    control=("the same words shuffled", parted["shuffled"]),
    details=details,
)
Markdown(findings.sentence(F09))

# %%
panels = {
    kind: {role: (stats.bands(rise[f"plain {role} {kind}"]), figures.ROLE[role]) for role in members}
    | {"base, shuffled": (stats.bands(rise[f"shuffled base {kind}"]), figures.CONTROL)}
    for kind in ("attention", "mlp")
}
title = f"Over the last third attention writes {late_sum['plain', 'base'][0].mean():+.1f} nats towards stopping on the base, the MLPs {late_sum['plain', 'base'][1].mean():+.1f}; on the distilled {late_sum['plain', 'distilled'][0].mean():+.1f} and {late_sum['plain', 'distilled'][1].mean():+.1f}"
fig = figures.lines({{"attention": "attention", "mlp": "MLP"}[kind]: rows for kind, rows in panels.items()}, depth[:-1], title=title, xlabel="layer", ylabel="contribution to stop\nagainst control words (nats)", zero=True)
figures.save_figure(fig, "03_attention_and_mlp", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 7: what each layer writes towards the stop token.** Blue the base, orange the distilled model, dashed grey the base on shuffled prompts; 95 % bootstrap over prompts.

# %% [markdown]
# **What it does not show.** Indirect effects: an attention layer may matter by what an MLP later makes of it. Notebook 05 patches.

# %% [markdown]
# ## F10 · What is the final norm's part?
#
# **Question.** The lens divides each depth's stream by its own length. So a stream that only grew, without turning, would leave the lens unmoved, and without that division its logits would grow. How much of the rise that one sees without the norm is mere growth? Let $z_k$ be the stop token's logit (against control words) with the norm, $y_k = z_k\, r_k / r_L$ the same with the scale frozen at the last depth ($r$: root mean square of the stream), $m$ the middle. Metric: from which depth on the rise since the middle stays beyond half its final value, with the norm and with the scale frozen; prompt by prompt, in shares of the second half. If the norm shapes the rise, the two depths differ. Told beside it: rescaling alone would bring $y_m$ to $z_m$, which is the share $(z_m - y_m)/(y_L - y_m)$ of the rise (negative where the stop token lies below the control words in the middle).

# %% [markdown]
# **Control.** Shuffled prompts. **Rule, made stricter after a first look at the result.** F10 holds if the difference of the two depths on the base, plain form, has an interval wholly more than 0.05 from zero; it does not hold if it lies within ±0.05.

# %%
frozen = {}
for key in (("base", "plain"), ("distilled", "plain"), ("base", "shuffled")):
    size = streams[key].pow(2).mean(-1).sqrt().numpy()
    frozen[key] = z_stop[key] * size / size[:, -1:]
rescaled = {key: (z_stop[key][:, half] - y[:, half], y[:, -1] - y[:, half]) for key, y in frozen.items()}
shares = {key: stats.ratio_of_means(*both) for key, both in rescaled.items()}
rises = {key: [curve[:, half:] - curve[:, [half]] for curve in (z_stop[key], y)] for key, y in frozen.items()}
halfway = {key: [stats.settled_at(rise) for rise in both] for key, both in rises.items()}
delayed = {key: stats.paired(both[1], both[0]) for key, both in halfway.items()}
unscaled = {norm: against_control(read_stream(pair.base, streams["base", "plain"], ids, norm=norm, ranked=False), at_stop) for norm in ("scale", "none")}
frozen_error = stats.held_out_errors(frozen["base", "plain"][:, half:])
frozen_best = min(frozen_error, key=lambda shape: frozen_error[shape].mean())
without_weight = stats.bootstrap(unscaled["scale"][:, -1])

# %%
norms = {at: streams["base", "plain"][:, at].norm(dim=-1) for at in (half, -1)}
details = {
    "distilled": delayed["distilled", "plain"],
    "share of the rise that rescaling alone explains": shares["base", "plain"],
    "growth of the stream from the middle to the end, times": float((norms[-1] / norms[half]).mean()),
    "best shape with the norm": best["logit, base"],
    "best shape with the scale frozen": frozen_best,
    "stop token above the control words at the end, nats": stats.bootstrap(z_stop["base", "plain"][:, -1]),
    "the same without the norm's learned weight": without_weight,
}

# %%
rule = findings.Rule("away", 0.05)
F10 = findings.record(
    pair,
    "F10",
    notebook="03_logit_lens",
    quantity="depth by which the stop token has made half of its rise, scale frozen minus with the norm, "
    "base",
    unit="of the second half of the layers",
    rules=[findings.Part("difference of the depths, base", delayed["base", "plain"], rule)],
    control=("the same words shuffled", delayed["base", "shuffled"]),
    details=details,
)
Markdown(findings.sentence(F10))

# %%
panels = {
    "with the norm": {role: (stats.bands(z_stop[role, "plain"]), figures.ROLE[role]) for role in members} | {"base, shuffled": (stats.bands(z_stop["base", "shuffled"]), figures.CONTROL)},
    "scale frozen at the end": {role: (stats.bands(frozen[role, "plain"]), figures.ROLE[role]) for role in members} | {"base, shuffled": (stats.bands(frozen["base", "shuffled"]), figures.CONTROL)},
    "scale only, no weight (base)": {"base": (stats.bands(unscaled["scale"]), figures.BASE)},
}
by_growth, rise_frozen = (values.mean() for values in rescaled["base", "plain"])
title = f"With the scale frozen half of the rise comes {delayed['base', 'plain'].estimate:+.2f} of the second half later; the stop token rises by {rise_frozen:.1f} nats over the second half; growth without turning would give {by_growth:+.1f} (base)"
fig = figures.lines(panels, depth, title=title, xlabel="depth (layers passed)", ylabel="logit of stop against\ncontrol words (nats)", zero=True)
figures.save_figure(fig, "03_norm", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 8: the same rise with the norm at each depth, with the last depth's scale at all depths, and without the norm's learned weight.** Blue the base, orange the distilled model, dashed grey the base on shuffled prompts.

# %% [markdown]
# **What it does not show.** That the model itself uses the norm this way: only the last depth is ever normed and read. It shows how the picture one draws depends on the norm one puts into it.

# %% [markdown]
# ## F11 · Does the difference of the activations name reasoning tokens?
#
# **Question.** Subtract the base's stream from the distilled model's, on the same prompt, token and depth. Which tokens does that difference point to? Metric: the head turns the difference into a number for each word of the vocabulary; as z-scores over the vocabulary, the mean of the reasoning tokens (notebook 02) and the Wait set minus the mean of the control words, averaged over the last third of the depths.

# %% [markdown]
# **Controls.** Random directions: a z-score does not depend on length, so they count as of the same norm. And the same difference on neutral statements: what shows up there too is not about stopping after an answer.

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F11 holds if the interval lies above the 97.5th percentile of single random directions *and* wholly above that of the neutral statements; it does not hold if it lies below either.

# %%
words = [*dict.fromkeys([*groups.reasoning, *wait])]
head, deep = pair.distilled, slice(n_layers - n_layers // 3, None)
difference = {state: streams["distilled", state] - streams["base", state] for state in ("plain", "neutral")}


def named(directions: torch.Tensor) -> np.ndarray:
    """Mean z-score of reasoning tokens and Wait set minus control words, for each direction of [..., d_model]."""
    flat = vocabulary_scores(head, directions.reshape(-1, directions.shape[-1]), [*words, *control])
    return (flat[:, : len(words)].mean(1) - flat[:, len(words) :].mean(1)).reshape(directions.shape[:-1]).numpy()


pointed = {state: named(directions[:, 1:]) for state, directions in difference.items()}
random_directions = torch.randn(N_RANDOM, head.config.hidden_size, generator=torch.Generator().manual_seed(SEED))
null = named(random_directions)
low, high = np.quantile(null, [0.025, 0.975])
names_words = {state: stats.bootstrap(values[:, deep].mean(1)) for state, values in pointed.items()}

# %%
here, there = names_words["plain"], names_words["neutral"]
beyond = stats.Interval(
    here.estimate - there.estimate, here.low - there.high, here.high - there.low, here.n
)  # above 0 where the two intervals do not meet
rules = [
    findings.Part("against random directions", here, findings.Rule("above", round(float(high), 3))),
    findings.Part("beyond neutral statements, interval against interval", beyond, findings.Rule("above", 0)),
]
details = {
    f"97.5th percentile of {N_RANDOM} random directions": float(high),
    "their 2.5th percentile": float(low),
    "at the last depth, combined prompts": stats.bootstrap(pointed["plain"][:, -1]),
    "at the last depth, neutral statements": stats.bootstrap(pointed["neutral"][:, -1]),
}

# %%
F11 = findings.record(
    pair,
    "F11",
    notebook="03_logit_lens",
    quantity="z-score of reasoning tokens and Wait set minus control words in the activation difference, "
    "last third of the depths",
    unit="standard deviations of the vocabulary",
    rules=rules,
    control=("the same difference on neutral statements (n counts statements)", there),
    details=details,
)
Markdown(findings.sentence(F11))

# %% [markdown]
# The tokens that the mean difference points to, and away from, by depth; beside them the same on neutral statements and a random direction. Written words are what the head would say; nothing was selected.

# %%
mean = {state: directions.mean(0) for state, directions in difference.items()}
shown = sorted({*range(n_layers // 3, n_layers + 1, max(1, n_layers // 10)), n_layers})
columns = {
    "towards, combined prompts": mean["plain"][shown], "away from, combined prompts": -mean["plain"][shown],
    "towards, neutral statements": mean["neutral"][shown], "towards, a random direction": random_directions[: len(shown)],
}  # fmt: skip
cells = {name: [" ".join(repr(token) for token in row) for row in promoted(head, directions, k=8)] for name, directions in columns.items()}
pd.DataFrame(cells, index=pd.Index(shown, name="depth"))

# %%
shuffled_null = [stats.Interval(float(null.mean()), float(low), float(high), N_RANDOM)] * n_layers
panels = {
    "": {
        "combined prompts": (stats.bands(pointed["plain"]), figures.DISTILLED),
        "neutral statements": (stats.bands(pointed["neutral"]), figures.THIRD),
        "random directions": (shuffled_null, figures.CONTROL),
    }
}
title = f"The activation difference points to reasoning tokens by {names_words['plain'].estimate:+.2f} standard deviations after answers, {names_words['neutral'].estimate:+.2f} after neutral statements"
fig = figures.lines(panels, depth[1:], title=title, xlabel="depth (layers passed)", ylabel="reasoning tokens − control words\n(standard deviations)", zero=True)
figures.save_figure(fig, "03_activation_difference", pair=pair.name, size=(8, 3.4), note=f"n = {len(asked)} combined prompts, confirm, plain; {len(neutral)} statements")

# %% [markdown]
# **Figure 9: what the difference of the streams points to.** Orange on combined prompts, indigo on neutral statements, grey the middle 95 % of single random directions.

# %% [markdown]
# **What it does not show.** That this difference *causes* the words. Random directions are an easy null, since real streams are far from isotropic; a mean over all these tokens is not a name either: the table shows what stands at the top.

# %% [markdown]
# ## Which heads write the difference?
#
# **Question.** Which query heads write more towards stopping, and away from waiting, in one model than in the other? Metric: direct contribution to $z(\text{stop}) - \overline{z(\text{Wait})}$, distilled minus base, per head. The strongest by absolute mean are chosen on `explore`, told on `confirm`. **Controls.** As many random heads; all heads of `confirm` are tested by flipping signs over prompts, corrected over layers × heads (Benjamini-Hochberg).

# %%
def read_heads(rows: list[int]) -> dict:
    """What layers and heads write to stop − Wait on confirm, and the change of each head on explore, [prompt, ...]."""
    heads = {role: attribute(m, take(combined["explore"].prompts(m, "plain"), rows), stop, wait).heads for role, m in members.items()}
    return parts_of("plain", stop, wait, rows) | {"explore": heads["distilled"] - heads["base"]}


contrast = kept(pair, "03_heads", read_heads, len(asked), len(combined["explore"].questions), fresh=RECOMPUTE)
chosen_on = torch.from_numpy(contrast["explore"].mean(0))
n_heads = chosen_on.shape[1]
top = [divmod(int(k), n_heads) for k in chosen_on.flatten().abs().argsort(descending=True)[:TOP_HEADS]]
others = [k for k in range(chosen_on.numel()) if divmod(k, n_heads) not in top]
random_heads = [divmod(int(k), n_heads) for k in np.random.default_rng(SEED).choice(others, min(TOP_HEADS, len(others)), replace=False)]
shift = contrast["distilled heads"] - contrast["base heads"]
p = stats.false_discovery(stats.sign_flip_p(shift.reshape(len(asked), -1)))
table = pd.DataFrame({"layer": np.repeat(range(n_layers), n_heads), "head": np.tile(range(n_heads), n_layers),
                      **{role: contrast[f"{role} heads"].mean(0).flatten() for role in members}, "p corrected": p})  # fmt: skip
write_text(data_dir(pair.name) / "03_heads.csv", table.to_csv(index=False, float_format="%.4f"))
sums = {kind: stats.bootstrap((contrast[f"distilled {kind}"] - contrast[f"base {kind}"]).sum(1)) for kind in ("attention", "mlp")}
Markdown(f"Distilled minus base, the contrast stop − Wait falls by {stats.bootstrap(contrast['base total'] - contrast['distilled total'])} nats: attention layers write {sums['attention']}, MLPs {sums['mlp']}. {np.mean(p < 0.05):.0%} of {p.size} heads differ (corrected p < 0.05), but most by little: the median size is {np.median(np.abs(shift.mean(0))):.3f} nats.")

# %%
maps = {"base": contrast["base heads"].mean(0), "distilled": contrast["distilled heads"].mean(0), "distilled − base": shift.mean(0)}
name = "L{}H{}".format(*top[0])
title = f"What each head writes to stop − Wait: the largest change, chosen on explore, is {name} with {shift.mean(0)[top[0]]:+.1f} nats"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="nats")
figures.save_figure(fig, "03_heads_map", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 10: direct contribution of every query head to stop − Wait.** Red towards stopping, blue towards waiting; means over prompts, one scale. Intervals for the strongest follow in figure 11.

# %% [markdown]
# **What it does not show.** The spread over prompts, and what heads do by way of later layers.

# %%
def head_rows(values: np.ndarray, heads: list[tuple[int, int]], colour: str, prefix: str = "") -> list:
    """Label, interval and colour of some heads' contributions."""
    return [(f"{prefix}L{layer}H{head}", stats.bootstrap(values[:, layer, head]), colour) for layer, head in heads]


of_controls = [abs(interval.estimate) for _, interval, _ in head_rows(shift, random_heads, figures.CONTROL)]
panels = {
    "each model": [row for role in members for row in head_rows(contrast[f"{role} heads"], top, figures.ROLE[role]) + head_rows(contrast[f"{role} heads"], random_heads, figures.CONTROL, "random ")],
    "distilled − base": head_rows(shift, top, figures.THIRD) + head_rows(shift, random_heads, figures.CONTROL, "random "),
}
title = f"The {len(top)} heads chosen on explore move by {np.mean([abs(shift.mean(0)[at]) for at in top]):.2f} nats each, up and down; random ones by {np.mean(of_controls):.2f}"
fig = figures.interval_rows(panels, title=title, unit="contribution to stop − Wait (nats)", zero=True)
figures.save_figure(fig, "03_top_heads", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm, plain")

# %% [markdown]
# **Figure 11: the heads whose writing changed most.** Left each model (blue the base, orange the distilled; grey both), right the difference (indigo triangles), with random heads as grey squares; chosen on explore, shown on confirm; 95 % bootstrap over prompts.

# %% [markdown]
# **What it does not show.** Whether the head changed or what it reads did: its input also differs between the models.

# %%
looked = [top[0], top[1], random_heads[0]]
picked = np.random.default_rng(SEED + 1).choice(len(asked), 2, replace=False)
maps, columns, rows = {}, {}, [f"{role} {'random ' if at == looked[2] else ''}L{at[0]}H{at[1]}" for at in looked[::-1] for role in ("distilled", "base")]
for number, index in enumerate(picked, start=1):
    read = {role: attention_pattern(m, texts[role, "plain"][index], looked[::-1]) for role, m in members.items()}
    length = min(len(tokens) for tokens, _ in read.values())  # without the distilled model's BOS, where it has one
    maps[f"prompt {number}"] = torch.stack([read[role][1][k, -length:] for k in range(len(looked)) for role in ("distilled", "base")])
    columns[f"prompt {number}"] = [repr(token)[1:-1].replace("$", r"\$") for token in read["base"][0][-length:]]
title = "What the last token attends to, in the two heads whose writing changed most and in a random one"
fig = figures.heat_maps(maps, title=title, xlabel="token of the prompt", ylabel="", unit="attention of the last token", columns=columns, names=rows, diverging=False)
figures.save_figure(fig, "03_attention", pair=pair.name, size=(12, 4), note="two combined prompts, confirm, plain")

# %% [markdown]
# **Figure 12: attention of the last token, two prompts.** Rows: two heads of figure 11 and a random one, in both models; columns: the prompt's tokens. Two prompts are an illustration, not a measurement.

# %% [markdown]
# **What it does not show.** That a head *uses* what it looks at: a head that rests on the first token often writes nothing.

# %% [markdown]
# ## Try it
#
# Choose a prompt, a form, a model and the tokens to follow. The map shows the likeliest next token by depth and position, the curves below follow the chosen tokens at the last position. Figure 13 is the same for readers without a kernel.

# %%
example = texts["distilled", "plain"][int(picked[0])]
tokens, rows = lens_map(pair.distilled, example, last=8)
shown = sorted({*range(0, n_layers, max(1, n_layers // 10)), n_layers})
title = f"The distilled model through the lens: after {tokens[-1]!r} it would end with {rows[-1][-1][0]!r} ({rows[-1][-1][1]:.0%})"
fig = figures.token_map(tokens, [rows[k] for k in shown], [str(k) for k in shown], title=title, unit="probability of the likeliest token")
figures.save_figure(fig, "03_lens_map", pair=pair.name, note="one combined prompt, confirm, plain")

# %% [markdown]
# **Figure 13: one prompt through the lens.** Column: a token of the prompt; row: depth; cell: the token that would come next, the darker the surer. Dots stand for spaces, a box for a token that is half a character or that the figure's fonts lack.

# %% [markdown]
# **What it does not show.** More than one prompt, and tokens that are second.

# %%
explorers.lens_explorer(pair)

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F09", "F10", "F11"))

# %% [markdown]
# Back: [02_logits](02_logits.ipynb). Next: [04_value_vectors](04_value_vectors.ipynb) asks whether the weights changed, and which neurons write "stop" and "Wait".
