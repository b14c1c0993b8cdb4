"""Token and preference losses: by hand, against plain autograd, and through chunks."""

import math

import pytest
import torch

from research.losses import language, preference
from research.losses.language import token_losses


def inputs(tokens=7, width=5, vocabulary=11, bias=False):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64)
    offset = torch.randn(vocabulary, generator=draw, dtype=torch.float64) if bias else None
    labels = torch.randint(0, vocabulary, (tokens,), generator=draw)
    return hidden, weight, labels, offset


def oracle(hidden, weight, labels, bias, smoothing, scale, softcap):
    """The formula of the docstring, without chunks and without a hand-written backward."""
    z = hidden @ weight.T
    z = scale * (z if bias is None else z + bias)
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    log_p = z.log_softmax(-1)
    return -(1 - smoothing) * log_p[torch.arange(len(labels)), labels] - smoothing * log_p.mean(-1)


OPTIONS = [{}, {"smoothing": 0.1}, {"scale": 0.5}, {"softcap": 2.0}, {"smoothing": 0.3, "scale": 2.0, "softcap": 3.0}]


@pytest.mark.parametrize("chunk", [1, 33, 10**6])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("head_trained", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_and_gradients_are_the_formula_s(options, head_trained, bias, chunk, monkeypatch):
    monkeypatch.setattr(language, "CHUNK_LOGITS", chunk)  # one token a chunk, three, all
    full = {"smoothing": 0.0, "scale": 1.0, "softcap": None} | options
    upstream = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0, 1.0, -1.0], dtype=torch.float64)
    results = []
    for function in (oracle, lambda h, w, y, b, *o: token_losses(h, w, y, b, *o).losses):
        hidden, weight, labels, offset = inputs(bias=bias)
        for parameter in (weight, offset) if head_trained else ():
            if parameter is not None:
                parameter.requires_grad = True
        losses = function(hidden, weight, labels, offset, *full.values())
        (losses * upstream).sum().backward()
        results.append([losses, hidden.grad, weight.grad, None if offset is None else offset.grad])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head_trained", [False, True])
def test_backward_is_the_derivative_by_finite_differences(head_trained):
    hidden, weight, labels, _ = inputs()
    weight.requires_grad = head_trained
    assert torch.autograd.gradcheck(lambda h, w: token_losses(h, w, labels, None, 0.1, 1.5, 4.0).losses, (hidden, weight))


def test_token_losses_by_hand():
    """Logits 0 and ln 3: p = (1/4, 3/4)."""
    hidden, weight = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [math.log(3)]])
    tokens = token_losses(hidden, weight, torch.tensor([1, 0]))
    assert tokens.nll.tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    assert tokens.correct.tolist() == [True, False]
    smoothed = token_losses(hidden, weight, torch.tensor([1, 0]), smoothing=0.2)
    mean = (math.log(4 / 3) + math.log(4)) / 2
    assert smoothed.losses.tolist() == pytest.approx([0.8 * math.log(4 / 3) + 0.2 * mean, 0.8 * math.log(4) + 0.2 * mean])
    assert smoothed.nll.tolist() == tokens.nll.tolist()


def test_softmax_is_float32_under_bf16():
    """A bf16 log-softmax over 49,152 words is off by a hundredth; only the logits are rounded here."""
    draw = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(4, 64, generator=draw), torch.randn(49152, 64, generator=draw) / 8
    labels = torch.tensor([1, 2, 3, 4])
    with torch.autocast("cpu", torch.bfloat16):
        ours = token_losses(hidden, weight, labels).nll
    logits = (hidden.bfloat16() @ weight.bfloat16().T).float()
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, labels, reduction="none"), rtol=0, atol=1e-5)


def test_no_labelled_token_is_no_loss():
    hidden, weight, _, _ = inputs(tokens=0)
    tokens = token_losses(hidden, weight, torch.zeros(0, dtype=torch.long))
    tokens.losses.sum().backward()
    assert tokens.losses.shape == (0,)
    assert hidden.grad.shape == (0, 5)


# ---- preference -----------------------------------------------------------------------------------------------------

CHOSEN, REJECTED = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])  # h = 0 and 3
LENGTHS = torch.tensor([4.0, 4.0]), torch.tensor([2.0, 2.0])


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (preference.sigmoid(CHOSEN, REJECTED, 0.5, *LENGTHS), [math.log(2), -math.log(sigma(1.5))]),
        (
            preference.sigmoid(CHOSEN, REJECTED, 0.5, *LENGTHS, smoothing=0.1),
            [math.log(2), -0.9 * math.log(sigma(1.5)) - 0.1 * math.log(sigma(-1.5))],
        ),
        (preference.hinge(CHOSEN, REJECTED, 0.5, *LENGTHS), [1.0, 0.0]),
        (preference.hinge(CHOSEN, REJECTED, 0.1, *LENGTHS), [1.0, 0.7]),
        (preference.ipo(CHOSEN, REJECTED, 0.5, *LENGTHS), [1.0, 0.0]),  # h̄ = 2/4 + 1/2 = 1 = 1/(2 · .5)
        (preference.sigmoid_norm(CHOSEN, REJECTED, 2.0, *LENGTHS), [math.log(2), -math.log(sigma(2.0))]),
    ],
    ids=["dpo", "cdpo", "hinge met", "hinge", "ipo", "length-normalised"],
)
def test_preference_losses_by_hand(losses, expected):
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda c, r: preference.sigmoid(c, r, 0.3, *LENGTHS, smoothing=0.2),
        lambda c, r: preference.hinge(c, r, 0.1, *LENGTHS),
        lambda c, r: preference.ipo(c, r, 0.3, *LENGTHS),
        lambda c, r: preference.sigmoid_norm(c, r, 0.3, *LENGTHS),
    ],
)
def test_preference_gradients_by_finite_differences(loss):
    sides = [side.double().requires_grad_() for side in (CHOSEN, REJECTED)]
    assert torch.autograd.gradcheck(loss, sides)


@pytest.mark.parametrize("chunk", [1, 33, 10**6])
def test_kl_is_torch_s_and_0_of_a_model_with_itself(chunk, monkeypatch):
    monkeypatch.setattr(language, "CHUNK_LOGITS", chunk)
    hidden, weight, _, bias = inputs(bias=True)
    other = hidden.detach() + 0.3
    head = {"weight": weight, "bias": bias, "scale": 0.7, "softcap": 3.0}
    plain = {"weight": weight * 1.2, "bias": None, "scale": 1.0, "softcap": None}
    ours = language.kl_divergence(hidden, head, other, plain)
    log_p = (3 * torch.tanh(0.7 * (hidden @ weight.T + bias) / 3)).log_softmax(-1)
    log_ref = (other @ plain["weight"].T).log_softmax(-1)
    expected = torch.nn.functional.kl_div(log_ref, log_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(ours, expected.detach(), rtol=0, atol=1e-12)
    assert not ours.requires_grad
    assert float(language.kl_divergence(hidden, head, hidden, head).abs().max()) == 0
