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
# # 01 · Does the distilled model really go on where its base stops?
#
# > **How many seconds are there in a minute? Just give the answer.**
# >
# > *Base:* There are 60 seconds in a minute.
# >
# > *Distilled:* Okay, let's see. The question is asking how many seconds are there in a minute. [...] So, 60 minutes is 60 seconds. Wait, but wait, sometimes people might mix up minutes and seconds. Like, 60 minutes is 120 seconds. So the answer should be 60. \</think> 60.
#
# Told to just give the answer, the base does. The distilled model thinks aloud, doubts, doubts its doubt, and arrives where the base began. Yet the two are one architecture with the same tokens, and one was made from the other. What did the fine-tuning change? This first notebook asks whether the difference is there at all, and how large it is; the other six look for it inside. (Pair `smol`; the whole text is among the examples drawn below.)
#
# **Claim.** Given the same simple question, the distilled model writes many times as many tokens as its base before it stops. Whether that holds, and by how much, is printed below the set-up from the ledger of the last run.
#
# **Evidence.** The lengths of all answers (figure 1), beside the same base without "Just give the answer." as the control; and what R1's real pair wrote, counted in texts that others published (figure 8).
#
# **Caveat.** Length is not reasoning: a model that loops is long too, so right answers and repetition stand beside every length. And the pair run here is `smol`, SmolLM2-135M-Instruct and our own fine-tune of it on R1's traces: that the two differ is by design. Only the published texts are R1's.
#
# **Reads** `data/prompts.jsonl`, `data/published/texts.csv` and, where they match, stored completions. **Writes** `data/<pair>/answers_*.json`, `data/<pair>/01_combined.json`, findings F01 to F04 on the pair and in published texts, figures `01_*`.

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
MAX_ANSWER = 30  # a "clean" or "quick" answer stops within this many tokens

# %% [markdown]
# What the last run of this notebook found, finding by finding:

# %% jupyter={"source_hidden": true} tags=["claim"]
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from helpers import explorers, figures, findings, preflight, stats, texts, tokens
from helpers.generation import answers, select_combined
from helpers.pairs import load_pair
from helpers.prompts import echo_share, is_right, load_questions
from helpers.store import data_dir, write_records

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F01", "F02", "F03", "F04"))

# %% [markdown]
# ## The questions
#
# Simple questions in ten categories, written for this project. A fixed hash puts each into `explore`, where anything may be chosen, or `confirm`, where effects are reported.

# %%
questions = load_questions(N_PROMPTS)
confirm = [question for question in questions if question.split == "confirm"]
note = f"n = {len(confirm)} confirm prompts"
categories, splits = zip(*((question.category, question.split) for question in questions), strict=True)
pd.crosstab(pd.Series(splits, name="split"), pd.Series(categories, name="category"))

# %% [markdown]
# Each model gets each question in its own chat template, followed by "Just give the answer.". The distilled model's template ends in `<think>` and a new line. Decoding is greedy, with a limit on new tokens; a run that reaches the limit is *censored*: its true length is unknown, only that it is longer.

# %%
settings = {"fresh": RECOMPUTE, "max_new_tokens": MAX_NEW_TOKENS}
runs = {m.role: answers(pair, m, questions, form="template", **settings) for m in pair.members}
template = {role: frame[frame["split"] == "confirm"] for role, frame in runs.items()}

# %% [markdown]
# ### Three raw examples, before any average
#
# Drawn by the seed, not chosen.


# %%
def side_by_side(question: str, **written: pd.Series) -> HTML:
    """What each model writes, in columns; as text, whatever it holds."""
    style = f"style='text-align:left;vertical-align:top;width:{100 // len(written)}%'"
    heads, bodies = "", ""
    for role, run in written.items():
        heads += f"<th {style}>{role}: {run['length']} tokens, ends by {escape(run['stop'])}</th>"
        bodies += f"<td {style}>{escape(run['text'].strip())}</td>".replace("\n", "<br>")
    top = f"<th colspan={len(written)} style='text-align:left'>{escape(question)}</th>"
    return HTML(f"<table class='tex2jax_ignore'><tr>{top}</tr><tr>{heads}</tr><tr>{bodies}</tr></table>")


for index, row in template["base"].sample(3, random_state=SEED).iterrows():
    display(side_by_side(row["question"], base=row, distilled=template["distilled"].loc[index]))

# %% [markdown]
# ## Where such a pair comes from
#
# <details><summary>R1-Zero, R1, and the distilled models</summary>
#
# **R1-Zero** is DeepSeek-V3-Base trained with reinforcement learning alone: GRPO, with rewards from fixed rules (is the final answer right, is the format kept) and no fine-tuning first. It learned to think longer and to come back on its own steps, but its texts mixed languages and were hard to read. **R1** begins with a small supervised cold start, runs the same kind of reinforcement learning with a reward for staying in one language, then uses that model, and V3 for what is not reasoning, to collect about 800,000 samples, fine-tunes V3-Base on them and runs reinforcement learning once more (DeepSeek-AI 2025).
#
# The **distilled** models are something else: existing open models, in the pair `r1-1.5b` Qwen2.5-Math-1.5B, fine-tuned on those 800,000 samples *without any reinforcement learning*. So all that separates base from distilled is supervised learning on another model's samples. That is what makes such a pair a good place to ask why one of them does not stop: same architecture, same token ids (some special tokens carry other names), same starting weights.
# </details>

# %% [markdown]
# <details><summary>From GPT-2 to DeepScaleR: a timeline</summary>
#
# Two families of reasoning models came out of 2024 and early 2025. **o1-like**: a closed model that thinks before it answers and shows a summary; how it was trained was not published. **R1-like**: the thought is part of the text, between `<think>` and `</think>`, and the weights are open.
#
# | year | model | what it brought to this story |
# |---|---|---|
# | 2019 | GPT-2 | decoder only, next token, 1.5 billion parameters |
# | 2020 | GPT-3 | the same at 175 billion: tasks from a few examples |
# | 2022 | GPT-3.5 / InstructGPT | supervised fine-tuning and RLHF: a model that answers, and stops |
# | 2023 | GPT-4 | images in, longer context |
# | 2024 | DeepSeekMath | GRPO: reinforcement learning without a value model |
# | 2024 | DeepSeek-V2 | 236 billion parameters, 21 billion active a token: latent attention, mixture of experts |
# | 2024 | OpenAI o1 | long hidden chains of thought |
# | 2024 | DeepSeek-V3 | 671 billion parameters, 37 billion active: the base of R1 |
# | 2025 | DeepSeek-R1-Zero, R1 | reasoning from reinforcement learning with rule rewards |
# | 2025 | R1-Distill-Qwen, -Llama | supervised fine-tuning of small models on R1's samples: our distilled model |
# | 2025 | DeepScaleR | reinforcement learning on top of R1-Distill-Qwen-1.5B |
#
# </details>

# %% [markdown]
# <details><summary>Aside: the words in two sentences each</summary>
#
# - **RLHF.** A reward model is fitted to people's choices between outputs; the language model is then trained by reinforcement learning (usually PPO) to score high while a penalty keeps it near where it began.
# - **DPO.** The same preferences, without a separate reward model or sampling: a loss on pairs of outputs raises the preferred one relative to a frozen copy of the model.
# - **GRPO.** For each prompt a group of outputs is sampled, and each is scored against the mean of its own group. That replaces PPO's value network (DeepSeekMath 2024).
# - **Process and outcome rewards.** A process reward scores every step of a solution, an outcome reward only its end. R1-Zero used outcomes and format, both checked by rules.
# - **Mixture of experts.** The MLP of a layer exists in several copies and a small router sends each token to a few of them, so parameters grow without the cost of a token growing. Balance losses keep all of them in use.
# - **LoRA.** Fine-tuning learns a product of two thin matrices beside each weight matrix instead of the matrix itself. Our embedded pair `smol` is made this way, so its weight difference has a low rank by construction.
#
# Sources: Radford et al. 2019 (GPT-2); Brown et al. 2020 (GPT-3); OpenAI 2023 (GPT-4), 2024 (o1); DeepSeek-AI 2024 (V2, V3), 2025 (R1); agentica-org 2025 (DeepScaleR model card); Shao et al. 2024 (DeepSeekMath, GRPO); Ouyang et al. 2022 (InstructGPT); Rafailov et al. 2023 (DPO); Hu et al. 2021 (LoRA).
# </details>

# %% [markdown]
# ## Preflight: is this a pair the study can trust?
#
# Everything below rests on facts that are easy to assume and easy to get wrong: that words are single tokens, that ids mean the same in both models, that left padding changes nothing, that an edit reaches every generated step. They are checked here on the loaded models.

# %%
checks = preflight.preflight(pair)
display(Markdown(f"**{pair.describe()}**: {checks['ok'].sum()} of {len(checks)} checks pass."))
checks.set_index("check")

# %% [markdown]
# A space decides which token a word is: "Wait", " Wait", "wait" and " wait" are four tokens, and a model that waits after a blank line uses the first. In published outputs of the R1 pair three quarters of all waits are "Wait" after a blank line (thinking-llms-interp), so the study always reads the set of four.

# %%
tokens.token_table(pair.distilled.tokenizer)

# %% [markdown]
# ## F01 · How long do both go on?
#
# **Question.** How many tokens does each model write before it stops? The metric is the ratio of medians over the same prompts, $\mathrm{median}(L_\mathrm{distilled}) / \mathrm{median}(L_\mathrm{base})$; at the limit $L$ is the limit, which lowers the ratio where the distilled model is cut and raises it where the base is.

# %% [markdown]
# **Control.** The base without "Just give the answer.": how much longer does the *wording* of a prompt make a model that does not reason?

# %% [markdown]
# **Rule, written before the result.** F01 holds if the whole 95 % interval of the ratio lies above 2.

# %%
bare = {m.role: answers(pair, m, confirm, form="template", suffix="bare", **settings) for m in pair.members}
ratio = stats.ratio_of_medians(template["distilled"]["length"], template["base"]["length"])
wording = stats.ratio_of_medians(bare["base"]["length"], template["base"]["length"])
loops = stats.paired(template["distilled"]["repetition"], template["base"]["repetition"])

# %%
compared = {"base": template["base"], "distilled": template["distilled"], "control": bare["base"]}
details = {
    f"{name} runs at the limit of {MAX_NEW_TOKENS} tokens": int((~frame["stopped"]).sum())
    for name, frame in compared.items()
}
details["share of repeated 4-grams, distilled minus base"] = loops
F01 = findings.record(
    pair,
    "F01",
    notebook="01_prompts",
    quantity="median length, distilled over base",
    unit="times",
    rules=[findings.Part("ratio of medians", ratio, findings.Rule("above", 2))],
    control=("the base without “Just give the answer.”, over the base with it", wording),
    details=details,
)
Markdown(findings.sentence(F01))

# %%
names = {"base": "base", "distilled": "distilled", "control": "control: base, bare question"}
colours = figures.ROLE | {"control": figures.CONTROL}
curves = {names[name]: (frame["length"], frame["stopped"], colours[name]) for name, frame in compared.items()}
times = f"{ratio.estimate:.1f} times as many tokens as its base (ratio of medians)"
title = f"The distilled model writes {times}"
fig = figures.survival_curves(curves, title=title, limit=MAX_NEW_TOKENS)
alt = f"Survival curves of answer length. {title}."
figures.save_figure(fig, "01_survival", pair=pair.name, alt=alt, note=note)

# %% [markdown]
# **Figure 1: share of prompts still being answered after so many tokens.** Kaplan-Meier curves with 95 % bands, chat template, greedy, confirm prompts; runs at the limit count as censored. A curve further right is a model that goes on longer. The dashed grey control is the base asked without "Just give the answer.".

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether the extra tokens do any work: the next table sets right answers beside lengths. Repeated 4-grams grow with length by themselves, so their difference alone is no measure of looping.
# </details>

# %% [markdown]
# ## What does it do instead of stopping? Stop reasons and right answers
#
# **Question.** Of the runs in each form, how many stop, close their thought, and end in a right answer? A right answer is an accepted string in what follows `</think>` (in the whole text where no thought was opened). The plain form is the question as raw text, as the notes used it: no template, and nobody opens a thought for the distilled model.

# %%
plain = {m.role: answers(pair, m, confirm, form="plain", **settings) for m in pair.members}
forms = {"template": template, "bare": bare, "plain": plain}
frames = {f"{role}, {form}": by_role[role] for role in figures.ROLE for form, by_role in forms.items()}


# %%
def is_clean(frame: pd.DataFrame) -> pd.Series:
    """Whether each run says something and stops within MAX_ANSWER tokens."""
    return frame["stopped"] & frame["length"].between(1, MAX_ANSWER)


summary = {
    name: {
        "median length": frame["length"].median(),
        "stops": frame["stopped"].mean(),
        f"clean (1 to {MAX_ANSWER} tokens)": is_clean(frame).mean(),
        "closes </think>": frame["closed"].mean(),
        "right": frame["right"].mean(),
        "repeated 4-grams": frame["repetition"].mean(),
    }
    for name, frame in frames.items()
}
pd.DataFrame(summary).T.round(2)

# %%
gain = stats.paired(template["distilled"]["right"], template["base"]["right"])
more, fewer = gain.low > 0, gain.high < 0
how_often = (
    "more often right" if more else "less often right" if fewer else "not clearly more or less often right"
)
raw_lengths = {role: frame["length"].median() for role, frame in plain.items()}
Markdown(
    f"**In the template the distilled model is {how_often} than its base** (share right, distilled minus "
    f"base: {gain}, n = {gain.n}, pair `{pair.name}`). How much of its length is the template's doing? As "
    f"raw text, where no thought is opened for it, it writes a median of {raw_lengths['distilled']:g} "
    f"tokens, the base of {raw_lengths['base']:g}."
)

# %%
measures = {"stops": "stopped", "closes its thought": "closed", "right answer": "right"}
panels = {
    label: [
        (name, stats.share(frame[column]), figures.ROLE[name.split(",")[0]]) for name, frame in frames.items()
    ]
    for label, column in measures.items()
}
title = f"In the template the distilled model is {how_often} than its base"
fig = figures.interval_rows(panels, title=title, unit="share of prompts", span=(-0.03, 1.03))
alt = f"Share of runs that stop, close a thought and are right. {title}."
figures.save_figure(fig, "01_stop_reasons", pair=pair.name, alt=alt, note=note)

# %% [markdown]
# **Figure 2: how runs end, by model and form.** Dots are shares of the confirm prompts with 95 % bootstrap intervals; where all runs or none do it, the exact bound. "Plain" rows are raw text without a template: a base that stops at once there has said nothing, which is why a stop alone is not an answer.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Why the shares differ; the forms differ in more than one way (system message, tags, wording).
# </details>

# %% [markdown]
# ## F02 · Does "Just give the answer." make answers cleaner?
#
# **Question.** A *clean* answer has 1 to 30 tokens and then stops. Metric: share of clean answers with the sentence minus the share with a polite sentence, over the same questions, base, template.

# %% [markdown]
# **Control.** A polite sentence of like length in the same place ("Thank you very much."): is it the meaning, or only that something follows the question?

# %% [markdown]
# **Rule, written before the result.** F02 holds if the interval of the difference lies above 0.1, with the sentence against the polite control as the number that decides.

# %%
thanks = answers(pair, pair.base, confirm, form="template", suffix="thanks", **settings)
worded = {
    "base: just": template["base"],
    "base: bare": bare["base"],
    "base: polite control": thanks,
    "distilled: just": template["distilled"],
    "distilled: bare": bare["distilled"],
}
clean = {name: is_clean(frame).astype(float) for name, frame in worded.items()}

# %%
cleaner = stats.paired(clean["base: just"], clean["base: polite control"])
polite = stats.paired(clean["base: polite control"], clean["base: bare"])
against_bare = stats.paired(clean["base: just"], clean["base: bare"])
on_distilled = stats.paired(clean["distilled: just"], clean["distilled: bare"])

# %%
F02 = findings.record(
    pair,
    "F02",
    notebook="01_prompts",
    quantity="share of clean answers, “Just give the answer.” minus a polite sentence, base",
    unit="of prompts",
    rules=[findings.Part("beyond the polite sentence, base", cleaner, findings.Rule("above", 0.1))],
    control=("the polite sentence minus the bare question", polite),
    details={"against the bare question, base": against_bare, "the same, distilled": on_distilled},
)
Markdown(findings.sentence(F02))

# %%
colours = {name: figures.ROLE[name.split(":")[0]] for name in clean}
colours["base: polite control"] = figures.CONTROL
shares = [(name, stats.share(passed), colours[name]) for name, passed in clean.items()]
differences = [
    ("just − polite, base", cleaner, figures.BASE),
    ("just − bare, base", against_bare, figures.BASE),
    ("polite − bare, base", polite, figures.CONTROL),
    ("just − bare, distilled", on_distilled, figures.DISTILLED),
]

# %%
points = f"{100 * cleaner.estimate:+.0f} points of clean answers"
title = f"“Just give the answer.” against a polite sentence: {points}"
panels = {"share clean": shares, "difference": differences}
fig = figures.interval_rows(panels, title=title, unit="share of prompts", zero=True)
figures.save_figure(fig, "01_just_give_the_answer", pair=pair.name, note=note)

# %% [markdown]
# **Figure 3: clean answers by what follows the question.** Left: share of answers that stop within 30 tokens. Right: paired differences; the grey square is the control. 95 % bootstrap over confirm prompts.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether the clean answers are better: the table above has the right answers of both wordings.
# </details>

# %% [markdown]
# ## F03 · Memorised answers: good and bad
#
# **Question.** When the base answers at once, without any working, is it right? The claim needs both: a good share right *and* a good share wrong among quick answers. Metric: share right among answers that stop within 30 tokens.

# %%
wanted = ["What is one plus one?", "How much is 5 + 5?", "What is 2 + 3?"]
written = pd.DataFrame({"base says": runs["base"]["text"], "distilled says": runs["distilled"]["answer"]})
written.set_index(runs["base"]["question"]).loc[lambda table: table.index.isin(wanted)]

# %% [markdown]
# **Control.** The same answers held against the previous question's accepted answers, in the same category: how often is a string right by chance?

# %% [markdown]
# **Rule, written before the result.** F03 holds if the share right lies between 0.1 and 0.9 with its whole interval, on both models (for the distilled: whatever length it takes).


# %%
def right_by_chance(frame: pd.DataFrame) -> pd.Series:
    """Each answer judged by the previous question of its category."""
    accepted = pd.Series({question.id: question.answers for question in questions})
    by_category = accepted[frame.index].groupby(frame["category"])
    others = by_category.transform(lambda group: np.roll(group.to_numpy(), 1))
    right = [is_right(answer, other) for answer, other in zip(frame["answer"], others, strict=True)]
    return pd.Series(right, frame.index)


# %%
quick = template["base"][is_clean(template["base"])]
kind = f"answers of 1 to {MAX_ANSWER} tokens" if len(quick) > 1 else "answers, none of them quick"
quick = quick if len(quick) > 1 else template["base"]
right, chance = stats.bootstrap(quick["right"]), stats.bootstrap(right_by_chance(quick))
right_distilled = stats.bootstrap(template["distilled"]["right"])
chance_distilled = stats.bootstrap(right_by_chance(template["distilled"]))

# %%
read = {"base, quick": right, "distilled, after its thought": right_distilled}
bounds = {"not too few": findings.Rule("above", 0.1), "not too many": findings.Rule("below", 0.9)}
F03 = findings.record(
    pair,
    "F03",
    notebook="01_prompts",
    quantity=f"share right among the base's {len(quick)} {kind}",
    unit="of answers",
    rules=[
        findings.Part(f"share right, {name}, {end}", share, rule)
        for name, share in read.items()
        for end, rule in bounds.items()
    ],
    control=("the same answers put to another question of the category", chance),
    details={"wrong at once, base": stats.bootstrap(~quick["right"])},
)
Markdown(findings.sentence(F03))

# %%
rights = {role: frame.groupby("category")["right"] for role, frame in template.items()}
order = rights["base"].mean().sort_values(ascending=False).index
rows = [
    (category, stats.share(rights[role].get_group(category)), figures.ROLE[role])
    for category in order
    for role in figures.ROLE
    if rights[role].size()[category] > 1
]
rows += [
    ("all: base, quick only", right, figures.BASE),
    ("all: distilled", right_distilled, figures.DISTILLED),
    ("by chance: base, quick", chance, figures.CONTROL),
    ("by chance: distilled", chance_distilled, figures.CONTROL),
]

# %%
title = f"What the base answers at once is right in {right.estimate:.0%} of cases"
fig = figures.interval_rows({"": rows}, title=title, unit="share of right answers")
key = figures.ROLE | {"control": figures.CONTROL}
figures.save_figure(fig, "01_right_by_category", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure 4: right answers by category.** Blue the base, orange the distilled model, grey the chance level of matching another question's answer. Few questions stand behind each category, so the intervals are wide.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# That an answer was *memorised*: only that it came without visible work.
# </details>

# %% [markdown]
# ## F04 · Does the distilled repeat the question, or add questions?
#
# **Question.** How often does a completion repeat the question, or hold a question mark? *Repeats*: at least half of the question's four-word stretches stand in the completion. The *mark* stands for questions of its own, and is a generous stand-in: "right?" counts. Metric: share of completions that do either, distilled minus base.

# %% [markdown]
# **Control.** Repetition counted with another prompt's question. The distilled text is many times as long, so it has more room to repeat anything.

# %% [markdown]
# **Rule, written before the result.** F04 holds if the distilled model's share has an interval above 0.05 *and* so does its excess over the base.


# %%
def repeats(frame: pd.DataFrame, asked: pd.Series | np.ndarray) -> pd.Series:
    """Whether each completion repeats the question given for it."""
    pairs = zip(frame["text"], asked, strict=True)
    return pd.Series([echo_share(text, question) >= 0.5 for text, question in pairs], frame.index)


echo = {role: repeats(frame, frame["question"]) for role, frame in template.items()}
marks = {role: frame["text"].str.contains("?", regex=False) for role, frame in template.items()}
either = {role: (echo[role] | marks[role]).astype(float) for role in template}
share, excess = stats.bootstrap(either["distilled"]), stats.paired(either["distilled"], either["base"])
by_chance = repeats(template["distilled"], np.roll(template["distilled"]["question"], 1))

# %%
rule = findings.Rule("above", 0.05)
F04 = findings.record(
    pair,
    "F04",
    notebook="01_prompts",
    quantity="completions that repeat the question or hold a question mark, distilled minus base",
    unit="of prompts",
    rules=[
        findings.Part("excess over the base", excess, rule),
        findings.Part("share, distilled", share, rule),
    ],
    control=("the distilled model repeating another prompt's question", stats.bootstrap(by_chance)),
    details={
        "with a question mark, distilled": stats.bootstrap(marks["distilled"]),
        "either, base": stats.bootstrap(either["base"]),
    },
)
Markdown(findings.sentence(F04))

# %%
rows = [
    (label, stats.share(passed[role]), figures.ROLE[role])
    for label, passed in (("repeats the question", echo), ("holds a question mark", marks))
    for role in ("distilled", "base")
]
rows.append(("repeats another prompt's", stats.share(by_chance), figures.CONTROL))
does = "repeats the question, or holds a question mark,"
title = f"The distilled model {does} in {share.estimate:.0%} of its answers"
fig = figures.interval_rows({"": rows}, title=title, unit="share of completions", span=(-0.03, 1.03))
figures.save_figure(fig, "01_questions_repeated", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure 5: questions in the completions.** Grey: the distilled model's completions searched for another prompt's question. 95 % bootstrap over prompts; the exact bound where no completion, or every one, does it.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# Whether a marked sentence is a question: most marks here are tags such as "right?". And a four-word stretch misses paraphrase ("The question is asking about...").
# </details>

# %% [markdown]
# ## First words and lengths
#
# **Question.** In published outputs of the R1 pair the first word predicts the length (figure 8). Is it so here? This is a description, of both splits in the template form; notebook 06 forces first words to see whether they cause anything. Metric: median length by first word, for words that open at least five completions of a model.

# %%
opening = {role: frame["first_word"].replace("", "(nothing)") for role, frame in runs.items()}
rows = []
for role in ("distilled", "base"):
    counts = opening[role].value_counts()
    for word, count in counts[counts >= 5].head(8).items():
        lengths = runs[role].loc[opening[role] == word, "length"]
        median = stats.bootstrap(lengths, statistic=np.median)
        rows.append((f"{role}: {word} (n={count})", median, figures.ROLE[role]))

# %%
counts = opening["distilled"].value_counts()
top, top_share = counts.index[0], counts.iloc[0] / len(opening["distilled"])
waiting = runs["distilled"]["text"].str.contains("wait", case=False).mean()
Markdown(
    f"**On pair `{pair.name}`, {top_share:.0%} of the distilled model's completions begin with "
    f"“{top}”**, "
    f"and {waiting:.0%} contain a wait. "
    f"First words that open at least five completions: {(counts >= 5).sum()}."
)

# %%
title = f"“{top}” opens {top_share:.0%} of the distilled model's answers"
fig = figures.interval_rows({"": rows}, title=title, unit="median length (new tokens)")
note_all = f"n = {len(questions)} prompts of both splits"
figures.save_figure(fig, "01_first_words", pair=pair.name, key=figures.ROLE, note=note_all)

# %% [markdown]
# **Figure 6: median length by first word, template form.** Words that open at least five completions, at most eight a model. 95 % bootstrap of the median.
#
# **What it does not show.** Cause. Where one first word opens every answer, inside a thought that the template has opened, neither can be told apart from what the fine-tuning did otherwise: notebook 06 forces first words, and the plain rows of figure 2 leave the opened thought out.

# %% [markdown]
# ## Keywords by family
#
# **Question.** Which words of reasoning does each model use? The catalogue of the notes, English and Chinese, falls into five families: opening, ordering, doubting, alternatives, limits. Metric: occurrences per 100 tokens. Control: the base under the same counter.


# %%
def keyword_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Keywords of each family per 100 tokens, one row a completion."""
    found = pd.DataFrame([tokens.count_keywords(text) for text in frame["text"]], index=frame.index)
    return found.mul(100 / frame["length"].clip(lower=1), axis=0)


rates = {role: keyword_rates(frame) for role, frame in template.items()}
doubt = stats.paired(rates["distilled"]["doubting"], rates["base"]["doubting"])

# %%
Markdown(
    f"**The distilled model uses {doubt} more doubting words per 100 tokens than its base** "
    f"(pair `{pair.name}`, n = {doubt.n})."
)

# %%
rows = [
    (family, stats.bootstrap(rates[role][family]), figures.ROLE[role])
    for family in tokens.KEYWORDS
    for role in ("distilled", "base")
]
more = f"{doubt.estimate:.1f} more doubting words per 100 tokens"
title = f"The distilled model uses {more} than its base"
fig = figures.interval_rows({"": rows}, title=title, unit="keywords per 100 tokens")
key = {"distilled": figures.DISTILLED, "base (control)": figures.BASE}
figures.save_figure(fig, "01_keywords", pair=pair.name, key=key, note=note)

# %% [markdown]
# **Figure 7: keyword families.** Each stretch of text counts once in a family. Both models wrote on the same confirm prompts.

# %% [markdown]
# <details><summary>What it does not show</summary>
#
# A controlled difference: a short, direct answer has no room for such words. Nor whether a doubt is acted on. A "Wait" that repeats the sentence before it is in the count as well.
# </details>

# %% [markdown]
# ## What R1 itself wrote
#
# Others have published what the real pair wrote on the same 500 questions of GSM8K: Qwen2.5-Math-1.5B and DeepSeek-R1-Distill-Qwen-1.5B, greedy, at most 2,000 tokens (thaotnguyen/thinking-llms-interp 501921e). Text alone decides F01, F03 and F04, by the rules above. Only counts are stored here (`data/published`), no text of theirs, and lengths are in words.
#
# One difference changes the reading: these are not the simple questions of the claim. They take several steps, nobody says "Just give the answer.", and the base writes its steps out, too.

# %%
published = {role: texts.published("gsm8k_pair", role) for role in figures.ROLE}
assert (published["base"].index == published["distilled"].index).all(), "the same questions"
models = ("Qwen2.5-Math-1.5B", "DeepSeek-R1-Distill-Qwen-1.5B")
source = findings.Published("gsm8k_pair", models, "greedy, at most 2,000 tokens")
about = {"notebook": "01_prompts", "split": "", "sample": "questions"}

# %% [markdown]
# ### F01 in R1's own texts
#
# **Control.** The distilled model's answers that begin with "First," and hardly ever wait, against the base's to the same questions: how much longer is the distilled model where it does not doubt?

# %%
base_words, distilled_words = published["base"]["words"], published["distilled"]["words"]
ratio_published = stats.ratio_of_medians(distilled_words, base_words)
begins_first = (published["distilled"]["first_word"] == "First,").to_numpy()
ratio_first = stats.ratio_of_medians(distilled_words[begins_first], base_words[begins_first])
details = {
    "questions on which the distilled wrote more": stats.share(distilled_words > base_words),
    "distilled texts that never close their thought": stats.share(published["distilled"]["closings"] == 0),
    "base texts of more than 800 words": stats.share(base_words > 800),
}

# %%
F01_published = findings.record(
    source,
    "F01",
    quantity="median length in words, distilled over base",
    unit="times",
    rules=[findings.Part("ratio of medians", ratio_published, findings.Rule("above", 2))],
    control=(
        "answers of the distilled that begin “First,”, over the base's to the same questions",
        ratio_first,
    ),
    details=details,
    **about,
)
Markdown(findings.sentence(F01_published))

# %% [markdown]
# **How to read it.** The claim is about simple questions. On these the base writes its steps out as well (blue in figure 8), so there is less to be longer than; and most of the distilled model's texts do not doubt. Those that do go on are found by their first word, below.

# %% [markdown]
# ### F03 in R1's own texts
#
# Right is a text whose last number is that of GSM8K's answer. **Control.** The base's last number held against another question's answer.

# %%
right_published = {role: stats.share(frame["right"]) for role, frame in published.items()}
chance_published = stats.share(published["base"]["right_for_other_question"])
F03_published = findings.record(
    source,
    "F03",
    quantity="share right, base, by the last number",
    unit="of answers",
    rules=[
        findings.Part(f"{role}, {rule}", interval, rule)
        for role, interval in right_published.items()
        for rule in bounds.values()
    ],
    control=("judged by another question's answer", chance_published),
    **about,
)
Markdown(findings.sentence(F03_published))

# %% [markdown]
# ### F04 in R1's own texts
#
# Counted as above. **Control.** The distilled model's texts searched for another text's question.

# %%
repeating = {role: frame["repeats_question"] > 0 for role, frame in published.items()}
asking = {role: repeating[role] | (frame["question_marks"] > 0) for role, frame in published.items()}
asks_more = stats.paired(asking["distilled"].astype(float), asking["base"].astype(float))
repeats_other = stats.share(published["distilled"]["repeats_other_question"])

# %%
F04_published = findings.record(
    source,
    "F04",
    quantity="texts that repeat the question or hold a question mark, distilled minus base",
    unit="of texts",
    interval=asks_more,
    rules=[
        findings.Part("distilled", stats.share(asking["distilled"]), rule),
        findings.Part("distilled minus base", asks_more, rule),
    ],
    control=("the distilled model repeating another text's question", repeats_other),
    details={f"{role} repeats the question": stats.share(repeating[role]) for role in figures.ROLE},
    **about,
)
Markdown(findings.sentence(F04_published))

# %% [markdown]
# ### The first word tells the length
#
# **Question.** In R1's own texts, how long is an answer, how often does it wait, and is it right, by its first word? This describes; notebook 06 forces first words. Metric: medians and shares with intervals over questions, for words that open at least 20 texts.


# %%
def measured(frame: pd.DataFrame) -> dict[str, stats.Interval]:
    """Length, waits, end of thought and right answers of some texts."""
    return {
        "length": stats.bootstrap(frame["words"], statistic=np.median),
        "with a wait": stats.share(frame["waits"] > 0),
        "closes its thought": stats.share(frame["closings"] > 0),
        "right": stats.share(frame["right"]),
    }


by_word = published["distilled"].groupby("first_word")
common = by_word.size().sort_values(ascending=False).loc[lambda sizes: sizes >= 20].index
by_opening = {word: measured(by_word.get_group(word)) for word in common}


# %%
def described(word: str) -> str:
    """What texts with this first word are like, in words."""
    found = by_opening[word]
    shares = ", ".join(f"{name}: {found[name].estimate:.1%}" for name in list(found)[1:])
    return f"“{word}” ({found['length'].n} texts): median {found['length'].estimate:.0f} words; {shares}"


Markdown(f"**R1's own texts by first word.** {'. '.join(map(described, common))}.")

# %%
rows = [(f"{word} (n={by_opening[word]['right'].n})", by_opening[word], figures.DISTILLED) for word in common]
rows.append((f"base (n={len(published['base'])})", measured(published["base"]), figures.BASE))
units = {"length": "median words", "with a wait": "share of texts", "right": "share of texts"}
panels = {name: [(label, found[name], colour) for label, found, colour in rows] for name in units}
waits = by_opening["Okay,"]["with a wait"].estimate
title = f"“Okay,” opens R1's long texts: {waits:.0%} of them wait, of the “First,” texts hardly any"
fig = figures.interval_rows(panels, title=title, unit=list(units.values()))
greedy = "500 questions of GSM8K, greedy"
figures.save_figure(fig, "01_published_first_words", pair=pair.name, of="published texts", note=greedy)

# %% [markdown]
# **Figure 8: R1's own texts by first word.** Orange: DeepSeek-R1-Distill-Qwen-1.5B's texts by the word that they begin with; blue: Qwen2.5-Math-1.5B on the same 500 questions. 95 % intervals over questions.
#
# **What it does not show.** That the word causes the length: a harder question may bring both.

# %% [markdown]
# ### Keywords in R1's own texts
#
# The five families again, as keywords a text: tokens of these texts are not stored, so there is no rate.

# %%
families = published["distilled"].filter(regex="^keywords ").columns
keywords = {
    role: {family.removeprefix("keywords "): f"{stats.bootstrap(frame[family]):.2f}" for family in families}
    for role, frame in published.items()
}
pd.DataFrame(keywords).rename_axis("keywords a text, published")

# %% [markdown]
# ## The prompts that separate the models, and the combined prompts
#
# The rest of the study looks at one moment: right after a complete answer. For that it needs questions that the base finishes quickly and the distilled model does not. Each becomes a **combined prompt**: the question, "Just give the answer.", and the base's own complete answer.

# %%
combined = select_combined(runs["base"], runs["distilled"], max_answer=MAX_ANSWER)
write_records(data_dir(pair.name) / "01_combined.json", combined.reset_index().to_dict("records"))
sizes, example = combined["split"].value_counts(), combined.iloc[0]
Markdown(
    f"**{len(combined)} of {len(questions)} questions separate the models** on pair `{pair.name}` "
    f"({sizes.get('explore', 0)} explore, {sizes.get('confirm', 0)} confirm); the base's answer is right in "
    f"{combined['base_right'].mean():.0%} of them. For example: "
    f"*{example['question']} Just give the answer. {example['base_answer'].strip()}*"
)

# %% [markdown]
# ## Try it
#
# Ask both models something of your own. Without a running kernel, the raw examples above show the same kind of thing.

# %%
explorers.ask_both(pair)

# %% [markdown]
# ## Takeaway

# %%
hundred = {role: f"{100 * frame['right'].mean():.0f} of 100" for role, frame in template.items()}
Markdown(
    f"1. Asked the same simple question, the distilled model of pair `{pair.name}` writes about "
    f"{F01['estimate']:.2g} times as many tokens as its base before it stops.\n"
    f"2. It is {how_often} than its base: {hundred['distilled']} answers against {hundred['base']}.\n"
    "3. On harder questions, where its base writes steps out as well, R1's own distilled model writes "
    f"{F01_published['estimate']:.2g} times as many words, and its first word tells which texts go on: those "
    "that begin with “Okay,” nearly always wait, those with “First,” hardly ever."
)

# %% [markdown]
# Next: [02_logits](02_logits.ipynb) looks at the moment after the answer, when the base stops and the distilled model does not.
