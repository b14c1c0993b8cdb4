"""Two towers that turn queries and documents into vectors of one space; both may be the same module."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from torch import Tensor, nn

from research.errors import UserError
from research.models.contents import read_config
from research.models.cut import mark_cut
from research.models.first_token import keep_first_token
from research.models.folder import (
    DEFAULT_LENGTH,
    NO_LIMIT,
    default_length,
    padded_length,
    position_count,
    slices_within,
    unreadable,
)
from research.models.guard import module_paths
from research.models.library import float_projections, open_encoder
from research.models.pooling import pool
from research.models.settings import EncoderSettings, change, settings_of
from research.models.stack import ROLES, is_known, takes_ids_alone
from research.models.stack_encoder import StackEncoder, checked_lengths
from research.models.unpadded import TEXTS, differs, embeddings_alone, embeddings_of, texts_for
from research.progress import say


class TextEncoder(nn.Module):
    """A Hugging Face model with pooling, projection and normalisation: the same numbers as sentence-transformers, faster.

    Args:
        stack: as sentence-transformers loaded it; its modules are this encoder's own, and are saved with what they become.
        settings: of that stack; the lengths are filled in from the model where None.
    """

    def __init__(self, stack: SentenceTransformer, settings: EncoderSettings):
        super().__init__()
        self.library = (stack,)  # in a tuple: its parameters are registered below, under the names that checkpoints have
        self.transformer, self.tokenizer = stack[0].model, stack[0].tokenizer
        dense = [part for module in stack if type(module) is Dense for part in (module.linear, module.activation_function)]
        self.dense = nn.Sequential(*dense) if dense else nn.Identity()
        self.dense.float()
        self.positions = position_count(self.transformer)
        self.settings = checked_lengths(settings, self.positions, default_length(self.positions, self.tokenizer))
        if settings.pooling == "cls" and settings.include_prompt:
            keep_first_token(self.transformer)

    @property
    def dim(self) -> int:
        """Return the dimension of an embedding."""
        width = self.settings.dense[-1].out_features if self.settings.dense else self.library[0][1].embedding_dimension
        return min(width, self.settings.truncate_dim or width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_tokens: int = 0, padded_right: bool = False) -> Tensor:
        """Compute the embeddings of a batch.

        Args:
            input_ids: (B, T) padded on either side.
            attention_mask: (B, T) 1 for real tokens, 0 for padding.
            prompt_tokens: leading tokens to leave out of the pooling.
            padded_right: whether all padding stands on the right, as `collate` puts it; False looks, and waits for the device.

        Returns:
            (B, D) float32, of norm 1 where settings.normalize and nothing is cut off.
        """
        if not padded_right:
            input_ids, attention_mask = _pad_right(input_ids, attention_mask)
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T or 1, H)
        if prompt_tokens:
            attention_mask = attention_mask.clone()
            attention_mask[:, :prompt_tokens] = 0
        embedding = self.dense(pool(hidden, attention_mask, self.settings.pooling))  # (B, D)
        if self.settings.normalize:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return embedding if self.settings.truncate_dim is None else embedding[:, : self.settings.truncate_dim]

    def tokenize(self, texts: list[str], role: str) -> list[list[int]]:
        """Tokenise texts with prompt and special tokens, cut to the role's length (as CutRow), without padding."""
        prompt, limit = self.settings.prompt(role), self.settings.max_length(role)
        texts = [prompt + text for text in texts]
        ids: list[list[int]] = []
        for part in slices_within([len(text) for text in texts]):
            some = texts[part]
            encoded = self.tokenizer(
                some, truncation=True, max_length=limit, padding=False, return_attention_mask=False, return_token_type_ids=False
            )
            ids += mark_cut(encoded["input_ids"], encoded.encodings, limit, lambda i, some=some: self._whole(some[i]))
        return ids

    def longest(self, role: str) -> int:
        """Return how many tokens of a text the model can read at most; NO_LIMIT where it knows none."""
        return self.positions

    def _whole(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def prompt_tokens(self, role: str) -> int:
        """Count the leading tokens that pooling leaves out: the prompt and what the tokenizer puts before it."""
        prompt = self.settings.prompt(role)
        if self.settings.include_prompt or not prompt:
            return 0
        ids = self.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)  # a closing [SEP] is not part of the prompt

    def padded_length(self, length: int) -> int:
        """Return how many tokens a row of `length` takes in a batch."""
        return padded_length(length, self.positions)

    def collate(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Make (B, T) input_ids and attention_mask, padded on the right.

        Always on the right, whatever the tokenizer prefers: absolute positions then count from the first real token,
        and a causal model never sees the padding.
        """
        longest = self.padded_length(max(map(len, ids)))
        pad = self.tokenizer.pad_token_id or 0
        input_ids = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
        lengths = torch.tensor([len(row) for row in ids]).unsqueeze(1)  # (B, 1)
        return input_ids, (torch.arange(longest) < lengths).long()

    def features(self, ids: list[list[int]]) -> dict[str, Tensor]:
        """Return `collate`'s result as the arguments of `forward`."""
        input_ids, attention_mask = self.collate(ids)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "padded_right": True}


Encoder = TextEncoder | StackEncoder


class DualEncoder(nn.Module):
    """A query tower and a document tower. With one shared tower both attributes are the same module."""

    def __init__(self, query: Encoder, doc: Encoder):
        super().__init__()
        self.query = query
        self.doc = doc

    @classmethod
    def load(cls, folder: Path, precision: str = "fp32", separate: bool = False, **settings: object) -> "DualEncoder":
        """Read a model folder; a folder with `query/` and `doc/` has separate towers.

        Args:
            folder: as `sources.resolve` gives it.
            precision: "fp32" or "bf16", of the weights.
            separate: make two towers of one folder, which start equal.
            settings: values of EncoderSettings to use instead of the folder's (None keeps the folder's).

        Raises:
            UserError: the folder cannot be read, or a setting does not fit the model.
        """
        if all((folder / role).is_dir() for role in ROLES):
            return cls(*(load_encoder(folder / role, precision, **settings) for role in ROLES))
        shared = load_encoder(folder, precision, **settings)
        return cls(shared, load_encoder(folder, precision, **settings) if separate else shared)

    def tower(self, role: str) -> Encoder:
        """Return the encoder of a role."""
        return self.query if role == "query" else self.doc


def load_encoder(
    folder: Path,
    precision: str = "fp32",
    query_max_length: int | None = None,
    doc_max_length: int | None = None,
    **changes: object,
) -> Encoder:
    """Load one tower, in eval mode, on the CPU.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.
        query_max_length, doc_max_length: tokens of a role; None takes the folder's.
        changes: see `settings.change`.

    Raises:
        UserError: whatever sentence-transformers cannot read, or search cannot follow.
    """
    config = read_config(folder / "config.json") if (folder / "config.json").exists() else {}
    architectures = config.get("architectures") or []
    if not (folder / "modules.json").exists() and any(
        str(name).endswith("ForSequenceClassification") for name in architectures
    ):
        raise UserError(
            f"model folder {folder} is a cross-encoder ({architectures[0]}): it scores pairs and has no "
            "embeddings of its own; expected an encoder here. Name it as --reranker."
        )
    stack = open_encoder(folder, precision)
    change(stack, folder, **changes)
    try:
        alone = embeddings_alone(stack)
    except Exception as error:  # the library's modules raise what they like for a stack that does not fit together
        raise unreadable(folder, error) from error
    known = is_known(stack) and takes_ids_alone(stack[0])
    paths = module_paths(folder)
    _say_of_prompts(stack, folder)
    settings = settings_of(stack, folder, known, paths)
    lengths = {"query_max_length": query_max_length, "doc_max_length": doc_max_length}
    if known:
        if precision != "fp32" and alone is not None:
            float_projections(stack, folder)
        encoder = TextEncoder(stack, settings.override(**lengths)).eval()
        if alone is None or not differs(alone, _embeddings(encoder), precision):
            if doc_max_length is None and min(encoder.positions, encoder.tokenizer.model_max_length) >= NO_LIMIT:
                say(f"{folder} has no limit of its own: texts are cut at {DEFAULT_LENGTH} tokens (--max-length changes it)")
            return encoder
        # the model needs more than ids and mask: the library runs it, on a stack that was not prepared for our code
        stack = open_encoder(folder, precision)
        change(stack, folder, **changes)
        settings = settings_of(stack, folder, False, paths)
    try:
        singly = alone is not None and differs(alone, embeddings_of(stack, texts_for(stack)), precision)
    except Exception as error:  # as above: for a batch
        raise unreadable(folder, error) from error
    if singly:
        say(f"{folder}: padding changes its embeddings, so every text is encoded by itself")
    dim = stack.get_embedding_dimension() if alone is None else alone.shape[1]
    return StackEncoder(stack, settings.override(**lengths), dim, singly).eval()


def _say_of_prompts(stack: SentenceTransformer, folder: Path) -> None:
    unused = [name for name in ("passage", "corpus") if stack.prompts.get(name)]
    if unused and not stack.prompts.get("document"):
        say(
            f"{folder} has a prompt {unused[0]!r}, which sentence-transformers leaves out where none is named document; "
            "--doc-prompt sets it"
        )


@torch.no_grad()
def _embeddings(encoder: TextEncoder) -> Tensor:
    """Embed the texts of `unpadded` in one batch, without prompts."""
    rows = encoder.tokenizer(TEXTS, truncation=True)["input_ids"]  # at the library's length, not the user's
    return encoder(*encoder.collate(rows))


def _pad_right(input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move padding behind the real tokens: absolute positions then count from the first real token, whatever the model."""
    if (mask[:, 1:] <= mask[:, :-1]).all():
        return input_ids, mask
    order = mask.argsort(dim=1, descending=True, stable=True)  # (B, T)
    return input_ids.gather(1, order), mask.gather(1, order)
