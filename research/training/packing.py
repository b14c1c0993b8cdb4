"""Batch layouts that save time, with tests whether a model gives the same numbers in them.

Several texts in one row need attention that can be masked at will and positions that are given: most decoders have both; ALiBi,
recurrent states, convolutions and attention sinks do not. So the model itself is tried, on a few tokens, before training.
"""

from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor

from research.errors import UserError
from research.models.causal_lm import CausalLM
from research.progress import say

TOLERANCE = 1e-3  # of the largest value: rounding is 1e-6 in float32, a token too many seen 1e-1


@torch.no_grad()
def packing_is_exact(model: CausalLM) -> bool:
    """Test whether texts packed with others and with padding have the same hidden states as alone."""
    first, second = _ids(model, 12, 0), _ids(model, 9, 1)
    rows = [torch.cat([first, second], 1), torch.cat([second, first], 1)]
    positions = [[*range(12), *range(9)], [*range(9), *range(9), 0, 0, 0]]  # the second row ends with three of padding
    if "flash" in str(model.base.config._attn_implementation):
        rows, positions = rows[:1], positions[:1]  # data.instructions lays all texts into one row there

    def alone(ids: Tensor) -> Tensor:
        return model.hidden(ids, torch.ones_like(ids))[0]

    def packed() -> Tensor:
        states = model.hidden(torch.cat(rows), position_ids=torch.tensor(positions, device=first.device))
        return torch.cat([states[0], *(state[:18] for state in states[1:])])

    texts = [first, second] + [second, first[:, :9]] * (len(rows) - 1)
    return _same(model, lambda: torch.cat([alone(ids) for ids in texts]), packed)


def sharing_is_exact(model: CausalLM, logps: Callable[[list[dict], bool], Tensor], longest: int) -> bool:
    """Test whether a pair has the same log-probabilities when its prompt is computed once as when it is computed twice.

    Args:
        model: in float32.
        logps: rows of a pair's token ids, and whether they share their prompt → their log-probabilities.
        longest: tokens of the longest row of prompt, chosen and rejected.
    """
    window = getattr(model.base.config.get_text_config(), "sliding_window", None)
    if window is not None and window < longest:
        return False  # a mask of one's own takes the window's place
    sizes = [{"prompt_ids": 9, "chosen_ids": 7, "rejected_ids": 5}, {"prompt_ids": 4, "chosen_ids": 3, "rejected_ids": 8}]
    rows = [
        {name: _ids(model, count, 3 * i + k)[0].tolist() for k, (name, count) in enumerate(size.items())}
        for i, size in enumerate(sizes)
    ]
    return _same(model, lambda: logps(rows, False), lambda: logps(rows, True))


def shares_prompt(module: L.LightningModule, chunk_logps: Callable[[dict[str, Tensor]], Tensor]) -> bool:
    """Decide whether a pair's prompt is computed once, as data.share_prompt says; for null, if that is exact with this model.

    Args:
        module: a DPOModule in its setup.
        chunk_logps: a chunk of them → their log-probabilities.

    Raises:
        UserError: true, where it is not.
    """
    data, model = module.trainer.datamodule, module.model
    asked, name = data.share_prompt, type(model.base).__name__
    if module.language.router:
        if asked:
            raise UserError(
                f"share_prompt=true with a router's loss ({name}), which counts a prompt once for each answer; expected false "
                "or null. Leave it out."
            )
        data.chunk_overhead = None  # and it is of a whole micro-batch
        return False
    if asked is False or (asked is None and model.virtual_tokens):
        return False

    device = next(model.parameters()).device  # the weights' own: the module's is ahead of them in setup

    def logps(rows: list[dict], shared: bool) -> Tensor:
        data.share_prompt = shared
        return chunk_logps({k: v.to(device) for k, v in data.collate(model).collate(list(enumerate(rows))).items()})

    pairs = [row for tokens in data.tokens.values() for row in tokens.rows]
    longest = max(len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in pairs)
    data.share_prompt = True
    data.collate(model)  # refuses virtual tokens
    exact = sharing_is_exact(model, logps, longest)
    data.share_prompt = asked
    if asked and not exact:
        raise UserError(
            f"share_prompt=true: {name} does not give a pair of {longest} tokens the same log-probabilities with its prompt "
            "computed once; expected false or null. Leave it out."
        )
    if not exact and module.trainer.is_global_zero:
        say(f"{name} gives other numbers where a prompt is computed once for both answers: it is computed twice")
    return exact


def _ids(model: CausalLM, count: int, seed: int) -> Tensor:
    ids = torch.randint(model.vocabulary, (1, count), generator=torch.Generator().manual_seed(seed))
    return ids.to(next(model.parameters()).device)


@torch.no_grad()
def _same(model: CausalLM, plain: Callable[[], Tensor], saving: Callable[[], Tensor]) -> bool:
    was_training = model.training
    model.eval()
    try:
        expected = plain()
        try:
            saved = saving()
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False  # the model does not take such a mask, or such positions
        return float((saved - expected).abs().max()) <= TOLERANCE * max(1.0, float(expected.abs().max()))
    finally:
        model.train(was_training)
