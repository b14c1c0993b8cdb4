"""Losses on preference pairs, from the log-probabilities of whole completions under the policy and the reference.

h = (log π(y_w) − log π_ref(y_w)) − (log π(y_l) − log π_ref(y_l)), with y_w the chosen and y_l the rejected completion.

A loss is a function of this signature with a row in LOSSES; a configuration names it (`model.loss`):

    chosen, rejected: (B,) log-ratios log π − log π_ref, summed over the completion's tokens.
    beta: > 0.
    chosen_tokens, rejected_tokens: (B,) lengths of the completions, 1 or more.
    returns (B,) losses.

One that also takes `smoothing` is trained with `model.label_smoothing`.
"""

import inspect
from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import logsigmoid, relu


def sigmoid(
    chosen: Tensor, rejected: Tensor, beta: float, chosen_tokens: Tensor, rejected_tokens: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Compute DPO's loss, with label smoothing (cDPO): −(1 − ε) log σ(β h) − ε log σ(−β h).

    Args:
        smoothing: ε in [0, 0.5), the share of pairs believed to be labelled the wrong way round; 0 is DPO, above it cDPO.

    Source: DPO, Rafailov et al. 2023, Eq. 7; cDPO, Mitchell 2023 (TRL's sigmoid loss ignores label_smoothing).
    """
    margin = beta * (chosen - rejected)
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def hinge(chosen: Tensor, rejected: Tensor, beta: float, chosen_tokens: Tensor, rejected_tokens: Tensor) -> Tensor:
    """Compute the hinge loss on β h: max(0, 1 − β h).

    Source: SLiC-HF, Zhao et al. 2023, on the pairs of DPO.
    """
    return relu(1 - beta * (chosen - rejected))


def ipo(chosen: Tensor, rejected: Tensor, beta: float, chosen_tokens: Tensor, rejected_tokens: Tensor) -> Tensor:
    """Compute IPO's squared loss: (h̄ − 1 / (2 β))², where h̄ takes log-ratios per token of their completion.

    Source: IPO, Azar et al. 2023, Eq. 17 (τ is beta); its authors average over tokens.
    """
    return (chosen / chosen_tokens - rejected / rejected_tokens - 1 / (2 * beta)) ** 2


def sigmoid_norm(chosen: Tensor, rejected: Tensor, beta: float, chosen_tokens: Tensor, rejected_tokens: Tensor) -> Tensor:
    """Compute length-normalised DPO's loss: −log σ(β h̄), where h̄ takes log-ratios per token of their completion.

    Source: Tülu 3, Lambert et al. 2024, Eq. 6.
    """
    return -logsigmoid(beta * (chosen / chosen_tokens - rejected / rejected_tokens))


LOSSES: dict[str, Callable[..., Tensor]] = {"sigmoid": sigmoid, "hinge": hinge, "ipo": ipo, "sigmoid_norm": sigmoid_norm}
"""Name → loss."""


def takes_smoothing(name: str) -> bool:
    """Return whether a loss accepts label smoothing, that is, labels that may be swapped."""
    return "smoothing" in inspect.signature(LOSSES[name]).parameters
