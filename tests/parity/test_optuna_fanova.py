"""Shares of the same forest by Optuna's evaluator; and by hand."""

import time

import numpy as np
import optuna
import pytest

from research.errors import UserError
from research.metrics.fanova import main_effects

BOUNDS = np.array([[0.0, 1.0], [-0.5, 2.5], [10.0, 40.0]])


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = np.stack([rng.uniform(size=n), rng.integers(0, 3, size=n).astype(float), rng.uniform(10, 40, n)], axis=1)
    return columns, 3 * columns[:, 0] + (columns[:, 1] == 1) * columns[:, 2] / 10 + rng.normal(size=n) / 3


def theirs(columns: np.ndarray, values: np.ndarray, trees: int, seed: int) -> list[float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {f"p{i}": optuna.distributions.FloatDistribution(low, high) for i, (low, high) in enumerate(BOUNDS)}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={f"p{i}": float(one) for i, one in enumerate(row)}, distributions=ranges, value=value
            )
            for row, value in zip(columns, values, strict=True)
        ]
    )
    found = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(study)
    return [found[f"p{i}"] for i in range(len(BOUNDS))]


@pytest.mark.parametrize("n", [4, 12, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_shares_are_optuna_s(n, seed):
    columns, values = rows(n, seed)
    assert main_effects(columns, BOUNDS, values, 16, seed) == pytest.approx(theirs(columns, values, 16, seed), abs=1e-9)


def test_a_step_s_shares_by_hand():
    """8 where both are above a half, else 0: p0's marginal is 0 or 4, variance 4; of all 8² · 3/16 = 12; so a third each."""
    grid = np.array([[x, y] for x in (0.25, 0.75) for y in (0.25, 0.75)] * 30)
    values = np.where((grid > 0.5).all(axis=1), 8.0, 0.0)
    shares = main_effects(grid, np.array([[0.0, 1.0]] * 2), values, 8, 0)
    assert shares == pytest.approx([1 / 3, 1 / 3])


def test_what_depends_on_nothing_is_refused():
    with pytest.raises(UserError, match="do not depend on their parameters"):
        main_effects(np.zeros((4, 1)), np.array([[0.0, 1.0]]), np.array([1.0, 2.0, 3.0, 4.0]), 4, 0)


def test_a_thousand_runs_take_no_time():
    columns, values = rows(1000, 0)
    start = time.process_time()
    main_effects(columns, BOUNDS, values, 64, 0)
    assert time.process_time() - start < 8  # .4 s on the machine where Optuna takes 15 s
