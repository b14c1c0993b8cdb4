"""The explorer's data: what fits a page, what is left out and said, and that no value is changed on the way."""

import json
import math
from pathlib import Path

import pytest

from research.report import outputs as kept
from research.report.entries import Entry, Shown
from research.report.outputs import outputs
from research.report.page import explorer as explorers
from research.report.page import explorer_curves
from research.report.page.explorer import data, explorer
from research.report.page.explorer_curves import thin
from research.runs.curves import curves_of
from research.runs.record import RunRecord


def entry(name: str, **fields) -> Entry:
    run = RunRecord(
        name, Path(name), "done", "", "", "", 0, {}, {"val/loss": 1.0}, {}, {}, ("", "", ""), provenance={"git_commit": "abc"}
    )
    ours = {field: fields.pop(field) for field in Entry._fields if field in fields}
    return Entry(run._replace(**fields), {}, {}, {})._replace(**ours)


def answered(name: str, values: list[float], text: str = "answer") -> Entry:
    ids = [f"q{i}" for i in range(len(values))]
    return entry(
        name,
        examples={"val/loss": dict(zip(ids, values, strict=True)), "val/f1": dict.fromkeys(ids, 0.5)},
        asked={one: Shown(f"question {one}", "right") for one in ids},
        answers={one: f"{name} {text} {one}" for one in ids},
    )


def test_all_examples_are_kept_where_they_fit():
    found = outputs([answered("a", [1.0, 2.0]), answered("b", [1.23456789, math.inf])], "val/loss")
    assert (found["ids"], found["of"], found["left"]) == (["q0", "q1"], 2, [])
    assert found["metrics"]["val/loss"] == [[1, 2], [1.235, None]]
    assert [[found["texts"][one[i]] for i in (0, 1)] for one in found["answers"]] == [
        ["a answer q0", "a answer q1"],
        ["b answer q0", "b answer q1"],
    ]
    assert found["asked"][1] == ["question q1", "right"]


def test_a_run_without_examples_has_none_and_not_zeros():
    found = outputs([answered("a", [1.0]), entry("b")], "val/loss")
    assert found["metrics"]["val/loss"] == [[1], None]
    assert outputs([entry("a"), entry("b")], "val/loss") == {}


def test_what_does_not_fit_is_sampled_by_hash_and_counted(monkeypatch):
    monkeypatch.setattr(kept, "VALUES", 900)
    runs = [answered("a", [i / 1000 for i in range(300)]), answered("b", [1 - i / 1000 for i in range(300)])]
    found = outputs(runs, "val/loss")
    assert found["of"] == 300
    assert 20 < len(found["ids"]) < 200
    assert found["left"] == ["val/f1"]
    assert len(json.dumps(found["metrics"])) < 1200
    better = [answered("a", [9.0] * 300), answered("b", [i / 1000 for i in range(300)])]
    few = set(outputs(better, "val/loss")["ids"])
    assert few <= set(found["ids"]) or few >= set(found["ids"])  # the same order, whatever the values
    assert found["ids"] != [f"q{i}" for i in range(len(found["ids"]))]  # and not simply the first ones


def test_texts_are_those_that_differ_most_and_others_in_turn(monkeypatch):
    monkeypatch.setattr(kept, "TEXTS", 600)
    spread = [0.0] * 50
    spread[17] = 5.0
    found = outputs([answered("a", spread), answered("b", [0.0] * 50)], "val/loss")
    assert 17 in found["asked"]
    assert 2 < len(found["asked"]) < 12
    assert sum(map(len, found["texts"])) < 600
    assert all(one.keys() == found["asked"].keys() for one in found["answers"])


def test_long_texts_are_cut_and_say_so():
    text = outputs([answered("a", [1.0], "x" * 5000)], "val/loss")["texts"][0]
    assert len(text) == kept.LONGEST + 1
    assert text.endswith("…")


def test_a_thinned_curve_holds_the_mean_of_each_stretch():
    curve = [(i, float(i % 10)) for i in range(1, 1001)]
    assert thin(curve, 100) == [(i, 4.5) for i in range(10, 1001, 10)]
    assert thin(curve, 2000) == curve
    assert thin([(1, math.nan), (2, 1.5)], 10) == [(2, 1.5)]


def test_of_a_step_taken_twice_the_last_counts():
    lines = [{"step": 1, "train/loss": 3.0}, {"step": 2, "train/loss": 2.0, "seconds": 4.0}, {"step": 2, "train/loss": 1.0}]
    assert curves_of(lines) == {"train/loss": [(1, 3.0), (2, 1.0)]}


def test_curves_share_their_steps_and_fit_the_page(monkeypatch):
    monkeypatch.setattr(explorer_curves, "CURVES", 4000)
    curves = {name: [(i, 1.234 + i) for i in range(200)] for name in ("train/lr", "val/loss", "train/loss")}
    found = data([entry("a", curves=curves), entry("b", curves=curves), entry("c")], "val/loss", False, [], [[], [], []])
    assert len(found["steps"]) == 1
    assert list(found["curves"])[:2] == ["val/loss", "train/loss"]
    assert found["curves"]["val/loss"][2] is None
    assert found["thinned"] < 200
    assert len(json.dumps({"curves": found["curves"], "steps": found["steps"]}, separators=(",", ":"))) <= 4000


def test_curves_least_asked_for_are_left_out_first(monkeypatch):
    monkeypatch.setattr(explorer_curves, "CURVES", 800)
    curves = {name: [(i, 1.234 + i) for i in range(200)] for name in ("train/a", "train/b", "val/loss", "train/loss", "val/f1")}
    found = data([entry("a", curves=curves), entry("b", curves=curves)], "val/loss", False, [], [[], []])
    assert next(iter(found["curves"])) == "val/loss"
    assert not {"train/a", "train/b"} & set(found["curves"])


def test_options_that_vary_are_columns_and_the_others_are_said_once():
    runs = [
        entry("a", options={"r": 4, "lr": 1e-3, "targets": ["q", "v"]}),
        entry("b", options={"r": 8, "lr": 1e-3, "targets": ["q"]}),
        entry("c", options={"r": 8}, state="missing", metrics={}, provenance={}),
    ]
    found = data(runs, "val/loss", False, ["r"], [[], [], []])
    columns = {column["id"]: column["values"] for column in found["columns"]}
    assert columns["r"] == [4, 8, 8]
    assert columns["targets"] == ['["q", "v"]', '["q"]', None]
    assert columns["state"] == ["done", "done", "missing"]
    assert columns["val/loss"] == [1.0, 1.0, None]
    assert found["same"] == {"lr": 1e-3}  # that nobody asked the missing point for it is no difference


def test_hostile_text_stays_inside_its_element():
    text = "</script><!--<script>"
    made = explorer([entry(text, options={"x": text}), entry("b")], "val/loss", False, ["x"], [[("Command", text, True)], []])
    assert "<" not in made.data
    assert json.loads(made.data)["names"][0] == text
    assert "</script" not in made.library.lower()
    assert "<!--" not in made.library


def test_without_vl_convert_the_page_has_no_charts_and_everything_else(monkeypatch):
    monkeypatch.setattr(explorers, "can_draw", lambda: False)
    made = explorer([entry("a"), entry("b")], "val/loss", False, [], [[], []])
    assert made.library == ""
    assert len(made.hashes) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 1 / 3])
def test_the_data_is_json_that_a_browser_reads(value):
    made = explorer([entry("a", metrics={"val/loss": value}), entry("b")], "val/loss", False, [], [[], []])
    assert "NaN" not in made.data
    assert "Infinity" not in made.data
