"""How sure a validation is: intervals over examples, and when a sample is too small to choose a model by."""

import math

import numpy as np
import pytest

from research.metrics.significance import bootstrap_interval
from research.training.best_model import BestModel
from research.training.certainty import doubts, intervals

RNG = np.random.default_rng(0)
QUERIES = [f"q{i}" for i in range(200)]


def named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(QUERIES, values.tolist(), strict=False))


def test_an_interval_is_the_bootstrap_s_over_examples():
    values = RNG.random(200)
    (low, high) = intervals({"mrr@10": named(values)})["mrr@10"]
    assert (low, high) == bootstrap_interval(values)
    assert low < values.mean() < high


def test_an_interval_of_a_mean_over_tokens_weighs_its_rows():
    """Two long rows of loss 1 and many short ones of loss 3: the mean over tokens is near 1, that over rows near 3."""
    loss = np.array([1.0, 1.0, *[3.0] * 38])
    tokens = np.array([2000.0, 2000.0, *[5.0] * 38])
    found = intervals({"loss": named(loss)}, named(tokens))
    assert found["loss"][0] < np.average(loss, weights=tokens) < found["loss"][1]
    assert intervals({"loss": named(loss)})["loss"][0] > 2.5
    assert found["perplexity"] == pytest.approx([math.exp(bound) for bound in found["loss"]])


def test_one_example_and_numbers_that_are_none_have_no_interval():
    assert intervals({"a": {"q": 1.0}, "b": {"q": math.nan, "r": 1.0}}) == {}


def test_a_sample_that_tells_no_checkpoint_from_the_best_is_said():
    base = RNG.random(200)
    noise = [named(base + RNG.normal(0, 0.3, 200)) for _ in range(3)]
    (said,) = doubts("mrr@10", 20, dict(zip((10, 20, 30), noise, strict=True)), named(base - 0.5))
    assert "200 examples are too few to choose a model by mrr@10: step 20 is kept" in said
    assert "each other checkpoint (step 10, 30)" in said


def test_a_sample_that_tells_one_from_the_best_is_large_enough():
    base = RNG.random(200)
    checkpoints = {10: named(base - 0.2), 20: named(base), 30: named(base + RNG.normal(0, 0.3, 200))}
    assert doubts("mrr@10", 20, checkpoints, named(base - 0.5)) == []


def test_a_gain_within_chance_is_said():
    base = RNG.random(200)
    (said,) = doubts("mrr@10", 10, {10: named(base)}, named(base + RNG.normal(0, 0.3, 200)))
    assert said == "on the validation's 200 examples the change in mrr@10 since the untrained model is within chance"
    assert doubts("mrr@10", 10, {10: named(base)}, None) == []


@pytest.mark.parametrize(
    ("lower", "trained", "warned"), [(False, 0.4, True), (False, 0.6, False), (True, 0.4, False), (True, 0.6, True)]
)
def test_a_model_that_is_worse_than_the_untrained_one_is_said_to_be(tmp_path, lower, trained, warned):
    """Also where it is certainly worse: no interval is doubted then, and nothing else would say it."""
    best = BestModel(tmp_path, "val/x", lower=lower)
    best.first, best.first_per_query = {"x": 0.5}, {"x": named(np.full(50, 0.5))}
    best.best, best.checkpoints = {"step": 3, "metrics": {"x": trained}}, {3: named(np.full(50, trained))}
    said = [doubt for doubt in best.doubts() if "has made the model worse" in doubt]
    assert len(said) == warned
    assert not warned or f"x {trained:.4f} at its best step (3), 0.5000 untrained" in said[0]
    best.first, best.first_per_query = None, None  # of a run that was begun by earlier code
    assert best.doubts() == []
