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
# **Evidence.** What follows the end of a sentence, in published texts and on the pair (figure 1); the same with the marks exchanged (figure 2); eight samples a question (figure 3); a full grid of endings (figures 4 and A); the same endings with the tag, without it, and with a nonsense tag of as many tokens (figure 5).
#
# **Caveat.** Any markup might look like an end. So a tag that closes no thought stands wherever `</think>` does (`nonsense tag` in the figures; on the distilled half of `smol` it lies very near `</think>`: F22), and the base, which does not know the tag as a token, reads it as text. The numbers stored here are from the embedded pair `smol`, which was trained on traces of this very form, and say nothing about DeepSeek-R1; published texts of R1's distilled model stand beside it in F26 and F24.
#
# **Reads** stored completions where they match (else computes them), counts of published texts in `data/published`. **Writes** `data/<pair>/07_*` (completions and readouts, `07_grid.csv`), findings F21 to F26, figures `07_*`.

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
N_PUSHED = 24  # quick: 4; questions answered while one new line is pushed
PUSHES = [-8.0, 8.0]  # nats
N_GRID = 6  # quick: 2; questions of the full grid
N_SAMPLED = 60  # quick: 6; questions that are sampled
N_SAMPLES = 8  # quick: 2; samples of each
MAX_SAMPLED = 160  # new tokens of a sample
MAX_ENDED = 40  # new tokens after an ending
MAX_AFTER_TAG = 40  # new tokens of a sample after question, answer and tag
N_WRITTEN = 12  # quick: 4; questions whose greedy continuations are read
N_PATTERNS = 6  # quick: 2; prompts whose attention is read
N_HIDDEN = 5  # random tokens hidden as the control
N_FORCED = 20  # quick: 6; questions under budget forcing
MAX_FORCED = 120  # new tokens after each forced word
BUDGETS = [0, 8, 16, 32, 64]  # tokens of thought before it is cut
TEMPERATURE, TOP_P = 0.6, 0.95

# %% jupyter={"source_hidden": true} tags=["claim"]
import dataclasses
import itertools
import unicodedata

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from sklearn.linear_model import LinearRegression

from helpers import explorers, figures, findings, fork, stats, texts
from helpers.generation import Change, Completion, answers, complete
from helpers.generation import cut_short, load_combined, stored_completions
from helpers.pairs import load_pair
from helpers.prompts import Ending, ending_materials, endings_grid, with_ending
from helpers.prompts import R1_ZERO, ask, final_answer, is_right, load_questions, normalise
from helpers.readouts import attention_pattern, last_hidden, last_hidden_shared, lens
from helpers.readouts import logprobs_of, read_stream, streams_at_all_positions
from helpers.store import data_dir, kept, take, write_text
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

# %% [markdown]
# Of the distilled model's own answers, greedy and in the template, the thoughts serve as material:


# %%
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


def p_stop(member, hidden: torch.Tensor) -> np.ndarray:
    """P(any stop token) after each prompt."""
    return logprobs_of(member, hidden, member.groups.stop).exp().sum(1).clamp(1e-12, 1 - 1e-7).numpy()


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
# ### What the tags are to each model
#
# A tag is one token or is read as text. Checked on every ending: each `</think>` is one token where the model has it, no prompt has two beginnings, and all survive the tokenizer.


# %%
def as_tokens(role: str, name: str, text: str) -> dict:
    """How one model reads a mark."""
    ids = ids_of(members[role], text)
    pieces = " ".join(repr(members[role].tokenizer.decode([i])) for i in ids)
    used = "a token" if len(ids) == 1 else f"text: {pieces}"
    return {"model": role, "tag": name, "text": text, "tokens": len(ids), "used as": used}


named = {
    role: {"<think>": "<think>", "</think>": "</think>", "<answer>": "<answer>"}
    | {kind: marks[role][kind] for kind in ("nonsense", "words")}
    for role in members
}
pd.DataFrame([as_tokens(role, name, text) for role in members for name, text in named[role].items()])


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

# %% [markdown]
# How often each follows each, in four sets of published texts of DeepSeek-R1-Distill-Qwen-1.5B and in the greedy answers of this pair's distilled model:

# %%
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

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether the new line *makes* the model stop or is only the first token of a decision that was made before it. Every training text has one new line before the tag, so the form was learnt; that it is chosen one token early is what can be used.
#
# </details>

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
# **Question.** In mid-thought the model nearly always writes a blank line. What comes next if one new line is put there instead, and what at the thought's own end if a blank line is? Metrics: P(`</think>`) and P(Wait set) right after the mark, mean over a text's ends of sentences, intervals over texts. *In mid-thought*: behind the first third, before the thought's own end. **Control.** The mark that the model wrote itself. Where a tokenizer makes a blank line of two tokens, as that of `smol` does, the choice falls at the second: one new line then means that no second one follows, and what follows it is read on that condition.


# %%
MARKS = ["one", "blank", "neither"]
MARKS += [f"{what} after {gap}" for gap in texts.GAPS for what in ("</think>", "Wait")]


def by_place(ends: pd.DataFrame) -> dict[str, np.ndarray]:
    """Means over one thought's ends of sentences, [mark]: behind its first third, and at its own end."""
    if not len(ends):
        return dict.fromkeys(("in mid-thought", "at its own end"), np.full(len(MARKS), np.nan))
    mid_thought = ~ends["closes"] & ends["depth"].between(1 / 3, 0.999)
    places = {"in mid-thought": ends[mid_thought], "at its own end": ends[ends["closes"]]}
    return {place: rows[MARKS].mean().to_numpy() for place, rows in places.items()}


def stacked(thoughts: list[pd.DataFrame]) -> dict[str, np.ndarray]:
    """The same of several thoughts, [text, mark]."""
    each = [by_place(ends) for ends in thoughts]
    return {place: np.stack([one[place] for one in each]) for place in each[0]}


# %%
def over_texts(means: np.ndarray, mark: str) -> stats.Interval:
    """Mean of a mark over the texts that have such a place; none where fewer than two do."""
    values = means[:, MARKS.index(mark)]
    values = values[~np.isnan(values)]
    return stats.bootstrap(values) if len(values) > 1 else texts.NOTHING


def after_each_mark(groups: dict[str, np.ndarray]) -> dict[str, stats.Interval]:
    """What follows each mark, put at each place."""
    asked = itertools.product(groups.items(), texts.GAPS, ("</think>", "Wait"))
    return {
        f"P({what}) {place}, {gap} put there": over_texts(means, f"{what} after {gap}")
        for (place, means), gap, what in asked
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
marks_chosen = {
    f"P({choice}), {place}": over_texts(means, choice)
    for place, means in groups.items()
    for choice in MARKS[:3]
}
pd.DataFrame({"mean over texts": marks_chosen}).map(format)

# %%
exchanged = after_each_mark(groups)
rows = [
    (f"{place}: {gap}", exchanged[f"P({what}) {place}, {gap} put there"], colour)
    for place in groups
    for gap in texts.GAPS
    for what, colour in (("</think>", figures.STOP), ("Wait", figures.WAIT))
]
split = [
    exchanged.get(f"P(</think>) in mid-thought, {gap} put there", texts.NOTHING).estimate
    for gap in texts.GAPS
]
title = "What follows each mark, put at the end of a sentence"
if split[0] > 0.5 > 0.1 > split[1]:
    title = "Mid-thought, one new line closes the thought; a blank line does not, even at its end"
fig = figures.interval_rows(
    {"": rows}, title=title, unit="probability right after the mark", span=(-0.03, 1.03)
)
key = {"</think>": figures.STOP, "Wait set": figures.WAIT}
note = f"greedy thoughts of {len(read_thoughts)} questions"
figures.save_figure(fig, "07_fork_exchanged", pair=pair.name, note=note, key=key, size=(8, 3))

# %% [markdown]
# **Figure 2: the same place with the other mark.** Black P(`</think>`), wine P(Wait set), 95 % intervals over texts. The distilled model's own thoughts up to a sentence's end, then one new line or a blank line.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Why the mark decides, and nothing about R1 itself: its texts have the same form, its probabilities were not read.
#
# </details>

# %% [markdown]
# **Aside.** Every text that this model learned from has one new line before the tag. Was the fork put there by that form? The pair `qwen-1.5b`, read once on a GPU ([data/qwen-1.5b](../data/qwen-1.5b/README.md)), beside the same base trained on texts with a *blank* line there. Limits: one training each, and the second had no second stage, so that more than the mark differs between the two.

# %%
trainings = {"one new line in the texts": "fork.csv", "a blank line in the texts": "fork_blank.csv"}
of_qwen = {}
for name, file in trainings.items():
    seen = [ends for _, ends in pd.read_csv(data_dir("qwen-1.5b") / file).groupby("question")]
    of_qwen[f"{name} (n = {len(seen)} texts)"] = after_each_mark(stacked(seen))
pd.DataFrame(of_qwen).map(format)

# %% [markdown]
# ### And if it is pushed?
#
# **Question.** While the model writes, the choice of one new line at the ends of sentences is made likelier or less likely by `PUSHES` nats, nothing else. How long does it go on, does it wait, is it still right? **Control.** The control words pushed as far at the same steps; and the run that is not pushed.

# %%
pushed_questions = [question for question in load_questions(N_PROMPTS) if question.split == "confirm"][
    :N_PUSHED
]
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

# %%
measured = ["length", "stopped", "waits", "right", "repetition"]
pd.DataFrame(
    {
        arm: {column: f"{stats.bootstrap(frame[column].astype(float)):.2f}" for column in measured}
        for arm, frame in pushed.items()
    }
).T

# %%
unpushed = pushed["not pushed"]["length"]
effects = {
    f"tokens more, {arm}": stats.paired(frame["length"], unpushed)
    for arm, frame in pushed.items()
    if arm != "not pushed"
}
Markdown(
    "; ".join(f"{name}: {effect:.0f}" for name, effect in effects.items())
    + f" (n = {len(unpushed)}, paired)."
)

# %% [markdown]
# The pair's finding, with both beside it:

# %%
F26 = findings.record(
    pair,
    "F26",
    rules=fork_parts(pair_texts),
    control=("closings at random line ends", by_chance(pair_texts)),
    details=rates_of(pair_texts) | marks_chosen | exchanged | effects,
    sample="greedy answers",
    **about,
)
Markdown(findings.sentence(F26))

# %% [markdown]
# **Aside (output folded).** The published texts by what ended the line, and by third of the thought; the set with its own prompt is left out.

# %% jupyter={"outputs_hidden": true}
breaks = pd.read_csv(data_dir("published") / "line_breaks.csv")
prose = breaks[(breaks["next_line"] == "prose") & (breaks["set"] != "easy_comparisons")]
sentences = prose[prose["line_end"] == "sentence"]
summed = dict(columns="follows", values="count", aggfunc="sum", fill_value=0)
display(Markdown("How the line ended, three sets together, next line prose:"))
display(prose.pivot_table(index=["gap", "line_end"], **summed))
display(Markdown("Ends of sentences, by third of the thought:"))
display(sentences.pivot_table(index=["gap", "third"], **summed))

# %% [markdown]
# Where the waits of the published texts stand, and how they are spelled (a space before the word is part of the token):

# %%
pd.DataFrame({name: counts.filter(regex="^waits (after|')").sum() for name, counts in sets.items()})

# %% [markdown]
# ## F23 · A prompt that ends in `</think>`
#
# **Question.** Question, answer, `</think>`: does the distilled model write two new lines, say the answer again and stop? Eight seeded samples a question, temperature 0.6, top-p 0.95. **Control.** The nonsense tag, two samples a question. **Rule, written before the result.** F23 holds if more than half of the samples do all three, and more than a quarter more than after the nonsense tag.


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
for kind, n in (("tag", N_SAMPLES), ("nonsense", 2)):
    mark = marks["distilled"][kind]
    ended = with_ending(distilled, given.questions, given_materials, closing, form="plain", mark=mark)
    sampled[kind] = sample(ended, f"07_after_{kind}", MAX_AFTER_TAG, n)


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
half, quarter, positive = (findings.Rule("above", least) for least in (0.5, 0.25, 0))
all_three = {kind: judged["all three"] for kind, judged in after.items()}
beside = ["begins with a blank line", "says the answer", "stops", "opens a new thought"]
F23 = findings.record(
    pair,
    "F23",
    notebook="07_think_tags",
    quantity="share of samples after question, answer and </think> that write a blank line, "
    "repeat the answer and stop",
    unit="of samples",
    rules=[
        findings.Part("all three", stats.share(all_three["tag"]), half),
        findings.Part("beyond the nonsense tag", stats.paired(*all_three.values()), quarter),
    ],
    control=("a nonsense tag for </think>", stats.share(all_three["nonsense"])),
    sample="questions",
    details={name: stats.share(after["tag"][name]) for name in beside} | {"samples a question": N_SAMPLES},
)
Markdown(findings.sentence(F23))

# %% [markdown]
# ## F24 · Does `</think>` guarantee the answer?
#
# **Question.** Whole answers, sampled from the chat template: after the first `</think>`, does it reason again (a second `</think>`, or a word of doubt)? Does a finished answer ever come without one? **Control.** The same model's greedy answers, as if cut at as many tokens. **Rule, written before the result.** F24 holds if (a) more than 1 % of the samples with a `</think>` reason again after it and (b) fewer than 2 % of the finished samples have none.

# %%
asked = [q for q in load_questions(N_PROMPTS) if q.split == "confirm"][:N_SAMPLED]
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

# %% [markdown]
# Beside it stands how many samples there are, and how often each closes a thought:

# %%
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
        (name, stats.share(after[kind][name]), of_kind[kind]) for name in after["tag"] for kind in after
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
# **Figure 3: what samples do around `</think>`.** Orange with the tag, grey squares with the nonsense tag (left) and in greedy decoding (right); 95 % bootstrap over questions.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether it reasons again where it is led to: F23 puts `</think>` into a text without a thought, F24 counts whole answers from the template. Long answers: samples end at `MAX_SAMPLED` tokens, and those cut there count as neither finished nor untagged.
#
# </details>

# %% [markdown]
# ### After the tag, and without the thought
#
# **Question.** F24 in R1's own texts: is there ever a second `</think>`, a doubt after the first, an answer before it? And what is lost when the prompt closes the thought: the same 100 problems of MATH-500 with and without it (only finished answers were published, so this is a selection).


# %%
def after_the_close(counts: pd.DataFrame) -> dict[str, int]:
    """Texts of one set by what they do around `</think>`."""
    closed = counts[counts["closings"] > 0]
    return {
        "texts that close": len(closed),
        "close twice": (closed["closings"] > 1).sum(),
        "a wait after it": (counts["waits_after_close"] > 0).sum(),
        "an answer marker before it": closed["answer_marker_before_close"].sum(),
        "nothing after it": (closed["words_after_close"] == 0).sum(),
        "never close": (counts["closings"] == 0).sum(),
    }


pd.DataFrame({name: after_the_close(counts) for name, counts in sets.items()})

# %% [markdown]
# F24's rule on three of the sets; its second part on the one that holds finished answers only:

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
# The same 100 problems, with the thought and with the thought closed by the prompt:

# %%
problems = texts.published("math500_think_or_not")
thinking, unthinking = (problems[problems["closed_prompt"] == value].sort_index() for value in (0, 1))
assert (thinking.index == unthinking.index).all(), "the same problems"


def with_and_without(column: str) -> dict[str, str]:
    """One count with the thought, without it, and the difference."""
    return {
        "with its thought": f"{stats.bootstrap(thinking[column]):.2f}",
        "thought closed by the prompt": f"{stats.bootstrap(unthinking[column]):.2f}",
        "difference, paired": f"{stats.paired(thinking[column], unthinking[column]):.2f}",
    }


compared_columns = {"words": "words", "right answers": "right", "waits": "waits"}
pd.DataFrame({label: with_and_without(column) for label, column in compared_columns.items()})

# %% [markdown]
# ## The grid of endings
#
# **Question.** Which parts of an ending decide, alone and together? All combinations of `<think>`, thought (none, the answer, a real one), `</think>`, gap (none, space, one or two new lines), answer (sentence, without period, word with and without period, wrong, another question's) and answer tags, plain form, both models. Metric: logit of P(stop), a linear model of its main effects and two-way interactions for each question, then mean and bootstrap over questions.


# %%
def p_each(member, jobs: list[tuple[Ending, str]], form: str, rows: list[int]) -> np.ndarray:
    """P(stop) after each ending with its mark, [question, ending]; a question's endings share its text."""
    found = []
    for question, material in zip(take(questions, rows), take(materials, rows), strict=True):
        prompts = [
            with_ending(member, [question], [material], ending, form=form, mark=mark)[0]
            for ending, mark in jobs
        ]
        found.append(p_stop(member, last_hidden_shared(member, prompts)))
    return np.stack(found)


grid = endings_grid()


def read_grid(rows: list[int]) -> dict:
    """P(stop) of both models after every ending, [question, ending]."""
    jobs = [(ending, "</think>") for ending in grid]
    return {role: p_each(member, jobs, "plain", rows) for role, member in members.items()}


# %% [markdown]
# The eight endings after which the distilled model is surest to stop:

# %%
p_grid = kept(pair, "07_grid", read_grid, min(N_GRID, len(questions)), fresh=RECOMPUTE)
columns = {role: f"P(stop) {role}" for role in members}
table = pd.DataFrame([vars(ending) for ending in grid])
table = table.assign(**{column: p_grid[role].mean(0) for role, column in columns.items()})
write_text(data_dir(pair.name) / "07_grid.csv", table.to_csv(index=False, float_format="%.4f"))
table.sort_values("P(stop) distilled", ascending=False).head(8).round(3)

# %% [markdown]
# The mean over all other parts, by tags and kind of answer:

# %%
kinds = ["sentence", "open", "word.", "word", "wrong", "other"]
tag_names = {
    (False, False): "no tag",
    (True, False): "<think>",
    (False, True): "</think>",
    (True, True): "<think>…</think>",
}
tagged = table.assign(shown=[tag_names[ending.think, ending.close] for ending in grid])
maps = {
    role: tagged.pivot_table(column, "shown", "answer").loc[list(tag_names.values()), kinds]
    for role, column in columns.items()
}

# %%
closes = table["close"].to_numpy()
gain = p_grid["distilled"][:, closes].mean() - p_grid["distilled"][:, ~closes].mean()
fig = figures.heat_maps(
    maps,
    title=f"</think> anywhere in an ending changes the distilled model's P(stop) by {gain:+.2f}",
    xlabel="answer",
    ylabel="tags",
    unit="P(stop)",
    columns=kinds,
    names=list(tag_names.values()),
    diverging=False,
    written=True,
)
note = f"n = {len(p_grid['base'])} questions x {len(grid)} endings, confirm, plain"
figures.save_figure(fig, "07_grid", pair=pair.name, size=(9, 3.2), note=note)

# %% [markdown]
# **Figure 4: P(stop) by tags and kind of answer.** Means over thoughts, gaps and answer tags. "open" and "word" lack the period; "wrong" and "other" end in one.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# The parts averaged over; they follow.
#
# </details>

# %% [markdown]
# Each part is coded as there or not, less its mean. Two parts cross where they vary apart: one thought excludes another, and wrong answers always are sentences with a period.

# %%
coded = pd.DataFrame(
    {
        "<think>": table["think"],
        "</think>": table["close"],
        "thought: answer": table["thought"] == "answer",
        "thought: real": table["thought"] == "real",
        "blank line": table["gap"] == "\n\n",
        "period": ~table["answer"].isin(["open", "word"]),
        "full sentence": ~table["answer"].isin(["word.", "word"]),
        "right answer": ~table["answer"].isin(["wrong", "other"]),
        "answer tags": table["tags"],
    }
).astype(float)
coded -= coded.mean()

# %% [markdown]
# What two parts do together, beyond their sum:


# %%
def vary_apart(first: str, second: str) -> bool:
    """Whether the grid tells the interaction of two parts."""
    if first.startswith("thought") and second.startswith("thought"):
        return False
    return second != "right answer" or first not in ("period", "full sentence")


crossed = {
    f"{first} x {second}": coded[first] * coded[second] * 2
    for first, second in itertools.combinations(coded, 2)
    if vary_apart(first, second)
}
design = pd.concat([coded, pd.DataFrame(crossed)], axis=1)

# %% [markdown]
# One linear model a question, then the mean of its coefficients over questions:

# %%
effects = {}
for role, values in p_grid.items():
    fitted = [LinearRegression().fit(design, y).coef_ for y in np.log(values / (1 - values))]
    effects[role] = dict(zip(design, stats.bands(np.stack(fitted)), strict=True))
by_size = sorted(design, key=lambda name: -abs(effects["distilled"][name].estimate))
lead = next(name for name in by_size if name in coded)
strongest = [name for name in by_size if name in crossed][:8]

# %% jupyter={"outputs_hidden": true}
panels = {
    heading: [(name, effects[role][name], figures.ROLE[role]) for name in names for role in members]
    for heading, names in (("main effects", coded), ("strongest interactions", strongest))
}
size = effects["distilled"][lead].estimate
title = f"On the distilled model “{lead}” moves the log-odds of stopping most ({size:+.1f} nats)"
unit = "change of the log-odds of stopping (nats)"
fig = figures.interval_rows(panels, title=title, unit=unit, zero=True)
key = {"base": figures.BASE, "distilled": figures.DISTILLED}
note = f"n = {len(p_grid['base'])} questions, confirm, plain"
figures.save_figure(fig, "07_effects", pair=pair.name, size=(11, 4.4), key=key, note=note)

# %% [markdown]
# **Figure A (output folded): what each part does to the log-odds of stopping.** Blue the base, orange the distilled model; 95 % bootstrap over questions. Left, a part there against not there, at the average of all others (least squares); right, how far two parts together go beyond their sum (half the difference of differences). Whether wrong answers would do without a period cannot be told: they all have one.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# More than this many questions: each carries the whole grid, and their number is what the intervals know about.
#
# </details>

# %% [markdown]
# ## F21 and F22 · Which endings suffice?
#
# **Question.** `<think></think> <answer>answer</answer>` against `<answer>answer</answer>` alone; the ending block, `</think>`, two new lines and the answer with its period; and `</think> Paris.`. Metric: P(stop) right after, plain form as in the notes; beside it the chat template after a real thought.

# %% [markdown]
# **Controls.** The same without the tag, with a nonsense tag of as many tokens, and with as many plain words. The rules use the nonsense tag. **Rules, that of F22 made stricter after a first look at the result.** F21 holds if on the distilled model (a) P(stop) after both tags is above 0.5 and (b) it is more than 0.25 above `<answer>` alone, which itself stays below 0.5, and (c) above the nonsense tags. F22 holds if (a) P(stop) after the block is above 0.5, (b) it is more than 0.25 above the same with a nonsense tag, and (c) P(stop) after `</think> Paris.` is above 0.5 and above the same with a nonsense tag.

# %%
both_tags, answer_tags = "<think></think> <answer>A.</answer>", "<answer>A.</answer>"
ending_block, short_block, with_thought = "</think>¶¶A.", "</think> word.", "thought </think>¶¶A."
endings = {
    both_tags: Ending(think=True, close=True, gap=" ", tags=True),
    answer_tags: Ending(gap=" ", tags=True),
    ending_block: block,
    short_block: Ending(close=True, gap=" ", answer="word."),
    "</think> word": Ending(close=True, gap=" ", answer="word"),
    with_thought: Ending(thought="real", close=True, gap="\n\n"),
    "A.": Ending(gap=" "),
}
forms = ("plain", "template")

# %% [markdown]
# Each is read with four marks, on both models, in both forms:


# %%
def jobs_of(role: str) -> dict:
    """Every ending with `</think>`, with the nonsense tag, with plain words and with nothing in its place."""
    return {
        (name, kind): (ending, mark) for name, ending in endings.items() for kind, mark in marks[role].items()
    }


def read_endings(rows: list[int]) -> dict:
    """P(stop) of both models in both forms, [question, ending and mark]."""
    return {
        f"{role} {form}": p_each(member, list(jobs_of(role).values()), form, rows)
        for role, member in members.items()
        for form in forms
    }


# %%
p_endings = kept(pair, "07_endings", read_endings, len(questions), fresh=RECOMPUTE)
p_of = {
    (role, form, *job): column
    for role, form in itertools.product(members, forms)
    for job, column in zip(jobs_of(role), p_endings[f"{role} {form}"].T, strict=True)
}


def p_after(name: str, kind: str = "tag", form: str = "plain", role: str = "distilled") -> stats.Interval:
    """P(stop) after one ending."""
    return stats.bootstrap(p_of[role, form, name, kind])


def beyond_nonsense(name: str) -> stats.Interval:
    """P(stop) of the distilled model with `</think>` minus that with the nonsense tag, plain."""
    return stats.paired(*(p_of["distilled", "plain", name, kind] for kind in ("tag", "nonsense")))


# %% [markdown]
# F21, its parts and what stands beside them:

# %%
beyond_answer = stats.paired(
    p_of["distilled", "plain", both_tags, "tag"], p_of["distilled", "plain", answer_tags, "none"]
)
rules = [
    findings.Part("(a) after both tags", p_after(both_tags), half),
    findings.Part("(b) minus <answer> alone", beyond_answer, quarter),
    findings.Part("(b) <answer> alone", p_after(answer_tags, "none"), findings.Rule("below", 0.5)),
    findings.Part("(c) beyond the nonsense tag", beyond_nonsense(both_tags), positive),
]
details = {
    "both tags, template": p_after(both_tags, form="template"),
    "<answer> alone, template": p_after(answer_tags, "none", "template"),
    "both tags, the base": p_after(both_tags, role="base"),
    "<answer> alone, the base": p_after(answer_tags, "none", role="base"),
}

# %%
F21 = findings.record(
    pair,
    "F21",
    notebook="07_think_tags",
    quantity="P(stop) of the distilled model after <think></think> <answer>A.</answer>",
    unit="probability",
    rules=rules,
    control=("the same with a nonsense tag for </think>", p_after(both_tags, "nonsense")),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F21))

# %% [markdown]
# F22 likewise; beside it the same block after a real thought, in the template:

# %%
rules = [
    findings.Part("(a) after the block", p_after(ending_block), half),
    findings.Part("(b) beyond the nonsense tag", beyond_nonsense(ending_block), quarter),
    findings.Part("(c) after `</think> word.`", p_after(short_block), half),
    findings.Part("(c) beyond the nonsense tag, `</think> word.`", beyond_nonsense(short_block), positive),
]
details = {
    "without any tag": p_after(ending_block, "none"),
    "`</think> word`, no period": p_after("</think> word"),
}
spelled = {"tag": "</think>", "nonsense": "nonsense tag", "words": "plain words", "none": "nothing"}
for kind, mark in spelled.items():
    details[f"after a real thought, template, {mark}"] = p_after(with_thought, kind, "template")

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
    control=("the same with a nonsense tag for </think>", p_after(ending_block, "nonsense")),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F22))

# %% [markdown]
# The endings side by side; those without a tag once:

# %%
mark_colours = {"nonsense": figures.CONTROL, "words": figures.PALE, "none": figures.THIRD}


def ending_rows(role: str, form: str) -> list[tuple]:
    """P(stop) of one model in one form: four endings with each mark, two that have none."""
    colours = {"tag": figures.ROLE[role]} | mark_colours
    with_marks = itertools.product((with_thought, ending_block, short_block, both_tags), colours)
    shown = [*with_marks, (answer_tags, "none"), ("A.", "none")]
    return [(name, p_after(name, kind, form, role), colours[kind]) for name, kind in shown]


# %% [markdown]
# How far the nonsense tag stands in for `</think>` after a thought:

# %%
thought = [p_of["distilled", "plain", with_thought, kind].mean() for kind in ("nonsense", "tag")]
change = round(float(thought[0] - thought[1]), 2) + 0.0
title = f"After a thought a nonsense tag for </think> changes P(stop) by {change:+.2f}"
shown = (("distilled", "plain"), ("distilled", "template"), ("base", "plain"))
panels = {f"{role}, {form}": ending_rows(role, form) for role, form in shown}
fig = figures.interval_rows(panels, title=title, unit="P(stop)", span=(-0.03, 1.03))
key = {"</think>, distilled": figures.DISTILLED, "</think>, base": figures.BASE}
key |= {"nonsense tag": figures.CONTROL, "plain words": figures.PALE, "no tag": figures.THIRD}
note = f"n = {len(questions)} questions, confirm"
figures.save_figure(fig, "07_endings", pair=pair.name, size=(12, 4.8), key=key, note=note)

# %% [markdown]
# **Figure 5: P(stop) right after each ending.** Round: with `</think>`; grey squares: a nonsense tag of as many tokens in its place; pink: as many plain words; triangles: nothing in its place. ¶ is a new line, A. the answer with its period. In the template the distilled model's thought is open already. The base in the template and the word without its period are in `07_endings.safetensors` and in F22's details.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# What a model does where it does not stop: next. And the nonsense tag of a model for which `</think>` is one token is a reserved token of its vocabulary: where such tokens were hardly trained they may lie close to each other, so that one stands in for another. F22's detail prints how near their embeddings are; plain words and nothing are the other controls (nothing after a real thought leaves one new line fewer, see figure 6).
#
# </details>

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
few = questions[:N_WRITTEN]
few_materials = materials[: len(few)]
continued = dict(max_new_tokens=MAX_ENDED, fresh=RECOMPUTE)


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
# **Figure 6: greedy continuations after each ending.** One bar an ending, base and distilled, with `</think>`; of the distilled model also with the nonsense tag in its place.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether a second answer is the first one again: what follows a second tag may be any answer. Reasoning is told by a tag with words before it, by `<think>`, or by words of doubt, alternatives and openings.
#
# </details>

# %% [markdown]
# ## Where does the tag act?
#
# **Question.** After a real thought, the tag, a blank line and the answer (plain form): from the answer's last token, which heads look at `</think>`? And is it looked at to stop: what becomes of P(stop) if no later token can attend to the tag? **Controls.** Attention to the nonsense tag at the same place; hiding as many random other tokens (not the first) instead.

# %%
pair = pair.float()  # attention, hidden tokens and lens in float32
tagged_prompts = {
    kind: with_ending(
        distilled,
        questions,
        materials,
        endings[with_thought],
        form="plain",
        mark=marks["distilled"][kind],
    )
    for kind in ("tag", "nonsense", "none")
}
unclosed = Ending(thought="real", answer="none")
before_tag = with_ending(distilled, questions, materials, unclosed, form="plain")
width = len(ids_of(distilled, "</think>"))

# %% [markdown]
# Where the tag begins in each prompt, in tokens:


# %%
def encoded(text: str) -> torch.Tensor:
    """A text's tokens as the distilled model gets them."""
    return distilled.encode([text])["input_ids"][0]


def tag_place(prompt: str, before: str) -> int:
    """Position of the tag's first token: the first whose left side holds all that stands before it."""
    ids = encoded(prompt)
    return next(k for k in range(len(ids)) if len(distilled.tokenizer.decode(ids[:k])) >= len(before))


places = {
    kind: [tag_place(*both) for both in zip(tagged_prompts[kind], before_tag, strict=True)]
    for kind in ("tag", "nonsense")
}


# %% [markdown]
# What is hidden from all later tokens: the tag, or as many random other tokens, in several draws.


# %%
def random_places(rng: np.random.Generator) -> list[int]:
    """In each prompt a random place that does not touch the tag or the first token."""
    drawn = []
    for prompt, place in zip(tagged_prompts["tag"], places["tag"], strict=True):
        ends = len(encoded(prompt)) - width
        drawn.append(int(rng.choice([k for k in range(1, ends) if abs(k - place) >= width])))
    return drawn


rng = np.random.default_rng(SEED)
hidden_spans = [
    [list(range(k, k + width)) for k in at]
    for at in (places["tag"], *(random_places(rng) for _ in range(N_HIDDEN)))
]


# %%
def hide(rows: list[int]) -> dict:
    """P(stop) as the prompts stand, with the tag hidden, and with as many random tokens hidden."""
    prompts = {kind: take(every, rows) for kind, every in tagged_prompts.items()}
    found = {kind: p_stop(distilled, last_hidden(distilled, some)) for kind, some in prompts.items()}
    few = prompts["tag"][:3]
    unhidden = p_stop(distilled, last_hidden(distilled, few, hide=[[]] * len(few)))
    assert np.allclose(unhidden, found["tag"][: len(few)], atol=1e-4), "hiding nothing changes nothing"
    found["hidden"], *random = (
        p_stop(distilled, last_hidden(distilled, prompts["tag"], hide=take(span, rows)))
        for span in hidden_spans
    )
    return found | {"random": np.stack(random, axis=1)}


p_hidden = kept(pair, "07_hidden", hide, len(questions), fresh=RECOMPUTE)

# %% [markdown]
# What is left when the tag cannot be read:

# %%
p_mean = {kind: values.mean() for kind, values in p_hidden.items()}
Markdown(
    f"P(stop) is {p_mean['tag']:.2f} with the tag seen, {p_mean['hidden']:.2f} with the tag hidden, "
    f"{p_mean['none']:.2f} without it. What later tokens can still see when it is hidden: the new line "
    "before it, its place, and the two new lines after it."
)

# %%
bars = [
    ("</think> seen", p_hidden["tag"], figures.DISTILLED),
    ("</think> hidden from later tokens", p_hidden["hidden"], figures.DISTILLED),
    ("random token hidden", p_hidden["random"].mean(1), figures.CONTROL),
    ("nonsense tag", p_hidden["nonsense"], figures.CONTROL),
    ("no tag", p_hidden["none"], figures.THIRD),
]
rows = [(name, stats.bootstrap(values), colour) for name, values, colour in bars]
change = p_mean["hidden"] - p_mean["tag"]
title = f"Hiding </think> from every later token changes P(stop) by {change:+.2f}"
fig = figures.interval_rows({"": rows}, title=title, unit="P(stop)", span=(-0.03, 1.03))
note = f"n = {len(questions)} questions, confirm, plain, distilled; random: mean of {N_HIDDEN} draws"
figures.save_figure(fig, "07_hidden", pair=pair.name, note=note)

# %% [markdown]
# **Figure 7: P(stop) after a thought and the ending block, with the tag hidden.** All later tokens, in all heads and layers, cannot attend to it; the tag itself still stands in the text. Grey: a random other token hidden instead, and the nonsense tag.

# %% [markdown]
# **What it does not show.** A hidden tag is not an absent one: a new line stands before it and two after it, and without the tag only two are left, since three in a row would be other tokens. Where P(stop) hardly falls with the tag hidden, but is low without it, no later token needs to read the tag, and the new lines around it may carry what it seems to do; the triangles of figure 5 share that flaw. Nor does it show which head is needed: all are cut at once.

# %% [markdown]
# ### Which heads look at it, and from which depth on it tells
#
# Two figures whose outputs are folded.

# %%
shape = distilled.n_layers, distilled.config.num_attention_heads
heads = list(itertools.product(*map(range, shape)))


def looks(prompt: str, place: int) -> torch.Tensor:
    """Share of its attention that each head gives to the tag, from the answer's last token."""
    return attention_pattern(distilled, prompt, heads)[1][:, place : place + width].sum(1)


maps = {}
for kind, name in (("tag", "to </think>"), ("nonsense", "to the nonsense tag")):
    some = zip(tagged_prompts[kind][:N_PATTERNS], places[kind], strict=False)
    looked = torch.stack([looks(*both) for both in some])
    maps[name] = looked.numpy().mean(0).reshape(shape)

# %% jupyter={"outputs_hidden": true}
most = maps["to </think>"].max()
title = f"The head that looks most at </think> gives it {most:.0%} of its attention"
unit = "share of attention"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit=unit, diverging=False)
note = f"n = {len(looked)} prompts, confirm, plain, distilled, from the answer's last token"
figures.save_figure(fig, "07_attention", pair=pair.name, note=note)

# %% [markdown]
# **Figure B (output folded): attention from the answer's last token to the tag, by layer and head.** Distilled model, a real thought and the ending block in plain form; right, the same place holding a nonsense tag. What is done with what is seen it does not show: attention is not effect.


# %%
def read_depths(rows: list[int]) -> dict:
    """log P of all stop tokens through the lens, [question, point]."""
    stop = distilled.groups.stop
    return {
        kind: lens(distilled, take(prompts, rows), stop).logprobs.logsumexp(-1)
        for kind, prompts in tagged_prompts.items()
    }


depths = kept(pair, "07_depths", read_depths, len(questions), fresh=RECOMPUTE)
gained = depths["tag"].mean(0) - depths["none"].mean(0)
depth = int(stats.settled_at(gained[None])[0] * distilled.n_layers)

# %% jupyter={"outputs_hidden": true}
drawn = (
    ("tag", "</think>", figures.DISTILLED),
    ("nonsense", "nonsense tag", figures.CONTROL),
    ("none", "no tag", figures.THIRD),
)
fig = figures.lines(
    {"": {name: (stats.bands(depths[kind][:, 1:]), colour) for kind, name, colour in drawn}},
    range(1, distilled.n_layers + 1),
    title=f"Half of what the tag adds to log P(stop) is there from depth {depth} of {distilled.n_layers} on",
    xlabel="depth (layers passed)",
    ylabel="log P(stop) through the lens",
)
note = f"n = {len(questions)} questions, confirm, plain, distilled"
figures.save_figure(fig, "07_lens", pair=pair.name, size=(8, 3.8), note=note)

# %% [markdown]
# **Figure C (output folded): the lens at the answer's last token.** log P of all stop tokens at each depth from the first layer on, after a real thought and the ending block with the tag, a nonsense tag, or none; bands are 95 % bootstrap over questions. Early depths, where the lens is unreliable (Belrose et al. 2023), it does not show.

# %% [markdown]
# ## How early is the stop settled?
#
# **Question.** Along a real answer: P(stop) at every token, with the tag marked; and P(stop) *if the thought were cut here*: `</think>`, two new lines and the answer put after the first eighth, quarter, ... of a real thought. **Control.** The nonsense tag at the same cuts.

# %%
cuts = [0, 0.125, 0.25, 0.5, 0.75, 1]


def cut_prompts(prompt: str, material) -> list[str]:
    """The prompt with its thought cut, closed and answered: by the tag, then by the nonsense tag."""
    words = material.thought.split(" ")
    begun = [prompt + " ".join(words[: round(cut * len(words))]) for cut in cuts]
    closed_by = [marks["distilled"][kind] for kind in ("tag", "nonsense")]
    return [f"{text}\n{mark}\n\n{material.sentence}" for mark in closed_by for text in begun]


def read_traces(rows: list[int]) -> dict:
    """P(stop) if each thought is cut, [question, mark and cut]."""
    prompts = ask(distilled, take(questions, rows), form="template")
    every = [cut_prompts(*both) for both in zip(prompts, take(materials, rows), strict=True)]
    return {"if cut": np.stack([p_stop(distilled, last_hidden_shared(distilled, some)) for some in every])}


# %% [markdown]
# Each thought cut at six places, the same places with the nonsense tag:

# %%
p_cut = kept(pair, "07_traces", read_traces, len(questions), fresh=RECOMPUTE)["if cut"]
with_tag, with_nonsense = (stats.bands(part) for part in np.split(p_cut, 2, axis=1))

# %% [markdown]
# No thought, a piece of it, and the whole:

# %%
none, eighth, whole = (with_tag[k].estimate for k in (0, 1, -1))
lead = "A piece of a thought is worse than none: " if eighth < min(none, whole) else ""
title = f"{lead}P(stop) is {none:.2f} without one, {eighth:.2f} after an eighth, {whole:.2f} after all of it"
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
# **Figure 8: P(stop) after `</think>`, two new lines and the answer, if the thought is cut.** Orange with the tag, dashed grey with the nonsense tag; 95 % bootstrap over questions.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether the model would have given this answer itself: it is the base's.
#
# </details>

# %% [markdown]
# Along up to four real answers, at every token:

# %%
ended_ids = [q.id for q in questions if greedy.loc[q.id, "closed"] and greedy.loc[q.id, "stopped"]][:4]
traces = greedy.loc[ended_ids or [questions[0].id]]
streams = streams_at_all_positions(distilled, list(traces["prompt"] + traces["text"]))
along, closed_at = [], []
for trace, stream in zip(traces.itertuples(), streams, strict=True):
    start = len(encoded(trace.prompt))
    logprobs = read_stream(distilled, stream[start:, -1], distilled.groups.stop).logprobs
    along.append(logprobs.logsumexp(-1).exp().numpy())
    thought, tag, _ = (trace.prompt + trace.text).partition("</think>")
    if tag and len(along[-1]) > 1:
        closed_at.append((len(encoded(thought + tag)) - start - 1) / (len(along[-1]) - 1))

# %% jupyter={"outputs_hidden": true}
steps = np.linspace(0, 1, 101)
rows = np.array([np.interp(steps, np.linspace(0, 1, len(row)), row) for row in along])
highest = max([float(row[:-1].max()) for row in along if len(row) > 1], default=0.0)
fig = figures.lines(
    {"": {"": (rows, figures.LINE)}},
    steps,
    title=f"P(stop) along real answers: at most {highest:.3f} before the last token",
    xlabel="share of the answer written",
    ylabel="P(stop), log scale",
    log_rows=(0,),
)
for place in closed_at:
    fig.axes[0].axvline(place, color=figures.WAIT, linewidth=0.8, linestyle=":")
fig.axes[0].set_xlim(0, 1.02)
note = f"{len(along)} greedy answers, confirm, template, distilled"
figures.save_figure(fig, "07_along", pair=pair.name, size=(7.5, 3.4), note=note)

# %% [markdown]
# **Figure D (output folded): P(stop) at every token of real answers.** One line an answer, dotted wine its `</think>`. The right end is the token after which it stopped. It shows no averages: up to four answers, in fixed order.

# %% [markdown]
# ## Budget forcing
#
# **Question.** Muennighoff et al. (2025) lengthen thoughts by putting "Wait" in the place of the end, and shorten them by a maximum. Does it work here, and what happens to right answers? `</think>` (or the stop) is replaced by "Wait" once to three times; and the thought is cut at a number of tokens, `</think>` and two new lines put after it. **Control.** "So" in the place of "Wait". Each continuation has at most `MAX_FORCED` tokens; a thought that does not close by then has no answer.

# %%
forced = [q for q in load_questions(N_PROMPTS) if q.split == "confirm"][:N_FORCED]
starts = ask(distilled, forced, form="template")
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


rounds = [{word: list(greedy.loc[[q.id for q in forced], "text"]) for word in ("Wait", "So")}]
for _ in range(3):
    rounds.append(force(rounds[-1]))

# %% [markdown]
# What the rounds change: length, and right answers.


# %%
def thought_tokens(said: list[str]) -> np.ndarray:
    """Tokens of each thought."""
    return np.array([len(ids_of(distilled, text.split("</think>")[0])) for text in said], dtype=float)


def right(said: list[str]) -> np.ndarray:
    """Whether each final answer is right."""
    pairs = zip(said, forced, strict=True)
    return np.array([is_right(final_answer(text, opened=True), q.answers) for text, q in pairs], dtype=float)


measured = {
    name: {word: [measure(said[word]) for said in rounds] for word in ("Wait", "So")}
    for name, measure in (("tokens of thought", thought_tokens), ("right answers", right))
}


# %% [markdown]
# The other way round, the thought cut at a number of tokens and closed:


# %%
def right_if_cut(budget: int) -> stats.Interval:
    """Right answers if each thought is closed after so many tokens."""
    begun = [distilled.tokenizer.decode(ids_of(distilled, thought_of(q))[:budget]) for q in forced]
    prompts = [f"{start}{text}\n</think>\n\n" for start, text in zip(starts, begun, strict=True)]
    written = stored_completions(pair, distilled, prompts, name="07_budget", **continued)
    said = zip(written, forced, strict=True)
    return stats.bootstrap([float(is_right(c.text, q.answers)) for c, q in said])


if_cut = ", ".join(f"{budget} tokens {right_if_cut(budget)}" for budget in BUDGETS)
Markdown(f"Right answers with the thought cut at {if_cut}.")

# %%
word_colours = {"Wait": figures.WAIT, "So": figures.CONTROL}
panels = {
    name: {word: (stats.bands(np.stack(rows, axis=1)), word_colours[word]) for word, rows in by_word.items()}
    for name, by_word in measured.items()
}
longer, better = (stats.paired(rows["Wait"][3], rows["Wait"][0]) for rows in measured.values())
gain = "with" if better.low > 0 else "without"
title = (
    f"Three forced waits lengthen the thought by {longer.estimate:.0f} tokens, {gain} a gain in right answers"
)
fig = figures.lines(
    panels,
    range(4),
    title=title,
    xlabel="times the end was replaced",
    ylabel=("tokens", "share of questions"),
    rows=2,
)
note = f"n = {len(forced)} questions, confirm, template, greedy"
figures.save_figure(fig, "07_budget", pair=pair.name, size=(6.5, 5), note=note)

# %% [markdown]
# **Figure 9: budget forcing.** Above, tokens of thought; below, right answers, with "Wait" (wine) or "So" (dashed grey) in the place of the thought's end, zero to three times; 95 % bootstrap over questions.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Gains that a larger model may have: this one's thoughts are often circular.
#
# </details>

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

# %% jupyter={"outputs_hidden": true}
labels = {
    "open think": "opens the thought: R1-Zero names",
    "open plan": "opens the thought: other names",
    "answer think": "opens the answer: R1-Zero names",
    "answer plan": "opens the answer: other names",
}
rows = [
    (label, stats.bootstrap(zero[f"{role} {tag}"]), figures.ROLE[role])
    for tag, label in labels.items()
    for role in members
]
gained = inherited["answer"].estimate
title = f"From base to distilled R1-Zero's <answer> gains {gained:+.1f} nats over another name"
fig = figures.interval_rows({"": rows}, title=title, unit="log P of the tag (nats)")
key = {"base": figures.BASE, "distilled": figures.DISTILLED}
note = f"n = {len(questions)} questions, confirm"
figures.save_figure(fig, "07_r1_zero", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure E (output folded): tags under R1-Zero's template and under the same template with other names.** Blue the base, orange the distilled model. The two names differ in tokens and frequency, so only the difference between the models counts. Where a habit comes from it does not show: a model trained on `<think>` in any template can like it here.

# %% [markdown]
# ## Try it
#
# Build an ending from its parts: P(stop), the next token and the continuation of both models. Figures 4, 5 and 6 are the same for readers without a kernel.

# %%
explorers.endings_explorer(pair, questions[0], materials[0])

# %% [markdown]
# ## Takeaway
#
# Printed from this run's findings.


# %%
def hundred(value: dict) -> str:
    """A stored share as so many of a hundred."""
    return "unknown" if np.isnan(value["estimate"]) else f"{100 * value['estimate']:.0f}"


lowest, *_, highest = sorted((entry["estimate"], hundred(entry)) for entry in published.values())
stops = [hundred(F22["details"][f"after a real thought, template, {mark}"]) for mark in spelled.values()]
Markdown(
    f"Where R1's published texts close a thought, they do it right after a single new line "
    f"{lowest[1]} to {highest[1]} times in a hundred (this pair: {hundred(F26)} times), so the end can be "
    f"seen one token ahead.\n\n"
    f"After its own thought, the closing tag and the answer the distilled model stops {stops[0]} times in a "
    f"hundred; with a meaningless tag instead {stops[1]} times, with plain words {stops[2]}, "
    f"with nothing {stops[3]}.\n\n"
    f"Put after an answer without a thought, the same tag makes it open a new thought "
    f"{hundred(F23['details']['opens a new thought'])} times in a hundred."
)

# %% [markdown]
# Back: [06_steering](06_steering.ipynb). The whole table of findings: `data/<pair>/findings.json`.
