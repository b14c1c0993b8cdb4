"""Trainings in `research report`: their curves, their words, what is refused, and what stays out of the tables."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from research.cli import main
from research.errors import UserError
from research.report import numbers, training_words
from research.report.figures import curves
from research.report.page import html
from research.report.systems import read_systems
from research.report.training import read_training, record_of_fit
from research.runs.folder import RunFolder
from tests.unit.test_report import A, B, Tags, run_folder, stage

LOSSES = [0.5, 0.75, 0.25, 0.5]
VALUES = {0: 0.25, 2: 0.5, 4: 0.375}  # the best at step 2


def fit_folder(
    path: Path,
    losses: list[float] = LOSSES,
    values: dict[int, float] = VALUES,
    finished: bool = True,
    model: dict | None = None,
    data: dict | None = None,
    temperature: list[float] | None = None,
) -> Path:
    """A run folder as `research fit` leaves it: a step takes 2 s, a validation 1 s."""
    path.mkdir(parents=True)
    config = {
        "monitor": "val/mrr@10",
        "trainer": {"devices": 1},
        "model": {"init_args": {"model": "some/base", "optimisation": {"lr": 1e-4, "accumulate": 2}} | (model or {})},
        "data": {"init_args": {"train": "beir:x", "train_split": "train", "val_split": "dev", "batch_size": 8} | (data or {})},
    }
    provenance = {
        "command": ["research", "fit", "-c", "a b.yaml"],
        "git_commit": "c0ffee",
        "git_dirty": False,
        "seed": 3,
        "made_of": "m",
        "model_hash": "h0",
        "data": {"train": "t0", "queries": 9, "examples": 1234},
    }
    lines, clock = [], 0
    for step in range(len(losses) + 1):
        if step:
            clock += 2
            rest = {"train/temperature": temperature[step - 1]} if temperature else {}
            lines.append({"step": step, "train/loss": losses[step - 1], "train/lr": 2.5e-5 * step, **rest, "seconds": clock})
        if step in values:
            clock += 1
            lines.append({"step": step, "val/mrr@10": values[step], "seconds": clock})
    trained = {step: value for step, value in values.items() if step}
    best = max(trained, key=trained.get, default=len(losses))
    metrics = {
        "kind": "fit",
        "monitor": "val/mrr@10",
        "step": best,
        "untrained": None,
        "metrics": {"mrr@10": trained[best]} if trained else {},
    }
    metrics |= {"finished": True, "steps": len(losses), "seconds": 70.2} if finished else {}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "provenance.json").write_text(json.dumps(provenance))
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path):
    return read_training(record_of_fit(path, path.name))


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_a_training_is_told_in_one_line(tmp_path):
    training = read(fit_folder(tmp_path / "de", temperature=[0.05, 0.04, 0.03, 0.0499999 - 0.02]))
    assert training_words.result(training) == "MRR@10 on dev .5000 at step 2 of 4; untrained .2500 (+.2500)."
    # 8 queries · 2 batches a step over 2 s; at step 3 a validation's second is in it, which the median leaves out
    assert training_words.facts(training) == [
        "from some/base",
        "on beir:x train, 1,234 examples",
        "4 steps of 8 examples",
        "1 min 10 s",
        "8 examples/s",
        "lr peak 1e−4",
        "temperature .05 to .03",
        "seed 3",
    ]
    assert training_words.state(training) == ""


def test_an_unfinished_training_says_where_it_stands(tmp_path):
    path = fit_folder(tmp_path / "de", finished=False)
    with open(path / "curves.jsonl", "a") as stream:
        stream.write('{"step": 5, "train/lo')  # a line that a killed process left
    training = read(path)
    assert training_words.state(training) == "unfinished at step 4"
    assert training_words.result(training) == ("MRR@10 on dev .5000 at step 2 of 4, the best so far; untrained .2500 (+.2500).")
    (path / "metrics.json").unlink()  # nothing was better than untrained yet, or the folder is young: the curve decides
    assert read(path).best == (2, 0.5)


def test_the_untrained_model_is_never_the_best_step(tmp_path):
    training = read(fit_folder(tmp_path / "de", values={0: 0.75, 2: 0.5}, finished=False))
    assert training.best == (2, 0.5)
    assert training_words.result(training).endswith("untrained .7500 (−.2500).")


def test_the_lowest_loss_so_far_is_the_best(tmp_path):
    path = fit_folder(tmp_path / "sft", values={0: 3.5, 1: 2.5, 2: 2.0, 4: 2.75}, finished=False)
    for name in ("metrics.json", "config.yaml", "curves.jsonl"):
        (path / name).write_text((path / name).read_text().replace("val/mrr@10", "val/loss"))
    (path / "metrics.json").unlink()
    assert read(path).best == (2, 2.0)


@pytest.mark.parametrize(
    ("values", "finished", "said"),
    [
        ({}, True, "Trained without validation: nothing says how good it is, or which step was best."),
        ({0: 0.25}, False, "MRR@10 on dev: untrained .2500; not validated since."),
        ({2: 0.5}, True, "MRR@10 on dev .5000 at step 2 of 4; the untrained model was not validated."),
    ],
)
def test_what_was_not_validated_is_said(tmp_path, values, finished, said):
    assert training_words.result(read(fit_folder(tmp_path / "de", values=values, finished=finished))) == said


def test_a_run_that_went_on_sums_its_processes_seconds(tmp_path):
    path = fit_folder(tmp_path / "de")
    lines = [json.loads(line) for line in (path / "curves.jsonl").read_text().splitlines()]
    for line, seconds in zip(lines, [1, 3, 5, 6, 2, 4, 5], strict=True):  # a fall after 6: 6 + 5
        line["seconds"] = seconds
    (path / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path).seconds == 11


def test_curves_that_a_full_disk_cut_are_said(tmp_path):
    path = fit_folder(tmp_path / "de")
    text = (path / "curves.jsonl").read_text().splitlines(keepends=True)
    (path / "curves.jsonl").write_text("".join(text[:2]))  # step 0 and step 1
    training = read(path)
    assert training_words.state(training) == "its curves end at step 1 of 4"
    assert training.best == (2, 0.5)  # metrics.json knows


def test_a_loss_that_is_not_finite_is_counted_not_drawn(tmp_path):
    training = read(fit_folder(tmp_path / "de", losses=[0.5, math.nan, math.inf, 0.5]))
    assert training.loss == [(1, 0.5), (4, 0.5)]
    assert training_words.state(training) == "2 steps without a finite loss, not drawn"


def test_a_retriever_is_found_by_the_end_of_its_path(tmp_path):
    training = read(fit_folder(tmp_path / "runs" / "de"))
    named = [str(tmp_path / "runs/de"), "runs/de/model", "de", "../runs/de", "runs/other", "pkg:x/de", "bm25", ".", None]
    rows = read_systems(
        [run_folder(tmp_path / f"r{i}", {"dense": stage(A, f"row {i}", model=name)}) for i, name in enumerate(named)]
    ).rows
    assert training_words.used_in(training, rows) == [0, 1, 2, 3]


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("curves.jsonl", None, r"has no lines in curves\.jsonl"),
        ("curves.jsonl", "", r"has no lines in curves\.jsonl"),
        ("curves.jsonl", '{"step": 0}\n{"step": 1, "tra\n', r'curves\.jsonl:2: "\{\\"step.* is damaged; expected an object'),
        ("curves.jsonl", '{"step": 0}\n[1]\n', r"curves\.jsonl:2: \[1\] is damaged"),
        ("curves.jsonl", '{"step": "0"}\n', r"curves\.jsonl:1: .* is damaged"),
        ("curves.jsonl", '{"step": 0, "train/loss": "low"}\n', r"curves\.jsonl:1: .* is damaged"),
        ("curves.jsonl", '{"step": 1}\n{"step": 2', r"curves\.jsonl:2: .* is damaged"),  # finished, so not being written
        ("curves.jsonl", '{"step": 4}\n{"step": 3}\n', r"curves\.jsonl:2: step 3 after step 4; expected steps in order"),
        ("curves.jsonl", '{"step": 2, "val/mrr@10": 0.75}\n', r"0\.7500 at step 2 in curves\.jsonl and 0\.5000 in metrics"),
        ("metrics.json", "not json", r"metrics\.json is not readable JSON"),
        ("metrics.json", "[]", r"metrics\.json has kind \[\]; expected .fit."),
        ("metrics.json", '{"kind": "test", "step": 1, "metrics": {}}', r'has kind "test"; expected "fit"'),
        ("config.yaml", "a: [", r"config\.yaml is not readable YAML"),
        ("config.yaml", "[]", r"config\.yaml holds \[\]"),
        ("config.yaml", None, r"has no config\.yaml"),
    ],
)
def test_damaged_trainings_are_refused_with_value_expectation_and_cure(tmp_path, capsys, file, text, said):
    path = fit_folder(tmp_path / "de")
    (path / file).unlink()
    if text is not None:
        (path / file).write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read(path)
    assert re.search("expected .*(Copy the run folder again|Delete it and run again)", str(error.value))
    assert main(["report", str(path), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_training_that_has_no_curves_yet_names_the_command_that_goes_on(tmp_path):
    path = fit_folder(tmp_path / "de", finished=False)
    (path / "curves.jsonl").unlink()
    with pytest.raises(UserError, match=r"Let it go on: research fit -c 'a b\.yaml'; or leave it out"):
        read(path)


def test_a_folder_is_given_once_whichever_its_kind(tmp_path, capsys):
    path = fit_folder(tmp_path / "de")
    assert main(["report", str(path), str(path), "--out", str(tmp_path / "out")]) == 2
    assert "given 2 times" in capsys.readouterr().err


# ---- figures --------------------------------------------------------------------------------------------------------


def test_the_running_mean_takes_what_there_is_at_the_ends():
    # width 3: (0 + 3) / 2, (0 + 3 + 6) / 3, (3 + 6 + 0) / 3, (6 + 0) / 2
    assert curves.running_mean([(1, 0.0), (2, 3.0), (3, 6.0), (4, 0.0)], 3) == [(1, 1.5), (2, 3.0), (3, 3.0), (4, 3.0)]


@pytest.mark.parametrize(("steps", "width"), [(1, 5), (59, 5), (84, 9), (94, 9), (100, 11), (1000, 101)])
def test_the_running_mean_is_of_a_tenth_of_the_steps(steps, width):
    assert curves.width([(step, 0.0) for step in range(steps)]) == width


def test_a_thinned_curve_keeps_its_peaks():
    curve = [(step, float(step == 777)) for step in range(1000)]
    kept = curves.thin(curve, most=20)
    assert (777, 1.0) in kept
    assert len(kept) <= 20
    assert kept == sorted(kept)
    assert curves.thin(curve[:20], most=20) == curve[:20]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04999999701976776, ".05"), (1e-4, "1e−4"), (2.5e-5, "2.5e−5"), (17.61, "17.6"), (999.7, "1,000"), (0, "0")],
)
def test_plain_numbers(value, text):
    assert numbers.plain(value) == text


def test_the_best_step_is_marked_and_the_untrained_model_named(tmp_path):
    training = read(fit_folder(tmp_path / "de"))
    figure = curves.value_figure(training, "v")
    level, line, others, signs = figure.spec["layer"]
    assert level["data"]["values"] == [{"value": 0.25}]
    assert [(row["step"], row["value"]) for row in line["data"]["values"]] == sorted(VALUES.items())
    assert [row["step"] for row in others["data"]["values"]] == [4]  # the best one has its diamond
    assert signs["data"]["values"] == [
        {"what": "best .5000", "step": 2, "value": 0.5},
        {"what": "untrained .2500", "step": 0, "value": 0.25},
    ]
    assert signs["encoding"]["shape"]["scale"] == {"domain": ["best .5000", "untrained .2500"], "range": ["diamond", "circle"]}
    assert signs["encoding"]["fill"]["scale"]["domain"] == ["best .5000", "untrained .2500"]
    assert figure.caption == "MRR@10 on dev .5000 at step 2 of 4; untrained .2500 (+.2500)."
    assert figure.spec["title"]["text"] == "↑ MRR@10 on dev"


def test_words_of_the_spec_name_a_training_s_metrics(tmp_path):
    labels = {"val/mrr@10": "reciprocal rank", "train/loss": "InfoNCE"}
    training = read(fit_folder(tmp_path / "de"))._replace(labels=labels)
    assert training_words.result(training).startswith("reciprocal rank on dev .5000 at step 2 of 4")
    assert "| reciprocal rank on dev |" in training_words.table([training])
    assert curves.value_figure(training, "v").spec["title"]["text"] == "↑ reciprocal rank on dev"
    loss = curves.loss_figure(training, "l")
    assert (loss.spec["title"]["text"], loss.title) == ("InfoNCE", "InfoNCE of de over steps")


def test_a_loss_is_drawn_step_by_step_and_as_its_running_mean(tmp_path):
    """Of five steps around each: the mean of the first three, of all four, of all four, of the last three."""
    figure = curves.loss_figure(read(fit_folder(tmp_path / "de")), "l")
    raw, smooth = ([(row["step"], row["value"]) for row in layer["data"]["values"]] for layer in figure.spec["layer"])
    assert raw == list(enumerate(LOSSES, 1))
    assert smooth == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert figure.caption == "The mean of 5 steps goes from .5 at step 1 to .5 at step 4."


# ---- the page -------------------------------------------------------------------------------------------------------


def report(out: Path, *paths: Path) -> tuple[str, str, dict]:
    assert main(["report", *map(str, paths), "--out", str(out)]) == 0
    texts = [(out / name).read_text(encoding="utf-8") for name in ("index.html", "report.md", "report.json")]
    return texts[0], texts[1], json.loads(texts[2])


def test_trainings_stand_beside_the_tables_and_never_in_them(tmp_path):
    de = fit_folder(tmp_path / "de")
    tested = run_folder(tmp_path / "run", {"bm25": stage(A, "BM25"), "dense": stage(B, "de (exact)", model=str(de))})
    alone = report(tmp_path / "alone", tested)
    page, text, summary = report(tmp_path / "out", de, tested)
    assert page.count("<h2>Training</h2>") == 1
    assert "In the tables above: 2 de (exact)." in page
    assert re.findall("(?s)<table.*?</table>", page) == re.findall("(?s)<table.*?</table>", alone[0])
    assert text.startswith(alone[1].strip())
    assert "| de | MRR@10 on dev | .5000 | .2500 | 2 | 4 | some/base | beir:x train, 1,234 examples | 1e−4 | – | 3 |" in text
    assert summary["rows"] == alone[2]["rows"]
    assert summary["trainings"] == [
        {
            "run": "de",
            "finished": True,
            "monitor": "val/mrr@10",
            "best": 0.5,
            "step": 2,
            "untrained": 0.25,
            "steps": 4,
            "base_model": "some/base",
            "train": "beir:x",
            "data": {"train": "t0", "queries": 9, "examples": 1234},
            "lr": 1e-4,
            "temperature": None,
            "seed": 3,
            "seconds": 70.2,
        }
    ]


def test_trainings_alone_make_a_page(tmp_path, capsys):
    paths = [fit_folder(tmp_path / "a"), fit_folder(tmp_path / "b", finished=False)]
    page, text, summary = report(tmp_path / "out", *paths)
    assert page.count('<article class="training">') == 2
    assert '<span class="state">unfinished at step 4</span>' in page
    assert "Systems" not in page + text
    assert "| b (unfinished at step 4) |" in text
    assert summary["rows"] == []
    assert main(["report", *map(str, paths), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["trainings"] == 2


def test_a_training_gives_the_same_bytes_wherever_one_stands(tmp_path, monkeypatch):
    fit_folder(tmp_path / "de")
    report(tmp_path / "one", tmp_path / "de")
    monkeypatch.chdir(tmp_path)
    report(Path("two"), Path("de"))
    for name in ("index.html", "report.md", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_markup_in_a_trainings_names_stays_text(tmp_path):
    evil = "<script>alert(1)<b>"
    path = fit_folder(tmp_path / evil, model={"model": evil}, data={"train": evil, "val": evil, "val_split": evil})
    page = report(tmp_path / "out", path)[0]
    assert not {"script", "b"} & {*Tags(page).tags}
    assert Tags(page).outside == []
    assert "&lt;script&gt;" in page


def test_only_fit_folders_are_trainings(tmp_path):
    assert RunFolder(fit_folder(tmp_path / "de")).is_training
    assert not RunFolder(run_folder(tmp_path / "run", {"dense": stage(A, "Dense")})).is_training
    assert not RunFolder(tmp_path / "nowhere").is_training


# ---- λ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "mix", "said"),
    [
        (
            {"depth": 30, "mix": 0.25},
            {"mix": 0.25, "split": "dev", "metric": "ndcg@10", "tried": {}},
            "depth 30, λ .25 chosen on dev",
        ),
        (
            {"depth": 30, "mix": 0.0},
            {"mix": 0.0, "split": "dev", "metric": "ndcg@10", "tried": {}},
            "depth 30, λ 0 chosen on dev",
        ),
        ({"depth": 30, "mix": 0.25}, None, "depth 30, λ .25"),
        ({"depth": 30, "mix": 0.0}, None, "depth 30"),
    ],
)
def test_a_rerankers_depth_and_share_are_told(tmp_path, facts, mix, said):
    stages = {"bm25": stage(A, "BM25"), "reranked": stage(B, "BM25 → ce", **facts)}
    rows = read_systems([run_folder(tmp_path / "r", stages, mix=mix)]).rows
    assert [html._settings(row.facts) for row in rows] == ["", said]
