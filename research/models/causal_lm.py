"""A causal language model, with or without a PEFT adapter: token ids and labels in, losses of the labelled tokens out."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from research.errors import UserError
from research.models.adapter_rules import PREFIX, plain
from research.models.folder import load_transformer, position_count
from research.models.output_layer import head_of, widened
from research.models.router import packed_tokens, router_loss
from research.types import IGNORE

PROBE = 32  # tokens on which two models are compared


class Labelled(NamedTuple):
    """N positions of a batch that predict a label.

    Attributes:
        hidden: (N, H).
        labels: (N,) token ids.
        rows: (N,) the row of the batch that each is of, ascending.
        router: () the router's loss over all tokens, where it was asked for.
    """

    hidden: Tensor
    labels: Tensor
    rows: Tensor
    router: Tensor | None = None


class CausalLM(nn.Module):
    """A Hugging Face causal language model.

    The body is run without its output layer, which `losses.language.token_losses` applies to labelled positions only. A
    model whose logits are something else than a linear layer on the last hidden states is refused at the start, by a
    comparison with its own forward.

    Args:
        transformer: the model, or a peft.PeftModel around it.
        tokenizer: the model's own.

    Raises:
        UserError: the model's logits cannot be had that way.
    """

    def __init__(self, transformer: nn.Module, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.transformer, self.tokenizer = transformer, tokenizer
        self.positions = position_count(self.base)
        self.off = False

    @property
    def base(self) -> nn.Module:
        """Return the language model without PEFT's wrapper; LoRA's layers are inside it."""
        return self.transformer.get_base_model() if self.adapted else self.transformer

    @property
    def table(self) -> Tensor:
        """Return the embedding table (V, H), whatever an adapter has put around it."""
        return max(self.base.get_input_embeddings().parameters(), key=Tensor.numel)

    @property
    def vocabulary(self) -> int:
        """Count the rows of the embedding table."""
        return len(self.table)

    @property
    def pad_token_id(self) -> int:
        """Return the token id for padding. Any token is correct, since the attention mask hides it."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else pad

    @property
    def adapted(self) -> bool:
        """Return whether the model has an adapter."""
        return hasattr(self.transformer, "peft_config")

    @property
    def virtual_tokens(self) -> int:
        """Count the tokens of the context that the adapter uses."""
        if not self.adapted or self.off:
            return 0
        config = self.transformer.active_peft_config
        return config.num_virtual_tokens if config.is_prompt_learning else 0

    @property
    def prefix(self) -> bool:
        """Return whether the virtual tokens are keys and values of every layer (prefix tuning)."""
        return bool(self.virtual_tokens) and plain(self.transformer.active_peft_config)["peft_type"] == PREFIX

    @contextlib.contextmanager
    def adapter_off(self) -> Iterator[None]:
        """Switch the adapter off within this context."""
        self.off = True
        try:
            with self.transformer.disable_adapter() if self.adapted else contextlib.nullcontext():
                yield
        finally:
            self.off = False

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Tensor) -> Tensor:
        """Return `run`'s last hidden states."""
        return self.run(input_ids, attention_mask, **more)[0]

    def run(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, router: bool = False, **more: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the last hidden states of the real tokens, and the router's loss.

        Args:
            input_ids: (B, T) padded on the right.
            attention_mask: (B, T) 1 for real tokens; (B, 1, T, T), or None for rows of several texts whose position_ids
                begin anew: neither goes with virtual tokens.
            router: whether its loss is computed, for a mixture of experts: see `router_loss`.
            more: position_ids (B, T).

        Returns:
            (B, T, H), after the final norm, or (B, T, H + r) where LoRA's update lies on the output layer: see `head`; and ()
            over all tokens that were computed, or None.
        """
        body, more = self.base.base_model, more | ({"output_router_logits": True} if router else {})
        count = self.virtual_tokens
        if (
            attention_mask is not None
            and attention_mask.dtype == torch.bool
            and self.base.config._attn_implementation == "eager"
        ):
            # transformers adds a mask of one's own to the scores there: True would be one more, not everything
            dtype = self.table.dtype
            attention_mask = torch.zeros_like(attention_mask, dtype=dtype).masked_fill(~attention_mask, torch.finfo(dtype).min)
        if not count:
            states = body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **more)
            if router and attention_mask is None and "position_ids" in more:
                attention_mask = packed_tokens(input_ids, more["position_ids"], self.pad_token_id)
            hidden = states.last_hidden_state
            loss = router_loss(self.base, states, input_ids, attention_mask) if router else None
            return widened(hidden, self.base.get_output_embeddings(), self.off), loss
        text_mask, rows = attention_mask, len(input_ids)
        attention_mask = torch.cat([text_mask.new_ones(rows, count), text_mask], 1)  # (B, n + T)
        if self.prefix:
            past = self.transformer.get_prompt(rows, max_cache_len=attention_mask.shape[1])
            states = body(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past, use_cache=False, **more)
            hidden = states.last_hidden_state
            # the prefix is keys and values: no router sees it
            loss = router_loss(self.base, states, input_ids, text_mask) if router else None
        else:
            embedded = self.base.get_input_embeddings()(input_ids)
            embedded = torch.cat([self.transformer.get_prompt(rows).to(embedded.dtype), embedded], 1)  # (B, n + T, H)
            states = body(inputs_embeds=embedded, attention_mask=attention_mask, use_cache=False, **more)
            hidden = states.last_hidden_state[:, count:]
            loss = router_loss(self.base, states, None, attention_mask, embedded) if router else None
        return widened(hidden, self.base.get_output_embeddings(), self.off), loss

    def labelled(
        self, input_ids: Tensor, labels: Tensor, at: Tensor | None = None, router: bool = False, **inputs: Tensor
    ) -> Labelled:
        """Compute the hidden states of the positions that predict a label.

        Args:
            input_ids: (B, T).
            labels: (B, T), IGNORE where nothing is to be predicted. The first token of a row is predicted by nothing, the
                virtual tokens before it included: else prompt tuning would count one token more than other methods.
            at: (N,) flat positions in (B, T) that predict a label; None finds them, for which the host waits.
            router: as in `run`.
            inputs: attention_mask (B, T), or position_ids (B, T) where a row holds several texts, as in `hidden`.
        """
        width = input_ids.shape[1]
        if at is None:
            at = torch.nn.functional.pad(labels[:, 1:] != IGNORE, (0, 1)).flatten().nonzero()[:, 0]
        hidden, loss = self.run(input_ids, router=router, **inputs)
        return Labelled(hidden.flatten(0, 1).index_select(0, at), labels.flatten()[at + 1], at // width, loss)

    @property
    def head(self) -> dict:
        """Return what token_losses needs of the output layer; see `output_layer.head_of`."""
        return head_of(self.base, self.adapted, self.off)

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Compute logits (T, V) of a few tokens from all over the vocabulary, without dropout, to compare two models."""
        was_training = self.training
        self.eval()
        count = max(1, min(PROBE, self.positions - self.virtual_tokens))
        ids = torch.linspace(0, self.vocabulary - 1, count, device=next(self.parameters()).device).long()[None]
        logits = self.transformer(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        self.train(was_training)
        return logits[0, -count:].float()

    @torch.no_grad()
    def check_head(self) -> None:
        """Check that `head` gives the model's own logits, on a few tokens.

        Raises:
            UserError: they are not what `head` says.
        """
        if next(self.parameters()).is_meta:
            return
        was_training = self.training
        self.eval()
        ids = torch.arange(3, 9, device=next(self.parameters()).device)[None] % self.vocabulary
        head, hidden = self.head, self.hidden(ids, torch.ones_like(ids))
        ours = nn.functional.linear(hidden, head["weight"], head["bias"]).float() * head["scale"]
        if head["softcap"] is not None:
            ours = head["softcap"] * torch.tanh(ours / head["softcap"])
        theirs = self.transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :].float()
        self.train(was_training)
        if not torch.allclose(ours, theirs, atol=1e-2 * float(theirs.abs().max())):
            cause = "an adapter on the output layer" if self.adapted else "another model"
            cure = "leave the output layer out of target_modules" if self.adapted else "name another model"
            raise UserError(
                f"{type(self.base).__name__} does more to its logits than a linear layer, a scale and a cap "
                f"(difference {float((ours - theirs).abs().max()):.3g}), as {cause} would; expected that alone: "
                f"{cure}."
            )


def load_causal_lm(folder: Path, precision: str = "fp32") -> CausalLM:
    """Load a language model without adapter, in eval mode, on the CPU.

    Args:
        folder: as `sources.resolve` gives it.
        precision: "fp32" or "bf16", of the weights.

    Raises:
        UserError: the folder cannot be read, or holds no causal language model.
    """
    transformer, tokenizer = load_transformer(folder, AutoModelForCausalLM, precision)
    return CausalLM(transformer, with_padding(tokenizer)).eval()


def with_padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with its end token for padding if it has no padding token; without both see pad_token_id."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
