"""Distributions of a sweep's parameters are those of W&B's package `sweeps`."""

import numpy as np
import pytest

from research.sweeps.distributions import parameter

theirs = pytest.importorskip("sweeps.params", reason="the package sweeps is not installed")

CASES = [
    {"min": 1, "max": 7}, {"min": 0.5, "max": 2.0}, {"distribution": "uniform", "min": 1, "max": 3},
    {"distribution": "q_uniform", "min": 0.0, "max": 10.0, "q": 2.0}, {"distribution": "log_uniform", "min": -5.0, "max": 1.0},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    {"distribution": "inv_log_uniform", "min": 1.0, "max": 3.0},
    {"distribution": "inv_log_uniform_values", "min": 1e-3, "max": 1.0},
    {"distribution": "q_log_uniform_values", "min": 1.0, "max": 64.0, "q": 4.0},
    {"distribution": "q_log_uniform", "min": 0.0, "max": 4.0, "q": 1.0}, {"distribution": "normal"},
    {"distribution": "normal", "mu": 3.0, "sigma": 0.1}, {"distribution": "q_normal", "mu": 3.0, "sigma": 2.0, "q": 0.5},
    {"distribution": "log_normal", "mu": 0.0, "sigma": 1.0},
    {"distribution": "q_log_normal", "mu": 1.0, "sigma": 1.0, "q": 0.5}, {"distribution": "beta", "a": 2.0, "b": 5.0},
    {"distribution": "q_beta", "a": 2.0, "b": 5.0, "q": 0.1}, {"values": [1, 2, 5]},
    {"values": ["a", "b"], "probabilities": [0.3, 0.7]}, {"value": 3},
]  # fmt: skip


@pytest.mark.parametrize("facts", CASES, ids=str)
def test_quantiles_are_w_and_b_s(facts):
    ours, peer = parameter("x", dict(facts), "f"), theirs.HyperParameter("x", dict(facts))
    for u in np.linspace(0.013, 0.987, 41):
        expected = peer.ppf(float(u))
        expected = expected.item() if hasattr(expected, "item") else expected
        found = ours.quantile(float(u))
        assert found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9, abs=1e-12))
        assert isinstance(found, int) or not isinstance(expected, int)


@pytest.mark.parametrize("rule", [
    {"min_iter": 1}, {"min_iter": 2, "eta": 2}, {"min_iter": 1, "eta": 2, "strict": False}, {"min_iter": 3, "eta": 1.5},
    {"max_iter": 9, "s": 2}, {"max_iter": 27, "s": 2, "eta": 3, "strict": False}, {"max_iter": 8, "s": 3, "eta": 2},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_hyperband_stops_the_runs_that_w_and_b_would_stop(rule, goal):
    import warnings

    from research.sweeps.hyperband import is_stopped

    run, hyperband = pytest.importorskip("sweeps.run"), pytest.importorskip("sweeps.hyperband_stopping")
    rule = {"type": "hyperband", **rule}
    config = {"method": "grid", "parameters": {"a": {"values": [1]}}, "metric": {"name": "loss", "goal": goal},
              "early_terminate": rule}  # fmt: skip
    dice = np.random.default_rng(0)
    stopped = 0
    for _ in range(150):
        histories = [list(dice.normal(size=dice.integers(0, 12)).round(1)) for _ in range(dice.integers(1, 9))]
        runs = [run.SweepRun(name=str(i), state=run.RunState.running, history=[{"loss": value} for value in values])
                for i, values in enumerate(histories)]  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = {int(one.name) for one in hyperband.hyperband_stop_runs(runs, config)}
        ours = {i for i, own in enumerate(histories)
                if is_stopped(own, histories[:i] + histories[i + 1 :], rule, goal)}  # fmt: skip
        assert ours == theirs
        stopped += len(ours)
    assert stopped > 5
