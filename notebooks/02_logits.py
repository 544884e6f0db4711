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
from helpers.readouts import bigram_logits, last_hidden, logits_of, logprobs_of, next_logprobs
from helpers.readouts import stop_parts, top_tokens
from helpers.store import data_dir, kept, take, write_text
from helpers.tokens import single_id

pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F05", "F06", "F07", "F08"))

# %% [markdown]
# ## Three raw examples, before any average
#
# A **combined prompt** is a question, "Just give the answer." and the base's own complete answer, for questions that the base finishes within 30 tokens and the distilled model does not (notebook 01).

# %%
how = {"max_answer": MAX_ANSWER, "max_new_tokens": MAX_NEW_TOKENS, "fresh": RECOMPUTE}
combined = load_combined(pair, n_prompts=N_PROMPTS, n_combined=N_COMBINED, **how)["confirm"]
asked, given = combined.questions, combined.answers
members = {member.role: member for member in pair.members}
plain = {role: combine(member, asked, given, form="plain") for role, member in members.items()}

# %% [markdown]
# Three of them, drawn at random, as plain text, and below each what the two models find likeliest next.


# %%
def likeliest(role: str, prompt: str) -> str:
    """A model's five likeliest next tokens in one line."""
    best = top_tokens(members[role], [prompt], k=5)[0]
    shares = [f"{findings.code_span(repr(token))} {share:.0%}" for token, share in best]
    return f"- *{role}*: {', '.join(shares)}"


for index in np.random.default_rng(SEED).choice(len(asked), 3, replace=False):
    shown = findings.code_span(plain["base"][index])
    lines = [likeliest(role, plain[role][index]) for role in members]
    display(Markdown("\n".join([f"{shown}\n", *lines])))

# %% [markdown]
# ## The prompts
#
# *Plain* is raw text, as in the notes; *template* puts the question into each model's own chat template, whose distilled form opens `<think>`, and the answer behind it. In the distilled model's template the answer thus stands inside the open thought; F06 to F08 use the plain form only. "Complete" means ended, not right.
#
# The base's number in the template is high by selection: only answers after which it stopped, in that form, were kept. The plain form was not selected on.
#
# Stopping is several events. The stop tokens of a model are summed into P(stop); `</think>`, which ends a thought and not the answer, is told apart; so is the **Wait set** {"Wait", " Wait", " wait", "wait"}.

# %%
n_shown = f"n = {len(asked)} combined prompts, confirm"
right = f"the base's answer is right in {np.mean(combined.right):.0%}"
Markdown(f"{len(asked)} combined prompts of the confirm split on {pair.describe()}; {right}.")

# %% [markdown]
# ## F05 · Does the base stop at once?
#
# **Question.** What probability does each model give to stopping right after the base's own complete answer? Metric: mean P(stop) over combined prompts.

# %% [markdown]
# **Controls.** The same question with *another* question's answer (does any sentence make it stop?), and the same answer *cut before its last word* (does any position?).

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F05 holds if (a) the interval of the base's mean P(stop), plain form, lies above 0.5 and (b) that of the distilled model's minus the base's, on the same prompts, lies below 0: two copies of one model must fail. The number that it must be held against is the answer cut short.

# %%
FORMS, BEFORE, AFTER = ("plain", "template"), "before the answer", "after the answer"
OTHER, CUT = "another question's answer", "answer cut before its last word"
states = {
    BEFORE: None,
    AFTER: given,
    OTHER: given[1:] + given[:1],
    CUT: [" ".join(answer.split()[:-1]) or answer[:-1] for answer in given],
}
colours = {
    "stop": figures.STOP,
    "</think>": figures.THIRD,
    "<think>": figures.PALE,
    "Wait set": figures.WAIT,
    "new line": figures.LINE,
    "rest": figures.REST,
}

# %% [markdown]
# Every model reads every state in both forms; its next-token probability is split into six parts that sum to one.


# %%
def read_parts(rows: list[int]) -> dict:
    """P(next token) in parts for each model, form and state, [prompt, part]."""
    found, chosen = {}, take(asked, rows)
    for role, form, state in itertools.product(members, FORMS, states):
        if states[state] is None:
            shown = ask(members[role], chosen, form=form)
        else:
            shown = combine(members[role], chosen, take(states[state], rows), form=form)
        found[f"{role} {form} {state}"] = stop_parts(members[role], shown)[list(colours)]
    return found


parts = kept(pair, "02_parts", read_parts, len(asked), fresh=RECOMPUTE)

# %% [markdown]
# Each number is a mean over prompts; two models, or two states, are compared on the same prompts.


# %%
def p_stop(role: str, form: str = "plain", state: str = AFTER) -> np.ndarray:
    """P(stop) of one model, [prompt]."""
    return parts[f"{role} {form} {state}"][:, 0]


base_stops = stats.bootstrap(p_stop("base"))
after_other = stats.bootstrap(p_stop("base", state=OTHER))
after_cut = stats.bootstrap(p_stop("base", state=CUT))
fall = stats.paired(p_stop("distilled"), p_stop("base"))
template_fall = stats.paired(p_stop("distilled", "template"), p_stop("base", "template"))

# %%
rules = [
    findings.Part("(a) P(stop), base, plain", base_stops, findings.Rule("above", 0.5)),
    findings.Part("(b) distilled minus base, plain", fall, findings.Rule("below", 0)),
]
own_minus_other = stats.paired(p_stop("base"), p_stop("base", state=OTHER))
details = {
    "in the template, base": stats.bootstrap(p_stop("base", "template")),
    "before any answer, base": stats.bootstrap(p_stop("base", state=BEFORE)),
    "after another question's answer, base": after_other,
    "own answer minus another question's, base": own_minus_other,
    "distilled minus base, template": template_fall,
}

# %%
F05 = findings.record(
    pair,
    "F05",
    notebook="02_logits",
    quantity="the base's mean P(stop) after its own complete answer, plain form",
    unit="probability",
    rules=rules,
    control=("the same answers cut before their last word", after_cut),
    details=details,
)
Markdown(findings.sentence(F05))

# %% [markdown]
# Figure 1 leaves out the template before any answer, where a model's turn only begins; it stands in figure 2.

# %%
shown = [("plain", BEFORE), ("plain", AFTER), ("template", AFTER)]
rows = {
    f"{role}, {form}: {state}": dict(zip(colours, parts[f"{role} {form} {state}"].mean(0), strict=True))
    for form, state in shown
    for role in members
}

# %%
moves = {
    form: "falls" if change.high < 0 else "rises" if change.low > 0 else "not clearly"
    for form, change in zip(FORMS, (fall, template_fall), strict=True)
}
title = f"P(stop) from base to distilled: {moves['plain']} in plain text, {moves['template']} in the template"
fig = figures.stacked_rows(rows, colours, title=title, unit="mean probability of the next token")
figures.save_figure(fig, "02_stop_parts", pair=pair.name, key=colours, note=n_shown)

# %% [markdown]
# **Figure 1: what comes next, before and after the answer.** Black the stop tokens, indigo `</think>`, pink `<think>`, wine the Wait set, light blue a new line, pale all else; means over the combined prompts of the confirm split, intervals in figure 2. In the plain form a model may stop already *before* the answer, after "Just give the answer.": then the stop after the answer is no judgement of the answer.


# %%
def stop_row(role: str, form: str, state: str) -> tuple[str, stats.Interval, str]:
    """A label, the interval of P(stop), and its colour: grey for the controls."""
    colour = figures.ROLE[role] if state in (BEFORE, AFTER) else figures.CONTROL
    return f"{form}: {state}", stats.bootstrap(p_stop(role, form, state)), colour


def still(control: stats.Interval) -> str:
    """Whether a control keeps half of the base's P(stop), in a word."""
    return "still" if control.estimate > base_stops.estimate / 2 else "hardly"


# %%
panels = {role: [stop_row(role, form, state) for form in FORMS for state in states] for role in members}
title = (
    f"Another question's answer {still(after_other)} stops the base, one cut short {still(after_cut)} does"
)
fig = figures.interval_rows(panels, title=title, unit="mean P(stop)", span=(-0.03, 1.03))
figures.save_figure(fig, "02_stop_controls", pair=pair.name, note=n_shown)

# %% [markdown]
# **Figure 2: P(stop) after the answer and after its controls.** Grey squares: another question's answer, and the answer cut before its last word. 95 % bootstrap over prompts.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That the model judges the answer: as far as another question's answer stops it too, a finished sentence is enough. The cut also removes the final mark, so this figure cannot tell an unfinished answer from an unpunctuated one; F08 below looks at the mark alone.
#
# </details>

# %% [markdown]
# ## F06 · Which logits fell, which rose?
#
# **Question.** How do the logits of the stop token and of the twelve reasoning tokens of the notes differ between the models on the same plain prompts? Metric: paired shift, distilled minus base, of each token's logit, minus the mean shift of twelve control words of like merge rank, a proxy for frequency (the stop token has no such match): $\Delta_t = (z^D_t - z^B_t) - \overline{(z^D_c - z^B_c)}$.

# %% [markdown]
# **Control.** The twelve control words, each against the mean of all twelve. P-values come from flipping signs over prompts and are corrected over all tokens (Benjamini-Hochberg). Most control words pass that test too, since it only asks whether prompts agree; what singles a token out is lying outside the grey range in figure 3.

# %% [markdown]
# **Rule, written before the result.** F06 holds if the stop token's $\Delta$ has an interval below -2 *and* the mean $\Delta$ of the twelve reasoning tokens has one above 0.

# %%
groups = pair.base.groups
token_sets = {
    "stop": groups.stop[:1],
    "reasoning": groups.reasoning,
    "Wait set": groups.wait,
    "control": groups.control,
}
tokens = list(dict.fromkeys(itertools.chain(*token_sets.values())))
columns = {name: [tokens.index(token) for token in some] for name, some in token_sets.items()}
first_set = [next(name for name, some in token_sets.items() if token in some) for token in tokens]

# %% [markdown]
# A token may be in two sets (" Wait" is a reasoning token as well); `columns` holds where each set's tokens stand.


# %%
def read_logits(rows: list[int]) -> dict:
    """Logits and log-probabilities of the chosen tokens, [prompt, token], by model."""
    found = {}
    for role, member in members.items():
        hidden = last_hidden(member, take(plain[role], rows))
        found[f"logit {role}"] = logits_of(member, hidden, tokens)
        found[f"logprob {role}"] = logprobs_of(member, hidden, tokens)
    return found


read = kept(pair, "02_shift", read_logits, len(asked), fresh=RECOMPUTE)
raw = read["logit distilled"] - read["logit base"]
shift = raw - raw[:, columns["control"]].mean(axis=1, keepdims=True)

# %%
measures = [f"{kind} {role}" for kind in ("logit", "logprob") for role in members]
table = pd.DataFrame(
    {
        "token": [pair.base.tokenizer.decode([token]) for token in tokens],
        "group": first_set,
        **{name: read[name].mean(0).astype(float) for name in measures},
        "shift": shift.mean(0).astype(float),
        "p": stats.sign_flip_p(shift),
    }
)
table["p corrected"] = stats.false_discovery(table["p"])
write_text(data_dir(pair.name) / "02_logits.csv", table.to_csv(index=False, float_format="%.4f"))
table.assign(token=table["token"].map(repr)).set_index("token").round(3)

# %% [markdown]
# Shifts of whole sets are means over their tokens, then intervals over prompts. The Wait set's probability is the sum of its spellings'.


# %%
def mean_of(values: np.ndarray, name: str) -> stats.Interval:
    """Interval over prompts of the mean of one set's tokens."""
    return stats.bootstrap(values[:, columns[name]].mean(1))


stop_shift, wait_shift = mean_of(shift, "stop"), mean_of(shift, "Wait set")
control_shifts = shift[:, columns["control"]].mean(0)
p_wait, log_wait = {}, {}
for role in members:
    log_wait[role] = np.logaddexp.reduce(read[f"logprob {role}"][:, columns["Wait set"]], axis=1)
    p_wait[role] = float(np.exp(log_wait[role]).mean())
wait_gain = stats.paired(log_wait["distilled"], log_wait["base"])

# %%
stop_at = columns["stop"][0]
stop_logprob = {role: read[f"logprob {role}"][:, stop_at] for role in members}
details = {
    "Wait set's mean shift": wait_shift,
    "raw logits, stop token": mean_of(raw, "stop"),
    "raw logits, control tokens": mean_of(raw, "control"),
    "log-probability, stop token": stats.paired(stop_logprob["distilled"], stop_logprob["base"]),
    "log-probability, Wait set": wait_gain,
    "Wait set, times as likely in the geometric mean": float(np.exp(wait_gain.estimate)),
}

# %% [markdown]
# Beside the shifts stand probabilities: those of the Wait set and of a new line.

# %%
newline = single_id(pair.base.tokenizer, "\n")
line_at = tokens.index(newline) if newline in tokens else stop_at
line = "a new line" if line_at != stop_at else "stopping"
p_line = {role: stats.bootstrap(np.exp(read[f"logprob {role}"][:, line_at])) for role in members}
for role in members:
    details[f"mean P of the Wait set, {role}"] = p_wait[role]
    details[f"mean P of {line}, {role}"] = p_line[role]

# %%
reasoning = mean_of(shift, "reasoning")
F06 = findings.record(
    pair,
    "F06",
    notebook="02_logits",
    quantity="shift of the stop token's logit against control tokens, distilled minus base",
    unit="nats",
    rules=[
        findings.Part("stop token's shift", stop_shift, findings.Rule("below", -2)),
        findings.Part("reasoning tokens' mean shift", reasoning, findings.Rule("above", 0)),
    ],
    control=(
        "mean size of a control token's own shift (n counts tokens)",
        stats.bootstrap(np.abs(control_shifts)),
    ),
    details=details,
)
Markdown(findings.sentence(F06))

# %% [markdown]
# Figure 3 orders all tokens by their shift.

# %%
key = {
    "stop token": figures.STOP,
    "reasoning tokens and Wait set": figures.WAIT,
    "control words": figures.CONTROL,
}
ink = dict(zip(("stop", "reasoning", "control"), key.values(), strict=True)) | {"Wait set": figures.WAIT}
rows = [
    (repr(row.token), stats.bootstrap(shift[:, place]), ink[row.group])
    for place, row in enumerate(table.itertuples())
]
rows.sort(key=lambda row: -row[1].estimate)


# %%
def against_controls(moved: stats.Interval) -> str:
    """Where a shift lies, seen from the range of the control words."""
    low, high = control_shifts.min(), control_shifts.max()
    return "below" if moved.estimate < low else "above" if moved.estimate > high else "within"


where = against_controls(stop_shift), against_controls(wait_shift)
title = f"The stop token's shift is {where[0]} the range of control words, that of Wait {where[1]} it"
shade = (control_shifts.min(), control_shifts.max())
unit = "shift of the logit against control words (nats)"
fig = figures.interval_rows({"": rows}, title=title, unit=unit, zero=True, shade=shade)
figures.save_figure(fig, "02_logit_shift", pair=pair.name, key=key, size=(7.6, 8), note=n_shown)

# %% [markdown]
# **Figure 3: paired shift of each token's logit, distilled minus base.** Black diamond the stop token, wine the reasoning tokens and the Wait set, grey squares the control words, against whose mean all are measured; the shaded range spans them. Plain form, 95 % bootstrap over confirm prompts; corrected p-values in the table above.

# %% [markdown]
# **What decides the reading: against which words?** The control words are unlikely ones, and they move themselves. The same logits, without them:

# %%
spread = raw[:, columns["control"]].mean(0)
log_odds = {}
for role in members:
    logits = read[f"logit {role}"].mean(0)
    log_odds[role] = logits[stop_at] - logits[line_at]
Markdown(
    f"In raw logits, distilled minus base, the stop token moves by {raw[:, stop_at].mean():+.1f} nats, "
    f"{line} by {raw[:, line_at].mean():+.1f}, and the twelve control words by {spread.min():+.1f} to "
    f"{spread.max():+.1f}. The log-odds of the stop token against {line} go from "
    f"{log_odds['base']:+.1f} to {log_odds['distilled']:+.1f}."
)

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Where in the model the shift arises (notebooks 03 to 05), or that it is these tokens that matter: a shift against words that were never likely changes little.
#
# </details>

# %% [markdown]
# ## F07 · Does " Wait" depend on the length of the text?
#
# **Question.** After the answer, text is appended: neutral sentences, blank lines, periods, or `<answer></answer>`, each alone and 1, 3 and 6 times. Metric: change of the Wait set's log-probability minus the mean change of the control words' (the normaliser cancels, so the same is true of logits), from none to six, distilled model, plain form.

# %% [markdown]
# **Control.** The control words under the same texts: does *everything* unlikely become likelier as text grows?

# %% [markdown]
# **Rule, made stricter after a first look at the result.** F07 holds if the change with neutral sentences, Wait set minus control words in log-probability, is more than 0.5 nats from zero over the whole interval, in either direction, (a) by itself and (b) minus the base's change: what the base does as well is no mark of the distilled model. It does not hold if either interval lies within ±0.5, and is inconclusive otherwise.

# %%
few, words = min(N_GROWN, len(asked)), [*groups.wait, *groups.control]
sentences = [f" {sentence}" for sentence in neutral_sentences(max(REPEATS))]
SENTENCES, LINES, PERIODS, TAGS = "neutral sentences", "blank lines", "periods", "<answer></answer>"
appended = {
    SENTENCES: ["".join(sentences[:k]) for k in REPEATS],
    LINES: ["\n\n" * k for k in REPEATS],
    PERIODS: ["." * k for k in REPEATS],
    TAGS: [TAGS * k for k in REPEATS],
}


def read_longer(rows: list[int]) -> dict:
    """Log-probabilities of Wait set and control words, [prompt, pieces, token], by model and kind."""
    found = {}
    for role, kind in itertools.product(members, appended):
        texts = [prompt + more for prompt in take(plain[role], rows) for more in appended[kind]]
        logprobs = next_logprobs(members[role], texts, words)
        found[f"{role} {kind}"] = logprobs.unflatten(0, (-1, len(REPEATS)))
    return found


# %% [markdown]
# The Wait set's probability is again a sum over its spellings, the controls' log-probability a mean over words.

# %%
longer = kept(pair, "02_growth", read_longer, few, fresh=RECOMPUTE)
grown = {}
for role, kind in itertools.product(members, appended):
    logprobs = longer[f"{role} {kind}"].transpose(1, 0, 2)  # [pieces, prompt, token]
    of_wait, of_control = np.split(logprobs, [len(groups.wait)], axis=-1)
    grown[role, kind] = np.logaddexp.reduce(of_wait, -1), of_control.mean(-1)


def change(role: str, kind: str) -> list[np.ndarray]:
    """Wait set and control words, with the most pieces minus with none, [prompt] each."""
    return [values[-1] - values[0] for values in grown[role, kind]]


# %% [markdown]
# The change from none to the most pieces is told against the control words, then against the base.

# %%
with_sentences = stats.paired(*change("distilled", SENTENCES))
against_words = {role: np.subtract(*change(role, SENTENCES)) for role in members}
beyond_base = stats.paired(against_words["distilled"], against_words["base"])
rules = [
    findings.Part("(a) distilled", with_sentences, findings.Rule("away", 0.5)),
    findings.Part("(b) distilled minus base", beyond_base, findings.Rule("away", 0.5)),
]
details = {
    f"{REPEATS[-1]} pieces of `{kind}`": stats.paired(*change("distilled", kind))
    for kind in (LINES, PERIODS, TAGS)
}
details["neutral sentences, base"] = stats.paired(*change("base", SENTENCES))

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
        stats.bootstrap(change("distilled", SENTENCES)[1]),
    ),
    details=details,
)
Markdown(findings.sentence(F07))


# %%
def growth_lines(kind: str) -> dict:
    """Label: (intervals by pieces appended, colour)."""
    series = {role: (grown[role, kind][0], figures.ROLE[role]) for role in members}
    series["controls (distilled)"] = grown["distilled", kind][1], figures.CONTROL
    return {label: (stats.bands(values.T), colour) for label, (values, colour) in series.items()}


moved = {"holds": "move", "does not hold": "hardly move", "inconclusive": "may move"}[rules[0].verdict]
size = f"{with_sentences.estimate:+.1f} nats against control words"
title = f"Neutral sentences {moved} the distilled model's Wait set: {size}"
panels = {kind: growth_lines(kind) for kind in appended}
ylabel = "log P(Wait set) (nats)"
fig = figures.lines(panels, REPEATS, title=title, xlabel="pieces appended", ylabel=ylabel, rows=2)
figures.save_figure(fig, "02_growth", pair=pair.name, note=f"n = {few} combined prompts, confirm")

# %% [markdown]
# **Figure 4: the Wait set as text is appended after the answer.** Blue the base, orange the distilled model, dashed grey the mean log-probability of control words on the distilled model. Bands: 95 % bootstrap over prompts, plain form.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Length alone: each kind of text also ends in its own last character. A step at the first piece that is then nearly flat is an effect of what stands there, not of length.
#
# </details>

# %% [markdown]
# The same as probabilities, P(Wait set) in the mean over prompts:

# %%
pieces = pd.Index(REPEATS, name="pieces appended")
p_wait_set = {f"{role}, {kind}": np.exp(grown[role, kind][0]).mean(1) for role, kind in grown}
pd.DataFrame(p_wait_set, index=pieces).T.round(4)

# %% [markdown]
# ## F08 · Does the period point to the stop token?
#
# **Question.** Is there a strong bigram from "." to the stop token? Two ways to ask. From *behaviour*: neutral statements, which neither ask nor answer; metric: log P(stop) with the final period minus without it. From the *weights*: the embedding of each token straight through the final norm and the head, and again after layer 0's MLP.

# %% [markdown]
# **Control.** The same statements ending in a comma instead of a period; in the weights, a sample of 500 tokens made of letters, and other punctuation.

# %% [markdown]
# **Rule, written before the result.** F08 holds if the behavioural difference, period minus comma, has an interval above 1 nat on *both* models.

# %%
marks = {".": "period", "!": "exclamation mark", ",": "comma (control)"}
statements = [sentence.rstrip(".") for sentence in neutral_sentences()]


def read_ends(rows: list[int]) -> dict:
    """log P(stop) after each statement, [prompt], by model and mark."""
    found = {}
    for (role, m), mark in itertools.product(members.items(), [*marks, ""]):
        prompts = [m.prompt(text + mark, "plain") for text in take(statements, rows)]
        found[f"{role} {mark}"] = next_logprobs(m, prompts, list(m.groups.stop)).logsumexp(1)
    return found


log_stop = kept(pair, "02_ends", read_ends, len(statements), fresh=RECOMPUTE)

# %% [markdown]
# The same from the weights alone: seven marks and 500 words, by embedding alone and after the first MLP.

# %%
tokenizer, rng = pair.base.tokenizer, np.random.default_rng(SEED)
sources = {mark: tokenizer(mark, add_special_tokens=False).input_ids[0] for mark in ".!?,;:)"}
alphabetic = (int(i) for i in rng.permutation(len(tokenizer)) if tokenizer.decode([int(i)]).strip().isalpha())
read_from = [*sources.values(), *itertools.islice(alphabetic, 500)]
paths = {"embedding alone": False, "after the first MLP": True}
pull = {}
for (role, m), path in itertools.product(members.items(), paths):
    targets = [m.groups.stop[0], *groups.control]
    logits = bigram_logits(m, read_from, targets, first_mlp=paths[path]).numpy()
    pull[role, path] = np.split(logits[:, 0] - logits[:, 1:].mean(1), [len(sources)])
beaten = {key: float((of_words < of_marks[0]).mean()) for key, (of_marks, of_words) in pull.items()}

# %% [markdown]
# Then the rule's numbers: period against comma after the same statements, on either model.


# %%
def gain(role: str, mark: str) -> np.ndarray:
    """log P(stop) with a closing mark minus without one, [prompt]."""
    return log_stop[f"{role} {mark}"] - log_stop[f"{role} "]


bigram = {role: stats.paired(gain(role, "."), gain(role, ",")) for role in members}
weakest = min(bigram, key=lambda role: bigram[role].low)
rule = findings.Rule("above", 1)
details = {"exclamation mark minus none, base": stats.bootstrap(gain("base", "!"))}
for (role, path), share in beaten.items():
    details[f"weights, share of words that the period beats, {role} {path}"] = share

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
    control=("a comma minus no mark", stats.bootstrap(gain(weakest, ","))),
    split="neutral",
    details=details,
)
Markdown(findings.sentence(F08))


# %%
def mark_row(role: str, mark: str) -> tuple[str, stats.Interval, str]:
    """A label, the interval of the gain in log P(stop), and its colour: grey for the comma."""
    colour = figures.CONTROL if mark == "," else figures.ROLE[role]
    return marks[mark], stats.bootstrap(gain(role, mark)), colour


panels = {role: [mark_row(role, mark) for mark in marks] for role in members}
ends = [end for rows in panels.values() for _, value, _ in rows for end in (value.low, value.high, 0)]
span = (min(ends) - 0.5, max(ends) + 0.5)
least = min(value.estimate for value in bigram.values())
title = f"Over a comma, a period gives the stop token at least {least:+.1f} nats on both models"
unit = "log P(stop) against the same text without a mark (nats)"
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True, span=span)
note = f"n = {len(statements)} neutral statements"
figures.save_figure(fig, "02_period_behaviour", pair=pair.name, note=note)

# %% [markdown]
# **Figure 5: what a closing mark does to P(stop) on neutral text.** 95 % bootstrap over statements; the grey square is the comma.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# A bigram in the strict sense: here the sentence before the mark is read as well.
#
# </details>


# %%
def pull_rows(path: str) -> list[tuple]:
    """Marks as numbers and the range of the words, in each model's colour."""
    rows = []
    for role in members:
        of_marks, of_words = pull[role, path]
        middle, low, high = np.quantile(of_words, [0.5, 0.025, 0.975])
        words_range = stats.Interval(middle, low, high, len(of_words))
        named = zip([*map(repr, sources), "95 % of words"], [*of_marks, words_range], strict=True)
        rows += [(label, value, figures.ROLE[role]) for label, value in named]
    return rows


# %%
panels = {path: pull_rows(path) for path in paths}
share = 1 - beaten["base", "embedding alone"]
title = f"In the base's weights alone {share:.0%} of words point to stopping more than a period"
unit = "logit of the stop token minus control words (nats)"
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True)
note = "n = 500 words: tokens made of letters"
figures.save_figure(fig, "02_period_weights", pair=pair.name, key=figures.ROLE, note=note)

# %% [markdown]
# **Figure 6: the direct path from a token to the stop token.** Each token's embedding through the final norm and the head, minus the mean of the control tokens; on the right, with layer 0's MLP. Blue the base, orange the distilled model. The lowest row spans the middle 95 % of 500 tokens made of letters.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Attention and the other layers. The direct path has to be read with its sign: where the period lies below the words, the behaviour in figure 5 is not a bigram in the weights but computed from context.
#
# </details>

# %% [markdown]
# ## Try it
#
# Edit the text and read out what each model would do next. Figures 1 and 5 hold the same readout for readers without a kernel.

# %%
explorers.next_token(pair)

# %% [markdown]
# ## Takeaway

# %%
of_base, of_distilled = (F06["details"][f"mean P of {line}, {role}"]["estimate"] for role in members)
base, fell = (part["estimate"] for part in F05["rules"])
other = F05["details"]["after another question's answer, base"]["estimate"]
cut_short = F05["control"]["estimate"]
wait_times = F06["details"]["Wait set, times as likely in the geometric mean"]
wait_reaches = F06["details"]["mean P of the Wait set, distilled"]
times = np.exp(F08["estimate"])
times = round(times, 1 - len(str(int(times))))
Markdown(
    f"Right after the base's own answer, in plain text, the base stops with a probability of {base:.0%}, "
    f"the distilled model with {base + fell:.0%}. The distilled model puts {of_distilled:.0%} on {line} "
    f'(the base {of_base:.0%}); "Wait" becomes {wait_times:.3g} times as likely on a typical prompt, which '
    f"makes {wait_reaches:.1%}. The base {still(after_other)} stops after another question's answer "
    f"({other:.0%}) and {still(after_cut)} after its own cut short ({cut_short:.0%}), and on the "
    f"{weakest} a closing period makes stopping about {times:,.0f} times as likely as a comma does."
)

# %% [markdown]
# Back: [01_prompts](01_prompts.ipynb). Next: [03_logit_lens](03_logit_lens.ipynb) asks at which depth the two models part.
