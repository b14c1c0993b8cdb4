"""Where the rooms of a report meet: names of metrics, runs that count, values that no table or figure expects."""

import datetime
import json
import math
import sys

import pytest

from research.errors import UserError
from research.report import factor_sheets
from research.report.claims import BROKEN, UNDERPOWERED, check, parse, read_claims
from research.report.diff import best
from research.report.entries import of_run
from research.report.export import write_tidy
from research.report.factor_sheets import by_factor
from research.report.figures import of_study
from research.report.figures.cost import against_seconds
from research.report.figures.curves import learning_curves
from research.report.figures.parallel import parallel
from research.report.goals import direction, is_lower
from research.report.groups import make_study
from research.report.importance import importance
from research.report.numbers import share
from research.report.outputs import outputs
from research.report.page.explorer import data
from research.report.provenance import facts
from research.report.sheets import distinct, slug
from research.report.study import Group, Study
from research.report.study_record import read_study_record, study_record
from research.report.study_sheets import finding, results
from research.runs.curves import read_lines
from research.runs.options import flat
from research.runs.table import as_frame, read_runs
from research.runs.wandb.records import UNSAID, origin_facts
from tests.synthetic_runs import write_study
from tests.unit.test_study import NOISE, made, run


@pytest.mark.parametrize(
    "name",
    [
        "val/loss",
        "loss/val",
        "Loss/train",
        "val/loss_epoch",
        "val_loss_epoch",
        "train/loss_step",
        "val-loss",
        "val loss",
        "valLoss",
        "Val Loss",
        "loss_val",
        "val/loss/dataloader_idx_0",
        "eval_loss",
        "val.loss",
        "loss.min",
        "val/error_rate",
        "eval/ppl",
        "eval/cross_entropy",
        "logloss",
        "val_log_loss",
        "xent",
        "brier",
        "ECE",
        "mape",
        "FID",
        "eval/ter",
        "eer",
        "bits_per_char",
        "latency_ms",
        "regret",
        "test/latency",
        "val/rmse_mean",
        "neg_log_likelihood",
        "negative_log_likelihood",
        "loss_total",
        "loss_ce",
        "kl_div",
        "epoch_time",
        "gpu_memory_gb",
        "latency_p95",
        "error_top5",
        "top-5 error",
        "word_perplexity,none",
        "false_positive_rate",
        "miss_rate",
        "mean_rank",
        "MedR",
        "bits_per_dim",
        "lpips",
        "rmsle",
        "ms_per_query",
        "n_parameters",
        "hallucination_rate",
        "loss_bbox",
        "accuracy_error",
        "brier_score",
        "accuracy_drop",
        "val/reward_rejected",
        "val/kl",
        "test/other_loss",
        "val/perplexity",
        "MSE",
        "val/l1_loss@10",
    ],
)
def test_less_is_better_of_losses_however_a_program_names_them(name):
    assert is_lower(name)


@pytest.mark.parametrize(
    "name",
    [
        "val/accuracy",
        "accuracy/val",
        "val/rouge_l",
        "ndcg@10",
        "val/mrr@10",
        "val/reward_chosen",
        "val/loss_scale_ok",
        "eval/f1",
        "token_accuracy",
        "win_rate",
        "val/reward_margin",
        "",
        "neg_mean_squared_error",
        "neg_log_loss",
        "negative_recall",
        "ERR@20",
        "recip_rank",
        "mean_reciprocal_rank",
        "tokens_per_second",
        "loss_scale",
        "f1_macro",
        "acc_norm,none",
        "chrF++",
    ],
)
def test_more_is_better_of_scores_and_taken_for_better_of_all_else(name):
    assert not is_lower(name)


@pytest.mark.parametrize(
    "name",
    [
        "chrF++",
        "mIoU",
        "F1Score",
        "F1-score",
        "f1_macro",
        "f1_weighted",
        "BLEU-4",
        "rougeL_fmeasure",
        "recall_at_10",
        "ndcg_cut_10",
        "map_cut_100",
        "P_10/recall_1000",
        "acc_norm,none",
        "exact_match,strict-match",
        "roc_auc_score",
        "acc_top1",
        "samples_per_second",
        "eval_steps_per_second",
        "hit_rate",
        "success_rate",
        "pass@1",
        "R2Score",
        "err@20",
        "mAP",
        "Acc@1",
        "negative_recall",
        "neg_root_mean_squared_error",
        "recip_rank",
        "average_precision",
        "bert_score",
        "throughput",
    ],
)
def test_names_of_other_programs_tell_that_more_is_better(name):
    """Said, and not guessed: a guess is a warning on the page."""
    assert direction(name) == "higher"


def test_examples_of_two_splits_are_not_taken_for_each_other(tmp_path):
    """`fit` and `research test` both count their examples from 0."""
    write_study(tmp_path / "s", points=2, outputs=2)
    runs = read_runs([tmp_path / "s"])
    for one in runs:
        answers = {"0": {"prompt": "of the test", "reference": "", "answer": f"test {one.seed}"}}
        (one.path / "test.json").write_text(
            json.dumps({"metrics": {"loss": 9.0}, "per_query": {"loss": {"0": 9.0}}, "answers": answers})
        )
    entries = [of_run(one, read_lines, True) for one in read_runs([tmp_path / "s"])]
    found = outputs(entries, "val/loss")
    place = {example: i for i, example in enumerate(found["ids"])}
    assert found["asked"][place["test/0"]] == ["of the test", ""]
    assert found["asked"][place["val/0"]][0] != "of the test"
    assert found["metrics"]["test/loss"][0][place["test/0"]] == 9
    assert found["metrics"]["test/loss"][0][place["val/0"]] is None
    assert found["metrics"]["val/loss"][0][place["test/0"]] is None


def test_the_document_shown_as_first_is_the_metrics_first():
    """Of equal scores the larger id ranks first, whatever the order of insertion."""
    from research.metrics.retrieval import evaluate
    from research.training.validation import first_documents
    from research.types import Collection, Document

    corpus = {name: Document(name, f"text of {name}") for name in ("a", "b")}
    data = Collection("x", "dev", corpus, {"q": "question"}, {"q": {"b": 1}}, "", {})
    ranking = {"q": {"a": 1.0, "b": 1.0}}
    assert evaluate(data.qrels, ranking, ["mrr@10"])["mrr@10"] == {"q": 1.0}
    assert first_documents(data, ranking)["q"]["answer"].startswith("✓ relevant")


def test_a_study_of_pruned_runs_alone_is_refused():
    """They have numbers of their last validation, and are in no mean."""
    runs = [run(r, 4, s, 1.0 + NOISE[s], state="pruned") for r in (4, 8) for s in range(3)]
    with pytest.raises(UserError, match="no finished run has val/loss; expected one of nothing: no run is finished"):
        made(runs)


def test_a_full_design_of_equal_values_has_no_f_test():
    found = made([run(r, a, s, 1.0) for r in (4, 8) for a in (8, 16) for s in range(3)])
    assert factor_sheets.factorial(found) is None
    assert factor_sheets.not_factorial(found) == "every run has the same value"


def test_shares_of_variance_have_no_unit():
    """A forest splits no node whose variance is below 2e-16: values around 1e-9 looked constant."""
    settings = ((4, 8), (8, 16), (8, 32), (4, 64), (16, 8))
    found = [
        importance(made([run(r, a, s, unit * (1 + r / 8 + a / 40 + NOISE[s])) for r, a in settings for s in range(3)]))
        for unit in (1.0, 1e-9, 1e140)
    ]
    assert [one.kind for one in found] == ["forest"] * 3
    for one in found[1:]:
        assert [share.label for share in one.shares] == [share.label for share in found[0].shares]
        assert [share.share for share in one.shares] == pytest.approx([share.share for share in found[0].shares], abs=0.05)


def test_a_factor_of_which_the_lines_drawn_have_one_value_keeps_its_axis():
    groups = [Group(f"g{i}", {"kind": "a" if i < 205 else "b", "r": i}, [], {0: float(i)}, {}) for i in range(210)]
    ticks = [
        layer["data"]["values"]
        for layer in parallel(Study("val/loss", False, groups, ["kind", "r"], [])).spec["layer"]
        if layer["mark"].get("shape") == "stroke"
    ]
    assert [one for one in ticks[0] if one["axis"] == 0] == [{"axis": 0, "at": 1.0, "text": "a"}]


def test_figures_of_an_infinite_level_are_json():
    """`gradient_clip_val: .inf` is a value like others; the page's scripts read its figures as JSON."""
    runs = [
        run(r, 4, s, 1.0 + r / 8 + NOISE[s], options={"clip": clip})
        for r in (4, 8)
        for clip in (1.0, 2.0, math.inf)
        for s in range(3)
    ]
    found = made(runs)
    drawn = of_study(found, lambda one: [], importance(found))
    assert "parallel" in [one.name for one in drawn]
    for one in drawn:
        json.dumps(one.spec, allow_nan=False)


def test_columns_of_one_name_are_two_columns():
    """Of W&B: an option `loss` beside a metric `loss`, a metric `error`, options `state` and `system`."""
    entries = [
        of_run(
            run(4, 4, s, options={"loss": kind, "state": kind, "system": kind})._replace(
                metrics={"loss": 1.0 + s, "error": 0.5 + s}, facts={"loss": 3.0 + s}, history=lambda metric: []
            ),
            read_lines,
            False,
        )
        for s, kind in enumerate(("mse", "mae"))
    ]
    found = data(entries, "error", False, ["loss"], [[], []])
    ids = [column["id"] for column in found["columns"]]
    assert len(ids) == len({*ids})
    assert found["metric"] == "metric.error"
    values = {column["id"]: column["values"] for column in found["columns"]}
    assert values[found["metric"]] == [0.5, 1.5]
    assert values[found["factors"][0]] == ["mse", "mae"]
    assert (values["loss"], values["fact.loss"], values["state"]) == ([1.0, 2.0], [3.0, 4.0], ["done", "done"])
    assert "system" not in ids


def test_the_goal_of_a_study_is_that_of_its_column():
    """`goal: maximize` of a loss: sorting and the bold value of the page follow the tables."""
    entries = [of_run(run(4, 4, s, 1.0 + s)._replace(history=lambda metric: []), read_lines, False) for s in range(2)]
    (column,) = (one for one in data(entries, "val/loss", True, [], [[], []])["columns"] if one["kind"] == "metric")
    assert column["lower"] is False


def test_columns_have_the_side_that_their_runs_recorded():
    """`val/my_gain` by its name would be the higher the better; its trainer says lower. Of `foo` nobody knows."""
    values = {"val/loss": 1.0, "val/my_gain": 2.0, "val/rouge_l": 0.5, "val/foo": 3.0}
    runs = [
        run(4, 4, s)._replace(metrics=values, history=lambda metric: [], directions={"val/my_gain": "lower"}) for s in range(2)
    ]
    found = data([of_run(one, read_lines, False) for one in runs], "val/loss", False, [], [[], []])
    sides = {one["label"]: (one["lower"], one.get("named")) for one in found["columns"] if one["kind"] == "metric"}
    assert sides == {
        "val/loss": (True, None),
        "val/my_gain": (True, False),
        "val/rouge_l": (False, False),
        "val/foo": (None, False),
    }
    foreign = [one._replace(metrics={"val/loss": 1.0, "val/wer": 0.5}) for one in runs]
    found = data([of_run(one, read_lines, False) for one in foreign], "val/loss", False, [], [[], []])
    assert [(one["lower"], one["named"]) for one in found["columns"] if one["label"] == "val/wer"] == [(True, True)]


def test_a_report_keeps_the_sides_that_its_runs_recorded():
    """A later `--diff` by a custom metric takes the best by what the trainer declared, not by its name."""
    runs = [
        run(r, 4, s)._replace(
            metrics={"val/loss": 1.0 + r + NOISE[s], "val/my_gain": r + NOISE[s]}, directions={"val/my_gain": "lower"}
        )
        for r in (4, 8)
        for s in range(3)
    ]
    kept = read_study_record(json.loads(json.dumps(study_record(made(runs)))), "report.json")
    assert not kept.higher_is_better("val/my_gain")
    assert best(kept, "val/my_gain").factors["model.adapter.r"] == 4
    assert not kept.study("val/my_gain").guessed


def test_a_metric_called_error_leaves_the_errors_in_the_tidy_table():
    runs = [run(4, 4, 0, state="failed", error="no room"), run(4, 4, 1)._replace(metrics={"error": 0.5, "seed": 7.0})]
    found = as_frame(runs).to_dict("list")
    assert (found["error"], found["metric.error"]) == (["no room", ""], [None, 0.5])
    assert (found["seed"], found["metric.seed"]) == ([0, 1], [None, 7.0])


def test_figures_are_of_the_runs_that_the_tables_count():
    """Of r = 4 seed 0 there twice, seed 1, and seed 2 that diverged: the curve is the mean of 1 and 3, not of 1, 1, 3 and 9."""
    runs = [run(4, 4, 0, 1.0), run(4, 4, 0, 1.0, name="copy"), run(4, 4, 1, 3.0), run(4, 4, 2, math.nan), run(8, 4, 0, 2.0)]
    runs = [one._replace(facts={"seconds": {0: 10.0, 1: 30.0, 2: 90.0}[one.seed]}) for one in runs]
    runs[-1] = runs[-1]._replace(facts={"seconds": 7.0})
    found = made(runs)
    assert [one.name for one in found.groups[0].counted] == ["r4a4s0", "r4a4s1"]
    drawn = learning_curves(found, lambda one: [(step, {0: 1.0, 1: 3.0, 2: 9.0}[one.seed]) for step in range(4)])
    assert {row["mean"] for row in drawn.spec["data"]["values"] if row["line"] == "r=4"} == {2.0}
    cost = against_seconds(found)
    assert [row["x"] for row in cost.spec["data"]["values"]] == [20.0, 7.0]


def test_a_step_that_a_resumed_run_took_again_counts_once():
    found = made([run(r, 4, s, 1.0 + r + NOISE[s]) for r in (4, 8) for s in range(2)])
    curve = [(0, 4.0), (1, 3.0), (1, 2.0), (2, 1.0)]
    drawn = learning_curves(found, lambda one: curve).spec["data"]["values"]
    assert [(row["x"], row["mean"]) for row in drawn if row["line"] == "r=4"] == [(0, 4.0), (1, 2.0), (2, 1.0)]


def test_tables_of_factors_whose_names_look_alike_are_files_of_their_own():
    runs = [
        run(4, 4, s, 1.0 + NOISE[s] + 0.1 * i + 0.2 * k, options={"α": i, "β": k})
        for i in (1, 2)
        for k in (1, 2)
        for s in range(3)
    ]
    found = made(runs)
    named = distinct([by_factor(found, name) for name in found.factors])
    assert [one.name for one in named] == ["by_α", "by_β-2"]
    assert len({slug(one.name) for one in named}) == 2
    assert distinct(named[:1]) == named[:1]


def test_small_values_are_not_shown_as_zeros():
    """An error of 3e-7: five digits made 0.00000 of all settings, none of them the best, and a lead of 0.00000."""
    found = made([run(r, 4, s, 1e-7 * (1 + r / 4 + NOISE[s])) for r in (4, 8) for s in range(3)])
    rows = results(found).rows
    assert [row[2].text for row in rows] == ["0.0000002000 ± 0.0000000010", "0.0000003000 ± 0.0000000010"]
    assert [row[2].rank for row in rows] == [1, 2]
    assert "Its lead of 0.0000001000 over" in finding(found)
    (verdict,) = check([parse("r=4 beats r=8", "val/loss", "f")], {"val/loss": found})
    assert "0.0000002000 and 0.0000003000, difference −0.0000001000" in verdict.words


def test_a_negative_share_has_a_true_minus_sign():
    assert (share(-1.5), share(-0.5), share(1.5)) == ("−1.5000", "−.5000", "1.5000")


def test_the_interval_of_an_equivalence_is_called_by_its_level():
    """1 − 2α: of p < .01 it is 98%."""
    found = made([run(r, 4, s, 1.0 + NOISE[s]) for r in (4, 8) for s in range(3)])
    for text, level in (("r=4 is equivalent to r=8 within .5", "90%"), ("r=4 is equivalent to r=8 within .5, p < .01", "98%")):
        (verdict,) = check([parse(text, "val/loss", "f")], {"val/loss": found})
        assert f"; {level} interval [" in verdict.words


def test_a_run_of_wandb_says_what_is_known_of_its_origin_and_no_more():
    def said(made_of: tuple[str, str, str], host: str) -> list:
        return facts(origin_facts(made_of, host))

    assert said(("", UNSAID, ""), "") == []
    assert said(("", "abc", ""), "node1") == [("Git commit", "abc", True), ("Machine", "node1", False)]
    # a training of ours has the hash of its code there, which is no commit
    assert said(('{"train": "t0", "examples": 3}', "f00", "b0"), "") == [
        ("Code, sha256", "f00", True),
        ("Data, sha256", "train t0", True),
        ("Model, sha256", "base b0", True),
    ]


def test_a_study_is_reported_without_scikit_learn(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    found = made(
        [run(r, a, s, r + a / 40 + NOISE[s]) for r, a in ((4, 8), (8, 16), (8, 32), (4, 64), (16, 8)) for s in range(3)]
    )
    assert importance(found) is None
    assert "no fANOVA: sklearn" in capsys.readouterr().err


def test_settings_that_cannot_be_paired_are_said():
    runs = [
        one
        for one in (run(r, 4, s, 1.0 + r / 8 + NOISE[s]) for r in (4, 8, 16) for s in range(3))
        if (one.seed, one.options["model.adapter.r"]) != (2, 16)
    ]
    notes = results(made(runs), paired=True).notes
    assert "Not tested, since a pair of runs is lacking (other seeds than r=4): r=16." in notes
    assert not any(note.startswith("Not tested") for note in results(made(runs)).notes)


def test_the_page_of_one_run_has_its_table(tmp_path, research):
    """The explorer has every run, where there is one: of two runs and more."""
    write_study(tmp_path / "one", points=1)
    assert research("report", tmp_path / "one", "--out", tmp_path / "out").code == 0
    text = (tmp_path / "out/index.html").read_text()
    assert ("Every run" in text, "explorer-data" in text) == (True, False)


@pytest.mark.parametrize("points", [9, 21])
def test_uncommitted_code_is_said_of_few_runs_and_of_many(points, tmp_path, research):
    """Curves are drawn of up to twelve trainings; the note is about all."""
    write_study(tmp_path / "s", points)
    for path in (tmp_path / "s").glob("*/provenance.json"):
        path.write_text(path.read_text().replace('"git_dirty": false', '"git_dirty": true'))
    assert research("report", tmp_path / "s", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/report.md").read_text().count("uncommitted changes") == 1
    assert (tmp_path / "out/index.html").read_text().count("Made from code with uncommitted changes") == 1


def test_an_equivalence_is_broken_after_holm_as_it_is_held():
    """Differences of .03, spreads .01, margin .01: t = .02 / (.01 √(2/3)) = 2.449, df 4, p = .0353 alone and .0706 of two."""
    from scipy import stats

    found = made([run(r, 4, s, 1.0 + 0.03 * i + NOISE[s]) for i, r in enumerate((4, 8, 16)) for s in range(3)])
    assert stats.t.sf(0.02 / (0.01 * (2 / 3) ** 0.5), 4) == pytest.approx(0.0353, abs=1e-4)
    claims = [parse(f"r={a} is equivalent to r={b} within .01", "val/loss", "f") for a, b in ((4, 8), (8, 16))]
    assert [one.state for one in check(claims[:1], {"val/loss": found})] == [BROKEN]
    assert [one.state for one in check(claims, {"val/loss": found})] == [UNDERPOWERED] * 2


def test_dates_half_pairs_and_wide_integers_are_written(tmp_path):
    """YAML reads 2026-01-01 as a date; a program's seed may have 64 bits without a sign."""
    import pyarrow.parquet

    config = {"day": datetime.date(2026, 1, 1), "half": "a\udc80", "days": [datetime.date(2026, 1, 2)]}
    options = flat({"data": config})
    assert options == {"data.day": "2026-01-01", "data.half": "a?", "data.days": ["2026-01-02"]}
    write_tidy(tmp_path, [run(4, 4, s, 1.0, options=options | {"wide": 2**64 + s, "mixed": s}) for s in range(2)])
    table = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
    assert table.column("option.wide").to_pylist() == [str(2**64), str(2**64 + 1)]
    assert table.column("option.mixed").to_pylist() == [0, 1]


@pytest.mark.parametrize("name", ["val/quux", "score_x", "loss_scale_ok", "glossary", "", "metric"])
def test_a_name_that_does_not_tell_is_no_direction(name):
    assert direction(name) is None


@pytest.mark.parametrize(
    "name", ["ndcg@10", "val/mrr@10", "rouge_l", "token_f1", "exact_match", "eval_accuracy", "bleu", "AUROC"]
)
def test_a_score_is_one_of_which_more_is_better(name):
    assert direction(name) == "higher"


def test_a_claim_on_a_metric_of_unknown_direction_is_refused_and_its_cure_works(tmp_path):
    runs = [run(r, 8, seed)._replace(metrics={"val/quux": r + NOISE[seed]}) for r in (1, 2) for seed in range(3)]
    found = make_study(runs, "val/quux", ["model.adapter.r"])
    assert any("is a guess" in one and "goal: minimize" in one for one in found.warnings)
    path = tmp_path / "claims.yaml"
    path.write_text("metric: val/quux\nclaims: [r=1 beats r=2]\n")
    with pytest.raises(UserError, match=r"does not tell which side.*Add `goal: \{val/quux: minimize\}`"):
        check(read_claims(path), {"val/quux": found}, str(path))
    for goal, state in (("{val/quux: minimize}", "held"), ("minimize", "held"), ("maximize", "broken")):
        path.write_text(f"metric: val/quux\ngoal: {goal}\nclaims: [r=1 beats r=2]\n")
        (verdict,) = check(read_claims(path), {"val/quux": found}, str(path))
        assert verdict.state == state
    path.write_text("metric: val/quux\ngoal: less\nclaims: [r=1 beats r=2]\n")
    with pytest.raises(UserError, match="goal is 'less'; expected minimize or maximize"):
        read_claims(path)
    assert not any("guess" in one for one in make_study(runs, "val/quux", ["model.adapter.r"], higher=False).warnings)


@pytest.mark.parametrize("points", [9, 21])
def test_rows_that_were_trained_on_are_said_in_every_table_of_their_metric(points, tmp_path, research):
    """`fit` counted them in provenance.json; a paper's table says it as well as the page."""
    write_study(tmp_path / "s", points)
    for path in (tmp_path / "s").glob("*/provenance.json"):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"data": facts["data"] | {"val_trained": 7}}))
    assert research("report", tmp_path / "s", "--out", tmp_path / "out").code == 0
    for name in ("index.html", "report.md", "tables/results.tex", "tables/results.md"):
        text = " ".join((tmp_path / "out" / name).read_text().split())
        assert "trainings had 7 of the rows of val among what was trained on" in text, name
