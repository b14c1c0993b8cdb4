"""Distributions and grids of a sweep's parameters are those of W&B's package `sweeps`; commands are its agent's."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from research.sweeps.parameters import read_parameter

theirs = pytest.importorskip("sweeps.params", reason="the package sweeps is not installed")

CASES = [
    {"min": 1, "max": 7},
    {"min": 0.5, "max": 2.0},
    {"distribution": "uniform", "min": 1, "max": 3},
    {"distribution": "q_uniform", "min": 0.0, "max": 10.0, "q": 2.0},
    {"distribution": "log_uniform", "min": -5.0, "max": 1.0},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    {"distribution": "inv_log_uniform", "min": 1.0, "max": 3.0},
    {"distribution": "inv_log_uniform_values", "min": 1e-3, "max": 1.0},
    {"distribution": "q_log_uniform_values", "min": 1.0, "max": 64.0, "q": 4.0},
    {"distribution": "q_log_uniform", "min": 0.0, "max": 4.0, "q": 1.0},
    {"distribution": "normal"},
    {"distribution": "normal", "mu": 3.0, "sigma": 0.1},
    {"distribution": "q_normal", "mu": 3.0, "sigma": 2.0, "q": 0.5},
    {"distribution": "log_normal", "mu": 0.0, "sigma": 1.0},
    {"distribution": "q_log_normal", "mu": 1.0, "sigma": 1.0, "q": 0.5},
    {"distribution": "beta", "a": 2.0, "b": 5.0},
    {"distribution": "q_beta", "a": 2.0, "b": 5.0, "q": 0.1},
    {"values": [1, 2, 5]},
    {"values": ["a", "b"], "probabilities": [0.3, 0.7]},
    {"value": 3},
]


@pytest.mark.parametrize("facts", CASES, ids=str)
def test_quantiles_are_w_and_b_s(facts):
    ours, peer = read_parameter("x", dict(facts), "f"), theirs.HyperParameter("x", dict(facts))
    for u in np.linspace(0.013, 0.987, 41):
        expected = peer.ppf(float(u))
        expected = expected.item() if hasattr(expected, "item") else expected
        found = ours.quantile(float(u))
        assert found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9, abs=1e-12))
        assert isinstance(found, int) or not isinstance(expected, int)


GRIDS = [
    {"a": {"values": [1, 2.5, "x"]}, "b": {"value": 3}},
    {"a": {"min": 2, "max": 5}, "b": {"values": [True, False, None]}},
    {"r": {"distribution": "q_uniform", "min": 4, "max": 16, "q": 4}},
    {"r": {"distribution": "q_uniform", "min": 0.1, "max": 0.55, "q": 0.1}},
    {
        "r": {"distribution": "q_uniform", "min": 1, "max": 3, "q": 0.5},
        "s": {"distribution": "int_uniform", "min": 0, "max": 1},
    },
    {"r": {"distribution": "q_uniform", "min": 4, "max": 8}},
    {"r": {"distribution": "q_uniform", "min": 3, "max": 10, "q": 4}},
    {
        "model": {
            "parameters": {"r": {"values": [2, 4]}, "inner": {"parameters": {"x": {"value": 1}, "y": {"min": 0, "max": 1}}}}
        },
        "lr": {"values": [0.1, 0.01]},
    },
    {"a": {"values": [[1, 2], {"k": 1}, {"k": 2, "j": None}]}},
    {"a": {"distribution": "categorical", "values": ["", "--x", "é"]}},
    {"a": {"distribution": "constant", "value": [1]}, "b.c": {"values": [1]}},
]


@pytest.mark.parametrize("parameters", GRIDS, ids=str)
@pytest.mark.parametrize("macro", ["args", "args_no_boolean_flags", "args_json_file", "args_append_hydra"])
def test_grids_and_their_commands_are_w_and_b_s(parameters, macro, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    from research.runs.plan import read_plan, startable, write_plan
    from research.sweeps.plan import describer, plan
    from research.sweeps.sampling import grid
    from research.sweeps.spec import read_sweep
    from sweeps import next_runs

    spec = {"method": "grid", "name": "g", "command": ["x", f"${{{macro}}}"], "parameters": parameters}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    sweep = read_sweep(tmp_path / "s.yaml")
    expected = [run.config for run in next_runs({"method": "grid", "parameters": parameters}, [], n=100) if run]
    in_order = functools.partial(json.dumps, sort_keys=True)
    as_text = [in_order(point) for point in grid(sweep)]
    assert sorted(map(json.loads, as_text), key=in_order) == sorted(
        ({name: one["value"] for name, one in config.items()} for config in expected), key=in_order
    )
    assert len(as_text) == sweep.size
    if any(None in one["values"] for one in parameters.values() if "values" in one) and macro != "args_json_file":
        return  # null is no word of a command: refused elsewhere
    points = plan(sweep, describer(sweep, program=None))
    assert len({one.point for one in points}) == len(points)  # also where the command names a file only
    write_plan(tmp_path, points)
    for one in read_plan(tmp_path):
        theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in one.values.items()}})
        argv = startable(tmp_path, one).argv
        if macro == "args_json_file":
            assert json.loads(Path(argv[1]).read_text()) == json.loads(theirs["args_json"][0])
        else:
            assert argv == ["x", *theirs[macro]]


SPECS = [
    ({"a": {"values": [1]}}, {}),
    ({"a": {"min": 1, "max": 1}}, {}),
    ({"a": {"min": 3, "max": 1}}, {}),
    ({"a": {"values": []}}, {}),
    ({"a": {"values": [1], "min": 1}}, {}),
    ({"a": {"distribution": "q_uniform", "min": 1, "max": 4, "q": 0}}, {}),
    ({"a": {"distribution": "int_uniform", "min": 0.5, "max": 2}}, {}),
    ({"a": {"parameters": {"b": {"value": 1}}}}, {}),
    ({"a": {"parameters": {"b": {"value": 1}}, "value": 1}}, {}),
    ({"a": {"parameters": {}}}, {}),
    ({"a b": {"value": 1}}, {}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "gaol": "maximize"}}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "goal": "up"}}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "target": 0.1}}),
    ({"a": {"value": 1}}, {"run_cap": 0}),
    ({"a": {"value": 1}}, {"early_terminate": {"type": "hyperband", "min_iter": 0}, "metric": {"name": "x"}}),
    ({"a": {"value": 1}}, {"nmae": "x"}),
    ({"a": {"distribution": "beta", "a": 1, "b": 2}}, {"method": "random"}),
    ({"a": {"distribution": "normal", "mu": "x"}}, {"method": "random"}),
    *[
        ({"a": {"values": [1, 2], "probabilities": odds}}, {"method": "random"})
        for odds in ([1, 1], [0.2, 0.3], [True, False], [0.3, 0.7], [0, 1], [-0.5, 1.5])
    ],
    ({"-a": {"value": 1}}, {}),
    ({"a": {"parameters": {"-b": {"value": 1}}}}, {}),
    ({"a": {"value": 1}}, {"metric": {}}),
    ({"a": {"value": 1}}, {"metric": {"goal": "maximize"}}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "target": "0.1"}}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "impute": "wrost"}}),
    ({"a": {"value": 1}}, {"metric": {"name": "x", "impute": "best", "impute_while_running": "false"}}),
    ({"a": {"value": 1}}, {"metrics": [{"name": "x"}, {"name": "y"}]}),
    ({"a": {"value": 1}}, {"program": ["x"]}),
    ({"a": {"value": 1}}, {"kind": "sweeps"}),
    ({"a": {"value": 1}}, {"kind": "sweep", "apiVersion": "1", "description": "d"}),
    *[
        ({"a": {"value": 1}}, {"metric": {"name": "x"}, "early_terminate": {"type": "hyperband", **rule}})
        for rule in (
            {"min_iter": 3, "max_iter": 27, "s": 2},
            {"min_iter": 3, "s": 2},
            {"max_iter": 27},
            {"min_iter": 3, "eta": 1},
            {"min_iter": 3, "strict": "no"},
            {"min_iter": 2.5},
        )
    ],
]


@pytest.mark.parametrize(("parameters", "more"), SPECS, ids=str)
def test_specs_are_taken_and_refused_as_by_w_and_b_s_schema(parameters, more, tmp_path):
    from sweeps.config import schema_violations_from_proposed_config

    from research.errors import UserError
    from research.sweeps.spec import read_sweep

    spec = {"method": "grid", "program": "x.py", "parameters": parameters} | more
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(spec))
    try:
        read_sweep(tmp_path / "s.yaml")
        taken = True
    except UserError:
        taken = False
    try:
        theirs = not schema_violations_from_proposed_config(spec)
    except ValueError:
        theirs = False
    assert taken == theirs


@pytest.mark.parametrize(
    "rule",
    [
        {"min_iter": 1},
        {"min_iter": 2, "eta": 2},
        {"min_iter": 1, "eta": 2, "strict": False},
        {"min_iter": 3, "eta": 1.5},
        {"max_iter": 9, "s": 2},
        {"max_iter": 9, "s": 2, "min_iter": 4},
        {"max_iter": 27, "s": 2, "eta": 3, "strict": False},
        {"max_iter": 8, "s": 3, "eta": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_hyperband_stops_the_runs_that_w_and_b_would_stop(rule, goal):
    import warnings

    from research.sweeps.hyperband import is_stopped

    run, hyperband = pytest.importorskip("sweeps.run"), pytest.importorskip("sweeps.hyperband_stopping")
    rule = {"type": "hyperband", **rule}
    config = {
        "method": "grid",
        "parameters": {"a": {"values": [1]}},
        "metric": {"name": "loss", "goal": goal},
        "early_terminate": rule,
    }
    dice = np.random.default_rng(0)
    stopped = 0
    for _ in range(150):
        histories = [list(dice.normal(size=dice.integers(0, 12)).round(1)) for _ in range(dice.integers(1, 9))]
        runs = [
            run.SweepRun(name=str(i), state=run.RunState.running, history=[{"loss": value} for value in values])
            for i, values in enumerate(histories)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = {int(one.name) for one in hyperband.hyperband_stop_runs(runs, config)}
        ours = {i for i, own in enumerate(histories) if is_stopped(own, histories[:i] + histories[i + 1 :], rule, goal)}
        assert ours == theirs
        stopped += len(ours)
    assert stopped > 5
