"""A τ that is not learned stays what it is, at any value above 0; a learned one stays within its range."""

import pytest
import torch
from torch.nn import functional as F

from research.training.optimisation import Optimisation


def plain(temperature: float, steps: int = 3, **more) -> dict:
    """Three steps of AdamW alone: no warmup, no decay, no clipping, no dropout."""
    settings = Optimisation(lr=3e-3, weight_decay=0.0, warmup=0.0, decay="constant", clip=None)
    module = {"temperature": temperature, "learn_temperature": False, "dropout": 0.0, "optimisation": settings, **more}
    return {"module": module, "data": {"hard_negatives": 0}, "trainer": {"max_epochs": 1, "max_steps": steps}}


def by_hand(run, temperature: float, steps: int = 3) -> list[float]:
    """Losses of a loop written out, over the same batches: cross-entropy of q·d/τ, each query's own document its label."""
    module, data = run.parts()
    data.trainer = type("Alone", (), {"global_rank": 0, "world_size": 1, "lightning_module": module})
    loader = iter(data.train_dataloader())
    model = module.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        batch = next(loader)
        sides = []
        for tower, texts in ((model.query, batch.queries), (model.doc, batch.docs)):
            sides.append(F.normalize(torch.cat([tower(**chunk) for chunk in texts.chunks])[texts.rows], dim=-1))
        loss = F.cross_entropy(sides[0] @ sides[1].T / temperature, torch.arange(len(sides[0])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("temperature", [1.0, 0.005, 30.0, 0.05])
def test_fixed_temperature_trains_as_a_loop_by_hand(training, temperature):
    run = training("dual_encoder", "fixed", **plain(temperature))
    run.run()
    lines = [line for line in run.curve() if "train/loss" in line]
    assert [line["train/masked"] for line in lines] == [0] * 3
    assert [line["train/temperature"] for line in lines] == pytest.approx([temperature] * 3, rel=1e-6)
    expected = by_hand(training("dual_encoder", "by hand", **plain(temperature)), temperature)
    assert [line["train/loss"] for line in lines] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_fixed_temperature_of_both_directions_and_of_two_towers_stays(training):
    run = training("dual_encoder", "fixed", **plain(2.0, symmetric=True, towers="separate"))
    run.run()
    assert [line["train/temperature"] for line in run.curve() if "train/loss" in line] == pytest.approx([2.0] * 3)


def test_learned_temperature_stays_within_its_range(training):
    """A rate of 1 for log τ would carry it far beyond .04 in each step."""
    options = plain(0.03, learn_temperature=True, temperature_range=(0.02, 0.04), temperature_lr=1.0)
    run = training("dual_encoder", "learned", **options)
    run.run()
    values = [line["train/temperature"] for line in run.curve() if "train/loss" in line]
    assert all(min(abs(value - edge) for edge in (0.02, 0.04)) < 1e-6 for value in values)
