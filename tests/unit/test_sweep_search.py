"""A bayes sweep without a server: proposals depend on the seed and on what became of the points before, and on nothing else."""

import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import yaml

from research.errors import UserError
from research.runs.ledger import Ledger
from research.runs.plan import points_so_far
from research.sweeps.hyperband import bands, is_stopped
from research.sweeps.sampling import drawn
from research.sweeps.search import Tried, grow, open_search, propose, values_of
from research.sweeps.spec import read_sweep

LR = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}, "r": {"values": [4, 8, 16]}}


def search(folder: Path, parameters: dict = LR, **more) -> tuple:
    facts = {
        "method": "bayes",
        "metric": {"name": "val/loss"},
        "command": ["x", "${args}"],
        "run_cap": 12,
        "parameters": parameters,
    } | more
    (folder / "s.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    return folder, read_sweep(folder / "s.yaml"), 0


def describe(argv: list[str]) -> dict:
    return {"point": "-".join(argv)}


def loss(values: dict) -> float:
    """Best at lr = 1e-3 and r = 8."""
    return (math.log10(values["lr"]) + 3) ** 2 + (values["r"] != 8)


def run(folder: Path, sweep, seed: int, count: int) -> list[float]:
    ledger = Ledger(folder)
    for _ in range(count):
        one = grow(folder, sweep, seed, describe)
        ledger.append(one.point, "done", value=loss(one.values))
    return [loss(one.values) for one in points_so_far(folder)]


def test_the_search_finds_the_valley_and_dice_do_not(tmp_path):
    """Optuna's TPE, fed through the ledger: 30 trials, 3 seeds."""
    found = []
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        folder, sweep, _ = search(tmp_path / str(seed), run_cap=30)
        losses = run(folder, sweep, seed, 30)
        generator = [loss(point) for point in drawn(sweep, seed, 30)]
        found.append((sum(losses[15:]) / 15, sum(generator[15:]) / 15, min(losses)))
    assert all(late < 0.6 * random_draw for late, random_draw, _ in found), found
    assert max(best for _, _, best in found) < 0.05


def test_one_worker_is_reproducible_and_goes_on_as_if_it_had_not_stopped(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    straight = run(*search(tmp_path / "a"), 12)
    begun = run(*search(tmp_path / "b"), 7)
    assert begun == straight[:7]
    assert run(*search(tmp_path / "b"), 5) == straight  # everything that it knows is in the folder
    folder, sweep, _ = search(tmp_path / "c")
    assert run(folder, sweep, 1, 12) != straight


def test_no_more_than_run_cap_and_each_point_once(tmp_path):
    folder, sweep, seed = search(tmp_path, {"r": {"values": [1, 2, 3, 4]}}, run_cap=4)
    for _ in range(4):
        one = grow(folder, sweep, seed, describe)
        Ledger(folder).append(one.point, "done", value=float(one.values["r"]))
    assert grow(folder, sweep, seed, describe) is None
    assert sorted(one.values["r"] for one in points_so_far(folder)) == [1, 2, 3, 4]


def test_a_search_of_fewer_points_than_run_cap_ends(tmp_path, capsys):
    folder, sweep, seed = search(tmp_path, {"r": {"values": [1, 2]}}, run_cap=9)
    while (one := grow(folder, sweep, seed, describe)) is not None:
        Ledger(folder).append(one.point, "done", value=1.0)
    assert len(points_so_far(folder)) == 2
    assert "ends after 2 of 9 points" in capsys.readouterr().err


def _grow(folder: str, barrier) -> None:
    path = Path(folder)
    propose(read_sweep(path / "s.yaml"), 0, [])  # imports
    barrier.wait(60)

    def slowly(argv: list[str]) -> dict:
        time.sleep(0.02)
        return {"point": f"{os.getpid()}-{time.monotonic_ns()}"}

    while grow(path, read_sweep(path / "s.yaml"), 0, slowly) is not None:
        Ledger(path).append(f"by {os.getpid()}", "running")


def test_workers_that_grow_a_search_together_do_not_overshoot(tmp_path):
    folder, _, _ = search(tmp_path, run_cap=10)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    workers = [context.Process(target=_grow, args=(str(folder), barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    points = [one.point for one in points_so_far(folder)]
    assert len(points) == len({*points}) == 10
    assert len(Ledger(folder).events()) == 10  # as many as were written were proposed: none was overwritten


def test_a_point_that_the_guard_refuses_is_not_tried(tmp_path, capsys):
    def refuse(argv: list[str]) -> dict:
        if argv[-1] == "--r=16":
            raise UserError("r=16 does not fit; expected less. Lower it.")
        return describe(argv)

    folder, sweep, seed = search(tmp_path, run_cap=8)
    while (one := grow(folder, sweep, seed, refuse)) is not None:
        Ledger(folder).append(one.point, "done", value=loss(one.values))
    assert {one.values["r"] for one in points_so_far(folder)} <= {4, 8}
    assert "r=16 does not fit" in capsys.readouterr().err


def test_running_and_pruned_points_count_in_a_proposal(tmp_path):
    _, sweep, _ = search(tmp_path, run_cap=30)
    tried = [Tried({"lr": i / 12, "r": i % 3}, "done", (i / 12 - 0.5) ** 2) for i in range(12)]
    before = propose(sweep, 0, tried)
    assert propose(sweep, 0, tried) == before
    for state, value in (("running", None), ("pruned", 0.01), ("failed", None), ("missing", None)):
        assert set(propose(sweep, 0, [*tried, Tried(before, state, value)])) == {"lr", "r"}
    # four workers ask while nothing has ended: they do not all get the same point
    asked = list(tried)
    for _ in range(4):
        asked.append(Tried(propose(sweep, 0, asked), "running", None))
    assert len({one.draw["lr"] for one in asked[12:]}) == 4
    assert all(values_of(sweep, one.draw)["r"] in (4, 8, 16) for one in asked)


def test_another_search_in_the_folder_is_refused(tmp_path):
    folder, sweep, seed = search(tmp_path)
    open_search(folder, sweep, seed)
    open_search(folder, sweep, seed)
    with pytest.raises(UserError, match="holds another search"):
        open_search(folder, sweep, 1)
    _, other, _ = search(tmp_path, LR | {"r": {"values": [4]}})
    with pytest.raises(UserError, match="holds another search"):
        open_search(folder, other, seed)
    _, more, _ = search(tmp_path, run_cap=24)  # more trials are the same search, longer
    open_search(folder, more, seed)
    facts = json.loads(json.dumps({**sweep.facts}))
    del facts["run_cap"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(facts))
    with pytest.raises(UserError, match="without run_cap has no end"):
        open_search(folder, read_sweep(tmp_path / "s.yaml"), seed)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"min_iter": 2, "eta": 3}, [2, 6, 18, 54]),
        ({"min_iter": 1, "eta": 1.5}, [1, 1, 2, 3]),
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 8, "s": 5, "eta": 2}, [1, 2, 4]),
    ],
)
def test_bands_by_hand(rule, expected):
    assert bands(rule)[:4] == expected


def test_a_run_worse_than_the_threshold_of_its_band_is_stopped():
    others = [[3.0, 1.0], [3.0, 2.0], [3.0, 3.0], [3.0, 4.0], [3.0, 5.0]]
    rule = {"min_iter": 2, "eta": 3}  # six at the band: the value at index 6 / 3 = 2 is the threshold
    assert [is_stopped([9.0, value], others, rule, "minimize") for value in (0.5, 2.5, 3.5)] == [False, False, True]
    assert not is_stopped([9.0], others, rule, "minimize")  # no band yet
    assert not is_stopped([2.1, 9.0], others, rule | {"strict": False}, "minimize")
    assert is_stopped([2.1, 9.0], others, rule, "minimize")
    assert is_stopped([9.0, 2.0], [[1.0, 5.0], [1.0, 6.0]], rule, "maximize")
    assert not is_stopped([9.0, 3.5], [[1.0, math.nan], *others], rule, "maximize")
    assert is_stopped([9.0, 2.5], [[1.0, math.nan], *others], rule, "maximize")


def test_random_points_are_each_there_once(tmp_path):
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump(
            {"method": "random", "command": ["x", "${args}"], "run_cap": 5, "parameters": {"r": {"values": [1, 2, 3]}}}
        )
    )
    sweep = read_sweep(tmp_path / "s.yaml")
    assert sorted(point["r"] for point in drawn(sweep, 0, 5)) == [1, 2, 3]
    assert drawn(sweep, 0, 2) == drawn(sweep, 0, 5)[:2]


TARGETS = [
    ("minimize", 0.5, [0.9, 0.5, 0.4], 2),
    ("minimize", 0.5, [0.9, 0.6], 2),
    ("maximize", 0.5, [0.1, 0.7, 0.9], 2),
    ("maximize", 0, [-1.0, -0.1, 0.0, 1.0], 3),
    ("minimize", None, [0.0, 0.0], 2),
]


@pytest.mark.parametrize(("goal", "target", "values", "begun"), TARGETS)
@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_no_point_is_begun_after_one_has_reached_the_target(method, goal, target, values, begun, tmp_path):
    """W&B: "the sweep will finish once any run reaches the goal for this value"."""
    from research.sweeps.outcome import sweep_exit_code, until_target
    from research.sweeps.plan import plan_point

    metric = {"name": "val/loss", "goal": goal} | ({"target": target} if target is not None else {})
    grid = {"lr": {"values": [*range(len(values))]}}
    folder, sweep, seed = search(tmp_path, LR if method == "bayes" else grid, method=method, metric=metric, run_cap=len(values))
    ledger, plan = Ledger(folder), [plan_point(sweep, {"lr": i}, describe) for i in range(len(values))]
    points = (lambda: points_so_far(folder)) if method == "bayes" else lambda: plan
    due = iter(lambda: grow(folder, sweep, seed, describe), None) if method == "bayes" else iter(plan)
    left = iter(values)
    for one in until_target(folder, sweep, points, due):
        ledger.append(one.point, "done", value=next(left))
    assert sum(standing.state == "done" for standing in ledger.standings([p.point for p in points()]).values()) == begun
    counts = {"done": begun} | ({"missing": len(values) - begun} if begun < len(values) else {})
    assert sweep_exit_code(folder, sweep, points(), 1, counts) == (0 if target is not None and values != [0.9, 0.6] else 1)
    assert sweep_exit_code(folder, sweep, points(), 1, counts | {"failed": 1}) == 1
