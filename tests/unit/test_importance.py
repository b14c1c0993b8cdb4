"""What each factor explains: exactly where the design is full, by a forest elsewhere; the seed is the noise floor."""

import itertools

import numpy as np
import pytest

from research.metrics.factorial import variance_parts
from research.report.factor_sheets import shares
from research.report.figures.importance import NOISE, importance_bars
from research.report.importance import EXACT, FOREST, SEED, forest, importance
from tests.unit.test_study import NOISE as SPREAD
from tests.unit.test_study import grid, made, run

LR, CLIP = "model.optimisation.lr", "model.optimisation.clip"


def by_label(found) -> dict[str, float]:
    return {one.label: one.share for one in found.shares}


def test_a_full_design_is_decomposed_exactly():
    """Parts .0225, .01, .0025 as in test_factorial; the seeds' −.01, 0, .01 add .0002 / 3."""
    found = importance(made(grid()))
    total = 0.0225 + 0.01 + 0.0025 + 0.0002 / 3
    assert found.kind == EXACT
    assert [one.label for one in found.shares] == ["r", "lora_alpha/r", "r × lora_alpha/r", SEED]
    assert [one.share * total for one in found.shares] == pytest.approx([0.0225, 0.01, 0.0025, 0.0002 / 3])
    assert found.rest == pytest.approx(0)
    # mean square within settings 1e-4 (test_factorial) times one degree of freedom, of 12 · total
    assert found.shares[0].chance == pytest.approx(1e-4 / (12 * total))
    assert found.notes[0] == "Exact decomposition of the full factorial design, 2 × 2 settings × 3 seeds."
    assert "Noise floor" not in " ".join(found.notes)


def noisy(scale: float, levels: int = 2, seed: int = 0) -> list:
    """A grid of r and lr where lr does nothing, and seeds spread by `scale`."""
    draws = np.random.default_rng(seed).normal(size=(3, levels, 3)) * scale
    return [
        run(2**i, 16, s, i + draws[i, k, s] + 5 * scale * s, options={LR: 10.0 ** -(k + 2)})
        for i, k, s in itertools.product(range(3), range(levels), range(3))
    ]


def test_a_factor_no_better_than_the_seed_is_said():
    found = importance(made(noisy(0.1)))
    assert found.notes[-1].startswith("Noise floor: lr explains no more than the seed alone (")
    assert by_label(found)["lr"] < found.seed < by_label(found)["r"]
    assert "Noise floor: lr" in importance_bars(found, "val/loss").caption


def test_noise_alone_has_its_expected_share():
    """Pure noise, 200 times: a factor's mean share is the mean of what `chance` says, within the simulation's error."""
    found = []
    for seed in range(200):
        draws = np.random.default_rng(seed).normal(size=(4, 3, 3))
        runs = [run(2**i, 16, s, draws[i, k, s], options={LR: 0.1**k}) for i, k, s in np.ndindex(4, 3, 3)]
        one = next(share for share in importance(made(runs)).shares if share.label == "r")
        found.append((one.share, one.chance))
    ours, chance = np.mean(found, axis=0)
    assert ours == pytest.approx(3 / 35, abs=0.012)  # 3 of 35 degrees of freedom
    assert chance == pytest.approx(3 / 35, abs=0.004)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_forest_agrees_with_the_exact_shares_where_both_exist(seed):
    """Main effects of four by three settings and three seeds: within .08 of the decomposition by hand."""
    rng = np.random.default_rng(seed)
    a, b, noise = rng.normal(size=4) * 2, rng.normal(size=3), rng.normal(size=(4, 3, 3)) * 0.3
    values = a[:, None, None] + b[:, None] + noise
    runs = [run(2**i, 16, s, values[i, k, s], options={LR: 0.1**k}) for i, k, s in np.ndindex(4, 3, 3)]
    study = made(runs)
    parts = variance_parts(values)
    estimated = by_label(forest(study, study.factors, "of a test"))
    for label, axes in (("r", (0,)), ("lr", (1,)), (SEED, (2,))):
        assert estimated[label] == pytest.approx(parts[axes] / values.var(), abs=0.08)
        assert by_label(importance(study))[label] == pytest.approx(parts[axes] / values.var())


def test_levels_weigh_alike_in_the_forest_though_their_numbers_do_not():
    """r = 1, 2, 64: a forest over plain numbers would give 64 half of the range, and 1 hardly any."""
    runs = [
        run(r, 16, s, float(r == 1) + (0.2 if lr == 0.1 else 0.0), options={LR: lr})
        for r in (1, 2, 64)
        for lr in (0.1, 0.01, 0.001)
        for s in range(3)
    ]
    study = made(runs)
    found = by_label(forest(study, study.factors, "of a test"))
    # of levels 1, 0, 0 the variance is 2/9, of .2, 0, 0 it is .04 · 2/9
    assert found["r"] == pytest.approx(1 / 1.04, abs=0.05)
    assert found["lr"] == pytest.approx(0.04 / 1.04, abs=0.03)


def conditional() -> list:
    """LoRA of three ranks beside full fine-tuning, which has none, by two rates."""
    runs = []
    for kind, r in (("LoraConfig", 4), ("LoraConfig", 8), ("LoraConfig", 64), (None, None)):
        for lr, s in itertools.product((0.1, 0.01), range(3)):
            options = {"model.adapter": kind or "full fine-tuning", "model.adapter.r": r, LR: lr}
            loss = {4: 3.0, 8: 2.5, 64: 2.0, None: 1.0}[r] + SPREAD[s] + (0.1 if lr == 0.1 else 0)
            runs.append(run(r or 0, 8, s, loss, options=options, name=f"{lr}"))
            runs[-1].options["model.adapter.lora_alpha"] = r and 8
    return runs


def test_an_option_that_some_settings_have_not_is_a_value_of_its_own():
    found = importance(made(conditional()))
    assert found.kind == FOREST
    text = " ".join(found.notes)
    assert "combinations of the factors have no value, such as" in text
    assert "Where a setting has no r, that counts as a value of its own." in text
    assert "adapter follows from r: how the two share what they explain is arbitrary." in text
    parts = by_label(found)
    assert parts["r"] + parts["adapter"] > 0.5 > 0.1 > parts["lr"]
    assert all(0 <= one.low <= one.share <= one.high <= 1 for one in found.shares)


def test_numbers_drawn_from_a_range_and_none_among_them():
    """A random search: twenty rates over three decades, and five runs without one, which are the worst."""
    rng = np.random.default_rng(0)
    rates = [float(10**power) for power in rng.uniform(-4, -1, 20)] + [None] * 5
    runs = [
        run(int(r), 16, 0, 5.0 if lr is None else abs(np.log10(lr) + 2), options={CLIP: lr}, name=str(i))
        for i, (lr, r) in enumerate(zip(rates, rng.choice([4, 8, 16], 25), strict=True))
    ]
    runs = {(one.options[CLIP], one.options["model.adapter.r"]): one for one in runs}.values()  # one run a setting
    found = importance(made(list(runs)))
    assert by_label(found)["clip"] > 0.6 > 0.1 > by_label(found)["r"]
    assert found.seed is None
    assert "No noise floor: all runs have one seed." in found.notes


def test_shares_depend_neither_on_the_order_of_the_runs_nor_on_chance():
    runs = conditional()
    first, again, turned = (importance(made(some)) for some in (runs, runs, runs[::-1]))
    assert first == again
    assert by_label(first) == pytest.approx(by_label(turned))


def test_a_full_design_without_common_seeds_has_no_floor():
    assert "the settings have one seed in common" in " ".join(importance(made(grid()[::3])).notes)
    apart = [
        one._replace(seed=10 * i + one.seed, options=one.options | {"seed_everything": 10 * i + one.seed})
        for i, one in enumerate(grid())
    ]
    found = importance(made(apart))
    assert found.seed is None
    assert by_label(found)["r"] == pytest.approx(0.0225 / 0.035)
    more = importance(made([*grid(), run(4, 4, 3, 2.5)]))
    assert "values of others (1) are left out" in " ".join(more.notes)


def test_a_factor_that_is_called_seed_is_not_the_seed():
    losses = {(1, 0.1): 2.0, (1, 0.2): 1.9, (2, 0.1): 1.8, (2, 0.2): 1.5}
    runs = [
        run(4, 4, s, loss + SPREAD[s], options={"data.seed": seed, LR: lr})
        for (seed, lr), loss in losses.items()
        for s in range(3)
    ]
    study = made(runs)
    assert [one.label for one in importance(study).shares if one.order == 1] == ["data.seed", "lr"]
    labels = {one.label for one in forest(study, study.factors, "of a test").shares}
    assert labels == {"data.seed", "lr", SEED}


def test_nothing_to_explain():
    assert importance(made([one for one in grid() if one.options["model.adapter.r"] == 4])) is None
    assert importance(made([one._replace(metrics={"val/loss": 1.0}) for one in grid()])) is None


def test_three_factors_add_up_to_one():
    rng = np.random.default_rng(0)
    runs = [run(2**i, 16, s, rng.normal(), options={LR: 0.1**k, CLIP: float(c)}) for i, k, c, s in np.ndindex(2, 3, 2, 2)]
    found = importance(made(runs))
    assert [one.order for one in found.shares] == [1, 1, 1, 2, 2, 2, 3, 0]
    assert sum(one.share for one in found.shares) + found.rest == pytest.approx(1)
    assert sum(one.chance for one in found.shares if one.order) <= 1


def test_the_table_and_the_bars_hold_the_shares():
    study = made(grid())
    found = importance(study)
    sheet = shares(found, "val/loss")
    assert [[cell.text for cell in row] for row in sheet.rows] == [
        ["r", "64.2%", "0.0%"],
        ["lora_alpha/r", "28.5%", "0.0%"],
        ["r × lora_alpha/r", "7.1%", "0.0%"],
        ["seed", "0.2%", "–"],
        ["seed × factors", "0.0%", "–"],
    ]
    figure = importance_bars(found, "val/loss")
    rows = figure.spec["data"]["values"]
    assert [(row["label"], row["text"], row["kind"]) for row in rows] == [
        ("r", "64.2%", "factor"),
        ("lora_alpha/r", "28.5%", "factor"),
        ("r × lora_alpha/r", "7.1%", "interaction"),
        ("seed", "0.2%", "seed"),
    ]
    (rule,) = [layer for layer in figure.spec["layer"] if layer["mark"].get("strokeDash")]
    assert rule["data"]["values"] == [{"share": pytest.approx(found.seed), "text": NOISE}]
    estimated = shares(importance(made(conditional())), "val/loss", "the reason")
    assert estimated.columns == ["factor", "share of variance", "over forests"]
    assert estimated.notes[-1] == "No F tests: the reason."
