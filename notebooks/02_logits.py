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
# # 02 · At the moment after the answer, what does each model want to say next?
#
# **Claim.** Under test: right after a complete answer the base gives most probability to the stop token; on the distilled model that token's logit is much lower, and those of reasoning tokens such as " Wait" are higher. Which part holds on this pair is printed below the set-up.
#
# **Evidence.** The split of the next-token probability before and after the answer (figure 1), and the paired shift of every token's logit beside frequency-matched control tokens (figure 3).
#
# **Caveat.** A logit has no zero: only differences within one model mean anything. So each shift is told relative to control tokens, and log-probabilities stand beside it. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** `data/prompts.jsonl`, `data/neutral.txt` and stored completions where they match (else computes them). **Writes** `data/<pair>/02_logits.csv`, findings F05 to F08, figures `02_*`.

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
N_COMBINED = 64  # quick: 6; combined prompts of the confirm split
REPEATS = [0, 1, 3, 6]  # quick: [0, 6]; how often a piece of text is appended (F07)
N_GROWN = 24  # prompts to which text is appended

# %% jupyter={"source_hidden": true} tags=["claim"]
import itertools

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, stats
from helpers.generation import load_combined
from helpers.pairs import load_pair
from helpers.prompts import ask, combine, neutral_sentences
from helpers.readouts import bigram_logits, last_hidden, logits_of, logprobs_of, next_logprobs, stop_parts, top_tokens
from helpers.store import data_dir, kept, take, write_text
from helpers.tokens import single_id

pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F05", "F06", "F07", "F08"))

# %% [markdown]
# ## The prompts
#
# A **combined prompt** is a question, "Just give the answer." and the base's own complete answer, for questions that the base finishes within 30 tokens and the distilled model does not (notebook 01). *Plain* is raw text, as in the notes; *template* puts the question into each model's own chat template, whose distilled form opens `<think>`, and the answer behind it.
#
# The base's number in the template is high by selection: only answers after which it stopped, in that form, were kept. The plain form was not selected on. In the distilled model's template the answer stands inside the open thought; F06 to F08 use the plain form only. And "complete" means ended, not right.
#
# Stopping is several events. The stop tokens of a model are summed into P(stop); `</think>`, which ends a thought and not the answer, is told apart; so is the **Wait set** {"Wait", " Wait", " wait", "wait"}.

# %%
knobs = dict(n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
combined = load_combined(pair, **knobs)["confirm"]
asked, given = combined.questions, combined.answers
members = {member.role: member for member in pair.members}
Markdown(f"{len(asked)} combined prompts of the confirm split on {pair.describe()}; the base's answer is right in {np.mean(combined.right):.0%}.")

# %% [markdown]
# ### Three raw examples, before any average

# %%
prompts = {(m.role, form): combine(m, asked, given, form=form) for m in pair.members for form in ("plain", "template")}
for index in np.random.default_rng(SEED).choice(len(asked), 3, replace=False):
    lines = [findings.code_span(prompts["base", "plain"][index]) + "\n"]
    for member in pair.members:
        best = top_tokens(member, [prompts[member.role, "plain"][index]], k=5)[0]
        lines.append(f"- *{member.role}*: " + ", ".join(f"{findings.code_span(repr(token))} {share:.0%}" for token, share in best))
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ## F05 · Does the base stop at once?
#
# **Question.** What probability does each model give to stopping right after the base's own complete answer? Metric: mean P(stop) over combined prompts.

# %% [markdown]
# **Controls.** The same question with *another* question's answer (does any sentence make it stop?), and the same answer *cut before its last word* (does any position?).

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F05 holds if (a) the interval of the base's mean P(stop), plain form, lies above 0.5 and (b) that of the distilled model's minus the base's, on the same prompts, lies below 0: two copies of one model must fail. The number that it must be held against is the answer cut short.

# %%
controls = {
    "another question's answer": given[1:] + given[:1],
    "answer cut before its last word": [" ".join(answer.split()[:-1]) or answer[:-1] for answer in given],
}
states = {"before the answer": None, "after the answer": given, **controls}
names = {"stop": figures.STOP, "</think>": figures.THIRD, "<think>": figures.PALE, "Wait set": figures.WAIT,
         "new line": figures.LINE, "rest": figures.REST}  # fmt: skip


def read_parts(rows: list[int]) -> dict:
    """P(next token) in parts for each model, form and state, [prompt, part]."""
    found, chosen = {}, take(asked, rows)
    for (role, m), form, (state, texts) in itertools.product(members.items(), ("plain", "template"), states.items()):
        shown = ask(m, chosen, form=form) if texts is None else combine(m, chosen, take(texts, rows), form=form)
        found[f"{role} {form} {state}"] = stop_parts(m, shown)[list(names)]
    return found


parts = kept(pair, "02_parts", read_parts, len(asked), fresh=RECOMPUTE)

# %%
p_stop = {key: parts[" ".join(key)][:, 0] for key in itertools.product(members, ("plain", "template"), states)}
after, other = "after the answer", "another question's answer"
at_once, in_template = (stats.bootstrap(p_stop["base", form, after]) for form in ("plain", "template"))
fall, fall_template = (stats.paired(p_stop["distilled", form, after], p_stop["base", form, after]) for form in ("plain", "template"))
cut = stats.bootstrap(p_stop["base", "plain", "answer cut before its last word"])
swapped, before = (stats.bootstrap(p_stop["base", "plain", state]) for state in (other, "before the answer"))
than_swapped = stats.paired(p_stop["base", "plain", after], p_stop["base", "plain", other])

# %%
rules = [
    findings.Part("(a) P(stop), base, plain", at_once, findings.Rule("above", 0.5)),
    findings.Part("(b) distilled minus base, plain", fall, findings.Rule("below", 0)),
]
details = {
    "in the template, base": in_template,
    "before any answer, base": before,
    "after another question's answer, base": swapped,
    "own answer minus another question's, base": than_swapped,
    "distilled minus base, template": fall_template,
}

# %%
F05 = findings.record(
    pair,
    "F05",
    notebook="02_logits",
    quantity="the base's mean P(stop) after its own complete answer, plain form",
    unit="probability",
    rules=rules,
    control=("the same answers cut before their last word", cut),
    details=details,
)
Markdown(findings.sentence(F05))

# %%
rows = {
    f"{role}, {form}: {state}": dict(zip(names, parts[f"{role} {form} {state}"].mean(0), strict=True))
    for form in ("plain", "template") for role in ("base", "distilled") for state in ("before the answer", "after the answer")
}  # fmt: skip
of_distilled = [p_stop["distilled", form, after].mean() for form in ("plain", "template")]
title = (
    f"P(stop) after the answer, base and distilled: {at_once.estimate:.0%} and {of_distilled[0]:.0%} plain, "
    f"{in_template.estimate:.0%} and {of_distilled[1]:.0%} in the template"
)
fig = figures.stacked_rows(rows, names, title=title, unit="mean probability of the next token")
figures.save_figure(fig, "02_stop_parts", pair=pair.name, key=names, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 1: what comes next, before and after the answer.** Black the stop tokens, indigo `</think>`, pink `<think>`, wine the Wait set, light blue a new line, pale all else; means over the combined prompts of the confirm split. In the plain form a model may stop already *before* the answer, after "Just give the answer.": then the stop after the answer is no judgement of the answer.

# %% [markdown]
# **What it does not show.** The spread over prompts; that is figure 2.

# %%
def row(role: str, form: str, state: str) -> tuple[str, stats.Interval, str]:
    """A label, the interval of P(stop), and its colour: grey for the controls."""
    return f"{form}: {state}", stats.bootstrap(p_stop[role, form, state]), figures.CONTROL if state in controls else figures.ROLE[role]


panels = {role: [row(role, form, state) for form in ("plain", "template") for state in states] for role in ("base", "distilled")}
title = f"Plain base: another question's answer gives the stop token {swapped.estimate:.0%}, an answer cut short {cut.estimate:.0%}"
fig = figures.interval_rows(panels, title=title, unit="mean P(stop)", span=(-0.03, 1.03))
figures.save_figure(fig, "02_stop_controls", pair=pair.name, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 2: P(stop) after the answer and after its controls.** Grey squares: another question's answer, and the answer cut before its last word. 95 % bootstrap over prompts.

# %% [markdown]
# **What it does not show.** That the model judges the answer: as far as another question's answer stops it too, a finished sentence is enough. The cut also removes the final mark, so this figure cannot tell an unfinished answer from an unpunctuated one; F08 below looks at the mark alone.

# %% [markdown]
# ## F06 · Which logits fell, which rose?
#
# **Question.** How do the logits of the stop token and of the twelve reasoning tokens of the notes differ between the models on the same plain prompts? Metric: paired shift, distilled minus base, of each token's logit, minus the mean shift of twelve control words of like merge rank, a proxy for frequency (the stop token has no such match): $\Delta_t = (z^D_t - z^B_t) - \overline{(z^D_c - z^B_c)}$.

# %% [markdown]
# **Control.** The twelve control words, each against the mean of all twelve. P-values come from flipping signs over prompts and are corrected over all tokens (Benjamini-Hochberg). Most control words pass that test too, since it only asks whether prompts agree; what singles a token out is lying outside the grey range in figure 3.

# %% [markdown]
# **Rule, written before the result.** F06 holds if the stop token's $\Delta$ has an interval below -2 *and* the mean $\Delta$ of the twelve reasoning tokens has one above 0.

# %%
groups, decode = pair.base.groups, pair.base.tokenizer.decode
ids = list(dict.fromkeys([groups.stop[0], *groups.reasoning, *groups.wait, *groups.control]))


def read_logits(rows: list[int]) -> dict:
    """Logits and log-probabilities of the chosen tokens, [prompt, token], by model."""
    hidden = {role: last_hidden(m, take(prompts[role, "plain"], rows)) for role, m in members.items()}
    found = {role: logits_of(m, hidden[role], ids) for role, m in members.items()}
    return found | {f"{role}, log P": logprobs_of(m, hidden[role], ids) for role, m in members.items()}


read = kept(pair, "02_shift", read_logits, len(asked), fresh=RECOMPUTE)
logit = {role: read[role] for role in members}
logprob = {role: read[f"{role}, log P"] for role in members}
place = {token: k for k, token in enumerate(ids)}
in_control = [place[token] for token in groups.control]
raw = logit["distilled"] - logit["base"]
shift = raw - raw[:, in_control].mean(axis=1, keepdims=True)

# %%
table = pd.DataFrame({
    "token": [decode([token]) for token in ids],
    "group": ["stop" if t == groups.stop[0] else "reasoning" if t in groups.reasoning else "Wait set" if t in groups.wait else "control" for t in ids],
    **{f"logit {role}": logit[role].mean(0) for role in logit}, **{f"logprob {role}": logprob[role].mean(0) for role in logprob},
    "shift": shift.mean(0), "p": stats.sign_flip_p(shift),
})  # fmt: skip
table["p corrected"] = stats.false_discovery(table["p"])
write_text(data_dir(pair.name) / "02_logits.csv", table.to_csv(index=False, float_format="%.4f"))
table.assign(token=table["token"].map(repr)).set_index("token").round(3)

# %%
stop_at, wait_at = place[groups.stop[0]], [place[token] for token in groups.wait]
stop_shift = stats.bootstrap(shift[:, stop_at])
reasoning_shift = stats.bootstrap(shift[:, [place[token] for token in groups.reasoning]].mean(1))
control_spread = stats.bootstrap(np.abs(shift[:, in_control].mean(0)))
wait_logprob = {role: np.logaddexp.reduce(logprob[role][:, wait_at], axis=1) for role in logprob}
wait_gain = stats.paired(wait_logprob["distilled"], wait_logprob["base"])
stop_gain = stats.paired(logprob["distilled"][:, stop_at], logprob["base"][:, stop_at])
line_at = place.get(single_id(pair.base.tokenizer, "\n"), stop_at)
line = "a new line" if line_at != stop_at else "stopping"
details = {
    "Wait set's mean shift": stats.bootstrap(shift[:, wait_at].mean(1)),
    "raw logits, stop token": stats.bootstrap(raw[:, stop_at]),
    "raw logits, control tokens": stats.bootstrap(raw[:, in_control].mean(1)),
    "log-probability, stop token": stop_gain,
    "log-probability, Wait set": wait_gain,
    "Wait set, times as likely in the geometric mean": float(np.exp(wait_gain.estimate)),
}
for role in members:
    details[f"mean P of the Wait set, {role}"] = float(np.exp(wait_logprob[role]).mean())
    details[f"mean P of {line}, {role}"] = stats.bootstrap(np.exp(logprob[role][:, line_at]))

# %%
F06 = findings.record(
    pair,
    "F06",
    notebook="02_logits",
    quantity="shift of the stop token's logit against control tokens, distilled minus base",
    unit="nats",
    rules=[
        findings.Part("stop token's shift", stop_shift, findings.Rule("below", -2)),
        findings.Part("reasoning tokens' mean shift", reasoning_shift, findings.Rule("above", 0)),
    ],
    control=("mean size of a control token's own shift (n counts tokens)", control_spread),
    details=details,
)
Markdown(findings.sentence(F06))

# %%
colours = {"stop": figures.STOP, "Wait set": figures.WAIT, "reasoning": figures.WAIT, "control": figures.CONTROL}
rows = [(repr(row.token), stats.bootstrap(shift[:, place_]), colours[row.group]) for place_, row in enumerate(table.itertuples())]
order = np.argsort([interval.estimate for _, interval, _ in rows])[::-1]
title = f"Against control words the stop token's logit shifts by {stop_shift:+.1f} nats, the reasoning tokens' by {reasoning_shift:+.1f}"
of_controls = shift[:, in_control].mean(0)
fig = figures.interval_rows({"": [rows[k] for k in order]}, title=title, unit="shift of the logit against control words (nats)", zero=True,
                            shade=(of_controls.min(), of_controls.max()))  # fmt: skip
figures.save_figure(fig, "02_logit_shift", pair=pair.name, key={"stop token": figures.STOP, "reasoning tokens and Wait set": figures.WAIT, "control": figures.CONTROL}, note=f"n = {len(asked)} combined prompts, confirm")

# %% [markdown]
# **Figure 3: paired shift of each token's logit, distilled minus base.** Black diamond the stop token, wine the reasoning tokens and the Wait set, grey squares the control words, against whose mean all are measured; the shaded range spans them. Plain form, 95 % bootstrap over confirm prompts; corrected p-values in the table above.

# %% [markdown]
# **What it does not show.** Where in the model the shift arises (notebooks 03 to 05), or that it is these tokens that matter: a shift against words that were never likely changes little.

# %% [markdown]
# ## F07 · Does " Wait" depend on the length of the text?
#
# **Question.** After the answer, text is appended: neutral sentences, blank lines, periods, or `<answer></answer>`, each alone and 1, 3 and 6 times. Metric: change of the Wait set's log-probability minus the mean change of the control words' (the normaliser cancels, so the same is true of logits), from none to six, distilled model, plain form.

# %% [markdown]
# **Control.** The control words under the same texts: does *everything* unlikely become likelier as text grows?

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F07 holds if the change with neutral sentences, Wait set minus control words in log-probability, is more than 0.5 nats from zero over the whole interval, in either direction, (a) by itself and (b) minus the base's change: what the base does as well is no mark of the distilled model. It does not hold if either interval lies within ±0.5, and is inconclusive otherwise.

# %%
few = min(N_GROWN, len(asked))
sentences = neutral_sentences(max(REPEATS))
pieces = {
    "neutral sentences": lambda k: "".join(f" {sentence}" for sentence in sentences[:k]),
    "blank lines": lambda k: "\n\n" * k,
    "periods": lambda k: "." * k,
    "<answer></answer>": lambda k: "<answer></answer>" * k,
}
words = [*groups.wait, *groups.control]


def read_longer(rows: list[int]) -> dict:
    """Log-probabilities of the Wait set and the control words, by model and kind, [prompt, pieces appended, token]."""
    found = {}
    for role, kind in itertools.product(members, pieces):
        texts = [prompt + pieces[kind](k) for prompt in take(prompts[role, "plain"], rows) for k in REPEATS]
        found[f"{role} {kind}"] = next_logprobs(members[role], texts, words).unflatten(0, (-1, len(REPEATS)))
    return found


read = kept(pair, "02_growth", read_longer, few, fresh=RECOMPUTE)
grown = {}
for role, kind in itertools.product(members, pieces):
    of_wait, of_control = np.split(read[f"{role} {kind}"].transpose(1, 0, 2), [len(groups.wait)], axis=-1)
    grown[role, kind] = np.logaddexp.reduce(of_wait, -1), of_control.mean(-1)

# %%
rule = findings.Rule("away", 0.5)
change = {key: (wait[-1] - wait[0], control[-1] - control[0]) for key, (wait, control) in grown.items()}
against = {key: stats.paired(*value) for key, value in change.items()}
main = against["distilled", "neutral sentences"]
in_sentences = {role: change[role, "neutral sentences"] for role in members}
than_base = stats.paired(*(np.subtract(*in_sentences[role]) for role in ("distilled", "base")))
rules = [
    findings.Part("(a) distilled", main, rule),
    findings.Part("(b) distilled minus base", than_base, rule),
]
details = {f"{REPEATS[-1]} pieces of `{kind}`": against["distilled", kind] for kind in list(pieces)[1:]}
details["neutral sentences, base"] = against["base", "neutral sentences"]

# %%
F07 = findings.record(
    pair,
    "F07",
    notebook="02_logits",
    quantity="change of the Wait set's log-probability against control words, "
    f"{REPEATS[-1]} neutral sentences against none, distilled",
    unit="nats",
    rules=rules,
    control=(
        "change of the control words' own log-probability",
        stats.bootstrap(in_sentences["distilled"][1]),
    ),
    details=details,
)
Markdown(findings.sentence(F07))

# %%
panels = {
    kind: {
        **{role: ([stats.bootstrap(row) for row in grown[role, kind][0]], figures.ROLE[role]) for role in ("base", "distilled")},
        "controls (distilled)": ([stats.bootstrap(row) for row in grown["distilled", kind][1]], figures.CONTROL),
    }
    for kind in pieces
}
tags = against["distilled", "<answer></answer>"]
title = f"Wait set against control words, distilled: {main:+.1f} nats with six neutral sentences, {tags:+.1f} with six answer tags"
fig = figures.lines(panels, REPEATS, title=title, xlabel="pieces appended", ylabel="log-probability of the Wait set (nats)")
figures.save_figure(fig, "02_growth", pair=pair.name, note=f"n = {few} combined prompts, confirm")

# %% [markdown]
# **Figure 4: the Wait set as text is appended after the answer.** Blue the base, orange the distilled model, dashed grey the mean log-probability of control words on the distilled model. Bands: 95 % bootstrap over prompts, plain form.

# %% [markdown]
# **What it does not show.** Length alone: each kind of text also ends in its own last character. A step at the first piece that is then nearly flat is an effect of what stands there, not of length.

# %%
p_wait = {key: np.exp(wait).mean(1) for key, (wait, _) in grown.items()}
frame = pd.DataFrame({f"{role}, {kind}": p_wait[role, kind] for role, kind in grown}, index=pd.Index(REPEATS, name="pieces")).T
display(Markdown("Mean P(Wait set) by the number of appended pieces:"), frame.round(4))

# %% [markdown]
# ## F08 · Does the period point to the stop token?
#
# **Question.** Is there a strong bigram from "." to the stop token? Two ways to ask. From *behaviour*: neutral statements, which neither ask nor answer; metric: log P(stop) with the final period minus without it. From the *weights*: the embedding of each token straight through the final norm and the head, and again after layer 0's MLP.

# %% [markdown]
# **Control.** The same statements ending in a comma instead of a period; in the weights, a sample of 500 tokens made of letters, and other punctuation.

# %% [markdown]
# **Rule, written before the result.** F08 holds if the behavioural difference, period minus comma, has an interval above 1 nat on *both* models.

# %%
bare = [sentence.rstrip(".") for sentence in neutral_sentences()]
ended = {(role, end): [m.prompt(sentence + end, "plain") for sentence in bare] for role, m in members.items() for end in (".", ",", "!", "")}


def read_ends(rows: list[int]) -> dict:
    """log P(stop) after each statement, by model and mark."""
    return {f"{role} {end}": next_logprobs(members[role], take(texts, rows), list(members[role].groups.stop)).logsumexp(1) for (role, end), texts in ended.items()}


log_stop = kept(pair, "02_ends", read_ends, len(bare), fresh=RECOMPUTE)
gain = {(role, end): log_stop[f"{role} {end}"] - log_stop[f"{role} "] for role, end in ended if end}

# %%
tokenizer, rng = pair.base.tokenizer, np.random.default_rng(SEED)
sources = [tokenizer(mark, add_special_tokens=False).input_ids[0] for mark in (".", "!", "?", ",", ";", ":", ")")]
words = [i for i in rng.permutation(len(tokenizer)) if tokenizer.decode([int(i)]).strip().isalpha()][:500]
weights = {}
for member in pair.members:
    for first_mlp in (False, True):
        read = bigram_logits(member, [*sources, *map(int, words)], [member.groups.stop[0], *groups.control], first_mlp=first_mlp).numpy()
        weights[member.role, first_mlp] = read[:, 0] - read[:, 1:].mean(1)
ranks = {key: float((value[len(sources) :] < value[0]).mean()) for key, value in weights.items()}
told = ", ".join(f"{role} {'after the first MLP' if mlp else 'embedding alone'} {share:.0%}" for (role, mlp), share in ranks.items())

# %%
bigram = {role: stats.paired(gain[role, "."], gain[role, ","]) for role in ("base", "distilled")}
weakest = min(bigram, key=lambda role: bigram[role].low)
rule = findings.Rule("above", 1)
details = {"exclamation mark minus none, base": stats.bootstrap(gain["base", "!"])}
for (role, mlp), value in ranks.items():
    at = "after the first MLP" if mlp else "embedding alone"
    details[f"weights, share of words that the period beats, {role} {at}"] = value

# %%
F08 = findings.record(
    pair,
    "F08",
    notebook="02_logits",
    quantity="log P(stop) after a period minus after a comma, neutral statements, "
    f"{weakest} (the weaker model)",
    unit="nats",
    interval=bigram[weakest],
    rules=[findings.Part(f"period minus comma, {role}", value, rule) for role, value in bigram.items()],
    control=("a comma minus no mark", stats.bootstrap(gain[weakest, ","])),
    split="neutral",
    details=details,
)
Markdown(findings.sentence(F08))

# %%
marks = {".": "period", "!": "exclamation mark", ",": "comma (control)"}
panels = {
    role: [(label, stats.bootstrap(gain[role, mark]), figures.CONTROL if mark == "," else figures.ROLE[role]) for mark, label in marks.items()]
    for role in ("base", "distilled")
}
title = f"A period gives the stop token {bigram['base'].estimate:+.1f} nats over a comma on the base, {bigram['distilled'].estimate:+.1f} on the distilled"
fig = figures.interval_rows(panels, title=title, unit="log P(stop) against the same text without a mark (nats)", zero=True)
figures.save_figure(fig, "02_period_behaviour", pair=pair.name, note=f"n = {len(bare)} neutral statements")

# %% [markdown]
# **Figure 5: what a closing mark does to P(stop) on neutral text.** 95 % bootstrap over statements; the grey square is the comma.

# %% [markdown]
# **What it does not show.** A bigram in the strict sense: here the sentence before the mark is read as well.

# %%
names = {".": figures.STOP, "!": figures.THIRD, "?": figures.THIRD, ",": figures.CONTROL, ";": figures.CONTROL, ":": figures.CONTROL, ")": figures.CONTROL}
panels = {
    f"{role},\n{'with first MLP' if mlp else 'embedding alone'}": [
        *((repr(mark), v, names[mark]) for mark, v in zip(names, value, strict=False)),
        ("95 % of alphabetic tokens", stats.Interval(float(np.median(of_words)), *map(float, np.quantile(of_words, [0.025, 0.975])), 500), figures.CONTROL),
    ]
    for (role, mlp), value in weights.items() for of_words in [value[len(sources) :]]
}  # fmt: skip
title = f"From the weights alone {1 - ranks['base', False]:.0%} of alphabetic tokens point to the stop token more than the period does (base)"
fig = figures.interval_rows(panels, title=title, unit="logit of the stop token minus control words (nats)")
figures.save_figure(fig, "02_period_weights", pair=pair.name, size=(11, 3.4), note="n = 500 alphabetic tokens")

# %% [markdown]
# **Figure 6: the direct path from a token to the stop token.** Each token's embedding through the final norm and the head, minus the mean of the control tokens; right of each pair, with layer 0's MLP. The lowest row spans the middle 95 % of 500 tokens made of letters.

# %% [markdown]
# **What it does not show.** Attention and the other layers. The direct path has to be read with its sign: where the period lies below the words, the behaviour in figure 5 is not a bigram in the weights but computed from context.

# %% [markdown]
# ## Try it
#
# Edit the text and read out what each model would do next. Figures 1 and 5 hold the same readout for readers without a kernel.

# %%
explorers.next_token(pair)

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F05", "F06", "F07", "F08"))

# %% [markdown]
# Back: [01_prompts](01_prompts.ipynb). Next: [03_logit_lens](03_logit_lens.ipynb) asks at which depth the two models part.
