"""The better side of a metric stands where the metric is made; a report says what it takes from a name."""

import pytest
from test_study import NOISE, run

from research.metrics.directions import DIRECTIONS, direction
from research.report.goals import declaration
from research.report.groups import make_study
from research.training.cross_encoder import CrossEncoderModule
from research.training.dpo import DPOModule
from research.training.dual_encoder import DualEncoderModule
from research.training.sft import SFTModule


@pytest.mark.parametrize("trainer", [DualEncoderModule, CrossEncoderModule, SFTModule, DPOModule])
def test_what_a_trainer_declares_is_what_reports_of_its_runs_read(trainer):
    assert trainer.directions.items() <= DIRECTIONS.items()


@pytest.mark.parametrize(
    ("metric", "side"),
    [
        ("val/ndcg@10", "higher"),
        ("ndcg@10", "higher"),
        ("test/recall@100", "higher"),
        ("train/loss", "lower"),
        ("val/reward_rejected", "lower"),
        ("val/tokens_chosen", None),
        ("val/my_loss", None),
        ("eval/loss", None),
        ("val/accuracy", None),
    ],
)
def test_declared_sides(metric, side):
    assert direction(metric) == declaration(metric) == side


def runs(metric: str, **directions: str):
    return [
        run(r, 8, seed)._replace(metrics={metric: r + NOISE[seed]}, directions=directions) for r in (1, 2) for seed in range(3)
    ]


def test_a_report_says_what_it_took_from_a_name_and_how_to_correct_it():
    assumed = make_study(runs("eval/my_loss"), "eval/my_loss", ["model.adapter.r"])
    assert not assumed.higher
    assert any(
        "less of eval/my_loss is taken for better, by its name" in one and "`goal: maximize`" in one for one in assumed.warnings
    )
    said = make_study(runs("eval/my_loss"), "eval/my_loss", ["model.adapter.r"], higher=True)
    assert said.higher
    assert not any("better" in one for one in said.warnings)


def test_what_a_run_declares_is_taken_before_its_name():
    found = make_study(runs("val/my_loss", my_loss="higher"), "val/my_loss", ["model.adapter.r"])
    assert found.higher
    assert not found.guessed
    assert not any("better" in one for one in found.warnings)
