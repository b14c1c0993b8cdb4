"""Runs → groups over seeds → tables and claims, on made-up runs whose arithmetic can be checked by hand."""

import csv
import io
import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from research.errors import UserError
from research.report import latex, study_sheets
from research.report.claims import BROKEN, HELD, UNDERPOWERED, check, parse, read_claims
from research.report.export import as_csv, as_markdown, write_sheets, write_tidy
from research.report.factor_sheets import by_factor
from research.report.factors import factors, short_names, with_scale
from research.report.groups import make_study
from research.report.numbers import p_phrase
from research.report.study import marginal
from research.runs.options import flat, options_of
from research.runs.record import RunRecord
from research.runs.table import as_frame

NOISE = (-0.01, 0.0, 0.01)


def run(r: int, alpha: int, seed: int, loss: float | None = None, state: str = "done", code: str = "c1", **more) -> RunRecord:
    options = {
        "model.adapter": "LoraConfig",
        "model.adapter.r": r,
        "model.adapter.lora_alpha": alpha,
        "seed_everything": seed,
        "data.batch_size": 8,
    } | more.pop("options", {})
    metrics = {} if loss is None else {"val/loss": loss}
    facts = {"trained_parameters": 100 * r, "seconds": 60.0}
    return RunRecord(
        f"r{r}a{alpha}s{seed}{more.pop('name', '')}",
        Path("x"),
        state,
        more.pop("error", ""),
        "s",
        "p",
        seed,
        options,
        metrics,
        facts,
        {},
        ("data", code, "base"),
    )


def grid(losses: dict[tuple[int, int], float] | None = None) -> list[RunRecord]:
    """r × alpha, three seeds each, whose values are a loss and −.01, 0, +.01."""
    losses = losses or {(4, 4): 2.0, (4, 8): 1.9, (8, 8): 1.8, (8, 16): 1.5}
    return [run(r, a, s, round(loss + NOISE[s], 4)) for (r, a), loss in losses.items() for s in range(3)]


def made(runs: list[RunRecord], **more):
    runs, names = with_scale(runs, factors(runs))
    return make_study(runs, "val/loss", names, **more)


def test_options_are_named_as_a_user_types_them():
    adapter = {"class_path": "peft.LoraConfig", "init_args": {"r": 4}}
    model = {"class_path": "a.SFT", "init_args": {"adapter": adapter, "optimisation": {"lr": 0.1}}}
    config = {"model": model, "seed_everything": 3, "out": "runs/x"}
    assert flat(config) == {
        "model": "SFT",
        "model.adapter": "LoraConfig",
        "model.adapter.r": 4,
        "model.optimisation.lr": 0.1,
        "seed_everything": 3,
    }
    values = {"model.adapter": {"class_path": "peft.LoraConfig", "init_args": {"r": 4}}, "seed_everything": 0}
    assert options_of(values) == {"model.adapter": "LoraConfig", "model.adapter.r": 4, "seed_everything": 0}
    assert short_names(["model.adapter.r", "data.r", "seed"]) == {
        "model.adapter.r": "adapter.r",
        "data.r": "data.r",
        "seed": "seed",
    }


def test_alpha_that_is_tied_to_r_becomes_their_ratio():
    runs, names = with_scale(grid(), factors(grid()))
    assert names == ["model.adapter.r", "model.adapter.lora_alpha/r"]
    assert [run.options[names[1]] for run in runs[::3]] == [1, 2, 1, 2]
    # a full grid of r and alpha stays what it is, and a fixed ratio is no factor
    full = [run(r, a, 0, 1.0) for r in (4, 8) for a in (8, 16)]
    assert with_scale(full, factors(full))[1] == ["model.adapter.r", "model.adapter.lora_alpha"]
    tied = [run(r, 2 * r, 0, 1.0) for r in (4, 8, 16)]
    assert with_scale(tied, factors(tied))[1] == ["model.adapter.r"]


def test_groups_are_everything_but_the_seed():
    found = made(grid())
    assert [group.label for group in found.groups] == [
        "r=4 lora_alpha/r=1",
        "r=4 lora_alpha/r=2",
        "r=8 lora_alpha/r=1",
        "r=8 lora_alpha/r=2",
    ]
    assert found.groups[3].values == {0: 1.49, 1: 1.5, 2: 1.51}
    assert found.groups[3].numbers == {"trained_parameters": 800, "seconds": 60}
    assert (found.higher, found.warnings) == (False, [])
    assert made(grid(), higher=True).higher


def test_options_may_be_lists_and_mappings():
    kinds = [{"model.adapter.target_modules": modules, "data.extra": {"a": 1}} for modules in (["q"], ["q", "v"], "all-linear")]
    found = made([run(4, 4, s, 1.0 + NOISE[s], options=one) for one in kinds for s in range(3)])
    assert [group.label for group in found.groups] == ["target_modules=q", "target_modules=q, v", "target_modules=all-linear"]


def test_methods_are_called_by_what_they_train(tmp_path):
    import yaml

    from research.runs.table import read_runs

    (tmp_path / "s").mkdir()
    kinds = {
        "a": {"model.adapter": None},
        "b": {"model.adapter": None, "model.train_layers": 4},
        "c": {"model.adapter": None, "model.train_pattern": "attn"},
    }
    lines = [{"point": name, "values": {}, "argv": [], "facts": {"trained_parameters": 7}} for name in kinds]
    (tmp_path / "s/plan.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, options in kinds.items():
        folder = tmp_path / "s" / name
        folder.mkdir()
        model = {"class_path": "x.Y", "init_args": {key.removeprefix("model."): value for key, value in options.items()}}
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "model": model}))
        made_of = {"made_of": "x", "model_hash": "h", "fingerprint": "f", "data": {"train": "t"}}
        (folder / "provenance.json").write_text(json.dumps(made_of))
        metrics = {"finished": True, "metrics": {"loss": 1.0}, "monitor": "val/loss"}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    runs = read_runs([tmp_path / "s"])
    assert [one.options["model.adapter"] for one in runs] == ["full fine-tuning", "last 4 layers", "weights attn"]
    assert [one.facts["trained_parameters"] for one in runs] == [7, 7, 7]
    assert [group.label for group in made(runs).groups] == ["full fine-tuning", "last 4 layers", "weights attn"]


def test_what_was_swept_is_shown_though_another_option_tells_the_runs_apart():
    """Draws of a random sweep: lr alone would tell them apart, r differs as well."""
    draws = [(4, 0.1), (8, 0.2), (8, 0.3)]
    swept = ("model.adapter.r", "model.optimisation.lr")
    runs = [run(r, 2 * r, 0, 1.0, options={"model.optimisation.lr": lr})._replace(swept=swept) for r, lr in draws]
    found = made(runs)
    assert found.factors == ["model.adapter.r", "model.optimisation.lr"]
    assert found.groups[0].label == "r=4 lr=0.1"


def test_what_has_no_value_is_shown_and_not_averaged():
    runs = grid()
    runs[2] = run(4, 4, 2, state="failed", error="out of memory")
    runs[4] = run(4, 8, 1, 9.0, state="pruned")
    runs[5] = run(4, 8, 2, state="missing")._replace(made_of=("", "", ""))
    found = made(runs)
    assert found.groups[0].values == {0: 1.99, 1: 2.0}
    assert found.groups[1].values == {0: 1.89}  # not the pruned run's 9
    text = "; ".join(found.warnings)
    assert "2 of 4 groups have fewer than 3 seeds" in text
    assert "1 run is failed and in no mean: r4a4s2 (out of memory)" in text
    assert "1 run is pruned" in text
    sheet = study_sheets.results(found)
    assert [row[2].text for row in sheet.rows] == ["2 of 3", "1 of 3", "3", "3"]
    assert len(study_sheets.every_run(found).rows) == 12


def test_seconds_that_do_not_compare_are_said_below_the_table():
    runs = grid()
    assert not [note for note in study_sheets.results(made(runs)).notes if "econds" in note]
    runs[0] = runs[0]._replace(attempts=2)
    assert "1 of 12 runs was begun more than once, and its seconds are those of the last process alone." in (
        study_sheets.results(made(runs)).notes
    )
    moved = [one._replace(ran_on="a" if one.seed else "b", provenance={"device": f"cuda:{one.seed}"}) for one in runs]
    assert "Seconds were measured on 2 different machines or devices: they do not compare." in (
        study_sheets.results(made(moved)).notes
    )


def test_runs_of_other_code_or_data_are_never_averaged():
    runs = grid()
    runs[1] = run(4, 4, 1, 5.0, code="c2")
    found = made(runs)
    assert [len(group.values) for group in found.groups] == [2, 1, 3, 3, 3]
    assert found.groups[0].label != found.groups[1].label
    assert "runs of one setting have other code" in found.warnings[0]
    assert "r4a4s1" in found.warnings[0]


def test_a_copy_counts_once_and_a_contradiction_is_refused():
    found = made([*grid(), run(4, 4, 0, 1.99, name="copy")])
    assert "r4a4s0copy is a copy of r4a4s0" in found.warnings[0]
    assert found.groups[0].values == {0: 1.99, 1: 2.0, 2: 2.01}
    with pytest.raises(UserError, match=r"are of one setting and seed .* and have different val/loss"):
        made([*grid(), run(4, 4, 0, 1.5, name="again")])


def test_a_metric_that_no_run_has_is_refused_with_those_there():
    with pytest.raises(UserError, match="no finished run has test/loss; expected one of val/loss"):
        make_study(grid(), "test/loss", ["model.adapter.r"])
    with pytest.raises(UserError, match="no run is finished"):
        make_study([run(4, 4, 0, state="running")], "val/loss", [])


def test_results_by_hand():
    """Means 2.0, 1.9, 1.8, 1.5; sd .01 each; Welch at 3 + 3 with equal spreads: t = −.1 / (.01 √(2/3)) = −12.247, df = 4."""
    from scipy import stats

    sheet = study_sheets.results(made(grid()))
    assert sheet.columns == [
        "r",
        "lora_alpha/r",
        "seeds",
        "val/loss",
        "95% interval",
        "difference",
        "p (Holm)",
        "parameters",
        "seconds",
    ]
    texts = [[cell.text for cell in row] for row in sheet.rows]
    assert texts[0][:6] == ["4", "1", "3", "2.000 ± 0.010", "[1.975, 2.025]", "baseline"]
    assert texts[1][3:6] == ["1.900 ± 0.010", "[1.875, 1.925]", "−0.100"]
    assert [row[3].rank for row in sheet.rows] == [0, 0, 2, 1]
    assert [row[3].mark for row in sheet.rows] == ["", "†", "†", "†"]
    p = 2 * stats.t.sf(0.1 / (0.01 * (2 / 3) ** 0.5), 4)
    assert sheet.rows[1][6].value == pytest.approx(p)  # the largest of three: Holm leaves it as it is
    floor = next(note for note in sheet.notes if note.startswith("Noise floor: between settings of n = 3"))
    assert "is found in 4 of 5" not in floor  # at three seeds it would be 7 of 10
    finding = study_sheets.finding(made(grid()))
    assert finding.startswith(
        "r=8 lora_alpha/r=2 has the best val/loss of 4 settings: 1.500 ± 0.010 over 3 seeds. Its lead of 0.300"
    )


def test_one_factor_at_a_time_is_a_mean_within_each_seed():
    sheet = by_factor(made(grid()), "model.adapter.r")
    # seed 0: (1.99 + 1.89) / 2 = 1.94; so 1.94, 1.95, 1.96 against 1.64, 1.65, 1.66
    texts = [[cell.text for cell in row][:4] for row in sheet.rows]
    assert texts == [["4", "3", "1.950 ± 0.010", "[1.925, 1.975]"], ["8", "3", "1.650 ± 0.010", "[1.625, 1.675]"]]
    assert by_factor(made(grid()[:-3]), "model.adapter.r") is None  # not a full design


def test_two_factors_make_a_grid():
    sheet = study_sheets.grid(made(grid()))
    assert sheet.columns == ["r ↓  lora_alpha/r →", "1", "2"]
    assert [[cell.text for cell in row] for row in sheet.rows] == [
        ["4", "2.000 ± 0.010", "1.900 ± 0.010"],
        ["8", "1.800 ± 0.010", "1.500 ± 0.010"],
    ]


def test_matched_parameters_are_different_methods_of_one_size():
    other = [run(7, 7, s, 1.7 + NOISE[s])._replace(facts={"trained_parameters": 810}) for s in range(3)]
    sheet = study_sheets.matched(made([*grid(), *other]))
    assert {row[1].text for row in sheet.rows} == {"800", "810"}
    assert study_sheets.matched(made(grid())) is None  # r alone has parameters


CLAIMS = [
    ("r=8 beats r=4", HELD),
    ("r=4 beats r=8", BROKEN),
    ("r=8 and lora_alpha/r=2 beats r=8 and lora_alpha/r=1 by .25", HELD),
    ("r=8 and alpha/r=2 beats r=8 and alpha/r=1 by .35, p < .01", BROKEN),
    ("alpha/r=1 is equivalent to alpha/r=2 within .5", HELD),
    ("alpha/r=1 is equivalent to alpha/r=2 within .1", BROKEN),
    ("r=8 beats r=4 on val/loss, p < .001", HELD),
    ("model.adapter.r=8 beats model.adapter.r=4", HELD),
]


@pytest.mark.parametrize(("text", "state"), CLAIMS)
def test_claims(text, state):
    claim = parse(text, "val/loss", "f")
    (verdict,) = check([claim], {"val/loss": made(grid())})
    assert verdict.state == state, verdict.words


def test_claims_of_one_file_are_one_family():
    """p = .04 alone; beside a claim that shows nothing Holm makes it .08."""
    from scipy import stats

    runs = [
        run(r, 8, s, value)
        for r, values in ((4, (1.0, 1.1, 1.2)), (8, (1.32, 1.42, 1.37)), (16, (1.3, 1.45, 1.38)))
        for s, value in enumerate(values)
    ]
    p = stats.ttest_ind((1.0, 1.1, 1.2), (1.32, 1.42, 1.37), equal_var=False).pvalue
    assert 0.025 < p < 0.05
    both = [parse(text, "val/loss", "f") for text in ("r=4 beats r=8", "r=8 beats r=16")]
    assert [one.state for one in check(both[:1], {"val/loss": made(runs)})] == [HELD]
    first, _ = check(both, {"val/loss": made(runs)})
    assert first.state == UNDERPOWERED
    assert f"{p_phrase(2 * p)} after Holm" in first.words


def test_a_mean_over_settings_is_of_the_seeds_that_all_of_them_have():
    a, b = (
        made([run(r, 8, s, loss) for s, loss in values.items()] + [run(2, 8, 0, 9.0)]).groups[0]
        for r, values in ((4, {0: 1.0, 1: 2.0, 2: 4.0}), (8, {2: 6.0, 0: 3.0}))
    )
    assert marginal([a, b]) == marginal([b, a]) == {0: 2.0, 2: 5.0}


def test_the_noise_floor_is_that_of_the_usual_seeds_and_of_holm_s_first_step():
    """Spreads .01 each; three comparisons: t of 4 degrees of freedom at 1 − .05 / 6, times .01 √(2/3); of 2 at two seeds."""
    from scipy import stats

    for runs, n in ((grid(), 3), ([one for one in grid() if (one.seed, one.options["model.adapter.r"]) != (1, 4)], 2)):
        note = next(one for one in study_sheets.results(made(runs)).notes if one.startswith("Noise floor"))
        sd = {3: 0.01, 2: ((2 * 0.02**2 / 2 + 2 * 2 * 0.01**2) / 6) ** 0.5}[n]  # of pairs .02 apart, and of triples
        floor = stats.t.ppf(1 - 0.05 / 6, 2 * n - 2) * sd * (2 / n) ** 0.5
        expected = f"of n = {n} and the usual spread ({sd:.3f}) differences below {floor:.3f} are not resolved"
        assert expected in note, note


def test_a_mark_below_the_noise_floor_is_explained():
    """Two settings of hardly any spread among wild ones: resolved, though the usual spread would not do it."""
    losses = {4: [1.0, 1.001, 1.002], 8: [1.1, 1.101, 1.102], 16: [1.5, 3.0, 2.0], 32: [3.0, 1.5, 2.0]}
    runs = [run(r, 8, seed, losses[r][seed]) for r in losses for seed in range(3)]
    sheet = study_sheets.results(made(runs))
    assert "†" in [cell.mark for cell in sheet.rows[1]]
    assert any("the 1 marked row below it has less spread" in note for note in sheet.notes), sheet.notes


def rates(r: int) -> dict:
    return {"model.optimisation.lr": {4: 1e-3, 8: 3e-3}[r]}


def test_what_the_settings_differ_in_besides_their_factors_is_said():
    """A rate of its own for each rank: the difference is of both, and a spec may ask for both as columns."""
    runs = [run(r, 8, seed, 2.0 - r / 10 + seed / 100, options=rates(r)) for r in (4, 8) for seed in range(3)]
    found = make_study(runs, "val/loss", ["model.adapter.r"])
    assert "the settings differ in lr (0.001, 0.003) too" in found.warnings[-1]
    assert any("differ in lr (0.001, 0.003) too" in note for note in study_sheets.results(found).notes)
    both = make_study(runs, "val/loss", ["model.adapter.r", "model.optimisation.lr"], every=True)
    assert both.factors == ["model.adapter.r", "model.optimisation.lr"]
    assert not both.warnings
    assert not made(grid()).aside


def test_pairs_by_seed_are_paired_in_the_headline_the_factors_and_the_claims():
    """A seed that moves all settings alike: unpaired nothing is resolved, paired it is; p are scipy's."""
    from scipy.stats import ttest_rel

    move, nudge = [0.0, 0.5, 1.0], [0.0, 0.004, -0.004]
    losses = {(4, 4): 2.0, (4, 8): 1.9, (8, 8): 1.8, (8, 16): 1.5}
    runs = [
        run(r, a, s, loss + move[s] + nudge[(s + r // 4 + a // r) % 3]) for (r, a), loss in losses.items() for s in range(3)
    ]
    found = made(runs)
    assert "not resolved" in study_sheets.finding(found)
    assert "is resolved" in study_sheets.finding(found, paired=True)
    assert "by paired t test" in study_sheets.finding(found, paired=True)
    sheet = by_factor(found, "model.adapter.r", paired=True)
    means = {
        r: [
            sum(one.metrics["val/loss"] for one in runs if one.options["model.adapter.r"] == r and one.seed == s) / 2
            for s in range(3)
        ]
        for r in (4, 8)
    }
    assert sheet.rows[1][-1].value == pytest.approx(ttest_rel(means[8], means[4]).pvalue)
    claim = [parse("r=8 beats r=4", "val/loss", "f")]
    assert check(claim, {"val/loss": found})[0].state == UNDERPOWERED
    assert check(claim, {"val/loss": found}, paired=True)[0].state == HELD


@pytest.mark.parametrize(
    "text",
    [
        "r=8 lora_alpha/r=2 beats r=4 lora_alpha/r=1",
        "lora_alpha/r=2 r=8 beats r=4 lora_alpha/r=1",
        "r=8 lora_alpha/r=2 is equivalent to r=4 lora_alpha/r=1 within 9 on val/loss",
    ],
)
def test_a_claim_may_name_settings_as_the_tables_do(text):
    (verdict,) = check([parse(text, "val/loss", "f")], {"val/loss": made(grid())})
    assert verdict.state == HELD
    assert "1.5000 and 2.0000" in verdict.words


def test_a_claim_that_the_seeds_cannot_decide_is_underpowered():
    losses = [1.0, 1.4, 1.2, 1.1, 1.5, 1.0]
    runs = [run(r, 8, s, losses[3 * i + s]) for i, r in enumerate((4, 8)) for s in range(3)]
    for text in ("r=8 beats r=4", "r=4 beats r=8", "r=8 is equivalent to r=4 within .05"):
        (verdict,) = check([parse(text, "val/loss", "f")], {"val/loss": made(runs)})
        assert verdict.state == UNDERPOWERED
    single = [run(r, 8, 0, float(r)) for r in (4, 8)]
    (verdict,) = check([parse("r=4 beats r=8", "val/loss", "f")], {"val/loss": made(single)})
    assert verdict.state == UNDERPOWERED
    assert "not estimable" in verdict.words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("r=8 is better than r=4", "is no claim; expected `r=16 beats"),
        ("q=8 beats r=4", "'q' is no factor|q"),
        ("r=7 beats r=4", "no setting has 'r=7'"),
        ("r=8 is equivalent to r=4", "expected `within`"),
        ("r=8 beats r=4 within .1", "expected `within` a margin for an equivalence"),
        ("r=8 beats r=8", "both sides have"),
        ("r=8 and lora_alpha/r=2 beats r=4", "differ in other factors too"),
        ("r=8 beats r=4, p < 2", "expected between 0 and 1"),
    ],
)
def test_claims_that_cannot_be_checked_are_refused(text, says):
    with pytest.raises(UserError, match=says):
        check([parse(text, "val/loss", "f")], {"val/loss": made(grid())})


def test_claims_are_read_from_a_file(tmp_path):
    (tmp_path / "c.yaml").write_text("metric: val/loss\nclaims:\n  - r=8 beats r=4\n")
    assert [claim.metric for claim in read_claims(tmp_path / "c.yaml")] == ["val/loss"]
    for text, says in (
        ("claims: 3", "has no claims"),
        ("a: [", "not readable YAML"),
        ("claim: [a]", "has no claims"),
        ("claims: [r=1 beats r=2]\nx: 1", "has 'x'"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UserError, match=says):
            read_claims(tmp_path / "c.yaml")


def test_tables_are_written_in_three_forms(tmp_path):
    found = made(grid())
    write_sheets(tmp_path, [study_sheets.results(found)])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables/results.csv").read_text())))
    assert float(rows[3]["val/loss"]) == pytest.approx(1.5)
    assert float(rows[3]["95% interval low"]) == pytest.approx(1.4752, abs=1e-4)
    assert float(rows[3]["val/loss sd"]) == pytest.approx(0.01)  # "mean ± sd" can be made of it again
    assert "**1.500** ± 0.010†" in (tmp_path / "tables/results.md").read_text()
    text = (tmp_path / "tables/results.tex").read_text()
    assert r"\textbf{1.500} $\pm$ 0.010$^{\dagger}$" in text
    assert r"\underline{1.800}" in text
    assert r"lora\_alpha/r" in text
    assert as_csv(study_sheets.results(found)) == (tmp_path / "tables/results.csv").read_text()
    assert as_markdown(study_sheets.results(found)).count("\n") >= 5


def test_alpha_and_minus_are_written_one_way_in_every_table():
    from research.report.factor_sheets import factorial
    from research.report.main_table import main_results

    runs = [one._replace(metrics=one.metrics | {"val/gain": -0.11}) for one in grid()]
    found = made(runs)
    sheets = [study_sheets.results(found), by_factor(found, found.factors[0]), factorial(found), main_results([found])]
    for sheet in sheets:
        assert "p < .05" in " ".join(sheet.notes), sheet.name
        assert "0.05" not in " ".join(sheet.notes), sheet.name
    assert study_sheets.every_run(found).rows[0][-1].text == "−0.1100"


def test_the_spread_is_a_column_behind_its_mean_wherever_there_is_one():
    found = made([*grid(), run(16, 16, 0, 1.4), run(16, 32, 0, 1.3)])
    rows = list(csv.reader(io.StringIO(as_csv(study_sheets.grid(found)))))
    assert rows[0][1:] == ["1", "1 sd", "2", "2 sd"]
    assert [float(one) for one in rows[1][1:]] == pytest.approx([2.0, 0.01, 1.9, 0.01])
    assert rows[3] == ["16", "1.4", "", "1.3", ""]  # of one seed nobody knows it
    rows = list(csv.reader(io.StringIO(as_csv(study_sheets.every_run(found)))))
    assert not [name for name in rows[0] if name.endswith(" sd")]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles_with_hostile_names(tmp_path):
    hostile = r"50% of_$all & {co\mmand} #1 ~^ <|> ±−† é “”"
    runs = [run(4, 4, s, 1.0 + NOISE[s], options={"data.train": name}) for name in (hostile, "plain") for s in range(3)]
    sheet = study_sheets.results(made(runs))
    body = latex.render(sheet)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\usepackage[T1]{fontenc}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_tidy_table_holds_every_run(tmp_path):
    import pyarrow.parquet

    runs = [*grid(), run(16, 16, 0, state="failed", error="no room", options={"data.batch_size": "auto"})]
    columns = as_frame(runs).to_dict("list")
    assert columns["state"][-1] == "failed"
    assert columns["val/loss"][-1] is None
    write_tidy(tmp_path, runs)
    table = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
    assert table.num_rows == 13
    assert table.column("option.data.batch_size").to_pylist()[-2:] == ["8", "auto"]
    assert table.column("option.model.adapter.r").to_pylist()[0] == 4
    first = (tmp_path / "runs.parquet").read_bytes()
    write_tidy(tmp_path, runs)
    assert (tmp_path / "runs.parquet").read_bytes() == first
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 14
    json.dumps(columns)


def test_a_diverged_run_is_shown_and_in_no_mean(tmp_path):
    runs = grid()
    runs[1] = run(4, 4, 1, math.nan)
    found = made(runs)
    assert found.groups[0].values == {0: 1.99, 2: 2.01}
    assert "1 finished runs have a val/loss that is not finite and are in no mean: r4a4s1" in found.warnings
    assert study_sheets.results(found).rows[0][2].text == "2 of 3"
    with pytest.raises(UserError, match="no finished run has val/loss"):
        made([run(4, 4, s, math.inf) for s in range(3)])


def test_runs_that_differ_by_more_than_the_factors_are_refused_with_the_option():
    runs = grid()
    with pytest.raises(UserError, match=r"they differ in model.adapter.lora_alpha \(4, 8\).*Name it among the factors"):
        make_study(runs, "val/loss", ["model.adapter.r"])


def test_the_main_table_marks_after_holm_over_all_its_comparisons():
    """Two metrics, three settings: four comparisons; p are those of scipy, adjusted by statsmodels."""
    from scipy.stats import ttest_ind
    from statsmodels.stats.multitest import multipletests

    from research.report.main_table import main_results

    values = {
        "val/loss": {4: [2.0, 2.1, 1.9], 8: [1.7, 1.8, 1.75], 16: [1.2, 1.3, 1.25]},
        "val/rouge_l": {4: [0.2, 0.21, 0.22], 8: [0.5, 0.52, 0.51], 16: [0.24, 0.23, 0.235]},
    }
    runs = [run(r, r, seed, values["val/loss"][r][seed]) for r in (4, 8, 16) for seed in range(3)]
    runs = [
        one._replace(metrics=one.metrics | {"val/rouge_l": values["val/rouge_l"][one.options["model.adapter.r"]][one.seed]})
        for one in runs
    ]
    runs, names = with_scale(runs, factors(runs))
    sheet = main_results([make_study(runs, name, names) for name in values])
    places = [(name, r) for name in values for r in (8, 16)]
    p = [ttest_ind(values[name][r], values[name][4], equal_var=False).pvalue for name, r in places]
    wrong = multipletests(p, method="holm")[0]
    marked = {
        (name, r): bool(row[2 + i].mark) for r, row in zip((4, 8, 16), sheet.rows, strict=True) for i, name in enumerate(values)
    }
    assert marked == {("val/loss", 4): False, ("val/rouge_l", 4): False} | dict(zip(places, wrong.tolist(), strict=True))
    assert all(one < 0.05 for one in p)  # each by itself
    assert 0 < sum(wrong) < 4
    assert sheet.columns == ["r", "seeds", "val/loss ↓", "val/rouge_l ↑"]
    assert [[cell.rank for cell in row[2:]] for row in sheet.rows] == [[0, 0], [2, 1], [1, 2]]
    assert "over the 4 comparisons" in sheet.notes[1]


def test_comparisons_that_holm_counts_without_a_p_are_said():
    """Three settings, one of a single seed: two comparisons, and one of them has no p."""
    from research.report.main_table import main_results

    runs = [run(r, r, seed, 2.0 - r / 10 + seed / 100) for r in (4, 8) for seed in range(3)] + [run(16, 16, 0, 1.0)]
    study, said = made(runs), "2 comparisons (1 of them could not be tested, and counts as p = 1)"
    assert any(said in note for note in study_sheets.results(study).notes)
    table = "2 comparisons of this table (1 of them could not be tested, and counts as p = 1)"
    assert any(table in note for note in main_results([study]).notes)
    whole = made([one for one in runs if one.options["model.adapter.r"] < 16])
    assert not any("could not be tested" in note for sheet in (study_sheets.results(whole),) for note in sheet.notes)


def test_the_main_table_shows_what_a_metric_lacks():
    from research.report.main_table import main_results

    runs = [run(r, r, seed, 2.0 - r / 10 + seed / 100) for r in (4, 8) for seed in range(3)]
    runs = [
        one if one.options["model.adapter.r"] == 4 else one._replace(metrics=one.metrics | {"test/f1": 0.5 + one.seed})
        for one in runs
    ]
    runs, names = with_scale(runs, factors(runs))
    sheet = main_results([make_study(runs, name, names) for name in ("val/loss", "test/f1")])
    assert [row[-1].text for row in sheet.rows] == ["–", "1.5 ± 1.0"]
    assert not sheet.rows[1][-1].mark  # the baseline has nothing to differ from
