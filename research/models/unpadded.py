"""The output of a sentence-transformers stack for a single text or pair, without padding: the reference for faster code.

Whether padding, a padding token or inputs that are left out change a number is tried on the model, not looked up in a list.
"""

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules.tokenizer import WordTokenizer
from torch import Tensor

TEXTS = ["a", "the quick brown fox"]  # of different lengths: the first is padded
PAIRS = [("a", "b"), ("what is it", "the quick brown fox")]
TOLERANCE = {"fp32": 3e-5, "bf16": 0.1}  # of the largest number; a token misread changes far more


@torch.no_grad()
def embeddings_alone(stack: SentenceTransformer) -> Tensor | None:
    """Compute (2, D) embeddings of `texts_for`, each in its own batch, without prompts; None of a model without numbers."""
    if any(parameter.is_meta for parameter in stack.parameters()):
        return None
    return torch.cat([embeddings_of(stack, [text]) for text in texts_for(stack)])


def texts_for(stack: SentenceTransformer) -> list[str]:
    """Return TEXTS; of a stack that knows whole words alone (WordEmbeddings) words of its own, else nothing would be padded."""
    tokenizer = getattr(stack[0], "tokenizer", None)
    if isinstance(stack[0], Transformer) or not isinstance(tokenizer, WordTokenizer):
        return TEXTS
    stop = {*getattr(tokenizer, "stop_words", ())}
    vocabulary = [word for word in tokenizer.get_vocab() if str(word).isalpha() and word not in stop][:5]
    return [vocabulary[0], " ".join(vocabulary[1:])] if len(vocabulary) > 2 else TEXTS


@torch.no_grad()
def embeddings_of(stack: SentenceTransformer, texts: list[str]) -> Tensor:
    """Compute (N, D) embeddings of a batch as the library computes it, as documents without a prompt."""
    task = "document" if any(isinstance(module, Router) for module in stack) else None  # a task may have a length of its own
    embeddings = stack(dict(stack.preprocess(texts, prompt=None, task=task)), task=task)["sentence_embedding"].float()
    return embeddings if stack.truncate_dim is None else embeddings[:, : stack.truncate_dim]


@torch.no_grad()
def scores_alone(stack: CrossEncoder, prompt: str | None) -> Tensor | None:
    """Compute (2, labels) scores of PAIRS, each in a batch of its own; None of a model without numbers."""
    if any(parameter.is_meta for parameter in stack.parameters()):
        return None
    return torch.cat([scores_of(stack, [pair], prompt) for pair in PAIRS])


@torch.no_grad()
def scores_of(stack: CrossEncoder, pairs: list[tuple[str, str]], prompt: str | None) -> Tensor:
    """Compute (N, labels) scores of a batch as the library computes it, before its activation."""
    return stack(dict(stack.preprocess(pairs, prompt=prompt)))["scores"].float()


def differs(reference: Tensor, other: Tensor, precision: str) -> bool:
    """Return whether two tensors differ by more than rounding."""
    if reference.shape != other.shape:
        return True
    if not reference.isfinite().all():
        return False  # damaged weights: said where a number is wanted
    scale = float(reference.abs().max()) or 1.0
    return not float((reference - other).abs().max()) <= TOLERANCE[precision] * scale
