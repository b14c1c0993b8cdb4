"""Which side of a metric is better is declared where it is made, or said by the user; nobody guesses it by a name."""

import json
from pathlib import Path

import fitting
import pytest

MINE = '''
from research.training.dual_encoder import DualEncoderModule
from research.training.optimisation import Optimisation


class Mine(DualEncoderModule):
    """my_loss is 1 before the training, and grows by 1 with each validation."""

    def __init__(self, model: str, optimisation: Optimisation = Optimisation()):
        super().__init__(model, metrics=["mrr@10"], optimisation=optimisation)
        self.metrics, self.validations = ["mrr@10", "my_loss"], 0

    def evaluate(self, name: str) -> dict[str, float]:
        self.metrics = ["mrr@10"]
        super().evaluate(name)
        self.metrics, self.validations = ["mrr@10", "my_loss"], self.validations + 1
        self.per_query["my_loss"] = {query: float(self.validations) for query in self.per_query["mrr@10"]}
        return self.means()


class Declaring(Mine):
    directions = Mine.directions | {"my_loss": "lower"}
'''
FIT = "fit -c dual.yaml --wandb disabled --monitor val/my_loss --model.class_path mine.{} --trainer.max_epochs 2"


@pytest.fixture
def fit(research, tmp_path, tiny_bert, monkeypatch):
    """fit("options") → its Result; mine.py holds trainers with a metric of their own."""
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda options="", kind="Mine": research(*f"{FIT.format(kind)} {options}".split())


def metrics(folder: str = "run") -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


def test_a_monitor_without_a_declared_side_is_refused_and_the_cure_works(fit):
    refused = fit()
    assert refused.code == 2
    assert "monitor='val/my_loss': Mine does not declare which side of it is better" in refused.err
    assert "expected mode: min or mode: max" in refused.err
    assert not Path("run").exists()
    assert fit("--mode best").code == 2
    for mode, step, side in (("min", 5, "lower"), ("max", 10, "higher")):
        done = fit(f"--mode {mode} --out {mode}")
        assert done.code == 0, done.err
        facts = metrics(mode)
        assert (facts["step"], facts["directions"]) == (step, {"mrr@10": "higher", "my_loss": side})


def test_a_declared_side_needs_no_mode_and_the_mode_that_it_is_changes_nothing(fit):
    assert fit("", "Declaring").code == 0
    facts, marker = metrics(), json.loads(Path("run/provenance.json").read_text())
    assert (facts["step"], facts["directions"]["my_loss"]) == (5, "lower")
    assert "\nmode:" not in Path("run/config.yaml").read_text()
    again = fit("--mode min", "Declaring")  # the same run
    assert "finished before" in again.err
    assert fit("--mode min --out stated", "Declaring").code == 0
    assert json.loads(Path("stated/provenance.json").read_text())["point"] == marker["point"]
    against = fit("--mode max --out against", "Declaring")
    assert against.code == 2
    assert "mode='max' with monitor='val/my_loss' would keep the worst model" in against.err


SWEEP = """
command: [research, fit, -c, dual.yaml, --out, "runs/{point}", --wandb, disabled, "${args}"]
method: bayes
run_cap: 2
metric: {name: val/mrr@10GOAL}
parameters:
  model.temperature: {min: 0.02, max: 0.2}
"""


def test_a_search_for_the_worst_is_refused_unless_its_goal_is_stated(research, tmp_path, tiny_bert, monkeypatch):
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    for goal, code in (("", 2), (", goal: maximize", 0), (", goal: minimize", 0)):
        Path("search.yaml").write_text(SWEEP.replace("GOAL", goal))
        planned = research("sweep", "plan", "search.yaml")
        assert planned.code == code, planned.err
        assert ("expected metric: {name: val/mrr@10, goal: maximize}" in planned.err) == (code == 2)
