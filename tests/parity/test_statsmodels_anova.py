"""The factorial design's F tests against statsmodels, for sums of squares of every type; and Holm over them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from research.metrics.factorial import anova
from research.report.factor_sheets import factorial
from tests.unit.test_study import made, run

pytest.importorskip("statsmodels")
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests


def frame(values: np.ndarray) -> pd.DataFrame:
    names = [*"abcd"[: values.ndim - 1], "seed"]
    rows = [dict(zip(names, index, strict=True)) | {"y": values[index]} for index in np.ndindex(values.shape)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 2, 5), (4, 3, 2), (2, 3, 2, 3), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_anova(shape, blocked, kind):
    values = np.random.default_rng(sum(shape)).normal(size=shape) + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    terms = [f"C({name}, Sum)" for name in "abcd"[: len(shape) - 1]]  # type III needs contrasts that sum to 0
    fitted = ols(f"y ~ {' * '.join(terms)}{' + C(seed, Sum)' if blocked else ''}", frame(values)).fit()
    table = anova_lm(fitted, typ=kind)
    found = anova(values, blocked, order=9)
    wanted = [":".join(terms[axis] for axis in effect.axes) for effect in found.effects]
    for effect, name in [*zip(found.effects, wanted, strict=True), *([(found.block, "C(seed, Sum)")] if blocked else [])]:
        theirs = table.loc[name]
        assert (effect.df, effect.squares, effect.f) == pytest.approx((theirs["df"], theirs["sum_sq"], theirs["F"]))
        assert effect.p == pytest.approx(theirs["PR(>F)"], rel=1e-6)
    assert (found.df, found.squares) == pytest.approx((table.loc["Residual", "df"], table.loc["Residual", "sum_sq"]))


def test_pooled_interactions_are_the_f_test_between_nested_models():
    values = np.random.default_rng(3).normal(size=(2, 3, 2, 3))
    data = frame(values)
    small, large = (ols(f"y ~ {formula}", data).fit() for formula in ("(C(a) + C(b) + C(c)) ** 2", "C(a) * C(b) * C(c)"))
    theirs = anova_lm(small, large).iloc[1]
    effect = anova(values).effects[-1]
    assert (effect.axes, effect.df) == ((), theirs["df_diff"])
    assert (effect.squares, effect.f, effect.p) == pytest.approx((theirs["ss_diff"], theirs["F"], theirs["Pr(>F)"]))


def test_the_table_s_holm():
    noise = np.random.default_rng(5).normal(size=(3, 2, 3)) * 0.3
    levels = (2, 4, 8), (1e-4, 1e-3)
    runs = [
        run(r, 16, seed, i * 0.2 + noise[i, k, seed], options={"model.optimisation.lr": lr})
        for (i, r), (k, lr) in itertools.product(*map(enumerate, levels))
        for seed in range(3)
    ]
    rows = factorial(made(runs)).rows[:3]
    theirs = anova_lm(ols("y ~ C(a) * C(b)", frame(np.arange(3).reshape(3, 1, 1) * 0.2 + noise)).fit())
    ps = theirs["PR(>F)"].iloc[:3].tolist()
    assert [row[6].value for row in rows] == pytest.approx(ps)
    assert [row[7].value for row in rows] == pytest.approx(multipletests(ps, method="holm")[1].tolist())
