"""Any stack of sentence-transformers that scores pairs, run through the library's own forward: templates, yes/no logits, …"""

from types import SimpleNamespace

from sentence_transformers import CrossEncoder as Stack
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from research.errors import UserError
from research.models.cut import CutRow, full_rows
from research.models.folder import NO_LIMIT, default_length, position_count
from research.models.relevance import Relevance
from research.models.stack_encoder import CHARACTERS


def checked_length(wanted: int | None, positions: int) -> int | None:
    """Return a pair's length in tokens, or refuse it if it does not fit the model.

    Raises:
        UserError: a length of pairs that the position table does not have.
    """
    if wanted is not None and not 8 <= wanted <= positions:
        raise UserError(
            f"max length {wanted} of a pair does not fit the reranker; expected 8 to {positions} "
            "tokens. Pass a --reranker-max-length within that."
        )
    return wanted


class StackReranker(nn.Module):
    """A reranker with the same interface as CrossEncoder.

    Args:
        stack: as sentence-transformers loaded it.
        max_length: tokens of a pair; None takes the model's own.
        singly: score each pair in a batch of its own, since padding changes the stack's numbers.

    Raises:
        UserError: labels that are no relevance, or a length that the model cannot take.
    """

    def __init__(self, stack: Stack, max_length: int | None = None, singly: bool = False):
        super().__init__()
        self.stack, self.singly, self.prompt = stack, singly, prompt_of(stack)
        first = stack[0]
        config = getattr(stack.transformers_model, "config", None)
        self.relevance = Relevance(SimpleNamespace(num_labels=stack.num_labels, id2label=getattr(config, "id2label", {})))
        if not isinstance(first, Transformer):
            raise UserError(f"the reranker begins with {type(first).__name__}; expected a Transformer. Name another model.")
        self.positions, self.tokenizer = position_count(first.model), first.tokenizer
        limit = checked_length(max_length, self.positions)
        if limit is None and self.positions < first.max_seq_length < NO_LIMIT:
            limit = self.positions
        self.options = {} if limit is None else {"processing_kwargs": {"text": {"max_length": limit}}}
        self.max_length = limit or default_length(self.positions, self.tokenizer)

    @property
    def transformer(self) -> nn.Module:
        """Return the Hugging Face model within the stack."""
        return self.stack.transformers_model

    @property
    def identity(self) -> dict:
        """Return the settings that scores depend on besides folder, length and precision."""
        return {"modules": [type(module).__name__ for module in self.stack], "labels": self.relevance.labels}

    def tokenize(self, queries: list[str], docs: list[str]) -> dict[str, list]:
        """Return the pairs with an estimate of their tokens: the library tokenises each batch itself."""
        pairs = list(zip(queries, docs, strict=True))
        sizes = [len(f"{self.prompt}{q}{d}".encode("utf-8", "surrogatepass")) // CHARACTERS + 8 for q, d in pairs]
        return {"input_ids": [range(min(size, self.max_length)) for size in sizes], "pairs": pairs}

    def padded_length(self, length: int) -> int:
        """Return how many tokens a pair of `length` takes in a batch; no limit where each is scored alone."""
        return NO_LIMIT if self.singly else length

    def collate(self, pairs: dict[str, list], chosen: list[int]) -> dict:
        """Make a batch of the chosen pairs by the library's preprocess."""
        batch = [pairs["pairs"][i] for i in chosen]
        features = dict(self.stack.preprocess(batch, prompt=self.prompt or None, **self.options))
        for i in full_rows(features, self.max_length):
            pairs["input_ids"][chosen[i]] = CutRow(pairs["input_ids"][chosen[i]])
        return features

    def forward(self, **features) -> Tensor:
        """Compute (B,) float32 scores (float64 stays) of a batch that `collate` made, before any activation."""
        scores = self.stack(features)["scores"]
        return self.relevance(scores if scores.ndim > 1 else scores.unsqueeze(-1))


def prompt_of(stack: Stack) -> str:
    """Return the prompt that the library puts before every query: the default one, if the folder names it."""
    return (stack.prompts.get(stack.default_prompt_name) or "") if stack.default_prompt_name else ""
