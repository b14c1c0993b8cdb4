"""How points are shown: short options, a table of 80 columns, what ended with which value, and the time that is left."""

import io
import time

import pytest
from rich.console import Console

from research.runs.ledger import Standing
from research.runs.plan import PlannedPoint
from research.sweeps.shown import duration_text, errors, outcome_text, progress_text, short_options, table, time_left

PROMPT = {"class_path": "peft.PromptTuningConfig", "init_args": {"task_type": "CAUSAL_LM", "num_virtual_tokens": 20}}
LORA = {"class_path": "peft.LoraConfig", "init_args": {"task_type": "CAUSAL_LM", "r": 4}}


@pytest.mark.parametrize(
    ("points", "texts"),
    [
        ([{"model.adapter": {"r": r, "lora_alpha": 2 * r}, "seed_everything": 0} for r in (4, 8)], ["r=4", "r=8"]),
        (
            [{"model.adapter": {"r": r, "lora_alpha": s * r}} for r in (4, 8) for s in (1, 2)],
            [f"r={r} lora_alpha/r={s}" for r in (4, 8) for s in (1, 2)],
        ),
        ([{"model.adapter.r": 4, "model.adapter.lora_alpha": a} for a in (4, 8)], ["lora_alpha=4", "lora_alpha=8"]),
        ([{"seed_everything": seed, "a": 1} for seed in (0, 1)], ["seed=0", "seed=1"]),
        ([{"a": 1}], [""]),
        (
            [{"model.adapter": PROMPT}, {"model.adapter": LORA}],
            ["class_path=PromptTuningConfig num_virtual_tokens=20", "class_path=LoraConfig r=4"],
        ),
        (
            [{"data.limit": 1, "data.val_limit": 2}, {"data.limit": 3, "data.val_limit": 4}],
            ["limit=1 val_limit=2", "limit=3 val_limit=4"],
        ),
        ([{"a.x": 1, "b.x": 1}, {"a.x": 2, "b.x": 2}], ["a.x=1 b.x=1", "a.x=2 b.x=2"]),
        ([{"lr": 0.00123456}, {"lr": 1e-5}], ["lr=0.001235", "lr=1e-05"]),
        ([{"t": ["q_proj", "v_proj"]}, {"t": "all-linear"}], ["t=q_proj,v_proj", "t=all-linear"]),
        ([{"d": "/data/sets/of/mine/train.jsonl"}, {"d": "x"}], ["d=…/mine/train.jsonl", "d=x"]),
        ([{"d": "a text that is long"}, {"d": "x"}], ["d=a text that is lo…", "d=x"]),
    ],
)
def test_points_are_told_apart_in_a_few_words(points, texts):
    assert short_options(points) == texts


def planned(count: int, **facts) -> list[PlannedPoint]:
    values = [
        {"model.adapter": {"class_path": "peft.LoraConfig", "init_args": {"r": 2**i}}, "data.train": f"/d/{i}"}
        for i in range(count)
    ]
    return [PlannedPoint(f"{i:016x}", value, [], facts) for i, value in enumerate(values)]


def standing(state: str, **last) -> Standing:
    return Standing(state, int(state != "missing"), 0, last)


def test_the_table_has_80_columns_and_the_wide_one_whole_values():
    points = planned(3)
    ends = [standing("done", seconds=4000.0, value=2.5), standing("preempted"), standing("failed", error="x" * 300)]
    standings = {point.point: end for point, end in zip(points, ends, strict=True)}
    narrow, wide = (Console(width=width, record=True, file=io.StringIO()) for width in (80, 500))
    narrow.print(table(points, standings))
    lines = narrow.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[:2]] == [
        ["point", "options", "state", "tries", "time", "value"],
        ["0000000000000000", "r=1", "train=/d/0", "done", "1", "67", "min", "2.5000"],
    ]
    wide.print(table(points, standings, is_wide=True))
    assert "{'class_path': 'peft.LoraConfig', 'init_args': {'r': 4}}" in wide.export_text()
    assert errors(points, standings) == [f"{points[2].point}: {'x' * 300}"]


def test_the_time_left_is_what_the_ended_points_took_for_those_that_have_not():
    points = planned(4)
    states = [
        standing("done", seconds=30.0),
        standing("running", time=time.time() - 10),
        standing("missing"),
        standing("missing"),
    ]
    standings = {point.point: end for point, end in zip(points, states, strict=True)}
    assert time_left(points, standings, 4, 1) == pytest.approx(20 + 30 + 30, abs=0.5)
    assert time_left(points, standings, 4, 2) == pytest.approx(40, abs=0.5)
    assert time_left(points, standings, 6, 2) == pytest.approx((20 + 4 * 30) / 2, abs=0.5)  # a search proposes two more
    assert progress_text(points, standings, 4, 2) == "1 of 4, about 40 s left"
    fresh = {point.point: standing("missing") for point in points}
    assert time_left(points, fresh, 4, 2) is None
    assert time_left(planned(4, seconds=50.0), fresh, 4, 2) == pytest.approx(100)  # sweep plan --measure
    assert progress_text(points, fresh, 4, 2) == "0 of 4"


def test_what_a_worker_s_first_point_took_counts_while_it_is_all_there_is():
    points = planned(4)
    slow, quick = standing("done", seconds=90.0, time=1.0), standing("done", seconds=10.0, time=2.0)
    standings = {point.point: end for point, end in zip(points, [quick, slow, *[standing("missing")] * 2], strict=True)}
    assert time_left(points, standings, 4, 1) == pytest.approx(20)  # the first one has imported torch
    assert time_left(points, standings, 4, 2) == pytest.approx(50)


def test_measured_points_are_weighed_by_what_they_were_measured_at():
    points = [point._replace(facts={"seconds": seconds}) for point, seconds in zip(planned(2), (10.0, 40.0), strict=True)]
    standings = {points[0].point: standing("done", seconds=20.0), points[1].point: standing("missing")}
    assert time_left(points, standings, 2, 1) == pytest.approx(80)  # twice as slow as it was measured


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (standing("done", seconds=41.2, value=2.34567), "done in 41 s, val/loss=2.3457"),
        (standing("failed", seconds=1.0, error="it is a file"), "failed in 1.0 s: it is a file"),
        (standing("running"), "is running"),
        (Standing("running", 2, 1, {}), "is running, attempt 2"),
    ],
)
def test_what_became_of_a_point(end, text):
    assert outcome_text(end, "val/loss") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.04, "4.0 s"), (99.4, "99 s"), (125, "2 min"), (5940, "99 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
