"""Losses by hand, against independent oracles in float64, and against finite differences, for every option."""

from functools import partial
from math import exp, log

import pytest
import torch

from research.losses.contrastive import both_directions, info_nce, known_positives
from research.losses.ranking import listwise_softmax, pointwise_bce
from research.types import NO_ID

symmetric_info_nce = partial(both_directions, info_nce)


def unit(rows: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


# ---- InfoNCE --------------------------------------------------------------------------------------------------------


def test_info_nce_by_hand():
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    docs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    losses = info_nce(query, docs, torch.tensor([0, 1]), temperature=0.5)
    assert losses.tolist() == pytest.approx([log(exp(2) + exp(0) + exp(1.2)) - 2, log(exp(0) + exp(2) + exp(1.6)) - 2])


def oracle(query, docs, own, temperature, masked):
    """The same loss, one query and one document at a time."""
    losses = []
    for i, column in enumerate(own.tolist()):
        kept = [j for j in range(len(docs)) if not masked[i, j]]
        scores = {j: float(query[i] @ docs[j]) / temperature for j in kept}
        losses.append(-log(exp(scores[column]) / sum(exp(s) for s in scores.values())))
    return losses


MASK = torch.tensor([[0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("masked", [torch.zeros(3, 7, dtype=torch.bool), MASK])
@pytest.mark.parametrize("own", [[0, 1, 2], [4, 2, 0]])  # with hard negatives the positives need not stand first
def test_info_nce_equals_the_oracle(temperature, masked, own):
    query, docs, own = unit(3), unit(7, seed=1), torch.tensor(own)
    masked = masked.scatter(1, own[:, None], False)
    losses = info_nce(query, docs, own, temperature, masked)
    assert losses.tolist() == pytest.approx(oracle(query, docs, own, temperature, masked), abs=1e-12)


@pytest.mark.parametrize("masked", [None, MASK])
def test_gradients_of_info_nce_equal_finite_differences(masked):
    query, docs = unit(3).requires_grad_(), unit(7, seed=1).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([1, 2, 5])
    assert torch.autograd.gradcheck(lambda q, d, t: info_nce(q, d, own, t, masked), (query, docs, temperature))


def test_temperature_receives_its_gradient():
    temperature = torch.tensor(0.1, requires_grad=True)
    info_nce(unit(3).float(), unit(3, seed=1).float(), torch.arange(3), temperature).mean().backward()
    assert temperature.grad.abs() > 0


def test_bf16_embeddings_are_scored_in_float32():
    query, docs = unit(4, 64).bfloat16(), unit(9, 64, seed=1).bfloat16()
    losses = info_nce(query, docs, torch.arange(4), 0.02)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(info_nce(query.double(), docs.double(), torch.arange(4), 0.02).tolist(), abs=1e-4)


# ---- known positives ------------------------------------------------------------------------------------------------


def test_known_positives_are_masked_by_id_but_never_the_own_column():
    doc_ids = torch.tensor([10, 11, 10, 12])  # 10 twice: a duplicate of the first query's positive
    positive_ids = torch.tensor([[10, NO_ID], [11, 12]])  # 12 is relevant to the second query by the qrels
    mask = known_positives(doc_ids, positive_ids, positives=torch.tensor([0, 1]))
    assert mask.tolist() == [[False, False, True, False], [False, False, False, True]]


def test_padding_of_positive_ids_masks_nothing():
    assert not known_positives(torch.tensor([0, 1]), torch.tensor([[NO_ID, NO_ID]]), torch.tensor([0])).any()


def test_unmasked_duplicate_costs_a_perfect_encoder_ln_2():
    query = torch.eye(4)[:1]
    docs = torch.eye(4)[[0, 0, 1, 2]]
    own, ids = torch.tensor([0]), torch.tensor([7, 7, 8, 9])
    assert info_nce(query, docs, own, 0.01).item() == pytest.approx(log(2), abs=1e-5)
    masked = known_positives(ids, torch.tensor([[7]]), own)
    assert info_nce(query, docs, own, 0.01, masked).item() == pytest.approx(0)


def test_masked_columns_get_no_gradient():
    docs = unit(4, seed=1).requires_grad_()
    masked = torch.tensor([[False, False, True, False]])
    info_nce(unit(1), docs, torch.tensor([0]), 0.1, masked).sum().backward()
    assert docs.grad[2].abs().sum() == 0
    assert docs.grad[3].abs().sum() > 0


# ---- both directions ------------------------------------------------------------------------------------------------


def test_symmetric_loss_is_the_mean_of_both_directions_when_documents_outnumber_queries():
    query, docs, own = unit(3), unit(7, seed=1), torch.tensor([0, 3, 5])
    nothing = torch.zeros(3, 7, dtype=torch.bool)
    there = oracle(query, docs, own, 0.2, nothing)
    back = oracle(docs[own], query, torch.arange(3), 0.2, nothing[:, :3])
    expected = [(a + b) / 2 for a, b in zip(there, back, strict=True)]
    assert symmetric_info_nce(query, docs, own, 0.2).tolist() == pytest.approx(expected, abs=1e-12)


def test_symmetric_loss_against_gathered_queries_with_a_mask():
    everyone, docs = unit(5), unit(5, seed=1)
    mine, own, rows = everyone[2:4], torch.tensor([2, 3]), torch.tensor([2, 3])
    masked = torch.zeros(2, 5, dtype=torch.bool)
    masked_queries = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    there = oracle(mine, docs, own, 0.2, masked)
    back = oracle(docs[own], everyone, rows, 0.2, masked_queries)
    losses = symmetric_info_nce(mine, docs, own, 0.2, masked, everyone, rows, masked_queries)
    assert losses.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(there, back, strict=True)], abs=1e-12)


def test_own_queries_stand_first_among_the_gathered_ones_unless_said():
    query, docs, own = unit(2), unit(4, seed=1), torch.tensor([0, 1])
    more = torch.cat([query, unit(2, seed=2)])
    explicit = symmetric_info_nce(query, docs, own, 0.2, all_queries=more, query_rows=torch.arange(2))
    torch.testing.assert_close(symmetric_info_nce(query, docs, own, 0.2, all_queries=more), explicit)


def test_gradients_of_the_symmetric_loss_equal_finite_differences():
    query, docs = unit(3).requires_grad_(), unit(7, seed=1).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([1, 2, 5])
    assert torch.autograd.gradcheck(lambda q, d, t: symmetric_info_nce(q, d, own, t), (query, docs, temperature))


# ---- candidate groups -----------------------------------------------------------------------------------------------

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_pointwise_bce_by_hand():
    scores, labels = torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[1, 0, 0]])
    expected = (log(2) + log(1 + exp(2)) + log(1 + exp(-1))) / 3
    assert pointwise_bce(scores, labels, ALL).tolist() == pytest.approx([expected])


def test_listwise_softmax_by_hand():
    scores = torch.tensor([[0.0, 2.0, -1.0]])
    total = log(exp(0) + exp(2) + exp(-1))
    assert listwise_softmax(scores, torch.tensor([[0, 1, 0]]), ALL).tolist() == pytest.approx([total - 2])
    two = listwise_softmax(scores, torch.tensor([[3, 1, 0]]), ALL)  # graded: ¾ and ¼
    assert two.tolist() == pytest.approx([0.75 * total + 0.25 * (total - 2)])


@pytest.mark.parametrize("loss", [pointwise_bce, listwise_softmax])
def test_padding_of_a_group_changes_nothing(loss):
    scores, labels = torch.tensor([[0.3, -0.7]]), torch.tensor([[1, 0]])
    alone = loss(scores, labels, torch.tensor([[True, True]]))
    padded = loss(torch.tensor([[0.3, -0.7, 99.0]]), torch.tensor([[1, 0, 1]]), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(padded, alone)


@pytest.mark.parametrize("loss", [pointwise_bce, listwise_softmax])
def test_gradients_of_group_losses_equal_finite_differences(loss):
    scores = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]])
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, present), (scores,))
    loss(scores, labels, present).sum().backward()
    assert scores.grad[~present].abs().sum() == 0


def test_scores_stay_fp32_under_autocast():
    query, docs = (torch.nn.functional.normalize(torch.randn(6, 32), dim=-1) for _ in range(2))
    exact = info_nce(query, docs, torch.arange(6), 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = info_nce(query, docs, torch.arange(6), 0.05)
    assert torch.equal(exact, mixed)
