"""Two towers that turn queries and documents into vectors of one space; the towers may be one and the same."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, MT5EncoderModel, T5EncoderModel, UMT5EncoderModel

from research.errors import UserError
from research.models.first_token import keep_first_token
from research.models.folder import load_transformer, own_length, padded_length, position_count, stretches, unreadable
from research.models.pooling import pool
from research.models.settings import ROLES, EncoderSettings, read_settings
from research.models.sources import read_config, weight_files

ENCODER_HALVES = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}
ACTIVATIONS = {"identity": nn.Identity, "tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}


class TextEncoder(nn.Module):
    """A Hugging Face encoder (or decoder, with last-token pooling), pooled, projected, normalised.

    Args:
        transformer: any model whose output has `last_hidden_state`.
        tokenizer: the model's own tokenizer.
        settings: pooling, prompts, lengths; the lengths are filled in from the model where None.
        dense: layers between pooling and normalisation.
    """

    def __init__(self, transformer: nn.Module, tokenizer, settings: EncoderSettings, dense: nn.Module | None = None):
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.dense = dense or nn.Identity()
        self.positions = position_count(transformer)
        self.settings = _with_lengths(settings, self.positions, tokenizer)
        if settings.pooling == "cls" and settings.include_prompt:
            keep_first_token(transformer)

    @property
    def dim(self) -> int:
        return self.settings.dense[-1].out_features if self.settings.dense else self.transformer.config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_tokens: int = 0) -> Tensor:
        """Embeddings of a batch.

        Args:
            input_ids: (B, T) padded on either side.
            attention_mask: (B, T) 1 for real tokens, 0 for padding.
            prompt_tokens: leading tokens to leave out of the pooling.

        Returns:
            (B, D) float32, of norm 1 where settings.normalize.
        """
        input_ids, attention_mask = _pad_right(input_ids, attention_mask)
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state  # (B, T or 1, H)
        if prompt_tokens:
            attention_mask = attention_mask.clone()
            attention_mask[:, :prompt_tokens] = 0
        embedding = self.dense(pool(hidden, attention_mask, self.settings.pooling))  # (B, D)
        return nn.functional.normalize(embedding, dim=-1) if self.settings.normalize else embedding

    def tokenize(self, texts: list[str], role: str) -> list[list[int]]:
        """Token ids with prompt and special tokens, cut to the role's length, not padded."""
        prompt = self.settings.prompt(role)
        texts = [prompt + text for text in texts]
        if self.settings.lower_case:
            texts = [text.lower() for text in texts]
        ids: list[list[int]] = []
        for part in stretches([len(text) for text in texts]):
            ids += self.tokenizer(texts[part], truncation=True, max_length=self.settings.max_length(role), padding=False,
                                  return_attention_mask=False, return_token_type_ids=False)["input_ids"]  # fmt: skip
        return ids

    def prompt_tokens(self, role: str) -> int:
        """Leading tokens that pooling leaves out: the prompt and what the tokenizer puts before it."""
        prompt = self.settings.prompt(role)
        if self.settings.include_prompt or not prompt:
            return 0
        ids = self.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)  # a closing [SEP] is not part of the prompt

    def padded_length(self, length: int) -> int:
        """Tokens that a row of `length` takes in a batch."""
        return padded_length(length, self.positions)

    def collate(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(B, T) input_ids and attention_mask, padded on the right.

        Always on the right, whatever the tokenizer prefers: absolute positions then count from the first real token,
        and a causal model never sees the padding.
        """
        longest = self.padded_length(max(map(len, ids)))
        pad = self.tokenizer.pad_token_id or 0
        input_ids = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
        lengths = torch.tensor([len(row) for row in ids]).unsqueeze(1)  # (B, 1)
        return input_ids, (torch.arange(longest) < lengths).long()


class DualEncoder(nn.Module):
    """A query tower and a document tower. With one shared tower both attributes are the same module."""

    def __init__(self, query: TextEncoder, doc: TextEncoder):
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

    def tower(self, role: str) -> TextEncoder:
        return self.query if role == "query" else self.doc


def load_encoder(folder: Path, precision: str = "fp32", **settings: object) -> TextEncoder:
    """One tower, in eval mode, on the CPU.

    Raises:
        UserError: no safetensors, damaged or incomplete weights, an unsupported module.
    """
    architectures = read_config(folder / "config.json").get("architectures") or []
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        raise UserError(f"model folder {folder} is a cross-encoder ({architectures[0]}): it scores pairs and has no "
                        "embeddings of its own; expected an encoder here. Name it as --reranker.")  # fmt: skip
    merged = read_settings(folder).override(**settings)
    transformer, tokenizer = load_transformer(folder, _architecture(folder), precision)
    return TextEncoder(transformer, tokenizer, merged, _load_dense(folder, merged)).eval()


def _architecture(folder: Path):
    """AutoModel, or the encoder half of an encoder-decoder, as sentence-transformers takes it."""
    config = read_config(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ENCODER_HALVES:
        if not config.get("is_encoder_decoder"):
            return AutoModel
        raise UserError(f"model folder {folder} is the encoder-decoder {kind!r}; supported of these are "
                        f"{', '.join(ENCODER_HALVES)}. Name an encoder.")  # fmt: skip
    return ENCODER_HALVES[kind]


def _pad_right(input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move padding behind the real tokens: absolute positions then count from the first real token, whatever the model."""
    if (mask[:, 1:] <= mask[:, :-1]).all():
        return input_ids, mask
    order = mask.argsort(dim=1, descending=True, stable=True)  # (B, T)
    return input_ids.gather(1, order), mask.gather(1, order)


def _load_dense(folder: Path, settings: EncoderSettings) -> nn.Module:
    layers: list[nn.Module] = []
    for dense in settings.dense:
        linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
        (file,) = weight_files(folder / dense.folder)
        try:
            weights = load_file(file)
            linear.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise unreadable(folder, error) from error
        layers += [linear, ACTIVATIONS[dense.activation]()]
    return nn.Sequential(*layers)


def _with_lengths(settings: EncoderSettings, positions: int, tokenizer) -> EncoderSettings:
    """Fill in the model's own limits; refuse lengths that its position table does not have."""
    own = own_length(positions, tokenizer)
    lengths = {}
    for role in ROLES:
        asked = settings.max_length(role)
        if asked is not None and not 4 <= asked <= positions:
            raise UserError(f"max length {asked} ({role}) does not fit the model; expected 4 to {positions} tokens. Pass "
                            "--max-length within that.")  # fmt: skip
        lengths[f"{role}_max_length"] = asked or own
    return settings.override(**lengths)
