"""A query and a document read together: full attention between them, one score out."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from research.errors import UserError
from research.models.first_token import keep_first_token
from research.models.folder import load_transformer, own_length, padded_length, position_count, stretches
from research.models.sources import read_config


class CrossEncoder(nn.Module):
    """A Hugging Face sequence classifier with one label.

    Args:
        transformer: any model whose output has `logits` (B, 1).
        tokenizer: the model's own; pairs keep their token types.
        max_length: tokens of a pair, special tokens included; the longer text is cut first. None takes the model's own.

    Raises:
        UserError: more labels than one, or a length that the model cannot take.
    """

    def __init__(self, transformer: nn.Module, tokenizer, max_length: int | None = None):
        super().__init__()
        labels = transformer.config.num_labels
        if labels != 1:
            raise UserError(
                f"the reranker has {labels} labels; expected 1, a relevance score. Name a model trained to rank."
            )
        self.positions = position_count(transformer)
        if max_length is not None and not 8 <= max_length <= self.positions:
            raise UserError(f"max length {max_length} of a pair does not fit the reranker; expected 8 to {self.positions} "
                            "tokens. Pass a --reranker-max-length within that.")  # fmt: skip
        keep_first_token(transformer)
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.max_length = max_length or own_length(self.positions, tokenizer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Scores of a batch of pairs.

        Args:
            input_ids: (B, T) padded on the right.
            attention_mask: (B, T) 1 for real tokens.
            token_type_ids: (B, T) which text a token is of, for models that tell them apart.

        Returns:
            (B,) float32 logits (float64 stays): a sigmoid would saturate into ties, and bf16 has them from the start.
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types).logits  # (B, 1)
        return (logits if logits.dtype == torch.float64 else logits.float()).squeeze(-1)

    def tokenize(self, queries: list[str], docs: list[str]) -> dict[str, list[list[int]]]:
        """Token ids (and token types, where the tokenizer gives them) of query-document pairs, not padded."""
        pairs: dict[str, list[list[int]]] = {}
        for part in stretches([len(query) + len(doc) for query, doc in zip(queries, docs, strict=True)]):
            encoded = self.tokenizer(queries[part], docs[part], truncation="longest_first", max_length=self.max_length,
                                     padding=False, return_attention_mask=False)  # fmt: skip
            for name, rows in encoded.items():
                pairs.setdefault(name, []).extend(rows)
        return pairs

    def padded_length(self, length: int) -> int:
        """Tokens that a pair of `length` takes in a batch."""
        return padded_length(length, self.positions)

    def collate(self, pairs: dict[str, list[list[int]]], chosen: list[int]) -> dict[str, Tensor]:
        """The chosen pairs as (B, T) tensors, padded on the right."""
        rows = {name: [values[i] for i in chosen] for name, values in pairs.items()}
        longest = self.padded_length(max(map(len, rows["input_ids"])))
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        batch = {
            name: torch.tensor([row + [fill.get(name, 0)] * (longest - len(row)) for row in values])
            for name, values in rows.items()
        }
        lengths = torch.tensor([len(row) for row in rows["input_ids"]]).unsqueeze(1)  # (B, 1)
        return batch | {"attention_mask": (torch.arange(longest) < lengths).long()}


def load_cross_encoder(
    folder: Path, precision: str = "fp32", max_length: int | None = None, new_head: bool = False
) -> CrossEncoder:
    """A reranker, in eval mode, on the CPU.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.
        max_length: see CrossEncoder.
        new_head: an encoder without a head gets one of random weights, to be trained.

    Raises:
        UserError: the folder cannot be read, or holds no classifier of one label.
    """
    if not new_head and not has_head(folder):
        raise UserError(f"model folder {folder} has no head that scores pairs: it is an encoder, for --retriever; expected a "
                        "cross-encoder (…ForSequenceClassification in config.json). Name one, or train one from it with "
                        "`research fit -c configs/cross_encoder.yaml`.")  # fmt: skip
    transformer, tokenizer = load_transformer(
        folder, AutoModelForSequenceClassification, precision, new_head=new_head and not has_head(folder)
    )
    return CrossEncoder(transformer, tokenizer, max_length).eval()


def has_head(folder: Path) -> bool:
    """Whether the folder's model is a sequence classifier."""
    architectures = read_config(folder / "config.json").get("architectures") or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)
