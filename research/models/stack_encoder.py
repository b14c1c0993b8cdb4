"""Runs any sentence-transformers stack that gives one embedding for each text, through the library's own forward."""

from typing import NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from torch import Tensor, nn

from research.errors import UserError
from research.models.cut import full_rows
from research.models.folder import NO_LIMIT, position_count
from research.models.settings import EncoderSettings
from research.models.stack import ROLES, calls

CHARACTERS = 3  # bytes of a token, about: batches are laid by an estimate, the library tokenises each batch itself


class Text:
    """A text that is tokenised when its batch is made."""

    def __init__(self, text: str, role: str, tokens: int):
        self.text, self.role, self.tokens = text, role, tokens
        self.cut = False  # known when its batch is made

    def __len__(self) -> int:
        return self.tokens


class Call(NamedTuple):
    """The library's arguments for a role."""

    prompt: str
    task: str
    options: dict


class StackEncoder(nn.Module):
    """An encoder with the same interface as TextEncoder.

    Args:
        stack: as sentence-transformers loaded it.
        settings: of it, with the user's lengths.
        dim: of an embedding.
        singly: encode each text in a batch of its own, since padding changes the stack's numbers.

    Raises:
        UserError: a length that a module cannot be told.
    """

    def __init__(self, stack: SentenceTransformer, settings: EncoderSettings, dim: int, singly: bool = False):
        super().__init__()
        self.stack, self.dim, self.singly = stack, dim, singly
        role_calls, lengths, self.calls, self.limits = calls(stack), {}, {}, {}
        for role in ROLES:
            first, limit = input_module(stack, role_calls[role]["task"]), settings.max_length(role)
            positions, own_limit = NO_LIMIT, None
            if isinstance(first, Transformer):
                positions = position_count(first.model)
                own_limit = min(positions, first.max_seq_length)
                own_limit = None if own_limit >= NO_LIMIT else own_limit
                if limit is None and positions < first.max_seq_length < NO_LIMIT:
                    limit = positions  # the library counts RoBERTa's rows for padding as well
            elif limit is not None:
                raise UserError(
                    f"max length {limit} ({role}), but {type(first).__name__} reads texts whole; expected a "
                    "Transformer to tell it. Leave the length out."
                )
            self.limits[role] = positions
            lengths[role] = checked_length(limit, role, positions, own_limit)
            options = {} if limit is None else {"processing_kwargs": {"text": {"max_length": limit}}}
            self.calls[role] = Call(settings.prompt(role), role_calls[role]["task"], options)
        self.settings = settings.override(**{f"{role}_max_length": value for role, value in lengths.items()})

    @property
    def transformer(self) -> nn.Module:
        """Return the only Hugging Face model of the stack.

        Raises:
            UserError: there are none or several.
        """
        models = [module for module in self.stack.modules() if isinstance(module, Transformer)]
        if len(models) != 1:
            raise UserError(
                f"the model has {len(models)} transformers ({self.settings.modules}); expected one to put an "
                "adapter on. Leave adapter out to train all weights."
            )
        return models[0].model

    def tokenize(self, texts: list[str], role: str) -> list[Text]:
        """Return the texts, each with an estimate of its tokens; 0 for a blank one to which the tokenizer adds none."""
        prompt, limit = self.settings.prompt(role), self.settings.max_length(role) or NO_LIMIT
        first = input_module(self.stack, self.calls[role].task)
        plain = isinstance(first, Transformer) and "message" not in first.modality_config
        sizes = [
            0
            if plain and not (prompt + text).strip() and not first.tokenizer(prompt + text)["input_ids"]
            else len((prompt + text).encode("utf-8", "surrogatepass")) // CHARACTERS + 2
            for text in texts
        ]
        return [Text(text, role, min(size, limit)) for text, size in zip(texts, sizes, strict=True)]

    def prompt_tokens(self, role: str) -> int:
        """Return 0: the library counts these tokens itself."""
        return 0

    def padded_length(self, length: int) -> int:
        """Return how many tokens a text of `length` takes in a batch; no limit where each is encoded alone."""
        return NO_LIMIT if self.singly else length

    def features(self, rows: list[Text]) -> dict:
        """Make a batch by the library's preprocess, with the role in it."""
        role = rows[0].role
        call = self.calls[role]
        features = self.stack.preprocess([row.text for row in rows], prompt=call.prompt or None, task=call.task, **call.options)
        first, limit = input_module(self.stack, call.task), self.settings.max_length(role)
        for i in full_rows(features, limit if isinstance(first, Transformer) else None):
            # a template may add any tokens: a full row of it counts as cut
            plain = "message" not in first.modality_config
            rows[i].cut = not plain or len(first.tokenizer(call.prompt + rows[i].text, verbose=False)["input_ids"]) > limit
        return dict(features) | {"role": role}

    def longest(self, role: str) -> int:
        """Return how many tokens of a text the model can read at most; NO_LIMIT where it knows none."""
        return self.limits[role]

    def forward(self, role: str, prompt_tokens: int = 0, **features) -> Tensor:
        """Compute (B, D) float32 embeddings (float64 stays) of a batch that `features` made."""
        embedding = self.stack(features, task=self.calls[role].task)["sentence_embedding"]
        embedding = embedding if embedding.dtype == torch.float64 else embedding.float()
        return embedding if self.settings.truncate_dim is None else embedding[:, : self.settings.truncate_dim]


def input_module(stack: SentenceTransformer, task: str) -> nn.Module:
    """Return the module that reads the texts of a role."""
    first = stack[0]
    while isinstance(first, Router):
        first = first.sub_modules[first._resolve_route(task=task, modality="text")][0]
    return first


def checked_length(wanted: int | None, role: str, positions: int, default: int | None) -> int | None:
    """Return a role's length in tokens: the user's value if it fits the model, or the model's default.

    Raises:
        UserError: a length that the position table does not have.
    """
    if wanted is not None and not 4 <= wanted <= positions:
        raise UserError(
            f"max length {wanted} ({role}) does not fit the model; expected 4 to {positions} tokens. Pass "
            "--max-length within that."
        )
    return wanted or default


def checked_lengths(settings: EncoderSettings, positions: int, default: int) -> EncoderSettings:
    """Return the settings with the model's own limits filled in."""
    lengths = {f"{role}_max_length": checked_length(settings.max_length(role), role, positions, default) for role in ROLES}
    return settings.override(**lengths)
