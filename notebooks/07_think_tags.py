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
# # 07 · What makes R1 stop?
#
# **Claim.** Under test: it is the end of the thought, which is decided one token before its tag. `</think>`, then the answer with its period, and the distilled model stops; answer tags alone do not do it; after `</think>` it says the answer once more; and no answer comes without the tag. What holds on this pair is printed below the set-up.
#
# **Evidence.** What follows the end of a sentence, in published texts and on the pair (figure 1); the same by place in the thought, with the marks exchanged (figure 2); endings with the tag, without it, and with a nonsense tag of as many tokens (figure 3); the tag and the new lines around it hidden (figure 4); samples around it (figure 5); the heads and MLPs that choose the mark (figure 7).
#
# **Caveat.** Any markup might look like an end. So a tag that closes no thought stands wherever `</think>` does (`nonsense tag` in the figures; on the distilled half of `smol` it lies very near `</think>`: F22), and the base, which does not know the tag as a token, reads it as text. The numbers stored here are from the embedded pair `smol`, which was trained on traces of this very form, and say nothing about DeepSeek-R1; published texts of R1's distilled model stand beside it in F26 and F24.
#
# **Reads** stored completions where they match (else computes them), counts of published texts in `data/published`. **Writes** `data/<pair>/07_*` (completions and readouts), findings F21 to F26, figures `07_*`. Stopping is measured by P(stop) and by its *log-odds*, log P(stop) - log(1 - P(stop)), over all stop tokens.

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
N_COMBINED = 24  # quick: 6; questions whose endings are read
N_FORK = 60  # quick: 6; thoughts in which the mark at the end of a sentence is exchanged
N_PUSHED = 24  # quick: 4; questions answered while one new line is pushed, or the end replaced
PUSHES = [-8.0, 8.0]  # nats
N_SAMPLED = 60  # quick: 6; questions that are sampled
N_SAMPLES = 8  # quick: 2; samples of each
MAX_SAMPLED = 160  # new tokens of a sample
MAX_ENDED = 40  # new tokens after an ending
MAX_AFTER_TAG = 40  # new tokens of a sample after question, answer and tag
N_WRITTEN = 12  # quick: 4; questions whose greedy continuations are read
N_HIDDEN = 20  # draws of random tokens hidden as the control
N_CHOICES = 24  # quick: 4; thoughts of each half in which nodes are patched
N_TOP = 12  # nodes of largest estimate
N_NODES = 60  # random nodes, of which as many are drawn 20 times
MAX_FORCED = 120  # new tokens after each forced word
TEMPERATURE, TOP_P = 0.6, 0.95

# %% jupyter={"source_hidden": true} tags=["claim"]
import dataclasses
import itertools
import unicodedata

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.special import expit, logit

from helpers import explorers, figures, findings, fork, patching, stats, texts
from helpers.generation import Change, Completion, answers, complete
from helpers.generation import cut_short, load_combined, repetition, stored_completions
from helpers.pairs import load_pair
from helpers.prompts import Ending, ending_materials, endings_grid, with_ending
from helpers.prompts import R1_ZERO, ask, final_answer, is_right, load_questions, normalise
from helpers.readouts import activations, as_one_row, last_hidden, last_hidden_shared
from helpers.readouts import logprobs_of, measure, stop_odds
from helpers.store import data_dir, kept, take
from helpers.tokens import count_keywords, nonsense_tag, plain_words, single_id

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F26", "F23", "F24", "F21", "F22", "F25"))

# %% [markdown]
# ## The material
#
# Questions of the `confirm` half, for each: the base's own complete answer, the bare word, a wrong answer and another question's, and a *real thought*, the distilled model's own, up to its first `</think>`. An **ending** is what is put after the question: `<think>`, a thought, `</think>`, a gap, an answer, answer tags, each part there or not. P(stop) is read right after it: all stop tokens together.

# %%
members = {member.role: member for member in pair.members}
base, distilled = pair.base, pair.distilled
chosen = dict(n_prompts=N_PROMPTS, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS)
combined = load_combined(pair, n_combined=N_COMBINED, fresh=RECOMPUTE, **chosen)["confirm"]
questions = combined.questions
greedy = answers(
    pair,
    distilled,
    load_questions(N_PROMPTS),
    form="template",
    max_new_tokens=MAX_NEW_TOKENS,
    fresh=RECOMPUTE,
)


def thought_of(question) -> str:
    """The distilled model's own thought, greedy, up to its end."""
    return greedy.loc[question.id, "text"].split("</think>")[0]


thoughts = [thought_of(question) or "I think so." for question in questions]
materials = ending_materials(questions, combined.answers, thoughts)


# %% [markdown]
# In the place of `</think>` may stand a nonsense tag of as many tokens, as many plain words, or nothing:


# %%
def ids_of(member, text: str) -> list[int]:
    """A text's tokens, no special ones added."""
    return member.tokenizer(text, add_special_tokens=False).input_ids


def marks_of(member) -> dict[str, str]:
    """What may stand where `</think>` does."""
    words = plain_words(member.tokenizer, len(ids_of(member, "</think>")))
    return {"tag": "</think>", "nonsense": nonsense_tag(member.tokenizer), "words": words, "none": ""}


marks = {role: marks_of(member) for role, member in members.items()}


def odds_of_stopping(member, hidden: torch.Tensor) -> np.ndarray:
    """Log-odds of stopping, over all stop tokens, after each prompt; `expit` makes P(stop) of it."""
    return member.at_weights(stop_odds(member), hidden).cpu().numpy()


# %% [markdown]
# ### Three raw examples, before any average
#
# Question, mark, a blank line, the answer; then what each model writes.

# %%
block = Ending(close=True, gap="\n\n", answer="sentence")
mark_names = {"tag": "with </think>", "nonsense": "nonsense tag", "none": "without"}


def what_follows(member, question, material) -> dict[str, str]:
    """The greedy continuation after each mark."""
    prompts = [
        with_ending(member, [question], [material], block, form="plain", mark=marks[member.role][kind])[0]
        for kind in mark_names
    ]
    written = complete(member, prompts, max_new_tokens=MAX_ENDED)
    said = [f"{c.text!r} ({'goes on' if c.stop == 'limit' else 'stops'})" for c in written]
    return dict(zip(mark_names.values(), said, strict=True))


# %%
rng = np.random.default_rng(SEED)
for index in rng.choice(len(questions), min(3, len(questions)), replace=False):
    question, material = questions[index], materials[index]
    answer = findings.code_span(material.sentence)
    examples = {role: what_follows(member, question, material) for role, member in members.items()}
    display(Markdown(f"*{question.text}*, then the mark, a blank line and {answer}"), pd.DataFrame(examples))


# %% [markdown]
# ### Laws
#
# Checked on every ending: each `</think>` is one token where the model has it, no prompt has two beginnings, and all survive the tokenizer.


# %%
def check_tokens(member, prompt: str) -> None:
    """Laws that every prompt with an ending must obey."""
    ids, closing = member.encode([prompt])["input_ids"][0].tolist(), member.groups.end_think
    if closing is not None:
        assert ids.count(closing) == prompt.count("</think>"), "every </think> must be one token"
    assert not member.bos or ids.count(member.tokenizer.bos_token_id) <= 1, "at most one BOS"
    read_back = unicodedata.normalize("NFC", member.tokenizer.decode(ids))
    assert read_back == unicodedata.normalize("NFC", prompt), "prompts must survive the tokenizer"


for member, ending in itertools.product(members.values(), endings_grid(answer="sentence", tags=False)):
    for prompt in with_ending(member, questions[:2], materials[:2], ending, form="plain"):
        check_tokens(member, prompt)

# %% [markdown]
# ## F26 · Where is the end of a thought decided?
#
# **Question.** At the end of a sentence the distilled model can write one new line or a blank line. In R1's own published texts the thought's `</think>` stands after the first, and "Wait" after the second. How often does each follow each? Metrics, over ends of sentences before prose: P(`</think>` | one new line), P(`</think>` | blank line), P("Wait" | each). *Decided* means here: to be seen one token early; whether the new line is the cause is asked below, of this pair.

# %% [markdown]
# **Control.** Chance: how many closings would follow one new line if each stood at one of its thought's own line ends, drawn at random. **Rule, written before this pair's result, after a first look at the published texts.** F26 holds for a pair, or for a set of texts, if (a) more than 90 % of the closings follow one new line, (b) P(`</think>`) after one new line is at least 0.25 above that after a blank line, and (c) P("Wait") after a blank line is at least 0.02 above that after one new line.

# %%
sources = texts.sources()
sets = {name: texts.published(name).query("closed_prompt == 0") for name in sources.index}
pair_texts = pd.DataFrame([texts.measure(text) for text in greedy["text"]])
compared = {f"R1, {sources.loc[name, 'label']}": counts for name, counts in sets.items()}
compared[f"pair {pair.name}"] = pair_texts
shares = {}
for (name, counts), gap in itertools.product(compared.items(), texts.GAPS):
    found = {what: counts[f"sentences, {gap}: {what}"].sum() for what in ("closes", "waits", "goes on")}
    total = max(1, sum(found.values()))
    shares[f"{name}: {gap} (n={total:,})"] = {what: count / total for what, count in found.items()}
colours = {"closes": figures.STOP, "waits": figures.WAIT, "goes on": figures.REST}
key = {"</think> comes next": figures.STOP, "Wait": figures.WAIT, "anything else": figures.REST}
title = "After a period R1's thought ends at one new line, never at a blank line"
fig = figures.stacked_rows(shares, colours, title=title, unit="share of what comes next in the thought")
note = "last two rows; above: published texts of R1-Distill-Qwen-1.5B; ends of sentences before prose"
figures.save_figure(fig, "07_fork", pair=pair.name, note=note, key=key, size=(9.5, 4.4))

# %% [markdown]
# **Figure 1: what follows the end of a sentence.** Rows: four sets of published texts of DeepSeek-R1-Distill-Qwen-1.5B, and this pair's distilled model. Black: `</think>` comes next; wine: "Wait"; grey: anything else. Only ends of sentences whose next line is prose: one new line also stands in lists and formulas, where it decides nothing. Settings and selection differ (`data/published/sources.csv`): one set is greedy, two are sampled, one holds only finished answers, one has a prompt of its own.
#
# <details><summary>What it does not show</summary>Whether the new line *makes* the model stop or is only the first token of a decision that was made before it. Every training text has one new line before the tag, so the form was learnt; that it is chosen one token early is what can be used.</details>

# %% [markdown]
# The parts of the rule, and what stands beside them:


# %%
def fork_parts(counts: pd.DataFrame) -> list[findings.Part]:
    """The three parts of F26's rule for one set of texts."""
    after_one = texts.fork_rates(counts)["closings after one new line"]
    closes, waits = (texts.difference(counts, what) for what in ("closes", "waits"))
    over = {least: findings.Rule("above", least) for least in (0.9, 0.25, 0.02)}
    return [
        findings.Part("closings after one new line", after_one, over[0.9]),
        findings.Part("P(</think>), one new line minus blank line", closes, over[0.25]),
        findings.Part("P(Wait), blank line minus one new line", waits, over[0.02]),
    ]


def rates_of(counts: pd.DataFrame) -> dict[str, stats.Interval]:
    """How often each follows each."""
    rates = texts.fork_rates(counts).items()
    return {f"P({what})": rate for what, rate in rates if not what.startswith("closings")}


# %% [markdown]
# The control needs no position in the text, only how a thought's lines end:


# %%
def by_chance(counts: pd.DataFrame) -> stats.Interval:
    """Closings after one new line if each stood at a random line's end of its own thought."""
    closed = counts[counts["closings"] > 0]
    if len(closed) < 2:
        return texts.NOTHING
    ends = closed[["lines ended by one new line", "lines ended by blank line"]]
    return stats.bootstrap((ends.iloc[:, 0] / ends.sum(axis=1).clip(lower=1)).to_numpy())


# %% [markdown]
# In the published texts, one entry a set:

# %%
about = dict(
    notebook="07_think_tags",
    quantity="closings of a thought that follow one new line",
    unit="of closings",
    split="",
)
published = {}
for name, counts in sets.items():
    settings, origin, commit = sources.loc[name, ["settings", "source", "commit"]]
    published[name] = findings.record(
        findings.Published(name, ("DeepSeek-R1-Distill-Qwen-1.5B",), settings),
        "F26",
        rules=fork_parts(counts),
        control=("closings at random line ends", by_chance(counts)),
        details={"from": f"{origin} {commit}"} | rates_of(counts),
        sample="texts",
        **about,
    )
    display(Markdown(findings.sentence(published[name])))

# %% [markdown]
# ### Is it decided there? The marks exchanged
#
# **Question.** What does the model choose at the ends of sentences along its thought; and what comes next if the other mark is put there? Metrics: P(one new line), P(blank line), P(neither); then P(`</think>`) and P(Wait set) right after either mark; mean over a text's ends of sentences, intervals over texts. *In mid-thought*: behind the first third, before the thought's own end. **Control.** The mark that the model wrote itself. Where a tokenizer makes a blank line of two tokens, as that of `smol` does, the choice falls at the second: one new line then means that no second one follows, and what follows it is read on that condition.

# %% [markdown]
# Each end of a sentence has its place in the thought; the log-odds are cut at 16 nats, which is what a stored P tells:


# %%
MARKS = ["one", "blank", "neither"]
MARKS += [f"{what} after {gap}" for gap in texts.GAPS for what in ("</think>", "Wait")]
ODDS = {f"log-odds of </think> after {gap}": f"</think> after {gap}" for gap in texts.GAPS}
PLACES = ["first sentence", "first third", "middle third", "last third", "at its own end", "in mid-thought"]


def by_place(ends: pd.DataFrame) -> dict[str, np.ndarray]:
    """Means over one thought's ends of sentences at each place, [mark]."""
    if not len(ends):
        return dict.fromkeys(PLACES, np.full(len(MARKS) + len(ODDS), np.nan))
    own, depth, first = ends["closes"], ends["depth"], np.arange(len(ends)) == 0
    third = [~own & ~first & depth.between(k / 3, (k + 1) / 3, inclusive="left") for k in (0, 1)]
    late = ~own & ~first & (depth >= 2 / 3)
    here = [first & ~own, *third, late, own, ~own & depth.between(1 / 3, 0.999)]
    odds = {name: logit(ends[column].clip(1e-7, 1 - 1e-7)) for name, column in ODDS.items()}
    rows = ends[MARKS].assign(**odds)
    return {place: rows[some].mean().to_numpy() for place, some in zip(PLACES, here, strict=True)}


def stacked(thoughts: list[pd.DataFrame]) -> dict[str, np.ndarray]:
    """The same of several thoughts, [text, mark]."""
    each = [by_place(ends) for ends in thoughts]
    return {place: np.stack([one[place] for one in each]) for place in PLACES}


# %% [markdown]
# Means over the texts that have such a place:


# %%
def over_texts(means: np.ndarray, mark: str) -> stats.Interval:
    """Mean of a mark over the texts that have such a place; none where fewer than two do."""
    values = means[:, [*MARKS, *ODDS].index(mark)]
    values = values[~np.isnan(values)]
    return stats.bootstrap(values) if len(values) > 1 else texts.NOTHING


def after_each_mark(groups: dict[str, np.ndarray]) -> dict[str, stats.Interval]:
    """What follows each mark, put at the thought's own end and before it."""
    asked = itertools.product(PLACES[:-3:-1], texts.GAPS, ("</think>", "Wait"))
    return {
        f"P({what}) {place}, {gap} put there": over_texts(groups[place], f"{what} after {gap}")
        for place, gap, what in asked
    }


# %%
fields = [field.name for field in dataclasses.fields(Completion)]
read_thoughts = [Completion(**row) for row in greedy[fields].to_dict("records")[:N_FORK]]
has_tag = distilled.groups.end_think is not None


def read_forks(rows: list[int]) -> dict[str, np.ndarray]:
    """The forks of some thoughts; of a model without the tag, none."""
    some = take(read_thoughts, rows)
    return stacked([fork.read_fork(distilled, done) if has_tag else pd.DataFrame() for done in some])


groups = kept(pair, "07_forks", read_forks, len(read_thoughts), fresh=RECOMPUTE)
exchanged = after_each_mark(groups)
marks_chosen = {
    f"P({choice}), {place}": over_texts(groups[place], choice)
    for place in PLACES[:-3:-1]
    for choice in MARKS[:3]
}

# %% [markdown]
# Along the thought: what is chosen, and what follows either mark, put there:

# %%
look = {"one": figures.STOP, "blank": figures.WAIT, "neither": figures.CONTROL}
panels = {
    "what the model chooses": [(p, over_texts(groups[p], m), look[m]) for p in PLACES[:5] for m in look]
}
for gap in texts.GAPS:
    panels[f"after {gap}, put there"] = [
        (place, over_texts(groups[place], f"{what} after {gap}"), colour)
        for place in PLACES[:5]
        for what, colour in (("</think>", figures.STOP), ("Wait", figures.WAIT))
    ]
split = [exchanged[f"P(</think>) in mid-thought, {gap} put there"].estimate for gap in texts.GAPS]
title = "What follows each mark, put at the end of a sentence"
if split[0] > 0.5 > 0.1 > split[1]:
    title = "Mid-thought, one new line closes the thought; a blank line does not, even at its end"
fig = figures.interval_rows(panels, title=title, unit="probability", span=(-0.03, 1.03))
key = {"one new line, or </think>": figures.STOP, "blank line, or Wait set": figures.WAIT}
note = f"greedy thoughts of {len(read_thoughts)} questions"
key |= {"neither": figures.CONTROL}
figures.save_figure(fig, "07_fork_exchanged", pair=pair.name, note=note, key=key, size=(11, 3.2))

# %% [markdown]
# **Figure 2: the fork by place in the thought.** Left, what the distilled model chooses at the end of a sentence: one new line (black), a blank line (wine), neither (grey). Middle and right, what follows one new line and a blank line, put there: P(`</think>`) (black), P(Wait set) (wine). 95 % intervals over texts; an end of a sentence counts as the thought's first, by third of the thought, or as its own end.
#
# <details><summary>What it does not show</summary>Why the mark decides, and nothing about R1 itself: its texts have the same form, its probabilities were not read.</details>

# %% [markdown]
# ### Was it put there by the data, and is it the reasoning?
#
# **Question.** Every text that this model learned from has one new line before the tag. Do the fork, the length and the lost stop come from that form, from reasoning, or from any fine-tuning? The same base, trained alike (first stage, same settings) on changed texts: *answers* without thoughts; *no-waits*, every sentence of doubt removed; *shuffled*, each thought under another question; a *blank* line or none (*joined*) before the tag; and the whole texts with other seeds. Measured alike on confirm questions (`python -m helpers trainings`, minutes on a GPU). The last rows cut the pair's own change of each matrix to its largest directions.

# %%
EFFECTS = {
    "length, tokens": "length (tokens)",
    "waits": "texts with a wait",
    "log-odds of stopping, minus the base's, plain": "log-odds of stopping,\nminus the base's (nats)",
    "P(</think> after one new line), mid-thought": "P(closes), one new\nline mid-thought",
    "P(</think> after blank line), its own end": "P(closes), blank\nline at its end",
}
KINDS = ["whole", "shuffled", "no-waits", "blank", "joined", "answers"]
table = data_dir(pair.name) / "trainings.csv"
trained = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=["training", "seed", "measure"])
order = {name: place for place, name in enumerate(KINDS)}
trained["place"] = trained["training"].map(order).fillna(len(order))  # the pair's own and its cuts come last
trained = trained.sort_values(["place", "training", "seed"], kind="stable")

# %% [markdown]
# One panel an effect, one row a training (of the whole texts, one a seed); bars are intervals over questions:


# %%
def training_rows(measure: str) -> list[tuple[str, stats.Interval, str]]:
    """A row a training: label, interval over questions, colour; without such a place a gap."""
    own = trained[trained["measure"] == measure].set_index(["training", "seed"])
    rows = []
    for name, seed in trained[["training", "seed"]].drop_duplicates().itertuples(index=False):
        label = f"{name}, seed {seed}" if name == "whole" else name
        numbers = (
            own.loc[(name, seed), ["estimate", "low", "high", "n"]] if (name, seed) in own.index else None
        )
        value = texts.NOTHING if numbers is None else stats.Interval(*map(float, numbers))
        colour = figures.DISTILLED if name == "whole" else figures.CONTROL if name in KINDS else figures.THIRD
        rows.append((label, value, colour))
    return rows


# %% [markdown]
# Side by side:

# %%
if len(trained):
    by_kind = trained[trained["measure"] == "length, tokens"].groupby("training")["estimate"].mean()
    kinds = [kind for kind in ("shuffled", "no-waits") if by_kind[kind] > by_kind["whole"] / 2]
    title = (
        f"As long without reasoning: {' and '.join(kinds)} texts" if kinds else "Only whole texts lengthen"
    )
    panels = {name: training_rows(measure) for measure, name in EFFECTS.items()}
    key = {"whole": figures.DISTILLED, "changed texts": figures.CONTROL, "the pair's own": figures.THIRD}
    fig = figures.interval_rows(panels, title=title, unit="mean over confirm questions, or share")
    asked_of = trained.loc[trained["measure"] == "length, tokens", "n"].max()
    note = f"{asked_of:.0f} confirm questions; of the fork fewer"
    display(figures.save_figure(fig, "07_trainings", pair=pair.name, size=(13, 4.2), note=note, key=key))

# %% [markdown]
# **Figure 3: the same effects after other trainings.** Orange the whole texts (a row a seed), grey squares changed texts, indigo the pair's own adapter (two stages) and its cuts. No row: the texts have no such place. One training a row but for the seeds: what lies within their spread says nothing.

# %% [markdown]
# Which effect does which control training show? *Shows*: at least half of what the whole texts (mean of seeds) make of it; the rule was written after a first look at the table.


# %%
def shown_by(measure: str) -> list[str]:
    """Control trainings that make at least half of what the whole texts make."""
    means = trained[trained["measure"] == measure].groupby("training")["estimate"].mean()
    return [kind for kind in KINDS[1:] if kind in means and means[kind] / means["whole"] >= 0.5]


def told(measure: str) -> str:
    """One effect, and what makes it."""
    kinds = shown_by(measure)
    cause = "only the whole texts" if not kinds else f"also {', '.join(kinds)}"
    if set(kinds) >= {"answers"}:
        cause = "any fine-tuning"
    return f"- {EFFECTS[measure]}: {cause}".replace("\n", " ")


effects = list(EFFECTS)[:4]
lines = [told(measure) for measure in effects] if len(trained) else ["No trainings of this pair are stored."]
Markdown("\n".join(lines))

# %% [markdown]
# ### And if it is pushed, beside the known ways?
#
# **Question.** While the model writes, the choice of one new line at the ends of sentences is made likelier or less likely by `PUSHES` nats, nothing else. How long does it go on, does it wait, is it still right? **Controls.** The control words pushed as far at the same steps; the run that is not pushed. **The known way**, budget forcing (Muennighoff et al. 2025), on the same questions: `</think>` (or the stop) is kept back and "Wait" put in its place, once to three times; as its control "So". Each such continuation has at most `MAX_FORCED` tokens.

# %%
to_confirm = [question for question in load_questions(N_PROMPTS) if question.split == "confirm"]
pushed_questions = to_confirm[:N_PUSHED]
pushed = {"not pushed": greedy.loc[[question.id for question in pushed_questions]]}
targets = {"one new line": ("", None), "control words": ("words_", distilled.groups.control)}
for (target, (short, tokens)), push in itertools.product(targets.items(), PUSHES if has_tag else []):
    change = Change(f"{target} {push:+g} nats", processors=(fork.AtSentenceEnds(distilled, push, tokens),))
    pushed[f"{target} {push:+g} nats"] = answers(
        pair,
        distilled,
        pushed_questions,
        form="template",
        change=change,
        name=f"07_push_{short}{'less' if push < 0 else 'more'}",
        max_new_tokens=MAX_NEW_TOKENS,
        fresh=RECOMPUTE,
    )

# %% [markdown]
# The thought's end replaced by a word, up to three times:


# %%
starts = ask(distilled, pushed_questions, form="template")
forcing = dict(name="07_forced", max_new_tokens=MAX_FORCED, fresh=RECOMPUTE)


def force(said: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is said if the end of each thought is replaced by the word, [word][question]."""
    grown = {
        word: [f"{text.split('</think>')[0].rstrip()}\n\n{word}" for text in every]
        for word, every in said.items()
    }
    prompts = [start + text for every in grown.values() for start, text in zip(starts, every, strict=True)]
    written = iter(stored_completions(pair, distilled, prompts, **forcing))
    return {word: [text + next(written).text for text in every] for word, every in grown.items()}


rounds = [{word: list(pushed["not pushed"]["text"]) for word in ("Wait", "So")}]
for _ in range(3):
    rounds.append(force(rounds[-1]))


# %% [markdown]
# All arms, measured alike. A text is right if its last answer is; a thought that does not close has none.


# %%
def told(said: list[str], put: int = 0) -> pd.DataFrame:
    """What is measured of each text; `put`: waits in it that the model did not write."""
    tokens = [ids_of(distilled, text) for text in said]
    finals = [final_answer(text, opened=distilled.thinks) for text in said]
    answered = zip(finals, pushed_questions, strict=True)
    columns = {
        "tokens": [len(ids) for ids in tokens],
        "closes its thought": ["</think>" in text for text in said],
        "own waits": [sum(texts.waits(text).values()) - put for text in said],
        "right": [is_right(final, question.answers) for final, question in answered],
        "repetition": [repetition(ids) for ids in tokens],
    }
    return pd.DataFrame(columns).astype(float)


arms = {arm: told(list(frame["text"])) for arm, frame in pushed.items()}
arms |= {f"Wait at its end, {k} x": told(rounds[k]["Wait"], put=k) for k in (1, 2, 3)}
arms["So at its end, 3 x"] = told(rounds[3]["So"])
pd.DataFrame(
    {arm: {name: f"{stats.bootstrap(row):.2f}" for name, row in f.items()} for arm, f in arms.items()}
).T

# %% [markdown]
# The same in differences from the run that is not pushed:

# %%
effects_of_push = {
    f"tokens more, {arm}": stats.paired(frame["tokens"], arms["not pushed"]["tokens"])
    for arm, frame in arms.items()
    if arm != "not pushed"
}
rights = {
    f"right answers more, {arm}": stats.paired(frame["right"], arms["not pushed"]["right"])
    for arm, frame in arms.items()
    if arm != "not pushed" and not arm.startswith("control words")
}
said = [f"{name}: {effect:.0f}" for name, effect in effects_of_push.items()]
said += [f"{name}: {effect:.2f}" for name, effect in rights.items()]
Markdown("; ".join(said) + f" (n = {len(pushed_questions)}, paired).")

# %% [markdown]
# The pair's finding, with all of it beside. **By the log-odds, here of closing the thought** (the stop tokens come later): in mid-thought they are above 0 after one new line, and above those after a blank line by more than 1.1 nats, which is what lifts a half to three quarters, as the rule's "0.25 above" does there. This part was written after the probabilities of figure 2 were known.

# %%
mid = [groups["in mid-thought"][:, len(MARKS) + k] for k in (0, 1)]
known = ~np.isnan(mid[0])
apart = stats.paired(*(odds[known] for odds in mid)) if known.sum() > 1 else texts.NOTHING
after_one = over_texts(groups["in mid-thought"], next(iter(ODDS)))
positive, quarter_odds = findings.Rule("above", 0), findings.Rule("above", 1.1)
F26 = findings.record(
    pair,
    "F26",
    rules=fork_parts(pair_texts),
    stopping=[
        findings.Part("log-odds of </think>, one new line put into mid-thought", after_one, positive),
        findings.Part("the same minus that after a blank line", apart, quarter_odds),
    ],
    control=("closings at random line ends", by_chance(pair_texts)),
    details=rates_of(pair_texts) | marks_chosen | exchanged | effects_of_push | rights,
    sample="greedy answers",
    **about,
)

# %% [markdown]
# Where the two verdicts differ, a sentence says which parts make it:


# %%
def in_full(entry: dict, why: str) -> Markdown:
    """A finding, and where the log-odds decide otherwise, why."""
    by_odds, said = entry["stopping"], findings.sentence(entry)
    if by_odds["verdict"] != entry["verdict"]:
        parts = [part["name"] for part in by_odds["rules"] if part["verdict"] != entry["verdict"]]
        named = findings.as_markdown("; ".join(parts))
        said += f"\n\nBy the log-odds it is *{by_odds['verdict']}*, not *{entry['verdict']}* ({named}): {why}"
    return Markdown(said)


in_full(F26, "the first asks where closings stand in whole texts, the second what the exchanged mark does.")

# %% [markdown]
# ## F21 and F22 · Which endings suffice?
#
# **Question.** `<think></think> <answer>answer</answer>` against `<answer>answer</answer>` alone; the ending block, `</think>`, two new lines and the answer with its period; and `</think> Paris.`. Metric: P(stop) and its log-odds right after, plain form as in the notes; beside it the chat template, where the distilled model's thought is open already, with and without a real thought.

# %% [markdown]
# **Controls.** The same without the tag, with a nonsense tag of as many tokens, and with as many plain words. The rules use the nonsense tag. **Rules, that of F22 made stricter after a first look at the result.** F21 holds if on the distilled model (a) P(stop) after both tags is above 0.5 and (b) it is more than 0.25 above `<answer>` alone, which itself stays below 0.5, and (c) above the nonsense tags. F22 holds if (a) P(stop) after the block is above 0.5, (b) it is more than 0.25 above the same with a nonsense tag, and (c) P(stop) after `</think> Paris.` is above 0.5 and above the same with a nonsense tag.
#
# **By the log-odds** each "above 0.5" is above 0, each "0.25 above" is above by 1.1 nats (what lifts a half to three quarters), and "above the nonsense tag" stays above 0; these were written after the verdicts by P(stop) were known.

# %%
both_tags, answer_tags = "<think></think> <answer>A.</answer>", "<answer>A.</answer>"
ending_block, short_block, with_thought = "</think>¶¶A.", "</think> word.", "thought </think>¶¶A."
answer_twice = "A.</think>¶¶A."
endings = {
    both_tags: Ending(think=True, close=True, gap=" ", tags=True),
    answer_tags: Ending(gap=" ", tags=True),
    ending_block: block,
    short_block: Ending(close=True, gap=" ", answer="word."),
    "</think> word": Ending(close=True, gap=" ", answer="word"),
    with_thought: Ending(thought="real", close=True, gap="\n\n"),
    "A.": Ending(gap=" "),
    answer_twice: Ending(thought="answer", close=True, gap="\n\n"),
}
forms = ("plain", "template")

# %% [markdown]
# A question's endings are read together, since they share its text:


# %%
def odds_each(member, jobs: list[tuple[Ending, str]], form: str, rows: list[int]) -> np.ndarray:
    """Log-odds of stopping after each ending with its mark, [question, ending]."""
    found = []
    for question, material in zip(take(questions, rows), take(materials, rows), strict=True):
        prompts = [
            with_ending(member, [question], [material], ending, form=form, mark=mark)[0]
            for ending, mark in jobs
        ]
        found.append(odds_of_stopping(member, last_hidden_shared(member, prompts)))
    return np.stack(found)


# %% [markdown]
# Each is read with four marks, on both models, in both forms:


# %%
def jobs_of(role: str) -> dict:
    """Every ending with `</think>`, with the nonsense tag, with plain words and with nothing in its place."""
    return {
        (name, kind): (ending, mark) for name, ending in endings.items() for kind, mark in marks[role].items()
    }


def read_endings(rows: list[int]) -> dict:
    """Log-odds of stopping, both models in both forms, [question, ending and mark]."""
    return {
        f"{role} {form}": odds_each(member, list(jobs_of(role).values()), form, rows)
        for role, member in members.items()
        for form in forms
    }


# %%
odds_endings = kept(pair, "07_endings", read_endings, len(questions), fresh=RECOMPUTE)
odds_of = {
    (role, form, *job): column
    for role, form in itertools.product(members, forms)
    for job, column in zip(jobs_of(role), odds_endings[f"{role} {form}"].T, strict=True)
}


def p_after(name: str, kind: str = "tag", form: str = "plain", role: str = "distilled", scale=expit):
    """P(stop) after one ending, or with `scale` np.asarray its log-odds."""
    return stats.bootstrap(scale(odds_of[role, form, name, kind]))


def beyond_nonsense(name: str, form: str = "plain", scale=expit) -> stats.Interval:
    """The distilled model with `</think>` minus that with the nonsense tag."""
    return stats.paired(*(scale(odds_of["distilled", form, name, kind]) for kind in ("tag", "nonsense")))


# %% [markdown]
# F21, its parts and what stands beside them:

# %%
half, quarter = (findings.Rule("above", least) for least in (0.5, 0.25))
in_nats = dict(scale=np.asarray)


def beyond_answer(scale) -> stats.Interval:
    """Both tags minus answer tags alone."""
    after = ((both_tags, "tag"), (answer_tags, "none"))
    return stats.paired(*(scale(odds_of["distilled", "plain", *job]) for job in after))


rules = [
    findings.Part("(a) after both tags", p_after(both_tags), half),
    findings.Part("(b) minus <answer> alone", beyond_answer(expit), quarter),
    findings.Part("(b) <answer> alone", p_after(answer_tags, "none"), findings.Rule("below", 0.5)),
    findings.Part("(c) beyond the nonsense tag", beyond_nonsense(both_tags), positive),
]
alone = p_after(answer_tags, "none", **in_nats)
stopping = [
    findings.Part("(a) log-odds", p_after(both_tags, **in_nats), positive),
    findings.Part("(b) log-odds, minus <answer> alone", beyond_answer(np.asarray), quarter_odds),
    findings.Part("(b) log-odds, <answer> alone", alone, findings.Rule("below", 0)),
    findings.Part("(c) log-odds, beyond the nonsense tag", beyond_nonsense(both_tags, **in_nats), positive),
]

# %% [markdown]
# Beside them the template and the base:

# %%
details = {
    "both tags, template": p_after(both_tags, form="template"),
    "<answer> alone, template": p_after(answer_tags, "none", "template"),
    "both tags, the base": p_after(both_tags, role="base"),
    "<answer> alone, the base": p_after(answer_tags, "none", role="base"),
}
F21 = findings.record(
    pair,
    "F21",
    notebook="07_think_tags",
    quantity="P(stop) of the distilled model after <think></think> <answer>A.</answer>",
    unit="probability",
    rules=rules,
    stopping=stopping,
    control=("the same with a nonsense tag for </think>", p_after(both_tags, "nonsense")),
    sample="questions",
    details=details,
)
near_ends = "P(stop) presses differences together near 0 and 1, the log-odds count them in full."
in_full(F21, near_ends)

# %% [markdown]
# The endings after a real thought and without one, by what stands where `</think>` would:


# %%
mark_colours = {"nonsense": figures.CONTROL, "words": figures.PALE, "none": figures.THIRD}


def ending_rows(role: str, form: str) -> list[tuple]:
    """P(stop) of one model in one form, with each mark, after a thought and without."""
    colours = {"tag": figures.ROLE[role]} | mark_colours
    names = {with_thought: "after a thought", ending_block: "without a thought"}
    shown = itertools.product(names, colours)
    return [(names[name], p_after(name, kind, form, role), colours[kind]) for name, kind in shown]


change = round(-beyond_nonsense(with_thought).estimate, 2) + 0.0
title = f"After a thought a nonsense tag for </think> changes P(stop) by {change:+.2f}"
shown = (("distilled", "plain"), ("distilled", "template"), ("base", "plain"))
panels = {f"{role}, {form}": ending_rows(role, form) for role, form in shown}
fig = figures.interval_rows(panels, title=title, unit="P(stop)", span=(-0.03, 1.03))
key = {"</think>, distilled": figures.DISTILLED, "</think>, base": figures.BASE}
key |= {"nonsense tag": figures.CONTROL, "plain words": figures.PALE, "no tag": figures.THIRD}
note = f"n = {len(questions)} questions, confirm"
figures.save_figure(fig, "07_endings", pair=pair.name, size=(11, 2.8), key=key, note=note)

# %% [markdown]
# **Figure 4: P(stop) right after `</think>`, a blank line and the answer, by what stands in the tag's place.** Round: `</think>`; grey squares: a nonsense tag of as many tokens; pink: as many plain words; triangles: nothing. In the template the distilled model's thought is open already. All other endings are in `07_endings.safetensors` and in the details of F21 and F22.
#
# <details><summary>What it does not show</summary>What a model does where it does not stop: below. And the nonsense tag of a model for which `</think>` is one token is a reserved token of its vocabulary: where such tokens were hardly trained they may lie close to each other, so that one stands in for another. F22's detail prints how near their embeddings are; plain words and nothing are the other controls (nothing after a real thought leaves one new line fewer: figure 5).</details>

# %% [markdown]
# F22 likewise; beside it the template, without a thought and after a real one:

# %%
rules = [
    findings.Part("(a) after the block", p_after(ending_block), half),
    findings.Part("(b) beyond the nonsense tag", beyond_nonsense(ending_block), quarter),
    findings.Part("(c) after `</think> word.`", p_after(short_block), half),
    findings.Part("(c) beyond the nonsense tag, `</think> word.`", beyond_nonsense(short_block), positive),
]
by_nats = [beyond_nonsense(name, **in_nats) for name in (ending_block, short_block)]
stopping = [
    findings.Part("(a) log-odds", p_after(ending_block, **in_nats), positive),
    findings.Part("(b) log-odds, beyond the nonsense tag", by_nats[0], quarter_odds),
    findings.Part("(c) log-odds, `</think> word.`", p_after(short_block, **in_nats), positive),
    findings.Part("(c) log-odds, `</think> word.`, beyond the nonsense tag", by_nats[1], positive),
]
spelled = {"tag": "</think>", "nonsense": "nonsense tag", "words": "plain words", "none": "nothing"}
template = {"without any tag": p_after(ending_block, "none")}
for kind, mark in spelled.items():
    template[f"the block, template, {mark}"] = p_after(ending_block, kind, "template")
    template[f"`</think> word.`, template, {mark}"] = p_after(short_block, kind, "template")
    template[f"after a real thought, template, {mark}"] = p_after(with_thought, kind, "template")
details = template | {"`</think> word`, no period": p_after("</think> word")}

# %% [markdown]
# ### What does the tag add beyond the new lines?
#
# **Question.** Around `</think>` stand a new line and a blank line. After a real thought, tag, blank line and the answer: what becomes of P(stop) if the answer cannot see the tag, the new lines, or either; and if one, two or three new lines stand there as the very tokens, but no tag? **Controls.** A nonsense tag; and as many random tokens of question and thought hidden as tag and new lines are, `N_HIDDEN` draws. *Hidden*: no token behind the thought attends to it, in any head or layer. (Earlier runs of this notebook took the new line before the tag for the tag, and told that hiding the tag changes little.)


# %%
tagged_prompts = {
    (kind, form): with_ending(
        distilled, questions, materials, endings[with_thought], form=form, mark=marks["distilled"][kind]
    )
    for kind, form in itertools.product(("tag", "nonsense"), forms)
}


def encoded(text: str) -> list[int]:
    """A text's tokens as the distilled model gets them."""
    return distilled.encode([text])["input_ids"][0].tolist()


def parts_of(prompt: str) -> tuple[list[int], list[int], list[int]]:
    """Tokens up to the thought's end, all tokens, and where line, tag, lines and answer begin in these."""
    ids, (before, _, _) = encoded(prompt), prompt.rpartition("\n</think>\n\n")
    ends = [before, f"{before}\n", f"{before}\n</think>", f"{before}\n</think>\n\n"]
    lengths = [len(distilled.tokenizer.decode(ids[: k + 1])) for k in range(len(ids))]
    return encoded(before), ids, [sum(length <= len(text) for length in lengths) for text in ends]


# %% [markdown]
# A token that holds period and new line, as in other tokenizers, is hidden whole. Each arm is a list of tokens, and which of them are hidden:


# %%
def arms_of(row: int, form: str) -> dict[str, tuple[list[int], list[int]]]:
    """Tokens of one question's arms, and those that are hidden."""
    before, ids, (line, tag, lines, answer) = parts_of(tagged_prompts["tag", form][row])
    width, rng = answer - line, np.random.default_rng(SEED + row)
    drawn = rng.integers(1, max(2, line - width), N_HIDDEN)
    return {
        "all seen": (ids, []),
        "tag hidden": (ids, [*range(tag, lines)]),
        "new lines hidden": (ids, [*range(line, tag), *range(lines, answer)]),
        "both hidden": (ids, [*range(line, answer)]),
        "nonsense tag": (encoded(tagged_prompts["nonsense", form][row]), []),
        "no tag, one new line": (ids[:tag] + ids[answer:], []),
        "no tag, two new lines": (before + ids[lines:], []),
        "no tag, three new lines": (ids[:tag] + ids[lines:], []),
        **{f"random {k}": (ids, [*range(at, at + width)]) for k, at in enumerate(drawn)},
    }


# %% [markdown]
# All arms of a question run in one row, behind the tokens that they share:


# %%
def odds_of_arms(arms: dict[str, tuple[list[int], list[int]]]) -> np.ndarray:
    """Log-odds of stopping after each arm."""
    every = [ids for ids, _ in arms.values()]
    shared = next(k for k, some in enumerate(zip(*every, strict=False)) if len(set(some)) > 1)
    tokens, parents, unseen = every[0][:shared], [*range(-1, shared - 1)], []
    for ids, hidden in arms.values():
        start = len(tokens)
        tokens = tokens + ids[shared:]
        parents = [*parents, shared - 1, *range(start, len(tokens) - 1)]
        unseen.append((range(start, len(tokens)), [k + (k >= shared) * (start - shared) for k in hidden]))
    batch, last = as_one_row(distilled, tokens, parents), [rows[-1] for rows, _ in unseen]
    for rows, columns in unseen:
        batch["attention_mask"][0, 0, rows[0] : rows[-1] + 1, columns] = torch.finfo(distilled.dtype).min
    states = distilled.traced(batch, lambda lm: lm.model.norm.output[0, last].clone())
    return odds_of_stopping(distilled, states.float().to(distilled.device))


# %% [markdown]
# Both forms of every question:


# %%
def read_arms(rows: list[int]) -> dict:
    """Log-odds of stopping in both forms, [question, arm]."""
    some = [row for row in rows if row < len(questions)]
    return {form: np.stack([odds_of_arms(arms_of(row, form)) for row in some]) for form in forms}


names = [*arms_of(0, "plain")]
odds_arms = kept(pair, "07_hidden", read_arms, len(questions), fresh=RECOMPUTE)


def arm_odds(name: str, form: str) -> np.ndarray:
    """Log-odds of stopping of one arm, one a question."""
    return odds_arms[form][:, names.index(name)]


# %% [markdown]
# A law: the same as prompt by prompt, with the tag hidden by the mask of a whole prompt.

# %%
first = tagged_prompts["tag", "plain"][:2]
hidden = [[*range(*parts_of(prompt)[2][1:3])] for prompt in first]
for arm, given in (("tag hidden", hidden), ("all seen", None)):
    one_by_one = odds_of_stopping(distilled, last_hidden(distilled, first, hide=given))
    gap = expit(one_by_one) - expit(arm_odds(arm, "plain")[: len(first)])
    assert np.abs(gap).max() < (0.02 if distilled.dtype == torch.float32 else 0.2), "the same, each alone"

# %% [markdown]
# In words, and for F22's details:

# %%
shown = [*names[:8], "random"]
p_arms = {
    (name, form): stats.bootstrap(expit(odds_arms[form])[:, [n.startswith(name) for n in names]].mean(1))
    for name, form in itertools.product(shown, forms)
}
of_arms = {f"{form}, {name}": p_arms[name, form] for name, form in p_arms}
lines_alone, said = "no tag, three new lines", []
for form in forms:
    seen, unseen = arm_odds("all seen", form), arm_odds("tag hidden", form)
    adds = stats.paired(seen, arm_odds(lines_alone, form))
    other = stats.paired(arm_odds("nonsense tag", form), arm_odds(lines_alone, form))
    read = stats.paired(seen, unseen)
    of_arms |= {f"{form}, nats: tag over the same new lines": adds, f"{form}, nats: seeing the tag": read}
    lead = "the tag is read" if read.low > 0 else "no later token needs to read the tag"
    said.append(
        f"**{form.capitalize()}: {lead}.** Seeing it adds {read:.1f} nats to the log-odds of stopping; "
        f"among the same three new lines it adds {adds:.1f}, a nonsense tag {other:.1f}. P(stop): "
        + ", ".join(f"{name} {p_arms[name, form]}" for name in shown)
        + "."
    )
Markdown("\n\n".join(said))

# %%
of_arm = {"random": figures.CONTROL, "nonsense tag": figures.CONTROL}
panels = {
    form: [
        (
            name.replace("random", "as many random tokens hidden"),
            p_arms[name, form],
            figures.THIRD if name.startswith("no tag") else of_arm.get(name, figures.DISTILLED),
        )
        for name in shown
    ]
    for form in forms
}
fall = p_arms["tag hidden", "template"].estimate, p_arms["all seen", "template"].estimate
title = f"With </think> hidden from the answer P(stop) is {fall[0]:.2f} (seen: {fall[1]:.2f})"
title = "Where the answer cannot see </think>, the model seldom stops" if fall[0] < fall[1] / 2 else title
fig = figures.interval_rows(panels, title=title, unit="P(stop)", span=(-0.03, 1.03))
note = f"n = {len(questions)} questions, confirm, distilled; random: mean of {N_HIDDEN} draws a question"
figures.save_figure(fig, "07_hidden", pair=pair.name, note=note, size=(9, 3.4))

# %% [markdown]
# **Figure 5: the tag and the new lines around it.** After a real thought, `</think>`, a blank line and the answer. Orange: all seen, or the tag, the new lines, or both hidden from all that stands behind the thought; grey squares: a nonsense tag, or as many random tokens of question and thought hidden; triangles: no tag, one to three new lines as single tokens. 95 % bootstrap over questions. Which head reads the tag it does not show: all are cut at once; and a hidden token leaves its place empty, which no text does.

# %% [markdown]
# F22, with these beside it:

# %% [markdown]
# Where `</think>` and the nonsense tag are single tokens: how near are their embeddings?

# %%
tag_ids = distilled.groups.end_think, single_id(distilled.tokenizer, marks["distilled"]["nonsense"])
if None not in tag_ids:
    embeddings = distilled.model.get_input_embeddings().weight[[*tag_ids, *distilled.groups.control]]
    tag, nonsense, *words = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    details["cosine of </think> and the nonsense tag"] = float(tag @ nonsense)
    cosines = (torch.stack(words) @ tag).tolist()
    details["cosine of </think> and plain words"] = stats.bootstrap(cosines)

# %%
F22 = findings.record(
    pair,
    "F22",
    notebook="07_think_tags",
    quantity="P(stop) of the distilled model after </think>, two new lines, and the answer with its period",
    unit="probability",
    rules=rules,
    stopping=stopping,
    control=("the same with a nonsense tag for </think>", p_after(ending_block, "nonsense")),
    sample="questions",
    details=details | {f"after a thought, {name}": value for name, value in of_arms.items()},
)
in_full(F22, near_ends)

# %% [markdown]
# ## F23 · A prompt that ends in `</think>`
#
# **Question.** Question, answer, `</think>`: does the distilled model write two new lines, say the answer again and stop? Eight seeded samples a question in plain form, two in the template; temperature 0.6, top-p 0.95. **Control.** The nonsense tag, two samples a question. **Rule, written before the result.** F23 holds if more than half of the samples do all three, and more than a quarter more than after the nonsense tag. **By the log-odds of stopping**, once the two new lines and the answer stand there again: above 0, and above those with the nonsense tag by more than 1.1 nats; written after the samples were known.


# %%
def sample(prompts: list[str], name: str, limit: int, n: int = N_SAMPLES) -> list[list]:
    """n seeded completions of each prompt."""
    names = tuple(f"sample {k}" for k in range(n) for _ in prompts)
    flat = stored_completions(
        pair,
        distilled,
        prompts * n,
        name=name,
        max_new_tokens=limit,
        change=Change("samples", names=names),
        temperature=TEMPERATURE,
        top_p=TOP_P,
        seed=SEED,
        fresh=RECOMPUTE,
    )
    return [flat[k :: len(prompts)] for k in range(len(prompts))]


# %% [markdown]
# Questions with the base's answers, the tag or the nonsense tag after them:

# %%
given = load_combined(pair, n_combined=N_SAMPLED, **chosen)["confirm"]
given_materials = ending_materials(given.questions, given.answers, [""] * len(given.questions))
closing = Ending(thought="answer", close=True, answer="none")
sampled = {}
for (kind, n), form in itertools.product((("tag", N_SAMPLES), ("nonsense", 2)), forms):
    mark, short = marks["distilled"][kind], "" if form == "plain" else "_template"
    ended = with_ending(distilled, given.questions, given_materials, closing, form=form, mark=mark)
    n = n if form == "plain" else min(n, 2)
    sampled[kind + short] = sample(ended, f"07_after_{kind}{short}", MAX_AFTER_TAG, n)


# %% [markdown]
# "All three" asks for the given sentence word for word; "says the answer" for the right answer in any words.


# %%
def judge(completion, question, material) -> dict[str, float]:
    """What one sample does."""
    text, stops = completion.text, completion.stop != "limit"
    begins = text.startswith("\n\n")
    repeats = normalise(material.sentence) in normalise(text)
    return {
        "begins with a blank line": begins,
        "says the answer": is_right(text, question.answers),
        "stops": stops,
        "all three": begins and stops and repeats,
        "opens a new thought": text.lstrip().startswith("<think>"),
    }


def judge_all(samples: list[list]) -> pd.DataFrame:
    """Share of each question's samples that do each, one row a question."""
    rows = zip(samples, given.questions, given_materials, strict=True)
    return pd.DataFrame([pd.DataFrame([judge(c, q, m) for c in row]).mean() for row, q, m in rows])


after = {kind: judge_all(samples) for kind, samples in sampled.items()}

# %% [markdown]
# The rule's two parts, and each step of the claim by itself:

# %%
all_three = {kind: judged["all three"] for kind, judged in after.items()}
beside = ["begins with a blank line", "says the answer", "stops", "opens a new thought"]
details = {name: stats.share(after["tag"][name]) for name in beside} | {"samples a question": N_SAMPLES}
details |= {f"{name}, template": stats.share(after["tag_template"][name]) for name in after["tag"]}
details["all three, template, nonsense tag"] = stats.share(all_three["nonsense_template"])
stopping = []
for form in forms:
    odds = p_after(answer_twice, form=form, **in_nats), beyond_nonsense(answer_twice, form, **in_nats)
    named = [f"{form}: log-odds after the answer said again", f"{form}: the same beyond the nonsense tag"]
    stopping += map(findings.Part, named, odds, (positive, quarter_odds))

# %% [markdown]
# The rule reads the plain form, its parts by the log-odds are those of both:

# %%
F23 = findings.record(
    pair,
    "F23",
    notebook="07_think_tags",
    quantity="share of samples after question, answer and </think> that write a blank line, "
    "repeat the answer and stop",
    unit="of samples",
    rules=[
        findings.Part("all three", stats.share(all_three["tag"]), half),
        findings.Part(
            "beyond the nonsense tag", stats.paired(all_three["tag"], all_three["nonsense"]), quarter
        ),
    ],
    stopping=stopping,
    control=("a nonsense tag for </think>", stats.share(all_three["nonsense"])),
    sample="questions",
    details=details,
)
in_full(F23, "the samples must write all of it themselves, the log-odds are read where it stands there.")

# %% [markdown]
# ## F24 · Does `</think>` guarantee the answer?
#
# **Question.** Whole answers, sampled from the chat template: after the first `</think>`, does it reason again (a second `</think>`, or a word of doubt)? Does a finished answer ever come without one? **Control.** The same model's greedy answers, as if cut at as many tokens. **Rule, written before the result.** F24 holds if (a) more than 1 % of the samples with a `</think>` reason again after it and (b) fewer than 2 % of the finished samples have none.

# %%
asked = to_confirm[:N_SAMPLED]
whole_answers = sample(ask(distilled, asked, form="template"), "07_samples", MAX_SAMPLED)
closed = [[c for c in row if "</think>" in c.text] for row in whole_answers]
finished = [[c for c in row if c.stop != "limit"] for row in whole_answers]
ids = [q.id for q in asked]
greedy_cut = cut_short(distilled, greedy.loc[ids], asked, MAX_SAMPLED, opened=distilled.thinks)

# %% [markdown]
# A sample counts for its question; questions are what is resampled:


# %%
def reasons_again(text: str) -> bool:
    """A second closing tag, or a word of doubt, after the first."""
    rest = text.split("</think>", 1)[1]
    return "</think>" in rest or count_keywords(rest)["doubting"] > 0


def share_or_unknown(values) -> stats.Interval:
    """Mean with its interval; where fewer than two questions can tell, anything from 0 to 1."""
    return stats.share(values) if len(values) > 1 else stats.Interval(0.0, 0.0, 1.0, len(values))


def share_of(rows: list[list], passes) -> stats.Interval:
    """Share of samples that pass, mean over the questions that have any."""
    return share_or_unknown([np.mean([passes(c.text) for c in row]) for row in rows if row])


again = share_of(closed, reasons_again)
untagged = share_of(finished, lambda text: "</think>" not in text)
greedy_again = share_or_unknown([float(reasons_again(t)) for t in greedy_cut[greedy_cut["closed"]]["text"]])
closings = pd.Series([c.text.count("</think>") for row in whole_answers for c in row])
counts = closings.value_counts().sort_index()
details = {f"samples with {n} </think>": int(times) for n, times in counts.items()}
details[f"finished within {MAX_SAMPLED} tokens"] = sum(map(len, finished))
details["samples"] = len(asked) * N_SAMPLES

# %%
F24 = findings.record(
    pair,
    "F24",
    notebook="07_think_tags",
    quantity="share of samples with a </think> that reason again after it",
    unit="of samples",
    rules=[
        findings.Part("(a) reason again", again, findings.Rule("above", 0.01)),
        findings.Part("(b) finished without </think>", untagged, findings.Rule("below", 0.02)),
    ],
    control=("greedy answers", greedy_again),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F24))

# %% [markdown]
# Both findings in one figure, F23 on the left, F24 on the right:

# %%
of_kind = {"tag": figures.DISTILLED, "nonsense": figures.CONTROL}
closes = stats.share([len(row) / N_SAMPLES for row in closed])
panels = {
    "F23: after question, answer, tag": [
        (name, stats.share(after[kind][name]), of_kind[kind]) for name in after["tag"] for kind in of_kind
    ],
    "F24: whole answers": [
        ("closes the thought", closes, figures.DISTILLED),
        ("reasons again after it", again, figures.DISTILLED),
        ("reasons again, greedy", greedy_again, figures.CONTROL),
        ("finished without a tag", untagged, figures.THIRD),
    ],
}
opens = after["tag"]["opens a new thought"].mean()
title = f"After question, answer and </think> {opens:.0%} of samples open a new thought"
fig = figures.interval_rows(panels, title=title, unit="share of samples", span=(-0.03, 1.03))
note = f"n = {len(given.questions)} and {len(asked)} questions x {N_SAMPLES} samples, confirm, "
note += f"temperature {TEMPERATURE}, top-p {TOP_P}"
figures.save_figure(fig, "07_samples", pair=pair.name, size=(11, 3.2), note=note)

# %% [markdown]
# **Figure 6: what samples do around `</think>`.** Orange with the tag, grey squares with the nonsense tag (left) and in greedy decoding (right); 95 % bootstrap over questions.
#
# <details><summary>What it does not show</summary>Whether it reasons again where it is led to: F23 puts `</think>` into a text without a thought, F24 counts whole answers from the template. Long answers: samples end at `MAX_SAMPLED` tokens, and those cut there count as neither finished nor untagged.</details>

# %% [markdown]
# F24's rule in R1's own texts: on three of the sets; its second part on the one that holds finished answers only:

# %%
three_sets = pd.concat(sets[name] for name in ("gsm8k_pair", "math_sampled", "math500_think_or_not"))
ended = three_sets[three_sets["closings"] > 0]
twice = ended["closings"] > 1
published_again = stats.share(twice | (ended["doubts_after_close"] > 0))
published_untagged = stats.share(sets["math500_think_or_not"]["closings"] == 0)
above, below = findings.Rule("above", 0.01), findings.Rule("below", 0.02)

# %%
F24_published = findings.record(
    findings.Published(
        "three sets", ("DeepSeek-R1-Distill-Qwen-1.5B",), "greedy, sampled, and finished only"
    ),
    "F24",
    notebook="07_think_tags",
    quantity="texts with a </think> that reason again after it",
    unit="of texts",
    rules=[
        findings.Part("a second </think> or a doubt after the first", published_again, above),
        findings.Part("finished without </think>", published_untagged, below),
    ],
    control=("a second </think>", stats.share(twice)),
    details={"an answer marker before it": stats.share(ended["answer_marker_before_close"])},
    split="",
    sample="texts",
)
Markdown(findings.sentence(F24_published))

# %% [markdown]
# ### What follows, greedily
#
# **Question.** Does the model stop, write the tag and an answer again and stop, reason again, or ask? Greedy, at most `MAX_ENDED` tokens after each ending, plain form. **Control.** The nonsense tag, as above.


# %%
def behaviour(text: str, stopped: bool) -> str:
    """What a continuation does, by exact strings."""
    counts = count_keywords(text)
    if stopped and not text.strip():
        return "stops at once"
    before, tag, _ = text.partition("</think>")
    reasoning = counts["doubting"] + counts["alternatives"] + counts["opening"]
    if (tag and before.strip()) or "<think>" in text or reasoning:
        return "reasons again"
    if "?" in text:
        return "asks a question"
    if stopped:
        return "tag, an answer, stops" if tag else "other words, stops"
    return "goes on"


# %% [markdown]
# Five endings on a few questions:

# %%
jobs = [
    (name, kind)
    for name in (with_thought, ending_block, short_block, both_tags, "A.")
    for kind in ("tag", "nonsense")
    if kind == "tag" or endings[name].close
]
continued = dict(max_new_tokens=MAX_ENDED, fresh=RECOMPUTE)
few = questions[:N_WRITTEN]
few_materials = materials[: len(few)]


def prompts_of(member) -> list[str]:
    """The few questions with each ending and mark, one job after another."""
    ended = [
        with_ending(member, few, few_materials, endings[name], form="plain", mark=marks[member.role][kind])
        for name, kind in jobs
    ]
    return [*itertools.chain(*ended)]


# %%
does = {}
for role, member in members.items():
    written = stored_completions(pair, member, prompts_of(member), name=f"07_after_{role}", **continued)
    done = [behaviour(completion.text, completion.stop != "limit") for completion in written]
    for k, job in enumerate(jobs):
        counts = pd.Series(done[k * len(few) : (k + 1) * len(few)]).value_counts(normalize=True)
        does[role, *job] = counts.to_dict()

# %% [markdown]
# The bare answer, without any tag, is the last bar of each model:

# %%
colours = {
    "stops at once": figures.STOP,
    "tag, an answer, stops": figures.THIRD,
    "other words, stops": figures.LINE,
    "reasons again": figures.WAIT,
    "asks a question": figures.PALE,
    "goes on": figures.REST,
}
rows = {
    f"{role}: {name}{' (nonsense)' if kind == 'nonsense' else ''}": shares
    for (role, name, kind), shares in does.items()
    if role == "distilled" or kind == "tag"
}
share = does["distilled", "A.", "tag"].get("reasons again", 0)
title = f"After question and answer alone the distilled model reasons again in {share:.0%} of cases"
fig = figures.stacked_rows(rows, colours, title=title, unit="share of questions")
note = f"n = {len(few)} questions, confirm, plain, greedy"
figures.save_figure(fig, "07_behaviour", pair=pair.name, size=(9.5, 5.6), key=colours, note=note)

# %% [markdown]
# **Figure 7: greedy continuations after each ending.** One bar an ending, base and distilled, with `</think>`; of the distilled model also with the nonsense tag in its place.
#
# <details><summary>What it does not show</summary>Whether a second answer is the first one again: what follows a second tag may be any answer. Reasoning is told by a tag with words before it, by `<think>`, or by words of doubt, alternatives and openings.</details>

# %% [markdown]
# ## Which heads and MLPs choose the mark?
#
# **Question.** F26's choice, at the token where it falls: the log-odds of one new line against a blank line (where a blank line is two tokens: after the first, against a second one). Each node's value at that token is replaced: at an end of a sentence in the middle of a thought by that of the same thought's own end (*early ← own end*); and at its own end by that of the base on the same text (*distilled ← base*). Chosen on `explore` by the estimate (attribution patching), told on `confirm`, run for run. **Control.** 20 draws of as many random heads and MLPs; no rule was written for this part.

# %%
pair = pair.float()  # gradients in float32
odds = {role: fork.mark_odds(member) for role, member in members.items()}
reads, opened = {"early": distilled, "late": distilled, "base": base}, "<think>\n"
PUT = {"early ← own end": ("early", "late"), "distilled ← base": ("late", "base")}


def choice_texts(question) -> dict[str, str] | None:
    """Of one thought: up to the choice nearest its middle, to its own end, and that as the base reads it."""
    done = Completion(**greedy.loc[question.id, fields].to_dict())
    ends = fork.choices(distilled, done)
    own, middle = ends[ends["closes"]], ends[~ends["closes"] & ends["depth"].between(1 / 3, 0.999)]
    if not len(own) or not len(middle):
        return None
    late, start = own["prompt"].iloc[0], ask(base, [question], form="template")[0]
    early = middle.loc[(middle["depth"] - 0.5).abs().idxmin(), "prompt"]
    as_base = start.removesuffix(opened) + opened + late.removeprefix(done.prompt)
    return {"early": early, "late": late, "base": as_base}


# %% [markdown]
# The texts of both halves; every head and MLP is a node:

# %%
choice_of = {}
for split in ("explore", "confirm"):
    found = (choice_texts(q) for q in load_questions(N_PROMPTS) if q.split == split)
    some = [*itertools.islice(filter(None, found), N_CHOICES)]
    choice_of[split] = pd.DataFrame(some, columns=["early", "late", "base"])
layers = range(distilled.n_layers)
nodes = [patching.Node("mlp", layer) for layer in layers]
heads = range(distilled.config.num_attention_heads)
nodes += [patching.Node("head", layer, head) for layer in layers for head in heads]

# %% [markdown]
# The estimate for every head and MLP, and the log-odds themselves, of both sides of each replacement:


# %%
def estimate_choices(rows: list[int]) -> dict:
    """Estimated effects by run and half, [thought, node]; and the metric by text, [thought]."""
    found = {}
    for split, chosen in choice_of.items():
        some = {text: take(list(chosen[text]), rows) for text in chosen}
        for text, member in reads.items():
            values = measure(member, some[text], odds[member.role]) if some[text] else torch.zeros(0)
            found[f"{split} {text}"] = values
        for run, (into, source) in PUT.items():
            effect = torch.zeros(0, len(nodes))
            if some[into]:
                given = activations(reads[source], some[source])
                every = patching.attribution_patching(distilled, some[into], given, odds["distilled"])
                effect = every.of(nodes)
            found[f"{split} {run}"] = effect
    return found


n_each = [len(chosen) for chosen in choice_of.values()]
estimated = kept(pair, "07_choice_estimate", estimate_choices, *n_each, fresh=RECOMPUTE)

# %% [markdown]
# Run for run: the nodes of largest estimate, random ones, and the whole stream at each depth.

# %%
rng, picked, drawn = np.random.default_rng(SEED), {}, {}
for run in PUT:
    order = np.argsort(-np.abs(estimated[f"explore {run}"].sum(0)))
    picked[run] = [nodes[k] for k in order[:N_TOP]]
    drawn[run] = [nodes[k] for k in rng.permutation(order[N_TOP:])[:N_NODES]]
points = [patching.Node("stream", point) for point in range(distilled.n_layers + 1)]


def patch_choices(rows: list[int]) -> dict:
    """Exact effects by run, [thought, node]."""
    found = {}
    for run, (into, source) in PUT.items():
        some = {text: take(list(choice_of["confirm"][text]), rows) for text in (into, source)}
        every = [*picked[run], *drawn[run], *points]
        found[run] = torch.zeros(0, len(every))
        if some[into]:
            given = activations(reads[source], some[source])
            found[run] = patching.exact_patching(distilled, some[into], given, every, odds["distilled"])
    return found


exact = kept(pair, "07_choice_exact", patch_choices, n_each[1], fresh=RECOMPUTE)

# %% [markdown]
# What parts the two sides of each run, and how much of it a node makes:


# %%
def mean_or_none(values: np.ndarray) -> stats.Interval:
    """Mean over thoughts; none where fewer than two have both ends."""
    return stats.bootstrap(values) if len(values) > 1 else texts.NOTHING


def of_choice(run: str) -> dict:
    """What is told of one run: gap, effects of its nodes, random ones by draw, correlation, depth."""
    into, source = PUT[run]
    gap = estimated[f"confirm {source}"] - estimated[f"confirm {into}"]
    top, rest, stream = np.split(exact[run], np.cumsum([len(picked[run]), len(drawn[run])]), axis=1)
    both = [nodes.index(node) for node in (*picked[run], *drawn[run])]
    about = estimated[f"confirm {run}"][:, both].sum(0)
    sizes, size = np.abs(rest.sum(0)) / max(1, len(rest)), min(N_TOP, rest.shape[1])
    draws = [np.random.default_rng(k).choice(sizes, size, replace=False).mean() for k in range(20)]
    return {
        "gap": mean_or_none(gap),
        "nodes": [mean_or_none(column) for column in top.T],
        "draws": stats.Interval(float(np.mean(draws)), float(min(draws)), float(max(draws)), len(draws)),
        "agreement": stats.correlation(about, np.hstack([top, rest]).sum(0)),
        "depth": round(float(stats.settled_at(stream.sum(0)[None])[0]) * distilled.n_layers),
    }


chosen_by = {run: of_choice(run) for run in PUT}

# %% [markdown]
# In words:


# %%
def in_words(run: str) -> str:
    """The finding of one run."""
    about, gap = chosen_by[run], chosen_by[run]["gap"]
    if np.isnan(gap.estimate):
        return f"*{run}*: fewer than two thoughts have both ends, so nothing was measured."
    by_size = sorted(zip(about["nodes"], picked[run], strict=True), key=lambda one: -abs(one[0].estimate))
    largest = "; ".join(f"{node} {effect:.1f}" for effect, node in by_size[:5])
    draws, depth = about["draws"], about["depth"]
    return (
        f"*{run}*: the two sides are {gap:.1f} nats apart (n = {gap.n}). One node alone moves the choice by: "
        f"{largest}. The mean size over {N_TOP} random nodes is {draws.estimate:.2f} ({draws.low:.2f} to "
        f"{draws.high:.2f} over {draws.n} draws). Estimate and exact effect correlate by "
        f"{about['agreement']}. Half of what the whole stream moves is there from depth {depth} of "
        f"{distilled.n_layers} on; below it stands at other tokens."
    )


Markdown("\n\n".join(map(in_words, PUT)))

# %%
panels, estimates = {}, {}
for run, about in chosen_by.items():
    columns = [nodes.index(node) for node in picked[run]]
    estimates = [mean_or_none(column) for column in estimated[f"confirm {run}"][:, columns].T]
    rows = []
    for node, effect, guess in zip(picked[run], about["nodes"], estimates, strict=True):
        rows += [(str(node), effect, figures.DISTILLED), (str(node), guess, figures.THIRD)]
    panels[run] = [*rows, ("random nodes, mean size", about["draws"], figures.CONTROL)]
about = chosen_by["early ← own end"]
most, node = max(zip(about["nodes"], picked["early ← own end"], strict=True), key=lambda one: one[0].estimate)
share = most.estimate / about["gap"].estimate if about["gap"].estimate else 0
title = "Which node chooses between one new line and a blank line"
if most.low > about["draws"].high:
    title = f"{node} alone makes {share:.0%} of what parts a thought's own end from its middle"
unit = "effect on the log-odds of one new line (nats)"
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True)
key = {"exact": figures.DISTILLED, "estimate": figures.THIRD, "random, 20 draws": figures.CONTROL}
note = f"n = {n_each[1]} thoughts, confirm, template, distilled"
figures.save_figure(fig, "07_choice", pair=pair.name, note=note, key=key, size=(10, 4.6))

# %% [markdown]
# **Figure 8: heads and MLPs that choose the mark.** One node replaced at a time at the token where the choice falls: orange run for run, triangles the first-order estimate; 95 % bootstrap over thoughts. Left, a middle end of a sentence gets the value of the thought's own end; right, the own end gets the base's value. Nodes in the order of their estimates on `explore`; grey, the mean size over as many random nodes (range of 20 draws). Effects overlap: a late MLP passes on what others wrote, the last one most of all, so that where the choice is made is told by the depth from which the whole stream carries it. What several nodes do together, and what earlier tokens bring, it does not show.

# %% [markdown]
# ## How early is the stop settled?
#
# **Question.** P(stop) *if the thought were cut here*: `</think>`, two new lines and the answer put after the first eighth, quarter, ... of a real thought. **Control.** The nonsense tag at the same cuts.

# %%
cuts = [0, 0.125, 0.25, 0.5, 0.75, 1]


def cut_prompts(prompt: str, material) -> list[str]:
    """The prompt with its thought cut, closed and answered: by the tag, then by the nonsense tag."""
    words = material.thought.split(" ")
    begun = [prompt + " ".join(words[: round(cut * len(words))]) for cut in cuts]
    closed_by = [marks["distilled"][kind] for kind in ("tag", "nonsense")]
    return [f"{text}\n{mark}\n\n{material.sentence}" for mark in closed_by for text in begun]


def read_traces(rows: list[int]) -> dict:
    """Log-odds of stopping if each thought is cut, [question, mark and cut]."""
    prompts = ask(distilled, take(questions, rows), form="template")
    every = [cut_prompts(*both) for both in zip(prompts, take(materials, rows), strict=True)]
    hidden = [last_hidden_shared(distilled, some) for some in every]
    return {"if cut": np.stack([odds_of_stopping(distilled, states) for states in hidden])}


# %% [markdown]
# Each thought cut at six places, the same places with the nonsense tag:

# %%
p_cut = expit(kept(pair, "07_traces", read_traces, len(questions), fresh=RECOMPUTE)["if cut"])
with_tag, with_nonsense = (stats.bands(part) for part in np.split(p_cut, 2, axis=1))
none, eighth, whole = (with_tag[k].estimate for k in (0, 1, -1))
title = f"P(stop) rises from {none:.2f} without a thought to {whole:.2f} after all of it"
if eighth < min(none, whole):
    title = f"A thought cut short keeps it from stopping: P(stop) is {eighth:.2f} after an eighth of it"
curves = {"</think>": (with_tag, figures.DISTILLED), "nonsense tag": (with_nonsense, figures.CONTROL)}
fig = figures.lines(
    {"": curves},
    cuts,
    title=title,
    xlabel="share of the thought kept",
    ylabel="P(stop) if cut here",
    ticks=["0", "1/8", "1/4", "1/2", "3/4", "1"],
)
note = f"n = {len(questions)} questions, confirm, template, distilled"
figures.save_figure(fig, "07_cut", pair=pair.name, size=(7.5, 3.4), note=note)

# %% [markdown]
# **Figure 9: P(stop) after `</think>`, two new lines and the answer, if the thought is cut.** Orange with the tag, dashed grey with the nonsense tag; 95 % bootstrap over questions.
#
# <details><summary>What it does not show</summary>Whether the model would have given this answer itself: it is the base's.</details>

# %% [markdown]
# ## F25 · Traces of the R1-Zero template
#
# **Question.** R1-Zero was trained under a template with `<think>` and `<answer>` (DeepSeek-AI 2025). Did the distilled model inherit a habit for it? Metric: under that template, log P of `<think>` after "Assistant:" and of `<answer>` after `</think>`, minus the same under the template with other names (`<plan>`, `<reply>`), distilled minus base. **Control.** The base. **Rule, made stricter after a first look at the result.** F25 holds if for `<answer>` the difference of differences is above 1 nat, with its interval, and does not hold if it lies below. `<think>` is told beside it: where it is one token in one model and text in the other, differences do not cancel.


# %%
def tag_logprob(member, opened: str, tag: str) -> float:
    """log P of a tag after a text, token by token, in nats."""
    ids = ids_of(member, tag)
    prefixes = [opened + member.tokenizer.decode(ids[:k]) for k in range(len(ids))]
    hidden = last_hidden_shared(member, prefixes)
    return float(logprobs_of(member, hidden, ids).diagonal().sum())


def read_zero(rows: list[int]) -> dict:
    """log P of the opening and of the answer tag under both names of the tags, one a question."""
    found = {}
    names = (("think", "answer"), ("plan", "reply"))
    for (role, m), (think, answer) in itertools.product(members.items(), names):
        filled = [R1_ZERO.format(think=think, answer=answer, question=q.text) for q in take(questions, rows)]
        prompts = [m.prompt(text, "plain") for text in filled]
        thought = f" <{think}> I think so. </{think}>"
        opens = [tag_logprob(m, prompt, f" <{think}>") for prompt in prompts]
        answered = [tag_logprob(m, prompt + thought, f" <{answer}>") for prompt in prompts]
        found |= {f"{role} open {think}": np.array(opens), f"{role} answer {think}": np.array(answered)}
    return found


# %% [markdown]
# How much likelier R1-Zero's names are than other names, in each model, and the difference between the models:

# %%
zero = kept(pair, "07_r1_zero", read_zero, len(questions), fresh=RECOMPUTE)


def habit(role: str, tag: str) -> np.ndarray:
    """log P of R1-Zero's tag minus that of the other name, one a question, in nats."""
    return zero[f"{role} {tag} think"] - zero[f"{role} {tag} plan"]


inherited = {tag: stats.paired(habit("distilled", tag), habit("base", tag)) for tag in ("open", "answer")}

# %%
F25 = findings.record(
    pair,
    "F25",
    notebook="07_think_tags",
    quantity="log P(<answer>) after </think> under the R1-Zero template, minus other tag names, "
    "distilled minus base",
    unit="nats",
    rules=[findings.Part("difference of differences", inherited["answer"], findings.Rule("above", 1.0))],
    control=("the base alone", stats.bootstrap(habit("base", "answer"))),
    sample="questions",
    details={"<think> after 'Assistant:', distilled minus base": inherited["open"]},
)
Markdown(findings.sentence(F25))

# %% [markdown]
# ## Try it
#
# Build an ending from its parts: P(stop), the next token and the continuation of both models. Figures 4, 4 and 6 are the same for readers without a kernel.

# %%
explorers.endings_explorer(pair, questions[0], materials[0])

# %% [markdown]
# ## Takeaway
#
# Printed from this run's findings.


# %%
def hundred(value) -> str:
    """A share as so many of a hundred."""
    number = value["estimate"] if isinstance(value, dict) else value.estimate
    return "unknown" if np.isnan(number) else f"{100 * number:.0f}"


lowest, *_, highest = sorted((entry["estimate"], hundred(entry)) for entry in published.values())

# %% [markdown]
# In three sentences:

# %%
stops = {name: hundred(p_arms[name, "template"]) for name in shown}
arm, kept_from = f"one new line {min(PUSHES):+g} nats", "This model has no closing tag to be kept from."
if has_tag:
    on, gained = effects_of_push[f"tokens more, {arm}"], rights[f"right answers more, {arm}"]
    shut = arms[arm]["closes its thought"].mean()
    kept_from = f"Kept from that new line, the model writes {on:.0f} tokens more, closes {shut:.0%} of its "
    kept_from += f"thoughts in {MAX_NEW_TOKENS} tokens, and its share of right answers changes by {gained}."
early = "The end is chosen one token early" if F26["verdict"] == "holds" else "When it is chosen stays open"
makes = {"holds": "`</think>` makes", "does not hold": "A closing mark, not `</think>` alone, makes"}
mark = makes.get(F22["verdict"], "It is open what makes")
if of_arms["template, nats: tag over the same new lines"].low < 1.1:
    mark = "No closing mark is what makes"
Markdown(
    f"{early}: R1's published thoughts close right after a single new line {lowest[1]} to {highest[1]} "
    f"times in a hundred, those of this pair {hundred(F26)} times.\n\n{kept_from}\n\n"
    f"{mark} the model stop: after its thought, `</think>` and the answer it stops {stops['all seen']} "
    f"times in a hundred, with a tag that means nothing {stops['nonsense tag']}, where the answer cannot see "
    f"the tag {stops['tag hidden']}, with the same new lines and no tag {stops['no tag, three new lines']}."
)

# %% [markdown]
# Back: [06_steering](06_steering.ipynb). The whole table of findings: `data/<pair>/findings.json`.
