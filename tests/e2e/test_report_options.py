"""What one may say of a report: a folder of runs, a baseline of systems, words for options, and plain LaTeX."""

import csv
import json
import sys
from pathlib import Path

import pytest

from research.metrics.significance import compare, holm
from research.report.systems import Row, Systems, read_systems
from research.report.tables import compare_pairs, measure
from tests.e2e.test_report_golden import _head
from tests.synthetic_runs import write_study

SECOND = "r=2 lora_alpha=2 lora_dropout=0 lr=0.0001"
LABELS = """\
labels: {r: rank, model.adapter.lora_alpha: α, lr: learning rate, val/loss: validation loss, lora_dropout: dropout}
baseline: %s
"""


@pytest.fixture(autouse=True)
def without_figures(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.chdir(tmp_path)


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path("out/tables", table).read_text().splitlines()))


def test_a_folder_of_runs_stands_for_the_runs_in_it(tmp_path, research):
    _head(tmp_path)
    Path("some").mkdir()
    for name in ("retrieve", "dual"):
        Path("runs", name).rename(Path("some", name))
    Path("some/notes.txt").write_text("mine")
    result = research("report", "some", "--out", "out", "--json")
    assert (result.code, result.json["rows"], result.json["trainings"]) == (0, 4, 1), result.err
    assert "some holds 2 runs: dual, retrieve; not read: notes.txt" in result.err
    (tmp_path / "empty").mkdir()
    result = research("report", "empty", "--out", "other")
    assert (result.code, "is not a run folder" in result.err) == (2, True), result.err


def test_systems_are_tested_against_a_baseline(tmp_path, research):
    _head(tmp_path)
    result = research("report", "runs/retrieve", "--baseline", "bm25", "--out", "out")
    assert result.code == 0, result.err
    systems = read_systems([Path("runs/retrieve")])
    values = {row.label: row.per_query[systems.metric] for row in systems.rows}
    others = [name for name in values if name != "BM25"]
    expected = dict(zip(others, holm([compare(values["BM25"], values[name]).p for name in others]), strict=True))
    table = {row["system"]: row for row in rows("systems.csv")}
    assert {name: float(table[name]["p (Holm)"]) for name in others} == expected
    assert table["BM25"]["difference"] == ""
    assert "| Difference from BM25 |" in Path("out/report.md").read_text()
    page = Path("out/index.html").read_text()
    assert "compare a row with BM25, query by query" in " ".join(page.split())
    kept = json.loads(Path("out/report.json").read_text())
    assert (kept["baseline"], kept["rows"][0]["against_baseline"]["p_holm"]) == ("BM25", expected[others[0]])
    result = research("report", "runs/retrieve", "--baseline", "BM52", "--out", "out")
    assert (result.code, "baseline 'BM52' is no system; did you mean 'BM25'?" in result.err) == (2, True), result.err
    result = research("report", "runs/retrieve", "--baseline", "retrieve", "--out", "out")
    assert (result.code, "baseline 'retrieve' fits 'dual (exact)', 'BM25', " in result.err) == (2, True), result.err


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("MiniLM (exact)", ["MiniLM (exact)"]),
        ("minilm", ["MiniLM (exact)"]),
        ("own", ["own (exact)", "own (hnsw)"]),
        ("own (HNSW)", ["own (hnsw)"]),
        ("fused: bm25 + minilm", ["Fused: BM25 + MiniLM (exact)"]),
        ("tuned", ["tuned (exact) · b"]),
        ("tuned · b", ["tuned (exact) · b"]),
        ("bm25", ["BM25"]),
        ("b/dense", ["tuned (exact) · b"]),
        ("b", ["tuned (exact) · b"]),
        ("a", ["BM25", "MiniLM (exact)", "Fused: BM25 + MiniLM (exact)", "own (exact)", "own (hnsw)"]),
        ("./models/own", ["own (exact)", "own (hnsw)"]),
        ("nothing", []),
    ],
)
def test_a_system_is_found_by_its_plain_name(wanted, found):
    labels = ["BM25", "MiniLM (exact)", "Fused: BM25 + MiniLM (exact)", "own (exact)", "own (hnsw)", "tuned (exact) · b"]
    stages = ["bm25", "dense", "fused", "dense2", "dense3", "dense"]
    rows = [
        Row("b" if "· b" in label else "a", stage, label, {"model": f"./models/{label.split()[0]}"}, {}, {}, {})
        for label, stage in zip(labels, stages, strict=True)
    ]
    assert Systems([], rows, "ndcg@10").labels_of(wanted) == found


def test_every_pair_of_systems_is_in_one_table(tmp_path, research):
    _head(tmp_path)
    assert research("report", "runs/retrieve", "--out", "out").code == 0
    systems = read_systems([Path("runs/retrieve")])
    lines = measure(systems)
    pairs = compare_pairs(lines, systems.metric)
    assert len(pairs) == 6
    table = rows("pairs.csv")
    for (i, j), (test, p) in pairs.items():
        assert float(table[i][str(j + 1)]) == test.difference == pytest.approx(lines[i].mean - lines[j].mean)
        assert float(table[j][str(i + 1)]) == p
    assert "every pair of systems" in Path("out/index.html").read_text()


@pytest.mark.parametrize(
    "baseline", ["r=4 lora_alpha=4 lora_dropout=0 lr=0.0001", "rank=4, α=4, dropout=0, learning rate=0.0001"]
)
def test_words_of_the_spec_stand_in_tables_and_page(tmp_path, research, baseline):
    write_study(Path("runs/points"), 30)
    Path("report.yaml").write_text(LABELS % baseline)
    Path("claims.yaml").write_text(f"claims: ['{baseline} beats {SECOND}']")
    result = research("report", "runs/points", "--spec", "report.yaml", "--claims", "claims.yaml", "--out", "out")
    assert result.code in (0, 1), result.err
    (head, *_), text = Path("out/tables/results.csv").read_text().splitlines(), Path("out/report.md").read_text()
    assert head.split(",")[:6] == ["rank", "α", "dropout", "learning rate", "seeds", "validation loss"]
    before, _, claims = text.partition("## Claims")
    assert "| validation loss " in claims.partition("## ")[0]
    assert "val/loss" not in claims.partition("## ")[0]
    assert "Difference from rank=4, α=4, dropout=0, learning rate=0.0001 by" in before
    assert "lora" not in before.replace("lora_r", "")
    assert "val/loss" not in before
    data = json.loads(Path("out/index.html").read_text().split('id="explorer-data">')[1].split("</script>")[0])
    labels = {column["id"]: column["label"] for column in data["columns"]}
    assert (labels["model.adapter.r"], labels["val/loss"], labels["val/rouge_l"]) == ("rank", "validation loss", "val/rouge_l")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("labels: {lora_dropot: dropout}", "labels: 'lora_dropot' is an option or metric of no run; did you mean"),
        ("labels: {r: x, lr: x}", "labels: 'x' is there for two; expected a word for each"),
        ("labels: {r: 3}", "labels: r is '3'; expected words"),
        ("labels: [r]", "labels is \"['r']\"; expected names of options or metrics"),
        ("latex: tabular", "latex is 'tabular'; expected booktabs or plain"),
    ],
)
def test_words_that_fit_nothing_are_refused(tmp_path, research, spec, says):
    write_study(Path("runs/points"), 6)
    Path("report.yaml").write_text(spec)
    result = research("report", "runs/points", "--spec", "report.yaml", "--out", "out")
    assert result.code == 2
    assert says in result.err, result.err
    assert not Path("out").exists()


def test_plain_latex_needs_no_package(tmp_path, research):
    _head(tmp_path)
    assert research("report", "runs/retrieve", "--latex", "plain", "--out", "out").code == 0
    text = Path("out/tables/systems.tex").read_text()
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[:2] == [r"\begin{tabular}{lrrrrrrrr}", r"\hline"]
    assert body[-1] == r"\end{tabular}"
    assert not any(word in "\n".join(body) for word in ("toprule", "resizebox", "caption", "begin{table}"))
    assert all(line.count("&") - line.count(r"\&") == 8 for line in body if line.endswith(r"\\"))
