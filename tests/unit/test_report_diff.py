"""`research report --diff`: what changed between two reports, on sweeps whose changes are made here by hand."""

import json
import shutil
from pathlib import Path

import pytest
from scipy import stats

from research.report import diff_words
from research.report.diff import Break
from research.report.diff_match import hashes
from research.runs.record import RunRecord
from tests.synthetic_runs import write_study
from tests.unit.test_report import A, B, run_folder, stage

REST = "and lora_alpha/r=1 and lora_dropout=0 and lr=0.0002"
GOOD = f"r=4 {REST} beats r=2 {REST}"
CLAIMS = f"claims:\n  - {GOOD}\n  - lora_dropout=0 beats lora_dropout=0.05\n"
DONE = (0, 1, 2)  # places of three finished runs of one setting


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder / "old", 48)
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """Two equal sweeps of 16 settings, `old` and `new`; the second to be changed."""
    shutil.copytree(made / "old", tmp_path / "old")
    shutil.copytree(made / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def points(sweep: str = "new") -> list[str]:
    return [json.loads(line)["point"] for line in Path(sweep, "plan.jsonl").read_text().splitlines()]


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add(place: int, loss: float, code: str | None = None) -> None:
    """Add to the loss of a run of `new`, and say that other code made it."""
    run = Path("new", points()[place])
    metrics = json.loads((run / "metrics.json").read_text())
    edit(run / "metrics.json", metrics=metrics["metrics"] | {"loss": metrics["metrics"]["loss"] + loss})
    if code:
        edit(run / "provenance.json", fingerprint=code)


def losses(sweep: str, places: tuple[int, ...]) -> list[float]:
    ids = points(sweep)
    return [json.loads(Path(sweep, ids[i], "metrics.json").read_text())["metrics"]["loss"] for i in places]


def difference(research, *options, code: int = 0) -> dict:
    result = research("report", "--diff", *options, "--json")
    assert result.code == code, result.err + result.out
    return result.json


def test_nothing_changed(place, research):
    found = difference(research, "old", "new")
    assert found["same"]
    assert (found["study"]["settings"], found["study"]["identical"]) == (16, 45)  # 48 less 1 failed, 1 pruned, 1 missing
    for name in ("added", "removed", "moved", "breaks", "states", "claims", "made_of", "options", "notes", "marks"):
        assert not found["study"][name], name


def test_a_value_of_an_identical_run_that_changed_in_the_last_bit_is_a_break(place, research):
    before = losses("new", (0,))[0]
    add(0, 5e-16)
    assert losses("new", (0,))[0] != before
    (one,) = difference(research, "old", "new", code=1)["study"]["breaks"]
    assert one == {
        "run": points()[0],
        "setting": "r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001",
        "metric": "val/loss",
        "old": before,
        "new": losses("new", (0,))[0],
    }
    text = research("report", "--diff", "old", "new").out
    assert "Not the same: 1 value of 1 identical run is another." in text
    assert repr(before) in text


def test_another_metric_of_an_identical_run_is_looked_at_as_well(place, research):
    path = Path("new", points()[0], "metrics.json")
    edit(path, metrics=json.loads(path.read_text())["metrics"] | {"perplexity": 1.0})
    (one,) = difference(research, "old", "new", code=1)["study"]["breaks"]
    assert (one["metric"], one["new"]) == ("val/perplexity", 1.0)


def test_settings_trained_again_are_tested_by_welch_after_holm(place, research):
    for i in DONE:
        add(i, 0.5 + i / 100, code="other")  # resolved
        add(i + 3, i / 100, code="other")  # not
    study = difference(research, "old", "new")["study"]
    assert study["breaks"] == []
    assert study["made_of"]["code"]["new"] == sorted([*study["made_of"]["code"]["old"], "other"])
    found = {one["setting"]: one for one in study["moved"]}
    assert [one["kind"] for one in found.values()] == ["trained again"] * 2
    pairs = [(losses("old", places), losses("new", places)) for places in (DONE, (3, 4, 5))]
    p = [stats.ttest_ind(after, before, equal_var=False).pvalue for before, after in pairs]
    adjusted = [2 * min(p), max(2 * min(p), max(p))]  # Holm over two
    assert [one["p"] for one in found.values()] == pytest.approx(p)
    assert [one["p_holm"] for one in found.values()] == pytest.approx(adjusted)
    assert [one["verdict"] for one in found.values()] == ["differs", "unresolved"]
    first = next(iter(found.values()))
    assert first["difference"] == pytest.approx(sum(pairs[0][1]) / 3 - sum(pairs[0][0]) / 3)


def test_a_mark_that_appeared_is_no_same_conclusion(place, research):
    """A setting that differed from the first by chance does so no more, or the other way round."""
    before = research("report", "old", "--out", "before", "--json")
    assert before.code == 0, before.err
    marked = {row["setting"]: row for row in difference(research, "before", "old")["study"]["marks"]}
    assert marked == {}
    for i in (3, 4, 5):
        add(i, 3.0 + i / 1000, code="other")  # far from the first setting now
    found = difference(research, "before", "new")
    (one,) = found["study"]["marks"]
    assert (one["against"], one["old"], one["new"]) == ("r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001", False, True)
    assert found["verdict"] == "No claim is broken and no identical run has another value; 1 mark † has changed."
    text = research("report", "--diff", "before", "new").out
    assert "Marks † that changed" in text
    assert "not resolved | differs †" in text


def test_runs_that_are_there_before_and_after_are_no_new_draw(place, research):
    shutil.rmtree(Path("new", points()[2]))
    study = difference(research, "old", "new")["study"]
    (one,) = study["moved"]
    assert (one["kind"], one["seeds"], one["p"], one["verdict"]) == ("some of the same runs", [3, 2], None, None)
    assert study["states"] == [{"run": points()[2], "setting": one["setting"], "old": "done", "new": "missing"}]


def test_a_failed_point_that_is_done_now_is_said(place, research):
    failed, donor = points()[17], Path("new", points()[16])
    shutil.copy(donor / "metrics.json", Path("new", failed))
    (one,) = difference(research, "old", "new")["study"]["states"]
    assert (one["run"], one["old"], one["new"]) == (failed, "failed", "done")


def test_new_and_gone_settings_and_another_best(place, research):
    for name, lines in (("old", slice(3, None)), ("new", slice(0, -3))):
        path = Path(name, "plan.jsonl")
        path.write_text("".join(path.read_text().splitlines(keepends=True)[lines]))
    study = difference(research, "old", "new")["study"]
    assert study["added"] == ["r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001"]
    assert study["removed"] == ["r=4 lora_alpha/r=2 lora_dropout=0.05 lr=0.0002"]
    assert (study["settings"], len(study["runs"]["added"]), len(study["runs"]["removed"])) == (14, 3, 3)
    for i in DONE:
        add(i, -1.0, code="other")
    best = difference(research, "old", "new")["study"]["best"]
    assert best["new"] == "r=2 lora_alpha/r=1 lora_dropout=0 lr=0.0001"
    assert best["old"] != best["new"]


def test_a_claim_that_held_and_is_broken_is_exit_1(place, research):
    Path("claims.yaml").write_text(CLAIMS)
    assert difference(research, "old", "new", "--claims", "claims.yaml")["same"]
    for i, one in enumerate(points()):  # what r=4 (the later half) gained is lost
        if i >= 24 and Path("new", one, "metrics.json").exists():
            add(i, 0.5, code="other")
    found = difference(research, "old", "new", "--claims", "claims.yaml", code=1)
    (claim,) = found["study"]["claims"]
    assert (claim["claim"], claim["old"], claim["new"]) == (GOOD, "held", "broken")
    assert "p < .001 after Holm" in claim["words"]
    assert found["verdict"] == "Not the same: 1 claim that held is broken."


def test_a_claim_about_a_setting_that_one_side_has_not_is_said_and_not_refused(place, research):
    path = Path("old", "plan.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:24]))  # r=2 alone
    Path("claims.yaml").write_text(CLAIMS)
    study = difference(research, "old", "new", "--claims", "claims.yaml")["study"]
    first = study["claims"][0]
    assert (first["claim"], first["old"], first["new"]) == (GOOD, "cannot be checked", "held")
    Path("claims.yaml").write_text("claims:\n  - r=9 beats r=2\n")
    result = research("report", "--diff", "old", "new", "--claims", "claims.yaml")
    assert (result.code, "no setting has 'r=9'" in result.err) == (2, True)


def test_reports_alone_say_what_the_runs_say(place, research):
    """A report needs its runs no more, also for claims: those that it was made with, or others."""
    Path("claims.yaml").write_text(CLAIMS)
    for i in DONE:
        add(i, 0.5 + i / 100, code="other")
    add(40, 1e-6)
    runs = difference(research, "old", "new", "--claims", "claims.yaml", code=1)
    for name in ("old", "new"):
        assert research("report", name, "--out", f"report_{name}", "--claims", "claims.yaml").code in (0, 1)  # 1: broken
        shutil.rmtree(name)
    for options in ((), ("--claims", "claims.yaml")):
        reports = difference(research, "report_old", "report_new", *options, code=1)
        assert reports["study"] == runs["study"]


def test_a_factor_of_one_is_the_same_everywhere_in_the_other(place, research):
    """The earlier sweep had one r: its settings are the later's with that r."""
    path = Path("old", "plan.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:24]))
    study = difference(research, "old", "new")["study"]
    assert (study["settings"], len(study["added"]), study["removed"], study["notes"]) == (8, 8, [], [])
    assert study["identical"] == 23  # 24 less one that failed


def test_an_option_that_is_another_in_every_run_is_said(place, research):
    for one in points():
        path = Path("new", one, "config.yaml")
        if path.exists():
            path.write_text(path.read_text().replace("batch_size: 16", "batch_size: 32"))
    study = difference(research, "old", "new")["study"]
    assert study["options"] == {"data.batch_size": {"old": 16, "new": 32}}
    assert "data.batch\\_size: 16 → 32 in every run" in research("report", "--diff", "old", "new").out


def test_reports_of_different_metrics_are_compared_by_one_that_both_have(place, research):
    assert research("report", "new", "--metric", "val/token_accuracy", "--out", "accuracy").code == 0
    study = difference(research, "old", "accuracy")["study"]
    assert study["metric"] == "val/token_accuracy"
    assert study["notes"] == [
        "the earlier report is about val/loss, the later about val/token_accuracy: compared by val/token_accuracy"
    ]
    assert difference(research, "old", "accuracy", "--metric", "val/loss")["study"]["notes"] == []


def test_groups_of_other_code_meet_those_of_their_own(place, research):
    """One setting, two codes, three seeds each, in both sweeps: each is compared with its like."""
    for name in ("old", "new"):
        for i in DONE:
            source = Path(name, points(name)[i])
            twin = Path(name, f"twin{i}")
            shutil.copytree(source, twin)
            edit(twin / "provenance.json", fingerprint="second", point=f"twin{i}")
            with open(Path(name, "plan.jsonl"), "a") as stream:
                stream.write(json.dumps({"point": f"twin{i}", "values": {}, "argv": []}) + "\n")
    study = difference(research, "old", "new")["study"]
    assert (study["settings"], study["identical"], study["moved"], study["added"]) == (17, 48, [], [])


def test_a_claim_that_one_report_does_not_make_is_not_claimed_there(place, research):
    Path("claims.yaml").write_text(f"claims:\n  - {GOOD}\n")
    assert research("report", "new", "--out", "claiming", "--claims", "claims.yaml").code == 0
    for sides, states in ((("old", "claiming"), ("not claimed", "held")), (("claiming", "old"), ("held", "not claimed"))):
        (claim,) = difference(research, *sides)["study"]["claims"]
        assert (claim["claim"], claim["old"], claim["new"]) == (GOOD, *states)


def test_where_nothing_can_be_compared_the_conclusions_are_not_called_the_same(place, research):
    """One seed a setting, and other code: no run is identical, and no setting has a spread."""
    for name in ("old", "new"):
        path = Path(name, "plan.jsonl")
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::3]))
    for i, one in enumerate(points()):
        if Path("new", one, "metrics.json").exists():
            add(i, 0.5 + i / 100, code="other")
    found = difference(research, "old", "new")
    assert found["verdict"] == "Nothing could be contradicted: no identical run is in both, and no setting can be tested."
    assert found["compared"] == 0
    assert "The same conclusions." not in research("report", "--diff", "old", "new").out


def kept(*made_of: str) -> list[RunRecord]:
    return [RunRecord("a", Path(), "done", "", "", "a", 0, {}, {}, {}, {}, made_of)]


COMMIT = "1bc271306c8dc5eb1c0c47be6d2120ead19cb5d5"


@pytest.mark.parametrize(
    ("old", "new", "changed", "says"),
    [
        (("", "c1", "b1"), ("", "c2", "b1"), {"code": (["c1"], ["c2"])}, []),
        (('{"train": "t"}', "c", "b"), ('{"train": "t", "other": "o"}', "c", "b"), {"data.other": ([], ["o"])}, []),
        (('{"train": "t"}', "c", "b"), ("", "c", ""), {}, ["data and base are not recorded in the later report"]),
        (("", "unsaid", "b"), ("", "c", "b"), {}, ["code is not recorded in the earlier report"]),
        (
            ("", "44bfd18097c4aaaa", ""),
            ("", COMMIT, ""),
            {},
            [
                "code is the package's fingerprint in the earlier report (44bfd18097c4) and git's commit in the later "
                "(1bc271306c8d)"
            ],
        ),
        (
            ("", f"{COMMIT} {COMMIT[::-1]}", ""),
            ("", "44bfd18097c4aaaa", ""),
            {},
            [
                "code is git's commit in the earlier report (1bc271306c8d) and the package's fingerprint in the later "
                "(44bfd18097c4)"
            ],
        ),
    ],
)
def test_what_one_side_does_not_record_is_no_change(old, new, changed, says):
    """W&B's logs know the commit, our folders the fingerprint of the code; and neither is another's change."""
    notes: list[str] = []
    assert hashes(kept(*old), kept(*new), notes) == changed
    assert notes == says


# ---- systems of retrievals ------------------------------------------------------------------------------------------


def test_systems_are_compared_by_number_and_identical_ones_to_the_last_bit(tmp_path, monkeypatch, research):
    monkeypatch.chdir(tmp_path)
    run_folder(Path("old"), {"bm25": stage(A, "BM25", 1.0), "dense": stage(A, "Dense", 2.0, model="m1")})
    run_folder(Path("new"), {"bm25": stage(A, "BM25", 9.0), "dense": stage(B, "Dense", 2.0, model="m2")})
    systems = difference(research, "old", "new")["systems"]
    assert (systems["both"], systems["identical"], systems["breaks"]) == (2, 1, [])  # a time is no setting
    assert systems["moved"][0] == {"system": "Dense", "metric": "ndcg@10", "old": 0.5, "new": 0.875}
    run_folder(Path("wrong"), {"bm25": stage(A | {"q1": 1e-9}, "BM25"), "other": stage(B, "Other")})
    found = difference(research, "old", "wrong", code=1)["systems"]
    assert [(one["run"], one["metric"]) for one in found["breaks"]] == [("BM25", "ndcg@10"), ("BM25", "mrr@10")]
    assert (found["added"], found["removed"]) == (["Other"], ["Dense"])
    # by other code it is another run
    edit(Path("wrong/provenance.json"), git_commit="f00d")
    assert difference(research, "old", "wrong")["systems"]["breaks"] == []
    for name in ("old", "new"):
        assert research("report", name, "--out", f"report_{name}").code == 0
    assert difference(research, "report_old", "report_new")["systems"] == systems


def test_systems_beside_trainings_that_are_no_study_are_compared(place, research):
    """Their report keeps nothing of the trainings; that is no reason to compare nothing."""
    one, two = (Path("new", name) for name in points()[:2])
    edit(two / "metrics.json", monitor="val/rouge_l")
    run_folder(Path("systems"), {"bm25": stage(A, "BM25")})
    assert research("report", "systems", one, two, "--out", "out").code == 0
    found = difference(research, "out", "out")
    assert (found["study"], found["systems"]["identical"]) == (None, 1)


def test_systems_of_which_none_is_in_both_contradict_nothing(tmp_path, monkeypatch, research):
    monkeypatch.chdir(tmp_path)
    run_folder(Path("old"), {"bm25": stage(A, "BM25")})
    run_folder(Path("new"), {"dense": stage(B, "Dense")})
    assert difference(research, "old", "new")["verdict"] == "Nothing could be contradicted: no identical system is in both."
    run_folder(Path("more"), {"bm25": stage(A, "BM25"), "dense": stage(B, "Dense")})
    assert difference(research, "old", "more")["verdict"] == "The same conclusions."


def test_all_digits_have_a_true_minus():
    (row,) = diff_words.breaks_sheet("identical", [Break("a", "r=4", "val/x", -0.5, -1e-16)]).rows
    assert [cell.text for cell in row[3:]] == ["−0.5", "−1e−16", "+0.5"]
    assert [cell.value for cell in row[3:5]] == [-0.5, -1e-16]


def test_trainings_that_are_no_study_still_make_a_report(place, research):
    """Monitored by different metrics, or one setting and seed twice: nothing to compare, and a page all the same."""
    one, two = (Path("new", name) for name in points()[:2])
    edit(two / "metrics.json", monitor="val/rouge_l")
    assert research("report", one, two, "--out", "out").code == 0
    assert json.loads(Path("out/report.json").read_text()).get("study") is None
    result = research("report", "--diff", "out", "out")
    assert (result.code, "says nothing of its runs" in result.err) == (2, True)
    # one run is a study of one setting
    assert research("report", one, "--out", "single").code == 0
    assert difference(research, "single", one)["study"]["identical"] == 1


# ---- what is written, and what is refused ---------------------------------------------------------------------------


def test_out_holds_the_text_the_numbers_and_the_tables_and_is_written_again(place, research):
    add(0, 1e-6)
    result = research("report", "--diff", "old", "new", "--out", "out")
    assert result.code == 1
    assert Path("out/diff.md").read_text() == result.out
    assert json.loads(Path("out/diff.json").read_text())["same"] is False
    assert Path("out/tables/identical.csv").read_text().splitlines()[0] == "run,setting,metric,before,after,difference"
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert research("report", "--diff", "old", "new", "--out", "out").code == 1
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("old",), "--diff has 1 folder; expected two"),
        (("old", "new", "old"), "--diff has 3 folders; expected two"),
        (("old", "nowhere"), "nowhere does not exist; expected a folder that"),
        (("old", "systems"), "old holds trainings, systems systems; expected two of one kind"),
        (("old", "new", "--metric", "val/x"), "no finished run has val/x"),
        (("old", "new", "--baseline", "r=2"), "--baseline r=2 is of one report"),
        (("old", "new", "--wandb", "me/p"), "--wandb and --dry-run are of one report"),
        (("old", "new", "--dry-run"), "--wandb and --dry-run are of one report"),
        (("old", "new", "--claims", "nowhere.yaml"), "nowhere.yaml cannot be read"),
        (("systems", "systems", "--claims", "claims.yaml"), "is about trainings, and systems has none"),
        (("systems", "elsewhere"), "the systems were measured on different data: beir:x split test (data d1) in systems"),
        (("old", "earlier"), "earlier/report.json says nothing of its runs"),
        (("old", "foreign"), "foreign/report.json is no report's"),
        (("old", "claims.yaml"), "claims.yaml is a file"),
        (("old", "unlike"), "the reports have no metric in common"),
        (("old", "apart"), "the reports have no setting in common"),
        (("old", "new", "--out", "old"), "holds files but no diff.json"),
        (("old", "new", "--out", "claims.yaml"), "is a file"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(options, says, place, research):
    Path("claims.yaml").write_text(CLAIMS)
    run_folder(Path("systems"), {"bm25": stage(A, "BM25")})
    run_folder(Path("elsewhere"), {"bm25": stage(A, "BM25")}, data="d2")
    assert research("report", "new", "--out", "kept").code == 0
    report = json.loads(Path("kept/report.json").read_text())
    study = report["study"]
    unlike, apart = json.loads(json.dumps([study, study]))
    for group in unlike["groups"]:
        for run in group["runs"]:
            run["metrics"] = {"val/mrr@10": 0.5}
    unlike["metric"] = "val/mrr@10"
    for group in apart["groups"]:
        group["options"]["model.adapter.r"] = 999
    made = {
        "earlier": report | {"study": {"metric": "val/loss"}},
        "foreign": {"verb": "other"},
        "unlike": report | {"study": unlike},
        "apart": report | {"study": apart},
    }
    for name, value in made.items():
        Path(name).mkdir()
        Path(name, "report.json").write_text(json.dumps(value))
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and "cache" not in path.parts}
    result = research("report", "--diff", *options)
    assert (result.code, result.out) == (2, ""), result.out
    assert says in result.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and "cache" not in path.parts} == before
