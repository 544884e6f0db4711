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
# **Evidence.** The split of the next-token probability before and after the answer (figure 1), lengths under crossed templates (figure 3), and the paired change of the log-odds of stopping (figure 5) and of every logit beside frequency-matched control tokens (figure 4).
#
# **Caveat.** A logit has no zero: only differences within one model mean anything. So stopping is told by its log-odds, each shift relative to control tokens, and where the two verdicts differ the text says why. The numbers stored here are from the embedded pair `smol` and say nothing about DeepSeek-R1.
#
# **Reads** `data/prompts.jsonl`, `data/neutral.txt` and stored completions where they match (else computes them). **Writes** `data/<pair>/02_logits.csv`, `02_crossed_*.json`, findings F05 to F08, figures `02_*`.

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
N_CROSSED = 48  # quick: 4; confirm questions whose templates are crossed

# %% jupyter={"source_hidden": true} tags=["claim"]
import itertools
import re

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, stats
from helpers.fork import line_marks
from helpers.generation import answers, judged, load_combined, stored_completions
from helpers.pairs import Member, load_pair
from helpers.prompts import ask, combine, load_questions, neutral_sentences
from helpers.readouts import bigram_logits, last_hidden, last_hidden_shared, log_odds, logits_of, logprobs_of
from helpers.readouts import measure, next_distribution, stop_odds, top_tokens
from helpers.store import data_dir, kept, take, write_text

pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F05", "F06", "F07", "F08"))

# %% [markdown]
# ## Three raw examples, before any average
#
# A **combined prompt** is a question, "Just give the answer." and the base's own complete answer, for questions that the base finishes within 30 tokens and the distilled model does not (notebook 01). Three of them, drawn at random, as plain text, and below each what the two models find likeliest next.

# %%
how = {"max_answer": MAX_ANSWER, "max_new_tokens": MAX_NEW_TOKENS, "fresh": RECOMPUTE}
combined = load_combined(pair, n_prompts=N_PROMPTS, n_combined=N_COMBINED, **how)["confirm"]
asked, given = combined.questions, combined.answers
members = {member.role: member for member in pair.members}
plain = {role: combine(member, asked, given, form="plain") for role, member in members.items()}


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
# *Plain* is raw text, as in the notes; *template* puts the question into each model's own chat template, whose distilled form opens `<think>`, and the answer behind it. In the distilled model's template the answer thus stands inside the open thought. The shift of single logits (F06), F07 and F08 use the plain form only. "Complete" means ended, not right.
#
# The base's number in the template is high by selection: only answers after which it stopped, in that form, were kept. The plain form was not selected on.

# %% [markdown]
# Stopping is several events. The stop tokens of a model are summed into P(stop), and the **log-odds of stopping** are log P(stop) - log(1 - P(stop)). `</think>`, which ends a thought and not the answer, is told apart; so are its rivals: the **Wait set** {"Wait", " Wait", " wait", "wait"}, **new lines** (every token that ends in one or more), and the notes' **keywords** (Wait set and twelve reasoning tokens, some of them in another set as well).

# %%
n_shown = f"n = {len(asked)} combined prompts, confirm"
right = f"the base's answer is right in {np.mean(combined.right):.0%}"
Markdown(f"{len(asked)} combined prompts of the confirm split on {pair.describe()}; {right}.")

# %% [markdown]
# ## F05 · Does the base stop at once?
#
# **Question.** What probability does each model give to stopping right after the base's own complete answer? Metric: mean P(stop) over combined prompts.

# %% [markdown]
# **Controls.** The same question with *another* question's answer (does any sentence make it stop?), and the same answer *cut before its last word* (does any position?). **Rule, made stricter after a first look at the result.** F05 holds if (a) the interval of the base's mean P(stop), plain form, lies above 0.5 and (b) that of the distilled model's minus the base's, on the same prompts, lies below 0: two copies of one model must fail. The number that it must be held against is the answer cut short. By the log-odds of stopping, the same two: (a) the base's mean above 0, (b) the change below 0.

# %%
FORMS, BEFORE, AFTER = ("plain", "template"), "before the answer", "after the answer"
OTHER, CUT = "another question's answer", "answer cut before its last word"
states = {
    BEFORE: [""] * len(given),
    AFTER: given,
    OTHER: given[1:] + given[:1],
    CUT: [" ".join(answer.split()[:-1]) or answer[:-1] for answer in given],
}
ADDED = {"no thought": "", "thought opened": "<think>\n", "empty thought": "<think>\n\n</think>\n\n"}
reads = [*itertools.product(FORMS, states), *itertools.product(ADDED, (BEFORE, AFTER))]

# %% [markdown]
# Beside its own template each model gets it with the opening of a thought taken away, put there, or closed at once: a section below needs them. For a base whose vocabulary lacks the tags they are text.


# %%
def put(member: Member, questions: list, form: str, said: list[str] = ()) -> list[str]:
    """Questions in one of FORMS, or in the template with what ADDED says for its own opening, and what is
    said behind them."""
    prompts = ask(member, questions, form="plain" if form == "plain" else "template")
    if form in ADDED:
        prompts = [re.sub(r"<think>\s*$", "", prompt) + ADDED[form] for prompt in prompts]
    gap = " " if form == "plain" else ""
    said = [f"{gap}{text.strip()}" if text else "" for text in said or [""] * len(prompts)]
    return [prompt + text for prompt, text in zip(prompts, said, strict=True)]


# %% [markdown]
# The sets, and the log-probability of each: that of the sum over its tokens.


# %%
def sets_of(member: Member) -> dict:
    """Token ids by the name of their set; a set may be empty."""
    known, lines = member.groups, line_marks(member.tokenizer)
    tags = {"</think>": known.end_think, "<think>": known.think}
    sets = {"stop": known.stop} | {tag: () if one is None else (one,) for tag, one in tags.items()}
    sets |= {"Wait set": known.wait, "new lines": lines.one + lines.blank}
    return sets | {"keywords": tuple(dict.fromkeys(known.wait + known.reasoning))}


def log_shares(member: Member, hidden: torch.Tensor) -> torch.Tensor:
    """Log P of each set behind each state, [row, set]."""
    sets = sets_of(member).values()
    found = logprobs_of(member, hidden, [token for some in sets for token in some])
    return torch.stack([part.logsumexp(1) for part in found.split([*map(len, sets)], dim=1)], dim=1)


# %% [markdown]
# All prompts of one question share their beginning, which is run once.


# %%
def read_sets(rows: list[int]) -> dict:
    """Log P of each set and, last, the log-odds of stopping, [prompt, set], by model, form and state."""
    found, chosen = {}, take(asked, rows)
    for role, m in members.items():
        texts = [put(m, chosen, form, take(states[state], rows)) for form, state in reads]
        hidden = last_hidden_shared(m, [text for some in zip(*texts, strict=True) for text in some])
        odds = torch.cat([m.at_weights(stop_odds(m), some).cpu() for some in hidden.split(128)])
        values = torch.cat([log_shares(m, hidden), odds[:, None]], dim=1).unflatten(0, (-1, len(reads)))
        found |= {f"{role} {form} {state}": values[:, k] for k, (form, state) in enumerate(reads)}
    return found


log_p = kept(pair, "02_parts", read_sets, len(asked), fresh=RECOMPUTE)
SETS = list(sets_of(pair.base))

# %% [markdown]
# Each number is a mean over prompts; two models, or two states, are compared on the same prompts. Two laws: the log-odds give P(stop) again, and a difference of two log-probabilities is the log-odds of one set against the other.


# %%
def read_off(what: str, role: str, form: str = "plain", state: str = AFTER) -> np.ndarray:
    """Log P of one set, or the "log-odds" of stopping, [prompt]."""
    return log_p[f"{role} {form} {state}"][:, [*SETS, "log-odds"].index(what)].astype(float)


def p_stop(*where: str, **more: str) -> np.ndarray:
    """P(stop) of one model, [prompt]."""
    return np.exp(read_off("stop", *where, **more))


for role, m in members.items():
    assert np.allclose(p_stop(role), 1 / (1 + np.exp(-read_off("log-odds", role))), atol=1e-4)
    ids = sets_of(m)
    against = measure(m, plain[role][:2], log_odds(m, ids["stop"], against=ids["new lines"])).numpy()
    both = (read_off("stop", role) - read_off("new lines", role))[:2]
    assert np.allclose(against, both, atol=0.01 if m.dtype == torch.float32 else 0.5), (
        "two ways to one number"
    )

# %%
base_stops, after_other, after_cut = (stats.bootstrap(p_stop("base", state=s)) for s in (AFTER, OTHER, CUT))
fall, template_fall = (stats.paired(p_stop("distilled", form), p_stop("base", form)) for form in FORMS)
odds_fall, template_odds = (
    stats.paired(*(read_off("log-odds", role, form) for role in ("distilled", "base"))) for form in FORMS
)
of_base, in_template = (stats.bootstrap(read_off("log-odds", "base", form)) for form in FORMS)
details = {
    "in the template, base": stats.bootstrap(p_stop("base", "template")),
    "before any answer, base": stats.bootstrap(p_stop("base", state=BEFORE)),
    "after another question's answer, base": after_other,
    "own answer minus another question's, base": stats.paired(p_stop("base"), p_stop("base", state=OTHER)),
    "distilled minus base, template": template_fall,
    "log-odds of stopping, template, base": in_template,
    "log-odds of stopping, template, distilled minus base": template_odds,
}

# %%
F05 = findings.record(
    pair,
    "F05",
    notebook="02_logits",
    quantity="the base's mean P(stop) after its own complete answer, plain form",
    unit="probability",
    rules=[
        findings.Part("(a) P(stop), base, plain", base_stops, findings.Rule("above", 0.5)),
        findings.Part("(b) distilled minus base, plain", fall, findings.Rule("below", 0)),
    ],
    stopping=[
        findings.Part("(a) log-odds of stopping, base, plain", of_base, findings.Rule("above", 0)),
        findings.Part("(b) the same, distilled minus base", odds_fall, findings.Rule("below", 0)),
    ],
    control=("the same answers cut before their last word", after_cut),
    details=details,
)
Markdown(findings.sentence(F05))

# %% [markdown]
# Figure 1 leaves out the template before any answer, where a model's turn only begins; it stands in figure 2.

# %%
ink = figures.STOP, figures.THIRD, figures.PALE, figures.WAIT, figures.LINE, figures.REST
colours = dict(zip([*SETS[:-1], "rest"], ink, strict=True))
rows = {}
for (form, state), role in itertools.product((("plain", BEFORE), *((f, AFTER) for f in FORMS)), members):
    parts = {name: float(np.exp(read_off(name, role, form, state)).mean()) for name in SETS[:-1]}
    rows[f"{role}, {form}: {state}"] = parts | {"rest": 1 - sum(parts.values())}


def moves(change: stats.Interval, less: str = "falls", more: str = "rises", same: str = "not clearly") -> str:
    """Which way a change goes, where the whole interval says so."""
    return less if change.high < 0 else more if change.low > 0 else same


title = f"P(stop) from base to distilled: {moves(fall)} in plain text, {moves(template_fall)} in the template"
fig = figures.stacked_rows(rows, colours, title=title, unit="mean probability of the next token")
figures.save_figure(fig, "02_stop_parts", pair=pair.name, key=colours, note=n_shown)

# %% [markdown]
# **Figure 1: what comes next, before and after the answer.** Black the stop tokens, indigo `</think>`, pink `<think>`, wine the Wait set, light blue new lines, pale all else; means over the combined prompts of the confirm split, intervals in figure 2. In the plain form a model may stop already *before* the answer, after "Just give the answer.": then the stop after the answer is no judgement of the answer.


# %%
def still(control: stats.Interval) -> str:
    """Whether a control keeps half of the base's P(stop), in a word."""
    return "still" if control.estimate > base_stops.estimate / 2 else "hardly"


panels = {role: [] for role in members}
for role, form, state in itertools.product(members, FORMS, states):
    colour = figures.ROLE[role] if state in (BEFORE, AFTER) else figures.CONTROL
    panels[role].append((f"{form}: {state}", stats.bootstrap(p_stop(role, form, state)), colour))
which = f"{still(after_other)} stops the base, one cut short {still(after_cut)} does"
title = f"Another question's answer {which}"
fig = figures.interval_rows(panels, title=title, unit="mean P(stop)", span=(-0.03, 1.03))
figures.save_figure(fig, "02_stop_controls", pair=pair.name, note=n_shown)

# %% [markdown]
# **Figure 2: P(stop) after the answer and after its controls.** Grey squares: another question's answer, and the answer cut before its last word. 95 % bootstrap over prompts. As far as another question's answer stops it too, a finished sentence is enough, and the model judges no answer. The cut also removes the final mark; F08 below looks at the mark alone.

# %% [markdown]
# ## Which explains the length: the form or the model?
#
# **Question.** The distilled model's template opens a thought, the base's does not; lengths (F01) are of the templates. So the templates are crossed: each model in plain text, in its own template without a thought, with one opened, and with an empty one closed at once. Metrics: the median length of the greedy answer to confirm questions, not selected by length, and P(stop) behind the base's own answer, on the combined prompts.

# %% [markdown]
# **Reading, written after a first look at the lengths:** what alone makes more than half of the way from the base in its own template to the distilled model in its own, in log length, makes the length.


# %%
def crossed_answers(role: str, some: list) -> dict[str, pd.DataFrame]:
    """Greedy answers by form; those to the model's own template are stored already."""
    m, own = members[role], ask(members[role], some, form="template")
    limit = {"max_new_tokens": MAX_NEW_TOKENS}
    asks = {form: put(m, some, form) for form in ("plain", *ADDED)}
    new = [prompt for prompts in asks.values() for prompt in prompts if prompts != own]
    done = stored_completions(pair, m, new, name=f"02_crossed_{role}", fresh=RECOMPUTE, **limit)
    known = dict(zip(new, done, strict=True))
    stored = answers(pair, m, some, form="template", **limit)
    return {
        form: stored if prompts == own else judged([known[p] for p in prompts], some, opened=False)
        for form, prompts in asks.items()
    }


unselected = [question for question in load_questions(N_PROMPTS) if question.split == "confirm"][:N_CROSSED]
crossed = {role: crossed_answers(role, unselected) for role in members}

# %% [markdown]
# Length and stop rate within the limit; the share of answers that open with `<think>` themselves; and P(stop) and log-odds of stopping before and after the base's answer (means):

# %%
table = {}
for (role, found), form in itertools.product(crossed.items(), ("plain", *ADDED)):
    row = {"median length": found[form]["length"].median(), "stopped": found[form]["stopped"].mean()}
    row["opens <think>"] = found[form]["text"].str.strip().str.startswith("<think>").mean()
    for state in (BEFORE, AFTER):
        row[f"P(stop) {state}"] = p_stop(role, form, state).mean()
        row[f"log-odds {state}"] = read_off("log-odds", role, form, state).mean()
    table[f"{role}, {form}"] = row
pd.DataFrame(table).T.round(3)

# %% [markdown]
# Then one thing changed at a time: the form on the base, the model without a thought, and both.

# %%
NONE, OPENED, EMPTY = ADDED
start, goal = ((role, OPENED if m.thinks else NONE) for role, m in members.items())  # their own templates
steps = {"both": goal, "the open thought": ("base", goal[1]), "the changed model": ("distilled", start[1])}
lengths = {(role, form): found[form]["length"] for role, found in crossed.items() for form in found}
alone = {name: stats.ratio_of_medians(lengths[step], lengths[start]) for name, step in steps.items()}
way = alone.pop("both")
enough = [name for name, grown in alone.items() if way.low > 1 and grown.estimate > way.estimate**0.5]
maker = " as well as ".join(enough) or ("only both together" if way.low > 1 else "neither form nor model")

# %% [markdown]
# Two sentences, and what comes behind the answer inside the distilled model's thought, likeliest first:

# %%
m = members["distilled"]
likely = next_distribution(m, put(m, asked, goal[1], given)).exp().mean(0).topk(5)
best = [(m.tokenizer.decode([i]), float(p)) for p, i in zip(*likely, strict=True)]
named = ", ".join(f"{findings.code_span(repr(token))} {share:.0%}" for token, share in best)
of_goal = stats.paired(*(read_off("log-odds", *step) for step in (goal, start)))
opens = table[f"distilled, {NONE}"]["opens <think>"]
still_long = table[f"distilled, {EMPTY}"]["median length"]
closes = np.exp(read_off("</think>", *goal)).mean()
as_often = moves(of_goal, "less often than", "more often than", "about as often as")
Markdown(
    f"**What makes the length: {maker}.** From the base in its own template to the distilled in its own the "
    f"median length is {way} times; {'; '.join(f'{name} alone makes {x}' for name, x in alone.items())}. "
    f"Without the opening the distilled model writes `<think>` itself in {opens:.0%} of its answers, and "
    f"behind an empty thought it still writes {still_long:.0f} tokens.\n\n**Behind the base's complete "
    f"answer, inside its open thought,** the distilled model stops {as_often} the base does without one: "
    f"{p_stop(*goal).mean():.0%} against {p_stop(*start).mean():.0%}, log-odds {of_goal}. It closes the "
    f"thought with {closes:.1%}. Likeliest next: {named}."
)

# %%
panels = {(own_text := "the answer that it writes"): [], AFTER: []}
for role, form in itertools.product(members, ("plain", *ADDED)):
    length = stats.bootstrap(lengths[role, form], statistic=np.median)
    panels[own_text].append((form, length, figures.ROLE[role]))
    panels[AFTER].append((form, stats.bootstrap(p_stop(role, form)), figures.ROLE[role]))
title = f"From base to distilled the length grows {way.estimate:.3g} times: what makes it is {maker}"
fig = figures.interval_rows(panels, title=title, unit=["median length (tokens)", "mean P(stop)"])
note = f"n = {len(unselected)} questions (length), {len(asked)} combined prompts (P(stop)), confirm"
figures.save_figure(fig, "02_crossed", pair=pair.name, key=figures.ROLE, note=note)

# %% [markdown]
# **Figure 3: the templates crossed.** Left the median length of the greedy answer, right P(stop) once the base's own answer stands there; 95 % bootstrap over prompts. The combined prompts were chosen for a distilled model that goes on *before* any answer.

# %% [markdown]
# ## F06 · Which logits fell, which rose?
#
# **Question.** How do the logits of the stop token and of the twelve reasoning tokens of the notes differ between the models on the same plain prompts? Metric: paired shift, distilled minus base, of each token's logit, minus the mean shift of twelve control words of like merge rank, a proxy for frequency (the stop token has no such match): $\Delta_t = (z^D_t - z^B_t) - \overline{(z^D_c - z^B_c)}$.

# %% [markdown]
# **Control.** The twelve control words, each against the mean of all twelve. P-values come from flipping signs over prompts and are corrected over all tokens (Benjamini-Hochberg). Most control words pass that test too, since it only asks whether prompts agree; what singles a token out is lying outside the grey range in figure 4. **Rule, written before the result.** F06 holds if the stop token's $\Delta$ has an interval below -2 *and* the mean $\Delta$ of the twelve reasoning tokens has one above 0. The intervals draw the control words anew together with the prompts; those over prompts alone stand beside them, and with them the verdict before. By the log-odds of stopping, which need no control words: their paired change is below -2 as well, the old threshold, taken over when it was known that stopping falls against a new line. This tests the first half of the claim alone. A token may be in two sets (" Wait" is a reasoning token as well).

# %%
groups = pair.base.groups
token_sets = {"stop": groups.stop[:1], "reasoning": groups.reasoning, "Wait set": groups.wait}
token_sets["control"] = groups.control
tokens = list(dict.fromkeys(itertools.chain(*token_sets.values())))
columns = {name: [tokens.index(token) for token in some] for name, some in token_sets.items()}
first_set = [next(name for name, some in token_sets.items() if token in some) for token in tokens]


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
wait_gain = stats.paired(read_off("Wait set", "distilled"), read_off("Wait set", "base"))
details = {
    "Wait set's mean shift": wait_shift,
    "raw logits, stop token": mean_of(raw, "stop"),
    "raw logits, control tokens": mean_of(raw, "control"),
    "log-probability, stop token": mean_of(read["logprob distilled"] - read["logprob base"], "stop"),
    "log-probability, Wait set": wait_gain,
    "Wait set, times as likely in the geometric mean": float(np.exp(wait_gain.estimate)),
}
for role in members:
    details[f"mean P of the Wait set, {role}"] = float(np.exp(read_off("Wait set", role)).mean())
    details[f"mean P of a new line, {role}"] = stats.bootstrap(np.exp(read_off("new lines", role)))

# %% [markdown]
# The rule's two shifts with the control words drawn, too, and over prompts alone.

# %%
names = {"stop": "stop token's shift", "reasoning": "reasoning tokens' mean shift"}
rule = {"stop": findings.Rule("below", -2), "reasoning": findings.Rule("above", 0)}
controls = raw[:, columns["control"]]
over_words = {name: stats.against_words(raw[:, columns[name]].mean(1), controls) for name in names}
old, own_size = {name: mean_of(shift, name) for name in names}, stats.bootstrap(np.abs(control_shifts))
details |= {f"{names[name]}, prompts alone drawn": value for name, value in old.items()}
before = findings.all_of(*(rule[name].verdict(value) for name, value in old.items()))

# %% [markdown]
# Each rival of stopping, in both forms. "The rest" is all but stop, new lines and Wait set; the keywords overlap with both.


# %%
def against(rival: str, role: str, form: str) -> np.ndarray:
    """Log P(stop) minus log P of a rival, [prompt]: the log-odds of stopping against it."""
    if rival == ALL:
        return read_off("log-odds", role, form)
    named = [read_off(name, role, form) for name in ("stop", "new lines", "Wait set")]
    rest = np.log(np.maximum(1 - np.exp(named).sum(0), 1e-9))
    return named[0] - (rest if rival == "the rest" else read_off(rival, role, form))


ALL = "all other tokens"
rivals = [ALL, *(name for name in ("new lines", "Wait set") if all(sets_of(m)[name] for m in pair.members))]
rivals += ["the rest", "keywords"]
change_of = {
    (rival, form): stats.paired(against(rival, "distilled", form), against(rival, "base", form))
    for rival, form in itertools.product(rivals, FORMS)
}
details |= {f"log-odds of stopping against {r}, {f}": value for (r, f), value in change_of.items()}

# %%
F06 = findings.record(
    pair,
    "F06",
    notebook="02_logits",
    quantity="shift of the stop token's logit against control tokens, distilled minus base",
    unit="nats",
    rules=[findings.Part(names[name], over_words[name], rule[name]) for name in names],
    stopping=[findings.Part("change of the log-odds of stopping, plain", odds_fall, rule["stop"])],
    control=("mean size of a control token's own shift (n counts tokens)", own_size),
    details=details,
)
survives = "is the same" if F06["verdict"] == before else f"is another: {before}"
by_odds, words_move = F06["stopping"]["verdict"], controls.mean(0)
why = (
    f"By the log-odds it {by_odds}. The two ask against what: all other tokens, by their probability "
    f"({odds_fall} nats), or twelve words unlikely in both models, whose own logits move by "
    f"{words_move.min():+.1f} to {words_move.max():+.1f}."
) * (by_odds != F06["verdict"])
Markdown(f"{findings.sentence(F06)}\n\nWith prompts alone drawn the verdict {survives}. {why}")

# %% [markdown]
# Figure 4 orders all tokens by their shift.

# %%
key = {"stop token": figures.STOP, "reasoning, Wait set": figures.WAIT, "control words": figures.CONTROL}
ink = {"stop": figures.STOP, "control": figures.CONTROL}
rows = [
    (repr(row.token), stats.bootstrap(shift[:, place]), ink.get(row.group, figures.WAIT))
    for place, row in enumerate(table.itertuples())
]
rows.sort(key=lambda row: -row[1].estimate)


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
# **Figure 4: paired shift of each token's logit, distilled minus base.** Black diamond the stop token, wine the reasoning tokens and the Wait set, grey squares the control words, against whose mean all are measured; the shaded range spans them. Plain form, 95 % bootstrap over confirm prompts; corrected p-values in the table above.

# %%
lost = {
    form: " and ".join(name for name in rivals[1:-1] if change_of[name, form].high < 0) or "none"
    for form in FORMS
}
panels = {form: [] for form in FORMS}
for form, rival in itertools.product(FORMS, rivals):
    colour = figures.STOP if rival == ALL else figures.WAIT
    panels[form].append((rival, change_of[rival, form], colour))
title = f"Stopping loses to {lost['plain']} in plain text, to {lost['template']} in the template"
unit, seen = "log-odds of stopping against each, distilled minus base (nats)", change_of.values()
span = (min(0, *(value.low for value in seen)) - 0.5, max(0, *(value.high for value in seen)) + 0.5)
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True, span=span)
figures.save_figure(fig, "02_rivals", pair=pair.name, note=n_shown)

# %% [markdown]
# **Figure 5: against which words?** The paired change of the log-odds of stopping against all other tokens (black) and against each rival; 95 % bootstrap over prompts. A rival that was never likely can gain many nats and take little: the levels, in nats, say which. Where in the model it arises is asked in notebooks 03 to 05.

# %%
levels = {
    f"{role}, {form}": {rival: against(rival, role, form).mean() for rival in rivals}
    for role, form in itertools.product(members, FORMS)
}
pd.DataFrame(levels).round(2)

# %% [markdown]
# ## F07 · Does " Wait" depend on the length of the text?
#
# **Question.** After the answer, text is appended: neutral sentences, blank lines, periods, or `<answer></answer>`, each alone and 1, 3 and 6 times. Metric: change of the Wait set's log-probability minus the mean change of the control words' (the normaliser cancels, so the same is true of logits), from none to six, distilled model, plain form.

# %% [markdown]
# **Control.** The control words under the same texts: does *everything* unlikely become likelier as text grows? **Rule, made stricter after a first look at the result.** F07 holds if the change with neutral sentences, Wait set minus control words in log-probability, is more than 0.5 nats from zero over the whole interval, in either direction, (a) by itself and (b) minus the base's change: what the base does as well is no mark of the distilled model. It does not hold if either interval lies within ±0.5, and is inconclusive otherwise.

# %%
few, words = min(N_GROWN, len(asked)), [*groups.wait, *groups.control]
sentences = [f" {sentence}" for sentence in neutral_sentences(max(REPEATS))]
SENTENCES = "neutral sentences"
others = {"blank lines": "\n\n", "periods": ".", "<answer></answer>": "<answer></answer>"}
appended = {SENTENCES: ["".join(sentences[:k]) for k in REPEATS]}
appended |= {kind: [piece * k for k in REPEATS] for kind, piece in others.items()}


def read_longer(rows: list[int]) -> dict:
    """Log-probabilities of Wait set and control words, [prompt, pieces, token], by model and kind."""
    found = {}
    every = [more for texts in appended.values() for more in texts]
    for role, m in members.items():
        texts = [prompt + more for prompt in take(plain[role], rows) for more in every]
        logprobs = logprobs_of(m, last_hidden_shared(m, texts), words)
        kinds = logprobs.unflatten(0, (-1, len(appended), len(REPEATS))).unbind(1)
        found |= {f"{role} {kind}": values for kind, values in zip(appended, kinds, strict=True)}
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
details = {f"{REPEATS[-1]} pieces of `{kind}`": stats.paired(*change("distilled", kind)) for kind in others}
details["neutral sentences, base"] = stats.paired(*change("base", SENTENCES))
of_words = stats.bootstrap(change("distilled", SENTENCES)[1])

# %%
F07 = findings.record(
    pair,
    "F07",
    notebook="02_logits",
    quantity="change of the Wait set's log-probability against control words, "
    f"{REPEATS[-1]} neutral sentences against none, distilled",
    unit="nats",
    rules=rules,
    control=("change of the control words' own log-probability", of_words),
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
title = f"Neutral sentences {moved} the distilled model's Wait set: {with_sentences.estimate:+.1f} nats"
panels = {kind: growth_lines(kind) for kind in appended}
ylabel = "log P(Wait set) (nats)"
fig = figures.lines(panels, REPEATS, title=title, xlabel="pieces appended", ylabel=ylabel, rows=2)
figures.save_figure(fig, "02_growth", pair=pair.name, note=f"n = {few} combined prompts, confirm")

# %% [markdown]
# **Figure 6: the Wait set as text is appended after the answer.** The title's number is the change against control words. Blue the base, orange the distilled model, dashed grey the mean log-probability of control words on the distilled model. Bands: 95 % bootstrap over prompts, plain form. Each kind of text also ends in its own last character: a step at the first piece that is then nearly flat is an effect of what stands there, not of length.

# %% [markdown]
# ## F08 · Does the period point to the stop token?
#
# **Question.** Is there a strong bigram from "." to the stop token, and to that rather than to "Wait" or a new line? Two ways to ask. From *behaviour*: neutral statements, which neither ask nor answer; metric: log P(stop) with the final period minus without it, alone and against each rival's, the notes' keywords as one set among them. From the *weights*: the embedding of each token straight through the final norm and the head, and again after layer 0's MLP.

# %% [markdown]
# **Control.** The same statements ending in a comma instead of a period; in the weights, a sample of 500 tokens made of letters, and other punctuation. **Rule, written before the result.** F08 holds if the behavioural difference, period minus comma, has an interval above 1 nat on *both* models.

# %%
marks = {".": "period", "!": "exclamation mark", ",": "comma (control)"}
statements = [sentence.rstrip(".") for sentence in neutral_sentences()]


def read_ends(rows: list[int]) -> dict:
    """Log P of each set after each statement, [prompt, set], by model and mark."""
    found = {}
    for (role, m), mark in itertools.product(members.items(), [*marks, ""]):
        prompts = [m.prompt(text + mark, "plain") for text in take(statements, rows)]
        found[f"{role} {mark}"] = log_shares(m, last_hidden(m, prompts))
    return found


ends = kept(pair, "02_ends", read_ends, len(statements), fresh=RECOMPUTE)

# %% [markdown]
# The same from the weights alone, the direct path: the logit of the stop token minus the mean of the control words, for seven marks, beside quantiles of 500 tokens made of letters. It has to be read with its sign: where the period lies below the words, what it does to behaviour is no bigram in the weights but computed from context.

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
direct = {}
for (role, path), (of_marks, of_words) in pull.items():
    words_at = {f"{share:.1%} of words": np.quantile(of_words, share) for share in (0.025, 0.5, 0.975)}
    direct[f"{role}, {path}"] = dict(zip(map(repr, sources), of_marks, strict=True)) | words_at
pd.DataFrame(direct).astype(float).round(2)

# %% [markdown]
# Then the rule's numbers: period against comma after the same statements, on either model.


# %%
def gain(role: str, mark: str, rival: str = "", without: str = "") -> np.ndarray:
    """log P(stop), or against a rival's, with a closing mark minus without one, [prompt]."""
    own, *other = (SETS.index(name) for name in ("stop", rival) if name)
    after, before = (ends[f"{role} {end}"].astype(float) for end in (mark, without))
    return after[:, own] - before[:, own] - sum(after[:, k] - before[:, k] for k in other)


bigram = {role: stats.paired(gain(role, "."), gain(role, ",")) for role in members}
weakest = min(bigram, key=lambda role: bigram[role].low)
rule = findings.Rule("above", 1)
details = {"exclamation mark minus none, base": stats.bootstrap(gain("base", "!"))}
over_rival = {
    (rival, role): stats.bootstrap(gain(role, ".", rival, ","))
    for rival, role in itertools.product(filter(SETS.__contains__, rivals), members)
}
details |= {f"period minus comma, stop against {one}, {role}": v for (one, role), v in over_rival.items()}
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
panels = {role: [] for role in members}
for role, mark in itertools.product(members, marks):
    colour = figures.CONTROL if mark == "," else figures.ROLE[role]
    panels[role].append((f"{marks[mark]}, over none", stats.bootstrap(gain(role, mark)), colour))
for (rival, role), value in over_rival.items():
    panels[role].append((f"period over comma, against {rival}", value, figures.WAIT))
sides = [end for rows in panels.values() for _, value, _ in rows for end in (value.low, value.high, 0)]
span = (min(sides) - 0.5, max(sides) + 0.5)
least = min(value.estimate for value in bigram.values())
title = f"Over a comma, a period gives the stop token at least {least:+.1f} nats on both models"
unit = "change of log P(stop), lower rows of stop against a rival (nats)"
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True, span=span)
figures.save_figure(fig, "02_period_behaviour", pair=pair.name, note=f"n = {len(statements)} statements")

# %% [markdown]
# **Figure 7: what a closing mark does to stopping on neutral text.** Upper rows: log P(stop) over the same text without a mark, the grey square is the comma. Wine: period over comma, log P(stop) minus that of a rival. 95 % bootstrap over statements. No bigram in the strict sense: the sentence before the mark is read as well.

# %% [markdown]
# ## Try it
#
# Edit the text and read out what each model would do next. Figures 1 and 7 hold the same readout for readers without a kernel.

# %%
explorers.next_token(pair)

# %% [markdown]
# ## Takeaway

# %%
of_base, of_distilled = (F06["details"][f"mean P of a new line, {role}"]["estimate"] for role in members)
base, fell = (part["estimate"] for part in F05["rules"])
stops = {"holds": "stops less", "does not hold": "does not stop less", "inconclusive": "may stop less"}
Markdown(
    f"What makes the distilled model's answers {way.estimate:.3g} times as long is {maker}. Right after the "
    f"base's own answer, in plain text, the base stops with {base:.0%}; the distilled model "
    f"{stops[F05['stopping']['verdict']]} ({base + fell:.0%}) and puts {of_distilled:.0%} on a new line (the "
    f"base {of_base:.0%}), while inside its own open thought it stops with {p_stop(*goal).mean():.0%}. "
    f"Another question's answer {which}, and on the {weakest} a closing period makes stopping about "
    f"{np.exp(F08['estimate']):,.0f} times as likely as a comma does."
)

# %% [markdown]
# Back: [01_prompts](01_prompts.ipynb). Next: [03_logit_lens](03_logit_lens.ipynb) asks at which depth the two models part.
