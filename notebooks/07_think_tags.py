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
# **Claim.** Under test: it is the end of the thought. `</think>`, then the answer with its period, and the distilled model stops; answer tags alone do not do it; after `</think>` it says the answer once more; and no answer comes without the tag. What holds on this pair is printed below the set-up.
#
# **Evidence.** The same endings with the tag, without it, and with a nonsense tag of as many tokens (figure 3); a full grid of endings (figures 1 and 2); eight samples a question (figure 5).
#
# **Caveat.** Any markup might look like an end. So a tag that closes no thought stands wherever `</think>` does (`nonsense tag` in the figures; on the distilled half of `smol` it lies very near `</think>`: F22), and the base, which does not know the tag as a token, reads it as text. The numbers stored here are from the embedded pair `smol`, which was trained on traces of this very form, and say nothing about DeepSeek-R1.
#
# **Reads** stored completions where they match (else computes them). **Writes** `data/<pair>/07_*.json` (completions), `data/<pair>/07_grid.csv`, findings F21 to F25, figures `07_*`.

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
import itertools
import unicodedata

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from sklearn.linear_model import LinearRegression

from helpers import explorers, figures, findings, stats, texts
from helpers.generation import Change, answers, complete, cut_short, load_combined, stored_completions
from helpers.pairs import load_pair
from helpers.prompts import R1_ZERO, Ending, ask, ending_materials, endings_grid, final_answer, is_right, load_questions, normalise, with_ending
from helpers.readouts import attention_pattern, last_hidden, last_hidden_shared, lens, logprobs_of, read_stream, streams_at_all_positions
from helpers.store import data_dir, kept, take, write_text
from helpers.tokens import count_keywords, nonsense_tag, plain_words, single_id

pd.set_option("display.max_colwidth", None)
pair = load_pair(PAIR)
Markdown(findings.claim(pair.name, "F21", "F22", "F23", "F24", "F25"))

# %% [markdown]
# ## The material
#
# Questions of the `confirm` half, for each: the base's own complete answer, the bare word, a wrong answer and another question's, and a *real thought*, the distilled model's own, up to its first `</think>`. An **ending** is what is put after the question: `<think>`, a thought, `</think>`, a gap, an answer, answer tags, each part there or not. P(stop) is read right after it: all stop tokens together.

# %%
combined = load_combined(pair, n_prompts=N_PROMPTS, n_combined=N_COMBINED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)["confirm"]
members = {member.role: member for member in pair.members}
base, distilled = pair.base, pair.distilled
own = answers(pair, distilled, load_questions(N_PROMPTS), form="template", max_new_tokens=MAX_NEW_TOKENS, fresh=RECOMPUTE)
questions = combined.questions
thoughts = [own.loc[q.id, "text"].split("</think>")[0] or "I think so." for q in questions]
materials = ending_materials(questions, combined.answers, thoughts)
nonsense = {role: nonsense_tag(m.tokenizer) for role, m in members.items()}
plain_mark = {role: plain_words(m.tokenizer, len(m.tokenizer("</think>", add_special_tokens=False).input_ids)) for role, m in members.items()}


def p_stop(member, hidden: torch.Tensor) -> np.ndarray:
    """P(any stop token) after each prompt."""
    return logprobs_of(member, hidden, member.groups.stop).exp().sum(1).clamp(1e-12, 1 - 1e-7).numpy()


# %%
rows = []
for role, m in members.items():
    for name, mark in (("<think>", "<think>"), ("</think>", "</think>"), ("<answer>", "<answer>"), ("nonsense", nonsense[role]), ("words", plain_mark[role])):
        ids = m.tokenizer(mark, add_special_tokens=False).input_ids
        rows.append({"model": role, "tag": name, "text": mark, "tokens": len(ids), "used as": "a token" if len(ids) == 1 else "text: " + " ".join(repr(m.tokenizer.decode([i])) for i in ids)})
    prompts = [p for ending in endings_grid(answer="sentence", tags=False) for p in with_ending(m, questions[:2], materials[:2], ending, form="plain")]
    encoded = [m.encode([p])["input_ids"][0].tolist() for p in prompts]
    wanted = [p.count("</think>") for p in prompts]
    assert m.groups.end_think is None or [ids.count(m.groups.end_think) for ids in encoded] == wanted, "every </think> must be one token"
    assert all(ids.count(m.tokenizer.bos_token_id) <= 1 for ids in encoded if m.bos), "at most one BOS"
    assert all(unicodedata.normalize("NFC", m.tokenizer.decode(ids)) == unicodedata.normalize("NFC", p) for ids, p in zip(encoded, prompts, strict=True)), "prompts must survive the tokenizer"
pd.DataFrame(rows)

# %% [markdown]
# ### Three raw examples, before any average

# %%
block = Ending(close=True, gap="\n\n", answer="sentence")
marks = {"with </think>": "</think>", "nonsense tag": None, "without": ""}
for index in np.random.default_rng(SEED).choice(len(questions), min(3, len(questions)), replace=False):
    cells = {}
    for role, m in members.items():
        prompts = [with_ending(m, [questions[index]], [materials[index]], block, form="plain", mark=nonsense[role] if mark is None else mark)[0] for mark in marks.values()]
        for name, c in zip(marks, complete(m, prompts, max_new_tokens=MAX_ENDED), strict=True):
            cells[f"{role}, {name}"] = f"{c.text!r} ({'stops' if c.stop != 'limit' else 'goes on'})"
    display(Markdown(f"*{questions[index].text}*, then the mark, a blank line and {findings.code_span(materials[index].sentence)}"), pd.DataFrame({"what follows": cells}))

# %% [markdown]
# ## The grid of endings
#
# **Question.** Which parts of an ending decide, alone and together? All combinations of `<think>`, thought (none, the answer, a real one), `</think>`, gap (none, space, one or two new lines), answer (sentence, without period, word with and without period, wrong, another question's) and answer tags, plain form, both models. Metric: logit of P(stop), a linear model of its main effects and two-way interactions for each question, then mean and bootstrap over questions.

# %%
def p_each(member, jobs: list[tuple[Ending, str]], form: str, rows: list[int]) -> np.ndarray:
    """P(stop) after each of many endings (with their marks), [question, ending]; a question's endings share its text."""
    found = []
    for question, material in zip(take(questions, rows), take(materials, rows), strict=True):
        prompts = [with_ending(member, [question], [material], ending, form=form, mark=mark)[0] for ending, mark in jobs]
        found.append(p_stop(member, last_hidden_shared(member, prompts)))
    return np.stack(found)


def read_grid(rows: list[int]) -> dict:
    """P(stop) of both models after every ending, [question, ending]."""
    return {role: p_each(m, [(ending, "</think>") for ending in grid], "plain", rows) for role, m in members.items()}


grid = endings_grid()
seen = kept(pair, "07_grid", read_grid, min(N_GRID, len(questions)), fresh=RECOMPUTE)
table = pd.DataFrame([vars(ending) for ending in grid]).assign(**{f"P(stop) {role}": seen[role].mean(0) for role in members})
write_text(data_dir(pair.name) / "07_grid.csv", table.to_csv(index=False, float_format="%.4f"))
table.sort_values("P(stop) distilled", ascending=False).head(8).round(3)

# %%
kinds = ("sentence", "open", "word.", "word", "wrong", "other")
tagged = {(False, False): "no tag", (True, False): "<think>", (False, True): "</think>", (True, True): "<think>…</think>"}
maps = {
    role: [[table[(table["think"] == think) & (table["close"] == close) & (table["answer"] == kind)][f"P(stop) {role}"].mean() for kind in kinds] for think, close in tagged]
    for role in members
}
gain = {role: (seen[role][:, [e.close for e in grid]].mean(1) - seen[role][:, [not e.close for e in grid]].mean(1)) for role in members}
title = "</think> anywhere in the ending changes P(stop) by " + ", ".join(f"{stats.bootstrap(gain[role]).estimate:+.2f} ({role})" for role in members)
fig = figures.heat_maps(maps, title=title, xlabel="answer", ylabel="tags", unit="P(stop)", columns=kinds, names=list(tagged.values()), diverging=False, written=True)
figures.save_figure(fig, "07_grid", pair=pair.name, size=(10, 3.2), note=f"n = {len(seen['base'])} questions x {len(grid)} endings, confirm, plain")

# %% [markdown]
# **Figure 1: P(stop) by tags and kind of answer.** Means over thoughts, gaps and answer tags. "open" and "word" lack the period; "wrong" and "other" end in one.

# %% [markdown]
# **What it does not show.** The parts averaged over; they follow.

# %%
coded = pd.DataFrame({
    "<think>": [e.think for e in grid], "</think>": [e.close for e in grid], "thought: answer": [e.thought == "answer" for e in grid], "thought: real": [e.thought == "real" for e in grid],
    "blank line": [e.gap == "\n\n" for e in grid], "period": [e.answer not in ("open", "word") for e in grid], "full sentence": [e.answer not in ("word.", "word") for e in grid],
    "right answer": [e.answer not in ("wrong", "other") for e in grid], "answer tags": [e.tags for e in grid],
}).astype(float)  # fmt: skip
coded -= coded.mean()
crossed = {f"{a} x {b}": coded[a] * coded[b] * 2 for a, b in itertools.combinations(coded, 2) if not (a.startswith("thought") and b.startswith("thought")) and (b != "right answer" or a not in ("period", "full sentence"))}  # wrong answers always are sentences with a period
design = pd.concat([coded, pd.DataFrame(crossed)], axis=1)
logits = {role: np.log(values / (1 - values)) for role, values in seen.items()}
effects = {role: np.stack([LinearRegression().fit(design, y).coef_ for y in values]) for role, values in logits.items()}
of = {role: dict(zip(design, stats.bands(values), strict=True)) for role, values in effects.items()}
strongest = sorted(crossed, key=lambda name: -abs(of["distilled"][name].estimate))[:8]
panels = {
    "main effects": [(name, of[role][name], figures.ROLE[role]) for name in coded for role in members],
    "strongest interactions": [(name, of[role][name], figures.ROLE[role]) for name in strongest for role in members],
}  # fmt: skip
leads = {role: max(coded, key=lambda name: abs(of[role][name].estimate)) for role in members}
title = "The strongest part of an ending: " + ", ".join(f"{name} on the {role} ({of[role][name].estimate:+.1f} nats)" for role, name in leads.items())
fig = figures.interval_rows(panels, title=title, unit="change of the log-odds of stopping (nats)", zero=True)
figures.save_figure(fig, "07_effects", pair=pair.name, size=(12, 4.4), note=f"n = {len(seen['base'])} questions, confirm, plain; blue base, orange distilled")

# %% [markdown]
# **Figure 2: what each part does to the log-odds of stopping.** Blue the base, orange the distilled model; 95 % bootstrap over questions. Left, a part there against not there, at the average of all others (least squares); right, how far two parts together go beyond their sum (half the difference of differences). Whether wrong answers would do without a period cannot be told: they all have one.

# %% [markdown]
# **What it does not show.** More than this many questions: each carries the whole grid, and their number is what the intervals know about.

# %% [markdown]
# ## F21 and F22 · Which endings suffice?
#
# **Question.** `<think></think> <answer>answer</answer>` against `<answer>answer</answer>` alone; the ending block, `</think>`, two new lines and the answer with its period; and `</think> Paris.`. Metric: P(stop) right after, plain form as in the notes; beside it the chat template after a real thought.

# %% [markdown]
# **Controls.** The same without the tag, with a nonsense tag of as many tokens, and with as many plain words. The rules use the nonsense tag. **Rules, that of F22 made stricter after a first look at the result.** F21 holds if on the distilled model (a) P(stop) after both tags is above 0.5 and (b) it is more than 0.25 above `<answer>` alone, which itself stays below 0.5, and (c) above the nonsense tags. F22 holds if (a) P(stop) after the block is above 0.5, (b) it is more than 0.25 above the same with a nonsense tag, and (c) P(stop) after `</think> Paris.` is above 0.5 and above the same with a nonsense tag.

# %%
endings = {
    "<think></think> <answer>A.</answer>": Ending(think=True, close=True, gap=" ", tags=True), "<answer>A.</answer>": Ending(gap=" ", tags=True),
    "</think>¶¶A.": block, "</think> word.": Ending(close=True, gap=" ", answer="word."), "</think> word": Ending(close=True, gap=" ", answer="word"),
    "thought </think>¶¶A.": Ending(thought="real", close=True, gap="\n\n"), "A.": Ending(gap=" "),
}  # fmt: skip


def jobs_of(role: str) -> dict:
    """Every ending with `</think>`, with the nonsense tag, with plain words and with nothing in its place."""
    marks = {"tag": "</think>", "nonsense": nonsense[role], "words": plain_mark[role], "none": ""}
    return {(name, kind): (ending, mark) for name, ending in endings.items() for kind, mark in marks.items()}


def read_endings(rows: list[int]) -> dict:
    """P(stop) of both models in both forms after every ending with every mark, [question, ending and mark]."""
    return {f"{role} {form}": p_each(m, list(jobs_of(role).values()), form, rows) for role, m in members.items() for form in ("plain", "template")}


seen_after = kept(pair, "07_endings", read_endings, len(questions), fresh=RECOMPUTE)
read = {(role, name, form, kind): column for role in members for form in ("plain", "template") for (name, kind), column in zip(jobs_of(role), seen_after[f"{role} {form}"].T, strict=True)}


def of_ending(name: str, kind: str = "tag", form: str = "plain", role: str = "distilled") -> stats.Interval:
    """P(stop) after one ending."""
    return stats.bootstrap(read[role, name, form, kind])


# %% [markdown]
# The four endings that the rules name, and what the tag adds to each beyond the nonsense tag:

# %%
both, alone, whole, short = (
    "<think></think> <answer>A.</answer>",
    "<answer>A.</answer>",
    "</think>¶¶A.",
    "</think> word.",
)
half, quarter, positive = (findings.Rule("above", least) for least in (0.5, 0.25, 0))
apart = stats.paired(read["distilled", both, "plain", "tag"], read["distilled", alone, "plain", "none"])
beyond = {
    name: stats.paired(*(read["distilled", name, "plain", kind] for kind in ("tag", "nonsense")))
    for name in (both, whole, short)
}

# %%
rules = [
    findings.Part("(a) after both tags", of_ending(both), half),
    findings.Part("(b) minus <answer> alone", apart, quarter),
    findings.Part("(b) <answer> alone", of_ending(alone, "none"), findings.Rule("below", 0.5)),
    findings.Part("(c) beyond the nonsense tag", beyond[both], positive),
]
details = {
    "both tags, template": of_ending(both, form="template"),
    "<answer> alone, template": of_ending(alone, "none", "template"),
    "both tags, the base": of_ending(both, role="base"),
    "<answer> alone, the base": of_ending(alone, "none", role="base"),
}

# %%
F21 = findings.record(
    pair,
    "F21",
    notebook="07_think_tags",
    quantity="P(stop) of the distilled model after <think></think> <answer>A.</answer>",
    unit="probability",
    rules=rules,
    control=("the same with a nonsense tag for </think>", of_ending(both, "nonsense")),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F21))

# %%
rules = [
    findings.Part("(a) after the block", of_ending(whole), half),
    findings.Part("(b) beyond the nonsense tag", beyond[whole], quarter),
    findings.Part("(c) after `</think> word.`", of_ending(short), half),
    findings.Part("(c) beyond the nonsense tag, `</think> word.`", beyond[short], positive),
]
details = {
    "without any tag": of_ending(whole, "none"),
    "`</think> word`, no period": of_ending("</think> word"),
}
for kind, mark in (
    ("tag", "</think>"),
    ("nonsense", "nonsense tag"),
    ("words", "plain words"),
    ("none", "nothing"),
):
    details[f"after a real thought, template, {mark}"] = of_ending("thought </think>¶¶A.", kind, "template")
pairs = (distilled.groups.end_think, single_id(distilled.tokenizer, nonsense["distilled"]))
if None not in pairs:  # both are single tokens: how near are their embeddings?
    rows = distilled.model.get_input_embeddings().weight[[*pairs, *distilled.groups.control]].float()
    unit = torch.nn.functional.normalize(rows, dim=-1)
    details["cosine of </think> and the nonsense tag"] = float(unit[0] @ unit[1])
    details["cosine of </think> and plain words"] = stats.bootstrap((unit[2:] @ unit[0]).tolist())

# %%
F22 = findings.record(
    pair,
    "F22",
    notebook="07_think_tags",
    quantity="P(stop) of the distilled model after </think>, two new lines, and the answer with its period",
    unit="probability",
    rules=rules,
    control=("the same with a nonsense tag for </think>", of_ending(whole, "nonsense")),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F22))

# %%
panels = {
    f"{role}, {form}": [(name, of_ending(name, kind, form, role), {"tag": figures.ROLE[role], "nonsense": figures.CONTROL, "words": figures.PALE, "none": figures.THIRD}[kind]) for name in endings for kind in ("tag", "nonsense", "words", "none")]
    for role, form in itertools.product(("distilled", "base"), ("plain", "template"))
}  # fmt: skip
title = f"Distilled, plain: P(stop) {of_ending(both).estimate:.2f} after both tags, {of_ending(alone, 'none').estimate:.2f} after <answer> alone, {of_ending(whole).estimate:.2f} after the ending block, {of_ending(short).estimate:.2f} after </think> word."
fig = figures.interval_rows(panels, title=title, unit="P(stop)", span=(-0.03, 1.03))
figures.save_figure(fig, "07_endings", pair=pair.name, size=(14, 5.6), key={"with </think>, distilled": figures.DISTILLED, "with </think>, base": figures.BASE, "nonsense tag": figures.CONTROL, "plain words": figures.PALE, "no tag": figures.THIRD}, note=f"n = {len(questions)} questions, confirm")

# %% [markdown]
# **Figure 3: P(stop) right after each ending.** Round: with `</think>`; grey squares: a nonsense tag of as many tokens in its place; pink: as many plain words; triangles: nothing in its place. ¶ is a new line, A. the answer with its period. In the template the distilled model's thought is open already. Rows without `</think>` have the four marks at one place.

# %% [markdown]
# **What it does not show.** What a model does where it does not stop: next. And the nonsense tag of a model for which `</think>` is one token is a reserved token of its vocabulary: where such tokens were hardly trained they may lie close to each other, so that one stands in for another. F22's detail prints how near their embeddings are; plain words and nothing are the other controls (nothing after a real thought leaves one new line fewer, see figure 7).

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
    if (tag and before.strip()) or "<think>" in text or counts["doubting"] + counts["alternatives"] + counts["opening"]:
        return "reasons again"
    if "?" in text:
        return "asks a question"
    if stopped:
        return "tag, an answer, stops" if tag else "other words, stops"
    return "goes on"


shown, done = ["thought </think>¶¶A.", whole, short, both, "A."], {}
for role, m in members.items():
    marks = {"tag": "</think>", "nonsense": nonsense[role]}
    jobs = [(name, kind) for name in shown for kind in marks if kind == "tag" or endings[name].close]
    few = questions[:N_WRITTEN]
    prompts = [prompt for name, kind in jobs for prompt in with_ending(m, few, materials[: len(few)], endings[name], form="plain", mark=marks[kind])]
    written = stored_completions(pair, m, prompts, name=f"07_after_{role}", max_new_tokens=MAX_ENDED, fresh=RECOMPUTE)
    for k, job in enumerate(jobs):
        some = written[k * len(few) : (k + 1) * len(few)]
        done[role, *job] = [behaviour(c.text, c.stop != "limit") for c in some]

# %%
colours = {"stops at once": figures.STOP, "tag, an answer, stops": figures.THIRD, "other words, stops": figures.LINE, "reasons again": figures.WAIT, "asks a question": figures.PALE, "goes on": figures.REST}
rows = {f"{role}: {name}{' (nonsense)' if kind == 'nonsense' else ''}": {what: found.count(what) / len(found) for what in colours} for (role, name, kind), found in done.items()}
again = rows[f"distilled: {whole}"]
title = f"After the ending block the distilled model stops at once in {again['stops at once']:.0%}, writes the tag and an answer again in {again['tag, an answer, stops']:.0%}, reasons again in {again['reasons again']:.0%}"
fig = figures.stacked_rows(rows, colours, title=title, unit="share of questions")
figures.save_figure(fig, "07_behaviour", pair=pair.name, key=colours, note=f"n = {len(few)} questions, confirm, plain, greedy")

# %% [markdown]
# **Figure 4: greedy continuations after each ending.** One bar an ending, base and distilled, with `</think>` or with the nonsense tag in its place.

# %% [markdown]
# **What it does not show.** Whether a second answer is the first one again: what follows a second tag may be any answer. Reasoning is told by a tag with words before it, by `<think>`, or by words of doubt, alternatives and openings.

# %% [markdown]
# ## F23 · A prompt that ends in `</think>`
#
# **Question.** Question, answer, `</think>`: does the distilled model write two new lines, say the answer again and stop? Eight seeded samples a question, temperature 0.6, top-p 0.95. **Control.** The nonsense tag, two samples a question. **Rule, written before the result.** F23 holds if more than half of the samples do all three, and more than a quarter more than after the nonsense tag.

# %% [markdown]
# ## F24 · Does `</think>` guarantee the answer?
#
# **Question.** Whole answers, sampled from the chat template: after the first `</think>`, does it reason again (a second `</think>`, or a word of doubt)? Does a finished answer ever come without one? **Control.** The same model's greedy answers, as if cut at as many tokens. **Rule, written before the result.** F24 holds if (a) more than 1 % of the samples with a `</think>` reason again after it and (b) fewer than 2 % of the finished samples have none.

# %%
asked = [q for q in load_questions(N_PROMPTS) if q.split == "confirm"][:N_SAMPLED]
samples = dict(temperature=TEMPERATURE, top_p=TOP_P, seed=SEED, fresh=RECOMPUTE)


def sample(prompts: list[str], name: str, limit: int, n: int = N_SAMPLES) -> list[list]:
    """n seeded completions of each prompt."""
    names = tuple(f"sample {k}" for k in range(n) for _ in prompts)
    flat = stored_completions(pair, distilled, prompts * n, name=name, max_new_tokens=limit, change=Change("samples", names=names), **samples)
    return [flat[k :: len(prompts)] for k in range(len(prompts))]


told = load_combined(pair, n_prompts=N_PROMPTS, n_combined=N_SAMPLED, max_answer=MAX_ANSWER, max_new_tokens=MAX_NEW_TOKENS)["confirm"]
closing = Ending(thought="answer", close=True, answer="none")
stuff = ending_materials(told.questions, told.answers, [""] * len(told.questions))
after = {kind: sample(with_ending(distilled, told.questions, stuff, closing, form="plain", mark=mark), f"07_after_{kind}", MAX_AFTER_TAG, n) for kind, mark, n in (("tag", "</think>", N_SAMPLES), ("nonsense", nonsense["distilled"], 2))}
whole_texts = sample(ask(distilled, asked, form="template"), "07_samples", MAX_SAMPLED)

# %%
steps = {"begins with a blank line": lambda c, q: c.text.startswith("\n\n"), "says the answer": lambda c, q: is_right(c.text, q.answers), "stops": lambda c, q: c.stop != "limit"}
opens = np.array([np.mean([c.text.lstrip().startswith("<think>") for c in row]) for row in after["tag"]])
base_right = np.array(told.right, dtype=float)


def share(texts: list[list], some: list, test) -> np.ndarray:
    """Share of a question's samples that pass."""
    return np.array([np.mean([test(c, q) for c in row]) for row, q in zip(texts, some, strict=True)])


def repeats(c, material) -> bool:
    """Blank line, the given sentence word for word, stop."""
    return c.text.startswith("\n\n") and c.stop != "limit" and normalise(material.sentence) in normalise(c.text)


# %%
three = {kind: np.array([np.mean([repeats(c, m) for c in row]) for row, m in zip(texts, stuff, strict=True)]) for kind, texts in after.items()}
closed = [[c for c in row if "</think>" in c.text] for row in whole_texts]
counted = pd.Series([c.text.count("</think>") for row in whole_texts for c in row]).value_counts().sort_index()


def reasons_again(c) -> bool:
    """A second closing tag, or a word of doubt, after the first."""
    rest = c.text.split("</think>", 1)[1]
    return "</think>" in rest or count_keywords(rest)["doubting"] > 0


again = np.array([np.mean([reasons_again(c) for c in row]) for row in closed if row])
finished = [[c for c in row if c.stop != "limit"] for row in whole_texts]
untagged = np.array([np.mean(["</think>" not in c.text for c in row]) for row in finished if row])
greedy = cut_short(distilled, own.loc[[q.id for q in asked]], asked, MAX_SAMPLED, opened=distilled.thinks)


def mean_of(values) -> stats.Interval:
    """Mean with its interval; where fewer than two questions can tell, anything from 0 to 1."""
    return stats.share(values) if len(values) > 1 else stats.Interval(0.0, 0.0, 1.0, len(values))


greedy_again = np.array([reasons_again(c) for c in greedy[greedy["closed"]].itertuples()], dtype=float)

# %%
details = {name: stats.share(share(after["tag"], told.questions, test)) for name, test in steps.items()}
details |= {"opens a new thought": stats.share(opens), "samples a question": N_SAMPLES}
F23 = findings.record(
    pair,
    "F23",
    notebook="07_think_tags",
    quantity="share of samples after question, answer and </think> that write a blank line, "
    "repeat the answer and stop",
    unit="of samples",
    rules=[
        findings.Part("all three", stats.share(three["tag"]), half),
        findings.Part("beyond the nonsense tag", stats.paired(three["tag"], three["nonsense"]), quarter),
    ],
    control=("a nonsense tag for </think>", stats.share(three["nonsense"])),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F23))

# %%
rules = [
    findings.Part("(a) reason again", mean_of(again), findings.Rule("above", 0.01)),
    findings.Part("(b) finished without </think>", mean_of(untagged), findings.Rule("below", 0.02)),
]
details = {f"samples with {n} </think>": int(count) for n, count in counted.items()}
details[f"finished within {MAX_SAMPLED} tokens"] = sum(map(len, finished))
details["samples"] = len(asked) * N_SAMPLES
F24 = findings.record(
    pair,
    "F24",
    notebook="07_think_tags",
    quantity="share of samples with a </think> that reason again after it",
    unit="of samples",
    rules=rules,
    control=("greedy answers", mean_of(greedy_again)),
    sample="questions",
    details=details,
)
Markdown(findings.sentence(F24))

# %%
panels = {
    "F23: after question, answer, tag": [(name, stats.share(share(after[kind], told.questions, test)), figures.DISTILLED if kind == "tag" else figures.CONTROL) for name, test in steps.items() for kind in after]
    + [("all three", stats.share(three[kind]), figures.DISTILLED if kind == "tag" else figures.CONTROL) for kind in after],
    "F24: whole answers": [
        ("closes the thought", stats.share([len(row) / N_SAMPLES for row in closed]), figures.DISTILLED), ("reasons again after it", mean_of(again), figures.DISTILLED),
        ("reasons again, greedy", mean_of(greedy_again), figures.CONTROL), ("finished without a tag", mean_of(untagged), figures.THIRD),
    ],
}  # fmt: skip
title = f"{three['tag'].mean():.0%} of samples after </think> write a blank line, repeat the answer and stop; {opens.mean():.0%} open a new thought; in whole answers {mean_of(again).estimate:.1%} of closed thoughts are followed by another, {mean_of(untagged).estimate:.1%} finish without the tag"
fig = figures.interval_rows(panels, title=title, unit="share of samples", span=(-0.03, 1.03))
figures.save_figure(fig, "07_samples", pair=pair.name, size=(12, 3.2), note=f"n = {len(told.questions)} and {len(asked)} questions x {N_SAMPLES} samples, confirm, temperature {TEMPERATURE}, top-p {TOP_P}")

# %% [markdown]
# **Figure 5: what samples do around `</think>`.** Orange with the tag, grey squares with the nonsense tag (left) and in greedy decoding (right); 95 % bootstrap over questions.

# %% [markdown]
# **What it does not show.** Whether it reasons again where it is led to: right after `</think>` in a text without a thought most samples open a new one (F23), while F24 counts whole answers from the template. Long answers: samples end at `MAX_SAMPLED` tokens, and those cut there count as neither finished nor untagged.

# %% [markdown]
# ## F26 · Where is the end of a thought decided?
#
# **Question.** At the end of a sentence the distilled model can write one new line or a blank line. In R1's own published texts the thought's `</think>` stands after the first, and "Wait" after the second. How often does each follow each? Metrics, over ends of sentences before prose: P(`</think>` | one new line), P(`</think>` | blank line), P("Wait" | each).

# %% [markdown]
# **Control.** Chance: how many closings would follow one new line if each stood at one of its thought's own line ends, drawn at random. **Rule, written before this pair's result, after a first look at the published texts.** F26 holds for a pair, or for a set of texts, if (a) more than 90 % of the closings follow one new line, (b) P(`</think>`) after one new line is at least 0.25 above that after a blank line, and (c) P("Wait") after a blank line is at least 0.02 above that after one new line.

# %%
sets = {name: texts.published(name).query("closed_prompt == 0") for name in texts.sources().index}
own_texts = pd.DataFrame([texts.measure(text) for text in own["text"]])
known = texts.sources()
counted = {f"R1, {known.loc[name, 'label']}": frame for name, frame in sets.items()} | {f"pair {pair.name}": own_texts}
forks = {name: texts.fork(frame) for name, frame in counted.items()}
pd.DataFrame({name: {what: f"{interval:.3f}" for what, interval in fork.items()} for name, fork in forks.items()}).T

# %%
def fork_parts(counts: pd.DataFrame) -> list[findings.Part]:
    """The three parts of F26's rule for one set of texts."""
    found = texts.fork(counts)
    closes, waits = (texts.difference(counts, what) for what in ("closes", "waits"))
    return [
        findings.Part("closings after one new line", found["closings after one new line"], findings.Rule("above", 0.9)),
        findings.Part("P(</think>), one new line minus blank line", closes, findings.Rule("above", 0.25)),
        findings.Part("P(Wait), blank line minus one new line", waits, findings.Rule("above", 0.02)),
    ]


def rates_of(counts: pd.DataFrame) -> dict[str, stats.Interval]:
    """How often each follows each."""
    return {f"P({what})": interval for what, interval in texts.fork(counts).items() if not what.startswith("closings")}


def by_chance(counts: pd.DataFrame) -> stats.Interval:
    """Closings after one new line if each stood at a random line's end of its own thought."""
    closed = counts[counts["closings"] > 0]
    ends = closed[["lines ended by one new line", "lines ended by blank line"]]
    return stats.bootstrap((ends.iloc[:, 0] / ends.sum(axis=1).clip(lower=1)).to_numpy())


# %%
recorded = dict(notebook="07_think_tags", quantity="closings of a thought that follow one new line", unit="of closings")
for name, frame in sets.items():
    source = findings.Published(name, ("DeepSeek-R1-Distill-Qwen-1.5B",), known.loc[name, "settings"])
    entry = findings.record(
        source,
        "F26",
        rules=fork_parts(frame),
        control=("closings at random line ends", by_chance(frame)),
        details={"from": f"{known.loc[name, 'source']} {known.loc[name, 'commit']}"} | rates_of(frame),
        split="",
        sample="texts",
        **recorded,
    )
    display(Markdown(findings.sentence(entry)))

# %%
F26 = findings.record(
    pair,
    "F26",
    rules=fork_parts(own_texts),
    control=("closings at random line ends", by_chance(own_texts)),
    details=rates_of(own_texts),
    split="",
    sample="greedy answers",
    **recorded,
)
Markdown(findings.sentence(F26))

# %%
shares = {}
for name, frame in counted.items():
    for gap in texts.GAPS:
        cells = {what: frame[f"sentences, {gap}: {what}"].sum() for what in ("closes", "waits", "goes on")}
        total = max(1, sum(cells.values()))
        shares[f"{name}: {gap} (n={total:,})"] = {what: count / total for what, count in cells.items()}
colours = {"closes": figures.STOP, "waits": figures.WAIT, "goes on": figures.REST}
title = "After a period and one new line R1's thought ends; after a blank line it never does"
fig = figures.stacked_rows(shares, colours, title=title, unit="share of what comes next in the thought")
figures.save_figure(fig, "07_fork", pair=pair.name, alt=title, note="ends of sentences before prose")

# %% [markdown]
# **Figure: what follows the end of a sentence.** Rows: four sets of published texts of DeepSeek-R1-Distill-Qwen-1.5B, and this pair's distilled model. Black: `</think>` comes next; wine: "Wait"; grey: anything else. Only ends of sentences whose next line is prose: one new line also stands in lists and formulas, where it decides nothing. Settings and selection differ (`data/published/sources.csv`): one set is greedy, two are sampled, one holds only finished answers, one has a prompt of its own.

# %% [markdown]
# **What it does not show.** Whether the new line *makes* the model stop or is only the first token of a decision that was made before it. Every training text has one new line before the tag, so the form was learnt; that it is chosen one token early is what can be used.

# %%
breaks = pd.read_csv(data_dir("published") / "line_breaks.csv")
prose = breaks[(breaks["next_line"] == "prose") & (breaks["set"] != "easy_comparisons")]
by_end = prose.pivot_table(index=["gap", "line_end"], columns="follows", values="count", aggfunc="sum", fill_value=0)
by_third = prose[prose["line_end"] == "sentence"].pivot_table(
    index=["gap", "third"], columns="follows", values="count", aggfunc="sum", fill_value=0
)
display(Markdown("How the line ended, three sets together, next line prose:"), by_end)
display(Markdown("Ends of sentences, by third of the thought:"), by_third)

# %% [markdown]
# ### After the tag, and without the thought
#
# **Question.** F24 in R1's own texts: is there ever a second `</think>`, a doubt after the first, an answer before it? And what is lost when the prompt closes the thought: the same 100 problems of MATH-500 with and without it (only finished answers were published, so this is a selection).

# %%
after_close = pd.DataFrame(
    {
        name: {
            "texts that close": (frame["closings"] > 0).sum(),
            "close twice": (frame["closings"] > 1).sum(),
            "a wait after it": (frame["waits_after_close"] > 0).sum(),
            "an answer marker before it": frame.loc[frame["closings"] > 0, "answer_marker_before_close"].sum(),
            "nothing after it": ((frame["closings"] > 0) & (frame["words_after_close"] == 0)).sum(),
            "never close": (frame["closings"] == 0).sum(),
        }
        for name, frame in sets.items()
    }
)
after_close

# %%
every = pd.concat(sets[name] for name in ("gsm8k_pair", "math_sampled", "math500_think_or_not"))
ended = every[every["closings"] > 0]
again = stats.share((ended["closings"] > 1) | (ended["doubts_after_close"] > 0))
finished = sets["math500_think_or_not"]
F24_published = findings.record(
    findings.Published("three sets", ("DeepSeek-R1-Distill-Qwen-1.5B",), "greedy, sampled, and finished only"),
    "F24",
    notebook="07_think_tags",
    quantity="texts with a </think> that reason again after it",
    unit="of texts",
    rules=[
        findings.Part("a second </think> or a doubt after the first", again, findings.Rule("above", 0.01)),
        findings.Part("finished without </think>", stats.share(finished["closings"] == 0), findings.Rule("below", 0.02)),
    ],
    control=("a second </think>", stats.share(ended["closings"] > 1)),
    details={"an answer marker before it": stats.share(ended["answer_marker_before_close"])},
    split="",
    sample="texts",
)
Markdown(findings.sentence(F24_published))

# %%
both = texts.published("math500_think_or_not")
thought, closed = (both[both["closed_prompt"] == value].sort_index() for value in (0, 1))
assert (thought.index == closed.index).all(), "the same problems"
columns = {"words": "words", "right": "right answers", "waits": "waits"}
pd.DataFrame(
    {
        label: {
            "with its thought": f"{stats.bootstrap(thought[column]):.2f}",
            "thought closed by the prompt": f"{stats.bootstrap(closed[column]):.2f}",
            "difference, paired": f"{stats.paired(thought[column], closed[column]):.2f}",
        }
        for column, label in columns.items()
    }
)

# %% [markdown]
# ## Where does the tag act?
#
# **Question.** After a real thought, the tag, a blank line and the answer (plain form): from the answer's last token, which heads look at `</think>`? And is it looked at to stop: what becomes of P(stop) if no later token can attend to the tag? **Controls.** Attention to the nonsense tag at the same place; hiding as many random other tokens (not the first) instead.

# %%
pair = pair.float()  # attention, hidden tokens and lens in float32
whole_block = endings["thought </think>¶¶A."]
tagged_prompts = {kind: with_ending(distilled, questions, materials, whole_block, form="plain", mark=mark) for kind, mark in (("tag", "</think>"), ("nonsense", nonsense["distilled"]), ("none", ""))}
heads = list(itertools.product(range(distilled.n_layers), range(distilled.config.num_attention_heads)))
width = len(distilled.tokenizer("</think>", add_special_tokens=False).input_ids)
starts = with_ending(distilled, questions, materials, Ending(thought="real", answer="none"), form="plain")
begins = {}
for kind in ("tag", "nonsense"):
    every = [distilled.encode([prompt])["input_ids"][0] for prompt in tagged_prompts[kind]]
    begins[kind] = [next(k for k in range(len(ids)) if len(distilled.tokenizer.decode(ids[:k])) >= len(start)) for ids, start in zip(every, starts, strict=True)]
looked = {
    kind: torch.stack([attention_pattern(distilled, p, heads)[1][:, k : k + width].sum(1) for p, k in zip(tagged_prompts[kind][:N_PATTERNS], begins[kind], strict=False)]).numpy()
    for kind in ("tag", "nonsense")
}
shape = (distilled.n_layers, distilled.config.num_attention_heads)
maps = {f"to {kind}": looked[name].mean(0).reshape(shape) for name, kind in (("tag", "</think>"), ("nonsense", "the nonsense tag"))}
title = f"The head that looks most at </think> gives it {maps['to </think>'].max():.0%} of its attention, the nonsense tag gets {maps['to the nonsense tag'].max():.0%} at most"
fig = figures.heat_maps(maps, title=title, xlabel="head", ylabel="layer", unit="share of attention", diverging=False)
figures.save_figure(fig, "07_attention", pair=pair.name, note=f"n = {len(looked['tag'])} prompts, confirm, plain, distilled, from the answer's last token")

# %% [markdown]
# **Figure 6: attention from the answer's last token to the tag, by layer and head.** Distilled model, a real thought and the ending block in plain form; right, the same place holding a nonsense tag.

# %% [markdown]
# **What it does not show.** What is done with what is seen; attention is not effect. So the tag is hidden:

# %%
rng, spans = np.random.default_rng(SEED), [[list(range(k, k + width)) for k in begins["tag"]]]
for _ in range(N_HIDDEN):
    away = [[k for k in range(1, len(distilled.encode([p])["input_ids"][0]) - width) if abs(k - place) >= width] for p, place in zip(tagged_prompts["tag"], begins["tag"], strict=True)]
    spans.append([list(range(k, k + width)) for k in (int(rng.choice(places)) for places in away)])


def hide(rows: list[int]) -> dict:
    """P(stop) as the prompts stand, with the tag hidden, and with as many random tokens hidden, [question, draw]."""
    prompts = {kind: take(every, rows) for kind, every in tagged_prompts.items()}
    plainly = {kind: p_stop(distilled, last_hidden(distilled, chosen)) for kind, chosen in prompts.items()}
    few = prompts["tag"][:3]
    assert np.allclose(p_stop(distilled, last_hidden(distilled, few, hide=[[]] * len(few))), plainly["tag"][: len(few)], atol=1e-4), "hiding nothing changes nothing"
    hidden, *random = (p_stop(distilled, last_hidden(distilled, prompts["tag"], hide=take(span, rows))) for span in spans)
    return plainly | {"hidden": hidden, "random": np.stack(random, axis=1)}


plainly = kept(pair, "07_hidden", hide, len(questions), fresh=RECOMPUTE)
hidden_tag, random_hidden = plainly["hidden"], plainly["random"].T
rows = [("</think> seen", stats.bootstrap(plainly["tag"]), figures.DISTILLED), ("</think> hidden from later tokens", stats.bootstrap(hidden_tag), figures.DISTILLED), ("random token hidden", stats.bootstrap(np.mean(random_hidden, axis=0)), figures.CONTROL), ("nonsense tag", stats.bootstrap(plainly["nonsense"]), figures.CONTROL), ("no tag", stats.bootstrap(plainly["none"]), figures.THIRD)]  # fmt: skip
title = f"Hiding </think> from later tokens changes P(stop) from {plainly['tag'].mean():.2f} to {hidden_tag.mean():.2f}; without the tag it is {plainly['none'].mean():.2f}"
fig = figures.interval_rows({"": rows}, title=title, unit="P(stop)", span=(-0.03, 1.03))
figures.save_figure(fig, "07_hidden", pair=pair.name, note=f"n = {len(questions)} questions, confirm, plain, distilled; random: mean of {N_HIDDEN} draws")

# %% [markdown]
# **Figure 7: P(stop) after a thought and the ending block, with the tag hidden.** All later tokens, in all heads and layers, cannot attend to it; the tag itself still stands in the text. Grey: a random other token hidden instead, and the nonsense tag.

# %% [markdown]
# **What it does not show.** Which head is needed: all are cut at once. And a hidden tag is not an absent one: a new line stands before it and two after it, and without the tag only two are left, since three in a row would be other tokens. Where P(stop) hardly falls with the tag hidden, but is low without it, the new lines around the tag may carry what it seems to do, and the triangles of figure 3 share that flaw.

# %%
def read_depths(rows: list[int]) -> dict:
    """log P of all stop tokens through the lens, [question, point]."""
    return {kind: lens(distilled, take(prompts, rows), distilled.groups.stop).logprobs.logsumexp(-1) for kind, prompts in tagged_prompts.items()}


depths = kept(pair, "07_depths", read_depths, len(questions), fresh=RECOMPUTE)
colours = {"tag": figures.DISTILLED, "nonsense": figures.CONTROL, "none": figures.THIRD}
names = {"tag": "</think>", "nonsense": "nonsense tag", "none": "no tag"}
parted = depths["tag"].mean(0) - depths["none"].mean(0)
depth = int(stats.settled_at(parted[None])[0] * distilled.n_layers)
title = f"With the tag log P(stop) ends {parted[-1]:.1f} nats above no tag (half of it from depth {depth} of {distilled.n_layers} on), {round(float(depths['tag'].mean(0)[-1] - depths['nonsense'].mean(0)[-1]), 1) + 0.0:+.1f} above the nonsense tag"
fig = figures.lines({"": {names[kind]: (stats.bands(depths[kind][:, 1:]), colour) for kind, colour in colours.items()}}, range(1, distilled.n_layers + 1), title=title, xlabel="depth (layers passed)", ylabel="log P(stop) through the lens")
figures.save_figure(fig, "07_lens", pair=pair.name, size=(8, 3.8), note=f"n = {len(questions)} questions, confirm, plain, distilled")

# %% [markdown]
# **Figure 8: the lens at the answer's last token.** log P of all stop tokens at each depth from the first layer on, after a real thought and the ending block with the tag, a nonsense tag, or none; bands are 95 % bootstrap over questions.

# %% [markdown]
# **What it does not show.** Early depths, where the lens is unreliable (Belrose et al. 2023).

# %% [markdown]
# ## How early is the stop settled?
#
# **Question.** Along a real answer: P(stop) at every token, with the tag marked; and P(stop) *if the thought were cut here*: `</think>`, two new lines and the answer put after the first eighth, quarter, ... of a real thought. **Control.** The nonsense tag at the same cuts.

# %%
finished_rows = [q.id for q in questions if own.loc[q.id, "closed"] and own.loc[q.id, "stopped"]][:4] or [questions[0].id]
traces = {name: own.loc[name, "prompt"] + own.loc[name, "text"] for name in finished_rows}
first = {name: len(distilled.encode([own.loc[name, "prompt"]])["input_ids"][0]) for name in traces}
cuts = [0, 0.125, 0.25, 0.5, 0.75, 1]


def read_traces(rows: list[int]) -> dict:
    """P(stop) if each thought is cut, first with the tag, [question, mark and cut]."""
    cut_read = []
    for prompt, material in zip(ask(distilled, take(questions, rows), form="template"), take(materials, rows), strict=True):
        words = material.thought.split(" ")
        shorter = [f"{prompt}{' '.join(words[: round(cut * len(words))])}\n{mark}\n\n{material.sentence}" for mark in ("</think>", nonsense["distilled"]) for cut in cuts]
        cut_read.append(p_stop(distilled, last_hidden_shared(distilled, shorter)))
    return {"if cut": np.stack(cut_read)}


read_on = kept(pair, "07_traces", read_traces, len(questions), fresh=RECOMPUTE)
along = [  # P(stop) at every token of each trace
    read_stream(distilled, stream[first[name] :, -1], distilled.groups.stop).logprobs.logsumexp(-1).exp().numpy()
    for name, stream in zip(traces, streams_at_all_positions(distilled, list(traces.values())), strict=True)
]
cut_at = dict(zip(("tag", "nonsense"), (stats.bands(half_of) for half_of in np.split(read_on["if cut"], 2, axis=1)), strict=True))

# %%
steps_of = np.linspace(0, 1, 101)
rows = np.array([np.interp(steps_of, np.linspace(0, 1, len(row)), row) for row in along])
panels = {"P(stop) along four answers": {"": (rows, figures.LINE)}}
highest = [float(row[:-1].max()) for row in along if len(row) > 1] or [0.0]
title = f"P(stop) along real answers: at most {max(highest):.3f} before the last token"
fig = figures.lines(panels, steps_of, title=title, xlabel="share of the answer written", ylabel="P(stop)")
for name, text, row in zip(traces, traces.values(), along, strict=True):
    if "</think>" in text and len(row) > 1:
        place = len(distilled.encode([text.split("</think>")[0] + "</think>"])["input_ids"][0]) - len(distilled.encode([own.loc[name, "prompt"]])["input_ids"][0])
        fig.axes[0].axvline((place - 1) / (len(row) - 1), color=figures.WAIT, linewidth=0.8, linestyle=":")
figures.save_figure(fig, "07_along", pair=pair.name, size=(8, 3.4), note=f"{len(along)} greedy answers, confirm, template, distilled")

# %% [markdown]
# **Figure 9: P(stop) at every token of real answers.** One line an answer, dotted wine its `</think>`. The right end is the token after which it stopped.

# %% [markdown]
# **What it does not show.** Averages: four answers, in fixed order.

# %%
title = f"Cut before any thought, tag and answer give P(stop) {cut_at['tag'][0].estimate:.2f}; after the whole thought {cut_at['tag'][-1].estimate:.2f}"
fig = figures.lines({"": {"</think>": (cut_at["tag"], figures.DISTILLED), "nonsense tag": (cut_at["nonsense"], figures.CONTROL)}}, cuts, title=title, xlabel="share of the thought kept", ylabel="P(stop) if cut here")
figures.save_figure(fig, "07_cut", pair=pair.name, size=(7.5, 3.4), note=f"n = {len(questions)} questions, confirm, template, distilled")

# %% [markdown]
# **Figure 10: P(stop) after `</think>`, two new lines and the answer, if the thought is cut.** Orange with the tag, dashed grey with the nonsense tag; 95 % bootstrap over questions.

# %% [markdown]
# **What it does not show.** Whether the model would have given this answer itself: it is the base's.

# %% [markdown]
# ## Budget forcing
#
# **Question.** Muennighoff et al. (2025) lengthen thoughts by putting "Wait" in the place of the end, and shorten them by a maximum. Does it work here, and what happens to right answers? `</think>` (or the stop) is replaced by "Wait" once to three times; and the thought is cut at a number of tokens, `</think>` and two new lines put after it. **Control.** "So" in the place of "Wait". Each continuation has at most `MAX_FORCED` tokens; a thought that does not close by then has no answer.

# %%
forced = [q for q in load_questions(N_PROMPTS) if q.split == "confirm"][:N_FORCED]
starts = ask(distilled, forced, form="template")
lengths, right = {}, {}
texts = {word: [own.loc[q.id, "text"].split("</think>")[0] for q in forced] for word in ("Wait", "So")}
said = {word: list(own.loc[[q.id for q in forced], "text"]) for word in texts}
for round_ in range(4):
    if round_:
        grown = {word: [f"{text.rstrip()}\n\n{word}" for text in texts[word]] for word in texts}
        flat = stored_completions(pair, distilled, [start + text for word in texts for start, text in zip(starts, grown[word], strict=True)], name="07_forced", max_new_tokens=MAX_FORCED, fresh=RECOMPUTE)
        said = {word: [text + c.text for text, c in zip(grown[word], flat[k * len(forced) : (k + 1) * len(forced)], strict=True)] for k, word in enumerate(texts)}
        texts = {word: [answer.split("</think>")[0] for answer in said[word]] for word in texts}
    for word in texts:
        lengths[word, round_] = np.array([len(distilled.tokenizer(text, add_special_tokens=False).input_ids) for text in texts[word]], dtype=float)
        right[word, round_] = np.array([is_right(final_answer(answer, opened=True), q.answers) for answer, q in zip(said[word], forced, strict=True)], dtype=float)
cut_right = []
for budget in BUDGETS:
    begun = [distilled.tokenizer.decode(distilled.tokenizer(own.loc[q.id, "text"].split("</think>")[0], add_special_tokens=False).input_ids[:budget]) for q in forced]
    done_ = stored_completions(pair, distilled, [f"{start}{text}\n</think>\n\n" for start, text in zip(starts, begun, strict=True)], name="07_budget", max_new_tokens=MAX_ENDED, fresh=RECOMPUTE)
    cut_right.append(stats.bootstrap(np.array([is_right(c.text, q.answers) for c, q in zip(done_, forced, strict=True)], dtype=float)))

# %%
panels = {
    name: {word: ([stats.bootstrap(values[word, k]) for k in range(4)], figures.WAIT if word == "Wait" else figures.CONTROL) for word in ("Wait", "So")}
    for name, values in (("tokens of thought", lengths), ("right answers", right))
}
longer, lost = stats.paired(lengths["Wait", 3], lengths["Wait", 0]), stats.paired(right["Wait", 3], right["Wait", 0])
title = f"Three forced waits lengthen the thought by {longer.estimate:.0f} tokens and change right answers by {lost.estimate:+.0%}"
fig = figures.lines(panels, range(4), title=title, xlabel="times the end was replaced", ylabel="", rows=2)
display(Markdown("Right answers with the thought cut at " + ", ".join(f"{budget} tokens {value}" for budget, value in zip(BUDGETS, cut_right, strict=True)) + "."))
figures.save_figure(fig, "07_budget", pair=pair.name, size=(6.5, 5), note=f"n = {len(forced)} questions, confirm, template, greedy")

# %% [markdown]
# **Figure 11: budget forcing.** Above, tokens of thought; below, right answers, with "Wait" (wine) or "So" (dashed grey) in the place of the thought's end, zero to three times; 95 % bootstrap over questions.

# %% [markdown]
# **What it does not show.** Gains that a larger model may have: this one's thoughts are often circular.

# %% [markdown]
# ## F25 · Traces of the R1-Zero template
#
# **Question.** R1-Zero was trained under a template with `<think>` and `<answer>` (DeepSeek-AI 2025). Did the distilled model inherit a habit for it? Metric: under that template, log P of `<think>` after "Assistant:" and of `<answer>` after `</think>`, minus the same under the template with other names (`<plan>`, `<reply>`), distilled minus base. **Control.** The base. **Rule, made stricter after a first look at the result.** F25 holds if for `<answer>` the difference of differences is above 1 nat, with its interval, and does not hold if it lies below. `<think>` is told beside it: where it is one token in one model and text in the other, differences do not cancel.

# %%
def tag_logprob(member, opened: str, tag: str) -> float:
    """log P of a tag after a text, token by token, in nats."""
    ids = member.tokenizer(tag, add_special_tokens=False).input_ids
    hidden = last_hidden_shared(member, [opened + member.tokenizer.decode(ids[:k]) for k in range(len(ids))])
    return float(logprobs_of(member, hidden, ids).diagonal().sum())


def read_zero(rows: list[int]) -> dict:
    """log P of the opening and of the answer tag under both names of the tags, one a question."""
    found = {}
    for (role, m), (think, answer) in itertools.product(members.items(), (("think", "answer"), ("plan", "reply"))):
        filled = [m.prompt(R1_ZERO.format(think=think, answer=answer, question=q.text), "plain") for q in take(questions, rows)]
        found[f"{role} open {think}"] = np.array([tag_logprob(m, prompt, f" <{think}>") for prompt in filled])
        found[f"{role} answer {think}"] = np.array([tag_logprob(m, f"{prompt} <{think}> I think so. </{think}>", f" <{answer}>") for prompt in filled])
    return found


zero = kept(pair, "07_r1_zero", read_zero, len(questions), fresh=RECOMPUTE)

# %% [markdown]
# How much likelier R1-Zero's names are than other names, in each model, and the difference between the models:

# %%
habit = {
    (role, place): zero[f"{role} {place} think"] - zero[f"{role} {place} plan"]
    for role in members
    for place in ("open", "answer")
}
traces_of = {
    place: stats.paired(habit["distilled", place], habit["base", place]) for place in ("open", "answer")
}
F25 = findings.record(
    pair,
    "F25",
    notebook="07_think_tags",
    quantity="log P(<answer>) after </think> under the R1-Zero template, minus other tag names, "
    "distilled minus base",
    unit="nats",
    rules=[findings.Part("difference of differences", traces_of["answer"], findings.Rule("above", 1.0))],
    control=("the base alone", stats.bootstrap(habit["base", "answer"])),
    sample="questions",
    details={"<think> after 'Assistant:', distilled minus base": traces_of["open"]},
)
Markdown(findings.sentence(F25))

# %%
rows = [(f"{label}: {'R1-Zero names' if think == 'think' else 'other names'}", stats.bootstrap(zero[f"{role} {place} {think}"]), figures.ROLE[role]) for place, label in (("open", "opens the thought"), ("answer", "opens the answer")) for think in ("think", "plan") for role in members]
title = f"R1-Zero's names against other names, distilled minus base: {traces_of['open'].estimate:+.1f} nats for <think>, {traces_of['answer'].estimate:+.1f} for <answer>"
fig = figures.interval_rows({"": rows}, title=title, unit="log P of the tag (nats)")
figures.save_figure(fig, "07_r1_zero", pair=pair.name, note=f"n = {len(questions)} questions, confirm; blue base, orange distilled")

# %% [markdown]
# **Figure 12: tags under R1-Zero's template and under the same template with other names.** Blue the base, orange the distilled model. The two names differ in tokens and frequency, so only the difference between the models counts.

# %% [markdown]
# **What it does not show.** Where a habit comes from: a model trained on `<think>` in any template can like it here.

# %% [markdown]
# ## Try it
#
# Build an ending from its parts: P(stop), the next token and the continuation of both models. Figures 1, 3 and 4 are the same for readers without a kernel.

# %%
explorers.endings_explorer(pair, questions[0], materials[0])

# %% [markdown]
# ## Summary
#
# The sentences below are printed from this run's ledger.

# %%
Markdown(findings.claim(pair.name, "F21", "F22", "F23", "F24", "F25"))

# %% [markdown]
# Back: [06_steering](06_steering.ipynb). The whole table of findings: `data/<pair>/findings.json`.
