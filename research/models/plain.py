"""Compares plain sentence-transformers with this tool on a saved encoder or reranker, on texts of every length.

A role has a length and a prompt of its own. `encode_query` and `encode_document` follow both; `encode` knows no role.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from research.models.cross_encoder import Reranker, load_cross_encoder
from research.models.dual_encoder import DualEncoder, Encoder
from research.models.folder import quiet
from research.models.guard import listening
from research.models.saving import TASKS
from research.models.stack import ROLES

TOLERANCE = 1e-4  # of an embedding's length: float32 rounds in other places in another batch
LONGEST = 1024  # tokens of a text that is compared: longer ones take minutes on a CPU


class Comparison(NamedTuple):
    """Embeddings of one folder by this tool and by plain sentence-transformers.

    Attributes:
        by_role: role → the largest distance between two embeddings of a text, over their length, by encode_query and
            encode_document.
        without_role: role → the least cosine between ours and those of `encode`, which knows no role.
        lengths: role → tokens that a text is cut at.
    """

    by_role: dict[str, float]
    without_role: dict[str, float]
    lengths: dict[str, int | None]

    @property
    def difference(self) -> float:
        """Return the largest difference of by_role."""
        return max(self.by_role.values())

    @property
    def is_equal(self) -> bool:
        """Return whether the two agree but for rounding."""
        return self.difference <= TOLERANCE

    def sentences(self) -> list[str]:
        """Write what a reader must know: whether the two agree, and which method must not be used."""
        shown = " and ".join(f"encode_{TASKS[role]}" for role in self.by_role)
        if self.is_equal:
            sentences = [
                f"plain sentence-transformers' {shown} give these embeddings (to {self.difference:.1g} of their length)"
            ]
        else:
            worst = ", ".join(f"encode_{TASKS[role]} by {value:.2g}" for role, value in self.by_role.items())
            sentences = [f"plain sentence-transformers differs from these embeddings ({worst} of their length)"]
        for role, cosine in self.without_role.items():
            if cosine < 1 - TOLERANCE:
                sentences.append(
                    f"encode, which knows no role, gives other embeddings of {'queries' if role == 'query' else 'documents'} "
                    f"(cosine down to {cosine:.2f}): it leaves out the role's prompt and its length of {self.lengths[role]} "
                    f"tokens; use encode_{TASKS[role]}"
                )
        return sentences


@torch.no_grad()
def compare(folder: Path) -> Comparison:
    """Load a saved dual encoder by this tool and by plain sentence-transformers, and encode the same texts by both.

    Args:
        folder: as save_dual_encoder writes it.
    """
    ours = DualEncoder.load(folder)
    with quiet(), listening([]):
        theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False, local_files_only=True)
    options = {"show_progress_bar": False, "batch_size": 1}
    by_role, without_role = {}, {}
    for role, encode in (("query", theirs.encode_query), ("doc", theirs.encode_document)):
        texts = texts_of_all_lengths(ours, role)
        expected = np.stack([_embed(ours.tower(role), text, role) for text in texts])
        norms = np.linalg.norm(expected, axis=1)
        by_role[role] = float((np.linalg.norm(encode(texts, **options) - expected, axis=1) / norms).max())
        other = theirs.encode(texts, **options)
        without_role[role] = float(((other * expected).sum(1) / norms / np.linalg.norm(other, axis=1)).min())
    return Comparison(by_role, without_role, {role: ours.tower(role).settings.max_length(role) for role in ROLES})


class Scores(NamedTuple):
    """Scores of one folder by this tool and by plain sentence-transformers' CrossEncoder.

    Attributes:
        difference: the largest of a pair, over the largest score (1 where all are smaller).
        columns: numbers that `predict` gives for a pair.
        relevant: of two columns, the one that says relevant.
    """

    difference: float
    columns: int
    relevant: int

    @property
    def is_equal(self) -> bool:
        """Return whether the two agree but for rounding."""
        return self.difference <= TOLERANCE

    def sentences(self) -> list[str]:
        """Write what a reader must know: whether the two agree, and how a score is to be read."""
        call = "CrossEncoder.predict(pairs, activation_fn=torch.nn.Identity())"
        if not self.is_equal:
            return [f"plain sentence-transformers' {call} differs from these scores (by {self.difference:.2g} of the largest)"]
        gives = f"plain sentence-transformers' {call} gives these scores (to {self.difference:.1g} of the largest)"
        if self.columns == 1:
            return [gives]
        return [f"{gives}, as two columns: the score of a pair is column {self.relevant} minus column {1 - self.relevant}"]


@torch.no_grad()
def compare_reranker(folder: Path) -> Scores:
    """Load a saved reranker by this tool and by plain sentence-transformers, and score the same pairs by both.

    Args:
        folder: as save_cross_encoder writes it, or any that `load_cross_encoder` takes.
    """
    ours = load_cross_encoder(folder)
    with quiet(), listening([]):
        theirs = CrossEncoder(str(folder), device="cpu", trust_remote_code=False, local_files_only=True)
    pairs = _pairs_of_all_lengths(ours)
    singly = [ours(**ours.collate(ours.tokenize([query], [doc]), [0])) for query, doc in pairs]
    expected = torch.cat(singly).float()
    options = {"activation_fn": torch.nn.Identity(), "convert_to_tensor": True, "show_progress_bar": False, "batch_size": 1}
    found = theirs.predict(pairs, **options).float().reshape(len(pairs), -1)
    difference = (ours.relevance(found) - expected).abs().max() / expected.abs().max().clamp(min=1)
    return Scores(float(difference), found.shape[1], ours.relevance.relevant)


def _pairs_of_all_lengths(model: Reranker) -> list[tuple[str, str]]:
    """Make pairs that fit, and pairs that are cut: with a longer document, a longer query, and both equally long."""
    words, limit = _words(model.tokenizer), min(model.max_length, LONGEST)
    sizes = [(3, 5), (3, limit + 8), (limit + 8, 3), (limit, limit)]
    return [
        tuple(" ".join(words[(i + start) % len(words)] for i in range(size)) for start, size in enumerate(pair))
        for pair in sizes
    ]


def texts_of_all_lengths(model: DualEncoder, role: str) -> list[str]:
    """Make texts from the tokenizer's own words: a short one, and one just above each role's length."""
    words = _words(getattr(model.tower(role), "tokenizer", None))
    lengths = {model.tower(name).settings.max_length(name) for name in ROLES}
    sizes = [3, *(min(length, LONGEST) + 8 for length in sorted(lengths - {None}))]
    return [" ".join(words[i % len(words)] for i in range(size)) for size in sizes]


def _words(tokenizer: object) -> list[str]:
    """Take words evenly from a vocabulary; English ones if it has none."""
    tokens = sorted(tokenizer.get_vocab()) if hasattr(tokenizer, "get_vocab") else []
    words = [token for token in (token.lstrip("▁Ġ") for token in tokens) if token.isalpha() and len(token) > 1]
    words = words[:: max(1, len(words) // 50)]
    return words if len(words) > 2 else ["the", "quick", "brown", "fox"]


def _embed(encoder: Encoder, text: str, role: str) -> np.ndarray:
    features = encoder.features(encoder.tokenize([text], role))
    return encoder(**features, prompt_tokens=encoder.prompt_tokens(role))[0].float().numpy()
