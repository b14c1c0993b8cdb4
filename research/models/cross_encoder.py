"""A model that reads query and document together, with full attention between them, and gives one score."""

from pathlib import Path

import torch
from sentence_transformers import CrossEncoder as Stack
from torch import Tensor, nn

from research.errors import UserError
from research.models.contents import ADAPTER_CONFIG, has_own_weights, read_config
from research.models.cut import mark_cut
from research.models.first_token import keep_first_token
from research.models.folder import default_length, padded_length, position_count, slices_within, unreadable
from research.models.library import open_reranker
from research.models.relevance import Relevance
from research.models.sources import adapter_base
from research.models.stack import is_plain
from research.models.stack_reranker import StackReranker, checked_length, prompt_of
from research.models.unpadded import PAIRS, differs, scores_alone, scores_of
from research.progress import say


class CrossEncoder(nn.Module):
    """A Hugging Face sequence classifier with the same scores as sentence-transformers gives, computed faster.

    Args:
        stack: as sentence-transformers loaded it: one Transformer module.
        max_length: tokens of a pair, special tokens included; the longer text is cut first. None takes the model's own.

    Raises:
        UserError: labels that are no relevance, or a length that the model cannot take.
    """

    def __init__(self, stack: Stack, max_length: int | None = None):
        super().__init__()
        self.library = (stack,)  # in a tuple: its parameters are registered below, under the names that checkpoints have
        self.transformer, self.tokenizer = stack[0].model, stack[0].tokenizer
        self.relevance = Relevance(self.transformer.config)
        self.positions = position_count(self.transformer)
        self.max_length = checked_length(max_length, self.positions) or default_length(self.positions, self.tokenizer)
        self.prompt = prompt_of(stack)
        config_pad = self.transformer.config.get_text_config().pad_token_id
        self.pad = next(i for i in (self.tokenizer.pad_token_id, config_pad, 0) if i is not None)

    @property
    def identity(self) -> dict:
        """Return the settings that scores depend on besides folder, length and precision; {} for those of earlier versions."""
        plain = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        return {} if self.pad == plain and self.relevance.labels == 1 else {"pad": self.pad, "labels": self.relevance.labels}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the scores of a batch of pairs.

        Args:
            input_ids: (B, T) padded on the right.
            attention_mask: (B, T) 1 for real tokens.
            token_type_ids: (B, T) which text a token is of, for models that tell them apart.

        Returns:
            (B,) float32 logits (float64 stays): a sigmoid would saturate into ties, and bf16 has them from the start.
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types).logits  # (B, labels)
        return self.relevance(logits)

    def tokenize(self, queries: list[str], docs: list[str]) -> dict[str, list[list[int]]]:
        """Tokenise query-document pairs, without padding: token ids (CutRow of cut pairs), and token types if the tokenizer
        gives them."""
        queries = [self.prompt + query for query in queries] if self.prompt else queries
        pairs: dict[str, list[list[int]]] = {}
        for part in slices_within([len(query) + len(doc) for query, doc in zip(queries, docs, strict=True)]):
            some = queries[part], docs[part]
            encoded = self.tokenizer(
                *some, truncation="longest_first", max_length=self.max_length, padding=False, return_attention_mask=False
            )
            mark_cut(encoded["input_ids"], encoded.encodings, self.max_length, lambda i, some=some: self._whole(some, i))
            for name, rows in encoded.items():
                pairs.setdefault(name, []).extend(rows)
        return pairs

    def _whole(self, some: tuple[list[str], list[str]], i: int) -> int:
        return len(self.tokenizer(some[0][i], some[1][i], verbose=False)["input_ids"])

    def padded_length(self, length: int) -> int:
        """Return how many tokens a pair of `length` takes in a batch."""
        return padded_length(length, self.positions)

    def collate(self, pairs: dict[str, list[list[int]]], chosen: list[int]) -> dict[str, Tensor]:
        """Make (B, T) tensors of the chosen pairs, padded on the right."""
        rows = {name: [values[i] for i in chosen] for name, values in pairs.items()}
        longest = self.padded_length(max(map(len, rows["input_ids"])))
        fill = {"input_ids": self.pad}
        batch = {
            name: torch.tensor([row + [fill.get(name, 0)] * (longest - len(row)) for row in values])
            for name, values in rows.items()
        }
        lengths = torch.tensor([len(row) for row in rows["input_ids"]]).unsqueeze(1)  # (B, 1)
        return batch | {"attention_mask": (torch.arange(longest) < lengths).long()}

    def choose_pad(self, alone: Tensor, precision: str) -> bool:
        """Find a padding token with which a padded pair has the score that it has alone, and tell the model.

        A classifier on a decoder reads the last token that is not its padding token: another one would be read as text.

        Args:
            alone: (2, labels) scores of PAIRS, each in a batch of its own.

        Returns:
            Whether there is one.
        """
        tokenizer, configured = self.tokenizer, self.transformer.config.get_text_config().pad_token_id
        rows = self.transformer.get_input_embeddings().num_embeddings
        spare = range(len(tokenizer), rows)  # rows of the embedding table that no text has
        candidates = dict.fromkeys((*spare[-1:], *tokenizer.all_special_ids))
        # the tokenizer's own; the one that the model looks for; and only then one that it has to be told
        for pad, tell in (
            (self.pad, configured),
            (configured, configured),
            (self.pad, self.pad),
            *((i, i) for i in candidates),
        ):
            if pad is None or not 0 <= pad < rows:
                continue
            self.pad = pad
            self._set_pad(tell)
            try:
                if not differs(alone, self._scores_in_a_batch(), precision):
                    return True
            except ValueError:  # transformers: "Cannot handle batch sizes > 1 if no padding token is defined"
                continue
        self._set_pad(configured)
        return False

    def _set_pad(self, pad: int | None) -> None:
        for config in {id(c): c for c in (self.transformer.config, self.transformer.config.get_text_config())}.values():
            config.pad_token_id = pad

    @torch.no_grad()
    def _scores_in_a_batch(self) -> Tensor:
        queries, docs = zip(*PAIRS, strict=True)
        queries = [self.prompt + query for query in queries]
        rows = self.tokenizer(queries, list(docs), truncation=True, return_attention_mask=False)  # at the library's length
        batch = self.collate(dict(rows), [0, 1])
        return self.transformer(**batch).logits.float()


Reranker = CrossEncoder | StackReranker


def load_cross_encoder(
    folder: Path, precision: str = "fp32", max_length: int | None = None, new_head: bool = False
) -> Reranker:
    """Load a reranker, in eval mode, on the CPU, and check it on a padded and an unpadded pair.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.
        max_length: see CrossEncoder.
        new_head: an encoder without a head gets one of random weights, to be trained.

    Raises:
        UserError: the folder cannot be read, holds no reranker, or one whose scores depend on padding.
    """
    scores = has_head(folder)
    if not new_head and not scores:
        raise UserError(
            f"model folder {folder} has no head that scores pairs: it is an encoder, for --retriever; expected a "
            "cross-encoder (…ForSequenceClassification in config.json). Name one, or train one from it with "
            "`research fit -c configs/cross_encoder.yaml`."
        )
    new_head = new_head and not (scores and not is_language_model(folder))
    if not new_head and is_language_model(folder):
        say(f"{folder} is a language model: a pair is scored by its logits of yes and no after its chat template")
    stack = open_reranker(folder, precision, new_head)
    try:
        return _checked(stack, folder, precision, max_length)
    except UserError:
        raise
    except Exception as error:  # templates and modules raise what they like for a pair that they cannot take
        raise unreadable(folder, error) from error


def _checked(stack: Stack, folder: Path, precision: str, max_length: int | None) -> Reranker:
    first = stack[0]
    templated = getattr(first, "transformer_task", "") == "sequence-classification" and "message" in first.modality_config
    if templated and "text" in first.modality_config and not _carries(stack):
        # a chat template that drops the pair, with which the library refuses to score: the pair as it is
        del first.modality_config["message"]
        first.input_formatter.supported_modalities = list(first.modality_config)
    alone = scores_alone(stack, prompt_of(stack))
    known = (
        len(stack) == 1
        and is_plain(first, "sequence-classification", "logits", "scores")
        and not any((stack.module_kwargs or {}).values())
    )
    if known:
        model = CrossEncoder(stack, max_length).eval()
        if alone is None or model.choose_pad(alone, precision):
            keep_first_token(model.transformer)
            return model
    singly = alone is not None and differs(alone, scores_of(stack, PAIRS, prompt_of(stack)), precision)
    if singly:
        say(f"{folder}: padding changes its scores, so every pair is scored by itself")
    return StackReranker(stack, max_length, singly).eval()


def _carries(stack: Stack) -> bool:
    try:
        stack.preprocess([PAIRS[0]], prompt=prompt_of(stack))
    except ValueError as error:
        if "chat template" not in str(error):
            raise
        return False
    return True


def has_head(folder: Path) -> bool:
    """Return whether the folder's model scores pairs: a classifier, a language model, or one that the library saved as such."""
    saved = folder / "config_sentence_transformers.json"
    if saved.exists() and read_config(saved).get("model_type") == "CrossEncoder":
        return True
    return any(name.endswith(("ForSequenceClassification", "ForCausalLM")) for name in _architectures(folder))


def is_language_model(folder: Path) -> bool:
    """Return whether a plain folder holds a language model: as a reranker it answers yes or no; in training it gets a head."""
    return not (folder / "modules.json").exists() and any(name.endswith("ForCausalLM") for name in _architectures(folder))


def _architectures(folder: Path) -> list[str]:
    if (folder / ADAPTER_CONFIG).exists() and not has_own_weights(folder):
        config = read_config(folder / ADAPTER_CONFIG)
        if config.get("task_type") == "SEQ_CLS" and not (folder / "modules.json").exists():
            return ["ForSequenceClassification"]
        folder = adapter_base(folder)
    path = folder / "config.json"
    return [str(name) for name in (read_config(path).get("architectures") or [])] if path.exists() else []
