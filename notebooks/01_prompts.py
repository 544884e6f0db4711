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
# **Claim.** Under test: given the same simple question, the distilled model writes many times as many tokens as its base before it stops. Whether that holds, and by how much, is printed below the set-up from the ledger of the last run.
#
# **Evidence.** The survival curves of lengths (figure 1), with both models, and the same base without "Just give the answer." as the control.
#
# **Caveat.** Length is not reasoning. A model that loops is long too, so repetition and right answers stand beside every length. And the numbers stored here are from the embedded pair `smol`: SmolLM2-135M-Instruct, itself instruction-tuned, and our own fine-tune of it on R1 traces. They test the method and say nothing about DeepSeek-R1.
#
# **Reads** `data/prompts.jsonl` and, where they match, stored completions. **Writes** `data/<pair>/answers_*.json`, `data/<pair>/01_combined.json`, findings F01 to F04, figures `01_*`.

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

# %% jupyter={"source_hidden": true} tags=["claim"]
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from helpers import explorers, figures, findings, preflight, stats, texts, tokens
from helpers.generation import answers, select_combined
from helpers.pairs import load_pair
from helpers.prompts import echo_share, is_right, load_questions
from helpers.store import data_dir, write_records

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F01", "F02", "F03", "F04"))

# %% [markdown]
# ## Where such a pair comes from
#
# **R1-Zero** is DeepSeek-V3-Base trained with reinforcement learning alone: GRPO, with rewards from fixed rules (is the final answer right, is the format kept) and no fine-tuning first. It learned to think longer and to come back on its own steps, but its texts mixed languages and were hard to read. **R1** begins with a small supervised cold start, runs the same kind of reinforcement learning with a reward for staying in one language, then uses that model, and V3 for what is not reasoning, to collect about 800,000 samples, fine-tunes V3-Base on them and runs reinforcement learning once more (DeepSeek-AI 2025).
#
# The **distilled** models are something else: existing open models, in the pair `r1-1.5b` Qwen2.5-Math-1.5B, fine-tuned on those 800,000 samples *without any reinforcement learning*. So all that separates base from distilled is supervised learning on another model's samples. That is what makes such a pair a good place to ask why one of them does not stop: same architecture, same token ids (some special tokens carry other names), same starting weights.

# %% [markdown]
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
# ## The questions
#
# Simple questions in ten categories, counted below, were written for this project. A fixed hash puts each into `explore`, where anything may be chosen, or `confirm`, where effects are reported.

# %%
questions = load_questions(N_PROMPTS)
confirm = [question for question in questions if question.split == "confirm"]
counts = pd.crosstab([q.category for q in questions], [q.split for q in questions], rownames=["category"], colnames=[""])
counts.T

# %% [markdown]
# Each model gets each question in its own chat template, followed by "Just give the answer.". The distilled model's template ends in `<think>` and a new line. Decoding is greedy, with a limit on new tokens; a run that reaches the limit is *censored*: its true length is unknown, only that it is longer.

# %%
base = answers(pair, pair.base, questions, form="template", fresh=RECOMPUTE, max_new_tokens=MAX_NEW_TOKENS)
distilled = answers(pair, pair.distilled, questions, form="template", fresh=RECOMPUTE, max_new_tokens=MAX_NEW_TOKENS)
base_confirm, distilled_confirm = (frame[frame["split"] == "confirm"] for frame in (base, distilled))

# %% [markdown]
# ### Three raw examples, before any average

# %%
for row in base_confirm.sample(3, random_state=SEED).itertuples():
    other = distilled.loc[row.Index]
    display(Markdown(f"**{row.question}**"))
    for role, written in (("base", row), ("distilled", other)):
        display(Markdown(f"*{role}*, {written.length} tokens, ends by `{written.stop}`:"))
        print(written.text)

# %% [markdown]
# ## F01 · How long do both go on?
#
# **Question.** How many tokens does each model write before it stops? The metric is the ratio of medians over the same prompts, $\mathrm{median}(L_\mathrm{distilled}) / \mathrm{median}(L_\mathrm{base})$; at the limit $L$ is the limit, which lowers the ratio where the distilled model is cut and raises it where the base is.

# %% [markdown]
# **Control.** The base without "Just give the answer.": how much longer does the *wording* of a prompt make a model that does not reason?

# %% [markdown]
# **Rule, written before the result.** F01 holds if the whole 95 % interval of the ratio lies above 2.

# %%
base_bare = answers(pair, pair.base, confirm, form="template", suffix="bare", fresh=RECOMPUTE, max_new_tokens=MAX_NEW_TOKENS)
ratio = stats.ratio_of_medians(distilled_confirm["length"], base_confirm["length"])
wording = stats.ratio_of_medians(base_bare["length"], base_confirm["length"])
loops = stats.paired(distilled_confirm["repetition"], base_confirm["repetition"])

# %%
rules = [findings.Part("ratio of medians", ratio, findings.Rule("above", 2))]
details = {
    f"{name} runs at the limit of {MAX_NEW_TOKENS} tokens": int((~frame["stopped"]).sum())
    for name, frame in (("base", base_confirm), ("distilled", distilled_confirm), ("control", base_bare))
}
details["share of repeated 4-grams, distilled minus base"] = loops
F01 = findings.record(
    pair,
    "F01",
    notebook="01_prompts",
    quantity="median length, distilled over base",
    unit="times",
    rules=rules,
    control=("the base without “Just give the answer.”, over the base with it", wording),
    details=details,
)
Markdown(findings.sentence(F01))

# %%
runs = {
    "base": (base_confirm["length"], base_confirm["stopped"], figures.BASE),
    "distilled": (distilled_confirm["length"], distilled_confirm["stopped"], figures.DISTILLED),
    "control: base, bare question": (base_bare["length"], base_bare["stopped"], figures.CONTROL),
}
title = f"The distilled model writes {ratio.estimate:.1f} times as many tokens as its base (ratio of medians)"
fig = figures.survival_curves(runs, title=title, limit=MAX_NEW_TOKENS)
figures.save_figure(fig, "01_survival", pair=pair.name, alt=f"Survival curves of answer length. {title}.", note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 1: share of prompts still being answered after so many tokens.** Kaplan-Meier curves with 95 % bands, chat template, greedy, confirm prompts; runs at the limit count as censored. A curve further right is a model that goes on longer. The dashed grey control is the base asked without "Just give the answer.".

# %% [markdown]
# **What it does not show.** Whether the extra tokens do any work: the next table sets right answers beside lengths. Repeated 4-grams grow with length by themselves, so their difference alone is no measure of looping.

# %% [markdown]
# ## What does it do instead of stopping? Stop reasons and right answers
#
# **Question.** Of the runs in each form, how many stop, close their thought, and end in a right answer? A right answer is an accepted string in what follows `</think>` (in the whole text where no thought was opened). The plain form is the question as raw text, as the notes used it; there neither template nor `<think>` is given.

# %%
settings = dict(fresh=RECOMPUTE, max_new_tokens=MAX_NEW_TOKENS)
distilled_bare = answers(pair, pair.distilled, confirm, form="template", suffix="bare", **settings)
base_plain, distilled_plain = (answers(pair, member, confirm, form="plain", **settings) for member in pair.members)
frames = {
    "base, template": base_confirm, "base, bare": base_bare, "base, plain": base_plain,
    "distilled, template": distilled_confirm, "distilled, bare": distilled_bare, "distilled, plain": distilled_plain,
}  # fmt: skip

# %%
summary = pd.DataFrame(
    {
        name: {
            "median length": frame["length"].median(),
            "stops": frame["stopped"].mean(),
            f"clean (1 to {MAX_ANSWER} tokens)": (frame["stopped"] & frame["length"].between(1, MAX_ANSWER)).mean(),
            "closes </think>": frame["closed"].mean(),
            "right": frame["right"].mean(),
            "repeated 4-grams": frame["repetition"].mean(),
        }
        for name, frame in frames.items()
    }
).T
summary.round(2)

# %%
shares = {"stops": "stopped", "closes its thought": "closed", "right answer": "right"}
panels = {
    label: [
        (name, stats.bootstrap(frame[column]), figures.ROLE[name.split(",")[0]]) for name, frame in frames.items()
    ]
    for label, column in shares.items()
}
ends = {name: (frame["stopped"].mean(), frame["right"].mean()) for name, frame in frames.items()}
title = "In the template " + ", ".join(
    f"the {role} stops in {ends[role + ', template'][0]:.0%} and is right in {ends[role + ', template'][1]:.0%}" for role in ("base", "distilled")
)
fig = figures.interval_rows(panels, title=title, unit="share of prompts", span=(-0.03, 1.03))
figures.save_figure(fig, "01_stop_reasons", pair=pair.name, alt=f"Share of runs that stop, close a thought and are right. {title}.", note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 2: how runs end, by model and form.** Dots are shares of the confirm prompts with 95 % bootstrap intervals. "Plain" rows are raw text without a template: a base that stops at once there has said nothing, which is why a stop alone is not an answer. A share of exactly 0 or 1 has no bootstrap width; with about a hundred prompts, up to about 3 % stays possible.

# %% [markdown]
# **What it does not show.** Why the shares differ; the forms differ in more than one way (system message, tags, wording).

# %% [markdown]
# ## F02 · Does "Just give the answer." make answers cleaner?
#
# **Question.** A *clean* answer has 1 to 30 tokens and then stops. Metric: share of clean answers with the sentence minus the share with a polite sentence, over the same questions, base, template.

# %% [markdown]
# **Control.** A polite sentence of like length in the same place ("Thank you very much."): is it the meaning, or only that something follows the question?

# %% [markdown]
# **Rule, written before the result.** F02 holds if the interval of the difference lies above 0.1, with the sentence against the polite control as the number that decides.

# %%
base_thanks = answers(pair, pair.base, confirm, form="template", suffix="thanks", **settings)
clean = {
    name: (frame["stopped"] & frame["length"].between(1, MAX_ANSWER)).astype(float)
    for name, frame in {"just": base_confirm, "bare": base_bare, "thanks": base_thanks,
                        "distilled just": distilled_confirm, "distilled bare": distilled_bare}.items()
}  # fmt: skip
cleaner = stats.paired(clean["just"], clean["thanks"])
polite = stats.paired(clean["thanks"], clean["bare"])

# %%
against_bare = stats.paired(clean["just"], clean["bare"])
on_distilled = stats.paired(clean["distilled just"], clean["distilled bare"])
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
kinds = {"base: just": ("just", figures.BASE), "base: bare": ("bare", figures.BASE), "base: polite control": ("thanks", figures.CONTROL),
         "distilled: just": ("distilled just", figures.DISTILLED), "distilled: bare": ("distilled bare", figures.DISTILLED)}  # fmt: skip
rows = [(label, stats.bootstrap(clean[key]), colour) for label, (key, colour) in kinds.items()]
effects = [("just − polite, base", cleaner, figures.BASE), ("just − bare, base", against_bare, figures.BASE),
           ("polite − bare, base", polite, figures.CONTROL), ("just − bare, distilled", on_distilled, figures.DISTILLED)]  # fmt: skip
panels = {"share clean": rows, "difference": effects}
title = (
    f"“Just give the answer.” changes clean answers by {100 * cleaner.estimate:+.0f} points over a polite sentence, "
    f"which itself changes them by {100 * polite.estimate:+.0f}"
)
fig = figures.interval_rows(panels, title=title, unit="share of prompts", zero=True)
figures.save_figure(fig, "01_just_give_the_answer", pair=pair.name, note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 3: clean answers by what follows the question.** Left: share of answers that stop within 30 tokens. Right: paired differences; the grey square is the control. 95 % bootstrap over confirm prompts.

# %% [markdown]
# **What it does not show.** Whether the clean answers are better: the table above has the right answers of both wordings.

# %% [markdown]
# ## F03 · Memorised answers: good and bad
#
# **Question.** When the base answers at once, without any working, is it right? The claim needs both: a good share right *and* a good share wrong among quick answers. Metric: share right among answers that stop within 30 tokens.

# %% [markdown]
# **Control.** The same answers held against the previous question's accepted answers, in the same category: how often is a string right by chance?

# %% [markdown]
# **Rule, written before the result.** F03 holds if the share right lies between 0.1 and 0.9 with its whole interval, on both models (for the distilled: whatever length it takes).

# %%
def right_by_chance(frame: pd.DataFrame) -> pd.Series:
    """Each answer judged by the previous question of its category."""
    accepted = pd.Series({question.id: question.answers for question in questions})
    shifted = accepted[frame.index].groupby(frame["category"]).transform(lambda group: np.roll(group.to_numpy(), 1))
    return pd.Series([is_right(said, other) for said, other in zip(frame["answer"], shifted, strict=True)], frame.index)


fast = base_confirm[base_confirm["stopped"] & base_confirm["length"].between(1, MAX_ANSWER)]
kind = f"answers of 1 to {MAX_ANSWER} tokens" if len(fast) > 1 else "answers, none of them quick"
fast = fast if len(fast) > 1 else base_confirm
right, chance = stats.bootstrap(fast["right"]), stats.bootstrap(right_by_chance(fast))
right_distilled, chance_distilled = stats.bootstrap(distilled_confirm["right"]), stats.bootstrap(right_by_chance(distilled_confirm))

# %%
read = {"base, quick": right, "distilled, after its thought": right_distilled}
bounds = {"not too few": findings.Rule("above", 0.1), "not too many": findings.Rule("below", 0.9)}
F03 = findings.record(
    pair,
    "F03",
    notebook="01_prompts",
    quantity=f"share right among the base's {len(fast)} {kind}",
    unit="of answers",
    rules=[
        findings.Part(f"share right, {name}, {end}", share, rule)
        for name, share in read.items()
        for end, rule in bounds.items()
    ],
    control=("the same answers put to another question of the category", chance),
    details={"wrong at once, base": stats.bootstrap(~fast["right"])},
)
Markdown(findings.sentence(F03))

# %%
order = base_confirm.groupby("category")["right"].mean().sort_values(ascending=False).index
rows = [
    (category, stats.bootstrap(frame.loc[frame["category"] == category, "right"]), colour)
    for category in order
    for frame, colour in ((base_confirm, figures.BASE), (distilled_confirm, figures.DISTILLED))
    if (frame["category"] == category).sum() > 1
]
rows += [("all: base, quick only", right, figures.BASE), ("all: distilled", right_distilled, figures.DISTILLED),
         ("by chance: base, quick", chance, figures.CONTROL), ("by chance: distilled", chance_distilled, figures.CONTROL)]  # fmt: skip
title = f"Quick answers of the base are right in {right.estimate:.0%} of cases, all answers of the distilled model in {right_distilled.estimate:.0%}"
fig = figures.interval_rows({"": rows}, title=title, unit="share of right answers")
figures.save_figure(fig, "01_right_by_category", pair=pair.name, key={"base": figures.BASE, "distilled": figures.DISTILLED, "control": figures.CONTROL}, note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 4: right answers by category.** Blue the base, orange the distilled model, grey the chance level of matching another question's answer. Few questions stand behind each category, so the intervals are wide.

# %% [markdown]
# **What it does not show.** That an answer was *memorised*: only that it came without visible work.

# %%
wanted = ["What is one plus one?", "How much is 5 + 5?", "What is 2 + 3?"]
shown = base[base["question"].isin(wanted)].join(distilled["answer"].rename("distilled says"))
shown.set_index("question")[["text", "distilled says"]].rename(columns={"text": "base says"})

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
    echoes = [echo_share(text, question) >= 0.5 for text, question in zip(frame["text"], asked, strict=True)]
    return pd.Series(echoes, frame.index)


echo = {role: repeats(frame, frame["question"]) for role, frame in (("base", base_confirm), ("distilled", distilled_confirm))}
marks = {role: frame["text"].str.contains("?", regex=False) for role, frame in (("base", base_confirm), ("distilled", distilled_confirm))}
either = {role: (echo[role] | marks[role]).astype(float) for role in echo}
share, excess = stats.bootstrap(either["distilled"]), stats.paired(either["distilled"], either["base"])
shuffled = stats.bootstrap(repeats(distilled_confirm, np.roll(distilled_confirm["question"], 1)))

# %%
rule = findings.Rule("above", 0.05)
details = {"with a question mark, distilled": stats.bootstrap(marks["distilled"])}
details["either, base"] = stats.bootstrap(either["base"])
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
    control=("the distilled model repeating another prompt's question", shuffled),
    details=details,
)
Markdown(findings.sentence(F04))

# %%
rows = [("repeats the question", stats.bootstrap(echo[role]), figures.ROLE[role]) for role in ("distilled", "base")]
rows += [("holds a question mark", stats.bootstrap(marks[role]), figures.ROLE[role]) for role in ("distilled", "base")]
rows += [("repeats another prompt's", shuffled, figures.CONTROL)]
title = f"The distilled model repeats the question, or holds a question mark, in {share.estimate:.0%} of its answers"
fig = figures.interval_rows({"": rows}, title=title, unit="share of completions", span=(-0.03, 1.03))
figures.save_figure(fig, "01_questions_repeated", pair=pair.name, key={"distilled": figures.DISTILLED, "base": figures.BASE, "control": figures.CONTROL}, note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 5: questions in the completions.** Grey: the distilled model's completions searched for another prompt's question.

# %% [markdown]
# **What it does not show.** Whether a marked sentence is a question: most marks here are tags such as "right?". And a four-word stretch misses paraphrase ("The question is asking about...").

# %% [markdown]
# ## First words and lengths
#
# **Question.** In published outputs of the R1 pair the first word predicts the length: "First," is short and almost never waits (0.3 %), "Okay," is long and nearly always does (98.4 %; repository thinking-llms-interp, 500 GSM8K tasks). Is it so here? This is a description, of both splits in the template form; notebook 06 forces first words to see whether they cause anything. Metric: median length by first word, for words that open at least five completions.

# %%
everything = distilled.assign(first_word=distilled["first_word"].replace("", "(nothing)"))
counts = everything["first_word"].value_counts()
common = counts[counts >= 5].head(8)
rows = [
    (f"{word} (n={count})", stats.bootstrap(everything.loc[everything["first_word"] == word, "length"], statistic=np.median), figures.DISTILLED)
    for word, count in common.items()
]
rows.append((f"all (n={len(everything)})", stats.bootstrap(everything["length"], statistic=np.median), figures.CONTROL))

# %%
top, top_share = counts.index[0], counts.iloc[0] / len(everything)
Markdown(
    f"**On pair `{pair.name}`, {top_share:.0%} of the distilled model's completions begin with “{top}”**, "
    f"and {everything['text'].str.contains('wait', case=False).mean():.0%} contain a wait. "
    f"First words that open at least five completions: {len(common)}."
)

# %%
title = f"Length by first word, distilled model: “{top}” opens {top_share:.0%}"
fig = figures.interval_rows({"": rows}, title=title, unit="median length (new tokens)")
figures.save_figure(fig, "01_first_words", pair=pair.name, note=f"n = {len(everything)} prompts of both splits")

# %% [markdown]
# **Figure 6: median length by first word, distilled model, template form.** Grey square: all completions. 95 % bootstrap of the median.

# %% [markdown]
# **What it does not show.** Cause. And where one first word opens nearly everything, there is little to predict from.

# %% [markdown]
# ## Keywords by family
#
# **Question.** Which words of reasoning does each model use? The catalogue of the notes, English and Chinese, falls into five families: opening, ordering, doubting, alternatives, limits. Metric: occurrences per 100 tokens. Control: the base under the same counter.

# %%
families = list(tokens.KEYWORDS)
rates = {
    role: pd.DataFrame([tokens.count_keywords(text) for text in frame["text"]], index=frame.index).mul(
        100 / frame["length"].clip(lower=1), axis=0
    )
    for role, frame in (("base", base_confirm), ("distilled", distilled_confirm))
}
rows = [(family, stats.bootstrap(rates[role][family]), figures.ROLE[role]) for family in families for role in ("distilled", "base")]

# %%
doubt = stats.paired(rates["distilled"]["doubting"], rates["base"]["doubting"])
Markdown(f"**The distilled model uses {doubt} more doubting words per 100 tokens than its base** (pair `{pair.name}`, n = {doubt.n}).")

# %%
title = f"The distilled model uses {doubt.estimate:.1f} more doubting words per 100 tokens than its base"
fig = figures.interval_rows({"": rows}, title=title, unit="keywords per 100 tokens")
figures.save_figure(fig, "01_keywords", pair=pair.name, key={"distilled": figures.DISTILLED, "base (control)": figures.BASE}, note=f"n = {len(confirm)} confirm prompts")

# %% [markdown]
# **Figure 7: keyword families.** Each stretch of text counts once in a family. Both models wrote on the same confirm prompts.

# %% [markdown]
# **What it does not show.** A controlled difference: a short, direct answer has no room for such words. Nor whether a doubt is acted on. A "Wait" that repeats the sentence before it is in the count as well.

# %% [markdown]
# ## What R1 itself wrote
#
# Others have published what the real pair wrote on the same 500 questions of GSM8K: Qwen2.5-Math-1.5B and DeepSeek-R1-Distill-Qwen-1.5B, greedy, at most 2,000 tokens (thaotnguyen/thinking-llms-interp 501921e). Text alone decides F01, F03 and F04. Only counts are stored here (`data/published`), no text of theirs; lengths are in words, and the questions are harder than the simple ones above. The rules are those of this pair's findings.

# %%
real = {role: texts.published("gsm8k_pair", role) for role in ("base", "distilled")}
assert (real["base"].index == real["distilled"].index).all(), "the same questions"
source = findings.Published(
    "gsm8k_pair", ("Qwen2.5-Math-1.5B", "DeepSeek-R1-Distill-Qwen-1.5B"), "greedy, at most 2,000 tokens"
)
how = dict(notebook="01_prompts", split="", sample="questions")
longer = real["distilled"]["words"] > real["base"]["words"]
begins_first = (real["distilled"]["first_word"] == "First,").to_numpy()

# %%
both = [real[role]["words"] for role in ("distilled", "base")]
real_ratio = stats.ratio_of_medians(*both)
F01_published = findings.record(
    source,
    "F01",
    quantity="median length in words, distilled over base",
    unit="times",
    rules=[findings.Part("ratio of medians", real_ratio, findings.Rule("above", 2))],
    control=(
        "answers of the distilled that begin “First,”, over the base's to the same questions",
        stats.ratio_of_medians(*(words[begins_first] for words in both)),
    ),
    details={
        "questions on which the distilled wrote more": stats.share(longer),
        "distilled texts that never close their thought": stats.share(real["distilled"]["closings"] == 0),
        "base texts of more than 800 words": stats.share(real["base"]["words"] > 800),
    },
    **how,
)
Markdown(findings.sentence(F01_published))

# %%
right_real = {role: stats.share(frame["right"]) for role, frame in real.items()}
bounds = (findings.Rule("above", 0.1), findings.Rule("below", 0.9))
F03_published = findings.record(
    source,
    "F03",
    quantity="share right, base, by the last number",
    unit="of answers",
    rules=[
        findings.Part(f"{role}, {rule}", interval, rule) for role, interval in right_real.items() for rule in bounds
    ],
    control=("judged by another question's answer", stats.share(real["base"]["right_for_other_question"])),
    **how,
)
Markdown(findings.sentence(F03_published))

# %%
asks = {role: (frame["repeats_question"] > 0) | (frame["question_marks"] > 0) for role, frame in real.items()}
more_asked = stats.paired(*(asks[role].astype(float) for role in ("distilled", "base")))
F04_published = findings.record(
    source,
    "F04",
    quantity="texts that repeat the question or hold a question mark, distilled minus base",
    unit="of texts",
    interval=more_asked,
    rules=[
        findings.Part("distilled", stats.share(asks["distilled"]), findings.Rule("above", 0.05)),
        findings.Part("distilled minus base", more_asked, findings.Rule("above", 0.05)),
    ],
    control=(
        "the distilled model repeating another text's question",
        stats.share(real["distilled"]["repeats_other_question"]),
    ),
    details={
        f"{role} repeats the question": stats.share(frame["repeats_question"]) for role, frame in real.items()
    },
    **how,
)
Markdown(findings.sentence(F04_published))

# %% [markdown]
# ### The first word tells the length
#
# **Question.** In R1's own texts, how long is an answer, how often does it wait, and is it right, by its first word? This describes; notebook 06 forces first words. Metric: medians and shares with intervals over questions.

# %%
words = real["distilled"]["first_word"].value_counts()
by_word = {word: real["distilled"].query("first_word == @word") for word in words[words >= 20].index}
measures = {
    "median words": lambda frame: stats.bootstrap(frame["words"], statistic=np.median),
    "with a wait": lambda frame: stats.share(frame["waits"] > 0),
    "closes its thought": lambda frame: stats.share(frame["closings"] > 0),
    "right": lambda frame: stats.share(frame["right"]),
}
panels = {
    name: [(f"{word} (n={len(frame)})", measure(frame), figures.DISTILLED) for word, frame in by_word.items()]
    + [(f"base (n={len(real['base'])})", measure(real["base"]), figures.BASE)]
    for name, measure in measures.items()
    if name != "closes its thought"
}
title = "R1's own texts: those that begin with “Okay,” are long and wait"
fig = figures.interval_rows(panels, title=title, unit="words, or share of texts")
figures.save_figure(fig, "01_published_first_words", pair=pair.name, alt=title, note="500 questions of GSM8K, greedy")

# %% [markdown]
# **Figure: R1's own texts by first word.** Orange: DeepSeek-R1-Distill-Qwen-1.5B's texts by the word that they begin with; blue: Qwen2.5-Math-1.5B on the same 500 questions. 95 % intervals over questions.

# %% [markdown]
# **What it does not show.** That the word causes the length: a harder question may bring both.

# %%
families = real["distilled"].filter(regex="^keywords ").columns
pd.DataFrame(
    {
        family.removeprefix("keywords "): {role: f"{stats.bootstrap(frame[family]):.2f}" for role, frame in real.items()}
        for family in families
    }
).T.rename_axis("keywords a text, published")

# %% [markdown]
# ## The prompts that separate the models, and the combined prompts
#
# The rest of the study looks at one moment: right after a complete answer. For that it needs questions that the base finishes quickly and the distilled model does not. Each becomes a **combined prompt**: the question, "Just give the answer.", and the base's own complete answer.

# %%
combined = select_combined(base, distilled, max_answer=MAX_ANSWER)
write_records(data_dir(pair.name) / "01_combined.json", combined.reset_index().to_dict("records"))
sizes = combined["split"].value_counts()
Markdown(
    f"**{len(combined)} of {len(questions)} questions separate the models** on pair `{pair.name}` "
    f"({sizes.get('explore', 0)} explore, {sizes.get('confirm', 0)} confirm); the base's answer is right in "
    f"{combined['base_right'].mean():.0%} of them. For example: *{combined['question'].iloc[0]} Just give the answer. "
    f"{combined['base_answer'].iloc[0].strip()}*"
)

# %% [markdown]
# ## Try it
#
# Ask both models something of your own. Without a running kernel, the raw examples above show the same kind of thing.

# %%
explorers.ask_both(pair)

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F01", "F02", "F03", "F04"))

# %% [markdown]
# Next: [02_logits](02_logits.ipynb) looks at the moment after the answer, when the base stops and the distilled model does not.
