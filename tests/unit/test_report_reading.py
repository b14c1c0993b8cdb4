"""What a reader of a report sees: digits of a column, names of runs and sets, colours that stay, figures as wide as a paper."""

import re

import pytest

from research.report import training_words
from research.report.figures import of_study
from research.report.figures.fit import COLUMN, PAGE, fitted, width
from research.report.figures.theme import COLOURS, look
from research.report.importance import importance
from research.report.numbers import column
from research.report.provenance import facts
from research.report.study_sheets import every_run, results
from tests.unit.test_report_training import fit_folder, read
from tests.unit.test_study import NOISE, made, run


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.13, 1310.0], ["0.13", "1,310.00"]),
        ([0.0013, 1.0], ["0.0013", "1.0000"]),
        ([0.00013, 0.0], ["0.00013", "0.00000"]),  # a zero asks for no digits
        ([4e-9, 12.0], ["4e−9", "12"]),  # so many digits nobody reads: each for itself
        ([90.4, 103.0], ["90", "103"]),
        ([0.31, 103.0], ["0.31", "103.00"]),
    ],
)
def test_a_column_has_the_digits_of_its_smallest_value(values, texts):
    assert column(values, 0 if max(values) < 1000 and max(values) > 50 else 2) == texts


def test_short_times_and_small_losses_are_no_zeros():
    runs = [run(r, 4, s, 3e-6 * r + NOISE[s] * 1e-6) for r in (4, 8) for s in range(3)]
    study = made([one._replace(facts=one.facts | {"seconds": 0.13 * one.options["model.adapter.r"] / 4}) for one in runs])
    sheet = results(study)
    assert [row[sheet.columns.index("seconds")].text for row in sheet.rows] == ["0.13", "0.26"]
    sheet = every_run(study)
    assert "0.000000" not in {row[sheet.columns.index("val/loss")].text for row in sheet.rows}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({}, "dev"),
        ({"val": "beir:y"}, "dev of beir:y"),
        ({"val": "rows/val.jsonl"}, "val.jsonl"),  # a table has no splits: `dev` is asked of nobody
        ({"train": "rows.jsonl", "val_split": "train[90%:]"}, "rows.jsonl[90%:]"),
        ({"val_split": None}, ""),
    ],
)
def test_the_set_that_chose_a_model_is_the_one_that_was_used(tmp_path, data, where):
    assert training_words.validated_on(read(fit_folder(tmp_path / "de", data=data))) == where


def test_a_file_is_trained_on_without_a_split(tmp_path):
    training = read(fit_folder(tmp_path / "de", data={"train": "rows.jsonl"}))
    assert training_words.data(training) == "rows.jsonl, 1,234 examples"


def test_points_are_called_by_their_setting_and_seed():
    runs = [run(r, 4, s, 1.0 + NOISE[s]) for r in (4, 8) for s in range(3)]
    point = "0123456789abcdef"
    runs[4] = runs[4]._replace(name=point, point=point, state="failed", error="no room", metrics={})
    study = made(runs)
    assert any(warning == "1 run is failed and in no mean: r=8 seed 1 (no room)" for warning in study.warnings)
    assert study.groups[0].called(runs[0]) == runs[0].name  # a folder's own name says more


def test_what_a_run_does_not_say_is_unknown():
    told = dict(one[:2] for one in facts({"made_of": "m", "command": ["research", "fit"], "git_commit": None, "seed": 0}))
    assert told["Git commit"] == "none: not run from a git repository"
    names = ("Code, sha256", "Data, sha256", "Model, sha256", "Packages", "Device", "Machine")
    assert {told[name] for name in names} == {"unknown"}
    assert facts({}) == []
    whole = {"made_of": "m", "fingerprint": "f", "data": {"train": "t"}, "model_hash": "h", "packages": {"torch": "2"}}
    told = dict(one[:2] for one in facts(whole | {"device": "cuda", "platform": "Linux", "cpus": 2, "git_commit": "c"}))
    assert "unknown" not in {told[name] for name in names}
    assert (told["Model, sha256"], told["Device"], told["Machine"]) == ("base h", "cuda", "Linux, 2 processors")


def methods():
    """LoRA at two r and prompt tuning; a full fine-tuning before them that has no count of parameters."""
    kinds = [("full", {}), ("LoraConfig", {"r": 4}), ("LoraConfig", {"r": 8}), ("PromptTuningConfig", {"r": None})]
    runs = []
    for kind, more in kinds:
        for seed in range(3):
            options = {"model.adapter": kind} | {f"model.adapter.{name}": value for name, value in more.items()}
            one = run(more.get("r") or 1, 4, seed, 1.0 + NOISE[seed], options=options, name=kind)
            runs.append(one._replace(facts={} if kind == "full" else one.facts))
    return made(runs)


def test_a_method_has_its_colour_in_every_figure_whatever_is_left_out():
    pytest.importorskip("altair")
    figures = {one.name: one.spec for one in of_study(methods(), lambda one: [(step, 1.0 + step) for step in range(4)])}
    found = str(figures["parameters"])
    assert COLOURS[0] not in found.replace(str(figures["parameters"]["config"]), "")  # that of full fine-tuning, not drawn here
    assert all(look(i)[0] in found for i in (1, 2))


def test_figures_fit_a_column_and_a_page_with_letters_that_can_be_read():
    pytest.importorskip("vl_convert")
    runs = [
        run(r, a, s, 1.0 + r / 8 + NOISE[s], options={"a.rather.long.name.of.an.option": lr})
        for r in (4, 8)
        for a in (8, 16)
        for lr in ("constant with warm-up", "cosine with restarts")
        for s in range(2)
    ]
    study = made(runs)
    figures = of_study(study, lambda one: [(step, 3.0 - step / 9) for step in range(5)], importance(study))
    narrow = {}
    for figure in figures:
        for px in (COLUMN, PAGE):
            if (fit := fitted(figure, px)) is not None:
                assert width(fit[1]) <= px
                narrow[figure.name, px] = fit[1]
    for name in ("curves", "importance", "parameters"):
        assert (name, COLUMN) in narrow
    assert ("parallel", COLUMN) not in narrow  # its texts would touch
    sizes = {float(size) for svg in narrow.values() for size in re.findall(r'font-size="([\d.]+)px"', svg)}
    assert min(sizes) >= 11
